//! One exchange over a lent connection, and the one case in which its request is sent a second time: the upstream had
//! closed a connection between two requests, and not a byte of the second went out on it.

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

/// When an exchange has lasted too long.
pub(crate) struct Deadlines {
    /// From the upstream having the request to the head of its response.
    pub(crate) head: Duration,
    pub(crate) whole: Option<Instant>,
}

/// Sends a request over a connection of the pool. One that comes back unsent, because the upstream had closed the
/// connection, goes out once more over a new one if repeating it could do no harm anyway. One that may have arrived never
/// does, whatever its method. Both attempts together have the time of one.
pub(crate) async fn exchange(
    pool: &Rc<Pool>,
    request: Request<UpstreamRequestBody>,
    upload: &Upload,
    deadlines: &Deadlines,
) -> Result<(Response<Incoming>, Lease), ForwardError> {
    let mut lease = pool.lend().await?;
    let began = Instant::now();
    match send(&mut lease, request, upload, deadlines, began).await {
        Ok(response) => Ok((response, lease)),
        Err(Unanswered::Unsent(request)) if lease.is_reused() && is_repeatable(&request) => {
            tracing::debug!("a pooled connection was dead: its request is sent over a new one");
            lease.reconnect().await?;
            let response = send(&mut lease, *request, upload, deadlines, began).await.map_err(ForwardError::from)?;
            Ok((response, lease))
        }
        Err(unanswered) => Err(unanswered.into()),
    }
}

fn is_repeatable(request: &Request<UpstreamRequestBody>) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    idempotent.contains(request.method()) && request.body().is_end_stream()
}

/// Why a connection gave no response.
enum Unanswered {
    /// hyper gave the request back: not a byte of it was written.
    Unsent(Box<Request<UpstreamRequestBody>>),
    Failed(ForwardError),
}

impl From<Unanswered> for ForwardError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Unsent(_) => Self::Connect(ConnectError::Refused(std::io::ErrorKind::ConnectionReset.into())),
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
    let sending = lease.sender().try_send_request(request);
    let Some(sent) = within(sending, upload, deadlines, began).await else {
        return Err(Unanswered::Failed(ForwardError::TimedOut));
    };
    sent.map_err(|mut failure| match (upload.fault(), failure.take_message()) {
        (Some(fault), _) => Unanswered::Failed(fault.into()),
        (None, Some(request)) => Unanswered::Unsent(Box::new(request)),
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
}
