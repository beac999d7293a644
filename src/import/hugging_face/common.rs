//! What several families have in common: sizes, grouped heads, gated feed-forward parts, and the names
//! of Llama's tensors.

use super::activation;
use super::fields::Fields;
use crate::Result;
use crate::attention::MultiHeadAttentionConfig;
use crate::decoder::{FeedForwardConfig, NormConfig};
use crate::import::table::{Row, Table};

/// The sizes of a model.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub vocab_size: usize,
    pub d_model: usize,
    pub d_ff: usize,
    pub layers: usize,
    pub heads: usize,
    pub kv_heads: usize,
}

impl Sizes {
    /// The sizes of a file, where `self` is what one without them means: the family's defaults in
    /// transformers. Where the number of key/value heads is null, it is that of the heads.
    pub fn read(self, fields: &Fields) -> Result<Self> {
        let heads = fields.size("num_attention_heads", self.heads)?;
        let kv_heads = fields.find_size_or("num_key_value_heads", self.kv_heads)?;
        Ok(Self {
            vocab_size: fields.size("vocab_size", self.vocab_size)?,
            d_model: fields.size("hidden_size", self.d_model)?,
            d_ff: fields.size("intermediate_size", self.d_ff)?,
            layers: fields.layers("num_hidden_layers", self.layers)?,
            heads,
            kv_heads: kv_heads.unwrap_or(heads),
        })
    }

    /// The same in a family without a default number of key/value heads: that of the heads.
    pub fn read_ungrouped(self, fields: &Fields) -> Result<Self> {
        let heads = fields.size("num_attention_heads", self.heads)?;
        Self { kv_heads: heads, ..self }.read(fields)
    }

    /// The width of a head where the file does not say it.
    pub fn head_dim(&self) -> usize {
        self.d_model / self.heads
    }

    /// Heads in groups.
    pub fn grouped_heads(
        &self,
        fields: &Fields,
        head_dim: usize,
    ) -> Result<MultiHeadAttentionConfig> {
        Ok(MultiHeadAttentionConfig::new(self.d_model, self.heads)
            .with_kv_heads(Some(self.kv_heads))
            .with_head_dim(Some(head_dim))
            .with_dropout(fields.number_or("attention_dropout", 0.0)?))
    }

    /// SwiGLU.
    pub fn feed_forward(&self, fields: &Fields) -> Result<FeedForwardConfig> {
        let activation = activation::gated(fields, "hidden_act", "silu")?;
        Ok(FeedForwardConfig::new(self.d_model, self.d_ff).with_activation(activation))
    }
}

/// RMSNorm with the file's ε.
pub fn rms_norm(fields: &Fields, epsilon: f64) -> Result<NormConfig> {
    Ok(NormConfig::rms_norm().with_epsilon(fields.number_or("rms_norm_eps", epsilon)?))
}

/// Llama's names of all but the layers' norms, which each family has its own way.
pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::embedding("embedding", "model.embed_tokens"),
        Row::norm("decoder.final_norm", "model.norm"),
        Row::linear("head", "lm_head"),
    ];
    let attention =
        [("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj"), ("output", "o_proj")];
    rows.extend(attention.map(|(ours, theirs)| {
        Row::linear(ours, theirs)
            .inside("decoder.layers.*.self_attention.", "model.layers.*.self_attn.")
    }));
    let norms = [("query_norm", "q_norm"), ("key_norm", "k_norm")];
    rows.extend(norms.map(|(ours, theirs)| {
        Row::norm(ours, theirs)
            .inside("decoder.layers.*.self_attention.", "model.layers.*.self_attn.")
    }));
    let feed_forward = [("up", "up_proj"), ("gate", "gate_proj"), ("down", "down_proj")];
    rows.extend(feed_forward.map(|(ours, theirs)| {
        Row::linear(ours, theirs).inside("decoder.layers.*.feed_forward.", "model.layers.*.mlp.")
    }));
    rows
}

/// [`rows`] and the names of the layers' norms.
pub fn rows_with_norms(norms: &[(&str, &str)]) -> Vec<Row> {
    let mut rows = rows();
    rows.extend(norms.iter().map(|(ours, theirs)| {
        Row::norm(ours, theirs).inside("decoder.layers.*.", "model.layers.*.")
    }));
    rows
}

/// The table of these rows.
pub fn table(rows: Vec<Row>, tied: bool) -> Table {
    let table = Table::new(rows).with_skipped(&["*.rotary_emb.inv_freq"]).with_base("model.");
    if tied { table.with_copies("model.embed_tokens.weight", &["lm_head.weight"]) } else { table }
}
