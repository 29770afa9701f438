//! Names of endpoints: the system's resolver is asked for them again and again while the gateway runs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::policies::orders_tokens;
use leastgate_testkit::process::Process;
use leastgate_testkit::recorder::RecorderUpstream;
use leastgate_testkit::small_disk::where_mounts_are_private;

use crate::fixtures::setup;

/// Ten times what an answer may become old.
const MOVED: Duration = Duration::from_secs(50);

fn upstream_at(last: u8, port: u16) -> RecorderUpstream {
    RecorderUpstream::start_at(SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), port)))
}

#[test]
fn a_name_that_moves_takes_its_requests_along() {
    where_mounts_are_private(|| {
        let former = upstream_at(2, 0);
        let port = former.address().port();
        let latter = upstream_at(3, port);
        let tokens = orders_tokens();
        let setup = setup(&tokens).upstream("orders", &format!("http://moving.test:{port}"));
        let hosts = setup.path().join("hosts");
        let say = |address: &str| fs::write(&hosts, format!("{address} moving.test\n")).unwrap();
        say("127.0.0.2");
        let mut mount = Command::new("mount");
        mount.arg("--bind").arg(&hosts).arg("/etc/hosts");
        assert_eq!(Process::run("mount", &mut mount, PATIENCE).code, Some(0));

        let gateway = setup.start();
        let ask = || gateway.get(&tokens["READER"], "/v1/orders").status;
        assert_eq!((ask(), former.count(), latter.count()), (200, 1, 0));
        say("127.0.0.3");
        until_true("a request at the new address", MOVED, || ask() == 200 && latter.count() > 0);
        let stayed = former.count();
        assert_eq!((ask(), former.count()), (200, stayed), "and none at the old one");
    });
}
