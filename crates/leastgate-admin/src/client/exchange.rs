//! One request and its answer, on a connection and a runtime of their own.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::Endpoint;
use super::error::ClientError;

/// What is asked.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) credential: Option<&'a str>,
    pub(super) body: Option<Vec<u8>>,
    /// The version that a change is for.
    pub(super) version: Option<u64>,
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

pub(super) fn exchange(endpoint: &Endpoint, ask: &Ask<'_>, timeout: Duration) -> Result<Answer, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
    runtime.block_on(async {
        let late =
            |_| ClientError::Timeout { endpoint: endpoint.to_string(), waited: timeout, is_change: ask.is_change };
        tokio::time::timeout(timeout, ask_at(endpoint, ask)).await.map_err(late)?
    })
}

async fn ask_at(endpoint: &Endpoint, ask: &Ask<'_>) -> Result<Answer, ClientError> {
    match endpoint {
        Endpoint::Tcp(authority) => {
            let stream = TcpStream::connect(authority).await.map_err(|source| unconnected(endpoint, source))?;
            ask_over(stream, authority, ask).await
        }
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|source| unconnected(endpoint, source))?;
            ask_over(stream, "localhost", ask).await
        }
    }
}

fn unconnected(endpoint: &Endpoint, source: io::Error) -> ClientError {
    let endpoint = endpoint.to_string();
    match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::NotPermitted { endpoint },
        _ => ClientError::Connect { endpoint, source },
    }
}

async fn ask_over<S>(stream: S, host: &str, ask: &Ask<'_>) -> Result<Answer, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unread)?;
    let request = request(host, ask)?;
    // It ends with the answer, and with the runtime at the latest.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(unread)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(unread)?;
    Ok(Answer { status, body: body.to_bytes() })
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
    if let Some(version) = ask.version {
        request = request.header(header::IF_MATCH, format!("\"{version}\""));
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
