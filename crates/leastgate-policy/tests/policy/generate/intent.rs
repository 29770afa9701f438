//! The wanted outcome first, then a request towards it. What it comes to is for the two evaluators to say.

use super::policy::{Plan, PlannedRule};
use super::request::{self, Sketch, for_rule};
use super::{Draw, NOW, path, token};
use crate::reference::{GatewayView, RawRequest, StateView, TokenView};

/// What a request was drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    Granted,
    Noise,
    Public,
    Preflight,
    Malformed,
    Ambiguous,
    Method,
    Host,
    TooLong,
    Missing,
    Misplaced,
    MalformedToken,
    UnknownToken,
    Revoked,
    Disabled,
    NotYetValid,
    OtherEnvironment,
    Source,
    Expired,
    GraceEnded,
    Insufficient,
    ExplicitDeny,
    Boundary,
    Condition,
    NoMatch,
    OwnToken,
}

/// Each as often as its outcome needs it.
const WEIGHTS: &[(Intent, usize)] = &[
    (Intent::Granted, 8),
    (Intent::Noise, 5),
    (Intent::Public, 4),
    (Intent::Preflight, 6),
    (Intent::Malformed, 3),
    (Intent::Ambiguous, 5),
    (Intent::Method, 5),
    (Intent::Host, 3),
    (Intent::TooLong, 5),
    (Intent::Missing, 4),
    (Intent::Misplaced, 5),
    (Intent::MalformedToken, 4),
    (Intent::UnknownToken, 4),
    (Intent::Revoked, 4),
    (Intent::Disabled, 4),
    (Intent::NotYetValid, 5),
    (Intent::OtherEnvironment, 5),
    (Intent::Source, 4),
    (Intent::Expired, 4),
    (Intent::GraceEnded, 4),
    (Intent::Insufficient, 6),
    (Intent::ExplicitDeny, 9),
    (Intent::Boundary, 6),
    (Intent::Condition, 8),
    (Intent::NoMatch, 5),
    (Intent::OwnToken, 6),
];

fn intent(draw: &mut Draw<'_>) -> Intent {
    let total = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut at = draw.pick(total);
    for (intent, weight) in WEIGHTS {
        if at < *weight {
            return *intent;
        }
        at -= weight;
    }
    Intent::Granted
}

pub(crate) fn request(
    draw: &mut Draw<'_>,
    plan: &Plan,
    gateway: &GatewayView,
    tokens: &mut Vec<TokenView>,
) -> (Intent, RawRequest) {
    let intent = intent(draw);
    let rule = rule(draw, plan, intent);
    let mut record = match intent {
        Intent::Insufficient => token::lacking(draw, plan, gateway, tokens, rule.scope.as_deref()),
        _ => token::conferring(draw, plan, gateway, tokens, rule.scope.as_deref()),
    };
    let loose = matches!(intent, Intent::ExplicitDeny | Intent::Boundary) && draw.chance(60);
    let met = match intent {
        Intent::Condition => false,
        Intent::ExplicitDeny | Intent::Boundary | Intent::Noise => draw.chance(70),
        _ => true,
    };
    let mut sketch = for_rule(draw, plan, &rule, loose, met);
    alter_token(draw, intent, &sketch, &mut record);
    let mut offered = record.text.clone();
    tokens.push(record);
    let replaced = tokens.len() + 500;
    match intent {
        Intent::OtherEnvironment => offered = token::text("lgt", draw.choose(&["staging2", "dev"]), replaced),
        Intent::UnknownToken => offered = token::text("lgt", &gateway.environment, replaced),
        Intent::MalformedToken => offered = spoil(draw, &offered),
        _ => {}
    }
    credential(draw, intent, &mut sketch, &offered);
    alter_request(draw, intent, plan, &mut sketch);
    (intent, sketch.finish(draw))
}

/// The rule the request is made for.
fn rule(draw: &mut Draw<'_>, plan: &Plan, intent: Intent) -> PlannedRule {
    let conditional = |rules: &[PlannedRule]| -> Vec<PlannedRule> {
        rules.iter().filter(|rule| rule.when.is_some()).cloned().collect()
    };
    let wanted = match intent {
        Intent::ExplicitDeny => plan.denies.clone(),
        Intent::Boundary => plan.boundaries.clone(),
        Intent::Public => plan.public.clone(),
        Intent::Condition => conditional(&plan.allows),
        Intent::Noise if draw.chance(40) => [plan.denies.as_slice(), &plan.public, &plan.boundaries].concat(),
        _ => Vec::new(),
    };
    let rules = if wanted.is_empty() { &plan.allows } else { &wanted };
    if rules.is_empty() {
        return PlannedRule { methods: "GET", segments: Vec::new(), slash: false, when: None, api: 0, scope: None };
    }
    draw.choose(rules)
}

fn alter_token(draw: &mut Draw<'_>, intent: Intent, sketch: &Sketch, token: &mut TokenView) {
    match intent {
        Intent::Revoked => token.state = StateView::Revoked,
        Intent::Disabled => token.state = StateView::Disabled,
        Intent::NotYetValid => token.not_before = Some(draw.choose(&[NOW + 1, NOW + 60])),
        Intent::Source => token.source_ip = words(draw.choose(&["203.0.113.0/24", "203.0.113.9/32,fd00::/8"])),
        Intent::Expired | Intent::GraceEnded => {
            token.expires = Some(draw.choose(&[NOW, NOW - 1, NOW - 86_400]));
            token.state = if intent == Intent::Expired { StateView::Active } else { StateView::Rotating };
        }
        _ => {
            if draw.chance(15) {
                token.source_ip = vec![format!("{}/{}", sketch.peer, if sketch.peer.is_ipv4() { 32 } else { 128 })];
            }
            if draw.chance(15) {
                token.not_before = Some(draw.choose(&[NOW, NOW - 1]));
            }
        }
    }
    if matches!(intent, Intent::Revoked | Intent::Disabled | Intent::NotYetValid | Intent::Source) && draw.chance(15) {
        token.expires = Some(NOW - 1);
    }
}

fn words(of: &str) -> Vec<String> {
    of.split(',').map(str::to_owned).collect()
}

/// Something like a token that is none.
fn spoil(draw: &mut Draw<'_>, text: &str) -> String {
    match draw.pick(9) {
        0 => format!("{}0", &text[..text.len() - 1]),
        1 => text.to_ascii_uppercase(),
        2 => text[..text.len() - 1].to_owned(),
        3 => format!("{text}0"),
        4 => text.replacen("lgt_", "lgx_", 1),
        5 => draw.choose(&["x", "null", "lgt_", "lgt____", "eyJhbGciOi.x.y"]).to_owned(),
        6 => text.replacen('S', "T", 1),
        7 => format!("{text} {text}"),
        _ => text.replacen("lgt_", "lgt__", 1),
    }
}

/// Puts the credential where the intent wants it.
fn credential(draw: &mut Draw<'_>, intent: Intent, sketch: &mut Sketch, text: &str) {
    match intent {
        Intent::Missing => match draw.pick(4) {
            1 => sketch.header("authorization", "Basic dTpw"),
            2 => sketch.header("authorization", "Digest username=\"u\""),
            _ => {}
        },
        Intent::Public if draw.chance(70) => {}
        Intent::Preflight => {}
        Intent::Misplaced => misplace(draw, sketch, text),
        _ => {
            let scheme = draw.choose(&["Bearer", "Bearer", "bearer", "BEARER"]);
            sketch.header(draw.choose(&["authorization", "Authorization"]), format!("{scheme} {text}"));
        }
    }
}

fn misplace(draw: &mut Draw<'_>, sketch: &mut Sketch, text: &str) {
    if draw.chance(50) {
        sketch.header("authorization", format!("Bearer {text}"));
    }
    match draw.pick(9) {
        0 => sketch.query.push(format!("access_token={text}")),
        1 => sketch.header("cookie", format!("a=b; session={text}")),
        2 => sketch.header("x-api-key", text),
        3 => {
            sketch.header("authorization", format!("Bearer {text}"));
            sketch.header("Authorization", format!("Bearer {text}"));
        }
        4 => sketch.query.push(format!("t={}", text.replace('_', "%5F").replacen('l', "%6c", 1))),
        5 => sketch.header("proxy-authorization", format!("Bearer {text}")),
        6 => sketch.path = format!("/{text}{}", sketch.path),
        7 => sketch.header("referer", format!("https://x.test/?t={text}&b=c")),
        _ => sketch.query.push(text.to_owned()),
    }
}

fn alter_request(draw: &mut Draw<'_>, intent: Intent, plan: &Plan, sketch: &mut Sketch) {
    match intent {
        Intent::Preflight => preflight(draw, plan, sketch),
        Intent::Malformed => request::malform(draw, sketch),
        Intent::Ambiguous => sketch.path = path::ambiguous(draw, &sketch.path),
        Intent::Method => {
            sketch.method = draw.choose(&["get", "CONNECT", "TRACE", "Post", "G_T", "GET!", "x"]).to_owned();
        }
        Intent::Host => {
            sketch.host = draw.choose(&["c2.test", "y.x.b.test", "b.test:1", "a.test:9", "test", "[::2]"]).to_owned();
        }
        Intent::TooLong => {
            if draw.chance(50) {
                sketch.path = "/a".repeat(129 + draw.pick(3));
            } else {
                sketch.query.push("a".repeat(8192));
            }
        }
        Intent::NoMatch => sketch.path = path::near(draw, &format!("{}/nowhere", sketch.path.trim_end_matches('/'))),
        Intent::Noise => noise(draw, sketch),
        Intent::OwnToken => own_token(draw, sketch),
        _ => {}
    }
    if intent == Intent::Host && draw.chance(40) {
        sketch.path = format!("/elsewhere{}", sketch.path);
    }
}

fn preflight(draw: &mut Draw<'_>, plan: &Plan, sketch: &mut Sketch) {
    sketch.method = "OPTIONS".to_owned();
    let with_cors = plan.spec.apis.iter().position(|api| api.cors.is_some());
    if let Some(api) = with_cors
        && draw.chance(70)
    {
        sketch.host = request::host(draw, plan, api);
        sketch.path = format!("{}/x", plan.spec.apis[api].base.value.trim_end_matches('/'));
    }
    sketch.headers.retain(|(name, _)| name != "connection" && name != "upgrade");
    sketch.header("origin", draw.choose(&["https://app.test", "https://other.test"]));
    if !draw.chance(10) {
        sketch.header("access-control-request-method", "PUT");
    }
}

/// The question about the own token, or nearly that.
fn own_token(draw: &mut Draw<'_>, sketch: &mut Sketch) {
    let other =
        ["/.well-known/leastgate/", "/.well-known/least%67ate", "/.Well-Known/leastgate", "/.well-known/leastgate/x"];
    let is_other = draw.chance(15);
    sketch.path = if is_other { draw.choose(&other) } else { "/.well-known/leastgate" }.to_owned();
    sketch.method = draw.choose(&["GET", "GET", "GET", "HEAD", "POST"]).to_owned();
    if draw.chance(60) {
        sketch.host = draw.choose(&["nowhere.test", "[::7]:1"]).to_owned();
    }
    sketch.headers.retain(|(name, _)| name != "upgrade" || sketch.method == "GET");
}

/// Small changes of any kind.
fn noise(draw: &mut Draw<'_>, sketch: &mut Sketch) {
    for _ in 0..1 + draw.pick(2) {
        match draw.pick(7) {
            0 => sketch.path = path::near(draw, &sketch.path),
            1 => {
                sketch.method =
                    draw.choose(&["GET", "HEAD", "POST", "OPTIONS", "PURGE", "M-SEARCH", "DELETE", "X2"]).to_owned();
            }
            2 => sketch.header("upgrade", draw.choose(&["h2c", "TLS/1.0", "foo, bar"])),
            3 => {
                if sketch.method == "GET" && !sketch.headers.iter().any(|(name, _)| name == "upgrade") {
                    request::handshake(sketch);
                }
            }
            4 => sketch.header(draw.choose(&["x_odd", "x.odd", "x~odd"]), "1"),
            5 => sketch.header("connection", draw.choose(&["close", "keep-alive, te", "x-ticket"])),
            _ => {
                sketch.header("content-type", draw.choose(&["application/grpc", "application/grpc-web", "text/plain"]));
            }
        }
    }
}
