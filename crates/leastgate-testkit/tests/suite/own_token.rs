//! What a caller learns of its own token: at `/.well-known/leastgate`, asked by curl, and in its last seven days from
//! `X-Leastgate-Token-Expires`.

use leastgate_testkit::clock;
use leastgate_testkit::curl::{Fetched, curl};
use leastgate_testkit::deadline::PATIENCE;
use leastgate_testkit::gateway::{Setup, TestGateway, request};
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::raw::Reply;
use leastgate_testkit::recorder::RecorderUpstream;
use leastgate_testkit::token::Token;
use serde_json::Value;

use crate::fixtures::Orders;

const OWN: &str = "/.well-known/leastgate";
const DAY: u64 = 86_400;

fn telling() -> Orders {
    Orders::start_with(|setup| setup.data_listener("address: \"127.0.0.1:0\", well_known: true"))
}

fn ask(gateway: &TestGateway, token: Option<&Token>, more: &[&str]) -> Fetched {
    let header = token.map(Token::header);
    let mut arguments: Vec<&str> = more.to_vec();
    arguments.extend(header.iter().flat_map(|header| ["-H", header.as_str()]));
    let url = format!("http://{}{OWN}", gateway.data());
    arguments.push(&url);
    curl(&arguments)
}

#[test]
fn curl_asks_what_its_token_is_and_the_upstream_hears_nothing() {
    let orders = telling();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let got = ask(&orders.gateway, Some(orders.reader()), &[version]);
        assert_eq!((got.status, got.field("content-type")), (200, Some("application/json")), "{}", got.head);
        assert_eq!(got.field("cache-control"), Some("no-store"));
        let own: Value = serde_json::from_str(&got.body).expect("JSON");
        assert_eq!(
            (&own["name"], &own["environment"], &own["state"]),
            (&"reader".into(), &"test".into(), &"active".into())
        );
        assert_eq!(own["roles"], serde_json::json!(["reader"]));
        assert!(own["scopes"].as_array().is_some_and(|scopes| scopes.contains(&"orders:read".into())), "{own}");
        assert!(!got.body.contains(orders.reader().secret()));
    }
    let head = ask(&orders.gateway, Some(orders.reader()), &["-I"]);
    assert_eq!((head.status, head.body.trim()), (200, ""), "{}", head.head);
    assert_eq!(ask(&orders.gateway, None, &[]).status, 401);
    for placeholder in ["REVOKED", "DISABLED", "EXPIRED", "NOTYET", "ELSEWHERE", "UNKNOWN", "FOREIGN", "ADMIN"] {
        let refused = ask(&orders.gateway, Some(orders.token(placeholder)), &[]);
        assert_eq!(refused.status, 401, "{placeholder}: {}", refused.body);
    }
    let posted = ask(&orders.gateway, Some(orders.reader()), &["-X", "POST", "-H", "Host: orders.test"]);
    assert_eq!(posted.status, 403, "another method is a request like any other: {}", posted.body);
    assert_eq!(orders.upstream.count(), 0);
    let own = |event: &Value| event["decision"]["reason"] == "own_token";
    let event = &orders.gateway.wait_decisions("own token", 3, own)[0];
    assert_eq!((&event["decision"]["effect"], &event["actor"]["subject"]), (&"allow".into(), &"reader".into()));
    assert_eq!(event["request"]["path"], OWN, "{event}");
    let checked = orders.gateway.cli(&["check", "reader", "GET", &format!("http://anything.test{OWN}")]);
    assert!(checked.stdout.contains("own_token"), "{} {}", checked.stdout, checked.stderr);
}

#[test]
fn where_it_was_not_asked_for_it_is_a_path_of_the_api() {
    let orders = Orders::start();
    let refused = orders.gateway.get(orders.reader(), OWN);
    assert_eq!((refused.status, refused.text().contains("needs orders:wide")), (403, true), "{}", refused.text());
    assert_eq!(orders.gateway.get(orders.token("WIDE"), OWN).status, 200);
    assert_eq!(orders.upstream.wait_for(OWN, PATIENCE).head.one("x-leastgate-subject"), Some("wide"));
}

#[test]
fn a_rule_that_would_never_be_asked_is_refused_with_its_place() {
    let policy = ORDERS.replacen("allow: [", "allow: [ \"GET /.well-known/leastgate\",", 1);
    assert_ne!(policy, ORDERS);
    let upstream = RecorderUpstream::start();
    let setup = |keys: &str| {
        Setup::new(&policy)
            .tokens(&[Token::new("reader", &["reader"])])
            .upstream("orders", &upstream.url())
            .data_listener(&format!("address: \"127.0.0.1:0\"{keys}"))
    };
    let ended = setup(", well_known: true").start_failing();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    for part in ["policy.yaml:", "answered by the gateway itself", "listeners.data.well_known"] {
        assert!(ended.stderr.contains(part), "{part} in {}", ended.stderr);
    }
    assert_eq!(setup("").start().ops("/readyz").status, 200);
}

#[test]
fn in_its_last_seven_days_every_answer_tells_a_token_when_it_ends() {
    let upstream = RecorderUpstream::start();
    let before = clock::now();
    let week = Token::new("week", &["reader"]).expiring_in(7 * DAY);
    let after = clock::now();
    let later = Token::new("later", &["reader"]).expiring_in(8 * DAY);
    let gateway = Setup::new(ORDERS).tokens([&week, &later]).upstream("orders", &upstream.url()).start();
    let told = |reply: &Reply| reply.head.one("x-leastgate-token-expires").map(str::to_owned);
    let allowed = gateway.get(&week, "/v1/orders");
    let end = told(&allowed).expect("the end");
    assert_eq!(allowed.status, 200);
    assert!((before..=after).any(|made| clock::rfc3339(made + 7 * DAY) == end), "{end}");
    let refused = gateway.exchange(request("DELETE", "/v1/orders", Some(&week)));
    assert_eq!((refused.status, told(&refused)), (403, Some(end)));
    assert_eq!(told(&gateway.get(&later, "/v1/orders")), None);
}
