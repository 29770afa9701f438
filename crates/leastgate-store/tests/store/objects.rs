//! What stands in a store's file beside its records: tables, indexes, and what only somebody else can have put there.

use std::fs;

use leastgate_policy::TokenState;
use leastgate_store::archive::{ArchiveError, RestoreOptions, backup};
use leastgate_store::{Change, SqliteOptions, StoreError, TokenStore};
use rusqlite::Connection;

use crate::archive::{back_up, checked, folder, go_on, owner, prepare};
use crate::fixture::{FIRST_LAYOUT, Home, NOW, change, key, named, record};

const PARDON: &str = "CREATE TRIGGER pardon AFTER UPDATE ON tokens WHEN new.state = 'revoked' BEGIN
    UPDATE tokens SET state = 'active' WHERE id = new.id; END";
const VIEW: &str = "CREATE VIEW everything AS SELECT * FROM tokens";

fn change_file(home: &Home, sql: &str) {
    Connection::open(&home.path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_store_with_a_trigger_or_a_view_is_not_opened() {
    for (sql, kind, name) in [(PARDON, "trigger", "pardon"), (VIEW, "view", "everything")] {
        for first_layout in [false, true] {
            let home = Home::new();
            let token = home.open().create_token(record(named("a"))).unwrap();
            if first_layout {
                change_file(&home, FIRST_LAYOUT);
            }
            change_file(&home, sql);
            let before = fs::read(&home.path).unwrap();
            let refused = home.try_open(SqliteOptions::default()).map(drop).unwrap_err();
            let said = refused.to_string();
            assert!(matches!(refused, StoreError::UnknownObject { .. }), "{said}");
            for word in [kind, &format!("`{name}`"), "store.db", "drop it", "store restore"] {
                assert!(said.contains(word), "{word}: {said}");
            }
            assert!(fs::read(&home.path).unwrap() == before, "{kind}: nothing was brought up");
            change_file(&home, &format!("DROP {kind} {name}"));
            home.open().change_state(token.accessor, change(Change::Revoke), None).unwrap();
            assert_eq!(home.open().token(token.accessor).unwrap().state, TokenState::Revoked);
        }
    }
}

#[test]
fn a_check_tells_each_object_that_is_not_as_it_is_made() {
    const WEAKER: &str = "PRAGMA writable_schema = 1;
        UPDATE sqlite_schema SET sql = replace(sql, 'CHECK (length(digest) = 32)', '') WHERE name = 'tokens'";
    const LITERAL: &str = "PRAGMA writable_schema = 1;
        UPDATE sqlite_schema SET sql = replace(sql, '''disabled''', ''' disabled''') WHERE name = 'tokens'";
    for (sql, told) in [
        (PARDON, "trigger pardon: leastgate did not make it"),
        (VIEW, "view everything: leastgate did not make it"),
        ("CREATE TABLE notes (text TEXT)", "table notes: leastgate did not make it"),
        ("CREATE INDEX more ON tokens (note)", "index more: leastgate did not make it"),
        ("DROP INDEX tokens_held_name", "index tokens_held_name: it is missing"),
        ("DROP TABLE tombstones", "table tombstones: it is missing"),
        (
            "DROP INDEX tokens_by_digest; CREATE INDEX tokens_by_digest ON tokens (substr(digest, 1, 8))",
            "index tokens_by_digest: it is not as leastgate makes it",
        ),
        ("ALTER TABLE admins ADD COLUMN more TEXT", "table admins: it is not as leastgate makes it"),
        (WEAKER, "table tokens: it is not as leastgate makes it"),
        (LITERAL, "table tokens: it is not as leastgate makes it"),
    ] {
        let home = Home::new();
        home.open().create_token(record(named("a"))).unwrap();
        change_file(&home, sql);
        let report = checked(&home.path).unwrap();
        let lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        assert!(lines.iter().any(|line| line.starts_with(told) && line.contains("backup")), "{told}: {lines:?}");
        let to = folder(&home).join("backup.db");
        let ended = backup(&home.path, &to, owner(&key()), NOW, &mut go_on);
        assert!(matches!(ended, Err(ArchiveError::Faulty { .. })), "{told}: {ended:?}");
    }
}

/// As `ANALYZE` makes them, and as another hand writes the same thing.
#[test]
fn statistics_and_white_space_are_no_fault() {
    let home = Home::new();
    home.open().create_token(record(named("a"))).unwrap();
    change_file(&home, "ANALYZE");
    change_file(&home, "DROP INDEX tokens_by_name; CREATE INDEX tokens_by_name\n\tON tokens(name)");
    let report = checked(&home.path).unwrap();
    assert!(report.is_fine(), "{:?}", report.problems);
    drop(home.open());
}

/// Who put it there could have changed what was revoked, too.
#[test]
fn a_restore_over_a_store_with_a_trigger_is_a_salvage() {
    let home = Home::new();
    let token = home.open().create_token(record(named("a"))).unwrap();
    let backup = back_up(&home);
    home.open().change_state(token.accessor, change(Change::Revoke), None).unwrap();
    change_file(&home, PARDON);
    let refused = prepare(&home, &backup, RestoreOptions::default()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("trigger `pardon`") && refused.contains("--salvage"), "{refused}");
    let salvage = RestoreOptions { salvage: true, ..RestoreOptions::default() };
    prepare(&home, &backup, salvage).unwrap().finish("now").unwrap();
    assert!(checked(&home.path).unwrap().is_fine());
    assert_eq!(home.open().token(token.accessor).unwrap().state, TokenState::Revoked);
}
