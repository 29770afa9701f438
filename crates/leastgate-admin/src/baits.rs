//! A bait that is shown to the admin API: no token is a credential here, so nobody has a reason to.
//!
//! Every head is looked through before anything comes of it, and the call goes on as if nothing had been found: its answer,
//! and the time until then, say nothing of it.

use http::request::Parts;
use leastgate_policy::shown;
use leastgate_telemetry::BaitShown;

use crate::listener::Peer;
use crate::state::Shared;

/// Raises the alarm for each bait anywhere in a head.
pub(crate) fn notice(shared: &Shared, parts: &Parts) {
    let authority = &shared.given.authority;
    let Some(snapshot) = authority.snapshot() else { return };
    let source = match parts.extensions.get() {
        Some(Peer::Tcp { source, .. }) => Some((source.ip(), source.port())),
        Some(Peer::Unix { .. }) | None => None,
    };
    for bait in &shown::baits(parts, &snapshot, authority.key()) {
        shared.given.telemetry.bait_shown(&BaitShown { bait, source, policy_rev: Some(snapshot.revision()) });
    }
}
