//! Files that are there whole or not at all, whenever the process is killed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Puts what `write` writes to the path that it is given in the place of `path`: written beside it,
/// synced to the disk, renamed. Until then the old file stays, and after an error, too. A symbolic
/// link stays one: the file that it leads to is replaced.
///
/// A process that is killed meanwhile leaves the unfinished file behind, under a name of its own.
pub(crate) fn replace(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let told = |error: io::Error| error.to_string();
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if path.is_dir() {
        return Err("a folder".into());
    }
    let unfinished = beside(&path);
    let finish = || {
        write(&unfinished)?;
        // What may read the old file may read the new one.
        if let Ok(old) = fs::metadata(&path) {
            fs::set_permissions(&unfinished, old.permissions()).map_err(told)?;
        }
        File::open(&unfinished).and_then(|file| file.sync_all()).map_err(told)?;
        fs::rename(&unfinished, &path).map_err(told)?;
        sync_folder(&path).map_err(told)
    };
    finish().inspect_err(|_| {
        // There may be nothing to remove; the error that counts is the first.
        let _ = fs::remove_file(&unfinished);
    })
}

/// A name in the same folder that no other writer takes.
fn beside(path: &Path) -> PathBuf {
    static WRITERS: AtomicU64 = AtomicU64::new(0);
    let writer = WRITERS.fetch_add(1, Ordering::Relaxed);
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}-{writer}.unfinished", std::process::id()));
    path.with_file_name(name)
}

/// The rename itself is on the disk only once its folder is.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let put = |text: &'static str| {
            move |path: &Path| fs::write(path, text).map_err(|error| error.to_string())
        };
        replace(&path, put("old")).unwrap();
        let broken = |path: &Path| put("half")(path).and(Err("no more room".into()));
        assert_eq!(replace(&path, broken).unwrap_err(), "no more room");
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        replace(&path, put("new")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        replace(&link, |path| fs::write(path, "new").map_err(|error| error.to_string())).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
