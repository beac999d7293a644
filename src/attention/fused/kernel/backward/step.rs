//! One panel of queries against one tile of keys: from dot products to weights and to the gradients
//! of the dot products.

use std::ops::Range;

use pulp::Simd;

use super::super::gemm::{Left, Lie, Onto, Product, Right};
use super::super::real::exp2;
use super::super::rows::Rows;
use super::super::visible::{KeySet, Panel};
use super::super::{Element, Real};
use super::Plan;

/// What a panel computes from and to.
pub(super) struct Step<'a, E: Element> {
    pub(super) plan: &'a Plan<'a, E>,
    pub(super) panel: &'a Panel<'a>,
    pub(super) keys: Range<usize>,
    pub(super) key: Rows<'a, E::Real>,
    pub(super) value: Rows<'a, E::Real>,
    /// `[head_dim][width]`
    pub(super) query: &'a [E::Real],
    /// `[value_dim][width]`
    pub(super) d_out: &'a [E::Real],
    /// `[width]`
    pub(super) maxima: &'a [E::Real],
    /// `[width]`
    pub(super) deltas: &'a [E::Real],
    /// `[keys][width]`
    pub(super) scores: &'a mut [E::Real],
    /// `[keys][width]`
    pub(super) d_weights: &'a mut [E::Real],
    /// `[keys][width]`
    pub(super) slopes: &'a mut [E::Real],
    /// `[keys][row]`, and so the next two
    pub(super) weights: &'a mut [E::Real],
    pub(super) d_scores: &'a mut [E::Real],
    pub(super) d_bias: &'a mut [E::Real],
    pub(super) row: usize,
}

impl<E: Element> Step<'_, E> {
    /// Returns the keys hidden from some query of the panel.
    #[inline(always)]
    pub(super) fn run<S: Simd, const N: usize>(self, simd: S) -> KeySet {
        let width = N * E::Real::lanes::<S>();
        let problem = self.plan.problem;
        simd.vectorize(Product::<_, N> {
            rows: self.keys.len(),
            depth: problem.head_dim,
            left: Left { data: self.key.data, lie: Lie::Rows(self.key.step) },
            right: Right { data: self.query, step: width },
            out: self.scores,
            row: width,
            onto: Onto::Zero,
        });
        simd.vectorize(Product::<_, N> {
            rows: self.keys.len(),
            depth: problem.value_dim,
            left: Left { data: self.value.data, lie: Lie::Rows(self.value.step) },
            right: Right { data: self.d_out, step: width },
            out: self.d_weights,
            row: width,
            onto: Onto::Zero,
        });
        let keys = || self.keys.clone();
        let rule = &self.plan.rule;
        let slopes = problem.softcap.is_some().then_some(&mut *self.slopes);
        rule.apply(simd, self.panel, keys(), width, self.scores, slopes);
        let partial = self.panel.hide::<E::Real, S>(simd, keys(), width, self.scores);
        if let Some(dropout) = &problem.dropout {
            self.panel.drop_some(dropout, keys(), width, self.d_weights);
        }
        let factor = E::Real::splat(simd, E::Real::of_f64(rule.factor));
        let [zero, least] = [E::Real::ZERO, E::Real::LEAST].map(|x| E::Real::splat(simd, x));
        let maxima = &E::Real::vectors::<S>(self.maxima)[..N];
        let deltas = &E::Real::vectors::<S>(self.deltas)[..N];
        let scores = E::Real::vectors::<S>(self.scores).chunks_exact(N);
        let d_weights = E::Real::vectors::<S>(self.d_weights).chunks_exact(N);
        for (index, (scores, d_weights)) in scores.zip(d_weights).enumerate() {
            let at = index * self.row;
            let weights = &mut E::Real::vectors_mut::<S>(&mut self.weights[at..][..width])[..N];
            let d_scores = &mut E::Real::vectors_mut::<S>(&mut self.d_scores[at..][..width])[..N];
            for n in 0..N {
                let exponent = E::Real::mul(simd, E::Real::sub(simd, scores[n], maxima[n]), factor);
                weights[n] = exp2::<E::Real, S>(simd, exponent);
                let d_score = E::Real::sub(simd, d_weights[n], deltas[n]);
                d_scores[n] = E::Real::mul(simd, weights[n], d_score);
            }
            if partial != 0 {
                for n in 0..N {
                    d_scores[n] = E::Real::if_less(simd, scores[n], least, zero, d_scores[n]);
                }
            }
        }
        if let Some(dropout) = &problem.dropout {
            self.panel.drop_some(dropout, keys(), self.row, self.weights);
        }
        if !rule.plain {
            let scale = E::Real::of_f64(problem.scale);
            for index in 0..self.keys.len() {
                let at = index * self.row;
                let d_scores = &mut self.d_scores[at..][..width];
                if !self.d_bias.is_empty() {
                    self.d_bias[at..][..width].copy_from_slice(d_scores);
                }
                for (lane, d_score) in d_scores.iter_mut().enumerate() {
                    *d_score *= scale;
                    if problem.softcap.is_some() {
                        *d_score *= self.slopes[index * width + lane];
                    }
                }
            }
        }
        partial
    }
}
