//! The control plane on real listeners, with the real store and the real engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may be blunt, their helpers too")]

mod access;
mod advice;
mod blocked_store;
mod conditions;
mod cuts;
mod edits;
mod fixture;
mod held_store;
mod hostile;
mod lifecycle;
mod limits;
mod many;
mod moved;
mod networks;
mod on_record;
mod over_client;
mod races;
mod refused_on_record;
mod revoked_admins;
mod rotation;
mod served_ops;
mod stand_ins;
mod stuck_store;
mod takings;
