//! PEM text (RFC 7468) to what rustls takes, for both sides of the gateway. Errors name where the text came from and
//! never what it holds.

use std::fmt;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::error::TlsError;

/// PEM text and where it came from. It may hold a key: it is wiped when dropped, and its bytes are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    origin: String,
    bytes: Zeroizing<Vec<u8>>,
}

impl Pem {
    /// `origin` is what errors call it: a path, or a key of the configuration.
    #[must_use]
    pub fn new(origin: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { origin: origin.into(), bytes: Zeroizing::new(bytes) }
    }

    /// Where it came from.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// All certificates in it, in their order; other blocks are passed over.
    ///
    /// # Errors
    /// It holds none, or is not PEM.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match read {
            Ok(certificates) if certificates.is_empty() => Err(TlsError::NoCertificate { origin: self.origin.clone() }),
            Ok(certificates) => Ok(certificates),
            Err(_) => Err(TlsError::NotPem { origin: self.origin.clone() }),
        }
    }

    /// The first private key in it: PKCS #8, PKCS #1 or SEC 1.
    ///
    /// # Errors
    /// It holds none, or one under a passphrase, or is not PEM.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let origin = self.origin.clone();
        if self.is_encrypted() {
            return Err(TlsError::EncryptedKey { origin });
        }
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| match error {
            rustls_pki_types::pem::Error::NoItemsFound => TlsError::NoKey { origin },
            _ => TlsError::NotPem { origin },
        })
    }

    /// The certificates in it as those of trusted authorities.
    ///
    /// # Errors
    /// As [`Self::certificates`], or one of them can't be read.
    pub(crate) fn authorities(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for (index, certificate) in self.certificates()?.into_iter().enumerate() {
            roots.add(certificate).map_err(|error| TlsError::Unreadable {
                origin: self.origin.clone(),
                position: index + 1,
                fault: error.to_string(),
            })?;
        }
        Ok(roots)
    }

    /// Both forms of a key under a passphrase: PKCS #8's own label, and OpenSSL's header of old.
    fn is_encrypted(&self) -> bool {
        const MARKS: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];
        MARKS.iter().any(|mark| self.bytes.windows(mark.len()).any(|window| window == *mark))
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pem").field("origin", &self.origin).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";

    fn pem(text: &str) -> Pem {
        Pem::new("tls.pem", text.as_bytes().to_vec())
    }

    #[test]
    fn what_is_not_there_is_told_apart_from_what_is_broken() {
        let origin = || "tls.pem".to_owned();
        assert_eq!(pem("").certificates().unwrap_err(), TlsError::NoCertificate { origin: origin() });
        assert_eq!(pem(KEY).certificates().unwrap_err(), TlsError::NoCertificate { origin: origin() });
        assert_eq!(pem("\u{1}der").private_key().unwrap_err(), TlsError::NoKey { origin: origin() });
        assert_eq!(
            pem("-----BEGIN PRIVATE KEY-----\nc2Vj").private_key().unwrap_err(),
            TlsError::NotPem { origin: origin() }
        );
        assert_eq!(
            pem("-----BEGIN CERTIFICATE-----\n???\n-----END CERTIFICATE-----\n").certificates().unwrap_err(),
            TlsError::NotPem { origin: origin() }
        );
        for text in [
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nc2VjcmV0\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nc2VjcmV0\n",
        ] {
            assert_eq!(pem(text).private_key().unwrap_err(), TlsError::EncryptedKey { origin: origin() });
        }
    }

    #[test]
    fn an_authority_that_cannot_be_read_is_named_by_its_place() {
        let text = "-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n";
        let error = pem(text).authorities().unwrap_err();
        assert!(matches!(&error, TlsError::Unreadable { position: 1, .. }), "{error}");
    }

    #[test]
    fn its_bytes_are_never_shown() {
        assert_eq!(format!("{:?}", pem(KEY)), "Pem { origin: \"tls.pem\", .. }");
        assert!(pem(KEY).private_key().is_ok());
    }
}
