//! The backward pass: one task for each batch row, head and tile of queries.
//!
//! ```text
//! Pt  = exp(St - m)                  again, from the row's maximum; the sum l goes into dO
//! dV += Pt (dO / l)                  [keys, value_dim]
//! dPt = V (dO / l)t                  [keys, queries]
//! dSt = Pt * (dPt - delta / l)       delta = rowsum(dO * O)
//! dQ += dS K                         [queries, head_dim]
//! dK += dSt Q                        [keys, head_dim]
//! ```
//!
//! `dQ` belongs to the task; to `dK` and `dV` the tasks add in order. (Dao et al. 2022, appendix
//! B.4; Dao 2023, section 3.1.2.)

mod non_finite;
mod pass;
mod scores;
mod step;
mod sums;
mod tile;

pub(super) use pass::backward;
use pass::{BackwardPass, QUERY_TILE, QuerySet};
