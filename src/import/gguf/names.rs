//! What llama.cpp calls the tensors that transformers calls otherwise.

use crate::import::table::Table;

/// Outside of the layers.
const OUTSIDE: [(&str, &str); 4] = [
    ("embed_tokens", "token_embd"),
    ("final_layernorm", "output_norm"),
    ("norm", "output_norm"),
    ("lm_head", "output"),
];

/// In the layers, but for their norms.
const INSIDE: [(&str, &str); 14] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.dense", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("mlp.fc1", "ffn_up"),
    ("mlp.fc2", "ffn_down"),
];

/// The norms of a layer that has them before its parts.
pub const PRE: [(&str, &str); 2] =
    [("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm")];

/// The norms of a layer that has them behind its parts, too or alone.
pub const SANDWICH: [(&str, &str); 4] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// The tensor of the frequencies' factors, which are computed here.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The table of a model of transformers' in the names of llama.cpp.
pub fn renamed(table: Table, norms: &[(&str, &str)]) -> Table {
    let table = table.without_base().renamed(|name| match name.strip_prefix("layers.*.") {
        Some(inside) => {
            let inside = one_of(&INSIDE, inside).or_else(|| one_of(norms, inside));
            inside.map_or_else(|| name.into(), |inside| format!("blk.*.{inside}"))
        }
        None => one_of(&OUTSIDE, name).unwrap_or_else(|| name.into()),
    });
    table.with_skipped(&[ROPE_FACTORS])
}

/// The name that takes the place of `name`, with what stands behind it.
fn one_of(names: &[(&str, &str)], name: &str) -> Option<String> {
    names.iter().find_map(|(theirs, ours)| {
        let rest = name.strip_prefix(theirs)?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{ours}{rest}"))
    })
}
