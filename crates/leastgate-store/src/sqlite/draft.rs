//! A file under a name that nobody takes for a store, until it is whole and on disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::connect::sync_folder;
use super::snapshot::{self, COMPANIONS, companion};
use crate::archive::{ArchiveError, Stop, Watch};
use crate::error::{StoreError, from_io};

const SUFFIX: &str = ".partial";

/// Root writes nothing into a folder of somebody else: its owner could put a link in the place of a file between two looks
/// at it.
pub(super) fn refuse_others_folder(target: &Path) -> Result<(), ArchiveError> {
    let folder = folder_of(target);
    let uid = fs::metadata(folder).map_err(|error| from_io(target, &error))?.uid();
    if rustix::process::geteuid().is_root() && uid != 0 {
        return Err(ArchiveError::OthersFolder { path: folder.to_owned(), uid });
    }
    Ok(())
}

/// A file that is being written; it is removed again unless it gets its name.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    target: PathBuf,
    is_placed: bool,
}

impl Draft {
    /// Makes it, empty and for its owner only, in the folder of `target`: a name can only be changed within one file
    /// system.
    pub(super) fn of(target: &Path) -> Result<Self, StoreError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| StoreError::NoRandomness { detail: error.to_string() })?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let path = target.with_file_name(format!(".{name}.{:016x}{SUFFIX}", u64::from_ne_bytes(random)));
        let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.map_err(|error| from_io(target, &error))?;
        Ok(Self { path, target: target.to_owned(), is_placed: false })
    }

    /// Removes what earlier drafts of `target` left behind when they were killed, if nothing was written to them for so long:
    /// who is younger may be another process's, at work.
    pub(super) fn remove_left(target: &Path, age: Duration) {
        let Some(name) = target.file_name() else { return };
        let begin = format!(".{}.", name.to_string_lossy());
        for entry in fs::read_dir(folder_of(target)).into_iter().flatten().flatten() {
            let is_left = entry.file_name().to_str().is_some_and(|name| is_draft(name, &begin));
            if is_left && (age.is_zero() || is_older(&entry, age)) {
                // What stays only takes room.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fills it with all pages of `from`.
    pub(super) fn copy(&self, from: &Connection, watch: Watch<'_>) -> Result<(), Stop> {
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let mut to = Connection::open_with_flags(&self.path, flags)?;
        // Nothing of it is worth anything before it is synced as a whole.
        to.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
        to.pragma_update(None, "synchronous", "OFF")?;
        snapshot::copy(from, &mut to, watch)?;
        to.close().map_err(|(_, error)| error)?;
        self.need_no_log().map_err(|error| from_io(&self.target, &error).into())
    }

    /// One file is the whole of it: bytes 18 and 19 of SQLite's header (File Format, 1.3.3) say whether a log belongs to
    /// it, and the copied ones say it does.
    fn need_no_log(&self) -> io::Result<()> {
        OpenOptions::new().write(true).open(&self.path)?.write_all_at(&[1, 1], 18)
    }

    /// Gives it its name, which nothing may have yet.
    pub(super) fn place_new(self) -> io::Result<()> {
        self.sync()?;
        match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => self.placed(),
            // Of the file systems that can't, most have links.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                fs::hard_link(&self.path, &self.target)?;
                sync_folder(&self.target)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives it its name in the place of what has it now.
    pub(super) fn replace(self) -> io::Result<()> {
        self.sync()?;
        fs::rename(&self.path, &self.target)?;
        self.placed()
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn placed(mut self) -> io::Result<()> {
        self.is_placed = true;
        sync_folder(&self.target)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.is_placed {
            return;
        }
        for path in [self.path.clone()].into_iter().chain(COMPANIONS.map(|suffix| companion(&self.path, suffix))) {
            // What stays only takes room, and goes with a later draft.
            let _ = fs::remove_file(&path);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether it is a draft's name, or that of what SQLite keeps beside it: a file whose own name begins with the target's has
/// drafts of its own.
fn is_draft(name: &str, begin: &str) -> bool {
    let number_and_rest = name.strip_prefix(begin).and_then(|rest| rest.split_once(SUFFIX));
    number_and_rest.is_some_and(|(number, rest)| {
        let is_number = number.len() == 16 && number.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_number && (rest.is_empty() || COMPANIONS.contains(&rest))
    })
}

fn is_older(entry: &fs::DirEntry, age: Duration) -> bool {
    let written = entry.metadata().and_then(|metadata| metadata.modified());
    written.is_ok_and(|written| written.elapsed().is_ok_and(|since| since > age))
}
