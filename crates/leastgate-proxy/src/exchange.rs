//! One request and its answer, from the call of the service to the last byte: its record, its place among those in
//! flight, its entry in the list of streams. Dropped, at whatever moment, it leaves exactly one outcome.

use std::net::SocketAddr;
use std::rc::Rc;

use http::request::Parts;
use http::{HeaderValue, Method, Response, header};
use hyper::body::Incoming;
use leastgate_policy::{Denial, Reason, RequestFacts, Source};
use leastgate_telemetry::{Origin, Recorder};

use crate::body::{DownloadError, ProxyBody, RequestBody, Upload, UploadFault, UpstreamBody, drain_buffered};
use crate::connection::ConnectionState;
use crate::headers;
use crate::respond::{self, Answering, Refusal};
use crate::streams::{Entry, Streams};
use crate::trace::Trace;
use crate::worker::{InFlightPlace, Worker};

/// A request under way. Fields are dropped in this order: the list lets go of the record before it ends.
#[derive(Debug)]
pub(crate) struct Exchange {
    entry: Option<Entry>,
    recorder: Recorder,
    place: Option<InFlightPlace>,
    worker: Rc<Worker>,
    connection: Busy,
    pub(crate) upload: Rc<Upload>,
    pub(crate) trace: Trace,
    pub(crate) request_id: HeaderValue,
    decision: [u8; 36],
    method: Method,
    expects_continue: bool,
}

/// A connection in the middle of an exchange; dropped, it is idle.
#[derive(Debug)]
struct Busy(Rc<ConnectionState>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.exchange_ends();
    }
}

/// A request that will not be forwarded, or whose forwarding failed.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There was no policy to judge it by.
    Unjudged(Reason),
    /// It must be on record, and can't be.
    Unrecorded,
    /// It was judged, or could have been.
    Denied(Box<Denial>),
    /// As above, and the caller should wait.
    Limited(Box<Denial>, std::time::Duration),
}

const NO_PLACE_ON_RECORD: &str = "nothing was forwarded: the gateway can't put the request on record. Try again";

impl From<Denial> for Refused {
    fn from(denial: Denial) -> Self {
        Self::Denied(Box::new(denial))
    }
}

impl Refused {
    /// The decision behind it, where there was one.
    pub(crate) fn denial(&self) -> Option<&Denial> {
        match self {
            Self::Unjudged(_) | Self::Unrecorded => None,
            Self::Denied(denial) | Self::Limited(denial, _) => Some(denial),
        }
    }

    fn reason(&self) -> Reason {
        match self {
            Self::Unjudged(reason) => *reason,
            Self::Unrecorded => Reason::AuthorizationUnavailable,
            Self::Denied(denial) | Self::Limited(denial, _) => denial.reason,
        }
    }

    fn refusal(&self) -> Refusal<'_> {
        match self {
            Self::Unjudged(reason) => Refusal::without_case(*reason, None),
            Self::Unrecorded => Refusal::without_case(self.reason(), Some(NO_PLACE_ON_RECORD)),
            Self::Denied(denial) => Refusal::of(denial),
            Self::Limited(denial, wait) => Refusal { retry_after: Some(*wait), ..Refusal::of(denial) },
        }
    }

    /// After bytes whose meaning is in doubt, nothing more is read from the connection (P16, P18).
    fn ends_connection(&self) -> bool {
        matches!(self.reason(), Reason::RequestMalformed | Reason::HeadTooLarge)
    }
}

impl Exchange {
    /// Starts the record of a request.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        source: Source,
        connection: &Rc<ConnectionState>,
        parts: &Parts,
        upload: &Rc<Upload>,
    ) -> Self {
        connection.exchange_begins();
        let recorder = worker.telemetry.begin(SocketAddr::new(source.peer, source.port), worker.clock.now());
        let host = parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
        recorder.request(&parts.method, host, &parts.uri, parts.version);
        if let Some(agent) = parts.headers.get(header::USER_AGENT) {
            recorder.user_agent(agent.as_bytes());
        }
        let mut decision = [0; 36];
        recorder.id().encode(&mut decision);
        let own = || HeaderValue::from_bytes(&decision).unwrap_or(HeaderValue::from_static("none"));
        let request_id = headers::client_request_id(&parts.headers).cloned().unwrap_or_else(own);
        let trace = Trace::of(&parts.headers, &mut worker.span_ids.borrow_mut());
        recorder.trace(Some(trace.trace_id()), Some(trace.span_id()), request_id.to_str().ok());
        Self {
            entry: None,
            recorder,
            place: None,
            worker: Rc::clone(worker),
            connection: Busy(Rc::clone(connection)),
            upload: Rc::clone(upload),
            trace,
            request_id,
            decision,
            method: parts.method.clone(),
            expects_continue: headers::expects_continue(&parts.headers),
        }
    }

    pub(crate) fn record(&self) -> &Recorder {
        &self.recorder
    }

    /// The id under which the request is recorded.
    pub(crate) fn decision(&self) -> &str {
        std::str::from_utf8(&self.decision).unwrap_or_default()
    }

    /// Takes a place among the requests in flight. `false`: there is none.
    pub(crate) fn enter(&mut self) -> bool {
        self.place = self.worker.shared.in_flight.enter();
        self.place.is_some()
    }

    /// From now on the request is decided again whenever what was decided on changes.
    pub(crate) fn watch(&mut self, facts: RequestFacts) {
        self.entry = Some(Streams::enter(&self.worker, facts, &self.connection.0, self.recorder.handle()));
    }

    /// Waits for a later decision against the request.
    pub(crate) async fn denied(&self) -> Denial {
        match &self.entry {
            Some(entry) => entry.denied().await,
            None => std::future::pending().await,
        }
    }

    /// Answers a refused request. What has arrived of its body is thrown away; if there is more, the connection ends
    /// with the answer, because body bytes must never be read as a request (P19).
    pub(crate) async fn refuse(self, refused: Refused, body: RequestBody<Incoming>) -> Response<ProxyBody> {
        let skips = refused.ends_connection() || self.expects_continue;
        let is_clean = http_body::Body::is_end_stream(&body) || !skips && drain_buffered(body).await;
        self.answer(&refused, is_clean)
    }

    /// Answers a request that failed on its way: its body is with the upstream's connection, whole or not.
    pub(crate) fn fail(self, refused: &Refused) -> Response<ProxyBody> {
        let is_clean = self.upload.is_complete();
        self.answer(refused, is_clean)
    }

    fn answer(self, refused: &Refused, is_clean: bool) -> Response<ProxyBody> {
        let refusal = refused.refusal();
        let snapshot = refusal.denial.map(|denial| denial.case().snapshot());
        if !is_clean {
            self.connection.0.client_is_sending();
        }
        let answering = Answering {
            method: &self.method,
            request_id: &self.request_id,
            decision: self.decision(),
            realm: snapshot.map_or("leastgate", |snapshot| snapshot.environment()),
            credential: snapshot.map_or(&header::AUTHORIZATION, |snapshot| snapshot.credential_header()),
            close: !is_clean || refused.ends_connection() || self.is_last(),
        };
        let response = respond::refuse(&refusal, &answering);
        self.recorder.response(response.status().as_u16(), Origin::Gateway);
        let is_head = self.method == Method::HEAD;
        response.map(|bytes| ProxyBody::own(bytes, is_head, self))
    }

    /// Passes an upstream's response on.
    pub(crate) fn relay(self, mut response: Response<UpstreamBody>) -> Response<ProxyBody> {
        let status = response.status().as_u16();
        self.recorder.upstream_answered(status);
        self.recorder.response(status, Origin::Upstream);
        headers::clean_response(response.headers_mut(), &self.method, &self.request_id);
        if self.is_last() {
            headers::close_after(response.headers_mut());
        }
        *response.version_mut() = http::Version::HTTP_11;
        if let Some(entry) = &self.entry {
            entry.streams();
        }
        response.map(|body| ProxyBody::relayed(body, self))
    }

    fn is_last(&self) -> bool {
        let limits = &self.worker.settings.limits;
        self.worker.is_draining() || self.connection.0.is_worn_out(limits.connection_requests, limits.connection_age)
    }

    /// Counts bytes of the response.
    pub(crate) fn sent(&self, bytes: usize) {
        self.recorder.add_response_bytes(bytes as u64);
    }

    /// The response broke off, by whoever's fault: a request body that fails late takes the response with it.
    pub(crate) fn broken(&self, error: &DownloadError) {
        let reason = self.upload.fault().map_or_else(|| error.reason(), UploadFault::reason);
        self.recorder.failed(reason.as_str());
    }

    /// The response went out to its last byte.
    pub(crate) fn complete(self) {
        // An upstream that answered before it had the whole request: the client sends on, and must get the answer.
        if !self.upload.is_complete() {
            self.connection.0.client_is_sending();
        }
        let Self { entry, recorder, .. } = self;
        drop(entry);
        recorder.finish();
    }
}
