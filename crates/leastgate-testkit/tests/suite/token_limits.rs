//! Limits of a token from the command line to the wire, with the real program and the real curl.

use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::curl::curl;
use leastgate_testkit::deadline::until_true;
use leastgate_testkit::gateway::Setup;
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::raw::{Reply, exchange};
use leastgate_testkit::recorder::RecorderUpstream;
use serde_json::{Value, json};

use crate::stored::{Stored, stored_setup};

const LIMITS: &[&str] = &["--role", "reader", "--rate", "10/s", "--burst", "5"];

fn statuses(asked: impl IntoIterator<Item = Reply>) -> (usize, usize) {
    let (mut passed, mut limited) = (0, 0);
    for reply in asked {
        match reply.status {
            200 => passed += 1,
            429 => limited += 1,
            other => panic!("{other}: {}", reply.text()),
        }
    }
    (passed, limited)
}

#[test]
fn over_any_time_there_pass_what_the_rate_allows_and_one_burst() {
    let stored = Stored::start();
    let secret = stored.create("limited", LIMITS);
    let free = stored.create("free", &["--role", "reader"]);
    let started = Instant::now();
    let (passed, limited) = statuses((0..300).map(|_| stored.ask(&secret, "/v1/orders")));
    // The gateway saw them within the time that is measured here.
    let most = 5.0 + 10.0 * started.elapsed().as_secs_f64();
    assert!(passed >= 5 && passed as f64 <= most, "{passed} passed, {limited} did not, in {:?}", started.elapsed());
    assert_eq!(stored.ask(&free, "/v1/orders").status, 200, "another token has nothing to do with it");
    assert_eq!(stored.upstream.requests().len(), passed + 1);
    let metrics = stored.gateway.metrics();
    assert_eq!(metrics.sum("leastgate_limited_total", &["token_rate"]), limited as f64);
    assert_eq!(metrics.sum("leastgate_decisions_total", &["token_rate_limited"]), limited as f64);
}

#[test]
fn curl_is_told_how_long_to_wait_and_waiting_so_long_is_enough() {
    let stored = Stored::start();
    let secret = stored.create("limited", &["--role", "reader", "--rate", "1"]);
    let (bearer, url) =
        (format!("Authorization: Bearer {secret}"), format!("http://{}/v1/orders", stored.gateway.data()));
    let ask = |protocol: &str| curl(&[protocol, "-H", "Host: orders.test", "-H", &bearer, &url]);
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let refused = loop {
            let got = ask(protocol);
            assert_eq!(got.field("ratelimit-policy"), Some("\"token-rate\";q=1;w=1"), "{}", got.head);
            if got.status == 429 {
                break got;
            }
            assert_eq!(got.status, 200, "{}", got.body);
        };
        let problem: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!(problem["type"], "urn:leastgate:problem:rate-limited");
        assert_eq!(refused.field("ratelimit"), Some("\"token-rate\";r=0;t=1"));
        let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
        thread::sleep(Duration::from_secs(wait));
        assert_eq!(ask(protocol).status, 200);
    }
}

#[test]
fn limits_are_shown_kept_over_a_restart_and_not_filled_by_a_check() {
    let mut stored = Stored::start();
    let secret = stored.create("limited", &["--role", "reader", "--rate", "1", "--burst", "2", "--concurrent", "3"]);
    let shown = stored.cli(&["token", "show", "limited"]).stdout;
    assert!(shown.contains("1 a second, 2 at once, 3 under way"), "{shown}");
    let told: Value = serde_json::from_str(&stored.cli(&["token", "show", "limited", "-o", "json"]).stdout).unwrap();
    assert_eq!(told["limits"], json!({"rate": 1, "burst": 2, "concurrent": 3}));
    for _ in 0..5 {
        stored.cli(&["check", "limited", "GET", "http://orders.test/v1/orders"]);
    }
    assert_eq!(
        stored.ask(&secret, "/v1/orders").head.one("ratelimit"),
        Some("\"token-rate\";r=1;t=1, \"token-concurrent\";r=2")
    );
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    let started = Instant::now();
    let (passed, limited) = statuses((0..50).map(|_| stored.ask(&secret, "/v1/orders")));
    assert!(passed as f64 <= 2.0 + started.elapsed().as_secs_f64() && limited > 0, "{passed} and {limited}");
}

/// Secrets of a token, of its successor, and of what stands in for that.
fn family(stored: &Stored) -> [String; 3] {
    let first = stored.create("limited", &["--role", "reader", "--rate", "10", "--burst", "5"]);
    let root = stored.administrator("root", "admin");
    let made = |path: &str, body: Value| {
        let answer = stored.api("POST", &format!("/v1/tokens/limited/{path}"), Some(&root), Some(body)).json();
        answer["secret"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let successor = made("rotate", json!({"grace": "1h", "reason": "a test"}));
    [first, successor, made("children", json!({"ttl": "1h", "reason": "a test"}))]
}

#[test]
fn a_token_its_successor_and_what_stands_in_for_it_have_one_rate_together_over_a_restart_too() {
    let mut stored = Stored::start();
    let secrets = family(&stored);
    for round in ["made here", "loaded"] {
        let started = Instant::now();
        let asked = (0..90).flat_map(|_| &secrets).map(|secret| stored.ask(secret, "/v1/orders"));
        let (passed, limited) = statuses(asked);
        let most = 5.0 + 10.0 * started.elapsed().as_secs_f64();
        assert!(passed >= 5 && passed as f64 <= most, "{round}: {passed} passed, {limited} did not");
        assert_eq!(stored.gateway.stop().code, Some(0));
        stored.gateway.restart();
    }
}

/// Each by its own limits, the old one would use up in long intervals what its successor has.
#[test]
fn the_limits_of_a_successor_govern_its_predecessor_too_over_a_restart_as_well() {
    let mut stored = Stored::start();
    let old = stored.create("limited", &["--role", "reader", "--rate", "1"]);
    let root = stored.administrator("root", "admin");
    let rotated = json!({"grace": "1h", "reason": "a test"});
    let answer = stored.api("POST", "/v1/tokens/limited/rotate", Some(&root), Some(rotated)).json();
    let secrets = [old, answer["secret"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()];
    let body = json!({"limits": {"rate": 1000, "burst": 1000}, "reason": "a test"}).to_string();
    let admin = stored.gateway.addresses().admin;
    let head = format!("Host: {admin}\r\nAuthorization: Bearer {root}\r\nIf-Match: *\r\nConnection: close\r\n");
    let edit = format!(
        "PATCH /v1/tokens/limited HTTP/1.1\r\n{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(exchange(admin, edit).status, 200);
    let asked =
        |stored: &Stored| statuses((0..40).flat_map(|_| &secrets).map(|secret| stored.ask(secret, "/v1/orders")));
    assert_eq!(asked(&stored), (80, 0), "edited here");
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    assert_eq!(asked(&stored), (80, 0), "loaded");
    let change = |stored: &Stored, what: &str| {
        let path = format!("/v1/tokens/{}/{what}", answer["old"]["accessor"].as_str().unwrap());
        stored.api("POST", &path, Some(&root), Some(json!({"reason": "a test"}))).status
    };
    assert_eq!(change(&stored, "disable"), 200);
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    assert_eq!(change(&stored, "enable"), 200);
    assert_eq!(asked(&stored), (80, 0), "enabled after it was loaded");
    let less = json!({"limits": {"rate": 1, "burst": 1}, "reason": "a test"});
    let started = Instant::now();
    assert_eq!(stored.api("POST", "/v1/tokens/limited/restrict", Some(&root), Some(less)).status, 200);
    let (passed, limited) = asked(&stored);
    assert!(
        passed as f64 <= 1.0 + started.elapsed().as_secs_f64() && limited > 0,
        "{passed} passed, {limited} did not"
    );
}

#[test]
fn what_declare_prints_of_limits_is_obeyed_and_a_reload_fills_no_bucket() {
    let create = ["token", "create", "--declare", "-q", "--name", "fleet", "--owner", "t", "--ttl", "1h"];
    let limits = ["--role", "reader", "--rate", "1", "--burst", "20", "--concurrent", "7"];
    let ended = stored_setup().upstream("orders", "http://127.0.0.1:9").cli(&[&create[..], &limits[..]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let (secret, entry) = ended.stdout.split_once('\n').unwrap();
    assert!(entry.contains("limits: {") && entry.contains("\"concurrent\":7"), "{entry}");
    let policy = format!("{ORDERS}tokens:\n{entry}");
    let upstream = RecorderUpstream::start();
    let gateway = Setup::new(&policy).upstream("orders", &upstream.url()).start();
    let ask = || {
        gateway
            .exchange(format!("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {secret}\r\n\r\n"))
    };
    let reloads = || gateway.metrics().sum("leastgate_config_reloads_total", &["result=\"success\""]);
    let (before, started) = (reloads(), Instant::now());
    let (first, _) = statuses((0..30).map(|_| ask()));
    assert!(first >= 20, "{first}");
    gateway.replace_policy(&format!("{policy}# again\n"));
    until_true("the reload", Duration::from_secs(5), || reloads() > before);
    let (second, limited) = statuses((0..30).map(|_| ask()));
    let most = 20.0 + started.elapsed().as_secs_f64();
    assert!((first + second) as f64 <= most && limited > 0, "{first} and {second} passed in {:?}", started.elapsed());
}
