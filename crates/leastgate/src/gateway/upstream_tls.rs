//! What the https endpoints of an upstream are met with, and the files it comes from.

use leastgate_config::{Upstream, UpstreamTlsFiles};
use leastgate_policy::Timestamp;
use leastgate_proxy::tls::{KeyPair, Pem};
use leastgate_proxy::{Trust, UpstreamTls};

use super::watched::{CertificateFault, Look, Source, Watched, pair, pem};

#[derive(Debug)]
pub(super) struct UpstreamFiles {
    /// The upstream.
    pub(super) name: String,
    files: UpstreamTlsFiles,
    pub(super) tls: UpstreamTls,
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
    let tls = UpstreamTls::new(set.trust()?, set.identity.as_ref())?;
    let tls = match &files.name {
        None => tls,
        Some(name) => tls.with_name(name).map_err(|_| CertificateFault::NoName(name.clone()))?,
    };
    Ok(Watched::new(UpstreamFiles { name: upstream.name.clone(), files, tls }, set))
}

impl Source for UpstreamFiles {
    type Set = UpstreamSet;

    fn read(&self) -> Look<UpstreamSet> {
        read(&self.files)
    }

    fn take(&self, set: &UpstreamSet, now: Timestamp) -> Result<(), CertificateFault> {
        Ok(self.tls.replace(set.trust()?, set.identity.as_ref(), now)?)
    }
}

fn read(files: &UpstreamTlsFiles) -> Look<UpstreamSet> {
    Ok(UpstreamSet {
        ca: files.ca.as_deref().map(pem).transpose()?,
        identity: files.identity.as_ref().map(pair).transpose()?,
    })
}

impl UpstreamSet {
    fn trust(&self) -> Result<Trust<'_>, CertificateFault> {
        if let Some(ca) = &self.ca {
            return Ok(Trust::File(ca));
        }
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() { Err(CertificateFault::NoAuthorities) } else { Ok(Trust::System(found.certs)) }
    }
}
