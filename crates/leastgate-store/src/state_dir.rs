//! The state directory: one folder, one process. Its lock is what makes "one gateway per store" true, since
//! `SO_REUSEPORT` would let a second one bind the same port without a word.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
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
        source: io::Error,
    },
    /// Root would write among somebody else's files, for [`StateDir::open_own`].
    #[error("{} belongs to the user with uid {uid}: what root writes there that user could not use, and could lead elsewhere; run this \
             as that user (sudo -u '#{uid}')", shown(.path))]
    Others {
        /// What is theirs.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
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

    /// As [`StateDir::open`], for whoever puts files in the place of the gateway's: root is refused, before anything is
    /// written, where they would not be of the user that the others are of. It is root who runs such a command by a slip,
    /// and the gateway's own user could neither take the lock any more nor open the store. A gateway that itself runs as
    /// root, on a volume of another user, is no slip.
    ///
    /// # Errors
    /// As [`StateDir::open`], or the folder, the lock or the store is somebody else's and this is root.
    pub fn open_own(path: impl Into<PathBuf>) -> Result<Self, StateDirError> {
        let path = path.into();
        match others(&path) {
            Ok(None) => Self::open(path),
            Ok(Some((path, uid))) => Err(StateDirError::Others { path, uid }),
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

/// What root would meddle with: the folder, or the nearest one above that is there, the lock or the store.
fn others(dir: &Path) -> io::Result<Option<(PathBuf, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let dir = std::path::absolute(dir)?;
    let folder = dir.ancestors().find(|folder| folder.exists()).unwrap_or(&dir);
    if let Some(uid) = of_other(fs::metadata(folder))? {
        return Ok(Some((folder.to_owned(), uid)));
    }
    for name in [LOCK_FILE, STORE_FILE] {
        let path = dir.join(name);
        if let Some(uid) = of_other(fs::symlink_metadata(&path))? {
            return Ok(Some((path, uid)));
        }
    }
    Ok(None)
}

/// Whose it is, if it is there and not root's.
fn of_other(found: io::Result<fs::Metadata>) -> io::Result<Option<u32>> {
    match found {
        Ok(metadata) => Ok(Some(metadata.uid()).filter(|uid| *uid != 0)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

enum Lock {
    Taken(File),
    Held(Option<u32>),
}

fn lock(dir: &Path) -> io::Result<Lock> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nofollow())
        .open(dir.join(LOCK_FILE))?;
    refuse_planted(&file)?;
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

/// What has another name too is a file of somebody's that was linked here, and what is no file was never ours.
fn refuse_planted(file: &File) -> io::Result<()> {
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.nlink() <= 1 {
        return Ok(());
    }
    Err(io::Error::other("`lock` in it is not a file of its own: find out who put it there, and remove it"))
}

/// A link planted in a shared folder must not choose which file is written.
#[expect(clippy::cast_possible_wrap, reason = "open(2) takes its flags as a signed integer")]
fn nofollow() -> i32 {
    OFlags::NOFOLLOW.bits() as i32
}

fn write_pid(file: &mut File) -> io::Result<()> {
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
        fs::metadata(path).unwrap().permissions().mode() & 0o777
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
        fs::write(&file, "kept").unwrap();
        assert!(matches!(StateDir::open(&file), Err(StateDirError::Io { .. })));

        let dir = root.path().join("dir");
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::symlink(&file, dir.join(LOCK_FILE)).unwrap();
        assert!(matches!(StateDir::open(&dir), Err(StateDirError::Io { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn a_lock_with_another_name_is_not_written_and_a_pipe_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let (precious, lock) = (root.path().join("precious"), root.path().join(LOCK_FILE));
        fs::write(&precious, "kept").unwrap();
        fs::set_permissions(&precious, Permissions::from_mode(0o644)).unwrap();
        fs::hard_link(&precious, &lock).unwrap();
        let refused = StateDir::open(root.path()).unwrap_err();
        assert!(refused.to_string().contains("remove it"), "{refused}");
        assert_eq!((fs::read_to_string(&precious).unwrap().as_str(), mode(&precious)), ("kept", 0o644));
        fs::remove_file(&lock).unwrap();
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &lock, fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        assert!(matches!(StateDir::open(root.path()), Err(StateDirError::Io { .. })));
    }

    #[test]
    fn root_takes_no_folder_and_no_file_of_somebody_else_for_its_own() {
        let root = tempfile::tempdir().unwrap();
        drop(StateDir::open_own(root.path()).unwrap());
        fs::write(root.path().join(STORE_FILE), "").unwrap();
        let names = || fs::read_dir(root.path()).unwrap().count();
        for theirs in ["", LOCK_FILE, STORE_FILE] {
            let theirs = if theirs.is_empty() { root.path().to_owned() } else { root.path().join(theirs) };
            if std::os::unix::fs::chown(&theirs, Some(65_534), None).is_err() {
                // Only root can give files away, and only root is refused.
                return;
            }
            let before = names();
            let refused = StateDir::open_own(root.path()).unwrap_err();
            assert!(matches!(&refused, StateDirError::Others { path, uid: 65_534 } if *path == theirs), "{refused}");
            assert_eq!(names(), before);
            drop(StateDir::open(root.path()).unwrap());
            std::os::unix::fs::chown(&theirs, Some(0), None).unwrap();
        }
        std::os::unix::fs::chown(root.path(), Some(65_534), None).unwrap();
        let inner = root.path().join("not/there");
        assert!(matches!(StateDir::open_own(&inner), Err(StateDirError::Others { path, .. }) if path == root.path()));
        assert!(!inner.exists() && !root.path().join("not").exists());
    }
}
