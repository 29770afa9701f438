//! Who may change what, for every call of the admin API that changes something: a viewer nothing, an operator nothing above
//! its ceiling and nothing of another environment. A call that is not in the table fails the test, so none is forgotten.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use leastgate_testkit::clock;
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::paths;
use leastgate_testkit::raw::{Reply, exchange};
use leastgate_testkit::token::{PEPPER, Token, digest};
use serde_json::{Value, json};

use crate::stored::Stored;

/// A call that changes something, as its name in the code's table of operations.
struct Row {
    operation: &'static str,
    method: &'static str,
    path: String,
    body: Value,
    above: Above,
}

/// Who is refused it for a ceiling.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Above {
    /// It gives more than the limited operator may.
    Operator,
    /// It makes an administrator above the limited one.
    Admin,
    /// It only takes: a ceiling has no say, but an environment has.
    Environment,
    /// It takes from an administrator.
    Nobody,
}

fn row(operation: &'static str, method: &'static str, path: &str, body: Value, above: Above) -> Row {
    Row { operation, method, path: path.to_owned(), body, above }
}

fn table(child: &str, imported: &Value) -> Vec<Row> {
    use Above::{Admin, Environment, Nobody, Operator};
    let token = json!({ "name": "new", "owner": "t", "roles": ["wide"], "ttl": "1h" });
    let long = json!({ "name": "new", "owner": "t", "roles": ["reader"], "ttl": "2h" });
    let scoped = json!({ "name": "new", "owner": "t", "scopes": ["orders:refund"], "ttl": "1h" });
    let later = json!({ "expires": clock::rfc3339(clock::now() + 7_200), "reason": "r" });
    let told = json!({ "reason": "r" });
    let post = |operation, path: &str, body: &Value, above| row(operation, "POST", path, body.clone(), above);
    vec![
        post("token.create", "/v1/tokens", &token, Operator),
        post("token.create", "/v1/tokens", &long, Operator),
        post("token.create", "/v1/tokens", &scoped, Operator),
        post("token.bulk", "/v1/tokens/bulk", &json!({ "token": token, "count": 2 }), Operator),
        post("token.bulk", "/v1/tokens/bulk", &json!({ "token": long, "count": 2 }), Operator),
        post("token.import", "/v1/tokens/import", &json!({ "tokens": [imported], "reason": "r" }), Operator),
        row("token.edit", "PATCH", "/v1/tokens/small", json!({ "roles": ["wide"], "reason": "r" }), Operator),
        row("token.edit", "PATCH", "/v1/tokens/small", json!({ "scopes": ["orders:refund"], "reason": "r" }), Operator),
        row("token.edit", "PATCH", "/v1/tokens/small", later, Operator),
        // What was lent and is over was not the operator's to give, and is not to give again.
        row("token.edit", "PATCH", "/v1/tokens/lent", json!({ "scopes": ["orders:refund"], "reason": "r" }), Operator),
        post(
            "token.grant",
            "/v1/tokens/small/grants",
            &json!({ "scope": "orders:refund", "ttl": "5m", "reason": "r" }),
            Operator,
        ),
        post("token.rotate", "/v1/tokens/big/rotate", &json!({ "grace": "1h", "reason": "r" }), Operator),
        post("token.enable", "/v1/tokens/off/enable", &told, Operator),
        post("token.child", "/v1/tokens/big/children", &json!({ "ttl": "5m", "reason": "r" }), Operator),
        post("token.renew", &format!("/v1/tokens/{child}/renew"), &json!({ "ttl": "45m", "reason": "r" }), Operator),
        post(
            "admin.create",
            "/v1/admins",
            &json!({ "name": "new", "role": "admin", "may_grant": ceiling(&["test"], &["wide"]) }),
            Admin,
        ),
        post("token.revoke", "/v1/tokens/big/revoke", &told, Environment),
        post("token.disable", "/v1/tokens/big/disable", &told, Environment),
        post(
            "token.restrict",
            "/v1/tokens/big/restrict",
            &json!({ "remove_roles": ["wide"], "reason": "r" }),
            Environment,
        ),
        post("token.revocations", "/v1/revocations", &json!({ "owner": "t", "reason": "r" }), Environment),
        post("admin.revoke", "/v1/admins/other/revoke", &told, Nobody),
    ]
}

fn ceiling(environments: &[&str], roles: &[&str]) -> Value {
    json!({ "environments": environments, "roles": roles, "scopes": ["orders:read"], "max_ttl": 3600 })
}

/// The names of all calls that change something, in the code.
fn changing_operations() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    collect(&paths::workspace().join("crates/leastgate-admin/src"), &mut names);
    assert!(names.len() > 10, "{names:?}");
    names
}

fn collect(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, names);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let effects = ["GIVES,", "TAKES,", "Effect::Gives)", "Effect::Takes)"];
            let changes = text.lines().filter(|line| effects.iter().any(|effect| line.contains(effect)));
            let strings = changes.flat_map(|line| line.split('"').skip(1).step_by(2));
            names.extend(strings.filter(|text| !text.starts_with('/')).map(str::to_owned));
        }
    }
}

/// Any version of a token will do.
fn call(stored: &Stored, credential: &str, row: &Row) -> Reply {
    let (admin, body) = (stored.gateway.addresses().admin, row.body.to_string());
    exchange(
        admin,
        format!(
            "{} {} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {credential}\r\nIf-Match: *\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            row.method,
            row.path,
            body.len()
        ),
    )
}

#[test]
fn a_viewer_changes_nothing_and_an_operator_gives_nothing_above_its_ceiling() {
    let stored = Stored::start();
    let root = stored.administrator("root-2", "admin");
    let made = |path: &str, body: Value| {
        let reply = stored.api("POST", path, Some(&root), Some(body));
        assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
        reply.json()
    };
    let admin = |name: &str, role: &str, may_grant: Value| {
        let made = made("/v1/admins", json!({ "name": name, "role": role, "may_grant": may_grant }));
        made["secret"].as_str().unwrap().to_owned()
    };
    let limited = admin("limited", "operator", ceiling(&["test"], &["reader"]));
    let below = admin("below", "admin", ceiling(&["test"], &["reader"]));
    let stranger = admin("stranger", "operator", ceiling(&["other"], &["reader", "wide"]));
    let viewer = admin("viewer", "viewer", ceiling(&["test"], &["wide"]));
    admin("other", "viewer", ceiling(&[], &[]));
    for (name, role) in [("big", "wide"), ("off", "wide"), ("small", "reader"), ("lent", "reader")] {
        made("/v1/tokens", json!({ "name": name, "owner": "t", "roles": [role], "ttl": "1h" }));
    }
    made("/v1/tokens/off/disable", json!({ "reason": "r" }));
    made("/v1/tokens/lent/grants", json!({ "scope": "orders:refund", "ttl": "1s", "reason": "r" }));
    until_true("the grant is over", PATIENCE, || {
        let shown = stored.api("GET", "/v1/tokens/lent", Some(&root), None).json();
        shown["grants"] == json!([])
    });
    let child = made("/v1/tokens/big/children", json!({ "ttl": "5m", "reason": "r" }));
    let exported = stored.api("GET", "/v1/exports", Some(&root), None).json();
    let imported = imported(&exported["items"][0]["pepper_id"]);
    let table = table(child["token"]["accessor"].as_str().unwrap(), &imported);
    let covered: BTreeSet<String> = table.iter().map(|row| row.operation.to_owned()).collect();
    assert_eq!(changing_operations(), covered, "each call that changes something has a row in the table");

    let listed = || ["/v1/tokens", "/v1/admins"].map(|path| stored.api("GET", path, Some(&root), None).json());
    let before = listed();
    let mut refused = Vec::new();
    let mut refuse = |who: &str, credential: &str, row: &Row, problem: &'static str| {
        let reply = call(&stored, credential, row);
        let told = (reply.status, reply.problem());
        assert_eq!(told, (403, Some(problem.to_owned())), "{who} {} {}: {}", row.operation, row.body, reply.text());
        assert_eq!(listed(), before, "{who} {} {}", row.operation, row.body);
        refused.push((row.operation, problem));
    };
    for row in &table {
        refuse("viewer", &viewer, row, "insufficient-role");
        match row.above {
            Above::Operator => {
                refuse("limited", &limited, row, "above-ceiling");
                refuse("stranger", &stranger, row, "above-ceiling");
            }
            Above::Environment => refuse("stranger", &stranger, row, "above-ceiling"),
            Above::Admin => {
                refuse("limited", &limited, row, "insufficient-role");
                refuse("below", &below, row, "above-ceiling");
            }
            Above::Nobody => refuse("limited", &limited, row, "insufficient-role"),
        }
    }
    until_true("an event of each refusal", PATIENCE, || {
        let events = stored.gateway.events();
        let mut told: Vec<_> =
            events.iter().map(|event| (&event["change"]["operation"], &event["change"]["result"])).collect();
        refused.iter().all(|(operation, problem)| {
            let at = told.iter().position(|(told, result)| *told == operation && *result == problem);
            at.map(|at| told.remove(at)).is_some()
        })
    });
    // With the right to it each works: it was refused for nothing else.
    for row in &table {
        let reply = call(&stored, &root, row);
        let is_made = matches!(reply.status, 200 | 201);
        let is_repeated = matches!(reply.problem().as_deref(), Some("name-taken" | "conflict"));
        assert!(is_made || is_repeated, "{} {}: {}", row.operation, row.body, reply.text());
    }
}

/// A token of another gateway that holds more than the limited operator may give.
fn imported(pepper_id: &Value) -> Value {
    let token = std::iter::repeat_with(|| Token::new("foreign", &["wide"]))
        .find(|token| token.accessor.bytes().any(|byte| byte.is_ascii_uppercase()))
        .unwrap();
    json!({
        "accessor": token.accessor, "name": "foreign", "env": "test", "pepper_id": pepper_id, "owner": "t",
        "digest": digest(token.secret(), "test", PEPPER), "roles": ["wide"],
        "created": clock::rfc3339(clock::now() - 60), "expires": clock::rfc3339(clock::now() + 3600),
    })
}
