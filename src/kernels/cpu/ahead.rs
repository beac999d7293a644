//! What will be read next, for threads with nothing to do to ask memory for.
//!
//! Between two products there is a norm, a rotation or attention, and memory rests. A core asks for a few
//! lines at a time, so that what a second one asks for meanwhile comes on top.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Pieces of memory that are kept in mind.
const PIECES: usize = 4;
/// Bytes in all: less than the cache of a core holds.
const MOST: usize = 768 << 10;
/// Bytes at a time, between which a thread looks for work.
const STEP: usize = 1 << 10;

/// Pieces of memory, of which the last is asked for first: helpers take the last parts.
///
/// Nothing is read through it. Where one thread says what is next while another takes, that one asks
/// for what nobody needs, and no more.
#[derive(Default)]
pub(super) struct Ahead {
    pieces: [Piece; PIECES],
    /// Bytes in all, and how many of them were taken.
    bytes: AtomicUsize,
    taken: AtomicUsize,
}

#[derive(Default)]
struct Piece {
    start: AtomicUsize,
    length: AtomicUsize,
}

impl Ahead {
    /// Forgets the pieces before, and keeps these in mind: the first few.
    pub fn set<'a>(&self, pieces: impl IntoIterator<Item = &'a [u8]>) {
        self.bytes.store(0, Ordering::Relaxed);
        let mut pieces = pieces.into_iter();
        let mut bytes = 0;
        for place in &self.pieces {
            let piece = pieces.next().unwrap_or_default();
            place.start.store(piece.as_ptr().addr(), Ordering::Relaxed);
            place.length.store(piece.len(), Ordering::Relaxed);
            bytes += piece.len();
        }
        self.taken.store(0, Ordering::Relaxed);
        self.bytes.store(bytes.min(MOST), Ordering::Release);
    }

    /// Start and number of the bytes to ask for next, if there are any.
    pub fn take(&self) -> Option<(usize, usize)> {
        let bytes = self.bytes.load(Ordering::Acquire);
        if self.taken.load(Ordering::Relaxed) >= bytes {
            return None;
        }
        let mut behind = self.taken.fetch_add(STEP, Ordering::Relaxed);
        if behind >= bytes {
            return None;
        }
        for piece in self.pieces.iter().rev() {
            let length = piece.length.load(Ordering::Relaxed);
            if behind < length {
                let end = length - behind;
                let step = end.min(STEP);
                return Some((piece.start.load(Ordering::Relaxed) + end - step, step));
            }
            behind -= length;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bytes_come_first_up_to_a_bound() {
        let ahead = Ahead::default();
        assert_eq!(ahead.take(), None);
        let memory = vec![0; 2 * MOST];
        let (first, second) = (&memory[..5 * STEP], &memory[7 * STEP..9 * STEP + 11]);
        ahead.set([first, second]);
        let taken: Vec<_> = std::iter::from_fn(|| ahead.take()).collect();
        let [start, behind] = [first, second].map(|piece| piece.as_ptr().addr());
        assert_eq!(taken[..3], [(behind + STEP + 11, STEP), (behind + 11, STEP), (behind, 11)]);
        // A step is a step, also where it ends within a piece.
        assert_eq!(taken[3], (start + 4 * STEP + 11 - STEP, STEP));
        assert!(taken[3..].is_sorted_by(|a, b| a > b) && taken.last().unwrap().0 == start);
        let inside = |&(at, bytes): &(usize, usize)| {
            [first, second].iter().any(|piece| {
                let start = piece.as_ptr().addr();
                start <= at && at + bytes <= start + piece.len()
            })
        };
        assert!(taken.iter().all(inside));

        ahead.set([&memory[..]]);
        assert_eq!(std::iter::from_fn(|| ahead.take()).count(), MOST / STEP);
        ahead.set([]);
        assert_eq!(ahead.take(), None);
    }
}
