//! The ops listener: health, metrics and probes. Read-only, without a secret, for whoever can reach it.

mod probe;

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderValue, StatusCode, header};

pub use self::probe::ProbeTarget;
use self::probe::{Kind, Prober};
use crate::gate::gate_path;
use crate::lanes::Lane;
use crate::problem::Problem;
use crate::state::{AdminState, Shared};

/// The router of the ops listener.
pub(crate) fn ops(shared: &Arc<Shared>) -> Router {
    let (ready, metrics) = (Arc::clone(shared), Arc::clone(shared));
    let prober = Arc::new(Prober::new(&shared.given.probes));
    let other = Arc::clone(&prober);
    Router::new()
        .route("/livez", get(|| async { text(StatusCode::OK, "ok\n") }))
        .route("/readyz", get(move |RawQuery(query)| readyz(Arc::clone(&ready), query)))
        .route("/metrics", get(move || render_metrics(Arc::clone(&metrics))))
        .route("/probe/{upstream}/live", get(move |Path(name)| probe(Arc::clone(&prober), name, Kind::Live)))
        .route("/probe/{upstream}/ready", get(move |Path(name)| probe(Arc::clone(&other), name, Kind::Ready)))
        .fallback(|| async {
            text(
                StatusCode::NOT_FOUND,
                "not found: there are /livez, /readyz, /metrics and /probe/<upstream>/{live,ready}\n",
            )
        })
        .layer(middleware::from_fn(gate_path))
}

/// What `/readyz` asks. Not the upstreams' health: that would take a whole fleet out for one of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    has_policy: bool,
    is_bound: bool,
    is_draining: bool,
}

impl Readiness {
    pub(crate) fn of(given: &AdminState) -> Self {
        Self {
            has_policy: given.authority.snapshot().is_some(),
            is_bound: (given.hooks.is_bound)(),
            is_draining: (given.hooks.is_draining)(),
        }
    }

    pub(crate) fn is_ready(self) -> bool {
        self.checks().iter().all(|(_, holds)| *holds)
    }

    fn checks(self) -> [(&'static str, bool); 3] {
        [("policy loaded", self.has_policy), ("listeners bound", self.is_bound), ("not draining", !self.is_draining)]
    }
}

async fn readyz(shared: Arc<Shared>, query: Option<String>) -> Response {
    let readiness = Readiness::of(&shared.given);
    let (status, word) =
        if readiness.is_ready() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    let is_verbose = query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")));
    let mut body = String::new();
    for (name, holds) in readiness.checks().iter().filter(|_| is_verbose) {
        // Writing to a string can't fail.
        let _ = writeln!(body, "[{}] {name}", if *holds { '+' } else { '-' });
    }
    text(status, body + word + "\n")
}

async fn render_metrics(shared: Arc<Shared>) -> Response {
    let telemetry = shared.given.telemetry.clone();
    let rendered = shared.lanes.run(Lane::Metrics, move || telemetry.render_metrics()).await;
    rendered.map_or_else(Problem::into_response, |metrics| {
        let mut response = Response::new(Body::from(metrics));
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    })
}

async fn probe(prober: Arc<Prober>, upstream: String, kind: Kind) -> Response {
    match prober.ask(&upstream, kind).await {
        None => text(StatusCode::NOT_FOUND, "not found: no upstream of this name has such a probe\n"),
        Some(Ok(())) => text(StatusCode::OK, "ok\n"),
        Some(Err(failure)) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")),
    }
}

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
