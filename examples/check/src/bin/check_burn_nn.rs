//! Checks a model that is none of this crate's: burn-nn's Transformer decoder.
//!
//! ```text
//! cargo run --release -p check --bin check_burn_nn
//! ```
//!
//! First as it should be used, then with its mask forgotten, then with left padding, where burn-nn
//! 0.22.1 lets padded queries see every key.

use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::transformer::{TransformerDecoderConfig, TransformerDecoderInput};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use burn_decoder::causality::CausalityCheck;
use burn_decoder::mask::Mask;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

const WIDTH: usize = 16;
const LENGTH: usize = 12;
const BATCH: usize = 3;
/// Padding in front of each row.
const PADS: [usize; BATCH] = [0, 2, 5];

fn main() -> burn_decoder::Result<()> {
    // Burn's default device; BURN_DEVICE chooses another.
    let device = Device::default();
    let model = TransformerDecoderConfig::new(WIDTH, 32, 2, 2).with_dropout(0.0).init(&device);
    let memory = Tensor::zeros([BATCH, 4, WIDTH], &device);
    let input = |x| TransformerDecoderInput::new(x, memory.clone());
    let look_ahead = || generate_autoregressive_mask(BATCH, LENGTH, &device);

    println!("--- with its look-ahead mask ---");
    let report = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| {
        model.forward(input(x).target_mask_attn(look_ahead()))
    })
    .with_batch(BATCH)
    .run()?;
    report.assert_causal();
    println!("{report}");

    println!("--- with the mask forgotten ---");
    let report = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| model.forward(input(x)))
        .with_batch(BATCH)
        .run()?;
    assert!(!report.is_causal());
    println!("{report}");

    println!("--- with left padding ---");
    let padding: Vec<bool> =
        PADS.iter().flat_map(|&pads| (0..LENGTH).map(move |key| key < pads)).collect();
    let padding = TensorData::new(padding, [BATCH, LENGTH]);
    let report = CausalityCheck::embeddings(WIDTH, LENGTH, &device, |x| {
        let padding = Tensor::<2, Bool>::from_data(padding.clone(), &device);
        model.forward(input(x).target_mask_attn(look_ahead()).target_mask_pad(padding))
    })
    .with_batch(BATCH)
    .with_promise(Mask::look_ahead() & Mask::pad_counts(PADS))
    .run()?;
    assert!(!report.is_causal());
    println!("{report}");
    Ok(())
}
