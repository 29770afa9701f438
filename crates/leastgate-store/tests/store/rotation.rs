//! A name goes from one token to the next, whole or not at all.

use leastgate_policy::TokenState;
use leastgate_store::{
    Change, NewToken, OldEnd, Rotation, SqliteStore, StoreError, TokenRecord, TokenStore, rotate_token,
};

use crate::fixture::{NOW, change, key, memory, named, record};

fn rotate(store: &SqliteStore, old: &TokenRecord, end: &OldEnd) -> Result<(TokenRecord, TokenRecord), StoreError> {
    let new = NewToken { created: NOW.plus(10), ..named(old.name.as_str()) };
    let (secret, rotated) = rotate_token(store, &key(), old, &new, end)?;
    assert_eq!(rotated.successor.digest, key().digest(secret.expose().as_bytes()));
    Ok((rotated.successor, rotated.old))
}

#[test]
fn the_name_goes_over_and_the_old_one_has_its_grace() {
    let store = memory();
    let first = store.create_token(record(named("bot"))).unwrap();
    let (second, old) = rotate(&store, &first, &OldEnd::Grace(NOW.plus(60))).unwrap();
    assert_eq!(
        (old.state, old.expires, old.successor),
        (TokenState::Rotating, Some(NOW.plus(60)), Some(second.accessor))
    );
    assert_eq!(store.find_token("bot").unwrap(), second);
    assert_eq!(store.find_token(&first.accessor.to_string()).unwrap(), old);
    let (third, _) = rotate(&store, &second, &OldEnd::Grace(NOW.plus(90))).unwrap();
    let before = |token: &TokenRecord| store.predecessors_of(token.accessor).unwrap();
    assert_eq!(before(&third).iter().map(|token| token.accessor).collect::<Vec<_>>(), [second.accessor]);
    assert_eq!(before(&second), [old]);
    assert!(before(&first).is_empty());
}

#[test]
fn a_grace_never_outlives_the_old_end() {
    let store = memory();
    let first = store.create_token(record(NewToken { expires: Some(NOW.plus(20)), ..named("bot") })).unwrap();
    let (_, old) = rotate(&store, &first, &OldEnd::Grace(NOW.plus(60))).unwrap();
    assert_eq!(old.expires, Some(NOW.plus(20)));
}

/// Who changes a child by its version has not seen that it stands in for another token now.
#[test]
fn what_stands_in_for_it_has_another_version_afterwards() {
    let store = memory();
    let first = store.create_token(record(named("bot"))).unwrap();
    let child = NewToken { parent: Some(first.accessor), ..named("bot-run") };
    let child = store.create_token(record(child)).unwrap();
    let (second, _) = rotate(&store, &first, &OldEnd::Grace(NOW.plus(60))).unwrap();
    let now = store.token(child.accessor).unwrap();
    assert_eq!((now.parent, now.version), (Some(second.accessor), child.version + 1));
}

#[test]
fn those_that_share_limits_come_in_an_order_that_leads_to_one_meter() {
    let store = memory();
    let first = store.create_token(record(named("bot"))).unwrap();
    let of_first = NewToken { parent: Some(first.accessor), ..named("bot-run") };
    let child = store.create_token(record(of_first)).unwrap();
    let (second, _) = rotate(&store, &first, &OldEnd::Grace(NOW.plus(60))).unwrap();
    let (third, _) = rotate(&store, &second, &OldEnd::Grace(NOW.plus(60))).unwrap();
    let (other, leaked) =
        (store.create_token(record(named("other"))).unwrap(), OldEnd::Revoked(change(Change::Revoke)));
    rotate(&store, &other, &leaked).unwrap();
    let pairs = [(&first, &second), (&second, &third), (&third, &child)].map(|(of, with)| (of.digest, with.digest));
    assert_eq!(store.sharing_limits().unwrap(), pairs);
    store.change_state(first.accessor, change(Change::Disable), None).unwrap();
    assert_eq!(store.sharing_limits().unwrap(), pairs, "it may be enabled before its grace is over");
    store.change_state(child.accessor, change(Change::Revoke), None).unwrap();
    assert_eq!(store.sharing_limits().unwrap(), pairs[..2]);
}

#[test]
fn a_leaked_one_is_revoked_in_the_same_step() {
    let store = memory();
    let first = store.create_token(record(named("bot"))).unwrap();
    let (second, old) = rotate(&store, &first, &OldEnd::Revoked(change(Change::Revoke))).unwrap();
    assert_eq!((old.state, old.successor), (TokenState::Revoked, Some(second.accessor)));
    assert_eq!(old.state_changed, Some(change(Change::Revoke)));
}

#[test]
fn who_cannot_be_rotated_is_told_why_and_nothing_changes() {
    let store = memory();
    let with_state = |name: &str, asked| {
        let token = store.create_token(record(named(name))).unwrap();
        store.change_state(token.accessor, change(asked), None).unwrap()
    };
    let over = store.create_token(record(NewToken { expires: Some(NOW.plus(10)), ..named("over") })).unwrap();
    let parent = Some(over.accessor);
    let child = store.create_token(record(NewToken { parent, ..named("child") })).unwrap();
    let first = store.create_token(record(named("bot"))).unwrap();
    let (_, rotating) = rotate(&store, &first, &OldEnd::Grace(NOW.plus(60))).unwrap();
    let before = store.count_tokens().unwrap();
    for (token, word) in [
        (with_state("revoked", Change::Revoke), "revoked"),
        (with_state("disabled", Change::Disable), "enable it first"),
        (over, "its life is over"),
        (child, "stands in"),
        (rotating, "a successor already"),
    ] {
        let refused = rotate(&store, &token, &OldEnd::Grace(NOW.plus(60))).unwrap_err().to_string();
        assert!(refused.contains(word), "{refused}");
        assert_eq!(store.token(token.accessor), Ok(token));
    }
    assert_eq!(store.count_tokens().unwrap(), before + 2);
}

#[test]
fn a_successor_that_cannot_be_kept_leaves_the_old_one_alone() {
    let store = memory();
    let first = store.create_token(record(named("bot"))).unwrap();
    let twice = TokenRecord { digest: first.digest, ..record(named("bot")) };
    let rotation = Rotation { old: first.accessor, successor: twice, end: OldEnd::Grace(NOW.plus(9)), expected: None };
    assert_eq!(store.rotate_token(rotation), Err(StoreError::AlreadyDrawn));
    assert_eq!(store.find_token("bot"), Ok(first));
}

#[test]
fn the_namesakes_of_a_token_are_those_that_live_and_who_holds_the_name_comes_first() {
    let store = memory();
    let first = store.create_token(record(named("bot"))).unwrap();
    store.create_token(record(named("other"))).unwrap();
    let (second, first) = rotate(&store, &first, &OldEnd::Grace(NOW.plus(60))).unwrap();
    let (third, second) = rotate(&store, &second, &OldEnd::Grace(NOW.plus(90))).unwrap();
    let at = |seconds| store.namesakes("bot", NOW.plus(seconds)).unwrap();
    assert_eq!(at(59), [third.clone(), second.clone(), first]);
    assert_eq!(at(60), [third.clone(), second.clone()], "a grace is over with its last second");
    // As a row, and as a line of a list.
    store.change_state(second.accessor, change(Change::Revoke), None).unwrap();
    assert_eq!(at(59).len(), 2);
    let many = (0..300).map(|n| store.create_token(record(named(&format!("x{n}")))).unwrap().accessor);
    store.revoke_tokens(many.chain([third.accessor]).collect(), change(Change::Revoke)).unwrap();
    assert_eq!(at(59).len(), 1);
    let holder = store.create_token(record(named("bot"))).unwrap();
    assert_eq!((at(59).len(), &at(59)[0]), (2, &holder), "whoever made it anew");
}
