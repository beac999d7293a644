//! The language of chat templates: Jinja2 with what transformers adds to it.

use std::fmt::Write;

use chrono::NaiveDateTime;
use chrono::format::{Item, StrftimeItems};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value};

use super::{methods, to_json};

/// What a template itself says against a conversation.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Raised(pub String);

/// An environment that renders as transformers' does. `now` is what `strftime_now` tells.
pub fn environment(now: NaiveDateTime) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    minijinja_contrib::add_to_environment(&mut environment);
    environment.set_unknown_method_callback(methods::call);
    environment.add_filter("tojson", to_json::to_json);
    environment.add_test("sequence", |value: &Value| {
        use ValueKind::{Map, Seq, String, Undefined};
        matches!(value.kind(), Seq | String | Map | Undefined)
    });
    environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    environment.add_function("raise_exception", |message: String| {
        let error = Error::new(ErrorKind::InvalidOperation, message.clone());
        Err::<Value, _>(error.with_source(Raised(message)))
    });
    environment.add_function("strftime_now", move |format: &str| date(now, format));
    Ok(environment)
}

/// `now.strftime(format)`.
fn date(now: NaiveDateTime, format: &str) -> Result<String, Error> {
    let refuse = || {
        let got = format!("strftime_now: expected a format of a date and a time, got {format:?}");
        Error::new(ErrorKind::InvalidOperation, got)
    };
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    if items.contains(&Item::Error) {
        return Err(refuse());
    }
    let mut date = String::new();
    write!(date, "{}", now.format_with_items(items.iter())).map_err(|_| refuse())?;
    Ok(date)
}

/// A template in the syntax that minijinja reads.
///
/// Line ends become those of Jinja2. A block `{% generation %}` marks what the assistant wrote, for
/// training; it prints what is in it, in a scope of its own, which `{% with %}` is too.
pub fn source(template: &str) -> String {
    let template = template.replace("\r\n", "\n").replace('\r', "\n");
    let mut source = String::new();
    let mut rest = template.as_str();
    let mut raw = false;
    while let Some(at) = rest.find("{%") {
        let (before, block) = rest.split_at(at);
        source.push_str(before);
        // Where the block says no more than one word, its word and its end.
        let inner = block[2..].trim_start_matches(['-', '+']).trim_start();
        let length = inner.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inner.len());
        let word = &inner[..length];
        let alone = inner[length..].trim_start().trim_start_matches(['-', '+']).starts_with("%}");
        let instead = match (word, alone) {
            ("raw" | "endraw", true) => {
                raw = word == "raw";
                word
            }
            ("generation", true) if !raw => "with",
            ("endgeneration", true) if !raw => "endwith",
            _ => {
                source.push_str("{%");
                rest = &block[2..];
                continue;
            }
        };
        let begin = block.len() - inner.len();
        source.push_str(&block[..begin]);
        source.push_str(instead);
        rest = &block[begin + length..];
    }
    source.push_str(rest);
    source
}
