//! The cache: whatever the chunks, the logits are those of one pass over everything.

mod broken_off;
mod bytes;
mod kept;
mod misuse;
mod model;
mod mutants;
mod padding;
mod precision;
mod windows;

use burn::tensor::{Device, Int, Tensor, TensorData, s};
use burn_decoder::Error;
use burn_decoder::attention::{
    AttentionSinks, HeadMapping, MultiHeadAttentionConfig, QkNormConfig, RotaryConfig, RotaryLayout,
};
use burn_decoder::cache::{CacheConfig, KvCache};
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, NormConfig, NormPlacement, PositionEmbeddingConfig, Positions, Request,
    ResidualLayout,
};
use burn_decoder::mask::Mask;

use crate::backends::{any_device, is_cpu};
use crate::fixtures::{OUTPUT, assert_close};

const VOCAB_SIZE: usize = 17;
const D_MODEL: usize = 12;
const TOKENS: usize = 13;
/// The positions of a second and later document begin again.
const DOCUMENTS: [i64; TOKENS] = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2];

pub fn plain() -> LanguageModelConfig {
    let layer = DecoderLayerConfig::new(
        MultiHeadAttentionConfig::new(D_MODEL, 3),
        FeedForwardConfig::new(D_MODEL, 19),
    );
    LanguageModelConfig::new(VOCAB_SIZE, DecoderConfig::new(layer, 2))
}

/// Every kind of layer and mask that a cache can tell from another.
pub fn kinds() -> Vec<(&'static str, LanguageModelConfig)> {
    let with_layer = |change: fn(&mut DecoderLayerConfig)| {
        let mut config = plain();
        change(&mut config.decoder.layer);
        config
    };
    let window = |keys| Mask::window_keys(keys).unwrap();
    vec![
        ("pre-norm", plain()),
        ("post-norm", with_layer(|layer| layer.norm_placement = NormPlacement::Post)),
        ("sandwich", with_layer(|layer| layer.norm_placement = NormPlacement::Sandwich)),
        ("norms on outputs", with_layer(|layer| layer.norm_placement = NormPlacement::Output)),
        ("parallel", with_layer(|layer| layer.residual_layout = ResidualLayout::Parallel)),
        ("windows in turn", {
            let mut config = plain().with_logit_softcap(Some(2.0));
            config.decoder.windows = vec![Some(3), None];
            config.with_embedding_norm(Some(NormConfig::rms_norm()))
        }),
        ("rms norm, gate", {
            with_layer(|layer| {
                layer.norm = NormConfig::rms_norm();
                layer.feed_forward.activation = Activation::SwiGlu;
            })
        }),
        (
            "grouped heads",
            with_layer(|layer| {
                layer.self_attention =
                    MultiHeadAttentionConfig::new(D_MODEL, 6).with_kv_heads(Some(2));
            }),
        ),
        ("rotary, norms of queries and keys", {
            let mut config = with_layer(|layer| {
                let norm = QkNormConfig::new(NormConfig::rms_norm());
                layer.self_attention = MultiHeadAttentionConfig::new(D_MODEL, 6)
                    .with_kv_heads(Some(2))
                    .with_qk_norm(Some(norm));
            });
            let rotary = |base| Some(RotaryConfig::new().with_base(base));
            config.decoder.rotaries = vec![rotary(100.0), rotary(5000.0)];
            config.with_positions(None)
        }),
        ("interleaved heads, ALiBi, quiet softmax", {
            with_layer(|layer| {
                layer.self_attention = MultiHeadAttentionConfig::new(D_MODEL, 6)
                    .with_kv_heads(Some(2))
                    .with_head_mapping(HeadMapping::Interleaved)
                    .with_alibi(true)
                    .with_sinks(AttentionSinks::Quiet);
            })
            .with_positions(None)
        }),
        ("rotary on neighbours, norms across heads, learned sinks, parallel on one norm", {
            with_layer(|layer| {
                let rotary = RotaryConfig::new().with_layout(RotaryLayout::Interleaved);
                let norm = QkNormConfig::new(NormConfig::layer_norm()).with_across_heads(true);
                layer.residual_layout = ResidualLayout::ParallelSharedNorm;
                layer.self_attention = MultiHeadAttentionConfig::new(D_MODEL, 3)
                    .with_rotary(Some(rotary.with_dim(Some(2))))
                    .with_qk_norm(Some(norm))
                    .with_sinks(AttentionSinks::Learned);
            })
            .with_tied_head(true)
            .with_head_bias(true)
        }),
        ("softcap", with_layer(|layer| layer.self_attention.softcap = Some(2.0))),
        ("learned positions", {
            plain().with_positions(Some(PositionEmbeddingConfig::learned(TOKENS + 5)))
        }),
        ("window", plain().with_mask(window(3))),
        ("window of one", plain().with_mask(window(1))),
        ("window with sinks", {
            plain().with_mask((window(3) | Mask::sinks(2)) & Mask::look_ahead())
        }),
        ("windows in turn, sinks", {
            let mut config = plain();
            config.decoder.layers = 3;
            config.decoder.windows = vec![Some(2), None, Some(4)];
            config.with_mask((window(5) | Mask::sinks(2)) & Mask::look_ahead())
        }),
        ("chunks", plain().with_mask(Mask::chunks(4).unwrap() & Mask::look_ahead())),
        (
            "cross-attention",
            with_layer(|layer| {
                layer.cross_attention = Some(MultiHeadAttentionConfig::new(D_MODEL, 2));
            }),
        ),
    ]
}

pub fn tokens(rows: &[Vec<i64>], device: &Device) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), device)
}

/// Ids without a pattern, two rows of `TOKENS`.
fn two_rows(device: &Device) -> Tensor<2, Int> {
    let row = |seed: i64| (0..TOKENS as i64).map(|i| (i * i * 7 + i * seed + 3) % 17).collect();
    tokens(&[row(5), row(11)], device)
}

/// A memory for the models with cross-attention, the same each time.
pub fn input_for(model: &LanguageModel, batch: usize) -> Batch {
    let input = Batch::new();
    if model.decoder.layers[0].cross_attention.is_none() {
        return input;
    }
    let device = model.embedding.weight.device();
    let source: Vec<_> = (0..batch as i64).map(|b| vec![2 + b, 7, 1, 8, 2]).collect();
    let memory = model.embed(tokens(&source, &device), &Positions::Index).unwrap();
    input.with_memory(memory, Mask::lengths((0..batch).map(|b| 5 - b % 3)))
}

/// The logits of all passes, one behind the other.
fn cached(
    model: &LanguageModel,
    all: &Tensor<2, Int>,
    input: Batch,
    chunk: usize,
    cache: &mut KvCache,
) -> Tensor<3> {
    let [_, length] = all.dims();
    let mut input = Some(input);
    let passes = (0..length).step_by(chunk).map(|start| {
        let new = all.clone().narrow(1, start, chunk.min(length - start));
        // The first pass tells the cache all that there is to tell.
        let input = input.take().unwrap_or_default();
        model.forward_cached(new, input, cache).unwrap().logits
    });
    Tensor::cat(passes.collect(), 1)
}

fn small_cache() -> KvCache {
    CacheConfig::new().with_capacity(2).init().unwrap()
}

#[track_caller]
fn assert_same(what: &str, got: Tensor<3>, expected: Tensor<3>) {
    let tolerance = OUTPUT.on(&got.device());
    assert_close(what, got.into_data(), expected.into_data(), tolerance);
}

on_each_backend! {
    /// Token by token, in chunks, and at once; the room doubles from 2 on the way, and the windows
    /// drop what they have passed.
    fn cached_is_full(device: Device) {
        let all = two_rows(&device);
        for (kind, config) in kinds() {
            let model = config.init(&device).unwrap();
            let input = input_for(&model, 2);
            let full = model.forward(all.clone(), input.clone()).unwrap().logits;
            for chunk in [1, 2, 3, 5, TOKENS] {
                let mut cache = small_cache();
                let logits = cached(&model, &all, input.clone(), chunk, &mut cache);
                assert_same(&format!("{kind}, chunks of {chunk}"), logits, full.clone());
                assert_eq!(cache.tokens(), TOKENS);
            }
        }
    }

    /// Weights of a cached pass are the last rows of those of a full one.
    fn weights_of_cached_tokens(device: Device) {
        let all = two_rows(&device);
        let model = plain().init(&device).unwrap();
        let input = Request::new().with_weights(true);
        let full = model.forward(all.clone(), input).unwrap().self_weights;
        let mut cache = small_cache();
        model.forward_cached(all.clone().narrow(1, 0, 9), input, &mut cache).unwrap();
        let rest = all.narrow(1, 9, 4);
        let weights = model.forward_cached(rest, input, &mut cache).unwrap().self_weights;
        for (got, full) in weights.into_iter().zip(full) {
            let expected = full.narrow(2, 9, 4).into_data();
            assert_close("weights", got.into_data(), expected, OUTPUT.on(&device));
        }
    }

    /// Going back gives what came then; the cache that a prefix was taken of stays.
    fn trimmed_is_as_before(device: Device) {
        let model = plain().init(&device).unwrap();
        let all = two_rows(&device);
        let full = model.forward(all.clone(), Batch::new()).unwrap().logits;
        let mut cache = small_cache();
        cached(&model, &all, Batch::new(), TOKENS, &mut cache);
        for kept in [8, 3, 0] {
            let mut prefix = cache.prefix(kept).unwrap();
            assert_eq!((prefix.tokens(), cache.tokens()), (kept, TOKENS));
            let rest = all.clone().narrow(1, kept, TOKENS - kept);
            let logits = cached(&model, &rest, Batch::new(), 2, &mut prefix);
            let expected = full.clone().narrow(1, kept, TOKENS - kept);
            assert_same(&format!("from {kept}"), logits, expected);
        }
        cache.trim(5).unwrap();
        let rest = all.narrow(1, 5, TOKENS - 5);
        let logits = cached(&model, &rest, Batch::new(), 3, &mut cache);
        assert_same("trimmed in place", logits, full.narrow(1, 5, TOKENS - 5));
    }

    /// A cache from a file goes on to the same bits.
    fn saved_and_loaded(device: Device) {
        let folder = tempfile::tempdir().unwrap();
        for (kind, config) in kinds() {
            if !is_cpu(&device) && kind != "cross-attention" {
                continue;
            }
            let model = config.init(&device).unwrap();
            let all = two_rows(&device);
            let input = input_for(&model, 2).with_pad_counts([2, 0]);
            let mut cache = small_cache();
            model.forward_cached(all.clone().narrow(1, 0, 9), input, &mut cache).unwrap();
            let path = folder.path().join("cache.safetensors");
            cache.save(&path, &model).unwrap();
            let mut loaded = KvCache::load(&path, &model).unwrap();
            assert_eq!(loaded.tokens(), cache.tokens());
            let next = |cache| {
                let new = all.clone().narrow(1, 9, 4);
                let output = model.forward_cached(new, Batch::new(), cache).unwrap();
                output.logits.into_data()
            };
            assert_eq!(next(&mut loaded), next(&mut cache), "{kind}");
        }
    }
}

/// Nothing is kept where there is no layer, and nothing is missed.
#[test]
fn a_model_without_layers() {
    let device = any_device();
    let mut model = plain().init(&device).unwrap();
    model.decoder.layers.clear();
    let all = two_rows(&device);
    let full = model.forward(all.clone(), Batch::new()).unwrap().logits;
    let mut cache = small_cache();
    let logits = cached(&model, &all, Batch::new().with_pad_counts([0, 0]), 3, &mut cache);
    assert_same("no layers", logits, full);
    assert_eq!((cache.tokens(), cache.bytes()), (TOKENS, 0));
}

/// The check passes while the cache is right, and finds out that the model was changed.
#[test]
fn the_self_check_finds_a_changed_model() {
    let device = any_device();
    let mut kinds = kinds();
    // Whose tokens see nothing of the past.
    kinds.retain(|(kind, _)| *kind != "window of one");
    for (kind, config) in kinds {
        let model = config.init(&device).unwrap();
        let all = two_rows(&device);
        let mut cache = CacheConfig::new().with_check_every(Some(2)).init().unwrap();
        let input = input_for(&model, 2).with_pad_counts([2, 0]);
        cached(&model, &all, input, 1, &mut cache);

        // The same parameters by name, other values: what a training step does.
        let mut changed = model.clone();
        let value = &mut changed.decoder.layers[0].self_attention.value;
        value.weight = value.weight.clone().map(|weight| {
            // But for those values that the cache itself remembers.
            let seen = weight.clone().slice(s![D_MODEL / 2..D_MODEL / 2 + 1, ..]);
            (weight * 1.5).slice_assign(s![D_MODEL / 2..D_MODEL / 2 + 1, ..], seen)
        });
        let mut pass = || {
            let next = tokens(&[vec![1], vec![2]], &device);
            changed.forward_cached(next, Batch::new(), &mut cache).map(|_| ())
        };
        let error = pass().and_then(|()| pass()).unwrap_err();
        assert!(matches!(error, Error::CacheCheck { .. }), "{kind}: {error:?}");
    }
}
