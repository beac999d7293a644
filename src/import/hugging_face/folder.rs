//! The files of a checkpoint's folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Map, Value};

use crate::import::files::{is_there, not_this_file, show};
use crate::import::safetensors_file;
use crate::import::source::TensorSource;
use crate::{Error, Result};

pub const CONFIG: &str = "config.json";
pub const GENERATION: &str = "generation_config.json";
pub const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The text of a file, and the JSON object that it holds.
pub fn json(path: &Path) -> Result<(String, Map<String, Value>)> {
    let refuse = |got: String| not_this_file(path, "a file with a JSON object", got);
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(values)) => Ok((text, values)),
        Ok(_) => Err(refuse("another JSON value".into())),
        Err(error) => Err(refuse(error.to_string())),
    }
}

/// All tensors of the folder, none of them read yet.
pub fn weights(folder: &Path) -> Result<TensorSource> {
    let whole = folder.join(WEIGHTS);
    if is_there(&whole) {
        return safetensors_file::open(&whole);
    }
    let index = folder.join(INDEX);
    if is_there(&index) {
        return shards(folder, &index);
    }
    Err(Error::File {
        path: show(folder),
        expected: format!("{WEIGHTS} or {INDEX} in it; convert other formats with transformers"),
        got: instead_of_weights(folder),
    })
}

/// What a folder without weights has.
fn instead_of_weights(folder: &Path) -> String {
    let mut names = file_names(folder);
    names.sort();
    if names.iter().any(|name| is_shard(name)) {
        return format!(
            "shards without {INDEX}, which says what belongs together; download it again"
        );
    }
    let is_other = |name: &&String| {
        [".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"]
            .iter()
            .any(|ending| name.ends_with(ending))
    };
    let others: Vec<_> = names.iter().filter(is_other).take(5).cloned().collect();
    match (folder.is_dir(), others.is_empty()) {
        (false, _) => "no folder".into(),
        (true, true) => "neither".into(),
        (true, false) => format!("neither, but {}", others.join(", ")),
    }
}

fn file_names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Whether a file is called as transformers calls shards: `model-00001-of-00002.safetensors`.
fn is_shard(name: &str) -> bool {
    let numbers = name.strip_prefix("model-").and_then(|name| name.strip_suffix(".safetensors"));
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers
        .and_then(|numbers| numbers.split_once("-of-"))
        .is_some_and(|(number, of)| is_number(number) && is_number(of))
}

/// Removes the index of a folder and the shards that it, or their names, tell of.
pub fn remove_shards(folder: &Path) -> Result<()> {
    let index = folder.join(INDEX);
    let named = json(&index).ok().and_then(|(_, values)| {
        let map = values.get("weight_map")?.as_object()?;
        let names: BTreeSet<String> =
            map.values().filter_map(|shard| file_name(shard).map(Into::into)).collect();
        Some(names)
    });
    let mut shards = named.unwrap_or_default();
    shards.extend(file_names(folder).into_iter().filter(|name| is_shard(name)));
    shards.remove(WEIGHTS);
    remove(&index)?;
    shards.iter().try_for_each(|shard| {
        if shard.ends_with(".safetensors") { remove(&folder.join(shard)) } else { Ok(()) }
    })
}

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::File {
            path: show(path),
            expected: "a file that can be removed: it belongs to another checkpoint".into(),
            got: error.to_string(),
        }),
        _ => Ok(()),
    }
}

/// The name of a file in the folder. A name with a path in it would lead out of it.
fn file_name(shard: &Value) -> Option<&str> {
    shard.as_str().filter(|shard| Path::new(shard).file_name() == Some(shard.as_ref()))
}

/// The tensors of several files, by the index that says which is where.
fn shards(folder: &Path, index: &Path) -> Result<TensorSource> {
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
        let shard = file_name(shard).ok_or_else(|| {
            refuse("the name of a file for each tensor", format!("{name}: {}", map[name]))
        })?;
        shards.entry(shard).or_default().insert(name);
    }
    let mut source = TensorSource { path: show(folder), ..TensorSource::default() };
    for (shard, names) in shards {
        let path = folder.join(shard);
        if !is_there(&path) {
            return Err(Error::File {
                path: show(&path),
                expected: format!("a shard that {INDEX} names; download it again"),
                got: "nothing".into(),
            });
        }
        let mut held = safetensors_file::open(&path)?;
        let is_held =
            |name: &str| held.tensors.contains_key(name) || held.foreign.contains_key(name);
        let lacking: Vec<_> = names.iter().filter(|name| !is_held(name)).collect();
        if !lacking.is_empty() {
            return Err(Error::File {
                path: show(&path),
                expected: format!("the tensors that {INDEX} puts there"),
                got: format!("a file without {lacking:?}"),
            });
        }
        held.tensors.retain(|name, _| names.contains(name.as_str()));
        held.stored.retain(|name, _| names.contains(name.as_str()));
        held.foreign.retain(|name, _| names.contains(name.as_str()));
        source.tensors.append(&mut held.tensors);
        source.stored.append(&mut held.stored);
        source.foreign.append(&mut held.foreign);
    }
    Ok(source)
}
