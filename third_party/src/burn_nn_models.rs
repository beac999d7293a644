//! burn-nn 0.22.1: its transformer, recurrences, convolutions and norms.

use burn::nn::attention::generate_autoregressive_mask;
use burn::nn::conv::Conv1dConfig;
use burn::nn::transformer::{
    TransformerDecoderConfig, TransformerDecoderInput, TransformerEncoderConfig,
    TransformerEncoderInput,
};
use burn::nn::{
    BatchNormConfig, BiLstmConfig, GroupNormConfig, GruConfig, InstanceNormConfig, LstmConfig,
    PaddingConfig1d, RnnConfig,
};
use burn::tensor::{Device, Distribution, Tensor};
use burn_decoder::causality::{CausalityCheck, Report};

use crate::{Finding, RIGHT};

const WIDTH: usize = 16;
const LENGTH: usize = 12;
/// Positions of the decoder's memory.
const SOURCE: usize = 5;

pub const FINDINGS: &[Finding] = &[
    Finding {
        name: "burn-nn TransformerEncoder, look-ahead, its cache",
        says: RIGHT,
        check: encoder,
    },
    Finding {
        name: "burn-nn TransformerEncoder, no mask",
        says: "mask missing",
        check: encoder_without_mask,
    },
    Finding {
        name: "burn-nn TransformerDecoder, look-ahead, its cache",
        says: RIGHT,
        check: decoder,
    },
    Finding { name: "burn-nn Lstm and its steps", says: RIGHT, check: lstm },
    Finding { name: "burn-nn BiLstm", says: "mask missing", check: bidirectional },
    Finding { name: "burn-nn Gru and its steps", says: RIGHT, check: gru },
    Finding { name: "burn-nn Rnn and its steps", says: RIGHT, check: rnn },
    Finding {
        name: "burn-nn Conv1d, PaddingConfig1d::Same",
        says: "around its position",
        check: |device| convolution(device, PaddingConfig1d::Same),
    },
    Finding {
        name: "burn-nn Conv1d, padded by 2 on the left",
        says: RIGHT,
        check: |device| convolution(device, PaddingConfig1d::Explicit(2, 0)),
    },
    Finding {
        name: "burn-nn BatchNorm in training, behind the channels of a convolution",
        says: "statistic over the rows",
        check: batch_norm,
    },
    Finding {
        name: "burn-nn InstanceNorm over positions",
        says: "statistic over the sequence",
        check: instance_norm,
    },
    Finding {
        name: "burn-nn GroupNorm over positions",
        says: "statistic over the sequence",
        check: group_norm,
    },
];

/// A layer that other positions pass alone: a norm or a convolution moves none.
fn behind_lstm(device: &Device, layer: impl Fn(Tensor<3>) -> Tensor<3>) -> Report {
    let lstm = LstmConfig::new(WIDTH, WIDTH, true).init(device);
    checked(device, |x| lstm.forward(layer(x), None).0)
}

fn checked(device: &Device, forward: impl Fn(Tensor<3>) -> Tensor<3>) -> Report {
    CausalityCheck::embeddings(WIDTH, LENGTH, device, forward)
        .run()
        .expect("the model can be checked")
}

fn convolution(device: &Device, padding: PaddingConfig1d) -> Report {
    let layer = Conv1dConfig::new(WIDTH, WIDTH, 3).with_padding(padding).init(device);
    checked(device, |x| layer.forward(x.swap_dims(1, 2)).swap_dims(1, 2))
}

fn batch_norm(device: &Device) -> Report {
    let training = device.clone().autodiff();
    let norm = BatchNormConfig::new(WIDTH).init(&training);
    behind_lstm(&training, |x| norm.forward(x.swap_dims(1, 2)).swap_dims(1, 2))
}

fn instance_norm(device: &Device) -> Report {
    let norm = InstanceNormConfig::new(WIDTH).init(device);
    behind_lstm(device, |x| norm.forward(x.swap_dims(1, 2)).swap_dims(1, 2))
}

fn group_norm(device: &Device) -> Report {
    let norm = GroupNormConfig::new(4, WIDTH).init(device);
    behind_lstm(device, |x| norm.forward(x.swap_dims(1, 2)).swap_dims(1, 2))
}

fn encoder(device: &Device) -> Report {
    let model = TransformerEncoderConfig::new(WIDTH, 32, 4, 2).with_dropout(0.0).init(device);
    CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| {
        let [batch, length, _] = x.dims();
        let mask = generate_autoregressive_mask(batch, length, &x.device());
        model.forward(TransformerEncoderInput::new(x).mask_attn(mask))
    })
    .with_cached(|x| {
        let mut cache = model.new_autoregressive_cache();
        let mut last = None;
        // Each call takes all that came so far, and returns it.
        for length in 1..=LENGTH {
            let part = x.clone().narrow(1, 0, length);
            let mask = generate_autoregressive_mask(part.dims()[0], length, &part.device());
            let input = TransformerEncoderInput::new(part).mask_attn(mask);
            last = Some(model.forward_autoregressive_inference(input, &mut cache));
        }
        last.expect("there are positions")
    })
    .with_prefixes()
    .run()
    .expect("the model can be checked")
}

fn encoder_without_mask(device: &Device) -> Report {
    let model = TransformerEncoderConfig::new(WIDTH, 32, 4, 2).with_dropout(0.0).init(device);
    checked(device, |x| model.forward(TransformerEncoderInput::new(x)))
}

fn decoder(device: &Device) -> Report {
    let model = TransformerDecoderConfig::new(WIDTH, 32, 4, 2).with_dropout(0.0).init(device);
    let memory = Tensor::<3>::random([1, SOURCE, WIDTH], Distribution::Default, device);
    let input = |x: Tensor<3>| {
        let [batch, length, width] = x.dims();
        let mask = generate_autoregressive_mask(batch, length, &x.device());
        let memory = memory.clone().to_device(&x.device()).expand([batch, SOURCE, width]);
        TransformerDecoderInput::new(x, memory).target_mask_attn(mask)
    };
    CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| model.forward(input(x)))
        .with_cached(|x| {
            let mut cache = model.new_autoregressive_cache();
            let mut last = None;
            for length in 1..=LENGTH {
                let part = input(x.clone().narrow(1, 0, length));
                last = Some(model.forward_autoregressive_inference(part, &mut cache));
            }
            last.expect("there are positions")
        })
        .with_prefixes()
        .run()
        .expect("the model can be checked")
}

fn lstm(device: &Device) -> Report {
    let layer = LstmConfig::new(WIDTH, WIDTH, true).init(device);
    CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| layer.forward(x, None).0)
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
        .expect("the model can be checked")
}

fn rnn(device: &Device) -> Report {
    let layer = RnnConfig::new(WIDTH, WIDTH, true).init(device);
    CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| layer.forward(x, None).0)
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
        .expect("the model can be checked")
}

/// Its output is its state.
fn gru(device: &Device) -> Report {
    let layer = GruConfig::new(WIDTH, WIDTH, true).init(device);
    CausalityCheck::embeddings(WIDTH, LENGTH, device, |x| layer.forward(x, None))
        .with_steps(
            || None,
            |state, x| {
                let output = layer.forward(x, state.take());
                *state = Some(output.clone().squeeze_dim(1));
                output
            },
        )
        .with_prefixes()
        .run()
        .expect("the model can be checked")
}

fn bidirectional(device: &Device) -> Report {
    let layer = BiLstmConfig::new(WIDTH, WIDTH, true).init(device);
    checked(device, |x| layer.forward(x, None).0)
}
