//! Feed-forward parts whose weights lie in each format, beside the same in f32: for the rows of a
//! decoding step and of a prompt.
//!
//! `cargo bench -p benches --features flex --bench products`
//!
//! For each width and number of rows it prints the median time of a part in f32, and for each format
//! how much faster it is and how many bytes of weights a second that is. There are as many parts as do
//! not stay in a cache.

use std::time::Instant;

use burn::tensor::{Device, Tensor};
use burn_decoder::decoder::{Activation, FeedForward, FeedForwardConfig};
use burn_decoder::weights::{Blocks, Format, with_blocks};

#[global_allocator]
#[cfg(not(feature = "system_allocator"))]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of f32 in all parts of a width.
const BYTES: usize = 400 << 20;
/// Passes through all parts, of which the median counts.
const PASSES: usize = 5;

/// Bytes that are ordinary numbers and ordinary scales in every format.
fn bytes(length: usize) -> Vec<u8> {
    let mut seed = 1u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 25) as u8 & 0x07 | 0x28
    };
    (0..length).map(|_| next()).collect()
}

fn in_format(part: FeedForward, format: Format, device: &Device) -> FeedForward {
    with_blocks(part, |_, [inputs, outputs]| {
        let bytes = bytes(format.row_bytes(inputs)? * outputs);
        Blocks::projection(format, [outputs, inputs], bytes, device).ok()
    })
}

/// The median time of one part, in seconds.
fn time(parts: &[FeedForward], x: &Tensor<3>) -> f64 {
    let pass = || {
        let start = Instant::now();
        for part in parts {
            let _ = part.forward(x.clone()).into_data();
        }
        start.elapsed().as_secs_f64() / parts.len() as f64
    };
    let mut times: Vec<f64> = (0..=PASSES).map(|_| pass()).skip(1).collect();
    times.sort_by(f64::total_cmp);
    times[PASSES / 2]
}

fn main() {
    #[cfg(feature = "flex")]
    let device = Device::flex();
    #[cfg(all(feature = "ndarray", not(feature = "flex")))]
    #[allow(deprecated)]
    let device = Device::ndarray();
    for [d_model, d_ff] in [[576, 1536], [2048, 8192]] {
        let config = FeedForwardConfig::new(d_model, d_ff)
            .with_activation(Activation::Relu)
            .with_biases(false);
        let numbers = 2 * d_model * d_ff;
        let part = || config.init(&device).expect("a feed-forward part");
        let parts: Vec<_> = (0..BYTES / (4 * numbers)).map(|_| part()).collect();
        for rows in [1, 4, 512] {
            let x = Tensor::ones([1, rows, d_model], &device);
            let plain = time(&parts, &x);
            println!("{d_model} to {d_ff}, {rows} rows: f32 {:.1} µs", 1e6 * plain);
            for format in Format::ALL {
                if format.row_bytes(d_model).is_none() || format == Format::F32 {
                    continue;
                }
                let parts: Vec<_> =
                    parts.iter().map(|part| in_format(part.clone(), format, &device)).collect();
                let stored = time(&parts, &x);
                let bytes = numbers / format.block_length() * format.block_bytes();
                println!(
                    "    {:5} {:.1} µs, {:.2} times as fast, {:.1} GB/s",
                    format.name(),
                    1e6 * stored,
                    plain / stored,
                    bytes as f64 / stored / 1e9,
                );
            }
        }
    }
}
