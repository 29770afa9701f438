//! The certificates of the listeners, and the files they come from.

use leastgate_config::{GatewayConfig, Limits, ListenerTls};
use leastgate_policy::Timestamp;
use leastgate_proxy::tls::{CertificateSet, ServerTls, TlsError};

use super::watched::{CertificateFault, Look, Source, Watched, pair, pem};

#[derive(Debug)]
pub(super) struct ListenerFiles {
    files: ListenerTls,
    pub(super) tls: ServerTls,
}

/// Those of the data listener that the gateway's file names, if it names any.
pub(super) fn data(config: &GatewayConfig) -> Result<Option<Watched<ListenerFiles>>, CertificateFault> {
    config.listeners.data.tls.as_ref().map(|files| first(files, &config.limits, ServerTls::new)).transpose()
}

/// Those of the admin listener, likewise: the admin API has no HTTP/2.
pub(super) fn admin(config: &GatewayConfig) -> Result<Option<Watched<ListenerFiles>>, CertificateFault> {
    config.listeners.admin_tls.as_ref().map(|files| first(files, &config.limits, ServerTls::http1)).transpose()
}

fn first(
    files: &ListenerTls,
    limits: &Limits,
    make: fn(&CertificateSet) -> Result<ServerTls, TlsError>,
) -> Result<Watched<ListenerFiles>, CertificateFault> {
    let set = read(files)?;
    let tls = make(&set)?.with_deadline(limits.tls_handshake);
    Ok(Watched::new(ListenerFiles { files: files.clone(), tls }, set))
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
