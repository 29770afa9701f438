//! `leastgate store backup|restore|check` on the store of a real gateway: what a backup holds, what its restore brings back
//! and what never, and what full disks, kills and wrong files come to.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use leastgate_testkit::deadline::{PATIENCE, until_true, within};
use leastgate_testkit::paths;
use leastgate_testkit::process::{Ended, Process};
use leastgate_testkit::raw::exchange;
use leastgate_testkit::small_disk::where_mounts_are_private;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::stored::Stored;

/// Of the file header of SQLite: its user version, which holds the schema's.
const USER_VERSION: usize = 60;

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn assert_ended(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}{}", ended.stdout, ended.stderr);
    let said = format!("{}{}", ended.stdout, ended.stderr);
    assert!(words.iter().all(|word| said.contains(word)), "{words:?} in:\n{said}");
    assert!(!said.contains("panicked"), "{said}");
}

fn json_of(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", ended.stdout, ended.stderr))
}

fn backup(stored: &Stored, name: &str) -> PathBuf {
    let file = stored.gateway.path().join(name);
    stored.cli(&["store", "backup", shown(&file)]);
    file
}

fn store(stored: &Stored) -> PathBuf {
    stored.gateway.path().join("state/store.db")
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn restored(stored: &mut Stored, file: &Path, more: &[&str]) -> Value {
    assert_eq!(stored.gateway.stop().code, Some(0));
    let ended = stored.cli(&[&["store", "restore", shown(file), "--yes", "-o", "json"], more].concat());
    stored.gateway.restart();
    json_of(&ended)
}

fn status(stored: &Stored, secret: &str) -> u16 {
    stored.ask(secret, "/v1/orders").status
}

#[test]
fn what_was_acknowledged_before_a_backup_is_in_it_while_others_go_on_writing() {
    let mut stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    let (made, is_over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let (before, file) = thread::scope(|scope| {
        for lane in 0..2 {
            let (admin, root, made, is_over) = (stored.gateway.addresses().admin, &root, &made, &is_over);
            scope.spawn(move || make_until_over(admin, root, lane, made, is_over));
        }
        until_true("some tokens", PATIENCE, || made.lock().unwrap().len() >= 30);
        let before: Vec<String> = made.lock().unwrap().clone();
        let file = backup(&stored, "backup.db");
        let after = made.lock().unwrap().len();
        until_true("tokens made after it", PATIENCE, || made.lock().unwrap().len() > after);
        is_over.store(true, Ordering::Relaxed);
        (before, file)
    });
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let checked = json_of(&stored.cli(&["store", "check", shown(&file), "-o", "json"]));
    assert_eq!(
        (&checked["valid"], &checked["seal"], &checked["compared"]),
        (&json!(true), &json!("good"), &json!(true))
    );
    assert!(checked["tokens"].as_u64().unwrap() >= before.len() as u64, "{checked}");
    let bytes = fs::read(&file).unwrap();
    assert!(!bytes.windows(4).any(|four| four == b"lgt_"), "no secret in a backup");

    let all = made.into_inner().unwrap();
    let said = restored(&mut stored, &file, &[]);
    assert!(said["since"]["lost"].as_u64().unwrap() >= 1, "{said}");
    for secret in &before {
        assert_eq!(status(&stored, secret), 200);
    }
    assert_eq!(status(&stored, all.last().unwrap()), 401, "made after the backup");
    assert_eq!(status(&stored, &stored.create("new", &["--role", "reader"])), 200, "the store takes changes as before");
}

fn make_until_over(admin: SocketAddr, root: &str, lane: usize, made: &Mutex<Vec<String>>, is_over: &AtomicBool) {
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("made-{lane}-{number}");
        let body = json!({ "name": name, "owner": "team-test", "roles": ["reader"], "ttl": "1h" }).to_string();
        let reply = exchange(
            admin,
            format!(
                "POST /v1/tokens HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {root}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            ),
        );
        assert_eq!(reply.status, 201, "{}", reply.text());
        made.lock().unwrap().push(reply.json()["secret"].as_str().unwrap().to_owned());
    }
}

#[test]
fn a_restore_revives_nothing_that_was_revoked_since_unless_told_to() {
    let mut stored = Stored::start();
    let [kept, leaked, paused] = ["kept", "leaked", "paused"].map(|name| stored.create(name, &["--role", "reader"]));
    stored.administrator("gone", "admin");
    let file = backup(&stored, "backup.db");
    stored.cli(&["token", "revoke", "leaked", "--reason", "leaked", "--yes"]);
    stored.cli(&["token", "disable", "paused", "--reason", "a while", "--yes"]);
    stored.cli(&["admin", "revoke", "gone", "--reason", "left", "--yes"]);
    let later = stored.create("later", &["--role", "reader"]);

    let said = restored(&mut stored, &file, &[]);
    let since = &said["since"];
    assert_eq!(
        (&since["revoked"], &since["disabled"], &since["revoked_admins"]),
        (&json!(1), &json!(1), &json!(1)),
        "{said}"
    );
    assert_eq!((&since["lost"], &said["revocations"]), (&json!(1), &json!("carried over")), "{said}");
    let now = [&kept, &leaked, &paused, &later].map(|secret| status(&stored, secret));
    assert_eq!(now, [200, 401, 401, 401]);
    let shown_token = stored.cli(&["token", "show", "leaked"]).stdout;
    assert!(shown_token.contains("revoked") && shown_token.contains("leaked"), "{shown_token}");
    assert!(Path::new(said["kept"].as_str().unwrap()).exists(), "{said}");

    let said = restored(&mut stored, &file, &["--forget-revocations"]);
    assert_eq!((&said["since"]["revoked"], &said["revocations"]), (&json!(1), &json!("forgotten")), "{said}");
    assert_eq!([&kept, &leaked, &paused].map(|secret| status(&stored, secret)), [200, 200, 200]);
}

#[test]
fn a_restore_on_a_new_machine_waits_for_a_word_and_says_where_a_former_store_is() {
    let mut stored = Stored::start();
    let leaked = stored.create("leaked", &["--role", "reader"]);
    let file = backup(&stored, "backup.db");
    stored.cli(&["token", "revoke", "leaked", "--reason", "leaked", "--yes"]);
    assert_eq!(stored.gateway.stop().code, Some(0));
    let former = store(&stored).with_file_name("store.db.before-restore-20260101T000000.000Z");
    fs::rename(store(&stored), &former).unwrap();
    let refused = stored.gateway.cli(&["store", "restore", shown(&file), "--yes"]);
    assert_ended(&refused, 3, &["there is no", "--forget-revocations", shown(&former)]);
    assert!(!store(&stored).exists());
    fs::rename(&former, store(&stored)).unwrap();
    stored.gateway.restart();
    assert_eq!(restored(&mut stored, &file, &[])["since"]["revoked"], json!(1));
    assert_eq!(status(&stored, &leaked), 401);

    assert_eq!(stored.gateway.stop().code, Some(0));
    fs::remove_file(store(&stored)).unwrap();
    stored.gateway.restart();
    let said = restored(&mut stored, &file, &["--forget-revocations"]);
    assert_eq!((&said["since"]["unknown"], &said["uses"]), (&json!(1), &json!("counted anew")), "{said}");
    assert_eq!(status(&stored, &leaked), 200);
}

#[test]
fn a_restore_waits_for_a_word_and_for_the_gateway_to_end() {
    let mut stored = Stored::start();
    let file = backup(&stored, "backup.db");
    let pid = stored.gateway.id().to_string();
    assert_ended(&stored.gateway.cli(&["store", "restore", shown(&file), "--yes"]), 1, &["in use", &pid]);
    assert_eq!(stored.gateway.stop().code, Some(0));
    let before = fs::read(store(&stored)).unwrap();
    assert_ended(&stored.gateway.cli(&["store", "restore", shown(&file)]), 64, &["--yes"]);
    assert!(fs::read(store(&stored)).unwrap() == before);
    let state = stored.gateway.path().join("state");
    assert!(
        names(&state).iter().all(|name| !name.contains("partial") && !name.contains("before")),
        "{:?}",
        names(&state)
    );
    let again = stored.gateway.cli(&["store", "backup", shown(&file)]);
    assert_ended(&again, 1, &["overwrites nothing"]);
}

/// SQLite would apply the log that a killed gateway leaves to the new file, and say nothing.
#[test]
fn a_restore_after_a_kill_leaves_no_log_for_the_new_store() {
    let mut stored = Stored::start();
    let before = stored.create("before", &["--role", "reader"]);
    let file = backup(&stored, "backup.db");
    let after = stored.create("after", &["--role", "reader"]);
    stored.cli(&["token", "revoke", "before", "--reason", "in the log alone", "--yes"]);
    stored.gateway.kill();
    let log = stored.gateway.path().join("state/store.db-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0, "what was changed last is in the log");
    let said = json_of(&stored.cli(&["store", "restore", shown(&file), "--yes", "-o", "json"]));
    assert_eq!(said["since"]["revoked"], json!(1), "read from the log: {said}");
    assert!(!log.exists());
    stored.cli(&["store", "check"]);
    let kept = said["kept"].as_str().unwrap().to_owned();
    assert_eq!(json_of(&stored.cli(&["store", "check", &kept, "-o", "json"]))["tokens"], json!(2));
    stored.gateway.restart();
    assert_eq!((status(&stored, &before), status(&stored, &after)), (401, 401));
}

#[test]
fn a_full_disk_leaves_no_half_backup_and_the_store_as_it_was() {
    where_mounts_are_private(|| {
        let (mut stored, disk) = Stored::start_on_a_small_disk();
        let secret = stored.create("kept", &["--role", "reader"]);
        let good = backup(&stored, "backup.db");
        disk.fill();
        let file = disk.path().join("backup.db");
        let full = stored.gateway.cli(&["store", "backup", shown(&file)]);
        assert_ended(&full, 1, &["no space left", "backup.db"]);
        assert!(
            names(disk.path()).iter().all(|name| ["state", "ballast"].contains(&name.as_str())),
            "{:?}",
            names(disk.path())
        );

        assert_eq!(stored.gateway.stop().code, Some(0));
        let full = stored.gateway.cli(&["store", "restore", shown(&good), "--yes"]);
        assert_ended(&full, 1, &["no space left"]);
        let left = names(&disk.path().join("state"));
        assert!(left.iter().all(|name| !name.contains("partial") && !name.contains("before")), "{left:?}");
        disk.free();
        stored.gateway.restart();
        assert_eq!(status(&stored, &secret), 200);
    });
}

/// A file that may grow no further ends the process where it writes, as a kill does.
#[test]
fn a_backup_that_is_killed_leaves_nothing_that_looks_like_one() {
    let stored = Stored::start();
    stored.create("kept", &["--role", "reader"]);
    let folder = stored.gateway.path().join("backups");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("backup.db");
    let config = stored.gateway.path().join("leastgate.yaml");
    for most in [1, 4_096, 50_000] {
        let mut command = Command::new(paths::program("prlimit"));
        command.arg(format!("--fsize={most}")).arg(paths::leastgate()).args([
            "store",
            "backup",
            shown(&file),
            "--config",
        ]);
        let ended = Process::run("leastgate store backup", command.arg(&config), PATIENCE);
        assert_eq!(ended.code, None, "killed by its limit of {most}: {}{}", ended.stdout, ended.stderr);
        assert!(!file.exists() && names(&folder).iter().all(|name| name.starts_with('.')), "{:?}", names(&folder));
    }
    for delay in 0..20 {
        let mut command = Command::new(paths::leastgate());
        command.args(["store", "backup", shown(&file), "--config"]).arg(&config);
        let mut process = Process::spawn("leastgate store backup", &mut command);
        let ended = within(Duration::from_millis(delay * 3), || (!process.is_running()).then_some(()));
        if ended.is_none() {
            process.signal(Signal::KILL);
        }
        let _ = process.wait(PATIENCE).unwrap();
        if file.exists() {
            stored.cli(&["store", "check", shown(&file)]);
            fs::remove_file(&file).unwrap();
        }
    }
}

#[test]
fn a_newer_schema_is_refused_by_every_command() {
    let mut stored = Stored::start();
    let file = backup(&stored, "backup.db");
    assert_eq!(stored.gateway.stop().code, Some(0));
    let newer = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[USER_VERSION..USER_VERSION + 4].copy_from_slice(&99_u32.to_be_bytes());
        fs::write(path, &bytes).unwrap();
    };
    newer(&file);
    let words = ["schema 99", "run the newer leastgate"];
    assert_ended(&stored.gateway.cli(&["store", "restore", shown(&file), "--yes", "--unsealed"]), 3, &words);
    assert_ended(&stored.gateway.cli(&["store", "check", shown(&file)]), 3, &words);
    newer(&store(&stored));
    let before = fs::read(store(&stored)).unwrap();
    assert_ended(&stored.gateway.restart_failing(), 3, &words);
    assert_ended(&stored.gateway.cli(&["store", "check"]), 3, &words);
    let to = stored.gateway.path().join("other.db");
    assert_ended(&stored.gateway.cli(&["store", "backup", shown(&to)]), 3, &words);
    assert!(!to.exists() && fs::read(store(&stored)).unwrap() == before, "left untouched");
}

/// The release that wrote it goes on with it when the slip is mended: nobody may have brought it up meanwhile.
#[test]
fn a_start_with_another_pepper_leaves_an_older_store_as_it_was() {
    let mut stored = Stored::start();
    assert_eq!(stored.gateway.stop().code, Some(0));
    let mut bytes = fs::read(store(&stored)).unwrap();
    bytes[USER_VERSION..USER_VERSION + 4].copy_from_slice(&1_u32.to_be_bytes());
    fs::write(store(&stored), &bytes).unwrap();
    let pepper = stored.gateway.path().join("pepper");
    fs::write(&pepper, "another-pepper-another-pepper-another-pepper-another").unwrap();
    assert_ended(&stored.gateway.restart_failing(), 3, &["pepper"]);
    assert!(fs::read(store(&stored)).unwrap() == bytes);
}

#[test]
fn what_is_no_backup_of_this_gateway_is_refused_and_changes_nothing() {
    let mut stored = Stored::start();
    let secret = stored.create("kept", &["--role", "reader"]);
    let file = backup(&stored, "backup.db");
    assert_eq!(stored.gateway.stop().code, Some(0));
    let good = fs::read(&file).unwrap();
    let present = fs::read(store(&stored)).unwrap();
    fs::write(store(&stored), "somebody's shopping list").unwrap();
    assert_ended(&stored.gateway.restart_failing(), 3, &["not a leastgate store"]);
    fs::write(store(&stored), present).unwrap();
    let bad = stored.gateway.path().join("bad.db");
    let refused = |bytes: &[u8], words: &[&str]| {
        fs::write(&bad, bytes).unwrap();
        assert_ended(&stored.gateway.cli(&["store", "restore", shown(&bad), "--yes"]), 3, words);
    };
    refused(b"somebody's shopping list", &["not a leastgate store"]);
    refused(b"", &["not a leastgate store", "empty"]);
    refused(&good[..good.len() / 2], &[]);
    refused(&good[..good.len() - 56], &["no seal", "--unsealed"]);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x10;
    refused(&flipped, &["seal"]);
    assert_ended(&stored.gateway.cli(&["store", "check", shown(&bad)]), 3, &["seal"]);
    let missing = stored.gateway.path().join("missing.db");
    for command in ["check", "restore"] {
        assert_ended(&stored.gateway.cli(&["store", command, shown(&missing)]), 1, &["missing.db"]);
    }
    let pepper = stored.gateway.path().join("pepper");
    let right = fs::read(&pepper).unwrap();
    fs::write(&pepper, "another-pepper-another-pepper-another-pepper-another").unwrap();
    for command in
        [&["store", "restore", shown(&file), "--yes"][..], &["store", "check"], &["store", "backup", shown(&missing)]]
    {
        assert_ended(&stored.gateway.cli(command), 3, &["pepper"]);
    }
    fs::write(&pepper, right).unwrap();
    stored.gateway.restart();
    assert_eq!(status(&stored, &secret), 200);
}

#[test]
fn a_check_works_beside_a_gateway_and_where_there_is_none() {
    let mut stored = Stored::start();
    stored.create("a", &["--role", "reader"]);
    let checked = json_of(&stored.cli(&["store", "check", "-o", "json"]));
    assert_eq!((&checked["valid"], &checked["tokens"], &checked["problems"]), (&json!(true), &json!(1), &json!([])));
    assert_ended(&stored.cli(&["store", "check"]), 0, &["store.db is whole: 1 token(s)"]);
    let file = backup(&stored, "backup.db");

    let elsewhere = tempfile::tempdir().unwrap();
    let mut command = Command::new(paths::leastgate());
    command.current_dir(elsewhere.path()).args(["store", "check", shown(&file)]);
    let ended = Process::run("leastgate store check", &mut command, PATIENCE);
    assert_ended(&ended, 0, &["is whole", "were not compared"]);
    assert!(names(elsewhere.path()).is_empty());

    // A page of the tables, overwritten: the gateway's own file is as easily damaged as a copy.
    assert_eq!(stored.gateway.stop().code, Some(0));
    let mut bytes = fs::read(store(&stored)).unwrap();
    bytes[4096..8192].fill(0x55);
    fs::write(store(&stored), bytes).unwrap();
    let ended = stored.gateway.cli(&["store", "check", "-o", "json"]);
    assert_eq!(ended.code, Some(3), "{}{}", ended.stdout, ended.stderr);
    let checked = json_of(&ended);
    assert_eq!(checked["valid"], json!(false));
    assert!(checked["problems"][0]["fix"].as_str().unwrap().contains("backup"), "{checked}");
    let to = stored.gateway.path().join("of-a-damaged-one.db");
    assert_ended(&stored.gateway.cli(&["store", "backup", shown(&to)]), 3, &["store.db"]);
    assert!(!to.exists());
}
