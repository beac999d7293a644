//! A configuration from a file or a text.

use std::path::Path;

use burn::config::Config;
use serde_json::Value;

use super::reader::{JsonReader, Refusal};
use crate::{Error, Result};

/// The configuration in a JSON file.
///
/// # Errors
///
/// [`Error::File`] if the file can't be read or holds no JSON; [`Error::ConfigFile`] for a field that
/// the configuration does not have, that it needs and does not find, or that has another type.
pub fn read<C: Config>(path: impl AsRef<Path>) -> Result<C> {
    let name = path.as_ref().display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&name, &text),
        Err(error) => Err(Error::File {
            path: name,
            expected: "a file with a configuration as JSON".into(),
            got: error.to_string(),
        }),
    }
}

/// The configuration in a JSON text.
///
/// # Errors
///
/// As [`read`], where errors call the text `JSON`.
pub fn from_json<C: Config>(text: &str) -> Result<C> {
    parse("JSON", text)
}

fn parse<C: Config>(name: &str, text: &str) -> Result<C> {
    let value: Value = serde_json::from_str(text).map_err(|error| Error::File {
        path: name.into(),
        expected: "a configuration as JSON".into(),
        got: error.to_string(),
    })?;
    C::deserialize(JsonReader::new(value)).map_err(|Refusal { field, expected, got }| {
        let field = field.unwrap_or_else(|| "the whole configuration".into());
        Error::ConfigFile { path: name.into(), field, expected, got }
    })
}
