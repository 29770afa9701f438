//! A WebSocket of the orders API: what happens to the orders, a line each half second, until somebody has heard enough.

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What every server appends to a client's key (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const EVERY: Duration = Duration::from_millis(500);
const NEWS: [&str; 3] = ["7b0e is packed", "81c2 is on its way", "9f3d was returned"];

/// Answers a handshake; the gateway lets nothing else through to this path.
pub(super) fn open(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok()) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let accept = BASE64.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.extend(HeaderValue::try_from(accept).ok().map(|accept| (header::SEC_WEBSOCKET_ACCEPT, accept)));
    tokio::task::spawn_local(tell(request));
    response
}

async fn tell(request: Request<Incoming>) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    let mut said = [0; 256];
    for news in NEWS.iter().cycle() {
        let line = format!("{{\"order\":\"{news}\"}}\n");
        // A final text frame; the line is shorter than 126 bytes, so its length is one byte.
        let mut frame = vec![0x81, u8::try_from(line.len()).unwrap_or(125)];
        frame.extend_from_slice(line.as_bytes());
        if writer.write_all(&frame).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            // Whatever a listener says, it is good-bye.
            _ = reader.read(&mut said) => return,
        }
    }
}
