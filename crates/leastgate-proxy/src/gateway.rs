//! The spine of the data plane: one request from its head to its answer. Each call names the next file to open, and none
//! calls back up. The order is plain code, because the order is the security property.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use http::request::Parts;
use http::{Request, Response, Version};
use http_body::{Body, SizeHint};
use hyper::body::Incoming;
use leastgate_policy::host::name_host;
use leastgate_policy::{
    AuthorizedRequest, Denial, OverLimit, OwnAnswer, PolicySnapshot, Reason, RequestFacts, Source, Verdict, authorize,
};
use leastgate_telemetry::LimitKind;
use tower::Service;

use crate::body::{ClientBody, Inbound, ProxyBody, Received, RequestBody, Upload};
use crate::complaints::Complaints;
use crate::connection::{ConnectionState, StreamControl};
use crate::exchange::{Exchange, Refused};
use crate::headers::{self, Screen};
use crate::upstream::{Answer, Failed, Fault, ForwardContext, ForwardError};
use crate::worker::Worker;

/// The gateway as one client connection sees it: a request in, a response out, never an error.
#[derive(Clone, Debug)]
pub struct Gateway {
    worker: Rc<Worker>,
    source: Source,
    connection: Rc<ConnectionState>,
}

/// A request that the gateway answers by itself, with its body if that is still at hand.
enum Turned {
    Refused(Refused, ClientBody),
    Answered(OwnAnswer, ClientBody),
}

impl Service<Request<Incoming>> for Gateway {
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ProxyBody>, Infallible>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let gateway = self.clone();
        let stream = self.connection.stream_begins();
        Box::pin(async move { Ok(gateway.handle(request, stream).await) })
    }
}

impl Gateway {
    pub(crate) fn new(worker: Rc<Worker>, source: Source, connection: Rc<ConnectionState>) -> Self {
        Self { worker, source, connection }
    }

    /// From a head to an answer.
    async fn handle(self, request: Request<Incoming>, stream: Option<Rc<StreamControl>>) -> Response<ProxyBody> {
        let (mut parts, incoming) = request.into_parts();
        name_host(&mut parts);
        let upload = Rc::new(Upload::new());
        let received = Received::new(incoming, parts.version == Version::HTTP_2);
        let received = Inbound::new(received, stream.clone());
        let mut exchange = Exchange::begin(&self.worker, self.source, &self.connection, stream, &parts, &upload);
        let record = (!received.is_end_stream()).then(|| exchange.record().handle());
        let body = RequestBody::new(received, self.worker.settings.body(), upload, record);
        match self.judge(&mut exchange, parts, body) {
            Err(turned) => match *turned {
                Turned::Refused(refused, body) => exchange.refuse(refused, body).await,
                Turned::Answered(answer, body) => exchange.answer_own(&answer, body).await,
            },
            Ok(authorized) => match self.forward(&exchange, authorized).await {
                Err(refused) => exchange.fail(&refused),
                Ok(Answer::Response(response)) => exchange.relay(response),
                Ok(Answer::Switched(switched)) => exchange.switch(switched),
            },
        }
    }

    /// Everything between a head and the permission to forward it: nothing goes upstream unless this says so.
    fn judge(
        &self,
        exchange: &mut Exchange,
        parts: Parts,
        body: ClientBody,
    ) -> Result<AuthorizedRequest<ClientBody>, Box<Turned>> {
        let began = Instant::now();
        let Some(snapshot) = self.worker.snapshot() else {
            exchange.record().refused(Reason::AuthorizationUnavailable);
            return Err(Box::new(Turned::Refused(Refused::Unjudged(Reason::AuthorizationUnavailable), body)));
        };
        let (authority, now) = (self.worker.authority(), self.worker.now());
        let facts = self.enter(exchange, &parts, &snapshot).and_then(|()| {
            RequestFacts::parse(&parts, &self.source, &snapshot, authority.key(), now).map_err(Box::new)
        });
        let facts = facts.map(|facts| match self.connection.tls() {
            Some(made) => facts.over_tls(made.server_name.as_deref()),
            None => facts,
        });
        let facts = match facts {
            Ok(facts) => facts,
            Err(denial) => return Err(turned(exchange, Refused::Denied(denial), body, began)),
        };
        let path = facts.path();
        exchange.record().decoded_path(path.segments(), path.has_trailing_slash());
        if let Some(client) = facts.client() {
            exchange.record().client(client);
        }
        let declared = body.size_hint();
        let elapsed = self.worker.clock.elapsed();
        let verdict = authorize(Request::from_parts(parts, body), &facts, &snapshot, now, elapsed);
        if let Some(straggler) = facts.straggler(verdict.case()) {
            authority.stragglers().note(straggler);
        }
        match verdict {
            Verdict::Allow(authorized) => self.admit(exchange, authorized, facts, &declared, began),
            Verdict::Deny(denial, request) => {
                denial.over.iter().for_each(|over| self.worker.limited(kind_of(over)));
                let refused = self.limit_failures(denial, &facts);
                Err(turned(exchange, refused, request.into_body(), began))
            }
            Verdict::Answer(answer, request) => {
                exchange.record().answered(&answer, began.elapsed());
                Err(match exchange.record().reserve() {
                    Ok(()) => Box::new(Turned::Answered(answer, request.into_body())),
                    Err(_) => unrecorded(exchange, request.into_body()),
                })
            }
        }
    }

    /// What is asked before the policy is: a place among the requests in flight, and a head two readers can't differ on.
    fn enter(&self, exchange: &mut Exchange, parts: &Parts, snapshot: &Arc<PolicySnapshot>) -> Result<(), Box<Denial>> {
        let key = self.worker.authority().key();
        let denial = |reason, detail| {
            Box::new(Denial::outside_policy(reason, detail, snapshot, self.worker.now()).of_head(parts, key))
        };
        if let Err(limit) = exchange.enter() {
            self.worker.limited(limit);
            return Err(denial(Reason::Overloaded, None));
        }
        let limits = &self.worker.settings.limits;
        let screen = Screen {
            credential: snapshot.credential_header(),
            conditions: snapshot.condition_headers(),
            fields: limits.head_fields,
            field_bytes: limits.field_size,
            target_bytes: limits.target_size,
            path_segments: limits.path_segments,
        };
        headers::screen(parts, &screen).map_err(|(reason, detail)| denial(reason, Some(detail)))
    }

    /// What the policy lets through still has limits, and must be sure of its record.
    fn admit(
        &self,
        exchange: &mut Exchange,
        mut authorized: AuthorizedRequest<ClientBody>,
        facts: RequestFacts,
        declared: &SizeHint,
        began: Instant,
    ) -> Result<AuthorizedRequest<ClientBody>, Box<Turned>> {
        let permit = authorized.permit();
        exchange.record().permitted(permit, began.elapsed());
        exchange.permitted(permit);
        let own_limit = permit.case().api().and_then(|api| api.limits.body);
        let limit = own_limit.unwrap_or(self.worker.settings.limits.body);
        let beyond = if declared.lower() > limit {
            Some((Reason::BodyTooLarge, None))
        } else if permit.is_websocket() && (exchange.handshake().is_none() || declared.exact() != Some(0)) {
            Some((Reason::RequestMalformed, Some(HALF_A_HANDSHAKE)))
        } else if exchange.record().reserve().is_err() {
            Some((Reason::AuthorizationUnavailable, Some("the audit stream has no room for the decision")))
        } else {
            None
        };
        if let Some((reason, detail)) = beyond {
            let (request, permit) = authorized.into_parts();
            let denial = Denial::of_permit(&permit, reason, detail);
            return Err(turned(exchange, denial.into(), request.into_body(), began));
        }
        exchange.upload.limit_to(limit);
        if permit.is_grpc() {
            exchange.upload.streams(self.worker.settings.limits.stream_idle);
        }
        exchange.meter(authorized.take_metered());
        exchange.watch(facts);
        Ok(authorized)
    }

    /// A source that presents one bad token after the other is told to wait in place of being told what is wrong. Only
    /// a 401 is ever replaced, and sending no credential is no attempt.
    fn limit_failures(&self, denial: Denial, facts: &RequestFacts) -> Refused {
        if denial.reason.status() != Some(401) || denial.reason == Reason::CredentialMissing {
            return denial.into();
        }
        let source = facts.client().unwrap_or(self.source.peer);
        match self.worker.shared.failures.record(source, self.worker.clock.elapsed()) {
            Ok(()) => denial.into(),
            Err(wait) => {
                self.worker.limited(LimitKind::Source);
                Refused::Limited(Box::new(denial.with_reason(Reason::SourceFailuresLimited)), wait)
            }
        }
    }

    /// Sends an authorized request and waits for the head of its response, or for the request to be refused after all.
    async fn forward(&self, exchange: &Exchange, authorized: AuthorizedRequest<ClientBody>) -> Result<Answer, Refused> {
        let context = ForwardContext {
            peer: self.source.peer,
            peer_is_trusted: self.worker.is_trusted(&self.source),
            is_tls: self.connection.tls().is_some(),
            request_id: &exchange.request_id,
            trace: &exchange.trace,
            decision: exchange.decision(),
            upload: &exchange.upload,
            handshake: exchange.handshake().filter(|_| authorized.permit().is_websocket()),
        };
        if let Some(api) = authorized.permit().case().api() {
            exchange.record().upstream(&api.upstream);
        }
        tokio::select! {
            biased;
            denial = exchange.denied() => Err(denial.into()),
            sent = self.worker.forwarder.forward(authorized, &context) => {
                sent.map_err(|failed| self.failed(exchange, &failed))
            }
        }
    }

    fn failed(&self, exchange: &Exchange, failed: &Failed) -> Refused {
        let Failed { error, permit } = failed;
        let reason = error.reason();
        let denial = Denial::of_permit(permit, reason, error.detail());
        match error.fault() {
            // The decision stands, whoever's fault it is: the upstream may have acted on what it got.
            Fault::Client | Fault::Gateway => exchange.record().failed(reason.as_str()),
            Fault::Upstream => exchange.record().upstream_failed(reason),
        }
        let upstream = permit.case().api().map_or("", |api| &*api.upstream);
        self.complain(upstream, error);
        tracing::debug!(upstream, %error, is_retryable = error.is_retryable(), "a request was not answered by its upstream");
        denial.into()
    }

    /// Tells the log of what somebody should look at, a line for many requests.
    fn complain(&self, upstream: &str, error: &ForwardError) {
        let Complaints { unanswered, saturated, .. } = &self.worker.shared.complaints;
        let now = self.worker.clock.elapsed();
        if error.is_saturation() {
            if let Some(unlogged) = saturated.record(upstream, now) {
                let limit = format!("upstreams.{upstream}.max_connections");
                tracing::warn!(
                    upstream,
                    limit,
                    unlogged,
                    "every connection to an upstream is in use: requests are refused"
                );
            }
        } else if error.fault() == Fault::Upstream
            && let Some(unlogged) = unanswered.record(upstream, now)
        {
            tracing::warn!(upstream, %error, unlogged, "an upstream did not answer; the audit record has every request");
        }
    }
}

fn kind_of(over: &OverLimit) -> LimitKind {
    if over.reason == Reason::TokenRateLimited { LimitKind::TokenRate } else { LimitKind::TokenConcurrency }
}

const HALF_A_HANDSHAKE: &str = "a WebSocket handshake has one Sec-WebSocket-Key of 16 bytes in base64 and no body";

/// Records a refusal, and keeps it together with the body that has to be dealt with. One that must be on record and
/// can't be is answered as such, so that nobody probes unseen.
fn turned(exchange: &Exchange, refused: Refused, body: ClientBody, began: Instant) -> Box<Turned> {
    let Some(denial) = refused.denial() else { return Box::new(Turned::Refused(refused, body)) };
    exchange.record().denied(denial, began.elapsed());
    match exchange.record().reserve() {
        Ok(()) => Box::new(Turned::Refused(refused, body)),
        Err(_) => unrecorded(exchange, body),
    }
}

fn unrecorded(exchange: &Exchange, body: ClientBody) -> Box<Turned> {
    exchange.record().refused(Reason::AuthorizationUnavailable);
    Box::new(Turned::Refused(Refused::Unrecorded, body))
}
