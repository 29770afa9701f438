//! grpcio on both sides of the gateway: its client, and its server as the upstream.

use crate::bed::Tokens;
use crate::peer::{Kind, Peer, Wire};
use crate::report::Report;
use crate::scripts::{run_script, started, subject};

pub(crate) fn run(report: &mut Report) {
    for tls in [false, true] {
        let Some(subject) = subject(report, "grpcio", "grpcio", tls) else { continue };
        let beds = report.prepare(&subject, "starts", || {
            let (peer, tokens) = (Peer::start(Kind::Grpcio, Wire::Http2Clear), Tokens::new());
            let gateway = started(tokens.setup().upstream_with("orders", &peer.url(), &peer.keys()), tls);
            (peer, tokens, gateway)
        });
        let Some((peer, tokens, gateway)) = beds else { continue };
        run_script(report, &subject, "grpc_client.py", &gateway, &tokens, tls);
        drop(peer);
    }
}
