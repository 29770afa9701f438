//! Scopes enforced between programs nobody here wrote: nginx as the API, curl as the client.

use leastgate_testkit::curl::{Fetched, curl};
use leastgate_testkit::deadline::{PATIENCE, until};
use leastgate_testkit::gateway::TestGateway;
use leastgate_testkit::nginx::Nginx;
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::token::Token;

use crate::fixtures::setup;

pub(crate) fn fetch(gateway: &TestGateway, token: Option<&Token>, path: &str, more: &[&str]) -> Fetched {
    let url = format!("http://orders.test:{}{path}", gateway.data().port());
    let resolve = format!("orders.test:{}:127.0.0.1", gateway.data().port());
    let credential = token.map(Token::header);
    let mut arguments = vec!["--path-as-is", "--resolve", &resolve, &url];
    if let Some(credential) = &credential {
        arguments.extend(["-H", credential]);
    }
    arguments.extend(more);
    curl(&arguments)
}

#[test]
fn nginx_sees_what_the_scopes_allow_and_nothing_else() {
    let nginx = Nginx::start();
    let tokens = orders_tokens();
    let gateway = setup(&tokens).upstream("orders", &nginx.url()).start();
    let (reader, writer) = (&tokens["READER"], &tokens["WRITER"]);

    let allowed = fetch(&gateway, Some(reader), "/v1/orders?page=2", &[]);
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert!(
        allowed.body.contains("GET /v1/orders?page=2") && allowed.body.contains("\"subject\":\"reader\""),
        "{allowed:?}"
    );
    assert!(allowed.field("Via").is_some_and(|via| via.contains("leastgate")), "{allowed:?}");

    let refused = fetch(&gateway, Some(reader), "/v1/orders", &["-X", "POST", "-d", "{}"]);
    assert_eq!((refused.status, refused.field("Content-Type")), (403, Some("application/problem+json")), "{refused:?}");
    assert!(refused.body.contains("\"orders:write\""), "{refused:?}");
    assert_eq!(refused.field("Proxy-Status"), Some("leastgate; error=http_request_denied"));

    assert_eq!(fetch(&gateway, Some(writer), "/v1/orders", &["-d", "{}"]).status, 200);
    assert_eq!(fetch(&gateway, None, "/v1/orders", &[]).status, 401);
    assert_eq!(fetch(&gateway, None, "/healthz", &[]).status, 200);
    assert_eq!(fetch(&gateway, Some(reader), "/v1/orders/../admin", &[]).status, 400);
    assert_eq!(fetch(&gateway, Some(reader), "/v1/orders", &["-I"]).status, 200);

    // nginx writes a line after each response: the last one being there, all are.
    let log = until("nginx's access lines", PATIENCE, || Some(nginx.access_log()).filter(|log| log.len() >= 4));
    assert_eq!(log.len(), 4, "{log:?}");
    for line in &log {
        assert!(!line.contains("lgt_") && line.split('|').nth(3) == Some("-"), "a credential reached nginx: {line}");
    }
    assert!(log[0].starts_with("GET|/v1/orders?page=2|orders.test|-|reader|200"), "{}", log[0]);
    assert!(log[1].starts_with("POST|/v1/orders|orders.test|-|writer|200"), "{}", log[1]);
    assert!(log[2].starts_with("GET|/healthz|orders.test|-|-|200"), "{}", log[2]);
    assert!(log[3].starts_with("HEAD|/v1/orders|orders.test|-|reader|200"), "{}", log[3]);
}

#[test]
fn nginx_statuses_and_bodies_come_through_unharmed() {
    let nginx = Nginx::start();
    let tokens = orders_tokens();
    let gateway = setup(&tokens).upstream("orders", &nginx.url()).start();
    let wide = Some(&tokens["WIDE"]);

    assert_eq!(fetch(&gateway, wide, "/v1/empty", &[]).status, 204);
    assert_eq!(fetch(&gateway, wide, "/v1/unchanged", &[]).status, 304);
    let moved = fetch(&gateway, wide, "/v1/moved", &[]);
    assert_eq!((moved.status, moved.field("Location")), (302, Some("https://elsewhere.test/")));
    let big = fetch(&gateway, wide, "/files/big.bin", &[]);
    assert_eq!((big.status, big.body.len()), (200, 8 << 20));
    let part = fetch(&gateway, wide, "/files/big.bin", &["-r", "5-9"]);
    assert_eq!((part.status, part.body.as_str()), (206, "nnnnn"));
    let missing = fetch(&gateway, wide, "/files/none", &[]);
    assert_eq!(missing.status, 404, "the upstream's own answer: {missing:?}");
    assert_eq!(missing.field("Content-Type"), Some("text/html"), "not a problem of the gateway");
}

#[test]
fn curl_can_send_a_file_with_expect_and_chunks() {
    let nginx = Nginx::start();
    let tokens = orders_tokens();
    let gateway = setup(&tokens).upstream("orders", &nginx.url()).start();
    let body = gateway.path().join("upload.bin");
    std::fs::write(&body, vec![b'u'; 2 << 20]).unwrap();
    let data = format!("@{}", body.display());
    let writer = Some(&tokens["WRITER"]);
    for more in [
        &["--data-binary", &data, "-H", "Expect: 100-continue"][..],
        &["--data-binary", &data, "-H", "Transfer-Encoding: chunked"],
    ] {
        let got = fetch(&gateway, writer, "/v1/orders", more);
        assert_eq!((got.status, got.code), (200, 0), "{got:?}");
    }
    let reader = Some(&tokens["READER"]);
    let refused = fetch(&gateway, reader, "/v1/orders", &["--data-binary", &data, "-H", "Expect: 100-continue"]);
    assert_eq!(refused.status, 403, "{refused:?}");
}
