//! TLS towards an upstream that nobody here wrote: nginx, which demands a certificate; and files that are replaced while
//! the gateway runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use leastgate_testkit::authority::{Authority, params};
use leastgate_testkit::deadline::{PATIENCE, until, until_true};
use leastgate_testkit::gateway::{Setup, TestGateway};
use leastgate_testkit::nginx::{Nginx, NginxTls};
use leastgate_testkit::paths::{leastgate, program};
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::process::Process;
use leastgate_testkit::token::Token;
use rcgen::SerialNumber;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::fixtures::setup;

const EXPIRY: &str = "leastgate_upstream_tls_certificate_expiry_timestamp_seconds";
const YEAR_2040: f64 = 2_208_988_800.0;

/// `NAME.pem` and `NAME.key`, for `orders.internal`, with this serial number.
fn sign(authority: &Authority, folder: &Path, name: &str, serial: u64, year: i32) {
    let mut params = params(&["orders.internal"], year);
    params.serial_number = Some(SerialNumber::from(serial));
    authority.sign(&params).write(folder, name);
}

/// nginx, the gateway before it, and the authorities of both.
struct World {
    nginx: Nginx,
    gateway: TestGateway,
    reader: Token,
    servers: Authority,
    clients: Authority,
    _files: TempDir,
}

impl World {
    fn start(keys: &str) -> Self {
        let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
        let files = TempDir::new().unwrap();
        let path = |name: &str| files.path().join(name);
        sign(&servers, files.path(), "server", 1, 2040);
        clients.write(files.path(), "clients.pem");
        let nginx = Nginx::start_tls(NginxTls {
            cert: &path("server.pem"),
            key: &path("server.key"),
            client_ca: &path("clients.pem"),
        });
        let tokens = orders_tokens();
        let tls = format!(", tls: {{ ca: ca.pem, cert: gw.pem, key: gw.key, name: orders.internal }}{keys}");
        let setup = setup(&tokens).section("workers", "1").upstream_with("orders", &nginx.url(), &tls);
        servers.write(setup.path(), "ca.pem");
        sign(&clients, setup.path(), "gw", 0xa1, 2040);
        let (gateway, reader) = (Setup::start(setup), tokens["READER"].clone());
        Self { nginx, gateway, reader, servers, clients, _files: files }
    }

    fn status(&self) -> u16 {
        self.gateway.get(&self.reader, "/v1/orders").status
    }

    /// Asks, and what nginx says of the request that comes of it; its log is behind its answer.
    fn asked(&self) -> String {
        let before = self.nginx.tls_log().len();
        assert_eq!(self.status(), 200);
        until("its line in the log", PATIENCE, || self.nginx.tls_log().get(before).cloned())
    }

    fn folder(&self) -> &Path {
        self.gateway.path()
    }

    fn metric(&self, name: &str, label: &str) -> f64 {
        self.gateway.metrics().sum(name, &["upstream=\"orders\"", label])
    }

    fn until_reloads(&self, result: &str, count: f64) {
        let label = format!("result=\"{result}\"");
        until_true("a reload", PATIENCE, || self.metric("leastgate_upstream_tls_reloads_total", &label) >= count);
    }

    fn logged(&self, text: &str) -> usize {
        self.gateway.stderr().lines().filter(|line| line.contains(text)).count()
    }
}

/// Of a request nginx saw, the protocol, the name and the serial number.
fn shown(line: &str) -> String {
    line.split('|').skip(1).take(3).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_gateways_certificate_is_replaced_while_it_runs() {
    for (keys, protocol) in [("", "HTTP/1.1"), (", http2: true", "HTTP/2.0")] {
        let world = World::start(keys);
        let (first, second) = (world.asked(), world.asked());
        assert_eq!([shown(&first), shown(&second)], [(); 2].map(|()| format!("{protocol} orders.internal A1")));
        assert!(second.ends_with("|2"), "over one connection: {second}");
        assert_eq!([world.metric(EXPIRY, "gw.pem"), world.metric(EXPIRY, "ca.pem")], [YEAR_2040; 2]);
        assert_eq!(world.metric("leastgate_upstream_tls_last_reload_successful", ""), 1.0);

        sign(&world.clients, world.folder(), "gw", 0xb2, 2041);
        until_true("the new serial number", PATIENCE, || {
            shown(&world.asked()) == format!("{protocol} orders.internal B2")
        });
        world.until_reloads("success", 1.0);
        assert_eq!(world.metric(EXPIRY, "gw.pem"), 2_240_611_200.0, "2041-01-01");

        // Whoever asks is told, though nothing is new.
        world.gateway.signal(Signal::HUP);
        world.until_reloads("success", 2.0);
        assert_eq!(shown(&world.asked()), format!("{protocol} orders.internal B2"));
    }
}

#[test]
fn the_authority_is_replaced_while_it_runs_and_by_nothing_that_is_broken() {
    let world = World::start("");
    assert_eq!(world.status(), 200);
    let success = |world: &World| world.metric("leastgate_upstream_tls_last_reload_successful", "");

    fs::write(world.folder().join("ca.pem"), "no certificate\n").unwrap();
    world.until_reloads("failure", 1.0);
    assert_eq!((world.status(), success(&world)), (200, 0.0), "what was in force stays");
    assert_eq!(world.logged("certificates not replaced"), 1);
    let line = world.gateway.stderr();
    assert!(line.contains("ca.pem holds no certificate") && line.contains("upstreams.orders.tls"), "{line}");

    Authority::new("others").write(world.folder(), "ca.pem");
    until_true("the connection of before is of no use", PATIENCE, || world.status() == 503);
    assert_eq!(success(&world), 1.0);
    assert_eq!(world.status(), 503);
    world.servers.write(world.folder(), "ca.pem");
    until_true("the right one is back", PATIENCE, || world.status() == 200);

    sign(&world.clients, world.folder(), "gw", 0xc3, 2020);
    world.until_reloads("failure", 2.0);
    assert_eq!(shown(&world.asked()), "HTTP/1.1 orders.internal A1");
    for operation in ["certificates.loaded", "certificates.refused"] {
        let event = until(operation, PATIENCE, || {
            world.gateway.events().into_iter().find(|event| event["change"].to_string().contains(operation))
        });
        assert!(event.to_string().contains("upstreams.orders.tls"), "{event}");
    }
    let key = fs::read_to_string(world.folder().join("gw.key")).unwrap();
    let secret: Vec<&str> = key.lines().filter(|line| !line.starts_with("---")).collect();
    for (name, bytes) in world.gateway.written().into_iter().filter(|(name, _)| !name.ends_with(".key")) {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!secret.iter().any(|line| text.contains(line)), "{name} holds a private key");
    }
}

#[test]
fn endpoints_are_asked_over_tls_and_every_series_of_them_is_in_the_format() {
    let world = World::start(", check: { path: /healthz, interval: 100ms }");
    until_true("its checks", PATIENCE, || {
        world.metric("leastgate_upstream_endpoint_checks_total", "result=\"pass\"") >= 2.0
    });
    assert!(world.nginx.tls_log()[0].starts_with("/healthz|HTTP/1.1|orders.internal|A1"));
    let workers = |state: &str| world.metric("leastgate_upstream_endpoint_workers", state);
    assert_eq!([workers("state=\"in\""), workers("state=\"ejected\"")], [1.0, 0.0]);
    assert_eq!(world.metric("leastgate_upstream_endpoint_checks_total", "result=\"fail\""), 0.0);
    let metrics = world.gateway.metrics();
    for name in ["ejections_total", "checks_total"] {
        assert_eq!(metrics.kind(&format!("leastgate_upstream_endpoint_{name}")), Some("counter"));
    }
    let file = world.folder().join("metrics.txt");
    fs::write(&file, metrics.text()).unwrap();
    let check = format!("{} check metrics < {}", program("promtool").display(), file.display());
    let ended = Process::run("promtool", Command::new("sh").args(["-c", &check]), PATIENCE);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
}

#[test]
fn a_certificate_that_has_expired_is_told_at_a_start_and_by_validate() {
    let tokens = orders_tokens();
    let setup = setup(&tokens).upstream_with("orders", "https://127.0.0.1:9", ", tls: { cert: gw.pem, key: gw.key }");
    sign(&Authority::new("clients"), setup.path(), "gw", 1, 2020);
    let ended = setup.cli(&["config", "validate"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("gw.pem: it has expired, and upstreams refuse it"), "{}", ended.stderr);
    fs::remove_file(setup.path().join("gw.key")).unwrap();
    let ended = setup.cli(&["config", "validate"]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("gw.key can't be opened"), "{}", ended.stderr);
}

#[test]
fn authorities_of_the_system_that_cannot_be_read_are_told_and_take_none_away() {
    let tokens = orders_tokens();
    let setup = setup(&tokens).upstream_with("orders", "https://127.0.0.1:9", "");
    let (system, ready) = (TempDir::new().unwrap(), setup.path().join("ready.json"));
    ["one.pem", "two.pem"].iter().for_each(|name| Authority::new(name).write(system.path(), name));
    let broken = |name: &str| {
        let text = fs::read_to_string(system.path().join(name)).unwrap();
        fs::write(system.path().join(name), &text[..text.len() / 2]).unwrap();
    };
    // Whatever it finds on this machine, its files are written.
    let _ = setup.cli(&["config", "validate"]);
    let start = || {
        let mut command = Command::new(leastgate());
        command.arg("serve").arg("--config").arg(setup.path().join("leastgate.yaml")).arg("--ready-file").arg(&ready);
        command.env("SSL_CERT_DIR", system.path()).env_remove("SSL_CERT_FILE").env("NO_COLOR", "1");
        let _ = fs::remove_file(&ready);
        let process = Process::spawn("leastgate", &mut command);
        until_true("it is ready", PATIENCE, || ready.exists());
        process
    };
    let mut process = start();
    let until_told = |process: &Process, text: &str| {
        process.signal(Signal::HUP);
        until_true(text, PATIENCE, || process.stderr().contains(text));
    };
    until_told(&process, "certificates replaced");
    assert!(!process.stderr().contains("can't be read") && !process.stderr().contains("can be read"));
    broken("one.pem");
    until_told(&process, "not replaced, those in force stay: of the system's 2 certificate authorities 1 are left");
    broken("two.pem");
    until_told(&process, "those in force stay: none of the system's certificate authorities can be read");
    process.signal(Signal::TERM);
    let _ = process.wait(PATIENCE);

    Authority::new("two.pem").write(system.path(), "two.pem");
    let process = start();
    let text = "upstreams.orders.tls: not all of the system's certificate authorities can be read, 1 are in force";
    until_true(text, PATIENCE, || process.stderr().contains(text));
}
