//! Probes of upstreams: kubelet asks the gateway, the gateway asks one fixed path of the upstream.
//!
//! Nothing of the caller's request reaches the upstream: not its path, header or body. Nothing of the answer comes
//! back but whether its status was 2xx; no redirect is followed.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use leastgate_config::Upstream;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// An upstream that can be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// The upstream's name: `/probe/<name>/…`.
    pub name: String,
    /// `host:port`; an IPv6 address in brackets.
    pub address: String,
    /// The upstream's path behind `/live`.
    pub live: Option<String>,
    /// The upstream's path behind `/ready`.
    pub ready: Option<String>,
}

impl From<&Upstream> for ProbeTarget {
    fn from(upstream: &Upstream) -> Self {
        Self {
            name: upstream.name.clone(),
            // The first stands for all of them: it is the API's own word that is asked for.
            address: upstream
                .endpoints
                .first()
                .map(|endpoint| format!("{}:{}", endpoint.host(), endpoint.port()))
                .unwrap_or_default(),
            live: upstream.probe.live.clone(),
            ready: upstream.probe.ready.clone(),
        }
    }
}

/// Which of an upstream's probes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Live,
    Ready,
}

/// Why a probe's answer is no.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeFailure {
    #[error("the upstream can't be reached")]
    Unreachable,
    #[error("the upstream did not answer in HTTP")]
    Protocol,
    #[error("the upstream answered {0}")]
    Status(u16),
    #[error("the upstream did not answer in time")]
    Timeout,
    #[error("too many probes are under way")]
    Busy,
}

/// From connecting to the head of the answer: kubelet waits a second by default, and what is slower is not well.
const DEADLINE: Duration = Duration::from_millis(900);
/// Probes under way: whoever can reach the ops listener must not make the gateway flood its upstreams.
const MOST_PROBES: usize = 16;

/// Asks upstreams.
#[derive(Debug)]
pub(super) struct Prober {
    targets: Vec<ProbeTarget>,
    places: Semaphore,
}

impl Prober {
    pub(super) fn new(targets: &[ProbeTarget]) -> Self {
        Self { targets: targets.to_vec(), places: Semaphore::new(MOST_PROBES) }
    }

    /// `None`: there is no such probe.
    pub(super) async fn ask(&self, upstream: &str, kind: Kind) -> Option<Result<(), ProbeFailure>> {
        let target = self.targets.iter().find(|target| target.name == upstream)?;
        let path = match kind {
            Kind::Live => target.live.as_deref()?,
            Kind::Ready => target.ready.as_deref()?,
        };
        let Ok(_place) = self.places.try_acquire() else { return Some(Err(ProbeFailure::Busy)) };
        let answer = tokio::time::timeout(DEADLINE, get(&target.address, path)).await;
        Some(answer.unwrap_or(Err(ProbeFailure::Timeout)))
    }
}

async fn get(address: &str, path: &str) -> Result<(), ProbeFailure> {
    let stream = TcpStream::connect(address).await.map_err(|_| ProbeFailure::Unreachable)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| ProbeFailure::Protocol)?;
    let request = Request::get(path)
        .header(header::HOST, address)
        .header(header::USER_AGENT, "leastgate-probe")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| ProbeFailure::Protocol)?;
    // The connection is driven here and dropped with the answer's head: no body is read. It may end in the very
    // moment that brings the answer; what came of the request is settled then.
    let mut answer = pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = answer.as_mut() => answer,
        _ = connection => answer.await,
    };
    let status = answer.map_err(|_| ProbeFailure::Protocol)?.status();
    if status.is_success() { Ok(()) } else { Err(ProbeFailure::Status(status.as_u16())) }
}
