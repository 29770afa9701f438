//! Many tokens at once: made, handed over, and revoked by a filter.

use std::collections::HashSet;

use leastgate_policy::Timestamp;
use leastgate_store::{UsageBatch, UsageDelta};
use serde_json::{Value, json};

use crate::fixture::{Plane, start};

fn token(name: &str, owner: &str, more: &Value) -> Value {
    let mut token = json!({"name": name, "owner": owner, "ttl": "20m"});
    token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    token
}

#[test]
fn many_are_made_alike_each_with_a_secret_of_its_own() {
    let plane = start();
    let model = token("bot", "team", &json!({"roles": ["reader"]}));
    let made = plane.post(&plane.root, "/v1/tokens/bulk", &json!({"token": model, "count": 300}));
    assert_eq!(made.status, 201, "{made:?}");
    let json = made.json();
    let items = json["items"].as_array().unwrap();
    let secrets: HashSet<&str> = items.iter().map(|item| item["secret"].as_str().unwrap()).collect();
    assert_eq!((items.len(), secrets.len()), (300, 300));
    assert_eq!((&items[0]["name"], &items[299]["name"]), (&json!("bot-1"), &json!("bot-300")));
    for item in [&items[0], &items[299]] {
        assert_eq!(plane.decide(item["secret"].as_str().unwrap()), "scope_granted");
    }
    let told: usize = plane
        .events("token.create")
        .iter()
        .map(|event| event["change"]["details"][0]["value"].as_str().unwrap().split(' ').count())
        .sum();
    assert_eq!(told, 300, "every accessor is on record");
    let random: Vec<String> = secrets.iter().map(|secret| secret.split('_').nth(3).unwrap().to_owned()).collect();
    let events = format!("{:?}", plane.events("token.create"));
    assert!(random.iter().all(|random| !events.contains(random)));
}

#[test]
fn many_are_made_or_none() {
    let plane = start();
    plane.make(&token("bot-7", "team", &json!({"roles": ["reader"]})));
    let model = token("bot", "team", &json!({"roles": ["reader"]}));
    let bulk = |count: u32, first: u32| {
        plane.post(&plane.root, "/v1/tokens/bulk", &json!({"token": model, "count": count, "first": first}))
    };
    bulk(10, 1).refused(409, "name-taken");
    assert_eq!(plane.authority.tokens().len(), 1);
    assert_eq!(bulk(10, 8).status, 201);
    for count in [0, 10_001] {
        bulk(count, 100).refused(422, "invalid-value");
    }
    let last = u32::MAX;
    bulk(10, last - 8).refused(422, "invalid-value");
    bulk(2, last).refused(422, "invalid-value");
    let made = bulk(10, last - 9).json();
    assert_eq!(made["items"][9]["name"], json!(format!("bot-{last}")), "up to the last number there is");
    let without_end = json!({"token": {"name": "x", "owner": "t", "roles": ["reader"]}, "count": 3});
    plane.post(&plane.root, "/v1/tokens/bulk", &without_end).refused(422, "token-rules");
}

fn family(plane: &Plane) -> Vec<String> {
    [
        token("reader-a", "ann", &json!({"roles": ["reader"]})),
        token("reader-b", "bob", &json!({"roles": ["reader"]})),
        token("by-name", "ann", &json!({"scopes": ["orders:read"]})),
        token("refunder", "bob", &json!({"scopes": ["orders:refund"]})),
    ]
    .iter()
    .map(|token| plane.make(token).1)
    .collect()
}

#[test]
fn a_filter_revokes_what_fits_all_of_it_and_a_dry_run_nothing() {
    let plane = start();
    let secrets = family(&plane);
    let revoke = |body: &Value| plane.post(&plane.root, "/v1/revocations", body);
    let dry = revoke(&json!({"scope": "orders:read", "dry_run": true, "reason": "leak"})).json();
    assert_eq!((&dry["matched"], &dry["revoked"]), (&json!(3), &json!(0)), "by name and through a role");
    let names: Vec<&str> = dry["sample"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["by-name", "reader-a", "reader-b"]);
    assert_eq!(plane.decide(&secrets[0]), "scope_granted");

    let done = revoke(&json!({"scope": "orders:read", "owner": "ann", "reason": "leak"})).json();
    assert_eq!((&done["streams_cut"], &done["streams_cut_complete"]), (&json!(0), &json!(true)));
    assert_eq!((&done["matched"], &done["revoked"], &done["durable"]), (&json!(2), &json!(2), &json!(true)));
    let after: Vec<String> = secrets.iter().map(|secret| plane.decide(secret)).collect();
    assert_eq!(after, ["token_revoked", "scope_granted", "token_revoked", "insufficient_scope"]);
    for name in ["reader-a", "by-name"] {
        let kept = plane.store.find_token(name).unwrap();
        assert_eq!(kept.state_changed.unwrap().reason, "leak");
    }
    assert_eq!(revoke(&json!({"role": "reader", "reason": "x"})).json()["matched"], 1);
    let events = plane.events("token.revocations");
    let details = events[1]["change"]["details"].to_string();
    assert!(details.contains(r#"{"name":"owner","value":"ann"}"#) && details.contains(r#""value":"2""#), "{details}");
    assert_eq!(plane.events("token.revoke").len(), 2, "which they were is on record");
}

#[test]
fn times_are_filters_too() {
    let plane = start();
    let secrets = family(&plane);
    let accessor = plane.store.find_token("reader-a").unwrap().accessor;
    let used = UsageDelta {
        accessor,
        rule: Some("r".into()),
        count: 1,
        last_used: Timestamp(4_000_000_000),
        last_source: None,
    };
    plane.store.record_usage(UsageBatch::draw(vec![used]).unwrap()).unwrap();
    let revoke = |body: &Value| plane.post(&plane.root, "/v1/revocations", body).json();
    assert_eq!(revoke(&json!({"created_before": "2001-01-01T00:00:00Z", "reason": "x"}))["matched"], 0);
    assert_eq!(revoke(&json!({"unused_since": "2090-01-01T00:00:00Z", "owner": "ann", "reason": "x"}))["revoked"], 1);
    assert_eq!(plane.decide(&secrets[0]), "scope_granted", "it was used");
    assert_eq!(plane.decide(&secrets[2]), "token_revoked");
    assert_eq!(revoke(&json!({"created_before": "2090-01-01T00:00:00Z", "reason": "x"}))["revoked"], 3);
}

#[test]
fn a_filter_that_asks_nothing_or_what_is_not_there_revokes_nothing() {
    let plane = start();
    let secrets = family(&plane);
    let revoke = |body: &Value| plane.post(&plane.root, "/v1/revocations", body);
    revoke(&json!({"reason": "x"})).refused(422, "invalid-value");
    revoke(&json!({"scope": "orders:raed", "reason": "x"})).refused(422, "invalid-value");
    revoke(&json!({"owner": "ann"})).refused(422, "invalid-value");
    revoke(&json!({"ownr": "ann", "reason": "x"})).refused(422, "invalid-value");
    plane.is_usage_behind.store(true, std::sync::atomic::Ordering::Relaxed);
    revoke(&json!({"unused_since": "2090-01-01T00:00:00Z", "reason": "x"})).refused(503, "store-unavailable");
    assert_eq!(plane.decide(&secrets[0]), "scope_granted");
}

#[test]
fn what_one_gateway_hands_over_works_in_the_other_one() {
    let (from, to) = (start(), start());
    let secrets = family(&from);
    from.post(&from.root, "/v1/tokens/reader-b/revoke", &json!({"reason": "x"}));
    let page = from.get(&from.root, "/v1/exports").json();
    assert_eq!((page["items"].as_array().unwrap().len(), &page["next_cursor"]), (3, &json!(null)));
    let body = json!({"tokens": page["items"], "reason": "moved"});
    let import = |body: &Value| to.post(&to.root, "/v1/tokens/import", body);
    assert_eq!(import(&body).json(), json!({"imported": 3, "unchanged": 0}));
    assert_eq!(import(&body).json(), json!({"imported": 0, "unchanged": 3}), "a second time changes nothing");
    let elsewhere = start();
    let made = to.store.find_token("reader-a").unwrap().created.0;
    let mut old = page["items"][0].clone();
    old["created"] = json!(leastgate_admin::api::Moment(Timestamp(made - 36_000)).to_string());
    let moved = elsewhere.post(&elsewhere.root, "/v1/tokens/import", &json!({"tokens": [old], "reason": "moved"}));
    assert_eq!(moved.status, 200, "{moved:?}");
    let idle = elsewhere.store.idle_tokens(Timestamp(made - 3_600), 10);
    assert_eq!(idle, Ok(vec![]), "what comes in now is not idle since it was made");
    let after: Vec<String> = secrets.iter().map(|secret| to.decide(secret)).collect();
    assert_eq!(after, ["scope_granted", "token_unknown", "scope_granted", "insufficient_scope"]);

    let with = |key: &str, value: Value| {
        let mut token = page["items"][0].clone();
        token[key] = value;
        json!({"tokens": [token], "reason": "x"})
    };
    let other_pepper = import(&with("pepper_id", json!("00000000")));
    other_pepper.refused(422, "invalid-value");
    assert!(other_pepper.body.contains("another pepper") && other_pepper.body.contains("tokens[0] (reader-a)"));
    import(&with("env", json!("prod"))).refused(422, "invalid-value");
    import(&with("created", json!("2090-01-01T00:00:00Z"))).refused(422, "invalid-value");
    import(&with("digest", json!("blake3:00"))).refused(422, "invalid-value");
    import(&with("roles", json!(["nobody"]))).refused(422, "token-rules");
    import(&with("accessor", page["items"][1]["accessor"].clone())).refused(409, "conflict");
    to.get(&crate::fixture::operator(&to), "/v1/exports").refused(403, "insufficient-role");
}

#[test]
fn every_page_of_an_export_is_on_record_and_so_is_who_was_refused_it() {
    let plane = start();
    let model = token("bot", "team", &json!({"roles": ["reader"]}));
    let made = plane.post(&plane.root, "/v1/tokens/bulk", &json!({"token": model, "count": 201}));
    assert_eq!(made.status, 201);
    let first = plane.get(&plane.root, "/v1/exports").json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = plane.get(&plane.root, &format!("/v1/exports?cursor={cursor}")).json();
    assert_eq!([&first, &second].map(|page| page["items"].as_array().unwrap().len()), [200, 1]);
    plane.get(&crate::fixture::operator(&plane), "/v1/exports").refused(403, "insufficient-role");
    plane.get(&plane.root, "/v1/exports?cursor=x").refused(422, "invalid-value");

    let events = plane.events("token.export");
    let results: Vec<&str> = events.iter().map(|event| event["change"]["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["ok", "ok", "insufficient-role", "invalid-value"]);
    let details = |event: &Value| -> std::collections::HashMap<String, String> {
        let details = event["change"]["details"].as_array().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        details.map(|detail| (text(&detail["name"]), text(&detail["value"]))).collect()
    };
    let pages = [&events[0], &events[1]].map(details);
    assert_eq!([&pages[0]["exported"], &pages[1]["exported"]], ["200", "1"]);
    assert_eq!([&pages[0]["next_cursor"], &pages[1]["cursor"]], [cursor, cursor]);
    assert_eq!(pages[1]["accessors"], second["items"][0]["accessor"].as_str().unwrap());
    assert_eq!(pages[0]["accessors"].split(' ').count(), 200);
    assert_eq!((&events[0]["actor"]["subject"], &events[2]["actor"]["subject"]), (&json!("root"), &json!("op")));
}

/// Another gateway goes on handing out what was revoked here, and a file of it may be years old.
#[test]
fn an_import_does_not_bring_back_what_was_taken_away_here_and_purged() {
    let plane = start();
    let secrets = family(&plane);
    let page = plane.get(&plane.root, "/v1/exports").json();
    let item = |name: &str| page["items"].as_array().unwrap().iter().find(|item| item["name"] == name).unwrap().clone();
    let [revoked, rotated, over] = ["reader-a", "by-name", "refunder"].map(item);
    plane.post(&plane.root, "/v1/tokens/by-name/rotate", &json!({"grace": "1s", "reason": "due"}));
    plane.post(&plane.root, "/v1/tokens/reader-a/revoke", &json!({"reason": "leaked"}));
    let far = Timestamp(4_100_000_000);
    for digest in plane.store.purge(far, 1_000).unwrap() {
        plane.authority.remove(&digest);
    }
    assert_eq!(plane.decide(&secrets[0]), "token_unknown");
    let import = |token: &Value| {
        plane.post(&plane.root, "/v1/tokens/import", &json!({"tokens": [over, token], "reason": "from the other one"}))
    };
    let refused = import(&revoked);
    refused.refused(409, "conflict");
    let accessor = revoked["accessor"].as_str().unwrap();
    for word in ["tokens[1] (reader-a)", accessor, "revoked here at 20", "purged"] {
        assert!(refused.body.contains(word), "{word}: {}", refused.body);
    }
    let refused = import(&rotated);
    refused.refused(409, "conflict");
    assert!(refused.body.contains("moved nearer here"), "its grace is over: {}", refused.body);
    let mut renamed = revoked.clone();
    renamed["accessor"] = json!("AAAAAAAAAB");
    let refused = import(&renamed);
    refused.refused(409, "conflict");
    assert!(refused.body.contains(accessor), "by its digest: {}", refused.body);
    assert_eq!(plane.decide(&secrets[0]), "token_unknown");
    assert_eq!(plane.authority.tokens().len(), 0, "all or none");
    let alone = plane.post(&plane.root, "/v1/tokens/import", &json!({"tokens": [over], "reason": "its end had come"}));
    assert_eq!(alone.json()["imported"], 1, "{alone:?}");
}

#[test]
fn what_an_import_is_refused_for_is_said_of_the_token_that_it_is_about() {
    let (from, to) = (start(), start());
    family(&from);
    to.make(&token("by-name", "team", &json!({"roles": ["reader"]})));
    let page = from.get(&from.root, "/v1/exports").json();
    let items = page["items"].as_array().unwrap();
    let import = |items: &[Value]| to.post(&to.root, "/v1/tokens/import", &json!({"tokens": items, "reason": "x"}));
    let refused = import(items);
    refused.refused(409, "name-taken");
    let at = items.iter().position(|item| item["name"] == "by-name").unwrap();
    assert!(refused.body.contains(&format!("tokens[{at}] (by-name)")), "{}", refused.body);
    let mut rest: Vec<Value> = items.iter().filter(|item| item["name"] != "by-name").cloned().collect();
    for (field, value) in
        [("accessor", &rest[0]["accessor"]), ("digest", &rest[0]["digest"]), ("name", &rest[0]["name"])]
    {
        let mut twice = rest.clone();
        twice[2][field] = value.clone();
        let refused = import(&twice);
        refused.refused(422, "invalid-value");
        let told = format!("it has the {field} of tokens[0]");
        assert!(refused.body.contains("tokens[2]") && refused.body.contains(&told), "{}", refused.body);
    }
    assert_eq!(to.authority.tokens().len(), 1, "all or none");
    assert_eq!(import(&rest).json()["imported"], 3);
    rest[1]["accessor"] = json!("AAAAAAAAAB");
    let refused = import(&rest);
    refused.refused(409, "conflict");
    assert!(refused.body.contains("tokens[1]") && refused.body.contains("another token"), "{}", refused.body);
}

#[test]
fn an_import_that_can_never_succeed_says_which_token_is_to_blame() {
    let plane = start();
    plane.make(&json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "1h"}));
    let here = plane.get(&plane.root, "/v1/exports").json()["items"][0].clone();
    let foreign = |number: usize, changes: Value| {
        let mut token = here.clone();
        token["accessor"] = json!(format!("AAAAAAAAA{number}"));
        token["name"] = json!(format!("foreign-{number}"));
        token["digest"] = json!(format!("blake3:{}", format!("{number:02}").repeat(32)));
        for (key, value) in changes.as_object().unwrap() {
            token[key] = value.clone();
        }
        token
    };
    let import =
        |tokens: &[Value]| plane.post(&plane.root, "/v1/tokens/import", &json!({"tokens": tokens, "reason": "moved"}));
    let one = foreign(1, json!({}));
    let grant = json!({"scope": "orders:read", "expires": null, "reason": null});
    import(&[foreign(3, json!({"grants": [grant, grant]}))]).refused(422, "invalid-value");
    let refused = import(&[one.clone(), foreign(4, json!({"digest": here["digest"]}))]);
    refused.refused(409, "conflict");
    assert_eq!(refused.header("retry-after"), None);
    assert_eq!(plane.get(&plane.root, "/v1/tokens").json()["items"].as_array().unwrap().len(), 1, "all or none");
    assert_eq!(import(&[one]).json()["imported"], 1);
}
