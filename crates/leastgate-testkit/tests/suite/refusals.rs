//! What a refused caller is told: the table of the scope language (§6), as bytes on the wire.

use leastgate_testkit::gateway::request;
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::raw::Reply;
use serde_json::json;

use crate::fixtures::{Orders, with_policy};

fn challenge(reply: &Reply) -> &str {
    reply.head.one("www-authenticate").unwrap_or_default()
}

#[test]
fn a_missing_token_is_asked_for_and_a_bad_one_is_called_bad() {
    let orders = Orders::start();
    let missing = orders.gateway.exchange(request("GET", "/v1/orders", None));
    assert_eq!(missing.status, 401);
    assert!(
        challenge(&missing).starts_with("Bearer realm=\"") && !challenge(&missing).contains("error"),
        "{}",
        challenge(&missing)
    );
    let bad = orders.gateway.get(orders.token("REVOKED"), "/v1/orders");
    assert!(challenge(&bad).contains("error=\"invalid_token\""), "{}", challenge(&bad));
    let scope = orders.gateway.exchange(request("POST", "/v1/orders", Some(orders.reader())));
    assert!(
        challenge(&scope).contains("error=\"insufficient_scope\"") && challenge(&scope).contains("orders:write"),
        "{}",
        challenge(&scope)
    );
}

#[test]
fn every_bad_token_gets_one_answer() {
    let orders = Orders::start();
    let told = |name: &str| {
        let reply = orders.gateway.get(orders.token(name), "/v1/orders");
        let mut body = reply.json();
        body.as_object_mut().unwrap().remove("decision_id");
        let fields: Vec<_> = reply
            .head
            .fields
            .into_iter()
            .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
            .collect();
        (reply.status, fields, body)
    };
    let first = told("UNKNOWN");
    assert_eq!(first.2["type"], "urn:leastgate:problem:invalid-token");
    for name in ["REVOKED", "DISABLED", "NOTYET", "ELSEWHERE", "FOREIGN"] {
        assert_eq!(told(name), first, "{name} must not be told apart");
    }
}

#[test]
fn an_expired_token_is_told_since_when() {
    let orders = Orders::start();
    let reply = orders.gateway.get(orders.token("EXPIRED"), "/v1/orders");
    assert_eq!((reply.status, reply.problem().as_deref()), (401, Some("token-expired")));
    assert!(reply.json()["expired_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{}", reply.text());
}

#[test]
fn a_refusal_says_what_would_suffice_and_what_is_held() {
    let orders = Orders::start();
    let body = orders.gateway.exchange(request("PATCH", "/v1/orders/7b0e", Some(orders.reader()))).json();
    assert_eq!(body["required_any_of"], json!(["orders:wide", "orders:write"]));
    assert_eq!(body["held"], json!(["orders:read"]), "disclose: full");
    assert!(body["detail"].as_str().unwrap().ends_with("needs orders:wide or orders:write."), "{body}");
    assert!(body["decision_id"].is_string() && body["title"].is_string() && body["status"] == 403, "{body}");
}

#[test]
fn an_api_decides_how_much_is_disclosed() {
    let told = |disclose: &str, method: &str, path: &str| {
        let orders = with_policy(&ORDERS.replace("disclose: full", &format!("disclose: {disclose}")));
        orders.gateway.exchange(request(method, path, Some(orders.reader())))
    };
    let needed = told("needed", "POST", "/v1/orders").json();
    assert!(needed.get("held").is_none() && needed["required_any_of"].is_array(), "{needed}");

    let none = told("none", "POST", "/v1/orders");
    let body = none.json();
    assert_eq!((body.as_object().unwrap().len(), &body["status"]), (2, &json!(403)), "type and status only: {body}");
    assert!(!challenge(&none).contains("orders:write"), "{}", challenge(&none));

    let concealed: Vec<_> =
        [("POST", "/v1/orders"), ("GET", "/internal/x"), ("GET", "/v1/orders/7b0e/payment-details")]
            .into_iter()
            .map(|(method, path)| told("conceal", method, path))
            .map(|reply| {
                let fields: Vec<_> = reply
                    .head
                    .fields
                    .iter()
                    .filter(|(name, _)| !["date", "x-request-id"].contains(&name.as_str()))
                    .cloned()
                    .collect();
                (reply.status, reply.body, fields)
            })
            .collect();
    assert_eq!(concealed[0].0, 404);
    assert!(concealed.iter().all(|answer| *answer == concealed[0]), "one identical answer: {concealed:?}");
}

#[test]
fn head_gets_no_body_with_a_refusal() {
    let orders = Orders::start();
    let mut client = orders.gateway.client();
    for _ in 0..2 {
        client.send(request("HEAD", "/v1/none", Some(orders.reader())));
        let reply = client.read_for("HEAD", leastgate_testkit::deadline::PATIENCE).unwrap();
        assert_eq!((reply.status, reply.body.len()), (403, 0));
    }
}
