//! The files of a checkpoint's folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use crate::import::safetensors_file;
use crate::import::source::{Source, show};
use crate::{Error, Result};

pub const CONFIG: &str = "config.json";
pub const GENERATION: &str = "generation_config.json";
pub const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The text of a file, and the JSON object that it holds.
pub fn json(path: &Path) -> Result<(String, Map<String, Value>)> {
    let refuse = |got: String| Error::File {
        path: show(path),
        expected: "a file with a JSON object".into(),
        got,
    };
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(values)) => Ok((text, values)),
        Ok(_) => Err(refuse("another JSON value".into())),
        Err(error) => Err(refuse(error.to_string())),
    }
}

/// All tensors of the folder, none of them read yet.
pub fn weights(folder: &Path) -> Result<Source> {
    let whole = folder.join(WEIGHTS);
    if whole.exists() {
        return Ok(Source { path: show(&whole), tensors: safetensors_file::open(&whole)? });
    }
    let index = folder.join(INDEX);
    if !index.exists() {
        return Err(Error::File {
            path: show(folder),
            expected: format!(
                "{WEIGHTS} or {INDEX} in it; convert other formats with transformers"
            ),
            got: "neither".into(),
        });
    }
    shards(folder, &index)
}

/// The tensors of several files, by the index that says which is where.
fn shards(folder: &Path, index: &Path) -> Result<Source> {
    let (_, values) = json(index)?;
    let refuse = |expected: &str, got: String| Error::File {
        path: show(index),
        expected: expected.into(),
        got,
    };
    let map = values.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| refuse("a weight_map", "none".into()))?;
    let mut shards: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, shard) in map {
        // A name with a path in it would lead out of the folder.
        let shard =
            shard.as_str().filter(|shard| Path::new(shard).file_name() == Some(shard.as_ref()));
        let shard = shard.ok_or_else(|| {
            refuse("the name of a file for each tensor", format!("{name}: {}", map[name]))
        })?;
        shards.entry(shard).or_default().insert(name);
    }
    let mut tensors = BTreeMap::new();
    for (shard, names) in shards {
        let path = folder.join(shard);
        let mut held = safetensors_file::open(&path)?;
        let lacking: Vec<_> = names.iter().filter(|&&name| !held.contains_key(name)).collect();
        if !lacking.is_empty() {
            return Err(Error::File {
                path: show(&path),
                expected: format!("the tensors that {INDEX} puts there"),
                got: format!("a file without {lacking:?}"),
            });
        }
        held.retain(|name, _| names.contains(name.as_str()));
        tensors.append(&mut held);
    }
    Ok(Source { path: show(folder), tensors })
}
