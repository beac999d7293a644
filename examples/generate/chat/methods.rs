//! Python's methods of strings, lists and dictionaries: those of minijinja-contrib, and here those
//! that it lacks, or that it has with fewer arguments.

use minijinja::value::{Kwargs, Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// Calls the method `name` of `value`.
pub fn call(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let own = match value.kind() {
        ValueKind::String => string(value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Seq => list(value, name, args)?,
        ValueKind::Map if name == "copy" => {
            let () = from_args(args)?;
            Some(value.clone())
        }
        _ => None,
    };
    match own {
        Some(value) => Ok(value),
        None => pycompat::unknown_method_callback(state, value, name, args),
    }
}

fn refuse<T>(why: String) -> Result<T, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, why))
}

fn string(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match name {
        "split" | "rsplit" => {
            let (separator, most, options): (Option<Value>, Option<i64>, Kwargs) = from_args(args)?;
            let separator = separator.or(options.get("sep")?).filter(|sep| !sep.is_none());
            let most =
                most.or(options.get("maxsplit")?).and_then(|most| usize::try_from(most).ok());
            options.assert_all_used()?;
            let separator = match &separator {
                None => None,
                Some(separator) => match separator.as_str() {
                    None => return refuse(format!("{name}: expected a string, got {separator}")),
                    Some("") => return refuse(format!("{name}: expected a separator, got none")),
                    text => text,
                },
            };
            let parts = match name {
                "split" => split(text, separator, most),
                _ => split_from_the_end(text, separator, most),
            };
            parts.into_iter().map(Value::from).collect()
        }
        "startswith" | "endswith" => {
            let (what, start, end): (Value, Option<i64>, Option<i64>) = from_args(args)?;
            if start.is_none() && end.is_none() {
                return Ok(None);
            }
            let part = slice(text, start, end).map(|(_, part)| part);
            let has = |what: &str| match name {
                "startswith" => part.is_some_and(|part| part.starts_with(what)),
                _ => part.is_some_and(|part| part.ends_with(what)),
            };
            let any = match what.as_str() {
                Some(what) => has(what),
                None => what.try_iter()?.any(|what| what.as_str().is_some_and(has)),
            };
            any.into()
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let (what, start, end): (&str, Option<i64>, Option<i64>) = from_args(args)?;
            let part = slice(text, start, end);
            if name == "count" {
                return Ok(Some(part.map_or(0, |(_, part)| part.matches(what).count()).into()));
            }
            let found = part.and_then(|(skipped, part)| {
                let at = if name.starts_with('r') { part.rfind(what) } else { part.find(what) };
                at.map(|at| skipped + part[..at].chars().count())
            });
            match found {
                Some(at) => at.into(),
                None if name.ends_with("find") => Value::from(-1),
                None => return refuse(format!("{name}: {what:?} is not in {text:?}")),
            }
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            if separator.is_empty() {
                return refuse(format!("{name}: expected a separator, got none"));
            }
            let parts = match name {
                "partition" => text.split_once(separator).map(|(a, b)| [a, separator, b]),
                _ => text.rsplit_once(separator).map(|(a, b)| [a, separator, b]),
            };
            let whole = if name == "partition" { [text, "", ""] } else { ["", "", text] };
            Value::from(Tuple::from(parts.unwrap_or(whole).map(Value::from).to_vec()))
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            text.strip_prefix(prefix).unwrap_or(text).into()
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            text.strip_suffix(suffix).unwrap_or(text).into()
        }
        "title" => {
            let () = from_args(args)?;
            titled(text).into()
        }
        "istitle" => {
            let () = from_args(args)?;
            (text.chars().any(char::is_alphabetic) && titled(text) == text).into()
        }
        "swapcase" => {
            let () = from_args(args)?;
            let mut swapped = String::new();
            for c in text.chars() {
                match c.is_uppercase() {
                    true => swapped.extend(c.to_lowercase()),
                    false => swapped.extend(c.to_uppercase()),
                }
            }
            swapped.into()
        }
        "casefold" => {
            let () = from_args(args)?;
            text.to_lowercase().replace('ß', "ss").into()
        }
        "zfill" => {
            let (width,): (i64,) = from_args(args)?;
            let (sign, digits) = match text.strip_prefix(['+', '-']) {
                Some(digits) => (&text[..1], digits),
                None => ("", text),
            };
            format!("{sign}{}{digits}", "0".repeat(missing(text, width)?)).into()
        }
        "ljust" | "rjust" | "center" => {
            let (width, fill): (i64, Option<char>) = from_args(args)?;
            let missing = missing(text, width)?;
            // An odd one goes to the left if the width is odd, as CPython does it.
            let before = match name {
                "ljust" => 0,
                "rjust" => missing,
                _ => missing / 2 + (missing & width as usize & 1),
            };
            let fill = |count| fill.unwrap_or(' ').to_string().repeat(count);
            format!("{}{text}{}", fill(before), fill(missing - before)).into()
        }
        _ => return Ok(None),
    }))
}

fn list(values: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    match name {
        "copy" => {
            let () = from_args(args)?;
            Ok(Some(values.clone()))
        }
        "index" => {
            let (what,): (&Value,) = from_args(args)?;
            match values.try_iter()?.position(|value| value == *what) {
                Some(at) => Ok(Some(at.into())),
                None => refuse(format!("index: {what} is not in the list")),
            }
        }
        _ => Ok(None),
    }
}

/// The characters of `text` from `start` to `end`, negative ones counted from its end, and how many
/// stand before them. Nothing if `start` lies behind the end.
fn slice(text: &str, start: Option<i64>, end: Option<i64>) -> Option<(usize, &str)> {
    let length = text.chars().count() as i64;
    let place = |at: i64| if at < 0 { (at + length).max(0) } else { at };
    let (start, end) = (start.map_or(0, place), end.map_or(length, place).min(length));
    if start > end {
        return None;
    }
    let byte = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    Some((start as usize, &text[byte(start)..byte(end)]))
}

/// `text.split(separator, most)`; by runs of spaces without a separator.
fn split<'a>(text: &'a str, separator: Option<&str>, most: Option<usize>) -> Vec<&'a str> {
    let most = most.unwrap_or(usize::MAX);
    if let Some(separator) = separator {
        return text.splitn(most.saturating_add(1), separator).collect();
    }
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        match rest.split_once(char::is_whitespace) {
            Some((part, behind)) if parts.len() < most => {
                parts.push(part);
                rest = behind.trim_start();
            }
            _ => {
                parts.push(rest);
                break;
            }
        }
    }
    parts
}

/// `text.rsplit(separator, most)`.
fn split_from_the_end<'a>(
    text: &'a str,
    separator: Option<&str>,
    most: Option<usize>,
) -> Vec<&'a str> {
    let most = most.unwrap_or(usize::MAX);
    let mut parts: Vec<&str> = Vec::new();
    if let Some(separator) = separator {
        parts.extend(text.rsplitn(most.saturating_add(1), separator));
    } else {
        let mut rest = text.trim_end();
        while !rest.is_empty() {
            match rest.rsplit_once(char::is_whitespace) {
                Some((before, part)) if parts.len() < most => {
                    parts.push(part);
                    rest = before.trim_end();
                }
                _ => {
                    parts.push(rest);
                    break;
                }
            }
        }
    }
    parts.reverse();
    parts
}

/// The first letter of every run of letters large, all others small.
fn titled(text: &str) -> String {
    let mut titled = String::new();
    let mut in_word = false;
    for c in text.chars() {
        match in_word {
            true => titled.extend(c.to_lowercase()),
            false => titled.extend(c.to_uppercase()),
        }
        in_word = c.is_alphabetic();
    }
    titled
}

/// How many characters `text` lacks of `width`.
fn missing(text: &str, width: i64) -> Result<usize, Error> {
    let width = usize::try_from(width.max(0)).unwrap_or(usize::MAX);
    if width > 1 << 16 {
        return refuse(format!("expected a width of at most 65536, got {width}"));
    }
    Ok(width.saturating_sub(text.chars().count()))
}
