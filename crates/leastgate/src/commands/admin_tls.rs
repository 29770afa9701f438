//! How commands speak TLS to an admin listener: by which authorities they judge it, and which certificate they show.

use std::path::Path;

use leastgate_admin::client::{Client, Endpoint};
use leastgate_config::read_pem;
use leastgate_proxy::tls::{KeyPair, Pem, TlsError};
use leastgate_proxy::{Trust, UpstreamTls};
use rustls_native_certs::load_native_certs;

use crate::cli::Global;
use crate::exit::{Exit, Failure};

/// The client with what its endpoint needs for TLS. What was given for TLS and would not be used is refused: whoever gave
/// it believes that somebody is being checked.
pub(super) fn secured(client: Client, global: &Global) -> Result<Client, Failure> {
    if matches!(client.endpoint(), Endpoint::Tls(_)) {
        return Ok(client.with_tls(settings(global)?.client_config()));
    }
    refuse_unused(global, "an --admin-url that is not https://")?;
    Ok(client)
}

/// Refuses what is for TLS where there is none.
pub(super) fn refuse_unused(global: &Global, what: &str) -> Result<(), Failure> {
    let given = [
        ("--admin-ca (LEASTGATE_ADMIN_CA)", global.admin_ca.is_some()),
        ("--admin-cert (LEASTGATE_ADMIN_CERT)", global.admin_cert.is_some()),
        ("--admin-key (LEASTGATE_ADMIN_KEY)", global.admin_key.is_some()),
    ];
    match given.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((flag, _)) => {
            let message = format!(
                "{flag} is for https://, and {what} has no use for it: leave it out, or say --admin-url https://HOST:PORT"
            );
            Err(Failure::new(Exit::Usage, message))
        }
    }
}

/// Without an authority of its own those of the system judge.
fn settings(global: &Global) -> Result<UpstreamTls, Failure> {
    let identity = identity(global)?;
    let ca = global.admin_ca.as_deref().map(|path| pem("--admin-ca", path)).transpose()?;
    let trust = match &ca {
        Some(pem) => Trust::File(pem),
        None => Trust::System(load_native_certs().certs),
    };
    if matches!(&trust, Trust::System(found) if found.is_empty()) {
        let message =
            "the system has no certificate authorities: --admin-ca FILE names the one that signs the gateway's";
        return Err(Failure::new(Exit::Failed, message));
    }
    UpstreamTls::new(trust, identity.as_ref()).map_err(|error| unusable(&error))
}

fn identity(global: &Global) -> Result<Option<KeyPair>, Failure> {
    match (&global.admin_cert, &global.admin_key) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => {
            Ok(Some(KeyPair { cert: pem("--admin-cert", cert)?, key: pem("--admin-key", key)? }))
        }
        (Some(_), None) => Err(Failure::new(Exit::Usage, "--admin-cert needs its key: --admin-key FILE")),
        (None, Some(_)) => Err(Failure::new(Exit::Usage, "--admin-key needs its certificate: --admin-cert FILE")),
    }
}

fn pem(flag: &str, path: &Path) -> Result<Pem, Failure> {
    let unread = |reason| Failure::new(Exit::Failed, format!("{flag}: {} {reason}", path.display()));
    Ok(Pem::new(path.display().to_string(), read_pem(path).map_err(unread)?))
}

fn unusable(error: &TlsError) -> Failure {
    Failure::new(Exit::Failed, error)
}
