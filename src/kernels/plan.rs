//! What attention is asked, but for the tensors.

use super::SeededDropout;
use super::cpu::attention::{self, Problem};
use crate::attention::Alibi;
use crate::mask::LoweredMask;

/// Everything about one attention that is not a tensor: plain host data, cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Which keys each query sees, and where both stand.
    pub(crate) mask: LoweredMask,
    /// Factor of the scores.
    pub(crate) scale: f64,
    /// `cap` in `cap * tanh(score / cap)`.
    pub(crate) softcap: Option<f64>,
    /// A bias by distance.
    pub(crate) alibi: Option<Alibi>,
    /// Dropout of the weights.
    pub(crate) dropout: Option<SeededDropout>,
    /// Whether a bias is among the tensors; sinks may be, with or without it.
    pub(crate) biased: bool,
}

impl Plan {
    /// The same for the kernel, with the shapes of query and key, the width of the values and one
    /// sink a head.
    pub(super) fn problem<'a>(
        &'a self,
        query: [usize; 4],
        key: [usize; 4],
        value_dim: usize,
        sinks: Option<&'a [f64]>,
    ) -> Problem<'a> {
        let [batch, heads, queries, head_dim] = query;
        let [_, kv_heads, keys, _] = key;
        Problem {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            head_dim,
            value_dim,
            scale: self.scale,
            softcap: self.softcap,
            spans: self.mask.one_span.0.as_deref(),
            hidden_keys: self.mask.hidden_keys(),
            hidden_cells: self.mask.one_span.1.as_ref(),
            alibi: self
                .alibi
                .as_ref()
                .map(|alibi| attention::Alibi { slopes: alibi.slopes(), grid: self.mask.grid() }),
            sinks,
            dropout: self.dropout,
        }
    }
}
