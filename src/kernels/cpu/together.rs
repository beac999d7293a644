//! Parts of a layer that are one operation where a few rows go through weights in blocks, as of the token
//! of a decoding step.
//!
//! There a product takes some ten microseconds; to hand its parts to other threads, to prepare the rows
//! and to make tensors takes a good part of that. Products with the same rows are handed over together,
//! and what stands between two products makes no tensor. Every number is the one that the operations
//! alone give. Without a gradient, and for rows of f32.

use burn::backend::{Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::Tensor;

use super::activation::Function;
use super::host::{Flat, Host};
use super::matrix::Matrix;
use super::stored::{MOST_ROWS, StoredMatrix, StoredWeight, products_side_by_side};
use super::{runs_on, threads};

/// Several products as one operation.
#[derive(Clone, Debug)]
pub(crate) enum Together {
    /// The products with each weight, side by side.
    Projections(Vec<StoredWeight>),
    /// `down(f(up(x)))`, or `down(f(gate(x)) up(x))`.
    FeedForward {
        up: StoredWeight,
        gate: Option<StoredWeight>,
        down: StoredWeight,
        function: Function,
    },
}

impl Together {
    /// Whether it is of use for `x`, `[batch, rows, width]`.
    pub(crate) fn fits(x: &Tensor<3>) -> bool {
        let [batch, rows, _] = x.dims();
        (1..=MOST_ROWS).contains(&(batch * rows)) && runs_on(x) && !x.device().is_autodiff()
    }

    /// Of `x`, for which it [`fits`](Self::fits), `[batch, rows, outputs of all, or of down]`.
    ///
    /// # Panics
    ///
    /// If the widths do not fit.
    pub(crate) fn run(self, x: Tensor<3>) -> Tensor<3> {
        Tensor::from_dispatch(Dispatch::run_together(x.into_dispatch(), self))
    }

    /// Of some rows.
    fn of(&self, x: Matrix) -> Vec<f32> {
        match self {
            Self::Projections(weights) => {
                let weights: Vec<_> = weights.iter().map(|weight| fitting(weight, x)).collect();
                products_side_by_side(x, &weights)
            }
            Self::FeedForward { up, gate, down, function } => {
                let inner = match gate {
                    None => {
                        let up = products_side_by_side(x, &[fitting(up, x)]);
                        threads::read_next([down.bytes()]);
                        function.of_slice(&up)
                    }
                    Some(gate) => {
                        let both = [fitting(gate, x), fitting(up, x)];
                        let width = both[0].rows;
                        assert!(width == both[1].rows, "a gate of another width");
                        let both = products_side_by_side(x, &both); // [rows, 2 * width]
                        threads::read_next([down.bytes()]);
                        let gated = |row: &[f32]| function.of_gated(&row[..width], &row[width..]);
                        match x.rows {
                            1 => gated(&both),
                            _ => {
                                both.chunks_exact(2 * width).map(gated).collect::<Vec<_>>().concat()
                            }
                        }
                    }
                };
                let inner = Matrix::rows(&inner, inner.len() / x.rows);
                products_side_by_side(inner, &[fitting(down, inner)])
            }
        }
    }
}

/// The matrix of a weight.
fn fitting<'a>(weight: &'a StoredWeight, x: Matrix) -> StoredMatrix<'a> {
    let matrix = weight.matrix();
    assert!(
        matrix.columns == x.columns,
        "expected rows of {} numbers, got {}",
        matrix.columns,
        x.columns
    );
    matrix
}

extend_cpus! {
    ()

    /// Without a gradient: whoever trains has the operations alone.
    pub(crate) trait RunTogether: Backend {
        fn run_together(x: FloatTensor<Self>, together: Together) -> FloatTensor<Self>;
    }
}

impl<B: Host> RunTogether for B {
    fn run_together(x: FloatTensor<B>, together: Together) -> FloatTensor<B> {
        let mut shape = x.shape();
        let last = shape.num_dims() - 1;
        let x = Flat::<B>::new(x);
        let x = Matrix::rows(x.data(), shape[last]);
        let output = together.of(x);
        shape[last] = output.len() / x.rows;
        B::tensor(output, shape)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, TensorData};

    use super::*;
    use crate::kernels::Format;
    use crate::kernels::cpu::activation::{activate, activate_gated};
    use crate::kernels::cpu::tests::{cpus, scattered};

    /// Random bytes of ordinary size.
    fn weight(
        format: Format,
        [rows, columns]: [usize; 2],
        device: &burn::tensor::Device,
    ) -> StoredWeight {
        let length = rows * format.row_bytes(columns).unwrap();
        let mut seed = 7u32;
        let mut byte = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 25) as u8 & 15 | 0x28
        };
        let bytes = (0..length).map(|_| byte()).collect();
        let bytes = TensorData::from_bytes_vec(bytes, [rows, length / rows], DType::U8);
        StoredWeight::new(Tensor::from_data(bytes, (device, DType::U8)), format, columns).unwrap()
    }

    #[test]
    fn several_are_as_each_alone() {
        for device in cpus() {
            let weights =
                [(Format::Q8_0, 67), (Format::Bf16, 5), (Format::Q8_0, 131), (Format::Q4_1, 37)]
                    .map(|(format, outputs)| weight(format, [outputs, 96], &device));
            for [batch, rows] in [[1, 1], [2, 3], [7, 1], [2, 4]] {
                let x = scattered([batch, rows, 96], &device);
                assert!(Together::fits(&x));
                let alone = weights.clone().map(|weight| weight.project(x.clone(), None));
                let all = Together::Projections(weights.to_vec()).run(x);
                assert_eq!(all.into_data(), Tensor::cat(alone.to_vec(), 2).into_data());
            }
        }
    }

    #[test]
    fn a_feed_forward_part_is_as_its_operations() {
        for device in cpus() {
            let [up, gate] = [(Format::Q8_0, 64), (Format::Q4_1, 64)]
                .map(|(format, outputs)| weight(format, [outputs, 96], &device));
            let down = weight(Format::Bf16, [31, 64], &device);
            for rows in [1, 3, 8] {
                let x = scattered([1, rows, 96], &device);
                let project = |weight: &StoredWeight| weight.clone().project(x.clone(), None);
                for function in [Function::Silu, Function::Gelu] {
                    let (up, gate, down) = (up.clone(), gate.clone(), down.clone());
                    let inner = activate_gated(function, project(&gate), project(&up));
                    let expected = down.clone().project(inner, None);
                    let plain = down.clone().project(activate(function, project(&up)), None);
                    let run = |gate| {
                        let (up, down) = (up.clone(), down.clone());
                        Together::FeedForward { up, gate, down, function }.run(x.clone())
                    };
                    assert_eq!(run(Some(gate)).into_data(), expected.into_data());
                    assert_eq!(run(None).into_data(), plain.into_data());
                }
            }
        }
    }

    #[test]
    fn many_rows_and_training_are_left_to_the_operations_alone() {
        for device in cpus() {
            assert!(!Together::fits(&scattered([3, 3, 4], &device)));
            assert!(!Together::fits(&scattered([0, 1, 4], &device)));
            assert!(!Together::fits(&scattered([1, 1, 4], &device.autodiff())));
        }
    }
}
