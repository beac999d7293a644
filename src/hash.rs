//! A hash of bytes that is the same on every machine: for files, not against attackers.

/// Mixes eight bytes at a time, each time by a bijection of the state: two texts that differ in one
/// byte never have the same hash.
pub(crate) struct Hash(u64);

/// Odd, so that multiplication by it loses nothing (from the fractional part of the golden ratio).
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hash {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds eight bytes.
    pub(crate) fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    }

    /// Adds bytes, and how many they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        self.word(u64::from_le_bytes(last));
    }

    /// The hash of all that was added.
    pub(crate) fn finish(&self) -> u64 {
        let mixed = (self.0 ^ self.0 >> 32).wrapping_mul(FACTOR);
        mixed ^ mixed >> 29
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_byte_is_seen() {
        let of = |bytes: &[u8]| {
            let mut hash = Hash::new();
            hash.bytes(bytes);
            hash.finish()
        };
        let bytes: Vec<u8> = (0..61).map(|i| i * 7).collect();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_ne!(of(&changed), of(&bytes));
            }
        }
        assert_ne!(of(&bytes[..60]), of(&bytes));
        assert_ne!(of(&[0; 8]), of(&[0; 9]));
        // The same on every machine.
        assert_eq!(of(b"burn-decoder"), of(b"burn-decoder"));
    }
}
