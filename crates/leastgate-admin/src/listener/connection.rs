//! One connection: hyper's HTTP/1.1 with caps and deadlines, and the fields every answer has.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tower::ServiceExt as _;

use super::Peer;
use super::accept::Stop;
use super::places::Place;

/// From the end of one request to the last byte of the next one's head: idling is as bounded as dawdling.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// A connection's whole life: also what bounds a client that never reads its answer.
const LIFE: Duration = Duration::from_secs(120);
/// How long a request under way may go on after that.
const LAST_REQUEST: Duration = Duration::from_secs(20);
/// Largest head.
const HEAD_BYTES: usize = 16 * 1024;
/// Most header fields.
const HEAD_FIELDS: usize = 64;

/// Serves a connection until it ends, is too old, or the plane stops.
pub(super) async fn serve<S>(stream: S, peer: Peer, router: Router, mut stop: Stop, place: Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| answer(router.clone(), peer.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let is_over = tokio::select! {
        _ = connection.as_mut() => true,
        () = tokio::time::sleep(LIFE) => false,
        _ = stop.wait_for(|stop| *stop) => false,
    };
    if !is_over {
        connection.as_mut().graceful_shutdown();
        // What has not ended by then is cut with the drop.
        let _ = tokio::time::timeout(LAST_REQUEST, connection).await;
    }
    drop(place);
}

async fn answer(router: Router, peer: Peer, request: Request<Incoming>) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(peer);
    let Ok(mut response) = router.oneshot(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
