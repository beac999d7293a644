//! Every family against the original's numbers: logits plain, left-padded, with gaps in the
//! positions and with packed documents; greedy ids through the cache.

use burn::tensor::{DType, Device, Tensor};
use burn_decoder::decoder::{Batch, LanguageModel, Request};
use burn_decoder::generation::{Generation, GenerationConfig};
use burn_decoder::import::{LoadOptions, Precision, hugging_face, parity};
use burn_decoder::mask::Mask;

use super::{FOLDERS, fixture};
use crate::fixtures::{Fixtures, OUTPUT, assert_close, to_f64};

fn load(folder: &str, device: &Device) -> LanguageModel {
    hugging_face::load(fixture(folder), device, LoadOptions::new()).unwrap().model
}

fn reference(folder: &str) -> Fixtures {
    Fixtures::open(&format!("{folder}/reference.safetensors"))
}

/// The rows of an int tensor, without the places that `visible` says 0 of.
fn rows(reference: &Fixtures, ids: &str, visible: Option<&str>) -> Vec<Vec<u32>> {
    let data = reference.data(ids);
    let length = data.shape()[1];
    let ids: Vec<u32> = data.iter::<u32>().collect();
    let visible = match visible {
        Some(visible) => to_f64(reference.data(visible)),
        None => vec![1.0; ids.len()],
    };
    let pairs: Vec<_> = ids.into_iter().zip(visible).collect();
    let row =
        |row: &[(u32, f64)]| row.iter().filter(|(_, v)| *v == 1.0).map(|(id, _)| *id).collect();
    pairs.chunks(length).map(row).collect()
}

/// What the model goes on with from the prompts, against `expected`.
fn assert_greedy(
    model: &LanguageModel,
    prompts: &[Vec<u32>],
    input: Batch,
    expected: Vec<Vec<u32>>,
    what: &str,
) {
    let config = GenerationConfig::new(expected[0].len());
    let generated = Generation::with_input(model, prompts, input, &config).unwrap().finish();
    let got: Vec<_> = generated.unwrap().into_iter().map(|row| row.tokens).collect();
    assert_eq!(got, expected, "{what}");
}

/// The memory of BART's reference, and its padding.
fn memory(reference: &Fixtures, device: &Device) -> (Tensor<3>, Mask) {
    let visible = reference.ints::<2>("attention_mask", device);
    (reference.tensor("encoder_hidden_states", device), Mask::padding(&visible, 0))
}

on_each_backend! {
    fn logits_match(device: Device) {
        for (folder, tolerance) in FOLDERS {
            let model = load(folder, &device);
            let cases = parity::read(fixture(folder).join("reference.safetensors"), &device);
            let cases = cases.unwrap();
            let names: Vec<_> = cases.iter().map(|case| case.name()).collect();
            match folder {
                "bart_tiny" => assert_eq!(names, ["logits", "padded"]),
                _ => assert_eq!(names, ["gapped", "logits", "packed", "padded"]),
            }
            for case in &cases {
                let parity = case.check(&model, tolerance).unwrap();
                assert!(parity.agrees(), "{folder}: {parity}");
            }
        }
    }

    fn greedy_ids_are_the_same(device: Device) {
        for (folder, _) in FOLDERS {
            let (model, reference) = (load(folder, &device), reference(folder));
            let expected = rows(&reference, "greedy_ids", None);
            if folder == "bart_tiny" {
                // From the start token alone.
                let (states, mask) = memory(&reference, &device);
                let input = Batch::new().with_memory(states, mask);
                assert_greedy(&model, &vec![vec![2]; 2], input, expected, folder);
                continue;
            }
            let input = Batch::new;
            let prompts = rows(&reference, "input_ids", None);
            assert_greedy(&model, &prompts, input(), expected, folder);
            let prompts = rows(&reference, "padded.input_ids", Some("padded.attention_mask"));
            let expected = rows(&reference, "padded.greedy_ids", None);
            assert_greedy(&model, &prompts, input(), expected, &format!("{folder}, padded"));
        }
    }

    /// In half precision, weights and what is computed from them: as close to f32 as 8 or 11 bits of
    /// mantissa keep logits of up to 14.
    fn half_precision_computes(device: Device) {
        for (precision, dtype, tolerance) in
            [(Precision::Bf16, DType::BF16, 1.0), (Precision::F16, DType::F16, 0.1)]
        {
            if !device.supports_dtype(dtype) {
                continue;
            }
            for folder in ["gemma3_tiny", "llama_tiny", "gpt2_tiny"] {
                let options = LoadOptions::new().with_precision(precision);
                let model = hugging_face::load(fixture(folder), &device, options).unwrap().model;
                let reference = reference(folder);
                let tokens = reference.ints("input_ids", &device);
                let logits = model.forward(tokens, Batch::new()).unwrap().logits;
                assert_eq!(logits.dtype(), dtype);
                let pairs = to_f64(logits.into_data()).into_iter().zip(to_f64(reference.data("logits")));
                let largest = pairs.map(|(half, full)| (half - full).abs()).fold(0.0, f64::max);
                assert!((1e-4..tolerance).contains(&largest), "{folder}, {precision:?}: {largest}");
            }
        }
    }

    fn attention_weights_of_bart_match(device: Device) {
        let (model, reference) = (load("bart_tiny", &device), reference("bart_tiny"));
        let (states, mask) = memory(&reference, &device);
        let input = Batch::new().with_memory(states, mask).asking(Request::new().with_weights(true));
        let output = model.forward(reference.ints("decoder_input_ids", &device), input).unwrap();
        let weights = [("self_weights", output.self_weights), ("cross_weights", output.cross_weights)];
        for (name, weights) in weights {
            let weights: Tensor<5> = Tensor::stack(weights, 0);
            assert_close(name, weights.into_data(), reference.data(name), OUTPUT.on(&device));
        }
    }
}
