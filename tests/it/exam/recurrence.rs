//! Recurrences: states that run along the sequence, and sometimes elsewhere.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use burn_decoder::causality::Diagnosis;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// `state = decay * state + into(x)`, one decay a feature.
struct Recurrence {
    decay: Tensor<3>,
    into: Tensor<2>,
    out: Tensor<2>,
}

impl Recurrence {
    fn new(setup: &Setup, salt: u64) -> Self {
        let (into, out) = (setup.square(salt + 1), setup.square(salt + 2));
        Self { decay: setup.feature(salt, 0.6, 0.95), into, out }
    }

    /// The states along the sequence, from the state before it.
    fn states(&self, x: &Tensor<3>, before: Tensor<3>) -> Tensor<3> {
        let mut state = before;
        let driven = project(x, &self.into);
        step_by_step(&driven, |_, driven| {
            state = state.clone() * self.decay.clone() + driven;
            state.clone()
        })
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        x.clone() + project(&self.states(&x, empty(&x)), &self.out)
    }
}

/// A state of zeros.
fn empty(x: &Tensor<3>) -> Tensor<3> {
    let [batch, _, width] = x.dims();
    Tensor::zeros([batch, 1, width], &x.device())
}

/// `state = tanh(state W + x V)`
struct Tanh {
    again: Tensor<2>,
    into: Tensor<2>,
}

impl Tanh {
    fn new(setup: &Setup, salt: u64) -> Self {
        Self { again: setup.square(salt), into: setup.square(salt + 1) }
    }

    fn step(&self, state: &mut Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        *state = (project(state, &self.again) + project(&x, &self.into)).tanh();
        state.clone()
    }

    fn states(&self, x: &Tensor<3>) -> Tensor<3> {
        let mut state = empty(x);
        step_by_step(x, |_, x| self.step(&mut state, x))
    }
}

/// Each position gets the state at the end of a chunk: of its own, or of the one before it.
fn chunked(setup: &Setup, delay: usize) -> Subject {
    let length = setup.length;
    let layer = Recurrence::new(setup, 90);
    let out = layer.out.clone();
    let own = setup.square(99);
    Subject::embedded(move |x| {
        let states = layer.states(&x, empty(&x));
        let given = (0..length).map(|i| match (i / BLOCK + 1 - delay) * BLOCK {
            0 => empty(&x),
            end if end <= length => states.clone().narrow(1, end - 1, 1),
            // The last chunk is not complete: its positions get their own states.
            _ => states.clone().narrow(1, i, 1),
        });
        let given = Tensor::cat(given.collect(), 1);
        x.clone() + project(&given, &out) + project(&x, &own).tanh()
    })
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    let form = |name, cause, build| Form::new(name, |_| First::Cell(0, 1), cause, build);
    vec![
        form(
            "recurrence scanned backwards",
            |_| ReversedScan,
            |s| {
                let layer = Recurrence::new(s, 90);
                Subject::embedded(move |x| layer.forward(x.flip([1])).flip([1]))
            },
        ),
        form(
            "sum of what follows",
            |_| ReversedScan,
            |s| {
                let (later, inner) =
                    (s.mixing(|to, from| if from > to { 1.0 } else { 0.0 }), s.square(95));
                Subject::embedded(move |x| x.clone() + project(&mix(&later, &x), &inner))
            },
        ),
        form(
            "recurrence from both sides",
            |_| MaskMissing,
            |s| {
                let sides = [Tanh::new(s, 90), Tanh::new(s, 93)];
                Subject::embedded(move |x| {
                    let behind = sides[1].states(&x.clone().flip([1])).flip([1]);
                    x.clone() + sides[0].states(&x) + behind
                })
            },
        ),
        form("states at the ends of chunks", |_| WithinBlocks { keys: BLOCK }, |s| chunked(s, 0)),
        form(
            "a start from the sequence's own end",
            |_| PositionsMixed,
            |s| {
                let layer = Recurrence::new(s, 90);
                let last = s.length - 1;
                Subject::embedded(move |x| {
                    let end = layer.states(&x, empty(&x)).narrow(1, last, 1);
                    x.clone() + project(&layer.states(&x, end), &layer.out)
                })
            },
        ),
        Form::new(
            "a state carried between rows",
            |_| First::Rows { row: 1, query: 0, by: |row, other| other < row },
            |_| CarriedBetweenRows,
            |s| {
                let layer = Recurrence::new(s, 90);
                Subject::embedded(move |x| {
                    let [batch, length, width] = x.dims();
                    let rows = x.reshape([1, batch * length, width]); // [1, batch * length, width]
                    layer.forward(rows).reshape([batch, length, width]) // [batch, length, width]
                })
            },
        ),
    ]
}

pub fn right() -> RightForms {
    vec![
        ("a linear recurrence", |s| {
            let layer = Recurrence::new(s, 90);
            Subject::embedded(move |x| layer.forward(x))
        }),
        ("a recurrence with tanh, and its steps", |s| {
            let [layer, steps] = [Tanh::new(s, 90), Tanh::new(s, 90)];
            Subject::embedded(move |x| layer.states(&x)).with_cached(move |x| {
                let mut state = empty(&x);
                step_by_step(&x, |_, x| steps.step(&mut state, x))
            })
        }),
        ("a gated recurrence", |s| {
            let (gate, into) = (s.square(96), s.square(97));
            Subject::embedded(move |x| {
                let (open, new) = (sigmoid(project(&x, &gate)), project(&x, &into));
                let mut state = empty(&x);
                let width = x.dims()[2];
                step_by_step(&Tensor::cat(vec![open, new], 2), |_, both| {
                    let open = both.clone().narrow(2, 0, width);
                    let new = both.narrow(2, width, width);
                    state = state.clone() * (-open.clone() + 1.0) + open * new;
                    state.clone()
                })
            })
        }),
        ("states at the ends of the chunks before", |s| chunked(s, 1)),
    ]
}
