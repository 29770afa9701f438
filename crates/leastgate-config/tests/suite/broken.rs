//! Broken files and what their author is told. The snapshots are the contract: place, line, caret, hint.

use insta::assert_snapshot;
use leastgate_config::{GatewayInputs, load_gateway, parse_policy};

use crate::{Folder, SMALLEST, gateway, gateway_errors};

fn policy_errors(text: &str) -> String {
    parse_policy(&[("policy.yaml", text)]).expect_err("the file is accepted").to_string()
}

#[test]
fn unknown_keys_at_several_levels() {
    let text = format!(
        "{SMALLEST}limit: {{ body: 1MiB }}\nlimits: {{ bdy: 1MiB }}\nlisteners: {{ data: {{ adress: x }} }}\nzzz: 1\n"
    );
    assert_snapshot!(gateway_errors(&text));
}

#[test]
fn wrong_types_and_values_all_at_once() {
    assert_snapshot!(gateway_errors(
        "environment: Prod\n\
         workers: many\n\
         trusted_proxies: [ 10.0.0.1/8, nonsense ]\n\
         upstreams:\n  orders:\n    endpoints: [ \"http://a\", \"b\" ]\n    host: keep\n    allow_underscores: yes\n\
         limits:\n  body: 16\n  first_byte: 0s\n  connections: -1\n  failures_per_source: { rate: 20 }\n\
         retention:\n\
         metrics: 500\n"
    ));
}

#[test]
fn what_is_not_built_yet() {
    let text = SMALLEST.replace("policy.yaml ]", "policy.yaml ], candidate: [ next.yaml ]");
    assert_snapshot!(gateway_errors(&format!(
        "{text}audit:\n  sign: {{ key: k }}\n  sinks: {{ siem: {{ kind: syslog }} }}\n  classes: {{ allow: strict, unauthenticated: block }}\n"
    )));
}

#[test]
fn a_rotation_says_how_often() {
    for rule in ["rotation: 30d", "rotation: {}", "rotation: { every: often }"] {
        let errors = policy_errors(&format!("version: 1\ntoken_rules: {{ {rule} }}\n"));
        assert!(errors.contains("policy.yaml:2:"), "{errors}");
    }
}

#[test]
fn an_audit_without_sinks_is_said_aloud() {
    let empty = format!("{SMALLEST}audit: {{ sinks: {{}} }}\n");
    let errors = gateway_errors(&empty);
    assert!(errors.contains("leastgate.yaml:6:17") && errors.contains("class admin must be recorded"), "{errors}");
    assert!(errors.contains("audit.classes"), "{errors}");
    let folder = Folder::with(SMALLEST);
    let env = vec![("LEASTGATE__AUDIT__SINKS".into(), "{}".into())];
    assert!(load_gateway(&GatewayInputs { env, ..folder.inputs() }).is_err());
    let dropped = "audit: { sinks: {}, classes: { allow: drop, deny: drop, admin: drop, lifecycle: drop } }\n";
    assert!(gateway(&format!("{SMALLEST}{dropped}")).unwrap().config.audit.sinks.is_empty());
}

#[test]
fn upstreams_that_contradict_themselves() {
    let tls = "tls: { ca: ca.pem, name: \"a b\" }";
    let upstreams = format!(
        "upstreams:\n  mixed: {{ endpoints: [ \"https://a\", \"http://b\" ] }}\n  \
         plain: {{ endpoints: [ \"http://a\" ], tls: {{ ca: ca.pem }} }}\n  \
         half: {{ endpoints: [ \"https://a\" ], tls: {{ cert: c.pem }} }}\n  \
         other: {{ endpoints: [ \"https://a\" ], tls: {{ key: k.pem }} }}\n  \
         named: {{ endpoints: [ \"https://a\" ], {tls} }}\n  \
         probed: {{ endpoints: [ \"http://a\" ], http2: true, probe: {{ live: /healthz }} }}\n"
    );
    let line = SMALLEST.lines().find(|line| line.starts_with("upstreams:")).unwrap();
    assert_snapshot!(gateway_errors(&SMALLEST.replace(&format!("{line}\n"), &upstreams)));
}

#[test]
fn listeners_in_the_open() {
    assert_snapshot!(gateway_errors(&format!(
        "{SMALLEST}listeners:\n  data: {{ address: \"0.0.0.0:8080\" }}\n  ops: {{ address: \"127.0.0.1:9902\" }}\n  admin: {{ address: \"[::]:9902\" }}\n"
    )));
}

#[test]
fn what_contradicts_itself() {
    let text = SMALLEST.replace("declared", "store");
    assert_snapshot!(gateway_errors(&format!(
        "{text}listeners: {{ data: {{ address: 127.0.0.1:9902 }} }}\naudit:\n  sinks:\n    one: {{ kind: file, path: a.log }}\n    two: {{ kind: file, path: a.log }}\n    three: {{ kind: file }}\n    four: {{ kind: stdout, path: b.log }}\n"
    )));
}

#[test]
fn an_empty_gateway_file() {
    assert_snapshot!(gateway_errors(""));
}

#[test]
fn a_duplicate_key() {
    assert_snapshot!(policy_errors("version: 1\nscopes:\n  a: { api: x }\n  b: { api: x }\n  a: { api: y, api: z }\n"));
}

#[test]
fn not_yaml() {
    assert_snapshot!(policy_errors("version: 1\nscopes:\n  a: { api: orders\n  b: c\n"));
}

#[test]
fn what_the_parser_says_is_told_and_so_is_what_it_does_not() {
    let text = |state_dir: &str| SMALLEST.replace("environment: prod", &format!("environment prod\n{state_dir}"));
    let errors = gateway_errors(&text("state_dir: state   # the token store, secret hunter2"));
    assert!(errors.contains("not valid YAML: ") && errors.contains("look at the line above too"), "{errors}");
    assert!(!errors.contains("hunter2"), "a comment may hold one: {errors}");
    let errors = gateway_errors(&SMALLEST.replace("pepper: { current", "pepper { current"));
    assert!(errors.contains("not valid YAML: ") && errors.contains("line is not shown"), "{errors}");
    let errors = policy_errors("version: 1\nscopes:\n  a: { api: o, allow: [ GET /a/{id:int} ] }\n");
    assert!(errors.contains("quote a text that has braces"), "{errors}");
}

#[test]
fn quotes_that_make_a_text_of_a_number_are_named() {
    let errors = policy_errors("version: \"1\"\n");
    assert!(errors.contains("expected the number 1, found the text `1`"), "{errors}");
}

#[test]
fn an_unknown_name_is_told_with_the_known_ones() {
    use leastgate_policy::{CompileContext, PolicySnapshot, Timestamp, UpstreamFacts};
    let text = "version: 1\nenvironments: [ prod ]\napis: { a: { base: /, upstream: nope } }\n";
    let loaded = parse_policy(&[("policy.yaml", text)]).unwrap();
    let context = CompileContext {
        environment: "prod",
        revision: "r",
        now: Timestamp(1),
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: vec![],
        well_known: false,
        upstreams: Some(&[UpstreamFacts { name: "orders", allow_underscores: false }]),
    };
    let errors = loaded.diagnose(PolicySnapshot::compile(&loaded.spec, &context).unwrap_err()).to_string();
    assert!(errors.contains("there is no upstream `nope`") && errors.contains("known here: orders"), "{errors}");
}

#[test]
fn a_value_that_only_its_use_shows_to_be_wrong_has_its_place() {
    let loaded = gateway(&format!("{SMALLEST}retention: 1d\n")).unwrap();
    let place = |path: &[&str]| {
        let line = loaded.fault(path, "wrong", "mend it").summary_line();
        line.rsplit('/').next().unwrap().to_owned()
    };
    assert_eq!(place(&["pepper", "current"]), "leastgate.yaml:3:20: wrong");
    assert_eq!(place(&["policy", "files", "0"]), "leastgate.yaml:5:20: wrong");
    assert!(!loaded.fault(&["pepper"], "wrong", "").to_string().contains("PEPPER"));
}

#[test]
fn tags_merges_aliases_and_documents() {
    let texts = [
        "version: !include x\n",
        "version: 1\nscopes:\n  a: &a { api: x }\n  b: { <<: *a }\n",
        "version: 1\nroles: *nowhere\n",
        "version: 1\n---\nversion: 1\n",
    ];
    assert_snapshot!(texts.map(policy_errors).join("\n\n"));
}

#[test]
fn a_policy_with_many_faults() {
    assert_snapshot!(policy_errors(
        "version: 2\n\
         environments: [ prod, Staging ]\n\
         apis:\n  orders: { host: [ a ], mode: shadow }\n  billing: { upstream: b, until: 2026-12-01, disclose: all }\n\
         scopes:\n  orders:read:\n    api: orders\n    alow: [ GET / ]\n    allow: GET /\n\
         \x20 orders:refund:\n    api: orders\n    sensitivity: hihg\n    max_ttl: 3600\n    allow:\n      - match: POST /refunds\n        when: { query: { currency: 978, test: [ true, \"1\" ] }, ip: [] }\n\
         roles:\n  reader: [ orders:read ]\n\
         boundaries:\n  - { environments: [ prod ] }\n\
         token_rules: { require_expiry: on, rotation: 30d }\n"
    ));
}

#[test]
fn declared_tokens() {
    assert_snapshot!(policy_errors(
        "version: 1\n\
         tokens:\n\
         \x20 - { accessor: short, name: a, digest: \"sha256:00\", env: prod, created: yesterday }\n\
         \x20 - { accessor: AAAAAAAAAA, name: b, env: prod, created: 2026-11-01, state: actve }\n\
         \x20 - { accessor: AAAAAAAAAA, name: b, env: prod, created: 2026-11-01, expires: 20261101, grants: [ { scop: x } ] }\n"
    ));
}

#[test]
fn a_name_in_two_files() {
    let one = "version: 1\nscopes:\n  orders:read: { api: orders }\ntoken_rules: { require_owner: true }\n";
    let two =
        "version: 1\n# again\nscopes: { \"orders:read\": { api: billing } }\ntoken_rules: { require_owner: false }\n";
    let errors = parse_policy(&[("one.yaml", one), ("two.yaml", two)]).expect_err("accepted");
    assert_eq!(errors.summary_line(), "two.yaml:3:11: the scope `orders:read` is defined twice (and 1 more)");
    assert_snapshot!(errors.to_string());
}

#[test]
fn a_long_line_and_control_characters() {
    let text = format!("version: 1\nenvironments: [{} \"\\e[31mred\", \"prod\u{7}\" ]\n", " prod,".repeat(60));
    assert_snapshot!(policy_errors(&text));
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("latin1.yaml");
    std::fs::write(&broken, b"version: 1\n# \xe4\n").unwrap();
    let files = [broken, folder.path().join("missing.yaml"), folder.path().to_owned()];
    let errors = leastgate_config::load_policy(&files).expect_err("accepted").to_string();
    assert_snapshot!(errors.replace(&folder.path().display().to_string(), "FOLDER"));
}

#[test]
fn colours_are_the_callers_choice() {
    let errors = parse_policy(&[("policy.yaml", "")]).expect_err("accepted");
    assert!(errors.render(true).contains("\u{1b}["));
    assert!(!errors.render(false).contains('\u{1b}'));
}
