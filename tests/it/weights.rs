//! A model whose weights lie in blocks is the model with the blocks' numbers.

use std::collections::BTreeMap;

use burn::module::{Lora, Module, ParamGroup};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_decoder::attention::MultiHeadAttentionConfig;
use burn_decoder::decoder::{
    Activation, DecoderConfig, DecoderLayerConfig, FeedForwardConfig, LanguageModel,
    LanguageModelConfig, NormConfig,
};
use burn_decoder::generation::{Generation, GenerationConfig};
use burn_decoder::sequence::Batch;
use burn_decoder::weights::{Blocks, Format, blocks, with_blocks};

use crate::backends::cpus;

const VOCAB: usize = 29;

/// Every matrix in it has rows of 256 or 512 numbers: one or two of the largest blocks.
fn model(device: &Device, tied: bool) -> LanguageModel {
    let attention = MultiHeadAttentionConfig::new(256, 4).with_kv_heads(Some(2));
    let feed_forward = FeedForwardConfig::new(256, 512).with_activation(Activation::SwiGlu);
    let layer = DecoderLayerConfig::new(attention, feed_forward).with_norm(NormConfig::rms_norm());
    LanguageModelConfig::new(VOCAB, DecoderConfig::new(layer, 2))
        .with_tied_head(tied)
        .init(device)
        .unwrap()
}

/// Random blocks, with scales that give numbers of an ordinary size.
fn random(format: Format, rows: usize, columns: usize, seed: &mut u32) -> Vec<u8> {
    let mut random = || {
        *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *seed >> 16
    };
    if !format.is_quantized() {
        let mut number = || (random() as f32 / 65536.0 - 0.5) / 8.0;
        let numbers = (0..rows * columns).map(|_| number());
        return match format {
            Format::F16 => {
                numbers.flat_map(|x| burn::tensor::f16::from_f32(x).to_le_bytes()).collect()
            }
            Format::Bf16 => {
                numbers.flat_map(|x| burn::tensor::bf16::from_f32(x).to_le_bytes()).collect()
            }
            _ => numbers.flat_map(f32::to_le_bytes).collect(),
        };
    }
    // Where the f16 scales stand, and what a number is made of besides.
    let (scales, size): (&[usize], f32) = match format {
        Format::Q4_1 | Format::Q5_1 => (&[0, 2], 16.0),
        Format::Q4K | Format::Q5K => (&[0, 2], 512.0),
        Format::Q6K => (&[208], 2048.0),
        Format::Q8_0 => (&[0], 64.0),
        _ => (&[0], 8.0),
    };
    let length = rows * format.row_bytes(columns).unwrap();
    let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes()) {
        for &at in scales {
            let scale = (random() as f32 / 65536.0 - 0.5) / 8.0 / size;
            block[at..at + 2].copy_from_slice(&burn::tensor::f16::from_f32(scale).to_le_bytes());
        }
    }
    bytes
}

/// The model in blocks, and with their numbers.
fn pair(format: Format, device: &Device, tied: bool) -> [LanguageModel; 2] {
    let mut seed = 7;
    let dense = model(device, tied);
    let mut numbers = BTreeMap::new();
    let stored = with_blocks(dense.clone(), |path, [a, b]| {
        let is_table = path == "embedding.weight";
        let [rows, columns] = if is_table { [a, b] } else { [b, a] };
        let bytes = random(format, rows, columns, &mut seed);
        let data = TensorData::new(format.dequantize(&bytes).unwrap(), [rows, columns]);
        let number = Tensor::<2>::from_data(data, device);
        numbers.insert(path.to_string(), if is_table { number } else { number.transpose() });
        Some(match is_table {
            true => Blocks::embedding(format, [rows, columns], bytes, device).unwrap(),
            false => Blocks::projection(format, [rows, columns], bytes, device).unwrap(),
        })
    });
    struct Fill(Vec<String>, BTreeMap<String, Tensor<2>>);
    impl burn::module::ModuleMapper for Fill {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn map_float<const D: usize>(
            &mut self,
            param: burn::module::Param<Tensor<D>>,
        ) -> burn::module::Param<Tensor<D>> {
            match self.1.get(&self.0.join(".")) {
                Some(numbers) => param.map(|old| {
                    numbers.clone().reshape(old.shape()) // as it was
                }),
                None => param,
            }
        }
    }
    let dense = dense.map(&mut Fill(Vec::new(), numbers));
    [stored, dense]
}

fn tokens(rows: usize, length: usize, device: &Device) -> Tensor<2, Int> {
    let tokens: Vec<i64> = (0..rows * length).map(|i| (i * 7 % VOCAB) as i64).collect();
    Tensor::from_data(TensorData::new(tokens, [rows, length]), device)
}

fn logits(model: &LanguageModel, rows: usize, length: usize, device: &Device) -> Vec<f32> {
    let batch = Batch::new();
    let output = model.forward(tokens(rows, length, device), batch).unwrap();
    output.logits.into_data().iter::<f32>().collect()
}

fn assert_close(got: &[f32], expected: &[f32], what: &str) {
    let largest = expected.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    assert!(largest > 1e-3 && largest < 1e3, "{what}: logits up to {largest} tell nothing");
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    // Sums in another order, over two layers.
    assert!(worst <= 2e-5 * largest.max(1.0), "{what}: {worst} of {largest}");
}

#[test]
fn a_model_in_blocks_is_the_model_with_their_numbers() {
    for device in cpus() {
        for (i, format) in Format::ALL.into_iter().enumerate() {
            let [stored, dense] = pair(format, &device, i % 2 == 0);
            // One row, several that share an expansion, and panels.
            for [rows, length] in [[1, 1], [1, 5], [3, 11]] {
                let got = logits(&stored, rows, length, &device);
                let expected = logits(&dense, rows, length, &device);
                assert_close(&got, &expected, &format!("{format}, {rows} x {length}"));
            }
            let greedy = |model: &LanguageModel| -> Vec<u32> {
                let config = GenerationConfig::new(7);
                let steps = Generation::new(model, &[vec![3, 1, 4]], &config).unwrap();
                steps.map(|step| step.unwrap().token).collect()
            };
            assert_eq!(greedy(&stored), greedy(&dense), "{format}");
        }
    }
}

#[test]
fn whoever_asks_gets_the_numbers() {
    for device in cpus() {
        let [stored, dense] = pair(Format::Q5_1, &device, false);
        let values = |x: Tensor<2>| x.into_data().iter::<f32>().collect::<Vec<_>>();
        let weight = |model: &LanguageModel| model.decoder.layers[1].feed_forward.down.weight.val();
        assert_eq!(weight(&stored).dims(), [512, 256]);
        assert_eq!(values(weight(&stored)), values(weight(&dense)));
        assert_eq!(values(stored.embedding.weight.val()), values(dense.embedding.weight.val()));
        let there = blocks(&stored.head.as_ref().unwrap().weight).unwrap();
        assert_eq!((there.format(), there.shape()), (Format::Q5_1, [VOCAB, 256]));
        assert!(format!("{there}").contains("Q5_1"));
    }
}

#[test]
fn a_record_holds_the_bytes() {
    for device in cpus() {
        let [stored, _] = pair(Format::Q4K, &device, true);
        let expected = logits(&stored, 2, 3, &device);
        let file = tempfile::tempdir().unwrap();
        let path = file.path().join("model.bpk");
        stored.clone().save_file(&path).unwrap();
        let size = std::fs::metadata(&path).unwrap().len() as usize;
        // 144 bytes for 256 numbers, names, norms.
        assert!(size < model(&device, true).num_params() * 144 / 256 + (64 << 10), "{size}");
        let zeros = |format: Format| {
            with_blocks(model(&device, true), |path, [a, b]| {
                let is_table = path == "embedding.weight";
                let [rows, columns] = if is_table { [a, b] } else { [b, a] };
                let bytes = vec![0; rows * format.row_bytes(columns).unwrap()];
                let shape = [rows, columns];
                Some(match is_table {
                    true => Blocks::embedding(format, shape, bytes, &device).unwrap(),
                    false => Blocks::projection(format, shape, bytes, &device).unwrap(),
                })
            })
        };
        // Also into a model that has computed with what it had.
        let used = zeros(Format::Q4K);
        assert_ne!(logits(&used, 2, 3, &device), expected);
        let loaded = used.load_file(&path);
        assert_eq!(logits(&loaded, 2, 3, &device), expected);
        let error = zeros(Format::Q8_0).try_load_file(&path).unwrap_err().to_string();
        assert!(error.contains("Q8_0"), "{error}");
    }
}

#[test]
fn devices_are_moved_to() {
    let devices = cpus();
    let [stored, _] = pair(Format::Q8_0, &devices[0], true);
    let expected = logits(&stored, 1, 4, &devices[0]);
    for device in &devices {
        let moved = stored.clone().to_device(device);
        assert_eq!(moved.devices(), std::slice::from_ref(device));
        let bytes = blocks(&moved.embedding.weight).unwrap().bytes();
        assert_eq!((bytes.device(), bytes.dtype()), (device.clone(), DType::U8));
        let got = logits(&moved, 1, 4, device);
        assert_close(&got, &expected, "another device");
    }
}

/// The sum of squares of the logits, which training makes smaller.
fn loss(model: &LanguageModel, device: &Device) -> Tensor<1> {
    let output = model.forward(tokens(2, 5, device), Batch::new()).unwrap();
    (output.logits.clone() * output.logits).mean()
}

#[test]
fn adapters_are_trained_beside_blocks_that_stay() {
    for device in cpus() {
        let device = device.autodiff();
        let [stored, dense] = pair(Format::Q4_1, &device, true);
        let bytes = |model: &LanguageModel| -> Vec<Vec<u8>> {
            let layer = &model.decoder.layers[0];
            let weights = [
                &layer.self_attention.query.weight,
                &layer.self_attention.output.weight,
                &layer.feed_forward.gate.as_ref().unwrap().weight,
                &model.embedding.weight,
            ];
            let bytes = weights.map(|weight| blocks(weight).unwrap().bytes());
            bytes.map(|bytes| bytes.into_data().as_bytes().to_vec()).into()
        };
        let before = bytes(&stored);
        let value = |loss: Tensor<1>| loss.into_scalar::<f32>();
        let lora = || Lora::new(3, 6.0).set_param_group(ParamGroup::all());
        let mut adapted = stored.clone().apply_lora(lora());
        let first = value(loss(&adapted, &device));
        // The factor that begins at 0 leaves the model as it was.
        let frozen = value(loss(&stored.clone().no_grad(), &device));
        assert!((first - frozen).abs() <= 1e-6 * frozen, "{first}, {frozen}");
        let mut optimizer = AdamConfig::new().init();
        for _ in 0..10 {
            let gradients = loss(&adapted, &device).backward();
            let gradients = GradientsParams::from_grads(gradients, &adapted);
            // Small, since the factor that does not begin at 0 is five times as large as a weight.
            adapted = optimizer.step(5e-4, adapted, gradients);
        }
        let last = value(loss(&adapted, &device));
        assert!(last < 0.9 * first, "{last} after {first}");
        assert_eq!(bytes(&adapted), before);

        // A pass through the adapters is one through their sum with the numbers.
        let merged = adapted.valid().materialize();
        assert!(blocks(&merged.embedding.weight).is_none());
        let plain = device.clone().without_autodiff();
        let got = logits(&adapted.valid(), 2, 5, &plain);
        assert_close(&got, &logits(&merged, 2, 5, &plain), "merged");

        // The model with the numbers begins at the same loss.
        let same = value(loss(&dense.apply_lora(lora()), &device));
        assert!((same - first).abs() <= 1e-4 * first, "{same}, {first}");
    }
}

#[test]
fn training_blocks_is_refused_by_their_format() {
    for device in cpus() {
        let device = device.autodiff();
        let [stored, _] = pair(Format::Q6K, &device, false);
        let run = || loss(&stored, &device);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("Q6_K") && text.contains("apply_lora"), "{text}");
        // Frozen, or on a device that does not train, it runs.
        let _ = loss(&stored.clone().freeze(), &device);
        let _ = loss(&stored.valid(), &device.without_autodiff());
    }
}

#[test]
fn what_does_not_fit_is_an_error_with_both_sides() {
    let device = &cpus()[0];
    let error = |columns, bytes: usize| {
        let blocks = Blocks::projection(Format::Q4K, [3, columns], vec![0; bytes], device);
        blocks.unwrap_err().to_string()
    };
    let text = error(128, 3 * 72);
    assert!(text.contains("256") && text.contains("Q4_K") && text.contains("128"), "{text}");
    let text = error(512, 3 * 288 - 1);
    assert!(text.contains("3 rows of 288 bytes") && text.contains("863 bytes"), "{text}");
}
