//! Usage counters add up, over flushes and restarts, and go with their token.

use std::net::IpAddr;

use leastgate_policy::{Accessor, Timestamp};
use leastgate_store::{
    Change, LastUse, SqliteOptions, StoreError, TimeFilter, TokenStore, UsageBatch, UsageDelta, UsageRow,
};

use crate::fixture::{Home, NOW, change, named, record};

/// A source for each moment, so that the latest one is told from the others.
fn source_at(at: Timestamp) -> Option<IpAddr> {
    Some(IpAddr::from(at.0.to_be_bytes()[4..].first_chunk::<4>().copied().unwrap_or_default()))
}

fn delta(accessor: Accessor, rule: &str, count: u64, at: Timestamp) -> UsageDelta {
    UsageDelta { accessor, rule: Some(rule.into()), count, last_used: at, last_source: source_at(at) }
}

fn row(accessor: Accessor, rule: &str, count: u64, at: Timestamp) -> UsageRow {
    UsageRow { accessor, rule: rule.into(), count, last_used: at, last_source: source_at(at) }
}

#[test]
fn counters_add_up_and_the_latest_use_wins() {
    let home = Home::new();
    let (one, declared) = (record(named("one")).accessor, record(named("declared")).accessor);
    {
        let store = home.open();
        store
            .record_usage(UsageBatch::draw(vec![delta(one, "r/1", 3, NOW.plus(9)), delta(one, "r/2", 1, NOW)]).unwrap())
            .unwrap();
        store.record_usage(UsageBatch::draw(vec![]).unwrap()).unwrap();
    }
    let store = home.open();
    store
        .record_usage(UsageBatch::draw(vec![delta(one, "r/1", 4, NOW), delta(declared, "r/1", 1, NOW)]).unwrap())
        .unwrap();
    assert_eq!(store.usage_of(one), Ok(vec![row(one, "r/1", 7, NOW.plus(9)), row(one, "r/2", 1, NOW)]));
    let mut all = vec![];
    assert_eq!(store.for_each_usage(&mut |row| all.push(row)), Ok(3));
    all.sort_by_key(|row| (row.count, row.accessor));
    assert_eq!(all.last(), Some(&row(one, "r/1", 7, NOW.plus(9))));
    assert!(all.contains(&row(declared, "r/1", 1, NOW)), "a token without a record is counted too");
}

#[test]
fn a_token_knows_its_last_use_whatever_the_rule() {
    let home = Home::new();
    let store = home.open();
    let token = store.create_token(record(named("used"))).unwrap();
    assert_eq!(token.last_use, None);
    for at in [NOW, NOW.plus(9), NOW.plus(3)] {
        store
            .record_usage(UsageBatch::draw(vec![delta(token.accessor, &format!("r/{}", at.0), 1, at)]).unwrap())
            .unwrap();
    }
    let last = LastUse { at: NOW.plus(9), source: source_at(NOW.plus(9)) };
    assert_eq!(store.token(token.accessor).unwrap().last_use, Some(last));
    assert_eq!(store.token(token.accessor).unwrap().version, 1, "being used changes nothing about it");
}

/// As when another token stands in for it: that comes from nowhere.
#[test]
fn a_use_from_nowhere_moves_the_time_and_not_the_source() {
    let home = Home::new();
    let store = home.open();
    let token = store.create_token(record(named("used"))).unwrap();
    let nowhere = |rule: Option<&str>| UsageDelta {
        accessor: token.accessor,
        rule: rule.map(Into::into),
        count: 1,
        last_used: NOW.plus(9),
        last_source: None,
    };
    store.record_usage(UsageBatch::draw(vec![delta(token.accessor, "r", 1, NOW)]).unwrap()).unwrap();
    store.record_usage(UsageBatch::draw(vec![nowhere(None), nowhere(Some("r"))]).unwrap()).unwrap();
    let last = LastUse { at: NOW.plus(9), source: source_at(NOW) };
    assert_eq!(store.token(token.accessor).unwrap().last_use, Some(last));
    assert_eq!(store.usage_of(token.accessor).unwrap()[0].last_source, source_at(NOW));
}

#[test]
fn a_use_that_no_rule_let_through_moves_the_token_and_no_row() {
    let home = Home::new();
    let store = home.open();
    let token = store.create_token(record(named("refused"))).unwrap();
    let refused = UsageDelta { rule: None, ..delta(token.accessor, "", 2, NOW.plus(9)) };
    store.record_usage(UsageBatch::draw(vec![delta(token.accessor, "r/1", 1, NOW), refused]).unwrap()).unwrap();
    let last = LastUse { at: NOW.plus(9), source: source_at(NOW.plus(9)) };
    assert_eq!(store.token(token.accessor).unwrap().last_use, Some(last));
    assert_eq!(store.usage_of(token.accessor), Ok(vec![row(token.accessor, "r/1", 1, NOW)]));
}

#[test]
fn a_purged_token_takes_its_counters_along() {
    let home = Home::new();
    let store = home.open();
    let token = store.create_token(record(named("gone"))).unwrap();
    store.record_usage(UsageBatch::draw(vec![delta(token.accessor, "r/1", 3, NOW)]).unwrap()).unwrap();
    store.change_state(token.accessor, change(Change::Revoke), None).unwrap();
    store.purge(NOW.plus(60), 10).unwrap();
    assert_eq!(store.usage_of(token.accessor), Ok(vec![]));
}

/// A list, or a walk over all usage, takes as long as it likes.
#[test]
fn who_holds_every_reader_keeps_nobody_from_finding_a_token_or_an_administrator() {
    let home = Home::new();
    let patience = std::time::Duration::from_millis(50);
    let store = home.try_open(SqliteOptions { readers: 1, patience, ..SqliteOptions::default() }).unwrap();
    let token = store.create_token(record(named("used"))).unwrap();
    store.record_usage(UsageBatch::draw(vec![delta(token.accessor, "r", 1, NOW)]).unwrap()).unwrap();
    let mut found = None;
    let mut look = |_| {
        assert_eq!(store.count_tokens(), Err(StoreError::Overloaded), "no reader is left");
        found = Some([
            store.find_token("used").is_ok(),
            store.token(token.accessor).is_ok(),
            store.find_admin(&token.digest).is_ok(),
            store.for_each_by_time(&TimeFilter::default(), &mut |_| ()).is_ok(),
        ]);
    };
    store.for_each_usage(&mut look).unwrap();
    assert_eq!(found, Some([true; 4]));
}

#[test]
fn a_batch_that_is_handed_over_again_adds_nothing_even_after_a_restart() {
    let home = Home::new();
    let store = home.open();
    let token = store.create_token(record(named("used"))).unwrap();
    let batch = |count| UsageBatch::draw(vec![delta(token.accessor, "r", count, NOW)]).unwrap();
    let (first, alike, last) = (batch(3), batch(3), batch(4));
    for batch in [&first, &alike, &last, &last] {
        store.record_usage(batch.clone()).unwrap();
    }
    assert_eq!(store.usage_of(token.accessor).unwrap()[0].count, 10);
    drop(store);
    let store = home.open();
    store.record_usage(last).unwrap();
    assert_eq!(store.usage_of(token.accessor).unwrap()[0].count, 10);
}
