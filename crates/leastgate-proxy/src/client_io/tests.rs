//! A client at the other end of a pipe, and the deadlines it meets.

use std::convert::Infallible;

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::client_socket::SocketWatch;
use crate::client_stall::StallGuard;
use crate::connection::PhaseLimits;

type Guarded = StallGuard<DuplexStream>;

fn io(limits: PhaseLimits) -> (ClientIo<Guarded>, DuplexStream, Rc<ConnectionState>) {
    let (ours, theirs) = tokio::io::duplex(64);
    let state = Rc::new(ConnectionState::new(limits, SocketWatch::default(), None));
    let guarded = StallGuard::new(ours, Rc::clone(&state), Duration::from_secs(30));
    (ClientIo::new(guarded, Rc::clone(&state)), theirs, state)
}

fn limits() -> PhaseLimits {
    PhaseLimits {
        first_byte: Duration::from_secs(5),
        head: Duration::from_secs(10),
        idle: Duration::from_secs(60),
        http2_idle: Duration::from_secs(120),
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_let_go_after_the_first_byte_deadline() {
    let (mut io, _client, state) = io(limits());
    let started = Instant::now();
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(state.expired(), Some(Phase::FirstByte));
}

async fn protocol(io: &mut ClientIo<Guarded>) -> Protocol {
    std::future::poll_fn(|cx| io.poll_protocol(cx)).await
}

#[tokio::test(start_paused = true)]
async fn the_first_bytes_tell_the_protocols_apart_and_are_read_again() {
    for (begins, expected) in [
        (&b"GET / HTTP/1.1\r\n"[..], Protocol::Http1),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Protocol::Http2),
        (b"PRI * HTTP/1.1\r\n", Protocol::Http1),
        (b"PRO", Protocol::Http1),
    ] {
        let (mut io, mut client, _state) = io(limits());
        for byte in begins {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(protocol(&mut io).await, expected);
        drop(client);
        let mut all = Vec::new();
        io.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, begins);
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_preface_has_the_deadline_of_a_head() {
    let (mut io, mut client, state) = io(limits());
    client.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let started = Instant::now();
    assert_eq!(protocol(&mut io).await, Protocol::Http1);
    assert_eq!((started.elapsed().as_secs(), state.expired()), (10, Some(Phase::Head)));
    let mut rest = Vec::new();
    assert_eq!(io.read_to_end(&mut rest).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    assert_eq!(rest, b"PRI * HTTP/2.0\r\n");
}

#[tokio::test(start_paused = true)]
async fn an_idle_http2_connection_is_told_to_go_before_it_ends() {
    let (mut io, mut client, state) = io(limits());
    client.write_all(PREFACE).await.unwrap();
    assert_eq!(protocol(&mut io).await, Protocol::Http2);
    state.speaks_http2();
    assert_eq!(io.read(&mut [0; 64]).await.unwrap(), PREFACE.len());
    let started = Instant::now();
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(started.elapsed().as_secs(), 125);
    assert!(state.is_worn_out(9, Duration::from_secs(9_000)), "draining since five seconds");
}

#[tokio::test(start_paused = true)]
async fn one_byte_starts_the_head_deadline_and_a_second_does_not_renew_it() {
    let (mut io, mut client, state) = io(limits());
    client.write_all(b"P").await.unwrap();
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 1);
    let started = Instant::now();
    let late = async {
        tokio::time::sleep(Duration::from_secs(9)).await;
        client.write_all(b"O").await.unwrap();
    };
    let reader = async {
        assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 1);
        io.read(&mut [0; 8]).await.unwrap_err().kind()
    };
    let ((), kind) = tokio::join!(late, reader);
    assert_eq!(kind, io::ErrorKind::TimedOut);
    assert_eq!(started.elapsed().as_secs(), 10);
    assert_eq!(state.expired(), Some(Phase::Head));
}

#[tokio::test(start_paused = true)]
async fn an_exchange_has_no_read_deadline_and_an_idle_connection_has() {
    let (mut io, mut client, state) = io(limits());
    client.write_all(b"GET").await.unwrap();
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 3);
    state.exchange_begins();
    let waited = tokio::time::timeout(Duration::from_secs(600), io.read(&mut [0; 8])).await;
    assert!(waited.is_err(), "no deadline of ours ends an exchange");
    state.exchange_ends();
    let started = Instant::now();
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(started.elapsed().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_still_going_out_is_whole_however_short_the_idle_deadline() {
    let (io, mut client, state) = io(PhaseLimits { idle: Duration::from_secs(10), ..limits() });
    let service = service_fn(|_| {
        state.exchange_begins();
        let exchange = Exchange(Rc::clone(&state));
        let body = Full::new(Bytes::from(vec![b'x'; 1000])).map_frame(move |frame| {
            let _held = &exchange;
            frame
        });
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    });
    let server = http1::Builder::new().serve_connection(TokioIo::new(io), service);
    let reader = async {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut response = vec![0; 300];
        for part in response.chunks_mut(100) {
            tokio::time::sleep(Duration::from_secs(20)).await;
            client.read_exact(part).await.unwrap();
        }
        let started = Instant::now();
        client.read_to_end(&mut response).await.unwrap();
        (response, started.elapsed())
    };
    let (_, (response, idle)) = tokio::join!(server, reader);
    assert!(response.ends_with(b"x\r\n0\r\n\r\n"), "{} bytes came", response.len());
    assert_eq!(idle.as_secs(), 10, "idle from the last byte on");
}

/// As the gateway's: it ends when hyper lets go of the body.
struct Exchange(Rc<ConnectionState>);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.exchange_ends();
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut() {
    let (mut io, _client, _state) = io(limits());
    let started = Instant::now();
    let error = io.write_all(&[0; 1024]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert_eq!(started.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_a_client_that_is_still_sending_but_not_for_long() {
    let (mut io, mut client, _state) = io(limits());
    client.write_all(b"rest of a body").await.unwrap();
    let started = Instant::now();
    io.shutdown().await.unwrap();
    assert_eq!(started.elapsed(), LINGER);

    let (mut io, _client, _state) = self::io(limits());
    let started = Instant::now();
    io.shutdown().await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 0, "nothing is unread");
}
