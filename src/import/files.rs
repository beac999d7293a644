//! Files of a checkpoint: what stands in place of a broken download, and writing.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::file::{Links, replace};
use crate::{Error, Result};

/// A path as messages have it.
pub fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Bytes at the beginning of a file that tell what it is.
const BEGINNING: u64 = 512;

/// What `path` is, where that is not the file that its name promises: a broken link, what a server or
/// Git left in place of a large file, another format.
pub fn in_place_of(path: &Path) -> Option<String> {
    let Ok(file) = File::open(path) else { return not_there(path) };
    let mut beginning = Vec::new();
    file.take(BEGINNING).read_to_end(&mut beginning).ok()?;
    let text = beginning.trim_ascii_start();
    let lower = text[..text.len().min(16)].to_ascii_lowercase();
    let what = if beginning.is_empty() {
        "0 bytes: was the download cut off?"
    } else if text.starts_with(b"version https://git-lfs") {
        "a Git LFS pointer, which stands for the file; fetch the file itself with `git lfs pull`"
    } else if [&b"<!doctype"[..], b"<html", b"<?xml"].iter().any(|tag| lower.starts_with(tag)) {
        "an HTML or XML page, as servers send for errors and logins; download the file again"
    } else if beginning.starts_with(b"PK\x03\x04") && !is_pytorch(path) {
        "a file of torch.save or a zip archive"
    } else if beginning.starts_with(b"GGUF") {
        "a GGUF file"
    } else if beginning.starts_with(&[0x1f, 0x8b]) {
        "a gzip archive; unpack it"
    } else {
        return None;
    };
    Some(what.into())
}

/// Whether the name promises a file of `torch.save`.
fn is_pytorch(path: &Path) -> bool {
    matches!(path.extension().and_then(|ending| ending.to_str()), Some("pt" | "pth" | "bin"))
}

/// Why a path that can't be opened is not there, where the link tells more than the system.
fn not_there(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    (!path.exists()).then(|| {
        format!(
            "a link to {}, which is not there; download the file again, or copy it with what its \
             links point to",
            target.display()
        )
    })
}

/// Whether something stands under this path, a broken link included.
pub fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// [`Error::File`] for a file that is not `expected`: with what stands in its place where that can be
/// told, else with `got`.
pub fn not_this_file(path: &Path, expected: &str, got: String) -> Error {
    let got = in_place_of(path).unwrap_or(got);
    Error::File { path: show(path), expected: expected.into(), got }
}

/// Writes a file that is there whole or not at all, whenever the process is killed.
pub fn write_whole(
    path: &Path,
    links: Links,
    write: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<()> {
    replace(path, links, write).map_err(|got| Error::File {
        path: show(path),
        expected: "a file that can be written".into(),
        got,
    })
}

/// [`write_whole`] for a text in a folder.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    let write = |path: &Path| fs::write(path, text).map_err(|error| error.to_string());
    write_whole(path, Links::Replaced, write)
}
