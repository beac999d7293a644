//! Multi-head attention: projections around
//! [`scaled_dot_product_attention`](super::scaled_dot_product_attention).
//!
//! ```text
//! head_i = attention(Q W_i^Q, K W_i^K, V W_i^V)
//! output = concat(head_1, ..., head_heads) W^O
//! ```
//!
//! (Vaswani et al. 2017, section 3.2.2.) With fewer key/value heads than query heads, consecutive
//! query heads share keys and values: grouped-query attention (Ainslie et al. 2023, section 2.2);
//! with one, multi-query attention (Shazeer 2019).

use burn::config::Config;
use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Initializer, Linear, LinearConfig};
use burn::tensor::{Device, Tensor, assert_shape};

use super::{AttentionOptions, AttentionOutput, scaled_dot_product_attention};
use crate::mask::LoweredMask;
use crate::ops::linear;
use crate::{Error, Result};

/// Configuration of [`MultiHeadAttention`].
///
/// ```
/// use burn_decoder::attention::MultiHeadAttentionConfig;
///
/// # #[cfg(feature = "ndarray")] {
/// # #[allow(deprecated)]
/// let device = burn::tensor::Device::ndarray();
/// assert!(MultiHeadAttentionConfig::new(64, 4).init(&device).is_ok());
///
/// let error = MultiHeadAttentionConfig::new(64, 5).init(&device).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "MultiHeadAttentionConfig::heads: expected a number that divides d_model 64, or head_dim \
///      to be given, got 5"
/// );
/// # }
/// ```
#[derive(Config, Debug, PartialEq)]
pub struct MultiHeadAttentionConfig {
    /// Width of the queries' input and of the output.
    pub d_model: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key/value heads, a divisor of `heads`; `heads` if not given.
    pub kv_heads: Option<usize>,
    /// Width of each head; `d_model / heads` if not given.
    pub head_dim: Option<usize>,
    /// Width of the keys' and values' input, for cross-attention to a memory of another width;
    /// `d_model` if not given.
    pub memory_dim: Option<usize>,
    /// Whether the query projection has a bias.
    #[config(default = true)]
    pub query_bias: bool,
    /// Whether the key projection has a bias.
    #[config(default = true)]
    pub key_bias: bool,
    /// Whether the value projection has a bias.
    #[config(default = true)]
    pub value_bias: bool,
    /// Whether the output projection has a bias.
    #[config(default = true)]
    pub output_bias: bool,
    /// Probability of dropping an attention weight in training.
    #[config(default = 0.0)]
    pub dropout: f64,
    /// What scores are multiplied by; `1 / sqrt(head_dim)` if not given.
    pub scale: Option<f64>,
    /// Bound of the scores, see [`AttentionOptions::softcap`]; none if not given.
    pub softcap: Option<f64>,
    /// How the projections start.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/f64::sqrt(3.0), fan_out_only:false}")]
    pub initializer: Initializer,
}

/// Queries, keys and values projected to heads, attention, and the heads projected back.
///
/// Self-attention where all three inputs are the same tensor, cross-attention otherwise. Built from
/// Burn's own `Linear`, so Burn's importers find what they know. See
/// [`MultiHeadAttentionConfig`].
#[derive(Module, Debug)]
pub struct MultiHeadAttention {
    /// `[d_model, heads * head_dim]`
    pub query: Linear,
    /// `[memory_dim, kv_heads * head_dim]`
    pub key: Linear,
    /// `[memory_dim, kv_heads * head_dim]`
    pub value: Linear,
    /// `[heads * head_dim, d_model]`
    pub output: Linear,
    /// Probability of dropping a weight, and whether this layer trains.
    pub dropout: Dropout,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key/value heads.
    pub kv_heads: usize,
    /// Width of each head.
    pub head_dim: usize,
    /// What scores are multiplied by; `1 / sqrt(head_dim)` if not given.
    pub scale: Option<f64>,
    /// Bound of the scores.
    pub softcap: Option<f64>,
}

/// What [`MultiHeadAttention`] gives back.
#[derive(Clone, Debug)]
pub struct MultiHeadOutput {
    /// `[batch, queries, d_model]`
    pub output: Tensor<3>,
    /// The weights before dropout, where asked for: `[batch, heads, queries, keys]`.
    pub weights: Option<Tensor<4>>,
}

impl MultiHeadAttentionConfig {
    /// Sets all four biases.
    pub fn with_biases(self, biases: bool) -> Self {
        self.with_query_bias(biases)
            .with_key_bias(biases)
            .with_value_bias(biases)
            .with_output_bias(biases)
    }

    /// The layer, with fresh weights on `device`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a size is 0, `heads` does not divide `d_model` and no `head_dim` is
    /// given, `kv_heads` does not divide `heads`, `dropout` is outside `[0, 1)`, `scale` is not
    /// finite, or `softcap` is not above 0.
    pub fn init(&self, device: &Device) -> Result<MultiHeadAttention> {
        let head_dim = self.validate()?;
        let kv_heads = self.kv_heads.unwrap_or(self.heads);
        let memory_dim = self.memory_dim.unwrap_or(self.d_model);
        let linear = |input, output, bias| {
            LinearConfig::new(input, output)
                .with_bias(bias)
                .with_initializer(self.initializer.clone())
                .init(device)
        };
        Ok(MultiHeadAttention {
            query: linear(self.d_model, self.heads * head_dim, self.query_bias),
            key: linear(memory_dim, kv_heads * head_dim, self.key_bias),
            value: linear(memory_dim, kv_heads * head_dim, self.value_bias),
            output: linear(self.heads * head_dim, self.d_model, self.output_bias),
            dropout: DropoutConfig::new(self.dropout).init(),
            heads: self.heads,
            kv_heads,
            head_dim,
            scale: self.scale,
            softcap: self.softcap,
        })
    }

    /// The width of a head, once everything is known to fit.
    fn validate(&self) -> Result<usize> {
        let wrong =
            |field, expected: String, got: String| Err(Error::Config { field, expected, got });
        let sizes = [
            ("MultiHeadAttentionConfig::d_model", Some(self.d_model)),
            ("MultiHeadAttentionConfig::heads", Some(self.heads)),
            ("MultiHeadAttentionConfig::kv_heads", self.kv_heads),
            ("MultiHeadAttentionConfig::head_dim", self.head_dim),
            ("MultiHeadAttentionConfig::memory_dim", self.memory_dim),
        ];
        for (field, size) in sizes {
            if size == Some(0) {
                return wrong(field, "at least 1".into(), "0".into());
            }
        }
        if self.head_dim.is_none() && !self.d_model.is_multiple_of(self.heads) {
            return wrong(
                "MultiHeadAttentionConfig::heads",
                format!("a number that divides d_model {}, or head_dim to be given", self.d_model),
                self.heads.to_string(),
            );
        }
        if let Some(kv_heads) = self.kv_heads
            && !self.heads.is_multiple_of(kv_heads)
        {
            return wrong(
                "MultiHeadAttentionConfig::kv_heads",
                format!("a number that divides the {} heads", self.heads),
                kv_heads.to_string(),
            );
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong(
                "MultiHeadAttentionConfig::dropout",
                "a probability in [0, 1)".into(),
                self.dropout.to_string(),
            );
        }
        if let Some(scale) = self.scale
            && !scale.is_finite()
        {
            return wrong(
                "MultiHeadAttentionConfig::scale",
                "a finite number".into(),
                scale.to_string(),
            );
        }
        if let Some(softcap) = self.softcap
            && !(softcap.is_finite() && softcap > 0.0)
        {
            return wrong(
                "MultiHeadAttentionConfig::softcap",
                "a finite number above 0".into(),
                softcap.to_string(),
            );
        }
        Ok(self.head_dim.unwrap_or(self.d_model / self.heads))
    }
}

impl MultiHeadAttention {
    /// Attention of `query` over `key` and `value`: projects, attends, projects back.
    ///
    /// `options` says what to return and how to compute. Its scale, softcap and dropout are the
    /// layer's own to say and must be left alone.
    ///
    /// # Shapes
    ///
    /// - query: `[batch, queries, d_model]`
    /// - key, value: `[batch, keys, memory_dim]`
    /// - output: `[batch, queries, d_model]`; a dead row is the output projection's bias
    ///
    /// # Panics
    ///
    /// If the shapes do not fit each other, the layer, the mask's grid or the options; if `options`
    /// has a scale, a softcap or a dropout; or as
    /// [`scaled_dot_product_attention`](super::scaled_dot_product_attention) does.
    pub fn forward(
        &self,
        query: Tensor<3>,
        key: Tensor<3>,
        value: Tensor<3>,
        mask: &LoweredMask,
        options: &AttentionOptions,
    ) -> MultiHeadOutput {
        let query = self.project_query(query);
        let (key, value) = self.project_key_value(key, value);
        self.attend(query, key, value, mask, options)
    }

    /// `[batch, queries, d_model]` to `[batch, heads, queries, head_dim]`.
    ///
    /// # Panics
    ///
    /// If the last axis is not `d_model`.
    pub fn project_query(&self, query: Tensor<3>) -> Tensor<4> {
        split_heads(linear(&self.query, query), self.heads)
    }

    /// Keys and values, `[batch, keys, memory_dim]` each, to `[batch, kv_heads, keys, head_dim]`:
    /// what a cache stores.
    ///
    /// # Panics
    ///
    /// If a last axis is not `memory_dim`.
    pub fn project_key_value(&self, key: Tensor<3>, value: Tensor<3>) -> (Tensor<4>, Tensor<4>) {
        (
            split_heads(linear(&self.key, key), self.kv_heads),
            split_heads(linear(&self.value, value), self.kv_heads),
        )
    }

    /// Attention of projected queries over projected keys and values, projected back.
    ///
    /// # Shapes
    ///
    /// - query: `[batch, heads, queries, head_dim]`
    /// - key, value: `[batch, kv_heads, keys, head_dim]`
    /// - output: `[batch, queries, d_model]`
    ///
    /// # Panics
    ///
    /// As [`forward`](Self::forward).
    pub fn attend(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        mask: &LoweredMask,
        options: &AttentionOptions,
    ) -> MultiHeadOutput {
        let [batch, _, queries, _] = query.dims();
        assert_shape!(query, [batch, self.heads, queries, self.head_dim]);
        assert_shape!(key, [batch, self.kv_heads, _, self.head_dim]);
        assert_shape!(value, [batch, self.kv_heads, _, self.head_dim]);
        assert!(
            options.scale.is_none() && options.softcap.is_none() && options.dropout == 0.0,
            "options: expected scale, softcap and dropout to be left to the layer, \
             got scale {:?}, softcap {:?}, dropout {}",
            options.scale,
            options.softcap,
            options.dropout
        );

        // A frozen layer on the training device does not drop, as with Burn's Dropout.
        let dropout = if self.dropout.training.is_enabled() { self.dropout.prob } else { 0.0 };
        let options =
            options.clone().with_scale(self.scale).with_softcap(self.softcap).with_dropout(dropout);
        let AttentionOutput { output, weights } =
            scaled_dot_product_attention(query, key, value, mask, &options);
        let output = output.swap_dims(1, 2); // [batch, queries, heads, head_dim]
        let output = output.reshape([batch, queries, self.heads * self.head_dim]); // [batch, queries, heads * head_dim]
        MultiHeadOutput { output: linear(&self.output, output), weights }
    }
}

/// `[batch, rows, heads * head_dim]` to `[batch, heads, rows, head_dim]`.
fn split_heads(tensor: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, rows, width] = tensor.dims();
    let tensor = tensor.reshape([batch, rows, heads, width / heads]); // [batch, rows, heads, head_dim]
    tensor.swap_dims(1, 2) // [batch, heads, rows, head_dim]
}
