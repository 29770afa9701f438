//! A certificate with its key, and the choice of one by the name a client asks for.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leastgate_policy::Timestamp;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::error::TlsError;
use super::pem::Pem;

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The chain: the leaf, then its intermediates.
    pub cert: Pem,
    /// The leaf's private key.
    pub key: Pem,
}

/// What can be told of a certificate in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateView {
    /// Where it came from.
    pub origin: String,
    /// The DNS names it is for.
    pub names: Vec<String>,
    /// When it begins; `None` if it does not say so in a way that can be read.
    pub begins: Option<Timestamp>,
    /// When it ends; `None` likewise.
    pub expires: Option<Timestamp>,
}

/// A certificate that was read, and fits its key.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) view: CertificateView,
    pub(crate) key: Arc<CertifiedKey>,
}

/// The certificates of a listener, by name.
pub(super) struct ByName {
    default: Arc<CertifiedKey>,
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// What follows `*.`.
    one_label_under: HashMap<String, Arc<CertifiedKey>>,
}

impl KeyPair {
    /// The chain and its key, which belong together.
    fn certified(
        &self,
        chain: Vec<CertificateDer<'static>>,
        provider: &CryptoProvider,
    ) -> Result<CertifiedKey, TlsError> {
        CertifiedKey::from_der(chain, self.key.private_key()?, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::NotAPair { cert: self.cert.origin().to_owned(), key: self.key.origin().to_owned() }
            }
            error => TlsError::UnusableKey { origin: self.key.origin().to_owned(), fault: error.to_string() },
        })
    }
}

impl Certificate {
    /// For both sides of the gateway.
    ///
    /// # Errors
    /// What is wrong with it; its time is no part of that.
    pub(crate) fn read(pair: &KeyPair, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let chain = pair.cert.certificates()?;
        let leaf = chain.first().ok_or_else(|| TlsError::NoCertificate { origin: pair.cert.origin().to_owned() })?;
        let view = view(pair.cert.origin(), leaf)?;
        let key = Arc::new(pair.certified(chain, provider)?);
        Ok(Self { view, key })
    }

    /// Whether it may take the place of one in force: a peer would refuse it before its time and after.
    ///
    /// # Errors
    /// Its time is over, or has not begun.
    pub(crate) fn is_in_its_time(&self, now: Timestamp) -> Result<(), TlsError> {
        let CertificateView { origin, begins, expires, .. } = &self.view;
        if expires.is_some_and(|end| end < now) {
            return Err(TlsError::Expired { origin: origin.clone() });
        }
        if begins.is_some_and(|begin| now < begin) {
            return Err(TlsError::NotYetValid { origin: origin.clone() });
        }
        Ok(())
    }
}

impl CertificateView {
    /// The authorities in a file as one: from when all of them are valid, until the first of them ends.
    pub(crate) fn of_authorities(pem: &Pem) -> Result<Self, TlsError> {
        let certificates = pem.certificates()?;
        let times = certificates.iter().filter_map(|authority| EndEntityCert::try_from(authority).ok());
        let (begins, ends): (Vec<_>, Vec<_>) =
            times.map(|authority| (begin_of(&authority), end_of(&authority))).unzip();
        Ok(Self {
            origin: pem.origin().to_owned(),
            names: Vec::new(),
            begins: begins.into_iter().flatten().max(),
            expires: ends.into_iter().flatten().min(),
        })
    }
}

fn view(origin: &str, leaf: &CertificateDer<'_>) -> Result<CertificateView, TlsError> {
    let certificate = EndEntityCert::try_from(leaf).map_err(|error| TlsError::Unreadable {
        origin: origin.to_owned(),
        position: 1,
        fault: error.to_string(),
    })?;
    let names = certificate.valid_dns_names().map(str::to_ascii_lowercase).collect();
    let (begins, expires) = (begin_of(&certificate), end_of(&certificate));
    Ok(CertificateView { origin: origin.to_owned(), names, begins, expires })
}

/// webpki tells when a certificate ends in refusing it, and no other way: it is asked about a time after every end.
fn end_of(certificate: &EndEntityCert<'_>) -> Option<Timestamp> {
    /// 9999-12-31T23:59:59Z is the last that a certificate can name (RFC 5280 §4.1.2.5).
    const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);
    match refusal_at(YEAR_10000, certificate)? {
        webpki::Error::CertExpired { not_after, .. } => Some(Timestamp(not_after.as_secs())),
        _ => None,
    }
}

/// Likewise, about a time before most beginnings. One that began before 1970 is valid since then for all that matters.
fn begin_of(certificate: &EndEntityCert<'_>) -> Option<Timestamp> {
    match refusal_at(Duration::ZERO, certificate)? {
        webpki::Error::CertNotValidYet { not_before, .. } => Some(Timestamp(not_before.as_secs())),
        _ => None,
    }
}

fn refusal_at(since_1970: Duration, certificate: &EndEntityCert<'_>) -> Option<webpki::Error> {
    let time = UnixTime::since_unix_epoch(since_1970);
    certificate.verify_for_usage(&[], &[], &[], time, KeyUsage::server_auth(), None, None).err()
}

impl ByName {
    /// The default certificate is chosen by its own names too, unless another has them.
    pub(super) fn new(default: &Certificate, others: &[Certificate]) -> Result<Self, TlsError> {
        let mut chosen =
            Self { default: Arc::clone(&default.key), exact: HashMap::new(), one_label_under: HashMap::new() };
        let mut owners: HashMap<&str, &str> = HashMap::new();
        for certificate in others {
            let CertificateView { origin, names, .. } = &certificate.view;
            if names.is_empty() {
                return Err(TlsError::Nameless { origin: origin.clone() });
            }
            for name in names {
                if let Some(first) = owners.insert(name, origin).filter(|first| first != origin) {
                    let (name, first, second) = (name.clone(), first.to_owned(), origin.clone());
                    return Err(TlsError::SharedName { name, first, second });
                }
                chosen.entry(name).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        for name in &default.view.names {
            chosen.entry(name).or_insert_with(|| Arc::clone(&default.key));
        }
        Ok(chosen)
    }

    fn entry(&mut self, name: &str) -> Entry<'_, String, Arc<CertifiedKey>> {
        match name.strip_prefix("*.") {
            Some(suffix) => self.one_label_under.entry(suffix.to_owned()),
            None => self.exact.entry(name.to_owned()),
        }
    }

    fn choose(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let named = name.and_then(|name| {
            let wildcard = || self.one_label_under.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(wildcard)
        });
        named.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.choose(hello.server_name())))
    }
}

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = (self.exact.keys().collect::<Vec<_>>(), self.one_label_under.keys().collect::<Vec<_>>());
        f.debug_struct("ByName").field("exact", &names.0).field("one_label_under", &names.1).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::CertificateParams;
    use rustls::crypto::aws_lc_rs;

    use super::*;

    fn pair(origin: &str, names: &[&str]) -> KeyPair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        KeyPair {
            cert: Pem::new(format!("{origin}.pem"), cert.pem().into_bytes()),
            key: Pem::new(format!("{origin}.key"), key.serialize_pem().into_bytes()),
        }
    }

    fn read(pair: &KeyPair) -> Result<Certificate, TlsError> {
        Certificate::read(pair, &aws_lc_rs::default_provider())
    }

    fn certificate(origin: &str, names: &[&str]) -> Certificate {
        read(&pair(origin, names)).unwrap()
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_a_wildcard_is_one_label() {
        let default = certificate("default", &["gateway.example"]);
        let others = [certificate("wild", &["*.a.test"]), certificate("exact", &["X.a.test", "b.test"])];
        let chosen = ByName::new(&default, &others).unwrap();
        let is = |name: Option<&str>, certificate: &Certificate| {
            assert!(Arc::ptr_eq(chosen.choose(name), &certificate.key), "{name:?}: not {}", certificate.view.origin);
        };
        is(Some("x.a.test"), &others[1]);
        is(Some("b.test"), &others[1]);
        is(Some("y.a.test"), &others[0]);
        is(Some("gateway.example"), &default);
        for other in [None, Some("x.y.a.test"), Some("a.test"), Some("unknown")] {
            is(other, &default);
        }
    }

    #[test]
    fn a_name_has_one_certificate_and_one_chosen_by_name_has_a_name() {
        let default = certificate("default", &["a.example"]);
        let twice = [certificate("one", &["*.a.test"]), certificate("two", &["*.A.TEST"])];
        let error = ByName::new(&default, &twice).unwrap_err();
        assert_eq!(
            error,
            TlsError::SharedName { name: "*.a.test".into(), first: "one.pem".into(), second: "two.pem".into() }
        );
        let error = ByName::new(&default, &[certificate("none", &[])]).unwrap_err();
        assert_eq!(error, TlsError::Nameless { origin: "none.pem".into() });
        let own = [certificate("own", &["a.example"])];
        let chosen = ByName::new(&default, &own).unwrap();
        assert!(Arc::ptr_eq(chosen.choose(Some("a.example")), &own[0].key), "the default one stands back");
    }

    #[test]
    fn names_and_end_are_read() {
        let view = certificate("web", &["B.example", "*.a.test"]).view;
        assert_eq!(view.names, ["b.example", "*.a.test"]);
        assert_eq!(view.expires, Some(Timestamp(1_927_843_200)), "2031-02-03T00:00:00Z");
        assert_eq!(view.begins, Some(Timestamp(1_577_836_800)), "2020-01-01T00:00:00Z");
    }

    #[test]
    fn a_time_has_a_begin_and_an_end() {
        let certificate = certificate("web", &["a.test"]);
        let at = |seconds| certificate.is_in_its_time(Timestamp(seconds));
        assert_eq!(at(1_577_836_799), Err(TlsError::NotYetValid { origin: "web.pem".into() }));
        assert_eq!([at(1_577_836_800), at(1_927_843_200)], [Ok(()), Ok(())]);
        assert_eq!(at(1_927_843_201), Err(TlsError::Expired { origin: "web.pem".into() }));
    }

    #[test]
    fn authorities_are_valid_as_long_as_all_of_them_are() {
        let both = [authority(2035), authority(2030), authority(2031)].concat();
        let view = CertificateView::of_authorities(&Pem::new("ca.pem", both.into_bytes())).unwrap();
        assert_eq!((view.origin.as_str(), view.expires), ("ca.pem", Some(Timestamp(1_893_456_000))), "2030-01-01");
    }

    fn authority(year: i32) -> String {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, two) = (pair("one", &["a.example"]), pair("two", &["a.example"]));
        let error = read(&KeyPair { key: two.key, ..one.clone() }).unwrap_err();
        assert_eq!(error, TlsError::NotAPair { cert: "one.pem".into(), key: "two.key".into() });
        let error = read(&KeyPair { key: one.cert.clone(), ..one.clone() }).unwrap_err();
        assert_eq!(error, TlsError::NoKey { origin: "one.pem".into() });
        let broken = Pem::new("b.key", b"-----BEGIN PRIVATE KEY-----\nc2Vj\n-----END PRIVATE KEY-----\n".to_vec());
        let error = read(&KeyPair { key: broken, ..one }).unwrap_err();
        assert!(matches!(&error, TlsError::UnusableKey { origin, .. } if origin == "b.key"), "{error}");
    }
}
