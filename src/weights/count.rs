use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Int, Tensor};

use super::Format;

/// How many numbers the parameters of a module have, those in blocks included, of which
/// [`Module::num_params`] counts the two that stand for a matrix.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::nn::{Linear, LinearConfig};
/// use burn::tensor::Device;
/// use burn_decoder::weights::{Blocks, Format, num_numbers};
///
/// let device = Device::flex();
/// let layer = LinearConfig::new(64, 3).init(&device);
/// assert_eq!(num_numbers(&layer), 64 * 3 + 3);
/// let blocks = Blocks::projection(Format::Q8_0, [3, 64], vec![0; 3 * 68], &device)?;
/// let layer: Linear = blocks.stand_in(layer);
/// assert_eq!(num_numbers(&layer), 64 * 3 + 3);
/// # }
/// # Ok::<(), burn_decoder::Error>(())
/// ```
#[must_use]
pub fn num_numbers<M: Module>(module: &M) -> usize {
    let mut count = Count { numbers: 0, format: None, depth: 0 };
    module.visit(&mut count);
    count.numbers
}

struct Count {
    numbers: usize,
    /// Of the bytes that come next, if they are a matrix's.
    format: Option<Format>,
    /// How deep in blocks.
    depth: usize,
}

impl ModuleVisitor for Count {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        if container_type == super::blocks::CONTAINER {
            self.depth += 1;
            self.format = Format::ALL.into_iter().find(|format| format.name() == name);
        }
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        if container_type == super::blocks::CONTAINER {
            self.depth -= 1;
            self.format = None;
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.depth == 0 {
            self.numbers += param.lazy_shape().num_elements();
        }
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        let Some(format) = self.format else { return };
        let bytes = param.lazy_shape().num_elements();
        // One number less, which the parameter itself holds.
        self.numbers += bytes / format.block_bytes() * format.block_length();
        self.numbers -= 1;
    }
}
