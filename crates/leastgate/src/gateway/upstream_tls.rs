//! What the https endpoints of an upstream are met with, and the files it comes from.

use std::cell::RefCell;

use leastgate_config::{Upstream, UpstreamTlsFiles};
use leastgate_policy::Timestamp;
use leastgate_proxy::tls::{KeyPair, Pem};
use leastgate_proxy::{Trust, UpstreamTls};
use rustls_native_certs::{CertificateResult, load_native_certs};

use super::watched::{CertificateFault, Look, Source, Watched, pair, pem};

#[derive(Debug)]
pub(super) struct UpstreamFiles {
    /// The upstream.
    pub(super) name: String,
    files: UpstreamTlsFiles,
    pub(super) tls: UpstreamTls,
    system: RefCell<System>,
}

/// What was found of the system's authorities when they were last put in force; nothing where a file has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct System {
    found: usize,
    /// The first that is wrong with them.
    fault: Option<String>,
}

/// What the files hold. The system's authorities are no part of it: there are too many to read four times a second, and
/// they are read anew whenever anything else is taken, or SIGHUP asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UpstreamSet {
    ca: Option<Pem>,
    identity: Option<KeyPair>,
}

/// Those of one upstream with https endpoints.
pub(super) fn first(upstream: &Upstream) -> Result<Watched<UpstreamFiles>, CertificateFault> {
    let files = upstream.tls.clone();
    let set = read(&files)?;
    let (trust, system) = set.trust(load_native_certs)?;
    let tls = UpstreamTls::new(trust, set.identity.as_ref())?;
    let tls = match &files.name {
        None => tls,
        Some(name) => tls.with_name(name).map_err(|_| CertificateFault::NoName(name.clone()))?,
    };
    let source = UpstreamFiles { name: upstream.name.clone(), files, tls, system: RefCell::new(system) };
    Ok(Watched::new(source, set))
}

impl UpstreamFiles {
    /// That not all of the system's authorities are in force, if so.
    pub(super) fn warning(&self) -> Option<String> {
        let System { found, fault } = &*self.system.borrow();
        let fault = fault.as_ref()?;
        Some(format!(
            "upstreams.{}.tls: not all of the system's certificate authorities can be read, {found} are in force: {fault}",
            self.name
        ))
    }

    fn put(
        &self,
        set: &UpstreamSet,
        now: Timestamp,
        load: impl FnOnce() -> CertificateResult,
    ) -> Result<(), CertificateFault> {
        let (trust, system) = set.trust(load)?;
        system.is_no_less_than(&self.system.borrow())?;
        self.tls.replace(trust, set.identity.as_ref(), now)?;
        self.system.replace(system);
        Ok(())
    }
}

impl Source for UpstreamFiles {
    type Set = UpstreamSet;

    fn read(&self) -> Look<UpstreamSet> {
        read(&self.files)
    }

    fn take(&self, set: &UpstreamSet, now: Timestamp) -> Result<(), CertificateFault> {
        self.put(set, now, load_native_certs)
    }
}

fn read(files: &UpstreamTlsFiles) -> Look<UpstreamSet> {
    Ok(UpstreamSet {
        ca: files.ca.as_deref().map(pem).transpose()?,
        identity: files.identity.as_ref().map(pair).transpose()?,
    })
}

impl UpstreamSet {
    fn trust(&self, load: impl FnOnce() -> CertificateResult) -> Result<(Trust<'_>, System), CertificateFault> {
        if let Some(ca) = &self.ca {
            return Ok((Trust::File(ca), System::default()));
        }
        let CertificateResult { certs, errors, .. } = load();
        let fault = errors.first().map(ToString::to_string);
        if certs.is_empty() {
            let unreadable = |reason| CertificateFault::UnreadableAuthorities { reason };
            return Err(fault.map_or(CertificateFault::NoAuthorities, unreadable));
        }
        let system = System { found: certs.len(), fault };
        Ok((Trust::System(certs), system))
    }
}

impl System {
    /// Fewer of them may be meant. Not so where something can't be read: whom it vouched for would be refused.
    fn is_no_less_than(&self, before: &Self) -> Result<(), CertificateFault> {
        match &self.fault {
            Some(reason) if self.found < before.found => Err(CertificateFault::FewerAuthorities {
                before: before.found,
                found: self.found,
                reason: reason.clone(),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rustls_native_certs::load_certs_from_paths;

    use super::super::loading;
    use super::*;

    fn write(dir: &Path, name: &str) {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(dir.join(name), params.self_signed(&key).unwrap().pem()).unwrap();
    }

    /// Of an upstream that the system vouches for, as far as this folder tells.
    fn files(dir: &Path) -> UpstreamFiles {
        let (trust, system) = SET.trust(load(dir)).unwrap();
        let tls = UpstreamTls::new(trust, None).unwrap();
        UpstreamFiles { name: "a".into(), files: UpstreamTlsFiles::default(), tls, system: RefCell::new(system) }
    }

    const SET: UpstreamSet = UpstreamSet { ca: None, identity: None };

    fn load(dir: &Path) -> impl FnOnce() -> CertificateResult {
        || load_certs_from_paths(None, Some(dir))
    }

    #[test]
    fn fewer_of_the_systems_authorities_are_taken_only_if_all_that_is_there_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        ["one", "two", "three"].iter().for_each(|name| write(dir, name));
        let files = files(dir);
        let put = || files.put(&SET, loading::now(), load(dir));
        let found = || files.system.borrow().found;
        assert_eq!((put(), found(), files.warning()), (Ok(()), 3, None));
        let whole = fs::read(dir.join("one")).unwrap();
        fs::write(dir.join("one"), &whole[..whole.len() / 2]).unwrap();
        let error = put().unwrap_err();
        let told = error.to_string();
        assert!(told.starts_with("of the system's 3 certificate authorities 2 are left"), "{told}");
        assert!(error.may_pass() && found() == 3 && files.warning().is_none(), "those in force stay");
        fs::remove_file(dir.join("one")).unwrap();
        assert_eq!((put(), found(), files.warning()), (Ok(()), 2, None), "that may be meant");
        fs::write(dir.join("one"), &whole[..whole.len() / 2]).unwrap();
        assert_eq!((put(), found()), (Ok(()), 2), "it is none less");
        assert!(files.warning().unwrap().starts_with("upstreams.a.tls: not all of the system's"));

        fs::remove_file(dir.join("two")).unwrap();
        fs::remove_file(dir.join("three")).unwrap();
        assert!(matches!(put(), Err(CertificateFault::UnreadableAuthorities { .. })));
        fs::remove_file(dir.join("one")).unwrap();
        assert_eq!((put(), found()), (Err(CertificateFault::NoAuthorities), 2));
    }
}
