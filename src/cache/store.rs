//! The keys and values of one attention layer, written in place.

use std::ops::Range;

use super::layout::{Append, SlotLayout};
use crate::Result;
use crate::kernels::Kept;
use crate::mask::{Grid, Past};

/// Keys and values of one layer, `[batch, kv_heads, slots, head_dim]` each.
///
/// Burn writes into a tensor in place if nobody else holds its storage. So the buffers are taken
/// out of the store while they are written to, and the views that [`append`](Self::append) hands
/// out must be gone before the next call; if they are not, Burn copies, and nothing is wrong but
/// the speed.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    past: Past,
    room: Room,
    layout: SlotLayout,
    buffers: Option<[Kept; 2]>,
}

/// How many slots to begin with, and how many there may be; full buffers double.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub capacity: usize,
    pub limit: Option<usize>,
}

impl Store {
    /// An empty store.
    pub(crate) fn new(past: Past, room: Room) -> Self {
        Self { past, room, layout: SlotLayout::new_for(past), buffers: None }
    }

    pub(crate) fn past(&self) -> Past {
        self.past
    }

    pub(crate) fn layout(&self) -> SlotLayout {
        self.layout
    }

    /// Whether the other keeps the same tokens, now and after the same calls.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.past == other.past && self.layout == other.layout
    }

    /// Writes the new keys and values behind the old ones and returns all that this pass may see.
    /// That there is room has been checked by the cache.
    ///
    /// # Shapes
    ///
    /// - `key`, `value`: `[batch, kv_heads, new, head_dim]`
    /// - output: `[batch, kv_heads, keys, head_dim]`, where the keys are those of `Append::shown`
    pub(crate) fn append(&mut self, key: Kept, value: Kept) -> [Kept; 2] {
        let new = key.slots();
        let Append { kept, shown, stored } = self.layout.append(new, self.past);
        let slots = self.slots();
        let wanted = self.wanted_slots(stored.used());
        let parts = self.layout.slots_of(&kept);
        let old = self.buffers.take();

        let out = if shown == stored {
            let buffers = match old {
                Some(buffers) if kept == self.layout && wanted == slots => buffers,
                old => [0, 1].map(|i| {
                    let like = if i == 0 { &key } else { &value };
                    moved(old.as_ref().map(|b| &b[i]), &parts, like, wanted)
                }),
            };
            let [keys, values] = buffers;
            let buffers =
                [(keys, key), (values, value)].map(|(buffer, new)| buffer.assign(kept.used(), new));
            let out = buffers.each_ref().map(|buffer| buffer.first(shown.used()));
            self.buffers = Some(buffers);
            out
        } else {
            // More new tokens than a rolling store has slots: this pass sees them all, the store
            // keeps the last ones.
            let out = [(0, key), (1, value)].map(|(i, new)| {
                let mut pieces: Vec<_> = old.as_ref().map_or(vec![], |b| b[i].parts(&parts));
                pieces.push(new);
                Kept::joined(pieces)
            });
            let parts = shown.slots_of(&stored);
            self.buffers = Some(out.each_ref().map(|all| moved(Some(all), &parts, all, wanted)));
            out
        };
        self.layout = stored;
        out
    }

    /// The number of slots to go on with, where `used` of them are needed.
    fn wanted_slots(&self, used: usize) -> usize {
        let slots = self.slots();
        let most = self.layout.most_slots(self.past).or(self.room.limit).unwrap_or(usize::MAX);
        let wanted = match slots {
            0 => self.room.capacity,
            _ if used > slots => slots.saturating_mul(2),
            _ => slots,
        };
        wanted.min(most).max(used)
    }

    /// Where the keys stand that [`append`](Self::append) will return for `new` tokens, and where
    /// these stand as queries.
    pub(crate) fn grid(&self, batch: usize, new: usize) -> Result<Grid> {
        let start = self.layout.total() as i64;
        let shown = self.layout.append(new, self.past).shown;
        match shown.tokens() {
            None => Ok(Grid::with_offset(batch, new, shown.used(), start)),
            Some(tokens) => Grid::with_key_positions(batch, new, start, tokens),
        }
    }

    /// Whether no coming query would need tokens that were dropped.
    pub(crate) fn can_trim(&self, total: usize) -> bool {
        self.layout.trim(total, self.past).is_some()
    }

    /// Forgets all but the first `total` tokens, if [`can_trim`](Self::can_trim).
    pub(crate) fn trim(&mut self, total: usize) {
        if let Some(trimmed) = self.layout.trim(total, self.past) {
            self.layout = trimmed;
        }
    }

    /// Makes row `i` what row `rows[i]` was. Rows may repeat or be left out.
    pub(crate) fn select_rows(&mut self, rows: &[usize]) {
        let (slots, used) = (self.slots(), self.layout.used());
        if let Some(buffers) = self.buffers.take() {
            self.buffers = Some(buffers.map(|buffer| {
                let chosen = buffer.first(used).select_rows(rows);
                moved(Some(&chosen), &[0..used, 0..0], &chosen, slots)
            }));
        }
    }

    /// Number of bytes of both buffers.
    pub(crate) fn bytes(&self) -> usize {
        self.buffers.iter().flatten().map(Kept::bytes).sum()
    }

    /// Number of tokens that there is room for without growing.
    pub(crate) fn slots(&self) -> usize {
        self.buffers.as_ref().map_or(0, |buffers| buffers[0].slots())
    }

    /// The used part of the buffers, for saving.
    pub(crate) fn used(&self) -> Option<[Kept; 2]> {
        self.buffers.as_ref().map(|b| b.each_ref().map(|b| b.first(self.layout.used())))
    }

    /// A store that holds what [`used`](Self::used) and [`layout`](Self::layout) of another gave.
    pub(crate) fn from_parts(
        past: Past,
        room: Room,
        layout: SlotLayout,
        buffers: Option<[Kept; 2]>,
    ) -> Self {
        Self { past, room, layout, buffers }
    }
}

/// A new buffer of `slots` slots, like `like` otherwise, that begins with the given slot ranges of an
/// old one.
fn moved(old: Option<&Kept>, parts: &[Range<usize>], like: &Kept, slots: usize) -> Kept {
    let mut buffer = like.empty_like(slots);
    let mut at = 0;
    for piece in old.map_or(vec![], |old| old.parts(parts)) {
        let len = piece.slots();
        buffer = buffer.assign(at, piece);
        at += len;
    }
    buffer
}

#[cfg(all(test, any(feature = "ndarray", feature = "flex")))]
mod tests {
    use super::*;
    use crate::kernels::{Codes, Coding, address, address_of_codes, cpus};
    use burn::tensor::{DType, Distribution, Tensor};

    const CODINGS: [Coding; 3] = [Coding::Bf16, Coding::F16, Coding::Q8_0];

    fn append(store: &mut Store, [key, value]: [Tensor<4>; 2]) -> [Tensor<4>; 2] {
        store.append(key.into(), value.into()).map(|kept| match kept {
            Kept::Float(tensor) => tensor,
            Kept::Coded(_) => unreachable!("floats were appended"),
        })
    }

    /// What is read is the buffer itself, which stays where it is while it is written to.
    #[test]
    fn no_step_copies() {
        for device in cpus() {
            let mut store = Store::new(Past::Whole, Room { capacity: 64, limit: None });
            let new = || Tensor::<4>::random([2, 3, 1, 5], Distribution::Default, &device);
            let first = [new(), new()];
            let mut expected = vec![first[0].clone()];
            let addresses = append(&mut store, first).map(|seen| address(&seen));
            for step in 2..=64 {
                let [key, value] = [new(), new()];
                expected.push(key.clone());
                let seen = append(&mut store, [key, value]);
                assert_eq!(seen.each_ref().map(address), addresses, "{device:?}, step {step}");
                assert_eq!(seen[0].to_data(), Tensor::cat(expected.clone(), 2).into_data());
            }
        }
    }
    /// The same of codes, and of floats of two bytes where the device has them.
    #[test]
    fn no_step_copies_codes() {
        for (device, coding) in
            cpus().into_iter().flat_map(|device| CODINGS.map(|coding| (device.clone(), coding)))
        {
            let mut store = Store::new(Past::Whole, Room { capacity: 64, limit: None });
            let new = || {
                let tensor = Tensor::<4>::random([2, 3, 1, 37], Distribution::Default, &device);
                Kept::new(tensor, Some(coding))
            };
            let numbers = |kept: Kept| kept.into_float(DType::F32).cast(DType::F32);
            let (mut expected, mut places) = (vec![], vec![]);
            for _ in 0..64 {
                let [key, value] = [new(), new()];
                expected.push(numbers(key.clone()));
                let seen = store.append(key, value);
                places.push(seen.each_ref().map(|kept| match kept {
                    Kept::Coded(Codes { codes, .. }) => address_of_codes(codes),
                    Kept::Float(_) => std::ptr::null(),
                }));
                let [key, _] = seen;
                assert_eq!(numbers(key).to_data(), Tensor::cat(expected.clone(), 2).into_data());
            }
            assert!(places.iter().all(|place| *place == places[0]), "{device:?}, {coding:?}");
        }
    }
}
