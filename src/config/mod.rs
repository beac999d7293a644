//! Configurations in JSON files: read so that a mistake is told, and that old files stay readable.
//!
//! Every `Config` of this crate is saved by Burn's
//! [`Config::save`](burn::config::Config::save). [`read`] and [`from_json`] read it again, and differ
//! from Burn's `load` in what this crate promises of its files:
//!
//! - a field that the configuration does not have is an error that names it and those that it has;
//! - a field that is not there has its default, so that a file that was saved before the field was
//!   added means what it meant; a field without a default is an error that names it;
//! - a field that was renamed or moved is read under its old name too.
//!
//! ```
//! use burn_decoder::config::from_json;
//! use burn_decoder::generation::GenerationConfig;
//!
//! let config: GenerationConfig = from_json(r#"{ "max_new_tokens": 8, "stop_tokens": [2] }"#)?;
//! assert_eq!(config.sampling.repetition_penalty, 1.0);
//!
//! let error = from_json::<GenerationConfig>(r#"{ "max_new_tokens": 8, "stop_token": [2] }"#);
//! let error = error.unwrap_err().to_string();
//! assert!(error.starts_with("JSON, stop_token: expected one of max_new_tokens, "), "{error}");
//! # Ok::<(), burn_decoder::Error>(())
//! ```

mod defaults;
mod read;
mod reader;

pub use read::{from_json, read};
