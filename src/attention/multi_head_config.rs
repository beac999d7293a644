//! What a [`MultiHeadAttention`] is built from.

use burn::config::Config;
use burn::nn::{DropoutConfig, Initializer, LinearConfig};
use burn::tensor::Device;

use super::{Alibi, MultiHeadAttention, QkNormConfig, RotaryConfig};
use crate::error::fits_f32;
use crate::{Error, Result};

/// Which key/value head a query head reads, where there are fewer of those.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum HeadMapping {
    /// Query head `h` reads key/value head `h / group`: consecutive query heads share one. PyTorch,
    /// Hugging Face and nearly all published weights.
    Grouped,
    /// Query head `h` reads key/value head `h % kv_heads`. Keys and values are repeated in memory for
    /// it, `group` times; a cache keeps them once.
    Interleaved,
}

/// What a query may look at instead of any key.
#[derive(Config, Debug, Copy, PartialEq, Eq)]
pub enum AttentionSinks {
    /// Nothing: the weights of the visible keys sum to 1.
    None,
    /// One more key of score 0 and value 0, so that weights may sum to less (Miller 2023, "Attention
    /// is off by one"; Burn's `quiet_softmax`).
    Quiet,
    /// The same with a learned score for each head (gpt-oss).
    Learned,
}

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
    /// Bound of the scores, see [`Score::softcap`](super::Score::softcap); none if not given.
    pub softcap: Option<f64>,
    /// Which key/value head a query head reads, where there are fewer of those.
    #[config(default = "HeadMapping::Grouped")]
    pub head_mapping: HeadMapping,
    /// Norms of queries and keys; none if not given.
    pub qk_norm: Option<QkNormConfig>,
    /// Rotary positions of queries and keys; none if not given. Not for a memory, whose positions are
    /// of another sequence.
    pub rotary: Option<RotaryConfig>,
    /// Whether scores fall with distance, by the slopes of [`Alibi::new`].
    #[config(default = false)]
    pub alibi: bool,
    /// What a query may look at instead of any key.
    #[config(default = "AttentionSinks::None")]
    pub sinks: AttentionSinks,
    /// How the projections start.
    #[config(default = "Initializer::KaimingUniform{gain:1.0/f64::sqrt(3.0), fan_out_only:false}")]
    pub initializer: Initializer,
}

impl MultiHeadAttentionConfig {
    /// Sets all four biases.
    #[must_use]
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
    /// finite, `softcap` is not above 0, or a part refuses its configuration.
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
        let norm = |heads| {
            let config = self.qk_norm.as_ref();
            config.map(|config| config.init(heads, head_dim, device)).transpose()
        };
        let learned = self.sinks == AttentionSinks::Learned;
        Ok(MultiHeadAttention {
            query: linear(self.d_model, self.heads * head_dim, self.query_bias),
            key: linear(memory_dim, kv_heads * head_dim, self.key_bias),
            value: linear(memory_dim, kv_heads * head_dim, self.value_bias),
            output: linear(self.heads * head_dim, self.d_model, self.output_bias),
            query_norm: norm(self.heads)?,
            key_norm: norm(kv_heads)?,
            sinks: learned.then(|| Initializer::Zeros.init([self.heads], device)),
            dropout: DropoutConfig::new(self.dropout).init(),
            heads: self.heads,
            kv_heads,
            head_dim,
            scale: self.scale,
            softcap: self.softcap,
            head_mapping: self.head_mapping,
            rotary: self.rotary.map(|rotary| rotary.init(head_dim)).transpose()?,
            alibi: self.alibi.then(|| Alibi::new(self.heads)),
            quiet: self.sinks == AttentionSinks::Quiet,
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
            && !fits_f32(scale)
        {
            return wrong(
                "MultiHeadAttentionConfig::scale",
                "a number in the range of f32".into(),
                scale.to_string(),
            );
        }
        if let Some(softcap) = self.softcap
            && !(fits_f32(softcap) && softcap > 0.0)
        {
            return wrong(
                "MultiHeadAttentionConfig::softcap",
                "a number above 0, in the range of f32".into(),
                softcap.to_string(),
            );
        }
        Ok(self.head_dim.unwrap_or(self.d_model / self.heads))
    }
}
