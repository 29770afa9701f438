//! Baits where no token belongs: whoever shows one anywhere in a head, at either plane, raises the alarm, and is answered as
//! if it were any other token.

use std::collections::BTreeMap;
use std::net::Shutdown;

use leastgate_testkit::deadline::{PATIENCE, until};
use leastgate_testkit::http2::{Client, END_STREAM};
use leastgate_testkit::raw::Reply;
use serde_json::{Value, json};

use crate::baits::{detail, told, uses};
use crate::stored::Stored;

/// A bait's name, the request line, the fields, and the reason of the request's own decision.
const PLACES: &[(&str, &str, &str, &str)] = &[
    ("query", "GET /v1/orders?access_token={t}", "", "credential_misplaced"),
    ("escaped-query", "GET /v1/orders?t={e}", "", "credential_misplaced"),
    ("path", "GET /v1/{t}", "", "credential_misplaced"),
    ("cookie", "GET /v1/orders", "Cookie: a=b; session={t}", "credential_misplaced"),
    ("other-header", "GET /v1/orders", "X-Api-Key: {t}", "credential_misplaced"),
    ("other-scheme", "GET /v1/orders", "Authorization: token {t}", "credential_misplaced"),
    ("two-fields", "GET /v1/orders", "Authorization: Bearer {g}\r\nAuthorization: Bearer {t}", "credential_misplaced"),
    (
        "two-the-same",
        "GET /v1/orders",
        "Authorization: Bearer {t}\r\nAuthorization: Bearer {t}",
        "credential_misplaced",
    ),
    ("list", "GET /v1/orders", "Authorization: Bearer {g}, Bearer {t}", "credential_misplaced"),
    ("beside-a-good-one", "GET /v1/orders?t={t}", "Authorization: Bearer {g}", "credential_misplaced"),
    ("public", "GET /healthz?t={t}", "", "credential_misplaced"),
    ("proxy", "GET /v1/orders", "Proxy-Authorization: Bearer {t}", "credential_misplaced"),
    (
        "subprotocol",
        "GET /v1/orders",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: bearer, {t}",
        "credential_misplaced",
    ),
    ("own-token", "GET /.well-known/leastgate?t={t}", "", "credential_misplaced"),
    ("two-spaces", "GET /v1/orders", "Authorization: Bearer  {t}", "credential_malformed"),
    ("a-letter-more", "GET /v1/orders", "Authorization: Bearer {t}x", "credential_malformed"),
    ("password", "GET /v1/orders", "Authorization: Basic {b}", "credential_missing"),
    ("public-password", "GET /healthz", "Authorization: Basic {b}", "public_rule"),
    ("no-such-host", "GET /v1/orders?t={t}", "Host: elsewhere.test", "host_unknown"),
    ("escaped-in-a-path", "GET /v1/%2e%2e/{e}", "", "path_ambiguous"),
    ("ambiguous-path", "GET /v1/%2e%2e/x?t={t}", "", "path_ambiguous"),
    ("odd-method", "TRACE /v1/orders", "Cookie: {t}", "method_unsupported"),
    ("framing", "GET /v1/orders", "Authorization: Bearer {t}\r\nConnection: authorization", "request_malformed"),
    ("framing-and-cookie", "GET /v1/orders", "Cookie: {t}\r\nTransfer-Encoding: gzip, chunked", "request_malformed"),
    ("expectation", "GET /v1/orders", "Authorization: Bearer {t}\r\nExpect: gold", "expectation_unsupported"),
    // Refused before there is a request.
    ("odd-line", "GET /v1/orders?t={t} {t}", "", "request_malformed"),
    ("odd-verb", "G@T /v1/orders", "Authorization: Bearer {t}", "request_malformed"),
    ("no-colon", "GET /v1/orders", "Authorization Bearer {t}", "request_malformed"),
    (
        "lengths",
        "GET /v1/orders",
        "Authorization: Bearer {t}\r\nContent-Length: 1\r\nContent-Length: 2",
        "request_malformed",
    ),
    ("odd-target", "GET /v1/<x>?t={t}", "", "request_malformed"),
];

fn start() -> Stored {
    Stored::start_with(|setup| setup.data_listener("address: \"127.0.0.1:0\", well_known: true"))
}

/// RFC 4648 §4.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(DIGITS[(bits & 63) as usize]);
    let mut encoded = String::new();
    for part in text.as_bytes().chunks(3) {
        let bits = part.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - part.len()));
        encoded.extend([18, 12, 6, 0].iter().take(part.len() + 1).map(|shift| digit(bits >> shift)));
        encoded.extend(std::iter::repeat_n('=', 3 - part.len()));
    }
    encoded
}

fn filled(text: &str, shown: &str, good: &str) -> String {
    let escaped = shown.replace('_', "%255F");
    let password = base64(&format!("x-token:{shown}"));
    text.replace("{t}", shown).replace("{e}", &escaped).replace("{b}", &password).replace("{g}", good)
}

fn request(line: &str, fields: &str) -> String {
    let host = if fields.contains("Host: ") { "" } else { "Host: orders.test\r\n" };
    let fields = if fields.is_empty() { String::new() } else { format!("{fields}\r\n") };
    format!("{line} HTTP/1.1\r\n{host}{fields}\r\n")
}

/// The reason of each use by the name of the bait, once there are so many.
fn reasons(stored: &Stored, count: usize) -> BTreeMap<String, String> {
    let wait = || Some(uses(stored)).filter(|uses| uses.len() >= count);
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until("the uses", PATIENCE, wait)));
    let uses = found.unwrap_or_else(|_| uses(stored));
    let reason = |event: &Value| {
        assert_eq!(event["change"]["result"], "critical", "{event}");
        (event["actor"]["subject"].as_str().unwrap().to_owned(), detail(event, "reason"))
    };
    let all: BTreeMap<_, _> = uses.iter().map(reason).collect();
    assert_eq!(all.len(), uses.len(), "one event for each: {uses:?}");
    all
}

fn assert_no_secret(stored: &Stored, secrets: &[String]) {
    for (file, bytes) in stored.gateway.written() {
        let text = String::from_utf8_lossy(&bytes);
        for secret in secrets {
            let part = secret.split('_').nth(3).unwrap();
            assert!(!text.contains(part), "a secret is in {file}");
        }
    }
}

#[test]
fn a_bait_raises_the_alarm_wherever_it_is_shown_and_nobody_can_tell() {
    let stored = start();
    let good = stored.create("good", &["--role", "reader"]);
    let other = stored.create("nobody", &[]);
    let (mut expected, mut secrets) = (BTreeMap::new(), vec![other.clone(), good.clone()]);
    for &(name, line, fields, reason) in PLACES {
        let bait = stored.create(name, &["--canary"]);
        let ask = |shown: &str| -> Reply {
            stored.gateway.exchange(request(&filled(line, shown, &good), &filled(fields, shown, &good)))
        };
        let (answer, usual) = (ask(&bait), ask(&other));
        assert_eq!(told(&answer), told(&usual), "{name}");
        expected.insert(name.to_owned(), reason.to_owned());
        secrets.push(bait);
    }
    assert_eq!(reasons(&stored, expected.len()), expected);
    let count = expected.len() as f64;
    assert_eq!(stored.gateway.metrics().sum("leastgate_canary_uses_total", &[]), count, "and nothing else is one");
    assert_no_secret(&stored, &secrets);
}

#[test]
fn half_a_head_is_enough() {
    let stored = start();
    let bait = stored.create("half", &["--canary"]);
    let mut client = stored.gateway.client();
    client.send(format!("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nAuthorization: Bearer {bait}\r\n"));
    client.shutdown(Shutdown::Write);
    client.expect_close(PATIENCE).unwrap();
    assert_eq!(reasons(&stored, 1), BTreeMap::from([("half".to_owned(), "request_malformed".to_owned())]));
}

#[test]
fn several_baits_of_one_request_are_told_each_and_a_crowd_is_bounded() {
    let stored = start();
    let baits: Vec<String> = (0..3).map(|number| stored.create(&format!("bait-{number}"), &["--canary"])).collect();
    let all = baits.join("; ");
    assert_eq!(stored.gateway.exchange(request("GET /v1/orders", &format!("Cookie: {all}; {all}"))).status, 400);
    assert_eq!(reasons(&stored, 3).len(), 3);
    let crowd = vec![stored.create("nobody", &[]); 16].join(";");
    let hidden = format!("Cookie: {crowd}\r\nX-Api-Key: {}", baits[0]);
    assert_eq!(stored.gateway.exchange(request("GET /v1/orders", &hidden)).status, 400);
    assert_eq!(stored.gateway.metrics().sum("leastgate_canary_uses_total", &[]), 3.0, "sixteen are looked up");
}

/// A bait's name, the path, the fields, and the reason.
type Row<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn a_bait_over_http2_raises_the_alarm_wherever_it_is_shown() {
    let stored = start();
    let (good, other) = (stored.create("good", &["--role", "reader"]), stored.create("nobody", &[]));
    let rows: &[Row<'_>] = &[
        ("query", "/v1/orders?t={t}", &[("authorization", "Bearer {g}")], "credential_misplaced"),
        ("path", "/v1/{t}", &[("authorization", "Bearer {g}")], "credential_misplaced"),
        ("cookie", "/v1/orders", &[("cookie", "a=b"), ("cookie", "s={t}")], "credential_misplaced"),
        ("other-header", "/v1/orders", &[("x-api-key", "{t}")], "credential_misplaced"),
        (
            "two",
            "/v1/orders",
            &[("authorization", "Bearer {g}"), ("authorization", "Bearer {t}")],
            "credential_misplaced",
        ),
        ("password", "/v1/orders", &[("authorization", "Basic {b}")], "credential_missing"),
        ("malformed", "/v1/orders?_method=PUT", &[("authorization", "Bearer {t}")], "request_malformed"),
        ("framing", "/v1/orders", &[("authorization", "Bearer {t}"), ("expect", "gold")], "expectation_unsupported"),
    ];
    let mut expected = BTreeMap::new();
    for &(name, path, fields, reason) in rows {
        let bait = stored.create(name, &["--canary"]);
        let ask = |shown: &str| {
            let path = filled(path, shown, &good);
            let values: Vec<_> = fields.iter().map(|(name, value)| (*name, filled(value, shown, &good))).collect();
            let pseudo =
                [(":method", "GET"), (":scheme", "http"), (":authority", "orders.test"), (":path", path.as_str())];
            let all: Vec<_> = pseudo.into_iter().chain(values.iter().map(|(name, value)| (*name, &**value))).collect();
            let mut client = Client::connect(stored.gateway.data(), &[]);
            let stream = client.open(&all, END_STREAM);
            let answer = client.answer(stream);
            let kind = serde_json::from_str::<Value>(&answer.text()).map(|body| body["type"].clone()).unwrap();
            (answer.status, kind)
        };
        assert_eq!(ask(&bait), ask(&other), "{name}");
        expected.insert(name.to_owned(), reason.to_owned());
    }
    assert_eq!(reasons(&stored, expected.len()), expected);
}

#[test]
fn a_bait_shown_to_the_admin_api_raises_the_alarm_too() {
    let stored = start();
    let other = stored.create("nobody", &[]);
    let admin = stored.gateway.addresses().admin;
    let viewer = stored.administrator("vera", "viewer");
    let rows: &[(&str, &str, &str)] = &[
        ("credential", "GET /v1/tokens", "Authorization: Bearer {t}"),
        ("no-such-path", "GET /api/v4/user", "Authorization: Bearer {t}"),
        ("two", "GET /v1/tokens", "Authorization: Bearer {g}\r\nAuthorization: Bearer {t}"),
        ("other-header", "GET /v1/tokens", "X-Api-Key: {t}"),
        ("query", "GET /v1/tokens?access_token={t}", ""),
        ("password", "GET /v1/tokens", "Authorization: Basic {b}"),
        ("a-page", "GET /v1/tokens", "Authorization: Bearer {t}\r\nOrigin: https://evil.test"),
        ("another-host", "GET /v1/tokens", "Authorization: Bearer {t}\r\nHost: evil.test"),
        ("change", "POST /v1/tokens", "Authorization: Bearer {t}"),
    ];
    let (mut statuses, mut secrets) = (BTreeMap::new(), vec![other.clone()]);
    for &(name, line, fields) in rows {
        let bait = stored.create(name, &["--canary"]);
        let ask = |shown: &str| -> Reply {
            let request = request(&filled(line, shown, &viewer), &filled(fields, shown, &viewer));
            let request = request.replace("orders.test", &admin.to_string());
            leastgate_testkit::raw::exchange(admin, request)
        };
        let (answer, usual) = (ask(&bait), ask(&other));
        assert!((400..500).contains(&answer.status), "{name}: {}", answer.status);
        assert_eq!(told(&answer), told(&usual), "{name}");
        statuses.insert(name.to_owned(), answer.status.to_string());
        secrets.push(bait);
    }
    let found = until("the uses", PATIENCE, || Some(uses(&stored)).filter(|uses| uses.len() >= rows.len()));
    for event in &found {
        assert_eq!((&event["kind"], &event["change"]["result"]), (&json!("lifecycle"), &json!("critical")));
        assert_eq!(
            (&event["actor"]["type"], &event["source"]["ip"]),
            (&json!("token"), &json!("127.0.0.1")),
            "{event}"
        );
        assert_eq!(detail(event, "listener"), "admin");
        let name = detail(event, "name");
        assert_eq!(event["actor"]["subject"], name.as_str());
        assert!(event["change"]["target"].as_str().is_some_and(|accessor| accessor.len() == 10), "{event}");
        assert!(statuses.remove(&name).is_some(), "twice: {event}");
    }
    assert_eq!(statuses, BTreeMap::new());
    assert_eq!(stored.gateway.metrics().sum("leastgate_canary_uses_total", &[]), rows.len() as f64);
    let log = stored.gateway.stderr();
    assert!(log.contains("a bait was used") && log.contains("admin"), "{log}");
    assert_no_secret(&stored, &secrets);
    // The honest administrator raises none.
    assert_eq!(stored.api("GET", "/v1/tokens/credential", Some(&viewer), None).status, 200);
    assert_eq!(stored.gateway.metrics().sum("leastgate_canary_uses_total", &[]), rows.len() as f64);
}
