//! The checks of a language model, with and without a memory for its cross-attention.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_decoder::Result;
use burn_decoder::attention::Kernel;
use burn_decoder::causality::{CausalityCheck, Report};
use burn_decoder::decoder::{Batch, LanguageModel, LanguageModelOutput, Positions, Request};
use burn_decoder::mask::Mask;
use indicatif::{ProgressBar, ProgressStyle};

/// Finds out, before the checks, whether the model takes rows of this length.
pub fn try_forward(model: &LanguageModel, length: usize, device: &Device) -> Result<()> {
    let embedded = model.embed(Tensor::zeros([1, length], device), &Positions::default())?;
    forward(model, embedded, false, Kernel::Auto).map(drop)
}

/// Tokens to logits: returning the weights or not, by the fastest kernel or the simplest.
pub fn by_tokens(model: &LanguageModel, length: usize, device: &Device) -> Result<Report> {
    let run = |tokens: Tensor<2, Int>, weights, kernel| {
        let embedded = model.embed(tokens, &Positions::default()).expect(TRIED);
        forward(model, embedded, weights, kernel).expect(TRIED)
    };
    let check = CausalityCheck::tokens(model.vocab_size(), length, device, |tokens| {
        run(tokens, false, Kernel::Auto).logits
    })
    .with_weights(|tokens| {
        let output = run(tokens, true, Kernel::Auto);
        (output.logits, Tensor::cat(output.self_weights, 1)) // [batch, layers * heads, length, length]
    })
    .with_path("reference kernel", |tokens| run(tokens, false, Kernel::Reference).logits);
    with_progress(check.cost()?.total(), |tick| check.with_progress(tick).run())
}

/// Embeddings to logits, by gradients too, with dropout off and on.
pub fn by_embeddings(model: &LanguageModel, length: usize, device: &Device) -> Result<Report> {
    let training = model.clone().train();
    let run = |model, embedded| forward(model, embedded, false, Kernel::Auto).expect(TRIED).logits;
    let check = CausalityCheck::embeddings(model.d_model(), length, device, |embedded| {
        run(model, embedded)
    })
    .with_dropout(|embedded| run(&training, embedded));
    with_progress(check.cost()?.total(), |tick| check.with_progress(tick).run())
}

/// Why no pass of a check fails.
const TRIED: &str = "rows of this length were tried before";

/// The model, and a memory for its cross-attention if it has one. The memory is the same in every
/// row, since it is no part of the check.
fn forward(
    model: &LanguageModel,
    embedded: Tensor<3>,
    weights: bool,
    kernel: Kernel,
) -> Result<LanguageModelOutput> {
    let request = Request::new().with_weights(weights).with_kernel(kernel);
    let mut batch = Batch::new();
    if model.decoder.layers.iter().any(|layer| layer.cross_attention.is_some()) {
        const STATES: usize = 5;
        let [rows, _, width] = embedded.dims();
        let states = (0..STATES * width).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>();
        let states = TensorData::new(states, [1, STATES, width]);
        let states = Tensor::<3>::from_data(states, &embedded.device());
        batch = batch.with_memory(states.expand([rows, STATES, width]), Mask::all_visible());
    }
    model.forward_embedded(embedded, batch.asking(request))
}

/// Runs a check with a progress bar on standard error.
fn with_progress(
    passes: usize,
    check: impl FnOnce(Box<dyn Fn(usize, usize)>) -> Result<Report>,
) -> Result<Report> {
    let style = ProgressStyle::with_template("{bar:40} {pos} of {len} forward passes, {eta} to go");
    let bar = ProgressBar::new(passes as u64).with_style(style.expect("the template is valid"));
    let tick = bar.clone();
    let report = check(Box::new(move |done, expected| {
        tick.set_length(expected as u64);
        tick.set_position(done as u64);
    }));
    bar.finish_and_clear();
    report
}
