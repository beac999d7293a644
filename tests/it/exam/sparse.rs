//! Attention to a part of the keys: chunks, buckets, latents, what is retrieved; and keys in a wrong
//! order.

use burn::tensor::Tensor;
use burn_decoder::causality::Diagnosis;

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// A layer with the mask `is_hidden(query, key)`.
fn with_mask(setup: &Setup, is_hidden: impl Fn(usize, usize) -> bool) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 2), setup.hidden(is_hidden));
    Subject::embedded(move |x| layer.forward(x, &mask))
}

/// Each chunk sees itself and the chunk before. `one_more`: the last query of a chunk is compared with
/// the border and not with its own position.
fn chunked_window(setup: &Setup, one_more: bool) -> Subject {
    with_mask(setup, move |query, key| {
        let ahead = usize::from(one_more && (query + 1) % BLOCK == 0);
        key > query + ahead || query / BLOCK > key / BLOCK + 1
    })
}

/// One head of keys and values for two heads of queries, repeated along the features or along the
/// positions.
fn multi_query(setup: &Setup, along_positions: bool) -> Subject {
    const HEADS: usize = 2;
    let (layer, mask) = (Attention::new(setup, 1, HEADS), setup.look_ahead());
    let narrow = [1, 2].map(|salt| setup.matrix(140 + salt, [setup.width, setup.width / HEADS]));
    Subject::embedded(move |x| {
        let shape = x.dims();
        let [queries, ..] = layer.parts(&x);
        let [keys, values] = [&narrow[0], &narrow[1]].map(|matrix| {
            let one = project(&x, matrix);
            match along_positions {
                true => one.repeat(&[1, HEADS, 1]).reshape(shape), // [batch, length, width]
                false => one.repeat(&[1, 1, HEADS]),
            }
        });
        layer.over(x, [queries, keys, values], &mask)
    })
}

/// Two buckets by a direction; a query sees earlier keys of its bucket, or of its chunk of all
/// positions sorted by bucket.
fn buckets(setup: &Setup, in_chunks: bool) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 1), setup.look_ahead());
    let direction = setup.matrix(145, [setup.width, 1]);
    let positions = setup.mixing(|to, _| to as f32).narrow(2, 0, 1); // [1, length, 1]
    Subject::embedded(move |x| {
        let [batch, length, _] = x.dims();
        let square = [batch, length, length];
        let bucket = project(&x, &direction).greater_elem(0.0).float();
        let group = match in_chunks {
            true => {
                let order = bucket * length as f32 + positions.clone();
                let (own, other) = (order.clone().expand(square), order.swap_dims(1, 2));
                let place = other.expand(square).lower(own).float().sum_dim(2);
                (place / BLOCK as f32).floor()
            }
            false => bucket,
        };
        let other = group.clone().swap_dims(1, 2).expand(square);
        let apart = group.expand(square).not_equal(other).unsqueeze_dim::<4>(1);
        let hidden = apart.bool_or(mask.clone().expand([batch, 1, length, length]));
        layer.forward(x, &hidden)
    })
}

/// Each position gets the mean of the block that fits it best: of all, or of those that are complete.
fn retrieval(setup: &Setup, from_all: bool) -> Subject {
    let (layer, mask) = (Attention::new(setup, 1, 2), setup.look_ahead());
    let (blocks, length) = (setup.length / BLOCK, setup.length);
    let means = setup.block_means(0);
    let means =
        Tensor::cat((0..blocks).map(|i| means.clone().narrow(1, i * BLOCK, 1)).collect(), 1);
    let question = setup.square(147);
    let is_open = |cell: usize| from_all || (cell % blocks + 1) * BLOCK <= cell / blocks + 1;
    let open: Vec<f32> = (0..length * blocks).map(|cell| f32::from(is_open(cell))).collect();
    let open = Tensor::<1>::from_floats(open.as_slice(), &setup.device);
    let open = open.reshape([1, length, blocks]); // [1, length, blocks]
    Subject::embedded(move |x| {
        let means = mix(&means, &x); // [batch, blocks, width]
        let scores = project(&x, &question).matmul(means.clone().swap_dims(1, 2));
        let open = open.clone().expand(scores.dims());
        let scores = scores.mask_fill(open.clone().equal_elem(0.0), -1e30);
        let best = scores.clone().greater_equal(scores.clone().max_dim(2).expand(scores.dims()));
        let found = (best.float() * open).matmul(means);
        layer.forward(x, &mask) + found * 0.5
    })
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    let form = |name, first, cause, build| Form::new(name, first, cause, build);
    vec![
        form(
            "chunks, one too many at their border",
            |_| First::Cell(BLOCK - 1, BLOCK),
            |_| BlockBorders { keys: BLOCK },
            |s| chunked_window(s, true),
        ),
        form(
            "key heads repeated along the positions",
            // The first place holds the key of position 0 for one head, and that of 1 for the other.
            |_| First::Cell(0, 1),
            |_| PositionsReordered,
            |s| multi_query(s, true),
        ),
        form(
            "a prefix that was not promised",
            |_| First::Cell(0, 1),
            |_| GlobalKeys { keys: vec![1, 2] },
            |s| with_mask(s, |query, key| key > query && key > 2),
        ),
        form(
            "chunks of positions sorted by bucket",
            // The first query sees its own key, whatever is in its chunk.
            |_| First::Cell(1, 2),
            |_| ChoiceByOthers,
            |s| buckets(s, true),
        ),
        form(
            "the best of all blocks, retrieved",
            |_| First::Cell(0, 1),
            |_| ChoiceByOthers,
            |s| retrieval(s, true),
        ),
        form(
            "the most similar pairs, merged",
            |_| First::Cell(0, 1),
            |_| ChoiceByOthers,
            |s| {
                // Of the pairs (0, 1), (2, 3), ... half become their mean.
                let (layer, mask) = (Attention::new(s, 1, 2), s.look_ahead());
                let pairs = s.length / 2;
                let pair = s.mixing(|to, from| {
                    let is_of_pair = to / 2 == from / 2 && from < 2 * pairs;
                    if is_of_pair { 1.0 } else { 0.0 }
                });
                Subject::embedded(move |x| {
                    let partner = mix(&pair, &x) - x.clone();
                    let alike = (x.clone() * partner.clone()).sum_dim(2); // [batch, length, 1]
                    let room = pairs / 2 * 2;
                    let least = alike.clone().topk(room, 1).narrow(1, room - 1, 1);
                    let merged = alike.clone().greater_equal(least.expand(alike.dims())).float();
                    let merged = merged.expand(x.dims());
                    let x = x.clone() + (partner - x) * 0.5 * merged;
                    layer.forward(x, &mask)
                })
            },
        ),
        form(
            "latents that read the whole row",
            |_| First::Cell(0, 1),
            |_| MaskMissing,
            |s| {
                let (into, from) = (Attention::new(s, 1, 2), Attention::new(s, 2, 2));
                let latents = s.matrix(149, [3, s.width]) * 2.0;
                let (length, device) = (s.length, s.device.clone());
                Subject::embedded(move |x| {
                    let [batch, _, width] = x.dims();
                    let latents = latents.clone().unsqueeze::<3>().expand([batch, 3, width]);
                    let none = |queries, keys| hidden([queries, keys], &device, |_, _| false);
                    let read = into.cross(latents, x.clone(), &none(3, length));
                    from.cross(x, read, &none(length, 3))
                })
            },
        ),
    ]
}

pub fn right() -> RightForms {
    vec![
        ("chunks that see themselves and the one before", |s| chunked_window(s, false)),
        ("key heads repeated along the features", |s| multi_query(s, false)),
        ("earlier keys of the own bucket", |s| buckets(s, false)),
        ("the best of the blocks before, retrieved", |s| retrieval(s, false)),
        ("a slope that favours far keys, and a mask", |s| {
            let (layer, mask) = (Attention::new(s, 1, 2), s.look_ahead());
            let slope = s.mixing(|to, from| 0.3 * (to as f32 - from as f32));
            Subject::embedded(move |x| {
                let [queries, keys, values] = layer.parts(&x);
                let scores = layer.scores(queries, keys) + slope.clone().unsqueeze_dim(1);
                layer.mix(x, masked_softmax(scores, &mask), values)
            })
        }),
        ("a position merged with the one before where they are alike", |s| {
            let (layer, mask) = (Attention::new(s, 1, 2), s.look_ahead());
            let before = s.mixing(|to, from| if from + 1 == to { 1.0 } else { 0.0 });
            Subject::embedded(move |x| {
                let partner = mix(&before, &x);
                let alike = (x.clone() * partner.clone()).sum_dim(2);
                let merged = alike.greater_elem(0.0).float().expand(x.dims());
                let x = x.clone() + (partner - x) * 0.5 * merged;
                layer.forward(x, &mask)
            })
        }),
        ("latents of the positions so far", |s| {
            // Linear in the positions, so that each position may have latents of its own.
            let (score, out) = (s.matrix(148, [s.width, 1]), s.square(149));
            let past = s.mixing(|to, from| if from <= to { 1.0 } else { 0.0 });
            Subject::embedded(move |x| {
                let weights = project(&x, &score).abs() + 1.0;
                let read = mix(&past, &(weights.clone().expand(x.dims()) * x.clone()));
                let all = mix(&past, &weights).expand(x.dims());
                x.clone() + project(&(read / all), &out)
            })
        }),
    ]
}
