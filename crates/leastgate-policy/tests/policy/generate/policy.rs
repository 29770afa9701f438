//! Random policies that load: two apis, scopes, roles that inherit, boundaries, public rules.

use std::collections::HashSet;

use leastgate_policy::Timestamp;
use leastgate_policy::spec::{
    ApiSpec, BoundarySpec, CorsSpec, Located, ModeSpec, PolicySpec, RoleSpec, RuleSpec, ScopeSpec, WhenSpec,
};

use super::path::{self, Kind, PlannedSegment};
use super::{Draw, NOW};
use crate::reference::GatewayView;

/// A rule, still taken apart, so that a request can be made for it.
#[derive(Clone, Debug)]
pub(crate) struct PlannedRule {
    pub(crate) methods: &'static str,
    pub(crate) segments: Vec<PlannedSegment>,
    pub(crate) slash: bool,
    pub(crate) when: Option<WhenSpec>,
    /// Index of the api.
    pub(crate) api: usize,
    /// The scope it belongs to; none for public rules and boundaries.
    pub(crate) scope: Option<String>,
}

/// A policy with its rules sorted by what they do.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) spec: PolicySpec,
    pub(crate) allows: Vec<PlannedRule>,
    pub(crate) denies: Vec<PlannedRule>,
    pub(crate) boundaries: Vec<PlannedRule>,
    pub(crate) public: Vec<PlannedRule>,
    bases: Vec<&'static [&'static str]>,
    ids: HashSet<String>,
}

type Topology = &'static [(&'static [&'static str], &'static [&'static str])];

/// Hosts and base of each api; no two overlap.
const TOPOLOGIES: &[Topology] = &[
    &[(&["a.test"], &[]), (&["b.test"], &[])],
    &[(&["a.test"], &["one"]), (&["a.test"], &["two"])],
    &[(&["a.test:8443", "a.test:8080"], &[]), (&["*.b.test"], &[])],
    &[(&["[2001:db8::1]"], &[]), (&["*.a.test", "c.test"], &["one", "deep"])],
    &[(&[], &["one"]), (&[], &["two"])],
];

pub(crate) fn policy(draw: &mut Draw<'_>) -> (Plan, GatewayView) {
    let environment = if draw.chance(25) { "staging" } else { "prod" };
    let mut plan = Plan::default();
    plan.spec.environments = names(&["prod", "staging"]);
    let topology = draw.choose(TOPOLOGIES);
    for (index, (hosts, base)) in topology.iter().enumerate() {
        plan.bases.push(base);
        let api = api(draw, &mut plan, index, hosts);
        plan.spec.apis.push(api);
    }
    scopes(draw, &mut plan);
    roles(draw, &mut plan);
    boundaries(draw, &mut plan, environment);
    let gateway = GatewayView {
        environment: environment.to_owned(),
        credential_header: "authorization".to_owned(),
        trusted_proxies: vec!["192.0.2.0/24".to_owned(), "2001:db8:ffff::/48".to_owned()],
        allow_underscores: vec!["lax".to_owned()],
        well_known: draw.chance(80),
    };
    (plan, gateway)
}

fn names(of: &[&str]) -> Vec<Located<String>> {
    of.iter().map(|name| (*name).to_owned().into()).collect()
}

fn listed(of: &str) -> Vec<Located<String>> {
    of.split(',').map(|name| name.to_owned().into()).collect()
}

fn api(draw: &mut Draw<'_>, plan: &mut Plan, index: usize, hosts: &[&str]) -> ApiSpec {
    let mut public = Vec::new();
    for _ in 0..draw.pick(3) {
        let methods = draw.choose(&["GET", "POST", "GET,OPTIONS", "HEAD"]);
        if let Some(rule) = rule(draw, plan, index, None, methods, Kind::Public) {
            public.push(rule.text);
        }
    }
    let mode = if draw.chance(25) {
        let until = if draw.chance(40) { NOW - 86_400 } else { NOW + 86_400 };
        ModeSpec::Shadow { until: Timestamp(until).into() }
    } else {
        ModeSpec::Enforce
    };
    let cors = CorsSpec { origins: vec!["https://app.test".to_owned()], ..CorsSpec::default() };
    ApiSpec {
        name: format!("api{index}").into(),
        hosts: names(hosts),
        base: format!("/{}", plan.bases[index].join("/")).into(),
        upstream: if draw.chance(20) { "lax".to_owned().into() } else { "plain".to_owned().into() },
        mode,
        public,
        cors: draw.chance(60).then(|| cors.into()),
        ..ApiSpec::default()
    }
}

fn scopes(draw: &mut Draw<'_>, plan: &mut Plan) {
    for index in 0..3 + draw.pick(4) {
        let api = index % 2;
        let name = format!("s{index}:x");
        let mut scope =
            ScopeSpec { name: name.clone().into(), api: format!("api{api}").into(), ..ScopeSpec::default() };
        for _ in 0..1 + draw.pick(4) {
            let methods =
                draw.choose(&["GET", "POST", "GET,POST", "*", "PURGE", "OPTIONS", "HEAD", "GRPC", "WS", "GET"]);
            scope.allow.extend(rule(draw, plan, api, Some(&name), methods, Kind::Allow));
        }
        for _ in 0..draw.pick(4) {
            let methods = draw.choose(&["GET", "POST", "*", "OPTIONS,PURGE", "HEAD", "GRPC", "WS"]);
            scope.deny.extend(rule(draw, plan, api, Some(&name), methods, Kind::Deny));
        }
        plan.spec.scopes.push(scope);
    }
}

/// A rule the policy has not got yet, planned and as it is written.
fn rule(
    draw: &mut Draw<'_>,
    plan: &mut Plan,
    api: usize,
    scope: Option<&str>,
    methods: &'static str,
    kind: Kind,
) -> Option<RuleSpec> {
    let base = plan.bases[api];
    if methods == "GRPC" && !base.is_empty() {
        return None;
    }
    let (segments, slash) = match methods {
        "GRPC" => (grpc(draw), false),
        _ => match earlier(draw, plan, api) {
            Some((other, slash)) => path::alike(draw, &other, base.len(), slash, kind),
            None => path::template(draw, base, kind),
        },
    };
    let template = path::text(&segments, slash);
    let template = if methods == "GRPC" { template.trim_start_matches('/') } else { &template };
    let text = format!("{methods} {template}");
    let when = if kind != Kind::Public && draw.chance(35) { Some(when(draw)) } else { None };
    let owner = match (scope, kind) {
        (Some(scope), Kind::Allow) => format!("{scope}/allow"),
        (Some(scope), _) => format!("{scope}/deny"),
        (None, Kind::Public) => format!("{api}/public"),
        (None, _) => "boundary".to_owned(),
    };
    if !plan.ids.insert(format!("{owner}/{text}/{}", when.is_some())) {
        return None;
    }
    let planned = PlannedRule { methods, segments, slash, when: when.clone(), api, scope: scope.map(str::to_owned) };
    match (scope, kind) {
        (Some(_), Kind::Allow) => plan.allows.push(planned),
        (Some(_), _) => plan.denies.push(planned),
        (None, Kind::Public) => plan.public.push(planned),
        (None, _) => plan.boundaries.push(planned),
    }
    Some(RuleSpec { text: text.into(), when })
}

/// In three cases of five a template that some rule of the api has already, so that rules meet.
fn earlier(draw: &mut Draw<'_>, plan: &Plan, api: usize) -> Option<(Vec<PlannedSegment>, bool)> {
    let all = plan.allows.iter().chain(&plan.denies).chain(&plan.public).chain(&plan.boundaries);
    let same: Vec<&PlannedRule> = all.filter(|rule| rule.api == api).collect();
    if same.is_empty() || !draw.chance(60) {
        return None;
    }
    let rule = draw.choose(&same);
    Some((rule.segments.clone(), rule.slash))
}

fn grpc(draw: &mut Draw<'_>) -> Vec<PlannedSegment> {
    let method = draw.choose(&["Get", "List"]);
    vec![PlannedSegment::Literal("shop.Catalog"), PlannedSegment::Literal(method)]
}

/// One, two or all three kinds of condition.
fn when(draw: &mut Draw<'_>) -> WhenSpec {
    let mut when = WhenSpec::default();
    let kinds = draw.choose(&[0b001, 0b010, 0b100, 0b011, 0b110, 0b111]);
    if kinds & 0b001 != 0 {
        let values = draw.choose(&["INC-*", "INC-1,OK", "*"]);
        when.header.push((draw.choose(&["x-ticket", "X-Ticket"]).to_owned().into(), listed(values)));
    }
    if kinds & 0b010 != 0 {
        let name = draw.choose(&["currency", "page_no", "ticket"]);
        let values = draw.choose(&["eur,usd", "eur", "eur,a b"]);
        when.query.push((name.to_owned().into(), listed(values)));
    }
    if kinds & 0b100 != 0 {
        when.source_ip = listed(draw.choose(&["10.0.0.0/8", "10.1.0.0/16,2001:db8::/32"]));
    }
    when
}

fn roles(draw: &mut Draw<'_>, plan: &mut Plan) {
    let scopes: Vec<String> = plan.spec.scopes.iter().map(|scope| scope.name.value.clone()).collect();
    for index in 0..1 + draw.pick(4) {
        let mut role = RoleSpec { name: format!("r{index}").into(), ..RoleSpec::default() };
        for scope in &scopes {
            if draw.chance(25) {
                role.scopes.push(scope.clone().into());
            }
        }
        for parent in 0..index {
            if draw.chance(35) {
                role.inherits.push(format!("r{parent}").into());
            }
        }
        role.environments = draw.choose(&[None, None, Some("prod"), Some("staging"), Some("prod,staging")]).map(listed);
        plan.spec.roles.push(role);
    }
}

fn boundaries(draw: &mut Draw<'_>, plan: &mut Plan, environment: &str) {
    let everywhere = plan.bases.iter().all(|base| base.is_empty());
    for _ in 0..draw.pick(4) {
        let api = draw.pick(2);
        let bound = draw.choose(&[None, Some(environment), Some("prod"), Some("staging")]);
        let mut boundary = BoundarySpec { environments: bound.map(|name| names(&[name])), ..BoundarySpec::default() };
        if !everywhere || draw.chance(50) {
            boundary.apis = Some(names(&[if api == 0 { "api0" } else { "api1" }]));
        }
        for _ in 0..1 + draw.pick(2) {
            let methods = draw.choose(&["*", "POST", "GET", "GRPC", "WS", "GET,PURGE"]);
            boundary.deny.extend(rule(draw, plan, api, None, methods, Kind::Deny));
        }
        plan.spec.boundaries.push(boundary);
    }
}
