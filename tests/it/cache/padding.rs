//! Rows of different lengths, padded on the left: each is what it is alone.

use burn::tensor::{Bool, Int, Tensor};
use burn_decoder::decoder::{Batch, Positions};
use burn_decoder::mask::Mask;
use burn_decoder::{CacheMisuse, Error};

use super::misuse::refused;
use super::{
    DOCUMENTS, TOKENS, assert_same, cached, input_for, kinds, plain, small_cache, tokens, two_rows,
};
use crate::backends::{any_device, is_cpu};

on_each_backend! {
    /// Rows that begin with padding give what they give alone, and so do packed documents.
    fn padding_and_documents_last(device: Device) {
        let all = two_rows(&device);
        let kinds = kinds();
        for name in [
            "pre-norm",
            "learned positions",
            "window",
            "window with sinks",
            "windows in turn, sinks",
            "chunks",
            "cross-attention",
        ] {
            if !is_cpu(&device) && !["pre-norm", "windows in turn, sinks"].contains(&name) {
                continue;
            }
            let (_, config) = kinds.iter().find(|(kind, _)| *kind == name).unwrap();
            let model = config.init(&device).unwrap();

            let pads = [4, 1];
            let input = input_for(&model, 2);
            for chunk in [1, 3, 5, TOKENS] {
                let padded = input.clone().with_pad_counts(pads);
                let logits = cached(&model, &all, padded, chunk, &mut small_cache());
                for (row, pads) in pads.into_iter().enumerate() {
                    let alone = all.clone().narrow(0, row, 1).narrow(1, pads, TOKENS - pads);
                    let mut input = input.clone();
                    if let Some((states, _)) = input.memory {
                        let mask = Mask::lengths([5 - row]);
                        input.memory = Some((states.narrow(0, row, 1), mask));
                    }
                    let alone = model.forward(alone, input).unwrap().logits;
                    let logits = logits.clone().narrow(0, row, 1).narrow(1, pads, TOKENS - pads);
                    assert_same(&format!("{name}, row {row}, chunks of {chunk}"), logits, alone);
                }
            }

            let documents = tokens(&[DOCUMENTS.to_vec(), vec![0; TOKENS]], &device);
            let numbered = vec![DOCUMENTS.to_vec(), vec![0; TOKENS]];
            let packed = input
                .with_mask(Mask::document_ids(&documents))
                .with_positions(Positions::Documents(numbered));
            let full = model.forward(all.clone(), packed.clone()).unwrap().logits;
            for chunk in [1, 3] {
                let logits = cached(&model, &all, packed.clone(), chunk, &mut small_cache());
                assert_same(&format!("{name}, documents, chunks of {chunk}"), logits, full.clone());
            }
        }
    }

    /// Without a cache, too; a prefix is seen by what stands before it.
    fn positions_of_masks_begin_behind_the_padding(device: Device) {
        let pads = [4, 1];
        let all = two_rows(&device);
        let sinks = (Mask::window_keys(3).unwrap() | Mask::sinks(2)) & Mask::look_ahead();
        for mask in [Mask::prefix(3) | Mask::look_ahead(), sinks, Mask::chunks(4).unwrap()] {
            // Told by the model, and told with the input.
            for own in [true, false] {
                let config = if own { plain().with_mask(mask.clone()) } else {
                    plain().with_mask(Mask::all_visible())
                };
                let model = config.init(&device).unwrap();
                let input = || match own {
                    true => Batch::new(),
                    false => Batch::new().with_mask(mask.clone()),
                };
                let padded = input().with_pad_counts(pads);
                let together = model.forward(all.clone(), padded).unwrap().logits;
                for (row, pads) in pads.into_iter().enumerate() {
                    let places = |rows: Tensor<2, Int>| rows.narrow(0, row, 1).narrow(1, pads, TOKENS - pads);
                    let alone = model.forward(places(all.clone()), input()).unwrap().logits;
                    let together = together.clone().narrow(0, row, 1).narrow(1, pads, TOKENS - pads);
                    assert_same(&format!("{mask}, row {row}"), together, alone);
                }
            }
        }
    }

    /// The first token stands on the first state of the memory, not the first padded place.
    fn tokens_and_memory_line_up_behind_the_padding(device: Device) {
        let pads = [4, 1];
        let all = two_rows(&device);
        let (_, config) = kinds().into_iter().find(|(kind, _)| *kind == "cross-attention").unwrap();
        let model = config.init(&device).unwrap();
        let source = tokens(&[vec![2, 7, 1, 8, 2, 8], vec![3, 1, 4, 1, 5, 9]], &device);
        let states = model.embed(source, &Positions::Index).unwrap();
        let memory = Mask::look_around(1, 2) | Mask::prefix(1);
        let input = Batch::new().with_memory(states.clone(), memory.clone());
        for chunk in [1, 3, TOKENS] {
            let input = input.clone().with_pad_counts(pads);
            let together = cached(&model, &all, input, chunk, &mut small_cache());
            for (row, pads) in pads.into_iter().enumerate() {
                let alone = all.clone().narrow(0, row, 1).narrow(1, pads, TOKENS - pads);
                let states = states.clone().narrow(0, row, 1);
                let input = Batch::new().with_memory(states, memory.clone());
                let alone = model.forward(alone, input).unwrap().logits;
                let together = together.clone().narrow(0, row, 1).narrow(1, pads, TOKENS - pads);
                assert_same(&format!("row {row}, chunks of {chunk}"), together, alone);
            }
        }
    }

    /// Reordered, repeated and dropped rows go on as what they are.
    fn rows_follow_their_order(device: Device) {
        for (kind, config) in kinds() {
            if !is_cpu(&device) && kind != "window" {
                continue;
            }
            let model = config.init(&device).unwrap();
            let all = two_rows(&device);
            let input = input_for(&model, 2).with_pad_counts([2, 0]);
            let mut cache = small_cache();
            let (past, next) = (all.clone().narrow(1, 0, 9), all.narrow(1, 9, 1));
            model.forward_cached(past, input, &mut cache).unwrap();
            let expected =
                model.forward_cached(next.clone(), Batch::new(), &mut cache.clone()).unwrap();

            let rows = [1, 0, 1];
            cache.select_rows(&rows).unwrap();
            assert_eq!(cache.batch(), Some(3));
            let chosen = |tensor: Tensor<2, Int>| {
                Tensor::cat(rows.map(|row| tensor.clone().narrow(0, row, 1)).to_vec(), 0)
            };
            let got = model.forward_cached(chosen(next), Batch::new(), &mut cache).unwrap();
            for (i, row) in rows.into_iter().enumerate() {
                let got = got.logits.clone().narrow(0, i, 1);
                assert_same(kind, got, expected.logits.clone().narrow(0, row, 1));
            }
        }
    }
}

/// What such a mask means behind padding is not known, so it is not guessed.
#[test]
fn a_mask_by_place_is_refused_behind_padding() {
    let device = any_device();
    let flags = Tensor::<2, Bool>::from_data([[false, true], [false, false]], &device);
    let by_place = [
        Mask::from_hidden(&flags).unwrap(),
        Mask::document_lengths([[1, 1], [2, 0]]),
        Mask::lengths([1, 2]),
        !Mask::pad_counts([1, 0]) | Mask::look_ahead(),
    ];
    let rows = tokens(&[vec![3, 1], vec![4, 1]], &device);
    for mask in by_place {
        let model = plain().with_mask(mask).init(&device).unwrap();
        let padded = Batch::new().with_pad_counts([1, 0]);
        let error = model.forward(rows.clone(), padded.clone()).unwrap_err();
        assert!(error.to_string().contains("padded on the left"), "{error}");
        let error = model.forward_cached(rows.clone(), padded, &mut small_cache()).unwrap_err();
        assert!(matches!(error, Error::Mask { .. }), "{error:?}");
        // Without padding nothing is to be guessed.
        let whole = Batch::new().with_pad_counts([0, 0]);
        model.forward(rows.clone(), whole).unwrap();
    }
}

/// The keys that sinks need are kept by the pad counts of the first pass.
#[test]
fn other_padding_is_refused() {
    let device = any_device();
    let model = plain().init(&device).unwrap();
    let mut cache = small_cache();
    let padded = |counts| Batch::new().with_pad_counts(counts);
    model.forward_cached(two_rows(&device), padded([4, 1]), &mut cache).unwrap();
    let next = || tokens(&[vec![3], vec![4]], &device);
    for wrong in [
        padded([4, 2]),
        Batch::new().with_positions(Positions::Listed(vec![vec![0; TOKENS + 1]; 2])),
    ] {
        let error = refused(&mut cache, &model, |cache| {
            model.forward_cached(next(), wrong, cache).map(|_| ())
        });
        let is_padding = matches!(error, Error::Cache { misuse: CacheMisuse::Padding, .. });
        assert!(is_padding, "{error:?}");
    }
    model.forward_cached(next(), padded([4, 1]), &mut cache).unwrap();
}
