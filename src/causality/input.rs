//! What a model reads: token ids or embeddings, drawn, changed and counted in one way.

use std::ops::RangeInclusive;

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{RngExt, rngs::StdRng};

/// What the checked model reads: tokens `[batch, length]` or embeddings `[batch, length, width]`.
///
/// Implemented for `Tensor<2, Int>` and `Tensor<3>`; sealed.
pub trait ModelInput: sealed::Input {}

impl ModelInput for Tensor<2, Int> {}
impl ModelInput for Tensor<3> {}

/// How a position is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// To another value of the ordinary kind.
    Random,
    /// Tokens: to the first or the last id. Embeddings: to values of 1e4.
    Extreme,
    /// Embeddings: to NaN.
    NotANumber,
}

pub(super) mod sealed {
    use super::*;

    pub trait Input: Sized + Clone {
        /// One number of a position.
        type Value: Copy;

        /// The vocabularies or widths that leave something to change, and that its type can count.
        fn sizes() -> RangeInclusive<usize>;

        /// Whether there is a gradient by the input.
        fn can_be_differentiated() -> bool;

        /// Numbers per position, from the builder's size (vocabulary or width).
        fn numbers(size: usize) -> usize;

        /// A fresh position of the ordinary kind.
        fn draw(size: usize, rng: &mut StdRng) -> Vec<Self::Value>;

        /// The position `old`, changed; differs from `old`.
        fn change(
            change: Change,
            old: &[Self::Value],
            size: usize,
            rng: &mut StdRng,
        ) -> Vec<Self::Value>;

        /// The changes that this kind of input can take.
        fn changes() -> &'static [Change];

        /// The tensor, `values` in row-major order.
        fn tensor(
            values: Vec<Self::Value>,
            batch: usize,
            length: usize,
            size: usize,
            device: &Device,
        ) -> Self;

        /// A tracked leaf to differentiate by, where that is possible: the input and its handle.
        fn tracked(self) -> Option<(Self, Tensor<3>)>;

        /// One position of each row.
        fn position(&self, index: usize) -> Self;

        /// The id, of an input that has ids.
        fn id(value: Self::Value) -> Option<i64>;

        /// The value of an id, of an input that has ids.
        fn of_id(id: i64) -> Option<Self::Value>;

        /// A value next to `value`, of an input that has such.
        fn nudged(value: Self::Value, by: f32) -> Option<Self::Value>;

        /// A value times a number, of an input that has a size.
        fn scaled(value: Self::Value, by: f32) -> Option<Self::Value>;
    }

    impl Input for Tensor<2, Int> {
        type Value = i64;

        fn sizes() -> RangeInclusive<usize> {
            2..=i32::MAX as usize
        }

        fn can_be_differentiated() -> bool {
            false
        }

        fn numbers(_: usize) -> usize {
            1
        }

        fn draw(size: usize, rng: &mut StdRng) -> Vec<i64> {
            vec![rng.random_range(0..size as i64)]
        }

        fn change(change: Change, old: &[i64], size: usize, rng: &mut StdRng) -> Vec<i64> {
            let (old, last) = (old[0], size as i64 - 1);
            vec![match change {
                Change::Extreme if old != last && (old == 0 || rng.random()) => last,
                Change::Extreme if old != 0 => 0,
                // Any id but the old one, each as likely.
                _ => (old + rng.random_range(1..=last)) % (last + 1),
            }]
        }

        fn changes() -> &'static [Change] {
            &[Change::Random, Change::Extreme]
        }

        fn tensor(values: Vec<i64>, batch: usize, length: usize, _: usize, on: &Device) -> Self {
            Tensor::from_data(TensorData::new(values, [batch, length]), on)
        }

        fn tracked(self) -> Option<(Self, Tensor<3>)> {
            None
        }

        fn position(&self, index: usize) -> Self {
            self.clone().narrow(1, index, 1) // [batch, 1]
        }

        fn id(value: i64) -> Option<i64> {
            Some(value)
        }

        fn of_id(id: i64) -> Option<i64> {
            Some(id)
        }

        fn nudged(_: i64, _: f32) -> Option<i64> {
            None
        }

        fn scaled(_: i64, _: f32) -> Option<i64> {
            None
        }
    }

    impl Input for Tensor<3> {
        type Value = f32;

        fn sizes() -> RangeInclusive<usize> {
            1..=usize::MAX
        }

        fn can_be_differentiated() -> bool {
            true
        }

        fn numbers(size: usize) -> usize {
            size
        }

        fn draw(size: usize, rng: &mut StdRng) -> Vec<f32> {
            // Variance 1, as the embeddings of a model after its initialisation or its norm.
            (0..size).map(|_| rng.random_range(-1.732..1.732)).collect()
        }

        fn change(change: Change, _: &[f32], size: usize, rng: &mut StdRng) -> Vec<f32> {
            match change {
                Change::Random => Self::draw(size, rng),
                Change::Extreme => Self::draw(size, rng).iter().map(|x| x * 1e4).collect(),
                Change::NotANumber => vec![f32::NAN; size],
            }
        }

        fn changes() -> &'static [Change] {
            &[Change::Random, Change::Extreme, Change::NotANumber]
        }

        fn tensor(values: Vec<f32>, batch: usize, length: usize, size: usize, on: &Device) -> Self {
            Tensor::from_data(TensorData::new(values, [batch, length, size]), on)
        }

        fn tracked(self) -> Option<(Self, Tensor<3>)> {
            let leaf = self.autodiff().require_grad();
            Some((leaf.clone(), leaf))
        }

        fn position(&self, index: usize) -> Self {
            self.clone().narrow(1, index, 1) // [batch, 1, width]
        }

        fn id(_: f32) -> Option<i64> {
            None
        }

        fn of_id(_: i64) -> Option<f32> {
            None
        }

        fn nudged(value: f32, by: f32) -> Option<f32> {
            Some(value + by)
        }

        fn scaled(value: f32, by: f32) -> Option<f32> {
            Some(value * by)
        }
    }
}
