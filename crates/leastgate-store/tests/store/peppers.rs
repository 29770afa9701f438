//! A pepper that is being replaced: the store goes over to the new one, and its records one by one.

use leastgate_policy::{EnvironmentKey, Straggler, StragglerKind, TokenDigest};
use leastgate_store::draw::{draw_secret, draw_token, made_under};
use leastgate_store::{
    AdminRole, Change, MadeUnder, MayGrant, NewAdmin, Redigested, SortKey, SqliteOptions, SqliteStore, StoreError,
    StragglerCounts, TokenName, TokenQuery, TokenStore, issue_admin, issue_token,
};
use rusqlite::Connection;

use crate::fixture::{ENV, Home, NOW, change, key, key_of, named};

/// The second pepper, and the first as the one before it.
fn second() -> EnvironmentKey {
    key_of(8, ENV).replacing(&key())
}

fn open(home: &Home, key: &EnvironmentKey) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(&home.path, ENV, key, SqliteOptions::default())
}

/// The straggler that a use of this text under these keys leaves.
fn straggler(key: &EnvironmentKey, kind: StragglerKind, text: &str) -> Straggler {
    let accessor = leastgate_policy::token::inspect(text.as_bytes()).unwrap().accessor;
    let digests = key.digests(text.as_bytes());
    Straggler { kind, accessor, previous: digests.previous.unwrap(), current: digests.current }
}

fn listed(store: &SqliteStore, pepper: MadeUnder) -> Vec<String> {
    let mut names = vec![];
    let mut query = TokenQuery { pepper: Some(pepper), limit: 2, ..TokenQuery::all(NOW) };
    loop {
        let page = store.list_tokens(&query).unwrap();
        names.extend(page.items.iter().map(|token| token.name.to_string()));
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return names;
        }
    }
}

fn root() -> NewAdmin {
    NewAdmin {
        name: TokenName::parse("root").unwrap(),
        role: AdminRole::Admin,
        may_grant: MayGrant::everything(),
        created: NOW,
        created_by: "bootstrap".into(),
    }
}

#[test]
fn a_store_of_the_previous_pepper_goes_over_to_the_current_one_and_back() {
    let home = Home::new();
    let third = key_of(9, ENV);
    drop(open(&home, &key()).unwrap());
    let error = open(&home, &third.replacing(&key_of(8, ENV))).unwrap_err();
    assert_eq!(error, StoreError::WrongPepper { path: home.path.clone() });
    assert!(error.to_string().contains("pepper.previous"), "{error}");
    for (opens, key) in [
        (true, second()),
        // Over the current one is enough from now on, and the first alone is not any more.
        (true, key_of(8, ENV)),
        (false, key()),
        // Back: what was the current one is the previous one now.
        (true, key().replacing(&key_of(8, ENV))),
        (true, key()),
        (false, key_of(8, ENV)),
    ] {
        assert_eq!(open(&home, &key).map(drop).is_ok(), opens);
    }
    let foreign = EnvironmentKey::replacing(key_of(8, "staging"), &key_of(7, "staging"));
    let error = SqliteStore::open(&home.path, "staging", &foreign, SqliteOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::OtherEnvironment { .. }), "whatever the pepper: {error}");
}

#[test]
fn a_record_moves_once_and_only_from_the_digest_it_was_found_by() {
    let home = Home::new();
    let (token, admin) = {
        let store = open(&home, &key()).unwrap();
        let token = issue_token(&store, ENV, &key(), &named("bot")).unwrap();
        (token, issue_admin(&store, ENV, &key(), &root()).unwrap())
    };
    let store = open(&home, &second()).unwrap();
    let counts = |tokens, admins| Ok(StragglerCounts { tokens, admins, ..StragglerCounts::default() });
    assert_eq!(store.count_stragglers(NOW), counts(1, 1));
    let of_token = straggler(&second(), StragglerKind::Token, token.secret.expose());
    let of_admin = straggler(&second(), StragglerKind::Admin, admin.secret.expose());
    let wrong = Straggler { previous: TokenDigest::from_bytes([3; 32]), current: of_admin.current, ..of_token };
    let both = vec![of_token, wrong, of_admin];
    let done = Ok(vec![Redigested::Done, Redigested::Gone, Redigested::Done]);
    assert_eq!((store.redigest(both.clone()), store.redigest(both)), (done.clone(), done));
    let kept = store.token(token.record.accessor).unwrap();
    assert_eq!((kept.digest, kept.version), (of_token.current, token.record.version));
    assert_eq!(made_under(&kept.pepper_id, &second()), MadeUnder::Current);
    assert_eq!(store.find_admin(&of_admin.previous), Ok(None));
    let found = store.find_admin(&of_admin.current).unwrap().unwrap();
    assert_eq!((found.id, made_under(&found.pepper_id, &second())), (admin.record.id, MadeUnder::Current));
    assert_eq!(store.count_stragglers(NOW), counts(0, 0));
}

/// The table in memory finds a digest by its first 64 bits.
#[test]
fn a_record_stays_where_it_is_if_another_has_its_place() {
    let home = Home::new();
    let first = {
        let store = open(&home, &key()).unwrap();
        issue_token(&store, ENV, &key(), &named("first")).unwrap()
    };
    let store = open(&home, &second()).unwrap();
    let moving = straggler(&second(), StragglerKind::Token, first.secret.expose());
    let mut alike = *moving.current.as_bytes();
    alike[31] ^= 1;
    let other = leastgate_store::TokenRecord {
        digest: TokenDigest::from_bytes(alike),
        ..draw_token(ENV, &second(), named("other")).unwrap().0
    };
    store.create_token(other).unwrap();
    assert_eq!(store.redigest(vec![moving]), Ok(vec![Redigested::Collides]));
    assert_eq!(store.token(first.record.accessor), Ok(first.record));
}

#[test]
fn stragglers_are_listed_a_page_at_a_time_and_the_living_are_counted() {
    let home = Home::new();
    for (pepper, names) in [(key(), ["a1", "a2", "a3"]), (second(), ["b1", "b2", "b3"])] {
        let store = open(&home, &pepper).unwrap();
        for name in names {
            issue_token(&store, ENV, &pepper, &named(name)).unwrap();
        }
        let over = leastgate_store::NewToken { expires: Some(NOW), ..named(&format!("{}-over", names[0])) };
        issue_token(&store, ENV, &pepper, &over).unwrap();
    }
    let third = key_of(9, ENV).replacing(&key_of(8, ENV));
    let store = open(&home, &third).unwrap();
    issue_token(&store, ENV, &third, &named("c1")).unwrap();
    let revoked = store.find_token("b3").unwrap().accessor;
    store.change_state(revoked, change(Change::Revoke), None).unwrap();
    assert_eq!(listed(&store, MadeUnder::Current), ["c1"]);
    assert_eq!(listed(&store, MadeUnder::Previous), ["b1", "b1-over", "b2", "b3"]);
    assert_eq!(listed(&store, MadeUnder::Unknown), ["a1", "a1-over", "a2", "a3"]);
    let expected = StragglerCounts { tokens: 2, unknown_tokens: 3, ..StragglerCounts::default() };
    assert_eq!(store.count_stragglers(NOW), Ok(expected));
    let by_end = TokenQuery { pepper: Some(MadeUnder::Previous), sort: SortKey::Expires, ..TokenQuery::all(NOW) };
    assert_eq!(store.list_tokens(&by_end).unwrap().items[0].name.as_str(), "b1-over");
    drop(store);
    let alone = open(&home, &key_of(9, ENV)).unwrap();
    assert_eq!(listed(&alone, MadeUnder::Previous), Vec::<String>::new());
    assert_eq!(alone.count_stragglers(NOW).unwrap().unknown_tokens, 5, "they can't be recognized any more");
}

/// As it was before administrators said so themselves.
#[test]
fn administrators_of_an_older_store_are_of_the_pepper_it_was_claimed_with() {
    let home = Home::new();
    {
        let store = open(&home, &key()).unwrap();
        issue_admin(&store, ENV, &key(), &root()).unwrap();
    }
    let old = Connection::open(&home.path).unwrap();
    old.execute_batch(
        "DROP TABLE pending_revocations; DROP TABLE bulk_revocations;
         DROP TABLE tombstones; ALTER TABLE tokens DROP COLUMN shortened; DROP INDEX tokens_by_pepper;
         ALTER TABLE admins DROP COLUMN pepper_id; PRAGMA user_version = 2;",
    )
    .unwrap();
    drop(old);
    let store = open(&home, &second()).unwrap();
    assert_eq!(store.count_stragglers(NOW).unwrap().admins, 1);
    let [admin] = store.list_admins().unwrap().try_into().unwrap();
    assert_eq!(made_under(&admin.pepper_id, &second()), MadeUnder::Previous);
}

#[test]
fn a_secret_never_passes_through_a_straggler() {
    let accessor = leastgate_store::draw::draw_accessor().unwrap();
    let secret = draw_secret(leastgate_policy::TokenKind::Token, ENV, accessor).unwrap();
    let shown = format!("{:?}", straggler(&second(), StragglerKind::Token, secret.expose()));
    let random = secret.expose().rsplit('_').nth(1).unwrap();
    assert!(!shown.contains(random), "{shown}");
}
