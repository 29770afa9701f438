//! The admin API at a glance: every route, what it is called in metrics and events, who may call it, the work, and what goes
//! over the wire. The router and the API's document are made of this one table.
//!
//! Routes are compared whole and byte for byte; what isn't built isn't routed.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};
use leastgate_store::AdminRole::{self, Admin, Operator, Viewer};

use crate::api::shape::{Document, Event};
use crate::api::{
    AdminList, AdminRevoked, CheckRequest, CheckResult, CreateAdmin, CreateChild, CreateToken, CreateTokens, EventList,
    ExportedTokens, FindingList, GrantScope, ImportTokens, ImportedTokens, IssuedAdminView, IssuedTokenView,
    IssuedTokens, PatchToken, PolicyView, ReasonRequest, RestrictToken, RevokeTokens, RevokedTokens, RotateToken,
    RotatedToken, RotationView, StatusView, TokenChanged, TokenEdited, TokenList, TokenUsage, TokenView,
};
use crate::call::{Effect, answer};
use crate::gate::gate;
use crate::openapi;
use crate::operations::{
    admins, bulk, changes, check, children, edit, events, export, findings, import, policy, restrict, revocations,
    rotate, status, tokens,
};
use crate::problem::Kind::{self, AboveCeiling, Conflict, Declared, NameTaken, NoPolicy, NotFound, Stale, TokenRules};
use crate::problem::Problem;
use crate::route::Condition::{Needed, Taken};
use crate::route::{Route, Verb, get, hand_out, patch, post};
use crate::state::Shared;

const GIVES: (AdminRole, Effect) = (Operator, Effect::Gives);
const TAKES: (AdminRole, Effect) = (Operator, Effect::Takes);

/// Every call of the API.
pub(crate) static ROUTES: &[Route] = &[
    get("/v1/tokens", "token.list", Viewer, tokens::list)
        .says("List tokens", "A page at a time: follow `next_cursor`.")
        .asks::<tokens::ListQuery>()
        .answers::<TokenList>()
        .refuses(&[NoPolicy]),
    post("/v1/tokens", "token.create", GIVES, tokens::create)
        .says(
            "Make a token",
            "Its secret is in this answer and in no other one. Repeated without a key, the name is taken.",
        )
        .takes::<CreateToken>()
        .like(r#"{"name": "ci-bot", "owner": "team-a", "roles": ["reader"], "ttl": "30d"}"#)
        .makes::<IssuedTokenView>()
        .tagged()
        .once()
        .refuses(&[NameTaken, Declared, TokenRules, AboveCeiling, NoPolicy, Conflict, NotFound]),
    post("/v1/tokens/bulk", "token.bulk", GIVES, bulk::create)
        .says("Make many tokens alike", "All are made, or none. Repeated, the names are taken.")
        .takes::<CreateTokens>()
        .like(r#"{"token": {"name": "bot", "owner": "team-a", "roles": ["reader"], "ttl": "1h"}, "count": 3}"#)
        .makes::<IssuedTokens>()
        .refuses(&[NameTaken, Declared, TokenRules, AboveCeiling, NoPolicy]),
    post("/v1/tokens/import", "token.import", GIVES, import::import)
        .says(
            "Take tokens of another gateway",
            "All are taken, or none; a refusal names the token. What was taken away here does not come back, not even after \
             it was purged. Repeated, they are found as they are, under a new pepper too.",
        )
        .takes_many::<ImportTokens>()
        .answers::<ImportedTokens>()
        .refuses(&[NameTaken, Declared, TokenRules, AboveCeiling, NoPolicy, Conflict]),
    hand_out("/v1/exports", "token.export", Admin, export::export)
        .says(
            "Hand tokens to another gateway",
            "Those in use, as they are in force, with digests and without secrets, a page at a time: a page may hold none. \
             Each page is on record before it is answered.",
        )
        .asks::<export::ExportQuery>()
        .answers::<ExportedTokens>()
        .refuses(&[Declared]),
    post("/v1/revocations", "token.revocations", TAKES, revocations::revoke)
        .says("Revoke tokens by a filter", "Repeated, those that were revoked don't fit any more.")
        .takes::<RevokeTokens>()
        .like(r#"{"owner": "team-b", "dry_run": true, "reason": "the team is gone"}"#)
        .answers::<RevokedTokens>()
        .refuses(&[Declared, AboveCeiling]),
    get("/v1/tokens/{token}", "token.show", Viewer, tokens::show)
        .says("Show a token", "")
        .answers::<TokenView>()
        .tagged()
        .refuses(&[NoPolicy]),
    patch("/v1/tokens/{token}", "token.edit", GIVES, edit::patch)
        .says("Change a token", "Repeated, the version is another one.")
        .takes::<PatchToken>()
        .like(r#"{"note": "moved to the new runner", "reason": "INC-42"}"#)
        .answers::<TokenEdited>()
        .tagged()
        .condition(Needed)
        .refuses(&[Declared, TokenRules, AboveCeiling, NoPolicy, Conflict]),
    get("/v1/tokens/{token}/usage", "token.usage", Viewer, tokens::usage)
        .says("Show what a token was used for", "")
        .answers::<TokenUsage>()
        .refuses(&[NoPolicy]),
    post("/v1/tokens/{token}/revoke", "token.revoke", TAKES, changes::revoke)
        .says("Revoke a token, for good", "By name, those in the grace of a rotation too. Repeated, it stays revoked.")
        .takes::<ReasonRequest>()
        .like(r#"{"reason": "leaked"}"#)
        .answers::<TokenChanged>()
        .condition(Taken)
        .refuses(&[Declared, AboveCeiling, NoPolicy, Conflict]),
    post("/v1/tokens/{token}/children", "token.child", GIVES, children::create)
        .says("Make a token that stands in for this one", "Repeated, it makes another one; each ends by itself.")
        .takes::<CreateChild>()
        .like(r#"{"ttl": "15m", "reason": "nightly build"}"#)
        .makes::<IssuedTokenView>()
        .tagged()
        .refuses(&[Declared, TokenRules, AboveCeiling, NoPolicy, Conflict, Stale, NameTaken]),
    post("/v1/tokens/{token}/renew", "token.renew", GIVES, children::renew)
        .says("Let a token that stands in for another one live on", "Repeated, its life is counted from then.")
        .takes::<CreateChild>()
        .like(r#"{"ttl": "15m", "reason": "nightly build"}"#)
        .answers::<TokenEdited>()
        .tagged()
        .refuses(&[Declared, TokenRules, AboveCeiling, NoPolicy, Conflict, Stale]),
    post("/v1/tokens/{token}/grants", "token.grant", GIVES, edit::grant)
        .says("Give a token a scope, for a while", "Repeated, the scope's end is counted from then, and never earlier.")
        .takes::<GrantScope>()
        .like(r#"{"scope": "orders:write", "ttl": "15m", "reason": "INC-42"}"#)
        .answers::<TokenEdited>()
        .tagged()
        .condition(Taken)
        .refuses(&[Declared, TokenRules, AboveCeiling, NoPolicy, Conflict]),
    post("/v1/tokens/{token}/restrict", "token.restrict", TAKES, restrict::restrict)
        .says("Take something from a token", "By name, from those in the grace of a rotation too. Repeated, it takes nothing more: names that are gone are refused.")
        .takes::<RestrictToken>()
        .like(r#"{"allow_cidr": ["10.0.0.0/8"], "reason": "only from the office"}"#)
        .answers::<TokenEdited>()
        .tagged()
        .condition(Taken)
        .refuses(&[Declared, AboveCeiling, NoPolicy, Conflict]),
    post("/v1/tokens/{token}/rotate", "token.rotate", GIVES, rotate::rotate)
        .says("Make a token's successor", "Repeated without a key, the successor gets one.")
        .takes::<RotateToken>()
        .like(r#"{"grace": "48h", "reason": "quarterly"}"#)
        .makes::<RotatedToken>()
        .tagged()
        .condition(Taken)
        .once()
        .repeated_as_200()
        .refuses(&[Declared, TokenRules, AboveCeiling, NoPolicy, Conflict, NameTaken]),
    get("/v1/tokens/{token}/rotation", "token.rotation", Viewer, rotate::rotation)
        .says("Show how far a rotation is", "")
        .answers::<RotationView>()
        .refuses(&[Declared, NoPolicy]),
    post("/v1/tokens/{token}/disable", "token.disable", TAKES, changes::disable)
        .says("Switch a token off", "By name, those in the grace of a rotation too. Repeated, it stays off.")
        .takes::<ReasonRequest>()
        .like(r#"{"reason": "on holiday"}"#)
        .answers::<TokenChanged>()
        .condition(Taken)
        .refuses(&[Declared, AboveCeiling, NoPolicy, Conflict]),
    post("/v1/tokens/{token}/enable", "token.enable", GIVES, changes::enable)
        .says("Switch a token on", "Repeated, it stays on.")
        .takes::<ReasonRequest>()
        .like(r#"{"reason": "back again"}"#)
        .answers::<TokenChanged>()
        .condition(Taken)
        .refuses(&[Declared, TokenRules, AboveCeiling, NoPolicy, Conflict]),
    post("/v1/check", "check", (Viewer, Effect::Asks), check::check)
        .says("Explain what would come of a request", "Nothing is forwarded, and nothing changes.")
        .takes::<CheckRequest>()
        .like(r#"{"method": "POST", "url": "/v1/orders", "source_ip": "10.0.0.7"}"#)
        .answers::<CheckResult>()
        .refuses(&[NoPolicy, NotFound]),
    get("/v1/decisions/{id}", "decision.show", Viewer, events::decision)
        .says("Show a recorded decision", "")
        .answers::<Event>(),
    get("/v1/events", "event.list", Viewer, events::list)
        .says("List the latest events", "Those in memory, oldest first.")
        .asks::<events::EventQuery>()
        .answers::<EventList>()
        .refuses(&[NotFound, NoPolicy]),
    get("/v1/findings", "finding.list", Viewer, findings::list)
        .says("List what somebody should look at", "")
        .asks::<findings::FindingQuery>()
        .answers::<FindingList>()
        .refuses(&[NoPolicy]),
    get("/v1/status", "status", Viewer, status::status).says("Show the gateway's state", "").answers::<StatusView>(),
    get("/v1/policy", "policy.show", Viewer, policy::policy)
        .says("Show the policy in force, by name", "")
        .answers::<PolicyView>()
        .refuses(&[NoPolicy]),
    get("/v1/admins", "admin.list", Viewer, admins::list).says("List administrators", "").answers::<AdminList>(),
    post("/v1/admins", "admin.create", (Admin, Effect::Gives), admins::create)
        .says(
            "Make an administrator",
            "The credential is in this answer and in no other one. Repeated, the name is taken.",
        )
        .takes::<CreateAdmin>()
        .like(r#"{"name": "on-call", "role": "operator", "may_grant": {"environments": "*", "roles": ["reader"], "scopes": [], "max_ttl": 3600}}"#)
        .makes::<IssuedAdminView>()
        .refuses(&[NameTaken, AboveCeiling]),
    post("/v1/admins/{id}/revoke", "admin.revoke", (Admin, Effect::Takes), admins::revoke)
        .says("Revoke an administrator", "Repeated, it stays revoked.")
        .takes::<ReasonRequest>()
        .like(r#"{"reason": "left the team"}"#)
        .answers::<AdminRevoked>(),
    get("/v1/openapi.json", "openapi.show", Viewer, openapi::show)
        .says("Show this document", "")
        .answers::<Document>()
        .tagged(),
];

/// Every path with each route that is served there: its own, and those of a path with a parameter that it hides. A token may
/// be named as one of the calls about many are.
pub(crate) fn served() -> impl Iterator<Item = (&'static str, &'static Route)> {
    let paths = ROUTES.iter().enumerate().filter(|(at, route)| !ROUTES[..*at].iter().any(|one| one.path == route.path));
    paths.flat_map(|(_, here)| {
        let is_own = move |route: &Route| route.path == here.path;
        let has = move |verb| ROUTES.iter().any(|route| is_own(route) && route.verb == verb);
        let is_served = move |route: &&Route| is_own(route) || route.covers(here.path) && !has(route.verb);
        ROUTES.iter().filter(is_served).map(|route| (here.path, route))
    })
}

/// The router of the admin listener.
pub(crate) fn admin(shared: &Arc<Shared>) -> Router {
    let (gated, unrouted, refused) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    served()
        .fold(Router::new(), |router, (path, route)| {
            router.route(path, on(filter(route.verb), endpoint(shared, route)))
        })
        .fallback(move || lost(Arc::clone(&unrouted), NotFound, "there is nothing under this path"))
        .method_not_allowed_fallback(move || {
            lost(Arc::clone(&refused), Kind::MethodNotAllowed, "this path has no such method; Allow says which")
        })
        .layer(middleware::from_fn(move |request, next| gate(Arc::clone(&gated), request, next)))
}

fn filter(verb: Verb) -> MethodFilter {
    match verb {
        Verb::Get => MethodFilter::GET,
        Verb::Post => MethodFilter::POST,
        Verb::Patch => MethodFilter::PATCH,
    }
}

fn endpoint(
    shared: &Arc<Shared>,
    route: &'static Route,
) -> impl Fn(Request) -> std::pin::Pin<Box<dyn Future<Output = Response> + Send>> + Clone + Send + Sync + 'static {
    let shared = Arc::clone(shared);
    move |request| Box::pin(answer(Arc::clone(&shared), &route.operation, route.run, request))
}

async fn lost(shared: Arc<Shared>, kind: Kind, detail: &'static str) -> Response {
    let problem = Problem::new(kind, detail).hint("the admin API is under /v1/; what is not built yet is not there");
    shared.given.telemetry.admin_request("_none", problem.status());
    problem.into_response()
}
