//! Models that look ahead on purpose, or hand back what they made of it: several tokens at once,
//! their own predictions, coarser levels.

use burn::tensor::Tensor;
use burn_decoder::causality::Diagnosis;
use burn_decoder::mask::Mask;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// The inputs of each position, moved by one: to the position after, or to the one before.
fn moved(x: &Tensor<3>, to_the_one_after: bool) -> Tensor<3> {
    let [batch, length, width] = x.dims();
    let zeros = Tensor::zeros([batch, 1, width], &x.device());
    match to_the_one_after {
        true => Tensor::cat(vec![zeros, x.clone().narrow(1, 0, length - 1)], 1),
        false => Tensor::cat(vec![x.clone().narrow(1, 1, length - 1), zeros], 1),
    }
}

/// A second pass reads, beside each token, what the first one predicted for its place.
fn scheduled_sampling(setup: &Setup, is_right: bool) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 2), setup.look_ahead());
    Subject::embedded(move |x| {
        let predicted = moved(&layer.forward(x.clone(), &mask), is_right);
        layer.forward((x + predicted) * 0.5, &mask)
    })
}

/// A head for the token after the next one: it is given the next one.
fn second_head(setup: &Setup) -> Subject {
    let (trunk, head) = (Attention::new(setup, 1, 2), Attention::new(setup, 2, 2));
    let mask = setup.look_ahead();
    Subject::embedded(move |x| {
        let next = moved(&x, false);
        head.forward(trunk.forward(x, &mask) + next * 0.5, &mask)
    })
}

/// A causal layer over the means of blocks, handed back to the positions: of the same block, or of the
/// next one.
fn hourglass(setup: &Setup, delay: usize) -> Subject {
    let layer = Attention::new(setup, 1, 2);
    let blocks = setup.length / BLOCK;
    let means = setup.block_means(0);
    let down = Tensor::cat((0..blocks).map(|i| means.clone().narrow(1, i * BLOCK, 1)).collect(), 1);
    let up = setup.mixing(|to, block| if to / BLOCK == block + delay { 1.0 } else { 0.0 });
    let up = up.narrow(2, 0, blocks); // [1, length, blocks]
    Subject::embedded(move |x| x.clone() + mix(&up, &layer.causal(mix(&down, &x))))
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    let form = |name, cause, build| Form::new(name, |_| First::Cell(0, 1), cause, build);
    vec![
        form(
            "own predictions, one place too early",
            |_| OffByOne,
            |s| scheduled_sampling(s, false),
        ),
        form("a head that is given the next token", |_| OffByOne, second_head),
        form("an hourglass without a shift", |_| BlockSummary { keys: BLOCK }, |s| hourglass(s, 0)),
    ]
}

pub fn right() -> RightForms {
    vec![
        ("own predictions in their places", |s| scheduled_sampling(s, true)),
        ("a head that is given the next token, as promised", |s| {
            let visible = s.hidden(|query, key| key > query + 1).bool_not();
            second_head(s).promising(Mask::from_visible(&visible).unwrap())
        }),
        ("an hourglass, shifted by a block", |s| hourglass(s, 1)),
    ]
}
