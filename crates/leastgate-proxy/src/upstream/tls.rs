//! TLS towards an upstream: whom it must prove to be, and who we are to it.
//!
//! Both may be replaced while the gateway runs. What is in force is swapped whole, so that a handshake never mixes an old
//! authority with a new identity, and the pools retire what was connected before (`pool/renewal.rs`). What is the same
//! again is not swapped: whoever asks for a reload must not lose connections for it. With each swap there is a store of
//! sessions of its own: rustls takes a resumed session's certificate for verified, so a session that was begun
//! under an authority which is gone would let its holder in.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use leastgate_policy::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use tokio_rustls::TlsConnector;

use crate::tls::{Certificate, CertificateView, KeyPair, Pem, TlsError};

/// Who vouches for an upstream.
#[derive(Debug)]
pub enum Trust<'a> {
    /// The authorities in a file, and no other.
    File(&'a Pem),
    /// Those of the system. What of them can't be read vouches for nobody.
    System(Vec<CertificateDer<'static>>),
}

/// What the https endpoints of one upstream are met with. A clone is another handle on the same.
#[derive(Clone)]
pub struct UpstreamTls {
    in_force: Arc<ArcSwap<InForce>>,
    name: Option<ServerName<'static>>,
}

/// What can be told of the files in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamCertificates {
    /// What the gateway shows.
    pub identity: Option<CertificateView>,
    /// The authorities in a file; those of the system are not told.
    pub authorities: Option<CertificateView>,
}

struct InForce {
    http1: Arc<ClientConfig>,
    /// The same, with HTTP/2 offered before HTTP/1.1.
    http2: Arc<ClientConfig>,
    certificates: UpstreamCertificates,
    roots: Arc<RootCertStore>,
    /// Its key is that of its certificate.
    identity: Option<Arc<CertifiedKey>>,
}

impl fmt::Debug for UpstreamTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificates = &self.in_force.load().certificates;
        f.debug_struct("UpstreamTls").field("name", &self.name).field("certificates", certificates).finish()
    }
}

impl UpstreamTls {
    /// TLS 1.2 and 1.3. `identity` is shown to upstreams that ask for a certificate.
    ///
    /// # Errors
    /// The first thing that is wrong with the certificates. A time that is over is no error here: see
    /// [`Self::certificates`].
    pub fn new(trust: Trust<'_>, identity: Option<&KeyPair>) -> Result<Self, TlsError> {
        let in_force = InForce::new(trust, identity.map(read).transpose()?)?;
        Ok(Self { in_force: Arc::new(ArcSwap::from_pointee(in_force)), name: None })
    }

    /// Its certificate must be for this name, which SNI asks for, in place of the endpoint's own.
    ///
    /// # Errors
    /// It is neither a DNS name nor an address.
    pub fn with_name(self, name: &str) -> Result<Self, InvalidDnsNameError> {
        Ok(Self { name: Some(ServerName::try_from(name.to_owned())?), ..self })
    }

    /// Puts others in force for every handle: no request goes over a connection that was made under the former any more,
    /// and what is under way ends where it is. The same as those in force change nothing.
    ///
    /// # Errors
    /// What is wrong with them, an identity whose time is over or has not begun `now` included; those in force stay.
    pub fn replace(&self, trust: Trust<'_>, identity: Option<&KeyPair>, now: Timestamp) -> Result<(), TlsError> {
        let identity = identity.map(read).transpose()?;
        identity.iter().try_for_each(|identity| identity.is_in_its_time(now))?;
        let next = InForce::new(trust, identity)?;
        if !self.in_force.load().is_same(&next) {
            self.in_force.store(Arc::new(next));
        }
        Ok(())
    }

    /// What is in force.
    #[must_use]
    pub fn certificates(&self) -> UpstreamCertificates {
        self.in_force.load().certificates.clone()
    }

    /// The same for a client that is no data plane's: HTTP/1.1, and what is in force now.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.in_force.load().http1)
    }

    /// Whom the certificate of an endpoint at `host` must name.
    pub(super) fn name_of(&self, host: &str) -> Option<ServerName<'static>> {
        self.name.clone().or_else(|| ServerName::try_from(host.to_owned()).ok())
    }

    /// What connections begin with that offer HTTP/1.1 by ALPN, and before it HTTP/2 where that is wanted.
    pub(super) fn offering(&self, http2: bool) -> Offer {
        Offer { in_force: Arc::clone(&self.in_force), http2 }
    }
}

/// What one upstream's connections begin with: whatever is in force at the moment.
pub(super) struct Offer {
    in_force: Arc<ArcSwap<InForce>>,
    http2: bool,
}

/// What was in force at some moment, to be told apart from what is now.
pub(super) struct Known(Arc<InForce>);

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Known").field(&self.0.certificates).finish()
    }
}

impl Offer {
    pub(super) fn connector(&self) -> TlsConnector {
        let in_force = self.in_force.load();
        Arc::clone(if self.http2 { &in_force.http2 } else { &in_force.http1 }).into()
    }

    pub(super) fn known(&self) -> Known {
        Known(self.in_force.load_full())
    }

    pub(super) fn is_still(&self, known: &Known) -> bool {
        Arc::ptr_eq(&known.0, &self.in_force.load())
    }
}

fn read(pair: &KeyPair) -> Result<Certificate, TlsError> {
    Certificate::read(pair, &aws_lc_rs::default_provider())
}

impl InForce {
    fn new(trust: Trust<'_>, identity: Option<Certificate>) -> Result<Self, TlsError> {
        let authorities = match &trust {
            Trust::File(pem) => Some(CertificateView::of_authorities(pem)?),
            Trust::System(_) => None,
        };
        let roots = Arc::new(trust.roots()?);
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Setup(error.to_string()))?
            .with_root_certificates(Arc::clone(&roots));
        let config = match &identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let shown = SingleCertAndKey::from(CertifiedKey::clone(&identity.key));
                builder.with_client_cert_resolver(Arc::new(shown))
            }
        };
        let offering = |protocols: &[&str]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
            Arc::new(config)
        };
        let (http1, http2) = (offering(&["http/1.1"]), offering(&["h2", "http/1.1"]));
        let (view, identity) = identity.map(|identity| (identity.view, identity.key)).unzip();
        let certificates = UpstreamCertificates { identity: view, authorities };
        Ok(Self { http1, http2, certificates, roots, identity })
    }

    /// Whether a handshake can't tell the two apart. A key is not looked at: one that is not its certificate's was refused.
    fn is_same(&self, other: &Self) -> bool {
        let [ours, theirs] = [self, other].map(|one| one.identity.iter().map(|identity| &identity.cert));
        self.certificates == other.certificates && self.roots.roots == other.roots.roots && ours.eq(theirs)
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
