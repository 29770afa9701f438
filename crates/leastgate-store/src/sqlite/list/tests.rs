//! By which index a page is found: one that gives its order, or one that leaves few tokens to be sorted.

use leastgate_policy::Timestamp;

use super::*;
use crate::sqlite::schema;

const STATES: [StateFilter; 3] = [StateFilter::Rotating, StateFilter::Disabled, StateFilter::Revoked];
const SORTS: [SortKey; 4] = [SortKey::Name, SortKey::Created, SortKey::Expires, SortKey::LastUsed];

/// Tokens of an owner in a state, so many that no range of time is small; two of them are another owner's.
fn store(state: &str) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    schema::migrate(&connection).unwrap();
    connection
        .execute_batch(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {FEW} + 2)
             INSERT INTO tokens (accessor, digest, name, owner, holds_name, roles, grants, source_ip, created, created_by,
                 state, pepper_id)
             SELECT printf('A%09d', i), randomblob(32), 'n' || i, iif(i > 2, 'big', 'small'), 1, '', '', '', 1, 'x',
                 '{state}', 'p' FROM n"
        ))
        .unwrap();
    connection
}

fn plan(connection: &Connection, query: &TokenQuery) -> String {
    let (sql, values) = statement(connection, query, None, 200).unwrap();
    let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let steps = plan.query_map(params_from_iter(values), |row| row.get::<_, String>(3)).unwrap();
    steps.collect::<rusqlite::Result<Vec<_>>>().unwrap().join("\n")
}

fn of(owner: &str, sort: SortKey) -> TokenQuery {
    TokenQuery { owner: Some(owner.to_owned()), sort, ..TokenQuery::all(Timestamp(5)) }
}

#[test]
fn a_few_in_a_rare_state_are_found_by_their_index() {
    let connection = store("active");
    for state in STATES {
        for sort in SORTS {
            let query = TokenQuery { state: Some(state), sort, ..TokenQuery::all(Timestamp(5)) };
            let steps = plan(&connection, &query);
            assert!(steps.contains("USING INDEX tokens_by_state (state=?)"), "{state:?} {sort:?}: {steps}");
        }
    }
}

#[test]
fn what_many_fit_is_walked_in_the_order_asked_for_and_never_sorted() {
    for state in ["rotating", "disabled", "revoked"] {
        let connection = store(state);
        for sort in SORTS {
            let in_state = STATES.map(|state| TokenQuery { state: Some(state), ..of("big", sort) });
            let of_anyone =
                STATES.map(|state| TokenQuery { state: Some(state), sort, ..TokenQuery::all(Timestamp(5)) });
            for query in [&in_state[..], &of_anyone, &[of("big", sort)]].concat() {
                let is_of_many = query.state.is_none_or(|asked| format!("{asked:?}").to_lowercase() == state);
                let steps = plan(&connection, &query);
                assert!(!is_of_many || !steps.contains("TEMP B-TREE"), "{state} {query:?}: {steps}");
            }
        }
    }
}

#[test]
fn the_few_of_an_owner_are_found_by_the_owner() {
    let connection = store("active");
    for sort in SORTS {
        let steps = plan(&connection, &of("small", sort));
        assert!(steps.contains("USING INDEX tokens_by_owner (owner=?"), "{sort:?}: {steps}");
    }
}
