//! The acceptor: certificates in force, and a client's handshake with a deadline.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use leastgate_policy::Timestamp;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use webpki::EndEntityCert;

use super::certificate::{ByName, Certificate, CertificateView, KeyPair};
use super::connection::{Alpn, ConnInfo};
use super::error::{HandshakeError, TlsError};
use super::pem::Pem;

/// From accept to the end of the handshake, unless [`ServerTls::with_deadline`] says otherwise.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long, and how much, is read and thrown away after a handshake that failed: closing a socket with unread bytes
/// sends a reset, which overtakes the alert that says why.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 64 * 1024;

/// What a listener shows to its clients, and asks of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSet {
    /// For clients that name no host, or one that no other certificate is for.
    pub default: KeyPair,
    /// Chosen by their own DNS names.
    pub by_name: Vec<KeyPair>,
    /// Who signs the certificates that clients must show; none is asked for without it.
    pub client_ca: Option<Pem>,
}

/// TLS towards clients. A clone is another handle on the same certificates.
#[derive(Clone)]
pub struct ServerTls {
    shared: Arc<Shared>,
    deadline: Duration,
}

struct Shared {
    provider: Arc<CryptoProvider>,
    /// The protocols that ALPN offers, the preferred one first.
    offered: &'static [&'static [u8]],
    in_force: ArcSwap<InForce>,
}

/// What can be told of the files in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCertificates {
    /// What clients are shown, the default one first.
    pub shown: Vec<CertificateView>,
    /// The authorities that vouch for clients.
    pub authorities: Option<CertificateView>,
}

struct InForce {
    config: Arc<ServerConfig>,
    certificates: ServerCertificates,
    /// In the order of those shown; each key is that of its certificate.
    keys: Vec<Arc<CertifiedKey>>,
    clients: Option<Arc<RootCertStore>>,
}

impl ServerTls {
    /// Checks the certificates and puts them in force.
    ///
    /// # Errors
    /// The first thing that is wrong with them. One that has expired is no error here: see [`Self::certificates`].
    pub fn new(set: &CertificateSet) -> Result<Self, TlsError> {
        Self::offering(&Alpn::OFFERED, set)
    }

    /// The same for a listener that has no HTTP/2.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn http1(set: &CertificateSet) -> Result<Self, TlsError> {
        Self::offering(&Alpn::HTTP1, set)
    }

    fn offering(offered: &'static [&'static [u8]], set: &CertificateSet) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let in_force = InForce::new(&Read::of(set, &provider)?, &provider, offered)?;
        let shared = Shared { provider, offered, in_force: ArcSwap::from_pointee(in_force) };
        Ok(Self { shared: Arc::new(shared), deadline: DEADLINE })
    }

    /// The same certificates with another deadline for the handshake.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Puts other certificates in force for every handle: handshakes that begin from now on see them, established
    /// connections live on. The same as those in force change nothing: tickets stay good.
    ///
    /// # Errors
    /// What is wrong with them, a time that is over or has not begun `now` included; those in force stay.
    pub fn replace(&self, set: &CertificateSet, now: Timestamp) -> Result<(), TlsError> {
        let Shared { provider, offered, in_force } = &*self.shared;
        let read = Read::of(set, provider)?;
        read.all().try_for_each(|certificate| certificate.is_in_its_time(now))?;
        let next = InForce::new(&read, provider, offered)?;
        if !in_force.load().is_same(&next) {
            in_force.store(Arc::new(next));
        }
        Ok(())
    }

    /// What is in force.
    #[must_use]
    pub fn certificates(&self) -> ServerCertificates {
        self.shared.in_force.load().certificates.clone()
    }

    /// Whether a certificate in force is for this host: a DNS name, wildcards included, or an address.
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let Ok(name) = ServerName::try_from(host) else { return false };
        let in_force = self.shared.in_force.load();
        let mut leaves = in_force.keys.iter().filter_map(|key| EndEntityCert::try_from(key.cert.first()?).ok());
        leaves.any(|leaf| leaf.verify_is_valid_for_subject_name(&name).is_ok())
    }

    /// A client's handshake, from the first byte to the last, within the deadline. Whoever fails is told why by an alert,
    /// as far as TLS has one, and the connection is closed.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, ConnInfo), HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let deadline = Instant::now() + self.deadline;
        let config = Arc::clone(&self.shared.in_force.load().config);
        // On the heap: what rustls keeps for a handshake would make every connection's future as large.
        let handshake = Box::pin(TlsAcceptor::from(config).accept(io).into_fallible());
        match timeout_at(deadline, handshake).await {
            Err(_) => Err(HandshakeError::TimedOut),
            Ok(Ok(stream)) => {
                let info = ConnInfo::of(stream.get_ref().1);
                Ok((stream, info))
            }
            Ok(Err((error, io))) => {
                let _ = timeout_at(deadline, Box::pin(close(io))).await;
                Err(error.into())
            }
        }
    }
}

/// Says "no more from us", and reads on for a moment without looking at a byte.
async fn close(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    if io.shutdown().await.is_err() {
        return;
    }
    let discard = async {
        let (mut scratch, mut left) = ([0; 4096], LINGER_BYTES);
        while let Ok(read @ 1..) = io.read(&mut scratch).await {
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    let _ = timeout(LINGER, discard).await;
}

/// A set whose every part was read.
struct Read {
    default: Certificate,
    by_name: Vec<Certificate>,
    /// Who vouches for clients.
    clients: Option<(CertificateView, Arc<RootCertStore>)>,
}

impl Read {
    fn of(set: &CertificateSet, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let by_name = set.by_name.iter().map(|pair| Certificate::read(pair, provider));
        let clients = |pem| Ok((CertificateView::of_authorities(pem)?, Arc::new(pem.authorities()?)));
        Ok(Self {
            default: Certificate::read(&set.default, provider)?,
            by_name: by_name.collect::<Result<_, _>>()?,
            clients: set.client_ca.as_ref().map(clients).transpose()?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &Certificate> {
        std::iter::once(&self.default).chain(&self.by_name)
    }
}

fn verifier(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
    builder.build().map_err(|error| TlsError::Setup(error.to_string()))
}

impl InForce {
    fn new(read: &Read, provider: &Arc<CryptoProvider>, offered: &[&[u8]]) -> Result<Self, TlsError> {
        let names = Arc::new(ByName::new(&read.default, &read.by_name)?);
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| setup(&error))?;
        let builder = match &read.clients {
            Some((_, roots)) => builder.with_client_cert_verifier(verifier(roots, provider)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(names);
        config.alpn_protocols = offered.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if read.clients.is_none() {
            // Keys of its own: a ticket does not outlive the certificates it was given under.
            config.ticketer = aws_lc_rs::Ticketer::new().map_err(|error| setup(&error))?;
        } else {
            config.send_tls13_tickets = 0;
        }
        let (shown, keys) =
            read.all().map(|certificate| (certificate.view.clone(), Arc::clone(&certificate.key))).unzip();
        let (authorities, clients) = read.clients.clone().unzip();
        Ok(Self { config: Arc::new(config), certificates: ServerCertificates { shown, authorities }, keys, clients })
    }

    /// Whether a client can't tell the two apart. Keys are not looked at: one that is not its certificate's was refused.
    fn is_same(&self, other: &Self) -> bool {
        let [ours, theirs] = [self, other].map(|one| one.keys.iter().map(|key| &key.cert));
        let [our_clients, their_clients] = [self, other].map(|one| one.clients.iter().map(|roots| &roots.roots));
        self.certificates == other.certificates && ours.eq(theirs) && our_clients.eq(their_clients)
    }
}

fn setup(error: &rustls::Error) -> TlsError {
    TlsError::Setup(error.to_string())
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_force = self.shared.in_force.load();
        let (certificates, deadline) = (&in_force.certificates, &self.deadline);
        f.debug_struct("ServerTls").field("certificates", certificates).field("deadline", deadline).finish()
    }
}
