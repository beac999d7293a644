//! From prompts to tokens, and from new tokens to text as they come.

use std::io::Write;
use std::time::Instant;

use burn_decoder::generation::{Finish, Generation};
use burn_decoder::import::hugging_face::Loaded;
use tokenizers::Tokenizer;

use super::Failure;
use super::args::Args;
use super::chat::ChatTemplate;

/// The tokenizer, and the prompts in its tokens.
pub struct Voice {
    tokenizer: Tokenizer,
    prompts: Vec<Vec<u32>>,
}

impl Voice {
    /// Reads the tokenizer of the model's folder, and the prompts.
    pub fn open(args: &Args) -> Result<Self, Failure> {
        let path = args.model.join("tokenizer.json");
        let tokenizer = Tokenizer::from_file(&path)
            .map_err(|error| format!("{}: expected a tokenizer, got {error}", path.display()))?;
        let template = args.chat.then(|| ChatTemplate::open(&args.model)).transpose()?;
        let tokens = |prompt: &String| {
            // A template writes the special tokens itself.
            let (text, special) = match &template {
                Some(template) => (template.render(args.system.as_deref(), prompt)?, false),
                None => (prompt.clone(), true),
            };
            let encoding = tokenizer.encode(text, special).map_err(|e| e.to_string())?;
            Ok(encoding.get_ids().to_vec())
        };
        let prompts = args.prompt.iter().map(tokens).collect::<Result<_, Failure>>()?;
        Ok(Self { tokenizer, prompts })
    }

    /// Writes what the model says behind each prompt: a single text token by token, several one
    /// after the other.
    pub fn speak(&self, loaded: &Loaded, args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
        let config = args.generation(&loaded.eos_tokens);
        let begin = Instant::now();
        let generation = Generation::new(&loaded.model, &self.prompts, &config)?;
        let single = self.prompts.len() == 1;
        let mut stream = self.tokenizer.decode_stream(true);
        let mut texts = vec![Vec::new(); self.prompts.len()];
        let (mut first, mut count) = (None, 0usize);
        for token in generation {
            let token = token?;
            first.get_or_insert_with(Instant::now);
            count += 1;
            let shown = single && token.finish != Some(Finish::Stop);
            if shown && let Some(text) = stream.step(token.token).map_err(|e| e.to_string())? {
                write!(out, "{text}")?;
                out.flush()?;
            }
            texts[token.row].push(token.token);
        }
        for (row, tokens) in texts.iter().enumerate() {
            let text = self.tokenizer.decode(tokens, true).map_err(|e| e.to_string())?;
            match single {
                true => writeln!(out)?,
                false => writeln!(out, "[{row}] {}{text}\n", args.prompt[row])?,
            }
        }
        let read: usize = self.prompts.iter().map(Vec::len).sum();
        let first = first.unwrap_or(begin);
        let (reading, writing) = ((first - begin).as_secs_f64(), first.elapsed().as_secs_f64());
        eprintln!(
            "{read} tokens read in {reading:.2} s; {count} written, {:.1} tokens/s",
            count.saturating_sub(self.prompts.len()) as f64 / writing.max(1e-9)
        );
        Ok(())
    }
}
