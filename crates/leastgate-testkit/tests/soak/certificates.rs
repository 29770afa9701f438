//! An authority of the run's own, and the certificate it signs anew again and again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use leastgate_testkit::authority::{Authority, params, put};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::{HOST_CALLS, HOST_PLAIN};

#[derive(Debug)]
pub(crate) struct Certificates {
    authority: Authority,
    folder: PathBuf,
    year: i32,
}

impl Certificates {
    /// `web.pem` and `web.key` in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let mut certificates =
            Self { authority: Authority::new("soak authority"), folder: folder.to_owned(), year: 2040 };
        certificates.replace();
        certificates
    }

    /// Signs another one, which ends in another year; that year's first second.
    pub(crate) fn replace(&mut self) -> i32 {
        self.year = if self.year < 2090 { self.year + 1 } else { 2040 };
        self.authority.sign(&params(&[HOST_PLAIN, HOST_CALLS], self.year)).write(&self.folder, "web");
        self.year
    }

    /// Leaves no certificate in the file.
    pub(crate) fn spoil(&self) {
        put(&self.folder, "web.pem", "no certificate\n");
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
