//! The module for all that a decoder layer hides: future, window, chunks; padding and documents.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::mask::{Grid, LoweredMask, Mask};
use crate::{Error, Result};

/// Configures a [`SequenceMask`].
#[derive(Config, Debug, PartialEq)]
pub struct SequenceMaskConfig {
    /// Whether the future is hidden.
    #[config(default = true)]
    pub look_ahead: bool,
    /// The token id that stands for padding, where padding is told by the tokens.
    #[config(default = "None")]
    pub pad_id: Option<i64>,
    /// The width of a sliding window in keys, a query's own included. Without look-ahead it reaches
    /// as far to the other side.
    #[config(default = "None")]
    pub window_keys: Option<usize>,
    /// How many of the first keys the window never loses.
    #[config(default = 0)]
    pub sinks: usize,
    /// The size of the chunks that don't see each other.
    #[config(default = "None")]
    pub chunks: Option<usize>,
    /// How many of the first keys every query sees, whatever else is hidden.
    #[config(default = 0)]
    pub prefix: usize,
    /// A rule that applies besides all that: one that the fields above can't say.
    #[config(default = "None")]
    pub rule: Option<Mask>,
}

impl From<Mask> for SequenceMaskConfig {
    /// This rule and nothing else.
    fn from(rule: Mask) -> Self {
        Self::new().with_look_ahead(false).with_rule(Some(rule))
    }
}

impl SequenceMaskConfig {
    /// The module.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for a window or chunks of 0 keys, and for sinks without a window.
    pub fn init(&self) -> Result<SequenceMask> {
        let mut parts = Vec::new();
        match self.window_keys {
            Some(keys) => {
                let window = Mask::window_keys(keys)?;
                let window =
                    if self.look_ahead { window } else { Mask::look_around(keys - 1, keys - 1) };
                parts.push(if self.sinks > 0 { window | Mask::sinks(self.sinks) } else { window });
            }
            None if self.sinks > 0 => {
                return Err(Error::Config {
                    field: "SequenceMaskConfig::sinks",
                    expected: "0, or window_keys to be set: without a window no key is lost".into(),
                    got: self.sinks.to_string(),
                });
            }
            None => {}
        }
        if let Some(keys) = self.chunks {
            parts.push(Mask::chunks(keys)?);
        }
        // A window without sinks hides the future itself.
        if self.look_ahead && (self.window_keys.is_none() || self.sinks > 0) {
            parts.push(Mask::look_ahead());
        }
        let fields = parts.into_iter().reduce(|a, b| a & b).map(|rule| match self.prefix {
            0 => rule,
            keys => rule | Mask::prefix(keys),
        });
        let parts = [fields, self.rule.clone()].into_iter().flatten();
        let rule = parts.reduce(|a, b| a & b).unwrap_or_else(Mask::all_visible);
        Ok(SequenceMask { rule, pad_id: self.pad_id })
    }
}

/// The general mask of a decoder: look-ahead, window, chunks and prefix by its config; padding and
/// documents by what is known of each batch.
///
/// ```
/// use burn_decoder::mask::{Grid, Mask, SequenceInput, SequenceMaskConfig};
///
/// let mask = SequenceMaskConfig::new().with_window_keys(Some(4)).init()?;
/// let input = SequenceInput::new().with_padding(Mask::lengths([6, 3]));
/// assert_eq!(mask.forward(&input)?.to_string(), "window_keys(4) & lengths([6, 3])");
///
/// let lowered = mask.lower(&input, &Grid::square(2, 6))?; // once a batch, for every layer
/// # assert!(lowered.is_causal());
/// # Ok::<(), burn_decoder::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct SequenceMask {
    #[module(skip)]
    rule: Mask,
    pad_id: Option<i64>,
}

/// What is known of the rows of a batch; all of it optional, all of it applied together.
#[derive(Clone, Debug, Default)]
#[must_use = "the methods give a new value"]
pub struct SequenceInput {
    tokens: Option<Tensor<2, Int>>,
    /// Padding stated by the caller.
    padding: Option<Mask>,
    documents: Option<Mask>,
}

impl SequenceInput {
    /// Nothing known: no padding, no documents.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tokens of the keys, `[batch, keys]`, for a mask with a pad id.
    pub fn with_tokens(self, tokens: Tensor<2, Int>) -> Self {
        Self { tokens: Some(tokens), ..self }
    }

    /// Padding as the caller knows it: [`Mask::lengths`] or [`Mask::pad_counts`], for example. Then no
    /// token counts as padding for its id.
    pub fn with_padding(self, padding: Mask) -> Self {
        Self { padding: and(self.padding, padding), ..self }
    }

    /// Packed documents: [`Mask::document_lengths`] or [`Mask::document_ids`].
    pub fn with_documents(self, documents: Mask) -> Self {
        Self { documents: and(self.documents, documents), ..self }
    }
}

fn and(a: Option<Mask>, b: Mask) -> Option<Mask> {
    Some(match a {
        Some(a) => a & b,
        None => b,
    })
}

impl SequenceMask {
    /// The rule without what a batch adds to it.
    pub fn rule(&self) -> &Mask {
        &self.rule
    }

    /// The rule for a batch.
    ///
    /// # Errors
    ///
    /// [`Error::Mask`] if the config has a pad id, and the input neither tokens nor lengths nor pad
    /// counts.
    pub fn forward(&self, input: &SequenceInput) -> Result<Mask> {
        let padding = match (&input.padding, self.pad_id, &input.tokens) {
            (Some(stated), _, _) => Some(stated.clone()),
            (None, None, _) => None,
            (None, Some(pad_id), Some(tokens)) => Some(Mask::padding(tokens, pad_id)),
            (None, Some(pad_id), None) => {
                return Err(Error::Mask {
                    mask: "SequenceMask",
                    expected: format!(
                        "tokens, to find the pad id {pad_id} in, or lengths or pad counts"
                    ),
                    got: "none of them in its SequenceInput".into(),
                });
            }
        };
        let batch = [padding, input.documents.clone()].into_iter().flatten();
        Ok(batch.fold(self.rule.clone(), |rule, part| rule & part))
    }

    /// The rule for a batch, evaluated on a grid: once for all layers.
    ///
    /// # Errors
    ///
    /// As [`SequenceMask::forward`] and [`Mask::lower`].
    pub fn lower(&self, input: &SequenceInput, grid: &Grid) -> Result<LoweredMask> {
        self.forward(input)?.lower(grid)
    }

    /// The dense mask, **true = hidden**, `[batch or 1, heads or 1, queries or 1, keys]`.
    ///
    /// # Errors
    ///
    /// As [`SequenceMask::lower`].
    pub fn hidden_tensor(
        &self,
        input: &SequenceInput,
        grid: &Grid,
        device: &Device,
    ) -> Result<Tensor<4, Bool>> {
        Ok(self.lower(input, grid)?.hidden_tensor(device))
    }

    /// The dense mask turned over, **true = visible**.
    ///
    /// # Errors
    ///
    /// As [`SequenceMask::lower`].
    pub fn visible_tensor(
        &self,
        input: &SequenceInput,
        grid: &Grid,
        device: &Device,
    ) -> Result<Tensor<4, Bool>> {
        Ok(self.lower(input, grid)?.visible_tensor(device))
    }
}
