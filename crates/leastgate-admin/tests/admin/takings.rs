//! What is taken from a token while a rotation hands its name over: the successor, drawn from what the token was, must not have
//! it, nor what stands in for them, in force or in the store.

use leastgate_policy::TokenState;
use serde_json::{Value, json};

use crate::fixture::{Plane, Reply, Setup, ask, memory, until};
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
