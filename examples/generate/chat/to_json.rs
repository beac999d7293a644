//! The filter `tojson` of transformers: Python's `json.dumps`, which keeps the order of keys, puts a
//! space behind commas and colons, and leaves HTML and other scripts as they are.

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Value};
use serde_json::Value as Json;

/// `value | tojson(ensure_ascii=false, indent=none, separators=none, sort_keys=false)`.
pub fn to_json(
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<String, Error> {
    let indent = indent.or(options.get("indent")?).filter(|indent| !indent.is_none());
    let separators: Option<Vec<String>> = options.get("separators")?;
    let (item, key) = match separators.as_deref() {
        None => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
        Some([item, key]) => (item.clone(), key.clone()),
        Some(other) => {
            let got = format!("tojson: expected two separators, got {}", other.len());
            return Err(Error::new(ErrorKind::InvalidOperation, got));
        }
    };
    let indent = match indent {
        None => None,
        Some(text) if text.kind() == ValueKind::String => Some(text.to_string()),
        Some(spaces) => Some(" ".repeat(i64::try_from(spaces)?.clamp(0, 64) as usize)),
    };
    let ensure_ascii = ensure_ascii.or(options.get("ensure_ascii")?).unwrap_or(false);
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let writer = Writer { item, key, indent, ensure_ascii, sort_keys };
    let mut json = String::new();
    writer.write(value, 0, &mut json)?;
    Ok(json)
}

struct Writer {
    /// Between two items.
    item: String,
    /// Between a key and its value.
    key: String,
    /// What a line begins with, once for each level; all stands in one line without it.
    indent: Option<String>,
    ensure_ascii: bool,
    sort_keys: bool,
}

impl Writer {
    fn write(&self, value: &Value, level: usize, json: &mut String) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => json.push_str("null"),
            ValueKind::Bool => json.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => json.push_str(&number(value)),
            ValueKind::String => self.string(value.as_str().unwrap_or_default(), json),
            ValueKind::Seq => {
                let values: Vec<Value> = value.try_iter()?.collect();
                self.block(['[', ']'], &values, level, json, |value, json| {
                    self.write(value, level + 1, json)
                })?;
            }
            ValueKind::Map => {
                let mut entries = Vec::new();
                for (key, value) in items(value) {
                    entries.push((self.name(&key)?, value));
                }
                if self.sort_keys {
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.block(['{', '}'], &entries, level, json, |(name, value), json| {
                    self.string(name, json);
                    json.push_str(&self.key);
                    self.write(value, level + 1, json)
                })?;
            }
            kind => {
                let got = format!("tojson: expected a value that JSON has, got {kind}");
                return Err(Error::new(ErrorKind::InvalidOperation, got));
            }
        }
        Ok(())
    }

    fn block<T>(
        &self,
        [open, close]: [char; 2],
        items: &[T],
        level: usize,
        json: &mut String,
        write: impl Fn(&T, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        json.push(open);
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                json.push_str(&self.item);
            }
            self.new_line(level + 1, json);
            write(item, json)?;
        }
        if !items.is_empty() {
            self.new_line(level, json);
        }
        json.push(close);
        Ok(())
    }

    fn new_line(&self, level: usize, json: &mut String) {
        if let Some(indent) = &self.indent {
            json.push('\n');
            json.push_str(&indent.repeat(level));
        }
    }

    /// A key, which JSON has as strings only.
    fn name(&self, key: &Value) -> Result<String, Error> {
        match key.kind() {
            ValueKind::String => Ok(key.to_string()),
            ValueKind::None => Ok("null".into()),
            ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.into()),
            ValueKind::Number => Ok(number(key)),
            kind => {
                let got = format!("tojson: expected a key that JSON has, got {kind}");
                Err(Error::new(ErrorKind::InvalidOperation, got))
            }
        }
    }

    fn string(&self, text: &str, json: &mut String) {
        json.push('"');
        for c in text.chars() {
            match c {
                '"' => json.push_str("\\\""),
                '\\' => json.push_str("\\\\"),
                '\n' => json.push_str("\\n"),
                '\r' => json.push_str("\\r"),
                '\t' => json.push_str("\\t"),
                '\u{8}' => json.push_str("\\b"),
                '\u{c}' => json.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        json.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => json.push(c),
            }
        }
        json.push('"');
    }
}

/// The entries of a dictionary, in its order.
fn items(map: &Value) -> impl Iterator<Item = (Value, Value)> {
    let keys = map.try_iter().into_iter().flatten();
    keys.map(|key| {
        let value = map.get_item(&key).unwrap_or_default();
        (key, value)
    })
}

/// An integer, or a float as Python writes it: the shortest digits that give it back, with a point
/// or with an exponent of at least two digits.
fn number(value: &Value) -> String {
    let float = match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => float,
        _ => return value.to_string(),
    };
    if float.is_nan() {
        return "NaN".into();
    }
    if float.is_infinite() {
        return if float > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    // Of two that are as short and as near, serde_json takes the even one, as Python does.
    let shortest = Json::from(float).to_string();
    if float == 0.0 || (1e-4..1e16).contains(&float.abs()) {
        return shortest;
    }
    let written = if shortest.contains('e') { shortest } else { format!("{float:e}") };
    let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent.trim_start_matches('+')),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}
