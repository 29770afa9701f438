//! The seal of a backup: who changes a byte of it without the pepper is found out.
//!
//! Whoever can write to where backups are kept can't make a token (its digest needs the pepper), but could give one
//! more roles, let a revoked one live or move its end. So a keyed BLAKE3 of all bytes stands behind SQLite's last page,
//! where SQLite does not look: magic, time of the backup, hash. It goes when the copy is restored.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::path::Path;

use leastgate_policy::{EnvironmentKey, Timestamp};

use crate::archive::{Step, Stop, Watch, tell};
use crate::error::{Failure, from_io};

const MAGIC: &[u8; 16] = b"leastgate backup";
const LENGTH: u64 = 16 + 8 + 32;

/// What is known of a file's seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// There is none: no backup, or not by `store backup`.
    None,
    /// Nobody has changed the file since this moment.
    Good(Timestamp),
    /// The file is not as it was written.
    Broken,
    /// There is one, and no key to judge it by.
    Unknown,
}

/// A file with what may be its seal.
#[derive(Debug)]
pub(super) struct Sealed {
    file: File,
    body: u64,
    made: [u8; 8],
    hash: [u8; 32],
}

impl Sealed {
    /// Opens it; `None` where it has no seal.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let Some(body) = file.metadata()?.len().checked_sub(LENGTH) else { return Ok(None) };
        let (mut magic, mut made, mut hash) = ([0; 16], [0; 8], [0; 32]);
        file.seek(SeekFrom::Start(body))?;
        file.read_exact(&mut magic)?;
        file.read_exact(&mut made)?;
        file.read_exact(&mut hash)?;
        file.rewind()?;
        Ok((magic == *MAGIC).then_some(Self { file, body, made, hash }))
    }

    /// Reads it once, writes what is sealed to `out`, and says whether it was good: what was judged is what was written.
    pub(super) fn unpack(
        mut self,
        key: &EnvironmentKey,
        out: &mut impl Write,
        watch: Watch<'_>,
    ) -> Result<Seal, Unpack> {
        // One made before the pepper was replaced is under the previous one.
        let keys = (key, key.previous());
        let (current, previous) = hash(&mut self.file, self.body, self.made, keys, out, watch)?;
        let (made, stored) = (Timestamp(u64::from_le_bytes(self.made)), blake3::Hash::from_bytes(self.hash));
        let is_good = current == stored || previous.is_some_and(|previous| previous == stored);
        Ok(if is_good { Seal::Good(made) } else { Seal::Broken })
    }
}

/// Which side of a copy failed.
#[derive(Debug)]
pub(super) enum Unpack {
    Read(io::Error),
    Write(io::Error),
    Interrupted,
}

impl Unpack {
    pub(super) fn at(self, from: &Path, to: &Path) -> Stop {
        let failed = |path: &Path, error: &io::Error| Stop::Failed(Failure::Store(from_io(path, error)));
        match self {
            Self::Read(error) => failed(from, &error),
            Self::Write(error) => failed(to, &error),
            Self::Interrupted => Stop::Interrupted,
        }
    }
}

/// Puts a seal behind the last byte of the file.
pub(super) fn seal(path: &Path, key: &EnvironmentKey, made: Timestamp, watch: Watch<'_>) -> Result<(), Unpack> {
    let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(Unpack::Write)?;
    let body = file.metadata().map_err(Unpack::Write)?.len();
    let made = made.0.to_le_bytes();
    let (hash, _) = hash(&mut file, body, made, (key, None), &mut io::sink(), watch)?;
    let seal: Vec<u8> = [&MAGIC[..], &made, hash.as_bytes()].concat();
    file.write_all(&seal).map_err(Unpack::Write)
}

/// Under the current key, and under the previous one where there is one.
fn hash(
    file: &mut File,
    body: u64,
    made: [u8; 8],
    (key, previous): (&EnvironmentKey, Option<EnvironmentKey>),
    out: &mut impl Write,
    watch: Watch<'_>,
) -> Result<(blake3::Hash, Option<blake3::Hash>), Unpack> {
    let hasher = |key: &EnvironmentKey| {
        let mut hasher = blake3::Hasher::new_keyed(&key.derive_for("backup seal"));
        hasher.update(&made);
        hasher
    };
    let (mut current, mut previous) = (hasher(key), previous.as_ref().map(hasher));
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < body {
        let wanted = usize::try_from(body - done).map_or(buffer.len(), |left| left.min(buffer.len()));
        file.read_exact(&mut buffer[..wanted]).map_err(Unpack::Read)?;
        for hasher in previous.iter_mut().chain([&mut current]) {
            hasher.update(&buffer[..wanted]);
        }
        out.write_all(&buffer[..wanted]).map_err(Unpack::Write)?;
        done += wanted as u64;
        tell(watch, Step::Seal, done, body).map_err(|_| Unpack::Interrupted)?;
    }
    Ok((current.finalize(), previous.map(|previous| previous.finalize())))
}
