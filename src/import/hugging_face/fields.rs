//! Reading a foreign configuration: each field by its type, and errors that name it.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// What a size must be. The bound keeps products of sizes within a machine word, and what is
/// computed before the weights are looked at within memory.
const SIZE: &str = "a whole number from 1 to 16777216";
const GREATEST_SIZE: u64 = 1 << 24;

/// More layers than any model has, and few enough to prepare them all before the weights are looked
/// at.
const MOST_LAYERS: usize = 10_000;

/// A JSON object of a configuration file, and where it stands.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    /// The file, for messages.
    file: &'a str,
    /// The fields that hold this object, each with a dot behind it; empty for the whole file.
    inside: String,
    values: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub fn new(file: &'a str, values: &'a Map<String, Value>) -> Self {
        Self { file, inside: String::new(), values }
    }

    /// The value of `name`; null counts as not there.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    /// Whether the file says null, which may mean another thing than saying nothing.
    pub fn is_null(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(Value::is_null)
    }

    /// [`Error::ConfigFile`] for the value of `name`.
    pub fn refuse<T>(&self, name: &str, expected: impl Into<String>) -> Result<T> {
        let field = format!("{}{name}", self.inside);
        let got = self.values.get(name).map_or("nothing".into(), Value::to_string);
        Err(Error::ConfigFile { path: self.file.into(), field, expected: expected.into(), got })
    }

    /// A number that counts something: at least 1, and small enough to be meant. `default` is what
    /// a file without it means; null is refused.
    pub fn size(&self, name: &str, default: usize) -> Result<usize> {
        match self.find_size_or(name, default)? {
            Some(size) => Ok(size),
            None => self.refuse(name, SIZE),
        }
    }

    /// The number of layers.
    pub fn layers(&self, name: &str, default: usize) -> Result<usize> {
        let layers = self.size(name, default)?;
        if layers > MOST_LAYERS {
            return self.refuse(name, format!("at most {MOST_LAYERS} layers"));
        }
        Ok(layers)
    }

    /// A number that counts something, if it is there and not null.
    pub fn find_size(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64().filter(|size| (1..=GREATEST_SIZE).contains(size)) {
            Some(size) => Ok(Some(size as usize)),
            None => self.refuse(name, SIZE),
        }
    }

    /// A number that counts something: `default` in a file without it, none where it is null.
    pub fn find_size_or(&self, name: &str, default: usize) -> Result<Option<usize>> {
        if !self.values.contains_key(name) {
            return Ok(Some(default));
        }
        self.find_size(name)
    }

    /// The first of `names`, of which all mean the same, that the file has; else the first.
    pub fn spelled<'n>(&self, names: &[&'n str]) -> &'n str {
        names.iter().find(|name| self.values.contains_key(**name)).unwrap_or(&names[0])
    }

    /// The names of all fields that are not null.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.values.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str())
    }

    /// The fields themselves.
    pub fn values(&self) -> &'a Map<String, Value> {
        self.values
    }

    /// Other values in the place of the field `name`.
    pub fn with_values<'b>(&self, name: &str, values: &'b Map<String, Value>) -> Fields<'b>
    where
        'a: 'b,
    {
        Fields { file: self.file, inside: format!("{}{name}.", self.inside), values }
    }

    /// Any number.
    pub fn number(&self, name: &str) -> Result<f64> {
        match self.find_number(name)? {
            Some(number) => Ok(number),
            None => self.refuse(name, "a number"),
        }
    }

    /// The same, if it is there.
    pub fn find_number(&self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(number) => Ok(Some(number)),
            None => self.refuse(name, "a number"),
        }
    }

    /// The same, or what a file without it means.
    pub fn number_or(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.find_number(name)?.unwrap_or(default))
    }

    /// true or false, or what a file without it means.
    pub fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(name) else { return Ok(default) };
        match value.as_bool() {
            Some(flag) => Ok(flag),
            None => self.refuse(name, "true or false"),
        }
    }

    /// A string, if it is there.
    pub fn find_text(&self, name: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => self.refuse(name, "a string"),
        }
    }

    /// The fields of an object, if it is there.
    pub fn find_object(&self, name: &str) -> Result<Option<Fields<'a>>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_object() {
            Some(values) => {
                let inside = format!("{}{name}.", self.inside);
                Ok(Some(Fields { file: self.file, inside, values }))
            }
            None => self.refuse(name, "an object"),
        }
    }

    /// An error unless the field is not there or has the value `only`.
    pub fn require(&self, name: &str, only: impl Into<Value>) -> Result<()> {
        let only = only.into();
        match self.get(name) {
            None => Ok(()),
            Some(value) if *value == only => Ok(()),
            // 1 and 1.0
            Some(value) if value.is_number() && value.as_f64() == only.as_f64() => Ok(()),
            Some(_) => self.refuse(name, format!("{only}, which is all that this crate has")),
        }
    }

    /// An error if the field is there: it says that the weights are quantised.
    pub fn require_no_quantization(&self, name: &str) -> Result<()> {
        match self.get(name) {
            None => Ok(()),
            Some(_) => self.refuse(
                name,
                "nothing: these weights are quantised, which this crate does not read; take the \
                 checkpoint that they were made from",
            ),
        }
    }
}
