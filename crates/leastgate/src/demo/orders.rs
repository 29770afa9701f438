//! A small orders API to stand in front of: a real HTTP server on loopback, in a thread of its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::feed;

/// Largest order that is accepted, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// Most orders kept; more are refused.
const MAX_ORDERS: usize = 1000;

/// The running API; it ends with the process.
pub(crate) struct OrdersApi {
    pub(crate) address: SocketAddr,
}

type Orders = Arc<Mutex<BTreeMap<String, Value>>>;

impl OrdersApi {
    /// Starts it on a free port of loopback.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("the demo's API finds no free port")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("orders-api".into()).spawn(move || runtime.block_on(serve(listener)))?;
        Ok(Self { address })
    }
}

async fn serve(listener: std::net::TcpListener) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let orders: Orders = Arc::new(Mutex::new(seed()));
    let _ = tokio::task::LocalSet::new()
        .run_until(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::task::spawn_local(connection(stream, Arc::clone(&orders)))),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await;
}

async fn connection(stream: TcpStream, orders: Orders) {
    let service = service_fn(move |request| {
        let orders = Arc::clone(&orders);
        async move { Ok::<_, Infallible>(answer(request, &orders).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(60));
    let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

fn seed() -> BTreeMap<String, Value> {
    [("7b0e", "keyboard", 4900), ("81c2", "monitor", 21_900), ("9f3d", "desk lamp", 2500)]
        .into_iter()
        .map(|(id, item, cents)| (id.to_owned(), json!({ "id": id, "item": item, "cents": cents, "refunds": [] })))
        .collect()
}

async fn answer(request: Request<Incoming>, orders: &Orders) -> Response<Full<Bytes>> {
    if request.uri().path() == "/v1/feed" {
        return feed::open(request);
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return reply(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": "too large" }));
    };
    let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or(Value::Null);
    let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    let path: Vec<&str> = parts.uri.path().split('/').skip(1).collect();
    let (status, value) = match (&parts.method, path.as_slice()) {
        (_, ["healthz"]) => (StatusCode::OK, json!({ "status": "ok" })),
        (&Method::GET | &Method::HEAD, ["v1", "orders"]) => (StatusCode::OK, orders.values().cloned().collect()),
        (&Method::POST, ["v1", "orders"]) => create(&mut orders, &body),
        (method, ["v1", "orders", id, rest @ ..]) => one(&mut orders, method, id, rest, &body),
        _ => not_found(),
    };
    reply(status, &value)
}

fn one(
    orders: &mut BTreeMap<String, Value>,
    method: &Method,
    id: &str,
    rest: &[&str],
    body: &Value,
) -> (StatusCode, Value) {
    let Some(order) = orders.get_mut(id) else { return not_found() };
    match (method, rest) {
        (&Method::GET | &Method::HEAD, []) => (StatusCode::OK, order.clone()),
        (&Method::PATCH, []) => {
            if let Some(item) = body.get("item") {
                order["item"] = item.clone();
            }
            (StatusCode::OK, order.clone())
        }
        (&Method::GET | &Method::HEAD, ["refunds"]) => (StatusCode::OK, order["refunds"].clone()),
        (&Method::POST, ["refunds"]) => {
            let cents = order["cents"].clone();
            order["refunds"] = json!([{ "cents": cents }]);
            (StatusCode::CREATED, order.clone())
        }
        _ => not_found(),
    }
}

fn create(orders: &mut BTreeMap<String, Value>, body: &Value) -> (StatusCode, Value) {
    if orders.len() >= MAX_ORDERS {
        return (StatusCode::INSUFFICIENT_STORAGE, json!({ "error": "the demo keeps no more orders" }));
    }
    let id = format!("{:04x}", 0xa000 + orders.len());
    let order = json!({ "id": id, "item": body.get("item").cloned().unwrap_or(json!("something")), "cents": 1000, "refunds": [] });
    orders.insert(id, order.clone());
    (StatusCode::CREATED, order)
}

fn not_found() -> (StatusCode, Value) {
    (StatusCode::NOT_FOUND, json!({ "error": "no such order" }))
}

fn reply(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
