//! Administrators: listed, made and revoked.

use std::time::Duration;

use leastgate_policy::Accessor;
use leastgate_store::{AdminRecord, MayGrant, NameSet, NewAdmin, StoreError, TokenName, issue_admin};
use serde_json::json;

use super::issue::with_secret;
use super::{check_text, detail, no_query, view};
use crate::api::{AdminList, AdminRevoked, CreateAdmin, ReasonRequest};
use crate::asking::{HASTE, PATIENCE};
use crate::call::{Call, Change, Reply, from_json};
use crate::ceiling;
use crate::problem::{Kind, Problem};
use crate::unsynced::Owed;

pub(crate) fn list(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    let admins = call.shared.given.store.list_admins()?;
    let revoked = call.shared.revoked_admins();
    let show = |admin| {
        let admin: &AdminRecord = admin;
        view::admin(admin, admin.revoked.or(revoked.contains(&admin.id).then_some(call.now)), call.shared)
    };
    Reply::json(&AdminList { items: admins.iter().map(show).collect() })
}

pub(crate) fn create(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    let CreateAdmin { name, role, may_grant, reason } = from_json(call.body)?;
    reason.as_deref().map_or(Ok(()), |reason| check_text("reason", reason))?;
    check_names(&may_grant)?;
    ceiling::check_within(&call.caller.may_grant, &may_grant)?;
    let admin = NewAdmin {
        name: TokenName::parse(&name).map_err(|error| Problem::new(Kind::Invalid, error.to_string()))?,
        role: role.parse().map_err(|error: leastgate_store::admin::UnknownAdminRole| {
            Problem::new(Kind::Invalid, error.to_string())
        })?,
        may_grant,
        created: call.now,
        created_by: call.caller.subject.clone(),
    };
    let given = &call.shared.given;
    let _held = call.lock_gift()?;
    let issued = issue_admin(&*given.store, &given.environment, given.authority.key(), &admin)
        .inspect_err(|error| take_back(call, error))?;
    let id = issued.record.id.to_string();
    let details = told(&issued.record);
    Ok(Reply {
        created_at: Some(format!("/v1/admins/{id}")),
        body: with_secret(
            &json!({"admin": view::admin(&issued.record, None, call.shared)}),
            Some(issued.secret.expose()),
        )?,
        change: Change { target: Some(id), durable: Some(true), details, reason },
        tag: None,
    })
}

/// Who was refused while the store wrote it is revoked, as far as it is there.
fn take_back(call: &Call<'_>, error: &StoreError) {
    let StoreError::InDoubt { made, .. } = error else { return };
    for id in made {
        call.shared.revoked_admins().insert(*id);
        call.shared.unsynced.add(*id, Owed::Admin(call.now), &call.shared.given.telemetry);
    }
}

/// They are kept and shown as they were written.
fn check_names(may_grant: &MayGrant) -> Result<(), Problem> {
    let sets = [&may_grant.environments, &may_grant.roles, &may_grant.scopes];
    let names = sets.into_iter().filter_map(|set| match set {
        NameSet::Any => None,
        NameSet::Only(names) => Some(names),
    });
    names.flatten().try_for_each(|name| check_text("may_grant", name))
}

/// In memory first: each call asks the store who the caller is, and a store that can't be written still answers.
pub(crate) fn revoke(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    let ReasonRequest { reason } = from_json(call.body)?;
    check_text("reason", &reason)?;
    let id = find(call)?;
    let given = &call.shared.given;
    let is_new = call.shared.revoked_admins().insert(id);
    // Whoever has the turn may have been asked before: what this administrator gives is given when this is answered. And no
    // more wait for the store than leave threads for others.
    let held = call.shared.lock_changes();
    // Who it was is told where the store can be read; that nobody was meant it says below.
    let before = listed(call, HASTE).ok().and_then(|admins| admins.into_iter().find(|admin| admin.id == id));
    let kept = match &held {
        Some(_held) => given.store.revoke_admin(id, call.now),
        None => Err(StoreError::Overloaded),
    };
    drop(held);
    let durable = match kept {
        Ok(_) => true,
        Err(error @ StoreError::NotFound { .. }) => {
            call.shared.revoked_admins().remove(&id);
            return Err(error.into());
        }
        Err(error) => {
            tracing::warn!(%id, %error, "an administrator is revoked, and not in the store yet");
            call.shared.unsynced.add(id, Owed::Admin(call.now), &given.telemetry);
            false
        }
    };
    let was_living = is_new && before.as_ref().is_none_or(|admin| admin.revoked.is_none());
    let states = [("state.before", if was_living { "active" } else { "revoked" }), ("state.after", "revoked")];
    let mut details = before.as_ref().map(told).unwrap_or_default();
    details.extend(states.map(|(name, state)| detail(name, state)));
    let change = Change { target: Some(id.to_string()), reason: Some(reason), durable: Some(durable), details };
    Ok(Reply { change, ..Reply::json(&AdminRevoked { id: id.to_string(), durable })? })
}

/// What events say of an administrator.
fn told(admin: &AdminRecord) -> Vec<(String, String)> {
    vec![
        detail("name", admin.name.as_str()),
        detail("role", admin.role.to_string()),
        detail("may_grant", serde_json::to_string(&admin.may_grant).unwrap_or_default()),
    ]
}

fn listed(call: &Call<'_>, patience: Duration) -> Result<Vec<AdminRecord>, StoreError> {
    call.shared.asking.ask(|store| store.list_admins()).wait(patience)
}

/// By id, or by the name of one that isn't revoked.
fn find(call: &Call<'_>) -> Result<Accessor, Problem> {
    let wanted = call.target();
    let is_id = wanted.bytes().any(|byte| byte.is_ascii_uppercase());
    if let Some(id) = wanted.parse().ok().filter(|_| is_id) {
        // Where the store can't be read, it is taken at its word.
        let is_missing = listed(call, HASTE).is_ok_and(|admins| !admins.iter().any(|admin| admin.id == id));
        let missing = || StoreError::NotFound { kind: "admin", wanted: wanted.to_owned() };
        return if is_missing { Err(missing().into()) } else { Ok(id) };
    }
    let admins = listed(call, PATIENCE)?;
    let found = admins.iter().find(|admin| admin.name.as_str() == wanted && admin.revoked.is_none());
    found.map(|admin| admin.id).ok_or_else(|| StoreError::NotFound { kind: "admin", wanted: wanted.to_owned() }.into())
}
