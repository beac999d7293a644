//! What a load holds at most: the model and one tensor of the file.

use std::process::Command;

use burn::tensor::{Device, Tensor};
use burn_decoder::import::{LoadOptions, Precision, hugging_face};
use burn_decoder::sequence::Batch;
use safetensors::tensor::Dtype;
use serde_json::json;

use super::round_trip::write;
use crate::backends::cpus;

/// Set in the process that loads, to the folder that it loads.
const FOLDER: &str = "BURN_DECODER_TEST_LOADS";
/// Which CPU device it loads to.
const DEVICE: &str = "BURN_DECODER_TEST_LOADS_TO";

/// What the process has besides: stacks, the header, memory that was freed and not yet given back.
const SLACK: usize = 20 << 20;

const VOCAB: usize = 4099;
const D_MODEL: usize = 512;
const D_FF: usize = 2048;
const LAYERS: usize = 8;

/// The names and shapes of a Llama.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_string(), vec![VOCAB, D_MODEL]),
        ("model.norm.weight".into(), vec![D_MODEL]),
    ];
    for layer in 0..LAYERS {
        let mut add = |name: &str, shape: Vec<usize>| {
            shapes.push((format!("model.layers.{layer}.{name}.weight"), shape));
        };
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{name}"), vec![D_MODEL, D_MODEL]);
        }
        add("mlp.gate_proj", vec![D_FF, D_MODEL]);
        add("mlp.up_proj", vec![D_FF, D_MODEL]);
        add("mlp.down_proj", vec![D_MODEL, D_FF]);
        add("input_layernorm", vec![D_MODEL]);
        add("post_attention_layernorm", vec![D_MODEL]);
    }
    shapes
}

/// An entry of this process's status, in bytes: `VmRSS` is what it holds, `VmHWM` the most it held.
fn status(entry: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(entry)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// The child's part: loads `folder` and compares.
fn load(folder: &str, device: &Device) {
    let before = status("VmRSS");
    std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be set back");
    let loaded = hugging_face::load(folder, device, LoadOptions::new()).unwrap();
    let grown = status("VmHWM") - before;
    let values: usize = shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    let (model, largest) = (4 * values, 4 * VOCAB * D_MODEL);
    println!("{model} bytes, the largest tensor {largest}; grown by {grown}");
    assert!(grown > model - SLACK, "the model is there");
    assert!(grown < model + largest + SLACK, "more than the model and a tensor");
    drop(loaded);

    // As it is stored: the file itself, and what else there is.
    for in_memory in [false, true] {
        let before = status("VmRSS");
        std::fs::write("/proc/self/clear_refs", "5").expect("the peak can be set back");
        let options = LoadOptions::new().with_precision(Precision::AsStored);
        let options = options.with_weights_in_memory(in_memory);
        let loaded = hugging_face::load(folder, device, options).unwrap();
        let tokens = Tensor::from_data([[1, 2, 3]], device);
        let _ = loaded.model.forward(tokens, Batch::new()).unwrap();
        let grown = status("VmHWM").saturating_sub(before);
        let (file, largest) = (2 * values, 2 * VOCAB * D_MODEL);
        println!("a file of {file} bytes, the largest tensor {largest}; grown by {grown}");
        assert!(grown < file + largest + SLACK, "more than the file and a tensor");
    }
}

/// Half precision in the file, f32 in the model; each load in a process of its own.
#[test]
fn a_load_holds_the_model_and_one_tensor() {
    if let (Ok(folder), Ok(device)) = (std::env::var(FOLDER), std::env::var(DEVICE)) {
        return load(&folder, &cpus()[device.parse::<usize>().unwrap()]);
    }
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "llama", "vocab_size": VOCAB, "hidden_size": D_MODEL,
        "intermediate_size": D_FF, "num_hidden_layers": LAYERS, "num_attention_heads": 8,
        "tie_word_embeddings": true,
    });
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let tensor = |shape: Vec<usize>| {
        let bytes = vec![0x3c; 2 * shape.iter().product::<usize>()];
        (Dtype::BF16, shape, bytes)
    };
    let tensors = shapes().into_iter().map(|(name, shape)| (name, tensor(shape))).collect();
    write(&folder.path().join("model.safetensors"), &tensors);
    for device in 0..cpus().len() {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "import::memory::a_load_holds_the_model_and_one_tensor"])
            .arg("--nocapture")
            .env(FOLDER, folder.path())
            .env(DEVICE, device.to_string())
            .output()
            .unwrap();
        let output =
            String::from_utf8_lossy(&child.stdout) + String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && output.contains("1 passed"), "{output}");
        println!("{output}");
    }
}
