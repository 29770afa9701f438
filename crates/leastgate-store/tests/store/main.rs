//! The store as its callers see it, on a real file: what is kept, what is refused, and what survives.

#![allow(clippy::unwrap_used, reason = "tests may be blunt, their helpers too")]

mod admins;
mod archive;
mod bulk;
mod carried;
mod carried_damage;
mod carried_usage;
mod changes;
mod fixture;
mod listing;
mod objects;
mod pending;
mod pending_model;
mod peppers;
mod refusals;
mod restores;
mod rotation;
mod round_trip;
mod tombstones;
mod undo;
mod usage;
