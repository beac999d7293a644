//! The small files of a model's folder.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value};

use crate::failure::Failure;

/// The text of a file; nothing if there is none.
pub fn text(path: &Path) -> Result<Option<String>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        // Beside a file there is nothing either.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(format!("{}: expected text, got {error}", path.display()).into()),
    }
}

/// The JSON object in a file; an empty one if there is no file.
pub fn object(path: &Path) -> Result<Map<String, Value>, Failure> {
    let Some(text) = text(path)? else { return Ok(Map::new()) };
    serde_json::from_str(&text)
        .map_err(|error| format!("{}: expected a JSON object, got {error}", path.display()).into())
}
