//! What a revocation of many finds the second time it looks.

use leastgate_policy::Timestamp;
use leastgate_store::TokenRecord;

use super::*;
use crate::fixture::{calling, made, shared, token};
use crate::state::Shared;

const PATH: &str = "/v1/revocations";

fn asked(owner: &str, created_before: Option<u64>) -> RevokeTokens {
    let created_before = created_before.map(|at| Moment(Timestamp(at)));
    RevokeTokens { owner: Some(owner.to_owned()), created_before, reason: "x".to_owned(), ..RevokeTokens::default() }
}

fn late(shared: &Shared, asked: &RevokeTokens, sweep: &Sweep, before: &[&TokenRecord]) -> Vec<Accessor> {
    let mut found = Found::default();
    found.tokens.extend(before.iter().map(|record| (record.accessor, record.digest)));
    calling(shared, PATH, |call| look_again(call, asked, sweep, &found)).tokens.into_keys().collect()
}

#[test]
fn what_was_given_meanwhile_is_held_against_the_whole_filter() {
    for (owner, created_before, is_found) in
        [("team", None, true), ("team", Some(8), true), ("team", Some(7), false), ("another", None, false)]
    {
        let shared = shared();
        let former = made(&shared, &token("former", "team", None));
        let sweep = shared.sweeps.begin();
        let new = made(&shared, &token("new", "team", None));
        let found = late(&shared, &asked(owner, created_before), &sweep, &[&former]);
        assert_eq!(found, if is_found { vec![new.accessor] } else { vec![] }, "{owner} {created_before:?}");
    }
}

#[test]
fn what_was_made_to_stand_in_for_one_of_them_meanwhile_ends_with_it() {
    let shared = shared();
    let parent = made(&shared, &token("bot", "team", None));
    let sweep = shared.sweeps.begin();
    let child = made(&shared, &token("bot-run-1", "another", Some(parent.accessor)));
    assert_eq!(late(&shared, &asked("team", None), &sweep, &[&parent]), [child.accessor]);
    assert_eq!(late(&shared, &asked("team", None), &sweep, &[]), [], "nor with anybody else");
}

#[test]
fn one_that_its_own_rotation_has_taken_out_of_force_is_told_that_it_fits() {
    for (owner, created_before, is_found) in
        [("team", None, true), ("team", Some(8), true), ("team", Some(7), false), ("another", None, false)]
    {
        let shared = shared();
        let record = made(&shared, &token("bot", "team", None));
        let leaving = shared.sweeps.leave(Gift::from(&record));
        shared.given.authority.set_state(&record.digest, TokenState::Revoked);
        assert_eq!(late(&shared, &asked(owner, created_before), &shared.sweeps.begin(), &[]), []);
        assert_eq!(leaving.is_found(), is_found, "{owner} {created_before:?}");
    }
}

#[test]
fn of_more_gifts_than_are_noted_all_tokens_are_looked_at() {
    let shared = shared();
    let sweep = shared.sweeps.begin();
    let new = made(&shared, &token("new", "team", None));
    let other = made(&shared, &token("other", "another", None));
    (0..20_000).for_each(|_| shared.sweeps.note(&other));
    assert_eq!(late(&shared, &asked("team", None), &sweep, &[]), [new.accessor]);
}
