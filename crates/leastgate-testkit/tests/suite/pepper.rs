//! The pepper is replaced: nobody is locked out, who was used goes over to the new one, and who was not is listed.

use std::fs;

use leastgate_testkit::clock;
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::{TestGateway, request};
use leastgate_testkit::raw::Reply;
use leastgate_testkit::small_disk::where_mounts_are_private;
use leastgate_testkit::token::{PEPPER, Token};
use serde_json::{Value, json};

use crate::fixtures::Orders;
use crate::stored::{Stored, administrator, api};

const NEW: &str = "another-pepper-0123456789abcdef-0123456789abcdef";
const THIRD: &str = "a-third-pepper-0123456789abcdef-0123456789abcdef";

/// Gives the gateway other peppers, for its next start.
fn set(gateway: &TestGateway, current: &str, previous: Option<&str>) {
    let place = |name: &str, pepper: &str| {
        let path = gateway.path().join(name);
        fs::write(&path, pepper).unwrap();
        format!("{name}: {{ file: {} }}", path.display())
    };
    let all: Vec<_> = [Some(place("current", current)), previous.map(|pepper| place("previous", pepper))]
        .into_iter()
        .flatten()
        .collect();
    let file = gateway.path().join("leastgate.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|line| match line.starts_with("pepper:") {
        true => format!("pepper: {{ {} }}\n", all.join(", ")),
        false => format!("{line}\n"),
    });
    fs::write(&file, lines.collect::<String>()).unwrap();
}

/// Gives it another pepper, the former as the previous one.
pub(crate) fn replace(gateway: &TestGateway) {
    set(gateway, NEW, Some(PEPPER));
}

fn restart(gateway: &mut TestGateway, current: &str, previous: Option<&str>) {
    assert_eq!(gateway.stop().code, Some(0));
    set(gateway, current, previous);
    gateway.restart();
}

fn listed(stored: &Stored, pepper: &str) -> Vec<String> {
    let said = stored.cli(&["token", "list", "--pepper", pepper, "-o", "name"]).stdout;
    said.lines().map(str::to_owned).collect()
}

fn stragglers(stored: &Stored, root: &str) -> Value {
    stored.api("GET", "/v1/status", Some(root), None).json()["stragglers"].clone()
}

fn refused(reply: &Reply) {
    assert_eq!((reply.status, reply.problem().as_deref()), (401, Some("invalid-token")), "{}", reply.text());
}

#[test]
fn a_replaced_pepper_locks_nobody_out_and_whoever_is_used_goes_over() {
    let mut stored = Stored::start();
    let [used, idle] = ["used", "idle"].map(|name| stored.create(name, &["--role", "reader"]));
    let [root, other] = ["root-2", "other"].map(|name| stored.administrator(name, "admin"));
    restart(&mut stored.gateway, NEW, Some(PEPPER));
    let said = stored.gateway.stderr();
    assert!(said.contains("still kept under pepper.previous") && said.contains("\"tokens\":2,\"admins\":2"), "{said}");
    assert_eq!(listed(&stored, "previous"), ["idle", "used"]);
    let young = stored.create("young", &["--role", "reader"]);
    assert_eq!(listed(&stored, "current"), ["young"]);

    assert_eq!(stored.ask(&used, "/v1/orders").status, 200);
    until_true("the token that was used, under the new pepper", PATIENCE, || listed(&stored, "previous") == ["idle"]);
    assert_eq!(stored.ask(&used, "/v1/orders").status, 200);
    let whole = json!({ "tokens": 1, "admins": 1, "unknown_tokens": 0, "unknown_admins": 0 });
    until_true("the administrator, under the new pepper", PATIENCE, || stragglers(&stored, &root) == whole);
    assert!(stored.cli(&["token", "show", "used"]).stdout.contains("pepper       current"));
    assert!(stored.cli(&["token", "show", "idle"]).stdout.contains("pepper       previous"));
    assert_eq!(stored.cli(&["token", "list", "-o", "name"]).stdout.lines().count(), 3);
    stored.cli(&["check", "idle", "GET", "http://orders.test/v1/orders"]);

    restart(&mut stored.gateway, NEW, None);
    let said = stored.gateway.stderr();
    assert!(said.contains("a pepper that is not configured") && said.contains("\"tokens\":1,\"admins\":1"), "{said}");
    let told = stored.gateway.events().into_iter().find(|event| event["change"]["operation"] == "pepper.redigested");
    let details = json!([{ "name": "tokens", "value": "1" }, { "name": "admins", "value": "1" }]);
    assert_eq!(told.map(|event| event["change"]["details"].clone()), Some(details));
    assert_eq!((stored.ask(&used, "/v1/orders").status, stored.ask(&young, "/v1/orders").status), (200, 200));
    refused(&stored.ask(&idle, "/v1/orders"));
    assert_eq!(listed(&stored, "unknown"), ["idle"]);
    assert_eq!(stored.api("GET", "/v1/status", Some(&root), None).status, 200);
    assert_eq!(stored.api("GET", "/v1/status", Some(&other), None).status, 401);

    // Back again: the new one is the one before now, and what went over goes back.
    restart(&mut stored.gateway, PEPPER, Some(NEW));
    assert_eq!(listed(&stored, "previous"), ["used", "young"]);
    for secret in [&used, &idle, &young] {
        assert_eq!(stored.ask(secret, "/v1/orders").status, 200);
    }
    assert_eq!(stored.api("GET", "/v1/status", Some(&other), None).status, 200);
    assert_eq!(stored.api("GET", "/v1/status", Some(&root), None).status, 200);
    let none = json!({ "tokens": 0, "admins": 0, "unknown_tokens": 0, "unknown_admins": 0 });
    until_true("everybody under the first pepper again", PATIENCE, || stragglers(&stored, &root) == none);
    restart(&mut stored.gateway, PEPPER, None);
    for secret in [&used, &idle, &young] {
        assert_eq!(stored.ask(secret, "/v1/orders").status, 200);
    }
    let leaks = stored.gateway.written();
    for (name, bytes) in &leaks {
        let is_pepper = ["current", "previous", "pepper"].iter().any(|pepper| name.ends_with(pepper));
        let holds = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(is_pepper || !(holds(PEPPER) || holds(NEW) || holds(&used)), "{name}");
    }
}

/// Whichever gateway went over first: the digests of one token differ, and it is the same token.
#[test]
fn an_import_after_a_replaced_pepper_finds_tokens_as_they_are_under_either() {
    let mut stored = Stored::start();
    let [used, idle] = ["used", "idle"].map(|name| stored.create(name, &["--role", "reader"]));
    let root = stored.administrator("root-2", "admin");
    let export = |stored: &Stored| stored.api("GET", "/v1/exports", Some(&root), None).json()["items"].clone();
    let import = |stored: &Stored, items: &Value| {
        let body = json!({ "tokens": items, "reason": "once more" });
        stored.api("POST", "/v1/tokens/import", Some(&root), Some(body))
    };
    let before = export(&stored);
    restart(&mut stored.gateway, NEW, Some(PEPPER));
    assert_eq!(stored.ask(&used, "/v1/orders").status, 200);
    until_true("the token that was used, under the new pepper", PATIENCE, || listed(&stored, "previous") == ["idle"]);
    let now = export(&stored);
    let of =
        |items: &Value, name: &str| items.as_array().unwrap().iter().find(|item| item["name"] == name).unwrap().clone();
    assert_ne!(of(&before, "used")["digest"], of(&now, "used")["digest"]);
    let unchanged =
        |reply: Reply| assert_eq!(reply.json(), json!({ "imported": 0, "unchanged": 2 }), "{}", reply.text());
    unchanged(import(&stored, &before));
    // The other gateway has it under the new pepper already, and this one under the former.
    let mut ahead = now.clone();
    for item in ahead.as_array_mut().unwrap() {
        if item["name"] == "idle" {
            item["pepper_id"] = of(&now, "used")["pepper_id"].clone();
            item["digest"] = json!(format!("blake3:{}", "7b".repeat(32)));
        }
    }
    unchanged(import(&stored, &ahead));
    for secret in [&used, &idle] {
        assert_eq!(stored.ask(secret, "/v1/orders").status, 200, "nothing is taken from the file");
    }

    let mismatch = |field: &str, value: Value| {
        let mut items = before.clone();
        let at = items.as_array().unwrap().iter().position(|item| item["name"] == "used").unwrap();
        items[at][field] = value;
        let reply = import(&stored, &items);
        assert_eq!((reply.status, reply.problem().as_deref()), (409, Some("conflict")), "{field}: {}", reply.text());
        assert!(
            reply.text().contains(&format!("tokens[{at}]")) && reply.text().contains("another token"),
            "{}",
            reply.text()
        );
    };
    mismatch("name", json!("somebody"));
    mismatch("created", json!(clock::rfc3339(clock::now() - 60)));
    let same_pepper = |items: &mut Value| {
        for item in items.as_array_mut().unwrap().iter_mut().filter(|item| item["name"] == "used") {
            item["digest"] = json!(format!("blake3:{}", "7b".repeat(32)));
        }
    };
    let mut forged = now;
    same_pepper(&mut forged);
    let reply = import(&stored, &forged);
    assert_eq!((reply.status, reply.problem().as_deref()), (409, Some("conflict")), "{}", reply.text());
}

#[test]
fn peppers_that_can_not_be_meant_end_the_start_with_what_to_do() {
    let mut stored = Stored::start();
    let secret = stored.create("kept", &["--role", "reader"]);
    assert_eq!(stored.gateway.stop().code, Some(0));
    for (current, previous, words) in [
        (NEW, None, "as pepper.previous"),
        (NEW, Some(THIRD), "as pepper.previous"),
        (PEPPER, Some(PEPPER), "current and previous are one and the same"),
        (NEW, Some("short"), "fewer than 16 bytes"),
    ] {
        set(&stored.gateway, current, previous);
        let ended = stored.gateway.restart_failing();
        assert!(ended.code == Some(3) && ended.stderr.contains(words), "{:?} {}", ended.code, ended.stderr);
        assert!(!ended.stderr.contains(current), "{}", ended.stderr);
    }
    set(&stored.gateway, PEPPER, Some(THIRD));
    stored.gateway.restart();
    assert!(stored.gateway.stderr().contains("nothing is kept under pepper.previous"), "{}", stored.gateway.stderr());
    assert_eq!(stored.ask(&secret, "/v1/orders").status, 200);
}

/// What is decided again finds the token under either digest, and a revocation finds it wherever it is.
#[test]
fn a_stream_outlives_the_move_of_its_token_and_is_cut_when_that_is_revoked() {
    let mut stored = Stored::start();
    let secret = stored.create("streamer", &["--role", "reader"]);
    restart(&mut stored.gateway, NEW, Some(PEPPER));
    let mut client = stored.begin_long_answer(&secret);
    until_true("the token under the new pepper", PATIENCE, || listed(&stored, "previous").is_empty());
    // Any change has all streams decided again; this one is there after it.
    stored.create("other", &["--role", "reader"]);
    stored.cli(&["token", "disable", "other", "--reason", "a change", "--yes"]);
    let in_flight = |stored: &Stored| stored.gateway.metrics().sum("leastgate_http_requests_in_flight", &[]);
    let checked = stored.cli(&["check", "streamer", "GET", "http://orders.test/v1/orders"]);
    assert!(checked.stdout.contains("ALLOW") && in_flight(&stored) == 1.0, "{}", checked.stdout);
    assert!(stored.gateway.decisions().iter().all(|event| event["actor"]["subject"] != "streamer"));
    stored.cli(&["token", "revoke", "streamer", "--reason", "leaked", "--yes"]);
    let _ = client.read_rest(PATIENCE);
    until_true("the end of the stream", PATIENCE, || in_flight(&stored) == 0.0);
    let events = stored.gateway.wait_decisions("the cut", 1, |event| event["actor"]["subject"] == "streamer");
    assert!(events[0].to_string().contains("token_revoked"), "{}", events[0]);
    refused(&stored.ask(&secret, "/v1/orders"));
}

#[test]
fn a_full_disk_keeps_tokens_under_the_former_pepper_and_revocations_in_force_through_the_move() {
    where_mounts_are_private(|| {
        let (mut stored, disk) = Stored::start_on_a_small_disk();
        let secrets = ["kept", "gone"].map(|name| stored.create(name, &["--role", "reader"]));
        let root = stored.administrator("root-2", "admin");
        restart(&mut stored.gateway, NEW, Some(PEPPER));
        disk.fill();
        for secret in &secrets {
            assert_eq!(stored.ask(secret, "/v1/orders").status, 200, "a use never waits for the disk");
        }
        assert_eq!(stragglers(&stored, &root)["tokens"], 2);
        let revoked = stored.api("POST", "/v1/tokens/gone/revoke", Some(&root), Some(json!({ "reason": "leaked" })));
        assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(false)), "{}", revoked.text());
        refused(&stored.ask(&secrets[1], "/v1/orders"));
        disk.free();
        let none = json!({ "tokens": 0, "admins": 0, "unknown_tokens": 0, "unknown_admins": 0 });
        until_true("everybody under the new pepper", PATIENCE, || stragglers(&stored, &root) == none);
        until_true("the revocation in the store", PATIENCE, || {
            stored.gateway.metrics().sum("leastgate_store_unsynced_changes", &[]) == 0.0
        });
        assert_eq!(stored.ask(&secrets[0], "/v1/orders").status, 200);
        refused(&stored.ask(&secrets[1], "/v1/orders"));
        restart(&mut stored.gateway, NEW, None);
        assert_eq!(stored.ask(&secrets[0], "/v1/orders").status, 200);
        refused(&stored.ask(&secrets[1], "/v1/orders"));
    });
}

#[test]
fn a_declared_token_is_found_under_the_former_pepper_and_told_as_a_straggler() {
    let mut orders = Orders::start();
    restart(&mut orders.gateway, NEW, Some(PEPPER));
    let list = |orders: &Orders, pepper| orders.gateway.cli(&["token", "list", "--pepper", pepper, "-o", "name"]);
    assert_eq!(list(&orders, "previous").stdout, "");
    assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
    let name = orders.reader().name.clone();
    until_true("the straggler", PATIENCE, || list(&orders, "previous").stdout.trim() == name);
    let asked = list(&orders, "unknown");
    assert!(asked.code != Some(0) && asked.stderr.contains("only `pepper=previous` is known"), "{}", asked.stderr);
    assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders").status, 200);
    assert_eq!(orders.gateway.stop().code, Some(0));
    let said = orders.gateway.stderr();
    assert!(said.contains("only a new token replaces one") && said.contains(&name), "{said}");
    set(&orders.gateway, NEW, None);
    orders.gateway.restart();
    refused(&orders.gateway.get(orders.reader(), "/v1/orders"));
}

/// Nothing can be done about them but to tell: they must not take the places of those that something is done about.
#[test]
fn a_large_declared_fleet_under_the_former_pepper_keeps_no_administrator_from_going_over() {
    let fleet: Vec<Token> = (0..4_200).map(|number| Token::new(&format!("t{number}"), &["reader"])).collect();
    let mut orders = Orders::start_with(|setup| setup.tokens(&fleet));
    let root = administrator(&orders.gateway, "root-2", "admin");
    restart(&mut orders.gateway, NEW, Some(PEPPER));
    // Twice: a note is left only where that takes no waiting.
    for tokens in fleet.chunks(100).chain(fleet.chunks(100)) {
        let mut client = orders.gateway.client();
        for token in tokens {
            client.send(request("GET", "/v1/orders", Some(token)));
            assert_eq!(client.read().unwrap().status, 200);
        }
    }
    let counts =
        |orders: &Orders| api(&orders.gateway, "GET", "/v1/status", Some(&root), None).json()["stragglers"].clone();
    until_true("the administrator, under the new pepper", PATIENCE, || counts(&orders)["admins"] == 0);
    assert!(counts(&orders)["tokens"].as_u64().unwrap() > 4_096, "{}", counts(&orders));
    assert_eq!(orders.gateway.stop().code, Some(0));
    let said = orders.gateway.stderr();
    assert!(said.contains("only a new token replaces one"), "{said}");
}
