//! What may be changed about a token, against which version, and by whom.

use serde_json::{Value, json};

use crate::fixture::{Plane, Setup, ask, operator, start, until};

fn bot() -> Value {
    json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "1h"})
}

const REFUND: (&str, &str) = ("POST", "/v1/orders/7b/refunds");

#[test]
fn a_change_names_the_version_it_is_for() {
    let plane = start();
    let (accessor, _) = plane.make(&bot());
    let target = "/v1/tokens/bot";
    let note = json!({"note": "a word", "reason": "r"});
    plane.call(&plane.root, "PATCH", target, Some(&note.to_string())).refused(428, "precondition-required");
    let tag = plane.get(&plane.root, target).header("etag").unwrap().to_owned();
    let changed = plane.patch(&plane.root, target, &tag, &note);
    assert_eq!(tag, format!("\"{accessor}.1\""));
    let next = format!("\"{accessor}.2\"");
    assert_eq!((changed.status, changed.header("etag")), (200, Some(next.as_str())), "{changed:?}");
    assert_eq!((&changed.json()["token"]["note"], &changed.json()["durable"]), (&json!("a word"), &json!(true)));
    plane.patch(&plane.root, target, &tag, &note).refused(412, "precondition-failed");
    plane.patch(&plane.root, target, "2", &note).refused(422, "invalid-value");
    assert_eq!(
        plane.patch(&plane.root, target, "*", &json!({"note": null, "reason": "r"})).json()["token"]["note"],
        json!(null)
    );
    let event = &plane.events("token.edit")[1];
    let details = event["change"]["details"].to_string();
    assert!(details.contains(r#"{"name":"note.after","value":"a word"}"#), "{details}");
    let refused = plane.events("token.edit").iter().filter(|event| event["change"]["result"] != "ok").count();
    assert_eq!(refused, 3, "what was refused is on record too");
}

#[test]
fn of_two_administrators_one_is_told_that_the_other_was_first() {
    let plane = start();
    let (accessor, _) = plane.make(&bot());
    let asked = ["one", "other"].map(|note| {
        let (admin, root) = (plane.admin, plane.root.clone());
        let body = json!({"note": note, "reason": "r"}).to_string();
        let tag = format!("If-Match: \"{accessor}.1\"\r\n");
        std::thread::spawn(move || ask(admin, &root, "PATCH", "/v1/tokens/bot", &tag, Some(&body)).status)
    });
    let statuses = asked.map(|asked| asked.join().unwrap());
    assert!(statuses == [200, 412] || statuses == [412, 200], "{statuses:?}");
}

#[test]
fn a_scope_is_given_for_a_while_and_goes_by_itself() {
    let plane = start();
    let (_, secret) = plane.make(&bot());
    assert_eq!(plane.decide_about(REFUND.0, REFUND.1, &secret), "insufficient_scope");
    let grant = |body: Value| plane.post(&plane.root, "/v1/tokens/bot/grants", &body);
    let granted = grant(json!({"scope": "orders:refund", "ttl": "1s", "reason": "INC-42"}));
    assert_eq!(granted.status, 200, "{granted:?}");
    let held = &granted.json()["token"]["grants"][0];
    assert_eq!((&held["scope"], &held["reason"]), (&json!("orders:refund"), &json!("INC-42")));
    until("the grant ends", || plane.decide_about(REFUND.0, REFUND.1, &secret) != "scope_granted");
    assert_eq!(plane.get(&plane.root, "/v1/tokens/bot").json()["grants"], json!([]), "and nobody is shown it any more");
    assert_eq!(plane.events("token.grant")[0]["change"]["reason"], "INC-42");
    // The scope's own longest life binds the grant.
    grant(json!({"scope": "orders:refund", "ttl": "31m", "reason": "x"})).refused(422, "token-rules");
    grant(json!({"scope": "orders:refund", "reason": "x"})).refused(422, "token-rules");
    grant(json!({"scope": "orders:nothing", "ttl": "1m", "reason": "x"})).refused(422, "token-rules");
}

/// Gives `orders:refund` to the token for a moment, and comes back when the moment is over.
fn lend(plane: &Plane, token: &str, secret: &str) {
    let body = json!({"scope": "orders:refund", "ttl": "1s", "reason": "INC-42"});
    let granted = plane.post(&plane.root, &format!("/v1/tokens/{token}/grants"), &body);
    assert_eq!(granted.status, 200, "{granted:?}");
    until("the grant ends", || plane.decide_about(REFUND.0, REFUND.1, secret) != "scope_granted");
}

#[test]
fn a_grant_that_has_ended_is_given_again_by_nobody_below_it() {
    let plane = start();
    let operator = operator(&plane);
    let (accessor, secret) = plane.make(&json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "20m"}));
    lend(&plane, "bot", &secret);
    let again = json!({"scopes": ["orders:refund"], "reason": "x"});
    plane.patch(&operator, "/v1/tokens/bot", "*", &again).refused(403, "above-ceiling");
    assert_eq!(plane.decide_about(REFUND.0, REFUND.1, &secret), "insufficient_scope");
    let kept = plane.store.token(accessor.parse().unwrap()).unwrap();
    assert!(kept.grants.iter().all(|grant| grant.expires.is_some()), "{kept:?}");
}

#[test]
fn an_edit_that_takes_nothing_ends_nothing_because_a_grant_has_ended() {
    let plane = start();
    let (_, secret) = plane.make(&bot());
    lend(&plane, "bot", &secret);
    let child = plane.post(&plane.root, "/v1/tokens/bot/children", &json!({"ttl": "5m", "reason": "nightly"}));
    let child = child.json()["secret"].as_str().unwrap().to_owned();
    let edited = plane.patch(&plane.root, "/v1/tokens/bot", "*", &json!({"note": "n", "reason": "x"}));
    assert_eq!(edited.status, 200, "{edited:?}");
    assert_eq!(plane.decide(&child), "scope_granted", "its command goes on");
    assert!(!plane.events("token.edit")[0].to_string().contains("scopes.before"), "nothing of it has changed");
}

#[test]
fn a_token_with_a_scope_for_a_while_is_edited_and_enabled_as_any_other() {
    let plane = start();
    let (accessor, _) = plane.make(&json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "23h"}));
    // As if it had been made half an hour ago, and so longer than the scope may live.
    let mut old = plane.store.token(accessor.parse().unwrap()).unwrap();
    old.created = leastgate_policy::Timestamp(old.created.0 - 1800);
    let old = leastgate_store::TokenRecord {
        accessor: "AAAAAAAAA1".parse().unwrap(),
        digest: leastgate_policy::TokenDigest::from_bytes([9; 32]),
        name: leastgate_store::TokenName::parse("old").unwrap(),
        ..old
    };
    plane.store.create_token(old.clone()).unwrap();
    plane.authority.upsert(old.entry()).unwrap();
    let grant = json!({"scope": "orders:refund", "ttl": "20m", "reason": "INC-7"});
    assert_eq!(plane.post(&plane.root, "/v1/tokens/old/grants", &grant).status, 200);
    let note = plane.patch(&plane.root, "/v1/tokens/old", "*", &json!({"note": "n", "reason": "x"}));
    assert_eq!(note.status, 200, "{note:?}");
    for change in ["disable", "enable"] {
        let changed = plane.post(&plane.root, &format!("/v1/tokens/old/{change}"), &json!({"reason": "x"}));
        assert_eq!(changed.status, 200, "{changed:?}");
    }
}

#[test]
fn a_grant_never_shortens_what_is_held() {
    let plane = start();
    plane.make(&bot());
    let grant = |ttl: &str| {
        plane.post(&plane.root, "/v1/tokens/bot/grants", &json!({"scope": "orders:refund", "ttl": ttl, "reason": "x"}))
    };
    assert_eq!(grant("10m").status, 200);
    grant("5m").refused(409, "conflict");
    assert_eq!(grant("20m").json()["token"]["grants"].as_array().unwrap().len(), 1);
}

#[test]
fn an_operator_gives_nothing_above_the_ceiling_in_any_way() {
    let plane = start();
    let operator = operator(&plane);
    plane.make(&json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "30m"}));
    plane.make(&json!({"name": "refunder", "owner": "team", "scopes": ["orders:refund"], "ttl": "10m", "allow_cidr": ["10.0.0.0/8"]}));
    let patch = |name: &str, body: Value| plane.patch(&operator, &format!("/v1/tokens/{name}"), "*", &body);
    let post = |target: &str, body: Value| plane.post(&operator, target, &body);
    let far = "2096-10-02T07:06:40Z";
    for refused in [
        patch("bot", json!({"scopes": ["orders:refund"], "reason": "x"})),
        post("/v1/tokens/bot/grants", json!({"scope": "orders:refund", "ttl": "1m", "reason": "x"})),
        patch("refunder", json!({"allow_cidr": [], "reason": "x"})),
        patch("refunder", json!({"allow_cidr": ["0.0.0.0/0"], "reason": "x"})),
        post("/v1/tokens/refunder/rotate", json!({"reason": "x"})),
        post("/v1/tokens/refunder/children", json!({"ttl": "1m", "reason": "x"})),
        post(
            "/v1/tokens/bulk",
            json!({"token": {"name": "b", "owner": "t", "scopes": ["orders:refund"], "ttl": "1m"}, "count": 2}),
        ),
    ] {
        refused.refused(403, "above-ceiling");
    }
    patch("bot", json!({"expires": far, "reason": "x"})).refused(422, "token-rules");
    // What gives nothing is within every ceiling.
    assert_eq!(patch("refunder", json!({"note": "n", "reason": "x"})).status, 200);
    assert_eq!(patch("refunder", json!({"allow_cidr": ["10.1.0.0/16"], "reason": "x"})).status, 200);
    assert_eq!(post("/v1/tokens/bot/grants", json!({"scope": "orders:read", "ttl": "1m", "reason": "x"})).status, 200);
}

#[test]
fn a_restriction_only_takes_and_says_what_is_not_there_to_take() {
    let plane = start();
    let (_, secret) = plane
        .make(&json!({"name": "bot", "owner": "team", "roles": ["reader"], "scopes": ["orders:refund"], "ttl": "20m"}));
    let restrict = |body: Value| plane.post(&plane.root, "/v1/tokens/bot/restrict", &body);
    restrict(json!({"reason": "x"})).refused(422, "invalid-value");
    restrict(json!({"remove_scopes": ["orders:read"], "reason": "x"})).refused(422, "invalid-value");
    restrict(json!({"allow_cidr": [], "reason": "x"})).refused(422, "invalid-value");
    let less = restrict(
        json!({"remove_scopes": ["orders:refund"], "allow_cidr": ["127.0.0.0/8"], "limits": {"rate": 5}, "reason": "x"}),
    );
    assert_eq!(less.json()["durable"], true, "{less:?}");
    let token = &less.json()["token"];
    assert_eq!((&token["grants"], &token["limits"]["rate"]), (&json!([]), &json!(5)));
    assert_eq!(plane.decide_about(REFUND.0, REFUND.1, &secret), "insufficient_scope");
    assert_eq!(plane.decide(&secret), "scope_granted");
    // Never more, whatever is asked.
    let wider = restrict(
        json!({"allow_cidr": ["0.0.0.0/0"], "limits": {"rate": 50}, "expires": "2096-10-02T07:06:40Z", "reason": "x"}),
    );
    let token = &wider.json()["token"];
    assert_eq!((&token["restrictions"]["source_ip"], &token["limits"]["rate"]), (&json!(["127.0.0.0/8"]), &json!(5)));
    assert!(token["expires"].as_str().unwrap() < "2090");
    let details = plane.events("token.restrict").last().unwrap()["change"]["details"].to_string();
    assert!(!details.contains("rate 50"), "{details}");
}

#[test]
fn what_is_revoked_or_another_ones_stand_in_is_not_changed() {
    let plane = start();
    plane.make(&bot());
    let child = plane.post(&plane.root, "/v1/tokens/bot/children", &json!({"ttl": "5m", "reason": "x"}));
    let child = child.json()["token"]["accessor"].as_str().unwrap().to_owned();
    let edit =
        |name: &str| plane.patch(&plane.root, &format!("/v1/tokens/{name}"), "*", &json!({"note": "n", "reason": "x"}));
    edit(&child).refused(409, "conflict");
    plane.post(&plane.root, "/v1/tokens/bot/revoke", &json!({"reason": "x"}));
    edit("bot").refused(409, "conflict");
    edit("nobody").refused(404, "not-found");
    let (old, _) = plane.make(&json!({"name": "rotated", "owner": "team", "roles": ["reader"], "ttl": "12h"}));
    plane.post(&plane.root, "/v1/tokens/rotated/rotate", &json!({"grace": "1m", "reason": "x"}));
    edit(&old).refused(409, "conflict");
    let more = json!({"scope": "orders:refund", "ttl": "1m", "reason": "x"});
    plane.post(&plane.root, &format!("/v1/tokens/{old}/grants"), &more).refused(409, "conflict");
}

#[test]
fn less_is_taken_without_a_policy_too_where_it_has_no_say() {
    let plane = Setup { policy: None, ..Setup::default() }.start();
    let token = |name: &str| leastgate_store::NewToken {
        name: leastgate_store::TokenName::parse(name).unwrap(),
        owner: Some("team".into()),
        roles: vec!["reader".into(), "writer".into()],
        grants: vec![],
        restrictions: Default::default(),
        limits: Default::default(),
        created: leastgate_policy::Timestamp(1),
        created_by: "test".into(),
        expires: None,
        parent: None,
        is_canary: false,
        note: None,
    };
    let issued = leastgate_store::issue_token(&*plane.store, "test", plane.authority.key(), &token("bot")).unwrap();
    plane.authority.upsert(issued.record.entry()).unwrap();
    let restrict = |body: Value| plane.post(&plane.root, "/v1/tokens/bot/restrict", &body);
    for body in [json!({"limits": {"rate": 5}, "reason": "x"}), json!({"allow_cidr": ["10.0.0.0/8"], "reason": "x"})] {
        let less = restrict(body);
        assert_eq!(less.status, 200, "{less:?}");
    }
    // What is taken by name might deny something: nobody knows.
    restrict(json!({"remove_roles": ["writer"], "reason": "x"})).refused(503, "authorization-unavailable");
}

#[test]
fn a_burst_that_is_only_said_is_not_more_than_it_seems() {
    let plane = start();
    let operator = operator(&plane);
    plane.make(&json!({"name": "refunder", "owner": "team", "scopes": ["orders:refund"], "ttl": "10m"}));
    let patch = |by: &str, limits: Value| {
        plane.patch(by, "/v1/tokens/refunder", "*", &json!({"limits": limits, "reason": "x"}))
    };
    assert_eq!(patch(&plane.root, json!({"rate": 10})).status, 200);
    patch(&operator, json!({"rate": 10, "burst": 1000})).refused(403, "above-ceiling");
    patch(&operator, json!({})).refused(403, "above-ceiling");
    assert_eq!(patch(&operator, json!({"rate": 10, "burst": 5})).status, 200);
}

#[test]
fn what_denies_is_not_taken_away_as_if_it_were_less() {
    let mut spec = crate::fixture::policy();
    let text = |value: &str| value.to_owned().into();
    let rule = |value: &str| leastgate_policy::spec::RuleSpec { text: text(value), when: None };
    spec.scopes.push(leastgate_policy::spec::ScopeSpec {
        name: text("orders:guarded"),
        api: text("orders"),
        deny: vec![rule("GET /v1/orders")],
        ..Default::default()
    });
    let plane = Setup { policy: Some(spec), ..Default::default() }.start();
    let operator = operator(&plane);
    let bot = json!({"name": "bot", "owner": "team", "scopes": ["orders:guarded", "orders:read", "orders:refund"], "ttl": "10m"});
    let (_, secret) = plane.make(&bot);
    assert_eq!(plane.decide(&secret), "explicit_deny");
    let restrict = json!({"remove_scopes": ["orders:guarded"], "reason": "x"});
    plane.post(&operator, "/v1/tokens/bot/restrict", &restrict).refused(422, "invalid-value");
    let patch =
        |by: &str, scopes: &[&str]| plane.patch(by, "/v1/tokens/bot", "*", &json!({"scopes": scopes, "reason": "x"}));
    patch(&operator, &["orders:read", "orders:refund"]).refused(403, "above-ceiling");
    assert_eq!(plane.decide(&secret), "explicit_deny");
    assert_eq!(patch(&operator, &["orders:read", "orders:guarded"]).status, 200);
    assert_eq!(patch(&plane.root, &["orders:read"]).status, 200);
    assert_eq!(plane.decide(&secret), "scope_granted");

    let only = json!({"name": "only", "owner": "team", "scopes": ["orders:guarded"], "ttl": "10m"});
    plane.make(&only);
    let less = plane.post(&operator, "/v1/tokens/only/restrict", &restrict);
    assert_eq!(less.status, 200, "who holds nothing any more can do no more");
}
