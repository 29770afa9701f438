//! Many at once: one transaction for a batch, one commit for many callers, and a load that keeps up.

use std::sync::Arc;

use leastgate_policy::Timestamp;
use leastgate_store::{NewToken, SqliteStore, StoreError, TokenGrant, TokenStore};

use crate::fixture::{Home, NOW, memory, named, options, record};

#[test]
fn twenty_thousand_tokens_are_kept_and_loaded() {
    const MANY: usize = 20_000;
    let home = Home::new();
    let grants = vec![TokenGrant { scope: "orders:read".into(), expires: Some(NOW.plus(60)), reason: None }];
    let tokens: Vec<_> = (0..MANY)
        .map(|n| record(NewToken { owner: Some("team".into()), grants: grants.clone(), ..named(&format!("t-{n}")) }))
        .collect();
    {
        let store = home.try_open(options()).unwrap();
        assert_eq!(store.create_tokens(tokens.clone()), Ok(MANY));
    }
    let store = home.try_open(options()).unwrap();
    let mut entries = Vec::with_capacity(MANY);
    assert_eq!(store.for_each_entry(&mut |entry| entries.push(entry)), Ok(MANY as u64));
    let expected: Vec<_> = tokens.iter().map(leastgate_store::TokenRecord::entry).collect();
    assert!(entries == expected, "in the order of their making");
    assert!(Arc::ptr_eq(&entries[0].roles[0], &entries[MANY - 1].roles[0]), "names are shared");
    assert!(Arc::ptr_eq(&entries[0].grants[0].0, &entries[MANY - 1].grants[0].0), "names are shared");
}

#[test]
fn a_batch_is_kept_whole_or_not_at_all() {
    let home = Home::new();
    let store = home.open();
    let batch = ["a", "b", "a"].map(|name| record(named(name)));
    assert!(matches!(store.create_tokens(batch.into()), Err(StoreError::NameTaken { .. })));
    assert_eq!(store.count_tokens(), Ok(0));
}

#[test]
fn many_callers_are_all_answered() {
    let home = Home::new();
    for store in [home.try_open(options()).unwrap(), memory()] {
        all_callers_are_answered(&store);
    }
}

fn all_callers_are_answered(store: &SqliteStore) {
    std::thread::scope(|scope| {
        for caller in 0..16 {
            let store = store.clone();
            scope.spawn(move || {
                for number in 0..25 {
                    let token = NewToken { created: Timestamp(number), ..named(&format!("t-{caller}-{number}")) };
                    let kept = store.create_token(record(token)).unwrap();
                    assert_eq!(store.token(kept.accessor), Ok(kept), "read after write");
                }
            });
        }
    });
    assert_eq!(store.count_tokens(), Ok(400));
}
