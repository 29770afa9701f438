//! The schemas accept what the loaders accept, and refuse what they refuse for its shape.

use jsonschema::Validator;
use leastgate_config::{parse_policy, schema};
use serde_json::Value;

use crate::{SMALLEST, gateway, shipped};

fn validator(schema: &Value) -> Validator {
    assert!(jsonschema::meta::is_valid(schema));
    jsonschema::draft202012::new(schema).unwrap()
}

fn document(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn the_shipped_files_fit() {
    for (schema, file) in [(schema::gateway(), "leastgate.yaml"), (schema::policy(), "policy.yaml")] {
        let document = document(&std::fs::read_to_string(shipped(file)).unwrap());
        let errors: Vec<String> = validator(&schema).iter_errors(&document).map(|error| error.to_string()).collect();
        assert_eq!(errors, Vec::<String>::new(), "{file}");
    }
    assert!(validator(&schema::gateway()).is_valid(&document(SMALLEST)));
}

#[test]
fn gateway_files_refused_by_both() {
    let validator = validator(&schema::gateway());
    let added = [
        "limit: {}",
        "limits: { bdy: 1MiB }",
        "limits: { body: 16 }",
        "limits: { body: 16MB }",
        "limits: { first_byte: 0s }",
        "limits: { connections: 0 }",
        "limits: { upstream_total: never }",
        "limits: { failures_per_source: { rate: 20 } }",
        "limits: { path_segments: 129 }",
        "workers: many",
        "workers: 0",
        "listeners: { data: { tls: {} } }",
        "listeners: { data: { tls: { cert: a } } }",
        "listeners: { data: { tls: { cert: a, key: b, sni: [ c ] } } }",
        "listeners: { data: { tls: { cert: a, key: b, sni: [ { cert: c } ] } } }",
        "listeners: { admin: { tls: { cert: a, key: b } } }",
        "listeners: { admin: { tls: { cert: a, key: b, client_ca: c, sni: [] } } }",
        "listeners: { data: { address: localhost } }",
        "listeners: { data: { plaintext: 1 } }",
        "listeners: { data: { well_known: yes please } }",
        "trusted_proxies: [ lan ]",
        "audit: { sinks: { a: { kind: syslog } } }",
        "audit: { sinks: { a: { kind: file } } }",
        "audit: { sinks: { a: { kind: stdout, path: x } } }",
        "audit: { classes: { allow: strict } }",
        "audit: { classes: { unauthenticated: drop } }",
        "audit: { sign: {} }",
        "retention:",
        "metrics: 500",
        "credential: { header: 'a b' }",
    ];
    let changed = [
        ("prod", "Prod"),
        ("\"http://127.0.0.1:8081\"", ""),
        ("http://", "ftp://"),
        ("8081\" ]", "8081\" ], http2: h2c"),
        ("8081\" ]", "8081\" ], check: { interval: 5s }"),
        ("8081\" ]", "8081\" ], tls: { ca: 1 }"),
        ("8081\" ]", "8081\" ], tls: { name: 'a b' }"),
        ("env: PEPPER", "env: PEPPER, file: x"),
        ("{ env: PEPPER }", "hunter2"),
        ("orders:", "Orders:"),
        ("policy.yaml ]", "policy.yaml ], candidate: [ x ]"),
        ("environment: prod\n", ""),
        ("declared", "git"),
        ("8081\" ]", "8081\" ], host: keep"),
        ("8081\" ]", "8081\" ], probe: { live: healthz }"),
    ];
    let texts = added.iter().map(|line| format!("{SMALLEST}{line}\n"));
    for text in texts.chain(changed.iter().map(|(from, to)| SMALLEST.replace(from, to))) {
        assert!(gateway(&text).is_err(), "the loader accepts\n{text}");
        assert!(!validator.is_valid(&document(&text)), "the schema accepts\n{text}");
    }
}

#[test]
fn policy_files_refused_by_both() {
    let validator = validator(&schema::policy());
    for text in [
        "{}",
        "version: 2",
        "version: '1'",
        "version: 1\nversoin: 1",
        "version: 1\nenvironments: prod",
        "version: 1\nenvironments: [ Prod ]",
        "version: 1\napis: { a: {} }",
        "version: 1\napis: { a: { upstream: 1 } }",
        "version: 1\napis: { a: { upstream: o, mode: off } }",
        "version: 1\napis: { a: { upstream: o, limits: { body: 1 } } }",
        "version: 1\nscopes: { a: { api: o, allow: GET / } }",
        "version: 1\nscopes: { a: { api: o, allow: [ 1 ] } }",
        "version: 1\nscopes: { a: { api: o, allow: [ { when: {} } ] } }",
        "version: 1\nscopes: { a: { api: o, allow: [ { match: GET /, when: { query: { a: 1 } } } ] } }",
        "version: 1\nscopes: { a: { api: o, allow: [ { match: GET /, when: { query: { a: [] } } } ] } }",
        "version: 1\nscopes: { a: { api: o, max_ttl: 3600 } }",
        "version: 1\nroles: { a: [ b ] }",
        "version: 1\nboundaries: [ {} ]",
        "version: 1\ntoken_rules: { rotation: { every: 30 } }",
        "version: 1\ntoken_rules: { rotation: 30d }",
        "version: 1\ntoken_rules: { idle_disable: 45 }",
        "version: 1\ntokens: [ { accessor: AAAAAAAAAA, name: a, digest: x, env: prod, created: 2026-11-01 } ]",
    ] {
        assert!(parse_policy(&[("policy.yaml", text)]).is_err(), "the loader accepts\n{text}");
        assert!(!validator.is_valid(&document(text)), "the schema accepts\n{text}");
    }
}
