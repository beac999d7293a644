//! Experts: who chooses whom, and who is dropped where there is no room.

use burn::tensor::Tensor;
use burn::tensor::activation::{gelu, sigmoid, softmax};
use burn_decoder::causality::Diagnosis;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

const EXPERTS: usize = 2;

/// A layer of experts with a residual around it.
struct Experts {
    gate: Tensor<2>,
    experts: Vec<Tensor<2>>,
}

impl Experts {
    fn new(setup: &Setup) -> Self {
        let experts = (0..EXPERTS as u64).map(|i| setup.square(50 + i)).collect();
        let gate = setup.matrix(49, [setup.width, EXPERTS]);
        Self { gate, experts }
    }

    /// `[batch, length, experts]`
    fn scores(&self, x: &Tensor<3>) -> Tensor<3> {
        project(x, &self.gate)
    }

    /// What the experts say, weighed by `[batch, length, experts]`.
    fn combine(&self, x: Tensor<3>, weights: Tensor<3>) -> Tensor<3> {
        self.experts.iter().enumerate().fold(x.clone(), |sum, (i, expert)| {
            sum + gelu(project(&x, expert)) * weights.clone().narrow(2, i, 1)
        })
    }

    /// 1 where the expert is the one with the highest score: `[batch, length, experts]`.
    fn chosen(&self, x: &Tensor<3>) -> Tensor<3> {
        let scores = self.scores(x);
        let highest = scores.clone().max_dim(2).expand(scores.dims());
        scores.greater_equal(highest).float()
    }

    /// Each expert takes the `room` tokens of highest score along the axis of positions.
    fn experts_choose(&self, x: Tensor<3>, room: usize) -> Tensor<3> {
        let scores = self.scores(&x);
        let least = scores.clone().topk(room, 1).narrow(1, room - 1, 1).expand(scores.dims());
        let taken = scores.clone().greater_equal(least).float();
        self.combine(x, taken * sigmoid(scores))
    }

    /// Each token chooses an expert; `rank` counts, for each token, how many of its expert's tokens
    /// come before it, and those beyond the room are dropped.
    fn tokens_choose(
        &self,
        x: Tensor<3>,
        room: usize,
        rank: impl Fn(&Tensor<3>, &Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        let (scores, chosen) = (self.scores(&x), self.chosen(&x));
        let has_room = rank(&chosen, &scores).lower_elem(room as f64 - 0.5).float();
        self.combine(x, chosen * has_room * sigmoid(scores))
    }
}

/// How many of the expert's tokens come before each token, among those where `before` is 1.
fn rank_by_position(before: &Tensor<3>, chosen: &Tensor<3>) -> Tensor<3> {
    mix(before, chosen)
}

/// How many of the expert's tokens have a higher score than each token.
fn rank_by_score(chosen: &Tensor<3>, scores: &Tensor<3>) -> Tensor<3> {
    let [batch, length, experts] = scores.dims();
    let of_token = scores.clone().unsqueeze_dim::<4>(2);
    let of_other = scores.clone().unsqueeze_dim::<4>(1);
    let shape = [batch, length, length, experts];
    let higher = of_other.expand(shape).greater(of_token.expand(shape)).float();
    let counted: Tensor<4> = higher * chosen.clone().unsqueeze_dim(1);
    counted.sum_dim(2).reshape([batch, length, experts]) // [batch, length, experts]
}

fn room(setup: &Setup) -> usize {
    setup.length / 3
}

/// The rows of the batch as one long row.
fn flat(x: Tensor<3>) -> Tensor<3> {
    let [batch, length, width] = x.dims();
    x.reshape([1, batch * length, width]) // [1, batch * length, width]
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    let cell = |name, first, cause, build| Form::new(name, first, cause, build);
    vec![
        cell(
            "expert choice over the sequence",
            |_| First::Cell(0, 1),
            |_| ChoiceByOthers,
            |s| {
                let (experts, room) = (Experts::new(s), s.length / 2);
                Subject::embedded(move |x| experts.experts_choose(x, room))
            },
        ),
        cell(
            "expert choice over the batch",
            |_| First::Rows { row: 0, query: 0, by: |row, other| row != other },
            |_| ChoiceByOthers,
            |s| {
                let (experts, room) = (Experts::new(s), s.batch * s.length / 2);
                Subject::embedded(move |x| {
                    let shape = x.dims();
                    experts.experts_choose(flat(x), room).reshape(shape) // [batch, length, width]
                })
            },
        ),
        cell(
            "capacity by score",
            |_| First::Cell(0, 1),
            |_| ChoiceByOthers,
            |s| {
                let (experts, room) = (Experts::new(s), room(s));
                Subject::embedded(move |x| experts.tokens_choose(x, room, rank_by_score))
            },
        ),
        cell(
            "capacity from the end",
            |_| First::Cell(0, 1),
            |_| ChoiceByOthers,
            |s| {
                let (experts, room) = (Experts::new(s), s.length / 2);
                let later = s.mixing(|to, from| if from > to { 1.0 } else { 0.0 });
                Subject::embedded(move |x| {
                    experts.tokens_choose(x, room, |chosen, _| rank_by_position(&later, chosen))
                })
            },
        ),
        cell(
            "capacity in order of the whole batch",
            // A row is moved by those that were served before it.
            |_| First::Rows { row: 1, query: 0, by: |row, other| other < row },
            |_| CarriedBetweenRows,
            |s| {
                let (experts, room) = (Experts::new(s), s.length / 2);
                let all = Setup { length: s.batch * s.length, ..s.clone() };
                let earlier = all.mixing(|to, from| if from < to { 1.0 } else { 0.0 });
                Subject::embedded(move |x| {
                    let shape = x.dims();
                    let rank = |chosen: &_, _: &_| rank_by_position(&earlier, chosen);
                    experts.tokens_choose(flat(x), room, rank).reshape(shape) // [batch, length, width]
                })
            },
        ),
        cell(
            "gate with a softmax over time",
            |_| First::Cell(0, 1),
            |_| AppliedAfterSoftmax,
            |s| {
                let experts =
                    Experts { gate: s.matrix(49, [s.width, 1]), experts: vec![s.square(50)] };
                Subject::embedded(move |x| {
                    let weights = softmax(experts.scores(&x), 1);
                    experts.combine(x, weights)
                })
            },
        ),
        cell(
            "depth for the highest scores",
            |_| First::Cell(0, 1),
            |_| ChoiceByOthers,
            |s| {
                let experts =
                    Experts { gate: s.matrix(49, [s.width, 1]), experts: vec![s.square(50)] };
                let room = s.length / 2;
                Subject::embedded(move |x| experts.experts_choose(x, room))
            },
        ),
        cell(
            "soft slots",
            |_| First::Cell(0, 1),
            |_| MaskMissing,
            |s| {
                // Each expert reads a weighed mean of all positions.
                let experts = Experts::new(s);
                Subject::embedded(move |x| {
                    let scores = experts.scores(&x);
                    let slots = softmax(scores.clone(), 1).swap_dims(1, 2).matmul(x.clone());
                    let said = experts.experts.iter().enumerate();
                    let said = said.map(|(i, e)| gelu(project(&slots.clone().narrow(1, i, 1), e)));
                    x + softmax(scores, 2).matmul(Tensor::cat(said.collect(), 1))
                })
            },
        ),
    ]
}

pub fn right() -> RightForms {
    // Experts alone move no other position, and prove nothing: an attention stands before them.
    fn behind_attention(
        setup: &Setup,
        layer: impl Fn(&Experts, Tensor<3>) -> Tensor<3> + 'static,
    ) -> Subject {
        let (attention, mask) = (Attention::new(setup, 1, 2), setup.look_ahead());
        let experts = Experts::new(setup);
        Subject::embedded(move |x| layer(&experts, attention.forward(x, &mask)))
    }
    vec![
        ("tokens choose, without a capacity", |s| {
            behind_attention(s, |experts, x| {
                let weights = experts.chosen(&x) * sigmoid(experts.scores(&x));
                experts.combine(x, weights)
            })
        }),
        ("capacity in order of the row", |s| {
            let (room, earlier) = (room(s), s.mixing(|to, from| if from < to { 1.0 } else { 0.0 }));
            behind_attention(s, move |experts, x| {
                experts.tokens_choose(x, room, |chosen, _| rank_by_position(&earlier, chosen))
            })
        }),
        ("depth above a threshold", |s| {
            behind_attention(s, |experts, x| {
                let scores = experts.scores(&x);
                let taken = scores.clone().greater_elem(0.0).float();
                experts.combine(x, taken * sigmoid(scores))
            })
        }),
    ]
}
