//! Whom a taking is about. What is taken by name is taken from all that have it. And where a rotation hands a name over meanwhile,
//! the successor, drawn from what the token was, must not have it, nor what stands in for them, in force or in the store.

use leastgate_policy::TokenState;
use serde_json::{Value, json};

use crate::fixture::{Plane, Reply, Setup, ask, memory, policy, start, until};
use crate::held_store::{Holder, hold};

/// A plane whose rotations wait, with a token and what stands in for it.
struct Race {
    plane: Plane,
    rotations: Holder,
    accessor: String,
    secret: String,
    child: String,
    child_secret: String,
}

/// What a way of taking asks for, and what it leaves.
struct Way {
    how: &'static str,
    body: Value,
    decision: &'static str,
    state: TokenState,
}

fn ways() -> [Way; 3] {
    let way = |how, body, decision, state| Way { how, body, decision, state };
    [
        way("revoke", json!({"reason": "leaked"}), "token_revoked", TokenState::Revoked),
        way("disable", json!({"reason": "leaked"}), "token_disabled", TokenState::Disabled),
        way(
            "restrict",
            json!({"remove_roles": ["reader"], "reason": "leaked"}),
            "insufficient_scope",
            TokenState::Active,
        ),
    ]
}

impl Race {
    fn begin() -> Self {
        let (store, rotations) = hold(memory());
        let plane = Setup { store, ..Setup::default() }.start();
        let bot = json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "12h", "limits": {"rate": 1000}});
        let (accessor, secret) = plane.make(&bot);
        let child = plane.post(&plane.root, "/v1/tokens/bot/children", &json!({"ttl": "11h", "reason": "x"})).json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (child, child_secret) = (text(&child["token"]["accessor"]), text(&child["secret"]));
        Self { plane, rotations, accessor, secret, child, child_secret }
    }

    /// The answers of a rotation that is about to be written when `taking` is asked for, and goes on when `is_taken`; or, where
    /// `is_slow`, when the taking is answered.
    fn run(&self, target: &str, way: (&str, &Value), is_slow: bool, is_taken: impl Fn() -> bool) -> [Reply; 2] {
        let plane = &self.plane;
        let post = |path: String, body: Value| {
            let (admin, root) = (plane.admin, plane.root.clone());
            move || ask(admin, &root, "POST", &path, "", Some(&body.to_string()))
        };
        std::thread::scope(|scope| {
            let rotate = json!({"grace": "1h", "reason": "monthly"});
            let rotated = scope.spawn(post("/v1/tokens/bot/rotate".to_owned(), rotate));
            self.rotations.wait();
            let taken = scope.spawn(post(format!("/v1/tokens/{target}/{}", way.0), way.1.clone()));
            until("what is taken is gone at once", is_taken);
            let taken = if is_slow {
                let taken = taken.join().unwrap();
                self.rotations.let_go();
                taken
            } else {
                self.rotations.let_go();
                taken.join().unwrap()
            };
            [rotated.join().unwrap(), taken]
        })
    }

    fn kept(&self, accessor: &str) -> leastgate_store::TokenRecord {
        self.plane.store.token(accessor.parse().unwrap()).unwrap()
    }

    /// Whoever has the name by now has nothing of what was taken, nor has what stands in for them.
    #[track_caller]
    fn check(&self, way: &Way, rotated: &Reply) -> String {
        let plane = &self.plane;
        assert_eq!(rotated.status, 201, "{}: {rotated:?}", way.how);
        let successor = rotated.json()["token"]["accessor"].as_str().unwrap().to_owned();
        let secret = rotated.json()["secret"].as_str().unwrap().to_owned();
        assert_eq!([&self.secret, &secret].map(|secret| plane.decide(secret)), [way.decision; 2], "{}", way.how);
        assert_eq!(plane.decide(&self.child_secret), "token_revoked", "{}", way.how);
        until("the store holds it", || plane.get(&plane.root, "/v1/status").json()["unsynced_changes"] == 0);
        let kept = self.kept(&successor);
        assert_eq!((kept.state, kept.roles.is_empty()), (way.state, way.how == "restrict"), "{}", way.how);
        assert_eq!(self.kept(&self.child).state, TokenState::Revoked, "{}: after a restart it would be back", way.how);
        successor
    }
}

#[test]
fn what_is_taken_while_a_rotation_is_written_is_taken_from_the_successor_too() {
    for way in ways() {
        for is_by_name in [true, false] {
            let race = Race::begin();
            let target = if is_by_name { "bot" } else { race.accessor.as_str() };
            let is_taken = || race.plane.decide(&race.secret) == way.decision;
            let [rotated, taken] = race.run(target, (way.how, &way.body), false, is_taken);
            assert_eq!((taken.status, &taken.json()["durable"]), (200, &json!(true)), "{}: {taken:?}", way.how);
            let successor = race.check(&way, &rotated);
            let also = &taken.json()["also"];
            assert_eq!((also.as_array().unwrap().len(), &also[0]["accessor"]), (1, &json!(successor)), "{taken:?}");
            let events = race.plane.events(&format!("token.{}", way.how));
            let targets: Vec<&Value> = events.iter().map(|event| &event["change"]["target"]).collect();
            assert!(targets.contains(&&json!(successor)) && targets.contains(&&json!(race.accessor)), "{targets:?}");
            let own = events.iter().find(|event| event["change"]["target"] == race.accessor).unwrap();
            let details = own["change"]["details"].as_array().unwrap();
            assert!(details.contains(&json!({"name": "also", "value": successor})), "{own}");
        }
    }
}

/// The turn to change does not come for as long as the rotation is written.
#[test]
fn what_is_owed_when_a_rotation_is_kept_is_owed_of_the_successor() {
    std::thread::scope(|scope| {
        for way in ways() {
            scope.spawn(move || {
                let race = Race::begin();
                let is_taken = || race.plane.decide(&race.secret) == way.decision;
                let [rotated, taken] = race.run("bot", (way.how, &way.body), true, is_taken);
                assert_eq!((taken.status, &taken.json()["durable"]), (200, &json!(false)), "{}: {taken:?}", way.how);
                let shown = &rotated.json()["token"];
                let state = if way.how == "restrict" { "active" } else { way.state.as_str() };
                assert_eq!((&shown["state"], shown["roles"] == json!([])), (&json!(state), way.how == "restrict"));
                race.check(&way, &rotated);
                let event = race.plane.events("token.rotate").remove(0);
                let told = json!({"name": "state.after", "value": state});
                assert!(event["change"]["details"].as_array().unwrap().contains(&told), "{event}");
            });
        }
    });
}

#[test]
fn limits_that_are_taken_while_a_rotation_is_written_are_the_successors() {
    let race = Race::begin();
    let digest = race.plane.authority.key().digest(race.secret.as_bytes());
    let rate = |digest: &leastgate_policy::TokenDigest| {
        race.plane.authority.token(digest).and_then(|token| token.terms).and_then(|terms| terms.limits.rate)
    };
    let tight = json!({"limits": {"rate": 3}, "remove_roles": ["reader"], "reason": "leaked"});
    let [rotated, taken] = race.run("bot", ("restrict", &tight), false, || rate(&digest) == Some(3));
    assert_eq!((rotated.status, taken.status), (201, 200), "{taken:?}");
    let successor = rotated.json()["token"]["accessor"].as_str().unwrap().to_owned();
    let secret = rotated.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(rate(&race.plane.authority.key().digest(secret.as_bytes())), Some(3));
    assert_eq!(race.kept(&successor).limits.rate, Some(3));
    assert_eq!([&race.secret, &secret].map(|secret| race.plane.decide(secret)), ["insufficient_scope"; 2]);
}

/// A plane with a token that was rotated twice: accessors and secrets, who holds the name first.
fn rotated_twice() -> (Plane, [String; 3], [String; 3]) {
    let plane = start();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (first, first_secret) = plane
        .make(&json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "12h", "limits": {"rate": 1000}}));
    let rotate = || {
        let rotated = plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"grace": "1h", "reason": "due"})).json();
        (text(&rotated["token"]["accessor"]), text(&rotated["secret"]))
    };
    let ((second, second_secret), (third, third_secret)) = (rotate(), rotate());
    (plane, [third, second, first], [third_secret, second_secret, first_secret])
}

fn accessors(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|token| token["accessor"].as_str().unwrap()).collect()
}

#[test]
fn what_is_taken_by_name_is_taken_from_those_in_grace_too() {
    for way in ways() {
        let (plane, [third, second, first], secrets) = rotated_twice();
        let taken = plane.post(&plane.root, &format!("/v1/tokens/bot/{}", way.how), &way.body).json();
        assert_eq!((&taken["durable"], accessors(&taken["in_grace"]).len()), (&json!(true), 0), "{taken}");
        assert_eq!(accessors(&taken["also"]), [&second, &first], "{taken}");
        let state = if way.how == "restrict" { "rotating" } else { way.state.as_str() };
        assert!(taken["also"].as_array().unwrap().iter().all(|token| token["state"] == state), "{taken}");
        assert_eq!(secrets.each_ref().map(|secret| plane.decide(secret)), [way.decision; 3], "{}", way.how);
        for accessor in [&third, &second, &first] {
            let kept = plane.store.token(accessor.parse().unwrap()).unwrap();
            let is_taken = if way.how == "restrict" { kept.roles.is_empty() } else { kept.state == way.state };
            assert!(is_taken, "{}: {kept:?}", way.how);
            let events = plane.events(&format!("token.{}", way.how));
            assert!(events.iter().any(|event| event["change"]["target"] == json!(accessor)), "{}", way.how);
        }
    }
}

#[test]
fn an_accessor_means_one_token_and_the_answer_names_those_in_grace() {
    for way in ways() {
        let (plane, [third, second, first], [secret, one, other]) = rotated_twice();
        let taken = plane.post(&plane.root, &format!("/v1/tokens/{third}/{}", way.how), &way.body).json();
        assert_eq!((accessors(&taken["also"]).len(), accessors(&taken["in_grace"])), (0, vec![&*second, &*first]));
        assert_eq!(plane.decide(&secret), way.decision, "{}", way.how);
        assert_eq!([&one, &other].map(|secret| plane.decide(secret)), ["scope_granted"; 2], "{}", way.how);
        let event = plane.events(&format!("token.{}", way.how)).remove(0);
        let told = json!({"name": "in_grace", "value": format!("{second} {first}")});
        assert!(event["change"]["details"].as_array().unwrap().contains(&told), "{event}");
    }
}

/// Whoever revoked the holder by its accessor comes back, and means what is left.
#[test]
fn a_name_whose_holder_is_revoked_means_those_in_grace() {
    for way in ways() {
        let (plane, [third, second, first], [_, one, other]) = rotated_twice();
        plane.post(&plane.root, &format!("/v1/tokens/{third}/revoke"), &json!({"reason": "x"}));
        let taken = plane.post(&plane.root, &format!("/v1/tokens/bot/{}", way.how), &way.body);
        assert_eq!(taken.status, 200, "{taken:?}");
        let taken = taken.json();
        let asked = if way.how == "restrict" { &taken["token"]["accessor"] } else { &taken["accessor"] };
        assert_eq!((asked, accessors(&taken["also"])), (&json!(second), vec![&*first]), "{taken}");
        assert_eq!([&one, &other].map(|secret| plane.decide(secret)), [way.decision; 2], "{}", way.how);
    }
}

#[test]
fn what_is_given_back_by_name_is_given_to_its_holder_alone() {
    let (plane, [_, second, first], [secret, one, other]) = rotated_twice();
    plane.post(&plane.root, "/v1/tokens/bot/disable", &json!({"reason": "x"}));
    let enabled = plane.post(&plane.root, "/v1/tokens/bot/enable", &json!({"reason": "x"})).json();
    assert_eq!(
        (accessors(&enabled["in_grace"]), &enabled["in_grace"][0]["state"]),
        (vec![&*second, &*first], &json!("disabled"))
    );
    assert_eq!(
        [&secret, &one, &other].map(|secret| plane.decide(secret)),
        ["scope_granted", "token_disabled", "token_disabled"]
    );
    plane.post(&plane.root, &format!("/v1/tokens/{second}/enable"), &json!({"reason": "x"}));
    assert_eq!([&one, &other].map(|secret| plane.decide(secret)), ["scope_granted", "token_disabled"]);
}

/// Those in grace have them through it.
#[test]
fn limits_that_are_taken_by_name_are_taken_from_its_holder() {
    let (plane, [third, second, _], _) = rotated_twice();
    let taken =
        plane.post(&plane.root, "/v1/tokens/bot/restrict", &json!({"limits": {"rate": 3}, "reason": "x"})).json();
    assert_eq!([&taken["also"], &taken["in_grace"]].map(|list| accessors(list).len()), [0, 0], "{taken}");
    let rate = |accessor: &str| plane.store.token(accessor.parse().unwrap()).unwrap().limits.rate;
    assert_eq!([rate(&third), rate(&second)], [Some(3), Some(1000)]);
    let both = json!({"limits": {"rate": 2}, "remove_roles": ["reader"], "reason": "x"});
    let taken = plane.post(&plane.root, "/v1/tokens/bot/restrict", &both).json();
    assert_eq!(accessors(&taken["also"]).len(), 2, "{taken}");
    assert_eq!([rate(&third), rate(&second)], [Some(2), Some(1000)]);
}

/// Both are about one secret, and say who else has one.
#[test]
fn a_leak_or_an_edit_is_about_one_token_and_names_those_in_grace() {
    let (plane, [_, second, first], [_, one, _]) = rotated_twice();
    let edited = plane.patch(&plane.root, "/v1/tokens/bot", "*", &json!({"roles": [], "reason": "x"})).json();
    assert_eq!(accessors(&edited["in_grace"]), [&second, &first], "{edited}");
    let leaked = plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"now": true, "reason": "x"})).json();
    assert_eq!(accessors(&leaked["in_grace"]), [&second, &first], "{leaked}");
    assert_eq!(plane.decide(&one), "scope_granted");
}

#[test]
fn what_would_open_something_for_one_in_grace_is_no_restriction() {
    let mut spec = policy();
    let deny = leastgate_policy::spec::RuleSpec { text: "GET /v1/orders".to_owned().into(), when: None };
    spec.scopes.push(leastgate_policy::spec::ScopeSpec {
        name: "orders:none".to_owned().into(),
        api: "orders".to_owned().into(),
        deny: vec![deny],
        ..Default::default()
    });
    let plane = Setup { policy: Some(spec), ..Setup::default() }.start();
    let bot = json!({"name": "bot", "owner": "team", "roles": ["reader"], "scopes": ["orders:none"], "ttl": "12h"});
    let (_, secret) = plane.make(&bot);
    plane.post(&plane.root, "/v1/tokens/bot/rotate", &json!({"grace": "1h", "reason": "due"}));
    // The successor has nothing else that this would open something for.
    plane.patch(&plane.root, "/v1/tokens/bot", "*", &json!({"roles": [], "reason": "x"}));
    let less = json!({"remove_scopes": ["orders:none"], "reason": "x"});
    plane.post(&plane.root, "/v1/tokens/bot/restrict", &less).refused(422, "invalid-value");
    assert_eq!(plane.decide(&secret), "explicit_deny");
}
