//! An upstream that keeps every byte it receives and answers from a script.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::harness::PATIENCE;

/// The upstream; its scripts run on threads of their own, one a connection.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    received: Arc<Mutex<Vec<String>>>,
}

/// One connection to it, as its script sees it.
pub(crate) struct Connection {
    stream: TcpStream,
    index: usize,
    received: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    pub(crate) fn start(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let script = Arc::new(script);
        let shared = Arc::clone(&received);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                stream.set_nodelay(true).unwrap();
                let mut all = shared.lock().unwrap();
                all.push(String::new());
                let mut connection = Connection { stream, index: all.len() - 1, received: Arc::clone(&shared) };
                let script = Arc::clone(&script);
                thread::spawn(move || script(&mut connection));
            }
        });
        Self { address, received }
    }

    /// Where nobody listens.
    pub(crate) fn absent() -> Self {
        Self::at(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
    }

    /// An address that someone else looks after.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, received: Arc::default() }
    }

    /// What each connection has received so far.
    pub(crate) fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }

    pub(crate) fn all(&self) -> String {
        self.received().concat()
    }

    /// Waits until it has received something.
    pub(crate) fn wait_for(&self, text: &str) {
        let started = Instant::now();
        while !self.all().contains(text) {
            assert!(started.elapsed() < PATIENCE, "the upstream never received {text:?}: {:?}", self.received());
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Connection {
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Reads until `end` stands at the end of what this connection has received; `false`: the gateway closed it.
    pub(crate) fn read_until(&mut self, end: &str) -> bool {
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) | Err(_) => return false,
                Ok(read) => {
                    let mut received = self.received.lock().unwrap();
                    received[self.index].push_str(&String::from_utf8_lossy(&chunk[..read]));
                    if received[self.index].ends_with(end) {
                        return true;
                    }
                }
            }
        }
    }

    /// Reads a head, and not a byte of what follows it.
    pub(crate) fn read_head(&mut self) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && self.stream.read_exact(&mut byte).is_ok() {
            head.push(byte[0]);
        }
        self.received.lock().unwrap()[self.index].push_str(&String::from_utf8_lossy(&head));
    }

    /// From now on the end of this connection is a reset.
    pub(crate) fn end_with_reset(&self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    pub(crate) fn write(&mut self, text: &str) {
        let _ = self.stream.write_all(text.as_bytes());
    }

    /// Closes, and leaves a mark once the end of the stream is on its way.
    pub(crate) fn close(&mut self, mark: &str) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.received.lock().unwrap()[self.index].push_str(mark);
    }

    /// Answers every bodiless request the same.
    pub(crate) fn answer_all(&mut self, answer: &str) {
        while self.read_until("\r\n\r\n") {
            self.write(answer);
        }
    }

    pub(crate) fn wait_until_closed(&mut self) {
        while self.read_until("\u{0}never") {}
    }
}
