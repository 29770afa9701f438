//! HTTP/2 between programs nobody here wrote: curl and h2load as clients, nginx as the API.

use std::process::Command;

use leastgate_testkit::deadline::{PATIENCE, until};
use leastgate_testkit::nginx::Nginx;
use leastgate_testkit::paths::program;
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::process::Process;

use crate::enforcement::fetch;
use crate::fixtures::{Orders, setup};

#[test]
fn curl_is_judged_over_http2_as_over_http1() {
    let nginx = Nginx::start();
    let tokens = orders_tokens();
    let gateway = setup(&tokens).upstream("orders", &nginx.url()).start();
    let (reader, writer) = (&tokens["READER"], &tokens["WRITER"]);
    let http2 = "--http2-prior-knowledge";

    let allowed = fetch(&gateway, Some(reader), "/v1/orders?page=2", &[http2]);
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert!(allowed.head.starts_with("HTTP/2 200"), "{allowed:?}");
    assert!(allowed.body.contains("GET /v1/orders?page=2"), "{allowed:?}");
    let refused = fetch(&gateway, Some(reader), "/v1/orders", &[http2, "-X", "POST", "-d", "{}"]);
    assert_eq!((refused.status, refused.field("Content-Type")), (403, Some("application/problem+json")), "{refused:?}");
    let body = "x".repeat(100_000);
    assert_eq!(fetch(&gateway, Some(writer), "/v1/orders", &[http2, "-d", &body]).status, 200);
    assert_eq!(fetch(&gateway, None, "/v1/orders", &[http2]).status, 401);
    assert_eq!(fetch(&gateway, Some(reader), "/v1/orders/../admin", &[http2]).status, 400);
    assert_eq!(fetch(&gateway, Some(reader), "/v1/orders", &[http2, "-I"]).status, 200);
    let events = gateway.wait_decisions("all of them", 6, |_| true);
    assert!(events.iter().all(|event| event["request"]["protocol"] == "HTTP/2"), "{events:?}");
}

#[test]
fn thousands_of_streams_are_each_answered_and_recorded_once() {
    const REQUESTS: usize = 3_000;
    let orders = Orders::start();
    let port = orders.gateway.data().port();
    let mut load = Command::new(program("h2load"));
    load.args(["-n", &REQUESTS.to_string(), "-c", "10", "-m", "30", "-t", "1"])
        .args(["-H", &orders.reader().header()])
        .arg(format!("--connect-to=127.0.0.1:{port}"))
        .arg(format!("http://orders.test:{port}/v1/orders/10ad"));
    let ended = Process::run("h2load", &mut load, PATIENCE * 3);
    let wanted = format!("{REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored, 0 timeout");
    assert!(ended.stdout.contains(&wanted), "{} {:?}", ended.stdout, orders.gateway.decisions().first());
    assert!(ended.stdout.contains(&format!("{REQUESTS} 2xx")), "{}", ended.stdout);
    let count = || {
        let of_load = |event: &serde_json::Value| event["request"]["path"] == "/v1/orders/10ad";
        orders.gateway.decisions().into_iter().filter(of_load).count()
    };
    let recorded = until("an event a request", PATIENCE, || Some(count()).filter(|count| *count >= REQUESTS));
    assert_eq!(recorded, REQUESTS);
}
