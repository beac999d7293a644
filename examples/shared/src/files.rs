//! Files that are there whole or not at all, whenever the process ends: written aside, synced to
//! the disk, renamed.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

/// Puts the bytes in the place of the file. A symbolic link stays one: the file that it leads to is
/// replaced. A pipe or a device is written to.
pub fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if is_stream(path) {
        return File::options().append(true).open(path)?.write_all(bytes);
    }
    let path = target(path)?;
    let (mut file, folder) = beside(&path)?;
    file.write_all(bytes)?;
    if let Ok(old) = fs::metadata(&path) {
        file.as_file().set_permissions(old.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(&path)?;
    sync_folder(folder)
}

/// Finds out, before any work, whether the file could be written. Leaves nothing behind.
pub fn check_writable(path: &Path) -> io::Result<()> {
    if is_stream(path) {
        return Ok(());
    }
    let path = target(path)?;
    if path.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    beside(&path).map(drop)
}

/// Whether a pipe or a device is there, which can't be replaced; or a name of something that is open
/// already, such as /dev/stdout, which must not be.
fn is_stream(path: &Path) -> bool {
    let is_open = std::path::absolute(path).is_ok_and(|path| path.starts_with("/dev"));
    is_open || fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir())
}

/// The file itself, behind all links, as an absolute path.
fn target(path: &Path) -> io::Result<PathBuf> {
    match fs::symlink_metadata(path) {
        Ok(_) => fs::canonicalize(path),
        Err(_) => std::path::absolute(path),
    }
}

/// A new file in the same folder, and the folder.
fn beside(path: &Path) -> io::Result<(NamedTempFile, &Path)> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut builder = Builder::new();
    builder.prefix(".unfinished-");
    // What others may do is for the umask to say, as with any file; tempfile alone lets nobody in.
    #[cfg(unix)]
    builder.permissions(<fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o666));
    Ok((builder.tempfile_in(folder)?, folder))
}

/// A new folder with a name of its own, which removes itself with all that is in it unless it is
/// renamed or kept.
pub fn new_folder(parent: &Path) -> io::Result<TempDir> {
    Builder::new().prefix(".unfinished-").tempdir_in(parent)
}

/// Brings the files of a folder, and their names, to the disk.
pub fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_folder(folder)
}

/// Brings the names in a folder to the disk: a rename is on it only once its folder is.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
