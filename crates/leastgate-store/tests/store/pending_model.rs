//! Two stores that are asked the same: one writes each revocation into its row, the other keeps lists and never brings a
//! row up to date. Nobody can tell them apart, whatever comes in between.

use leastgate_policy::Timestamp;
use leastgate_store::{
    Change, MadeUnder, NewToken, OldEnd, Rotated, Rotation, SortKey, SqliteOptions, SqliteStore, StateChange,
    StateFilter, StoreError, TimeFilter, TokenQuery, TokenRecord, TokenStore, UsageBatch, UsageDelta,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::fixture::{ENV, NOW, key, key_of, loaded, named, options, record};

/// Tokens there may be.
const TOKENS: usize = 10;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const OWNERS: [Option<&str>; 3] = [None, Some("x"), Some("y")];

/// What is asked; tokens are called by their number.
#[derive(Clone, Debug)]
enum Ask {
    Create(usize),
    CreateMany(usize, usize),
    RevokeMany(Vec<usize>, u64),
    Change(usize, Change, Option<u64>, u64),
    Update(usize),
    Rotate(usize, usize, Option<u64>),
    Use(usize, u64),
    Purge(u64),
}

fn ask() -> impl Strategy<Value = Ask> {
    let token = || 0..TOKENS;
    let at = || 1_u64..40;
    let change = prop_oneof![Just(Change::Revoke), Just(Change::Disable), Just(Change::Enable)];
    prop_oneof![
        2 => token().prop_map(Ask::Create),
        4 => (token(), 2..5_usize).prop_map(|(first, count)| Ask::CreateMany(first, count)),
        6 => (vec(token(), 1..6), at()).prop_map(|(tokens, at)| Ask::RevokeMany(tokens, at)),
        3 => (token(), change, proptest::option::of(1_u64..4), at())
            .prop_map(|(token, change, expected, at)| Ask::Change(token, change, expected, at)),
        1 => token().prop_map(Ask::Update),
        2 => (token(), token(), proptest::option::of(at())).prop_map(|(old, new, end)| Ask::Rotate(old, new, end)),
        1 => (token(), at()).prop_map(|(token, at)| Ask::Use(token, at)),
        1 => at().prop_map(Ask::Purge),
    ]
}

/// Records to be made: few names, some with an end, each third but one standing in for the one before.
fn drawn() -> Vec<TokenRecord> {
    let mut all: Vec<TokenRecord> = Vec::new();
    for number in 0..TOKENS {
        let parent = (number % 3 == 2).then(|| all[number - 1].accessor);
        all.push(record(NewToken {
            owner: OWNERS[number % 3].map(str::to_owned),
            created: NOW.plus(number as u64),
            expires: (number % 4 == 1).then(|| NOW.plus(15)),
            is_canary: number == 6,
            parent,
            ..named(NAMES[number % NAMES.len()])
        }));
    }
    all
}

/// What an answer is, as far as it can be compared.
#[derive(Debug, PartialEq)]
enum Answer {
    Token(Box<Result<TokenRecord, StoreError>>),
    Rotated(Box<Result<Rotated, StoreError>>),
    Count(Result<usize, StoreError>),
    Done(Result<(), StoreError>),
}

fn make(store: &SqliteStore, drawn: &[TokenRecord], asked: &Ask) -> Answer {
    let change = |change, at| StateChange { change, reason: format!("r{at}"), by: "ann".into(), at: NOW.plus(at) };
    match asked {
        Ask::Create(number) => Answer::Token(Box::new(store.create_token(drawn[*number].clone()))),
        Ask::CreateMany(first, count) => {
            Answer::Count(store.create_tokens(drawn.iter().skip(*first).take(*count).cloned().collect()))
        }
        Ask::RevokeMany(numbers, at) => {
            let accessors = numbers.iter().map(|number| drawn[*number].accessor).collect();
            Answer::Count(store.revoke_tokens(accessors, change(Change::Revoke, *at)))
        }
        Ask::Change(number, to, expected, at) => {
            Answer::Token(Box::new(store.change_state(drawn[*number].accessor, change(*to, *at), *expected)))
        }
        Ask::Update(number) => {
            let kept = store.token(drawn[*number].accessor);
            Answer::Token(Box::new(
                kept.and_then(|kept| store.update_token(TokenRecord { note: Some("n".into()), ..kept })),
            ))
        }
        Ask::Rotate(old, new, grace) => {
            let end = match grace {
                Some(end) => OldEnd::Grace(NOW.plus(*end)),
                None => OldEnd::Revoked(change(Change::Revoke, 9)),
            };
            let name = drawn[*old].name.clone();
            let successor = TokenRecord { name, parent: None, ..drawn[*new].clone() };
            let rotation = Rotation { old: drawn[*old].accessor, successor, end, expected: None };
            Answer::Rotated(Box::new(store.rotate_token(rotation)))
        }
        Ask::Use(number, at) => {
            let (accessor, last_used) = (drawn[*number].accessor, NOW.plus(*at));
            let delta = UsageDelta { accessor, rule: Some("r".into()), count: 1, last_used, last_source: None };
            Answer::Done(store.record_usage(UsageBatch::draw(vec![delta]).unwrap()))
        }
        // As many as there may be: which of them go first is nobody's business.
        Ask::Purge(before) => Answer::Count(store.purge(NOW.plus(*before), 100).map(|digests| digests.len())),
    }
}

/// All that a store can be asked, as text: what differs is easy to see. A turn asks for some of the lists.
fn readings(store: &SqliteStore, drawn: &[TokenRecord], turn: usize) -> Vec<String> {
    let mut all = vec![];
    for token in drawn {
        all.push(format!("token {:?}", store.token(token.accessor)));
        all.push(format!("predecessors {:?}", store.predecessors_of(token.accessor)));
    }
    all.extend(NAMES.map(|name| format!("{name} {:?}", store.find_token(name))));
    all.push(format!("sharing {:?}", store.sharing_limits()));
    all.push(format!("count {:?}", store.count_tokens()));
    for at in [5, 12, 20, 60].map(|at| NOW.plus(at)) {
        let mut idle = store.idle_tokens(at, 100).unwrap();
        idle.sort_by_key(|token| token.accessor);
        all.push(format!("idle {idle:?}"));
        all.push(format!("made before {:?}", store.count_made_before(at, NOW.plus(10))));
        all.push(format!("stragglers {:?}", store.count_stragglers(at)));
        let mut seen = vec![];
        store
            .for_each_by_time(&TimeFilter { created_before: Some(at), ..TimeFilter::default() }, &mut |accessor| {
                seen.push(accessor);
            })
            .unwrap();
        all.push(format!("by time {seen:?}"));
    }
    all.push(format!("entries {:?}", loaded(store)));
    all.extend(queries(turn).iter().map(|query| format!("{query:?} {:?}", pages(store, query))));
    all
}

fn queries(turn: usize) -> Vec<TokenQuery> {
    let states = [
        None,
        Some(StateFilter::Active),
        Some(StateFilter::Rotating),
        Some(StateFilter::Disabled),
        Some(StateFilter::Expired),
        Some(StateFilter::Revoked),
    ];
    let sorts = [SortKey::Name, SortKey::Created, SortKey::Expires, SortKey::LastUsed];
    let times = [None, Some(Timestamp(NOW.0 + 6))];
    let mut queries = vec![];
    for state in states {
        let (sort, owner) = (sorts[turn % 4], OWNERS[1 + turn % 2].map(str::to_owned));
        queries.push(TokenQuery { state, sort, limit: 2, ..TokenQuery::all(NOW.plus(10)) });
        queries.push(TokenQuery { state, sort, owner, ..TokenQuery::all(NOW.plus(20)) });
        let of = TimeFilter { unused_since: times[turn % 2], created_before: times[1 - turn % 2] };
        queries.push(TokenQuery { state, sort, times: of, limit: 1, ..TokenQuery::all(NOW) });
        queries.push(TokenQuery { state, pepper: Some(MadeUnder::Previous), ..TokenQuery::all(NOW) });
    }
    queries
}

/// Each page's tokens.
fn pages(store: &SqliteStore, query: &TokenQuery) -> Vec<Vec<TokenRecord>> {
    let mut query = query.clone();
    let mut pages = vec![];
    loop {
        let page = store.list_tokens(&query).unwrap();
        pages.push(page.items);
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return pages;
        }
        assert!(pages.len() <= TOKENS + 1, "a list that ends");
    }
}

/// Under a newer pepper than its tokens were made with, so that they count as stragglers.
fn store(rows_at_once: u32) -> SqliteStore {
    let newer = key_of(8, ENV).replacing(&key());
    SqliteStore::in_memory_with(ENV, &newer, SqliteOptions { rows_at_once, ..options() }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_list_of_revocations_is_as_good_as_their_rows(asked in vec(ask(), 8..20)) {
        let (listing, writing, drawn) = (store(0), store(u32::MAX), drawn());
        for (number, asked) in asked.iter().enumerate() {
            prop_assert_eq!(make(&listing, &drawn, asked), make(&writing, &drawn, asked), "{:?}", asked);
            let readings = |store| readings(store, &drawn, number);
            for (one, other) in readings(&listing).into_iter().zip(readings(&writing)) {
                prop_assert_eq!(one, other, "after {:?}", asked);
            }
        }
    }
}
