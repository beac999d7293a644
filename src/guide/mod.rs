//! The user's guide, page by page. The pages hold text and examples alone.
//!
//! - [`from_a_paper`]: from a paper's table of sizes and options to a configuration;
#![cfg_attr(
    feature = "import",
    doc = "- [`from_a_checkpoint`]: from a published checkpoint to a running model;"
)]
#![cfg_attr(feature = "import", doc = "- [`from_a_gguf`]: the same from a GGUF file;")]
//! - [`for_speed`]: what an application may turn on to be faster;
//! - [`gpu`]: which kernel runs where, whether it is right on your machine, and what is waited for;
//! - [`generate_by_hand`]: prefill, step, roll back, fork: a loop of your own;
//! - [`train`]: by hand and with burn-train; accumulation, which parameters decay, and their paths;
//! - [`several_devices`]: what Burn does for a training on more than one, and what it costs;
//! - [`causality`](crate::causality): check a model of your own for leaks, in ten lines;
//! - [`the_exam`]: a test in one line, and what the checker was put to.

#[doc = include_str!("from_a_paper.md")]
pub mod from_a_paper {}

#[cfg(feature = "import")]
#[doc = include_str!("from_a_checkpoint.md")]
pub mod from_a_checkpoint {}

#[cfg(feature = "import")]
#[doc = include_str!("from_a_gguf.md")]
pub mod from_a_gguf {}

#[doc = include_str!("for_speed.md")]
pub mod for_speed {}

#[doc = include_str!("gpu.md")]
pub mod gpu {}

#[doc = include_str!("generate_by_hand.md")]
pub mod generate_by_hand {}

#[doc = include_str!("several_devices.md")]
pub mod several_devices {}

#[doc = include_str!("train.md")]
pub mod train {}

#[doc = include_str!("the_exam.md")]
pub mod the_exam {}
