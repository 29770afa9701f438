//! One request and its answer, from the call of the service to the last byte: its record, its place among those in
//! flight, its entry in the list of streams. Dropped, at whatever moment, it leaves exactly one outcome.

mod refused;

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use leastgate_policy::{Denial, Metered, OwnAnswer, Permit, PolicySnapshot, RequestFacts, Source, Timestamp};
use leastgate_telemetry::{LimitKind, Origin, Recorder};

pub(crate) use self::refused::Refused;
use crate::body::{ClientBody, DownloadError, ProxyBody, Upload, UploadFault, UpstreamBody, drain_buffered};
use crate::connection::{ConnectionState, StreamControl};
use crate::headers::{self, Caller, Handshake};
use crate::respond::{self, Answering, Authored};
use crate::streams::{Entry, Streams};
use crate::trace::Trace;
use crate::tunnel::Tunnel;
use crate::upstream::Switched;
use crate::worker::{InFlightPlace, Worker};

/// A request under way. Fields are dropped in this order: the list lets go of the record before it ends.
#[derive(Debug)]
pub(crate) struct Exchange {
    entry: Option<Entry>,
    /// What it has of its token's limits, where there are any.
    metered: Option<Metered>,
    recorder: Recorder,
    place: Option<InFlightPlace>,
    worker: Rc<Worker>,
    connection: Busy,
    stream: Option<Rc<StreamControl>>,
    pub(crate) upload: Rc<Upload>,
    pub(crate) trace: Trace,
    pub(crate) request_id: HeaderValue,
    decision: [u8; 36],
    method: Method,
    caller: Caller,
    expects_continue: bool,
    /// When the caller's token ends, if that is soon.
    ending: Option<Timestamp>,
}

/// A connection in the middle of an exchange; dropped, it is idle.
#[derive(Debug)]
struct Busy(Rc<ConnectionState>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.exchange_ends();
    }
}

/// What a response takes until its client has it, beyond the end of its record: a client that grants no window would
/// otherwise have as many in memory as it likes.
#[derive(Debug)]
pub(crate) struct Tail {
    /// Held for their drop.
    _place: Option<InFlightPlace>,
    _connection: Busy,
}

fn is_worn_out(worker: &Worker, connection: &ConnectionState) -> bool {
    let limits = &worker.settings.limits;
    connection.is_worn_out(limits.connection_requests, limits.connection_age)
}

impl Exchange {
    /// Starts the record of a request.
    pub(crate) fn begin(
        worker: &Rc<Worker>,
        source: Source,
        connection: &Rc<ConnectionState>,
        stream: Option<Rc<StreamControl>>,
        parts: &Parts,
        upload: &Rc<Upload>,
    ) -> Self {
        connection.exchange_begins();
        if connection.is_http2() && connection.overstays() {
            connection.cut();
        } else if connection.is_http2() && is_worn_out(worker, connection) {
            connection.drain();
        }
        let recorder = worker.telemetry.begin(SocketAddr::new(source.peer, source.port), worker.clock.now());
        let host = parts.headers.get(header::HOST).map(HeaderValue::as_bytes);
        recorder.request(&parts.method, host, &parts.uri, parts.version);
        if let Some(agent) = parts.headers.get(header::USER_AGENT) {
            recorder.user_agent(agent.as_bytes());
        }
        if let Some(peer) = connection.tls().and_then(|made| made.peer.as_ref()) {
            recorder.peer_san(peer.uris());
        }
        let mut decision = [0; 36];
        recorder.id().encode(&mut decision);
        let own = || HeaderValue::from_bytes(&decision).unwrap_or(HeaderValue::from_static("none"));
        let request_id = headers::client_request_id(&parts.headers).cloned().unwrap_or_else(own);
        let trace = Trace::of(&parts.headers, &mut worker.span_ids.borrow_mut());
        recorder.trace(Some(trace.trace_id()), Some(trace.span_id()), request_id.to_str().ok());
        Self {
            entry: None,
            metered: None,
            recorder,
            place: None,
            worker: Rc::clone(worker),
            connection: Busy(Rc::clone(connection)),
            stream,
            upload: Rc::clone(upload),
            trace,
            request_id,
            decision,
            method: parts.method.clone(),
            caller: Caller::of(parts),
            expects_continue: headers::expects_continue(&parts.headers),
            ending: None,
        }
    }

    pub(crate) fn record(&self) -> &Recorder {
        &self.recorder
    }

    /// The id under which the request is recorded.
    pub(crate) fn decision(&self) -> &str {
        std::str::from_utf8(&self.decision).unwrap_or_default()
    }

    /// Takes a place among the requests in flight, or says of which there are too many.
    pub(crate) fn enter(&mut self) -> Result<(), LimitKind> {
        let of_source = self.connection.0.in_flight_of_source();
        self.place = Some(self.worker.shared.in_flight.enter(of_source)?);
        Ok(())
    }

    /// What the caller is to know of the token that lets the request through.
    pub(crate) fn permitted(&mut self, permit: &Permit) {
        self.ending = permit.case().ending();
    }

    /// Keeps what the request has of its token's limits, to its end.
    pub(crate) fn meter(&mut self, metered: Option<Metered>) {
        self.metered = metered;
    }

    /// From now on the request is decided again whenever what was decided on changes.
    pub(crate) fn watch(&mut self, facts: RequestFacts) {
        self.connection.0.lets_through();
        let stream = self.stream.clone();
        self.entry = Some(Streams::enter(&self.worker, facts, &self.connection.0, stream, self.recorder.handle()));
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
    pub(crate) async fn refuse(self, refused: Refused, body: ClientBody) -> Response<ProxyBody> {
        let is_clean = self.throw_away(body, refused.ends_connection()).await;
        self.answer(&refused, is_clean)
    }

    /// Answers a request that failed on its way: its body is with the upstream's connection, whole or not.
    pub(crate) fn fail(self, refused: &Refused) -> Response<ProxyBody> {
        let is_clean = self.upload.is_complete();
        self.answer(refused, is_clean)
    }

    /// Answers a request that is no upstream's.
    pub(crate) async fn answer_own(self, answer: &OwnAnswer, body: ClientBody) -> Response<ProxyBody> {
        let is_clean = self.throw_away(body, false).await;
        let authored = respond::own(answer, &self.answering(Some(answer.case().snapshot()), !is_clean));
        self.send(authored, is_clean)
    }

    /// Whether nothing is left of a body that could be read as a request.
    async fn throw_away(&self, body: ClientBody, skips: bool) -> bool {
        http_body::Body::is_end_stream(&body) || !skips && !self.expects_continue && drain_buffered(body).await
    }

    fn answer(self, refused: &Refused, is_clean: bool) -> Response<ProxyBody> {
        let refusal = refused.refusal();
        let snapshot = refusal.denial.map(|denial| &**denial.case().snapshot());
        let answering = self.answering(snapshot, !is_clean || refused.ends_connection());
        let authored = respond::refuse(&refusal, &answering);
        if refused.is_of_request() {
            self.connection.0.refuses();
        }
        self.send(authored, is_clean)
    }

    fn answering<'a>(&'a self, snapshot: Option<&'a PolicySnapshot>, ends: bool) -> Answering<'a> {
        Answering {
            method: &self.method,
            request_id: &self.request_id,
            decision: self.decision(),
            realm: snapshot.map_or("leastgate", PolicySnapshot::environment),
            credential: snapshot.map_or(&header::AUTHORIZATION, PolicySnapshot::credential_header),
            is_grpc: self.caller.is_grpc,
            origin: self.caller.origin.as_ref(),
            close: ends || self.is_last(),
        }
    }

    /// Sends an answer of the gateway's own. It is small, and done with when it is handed over: as long as its client does
    /// not take it, it is no request in flight that others could not have, and none under way that could be cut.
    fn send(mut self, Authored { mut response, status }: Authored, is_clean: bool) -> Response<ProxyBody> {
        (self.entry, self.metered, self.place) = (None, None, None);
        if !is_clean {
            self.connection.0.client_is_sending();
        }
        self.recorder.response(status.as_u16(), Origin::Gateway);
        let is_head = self.method == Method::HEAD;
        if is_head && self.is_stream() {
            headers::describe_body(&mut response);
        }
        response.map(|bytes| ProxyBody::own(bytes, is_head, self))
    }

    /// Passes an upstream's response on.
    pub(crate) fn relay(self, mut response: Response<UpstreamBody>) -> Response<ProxyBody> {
        let status = response.status().as_u16();
        self.recorder.upstream_answered(status);
        self.recorder.response(status, Origin::Upstream);
        let version = response.version();
        headers::clean_response(response.headers_mut(), &self.method, version, &self.request_id, self.ending);
        self.tell_allowance(response.headers_mut());
        if self.is_last() {
            headers::close_after(response.headers_mut());
        }
        *response.version_mut() = http::Version::HTTP_11;
        // Over HTTP/2 an upstream may end even such a response with a frame of its own, or say something in it.
        let has_none = self.method == Method::HEAD
            || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if let Some(entry) = &self.entry {
            // Where a length was said, an end before it would be malformed (RFC 9113 §8.1.1).
            let has_length = http_body::Body::size_hint(response.body()).exact().is_some();
            let has_last_word = self.caller.is_grpc && !has_none && !has_length;
            entry.streams(response.body().due(), has_last_word);
        }
        response.map(|body| if has_none { ProxyBody::none(Some(self)) } else { ProxyBody::relayed(body, self) })
    }

    /// Passes the answer to a handshake on, and hands the connection over: what follows is not HTTP.
    pub(crate) fn switch(self, switched: Switched) -> Response<ProxyBody> {
        let Switched { head, upstream, lease } = switched;
        let mut response = head.map(|()| ProxyBody::none(None));
        let status = response.status().as_u16();
        self.recorder.upstream_answered(status);
        self.recorder.response(status, Origin::Upstream);
        self.recorder.upgraded();
        let version = response.version();
        headers::clean_response(response.headers_mut(), &self.method, version, &self.request_id, self.ending);
        self.tell_allowance(response.headers_mut());
        headers::name_upgrade(response.headers_mut());
        *response.version_mut() = http::Version::HTTP_11;
        if let Some(entry) = &self.entry {
            entry.streams(None, false);
        }
        let connection = Rc::clone(&self.connection.0);
        let idle = self.worker.settings.limits.stream_idle;
        connection.hand_over(Tunnel::new(self, upstream, lease, idle));
        response
    }

    fn tell_allowance(&self, fields: &mut HeaderMap) {
        if let Some(metered) = &self.metered {
            headers::tell_allowance(fields, &metered.allowance);
        }
    }

    /// What an answer to the caller's handshake must prove, if it is a whole one.
    pub(crate) fn handshake(&self) -> Option<&Handshake> {
        self.caller.handshake.as_ref()
    }

    /// Whether the connection closes with this answer. One of HTTP/2 says so by itself, and goes on with its streams.
    fn is_last(&self) -> bool {
        let connection = &self.connection.0;
        // Behind a handshake that came to nothing may stand bytes that never were meant as a request (P22).
        !connection.is_http2()
            && (self.caller.wants_websocket || self.worker.is_draining() || is_worn_out(&self.worker, connection))
    }

    /// Whether the response goes out on a stream of its own.
    pub(crate) fn is_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// Counts a part of the response that is handed over, and lets its stream see when the client has taken it.
    pub(crate) fn offer(&self, part: Bytes) -> Bytes {
        self.recorder.add_response_bytes(part.len() as u64);
        match &self.stream {
            Some(stream) => stream.offer(part),
            None => part,
        }
    }

    /// Whether the end of the response may follow what was handed over, with it or on its heels. Where the request is not
    /// over it must not: h2 loses sight of a stream that its client resets with an end on its way.
    pub(crate) fn may_end(&self) -> bool {
        self.stream.as_ref().is_none_or(|stream| {
            let untaken = stream.untaken();
            untaken.is_empty() || untaken.is_short() && self.upload.is_complete()
        })
    }

    /// Whether a response that was said to be over did go to h2: there its last part is, until its client takes it.
    pub(crate) fn has_handed_over(&self) -> bool {
        let untaken = self.stream.as_ref().map(|stream| stream.untaken());
        untaken.is_none_or(|untaken| untaken.is_unused() || !untaken.is_empty())
    }

    /// Waits until it may.
    pub(crate) fn poll_may_end(&self, cx: &Context<'_>) -> Poll<()> {
        match &self.stream {
            Some(stream) if !self.may_end() => stream.untaken().poll_empty(cx),
            _ => Poll::Ready(()),
        }
    }

    /// The fields that end the response in place of all that would have come: it is refused after all, and has a word for it.
    pub(crate) fn last_word(&self) -> Option<HeaderMap> {
        let stream = self.stream.as_ref()?;
        if !stream.ends() {
            return None;
        }
        let refused = Refused::from(self.entry.as_ref()?.denial()?);
        let refusal = refused.refusal();
        let snapshot = refusal.denial.map(|denial| &**denial.case().snapshot());
        Some(respond::trailers(&refusal, &self.answering(snapshot, false)))
    }

    /// The response broke off, by whoever's fault: a request body that fails late takes the response with it.
    pub(crate) fn broken(&self, error: &DownloadError) {
        let reason = self.upload.fault().map_or_else(|| error.reason(), UploadFault::reason);
        self.recorder.failed(reason.as_str());
    }

    /// The response was handed over to its last byte.
    pub(crate) fn complete(self) {
        // An upstream that answered before it had the whole request: the client sends on, and must get the answer.
        if !self.upload.is_complete() {
            self.connection.0.client_is_sending();
        }
        let Self { entry, metered, recorder, place, connection, stream, .. } = self;
        drop((entry, metered));
        recorder.finish();
        if let Some(stream) = stream {
            stream.hold(Tail { _place: place, _connection: connection });
        }
    }
}
