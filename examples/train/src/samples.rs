//! What the model writes at each validation, as a metric of words.

use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::{Metric, MetricMetadata, MetricName, SerializedEntry};
use burn_decoder::decoder::LanguageModel;
use burn_decoder::generation::{Generation, GenerationConfig, SamplingConfig};
use tokenizers::Tokenizer;

use super::args::Settings;

/// The name of the metric, and of its file among the logs.
pub const NAME: &str = "Sample";

/// Lets the model of each validation write a few tokens.
#[derive(Clone)]
pub struct SampleMetric {
    tokenizer: Arc<Tokenizer>,
    prompt: Vec<u32>,
    config: GenerationConfig,
    /// What this validation's model wrote.
    written: Option<String>,
}

impl SampleMetric {
    /// Goes on from the settings' prompt, behind the token that begins a document.
    pub fn new(tokenizer: Arc<Tokenizer>, separator: u32, settings: &Settings) -> Self {
        let mut prompt = vec![separator];
        if let Ok(encoding) = tokenizer.encode(settings.prompt.as_str(), false) {
            prompt.extend(encoding.get_ids());
        }
        prompt.truncate(settings.context.saturating_sub(1).max(1));
        let sampling = SamplingConfig::at_temperature(0.8).with_seed(settings.seed);
        let config = GenerationConfig::new(settings.sample)
            .with_sampling(sampling)
            .with_stop_tokens(vec![separator]);
        Self { tokenizer, prompt, config, written: None }
    }

    fn write(&self, model: &LanguageModel) -> String {
        let written = Generation::new(model, std::slice::from_ref(&self.prompt), &self.config)
            .and_then(|generation| Ok(generation.finish()?));
        match written {
            // A model whose scores are no numbers says nothing; its loss tells of it.
            Err(error) => format!("({error})"),
            Ok(rows) => {
                let tokens = [&self.prompt[1..], &rows[0].tokens].concat();
                self.tokenizer.decode(&tokens, true).unwrap_or_default()
            }
        }
    }
}

impl Metric for SampleMetric {
    type Input = LanguageModel;

    fn update(
        &mut self,
        model: &LanguageModel,
        _: &MetricMetadata,
    ) -> Result<SerializedEntry, TensorReadError> {
        if self.written.is_none() {
            self.written = Some(self.write(model));
        }
        Ok(SerializedEntry::not_available(None))
    }

    fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
        let written = self.written.clone().unwrap_or_default();
        // One line in the log.
        let line = serde_json::to_string(&written).unwrap_or_default();
        Ok(SerializedEntry::new(written, line))
    }

    fn clear(&mut self) {
        self.written = None;
    }

    fn name(&self) -> MetricName {
        Arc::new(NAME.into())
    }
}
