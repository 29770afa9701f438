//! TLS of the admin listener: the data plane's handshake, handed to the control plane. Neither plane knows the other.

use leastgate_admin::{AdminTls, Handshake, Secured};
use leastgate_proxy::tls::ServerTls;
use leastgate_telemetry::Telemetry;
use tokio::net::TcpStream;

/// What the admin listener shakes hands with.
#[derive(Debug)]
pub(super) struct AdminHandshakes {
    pub(super) tls: ServerTls,
    pub(super) telemetry: Telemetry,
}

impl AdminTls for AdminHandshakes {
    fn accept(&self, stream: TcpStream) -> Handshake {
        let (tls, telemetry) = (self.tls.clone(), self.telemetry.clone());
        let peer = stream.peer_addr().ok();
        Box::pin(async move {
            match tls.accept(stream).await {
                Ok((stream, info)) => {
                    let peer_san = info.peer.iter().flat_map(|peer| peer.uris()).map(str::to_owned).collect();
                    Some(Secured { stream: Box::new(stream), peer_san })
                }
                Err(error) => {
                    telemetry.admin_handshake_failed(error.failure());
                    tracing::debug!(%error, ?peer, "a TLS handshake of the admin listener failed");
                    None
                }
            }
        })
    }

    fn is_for(&self, host: &str) -> bool {
        self.tls.is_for(host)
    }
}
