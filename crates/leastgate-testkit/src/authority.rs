//! A certificate authority of a test's own, and what it signs.

use std::fmt;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// Signs certificates; its own is good until 2040.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, as PEM.
pub struct Signed {
    /// The certificate.
    pub cert: String,
    /// The key.
    pub key: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl Authority {
    /// An authority under a name; OpenSSL takes a certificate whose issuer is named as itself for its own issuer.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2040, 1, 1));
        let own = KeyPair::generate().and_then(|key| CertifiedIssuer::self_signed(params, key));
        Self(own.expect("a key can be drawn and a certificate signed"))
    }

    /// Its own certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its own certificate.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        self.0.der()
    }

    /// Its own certificate as a file.
    pub fn write(&self, folder: &Path, file: &str) {
        put(folder, file, &self.pem());
    }

    /// A certificate with a key of its own.
    #[must_use]
    pub fn sign(&self, params: &CertificateParams) -> Signed {
        let key = KeyPair::generate().expect("a key can be drawn");
        let cert = params.signed_by(&key, &self.0).expect("a certificate can be signed");
        Signed { cert: cert.pem(), key: key.serialize_pem() }
    }
}

impl Signed {
    /// As `NAME.key` and `NAME.pem`, each of them new at once.
    pub fn write(&self, folder: &Path, name: &str) {
        put(folder, &format!("{name}.key"), &self.key);
        put(folder, &format!("{name}.pem"), &self.cert);
    }
}

/// What a certificate for these DNS names says that ends with the first second of a year.
#[must_use]
pub fn params(names: &[&str], year: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("the names are DNS names");
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    params
}

/// Puts a file in its place that only its owner reads: whoever looks sees the old one or the new one.
pub fn put(folder: &Path, file: &str, text: &str) {
    let fresh = folder.join(format!("{file}.new"));
    fs::write(&fresh, text)
        .and_then(|()| fs::set_permissions(&fresh, Permissions::from_mode(0o600)))
        .and_then(|()| fs::rename(&fresh, folder.join(file)))
        .unwrap_or_else(|error| panic!("{}: {error}", fresh.display()));
}
