//! WebSockets, and what else is written by hand: bytes on a connection, and the head that answers them.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::client::{HOST_PLAIN, Io, Protocol, Target};
use crate::ledger::{AGENT, bytes_of};
use crate::load::{Crowd, Visitor};

/// Longest wait for bytes.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn add_to(crowd: &mut Crowd) {
    crowd.add(talks);
    crowd.add(talks);
}

/// The head of a request that is written by hand, without the empty line.
pub(crate) fn head(target: &Target, number: Option<u64>, request: &str) -> String {
    let (place, token) = (target.place, &target.user);
    let agent = number.map_or_else(|| "unnamed".to_owned(), |number| format!("{AGENT}{number}"));
    format!(
        "{request} HTTP/1.1\r\nHost: {HOST_PLAIN}\r\nUser-Agent: {agent}\r\nX-Soak: {place}\r\n\
         Authorization: Bearer {token}\r\n"
    )
}

/// Reads a head; its status, and what came behind it.
pub(crate) async fn read_head(io: &mut dyn Io) -> io::Result<(u16, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let status = std::str::from_utf8(&bytes).ok().or_else(|| std::str::from_utf8(&bytes[..end]).ok());
            let status = status.and_then(|text| text.get(9..12)?.parse().ok());
            return Ok((status.ok_or(io::ErrorKind::InvalidData)?, bytes.split_off(end + 4)));
        }
        if read_more(io, &mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Reads what there is; 0 is the end.
pub(crate) async fn read_more(io: &mut dyn Io, into: &mut Vec<u8>) -> io::Result<usize> {
    timeout(PATIENCE, io.read_buf(into)).await?
}

/// Opens a WebSocket and sends frames through it, which come back.
async fn talks(mut visitor: Visitor) {
    while visitor.goes_on(500).await {
        let target = visitor.target.clone();
        let (number, started) = (target.ledger.open(), Instant::now());
        match talk(&mut visitor, number).await {
            Ok(()) => target.ledger.right(),
            Err(_) if target.outages.cover(started, Instant::now()) => target.ledger.excused(),
            Err(error) => {
                target.ledger.find(format!(
                    "{} WebSocket {number} after {:?}: {error}",
                    target.name,
                    started.elapsed()
                ));
            }
        }
    }
}

async fn talk(visitor: &mut Visitor, number: u64) -> io::Result<()> {
    let target = visitor.target.clone();
    let mut io = timeout(PATIENCE, target.connect(Protocol::One, HOST_PLAIN)).await??;
    let handshake = head(&target, Some(number), "GET /v1/socket")
        + "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    io.write_all(handshake.as_bytes()).await?;
    let (status, mut back) = read_head(&mut *io).await?;
    target.ledger.answered(number, status);
    if status != 101 {
        return Err(io::Error::other(format!("status {status}")));
    }
    // Some live longer than the ten seconds after which a request is on record as a stream.
    let (frames, pause) = visitor.rng.one_of(&[(1, 10), (10, 50), (30, 100), (60, 400)]);
    for place in 0..frames {
        let frame = frame(&bytes_of(number + place, 100));
        io.write_all(&frame).await?;
        while back.len() < frame.len() {
            if read_more(&mut *io, &mut back).await? == 0 {
                return Err(io::Error::other(format!("the end instead of frame {place}")));
            }
        }
        if back != frame {
            return Err(io::Error::other(format!("frame {place} came back as another")));
        }
        back.clear();
        if !visitor.goes_on(pause).await {
            break;
        }
    }
    Ok(())
}

/// A binary frame as a client masks it (RFC 6455 §5.2), with a mask that changes nothing.
fn frame(payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap_or_default();
    [&[0x82, 0x80 | length, 0, 0, 0, 0][..], payload].concat()
}
