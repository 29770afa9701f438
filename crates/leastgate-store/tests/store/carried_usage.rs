//! What was used since a backup counts as used after its restore; and where nobody can know, nothing counts as unused.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use leastgate_policy::{Accessor, Timestamp};
use leastgate_store::archive::RestoreOptions;
use leastgate_store::{
    Change, LastUse, SqliteStore, TimeFilter, TokenQuery, TokenRecord, TokenStore, UsageBatch, UsageDelta, UsageRow,
};
use rusqlite::Connection;

use crate::archive::{back_up, checked, hand, prepare};
use crate::fixture::{FIRST_LAYOUT, Home, NOW, change, named, record};

const NEAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const FAR: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
const FORGET: RestoreOptions = RestoreOptions { unsealed: false, forget_revocations: true, salvage: false };
const SALVAGE: RestoreOptions = RestoreOptions { unsealed: false, forget_revocations: false, salvage: true };

/// Moments of a store's life, the restore being at 77.
const BEFORE: Timestamp = Timestamp(NOW.0 + 10);
const ASKED: Timestamp = Timestamp(NOW.0 + 50);
const SINCE: Timestamp = Timestamp(NOW.0 + 60);

fn use_it(store: &SqliteStore, accessor: Accessor, rule: &str, count: u64, at: Timestamp, from: IpAddr) {
    let delta = UsageDelta { accessor, rule: Some(rule.into()), count, last_used: at, last_source: Some(from) };
    store.record_usage(UsageBatch::draw(vec![delta]).unwrap()).unwrap();
}

fn row(accessor: Accessor, rule: &str, count: u64, at: Timestamp, from: IpAddr) -> UsageRow {
    UsageRow { accessor, rule: rule.into(), count, last_used: at, last_source: Some(from) }
}

/// A token that was used since its backup, and one that was not.
fn lives() -> (Home, PathBuf, [TokenRecord; 2]) {
    let home = Home::new();
    let store = home.open();
    let tokens = ["used", "idle"].map(|name| store.create_token(record(named(name))).unwrap());
    for token in &tokens {
        use_it(&store, token.accessor, "r/1", 2, BEFORE, FAR);
    }
    let backup = back_up(&home);
    use_it(&store, tokens[0].accessor, "r/1", 3, SINCE, NEAR);
    use_it(&store, tokens[0].accessor, "r/2", 1, SINCE, NEAR);
    (home, backup, tokens)
}

fn restored(home: &Home, backup: &Path, options: RestoreOptions) -> SqliteStore {
    prepare(home, backup, options).unwrap().finish("now").unwrap();
    let report = checked(&home.path).unwrap();
    assert!(report.is_fine(), "{:?}", report.problems);
    home.open()
}

/// The names of those that are idle, by each of the three ways to ask for them, which must agree.
fn idle(store: &SqliteStore, since: Timestamp) -> Vec<String> {
    let names = |tokens: Vec<TokenRecord>| {
        let mut names: Vec<String> = tokens.into_iter().map(|token| token.name.to_string()).collect();
        names.sort();
        names
    };
    let times = TimeFilter { unused_since: Some(since), created_before: None };
    let mut by_time = vec![];
    store.for_each_by_time(&times, &mut |accessor| by_time.push(accessor)).unwrap();
    let by_time = names(by_time.into_iter().map(|accessor| store.token(accessor).unwrap()).collect());
    let listed = names(store.list_tokens(&TokenQuery { times, ..TokenQuery::all(NOW) }).unwrap().items);
    let found = names(store.idle_tokens(since, 10).unwrap());
    assert_eq!((&by_time, &listed), (&found, &found));
    found
}

#[test]
fn what_was_used_since_the_backup_is_not_idle_after_its_restore() {
    let (home, backup, [used, unused]) = lives();
    let store = restored(&home, &backup, RestoreOptions::default());
    assert_eq!(idle(&store, ASKED), ["idle"]);
    let last = |token: &TokenRecord| store.token(token.accessor).unwrap().last_use;
    assert_eq!(last(&used), Some(LastUse { at: SINCE, source: Some(NEAR) }));
    assert_eq!(last(&unused), Some(LastUse { at: BEFORE, source: Some(FAR) }));
    let one = used.accessor;
    assert_eq!(store.usage_of(one).unwrap(), [row(one, "r/1", 5, SINCE, NEAR), row(one, "r/2", 1, SINCE, NEAR)]);
    assert_eq!(store.token(one).unwrap().version, 1, "being used changes nothing about it");
}

#[test]
fn of_two_uses_the_later_stays_and_of_two_counts_the_larger() {
    let (home, _, [used, _]) = lives();
    let younger = Home::new();
    fs::copy(&home.path, &younger.path).unwrap();
    use_it(&younger.open(), used.accessor, "r/1", 40, SINCE.plus(1), FAR);
    let backup = back_up(&younger);
    use_it(&home.open(), used.accessor, "r/2", 1, SINCE.plus(2), NEAR);
    let store = restored(&home, &backup, RestoreOptions::default());
    let one = used.accessor;
    let rows = [row(one, "r/1", 45, SINCE.plus(1), FAR), row(one, "r/2", 2, SINCE.plus(2), NEAR)];
    assert_eq!(store.usage_of(one).unwrap(), rows);
    assert_eq!(store.token(one).unwrap().last_use, Some(LastUse { at: SINCE.plus(2), source: Some(NEAR) }));
}

/// They have counters and no record. Of a token that goes with the restore nothing stays.
#[test]
fn declared_tokens_keep_their_counters_and_those_that_are_gone_leave_none() {
    let (home, backup, _) = lives();
    let (store, declared) = (home.open(), record(named("declared")).accessor);
    let later = store.create_token(record(named("later"))).unwrap().accessor;
    for accessor in [declared, later] {
        use_it(&store, accessor, "r/3", 4, SINCE, NEAR);
    }
    drop(store);
    let store = restored(&home, &backup, RestoreOptions::default());
    assert_eq!(store.usage_of(declared).unwrap(), [row(declared, "r/3", 4, SINCE, NEAR)]);
    assert_eq!(store.usage_of(later).unwrap(), []);
}

/// Else `idle_disable` would take tokens for idle that were used yesterday.
fn assert_counted_from_the_restore_on(home: &Home, backup: &Path, options: RestoreOptions, case: &str) {
    let store = restored(home, backup, options);
    let at = hand().at;
    for since in [ASKED, at] {
        assert_eq!(idle(&store, since), [""; 0], "{case}");
    }
    assert_eq!(idle(&store, at.plus(1)).len(), 2, "{case}: unused since, and idle from now on");
    let seen: Vec<_> = store.list_tokens(&TokenQuery::all(NOW)).unwrap().items;
    assert!(seen.iter().all(|token| token.last_use.is_none_or(|last| last.at < at)), "{case}: no use is made up");
}

#[test]
fn where_nobody_knows_what_was_used_idleness_is_counted_from_the_restore_on() {
    let (home, backup, _) = lives();
    fs::remove_file(&home.path).unwrap();
    assert_counted_from_the_restore_on(&home, &backup, FORGET, "no present store");

    let (home, backup, _) = lives();
    Connection::open(&home.path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert_counted_from_the_restore_on(&home, &backup, FORGET, "a present store that can't be read");

    let (home, backup, [used, _]) = lives();
    let delete = format!("DELETE FROM tokens WHERE accessor = '{}'", used.accessor);
    Connection::open(&home.path).unwrap().execute_batch(&delete).unwrap();
    assert_counted_from_the_restore_on(&home, &backup, RestoreOptions::default(), "a token that it does not know");

    let (home, backup, _) = lives();
    Connection::open(&home.path).unwrap().execute_batch(FIRST_LAYOUT).unwrap();
    assert_counted_from_the_restore_on(&home, &backup, RestoreOptions::default(), "a layout without uses");

    let (home, backup, [used, _]) = lives();
    home.open().change_state(used.accessor, change(Change::Revoke), None).unwrap();
    home.open().purge(NOW.plus(6), 10).unwrap();
    assert_counted_from_the_restore_on(&home, &backup, FORGET, "a token that was purged and is given back");
}

#[test]
fn a_use_that_does_not_decode_is_one_that_nobody_knows_of_and_takes_nothing_away() {
    for damage in [
        "UPDATE tokens SET last_used = -1",
        "UPDATE tokens SET last_source = 'nowhere'",
        "UPDATE usage SET last_used = -1",
        "UPDATE usage SET count = -1",
        "UPDATE usage SET last_source = 'nowhere'",
        "UPDATE usage SET accessor = accessor || '!'",
    ] {
        let (home, backup, _) = lives();
        Connection::open(&home.path).unwrap().execute_batch(damage).unwrap();
        let refused = prepare(&home, &backup, RestoreOptions::default()).map(drop).unwrap_err();
        assert!(refused.to_string().contains("--salvage"), "{damage}: {refused}");
        assert_counted_from_the_restore_on(&home, &backup, SALVAGE, damage);
    }
}

#[test]
fn a_restore_after_one_that_did_not_know_does_not_know_more() {
    let (home, backup, _) = lives();
    fs::remove_file(&home.path).unwrap();
    drop(restored(&home, &backup, FORGET));
    let store = restored(&home, &backup, RestoreOptions::default());
    assert_eq!(idle(&store, hand().at), [""; 0]);
    assert_eq!(idle(&store, hand().at.plus(1)).len(), 2);
}
