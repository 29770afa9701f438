//! The machine's clock is set back under a running gateway: what was over stays over.

use leastgate_testkit::clock;
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::Setup;
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::recorder::RecorderUpstream;
use leastgate_testkit::shifted_clock::ShiftedClock;
use serde_json::{Value, json};

use crate::stored::{Stored, stored_setup};

const REFUND: &str = "/v1/orders/7b/refunds?currency=eur";

/// A gateway whose wall clock is in the hands of the test, and the credential of an administrator.
struct Shifted {
    stored: Stored,
    clock: ShiftedClock,
    root: String,
}

impl Shifted {
    fn start() -> Self {
        Self::start_with(stored_setup())
    }

    fn start_with(setup: Setup) -> Self {
        let upstream = RecorderUpstream::start();
        let setup = setup.upstream("orders", &upstream.url());
        let clock = ShiftedClock::new(setup.path());
        let gateway = clock.variables().iter().fold(setup, |setup, (name, value)| setup.variable(name, value)).start();
        let stored = Stored { gateway, upstream };
        let root = stored.administrator("root-2", "admin");
        Self { stored, clock, root }
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let reply = self.stored.api("POST", path, Some(&self.root), Some(body));
        assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
        reply.json()
    }

    fn make(&self, name: &str, ttl: &str) -> String {
        let made = self.post("/v1/tokens", json!({ "name": name, "owner": "t", "roles": ["reader"], "ttl": ttl }));
        made["secret"].as_str().unwrap().to_owned()
    }

    fn status(&self, secret: &str) -> u16 {
        self.stored.ask(secret, "/v1/orders").status
    }

    fn refund(&self, secret: &str) -> u16 {
        let request = format!(
            "POST {REFUND} HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {secret}\r\nX-Change-Ticket: INC-1\r\nContent-Length: 0\r\n\r\n"
        );
        self.stored.gateway.exchange(request).status
    }
}

#[test]
fn what_has_ended_stays_ended_when_the_clock_is_set_back() {
    let started = clock::rfc3339(clock::now()).trim_end_matches('Z').to_owned();
    let shifted = Shifted::start();
    let [short, old, long] =
        [("short", "1h"), ("old", "2d"), ("long", "2d")].map(|(name, ttl)| shifted.make(name, ttl));
    shifted.post("/v1/tokens/old/rotate", json!({ "grace": "30m", "reason": "r" }));
    shifted.post("/v1/tokens/long/grants", json!({ "scope": "orders:refund", "ttl": "15m", "reason": "INC-1" }));
    let seen = || [shifted.status(&short), shifted.status(&old), shifted.refund(&long), shifted.status(&long)];
    assert_eq!(seen(), [200, 200, 200, 200]);

    shifted.clock.shift("+2h");
    let ended = [401, 401, 403, 200];
    assert_eq!(seen(), ended, "life, grace and grant are over");
    for by in ["+0", "-1d", "-10y"] {
        shifted.clock.shift(by);
        assert_eq!(seen(), ended, "with the clock at {by}");
    }
    let states = |wanted: &str| {
        let list = shifted.stored.api("GET", &format!("/v1/tokens?state={wanted}"), Some(&shifted.root), None).json();
        list["items"].as_array().unwrap().len()
    };
    assert_eq!((states("expired"), states("active")), (2, 2), "the API says the same");
    let events = shifted.stored.gateway.wait_decisions("each request", 20, |_| true);
    let is_past = |event: &Value| *event["time"].as_str().unwrap() < *started;
    assert!(!events.iter().any(is_past), "no event is dated to before the start: {events:?}");
}

#[test]
fn a_life_passes_although_the_clock_was_set_back() {
    let started = clock::rfc3339(clock::now()).trim_end_matches('Z').to_owned();
    let shifted = Shifted::start();
    let [before, long] = [("before", "3s"), ("long", "2d")].map(|(name, ttl)| shifted.make(name, ttl));
    shifted.clock.shift("-2h");
    let after = shifted.make("after", "2s");
    assert_eq!(shifted.status(&after), 200);
    for secret in [&before, &after] {
        until_true("the end of its life", PATIENCE, || shifted.status(secret) == 401);
    }
    assert_eq!(shifted.status(&long), 200);
    let events = shifted.stored.gateway.wait_decisions("each request", 4, |_| true);
    let is_past = |event: &Value| *event["time"].as_str().unwrap() < *started;
    assert!(!events.iter().any(is_past), "no event is dated to before the start: {events:?}");
}

/// As a machine has it whose clock is put right a moment after it was started.
#[test]
fn a_clock_that_was_wrong_for_a_moment_destroys_nothing() {
    let policy = ORDERS.replace("max_ttl: 90d", "max_ttl: 1000d, idle_disable: 30d");
    let setup = Setup::new(&policy).without_tokens().section("tokens", "{ source: store }");
    let mut shifted = Shifted::start_with(setup.section("retention", "1d"));
    let [mortal, long] = [("mortal", "30d"), ("long", "900d")].map(|(name, ttl)| shifted.make(name, ttl));
    let restart = |shifted: &mut Shifted, by: &str| {
        assert_eq!(shifted.stored.gateway.stop().code, Some(0));
        shifted.clock.shift(by);
        shifted.stored.gateway.restart();
    };
    restart(&mut shifted, "+730d");
    shifted.clock.shift("+0");
    until_true("both to be put off", 3 * PATIENCE, || {
        let said = shifted.stored.gateway.stderr();
        ["dead tokens are not purged", "idle tokens are not disabled"].iter().all(|line| said.contains(line))
    });
    let operations = |wanted: &str| {
        let events = shifted.stored.gateway.events();
        events.iter().filter(|event| event["change"]["operation"] == wanted).count()
    };
    until_true("it to be on record", PATIENCE, || operations("clock.ahead") == 1);
    assert_eq!(operations("token.disable"), 0);
    let ahead = shifted.stored.gateway.metrics().sum("leastgate_clock_ahead_seconds", &[]);
    assert!((729.0..731.0).contains(&(ahead / 86_400.0)), "{ahead}");
    assert_eq!([&mortal, &long].map(|secret| shifted.status(secret)), [401, 200], "until a restart");

    restart(&mut shifted, "+0");
    assert_eq!([&mortal, &long].map(|secret| shifted.status(secret)), [200, 200]);
}
