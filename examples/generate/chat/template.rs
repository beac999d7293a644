//! A model's own chat template: how a conversation becomes the text that the model was trained on.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;

use burn_decoder::import::gguf::Gguf;
use chrono::{Local, NaiveDateTime};
use minijinja::{Value, context};
use serde_json::{Map, Value as Json};

use super::jinja::{self, Raised};
use crate::failure::Failure;
use crate::files;

const FILE: &str = "chat_template.jinja";
const FOLDER: &str = "chat_templates";
const CONFIG: &str = "tokenizer_config.json";
const DEFAULT: &str = "default";

/// The templates of a folder. Most have one, called `default`.
pub struct ChatTemplate {
    templates: BTreeMap<String, String>,
    /// The special tokens that a template may name, `bos_token` and others.
    tokens: BTreeMap<String, String>,
}

/// What a template is given: the arguments of transformers' `apply_chat_template`.
#[derive(Clone, Default)]
pub struct Conversation {
    /// Dictionaries with `role` and `content`.
    pub messages: Value,
    /// Functions that the model may call, in JSON schema.
    pub tools: Option<Value>,
    /// Texts that the model may read, with `title` and `text`.
    pub documents: Option<Value>,
    /// Whether the text goes on to where the answer begins.
    pub add_generation_prompt: bool,
}

impl Conversation {
    /// A message of the user, behind one of the system if there is one, up to the answer.
    pub fn new(system: Option<&str>, prompt: &str) -> Self {
        let message = |role: &str, content: &str| context! { role, content };
        let system = system.map(|text| message("system", text));
        let messages = system.into_iter().chain([message("user", prompt)]).collect();
        Self { messages, add_generation_prompt: true, ..Self::default() }
    }
}

impl ChatTemplate {
    /// From `chat_template.jinja` and the folder `chat_templates`, or, in older folders, from
    /// `tokenizer_config.json`, which holds one template or a list of named ones.
    pub fn open(folder: &Path) -> Result<Self, Failure> {
        let config = files::object(&folder.join(CONFIG))?;
        let mut templates = in_files(folder)?;
        if templates.is_empty() {
            templates = in_config(&folder.join(CONFIG), &config)?;
        }
        if templates.is_empty() {
            let message = format!(
                "--chat: expected a chat template in {}, got neither {FILE} nor chat_template in \
                 {CONFIG}; without --chat the prompt goes to the model as it is",
                folder.display()
            );
            return Err(message.into());
        }
        Ok(Self { templates, tokens: special_tokens(folder, &config)? })
    }

    /// The template of a GGUF file, `path`.
    pub fn of_file(file: &Gguf, path: &Path) -> Result<Self, Failure> {
        let Some(template) = file.chat_template() else {
            return Err(format!(
                "--chat: expected a chat template in {}, got no tokenizer.chat_template; without \
                 --chat the prompt goes to the model as it is",
                path.display()
            )
            .into());
        };
        let values = file.tokenizer()?;
        let named = [
            ("bos_token", values.bos),
            ("eos_token", values.eos),
            ("unk_token", values.unknown),
            ("pad_token", values.padding),
        ];
        let text = |(name, id): (&str, Option<u32>)| {
            Some((name.to_string(), values.text(id?)?.to_string()))
        };
        let tokens = named.into_iter().filter_map(text).collect();
        Ok(Self { templates: [(DEFAULT.to_string(), template.to_string())].into(), tokens })
    }

    /// The text of a conversation today.
    pub fn render(&self, conversation: &Conversation) -> Result<String, Failure> {
        self.render_at(conversation, Local::now().naive_local())
    }

    /// The text of a conversation at a time, which some templates write into it.
    pub fn render_at(
        &self,
        conversation: &Conversation,
        now: NaiveDateTime,
    ) -> Result<String, Failure> {
        let template = self.choose(conversation.tools.is_some())?;
        let refuse = |error: minijinja::Error| {
            let raised = error.source().and_then(|source| source.downcast_ref::<Raised>());
            Failure::from(match raised {
                Some(Raised(message)) => format!("--chat: the model's chat template: {message}"),
                None => format!(
                    "--chat: expected a chat template that can be rendered, got {error}; without \
                     --chat the prompt goes to the model as it is"
                ),
            })
        };
        let environment = jinja::environment(now).map_err(refuse)?;
        let Conversation { messages, tools, documents, add_generation_prompt } = conversation;
        let values = context! {
            messages,
            tools,
            documents,
            add_generation_prompt,
            ..Value::from_pairs(self.tokens.clone())
        };
        environment.render_str(&jinja::source(template), values).map_err(refuse)
    }

    /// The template called `tool_use` if there are tools and one is called so, or the default.
    fn choose(&self, tools: bool) -> Result<&str, Failure> {
        let special = tools.then(|| self.templates.get("tool_use")).flatten();
        special.or(self.templates.get(DEFAULT)).map(String::as_str).ok_or_else(|| {
            let names: Vec<&str> = self.templates.keys().map(String::as_str).collect();
            let names = names.join(", ");
            format!(
                "--chat: expected a chat template called {DEFAULT}, got only {names}; put the text \
                 of the one you want into {FILE}"
            )
            .into()
        })
    }
}

/// The templates that have files of their own.
fn in_files(folder: &Path) -> Result<BTreeMap<String, String>, Failure> {
    let mut templates = BTreeMap::new();
    templates.extend(files::text(&folder.join(FILE))?.map(|text| (DEFAULT.to_string(), text)));
    for entry in fs::read_dir(folder.join(FOLDER)).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned());
        if let (Some(name), Some("jinja")) = (name, path.extension().and_then(|e| e.to_str())) {
            templates.extend(files::text(&path)?.map(|text| (name, text)));
        }
    }
    Ok(templates)
}

/// The templates in `tokenizer_config.json`.
fn in_config(path: &Path, config: &Map<String, Json>) -> Result<BTreeMap<String, String>, Failure> {
    let list = match config.get("chat_template") {
        None | Some(Json::Null) => return Ok(BTreeMap::new()),
        Some(Json::String(text)) => return Ok([(DEFAULT.to_string(), text.clone())].into()),
        Some(Json::Array(list)) => list,
        Some(other) => return Err(not_a_template(path, other)),
    };
    let named = |entry: &Json| {
        let text = |name: &str| entry[name].as_str().map(str::to_string);
        text("name").zip(text("template")).ok_or_else(|| not_a_template(path, entry))
    };
    list.iter().map(named).collect()
}

fn not_a_template(path: &Path, got: &Json) -> Failure {
    let path = path.display();
    let expected = "a text, or a list of entries with name and template";
    format!("{path}: chat_template: expected {expected}, got {got}").into()
}

/// The tokens that a template may name. `special_tokens_map.json` of old folders goes before
/// `tokenizer_config.json` unless that one lists the added tokens itself.
fn special_tokens(
    folder: &Path,
    config: &Map<String, Json>,
) -> Result<BTreeMap<String, String>, Failure> {
    let map = match config.contains_key("added_tokens_decoder") {
        true => Map::new(),
        false => files::object(&folder.join("special_tokens_map.json"))?,
    };
    let named = config.iter().chain(&map).filter(|(name, _)| name.ends_with("_token"));
    let text = |(name, token): (&String, &Json)| {
        let text = token.as_str().or(token["content"].as_str())?;
        Some((name.clone(), text.to_string()))
    };
    Ok(named.filter_map(text).collect())
}
