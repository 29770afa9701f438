//! A restore is on record: the next start tells it, once what says so is written, and after a crash again rather than never.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::paths;
use leastgate_testkit::process::Process;
use leastgate_testkit::small_disk::{SmallDisk, where_mounts_are_private};
use serde_json::{Value, json};

use crate::stored::Stored;

fn backup(stored: &Stored) -> String {
    let file = stored.gateway.path().join("backup.db").display().to_string();
    stored.cli(&["store", "backup", &file]);
    file
}

fn restore(stored: &Stored, file: &str, more: &[&str]) -> Value {
    let mut command = Command::new(paths::leastgate());
    command.args(["store", "restore", file, "--yes", "-o", "json", "--config"]);
    command.arg(stored.gateway.path().join("leastgate.yaml")).args(more).env("SUDO_USER", "ann");
    let ended = Process::run("leastgate store restore", &mut command, PATIENCE);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap()
}

/// The events of restores in a file that may end in half a line.
fn told(audit: &Path) -> Vec<Value> {
    let text = fs::read_to_string(audit).unwrap();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["change"]["operation"] == "store.restore").collect()
}

fn detail<'a>(event: &'a Value, name: &str) -> &'a str {
    let details = event["change"]["details"].as_array().unwrap();
    details.iter().find(|detail| detail["name"] == name).map_or("", |detail| detail["value"].as_str().unwrap())
}

#[test]
fn a_restore_is_told_by_the_next_start_and_by_no_later_one() {
    let mut stored = Stored::start();
    let audit = stored.gateway.path().join("audit.ndjson");
    for name in ["kept", "leaked"] {
        stored.create(name, &["--role", "reader"]);
    }
    let file = backup(&stored);
    stored.cli(&["token", "revoke", "leaked", "--reason", "leaked", "--yes"]);
    assert_eq!(stored.gateway.stop().code, Some(0));
    let said = restore(&stored, &file, &[]);
    assert_eq!(told(&audit).len(), 0);
    stored.gateway.restart();
    until_true("the event", PATIENCE, || !told(&audit).is_empty());
    let [event] = &told(&audit)[..] else { panic!("{:?}", told(&audit)) };
    let uid = format!("uid:{}", rustix::process::getuid().as_raw());
    assert_eq!((&event["kind"], &event["actor"]["subject"]), (&json!("admin"), &json!(uid)), "{event}");
    let details = ["backup", "backup.made", "kept"].map(|name| detail(event, name).to_owned());
    let wanted = [&file, said["made"].as_str().unwrap(), said["kept"].as_str().unwrap()];
    assert_eq!(details.each_ref().map(String::as_str), wanted, "{event}");
    assert_eq!((detail(event, "revocations"), detail(event, "carried_over")), ("carried_over", "1"), "{event}");
    let second = |time: &str| time[..19].to_owned();
    assert!(second(detail(event, "at")) <= second(event["time"].as_str().unwrap()), "{event}");
    assert_eq!(detail(event, "sudo_user"), "ann");

    assert_eq!(stored.gateway.stop().code, Some(0));
    restore(&stored, &file, &["--forget-revocations"]);
    stored.gateway.restart();
    until_true("the second event", PATIENCE, || told(&audit).len() == 2);
    let second = &told(&audit)[1];
    assert_eq!((detail(second, "revocations"), detail(second, "forgotten")), ("forgotten", "1"), "{second}");
    // Without an orderly end too, once it is written.
    until_true("the restore on record", 3 * PATIENCE, || stored.gateway.stderr().contains("of the store is on record"));
    stored.gateway.kill();
    stored.gateway.restart();
    assert_eq!(stored.gateway.stop().code, Some(0));
    assert_eq!(told(&audit).len(), 2);
}

/// What is left of the file's own block has room for some events yet.
fn fill_last_block(file: &Path) {
    let mut file = fs::OpenOptions::new().append(true).open(file).unwrap();
    while file.write_all(b" ").is_ok() {}
}

/// The event was made and no sink has it: it is told again.
#[test]
fn a_restore_that_no_sink_has_written_is_told_again_after_a_crash() {
    where_mounts_are_private(|| {
        let mut disk = None;
        let mut stored = Stored::start_with(|setup| {
            let mounted = disk.insert(SmallDisk::mount(setup.path().join("disk"), 4));
            let file = mounted.path().join("audit.ndjson");
            let classes = "{ allow: block, deny: drop, admin: block, lifecycle: block }";
            let sinks =
                format!("\n  sinks: {{ main: {{ kind: file, path: {} }} }}\n  classes: {classes}", file.display());
            setup.section("audit", &sinks)
        });
        let disk = disk.unwrap();
        let audit = disk.path().join("audit.ndjson");
        stored.create("kept", &["--role", "reader"]);
        let file = backup(&stored);
        assert_eq!(stored.gateway.stop().code, Some(0));
        restore(&stored, &file, &[]);
        disk.fill();
        fill_last_block(&audit);
        stored.gateway.restart();
        until_true("a disk that is full", PATIENCE, || stored.gateway.stderr().contains("restored from a backup"));
        stored.gateway.kill();
        assert_eq!(told(&audit).len(), 0);
        disk.free();
        stored.gateway.restart();
        until_true("the event", PATIENCE, || told(&audit).len() == 1);
        assert_eq!(stored.gateway.stop().code, Some(0));
        stored.gateway.restart();
        assert_eq!(stored.gateway.stop().code, Some(0));
        assert_eq!(told(&audit).len(), 1);
    });
}
