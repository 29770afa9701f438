//! Files of certificates that are looked at again and again: when what they hold is taken, and when it is tried once more.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use leastgate_config::{CertificateFiles, read_pem};
use leastgate_policy::Timestamp;
use leastgate_proxy::tls::{KeyPair, Pem, TlsError};

use super::loading;

/// How soon files are tried again that something else spoke against. The clock: a machine may learn the time late, and a
/// certificate may come before its time. The system's authorities: they may be just being written.
const AGAIN: Duration = Duration::from_secs(60);

/// What files hold.
pub(super) type Look<S> = Result<S, CertificateFault>;

/// Why certificates can't be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CertificateFault {
    /// A file can't be read.
    #[error("{} {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The rest of the sentence.
        reason: String,
    },
    /// What was read can't be used.
    #[error(transparent)]
    Unusable(#[from] TlsError),
    /// Nobody vouches for an upstream.
    #[error("the system has no certificate authorities; install them (ca-certificates), or name a file as ca")]
    NoAuthorities,
    /// Nobody does, for what the system has can't be read.
    #[error("none of the system's certificate authorities can be read: {reason}")]
    UnreadableAuthorities {
        /// The first that is wrong.
        reason: String,
    },
    /// Something of the system's authorities can't be read, and there are fewer than before.
    #[error("of the system's {before} certificate authorities {found} are left, for not all can be read: {reason}")]
    FewerAuthorities {
        /// Those in force.
        before: usize,
        /// Those that can be read.
        found: usize,
        /// The first that is wrong.
        reason: String,
    },
    /// The name that an upstream's certificate must be for is none.
    #[error("`{0}` is not a DNS name")]
    NoName(String),
}

impl CertificateFault {
    /// Whether the same files may be taken at another time.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unusable(error) => error.is_of_the_clock(),
            Self::NoAuthorities | Self::UnreadableAuthorities { .. } | Self::FewerAuthorities { .. } => true,
            Self::Unreadable { .. } | Self::NoName(_) => false,
        }
    }
}

/// Both clocks. Certificates are judged by the wall clock as it is now, set back or not: not by that of the decisions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: Timestamp,
    pub(super) at: Instant,
}

impl Now {
    pub(super) fn read() -> Self {
        Self { wall: loading::now(), at: Instant::now() }
    }
}

/// Files, and what they are for.
pub(super) trait Source {
    /// What they hold.
    type Set: Clone + PartialEq + fmt::Debug;

    fn read(&self) -> Look<Self::Set>;

    /// Puts it in force.
    fn take(&self, set: &Self::Set, now: Timestamp) -> Result<(), CertificateFault>;
}

/// Files whose content is in force, or was when it could be used.
#[derive(Debug)]
pub(super) struct Watched<S: Source> {
    pub(super) source: S,
    /// What was taken or refused last.
    seen: Look<S::Set>,
    /// What the last look saw, if it was new.
    settling: Option<Look<S::Set>>,
    /// When what was refused for something else is tried again.
    again: Option<Instant>,
}

impl<S: Source> Watched<S> {
    /// With what is in force already.
    pub(super) fn new(source: S, in_force: S::Set) -> Self {
        Self { source, seen: Ok(in_force), settling: None, again: None }
    }

    /// Takes what the files hold if that is new and two looks in a row agree on it: a certificate and its key are two
    /// files, and one of them is written first.
    pub(super) fn poll(&mut self, now: Now) -> Option<Result<(), CertificateFault>> {
        let look = self.source.read();
        if look == self.seen {
            self.settling = None;
            return self.try_again(now);
        }
        if self.settling.as_ref() != Some(&look) {
            self.settling = Some(look);
            return None;
        }
        Some(self.take(look, now))
    }

    /// Takes what the files hold, new or not.
    pub(super) fn reload(&mut self, now: Now) -> Result<(), CertificateFault> {
        let look = self.source.read();
        self.take(look, now)
    }

    /// A refusal was told the first time.
    fn try_again(&mut self, now: Now) -> Option<Result<(), CertificateFault>> {
        self.again.filter(|due| *due <= now.at)?;
        let look = self.seen.clone();
        self.take(look, now).ok().map(Ok)
    }

    fn take(&mut self, look: Look<S::Set>, now: Now) -> Result<(), CertificateFault> {
        self.settling = None;
        self.seen = look;
        let taken = match &self.seen {
            Ok(set) => self.source.take(set, now.wall),
            Err(fault) => Err(fault.clone()),
        };
        let may_pass = taken.as_ref().is_err_and(CertificateFault::may_pass);
        self.again = may_pass.then(|| now.at + AGAIN);
        taken
    }
}

pub(super) fn pair(files: &CertificateFiles) -> Result<KeyPair, CertificateFault> {
    Ok(KeyPair { cert: pem(&files.cert)?, key: pem(&files.key)? })
}

/// Reads one file. Errors about what it holds name it as the log and the metrics do.
pub(super) fn pem(path: &Path) -> Result<Pem, CertificateFault> {
    let bytes = read_pem(path).map_err(|reason| CertificateFault::Unreadable { path: path.to_owned(), reason })?;
    Ok(Pem::new(path.display().to_string(), bytes))
}
