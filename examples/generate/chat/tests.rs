//! Chat templates against transformers' `apply_chat_template`: `fixtures/make_expected.py` says how
//! the texts were made.

use std::fs;
use std::path::Path;

use chrono::NaiveDateTime;
use minijinja::Value;
use serde_json::json;
use tempfile::TempDir;

use super::{ChatTemplate, Conversation};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/chat/fixtures");
const NOW: &str = "2026-01-05T09:07:03";

fn now() -> NaiveDateTime {
    NOW.parse().unwrap()
}

/// What transformers made; dictionaries in the order of the file.
fn expected() -> Value {
    let text = fs::read_to_string(Path::new(FIXTURES).join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(field(&expected, "now").as_str(), Some(NOW));
    expected
}

fn field(value: &Value, name: &str) -> Value {
    value.get_attr(name).unwrap()
}

fn list(value: &Value, name: &str) -> Vec<Value> {
    field(value, name).try_iter().unwrap().collect()
}

/// A folder with these files.
fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn open(files: &[(&str, String)]) -> Result<ChatTemplate, String> {
    ChatTemplate::open(folder(files).path()).map_err(|error| error.to_string())
}

fn rendered(files: &[(&str, String)], conversation: &Conversation) -> Result<String, String> {
    open(files)?.render_at(conversation, now()).map_err(|error| error.to_string())
}

/// What a template gives in a folder whose special tokens are those of the fixtures.
fn with_tokens(template: String, conversation: &Conversation) -> Result<String, String> {
    let tokens =
        json!({ "bos_token": "<s>", "eos_token": "</s>", "unk_token": { "content": "<unk>" } });
    let files = [("chat_template.jinja", template), ("tokenizer_config.json", tokens.to_string())];
    rendered(&files, conversation)
}

fn one_message() -> Conversation {
    Conversation { add_generation_prompt: false, ..Conversation::new(None, "What is a mask?") }
}

/// Whether `got` is the text that transformers gave, or an error where it gave one: the same words
/// if the template itself raised it.
fn agrees(got: &Result<String, String>, expected: &Value) -> bool {
    let (text, error) = (field(expected, "text"), field(expected, "error"));
    match (got, error.as_str()) {
        (Ok(got), None) => text.as_str() == Some(got),
        (Err(got), Some(error)) => match error.strip_prefix("TemplateError: ") {
            Some(raised) => got.ends_with(raised),
            None => true,
        },
        _ => false,
    }
}

#[test]
fn the_templates_of_models_give_the_text_of_transformers() {
    let cases = list(&expected(), "cases");
    assert_eq!(cases.len(), 306);
    for case in cases {
        let name = field(&case, "template");
        let template = fs::read_to_string(format!("{FIXTURES}/{name}.jinja")).unwrap();
        let arguments = field(&case, "arguments");
        let given = |name: &str| Some(field(&arguments, name)).filter(|it| !it.is_undefined());
        let conversation = Conversation {
            messages: field(&case, "messages"),
            tools: given("tools"),
            documents: given("documents"),
            add_generation_prompt: field(&arguments, "add_generation_prompt").is_true(),
        };
        let got = with_tokens(template, &conversation);
        assert!(agrees(&got, &case), "{name}, got {got:?}\nexpected {case}");
    }
}

#[test]
fn python_and_jinja_are_those_of_transformers() {
    let snippets = list(&expected(), "snippets");
    assert_eq!(snippets.len(), 67);
    for snippet in snippets {
        let got = with_tokens(field(&snippet, "source").to_string(), &one_message());
        assert!(agrees(&got, &snippet), "got {got:?}\nexpected {snippet}");
    }
}

/// What is known to differ. Where this fails, the list in `make_expected.py` is too long.
#[test]
fn a_few_things_are_rendered_otherwise() {
    for snippet in list(&expected(), "unlike") {
        let got = with_tokens(field(&snippet, "source").to_string(), &one_message());
        assert!(!agrees(&got, &snippet), "{snippet}");
    }
}

#[test]
fn a_list_of_named_templates_is_read() {
    let named = |names: &[&str]| {
        let entry =
            |name: &&str| json!({ "name": name, "template": format!("{name} {{{{ 1 }}}}") });
        let list: Vec<_> = names.iter().map(entry).collect();
        [("tokenizer_config.json", json!({ "chat_template": list }).to_string())]
    };
    let with_tools = Conversation { tools: Some(Vec::<Value>::new().into()), ..one_message() };
    let all = named(&["rag", "default", "tool_use"]);
    assert_eq!(rendered(&all, &one_message()).unwrap(), "default 1");
    assert_eq!(rendered(&all, &with_tools).unwrap(), "tool_use 1");
    assert_eq!(rendered(&named(&["default"]), &with_tools).unwrap(), "default 1");
    let refused = rendered(&named(&["rag", "tool_use"]), &one_message()).unwrap_err();
    assert!(refused.contains("called default, got only rag, tool_use"), "{refused}");
}

#[test]
fn files_of_templates_go_before_the_configuration() {
    let config = json!({ "chat_template": "in the configuration" }).to_string();
    let mut files = vec![("tokenizer_config.json", config)];
    assert_eq!(rendered(&files, &one_message()).unwrap(), "in the configuration");
    files.push(("chat_template.jinja", "in a file\n".into()));
    files.push(("chat_templates/tool_use.jinja", "with tools".into()));
    assert_eq!(rendered(&files, &one_message()).unwrap(), "in a file");
    let with_tools = Conversation { tools: Some(Vec::<Value>::new().into()), ..one_message() };
    assert_eq!(rendered(&files, &with_tools).unwrap(), "with tools");
}

#[test]
fn special_tokens_come_from_where_transformers_takes_them() {
    let template = "{{ bos_token }}{{ eos_token }}{{ image_token }}{{ pad_token is defined }}";
    let map = json!({ "bos_token": { "content": "<map>" }, "pad_token": null }).to_string();
    let config = |with: &str| {
        format!(
            r#"{{ "bos_token": {{ "content": "<b>" }}, "eos_token": "<e>", "image_token": "<i>",
                "pad_token": null, "chat_template": "{template}"{with} }}"#
        )
    };
    let files = |with: &str| {
        [("tokenizer_config.json", config(with)), ("special_tokens_map.json", map.clone())]
    };
    let got = |with: &str| rendered(&files(with), &one_message()).unwrap();
    assert_eq!(got(""), "<map><e><i>False");
    assert_eq!(got(r#", "added_tokens_decoder": {}"#), "<b><e><i>False");
}

#[test]
fn what_is_no_template_is_refused_in_its_own_words() {
    let config = |template: serde_json::Value| {
        [("tokenizer_config.json", json!({ "chat_template": template }).to_string())]
    };
    for (files, words) in [
        (vec![], ["chat_template.jinja", "without --chat"]),
        (config(json!(null)).to_vec(), ["chat_template.jinja", "without --chat"]),
        (config(json!(7)).to_vec(), ["chat_template: expected a text", "got 7"]),
        (config(json!([{ "name": "default" }])).to_vec(), ["name and template", "got {"]),
        (vec![("tokenizer_config.json", "[]".to_string())], ["tokenizer_config.json", "object"]),
        (
            vec![("chat_template.jinja", "{% if %}".to_string())],
            ["rendered, got", "(in <string>:1)"],
        ),
        (
            vec![("chat_template.jinja", "{{ nothing() }}".to_string())],
            ["rendered, got", "nothing"],
        ),
        (
            vec![("chat_template.jinja", "{{ strftime_now('%Q') }}".to_string())],
            ["rendered, got", "a format of a date and a time"],
        ),
    ] {
        let refused = rendered(&files, &one_message()).unwrap_err();
        for word in words {
            assert!(refused.contains(word), "{word:?} is missing in {refused:?}");
        }
    }
}
