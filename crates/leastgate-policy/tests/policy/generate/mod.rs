//! Random policies, tokens and requests over small alphabets, so that rules and requests collide.
//!
//! A scene is drawn from a plain row of numbers: every choice takes the next one, and 0 is the simplest choice. So
//! proptest shrinks whole scenes by shrinking numbers, and a request can be built towards a wanted outcome from
//! the policy that was drawn before it.

mod intent;
mod path;
mod policy;
mod request;
mod token;

use std::fmt;

use leastgate_policy::spec::{Located, PolicySpec, RuleSpec};
use proptest::prelude::*;

use crate::reference::decision::World;
use crate::reference::{GatewayView, RawRequest, TokenView};
pub(crate) use intent::Intent;
pub(crate) use token::text as token_text;

/// The moment every scene plays at; what expires lies near it.
pub(crate) const NOW: u64 = 1_800_000_000;
/// Requests that are judged under each policy.
const REQUESTS: usize = 8;
const POLICY_GENES: usize = 480;
const REQUEST_GENES: usize = 72;

/// A policy, its gateway, its tokens, and requests to judge.
#[derive(Clone)]
pub(crate) struct Scene {
    pub(crate) policy: PolicySpec,
    pub(crate) gateway: GatewayView,
    pub(crate) tokens: Vec<TokenView>,
    pub(crate) requests: Vec<(Intent, RawRequest)>,
    pub(crate) now: u64,
}

impl Scene {
    pub(crate) fn world(&self) -> World<'_> {
        World { policy: &self.policy, gateway: &self.gateway, tokens: &self.tokens, now: self.now }
    }
}

/// In few lines, so that a counterexample can be read.
impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "now {}; {:?}", self.now, self.gateway)?;
        for api in &self.policy.apis {
            let (hosts, public) = (values(&api.hosts), values(&api.public));
            let cors = if api.cors.is_some() { "cors" } else { "" };
            let (name, base, upstream, mode) = (&api.name.value, &api.base.value, &api.upstream.value, &api.mode);
            writeln!(f, "api {name} {hosts:?} {base} {upstream} {mode:?} {cors} public {public:?}")?;
        }
        for scope in &self.policy.scopes {
            writeln!(f, "scope {} of {}", scope.name.value, scope.api.value)?;
            rules(f, "allow", &scope.allow)?;
            rules(f, "deny", &scope.deny)?;
        }
        for role in &self.policy.roles {
            let environments = role.environments.as_deref().map(values);
            let (scopes, inherits) = (values(&role.scopes), values(&role.inherits));
            writeln!(f, "role {} {scopes:?} inherits {inherits:?} in {environments:?}", role.name.value)?;
        }
        for boundary in &self.policy.boundaries {
            let environments = boundary.environments.as_deref().map(values);
            writeln!(f, "boundary in {environments:?} on {:?}", boundary.apis.as_deref().map(values))?;
            rules(f, "deny", &boundary.deny)?;
        }
        for token in &self.tokens {
            writeln!(f, "{token:?}")?;
        }
        for (intent, request) in &self.requests {
            writeln!(f, "--- {intent:?}\n{request:?}")?;
        }
        Ok(())
    }
}

fn values(of: &[Located<String>]) -> Vec<&str> {
    of.iter().map(|located| located.value.as_str()).collect()
}

fn rules(f: &mut fmt::Formatter<'_>, effect: &str, rules: &[RuleSpec]) -> fmt::Result {
    for rule in rules {
        write!(f, "  {effect} {}", rule.text.value)?;
        if let Some(when) = &rule.when {
            for (name, wanted) in when.header.iter().chain(&when.query) {
                write!(f, " when {} {:?}", name.value, values(wanted))?;
            }
            write!(f, " from {:?}", values(&when.source_ip))?;
        }
        writeln!(f)?;
    }
    Ok(())
}

/// Takes choices off a row of numbers; the simplest ones once it is used up.
pub(crate) struct Draw<'a> {
    genes: &'a [u32],
    at: usize,
}

impl<'a> Draw<'a> {
    fn new(genes: &'a [u32]) -> Self {
        Self { genes, at: 0 }
    }

    /// One of `count` choices.
    fn pick(&mut self, count: usize) -> usize {
        let gene = self.genes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        gene as usize % count.max(1)
    }

    fn choose<T: Clone>(&mut self, from: &[T]) -> T {
        let index = self.pick(from.len());
        from[index].clone()
    }

    /// True in so many of a hundred cases; never for the simplest choice.
    fn chance(&mut self, percent: usize) -> bool {
        self.pick(100) >= 100 - percent
    }
}

/// Random scenes.
pub(crate) fn scenes() -> impl Strategy<Value = Scene> {
    let policy = prop::collection::vec(any::<u32>(), POLICY_GENES);
    let requests = prop::collection::vec(prop::collection::vec(any::<u32>(), REQUEST_GENES), 1..=REQUESTS);
    (policy, requests).prop_map(|(policy, requests)| scene(&policy, &requests))
}

fn scene(policy_genes: &[u32], request_genes: &[Vec<u32>]) -> Scene {
    let (plan, gateway) = policy::policy(&mut Draw::new(policy_genes));
    let mut tokens = Vec::new();
    let mut requests = Vec::new();
    for genes in request_genes {
        requests.push(intent::request(&mut Draw::new(genes), &plan, &gateway, &mut tokens));
    }
    Scene { policy: plan.spec, gateway, tokens, requests, now: NOW }
}
