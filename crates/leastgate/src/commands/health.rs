//! `leastgate health`: for `HEALTHCHECK` and for people. It asks the ops listener and says what it said.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::cli::{Global, Health};
use crate::exit::{Exit, Failure};
use crate::gateway::loading;
use crate::output::{self, Format};

pub(super) fn run(global: &Global, arguments: &Health) -> Result<(), Failure> {
    let address = match arguments.ops {
        Some(address) => address,
        None => loading::gateway_file(global, Vec::new())?.config.listeners.ops,
    };
    let path = if arguments.ready { "/readyz?verbose" } else { "/livez" };
    let (status, text) = leastgate_admin::client::ops(reachable(address), path, Duration::from_secs(global.timeout))
        .map_err(|error| {
            Failure::new(Exit::Failed, format!("no answer from the ops listener at {address}: {error}"))
        })?;
    let is_healthy = status == 200;
    match global.output {
        Format::Json => {
            output::json(&serde_json::json!({ "healthy": is_healthy, "status": status, "answer": text.trim_end() }))?;
        }
        Format::Table | Format::Name => output::data(text.trim_end()),
    }
    if is_healthy { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

/// A listener on every address is asked on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
