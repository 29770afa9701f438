//! An authority of the run's own, and the certificate it signs anew again and again.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::{HOST_CALLS, HOST_PLAIN};

pub(crate) struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
    year: i32,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("folder", &self.folder).field("year", &self.year).finish_non_exhaustive()
    }
}

impl Certificates {
    /// `web.pem` and `web.key` in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "soak authority");
        let authority = KeyPair::generate().and_then(|key| CertifiedIssuer::self_signed(params, key));
        let authority = authority.expect("a certificate can be signed");
        let mut certificates = Self { authority, folder: folder.to_owned(), year: 2040 };
        certificates.replace();
        certificates
    }

    /// Signs another one, which ends in another year; that year's first second.
    pub(crate) fn replace(&mut self) -> i32 {
        self.year = if self.year < 2090 { self.year + 1 } else { 2040 };
        let names = [HOST_PLAIN.to_owned(), HOST_CALLS.to_owned()];
        let key = KeyPair::generate().expect("a key can be drawn");
        let mut params = CertificateParams::new(names).expect("the names are DNS names");
        params.not_after = rcgen::date_time_ymd(self.year, 1, 1);
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate can be signed");
        self.write("web.key", &key.serialize_pem());
        self.write("web.pem", &certificate.pem());
        self.year
    }

    /// Leaves no certificate in the file.
    pub(crate) fn spoil(&self) {
        self.write("web.pem", "no certificate\n");
    }

    fn write(&self, name: &str, text: &str) {
        let fresh = self.folder.join(format!("{name}.new"));
        fs::write(&fresh, text)
            .and_then(|()| fs::set_permissions(&fresh, Permissions::from_mode(0o600)))
            .and_then(|()| fs::rename(&fresh, self.folder.join(name)))
            .expect("the temporary folder can be written");
    }

    /// How clients speak TLS to it: HTTP/1.1, and HTTP/2.
    pub(crate) fn clients(&self) -> io::Result<[Arc<ClientConfig>; 2]> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.der().to_vec())).map_err(io::Error::other)?;
        let with = |protocol: &[u8]| {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let builder = builder.map_err(io::Error::other)?;
            let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            Ok::<_, io::Error>(Arc::new(config))
        };
        Ok([with(b"http/1.1")?, with(b"h2")?])
    }
}
