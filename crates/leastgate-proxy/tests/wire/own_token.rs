//! `/.well-known/leastgate`: a token's question about itself, which no api, rule or upstream has a part in.

use leastgate_policy::token::mint;
use leastgate_policy::{Accessor, Restrictions, TokenEntry, TokenKind, TokenState};
use leastgate_telemetry::{Clock as _, SystemClock};
use leastgate_testkit::clock::rfc3339;
use leastgate_testkit::http2::END_STREAM;
use serde_json::{Value, json};

use crate::harness::{Harness, OK, Options, POLICY, Reply, Upstream, start_as};
use crate::{http2, websocket};

const OWN: &str = "/.well-known/leastgate";

/// What is not for the gateway to answer reaches the upstream here.
fn policy() -> String {
    POLICY
        .replace("allow: [ \"GET /v1/**\" ]", "allow: [ \"GET /v1/**\", \"* /.well-known/**\", \"* /.Well-Known/**\" ]")
}

fn harness_as(policy: &str, well_known: bool) -> Harness {
    let upstream = Upstream::start(|upstream| upstream.answer_all(OK));
    start_as(
        upstream,
        |limits| limits.failures_per_source.burst = 5,
        &Options { policy: Some(policy), well_known, ..Options::default() },
    )
}

fn harness() -> Harness {
    harness_as(&policy(), true)
}

fn json(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{} {}", reply.head, reply.body);
    assert!(reply.has("content-type: application/json") && reply.has("cache-control: no-store"), "{}", reply.head);
    assert!(reply.has("x-request-id: "), "{}", reply.head);
    serde_json::from_str(&reply.body).unwrap()
}

fn ask(harness: &Harness, line: &str) -> Reply {
    harness.ask(harness.head(line, ""))
}

#[test]
fn a_caller_is_told_what_its_token_is_and_holds_and_nobody_else_hears_of_it() {
    let harness = harness();
    let now = SystemClock::new().timestamp();
    let entry = TokenEntry {
        roles: vec!["gone".into()],
        grants: vec![
            ("orders:write".into(), None),
            ("orders:read".into(), Some(now.plus(600))),
            ("orders:refund".into(), Some(now)),
            ("orders:unknown".into(), None),
        ],
        restrictions: Restrictions { source_ip: vec!["127.0.0.0/8".parse().unwrap()], not_before: Some(now) },
        expires: Some(now.plus(3_600)),
        state: TokenState::Rotating,
        ..harness.entry.clone()
    };
    harness.authority.upsert(entry).unwrap();
    let reply = ask(&harness, &format!("GET {OWN}"));
    let expected = json!({
        "accessor": harness.entry.accessor.to_string(),
        "name": "reader",
        "environment": "test",
        "roles": [ "gone" ],
        "scopes": [ "orders:read", "orders:write" ],
        "grants": [
            { "scope": "orders:write" },
            { "scope": "orders:read", "expires": rfc3339(now.0 + 600) },
            { "scope": "orders:unknown" },
        ],
        "state": "rotating",
        "not_before": rfc3339(now.0),
        "expires": rfc3339(now.0 + 3_600),
        "policy_revision": harness.authority.snapshot().unwrap().revision(),
    });
    assert_eq!(json(&reply), expected);
    assert!(reply.has(&format!("x-leastgate-token-expires: {}", rfc3339(now.0 + 3_600))), "{}", reply.head);
    assert!(!reply.body.contains(&harness.token) && !reply.body.contains("127."), "{}", reply.body);
    assert_eq!(harness.upstream.all(), "");
    let event = harness.events(1).remove(0);
    for part in
        ["\"reason\":\"own_token\"", "\"effect\":\"allow\"", "\"subject\":\"reader\"", OWN, "\"origin\":\"gateway\""]
    {
        assert!(event.contains(part), "{part} in {event}");
    }
    assert_eq!(harness.metric("leastgate_decisions_total{effect=\"allow\",mode=\"enforce\",reason=\"own_token\"}"), 1);
}

#[test]
fn without_an_end_none_is_told() {
    let harness = harness();
    let own = json(&ask(&harness, &format!("GET {OWN}")));
    assert!(own.get("expires").is_none() && own.get("not_before").is_none(), "{own}");
}

#[test]
fn it_is_the_same_under_any_host_and_whatever_else_the_request_says() {
    let policy = policy().replace("    public:", "    disclose: conceal\n    public:")
        + "\nboundaries:\n  - { deny: [ \"* /**\" ] }\n";
    let harness = harness_as(&policy, true);
    let first = json(&ask(&harness, &format!("GET {OWN}")));
    let head = |target: &str, host: &str, fields: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\n{fields}\r\n", harness.token)
    };
    for bytes in [
        head(OWN, "nobody.test", ""),
        head(OWN, "[::1]:8080", ""),
        head(&format!("http://orders.internal{OWN}"), "orders.internal", ""),
        head(&format!("{OWN}?a=1"), "orders.internal", ""),
        head(OWN, "orders.internal", "Content-Type: application/grpc\r\nTE: trailers\r\n"),
        head(OWN, "orders.internal", "Content-Length: 5\r\n") + "hello",
        head(OWN, "orders.internal", "X-HTTP-Method-Override: POST\r\nX-Leastgate-Subject: admin\r\n"),
        websocket::handshake(&harness, OWN, ""),
    ] {
        assert_eq!(json(&harness.ask(&bytes)), first, "{bytes}");
    }
    assert_eq!(ask(&harness, "GET /v1/a").status, 404, "a boundary forbids everything else");
    assert_eq!(harness.upstream.all(), "");
}

#[test]
fn of_a_head_request_there_is_no_body_and_the_connection_goes_on() {
    let harness = harness();
    let length = ask(&harness, &format!("GET {OWN}")).body.len();
    let mut client = harness.connect();
    client.send(harness.head(&format!("HEAD {OWN}"), ""));
    client.read_to(&format!("content-length: {length}\r\n"));
    client.read_to("\r\n\r\n");
    client.send(harness.head("GET /v1/a", ""));
    assert_eq!(client.reply().body, "ok");
}

#[test]
fn over_http2_it_is_the_same() {
    let harness = harness();
    let expected = ask(&harness, &format!("GET {OWN}")).body;
    let mut client = http2::connect(&harness, &[]);
    let [got, head] = ["GET", "HEAD"].map(|method| http2::request(&harness, &mut client, method, OWN));
    let without = client.open(&http2::head("GET", OWN, "Bearer nothing"), END_STREAM);
    let answer = client.answer(got);
    assert_eq!((answer.status, answer.text()), (200, expected.clone()));
    assert_eq!(answer.field("content-type"), Some("application/json"));
    let answer = client.answer(head);
    assert_eq!((answer.status, answer.text().as_str()), (200, ""));
    assert_eq!(answer.field("content-length"), Some(expected.len().to_string().as_str()));
    assert_eq!(client.answer(without).status, 401);
    http2::canary(&harness, &mut client);
}

#[test]
fn without_a_good_token_it_is_a_refusal_like_others() {
    let harness = harness();
    let get = |fields: &str| harness.ask(format!("GET {OWN} HTTP/1.1\r\nHost: nobody.test\r\n{fields}\r\n"));
    let missing = get("");
    assert_eq!(missing.status, 401);
    assert!(missing.has("www-authenticate: Bearer realm=\"test\"") && missing.body.contains("credential-required"));
    let stranger = mint(TokenKind::Token, "other", Accessor::from_random(7), &[8; 32]);
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let mut bodies = vec![get(&bearer(stranger.expose())), get(&bearer("nonsense"))];
    let put = |entry: TokenEntry| harness.authority.upsert(entry).unwrap();
    for state in [TokenState::Revoked, TokenState::Disabled] {
        put(TokenEntry { state, ..harness.entry.clone() });
        bodies.push(get(&bearer(&harness.token)));
    }
    let source_ip = vec!["10.0.0.0/8".parse().unwrap()];
    let restrictions = Restrictions { source_ip, ..Restrictions::default() };
    put(TokenEntry { restrictions, ..harness.entry.clone() });
    bodies.push(get(&bearer(&harness.token)));
    for refused in &bodies {
        assert_eq!(refused.status, 401, "{}", refused.body);
        assert!(refused.body.contains("invalid-token") && !refused.body.contains("orders"), "{}", refused.body);
    }
    assert_eq!(get(&bearer("nonsense")).status, 429, "failures of a source are limited here too");
    put(harness.entry.clone());
    let misplaced = harness.ask(harness.head(&format!("GET {OWN}?token={}", harness.token), ""));
    assert_eq!(misplaced.status, 400);
    assert!(misplaced.body.contains("invalid-credential-transport"), "{}", misplaced.body);
    assert_eq!(harness.ask(harness.head(&format!("GET {OWN}"), "X.Odd: 1\r\n")).status, 400);
    assert_eq!(harness.upstream.all(), "");
}

#[test]
fn another_spelling_or_method_is_a_path_like_any_other() {
    let harness = harness();
    for line in [
        "GET /.well-known/leastgate/",
        "GET /.well-known/least%67ate",
        "GET /%2Ewell-known/leastgate",
        "GET /.Well-Known/leastgate",
        "GET /.well-known/leastgate/x",
        "POST /.well-known/leastgate",
        "OPTIONS /.well-known/leastgate",
    ] {
        let reply = ask(&harness, line);
        assert_eq!((reply.status, reply.body.as_str()), (200, "ok"), "{line} {}", reply.body);
        assert!(harness.upstream.all().contains(&format!("{line} HTTP/1.1\r\n")), "{line}");
    }
    let seen = harness.upstream.all();
    for line in ["GET //.well-known/leastgate", "GET /.well-known/./leastgate", "GET /.well-known/leastgate;x"] {
        assert_eq!(ask(&harness, line).status, 400, "{line}");
    }
    assert_eq!(harness.upstream.all(), seen);
}

#[test]
fn where_it_was_not_asked_for_the_path_is_one_like_any_other() {
    let harness = harness_as(&policy(), false);
    let reply = ask(&harness, &format!("GET {OWN}"));
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
    harness.upstream.wait_for(&format!("GET {OWN} HTTP/1.1\r\n"));
    assert_eq!(harness.ask(format!("GET {OWN} HTTP/1.1\r\nHost: nobody.test\r\n\r\n")).status, 421);
    let harness = harness_as(POLICY, false);
    assert_eq!(ask(&harness, &format!("GET {OWN}")).status, 403);
}
