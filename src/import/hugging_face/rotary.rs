//! Rotary positions in a configuration.
//!
//! New files have everything in `rope_parameters`; older ones have the base beside it as
//! `rope_theta`, and the scaling in `rope_scaling`, whose kind is `rope_type` or, older still,
//! `type`. A `rope_scaling` beside `rope_parameters` takes its place, as in transformers.
//!
//! Nothing that is said of rotary positions is dropped: what the kind of a block does not read, what
//! contradicts another field, and what another field takes the place of are errors.

use serde_json::Value;

use super::fields::Fields;
use crate::Result;
use crate::attention::{RotaryConfig, RotaryScaling};

/// Where older files have what `rope_parameters` holds, and what a file without it means.
pub struct LegacyKeys {
    /// The field of the base.
    pub base: &'static str,
    pub default_base: f64,
    /// The field of the part of a head that is rotated; none if it is always all of it.
    pub part: Option<&'static str>,
    pub default_part: f64,
    /// The trained context of a file without `max_position_embeddings`.
    pub default_context: usize,
}

/// A model that rotates whole heads, and was trained for 2048 tokens.
pub const WHOLE_HEADS: LegacyKeys = LegacyKeys {
    base: "rope_theta",
    default_base: 10_000.0,
    part: None,
    default_part: 1.0,
    default_context: 2048,
};

/// The fields of the base and of the part, as newer files spell them.
const BASE: &str = "rope_theta";
const PART: &str = "partial_rotary_factor";
const CONTEXT: &str = "original_max_position_embeddings";

/// The rotary positions of a model that has one kind of them.
pub fn read(fields: &Fields, head_dim: usize, keys: &LegacyKeys) -> Result<RotaryConfig> {
    refuse_unread(fields, &["rope_parameters", "rope_scaling", BASE, keys.base, keys.part_key()])?;
    let parameters = fields.find_object("rope_parameters")?;
    // An empty object is as good as none.
    let scaling = fields.find_object("rope_scaling")?.filter(|block| !block.values().is_empty());
    if let (Some(parameters), Some(scaling)) = (&parameters, &scaling) {
        refuse_replaced(fields, parameters, scaling, keys)?;
    }
    read_from(fields, scaling.or(parameters), head_dim, keys)
}

/// The rotary positions that `block` describes, with what stands beside it in `fields`.
pub fn read_from(
    fields: &Fields,
    block: Option<Fields>,
    head_dim: usize,
    keys: &LegacyKeys,
) -> Result<RotaryConfig> {
    let base = number(fields, block.as_ref(), BASE, keys.base)?.unwrap_or(keys.default_base);
    let part = number(fields, block.as_ref(), PART, keys.part_key())?.unwrap_or(keys.default_part);
    if keys.part.is_none() && part != 1.0 {
        let has_it = |block: &&Fields| block.get(PART).is_some();
        let holder = block.as_ref().filter(has_it).unwrap_or(fields);
        return holder.refuse(PART, "1, since these models rotate whole heads");
    }
    // The newer name beside an older one.
    for (name, old, value) in [(BASE, keys.base, base), (PART, keys.part_key(), part)] {
        let beside = if name == old || old == "rope_local_base_freq" {
            None
        } else {
            fields.find_number(name)?
        };
        if beside.is_some_and(|beside| beside != value) {
            return fields
                .refuse(name, format!("{value}, as {old} says or a file without it means"));
        }
    }
    // Rounded down, as Python's int() does.
    let dim = (head_dim as f64 * part) as usize;
    Ok(RotaryConfig::new()
        .with_base(base)
        .with_dim(Some(dim))
        .with_scaling(block.map(|block| scaling(fields, &block, keys)).transpose()?.flatten()))
}

/// An error for any field about rotary positions that is not one of `read`. Families without rotary
/// positions read none.
pub fn refuse_unread(fields: &Fields, read: &[&str]) -> Result<()> {
    let is_unread = |name: &&str| {
        (name.starts_with("rope_") || name.starts_with("rotary_"))
            && !read.contains(name)
            && fields.get(name) != Some(&Value::Bool(false))
    };
    match fields.names().find(is_unread) {
        None => Ok(()),
        Some(name) => fields.refuse(name, "nothing: models of this type do not read it"),
    }
}

impl LegacyKeys {
    fn part_key(&self) -> &'static str {
        self.part.unwrap_or(PART)
    }
}

/// The number called `name` in the block or `beside` it, where both must be the same.
fn number(
    fields: &Fields,
    block: Option<&Fields>,
    name: &str,
    beside: &str,
) -> Result<Option<f64>> {
    let inside = block.map(|block| block.find_number(name)).transpose()?.flatten();
    let beside_it = fields.find_number(beside)?;
    match (inside, beside_it) {
        (Some(inside), Some(other)) if inside != other => {
            fields.refuse(beside, format!("{inside}, as the block of rotary positions says"))
        }
        _ => Ok(inside.or(beside_it)),
    }
}

/// An error for what `rope_parameters` says and `rope_scaling`, which takes its place, does not.
fn refuse_replaced(
    fields: &Fields,
    parameters: &Fields,
    scaling: &Fields,
    keys: &LegacyKeys,
) -> Result<()> {
    for name in parameters.names() {
        let there = parameters.get(name);
        let holds = match name {
            "rope_type" | "type" => {
                there.is_some_and(|kind| kind == "default") || there == kind(scaling)?.1
            }
            BASE => {
                let base = number(fields, Some(scaling), BASE, keys.base)?;
                there.and_then(Value::as_f64) == Some(base.unwrap_or(keys.default_base))
            }
            _ => there == scaling.get(name),
        };
        if !holds {
            let expected =
                "nothing: rope_scaling takes the place of rope_parameters; say it in rope_scaling";
            return parameters.refuse(name, expected);
        }
    }
    Ok(())
}

/// The field that names the kind of a block, and the kind.
fn kind<'a>(block: &Fields<'a>) -> Result<(&'static str, Option<&'a Value>)> {
    let (new, old) = (block.get("rope_type"), block.get("type"));
    if let (Some(new), Some(old)) = (new, old)
        && new != old
    {
        return block.refuse("type", format!("{new}, as rope_type says"));
    }
    Ok(if new.is_some() { ("rope_type", new) } else { ("type", old) })
}

/// The scaling that `block` describes.
fn scaling(fields: &Fields, block: &Fields, keys: &LegacyKeys) -> Result<Option<RotaryScaling>> {
    let (name, _) = kind(block)?;
    let kind = block.find_text(name)?.unwrap_or("default");
    let read: &[&str] = match kind {
        "default" => &[],
        // Where a scaled model says what it was trained for, as a record.
        "linear" => &["factor", CONTEXT],
        "llama3" => &["factor", "low_freq_factor", "high_freq_factor", CONTEXT],
        "yarn" => &[
            "factor",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
            CONTEXT,
        ],
        _ => return block.refuse(name, "one of default, linear, llama3, yarn"),
    };
    // `finetuned` is a record too.
    let common = ["rope_type", "type", BASE, PART, "finetuned"];
    if let Some(unread) = block.names().find(|name| !read.contains(name) && !common.contains(name))
    {
        let reads = match read {
            [] => "only rope_theta; name a rope_type (linear, llama3, yarn) to scale".into(),
            _ => read.join(", "),
        };
        let expected = format!("nothing: the rope_type {kind} does not read it, it reads {reads}");
        return block.refuse(unread, expected);
    }
    Ok(match kind {
        "linear" => Some(RotaryScaling::Linear { factor: block.number("factor")? }),
        "llama3" => Some(RotaryScaling::Llama3 {
            factor: block.number("factor")?,
            low_freq_factor: block.number("low_freq_factor")?,
            high_freq_factor: block.number("high_freq_factor")?,
            original_context: original_context(fields, block, keys)?,
        }),
        "yarn" => Some(RotaryScaling::Yarn {
            factor: block.number("factor")?,
            original_context: original_context(fields, block, keys)?,
            beta_fast: block.number_or("beta_fast", 32.0)?,
            beta_slow: block.number_or("beta_slow", 1.0)?,
            attention_factor: attention_factor(block)?,
            truncate: block.flag_or("truncate", true)?,
        }),
        _ => None,
    })
}

/// The trained context: beside the block, in it, or that of the model.
fn original_context(fields: &Fields, block: &Fields, keys: &LegacyKeys) -> Result<usize> {
    let (beside, inside) = (fields.find_size(CONTEXT)?, block.find_size(CONTEXT)?);
    match (beside, inside) {
        (Some(beside), Some(inside)) if beside != inside => {
            block.refuse(CONTEXT, format!("{beside}, as beside the block"))
        }
        (Some(context), _) | (None, Some(context)) => Ok(context),
        (None, None) => fields.size("max_position_embeddings", keys.default_context),
    }
}

/// What yarn's rotated vectors are multiplied by: as given, by the two `mscale` (DeepSeek), or by the
/// paper's formula.
fn attention_factor(block: &Fields) -> Result<Option<f64>> {
    let given = block.find_number("attention_factor")?;
    // 0 is as good as nothing.
    let number =
        |name| -> Result<_> { Ok(block.find_number(name)?.filter(|number| *number != 0.0)) };
    match (given, number("mscale")?, number("mscale_all_dim")?) {
        (given, None, None) => Ok(given),
        (None, Some(mscale), Some(all)) => {
            let factor = block.number("factor")?;
            let amplitude =
                |mscale| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
            Ok(Some(amplitude(mscale) / amplitude(all)))
        }
        (Some(_), Some(_), _) => block.refuse("mscale", "nothing beside attention_factor"),
        (Some(_), None, Some(_)) => {
            block.refuse("mscale_all_dim", "nothing beside attention_factor")
        }
        (None, Some(_), None) => block.refuse("mscale", "mscale_all_dim beside it"),
        (None, None, Some(_)) => block.refuse("mscale_all_dim", "mscale beside it"),
    }
}
