//! From dot products to scores: scale, softcap, bias and ALiBi.
//!
//! Where nothing but a positive scale changes a dot product, it is left as it is, and the scale
//! goes into the exponent's factor: `exp(scale * (a - max)) = exp2(factor * (a - max))`. The
//! difference is taken first, so that nothing is lost however large the scores are.

use std::ops::Range;

use pulp::Simd;

use super::panel::{MOST_LANES, Panel};
use super::real::exp2_minus_one;
use super::{Inputs, Real, Strided};
use crate::kernels::Plan;

/// What order dot products into scores.
#[derive(Clone, Copy)]
pub(super) struct ScoreRule<'a, T> {
    plan: &'a Plan,
    bias: Option<Strided<'a, T>>,
    sinks: Option<&'a [f64]>,
    /// Dot products are the scores but for the scale.
    pub(super) plain: bool,
    /// `exp(score) = exp2(factor * what stands in the tile)`
    pub(super) factor: f64,
}

impl<'a, T: Real> ScoreRule<'a, T> {
    pub(super) fn new(plan: &'a Plan, inputs: &Inputs<'a, T>) -> Self {
        let scoring = &plan.scoring;
        let plain = scoring.softcap.is_none()
            && scoring.slopes.is_none()
            && inputs.bias.is_none()
            && scoring.scale > 0.0;
        let factor = std::f64::consts::LOG2_E * if plain { scoring.scale } else { 1.0 };
        Self { plan, bias: inputs.bias, sinks: inputs.sinks, plain, factor }
    }

    /// The sink of a head in the units of the tile.
    pub(super) fn sink(&self, head: usize) -> Option<f64> {
        let unit = if self.plain { self.plan.scoring.scale } else { 1.0 };
        self.sinks.map(|sinks| sinks[head] / unit)
    }

    /// TaskOrder a tile of dot products, `[keys][width]`, into scores. `derivatives` gets what the softcap
    /// multiplies a score's gradient by.
    #[inline(always)]
    pub(super) fn apply<S: Simd>(
        &self,
        simd: S,
        panel: &Panel,
        keys: Range<usize>,
        width: usize,
        tile: &mut [T],
        derivatives: Option<&mut [T]>,
    ) {
        if self.plain {
            return;
        }
        let scale = T::splat(simd, T::of_f64(self.plan.scoring.scale));
        for score in T::vectors_mut::<S>(tile) {
            *score = T::mul(simd, *score, scale);
        }
        if let Some(cap) = self.plan.scoring.softcap {
            softcap(simd, T::of_f64(cap), tile, derivatives);
        }
        if let Some(bias) = &self.bias {
            for lane in 0..panel.queries {
                let at = [panel.batch, panel.head, panel.first + lane, keys.start];
                let mut at: usize = (0..4).map(|axis| at[axis] * bias.strides[axis]).sum();
                for row in tile.chunks_exact_mut(width) {
                    row[lane] += bias.data[at];
                    at += bias.strides[3];
                }
            }
        }
        if let Some(slopes) = &self.plan.scoring.slopes {
            // positions counted from the panel's first query: exact in any float
            let base = slopes.query_position(panel.first);
            let of = |position: i64| T::of_f64((position - base) as f64);
            let mut queries = [T::ZERO; MOST_LANES];
            for (lane, position) in queries[..width].iter_mut().enumerate() {
                *position = of(slopes.query_position(panel.query(lane)));
            }
            let slope = T::splat(simd, T::of_f64(-slopes.slopes[panel.head]));
            for (row, key) in tile.chunks_exact_mut(width).zip(keys) {
                let key = T::splat(simd, of(slopes.key_position(key)));
                let row = T::vectors_mut::<S>(row).iter_mut();
                for (score, &query) in row.zip(T::vectors::<S>(&queries)) {
                    let ahead = T::sub(simd, key, query);
                    let distance = T::max(simd, ahead, T::sub(simd, query, key));
                    *score = T::mul_add(simd, slope, distance, *score);
                }
            }
        }
    }
}

/// `cap * tanh(score / cap)`; `derivatives` gets the derivative, `1 - tanh^2`.
///
/// `tanh x = e / (e + 2)` with `e = exp(2|x|) - 1` computed without cancellation, so that small
/// scores keep their relative precision.
#[inline(always)]
fn softcap<T: Real, S: Simd>(simd: S, cap: T, tile: &mut [T], derivatives: Option<&mut [T]>) {
    let [zero, one, two] = [0.0, 1.0, 2.0].map(|value| T::splat(simd, T::of_f64(value)));
    let most = T::splat(simd, T::of_f64(64.0)); // tanh is 1 long before
    let factor = T::splat(simd, T::of_f64(2.0 * std::f64::consts::LOG2_E / cap.to_f64()));
    let cap = T::splat(simd, cap);
    let mut derivatives = derivatives.map(|to| T::vectors_mut::<S>(to).iter_mut());
    for score in T::vectors_mut::<S>(tile) {
        let negative = T::sub(simd, zero, *score);
        let magnitude = T::if_less(simd, *score, zero, negative, *score);
        let x = T::mul(simd, magnitude, factor);
        let e = exp2_minus_one::<T, S>(simd, T::if_less(simd, most, x, most, x));
        let tanh = T::div(simd, e, T::add(simd, e, two));
        if let Some(derivative) = derivatives.as_mut().and_then(Iterator::next) {
            *derivative = T::mul(simd, T::sub(simd, one, tanh), T::add(simd, one, tanh));
        }
        let capped = T::mul(simd, cap, tanh);
        *score = T::if_less(simd, *score, zero, T::sub(simd, zero, capped), capped);
    }
}
