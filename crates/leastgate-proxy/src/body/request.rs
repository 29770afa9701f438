//! The request's body between client and upstream: its cap, its deadlines, and word of how it ended.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use leastgate_policy::Reason;
use leastgate_telemetry::RecordHandle;
use tokio::time::{Instant, Sleep};

use super::TrailerLimits;

/// What a request body may be, and how slow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    pub(crate) bytes: u64,
    /// Longest silence while we want to read.
    pub(crate) idle: Duration,
    /// Least bytes a second while we want to read, once `grace` is over.
    pub(crate) min_rate: u64,
    pub(crate) grace: Duration,
    pub(crate) trailers: TrailerLimits,
}

#[cfg(test)]
impl BodyLimits {
    /// Small enough to be met in a test.
    pub(crate) const TIGHT: Self = Self {
        bytes: 1000,
        idle: Duration::from_secs(30),
        min_rate: 240,
        grace: Duration::from_secs(5),
        trailers: TrailerLimits { bytes: 64, fields: 2 },
    };
}

/// Why a request's body could not be passed on: always the client's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadFault {
    /// More bytes than the api takes.
    #[error("the request body is over its limit")]
    TooLarge,
    /// Silent for too long, or slower than the least rate.
    #[error("the request body came too slowly")]
    TooSlow,
    /// Not a body, or not whole: hyper's chunk decoder refused it, or the client went away.
    #[error("the request body is malformed or incomplete")]
    Malformed,
    /// Trailers over their limits.
    #[error("the request trailers are over their limit")]
    TrailersTooLarge,
}

impl UploadFault {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::TooLarge => Reason::BodyTooLarge,
            Self::TooSlow => Reason::RequestTimeout,
            Self::Malformed => Reason::RequestMalformed,
            Self::TrailersTooLarge => Reason::HeadTooLarge,
        }
    }
}

/// What became of a request's body so far: written by the body, which the upstream connection's task owns, and read by
/// the request's own task.
#[derive(Debug)]
pub(crate) struct Upload {
    complete: Cell<bool>,
    limit: Cell<u64>,
    stream_idle: Cell<Option<Duration>>,
    fault: Cell<Option<UploadFault>>,
    bytes: Cell<u64>,
    moved: Cell<Instant>,
    wants_more: Cell<bool>,
}

impl Upload {
    pub(crate) fn new() -> Self {
        Self {
            complete: Cell::new(false),
            limit: Cell::new(0),
            stream_idle: Cell::new(None),
            fault: Cell::new(None),
            bytes: Cell::new(0),
            moved: Cell::new(Instant::now()),
            wants_more: Cell::new(false),
        }
    }

    /// Sets the most bytes the body may have, once it is known which api takes it.
    pub(crate) fn limit_to(&self, bytes: u64) {
        self.limit.set(bytes);
    }

    /// The body is a stream of messages: it may be as slow as it likes, and silent for so long.
    pub(crate) fn streams(&self, idle: Duration) {
        self.stream_idle.set(Some(idle));
    }

    /// Whether every byte was handed to the upstream connection.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    pub(crate) fn fault(&self) -> Option<UploadFault> {
        self.fault.get()
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether it is the client we wait for, and not an upstream that takes no more.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.wants_more.get() && !self.complete.get()
    }

    /// When the upstream may be said to have had the whole request: now, as long as it is the client we wait for.
    pub(crate) fn sent_by(&self) -> Instant {
        if self.waits_for_client() { Instant::now() } else { self.moved.get() }
    }
}

/// A request's body with its limits.
#[derive(Debug)]
pub(crate) struct RequestBody<B> {
    inner: B,
    limits: BodyLimits,
    upload: Rc<Upload>,
    record: Option<RecordHandle>,
    /// Time spent waiting for the client, the wait under way excepted.
    waited: Duration,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B: Body<Data = Bytes> + Unpin> RequestBody<B> {
    pub(crate) fn new(inner: B, limits: BodyLimits, upload: Rc<Upload>, record: Option<RecordHandle>) -> Self {
        upload.complete.set(inner.is_end_stream());
        upload.limit.set(limits.bytes);
        Self { inner, limits, upload, record, waited: Duration::ZERO, waiting_since: None, timer: None }
    }

    /// Waits for the end of a body that says it has nothing in it. Over HTTP/2 an end may come later than the head, and
    /// what comes instead makes a request malformed that its upstream must not have by then (RFC 9113 §8.1.1).
    pub(crate) async fn end_of_nothing(&mut self) -> Result<(), UploadFault> {
        while self.size_hint().exact() == Some(0) && !self.is_end_stream() {
            if poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await.transpose()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn fail(&self, fault: UploadFault) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        self.upload.fault.set(Some(fault));
        Poll::Ready(Some(Err(fault)))
    }

    fn finish(&self) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        self.upload.complete.set(true);
        Poll::Ready(None)
    }

    fn moved(&mut self) {
        let now = Instant::now();
        if let Some(since) = self.waiting_since.take() {
            self.waited += now - since;
        }
        self.upload.wants_more.set(false);
        self.upload.moved.set(now);
    }

    fn pass(&mut self, frame: Frame<Bytes>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => {
                let fits = frame.trailers_ref().is_none_or(|trailers| self.limits.trailers.admit(trailers));
                return if fits { self.finish() } else { self.fail(UploadFault::TrailersTooLarge) };
            }
        };
        let bytes = self.upload.bytes.get() + data.len() as u64;
        if bytes > self.upload.limit.get() {
            return self.fail(UploadFault::TooLarge);
        }
        self.upload.bytes.set(bytes);
        if let Some(record) = &self.record {
            record.add_request_bytes(data.len() as u64);
        }
        if self.inner.is_end_stream() {
            self.upload.complete.set(true);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// How much longer the client may be silent: it has earned that with what it has sent.
    fn patience(&self) -> Duration {
        let rate = self.limits.min_rate.max(1);
        let earned = Duration::from_millis(self.upload.bytes.get().saturating_mul(1000) / rate);
        let allowed = earned.max(self.limits.grace).saturating_sub(self.waited);
        allowed.min(self.limits.idle)
    }

    /// Waits for the client no longer than it may be silent, and no longer than it takes to fall below the least rate.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        self.upload.wants_more.set(true);
        let deadline = since + self.upload.stream_idle.get().unwrap_or_else(|| self.patience());
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => self.fail(UploadFault::TooSlow),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = UploadFault;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadFault>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Pending => this.poll_deadline(cx),
            Poll::Ready(None) => this.finish(),
            Poll::Ready(Some(Err(_))) => this.fail(UploadFault::Malformed),
            Poll::Ready(Some(Ok(frame))) => {
                this.moved();
                this.pass(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{Stream, StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    const LIMITS: BodyLimits = BodyLimits::TIGHT;

    fn drip(
        bytes: usize,
        every: Duration,
        times: usize,
    ) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Unpin {
        Box::pin(stream::iter(0..times).then(move |_| async move {
            tokio::time::sleep(every).await;
            Ok(Frame::data(Bytes::from(vec![b'x'; bytes])))
        }))
    }

    async fn pass(frames: impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Unpin) -> (Rc<Upload>, Duration) {
        let upload = Rc::new(Upload::new());
        let started = Instant::now();
        let body = RequestBody::new(StreamBody::new(frames), LIMITS, Rc::clone(&upload), None);
        let _ = body.collect().await;
        (upload, started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_within_its_limits_is_complete() {
        let (upload, _) = pass(drip(500, Duration::from_secs(1), 2)).await;
        assert!(upload.is_complete());
        assert_eq!((upload.fault(), upload.bytes()), (None, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn one_byte_too_many_is_too_large() {
        let (upload, _) = pass(drip(501, Duration::ZERO, 2)).await;
        assert_eq!(upload.fault(), Some(UploadFault::TooLarge));
        assert_eq!(upload.bytes(), 501, "what was over is not passed on");
        assert!(!upload.is_complete());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_slower_than_the_least_rate_is_cut_after_the_grace() {
        let (upload, took) = pass(drip(1, Duration::from_secs(1), 1000)).await;
        assert_eq!(upload.fault(), Some(UploadFault::TooSlow));
        assert_eq!(took.as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_of_messages_may_be_slow_and_long_silent_but_not_for_ever() {
        let upload = Rc::new(Upload::new());
        let frames = drip(1, Duration::from_secs(60), 3).chain(drip(1, Duration::from_secs(200), 1));
        let body = RequestBody::new(StreamBody::new(Box::pin(frames)), LIMITS, Rc::clone(&upload), None);
        upload.streams(Duration::from_secs(100));
        let started = Instant::now();
        let _ = body.collect().await;
        assert_eq!((upload.fault(), upload.bytes()), (Some(UploadFault::TooSlow), 3));
        assert_eq!(started.elapsed().as_secs(), 280);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_after_a_burst_ends_with_the_bytes_it_earned() {
        let frames = drip(960, Duration::ZERO, 1).chain(drip(1, Duration::from_secs(60), 1));
        let (upload, took) = pass(Box::pin(frames)).await;
        assert_eq!(upload.fault(), Some(UploadFault::TooSlow));
        assert_eq!(took.as_secs(), 5, "960 bytes earn 4 seconds, the grace is 5");
    }

    #[tokio::test(start_paused = true)]
    async fn time_the_upstream_takes_is_not_the_clients() {
        let upload = Rc::new(Upload::new());
        let frames = drip(100, Duration::from_millis(100), 5);
        let mut body = RequestBody::new(StreamBody::new(frames), LIMITS, Rc::clone(&upload), None);
        while let Some(frame) = body.frame().await {
            frame.unwrap();
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        assert!(upload.is_complete());
    }

    #[tokio::test(start_paused = true)]
    async fn trailers_stay_behind_and_are_bounded() {
        let trailers = |count: usize| {
            let names =
                (0..count).map(|n| (format!("x-{n}").parse::<http::HeaderName>().unwrap(), "v".parse().unwrap()));
            Frame::trailers(names.collect())
        };
        let upload = Rc::new(Upload::new());
        let frames = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"a"))), Ok(trailers(2))]);
        let body = RequestBody::new(StreamBody::new(frames), LIMITS, Rc::clone(&upload), None);
        assert!(body.collect().await.unwrap().trailers().is_none());
        assert!(upload.is_complete());
        let (upload, _) = pass(stream::iter([Ok(trailers(3))])).await;
        assert_eq!(upload.fault(), Some(UploadFault::TrailersTooLarge));
    }
}
