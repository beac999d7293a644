//! What a pass leaves behind that does not come to its end, and what going back leaves: nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::tensor::Tensor;
use burn_decoder::attention::Kernel;
use burn_decoder::cache::{CacheConfig, KvCache};
use burn_decoder::decoder::{Batch, LanguageModel, LanguageModelConfig, Request};
use burn_decoder::mask::Mask;

use super::{D_MODEL, input_for, kinds, small_cache, tokens, two_rows};
use crate::backends::any_device;
use crate::cache::plain;

fn kind(name: &str) -> LanguageModelConfig {
    kinds().into_iter().find(|(kind, _)| *kind == name).unwrap().1
}

fn logits(model: &LanguageModel, row: Vec<i64>, batch: Batch, cache: &mut KvCache) -> Vec<f32> {
    let row = tokens(&[row], &model.embedding.weight.device());
    let output = model.forward_cached(row, batch, cache).unwrap();
    output.logits.into_data().iter::<f32>().collect()
}

/// After `trim(0)` another prompt is what it would be in a new cache: no padding, no mask and no memory
/// of the old rows is left, and their number may be another.
#[test]
fn nothing_is_left_of_rows_that_went() {
    let device = any_device();
    let model = plain().init(&device).unwrap();
    let fresh = || logits(&model, vec![3, 1, 4], Batch::new(), &mut small_cache());
    let first = |batch: Batch| {
        let mut cache = small_cache();
        logits(&model, vec![5, 6, 7, 8], batch, &mut cache);
        cache
    };
    let olds = [
        Batch::new().with_pad_counts([2]),
        Batch::new().with_mask(Mask::document_lengths([[2, 2]])),
        Batch::new()
            .with_positions(burn_decoder::decoder::Positions::Listed(vec![(7..15).collect()])),
    ];
    for old in olds {
        let mut cache = first(old.clone());
        cache.trim(0).unwrap();
        assert_eq!(cache.batch(), None);
        assert_eq!(logits(&model, vec![3, 1, 4], Batch::new(), &mut cache), fresh());
        let mut prefix = first(old).prefix(0).unwrap();
        model.forward_cached(two_rows(&device), Batch::new(), &mut prefix).unwrap();
    }
    // The memory goes, too: it is given again.
    let model = kind("cross-attention").init(&device).unwrap();
    let mut cache = small_cache();
    let all = two_rows(&device);
    model.forward_cached(all.clone(), input_for(&model, 2), &mut cache).unwrap();
    cache.trim(0).unwrap();
    model.forward_cached(all, input_for(&model, 2), &mut cache).unwrap();
}

/// A first pass that panics has said what its rows are; the next first pass has others.
#[test]
fn a_first_pass_that_broke_off_never_was() {
    let device = any_device();
    let model = kind("cross-attention").init(&device).unwrap();
    let all = two_rows(&device).narrow(1, 0, 5);
    let mut cache = small_cache();
    // A memory of the wrong width breaks off in the first layer.
    let wide = Tensor::ones([2, 3, D_MODEL + 1], &device);
    let broken =
        input_for(&model, 2).with_memory(wide, Mask::all_visible()).with_pad_counts([2, 1]);
    let pass =
        AssertUnwindSafe(|| model.forward_cached(all.clone(), broken, &mut cache).map(|_| ()));
    catch_unwind(pass).unwrap_err();

    let run = |cache: &mut KvCache| {
        let output = model.forward_cached(all.clone(), input_for(&model, 2), cache).unwrap();
        output.logits.into_data()
    };
    assert_eq!(run(&mut cache), run(&mut small_cache()));
}

/// A later pass that panics, or that a check refuses, takes back what it said and wrote, also for a
/// file.
#[test]
fn a_pass_that_broke_off_is_taken_back() {
    let device = any_device();
    let model = kind("softcap").init(&device).unwrap();
    let filled = || {
        let mut cache = CacheConfig::new().init().unwrap();
        logits(&model, vec![5, 6, 7, 8], Batch::new(), &mut cache);
        cache
    };
    let expected = logits(&model, vec![2], Batch::new(), &mut filled());
    let break_off = |cache: &mut KvCache| {
        // Burn's own kernel knows no softcap; the mask would hide all but the last token.
        let hides = Batch::new().with_mask(Mask::window_keys(1).unwrap());
        let input = hides.asking(Request::new().with_kernel(Kernel::Backend));
        let next = tokens(&[vec![9]], &device);
        let pass = AssertUnwindSafe(|| model.forward_cached(next, input, cache).map(|_| ()));
        catch_unwind(pass).unwrap_err();
    };
    let mut cache = filled();
    break_off(&mut cache);
    assert_eq!(logits(&model, vec![2], Batch::new(), &mut cache), expected);

    let mut cache = filled();
    break_off(&mut cache);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cache.safetensors");
    cache.save(&path, &model).unwrap();
    let mut loaded = KvCache::load(&path, &model).unwrap();
    assert_eq!(logits(&model, vec![2], Batch::new(), &mut loaded), expected);
}

/// Room is made for the tokens that come, whatever the settings say of those that may.
#[test]
fn no_room_for_what_may_never_come() {
    let device = any_device();
    for kind in ["pre-norm", "windows in turn, sinks"] {
        let model = kinds().into_iter().find(|(name, _)| *name == kind).unwrap().1;
        let model = model.init(&device).unwrap();
        for config in [
            CacheConfig::fixed(100_000_000),
            CacheConfig::fixed(usize::MAX),
            CacheConfig::new().with_capacity(usize::MAX),
        ] {
            let mut cache = config.init().unwrap();
            let expected = logits(&model, vec![3, 1, 4], Batch::new(), &mut small_cache());
            assert_eq!(logits(&model, vec![3, 1, 4], Batch::new(), &mut cache), expected);
            assert!(cache.bytes() < 1 << 20, "{} bytes for 3 tokens", cache.bytes());
        }
    }
    let model = plain().with_mask(Mask::window_keys(usize::MAX).unwrap()).init(&device).unwrap();
    let mut cache = CacheConfig::fixed(usize::MAX).init().unwrap();
    logits(&model, vec![3, 1, 4], Batch::new(), &mut cache);
    assert!(cache.bytes() < 1 << 20, "{} bytes for 3 tokens", cache.bytes());
}
