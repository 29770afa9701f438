//! A million tokens: how long they take from the store into the table, and how many bytes each takes there.
//!
//! Prints one JSON object. Bytes are the growth of the process's resident set while the table is filled, with the
//! allocator that ships; the interned owners, roles and names are in it.

#![allow(clippy::print_stdout, reason = "the result is what it prints")]

use std::sync::Arc;
use std::time::Instant;

use leastgate_benches::token_text;
use leastgate_policy::{Accessor, Authority, EnvironmentKey, Pepper, Restrictions, Timestamp, TokenState, TokenTable};
use leastgate_store::{SqliteOptions, SqliteStore, TokenName, TokenRecord, TokenStore};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: u64 = 20_000;

fn main() {
    let tokens: u64 = std::env::var("TOKENS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let pepper = Pepper::new(vec![7; 32]).expect("32 bytes are enough");
    let key = EnvironmentKey::derive(&pepper, "prod");
    let path = dir.path().join("store.db");
    let store = SqliteStore::open(&path, "prod", &key, SqliteOptions::default()).expect("a fresh store opens");
    let filling = Instant::now();
    for first in (0..tokens).step_by(usize::try_from(BATCH).unwrap_or(1)) {
        let batch = (first..tokens.min(first + BATCH)).map(|index| record(&key, index)).collect();
        store.create_tokens(batch).expect("the store takes a batch");
    }
    let filled = filling.elapsed();
    let before = resident();
    let loading = Instant::now();
    let table = TokenTable::with_capacity(usize::try_from(tokens).unwrap_or(0));
    let authority = Arc::new(Authority::with_tokens(key, table));
    let loaded = store
        .for_each_entry(&mut |entry| authority.upsert(entry).expect("256-bit digests do not collide"))
        .expect("the store can be read");
    let load = loading.elapsed();
    let grown = resident().saturating_sub(before);
    println!(
        "{}",
        json!({
            "tokens": loaded,
            "into_store_seconds": filled.as_secs_f64(),
            "load_seconds": load.as_secs_f64(),
            "resident_bytes_per_token": grown / loaded.max(1),
        })
    );
}

fn record(key: &EnvironmentKey, index: u64) -> TokenRecord {
    TokenRecord {
        accessor: Accessor::from_random(index),
        digest: key.digest(token_text(index).expose().as_bytes()),
        name: TokenName::parse(&format!("service-{index}")).expect("a name"),
        env: "prod".into(),
        owner: Some(format!("team-{}", index % 100)),
        roles: vec![format!("role-{}", index % 50)],
        grants: vec![],
        restrictions: Restrictions::default(),
        limits: Default::default(),
        created: Timestamp(1_800_000_000),
        created_by: "bench".into(),
        expires: Some(Timestamp(1_900_000_000)),
        state: TokenState::Active,
        state_changed: None,
        pepper_id: "bench".into(),
        successor: None,
        parent: None,
        is_canary: false,
        note: None,
        last_use: None,
        version: 1,
    }
}

/// Resident set of this process, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}
