//! The accept loops.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use super::connection::serve;
use super::places::Places;
use super::tls::{AdminTls, Ends, serve_tls};
use super::{Peer, network_of};

/// Becomes true when the plane is to end.
pub(crate) type Stop = watch::Receiver<bool>;

/// After a failed accept (no descriptor left, most often) a loop without a pause would only burn.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes TCP connections until it is stopped, with TLS or without; returns when the last one has ended.
pub(crate) async fn accept_tcp(listener: TcpListener, tls: Option<Arc<dyn AdminTls>>, router: Router, mut stop: Stop) {
    let places = Places::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok((stream, source)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        // A connection above the caps is closed unanswered: an answer would cost more than the attack.
        let (Some(place), Ok(local)) = (places.take(network_of(source.ip())), stream.local_addr()) else { continue };
        // Without it small answers may wait; with it there is nothing to lose.
        let _ = stream.set_nodelay(true);
        let (router, stop) = (router.clone(), stop.clone());
        match &tls {
            Some(tls) => {
                tokio::spawn(serve_tls(Arc::clone(tls), stream, Ends { source, local }, router, stop, place));
            }
            None => {
                tokio::spawn(serve(stream, Peer::Tcp { source, local, tls: None }, router, stop, place));
            }
        }
    }
    places.wait_empty().await;
}

/// The same for a unix socket.
pub(crate) async fn accept_unix(listener: UnixListener, router: Router, mut stop: Stop) {
    let places = Places::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (Some(place), Ok(credentials)) = (places.take(IpAddr::V4(Ipv4Addr::LOCALHOST)), stream.peer_cred()) else {
            continue;
        };
        let peer = Peer::Unix { uid: credentials.uid() };
        tokio::spawn(serve(stream, peer, router.clone(), stop.clone(), place));
    }
    places.wait_empty().await;
}
