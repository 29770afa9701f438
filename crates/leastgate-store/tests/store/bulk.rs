//! Many at once: one transaction for a batch, one commit for many callers, and a load that keeps up.

use std::collections::HashSet;

use leastgate_policy::{Restrictions, Timestamp, TokenEntry, TokenState};
use leastgate_store::{
    Change, NewToken, SqliteStore, StoreError, TimeFilter, TokenGrant, TokenStore, UsageBatch, UsageDelta,
};

use crate::fixture::{Home, NOW, change, loaded, memory, named, options, record};

#[test]
fn twenty_thousand_tokens_are_kept_and_loaded() {
    const MANY: usize = 20_000;
    // As many as read at once, at most.
    const THREADS: usize = 4;
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
    let entries = loaded(&store);
    let mut expected: Vec<_> = tokens.iter().map(leastgate_store::TokenRecord::entry).collect();
    expected.sort_unstable_by_key(|entry| entry.accessor);
    assert!(entries == expected, "each once");
    let parts: [fn(&TokenEntry) -> *const u8; 2] =
        [|entry| entry.roles[0].as_ptr(), |entry| entry.grants[0].0.as_ptr()];
    for part in parts {
        let names: HashSet<*const u8> = entries.iter().map(part).collect();
        assert!(names.len() <= THREADS, "names are shared by what one thread reads, not {} times there", names.len());
    }
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

#[test]
fn a_batch_is_revoked_once_and_frees_its_names() {
    let store = memory();
    let tokens = ["a", "b", "c"].map(|name| store.create_token(record(named(name))).unwrap());
    let of = |range: &[leastgate_store::TokenRecord]| range.iter().map(|token| token.accessor).collect::<Vec<_>>();
    assert_eq!(store.revoke_tokens(of(&tokens[..2]), change(Change::Revoke)), Ok(2));
    let nobody = record(named("nobody")).accessor;
    let mut again = change(Change::Revoke);
    again.reason = "another".into();
    assert_eq!(store.revoke_tokens([of(&tokens), vec![nobody]].concat(), again), Ok(1), "the dead stay as they were");
    let first = store.token(tokens[0].accessor).unwrap();
    assert_eq!((first.state, first.version), (TokenState::Revoked, 2));
    assert_eq!(first.state_changed, Some(change(Change::Revoke)));
    store.create_token(record(named("a"))).unwrap();
}

#[test]
fn tokens_are_found_by_their_times() {
    let store = memory();
    let at = |name: &str, created| store.create_token(record(NewToken { created, ..named(name) })).unwrap().accessor;
    let (old, used, young) = (at("old", NOW), at("used", NOW), at("young", NOW.plus(50)));
    let delta =
        UsageDelta { accessor: used, rule: Some("r".into()), count: 1, last_used: NOW.plus(80), last_source: None };
    store.record_usage(UsageBatch::draw(vec![delta]).unwrap()).unwrap();
    let found = |unused_since: Option<u64>, created_before: Option<u64>| {
        let times = TimeFilter {
            unused_since: unused_since.map(|more| NOW.plus(more)),
            created_before: created_before.map(|more| NOW.plus(more)),
        };
        let mut accessors = vec![];
        store.for_each_by_time(&times, &mut |accessor| accessors.push(accessor)).unwrap();
        accessors.sort_by_key(|accessor| [old, used, young].iter().position(|one| one == accessor));
        accessors
    };
    assert_eq!(found(None, None), [old, used, young]);
    assert_eq!(found(None, Some(50)), [old, used]);
    assert_eq!(found(Some(60), None), [old, young]);
    assert_eq!(found(Some(60), Some(50)), [old]);
    assert!(found(Some(0), None).is_empty());
}

#[test]
fn idle_are_those_in_use_that_nobody_uses() {
    let store = memory();
    let create = |token: NewToken| store.create_token(record(token)).unwrap();
    let idle = create(named("idle"));
    create(NewToken { is_canary: true, ..named("bait") });
    create(NewToken { created: NOW.plus(50), ..named("young") });
    let off = create(named("off"));
    store.change_state(off.accessor, change(Change::Disable), None).unwrap();
    let back = create(named("back"));
    store.change_state(back.accessor, change(Change::Disable), None).unwrap();
    let enabled = leastgate_store::StateChange { at: NOW.plus(50), ..change(Change::Enable) };
    store.change_state(back.accessor, enabled, None).unwrap();
    assert_eq!(store.count_made_before(NOW.plus(50), NOW), Ok(2), "the idle one and the one that is back");
    assert_eq!(store.idle_tokens(NOW.plus(50), 10), Ok(vec![idle]));
    assert_eq!(store.idle_tokens(NOW, 10), Ok(vec![]));
    assert_eq!(store.idle_tokens(NOW.plus(51), 1).unwrap().len(), 1);
}

#[test]
fn what_has_ended_or_not_begun_is_not_idle() {
    let store = memory();
    let create = |token: NewToken| store.create_token(record(token)).unwrap();
    create(NewToken { expires: Some(NOW.plus(50)), ..named("over") });
    let restrictions = Restrictions { not_before: Some(NOW.plus(90)), ..Restrictions::default() };
    create(NewToken { restrictions, ..named("ahead") });
    assert_eq!(store.idle_tokens(NOW.plus(50), 10), Ok(vec![]));
    assert_eq!(store.idle_tokens(NOW.plus(49), 10).unwrap().len(), 1, "it lived then");
}
