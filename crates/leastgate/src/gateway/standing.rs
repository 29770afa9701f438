//! What a policy that is valid means for those it stands over, told when it comes into force: apis that only record,
//! and names that living tokens hold and the policy does not know. Neither is an error; both are easily overlooked.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use leastgate_admin::api::Moment;
use leastgate_policy::spec::ModeSpec;
use leastgate_policy::{PolicySnapshot, PolicySpec, Timestamp, TokenState};

/// Most names in one line of the log.
const MOST_NAMES: usize = 20;

/// An api that is, or was, in shadow mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The api's name.
    pub api: String,
    /// The first moment at which it enforces.
    pub until: Timestamp,
}

impl Shadow {
    /// Those of a policy.
    pub(crate) fn all_of(spec: &PolicySpec) -> Vec<Self> {
        let shadow = |api: &leastgate_policy::spec::ApiSpec| match &api.mode {
            ModeSpec::Shadow { until } => Some(Self { api: api.name.value.clone(), until: until.value }),
            ModeSpec::Enforce => None,
        };
        spec.apis.iter().filter_map(shadow).collect()
    }

    /// Whether it enforces by now.
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        self.until <= now
    }

    /// What holds at this moment, in words.
    pub(crate) fn tell(&self, now: Timestamp) -> String {
        let (api, until) = (&self.api, Moment(self.until));
        if self.has_ended(now) {
            format!("api `{api}`: its shadow ended at {until}, it enforces; `mode` and `until` can go")
        } else {
            format!("api `{api}` is in shadow until {until}: what no scope allows is forwarded and recorded")
        }
    }
}

/// Roles and scopes that living tokens hold and the policy lacks, each with the number of its tokens.
pub(super) struct Unknown(BTreeMap<(&'static str, Arc<str>), usize>);

impl Unknown {
    /// One look at each token.
    pub(super) fn find(snapshot: &PolicySnapshot, now: Timestamp) -> Self {
        let roles: HashSet<&str> = snapshot.role_names().collect();
        let scopes: HashSet<&str> = snapshot.scope_names().collect();
        let mut unknown = BTreeMap::new();
        snapshot.tokens().for_each(|_, token| {
            let lives = matches!(token.state, TokenState::Active | TokenState::Rotating)
                && token.expires.is_none_or(|end| now < end);
            if !lives {
                return;
            }
            let held = token.entitlement.holdings();
            let lost_roles = held.roles.iter().filter(|role| !roles.contains(&***role)).map(|role| ("role", role));
            let names = held.grants.iter().map(|(scope, _)| scope);
            let lost_scopes = names.filter(|scope| !scopes.contains(&***scope)).map(|scope| ("scope", scope));
            for (kind, name) in lost_roles.chain(lost_scopes) {
                *unknown.entry((kind, Arc::clone(name))).or_insert(0) += 1;
            }
        });
        Self(unknown)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, ((kind, name), tokens)) in self.0.iter().take(MOST_NAMES).enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            let plural = if *tokens == 1 { "" } else { "s" };
            write!(f, "{comma}{kind} `{name}` ({tokens} token{plural})")?;
        }
        match self.0.len().checked_sub(MOST_NAMES) {
            Some(more @ 1..) => write!(f, " and {more} more"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use leastgate_config::parse_policy;
    use leastgate_policy::{Authority, CompileContext, EnvironmentKey, Pepper, Restrictions, TokenEntry, TokenTable};

    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000);

    fn snapshot(text: &str) -> (PolicySpec, PolicySnapshot) {
        let loaded = parse_policy(&[("policy.yaml", text)]).unwrap();
        let context = CompileContext {
            environment: "prod",
            revision: "r",
            now: NOW,
            credential_header: http::header::AUTHORIZATION,
            trusted_proxies: vec![],
            well_known: false,
            upstreams: None,
        };
        let compiled = PolicySnapshot::compile(&loaded.spec, &context).unwrap();
        (loaded.spec, compiled)
    }

    #[test]
    fn a_shadow_says_until_when_and_that_it_is_over() {
        let (spec, _) = snapshot(
            "version: 1\nenvironments: [ prod ]\napis:\n  a: { base: /a, upstream: u, mode: shadow, until: 2026-09-22 }\n  \
             b: { base: /b, upstream: u }\n",
        );
        let [shadow] = Shadow::all_of(&spec).try_into().unwrap();
        assert_eq!(shadow.api, "a");
        assert!(shadow.tell(NOW).contains("`a` is in shadow until 2026-09-22T00:00:00Z"), "{}", shadow.tell(NOW));
        assert!(shadow.tell(shadow.until).contains("its shadow ended at 2026-09-22T00:00:00Z, it enforces"));
    }

    #[test]
    fn names_that_the_policy_lacks_are_counted_by_living_tokens() {
        let key = EnvironmentKey::derive(&Pepper::new(vec![7; 32]).unwrap(), "prod");
        let table = TokenTable::default();
        for (number, state) in [TokenState::Active, TokenState::Active, TokenState::Revoked].into_iter().enumerate() {
            let entry = TokenEntry {
                digest: key.digest(&[u8::try_from(number).unwrap()]),
                accessor: format!("AAAAAAAAA{number}").parse().unwrap(),
                name: format!("t{number}").into(),
                owner: None,
                roles: vec!["reader".into(), "known".into()],
                grants: vec![("gone".into(), None)],
                restrictions: Restrictions::default(),
                expires: None,
                state,
                limits: Default::default(),
                is_canary: false,
                parent: None,
            };
            table.upsert(entry).unwrap();
        }
        let authority = Authority::with_tokens(key, table);
        let (_, policy) = snapshot("version: 1\nenvironments: [ prod ]\nroles: { known: { scopes: [] } }\n");
        let unknown = Unknown::find(&authority.replace(policy), NOW);
        assert_eq!(unknown.to_string(), "role `reader` (2 tokens), scope `gone` (2 tokens)");
    }
}
