//! Connections of this plane: bound, counted, served by hyper with deadlines.

mod accept;
mod connection;
mod places;
mod unix;

use std::net::SocketAddr;

pub(crate) use self::accept::{Stop, accept_tcp, accept_unix};
pub(crate) use self::unix::{SocketFile, bind_unix};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    /// A TCP peer, and the address it came to.
    Tcp { source: SocketAddr, local: SocketAddr },
    /// A user of this machine (`SO_PEERCRED`).
    Unix { uid: u32 },
}
