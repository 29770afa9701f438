//! JSON Schemas (draft 2020-12) of both files, from the same tables of keys that read them.

use serde_json::Value;

use crate::gateway::keys::GATEWAY;
use crate::policy::keys::POLICY;
use crate::shape;

/// The schema of the gateway's file.
#[must_use]
pub fn gateway() -> Value {
    shape::schema("leastgate.yaml", &GATEWAY)
}

/// The schema of a policy file.
#[must_use]
pub fn policy() -> Value {
    shape::schema("leastgate policy", &POLICY)
}
