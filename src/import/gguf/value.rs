//! The values of a file's metadata.

use std::fmt::{self, Display};

use super::cursor::Cursor;
use super::wrong::Wrong;

/// The types of values, by their numbers in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::Text,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// The next type, of the value or of the elements called `what`.
    fn read(cursor: &mut Cursor, what: &str) -> Result<Self, Wrong> {
        let at = cursor.at();
        let number = cursor.u32(format_args!("the type of {what}"))?;
        Self::ALL.get(number as usize).copied().ok_or_else(|| {
            Wrong::new(
                format!("a type of values for {what} at byte {at}, 0 to 12"),
                number.to_string(),
            )
        })
    }

    /// The bytes of a value, or the least that one has.
    fn least_bytes(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Text => 8,
            Self::Array => 12,
        }
    }
}

/// A value. Texts and arrays stay in the file.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Array(ValueArray<'a>),
}

/// An array whose bytes were looked through.
#[derive(Clone, Copy, Debug)]
pub struct ValueArray<'a> {
    kind: Kind,
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Value<'a> {
    /// The next value, with its type before it.
    pub fn read(cursor: &mut Cursor<'a>, what: &str) -> Result<Self, Wrong> {
        let kind = Kind::read(cursor, what)?;
        Self::read_as(kind, cursor, what)
    }

    fn read_as(kind: Kind, cursor: &mut Cursor<'a>, what: &str) -> Result<Self, Wrong> {
        let name = format_args!("{what}");
        Ok(match kind {
            Kind::U8 => Self::Unsigned(u8::from_le_bytes(cursor.array(name)?).into()),
            Kind::I8 => Self::Signed(i8::from_le_bytes(cursor.array(name)?).into()),
            Kind::U16 => Self::Unsigned(u16::from_le_bytes(cursor.array(name)?).into()),
            Kind::I16 => Self::Signed(i16::from_le_bytes(cursor.array(name)?).into()),
            Kind::U32 => Self::Unsigned(cursor.u32(name)?.into()),
            Kind::I32 => Self::Signed(i32::from_le_bytes(cursor.array(name)?).into()),
            Kind::F32 => Self::Float(as_meant(f32::from_le_bytes(cursor.array(name)?))),
            Kind::F64 => Self::Float(f64::from_le_bytes(cursor.array(name)?)),
            Kind::U64 => Self::Unsigned(cursor.u64(name)?),
            Kind::I64 => Self::Signed(i64::from_le_bytes(cursor.array(name)?)),
            Kind::Text => Self::Text(cursor.text(name)?),
            Kind::Array => Self::Array(ValueArray::read(cursor, what)?),
            Kind::Bool => {
                let at = cursor.at();
                match cursor.array(name)? {
                    [0] => Self::Bool(false),
                    [1] => Self::Bool(true),
                    [other] => {
                        let expected = format!("0 or 1 for {what} at byte {at}, as true and false");
                        return Err(Wrong::new(expected, other.to_string()));
                    }
                }
            }
        })
    }

    /// A whole number of at least 0.
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(number),
            Self::Signed(number) => number.try_into().ok(),
            _ => None,
        }
    }
}

impl<'a> ValueArray<'a> {
    fn read(cursor: &mut Cursor<'a>, what: &str) -> Result<Self, Wrong> {
        let kind = Kind::read(cursor, what)?;
        let at = cursor.at();
        let count = cursor.u64(format_args!("the number of elements of {what}"))?;
        if kind == Kind::Array {
            let expected =
                format!("elements for {what} at byte {at} that are no arrays themselves");
            return Err(Wrong::new(expected, "arrays"));
        }
        let least = count.checked_mul(kind.least_bytes());
        if least.is_none_or(|least| least > cursor.left() as u64) {
            let expected = format!("elements for {what} at byte {at} that the file has room for");
            return Err(Wrong::new(expected, format!("{count} in {} bytes", cursor.left())));
        }
        let mut start = *cursor;
        for _ in 0..count {
            Value::read_as(kind, cursor, what)?;
        }
        let length = cursor.at() - start.at();
        let bytes = start.take(length as u64, format_args!("{what}"))?;
        Ok(Self { kind, count: count as usize, bytes })
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The elements.
    pub fn iter(self) -> impl Iterator<Item = Value<'a>> {
        let mut cursor = Cursor::new(self.bytes, 0);
        (0..self.count)
            .map(move |_| Value::read_as(self.kind, &mut cursor, "").expect("was looked through"))
    }
}

impl Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// The most characters of a text that a message shows.
        const SHOWN: usize = 60;
        match self {
            Self::Unsigned(number) => write!(f, "{number}"),
            Self::Signed(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Array(array) => write!(f, "an array of {} ({:?})", array.count, array.kind),
            Self::Text(text) if text.chars().count() <= SHOWN => write!(f, "{text:?}"),
            Self::Text(text) => {
                let beginning: String = text.chars().take(SHOWN).collect();
                write!(f, "{beginning:?} and more")
            }
        }
    }
}

/// The decimal number that the writer rounded to f32: 1e-5, and not 0.0000099999997.
pub fn as_meant(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of this type, with its type before it.
    fn read(kind: u32, bytes: &[u8]) -> Result<String, Wrong> {
        let bytes = [&kind.to_le_bytes(), bytes].concat();
        let mut cursor = Cursor::new(&bytes, 0);
        let value = Value::read(&mut cursor, "x")?;
        assert_eq!(cursor.left(), 0);
        Ok(value.to_string())
    }

    #[test]
    fn values_of_all_types() {
        assert_eq!(read(0, &[200]).unwrap(), "200");
        assert_eq!(read(1, &[200]).unwrap(), "-56");
        assert_eq!(read(2, &[1, 2]).unwrap(), "513");
        assert_eq!(read(3, &[255, 255]).unwrap(), "-1");
        assert_eq!(read(4, &[0, 0, 0, 128]).unwrap(), "2147483648");
        assert_eq!(read(5, &[0, 0, 0, 128]).unwrap(), "-2147483648");
        assert_eq!(read(6, &1e-5f32.to_le_bytes()).unwrap(), "0.00001");
        assert_eq!(read(7, &[1]).unwrap(), "true");
        assert_eq!(read(8, &[1, 0, 0, 0, 0, 0, 0, 0, b'a']).unwrap(), "\"a\"");
        assert_eq!(read(10, &u64::MAX.to_le_bytes()).unwrap(), u64::MAX.to_string());
        assert_eq!(read(11, &[255; 8]).unwrap(), "-1");
        assert_eq!(read(12, &0.1f64.to_le_bytes()).unwrap(), "0.1");
        assert!(read(13, &[0; 8]).unwrap_err().expected.contains("0 to 12"));
        assert_eq!(read(7, &[2]).unwrap_err().got, "2");
    }

    #[test]
    fn arrays_stay_in_the_file() {
        let array = |kind: u32, count: u64, bytes: &[u8]| {
            read(9, &[&kind.to_le_bytes(), &count.to_le_bytes()[..], bytes].concat())
        };
        assert_eq!(array(2, 3, &[0; 6]).unwrap(), "an array of 3 (U16)");
        assert_eq!(array(0, 0, &[]).unwrap(), "an array of 0 (U8)");
        for (kind, count) in [(0, 7), (2, 4), (6, u64::MAX), (8, 1 << 61), (12, 1 << 61)] {
            assert!(array(kind, count, &[0; 6]).unwrap_err().expected.contains("room for"));
        }
        assert_eq!(array(9, 1, &[0; 12]).unwrap_err().got, "arrays");
        let bytes = [5, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 7, 0, 0, 0];
        let array = ValueArray::read(&mut Cursor::new(&bytes, 0), "x").unwrap();
        let values: Vec<String> = array.iter().map(|value| value.to_string()).collect();
        assert_eq!(values, ["-1", "7"]);
    }
}
