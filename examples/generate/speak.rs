//! From new tokens to text, as they come.

use std::time::Instant;

use burn_decoder::generation::{Finish, Generation, GenerationConfig, Threads};
use tokenizers::Tokenizer;

use crate::args::Args;
use crate::failure::Failure;
use crate::output::{Output, tell};
use crate::prompts;
use crate::sampling::Sampling;
use crate::source::{Loaded, Source};

/// What is needed beside the model: the tokenizer, the prompts in its tokens, and the settings.
pub struct Voice {
    tokenizer: Tokenizer,
    prompts: Vec<Vec<u32>>,
    sampling: Sampling,
}

impl Voice {
    /// Reads what stands beside the weights, and the prompts.
    pub fn open(args: &Args, source: &Source) -> Result<Self, Failure> {
        let sampling = Sampling::read(args)?;
        let tokenizer = source.tokenizer(&args.model)?;
        let prompts = prompts::encode(args, &tokenizer, source)?;
        Ok(Self { tokenizer, prompts, sampling })
    }

    /// Writes what the model says behind each prompt: a single text token by token, several one
    /// after the other.
    pub fn speak(&self, loaded: &Loaded, args: &Args, out: &mut Output) -> Result<(), Failure> {
        let Sampling { from_file, not_taken, .. } = &self.sampling;
        if !from_file.is_empty() {
            let taken = from_file.join(", ");
            tell(format_args!("from generation_config.json, as no option says it: {taken}"));
        }
        if !not_taken.is_empty() {
            let others = not_taken.join(", ");
            tell(format_args!("in generation_config.json, and not done here: {others}"));
        }
        let longest = self.prompts.iter().map(Vec::len).max().unwrap_or(0);
        // Room grows as more come: most texts end sooner.
        let cache = args.cache(longest + args.max_new_tokens.min(256));
        let config = GenerationConfig::new(args.max_new_tokens)
            .with_cache(Some(cache))
            .with_sampling(self.sampling.config.clone())
            .with_stop_tokens(loaded.stop_tokens.clone())
            // The program has nothing else to do meanwhile.
            .with_threads(Threads::Spinning(7));
        let begin = Instant::now();
        let generation = Generation::new(&loaded.model, &self.prompts, &config)?;
        let single = self.prompts.len() == 1;
        let mut stream = self.tokenizer.decode_stream(true);
        let mut texts = vec![Vec::new(); self.prompts.len()];
        let mut shown = String::new();
        let (mut first, mut count) = (None, 0usize);
        for token in generation {
            let token = token?;
            first.get_or_insert_with(Instant::now);
            count += 1;
            if token.finish == Some(Finish::Stop) {
                continue;
            }
            texts[token.row].push(token.token);
            if single && let Some(text) = stream.step(token.token).map_err(|e| e.to_string())? {
                out.print(format_args!("{text}"))?;
                shown.push_str(&text);
            }
            if out.is_closed() {
                return Ok(());
            }
        }
        for (row, tokens) in texts.iter().enumerate() {
            if single {
                // The stream holds back what may still become another character.
                let text = self.decode(tokens)?;
                out.print(format_args!("{}\n", text.strip_prefix(&shown).unwrap_or("")))?;
            } else {
                let between = if args.chat { "\n" } else { "" };
                let text = self.behind(row, tokens)?;
                out.print(format_args!("[{row}] {}{between}{text}\n\n", args.prompt[row]))?;
            }
        }
        let read: usize = self.prompts.iter().map(Vec::len).sum();
        let first = first.unwrap_or(begin);
        let (reading, writing) = ((first - begin).as_secs_f64(), first.elapsed().as_secs_f64());
        tell(format_args!(
            "{read} tokens read in {reading:.2} s; {count} written, {:.1} tokens/s",
            count.saturating_sub(self.prompts.len()) as f64 / writing.max(1e-9)
        ));
        Ok(())
    }
    fn decode(&self, tokens: &[u32]) -> Result<String, Failure> {
        Ok(self.tokenizer.decode(tokens, true).map_err(|error| error.to_string())?)
    }

    /// The text of new tokens behind a prompt. Alone, many tokenizers leave out the space before it.
    fn behind(&self, row: usize, tokens: &[u32]) -> Result<String, Failure> {
        let prompt = self.decode(&self.prompts[row])?;
        let whole = self.decode(&[&self.prompts[row], tokens].concat())?;
        match whole.strip_prefix(&prompt) {
            Some(text) => Ok(text.to_string()),
            None => self.decode(tokens),
        }
    }
}
