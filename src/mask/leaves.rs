//! The constructors of the leaves.

use std::num::NonZeroUsize;

use burn::tensor::{Bool, Int, Tensor};

use super::documents::Documents;
use super::leaf::{Band, Flags, Leaf, Source};
use super::{HiddenCells, Mask};
use crate::{Error, Result};

impl From<Band> for Mask {
    fn from(band: Band) -> Self {
        Leaf::Band(band).into()
    }
}

/// Rules by position.
impl Mask {
    /// Hides nothing: the identity of `&`. Its opposite, `!Mask::all_visible()`, hides everything.
    pub fn all_visible() -> Self {
        Band::AllVisible.into()
    }

    /// Hides the future: a query sees the keys up to its own position, its own included.
    ///
    /// Vaswani et al. 2017, "Attention Is All You Need", section 3.2.3.
    pub fn look_ahead() -> Self {
        Band::LookAhead.into()
    }

    /// Hides right padding: row `b` of the batch sees the positions before `lengths[b]`.
    ///
    /// One length for each row of the batch; a length of 0 hides every key of its row. Lengths
    /// never guess: a real token that happens to equal the pad id stays visible.
    pub fn lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        Band::Lengths(lengths.into_iter().collect()).into()
    }

    /// Hides left padding: row `b` of the batch sees the positions from `counts[b]` on.
    pub fn pad_counts(counts: impl IntoIterator<Item = usize>) -> Self {
        Band::PadCounts(counts.into_iter().collect()).into()
    }

    /// A sliding window told by its width: a query sees the last `keys` keys, its own included, and
    /// not the future. The same as `look_back(keys - 1)`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a width of 0, under which no query would see anything.
    pub fn window_keys(keys: usize) -> Result<Self> {
        Ok(Band::WindowKeys(not_zero("Mask::window_keys", keys)?).into())
    }

    /// A sliding window told by its reach: a query sees its own key and `keys` earlier ones, and not
    /// the future. The same as `window_keys(keys + 1)`.
    pub fn look_back(keys: usize) -> Self {
        Band::LookBack(keys).into()
    }

    /// A window to both sides: a query sees its own key, `back` earlier and `ahead` later ones.
    pub fn look_around(back: usize, ahead: usize) -> Self {
        Band::LookAround { back, ahead }.into()
    }

    /// The first `keys` positions, visible to every query; nothing else.
    ///
    /// `prefix(n) | look_ahead()` is the prefix language model (Raffel et al. 2020, "Exploring the
    /// Limits of Transfer Learning", section 3.2.1). For a prefix of another size in each row use
    /// [`Mask::lengths`] in its place.
    pub fn prefix(keys: usize) -> Self {
        Band::Prefix(keys).into()
    }

    /// The first `keys` positions, to be kept in sight of a window that has left them behind.
    ///
    /// `(window | sinks(n)) & look_ahead()`: Xiao et al. 2023, "Efficient Streaming Language Models
    /// with Attention Sinks", section 3.2. The same rule as [`Mask::prefix`], by its other name.
    pub fn sinks(keys: usize) -> Self {
        Band::Sinks(keys).into()
    }

    /// Chunks of `keys` positions: a query sees its own chunk only. Does not hide the future.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a size of 0.
    pub fn chunks(keys: usize) -> Result<Self> {
        Ok(Band::Chunks(not_zero("Mask::chunks", keys)?).into())
    }

    /// Documents packed one behind the other in each row, told by their lengths: a query sees its
    /// own document only. Does not hide the future.
    ///
    /// The lengths of a row must reach as far as its queries and keys do; give the padding behind
    /// the last document a document of its own.
    pub fn document_lengths<Row>(rows: impl IntoIterator<Item = Row>) -> Self
    where
        Row: IntoIterator<Item = usize>,
    {
        Leaf::Documents(Documents::from_lengths(rows)).into()
    }

    /// Packed documents told by a document id for each position, `[batch, positions]`: a query sees
    /// the keys of its own id only. Does not hide the future.
    ///
    /// A document may come in pieces; then its rule costs `queries * keys` when lowered. In one
    /// piece it costs as much as a window.
    pub fn document_ids(ids: &Tensor<2, Int>) -> Self {
        let [batch, length] = ids.dims();
        let ids: Vec<i64> = ids.to_data().iter::<i64>().collect();
        let row = |row: usize| ids[row * length..][..length].to_vec();
        Leaf::Documents(Documents::from_ids((0..batch).map(row).collect())).into()
    }
}

/// Flags by tensor index. The tensors are read to the host, so that the mask is used on any device.
impl Mask {
    /// Hides every token that equals `pad_id`, wherever it stands.
    ///
    /// `tokens`: `[batch, keys]`, read to the host. A real token that equals the pad id is hidden too: where that can
    /// happen, say how long the rows are with [`Mask::lengths`] or [`Mask::pad_counts`].
    pub fn padding(tokens: &Tensor<2, Int>, pad_id: i64) -> Self {
        let [batch, keys] = tokens.dims();
        let hidden = tokens.to_data().iter::<i64>().map(|token| token == pad_id).collect();
        Self::flags(Source::Padding { pad_id }, [batch, 1, 1, keys], hidden)
    }

    /// Hides the keys whose flag is true, for every query. `hidden`: `[batch or 1, keys]`.
    pub fn from_hidden_keys(hidden: &Tensor<2, Bool>) -> Self {
        let [batch, keys] = hidden.dims();
        Self::flags(Source::Keys, [batch, 1, 1, keys], host_flags(hidden, false))
    }

    /// Hides the keys whose flag is false, for every query. `visible`: `[batch or 1, keys]`.
    pub fn from_visible_keys(visible: &Tensor<2, Bool>) -> Self {
        let [batch, keys] = visible.dims();
        Self::flags(Source::Keys, [batch, 1, 1, keys], host_flags(visible, true))
    }

    /// Hides the cells whose flag is true.
    ///
    /// `hidden`: `[queries, keys]`, `[batch, queries, keys]` or `[batch, heads, queries, keys]`, in
    /// which every axis may be 1 instead.
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] for a tensor of another rank.
    pub fn from_hidden<const D: usize>(hidden: &Tensor<D, Bool>) -> Result<Self> {
        let shape = cells_shape(hidden.dims())?;
        Ok(Self::flags(Source::Cells, shape, host_flags(hidden, false)))
    }

    /// Hides the cells whose flag is false. Shapes and errors as in [`Mask::from_hidden`].
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] for a tensor of another rank.
    pub fn from_visible<const D: usize>(visible: &Tensor<D, Bool>) -> Result<Self> {
        let shape = cells_shape(visible.dims())?;
        Ok(Self::flags(Source::Cells, shape, host_flags(visible, true)))
    }

    fn flags(source: Source, shape: [usize; 4], hidden: Vec<bool>) -> Self {
        Leaf::Flags(Flags { source, cells: HiddenCells { shape, hidden: hidden.into() } }).into()
    }
}

/// The flags of a tensor on the host, turned over on request.
fn host_flags<const D: usize>(tensor: &Tensor<D, Bool>, invert: bool) -> Vec<bool> {
    tensor.to_data().iter::<bool>().map(|flag| flag != invert).collect()
}

/// `dims` as `[batch, heads, queries, keys]`, with 1 for the axes that are left out.
fn cells_shape<const D: usize>(dims: [usize; D]) -> Result<[usize; 4]> {
    match dims[..] {
        [queries, keys] => Ok([1, 1, queries, keys]),
        [batch, queries, keys] => Ok([batch, 1, queries, keys]),
        [batch, heads, queries, keys] => Ok([batch, heads, queries, keys]),
        _ => Err(Error::Mask {
            mask: "hidden_cells",
            expected: "a tensor [queries, keys], [batch, queries, keys] or \
                       [batch, heads, queries, keys]"
                .into(),
            got: format!("rank {D}: {dims:?}"),
        }),
    }
}

fn not_zero(field: &'static str, value: usize) -> Result<NonZeroUsize> {
    NonZeroUsize::new(value).ok_or_else(|| Error::Config {
        field,
        expected: "at least 1 key (a query's own); leave the part out to hide nothing".into(),
        got: "0".into(),
    })
}
