//! The state directory: one folder, one process. Its lock is what makes "one gateway per store" true, since
//! `SO_REUSEPORT` would let a second one bind the same port without a word.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags};

const LOCK_FILE: &str = "lock";
const STORE_FILE: &str = "store.db";

/// A state directory this process holds, until it is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// The open descriptor *is* the lock; the kernel frees it however the process ends.
    _lock: File,
}

/// Why the state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another process holds it.
    #[error("state_dir {} is in use by {}: stop that one, or give this gateway a state_dir of its own", shown(.path), holder(.pid))]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process that holds it, if it says so.
        pid: Option<u32>,
    },
    /// It can't be made, opened or written.
    #[error("state_dir {} can't be used: {source}; it must be a folder that the user running leastgate may write", shown(.path))]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Absolute: who reads it may be in another folder than the gateway was.
fn shown(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl StateDir {
    /// Makes the folder (mode 0700, its parents too) where there is none, and takes its lock without waiting.
    ///
    /// The mode of a folder that exists is left alone: a volume of Kubernetes is shared by its group on
    /// purpose, and every file in here is 0600.
    ///
    /// # Errors
    /// When another process holds the lock, or the folder can't be made or written.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateDirError> {
        let path = path.into();
        match lock(&path) {
            Ok(Lock::Taken(file)) => Ok(Self { path, _lock: file }),
            Ok(Lock::Held(pid)) => Err(StateDirError::InUse { path, pid }),
            Err(source) => Err(StateDirError::Io { path, source }),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the token store's file lives in it.
    #[must_use]
    pub fn store_path(&self) -> PathBuf {
        Self::store_in(&self.path)
    }

    /// The same for who only reads it, and needs no lock.
    #[must_use]
    pub fn store_in(path: &Path) -> PathBuf {
        path.join(STORE_FILE)
    }
}

enum Lock {
    Taken(File),
    Held(Option<u32>),
}

fn lock(dir: &Path) -> std::io::Result<Lock> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nofollow())
        .open(dir.join(LOCK_FILE))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(Lock::Held(read_pid(&mut file))),
        Err(error) => return Err(error.into()),
    }
    file.set_permissions(Permissions::from_mode(0o600))?;
    // Only a courtesy to whoever is refused: a full disk must not keep a gateway from starting.
    let _ = write_pid(&mut file);
    Ok(Lock::Taken(file))
}

/// A link planted in a shared folder must not choose which file is written.
#[expect(clippy::cast_possible_wrap, reason = "open(2) takes its flags as a signed integer")]
fn nofollow() -> i32 {
    OFlags::NOFOLLOW.bits() as i32
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn makes_the_folder_for_its_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::open(root.path().join("a/b")).unwrap();
        assert_eq!(mode(&root.path().join("a")), 0o700);
        assert_eq!(mode(state.path()), 0o700);
        assert_eq!(mode(&state.path().join(LOCK_FILE)), 0o600);
        assert_eq!(state.store_path(), root.path().join("a/b/store.db"));
    }

    #[test]
    fn a_second_holder_is_told_who_has_it_and_may_follow() {
        let root = tempfile::tempdir().unwrap();
        let first = StateDir::open(root.path()).unwrap();
        let error = StateDir::open(root.path()).unwrap_err();
        assert!(matches!(error, StateDirError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
        let message = error.to_string();
        assert!(message.contains(&root.path().display().to_string()), "{message}");
        assert!(message.contains(&std::process::id().to_string()), "{message}");
        drop(first);
        StateDir::open(root.path()).unwrap();
    }

    #[test]
    fn a_relative_folder_is_named_where_it_is() {
        let here = std::env::current_dir().unwrap();
        let said = StateDirError::InUse { path: "state".into(), pid: None }.to_string();
        assert!(said.contains(&format!("state_dir {}/state is in use", here.display())), "{said}");
    }

    #[test]
    fn a_file_in_its_place_and_a_planted_link_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        assert!(matches!(StateDir::open(&file), Err(StateDirError::Io { .. })));

        let dir = root.path().join("dir");
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(&file, dir.join(LOCK_FILE)).unwrap();
        assert!(matches!(StateDir::open(&dir), Err(StateDirError::Io { .. })));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }
}
