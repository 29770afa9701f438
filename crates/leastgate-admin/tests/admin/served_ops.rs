//! The ops listener: health, metrics, probes, and what it withstands.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use leastgate_admin::ProbeTarget;

use crate::fixture::{Setup, raw, start};

/// An upstream that answers every request with `answer` and hands over what it was sent.
fn upstream(answer: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
            }
            let _ = stream.write_all(answer.as_bytes());
            let _ = tell.send(String::from_utf8_lossy(&head).into_owned());
        }
    });
    (address, told)
}

fn target(name: &str, address: SocketAddr) -> ProbeTarget {
    ProbeTarget { name: name.into(), address: address.to_string(), live: Some("/healthz".into()), ready: None }
}

#[test]
fn health_follows_the_policy_and_the_drain() {
    let plane = start();
    assert_eq!((plane.ops("/livez").status, plane.ops("/readyz").status), (200, 200));
    let verbose = plane.ops("/readyz?verbose");
    assert_eq!(verbose.body, "[+] policy loaded\n[+] listeners bound\n[+] not draining\nok\n");
    plane.is_draining.store(true, Ordering::Relaxed);
    let verbose = plane.ops("/readyz?verbose");
    assert_eq!(
        (verbose.status, verbose.body.as_str()),
        (503, "[+] policy loaded\n[+] listeners bound\n[-] not draining\nnot ready\n")
    );
    assert_eq!((plane.ops("/readyz").status, plane.ops("/livez").status), (503, 200));
    let bare = Setup { policy: None, ..Setup::default() }.start();
    assert_eq!((bare.ops("/readyz").status, bare.ops("/livez").status), (503, 200));
}

#[test]
fn metrics_are_in_the_text_format() {
    let plane = start();
    let metrics = plane.ops("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.body.contains("# TYPE leastgate_decisions_total counter"));
}

#[test]
fn a_probe_asks_one_fixed_path_and_tells_only_whether_it_was_well() {
    let (well, told) = upstream("HTTP/1.1 200 OK\r\nX-Secret: 1\r\nContent-Length: 6\r\n\r\nsecret");
    let (moved, _) = upstream("HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n");
    let (odd, _) = upstream("what?\r\n\r\n");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let probes = vec![
        target("well", well),
        target("moved", moved),
        target("odd", odd),
        target("silent", silent.local_addr().unwrap()),
        target("gone", free),
    ];
    let plane = Setup { probes, ..Setup::default() }.start();
    let head = "GET /probe/well/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer mine\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi";
    let answer = raw(plane.ops, head);
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    assert!(!answer.head.to_lowercase().contains("x-secret"));
    let sent = told.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(
        sent.starts_with("GET /healthz HTTP/1.1\r\n") && !sent.contains("mine") && !sent.contains("ontent-"),
        "{sent}"
    );
    for (name, said) in [("moved", "302"), ("odd", "HTTP"), ("silent", "in time"), ("gone", "reached")] {
        let answer = plane.ops(&format!("/probe/{name}/live"));
        assert_eq!(answer.status, 503, "{name}");
        assert!(answer.body.contains(said), "{name}: {answer:?}");
    }
    for path in ["/probe/well/ready", "/probe/nobody/live", "/probe/well", "/probe/well/live/x", "/v1/status", "/"] {
        assert_eq!(plane.ops(path).status, 404, "{path}");
    }
    for path in ["/probe/w%65ll/live", "/probe//live", "/probe/well/../livez", "/metrics/"] {
        assert_eq!(plane.ops(path).status, 400, "{path}");
    }
    assert_eq!(raw(plane.ops, "POST /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").status, 405);
}

#[test]
fn a_source_does_not_take_all_connections_and_oversize_heads_are_refused() {
    let plane = start();
    let held: Vec<TcpStream> = (0..64).map(|_| TcpStream::connect(plane.ops).unwrap()).collect();
    let until = Instant::now() + Duration::from_secs(20);
    // The 65th of one address is closed without an answer; the accept loop may still be taking the others.
    while plane.ops("/livez").status != 0 {
        assert!(Instant::now() < until, "the cap holds");
    }
    drop(held);
    while plane.ops("/livez").status != 200 {
        assert!(Instant::now() < until, "places come back");
    }
    let long = format!("GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(40_000));
    assert_eq!(raw(plane.ops, &long).status, 431);
}
