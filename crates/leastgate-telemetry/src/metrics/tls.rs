//! What is counted of TLS towards clients, on the data listener and on the admin listener: handshakes that failed, and
//! when certificates end.

use leastgate_policy::Timestamp;
use prometheus::{GaugeVec, IntCounter, IntCounterVec, IntGauge};

use super::families::Maker;

/// Why a handshake failed, as `leastgate_tls_handshake_failures_total` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandshakeFailure {
    /// It took too long.
    Timeout,
    /// The client went away.
    ClientGone,
    /// What came is not TLS.
    NotTls,
    /// The client refused, mostly for our certificate.
    RefusedByClient,
    /// No version, cipher or protocol that both know.
    Incompatible,
    /// A certificate is demanded, and none came.
    NoCertificate,
    /// The client's certificate is not accepted.
    BadCertificate,
    /// The client broke the protocol.
    Protocol,
}

impl HandshakeFailure {
    const ALL: [Self; 8] = [
        Self::Timeout,
        Self::ClientGone,
        Self::NotTls,
        Self::RefusedByClient,
        Self::Incompatible,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::Protocol,
    ];

    /// Its label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::ClientGone => "client_gone",
            Self::NotTls => "not_tls",
            Self::RefusedByClient => "refused_by_client",
            Self::Incompatible => "incompatible",
            Self::NoCertificate => "no_certificate",
            Self::BadCertificate => "bad_certificate",
            Self::Protocol => "protocol",
        }
    }
}

#[derive(Debug)]
pub(crate) struct TlsFamilies {
    failures: [IntCounter; HandshakeFailure::ALL.len()],
    expiry: GaugeVec,
    reloads: IntCounterVec,
    last: IntGauge,
}

impl TlsFamilies {
    /// Under `leastgate_tls` for clients of the data listener, and apart from them for administrators.
    pub(super) fn new(make: &Maker<'_>, prefix: &str, whom: &str) -> Result<Self, prometheus::Error> {
        let name = |rest: &str| format!("{prefix}_{rest}");
        let failures = make.counters(
            &name("handshake_failures_total"),
            &format!("TLS handshakes of {whom} that failed."),
            &["reason"],
        )?;
        let reloads = make.counters(
            &name("reloads_total"),
            &format!("Changes of the certificates shown to {whom}."),
            &["result"],
        )?;
        let last = make.gauge(
            &name("last_reload_successful"),
            &format!("Whether the last change of the certificates shown to {whom} was taken."),
        )?;
        for result in ["success", "failure"] {
            reloads.with_label_values(&[result]);
        }
        last.set(1);
        Ok(Self {
            reloads,
            last,
            failures: HandshakeFailure::ALL.map(|failure| failures.with_label_values(&[failure.as_str()])),
            expiry: make.float_gauges(
                &name("certificate_expiry_timestamp_seconds"),
                &format!(
                    "When a certificate shown to {whom} ends, or the first of the authorities that vouch for them."
                ),
                &["certificate"],
            )?,
        })
    }

    /// Called for every connection that a flood opens: no look-up.
    pub(crate) fn failed(&self, failure: HandshakeFailure) {
        if let Some(index) = HandshakeFailure::ALL.iter().position(|known| *known == failure) {
            self.failures[index].inc();
        }
    }

    pub(crate) fn reloaded(&self, is_success: bool) {
        self.reloads.with_label_values(&[if is_success { "success" } else { "failure" }]).inc();
        self.last.set(is_success.into());
    }

    /// The certificates in force, in place of those before.
    pub(crate) fn set_certificates<'a>(&self, ends: impl Iterator<Item = (&'a str, Timestamp)>) {
        self.expiry.reset();
        for (certificate, end) in ends {
            let seconds = crate::clock::Micros(end.0.saturating_mul(1_000_000)).seconds();
            self.expiry.with_label_values(&[certificate]).set(seconds);
        }
    }
}
