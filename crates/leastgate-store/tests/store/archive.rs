//! Backups, their check and their restore: what is in a copy, and what is refused. What a restore never brings back is in
//! `carried.rs`.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use leastgate_policy::{EnvironmentKey, TokenState};
use leastgate_store::archive::{
    ArchiveError, Owner, Progress, Report, Restore, RestoreOptions, Seal, Step, backup, check,
};
use leastgate_store::{
    AdminRole, Change, Hand, MayGrant, NewAdmin, NewToken, RestoredBy, StateDir, StateDirError, StoreError, TokenName,
    TokenRecord, TokenStore, issue_admin,
};
use rusqlite::Connection;

use crate::fixture::{ENV, FIRST_LAYOUT, Home, NOW, change, key, key_of, named, record};

pub(crate) fn hand() -> Hand {
    Hand { at: NOW.plus(77), by: RestoredBy { uid: 1234, sudo_user: Some("ann".into()) } }
}

pub(crate) fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

pub(crate) fn owner(key: &EnvironmentKey) -> Owner<'_> {
    Owner { environment: ENV, key }
}

pub(crate) fn folder(home: &Home) -> &Path {
    home.path.parent().unwrap()
}

pub(crate) fn back_up(home: &Home) -> PathBuf {
    let to = folder(home).join("backup.db");
    let report = backup(&home.path, &to, owner(&key()), NOW, &mut go_on).unwrap();
    assert!(report.is_fine() && report.seal == Seal::Good(NOW), "{report:?}");
    to
}

pub(crate) fn checked(path: &Path) -> Result<Report, ArchiveError> {
    check(path, Some(owner(&key())), &mut go_on)
}

pub(crate) fn prepare(home: &Home, from: &Path, options: RestoreOptions) -> Result<Restore, ArchiveError> {
    let dir = StateDir::open(folder(home)).unwrap();
    Restore::prepare(&dir, from, owner(&key()), options, &mut go_on)
}

pub(crate) fn restore(home: &Home, from: &Path) -> Option<PathBuf> {
    prepare(home, from, RestoreOptions::default()).unwrap().finish("now", hand()).unwrap()
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A store of several steps' worth of pages.
fn large(home: &Home) -> leastgate_store::SqliteStore {
    let store = home.open();
    let all = (0..6_000).map(|number| {
        let note = Some("n".repeat(300));
        record(NewToken { note, ..named(&format!("token-{number}")) })
    });
    store.create_tokens(all.collect()).unwrap();
    store
}

#[test]
fn a_backup_beside_a_writer_is_of_the_moment_it_began() {
    let home = Home::new();
    let store = large(&home);
    let to = folder(&home).join("backup.db");
    let (mut copied, mut made) = (0, 0);
    let report = backup(&home.path, &to, owner(&key()), NOW, &mut |now| {
        if now.step == Step::Copy {
            copied += 1;
            assert!(copied < 100, "begins anew whenever something is committed");
            store.create_token(record(named(&format!("meanwhile-{copied}")))).unwrap();
            made += 1;
        }
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    assert!(made >= 3, "{made}");
    assert_eq!((report.holds.tokens, report.faults), (6_000, 0));
    assert_eq!(store.count_tokens().unwrap(), 6_000 + made);
    let copy = checked(&to).unwrap();
    assert_eq!((copy.holds.tokens, copy.seal, copy.faults), (6_000, Seal::Good(NOW), 0));
    assert!(names(folder(&home)).iter().all(|name| !name.contains("partial") && !name.starts_with("backup.db-")));
}

#[test]
fn an_interrupted_backup_leaves_nothing_and_one_that_is_there_is_kept() {
    let home = Home::new();
    let _store = large(&home);
    let to = folder(&home).join("backup.db");
    let before = names(folder(&home));
    for last in [Step::Copy, Step::Structure, Step::Records, Step::Seal] {
        let stop = |now: Progress| if now.step == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let ended = backup(&home.path, &to, owner(&key()), NOW, &mut { stop });
        assert!(matches!(ended, Err(ArchiveError::Interrupted)), "{ended:?}");
        assert_eq!(names(folder(&home)), before, "{last:?}");
    }
    fs::write(&to, "precious").unwrap();
    let ended = backup(&home.path, &to, owner(&key()), NOW, &mut go_on);
    assert!(matches!(ended, Err(ArchiveError::Exists { .. })), "{ended:?}");
    assert_eq!(fs::read_to_string(&to).unwrap(), "precious");
}

/// Under the name of its log, SQLite would take the backup for a part of the store.
#[test]
fn a_backup_takes_no_name_that_the_store_uses() {
    let home = Home::new();
    drop(home.open());
    for name in ["store.db-wal", "store.db-shm", "store.db-journal", "lock", "admin.sock"] {
        let to = folder(&home).join("../").join(folder(&home).file_name().unwrap()).join(name);
        let ended = backup(&home.path, &to, owner(&key()), NOW, &mut go_on);
        assert!(matches!(ended, Err(ArchiveError::Reserved { .. })), "{name}: {ended:?}");
        assert!(!to.exists());
    }
}

#[test]
fn looking_at_a_store_leaves_its_folder_as_it_was() {
    let home = Home::new();
    drop(home.open());
    let (before, bytes) = (names(folder(&home)), fs::read(&home.path).unwrap());
    assert!(checked(&home.path).unwrap().is_fine());
    assert_eq!((names(folder(&home)), fs::read(&home.path).unwrap()), (before, bytes));
    // Under a killed gateway's log too: it is read, and left to be folded in by the next start.
    let store = home.open();
    store.create_token(record(named("in-the-log"))).unwrap();
    let other = Home::new();
    let before = home.copy_to(&other);
    assert_eq!(checked(&other.path).unwrap().holds.tokens, 1);
    assert_eq!(other.bytes(), before);
}

#[test]
fn whatever_byte_of_a_backup_is_changed_its_seal_breaks() {
    let home = Home::new();
    let store = home.open();
    store.create_tokens((0..50).map(|number| record(named(&format!("token-{number}")))).collect()).unwrap();
    let good = fs::read(back_up(&home)).unwrap();
    let bad = folder(&home).join("bad.db");
    for at in (0..good.len()).step_by(1_499).chain(good.len() - 56..good.len()) {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&bad, &bytes).unwrap();
        // Where the magic itself is hit there is no seal any more, which a restore refuses as well.
        let is_found = checked(&bad).map_or(true, |report| !report.is_fine() || report.seal == Seal::None);
        assert!(is_found, "byte {at} of {}", good.len());
        assert!(prepare(&home, &bad, RestoreOptions::default()).is_err(), "byte {at}");
    }
    for length in [0, 1, 100, 4096, good.len() / 2, good.len() - 57, good.len() - 1] {
        fs::write(&bad, &good[..length]).unwrap();
        let found = checked(&bad);
        assert!(found.map_or(true, |report| !report.is_fine() || report.seal == Seal::None), "{length}");
        assert!(prepare(&home, &bad, RestoreOptions::default()).is_err(), "cut to {length}");
    }
    assert_eq!(names(folder(&home)).iter().filter(|name| name.contains("partial")).count(), 0);
}

/// Without the pepper nobody can give a token more than it had.
#[test]
fn a_backup_that_was_changed_and_stripped_of_its_seal_is_refused() {
    let home = Home::new();
    home.open().create_token(record(named("a"))).unwrap();
    let to = back_up(&home);
    let sealed = fs::read(&to).unwrap();
    fs::write(&to, &sealed[..sealed.len() - 56]).unwrap();
    Connection::open(&to).unwrap().execute_batch("UPDATE tokens SET roles = '[\"admin\"]'").unwrap();
    assert!(matches!(prepare(&home, &to, RestoreOptions::default()), Err(ArchiveError::Unsealed { .. })));
    let trusting = RestoreOptions { unsealed: true, ..RestoreOptions::default() };
    assert_eq!(prepare(&home, &to, trusting).unwrap().report().seal, Seal::None);
}

#[test]
fn what_is_no_store_or_somebody_elses_is_refused() {
    let home = Home::new();
    drop(home.open());
    let to = back_up(&home);
    let other = key_of(8, ENV);
    let theirs = check(&to, Some(owner(&other)), &mut go_on).unwrap();
    assert!(theirs.problems.iter().any(|problem| problem.to_string().contains("pepper")), "{theirs:?}");
    let dir = StateDir::open(folder(&home)).unwrap();
    let refused = |owner: Owner<'_>, from: &Path| {
        let options = RestoreOptions { unsealed: true, forget_revocations: true, salvage: false };
        Restore::prepare(&dir, from, owner, options, &mut go_on).unwrap_err()
    };
    let wrong = refused(owner(&other), &to);
    assert!(matches!(wrong, ArchiveError::Store(StoreError::WrongPepper { .. })), "{wrong}");
    let staging = key_of(7, "staging");
    let wrong = refused(Owner { environment: "staging", key: &staging }, &to);
    assert!(matches!(wrong, ArchiveError::Store(StoreError::OtherEnvironment { .. })), "{wrong}");
    let wrong = refused(owner(&key()), &home.path);
    assert!(matches!(wrong, ArchiveError::Same { .. }), "{wrong}");

    let elsewhere = Home::new();
    let file = folder(&elsewhere).join("file");
    for content in [&b""[..], b"x", &[0; 8192], &b"not a database ".repeat(1000)] {
        fs::write(&file, content).unwrap();
        let wrong = refused(owner(&key()), &file);
        assert!(matches!(wrong, ArchiveError::Store(StoreError::Foreign { .. })), "{wrong}");
    }
    fs::remove_file(&file).unwrap();
    Connection::open(&file).unwrap().execute_batch("CREATE TABLE bookmarks (url TEXT)").unwrap();
    let wrong = refused(owner(&key()), &file);
    assert!(matches!(wrong, ArchiveError::Store(StoreError::Foreign { .. })), "{wrong}");
    let wrong = refused(owner(&key()), folder(&elsewhere));
    assert!(matches!(wrong, ArchiveError::Store(StoreError::Foreign { .. })), "{wrong}");
}

#[test]
fn every_fault_is_told_by_its_record_and_no_digest_with_it() {
    let home = Home::new();
    let store = home.open();
    let tokens: Vec<TokenRecord> = (0..6).map(|number| record(named(&format!("token-{number}")))).collect();
    store.create_tokens(tokens.clone()).unwrap();
    drop(store);
    let id = |number: usize| tokens[number].accessor.to_string();
    Connection::open(&home.path)
        .unwrap()
        .execute_batch(&format!(
            "DROP INDEX tokens_by_digest; DROP INDEX tokens_held_name; PRAGMA foreign_keys = 0;
             UPDATE tokens SET roles = '[broken' WHERE accessor = '{}';
             UPDATE tokens SET source_ip = '[\"nowhere\"]' WHERE accessor = '{}';
             UPDATE tokens SET created = -1 WHERE accessor = '{}';
             UPDATE tokens SET name = 'token-4' WHERE accessor = '{}';
             UPDATE tokens SET digest = (SELECT digest FROM tokens WHERE accessor = '{}') WHERE accessor = '{}';
             INSERT INTO usage (accessor, rule_id, count, last_used) VALUES ('{}', 99, 1, 1);",
            id(0),
            id(1),
            id(2),
            id(3),
            id(4),
            id(5),
            id(0)
        ))
        .unwrap();
    let report = checked(&home.path).unwrap();
    let lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let said = |words: &[&str]| lines.iter().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(
        said(&[&id(0), "`roles`", "restore"]) && said(&[&id(1), "`source_ip`"]) && said(&[&id(2), "`created`"]),
        "{lines:?}"
    );
    assert!(said(&[&id(3), &id(4), "the name"]) && said(&[&id(4), &id(5), "64 bits"]), "{lines:?}");
    assert!(said(&["table usage", "rules"]), "{lines:?}");
    for token in &tokens {
        let digest: String = token.digest.as_bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!lines.concat().to_lowercase().contains(&digest));
    }
    let ended = backup(&home.path, &folder(&home).join("b"), owner(&key()), NOW, &mut go_on);
    assert!(matches!(ended, Err(ArchiveError::Faulty { .. })), "{ended:?}");
    assert!(!folder(&home).join("b").exists());
}

/// SQLite would apply the old store's log to the new one, and say nothing.
#[test]
fn the_log_of_the_former_store_never_meets_the_new_one() {
    let running = Home::new();
    let store = running.open();
    store.create_token(record(named("before"))).unwrap();
    let backup = back_up(&running);
    store.create_tokens((0..300).map(|number| record(named(&format!("after-{number}")))).collect()).unwrap();
    for with_store in [true, false] {
        // What a killed gateway leaves.
        let home = Home::new();
        running.copy_to(&home);
        assert!(fs::metadata(home.path.with_extension("db-wal")).unwrap().len() > 10_000);
        if !with_store {
            fs::remove_file(&home.path).unwrap();
        }
        let kept = restore(&home, &backup).unwrap();
        assert_eq!(names(folder(&home)).iter().filter(|name| name.starts_with("store.db-")).count(), 0);
        assert!(checked(&home.path).unwrap().is_fine());
        assert_eq!(home.open().count_tokens().unwrap(), 1, "with_store: {with_store}");
        if with_store {
            assert_eq!(checked(&kept).unwrap().holds.tokens, 301, "folded in before");
            assert!(!PathBuf::from(format!("{}-wal", kept.display())).exists());
        } else {
            assert!(PathBuf::from(format!("{}-wal", kept.display())).exists(), "set aside, not thrown away");
        }
    }
}

#[test]
fn a_store_that_somebody_has_open_is_not_replaced() {
    let home = Home::new();
    let store = home.open();
    store.create_token(record(named("a"))).unwrap();
    let backup = back_up(&home);
    store.create_token(record(named("b"))).unwrap();
    let ready = prepare(&home, &backup, RestoreOptions::default()).unwrap();
    let refused = ready.finish("now", hand()).unwrap_err();
    assert!(matches!(refused, ArchiveError::Store(StoreError::Busy { .. })), "{refused}");
    assert_eq!(store.count_tokens().unwrap(), 2);
    assert!(names(folder(&home)).iter().all(|name| !name.contains("partial") && !name.contains("before-restore")));
}

#[test]
fn a_restore_works_without_a_store_and_leaves_no_draft_of_a_killed_one() {
    let home = Home::new();
    home.open().create_token(record(named("a"))).unwrap();
    let backup = back_up(&home);
    fs::remove_file(&home.path).unwrap();
    fs::write(folder(&home).join(".store.db.0123456789abcdef.partial"), "left").unwrap();
    fs::write(folder(&home).join(".store.db.0123456789abcdef.partial-wal"), "left").unwrap();
    let ready = prepare(&home, &backup, RestoreOptions::default()).unwrap();
    assert_eq!(ready.carried(), None);
    drop(ready);
    assert!(!home.path.exists());
    assert_eq!(restore(&home, &backup), None);
    assert_eq!(names(folder(&home)), ["backup.db", "lock", "store.db"]);
    assert_eq!(home.open().count_tokens().unwrap(), 1);
}

/// Whose name begins with the store's may be a backup that another process is writing.
#[test]
fn what_a_killed_backup_left_goes_with_time_and_no_draft_of_another_file_does() {
    let home = Home::new();
    home.open().create_token(record(named("a"))).unwrap();
    let backup_file = back_up(&home);
    let (old, fresh) = ("0123456789abcdef", "fedcba9876543210");
    let draft = |of: &str, number: &str, more: &str| folder(&home).join(format!(".{of}.{number}.partial{more}"));
    let of_others = [draft("store.db.bak", old, ""), draft("store.db.x", old, "-wal"), draft("backup.db", old, "")];
    for path in &of_others {
        fs::write(path, "being written").unwrap();
    }
    restore(&home, &backup_file);
    assert!(of_others.iter().all(|path| path.exists()), "{:?}", names(folder(&home)));

    let again = folder(&home).join("again.db");
    let left = [draft("again.db", old, ""), draft("again.db", old, "-journal")];
    for path in &left {
        fs::write(path, "left").unwrap();
        let days_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
        fs::File::options().write(true).open(path).unwrap().set_modified(days_ago).unwrap();
    }
    fs::write(draft("again.db", fresh, ""), "being written").unwrap();
    backup(&home.path, &again, owner(&key()), NOW, &mut go_on).unwrap();
    assert!(draft("again.db", fresh, "").exists(), "another backup may be at it");
    assert!(!left.iter().any(|path| path.exists()), "{:?}", names(folder(&home)));
}

/// What the first release wrote: the same rows without what came later.
fn make_old(path: &Path) {
    Connection::open(path).unwrap().execute_batch(FIRST_LAYOUT).unwrap();
}

#[test]
fn a_backup_of_an_older_release_is_checked_restored_and_brought_up() {
    let home = Home::new();
    let token = home.open().create_token(record(named("a"))).unwrap();
    make_old(&home.path);
    let bytes = fs::read(&home.path).unwrap();
    let old = back_up(&home);
    assert!(fs::read(&home.path).unwrap() == bytes, "no backup migrates the store it copies");
    let report = checked(&old).unwrap();
    assert_eq!((report.schema, report.holds.tokens, report.faults), (1, 1, 0), "{report:?}");
    home.open().change_state(token.accessor, change(Change::Revoke), None).unwrap();
    for is_present_old in [false, true] {
        if is_present_old {
            make_old(&home.path);
        }
        let ready = prepare(&home, &old, RestoreOptions::default()).unwrap();
        assert_eq!((ready.report().schema, ready.carried().unwrap().revoked), (1, 1));
        ready.finish(&format!("{is_present_old}"), hand()).unwrap();
        assert_eq!(checked(&home.path).unwrap().schema, 5);
        assert_eq!(home.open().token(token.accessor).unwrap().state, TokenState::Revoked);
    }
}

/// A trigger of whoever made the file runs when a copy is brought up, and may reach no further than the records.
#[test]
fn what_an_older_file_brings_along_is_not_trusted_when_it_is_looked_at() {
    let home = Home::new();
    let admin = NewAdmin {
        name: TokenName::parse("root").unwrap(),
        role: AdminRole::Admin,
        may_grant: MayGrant::everything(),
        created: NOW,
        created_by: "ann".into(),
    };
    issue_admin(&home.open(), ENV, &key(), &admin).unwrap();
    make_old(&home.path);
    let file = Connection::open(&home.path).unwrap();
    file.execute_batch(
        "CREATE TRIGGER looks AFTER UPDATE ON admins BEGIN
             UPDATE admins SET name = (SELECT 'seen' FROM pragma_database_list) WHERE id = new.id AND name <> 'seen';
         END",
    )
    .unwrap();
    drop(file);
    let looked = checked(&home.path);
    let told = format!("{looked:?}");
    assert!(told.contains("unsafe use of virtual table"), "{told}");
}

#[test]
fn root_writes_nothing_into_a_folder_of_somebody_else() {
    let home = Home::new();
    home.open().create_token(record(named("a"))).unwrap();
    let backup_file = back_up(&home);
    if std::os::unix::fs::chown(folder(&home), Some(65_534), None).is_err() {
        // Only root can give a folder away, and only root is refused.
        return;
    }
    let before = names(folder(&home));
    assert!(matches!(StateDir::open_own(folder(&home)), Err(StateDirError::Others { uid: 65_534, .. })));
    assert_eq!(names(folder(&home)), before, "no lock either");
    let restored = prepare(&home, &backup_file, RestoreOptions::default()).map(drop).unwrap_err();
    let again =
        backup(&home.path, &folder(&home).join("again.db"), owner(&key()), NOW, &mut go_on).map(drop).unwrap_err();
    for refused in [restored, again] {
        assert!(matches!(refused, ArchiveError::OthersFolder { uid: 65_534, .. }), "{refused}");
    }
}
