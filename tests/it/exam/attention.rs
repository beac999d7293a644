//! Masks and what stands around the softmax.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use burn_decoder::causality::Diagnosis;
use burn_decoder::mask::Mask;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// A layer with the mask `is_hidden(query, key)`.
fn with_mask(setup: &Setup, is_hidden: impl Fn(usize, usize) -> bool) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 2), setup.hidden(is_hidden));
    Subject::embedded(move |x| layer.forward(x, &mask))
}

/// A positive feature map, as linear attention has.
fn positive(x: Tensor<3>) -> Tensor<3> {
    x.clone().abs() + x * 0.5 + 0.1
}

/// Linear attention: the values weighed by `φ(q)·φ(k)` where `mixing` is 1, over their sum if
/// `is_normalised`.
fn linear_attention(setup: &Setup, mixing: Tensor<3>, is_normalised: bool) -> Subject {
    let layer = Attention::new(setup, 1, 1);
    Subject::embedded(move |x| {
        let [queries, keys, values] = layer.parts(&x);
        let products = positive(queries).matmul(positive(keys).swap_dims(1, 2)); // [batch, length, length]
        let mut weights = products * mixing.clone();
        if is_normalised {
            weights = weights.clone() / weights.sum_dim(2);
        }
        layer.mix(x, weights.unsqueeze_dim(1), values)
    })
}

/// Only the keys with the four largest scores, and the own one, are seen; the largest of the visible
/// ones, or of all.
fn largest_keys(setup: &Setup, before_the_mask: bool) -> Subject {
    const KEPT: usize = 4;
    let (layer, mask) = (Attention::new(setup, 1, 1), setup.look_ahead());
    let own = setup.hidden(|query, key| key == query);
    Subject::embedded(move |x| {
        let [queries, keys, values] = layer.parts(&x);
        let scores = layer.scores(queries, keys);
        let hidden = mask.clone().expand(scores.dims());
        let compared = match before_the_mask {
            true => scores.clone(),
            false => scores.clone().mask_fill(hidden.clone(), -1e30),
        };
        let least = compared.clone().topk(KEPT, 3).narrow(3, KEPT - 1, 1).expand(scores.dims());
        let small = compared.lower(least).bool_and(own.clone().expand(scores.dims()).bool_not());
        layer.mix(x, masked_softmax(scores, &hidden.bool_or(small)), values)
    })
}

/// Each query sees its past, and beside it the means of blocks of keys: of those that are complete, or
/// of those that have begun.
fn compressed_blocks(setup: &Setup, from_their_start: bool) -> Subject {
    let layer = Attention::new(setup, 1, 2);
    let blocks = setup.length / BLOCK;
    let means = setup.block_means(0);
    let places =
        Tensor::cat((0..blocks).map(|b| means.clone().narrow(1, b * BLOCK, 1)).collect(), 1);
    let length = setup.length;
    let mask = hidden([length, length + blocks], &setup.device, |query, key| match key < length {
        true => key > query,
        false if from_their_start => (key - length) * BLOCK > query,
        false => (key - length + 1) * BLOCK > query + 1,
    });
    Subject::embedded(move |x| {
        let compressed = mix(&places, &x); // [batch, blocks, width]
        layer.cross(x.clone(), Tensor::cat(vec![x, compressed], 1), &mask)
    })
}

/// Keys, not values, are the means of blocks: of their own, or of the one before.
fn pooled_keys(setup: &Setup, delay: usize) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 2), setup.look_ahead());
    let means = setup.block_means(delay);
    Subject::embedded(move |x| {
        let [queries, keys, values] = layer.parts(&x);
        layer.over(x, [queries, mix(&means, &keys), values], &mask)
    })
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    let cell = |name, first, cause, build| Form::new(name, first, cause, build);
    vec![
        cell("no mask", |_| First::Cell(0, 1), |_| MaskMissing, |s| with_mask(s, |_, _| false)),
        cell(
            "mask off by one",
            |_| First::Cell(0, 1),
            |_| OffByOne,
            |s| with_mask(s, |query, key| key > query + 1),
        ),
        cell(
            "mask transposed",
            |_| First::Cell(0, 1),
            |_| MaskInverted,
            |s| with_mask(s, |query, key| key < query),
        ),
        cell(
            "mask on tiles alone",
            |_| First::Cell(0, 1),
            |_| WithinBlocks { keys: BLOCK },
            |s| with_mask(s, |query, key| key / BLOCK > query / BLOCK),
        ),
        cell(
            "mask after the softmax",
            |_| First::Cell(0, 1),
            |_| AppliedAfterSoftmax,
            |s| {
                let (layer, mask) = (Attention::new(s, 1, 1), s.look_ahead());
                Subject::embedded(move |x| {
                    let [queries, keys, values] = layer.parts(&x);
                    let scores = layer.scores(queries, keys);
                    let hidden = mask.clone().expand(scores.dims());
                    layer.mix(x, softmax(scores, 3).mask_fill(hidden, 0.0), values)
                })
            },
        ),
        cell(
            "a finite fill above the scores",
            |_| First::Cell(0, 1),
            |_| FiniteFill,
            |s| {
                let (layer, mask) = (Attention::new(s, 1, 2), s.look_ahead());
                Subject::embedded(move |x| {
                    let [queries, keys, values] = layer.parts(&x);
                    let scores = layer.scores(queries, keys) * 3e4;
                    let hidden = mask.clone().expand(scores.dims());
                    layer.mix(x, softmax(scores.mask_fill(hidden, -1e4), 3), values)
                })
            },
        ),
        cell(
            "a prefix one too long",
            |_| First::Cell(0, 3),
            |_| GlobalKeys { keys: vec![3] },
            |s| {
                with_mask(s, |query, key| key > query && key > 3)
                    .promising(Mask::prefix(3) | Mask::look_ahead())
            },
        ),
        cell(
            "a global token",
            |_| First::Cell(0, 5),
            |_| GlobalKeys { keys: vec![5] },
            |s| with_mask(s, |query, key| key > query && key != 5),
        ),
        cell(
            "second layer without a mask",
            |_| First::Cell(0, 1),
            |_| MaskMissing,
            |s| {
                let (first, second) = (Attention::new(s, 1, 2), Attention::new(s, 2, 2));
                let (mask, none) = (s.look_ahead(), s.hidden(|_, _| false));
                Subject::embedded(move |x| second.forward(first.forward(x, &mask), &none))
            },
        ),
        cell(
            "window one too wide",
            |_| First::Cell(3, 0),
            |_| WindowTooWide { by: 1 },
            |s| {
                with_mask(s, |query, key| key > query || query - key > 3)
                    .promising(Mask::look_ahead() & Mask::window_keys(3).unwrap())
            },
        ),
        cell(
            "packed documents forgotten",
            |_| First::Cell(4, 0),
            |_| DocumentsMixed,
            |s| {
                let lengths = vec![vec![4, s.length - 4]; s.batch];
                with_mask(s, |query, key| key > query)
                    .promising(Mask::look_ahead() & Mask::document_lengths(lengths))
            },
        ),
        cell(
            "the largest of all keys",
            |_| First::Cell(1, 2),
            |_| ChoiceByOthers,
            |s| {
                // The first query sees its own key, whatever is chosen.
                largest_keys(s, true)
            },
        ),
        cell(
            "keys normalised over time",
            |_| First::Cell(1, 2),
            |_| QueriesOrKeysMixed,
            |s| {
                // Of a single key the softmax is 1, so the first query is right.
                let (layer, mask) = (Attention::new(s, 1, 2), s.look_ahead());
                Subject::embedded(move |x| {
                    let [queries, keys, values] = layer.parts(&x);
                    let size = keys.clone().powi_scalar(2).sum_dim(1).sqrt();
                    layer.over(x, [queries, keys / size * 3.0, values], &mask)
                })
            },
        ),
        cell(
            "linear attention without its mask",
            |_| First::Cell(0, 1),
            |_| MaskMissing,
            |s| linear_attention(s, s.mixing(|_, _| 1.0), true),
        ),
        cell(
            "a sum over all keys",
            |_| First::Cell(0, 1),
            |_| PositionsMixed,
            |s| linear_attention(s, s.mixing(|_, _| 0.1), false),
        ),
        cell(
            "compressed blocks from their start",
            |_| First::Cell(0, 1),
            |_| BlockSummary { keys: BLOCK },
            |s| compressed_blocks(s, true),
        ),
        cell(
            "keys pooled over blocks",
            // In the first block all keys are the same one, so that their weights are equal, whatever it is.
            |_| First::Cell(BLOCK, BLOCK + 1),
            |_| BlockSummary { keys: BLOCK },
            |s| pooled_keys(s, 0),
        ),
    ]
}

pub fn right() -> RightForms {
    vec![
        ("attention", |s| with_mask(s, |query, key| key > query)),
        ("two layers", |s| {
            let layers = [Attention::new(s, 1, 2), Attention::new(s, 2, 1)];
            let mask = s.look_ahead();
            let (up, down) = (s.square(31), s.square(32));
            Subject::embedded(move |x| {
                let x = layers.iter().fold(x, |x, layer| layer.forward(x, &mask));
                feed_forward(x, &up, &down)
            })
        }),
        ("a window", |s| {
            with_mask(s, |query, key| key > query || query - key > 2)
                .promising(Mask::look_ahead() & Mask::window_keys(3).unwrap())
        }),
        ("a prefix that all see", |s| {
            with_mask(s, |query, key| key > query && key > 2)
                .promising(Mask::prefix(3) | Mask::look_ahead())
        }),
        ("packed documents", |s| {
            let lengths = vec![vec![4, s.length - 4]; s.batch];
            with_mask(s, |query, key| key > query || (key < 4) != (query < 4))
                .promising(Mask::look_ahead() & Mask::document_lengths(lengths))
        }),
        ("linear attention", |s| {
            linear_attention(s, s.mixing(|to, from| if from <= to { 1.0 } else { 0.0 }), true)
        }),
        ("the largest of the visible keys", |s| largest_keys(s, false)),
        ("compressed blocks once complete", |s| compressed_blocks(s, false)),
        ("keys pooled over the block before", |s| pooled_keys(s, 1)),
        ("scores with a cap and a slope", |s| {
            let (layer, mask) = (Attention::new(s, 1, 2), s.look_ahead());
            let slope = s.mixing(|to, from| -0.3 * (to as f32 - from as f32).abs());
            Subject::embedded(move |x| {
                let [queries, keys, values] = layer.parts(&x);
                let scores = (layer.scores(queries, keys) / 2.0).tanh() * 2.0;
                let weights = masked_softmax(scores + slope.clone().unsqueeze_dim(1), &mask);
                layer.mix(x, weights, values)
            })
        }),
        ("dropout with a mask that all positions share", |s| {
            let (layer, mask) = (Attention::new(s, 1, 2), s.look_ahead());
            let kept = s.feature(5, 0.0, 1.0).greater_elem(0.3).float() / 0.7;
            Subject::embedded(move |x| layer.forward(x * kept.clone(), &mask) * kept.clone())
        }),
    ]
}
