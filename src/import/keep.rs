//! Matrices that stay as a file stores them.

use std::collections::BTreeMap;

use burn::module::{Module, Param, Reparameterizer};
use burn::store::burn_pack;
use burn::tensor::{Device, Tensor};

use super::form::Form;
use super::load::{Listening, Planned};
use super::stored::{Place, Stored};
use crate::weights::{Blocks, Format, keeps};

/// Where the rows of a parameter's blocks are.
enum KeptRows {
    /// All rows of a table.
    Table,
    /// Each output is one of these.
    Outputs(Vec<usize>),
    /// Outputs lie across the rows: plain numbers, put in order for a parameter of this shape,
    /// `[inputs, outputs]`.
    Across(Form, [usize; 2]),
}

/// What stays, put into a module before everything else is loaded.
pub struct Keeping<'a> {
    matrices: BTreeMap<String, KeptMatrix>,
    place: Place,
    reading: &'a Listening,
}

struct KeptMatrix {
    name: String,
    matrix: Stored,
    rows: KeptRows,
    device: Device,
    place: Place,
    /// Bytes that its progress counts.
    told: usize,
}

impl<'a> Keeping<'a> {
    pub fn new(place: Place, reading: &'a Listening) -> Self {
        Self { matrices: BTreeMap::new(), place, reading }
    }

    /// Whether a parameter can keep a matrix as it is, which it then does.
    pub fn takes(&mut self, planned: &Planned, matrix: &Stored) -> bool {
        let Planned { parameter, tensor, form, bytes } = planned;
        let &[inputs, outputs] = &parameter.shape[..] else { return false };
        let is_table = parameter.path.rsplit('.').nth(1) == Some("embedding");
        // Not a table of learned positions.
        let path = parameter.path.as_str();
        let is_weight = path.ends_with(".weight") && !path.ends_with(".table.weight");
        let rows = match (form, form.rows(outputs)) {
            (Form::Same, _) if is_table => KeptRows::Table,
            (_, Some(rows)) => KeptRows::Outputs(rows),
            _ if is_weight && !matrix.format.is_quantized() => {
                KeptRows::Across(*form, [inputs, outputs])
            }
            _ => return false,
        };
        if !keeps(&parameter.device) {
            return false;
        }
        let kept = KeptMatrix {
            name: tensor.name.clone(),
            matrix: matrix.clone(),
            rows,
            device: parameter.device.clone(),
            told: *bytes,
            place: self.place,
        };
        self.matrices.insert(parameter.path.clone(), kept);
        true
    }

    /// The module with them, and what went wrong.
    pub fn apply<M: Module>(self, module: M) -> (M, Option<String>) {
        let Self { mut matrices, reading, .. } = self;
        if matrices.is_empty() {
            return (module, None);
        }
        let mut error = None;
        let keeper = Keeper { matrices: &mut matrices, reading, error: &mut error };
        let module = module.apply_reparameterization(keeper);
        // Paths here go without the names of enum variants, those of the walk with them.
        if let Some(path) = matrices.keys().next() {
            error.get_or_insert(format!("{path} within an enum, which can't keep what is stored"));
        }
        (module, error)
    }
}

struct Keeper<'a> {
    matrices: &'a mut BTreeMap<String, KeptMatrix>,
    reading: &'a Listening,
    error: &'a mut Option<String>,
}

impl KeptMatrix {
    fn read(self) -> Result<Blocks, String> {
        let Self { matrix, rows, device, place, .. } = self;
        let [all, columns] = matrix.shape;
        let text = |error: burn_pack::Error| error.to_string();
        let blocks = match rows {
            KeptRows::Table => {
                let bytes = matrix.read(place).map_err(text)?;
                Blocks::embedding(matrix.format, [all, columns], bytes, &device)
            }
            KeptRows::Outputs(rows) => {
                let bytes = matrix.rows(&rows, place).map_err(text)?;
                Blocks::projection(matrix.format, [rows.len(), columns], bytes, &device)
            }
            KeptRows::Across(form, [inputs, outputs]) => {
                let theirs = matrix.read(Place::File).map_err(text)?;
                let bytes = match matrix.format {
                    Format::F32 => turned::<4>(&theirs, form, [inputs, outputs]),
                    _ => turned::<2>(&theirs, form, [inputs, outputs]),
                };
                Blocks::projection(matrix.format, [outputs, inputs], bytes, &device)
            }
        };
        blocks.map_err(|error| error.to_string())
    }
}

/// The rows of plain numbers of `N` bytes each, `[outputs, inputs]`.
fn turned<const N: usize>(theirs: &[u8], form: Form, [inputs, outputs]: [usize; 2]) -> Vec<u8> {
    let (theirs, _) = theirs.as_chunks::<N>();
    let mut rows = vec![0; inputs * outputs * N];
    let (numbers, _) = rows.as_chunks_mut::<N>();
    form.for_each(&[inputs, outputs], |ours, there| {
        numbers[ours % outputs * inputs + ours / outputs] = theirs[there];
    });
    rows
}

impl Reparameterizer for Keeper<'_> {
    type Reparam = Blocks;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Blocks>) {
        let Some(kept) = self.matrices.remove(path) else { return (param, None) };
        let (name, told) = (kept.name.clone(), kept.told);
        match kept.read() {
            Ok(blocks) => {
                self.reading.tell(told);
                (Blocks::stand_for(param), Some(blocks))
            }
            Err(error) => {
                self.error.get_or_insert(format!("{name}: {error}"));
                (param, None)
            }
        }
    }
}
