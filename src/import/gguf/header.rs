//! The head of a file: its metadata, and where which tensor lies.
//!
//! ```text
//! "GGUF"  version u32  tensors u64  values u64
//! values:  key text   type u32  value
//! tensors: name text  axes u32  lengths u64..  type u32  offset u64
//! zeros up to a multiple of the alignment, then the tensors
//! ```
//!
//! All numbers are little-endian; a text is its length, u64, and so many bytes. The lengths of a
//! tensor begin with that of its rows, and offsets count from the first tensor. Every length and
//! count is compared with what the file still has before anything is made of it, so that reading
//! costs time and memory in proportion to the file.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use super::cursor::Cursor;
use super::tensor_type::TensorType;
use super::value::Value;
use super::wrong::Wrong;

pub const MAGIC: &[u8] = b"GGUF";

/// The alignment of a file that does not say it.
const ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";

/// More axes than any tensor has.
const MOST_AXES: u32 = 4;

/// The least bytes of a value: key, type and one byte; and of a tensor with an empty name.
const LEAST_VALUE: u64 = 8 + 4 + 1;
const LEAST_TENSOR: u64 = 8 + 4 + 8 + 4 + 8;

/// What the head of a file says.
#[derive(Clone, Debug)]
pub struct Header {
    /// Where each value begins, with its type before it.
    values: BTreeMap<String, usize>,
    /// The tensors, by their names.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Bytes of the head, in which all values are.
    pub length: usize,
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    pub kind: TensorType,
    /// Its axes as Burn has them: that of the rows' values last.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub bytes: Range<usize>,
}

impl Header {
    /// Reads the head of a file with these bytes.
    pub fn read(bytes: &[u8]) -> Result<Self, Wrong> {
        let cursor = &mut Cursor::new(bytes, 0);
        let magic = cursor.take(MAGIC.len() as u64, format_args!("{MAGIC:?}"))?;
        if magic != MAGIC {
            return Err(Wrong::new(
                "GGUF at byte 0",
                format!("{:?}", String::from_utf8_lossy(magic)),
            ));
        }
        check_version(cursor.u32(format_args!("the version"))?)?;
        let tensors = count(cursor, "tensors", LEAST_TENSOR)?;
        let values = count(cursor, "values", LEAST_VALUE)?;
        let values = read_values(cursor, values)?;
        let mut header = Self { values, tensors: BTreeMap::new(), length: 0 };
        let alignment = header.alignment(bytes)?;
        header.tensors = read_tensors(cursor, tensors, alignment)?;
        header.length = cursor.at();
        Ok(header)
    }

    /// The value of `key`, in the same bytes or those of the head alone.
    pub fn get<'a>(&self, bytes: &'a [u8], key: &str) -> Option<Value<'a>> {
        let at = *self.values.get(key)?;
        Some(
            Value::read(&mut Cursor::new(bytes, at), key)
                .expect("was read when the file was opened"),
        )
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    fn alignment(&self, bytes: &[u8]) -> Result<u64, Wrong> {
        let Some(value) = self.get(bytes, ALIGNMENT_KEY) else { return Ok(ALIGNMENT) };
        value.as_u64().filter(|alignment| alignment.is_power_of_two()).ok_or_else(|| {
            Wrong::new(format!("a power of two as {ALIGNMENT_KEY}"), value.to_string())
        })
    }
}

fn check_version(version: u32) -> Result<(), Wrong> {
    match version {
        2 | 3 => Ok(()),
        // The number that a reader of the other byte order finds.
        _ if matches!(version.swap_bytes(), 1..=3) => Err(Wrong::new(
            "a little-endian file",
            format!("a big-endian one, of version {}; convert it", version.swap_bytes()),
        )),
        _ => Err(Wrong::new(
            "a file of version 2 or 3",
            format!("version {version}; convert it anew"),
        )),
    }
}

/// A number of things of which each has at least so many bytes.
fn count(cursor: &mut Cursor, what: &str, least: u64) -> Result<u64, Wrong> {
    let at = cursor.at();
    let count = cursor.u64(format_args!("the number of {what}"))?;
    if count.checked_mul(least).is_none_or(|bytes| bytes > cursor.left() as u64) {
        let expected = format!("a number of {what} at byte {at} that the file has room for");
        return Err(Wrong::new(expected, format!("{count} in {} bytes", cursor.left())));
    }
    Ok(count)
}

fn read_values(cursor: &mut Cursor, count: u64) -> Result<BTreeMap<String, usize>, Wrong> {
    let mut values = BTreeMap::new();
    for index in 0..count {
        let at = cursor.at();
        let key = cursor.text(format_args!("the key of value {index}"))?;
        let Entry::Vacant(entry) = values.entry(key.to_string()) else {
            return Err(Wrong::new(
                format!("a key at byte {at} that is new"),
                format!("{key} again"),
            ));
        };
        entry.insert(cursor.at());
        Value::read(cursor, key)?;
    }
    Ok(values)
}

fn read_tensors(
    cursor: &mut Cursor,
    count: u64,
    alignment: u64,
) -> Result<BTreeMap<String, TensorInfo>, Wrong> {
    let mut tensors = BTreeMap::new();
    // Offsets become places once it is known where the head ends.
    let mut offsets = Vec::new();
    for index in 0..count {
        let at = cursor.at();
        let name = cursor.text(format_args!("the name of tensor {index}"))?;
        let (tensor, offset) = TensorInfo::read(cursor, name)?;
        if !offset.is_multiple_of(alignment) {
            let expected = format!("an offset of {name} that is a multiple of {alignment}");
            return Err(Wrong::new(expected, offset.to_string()));
        }
        if tensors.insert(name.to_string(), tensor).is_some() {
            let expected = format!("a tensor at byte {at} that is new");
            return Err(Wrong::new(expected, format!("{name} again")));
        }
        offsets.push((name, offset));
    }
    let end = cursor.at() + cursor.left();
    let start = (cursor.at() as u64).checked_next_multiple_of(alignment);
    for (name, offset) in offsets {
        let tensor = tensors.get_mut(name).expect("was inserted");
        let length = tensor.bytes.len();
        let place = start.and_then(|start| start.checked_add(offset));
        let from = place.and_then(|place| usize::try_from(place).ok());
        let bytes = from.and_then(|from| Some(from..from.checked_add(length)?));
        let Some(bytes) = bytes.filter(|bytes| bytes.end <= end) else {
            let expected = format!(
                "{length} bytes of {name} at offset {offset}, in a file with room for them"
            );
            return Err(Wrong::new(expected, format!("one of {end} bytes: was it cut off?")));
        };
        tensor.bytes = bytes;
    }
    check_apart(&tensors)?;
    Ok(tensors)
}

/// An error for tensors that share bytes: a small file could hold a large model so.
fn check_apart(tensors: &BTreeMap<String, TensorInfo>) -> Result<(), Wrong> {
    let mut all: Vec<_> = tensors.iter().map(|(name, tensor)| (&tensor.bytes, name)).collect();
    all.sort_by_key(|(bytes, _)| bytes.start);
    for pair in all.windows(2) {
        let [(before, first), (behind, second)] = pair else { unreachable!("windows of two") };
        if behind.start < before.end {
            let expected = format!("{second} behind {first}, which ends at byte {}", before.end);
            return Err(Wrong::new(expected, format!("byte {}", behind.start)));
        }
    }
    Ok(())
}

impl TensorInfo {
    /// What follows a tensor's name: the tensor, whose bytes are placed from 0, and its offset.
    fn read(cursor: &mut Cursor, name: &str) -> Result<(Self, u64), Wrong> {
        let axes = cursor.u32(format_args!("the number of axes of {name}"))?;
        if !(1..=MOST_AXES).contains(&axes) {
            let expected = format!("1 to {MOST_AXES} axes of {name}");
            return Err(Wrong::new(expected, axes.to_string()));
        }
        let (mut shape, mut values) = (Vec::new(), Some(1usize));
        for _ in 0..axes {
            let length = cursor.u64(format_args!("the shape of {name}"))?;
            let length = usize::try_from(length).ok().filter(|length| *length > 0);
            values = values.and_then(|values| values.checked_mul(length?));
            shape.push(length.unwrap_or(0));
        }
        let number = cursor.u32(format_args!("the type of {name}"))?;
        let offset = cursor.u64(format_args!("the offset of {name}"))?;
        let Some(kind) = TensorType::find(number) else {
            let expected = format!("a type of {name} that is known, F32 or Q4_0 for example");
            return Err(Wrong::new(expected, format!("number {number}")));
        };
        // Every row is whole blocks, and so the tensor.
        let is_whole = shape[0].is_multiple_of(kind.block);
        let length = values.filter(|_| is_whole).and_then(|values| kind.byte_len(values));
        let Some(length) = length else {
            let expected = format!(
                "axes of {name} that are not empty and that memory has room for, the first a multiple \
                 of {}, as {} has it",
                kind.block, kind.name
            );
            return Err(Wrong::new(expected, format!("{shape:?}")));
        };
        shape.reverse();
        Ok((Self { kind, shape, bytes: 0..length }, offset))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Writes the head of a file, number by number.
    #[derive(Clone)]
    pub struct Writer {
        pub bytes: Vec<u8>,
    }

    impl Writer {
        pub fn new(version: u32, tensors: u64, values: u64) -> Self {
            let bytes = [MAGIC, &version.to_le_bytes()].concat();
            Self { bytes }.u64(tensors).u64(values)
        }

        pub fn u32(mut self, number: u32) -> Self {
            self.bytes.extend(number.to_le_bytes());
            self
        }

        pub fn u64(mut self, number: u64) -> Self {
            self.bytes.extend(number.to_le_bytes());
            self
        }

        pub fn text(mut self, text: &str) -> Self {
            self = self.u64(text.len() as u64);
            self.bytes.extend(text.as_bytes());
            self
        }

        /// A tensor of f32.
        pub fn tensor(mut self, name: &str, lengths: &[u64], offset: u64) -> Self {
            self = self.text(name).u32(lengths.len() as u32);
            for &length in lengths {
                self = self.u64(length);
            }
            self.u32(0).u64(offset)
        }

        /// Zeros, up to so many bytes in all.
        pub fn up_to(mut self, length: usize) -> Self {
            self.bytes.resize(length, 0);
            self
        }
    }

    fn expected(writer: Writer) -> String {
        Header::read(&writer.bytes).unwrap_err().expected
    }

    #[test]
    fn values_and_tensors_are_found() {
        let writer = Writer::new(2, 2, 2).text("a.text").u32(8).text("hello");
        let writer = writer.text("general.alignment").u32(4).u32(64);
        let writer = writer.tensor("first", &[3, 2], 0).tensor("second", &[5], 64);
        let head = writer.bytes.len().next_multiple_of(64);
        let file = writer.up_to(head + 64 + 20).bytes;
        let header = Header::read(&file).unwrap();
        assert_eq!(header.keys().collect::<Vec<_>>(), ["a.text", "general.alignment"]);
        assert!(matches!(header.get(&file, "a.text"), Some(Value::Text("hello"))));
        assert!(header.get(&file, "b").is_none());
        assert_eq!(header.tensors["first"].shape, [2, 3]);
        assert_eq!(header.tensors["first"].bytes, head..head + 24);
        assert_eq!(header.tensors["second"].bytes, head + 64..head + 84);
        // One byte less.
        let wrong = Header::read(&file[..file.len() - 1]).unwrap_err();
        assert!(wrong.expected.contains("20 bytes of second"), "{wrong:?}");
    }

    #[test]
    fn versions_and_byte_orders_are_named() {
        assert!(Header::read(&Writer::new(3, 0, 0).bytes).is_ok());
        let wrong = |version| Header::read(&Writer::new(version, 0, 0).bytes).unwrap_err();
        assert_eq!(wrong(1).got, "version 1; convert it anew");
        assert_eq!(wrong(3 << 24).got, "a big-endian one, of version 3; convert it");
        assert!(Header::read(b"GGU").unwrap_err().expected.contains("4 bytes"));
        assert_eq!(Header::read(b"GGMLaaaa").unwrap_err().got, "\"GGML\"");
    }

    #[test]
    fn counts_are_believed_as_far_as_the_file_goes() {
        for count in [1, 1 << 40, u64::MAX] {
            assert!(expected(Writer::new(3, count, 0)).contains("a number of tensors at byte 8"));
            assert!(expected(Writer::new(3, 0, count)).contains("a number of values at byte 16"));
        }
        let long = Writer::new(3, 0, 1).u64(u64::MAX).up_to(99);
        assert!(expected(long).contains("bytes of the key of value 0 at byte 32"));
    }

    #[test]
    fn nothing_is_there_twice() {
        let twice = Writer::new(3, 0, 2).text("a").u32(0).up_to(38).text("a").u32(0).up_to(52);
        assert!(expected(twice).contains("a key at byte 38 that is new"));
        let twice = Writer::new(3, 2, 0).tensor("t", &[1], 0).tensor("t", &[1], 32).up_to(999);
        assert!(expected(twice).contains("a tensor at byte 57 that is new"));
        let shared = Writer::new(3, 2, 0).tensor("t", &[9], 0).tensor("u", &[1], 32).up_to(999);
        assert!(expected(shared).contains("u behind t"));
    }

    #[test]
    fn tensors_have_a_place() {
        let tensor = |lengths: &[u64], offset| {
            expected(Writer::new(3, 1, 0).tensor("t", lengths, offset).up_to(200))
        };
        assert!(tensor(&[], 0).contains("1 to 4 axes of t"));
        assert!(tensor(&[1; 5], 0).contains("1 to 4 axes of t"));
        assert!(tensor(&[0], 0).contains("axes of t that are not empty"));
        for overflow in [&[u64::MAX][..], &[1 << 32, 1 << 32], &[1 << 62]] {
            assert!(tensor(overflow, 0).contains("memory has room for"));
        }
        assert!(tensor(&[1], 31).contains("a multiple of 32"));
        assert!(tensor(&[1 << 40], 0).contains("4398046511104 bytes of t at offset 0"));
        assert!(tensor(&[1], 1 << 40).contains("4 bytes of t at offset"));
        assert!(tensor(&[1], u64::MAX - 31).contains("4 bytes of t at offset"));
        let unknown = Writer::new(3, 1, 0).text("t").u32(1).u64(1).u32(4).u64(0).up_to(200);
        assert_eq!(Header::read(&unknown.bytes).unwrap_err().got, "number 4");
        // Half a block of Q8_0.
        let half = Writer::new(3, 1, 0).text("t").u32(2).u64(16).u64(2).u32(8).u64(0).up_to(200);
        assert!(expected(half).contains("a multiple of 32, as Q8_0 has it"));
    }

    #[test]
    fn alignments_are_powers_of_two() {
        let aligned = |alignment: u32| {
            let writer = Writer::new(3, 1, 1).text("general.alignment").u32(4).u32(alignment);
            Header::read(&writer.tensor("t", &[1], 0).up_to(300).bytes)
        };
        assert!(aligned(8).is_ok() && aligned(256).is_ok());
        for odd in [0, 24, u32::MAX] {
            assert_eq!(aligned(odd).unwrap_err().got, odd.to_string());
        }
        assert!(aligned(1 << 31).unwrap_err().expected.contains("4 bytes of t"));
    }
}
