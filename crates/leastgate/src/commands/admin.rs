//! `leastgate admin`: who may change what.

use leastgate_admin::api::{AdminList, Ceiling, CreateAdmin};

use super::client;
use crate::cli::{Admin, Global};
use crate::exit::Failure;
use crate::output::{self, Format};

pub(super) fn run(global: &Global, command: Admin) -> Result<(), Failure> {
    let client = client::connect(global)?;
    match command {
        Admin::Create { name, role, secret_file } => {
            let request = CreateAdmin { name, role, may_grant: Ceiling::everything() };
            let issued = client.create_admin(&request)?;
            client::hand_over(global, &issued.admin, issued.secret.expose(), secret_file.as_deref())
        }
        Admin::List => list(global, &client.admins()?),
        Admin::Revoke { admin, reason, yes } => {
            client::confirm(&format!("Revoke administrator {admin} for good?"), yes)?;
            let revoked = client.revoke_admin(&admin, &reason)?;
            output::note(format_args!("{admin} ({}) is revoked", revoked.id));
            Ok(())
        }
    }
}

fn list(global: &Global, admins: &AdminList) -> Result<(), Failure> {
    match global.output {
        Format::Json => return output::json(admins),
        Format::Name => admins.items.iter().for_each(|admin| output::data(&admin.name)),
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
