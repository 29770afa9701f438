//! TLS towards an upstream: whom it must prove to be, and who we are to it.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName};

use crate::tls::{KeyPair, Pem, TlsError};

/// Who vouches for an upstream.
#[derive(Debug)]
pub enum Trust<'a> {
    /// The authorities in a file, and no other.
    File(&'a Pem),
    /// Those of the system. What of them can't be read vouches for nobody.
    System(Vec<CertificateDer<'static>>),
}

/// What the https endpoints of one upstream are met with.
#[derive(Clone)]
pub struct UpstreamTls {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl UpstreamTls {
    /// TLS 1.2 and 1.3. `identity` is shown to upstreams that ask for a certificate.
    ///
    /// # Errors
    /// The first thing that is wrong with the certificates.
    pub fn new(trust: Trust<'_>, identity: Option<&KeyPair>) -> Result<Self, TlsError> {
        let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(setup)?
            .with_root_certificates(trust.roots()?);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => builder
                .with_client_auth_cert(pair.cert.certificates()?, pair.key.private_key()?)
                .map_err(|error| unusable(pair, &error))?,
        };
        Ok(Self { config: Arc::new(config), name: None })
    }

    /// Its certificate must be for this name, which SNI asks for, in place of the endpoint's own.
    ///
    /// # Errors
    /// It is neither a DNS name nor an address.
    pub fn with_name(self, name: &str) -> Result<Self, InvalidDnsNameError> {
        Ok(Self { name: Some(ServerName::try_from(name.to_owned())?), ..self })
    }

    /// Whom the certificate of an endpoint at `host` must name.
    pub(super) fn name_of(&self, host: &str) -> Option<ServerName<'static>> {
        self.name.clone().or_else(|| ServerName::try_from(host.to_owned()).ok())
    }

    /// What is offered by ALPN: HTTP/1.1, and before it HTTP/2 where that is wanted.
    pub(super) fn offering(&self, http2: bool) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.config);
        config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
        config.alpn_protocols.push(b"http/1.1".to_vec());
        Arc::new(config)
    }
}

impl Trust<'_> {
    fn roots(self) -> Result<RootCertStore, TlsError> {
        match self {
            Self::File(pem) => pem.authorities(),
            Self::System(certificates) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates);
                Ok(roots)
            }
        }
    }
}

fn unusable(pair: &KeyPair, error: &rustls::Error) -> TlsError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::NotAPair { cert: pair.cert.origin().to_owned(), key: pair.key.origin().to_owned() }
        }
        error => TlsError::UnusableKey { origin: pair.key.origin().to_owned(), fault: error.to_string() },
    }
}
