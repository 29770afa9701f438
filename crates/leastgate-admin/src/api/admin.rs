//! Administrators on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::moment::Moment;
use super::secret::SecretText;
use super::shape::{CeilingShape, Name, Role, Text};

/// An administrator to be made: `POST /v1/admins`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAdmin {
    /// Its name: 1 to 63 of a-z, 0-9 and -.
    #[schema(value_type = Name)]
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    #[schema(value_type = Role)]
    pub role: String,
    /// The most it may give to others; left out, nothing.
    #[serde(default)]
    #[schema(value_type = CeilingShape)]
    pub may_grant: Ceiling,
    /// The reason, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Text>)]
    pub reason: Option<String>,
}

/// The ceiling of what an administrator may give, by name.
pub type Ceiling = leastgate_store::MayGrant;
/// `"*"`, or a list of names.
pub type Names = leastgate_store::NameSet;

/// An administrator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdminView {
    /// The accessor of the credential.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    #[schema(value_type = Role)]
    pub role: String,
    /// The most it may give to others.
    #[schema(value_type = CeilingShape)]
    pub may_grant: Ceiling,
    /// When it was made.
    pub created: Moment,
    /// Who made it.
    pub created_by: String,
    /// Since when it is revoked; `None`: it isn't.
    #[schema(required)]
    pub revoked: Option<Moment>,
    /// Which pepper the credential is kept under: `current`, `previous`, or `unknown`, under which nobody can use it.
    #[serde(default)]
    #[schema(required)]
    pub pepper: Option<String>,
}

/// All administrators.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdminList {
    /// By name, the revoked ones included.
    pub items: Vec<AdminView>,
}

/// An administrator that was just made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct IssuedAdminView {
    /// The administrator.
    pub admin: AdminView,
    /// The credential, this once.
    pub secret: SecretText,
}

/// The answer of a revocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AdminRevoked {
    /// The administrator.
    pub id: String,
    /// Whether the store holds it. If not, it is in force all the same, and is tried again until it does.
    pub durable: bool,
}
