//! The admin API against its own document: the document is OpenAPI 3.1, what it says is routed and nothing else is, and
//! Schemathesis finds no answer that it doesn't describe. ARCHITECTURE.md prints its calls.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use leastgate_testkit::gateway::Setup;
use leastgate_testkit::paths::workspace;
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::process::{Ended, Process};
use leastgate_testkit::recorder::RecorderUpstream;
use serde_json::{Value, json};

use crate::documents::print;
use crate::stored::Stored;

/// The methods that a path may have in a document; HEAD is where GET is (RFC 9110 §9.3.2).
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "patch", "trace"];

/// What a run of the Python programs may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(480);

/// The document, as a viewer gets it.
fn document(stored: &Stored) -> Value {
    let viewer = stored.administrator("reader-of-documents", "viewer");
    let reply = stored.api("GET", "/v1/openapi.json", Some(&viewer), None);
    assert_eq!((reply.status, reply.head.one("content-type")), (200, Some("application/json")));
    assert!(reply.head.has("etag"));
    serde_json::from_str(&reply.text()).unwrap()
}

/// A program of the environment that `cargo xtask test` makes.
fn python(program: &str) -> Command {
    let path = tools().join("bin").join(program);
    assert!(path.is_file(), "no {}: `cargo xtask test` installs it", path.display());
    Command::new(path)
}

fn tools() -> PathBuf {
    workspace().join("target/tools/api")
}

#[test]
fn the_document_is_openapi_3_1() {
    let stored = Stored::start();
    assert_eq!(stored.api("GET", "/v1/openapi.json", None, None).status, 401, "not for everybody");
    let file = stored.gateway.path().join("openapi.json");
    fs::write(&file, document(&stored).to_string()).unwrap();
    let mut validator = python("openapi-spec-validator");
    let ended = Process::run("openapi-spec-validator", validator.args(["--schema", "3.1"]).arg(&file), PATIENCE);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn what_the_document_has_is_routed_and_nothing_else_is() {
    let stored = Stored::start();
    let root = stored.administrator("root", "admin");
    // Tokens that are named as paths beside theirs are shown there.
    for name in ["bulk", "import"] {
        stored.create(name, &["--role", "reader"]);
    }
    let paths = document(&stored)["paths"].as_object().unwrap().clone();
    assert!(paths.len() > 20, "{}", paths.len());
    for (template, item) in &paths {
        let path = template.replace("{token}", "nobody-such").replace("{id}", "nobody-such");
        for method in METHODS {
            let is_documented = item.get(method).is_some();
            let reply = stored.api(&method.to_uppercase(), &path, Some(&root), None);
            let says = format!("{method} {template}: {} {}", reply.status, reply.text());
            assert_eq!(reply.status == 405, !is_documented, "{says}");
            let is_found = reply.problem().as_deref() != Some("not-found");
            assert!(is_found || template.contains('{'), "{says}");
        }
    }
    // One level below and beside what is there.
    for path in ["/v1", "/v1/nothing", "/v1/tokens/nobody-such/nothing", "/v1/openapi.yaml", "/v2/tokens"] {
        let reply = stored.api("GET", path, Some(&root), None);
        assert_eq!((reply.status, reply.problem().as_deref()), (404, Some("not-found")), "{path}");
    }
}

#[test]
fn schemathesis_finds_nothing_that_the_document_does_not_say() {
    let stored = lenient();
    let root = stored.administrator("root", "admin");
    let given = given(&stored, &root);
    let document = document(&stored);
    let file = stored.gateway.path().join("openapi.json");
    fs::write(&file, document.to_string()).unwrap();
    let seed = std::env::var("SCHEMATHESIS_SEED").unwrap_or_else(|_| "42".to_owned());
    let ended = schemathesis(&stored, &root, &given, &file, &seed);
    let said = format!("seed {seed}\n{}{}", ended.stdout, ended.stderr);
    println!("{said}");
    assert_eq!(ended.code, Some(0), "{said}");
    // Whoever met refusals only has not seen an answer.
    let metrics = stored.gateway.metrics();
    let mut undone: Vec<&str> = Vec::new();
    for call in calls(&document).filter(|call| !is_of_a_hidden_path(call)) {
        let operation = call["operationId"].as_str().unwrap();
        let label = format!("operation=\"{operation}\"");
        let done = |code: &str| metrics.sum("leastgate_admin_requests_total", &[&label, code]);
        if done("code=\"200\"") + done("code=\"201\"") == 0.0 {
            undone.push(operation);
        }
    }
    assert_eq!(undone, [""; 0], "never done\n{said}");
}

/// Without rules for tokens, which what is drawn at random would hardly ever keep.
pub(crate) fn lenient() -> Stored {
    let policy: String = ORDERS
        .lines()
        .filter(|line| !line.starts_with("token_rules"))
        .fold(String::new(), |text, line| text + line + "\n");
    let upstream = RecorderUpstream::start();
    let setup = Setup::new(&policy).section("tokens", "{ source: store }").upstream("orders", &upstream.url());
    Stored { gateway: setup.start(), upstream }
}

/// Tokens for the calls to be about, and by call what nobody can draw.
fn given(stored: &Stored, root: &str) -> Value {
    let post = |path: &str, body: Value| {
        let reply = stored.api("POST", path, Some(root), Some(body));
        assert_eq!(reply.status, 201, "{path}: {}", reply.text());
        reply.json()
    };
    let model = json!({"name": "t", "owner": "team-test", "roles": ["reader"], "ttl": "1h"});
    post("/v1/tokens/bulk", json!({"token": model, "count": 24}));
    let exported = stored.api("GET", "/v1/exports", Some(root), None).json()["items"].clone();
    let parent = stored.create("parent", &["--role", "reader"]);
    let child = post("/v1/tokens/parent/children", json!({"ttl": "30m", "reason": "to be renewed"}));
    let refused = stored.ask(&parent, "/nothing").json();
    for name in ["edited", "granted", "restricted", "rotated"] {
        stored.create(name, &["--role", "reader"]);
    }
    let about = |name: &str, body: Value| json!({"path": {"token": name}, "headers": {"If-Match": "*"}, "body": body});
    json!({
        "PATCH /v1/tokens/{token}": about("edited", json!({"note": "drawn by nobody", "reason": "r"})),
        "POST /v1/tokens/{token}/grants": about("granted", json!({"scope": "orders:write", "reason": "r"})),
        "POST /v1/tokens/{token}/restrict": about("restricted", json!({"limits": {"rate": 9}, "reason": "r"})),
        "POST /v1/tokens/{token}/rotate": about("rotated", json!({"reason": "r"})),
        "GET /v1/decisions/{id}": {"path": {"id": refused["decision_id"]}},
        "POST /v1/tokens/{token}/renew": {"path": {"token": child["token"]["accessor"]}},
        "POST /v1/tokens/import": {"body": {"tokens": exported, "reason": "taken back"}},
    })
}

fn schemathesis(stored: &Stored, credential: &str, given: &Value, document: &Path, seed: &str) -> Ended {
    let own_id = credential.split('_').nth(2).unwrap();
    let own = workspace().join("crates/leastgate-testkit/api");
    let mut command = python("schemathesis");
    command
        .arg("--config-file")
        .arg(own.join("schemathesis.toml"))
        .arg("run")
        .arg(document)
        .args(["--url", &format!("http://{}", stored.gateway.addresses().admin)])
        .args(["--header", &format!("Authorization: Bearer {credential}")])
        .args(["--header", "Connection: close"])
        .args(["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--seed", seed])
        .args(["--max-examples", "12", "--continue-on-failure", "--generation-database", "none", "--no-color"])
        .env("SCHEMATHESIS_HOOKS", own.join("hooks.py"))
        .env("LEASTGATE_OWN", format!("root,{own_id}"))
        .env("LEASTGATE_GIVEN", given.to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("NO_PROXY", "*")
        .current_dir(stored.gateway.path());
    Process::run("schemathesis", &mut command, PATIENCE)
}

#[test]
fn the_architecture_prints_the_calls_of_the_admin_api() {
    let stored = Stored::start();
    print("admin-api", &table(&document(&stored)));
}

fn calls(document: &Value) -> impl Iterator<Item = &Value> {
    document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values())
}

/// Whether it is about a token whose name is a path of its own, too.
fn is_of_a_hidden_path(call: &Value) -> bool {
    call["description"].as_str().unwrap().starts_with("The same as")
}

/// A row for each call; what a path hides is told of where it has its own.
fn table(document: &Value) -> String {
    let mut rows: BTreeMap<String, String> = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap() {
            let text = |key: &str| call[key].as_str().unwrap();
            if !is_of_a_hidden_path(call) {
                let row = format!("| `{} {path}` | {} | {} |", method.to_uppercase(), text("x-role"), text("summary"));
                rows.insert(format!("{path} {method}"), row);
            }
        }
    }
    let mut text = "| call | role | what |\n|---|---|---|\n".to_owned();
    for row in rows.values() {
        writeln!(text, "{row}").unwrap();
    }
    text
}
