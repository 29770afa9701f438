//! Backups and their check: what is in a copy, and what is refused. Restores are in `restores.rs`.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use leastgate_policy::EnvironmentKey;
use leastgate_store::archive::{
    ArchiveError, Owner, Progress, Report, Restore, RestoreOptions, Seal, Step, backup, check,
};
use leastgate_store::{
    AdminRole, Hand, MayGrant, NewAdmin, NewToken, RestoredBy, StateDir, StoreError, TokenName, TokenRecord,
    TokenStore, issue_admin,
};
use rusqlite::Connection;

use crate::fixture::{ENV, FIRST_LAYOUT, Home, NOW, key, key_of, named, record};

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
    Restore::prepare(&dir, from, owner(&key()), options, hand(), &mut go_on)
}

pub(crate) fn restore(home: &Home, from: &Path) -> Option<PathBuf> {
    prepare(home, from, RestoreOptions::default()).unwrap().finish("now").unwrap()
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
        Restore::prepare(&dir, from, owner, options, hand(), &mut go_on).unwrap_err()
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

/// What the first release wrote: the same rows without what came later.
pub(crate) fn make_old(path: &Path) {
    Connection::open(path).unwrap().execute_batch(FIRST_LAYOUT).unwrap();
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

/// A log applies to whatever has the file's name, and a journal is played back into it.
#[test]
fn a_sealed_file_is_not_read_with_what_lies_beside_it() {
    let home = Home::new();
    home.open().create_token(record(named("bot"))).unwrap();
    let to = back_up(&home);
    let bytes = fs::read(&to).unwrap();
    for suffix in ["-wal", "-journal"] {
        let companion = to.with_file_name(format!("backup.db{suffix}"));
        fs::write(&companion, "x").unwrap();
        let refused = checked(&to).unwrap_err();
        assert!(matches!(&refused, ArchiveError::NotAlone { companion: told, .. } if *told == companion), "{refused}");
        assert!(refused.to_string().contains("move the other away"), "{refused}");
        fs::remove_file(companion).unwrap();
        assert_eq!(fs::read(&to).unwrap(), bytes, "it is as it was");
    }
    assert_eq!(checked(&to).unwrap().seal, Seal::Good(NOW));
}
