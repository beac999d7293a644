//! The model's own chat template: how a message becomes the text that the model was trained on.

use std::fs;
use std::path::Path;

use minijinja::{Environment, context, syntax::SyntaxConfig};
use serde_json::Value;

use super::Failure;

/// The template of a folder.
pub struct ChatTemplate {
    template: String,
    /// `tokenizer_config.json`, for the special tokens that a template may name.
    tokens: Value,
}

impl ChatTemplate {
    /// From `chat_template.jinja`, or, in older folders, from `tokenizer_config.json`.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let config = folder.join("tokenizer_config.json");
        let tokens: Value = match fs::read_to_string(&config) {
            Ok(text) => serde_json::from_str(&text)
                .map_err(|error| format!("{}: expected JSON, got {error}", config.display()))?,
            Err(_) => Value::Null,
        };
        let template = match fs::read_to_string(folder.join("chat_template.jinja")) {
            Ok(template) => Some(template),
            Err(_) => tokens["chat_template"].as_str().map(str::to_string),
        };
        let template = template.ok_or_else(|| {
            format!(
                "--chat: expected a chat template in {}, got neither chat_template.jinja nor \
                 chat_template in tokenizer_config.json; without --chat the prompt goes to the \
                 model as it is",
                folder.display()
            )
        })?;
        Ok(Self { template, tokens })
    }

    /// The text of one message, up to where the answer begins.
    pub fn render(&self, system: Option<&str>, prompt: &str) -> Result<String, Failure> {
        let mut environment = Environment::new();
        // transformers renders templates so
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        environment.set_syntax(syntax);
        let message = |role: &str, content: &str| context! { role, content };
        let mut messages = Vec::new();
        messages.extend(system.map(|text| message("system", text)));
        messages.push(message("user", prompt));
        let token = |name: &str| match &self.tokens[name] {
            Value::String(text) => text.clone(),
            token => token["content"].as_str().unwrap_or_default().to_string(),
        };
        let text = environment.render_str(
            &self.template,
            context! {
                messages,
                add_generation_prompt => true,
                bos_token => token("bos_token"),
                eos_token => token("eos_token"),
            },
        );
        Ok(text.map_err(|error| format!("--chat: the model's chat template: {error:#}"))?)
    }
}
