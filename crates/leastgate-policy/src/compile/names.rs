//! Names: well-formed, each defined once, and every reference to one that exists.

use std::collections::HashSet;

use super::{CompileContext, Errors, SpecErrorKind};
use crate::spec::{Located, PolicySpec};
use crate::token::is_environment_name;

pub(super) fn check(spec: &PolicySpec, context: &CompileContext<'_>, errors: &mut Errors) {
    for environment in &spec.environments {
        if !is_environment_name(&environment.value) {
            errors.push(environment.origin, SpecErrorKind::EnvironmentName(environment.value.clone()));
        }
    }
    if !spec.environments.iter().any(|environment| environment.value == context.environment) {
        let origin = spec.environments.first().map(|environment| environment.origin).unwrap_or_default();
        errors.push(origin, SpecErrorKind::ForeignEnvironment(context.environment.to_owned()));
    }
    check_unique("environment", spec.environments.iter(), errors);
    check_defined("api", spec.apis.iter().map(|api| &api.name), errors);
    check_defined("scope", spec.scopes.iter().map(|scope| &scope.name), errors);
    check_defined("role", spec.roles.iter().map(|role| &role.name), errors);
    check_references(spec, context, errors);
}

fn check_defined<'a>(
    kind: &'static str,
    names: impl Iterator<Item = &'a Located<String>> + Clone,
    errors: &mut Errors,
) {
    for name in names.clone() {
        if !is_name(&name.value) {
            errors.push(name.origin, SpecErrorKind::Name(name.value.clone()));
        }
    }
    check_unique(kind, names, errors);
}

fn check_unique<'a>(kind: &'static str, names: impl Iterator<Item = &'a Located<String>>, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name.value.as_str()) {
            errors.push(name.origin, SpecErrorKind::Duplicate { kind, name: name.value.clone() });
        }
    }
}

fn check_references(spec: &PolicySpec, context: &CompileContext<'_>, errors: &mut Errors) {
    let environments = Known::new("environment", spec.environments.iter().map(|name| &name.value));
    let apis = Known::new("api", spec.apis.iter().map(|api| &api.name.value));
    let scopes = Known::new("scope", spec.scopes.iter().map(|scope| &scope.name.value));
    let roles = Known::new("role", spec.roles.iter().map(|role| &role.name.value));
    if let Some(upstreams) = context.upstreams {
        let names: Vec<String> = upstreams.iter().map(|upstream| upstream.name.to_owned()).collect();
        Known::new("upstream", names.iter()).check(spec.apis.iter().map(|api| &api.upstream), errors);
    }
    apis.check(spec.scopes.iter().map(|scope| &scope.api), errors);
    for role in &spec.roles {
        scopes.check(&role.scopes, errors);
        roles.check(&role.inherits, errors);
        environments.check(role.environments.iter().flatten(), errors);
    }
    for boundary in &spec.boundaries {
        apis.check(boundary.apis.iter().flatten(), errors);
        environments.check(boundary.environments.iter().flatten(), errors);
    }
    environments.check(spec.tokens.iter().map(|token| &token.env), errors);
}

/// The names of one kind that are defined.
struct Known<'a> {
    kind: &'static str,
    names: HashSet<&'a str>,
}

impl<'a> Known<'a> {
    fn new(kind: &'static str, names: impl Iterator<Item = &'a String>) -> Self {
        Self { kind, names: names.map(String::as_str).collect() }
    }

    fn check<'b>(&self, references: impl IntoIterator<Item = &'b Located<String>>, errors: &mut Errors) {
        for name in references {
            if !self.names.contains(name.value.as_str()) {
                let mut known: Vec<String> = self.names.iter().map(|name| (*name).to_owned()).collect();
                known.sort_unstable();
                errors.push(name.origin, SpecErrorKind::Unknown { kind: self.kind, name: name.value.clone(), known });
            }
        }
    }
}

/// Names stand in rule ids, headers and command lines.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-'))
}
