//! Roles: what each confers in this gateway's environment, through inheritance (§5).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Errors, SpecErrorKind};
use crate::entitlement::ScopeSet;
use crate::snapshot::{Role, Scope};
use crate::spec::{PolicySpec, RoleSpec};

const MAX_DEPTH: usize = 8;

/// Names of a circle that an error spells out.
const NAMED_OF_CIRCLE: usize = 16;

pub(super) fn compile(
    spec: &PolicySpec,
    environment: &str,
    scopes: &[Scope],
    scope_by_name: &HashMap<Arc<str>, usize>,
    errors: &mut Errors,
) -> HashMap<Arc<str>, Role> {
    let (order, circles) = Lines::of(&spec.roles).order();
    for circle in circles {
        let names = circle.iter().chain(circle.first()).map(|&role| spec.roles[role].name.value.as_str());
        let mut named: Vec<&str> = names.take(NAMED_OF_CIRCLE).collect();
        if circle.len() >= NAMED_OF_CIRCLE {
            named.push("…");
        }
        errors.push(spec.roles[circle[0]].name.origin, SpecErrorKind::Cycle(named.join(" → ")));
    }
    let mut closure = Closure { environment, scopes, scope_by_name, errors, done: HashMap::new() };
    for role in order {
        closure.close(&spec.roles[role]);
    }
    closure.done.into_iter().map(|(name, (role, _))| (Arc::from(name), role)).collect()
}

/// Who inherits whom, by place in the file.
struct Lines {
    parents: Vec<Vec<usize>>,
    children: Vec<Vec<usize>>,
}

impl Lines {
    fn of(roles: &[RoleSpec]) -> Self {
        let by_name: HashMap<&str, usize> =
            roles.iter().enumerate().map(|(place, role)| (role.name.value.as_str(), place)).collect();
        let mut lines = Self { parents: vec![Vec::new(); roles.len()], children: vec![Vec::new(); roles.len()] };
        for (child, role) in roles.iter().enumerate() {
            for parent in role.inherits.iter().filter_map(|name| by_name.get(name.value.as_str()).copied()) {
                lines.parents[child].push(parent);
                lines.children[parent].push(child);
            }
        }
        lines
    }

    /// All roles, each after those it inherits, and the circles that had to be broken for that (Kahn's algorithm; it
    /// does not recurse, for a file may have a line of any length).
    fn order(&self) -> (Vec<usize>, Vec<Vec<usize>>) {
        let mut waiting: Vec<usize> = self.parents.iter().map(Vec::len).collect();
        let mut is_placed = vec![false; waiting.len()];
        let mut ready: Vec<usize> = (0..waiting.len()).rev().filter(|&role| waiting[role] == 0).collect();
        let (mut order, mut circles, mut next) = (Vec::with_capacity(waiting.len()), Vec::new(), 0);
        loop {
            while let Some(role) = ready.pop() {
                is_placed[role] = true;
                order.push(role);
                for &child in &self.children[role] {
                    waiting[child] = waiting[child].saturating_sub(1);
                    if waiting[child] == 0 && !is_placed[child] {
                        ready.push(child);
                    }
                }
            }
            let Some(stuck) = (next..waiting.len()).find(|&role| !is_placed[role]) else { return (order, circles) };
            next = stuck;
            let circle = self.circle(stuck, &is_placed);
            ready.push(circle[0]);
            waiting[circle[0]] = 0;
            circles.push(circle);
        }
    }

    /// The circle that a role which can't be placed leads to: all of its kind have a parent of that kind.
    fn circle(&self, from: usize, is_placed: &[bool]) -> Vec<usize> {
        let (mut trail, mut place_in_trail) = (Vec::new(), HashMap::new());
        let mut at = from;
        loop {
            if let Some(&begin) = place_in_trail.get(&at) {
                return trail.split_off(begin);
            }
            place_in_trail.insert(at, trail.len());
            trail.push(at);
            match self.parents[at].iter().find(|&&parent| !is_placed[parent]) {
                Some(&parent) => at = parent,
                None => return vec![at],
            }
        }
    }
}

struct Closure<'a> {
    environment: &'a str,
    scopes: &'a [Scope],
    scope_by_name: &'a HashMap<Arc<str>, usize>,
    errors: &'a mut Errors,
    /// Closed roles and how many roles their longest line of inheritance has.
    done: HashMap<&'a str, (Role, usize)>,
}

impl<'a> Closure<'a> {
    /// Closes a role whose parents are closed.
    fn close(&mut self, role: &'a RoleSpec) {
        let parents = role.inherits.iter().filter_map(|name| self.done.get(name.value.as_str()));
        let depth = 1 + parents.map(|(_, depth)| *depth).max().unwrap_or(0);
        if depth == MAX_DEPTH + 1 {
            self.errors.push(role.name.origin, SpecErrorKind::Depth);
        }
        let compiled = self.conferred(role);
        self.done.insert(&role.name.value, (compiled, depth));
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
