//! What a checkpoint calls the parameters of a model: one table for both directions.
//!
//! A row names a part of the model, and with it the parameters of that part: a projection has a
//! weight and perhaps a bias, a norm has a scale and perhaps a shift. `*` stands for the number of
//! the layer.

use std::collections::BTreeSet;

use super::form::{Form, Packed};

/// One part of the model.
#[derive(Clone, Debug)]
pub struct Row {
    ours: String,
    theirs: String,
    part: PartNames,
}

#[derive(Clone, Copy, Debug)]
enum PartNames {
    /// One parameter: both names are whole.
    Parameter(Form),
    /// `weight` and `bias`, in these forms.
    Projection { weight: Form, bias: Form },
    /// `weight` and `bias` there, `gamma` and `beta` here.
    Norm,
    /// `gamma` and `beta` there too.
    SameNorm,
}

impl Row {
    /// One parameter, as it is.
    pub fn parameter(ours: &str, theirs: &str, form: Form) -> Self {
        Self::new(ours, theirs, PartNames::Parameter(form))
    }

    /// A table of vectors, one for each token or position.
    pub fn embedding(ours: &str, theirs: &str) -> Self {
        Self::new(ours, theirs, PartNames::Projection { weight: Form::Same, bias: Form::Same })
    }

    /// PyTorch's `Linear`: its weight is transposed.
    pub fn linear(ours: &str, theirs: &str) -> Self {
        Self::new(
            ours,
            theirs,
            PartNames::Projection { weight: Form::Transposed, bias: Form::Same },
        )
    }

    /// A projection that keeps its weight as Burn's `Linear` does.
    pub fn same_linear(ours: &str, theirs: &str) -> Self {
        Self::embedding(ours, theirs)
    }

    /// A projection that shares its tensors with others. `theirs` may end with the beginning of the
    /// last name (`in_proj_`).
    pub fn packed(ours: &str, theirs: &str, packed: Packed) -> Self {
        let form = Form::Packed(packed);
        Self::new(ours, theirs, PartNames::Projection { weight: form, bias: form })
    }

    /// LayerNorm or RMSNorm.
    pub fn norm(ours: &str, theirs: &str) -> Self {
        Self::new(ours, theirs, PartNames::Norm)
    }

    /// A norm that calls its parameters as Burn's do.
    pub fn same_norm(ours: &str, theirs: &str) -> Self {
        Self::new(ours, theirs, PartNames::SameNorm)
    }

    fn new(ours: &str, theirs: &str, part: PartNames) -> Self {
        Self { ours: ours.into(), theirs: theirs.into(), part }
    }

    /// The same part in a larger model, whose names have these in front.
    pub fn inside(self, ours: &str, theirs: &str) -> Self {
        Self {
            ours: format!("{ours}{}", self.ours),
            theirs: format!("{theirs}{}", self.theirs),
            part: self.part,
        }
    }

    /// Their name of the parameter `path`, and its form, if it belongs to this part.
    fn find(&self, path: &str) -> Option<(String, Form)> {
        if let PartNames::Parameter(form) = self.part {
            let layer = layer_of(&self.ours, path)?;
            return Some((self.theirs.replace('*', layer), form));
        }
        let (part, name) = path.rsplit_once('.')?;
        let layer = layer_of(&self.ours, part)?;
        let (name, form) = match (self.part, name) {
            (PartNames::Projection { weight, .. }, "weight") => ("weight", weight),
            (PartNames::Projection { bias, .. }, "bias") => ("bias", bias),
            (PartNames::Norm, "gamma") => ("weight", Form::Same),
            (PartNames::Norm, "beta") => ("bias", Form::Same),
            (PartNames::SameNorm, "gamma" | "beta") => (name, Form::Same),
            _ => return None,
        };
        let separator = if self.theirs.ends_with('_') { "" } else { "." };
        Some((format!("{}{separator}{name}", self.theirs.replace('*', layer)), form))
    }
}

/// What `*` stands for, if `path` is of this pattern: digits, or nothing where there is no `*`.
fn layer_of<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once('*') else {
        return (pattern == path).then_some("");
    };
    let layer = path.strip_prefix(before)?.strip_suffix(after)?;
    (!layer.is_empty() && layer.bytes().all(|byte| byte.is_ascii_digit())).then_some(layer)
}

/// All names of a format.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    /// Tensors that hold no parameter of the model, as patterns; `*` stands for anything.
    skipped: Vec<String>,
    /// Names that a tensor may have besides its own: the parts of a model that share it.
    copies: Vec<Copies>,
    /// What names begin with unless the checkpoint is of the model without its head.
    base: String,
    /// What stands before the base, where the model is a part of a larger checkpoint.
    prefix: String,
}

/// The names of one shared tensor.
#[derive(Clone, Debug)]
pub struct Copies {
    /// The one that the rows use.
    pub of: String,
    /// The others.
    pub names: Vec<String>,
}

impl Table {
    pub fn new(rows: Vec<Row>) -> Self {
        Self { rows, ..Self::default() }
    }

    /// More rows.
    #[cfg(test)]
    fn with_rows(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// More rows, which go before those that are there.
    pub fn with_rows_first(mut self, rows: impl IntoIterator<Item = Row>) -> Self {
        self.rows.splice(0..0, rows);
        self
    }

    /// Names that match one of `patterns` are known and not needed.
    pub fn with_skipped(mut self, patterns: &[&str]) -> Self {
        self.skipped.extend(patterns.iter().map(|&pattern| pattern.into()));
        self
    }

    /// The tensor `of` may also stand under the other names.
    pub fn with_copies(mut self, of: &str, names: &[&str]) -> Self {
        let names = names.iter().map(|&name| name.into()).collect();
        self.copies.push(Copies { of: of.into(), names });
        self
    }

    /// Names begin with `base`; those of the model without its head do not.
    pub fn with_base(mut self, base: &str) -> Self {
        self.base = base.into();
        self
    }

    /// The same table inside a larger checkpoint.
    pub fn inside(mut self, prefix: &str) -> Self {
        self.rename(|name| format!("{prefix}{name}"));
        self.prefix = format!("{prefix}{}", self.prefix);
        self
    }

    /// The table as a checkpoint with these `names` needs it: without the base if no name has it
    /// behind the prefix, and with the name of a shared tensor that the checkpoint chose. What never
    /// has the base, as the head, may then stand outside the prefix (`lm_head` beside
    /// `model.language_model.layers`).
    pub fn fitted_to(mut self, names: &BTreeSet<&str>) -> Self {
        let based = format!("{}{}", self.prefix, self.base);
        let holds = |start: &str| names.iter().any(|name| name.starts_with(start));
        if !self.base.is_empty() && !holds(&based) {
            for row in self.rows.iter_mut().filter(|row| !row.theirs.starts_with(&based)) {
                let bare = row.theirs.strip_prefix(&self.prefix).unwrap_or(&row.theirs);
                if !holds(&format!("{}.", row.theirs)) && holds(&format!("{bare}.")) {
                    row.theirs = bare.into();
                }
            }
            self = self.without_base();
        }
        for index in 0..self.copies.len() {
            let Copies { of, names: others } = &self.copies[index];
            if names.contains(of.as_str()) {
                continue;
            }
            let chosen = others.iter().position(|name| names.contains(name.as_str()));
            if let Some(chosen) = chosen {
                let old = of.clone();
                let new = std::mem::replace(&mut self.copies[index].names[chosen], old.clone());
                self.copies[index].of = new.clone();
                let weight = |name: &str| format!("{name}.weight");
                for row in &mut self.rows {
                    if weight(&row.theirs) == old {
                        row.theirs = new.strip_suffix(".weight").unwrap_or(&new).into();
                    }
                }
            }
        }
        self
    }

    /// The names of the model without its head.
    pub fn without_base(mut self) -> Self {
        let based = format!("{}{}", self.prefix, std::mem::take(&mut self.base));
        let prefix = self.prefix.clone();
        self.rename(|name| match name.strip_prefix(&based) {
            Some(rest) => format!("{prefix}{rest}"),
            None => name.into(),
        });
        self
    }

    /// The same table with each name, or pattern of names, in place of another.
    pub fn renamed(mut self, rename: impl Fn(&str) -> String) -> Self {
        self.rename(rename);
        self
    }

    fn rename(&mut self, rename: impl Fn(&str) -> String) {
        let rows = self.rows.iter_mut().map(|row| &mut row.theirs);
        let copies = self
            .copies
            .iter_mut()
            .flat_map(|copies| std::iter::once(&mut copies.of).chain(&mut copies.names));
        for name in rows.chain(copies).chain(&mut self.skipped) {
            *name = rename(name);
        }
    }

    /// Their name of the parameter `path`, and its form.
    pub fn find(&self, path: &str) -> Option<(String, Form)> {
        self.rows.iter().find_map(|row| row.find(path))
    }

    /// Whether the tensor `name` is known and not needed.
    pub fn skips(&self, name: &str) -> bool {
        self.skipped.iter().any(|pattern| match pattern.split_once('*') {
            Some((before, after)) => {
                name.len() >= before.len() + after.len()
                    && name.starts_with(before)
                    && name.ends_with(after)
            }
            None => pattern == name,
        })
    }

    /// The tensors that may stand under several names.
    pub fn copies(&self) -> &[Copies] {
        &self.copies
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::new(vec![
            Row::embedding("embedding", "model.embed"),
            Row::linear("layers.*.up", "model.h.*.fc"),
            Row::norm("layers.*.norm", "model.h.*.ln"),
            Row::parameter("bias", "logits_bias", Form::Row),
        ])
        .with_skipped(&["*.inv_freq", "model.encoder.*"])
        .with_copies("model.embed.weight", &["head.weight"])
        .with_base("model.")
    }

    #[test]
    fn parameters_are_found_by_part() {
        let found = |path: &str| table().find(path).map(|(name, form)| format!("{name} {form:?}"));
        assert_eq!(found("layers.12.up.weight").unwrap(), "model.h.12.fc.weight Transposed");
        assert_eq!(found("layers.0.up.bias").unwrap(), "model.h.0.fc.bias Same");
        assert_eq!(found("layers.0.norm.gamma").unwrap(), "model.h.0.ln.weight Same");
        assert_eq!(found("bias").unwrap(), "logits_bias Row");
        for unknown in ["layers.x.up.weight", "layers..up.weight", "layers.0.down.weight", "up"] {
            assert_eq!(found(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn buffers_are_skipped() {
        let table = table();
        assert!(table.skips("model.h.0.inv_freq") && table.skips("model.encoder.embed"));
        assert!(!table.skips("model.h.0.inv_freqs") && !table.skips("encoder"));
    }

    #[test]
    fn a_checkpoint_chooses_among_names() {
        let names = |names: &[&'static str]| -> BTreeSet<&str> { names.iter().copied().collect() };
        let found = |table: Table| table.find("embedding.weight").unwrap().0;
        assert_eq!(found(table().fitted_to(&names(&["model.embed.weight"]))), "model.embed.weight");
        // The model without its head.
        let bare = table().fitted_to(&names(&["embed.weight", "h.0.fc.weight"]));
        assert_eq!(bare.find("layers.0.up.weight").unwrap().0, "h.0.fc.weight");
        assert_eq!(found(bare), "embed.weight");
        // A tied tensor that was kept under the head's name.
        let tied = table().fitted_to(&names(&["head.weight", "model.h.0.fc.weight"]));
        assert_eq!(tied.copies()[0].names, ["model.embed.weight"]);
        assert_eq!(found(tied), "head.weight");
        // Part of something larger, with its base or without.
        let inside = || table().inside("lm.");
        assert_eq!(found(inside()), "lm.model.embed.weight");
        assert_eq!(
            found(inside().fitted_to(&names(&["lm.model.embed.weight"]))),
            "lm.model.embed.weight"
        );
        let bare = inside().fitted_to(&names(&["lm.embed.weight", "lm.h.0.fc.weight"]));
        assert_eq!(bare.find("layers.0.up.weight").unwrap().0, "lm.h.0.fc.weight");
        assert_eq!(found(bare), "lm.embed.weight");
        // A head outside the prefix.
        let head = || table().with_rows([Row::linear("head", "output")]).inside("lm.");
        let of = |table: Table| table.find("head.weight").unwrap().0;
        assert_eq!(
            of(head().fitted_to(&names(&["lm.embed.weight", "output.weight"]))),
            "output.weight"
        );
        for kept in
            [["lm.model.embed.weight", "output.weight"], ["lm.embed.weight", "lm.output.weight"]]
        {
            assert_eq!(of(head().fitted_to(&names(&kept))), "lm.output.weight");
        }
        // A prefix that ends with the base.
        let bare = table().inside("model.").fitted_to(&names(&["model.embed.weight"]));
        assert_eq!(found(bare), "model.embed.weight");
    }
}
