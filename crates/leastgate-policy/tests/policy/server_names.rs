//! §2 over TLS: a name that the connection was made for (SNI), a Host, and whether one api serves both.

use leastgate_policy::{Decision, Reason, decide};

use crate::notation::Example;

const APIS: &str = "
api a hosts=a.test,both.test:8443 base=/a
 public GET /a/{x}
api b hosts=b.test,both.test base=/b
 public GET /b/{x}
api wild hosts=*.c.test base=/c
 public GET /c/{x}
api anywhere base=/any
 public GET /any/{x}
";

/// What the request comes to, and the detail a refusal gives.
fn told(server_name: Option<&str>, host: &str, path: &str) -> (Reason, Option<&'static str>) {
    let example = Example::new(APIS);
    let (engine, now) = (example.engine(), example.world().now);
    let facts =
        engine.facts(&example.request(&format!("GET {path} | host: {host}")), now).expect("a request").expect("facts");
    let decision = decide(&facts.over_tls(server_name), engine.snapshot(), leastgate_policy::Timestamp(now));
    match decision {
        Decision::Allow(permit) => (permit.reason(), None),
        Decision::Answer(answer) => (answer.reason(), None),
        Decision::Deny(denial) => {
            assert!(denial.case().api().is_none(), "of an api that was not asked for nothing is told");
            (denial.reason, denial.detail)
        }
    }
}

#[test]
fn a_name_of_another_api_is_misdirected() {
    for (server_name, host, path) in [
        ("a.test", "b.test", "/b/x"),
        ("a.test", "b.test:8443", "/b/x"),
        ("A.Test", "b.test", "/b/x"),
        ("x.c.test", "a.test", "/a/x"),
        ("b.test", "x.c.test", "/c/x"),
    ] {
        let (reason, detail) = told(Some(server_name), host, path);
        assert_eq!(reason, Reason::HostUnknown, "{server_name} {host}{path}");
        assert!(detail.is_some_and(|detail| detail.contains("SNI")), "{detail:?}");
    }
}

#[test]
fn a_name_of_the_same_api_or_of_none_is_not() {
    for (server_name, host, path) in [
        (None, "a.test", "/a/x"),
        (Some("a.test"), "a.test", "/a/x"),
        (Some("A.TEST"), "a.test:443", "/a/x"),
        // A connection may be used for every name its certificate has (RFC 9113 §9.1.1), while the api is the same.
        (Some("both.test"), "b.test", "/b/x"),
        (Some("x.c.test"), "y.c.test", "/c/x"),
        // TLS names no port.
        (Some("both.test"), "a.test", "/a/x"),
        (Some("load-balancer.test"), "a.test", "/a/x"),
        (Some("not_a_host"), "a.test", "/a/x"),
        // It serves every host, the one of the connection too.
        (Some("a.test"), "elsewhere.test", "/any/x"),
    ] {
        assert_eq!(told(server_name, host, path), (Reason::PublicRule, None), "{server_name:?} {host}{path}");
    }
    assert_eq!(told(Some("a.test"), "a.test", "/nowhere"), (Reason::HostUnknown, None));
}
