//! Gifts that are taken back because nobody was told of them, and what stands in for a token that is narrowed.

use leastgate_policy::TokenState;
use leastgate_store::{Change, NewToken, OldEnd, Rotation, StoreError, TokenRecord, TokenStore as _, Undo};

use crate::fixture::{NOW, change, memory, named, record};

#[test]
fn a_token_that_was_made_goes_and_leaves_its_name() {
    let store = memory();
    let [one, other] = ["a", "b"].map(|name| store.create_token(record(named(name))).unwrap());
    assert_eq!(store.undo(vec![Undo::Made(one.accessor)]), Ok(1));
    assert_eq!(store.undo(vec![Undo::Made(one.accessor)]), Ok(0), "twice is once");
    assert!(matches!(store.token(one.accessor), Err(StoreError::NotFound { .. })));
    store.create_token(record(named("a"))).unwrap();
    assert_eq!(store.token(other.accessor), Ok(other));
}

#[test]
fn a_change_is_taken_back_and_nothing_that_was_taken_comes_back() {
    let store = memory();
    let old = store.create_token(record(named("bot"))).unwrap();
    let undo = || vec![Undo::Changed(Box::new(old.clone()))];
    assert_eq!((store.undo(undo()), store.token(old.accessor)), (Ok(0), Ok(old.clone())), "it was not kept");
    let more = TokenRecord { roles: vec!["support".into()], expires: Some(NOW.plus(99)), ..old.clone() };
    store.update_token(more).unwrap();
    store.change_state(old.accessor, change(Change::Disable), None).unwrap();
    assert_eq!(store.undo(undo()), Ok(1));
    let back = store.token(old.accessor).unwrap();
    assert_eq!((&back.roles, back.expires, back.state), (&old.roles, old.expires, TokenState::Disabled));
    assert_eq!(store.undo(undo()), Ok(0));
    store.change_state(old.accessor, change(Change::Revoke), None).unwrap();
    assert_eq!(store.undo(undo()), Ok(0), "what is revoked stays as it is");
}

#[test]
fn a_rotation_is_taken_back_with_what_stands_in_for_the_token() {
    for (meanwhile, state) in [(None, TokenState::Active), (Some(Change::Disable), TokenState::Disabled)] {
        let store = memory();
        let old = store.create_token(record(named("bot"))).unwrap();
        let child = NewToken { parent: Some(old.accessor), ..named("bot-run-1") };
        let child = store.create_token(record(child)).unwrap();
        let successor = record(named("bot"));
        let undo = || vec![Undo::Rotated { old: Box::new(old.clone()), successor: successor.accessor }];
        assert_eq!((store.undo(undo()), store.token(old.accessor)), (Ok(0), Ok(old.clone())), "it was not kept");
        let end = OldEnd::Grace(NOW.plus(9));
        store.rotate_token(Rotation { old: old.accessor, successor: successor.clone(), end, expected: None }).unwrap();
        if let Some(taken) = meanwhile {
            store.change_state(old.accessor, change(taken), None).unwrap();
        }
        assert_eq!((store.undo(undo()), store.undo(undo())), (Ok(1), Ok(0)));
        let back = store.find_token("bot").unwrap();
        assert_eq!((back.accessor, back.successor, back.expires, back.state), (old.accessor, None, old.expires, state));
        let child = store.token(child.accessor).unwrap();
        // It stood in for the successor when the token was taken out of use, and ends all the same.
        let living = if meanwhile.is_some() { TokenState::Revoked } else { TokenState::Active };
        assert_eq!((child.parent, child.state), (Some(old.accessor), living));
        assert!(matches!(store.create_token(record(named("bot"))), Err(StoreError::NameTaken { .. })));
    }
}

#[test]
fn a_token_that_was_revoked_with_its_rotation_stays_so() {
    let store = memory();
    let old = store.create_token(record(named("bot"))).unwrap();
    let successor = record(named("bot"));
    let end = OldEnd::Revoked(change(Change::Revoke));
    let gone = successor.accessor;
    store.rotate_token(Rotation { old: old.accessor, successor, end, expected: None }).unwrap();
    assert_eq!(store.undo(vec![Undo::Rotated { old: Box::new(old.clone()), successor: gone }]), Ok(1));
    assert_eq!(store.token(old.accessor).unwrap().state, TokenState::Revoked);
    store.create_token(record(named("bot"))).unwrap();
}

#[test]
fn what_stands_in_for_a_token_ends_in_the_commit_that_narrows_it_or_neither_happens() {
    let store = memory();
    let parent = store.create_token(record(named("bot"))).unwrap();
    let child = NewToken { parent: Some(parent.accessor), ..named("bot-run-1") };
    let child = store.create_token(record(child)).unwrap();
    let end = change(Change::Revoke);
    let stale = TokenRecord { version: 7, ..parent.clone() };
    assert!(matches!(store.narrow_token(stale, end.clone()), Err(StoreError::Conflict { .. })));
    assert_eq!(store.token(child.accessor), Ok(child.clone()));
    let narrowed = store.narrow_token(TokenRecord { roles: vec![], ..parent }, end.clone()).unwrap();
    assert_eq!(narrowed.version, 2);
    let child = store.token(child.accessor).unwrap();
    assert_eq!((child.state, child.state_changed), (TokenState::Revoked, Some(end)));
}
