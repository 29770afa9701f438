//! Files that aren't ours, disks that are full, and modes that are too wide.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use leastgate_store::archive::check;
use leastgate_store::{Change, SqliteOptions, SqliteStore, StoreError, TokenStore, issue_admin};
use rusqlite::Connection;

use crate::fixture::{ENV, FIRST_LAYOUT, Home, change, key, key_of, named, new_admin, record};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn another_pepper_is_refused_and_the_right_one_still_opens() {
    let home = Home::new();
    drop(home.open());
    let error = SqliteStore::open(&home.path, ENV, &key_of(8, ENV), SqliteOptions::default()).unwrap_err();
    assert_eq!(error, StoreError::WrongPepper { path: home.path.clone() });
    assert!(error.to_string().contains("put the former pepper back"), "{error}");
    home.open();
}

#[test]
fn another_environment_is_refused_by_its_name() {
    let home = Home::new();
    drop(home.open());
    let error = SqliteStore::open(&home.path, "staging", &key_of(7, "staging"), SqliteOptions::default()).unwrap_err();
    assert!(matches!(&error, StoreError::OtherEnvironment { stored, configured, .. }
        if stored == "prod" && configured == "staging"));
    let misplaced = leastgate_store::TokenRecord { env: "staging".into(), ..record(named("a")) };
    assert!(matches!(home.open().create_token(misplaced), Err(StoreError::OtherEnvironment { .. })));
}

/// The release that wrote it may be the one that goes on with it: a slip in a configuration must not take it away from that.
#[test]
fn a_store_of_somebody_else_is_refused_before_it_is_brought_up_or_changed() {
    for left_by_a_kill in [false, true] {
        let home = Home::new();
        home.open().create_token(record(named("a"))).unwrap();
        let theirs = Connection::open(&home.path).unwrap();
        theirs.execute_batch(FIRST_LAYOUT).unwrap();
        if !left_by_a_kill {
            theirs.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).unwrap();
        }
        let copy = Home::new();
        let names = ["store.db", "store.db-wal"].map(|name| [&home, &copy].map(|of| of.path.with_file_name(name)));
        for [from, to] in &names {
            let _ = std::fs::copy(from, to);
        }
        std::fs::set_permissions(&copy.path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let before = names.each_ref().map(|[_, to]| std::fs::read(to).ok());
        assert_eq!(before[1].as_ref().is_some_and(|log| !log.is_empty()), left_by_a_kill);
        let wrong_pepper = SqliteStore::open(&copy.path, ENV, &key_of(8, ENV), SqliteOptions::default()).unwrap_err();
        assert_eq!(wrong_pepper, StoreError::WrongPepper { path: copy.path.clone() });
        let other = SqliteStore::open(&copy.path, "staging", &key_of(7, "staging"), SqliteOptions::default());
        assert!(matches!(other.unwrap_err(), StoreError::OtherEnvironment { .. }));
        assert!(names.each_ref().map(|[_, to]| std::fs::read(to).ok()) == before, "after a kill: {left_by_a_kill}");
        assert_eq!(mode(&copy.path), 0o644);
        assert_eq!(copy.open().count_tokens().unwrap(), 1, "its own gateway brings it up");
    }
}

/// It would become that of whichever pepper or environment is configured, and no token of it would be known any more.
#[test]
fn a_store_with_records_that_does_not_say_whose_they_are_is_refused() {
    let with_token = |store: &SqliteStore| drop(store.create_token(record(named("a"))).unwrap());
    let with_admin = |store: &SqliteStore| drop(issue_admin(store, ENV, &key(), &new_admin("ann")).unwrap());
    let fill: [&dyn Fn(&SqliteStore); 2] = [&with_token, &with_admin];
    for row in ["environment", "key-check"] {
        for fill in fill {
            let home = Home::new();
            fill(&home.open());
            let forget = format!("DELETE FROM meta WHERE key = '{row}'");
            Connection::open(&home.path).unwrap().execute_batch(&forget).unwrap();
            let before = std::fs::read(&home.path).unwrap();
            for environment in [ENV, "staging"] {
                for pepper in [7, 8] {
                    let key = key_of(pepper, environment);
                    let opened = SqliteStore::open(&home.path, environment, &key, SqliteOptions::default());
                    let refused = opened.map(drop).unwrap_err();
                    let is_ours = environment == ENV && pepper == 7;
                    let is_told = matches!(&refused, StoreError::Corrupt { detail, .. } if detail.contains(row));
                    assert!(is_told || !is_ours, "{row}: {refused}");
                }
            }
            assert!(std::fs::read(&home.path).unwrap() == before, "{row}");
            let report = check(&home.path, None, &mut |_| std::ops::ControlFlow::Continue(())).unwrap();
            let told: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
            assert!(told.len() == 1 && told[0].contains(&format!("`{row}`")), "{row}: {told:?}");
        }
    }
}

/// As where a start was killed between its layout and its owner.
#[test]
fn a_store_without_records_is_claimed_whole() {
    for forget in ["DELETE FROM meta", "DELETE FROM meta WHERE key = 'environment'"] {
        let home = Home::new();
        drop(home.open());
        Connection::open(&home.path).unwrap().execute_batch(forget).unwrap();
        drop(home.open());
        let other = SqliteStore::open(&home.path, "staging", &key(), SqliteOptions::default()).map(drop);
        assert!(matches!(other, Err(StoreError::OtherEnvironment { .. })), "{forget}: {other:?}");
        let other = SqliteStore::open(&home.path, ENV, &key_of(8, ENV), SqliteOptions::default()).map(drop);
        assert!(matches!(other, Err(StoreError::WrongPepper { .. })), "{forget}: {other:?}");
    }
}

#[test]
fn a_file_that_is_no_database_is_left_as_it_is() {
    let home = Home::new();
    for content in ["# notes\n", &"not a database ".repeat(1000)] {
        std::fs::write(&home.path, content).unwrap();
        std::fs::set_permissions(&home.path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = home.try_open(SqliteOptions::default()).unwrap_err();
        assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("move it away"), "{error}");
        assert_eq!(std::fs::read_to_string(&home.path).unwrap(), content);
        assert_eq!(mode(&home.path), 0o644);
    }
}

#[test]
fn another_programs_database_is_left_as_it_is() {
    let theirs = Home::new();
    let running = Connection::open(&theirs.path).unwrap();
    running.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE bookmarks (url TEXT)").unwrap();
    // What it leaves behind when it is killed: the file, and a log that is not folded into it.
    let home = Home::new();
    let before = theirs.copy_to(&home);
    assert!(matches!(home.try_open(SqliteOptions::default()), Err(StoreError::Foreign { .. })));
    assert!(home.bytes() == before);
}

#[test]
fn a_newer_schema_is_refused_with_both_versions() {
    let home = Home::new();
    drop(home.open());
    Connection::open(&home.path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = home.try_open(SqliteOptions::default()).unwrap_err();
    assert_eq!(error, StoreError::NewerSchema { path: home.path, found: 99, known: 5 });
}

#[test]
fn an_older_schema_is_brought_up_with_all_that_is_in_it() {
    let home = Home::new();
    let kept = {
        let store = home.open();
        store.create_token(record(named("kept"))).unwrap()
    };
    // What the first release wrote: the same rows without what came later.
    let file = Connection::open(&home.path).unwrap();
    file.execute_batch(FIRST_LAYOUT).unwrap();
    drop(file);
    assert_eq!(home.open().find_token("kept"), Ok(kept));
}

#[test]
fn a_folder_that_is_missing_and_a_damaged_file_are_told_apart() {
    let home = Home::new();
    let nowhere = home.path.join("no/store.db");
    let error = SqliteStore::open(&nowhere, ENV, &key(), SqliteOptions::default()).unwrap_err();
    assert!(matches!(&error, StoreError::Io { path, .. } if *path == nowhere), "{error}");

    let store = home.open();
    store.create_token(record(named("a"))).unwrap();
    drop(store);
    Connection::open(&home.path).unwrap().execute_batch("UPDATE tokens SET roles = '[broken'").unwrap();
    assert!(matches!(home.open().find_token("a"), Err(StoreError::Corrupt { .. })));
}

#[test]
fn files_are_for_their_owner_only_even_after_a_careless_restore() {
    let home = Home::new();
    let store = home.open();
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", home.path.display());
        assert_eq!(mode(Path::new(&path)), 0o600, "{path}");
    }
    drop(store);
    std::fs::set_permissions(&home.path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _store = home.open();
    assert_eq!(mode(&home.path), 0o600);
}

#[test]
fn a_full_disk_refuses_what_gives_access_and_still_revokes() {
    let home = Home::new();
    let pages = {
        home.open();
        let file = Connection::open(&home.path).unwrap();
        file.pragma_query_value(None, "page_count", |row| row.get::<_, u32>(0)).unwrap()
    };
    let store = home.try_open(SqliteOptions { max_pages: Some(pages + 8), ..SqliteOptions::default() }).unwrap();
    let first = store.create_token(record(named("first"))).unwrap();
    let mut kept = 1;
    let error = loop {
        let mut token = record(named(&format!("token-{kept}")));
        token.note = Some("x".repeat(500));
        match store.create_token(token) {
            Ok(_) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, StoreError::DiskFull { path: home.path.clone() });
    assert!(kept > 3, "some fitted");
    assert_eq!(store.count_tokens().unwrap(), kept);
    store.change_state(first.accessor, change(Change::Revoke), None).unwrap();
    drop(store);
    assert_eq!(home.open().count_tokens().unwrap(), kept, "nothing half-written");
}

#[test]
fn another_process_that_holds_the_file_is_named_as_the_cause() {
    let home = Home::new();
    let store = home.open();
    let other = Connection::open(&home.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.create_token(record(named("waits"))).unwrap_err();
    assert!(matches!(error, StoreError::Busy { path } if path == home.path));
    other.execute_batch("ROLLBACK").unwrap();
    store.create_token(record(named("waits"))).unwrap();
}

#[test]
fn a_closed_store_takes_nothing_and_leaves_one_file() {
    let home = Home::new();
    let store = home.open();
    store.create_token(record(named("kept"))).unwrap();
    let other_handle = store.clone();
    store.close(Duration::from_secs(30)).unwrap();
    assert_eq!(other_handle.create_token(record(named("late"))), Err(StoreError::Closed));
    assert_eq!(other_handle.count_tokens(), Err(StoreError::Closed));
    assert!(!Path::new(&format!("{}-wal", home.path.display())).exists(), "the log is folded into the file");
    assert_eq!(home.open().count_tokens().unwrap(), 1);
}
