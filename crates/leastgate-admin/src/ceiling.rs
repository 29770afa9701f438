//! How much an administrator may give: names against names.

use leastgate_store::{MayGrant, NameSet};

use crate::api::Ttl;
use crate::problem::{Kind, Problem};

/// What somebody is about to give.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gift<'a> {
    pub(crate) environment: &'a str,
    pub(crate) roles: &'a [String],
    pub(crate) scopes: &'a [&'a str],
    /// Its life from now on in seconds; `None`: without an end.
    pub(crate) life: Option<u64>,
}

/// Whether `ceiling` permits it all; the refusal names the first that it doesn't.
pub(crate) fn check(ceiling: &MayGrant, gift: &Gift<'_>) -> Result<(), Problem> {
    check_environment(ceiling, gift.environment)?;
    if let Some(role) = gift.roles.iter().find(|role| !ceiling.roles.permits(role)) {
        return Err(above(format!("you may not give the role `{role}`")));
    }
    if let Some(scope) = gift.scopes.iter().find(|scope| !ceiling.scopes.permits(scope)) {
        return Err(above(format!("you may not give the scope `{scope}`")));
    }
    match ceiling.max_ttl {
        Some(most) if gift.life.is_none_or(|life| life > most) => {
            Err(above(format!("you may not give a life of more than {}", Ttl::from_seconds(most))))
        }
        _ => Ok(()),
    }
}

/// Whether tokens of this environment are the administrator's business at all.
pub(crate) fn check_environment(ceiling: &MayGrant, environment: &str) -> Result<(), Problem> {
    if ceiling.environments.permits(environment) {
        return Ok(());
    }
    Err(above(format!("the environment `{environment}` is not one of yours")))
}

/// Whether `wanted` is within `ceiling`: who may make administrators must not make one above themselves.
pub(crate) fn check_within(ceiling: &MayGrant, wanted: &MayGrant) -> Result<(), Problem> {
    let sets = [
        ("environments", &ceiling.environments, &wanted.environments),
        ("roles", &ceiling.roles, &wanted.roles),
        ("scopes", &ceiling.scopes, &wanted.scopes),
    ];
    if let Some((name, ..)) = sets.into_iter().find(|(_, ceiling, wanted)| !is_subset(wanted, ceiling)) {
        return Err(above(format!("may_grant.{name} is more than your own")));
    }
    match (ceiling.max_ttl, wanted.max_ttl) {
        (Some(most), wanted) if wanted.is_none_or(|wanted| wanted > most) => {
            Err(above(format!("may_grant.max_ttl is more than your own {}", Ttl::from_seconds(most))))
        }
        _ => Ok(()),
    }
}

fn is_subset(wanted: &NameSet, ceiling: &NameSet) -> bool {
    match (wanted, ceiling) {
        (_, NameSet::Any) => true,
        (NameSet::Any, NameSet::Only(_)) => false,
        (NameSet::Only(names), ceiling) => names.iter().all(|name| ceiling.permits(name)),
    }
}

fn above(detail: String) -> Problem {
    Problem::new(Kind::AboveCeiling, detail).hint("ask an administrator with a wider may_grant, or give less")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(names: &[&str]) -> NameSet {
        NameSet::Only(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn ceiling() -> MayGrant {
        MayGrant { environments: only(&["prod"]), roles: only(&["reader"]), scopes: NameSet::Any, max_ttl: Some(3600) }
    }

    #[test]
    fn each_part_of_a_gift_is_held_to_the_ceiling() {
        let reader = ["reader".to_owned()];
        let root = ["root".to_owned()];
        let gift = Gift { environment: "prod", roles: &reader, scopes: &["orders:read"], life: Some(3600) };
        assert_eq!(check(&ceiling(), &gift), Ok(()));
        for more in [
            Gift { environment: "staging", ..gift },
            Gift { roles: &root, ..gift },
            Gift { life: Some(3601), ..gift },
            Gift { life: None, ..gift },
        ] {
            assert_eq!(check(&ceiling(), &more).unwrap_err().kind, Kind::AboveCeiling, "{more:?}");
        }
        assert!(check(&MayGrant::default(), &gift).is_err(), "what a ceiling doesn't say it doesn't permit");
    }

    #[test]
    fn nobody_makes_an_administrator_above_themselves() {
        assert_eq!(check_within(&ceiling(), &ceiling()), Ok(()));
        assert_eq!(check_within(&ceiling(), &MayGrant { max_ttl: Some(1), ..MayGrant::default() }), Ok(()));
        for more in [
            MayGrant::everything(),
            MayGrant { roles: NameSet::Any, ..ceiling() },
            MayGrant { environments: only(&["prod", "staging"]), ..ceiling() },
            MayGrant { max_ttl: None, ..ceiling() },
            MayGrant { max_ttl: Some(3601), ..ceiling() },
        ] {
            assert!(check_within(&ceiling(), &more).is_err(), "{more:?}");
        }
    }
}
