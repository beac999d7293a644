//! Rotary positions in a configuration.
//!
//! New files have everything in `rope_parameters`; older ones have the base beside it as
//! `rope_theta`, and the scaling in `rope_scaling`, whose kind is `rope_type` or, older still,
//! `type`.

use super::fields::Fields;
use crate::Result;
use crate::attention::{RotaryConfig, RotaryScaling};

/// Where older files have what `rope_parameters` holds, and what a file without it means.
pub struct Old {
    /// The field of the base.
    pub base: &'static str,
    pub default_base: f64,
    /// The field of the part of a head that is turned; none if it is always all of it.
    pub part: Option<&'static str>,
    pub default_part: f64,
}

/// A model that turns whole heads.
pub const WHOLE_HEADS: Old =
    Old { base: "rope_theta", default_base: 10_000.0, part: None, default_part: 1.0 };

/// The rotary positions of a model that has one kind of them.
pub fn read(fields: &Fields, head_dim: usize, old: &Old) -> Result<RotaryConfig> {
    let new = fields.find_object("rope_parameters")?;
    let scaling = fields.find_object("rope_scaling")?;
    read_from(fields, new.or(scaling), head_dim, old)
}

/// The rotary positions that `block` describes, with what stands beside it in `fields`.
pub fn read_from(
    fields: &Fields,
    block: Option<Fields>,
    head_dim: usize,
    old: &Old,
) -> Result<RotaryConfig> {
    let find = |new: &str, beside: &str| {
        let inside = block.as_ref().map(|block| block.find_number(new)).transpose()?.flatten();
        match inside {
            Some(number) => Ok(Some(number)),
            None => fields.find_number(beside),
        }
    };
    let base = find("rope_theta", old.base)?.unwrap_or(old.default_base);
    let part = find("partial_rotary_factor", old.part.unwrap_or("partial_rotary_factor"))?;
    let part = part.unwrap_or(old.default_part);
    if old.part.is_none() && part != 1.0 {
        let has_it = |block: &&Fields| block.get("partial_rotary_factor").is_some();
        let holder = block.as_ref().filter(has_it).unwrap_or(fields);
        return holder.refuse("partial_rotary_factor", "1, since these models turn whole heads");
    }
    // Rounded down, as Python's int() does.
    let dim = (head_dim as f64 * part) as usize;
    Ok(RotaryConfig::new()
        .with_base(base)
        .with_dim(Some(dim))
        .with_scaling(block.map(|block| scaling(fields, &block)).transpose()?.flatten()))
}

/// The scaling that `block` describes.
fn scaling(fields: &Fields, block: &Fields) -> Result<Option<RotaryScaling>> {
    let name = if block.get("rope_type").is_some() { "rope_type" } else { "type" };
    let original_context = || {
        let there = block.find_size("original_max_position_embeddings")?;
        match there {
            Some(context) => Ok(context),
            None => fields.size("max_position_embeddings"),
        }
    };
    Ok(match block.find_text(name)?.unwrap_or("default") {
        "default" => None,
        "linear" => Some(RotaryScaling::Linear { factor: block.number("factor")? }),
        "llama3" => Some(RotaryScaling::Llama3 {
            factor: block.number("factor")?,
            low_freq_factor: block.number("low_freq_factor")?,
            high_freq_factor: block.number("high_freq_factor")?,
            original_context: block.size("original_max_position_embeddings")?,
        }),
        "yarn" => {
            block.require_none("mscale")?;
            block.require_none("mscale_all_dim")?;
            Some(RotaryScaling::Yarn {
                factor: block.number("factor")?,
                original_context: original_context()?,
                beta_fast: block.number_or("beta_fast", 32.0)?,
                beta_slow: block.number_or("beta_slow", 1.0)?,
                attention_factor: block.find_number("attention_factor")?,
                truncate: block.flag_or("truncate", true)?,
            })
        }
        _ => return block.refuse(name, "one of default, linear, llama3, yarn"),
    })
}
