//! From prompts to tokens. Whatever can be wrong with them is found without the weights.

use burn_decoder::Error;
use burn_decoder::decoder::{LanguageModelConfig, PositionEmbeddingConfig};
use tokenizers::Tokenizer;

use crate::args::Args;
use crate::chat::{ChatTemplate, Conversation};
use crate::failure::Failure;

/// The tokens of each prompt, which the model has vectors and positions for.
pub fn encode(
    args: &Args,
    tokenizer: &Tokenizer,
    model: &LanguageModelConfig,
) -> Result<Vec<Vec<u32>>, Failure> {
    let template = args.chat.then(|| ChatTemplate::open(&args.model)).transpose()?;
    let mut prompts = Vec::new();
    for (row, prompt) in args.prompt.iter().enumerate() {
        // A template writes the special tokens itself.
        let (text, special) = match &template {
            Some(template) => {
                (template.render(&Conversation::new(args.system.as_deref(), prompt))?, false)
            }
            None => (prompt.clone(), true),
        };
        let encoding = tokenizer.encode(text, special);
        let encoding = encoding.map_err(|error| format!("--prompt {prompt:?}: {error}"))?;
        let tokens = encoding.get_ids().to_vec();
        check(&tokens, row, prompt, model)?;
        prompts.push(tokens);
    }
    Ok(prompts)
}

fn check(
    tokens: &[u32],
    row: usize,
    prompt: &str,
    model: &LanguageModelConfig,
) -> Result<(), Failure> {
    if tokens.is_empty() {
        let message =
            format!("--prompt {prompt:?}: expected at least one token to go on from, got none");
        return Err(message.into());
    }
    let vocab_size = model.vocab_size;
    if let Some(index) = tokens.iter().position(|&token| token as usize >= vocab_size) {
        let token = tokens[index].into();
        return Err(Error::Token { token, row, index, vocab_size }.into());
    }
    match model.positions {
        Some(PositionEmbeddingConfig::Learned { capacity, .. }) if tokens.len() > capacity => {
            Err(format!(
                "--prompt {prompt:?}: expected at most {capacity} tokens, as the model has \
                 positions for no more, got {}",
                tokens.len()
            )
            .into())
        }
        _ => Ok(()),
    }
}
