//! What a training starts from: a new model by the settings, or one from a folder.

use std::fs;
use std::panic;
use std::path::Path;

use burn::module::{Lora, Module, ModuleMapper, Param, ParamGroup};
use burn::tensor::{Device, Tensor, TensorData};
use burn_decoder::decoder::LanguageModel;
use burn_decoder::import::hugging_face::Checkpoint;
use burn_decoder::import::{LoadOptions, Precision};
use burn_decoder::mask::Mask;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use super::args::{Family, MaskChoice, Settings};
use super::failure::Failure;
use super::text::{Texts, separator};
use super::tokenizer;

/// Files beside the weights that belong to a model's folder, if they are there.
const COMPANIONS: [&str; 9] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "added_tokens.json",
];

/// Writes what says how the model is built and how text becomes its tokens, as transformers names it:
/// `config.json`, `tokenizer.json` and their companions.
pub fn describe(folder: &Path, settings: &Settings, texts: &Texts) -> Result<(), Failure> {
    let put = |name: &str, value: &Value| {
        let path = folder.join(name);
        let text = serde_json::to_string_pretty(value).expect("JSON can be written");
        fs::write(&path, text).map_err(|error| Failure::write(&path, error))
    };
    if let Some(from) = &settings.from {
        Checkpoint::open(from)?; // Before anything is copied.
        let path = from.join("config.json");
        let config = fs::read(&path).map_err(|error| Failure::file("--from", &path, error))?;
        let to = folder.join("config.json");
        fs::write(&to, config).map_err(|error| Failure::write(&to, error))?;
        return copy_companions(from, folder);
    }
    let tokenizer = tokenizer::make(settings, texts)?;
    let separator = separator(&tokenizer)?;
    let path = folder.join("tokenizer.json");
    tokenizer.save(&path, true).map_err(|error| Failure::write(&path, error))?;
    put("tokenizer_config.json", &tokenizer::config(settings.context))?;
    put(
        "generation_config.json",
        &json!({
            "bos_token_id": separator, "eos_token_id": separator, "do_sample": true,
            "temperature": 0.8,
        }),
    )?;
    put("config.json", &config(settings, tokenizer.get_vocab_size(true), separator))
}

/// Copies the tokenizer and what belongs to it, where it is there.
pub fn copy_companions(from: &Path, to: &Path) -> Result<(), Failure> {
    for name in COMPANIONS {
        let source = from.join(name);
        if source.is_file() {
            let target = to.join(name);
            let bytes = fs::read(&source).map_err(|error| Failure::file("", &source, error))?;
            fs::write(&target, bytes).map_err(|error| Failure::write(&target, error))?;
        }
    }
    Ok(())
}

/// `config.json` of a new model.
fn config(settings: &Settings, vocabulary: usize, separator: u32) -> Value {
    let Settings { layers, heads, d_model, context, dropout, .. } = *settings;
    let d_ff = settings.d_ff.unwrap_or(4 * d_model);
    match settings.family {
        Family::Gpt2 => json!({
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": vocabulary,
            "n_positions": context,
            "n_embd": d_model,
            "n_layer": layers,
            "n_head": heads,
            "n_inner": d_ff,
            "activation_function": "gelu",
            "layer_norm_epsilon": 1e-5,
            "embd_pdrop": dropout,
            "attn_pdrop": dropout,
            "resid_pdrop": dropout,
            "tie_word_embeddings": true,
            "bos_token_id": separator,
            "eos_token_id": separator,
            "torch_dtype": "float32",
        }),
        Family::Llama => json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": vocabulary,
            "max_position_embeddings": context,
            "hidden_size": d_model,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "intermediate_size": d_ff,
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "rope_theta": 10_000.0,
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": true,
            "bos_token_id": separator,
            "eos_token_id": separator,
            "torch_dtype": "float32",
        }),
    }
}

/// The model before its first step, and the folder's way to write it.
pub struct Start {
    pub model: LanguageModel,
    pub checkpoint: Checkpoint,
    pub tokenizer: Tokenizer,
}

impl Start {
    /// Builds or loads the model that `folder` describes.
    pub fn new(folder: &Path, settings: &Settings, device: &Device) -> Result<Self, Failure> {
        let path = folder.join("tokenizer.json");
        // The crate takes some damaged files to be whole, and panics at what it finds in them.
        let tokenizer = panic::catch_unwind(|| Tokenizer::from_file(&path))
            .unwrap_or_else(|_| Err("the tokenizers crate panics at it, as told above".into()))
            .map_err(|error| Failure::file("the tokenizer", &path, error))?;
        device.seed(settings.seed);
        if let Some(from) = &settings.from {
            let options = LoadOptions::new().with_precision(Precision::F32);
            let loaded = Checkpoint::open(from)?.load(device, options)?;
            let (model, checkpoint) = (loaded.model, loaded.checkpoint);
            return Ok(Self { model, checkpoint, tokenizer });
        }
        let checkpoint = Checkpoint::open(folder)?;
        let mut config = checkpoint.config().clone();
        if settings.mask == MaskChoice::None {
            config = config.with_mask(Mask::all_visible());
        }
        let mut start = GptStart {
            path: Vec::new(),
            rng: StdRng::seed_from_u64(settings.seed),
            layers: settings.layers,
        };
        let model = config.init(device)?.map(&mut start);
        Ok(Self { model, checkpoint, tokenizer })
    }

    /// The model as it is trained: ready for gradients, with adapters if asked for.
    pub fn trainee(&self, settings: &Settings) -> LanguageModel {
        let mut model = self.model.clone().train();
        if settings.recompute {
            model = model.map(&mut Recomputing);
        }
        match settings.lora {
            None => model,
            Some(rank) => {
                let alpha = settings.lora_alpha.unwrap_or(2.0 * rank as f64);
                model.apply_lora(Lora::new(rank, alpha).set_param_group(adapted()))
            }
        }
    }
}

/// Gives parameters the strategy that burn-train gives the device of the training, or the two do not
/// fit each other (Burn 0.22.1).
struct Recomputing;

impl ModuleMapper for Recomputing {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let device = tensor.device().autodiff().gradient_checkpointing();
            match device.gradient_checkpointing_strategy() {
                Some(strategy) => tensor.with_gradient_checkpointing_strategy(strategy),
                None => tensor,
            }
        })
    }
}

/// The parameters that get an adapter: the projections of attention and feed-forward part.
fn adapted() -> ParamGroup {
    let projections =
        r"(attention\.(query|key|value|output)|feed_forward\.(up|gate|down))\.weight$";
    ParamGroup::from_regex(projections).expect("the pattern is a regular expression")
}

/// GPT-2's start: matrices and embeddings normal with deviation 0.02, projections that end a residual
/// branch with 0.02 / √(2 layers), biases 0 (Radford et al. 2019, section 2.3). The numbers are the
/// same on every backend.
struct GptStart {
    path: Vec<String>,
    rng: StdRng,
    layers: usize,
}

impl GptStart {
    /// The deviation of a parameter; none if it stays as it is.
    fn deviation(&self) -> Option<f64> {
        let path = self.path.join(".");
        if path.ends_with(".bias") {
            return Some(0.0);
        }
        let ends_branch = ["attention.output.weight", "feed_forward.down.weight"];
        if ends_branch.iter().any(|name| path.ends_with(name)) {
            return Some(0.02 / (2.0 * self.layers as f64).sqrt());
        }
        (path.ends_with("weight") || path.starts_with("positions")).then_some(0.02)
    }
}

impl ModuleMapper for GptStart {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(deviation) = self.deviation() else { return param };
        param.map(|tensor| {
            let shape = tensor.dims();
            let values: Vec<f32> = (0..shape.iter().product())
                .map(|_| (deviation * normal(&mut self.rng)) as f32)
                .collect();
            Tensor::from_data(TensorData::new(values, shape), &tensor.device())
        })
    }
}

/// A number from the standard normal distribution (Box and Muller 1958).
fn normal(rng: &mut StdRng) -> f64 {
    let (radius, angle) = (1.0 - rng.random::<f64>(), rng.random::<f64>());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
