//! What does not fit between a checkpoint and a model.

use std::fmt;

/// Tensors of a checkpoint that are not those of the model: all of them, by the checkpoint's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightsMismatch {
    /// The file or folder.
    pub path: String,
    /// Tensors that the model needs and that are not there.
    pub missing: Vec<String>,
    /// Tensors that the model has no use for.
    pub unused: Vec<String>,
    /// Tensors of another shape.
    pub wrong_shape: Vec<WrongShape>,
    /// Tensors of a type that is not f16, bf16, f32 or f64, with it.
    pub wrong_type: Vec<(String, String)>,
    /// Tensors that are copies of another one by the configuration (a tied head), and that hold
    /// other values than it, with its name.
    pub not_copies: Vec<(String, String)>,
    /// Parameters of the model, by this crate's names, that the format has no place for.
    pub nameless: Vec<String>,
    /// What to do, where the names tell: a prefix, tensors to ignore, weights that are quantised.
    pub hints: Vec<String>,
}

/// A tensor of another shape than the model's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongShape {
    /// The tensor, by the checkpoint's name.
    pub name: String,
    /// The shape that the model's configuration asks for.
    pub expected: Vec<usize>,
    /// The shape in the file.
    pub got: Vec<usize>,
}

impl WeightsMismatch {
    /// Whether everything fits.
    #[cfg(feature = "import")]
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty()
            && self.unused.is_empty()
            && self.wrong_shape.is_empty()
            && self.wrong_type.is_empty()
            && self.not_copies.is_empty()
            && self.nameless.is_empty()
    }
}

/// How many names a message lists of each kind; the fields have them all.
const LISTED: usize = 40;

impl fmt::Display for WeightsMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: expected the tensors that the configuration asks for, got others",
            self.path
        )?;
        list(f, "missing", self.missing.iter().cloned())?;
        list(f, "unused", self.unused.iter().cloned())?;
        let shapes = self.wrong_shape.iter().map(|WrongShape { name, expected, got }| {
            format!("{name}: expected {expected:?}, got {got:?}")
        });
        list(f, "of another shape", shapes)?;
        let types = self
            .wrong_type
            .iter()
            .map(|(name, got)| format!("{name}: expected f16, bf16, f32 or f64, got {got}"));
        list(f, "of another type", types)?;
        let copies = self
            .not_copies
            .iter()
            .map(|(name, of)| format!("{name}: expected a copy of {of}, got other values"));
        list(f, "tied by the configuration", copies)?;
        list(f, "parameters without a place in this format", self.nameless.iter().cloned())?;
        self.hints.iter().try_for_each(|hint| write!(f, "\n  {hint}"))
    }
}

impl std::error::Error for WeightsMismatch {}

fn list(
    f: &mut fmt::Formatter<'_>,
    kind: &str,
    items: impl ExactSizeIterator<Item = String>,
) -> fmt::Result {
    let total = items.len();
    if total == 0 {
        return Ok(());
    }
    let items: Vec<String> = items.take(LISTED).collect();
    write!(f, "\n  {kind}: {}", items.join(", "))?;
    match total - items.len() {
        0 => Ok(()),
        more => write!(f, ", and {more} more"),
    }
}
