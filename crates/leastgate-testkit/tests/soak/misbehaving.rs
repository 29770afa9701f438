//! Clients that are slow, silent, broken, or gone in the middle: the gateway may cut them, and may not keep anything of them.

use std::io;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::client::{Ask, HOST_PLAIN, Io, Protocol};
use crate::ledger::bytes_of;
use crate::load::{Crowd, Visitor};
use crate::sockets::{head, read_head, read_more};

/// What a gateway may take to cut what it must cut: past each of its deadlines here.
const CUT: Duration = Duration::from_secs(20);

pub(crate) fn add_to(crowd: &mut Crowd) {
    crowd.add(|visitor| repeats(visitor, 400, Kind::SlowHead));
    crowd.add(|visitor| repeats(visitor, 400, Kind::SlowReader));
    crowd.add(|visitor| repeats(visitor, 400, Kind::SlowUpload));
    crowd.add(|visitor| repeats(visitor, 150, Kind::HalfHead));
    crowd.add(|visitor| repeats(visitor, 200, Kind::HalfBody));
    crowd.add(|visitor| repeats(visitor, 200, Kind::Leaves));
    crowd.add(|visitor| repeats(visitor, 400, Kind::Stalls));
    crowd.add(|visitor| repeats(visitor, 200, Kind::Malformed));
    crowd.add(|visitor| repeats(visitor, 500, Kind::Silent));
    crowd.add(|visitor| repeats(visitor, 300, Kind::NoHandshake));
    crowd.add(resets);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Its head comes in small pieces, and is right.
    SlowHead,
    /// Takes its answer in small pieces.
    SlowReader,
    /// Sends a body in small pieces.
    SlowUpload,
    /// Goes away in the middle of its head.
    HalfHead,
    /// Goes away in the middle of its body, with a reset.
    HalfBody,
    /// Goes away in the middle of its answer.
    Leaves,
    /// Takes nothing of a long answer.
    Stalls,
    /// Sends what is no request.
    Malformed,
    /// Sends nothing.
    Silent,
    /// Connects, sends what is neither HTTP nor TLS, and goes.
    NoHandshake,
}

async fn repeats(mut visitor: Visitor, pause: u64, kind: Kind) {
    while visitor.goes_on(pause).await {
        let target = visitor.target.clone();
        let started = Instant::now();
        match visit(&mut visitor, kind).await {
            Ok(()) => {}
            Err(_) if target.outages.cover(started, Instant::now()) => target.ledger.excused(),
            Err(error) => {
                target.ledger.find(format!("{} {kind:?} after {:?}: {error}", target.name, started.elapsed()));
            }
        }
    }
}

async fn visit(visitor: &mut Visitor, kind: Kind) -> io::Result<()> {
    let target = visitor.target.clone();
    if kind == Kind::NoHandshake {
        let mut socket = TcpStream::connect(target.address).await?;
        target.ledger.open_unnamed();
        // The gateway may be quicker to close.
        let _ = socket.write_all(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03garbage\r\n\r\n").await;
        return Ok(());
    }
    let mut io = timeout(CUT, target.connect(Protocol::One, HOST_PLAIN)).await??;
    match kind {
        Kind::SlowHead | Kind::SlowReader | Kind::SlowUpload => slow(visitor, &mut *io, kind).await,
        Kind::HalfHead => {
            target.ledger.open_unnamed();
            let text = head(&target, None, "GET /v1/echo");
            let length = usize::try_from(visitor.rng.below(text.len() as u64)).unwrap_or_default();
            io.write_all(&text.as_bytes()[..length]).await?;
            sleep(visitor.rng.around(Duration::from_millis(100))).await;
            Ok(())
        }
        Kind::HalfBody => {
            let number = target.ledger.open();
            let text = head(&target, Some(number), "POST /v1/upload") + "Content-Length: 100000\r\n\r\n";
            io.write_all(text.as_bytes()).await?;
            io.write_all(&bytes_of(number, 30_000)).await?;
            sleep(visitor.rng.around(Duration::from_millis(50))).await;
            Ok(())
        }
        Kind::Leaves | Kind::Stalls => leave(visitor, &mut *io, kind).await,
        Kind::Malformed => malformed(visitor, &mut *io).await,
        Kind::Silent | Kind::NoHandshake => {
            target.ledger.open_unnamed();
            let mut nothing = Vec::new();
            match timeout(CUT, read_more(&mut *io, &mut nothing)).await {
                Ok(Ok(0)) => Ok(()),
                Ok(Err(error)) if error.kind() != io::ErrorKind::TimedOut => Ok(()),
                // What a silent client is told is no part of this.
                Ok(Ok(_)) => Ok(()),
                _ => Err(io::Error::other("a silent connection is still open")),
            }
        }
    }
}

/// Right in the end, and slow on the way.
async fn slow(visitor: &mut Visitor, io: &mut dyn Io, kind: Kind) -> io::Result<()> {
    let target = visitor.target.clone();
    let number = target.ledger.open();
    let body = bytes_of(number, 40_000);
    let (request, fields, wanted) = match kind {
        Kind::SlowHead => ("GET /v1/echo?size=3000", String::new(), bytes_of(number, 3000)),
        Kind::SlowReader => ("GET /v1/echo?size=900000", String::new(), bytes_of(number, 900_000)),
        _ => {
            let hash = blake3::hash(&body).to_hex().as_bytes().to_vec();
            ("POST /v1/upload", format!("Content-Length: {}\r\n", body.len()), hash)
        }
    };
    let text = head(&target, Some(number), request) + &fields + "Connection: close\r\n\r\n";
    if kind == Kind::SlowHead {
        drip(io, text.as_bytes(), 12).await?;
    } else {
        io.write_all(text.as_bytes()).await?;
    }
    if kind == Kind::SlowUpload {
        drip(io, &body, 1500).await?;
    }
    let (status, mut got) = read_head(io).await?;
    target.ledger.answered(number, status);
    let mut taken = 0;
    while read_more(io, &mut got).await? > 0 {
        if kind == Kind::SlowReader && got.len() - taken > 20_000 {
            taken = got.len();
            sleep(Duration::from_millis(30)).await;
        }
    }
    if status != 200 || got != wanted {
        let (length, all) = (got.len(), wanted.len());
        return Err(io::Error::other(format!("request {number}: status {status}, {length} of {all} bytes")));
    }
    target.ledger.right();
    Ok(())
}

async fn drip(io: &mut dyn Io, bytes: &[u8], each: usize) -> io::Result<()> {
    for part in bytes.chunks(each) {
        io.write_all(part).await?;
        io.flush().await?;
        sleep(Duration::from_millis(25)).await;
    }
    Ok(())
}

/// Asks for much, and takes little or nothing of it.
async fn leave(visitor: &mut Visitor, io: &mut dyn Io, kind: Kind) -> io::Result<()> {
    let target = visitor.target.clone();
    let number = target.ledger.open();
    let request = match visitor.rng.one_of(&[0, 1]) {
        0 if kind == Kind::Leaves => "GET /v1/events?count=500&pause=20",
        _ => "GET /v1/echo?size=8000000",
    };
    io.write_all((head(&target, Some(number), request) + "\r\n").as_bytes()).await?;
    let (status, _) = read_head(io).await?;
    target.ledger.answered(number, status);
    if kind == Kind::Leaves || status != 200 {
        sleep(visitor.rng.around(Duration::from_millis(100))).await;
        return Ok(());
    }
    // Past the deadline for a client that takes nothing; then what the sockets held, and no more.
    sleep(Duration::from_secs(6)).await;
    let mut bytes = Vec::new();
    while let Ok(1..) = read_more(io, &mut bytes).await {}
    if bytes.len() > 7_900_000 {
        return Err(io::Error::other(format!("request {number} was not cut: {} bytes", bytes.len())));
    }
    Ok(())
}

/// Requests that hyper refuses, and one that the gateway does.
async fn malformed(visitor: &mut Visitor, io: &mut dyn Io) -> io::Result<()> {
    let target = visitor.target.clone();
    let is_ours = visitor.rng.one_in(2);
    let number = if is_ours { target.ledger.open() } else { 0 };
    let text = if is_ours {
        head(&target, Some(number), "GET /v1//echo") + "\r\n"
    } else {
        target.ledger.open_unnamed();
        let tail =
            visitor.rng.one_of(&["Content-Length: +5\r\n\r\n", "Transfer-Encoding: gzip\r\n\r\n", "a b: c\r\n\r\n"]);
        head(&target, None, "POST /v1/upload") + tail
    };
    io.write_all(text.as_bytes()).await?;
    let (status, _) = read_head(io).await?;
    if is_ours {
        target.ledger.answered(number, status);
    }
    if status != 400 {
        return Err(io::Error::other(format!("status {status}, not 400")));
    }
    target.ledger.refused();
    Ok(())
}

/// Streams of HTTP/2 that are reset before their answer, or in the middle of it.
async fn resets(mut visitor: Visitor) {
    let mut connection = None;
    while visitor.goes_on(250).await {
        let target = visitor.target.clone();
        if connection.as_ref().is_none_or(crate::client::Sender::is_closed) {
            connection = target.open(Protocol::Two, HOST_PLAIN).await;
        }
        let Some(sender) = &mut connection else { continue };
        let number = target.ledger.open();
        let path = "/v1/events?count=100&pause=20";
        let request = target.request(Protocol::Two, number, Ask::get(path, &target.user));
        let patience = visitor.rng.around(Duration::from_millis(20));
        let Ok(Ok(response)) = timeout(patience, sender.send(request)).await else { continue };
        target.ledger.answered(number, response.status().as_u16());
        let mut body = response.into_body();
        let _ = timeout(visitor.rng.around(Duration::from_millis(60)), body.frame()).await;
    }
}
