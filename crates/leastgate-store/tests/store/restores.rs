//! Restores: what takes the store's place, and what is left beside it. What they never bring back is in `carried.rs`.

use std::fs;
use std::path::PathBuf;

use leastgate_policy::TokenState;
use leastgate_store::archive::{ArchiveError, RestoreOptions, backup};
use leastgate_store::{Change, StateDir, StateDirError, StoreError, TokenStore};

use crate::archive::{back_up, checked, folder, go_on, make_old, names, owner, prepare, restore};
use crate::fixture::{Home, NOW, change, key, named, record};

const FORGETTING: RestoreOptions = RestoreOptions { unsealed: false, forget_revocations: true, salvage: false };

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
        let options = RestoreOptions { forget_revocations: !with_store, ..RestoreOptions::default() };
        let kept = prepare(&home, &backup, options).unwrap().finish("now").unwrap().unwrap();
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
    let refused = ready.finish("now").unwrap_err();
    assert!(matches!(refused, ArchiveError::Store(StoreError::Busy { .. })), "{refused}");
    assert_eq!(store.count_tokens().unwrap(), 2);
    assert!(names(folder(&home)).iter().all(|name| !name.contains("partial") && !name.contains("before-restore")));
}

/// All that was revoked since would live again, and nobody would have said that it may.
#[test]
fn without_a_store_to_know_it_from_a_restore_waits_for_a_word() {
    let home = Home::new();
    home.open().create_token(record(named("a"))).unwrap();
    let backup = back_up(&home);
    let refused = |words: &[&str]| {
        for options in [RestoreOptions::default(), RestoreOptions { salvage: true, ..RestoreOptions::default() }] {
            let refused = prepare(&home, &backup, options).map(drop).unwrap_err();
            let said = refused.to_string();
            assert!(matches!(refused, ArchiveError::NothingKnown { .. }), "{said}");
            assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        }
    };
    fs::remove_file(&home.path).unwrap();
    refused(&["there is no", "store.db", "--forget-revocations", "new machine"]);
    // What a start that was killed leaves, and one that was not.
    fs::write(&home.path, "").unwrap();
    refused(&["there is no", "--forget-revocations"]);
    drop(home.open());
    refused(&["holds nothing", "--forget-revocations"]);
    assert_eq!(names(folder(&home)), ["backup.db", "lock", "store.db"], "nothing is left of what was made ready");

    for stamp in ["20260101T000000.000Z", "20270101T000000.000Z"] {
        for suffix in ["", "-wal"] {
            fs::write(folder(&home).join(format!("store.db.before-restore-{stamp}{suffix}")), "former").unwrap();
        }
    }
    refused(&["holds nothing", "store.db.before-restore-20270101T000000.000Z", "carried over"]);
    fs::remove_file(&home.path).unwrap();
    refused(&["there is no", "store.db.before-restore-20270101T000000.000Z", "carried over"]);
    // SQLite would apply what is there of a log to whatever gets the store's name.
    let log = folder(&home).join("store.db-wal");
    fs::write(&log, "log").unwrap();
    let said = prepare(&home, &backup, RestoreOptions::default()).map(drop).unwrap_err().to_string();
    assert!(said.contains("there is no") && !said.contains("before-restore"), "{said}");
    fs::remove_file(&log).unwrap();
    let ready = prepare(&home, &backup, FORGETTING).unwrap();
    assert_eq!(ready.finish("now").unwrap(), None);
    assert_eq!(home.open().count_tokens().unwrap(), 1);
}

/// Of nobody it has to be known.
#[test]
fn a_backup_in_which_nobody_lives_needs_no_word_over_a_store_that_holds_nothing() {
    let home = Home::new();
    drop(home.open());
    let backup = back_up(&home);
    assert!(restore(&home, &backup).is_some());
}

#[test]
fn a_restore_works_without_a_store_and_leaves_no_draft_of_a_killed_one() {
    let home = Home::new();
    home.open().create_token(record(named("a"))).unwrap();
    let backup = back_up(&home);
    fs::remove_file(&home.path).unwrap();
    fs::write(folder(&home).join(".store.db.0123456789abcdef.partial"), "left").unwrap();
    fs::write(folder(&home).join(".store.db.0123456789abcdef.partial-wal"), "left").unwrap();
    let ready = prepare(&home, &backup, FORGETTING).unwrap();
    assert_eq!(ready.carried(), None);
    drop(ready);
    assert!(!home.path.exists());
    assert_eq!(prepare(&home, &backup, FORGETTING).unwrap().finish("now").unwrap(), None);
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
        ready.finish(&format!("{is_present_old}")).unwrap();
        assert_eq!(checked(&home.path).unwrap().schema, 5);
        assert_eq!(home.open().token(token.accessor).unwrap().state, TokenState::Revoked);
    }
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
