//! Numbers from PyTorch (tests/fixtures/README.md), and how close to them is close enough.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::tensor::{Bool, BoolStore, DType, Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

use crate::backends::tolerance_factor;

/// A difference that is allowed: `absolute + relative * |expected|`.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    pub absolute: f64,
    pub relative: f64,
}

/// Outputs and weights in f32: PyTorch's own f32 results lie within 1e-6 of the stored ones; the
/// rest is for another order of sums.
pub const OUTPUT: Tolerance = Tolerance { absolute: 1e-5, relative: 1e-5 };

/// Gradients in f32, which sum over more terms. The quietest mistake known (tanh for erf in GELU)
/// shows as 3e-4.
pub const GRADIENT: Tolerance = Tolerance { absolute: 1e-4, relative: 1e-4 };

/// Gradients of the two cases with inputs of 100 and more and scores beyond 1e4, where one
/// rounding of a score is 1e-3.
pub const LARGE_SCORE_GRADIENT: Tolerance = Tolerance { absolute: 1e-3, relative: 1e-3 };

/// Logits after several layers.
pub const LOGITS: Tolerance = Tolerance { absolute: 1e-4, relative: 1e-4 };

impl Tolerance {
    /// Wider on a device with approximate arithmetic.
    pub fn on(self, device: &Device) -> Self {
        let factor = tolerance_factor(device);
        Self { absolute: self.absolute * factor, relative: self.relative * factor }
    }
}

/// Panics with the worst entry if `got` strays further from `expected` than allowed, or has
/// another shape, or holds a NaN where `expected` has none.
#[track_caller]
pub fn assert_close(what: &str, got: TensorData, expected: TensorData, tolerance: Tolerance) {
    assert_eq!(got.shape(), expected.shape(), "{what}: shape");
    let (got, expected) = (to_f64(got), to_f64(expected));
    let excess = |index: usize| {
        let allowed = tolerance.absolute + tolerance.relative * expected[index].abs();
        let excess = (got[index] - expected[index]).abs() / allowed;
        if excess.is_nan() { f64::INFINITY } else { excess }
    };
    let Some(worst) = (0..got.len()).max_by(|&a, &b| excess(a).total_cmp(&excess(b))) else {
        return;
    };
    assert!(
        excess(worst) <= 1.0,
        "{what}: entry {worst} is {}, expected {} ({:.1} times the tolerance {tolerance:?})",
        got[worst],
        expected[worst],
        excess(worst),
    );
}

/// The values of a float or int tensor as f64.
pub fn to_f64(data: TensorData) -> Vec<f64> {
    data.iter::<f64>().collect()
}

/// One safetensors file of tests/fixtures, read whole.
pub struct Fixtures {
    file: PathBuf,
    tensors: BTreeMap<String, TensorData>,
    metadata: HashMap<String, String>,
}

impl Fixtures {
    /// Opens `tests/fixtures/{name}`.
    pub fn open(name: &str) -> Self {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let bytes =
            std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let tensors = tensors
            .iter()
            .map(|(name, tensor)| {
                let dtype = match tensor.dtype() {
                    Dtype::F32 => DType::F32,
                    Dtype::I64 => DType::I64,
                    Dtype::BOOL => DType::Bool(BoolStore::Native),
                    other => panic!("{name}: expected f32, i64 or bool, got {other:?}"),
                };
                let data =
                    TensorData::from_bytes_vec(tensor.data().to_vec(), tensor.shape(), dtype);
                (name.to_string(), data)
            })
            .collect();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Self { file, tensors, metadata }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The cases of sdpa and mha: what stands before `.out` in the names.
    pub fn cases(&self) -> Vec<String> {
        self.names().filter_map(|name| Some(name.strip_suffix(".out")?.to_string())).collect()
    }

    /// The metadata entry `key` of the file: sizes, flags, versions.
    pub fn metadata(&self, key: &str) -> &str {
        let value = self.metadata.get(key);
        value.unwrap_or_else(|| panic!("{}: no metadata {key}", self.file.display()))
    }

    /// The data of tensor `name`, if the file has it.
    pub fn find(&self, name: &str) -> Option<TensorData> {
        self.tensors.get(name).cloned()
    }

    /// The data of tensor `name`.
    #[track_caller]
    pub fn data(&self, name: &str) -> TensorData {
        self.find(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.file.display()))
    }

    /// A float tensor on `device`.
    #[track_caller]
    pub fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        Tensor::from_data(self.data(name), device)
    }

    /// An int tensor on `device`.
    #[track_caller]
    pub fn ints<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D, Int> {
        Tensor::from_data(self.data(name), device)
    }

    /// A bool tensor on `device`: true = hidden.
    #[track_caller]
    pub fn hidden<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D, Bool> {
        Tensor::from_data(self.data(name), device)
    }

    /// A single number.
    #[track_caller]
    pub fn scalar(&self, name: &str) -> f64 {
        to_f64(self.data(name))[0]
    }
}

#[test]
fn every_file_is_complete() {
    for (file, cases) in [("sdpa.safetensors", 29), ("mha.safetensors", 4)] {
        let fixtures = Fixtures::open(file);
        assert_eq!(fixtures.cases().len(), cases, "{file}: {:?}", fixtures.cases());
    }
    for norm in ["pre", "post"] {
        for activation in ["relu", "gelu"] {
            let fixtures =
                Fixtures::open(&format!("decoder_layer_{norm}_{activation}.safetensors"));
            assert_eq!(
                fixtures.metadata("norm_first"),
                ["False", "True"][(norm == "pre") as usize]
            );
            assert_eq!(fixtures.metadata("activation"), activation);
        }
    }
    assert_eq!(Fixtures::open("decoder_stack.safetensors").metadata("num_layers"), "3");
}

#[test]
#[should_panic(expected = "entry 1 is 2.5, expected 2")]
fn a_difference_is_told() {
    let [got, expected] = [[1.0f32, 2.5], [1.0, 2.0]].map(TensorData::from);
    assert_close("x", got, expected, OUTPUT);
}

#[test]
#[should_panic(expected = "NaN")]
fn a_nan_is_told() {
    assert_close("x", TensorData::from([f32::NAN]), TensorData::from([0.0f32]), OUTPUT);
}

on_each_backend! {
    fn a_fixture_reaches_the_device(device: Device) {
        let fixtures = Fixtures::open("sdpa.safetensors");
        let lengths = fixtures.ints::<1>("padding_right.lengths", &device);
        let hidden = fixtures.hidden::<4>("padding_right.hidden", &device);
        let keys = fixtures.tensor::<4>("padding_right.k", &device).dims()[2];
        let visible = hidden.bool_not().int().sum().into_scalar::<i64>();
        assert_eq!(visible, lengths.sum().into_scalar::<i64>());
        assert_eq!(keys, 7);
        assert_eq!(fixtures.scalar("scale.scale") as f32, 0.37);
    }
}
