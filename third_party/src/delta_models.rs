//! burn-gdn2 0.7.5 and burn-kda 0.5.0: recurrences by the delta rule, with a chunked form for training
//! and a step for generation.

use burn::backend::Flex;
use burn::nn::LayerNormConfig;
use burn::tensor::Device;
use burn_decoder::causality::{CausalityCheck, Report};
use burn_gdn2::{GatedDeltaNet2, Gdn2Config, Gdn2Mode};
use burn_kda::{KdaConfig, KdaModule};

use crate::{Finding, RIGHT};

const WIDTH: usize = 16;
const HEADS: usize = 2;
const HEAD: usize = 8;
/// Three chunks, the last one in part.
const LENGTH: usize = 11;
const CHUNK: usize = 4;

pub const FINDINGS: &[Finding] = &[
    Finding {
        name: "burn-gdn2 GatedDeltaNet2, token by token, and its steps",
        says: RIGHT,
        check: |device| gdn2(device, Gdn2Mode::FusedRecurrent),
    },
    Finding {
        name: "burn-gdn2 GatedDeltaNet2, in chunks, behind a norm",
        says: RIGHT,
        check: gdn2_behind_a_norm,
    },
    Finding {
        // With a position of size 1e4, the outputs before it in its chunk are NaN.
        name: "burn-gdn2 GatedDeltaNet2, in chunks, with inputs of any size",
        says: "not finite (first in row 0 at query 0)",
        check: |device| gdn2(device, Gdn2Mode::Chunk),
    },
    Finding {
        name: "burn-kda KdaModule, in chunks, and its steps, without short convolution",
        says: RIGHT,
        check: |device| kda(device, false),
    },
    Finding {
        // Its convolution starts anew with each call of `forward`.
        name: "burn-kda KdaModule, in chunks, and its steps, by default",
        says: "causal; the step by step path differs from query 1 on",
        check: |device| kda(device, true),
    },
];

fn config(mode: Gdn2Mode) -> Gdn2Config {
    Gdn2Config {
        hidden_size: WIDTH,
        num_heads: HEADS,
        head_dim: HEAD,
        mode,
        chunk_size: CHUNK,
        ..Default::default()
    }
}

fn gdn2(device: &Device, mode: Gdn2Mode) -> Report {
    let layer = GatedDeltaNet2::new(&config(mode), device);
    CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| layer.forward_train::<Flex>(x))
        .with_steps(|| None, |state, x| layer.forward::<Flex>(x, state, true))
        .with_prefixes()
        .run()
        .expect("the model can be checked")
}

/// As a Transformer has it: no input is far larger than the others.
fn gdn2_behind_a_norm(device: &Device) -> Report {
    let layer = GatedDeltaNet2::new(&config(Gdn2Mode::Chunk), device);
    let norm = LayerNormConfig::new(WIDTH).init(device);
    CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| {
        layer.forward_train::<Flex>(norm.forward(x))
    })
    .with_steps(|| None, |state, x| layer.forward::<Flex>(norm.forward(x), state, true))
    .with_prefixes()
    .run()
    .expect("the model can be checked")
}

fn kda(device: &Device, use_short_conv: bool) -> Report {
    let config = KdaConfig {
        hidden_size: WIDTH,
        num_heads: HEADS,
        head_dim: HEAD,
        chunk_size: CHUNK,
        use_short_conv,
        ..Default::default()
    };
    let layer = KdaModule::new(&config, 0.0, device);
    CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| layer.forward_train::<Flex>(x))
        .with_steps(|| None, |state, x| layer.forward(x, state, true))
        .with_prefixes()
        .run()
        .expect("the model can be checked")
}
