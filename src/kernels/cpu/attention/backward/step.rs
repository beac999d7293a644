//! One panel of queries against one tile of keys: from dot products to weights and to the gradients
//! of the dot products.

use std::ops::Range;

use pulp::Simd;

use super::super::Real;
use super::super::panel::{KeySet, QueryPanel};
use super::super::real::exp2;
use super::super::rows::TensorRows;
use super::super::tile_product::{Init, Left, LeftLayout, Product, Right};
use super::BackwardPass;

/// What a panel computes from and to.
pub(super) struct PanelStep<'a, T: Real> {
    pub(super) pass: &'a BackwardPass<'a, T>,
    pub(super) panel: &'a QueryPanel<'a>,
    pub(super) keys: Range<usize>,
    pub(super) key: TensorRows<'a, T>,
    pub(super) value: TensorRows<'a, T>,
    /// `[head_dim][width]`
    pub(super) query: &'a [T],
    /// `[value_dim][width]`
    pub(super) d_out: &'a [T],
    /// `[width]`
    pub(super) maxima: &'a [T],
    /// `[width]`
    pub(super) deltas: &'a [T],
    /// `[keys][width]`
    pub(super) scores: &'a mut [T],
    /// `[keys][width]`
    pub(super) d_weights: &'a mut [T],
    /// `[keys][width]`
    pub(super) derivatives: &'a mut [T],
    /// `[keys][row]`, and so the next two
    pub(super) weights: &'a mut [T],
    pub(super) d_scores: &'a mut [T],
    pub(super) d_bias: &'a mut [T],
    pub(super) row: usize,
}

impl<T: Real> PanelStep<'_, T> {
    /// Returns the keys hidden from some query of the panel.
    #[inline(always)]
    pub(super) fn run<S: Simd, const N: usize>(self, simd: S) -> KeySet {
        let width = N * T::lanes::<S>();
        let plan = self.pass.plan;
        simd.vectorize(Product::<_, N> {
            rows: self.keys.len(),
            depth: plan.head_dim,
            left: Left { data: self.key.data, layout: LeftLayout::Rows(self.key.step) },
            right: Right { data: self.query, step: width },
            out: self.scores,
            row: width,
            init: Init::Zero,
        });
        simd.vectorize(Product::<_, N> {
            rows: self.keys.len(),
            depth: plan.value_dim,
            left: Left { data: self.value.data, layout: LeftLayout::Rows(self.value.step) },
            right: Right { data: self.d_out, step: width },
            out: self.d_weights,
            row: width,
            init: Init::Zero,
        });
        let keys = || self.keys.clone();
        let rule = &self.pass.rule;
        let derivatives = plan.scoring.softcap.is_some().then_some(&mut *self.derivatives);
        rule.apply(simd, self.panel, keys(), width, self.scores, derivatives);
        let partial = self.panel.hide::<T, S>(simd, keys(), width, self.scores);
        if let Some(dropout) = &plan.dropout {
            self.panel.drop_some(dropout, keys(), width, self.d_weights);
        }
        let factor = T::splat(simd, T::of_f64(rule.factor));
        let [zero, least] = [T::ZERO, T::LEAST].map(|x| T::splat(simd, x));
        let maxima = &T::vectors::<S>(self.maxima)[..N];
        let deltas = &T::vectors::<S>(self.deltas)[..N];
        let scores = T::vectors::<S>(self.scores).chunks_exact(N);
        let d_weights = T::vectors::<S>(self.d_weights).chunks_exact(N);
        for (index, (scores, d_weights)) in scores.zip(d_weights).enumerate() {
            let at = index * self.row;
            let weights = &mut T::vectors_mut::<S>(&mut self.weights[at..][..width])[..N];
            let d_scores = &mut T::vectors_mut::<S>(&mut self.d_scores[at..][..width])[..N];
            for n in 0..N {
                let exponent = T::mul(simd, T::sub(simd, scores[n], maxima[n]), factor);
                weights[n] = exp2::<T, S>(simd, exponent);
                let d_score = T::sub(simd, d_weights[n], deltas[n]);
                d_scores[n] = T::mul(simd, weights[n], d_score);
            }
            if partial != 0 {
                for n in 0..N {
                    d_scores[n] = T::if_less(simd, scores[n], least, zero, d_scores[n]);
                }
            }
        }
        if let Some(dropout) = &plan.dropout {
            self.panel.drop_some(dropout, keys(), self.row, self.weights);
        }
        if !rule.plain {
            let scale = T::of_f64(plan.scoring.scale);
            for index in 0..self.keys.len() {
                let at = index * self.row;
                let d_scores = &mut self.d_scores[at..][..width];
                if !self.d_bias.is_empty() {
                    self.d_bias[at..][..width].copy_from_slice(d_scores);
                }
                for (lane, d_score) in d_scores.iter_mut().enumerate() {
                    *d_score *= scale;
                    // What is hidden stays 0, also where its derivative is NaN.
                    if plan.scoring.softcap.is_some() && *d_score != T::ZERO {
                        *d_score *= self.derivatives[index * width + lane];
                    }
                }
            }
        }
        partial
    }
}
