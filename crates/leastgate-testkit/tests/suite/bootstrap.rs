//! `serve --bootstrap-admin FILE`: the first administrator's credential, written once and for its owner alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::{Setup, TestGateway};
use leastgate_testkit::leaks::LeakSearch;
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::recorder::RecorderUpstream;
use leastgate_testkit::small_disk::{SmallDisk, where_mounts_are_private};
use serde_json::json;

use crate::fixtures::setup;
use crate::stored::{Stored, stored_setup, take};

fn bootstrapping(setup: Setup, file: &Path) -> Setup {
    setup.argument("--bootstrap-admin").argument(&file.display().to_string())
}

/// The status that the credential is answered with for what only an administrator may do.
fn status(stored: &Stored, credential: &str) -> u16 {
    stored.api("GET", "/v1/admins", Some(credential), None).status
}

#[test]
fn the_first_start_writes_a_credential_and_no_later_one_does() {
    let mut file = None;
    let mut stored = Stored::start_with(|setup| {
        let path = file.insert(setup.path().join("root.admin")).clone();
        bootstrapping(setup, &path)
    });
    let file = file.unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
    let written = fs::read_to_string(&file).unwrap();
    let credential = written.trim().to_owned();
    assert!(credential.starts_with("lga_test_"));
    assert_eq!(status(&stored, &credential), 200);
    until_true("the event", PATIENCE, || {
        stored.gateway.events().iter().any(|event| event["change"]["operation"] == "admin.bootstrap")
    });
    let wanted = json!({ "name": "made-here", "owner": "team-test", "roles": ["reader"], "ttl": "1h" });
    assert_eq!(stored.api("POST", "/v1/tokens", Some(&credential), Some(wanted)).status, 201, "it may give everything");

    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    assert_eq!(fs::read_to_string(&file).unwrap(), written, "left as it was");
    assert_eq!((status(&stored, &credential), take(&file)), (200, credential.clone()));
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    assert!(!fs::exists(&file).unwrap(), "there is an administrator");
    assert_eq!(status(&stored, &credential), 200);

    let mut search = LeakSearch::default();
    search.add("root", &credential);
    for (place, bytes) in stored.gateway.written() {
        search.assert_clean(&place, &bytes);
    }
}

#[test]
fn a_file_that_is_there_is_not_written_and_the_start_refused() {
    let plant: [fn(&Path); 2] = [
        |file| fs::write(file, "somebody's").unwrap(),
        // Where it leads, somebody else may wait for the secret.
        |file| symlink(file.with_file_name("elsewhere"), file).unwrap(),
    ];
    for plant in plant {
        let upstream = RecorderUpstream::start();
        let setup = stored_setup().upstream("orders", &upstream.url());
        let file = setup.path().join("root.admin");
        plant(&file);
        let mut gateway: TestGateway = setup.start();
        assert_eq!(gateway.stop().code, Some(0));
        let ended = gateway.restart_failing_with(&["--bootstrap-admin", &file.display().to_string()]);
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        let is_named = |line: &str| line.contains("--bootstrap-admin") && line.contains("root.admin");
        assert!(ended.stderr.lines().filter(|line| is_named(line)).count() == 1, "{}", ended.stderr);
        assert!(fs::read_to_string(&file).map_or(true, |text| text == "somebody's"));
        assert!(!fs::exists(gateway.path().join("elsewhere")).unwrap());
        // No administrator was made whose credential nobody has.
        let free = gateway.path().join("free.admin");
        gateway.restart_with(&["--bootstrap-admin", &free.display().to_string()]);
        let stored = Stored { gateway, upstream };
        assert_eq!(status(&stored, &take(&free)), 200);
    }
}

#[test]
fn a_credential_that_could_not_be_written_does_not_count() {
    where_mounts_are_private(|| {
        let upstream = RecorderUpstream::start();
        let mut gateway = stored_setup().upstream("orders", &upstream.url()).start();
        assert_eq!(gateway.stop().code, Some(0));
        let disk = SmallDisk::mount(gateway.path().join("disk"), 1);
        let file = disk.path().join("root.admin");
        let arguments = ["--bootstrap-admin", &file.display().to_string()];
        disk.fill();
        assert_eq!(gateway.restart_failing_with(&arguments).code, Some(1));
        assert!(!fs::exists(&file).unwrap());
        disk.free();
        gateway.restart_with(&arguments);
        let stored = Stored { gateway, upstream };
        let credential = take(&file);
        let admins = stored.api("GET", "/v1/admins", Some(&credential), None).json();
        assert_eq!(admins["items"].as_array().map(Vec::len), Some(1), "one was never made: {admins}");
    });
}

/// They end with the process, and what stays of them does not know that one was revoked: the second start could write
/// no other file, and would take a credential again that was given.
#[test]
fn a_gateway_that_keeps_its_administrators_in_memory_makes_none() {
    let upstream = RecorderUpstream::start();
    let mut gateway = setup(&orders_tokens()).upstream("orders", &upstream.url()).start();
    assert_eq!(gateway.stop().code, Some(0));
    let given = gateway.path().join("root.given").display().to_string();
    let drawn = gateway.cli(&["admin", "create", "--declare", "--environment", "test", "--secret-file", &given]);
    assert_eq!(drawn.code, Some(0), "{}", drawn.stderr);
    let credential = fs::read_to_string(&given).unwrap();
    let (file, yaml) = (gateway.path().join("root.admin"), gateway.path().join("leastgate.yaml"));
    let text = fs::read_to_string(&yaml).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.starts_with("state_dir:")).collect();
    assert_eq!(without.len() + 1, text.lines().count());
    fs::write(&yaml, without.join("\n")).unwrap();
    let refused = |gateway: &mut TestGateway, arguments: &[&str], way: &str| {
        let ended = gateway.restart_failing_with(arguments);
        assert_eq!(ended.code, Some(64), "{way}: {}", ended.stderr);
        assert!(ended.stderr.contains(way) && ended.stderr.contains("state_dir"), "{way}: {}", ended.stderr);
        assert!(!ended.stderr.contains(credential.trim()), "{}", ended.stderr);
    };
    refused(&mut gateway, &["--bootstrap-admin", &file.display().to_string()], "--bootstrap-admin");
    assert!(!fs::exists(&file).unwrap());
    refused(&mut gateway, &["--bootstrap-admin-from", &given], "--bootstrap-admin-from");
    gateway.set_variable("LEASTGATE_BOOTSTRAP_ADMIN", Some(credential.trim()));
    refused(&mut gateway, &[], "LEASTGATE_BOOTSTRAP_ADMIN");
    gateway.set_variable("LEASTGATE_BOOTSTRAP_ADMIN", None);
    gateway.restart_with(&[]);
}

#[test]
fn the_last_administrators_end_keeps_no_gateway_from_starting() {
    let mut file = None;
    let mut stored = Stored::start_with(|setup| {
        let path = file.insert(setup.path().join("root.admin")).clone();
        bootstrapping(setup, &path)
    });
    let file = file.unwrap();
    let former = fs::read_to_string(&file).unwrap().trim().to_owned();
    stored.cli(&["admin", "revoke", "root", "--reason", "leaked", "--yes"]);
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    until_true("the warning", PATIENCE, || {
        let said = stored.gateway.stderr();
        said.contains("root.admin") && said.contains("without an administrator") && said.contains("remove")
    });
    assert_eq!(status(&stored, &former), 401);
    assert_eq!(take(&file), former, "left as it was");
    assert_eq!(stored.gateway.stop().code, Some(0));
    stored.gateway.restart();
    assert_eq!(status(&stored, &take(&file)), 200, "another one");
    assert_eq!(status(&stored, &former), 401);
}
