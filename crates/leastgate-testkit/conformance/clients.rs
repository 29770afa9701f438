//! curl, nghttp and h2load in front of the gateway, in the clear and over TLS; behind it the recorder, which keeps the bytes.

use std::fs;
use std::process::Command;
use std::time::Duration;

use leastgate_testkit::conformance::Verdict;
use leastgate_testkit::curl::{Fetched, curl};
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::TestGateway;
use leastgate_testkit::paths::program;
use leastgate_testkit::process::Process;
use leastgate_testkit::recorder::{Answer, Recorded, RecorderUpstream};

use crate::bed::{Tokens, over_tls};
use crate::peer::big;
use crate::report::{Report, Subject};

const H2C: &str = "--http2-prior-knowledge";

/// Two gateways in front of one recorder: one speaks in the clear, one over TLS.
pub(crate) struct Front {
    clear: TestGateway,
    tls: TestGateway,
    upstream: RecorderUpstream,
    tokens: Tokens,
}

/// Before version 8, curl fails to use such a connection again, whoever serves: its issue 10634.
const IN_TURN_H2C: &str = "three in turn, h2c";

type Scenario = fn(&Front) -> String;

const CURL: &[(&str, Scenario)] = &[
    ("h1", |front| seen_once(front, &[])),
    ("h2c, prior knowledge", |front| seen_once(front, &[H2C])),
    ("h2c, asked for by Upgrade", |front| seen_once(front, &["--http2"])),
    ("HTTP/1.0", |front| seen_once(front, &["--http1.0"])),
    ("h1 over TLS", |front| seen_once(front, &["--http1.1", "tls"])),
    ("h2 over TLS", |front| seen_once(front, &["--http2", "tls"])),
    ("TLS 1.2", |front| seen_once(front, &["--tls-max", "1.2", "tls"])),
    ("upload, h1 with Expect", |front| upload(front, &["-H", "Expect: 100-continue"])),
    ("upload, chunked", |front| upload(front, &["-H", "Transfer-Encoding: chunked"])),
    ("upload, h2", |front| upload(front, &[H2C])),
    ("upload, h2 over TLS", |front| upload(front, &["--http2", "tls"])),
    ("HEAD", |front| {
        assert_eq!(fetch(front, "/v1/orders", &["-I"]).code, 0);
        assert_eq!(fetch(front, "/v1/orders", &["-I", H2C]).code, 0);
        String::new()
    }),
    ("refused", refused),
    ("three in turn, h1", |front| in_turn(front, &["--http1.1"])),
    ("three in turn, h2 over TLS", |front| in_turn(front, &["--http2", "tls"])),
    (IN_TURN_H2C, |front| in_turn(front, &[H2C])),
];

const NGHTTP: &[(&str, Scenario)] = &[
    ("h2c", |front| streams(front, false)),
    ("h2 over TLS", |front| streams(front, true)),
    ("upload with trailers", nghttp_upload),
    ("trailers stay behind", nghttp_trailers),
];

const H2LOAD: &[(&str, Scenario)] = &[
    ("h1", |front| load(front, &["--h1", "-c", "20"], false)),
    ("h2c", |front| load(front, &["-c", "10", "-m", "32"], false)),
    ("h2 over TLS", |front| load(front, &["-c", "10", "-m", "32"], true)),
    ("h1 over TLS", |front| load(front, &["--h1", "-c", "20"], true)),
];

pub(crate) fn run(report: &mut Report) {
    let curl = version("curl", 1);
    let nghttp2 = version("nghttp", 1).replace("nghttp2/", "");
    let all = [("curl", &curl, CURL), ("nghttp", &nghttp2, NGHTTP), ("h2load", &nghttp2, H2LOAD)];
    for (name, version, scenarios) in all {
        if !report.wants(name) {
            continue;
        }
        let subject = Subject { kind: "client", peer: name.to_owned(), version: version.clone() };
        let Some(front) = report.prepare(&subject, "starts", start) else { continue };
        for (scenario, run) in scenarios {
            if *scenario == IN_TURN_H2C && version.starts_with("7.") {
                report.note(&subject, scenario, Verdict::NotApplicable, "curl's issue 10634, mended in 8.0");
                continue;
            }
            report.cell(&subject, scenario, || run(&front));
        }
    }
}

/// A word of what a program says to `--version`.
fn version(name: &str, word: usize) -> String {
    let ended = Process::run(name, Command::new(program(name)).arg("--version"), PATIENCE);
    ended.stdout.split_whitespace().nth(word).unwrap_or("?").to_owned()
}

fn start() -> Front {
    let (upstream, tokens) = (RecorderUpstream::start(), Tokens::new());
    upstream.on(
        "/v1/trailers",
        Answer::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-late: 1\r\n\r\n"),
    );
    let setup = || tokens.setup().upstream("orders", &upstream.url()).limit("connection_requests: 1000000");
    Front { clear: setup().start(), tls: over_tls(setup()).start(), tokens, upstream }
}

impl Front {
    fn gateway(&self, tls: bool) -> &TestGateway {
        if tls { &self.tls } else { &self.clear }
    }

    fn url(&self, tls: bool, path: &str) -> String {
        let scheme = if tls { "https" } else { "http" };
        format!("{scheme}://orders.test:{}{path}", self.gateway(tls).data().port())
    }

    fn ca(&self) -> String {
        self.tls.path().join("ca.pem").display().to_string()
    }

    /// What the recorder got since `seen`, which must be `count` whole requests without fault and without the token.
    fn got(&self, seen: usize, count: usize) -> Vec<Recorded> {
        let is_whole = || self.upstream.since(seen).iter().filter(|one| one.complete).count() >= count;
        until_true("the requests at the upstream", PATIENCE, is_whole);
        let got = self.upstream.since(seen);
        assert_eq!(got.len(), count, "one request in, one out: {got:?}");
        for one in &got {
            assert_eq!((&one.fault, one.trailers.len()), (&None, 0));
            assert_eq!((one.head.one("host").is_some(), one.head.one("x-leastgate-subject")), (true, Some("wide")));
            assert!(
                !one.head.has("authorization") && !one.head.has("expect") && !one.head.has("upgrade"),
                "{:?}",
                one.head
            );
        }
        got
    }
}

/// curl under the token WIDE; `tls` among the arguments chooses the gateway.
fn fetch(front: &Front, path: &str, more: &[&str]) -> Fetched {
    fetch_as(front, Some(&front.tokens.wide().header()), path, more)
}

fn fetch_as(front: &Front, credential: Option<&str>, path: &str, more: &[&str]) -> Fetched {
    let tls = more.contains(&"tls");
    let resolve = format!("orders.test:{}:127.0.0.1", front.gateway(tls).data().port());
    let (url, ca) = (front.url(tls, path), front.ca());
    let mut arguments = vec!["--path-as-is", "--globoff", "--resolve", &resolve, "--cacert", &ca];
    arguments.extend(credential.iter().flat_map(|credential| ["-H", credential]));
    arguments.extend(more.iter().filter(|argument| **argument != "tls"));
    arguments.push(&url);
    curl(&arguments)
}

fn seen_once(front: &Front, more: &[&str]) -> String {
    let seen = front.upstream.count();
    let target = "/v1/orders/caf%C3%A9?a=1&&b=%2f[]";
    let got = fetch(front, target, &[&["-H", "X-Probe: 7"], more].concat());
    assert_eq!((got.code, got.status, got.field("x-echo")), (0, 200, Some("7")), "{got:?}");
    let one = &front.got(seen, 1)[0];
    assert_eq!((one.method(), one.target()), ("GET", target));
    got.head.split_whitespace().next().unwrap_or_default().to_owned()
}

fn upload(front: &Front, more: &[&str]) -> String {
    let (seen, body) = (front.upstream.count(), big());
    let file = front.clear.path().join("upload");
    fs::write(&file, &body).unwrap();
    let from = format!("@{}", file.display());
    let got = fetch(front, "/v1/orders", &[&["-X", "POST", "--data-binary", &from], more].concat());
    assert_eq!((got.code, got.status), (0, 200), "{got:?}");
    let one = &front.got(seen, 1)[0];
    assert_eq!((one.body_length, &one.body_hash), (10 << 20, &hash(&body)));
    String::new()
}

fn refused(front: &Front) -> String {
    let seen = front.upstream.count();
    let reader = front.tokens.reader().header();
    for more in [&[][..], &[H2C], &["--http2", "tls"]] {
        let refusal = fetch_as(front, Some(&reader), "/v1/orders", &[&["-X", "DELETE"], more].concat());
        assert_eq!((refusal.status, refusal.field("content-type")), (403, Some("application/problem+json")));
        assert_eq!(fetch_as(front, None, "/v1/orders", more).status, 401);
        assert_eq!(fetch_as(front, Some(&reader), "/v1/orders/../../admin", more).status, 400);
    }
    assert_eq!(front.upstream.count(), seen, "nothing of them arrived");
    String::new()
}

/// One curl, three requests after one another.
fn in_turn(front: &Front, more: &[&str]) -> String {
    let seen = front.upstream.count();
    let tls = more.contains(&"tls");
    let others = [front.url(tls, "/v1/orders/2"), front.url(tls, "/v1/orders/3")];
    let got = fetch(front, "/v1/orders/1", &[&[others[0].as_str(), &others[1]], more].concat());
    assert_eq!(got.code, 0, "{more:?}");
    let mut targets: Vec<String> = front.got(seen, 3).iter().map(|one| one.target().to_owned()).collect();
    targets.sort();
    assert_eq!(targets, ["/v1/orders/1", "/v1/orders/2", "/v1/orders/3"]);
    String::new()
}

/// Runs nghttp against several URLs, which it asks for at once.
fn nghttp(front: &Front, tls: bool, paths: &[&str], more: &[&str]) -> String {
    let mut command = Command::new(program("nghttp"));
    command.args(["-v", "--timeout=15", "--no-dep"]).args(more).args(["-H", &front.tokens.wide().header()]);
    let port = front.gateway(tls).data().port();
    command.args(["-H", &format!(":authority: orders.test:{port}")]);
    let scheme = if tls { "https" } else { "http" };
    command.args(paths.iter().map(|path| format!("{scheme}://127.0.0.1:{port}{path}")));
    let ended = Process::run("nghttp", &mut command, PATIENCE * 2);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout
}

fn streams(front: &Front, tls: bool) -> String {
    let seen = front.upstream.count();
    let paths: Vec<String> = (0..20).map(|number| format!("/v1/orders/{number}")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let printed = nghttp(front, tls, &paths, &[]);
    assert_eq!(printed.matches(":status: 200").count(), 20, "{printed}");
    let mut targets: Vec<String> = front.got(seen, 20).iter().map(|one| one.target().to_owned()).collect();
    targets.sort_by_key(|target| target.rsplit('/').next().unwrap().parse::<u32>().unwrap());
    assert_eq!(targets, paths);
    for wrong in [
        "RST_STREAM",
        "GOAWAY frame <length=8, flags=0x00, stream_id=0>\n          (last_stream_id=0, error_code=PROTO",
    ] {
        assert!(!printed.contains(wrong), "{printed}");
    }
    "20 streams".to_owned()
}

fn nghttp_upload(front: &Front) -> String {
    let (seen, body) = (front.upstream.count(), big());
    let file = front.clear.path().join("upload");
    fs::write(&file, &body).unwrap();
    let file = file.display().to_string();
    let more =
        ["-d", &file, "--trailer", "x-late: 1", "--trailer", "x-leastgate-subject: admin", "-H", ":method: POST"];
    let printed = nghttp(front, false, &["/v1/orders"], &more);
    assert!(printed.contains(":status: 200"), "{printed}");
    let one = &front.got(seen, 1)[0];
    assert_eq!((one.body_length, &one.body_hash), (10 << 20, &hash(&body)));
    String::new()
}

fn nghttp_trailers(front: &Front) -> String {
    let printed = nghttp(front, false, &["/v1/trailers"], &["-H", "te: trailers"]);
    assert!(printed.contains(":status: 200") && printed.contains("abc") && !printed.contains("x-late"), "{printed}");
    String::new()
}

fn load(front: &Front, more: &[&str], tls: bool) -> String {
    const REQUESTS: usize = 10_000;
    let seen = front.upstream.count();
    let port = front.gateway(tls).data().port();
    let mut command = Command::new(program("h2load"));
    command.args(["-n", &REQUESTS.to_string(), "-t", "1"]).args(more);
    command.args(["-H", &front.tokens.wide().header(), &format!("--connect-to=127.0.0.1:{port}")]);
    let ended = Process::run("h2load", command.arg(front.url(tls, "/v1/orders/7")), Duration::from_secs(60));
    let wanted =
        format!("{REQUESTS} total, {REQUESTS} started, {REQUESTS} done, {REQUESTS} succeeded, 0 failed, 0 errored");
    assert!(ended.stdout.contains(&wanted) && ended.stdout.contains(&format!("{REQUESTS} 2xx")), "{}", ended.stdout);
    assert_eq!(front.upstream.count() - seen, REQUESTS, "one request in, one out");
    format!("{REQUESTS} requests")
}

/// BLAKE3 as the recorder writes it.
fn hash(body: &[u8]) -> String {
    blake3::hash(body).to_hex().to_string()
}
