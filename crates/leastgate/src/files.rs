//! Files that the program writes on its own account. None of them follows a link that somebody else has put there,
//! and none is ever half there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that did not exist before; it is removed again unless it is [filled](Self::fill) or something is
/// [added](Self::add) to it.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: File,
    /// What is on the disk of it, and stays.
    length: u64,
    is_kept: bool,
}

impl NewFile {
    /// Makes an empty file with these permissions.
    ///
    /// # Errors
    /// There is something at `path` already, a link that leads nowhere included; or it can't be made.
    pub(crate) fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        Ok(Self { path: path.to_owned(), file, length: 0, is_kept: false })
    }

    /// Where it is.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes its content, to the disk, and its name.
    ///
    /// # Errors
    /// It can't be written; the file is gone then.
    pub(crate) fn fill(mut self, bytes: &[u8]) -> io::Result<()> {
        self.add(bytes)
    }

    /// Writes a part of its content, to the disk, behind what is there; from the first part on it stays.
    ///
    /// # Errors
    /// It can't be written; the file has the parts before, or is gone if there were none.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes).and_then(|()| self.file.sync_all());
        let written = written.and_then(|()| if self.is_kept { Ok(()) } else { sync_folder(&self.path) });
        match &written {
            Ok(()) => (self.length, self.is_kept) = (self.length + bytes.len() as u64, true),
            // Half a line would be taken for a whole one.
            Err(_) => drop(self.file.set_len(self.length)),
        }
        written
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // What is left behind where this fails is empty or cut short, and no secret's only copy.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A file's name is as durable as its folder. One that may be written and not read can't be asked for it.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a file that must not exist.
///
/// # Errors
/// As [`NewFile::create`] and [`NewFile::fill`].
pub(crate) fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    NewFile::create(path, mode)?.fill(bytes)
}

/// Writes or replaces a file in one step: whoever reads it finds the old content or the new. The name it is written
/// under first can't be foreseen, so in a folder that others can write nobody can have put a link there.
///
/// # Errors
/// It can't be written; what was there before still is.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut fresh = name.to_owned();
    fresh.push(format!(".{:016x}.new", u64::from_ne_bytes(random)));
    let fresh = path.with_file_name(fresh);
    write_new(&fresh, bytes, mode)?;
    fs::rename(&fresh, path).inspect_err(|_| {
        let _ = fs::remove_file(&fresh);
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, precious) = (dir.path().join("ready"), dir.path().join("precious"));
        fs::write(&precious, "precious").unwrap();
        symlink(&precious, &path).unwrap();
        symlink(&precious, dir.path().join("ready.new")).unwrap();
        for text in ["one", "two"] {
            write_atomically(&path, text.as_bytes(), 0o640).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777 & !0o640, 0);
        assert_eq!(names(dir.path()), ["precious", "ready", "ready.new"], "nothing is left over");
    }

    #[test]
    fn what_fails_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        fs::create_dir_all(taken.join("inner")).unwrap();
        assert!(write_atomically(&taken, b"x", 0o600).is_err());
        assert!(write_atomically(Path::new("/"), b"x", 0o600).is_err());
        drop(NewFile::create(&dir.path().join("unfilled"), 0o600).unwrap());
        assert_eq!(names(dir.path()), ["taken"]);
    }

    #[test]
    fn what_is_added_stays_with_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        let mut file = NewFile::create(&path, 0o600).unwrap();
        file.add(b"one\n").unwrap();
        file.add(b"two\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    }

    #[test]
    fn a_new_file_replaces_nothing_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        symlink(dir.path().join("target"), &link).unwrap();
        assert!(write_new(&link, b"x", 0o600).is_err());
        let path = dir.path().join("secret");
        write_new(&path, b"one", 0o600).unwrap();
        assert!(write_new(&path, b"two", 0o600).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
