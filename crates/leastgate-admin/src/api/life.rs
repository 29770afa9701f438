//! What a token goes through between its making and its end, on the wire: rotation, edits, grants, restrictions.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::limits::LimitsRequest;
use super::moment::Moment;
use super::secret::SecretText;
use super::shape::Text;
use super::token::{NamesakeView, TokenView};
use super::ttl::Ttl;

/// A token is to be succeeded by a new one: `POST /v1/tokens/{token}/rotate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateToken {
    /// How long the old one may be used on; left out, 24 h. Never beyond its own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Ttl>,
    /// The old one has leaked: it is revoked at once, whatever becomes of the successor. Not together with `grace`.
    #[serde(default)]
    pub now: bool,
    /// The reason, for the record.
    #[schema(value_type = Text)]
    pub reason: String,
}

/// A token that was rotated, and its successor.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct RotatedToken {
    /// The successor: it has the name.
    pub token: TokenView,
    /// The old one: it is reached by its accessor until its grace ends.
    #[schema(required, value_type = Option<TokenView>)]
    pub old: TokenView,
    /// Other tokens that gave their name away before and are in their grace: each works until that ends, a leak or not.
    #[serde(default)]
    #[schema(required)]
    pub in_grace: Vec<NamesakeView>,
    /// How many of its requests were under way and cut: none where it has a grace. Not said of a repetition.
    #[serde(default)]
    pub streams_cut: u64,
    /// Whether that is all of them.
    #[serde(default)]
    pub streams_cut_complete: bool,
    /// The successor's text, this once; `None` where the call was a repetition.
    #[schema(required)]
    pub secret: Option<SecretText>,
}

/// How far a rotation is: `GET /v1/tokens/{token}/rotation`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RotationView {
    /// The token that has the name.
    pub token: TokenView,
    /// Those it succeeds, the last one first.
    pub predecessors: Vec<PredecessorView>,
    /// By when it should be rotated, where the policy says how often.
    #[schema(required)]
    pub due: Option<Moment>,
}

/// A token that gave its name away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PredecessorView {
    /// Its public id.
    pub accessor: String,
    /// Its state.
    pub state: String,
    /// When its grace ends, or ended.
    #[schema(required)]
    pub expires: Option<Moment>,
    /// Its last use.
    #[schema(required)]
    pub last_used: Option<LastUseView>,
    /// Whether it was used since its successor was made: whoever does so has the old secret still.
    pub used_since_rotation: bool,
}

/// The last use of a token: a request for which it was valid, whether its scopes let it through or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastUseView {
    /// When.
    pub at: Moment,
    /// From which address, if that is known.
    #[schema(required)]
    pub source: Option<String>,
    /// By which rule; `None`: no rule let it through, or it is not known here.
    #[schema(required)]
    pub rule: Option<String>,
}

/// A change of a token: `PATCH /v1/tokens/{token}`, a merge patch (RFC 7396): what is left out stays, null removes. What may be
/// empty and not absent refuses null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchToken {
    /// Who answers for it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub owner: Option<Option<String>>,
    /// A word for people.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub note: Option<Option<String>>,
    /// When its life ends.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Moment>)]
    pub expires: Option<Option<Moment>>,
    /// When its life begins.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Moment>)]
    pub not_before: Option<Option<Moment>>,
    /// Networks it may be used from, at most 256; empty: any.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_items = 256)]
    pub allow_cidr: Option<Vec<String>>,
    /// Roles, by name.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub roles: Option<Vec<String>>,
    /// Scopes, by name; those it holds already keep their end.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub scopes: Option<Vec<String>>,
    /// How much it may be used.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub limits: Option<LimitsRequest>,
    /// The reason, for the record.
    #[schema(value_type = Text)]
    pub reason: String,
}

/// Tells null from what is left out.
fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// What has no absence to go back to is not null: ignored, it would read as done.
fn given<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// A scope for a while: `POST /v1/tokens/{token}/grants`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantScope {
    /// The scope.
    pub scope: String,
    /// How long the token holds it; left out, to the token's end, if the policy permits that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// The reason, for the record.
    #[schema(value_type = Text)]
    pub reason: String,
}

/// Less for a token, and never more: `POST /v1/tokens/{token}/restrict`. It works with a full disk, as a revocation does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestrictToken {
    /// Roles to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_roles: Vec<String>,
    /// Scopes to take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_scopes: Vec<String>,
    /// An earlier end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Moment>,
    /// Networks it may still be used from, at most 256: those parts of them from which it may be used now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 256)]
    pub allow_cidr: Option<Vec<String>>,
    /// Tighter limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsRequest>,
    /// The reason, for the record.
    #[schema(value_type = Text)]
    pub reason: String,
}

/// The answer of an edit, a grant or a restriction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TokenEdited {
    /// The token from now on.
    pub token: TokenView,
    /// Whether the store holds the change. If not, it is in force all the same, and is tried again until it does.
    pub durable: bool,
    /// Other tokens with its name that were restricted with it: those in the grace of a rotation, where it was asked for by name;
    /// and a successor that a rotation made of it meanwhile.
    #[serde(default)]
    #[schema(required)]
    pub also: Vec<NamesakeView>,
    /// Tokens that gave their name away and that this call left as they are: each works until its grace ends, with what it
    /// holds.
    #[serde(default)]
    #[schema(required)]
    pub in_grace: Vec<NamesakeView>,
    /// How many of its requests were under way and cut, because the token does not permit them any more.
    #[serde(default)]
    #[schema(required)]
    pub streams_cut: u64,
    /// Whether that is all of them.
    #[serde(default)]
    #[schema(required)]
    pub streams_cut_complete: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_from_null() {
        let patch: PatchToken = serde_json::from_str(r#"{"owner": null, "note": "x", "reason": "r"}"#).unwrap();
        assert_eq!((patch.owner, patch.note, patch.expires), (Some(None), Some(Some("x".into())), None));
        for bad in ["name", "roles", "scopes", "allow_cidr", "limits"]
            .map(|field| format!(r#"{{"reason": "r", "{field}": null}}"#))
        {
            assert!(serde_json::from_str::<PatchToken>(&bad).is_err(), "{bad}");
        }
        let written = serde_json::to_string(&PatchToken { owner: Some(None), ..PatchToken::default() }).unwrap();
        assert_eq!(written, r#"{"owner":null,"reason":""}"#);
    }
}
