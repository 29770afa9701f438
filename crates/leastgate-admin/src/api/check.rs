//! The explanation of one decision.

use std::collections::BTreeMap;
use std::fmt;

use leastgate_telemetry::redact;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::limits::LimitsView;
use super::moment::Moment;

/// A request that nobody sends: `POST /v1/check`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckRequest {
    /// A token's name or accessor, or its text; left out, a request without a credential. A text is judged as it would
    /// be from the wire: by its digest, whatever accessor it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The method.
    pub method: String,
    /// `http://host/path?query`, or a path alone.
    pub url: String,
    /// Header fields that conditions may read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The caller's address; left out, 127.0.0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<String>,
}

impl fmt::Debug for CheckRequest {
    /// Without what may be secret: the token's text and the headers' values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckRequest")
            .field("token", &self.token.as_deref().map(redact))
            .field("method", &self.method)
            .field("url", &redact(&self.url))
            .field("headers", &self.headers.keys())
            .field("source_ip", &self.source_ip)
            .finish()
    }
}

/// What would come of it, and why. Nothing was forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckResult {
    /// `allow` or `deny`.
    pub effect: String,
    /// The reason's name.
    pub reason: String,
    /// What the reason alone does not say: which rule of the notation was broken, what the token holds in vain.
    #[schema(required)]
    pub detail: Option<String>,
    /// `enforce` or `shadow`.
    pub mode: String,
    /// When the shadow ends, where there is one: from then on what is not allowed is refused.
    #[serde(default)]
    #[schema(required)]
    pub until: Option<Moment>,
    /// The status a caller would get; `None` where the request goes to the upstream.
    #[schema(required)]
    pub status: Option<u16>,
    /// The token that was meant.
    #[schema(required)]
    pub token: Option<CheckedToken>,
    /// The token's limits, if it has any: nothing is counted here, and nothing refused for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsView>,
    /// The api that judges it.
    #[schema(required)]
    pub api: Option<String>,
    /// The first of `rules`.
    #[schema(required)]
    pub rule: Option<String>,
    /// The rules that bring it about: those that allow, those that deny, or those that would have allowed.
    pub rules: Vec<String>,
    /// The path template of `rule`.
    #[schema(required)]
    pub template: Option<String>,
    /// The scopes that grant it.
    pub granted_by: Vec<String>,
    /// The scopes any one of which would do.
    pub required_any_of: Vec<String>,
    /// The scopes the token holds.
    pub held: Vec<String>,
    /// The conditions that are not met.
    pub failed_conditions: Vec<String>,
    /// What comes closest to an allow.
    #[schema(required)]
    pub nearest_miss: Option<NearestMiss>,
    /// A command that would make it pass, or words that say what would.
    #[schema(required)]
    pub fix: Option<String>,
    /// The policy it was decided under.
    pub policy_rev: String,
}

/// The token of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckedToken {
    /// Its public id.
    pub accessor: String,
    /// Its name.
    pub name: String,
}

/// A request like this one that a scope allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NearestMiss {
    /// What differs: `method` or `trailing_slash`.
    pub differs: String,
    /// That request's method.
    pub method: String,
    /// That request's path.
    pub path: String,
    /// The rule that allows it.
    pub rule: String,
    /// The scopes that would allow it.
    pub scopes: Vec<String>,
    /// Whether the token holds one of them already.
    pub held: bool,
}
