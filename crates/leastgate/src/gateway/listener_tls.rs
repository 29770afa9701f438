//! The data listener's certificates, and the files they come from.

use leastgate_config::{ListenerTls, LoadedGateway};
use leastgate_policy::Timestamp;
use leastgate_proxy::tls::{CertificateSet, ServerTls};

use super::watched::{CertificateFault, Look, Source, Watched, pair, pem};

#[derive(Debug)]
pub(super) struct ListenerFiles {
    files: ListenerTls,
    pub(super) tls: ServerTls,
}

/// Those that the gateway's file names, if it names any.
pub(super) fn first(loaded: &LoadedGateway) -> Result<Option<Watched<ListenerFiles>>, CertificateFault> {
    let Some(files) = loaded.config.listeners.data.tls.clone() else { return Ok(None) };
    let set = read(&files)?;
    let tls = ServerTls::new(&set)?.with_deadline(loaded.config.limits.tls_handshake);
    Ok(Some(Watched::new(ListenerFiles { files, tls }, set)))
}

impl Source for ListenerFiles {
    type Set = CertificateSet;

    fn read(&self) -> Look<CertificateSet> {
        read(&self.files)
    }

    fn take(&self, set: &CertificateSet, now: Timestamp) -> Result<(), CertificateFault> {
        Ok(self.tls.replace(set, now)?)
    }
}

fn read(files: &ListenerTls) -> Look<CertificateSet> {
    let by_name = files.sni.iter().map(pair);
    Ok(CertificateSet {
        default: pair(&files.default)?,
        by_name: by_name.collect::<Result<_, _>>()?,
        client_ca: files.client_ca.as_deref().map(pem).transpose()?,
    })
}
