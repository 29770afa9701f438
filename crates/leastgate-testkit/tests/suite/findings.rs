//! What somebody should look at: tokens that should have been rotated and tokens that end soon, as the API lists them and as
//! the metrics count them.

use leastgate_testkit::gateway::Setup;
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::recorder::RecorderUpstream;
use leastgate_testkit::shifted_clock::ShiftedClock;
use serde_json::{Value, json};

use crate::stored::Stored;

const OVERDUE: &str = "leastgate_tokens_rotation_overdue";

/// A gateway with this rule, whose wall clock is in the hands of the test.
fn start(rule: &str) -> (Stored, ShiftedClock) {
    let policy = ORDERS.replace("max_ttl: 90d", &format!("max_ttl: 90d{rule}"));
    let upstream = RecorderUpstream::start();
    let setup = Setup::new(&policy).without_tokens().section("tokens", "{ source: store }");
    let clock = ShiftedClock::new(setup.path());
    let setup = clock.variables().iter().fold(setup, |setup, (name, value)| setup.variable(name, value));
    (Stored { gateway: setup.upstream("orders", &upstream.url()).start(), upstream }, clock)
}

fn make(stored: &Stored, root: &str, name: &str, more: Value) -> Value {
    let mut body = json!({ "name": name, "owner": "team-test", "ttl": "60d" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = stored.api("POST", "/v1/tokens", Some(root), Some(body));
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()["token"].clone()
}

/// `type name`, as a viewer gets them, and that these are all.
fn found(stored: &Stored, viewer: &str, query: &str) -> Vec<String> {
    let list = stored.api("GET", &format!("/v1/findings{query}"), Some(viewer), None).json();
    assert_eq!(list["complete"], true, "{list}");
    let items = list["items"].as_array().unwrap();
    let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
    items.iter().map(|item| format!("{} {}", text(item, "type"), text(item, "name"))).collect()
}

fn overdue(stored: &Stored) -> f64 {
    stored.gateway.metrics().sum(OVERDUE, &[])
}

/// The metric is counted each minute, and when the gateway starts.
fn restart(stored: &mut Stored) {
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
}

#[test]
fn what_should_have_been_rotated_is_listed_and_counted_until_it_is() {
    let (mut stored, clock) = start(", rotation: { every: 30d }");
    let (root, viewer) = (stored.administrator("root-2", "admin"), stored.administrator("vera", "viewer"));
    let roles = json!({ "roles": ["reader"] });
    let old = make(&stored, &root, "old", roles.clone());
    make(&stored, &root, "ending", json!({ "roles": ["reader"], "ttl": "36d" }));
    make(&stored, &root, "off", roles.clone());
    make(&stored, &root, "bait", json!({ "canary": true }));
    stored.cli(&["token", "disable", "off", "--reason", "test", "--yes"]);
    clock.shift("+29d");
    make(&stored, &root, "fresh", roles);
    restart(&mut stored);
    assert_eq!(found(&stored, &viewer, "?type=overdue_rotation"), [""; 0], "not yet");
    assert_eq!((found(&stored, &viewer, ""), overdue(&stored)), (vec!["expiring ending".to_owned()], 0.0));

    clock.shift("+31d");
    restart(&mut stored);
    let expected = ["overdue_rotation old", "overdue_rotation ending", "expiring ending"];
    let mut all = found(&stored, &viewer, "");
    // Of one second both.
    all[..2].sort_by(|one, other| other.cmp(one));
    assert_eq!((all, overdue(&stored)), (expected.map(str::to_owned).to_vec(), 2.0));
    let list = stored.api("GET", "/v1/findings?type=overdue_rotation", Some(&viewer), None).json();
    let item = list["items"].as_array().unwrap().iter().find(|item| item["name"] == "old").unwrap();
    assert_eq!((&item["accessor"], &item["owner"]), (&old["accessor"], &json!("team-test")));
    let due = stored.api("GET", "/v1/tokens/old/rotation", Some(&viewer), None).json()["due"].clone();
    assert_eq!(item["at"], due, "it says since when");
    assert!(item["detail"].as_str().unwrap().contains("every 30d"), "{item}");
    let fix: Vec<&str> = item["fix"].as_str().unwrap().split(' ').skip(1).collect();
    assert_eq!(fix, ["token", "rotate", "old", "--grace", "48h", "--reason", "TEXT"]);

    // What it says helps.
    let file = stored.gateway.path().join("successor.secret").display().to_string();
    let fix: Vec<&str> = fix.into_iter().chain(["--secret-file", &file]).collect();
    stored.cli(&fix);
    assert_eq!(found(&stored, &viewer, "?type=overdue_rotation"), ["overdue_rotation ending"]);
    restart(&mut stored);
    assert_eq!(overdue(&stored), 1.0);
}

#[test]
fn without_a_rule_nothing_is_overdue_however_old_and_who_may_not_know_learns_nothing() {
    let (mut stored, clock) = start("");
    let (root, viewer) = (stored.administrator("root-2", "admin"), stored.administrator("vera", "viewer"));
    make(&stored, &root, "old", json!({ "roles": ["reader"] }));
    clock.shift("+50d");
    restart(&mut stored);
    assert_eq!((found(&stored, &viewer, "?type=overdue_rotation"), overdue(&stored)), (vec![], 0.0));
    let refused = |credential: Option<&str>, query: &str| {
        stored.api("GET", &format!("/v1/findings{query}"), credential, None).status
    };
    assert_eq!((refused(None, ""), refused(Some(&viewer), "?type=unheard")), (401, 422));
}
