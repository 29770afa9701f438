//! Apis: their hosts, bases and modes, and that no two of them could judge one request (§2).

use std::sync::Arc;

use super::{CompileContext, Errors, SpecErrorKind};
use crate::host::HostPattern;
use crate::method::is_supported;
use crate::snapshot::{Api, Cors};
use crate::spec::{ApiSpec, ModeSpec, PolicySpec};
use crate::template::{Segment, Template};
use crate::time::Timestamp;
use crate::trie::{Matching, Trie};

const MAX_SHADOW: u64 = 30 * 24 * 60 * 60;

/// What `*` stands for where methods must be named: to a browser that sends credentials, `*` is a method of that name
/// (Fetch standard).
const ANY_METHOD: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

/// The apis in the order of their names, their tries still empty.
pub(super) fn compile(spec: &PolicySpec, context: &CompileContext<'_>, errors: &mut Errors) -> Vec<Api> {
    let mut sorted: Vec<&ApiSpec> = spec.apis.iter().collect();
    sorted.sort_by(|a, b| a.name.value.cmp(&b.name.value));
    let apis: Vec<Api> = sorted.iter().map(|api| compile_one(api, spec, context, errors)).collect();
    for (index, api) in apis.iter().enumerate() {
        for (earlier, place) in apis[..index].iter().zip(&sorted) {
            if overlap(earlier, api) {
                let newer = sorted[index];
                let origin =
                    if newer.name.origin.0 > place.name.origin.0 { newer.name.origin } else { place.name.origin };
                errors.push(origin, SpecErrorKind::Overlap(earlier.name.to_string(), api.name.to_string()));
            }
        }
    }
    apis
}

fn compile_one(api: &ApiSpec, spec: &PolicySpec, context: &CompileContext<'_>, errors: &mut Errors) -> Api {
    let upstream = context.upstreams.and_then(|all| all.iter().find(|upstream| upstream.name == api.upstream.value));
    Api {
        name: api.name.value.as_str().into(),
        upstream: api.upstream.value.as_str().into(),
        disclose: api.disclose,
        limits: api.limits,
        redact: api.redact.iter().map(|name| name.value.as_str().into()).collect(),
        hosts: hosts(api, errors),
        base: base(api, errors),
        shadow_until: shadow(api, context.now, errors),
        allow_underscores: upstream.is_some_and(|upstream| upstream.allow_underscores),
        cors: cors(api, spec, errors),
        allow: Trie::new(Matching::Strict),
        deny: Trie::new(Matching::Loose),
        public: Trie::new(Matching::Strict),
    }
}

fn hosts(api: &ApiSpec, errors: &mut Errors) -> Vec<HostPattern> {
    let mut patterns = Vec::with_capacity(api.hosts.len());
    for host in &api.hosts {
        match HostPattern::parse(&host.value) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => errors.push(host.origin, SpecErrorKind::Host { host: host.value.clone(), error }),
        }
    }
    patterns
}

fn base(api: &ApiSpec, errors: &mut Errors) -> Vec<Box<str>> {
    let template = Template::parse(&api.base.value).ok().filter(|template| !template.rest && !template.trailing_slash);
    let literals = template.and_then(|template| {
        template
            .segments
            .into_iter()
            .map(|segment| if let Segment::Literal(text) = segment { Some(text) } else { None })
            .collect()
    });
    literals.unwrap_or_else(|| {
        errors.push(api.base.origin, SpecErrorKind::Base(api.base.value.clone()));
        Vec::new()
    })
}

fn shadow(api: &ApiSpec, now: Timestamp, errors: &mut Errors) -> Option<Timestamp> {
    let ModeSpec::Shadow { until } = api.mode else { return None };
    if until.value > now.plus(MAX_SHADOW) {
        errors.push(until.origin, SpecErrorKind::ShadowTooLong);
    }
    Some(until.value)
}

fn cors(api: &ApiSpec, spec: &PolicySpec, errors: &mut Errors) -> Option<Arc<Cors>> {
    let cors = api.cors.as_ref()?;
    if cors.value.credentials && cors.value.origins.iter().any(|origin| origin == "*") {
        errors.push(cors.origin, SpecErrorKind::CorsAnyWithCredentials);
    }
    let scopes = spec.scopes.iter().filter(|scope| scope.api.value == api.name.value);
    let rules = scopes.flat_map(|scope| scope.allow.iter().map(|rule| &rule.text)).chain(&api.public);
    let methods = rules.filter_map(|text| text.value.split_whitespace().next()).flat_map(|methods| methods.split(','));
    let mut methods: Vec<String> = methods.flat_map(sent_by_scripts).map(str::to_owned).collect();
    methods.sort_unstable();
    methods.dedup();
    Some(Arc::new(Cors { spec: cors.value.clone(), methods }))
}

/// What a rule's method means to a script on another origin, which can't begin a WebSocket by a preflight.
fn sent_by_scripts(method: &str) -> Vec<&str> {
    match method {
        "*" => ANY_METHOD.to_vec(),
        "GRPC" => vec!["POST"],
        "WS" => Vec::new(),
        _ if is_supported(method) => vec![method],
        _ => Vec::new(),
    }
}

/// Whether some host and some path belong to both.
fn overlap(a: &Api, b: &Api) -> bool {
    let bases = a.base.iter().zip(&b.base).all(|(a, b)| a == b);
    let hosts =
        a.hosts.is_empty() || b.hosts.is_empty() || a.hosts.iter().any(|a| b.hosts.iter().any(|b| a.overlaps(b)));
    bases && hosts
}
