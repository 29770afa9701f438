//! `leastgate token rotate|grant|restrict|edit`: a token between its making and its end.

use leastgate_admin::api::{
    GrantScope, PatchToken, PredecessorView, RestrictToken, RotateToken, RotationView, TokenEdited,
};
use leastgate_admin::client::Client;

use super::namesakes;
use crate::cli::{Global, TokenEdit, TokenGrant, TokenRestrict, TokenRotate};
use crate::commands::client::{self, Handover};
use crate::exit::{Exit, Failure};
use crate::output::{self, Format};

pub(super) fn rotate(global: &Global, arguments: &TokenRotate) -> Result<(), Failure> {
    let token = client::subject(&arguments.token)?;
    if arguments.status {
        return status(global, &client::connect(global)?.rotation(&token)?);
    }
    let reason = arguments.reason.clone().unwrap_or_default();
    let grace = arguments.grace.as_deref().map(|text| client::ttl("--grace", text)).transpose()?;
    let client = client::connect(global)?;
    let if_lost = format!("rotate it again with `leastgate token rotate {token} --now --reason lost`");
    let handover = Handover::prepare(global, arguments.secret_file.as_deref(), if_lost)?;
    let asked = RotateToken { grace, now: arguments.now, reason };
    let rotated = client.rotate_token(&token, &asked).map_err(|error| {
        let refused = Failure::from(error);
        if arguments.now { revoke_instead(&client, &token, &asked.reason, refused) } else { refused }
    })?;
    let until = rotated.old.expires.filter(|_| rotated.old.state != "revoked");
    let fate = until.map_or("is revoked".to_owned(), |end| format!("works until {end}"));
    output::note(format_args!("{}: the old secret ({}) {fate}", rotated.token.name, rotated.old.accessor));
    if arguments.now {
        namesakes::warn(&rotated.token.name, &rotated.in_grace, "revoke");
    }
    let secret = rotated.secret.ok_or_else(|| Failure::new(Exit::Failed, "the gateway gave no secret"))?;
    handover.give(global, &rotated.token, secret.expose())
}

/// A leak does not wait until a successor can be made.
fn revoke_instead(client: &Client, token: &str, reason: &str, refused: Failure) -> Failure {
    match client.revoke_token(token, reason) {
        Ok(changed) => {
            output::warn(format_args!(
                "there is no successor, but {} ({}) is {}",
                changed.name, changed.accessor, changed.state
            ));
            namesakes::tell(&changed.name, &changed.also, "is revoked");
            namesakes::warn(&changed.name, &changed.in_grace, "revoke");
            client::warn_unless(changed.durable);
        }
        Err(error) => output::warn(format_args!("the old secret may work still; revoking it failed too: {error}")),
    }
    refused
}

fn status(global: &Global, rotation: &RotationView) -> Result<(), Failure> {
    if global.output == Format::Json {
        return output::json(rotation);
    }
    if let Some(due) = rotation.due {
        output::note(format_args!("{} is due for rotation at {due}", rotation.token.name));
    }
    if rotation.predecessors.is_empty() {
        output::note(format_args!("{} has not been rotated", rotation.token.name));
        return Ok(());
    }
    let rows = rotation.predecessors.iter().map(row);
    output::data(output::table(&["OLD SECRET", "STATE", "ENDS", "LAST USED", "FROM", "RULE"], rows.collect()));
    for old in rotation.predecessors.iter().filter(|old| old.used_since_rotation) {
        let warning =
            format!("{} was used after its successor was made: somebody has the old secret still", old.accessor);
        output::warn(warning);
    }
    Ok(())
}

fn row(old: &PredecessorView) -> Vec<String> {
    let last = old.last_used.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        old.accessor.clone(),
        old.state.clone(),
        or_dash(old.expires.map(|end| end.to_string())),
        last.map_or_else(|| "never".to_owned(), |last| last.at.to_string()),
        or_dash(last.and_then(|last| last.source.clone())),
        or_dash(last.and_then(|last| last.rule.clone())),
    ]
}

pub(super) fn grant(global: &Global, arguments: &TokenGrant) -> Result<(), Failure> {
    let token = client::subject(&arguments.token)?;
    let grant = GrantScope {
        scope: arguments.scope.clone(),
        ttl: arguments.ttl.as_deref().map(|text| client::ttl("--for", text)).transpose()?,
        reason: arguments.reason.clone(),
    };
    let edited = client::connect(global)?.grant_scope(&token, &grant)?;
    let held = edited.token.grants.iter().find(|held| held.scope == grant.scope);
    let until = held.and_then(|held| held.expires).or(edited.token.expires);
    let until = until.map_or_else(|| "its end".to_owned(), |end| end.to_string());
    told(global, &edited, &format!("holds {} until {until}", grant.scope))
}

pub(super) fn restrict(global: &Global, arguments: &TokenRestrict) -> Result<(), Failure> {
    let token = client::subject(&arguments.token)?;
    let restriction = RestrictToken {
        remove_roles: arguments.roles.clone(),
        remove_scopes: arguments.scopes.clone(),
        expires: arguments.expires.as_deref().map(client::moment).transpose()?,
        allow_cidr: (!arguments.allow_cidrs.is_empty()).then(|| arguments.allow_cidrs.clone()),
        limits: None,
        reason: arguments.reason.clone(),
    };
    let edited = client::connect(global)?.restrict_token(&token, &restriction)?;
    told(global, &edited, "is restricted")?;
    namesakes::tell(&edited.token.name, &edited.also, "is restricted");
    namesakes::warn(&edited.token.name, &edited.in_grace, "revoke");
    Ok(())
}

pub(super) fn edit(global: &Global, arguments: &TokenEdit) -> Result<(), Failure> {
    let token = client::subject(&arguments.token)?;
    let emptied = |text: &Option<String>| text.as_ref().map(|text| (!text.is_empty()).then(|| text.clone()));
    let patch = PatchToken {
        owner: emptied(&arguments.owner),
        note: emptied(&arguments.note),
        expires: arguments.expires.as_deref().map(client::moment).transpose()?.map(Some),
        not_before: None,
        allow_cidr: arguments.allow_cidrs.clone(),
        roles: arguments.roles.clone(),
        scopes: arguments.scopes.clone(),
        limits: None,
        reason: arguments.reason.clone(),
    };
    let client = client::connect(global)?;
    let seen = client.token(&token)?;
    let edited = client.edit_token(&seen, &patch)?;
    told(global, &edited, "is changed")?;
    // An owner and a note open nothing.
    let is_about_access =
        patch.roles.is_some() || patch.scopes.is_some() || patch.allow_cidr.is_some() || patch.expires.is_some();
    if is_about_access {
        namesakes::warn(&edited.token.name, &edited.in_grace, "revoke");
    }
    Ok(())
}

fn told(global: &Global, edited: &TokenEdited, what: &str) -> Result<(), Failure> {
    let token = &edited.token;
    match global.output {
        Format::Json => output::json(edited)?,
        Format::Name => output::data(&token.name),
        Format::Table => output::data(format_args!("{} ({}) {what}", token.name, token.accessor)),
    }
    client::warn_unless(edited.durable);
    Ok(())
}
