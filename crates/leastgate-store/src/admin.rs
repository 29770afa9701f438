//! What is kept of an administrator: a role, a ceiling, and the digest of an `lga_…` credential.

use std::fmt;
use std::str::FromStr;

use leastgate_policy::{Accessor, Timestamp, TokenDigest};
use serde::{Deserialize, Serialize};

use crate::record::TokenName;

/// An administrator as the store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminRecord {
    /// The accessor of the credential.
    pub id: Accessor,
    /// The keyed hash of the whole credential.
    pub digest: TokenDigest,
    /// Its name, unique among those not revoked.
    pub name: TokenName,
    /// What it may do.
    pub role: AdminRole,
    /// The most it may give to others.
    pub may_grant: MayGrant,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// Since when it is revoked; `None`: it isn't.
    pub revoked: Option<Timestamp>,
    /// Which pepper the digest was made with.
    pub pepper_id: String,
}

/// What is decided about an administrator before the credential is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct NewAdmin {
    /// Its name.
    pub name: TokenName,
    /// What it may do.
    pub role: AdminRole,
    /// The most it may give to others.
    pub may_grant: MayGrant,
    /// When it is made: now.
    pub created: Timestamp,
    /// Who makes it.
    pub created_by: String,
}

/// What an administrator may do; each includes the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminRole {
    /// Reads.
    Viewer,
    /// Creates, rotates, grants and revokes within its ceiling.
    Operator,
    /// Manages administrators too.
    Admin,
}

impl AdminRole {
    /// Its name in the API and in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for AdminRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not the name of an administrator's role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role of an administrator: use viewer, operator or admin")]
pub struct UnknownAdminRole(pub String);

impl FromStr for AdminRole {
    type Err = UnknownAdminRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownAdminRole(text.chars().take(80).collect()))
    }
}

/// The ceiling of what an administrator may give to others, by name. What it doesn't say, it doesn't permit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MayGrant {
    /// The environments of the tokens.
    pub environments: NameSet,
    /// Their roles.
    pub roles: NameSet,
    /// Their scopes.
    pub scopes: NameSet,
    /// Their longest life in seconds; `None`: as the policy says.
    pub max_ttl: Option<u64>,
}

impl MayGrant {
    /// No ceiling but the policy's own.
    #[must_use]
    pub fn everything() -> Self {
        Self { environments: NameSet::Any, roles: NameSet::Any, scopes: NameSet::Any, max_ttl: None }
    }
}

/// A set of names: `"*"`, or a list. The empty list holds none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "NameSetText", try_from = "NameSetText")]
pub enum NameSet {
    /// Every name.
    Any,
    /// These names.
    Only(Vec<String>),
}

impl NameSet {
    /// Whether `name` is in it.
    #[must_use]
    pub fn permits(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Only(names) => names.iter().any(|permitted| permitted == name),
        }
    }
}

impl Default for NameSet {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

/// How a [`NameSet`] is written in JSON.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum NameSetText {
    Word(String),
    List(Vec<String>),
}

impl From<NameSet> for NameSetText {
    fn from(set: NameSet) -> Self {
        match set {
            NameSet::Any => Self::Word("*".to_owned()),
            NameSet::Only(names) => Self::List(names),
        }
    }
}

impl TryFrom<NameSetText> for NameSet {
    type Error = &'static str;

    fn try_from(text: NameSetText) -> Result<Self, Self::Error> {
        match text {
            NameSetText::Word(word) if word == "*" => Ok(Self::Any),
            NameSetText::Word(_) => Err("a set of names is \"*\" or a list"),
            NameSetText::List(names) => Ok(Self::Only(names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ceiling_permits_what_it_says_and_nothing_else() {
        let json = r#"{"environments":["prod"],"roles":[],"scopes":"*","max_ttl":3600}"#;
        let ceiling: MayGrant = serde_json::from_str(json).unwrap();
        assert!(ceiling.environments.permits("prod") && !ceiling.environments.permits("staging"));
        assert!(!ceiling.roles.permits("reader") && ceiling.scopes.permits("orders:read"));
        assert_eq!(serde_json::to_string(&ceiling).unwrap(), json);
        for bad in [r#"{"environments":"prod","roles":[],"scopes":[]}"#, r#"{"roles":[],"scopes":[]}"#] {
            assert!(serde_json::from_str::<MayGrant>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn roles_include_the_ones_before_them() {
        assert!(AdminRole::Viewer < AdminRole::Operator && AdminRole::Operator < AdminRole::Admin);
        assert_eq!("operator".parse(), Ok(AdminRole::Operator));
        assert!("root".parse::<AdminRole>().is_err());
    }
}
