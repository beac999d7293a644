//! How often the host waits for the GPU: never in a pass or a training step, once a generated token.
//!
//! Counted where it happens, below this crate and Burn: wgpu tells its log of each buffer that is
//! mapped to be read, and of each wait for the queue to be empty.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::store::ModuleSnapshot;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_decoder::attention::{MultiHeadAttentionConfig, RotaryConfig, TokenCheck};
use burn_decoder::cache::CacheConfig;
use burn_decoder::decoder::{
    Activation, Batch, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, NormConfig, Request,
};
use burn_decoder::generation::{Generation, GenerationConfig, SamplingConfig, hooks};
use burn_decoder::mask::Mask;

use crate::backends::on_gpu;

/// Buffers mapped to be read, and waits for the queue.
static WAITS: AtomicUsize = AtomicUsize::new(0);

struct Counter;

impl log::Log for Counter {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }

    fn log(&self, record: &log::Record) {
        if record.target().starts_with("wgpu_core") {
            let text = record.args().to_string();
            let read = text.contains("map_async") && text.contains("Read");
            // With the queue's id: further down, the same is told once more without it.
            if read || text.starts_with("Queue::on_submitted_work_done ") {
                WAITS.fetch_add(1, Relaxed);
            }
        }
    }

    fn flush(&self) {}
}

/// How often `run` waits for the device, if that can be counted: not on CUDA.
fn waits(run: impl FnOnce()) -> usize {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap();
    if !*installed {
        log::set_logger(&Counter).expect("no logger before");
        *installed = true;
    }
    log::set_max_level(log::LevelFilter::Trace);
    let before = WAITS.load(Relaxed);
    run();
    let waits = WAITS.load(Relaxed) - before;
    log::set_max_level(log::LevelFilter::Off);
    waits
}

/// Runs `test` on the GPU, if waits can be counted there.
fn counted(test: impl FnOnce(Device)) {
    on_gpu(|device| {
        let one = Tensor::<1>::ones([3], &device);
        // Data that nobody looks at is not read.
        let read = waits(|| assert_eq!(one.into_data().iter::<f32>().sum::<f32>(), 3.0));
        if format!("{device:?}").contains("Wgpu") {
            assert_eq!(read, 1, "to read a tensor is counted");
            assert_eq!(waits(|| device.sync().unwrap()), 1, "to wait is counted");
            test(device);
        } else {
            println!("skipped: waits on {device:?} can't be counted");
        }
    });
}

const VOCAB_SIZE: usize = 29;

fn model(device: &Device) -> LanguageModel {
    let attention = MultiHeadAttentionConfig::new(24, 6)
        .with_kv_heads(Some(2))
        .with_rotary(Some(RotaryConfig::new()));
    let feed_forward = FeedForwardConfig::new(24, 31).with_activation(Activation::SwiGlu);
    let layer = DecoderLayerConfig::new(attention, feed_forward)
        .with_norm(NormConfig::rms_norm())
        .with_dropout(0.1);
    LanguageModelConfig::new(VOCAB_SIZE, DecoderConfig::new(layer, 2))
        .with_positions(None)
        .with_mask(Mask::look_ahead() & Mask::window_keys(5).unwrap())
        .init(device)
        .unwrap()
}

fn ids(device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = (0..14).map(|i| i * 5 % VOCAB_SIZE as i64).collect();
    Tensor::from_data(TensorData::new(ids, [2, 7]), device)
}

/// What a batch may say of its rows without asking the device for it.
fn batches() -> Vec<Batch> {
    vec![
        Batch::new(),
        Batch::new().with_lengths([7, 4]),
        Batch::new().with_pad_counts([0, 3]),
        Batch::new().with_mask(Mask::document_lengths([[3, 4], [5, 2]])),
        Batch::new()
            .with_mask(!Mask::document_lengths([[2, 5], [1, 6]]) | Mask::window_keys(1).unwrap()),
    ]
}

#[test]
fn a_forward_pass_never_waits() {
    counted(|device| {
        let model = model(&device);
        for batch in batches() {
            let count = waits(|| drop(model.forward(ids(&device), batch.clone()).unwrap()));
            assert_eq!(count, 0, "{batch:?}");
        }
        let request = Request::new().with_token_check(TokenCheck::Host);
        assert_eq!(waits(|| drop(model.forward(ids(&device), request).unwrap())), 1);
    });
}

#[test]
fn a_training_step_never_waits() {
    counted(|device| {
        let inner = device.clone();
        let device = device.autodiff();
        let mut model = Some(model(&inner).train());
        let mut optimizer = AdamWConfig::new().init();
        let loss = CrossEntropyLossConfig::new().init(&device);
        for batch in batches() {
            let count = waits(|| {
                let current = model.take().unwrap();
                let logits = current.forward(ids(&device), batch.clone()).unwrap().logits;
                let logits = logits.reshape([14, VOCAB_SIZE]); // [batch * queries, vocab_size]
                let loss = loss.forward(logits, ids(&device).reshape([14]));
                let gradients = GradientsParams::from_grads(loss.backward(), &current);
                model = Some(optimizer.step(1e-3, current, gradients));
            });
            assert_eq!(count, 0, "{batch:?}");
        }
    });
}

#[test]
fn generation_waits_once_a_token() {
    counted(|device| {
        let model = model(&device);
        let prompts = [vec![1, 2, 3], vec![4, 5]];
        let new = 19; // more than one look at the parameters of a model that may change
        let steps = |count: usize, config: &GenerationConfig, what: &str| {
            let generation = Generation::new(&model, &prompts, config).unwrap();
            let waited = waits(|| drop(generation.finish().unwrap()));
            assert_eq!(waited, count, "{what}");
        };
        let greedy = GenerationConfig::new(new);
        steps(new, &greedy, "greedy");
        let drawn = SamplingConfig::at_temperature(0.7).with_top_k(Some(5));
        steps(new, &greedy.clone().with_sampling(drawn), "sampling");
        steps(new, &greedy.clone().with_log_probabilities(true), "log-probabilities");
        let hooked = Generation::new(&model, &prompts, &greedy).unwrap();
        let hooked = hooked.with_hook(hooks::banned_tokens([7]));
        assert_eq!(waits(|| drop(hooked.finish().unwrap())), new, "a hook");
    });
}

/// A loop of one's own: the tokens of the past are the device's, and only who wants to know waits.
/// The cache looks at the model in its first pass, all parameters at once, and at one of them in
/// every 16th of those behind it.
#[test]
fn passes_through_a_cache_wait_for_the_looks_at_the_model_alone() {
    counted(|device| {
        let model = model(&device);
        let mut cache = CacheConfig::new().init().unwrap();
        let first = waits(|| {
            model.forward_cached(ids(&device), Batch::new(), &mut cache).unwrap();
        });
        // Read together, a buffer each: whatever keys and values depend on.
        let parameters = model.collect(None, None, false);
        let looked_at = |name: &str| name.starts_with("embedding") || name.contains("layers");
        assert_eq!(first, parameters.iter().filter(|tensor| looked_at(&tensor.name)).count());
        let next = || Tensor::<2, Int>::from_data([[3], [8]], &device);
        let behind = waits(|| {
            for _ in 0..15 {
                model.forward_cached(next(), Batch::new(), &mut cache).unwrap();
            }
        });
        assert_eq!(behind, 0);
    });
}

/// Greedy generation reads the likeliest tokens alone; they are those that the host chooses.
#[test]
fn the_device_chooses_as_the_host_does() {
    on_gpu(|device| {
        let model = model(&device);
        let prompts = [vec![1, 2, 3], vec![4, 5], vec![6]];
        let run = |config: &GenerationConfig| {
            let all = Generation::new(&model, &prompts, config).unwrap().finish().unwrap();
            all.into_iter().map(|row| row.tokens).collect::<Vec<_>>()
        };
        let on_device = run(&GenerationConfig::new(11));
        // With log-probabilities the host sees all logits, and chooses.
        let on_host = run(&GenerationConfig::new(11).with_log_probabilities(true));
        assert_eq!(on_device, on_host);
    });
}
