//! What a policy must not say: each error, found at its own place.

use super::*;
use crate::spec::{ApiSpec, BoundarySpec, Located, ModeSpec, RoleSpec, RuleSpec, ScopeSpec, WhenSpec};

const NOW: Timestamp = Timestamp(1_800_000_000);

fn text(value: &str) -> Located<String> {
    Located::from(value.to_owned())
}

fn rule(value: &str) -> RuleSpec {
    RuleSpec { text: text(value), when: None }
}

fn api(name: &str, hosts: &[&str], base: &str) -> ApiSpec {
    ApiSpec {
        name: text(name),
        hosts: hosts.iter().map(|host| text(host)).collect(),
        base: text(base),
        upstream: text("up"),
        ..ApiSpec::default()
    }
}

fn scope(name: &str, allow: &[&str], deny: &[&str]) -> ScopeSpec {
    let rules = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect();
    ScopeSpec { name: text(name), api: text("orders"), allow: rules(allow), deny: rules(deny), ..ScopeSpec::default() }
}

fn policy() -> PolicySpec {
    PolicySpec {
        environments: vec![text("prod"), text("dev")],
        apis: vec![api("orders", &["a"], "/")],
        ..PolicySpec::default()
    }
}

fn compile(spec: &PolicySpec) -> Result<PolicySnapshot, Vec<SpecErrorKind>> {
    let context = CompileContext {
        environment: "prod",
        revision: "r1",
        now: NOW,
        credential_header: http::header::AUTHORIZATION,
        trusted_proxies: vec![],
        well_known: false,
        upstreams: None,
    };
    PolicySnapshot::compile(spec, &context).map_err(|errors| errors.into_iter().map(|error| error.kind).collect())
}

#[track_caller]
fn refused(change: impl FnOnce(&mut PolicySpec), expected: &str) {
    let mut spec = policy();
    change(&mut spec);
    let errors = compile(&spec).expect_err("a policy that must not compile");
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(shown.iter().any(|error| error.contains(expected)), "{shown:?} lacks {expected:?}");
}

#[test]
fn apis_must_not_overlap() {
    refused(|spec| spec.apis.push(api("b", &[], "/x")), "overlap");
    refused(|spec| spec.apis.push(api("b", &["a:8443"], "/")), "overlap");
    let mut spec = policy();
    spec.apis = vec![api("a", &["x"], "/a"), api("b", &["x"], "/b"), api("c", &["y"], "/")];
    assert!(compile(&spec).is_ok());
    spec.apis.push(api("d", &["*.example"], "/"));
    spec.apis.push(api("e", &["x.example"], "/"));
    assert!(compile(&spec).is_err());
}

#[test]
fn rules_must_have_one_meaning() {
    for (text, expected) in [
        ("GET", "METHOD"),
        ("get /v1", "not a method"),
        ("CONNECT /v1", "not a method"),
        ("GET,GRPC /v1", "stands alone"),
        ("GET v1", "whole path"),
        ("GET /v1/../x", "dots"),
        ("GET /v1/a*b", "literal star"),
        ("GRPC /a.B/C", "METHOD"),
    ] {
        let mut spec = policy();
        spec.scopes.push(scope("s", &[text], &[]));
        let errors = compile(&spec).expect_err(text);
        let shown: Vec<String> =
            errors.iter().map(|error| format!("{error} {}", error.hint().unwrap_or_default())).collect();
        assert!(shown.iter().any(|error| error.contains(expected)), "{text}: {shown:?}");
    }
    refused(|spec| spec.scopes.push(scope("s", &["GET /a", "GET  /a"], &[])), "written twice");
    refused(|spec| spec.scopes.push(scope("s", &[], &["GET /a/{id:uuid}"])), "no type");
    refused(|spec| spec.apis[0].public.push(text("* /a")), "names its methods");
    refused(|spec| spec.apis[0].public.push(text("GET /a/**")), "only literals");
    refused(
        |spec| {
            spec.apis[0].base = text("/v1");
            spec.scopes.push(scope("s", &["GET /v2"], &[]));
        },
        "outside",
    );
}

#[test]
fn references_must_exist() {
    refused(|spec| spec.scopes.push(ScopeSpec { api: text("order"), ..scope("s", &[], &[]) }), "no api `order`");
    refused(
        |spec| spec.roles.push(RoleSpec { name: text("r"), scopes: vec![text("x")], ..RoleSpec::default() }),
        "no scope `x`",
    );
    refused(
        |spec| {
            spec.roles.push(RoleSpec { name: text("r"), environments: Some(vec![text("qa")]), ..RoleSpec::default() });
        },
        "no environment `qa`",
    );
    refused(
        |spec| spec.boundaries.push(BoundarySpec { apis: Some(vec![text("x")]), ..BoundarySpec::default() }),
        "no api `x`",
    );
}

#[test]
fn roles_must_not_inherit_in_a_circle() {
    let role =
        |name: &str, parent: &str| RoleSpec { name: text(name), inherits: vec![text(parent)], ..RoleSpec::default() };
    refused(|spec| spec.roles.extend([role("a", "b"), role("b", "c"), role("c", "a")]), "circle");
    refused(
        |spec| {
            let chain = (1..9).map(|n| role(&format!("r{n}"), &format!("r{}", n + 1)));
            spec.roles.extend(chain);
            spec.roles.push(RoleSpec { name: text("r9"), ..RoleSpec::default() });
        },
        "deeper",
    );
}

/// A file may have a line or a circle of any length; the stack has one of its own.
#[test]
fn a_line_of_roles_may_be_longer_than_the_stack() {
    let parent = |n: u32| RoleSpec {
        name: text(&format!("r{n}")),
        inherits: vec![text(&format!("r{}", n + 1))],
        ..RoleSpec::default()
    };
    const LONG: u32 = 100_000;
    refused(|spec| spec.roles.extend((0..LONG).map(parent)), "no role");
    refused(
        |spec| {
            spec.roles.extend((0..LONG).map(parent));
            spec.roles.push(RoleSpec { name: text(&format!("r{LONG}")), ..RoleSpec::default() });
        },
        "deeper",
    );
    refused(
        |spec| {
            spec.roles.extend((0..LONG).map(parent));
            let last = RoleSpec { name: text(&format!("r{LONG}")), inherits: vec![text("r0")], ..RoleSpec::default() };
            spec.roles.push(last);
        },
        "r14 → r15 → …",
    );
}

/// Roles that are stuck behind a circle are not named as part of it, and each circle is named once.
#[test]
fn circles_are_found_whatever_hangs_on_them() {
    let role =
        |name: &str, parent: &str| RoleSpec { name: text(name), inherits: vec![text(parent)], ..RoleSpec::default() };
    let hung = [role("x", "a"), role("a", "b"), role("b", "a"), role("c", "c"), role("y", "x")];
    refused(|spec| spec.roles.extend(hung.clone()), "in a circle: a → b → a");
    refused(|spec| spec.roles.extend(hung.clone()), "in a circle: c → c");
}

#[test]
fn conditions_read_what_is_forwarded() {
    let with = |name: &str, value: &str| {
        let header = vec![(text(name), vec![text(value)])];
        RuleSpec { text: text("GET /a"), when: Some(WhenSpec { header, ..WhenSpec::default() }) }
    };
    for (name, value, expected) in [
        ("Authorization", "x", "no condition can read"),
        ("X-Forwarded-For", "x", "no condition can read"),
        ("a b", "x", "not a header"),
        ("x-a", "a*b", "only at the end"),
        ("x-a", " a", "trimmed"),
        ("x-a", "é", "visible ASCII"),
    ] {
        let mut broken = scope("s", &[], &[]);
        broken.allow.push(with(name, value));
        refused(|spec| spec.scopes.push(broken), expected);
    }
}

#[test]
fn a_boundary_must_be_able_to_bind() {
    let boundary = |apis: &[&str], deny: &str| BoundarySpec {
        apis: Some(apis.iter().map(|api| text(api)).collect()),
        deny: vec![rule(deny)],
        ..BoundarySpec::default()
    };
    refused(|spec| spec.boundaries.push(boundary(&[], "* /**")), "binds nothing");
    refused(
        |spec| {
            spec.apis[0].base = text("/v1");
            spec.boundaries.push(boundary(&["orders"], "* /v2/**"));
        },
        "outside",
    );
    let mut spec = policy();
    spec.apis[0].base = text("/v1/Orders");
    spec.boundaries.extend([boundary(&["orders"], "* /**"), boundary(&["orders"], "* /*/orders/x")]);
    assert!(compile(&spec).is_ok());
}

#[test]
fn a_network_must_be_able_to_hold_a_caller() {
    let when = WhenSpec { source_ip: vec![text("::ffff:10.0.0.0/104")], ..WhenSpec::default() };
    let mut broken = scope("s", &[], &[]);
    broken.deny.push(RuleSpec { text: text("GET /a"), when: Some(when) });
    refused(|spec| spec.scopes.push(broken), "IPv4-mapped");
}

#[test]
fn a_shadow_ends_within_thirty_days() {
    let until = Located::from(NOW.plus(31 * 86_400));
    refused(|spec| spec.apis[0].mode = ModeSpec::Shadow { until }, "30 days");
}

#[test]
fn a_foreign_environment_is_refused() {
    refused(|spec| spec.environments.truncate(0), "not in the policy's");
}

#[test]
fn a_preflight_offers_the_methods_of_the_api_by_name() {
    let methods = |allow: &[&str]| {
        let mut spec = policy();
        spec.scopes = vec![scope("s", allow, &[])];
        spec.apis[0].cors =
            Some(crate::spec::CorsSpec { origins: vec!["https://a".into()], ..Default::default() }.into());
        compile(&spec).unwrap().apis[0].cors.as_ref().unwrap().methods.join(" ")
    };
    assert_eq!(methods(&["GET,PUT /a", "PUT /b", "GRPC a.B/C", "WS /c", "PURGE /d"]), "GET POST PURGE PUT");
    assert_eq!(methods(&["* /a"]), "DELETE GET HEAD OPTIONS PATCH POST PUT");
    assert_eq!(methods(&["WS /c"]), "");
}
