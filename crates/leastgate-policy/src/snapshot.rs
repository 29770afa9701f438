//! A compiled policy: immutable, replaced whole on reload.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderName, Method};
use ipnet::IpNet;

use crate::condition::Conditions;
use crate::entitlement::ScopeSet;
use crate::host::{Host, HostName, HostPattern};
use crate::method::Methods;
use crate::path::CanonicalPath;
use crate::spec::{ApiLimits, CorsSpec, Disclose, Sensitivity, TokenRules};
use crate::template::Template;
use crate::time::Timestamp;
use crate::token::{TokenEntry, TokenTable};
use crate::trie::Trie;

/// A compiled policy.
#[derive(Debug)]
pub struct PolicySnapshot {
    pub(crate) serial: u64,
    pub(crate) revision: Arc<str>,
    pub(crate) environment: Arc<str>,
    pub(crate) credential_header: HeaderName,
    pub(crate) judges_hosts: bool,
    pub(crate) well_known: bool,
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) apis: Vec<Api>,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) scope_by_name: HashMap<Arc<str>, usize>,
    pub(crate) roles: HashMap<Arc<str>, Role>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) routes: Vec<Arc<str>>,
    pub(crate) condition_headers: Vec<HeaderName>,
    pub(crate) token_rules: TokenRules,
    pub(crate) declared_tokens: Vec<TokenEntry>,
    /// The tokens in force with it; empty until it is put in force.
    pub(crate) tokens: Arc<TokenTable>,
}

/// An api of the policy.
#[derive(Debug)]
pub struct Api {
    /// Its name.
    pub name: Arc<str>,
    /// The upstream behind it.
    pub upstream: Arc<str>,
    /// What a refused caller is told.
    pub disclose: Disclose,
    /// Limits that differ from the gateway's.
    pub limits: ApiLimits,
    /// Names of path parameters that are recorded as their type and a keyed hash.
    pub redact: Vec<Arc<str>>,
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) base: Vec<Box<str>>,
    pub(crate) shadow_until: Option<Timestamp>,
    pub(crate) allow_underscores: bool,
    pub(crate) cors: Option<Arc<Cors>>,
    pub(crate) allow: Trie,
    pub(crate) deny: Trie,
    pub(crate) public: Trie,
}

/// A `cors` block with the union of its api's methods.
#[derive(Debug)]
pub(crate) struct Cors {
    pub(crate) spec: CorsSpec,
    pub(crate) methods: Vec<String>,
}

/// Whether an api's scopes bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// What no scope allows is refused.
    Enforce,
    /// It is forwarded and recorded.
    Shadow,
}

impl Mode {
    /// The mode's name in events and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
        }
    }
}

/// A scope as tokens are granted it.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) name: Arc<str>,
    pub(crate) max_ttl: Option<std::time::Duration>,
    #[expect(dead_code, reason = "read by the analysis of blast radius")]
    pub(crate) sensitivity: Sensitivity,
}

/// A role under this snapshot's environment.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) scopes: ScopeSet,
    /// The least of its own, its ancestors' and its scopes' `max_ttl`, with the name it comes from.
    pub(crate) max_ttl: Option<(std::time::Duration, Arc<str>)>,
}

/// A name for a rule that stays the same over reloads, for counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleKey(pub u32);

/// A compiled rule. Rules are sorted by id.
#[derive(Debug)]
pub struct Rule {
    /// `<scope>/<allow|deny>/<METHODS TEMPLATE>`, with a hash of its conditions where it has any (§4).
    pub id: Arc<str>,
    /// A name for counters that stays the same over reloads; set when the policy is put in force.
    pub key: RuleKey,
    /// The scope it belongs to; none for public rules and boundaries.
    pub scope: Option<Arc<str>>,
    /// The path template as written.
    pub template: Arc<str>,
    /// Index of the template in [`PolicySnapshot::routes`].
    pub route: usize,
    pub(crate) path: Template,
    pub(crate) scope_index: Option<usize>,
    pub(crate) kind: RuleKind,
    pub(crate) methods: Methods,
    pub(crate) protocol: Protocol,
    pub(crate) conditions: Option<Conditions>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleKind {
    Allow,
    Deny,
    Boundary,
    Public,
}

/// What a rule's methods speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Plain,
    Grpc,
    WebSocket,
}

/// A path parameter of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter<'a> {
    /// Index of its segment in the path.
    pub segment: usize,
    /// Its name.
    pub name: &'a str,
    /// Its type; `any` where it has none.
    pub kind: &'static str,
}

impl PolicySnapshot {
    /// The content hash of the files it was compiled from.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The environment this gateway serves.
    #[must_use]
    pub fn environment(&self) -> &str {
        &self.environment
    }

    /// The header that carries the credential.
    #[must_use]
    pub fn credential_header(&self) -> &HeaderName {
        &self.credential_header
    }

    /// Whether some api is chosen by the host that is asked for.
    #[must_use]
    pub fn judges_hosts(&self) -> bool {
        self.judges_hosts
    }

    /// Peers whose forwarding headers count.
    #[must_use]
    pub fn trusted_proxies(&self) -> &[IpNet] {
        &self.trusted_proxies
    }

    /// The apis, in the order of their names.
    #[must_use]
    pub fn apis(&self) -> &[Api] {
        &self.apis
    }

    /// The rules, sorted by id.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The distinct templates of all rules, sorted.
    #[must_use]
    pub fn routes(&self) -> &[Arc<str>] {
        &self.routes
    }

    /// The scopes' names, sorted.
    pub fn scope_names(&self) -> impl Iterator<Item = &str> {
        self.scopes.iter().map(|scope| &*scope.name)
    }

    /// The roles' names, in no order.
    pub fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(|name| &**name)
    }

    /// What every token must obey.
    #[must_use]
    pub fn token_rules(&self) -> &TokenRules {
        &self.token_rules
    }

    /// The tokens declared for this gateway's environment, until they are put in force: from then on they are among
    /// [`Self::tokens`], and kept once.
    #[must_use]
    pub fn declared_tokens(&self) -> &[TokenEntry] {
        &self.declared_tokens
    }

    /// The tokens in force with this policy: a live table, so that a revocation bites at once.
    #[must_use]
    pub fn tokens(&self) -> &TokenTable {
        &self.tokens
    }

    /// Headers that some condition reads.
    #[must_use]
    pub fn condition_headers(&self) -> &[HeaderName] {
        &self.condition_headers
    }

    /// Whether a role confers a scope in this gateway's environment, through inheritance too.
    #[must_use]
    pub fn role_confers(&self, role: &str, scope: &str) -> bool {
        let confers = |scopes: &ScopeSet| self.scope_index(scope).is_some_and(|index| scopes.contains(index));
        self.scopes_of_role(role).is_some_and(confers)
    }

    /// Whether a scope denies anything: taken from a token, it may open what it kept shut (§5).
    #[must_use]
    pub fn scope_denies(&self, scope: &str) -> bool {
        self.rules.iter().any(|rule| rule.kind == RuleKind::Deny && rule.scope.as_deref() == Some(scope))
    }

    /// Whether a role confers a scope that does.
    #[must_use]
    pub fn role_denies(&self, role: &str) -> bool {
        self.scope_names().any(|scope| self.role_confers(role, scope) && self.scope_denies(scope))
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn scope_count(&self) -> usize {
        self.scopes.len()
    }

    pub(crate) fn scope_index(&self, name: &str) -> Option<usize> {
        self.scope_by_name.get(name).copied()
    }

    pub(crate) fn scopes_of_role(&self, name: &str) -> Option<&ScopeSet> {
        self.roles.get(name).map(|role| &role.scopes)
    }

    /// The one api that judges a request; apis do not overlap (§2).
    pub(crate) fn api_of(&self, host: &Host, path: &CanonicalPath) -> Option<usize> {
        self.apis.iter().position(|api| api.serves(host) && api.contains(path))
    }
}

impl Api {
    /// Whether its scopes bind at this moment.
    #[must_use]
    pub fn mode(&self, now: Timestamp) -> Mode {
        if self.shadow_until.is_some_and(|until| now < until) { Mode::Shadow } else { Mode::Enforce }
    }

    /// What browsers on other origins may do, where its policy says so.
    #[must_use]
    pub fn cors(&self) -> Option<&CorsSpec> {
        self.cors.as_ref().map(|cors| &cors.spec)
    }

    fn serves(&self, host: &Host) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host))
    }

    /// Whether a TLS connection for this name (SNI) was made for other apis and not for this one (§2). The name of a load
    /// balancer, or any other that no api is served under, is for all of them; a TLS name has no port to compare.
    pub(crate) fn is_misdirected(&self, server_name: &HostName, apis: &[Self]) -> bool {
        let names = |api: &Self| api.hosts.iter().any(|pattern| pattern.matches_name(server_name));
        !self.hosts.is_empty() && !names(self) && apis.iter().any(names)
    }

    fn contains(&self, path: &CanonicalPath) -> bool {
        path.len() >= self.base.len() && self.base.iter().zip(path.segments()).all(|(base, segment)| **base == *segment)
    }
}

impl Rule {
    /// The named parameters of its template.
    pub fn parameters(&self) -> impl Iterator<Item = Parameter<'_>> {
        self.path.segments.iter().enumerate().filter_map(|(segment, form)| {
            let kind = match form {
                crate::template::Segment::Typed(_, kind) => kind.name(),
                _ => "any",
            };
            form.parameter().map(|name| Parameter { segment, name, kind })
        })
    }

    /// Whether the rule speaks of a request like this one, its path apart (§4).
    pub(crate) fn covers(&self, method: &Method, is_grpc: bool, is_websocket: bool) -> bool {
        let plain = || self.methods.matches(method);
        match (self.kind, self.protocol) {
            (RuleKind::Deny | RuleKind::Boundary, Protocol::Grpc) => true,
            (RuleKind::Deny | RuleKind::Boundary, Protocol::Plain | Protocol::WebSocket) => plain(),
            (RuleKind::Allow | RuleKind::Public, Protocol::WebSocket) => is_websocket,
            (RuleKind::Allow | RuleKind::Public, Protocol::Grpc) => is_grpc,
            (RuleKind::Allow | RuleKind::Public, Protocol::Plain) => !is_websocket && plain(),
        }
    }
}

/// A number no other snapshot of this process has.
pub(crate) fn next_serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
