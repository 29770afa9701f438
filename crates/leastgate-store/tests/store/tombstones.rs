//! What a purge leaves of tokens that were taken away, by which an import and a restore know them again.

use leastgate_policy::{Timestamp, TokenDigest};
use leastgate_store::{
    Change, NewToken, OldEnd, Rotation, SqliteStore, StateChange, Taken, TokenRecord, TokenStore, Tombstone,
};
use rusqlite::Connection;

use crate::fixture::{Home, NOW, change, memory, named, record};

const LATER: Timestamp = Timestamp(NOW.0 + 1_000_000);

fn of(store: &SqliteStore, token: &TokenRecord) -> Option<Taken> {
    let found = store.tombstone_of(token.accessor, &token.digest).unwrap();
    assert!(found.is_none_or(|found| found.accessor == token.accessor));
    found.map(|found| found.taken)
}

fn purge(store: &SqliteStore, before: Timestamp) -> usize {
    store.purge(before, 100).unwrap().len()
}

#[test]
fn of_what_was_taken_away_a_purge_leaves_a_tombstone_for_good() {
    let store = memory();
    let day = NOW.plus(86_400);
    let ends = |name: &str| record(NewToken { expires: Some(day), ..named(name) });
    let [revoked, rotated, shortened, over] = ["revoked", "rotated", "shortened", "over"].map(ends);
    let endless = record(named("endless"));
    for token in [&revoked, &rotated, &shortened, &over, &endless] {
        store.create_token(token.clone()).unwrap();
    }
    for token in [&revoked, &endless] {
        store.change_state(token.accessor, change(Change::Revoke), None).unwrap();
    }
    let successor = record(named("rotated"));
    let end = OldEnd::Grace(NOW.plus(60));
    store.rotate_token(Rotation { old: rotated.accessor, successor, end, expected: None }).unwrap();
    let kept = store.token(shortened.accessor).unwrap();
    store.update_token(TokenRecord { expires: Some(NOW.plus(30)), ..kept }).unwrap();

    assert_eq!(of(&store, &revoked), None, "its record is there");
    assert_eq!(purge(&store, LATER), 5);
    assert_eq!(of(&store, &revoked), Some(Taken::Revoked(NOW.plus(5))));
    assert_eq!(of(&store, &endless), Some(Taken::Revoked(NOW.plus(5))));
    assert_eq!(of(&store, &rotated), Some(Taken::Ended(NOW.plus(60))), "elsewhere it may live for a year");
    assert_eq!(of(&store, &shortened), Some(Taken::Ended(NOW.plus(30))));
    assert_eq!(of(&store, &over), None, "its life was over as it had been given");
    purge(&store, Timestamp(LATER.0 * 2));
    assert!([&revoked, &rotated, &shortened, &endless].iter().all(|token| of(&store, token).is_some()), "for good");
}

#[test]
fn a_tombstone_is_found_by_the_digest_under_another_accessor_too() {
    let store = memory();
    let token = record(named("a"));
    store.create_token(token.clone()).unwrap();
    store.change_state(token.accessor, change(Change::Revoke), None).unwrap();
    purge(&store, LATER);
    let other = record(named("b"));
    let taken = Taken::Revoked(NOW.plus(5));
    let found = store.tombstone_of(other.accessor, &token.digest).unwrap();
    assert_eq!(found, Some(Tombstone { accessor: token.accessor, taken }));
    assert_eq!(store.tombstone_of(other.accessor, &TokenDigest::from_bytes([9; 32])).unwrap(), None);
}

/// Commands make them by the thousand, and no export hands one out.
#[test]
fn what_stood_in_for_a_token_is_forgotten_with_its_own_end() {
    let store = memory();
    let parent = record(named("parent"));
    let child = |name: &str, expires| NewToken { parent: Some(parent.accessor), expires, ..named(name) };
    let short = record(child("short", Some(NOW.plus(60))));
    let long = record(child("long", Some(LATER)));
    for token in [&parent, &short, &long] {
        store.create_token(token.clone()).unwrap();
    }
    for token in [&short, &long] {
        store.change_state(token.accessor, change(Change::Revoke), None).unwrap();
    }
    assert_eq!(purge(&store, NOW.plus(100)), 2);
    assert_eq!((of(&store, &short), of(&store, &long)), (None, Some(Taken::Revoked(NOW.plus(5)))));
    purge(&store, LATER.plus(1));
    assert_eq!(of(&store, &long), None);
}

#[test]
fn tokens_that_were_rotated_before_tombstones_were_kept_leave_one() {
    let home = Home::new();
    let store = home.open();
    let old = record(NewToken { expires: Some(LATER), ..named("rotated") });
    store.create_token(old.clone()).unwrap();
    let (successor, end) = (record(named("rotated")), OldEnd::Grace(NOW.plus(60)));
    store.rotate_token(Rotation { old: old.accessor, successor, end, expected: None }).unwrap();
    drop(store);
    let before = "DROP TABLE pending_revocations; DROP TABLE bulk_revocations; DROP TABLE tombstones; ALTER TABLE tokens DROP COLUMN shortened; PRAGMA user_version = 3";
    Connection::open(&home.path).unwrap().execute_batch(before).unwrap();
    let store = home.open();
    purge(&store, LATER);
    assert_eq!(of(&store, &old), Some(Taken::Ended(NOW.plus(60))));
}

#[test]
fn many_revoked_at_once_leave_one_each() {
    let store = memory();
    let tokens: Vec<_> = (0..250).map(|number| record(named(&format!("bot-{number}")))).collect();
    store.create_tokens(tokens.clone()).unwrap();
    let revoked = StateChange { at: NOW.plus(9), ..change(Change::Revoke) };
    store.revoke_tokens(tokens.iter().map(|token| token.accessor).collect(), revoked).unwrap();
    while purge(&store, LATER) == 100 {}
    assert!(tokens.iter().all(|token| of(&store, token) == Some(Taken::Revoked(NOW.plus(9)))));
}
