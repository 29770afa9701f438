//! What a check says beyond the verdict: why it may have surprised, and what would make the request pass.

use std::sync::Arc;

use leastgate_policy::{PolicySnapshot, Reason, TokenDigest, TokenTable};

use super::view;
use crate::api::Ttl;

/// Longest life of the token that stands in for one that is dead; the policy may allow less.
const MONTH: Ttl = Ttl::DAYS_30;

/// What advice is drawn from.
pub(super) struct Advice<'a> {
    pub(super) policy: &'a PolicySnapshot,
    pub(super) tokens: &'a TokenTable,
    /// The token that is meant, if it is known.
    pub(super) token: Option<(&'a str, TokenDigest)>,
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) source: std::net::IpAddr,
}

impl Advice<'_> {
    /// What the reason alone does not say.
    pub(super) fn detail(&self, reason: Reason) -> Option<String> {
        match reason {
            Reason::SourceNotAllowed => self.networks(),
            Reason::MethodUnsupported if self.method.bytes().any(|byte| byte.is_ascii_lowercase()) => {
                Some(format!("methods are upper-case: {}", self.method.to_ascii_uppercase()))
            }
            Reason::InsufficientScope => self.lost(),
            Reason::NoMatchingScope => self.lost().or_else(|| self.mistyped()),
            _ => None,
        }
    }

    /// What would make it pass: for a missing scope a token of its own that holds nothing else, and not for long.
    pub(super) fn fix(&self, reason: Reason, required: &[String], unmet: &[String]) -> Option<String> {
        let name = self.token.map_or("NAME", |(name, _)| name);
        let words = |text: &str| Some(text.to_owned());
        match reason {
            Reason::InsufficientScope | Reason::NoMatchingScope if self.lost().is_some() => {
                words("put the name back into the policy, or make a token that holds another")
            }
            Reason::InsufficientScope => {
                let scope = required.first()?;
                let life = self.life(&[], &[scope]).min(Ttl::HOUR);
                Some(format!("leastgate token create --name NAME --scope {scope} --ttl {life} --owner OWNER"))
            }
            Reason::TokenDisabled => Some(format!("leastgate token enable {name} --reason TEXT")),
            Reason::TokenRevoked | Reason::TokenExpired | Reason::TokenGraceEnded | Reason::TokenUnknown => {
                Some(self.another())
            }
            Reason::CredentialMissing => words("send `Authorization: Bearer lgt_…`"),
            Reason::HostUnknown => words("give the whole URL, with the host and path of an api of the policy"),
            Reason::ConditionFailed => Some(format!("meet the condition: {}", unmet.join(", "))),
            Reason::SourceNotAllowed => words("name the caller's address as `source_ip`"),
            _ => None,
        }
    }

    /// Where the token may be used, and where the caller was taken to be.
    fn networks(&self) -> Option<String> {
        let (_, digest) = self.token?;
        let terms = self.tokens.get(&digest)?.terms?;
        let networks: Vec<String> = terms.restrictions.source_ip.iter().map(ToString::to_string).collect();
        Some(format!("asked as from {}; the token may be used from {}", self.source, networks.join(", ")))
    }

    /// Names that the token holds and the policy does not know: they were in it once.
    fn lost(&self) -> Option<String> {
        let (_, digest) = self.token?;
        let token = self.tokens.get(&digest)?;
        let holdings = token.entitlement.holdings();
        let scopes: Vec<&Arc<str>> = holdings.grants.iter().map(|(scope, _)| scope).collect();
        let lost = view::not_in_policy(self.policy, &holdings.roles, &scopes);
        let lost: Vec<String> = lost.iter().map(|name| format!("`{name}`")).collect();
        (!lost.is_empty())
            .then(|| format!("the token holds {}, which the policy in force does not have", lost.join(", ")))
    }

    /// A rule that the path would match but for the type of a parameter.
    fn mistyped(&self) -> Option<String> {
        let segments: Vec<&str> = self.path.split('/').collect();
        self.policy.rules().iter().filter(|rule| rule.scope.is_some()).find_map(|rule| {
            let template: Vec<&str> = rule.template.split('/').collect();
            let is_open = |segment: &str| segment.starts_with('{') || segment == "*";
            let fits = template.len() == segments.len()
                && template.iter().zip(&segments).all(|(form, segment)| is_open(form) || form == segment);
            let typed: Vec<String> = rule
                .parameters()
                .filter(|parameter| parameter.kind != "any")
                .map(|parameter| format!("`{}` must be {}", parameter.name, parameter.kind))
                .collect();
            (fits && !typed.is_empty()).then(|| format!("{} comes near: {}", rule.template, typed.join(", ")))
        })
    }

    /// A token that holds what the dead one held.
    fn another(&self) -> String {
        let holdings =
            self.token.and_then(|(_, digest)| Some(self.tokens.get(&digest)?.entitlement.holdings().clone()));
        let Some(holdings) = holdings else {
            return "leastgate token create --name NAME --role ROLE --ttl 1h --owner OWNER".to_owned();
        };
        let scopes: Vec<&str> = holdings.grants.iter().map(|(scope, _)| &**scope).collect();
        let roles: Vec<&str> = holdings.roles.iter().map(|role| &**role).collect();
        let held: String = roles.iter().map(|role| format!(" --role {role}")).collect();
        let held = held + &scopes.iter().map(|scope| format!(" --scope {scope}")).collect::<String>();
        let life = self.life(&roles, &scopes);
        format!("leastgate token create --name NAME{held} --ttl {life} --owner OWNER")
    }

    /// A month, or less where the policy says so.
    fn life(&self, roles: &[&str], scopes: &[&str]) -> Ttl {
        let longest = self.policy.longest_life(roles, scopes).ok().flatten().map(|(life, _)| Ttl::from(life));
        longest.map_or(MONTH, |life| life.min(MONTH))
    }
}
