//! Encoders and decoders: what the memory holds, and which token an output predicts.

use burn::tensor::Tensor;
use burn_decoder::causality::Diagnosis;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// A decoder layer over a memory: causal attention, then a look at the whole memory.
struct Decoder {
    own: Attention,
    cross: Attention,
}

impl Decoder {
    fn new(setup: &Setup) -> Self {
        Self { own: Attention::new(setup, 1, 2), cross: Attention::new(setup, 2, 2) }
    }

    fn forward(&self, x: Tensor<3>, memory: Tensor<3>) -> Tensor<3> {
        let sizes = [x.dims()[1], memory.dims()[1]];
        let none = hidden(sizes, &x.device(), |_, _| false);
        self.cross.cross(self.own.causal(x), memory, &none)
    }
}

/// An encoder: everything sees everything, for that is what it is for.
struct Encoder {
    layer: Attention,
    source: Tensor<2>,
}

const SOURCE: usize = 5;

impl Encoder {
    fn new(setup: &Setup) -> Self {
        Self { layer: Attention::new(setup, 3, 2), source: setup.matrix(39, [SOURCE, setup.width]) }
    }

    fn source(&self, batch: usize) -> Tensor<3> {
        let [states, width] = self.source.dims();
        self.source.clone().unsqueeze::<3>().expand([batch, states, width])
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let length = x.dims()[1];
        self.layer.forward(x.clone(), &hidden([length, length], &x.device(), |_, _| false))
    }
}

/// The decoder over a memory made from the target.
fn over_memory(
    setup: &Setup,
    memory: impl Fn(&Encoder, Tensor<3>) -> Tensor<3> + Copy + 'static,
) -> Subject {
    let decoder = Decoder::new(setup);
    let [encoder, again] = [Encoder::new(setup), Encoder::new(setup)];
    Subject::embedded(move |x| decoder.forward(x.clone(), memory(&encoder, x)))
        .with_memory(move |x| memory(&again, x))
}

/// A decoder whose output at a position predicts the token of this position.
fn predicting_own(setup: &Setup, shift: impl Fn(Tensor<3>) -> Tensor<3> + 'static) -> Subject {
    let layer = Attention::new(setup, 1, 2);
    Subject::embedded(move |x| layer.causal(shift(x))).with_own_hidden()
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    vec![
        Form::new(
            "an encoder that reads source and target",
            |_| First::Cell(0, 1),
            |_| MemoryHoldsTarget,
            |s| {
                over_memory(s, |encoder, x| {
                    let source = encoder.source(x.dims()[0]);
                    encoder.forward(Tensor::cat(vec![source, x], 1)).narrow(1, 0, SOURCE)
                })
            },
        ),
        Form::new(
            "a memory with the mean of the target",
            |_| First::Cell(0, 1),
            |_| MemoryHoldsTarget,
            |s| {
                over_memory(s, |encoder, x| {
                    let memory = encoder.forward(encoder.source(x.dims()[0]));
                    memory.clone() + x.mean_dim(1).expand(memory.dims())
                })
            },
        ),
        Form::new(
            "decoder inputs not shifted",
            |_| First::Cell(0, 0),
            |_| TargetSeen,
            |s| predicting_own(s, |x| x),
        ),
        Form::new(
            "decoder inputs shifted on a circle",
            |s| First::Cell(0, s.length - 1),
            |s| GlobalKeys { keys: vec![s.length - 1] },
            |s| predicting_own(s, |x| x.roll(&[1], &[1])),
        ),
    ]
}

pub fn right() -> RightForms {
    vec![
        ("an encoder of the source alone", |s| {
            over_memory(s, |encoder, x| encoder.forward(encoder.source(x.dims()[0])))
        }),
        ("decoder inputs shifted behind a start", |s| {
            let start = s.feature(38, -1.0, 1.0);
            predicting_own(s, move |x| {
                let [batch, length, width] = x.dims();
                let start = start.clone().expand([batch, 1, width]);
                Tensor::cat(vec![start, x.narrow(1, 0, length - 1)], 1)
            })
        }),
    ]
}
