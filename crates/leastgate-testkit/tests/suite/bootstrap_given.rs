//! A first administrator whose credential is given: by file and by variable, once, and only where it fits.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use leastgate_testkit::deadline::{PATIENCE, until, until_true};
use leastgate_testkit::gateway::{Setup, TestGateway};
use leastgate_testkit::leaks::LeakSearch;
use leastgate_testkit::recorder::RecorderUpstream;
use leastgate_testkit::token::Token;
use serde_json::json;

use crate::stored::{Stored, stored_setup, take};

const VARIABLE: &str = "LEASTGATE_BOOTSTRAP_ADMIN";

/// A credential for gateways of this environment, drawn where no gateway runs.
fn drawn(environment: &str) -> String {
    let setup = stored_setup();
    let file = setup.path().join("drawn");
    let path = file.display().to_string();
    let ended = setup.cli(&["admin", "create", "--declare", "--environment", environment, "--secret-file", &path]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    take(&file)
}

fn status(gateway: &TestGateway, credential: &str) -> u16 {
    crate::stored::api(gateway, "GET", "/v1/admins", Some(credential), None).status
}

/// A way to give a credential to a gateway that is stopped.
type Give = fn(&mut TestGateway, &str) -> Vec<String>;

const WAYS: [Give; 2] = [by_file, by_variable];

fn by_file(gateway: &mut TestGateway, credential: &str) -> Vec<String> {
    let file = gateway.path().join("root.given");
    // As an editor ends it.
    fs::write(&file, format!("{credential}\n")).unwrap();
    vec!["--bootstrap-admin-from".to_owned(), file.display().to_string()]
}

fn by_variable(gateway: &mut TestGateway, credential: &str) -> Vec<String> {
    gateway.set_variable(VARIABLE, Some(credential));
    Vec::new()
}

/// A gateway that was started once, so that its files are there, and has no administrator.
fn stopped(upstream: &RecorderUpstream) -> TestGateway {
    let mut gateway = stored_setup().upstream("orders", &upstream.url()).start();
    assert_eq!(gateway.stop().code, Some(0));
    gateway
}

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn the_first_start_takes_it_and_no_later_one_does() {
    for give in WAYS {
        let upstream = RecorderUpstream::start();
        let mut gateway = stopped(&upstream);
        let (credential, other) = (drawn("test"), drawn("test"));
        let arguments = give(&mut gateway, &credential);
        gateway.restart_with(&words(&arguments));
        let mut stored = Stored { gateway, upstream };
        assert_eq!(status(&stored.gateway, &credential), 200);
        let wanted = json!({ "name": "made-here", "owner": "team-test", "roles": ["reader"], "ttl": "1h" });
        let made = stored.api("POST", "/v1/tokens", Some(&credential), Some(wanted));
        assert_eq!(made.status, 201, "it may give everything");
        let event = until("the event", PATIENCE, || {
            let events = stored.gateway.events();
            events.into_iter().find(|event| event["change"]["operation"] == "admin.bootstrap")
        });
        let id = credential.split('_').nth(2).unwrap();
        assert_eq!((&event["kind"], &event["actor"]["subject"]), (&json!("admin"), &json!("bootstrap")));
        assert_eq!((&event["change"]["target"], &event["change"]["result"]), (&json!(id), &json!("ok")), "{event}");

        assert_eq!(stored.gateway.stop().code, Some(0));
        let arguments = give(&mut stored.gateway, &other);
        stored.gateway.restart_with(&words(&arguments));
        let said = stored.gateway.stderr();
        assert!(said.contains("the store has administrators") && said.contains("is ignored"), "{said}");
        assert_eq!([&credential, &other].map(|text| status(&stored.gateway, text)), [200, 401]);

        // What nobody needs any more may be gone, or be anything.
        assert_eq!(stored.gateway.stop().code, Some(0));
        let arguments = give(&mut stored.gateway, "hunter2");
        let _ = fs::remove_file(stored.gateway.path().join("root.given"));
        stored.gateway.restart_with(&words(&arguments));
        assert_eq!(status(&stored.gateway, &credential), 200);
        let events = stored.gateway.events();
        let made = events.iter().filter(|event| event["change"]["operation"] == "admin.bootstrap");
        assert_eq!(made.count(), 1);

        let mut search = LeakSearch::default();
        search.add("root", &credential);
        search.add("other", &other);
        for (place, bytes) in stored.gateway.written() {
            search.assert_clean(&place, &bytes);
        }
    }
}

#[test]
fn what_does_not_fit_is_a_start_error_that_does_not_repeat_it() {
    let good = drawn("test");
    let slip = |at: usize| {
        let mut text = good.clone().into_bytes();
        text[at] = if text[at] == b'x' { b'y' } else { b'x' };
        String::from_utf8(text).unwrap()
    };
    for give in WAYS {
        let upstream = RecorderUpstream::start();
        let mut gateway = stopped(&upstream);
        for (text, word) in [
            (drawn("other"), "environment `other`, and this gateway serves `test`"),
            (Token::new("reader", &["reader"]).secret().to_owned(), "a token of the data plane"),
            (slip(30), "checksum"),
            (slip(good.len() - 1), "checksum"),
            (good[..good.len() - 1].to_owned(), "no admin credential"),
            ("correct-horse-battery-staple".to_owned(), "no admin credential"),
        ] {
            let arguments = give(&mut gateway, &text);
            let ended = gateway.restart_failing_with(&words(&arguments));
            assert_eq!(ended.code, Some(3), "{word}: {}", ended.stderr);
            assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
            let source = arguments.first().map_or(VARIABLE, String::as_str);
            assert!(ended.stderr.contains(source), "{source}: {}", ended.stderr);
            // The part that is nobody else's: not the prefix, the environment or the accessor.
            let secret = text.split('_').nth(3).unwrap_or(&text);
            assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
        }
        let arguments = give(&mut gateway, &good);
        gateway.restart_with(&words(&arguments));
        assert_eq!(status(&gateway, &good), 200, "none of them was made an administrator");
    }
}

#[test]
fn a_file_that_is_not_there_or_empty_and_two_ways_at_once_are_start_errors() {
    let upstream = RecorderUpstream::start();
    let mut gateway = stopped(&upstream);
    let file = gateway.path().join("root.given").display().to_string();
    let failing = |gateway: &mut TestGateway, arguments: &[&str], code, word: &str| {
        let ended = gateway.restart_failing_with(arguments);
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    };
    failing(&mut gateway, &["--bootstrap-admin-from", &file], 3, "root.given");
    fs::write(&file, "\n").unwrap();
    failing(&mut gateway, &["--bootstrap-admin-from", &file], 3, "is empty");
    failing(&mut gateway, &["--bootstrap-admin-from", &file, "--bootstrap-admin", "x"], 64, "cannot be used with");
    gateway.set_variable(VARIABLE, Some(&drawn("test")));
    for flag in ["--bootstrap-admin-from", "--bootstrap-admin"] {
        failing(&mut gateway, &[flag, &file], 64, "leave one out");
    }
}

#[test]
fn one_that_was_revoked_stays_so() {
    let credential = drawn("test");
    let mut stored = Stored::start_with(|setup: Setup| setup.variable(VARIABLE, &credential));
    assert_eq!(status(&stored.gateway, &credential), 200);
    stored.cli(&["admin", "revoke", "root", "--reason", "leaked", "--yes"]);
    assert_eq!(status(&stored.gateway, &credential), 401);
    assert_eq!(stored.gateway.stop().code, Some(0));
    // The data plane is not held up for it.
    stored.gateway.restart();
    until_true("the warning", PATIENCE, || stored.gateway.stderr().contains("it was revoked: draw another"));
    assert_eq!(status(&stored.gateway, &credential), 401);
    let next = drawn("test");
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.set_variable(VARIABLE, Some(&next));
    stored.gateway.restart();
    assert_eq!([&credential, &next].map(|text| status(&stored.gateway, text)), [401, 200]);
}

#[test]
fn a_credential_is_drawn_without_a_gateway_and_shown_once() {
    let setup = stored_setup();
    let shown = setup.cli(&["admin", "create", "--declare", "--environment", "prod"]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.starts_with("lga_prod_") && shown.stdout.lines().count() == 1, "{}", shown.stdout);
    assert!(shown.stderr.contains("--bootstrap-admin-from") && !shown.stderr.contains("lga_"), "{}", shown.stderr);
    for wrong in [
        &["--declare"][..],
        &["--declare", "--environment", "Prod"],
        &["--declare", "--environment", "prod", "--name", "x"],
        &["--declare", "--environment", "prod", "--unlimited"],
        &["--name", "x", "--environment", "prod", "--unlimited"],
        &["--unlimited"],
    ] {
        let ended = setup.cli(&[&["admin", "create"], wrong].concat());
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(64), ""), "{wrong:?}: {}", ended.stderr);
    }
}

/// Whoever reads it is the administrator, also after the start that took it.
#[test]
fn a_file_that_everybody_can_read_is_told_by_whoever_reads_it() {
    let upstream = RecorderUpstream::start();
    let mut gateway = stopped(&upstream);
    let credential = drawn("test");
    let arguments = by_file(&mut gateway, &credential);
    let file = gateway.path().join("root.given");
    let told = |said: &str, option: &str| {
        let words = [option, "everybody on the machine can read", "root.given", "0644", "chmod 600"];
        words.iter().all(|word| said.contains(word))
    };
    for (mode, is_told) in [(0o644, true), (0o600, false)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        gateway.restart_with(&words(&arguments));
        let (url, path) = (format!("http://{}", gateway.addresses().admin), file.display().to_string());
        let listed = gateway.cli(&["admin", "list", "-q", "--admin-url", &url, "--admin-token-file", &path]);
        assert_eq!(listed.code, Some(0), "{}", listed.stderr);
        assert_eq!(told(&listed.stderr, "--admin-token-file"), is_told, "{}", listed.stderr);
        let ended = gateway.stop();
        assert_eq!(ended.code, Some(0));
        assert_eq!(told(&ended.stderr, "--bootstrap-admin-from"), is_told, "{}", ended.stderr);
    }
}
