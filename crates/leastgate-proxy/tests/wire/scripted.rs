//! An upstream that keeps every byte it receives and answers from a script.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

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
        Self::serve(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    fn serve(listener: TcpListener, script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
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

/// An upstream that is not there yet, at an address that nobody else can have.
pub(crate) struct Absent(Socket);

impl Absent {
    pub(crate) fn reserve() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    pub(crate) fn start(self, script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Upstream {
        self.0.listen(128).unwrap();
        Upstream::serve(self.0.into(), script)
    }
}

/// An address that answers nothing: its queue of connections is full, and the kernel lets whoever else comes wait.
pub(crate) struct BlackHole {
    pub(crate) address: SocketAddr,
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl BlackHole {
    pub(crate) fn open() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queue = Vec::new();
        let mut refused = 0;
        while refused < 2 {
            match TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
                Ok(waiting) => queue.push(waiting),
                Err(_) => refused += 1,
            }
            assert!(queue.len() < 100, "the queue has no end");
        }
        Self { address, _listener: listener, _queue: queue }
    }
}

impl Connection {
    /// What it has received so far.
    pub(crate) fn received(&self) -> String {
        self.received.lock().unwrap()[self.index].clone()
    }

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

    /// Reads what comes next; `None`: nothing more does.
    pub(crate) fn read_some(&mut self) -> Option<Vec<u8>> {
        let mut chunk = vec![0; 4096];
        let read = self.stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        chunk.truncate(read);
        self.received.lock().unwrap()[self.index].push_str(&String::from_utf8_lossy(&chunk));
        Some(chunk)
    }

    /// Reads so many bytes, without keeping them.
    pub(crate) fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let _ = self.stream.read_exact(&mut bytes);
        bytes
    }

    /// Whether there is something to read now.
    pub(crate) fn has_more(&mut self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let is_there = self.stream.peek(&mut [0]).is_ok_and(|read| read > 0);
        self.stream.set_nonblocking(false).unwrap();
        is_there
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

    /// What this connection has received so far.
    pub(crate) fn text(&self) -> String {
        self.received.lock().unwrap()[self.index].clone()
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.write_bytes(text.as_bytes());
    }

    pub(crate) fn write_bytes(&mut self, bytes: &[u8]) {
        self.try_write(bytes);
    }

    /// The same; `false`: the gateway has closed.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
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
