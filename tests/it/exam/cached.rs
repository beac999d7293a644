//! Caches: the second way through a model, each with the right one beside it.

use burn::tensor::Tensor;
use burn_decoder::causality::{Diagnosis, Path};

use super::parts::*;
use super::{First, Form, RightForms, Subject};

/// Where the drafts of speculative decoding begin.
const PROMPT: usize = 3;

/// A right layer, and another way to run it.
fn with_cached(
    setup: &Setup,
    cached: impl Fn(&Attention, Tensor<3>) -> Tensor<3> + 'static,
) -> Subject {
    let [plain, layer] = [Attention::new(setup, 1, 2), Attention::new(setup, 1, 2)];
    let mask = setup.look_ahead();
    Subject::embedded(move |x| plain.forward(x, &mask)).with_cached(move |x| cached(&layer, x))
}

/// Feeds `x` in pieces that end at `ends`, each against all that came so far; inside a piece, query
/// and key are hidden by `is_hidden`.
fn in_pieces(
    layer: &Attention,
    x: &Tensor<3>,
    ends: impl Iterator<Item = usize>,
    is_hidden: impl Fn(usize, usize) -> bool,
) -> Tensor<3> {
    let (mut start, mut pieces) = (0, Vec::new());
    for end in ends {
        let mask = hidden([end - start, end], &x.device(), |query, key| {
            key >= start && is_hidden(start + query, key)
        });
        let new = x.clone().narrow(1, start, end - start);
        pieces.push(layer.cross(new, x.clone().narrow(1, 0, end), &mask));
        start = end;
    }
    Tensor::cat(pieces, 1)
}

/// Ends of blocks behind a start of one token at a time.
fn ends(length: usize, start: usize) -> impl Iterator<Item = usize> {
    let blocks = (start..length).step_by(BLOCK).map(move |at| (at + BLOCK).min(length));
    (1..=start).chain(blocks)
}

/// One token at a time, over the keys of `of_row(row)`.
fn one_by_one(layer: &Attention, x: &Tensor<3>, of_row: impl Fn(usize) -> usize) -> Tensor<3> {
    let [batch, ..] = x.dims();
    let rows = (0..batch).map(|row| x.clone().narrow(0, of_row(row), 1));
    let cache = Tensor::cat(rows.collect(), 0);
    step_by_step(x, |i, new| {
        let none = hidden([1, i + 1], &x.device(), |_, _| false);
        layer.cross(new, cache.clone().narrow(1, 0, i + 1), &none)
    })
}

pub fn leaking() -> Vec<Form> {
    use Diagnosis::*;
    let form = |name, first, cause, build| Form::new(name, first, cause, build).on(Path::Cached);
    vec![
        form(
            "a cache that forgets its mask among new tokens",
            |_| First::Cell(0, 1),
            |_| WithinBlocks { keys: BLOCK },
            |s| with_cached(s, |layer, x| in_pieces(layer, &x, ends(x.dims()[1], 0), |_, _| false)),
        ),
        form(
            "a cache that is read to its end",
            |_| First::Cell(0, 1),
            |_| MaskMissing,
            |s| {
                with_cached(s, |layer, x| {
                    let none = hidden([1, x.dims()[1]], &x.device(), |_, _| false);
                    step_by_step(&x, |_, new| layer.cross(new, x.clone(), &none))
                })
            },
        ),
        form(
            "speculative verification that sees its own draft",
            |_| First::Cell(PROMPT, PROMPT + 1),
            |_| WithinBlocks { keys: BLOCK },
            |s| {
                with_cached(s, |layer, x| {
                    in_pieces(layer, &x, ends(x.dims()[1], PROMPT), |_, _| false)
                })
            },
        ),
        form(
            "a cache shared between rows",
            // All rows read the keys of the first one.
            |_| First::Rows { row: 1, query: 0, by: |_, other| other == 0 },
            |_| CarriedBetweenRows,
            |s| with_cached(s, |layer, x| one_by_one(layer, &x, |_| 0)),
        ),
    ]
}

pub fn right() -> RightForms {
    fn right(query: usize, key: usize) -> bool {
        key > query
    }
    vec![
        ("a cache, one token at a time", |s| {
            with_cached(s, |layer, x| one_by_one(layer, &x, |row| row))
        }),
        ("a cache, in pieces", |s| {
            with_cached(s, |layer, x| in_pieces(layer, &x, ends(x.dims()[1], 0), right))
        }),
        ("speculative verification", |s| {
            with_cached(s, |layer, x| in_pieces(layer, &x, ends(x.dims()[1], PROMPT), right))
        }),
    ]
}
