//! Layers with a window keep no more than that, each its own part.

use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::cache::CacheConfig;
use burn_decoder::decoder::{Batch, LanguageModelConfig};
use burn_decoder::mask::Mask;
use burn_decoder::{CacheMisuse, Error};

use super::misuse::refused;
use super::{D_MODEL, TOKENS, assert_same, cached, plain, small_cache, two_rows};
use crate::backends::any_device;

#[test]
fn a_window_does_not_go_back_to_what_it_dropped() {
    let device = any_device();
    let window = Mask::window_keys(3).unwrap();
    for config in [plain().with_mask(window), with_windows(&[None, Some(3)])] {
        let model = config.init(&device).unwrap();
        let mut cache = small_cache();
        let all = two_rows(&device);
        cached(&model, &all, Batch::new(), 1, &mut cache);
        let error = refused(&mut cache, &model, |cache| cache.trim(5));
        assert!(matches!(error, Error::Cache { misuse: CacheMisuse::Trim, .. }), "{error:?}");
        cache.trim(TOKENS - 1).unwrap();
        let full = model.forward(all.clone(), Batch::new()).unwrap().logits;
        let last = all.narrow(1, TOKENS - 1, 1);
        let again = cached(&model, &last, Batch::new(), 1, &mut cache);
        assert_same("again", again, full.narrow(1, TOKENS - 1, 1));
    }
}

/// The memory is what the formula says, windows stay bounded, and the grouped heads are stored once.
#[test]
fn bytes_are_as_computed() {
    let device = any_device();
    let all = two_rows(&device);
    let bytes_of = |config: LanguageModelConfig, cache: CacheConfig, pads: [usize; 2]| {
        let model = config.init(&device).unwrap();
        let mut cache = cache.init().unwrap();
        let input = Batch::new().with_pad_counts(pads);
        cached(&model, &all, input, 1, &mut cache);
        cache.bytes()
    };
    let bytes = |config, cache| bytes_of(config, cache, [0, 0]);
    // Two layers, keys and values, two rows, kv_heads of head_dim, f32.
    let per_slot = |kv_heads: usize, head_dim: usize| 2 * 2 * 2 * kv_heads * head_dim * 4;
    let heads = D_MODEL / 3;
    assert_eq!(bytes(plain(), CacheConfig::fixed(40)), 40 * per_slot(3, heads));
    assert_eq!(bytes(plain(), CacheConfig::new().with_capacity(2)), 16 * per_slot(3, heads));
    let limited = CacheConfig::new().with_capacity(2).with_limit(Some(TOKENS));
    assert_eq!(bytes(plain(), limited), TOKENS * per_slot(3, heads));
    let mut grouped = plain();
    grouped.decoder.layer.self_attention =
        MultiHeadAttentionConfig::new(D_MODEL, 6).with_kv_heads(Some(2));
    assert_eq!(bytes(grouped, CacheConfig::fixed(40)), 40 * per_slot(2, 2));
    let window = plain().with_mask(Mask::window_keys(3).unwrap());
    assert_eq!(bytes(window, CacheConfig::fixed(40)), 6 * per_slot(3, heads));

    // Twice the window and the sinks where the layer has one, all 40 where it has none.
    let per_slot_of_a_layer = per_slot(3, heads) / 2;
    let in_turn = with_windows(&[Some(3), None]);
    assert_eq!(bytes(in_turn.clone(), CacheConfig::fixed(40)), (6 + 40) * per_slot_of_a_layer);
    let growing = CacheConfig::new().with_capacity(2);
    assert_eq!(bytes(in_turn.clone(), growing), (6 + 16) * per_slot_of_a_layer);
    let sinks = (Mask::window_keys(5).unwrap() | Mask::sinks(2)) & Mask::look_ahead();
    let sinks = in_turn.with_mask(sinks);
    assert_eq!(bytes(sinks.clone(), CacheConfig::fixed(40)), (6 + 12) * per_slot_of_a_layer);
    // Behind up to 4 padded places, which the sinks of the other row must reach over.
    let padded = bytes_of(sinks, CacheConfig::fixed(40), [4, 1]);
    assert_eq!(padded, (6 + 12 + 4) * per_slot_of_a_layer);
}

fn with_windows(windows: &[Option<usize>]) -> LanguageModelConfig {
    let mut config = plain();
    config.decoder.windows = windows.to_vec();
    config
}
