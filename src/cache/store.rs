//! The keys and values of one attention layer, written in place.

use burn::tensor::{Int, Tensor, kind::Basic, s};

use super::layout::{Append, Layout};
use crate::Result;
use crate::kernels::first_keys;
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
    layout: Layout,
    buffers: Option<[Tensor<4>; 2]>,
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
        Self { past, room, layout: Layout::new_for(past), buffers: None }
    }

    pub(crate) fn past(&self) -> Past {
        self.past
    }

    pub(crate) fn layout(&self) -> Layout {
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
    pub(crate) fn append(&mut self, key: Tensor<4>, value: Tensor<4>) -> [Tensor<4>; 2] {
        let new = key.dims()[2];
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
            let buffers = [(keys, key), (values, value)].map(|(buffer, new)| {
                buffer.slice_assign(s![.., .., kept.used()..shown.used(), ..], new)
            });
            let out = buffers.each_ref().map(|buffer| view(buffer, shown.used()));
            self.buffers = Some(buffers);
            out
        } else {
            // More new tokens than a rolling store has slots: this pass sees them all, the store
            // keeps the last ones.
            let out = [(0, key), (1, value)].map(|(i, new)| {
                let mut pieces: Vec<_> = old.as_ref().map_or(vec![], |b| slots_of(&b[i], &parts));
                pieces.push(new);
                Tensor::cat(pieces, 2)
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
                let chosen = select(view(&buffer, used), rows);
                moved(Some(&chosen), &[0..used, 0..0], &chosen, slots)
            }));
        }
    }

    /// Number of bytes of both buffers.
    pub(crate) fn bytes(&self) -> usize {
        self.buffers.iter().flatten().map(bytes).sum()
    }

    /// Number of tokens that there is room for without growing.
    pub(crate) fn slots(&self) -> usize {
        self.buffers.as_ref().map_or(0, |buffers| buffers[0].dims()[2])
    }

    /// The used part of the buffers, for saving.
    pub(crate) fn used(&self) -> Option<[Tensor<4>; 2]> {
        self.buffers.as_ref().map(|b| b.each_ref().map(|b| view(b, self.layout.used())))
    }

    /// A store that holds what [`used`](Self::used) and [`layout`](Self::layout) of another gave.
    pub(crate) fn from_parts(
        past: Past,
        room: Room,
        layout: Layout,
        buffers: Option<[Tensor<4>; 2]>,
    ) -> Self {
        Self { past, room, layout, buffers }
    }
}

/// Number of bytes of a tensor.
pub(crate) fn bytes(tensor: &Tensor<4>) -> usize {
    tensor.shape().num_elements() * tensor.dtype().size()
}

/// Row `i` becomes what row `rows[i]` was.
pub(crate) fn select<const D: usize, K: Basic>(
    tensor: Tensor<D, K>,
    rows: &[usize],
) -> Tensor<D, K> {
    let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
    let rows = Tensor::<1, Int>::from_data(rows.as_slice(), &tensor.device());
    tensor.select(0, rows)
}

/// The first `used` slots of a buffer.
fn view(buffer: &Tensor<4>, used: usize) -> Tensor<4> {
    first_keys(buffer.clone(), used)
}

/// The given slot ranges of a buffer, empty ones left out.
fn slots_of(buffer: &Tensor<4>, parts: &[std::ops::Range<usize>]) -> Vec<Tensor<4>> {
    let filled = parts.iter().filter(|part| !part.is_empty());
    filled.map(|part| buffer.clone().slice(s![.., .., part.clone(), ..])).collect()
}

/// A new buffer of `slots` slots, shaped like `like` otherwise, that begins with the given slot
/// ranges of an old one.
fn moved(
    old: Option<&Tensor<4>>,
    parts: &[std::ops::Range<usize>],
    like: &Tensor<4>,
    slots: usize,
) -> Tensor<4> {
    let [batch, kv_heads, _, head_dim] = like.dims();
    let shape = [batch, kv_heads, slots, head_dim];
    let mut buffer = Tensor::zeros(shape, (&like.device(), like.dtype()));
    let mut at = 0;
    for piece in old.map_or(vec![], |old| slots_of(old, parts)) {
        let len = piece.dims()[2];
        buffer = buffer.slice_assign(s![.., .., at..at + len, ..], piece);
        at += len;
    }
    buffer
}

#[cfg(all(test, any(feature = "ndarray", feature = "flex")))]
mod tests {
    use super::*;
    use crate::kernels::address;
    use burn::tensor::{Device, Distribution};

    /// The CPU devices that are compiled in.
    fn cpus() -> Vec<Device> {
        vec![
            #[cfg(feature = "flex")]
            Device::flex(),
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)]
            Device::ndarray(),
        ]
    }

    /// What is read is the buffer itself, which stays where it is while it is written to.
    #[test]
    fn no_step_copies() {
        for device in cpus() {
            let mut store = Store::new(Past::Whole, Room { capacity: 64, limit: None });
            let new = || Tensor::<4>::random([2, 3, 1, 5], Distribution::Default, &device);
            let first = [new(), new()];
            let mut expected = vec![first[0].clone()];
            let [key, value] = first;
            let addresses = store.append(key, value).map(|seen| address(&seen));
            for step in 2..=64 {
                let [key, value] = [new(), new()];
                expected.push(key.clone());
                let seen = store.append(key, value);
                assert_eq!(seen.each_ref().map(address), addresses, "{device:?}, step {step}");
                assert_eq!(seen[0].to_data(), Tensor::cat(expected.clone(), 2).into_data());
            }
        }
    }
}
