//! Roles: what each confers in this gateway's environment, through inheritance (§5).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Errors, SpecErrorKind};
use crate::entitlement::ScopeSet;
use crate::snapshot::{Role, Scope};
use crate::spec::{PolicySpec, RoleSpec};

const MAX_DEPTH: usize = 8;

pub(super) fn compile(
    spec: &PolicySpec,
    environment: &str,
    scopes: &[Scope],
    scope_by_name: &HashMap<Arc<str>, usize>,
    errors: &mut Errors,
) -> HashMap<Arc<str>, Role> {
    let by_name: HashMap<&str, &RoleSpec> = spec.roles.iter().map(|role| (role.name.value.as_str(), role)).collect();
    let mut closure = Closure { by_name: &by_name, environment, scopes, scope_by_name, errors, done: HashMap::new() };
    for role in &spec.roles {
        closure.close(role, &mut Vec::new());
    }
    closure.done.into_iter().map(|(name, (role, _))| (Arc::from(name), role)).collect()
}

struct Closure<'a> {
    by_name: &'a HashMap<&'a str, &'a RoleSpec>,
    environment: &'a str,
    scopes: &'a [Scope],
    scope_by_name: &'a HashMap<Arc<str>, usize>,
    errors: &'a mut Errors,
    /// Closed roles and how many roles their longest line of inheritance has.
    done: HashMap<&'a str, (Role, usize)>,
}

impl<'a> Closure<'a> {
    /// Closes a role after those it inherits; `trail` is the way to it, to notice a circle.
    fn close(&mut self, role: &'a RoleSpec, trail: &mut Vec<&'a str>) -> usize {
        let name = role.name.value.as_str();
        if let Some((_, depth)) = self.done.get(name) {
            return *depth;
        }
        if trail.contains(&name) {
            trail.push(name);
            self.errors.push(role.name.origin, SpecErrorKind::Cycle(trail.join(" → ")));
            trail.pop();
            return 0;
        }
        trail.push(name);
        let mut depth = 0;
        if trail.len() <= self.by_name.len() {
            for parent in &role.inherits {
                if let Some(parent) = self.by_name.get(parent.value.as_str()) {
                    depth = depth.max(self.close(parent, trail));
                }
            }
        }
        trail.pop();
        depth += 1;
        if depth == MAX_DEPTH + 1 {
            self.errors.push(role.name.origin, SpecErrorKind::Depth);
        }
        let compiled = self.conferred(role);
        self.done.insert(name, (compiled, depth));
        depth
    }

    /// What a role confers here: nothing where it does not hold, whoever inherits it.
    fn conferred(&self, role: &RoleSpec) -> Role {
        let mut scopes = ScopeSet::with_capacity(self.scopes.len());
        let mut max_ttl = role.max_ttl.map(|ttl| (ttl, Arc::from(role.name.value.as_str())));
        let holds = role.environments.as_ref().is_none_or(|all| all.iter().any(|name| name.value == self.environment));
        if !holds {
            return Role { scopes, max_ttl };
        }
        for name in &role.scopes {
            if let Some(&index) = self.scope_by_name.get(name.value.as_str()) {
                scopes.insert(index);
                let scope = &self.scopes[index];
                least(&mut max_ttl, scope.max_ttl.map(|ttl| (ttl, Arc::clone(&scope.name))));
            }
        }
        for parent in &role.inherits {
            if let Some((parent, _)) = self.done.get(parent.value.as_str()) {
                scopes.extend(&parent.scopes);
                least(&mut max_ttl, parent.max_ttl.clone());
            }
        }
        Role { scopes, max_ttl }
    }
}

/// Keeps the shorter of two lives.
pub(crate) fn least(own: &mut Option<(Duration, Arc<str>)>, other: Option<(Duration, Arc<str>)>) {
    if let Some(other) = other
        && own.as_ref().is_none_or(|own| other.0 < own.0)
    {
        *own = Some(other);
    }
}
