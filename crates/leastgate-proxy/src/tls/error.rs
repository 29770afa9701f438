//! What is wrong with a certificate, said so that its owner knows what to do; and why a handshake failed.

use std::io;

use leastgate_telemetry::HandshakeFailure;
use rustls::AlertDescription;

/// Certificates that can't be used. Every message names the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// There is a PEM block, and it is cut off or no base64.
    #[error("{origin} is damaged: a PEM block in it is cut off or is not base64; write the file anew")]
    NotPem {
        /// Which file.
        origin: String,
    },
    /// No block `CERTIFICATE`.
    #[error(
        "{origin} holds no certificate: PEM blocks `CERTIFICATE` are expected, the leaf first, then its intermediates \
         (from a DER file: `openssl x509 -inform der`)"
    )]
    NoCertificate {
        /// Which file.
        origin: String,
    },
    /// No private key in a form that is known.
    #[error(
        "{origin} holds no private key: a PEM block `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY` is expected"
    )]
    NoKey {
        /// Which file.
        origin: String,
    },
    /// A private key under a passphrase.
    #[error(
        "the private key in {origin} is under a passphrase; write it without one: `openssl pkey -in FILE -out FILE`"
    )]
    EncryptedKey {
        /// Which file.
        origin: String,
    },
    /// A certificate that no parser takes.
    #[error("certificate {position} in {origin} can't be read: {fault}")]
    Unreadable {
        /// Which file.
        origin: String,
        /// Counted from 1.
        position: usize,
        /// What rustls says.
        fault: String,
    },
    /// A key of a kind or size that is not supported.
    #[error(
        "the private key in {origin} can't be used: {fault}; RSA from 2048 bits, ECDSA on P-256, P-384 or P-521, and Ed25519 can"
    )]
    UnusableKey {
        /// Which file.
        origin: String,
        /// What rustls says.
        fault: String,
    },
    /// The key is not the certificate's.
    #[error("the private key in {key} does not belong to the first certificate in {cert}; the leaf goes first")]
    NotAPair {
        /// The certificate's file.
        cert: String,
        /// The key's file.
        key: String,
    },
    /// A certificate to be chosen by name that has none.
    #[error("the certificate in {origin} names no host: to be chosen by SNI it needs a DNS name (subjectAltName)")]
    Nameless {
        /// Which file.
        origin: String,
    },
    /// Two certificates for one name.
    #[error(
        "the certificates in {first} and {second} are both for {name}: which one to show is not clear; leave one out"
    )]
    SharedName {
        /// The name.
        name: String,
        /// The one that stands earlier.
        first: String,
        /// The one that stands later.
        second: String,
    },
    /// A certificate whose time is over, in place of one that is in force.
    #[error("the certificate in {origin} has expired; the one in force stays")]
    Expired {
        /// Which file.
        origin: String,
    },
    /// One whose time has not begun, likewise.
    #[error("the certificate in {origin} is not valid yet by this machine's clock; the one in force stays")]
    NotYetValid {
        /// Which file.
        origin: String,
    },
    /// The provider could not make what it needs.
    #[error("TLS can't be set up: {0}")]
    Setup(String),
}

impl TlsError {
    /// Whether the same files may be taken at another time: it was the clock that spoke against them.
    #[must_use]
    pub fn is_of_the_clock(&self) -> bool {
        matches!(self, Self::Expired { .. } | Self::NotYetValid { .. })
    }
}

/// Why a handshake did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the handshake took too long")]
    TimedOut,
    /// The client closed, or the connection broke.
    #[error("the client went away: {0}")]
    Gone(#[source] io::Error),
    /// What the client sent is not TLS: plain HTTP, mostly.
    #[error("the client does not speak TLS")]
    NotTls,
    /// The client ended it, mostly because it does not trust the certificate.
    #[error("the client refused: {0:?}")]
    Refused(AlertDescription),
    /// No version, cipher, group or protocol that both know.
    #[error("nothing in common with the client: {0}")]
    Incompatible(#[source] rustls::Error),
    /// A client certificate is required, and none came.
    #[error("the client showed no certificate")]
    NoCertificate,
    /// The client's certificate is not one of a trusted authority, or not valid now.
    #[error("the client's certificate is not accepted: {0}")]
    BadCertificate(#[source] rustls::Error),
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Protocol(#[source] rustls::Error),
}

impl HandshakeError {
    /// What it is counted as.
    #[must_use]
    pub fn failure(&self) -> HandshakeFailure {
        match self {
            Self::TimedOut => HandshakeFailure::Timeout,
            Self::Gone(_) => HandshakeFailure::ClientGone,
            Self::NotTls => HandshakeFailure::NotTls,
            Self::Refused(_) => HandshakeFailure::RefusedByClient,
            Self::Incompatible(_) => HandshakeFailure::Incompatible,
            Self::NoCertificate => HandshakeFailure::NoCertificate,
            Self::BadCertificate(_) => HandshakeFailure::BadCertificate,
            Self::Protocol(_) => HandshakeFailure::Protocol,
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let Some(fault) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return Self::Gone(error);
        };
        let fault = fault.clone();
        match fault {
            rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType) => Self::NotTls,
            rustls::Error::AlertReceived(alert) => Self::Refused(alert),
            rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol => Self::Incompatible(fault),
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::InvalidCertificate(_) => Self::BadCertificate(fault),
            _ => Self::Protocol(fault),
        }
    }
}
