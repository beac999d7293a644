//! Keys and values in fewer bits: everything that a cache does stays what it is, but for their rounding.

use burn::tensor::{DType, Device, Int, Tensor, s};
use burn_decoder::Error;
use burn_decoder::attention::{Kernel, MultiHeadAttentionConfig};
use burn_decoder::cache::{CacheConfig, CachePrecision, KvCache};
use burn_decoder::decoder::{Batch, LanguageModel, LanguageModelConfig, Request};
use burn_decoder::generation::{BeamConfig, Generation, GenerationConfig, beam_search};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::{TOKENS, cached, input_for, kinds, plain, tokens, two_rows};
use crate::backends::{any_device, cpus, is_cpu};
use crate::fixtures::to_f64;

const ROUNDED: [CachePrecision; 3] =
    [CachePrecision::F16, CachePrecision::Bf16, CachePrecision::Q8_0];

/// What logits may be off by, relative to the largest of them.
///
/// A key is off by at most u of itself (1/2048 in f16, 1/256 in bf16, 1/254 of the largest of its block
/// in Q8_0), so a score by at most u times the sum of its products' magnitudes, a weight by that
/// relative to itself, and a value by u. Two or three layers add that up, most of it cancels: the
/// largest seen in these tests are 2.5e-4, 2.1e-3 and 6.4e-3.
fn tolerance(precision: CachePrecision) -> f64 {
    match precision {
        CachePrecision::AsComputed => 1e-5,
        CachePrecision::F16 => 1e-3,
        CachePrecision::Bf16 => 8e-3,
        CachePrecision::Q8_0 => 1.6e-2,
    }
}

fn cache(precision: CachePrecision) -> KvCache {
    CacheConfig::new().with_capacity(2).with_precision(precision).init().unwrap()
}

#[track_caller]
fn assert_near(what: &str, got: Tensor<3>, expected: Tensor<3>, precision: CachePrecision) {
    assert_eq!(got.dims(), expected.dims(), "{what}");
    let (got, expected) = (to_f64(got.into_data()), to_f64(expected.into_data()));
    let largest = expected.iter().fold(0.0f64, |largest, x| largest.max(x.abs()));
    let difference = |(a, b): (&f64, &f64)| if a == b { 0.0 } else { (a - b).abs() / largest };
    let worst = got.iter().zip(&expected).map(difference).fold(0.0, |worst, difference| {
        if difference <= worst { worst } else { difference } // NaN stays
    });
    assert!(worst <= tolerance(precision), "{what}: off by {worst:e}");
}

/// Heads of 40: a whole block of Q8_0, and one that is cut off.
fn wide_heads() -> LanguageModelConfig {
    let mut config = plain();
    let layer = &mut config.decoder.layer;
    layer.self_attention = MultiHeadAttentionConfig::new(80, 2);
    layer.feed_forward.d_model = 80;
    config
}

/// Those precisions that the device has; of the others, that they are refused by name before anything
/// is kept.
fn kept_on(device: &Device) -> Vec<CachePrecision> {
    let model = plain().init(device).unwrap();
    let has = |precision| {
        let native = match precision {
            CachePrecision::F16 => device.supports_dtype(DType::F16),
            CachePrecision::Bf16 => device.supports_dtype(DType::BF16),
            _ => false,
        };
        if native || is_cpu(device) {
            return true;
        }
        let mut cache = cache(precision);
        let error = model.forward_cached(two_rows(device), Batch::new(), &mut cache).unwrap_err();
        let field = "CacheConfig::precision";
        assert!(matches!(error, Error::Config { field: f, .. } if f == field), "{error:?}");
        assert!(error.to_string().contains(&format!("{precision:?}")), "{error}");
        assert_eq!((cache.tokens(), cache.bytes()), (0, 0));
        false
    };
    ROUNDED.into_iter().filter(|&precision| has(precision)).collect()
}

on_each_backend! {
    /// Token by token, in chunks and at once, for every kind of layer and mask.
    fn cached_is_full_but_for_the_rounding(device: Device) {
        let all = two_rows(&device);
        for precision in kept_on(&device) {
            for (kind, config) in kinds().into_iter().chain([("wide heads", wide_heads())]) {
                if !is_cpu(&device) && !["windows in turn, sinks", "cross-attention"].contains(&kind) {
                    continue;
                }
                let model = config.init(&device).unwrap();
                let input = input_for(&model, 2);
                let full = model.forward(all.clone(), input.clone()).unwrap().logits;
                for chunk in [1, 3, TOKENS] {
                    let logits = cached(&model, &all, input.clone(), chunk, &mut cache(precision));
                    let what = format!("{kind}, {precision:?}, chunks of {chunk}");
                    assert_near(&what, logits, full.clone(), precision);
                }
            }
        }
    }

    /// Weights, and the kernels that other requests name, read the same rounded keys.
    fn every_kernel_reads_what_is_kept(device: Device) {
        let all = two_rows(&device);
        let model = wide_heads().init(&device).unwrap();
        let full = model.forward(all.clone(), Request::new().with_weights(true)).unwrap();
        for precision in kept_on(&device) {
            let with = |request: Request| {
                let mut cache = cache(precision);
                let first = all.clone().slice(s![.., ..9]);
                model.forward_cached(first, request, &mut cache).unwrap();
                let rest = all.clone().slice(s![.., 9..]);
                model.forward_cached(rest, request, &mut cache).unwrap()
            };
            let auto = with(Request::new()).logits;
            for request in [
                Request::new().with_kernel(Kernel::Reference),
                Request::new().with_kernel(Kernel::Backend),
                Request::new().with_weights(true),
            ] {
                let output = with(request);
                // The same numbers, whose sums differ by their order; where that moves a key of the
                // second layer over the edge between two codes, by its rounding.
                assert_near(&format!("{request:?}"), output.logits, auto.clone(), precision);
                for (got, full) in output.self_weights.into_iter().zip(&full.self_weights) {
                    let full = full.clone().slice(s![.., .., 9.., ..]);
                    let worst: f64 = (got - full).abs().max().into_scalar();
                    assert!(worst <= tolerance(precision), "weights, {precision:?}: {worst:e}");
                }
            }
        }
    }

    /// What comes later changes no bit of what is before it, in whatever pieces it comes.
    fn the_future_never_enters(device: Device) {
        if !is_cpu(&device) {
            return;
        }
        let all = two_rows(&device);
        let other = all.clone().slice_assign(
            s![.., 7..],
            tokens(&[vec![1, 16, 2, 9, 4, 4], vec![0, 3, 3, 8, 12, 1]], &device),
        );
        for precision in kept_on(&device) {
            for config in [plain(), wide_heads()] {
                let model = config.init(&device).unwrap();
                for chunk in [2, 5, TOKENS] {
                    let [one, two] = [&all, &other].map(|all| {
                        let logits = cached(&model, all, Batch::new(), chunk, &mut cache(precision));
                        logits.slice(s![.., ..7, ..]).into_data()
                    });
                    assert_eq!(one, two, "{precision:?}, chunks of {chunk}");
                }
            }
        }
    }

    /// Rows that begin with padding are what they are alone; reordered, repeated and dropped rows go on
    /// as what they are; and a cache from a file goes on to the same bits.
    fn padding_rows_and_files(device: Device) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.safetensors");
        for precision in kept_on(&device) {
            for kind in ["pre-norm", "windows in turn, sinks", "cross-attention"] {
                let (_, config) = kinds().into_iter().find(|(name, _)| *name == kind).unwrap();
                let model = config.init(&device).unwrap();
                let all = two_rows(&device);
                let pads = [4, 1];
                let input = input_for(&model, 2).with_pad_counts(pads);
                let full = model.forward(all.clone(), input.clone()).unwrap().logits;
                let mut cache = cache(precision);
                let logits = cached(&model, &all.clone().slice(s![.., ..9]), input, 3, &mut cache);
                for (row, pads) in pads.into_iter().enumerate() {
                    let places = s![row..row + 1, pads..9, ..];
                    let (got, full) = (logits.clone().slice(places), full.clone().slice(places));
                    assert_near(&format!("{kind}, row {row}"), got, full, precision);
                }

                cache.save(&path, &model).unwrap();
                let next = |cache: &mut KvCache, rows: &[usize]| {
                    let rows = rows.iter().map(|&row| all.clone().slice(s![row..row + 1, 9..11]));
                    let next = Tensor::cat(rows.collect(), 0);
                    model.forward_cached(next, Batch::new(), cache).unwrap().logits
                };
                let mut loaded = KvCache::load(&path, &model).unwrap();
                assert_eq!(loaded.tokens(), 9);
                let expected = next(&mut cache.clone(), &[0, 1]);
                assert_eq!(
                    next(&mut loaded, &[0, 1]).into_data(),
                    expected.clone().into_data(),
                    "{kind}, {precision:?}"
                );

                let rows = [1, 0, 1];
                cache.select_rows(&rows).unwrap();
                let got = next(&mut cache, &rows);
                for (i, row) in rows.into_iter().enumerate() {
                    let expected = expected.clone().slice(s![row..row + 1, .., ..]);
                    let got = got.clone().slice(s![i..i + 1, .., ..]);
                    assert_near(&format!("{kind}, row {row} moved"), got, expected, precision);
                }
            }
        }
    }
}

/// What one call of a cache does.
#[derive(Clone, Debug)]
enum Call {
    Pass(usize),
    Trim(f64),
    Fork(f64),
    Rows([usize; 2]),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        4 => (1usize..5).prop_map(Call::Pass),
        1 => (0.1f64..1.0).prop_map(Call::Trim),
        1 => (0.1f64..1.0).prop_map(Call::Fork),
        1 => [0usize..2, 0usize..2].prop_map(Call::Rows),
    ];
    proptest::collection::vec(call, 1..12)
}

/// Whatever is done with a cache, in any order: the next logits are those of the whole rows.
#[test]
fn any_calls_in_any_order() {
    for device in cpus() {
        let kinds = kinds().into_iter();
        let kinds = kinds.filter(|(kind, _)| ["pre-norm", "window with sinks"].contains(kind));
        let models: Vec<_> = kinds.map(|(_, config)| config.init(&device).unwrap()).collect();
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 40,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let given = (calls(), 0usize..3, 0..models.len(), [0usize..3, 0usize..3]);
        let run = |(calls, precision, model, pads): (Vec<Call>, usize, usize, [usize; 2])| {
            run_calls(&models[model], ROUNDED[precision], pads, &calls);
            Ok(())
        };
        runner.run(&given, run).unwrap();
    }
}

fn run_calls(model: &LanguageModel, precision: CachePrecision, pads: [usize; 2], calls: &[Call]) {
    let device = model.embedding.weight.device();
    let mut cache = cache(precision);
    let (mut rows, mut pads) = ([vec![], vec![]], pads.to_vec());
    let mut number = 5;
    let mut pass = |cache: &mut KvCache, rows: &mut [Vec<i64>; 2], pads: &[usize], new: usize| {
        let mut next = [vec![], vec![]];
        for row in &mut next {
            row.extend((0..new).map(|_| {
                number = (number * 7 + 3) % 101;
                number % 17
            }));
        }
        rows.iter_mut().zip(&next).for_each(|(row, next)| row.extend(next));
        let padded = || Batch::new().with_pad_counts(pads.iter().copied());
        let input = if cache.batch().is_none() { padded() } else { Batch::new() };
        let got = model.forward_cached(tokens(&next, &device), input, cache).unwrap().logits;
        let full = model.forward(tokens(&rows[..], &device), padded()).unwrap().logits;
        let total = rows[0].len();
        // What stands in a padded place is nobody's.
        for (row, &pads) in pads.iter().enumerate() {
            let start = (total - new).max(pads);
            if start < total {
                let at = start + new - total;
                let got = got.clone().slice(s![row..row + 1, at.., ..]);
                let full = full.clone().slice(s![row..row + 1, start.., ..]);
                assert_near(&format!("{precision:?}, {calls:?}"), got, full, precision);
            }
        }
    };
    pass(&mut cache, &mut rows, &pads, 4);
    for call in calls {
        let share = |share: &f64| 1 + (share * (rows[0].len() - 1) as f64) as usize;
        match call {
            Call::Pass(new) => pass(&mut cache, &mut rows, &pads, *new),
            Call::Trim(part) => {
                let kept = share(part);
                // A window may have dropped what the next token would see.
                if cache.trim(kept).is_ok() {
                    rows.iter_mut().for_each(|row| row.truncate(kept));
                }
            }
            Call::Fork(part) => {
                if let Ok(mut fork) = cache.prefix(share(part)) {
                    let mut rows = rows.clone().map(|row| row[..fork.tokens()].to_vec());
                    pass(&mut fork, &mut rows, &pads, 2);
                }
            }
            Call::Rows(chosen) => {
                cache.select_rows(chosen).unwrap();
                rows = chosen.map(|row| rows[row].clone());
                pads = chosen.map(|row| pads[row]).to_vec();
            }
        }
    }
    pass(&mut cache, &mut rows, &pads, 1);
}

/// Half, and 34/128 of what f32 takes: by heads of 40, a block of 34 bytes and one of 10.
#[test]
fn bytes_are_as_computed() {
    for device in cpus() {
        let model = wide_heads().init(&device).unwrap();
        let bytes = |precision| {
            let mut cache = CacheConfig::fixed(20).with_precision(precision).init().unwrap();
            model.forward_cached(two_rows(&device), Batch::new(), &mut cache).unwrap();
            cache.bytes()
        };
        // layers, keys and values, rows, heads, slots
        let rows = 2 * 2 * 2 * 2 * 20;
        assert_eq!(bytes(CachePrecision::AsComputed), rows * 40 * 4);
        assert_eq!(bytes(CachePrecision::F16), rows * 40 * 2);
        assert_eq!(bytes(CachePrecision::Bf16), rows * 40 * 2);
        assert_eq!(bytes(CachePrecision::Q8_0), rows * 44);
    }
}

/// The check against a pass without a cache knows of the rounding.
#[test]
fn the_self_check_passes() {
    let device = any_device();
    let model = wide_heads().init(&device).unwrap();
    for precision in ROUNDED {
        let config = CacheConfig::new().with_precision(precision).with_check_every(Some(1));
        let mut cache = config.init().unwrap();
        cached(&model, &two_rows(&device), Batch::new(), 2, &mut cache);
        assert_eq!(cache.tokens(), TOKENS);
    }
}

/// Greedy generation and a beam search write what they write without a cache where no choice is close.
#[test]
fn generation_and_beams() {
    for device in cpus() {
        let mut model = plain().init(&device).unwrap();
        // Logits far apart.
        let head = model.head.as_mut().unwrap();
        head.weight = head.weight.clone().map(|weight| weight * 20.0);
        let prompt = [vec![3u32, 1, 4, 1, 5]];
        let expected = Generation::new(&model, &prompt, &GenerationConfig::new(9)).unwrap();
        let expected = expected.finish().unwrap();
        for precision in ROUNDED {
            let cache = Some(CacheConfig::new().with_precision(precision));
            let config = GenerationConfig::new(9).with_cache(cache.clone());
            let rows = Generation::new(&model, &prompt, &config).unwrap().finish().unwrap();
            assert_eq!(rows[0].tokens, expected[0].tokens, "{precision:?}");
            // One beam is the greedy choice; several reorder the cache's rows in every step.
            let config = BeamConfig::new(1, 9).with_cache(cache.clone());
            let best = beam_search(&model, &prompt, Batch::new(), &config).unwrap();
            assert_eq!(best[0][0].tokens, expected[0].tokens, "{precision:?}");
            let score = |cache| {
                let config = BeamConfig::new(3, 9).with_cache(cache);
                beam_search(&model, &prompt, Batch::new(), &config).unwrap()[0][0].score
            };
            let (got, full) = (score(cache), score(None));
            assert!((got - full).abs() <= 2e-2 * full.abs(), "{precision:?}: {got}, not {full}");
        }
    }
}

/// A model in half precision on flex: its own precision, and others.
#[test]
#[cfg(feature = "flex")]
fn a_model_in_half_precision() {
    use burn::module::{Module, ModuleMapper, Param};

    struct Cast(DType);

    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }

    let device = Device::flex();
    let all: Tensor<2, Int> = two_rows(&device);
    for (dtype, epsilon) in [(DType::BF16, 1.0 / 128.0), (DType::F16, 1.0 / 1024.0)] {
        let model = plain().with_positions(None).init(&device).unwrap().map(&mut Cast(dtype));
        let full = model.forward(all.clone(), Batch::new()).unwrap().logits;
        assert_eq!(full.dtype(), dtype);
        let full = full.cast(DType::F32);
        let largest: f64 = full.clone().abs().max().into_scalar();
        for precision in [CachePrecision::AsComputed, CachePrecision::Bf16, CachePrecision::Q8_0] {
            let logits = cached(&model, &all, Batch::new(), 3, &mut cache(precision));
            let worst: f64 = (logits.cast(DType::F32) - full.clone()).abs().max().into_scalar();
            // The logits themselves are rounded, and so is every step before them.
            let allowed = tolerance(precision).max(4.0 * epsilon) * largest;
            assert!(worst <= allowed, "{dtype:?}, {precision:?}: {worst}, of {largest}");
        }
    }
}

/// The perplexity of a text moves by less than 0.5 %, in any precision. By hand, with a folder from
/// Hugging Face and a JSON file of the text's token ids:
///
/// `BURN_DECODER_MODEL=folder BURN_DECODER_TOKENS=ids.json cargo test --release --features flex,import
/// --test it -- --ignored --nocapture perplexity`
#[test]
#[ignore = "needs a model of some size"]
#[cfg(feature = "flex")]
fn perplexity() {
    use burn_decoder::import::{LoadOptions, hugging_face};

    let from = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let device = Device::flex();
    let model = hugging_face::load(from("BURN_DECODER_MODEL"), &device, LoadOptions::new());
    let model = model.unwrap().model;
    let ids = std::fs::read_to_string(from("BURN_DECODER_TOKENS")).unwrap();
    let ids: Vec<i64> = serde_json::from_str(&ids).unwrap();
    let all = tokens(std::slice::from_ref(&ids), &device);
    let perplexity = |precision| {
        let logits = cached(&model, &all, Batch::new(), 37, &mut cache(precision));
        let [_, length, vocab_size] = logits.dims();
        let logits = to_f64(logits.into_data());
        let surprise = |(row, &next): (&[f64], &i64)| {
            let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = row.iter().map(|x| (x - largest).exp()).sum();
            sum.ln() + largest - row[next as usize]
        };
        let rows = logits.chunks_exact(vocab_size).zip(&ids[1..]);
        (rows.map(surprise).sum::<f64>() / (length - 1) as f64).exp()
    };
    let full = perplexity(CachePrecision::AsComputed);
    println!("{} tokens, as computed: {full:.4}", ids.len());
    for precision in ROUNDED {
        let rounded = perplexity(precision);
        let moved = rounded / full - 1.0;
        println!("{precision:?}: {rounded:.4}, moved by {:.3} %", 100.0 * moved);
        assert!(moved.abs() < 5e-3, "{precision:?}");
    }
}
