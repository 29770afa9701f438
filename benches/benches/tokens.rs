//! A million tokens: how long they take from the store into the table, how many bytes each takes there, and how long what
//! administrators ask of them takes.
//!
//! Prints one JSON object. Bytes are the growth of the process's resident set while the table is filled, with the
//! allocator that ships; the interned owners, roles and names are in it. What is durable stands beside the fsync of the same
//! disk in the same run; revoking many, beside the look-ups of a thread that goes on meanwhile.

#![allow(clippy::print_stdout, reason = "the result is what it prints")]

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leastgate_benches::{NOW, token_text};
use leastgate_policy::{Accessor, Authority, EnvironmentKey, Pepper, Restrictions, Timestamp, TokenState, TokenTable};
use leastgate_store::{
    Change, SortKey, SqliteOptions, SqliteStore, StateChange, StateFilter, TimeFilter, TokenName, TokenQuery,
    TokenRecord, TokenStore,
};
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
        .load(&|entry| authority.upsert(entry).expect("256-bit digests do not collide"))
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
            "lists": lists(&store, tokens),
            "durable": durable(&store, authority.key(), dir.path(), tokens),
            "revoking": revoking(&store, &authority),
        })
    );
}

/// Milliseconds of a page of 200, by what is asked.
fn lists(store: &SqliteStore, tokens: u64) -> serde_json::Value {
    let all = TokenQuery::all(NOW);
    let times = |unused_since| TimeFilter { unused_since: Some(unused_since), created_before: None };
    let middle = format!("n.{}.service-{}", tokens / 2, tokens / 2);
    let asked = [
        ("by_name", all.clone()),
        ("from_the_middle", TokenQuery { cursor: Some(middle), ..all.clone() }),
        ("by_end", TokenQuery { sort: SortKey::Expires, ..all.clone() }),
        ("by_last_use", TokenQuery { sort: SortKey::LastUsed, ..all.clone() }),
        ("of_an_owner", TokenQuery { owner: Some("team-7".into()), ..all.clone() }),
        ("disabled", TokenQuery { state: Some(StateFilter::Disabled), ..all.clone() }),
        ("expired", TokenQuery { state: Some(StateFilter::Expired), ..all.clone() }),
        ("unused_since_all_fit", TokenQuery { times: times(NOW), ..all.clone() }),
        ("unused_since_none_fit", TokenQuery { times: times(Timestamp(1)), ..all.clone() }),
        ("unused_of_an_owner", TokenQuery { times: times(NOW), owner: Some("team-7".into()), ..all }),
    ];
    let timed = asked.into_iter().map(|(name, query)| {
        let page = || drop(store.list_tokens(&query).expect("the list is read"));
        (name.to_owned(), json!(median(9, page)))
    });
    timed.collect::<serde_json::Map<_, _>>().into()
}

/// Milliseconds of one change until it is on disk, and of an fsync there.
fn durable(store: &SqliteStore, key: &EnvironmentKey, dir: &std::path::Path, tokens: u64) -> serde_json::Value {
    let mut file = std::fs::File::create(dir.join("fsync")).expect("a file can be made");
    let fsync = median(21, || {
        file.write_all(&[7; 4096]).expect("the file can be written");
        file.sync_all().expect("the file can be synced");
    });
    let mut next = tokens;
    let create = median(21, || {
        next += 1;
        store.create_token(record(key, next)).expect("the store takes it");
    });
    let mut next = tokens;
    let revoke = median(21, || {
        next += 1;
        store.change_state(Accessor::from_random(next), change(), None).expect("the store takes it");
    });
    json!({ "fsync_ms": fsync, "create_ms": create, "revoke_ms": revoke })
}

/// Revokes a tenth of all tokens while another thread looks tokens up.
fn revoking(store: &SqliteStore, authority: &Arc<Authority>) -> serde_json::Value {
    let before = look_ups(authority, || std::thread::sleep(Duration::from_secs(1)));
    let mut took = Duration::ZERO;
    let mut revoked = 0;
    let meanwhile = look_ups(authority, || {
        let begun = Instant::now();
        let mut found = Vec::new();
        let teams: Vec<String> = (0..10).map(|team| format!("team-{team}")).collect();
        authority.tokens().for_each(|digest, token| {
            let owner = token.entitlement.holdings().owner.as_deref().unwrap_or_default();
            if teams.iter().any(|team| team == owner) {
                found.push((token.accessor, *digest));
            }
        });
        for (_, digest) in &found {
            authority.set_state(digest, TokenState::Revoked);
        }
        let accessors = found.iter().map(|(accessor, _)| *accessor).collect();
        revoked = store.revoke_tokens(accessors, change()).expect("the store takes them");
        took = begun.elapsed();
    });
    let behind = while_pending(store, authority);
    json!({
        "tokens": revoked,
        "seconds": took.as_secs_f64(),
        "look_up_p99_us_before": before,
        "look_up_p99_us_meanwhile": meanwhile,
        "behind": behind,
    })
}

/// While the revoked tokens' rows follow: how long a load, a page and a change take, and how long it lasts.
fn while_pending(store: &SqliteStore, authority: &Arc<Authority>) -> serde_json::Value {
    let begun = Instant::now();
    let loading = Instant::now();
    store.load(&|entry| drop(std::hint::black_box(entry))).expect("the store can be read");
    let load = loading.elapsed();
    let state = |state| TokenQuery { state: Some(state), ..TokenQuery::all(NOW) };
    let page = |query: TokenQuery| median(5, || drop(store.list_tokens(&query).expect("the list is read")));
    let (revoked, active) = (page(state(StateFilter::Revoked)), page(state(StateFilter::Active)));
    let mut next = 900_000;
    let change = median(21, || {
        next += 1;
        store.create_token(record(authority.key(), 2_000_000 + next)).expect("the store takes it");
    });
    let left = store.count_pending().expect("they are counted");
    while store.count_pending().expect("they are counted") > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    json!({
        "read_all_seconds": load.as_secs_f64(),
        "list_revoked_ms": revoked,
        "list_active_ms": active,
        "create_ms": change,
        "left_by_then": left,
        "seconds": begun.elapsed().as_secs_f64(),
    })
}

/// Runs `work`, and gives the 99th percentile of a look-up in microseconds on a thread beside it.
fn look_ups(authority: &Arc<Authority>, work: impl FnOnce()) -> f64 {
    let (stop, of_thread) = (Arc::new(AtomicBool::new(false)), Arc::clone(authority));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let mut times = Vec::new();
        for index in (0_u64..).step_by(7919) {
            if stopped.load(Ordering::Relaxed) {
                break;
            }
            let text = token_text(index % 1_000_000);
            let begun = Instant::now();
            let digest = of_thread.key().digest(text.expose().as_bytes());
            std::hint::black_box(of_thread.tokens().get(&digest));
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        times.get(times.len() * 99 / 100).map_or(0.0, |time| time.as_secs_f64() * 1e6)
    });
    work();
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("the look-ups end")
}

fn change() -> StateChange {
    StateChange { change: Change::Revoke, reason: "bench".into(), by: "bench".into(), at: NOW }
}

/// The median of so many runs, in milliseconds.
fn median(runs: usize, mut run: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let begun = Instant::now();
            run();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[runs / 2].as_secs_f64() * 1e3
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
        created: Timestamp(1_700_000_000),
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
