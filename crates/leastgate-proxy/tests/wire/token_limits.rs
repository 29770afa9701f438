//! A token's own limits on the wire: its rate, by a clock that stands still until it is told to move, and its requests under
//! way, however they end.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leastgate_policy::{TokenLimits, TokenState};
use leastgate_telemetry::{Clock, ManualClock, SystemClock};
use leastgate_testkit::http2::{RST_STREAM, frame};

use crate::harness::{Client, Connection, Harness, OK, Options, POLICY, Reply, Upstream, start_as};
use crate::{http2, websocket};

const GET: &str = "GET /v1/a";
const HELD: &str = "GET /v1/held";

fn rate(rate: u32, burst: u32) -> TokenLimits {
    TokenLimits { rate: Some(rate), burst: Some(burst), concurrent: None }
}

fn concurrent(most: u32) -> TokenLimits {
    TokenLimits { concurrent: Some(most), ..TokenLimits::default() }
}

/// A gateway whose token has these limits, and its clock.
fn limited(limits: TokenLimits, policy: &str, script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Limited {
    let clock = Arc::new(ManualClock::at(SystemClock::new().now()));
    let own: Arc<dyn Clock> = clock.clone();
    let options = Options {
        policy: Some(policy),
        clock: Some(own),
        upstream: "response_timeout: 1h",
        well_known: true,
        ..Options::default()
    };
    let harness = start_as(Upstream::start(script), |_| {}, &options);
    let limited = Limited { harness, clock };
    limited.set(limits);
    limited
}

struct Limited {
    harness: Harness,
    clock: Arc<ManualClock>,
}

impl Limited {
    fn set(&self, limits: TokenLimits) {
        self.harness.authority.upsert(leastgate_policy::TokenEntry { limits, ..self.harness.entry.clone() }).unwrap();
    }

    fn ask(&self, line: &str) -> Reply {
        self.harness.ask(self.harness.head(line, ""))
    }

    /// A response that has begun and does not end by itself.
    fn hold(&self) -> Client {
        let mut client = self.harness.connect();
        client.send(self.harness.head(HELD, ""));
        client.read_to("first\r\n");
        client
    }
}

/// Answers everything, but holds on to what is asked for below `/v1/held` until it is told to end one.
fn holding() -> (Sender<()>, impl Fn(&mut Connection) + Send + Sync + 'static) {
    let (end, ends) = channel();
    let ends = Mutex::new(ends);
    let script = move |upstream: &mut Connection| {
        while upstream.read_until("\r\n\r\n") {
            if !upstream.text().rsplit("GET ").next().is_some_and(|last| last.starts_with("/v1/held")) {
                upstream.write(OK);
                continue;
            }
            upstream.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            if ends.lock().unwrap().recv().is_err() {
                return;
            }
            upstream.write("0\r\n\r\n");
        }
    };
    (end, script)
}

fn answers(upstream: &mut Connection) {
    upstream.answer_all(OK);
}

#[track_caller]
fn assert_has(reply: &Reply, fields: &[&str]) {
    for field in fields {
        assert!(reply.has(field), "{field} in {}", reply.head);
    }
}

#[test]
fn a_burst_passes_then_the_rate_and_whoever_waits_as_told_passes() {
    let limited = limited(rate(2, 3), POLICY, answers);
    let mut client = limited.harness.connect();
    let mut ask = || {
        client.send(limited.harness.head(GET, ""));
        client.reply()
    };
    for left in [2, 1, 0] {
        let reply = ask();
        assert_eq!(reply.status, 200, "{}", reply.head);
        let left = format!("ratelimit: \"token-rate\";r={left};t=1");
        assert_has(&reply, &[&left, "ratelimit-policy: \"token-rate\";q=2;w=1"]);
    }
    let refused = ask();
    assert_eq!(refused.status, 429, "{}", refused.head);
    assert_has(
        &refused,
        &[
            "retry-after: 1",
            "ratelimit: \"token-rate\";r=0;t=1",
            "ratelimit-policy: \"token-rate\";q=2;w=1",
            "proxy-status: leastgate; error=http_request_denied",
            "cache-control: no-store",
        ],
    );
    for part in ["urn:leastgate:problem:rate-limited", "used up its rate, 2 requests a second"] {
        assert!(refused.body.contains(part), "{part} in {}", refused.body);
    }
    limited.clock.advance(Duration::from_millis(499));
    assert_eq!(ask().status, 429, "a refusal uses nothing, and half a second is half a second");
    limited.clock.advance(Duration::from_millis(501));
    assert_eq!([ask().status, ask().status, ask().status], [200, 200, 429], "two a second");
    limited.clock.advance(Duration::from_secs(3600));
    assert_eq!((0..6).filter(|_| ask().status == 200).count(), 3, "an hour of silence is one burst");
    assert_eq!(limited.harness.upstream.all().matches(GET).count(), 8);
}

#[test]
fn a_refusal_is_on_record_with_whose_it_was_and_counted() {
    let (_end, script) = holding();
    let limited = limited(TokenLimits { concurrent: Some(1), ..rate(1, 3) }, POLICY, script);
    let series = |kind: &str| limited.harness.metric(&format!("leastgate_limited_total{{kind=\"{kind}\"}}"));
    assert_eq!((series("token_rate"), series("token_concurrency")), (0, 0));
    let _held = limited.hold();
    assert_eq!([limited.ask(GET).status, limited.ask(GET).status, limited.ask(GET).status], [429; 3]);
    assert_eq!((series("token_rate"), series("token_concurrency")), (1, 2));
    let events = limited.harness.events(3);
    for (reason, count) in [("token_rate_limited", 1), ("token_concurrency_limited", 2)] {
        let about = |event: &&String| event.contains(reason) && event.contains("\"reader\"");
        assert_eq!(events.iter().filter(about).count(), count, "{reason} in {events:?}");
    }
}

#[test]
fn the_same_holds_over_http2() {
    let limited = limited(rate(1, 2), POLICY, answers);
    let mut client = http2::connect(&limited.harness, &[]);
    let mut ask = || {
        let stream = http2::request(&limited.harness, &mut client, "GET", "/v1/a");
        client.answer(stream)
    };
    let answers = [ask(), ask(), ask()];
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 200, 429]);
    let told = answers.each_ref().map(|answer| answer.field("ratelimit").unwrap_or_default());
    assert_eq!(told, ["\"token-rate\";r=1;t=1", "\"token-rate\";r=0;t=1", "\"token-rate\";r=0;t=1"]);
    assert_eq!(answers[2].field("retry-after"), Some("1"));
    assert_eq!(answers[2].field("ratelimit-policy"), Some("\"token-rate\";q=1;w=1"));
    assert!(answers[2].text().contains("urn:leastgate:problem:rate-limited"), "{}", answers[2].text());
    limited.clock.advance(Duration::from_secs(1));
    assert_eq!(ask().status, 200);
}

/// Who has to wait gets to keep the connection for when it has; who is refused for what it asks does not.
#[test]
fn being_over_a_limit_costs_no_http2_connection() {
    let (_end, script) = holding();
    let limited = limited(TokenLimits { concurrent: Some(1), ..rate(1, 25) }, POLICY, script);
    let held = limited.hold();
    let mut client = http2::connect(&limited.harness, &[]);
    let mut ask = |method: &str, path: &str| {
        let stream = http2::request(&limited.harness, &mut client, method, path);
        let status = client.answer(stream).status;
        (status, client.goaway)
    };
    for n in 0..50 {
        assert_eq!(ask("GET", "/v1/a"), (429, None), "at {n}");
    }
    drop(held);
    limited.harness.until_in_flight(0);
    limited.clock.advance(Duration::from_secs(15));
    assert_eq!(ask("GET", "/v1/a"), (200, None));
    for n in 0..14 {
        assert_eq!(ask("POST", "/refunds"), (403, None), "at {n}");
    }
    // Neither counted nor let through.
    assert_eq!(ask("POST", "/refunds"), (429, None));
    limited.clock.advance(Duration::from_secs(2));
    assert_eq!([ask("POST", "/refunds").0, ask("POST", "/refunds").0], [403; 2]);
    while client.goaway.is_none() {
        client.read().expect("the sixteenth in a row ends it, and that is said");
    }
}

#[test]
fn to_a_grpc_caller_a_limit_is_a_status_and_how_long_to_wait() {
    let limited = limited(rate(4, 1), POLICY, answers);
    assert_eq!(limited.ask(GET).status, 200);
    let call = "Content-Type: application/grpc\r\nContent-Length: 5\r\n";
    let refused = limited.harness.ask(limited.harness.head("POST /v1/a", call) + "\0\0\0\0\0");
    assert_eq!(refused.status, 200, "{}", refused.head);
    assert_has(
        &refused,
        &[
            "grpc-status: 8",
            "grpc-message: The token is over its limit. Nothing was forwarded",
            "grpc-retry-pushback-ms: 250",
            "retry-after: 1",
            "ratelimit: \"token-rate\";r=0;t=1",
        ],
    );
}

#[test]
fn what_an_upstream_says_of_limits_of_its_own_is_passed_on_before_ours() {
    let answer = OK.replace("\r\n\r\n", "\r\nRateLimit: \"daily\";r=9;t=5\r\nRateLimit: \"token-rate\";r=999\r\n\r\n");
    let limited = limited(rate(5, 5), POLICY, move |upstream| upstream.answer_all(&answer));
    let reply = limited.ask(GET);
    let told: Vec<&str> = reply.head.lines().filter(|line| line.starts_with("ratelimit: ")).collect();
    assert_eq!(told, ["ratelimit: \"daily\";r=9;t=5", "ratelimit: \"token-rate\";r=4;t=1"]);
    limited.set(TokenLimits::default());
    let reply = limited.ask(GET);
    assert!(reply.head.contains("\"token-rate\";r=999") && !reply.has("ratelimit-policy"), "{}", reply.head);
}

#[test]
fn a_limit_is_told_whatever_else_is_not() {
    for disclose in ["conceal", "none"] {
        let policy = POLICY.replace("    public:", &format!("    disclose: {disclose}\n    public:"));
        let limited = limited(rate(1, 1), &policy, answers);
        assert_eq!(limited.ask("GET /nowhere").status, if disclose == "conceal" { 404 } else { 403 });
        let refused = limited.ask("GET /nowhere");
        assert_eq!(refused.status, 429, "{disclose}");
        assert_has(&refused, &["retry-after: 1", "ratelimit: \"token-rate\";r=0;t=1"]);
        assert!(refused.body.contains("urn:leastgate:problem:rate-limited"), "{}", refused.body);
        assert_eq!(refused.body.contains("detail"), disclose == "conceal", "{}", refused.body);
    }
}

#[test]
fn public_rules_have_no_token_and_so_no_limit() {
    let limited = limited(rate(1, 1), POLICY, answers);
    let reply = || limited.ask("GET /healthz");
    assert!((0..5).all(|_| reply().status == 200));
    assert!(!reply().has("ratelimit"));
    assert_eq!(limited.ask(GET).status, 200);
}

#[test]
fn the_question_about_a_token_is_a_request_with_it() {
    let limited = limited(TokenLimits { concurrent: Some(1), ..rate(1, 2) }, POLICY, answers);
    let ask = || limited.ask("GET /.well-known/leastgate");
    let answers = [ask(), ask(), ask()];
    assert_eq!(answers.each_ref().map(|reply| reply.status), [200, 200, 429], "its rate counts, and it holds no place");
    for (reply, left) in answers.iter().zip([1, 0, 0]) {
        assert_has(reply, &["ratelimit-policy: \"token-rate\";q=1;w=1, \"token-concurrent\";q=1"]);
        assert_has(reply, &[&format!("ratelimit: \"token-rate\";r={left};t=1")]);
    }
    assert_eq!(limited.ask(GET).status, 429);
}

#[test]
fn one_more_than_may_be_under_way_is_refused_until_one_has_ended() {
    let (end, script) = holding();
    let limited = limited(concurrent(2), POLICY, script);
    let mut held = [limited.hold(), limited.hold()];
    let refused = limited.ask(GET);
    assert_eq!(refused.status, 429, "{}", refused.head);
    assert_has(
        &refused,
        &[
            "retry-after: 1",
            "ratelimit: \"token-concurrent\";r=0",
            "ratelimit-policy: \"token-concurrent\";q=2;qu=\"concurrent-requests\"",
        ],
    );
    assert!(refused.body.contains("the token has 2 requests under way"), "{}", refused.body);
    end.send(()).unwrap();
    limited.harness.until_in_flight(1);
    let reply = limited.ask(GET);
    assert_eq!(reply.status, 200, "{}", reply.head);
    assert_has(&reply, &["ratelimit: \"token-concurrent\";r=0"]);
    end.send(()).unwrap();
    held.each_mut().iter_mut().for_each(|client| client.read_to("0\r\n\r\n"));
    assert_has(&limited.ask(GET), &["ratelimit: \"token-concurrent\";r=1"]);
}

#[test]
fn requests_one_after_the_other_never_meet() {
    let limited = limited(concurrent(1), POLICY, answers);
    let mut client = limited.harness.connect();
    for _ in 0..100 {
        client.send(limited.harness.head(GET, ""));
        let reply = client.reply();
        assert_eq!(reply.status, 200, "{}", reply.head);
    }
    let mut client = http2::connect(&limited.harness, &[]);
    for _ in 0..100 {
        let stream = http2::request(&limited.harness, &mut client, "GET", "/v1/a");
        assert_eq!(client.answer(stream).status, 200);
    }
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let (_end, script) = holding();
    let limited = limited(concurrent(1), POLICY, script);
    drop(limited.hold());
    limited.harness.until_in_flight(0);
    let mut client = http2::connect(&limited.harness, &[]);
    let stream = http2::request(&limited.harness, &mut client, "GET", "/v1/held");
    while client.so_far(stream).is_none_or(|answer| answer.body.is_empty()) {
        client.read().expect("an answer that begins");
    }
    assert_eq!(limited.ask(GET).status, 429);
    client.send(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    limited.harness.until_in_flight(0);
    assert_eq!(limited.ask(GET).status, 200);
}

#[test]
fn one_that_still_waits_for_its_upstream_and_leaves_gives_its_place_back() {
    let limited = limited(concurrent(1), POLICY, Connection::wait_until_closed);
    let mut waiting = limited.harness.connect();
    waiting.send(limited.harness.head(GET, ""));
    limited.harness.upstream.wait_for("/v1/a");
    assert_eq!(limited.ask("GET /v1/b").status, 429);
    drop(waiting);
    limited.harness.until_in_flight(0);
    let mut next = limited.harness.connect();
    next.send(limited.harness.head("GET /v1/c", ""));
    limited.harness.upstream.wait_for("/v1/c");
}

#[test]
fn a_stream_that_is_cut_gives_its_place_back() {
    let (_end, script) = holding();
    let limited = limited(concurrent(1), POLICY, script);
    let mut held = limited.hold();
    limited.harness.authority.set_state(&limited.harness.digest, TokenState::Disabled);
    held.rest();
    limited.harness.until_in_flight(0);
    limited.harness.authority.set_state(&limited.harness.digest, TokenState::Active);
    assert_eq!(limited.ask(GET).status, 200);
}

#[test]
fn a_request_refused_behind_the_step_of_the_limits_holds_no_place() {
    let limited = limited(concurrent(1), POLICY, answers);
    for (line, fields, status) in
        [("POST /refunds", "Content-Length: 0\r\n", 403), ("POST /v1/a", "Content-Length: 99999999999\r\n", 413)]
    {
        assert_eq!(limited.harness.ask(limited.harness.head(line, fields)).status, status);
        assert_eq!(limited.ask(GET).status, 200, "after {line}");
    }
}

#[test]
fn an_upstream_that_fails_gives_the_place_back() {
    let limited = limited(concurrent(1), POLICY, |upstream| {
        upstream.read_until("\r\n\r\n");
    });
    for _ in 0..3 {
        assert_eq!(limited.ask(GET).status, 502);
        limited.harness.until_in_flight(0);
    }
}

#[test]
fn a_tunnel_counts_for_as_long_as_it_lives() {
    let limited = limited(concurrent(1), &websocket::policy(), websocket::echo);
    let mut tunnel = websocket::open(&limited.harness);
    websocket::assert_echoes(&mut tunnel);
    assert_eq!(limited.ask(GET).status, 429);
    let second = limited.harness.ask(websocket::handshake(&limited.harness, "/feed", ""));
    assert_eq!(second.status, 429, "{}", second.head);
    websocket::assert_echoes(&mut tunnel);
    drop(tunnel);
    limited.harness.until_in_flight(0);
    let mut again = limited.harness.connect();
    again.send(websocket::handshake(&limited.harness, "/feed", ""));
    let reply = again.reply();
    assert_eq!(reply.status, 101, "{}", reply.head);
    assert_has(&reply, &["ratelimit: \"token-concurrent\";r=0"]);
    limited.harness.authority.set_state(&limited.harness.digest, TokenState::Disabled);
    again.rest();
    limited.harness.until_in_flight(0);
    limited.harness.authority.set_state(&limited.harness.digest, TokenState::Active);
    websocket::assert_echoes(&mut websocket::open(&limited.harness));
}

#[test]
fn an_edit_of_the_token_forgets_no_request_under_way() {
    let (_end, script) = holding();
    let limited = limited(concurrent(1), POLICY, script);
    let _held = limited.hold();
    limited.set(concurrent(1));
    assert_eq!(limited.ask(GET).status, 429);
    limited.set(concurrent(2));
    assert_eq!(limited.ask(GET).status, 200);
}
