//! Which layers have a window.

use super::fields::Fields;
use crate::Result;

/// The window of each layer: by `layer_types` if the file has them, by `rule` if not.
///
/// `window` is what layers of the sliding kind see; none if the model has it switched off.
pub fn read(
    fields: &Fields,
    layers: usize,
    window: Option<usize>,
    rule: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    let Some(slides) = layer_types(fields, layers)? else {
        return Ok((0..layers).map(|layer| window.filter(|_| rule(layer))).collect());
    };
    Ok(slides.into_iter().map(|slides| window.filter(|_| slides)).collect())
}

/// Whether each layer is of the sliding kind, if the file says so layer by layer.
pub fn layer_types(fields: &Fields, layers: usize) -> Result<Option<Vec<bool>>> {
    let Some(value) = fields.get("layer_types") else { return Ok(None) };
    let kinds: Option<Vec<bool>> = value.as_array().and_then(|kinds| {
        let kinds = kinds.iter().map(|kind| match kind.as_str() {
            Some("sliding_attention") => Some(true),
            Some("full_attention") => Some(false),
            _ => None,
        });
        kinds.collect()
    });
    match kinds.filter(|kinds| kinds.len() == layers) {
        Some(kinds) => Ok(Some(kinds)),
        None => fields.refuse(
            "layer_types",
            format!("sliding_attention or full_attention for each of the {layers} layers"),
        ),
    }
}
