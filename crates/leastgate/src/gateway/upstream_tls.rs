//! The files that the https endpoints of upstreams are met with, read once, at start.

use std::collections::BTreeMap;
use std::path::Path;

use leastgate_config::{Upstream, UpstreamTlsFiles};
use leastgate_proxy::tls::{KeyPair, Pem};
use leastgate_proxy::{Trust, UpstreamTls};

use crate::exit::{Exit, Failure};

/// What each upstream with https endpoints is met with.
pub(super) fn read(upstreams: &[Upstream]) -> Result<BTreeMap<String, UpstreamTls>, Failure> {
    read_all(upstreams).map_err(|fault| Failure::new(Exit::Invalid, fault))
}

fn read_all(upstreams: &[Upstream]) -> Result<BTreeMap<String, UpstreamTls>, String> {
    let read = |upstream: &Upstream| {
        let tls = of(&upstream.tls).map_err(|fault| format!("upstreams.{}.tls: {fault}", upstream.name))?;
        Ok((upstream.name.clone(), tls))
    };
    upstreams.iter().filter(|upstream| upstream.is_https()).map(read).collect()
}

fn of(files: &UpstreamTlsFiles) -> Result<UpstreamTls, String> {
    let ca = files.ca.as_deref().map(pem).transpose()?;
    let trust = match &ca {
        Some(ca) => Trust::File(ca),
        None => system()?,
    };
    let pair = |files: &leastgate_config::CertificateFiles| {
        Ok::<_, String>(KeyPair { cert: pem(&files.cert)?, key: pem(&files.key)? })
    };
    let identity = files.identity.as_ref().map(pair).transpose()?;
    let tls = UpstreamTls::new(trust, identity.as_ref()).map_err(|error| error.to_string())?;
    match &files.name {
        None => Ok(tls),
        Some(name) => tls.with_name(name).map_err(|_| format!("`{name}` is not a DNS name")),
    }
}

/// The authorities this system trusts.
fn system() -> Result<Trust<'static>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let message = "the system has no certificate authorities; install them (ca-certificates), or name a file as ca";
        return Err(message.to_owned());
    }
    Ok(Trust::System(found.certs))
}

fn pem(path: &Path) -> Result<Pem, String> {
    let bytes = leastgate_config::read_pem(path).map_err(|fault| format!("{} {fault}", path.display()))?;
    Ok(Pem::new(path.display().to_string(), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstreams(endpoint: &str, tls: &str) -> Vec<Upstream> {
        let text = format!(
            "environment: prod\nstate_dir: .\nupstreams: {{ up: {{ endpoints: [ \"{endpoint}\" ]{tls} }} }}\n\
             pepper: {{ current: {{ env: P }} }}\npolicy: {{ files: [ p ] }}\n"
        );
        leastgate_config::parse_gateway("leastgate.yaml", &text).unwrap().config.upstreams
    }

    #[test]
    fn plain_upstreams_need_nothing_and_a_file_that_is_not_there_is_named() {
        assert!(read_all(&upstreams("http://a", "")).unwrap().is_empty());
        let error = read_all(&upstreams("https://a", ", tls: { ca: /nowhere/ca.pem }")).unwrap_err();
        assert!(error.starts_with("upstreams.up.tls: /nowhere/ca.pem can't be opened"), "{error}");
    }
}
