//! Losses, and what is done to tokens: the logits may be right, and the loss know too much.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use burn_decoder::causality::Diagnosis;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

const VOCABULARY: usize = 7;

/// A language model of one layer.
struct Model {
    table: Tensor<2>,
    layer: Attention,
    head: Tensor<2>,
}

impl Model {
    fn new(setup: &Setup) -> Self {
        Self {
            table: setup.matrix(101, [VOCABULARY, setup.width]) * 2.0,
            layer: Attention::new(setup, 1, 2),
            head: setup.matrix(102, [setup.width, VOCABULARY]) * 2.0,
        }
    }

    /// `[batch, length, vocabulary]`
    fn logits(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        project(&self.layer.causal(embed(&self.table, tokens)), &self.head)
    }
}

/// What each of the `targets` costs: `[batch, targets]`.
fn cross_entropy(log_probabilities: Tensor<3>, targets: Tensor<2, Int>) -> Tensor<2> {
    let [batch, length] = targets.dims();
    -log_probabilities.gather(2, targets.unsqueeze_dim(2)).reshape([batch, length]) // [batch, length]
}

/// Tokens without the first `count`, and zeros behind them.
fn later(tokens: &Tensor<2, Int>, count: usize) -> Tensor<2, Int> {
    let [batch, length] = tokens.dims();
    let zeros = Tensor::zeros([batch, count], &tokens.device());
    Tensor::cat(vec![tokens.clone().narrow(1, count, length - count), zeros], 1)
}

/// The losses of all tokens but the first, from `losses(model, tokens)` at each position.
fn losses(
    setup: &Setup,
    losses: impl Fn(&Model, &Tensor<2, Int>) -> Tensor<2> + 'static,
) -> Subject {
    let model = Model::new(setup);
    Subject::losses(VOCABULARY, move |tokens| {
        let length = tokens.dims()[1];
        losses(&model, &tokens).narrow(1, 0, length - 1)
    })
}

/// As it should be: the logits at a position judge the next token.
fn plain(model: &Model, tokens: &Tensor<2, Int>) -> Tensor<2> {
    cross_entropy(log_softmax(model.logits(tokens.clone()), 2), later(tokens, 1))
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    // Query and key of a loss are tokens; the first token has none.
    vec![
        Form::new(
            "a loss normalised over the sequence",
            |_| First::Cell(1, 2),
            |_| LossOverSequence,
            |s| {
                losses(s, |model, tokens| {
                    let losses = plain(model, tokens);
                    let [_, length] = losses.dims();
                    let all = losses.clone().narrow(1, 0, length - 1).mean_dim(1);
                    losses.clone() / all.expand(losses.dims())
                })
            },
        ),
        Form::new(
            "a softmax over time",
            |_| First::Cell(1, 2),
            |_| LossOverSequence,
            |s| {
                losses(s, |model, tokens| {
                    cross_entropy(log_softmax(model.logits(tokens.clone()), 1), later(tokens, 1))
                })
            },
        ),
        Form::new(
            "labels not shifted",
            |_| First::Cell(1, 1),
            |_| TargetSeen,
            |s| {
                // The loss that is counted for a token is that of the logits at its own place.
                losses(s, |model, tokens| {
                    later_losses(cross_entropy(
                        log_softmax(model.logits(tokens.clone()), 2),
                        tokens.clone(),
                    ))
                })
            },
        ),
        Form::new(
            "labels shifted twice",
            |_| First::Cell(1, 2),
            |_| OffByOne,
            |s| {
                losses(s, |model, tokens| {
                    cross_entropy(log_softmax(model.logits(tokens.clone()), 2), later(tokens, 2))
                })
            },
        ),
        Form::new(
            "tokens joined with the next one",
            |_| First::Cell(0, 1),
            |_| OffByOne,
            |s| {
                let model = Model::new(s);
                Subject::tokens(VOCABULARY, move |tokens| {
                    let x = embed(&model.table, tokens.clone());
                    let next = embed(&model.table, later(&tokens, 1));
                    project(&model.layer.causal(x + next * 0.5), &model.head)
                })
            },
        ),
    ]
}

/// Losses without the first one, and a zero behind them.
fn later_losses(losses: Tensor<2>) -> Tensor<2> {
    let [batch, length] = losses.dims();
    let zero = Tensor::zeros([batch, 1], &losses.device());
    Tensor::cat(vec![losses.narrow(1, 1, length - 1), zero], 1)
}

pub fn right() -> RightForms {
    vec![
        ("labels shifted by one", |s| losses(s, plain)),
        ("a loss from tokens joined with the one before", |s| {
            losses(s, |model, tokens| {
                let [batch, length] = tokens.dims();
                let first = Tensor::zeros([batch, 1], &tokens.device());
                let before = Tensor::cat(vec![first, tokens.clone().narrow(1, 0, length - 1)], 1);
                let x = embed(&model.table, tokens.clone()) + embed(&model.table, before) * 0.5;
                let logits = project(&model.layer.causal(x), &model.head);
                cross_entropy(log_softmax(logits, 2), later(tokens, 1))
            })
        }),
        ("a model from tokens", |s| {
            let model = Model::new(s);
            Subject::tokens(VOCABULARY, move |tokens| model.logits(tokens))
        }),
    ]
}
