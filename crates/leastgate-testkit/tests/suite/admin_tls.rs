//! The admin listener with mutual TLS: a real curl with a certificate and without, certificates that are replaced while
//! the gateway runs, and what no browser and no name gets past. The machine's own address is used where it has one, for
//! off loopback is where such a listener stands.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use leastgate_testkit::authority::{Authority, Signed, params, put};
use leastgate_testkit::curl::{Fetched, curl};
use leastgate_testkit::deadline::{PATIENCE, until, until_true};
use leastgate_testkit::gateway::Setup;
use leastgate_testkit::raw::RawClient;
use leastgate_testkit::token::Token;
use rcgen::SanType;
use serde_json::{Value, json};

use crate::stored::Stored;

/// The name in the listener's certificate.
pub(crate) const NAME: &str = "admin.test";
/// What the administrator's certificate says of its owner.
pub(crate) const SPIFFE: &str = "spiffe://example.org/people/ann";

/// A gateway with TLS on its admin listener, and who signs for whom.
pub(crate) struct World {
    pub(crate) stored: Stored,
    pub(crate) servers: Authority,
    pub(crate) clients: Authority,
    pub(crate) credential: String,
}

impl World {
    pub(crate) fn start() -> Self {
        Self::start_with(|setup| setup)
    }

    pub(crate) fn start_with(change: impl FnOnce(Setup) -> Setup) -> Self {
        let (servers, clients) = (Authority::new("one"), Authority::new("another"));
        let stored = Stored::start_with(|setup| {
            let folder = setup.path().to_owned();
            server(&servers, 2040).write(&folder, "admin");
            client(&clients, 2040).write(&folder, "ann");
            servers.write(&folder, "servers.pem");
            clients.write(&folder, "clients.pem");
            let tls = "tls: { cert: admin.pem, key: admin.key, client_ca: clients.pem }";
            change(setup.admin_listener(&format!("address: \"{}\", {tls}", SocketAddr::new(own_address(), 0))))
        });
        let credential = stored.administrator("ann", "admin");
        Self { stored, servers, clients, credential }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.stored.gateway.path().join(name)
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.stored.gateway.addresses().admin
    }

    /// curl to the listener under its name, with this of its own.
    fn fetch(&self, more: &[&str]) -> Fetched {
        self.fetch_at("/v1/status", more)
    }

    fn fetch_at(&self, path: &str, more: &[&str]) -> Fetched {
        let (to, ca) = (format!("::{}", self.address()), self.file("servers.pem"));
        let url = format!("https://{NAME}:{}{path}", self.address().port());
        curl(&[&["--connect-to", &to, "--cacert", &ca, &url][..], more].concat())
    }

    /// The same as Ann: with her certificate, and her credential.
    fn fetch_as_ann(&self, more: &[&str]) -> Fetched {
        let (cert, key, bearer) = (self.file("ann.pem"), self.file("ann.key"), self.bearer());
        self.fetch(&[&["--cert", &cert, "--key", &key, "-H", &bearer][..], more].concat())
    }

    fn bearer(&self) -> String {
        format!("Authorization: Bearer {}", self.credential)
    }

    fn failures(&self, reason: &str) -> f64 {
        let label = format!("reason=\"{reason}\"");
        self.stored.gateway.metrics().sum("leastgate_admin_tls_handshake_failures_total", &[&label])
    }

    fn ends(&self, file: &str) -> f64 {
        self.stored.gateway.metrics().sum("leastgate_admin_tls_certificate_expiry_timestamp_seconds", &[file])
    }
}

/// An address of this machine that is not loopback; one that is where there is no other.
pub(crate) fn own_address() -> IpAddr {
    // Nothing is sent: the system only says from where it would be.
    let routed = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("198.51.100.1:9")?;
        socket.local_addr()
    });
    routed.map_or_else(|_| [127, 0, 0, 1].into(), |address| address.ip())
}

pub(crate) fn server(authority: &Authority, year: i32) -> Signed {
    authority.sign(&params(&[NAME, &own_address().to_string()], year))
}

pub(crate) fn client(authority: &Authority, year: i32) -> Signed {
    let mut params = params(&["ann.people.test"], year);
    params.subject_alt_names.push(SanType::URI(SPIFFE.try_into().unwrap()));
    authority.sign(&params)
}

#[test]
fn a_certificate_lets_in_and_the_credential_says_who() {
    let world = World::start();
    let own = world.fetch_as_ann(&["--http2"]);
    assert_eq!((own.status, own.head.starts_with("HTTP/1.1 ")), (200, true), "{}{}", own.head, own.body);
    let (cert, key) = (world.file("ann.pem"), world.file("ann.key"));
    let shown = ["--cert", &cert, "--key", &key];
    assert_eq!(world.fetch(&shown).status, 401, "a certificate is no credential");
    let wrong = format!("Authorization: Bearer {}", Token::admin("nobody").secret());
    assert_eq!(world.fetch(&[&shown[..], &["-H", &wrong]].concat()).status, 401);
    for version in ["1.2", "1.3"] {
        assert_eq!(world.fetch_as_ann(&["--tls-max", version, &format!("--tlsv{version}")]).status, 200, "{version}");
    }

    let body = json!({ "name": "made-here", "owner": "team-test", "roles": ["reader"], "ttl": "1h" }).to_string();
    let bearer = world.bearer();
    let made = world.fetch_at(
        "/v1/tokens",
        &[&shown[..], &["-H", &bearer, "-H", "Content-Type: application/json", "-d", &body]].concat(),
    );
    assert_eq!(made.status, 201, "{}", made.body);
    let event = until("the event", PATIENCE, || {
        let events = world.stored.gateway.events();
        events.into_iter().find(|event| event["change"]["operation"] == "token.create")
    });
    assert_eq!(event["source"]["peer_san"], json!([SPIFFE]), "{event}");
    assert_eq!((&event["actor"]["subject"], &event["change"]["result"]), (&json!("ann"), &json!("ok")));
    for file in ["admin.pem", "clients.pem"] {
        assert_eq!(world.ends(file), 2_208_988_800.0, "{file}: 2040-01-01");
    }
}

#[test]
fn who_shows_no_certificate_or_another_gets_no_further_than_the_handshake() {
    let world = World::start();
    let folder = world.stored.gateway.path();
    client(&Authority::new("a stranger"), 2040).write(folder, "stranger");
    client(&world.clients, 2021).write(folder, "late");
    // What its own certificate says of the listener is nobody's to show.
    let of_the_listener = ("admin.pem", "admin.key");
    let bearer = world.bearer();
    for version in ["1.2", "1.3"] {
        let common = ["-H", &bearer, "--tls-max", version];
        assert_eq!(world.fetch(&common).status, 0, "none, TLS {version}");
        for (cert, key) in [("stranger.pem", "stranger.key"), ("late.pem", "late.key"), of_the_listener] {
            let (cert, key) = (world.file(cert), world.file(key));
            let got = world.fetch(&[&common[..], &["--cert", &cert, "--key", &key]].concat());
            assert_eq!(got.status, 0, "{cert}, TLS {version}: {}", got.head);
        }
    }
    until_true("the count of none", PATIENCE, || world.failures("no_certificate") == 2.0);
    until_true("the count of others", PATIENCE, || world.failures("bad_certificate") == 6.0);

    let plain = curl(&["-H", &bearer, &format!("http://{}/v1/status", world.address())]);
    assert_eq!(plain.status, 0, "{}", plain.head);
    until_true("the count of those without TLS", PATIENCE, || world.failures("not_tls") == 1.0);
    assert_eq!(world.fetch_as_ann(&[]).status, 200);
    let calls = world.stored.gateway.metrics().sum("leastgate_admin_requests_total", &["status"]);
    assert_eq!(calls, 1.0, "a handshake that fails is no call");
}

#[test]
fn only_names_of_the_certificate_are_hosts_and_no_web_page_is_let_in() {
    let world = World::start();
    let port = world.address().port();
    for host in [NAME.to_owned(), format!("{NAME}:{port}"), format!("{NAME}:443"), world.address().to_string()] {
        assert_eq!(world.fetch_as_ann(&["-H", &format!("Host: {host}")]).status, 200, "{host}");
    }
    for host in ["evil.test", "evil.test:9902", "localhost", "admin.test.evil.test", "x.admin.test", "203.0.113.1"] {
        let got = world.fetch_as_ann(&["-H", &format!("Host: {host}")]);
        assert_eq!(got.status, 421, "DNS rebinding: {host}: {}", got.body);
    }
    let origin = format!("Origin: https://{NAME}:{port}");
    for field in [&origin, "Origin: https://evil.test", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate"] {
        assert_eq!(world.fetch_as_ann(&["-H", field]).status, 403, "{field}");
    }
}

#[test]
fn replaced_files_are_taken_while_it_runs() {
    let world = World::start();
    let folder = world.stored.gateway.path();
    let status = || world.fetch_as_ann(&[]).status;
    assert_eq!((status(), world.ends("admin.pem")), (200, 2_208_988_800.0), "2040-01-01");

    server(&world.servers, 2041).write(folder, "admin");
    until_true("the new certificate", Duration::from_secs(5), || world.ends("admin.pem") == 2_240_611_200.0);
    let shown = world.fetch_as_ann(&["-v"]);
    assert_eq!(shown.status, 200);

    let others = Authority::new("who comes after");
    others.write(folder, "clients.pem");
    until_true("the old authority's end", Duration::from_secs(5), || status() == 0);
    client(&others, 2040).write(folder, "ann");
    assert_eq!(status(), 200, "the new one's clients");

    put(folder, "clients.pem", "no certificate\n");
    let complaint = "certificates not replaced, those in force stay";
    until_true("the complaint", PATIENCE, || {
        world
            .stored
            .gateway
            .stderr()
            .lines()
            .any(|line| line.contains(complaint) && line.contains("listeners.admin.tls"))
    });
    assert_eq!(status(), 200, "what was in force stays");
    let metrics = world.stored.gateway.metrics();
    assert_eq!(metrics.sum("leastgate_admin_tls_last_reload_successful", &[]), 0.0);
    assert_eq!(metrics.sum("leastgate_tls_last_reload_successful", &[]), 1.0, "the data listener's are its own");
    for operation in ["certificates.loaded", "certificates.refused"] {
        until_true(operation, PATIENCE, || {
            let is_of = |change: &Value| change["operation"] == operation && change["target"] == "listeners.admin.tls";
            world.stored.gateway.events().iter().any(|event| is_of(&event["change"]))
        });
    }
}

#[test]
fn who_never_shakes_hands_is_closed_at_the_deadline_and_does_not_hold_the_end_up() {
    const DEADLINE: Duration = Duration::from_millis(300);
    let mut world = World::start_with(|setup| setup.limit("tls_handshake: 300ms"));
    let connecting = Instant::now();
    // The usual deadline is 5 seconds.
    RawClient::connect(world.address()).expect_close(Duration::from_secs(3)).unwrap();
    assert!(connecting.elapsed() >= DEADLINE, "{:?}", connecting.elapsed());
    until_true("the count", PATIENCE, || world.failures("timeout") == 1.0);

    let waiting = World::start_with(|setup| setup.limit("tls_handshake: 1h"));
    let silent = RawClient::connect(waiting.address());
    let World { mut stored, .. } = waiting;
    let ended = stored.gateway.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(!ended.stderr.contains("were still under way"), "{}", ended.stderr);
    drop(silent);
    assert_eq!(world.stored.gateway.stop().code, Some(0));
}

#[test]
fn off_loopback_without_it_is_refused_with_its_place() {
    let refused = |keys: &str| {
        let setup = Setup::new(leastgate_testkit::policies::ORDERS).upstream("orders", "http://127.0.0.1:9");
        let ended = setup.admin_listener(keys).start_failing();
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        ended.stderr
    };
    let said = refused("address: \"0.0.0.0:9902\"");
    for part in ["mutual TLS alone", "leastgate.yaml:", "client_ca: FILE", "127.0.0.1"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let half = refused("address: \"0.0.0.0:9902\", tls: { cert: a.pem, key: a.key }");
    assert!(half.contains("client_ca"), "{half}");
    let nowhere = refused("address: \"127.0.0.1:0\", tls: { cert: a.pem, key: a.key, client_ca: c.pem }");
    assert!(nowhere.contains("a.pem can't be opened") && nowhere.contains("leastgate.yaml:"), "{nowhere}");
}

#[test]
fn a_key_that_others_can_read_is_told() {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::start();
    let World { mut stored, .. } = world;
    assert_eq!(stored.gateway.stop().code, Some(0));
    let key: &Path = &stored.gateway.path().join("admin.key");
    set_permissions(key, Permissions::from_mode(0o644)).unwrap();
    stored.gateway.restart();
    until_true("the warning", PATIENCE, || stored.gateway.stderr().contains("everybody on the machine can read"));
}
