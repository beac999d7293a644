//! What is measured: attention, the layers around it and a training step of the copy example, by
//! this crate, by Burn and by burn-nn.
//!
//! A case is written `BY@BACKEND[:TYPE]/WHAT[/MASK]/PASS/LENGTH`, for example
//! `fused@flex/op/causal/training/2048` or `fused@vulkan:bf16/op/window/forward/4096`:
//!
//! - BY: `auto` is what this crate takes by itself, `fused` and `reference` are its kernels by name,
//!   `burn` is Burn's attention operation or burn-nn's module;
//! - BACKEND: `flex` or `ndarray`; `wgpu`, `vulkan`, `metal`, `webgpu` or `cuda` for the best GPU of that
//!   interface, `software` for Vulkan in software; each with its feature;
//! - TYPE: of `op`, the element type: `f32` (where none is given), `f16` or `bf16`;
//! - WHAT: `op` (8 heads x 64, batch 1), `small` (the same with the copy example's sizes: batch 64,
//!   4 heads x 16), `mha` (d_model 512, 8 heads), `layer` (the same with cross-attention to a memory
//!   of the same length and d_ff 2048), `copy` (the copy example's model with AdamW, 64 sequences) or
//!   `gpt2` (GPT-2 with 124M parameters and AdamW, 4 sequences; of this crate alone);
//! - MASK: `causal`, `full`, `padded` (causal, the last quarter is padding), `window` (causal, 256
//!   keys), `sinks` (the same, and the first 4 keys always) or `packed` (causal, eight documents); of
//!   `copy` and `gpt2` always causal;
//! - PASS: `forward`, or `training` (forward and backward).
//!
//! A GPU works while the host goes on: the clock stops once the device has done all its work.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

mod device;
mod training;

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::nn;
use burn::nn::attention::MhaInput;
use burn::nn::transformer::{TransformerDecoderConfig, TransformerDecoderInput};
use burn::prelude::*;
use burn::tensor::{DType, Distribution, ops::AttentionModuleOptions};
use burn_decoder::attention::{
    Kernel, MultiHeadAttentionConfig, Request, Score, scaled_dot_product_attention,
};
use burn_decoder::decoder::{DecoderLayerConfig, FeedForwardConfig, LayerContext, Memory};
use burn_decoder::generation::Threads;
use burn_decoder::mask::{Grid, LoweredMask, Mask};

pub use device::{adapter, device, is_gpu, wanted};
pub use training::{Choice, Phases};

const HEADS: usize = 8;
const HEAD_DIM: usize = 64;
const WIDTH: usize = HEADS * HEAD_DIM;
const SEQUENCES: usize = 64;

/// Time to spend on a case, once it ran three times.
const BUDGET: Duration = Duration::from_millis(1500);
/// How long a GPU runs a case before it counts.
const GPU_WARM_UP: Duration = Duration::from_millis(500);
/// The most runs of a case.
const MOST: usize = 40;

/// One run of what is measured.
pub type Step = Box<dyn FnMut()>;

/// A case, taken apart. See the module for its text form.
#[derive(Clone, Debug)]
pub struct Case {
    by: By,
    device: Device,
    dtype: DType,
    /// Runs before the first that counts, and for how long: a GPU's shaders are compiled, Burn's fusion
    /// looks for the best way through the steps for a few of them, and an idle card's clock is slow.
    warm_up: (usize, Duration),
    what: String,
    mask: String,
    training: bool,
    length: usize,
}

/// Whose code runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    Ours(Kernel),
    Burn,
}

impl Case {
    /// Reads the text form, or says which part of it is unknown.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unknown = |part: &str| format!("{text}: unknown {part}");
        let parts: Vec<&str> = text.split('/').collect();
        let (whose, what, mask, pass, length) = match parts[..] {
            [whose, what, mask, pass, length] => (whose, what, mask, pass, length),
            [whose, what, pass, length] => (whose, what, "causal", pass, length),
            _ => return Err(unknown("form")),
        };
        let (by, place) = whose.split_once('@').ok_or_else(|| unknown("form"))?;
        let (backend, dtype) = place.split_once(':').unwrap_or((place, "f32"));
        let device = device(backend).ok_or_else(|| unknown("backend (is its feature on?)"))?;
        let dtype = match dtype {
            "f32" => DType::F32,
            "f16" => DType::F16,
            "bf16" => DType::BF16,
            _ => return Err(unknown("element type")),
        };
        if dtype != DType::F32 && !(what == "op" && device.supports_dtype(dtype)) {
            return Err(unknown("element type here"));
        }
        Ok(Self {
            by: match by {
                "auto" => By::Ours(Kernel::Auto),
                "fused" => By::Ours(Kernel::Fused),
                "reference" => By::Ours(Kernel::Reference),
                "burn" => By::Burn,
                _ => return Err(unknown("author")),
            },
            device,
            dtype,
            warm_up: if is_gpu(backend) { (3, GPU_WARM_UP) } else { (1, Duration::ZERO) },
            what: what.into(),
            mask: mask.into(),
            training: match pass {
                "forward" => false,
                "training" => true,
                _ => return Err(unknown("pass")),
            },
            length: length.parse().map_err(|_| unknown("length"))?,
        })
    }

    /// Prepares everything outside of what is measured.
    pub fn prepare(&self) -> Step {
        match self.what.as_str() {
            "op" => self.op([1, HEADS, self.length, HEAD_DIM]),
            "small" => self.op([SEQUENCES, 4, self.length, 16]),
            "mha" => self.multi_head(),
            "layer" => self.layer(),
            "copy" | "gpt2" => {
                let mut step = self.training_step(Choice::default());
                Box::new(move || {
                    step();
                })
            }
            other => panic!("{other}: expected op, small, mha, layer, copy or gpt2"),
        }
    }

    /// The median time of a run in milliseconds, after one to warm up, or half a second's on a GPU.
    /// `pytorch.py` and `gpu.py` have the same rule.
    pub fn median(&self) -> f64 {
        let mut run = self.prepare();
        let mut step = || {
            run();
            self.device.sync().expect("the device has done its work");
        };
        let (runs, time) = self.warm_up;
        let mut start = Instant::now();
        (0..runs).for_each(|_| step());
        while start.elapsed() < time {
            step();
        }
        start = Instant::now();
        let mut times = Vec::new();
        while times.len() < 3 || (start.elapsed() < BUDGET && times.len() < MOST) {
            let begin = Instant::now();
            step();
            times.push(begin.elapsed());
        }
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e3
    }

    fn lowered(&self, batch: usize) -> LoweredMask {
        let length = self.length;
        let causal = Mask::look_ahead();
        let mask = match self.mask.as_str() {
            "full" => Mask::all_visible(),
            "causal" => causal,
            "padded" => causal & Mask::lengths(vec![length - length / 4; batch]),
            "window" => causal & Mask::window_keys(256).expect("a window"),
            "sinks" => causal & (Mask::window_keys(256).expect("a window") | Mask::sinks(4)),
            "packed" => causal & Mask::document_lengths([[length / 8; 8]]),
            other => panic!("{other}: expected full, causal, padded, window, sinks or packed"),
        };
        mask.lower(&Grid::square(batch, length)).expect("a mask that fits")
    }

    /// True = hidden, `[1, length, length]`.
    fn dense(&self) -> Option<Tensor<3, Bool>> {
        let hidden = self.lowered(1).hidden(&self.device)?;
        Some(hidden.expand([1, 1, self.length, self.length]).squeeze_dim(1))
    }

    fn device(&self) -> Device {
        if self.training { self.device.clone().autodiff() } else { self.device.clone() }
    }

    fn random<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let uniform = Distribution::Uniform(-1.0, 1.0);
        let random = Tensor::random(shape, uniform, (&self.device, self.dtype));
        if self.training { random.autodiff().require_grad() } else { random }
    }

    fn finish<const D: usize>(&self, output: Tensor<D>) {
        if self.training {
            black_box(output.sum().backward());
        } else {
            black_box(output);
        }
    }

    fn op(&self, shape: [usize; 4]) -> Step {
        let case = self.clone();
        let [q, k, v] = [0, 1, 2].map(|_| self.random(shape));
        let mask = self.lowered(shape[0]);
        match self.by {
            By::Ours(kernel) => {
                let request = Request::new().with_kernel(kernel);
                Box::new(move || {
                    let (q, k, v) = (q.clone(), k.clone(), v.clone());
                    case.finish(
                        scaled_dot_product_attention(q, k, v, &mask, &Score::new(), &request)
                            .output,
                    );
                })
            }
            By::Burn => {
                let is_causal = self.mask == "causal";
                let hidden = if is_causal { None } else { mask.hidden(&self.device) };
                let options = AttentionModuleOptions { is_causal, ..Default::default() };
                Box::new(move || {
                    let (q, k, v) = (q.clone(), k.clone(), v.clone());
                    case.finish(burn::tensor::module::attention(
                        q,
                        k,
                        v,
                        hidden.clone(),
                        None,
                        options,
                    ));
                })
            }
        }
    }

    fn multi_head(&self) -> Step {
        let case = self.clone();
        let x = self.random([1, self.length, WIDTH]);
        match self.by {
            By::Ours(kernel) => {
                let attention = MultiHeadAttentionConfig::new(WIDTH, HEADS)
                    .with_dropout(0.0)
                    .init(&self.device())
                    .expect("a configuration that fits");
                let request = Request::new().with_kernel(kernel);
                let mask = self.lowered(1);
                Box::new(move || {
                    let (q, k, v) = (x.clone(), x.clone(), x.clone());
                    case.finish(attention.forward(q, k, v, &mask, &request).output);
                })
            }
            By::Burn => {
                let attention = nn::attention::MultiHeadAttentionConfig::new(WIDTH, HEADS)
                    .with_dropout(0.0)
                    .init(&self.device());
                let hidden = self.dense();
                Box::new(move || {
                    let mut input = MhaInput::self_attn(x.clone());
                    if let Some(hidden) = &hidden {
                        input = input.mask_attn(hidden.clone());
                    }
                    case.finish(attention.forward(input).context);
                })
            }
        }
    }

    fn layer(&self) -> Step {
        let case = self.clone();
        let [x, memory] = [0, 1].map(|_| self.random([1, self.length, WIDTH]));
        match self.by {
            By::Ours(kernel) => {
                let attention = MultiHeadAttentionConfig::new(WIDTH, HEADS).with_dropout(0.0);
                let layer = DecoderLayerConfig::new(
                    attention.clone(),
                    FeedForwardConfig::new(WIDTH, 4 * WIDTH),
                )
                .with_cross_attention(Some(attention))
                .init(&self.device())
                .expect("a configuration that fits");
                let mask = self.lowered(1);
                let all = LoweredMask::all_visible(Grid::square(1, self.length));
                let request = Request::new().with_kernel(kernel);
                Box::new(move || {
                    let memory = Some(Memory { states: &memory, mask: &all });
                    let context = LayerContext { memory, ..LayerContext::new(&mask) };
                    case.finish(layer.forward(x.clone(), &context, &request).output);
                })
            }
            By::Burn => {
                let layer = TransformerDecoderConfig::new(WIDTH, 4 * WIDTH, HEADS, 1)
                    .with_dropout(0.0)
                    .with_norm_first(true)
                    .init(&self.device());
                let hidden = self.dense();
                Box::new(move || {
                    let mut input = TransformerDecoderInput::new(x.clone(), memory.clone());
                    if let Some(hidden) = &hidden {
                        input = input.target_mask_attn(hidden.clone());
                    }
                    case.finish(layer.forward(input));
                })
            }
        }
    }
}

/// Runs `work` with rayon's threads as they are (`global`), on one of them (`pool`), or so with another
/// that stays awake (`spinning`).
///
/// # Panics
///
/// For another word.
pub fn on_threads<R: Send>(threads: &str, work: impl FnOnce() -> R + Send) -> R {
    match threads {
        "global" => work(),
        "pool" => rayon::scope(|_| work()),
        "spinning" => Threads::Spinning(1).run(work),
        other => panic!("--threads {other}: expected global, pool or spinning"),
    }
}
