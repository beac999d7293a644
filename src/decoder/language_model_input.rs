//! What a [`LanguageModel`](super::LanguageModel) is told apart from the tokens.

use crate::attention::Request;
use crate::sequence::Batch;

/// What a [`LanguageModel`](super::LanguageModel) is told apart from the tokens: what is known of the
/// rows, and what is asked. Made from a [`Batch`], from a [`Request`], or from both by
/// [`Batch::asking`].
///
/// ```
/// use burn_decoder::decoder::{Batch, LanguageModelInput, Request};
///
/// let batch = Batch::new().with_lengths([4, 2]);
/// let input = batch.asking(Request::new().with_weights(true));
/// assert!(input.request.weights);
/// let plain: LanguageModelInput = Batch::new().into();
/// assert_eq!(plain.request, Request::new());
/// ```
#[derive(Clone, Debug, Default)]
pub struct LanguageModelInput {
    /// What is known of the rows.
    pub batch: Batch,
    /// What is asked.
    pub request: Request,
}

impl Batch {
    /// What is known of the rows, and a request for more than their logits.
    #[must_use]
    pub fn asking(self, request: Request) -> LanguageModelInput {
        LanguageModelInput { batch: self, request }
    }
}

impl From<Batch> for LanguageModelInput {
    fn from(batch: Batch) -> Self {
        batch.asking(Request::new())
    }
}

impl From<Request> for LanguageModelInput {
    fn from(request: Request) -> Self {
        Batch::new().asking(request)
    }
}
