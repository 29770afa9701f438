//! What a check and the client say beyond the verdict, to whoever was surprised by it.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use leastgate_admin::api::{CheckRequest, CheckResult};
use leastgate_admin::client::{Client, ClientError, Endpoint};
use leastgate_policy::spec::ModeSpec;
use leastgate_policy::{PolicySpec, Timestamp};
use leastgate_telemetry::{Clock as _, SystemClock};
use serde_json::{Value, json};

use crate::fixture::{Plane, SHADOW_END, Setup, compile, policy, start};

fn made(plane: &Plane, more: &Value) {
    let mut body = json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "1h"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = plane.post(&plane.root, "/v1/tokens", &body);
    assert_eq!(answer.status, 201, "{answer:?}");
}

fn check(plane: &Plane, method: &str, url: &str) -> CheckResult {
    let client = Client::new(Endpoint::Unix(plane.socket.clone()), Duration::from_secs(30));
    let request =
        CheckRequest { token: Some("bot".into()), method: method.into(), url: url.into(), ..CheckRequest::default() };
    client.check(&request).unwrap()
}

/// The fixture's policy without its role, which the tokens still hold.
fn without_roles() -> PolicySpec {
    PolicySpec { roles: vec![], ..policy() }
}

#[test]
fn a_role_that_a_reload_took_away_is_named_as_the_cause() {
    let plane = start();
    made(&plane, &json!({}));
    assert_eq!(plane.get(&plane.root, "/v1/tokens/bot").json()["not_in_policy"], json!([]));
    plane.authority.replace(compile(&without_roles()));
    assert_eq!(plane.get(&plane.root, "/v1/tokens/bot").json()["not_in_policy"], json!(["reader"]));
    assert_eq!(plane.get(&plane.root, "/v1/tokens").json()["items"][0]["not_in_policy"], json!(["reader"]));
    let refused = check(&plane, "GET", "/v1/orders");
    assert_eq!(refused.reason, "insufficient_scope");
    assert_eq!(refused.detail.as_deref(), Some("the token holds `reader`, which the policy in force does not have"));
    assert!(refused.fix.is_some_and(|fix| fix.starts_with("put the name back")));
    let another = json!({"name": "b", "owner": "t", "roles": ["reader"], "ttl": "1h"});
    let answer = plane.post(&plane.root, "/v1/tokens", &another);
    assert!(answer.body.contains("the policy in force has no roles"), "{answer:?}");
}

#[test]
fn a_shadow_says_until_when_it_forwards() {
    let mut spec = policy();
    let until = Timestamp(SystemClock::new().timestamp().0 + 86_400).into();
    spec.apis[0].mode = ModeSpec::Shadow { until };
    let plane = Setup { policy: Some(spec), ..Setup::default() }.start();
    made(&plane, &json!({}));
    let shadowed = check(&plane, "POST", "/v1/orders/7b0e/refunds");
    let said = (shadowed.effect.as_str(), shadowed.reason.as_str(), shadowed.mode.as_str(), shadowed.until);
    assert_eq!(said, ("allow", "insufficient_scope", "shadow", Some(SHADOW_END)));
    assert_eq!((shadowed.held, shadowed.required_any_of), (vec!["orders:read".into()], vec!["orders:refund".into()]));
    let plane = start();
    made(&plane, &json!({}));
    assert_eq!(check(&plane, "GET", "/v1/orders").until, None, "this one enforces");
}

#[test]
fn what_is_wrong_with_the_question_is_said() {
    let plane = start();
    made(&plane, &json!({"allow_cidr": ["10.0.0.0/8"]}));
    let refused = check(&plane, "GET", "/v1/orders");
    assert_eq!(refused.reason, "source_not_allowed");
    assert_eq!(refused.detail.as_deref(), Some("asked as from 127.0.0.1; the token may be used from 10.0.0.0/8"));
    assert!(refused.fix.is_some_and(|fix| fix.contains("`source_ip`")));
    let lower = check(&plane, "get", "/v1/orders");
    assert_eq!(
        (lower.reason.as_str(), lower.detail.as_deref()),
        ("method_unsupported", Some("methods are upper-case: GET"))
    );

    let plane = start();
    made(&plane, &json!({}));
    let mistyped = check(&plane, "POST", "/v1/orders/xyz/refunds");
    assert_eq!(mistyped.reason, "no_matching_scope");
    let near = "/v1/orders/{order_id:hex}/refunds comes near: `order_id` must be hex";
    assert_eq!(mistyped.detail.as_deref(), Some(near));
    assert_eq!(check(&plane, "POST", "/v1/nothing/like/it").detail, None);

    for url in ["orders", "localhost:8080"] {
        let body = json!({"token": "bot", "method": "GET", "url": url});
        let refused = plane.post(&plane.root, "/v1/check", &body);
        refused.refused(422, "invalid-value");
        assert!(refused.body.contains("neither a URL nor a path"), "{refused:?}");
    }
}

#[test]
fn the_fix_of_a_dead_token_is_a_command() {
    let plane = start();
    made(&plane, &json!({"scopes": ["orders:read"]}));
    plane.post(&plane.root, "/v1/tokens/bot/revoke", &json!({"reason": "leaked"}));
    let accessor = plane.get(&plane.root, "/v1/tokens?state=revoked").json()["items"][0]["accessor"].clone();
    let body = json!({"token": accessor, "method": "GET", "url": "/v1/orders"});
    let refused = plane.post(&plane.root, "/v1/check", &body).json();
    let fix = "leastgate token create --name NAME --role reader --scope orders:read --ttl 1d --owner OWNER";
    assert_eq!((&refused["reason"], &refused["fix"]), (&json!("token_revoked"), &json!(fix)));
}

/// Answers one request with these bytes, or with none and keeps the connection.
fn listener(answer: &'static str) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            if answer.is_empty() {
                // Held until the client has given up.
                let _ = stream.read_to_end(&mut Vec::new());
            }
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Endpoint::Tcp(address)
}

#[test]
fn a_data_listener_is_not_taken_for_an_admin_api() {
    let answer = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 75\r\n\r\n\
                  {\"type\":\"urn:leastgate:problem:credential-required\",\"decision_id\":\"01HX\"}\r\n";
    let error = Client::new(listener(answer), Duration::from_secs(30)).status().unwrap_err();
    assert!(matches!(error, ClientError::DataListener { .. }), "{error}");
    assert!(error.to_string().contains("is not an admin API"), "{error}");
}

#[test]
fn only_a_change_is_said_to_be_made_perhaps() {
    let client = Client::new(listener(""), Duration::from_millis(100));
    let read = client.status().unwrap_err().to_string();
    assert!(read.ends_with("did not answer within 100ms"), "{read}");
    let change = client.revoke_token("bot", "leaked").unwrap_err().to_string();
    assert!(change.contains("the change may still be made"), "{change}");
}
