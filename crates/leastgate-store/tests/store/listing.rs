//! Pages, their order and their filters.

use leastgate_store::{
    Change, MAX_PAGE, NewToken, SortKey, SqliteStore, StateFilter, StoreError, TimeFilter, TokenQuery, TokenStore,
};

use crate::fixture::{NOW, change, memory, named, record};

/// All names that a query yields, page by page.
fn names(store: &SqliteStore, mut query: TokenQuery) -> Vec<String> {
    let mut names = vec![];
    loop {
        let page = store.list_tokens(&query).unwrap();
        assert!(page.items.len() <= query.limit as usize);
        assert!(names.len() <= 1000, "the pages never end");
        names.extend(page.items.iter().map(|token| token.name.to_string()));
        match page.next_cursor {
            Some(cursor) => query.cursor = Some(cursor),
            None => return names,
        }
    }
}

#[test]
fn pages_join_to_the_whole_in_every_order() {
    let store = memory();
    // Many share a key, so that pages end in the middle of equal ones.
    for number in 0..25_u64 {
        let expires = (number % 5 != 0).then(|| NOW.plus(100 + number % 3));
        let created = NOW.plus(number % 4);
        let token = NewToken { expires, created, ..named(&format!("t-{:02}", number * 7 % 25)) };
        store.create_token(record(token)).unwrap();
    }
    for sort in [SortKey::Name, SortKey::Created, SortKey::Expires, SortKey::LastUsed] {
        let whole = store.list_tokens(&TokenQuery { sort, ..TokenQuery::all(NOW) }).unwrap();
        assert!(whole.next_cursor.is_none());
        let key = |token: &leastgate_store::TokenRecord| match sort {
            SortKey::Name => (token.name.to_string(), 0),
            SortKey::Created | SortKey::LastUsed => (String::new(), token.created.0),
            SortKey::Expires => (String::new(), token.expires.map_or(u64::MAX, |at| at.0)),
        };
        assert!(whole.items.is_sorted_by_key(key), "{sort:?}");
        let expected: Vec<_> = whole.items.iter().map(|token| token.name.to_string()).collect();
        assert_eq!(expected.len(), 25);
        for limit in [1, 4, 24, 25] {
            assert_eq!(names(&store, TokenQuery { sort, limit, ..TokenQuery::all(NOW) }), expected, "{sort:?} {limit}");
        }
    }
}

#[test]
fn states_are_what_people_mean_by_them() {
    let store = memory();
    let soon = Some(NOW.plus(10));
    for (name, expires) in [("lasting", None), ("ending", soon), ("off", None), ("off-and-over", soon), ("gone", soon)]
    {
        store.create_token(record(NewToken { expires, owner: Some(format!("of-{name}")), ..named(name) })).unwrap();
    }
    for (name, asked) in [("off", Change::Disable), ("off-and-over", Change::Disable), ("gone", Change::Revoke)] {
        let accessor = store.find_token(name).unwrap().accessor;
        store.change_state(accessor, change(asked), None).unwrap();
    }
    let at = |now, state| names(&store, TokenQuery { state: Some(state), ..TokenQuery::all(now) });
    assert_eq!(at(NOW, StateFilter::Active), ["ending", "lasting"]);
    assert_eq!(at(NOW.plus(10), StateFilter::Active), ["lasting"]);
    assert_eq!(at(NOW.plus(10), StateFilter::Expired), ["ending", "off-and-over"]);
    assert_eq!(at(NOW.plus(10), StateFilter::Disabled), ["off"]);
    assert_eq!(at(NOW.plus(10), StateFilter::Revoked), ["gone"]);
    assert!(at(NOW, StateFilter::Rotating).is_empty());
    let of_one = TokenQuery { owner: Some("of-gone".into()), ..TokenQuery::all(NOW) };
    assert_eq!(names(&store, of_one), ["gone"]);
}

#[test]
fn a_page_has_a_most_and_a_cursor_has_a_home() {
    let store = memory();
    let tokens = (0..MAX_PAGE + 1).map(|number| record(named(&format!("t{number}")))).collect();
    store.create_tokens(tokens).unwrap();
    let greedy = TokenQuery { limit: u32::MAX, ..TokenQuery::all(NOW) };
    let page = store.list_tokens(&greedy).unwrap();
    assert_eq!(page.items.len(), MAX_PAGE as usize);
    for cursor in [page.next_cursor.unwrap(), "x".into(), "' OR 1=1 --".into()] {
        let elsewhere = TokenQuery { sort: SortKey::Expires, cursor: Some(cursor), ..TokenQuery::all(NOW) };
        assert_eq!(store.list_tokens(&elsewhere), Err(StoreError::BadCursor));
    }
    assert_eq!(store.list_tokens(&TokenQuery { limit: 0, ..TokenQuery::all(NOW) }).unwrap().items.len(), 1);
}

#[test]
fn a_range_of_time_is_the_same_whichever_index_is_walked() {
    let store = memory();
    // More than a small range holds, so that both ways are gone.
    const MANY: u64 = 12_000;
    let create =
        |number: u64| record(NewToken { created: NOW.plus(number), ..named(&format!("t-{:05}", number * 7 % MANY)) });
    store.create_tokens((0..MANY).map(create).collect()).unwrap();
    for (before, count) in [(0, 0), (30, 30), (11_000, 11_000), (MANY, 12_000)] {
        let until = Some(NOW.plus(before));
        for times in [
            TimeFilter { created_before: until, ..TimeFilter::default() },
            TimeFilter { unused_since: until, ..TimeFilter::default() },
            TimeFilter { unused_since: until, created_before: until },
        ] {
            let query = TokenQuery { times, limit: 200, ..TokenQuery::all(NOW) };
            let mut seen = vec![];
            let mut cursor = None;
            loop {
                let page = store.list_tokens(&TokenQuery { cursor, ..query.clone() }).unwrap();
                seen.extend(page.items.into_iter().map(|token| (token.name, token.created)));
                cursor = page.next_cursor;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(seen.len(), count, "{times:?}");
            assert!(seen.is_sorted() && seen.iter().all(|(_, created)| *created < NOW.plus(before)));
        }
    }
}
