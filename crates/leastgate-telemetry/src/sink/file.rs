//! NDJSON in a file: appended, rotated by size and age, opened anew on demand and when somebody deleted or replaced it.
//! Before every batch, and twice a second between batches, the path is compared with the open file, so a deleted file costs
//! nothing that is written later. On a full disk the torn part is cut off again and the batch tried until it fits.
//!
//! A symbolic link is followed only if it is root's or ours (an image may link its log to `/dev/stdout`): one that somebody
//! else planted in a shared directory does not choose what is written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use super::{Moved, Sink, SinkError};
use crate::clock::Clock;
use crate::config::{FileSinkConfig, Fsync};
use crate::event::compact_utc;

/// A file of audit events.
#[derive(Debug)]
pub struct FileSink {
    config: FileSinkConfig,
    clock: Arc<dyn Clock>,
    segment: Segment,
    synced: Duration,
    dirty: bool,
    /// The batch at hand is in the segment already, and only the disk was not sure: what is tried again is the sync alone.
    appended: bool,
    /// Before this a rotation that failed is not tried again.
    rotate_after: Duration,
}

impl FileSink {
    /// Opens the file for appending, and creates it if need be, for its owner and group to read.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(config: FileSinkConfig, clock: Arc<dyn Clock>) -> io::Result<Self> {
        let segment = Segment::open(&config.path, &*clock)?;
        let synced = clock.elapsed();
        Ok(Self { config, clock, segment, synced, dirty: false, appended: false, rotate_after: Duration::ZERO })
    }

    /// A batch that a segment holds, but not for sure, goes into the next one too: twice is better than never.
    fn reopen_segment(&mut self) -> Result<(), SinkError> {
        let next = Segment::open(&self.config.path, &*self.clock).map_err(SinkError::Retry)?;
        let closed = std::mem::replace(&mut self.segment, next);
        let sure = !self.dirty || closed.is_linked() && closed.file.sync_data().is_ok();
        self.dirty = false;
        self.appended &= sure;
        Ok(())
    }

    fn rotate_if_due(&mut self, incoming: u64) -> Result<(), SinkError> {
        let full = self.config.max_bytes.is_some_and(|max| self.segment.len > 0 && self.segment.len + incoming > max);
        let age = self.clock.elapsed().saturating_sub(self.segment.since) + self.segment.age_when_opened;
        let old = self.config.max_age.is_some_and(|max| self.segment.len > 0 && age >= max);
        if (full || old) && self.clock.elapsed() >= self.rotate_after { self.rotate() } else { Ok(()) }
    }

    /// A segment that cannot be closed is written on: a file too large is better than an event lost.
    fn rotate(&mut self) -> Result<(), SinkError> {
        let closed = closed_name(&self.config.path, &compact_utc(self.clock.now()));
        let renamed = self.segment.file.sync_data().and_then(|()| fs::rename(&self.config.path, closed));
        if let Err(error) = renamed {
            tracing::warn!(path = %self.config.path.display(), %error, "the audit file cannot be rotated");
            self.rotate_after = self.clock.elapsed() + ROTATE_AGAIN;
            return Ok(());
        }
        self.reopen_segment()
    }

    fn sync_if_due(&mut self) -> Result<(), SinkError> {
        let now = self.clock.elapsed();
        let due = match self.config.fsync {
            Fsync::Never => false,
            Fsync::Batch => true,
            Fsync::Interval(interval) => now.saturating_sub(self.synced) >= interval,
        };
        if due && self.dirty {
            self.segment.file.sync_data().map_err(SinkError::Retry)?;
            (self.synced, self.dirty) = (now, false);
        }
        Ok(())
    }
}

const ROTATE_AGAIN: Duration = Duration::from_secs(60);

impl Sink for FileSink {
    fn write(&mut self, batch: &[u8]) -> Result<(), SinkError> {
        if !self.appended {
            self.rotate_if_due(batch.len() as u64)?;
            self.segment.append(batch).map_err(SinkError::Retry)?;
            (self.dirty, self.appended) = (true, true);
        }
        self.sync_if_due()?;
        self.appended = false;
        Ok(())
    }

    fn check(&mut self) -> Result<Option<Moved>, SinkError> {
        let moved = self.segment.moved(&self.config.path);
        if moved.is_some() {
            self.reopen_segment()?;
        }
        self.sync_if_due()?;
        Ok(moved)
    }

    fn reopen(&mut self) -> Result<(), SinkError> {
        self.reopen_segment()
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.segment.file.sync_data().map_err(SinkError::Retry)
    }
}

/// The file that is being written.
#[derive(Debug)]
struct Segment {
    file: File,
    len: u64,
    since: Duration,
    age_when_opened: Duration,
    /// The last line is torn and could not be cut off.
    torn: bool,
}

impl Segment {
    fn open(path: &Path, clock: &dyn Clock) -> io::Result<Self> {
        let mut file = open_trusted(path)?;
        let metadata = file.metadata()?;
        let torn = metadata.is_file() && metadata.len() > 0 && !ends_with_newline(&mut file)?;
        Ok(Self { len: metadata.len(), since: clock.elapsed(), age_when_opened: age(&metadata), file, torn })
    }

    /// A torn line left by somebody is ended, not removed: it is evidence.
    fn append(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.len += 1;
            self.torn = false;
        }
        match self.file.write_all(batch) {
            Ok(()) => {
                self.len += batch.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.torn = self.file.metadata().is_ok_and(|now| now.is_file() && now.len() > self.len)
                    && self.file.set_len(self.len).is_err();
                Err(error)
            }
        }
    }

    fn is_linked(&self) -> bool {
        self.file.metadata().is_ok_and(|now| now.nlink() > 0)
    }

    fn moved(&self, path: &Path) -> Option<Moved> {
        let Ok(there) = fs::metadata(path) else { return Some(Moved::Deleted) };
        let ours = self.file.metadata().ok()?;
        (there.ino() != ours.ino() || there.dev() != ours.dev()).then_some(Moved::Replaced)
    }
}

fn open_trusted(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true).mode(0o640);
    match options.clone().custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            let owner = fs::symlink_metadata(path)?.uid();
            if is_trusted(owner, rustix::process::geteuid().as_raw()) { options.open(path) } else { Err(error) }
        }
        opened => opened,
    }
}

/// Whether a link of this owner may say where we write.
fn is_trusted(owner: u32, us: u32) -> bool {
    owner == 0 || owner == us
}

fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// How old a file already is that we go on writing. Where the file system keeps no birth time, it is new.
fn age(metadata: &fs::Metadata) -> Duration {
    let born = metadata.created().unwrap_or_else(|_| SystemTime::now());
    if metadata.len() == 0 { Duration::ZERO } else { born.elapsed().unwrap_or_default() }
}

/// `<path>.<time>`, or with a number behind it when that second already has one.
fn closed_name(path: &Path, time: &str) -> PathBuf {
    let named = |suffix: String| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let first = named(format!(".{time}"));
    if !first.exists() {
        return first;
    }
    (1_u64..).map(|number| named(format!(".{time}.{number:04}"))).find(|name| !name.exists()).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, Micros};

    fn sink(dir: &Path, change: impl FnOnce(&mut FileSinkConfig)) -> (FileSink, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Micros(1_795_298_787_000_000)));
        let mut config = FileSinkConfig::new(dir.join("audit.log"));
        change(&mut config);
        (FileSink::open(config, clock.clone()).unwrap(), clock)
    }

    fn files(dir: &Path) -> Vec<(String, String)> {
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn pairs(files: &[(String, String)]) -> Vec<(&str, &str)> {
        files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect()
    }

    #[test]
    fn a_segment_is_closed_before_it_grows_too_large() {
        let dir = tempfile::tempdir().unwrap();
        let (mut sink, _) = sink(dir.path(), |config| config.max_bytes = Some(10));
        for line in ["12345\n", "678\n", "9\n", "longer than the limit\n", "x\n"] {
            sink.write(line.as_bytes()).unwrap();
        }
        assert_eq!(
            pairs(&files(dir.path())),
            [
                ("audit.log", "x\n"),
                ("audit.log.20261121T220627Z", "12345\n678\n"),
                ("audit.log.20261121T220627Z.0001", "9\n"),
                ("audit.log.20261121T220627Z.0002", "longer than the limit\n"),
            ]
        );
    }

    #[test]
    fn a_segment_is_closed_when_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let (mut sink, clock) = sink(dir.path(), |config| config.max_age = Some(Duration::from_secs(60)));
        sink.write(b"1\n").unwrap();
        clock.advance(Duration::from_secs(59));
        sink.write(b"2\n").unwrap();
        clock.advance(Duration::from_secs(1));
        sink.write(b"3\n").unwrap();
        assert_eq!(pairs(&files(dir.path())), [("audit.log", "3\n"), ("audit.log.20261121T220727Z", "1\n2\n")]);
    }

    #[test]
    fn a_deleted_or_replaced_file_is_noticed_and_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (mut sink, _) = sink(dir.path(), |_| {});
        let path = dir.path().join("audit.log");
        sink.write(b"1\n").unwrap();
        assert_eq!(sink.check().unwrap(), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(sink.check().unwrap(), Some(Moved::Deleted));
        sink.write(b"2\n").unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        fs::write(&path, "theirs\n").unwrap();
        assert_eq!(sink.check().unwrap(), Some(Moved::Replaced));
        sink.write(b"3\n").unwrap();
        assert_eq!(pairs(&files(dir.path())), [("audit.log", "theirs\n3\n"), ("moved", "2\n")]);
    }

    #[test]
    fn reopening_follows_a_rename() {
        let dir = tempfile::tempdir().unwrap();
        let (mut sink, _) = sink(dir.path(), |config| config.fsync = Fsync::Batch);
        sink.write(b"1\n").unwrap();
        fs::rename(dir.path().join("audit.log"), dir.path().join("old")).unwrap();
        sink.reopen().unwrap();
        sink.write(b"2\n").unwrap();
        assert_eq!(pairs(&files(dir.path())), [("audit.log", "2\n"), ("old", "1\n")]);
    }

    #[test]
    fn a_segment_that_cannot_be_closed_is_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let (mut sink, _) = sink(dir.path(), |config| config.max_bytes = Some(4));
        sink.write(b"1234\n").unwrap();
        // Nothing can be renamed that is not there.
        fs::remove_file(dir.path().join("audit.log")).unwrap();
        sink.write(b"5\n").unwrap();
        assert_eq!(sink.check().unwrap(), Some(Moved::Deleted));
        sink.write(b"6\n").unwrap();
        assert_eq!(pairs(&files(dir.path())), [("audit.log", "6\n")]);
    }

    #[test]
    fn a_torn_last_line_is_ended_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("audit.log"), "whole\ntorn").unwrap();
        let (mut sink, _) = sink(dir.path(), |_| {});
        sink.write(b"next\n").unwrap();
        assert_eq!(pairs(&files(dir.path())), [("audit.log", "whole\ntorn\nnext\n")]);
    }

    /// A FIFO takes bytes, and cannot be synced.
    fn fifo(path: &Path) -> File {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(flags).open(path).unwrap()
    }

    #[test]
    fn a_batch_that_only_was_not_synced_is_not_written_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut reader = fifo(&path);
        let (mut sink, _) = sink(dir.path(), |config| {
            config.fsync = Fsync::Batch;
            config.max_bytes = Some(4);
        });
        for _ in 0..3 {
            assert!(matches!(sink.write(b"batch\n"), Err(SinkError::Retry(_))));
        }
        let mut read = [0; 64];
        let count = reader.read(&mut read).unwrap();
        assert_eq!(std::str::from_utf8(&read[..count]), Ok("batch\n"));
        // Given up for another file, which has to hold it for sure.
        fs::remove_file(&path).unwrap();
        assert!(matches!(sink.check(), Ok(Some(Moved::Deleted))));
        sink.write(b"batch\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "batch\n");
        sink.write(b"next\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "next\n");
    }

    #[test]
    fn a_link_is_followed_only_if_it_is_ours_or_roots() {
        let dir = tempfile::tempdir().unwrap();
        let (link, target) = (dir.path().join("audit.log"), dir.path().join("target"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        sink(dir.path(), |_| {}).0.write(b"ours\n").unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "ours\n");
        assert!(is_trusted(0, 1000) && is_trusted(1000, 1000) && !is_trusted(1001, 1000) && !is_trusted(1001, 0));
        // Only root can give a link away.
        if std::os::unix::fs::lchown(&link, Some(65534), None).is_ok() {
            let clock = ManualClock::at(Micros(0));
            assert!(Segment::open(&link, &clock).is_err());
        }
    }
}
