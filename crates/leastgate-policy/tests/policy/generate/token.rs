//! Tokens as text and as records.

use super::policy::Plan;
use super::{Draw, NOW};
use crate::reference::credential::checksum;
use crate::reference::decision::effective;
use crate::reference::{GatewayView, StateView, TokenView};

const WEEK: u64 = 604_800;

/// The text of a token with a right checksum.
pub(crate) fn text(prefix: &str, environment: &str, number: usize) -> String {
    let body = format!("{prefix}_{environment}_{number:0>10}_{:0>43}", format!("S{number}ecret"));
    let crc = checksum(&body);
    format!("{body}_{crc}")
}

/// A token that confers the scope, by a role or by a grant, and perhaps more.
pub(crate) fn conferring(
    draw: &mut Draw<'_>,
    plan: &Plan,
    gateway: &GatewayView,
    tokens: &[TokenView],
    scope: Option<&str>,
) -> TokenView {
    let mut token = TokenView {
        text: text("lgt", &gateway.environment, tokens.len()),
        roles: Vec::new(),
        grants: Vec::new(),
        source_ip: Vec::new(),
        not_before: None,
        expires: draw.choose(&[Some(NOW + 1), None, Some(NOW + WEEK), Some(NOW + WEEK + 1)]),
        state: if draw.chance(20) { StateView::Rotating } else { StateView::Active },
    };
    if let Some(scope) = scope {
        confer(draw, plan, gateway, &mut token, scope);
    }
    if draw.chance(25) {
        let role = draw.pick(plan.spec.roles.len() + 1);
        token.roles.push(format!("r{role}"));
    }
    if draw.chance(15) {
        let other = draw.choose(&plan.spec.scopes).name.value;
        token.grants.push((other, draw.choose(&[None, Some(NOW), Some(NOW + 1), Some(NOW - 1)])));
    }
    if draw.chance(10) {
        token.grants.push(("gone:x".to_owned(), None));
    }
    token
}

fn confer(draw: &mut Draw<'_>, plan: &Plan, gateway: &GatewayView, token: &mut TokenView, scope: &str) {
    let holding: Vec<String> = plan
        .spec
        .roles
        .iter()
        .map(|role| role.name.value.clone())
        .filter(|role| {
            let mut only = token.clone();
            only.roles = vec![role.clone()];
            effective(&plan.spec, &gateway.environment, &only, NOW).iter().any(|held| held == scope)
        })
        .collect();
    if !holding.is_empty() && draw.chance(60) {
        token.roles.push(draw.choose(&holding));
    } else {
        token.grants.push((scope.to_owned(), draw.choose(&[None, Some(NOW + 1)])));
    }
}

/// A token with the scopes left out that would do, but with one of them just expired, or with nothing at all.
pub(crate) fn lacking(
    draw: &mut Draw<'_>,
    plan: &Plan,
    gateway: &GatewayView,
    tokens: &[TokenView],
    scope: Option<&str>,
) -> TokenView {
    let mut token = conferring(draw, plan, gateway, tokens, None);
    token.roles.clear();
    token.grants.retain(|(held, _)| Some(held.as_str()) != scope);
    if let Some(scope) = scope
        && draw.chance(40)
    {
        token.grants.push((scope.to_owned(), Some(draw.choose(&[NOW, NOW - 1]))));
    }
    token
}
