//! A rotation that others overtake.

use std::sync::Arc;

use http::{HeaderMap, Uri};
use leastgate_policy::{Authority, EnvironmentKey, Pepper, Restrictions, TokenLimits};
use leastgate_store::{AdminRole, MayGrant, SqliteStore, TokenName, TokenStore, issue_token};
use leastgate_telemetry::{SystemClock, Telemetry, TelemetryConfig};

use super::*;
use crate::call::{Caller, Identity};
use crate::state::{AdminState, Hooks, Shared, Tokens};

fn shared(key: &EnvironmentKey) -> Shared {
    let given = AdminState {
        store: Arc::new(SqliteStore::in_memory("test", key).unwrap()),
        authority: Arc::new(Authority::new(key.clone())),
        telemetry: Telemetry::start(TelemetryConfig::default(), Arc::new(SystemClock::new())).unwrap(),
        environment: "test".to_owned(),
        version: String::new(),
        tokens: Tokens::Store,
        probes: vec![],
        hooks: Hooks::default(),
    };
    Shared::new(given, vec![])
}

fn token(name: &str, parent: Option<Accessor>) -> NewToken {
    NewToken {
        name: TokenName::parse(name).unwrap(),
        owner: None,
        roles: vec![],
        grants: vec![],
        restrictions: Restrictions::default(),
        limits: TokenLimits::default(),
        created: Timestamp(1),
        created_by: "root".to_owned(),
        expires: None,
        parent,
        is_canary: false,
        note: None,
    }
}

fn policy() -> leastgate_policy::PolicySnapshot {
    let spec = leastgate_policy::PolicySpec {
        environments: vec!["test".to_owned().into()],
        ..leastgate_policy::PolicySpec::default()
    };
    let context = leastgate_policy::CompileContext {
        environment: "test",
        revision: "1",
        now: Timestamp(1),
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: vec![],
        well_known: false,
        upstreams: None,
    };
    leastgate_policy::PolicySnapshot::compile(&spec, &context).unwrap()
}

/// The token is out of force by the rotation itself, so the revocation does not find it; and the successor comes after its look.
#[test]
fn a_leaked_one_has_no_successor_behind_the_back_of_a_revocation_of_many() {
    let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "test");
    let shared = shared(&key);
    shared.given.authority.replace(policy());
    let store: &dyn TokenStore = &*shared.given.store;
    let old = issue_token(store, "test", &key, &token("bot", None)).unwrap().record;
    shared.put_in_force(&old).unwrap();
    let caller = Caller {
        subject: "root".to_owned(),
        identity: Identity::Admin(Accessor::from_random(1)),
        role: AdminRole::Admin,
        may_grant: MayGrant::everything(),
    };
    let (uri, headers) = (Uri::from_static("/v1/tokens/bot/rotate"), HeaderMap::new());
    let now = shared.now();
    let call = Call { shared: &shared, caller: &caller, uri: &uri, headers: &headers, body: b"", peer: None, now };
    let asked: RotateToken = serde_json::from_value(json!({"now": true, "reason": "leaked"})).unwrap();
    let held = shared.lock_changes();
    let refused = std::thread::scope(|scope| {
        let rotating = scope.spawn(|| rotate_leaked(&call, &asked).map(drop));
        while shared.given.authority.token(&old.digest).unwrap().state != TokenState::Revoked {
            std::thread::yield_now();
        }
        shared.sweeps.look(&shared.sweeps.begin());
        drop(held);
        rotating.join().unwrap().unwrap_err()
    });
    assert_eq!(refused.kind, Kind::Conflict, "{refused:?}");
    let successor = store.token(store.token(old.accessor).unwrap().successor.unwrap()).unwrap();
    assert_eq!(successor.state, TokenState::Revoked);
    assert_eq!(shared.given.authority.token(&successor.digest).unwrap().state, TokenState::Revoked);
    assert_eq!(store.token(old.accessor).unwrap().state, TokenState::Revoked);

    let old = issue_token(store, "test", &key, &token("bot", None)).unwrap().record;
    shared.put_in_force(&old).unwrap();
    assert!(rotate_leaked(&call, &asked).is_ok(), "one that looked before is in nobody's way");
}

#[test]
fn a_successor_that_was_overtaken_ends_with_all_that_stands_in_for_it() {
    let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "test");
    let shared = shared(&key);
    let store: &dyn TokenStore = &*shared.given.store;
    let made = issue_token(store, "test", &key, &token("bot", None)).unwrap();
    let child = issue_token(store, "test", &key, &token("bot-run-1", Some(made.record.accessor))).unwrap().record;
    for record in [&made.record, &child] {
        shared.put_in_force(record).unwrap();
    }
    let caller = Caller {
        subject: "root".to_owned(),
        identity: Identity::Admin(Accessor::from_random(1)),
        role: AdminRole::Admin,
        may_grant: MayGrant::everything(),
    };
    let (uri, headers) = (Uri::from_static("/v1/tokens/bot/rotate"), HeaderMap::new());
    let now = shared.now();
    let call = Call { shared: &shared, caller: &caller, uri: &uri, headers: &headers, body: b"", peer: None, now };
    let (accessor, old) = (made.record.accessor, made.record.clone());
    let refused = check_not_overtaken(&call, (made, old.clone(), old), true).unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict);
    for accessor in [accessor, child.accessor] {
        let kept = store.token(accessor).unwrap();
        let in_force = shared.given.authority.token(&kept.digest).unwrap().state;
        assert_eq!((kept.state, in_force), (TokenState::Revoked, TokenState::Revoked));
    }
}
