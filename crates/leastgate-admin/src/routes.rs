//! The admin API at a glance: every route, what it is called in metrics and events, who may call it, and the work.
//!
//! Routes are compared whole and byte for byte; what isn't built isn't routed.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use leastgate_store::AdminRole::{self, Admin, Operator, Viewer};

use crate::call::{Effect, MOST_BYTES, MOST_BYTES_OF_MANY, Operation, Run, answer};
use crate::gate::gate;
use crate::operations::{
    admins, bulk, changes, check, children, edit, events, findings, policy, revocations, rotate, status, tokens,
};
use crate::problem::{Kind, Problem};
use crate::state::Shared;

const fn operation(name: &'static str, role: AdminRole, effect: Effect) -> Operation {
    Operation { name, role, effect, most_bytes: MOST_BYTES }
}

const fn of_many(operation: Operation) -> Operation {
    Operation { most_bytes: MOST_BYTES_OF_MANY, ..operation }
}

static TOKEN_LIST: Operation = operation("token.list", Viewer, Effect::Reads);
static TOKEN_CREATE: Operation = operation("token.create", Operator, Effect::Gives);
static TOKEN_SHOW: Operation = operation("token.show", Viewer, Effect::Reads);
static TOKEN_USAGE: Operation = operation("token.usage", Viewer, Effect::Reads);
static TOKEN_REVOKE: Operation = operation("token.revoke", Operator, Effect::Takes);
static TOKEN_EDIT: Operation = operation("token.edit", Operator, Effect::Gives);
static TOKEN_GRANT: Operation = operation("token.grant", Operator, Effect::Gives);
static TOKEN_RESTRICT: Operation = operation("token.restrict", Operator, Effect::Takes);
static TOKEN_ROTATE: Operation = operation("token.rotate", Operator, Effect::Gives);
static TOKEN_ROTATION: Operation = operation("token.rotation", Viewer, Effect::Reads);
static TOKEN_DISABLE: Operation = operation("token.disable", Operator, Effect::Takes);
static TOKEN_ENABLE: Operation = operation("token.enable", Operator, Effect::Gives);
static TOKEN_BULK: Operation = operation("token.bulk", Operator, Effect::Gives);
static TOKEN_EXPORT: Operation = operation("token.export", Admin, Effect::Reads);
static TOKEN_IMPORT: Operation = of_many(operation("token.import", Operator, Effect::Gives));
static TOKEN_CHILD: Operation = operation("token.child", Operator, Effect::Gives);
static TOKEN_RENEW: Operation = operation("token.renew", Operator, Effect::Gives);
static REVOCATIONS: Operation = operation("token.revocations", Operator, Effect::Takes);
static CHECK: Operation = operation("check", Viewer, Effect::Asks);
static DECISION_SHOW: Operation = operation("decision.show", Viewer, Effect::Reads);
static EVENT_LIST: Operation = operation("event.list", Viewer, Effect::Reads);
static FINDING_LIST: Operation = operation("finding.list", Viewer, Effect::Reads);
static STATUS: Operation = operation("status", Viewer, Effect::Reads);
static POLICY_SHOW: Operation = operation("policy.show", Viewer, Effect::Reads);
static ADMIN_LIST: Operation = operation("admin.list", Viewer, Effect::Reads);
static ADMIN_CREATE: Operation = operation("admin.create", Admin, Effect::Gives);
static ADMIN_REVOKE: Operation = operation("admin.revoke", Admin, Effect::Takes);

/// The router of the admin listener.
pub(crate) fn admin(shared: &Arc<Shared>) -> Router {
    let on = |operation, run| endpoint(shared, operation, run);
    // A token may be named as one of the calls about many are.
    let token = || get(on(&TOKEN_SHOW, tokens::show)).patch(on(&TOKEN_EDIT, edit::patch));
    let (gated, unrouted, refused) = (Arc::clone(shared), Arc::clone(shared), Arc::clone(shared));
    Router::new()
        .route("/v1/tokens", get(on(&TOKEN_LIST, tokens::list)).post(on(&TOKEN_CREATE, tokens::create)))
        .route("/v1/tokens/bulk", token().post(on(&TOKEN_BULK, bulk::create)))
        .route("/v1/tokens/import", token().post(on(&TOKEN_IMPORT, bulk::import)))
        .route("/v1/exports", get(on(&TOKEN_EXPORT, bulk::export)))
        .route("/v1/revocations", post(on(&REVOCATIONS, revocations::revoke)))
        .route("/v1/tokens/{token}", token())
        .route("/v1/tokens/{token}/usage", get(on(&TOKEN_USAGE, tokens::usage)))
        .route("/v1/tokens/{token}/revoke", post(on(&TOKEN_REVOKE, changes::revoke)))
        .route("/v1/tokens/{token}/children", post(on(&TOKEN_CHILD, children::create)))
        .route("/v1/tokens/{token}/renew", post(on(&TOKEN_RENEW, children::renew)))
        .route("/v1/tokens/{token}/grants", post(on(&TOKEN_GRANT, edit::grant)))
        .route("/v1/tokens/{token}/restrict", post(on(&TOKEN_RESTRICT, edit::restrict)))
        .route("/v1/tokens/{token}/rotate", post(on(&TOKEN_ROTATE, rotate::rotate)))
        .route("/v1/tokens/{token}/rotation", get(on(&TOKEN_ROTATION, rotate::rotation)))
        .route("/v1/tokens/{token}/disable", post(on(&TOKEN_DISABLE, changes::disable)))
        .route("/v1/tokens/{token}/enable", post(on(&TOKEN_ENABLE, changes::enable)))
        .route("/v1/check", post(on(&CHECK, check::check)))
        .route("/v1/decisions/{id}", get(on(&DECISION_SHOW, events::decision)))
        .route("/v1/events", get(on(&EVENT_LIST, events::list)))
        .route("/v1/findings", get(on(&FINDING_LIST, findings::list)))
        .route("/v1/status", get(on(&STATUS, status::status)))
        .route("/v1/policy", get(on(&POLICY_SHOW, policy::policy)))
        .route("/v1/admins", get(on(&ADMIN_LIST, admins::list)).post(on(&ADMIN_CREATE, admins::create)))
        .route("/v1/admins/{id}/revoke", post(on(&ADMIN_REVOKE, admins::revoke)))
        .fallback(move || lost(Arc::clone(&unrouted), Kind::NotFound, "there is nothing under this path"))
        .method_not_allowed_fallback(move || {
            lost(Arc::clone(&refused), Kind::MethodNotAllowed, "this path has no such method; Allow says which")
        })
        .layer(middleware::from_fn(move |request, next| gate(Arc::clone(&gated), request, next)))
}

fn endpoint(
    shared: &Arc<Shared>,
    operation: &'static Operation,
    run: Run,
) -> impl Fn(Request) -> std::pin::Pin<Box<dyn Future<Output = Response> + Send>> + Clone + Send + Sync + 'static {
    let shared = Arc::clone(shared);
    move |request| Box::pin(answer(Arc::clone(&shared), operation, run, request))
}

async fn lost(shared: Arc<Shared>, kind: Kind, detail: &'static str) -> Response {
    let problem = Problem::new(kind, detail).hint("the admin API is under /v1/; what is not built yet is not there");
    shared.given.telemetry.admin_request("_none", problem.status());
    problem.into_response()
}
