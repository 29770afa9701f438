//! What a policy says, as typed values with the place each was written: the input of [`crate::compile`].
//!
//! The loader fills these from YAML one to one and judges nothing but shape; every rule about meaning is
//! applied by the compiler, so that a policy built by hand, by a test or by an analysis is held to the same.

use std::time::Duration;

use crate::time::Timestamp;
use crate::token::{TokenLimits, TokenState};

/// Where a value was written: an index into the loader's own table of places, opaque to this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Origin(pub u32);

/// A value and where it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub origin: Origin,
}

impl<T> Located<T> {
    /// `value`, written at `origin`.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }
}

impl<T> From<T> for Located<T> {
    fn from(value: T) -> Self {
        Self { value, origin: Origin::default() }
    }
}

/// One policy: the union of all its files (§1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySpec {
    /// The closed list of environment names.
    pub environments: Vec<Located<String>>,
    /// The apis in front of which this gateway stands.
    pub apis: Vec<ApiSpec>,
    /// The scopes that may be granted.
    pub scopes: Vec<ScopeSpec>,
    /// Named sets of scopes.
    pub roles: Vec<RoleSpec>,
    /// Denies that no role can widen.
    pub boundaries: Vec<BoundarySpec>,
    /// What every token must obey.
    pub token_rules: TokenRules,
    /// Tokens declared by digest.
    pub tokens: Vec<DeclaredToken>,
}

/// An api: a host, a base path and the upstream behind them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApiSpec {
    /// Its name.
    pub name: Located<String>,
    /// Host patterns (`a`, `a:8443`, `*.a`); empty: any host.
    pub hosts: Vec<Located<String>>,
    /// The path it begins at, in whole segments.
    pub base: Located<String>,
    /// Name of the upstream, defined in the gateway's file.
    pub upstream: Located<String>,
    /// Whether the scopes' verdict is enforced or only recorded.
    pub mode: ModeSpec,
    /// Rules that need no token.
    pub public: Vec<Located<String>>,
    /// What a refused caller is told.
    pub disclose: Disclose,
    /// Cross-origin requests.
    pub cors: Option<Located<CorsSpec>>,
    /// Limits that differ from the gateway's.
    pub limits: ApiLimits,
    /// Names of path parameters that are recorded as their type and a keyed hash.
    pub redact: Vec<Located<String>>,
}

/// Enforce, or shadow until a date.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ModeSpec {
    /// Refuse what no scope allows.
    #[default]
    Enforce,
    /// Forward and record it instead, until the date; then enforce.
    Shadow {
        /// The first moment at which the api enforces.
        until: Located<Timestamp>,
    },
}

/// What a refused caller is told (§6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Disclose {
    /// What is required and what the token holds.
    Full,
    /// What is required.
    #[default]
    Needed,
    /// Type and status only.
    None,
    /// One identical 404 for every 403.
    Conceal,
}

/// Limits of one api; `None` takes the gateway's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApiLimits {
    /// Largest request body in bytes; `u64::MAX`: of any size.
    pub body: Option<u64>,
    /// Longest wait for the response head.
    pub response_timeout: Option<Duration>,
}

/// Cross-origin requests (Fetch standard, CORS protocol).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsSpec {
    /// Allowed origins; `*` is any.
    pub origins: Vec<String>,
    /// Allowed request headers.
    pub headers: Vec<String>,
    /// Whether credentials may be sent.
    pub credentials: bool,
    /// How long a browser may keep the answer.
    pub max_age: Option<Duration>,
}

/// How much harm a scope can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sensitivity {
    /// As any other.
    #[default]
    Normal,
    /// Lint and blast radius point it out.
    High,
}

/// A named set of rules on one api: what a token is granted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScopeSpec {
    /// Its name.
    pub name: Located<String>,
    /// The api its rules are tried on.
    pub api: Located<String>,
    /// What it allows.
    pub allow: Vec<RuleSpec>,
    /// What it denies, to a token that holds it.
    pub deny: Vec<RuleSpec>,
    /// How much harm it can do.
    pub sensitivity: Sensitivity,
    /// Longest life of a token or grant that confers it.
    pub max_ttl: Option<Duration>,
}

/// A rule as written: `METHOD[,METHOD] TEMPLATE`, and its conditions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSpec {
    /// Methods and template.
    pub text: Located<String>,
    /// Conditions, all of which must hold.
    pub when: Option<WhenSpec>,
}

/// A condition's name and the values one of which it must have.
pub type ConditionSpec = (Located<String>, Vec<Located<String>>);

/// The conditions of a rule.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WhenSpec {
    /// Header name and values: exact, or with one trailing `*`.
    pub header: Vec<ConditionSpec>,
    /// Query parameter and values: exact.
    pub query: Vec<ConditionSpec>,
    /// Networks one of which holds the caller.
    pub source_ip: Vec<Located<String>>,
}

/// A named set of scopes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RoleSpec {
    /// Its name.
    pub name: Located<String>,
    /// Roles whose scopes it includes.
    pub inherits: Vec<Located<String>>,
    /// Scopes of its own.
    pub scopes: Vec<Located<String>>,
    /// Where it holds; `None`: everywhere.
    pub environments: Option<Vec<Located<String>>>,
    /// Longest life of a token that has it.
    pub max_ttl: Option<Duration>,
    /// Who answers for it.
    pub owner: Option<String>,
}

/// Denies that bind every request, whatever its token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoundarySpec {
    /// Where it was written.
    pub origin: Origin,
    /// Where it binds; `None`: everywhere.
    pub environments: Option<Vec<Located<String>>>,
    /// The apis it binds; `None`: all.
    pub apis: Option<Vec<Located<String>>>,
    /// What it denies.
    pub deny: Vec<RuleSpec>,
}

/// What every token must obey.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenRules {
    /// A token must expire.
    pub require_expiry: bool,
    /// Longest life of a token.
    pub max_ttl: Option<Duration>,
    /// A token must have an owner.
    pub require_owner: bool,
    /// Disable a token unused for so long.
    pub idle_disable: Option<Duration>,
    /// A token should be rotated so often.
    pub rotation_every: Option<Duration>,
}

/// A token declared by its digest (fleets run from Git).
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredToken {
    /// Its public id.
    pub accessor: Located<String>,
    /// Its name: the subject.
    pub name: Located<String>,
    /// Who answers for it.
    pub owner: Option<String>,
    /// `blake3:` and 64 hex digits.
    pub digest: Located<String>,
    /// The environment it was made for.
    pub env: Located<String>,
    /// Its roles.
    pub roles: Vec<Located<String>>,
    /// Its scopes.
    pub grants: Vec<Located<GrantSpec>>,
    /// Where and from when it may be used.
    pub restrictions: RestrictionSpec,
    /// How much it may be used.
    pub limits: Located<TokenLimits>,
    /// When it was made.
    pub created: Located<Timestamp>,
    /// When its life ends.
    pub expires: Option<Located<Timestamp>>,
    /// Whether it may be used.
    pub state: TokenState,
}

/// A scope granted to a token by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantSpec {
    /// The scope.
    pub scope: String,
    /// When the grant ends; `None`: with the token.
    pub expires: Option<Timestamp>,
    /// Why it was given.
    pub reason: Option<String>,
}

/// Where and from when a token may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestrictionSpec {
    /// Networks one of which must hold the caller; empty: any.
    pub source_ip: Vec<Located<String>>,
    /// The first moment of its life.
    pub not_before: Option<Timestamp>,
}
