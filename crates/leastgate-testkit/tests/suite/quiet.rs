//! `-q` leaves out what is only nice to know. What somebody has to act on is said all the same, for the exit code is 0.

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::process::Process;
use rustix::process::Signal;

use crate::run_command::{LASTING, Runs, finished, given};
use crate::stored::Stored;

#[test]
fn a_quiet_restore_still_says_what_lives_again() {
    let mut stored = Stored::start();
    stored.create("leaked", &["--role", "reader"]);
    let file = stored.gateway.path().join("backup.db");
    let file = file.to_str().unwrap();
    let quiet = stored.cli(&["store", "backup", file, "-q"]);
    assert_eq!(quiet.stderr, "");
    stored.cli(&["token", "revoke", "leaked", "--reason", "leaked", "--yes"]);
    assert_eq!(stored.gateway.stop().code, Some(0));
    let forgetting = ["store", "restore", file, "--yes", "-q", "--forget-revocations"];
    let told = stored.cli(&forgetting).stderr;
    assert!(told.contains("warning: since the backup, and undone by the restore: 1 token(s)"), "{told}");
    assert_eq!(told.lines().count(), 1, "no notes: {told}");
    let nothing_lost = stored.cli(&["store", "restore", file, "--yes", "-q"]);
    assert_eq!(nothing_lost.stderr, "");
}

#[test]
fn a_quiet_rotation_says_that_the_old_secret_is_still_used() {
    let stored = Stored::start();
    let old = stored.create("bot", &["--role", "reader"]);
    stored.cli(&["token", "rotate", "bot", "--reason", "r", "-q"]);
    // Whether a use was before the rotation or after it is known in whole seconds.
    until_true("its use", PATIENCE, || {
        assert_eq!(stored.ask(&old, "/v1/orders").status, 200);
        let told = stored.cli(&["token", "rotate", "bot", "--status", "-q"]).stderr;
        told.contains("warning:") && told.contains("somebody has the old secret still")
    });
}

#[test]
fn a_quiet_change_of_one_token_says_whose_former_secret_works_on() {
    let stored = Stored::start();
    let accessor = || {
        let shown = stored.cli(&["token", "show", "bot", "-o", "json"]).stdout;
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["accessor"].as_str().unwrap().to_owned()
    };
    let former_secret = stored.create("bot", &["--role", "reader"]);
    let former = accessor();
    stored.cli(&["token", "rotate", "bot", "--reason", "r", "-q"]);
    let holder = accessor();
    let quiet = |how: &[&str]| {
        let ended = stored.cli(&[&["token"], how, &["--reason", "r", "-q"]].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stderr
    };
    let works_on = |told: &str, command: &str| {
        let way_out = format!("`leastgate token {command} {former} --reason TEXT` ends it");
        assert!(told.contains("warning: the former bot") && told.contains(&way_out), "{told}");
        assert_eq!(stored.ask(&former_secret, "/v1/orders").status, 200);
    };
    assert_eq!(quiet(&["edit", "bot", "--note", "n"]), "", "nothing that the former one holds");
    works_on(&quiet(&["edit", "bot", "--role", "misc"]), "revoke");
    works_on(&quiet(&["disable", &holder, "--yes"]), "disable");
    let by_name = quiet(&["disable", "bot", "--yes"]);
    assert_eq!((by_name.as_str(), stored.ask(&former_secret, "/v1/orders").status), ("", 401));
    let told = quiet(&["enable", "bot"]);
    let way_back =
        format!("the former bot ({former}) is disabled still: `leastgate token enable {former} --reason TEXT`");
    assert!(told.contains(&way_back), "{told}");
    quiet(&["enable", &former]);
    works_on(&quiet(&["rotate", "bot", "--now"]), "revoke");
    let revoked = stored.cli(&["token", "revoke", "bot", "--yes", "--reason", "leaked"]);
    assert!(revoked.stderr.contains(&format!("bot ({former}) is revoked too")), "{}", revoked.stderr);
    assert_eq!(stored.ask(&former_secret, "/v1/orders").status, 401);
}

#[test]
fn a_quiet_run_says_that_its_token_lives_on() {
    let runs = Runs::start();
    let mut process: Process = runs.spawn(&["-q", "--timeout", "1"], LASTING);
    let _ = given(&process);
    runs.stored.gateway.signal(Signal::STOP);
    runs.release();
    let ended = finished(&mut process);
    runs.stored.gateway.signal(Signal::CONT);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("could not be revoked and lives until"), "{}", ended.stderr);
}
