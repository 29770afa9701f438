//! Browsers on other origins: preflights, and refusals that a script may read.

use crate::harness::{Harness, OK, POLICY, Reply, Upstream, harness, start_with};

const CORS: &str = "cors: { origins: [ \"https://app.test\", \"https://b.test\" ], headers: [ authorization, x-ticket ], credentials: true, max_age: 10m }";

fn harness_with_cors(cors: &str) -> Harness {
    let upstream = Upstream::start(|upstream| upstream.answer_all(OK));
    start_with(upstream, |_| {}, Some(&POLICY.replace("    public:", &format!("    {cors}\n    public:"))))
}

fn preflight(path: &str, origin: &str, more: &str) -> String {
    format!(
        "OPTIONS {path} HTTP/1.1\r\nHost: orders.internal\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization\r\n{more}\r\n"
    )
}

/// The head without what differs from one answer to the next anyway.
fn comparable(reply: &Reply) -> Vec<String> {
    let differs = |line: &&str| line.starts_with("x-request-id") || line.starts_with("date");
    reply.head.lines().filter(|line| !differs(line)).map(str::to_owned).collect()
}

#[test]
fn a_preflight_is_answered_by_the_gateway_and_recorded_as_one() {
    let harness = harness_with_cors(CORS);
    let mut client = harness.connect();
    client.send(preflight("/v1/a", "https://app.test", ""));
    let reply = client.reply();
    assert_eq!(reply.status, 204, "{}", reply.head);
    for field in [
        "access-control-allow-origin: https://app.test",
        "access-control-allow-methods: GET, POST, PUT",
        "access-control-allow-headers: authorization, x-ticket",
        "access-control-allow-credentials: true",
        "access-control-max-age: 600",
        "vary: origin, access-control-request-method, access-control-request-headers",
        "x-request-id: ",
    ] {
        assert!(reply.has(field), "{field} in {}", reply.head);
    }
    assert!(!reply.has("content-length") && !reply.has("connection: close"), "{}", reply.head);
    client.send(harness.head("GET /v1/a", ""));
    assert_eq!(client.reply().status, 200, "the connection goes on");
    assert!(!harness.upstream.all().contains("OPTIONS"));
    let event = harness.events(2).remove(0);
    assert!(event.contains("\"reason\":\"preflight\"") && event.contains("\"status\":204"), "{event}");
    assert_eq!(harness.metric("leastgate_decisions_total{effect=\"allow\",mode=\"enforce\",reason=\"preflight\"}"), 1);
}

#[test]
fn the_answer_is_the_same_for_every_caller_and_path() {
    let harness = harness_with_cors(CORS);
    let token = format!("Authorization: Bearer {}\r\n", harness.token);
    let first = comparable(&harness.ask(preflight("/v1/a", "https://app.test", "")));
    for (path, more) in [
        ("/v1/a", token.as_str()),
        ("/v1/a", "Authorization: Bearer nonsense\r\n"),
        ("/nowhere/at/all", ""),
        ("/healthz", &token),
        ("/v1/a", "Content-Length: 5\r\n\r\nhello"),
    ] {
        assert_eq!(comparable(&harness.ask(preflight(path, "https://app.test", more))), first, "{path} {more}");
    }
}

#[test]
fn an_origin_that_is_not_listed_is_told_nothing() {
    let harness = harness_with_cors(CORS);
    for origin in
        ["https://evil.test", "https://app.test.evil.test", "HTTPS://app.test", "null", "https://app.test:443"]
    {
        let reply = harness.ask(preflight("/v1/a", origin, ""));
        assert_eq!(reply.status, 204);
        assert!(!reply.has("access-control-") && reply.has("vary: origin"), "{origin}: {}", reply.head);
    }
    let twice = harness.ask(preflight("/v1/a", "https://app.test", "Origin: https://app.test\r\n"));
    assert!(!twice.has("access-control-"), "{}", twice.head);
}

#[test]
fn any_origin_is_a_star_and_what_is_not_configured_is_not_said() {
    let harness = harness_with_cors("cors: { origins: [ \"*\" ] }");
    let reply = harness.ask(preflight("/v1/a", "https://anyone.test", ""));
    assert!(reply.has("access-control-allow-origin: *"), "{}", reply.head);
    for field in ["access-control-allow-headers", "access-control-allow-credentials", "access-control-max-age"] {
        assert!(!reply.has(field), "{field} in {}", reply.head);
    }
}

#[test]
fn a_script_on_a_listed_origin_may_read_why_it_was_refused() {
    let harness = harness_with_cors(CORS);
    let refused = |origin: &str| {
        let reply = harness.ask(format!("GET /v1/a HTTP/1.1\r\nHost: orders.internal\r\nOrigin: {origin}\r\n\r\n"));
        assert_eq!(reply.status, 401);
        reply
    };
    let listed = refused("https://b.test");
    assert!(listed.has("access-control-allow-origin: https://b.test"), "{}", listed.head);
    assert!(listed.has("access-control-allow-credentials: true") && listed.has("vary: origin"));
    assert!(!listed.has("access-control-expose-headers"));
    let other = refused("https://evil.test");
    assert!(!other.has("access-control-") && other.has("vary: origin"), "{}", other.head);
}

#[test]
fn what_the_upstream_says_to_other_origins_is_its_own_business() {
    let harness = harness_with_cors(CORS);
    let reply = harness.ask(harness.head("GET /v1/a", "Origin: https://app.test\r\n"));
    assert_eq!(reply.status, 200);
    assert!(!reply.has("access-control-") && !reply.has("vary"), "{}", reply.head);
}

#[test]
fn without_a_cors_block_a_preflight_is_a_request_like_others() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    let reply = harness.ask(preflight("/v1/a", "https://app.test", ""));
    assert_eq!(reply.status, 401);
    assert!(!reply.has("access-control-") && !reply.has("vary"), "{}", reply.head);
}
