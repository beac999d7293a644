//! A model, handed to a metric.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Device, Int, Tensor};

/// A model's pass from tokens to logits, for metrics that look at the model itself.
///
/// The closure owns a clone of the model, which shares its parameters.
#[derive(Clone)]
pub struct ForwardPass {
    // A Burn module may go to another thread, but not be used from two at once.
    forward: Arc<Mutex<dyn Fn(Tensor<2, Int>) -> Tensor<3> + Send>>,
    device: Device,
}

impl ForwardPass {
    /// The pass `forward`, from tokens `[batch, queries]` on `device` to logits
    /// `[batch, queries, vocabulary]`, dropout off.
    pub fn new(
        device: &Device,
        forward: impl Fn(Tensor<2, Int>) -> Tensor<3> + Send + 'static,
    ) -> Self {
        Self { forward: Arc::new(Mutex::new(forward)), device: device.clone() }
    }

    /// Where the tokens belong.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Runs the model.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, queries]`
    /// - output: `[batch, queries, vocabulary]`
    pub fn run(&self, tokens: Tensor<2, Int>) -> Tensor<3> {
        let forward = self.forward.lock().unwrap_or_else(PoisonError::into_inner);
        (*forward)(tokens)
    }
}

impl fmt::Debug for ForwardPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForwardPass").field("device", &self.device).finish_non_exhaustive()
    }
}
