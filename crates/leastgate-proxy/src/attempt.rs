//! One exchange over a lent connection, and the one case in which its request is sent a second time: the upstream closed
//! a connection that had lain idle just as the request went out on it.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use crate::body::Upload;
use crate::forward::ForwardError;
use crate::pool::{ConnectError, Lease, Pool, UpstreamRequestBody};

/// How long a connection must have been idle for a request on it to be kept for a second attempt. An upstream closes
/// connections for their idle time after seconds; to copy the head of every request would cost a tenth of its work.
const STALE: Duration = Duration::from_millis(100);

/// When an exchange has lasted too long.
pub(crate) struct Deadlines {
    /// From the upstream having the request to the head of its response.
    pub(crate) head: Duration,
    pub(crate) whole: Option<Instant>,
}

/// Sends a request over a connection of the pool, and over a new one if that connection turns out to be dead. A request
/// of which not a byte was written goes out again if it may be repeated; one that may have arrived only if it is safe as
/// well, and no byte came back. Both attempts together have the time of one.
pub(crate) async fn exchange(
    pool: &Rc<Pool>,
    request: Request<UpstreamRequestBody>,
    upload: &Upload,
    deadlines: &Deadlines,
) -> Result<(Response<Incoming>, Lease), ForwardError> {
    let mut lease = pool.lend().await?;
    let began = Instant::now();
    let spare = if lease.idled() >= STALE { spare(&request) } else { None };
    let failure = match send(&mut lease, request, upload, deadlines, began).await {
        Ok(response) => return Ok((response, lease)),
        Err(failure) => failure,
    };
    match (failure, spare) {
        (Unanswered::Unsent(request), _) if lease.is_reused() && is_repeatable(&request) => {
            lease.reconnect().await?;
            again(lease, *request, upload, deadlines, began).await
        }
        (Unanswered::Silent(error), Some(spare)) => match lease.reconnect().await {
            Ok(()) => again(lease, spare, upload, deadlines, began).await,
            // The first attempt may have arrived: that there is no second connection is not the whole truth.
            Err(_) => Err(ForwardError::Http(error)),
        },
        (failure, _) => Err(failure.into()),
    }
}

async fn again(
    mut lease: Lease,
    request: Request<UpstreamRequestBody>,
    upload: &Upload,
    deadlines: &Deadlines,
    began: Instant,
) -> Result<(Response<Incoming>, Lease), ForwardError> {
    tracing::debug!("a pooled connection was dead: its request is sent once more");
    let response = send(&mut lease, request, upload, deadlines, began).await?;
    Ok((response, lease))
}

/// Whether a request may be sent again that did not arrive.
fn is_repeatable(request: &Request<UpstreamRequestBody>) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    idempotent.contains(request.method()) && request.body().is_end_stream()
}

/// A copy of a request that may arrive twice: it asks for nothing to be changed (RFC 9110 §9.2.1) and has no body.
fn spare(request: &Request<UpstreamRequestBody>) -> Option<Request<UpstreamRequestBody>> {
    if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return None;
    }
    let mut spare = Request::new(request.body().empty()?);
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.version_mut() = request.version();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

/// Why a connection gave no response.
enum Unanswered {
    /// hyper gave the request back: not a byte of it was written.
    Unsent(Box<Request<UpstreamRequestBody>>),
    /// The connection ended, and not a byte had come back over it.
    Silent(hyper::Error),
    Failed(ForwardError),
}

impl From<Unanswered> for ForwardError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Unsent(_) => Self::Connect(ConnectError::Refused(std::io::ErrorKind::ConnectionReset.into())),
            Unanswered::Silent(error) => Self::Http(error),
            Unanswered::Failed(error) => error,
        }
    }
}

async fn send(
    lease: &mut Lease,
    request: Request<UpstreamRequestBody>,
    upload: &Upload,
    deadlines: &Deadlines,
    began: Instant,
) -> Result<Response<Incoming>, Unanswered> {
    let heard = lease.heard();
    let sending = lease.sender().try_send_request(request);
    let Some(sent) = within(sending, upload, deadlines, began).await else {
        return Err(Unanswered::Failed(ForwardError::TimedOut));
    };
    sent.map_err(|mut failure| match (upload.fault(), failure.take_message()) {
        (Some(fault), _) => Unanswered::Failed(fault.into()),
        (None, Some(request)) => Unanswered::Unsent(Box::new(request)),
        (None, None) if lease.heard() == heard && !failure.error().is_user() => {
            Unanswered::Silent(failure.into_error())
        }
        (None, None) => Unanswered::Failed(ForwardError::Http(failure.into_error())),
    })
}

/// Waits for a response head. Its time counts from when the upstream has the request: as long as a client is still
/// sending, the deadlines of its body are the ones that end it.
async fn within<F: Future>(sending: F, upload: &Upload, deadlines: &Deadlines, began: Instant) -> Option<F::Output> {
    let mut sending = pin!(sending);
    let mut due = began + deadlines.head;
    loop {
        let until = deadlines.whole.map_or(due, |whole| due.min(whole));
        if let Ok(sent) = timeout_at(until, &mut sending).await {
            return Some(sent);
        }
        due = upload.sent_by() + deadlines.head;
        if until >= due || deadlines.whole.is_some_and(|whole| until >= whole) {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::num::NonZeroUsize;

    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use leastgate_config::Limits;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::*;
    use crate::body::RequestBody;
    use crate::pool::PoolSettings;
    use crate::settings::{DataPlaneConfig, Settings};

    /// A request with a body as hyper's server hands it over.
    async fn received() -> Request<UpstreamRequestBody> {
        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"GET /v1/a HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let (heard, mut requests) = mpsc::unbounded_channel();
        let service = service_fn(move |request: Request<Incoming>| {
            heard.send(request).unwrap();
            std::future::pending::<Result<Response<String>, Infallible>>()
        });
        let serving = http1::Builder::new().serve_connection(TokioIo::new(server), service);
        let request = tokio::select! {
            _ = serving => None,
            request = requests.recv() => request,
        };
        let limits = Settings::new(DataPlaneConfig {
            addresses: Vec::new(),
            workers: NonZeroUsize::MIN,
            limits: Limits::default(),
            upstreams: Vec::new(),
            trusted_proxies: Vec::new(),
        });
        request.unwrap().map(|body| RequestBody::new(body, limits.body(), Rc::new(Upload::new()), None))
    }

    fn pool_of_one(port: u16) -> Rc<Pool> {
        Rc::new(Pool::new(PoolSettings {
            host: "127.0.0.1".into(),
            port,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            max_connections: 1,
        }))
    }

    /// Answers a connection's one request and hands the connection over.
    async fn answer(upstream: &TcpListener) -> TcpStream {
        let (mut stream, _) = upstream.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        stream
    }

    /// The pool's only place is the failed connection's own: the second attempt must not wait for it.
    #[tokio::test]
    async fn a_request_that_comes_back_unsent_goes_out_again_in_the_place_it_has() {
        let test = async {
            let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let pool = pool_of_one(upstream.local_addr().unwrap().port());
            let (upload, deadlines) = (Upload::new(), Deadlines { head: Duration::from_secs(10), whole: None });
            let first = exchange(&pool, received().await, &upload, &deadlines);
            let (first, stream) = tokio::join!(first, answer(&upstream));
            first.unwrap().1.give_back();

            let second = received().await;
            drop(stream);
            // The reactor hears of the end here, and the connection's task only runs after this one has sent on it.
            tokio::task::yield_now().await;
            let second = exchange(&pool, second, &upload, &deadlines);
            let (second, _stream) = tokio::join!(second, answer(&upstream));
            let (response, lease) = second.unwrap();
            assert_eq!(response.status(), 204);
            assert!(!lease.is_reused());
        };
        timeout(Duration::from_secs(5), LocalSet::new().run_until(test)).await.expect("no wait for its own place");
    }

    /// The first attempt may have arrived, so "nothing was forwarded" would be too much to say.
    #[tokio::test]
    async fn without_a_second_connection_the_first_failure_stands() {
        let test = async {
            let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let pool = pool_of_one(upstream.local_addr().unwrap().port());
            let (upload, deadlines) = (Upload::new(), Deadlines { head: Duration::from_secs(10), whole: None });
            let first = exchange(&pool, received().await, &upload, &deadlines);
            let (first, mut stream) = tokio::join!(first, answer(&upstream));
            first.unwrap().1.give_back();
            drop(upstream);
            tokio::time::sleep(STALE).await;
            let leaves = async move { stream.read_u8().await.unwrap() };
            let second = received().await;
            let (second, _) = tokio::join!(exchange(&pool, second, &upload, &deadlines), leaves);
            assert!(matches!(second, Err(ForwardError::Http(_))), "{:?}", second.err());
        };
        timeout(Duration::from_secs(5), LocalSet::new().run_until(test)).await.expect("a prompt failure");
    }
}
