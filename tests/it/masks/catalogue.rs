//! Every leaf that goes by position, one line each: for random expressions, and to be drawn.

use std::ops::RangeInclusive;

use burn_decoder::mask::Mask;

/// A leaf with up to two arguments.
pub struct LeafCase {
    /// What random arguments are drawn from.
    pub arguments: [RangeInclusive<usize>; 2],
    pub mask: fn([usize; 2]) -> Mask,
    /// Whether the query at a position sees the key at a position.
    pub shows: fn([i64; 2], i64, i64) -> bool,
}

const fn leaf(
    arguments: [RangeInclusive<usize>; 2],
    mask: fn([usize; 2]) -> Mask,
    shows: fn([i64; 2], i64, i64) -> bool,
) -> LeafCase {
    LeafCase { arguments, mask, shows }
}

const NONE: RangeInclusive<usize> = 0..=0;

#[rustfmt::skip]
pub const LEAVES: &[LeafCase] = &[
    leaf([NONE, NONE], |_| Mask::all_visible(), |_, _, _| true),
    leaf([NONE, NONE], |_| Mask::look_ahead(), |_, q, k| k <= q),
    leaf([1..=7, NONE], |[w, _]| Mask::window_keys(w).unwrap(), |[w, _], q, k| k <= q && q - k < w),
    leaf([0..=7, NONE], |[w, _]| Mask::look_back(w), |[w, _], q, k| k <= q && q - k <= w),
    leaf([0..=4, 0..=4], |[a, b]| Mask::look_around(a, b), |[a, b], q, k| q - k <= a && k - q <= b),
    leaf([1..=7, 1..=4], |[w, d]| Mask::dilated_window(w, d).unwrap(), |[w, d], q, k| k <= q && q - k < w && (q - k) % d == 0),
    leaf([0..=8, NONE], |[n, _]| Mask::prefix(n), |[n, _], _, k| k < n),
    leaf([0..=8, NONE], |[n, _]| Mask::sinks(n), |[n, _], _, k| k < n),
    leaf([1..=5, NONE], |[c, _]| Mask::chunks(c).unwrap(), |[c, _], q, k| q.div_euclid(c) == k.div_euclid(c)),
];
