//! The metadata of a file, key by key and type by type, with errors that name the key.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::header::Header;
use super::value::{Value, ValueArray};
use crate::{Error, Result};

/// What a size must be: as in a configuration of Hugging Face's.
const SIZE: &str = "a whole number from 1 to 16777216";
const GREATEST_SIZE: u64 = 1 << 24;

/// The values of a file, and which of them were asked for.
pub struct Keys<'a> {
    /// The file, for messages.
    path: &'a str,
    header: &'a Header,
    bytes: &'a [u8],
    asked: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    pub fn new(path: &'a str, header: &'a Header, bytes: &'a [u8]) -> Self {
        Self { path, header, bytes, asked: RefCell::default() }
    }

    /// The file, for messages.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.asked.borrow_mut().insert(key.into());
        self.header.get(self.bytes, key)
    }

    /// [`Error::ConfigFile`] for the value of `key`.
    pub fn refuse<T>(&self, key: &str, expected: impl Into<String>) -> Result<T> {
        let got = self.header.get(self.bytes, key);
        Err(Error::ConfigFile {
            path: self.path.into(),
            field: key.into(),
            expected: expected.into(),
            got: got.map_or("nothing".into(), |value| value.to_string()),
        })
    }

    /// An error for the first key that begins with `prefix` and was never asked for.
    pub fn refuse_unread(&self, prefix: &str) -> Result<()> {
        let asked = self.asked.borrow();
        let mut keys = self.header.keys().filter(|key| key.starts_with(prefix));
        match keys.find(|key| !asked.contains(*key)) {
            None => Ok(()),
            Some(key) => self.refuse(key, "a key that this crate knows the meaning of"),
        }
    }

    /// A number that counts something: at least 1, and small enough to be meant. Where a file has one
    /// for each layer, all must be the same.
    pub fn size(&self, key: &str) -> Result<usize> {
        match self.find_size(key)? {
            Some(size) => Ok(size),
            None => self.refuse(key, SIZE),
        }
    }

    /// The same, if it is there.
    pub fn find_size(&self, key: &str) -> Result<Option<usize>> {
        let value = match self.get(key) {
            None => return Ok(None),
            Some(Value::Array(layers)) => {
                let mut numbers = layers.iter().map(Value::as_u64);
                let first = numbers.next().flatten();
                if first.is_none() || numbers.any(|number| number != first) {
                    return self.refuse(key, "a whole number, or the same one for each layer");
                }
                first
            }
            Some(value) => value.as_u64(),
        };
        match value.filter(|size| (1..=GREATEST_SIZE).contains(size)) {
            Some(size) => Ok(Some(size as usize)),
            None => self.refuse(key, SIZE),
        }
    }

    /// A finite number.
    pub fn number(&self, key: &str) -> Result<f64> {
        match self.find_number(key)? {
            Some(number) => Ok(number),
            None => self.refuse(key, "a number"),
        }
    }

    /// The same, if it is there.
    pub fn find_number(&self, key: &str) -> Result<Option<f64>> {
        let number = match self.get(key) {
            None => return Ok(None),
            Some(Value::Unsigned(number)) => number as f64,
            Some(Value::Signed(number)) => number as f64,
            Some(Value::Float(number)) if number.is_finite() => number,
            Some(_) => return self.refuse(key, "a number"),
        };
        Ok(Some(number))
    }

    /// true or false, if it is there.
    pub fn find_flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => self.refuse(key, "true or false"),
        }
    }

    /// A text, if it is there.
    pub fn find_text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(_) => self.refuse(key, "a text"),
        }
    }

    /// An array, if it is there.
    pub fn find_array(&self, key: &str) -> Result<Option<ValueArray<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) => Ok(Some(array)),
            Some(_) => self.refuse(key, "an array"),
        }
    }

    /// An array of elements that `read` finds what it looks for in, if it is there.
    pub fn find_all<T>(
        &self,
        key: &str,
        what: &str,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(array) = self.find_array(key)? else { return Ok(None) };
        match array.iter().map(read).collect() {
            Some(elements) => Ok(Some(elements)),
            None => self.refuse(key, format!("an array of {what}")),
        }
    }

    /// An error unless the key is not there, or a value that `holds`.
    pub fn require(&self, key: &str, only: &str, holds: impl Fn(Value) -> bool) -> Result<()> {
        match self.get(key) {
            Some(value) if !holds(value) => {
                self.refuse(key, format!("{only}, which is all that this crate has"))
            }
            _ => Ok(()),
        }
    }
}
