//! Gradients of a limited length.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::{DType, Tensor};

use crate::kernels::{runs_on, sum_of_squares};

/// Scales all gradients of a module so that their norm, taken together, is at most `limit` (Pascanu et
/// al. 2013). Burn's own clipping looks at each tensor alone, which changes the direction of the step.
///
/// The norm is read, so a device that computes by itself is waited for. A norm that is no number changes
/// nothing, to show in the loss.
///
/// ```
/// # #[cfg(feature = "ndarray")] {
/// use burn::optim::GradientsParams;
/// use burn::tensor::{Device, Tensor};
/// use burn_decoder::optim::clip_by_global_norm;
///
/// # #[allow(deprecated)]
/// let device = Device::ndarray().autodiff();
/// let model = burn::nn::LinearConfig::new(3, 2).with_bias(false).init(&device);
/// let loss = model.forward(Tensor::<2>::ones([1, 3], &device)).sum(); // six gradients of 1
/// let gradients = GradientsParams::from_grads(loss.backward(), &model);
/// let gradients = clip_by_global_norm(gradients, &model, 1.0);
/// let norm = gradients.get::<2>(model.weight.id).unwrap().square().sum().into_scalar::<f32>().sqrt();
/// assert!((norm - 1.0).abs() < 1e-6);
/// # }
/// ```
#[must_use]
pub fn clip_by_global_norm<M: Module>(
    gradients: GradientsParams,
    module: &M,
    limit: f64,
) -> GradientsParams {
    let mut squares = Squares { gradients: &gradients, host: 0.0, device: None };
    module.visit(&mut squares);
    let on_device = squares.device.map_or(0.0, |sum| sum.into_scalar::<f64>());
    let norm = (squares.host + on_device).sqrt();
    if norm.is_nan() || norm <= limit {
        return gradients;
    }
    let mut scaled = Scaled { gradients, factor: limit / norm };
    module.visit(&mut scaled);
    scaled.gradients
}

/// The squares of all gradients, summed: where the CPU reads them at once, and where a device is to be
/// waited for once.
struct Squares<'a> {
    gradients: &'a GradientsParams,
    host: f64,
    device: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = self.gradients.get::<D>(param.id) else { return };
        if runs_on(&gradient) {
            self.host += sum_of_squares(gradient);
            return;
        }
        // In f32: squares leave the range of f16.
        let wide = match gradient.dtype() {
            DType::F64 => gradient,
            _ => gradient.cast(DType::F32),
        };
        let square = wide.square().sum();
        self.device = Some(match self.device.take() {
            Some(sum) => sum + square,
            None => square,
        });
    }
}

struct Scaled {
    gradients: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scaled {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.remove::<D>(param.id) {
            self.gradients.register(param.id, gradient * self.factor);
        }
    }
}
