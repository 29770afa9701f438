//! `X-Leastgate-Token-Expires`: who is told that a token is in its last seven days, and who is not.

use h2::server::Builder;
use http::{HeaderName, HeaderValue, Response};
use leastgate_policy::{TokenEntry, TokenState};
use leastgate_telemetry::{Clock as _, SystemClock};
use leastgate_testkit::clock::rfc3339;
use leastgate_testkit::http2::END_STREAM;

use crate::harness::{Harness, POLICY, Reply, Upstream, start_with};
use crate::http2_peers::{Served, before, say_with_trailers};
use crate::upstream_http2::call;
use crate::{http2, websocket};

const FIELD: &str = "x-leastgate-token-expires";
const NAME: &str = "x-leastgate-token-expires: ";
const DAY: u64 = 86_400;

/// An upstream that speaks in the gateway's name.
const LYING: &str = "HTTP/1.1 200 OK\r\nX-Leastgate-Token-Expires: 2999-01-01T00:00:00Z\r\n\
    X_Leastgate_Token_Expires: 2999-01-01T00:00:00Z\r\ncontent-length: 2\r\n\r\nok";

fn lying(policy: &str) -> Harness {
    start_with(Upstream::start(|upstream| upstream.answer_all(LYING)), |_| {}, Some(policy))
}

fn with_disclose(disclose: &str) -> String {
    POLICY.replace("    public:", &format!("    disclose: {disclose}\n    public:"))
}

/// Lets the token end in so many days, and says when that is.
fn ends_in(harness: &Harness, days: u64) -> String {
    ends_in_as(harness, days, TokenState::Active)
}

fn ends_in_as(harness: &Harness, days: u64, state: TokenState) -> String {
    let end = SystemClock::new().timestamp().plus(days * DAY);
    harness.authority.upsert(TokenEntry { expires: Some(end), state, ..harness.entry.clone() }).unwrap();
    rfc3339(end.0)
}

/// What the head says of the token's end, which nobody but the gateway may say, in whatever spelling.
fn told(reply: &Reply) -> Option<&str> {
    let lines = reply.head.lines().filter(|line| line.to_ascii_lowercase().replace('_', "-").starts_with(NAME.trim()));
    let lines: Vec<&str> = lines.collect();
    assert!(lines.len() <= 1, "{}", reply.head);
    lines.first().map(|line| line.strip_prefix(NAME).unwrap())
}

fn ask(harness: &Harness, line: &str) -> Reply {
    harness.ask(harness.head(line, ""))
}

#[test]
fn in_its_last_days_a_token_is_told_its_end_and_an_upstream_has_no_say() {
    let harness = lying(POLICY);
    assert_eq!(told(&ask(&harness, "GET /v1/a")), None, "it has no end");
    ends_in(&harness, 8);
    assert_eq!(told(&ask(&harness, "GET /v1/a")), None, "it is far away");
    for state in [TokenState::Active, TokenState::Rotating] {
        let end = ends_in_as(&harness, 3, state);
        let reply = ask(&harness, "GET /v1/a");
        assert_eq!((reply.status, told(&reply)), (200, Some(end.as_str())), "{state:?}");
        let mut client = harness.connect();
        client.send(harness.head("HEAD /v1/a", ""));
        client.read_to(&format!("{NAME}{end}\r\n"));
    }
    assert_eq!(told(&ask(&harness, "GET /healthz")), None, "where nobody looks at the token");
}

#[test]
fn a_refusal_tells_a_token_that_was_good_and_no_other() {
    let harness = lying(POLICY);
    let end = ends_in(&harness, 1);
    let refused = ask(&harness, "DELETE /v1/a");
    assert_eq!((refused.status, told(&refused)), (403, Some(end.as_str())));
    let call = harness.ask(harness.head("POST /refunds", "Content-Type: application/grpc\r\nContent-Length: 0\r\n"));
    assert!(call.has("grpc-status: 7"), "{}", call.head);
    assert_eq!(told(&call), Some(end.as_str()));
    ends_in(&harness, 0);
    let refused = ask(&harness, "GET /v1/a");
    assert_eq!((refused.status, told(&refused)), (401, None), "{}", refused.body);
    assert!(refused.body.contains("expired_at"));
    // Nothing leads away from revoked.
    for state in [TokenState::Disabled, TokenState::Revoked] {
        ends_in_as(&harness, 1, state);
        let refused = ask(&harness, "GET /v1/a");
        assert_eq!((refused.status, told(&refused)), (401, None), "{state:?}");
    }
}

#[test]
fn what_an_upstream_fails_at_is_told_too() {
    let harness = start_with(Upstream::absent(), |_| {}, Some(POLICY));
    let end = ends_in(&harness, 1);
    let failed = ask(&harness, "GET /v1/a");
    assert_eq!((failed.status, told(&failed)), (503, Some(end.as_str())));
}

/// A public path under a boundary is refused without a look at the token, any other one behind it: the field would tell
/// the two apart.
#[test]
fn an_api_that_tells_the_refused_nothing_does_not_tell_this() {
    let boundary = "\nboundaries:\n  - { deny: [ \"* /healthz\" ] }\n";
    for disclose in ["none", "conceal"] {
        let harness = lying(&(with_disclose(disclose) + boundary));
        let end = ends_in(&harness, 1);
        for line in ["GET /healthz", "DELETE /v1/a", "GET /nowhere", "POST /refunds"] {
            let refused = ask(&harness, line);
            assert_eq!((refused.status >= 400, told(&refused)), (true, None), "{disclose} {line} {}", refused.head);
        }
        assert_eq!(told(&ask(&harness, "GET /v1/a")), Some(end.as_str()), "what is let through");
    }
}

#[test]
fn over_http2_it_is_the_same() {
    let harness = lying(POLICY);
    let end = ends_in(&harness, 2);
    let mut client = http2::connect(&harness, &[]);
    let allowed = http2::request(&harness, &mut client, "GET", "/v1/a");
    let refused = http2::request(&harness, &mut client, "DELETE", "/v1/a");
    let unknown = client.open(&http2::head("GET", "/v1/a", "Bearer nothing"), END_STREAM);
    for (stream, status, expected) in
        [(allowed, 200, Some(end.as_str())), (refused, 403, Some(end.as_str())), (unknown, 401, None)]
    {
        let answer = client.answer(stream);
        assert_eq!((answer.status, answer.field(FIELD)), (status, expected));
    }
}

#[test]
fn a_call_of_grpc_is_told_in_its_head_and_a_websocket_in_its_101() {
    let upstream = Served::start(Builder::new(), |_, respond| {
        Box::pin(async move {
            let lie = || HeaderValue::from_static("2999-01-01T00:00:00Z");
            let mut head = Response::new(());
            head.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            head.headers_mut().insert(FIELD, lie());
            let trailers = [(HeaderName::from_static(FIELD), lie())].into_iter().collect();
            say_with_trailers(respond, head, trailers).await;
        })
    });
    let harness = before(upstream.address, "");
    let end = ends_in(&harness, 2);
    let mut client = http2::connect(&harness, &[]);
    let answer = call(&mut client, "application/grpc", &format!("Bearer {}", harness.token));
    let values: Vec<_> = answer.fields.iter().filter(|(name, _)| name == FIELD).map(|(_, value)| value).collect();
    assert_eq!((values, &answer.trailers[..]), (vec![&end], &[][..]));

    let harness = websocket::harness(websocket::echo);
    let end = ends_in(&harness, 2);
    let mut client = harness.connect();
    client.send(websocket::handshake(&harness, "/feed", ""));
    let reply = client.reply();
    assert_eq!((reply.status, told(&reply)), (101, Some(end.as_str())));
}
