//! The policy in force, by name.

use super::no_query;
use crate::api::PolicyView;
use crate::call::{Call, Reply};
use crate::problem::Problem;

pub(crate) fn policy(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    let policy = call.shared.policy()?;
    let mut roles: Vec<String> = policy.role_names().map(str::to_owned).collect();
    roles.sort_unstable();
    Reply::json(&PolicyView {
        revision: policy.revision().to_owned(),
        apis: policy.apis().iter().map(|api| api.name.to_string()).collect(),
        scopes: policy.scope_names().map(str::to_owned).collect(),
        roles,
        rules: policy.rules().len(),
    })
}
