//! The families and the children that need no policy to be known.

use std::sync::Arc;

use leastgate_policy::Reason;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use super::endpoints::EndpointFamilies;
use super::tls::TlsFamilies;
use super::upstream_tls::UpstreamTlsFamilies;

/// What a limit was about, as `leastgate_limited_total` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// Too many failed credentials from one source.
    Source,
    /// Too many connections in all.
    Connections,
    /// Too many connections from one peer.
    ConnectionsPerSource,
    /// Too many requests in flight.
    InFlight,
    /// Too many requests in flight of one peer.
    InFlightPerSource,
    /// Too many requests a second with one token.
    TokenRate,
    /// Too many requests under way with one token.
    TokenConcurrency,
}

impl LimitKind {
    const ALL: [Self; 7] = [
        Self::Source,
        Self::Connections,
        Self::ConnectionsPerSource,
        Self::InFlight,
        Self::InFlightPerSource,
        Self::TokenRate,
        Self::TokenConcurrency,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Connections => "connections",
            Self::ConnectionsPerSource => "connections_per_source",
            Self::InFlight => "in_flight",
            Self::InFlightPerSource => "in_flight_per_source",
            Self::TokenRate => "token_rate",
            Self::TokenConcurrency => "token_concurrency",
        }
    }
}

/// The states `leastgate_tokens` counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenGauge {
    /// May be used.
    Active,
    /// May be used, and its life ends soon.
    Expiring,
    /// Its life is over.
    Expired,
    /// Not until enabled again.
    Disabled,
    /// Never again.
    Revoked,
    /// Has a successor, in its grace.
    Rotating,
}

impl TokenGauge {
    const ALL: [Self; 6] = [Self::Active, Self::Expiring, Self::Expired, Self::Disabled, Self::Revoked, Self::Rotating];

    fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Disabled => "disabled",
            Self::Revoked => "revoked",
            Self::Rotating => "rotating",
        }
    }
}

/// Every metric family.
#[derive(Debug)]
pub(crate) struct Families {
    registry: Registry,
    pub(crate) policy_info: IntGaugeVec,
    pub(crate) requests: IntCounterVec,
    pub(crate) request_duration: HistogramVec,
    pub(crate) decision_duration: Histogram,
    pub(crate) in_flight: IntGauge,
    decisions: IntCounterVec,
    pub(crate) shadow_mismatches: IntCounterVec,
    pub(crate) upstream_requests: IntCounterVec,
    pub(crate) upstream_duration: HistogramVec,
    pub(crate) upstream_connect_errors: IntCounterVec,
    pub(crate) audit_events: IntCounterVec,
    pub(crate) audit_dropped: IntCounterVec,
    pub(crate) audit_depth: IntGaugeVec,
    pub(crate) audit_capacity: IntGaugeVec,
    pub(crate) audit_last_success: GaugeVec,
    pub(crate) reloads: IntCounterVec,
    pub(crate) reload_successful: IntGauge,
    tokens: IntGaugeVec,
    pub(crate) next_expiry: Gauge,
    pub(crate) rotation_overdue: IntGauge,
    pub(crate) clock_ahead: Gauge,
    pub(crate) revocation_duration: Histogram,
    pub(crate) streams_cut: IntCounterVec,
    pub(crate) canary_uses: IntCounter,
    limited: [IntCounter; LimitKind::ALL.len()],
    pub(crate) admin_requests: IntCounterVec,
    pub(crate) unsynced: IntGauge,
    pub(crate) tls: TlsFamilies,
    pub(crate) admin_tls: TlsFamilies,
    pub(crate) endpoints: Arc<EndpointFamilies>,
    pub(crate) upstream_tls: UpstreamTlsFamilies,
}

impl Families {
    /// All families, registered, with every series of a closed enum at 0.
    pub(crate) fn new(version: &str, revision: &str) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let make = Maker(&registry);
        make.gauges("leastgate_build_info", "The build that runs.", &["version", "revision"])?
            .with_label_values(&[version, revision])
            .set(1);
        let families = Self {
            policy_info: make.gauges("leastgate_policy_info", "The policy in force.", &["policy_rev"])?,
            requests: make.counters(
                "leastgate_http_requests_total",
                "Finished requests.",
                &["route", "method", "code"],
            )?,
            request_duration: make.histograms(
                "leastgate_http_request_duration_seconds",
                "Time from the request's head to the response's last byte.",
                &["route"],
                REQUEST_BUCKETS,
            )?,
            decision_duration: make.histogram(
                "leastgate_decision_duration_seconds",
                "Time a decision took, of 1 request in 64.",
                DECISION_BUCKETS,
            )?,
            in_flight: make.gauge("leastgate_http_requests_in_flight", "Requests under way.")?,
            decisions: make.counters("leastgate_decisions_total", "Decisions.", &["effect", "reason", "mode"])?,
            shadow_mismatches: make.counters(
                "leastgate_shadow_mismatches_total",
                "Requests that passed in shadow mode and would not in enforce.",
                &["api", "would"],
            )?,
            upstream_requests: make.counters(
                "leastgate_upstream_requests_total",
                "Requests sent to an upstream, by the class of its answer.",
                &["upstream", "class"],
            )?,
            upstream_duration: make.histograms(
                "leastgate_upstream_request_duration_seconds",
                "Time from sending a request to the head of the upstream's answer.",
                &["upstream"],
                REQUEST_BUCKETS,
            )?,
            upstream_connect_errors: make.counters(
                "leastgate_upstream_connect_errors_total",
                "Connections to an upstream that failed.",
                &["upstream", "error"],
            )?,
            audit_events: make.counters("leastgate_audit_events_total", "Events written.", &["sink"])?,
            audit_dropped: make.counters("leastgate_audit_dropped_total", "Events lost.", &["sink", "reason"])?,
            audit_depth: make.gauges("leastgate_audit_queue_depth", "Events waiting for a sink.", &["sink"])?,
            audit_capacity: make.gauges(
                "leastgate_audit_queue_capacity",
                "Events that may wait for a sink.",
                &["sink"],
            )?,
            audit_last_success: make.float_gauges(
                "leastgate_audit_last_success_timestamp_seconds",
                "When a sink last wrote a batch.",
                &["sink"],
            )?,
            reloads: make.counters("leastgate_config_reloads_total", "Reloads of the policy.", &["result"])?,
            reload_successful: make
                .gauge("leastgate_config_last_reload_successful", "Whether the last reload succeeded.")?,
            tokens: make.gauges("leastgate_tokens", "Tokens by state.", &["state"])?,
            next_expiry: make.float_gauge(
                "leastgate_token_next_expiry_timestamp_seconds",
                "When the next token expires; 0: none does.",
            )?,
            rotation_overdue: make.gauge(
                "leastgate_tokens_rotation_overdue",
                "Tokens older than the policy's token_rules.rotation.every; 0: none, or the policy does not say.",
            )?,
            clock_ahead: make.float_gauge(
                "leastgate_clock_ahead_seconds",
                "How far the gateway's time is ahead of the machine's clock, which was set back.",
            )?,
            revocation_duration: make.histogram(
                "leastgate_revocation_duration_seconds",
                "Time from a revocation's request until every worker refuses the token.",
                REVOCATION_BUCKETS,
            )?,
            streams_cut: make.counters("leastgate_streams_cut_total", "Requests cut while under way.", &["reason"])?,
            canary_uses: make
                .counters("leastgate_canary_uses_total", "Baits that came with requests: each is an alarm.", &[])?
                .with_label_values::<&str>(&[]),
            limited: make.limits()?,
            admin_requests: make.counters(
                "leastgate_admin_requests_total",
                "Calls of the admin API.",
                &["operation", "code"],
            )?,
            unsynced: make
                .gauge("leastgate_store_unsynced_changes", "Changes in force that the store does not hold yet.")?,
            tls: TlsFamilies::new(&make, "leastgate_tls", "clients")?,
            admin_tls: TlsFamilies::new(&make, "leastgate_admin_tls", "administrators")?,
            endpoints: EndpointFamilies::new(&make)?,
            upstream_tls: UpstreamTlsFamilies::new(&make)?,
            registry: registry.clone(),
        };
        families.create_closed_series();
        Ok(families)
    }

    /// A series that appears only with its first event hides that first event from `rate()`.
    fn create_closed_series(&self) {
        for result in ["success", "failure"] {
            self.reloads.with_label_values(&[result]);
        }
        for state in TokenGauge::ALL {
            self.tokens.with_label_values(&[state.as_str()]);
        }
        for reason in Reason::ALL.iter().filter(|reason| reason.may_cut()) {
            self.streams_cut.with_label_values(&[reason.as_str()]);
        }
        Decisions::new(self);
    }

    /// Called for every connection that a flood opens: no look-up.
    pub(crate) fn limited(&self, kind: LimitKind) {
        if let Some(index) = LimitKind::ALL.iter().position(|known| *known == kind) {
            self.limited[index].inc();
        }
    }

    pub(crate) fn set_tokens(&self, state: TokenGauge, count: u64) {
        self.tokens.with_label_values(&[state.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn render(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 * 1024);
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "the metrics cannot be written");
        }
        out
    }
}

/// The children of `leastgate_decisions_total`.
#[derive(Clone, Debug)]
pub(crate) struct Decisions(Vec<[IntCounter; 2]>);

impl Decisions {
    pub(crate) fn new(families: &Families) -> Self {
        let child = |reason: Reason, mode| {
            families.decisions.with_label_values(&[reason.effect().as_str(), reason.as_str(), mode])
        };
        Self(Reason::ALL.iter().map(|&reason| [child(reason, "enforce"), child(reason, "shadow")]).collect())
    }

    pub(crate) fn count(&self, reason: Reason, shadow: bool) {
        if let Some(children) = self.0.get(reason as usize) {
            children[usize::from(shadow)].inc();
        }
    }
}

pub(super) struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    pub(super) fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(super) fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, prometheus::Error> {
        let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        let family = IntGauge::new(name, help)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    pub(super) fn float_gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
        let family = GaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn float_gauge(&self, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
        let family = Gauge::new(name, help)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn limits(&self) -> Result<[IntCounter; LimitKind::ALL.len()], prometheus::Error> {
        let family =
            self.counters("leastgate_limited_total", "Connections and requests refused by a limit.", &["kind"])?;
        Ok(LimitKind::ALL.map(|kind| family.with_label_values(&[kind.as_str()])))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, prometheus::Error> {
        let family = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
        let family = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }
}

const REQUEST_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const DECISION_BUCKETS: &[f64] =
    &[1e-7, 2.5e-7, 5e-7, 1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3];
const REVOCATION_BUCKETS: &[f64] = &[1e-5, 1e-4, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_series_exist_before_anything_happens() {
        let families = Families::new("1", "abc").unwrap();
        let text = String::from_utf8(families.render()).unwrap();
        for reason in Reason::ALL {
            for mode in ["enforce", "shadow"] {
                let (effect, reason) = (reason.effect().as_str(), reason.as_str());
                let series =
                    format!("leastgate_decisions_total{{effect=\"{effect}\",mode=\"{mode}\",reason=\"{reason}\"}} 0\n");
                assert!(text.contains(&series), "{series}");
            }
        }
        for line in [
            "leastgate_build_info{revision=\"abc\",version=\"1\"} 1\n",
            "leastgate_tokens{state=\"rotating\"} 0\n",
            "leastgate_limited_total{kind=\"source\"} 0\n",
            "leastgate_streams_cut_total{reason=\"token_revoked\"} 0\n",
            "leastgate_streams_cut_total{reason=\"token_grace_ended\"} 0\n",
            "leastgate_streams_cut_total{reason=\"no_matching_scope\"} 0\n",
            "leastgate_streams_cut_total{reason=\"host_unknown\"} 0\n",
            "leastgate_limited_total{kind=\"token_rate\"} 0\n",
            "leastgate_limited_total{kind=\"token_concurrency\"} 0\n",
            "leastgate_canary_uses_total 0\n",
        ] {
            assert!(text.contains(line), "{line}");
        }
        assert!(!text.contains("leastgate_streams_cut_total{reason=\"overloaded\"}"), "no later look finds that");
        assert!(text.contains("process_resident_memory_bytes"));
    }
}
