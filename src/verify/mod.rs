//! A parity check that you run on your own machine: does this device compute attention right?
//!
//! What a GPU computes is up to its driver, to its shader compiler, and to what Burn's `autotune`
//! picks there. This crate is tested on the devices of its authors; [`verify`](fn@verify) tests it on
//! yours. Every kernel that serves the device ([`Kernel`]) is run on small problems, forward and
//! backward: a mask of every kind, grouped heads, a softcap, biases, sinks, dropout, one query
//! against a past, half precision where the device has it. The sizes are primes, so that no axis can
//! stand in for another. What comes out is compared with plain loops in f64 on the host, which know
//! nothing of Burn, tiles or GPUs.
//!
//! ```
//! # #[cfg(feature = "ndarray")] {
//! # #[allow(deprecated)]
//! let device = burn::tensor::Device::ndarray(); // or Device::wgpu(..), Device::cuda(..)
//! let found = burn_decoder::verify(&device);
//! println!("{found}");
//! assert!(found.is_right());
//! # }
//! ```
//!
//! A second or so; the longer, the longer the device takes to compile a shader, of which there are
//! hundreds (minutes on Vulkan in software), and again for the first time with Burn's `autotune`, which
//! measures before it chooses. f64 is checked on CPUs alone: on wgpu, exp and tanh of f64 are wrong in
//! Burn 0.22.1 (exp(1) is 7e-315), although the device says that it has the type.

mod case;
mod subject;
mod table;
#[cfg(test)]
mod tests;

use burn::tensor::{DType, Device};

use crate::attention::{self, Kernel, Request, scaled_dot_product_attention};
use crate::kernels;
use case::{Case, Solved};
use subject::Subject;
pub use table::{Verification, Verified};

/// Runs every attention kernel that serves `device` against plain loops on the host. See the
/// [module](mod@crate::verify).
///
/// An autodiff device is checked as the device inside it; gradients are checked in any case. A kernel
/// that panics is reported as wrong; its message goes to standard error, too, as a panic's does.
#[must_use]
pub fn verify(device: &Device) -> Verification {
    let device = device.clone().without_autodiff();
    let cases = Case::all(&device);
    let mut verified = Vec::new();
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        // On a GPU its shaders take as long to compile again, and Burn 0.22.1's exp and tanh of f64 are
        // wrong on wgpu: shaders have none.
        if !device.supports_dtype(dtype) || (dtype == DType::F64 && !kernels::is_host(&device)) {
            continue;
        }
        let solved = Solved::all(&cases, dtype);
        for kernel in [Kernel::Fused, Kernel::Reference, Kernel::Backend] {
            if kernel == Kernel::Fused && !attention::fused_serves(&device, dtype) {
                continue;
            }
            let request = Request::new().with_kernel(kernel);
            let subject = Subject {
                name: kernel,
                attend: &|[query, key, value], mask, score| {
                    scaled_dot_product_attention(query, key, value, mask, score, &request).output
                },
            };
            let promised = solved.iter().filter(|solved| solved.case.is_for(kernel));
            verified.extend(promised.map(|solved| subject.verify(solved, &device)));
        }
    }
    Verification { device: format!("{device:?}"), adapter: adapter(&device), verified }
}

/// What the part calls itself, if the backend says so.
fn adapter(device: &Device) -> Option<String> {
    #[cfg(any(feature = "wgpu", feature = "cuda"))]
    return device.identity().map(|identity| identity.name);
    #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
    {
        let _ = device;
        None
    }
}
