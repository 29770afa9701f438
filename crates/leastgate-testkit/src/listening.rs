//! A server's connections: each on a thread of its own, counted, and ended with the server.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A server that listens; it ends with the value.
#[derive(Debug)]
pub(crate) struct Listening {
    address: SocketAddr,
    connections: Arc<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    /// What the end of the server ends.
    streams: Mutex<HashMap<usize, TcpStream>>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    is_stopped: AtomicBool,
}

impl Listening {
    /// Listens at the address; each connection is served with its number, counted from 0.
    pub(crate) fn start_at(address: SocketAddr, serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("the address is free");
        let address = listener.local_addr().expect("a bound socket has an address");
        let connections = Arc::new(Connections::default());
        let accepting = Arc::clone(&connections);
        thread::spawn(move || accepting.accept(&listener, &Arc::new(serve)));
        Self { address, connections }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.connections.open.load(Ordering::SeqCst)
    }

    /// How many connections were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.connections.accepted.load(Ordering::SeqCst)
    }
}

impl Connections {
    fn accept(self: Arc<Self>, listener: &TcpListener, serve: &Arc<impl Fn(TcpStream, usize) + Send + Sync + 'static>) {
        while let Ok((stream, _)) = listener.accept() {
            if self.is_stopped.load(Ordering::SeqCst) {
                return;
            }
            let number = self.accepted.fetch_add(1, Ordering::SeqCst);
            let handle = stream.try_clone().expect("a socket can be duplicated");
            self.streams.lock().expect("no holder panics").insert(number, handle);
            let (connections, serve) = (Arc::clone(&self), Arc::clone(serve));
            thread::spawn(move || {
                connections.open.fetch_add(1, Ordering::SeqCst);
                serve(stream, number);
                connections.streams.lock().expect("no holder panics").remove(&number);
                connections.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.connections.is_stopped.store(true, Ordering::SeqCst);
        for (_, stream) in self.connections.streams.lock().expect("no holder panics").drain() {
            // Already closed by its own thread: nothing to end.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the accepting thread, which then drops the listener.
        let _ = TcpStream::connect(self.address);
    }
}
