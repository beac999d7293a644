//! Right models are never accused, over 20 seeds; and where burn-nn 0.22.1 leaks, it is found.

use burn::module::Module;
use burn::nn::attention::{MhaInput, MultiHeadAttentionConfig, generate_autoregressive_mask};
use burn::nn::transformer::{
    TransformerDecoder, TransformerDecoderConfig, TransformerDecoderInput,
};
use burn::nn::{EmbeddingConfig, LinearConfig};
use burn::tensor::activation::gelu;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use burn_decoder::attention::Kernel;
use burn_decoder::cache::CacheConfig;
use burn_decoder::causality::{CausalityCheck, Diagnosis, Path, Unproven, Verdict, Way};
use burn_decoder::decoder::{Batch, LanguageModel, LanguageModelConfig, Request};
use burn_decoder::mask::Mask;

use super::kinds::{D_MODEL, VOCAB_SIZE, kinds};
use super::tiny::*;
use crate::backends::is_cpu;

const SEEDS: std::ops::Range<u64> = 0..20;

fn seeds_for(device: &Device) -> std::ops::Range<u64> {
    // Software Vulkan takes seconds where a CPU backend takes milliseconds.
    if is_cpu(device) { SEEDS } else { 0..1 }
}

fn decoder(norm_first: bool, device: &Device) -> TransformerDecoder {
    TransformerDecoderConfig::new(WIDTH, 12, 2, 2)
        .with_dropout(0.0)
        .with_norm_first(norm_first)
        .init(device)
}

/// burn-nn's decoder needs a memory: the same for every row, since it is no part of the check.
fn memory(batch: usize, device: &Device) -> Tensor<3> {
    let values = (0..3 * WIDTH).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>();
    let memory = Tensor::<3>::from_data(TensorData::new(values, [1, 3, WIDTH]), device);
    memory.expand([batch, 3, WIDTH])
}

/// A language model of this crate, with what its input says.
struct Subject {
    model: LanguageModel,
    mask: Mask,
    batch: usize,
    padding: Option<Mask>,
    memory: Option<Tensor<3>>,
    device: Device,
}

impl Subject {
    const LENGTH: usize = 7;

    /// The seed chooses the padding and the mask too.
    fn new(mut config: LanguageModelConfig, seed: u64, device: &Device) -> Self {
        let counts = [0, 3, 2];
        let (batch, padding) = match seed % 3 {
            0 => (8, None),
            1 => (3, Some(Mask::pad_counts(counts))),
            _ => (3, Some(Mask::lengths(counts.map(|count| Self::LENGTH - count)))),
        };
        config.decoder.layer.dropout = 0.1;
        if seed % 2 == 1 {
            config = config.with_mask(Mask::look_ahead() & Mask::window_keys(3).unwrap());
        }
        let model = config.init(device).unwrap();
        let memory = model.decoder.layers[0].cross_attention.is_some().then(|| {
            let values = (0..5 * D_MODEL).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>();
            let memory = TensorData::new(values, [1, 5, D_MODEL]);
            Tensor::<3>::from_data(memory, device).expand([batch, 5, D_MODEL])
        });
        Self {
            model,
            mask: config.decoder.mask.init().unwrap().rule().clone(),
            batch,
            padding,
            memory,
            device: device.clone(),
        }
    }

    fn input(&self) -> Batch {
        let mut input = Batch::new();
        if let Some(padding) = &self.padding {
            input = input.with_mask(padding.clone());
        }
        match &self.memory {
            Some(memory) => input.with_memory(memory.clone(), Mask::all_visible()),
            None => input,
        }
    }

    fn promise(&self) -> Mask {
        match &self.padding {
            Some(padding) => &self.mask & padding,
            None => self.mask.clone(),
        }
    }

    fn over_embeddings(&self, seed: u64) -> CausalityCheck<'_, Tensor<3>> {
        let run = |x, kernel, weights| {
            let request = Request::new().with_kernel(kernel).with_weights(weights);
            let input = self.input().asking(request);
            self.model.forward_embedded(x, input).unwrap()
        };
        let training = self.model.clone().train();
        CausalityCheck::embeddings(D_MODEL, Self::LENGTH, &self.device, move |x| {
            run(x, Kernel::Auto, false).logits
        })
        .with_path("reference kernel", move |x| run(x, Kernel::Reference, false).logits)
        .with_weights(move |x| {
            let output = run(x, Kernel::Auto, true);
            (output.logits, Tensor::cat(output.self_weights, 1))
        })
        .with_dropout(move |x| training.forward_embedded(x, self.input()).unwrap().logits)
        .with_batch(self.batch)
        .with_seed(seed)
        .with_promise(self.promise())
        .with_layers(2)
    }

    fn over_tokens(&self, seed: u64) -> CausalityCheck<'_, Tensor<2, Int>> {
        let check = CausalityCheck::tokens(VOCAB_SIZE, Self::LENGTH, &self.device, |tokens| {
            self.model.forward(tokens, self.input()).unwrap().logits
        })
        .with_batch(self.batch)
        .with_seed(seed)
        .with_promise(self.promise())
        .with_layers(2);
        if seed % 3 == 2 {
            return check; // the cache refuses right padding
        }
        check.with_cached(|tokens| {
            let mut cache = CacheConfig::new().init().unwrap();
            let mut outputs = Vec::new();
            for (start, new) in [(0, 3), (3, 1), (4, 1), (5, 2)] {
                let piece = tokens.clone().narrow(1, start, new);
                // The first pass says it all; a memory may not come twice.
                let input = if start == 0 { self.input() } else { Batch::new() };
                let output = self.model.forward_cached(piece, input, &mut cache).unwrap();
                outputs.push(output.logits);
            }
            Tensor::cat(outputs, 1)
        })
    }
}

on_each_backend! {
    /// Every kind of layer of this crate: from embeddings by its default kernel, by the reference
    /// kernel, with the weights returned and with dropout on; from tokens with and without cache.
    /// Without padding and with padding on either side, under look-ahead alone and with a window.
    fn the_decoders_of_this_crate(device: Device) {
        // On wgpu one kind stands for all: every new shape is a shader to compile.
        let kinds = kinds().into_iter().take(if is_cpu(&device) { usize::MAX } else { 1 });
        for (kind, config) in kinds {
            for seed in seeds_for(&device) {
                device.seed(seed);
                let subject = Subject::new(config.clone(), seed, &device);
                let report = subject.over_embeddings(seed).run().unwrap();
                assert!(report.keeps_promise(), "{kind}, seed {seed}, embeddings: {report}");
                let report = subject.over_tokens(seed).run().unwrap();
                assert!(report.keeps_promise(), "{kind}, seed {seed}, tokens: {report}");
            }
        }
    }

    fn the_decoder_of_burn_nn(device: Device) {
        for seed in seeds_for(&device) {
            device.seed(seed);
            let model = decoder(seed % 2 == 0, &device);
            let input = |x: Tensor<3>| {
                let [batch, length, _] = x.dims();
                let mask = generate_autoregressive_mask(batch, length, &device);
                TransformerDecoderInput::new(x, memory(batch, &device)).target_mask_attn(mask)
            };
            let report = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| {
                model.forward(input(x))
            })
            .with_batch(BATCH)
            .with_seed(seed)
            .with_promise(Mask::look_ahead())
            .with_layers(2)
            .with_cached(|x| {
                let mut cache = model.new_autoregressive_cache();
                let outputs = (1..=x.dims()[1]).map(|length| {
                    let output = model
                        .forward_autoregressive_inference(input(x.clone().narrow(1, 0, length)), &mut cache);
                    output.narrow(1, length - 1, 1)
                });
                Tensor::cat(outputs.collect(), 1)
            })
            .run()
            .unwrap();
            report.assert_keeps_promise();
        }
    }

    /// Causal, whatever it is held to; what a given promise shows, it does not show.
    fn a_model_without_attention(device: Device) {
        for seed in seeds_for(&device) {
            device.seed(seed);
            let embedding = EmbeddingConfig::new(7, WIDTH).init(&device);
            let (up, down) = (
                LinearConfig::new(WIDTH, 2 * WIDTH).init(&device),
                LinearConfig::new(2 * WIDTH, 7).init(&device),
            );
            let forward =
                |tokens: Tensor<2, Int>| down.forward(gelu(up.forward(embedding.forward(tokens))));
            let check = || {
                CausalityCheck::tokens(7, LENGTH, &device, forward).with_batch(BATCH).with_seed(seed)
            };
            // Nothing leaks, and nothing flows: such a model may be dead at these weights.
            let nothing_flows = Verdict::NotProven(Unproven::NothingFlows);
            assert_eq!(check().run().unwrap().verdict(), nothing_flows);

            let report = check().with_promise(Mask::look_ahead()).run().unwrap();
            assert_eq!(report.verdict(), nothing_flows);
            assert_eq!(report.diagnosis(), Some(&Diagnosis::NothingFlows));

            // Who knows it says so.
            let own = Mask::look_ahead() & Mask::window_keys(1).unwrap();
            check().with_promise(own).run().unwrap().assert_keeps_promise();
        }
    }

    /// The tiny attention that the mutants are made from, under each kind of promise.
    fn the_attention_of_the_mutants(device: Device) {
        let pads = [0, 3, 1, 5];
        let promises = [
            (Mask::look_ahead(), look_ahead(&device)),
            (
                Mask::look_ahead() & Mask::window_keys(3).unwrap(),
                hidden([LENGTH, LENGTH], &device, |q, k| k > q || q - k > 2),
            ),
            (
                Mask::prefix(4) | Mask::look_ahead(),
                hidden([LENGTH, LENGTH], &device, |q, k| k > q && k > 3),
            ),
            (
                Mask::look_ahead() & Mask::document_lengths([[4, 7]; BATCH]),
                hidden([LENGTH, LENGTH], &device, |q, k| k > q || (q > 3 && k < 4)),
            ),
            (Mask::look_ahead() & Mask::pad_counts(pads), padded(pads, &device)),
        ];
        for seed in seeds_for(&device) {
            let layer = Tiny::new(seed, 2, &device);
            for (promise, mask) in &promises {
                let dead = mask.clone().all_dim(3); // [batch, 1, LENGTH, 1]
                let forward = |x: Tensor<3>| {
                    let weights = layer.weights(&x, &x, mask);
                    let dead = dead.clone().expand(weights.dims());
                    let weights = weights.mask_fill(dead, 0.0);
                    (layer.mix(x.clone(), weights.clone(), x), weights)
                };
                CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| forward(x).0)
                    .with_batch(BATCH)
                    .with_seed(seed)
                    .with_promise(promise.clone())
                    .with_layers(1)
                    .with_weights(forward)
                    .run()
                    .unwrap()
                    .assert_keeps_promise();
            }
        }
    }

    /// burn-nn 0.22.1 hides with the finite fill -1e4. In a row of scores that are all hidden (a
    /// padded query under look-ahead), every score is then -1e4, and the softmax of equal scores is
    /// uniform: a query that should see nothing sees every key, the future included.
    fn a_dead_row_of_burn_nn_sees_everything(device: Device) {
        let pads = [0, 3, 1, 5];
        let attention =
            MultiHeadAttentionConfig::new(WIDTH, 2).with_dropout(0.0).init(&device);
        let padding: Vec<bool> =
            pads.iter().flat_map(|&pad| (0..LENGTH).map(move |key| key < pad)).collect();
        let padding = TensorData::new(padding, [BATCH, LENGTH]);
        let forward = |x: Tensor<3>| {
            let look_ahead = generate_autoregressive_mask(BATCH, LENGTH, &device);
            let padding = Tensor::<2, Bool>::from_data(padding.clone(), &device);
            let output = attention
                .forward(MhaInput::self_attn(x).mask_attn(look_ahead).mask_pad(padding));
            (output.context, output.weights)
        };
        let report = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| forward(x).0)
            .with_batch(BATCH)
            .with_promise(Mask::look_ahead() & Mask::pad_counts(pads))
            .with_weights(forward)
            .run()
            .unwrap();

        assert_eq!(report.diagnosis(), Some(&Diagnosis::DeadRows), "{report}");
        let leaks: Vec<_> = report.leaks().filter(|leak| leak.way == Way::OneKey).collect();
        // Query 0 of row 1 is padding, and its first hidden key is 1.
        assert_eq!((leaks[0].row, leaks[0].query, leaks[0].key), (1, 0, 1), "{report}");
        let weight = report.leaks().find(|leak| leak.way == Way::Weights).unwrap();
        assert_eq!(weight.path, Path::Weights);
        assert!((weight.size - 1.0 / LENGTH as f32).abs() < 1e-6, "uniform over all keys: {weight}");
        // Real tokens see no more than they should: their rows of the matrix have no leak.
        for influence in &report.paths[0].influence {
            let row = influence.row.unwrap();
            for query in pads[row]..LENGTH {
                for cell in query * LENGTH..(query + 1) * LENGTH {
                    assert!(influence.promised[cell] || !influence.moved[cell], "{report}");
                }
            }
        }
    }
}
