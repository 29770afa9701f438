//! What is told of the files that https endpoints are met with: when their certificates end, and whether the last change
//! of them was taken.

use leastgate_policy::Timestamp;
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec};

use super::families::Maker;

#[derive(Debug)]
pub(crate) struct UpstreamTlsFamilies {
    expiry: GaugeVec,
    reloads: IntCounterVec,
    last: IntGaugeVec,
}

impl UpstreamTlsFamilies {
    pub(super) fn new(make: &Maker<'_>) -> Result<Self, prometheus::Error> {
        Ok(Self {
            expiry: make.float_gauges(
                "leastgate_upstream_tls_certificate_expiry_timestamp_seconds",
                "When a certificate shown to an upstream ends, or the first of the authorities that it is judged by.",
                &["upstream", "certificate"],
            )?,
            reloads: make.counters(
                "leastgate_upstream_tls_reloads_total",
                "Changes of the files an upstream is met with by TLS.",
                &["upstream", "result"],
            )?,
            last: make.gauges(
                "leastgate_upstream_tls_last_reload_successful",
                "Whether the last change of the files an upstream is met with by TLS was taken.",
                &["upstream"],
            )?,
        })
    }

    /// What an upstream is met with from now on. A certificate that does not say when it ends has no series.
    pub(crate) fn set<'a>(&self, upstream: &str, ends: impl Iterator<Item = (&'a str, Option<Timestamp>)>) {
        for (certificate, end) in ends {
            let labels = [upstream, certificate];
            match end {
                Some(end) => {
                    let seconds = crate::clock::Micros(end.0.saturating_mul(1_000_000)).seconds();
                    self.expiry.with_label_values(&labels).set(seconds);
                }
                // There may have been none before either: nothing is lost by that.
                None => drop(self.expiry.remove_label_values(&labels)),
            }
        }
        let reloads = ["success", "failure"].map(|result| self.reloads.with_label_values(&[upstream, result]));
        if reloads.iter().all(|count| count.get() == 0) {
            self.last.with_label_values(&[upstream]).set(1);
        }
    }

    pub(crate) fn reloaded(&self, upstream: &str, is_success: bool) {
        let result = if is_success { "success" } else { "failure" };
        self.reloads.with_label_values(&[upstream, result]).inc();
        self.last.with_label_values(&[upstream]).set(is_success.into());
    }
}
