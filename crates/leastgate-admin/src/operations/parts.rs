//! What a body says of a token, part by part, held to its form: sets of names, networks, limits. Whoever makes, changes,
//! restricts or takes in a token reads them here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use leastgate_policy::TokenLimits;
use leastgate_policy::source::parse_network;

use crate::problem::{Kind, Problem};

/// Networks of one token. Each request is compared with all of them, and a call may make ten thousand such tokens.
const MOST_NETWORKS: usize = 256;

/// Names as a set: sorted, and none twice.
pub(super) fn distinct(field: &str, names: &[String]) -> Result<Vec<String>, Problem> {
    let mut sorted = names.to_vec();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Problem::new(Kind::Invalid, format!("`{field}` has `{}` twice", pair[0]))),
        None => Ok(sorted),
    }
}

/// Networks as a set, in the order they were given.
pub(super) fn networks(texts: &[String]) -> Result<Vec<IpNet>, Problem> {
    // Before they are read: what is refused anyway costs little.
    check_count(texts.len())?;
    let mut seen = BTreeSet::new();
    let read = |text: &String| {
        let network = network(text)?;
        if seen.insert(network) {
            return Ok(network);
        }
        Err(Problem::new(Kind::Invalid, format!("`allow_cidr` has `{network}` twice")))
    };
    texts.iter().map(read).collect()
}

/// Holds what becomes of several such sets to the bound of one.
pub(super) fn check_networks(networks: &[IpNet]) -> Result<(), Problem> {
    check_count(networks.len())
}

fn check_count(count: usize) -> Result<(), Problem> {
    if count <= MOST_NETWORKS {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Invalid,
        format!("`allow_cidr` would be {count} networks, and at most {MOST_NETWORKS} are kept"),
    )
    .hint("name the network that they are parts of, or make several tokens"))
}

/// As in the policy's files; one address may also be written without its prefix.
fn network(text: &str) -> Result<IpNet, Problem> {
    let one = text.parse::<IpAddr>().map(|address| IpNet::from(address).to_string());
    parse_network(one.as_deref().unwrap_or(text))
        .map_err(|error| Problem::new(Kind::Invalid, format!("`allow_cidr`: `{text}` {error}")))
}

/// Limits that mean something.
pub(super) fn limits(asked: impl Into<TokenLimits>) -> Result<TokenLimits, Problem> {
    let limits: TokenLimits = asked.into();
    limits.check().map_err(|error| Problem::new(Kind::Invalid, error.to_string()))?;
    Ok(limits)
}
