//! What outlives the process: the instance's id, the last sequence number, the end of the checkpoint chain, and whether the
//! stream was closed properly. Two slots in one small file are overwritten in turn, so a torn write costs one batch's worth
//! of position and never the file. Written before a batch reaches any sink: numbers are never given twice.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use blake3::Hash;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::clock::Micros;

const FILE: &str = "audit.position";
const SLOT: usize = 512;

/// A position in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) instance: String,
    pub(crate) last_seq: u64,
    /// Up to when every sink has written what it was given.
    pub(crate) last_time: Micros,
    pub(crate) prev: Hash,
    /// The stream was flushed and closed here.
    pub(crate) clean: bool,
}

/// The file of a [`Position`].
#[derive(Debug)]
pub(crate) struct PositionFile {
    file: File,
    generation: u64,
}

#[derive(Serialize, Deserialize)]
struct Slot {
    generation: u64,
    instance: String,
    last_seq: u64,
    last_time: u64,
    prev: String,
    clean: bool,
}

impl PositionFile {
    /// Opens or creates the file in `state_dir`, with the position it holds. A link in its place is not followed: nobody
    /// has a reason to put one there.
    pub(crate) fn open(state_dir: &Path) -> io::Result<(Self, Option<Position>)> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(state_dir.join(FILE))?;
        let newest = [0, 1].iter().filter_map(|&index| read_slot(&file, index)).max_by_key(|slot| slot.generation);
        let generation = newest.as_ref().map_or(0, |slot| slot.generation);
        Ok((Self { file, generation }, newest.and_then(Slot::position)))
    }

    pub(crate) fn write(&mut self, position: &Position) -> io::Result<()> {
        self.generation += 1;
        let slot = Slot {
            generation: self.generation,
            instance: position.instance.clone(),
            last_seq: position.last_seq,
            last_time: position.last_time.0,
            prev: position.prev.to_hex().to_string(),
            clean: position.clean,
        };
        let json = serde_json::to_vec(&slot)?;
        let mut bytes = blake3::hash(&json).to_hex()[..CHECK].as_bytes().to_vec();
        bytes.push(b' ');
        bytes.extend_from_slice(&json);
        if bytes.len() >= SLOT {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the instance id is too long"));
        }
        bytes.resize(SLOT - 1, b' ');
        bytes.push(b'\n');
        self.file.write_all_at(&bytes, (self.generation % 2) * SLOT as u64)
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

const CHECK: usize = 16;

fn read_slot(file: &File, index: u64) -> Option<Slot> {
    let mut bytes = [0; SLOT];
    file.read_exact_at(&mut bytes, index * SLOT as u64).ok()?;
    let (check, json) = bytes.trim_ascii_end().split_at_checked(CHECK)?;
    let json = json.strip_prefix(b" ")?;
    (blake3::hash(json).to_hex()[..CHECK].as_bytes() == check).then(|| serde_json::from_slice(json).ok()).flatten()
}

impl Slot {
    fn position(self) -> Option<Position> {
        Some(Position {
            instance: self.instance,
            last_seq: self.last_seq,
            last_time: Micros(self.last_time),
            prev: Hash::from_hex(&self.prev).ok()?,
            clean: self.clean,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(last_seq: u64) -> Position {
        Position {
            instance: String::from("one"),
            last_seq,
            last_time: Micros(last_seq * 10),
            prev: blake3::hash(&last_seq.to_le_bytes()),
            clean: last_seq == 3,
        }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, none) = PositionFile::open(dir.path()).unwrap();
        assert_eq!(none, None);
        for seq in 1..=3 {
            file.write(&position(seq)).unwrap();
        }
        assert_eq!(PositionFile::open(dir.path()).unwrap().1, Some(position(3)));
        // A write torn in the middle: the slot of generation 3 is the second one.
        file.file.write_all_at(b"torn", SLOT as u64 + 40).unwrap();
        let (mut file, before) = PositionFile::open(dir.path()).unwrap();
        assert_eq!(before, Some(position(2)));
        file.write(&position(4)).unwrap();
        assert_eq!(PositionFile::open(dir.path()).unwrap().1, Some(position(4)));
    }

    #[test]
    fn a_link_in_the_place_of_the_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("precious");
        std::fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join(FILE)).unwrap();
        assert!(PositionFile::open(dir.path()).is_err());
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
    }
}
