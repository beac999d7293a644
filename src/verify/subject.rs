//! One kernel on one case: run, measured, caught.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::{DType, Device, Gradients, Tensor};

use super::case::{Case, CaseInputs, Solved};
use super::table::Verified;
use crate::attention::{Kernel, Score};
use crate::kernels::naive::{Array, Solution};
use crate::mask::LoweredMask;

/// Query, key, value, mask and score to an output.
pub(super) type Attend<'a> = dyn Fn([Tensor<4>; 3], &LoweredMask, &Score) -> Tensor<4> + 'a;

/// Whoever computes attention, and the name that the table has for it.
pub(super) struct Subject<'a> {
    pub name: Kernel,
    pub attend: &'a Attend<'a>,
}

/// How far one quantity is from what is right.
#[derive(Clone, Copy, Debug)]
struct Measured {
    quantity: &'static str,
    error: f64,
    tolerance: f64,
}

impl Subject<'_> {
    pub fn verify(&self, solved: &Solved, device: &Device) -> Verified {
        let measured = catch_unwind(AssertUnwindSafe(|| self.measure(solved, device)));
        let (worst, failure) = match measured {
            Ok(measured) => (worst(measured), None),
            Err(panic) => {
                let nothing = Measured { quantity: "output", error: f64::INFINITY, tolerance: 0.0 };
                (nothing, Some(told(&*panic)))
            }
        };
        Verified {
            kernel: self.name,
            dtype: solved.dtype,
            case: solved.case.name,
            quantity: worst.quantity,
            error: worst.error,
            tolerance: worst.tolerance,
            failure,
        }
    }

    fn measure(&self, solved: &Solved, device: &Device) -> Vec<Measured> {
        let Solved { case, dtype, .. } = solved;
        let [for_output, for_gradient] = tolerances(*dtype);
        let inputs = case.inputs(*dtype, device);
        let right = solved.plain();
        let output = array(self.forward(case, &inputs));
        let mut measured = vec![
            Measured {
                quantity: "output",
                error: difference(&output, &right.output) / largest([&right.output]),
                tolerance: for_output,
            },
            dead_rows(case, &output, None),
        ];
        if self.name == Kernel::Backend {
            // Burn's operation stores all weights for a gradient, by other code than this.
            return measured;
        }
        let right = solved.training();
        let trained = self.train(case, &inputs);
        measured.push(Measured {
            quantity: "output in training",
            error: difference(&trained.output, &right.output) / largest([&right.output]),
            tolerance: for_output,
        });
        let pairs = [
            ("gradient of the query", Some(&trained.d_query), Some(&right.d_query)),
            ("gradient of the key", Some(&trained.d_key), Some(&right.d_key)),
            ("gradient of the value", Some(&trained.d_value), Some(&right.d_value)),
            // That of ALiBi's bias is nobody's.
            ("gradient of the bias", trained.d_bias.as_ref(), right.d_bias.as_ref()),
        ];
        let pairs = pairs.into_iter().filter_map(|(name, got, right)| Some((name, got?, right?)));
        let pairs: Vec<_> = pairs.collect();
        // One gradient alone may be 0 but for rounding.
        let scale = largest(pairs.iter().map(|&(_, _, right)| right));
        measured.extend(pairs.iter().map(|&(quantity, got, right)| Measured {
            quantity,
            error: difference(got, right) / scale,
            tolerance: for_gradient,
        }));
        if let (Some(got), Some(right)) = (&trained.d_sinks, &right.d_sinks) {
            measured.push(Measured {
                quantity: "gradient of the sinks",
                error: largest_of(got.iter().zip(right).map(|(got, right)| got - right)) / scale,
                tolerance: for_gradient,
            });
        }
        measured.push(dead_rows(case, &trained.output, Some(&trained)));
        measured
    }

    fn forward(&self, case: &Case, inputs: &CaseInputs) -> Tensor<4> {
        let CaseInputs { query, key, value, bias, sinks, .. } = inputs;
        let score = case.score().with_bias(bias.clone()).with_sinks(sinks.clone());
        let tensors = [query, key, value].map(|tensor| case.as_read(tensor.clone()));
        (self.attend)(tensors, &case.mask, &score)
    }

    /// Output and gradients; the weights are not asked for.
    fn train(&self, case: &Case, inputs: &CaseInputs) -> Solution {
        let track = |tensor: &Tensor<4>| tensor.clone().autodiff().require_grad();
        let tracked = CaseInputs {
            query: track(&inputs.query),
            key: track(&inputs.key),
            value: track(&inputs.value),
            bias: inputs.bias.as_ref().map(track),
            sinks: inputs.sinks.clone().map(|sinks| sinks.autodiff().require_grad()),
            upstream: inputs.upstream.clone().autodiff(),
        };
        let output = self.forward(case, &tracked);
        let gradients = (output.clone() * tracked.upstream.clone()).sum().backward();
        let of = |tensor: &Tensor<4>| array(gradient(tensor, &gradients));
        Solution {
            output: array(output),
            weights: Array::zeros([0; 4]),
            d_query: of(&tracked.query),
            d_key: of(&tracked.key),
            d_value: of(&tracked.value),
            d_bias: tracked.bias.as_ref().map(of),
            d_sinks: tracked.sinks.as_ref().map(|sinks| numbers(gradient(sinks, &gradients))),
        }
    }
}

/// The largest number where only 0 belongs: in the output of dead rows, in their gradient, and in
/// those of keys and values that nobody sees.
fn dead_rows(case: &Case, output: &Array, gradients: Option<&Solution>) -> Measured {
    let is_dead = |[batch, head, query]: [usize; 3]| case.is_dead(batch, head, query);
    let is_unseen = |[batch, _, key]: [usize; 3]| case.is_seen_by_none(batch, key);
    let mut error = largest_in(output, &is_dead);
    if let Some(gradients) = gradients {
        error = error.max(largest_in(&gradients.d_query, &is_dead));
        error = error.max(largest_in(&gradients.d_key, &is_unseen));
        error = error.max(largest_in(&gradients.d_value, &is_unseen));
    }
    Measured { quantity: "dead rows", error, tolerance: 0.0 }
}

/// The largest number of the rows `[a, b, c]` of `[a, b, c, width]` that are wanted.
fn largest_in(array: &Array, wanted: &dyn Fn([usize; 3]) -> bool) -> f64 {
    let [_, b, c, width] = array.shape;
    let rows = array.values.chunks(width.max(1)).enumerate();
    let rows = rows.filter(|(row, _)| wanted([row / (b * c), row / c % b, row % c]));
    largest_of(rows.flat_map(|(_, row)| row.iter().copied()))
}

/// Errors that rounding makes in an output and in a gradient.
fn tolerances(dtype: DType) -> [f64; 2] {
    match dtype {
        DType::F64 => [1e-10; 2],
        DType::F32 => [1e-4; 2],
        // Inputs are what they are; output and gradients are rounded, and what they are summed from.
        half => {
            let epsilon = half.finfo().map_or(0.0, |float| float.epsilon);
            [4.0 * epsilon, 8.0 * epsilon]
        }
    }
}

fn worst(measured: Vec<Measured>) -> Measured {
    let distance = |measured: &Measured| match measured {
        Measured { error, .. } if *error == 0.0 => 0.0,
        Measured { error, tolerance, .. } => error / tolerance, // infinite where 0 is allowed
    };
    let further = |a: &Measured, b: &Measured| distance(a).total_cmp(&distance(b));
    measured.into_iter().max_by(further).expect("an output is always measured")
}

/// The largest absolute value, infinite if there is a NaN.
fn largest_of(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most, x| if x.is_nan() { f64::INFINITY } else { most.max(x.abs()) })
}

/// The largest absolute value of several arrays, to divide by.
fn largest<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> f64 {
    let values = arrays.into_iter().flat_map(|array| array.values.iter().copied());
    largest_of(values).max(f64::MIN_POSITIVE)
}

fn difference(got: &Array, right: &Array) -> f64 {
    assert_eq!(got.shape, right.shape, "the shape of what was computed");
    largest_of(got.values.iter().zip(&right.values).map(|(got, right)| got - right))
}

fn gradient<const D: usize>(tensor: &Tensor<D>, gradients: &Gradients) -> Tensor<D> {
    tensor.grad(gradients).expect("a gradient for every input")
}

fn array(tensor: Tensor<4>) -> Array {
    Array::new(tensor.dims(), numbers(tensor))
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// What a panic said.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a word").into()
}
