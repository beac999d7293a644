//! What attention is asked, but for the tensors: sizes, which cells are visible, and what changes a
//! score on its way. Plain data, cheap to clone, the same for every kernel.

use std::sync::Arc;

use super::{SeededDropout, Visibility};

/// One attention.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) batch: usize,
    /// Query heads; a multiple of `kv_heads`.
    pub(crate) heads: usize,
    /// Query head `h` reads key/value head `h / (heads / kv_heads)`.
    pub(crate) kv_heads: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) head_dim: usize,
    pub(crate) value_dim: usize,
    pub(crate) visibility: Visibility,
    pub(crate) scoring: Scoring,
    pub(crate) dropout: Option<SeededDropout>,
}

/// From a dot product to a score: `softcap(scale * dot) - slope * distance`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scoring {
    pub(crate) scale: f64,
    /// `cap` in `cap * tanh(score / cap)`, after the scale.
    pub(crate) softcap: Option<f64>,
    pub(crate) slopes: Option<Slopes>,
}

/// A bias of `-slope * |query position - key position|` (ALiBi), which a kernel computes cell by cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slopes {
    /// `[heads]`
    pub(crate) slopes: Arc<[f64]>,
    /// Query `i` stands at this plus `i`.
    pub(crate) first_query: i64,
    /// Where the keys stand; key `j` at `j` if not given.
    pub(crate) key_positions: Option<Arc<[i64]>>,
}

impl Slopes {
    /// Position of query `index`.
    pub(crate) fn query_position(&self, index: usize) -> i64 {
        self.first_query.saturating_add(index as i64)
    }

    /// Position of key `index`.
    pub(crate) fn key_position(&self, index: usize) -> i64 {
        self.key_positions.as_ref().map_or(index as i64, |positions| positions[index])
    }

    /// What is added to the score of a cell.
    #[cfg(test)]
    pub(crate) fn bias(&self, head: usize, query: usize, key: usize) -> f64 {
        let distance = self.query_position(query) - self.key_position(key);
        -self.slopes[head] * distance.abs() as f64
    }
}

impl Plan {
    /// The key/value head that query head `head` reads.
    pub(crate) fn kv_head(&self, head: usize) -> usize {
        head / (self.heads / self.kv_heads)
    }

    /// The two ranges of keys, start and end, that the spans of a query leave visible; an empty one
    /// is `0..0`.
    #[inline]
    pub(crate) fn ranges(&self, batch: usize, query: usize) -> [(usize, usize); 2] {
        let Some(spans) = self.visibility.row(self.queries, batch, query) else {
            return [(0, self.keys), (0, 0)];
        };
        [spans.first(), spans.second()].map(|span| {
            let (start, end) = (span.start as usize, (span.end as usize).min(self.keys));
            if start < end { (start, end) } else { (0, 0) }
        })
    }

    /// The flags of a batch row's keys, if some key is hidden from every query.
    #[inline]
    pub(crate) fn hidden_keys(&self, batch: usize) -> Option<&[bool]> {
        self.visibility.keys_of(self.keys, batch)
    }

    /// Whether a query sees a key, asked cell by cell.
    pub(crate) fn is_visible(&self, batch: usize, head: usize, query: usize, key: usize) -> bool {
        let in_a_span =
            self.ranges(batch, query).iter().any(|&(start, end)| (start..end).contains(&key));
        let cells = self.visibility.hidden_cells.as_ref();
        in_a_span
            && !self.hidden_keys(batch).is_some_and(|hidden| hidden[key])
            && !cells.is_some_and(|cells| cells.is_hidden(batch, head, query, key))
    }

    /// Whether a query sees any key.
    pub(crate) fn sees_any(&self, batch: usize, head: usize, query: usize) -> bool {
        self.ranges(batch, query)
            .into_iter()
            .flat_map(|(start, end)| start..end)
            .any(|key| self.is_visible(batch, head, query, key))
    }

    /// Panics where the sizes of the parts do not fit each other.
    pub(crate) fn check(&self) {
        let Self { batch, heads, kv_heads, queries, keys, .. } = *self;
        assert!(kv_heads > 0 && heads % kv_heads == 0, "{heads} heads, {kv_heads} key/value heads");
        assert!(keys < u32::MAX as usize && queries < u32::MAX as usize, "too long");
        let fits = |got: usize, row: usize| got == row || got == batch * row;
        if let Some(spans) = &self.visibility.spans {
            assert!(fits(spans.len(), queries), "spans: {} for {queries} queries", spans.len());
        }
        if let Some(hidden) = &self.visibility.hidden_keys {
            assert!(fits(hidden.len(), keys), "hidden keys: {} for {keys} keys", hidden.len());
        }
        if let Some(cells) = &self.visibility.hidden_cells {
            let full = [batch, heads, queries, keys];
            assert!(
                (0..4).all(|axis| cells.shape[axis] == 1 || cells.shape[axis] == full[axis])
                    && cells.hidden.len() == cells.shape.iter().product::<usize>(),
                "hidden cells: {:?} for {full:?}",
                cells.shape
            );
        }
        if let Some(slopes) = &self.scoring.slopes {
            assert_eq!(slopes.slopes.len(), heads, "one slope for each head");
            if let Some(positions) = &slopes.key_positions {
                assert_eq!(positions.len(), keys, "one position for each key");
            }
        }
    }
}
