//! From a [`PolicySpec`] to a [`PolicySnapshot`], or to every error in it.
//!
//! Everything §1–§5 forbid in a policy is found here, and nowhere else: a policy that compiles has one meaning.

mod apis;
mod error;
mod names;
mod roles;
mod rules;
mod tokens;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use http::HeaderName;
use ipnet::IpNet;

pub use error::{SpecError, SpecErrorKind};
pub(crate) use roles::least as least_life;
pub use tokens::is_token_name;

use crate::snapshot::{self, PolicySnapshot, Rule, Scope};
use crate::spec::{Origin, PolicySpec};
use crate::time::Timestamp;

/// What the gateway's own file and the moment of loading add to a policy.
#[derive(Clone, Debug)]
pub struct CompileContext<'a> {
    /// The one environment this gateway serves.
    pub environment: &'a str,
    /// Content hash of the policy's files.
    pub revision: &'a str,
    /// The moment of loading: a shadow's end may lie at most 30 days ahead.
    pub now: Timestamp,
    /// The header that carries the credential.
    pub credential_header: HeaderName,
    /// Peers whose forwarding headers count.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether callers may ask about their own tokens, at [`crate::OWN_TOKEN_PATH`].
    pub well_known: bool,
    /// The upstreams that the gateway's file defines; `None`: not known, any name will do.
    pub upstreams: Option<&'a [UpstreamFacts<'a>]>,
}

/// What a policy needs to know of an upstream.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamFacts<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether requests to it may have field names with `_`.
    pub allow_underscores: bool,
}

/// Errors found so far; a policy compiles only if there are none at the end.
#[derive(Debug, Default)]
struct Errors(Vec<SpecError>);

impl Errors {
    fn push(&mut self, origin: Origin, kind: SpecErrorKind) {
        self.0.push(SpecError { origin, kind });
    }
}

impl PolicySnapshot {
    /// Compiles a policy.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn compile(spec: &PolicySpec, context: &CompileContext<'_>) -> Result<Self, Vec<SpecError>> {
        let mut errors = Errors::default();
        names::check(spec, context, &mut errors);
        let mut apis = apis::compile(spec, context, &mut errors);
        let (scopes, scope_by_name) = scopes(spec);
        let roles = roles::compile(spec, context.environment, &scopes, &scope_by_name, &mut errors);
        let mut rules = rules::compile(spec, context, &apis, &scope_by_name, &mut errors);
        let (declared_tokens, issue_errors) = tokens::compile(spec, context, &scopes, &scope_by_name, &roles);
        errors.0.extend(issue_errors);
        if !errors.0.is_empty() {
            return Err(errors.0);
        }
        let routes = routes(&mut rules);
        rules::index(&rules, &mut apis);
        Ok(Self {
            serial: snapshot::next_serial(),
            revision: context.revision.into(),
            environment: context.environment.into(),
            credential_header: context.credential_header.clone(),
            judges_hosts: apis.iter().any(|api| !api.hosts.is_empty()),
            trusted_proxies: context.trusted_proxies.clone(),
            well_known: context.well_known,
            condition_headers: condition_headers(&rules),
            token_rules: spec.token_rules,
            rules: rules.into_iter().map(|placed| placed.rule).collect(),
            apis,
            scopes,
            scope_by_name,
            roles,
            routes,
            declared_tokens,
            tokens: Arc::default(),
        })
    }
}

fn scopes(spec: &PolicySpec) -> (Vec<Scope>, HashMap<Arc<str>, usize>) {
    let mut scopes: Vec<Scope> = spec
        .scopes
        .iter()
        .map(|scope| Scope {
            name: scope.name.value.as_str().into(),
            max_ttl: scope.max_ttl,
            sensitivity: scope.sensitivity,
        })
        .collect();
    scopes.sort_by(|a, b| a.name.cmp(&b.name));
    let by_name = scopes.iter().enumerate().map(|(index, scope)| (Arc::clone(&scope.name), index)).collect();
    (scopes, by_name)
}

fn routes(rules: &mut [rules::Placed]) -> Vec<Arc<str>> {
    let distinct: BTreeSet<Arc<str>> = rules.iter().map(|placed| Arc::clone(&placed.rule.template)).collect();
    let routes: Vec<Arc<str>> = distinct.into_iter().collect();
    for placed in rules {
        let rule: &mut Rule = &mut placed.rule;
        rule.route = routes.binary_search(&rule.template).unwrap_or_default();
    }
    routes
}

fn condition_headers(rules: &[rules::Placed]) -> Vec<HeaderName> {
    let conditions = rules.iter().filter_map(|placed| placed.rule.conditions.as_ref());
    let mut names: Vec<HeaderName> =
        conditions.flat_map(|conditions| conditions.headers.iter().map(|(name, _)| name.clone())).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

#[cfg(test)]
mod tests;
