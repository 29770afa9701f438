//! The table on its own, and while its tokens move.

use super::*;

fn entry(digest: [u8; 32]) -> TokenEntry {
    TokenEntry {
        digest: TokenDigest::from_bytes(digest),
        accessor: Accessor::from_random(1),
        name: "ci".into(),
        owner: None,
        roles: vec![],
        grants: vec![],
        restrictions: Restrictions::default(),
        limits: TokenLimits::default(),
        expires: None,
        state: TokenState::Active,
        is_canary: false,
        parent: None,
    }
}

#[test]
fn a_record_stays_within_its_size_class() {
    assert_eq!(size_of::<Record>(), 80);
}

#[test]
fn the_whole_digest_counts() {
    let table = TokenTable::default();
    table.upsert(entry([1; 32])).unwrap();
    let mut other = [1; 32];
    other[31] = 2;
    assert!(table.get(&TokenDigest::from_bytes([1; 32])).is_some());
    assert!(table.get(&TokenDigest::from_bytes(other)).is_none());
    assert_eq!(table.upsert(entry(other)), Err(DigestCollision));
    assert!(!table.set_state(&TokenDigest::from_bytes(other), TokenState::Revoked));
    assert!(!table.remove(&TokenDigest::from_bytes(other)));
    assert_eq!(table.len(), 1);
}

#[test]
fn nothing_leads_away_from_revoked() {
    let table = TokenTable::default();
    table.upsert(entry([1; 32])).unwrap();
    let digest = TokenDigest::from_bytes([1; 32]);
    table.set_state(&digest, TokenState::Revoked);
    table.upsert(entry([1; 32])).unwrap();
    table.restrict(&digest, |token| token.state = TokenState::Active);
    table.set_state(&digest, TokenState::Active);
    assert_eq!(table.get(&digest).unwrap().state, TokenState::Revoked);
}

#[test]
fn a_restriction_changes_no_state_and_puts_no_end_off() {
    let table = TokenTable::default();
    let digest = TokenDigest::from_bytes([1; 32]);
    table.restrict(&digest, |_| {});
    assert!(table.is_empty(), "what is gone does not come back");
    let rotating = TokenEntry { state: TokenState::Rotating, expires: Some(Timestamp(7)), ..entry([1; 32]) };
    table.upsert(rotating).unwrap();
    table.restrict(&digest, |token| {
        *token = TokenEntry { roles: vec!["less".into()], digest: TokenDigest::from_bytes([2; 32]), ..entry([1; 32]) };
    });
    let token = table.get(&digest).unwrap();
    assert_eq!((token.state, token.expires), (TokenState::Rotating, Some(Timestamp(7))));
    assert_eq!((token.entitlement.holdings().roles.len(), table.len()), (1, 1));
}

/// Each of them has looked at the token before the other one changed it.
#[test]
fn what_others_have_done_meanwhile_is_not_undone_by_a_restriction() {
    let table = TokenTable::default();
    let digest = TokenDigest::from_bytes([1; 32]);
    table.upsert(TokenEntry { roles: vec!["x".into(), "y".into()], ..entry([1; 32]) }).unwrap();
    let role = |name: &'static str| move |token: &mut TokenEntry| token.roles.retain(|role| &**role != name);
    table.restrict(&digest, role("x"));
    table.restrict(&digest, |token| token.restrictions.source_ip = vec!["10.0.0.0/8".parse().unwrap()]);
    let given = vec!["y".into(), "z".into()];
    table.upsert(TokenEntry { roles: given, expires: Some(Timestamp(9)), ..entry([1; 32]) }).unwrap();
    let calls = std::cell::Cell::new(0);
    table.restrict(&digest, |token| {
        role("y")(token);
        // Somebody comes between the look and the change.
        if calls.replace(calls.get() + 1) == 0 {
            let nearer =
                TokenEntry { roles: vec!["y".into(), "new".into()], expires: Some(Timestamp(8)), ..entry([1; 32]) };
            table.upsert(nearer).unwrap();
        }
    });
    let token = table.get(&digest).unwrap();
    assert_eq!((token.expires, calls.get()), (Some(Timestamp(8)), 2));
    assert_eq!(token.entitlement.holdings().roles, ["new".into()]);
}

#[test]
fn a_state_is_changed_in_place() {
    let table = TokenTable::default();
    table.upsert(entry([1; 32])).unwrap();
    let digest = TokenDigest::from_bytes([1; 32]);
    assert!(table.set_state(&digest, TokenState::Revoked));
    assert_eq!(table.get(&digest).unwrap().state, TokenState::Revoked);
    assert!(table.remove(&digest));
    assert!(table.is_empty());
}

#[test]
fn a_token_is_found_under_either_digest_and_moves_from_one_to_the_other() {
    let table = TokenTable::default();
    let (old, new) = (TokenDigest::from_bytes([1; 32]), TokenDigest::from_bytes([2; 32]));
    let digests = Digests { current: new, previous: Some(old) };
    assert!(table.find(&digests).is_none());
    table.upsert(entry([1; 32])).unwrap();
    assert!(table.set_state(&old, TokenState::Disabled));
    assert!(table.find(&digests).is_some_and(|(token, is_old)| is_old && token.state == TokenState::Disabled));
    assert!(table.find(&Digests::from(new)).is_none(), "without a previous key nothing is found under one");
    assert_eq!((table.mover().redigest(&old, &new), table.mover().redigest(&old, &new)), (Ok(true), Ok(false)));
    assert!(table.find(&digests).is_some_and(|(token, is_old)| !is_old && token.state == TokenState::Disabled));
    assert!(table.get(&old).is_none() && table.len() == 1);
}

#[test]
fn a_token_is_not_moved_to_a_place_that_another_has() {
    let table = TokenTable::default();
    let (old, mut taken) = (TokenDigest::from_bytes([1; 32]), [2; 32]);
    table.upsert(entry([1; 32])).unwrap();
    table.upsert(entry(taken)).unwrap();
    taken[31] = 0;
    let new = TokenDigest::from_bytes(taken);
    assert!(!table.has_room_for(&new) && table.has_room_for(&old));
    assert_eq!(table.mover().redigest(&old, &new), Err(DigestCollision));
    assert!(table.get(&old).is_some() && table.len() == 2);
}

/// However the two interleave, one of the look-ups meets the token: it is in its new place before it leaves the old.
#[test]
fn a_token_that_moves_is_never_unknown() {
    let table = TokenTable::default();
    let place = |number: u64| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        bytes
    };
    table.upsert(entry(place(0))).unwrap();
    let at = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..20_000 {
                let [from, to] = [number, number + 1].map(|number| TokenDigest::from_bytes(place(number)));
                at.store(number, std::sync::atomic::Ordering::SeqCst);
                assert_eq!(table.mover().redigest(&from, &to), Ok(true));
            }
            at.store(u64::MAX, std::sync::atomic::Ordering::SeqCst);
        });
        loop {
            let number = at.load(std::sync::atomic::Ordering::SeqCst);
            if number == u64::MAX {
                break;
            }
            let [previous, current] = [number, number + 1].map(|number| TokenDigest::from_bytes(place(number)));
            let found = table.find(&Digests { current, previous: Some(previous) });
            // The mover may have gone on to the next pair meanwhile.
            assert!(found.is_some() || at.load(std::sync::atomic::Ordering::SeqCst) != number, "{number}");
        }
    });
}

/// A revocation of many walks the table, and those in use are the ones that move: each is met, and met once.
#[test]
fn a_token_that_moves_is_in_every_walk_once() {
    let table = TokenTable::default();
    let place = |number: u64| {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        TokenDigest::from_bytes(bytes)
    };
    table.upsert(entry(*place(0).as_bytes())).unwrap();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..20_000 {
                assert_eq!(table.mover().redigest(&place(number), &place(number + 1)), Ok(true));
            }
            is_over.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
            let mut met = 0;
            table.for_each(|_, _| met += 1);
            assert_eq!(met, 1);
        }
    });
}

#[test]
fn tokens_that_share_their_limits_have_them_once() {
    let table = TokenTable::default();
    let limits = TokenLimits { rate: Some(1), burst: Some(3), concurrent: None };
    let [parent, child, free] = [1, 2, 3].map(|byte| TokenDigest::from_bytes([byte; 32]));
    for byte in [1, 2] {
        table.upsert(TokenEntry { limits, ..entry([byte; 32]) }).unwrap();
    }
    table.upsert(entry([3; 32])).unwrap();
    let take = |digest| {
        let terms = table.get(digest).unwrap().terms;
        terms.and_then(|terms| terms.take(std::time::Duration::from_secs(1))).map(|taken| taken.is_ok())
    };
    for with in [&child, &free] {
        table.share_limits(&parent, with);
    }
    assert_eq!([&parent, &child, &child, &parent].map(take), [Some(true), Some(true), Some(true), Some(false)]);
    assert_eq!(take(&free), None, "who has no limits gets none");
    // An edit of the one does not part it from the other.
    table.upsert(TokenEntry { limits, roles: vec!["less".into()], ..entry([2; 32]) }).unwrap();
    assert_eq!(take(&child), Some(false));
    table.share_limits(&free, &child);
    table.share_limits(&TokenDigest::from_bytes([9; 32]), &child);
    assert_eq!(take(&child), Some(false));
}

/// A token in its grace and its successor: whoever of them had longer intervals would use up what the other has.
#[test]
fn one_rate_governs_all_that_share_it() {
    let limits = |rate| TokenLimits { rate: Some(rate), burst: Some(1), concurrent: None };
    let [old, new] = [1, 2].map(|byte| TokenDigest::from_bytes([byte; 32]));
    // As it comes about: the successor begins with the same, and is edited then. And as it is found after a start.
    for (begun, governs) in [(1, 1000), (1000, 1)] {
        for is_started in [false, true] {
            let table = TokenTable::default();
            let rotating = TokenEntry { state: TokenState::Rotating, limits: limits(begun), ..entry([1; 32]) };
            table.upsert(rotating.clone()).unwrap();
            let first = if is_started { governs } else { begun };
            table.upsert(TokenEntry { limits: limits(first), ..entry([2; 32]) }).unwrap();
            table.share_limits(&old, &new);
            table.upsert(TokenEntry { limits: limits(governs), ..entry([2; 32]) }).unwrap();
            // What is put in again as it was governs nothing: an enable, a grace that ends earlier.
            table.upsert(TokenEntry { expires: Some(Timestamp(9)), ..rotating }).unwrap();
            let wait = |digest| {
                let terms = table.get(digest).unwrap().terms.unwrap();
                terms.take(std::time::Duration::from_secs(1)).unwrap().map(drop).map_err(|over| over.wait().as_millis())
            };
            let told = (begun, governs, is_started);
            assert_eq!(
                [wait(&old), wait(&new), wait(&old)],
                [Ok(()), Err(1000 / u128::from(governs)), Err(1000 / u128::from(governs))],
                "{told:?}"
            );
        }
    }
}
