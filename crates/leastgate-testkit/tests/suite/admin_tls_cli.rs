//! The commands over mutual TLS: tokens made and listed, and what somebody on call is told when it does not come about.

use std::fs;
use std::process::Command;

use leastgate_testkit::authority::{Authority, params};
use leastgate_testkit::deadline::PATIENCE;
use leastgate_testkit::paths;
use leastgate_testkit::process::{Ended, Process};

use crate::admin_tls::{NAME, World, client, own_address, server};

/// What Ann has for a call: authority, certificate, key and credential, by flag.
struct Ann {
    world: World,
}

impl Ann {
    fn start() -> Self {
        let world = World::start();
        fs::write(world.path("ann.admin"), &world.credential).unwrap();
        Self { world }
    }

    fn url(&self) -> String {
        format!("https://{}", self.world.address())
    }

    /// A command with these flags in place of hers; the file's name is empty for none.
    fn with(&self, url: &str, ca: &str, cert: (&str, &str), arguments: &[&str]) -> Ended {
        let given = [("--admin-ca", ca), ("--admin-cert", cert.0), ("--admin-key", cert.1)];
        let mut all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        all.extend(["--admin-url".to_owned(), url.to_owned()]);
        all.extend(["--admin-token-file".to_owned(), self.world.file("ann.admin")]);
        for (flag, name) in given.into_iter().filter(|(_, name)| !name.is_empty()) {
            all.extend([flag.to_owned(), self.world.file(name)]);
        }
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.world.stored.gateway.cli(&all)
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.with(&self.url(), "servers.pem", ("ann.pem", "ann.key"), arguments)
    }
}

const LIST: &[&str] = &["token", "list", "-o", "name"];
const OWN: (&str, &str) = ("ann.pem", "ann.key");

#[test]
fn tokens_are_made_and_listed_by_flags_and_by_variables() {
    let ann = Ann::start();
    let made = ann.run(&["token", "create", "--name", "from-afar", "--role", "reader", "--owner", "t", "--ttl", "1h"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let secret = made.stdout.trim();
    assert_eq!(ann.world.stored.ask(secret, "/v1/orders").status, 200);
    let listed = ann.run(LIST);
    assert_eq!((listed.code, listed.stdout.trim()), (Some(0), "from-afar"), "{}", listed.stderr);

    let mut command = Command::new(paths::leastgate());
    command.args(LIST).env("LEASTGATE_ADMIN_URL", ann.url());
    for (name, file) in [("CA", "servers.pem"), ("CERT", "ann.pem"), ("KEY", "ann.key"), ("TOKEN_FILE", "ann.admin")] {
        command.env(format!("LEASTGATE_ADMIN_{name}"), ann.world.path(file));
    }
    let listed = Process::run("leastgate", &mut command, PATIENCE);
    assert_eq!((listed.code, listed.stdout.trim()), (Some(0), "from-afar"), "{}", listed.stderr);
}

/// Ends with this code and says these words, the credential not among them.
fn assert_told(ann: &Ann, ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "{word}: {}", ended.stderr);
    }
    assert!(!ended.stderr.contains(&ann.world.credential));
}

#[test]
fn what_is_wrong_with_a_certificate_is_told_with_what_to_do() {
    let ann = Ann::start();
    let folder = ann.world.stored.gateway.path().to_owned();
    client(&Authority::new("a stranger"), 2040).write(&folder, "stranger");
    client(&ann.world.clients, 2021).write(&folder, "late");
    let url = ann.url();
    let told = |ended: Ended, code, words: &[&str]| assert_told(&ann, &ended, code, words);
    told(ann.with(&url, "clients.pem", OWN, LIST), 1, &["nobody who is trusted has signed", "--admin-ca FILE", &url]);
    told(ann.with(&url, "", OWN, LIST), 1, &["--admin-ca FILE"]);
    told(ann.with(&url, "servers.pem", ("", ""), LIST), 4, &["wants a certificate of yours", "--admin-cert FILE"]);
    told(ann.with(&url, "servers.pem", ("stranger.pem", "stranger.key"), LIST), 4, &["client_ca has signed it"]);
    told(ann.with(&url, "servers.pem", ("late.pem", "late.key"), LIST), 4, &["--admin-cert", "has expired"]);
    told(ann.with(&url, "servers.pem", ("ann.pem", ""), LIST), 64, &["--admin-key FILE"]);
    told(ann.with(&url, "servers.pem", ("ann.pem", "late.key"), LIST), 1, &["late.key does not belong to"]);
    told(ann.with(&url, "servers.pem", ("nowhere.pem", "ann.key"), LIST), 1, &["--admin-cert", "nowhere.pem"]);

    // The listener's certificate is for its name, and for the address it is called by here.
    let of_the_name = ann.world.servers.sign(&params(&[NAME], 2040));
    replace(&ann, &of_the_name, 1);
    let (address, named) = (own_address().to_string(), format!("is for {NAME}, not for {}", own_address()));
    told(ann.run(LIST), 1, &["shows a certificate", &named, &address]);
    let mut stored = ann.world.stored;
    assert_eq!(stored.gateway.stop().code, Some(0));
    server(&ann.world.servers, 2021).write(&folder, "admin");
    stored.gateway.restart();
    let ann = Ann { world: World { stored, ..ann.world } };
    assert_told(&ann, &ann.run(LIST), 1, &["has expired by this machine's clock", "unix socket"]);
}

/// Puts another certificate in the listener's place and waits until it is in force.
fn replace(ann: &Ann, signed: &leastgate_testkit::authority::Signed, reloads: u32) {
    let gateway = &ann.world.stored.gateway;
    signed.write(gateway.path(), "admin");
    leastgate_testkit::deadline::until_true("the new certificate", PATIENCE, || {
        gateway.metrics().sum("leastgate_admin_tls_reloads_total", &["success"]) == f64::from(reloads)
    });
}

#[test]
fn a_credential_does_not_cross_the_network_in_the_open_and_what_would_not_be_used_is_refused() {
    let ann = Ann::start();
    let port = ann.world.address().port();
    for host in ["192.0.2.77", "gateway.internal"] {
        let ended = ann.with(&format!("http://{host}:{port}"), "", ("", ""), LIST);
        assert_told(&ann, &ended, 64, &["would cross the network in plain text", "https://"]);
    }
    let socket = ann.world.path("state").join("admin.sock").display().to_string();
    for url in [format!("unix:{socket}"), format!("http://127.0.0.1:{port}")] {
        let ended = ann.with(&url, "servers.pem", ("", ""), LIST);
        assert_told(&ann, &ended, 64, &["--admin-ca (LEASTGATE_ADMIN_CA) is for https://"]);
    }
    let ca = ann.world.file("servers.pem");
    let local = ann.world.stored.gateway.cli(&[LIST, &["--admin-ca", &ca]].concat());
    assert_told(&ann, &local, 64, &["--admin-ca (LEASTGATE_ADMIN_CA) is for https://"]);
}

#[test]
fn a_listener_that_speaks_otherwise_is_told() {
    let ann = Ann::start();
    let plain = crate::stored::Stored::start();
    let url = format!("https://{}", plain.gateway.addresses().admin);
    assert_told(&ann, &ann.with(&url, "servers.pem", OWN, LIST), 1, &["does not speak TLS", "http://"]);
    let loopback = World::start_with(|setup| {
        let tls = "tls: { cert: admin.pem, key: admin.key, client_ca: clients.pem }";
        setup.admin_listener(&format!("address: \"127.0.0.1:0\", {tls}"))
    });
    let url = format!("http://{}", loopback.address());
    assert_told(&ann, &ann.with(&url, "", ("", ""), LIST), 1, &["does not speak plain HTTP", "https://"]);
}
