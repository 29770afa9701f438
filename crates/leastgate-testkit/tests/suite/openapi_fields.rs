//! What the admin API's document says of its answers, against real ones: no field that it requires is missing, none comes that
//! it has not, none is null that may not be, and what every answer has is required.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use leastgate_testkit::raw::exchange;
use serde_json::{Value, json};

use crate::openapi::lenient;
use crate::stored::Stored;

const REFERENCE: &str = "#/components/";

/// Fields of types, and in how many answers they were and were not.
#[derive(Default)]
struct Seen {
    fields: BTreeMap<(String, String), [u32; 2]>,
    faults: BTreeSet<String>,
}

struct Calls {
    stored: Stored,
    root: String,
    document: Value,
    seen: Seen,
    done: BTreeSet<String>,
}

impl Calls {
    fn start() -> Self {
        let stored = lenient();
        let root = stored.administrator("root", "admin");
        let document = stored.api("GET", "/v1/openapi.json", Some(&root), None).json();
        Self { stored, root, document, seen: Seen::default(), done: BTreeSet::new() }
    }

    /// Makes a call, which must be answered so, and holds its answer against the document.
    fn call(&mut self, method: &str, template: &str, target: &str, body: Option<Value>, status: u16) -> Value {
        self.call_with(method, template, target, "", body, status)
    }

    fn call_with(
        &mut self,
        method: &str,
        template: &str,
        target: &str,
        fields: &str,
        body: Option<Value>,
        status: u16,
    ) -> Value {
        let admin = self.stored.gateway.addresses().admin;
        let kind = if body.is_some() { "Content-Type: application/json\r\n" } else { "" };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {}\r\n", self.root);
        let length = body.len();
        let request = format!("{head}{fields}{kind}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        let reply = exchange(admin, request);
        assert_eq!(reply.status, status, "{method} {target}: {}", reply.text());
        let operation = &self.document["paths"][template][method.to_lowercase()];
        let response = resolve(&self.document, &operation["responses"][status.to_string()]);
        let content = response["content"].as_object().unwrap_or_else(|| panic!("{method} {template} {status}"));
        let schema = &content.values().next().unwrap()["schema"];
        let answer = reply.json();
        self.seen.walk(&self.document, schema, "", &answer);
        if status < 300 {
            self.done.insert(operation["operationId"].as_str().unwrap().to_owned());
        }
        answer
    }
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => resolve(document, document.pointer(&reference[1..]).unwrap()),
        None => schema,
    }
}

/// The types of answers that have fields.
fn types_of_answers(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|item| item.as_object().unwrap().values());
    let mut found = BTreeSet::new();
    for operation in operations {
        collect(document, &operation["responses"], &mut found);
    }
    found
}

fn collect(document: &Value, value: &Value, found: &mut BTreeSet<String>) {
    if let Some(reference) = value["$ref"].as_str() {
        let target = document.pointer(&reference[1..]).unwrap();
        let is_new = match reference.strip_prefix("#/components/schemas/") {
            Some(name) if target["properties"].is_object() => found.insert(name.to_owned()),
            _ => reference.starts_with(REFERENCE),
        };
        if is_new {
            collect(document, target, found);
        }
    }
    match value {
        Value::Object(fields) => fields.values().for_each(|value| collect(document, value, found)),
        Value::Array(items) => items.iter().for_each(|value| collect(document, value, found)),
        _ => {}
    }
}

impl Seen {
    /// `name`: of the type, where the schema has one.
    fn walk(&mut self, document: &Value, schema: &Value, name: &str, value: &Value) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap();
            return self.walk(document, resolve(document, schema), name, value);
        }
        let list = |key: &str| schema[key].as_array().into_iter().flatten();
        list("allOf").for_each(|part| self.walk(document, part, name, value));
        let has_null = |schema: &Value| match &schema["type"] {
            Value::Array(types) => types.contains(&json!("null")),
            one => one.is_null() || one == "null",
        };
        let choices: Vec<_> = list("oneOf").collect();
        if value.is_null() {
            let is_choice = choices.iter().any(|choice| choice["type"] == "null");
            if !(is_choice || choices.is_empty() && has_null(schema)) {
                self.faults.insert(format!("{name} is null: {schema}"));
            }
            return;
        }
        let others: Vec<_> = choices.into_iter().filter(|choice| choice["type"] != "null").collect();
        if let [only] = others[..] {
            self.walk(document, only, name, value);
        }
        for item in value.as_array().into_iter().flatten() {
            self.walk(document, &schema["items"], &format!("{name}[]"), item);
        }
        let (Some(fields), Some(known)) = (value.as_object(), schema["properties"].as_object()) else { return };
        for (field, own) in known {
            let path = format!("{name}.{field}");
            let place = fields.get(field);
            if !name.is_empty() {
                self.fields.entry((name.to_owned(), field.clone())).or_default()[usize::from(place.is_none())] += 1;
            }
            if let Some(value) = place {
                self.walk(document, own, &path, value);
            }
        }
        for field in fields.keys().filter(|field| !name.is_empty() && !known.contains_key(*field)) {
            self.faults.insert(format!("{name}.{field} is not in the document"));
        }
    }

    fn tell(&self, document: &Value) -> String {
        let mut said = String::new();
        for fault in &self.faults {
            writeln!(said, "  {fault}").unwrap();
        }
        for ((name, field), [there, absent]) in &self.fields {
            let required = document["components"]["schemas"][name]["required"].as_array();
            let is_required = required.is_some_and(|required| required.contains(&json!(field)));
            if is_required && *absent > 0 {
                writeln!(said, "  {name}.{field} is required, and was missing in {absent} of {}", there + absent)
                    .unwrap();
            }
            if !is_required && *absent == 0 {
                writeln!(said, "  {name}.{field} was in each of {there}, and is not required").unwrap();
            }
        }
        said
    }
}

fn about_many(calls: &mut Calls) {
    let model = json!({"name": "many", "owner": "team-test", "roles": ["reader"], "ttl": "1h", "note": "a note"});
    calls.call("POST", "/v1/tokens/bulk", "/v1/tokens/bulk", Some(json!({"token": model, "count": 3})), 201);
    calls.call("GET", "/v1/tokens", "/v1/tokens?limit=2", None, 200);
    calls.call("GET", "/v1/tokens", "/v1/tokens", None, 200);
    let bare = json!({"name": "bare", "scopes": ["orders:read"]});
    calls.call("POST", "/v1/tokens", "/v1/tokens", Some(bare), 201);
    let all = calls.call("GET", "/v1/exports", "/v1/exports", None, 200);
    let taken = json!({"tokens": all["items"], "reason": "taken back"});
    calls.call("POST", "/v1/tokens/import", "/v1/tokens/import", Some(taken), 200);
    let wanted = json!({"owner": "team-test", "dry_run": true, "reason": "r"});
    calls.call("POST", "/v1/revocations", "/v1/revocations", Some(wanted), 200);
}

fn about_one(calls: &mut Calls) {
    const ONE: &str = "/v1/tokens/{token}";
    let reason = || Some(json!({"reason": "r"}));
    let bait = json!({"name": "bait", "owner": "team-test", "ttl": "1h", "canary": true});
    calls.call("POST", "/v1/tokens", "/v1/tokens", Some(bait), 201);
    let body = json!({"name": "one", "owner": "team-test", "roles": ["reader"], "ttl": "1h", "limits": {"rate": 50}});
    let key = "Idempotency-Key: a\r\n";
    let made = calls.call_with("POST", "/v1/tokens", "/v1/tokens", key, Some(body.clone()), 201);
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert_eq!(calls.stored.ask(&secret, "/v1/orders").status, 200);
    let again = calls.call_with("POST", "/v1/tokens", "/v1/tokens", key, Some(body), 201);
    assert!(again["secret"].is_null(), "{again}");
    calls.call("GET", ONE, "/v1/tokens/one", None, 200);
    calls.call("GET", "/v1/tokens/{token}/usage", "/v1/tokens/one/usage", None, 200);
    let patch = json!({"note": "x", "not_before": "2020-01-01T00:00:00Z", "reason": "r"});
    calls.call_with("PATCH", ONE, "/v1/tokens/one", "If-Match: *\r\n", Some(patch.clone()), 200);
    calls.call_with("PATCH", ONE, "/v1/tokens/one", "If-Match: x\r\n", Some(patch), 422);
    let child = json!({"ttl": "15m", "reason": "r"});
    let child_made =
        calls.call("POST", "/v1/tokens/{token}/children", "/v1/tokens/one/children", Some(child.clone()), 201);
    let child_path = format!("/v1/tokens/{}/renew", child_made["token"]["accessor"].as_str().unwrap());
    calls.call("POST", "/v1/tokens/{token}/renew", &child_path, Some(child), 200);
    let grant = json!({"scope": "orders:write", "ttl": "15m", "reason": "INC-42"});
    calls.call("POST", "/v1/tokens/{token}/grants", "/v1/tokens/one/grants", Some(grant), 200);
    let less = json!({"limits": {"rate": 9}, "reason": "r"});
    calls.call("POST", "/v1/tokens/{token}/restrict", "/v1/tokens/one/restrict", Some(less), 200);
    let check = json!({"token": "one", "method": "GET", "url": "http://orders.test/v1/orders"});
    calls.call("POST", "/v1/check", "/v1/check", Some(check), 200);
    let miss = json!({"token": "many-1", "method": "GET", "url": "http://catalog.test/catalog/items/"});
    let missed = calls.call("POST", "/v1/check", "/v1/check", Some(miss), 200);
    assert!(missed["nearest_miss"].is_object(), "{missed}");
    let rotate = Some(json!({"grace": "30m", "reason": "due"}));
    let path = "/v1/tokens/{token}/rotate";
    calls.call_with("POST", path, "/v1/tokens/one/rotate", "Idempotency-Key: b\r\n", rotate.clone(), 201);
    calls.call_with("POST", path, "/v1/tokens/one/rotate", "Idempotency-Key: b\r\n", rotate, 200);
    assert_eq!(calls.stored.ask(&secret, "/v1/orders").status, 200);
    calls.call("GET", "/v1/tokens/{token}/rotation", "/v1/tokens/one/rotation", None, 200);
    for change in ["disable", "enable", "revoke"] {
        let template = format!("/v1/tokens/{{token}}/{change}");
        calls.call("POST", &template, &format!("/v1/tokens/one/{change}"), reason(), 200);
    }
    calls.call("GET", ONE, "/v1/tokens/one", None, 200);
    calls.call("GET", ONE, "/v1/tokens/nobody-such", None, 404);
}

fn about_the_gateway(calls: &mut Calls) {
    let refused = calls.stored.ask("nothing", "/v1/orders").json();
    let decision = format!("/v1/decisions/{}", refused["decision_id"].as_str().unwrap());
    let _ = calls.stored.gateway.wait_decisions("the refusal", 1, |event| event["id"] == refused["decision_id"]);
    calls.call("GET", "/v1/decisions/{id}", &decision, None, 200);
    calls.call("GET", "/v1/events", "/v1/events", None, 200);
    let found = calls.call("GET", "/v1/findings", "/v1/findings", None, 200);
    assert!(found["items"].as_array().is_some_and(|items| !items.is_empty()), "an hour is soon: {found}");
    calls.call("GET", "/v1/status", "/v1/status", None, 200);
    calls.call("GET", "/v1/policy", "/v1/policy", None, 200);
    let admin = json!({"name": "on-call", "role": "operator",
        "may_grant": {"environments": "*", "roles": ["reader"], "scopes": [], "max_ttl": 3600}});
    calls.call("POST", "/v1/admins", "/v1/admins", Some(admin), 201);
    calls.call("GET", "/v1/admins", "/v1/admins", None, 200);
    calls.call("POST", "/v1/admins/{id}/revoke", "/v1/admins/on-call/revoke", Some(json!({"reason": "left"})), 200);
    calls.call("GET", "/v1/openapi.json", "/v1/openapi.json", None, 200);
}

#[test]
fn every_answer_has_what_the_document_requires_and_it_requires_what_every_answer_has() {
    let mut calls = Calls::start();
    about_many(&mut calls);
    about_one(&mut calls);
    about_the_gateway(&mut calls);
    let Calls { document, seen, done, .. } = &calls;
    let said = seen.tell(document);
    assert!(said.is_empty(), "the document and the answers differ:\n{said}");
    // What was not looked at agrees with anything.
    let types: BTreeSet<String> = seen.fields.keys().map(|(name, _)| name.clone()).collect();
    let unseen: Vec<String> = types_of_answers(document).difference(&types).cloned().collect();
    assert_eq!(unseen, [""; 0], "types that no answer had");
    let operations =
        document["paths"].as_object().unwrap().values().flat_map(|item| item.as_object().unwrap().values());
    let own = operations.filter(|call| !call["description"].as_str().unwrap().starts_with("The same as"));
    let undone: Vec<_> = own.filter_map(|call| call["operationId"].as_str()).filter(|id| !done.contains(*id)).collect();
    assert_eq!(undone, [""; 0], "calls that were not made");
}
