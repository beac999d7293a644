//! Files that are there whole or not at all, whenever the process is killed.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What becomes of a symbolic link that stands in the place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// It stays, and the file that it leads to is replaced, or made: for a file that its user names.
    Followed,
    /// The file takes its place, and what it leads to stays: for a file of a known name in a folder
    /// that its user names. In the folders of Hugging Face's cache such files are links to one copy
    /// for all.
    #[cfg_attr(not(any(test, feature = "import")), expect(dead_code))]
    Replaced,
}

/// Puts what `write` writes to the path that it is given in the place of `path`: written beside it,
/// synced to the disk, renamed. Until then the old file stays, and after an error, too. What is no
/// file, as a pipe or a device, is refused.
///
/// A process that is killed meanwhile leaves the unfinished file behind, under a name of its own.
pub(crate) fn replace(
    path: &Path,
    links: Links,
    write: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    let told = |error: io::Error| error.to_string();
    let path = match links {
        Links::Followed => behind_links(path)?,
        Links::Replaced => path.to_path_buf(),
    };
    match fs::metadata(&path) {
        Ok(there) if there.is_dir() => return Err("a folder".into()),
        Ok(there) if !there.is_file() => return Err("a pipe or a device".into()),
        _ => {}
    }
    let unfinished = beside(&path);
    let finish = || {
        write(&unfinished)?;
        // What may read the old file may read the new one.
        if let Some(old) = fs::symlink_metadata(&path).ok().filter(|old| !old.is_symlink()) {
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

/// The file that a path leads to, which need not be there.
fn behind_links(path: &Path) -> Result<PathBuf, String> {
    let mut path = path.to_path_buf();
    // As many as Linux follows.
    for _ in 0..40 {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err("links that lead to each other".into())
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

    fn put(text: &'static str) -> impl FnOnce(&Path) -> Result<(), String> {
        move |path| fs::write(path, text).map_err(|error| error.to_string())
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn an_error_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for links in [Links::Followed, Links::Replaced] {
            replace(&path, links, put("old")).unwrap();
            let broken = |path: &Path| put("half")(path).and(Err("no more room".into()));
            assert_eq!(replace(&path, links, broken).unwrap_err(), "no more room");
            assert_eq!(fs::read_to_string(&path).unwrap(), "old");
            assert_eq!(entries(folder.path()), 1);
            replace(&path, links, put("new")).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "new");
            assert_eq!(entries(folder.path()), 1);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_or_goes_as_asked() {
        use std::os::unix::fs::symlink;

        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let read = |name: &str| fs::read_to_string(at(name)).unwrap();
        let is_link = |name: &str| fs::symlink_metadata(at(name)).unwrap().is_symlink();
        fs::create_dir(at("other")).unwrap();
        fs::write(at("other/file"), "old").unwrap();
        // By two links, the first of them relative.
        symlink("other/link", at("link")).unwrap();
        symlink(at("other/file"), at("other/link")).unwrap();
        replace(&at("link"), Links::Followed, put("new")).unwrap();
        assert_eq!(read("other/file"), "new");
        assert!(is_link("link") && is_link("other/link"));
        // To where nothing is yet, as `std::fs::write` goes.
        symlink("other/made", at("ahead")).unwrap();
        replace(&at("ahead"), Links::Followed, put("made")).unwrap();
        assert_eq!(read("other/made"), "made");
        assert!(is_link("ahead"));

        for link in ["link", "ahead"] {
            replace(&at(link), Links::Replaced, put("here")).unwrap();
            assert_eq!(read(link), "here");
            assert!(!is_link(link));
        }
        assert_eq!((read("other/file"), read("other/made")), ("new".into(), "made".into()));
        assert_eq!((entries(folder.path()), entries(&at("other"))), (3, 3));

        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        assert!(replace(&at("a"), Links::Followed, put("x")).unwrap_err().contains("each other"));
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_refused_and_stays() {
        use std::os::unix::fs::FileTypeExt;

        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for links in [Links::Followed, Links::Replaced] {
            assert_eq!(replace(&socket, links, put("x")).unwrap_err(), "a pipe or a device");
            assert_eq!(replace(folder.path(), links, put("x")).unwrap_err(), "a folder");
        }
        assert!(fs::metadata(&socket).unwrap().file_type().is_socket());
    }
}
