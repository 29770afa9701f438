//! A revocation of many is a list before it is rows: what it promises from its commit on, and how the rows follow.

use std::time::{Duration, Instant};

use leastgate_policy::TokenState;
use leastgate_store::archive::{Owner, Restore, RestoreOptions, backup, check};
use leastgate_store::{
    Change, NewToken, OldEnd, Rotation, SortKey, SqliteOptions, SqliteStore, StateChange, StateDir, StateFilter,
    StoreError, TokenQuery, TokenRecord, TokenStore,
};
use rusqlite::Connection;

use crate::fixture::{ENV, Home, NOW, change, key, loaded, named, options, record};

/// Nothing is brought up to date: what is read is the list.
fn held(home: &Home) -> SqliteStore {
    home.try_open(SqliteOptions { rows_at_once: 0, ..options() }).unwrap()
}

fn create(store: &SqliteStore, count: usize) -> Vec<TokenRecord> {
    let tokens: Vec<_> = (0..count).map(|number| record(named(&format!("t-{number}")))).collect();
    store.create_tokens(tokens.clone()).unwrap();
    tokens
}

fn revoke(store: &SqliteStore, tokens: &[TokenRecord]) -> Result<usize, StoreError> {
    store.revoke_tokens(tokens.iter().map(|token| token.accessor).collect(), change(Change::Revoke))
}

fn revoked(token: &TokenRecord) -> TokenRecord {
    let state_changed = Some(change(Change::Revoke));
    TokenRecord { state: TokenState::Revoked, state_changed, version: token.version + 1, ..token.clone() }
}

/// What the rows themselves say.
fn revoked_rows(home: &Home) -> i64 {
    let file = Connection::open(&home.path).unwrap();
    file.query_one("SELECT count(*) FROM tokens WHERE state = 'revoked'", [], |row| row.get(0)).unwrap()
}

fn wait_for_rows(store: &SqliteStore) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while store.count_pending().unwrap() > 0 {
        assert!(Instant::now() < deadline, "the rows follow");
        std::thread::yield_now();
    }
}

#[test]
fn a_revocation_of_many_counts_before_a_row_is_written_and_after_a_restart() {
    let home = Home::new();
    let store = held(&home);
    let tokens = create(&store, 5);
    assert_eq!(revoke(&store, &tokens[..3]), Ok(3));
    assert_eq!(revoke(&store, &tokens[..4]), Ok(1), "the first revocation stays");
    drop(store);
    let store = held(&home);
    assert_eq!((store.count_pending(), revoked_rows(&home)), (Ok(4), 0));
    for token in &tokens[..4] {
        assert_eq!(store.token(token.accessor), Ok(revoked(token)));
        assert_eq!(store.find_token(token.name.as_str()), Ok(revoked(token)));
    }
    let living = loaded(&store).into_iter().filter(|entry| entry.state == TokenState::Active);
    assert!(living.map(|entry| entry.accessor).eq([tokens[4].accessor]));
    let query = |state| TokenQuery { state: Some(state), ..TokenQuery::all(NOW) };
    let listed = |state| store.list_tokens(&query(state)).unwrap().items.len();
    assert_eq!((listed(StateFilter::Active), listed(StateFilter::Revoked)), (1, 4));
}

#[test]
fn the_rows_follow_after_a_restart_and_say_the_same() {
    let home = Home::new();
    let tokens = {
        let store = held(&home);
        let tokens = create(&store, 20);
        assert_eq!(revoke(&store, &tokens[5..]), Ok(15));
        tokens
    };
    let store = home.try_open(SqliteOptions { rows_at_once: 2, ..options() }).unwrap();
    wait_for_rows(&store);
    assert_eq!(revoked_rows(&home), 15);
    for token in &tokens[5..] {
        assert_eq!(store.token(token.accessor), Ok(revoked(token)));
    }
    // Without being opened anew as well, and nothing is left of the lists.
    assert_eq!(revoke(&store, &tokens), Ok(5));
    wait_for_rows(&store);
    assert_eq!(revoked_rows(&home), 20);
    drop(store);
    let file = Connection::open(&home.path).unwrap();
    let left: i64 = file.query_one("SELECT count(*) FROM bulk_revocations", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_few_are_written_into_their_rows_at_once() {
    let home = Home::new();
    let store = home.try_open(SqliteOptions { rows_at_once: 3, ..options() }).unwrap();
    let tokens = create(&store, 3);
    let other = Connection::open(&home.path).unwrap();
    revoke(&store, &tokens).unwrap();
    let pending: i64 = other.query_one("SELECT count(*) FROM pending_revocations", [], |row| row.get(0)).unwrap();
    assert_eq!((pending, revoked_rows(&home)), (0, 3));
}

#[test]
fn a_name_is_free_before_the_row_says_so() {
    let home = Home::new();
    let store = held(&home);
    let tokens = create(&store, 3);
    revoke(&store, &tokens).unwrap();
    let again = store.create_token(record(named("t-0"))).unwrap();
    assert_eq!(store.find_token("t-0"), Ok(again));
    assert_eq!(store.token(tokens[0].accessor), Ok(revoked(&tokens[0])));
    store.create_tokens(vec![record(named("t-1"))]).unwrap();
    assert_eq!(store.count_pending(), Ok(1), "only those whose names were asked for");
}

/// Its number goes to another row, which must not find itself on the list.
#[test]
fn what_is_purged_leaves_the_list() {
    let home = Home::new();
    let store = held(&home);
    let over = record(NewToken { expires: Some(NOW.plus(1)), ..named("over") });
    store.create_token(over.clone()).unwrap();
    revoke(&store, std::slice::from_ref(&over)).unwrap();
    assert_eq!(store.purge(NOW.plus(2), 10), Ok(vec![over.digest]), "by its end");
    let next = store.create_token(record(named("next"))).unwrap();
    assert_eq!(store.token(next.accessor), Ok(next.clone()));
    revoke(&store, std::slice::from_ref(&next)).unwrap();
    assert_eq!(store.purge(change(Change::Revoke).at, 10), Ok(vec![]), "not before its time");
    assert_eq!(store.purge(change(Change::Revoke).at.plus(1), 10), Ok(vec![next.digest]), "by its revocation");
    assert_eq!((store.count_tokens(), store.count_pending()), (Ok(0), Ok(0)));
}

#[test]
fn a_revocation_that_has_no_room_is_not_made_in_part() {
    const MANY: usize = 3_000;
    let home = Home::new();
    let tokens = create(&held(&home), MANY);
    let file = Connection::open(&home.path).unwrap();
    let pages: u32 = file.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    drop(file);
    let full = SqliteOptions { max_pages: Some(pages + 2), rows_at_once: 0, ..options() };
    let store = home.try_open(full).unwrap();
    assert_eq!(revoke(&store, &tokens), Err(StoreError::DiskFull { path: home.path }));
    assert_eq!(store.count_pending(), Ok(0));
    assert_eq!(revoke(&store, &tokens[..100]), Ok(100), "what is smaller still fits");
    assert_eq!(store.token(tokens[0].accessor), Ok(revoked(&tokens[0])));
    assert_eq!(store.token(tokens[100].accessor), Ok(tokens[100].clone()));
}

#[test]
fn whatever_its_state_was_it_is_found_among_the_revoked_and_nowhere_else() {
    let home = Home::new();
    let store = held(&home);
    let [active, disabled, rotated, over] = ["active", "disabled", "rotated", "over"].map(|name| {
        let expires = (name == "over").then(|| NOW.plus(1));
        store.create_token(record(NewToken { expires, ..named(name) })).unwrap().accessor
    });
    store.change_state(disabled, change(Change::Disable), None).unwrap();
    let successor = store.token(rotated).unwrap();
    let successor =
        TokenRecord { accessor: record(named("x")).accessor, digest: record(named("x")).digest, ..successor };
    let rotation = Rotation { old: rotated, successor, end: OldEnd::Grace(NOW.plus(90)), expected: None };
    let successor = store.rotate_token(rotation).unwrap().successor.accessor;
    let states =
        [StateFilter::Active, StateFilter::Disabled, StateFilter::Rotating, StateFilter::Expired, StateFilter::Revoked];
    let listed = |sort| {
        states.map(|state| {
            let query = TokenQuery { state: Some(state), sort, ..TokenQuery::all(NOW.plus(10)) };
            store.list_tokens(&query).unwrap().items.len()
        })
    };
    assert_eq!(listed(SortKey::Name), [2, 1, 1, 1, 0]);
    store.revoke_tokens(vec![active, disabled, rotated, over, successor], change(Change::Revoke)).unwrap();
    for sort in [SortKey::Name, SortKey::Created, SortKey::Expires, SortKey::LastUsed] {
        assert_eq!(listed(sort), [0, 0, 0, 0, 5], "{sort:?}");
    }
    assert_eq!((store.count_pending(), store.sharing_limits()), (Ok(5), Ok(vec![])));
}

#[test]
fn who_stood_in_for_a_token_keeps_its_own_end_whatever_becomes_of_that_token() {
    for is_rotated in [false, true] {
        let home = Home::new();
        let store = held(&home);
        let parent = store.create_token(record(named("parent"))).unwrap();
        let child = record(NewToken { parent: Some(parent.accessor), ..named("child") });
        store.create_token(child.clone()).unwrap();
        revoke(&store, std::slice::from_ref(&child)).unwrap();
        if is_rotated {
            let end = OldEnd::Grace(NOW.plus(90));
            let rotation = Rotation { old: parent.accessor, successor: record(named("parent")), end, expected: None };
            store.rotate_token(rotation).unwrap();
        } else {
            let later = StateChange { reason: "another".into(), ..change(Change::Revoke) };
            store.change_state(parent.accessor, later, None).unwrap();
        }
        assert_eq!(store.token(child.accessor), Ok(revoked(&child)), "{is_rotated}");
    }
}

fn owner(key: &leastgate_policy::EnvironmentKey) -> Owner<'_> {
    Owner { environment: ENV, key }
}

fn go_on(_: leastgate_store::archive::Progress) -> std::ops::ControlFlow<()> {
    std::ops::ControlFlow::Continue(())
}

#[test]
fn a_backup_has_the_list_and_its_check_counts_it() {
    let home = Home::new();
    let store = held(&home);
    let tokens = create(&store, 4);
    revoke(&store, &tokens[..3]).unwrap();
    let to = home.path.with_file_name("backup.db");
    let report = backup(&home.path, &to, owner(&key()), NOW, &mut go_on).unwrap();
    assert_eq!((report.faults, report.holds.tokens, report.holds.revoked_tokens), (0, 4, 3));
    drop(store);
    for is_there_a_store in [true, false] {
        let dir = StateDir::open(home.path.parent().unwrap()).unwrap();
        if !is_there_a_store {
            std::fs::remove_file(&home.path).unwrap();
        }
        let options = RestoreOptions { forget_revocations: !is_there_a_store, ..RestoreOptions::default() };
        let ready = Restore::prepare(&dir, &to, owner(&key()), options, crate::archive::hand(), &mut go_on).unwrap();
        let carried = ready.carried().cloned().unwrap_or_default();
        assert_eq!((carried.revoked, carried.lost, carried.unknown), (0, 0, 0), "nothing is new");
        ready.finish(&is_there_a_store.to_string()).unwrap();
        let store = held(&home);
        assert_eq!(store.token(tokens[0].accessor).unwrap().state, TokenState::Revoked);
        assert_eq!(store.token(tokens[3].accessor), Ok(tokens[3].clone()));
        drop(store);
        assert!(check(&home.path, Some(owner(&key())), &mut go_on).unwrap().is_fine());
    }
}

#[test]
fn what_is_on_the_present_list_is_carried_into_a_backup_from_before() {
    let home = Home::new();
    let store = held(&home);
    let tokens = create(&store, 4);
    let to = home.path.with_file_name("backup.db");
    backup(&home.path, &to, owner(&key()), NOW, &mut go_on).unwrap();
    revoke(&store, &tokens[..3]).unwrap();
    drop(store);
    let dir = StateDir::open(home.path.parent().unwrap()).unwrap();
    let ready =
        Restore::prepare(&dir, &to, owner(&key()), RestoreOptions::default(), crate::archive::hand(), &mut go_on)
            .unwrap();
    assert_eq!(ready.carried().unwrap().revoked, 3);
    ready.finish("now").unwrap();
    let store = held(&home);
    for token in &tokens[..3] {
        let kept = store.token(token.accessor).unwrap();
        let expected: StateChange = change(Change::Revoke);
        assert_eq!((kept.state, kept.state_changed), (TokenState::Revoked, Some(expected)));
        assert!(kept.version > token.version + 1, "a version that was seen does not come back");
    }
    assert_eq!(store.token(tokens[3].accessor).unwrap().state, TokenState::Active);
}
