//! Clients written in Python with other people's libraries: each script prints a line for each of its cells.

use std::process::Command;
use std::time::Duration;

use leastgate_testkit::conformance::Verdict;
use leastgate_testkit::deadline::within;
use leastgate_testkit::gateway::TestGateway;
use leastgate_testkit::process::Process;
use leastgate_testkit::recorder::RecorderUpstream;
use rustix::process::Signal;

use crate::bed::{Tokens, over_tls};
use crate::peer::{Kind, Peer, Wire, package, python};
use crate::report::{Report, Subject};

/// Longest a script may take.
const LIMIT: Duration = Duration::from_secs(90);

/// What a script prints when it wants the gateway to drain.
const DRAIN: &str = "drain!";

pub(crate) fn run(report: &mut Report) {
    for tls in [false, true] {
        h2(report, tls);
    }
    for tls in [false, true] {
        websockets(report, tls);
    }
}

fn h2(report: &mut Report, tls: bool) {
    let Some(subject) = subject(report, "h2", "h2", tls) else { return };
    let started = report.prepare(&subject, "starts", || {
        let (upstream, tokens) = (RecorderUpstream::start(), Tokens::new());
        let gateway = started(tokens.setup().upstream("orders", &upstream.url()), tls);
        (upstream, tokens, gateway)
    });
    let Some((upstream, tokens, gateway)) = started else { return };
    run_script(report, &subject, "h2_client.py", &gateway, &tokens, tls);
    drop(upstream);
}

fn websockets(report: &mut Report, tls: bool) {
    let Some(subject) = subject(report, "websockets", "websockets", tls) else { return };
    let started = report.prepare(&subject, "starts", || {
        let (peer, tokens) = (Peer::start(Kind::Hypercorn, Wire::Http1), Tokens::new());
        let gateway = started(tokens.setup().upstream("orders", &peer.url()), tls);
        (peer, tokens, gateway)
    });
    let Some((peer, tokens, gateway)) = started else { return };
    run_script(report, &subject, "websockets_client.py", &gateway, &tokens, tls);
    drop(peer);
}

/// The subject, if it is asked for.
pub(crate) fn subject(report: &Report, name: &str, package_name: &str, tls: bool) -> Option<Subject> {
    let peer = if tls { format!("{name}, TLS") } else { name.to_owned() };
    report.wants(&peer).then(|| Subject { kind: "client", peer, version: package(package_name) })
}

pub(crate) fn started(setup: leastgate_testkit::gateway::Setup, tls: bool) -> TestGateway {
    if tls { over_tls(setup).start() } else { setup.start() }
}

/// Runs a script of `conformance/clients` and makes a cell of each line `SCENARIO<tab>pass|fail<tab>NOTE`.
pub(crate) fn run_script(
    report: &mut Report,
    subject: &Subject,
    script: &str,
    gateway: &TestGateway,
    tokens: &Tokens,
    tls: bool,
) {
    let mut process = Process::spawn(script, &mut command(script, gateway, tokens, tls));
    let mut is_draining = false;
    let ended = within(LIMIT, || {
        if !is_draining && process.stdout().contains(DRAIN) {
            is_draining = true;
            gateway.signal(Signal::TERM);
        }
        (!process.is_running()).then_some(())
    });
    let ended = ended.and_then(|()| process.wait(LIMIT));
    let printed = process.stdout();
    for line in printed.lines().filter(|line| *line != DRAIN) {
        match line.split('\t').collect::<Vec<_>>()[..] {
            [scenario, "pass", note] => report.note(subject, scenario, Verdict::Pass, note),
            [scenario, _, note] => report.note(subject, scenario, Verdict::Fail, note),
            _ => report.note(subject, "prints cells", Verdict::Fail, line),
        }
    }
    if ended.is_none_or(|ended| ended.code != Some(0)) {
        report.note(subject, "ends", Verdict::Fail, &process.stderr());
    }
}

fn command(script: &str, gateway: &TestGateway, tokens: &Tokens, tls: bool) -> Command {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/clients");
    let mut command = python();
    command.arg(folder.join(script)).arg(gateway.data().port().to_string());
    if tls {
        command.arg(gateway.path().join("ca.pem"));
    }
    // Secrets do not belong among the arguments, where every process sees them.
    command.env("WIDE", tokens.wide().secret()).env("READER", tokens.reader().secret());
    command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
