//! Whether a token may be issued: `token_rules`, and the least `max_ttl` of anything it confers (§5, §7).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::compile::least_life;
use crate::snapshot::{PolicySnapshot, Role, Scope};
use crate::spec::TokenRules;
use crate::time::Timestamp;

/// A token somebody wants, or wants changed.
#[derive(Clone, Copy, Debug)]
pub struct IssueRequest<'a> {
    /// Who answers for it.
    pub owner: Option<&'a str>,
    /// Roles, by name.
    pub roles: &'a [&'a str],
    /// Scopes, by name, each until the moment it ends.
    pub grants: &'a [(&'a str, Option<Timestamp>)],
    /// When its life begins.
    pub from: Timestamp,
    /// When its life ends.
    pub expires: Option<Timestamp>,
}

/// Why a token may not be issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant means")]
pub enum IssueRefusal {
    #[error("there is no role `{name}`")]
    UnknownRole { name: String, known: Vec<String> },
    #[error("there is no scope `{name}`")]
    UnknownScope { name: String, known: Vec<String> },
    #[error("token_rules require an expiry")]
    ExpiryRequired,
    #[error("token_rules require an owner")]
    OwnerRequired,
    #[error("it would live longer than the {} that {by} allows", life(*.max))]
    TooLong { max: Duration, by: String },
    #[error("its end lies before its beginning")]
    EndsBeforeItBegins,
}

impl PolicySnapshot {
    /// Whether a token like this may be issued.
    ///
    /// # Errors
    /// The first rule it breaks.
    pub fn check_issue(&self, request: &IssueRequest<'_>) -> Result<(), IssueRefusal> {
        check(request, &self.token_rules, &self.scopes, &self.scope_by_name, &self.roles)
    }

    /// Every rule that a token like this would break, so that all of them can be mended at once.
    #[must_use]
    pub fn refusals(&self, request: &IssueRequest<'_>) -> Vec<IssueRefusal> {
        refusals(request, &self.token_rules, &self.scopes, &self.scope_by_name, &self.roles)
    }

    /// The least `max_ttl` of everything the roles and scopes confer and of `token_rules`, with the name it comes from.
    ///
    /// # Errors
    /// A role or scope the policy lacks.
    pub fn longest_life(&self, roles: &[&str], scopes: &[&str]) -> Result<Option<(Duration, Arc<str>)>, IssueRefusal> {
        let mut life = self.token_rules.max_ttl.map(|ttl| (ttl, Arc::from("token_rules")));
        for name in roles {
            least_life(&mut life, role(name, &self.roles)?.max_ttl.clone());
        }
        for name in scopes {
            let scope = scope(name, &self.scopes, &self.scope_by_name)?;
            least_life(&mut life, scope.max_ttl.map(|ttl| (ttl, Arc::clone(&scope.name))));
        }
        Ok(life)
    }
}

pub(crate) fn check(
    request: &IssueRequest<'_>,
    rules: &TokenRules,
    scopes: &[Scope],
    scope_by_name: &HashMap<Arc<str>, usize>,
    roles: &HashMap<Arc<str>, Role>,
) -> Result<(), IssueRefusal> {
    refusals(request, rules, scopes, scope_by_name, roles).into_iter().next().map_or(Ok(()), Err)
}

fn refusals(
    request: &IssueRequest<'_>,
    rules: &TokenRules,
    scopes: &[Scope],
    scope_by_name: &HashMap<Arc<str>, usize>,
    roles: &HashMap<Arc<str>, Role>,
) -> Vec<IssueRefusal> {
    let mut refusals = Vec::new();
    if rules.require_owner && request.owner.is_none_or(str::is_empty) {
        refusals.push(IssueRefusal::OwnerRequired);
    }
    if rules.require_expiry && request.expires.is_none() {
        refusals.push(IssueRefusal::ExpiryRequired);
    }
    if request.expires.is_some_and(|end| end < request.from) {
        refusals.push(IssueRefusal::EndsBeforeItBegins);
    }
    refusals.extend(within(request.from, request.expires, rules.max_ttl, "token_rules").err());
    for name in request.roles {
        refusals.extend(role(name, roles).and_then(|role| role_within(request, role)).err());
    }
    for grant in request.grants {
        refusals.extend(
            scope(grant.0, scopes, scope_by_name).and_then(|scope| grant_within(request, grant.1, scope)).err(),
        );
    }
    keep_the_strictest(&mut refusals);
    refusals
}

/// Of several lives that are too short the least is the one to obey; without an end at all that is what is missing.
fn keep_the_strictest(refusals: &mut Vec<IssueRefusal>) {
    let has_no_end = refusals.contains(&IssueRefusal::ExpiryRequired);
    let least = |refusal: &IssueRefusal| match refusal {
        IssueRefusal::TooLong { max, .. } => Some(*max),
        _ => None,
    };
    let strictest = refusals.iter().filter_map(least).min();
    let mut is_kept = has_no_end;
    refusals.retain(|refusal| match least(refusal) {
        None => true,
        life => life == strictest && !std::mem::replace(&mut is_kept, true),
    });
}

fn role_within(request: &IssueRequest<'_>, role: &Role) -> Result<(), IssueRefusal> {
    let Some((max, by)) = &role.max_ttl else { return Ok(()) };
    within(request.from, request.expires, Some(*max), &format!("`{by}`"))
}

fn grant_within(request: &IssueRequest<'_>, end: Option<Timestamp>, scope: &Scope) -> Result<(), IssueRefusal> {
    let end = match (end, request.expires) {
        (Some(grant), Some(token)) => Some(grant.min(token)),
        (end, None) => end,
        (None, end) => end,
    };
    within(request.from, end, scope.max_ttl, &format!("`{}`", scope.name))
}

/// A life in the largest unit that it is a whole number of.
fn life(life: Duration) -> String {
    let seconds = life.as_secs();
    let unit = [(86_400, "d"), (3_600, "h"), (60, "m")].into_iter().find(|(size, _)| seconds.is_multiple_of(*size));
    let (size, name) = unit.unwrap_or((1, "s"));
    format!("{}{name}", seconds / size)
}

fn within(from: Timestamp, end: Option<Timestamp>, max: Option<Duration>, by: &str) -> Result<(), IssueRefusal> {
    match max {
        Some(max) if end.is_none_or(|end| end > from.plus(max.as_secs())) => {
            Err(IssueRefusal::TooLong { max, by: by.to_owned() })
        }
        _ => Ok(()),
    }
}

fn role<'a>(name: &str, roles: &'a HashMap<Arc<str>, Role>) -> Result<&'a Role, IssueRefusal> {
    roles.get(name).ok_or_else(|| {
        let mut known: Vec<String> = roles.keys().map(ToString::to_string).collect();
        known.sort_unstable();
        IssueRefusal::UnknownRole { name: name.to_owned(), known }
    })
}

fn scope<'a>(name: &str, scopes: &'a [Scope], by_name: &HashMap<Arc<str>, usize>) -> Result<&'a Scope, IssueRefusal> {
    by_name.get(name).and_then(|index| scopes.get(*index)).ok_or_else(|| IssueRefusal::UnknownScope {
        name: name.to_owned(),
        known: scopes.iter().map(|scope| scope.name.to_string()).collect(),
    })
}
