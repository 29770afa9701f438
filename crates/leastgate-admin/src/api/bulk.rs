//! Many tokens at once, on the wire: made, brought in, and revoked.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::limits::LimitsView;
use super::moment::Moment;
use super::secret::SecretText;
use super::shape::{AccessorText, Name, Text};
use super::token::{CreateToken, GrantView, RestrictionsView};
use super::ttl::Ttl;

/// Many tokens alike: `POST /v1/tokens/bulk`. All are made, or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTokens {
    /// What all of them are; their names are its name with a number behind it: `bot-1`, `bot-2`, …
    pub token: CreateToken,
    /// How many: 1 to 10,000.
    #[schema(minimum = 1, maximum = 10000)]
    pub count: u32,
    /// The first number; left out, 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<u32>,
}

/// Tokens that were just made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct IssuedTokens {
    /// Each with its secret, this once.
    pub items: Vec<IssuedOfMany>,
}

/// One of many tokens that were just made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct IssuedOfMany {
    /// Its public id.
    pub accessor: String,
    /// Its name.
    pub name: String,
    /// Its text, this once.
    pub secret: SecretText,
}

/// A token as one gateway hands it to another one of the same environment and pepper: its digest, and no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportedToken {
    /// Its public id.
    #[schema(value_type = AccessorText)]
    pub accessor: String,
    /// Its name.
    #[schema(value_type = Name)]
    pub name: String,
    /// Its environment.
    pub env: String,
    /// The keyed hash of its text: `blake3:` and 64 hexadecimal digits.
    #[schema(pattern = "^blake3:[0-9a-fA-F]{64}$")]
    pub digest: String,
    /// Names the pepper that the digest was made with, and says nothing about it.
    pub pepper_id: String,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub owner: Option<String>,
    /// Roles, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Scopes, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<GrantView>,
    /// Where and from when it may be used.
    #[serde(default)]
    pub restrictions: RestrictionsView,
    /// How much it may be used.
    #[serde(default)]
    pub limits: LimitsView,
    /// When it was made.
    pub created: Moment,
    /// When its life ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
    /// Whether it is a bait.
    #[serde(default)]
    pub canary: bool,
    /// A word for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub note: Option<String>,
}

/// A page of tokens to be handed over: `GET /v1/exports`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ExportedTokens {
    /// Those in use.
    pub items: Vec<ExportedToken>,
    /// Where the next page begins; `None`: this was the last.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// Tokens of another gateway: `POST /v1/tokens/import`. All are taken, or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportTokens {
    /// The tokens, as they were exported: 1 to 10,000.
    #[schema(min_items = 1, max_items = 10000)]
    pub tokens: Vec<ExportedToken>,
    /// The reason, for the record.
    #[schema(value_type = Text)]
    pub reason: String,
}

/// The answer of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportedTokens {
    /// How many were taken.
    pub imported: u64,
    /// How many were there already, as they are.
    pub unchanged: u64,
}

/// Tokens are to be revoked: `POST /v1/revocations`. All that is asked must fit; at least one thing is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeTokens {
    /// Those of this owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Those that have this role by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Those that hold this scope now, by name or through a role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Those that were neither used nor made since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unused_since: Option<Moment>,
    /// Those made before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_before: Option<Moment>,
    /// Only say which it would be.
    #[serde(default)]
    pub dry_run: bool,
    /// The reason, for the record.
    #[schema(value_type = Text)]
    pub reason: String,
}

/// The answer of a revocation of many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RevokedTokens {
    /// How many tokens fit.
    pub matched: u64,
    /// How many were revoked by this call.
    pub revoked: u64,
    /// Some of those that fit, by name.
    pub sample: Vec<RevokedToken>,
    /// Whether it was only asked.
    pub dry_run: bool,
    /// Whether the store holds it. If not, it is in force all the same, and is tried again until it does.
    pub durable: bool,
    /// How many requests of these tokens were under way and cut.
    #[serde(default)]
    #[schema(required)]
    pub streams_cut: u64,
    /// Whether that is all of them; if not, a worker has not answered in time.
    #[serde(default)]
    #[schema(required)]
    pub streams_cut_complete: bool,
}

/// One of the tokens that fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub struct RevokedToken {
    /// Its name.
    pub name: String,
    /// Its public id.
    pub accessor: String,
    /// Who answers for it.
    #[schema(required)]
    pub owner: Option<String>,
}

/// A token that stands in for another one: `POST /v1/tokens/{token}/children`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateChild {
    /// How long it lives, or how much longer it is to live; never beyond the one it stands in for.
    pub ttl: Ttl,
    /// The reason, for the record.
    #[schema(value_type = Text)]
    pub reason: String,
}
