//! Policy files as typed values: what was written, where it was written, and which revision it is.

use std::time::Duration;

use leastgate_config::{fingerprint, load_policy, parse_policy};
use leastgate_policy::spec::{Disclose, ModeSpec, Sensitivity};
use leastgate_policy::{CompileContext, PolicySnapshot, Timestamp, TokenLimits};

use crate::shipped;

const TOKEN: &str = "\
version: 1
tokens:
  - accessor: 7Hq2ZkP0xA
    name: export
    digest: \"blake3:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0\"
    env: prod
    grants: [ \"orders:read\", { scope: \"orders:write\", expires: 2026-12-01, reason: migration } ]
    restrictions: { source_ip: [ 10.0.0.0/8 ], not_before: 2026-11-01 }
    created: 2026-11-01T12:00:00Z
    expires: 2027-01-15
";

#[test]
fn the_example_says_what_it_says() {
    let policy = load_policy(&[shipped("policy.yaml")]).unwrap();
    let spec = &policy.spec;
    let api = &spec.apis[0];
    assert_eq!(
        (api.name.value.as_str(), api.upstream.value.as_str(), api.base.value.as_str()),
        ("orders", "orders", "/")
    );
    assert_eq!((api.mode, api.disclose), (ModeSpec::Enforce, Disclose::Needed));
    assert_eq!((api.limits.body, api.limits.response_timeout), (Some(16 << 20), Some(Duration::from_secs(30))));
    let names: Vec<&str> = spec.scopes.iter().map(|scope| scope.name.value.as_str()).collect();
    assert_eq!(names, ["orders:read", "orders:write", "orders:refund"]);
    let refund = &spec.scopes[2];
    assert_eq!((refund.sensitivity, refund.max_ttl), (Sensitivity::High, Some(Duration::from_secs(3_600))));
    let when = refund.allow[0].when.as_ref().unwrap();
    assert_eq!(when.header[0].1[0].value, "INC-*");
    assert_eq!(when.query[0].1.iter().map(|value| value.value.as_str()).collect::<Vec<_>>(), ["eur", "usd"]);
    assert_eq!(spec.roles[0].environments, None);
    assert_eq!(spec.roles[1].environments.as_ref().unwrap()[0].value, "prod");
    assert_eq!(spec.boundaries[0].deny[0].text.value, "* /v1/orders/*/refunds");
    assert_eq!(spec.token_rules.max_ttl, Some(Duration::from_secs(90 * 86_400)));
    let deny = &spec.scopes[0].deny[0].text;
    let line = 1 + std::fs::read_to_string(shipped("policy.yaml"))
        .unwrap()
        .lines()
        .position(|line| line.contains(&deny.value))
        .unwrap();
    assert!(policy.locate(deny.origin).unwrap().ends_with(&format!("policy.yaml:{line}")));
}

#[test]
fn declared_tokens_and_shadow() {
    let policy = parse_policy(&[
        ("tokens.yaml", TOKEN),
        ("apis.yaml", "version: 1\napis: { orders: { upstream: o, mode: shadow, until: 2026-12-01 } }\n"),
    ])
    .unwrap();
    let token = &policy.spec.tokens[0];
    assert_eq!(token.created.value, Timestamp(1_793_534_400));
    assert_eq!(token.grants[0].value.scope, "orders:read");
    assert_eq!(token.grants[1].value.expires, Some(Timestamp(1_796_083_200)));
    assert_eq!(token.restrictions.not_before, Some(Timestamp(1_793_491_200)));
    let ModeSpec::Shadow { until } = policy.spec.apis[0].mode else { panic!("not in shadow") };
    assert_eq!(until.value, Timestamp(1_796_083_200));
    assert_eq!(policy.locate(until.origin).unwrap(), "apis.yaml:2");
}

fn limited(limits: &str) -> String {
    let one = "version: 1\nenvironments: [ prod ]\ntokens:\n";
    TOKEN.replace("version: 1\ntokens:\n", one).replace("    created", &format!("    limits: {limits}\n    created"))
}

#[test]
fn limits_of_declared_tokens() {
    let read = |limits: &str| parse_policy(&[("tokens.yaml", &limited(limits))]).unwrap().spec.tokens[0].limits.value;
    let all = TokenLimits { rate: Some(50), burst: Some(100), concurrent: Some(10) };
    assert_eq!(read("{ rate: 50, burst: 100, concurrent: 10 }"), all);
    assert_eq!(read("{ concurrent: 1 }"), TokenLimits { concurrent: Some(1), ..TokenLimits::default() });
    assert_eq!(read("{}"), TokenLimits::default());
    let most = read("{ rate: 4294967295 }");
    assert_eq!(most.rate, Some(u32::MAX));
    for wrong in ["{ rate: 0 }", "{ rate: 4294967296 }", "{ rate: 50/s }", "{ rate: -1 }", "{ rte: 1 }", "5"] {
        let errors = parse_policy(&[("tokens.yaml", &limited(wrong))]).expect_err(wrong);
        assert!(errors.to_string().contains("tokens.yaml:10:"), "{errors}");
    }
}

#[test]
fn a_burst_of_no_rate_is_an_error_at_its_place() {
    let policy = parse_policy(&[("tokens.yaml", &limited("{ burst: 5 }"))]).unwrap();
    let errors = PolicySnapshot::compile(&policy.spec, &context(&policy.revision)).expect_err("compiles");
    let told = policy.diagnose(errors).to_string();
    assert!(told.contains("token `export`: `burst` says how many") && told.contains("tokens.yaml:10:13"), "{told}");
}

#[test]
fn files_merge_as_sets() {
    let one = "version: 1\nenvironments: [ prod, staging ]\nboundaries: [ { deny: [ GET /a ] } ]\nscopes: { a: { api: x } }\n";
    let two =
        "version: 1\nenvironments: [ staging, dev ]\nboundaries: [ { deny: [ GET /b ] } ]\nscopes: { b: { api: x } }\n";
    let spec = parse_policy(&[("one.yaml", one), ("two.yaml", two)]).unwrap().spec;
    let environments: Vec<&str> = spec.environments.iter().map(|name| name.value.as_str()).collect();
    assert_eq!(environments, ["prod", "staging", "dev"]);
    assert_eq!((spec.boundaries.len(), spec.scopes.len()), (2, 2));
}

#[test]
fn the_revision_is_the_content() {
    let revision = |texts: &[(&str, &str)]| parse_policy(texts).unwrap().revision;
    let one = ("one.yaml", "version: 1\n");
    let two = ("two.yaml", "version: 1\n# two\n");
    assert_eq!(revision(&[one, two]), revision(&[("a", one.1), ("b", two.1)]));
    assert_ne!(revision(&[one, two]), revision(&[two, one]));
    assert_ne!(revision(&[one]), revision(&[two]));
    let name = revision(&[one]);
    assert!(name.len() == 19 && name.starts_with("b3:"), "{name}");
}

#[test]
fn a_fingerprint_changes_with_the_files_and_only_then() {
    let folder = tempfile::tempdir().unwrap();
    let files = [folder.path().join("a.yaml"), folder.path().join("b.yaml")];
    std::fs::write(&files[0], "version: 1\n").unwrap();
    let missing = fingerprint(&files);
    std::fs::write(&files[1], "version: 1\nroles: {}\n").unwrap();
    let both = fingerprint(&files);
    assert_ne!(missing, both);
    assert_eq!(load_policy(&files).unwrap().fingerprint(), both);
    std::fs::write(&files[0], "version: 1\n").unwrap();
    assert_eq!(fingerprint(&files), both);
    std::fs::write(&files[0], "version: 1\n#\n").unwrap();
    assert_ne!(fingerprint(&files), both);
}

/// Half a day before the shadow of the tests ends.
fn context(revision: &str) -> CompileContext<'_> {
    CompileContext {
        environment: "prod",
        revision,
        now: Timestamp(1_796_040_000),
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: Vec::new(),
        well_known: false,
        upstreams: None,
    }
}

#[test]
fn the_example_compiles() {
    let policy = load_policy(&[shipped("policy.yaml")]).unwrap();
    let compiled = PolicySnapshot::compile(&policy.spec, &context(&policy.revision));
    let snapshot = compiled.unwrap_or_else(|errors| panic!("{}", policy.diagnose(errors)));
    assert_eq!(snapshot.revision(), policy.revision);
}

#[test]
fn the_compilers_errors_come_back_to_their_places() {
    let apis = "version: 1\nenvironments: [ prod ]\napis: { orders: { upstream: orders } }\n";
    let scopes = "version: 1\nscopes:\n  orders:read:\n    api: order\n    allow: [ \"get /v1\" ]\n";
    let roles = "version: 1\nroles:\n  reader: { scopes: [ orders:raed ], environments: [ staging ] }\n";
    let policy = parse_policy(&[("apis.yaml", apis), ("scopes.yaml", scopes), ("roles.yaml", roles)]).unwrap();
    let errors = PolicySnapshot::compile(&policy.spec, &context(&policy.revision)).expect_err("compiles");
    insta::assert_snapshot!(policy.diagnose(errors).to_string());
}
