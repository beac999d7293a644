//! Reading bytes one after the other, never beyond their end.

use std::fmt::Arguments;

use super::wrong::Wrong;

/// A place in the bytes of a file.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At byte `at`; at the end, if there are fewer.
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    /// The place, in bytes from the beginning.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The bytes that are left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `length` bytes, which are `what`.
    pub fn take(&mut self, length: u64, what: Arguments) -> Result<&'a [u8], Wrong> {
        let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(bytes)
            }
            None => Err(Wrong::new(
                format!("{length} bytes of {what} at byte {}", self.at),
                format!("{} to the end of the file: was it cut off?", self.left()),
            )),
        }
    }

    /// The next bytes as an array.
    pub fn array<const N: usize>(&mut self, what: Arguments) -> Result<[u8; N], Wrong> {
        let bytes = self.take(N as u64, what)?;
        Ok(bytes.try_into().expect("so many were taken"))
    }

    /// A number of four bytes.
    pub fn u32(&mut self, what: Arguments) -> Result<u32, Wrong> {
        self.array(what).map(u32::from_le_bytes)
    }

    /// A number of eight bytes.
    pub fn u64(&mut self, what: Arguments) -> Result<u64, Wrong> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A text, with its length before it.
    pub fn text(&mut self, what: Arguments) -> Result<&'a str, Wrong> {
        let at = self.at;
        let length = self.u64(format_args!("the length of {what}"))?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|error| {
            Wrong::new(format!("{what} at byte {at} in UTF-8"), format!("bytes with {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let bytes = [2, 0, 0, 0, 0, 0, 0, 0, b'a', b'b', 7];
        let mut cursor = Cursor::new(&bytes, 0);
        assert_eq!(cursor.text(format_args!("a name")).unwrap(), "ab");
        assert_eq!((cursor.at(), cursor.left()), (10, 1));
        let wrong = cursor.u32(format_args!("the type")).unwrap_err();
        assert_eq!(wrong.expected, "4 bytes of the type at byte 10");
        assert_eq!(wrong.got, "1 to the end of the file: was it cut off?");
        // A length that overflows the place.
        assert!(cursor.take(u64::MAX, format_args!("all")).is_err());
        assert_eq!(cursor.take(1, format_args!("the last")).unwrap(), [7]);
        assert!(Cursor::new(&bytes, 99).take(1, format_args!("nothing")).is_err());
    }

    #[test]
    fn a_text_is_unicode() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 0xff];
        let wrong = Cursor::new(&bytes, 0).text(format_args!("a key")).unwrap_err();
        assert_eq!(wrong.expected, "a key at byte 0 in UTF-8");
    }
}
