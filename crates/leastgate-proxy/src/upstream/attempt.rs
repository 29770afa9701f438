//! One exchange over a lent connection, and the one case in which its request is sent a second time: the upstream has
//! not looked at the first, and looking twice would do no harm.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, Request, Response, Version, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::time::{Instant, timeout_at};

use super::connect::ConnectError;
use super::forward::ForwardError;
use super::http2;
use super::lease::Lease;
use super::pool::Pool;
use crate::body::{OutboundBody, Upload};
use crate::headers;

/// When an exchange has lasted too long.
pub(crate) struct Deadlines {
    /// From the upstream having the request to the head of its response.
    pub(crate) head: Duration,
    pub(crate) whole: Option<Instant>,
}

/// What an exchange goes by.
pub(crate) struct Terms<'a> {
    pub(crate) upload: &'a Upload,
    pub(crate) deadlines: &'a Deadlines,
    /// The Host is the endpoint's own.
    pub(crate) rewrites_host: bool,
}

/// Sends a request over a connection of the pool. One that comes back unsent, because the upstream had closed the
/// connection, or that the upstream says it did not process, goes out once more over a new connection if repeating it
/// could do no harm anyway. One that may have been processed never does, whatever its method. Both attempts together have
/// the time of one.
pub(crate) async fn exchange(
    pool: &Rc<Pool>,
    request: Request<OutboundBody>,
    terms: &Terms<'_>,
) -> Result<(Response<Incoming>, Lease), ForwardError> {
    let mut lease = pool.lend().await?;
    let began = Instant::now();
    let spare = spare(&lease, &request);
    match send(&mut lease, request, terms, began).await {
        Ok(response) => Ok((response, lease)),
        Err(Unanswered::Failed(error)) => Err(error),
        Err(Unanswered::Unprocessed(returned)) => {
            let again = spare.or(returned.map(|request| *request).filter(is_repeatable));
            let Some(again) = again else { return Err(ConnectError::Ended.into()) };
            tracing::debug!("a connection was dead or closing: its request is sent over a new one");
            let mut lease = pool.lend_instead(lease).await?;
            let response = send(&mut lease, again, terms, began).await.map_err(ForwardError::from)?;
            Ok((response, lease))
        }
    }
}

fn is_repeatable(request: &Request<OutboundBody>) -> bool {
    let idempotent = [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE];
    idempotent.contains(request.method()) && request.body().is_end_stream()
}

/// hyper gives a request back that it did not send, except one that went as far as a stream of HTTP/2.
fn spare(lease: &Lease, request: &Request<OutboundBody>) -> Option<Request<OutboundBody>> {
    if !lease.is_http2() || !is_repeatable(request) {
        return None;
    }
    let mut spare = Request::new(OutboundBody::empty());
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}

/// Why a connection gave no response.
enum Unanswered {
    /// Not a byte of it was written, and hyper gave it back; or the upstream says that it did not process it.
    Unprocessed(Option<Box<Request<OutboundBody>>>),
    Failed(ForwardError),
}

impl From<Unanswered> for ForwardError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Unprocessed(_) => Self::Connect(ConnectError::Ended),
            Unanswered::Failed(error) => error,
        }
    }
}

async fn send(
    lease: &mut Lease,
    mut request: Request<OutboundBody>,
    terms: &Terms<'_>,
    began: Instant,
) -> Result<Response<Incoming>, Unanswered> {
    dress(&mut request, lease, terms.rewrites_host).map_err(Unanswered::Failed)?;
    let Some(sent) = within(lease.send(request), terms.upload, terms.deadlines, began).await else {
        // As long as the client is waited for, nothing says that the connection is silent.
        if !terms.upload.waits_for_client() {
            lease.is_overdue();
        }
        return Err(Unanswered::Failed(ForwardError::TimedOut));
    };
    match sent {
        Ok(response) => {
            lease.answered(&response);
            Ok(response)
        }
        Err(failure) => Err(unanswered(lease, failure, terms.upload)),
    }
}

/// The Host and the form of a request are those of the endpoint and the protocol it goes over.
fn dress(request: &mut Request<OutboundBody>, lease: &Lease, rewrites_host: bool) -> Result<(), ForwardError> {
    let target = lease.target();
    if rewrites_host && let Some(authority) = &target.authority {
        headers::rewrite_host(request.headers_mut(), authority);
    }
    if lease.is_http2() {
        if request.headers().contains_key(header::UPGRADE) {
            return Err(ForwardError::NoUpgrade);
        }
        *request.version_mut() = Version::HTTP_2;
        headers::to_http2(request, target.is_https).ok_or(ForwardError::Untranslatable)?;
    } else {
        *request.version_mut() = Version::HTTP_11;
    }
    Ok(())
}

fn unanswered(lease: &Lease, mut failure: TrySendError<Request<OutboundBody>>, upload: &Upload) -> Unanswered {
    if let Some(fault) = upload.fault() {
        return Unanswered::Failed(fault.into());
    }
    let returned = failure.take_message();
    let error = failure.into_error();
    if returned.is_some() || http2::is_unprocessed(&error) {
        lease.broke(false);
        // One in the form of HTTP/2 is of no use: there is a spare.
        return Unanswered::Unprocessed(returned.filter(|_| !lease.is_http2()).map(Box::new));
    }
    if !http2::is_of_one_stream(&error) {
        lease.broke(error.is_parse());
    }
    Unanswered::Failed(if error.is_timeout() { ForwardError::TimedOut } else { ForwardError::Http(error) })
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

    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tokio::task::LocalSet;
    use tokio::time::timeout;

    use super::*;
    use crate::body::{BodyLimits, Inbound, Received, RequestBody};
    use crate::upstream::pool::tests::pool_of;

    /// A request with a body as hyper's server hands it over.
    async fn received() -> Request<OutboundBody> {
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
        request
            .unwrap()
            .map(|body| Inbound::new(Received::new(body, false), None))
            .map(|body| OutboundBody::new(RequestBody::new(body, BodyLimits::TIGHT, Rc::new(Upload::new()), None)))
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
            let pool = pool_of(&[upstream.local_addr().unwrap()], 1);
            let (upload, deadlines) = (Upload::new(), Deadlines { head: Duration::from_secs(10), whole: None });
            let terms = Terms { upload: &upload, deadlines: &deadlines, rewrites_host: false };
            let first = exchange(&pool, received().await, &terms);
            let (first, stream) = tokio::join!(first, answer(&upstream));
            first.unwrap().1.give_back();

            let second = received().await;
            drop(stream);
            // The reactor hears of the end here, and the connection's task only runs after this one has sent on it.
            tokio::task::yield_now().await;
            let second = exchange(&pool, second, &terms);
            let (second, _stream) = tokio::join!(second, answer(&upstream));
            let (response, lease) = second.unwrap();
            assert_eq!(response.status(), 204);
            assert!(!lease.is_reused());
        };
        timeout(Duration::from_secs(5), LocalSet::new().run_until(test)).await.expect("no wait for its own place");
    }
}
