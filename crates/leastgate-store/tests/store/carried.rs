//! What was taken away since a backup stays so through its restore, which leaves a mark.

use std::fs;
use std::path::PathBuf;

use leastgate_policy::{Restrictions, TokenLimits, TokenState};
use leastgate_store::archive::{ArchiveError, RestoreOptions};
use leastgate_store::{
    AdminRole, Change, MayGrant, NewAdmin, NewToken, OldEnd, Revocations, Rotation, SqliteOptions, StoreError, Taken,
    TokenGrant, TokenName, TokenRecord, TokenStore, issue_admin,
};
use rusqlite::Connection;

use crate::archive::{back_up, checked, hand, prepare, restore};
use crate::fixture::{ENV, Home, NOW, change, key, named, record};

struct Lives {
    home: Home,
    backup: PathBuf,
    tokens: Vec<TokenRecord>,
    admin: leastgate_policy::Accessor,
    later: TokenRecord,
}

/// Eight tokens and an administrator, backed up; then each has a life of its own.
fn lives() -> Lives {
    let home = Home::new();
    let store = home.open();
    let grant = |scope: &str| TokenGrant { scope: scope.into(), expires: None, reason: None };
    let tokens: Vec<TokenRecord> =
        ["plain", "revoked", "disabled", "rotated", "narrowed", "enabled", "purged", "noted"]
            .into_iter()
            .map(|name| record(NewToken { grants: vec![grant("orders:read"), grant("orders:refund")], ..named(name) }))
            .collect();
    store.create_tokens(tokens.clone()).unwrap();
    store.change_state(tokens[5].accessor, change(Change::Disable), None).unwrap();
    let new = NewAdmin {
        name: TokenName::parse("ann").unwrap(),
        role: AdminRole::Admin,
        may_grant: MayGrant::everything(),
        created: NOW,
        created_by: "root".into(),
    };
    let admin = issue_admin(&store, ENV, &key(), &new).unwrap().record;
    let backup = back_up(&home);

    store.change_state(tokens[6].accessor, change(Change::Revoke), None).unwrap();
    assert_eq!(store.purge(NOW.plus(6), 10).unwrap(), [tokens[6].digest]);
    store.change_state(tokens[1].accessor, change(Change::Revoke), None).unwrap();
    store.change_state(tokens[2].accessor, change(Change::Disable), None).unwrap();
    let narrow = store.token(tokens[4].accessor).unwrap();
    let restrictions = Restrictions { source_ip: vec!["10.0.0.0/8".parse().unwrap()], not_before: None };
    let limits = TokenLimits { rate: Some(5), burst: None, concurrent: Some(2) };
    let grants = vec![grant("orders:read"), grant("orders:new")];
    store.update_token(TokenRecord { grants, restrictions, limits, ..narrow }).unwrap();
    store.change_state(tokens[5].accessor, change(Change::Enable), None).unwrap();
    for note in ["a", "b", "c"] {
        let noted = store.token(tokens[7].accessor).unwrap();
        store.update_token(TokenRecord { note: Some(note.into()), ..noted }).unwrap();
    }
    store.revoke_admin(admin.id, NOW.plus(9)).unwrap();
    let later = record(named("rotated"));
    let (old, end) = (tokens[3].accessor, OldEnd::Grace(NOW.plus(3_600)));
    store.rotate_token(Rotation { old, successor: later.clone(), end, expected: None }).unwrap();
    drop(store);
    Lives { home, backup, tokens, admin: admin.id, later }
}

#[test]
fn what_was_taken_away_since_the_backup_stays_taken_away() {
    let Lives { home, backup, tokens, admin, later } = lives();
    let ready = prepare(&home, &backup, RestoreOptions::default()).unwrap();
    let carried = ready.carried().unwrap().clone();
    assert_eq!(
        (carried.revoked, carried.disabled, carried.rotated, carried.shortened, carried.narrowed),
        (2, 1, 1, 1, 1),
        "the one that was purged is known by its tombstone: {carried:?}"
    );
    assert_eq!((carried.revoked_admins, carried.lost, carried.unknown, carried.is_complete), (1, 1, 0, true));
    let kept = ready.finish("now").unwrap().unwrap();

    let store = home.open();
    let of = |number: usize| store.token(tokens[number].accessor).unwrap();
    let states: Vec<_> = (0..8).map(|number| of(number).state).collect();
    let (active, disabled) = (TokenState::Active, TokenState::Disabled);
    let revoked = TokenState::Revoked;
    let expected = [active, revoked, disabled, TokenState::Rotating, active, disabled, revoked, active];
    assert_eq!(states, expected);
    assert!(store.tombstone_of(tokens[6].accessor, &tokens[6].digest).unwrap().is_some(), "and goes on being known");
    assert_eq!(of(1).state_changed.unwrap(), change(Change::Revoke), "with its reason");
    assert_eq!((of(3).successor, of(3).expires), (Some(later.accessor), Some(NOW.plus(3_600))));
    assert_eq!(of(4).grants.iter().map(|grant| grant.scope.as_str()).collect::<Vec<_>>(), ["orders:read"]);
    assert_eq!(of(4).restrictions.source_ip, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(of(4).limits, TokenLimits { rate: Some(5), burst: None, concurrent: Some(2) });
    assert_eq!(of(7).note, None, "everything else is the backup's");
    assert!(of(7).version > 4, "no version that was seen comes back with another content: {}", of(7).version);
    assert!(store.list_admins().unwrap().iter().all(|known| known.id != admin || known.revoked.is_some()));
    // Names that were freed are free.
    store.create_token(record(named("revoked"))).unwrap();
    store.create_token(record(named("rotated"))).unwrap();
    assert_eq!(checked(&kept).unwrap().holds.tokens, 8, "the former store is whole beside it");
    assert!(checked(&home.path).unwrap().is_fine());
}

/// One whose record the present store lost by a release that left no tombstones.
#[test]
fn what_nobody_can_know_is_named() {
    let Lives { home, backup, tokens, .. } = lives();
    Connection::open(&home.path).unwrap().execute_batch("DELETE FROM tombstones").unwrap();
    let ready = prepare(&home, &backup, RestoreOptions::default()).unwrap();
    let carried = ready.carried().unwrap();
    assert_eq!((carried.revoked, carried.unknown), (1, 1), "{carried:?}");
    assert_eq!(carried.unknown_accessors, [tokens[6].accessor.to_string()]);
}

/// Their rows are what keeps a credential from being taken for the first administrator's once more.
#[test]
fn administrators_that_the_backup_does_not_know_stay_revoked() {
    let home = Home::new();
    let store = home.open();
    let backup = back_up(&home);
    let new = NewAdmin {
        name: TokenName::parse("root").unwrap(),
        role: AdminRole::Admin,
        may_grant: MayGrant::everything(),
        created: NOW,
        created_by: "bootstrap".into(),
    };
    let admin = issue_admin(&store, ENV, &key(), &new).unwrap().record;
    store.revoke_admin(admin.id, NOW.plus(9)).unwrap();
    drop(store);
    let ready = prepare(&home, &backup, RestoreOptions::default()).unwrap();
    assert_eq!((ready.carried().unwrap().revoked_admins, ready.carried().unwrap().lost_admins), (1, 0));
    ready.finish("now").unwrap();
    let kept = home.open().list_admins().unwrap();
    assert_eq!(kept.iter().map(|kept| (kept.id, kept.revoked)).collect::<Vec<_>>(), [(admin.id, Some(NOW.plus(9)))]);
}

#[test]
fn revocations_are_forgotten_only_when_that_is_asked_for() {
    let Lives { home, backup, tokens, .. } = lives();
    let options = RestoreOptions { forget_revocations: true, ..RestoreOptions::default() };
    let ready = prepare(&home, &backup, options).unwrap();
    assert_eq!(ready.carried().unwrap().revoked, 2, "said all the same");
    ready.finish("now").unwrap();
    let store = home.open();
    for token in [&tokens[1], &tokens[2], &tokens[3], &tokens[4], &tokens[6]] {
        assert_eq!(store.token(token.accessor).unwrap(), TokenRecord { version: 1, ..token.clone() });
    }
}

#[test]
fn of_a_damaged_store_what_can_be_read_is_carried_over_when_asked_for() {
    let Lives { home, backup, tokens, .. } = lives();
    let damage = format!("UPDATE tokens SET version = -1, state = 'x' WHERE accessor = '{}'", tokens[0].accessor);
    let connection = Connection::open(&home.path).unwrap();
    connection.execute_batch(&format!("PRAGMA ignore_check_constraints = 1; {damage}")).unwrap();
    drop(connection);
    let refused = prepare(&home, &backup, RestoreOptions::default()).unwrap_err();
    assert!(matches!(&refused, ArchiveError::Unreadable { .. }), "{refused}");
    assert!(refused.to_string().contains("--salvage"), "{refused}");
    let salvage = RestoreOptions { salvage: true, ..RestoreOptions::default() };
    let ready = prepare(&home, &backup, salvage).unwrap();
    let carried = ready.carried().unwrap();
    assert_eq!((carried.revoked, carried.is_complete), (3, false), "what is no state lets nobody in: {carried:?}");
    ready.finish("now").unwrap();
    let store = home.open();
    assert_eq!(store.token(tokens[1].accessor).unwrap().state, TokenState::Revoked);
    assert_eq!(store.token(tokens[0].accessor).unwrap().state, TokenState::Revoked);
}

#[test]
fn a_newer_releases_store_is_replaced_only_when_told_to_forget() {
    let home = Home::new();
    home.open().create_token(record(named("a"))).unwrap();
    let backup = back_up(&home);
    Connection::open(&home.path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let refused = prepare(&home, &backup, RestoreOptions::default()).unwrap_err();
    assert!(matches!(&refused, ArchiveError::Unreadable { .. }) && refused.to_string().contains("99"), "{refused}");
    let options = RestoreOptions { forget_revocations: true, ..RestoreOptions::default() };
    prepare(&home, &backup, options).unwrap().finish("now").unwrap();
    assert_eq!(home.open().count_tokens().unwrap(), 1);
}

#[test]
fn another_environments_store_is_never_replaced() {
    let home = Home::new();
    drop(home.open());
    let backup = back_up(&home);
    Connection::open(&home.path)
        .unwrap()
        .execute_batch("UPDATE meta SET value = CAST('staging' AS BLOB) WHERE key = 'environment'")
        .unwrap();
    for forget_revocations in [false, true] {
        let options = RestoreOptions { forget_revocations, ..RestoreOptions::default() };
        let refused = prepare(&home, &backup, options).unwrap_err();
        assert!(matches!(refused, ArchiveError::Store(StoreError::OtherEnvironment { .. })), "{refused}");
    }
}

#[test]
fn a_restored_store_says_so_until_it_is_told_and_so_do_restores_before_it() {
    let Lives { home, backup, .. } = lives();
    assert_eq!(home.open().restores().unwrap(), []);
    let first = restore(&home, &backup).unwrap();
    let marks = home.open().restores().unwrap();
    let [mark] = &marks[..] else { panic!("{marks:?}") };
    assert_eq!((mark.at, &mark.by, mark.made), (NOW.plus(77).0, &hand().by, Some(NOW.0)));
    assert_eq!((mark.revocations, mark.taken, mark.lost, mark.unknown), (Revocations::CarriedOver, 7, 1, 0));
    assert_eq!(mark.backup, backup.display().to_string());
    assert_eq!(mark.kept, Some(first.display().to_string()));
    assert!(checked(&home.path).unwrap().is_fine());

    let options = RestoreOptions { forget_revocations: true, ..RestoreOptions::default() };
    prepare(&home, &backup, options).unwrap().finish("again").unwrap();
    let store = home.open();
    let of_each: Vec<_> = store.restores().unwrap().iter().map(|mark| mark.revocations).collect();
    assert_eq!(of_each, [Revocations::CarriedOver, Revocations::Forgotten], "the first was never told");
    store.forget_restores().unwrap();
    assert_eq!(store.restores().unwrap(), []);
    drop(store);

    fs::remove_file(&home.path).unwrap();
    assert_eq!(prepare(&home, &backup, options).unwrap().finish("on a new machine").unwrap(), None);
    let marks = home.open().restores().unwrap();
    assert_eq!((marks.len(), marks[0].revocations, &marks[0].kept), (1, Revocations::Unknown, &None));
}

/// A mark that a damaged byte or another release made unreadable is a restore all the same.
#[test]
fn a_mark_that_can_not_be_read_is_not_forgotten() {
    let home = Home::new();
    drop(home.open());
    let damage = "INSERT INTO meta (key, value) VALUES ('restores', CAST('[broken' AS BLOB))";
    Connection::open(&home.path).unwrap().execute_batch(damage).unwrap();
    assert_eq!(home.open().restores().unwrap().len(), 1);
}

/// Made behind the backup, so the restored store has no record of them; a former export could be imported.
#[test]
fn what_was_made_since_and_taken_away_is_known_to_have_been() {
    let home = Home::new();
    let store = home.try_open(SqliteOptions { rows_at_once: 0, ..SqliteOptions::default() }).unwrap();
    store.create_token(record(named("plain"))).unwrap();
    let backup = back_up(&home);
    let names = ["living", "revoked", "listed", "disabled", "rotated"];
    let tokens: Vec<TokenRecord> = names.into_iter().map(|name| record(named(name))).collect();
    store.create_tokens(tokens.clone()).unwrap();
    let [living, revoked, listed, disabled, rotated] = &tokens[..] else { panic!("five") };
    store.change_state(revoked.accessor, change(Change::Revoke), None).unwrap();
    assert_eq!(store.revoke_tokens(vec![listed.accessor], change(Change::Revoke)), Ok(1));
    assert_eq!(store.count_pending(), Ok(1), "its row does not say so yet");
    store.change_state(disabled.accessor, change(Change::Disable), None).unwrap();
    let (successor, end) = (record(named("rotated")), OldEnd::Grace(NOW.plus(60)));
    store.rotate_token(Rotation { old: rotated.accessor, successor, end, expected: None }).unwrap();
    drop(store);
    prepare(&home, &backup, RestoreOptions::default()).unwrap().finish("now").unwrap();

    let store = home.open();
    let taken = |token: &TokenRecord| {
        assert!(matches!(store.token(token.accessor), Err(StoreError::NotFound { .. })));
        store.tombstone_of(token.accessor, &token.digest).unwrap().map(|tombstone| tombstone.taken)
    };
    let revoked_then = Some(Taken::Revoked(change(Change::Revoke).at));
    assert_eq!([revoked, listed, disabled].map(taken), [revoked_then; 3]);
    assert_eq!([living, rotated].map(taken), [None, Some(Taken::Ended(NOW.plus(60)))]);
    assert!(checked(&home.path).unwrap().is_fine());
}
