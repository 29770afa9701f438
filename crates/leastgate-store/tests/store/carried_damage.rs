//! Damage of the present store: it is told, keeps nobody in, and never gets into what a restore puts in its place.

use std::path::PathBuf;

use leastgate_policy::TokenState;
use leastgate_store::archive::{ArchiveError, RestoreOptions};
use leastgate_store::{
    AdminRecord, AdminRole, Change, NewToken, SqliteOptions, TokenGrant, TokenRecord, TokenStore, issue_admin,
};
use rusqlite::Connection;

use crate::archive::{back_up, checked, hand, prepare};
use crate::fixture::{ENV, Home, NOW, change, key, named, new_admin, options, record};

const SALVAGE: RestoreOptions = RestoreOptions { unsealed: false, forget_revocations: false, salvage: true };

/// Two tokens and two administrators, backed up; the second administrator was revoked since.
struct Lives {
    home: Home,
    backup: PathBuf,
    tokens: [TokenRecord; 2],
    admins: [AdminRecord; 2],
}

fn lives() -> Lives {
    let home = Home::new();
    let store = home.open();
    let grants = vec![TokenGrant { scope: "orders:read".into(), expires: None, reason: None }];
    let tokens = ["whole", "damaged"]
        .map(|name| store.create_token(record(NewToken { grants: grants.clone(), ..named(name) })).unwrap());
    let admins = ["ann", "ben"].map(|name| issue_admin(&store, ENV, &key(), &new_admin(name)).unwrap().record);
    let backup = back_up(&home);
    Lives { home, backup, tokens, admins }
}

/// As a bad sector does it, or somebody who edits the file: SQLite is asked for no consent.
fn damage(home: &Home, sql: &str) {
    let file = Connection::open(&home.path).unwrap();
    file.execute_batch(&format!("PRAGMA ignore_check_constraints = 1; PRAGMA foreign_keys = 0; {sql}")).unwrap();
}

/// Refused with these words, for the present store and not for the backup; then salvaged.
fn refused_then_salvaged(home: &Home, backup: &std::path::Path, words: &[&str]) -> leastgate_store::SqliteStore {
    let refused = prepare(home, backup, RestoreOptions::default()).map(drop).unwrap_err();
    let said = refused.to_string();
    assert!(matches!(&refused, ArchiveError::Unreadable { path, .. } if *path == home.path), "{words:?}: {said}");
    assert!(words.iter().all(|word| said.contains(word)) && said.contains("--salvage"), "{words:?}: {said}");
    let ready = prepare(home, backup, SALVAGE).expect("salvage takes what can be read");
    assert!(!ready.carried().unwrap().is_complete, "{words:?}");
    ready.finish("now").unwrap();
    let report = checked(&home.path).unwrap();
    assert!(report.is_fine(), "{words:?}: {:?}", report.problems);
    home.open()
}

#[test]
fn a_token_of_which_a_column_is_damaged_is_revoked_and_no_other() {
    for (column, value) in [
        ("state", "'x'"),
        ("expires", "-1"),
        ("successor", "'nobody'"),
        ("roles", "'[broken'"),
        ("roles", "'{}'"),
        ("grants", "'[{\"scope\":7}]'"),
        ("source_ip", "'[\"nowhere\"]'"),
        ("source_ip", "'[\"10.0.0.0/33\"]'"),
        ("not_before", "-1"),
        ("rate", "-1"),
        ("burst", "4294967296"),
        ("concurrent", "-5"),
        ("version", "-1"),
        ("change", "'pardon'"),
        ("change_reason", "NULL"),
        ("change_by", "NULL"),
        ("change_at", "-9223372036854775808"),
    ] {
        let Lives { home, backup, tokens: [whole, damaged], .. } = lives();
        let store = home.open();
        for wanted in [Change::Disable, Change::Enable] {
            store.change_state(damaged.accessor, change(wanted), None).unwrap();
        }
        drop(store);
        damage(&home, &format!("UPDATE tokens SET {column} = {value} WHERE accessor = '{}'", damaged.accessor));
        let name = format!("`{column}`");
        let store = refused_then_salvaged(&home, &backup, &[&damaged.accessor.to_string(), &name]);
        let kept = store.token(damaged.accessor).unwrap();
        assert_eq!(kept.state, TokenState::Revoked, "{column} = {value}");
        let told = kept.state_changed.unwrap();
        assert_eq!((told.by.as_str(), told.at), ("restore", hand().at), "{column} = {value}");
        assert!(told.reason.contains("damaged"), "{}", told.reason);
        assert_eq!(store.token(whole.accessor).unwrap(), whole, "{column} = {value}");
    }
}

/// Whom it was about can't be known: it is named, as one that the present store does not know.
#[test]
fn a_token_whose_accessor_is_damaged_is_named() {
    let Lives { home, backup, tokens: [_, damaged], .. } = lives();
    damage(&home, &format!("UPDATE tokens SET accessor = 'n/a' WHERE accessor = '{}'", damaged.accessor));
    let carried = prepare(&home, &backup, SALVAGE).unwrap().carried().unwrap().clone();
    assert_eq!((carried.unknown, carried.unknown_accessors), (1, vec![damaged.accessor.to_string()]));
    refused_then_salvaged(&home, &backup, &["`accessor`"]);
}

#[test]
fn a_revocation_of_many_that_is_damaged_is_one_all_the_same() {
    for sql in [
        "UPDATE bulk_revocations SET bulk_at = -1",
        "UPDATE pending_revocations SET bulk = 99",
        "DELETE FROM bulk_revocations",
    ] {
        let Lives { home, backup, tokens: [whole, damaged], .. } = lives();
        let store = home.try_open(SqliteOptions { rows_at_once: 0, ..options() }).unwrap();
        store.revoke_tokens(vec![damaged.accessor], change(Change::Revoke)).unwrap();
        assert_eq!(store.count_pending(), Ok(1));
        drop(store);
        damage(&home, sql);
        let store = refused_then_salvaged(&home, &backup, &["a revocation of many"]);
        let states = [&whole, &damaged].map(|token| store.token(token.accessor).unwrap().state);
        assert_eq!(states, [TokenState::Active, TokenState::Revoked], "{sql}");
    }
}

#[test]
fn a_tombstone_that_is_damaged_revokes() {
    for (column, value) in [("at", "-1"), ("until", "-1"), ("digest_key", "x'00'"), ("revoked", "7")] {
        let Lives { home, backup, tokens: [whole, damaged], .. } = lives();
        let store = home.open();
        store.change_state(damaged.accessor, change(Change::Revoke), None).unwrap();
        store.purge(NOW.plus(6), 10).unwrap();
        drop(store);
        damage(&home, &format!("UPDATE tombstones SET {column} = {value}"));
        let store = refused_then_salvaged(&home, &backup, &[]);
        let states = [&whole, &damaged].map(|token| store.token(token.accessor).unwrap().state);
        assert_eq!(states, [TokenState::Active, TokenState::Revoked], "{column}");
    }
}

#[test]
fn an_administrator_of_which_a_column_is_damaged_is_revoked() {
    for (column, value) in [
        ("digest", "x'00'"),
        ("name", "'Not A Name'"),
        ("role", "'king'"),
        ("may_grant", "'{'"),
        ("created", "-1"),
        ("revoked", "-1"),
    ] {
        let Lives { home, backup, admins: [ann, ben], .. } = lives();
        damage(&home, &format!("UPDATE admins SET {column} = {value} WHERE id = '{}'", ben.id));
        let store = refused_then_salvaged(&home, &backup, &[&ben.id.to_string(), &format!("`{column}`")]);
        let revoked: Vec<_> = store.list_admins().unwrap().into_iter().map(|admin| (admin.id, admin.revoked)).collect();
        assert_eq!(revoked, [(ann.id, None), (ben.id, Some(hand().at))], "{column}");
    }
}

/// Its digest is what keeps its credential from being taken for the first administrator's.
#[test]
fn of_a_damaged_administrator_that_the_backup_does_not_know_its_digest_is_kept() {
    let home = Home::new();
    let store = home.open();
    store.create_token(record(named("a"))).unwrap();
    let backup = back_up(&home);
    let admin = issue_admin(&store, ENV, &key(), &new_admin("root")).unwrap().record;
    store.revoke_admin(admin.id, NOW.plus(9)).unwrap();
    drop(store);
    damage(&home, "UPDATE admins SET may_grant = '{'");
    let store = refused_then_salvaged(&home, &backup, &["`may_grant`"]);
    let kept = store.find_admin(&admin.digest).unwrap().unwrap();
    assert_eq!((kept.id, kept.revoked.is_some(), kept.role), (admin.id, true, AdminRole::Viewer));
}

/// A credential is its digest: under whatever id the present store has it as revoked, it is.
#[test]
fn a_credential_that_is_revoked_under_another_id_is_revoked() {
    let Lives { home, backup, admins: [ann, ben], .. } = lives();
    home.open().revoke_admin(ben.id, NOW.plus(9)).unwrap();
    damage(&home, &format!("UPDATE admins SET id = '0000000000' WHERE id = '{}'", ben.id));
    let ready = prepare(&home, &backup, RestoreOptions::default()).unwrap();
    assert_eq!(ready.carried().unwrap().revoked_admins, 1);
    ready.finish("now").unwrap();
    let revoked: Vec<_> = home.open().list_admins().unwrap().into_iter().map(|admin| admin.revoked).collect();
    assert_eq!(revoked, [ann.revoked, Some(NOW.plus(9))]);
}

/// It may be another gateway's.
#[test]
fn a_store_that_does_not_say_whose_it_is_counts_as_damaged() {
    let Lives { home, backup, .. } = lives();
    damage(&home, "DELETE FROM meta WHERE key = 'environment'");
    drop(refused_then_salvaged(&home, &backup, &["environment"]));
}
