//! Everything that is written is read back, in this run and the next, from disk and from memory.

use leastgate_policy::{Accessor, Restrictions, Timestamp, TokenDigest, TokenLimits, TokenState};
use leastgate_store::{Change, LastUse, StateChange, TokenGrant, TokenName, TokenRecord, TokenStore};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use crate::fixture::{ENV, Home, loaded, memory, named, options, record};

fn time() -> impl Strategy<Value = Timestamp> {
    (0..=u64::MAX / 2).prop_map(Timestamp)
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..12).prop_map(String::from_iter)
}

fn accessor() -> impl Strategy<Value = Accessor> {
    any::<u64>().prop_map(Accessor::from_random)
}

fn grant() -> impl Strategy<Value = TokenGrant> {
    (text(), of(any::<u64>().prop_map(Timestamp)), of(text())).prop_map(|(scope, expires, reason)| TokenGrant {
        scope,
        expires,
        reason,
    })
}

fn restrictions() -> impl Strategy<Value = Restrictions> {
    let network = prop_oneof![Just("10.0.0.0/8"), Just("192.0.2.7/32"), Just("2001:db8::/32"), Just("::/0")];
    (vec(network.prop_map(|text| text.parse().unwrap()), 0..3), of(time()))
        .prop_map(|(source_ip, not_before)| Restrictions { source_ip, not_before })
}

fn limits() -> impl Strategy<Value = TokenLimits> {
    any::<(Option<u32>, Option<u32>, Option<u32>)>().prop_map(|(rate, burst, concurrent)| TokenLimits {
        rate,
        burst,
        concurrent,
    })
}

fn state_change() -> impl Strategy<Value = StateChange> {
    let change = prop_oneof![Just(Change::Revoke), Just(Change::Disable), Just(Change::Enable)];
    (change, text(), text(), time()).prop_map(|(change, reason, by, at)| StateChange { change, reason, by, at })
}

fn last_use() -> impl Strategy<Value = LastUse> {
    (time(), of(any::<std::net::IpAddr>())).prop_map(|(at, source)| LastUse { at, source })
}

fn state() -> impl Strategy<Value = TokenState> {
    use TokenState::{Active, Disabled, Revoked, Rotating};
    prop_oneof![Just(Active), Just(Rotating), Just(Disabled), Just(Revoked)]
}

prop_compose! {
    fn token()(
        (accessor, digest, name, owner) in (accessor(), any::<[u8; 32]>(), "[a-z0-9-]{1,63}", of(text())),
        (roles, grants, restrictions, limits) in (vec(text(), 0..4), vec(grant(), 0..4), restrictions(), limits()),
        (created, created_by, expires, state) in (time(), text(), of(time()), state()),
        (state_changed, pepper_id, successor, note) in (of(state_change()), text(), of(accessor()), of(text())),
        (parent, is_canary, last_use) in (of(accessor()), any::<bool>(), of(last_use())),
    ) -> TokenRecord {
        TokenRecord {
            accessor, digest: TokenDigest::from_bytes(digest), name: TokenName::parse(&name).unwrap(), env: ENV.into(),
            owner, roles, grants, restrictions, limits, created, created_by, expires, state, state_changed, pepper_id,
            successor, parent, is_canary, note, last_use, version: 1,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_field_comes_back(token in token()) {
        let store = memory();
        prop_assert_eq!(&store.create_token(token.clone()).unwrap(), &token);
        prop_assert_eq!(&store.token(token.accessor).unwrap(), &token);
        prop_assert_eq!(loaded(&store), vec![token.entry()]);
    }
}

#[test]
fn a_restart_keeps_everything_that_was_acknowledged() {
    let home = Home::new();
    let first = record(named("first"));
    {
        let store = home.try_open(options()).unwrap();
        store.create_token(first.clone()).unwrap();
        store.create_token(record(named("second"))).unwrap();
    }
    let store = home.open();
    assert_eq!(store.count_tokens().unwrap(), 2);
    assert_eq!(store.find_token("first").unwrap(), first);
}

#[test]
fn an_acknowledged_change_is_in_the_file_before_anything_is_closed() {
    let home = Home::new();
    let store = home.open();
    store.create_token(record(named("kept"))).unwrap();
    // What a crash would leave behind: the file and its log, copied from under the running store.
    let copy = Home::new();
    home.copy_to(&copy);
    assert_eq!(copy.open().find_token("kept").unwrap().name.as_str(), "kept");
}

#[test]
fn stores_in_memory_share_nothing() {
    let (one, other) = (memory(), memory());
    one.create_token(record(named("here"))).unwrap();
    assert_eq!((one.count_tokens().unwrap(), other.count_tokens().unwrap()), (1, 0));
}
