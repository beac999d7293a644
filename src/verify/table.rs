//! What was found, as values and as a table.

use std::fmt;

use burn::tensor::DType;

use crate::attention::Kernel;

/// What [`verify`](fn@crate::verify) found: a row for each kernel, element type and case.
///
/// Its `Display` is a table that ends with the verdict.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// The device, as Burn writes it.
    pub device: String,
    /// What the part calls itself, where the backend says so: `NVIDIA H100 PCIe`, `llvmpipe`.
    pub adapter: Option<String>,
    /// One after another, in the order in which they ran.
    pub verified: Vec<Verified>,
}

/// One case on one kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// Who computed it.
    pub kernel: Kernel,
    /// The element type of the tensors.
    pub dtype: DType,
    /// What was computed: `look-ahead`, `grouped heads`, ...
    pub case: &'static str,
    /// Where the kernel came closest to its tolerance, or went beyond it: `output` (of the device as
    /// it is), `output in training`, `gradient of the query`, ..., `dead rows`.
    pub quantity: &'static str,
    /// The largest difference there, over the largest value of the output, or of all gradients.
    /// Infinite where one of the two is NaN and the other is not. Of `dead rows` the largest number
    /// where 0 belongs.
    pub error: f64,
    /// The largest error that rounding makes: 1e-4 in f32, 1e-10 in f64, 4 epsilons for an output and 8
    /// for a gradient in half precision; 0 for `dead rows`. TF32, or f16 in f32's place, is beyond it.
    pub tolerance: f64,
    /// Why nothing was computed, if so: what the kernel's panic said.
    pub failure: Option<String>,
}

impl Verified {
    /// Whether the kernel computed this case right.
    pub fn is_right(&self) -> bool {
        self.failure.is_none() && self.error <= self.tolerance
    }
}

impl Verification {
    /// Whether every kernel computed everything right.
    pub fn is_right(&self) -> bool {
        self.wrong().next().is_none()
    }

    /// The rows that went wrong.
    pub fn wrong(&self) -> impl Iterator<Item = &Verified> {
        self.verified.iter().filter(|verified| !verified.is_right())
    }
}

/// The name of an element type as Rust writes it.
fn dtype_name(dtype: DType) -> String {
    format!("{dtype:?}").to_lowercase()
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = format!("{:?}", self.kernel).to_lowercase();
        let dtype = dtype_name(self.dtype);
        write!(f, "{kernel:9}  {dtype:4}  {:28}  ", self.case)?;
        if let Some(failure) = &self.failure {
            // A panic may tell a story; the table has one line.
            return write!(f, "FAILED: {}", failure.lines().next().unwrap_or_default());
        }
        let verdict = if self.is_right() { "right" } else { "WRONG" };
        let (error, tolerance) = (self.error, self.tolerance);
        write!(f, "{verdict}  {error:8.1e} of {tolerance:8.1e}  {}", self.quantity)
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.adapter {
            Some(adapter) => writeln!(f, "{adapter}, {}", self.device)?,
            None => writeln!(f, "{}", self.device)?,
        }
        writeln!(
            f,
            "kernel     type  case                          verdict  error, allowed, where"
        )?;
        for verified in &self.verified {
            writeln!(f, "{verified}")?;
        }
        let (wrong, all) = (self.wrong().count(), self.verified.len());
        match wrong {
            0 => write!(f, "all {all} right"),
            wrong => write!(f, "{wrong} of {all} wrong"),
        }
    }
}
