//! A matrix in blocks, as the value of a parameter.

use std::fmt;
use std::sync::OnceLock;

use burn::module::{
    Content, Devices, LoraAdapter, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
    ModuleVisitor, Param, ParamId, Reparameterization, Reparameterizer,
};
use burn::tensor::{Bytes, DType, Device, Int, Shape, Tensor, TensorData};

use super::Format;
use crate::kernels::StoredWeight;
use crate::{Error, Result};

/// A matrix in blocks, which a parameter has for its value.
///
/// Its bytes are a tensor of u8, `[rows, bytes of a row]`: saved, loaded and moved as Burn's tensors
/// are. The parameter itself holds one number, which means nothing.
#[derive(Clone, Debug)]
pub struct Blocks {
    /// `[rows, bytes of a row]`, of u8.
    bytes: Param<Tensor<2, Int>>,
    /// One number, which stands for the whole matrix where adapters are attached to it.
    delta: Param<Tensor<2>>,
    format: Format,
    /// Numbers of a row.
    columns: usize,
    /// Whether the parameter is `[columns, rows]`, as a projection's.
    transposed: bool,
    /// What [`on_host`](Self::on_host) found for these bytes: each token asks for every weight, twice.
    host: OnceLock<Option<StoredWeight>>,
}

/// The blocks that a parameter has for its value, if it has any.
#[must_use]
pub fn blocks(weight: &Param<Tensor<2>>) -> Option<&Blocks> {
    weight.reparameterization()
}

impl Blocks {
    /// The weight of a projection: `shape` is `[outputs, inputs]`, each output a row of `bytes`.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if the rows are no whole number of blocks, or `bytes` is not as long as they
    /// are.
    pub fn projection(
        format: Format,
        shape: [usize; 2],
        bytes: impl Into<StoredBytes>,
        device: &Device,
    ) -> Result<Self> {
        Self::new(format, shape, bytes.into(), true, device)
    }

    /// The table of an embedding: `shape` is `[tokens, width]`, each token a row of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`projection`](Self::projection).
    pub fn embedding(
        format: Format,
        shape: [usize; 2],
        bytes: impl Into<StoredBytes>,
        device: &Device,
    ) -> Result<Self> {
        Self::new(format, shape, bytes.into(), false, device)
    }

    fn new(
        format: Format,
        [rows, columns]: [usize; 2],
        StoredBytes(bytes): StoredBytes,
        transposed: bool,
        device: &Device,
    ) -> Result<Self> {
        let row_bytes = format.row_bytes(columns).ok_or_else(|| Error::Input {
            input: "blocks",
            expected: format!(
                "rows of a multiple of {} numbers in {format}",
                format.block_length()
            ),
            got: columns.to_string(),
        })?;
        if row_bytes.checked_mul(rows) != Some(bytes.len()) {
            return Err(Error::Input {
                input: "blocks",
                expected: format!("{rows} rows of {row_bytes} bytes for {columns} in {format}"),
                got: format!("{} bytes", bytes.len()),
            });
        }
        let data = TensorData::from_bytes(bytes, [rows, row_bytes], DType::U8);
        let bytes = Tensor::from_data(data, (device, DType::U8));
        let delta = Param::from_tensor(Tensor::zeros([1, 1], device)).set_require_grad(false);
        let bytes = Param::initialized(ParamId::new(), bytes);
        Ok(Self { bytes, delta, format, columns, transposed, host: OnceLock::new() })
    }

    /// `module`, a projection or an embedding, with this as its `weight`.
    ///
    /// # Panics
    ///
    /// If there is a matrix of another shape in it.
    #[must_use]
    pub fn stand_in<M: Module>(self, module: M) -> M {
        with_blocks(module, |_, _| Some(self.clone()))
    }

    /// The parameter that blocks are the value of: one number.
    #[cfg(feature = "import")]
    pub(crate) fn stand_for<const D: usize>(param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        placeholder(param)
    }

    /// How the numbers are stored.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// `[rows, columns]`: outputs and inputs of a projection, tokens and width of an embedding.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.bytes.shape()[0], self.columns]
    }

    /// The bytes, row by row.
    #[must_use]
    pub fn bytes(&self) -> Tensor<2, Int> {
        self.bytes.val()
    }

    /// The adapter that [`Module::apply_lora`] put beside it, if it did: of the weight as
    /// `[inputs, outputs]`, or of the table as it is.
    #[must_use]
    pub fn adapter(&self) -> Option<&LoraAdapter> {
        self.delta.adapter()
    }

    /// For products on the CPU; nothing on another device.
    pub(super) fn on_host(&self) -> Option<&StoredWeight> {
        let find = || StoredWeight::new(self.bytes.val(), self.format, self.columns);
        self.host.get_or_init(find).as_ref()
    }

    /// The same with other parameters.
    fn with(&self, bytes: Param<Tensor<2, Int>>, delta: Param<Tensor<2>>) -> Self {
        Self { bytes, delta, host: OnceLock::new(), ..*self }
    }

    /// The numbers in f32, `[rows, columns]`, without an adapter.
    pub(super) fn numbers(&self) -> Tensor<2> {
        let device = self.bytes.device();
        let numbers = match self.on_host() {
            Some(weight) => weight.all(),
            None => {
                let bytes = self.bytes.val().into_data().convert_dtype(DType::U8);
                self.format.dequantize(bytes.as_bytes()).expect("whole blocks")
            }
        };
        Tensor::from_data(TensorData::new(numbers, self.shape()), (&device, DType::F32))
    }

    /// The shape of the parameter.
    fn parameter_shape(&self) -> [usize; 2] {
        let [rows, columns] = self.shape();
        if self.transposed { [columns, rows] } else { [rows, columns] }
    }
}

/// The bytes of a matrix: a vector, or Burn's [`Bytes`], which may be a part of a mapped file.
#[derive(Debug)]
pub struct StoredBytes(Bytes);

impl From<Vec<u8>> for StoredBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Bytes::from_elems(bytes))
    }
}

impl From<Bytes> for StoredBytes {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Reparameterization for Blocks {
    const NAME: &'static str = "blocks";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let numbers = self.numbers();
        let numbers = if self.transposed { numbers.transpose() } else { numbers };
        let numbers = match self.adapter() {
            Some(adapter) => numbers + adapter.delta(),
            None => numbers,
        };
        numbers.cast(base.dtype()).reshape(Shape::from(self.parameter_shape().to_vec())) // [rows, columns], or transposed
    }
}

/// `module` with blocks for each matrix that `choose` gives some for. It gets the path and the shape of
/// the parameter: `[inputs, outputs]` of a projection.
///
/// # Panics
///
/// If the blocks are of another shape.
#[must_use]
pub fn with_blocks<M: Module>(
    module: M,
    choose: impl FnMut(&str, [usize; 2]) -> Option<Blocks>,
) -> M {
    module.apply_reparameterization(Chosen(choose))
}

struct Chosen<F>(F);

impl<F: FnMut(&str, [usize; 2]) -> Option<Blocks>> Reparameterizer for Chosen<F> {
    type Reparam = Blocks;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Blocks>) {
        let shape = param.lazy_shape();
        let &[rows, columns] = &shape[..] else { return (param, None) };
        let Some(blocks) = (self.0)(path, [rows, columns]) else { return (param, None) };
        let got = blocks.parameter_shape();
        assert!(got == [rows, columns], "{path}: expected blocks for {shape:?}, got {got:?}");
        (placeholder(param), Some(blocks))
    }
}

/// The parameter whose value is elsewhere: one number, which asks for a gradient as any parameter does.
fn placeholder<const D: usize>(param: Param<Tensor<D>>) -> Param<Tensor<D>> {
    let (id, device) = (param.id, param.lazy_device());
    // Not by `map`, which would make a value that nobody needs.
    let number = Tensor::zeros([1; D], (&device, DType::F32));
    let (_, number, mapper) = Param::from_tensor(number).consume();
    Param::from_mapped_value(id, number, mapper)
}

/// What a visitor is told that its parts are in.
pub(super) const CONTAINER: &str = "Struct:Blocks";

impl Module for Blocks {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.delta.collect_devices(self.bytes.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.with(self.bytes.clone().fork(device), self.delta.clone().fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(self.bytes.clone().to_device(device), self.delta.clone().to_device(device))
    }

    fn train(self) -> Self {
        self.with(self.bytes.clone().train(), self.delta.clone().train())
    }

    fn valid(&self) -> Self {
        self.with(self.bytes.valid(), self.delta.valid())
    }

    fn materialize(self) -> Self {
        // What becomes of a parameter is said by whoever holds it, see `apply`.
        self
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        // By the name of the format, so that a record tells it.
        visitor.enter_module(self.format.name(), CONTAINER);
        self.bytes.visit(visitor);
        visitor.exit_module(self.format.name(), CONTAINER);
        visitor.enter_module("delta", CONTAINER);
        self.delta.visit(visitor);
        visitor.exit_module("delta", CONTAINER);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        mapper.enter_module(self.format.name(), CONTAINER);
        let bytes = Module::map(self.bytes.clone(), mapper);
        mapper.exit_module(self.format.name(), CONTAINER);
        mapper.enter_module("delta", CONTAINER);
        let delta = if self.delta.adapter().is_some() {
            Module::map(self.delta.clone(), mapper)
        } else {
            // A record has one number for it; an adapter asks for one as large as the matrix.
            let shape = self.parameter_shape();
            let whole = Param::uninitialized(
                self.delta.id,
                move |device, _| Tensor::<2>::zeros([1, 1], device).expand(shape),
                self.delta.device(),
                false,
                [1, 1].into(),
            );
            let mapped = Module::map(whole, mapper);
            match mapped.is_initialized() {
                true => Module::map(mapped, &mut OneNumber { depth: 0 }),
                false => self.delta.clone(),
            }
        };
        mapper.exit_module("delta", CONTAINER);
        self.with(bytes, delta)
    }
}

/// Leaves the first number of a parameter, and its adapter whole.
struct OneNumber {
    /// How deep in the parameter: its adapter's are within.
    depth: usize,
}

impl ModuleMapper for OneNumber {
    fn enter_module(&mut self, _name: &str, _container_type: &str) {
        self.depth += 1;
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.depth -= 1;
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.depth > 0 {
            return param;
        }
        param.map(|numbers| numbers.slice(std::array::from_fn::<_, D, _>(|_| 0..1)))
    }
}

impl ModuleDisplayDefault for Blocks {
    fn content(&self, content: Content) -> Option<Content> {
        let [rows, columns] = self.shape();
        content
            .add_debug_attribute("format", &self.format)
            .add("rows", &rows)
            .add("columns", &columns)
            .optional()
    }
}

impl ModuleDisplay for Blocks {}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ModuleDisplay::format(self, Default::default()))
    }
}
