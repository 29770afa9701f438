//! The exposition: names and labels of the interface, in the format's grammar, bounded whatever clients send.

use std::collections::HashSet;
use std::time::Duration;

use leastgate_policy::Reason;
use leastgate_telemetry::{CheckResult, ConnectError, EjectionCause, HandshakeFailure, LimitKind, Origin, TokenGauge};

use crate::loss::metric;
use crate::support::{START, World, compile, spec, telemetry};

#[test]
fn a_request_is_counted_under_its_template() {
    let world = World::new();
    let (telemetry, clock) = telemetry(|_| {});
    telemetry.policy_loaded(&world.snapshot);
    let worker = telemetry.worker();
    let recorder = world.record(&worker, "GET", "/v1/orders", Some(&world.reader));
    assert_eq!(metric(&telemetry, "leastgate_http_requests_in_flight"), 1.0);
    recorder.upstream("orders");
    clock.advance(Duration::from_millis(3));
    recorder.upstream_answered(204);
    recorder.response(204, Origin::Upstream);
    recorder.finish();
    let shadowed = world.record(&worker, "GET", "/trial/x", Some(&world.reader));
    shadowed.upstream("trial");
    shadowed.upstream_failed(Reason::UpstreamUnreachable);
    shadowed.response(503, Origin::Gateway);
    shadowed.finish();
    worker.upstream_connect_error("trial", ConnectError::Refused);
    worker.upstream_connect_error("trial", ConnectError::Saturated);
    drop(world.record(&worker, "PURGE", "/v1/nothing", Some(&world.reader)));
    for (series, value) in [
        ("leastgate_http_requests_total{code=\"204\",method=\"GET\",route=\"/v1/orders\"}", 1.0),
        ("leastgate_http_requests_total{code=\"_none\",method=\"_OTHER\",route=\"_none\"}", 1.0),
        ("leastgate_http_request_duration_seconds_count{route=\"/v1/orders\"}", 1.0),
        ("leastgate_http_request_duration_seconds_bucket{route=\"/v1/orders\",le=\"0.0025\"}", 0.0),
        ("leastgate_http_request_duration_seconds_bucket{route=\"/v1/orders\",le=\"0.005\"}", 1.0),
        ("leastgate_http_requests_in_flight", 0.0),
        ("leastgate_decisions_total{effect=\"allow\",mode=\"enforce\",reason=\"scope_granted\"}", 1.0),
        ("leastgate_decisions_total{effect=\"deny\",mode=\"shadow\",reason=\"insufficient_scope\"}", 1.0),
        ("leastgate_decisions_total{effect=\"deny\",mode=\"enforce\",reason=\"no_matching_scope\"}", 1.0),
        ("leastgate_decision_duration_seconds_count", 1.0),
        ("leastgate_shadow_mismatches_total{api=\"trial\",would=\"deny\"}", 1.0),
        ("leastgate_upstream_requests_total{class=\"2xx\",upstream=\"orders\"}", 1.0),
        ("leastgate_upstream_requests_total{class=\"error\",upstream=\"trial\"}", 1.0),
        ("leastgate_upstream_request_duration_seconds_count{upstream=\"orders\"}", 1.0),
        ("leastgate_upstream_connect_errors_total{error=\"refused\",upstream=\"trial\"}", 1.0),
        ("leastgate_upstream_connect_errors_total{error=\"saturated\",upstream=\"trial\"}", 1.0),
        ("leastgate_policy_info{policy_rev=\"rev-1\"}", 1.0),
    ] {
        assert_eq!(metric(&telemetry, series), value, "{series}");
    }
}

#[test]
fn one_decision_in_64_is_measured() {
    let world = World::new();
    let (telemetry, _) = telemetry(|_| {});
    let worker = telemetry.worker();
    for _ in 0..129 {
        world.record(&worker, "GET", "/v1/orders", Some(&world.reader)).finish();
    }
    assert_eq!(metric(&telemetry, "leastgate_decision_duration_seconds_count"), 3.0);
}

#[test]
fn routes_beyond_the_limit_and_of_old_policies_have_no_label() {
    let mut world = World::new();
    let (telemetry, _) = telemetry(|config| config.max_routes = 2);
    telemetry.policy_loaded(&world.snapshot);
    let worker = telemetry.worker();
    let health = |world: &World| world.record(&worker, "GET", "/v1/healthz", None).finish();
    health(&world);
    let labels = route_labels(&telemetry);
    assert!(labels.len() <= 4 && labels.contains("_other"), "{labels:?}");
    let mut smaller = spec();
    smaller.apis.truncate(1);
    smaller.scopes.clear();
    smaller.roles.clear();
    let next = compile(&smaller, "rev-2");
    telemetry.policy_loaded(&next);
    world.snapshot = world.authority.replace(next);
    health(&world);
    health(&world);
    assert_eq!(
        metric(&telemetry, "leastgate_http_requests_total{code=\"_none\",method=\"GET\",route=\"/v1/healthz\"}"),
        2.0
    );
    world.record(&worker, "GET", "/v1/healthz", None).response(200, Origin::Upstream);
    assert_eq!(
        metric(&telemetry, "leastgate_http_requests_total{code=\"200\",method=\"GET\",route=\"/v1/healthz\"}"),
        1.0
    );
    assert_eq!(metric(&telemetry, "leastgate_policy_info{policy_rev=\"rev-1\"}"), 0.0);
    assert_eq!(metric(&telemetry, "leastgate_policy_info{policy_rev=\"rev-2\"}"), 1.0);
    let labels = route_labels(&telemetry);
    assert!(labels.contains("/v1/healthz"), "{labels:?}");
    assert!(labels.iter().all(|label| ["/v1/healthz", "_none", "_other"].contains(&label.as_str())), "{labels:?}");
}

fn route_labels(telemetry: &leastgate_telemetry::Telemetry) -> HashSet<String> {
    let text = String::from_utf8(telemetry.render_metrics()).unwrap();
    let label = |line: &str| Some(line.split_once("route=\"")?.1.split_once('"')?.0.to_owned());
    text.lines().filter_map(label).collect()
}

#[test]
fn setters_show() {
    let (telemetry, _) = telemetry(|_| {});
    telemetry.reloaded(true);
    telemetry.reloaded(false);
    telemetry.set_tokens(TokenGauge::Active, 7);
    telemetry.set_next_expiry(Some(START.timestamp()));
    telemetry.set_unsynced_changes(2);
    telemetry.set_clock_ahead(Duration::from_millis(1500));
    telemetry.admin_request("token.create", 201);
    telemetry.limited(LimitKind::Source);
    telemetry.handshake_failed(HandshakeFailure::NoCertificate);
    telemetry.set_certificates([("old.pem", START.timestamp())].into_iter());
    telemetry.set_certificates([("tls.pem", START.timestamp())].into_iter());
    telemetry.tls_reloaded(true);
    telemetry.tls_reloaded(false);
    telemetry.admin_handshake_failed(HandshakeFailure::BadCertificate);
    telemetry.set_admin_certificates([("admin.pem", START.timestamp())].into_iter());
    telemetry.admin_tls_reloaded(true);
    let ends = |end| [("ca.pem", Some(START.timestamp())), ("gateway.pem", end)].into_iter();
    telemetry.set_upstream_certificates("up", ends(Some(START.timestamp())));
    telemetry.set_upstream_certificates("other", ends(None));
    telemetry.upstream_tls_reloaded("up", false);
    telemetry.set_upstream_certificates("up", ends(None));
    telemetry.revocation(Duration::from_micros(50));
    for (series, value) in [
        ("leastgate_config_reloads_total{result=\"failure\"}", 1.0),
        ("leastgate_config_last_reload_successful", 0.0),
        ("leastgate_tokens{state=\"active\"}", 7.0),
        ("leastgate_token_next_expiry_timestamp_seconds", 1_795_298_787.0),
        ("leastgate_store_unsynced_changes", 2.0),
        ("leastgate_clock_ahead_seconds", 1.5),
        ("leastgate_admin_requests_total{code=\"201\",operation=\"token.create\"}", 1.0),
        ("leastgate_limited_total{kind=\"source\"}", 1.0),
        ("leastgate_tls_handshake_failures_total{reason=\"no_certificate\"}", 1.0),
        ("leastgate_tls_handshake_failures_total{reason=\"timeout\"}", 0.0),
        ("leastgate_tls_certificate_expiry_timestamp_seconds{certificate=\"old.pem\"}", 0.0),
        ("leastgate_tls_certificate_expiry_timestamp_seconds{certificate=\"tls.pem\"}", 1_795_298_787.0),
        ("leastgate_tls_reloads_total{result=\"success\"}", 1.0),
        ("leastgate_tls_last_reload_successful", 0.0),
        ("leastgate_admin_tls_handshake_failures_total{reason=\"bad_certificate\"}", 1.0),
        ("leastgate_admin_tls_certificate_expiry_timestamp_seconds{certificate=\"admin.pem\"}", 1_795_298_787.0),
        ("leastgate_admin_tls_reloads_total{result=\"success\"}", 1.0),
        ("leastgate_admin_tls_last_reload_successful", 1.0),
        (
            "leastgate_upstream_tls_certificate_expiry_timestamp_seconds{certificate=\"ca.pem\",upstream=\"up\"}",
            1_795_298_787.0,
        ),
        (
            "leastgate_upstream_tls_certificate_expiry_timestamp_seconds{certificate=\"gateway.pem\",upstream=\"up\"}",
            0.0,
        ),
        ("leastgate_upstream_tls_reloads_total{result=\"failure\",upstream=\"up\"}", 1.0),
        ("leastgate_upstream_tls_last_reload_successful{upstream=\"up\"}", 0.0),
        ("leastgate_upstream_tls_last_reload_successful{upstream=\"other\"}", 1.0),
        ("leastgate_revocation_duration_seconds_count", 1.0),
    ] {
        assert_eq!(metric(&telemetry, series), value, "{series}");
    }
}

#[test]
fn an_endpoint_is_counted_as_long_as_a_worker_has_it() {
    let (telemetry, _) = telemetry(|_| {});
    let workers = [telemetry.worker(), telemetry.worker()];
    let address = "10.0.0.7:8443".parse().unwrap();
    let [first, second] = [&workers[0], &workers[1]].map(|worker| worker.endpoint("up", address, true));
    let unchecked = workers[0].endpoint("other", address, false);
    first.ejected(EjectionCause::Check);
    first.ejected(EjectionCause::Check);
    second.ejected(EjectionCause::Broken);
    second.restored();
    first.checked(CheckResult::Fail);
    unchecked.checked(CheckResult::Fail);
    let series = |family: &str, label: &str| {
        let mut labels = ["endpoint=\"10.0.0.7:8443\"", label, "upstream=\"up\""];
        labels.sort_unstable();
        let labels = labels.join(",");
        metric(&telemetry, &format!("leastgate_upstream_endpoint_{family}{{{labels}}}"))
    };
    let states = || [series("workers", "state=\"in\""), series("workers", "state=\"ejected\"")];
    assert_eq!(states(), [1.0, 1.0]);
    assert_eq!(series("ejections_total", "cause=\"check\""), 2.0);
    assert_eq!(series("ejections_total", "cause=\"broken\""), 1.0);
    assert_eq!(series("checks_total", "result=\"fail\""), 1.0);
    let text = || String::from_utf8(telemetry.render_metrics()).unwrap();
    assert!(text().contains("_checks_total{endpoint=\"10.0.0.7:8443\",result=\"pass\",upstream=\"up\"} 0\n"));
    assert!(!text().contains("_checks_total{endpoint=\"10.0.0.7:8443\",result=\"pass\",upstream=\"other\"}"));
    drop(first);
    assert_eq!(states(), [1.0, 0.0]);
    let again = workers[0].endpoint("up", address, true);
    drop((second, again, unchecked));
    assert!(!text().contains("10.0.0.7"), "{}", text());
}

#[test]
fn every_family_has_help_type_and_a_grammatical_name() {
    let (telemetry, _) = telemetry(|_| {});
    let text = String::from_utf8(telemetry.render_metrics()).unwrap();
    let mut typed = HashSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(typed.insert(name), "{name} twice");
            assert!(text.contains(&format!("# HELP {name} ")));
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let name = series.split('{').next().unwrap();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            value.parse::<f64>().unwrap();
        }
    }
}
