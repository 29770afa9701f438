//! Which upstreams there are, what each of them can't do, and every scenario with each of the others.

use leastgate_testkit::conformance::Verdict;
use leastgate_testkit::gateway::TestGateway;

use crate::bed::Tokens;
use crate::hostile;
use crate::peer::{Kind, Peer, Wire};
use crate::report::{Report, Subject};
use crate::scenarios::{self, REFUSAL, REFUSAL_SENT_ON};

struct Upstream {
    name: &'static str,
    kind: Kind,
    wire: Wire,
    /// Scenarios that it can't take part in, and why.
    cannot: &'static [(&'static str, &'static str)],
}

const NO_UPGRADE: (&str, &str) = ("WebSocket", "serves none itself");
const NO_HINTS: (&str, &str) = ("103", "sends none");
const NOT_OVER_HTTP2: (&str, &str) = ("WebSocket", "needs HTTP/1.1");

/// Its connection task ends with a `KeyError`, and whatever else is on the connection with it.
const BREAKS_OFF: &str = "breaks its connection off when a body goes on after its answer";

const UPSTREAMS: &[Upstream] = &[
    Upstream { name: "nginx", kind: Kind::Nginx, wire: Wire::Http1, cannot: &[NO_UPGRADE, NO_HINTS] },
    Upstream { name: "nginx, h2", kind: Kind::Nginx, wire: Wire::Http2Tls, cannot: &[NOT_OVER_HTTP2, NO_HINTS] },
    Upstream {
        name: "HAProxy",
        kind: Kind::Haproxy,
        wire: Wire::Http1,
        cannot: &[NO_UPGRADE, ("trailers stay behind", "its Lua answers have none")],
    },
    Upstream {
        name: "HAProxy, h2c",
        kind: Kind::Haproxy,
        wire: Wire::Http2Clear,
        cannot: &[NOT_OVER_HTTP2, ("trailers stay behind", "its Lua answers have none")],
    },
    Upstream {
        name: "Apache httpd",
        kind: Kind::Apache,
        wire: Wire::Http1,
        cannot: &[NO_UPGRADE, NO_HINTS, ("trailers stay behind", "CGI has none")],
    },
    Upstream {
        name: "Apache httpd, h2",
        kind: Kind::Apache,
        wire: Wire::Http2Tls,
        cannot: &[NOT_OVER_HTTP2, NO_HINTS, ("trailers stay behind", "CGI has none")],
    },
    Upstream { name: "Node", kind: Kind::Node, wire: Wire::Http1, cannot: &[] },
    Upstream { name: "Node, h2", kind: Kind::Node, wire: Wire::Http2Tls, cannot: &[NOT_OVER_HTTP2] },
    Upstream { name: "Python http.server", kind: Kind::HttpServer, wire: Wire::Http1, cannot: &[NO_UPGRADE] },
    Upstream {
        name: "Hypercorn",
        kind: Kind::Hypercorn,
        wire: Wire::Http1,
        cannot: &[("trailers stay behind", "sends them over HTTP/2 only"), ("103", "sends them over HTTP/2 only")],
    },
    Upstream {
        name: "Hypercorn, h2",
        kind: Kind::Hypercorn,
        wire: Wire::Http2Tls,
        cannot: &[NOT_OVER_HTTP2, (REFUSAL, BREAKS_OFF), (REFUSAL_SENT_ON, BREAKS_OFF)],
    },
    Upstream { name: "Go net/http", kind: Kind::NetHttp, wire: Wire::Http1, cannot: &[] },
    Upstream { name: "Go net/http, h2", kind: Kind::NetHttp, wire: Wire::Http2Tls, cannot: &[NOT_OVER_HTTP2] },
];

/// A gateway with one upstream behind it.
pub(crate) struct Bed {
    pub(crate) gateway: TestGateway,
    pub(crate) peer: Peer,
    pub(crate) tokens: Tokens,
    pub(crate) wire: Wire,
}

impl Bed {
    fn start(kind: Kind, wire: Wire) -> Self {
        let (peer, tokens) = (Peer::start(kind, wire), Tokens::new());
        let gateway = tokens.setup().upstream_with("orders", &peer.url(), &peer.keys()).start();
        Self { gateway, peer, tokens, wire }
    }
}

pub(crate) fn run(report: &mut Report) {
    for upstream in UPSTREAMS.iter().filter(|upstream| report.wants(upstream.name)).collect::<Vec<_>>() {
        let version = upstream.kind.version();
        let subject = Subject { kind: "upstream", peer: upstream.name.to_owned(), version };
        let Some(mut bed) = report.prepare(&subject, "starts", || Bed::start(upstream.kind, upstream.wire)) else {
            continue;
        };
        for (scenario, run) in scenarios::ALL {
            match upstream.cannot.iter().find(|(what, _)| what == scenario) {
                Some((_, why)) => report.note(&subject, scenario, Verdict::NotApplicable, why),
                None => report.cell(&subject, scenario, || run(&mut bed)),
            }
        }
        report.cell(&subject, "hostile requests", || hostile::run(&bed));
    }
}
