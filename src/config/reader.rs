//! A JSON value as serde reads it, strictly: unknown fields are errors, absent ones have their
//! defaults.

use std::fmt;

use serde::Deserializer;
use serde::de::{
    self, DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

use super::defaults::{defaults, migrate};

/// What is wrong with a configuration, and where.
#[derive(Debug)]
pub struct Refusal {
    /// The field, with those that it stands in; none for the whole.
    pub field: Option<String>,
    pub expected: String,
    pub got: String,
}

impl Refusal {
    fn new(field: &str, expected: impl Into<String>, got: impl Into<String>) -> Self {
        let field = (!field.is_empty()).then(|| field.into());
        Self { field, expected: expected.into(), got: got.into() }
    }

    /// The same, of the field at `path` unless it is known to be of a field inside.
    fn at(mut self, path: &str) -> Self {
        if self.field.is_none() && !path.is_empty() {
            self.field = Some(path.into());
        }
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, got {}", self.expected, self.got)
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { field: None, expected: "a value that makes sense".into(), got: message.to_string() }
    }

    fn invalid_type(got: de::Unexpected, expected: &dyn de::Expected) -> Self {
        Self { field: None, expected: expected.to_string(), got: got.to_string() }
    }

    fn invalid_value(got: de::Unexpected, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(got, expected)
    }

    fn invalid_length(length: usize, expected: &dyn de::Expected) -> Self {
        Self { field: None, expected: expected.to_string(), got: format!("{length} values") }
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let expected = format!("one of {}", known.join(", "));
        Self { field: None, expected, got: format!("{variant:?}") }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { field: None, expected: format!("a field {field}"), got: "none".into() }
    }
}

type Result<T> = std::result::Result<T, Refusal>;

/// A value, and the fields that lead to it.
pub struct JsonReader {
    value: Value,
    path: String,
}

impl JsonReader {
    /// The whole of a file.
    pub fn new(value: Value) -> Self {
        Self { value, path: String::new() }
    }

    /// The fields of a struct called `name`, which has `known` ones.
    fn fields(self, name: &str, known: &[&str]) -> Result<ObjectFields> {
        let Value::Object(mut fields) = self.value else {
            return Err(Refusal::new(&self.path, "an object", kind(&self.value)));
        };
        // Burn's derive reads each configuration through a type of that name.
        let name = name.strip_suffix("Serde").unwrap_or(name);
        migrate(name, &mut fields);
        if let Some(unknown) = fields.keys().find(|field| !known.contains(&field.as_str())) {
            let expected = match known {
                [] => "no field".into(),
                _ => format!("one of {}", known.join(", ")),
            };
            return Err(Refusal::new(&inside(&self.path, unknown), expected, "an unknown field"));
        }
        for (field, default) in defaults(name) {
            fields.entry(field).or_insert(default);
        }
        Ok(ObjectFields { fields: fields.into_iter(), value: None, path: self.path })
    }
}

/// The path of `field` behind that of what it stands in.
fn inside(path: &str, field: &str) -> String {
    if path.is_empty() { field.into() } else { format!("{path}.{field}") }
}

/// What a value is, for messages.
fn kind(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        other => other.to_string(),
    }
}

impl<'de> Deserializer<'de> for JsonReader {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let path = self.path.clone();
        let read = match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(flag),
            Value::String(text) => visitor.visit_string(text),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), _, _) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (_, _, Some(number)) => visitor.visit_f64(number),
                _ => Err(Refusal::new(&path, "a number of 64 bits", number.to_string())),
            },
            Value::Array(values) => {
                visitor.visit_seq(Values { values: values.into_iter(), index: 0, path: self.path })
            }
            Value::Object(fields) => visitor.visit_map(ObjectFields {
                fields: fields.into_iter(),
                value: None,
                path: self.path,
            }),
        };
        read.map_err(|refusal| refusal.at(&path))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let path = self.path.clone();
        let fields = self.fields(name, fields)?;
        visitor.visit_map(fields).map_err(|refusal| refusal.at(&path))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let path = self.path;
        let (variant, content) = match self.value {
            Value::String(variant) => (variant, None),
            Value::Object(fields) if fields.len() == 1 => {
                let (variant, content) = fields.into_iter().next().expect("one field");
                (variant, Some(content))
            }
            other => {
                let expected = "a variant: its name, or an object with its name alone";
                return Err(Refusal::new(&path, expected, kind(&other)));
            }
        };
        let variant = EnumVariant { variant, content, path: path.clone() };
        visitor.visit_enum(variant).map_err(|refusal| refusal.at(&path))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The values of a list.
struct Values {
    values: std::vec::IntoIter<Value>,
    index: usize,
    path: String,
}

impl<'de> SeqAccess<'de> for Values {
    type Error = Refusal;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some(value) = self.values.next() else { return Ok(None) };
        let path = format!("{}[{}]", self.path, self.index);
        self.index += 1;
        seed.deserialize(JsonReader { value, path }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.values.len())
    }
}

/// The fields of an object.
struct ObjectFields {
    fields: <Map<String, Value> as IntoIterator>::IntoIter,
    /// The value of the field that was named last, and its path.
    value: Option<(Value, String)>,
    path: String,
}

impl<'de> MapAccess<'de> for ObjectFields {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some((field, value)) = self.fields.next() else { return Ok(None) };
        self.value = Some((value, inside(&self.path, &field)));
        seed.deserialize(field.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        let Some((value, path)) = self.value.take() else {
            return Err(Refusal::new(&self.path, "a field", "none"));
        };
        seed.deserialize(JsonReader { value, path })
    }
}

/// A variant of an enum, and what it holds.
struct EnumVariant {
    variant: String,
    content: Option<Value>,
    path: String,
}

impl<'de> EnumAccess<'de> for EnumVariant {
    type Error = Refusal;
    type Variant = Content;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Content)> {
        let path = inside(&self.path, &self.variant);
        let variant = seed.deserialize(self.variant.into_deserializer())?;
        Ok((variant, Content { content: self.content, path }))
    }
}

/// What a variant holds.
struct Content {
    content: Option<Value>,
    path: String,
}

impl Content {
    fn reader(self) -> Result<JsonReader> {
        match self.content {
            Some(value) => Ok(JsonReader { value, path: self.path }),
            None => Err(Refusal::new(&self.path, "an object with what the variant holds", "none")),
        }
    }
}

impl<'de> VariantAccess<'de> for Content {
    type Error = Refusal;

    fn unit_variant(self) -> Result<()> {
        match self.content {
            None | Some(Value::Null) => Ok(()),
            Some(value) => Err(Refusal::new(&self.path, "nothing in this variant", kind(&value))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value> {
        seed.deserialize(self.reader()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value> {
        self.reader()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.reader()?.deserialize_struct("", fields, visitor)
    }
}
