//! burn-nn 0.22.1: its transformer, recurrences, convolutions and norms.

use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::conv::Conv1dConfig;
use burn::nn::transformer::{
    TransformerDecoderConfig, TransformerDecoderInput, TransformerEncoderConfig,
    TransformerEncoderInput,
};
use burn::nn::{BatchNormConfig, BiLstmConfig, GruConfig, LstmConfig, PaddingConfig1d};
use burn::tensor::{Device, Distribution, Tensor};
use burn_decoder::causality::{CausalityCheck, Report};

use crate::{Expected, Finding};

const WIDTH: usize = 16;
const LENGTH: usize = 12;

fn checked(device: &Device, forward: impl Fn(Tensor<3>) -> Tensor<3>) -> Report {
    CausalityCheck::embeddings(WIDTH, LENGTH, device, forward)
        .run()
        .expect("the model can be checked")
}

pub fn check(device: &Device) -> Vec<Finding> {
    vec![
        encoder(device),
        decoder(device),
        lstm(device),
        Finding {
            name: "burn-nn, BiLstm",
            expected: Expected::Leak("mask missing"),
            report: {
                let layer = BiLstmConfig::new(WIDTH, WIDTH, true).init(device);
                checked(device, |x| layer.forward(x, None).0)
            },
        },
        Finding {
            name: "burn-nn, Gru",
            expected: Expected::Right,
            report: {
                let layer = GruConfig::new(WIDTH, WIDTH, true).init(device);
                checked(device, |x| layer.forward(x, None))
            },
        },
        Finding {
            name: "burn-nn, Conv1d with PaddingConfig1d::Same",
            expected: Expected::Leak("around its position"),
            report: convolution(device, PaddingConfig1d::Same),
        },
        Finding {
            name: "burn-nn, Conv1d padded by 2 on the left",
            expected: Expected::Right,
            report: convolution(device, PaddingConfig1d::Explicit(2, 0)),
        },
        Finding {
            name: "burn-nn, BatchNorm over time, in training",
            expected: Expected::Leak("statistic over the rows"),
            report: {
                let training = device.clone().autodiff();
                let norm = BatchNormConfig::new(WIDTH).init(&training);
                checked(&training, |x| norm.forward(x.swap_dims(1, 2)).swap_dims(1, 2))
            },
        },
    ]
}

fn convolution(device: &Device, padding: PaddingConfig1d) -> Report {
    let layer = Conv1dConfig::new(WIDTH, WIDTH, 3).with_padding(padding).init(device);
    checked(device, |x| layer.forward(x.swap_dims(1, 2)).swap_dims(1, 2))
}

fn encoder(device: &Device) -> Finding {
    let model = TransformerEncoderConfig::new(WIDTH, 32, 4, 2).with_dropout(0.0).init(device);
    let report = CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| {
        let [batch, length, _] = x.dims();
        let mask = generate_autoregressive_mask(batch, length, &x.device());
        model.forward(TransformerEncoderInput::new(x).mask_attn(mask))
    })
    .with_cached(|x| {
        let mut cache = model.new_autoregressive_cache();
        let mut last = None;
        // Each call takes all that came so far, and returns it.
        for length in 1..=LENGTH {
            let input = TransformerEncoderInput::new(x.clone().narrow(1, 0, length));
            last = Some(model.forward_autoregressive_inference(input, &mut cache));
        }
        last.expect("there are positions")
    })
    .with_prefixes()
    .run()
    .expect("the model can be checked");
    Finding { name: "burn-nn, TransformerEncoder, look-ahead", expected: Expected::Right, report }
}

fn decoder(device: &Device) -> Finding {
    let model = TransformerDecoderConfig::new(WIDTH, 32, 4, 2).with_dropout(0.0).init(device);
    let memory = Tensor::<3>::random([1, 5, WIDTH], Distribution::Default, device);
    let report = CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| {
        let [batch, length, width] = x.dims();
        let mask = generate_autoregressive_mask(batch, length, &x.device());
        let memory = memory.clone().expand([batch, 5, width]);
        model.forward(TransformerDecoderInput::new(x, memory).target_mask_attn(mask))
    })
    .with_cached(|x| {
        let mut cache = model.new_autoregressive_cache();
        let mut last = None;
        for length in 1..=LENGTH {
            let part = x.clone().narrow(1, 0, length);
            let [batch, length, width] = part.dims();
            let mask = generate_autoregressive_mask(batch, length, &part.device());
            let memory = memory.clone().expand([batch, 5, width]);
            let input = TransformerDecoderInput::new(part, memory).target_mask_attn(mask);
            last = Some(model.forward_autoregressive_inference(input, &mut cache));
        }
        last.expect("there are positions")
    })
    .with_prefixes()
    .run()
    .expect("the model can be checked");
    Finding { name: "burn-nn, TransformerDecoder, look-ahead", expected: Expected::Right, report }
}

/// The whole and its steps.
fn lstm(device: &Device) -> Finding {
    let layer = LstmConfig::new(WIDTH, WIDTH, true).init(device);
    let report = CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| layer.forward(x, None).0)
        .with_steps(
            || None,
            |state, x| {
                let (output, new) = layer.forward(x, state.take());
                *state = Some(new);
                output
            },
        )
        .with_prefixes()
        .run()
        .expect("the model can be checked");
    Finding { name: "burn-nn, Lstm, and its steps", expected: Expected::Right, report }
}
