//! The data listener's certificates: read from their files at a start, and again when what those hold changes.

use std::fmt;
use std::path::{Path, PathBuf};

use leastgate_config::{CertificateFiles, ListenerTls, LoadedGateway, read_pem};
use leastgate_policy::Timestamp;
use leastgate_proxy::tls::{CertificateSet, KeyPair, Pem, ServerTls, TlsError};

use super::{Shared, loading};
use crate::exit::Failure;

/// The certificates in force, and the files they come from.
#[derive(Debug)]
pub struct Certificates {
    files: ListenerTls,
    tls: ServerTls,
    /// What was taken or refused last.
    seen: Look,
    /// What the last look saw, if it was new.
    settling: Option<Look>,
}

/// What the files hold.
type Look = Result<CertificateSet, CertificateFault>;

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
}

impl Certificates {
    /// Those that the gateway's file names, if it names any.
    ///
    /// # Errors
    /// A file that can't be read or used (3).
    pub fn first(loaded: &LoadedGateway) -> Result<Option<Self>, Failure> {
        let hint = "paths are relative to the file that names them";
        let Some(files) = loaded.config.listeners.data.tls.clone() else { return Ok(None) };
        let fault = |fault: CertificateFault| loaded.fault(&["listeners", "data", "tls"], &fault.to_string(), hint);
        let set = read(&files).map_err(fault)?;
        let tls = ServerTls::new(&set).map_err(|error| fault(error.into()))?;
        let tls = tls.with_deadline(loaded.config.limits.tls_handshake);
        Ok(Some(Self { files, tls, seen: Ok(set), settling: None }))
    }

    /// Tells the metrics about them; gives the data plane's handle.
    pub(super) fn show(&self, shared: &Shared) -> ServerTls {
        let views = self.tls.certificates();
        let ends = views.iter().filter_map(|view| Some((view.origin.as_str(), view.expires?)));
        shared.telemetry.set_certificates(ends);
        self.tls.clone()
    }

    /// Certificates that clients do not accept any more, or soon will not, one line each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let now = loading::now();
        let views = self.tls.certificates().into_iter();
        views.filter_map(|view| Ending { end: view.expires?, origin: view.origin }.tell(now)).collect()
    }

    /// Takes what the files hold if that is new and two looks in a row agree on it: a certificate and its key are two
    /// files, and one of them is written first.
    pub(super) fn poll(&mut self) -> Option<Result<(), CertificateFault>> {
        let look = read(&self.files);
        if look == self.seen {
            self.settling = None;
            return None;
        }
        if self.settling.as_ref() != Some(&look) {
            self.settling = Some(look);
            return None;
        }
        Some(self.take(look))
    }

    /// Takes what the files hold, new or not.
    pub(super) fn reload(&mut self) -> Option<Result<(), CertificateFault>> {
        let look = read(&self.files);
        Some(self.take(look))
    }

    fn take(&mut self, look: Look) -> Result<(), CertificateFault> {
        self.settling = None;
        self.seen = look;
        let set = self.seen.as_ref().map_err(Clone::clone)?;
        Ok(self.tls.replace(set)?)
    }
}

fn read(files: &ListenerTls) -> Look {
    let by_name = files.sni.iter().map(pair);
    Ok(CertificateSet {
        default: pair(&files.default)?,
        by_name: by_name.collect::<Result<_, _>>()?,
        client_ca: files.client_ca.as_deref().map(pem).transpose()?,
    })
}

fn pair(files: &CertificateFiles) -> Result<KeyPair, CertificateFault> {
    Ok(KeyPair { cert: pem(&files.cert)?, key: pem(&files.key)? })
}

/// Reads one file. Errors about what it holds name it as the log and the metrics do.
pub(super) fn pem(path: &Path) -> Result<Pem, CertificateFault> {
    let bytes = read_pem(path).map_err(|reason| CertificateFault::Unreadable { path: path.to_owned(), reason })?;
    Ok(Pem::new(path.display().to_string(), bytes))
}

struct Ending {
    origin: String,
    end: Timestamp,
}

impl Ending {
    /// Renewals come a month before the end at the latest; one that has not come a week before is late.
    const SOON: u64 = 7 * 86_400;

    fn tell(&self, now: Timestamp) -> Option<String> {
        let left = self.end.0.saturating_sub(now.0);
        match left {
            0 => Some(format!("{self}: it has expired, and clients refuse it")),
            1..=Self::SOON => Some(format!("{self}: it expires in {} hours", left / 3600)),
            _ => None,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the certificate in {}", self.origin)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use leastgate_config::parse_gateway;
    use rcgen::{CertificateParams, KeyPair as Key};

    use super::*;

    /// A certificate for this name in `web.pem`, its key in `web.key`; the year it ends in.
    fn write(dir: &Path, name: &str, year: i32) -> String {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = Key::generate().unwrap();
        fs::write(dir.join("web.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        key.serialize_pem()
    }

    fn write_both(dir: &Path, name: &str, year: i32) {
        let key = write(dir, name, year);
        fs::write(dir.join("web.key"), key).unwrap();
    }

    fn loaded(dir: &Path) -> LoadedGateway {
        let text = "environment: prod\nstate_dir: .\nupstreams: { a: { endpoints: [ \"http://h\" ] } }\n\
                    pepper: { current: { file: pepper } }\npolicy: { files: [ p ] }\n\
                    listeners: { data: { tls: { cert: web.pem, key: web.key } } }\n";
        parse_gateway(&dir.join("leastgate.yaml").display().to_string(), text).unwrap()
    }

    fn names(certificates: &Certificates) -> Vec<String> {
        certificates.tls.certificates().remove(0).names
    }

    #[test]
    fn a_pair_is_taken_when_both_of_its_files_are_there_and_one_that_is_broken_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        write_both(dir.path(), "one.test", 2040);
        let mut certificates = Certificates::first(&loaded(dir.path())).unwrap().unwrap();
        assert_eq!((certificates.poll(), names(&certificates)), (None, vec!["one.test".to_owned()]));

        let key = write(dir.path(), "two.test", 2040);
        assert_eq!(certificates.poll(), None, "the key is still the old one");
        fs::write(dir.path().join("web.key"), key).unwrap();
        assert_eq!(certificates.poll(), None, "new, and perhaps not all of it");
        assert_eq!((certificates.poll(), names(&certificates)), (Some(Ok(())), vec!["two.test".to_owned()]));
        assert_eq!(certificates.poll(), None);

        fs::remove_file(dir.path().join("web.key")).unwrap();
        let told: Vec<_> = (0..4).filter_map(|_| certificates.poll()).collect();
        assert!(matches!(&told[..], [Err(CertificateFault::Unreadable { path, .. })] if path.ends_with("web.key")));
        assert!(matches!(certificates.reload(), Some(Err(_))), "whoever asks is told again");
        write_both(dir.path(), "old.test", 2020);
        let told: Vec<_> = (0..4).filter_map(|_| certificates.poll()).collect();
        assert!(matches!(&told[..], [Err(CertificateFault::Unusable(TlsError::Expired { .. }))]), "{told:?}");
        assert_eq!(names(&certificates), ["two.test"], "what was in force stays");
    }

    #[test]
    fn a_start_without_certificates_says_which_file_and_where_it_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let told = || format!("{:?}", Certificates::first(&loaded(dir.path())).unwrap_err());
        assert!(told().contains("web.pem can't be opened") && told().contains("leastgate.yaml:6"), "{}", told());
        write_both(dir.path(), "one.test", 2040);
        write(dir.path(), "two.test", 2040);
        assert!(told().contains("does not belong to"), "{}", told());
    }

    #[test]
    fn an_end_that_is_near_or_past_is_told() {
        let dir = tempfile::tempdir().unwrap();
        write_both(dir.path(), "one.test", 2020);
        let lines = Certificates::first(&loaded(dir.path())).unwrap().unwrap().warnings();
        assert!(lines.len() == 1 && lines[0].contains("web.pem: it has expired"), "{lines:?}");
        let end = |hours: u64| Ending { origin: "a".into(), end: Timestamp(1_000_000 + hours * 3600) };
        assert_eq!(end(8 * 24).tell(Timestamp(1_000_000)), None);
        assert_eq!(end(30).tell(Timestamp(1_000_000)).unwrap(), "the certificate in a: it expires in 30 hours");
    }
}
