//! Chat templates, as transformers renders them.
//!
//! - [`template`]: where a model's template is found, and the text of a conversation;
//! - [`jinja`]: the language of the templates, Jinja2 with what transformers adds;
//! - [`methods`]: Python's methods of strings, lists and dictionaries;
//! - [`to_json`]: the filter `tojson`, which is Python's `json.dumps`.

mod jinja;
mod methods;
mod template;
mod to_json;

#[cfg(test)]
mod tests;

pub use template::{ChatTemplate, Conversation};
