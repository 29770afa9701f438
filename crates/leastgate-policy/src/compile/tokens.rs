//! Declared tokens: held to the same rules as issued ones, measured from `created` (§1).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::rules::parse_network;
use super::{CompileContext, Errors, SpecError, SpecErrorKind};
use crate::issue::{self, IssueRequest};
use crate::snapshot::{Role, Scope};
use crate::spec::{DeclaredToken, Located, PolicySpec};
use crate::token::{Restrictions, TokenDigest, TokenEntry, TokenLimits};

/// The tokens of this gateway's environment; all of them are checked.
pub(super) fn compile(
    spec: &PolicySpec,
    context: &CompileContext<'_>,
    scopes: &[Scope],
    scope_by_name: &HashMap<Arc<str>, usize>,
    roles: &HashMap<Arc<str>, Role>,
) -> (Vec<TokenEntry>, Vec<SpecError>) {
    let mut errors = Errors::default();
    let mut entries = Vec::with_capacity(spec.tokens.len());
    let (mut accessors, mut names, mut digests) = (HashSet::new(), HashSet::new(), HashSet::new());
    for token in &spec.tokens {
        let unique = [
            ("accessor", &token.accessor, accessors.insert(token.accessor.value.as_str())),
            ("token", &token.name, names.insert((token.env.value.as_str(), token.name.value.as_str()))),
            ("digest", &token.digest, digests.insert(token.digest.value.as_str())),
        ];
        for (kind, name, is_new) in unique {
            if !is_new {
                errors.push(name.origin, SpecErrorKind::Duplicate { kind, name: name.value.clone() });
            }
        }
        check_issue(token, spec, scopes, scope_by_name, roles, &mut errors);
        if let Some(entry) = entry(token, &mut errors)
            && token.env.value == context.environment
        {
            entries.push(entry);
        }
    }
    (entries, errors.0)
}

fn check_issue(
    token: &DeclaredToken,
    spec: &PolicySpec,
    scopes: &[Scope],
    scope_by_name: &HashMap<Arc<str>, usize>,
    roles: &HashMap<Arc<str>, Role>,
    errors: &mut Errors,
) {
    let role_names: Vec<&str> = token.roles.iter().map(|role| role.value.as_str()).collect();
    let grants: Vec<_> = token.grants.iter().map(|grant| (grant.value.scope.as_str(), grant.value.expires)).collect();
    let request = IssueRequest {
        owner: token.owner.as_deref(),
        roles: &role_names,
        grants: &grants,
        from: token.created.value,
        expires: token.expires.map(|expires| expires.value),
    };
    if let Err(refusal) = issue::check(&request, &spec.token_rules, scopes, scope_by_name, roles) {
        errors.push(token.name.origin, SpecErrorKind::Issue { token: token.name.value.clone(), refusal });
    }
}

fn entry(token: &DeclaredToken, errors: &mut Errors) -> Option<TokenEntry> {
    let accessor = token.accessor.value.parse().map_err(|_| SpecErrorKind::Accessor(token.accessor.value.clone()));
    let digest = TokenDigest::parse(&token.digest.value).map_err(|_| SpecErrorKind::Digest);
    let name = is_token_name(&token.name.value)
        .then_some(())
        .ok_or_else(|| SpecErrorKind::TokenName(token.name.value.clone()));
    let limits = checked_limits(token, errors);
    let mut checked = |place: &Located<String>, kind| errors.push(place.origin, kind);
    let accessor = accessor.map_err(|kind| checked(&token.accessor, kind)).ok();
    let digest = digest.map_err(|kind| checked(&token.digest, kind)).ok();
    let name = name.map_err(|kind| checked(&token.name, kind)).ok();
    let mut source_ip = Vec::new();
    for net in &token.restrictions.source_ip {
        match parse_network(&net.value) {
            Ok(net) => source_ip.push(net),
            Err(kind) => checked(net, kind),
        }
    }
    name?;
    Some(TokenEntry {
        digest: digest?,
        accessor: accessor?,
        name: token.name.value.as_str().into(),
        owner: token.owner.as_deref().map(Into::into),
        roles: token.roles.iter().map(|role| role.value.as_str().into()).collect(),
        grants: token.grants.iter().map(|grant| (grant.value.scope.as_str().into(), grant.value.expires)).collect(),
        restrictions: Restrictions { source_ip, not_before: token.restrictions.not_before },
        limits: limits?,
        expires: token.expires.map(|expires| expires.value),
        state: token.state,
        is_canary: false,
        parent: None,
    })
}

fn checked_limits(token: &DeclaredToken, errors: &mut Errors) -> Option<TokenLimits> {
    let Located { value: limits, origin } = token.limits;
    let error = match limits.check() {
        Ok(()) => return Some(limits),
        Err(error) => error,
    };
    errors.push(origin, SpecErrorKind::Limits { token: token.name.value.clone(), error });
    None
}

/// Whether a text may name a token: `[a-z0-9-]{1,63}`.
#[must_use]
pub fn is_token_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
