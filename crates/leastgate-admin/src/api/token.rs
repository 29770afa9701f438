//! Tokens on the wire: scope-language.md §7 without digest and secret.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::life::LastUseView;
use super::limits::{LimitsRequest, LimitsView};
use super::moment::Moment;
use super::secret::SecretText;
use super::shape::{Name, Text};
use super::ttl::Ttl;

/// A token to be made: `POST /v1/tokens`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Its name: 1 to 63 of a-z, 0-9 and -.
    #[schema(value_type = Name)]
    pub name: String,
    /// Its environment; left out, the gateway's own, and no other is possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub owner: Option<String>,
    /// Roles, by name.
    #[serde(default)]
    pub roles: Vec<String>,
    /// Scopes, by name.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// How long it lives from now on. Not together with `expires`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// When its life ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
    /// Networks it may be used from, at most 256; empty: any.
    #[serde(default)]
    #[schema(max_items = 256)]
    pub allow_cidr: Vec<String>,
    /// When its life begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Moment>,
    /// How much it may be used; left out: without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsRequest>,
    /// A word for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub note: Option<String>,
    /// A bait: it holds nothing, and each use of it is an alarm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// The reason, for the record; left out, the note stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub reason: Option<String>,
}

/// Why something is done: the body of revoke, disable and enable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonRequest {
    /// The reason, for the record.
    #[schema(value_type = Text)]
    pub reason: String,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its public id.
    pub accessor: String,
    /// Its name: the subject.
    pub name: String,
    /// Its environment.
    pub env: String,
    /// Who answers for it.
    #[schema(required)]
    pub owner: Option<String>,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its scopes.
    pub grants: Vec<GrantView>,
    /// Those of its roles and scopes that the policy in force does not have: they give it nothing.
    #[serde(default)]
    #[schema(required)]
    pub not_in_policy: Vec<String>,
    /// Where and from when it may be used.
    pub restrictions: RestrictionsView,
    /// How much it may be used.
    pub limits: LimitsView,
    /// When it was made; unknown for declared tokens.
    #[schema(required)]
    pub created: Option<Moment>,
    /// Who made it.
    #[schema(required)]
    pub created_by: Option<String>,
    /// When its life ends; `None`: never.
    #[schema(required)]
    pub expires: Option<Moment>,
    /// `active`, `rotating`, `disabled`, `revoked`; past its end `expired`, unless it is revoked.
    pub state: String,
    /// The last change of its state.
    #[schema(required)]
    pub state_changed: Option<StateChangeView>,
    /// Whether it is a bait: nobody has a reason to use it.
    #[serde(default)]
    #[schema(required)]
    pub canary: bool,
    /// Its last use; `None`: none that is known.
    #[serde(default)]
    #[schema(required)]
    pub last_used: Option<LastUseView>,
    /// The accessor of the token that took its name over.
    #[schema(required)]
    pub successor: Option<String>,
    /// The accessor of the token for which it stands in.
    #[serde(default)]
    #[schema(required)]
    pub parent: Option<String>,
    /// Which pepper it is kept under: `current`, `previous`, or `unknown`, under which nobody can use it. Of a declared
    /// token only `previous` is known, once it was used.
    #[serde(default)]
    #[schema(required)]
    pub pepper: Option<String>,
    /// A word for people.
    #[schema(required)]
    pub note: Option<String>,
    /// Counts its changes: with the accessor the entity tag, `"ACCESSOR.VERSION"`.
    #[schema(required)]
    pub version: Option<u64>,
}

/// A scope granted by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GrantView {
    /// The scope.
    pub scope: String,
    /// When the grant ends; `None`: with the token.
    pub expires: Option<Moment>,
    /// Why it was given.
    pub reason: Option<String>,
}

/// Where and from when a token may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestrictionsView {
    /// Networks; empty: any.
    pub source_ip: Vec<String>,
    /// The first moment of its life.
    pub not_before: Option<Moment>,
}

/// Who changed a token's state, when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StateChangeView {
    /// `revoke`, `disable` or `enable`.
    pub change: String,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When.
    pub at: Moment,
}

/// A page of tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenList {
    /// The tokens.
    pub items: Vec<TokenView>,
    /// Where the next page begins; `None`: this was the last.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// A token that was just made. Its secret is in this answer and in no later one.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct IssuedTokenView {
    /// The token.
    pub token: TokenView,
    /// Its text, this once; null where the call was a repetition.
    #[schema(required, value_type = Option<SecretText>)]
    pub secret: SecretText,
}

/// The answer of revoke, disable and enable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenChanged {
    /// Its public id.
    pub accessor: String,
    /// Its name.
    pub name: String,
    /// Its state from now on.
    pub state: String,
    /// Whether the store holds the change. If not, it is in force all the same, and is tried again until it does.
    pub durable: bool,
    /// Other tokens with its name that were revoked or disabled with it: those in the grace of a rotation, where it was asked for
    /// by name; and a successor that a rotation made of it meanwhile.
    #[serde(default)]
    #[schema(required)]
    pub also: Vec<NamesakeView>,
    /// Tokens that gave their name away and that this call left as they are: each works until its grace ends, unless it is
    /// disabled.
    #[serde(default)]
    #[schema(required)]
    pub in_grace: Vec<NamesakeView>,
    /// How many of its requests were under way and cut: WebSockets, streams, long bodies, and what waited for an answer.
    #[serde(default)]
    #[schema(required)]
    pub streams_cut: u64,
    /// Whether that is all of them. If not, a worker has not answered in time, or the store could not say what stands in for
    /// the token: new requests are refused all the same, and a worker cuts what it has as soon as it can.
    #[serde(default)]
    #[schema(required)]
    pub streams_cut_complete: bool,
}

/// Another token with the name of the one that was asked for: a rotation handed the name over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NamesakeView {
    /// Its public id.
    pub accessor: String,
    /// Its state from now on.
    pub state: String,
    /// When its life, or its grace, ends; `None`: never.
    #[schema(required)]
    pub expires: Option<Moment>,
}

/// What a token was used for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenUsage {
    /// Its public id.
    pub accessor: String,
    /// Its name.
    pub name: String,
    /// By rule.
    pub rules: Vec<RuleUseView>,
    /// Whether that is all; if not, the store could not keep the latest uses yet, and they are missing here.
    #[serde(default)]
    #[schema(required)]
    pub complete: bool,
}

/// The use of one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleUseView {
    /// The rule's id.
    pub rule: String,
    /// How often.
    pub count: u64,
    /// When last.
    pub last_used: Moment,
    /// The client's address then; `None`: unknown.
    #[serde(default)]
    #[schema(required)]
    pub last_source: Option<String>,
}
