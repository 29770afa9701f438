//! The gateway's file: defaults, precedence, paths, and the file that `config show` prints.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use leastgate_config::{
    AdminAddress, CertificateFiles, ClassPolicy, GatewayInputs, HealthCheck, Limits, ListenerTls, Override,
    SecretSource, SinkKind, TokenSource, UpstreamTlsFiles, Workers, find_gateway_file, load_gateway,
};

use crate::{Folder, SMALLEST, gateway};

fn env(pairs: &[(&str, &str)]) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn what_is_left_out_takes_its_default() {
    let config = gateway(SMALLEST).unwrap().config;
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.workers, Workers::Auto);
    assert_eq!(config.listeners.data.address, address("127.0.0.1:8080"));
    assert!(!config.listeners.data.well_known, "nobody is told anything that was not asked for");
    assert_eq!(config.listeners.ops, address("0.0.0.0:9901"));
    assert_eq!(config.listeners.admin, AdminAddress::Tcp(address("127.0.0.1:9902")));
    assert_eq!(config.retention, Duration::from_secs(90 * 86_400));
    assert_eq!(config.credential_header, "authorization");
    assert_eq!(config.tokens, TokenSource::Declared);
    assert_eq!(config.audit.sinks.len(), 1);
    assert_eq!((config.audit.sinks[0].name.as_str(), &config.audit.sinks[0].kind), ("main", &SinkKind::Stdout));
    assert_eq!(config.audit.sinks[0].classes.deny, ClassPolicy::Drop);
    assert_eq!(config.audit.sinks[0].classes.admin, ClassPolicy::Block);
    assert_eq!(config.upstreams[0].connect_timeout, Duration::from_secs(2));
    assert_eq!((config.upstreams[0].endpoints[0].host(), config.upstreams[0].endpoints[0].port()), ("127.0.0.1", 8081));
    assert_eq!(config.state_dir, None);
}

#[test]
fn an_upstream_takes_the_gateways_timeouts_unless_it_sets_its_own() {
    let text =
        format!("{SMALLEST}limits: {{ upstream_connect: 7s }}\n").replace(" ] } }", " ], response_timeout: 9s } }");
    let upstream = gateway(&text).unwrap().config.upstreams.remove(0);
    assert_eq!((upstream.connect_timeout, upstream.response_timeout), (Duration::from_secs(7), Duration::from_secs(9)));
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let folder = Folder::with(&format!("{SMALLEST}limits: {{ connections: 1, body: 1MiB, head_fields: 1 }}\n"));
    let loaded = load_gateway(&GatewayInputs {
        env: env(&[
            ("LEASTGATE__LIMITS__CONNECTIONS", "2"),
            ("LEASTGATE__LIMITS__BODY", "2MiB"),
            ("LEASTGATE__UPSTREAMS__ORDERS__HOST", "rewrite"),
            ("LEASTGATE__TRUSTED_PROXIES", "[10.0.0.0/8]"),
            ("LEASTGATE__LISTENERS__DATA__WELL_KNOWN", "true"),
            ("LEASTGATE__PEPPER__CURRENT__FILE", "p"),
            ("LEASTGATE_OTHER", "x"),
            ("HOME", "x"),
        ]),
        flags: vec![Override {
            name: "--max-connections".to_owned(),
            path: vec!["limits".to_owned(), "connections".to_owned()],
            value: "3".to_owned(),
        }],
        ..folder.inputs()
    })
    .unwrap();
    let limits = &loaded.config.limits;
    assert_eq!((limits.connections, limits.body, limits.head_fields), (3, 2 << 20, 1));
    assert_eq!(loaded.config.trusted_proxies.len(), 1);
    assert!(loaded.config.listeners.data.well_known);
    // A path of the environment is the caller's, one of the file the file's.
    assert_eq!(loaded.config.pepper.current, SecretSource::File("p".into()));
    let shown = folder.anonymous(&loaded.render(true));
    for line in [
        "connections: 3  # --max-connections\n",
        "body: 2MiB  # env LEASTGATE__LIMITS__BODY\n",
        "head_fields: 1  # leastgate.yaml:6\n",
        "head_timeout: 10s  # default\n",
        "host: rewrite  # env LEASTGATE__UPSTREAMS__ORDERS__HOST\n",
        "trusted_proxies: [ 10.0.0.0/8 ]  # env LEASTGATE__TRUSTED_PROXIES\n",
    ] {
        assert!(shown.contains(line), "{line}{shown}");
    }
}

#[test]
fn a_misspelt_variable_is_an_error() {
    let folder = Folder::with(SMALLEST);
    for (name, hint) in [
        ("LEASTGATE__LIMIT__BODY", "did you mean LEASTGATE__LIMITS__BODY?"),
        ("LEASTGATE__LIMITS__BODDY", "did you mean LEASTGATE__LIMITS__BODY?"),
        ("LEASTGATE__UPSTREAMS__ORDERS__HOSTS", "did you mean LEASTGATE__UPSTREAMS__ORDERS__HOST?"),
        ("LEASTGATE__QQQQQQ", "sets no key"),
        ("LEASTGATE__", "sets no key"),
    ] {
        let errors =
            load_gateway(&GatewayInputs { env: env(&[(name, "1")]), ..folder.inputs() }).expect_err("accepted");
        assert!(errors.to_string().contains(hint), "{errors}");
        assert!(errors.summary_line().starts_with(&format!("{name}: ")), "{}", errors.summary_line());
    }
}

#[test]
fn a_bad_value_of_the_environment_is_an_error_at_its_name() {
    let folder = Folder::with(SMALLEST);
    let env = env(&[("LEASTGATE__LIMITS__BODY", "sixteen")]);
    let errors = load_gateway(&GatewayInputs { env, ..folder.inputs() }).expect_err("accepted");
    assert_eq!(
        errors.summary_line(),
        "LEASTGATE__LIMITS__BODY:1:1: `sixteen`: expected a size such as 512B, 8KiB or 16MiB, or none"
    );
}

#[test]
fn the_environment_alone_is_enough() {
    let inputs = GatewayInputs {
        file: None,
        env: env(&[
            ("LEASTGATE__ENVIRONMENT", "prod"),
            ("LEASTGATE__UPSTREAMS__ORDERS__ENDPOINTS", "[ 'http://127.0.0.1:1' ]"),
            ("LEASTGATE__PEPPER__CURRENT__ENV", "PEPPER"),
            ("LEASTGATE__TOKENS__SOURCE", "declared"),
            ("LEASTGATE__POLICY__FILES", "[ policy.yaml ]"),
        ]),
        flags: Vec::new(),
    };
    assert_eq!(load_gateway(&inputs).unwrap().config.environment, "prod");
}

#[test]
fn no_file_and_nothing_else_says_what_to_do() {
    let errors = load_gateway(&GatewayInputs::default()).expect_err("accepted").to_string();
    assert!(errors.contains("/etc/leastgate/leastgate.yaml") && errors.contains("leastgate init"), "{errors}");
    assert_eq!(find_gateway_file(Some(Path::new("/x/y.yaml"))).as_deref(), Some(Path::new("/x/y.yaml")));
}

#[test]
fn paths_of_the_file_are_relative_to_it() {
    let folder = Folder::with(&SMALLEST.replace("env: PEPPER", "file: secrets/pepper"));
    let config = load_gateway(&folder.inputs()).unwrap().config;
    let root = folder.file().parent().unwrap().to_owned();
    assert_eq!(config.policy.files, [root.join("policy.yaml")]);
    assert_eq!(config.pepper.current, SecretSource::File(root.join("secrets/pepper")));
}

#[test]
fn what_is_shown_loads_as_the_same_configuration() {
    for text in [SMALLEST.to_owned(), std::fs::read_to_string(crate::shipped("leastgate.yaml")).unwrap()] {
        let folder = Folder::with(&text);
        let loaded = load_gateway(&folder.inputs()).unwrap();
        for origin in [false, true] {
            std::fs::write(folder.file(), loaded.render(origin)).unwrap();
            assert_eq!(load_gateway(&folder.inputs()).unwrap().config, loaded.config);
        }
    }
}

#[test]
fn what_is_shown_as_json_loads_as_the_same_configuration() {
    let folder = Folder::with(&std::fs::read_to_string(crate::shipped("leastgate.yaml")).unwrap());
    let loaded = load_gateway(&folder.inputs()).unwrap();
    assert_eq!(loaded.to_json()["upstreams"]["orders"]["allow_underscores"], false);
    assert_eq!(loaded.to_json()["limits"]["connections"], 10_000);
    std::fs::write(folder.file(), loaded.to_json().to_string().replace("\":", "\": ")).unwrap();
    assert_eq!(load_gateway(&folder.inputs()).unwrap().config, loaded.config);
}

#[test]
fn a_listener_with_tls_may_stand_in_the_open_and_its_files_are_relative_to_the_file() {
    let tls = "{ cert: tls/cert.pem, key: /k.pem, client_ca: ca.pem, sni: [ { cert: a.pem, key: a.key } ] }";
    let text = format!("{SMALLEST}listeners: {{ data: {{ address: \"0.0.0.0:8443\", tls: {tls} }} }}\n");
    let folder = Folder::with(&text);
    let loaded = load_gateway(&folder.inputs()).unwrap();
    let file = folder.file();
    let beside = |name: &str| file.with_file_name(name);
    let files = |cert: &str, key| CertificateFiles { cert: beside(cert), key };
    let expected = ListenerTls {
        default: files("tls/cert.pem", "/k.pem".into()),
        sni: vec![files("a.pem", beside("a.key"))],
        client_ca: Some(beside("ca.pem")),
    };
    assert_eq!(loaded.config.listeners.data.tls, Some(expected));
    std::fs::write(folder.file(), loaded.render(true)).unwrap();
    assert_eq!(load_gateway(&folder.inputs()).unwrap().config, loaded.config, "{}", loaded.render(true));
    let errors = gateway(&text.replace(", tls:", ", plaintext: true, tls:")).unwrap_err().to_string();
    assert!(errors.contains("TLS or plain HTTP"), "{errors}");
}

#[test]
fn the_admin_api_stands_in_the_open_with_mutual_tls_alone() {
    let text = |keys: &str| format!("{SMALLEST}listeners:\n  admin: {{ {keys} }}\n");
    let mutual = "tls: { cert: a.pem, key: /a.key, client_ca: ca.pem }";
    let folder = Folder::with(&text(&format!("address: \"0.0.0.0:9902\", {mutual}")));
    let loaded = load_gateway(&folder.inputs()).unwrap();
    let beside = |name: &str| folder.file().with_file_name(name);
    let expected = ListenerTls {
        default: CertificateFiles { cert: beside("a.pem"), key: "/a.key".into() },
        sni: vec![],
        client_ca: Some(beside("ca.pem")),
    };
    assert_eq!(loaded.config.listeners.admin_tls, Some(expected));
    std::fs::write(folder.file(), loaded.render(true)).unwrap();
    assert_eq!(load_gateway(&folder.inputs()).unwrap().config, loaded.config, "{}", loaded.render(true));
    assert!(gateway(&text(mutual)).is_ok(), "on loopback it may");

    for address in ["0.0.0.0:9902", "192.0.2.1:9902", "[::]:9902", "[::ffff:192.0.2.1]:9902"] {
        let errors = gateway(&text(&format!("address: \"{address}\""))).unwrap_err().to_string();
        assert!(errors.contains("over mutual TLS alone") && errors.contains("client_ca: FILE"), "{errors}");
        assert!(errors.contains("leastgate.yaml:7:21"), "{errors}");
    }
    for (keys, word) in [
        ("address: \"0.0.0.0:9902\", tls: { cert: a.pem, key: a.key }", "client_ca"),
        ("tls: { cert: a.pem, key: a.key, client_ca: c.pem, sni: [] }", "sni"),
        ("address: \"unix:/run/admin.sock\", tls: { cert: a.pem, key: a.key, client_ca: c.pem }", "admits by uid"),
    ] {
        let errors = gateway(&text(keys)).unwrap_err().to_string();
        assert!(errors.contains(word), "{word}: {errors}");
    }
}

#[test]
fn credential_headers_that_mean_something_else_are_refused() {
    for header in ["host", "Cookie", "x-forwarded-for", "X-Leastgate-Subject", "connection", "x_api_key", "a b"] {
        let text = format!("{SMALLEST}credential: {{ header: \"{header}\" }}\n");
        assert!(gateway(&text).is_err(), "{header}");
    }
    let text = format!("{SMALLEST}credential: {{ header: X-Api-Key }}\n");
    assert_eq!(gateway(&text).unwrap().config.credential_header, "x-api-key");
}

#[test]
fn an_upstream_may_have_endpoints_with_tls() {
    let keys = "\"https://a\", \"https://b:1\" ], http2: true, check: { path: /up, interval: 7s }, \
                tls: { ca: ca.pem, cert: tls/c.pem, key: /k.pem, name: up.internal }";
    let folder = Folder::with(&SMALLEST.replace("\"http://127.0.0.1:8081\" ]", keys));
    let upstream = load_gateway(&folder.inputs()).unwrap().config.upstreams.remove(0);
    let root = folder.file().parent().unwrap().to_owned();
    assert!(upstream.http2 && upstream.is_https());
    assert_eq!(upstream.check, Some(HealthCheck { path: "/up".to_owned(), interval: Duration::from_secs(7) }));
    assert_eq!(upstream.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>(), ["https://a", "https://b:1"]);
    assert_eq!((upstream.tls.ca, upstream.tls.name.as_deref()), (Some(root.join("ca.pem")), Some("up.internal")));
    let identity = upstream.tls.identity.unwrap();
    assert_eq!((identity.cert, identity.key), (root.join("tls/c.pem"), "/k.pem".into()));
    let plain = gateway(SMALLEST).unwrap().config.upstreams.remove(0);
    assert!(!plain.http2 && !plain.is_https() && plain.tls == UpstreamTlsFiles::default());
}

#[test]
fn endpoints_are_scheme_host_and_port() {
    for wrong in [
        "127.0.0.1:8081",
        "http://",
        "http://a/b",
        "http://a?b",
        "http://u@a",
        "ftp://a",
        "http://a:0",
        "http://a:99999",
        "http://a:",
    ] {
        let text = SMALLEST.replace("http://127.0.0.1:8081", wrong);
        assert!(gateway(&text).is_err(), "{wrong}");
    }
    for (right, host, port) in [
        ("http://a", "a", 80),
        ("http://a:1/", "a", 1),
        ("http://[::1]:8081", "[::1]", 8081),
        ("https://a", "a", 443),
        ("https://a:1", "a", 1),
    ] {
        let endpoint = gateway(&SMALLEST.replace("http://127.0.0.1:8081", right))
            .unwrap()
            .config
            .upstreams
            .remove(0)
            .endpoints
            .remove(0);
        assert_eq!((endpoint.host(), endpoint.port()), (host, port));
        assert_eq!(endpoint.is_https(), right.starts_with("https"));
    }
}
