//! What an upstream receives of a request, and what a client receives of a response.

use crate::harness::{OK, POLICY, Reply, Upstream, harness, harness_with, put_policy_in_force, start_with};

#[test]
fn an_allowed_request_arrives_as_it_was_judged_and_the_connection_is_used_again() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    let mut client = harness.connect();
    for _ in 0..3 {
        client.send(harness.head(
            "GET http://orders.internal/v1/%7Ex?q=%2f&&a",
            "X-Mine: 1\r\nConnection: x-gone\r\nX-Gone: 1\r\nUpgrade: h2c\r\n",
        ));
        let reply = client.reply();
        assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
        assert!(reply.has("x-request-id") && reply.has("via: 1.1 leastgate"));
    }
    let received = harness.upstream.received();
    assert_eq!(received.len(), 1, "one connection served all three");
    let first = received[0].split_inclusive("\r\n\r\n").next().unwrap().to_ascii_lowercase();
    assert!(first.starts_with("get /v1/%7ex?q=%2f&&a http/1.1\r\n"), "{first}");
    assert_eq!(first.matches("\r\nhost: orders.internal\r\n").count(), 1);
    for kept in [
        "x-mine: 1",
        "x-leastgate-subject: reader",
        "x-leastgate-scopes: orders:read",
        "traceparent: 00-",
        "x-forwarded-for: 127.0.0.1",
        "via: 1.1 leastgate",
    ] {
        assert!(first.contains(&format!("\r\n{kept}")), "{kept} in {first}");
    }
    for gone in ["authorization", "connection", "x-gone", "upgrade", "lgt_"] {
        assert!(!first.contains(gone), "{gone} in {first}");
    }
}

#[test]
fn refusals_come_from_the_table_and_never_reach_the_upstream() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    let host = "Host: orders.internal\r\n";
    let ask = |bytes: String| harness.ask(bytes);
    let missing = ask(format!("GET /v1/a HTTP/1.1\r\n{host}\r\n"));
    assert_eq!(missing.status, 401);
    assert!(missing.has("www-authenticate: Bearer realm=\"test\"") && !missing.head.contains("error=\"invalid"));
    assert_eq!(ask(format!("GET /v1/a HTTP/1.1\r\n{host}Authorization: Bearer nonsense\r\n\r\n")).status, 401);
    let needs = ask(harness.head("POST /refunds", "Content-Length: 0\r\n"));
    assert_eq!(needs.status, 403);
    assert!(needs.body.contains("\"detail\":\"POST /refunds needs orders:refund.\""), "{}", needs.body);
    assert!(needs.body.contains("\"required_any_of\":[\"orders:refund\"]"));
    assert!(
        needs.has("www-authenticate: Bearer realm=\"test\", error=\"insufficient_scope\", scope=\"orders:refund\"")
    );
    assert_eq!(ask(harness.head("GET /v1/../x", "")).status, 400);
    assert_eq!(ask(harness.head("GET /v1/a", "X_Leastgate_Subject: admin\r\n")).status, 400);
    assert_eq!(ask(harness.head("TRACE /v1/a", "")).status, 501);
    assert_eq!(ask(harness.head("GET /v1/a", "Expect: later\r\n")).status, 417);
    assert_eq!(ask("GET / HTTP/1.1\r\nHost: elsewhere\r\n\r\n".into()).status, 421);
    let target = format!("GET /v1/{}", "a".repeat(9000));
    assert_eq!(ask(harness.head(&target, "")).status, 414);
    assert_eq!(ask(harness.head("GET /v1/a", &format!("X-Big: {}\r\n", "a".repeat(17_000)))).status, 431);
    assert_eq!(harness.upstream.all(), "");
    assert_eq!(ask(harness.head("GET /v1/a", "")).status, 200, "the canary passes");
    assert_eq!(harness.events(11).len(), 11);
}

#[test]
fn a_head_request_is_answered_without_a_body() {
    let harness = harness(|upstream| upstream.answer_all("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"));
    let mut client = harness.connect();
    client.send(harness.head("HEAD /v1/a", ""));
    client.send(harness.head("HEAD /nowhere", ""));
    client.send(harness.head("HEAD /v1/b", "Connection: close\r\n"));
    let all = client.rest();
    assert_eq!(all.matches("HTTP/1.1 ").count(), 3, "{all}");
    assert_eq!(all.matches("content-length: 5").count(), 2);
    assert!(!all.contains('{'));
    let events = harness.events(3);
    assert!(events.iter().all(|event| !event.contains("broken")), "{events:?}");
}

#[test]
fn the_length_in_an_answer_to_a_head_request_is_a_number_or_a_502() {
    for length in ["5x", "-1", "+5"] {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        let harness = harness(move |upstream| upstream.answer_all(&answer));
        let mut client = harness.connect();
        client.send(harness.head("HEAD /v1/a", "Connection: close\r\n"));
        let all = client.rest();
        let relayed = format!("content-length: {length}\r");
        assert!(all.starts_with("HTTP/1.1 502 ") && !all.contains(&relayed), "{length}: {all}");
    }
}

#[test]
fn a_public_rule_needs_no_token_and_never_forwards_one() {
    let harness = harness(|upstream| upstream.answer_all(OK));
    assert_eq!(harness.ask("GET /healthz HTTP/1.1\r\nHost: orders.internal\r\n\r\n").status, 200);
    assert_eq!(harness.ask(harness.head("GET /healthz", "")).status, 200);
    let received = harness.upstream.all().to_ascii_lowercase();
    assert!(!received.contains("authorization") && !received.contains("x-leastgate-subject"));
}

#[test]
fn a_source_with_too_many_bad_tokens_waits_and_a_valid_token_does_not() {
    let harness = harness_with(|upstream| upstream.answer_all(OK), |limits| limits.failures_per_source.burst = 3);
    let bad = "GET /v1/a HTTP/1.1\r\nHost: orders.internal\r\nAuthorization: Bearer x\r\n\r\n";
    let mut client = harness.connect();
    let mut statuses = Vec::new();
    for _ in 0..6 {
        client.send(bad);
        statuses.push(client.reply().status);
    }
    assert_eq!(statuses[..3], [401; 3]);
    assert!(statuses.contains(&429), "{statuses:?}");
    client.send(harness.head("GET /v1/a", ""));
    assert_eq!(client.reply().status, 200);
    client.send("GET /v1/a HTTP/1.1\r\nHost: orders.internal\r\n\r\n");
    assert_eq!(client.reply().status, 401);
}

#[test]
fn before_the_first_policy_nothing_passes() {
    let upstream = Upstream::start(|upstream| upstream.answer_all(OK));
    let harness = start_with(upstream, |_| {}, None);
    let mut client = harness.connect();
    client.send(harness.head("GET /healthz", ""));
    let reply = client.reply();
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("urn:leastgate:problem:authorization-unavailable") && reply.has("retry-after"));
    put_policy_in_force(&harness.authority, &harness.telemetry, POLICY);
    client.send(harness.head("GET /healthz", "X-Request-Id: mine-1\r\n"));
    let reply = client.reply();
    assert_eq!(reply.status, 200);
    assert!(reply.has("x-request-id: mine-1"));
}

#[test]
fn what_is_concealed_looks_the_same_whatever_the_reason() {
    let upstream = Upstream::start(|upstream| upstream.answer_all(OK));
    let policy = POLICY.replace("    public:", "    disclose: conceal\n    public:");
    let harness = start_with(upstream, |_| {}, Some(&policy));
    let without_ids = |reply: Reply| {
        let lines = reply.head.lines().filter(|line| !line.starts_with("x-request-id") && !line.starts_with("date"));
        (lines.map(str::to_owned).collect::<Vec<_>>(), reply.body)
    };
    let insufficient = without_ids(harness.ask(harness.head("POST /refunds", "Content-Length: 0\r\n")));
    let no_scope = without_ids(harness.ask(harness.head("GET /nothing", "")));
    assert_eq!(insufficient, no_scope);
    assert!(insufficient.0[0].starts_with("HTTP/1.1 404 "), "{insufficient:?}");
    assert_eq!(harness.ask("GET /nothing HTTP/1.1\r\nHost: orders.internal\r\n\r\n").status, 401);
}
