//! The integration tests, in one binary so that they link once.
#![cfg_attr(feature = "ndarray", allow(deprecated))]

#[macro_use]
mod backends;
mod attention;
mod cache;
mod causality;
mod checkpointing;
mod config_files;
mod decoder;
/// What `.ci/default_features` compiles with another Burn and runs: compiled here, so that a change of the
/// crate does not break it unseen.
#[cfg(all(feature = "flex", feature = "wgpu"))]
#[allow(dead_code)]
#[path = "../default_features/src/main.rs"]
mod default_features;
mod exam;
mod feed_forward;
mod fixtures;
mod fused;
mod generation;
#[cfg(feature = "gpu")]
mod gpu_device;
#[cfg(all(feature = "gpu", target_os = "linux"))]
mod gpu_memory;
mod gradients;
mod import;
mod language_model;
mod loss;
mod masks;
mod multi_head;
#[path = "../../src/kernels/naive.rs"]
mod naive;
mod optim;
#[cfg(target_os = "linux")]
mod peak;
mod pytorch;
mod rotary;
mod settings;
mod sinks;
mod switching;
mod verify;
#[cfg(feature = "wgpu")]
mod waits;
mod weights;
