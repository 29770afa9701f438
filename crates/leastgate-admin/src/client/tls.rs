//! TLS towards a gateway's admin listener, and what goes wrong with it, told to whoever is on call.
//!
//! What it is made of comes from the caller, who has read the files. With TLS 1.3 a client has ended its handshake before
//! the gateway judges its certificate: that refusal comes with the answer.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, ClientConfig, InvalidMessage};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::ClientError;

/// Why a gateway can't be spoken to over TLS. Each says what to do, after where it happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsFault {
    /// Nobody that is trusted signed the gateway's certificate.
    #[error(
        "shows a certificate that nobody who is trusted has signed: --admin-ca FILE names the authority that signs it"
    )]
    UnknownAuthority,
    /// The gateway's certificate is for others.
    #[error(
        "shows a certificate that is for {}, not for {host}: call it by a name in it, or have one made for this one",
        .names.join(", ")
    )]
    OtherName {
        /// Who was asked.
        host: String,
        /// Whom it is for.
        names: Vec<String>,
    },
    /// The gateway's certificate is over.
    #[error(
        "shows a certificate that has expired by this machine's clock: renew listeners.admin.tls.cert there, which is taken \
         without a restart; on its host the commands reach the gateway over its unix socket meanwhile"
    )]
    Expired,
    /// The gateway's certificate has not begun.
    #[error("shows a certificate that is not valid yet by this machine's clock: is the clock right?")]
    NotYetValid,
    /// Anything else about the gateway's certificate.
    #[error("shows a certificate that is not accepted: {0}")]
    BadCertificate(String),
    /// The gateway wants one of ours.
    #[error(
        "wants a certificate of yours: --admin-cert FILE and --admin-key FILE show one that its client_ca has signed"
    )]
    Demanded,
    /// The gateway's authorities have not signed ours.
    #[error(
        "does not accept the certificate in --admin-cert: no authority in its listeners.admin.tls.client_ca has signed it"
    )]
    NotSigned,
    /// Ours is over.
    #[error("does not accept the certificate in --admin-cert: it has expired")]
    OwnExpired,
    /// Ours is not accepted for something else.
    #[error("does not accept the certificate in --admin-cert ({0})")]
    OwnRefused(String),
    /// The gateway ended it for a reason of its own.
    #[error("ended the handshake ({0})")]
    Ended(String),
    /// No TLS is spoken there.
    #[error("does not speak TLS: is the port right, or is it http://?")]
    NotTls,
    /// The host of the URL can be in no certificate.
    #[error("has a name that no certificate can be for")]
    NoName,
    /// Nobody said what to judge the gateway by.
    #[error("can't be judged: there is no authority to do it by")]
    NoAuthorities,
    /// Anything else.
    #[error("can't be spoken to over TLS: {0}")]
    Other(String),
}

/// Shakes hands with whoever is at the other end of `stream`, who must be `authority`.
pub(super) async fn secure(
    stream: TcpStream,
    authority: &str,
    config: Option<&Arc<ClientConfig>>,
    endpoint: &str,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let told = |fault| ClientError::Tls { endpoint: endpoint.to_owned(), fault };
    let host = host(authority);
    let name = ServerName::try_from(host.to_owned()).map_err(|_| told(TlsFault::NoName))?;
    let connector = TlsConnector::from(Arc::clone(config.ok_or_else(|| told(TlsFault::NoAuthorities))?));
    connector
        .connect(name, stream)
        .await
        .map_err(|error| told(fault(&error, host).unwrap_or_else(|| TlsFault::Other(error.to_string()))))
}

/// What TLS has to say of a failure anywhere above it; `None`: it is about something else.
pub(super) fn fault(error: &(dyn Error + 'static), host: &str) -> Option<TlsFault> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(fault) = inner.or_else(|| error.downcast_ref()) {
            return Some(TlsFault::of(fault, host));
        }
        next = error.source();
    }
    None
}

/// The host of `host:port`, an address without its brackets.
fn host(authority: &str) -> &str {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

impl TlsFault {
    fn of(error: &rustls::Error, host: &str) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error, host),
            rustls::Error::AlertReceived(alert) => Self::of_alert(*alert),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            error => Self::Other(error.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError, host: &str) -> Self {
        match error {
            CertificateError::UnknownIssuer => Self::UnknownAuthority,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names = presented.iter().map(|name| plain(name)).collect::<Vec<_>>();
                let names = if names.is_empty() { vec!["nobody (it has no subjectAltName)".to_owned()] } else { names };
                Self::OtherName { host: host.to_owned(), names }
            }
            error => Self::BadCertificate(error.to_string()),
        }
    }

    fn of_alert(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::CertificateRequired => Self::Demanded,
            AlertDescription::UnknownCA => Self::NotSigned,
            AlertDescription::CertificateExpired => Self::OwnExpired,
            AlertDescription::BadCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::UnsupportedCertificate => Self::OwnRefused(format!("{alert:?}")),
            alert => Self::Ended(format!("{alert:?}")),
        }
    }

    /// Whether it is about who calls.
    pub(super) fn is_authentication(&self) -> bool {
        matches!(self, Self::Demanded | Self::NotSigned | Self::OwnExpired | Self::OwnRefused(_))
    }
}

/// `a.test` of `DnsName("a.test")`, as which rustls tells it.
fn plain(presented: &str) -> String {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(presented).trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_what_stands_before_the_port() {
        for (authority, expected) in [("a.test:443", "a.test"), ("[::1]:9902", "::1"), ("192.0.2.1:1", "192.0.2.1")] {
            assert_eq!(host(authority), expected);
        }
    }

    #[test]
    fn it_is_found_at_any_depth() {
        #[derive(Debug, thiserror::Error)]
        #[error("above")]
        struct Above(#[source] io::Error);
        let alert = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        let error = Above(io::Error::new(io::ErrorKind::InvalidData, alert));
        assert_eq!(fault(&error, "a.test"), Some(TlsFault::NotSigned));
        assert_eq!(fault(&io::Error::other("x"), "a.test"), None);
    }
}
