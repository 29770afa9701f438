//! One request and its answer, on a connection and a runtime of their own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::Endpoint;
use super::error::ClientError;
use super::tls;
use crate::api::ProblemView;

/// What is asked.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) credential: Option<&'a str>,
    pub(super) body: Option<Vec<u8>>,
    /// What a change is for: the entity tag of the token, in its quotes.
    pub(super) condition: Option<String>,
    /// Whether it changes anything.
    pub(super) is_change: bool,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Largest answer: 1000 events and more.
const MOST_BYTES: usize = 32 * 1024 * 1024;

pub(super) fn exchange(
    endpoint: &Endpoint,
    tls: Option<&Arc<ClientConfig>>,
    ask: &Ask<'_>,
    timeout: Duration,
) -> Result<Answer, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
    runtime.block_on(async {
        let late =
            |_| ClientError::Timeout { endpoint: endpoint.to_string(), waited: timeout, is_change: ask.is_change };
        tokio::time::timeout(timeout, ask_at(endpoint, tls, ask)).await.map_err(late)?
    })
}

async fn ask_at(endpoint: &Endpoint, tls: Option<&Arc<ClientConfig>>, ask: &Ask<'_>) -> Result<Answer, ClientError> {
    match endpoint {
        Endpoint::Tcp(authority) => {
            let stream = connect(endpoint, authority).await?;
            ask_over(stream, authority, ask).await.map_err(|error| unanswered(endpoint, authority, &error))?
        }
        Endpoint::Tls(authority) => {
            let stream = connect(endpoint, authority).await?;
            let stream = tls::secure(stream, authority, tls, &endpoint.to_string()).await?;
            ask_over(stream, authority, ask).await.map_err(|error| unanswered(endpoint, authority, &error))?
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|source| unconnected(endpoint, source))?;
            ask_over(stream, "localhost", ask).await.map_err(|error| unanswered(endpoint, "localhost", &error))?
        }
    }
}

async fn connect(endpoint: &Endpoint, authority: &str) -> Result<TcpStream, ClientError> {
    TcpStream::connect(authority).await.map_err(|source| unconnected(endpoint, source))
}

fn unconnected(endpoint: &Endpoint, source: io::Error) -> ClientError {
    let endpoint = endpoint.to_string();
    match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted { endpoint },
        _ => ClientError::Connect { endpoint, source },
    }
}

async fn ask_over<S>(stream: S, host: &str, ask: &Ask<'_>) -> hyper::Result<Result<Answer, ClientError>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = match request(host, ask) {
        Ok(request) => request,
        Err(error) => return Ok(Err(error)),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, and with the runtime at the latest.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    Ok(body.map(|body| Answer { status, body: body.to_bytes() }).map_err(unread))
}

/// Why there is no answer on a connection that came about.
fn unanswered(endpoint: &Endpoint, host: &str, error: &hyper::Error) -> ClientError {
    match endpoint {
        Endpoint::Tls(_) => match tls::fault(error, host) {
            Some(fault) => ClientError::Tls { endpoint: endpoint.to_string(), fault },
            None => unread(error),
        },
        Endpoint::Tcp(_) if error.is_parse() => ClientError::NotHttp { endpoint: endpoint.to_string() },
        Endpoint::Tcp(_) | Endpoint::Unix(_) => unread(error),
    }
}

fn request(host: &str, ask: &Ask<'_>) -> Result<Request<Full<Bytes>>, ClientError> {
    let mut request = Request::builder()
        .method(ask.method.clone())
        .uri(&ask.target)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("leastgate/", env!("CARGO_PKG_VERSION")));
    if ask.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(condition) = &ask.condition {
        request = request.header(header::IF_MATCH, condition);
    }
    if let Some(credential) = ask.credential {
        let unfit =
            |_| ClientError::Protocol { detail: "the credential has characters that no credential has".to_owned() };
        let mut value = HeaderValue::try_from(format!("Bearer {credential}")).map_err(unfit)?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    request.body(Full::from(ask.body.clone().unwrap_or_default())).map_err(unread)
}

fn unread(error: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol { detail: error.to_string() }
}

/// What an answer that is no success means.
pub(super) fn refused(endpoint: &Endpoint, answer: &Answer) -> ClientError {
    // What is decided about a request of the data plane has an id; nothing of this API has.
    if serde_json::from_slice::<Value>(&answer.body).is_ok_and(|answer| answer.get("decision_id").is_some()) {
        return ClientError::DataListener { endpoint: endpoint.to_string() };
    }
    let problem = serde_json::from_slice::<ProblemView>(&answer.body).unwrap_or_else(|_| ProblemView {
        kind: "about:blank".to_owned(),
        title: "The answer is not the admin API's".to_owned(),
        status: answer.status,
        detail: format!("status {}", answer.status),
        hint: Some("is this address the admin listener's? listeners.admin says where it is".to_owned()),
    });
    match answer.status {
        401 | 403 => ClientError::Unauthorized(problem),
        _ => ClientError::Refused(problem),
    }
}
