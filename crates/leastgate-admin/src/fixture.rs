//! What the tests of this crate's own code work with: a store and a table in memory, and somebody who calls.

use std::sync::Arc;

use http::{HeaderMap, Uri};
use leastgate_policy::spec::PolicySpec;
use leastgate_policy::{
    Accessor, Authority, CompileContext, EnvironmentKey, Pepper, PolicySnapshot, Restrictions, Timestamp, TokenLimits,
};
use leastgate_store::{AdminRole, MayGrant, NewToken, SqliteStore, TokenName, TokenRecord, issue_token};
use leastgate_telemetry::{SystemClock, Telemetry, TelemetryConfig};

use crate::call::{Call, Caller, Identity};
use crate::state::{AdminState, Hooks, Shared, Tokens};

pub(crate) fn key() -> EnvironmentKey {
    EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "test")
}

/// Without a policy.
pub(crate) fn shared() -> Shared {
    let given = AdminState {
        store: Arc::new(SqliteStore::in_memory("test", &key()).unwrap()),
        authority: Arc::new(Authority::new(key())),
        telemetry: Telemetry::start(TelemetryConfig::default(), Arc::new(SystemClock::new())).unwrap(),
        environment: "test".to_owned(),
        version: String::new(),
        tokens: Tokens::Store,
        probes: vec![],
        hooks: Hooks::default(),
    };
    Shared::new(given, vec![])
}

/// A policy that asks nothing and defines nothing.
pub(crate) fn policy() -> PolicySnapshot {
    let spec = PolicySpec { environments: vec!["test".to_owned().into()], ..PolicySpec::default() };
    let context = CompileContext {
        environment: "test",
        revision: "1",
        now: Timestamp(1),
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: vec![],
        well_known: false,
        upstreams: None,
    };
    PolicySnapshot::compile(&spec, &context).unwrap()
}

pub(crate) fn root(id: Accessor) -> Caller {
    Caller {
        subject: "root".to_owned(),
        identity: Identity::Admin(id),
        role: AdminRole::Admin,
        may_grant: MayGrant::everything(),
    }
}

/// Has `work` call, with nothing in its body.
pub(crate) fn calling<T>(shared: &Shared, path: &'static str, work: impl FnOnce(&Call<'_>) -> T) -> T {
    let (uri, headers, caller) = (Uri::from_static(path), HeaderMap::new(), root(Accessor::from_random(1)));
    work(&Call { shared, caller: &caller, uri: &uri, headers: &headers, body: b"", peer: None, now: shared.now() })
}

pub(crate) fn token(name: &str, owner: &str, parent: Option<Accessor>) -> NewToken {
    NewToken {
        name: TokenName::parse(name).unwrap(),
        owner: Some(owner.to_owned()),
        roles: vec![],
        grants: vec![],
        restrictions: Restrictions::default(),
        limits: TokenLimits::default(),
        created: Timestamp(7),
        created_by: "root".to_owned(),
        expires: None,
        parent,
        is_canary: false,
        note: None,
    }
}

/// Kept and in force.
pub(crate) fn made(shared: &Shared, token: &NewToken) -> TokenRecord {
    let record = issue_token(&*shared.given.store, "test", &key(), token).unwrap().record;
    shared.put_in_force(&record).unwrap();
    record
}
