//! Caches: the second way through a model, each with the right one beside it.

use burn::tensor::Tensor;
use burn_decoder::causality::{Diagnosis, Path};
use burn_decoder::mask::Mask;

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

/// Keys seen by a query, its own included, and where that is kept in a ring.
const WINDOW: usize = 6;

/// The last position up to `last` that is written to the slot, of so many.
fn latest(slot: usize, slots: usize, last: usize) -> Option<usize> {
    (last >= slot).then(|| last - (last - slot) % slots)
}

/// Feeds `x` in pieces into a ring of `slots` keys. All of a piece is written first. `believed` says
/// which position a query takes a slot for, by slot, query and the last position that was written.
fn through_a_ring(
    layer: &Attention,
    x: &Tensor<3>,
    slots: usize,
    believed: impl Fn(usize, usize, usize) -> Option<usize>,
) -> Tensor<3> {
    let (mut start, mut pieces) = (0, Vec::new());
    for end in ends(x.dims()[1], 0) {
        let held = (0..slots).map(|slot| latest(slot, slots, end - 1).unwrap_or(0));
        let keys = Tensor::cat(held.map(|at| x.clone().narrow(1, at, 1)).collect(), 1);
        let mask = hidden([end - start, slots], &x.device(), |query, slot| {
            let query = start + query;
            let key = believed(slot, query, end - 1);
            key.is_none_or(|key| key > query || query - key >= WINDOW)
        });
        pieces.push(layer.cross(x.clone().narrow(1, start, end - start), keys, &mask));
        start = end;
    }
    Tensor::cat(pieces, 1)
}

/// A window, and the same through a ring.
fn with_ring(
    setup: &Setup,
    slots: usize,
    believed: impl Fn(usize, usize, usize) -> Option<usize> + Copy + 'static,
) -> Subject {
    let [plain, layer] = [Attention::new(setup, 1, 2), Attention::new(setup, 1, 2)];
    let mask = setup.hidden(|query, key| key > query || query - key >= WINDOW);
    Subject::embedded(move |x| plain.forward(x, &mask))
        .with_cached(move |x| through_a_ring(&layer, &x, slots, believed))
        .promising(Mask::look_ahead() & Mask::window_keys(WINDOW).unwrap())
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
            "a prompt without a mask, then one token at a time",
            |_| First::Cell(0, 1),
            |_| WithinBlocks { keys: PROMPT + 2 },
            |s| {
                with_cached(s, |layer, x| {
                    let ends = PROMPT + 2..=x.dims()[1];
                    in_pieces(layer, &x, ends, |_, _| false)
                })
            },
        ),
        form(
            "a ring that is overwritten before it is read",
            // The piece from 4 on overwrites the slots of 0 and 1, which its first query takes for them.
            |_| First::Cell(BLOCK, WINDOW),
            |_| WithinBlocks { keys: BLOCK },
            |s| with_ring(s, WINDOW, |slot, query, _| latest(slot, WINDOW, query)),
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
        ("a ring with room for a piece", |s| {
            const SLOTS: usize = WINDOW + BLOCK - 1;
            with_ring(s, SLOTS, |slot, _, last| latest(slot, SLOTS, last))
        }),
        ("a cache, in pieces", |s| {
            with_cached(s, |layer, x| in_pieces(layer, &x, ends(x.dims()[1], 0), right))
        }),
        ("speculative verification", |s| {
            with_cached(s, |layer, x| in_pieces(layer, &x, ends(x.dims()[1], PROMPT), right))
        }),
    ]
}
