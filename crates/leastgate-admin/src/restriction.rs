//! Less for a token: what is taken from its record, as one value that can be applied to whatever the record has become
//! meanwhile, and joined with another one. It never adds anything.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use leastgate_policy::{Restrictions, Timestamp, TokenEntry, TokenLimits};
use leastgate_store::TokenRecord;

/// What is taken away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Restriction {
    pub(crate) roles: BTreeSet<String>,
    pub(crate) scopes: BTreeSet<String>,
    /// The latest end; `None`: as it is.
    pub(crate) expires: Option<Timestamp>,
    /// Sets of networks, all of which must hold the caller's.
    pub(crate) networks: Vec<IpNet>,
    pub(crate) limits: TokenLimits,
}

impl Restriction {
    /// The record without what is taken away.
    pub(crate) fn apply(&self, record: &TokenRecord) -> TokenRecord {
        let mut less = record.clone();
        less.roles.retain(|role| !self.roles.contains(role));
        less.grants.retain(|grant| !self.scopes.contains(&grant.scope));
        self.bind(&mut less.expires, &mut less.restrictions, &mut less.limits);
        less
    }

    /// The same of a token as it is in force.
    pub(crate) fn apply_in_force(&self, token: &mut TokenEntry) {
        token.roles.retain(|role| !self.roles.contains(&**role));
        token.grants.retain(|(scope, _)| !self.scopes.contains(&**scope));
        self.bind(&mut token.expires, &mut token.restrictions, &mut token.limits);
    }

    fn bind(&self, expires: &mut Option<Timestamp>, restrictions: &mut Restrictions, limits: &mut TokenLimits) {
        *expires = least(*expires, self.expires);
        if !self.networks.is_empty() {
            restrictions.source_ip = within(&self.networks, &restrictions.source_ip);
        }
        *limits = tighter(*limits, self.limits);
    }

    /// Takes away what either does.
    pub(crate) fn join(&mut self, other: Self) {
        self.roles.extend(other.roles);
        self.scopes.extend(other.scopes);
        self.expires = least(self.expires, other.expires);
        self.limits = tighter(self.limits, other.limits);
        if !other.networks.is_empty() {
            self.networks = within(&other.networks, &self.networks);
        }
    }
}

/// The tighter of each. What may come at once is compared as it is meant, said or not: a burst that is only said must not
/// be more than one that was left to the rate.
fn tighter(one: TokenLimits, other: TokenLimits) -> TokenLimits {
    let at_once = least(one.at_once(), other.at_once());
    let rate = least(one.rate, other.rate);
    TokenLimits {
        rate,
        burst: at_once.filter(|_| at_once != rate),
        concurrent: least(one.concurrent, other.concurrent),
    }
}

/// The lesser of two bounds, where no bound is the greatest.
fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// Those parts of `wanted` that lie within `held`, where none held is all. If that is nothing, a network that holds nobody:
/// the empty list would be everybody.
fn within(wanted: &[IpNet], held: &[IpNet]) -> Vec<IpNet> {
    if held.is_empty() {
        return wanted.to_vec();
    }
    let pairs = wanted.iter().flat_map(|one| held.iter().map(move |other| (one, other)));
    let both: BTreeSet<&IpNet> = pairs.filter_map(|(one, other)| common(one, other)).collect();
    if both.is_empty() { vec![NOBODY] } else { both.into_iter().copied().collect() }
}

/// Of two networks that share an address one lies within the other.
fn common<'a>(one: &'a IpNet, other: &'a IpNet) -> Option<&'a IpNet> {
    if other.contains(one) { Some(one) } else { Some(other).filter(|other| one.contains(*other)) }
}

/// `0.0.0.0/32`: an address that no caller has.
const NOBODY: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 32));

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_only_shrink() {
        assert_eq!(within(&nets(&["10.1.0.0/16"]), &[]), nets(&["10.1.0.0/16"]));
        assert_eq!(within(&nets(&["10.1.0.0/16", "11.0.0.0/8"]), &nets(&["10.0.0.0/8"])), nets(&["10.1.0.0/16"]));
        assert_eq!(within(&nets(&["0.0.0.0/0"]), &nets(&["10.0.0.0/8", "::/0"])), nets(&["10.0.0.0/8"]));
        assert_eq!(
            within(&nets(&["11.0.0.0/8"]), &nets(&["10.0.0.0/8"])),
            nets(&["0.0.0.0/32"]),
            "nobody, not everybody"
        );
    }

    #[test]
    fn bounds_only_fall() {
        assert_eq!(
            [least(Some(3), None), least(None, Some(3)), least(Some(3), Some(2)), least(None, None)],
            [Some(3), Some(3), Some(2), None]
        );
    }

    #[test]
    fn limits_only_tighten() {
        let limits = |rate, burst| TokenLimits { rate, burst, concurrent: None };
        for (one, other, both) in [
            (limits(None, None), limits(Some(5), None), limits(Some(5), None)),
            (limits(Some(10), None), limits(Some(50), Some(100)), limits(Some(10), None)),
            (limits(Some(10), Some(3)), limits(Some(5), None), limits(Some(5), Some(3))),
            (limits(Some(10), Some(100)), limits(Some(50), None), limits(Some(10), Some(50))),
        ] {
            assert_eq!(tighter(one, other), both, "{one:?} {other:?}");
            assert_eq!(tighter(other, one), both, "{other:?} {one:?}");
        }
    }

    #[test]
    fn two_joined_take_what_each_takes() {
        let one = Restriction { roles: ["a".to_owned()].into(), expires: Some(Timestamp(9)), ..Restriction::default() };
        let mut both = Restriction {
            scopes: ["s".to_owned()].into(),
            expires: Some(Timestamp(7)),
            networks: nets(&["10.0.0.0/8"]),
            ..Restriction::default()
        };
        both.join(one);
        assert_eq!((both.roles.len(), both.scopes.len(), both.expires), (1, 1, Some(Timestamp(7))));
        assert_eq!(both.networks, nets(&["10.0.0.0/8"]));
    }
}
