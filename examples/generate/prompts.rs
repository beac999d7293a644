//! From prompts to tokens. Whatever can be wrong with them is found without the weights.

use burn_decoder::Error;
use burn_decoder::decoder::{LanguageModelConfig, PositionEmbeddingConfig};
use tokenizers::Tokenizer;

use crate::args::Args;
use crate::chat::Conversation;
use crate::failure::Failure;
use crate::source::Source;

/// The tokens of each prompt, which the model has vectors and positions for.
pub fn encode(
    args: &Args,
    tokenizer: &Tokenizer,
    source: &Source,
) -> Result<Vec<Vec<u32>>, Failure> {
    let template = args.chat.then(|| source.chat_template(&args.model)).transpose()?;
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
        let encoding =
            encoding.map_err(|error| format!("--prompt, number {}: {error}", row + 1))?;
        let tokens = encoding.get_ids().to_vec();
        check(&tokens, row, source.config())?;
        prompts.push(tokens);
    }
    Ok(prompts)
}

/// An error unless the model has vectors and positions for the tokens of this row.
fn check(tokens: &[u32], row: usize, model: &LanguageModelConfig) -> Result<(), Failure> {
    let refuse = |expected: String, got: String| {
        Err(format!("--prompt, number {}: expected {expected}, got {got}", row + 1).into())
    };
    if tokens.is_empty() {
        return refuse("at least one token to go on from".into(), "none".into());
    }
    let vocab_size = model.vocab_size;
    if let Some(index) = tokens.iter().position(|&token| token as usize >= vocab_size) {
        let token = tokens[index].into();
        return Err(Error::Token { token, row, index, vocab_size }.into());
    }
    match model.positions {
        Some(PositionEmbeddingConfig::Learned { capacity, .. }) if tokens.len() > capacity => {
            let expected = format!("at most {capacity} tokens, one for each position of the model");
            refuse(expected, tokens.len().to_string())
        }
        _ => Ok(()),
    }
}
