//! What disturbs the gateways: policies, certificates, tokens and the upstream change under the load.

use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::within;
use rustix::process::Signal;
use serde_json::json;

use crate::churn::{Life, Passing};
use crate::rng::Rng;
use crate::scene::{Scene, Subject, policy};
use crate::upstream::Health;

/// What a change may take to come into force.
const IN_FORCE: Duration = Duration::from_secs(20);

/// Tokens that are valid at a time, and the mean time from one change of them to the next.
const TOKENS: usize = 8;
const TOKEN_PAUSE: Duration = Duration::from_millis(400);

/// Mean times: from one disturbance to the next, and of an upstream that is down or hangs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) pause: Duration,
    pub(crate) down: Duration,
    pub(crate) hung: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    PolicyByFile,
    PolicyBySignal,
    PolicyBroken,
    ReloadAlone,
    Certificate,
    CertificateBroken,
    UpstreamDies,
    UpstreamHangs,
}

const KINDS: [Kind; 8] = [
    Kind::PolicyByFile,
    Kind::PolicyBySignal,
    Kind::PolicyBroken,
    Kind::ReloadAlone,
    Kind::Certificate,
    Kind::CertificateBroken,
    Kind::UpstreamDies,
    Kind::UpstreamHangs,
];

/// Disturbs until `end`, in rounds of all kinds, each round in an order of its own.
pub(crate) fn disturb(scene: &Scene, seed: u64, pace: Pace, end: Instant, mut tell: impl FnMut(&'static str)) {
    let mut rng = Rng::of(seed, 77);
    let mut flip = false;
    let mut left = Vec::new();
    while rest(rng.around(pace.pause), end) {
        if left.is_empty() {
            left = KINDS.to_vec();
        }
        let kind = left.swap_remove(usize::try_from(rng.below(left.len() as u64)).unwrap_or_default());
        if matches!(kind, Kind::PolicyByFile | Kind::PolicyBySignal) {
            flip = !flip;
        }
        tell(name(kind));
        match kind {
            Kind::UpstreamDies => outage(scene, Health::Down, rng.around(pace.down)),
            Kind::UpstreamHangs => outage(scene, Health::Hung, rng.around(pace.hung)),
            kind => scene.subjects.iter().for_each(|subject| change(subject, kind, flip)),
        }
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::PolicyByFile => "policy replaced",
        Kind::PolicyBySignal => "policy replaced and SIGHUP",
        Kind::PolicyBroken => "policy broken and mended",
        Kind::ReloadAlone => "SIGHUP",
        Kind::Certificate => "certificate replaced",
        Kind::CertificateBroken => "certificate broken and mended",
        Kind::UpstreamDies => "upstream died and came back",
        Kind::UpstreamHangs => "upstream hung and came back",
    }
}

/// Waits; `false` when the end has come.
fn rest(time: Duration, end: Instant) -> bool {
    thread::sleep(time.min(end.saturating_duration_since(Instant::now())));
    Instant::now() < end
}

fn outage(scene: &Scene, health: Health, length: Duration) {
    scene.outages.begin();
    scene.upstream.set(health);
    thread::sleep(length);
    scene.upstream.set(Health::Up);
    scene.outages.end();
}

fn change(subject: &Subject, kind: Kind, flip: bool) {
    match kind {
        Kind::PolicyByFile => replace_policy(subject, flip, false),
        Kind::PolicyBySignal => replace_policy(subject, flip, true),
        Kind::PolicyBroken => {
            let before = reloads(subject, "failure");
            subject.gateway.replace_policy(&policy(flip).replace("roles:", "rolls: ["));
            confirm(subject, "a broken policy is refused", |subject| reloads(subject, "failure") > before);
            // The one in force is mended into itself: what was certain of it stays so.
            let before = reloads(subject, "success");
            subject.gateway.replace_policy(&policy(flip));
            confirm(subject, "the mended policy", |subject| reloads(subject, "success") > before);
        }
        Kind::ReloadAlone => {
            let before = reloads(subject, "success");
            subject.gateway.signal(Signal::HUP);
            confirm(subject, "a reload of what is there", |subject| reloads(subject, "success") > before);
        }
        Kind::Certificate => replace_certificate(subject),
        Kind::CertificateBroken => {
            if let Some(certificates) = &subject.certificates {
                let before = complaints(subject);
                certificates.lock().expect("no holder panics").spoil();
                confirm(subject, "a broken certificate is refused", |subject| complaints(subject) > before);
                replace_certificate(subject);
            }
        }
        Kind::UpstreamDies | Kind::UpstreamHangs => {}
    }
}

fn replace_policy(subject: &Subject, flip: bool, by_signal: bool) {
    let revision = |subject: &Subject| {
        let metrics = subject.gateway.metrics();
        metrics.series("leastgate_policy_info").find(|(_, value)| *value == 1.0).map(|(labels, _)| labels.to_owned())
    };
    let before = revision(subject);
    subject.target.churn.set_flip(None);
    subject.gateway.replace_policy(&policy(flip));
    if by_signal {
        subject.gateway.signal(Signal::HUP);
    }
    if confirm(subject, "a new policy", |subject| revision(subject) != before) {
        subject.target.churn.set_flip(Some(flip));
    }
}

fn reloads(subject: &Subject, result: &str) -> f64 {
    subject.gateway.metrics().sum("leastgate_config_reloads_total", &[&format!("result=\"{result}\"")])
}

fn complaints(subject: &Subject) -> usize {
    subject.gateway.stderr().matches("certificates not replaced").count()
}

fn replace_certificate(subject: &Subject) {
    let Some(certificates) = &subject.certificates else { return };
    let wanted = seconds_of(certificates.lock().expect("no holder panics").replace());
    confirm(subject, "a new certificate", |subject| {
        subject.gateway.metrics().sum("leastgate_tls_certificate_expiry_timestamp_seconds", &["web.pem"]) == wanted
    });
}

/// Seconds from 1970 to the year's begin.
fn seconds_of(year: i32) -> f64 {
    let before = year - 1;
    let days = 365 * (year - 1970) + (before / 4 - before / 100 + before / 400) - 477;
    f64::from(days) * 86_400.0
}

/// Waits for it; that it does not come is a finding.
fn confirm(subject: &Subject, what: &str, mut holds: impl FnMut(&Subject) -> bool) -> bool {
    let came = within(IN_FORCE, || holds(subject).then_some(())).is_some();
    if !came {
        subject.target.ledger.find(format!("{}: {what} did not come within {IN_FORCE:?}", subject.name()));
    }
    came
}

/// Makes and revokes tokens of a gateway until `end`; how many were revoked.
pub(crate) fn churn(subject: &Subject, seed: u64, end: Instant) -> u64 {
    let mut rng = Rng::of(seed, 99);
    let mut revoked = 0;
    for number in 0_u64.. {
        if !rest(rng.around(TOKEN_PAUSE), end) {
            break;
        }
        let churn = &subject.target.churn;
        if churn.valid() < TOKENS {
            let (accessor, secret) = subject.create(&format!("passing-{number}"));
            churn.add(accessor, secret);
        } else if let Some(token) = churn.oldest() {
            revoke(subject, &token);
            revoked += 1;
        }
    }
    revoked
}

fn revoke(subject: &Subject, token: &Passing) {
    token.set(Life::Ending);
    let reply = subject.call(&format!("/v1/tokens/{}/revoke", token.accessor), &json!({ "reason": "soak" }));
    if reply.status == 200 && reply.json()["durable"] == true {
        token.set(Life::Revoked(Instant::now()));
    } else {
        subject.target.ledger.find(format!("{}: a revocation was answered {}", subject.name(), reply.text()));
    }
}
