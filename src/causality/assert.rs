//! One line for the tests of any crate.

use std::fmt;

use burn::tensor::{Device, Int, Tensor};

use super::check::CausalityCheck;
use super::diagnosis::Diagnosis;
use super::input::ModelInput;
use super::report::{Leak, Report};
use super::schedule::Way;
use super::verdict::Verdict;

/// Asserts that a model from tokens to logits sees no token of the future.
///
/// `forward` takes tokens `[8, length]`, of ids below `vocabulary`, which is at most the model's own, and
/// returns logits `[8, length, any]`, in which position `t` may depend on tokens `0..=t`. For another
/// number of rows, and for more questions (a cache, gradients, weights, losses, another mask than
/// look-ahead) see [`CausalityCheck`].
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Int, Tensor};
/// use burn_decoder::causality::assert_causal;
///
/// let device = Device::flex();
/// // A running sum of the ids sees the past alone.
/// assert_causal(&device, [50, 12], |tokens: Tensor<2, Int>| {
///     tokens.float().cumsum(1).unsqueeze_dim(2)
/// });
/// # }
/// ```
///
/// # Panics
///
/// If the model sees the future, if it is not proven that it doesn't, or if it can't be checked. The
/// message says which position saw which, what that most likely is, and where to look.
#[track_caller]
pub fn assert_causal(
    device: &Device,
    [vocabulary, length]: [usize; 2],
    forward: impl Fn(Tensor<2, Int>) -> Tensor<3>,
) {
    assert(CausalityCheck::tokens(vocabulary, length, device, forward));
}

/// The same for a model, or a layer, from embeddings `[8, length, width]` to outputs
/// `[8, length, any]`: by gradients too.
///
/// # Panics
///
/// As [`assert_causal`].
#[track_caller]
pub fn assert_causal_embeddings(
    device: &Device,
    [width, length]: [usize; 2],
    forward: impl Fn(Tensor<3>) -> Tensor<3>,
) {
    assert(CausalityCheck::embeddings(width, length, device, forward));
}

#[track_caller]
fn assert<I: ModelInput>(check: CausalityCheck<'_, I>) {
    match check.run() {
        Ok(report) if report.is_causal() => {}
        Ok(report) => panic!("{}", Explained(&report)),
        Err(error) => panic!("the model can't be checked: {error}"),
    }
}

/// A report behind a few sentences for one who has not met a leak before.
struct Explained<'a>(&'a Report);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.0;
        match report.verdict() {
            Verdict::NotProven(why) => {
                let why = why.to_string();
                let end = if why.ends_with('?') { "" } else { "." };
                writeln!(
                    f,
                    "It can't be told whether this model sees the future.\n\nReason: {why}{end}"
                )?;
            }
            _ => {
                let leak = report.first_leak();
                if let Some(leak) = leak {
                    explain(leak, f)?;
                }
                let unknown = Diagnosis::Unknown;
                let diagnosis = leak.map_or(&unknown, |leak| &leak.diagnosis);
                writeln!(f, "Most likely: {diagnosis}.\nWhere to look: {}", diagnosis.advice())?;
            }
        }
        write!(f, "\nAll that was measured:\n{report}")
    }
}

fn explain(leak: &Leak, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Leak { row, query, key_row, key, .. } = leak;
    if leak.way == Way::OtherRows {
        return writeln!(
            f,
            "This model mixes the rows of a batch.\n\nThe output of row {row} at position {query} \
             changed when only row {key_row} was changed. Each row is a text of its own: what is said \
             of one must not depend on which others happen to stand beside it.\n"
        );
    }
    writeln!(
        f,
        "This model sees the future.\n\nThe output at position {query} changed when only the token at \
         position {key} was changed. In training the model can read there what it should predict, so \
         its loss falls without learning; in generation that token does not exist yet.\n"
    )
}
