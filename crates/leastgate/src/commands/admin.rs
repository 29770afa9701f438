//! `leastgate admin`: who may change what.

use std::path::Path;

use leastgate_admin::api::{AdminList, AdminRevoked, Ceiling, CreateAdmin, Names, Ttl};
use leastgate_admin::client::Client;
use leastgate_policy::TokenKind;
use leastgate_policy::token::is_environment_name;
use leastgate_store::draw::{draw_accessor, draw_secret};

use super::client::{self, Handover};
use crate::cli::{Admin, AdminCreate, AdminRole, Global};
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

pub(super) fn run(global: &Global, command: Admin) -> Result<(), Failure> {
    match command {
        Admin::Create(AdminCreate { declare: true, environment, secret_file, .. }) => {
            declare(global, environment.as_deref().unwrap_or_default(), secret_file.as_deref())
        }
        Admin::Create(AdminCreate { environment: Some(_), .. }) => {
            Err(Failure::new(Exit::Usage, "--environment goes with --declare: a gateway serves one and knows it"))
        }
        Admin::Create(arguments) => create(global, &arguments),
        Admin::List => list(global, &client::connect(global)?.admins()?),
        Admin::Revoke { admin, reason, yes } => {
            client::refuse_secret(&admin)?;
            client::confirm(&format!("Revoke administrator {admin} for good?"), yes)?;
            revoked(global, &admin, &client::connect(global)?.revoke_admin(&admin, &reason)?)
        }
    }
}

fn create(global: &Global, arguments: &AdminCreate) -> Result<(), Failure> {
    let request = CreateAdmin {
        name: arguments.name.clone(),
        role: arguments.role.as_str().to_owned(),
        may_grant: ceiling(arguments)?,
        reason: arguments.reason.clone(),
    };
    let client = client::connect(global)?;
    let if_lost = format!("revoke it with `leastgate admin revoke {} --reason lost`", arguments.name);
    let handover = Handover::prepare(global, arguments.secret_file.as_deref(), if_lost)?;
    let issued = client.create_admin(&request)?;
    warn_of_unknown(&client, arguments);
    handover.give(global, &issued.admin, issued.secret.expose())
}

/// Asks nobody: the credential is drawn here, and the gateways that are given it make an administrator of who has it.
fn declare(global: &Global, environment: &str, secret_file: Option<&Path>) -> Result<(), Failure> {
    if !is_environment_name(environment) {
        let message = "--environment: a name has 1 to 16 of a-z and 0-9, and begins with a letter";
        return Err(Failure::new(Exit::Usage, message));
    }
    let handover = Handover::prepare(global, secret_file, "give it to no gateway, draw another".to_owned())?;
    let id = draw_accessor().map_err(anyhow::Error::from)?;
    let secret = draw_secret(TokenKind::Admin, environment, id).map_err(anyhow::Error::from)?;
    let about = serde_json::json!({ "name": "root", "id": id.to_string(), "environment": environment });
    handover.give(global, &about, secret.expose())?;
    if global.output == Format::Table {
        output::note(
            "Give it to gateways of that environment: `serve --bootstrap-admin-from FILE`. One without an administrator \
             makes root of whoever has it.",
        );
    }
    Ok(())
}

/// A name with a slip of the finger in it permits nothing, and the policy may get it only later: no error.
fn warn_of_unknown(client: &Client, arguments: &AdminCreate) {
    let Ok(policy) = client.policy() else { return };
    let sets =
        [("role", &arguments.may_grant_roles, policy.roles), ("scope", &arguments.may_grant_scopes, policy.scopes)];
    for (kind, named, known) in sets {
        for name in named.iter().filter(|name| !known.contains(name)) {
            output::warn(format_args!("the policy in force has no {kind} `{name}`; it has {}", known.join(", ")));
        }
    }
}

/// What may be given must be said: nothing is unlimited because a flag was forgotten. A gateway serves one
/// environment, so environments need no flag.
fn ceiling(arguments: &AdminCreate) -> Result<Ceiling, Failure> {
    let AdminCreate { may_grant_roles, may_grant_scopes, unlimited, max_ttl, role, .. } = arguments;
    let names = |names: &[String]| {
        if *unlimited { Names::Any } else { Names::Only(names.to_vec()) }
    };
    let gives_nothing = may_grant_roles.is_empty() && may_grant_scopes.is_empty() && !unlimited;
    let is_viewer = *role == AdminRole::Viewer;
    if is_viewer && !(gives_nothing && max_ttl.is_none()) {
        return Err(Failure::new(
            Exit::Usage,
            "a viewer reads and grants nothing: leave the flags out, or --role operator",
        ));
    }
    if !is_viewer && gives_nothing {
        let message = "say what tokens may be given: --may-grant-role ROLE and --may-grant-scope SCOPE, each as often as \
                       need be, or --unlimited for every role and scope";
        return Err(Failure::new(Exit::Usage, message));
    }
    let max_ttl = max_ttl.as_deref().map(|text| client::ttl("--max-ttl", text)).transpose()?;
    Ok(Ceiling {
        environments: Names::Any,
        roles: names(may_grant_roles),
        scopes: names(may_grant_scopes),
        max_ttl: max_ttl.map(Ttl::seconds),
    })
}

fn revoked(global: &Global, admin: &str, revoked: &AdminRevoked) -> Result<(), Failure> {
    match global.output {
        Format::Json => output::json(revoked)?,
        Format::Name => output::data(admin),
        Format::Table => output::data(format_args!("{admin} ({}) is revoked", revoked.id)),
    }
    client::warn_unless(revoked.durable);
    Ok(())
}

fn list(global: &Global, admins: &AdminList) -> Result<(), Failure> {
    match global.output {
        Format::Json => return output::json(&admins.items),
        Format::Name => admins.items.iter().for_each(|admin| output::data(&admin.name)),
        Format::Table if admins.items.is_empty() => output::note("no administrators"),
        Format::Table => {
            let rows = admins.items.iter().map(|admin| {
                let state = if admin.revoked.is_some() { "revoked" } else { "active" };
                vec![
                    admin.id.clone(),
                    admin.name.clone(),
                    admin.role.clone(),
                    state.to_owned(),
                    admin.created.to_string(),
                ]
            });
            output::data(output::table(&["ID", "NAME", "ROLE", "STATE", "CREATED"], rows.collect()));
        }
    }
    Ok(())
}
