//! What a finished handshake says of a client, for everything that comes after it.

use std::sync::Arc;

use rustls::ServerConnection;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

/// A SPIFFE id is no longer than this (SPIFFE-ID §2.3); what is longer is no name to record.
const URI_BYTES: usize = 2048;
/// An X.509 SVID has one URI (X509-SVID §2); a few more do no harm.
const URIS: usize = 8;

/// How a client's connection was made. A clone is cheap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnInfo {
    /// Whether it is TLS.
    pub is_tls: bool,
    /// The name the client asked for (SNI), in lower case.
    pub server_name: Option<Arc<str>>,
    /// What the client's certificate says of it; `None` where none was asked for.
    pub peer: Option<Arc<PeerIdentity>>,
    /// The protocol that was agreed on.
    pub alpn: Alpn,
}

/// The protocol that a handshake agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alpn {
    /// None was offered, or it is no TLS: HTTP/1.1.
    #[default]
    None,
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
}

/// Who a client is, by a certificate that was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerIdentity {
    uris: Vec<Box<str>>,
}

impl ConnInfo {
    /// A connection without TLS.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    pub(super) fn of(connection: &ServerConnection) -> Self {
        Self {
            is_tls: true,
            server_name: connection.server_name().map(Arc::from),
            peer: connection.peer_certificates().and_then(<[_]>::first).map(PeerIdentity::of).map(Arc::new),
            alpn: Alpn::of(connection.alpn_protocol()),
        }
    }
}

impl Alpn {
    /// What is offered, the preferred one first.
    pub(super) const OFFERED: [&'static [u8]; 2] = [b"h2", b"http/1.1"];
    /// What is offered where there is no HTTP/2.
    pub(super) const HTTP1: [&'static [u8]; 1] = [b"http/1.1"];

    fn of(agreed: Option<&[u8]>) -> Self {
        match agreed {
            Some(b"h2") => Self::Http2,
            Some(_) => Self::Http1,
            None => Self::None,
        }
    }
}

impl PeerIdentity {
    /// Reads the names with the parser that verified the certificate, so that the two can't differ on it.
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let Ok(certificate) = EndEntityCert::try_from(certificate) else { return Self::default() };
        let uris = certificate.valid_uri_names().filter(|uri| uri.len() <= URI_BYTES);
        Self { uris: uris.take(URIS).map(Box::from).collect() }
    }

    /// The URIs among its subject alternative names, as `spiffe://…`, in their order.
    pub fn uris(&self) -> impl ExactSizeIterator<Item = &str> {
        self.uris.iter().map(|uri| &**uri)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn identity(uris: &[&str]) -> PeerIdentity {
        let mut params = CertificateParams::new(["client.example".to_owned()]).unwrap();
        let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names.extend(names);
        PeerIdentity::of(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn a_client_is_known_by_its_uris() {
        let identity = identity(&["spiffe://example.org/ns/web/sa/shop", "urn:b"]);
        assert_eq!(identity.uris().collect::<Vec<_>>(), ["spiffe://example.org/ns/web/sa/shop", "urn:b"]);
    }

    #[test]
    fn a_client_without_one_has_no_name() {
        assert_eq!(identity(&[]), PeerIdentity::default());
    }

    #[test]
    fn what_a_certificate_can_make_us_record_is_bounded() {
        let long = format!("urn:{}", "x".repeat(URI_BYTES));
        let many: Vec<String> = (0..20).map(|index| format!("urn:{index}")).collect();
        let uris: Vec<&str> = std::iter::once(long.as_str()).chain(many.iter().map(String::as_str)).collect();
        let identity = identity(&uris);
        assert_eq!(identity.uris().len(), URIS);
        assert_eq!(identity.uris().next(), Some("urn:0"));
    }
}
