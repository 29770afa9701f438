//! What no honest client sends.

use serde_json::json;

use crate::fixture::{Plane, raw, start};

fn with_head(plane: &Plane, line: &str, head: &str) -> crate::fixture::Reply {
    raw(
        plane.admin,
        &format!("{line} HTTP/1.1\r\nAuthorization: Bearer {}\r\nConnection: close\r\n{head}\r\n", plane.root),
    )
}

#[test]
fn another_host_is_refused() {
    let plane = start();
    let port = plane.admin.port();
    for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "localhost".into(), format!("[::1]:{port}")]
    {
        assert_eq!(with_head(&plane, "GET /v1/status", &format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    for host in
        ["evil.example".to_owned(), format!("evil.example:{port}"), "127.0.0.1:1".into(), format!("10.0.0.1:{port}")]
    {
        with_head(&plane, "GET /v1/status", &format!("Host: {host}\r\n")).refused(421, "unknown-host");
    }
    with_head(&plane, "GET /v1/status", "").refused(421, "unknown-host");
    with_head(&plane, "GET /v1/status", &format!("Host: localhost\r\nHost: 127.0.0.1:{port}\r\n"))
        .refused(421, "unknown-host");
}

#[test]
fn web_pages_are_refused() {
    let plane = start();
    for field in
        ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"]
    {
        let answer = with_head(&plane, "GET /v1/status", &format!("Host: {}\r\n{field}\r\n", plane.admin));
        answer.refused(403, "browser-request");
    }
}

#[test]
fn tricks_with_the_path_lead_nowhere() {
    let plane = start();
    for path in [
        "/v1//tokens",
        "/v1/tokens/..",
        "/v1/tokens/../status",
        "/v1/%74okens",
        "/v1%2ftokens",
        "/v1/tokens/",
        "/v1/tokens;x",
        "/./v1/tokens",
    ] {
        plane.get(&plane.root, path).refused(400, "ambiguous-path");
    }
    for path in [
        "/V1/tokens",
        "/v1/Tokens",
        "/v1/tokensx",
        "/v1",
        "/",
        "/v1/tokens/a/b/c",
        "/v1/openapi.yaml",
        "/v1/tokens/a/rotated",
    ] {
        plane.get(&plane.root, path).refused(404, "not-found");
    }
    let absolute = format!("http://{}/v1/tokens", plane.admin);
    plane.get(&plane.root, &absolute).refused(400, "malformed-request");
    let wrong = plane.call(&plane.root, "DELETE", "/v1/tokens", None);
    wrong.refused(405, "method-not-allowed");
    assert!(wrong.header("allow").is_some_and(|allow| allow.contains("GET") && allow.contains("POST")), "{wrong:?}");
    plane.get(&plane.root, "/v1/status?x=1").refused(422, "invalid-value");
    plane.get(&plane.root, "/v1/tokens?stat=revoked").refused(422, "invalid-value");
    plane.get(&plane.root, "/v1/tokens?limit=201").refused(422, "invalid-value");
    plane.get(&plane.root, "/v1/tokens?limit=1&limit=2").refused(422, "invalid-value");
}

#[test]
fn bodies_are_bounded_and_their_fields_known() {
    let plane = start();
    let post = |body: &str| plane.call(&plane.root, "POST", "/v1/tokens", Some(body));
    post(&format!("{{\"name\":\"{}\"}}", "a".repeat(70_000))).refused(413, "body-too-large");
    post(&format!("{{\"name\":{}{}}}", "[".repeat(40), "]".repeat(40))).refused(400, "malformed-request");
    post("{\"name\":\"bot\",\"secret\":\"x\"}").refused(422, "invalid-value");
    post("{\"name\":\"bot\",\"name\":\"bot\"}").refused(422, "invalid-value");
    post("{\"name\":").refused(400, "malformed-request");
    post("").refused(400, "malformed-request");
    post("[]").refused(422, "invalid-value");
    let text = "Content-Type: text/plain\r\nContent-Length: 2\r\n";
    let plain = format!(
        "POST /v1/tokens HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n{text}\r\n{{}}",
        plane.admin, plane.root
    );
    raw(plane.admin, &plain).refused(415, "unsupported-media-type");
    plane.call(&plane.root, "GET", "/v1/tokens", Some("{}")).refused(400, "malformed-request");
}

#[test]
fn a_secret_in_a_text_for_people_is_refused_and_kept_nowhere() {
    let plane = start();
    let secret = "lga_test_0aZ9000001_verysecretverysecretverysecretverysecret_abcdef";
    let text = format!("see {secret}!");
    let bot = json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "1h"});
    let with = |field: &str| {
        let mut body = bot.clone();
        body[field] = json!(text);
        plane.post(&plane.root, "/v1/tokens", &body)
    };
    let admin = json!({"name": "ann", "role": "viewer",
                       "may_grant": {"environments": [], "roles": [text], "scopes": [], "max_ttl": null}});
    let mut answers = vec![with("note"), with("owner"), plane.post(&plane.root, "/v1/admins", &admin)];
    assert_eq!(plane.post(&plane.root, "/v1/tokens", &bot).status, 201);
    for target in ["/v1/tokens/bot/disable", "/v1/tokens/bot/revoke", "/v1/admins/root/revoke"] {
        answers.push(plane.post(&plane.root, target, &json!({"reason": text})));
    }
    for answer in answers {
        answer.refused(422, "invalid-value");
        assert!(!answer.body.contains("verysecret") && answer.body.contains("accessor"), "{answer:?}");
    }
    let redacted = json!({"reason": "lgt_test_0aZ9000001_REDACTED was in a log"});
    assert_eq!(plane.post(&plane.root, "/v1/tokens/bot/revoke", &redacted).status, 200, "that names no secret");
}

#[test]
fn a_check_is_not_recorded_with_its_headers() {
    let plane = start();
    let headers = json!({"authorization": "Basic verysecret", "x-key": "verysecret"});
    let body = json!({"method": "GET", "url": "/v1/orders?key=verysecret", "headers": headers});
    assert_eq!(plane.post(&plane.root, "/v1/check", &body).status, 200);
    plane
        .post(&plane.root, "/v1/check", &json!({"method": "\n", "url": "/", "headers": headers}))
        .refused(422, "invalid-value");
    let recorded = plane.telemetry.recent(&leastgate_telemetry::RecentFilter { limit: 1000, ..Default::default() });
    assert!(!recorded.iter().any(|line| String::from_utf8_lossy(line).contains("verysecret")));
}

#[test]
fn a_token_in_a_wrong_place_is_never_repeated() {
    let plane = start();
    let secret = "lgt_test_0aZ9000001_verysecretverysecretverysecretverysecret_abcdef";
    let made = plane.post(
        &plane.root,
        "/v1/tokens",
        &json!({"name": secret, "owner": secret, "note": secret, "roles": [secret], "ttl": "1h"}),
    );
    assert_eq!(made.status, 422);
    let shown = plane.get(&plane.root, &format!("/v1/tokens/{secret}"));
    assert_eq!(shown.status, 404);
    let checked = plane.post(&plane.root, "/v1/check", &json!({"token": secret, "method": "GET", "url": "/v1/orders"}));
    for answer in [made, shown, checked] {
        assert!(!answer.body.contains("verysecret"), "{answer:?}");
    }
    let events = plane.events("token.create");
    assert!(!events.is_empty() && !events.iter().any(|event| event.to_string().contains("verysecret")));
}
