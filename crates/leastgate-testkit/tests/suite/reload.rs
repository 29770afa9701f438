//! Hot reload: whole or not at all, by poll and by SIGHUP, and never an answer that fits neither policy (P29).

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::request;
use leastgate_testkit::policies::{ORDERS, reordered};
use leastgate_testkit::recorder::{Answer, Step};
use rustix::process::Signal;

use crate::fixtures::Orders;

/// The orders policy where the reader may also read `/v1/fresh`.
fn widened() -> String {
    ORDERS.replace("      - GET /v1/a.b\n", "      - GET /v1/a.b\n      - GET /v1/fresh\n")
}

/// The orders policy where the reader may read nothing but one path.
fn narrowed() -> String {
    ORDERS.replace("      - GET /v1/orders\n      - GET /v1/orders/{order_id:hex}\n", "")
}

#[test]
fn a_changed_file_is_in_force_soon_and_one_that_is_broken_never() {
    let orders = Orders::start();
    let fresh = || orders.gateway.get(orders.reader(), "/v1/fresh").status;
    let reloads = || orders.gateway.metrics().sum("leastgate_config_reloads_total", &["result=\"success\""]);
    assert_eq!(fresh(), 403);
    let before = reloads();
    orders.gateway.replace_policy(&widened());
    until_true("the wider policy", Duration::from_secs(5), || fresh() == 200);
    assert_eq!(reloads() - before, 1.0);

    let broken = widened().replace("GET /v1/fresh", "GET /v1/fr*sh");
    orders.gateway.replace_policy(&broken);
    until_true("the failed reload", Duration::from_secs(5), || {
        orders.gateway.metrics().sum("leastgate_config_last_reload_successful", &[]) == 0.0
    });
    assert_eq!(fresh(), 200, "a broken file keeps the old policy");
    let line = broken.lines().position(|line| line.contains("fr*sh")).unwrap() + 1;
    let place = format!("policy.yaml:{line}");
    let stderr = || orders.gateway.stderr();
    until_true("the log line", PATIENCE, || stderr().lines().any(|text| text.contains(&place)));
    assert_eq!(
        stderr().lines().filter(|text| text.contains(&place)).count(),
        1,
        "one line with the place:\n{}",
        stderr()
    );

    orders.gateway.replace_policy(ORDERS);
    until_true("the first policy again", Duration::from_secs(5), || fresh() == 403);
    assert_eq!(orders.gateway.metrics().sum("leastgate_config_last_reload_successful", &[]), 1.0);
}

#[test]
fn sighup_reloads_at_once() {
    let mut orders = Orders::start();
    orders.gateway.replace_policy(&widened());
    orders.gateway.process().signal(Signal::HUP);
    until_true("the wider policy", Duration::from_secs(5), || {
        orders.gateway.get(orders.reader(), "/v1/fresh").status == 200
    });
    assert!(orders.gateway.process().is_running());
}

#[test]
fn a_token_taken_out_of_the_file_is_refused() {
    let orders = Orders::start();
    assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
    let path = orders.gateway.path().join("policy.yaml");
    let text = fs::read_to_string(&path).unwrap();
    let without: String = text.split_inclusive('\n').filter(|line| !line.contains(&orders.reader().accessor)).collect();
    fs::write(&path, without).unwrap();
    until_true("the refusal", Duration::from_secs(5), || {
        orders.gateway.get(orders.reader(), "/v1/orders").status == 401
    });
    assert_eq!(orders.gateway.get(orders.token("WRITER"), "/v1/orders").status, 200);
}

/// What a policy answers to the reader: its own path, the other's, one that both allow, one that both refuse.
const PROBES: &[&str] = &["/v1/orders", "/v1/fresh", "/v1/a.b", "/v1/never"];

#[test]
fn under_load_no_answer_fits_neither_of_two_policies() {
    let orders = Orders::start();
    // The same scopes in another order, and one path moved: bits that outlived a snapshot would show.
    let (one, other) = (ORDERS.to_owned(), reordered(&widened().replace("      - GET /v1/orders\n", "")));
    let stop = AtomicBool::new(false);
    let flips = AtomicU64::new(0);
    let seen: Vec<Vec<(usize, u16)>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| ask_until(&orders, &stop))).collect();
        flip(&orders, &[&other, &one], &flips);
        stop.store(true, Ordering::SeqCst);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    });
    let mut both = [false; 2];
    for (probe, status) in seen.into_iter().flatten() {
        match (PROBES[probe], status) {
            ("/v1/orders" | "/v1/fresh", 200) => both[0] = true,
            ("/v1/orders" | "/v1/fresh", 403) => both[1] = true,
            ("/v1/a.b", 200) | ("/v1/never", 403) => {}
            (path, status) => panic!("{path} got {status}, which fits neither policy"),
        }
    }
    assert_eq!((flips.into_inner(), both), (6, [true, true]));
    // Each recorded decision fits the revision it names: under one revision a path has one answer.
    let mut answers = std::collections::HashMap::new();
    for event in orders.gateway.decisions() {
        let key = (event["gateway"]["policy_rev"].to_string(), event["request"]["path"].to_string());
        let reason = event["decision"]["reason"].to_string();
        let before = answers.entry(key.clone()).or_insert_with(|| reason.clone());
        assert_eq!(*before, reason, "{key:?}");
    }
}

fn ask_until(orders: &Orders, stop: &AtomicBool) -> Vec<(usize, u16)> {
    let mut client = orders.gateway.client();
    let mut seen = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        for (number, path) in PROBES.iter().enumerate() {
            client.send(request("GET", path, Some(orders.reader())));
            let reply = client.read().unwrap();
            seen.push((number, reply.status));
            if reply.closes {
                client = orders.gateway.client();
            }
        }
    }
    seen
}

fn flip(orders: &Orders, policies: &[&String], flips: &AtomicU64) {
    for round in 0..6 {
        let reloads = || orders.gateway.metrics().sum("leastgate_config_reloads_total", &["result=\"success\""]);
        let before = reloads();
        orders.gateway.replace_policy(policies[round % 2]);
        until_true("the reload", PATIENCE, || reloads() > before);
        flips.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_long_request_is_cut_when_its_policy_no_longer_allows_it() {
    let orders = Orders::start();
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nbegins";
    orders.upstream.on("/v1/orders", Answer::steps([Step::send(head), Step::Hold]));
    orders.upstream.on("/v1/a.b", Answer::steps([Step::send(head), Step::Hold]));
    let begin = |path: &str| {
        let mut client = orders.gateway.client();
        client.send(request("GET", path, Some(orders.reader())));
        assert_eq!(client.read_head(PATIENCE).unwrap().1, 200);
        client
    };
    let (mut cut, mut kept) = (begin("/v1/orders"), begin("/v1/a.b"));
    orders.gateway.replace_policy(&narrowed());
    let start = Instant::now();
    // The end of the stream or a reset: either way it ends long before the patience does.
    let _ = cut.read_rest(PATIENCE);
    assert!(start.elapsed() < Duration::from_secs(5), "cut after {:?}", start.elapsed());
    let still = kept.read_rest(Duration::from_millis(500));
    assert!(
        still.is_err_and(|error| matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)),
        "what is still allowed goes on"
    );
    until_true("the metric", PATIENCE, || orders.gateway.metrics().sum("leastgate_streams_cut_total", &[]) == 1.0);
}

#[test]
fn a_long_request_is_cut_when_its_token_expires() {
    let token = leastgate_testkit::token::Token::new("brief", &["reader"]).expiring_in(3);
    let orders = Orders::start_with(|setup| setup.token(&token));
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nbegins";
    orders.upstream.on("/v1/orders", Answer::steps([Step::send(head), Step::Hold]));
    let mut client = orders.gateway.client();
    client.send(request("GET", "/v1/orders", Some(&token)));
    assert_eq!(client.read_head(PATIENCE).unwrap().1, 200);
    let start = Instant::now();
    let _ = client.read_rest(PATIENCE);
    assert!(start.elapsed() < Duration::from_secs(8), "not cut after {:?}", start.elapsed());
    let mut again = orders.gateway.client();
    again.send(request("GET", "/v1/orders", Some(&token)));
    let reply = again.read();
    assert!(matches!(&reply, Ok(reply) if reply.status == 401), "{reply:?}");
}

/// Role names change meaning, and the tokens' roles with them: low access stays low in either file.
const ROLES: [&str; 2] = ["  x: { scopes: [low] }\n", "  x: { scopes: [boss] }\n  y: { scopes: [low] }\n"];

#[test]
fn a_policy_and_the_tokens_it_declares_come_into_force_together() {
    let policy = format!(
        "version: 1\nenvironments: [test]\napis:\n  orders: {{ base: /, upstream: orders }}\nscopes:\n  \
         low: {{ api: orders, allow: [GET /low] }}\n  boss: {{ api: orders, allow: [GET /boss] }}\nroles:\n{}",
        ROLES[0]
    );
    let upstream = leastgate_testkit::recorder::RecorderUpstream::start();
    let bot = leastgate_testkit::token::Token::new("bot", &["x"]);
    // A long table takes a while to build: the window in which a mix would show.
    let others: Vec<_> =
        (0..1500).map(|number| leastgate_testkit::token::Token::new(&format!("other-{number}"), &["x"])).collect();
    let setup = leastgate_testkit::gateway::Setup::new(&policy).tokens(&others).token(&bot);
    let gateway = setup.upstream("orders", &upstream.url()).start();
    let path = gateway.path().join("policy.yaml");
    let first = fs::read_to_string(&path).unwrap();
    let second = first.replace(ROLES[0], ROLES[1]).replace("roles: [x]", "roles: [y]");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let asking = ["/low", "/boss"].map(|target| {
            let (gateway, bot, stop) = (&gateway, &bot, &stop);
            scope.spawn(move || {
                let mut seen = std::collections::BTreeSet::new();
                while !stop.load(Ordering::SeqCst) {
                    seen.insert(gateway.get(bot, target).status);
                }
                seen
            })
        });
        for text in [&second, &first, &second, &first] {
            let reloads = || gateway.metrics().sum("leastgate_config_reloads_total", &["result=\"success\""]);
            let before = reloads();
            fs::write(path.with_extension("new"), text)
                .and_then(|()| fs::rename(path.with_extension("new"), &path))
                .unwrap();
            until_true("the reload", PATIENCE, || reloads() > before);
        }
        stop.store(true, Ordering::SeqCst);
        let [low, boss] = asking.map(|thread| thread.join().unwrap().into_iter().collect::<Vec<_>>());
        assert_eq!((low, boss), (vec![200], vec![403]), "what neither policy answers");
    });
}
