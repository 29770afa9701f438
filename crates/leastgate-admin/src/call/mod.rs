//! The way of a call: who is it, may they, what do they say, the work, the record.
//!
//! The work of every call is a plain function that blocks ([`Run`]); it runs on a thread made for that, and records
//! its event there: a client that hangs up meanwhile changes neither what happened nor what is known of it.

mod body;
mod caller;
mod failures;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use leastgate_policy::Timestamp;
use leastgate_store::AdminRole;
use leastgate_telemetry::{AdminActor, AdminEvent, Reservation};

pub(crate) use self::body::{MOST_BYTES, MOST_BYTES_OF_MANY, from_json, from_query};
pub(crate) use self::caller::{Caller, Identity};
pub(crate) use self::failures::Failures;
use crate::lanes::Lane;
use crate::listener::Peer;
use crate::problem::{Kind, Problem};
use crate::state::Shared;
use crate::tag::TokenTag;
use crate::turn::Held;

/// A call of the API: its name in metrics and events, and who may make it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) role: AdminRole,
    pub(crate) effect: Effect,
    /// Largest body in bytes.
    pub(crate) most_bytes: usize,
}

/// What a call does to what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing; it has no body.
    Reads,
    /// Nothing; its body is a question.
    Asks,
    /// Nothing; it has no body, and hands out what must not leave unseen: refused when it can't be recorded.
    HandsOut,
    /// It gives access: refused when it can't be recorded.
    Gives,
    /// It only takes access away: never refused for the record.
    Takes,
}

impl Effect {
    /// Whether each call is on record, refused ones too.
    fn is_recorded(self) -> bool {
        matches!(self, Self::HandsOut | Self::Gives | Self::Takes)
    }

    /// Whether it is only done if there is a place on record for it.
    pub(crate) fn needs_record(self) -> bool {
        matches!(self, Self::HandsOut | Self::Gives)
    }

    pub(crate) fn has_body(self) -> bool {
        matches!(self, Self::Asks | Self::Gives | Self::Takes)
    }
}

/// The work of a call. Blocks.
pub(crate) type Run = fn(&Call<'_>) -> Result<Reply, Problem>;

/// A call whose caller is known and permitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) caller: &'a Caller,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    pub(crate) peer: Option<&'a Peer>,
    pub(crate) now: Timestamp,
}

impl<'a> Call<'a> {
    /// The third segment of the path: whom the call is about.
    pub(crate) fn target(&self) -> &'a str {
        target(self.uri).unwrap_or_default()
    }

    /// The version that `If-Match` asks for (RFC 9110 §13.1.1): one strong tag, as answers give it, or `*`.
    pub(crate) fn expected_version(&self) -> Result<Option<TokenTag>, Problem> {
        let mut fields = self.headers.get_all(header::IF_MATCH).iter();
        let Some(field) = fields.next() else { return Ok(None) };
        if field == "*" && fields.next().is_none() {
            return Ok(None);
        }
        let tag = field.to_str().ok().and_then(TokenTag::parse).filter(|_| fields.next().is_none());
        tag.map(Some).ok_or_else(|| {
            Problem::new(
                Kind::Invalid,
                "`If-Match` must be there once, with the ETag of the token, such as \"0aZ9000001.3\"",
            )
            .hint("read the token: its answer has an ETag")
        })
    }

    /// Records something that the call did besides what its own event tells.
    pub(crate) fn tell(&self, operation: &str, change: &Change, reservation: Option<Reservation>) {
        let mut event = event(self.shared, operation, Some(self.caller), self.peer);
        event.result = "ok".to_owned();
        change.tell(&mut event);
        self.shared.given.telemetry.admin(&event, reservation);
    }

    /// Waits for the turn to give access, which can be refused. Who was revoked meanwhile gives nothing any more; and nothing is
    /// given while an earlier gift is still to be taken back, for the store may hold it.
    pub(crate) fn lock_gift(&self) -> Result<Held<'a>, Problem> {
        let shared = self.shared;
        let held = shared.lock_changes().ok_or_else(|| {
            Problem::new(Kind::Overloaded, "other changes wait for the store: nothing was changed")
                .hint("try again; if it lasts, look at the gateway's log for what is wrong with the store")
        })?;
        caller::check_standing(shared, self.caller)?;
        if shared.unsynced.owes_undo() {
            shared.unsynced.settle_undos(&*shared.given.store, &shared.given.telemetry);
        }
        if shared.unsynced.owes_undo() {
            return Err(Problem::new(Kind::Store, "the store has not taken back an earlier change that was refused")
                .hint("look at the gateway's log for what is wrong with the store, then try again"));
        }
        Ok(held)
    }

    /// A place on record for an event that tells more of a gift.
    pub(crate) fn reserve(&self) -> Result<Reservation, Problem> {
        self.shared.given.telemetry.reserve_admin().map_err(|_| audit_full())
    }
}

/// `/v1/<kind>/<target>/…`
fn target(uri: &Uri) -> Option<&str> {
    uri.path().split('/').nth(3)
}

/// The answer of a call that was done, and what the record says about it.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) created_at: Option<String>,
    /// The entity tag, in its quotes.
    pub(crate) tag: Option<String>,
    pub(crate) body: Vec<u8>,
    pub(crate) change: Change,
}

/// What an event says of a change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    pub(crate) target: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) durable: Option<bool>,
    pub(crate) details: Vec<(String, String)>,
}

impl Change {
    fn tell(&self, event: &mut AdminEvent) {
        event.target = self.target.clone().or(event.target.take());
        event.reason.clone_from(&self.reason);
        event.durable = self.durable;
        event.details.clone_from(&self.details);
    }
}

impl Reply {
    /// 200 with a JSON value.
    pub(crate) fn json(value: &impl serde::Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_vec(value).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
        Ok(Self { body, ..Self::default() })
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(tag) = self.tag.and_then(|tag| HeaderValue::try_from(tag).ok()) {
            headers.insert(header::ETAG, tag);
        }
        if let Some(location) = self.created_at.and_then(|path| HeaderValue::try_from(path).ok()) {
            headers.insert(header::LOCATION, location);
            *response.status_mut() = StatusCode::CREATED;
        }
        response
    }
}

/// How long a call may take once its head is read: more than the store's own patience.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long its body may take to come: less, so that who sends none is told of, and is on record with it.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Answers a request to an operation.
pub(crate) async fn answer(shared: Arc<Shared>, operation: &'static Operation, run: Run, request: Request) -> Response {
    let way = enter(Arc::clone(&shared), operation, run, request);
    let response = tokio::time::timeout(PATIENCE, way).await.unwrap_or_else(|_| {
        Problem::new(Kind::Timeout, "the call took too long: a change may still be made")
            .hint("look before you repeat it")
            .into_response()
    });
    shared.given.telemetry.admin_request(operation.name, response.status().as_u16());
    response
}

async fn enter(shared: Arc<Shared>, operation: &'static Operation, run: Run, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let parts = Arc::new(parts);
    let refused = |caller: Option<&Caller>, problem: Problem| {
        let refused = Recorded { operation, caller, peer: parts.extensions.get(), uri: &parts.uri };
        if operation.effect.is_recorded() || caller.is_none() {
            refused.record(&shared, &Err(problem.clone()), None);
        }
        problem.into_response()
    };
    let caller = match known(&shared, operation.effect, &parts).await {
        Ok(caller) => Arc::new(caller),
        // A source that keeps failing is not worth an event each time, whosever the fault is.
        Err(problem) if caller::is_worth_an_event(&shared, &parts, &problem) => return refused(None, problem),
        Err(problem) => return problem.into_response(),
    };
    let body = match read(operation, &caller, &parts, body).await {
        Ok(body) => body,
        Err(problem) => return refused(Some(&caller), problem),
    };
    let (of_thread, of_call, by) = (Arc::clone(&shared), Arc::clone(&parts), Arc::clone(&caller));
    let work = move || work(&of_thread, operation, run, &of_call, &by, &body);
    let done = match operation.effect {
        Effect::Gives => shared.lanes.try_run(Lane::Give, work).await,
        Effect::Reads | Effect::Asks | Effect::HandsOut => shared.lanes.run(Lane::Read, work).await,
        Effect::Takes => shared.lanes.run_to_end(Lane::Take, work).await,
    };
    // Work that was not begun, or not ended, has told of nothing.
    done.unwrap_or_else(|problem| refused(Some(&caller), problem))
}

/// Who calls.
async fn known(shared: &Arc<Shared>, effect: Effect, parts: &Arc<Parts>) -> Result<Caller, Problem> {
    let (by, head) = (Arc::clone(shared), Arc::clone(parts));
    let lane = if effect == Effect::Takes { Lane::IdentifyTaker } else { Lane::Identify };
    shared.lanes.run(lane, move || caller::identify(&by, effect, &head)).await.and_then(|found| found)
}

/// The body of a call that the caller may make.
async fn read(operation: &Operation, caller: &Caller, parts: &Parts, body: Body) -> Result<Vec<u8>, Problem> {
    if caller.role < operation.role {
        let detail = format!("`{}` is {}; this needs {}", caller.subject, caller.role, operation.role);
        let problem =
            Problem::new(Kind::InsufficientRole, detail).hint("use the credential of an administrator with that role");
        return Err(problem);
    }
    match operation.effect {
        Effect::Reads | Effect::HandsOut => body::none(parts),
        Effect::Asks | Effect::Gives | Effect::Takes => {
            let whole = body::read(parts, body, operation.most_bytes);
            tokio::time::timeout(BODY_PATIENCE, whole).await.unwrap_or_else(|_| Err(late()))
        }
    }
}

fn work(shared: &Shared, operation: &Operation, run: Run, parts: &Parts, caller: &Caller, body: &[u8]) -> Response {
    let recorded = Recorded { operation, caller: Some(caller), peer: parts.extensions.get(), uri: &parts.uri };
    if let Err(problem) = caller::check_standing(shared, caller) {
        recorded.record(shared, &Err(problem.clone()), None);
        return problem.into_response();
    }
    let reserved = operation.effect.needs_record().then(|| shared.given.telemetry.reserve_admin()).transpose();
    let Ok(reservation) = reserved else { return audit_full().into_response() };
    let result = run(&Call {
        shared,
        caller,
        uri: &parts.uri,
        headers: &parts.headers,
        body,
        peer: parts.extensions.get(),
        now: shared.now(),
    });
    if operation.effect.is_recorded() {
        recorded.record(shared, &result, reservation);
    }
    result.map_or_else(Problem::into_response, Reply::into_response)
}

fn late() -> Problem {
    let detail = format!("the body did not come within {} s: nothing was changed", BODY_PATIENCE.as_secs());
    Problem::new(Kind::Timeout, detail).hint("send it with the head, or in smaller parts of several calls")
}

fn audit_full() -> Problem {
    Problem::new(Kind::AuditFull, "the audit sinks can't keep up, and what gives access is not done unrecorded")
        .hint("look at leastgate_audit_queue_depth and the sinks' disks; revoke and disable work all the same")
}

/// A call as the audit stream tells it.
struct Recorded<'a> {
    operation: &'a Operation,
    caller: Option<&'a Caller>,
    peer: Option<&'a Peer>,
    uri: &'a Uri,
}

impl Recorded<'_> {
    fn record(&self, shared: &Shared, result: &Result<Reply, Problem>, reservation: Option<Reservation>) {
        let mut event = event(shared, self.operation.name, self.caller, self.peer);
        event.target = target(self.uri).map(str::to_owned);
        result.as_ref().err().map_or("ok", Problem::name).clone_into(&mut event.result);
        if let Ok(Reply { change, .. }) = result {
            change.tell(&mut event);
        }
        shared.given.telemetry.admin(&event, reservation);
    }
}

fn event(shared: &Shared, operation: &str, caller: Option<&Caller>, peer: Option<&Peer>) -> AdminEvent {
    let (source, tls) = match peer {
        Some(Peer::Tcp { source, tls, .. }) => (Some((source.ip(), source.port())), tls.as_ref()),
        Some(Peer::Unix { .. }) | None => (None, None),
    };
    AdminEvent {
        operation: operation.to_owned(),
        actor: caller.map_or_else(nobody, Caller::actor),
        source,
        peer_san: tls.map(|tls| tls.san.clone()).unwrap_or_default(),
        policy_rev: shared.given.authority.snapshot().map(|policy| policy.revision().to_owned()),
        ..AdminEvent::default()
    }
}

fn nobody() -> AdminActor {
    AdminActor { subject: "unknown".to_owned(), ..AdminActor::default() }
}

#[cfg(test)]
mod tests {
    use leastgate_policy::Accessor;

    use super::*;
    use crate::fixture::{root, shared};

    #[test]
    fn who_was_revoked_while_waiting_gives_nothing() {
        let (shared, id) = (shared(), Accessor::from_random(1));
        let caller = root(id);
        let (uri, headers) = (Uri::from_static("/v1/tokens"), HeaderMap::new());
        let call = Call {
            shared: &shared,
            caller: &caller,
            uri: &uri,
            headers: &headers,
            body: b"",
            peer: None,
            now: shared.now(),
        };
        assert!(call.lock_gift().is_ok());
        let held = shared.lock_changes();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| call.lock_gift().map(drop));
            shared.revoked_admins().insert(id);
            drop(held);
            assert_eq!(waiting.join().unwrap().unwrap_err().kind, Kind::InvalidCredential);
        });
        assert!(shared.lock_changes().is_some(), "and the turn is the next one's");
    }
}
