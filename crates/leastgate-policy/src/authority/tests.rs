//! Changes seen by those who decide, and races with a change of digest.

use super::*;
use crate::compile::CompileContext;
use crate::spec::{DeclaredToken, Located, PolicySpec};
use crate::time::Timestamp;
use crate::token::{Accessor, Digests, Pepper, StragglerKind};

fn policy(revision: &str, digest: [u8; 32]) -> PolicySnapshot {
    let text = |value: &str| Located::from(value.to_owned());
    let token = DeclaredToken {
        accessor: text(&Accessor::from_random(1).to_string()),
        name: text("bot"),
        owner: None,
        digest: text(&TokenDigest::from_bytes(digest).to_string()),
        env: text("prod"),
        roles: vec![],
        grants: vec![],
        restrictions: Default::default(),
        created: Timestamp(0).into(),
        expires: None,
        state: TokenState::Active,
        limits: Default::default(),
    };
    let spec = PolicySpec { environments: vec![text("prod")], tokens: vec![token], ..PolicySpec::default() };
    let context = CompileContext {
        environment: "prod",
        revision,
        now: Timestamp(0),
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: vec![],
        well_known: false,
        upstreams: None,
    };
    PolicySnapshot::compile(&spec, &context).unwrap()
}

#[test]
fn a_policy_and_the_tokens_it_declares_change_in_one_step() {
    let authority = Authority::new(EnvironmentKey::derive(&Pepper::new(vec![1; 32]).unwrap(), "prod"));
    let old = authority.replace_with_declared(policy("a", [1; 32])).unwrap();
    let new = authority.replace_with_declared(policy("b", [2; 32])).unwrap();
    let knows = |snapshot: &PolicySnapshot, digest| snapshot.tokens().get(&TokenDigest::from_bytes(digest)).is_some();
    assert!(knows(&old, [1; 32]) && !knows(&old, [2; 32]), "the old policy keeps its own tokens");
    assert!(!knows(&new, [1; 32]) && knows(&new, [2; 32]));
    assert_eq!(authority.tokens().len(), 1);
}

#[test]
fn a_live_table_is_seen_through_every_policy() {
    let authority = Authority::new(EnvironmentKey::derive(&Pepper::new(vec![1; 32]).unwrap(), "prod"));
    let first = authority.replace_with_declared(policy("a", [1; 32])).unwrap();
    let second = authority.replace(policy("b", [2; 32]));
    let digest = TokenDigest::from_bytes([1; 32]);
    assert!(authority.set_state(&digest, TokenState::Revoked));
    for snapshot in [first, second] {
        assert_eq!(snapshot.tokens().get(&digest).unwrap().state, TokenState::Revoked);
    }
}

/// The race of a rotation: a revocation that read the record before, while or after its digest changes.
#[test]
fn whatever_is_done_to_a_token_while_its_digest_changes_is_done_to_it() {
    let key = |byte| EnvironmentKey::derive(&Pepper::new(vec![byte; 32]).unwrap(), "prod");
    let both = key(2).replacing(&key(1));
    let Digests { current, previous } = both.digests(b"x");
    let previous = previous.unwrap();
    let straggler = Straggler { kind: StragglerKind::Token, accessor: Accessor::from_random(1), previous, current };
    let entry = |digest, state| TokenEntry {
        digest,
        accessor: Accessor::from_random(1),
        name: "bot".into(),
        owner: None,
        roles: vec![],
        grants: vec![],
        restrictions: Default::default(),
        limits: Default::default(),
        expires: None,
        state,
        is_canary: false,
        parent: None,
    };
    let state = |authority: &Authority| authority.tokens().find(&both.digests(b"x")).map(|(token, _)| token.state);
    for held in [previous, current] {
        for moment in 0..4 {
            let authority = Authority::new(both.clone());
            authority.upsert(entry(previous, TokenState::Active)).unwrap();
            let at = |now| {
                // Before it begins, the store has not told anybody of the new digest.
                if moment == now && (now > 0 || held == previous) {
                    assert!(authority.set_state(&held, TokenState::Revoked), "{held:?} {moment}");
                    assert_eq!(authority.token(&held).map(|token| token.state), Some(TokenState::Revoked));
                }
            };
            at(0);
            assert_eq!(authority.begin_redigest(&straggler), Ok(true));
            at(1);
            assert_eq!(authority.finish_redigest(&straggler), Ok(true));
            at(2);
            authority.age_moves();
            at(3);
            let is_revoked = moment > 0 || held == previous;
            let expected = if is_revoked { TokenState::Revoked } else { TokenState::Active };
            assert_eq!((state(&authority), authority.tokens().len()), (Some(expected), 1), "{held:?} {moment}");
            // A record that was read before the move, put in force after it, makes no second token, and undoes no
            // revocation.
            authority.upsert(entry(previous, TokenState::Disabled)).unwrap();
            let expected = if is_revoked { TokenState::Revoked } else { TokenState::Disabled };
            assert_eq!((state(&authority), authority.tokens().len()), (Some(expected), 1));
            assert!(authority.remove(&previous) && authority.tokens().is_empty());
            assert_eq!(authority.begin_redigest(&straggler), Ok(false));
        }
    }
}
