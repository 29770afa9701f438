//! slowhttptest: hundreds of connections that dawdle, while others are to be served as if nothing were.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use leastgate_testkit::gateway::{TestGateway, request};
use leastgate_testkit::paths::program;
use leastgate_testkit::process::Process;
use leastgate_testkit::raw::RawClient;
use leastgate_testkit::recorder::{Answer, RecorderUpstream, Step};

use crate::bed::{Tokens, policy};
use crate::listener::package_version;
use crate::report::{Report, Subject};

const CONNECTIONS: &str = "500";
const SECONDS: &str = "25";

/// The four attacks, with their own arguments and the resource they are for.
const ATTACKS: &[(&str, &[&str], &str)] = &[
    ("slow heads", &["-H", "-i", "5", "-x", "24", "-t", "GET"], "/public/hello"),
    ("slow bodies", &["-B", "-i", "5", "-s", "8192", "-x", "10", "-t", "POST"], "/public/hello"),
    ("slow readers", &["-X", "-w", "512", "-y", "1024", "-n", "5", "-z", "32", "-k", "3"], "/public/large"),
    ("many ranges", &["-R", "-a", "10", "-b", "3000", "-t", "HEAD"], "/public/large"),
];

pub(crate) fn run(report: &mut Report) {
    if !report.wants("slowhttptest") {
        return;
    }
    let subject =
        Subject { kind: "listener", peer: "slowhttptest".to_owned(), version: package_version("slowhttptest") };
    let (upstream, tokens) = (RecorderUpstream::start(), Tokens::new());
    upstream.on("/public/large", Answer::steps([Step::Pattern(4 << 20)]));
    let Some(gateway) = report.prepare(&subject, "starts", || start(&upstream, &tokens)) else { return };
    for (scenario, arguments, path) in ATTACKS {
        report.cell(&subject, scenario, || {
            let (served, attack) = while_serving(&gateway, &tokens, || attack(&gateway, arguments, path));
            assert!(attack.contains("service available: YES"), "{attack}");
            assert!(!attack.contains("service available: NO"), "{attack}");
            format!("service available throughout; {served}")
        });
    }
}

/// A gateway that lets one address have as many connections as it likes, up to the upstream, with public resources to dawdle over: the tester knows no tokens.
fn start(upstream: &RecorderUpstream, tokens: &Tokens) -> TestGateway {
    let policy = policy().replacen("hosts: [orders.test]", "hosts: [orders.test, 127.0.0.1]", 1);
    let policy = policy.replacen("\"GET /public/{name}\"", "\"GET /public/{name}\", \"POST /public/{name}\"", 1);
    let setup = tokens.setup_with(&policy).upstream_with("orders", &upstream.url(), ", max_connections: 2000");
    setup.limit("connections_per_source: 2000").start()
}

fn attack(gateway: &TestGateway, arguments: &[&str], path: &str) -> String {
    let mut command = Command::new(program("slowhttptest"));
    command.args(["-c", CONNECTIONS, "-r", "200", "-p", "3", "-l", SECONDS]).args(arguments);
    command.arg("-u").arg(format!("http://{}{path}", gateway.data())).current_dir(gateway.path());
    let ended = Process::run("slowhttptest", &mut command, Duration::from_secs(60));
    plain(&ended.stdout)
}

/// Without the codes for colours, and with single spaces.
fn plain(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or(part, |(_, rest)| rest));
    }
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Requests of somebody else, one after another, as long as `run` takes. Says how they went.
fn while_serving<T>(gateway: &TestGateway, tokens: &Tokens, run: impl FnOnce() -> T) -> (String, T) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let (mut count, mut slowest) = (0_u32, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                let mut client = RawClient::connect_from(gateway.data(), Ipv4Addr::new(127, 0, 0, 2));
                client.send(request("GET", "/v1/orders", Some(tokens.reader())));
                let reply = client.read().unwrap_or_else(|error| panic!("request {count} of others: {error:?}"));
                assert_eq!(reply.status, 200, "request {count} of others");
                (count, slowest) = (count + 1, slowest.max(start.elapsed()));
            }
            format!("{count} requests of others served, the slowest in {} ms", slowest.as_millis())
        });
        let done = run();
        over.store(true, Ordering::Relaxed);
        (serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), done)
    })
}
