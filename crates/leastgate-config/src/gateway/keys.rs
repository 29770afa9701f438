//! Every key of the gateway's file.

use super::limits;
use crate::notation::{DURATION, ENVIRONMENT, NETWORK, RATE, SIZE, SOCKET, WORDS};
use crate::shape::{Field, Notation, Shape, Tagged, defaulted, optional, required};

/// The gateway's file.
pub(crate) const GATEWAY: Shape = Shape::Object(&[
    required(
        "environment",
        Shape::Text(&ENVIRONMENT),
        "The environment this gateway serves; tokens of another are refused.",
    ),
    optional(
        "state_dir",
        Shape::Text(&WORDS),
        "Where the store and the audit position are kept; locked by one process.",
    ),
    defaulted(
        "workers",
        Shape::CountOr("auto", 1, 1_024),
        "auto",
        "Worker threads; auto: one for each CPU of the cgroup's quota.",
    ),
    defaulted("listeners", Shape::Object(LISTENERS), "{}", "Where the gateway listens."),
    defaulted(
        "trusted_proxies",
        Shape::List(&Shape::Text(&NETWORK), 0, None),
        "[]",
        "Networks whose X-Forwarded-For is believed.",
    ),
    required(
        "upstreams",
        Shape::Map(&UPSTREAM_NAME, &Shape::Object(UPSTREAM)),
        "The APIs behind the gateway, by name.",
    ),
    defaulted("limits", Shape::Object(limits::FIELDS), "{}", "Caps and deadlines of the data plane."),
    defaulted("retention", Shape::Text(&DURATION), "90d", "How long dead token records are kept."),
    defaulted("credential", Shape::Object(CREDENTIAL), "{}", "How a token is presented."),
    required("pepper", Shape::Vault(PEPPER), "The key that token digests are made under."),
    defaulted("tokens", Shape::Object(TOKENS), "{}", "Where tokens come from."),
    required("policy", Shape::Object(POLICY), "What tokens may do."),
    defaulted("audit", Shape::Object(AUDIT), "{}", "The record of every decision and change."),
    defaulted("metrics", Shape::Object(METRICS), "{}", "Prometheus metrics."),
]);

const LISTENERS: &[Field] = &[
    defaulted("data", Shape::Object(DATA), "{}", "The gateway itself."),
    defaulted("ops", Shape::Object(OPS), "{}", "Health, metrics and probes: read-only, no secrets."),
    defaulted("admin", Shape::Object(ADMIN), "{}", "The admin API, always authenticated."),
];

const DATA: &[Field] = &[
    defaulted("address", Shape::Text(&SOCKET), "127.0.0.1:8080", "IP address and port."),
    defaulted("plaintext", Shape::Flag, "false", "Needed to serve plain HTTP on an address that is not loopback."),
    optional("tls", Shape::Later("let a proxy in front of the gateway terminate TLS, and set plaintext: true"), ""),
];

const OPS: &[Field] = &[defaulted("address", Shape::Text(&SOCKET), "0.0.0.0:9901", "IP address and port.")];

const ADMIN: &[Field] = &[
    defaulted("address", Shape::Text(&ADMIN_ADDRESS), "127.0.0.1:9902", "A loopback address and port, or unix:PATH."),
    optional("tls", Shape::Later("listen on loopback or on unix:PATH"), ""),
];

const ADMIN_ADDRESS: Notation =
    Notation { check: |text| super::AdminAddress::parse(text).map(drop), pattern: Some("^(unix:/.+|.+:[0-9]{1,5})$") };

const UPSTREAM_NAME: Notation = Notation {
    check: |text| {
        let named = text.len() <= 63 && text.starts_with(|first: char| first.is_ascii_lowercase());
        let plain =
            text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
        if named && plain {
            Ok(())
        } else {
            Err("expected 1 to 63 of a-z, 0-9, - and _, the first a letter".to_owned())
        }
    },
    pattern: Some("^[a-z][a-z0-9_-]{0,62}$"),
};

const UPSTREAM: &[Field] = &[
    required(
        "endpoints",
        Shape::List(&Shape::Text(&ENDPOINT), 1, Some((1, "several endpoints of one upstream are not supported yet"))),
        "Where it listens: one URL, scheme, host and port.",
    ),
    defaulted(
        "host",
        Shape::Choice(&["preserve", "rewrite"], &[]),
        "preserve",
        "The Host it sees: the client's, or the endpoint's.",
    ),
    optional(
        "connect_timeout",
        Shape::Text(&DURATION),
        "Longest wait for a connection; default limits.upstream_connect.",
    ),
    optional(
        "response_timeout",
        Shape::Text(&DURATION),
        "Longest wait for the head of a response; default limits.upstream_response.",
    ),
    defaulted("max_connections", Shape::Count(1, 1_000_000), "256", "Most connections to it at a time."),
    defaulted("allow_underscores", Shape::Flag, "false", "Forward header fields with _ in their name."),
    optional("probe", Shape::Object(PROBE), "Fixed paths behind /probe/NAME/live and /ready of the ops listener."),
    optional("tls", Shape::Later("reach the upstream over http://"), ""),
];

const ENDPOINT: Notation =
    Notation { check: |text| super::Endpoint::parse(text).map(drop), pattern: Some("^http://[^/?#@]+/?$") };

const PROBE: &[Field] = &[
    optional("live", Shape::Text(&PROBE_PATH), "Path of its liveness probe."),
    optional("ready", Shape::Text(&PROBE_PATH), "Path of its readiness probe."),
];

const PROBE_PATH: Notation = Notation {
    check: |text| {
        let target = text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok() && !text.contains('#');
        if target { Ok(()) } else { Err("expected a path such as /healthz".to_owned()) }
    },
    pattern: Some("^/[^#\\s]*$"),
};

const CREDENTIAL: &[Field] =
    &[defaulted("header", Shape::Text(&HEADER), "authorization", "The header field that carries the token.")];

const HEADER: Notation =
    Notation { check: |text| super::credential_header(text).map(drop), pattern: Some("^[0-9A-Za-z!#$%&'*+.^_`|~-]+$") };

const PEPPER: &[Field] = &[
    required("current", Shape::Secret(SECRET), "Where it is read from."),
    optional("previous", Shape::Later("keep one pepper; a new one makes every token unknown"), ""),
];

const SECRET: &[Field] = &[
    optional("file", Shape::Text(&WORDS), "A file that holds it."),
    optional("env", Shape::Text(&VARIABLE), "An environment variable that holds it."),
    optional("credential", Shape::Text(&CREDENTIAL_NAME), "A file of that name in $CREDENTIALS_DIRECTORY (systemd)."),
];

const VARIABLE: Notation = Notation {
    check: |text| {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let named = plain && !text.is_empty() && !text.starts_with(|first: char| first.is_ascii_digit());
        if named { Ok(()) } else { Err("expected the name of an environment variable".to_owned()) }
    },
    pattern: Some("^[A-Za-z_][A-Za-z0-9_]*$"),
};

const CREDENTIAL_NAME: Notation = Notation {
    check: |text| {
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        let named = plain && !text.is_empty() && !text.trim_matches('.').is_empty();
        if named { Ok(()) } else { Err("expected the name of a credential, not a path".to_owned()) }
    },
    pattern: Some("^[A-Za-z0-9._-]+$"),
};

const TOKENS: &[Field] = &[defaulted(
    "source",
    Shape::Choice(&["store", "declared"], &[]),
    "store",
    "store: kept in state_dir; declared: by digest in the policy files.",
)];

const POLICY: &[Field] = &[
    required("files", Shape::List(&Shape::Text(&WORDS), 1, None), "The policy's files; they merge as sets."),
    defaulted(
        "candidate",
        Shape::List(&Shape::Text(&WORDS), 0, Some((0, "candidate policies are not supported yet"))),
        "[]",
        "Policy files evaluated beside the policy and only recorded: not supported yet.",
    ),
];

const AUDIT: &[Field] = &[
    defaulted(
        "sinks",
        Shape::Map(&WORDS, &Shape::Tagged(&SINK)),
        "{ main: { kind: stdout } }",
        "Where events go, by name.",
    ),
    defaulted("classes", Shape::Object(CLASSES), "{}", "What happens when a sink can't keep up, by class of event."),
    defaulted(
        "unauthenticated_per_source",
        Shape::Text(&RATE),
        "10/s",
        "Unauthenticated events of one address beyond which they become one summary.",
    ),
    defaulted("recent", Shape::Count(0, 10_000_000), "4096", "Events kept in memory for explain, what-if and events."),
    optional("sign", Shape::Later("checkpoints are chained by hash; signatures come later"), ""),
];

const SINK: Tagged =
    Tagged { tag: "kind", variants: &[("stdout", STDOUT_SINK), ("file", FILE_SINK)], later: &["syslog", "http"] };

const STDOUT_SINK: &[Field] = &[KIND, OWN_CLASSES];

const FILE_SINK: &[Field] = &[
    KIND,
    required("path", Shape::Text(&WORDS), "The file; rotated ones get a suffix."),
    defaulted("rotate_size", Shape::Text(&SIZE), "256MiB", "A file of this size is rotated."),
    defaulted("rotate_age", Shape::Text(&DURATION), "1d", "A file of this age is rotated."),
    defaulted("fsync", Shape::Choice(&["batch", "never"], &[]), "batch", "When written events are forced to disk."),
    OWN_CLASSES,
];

const KIND: Field = required("kind", Shape::Choice(&["stdout", "file"], &["syslog", "http"]), "stdout or file.");

const OWN_CLASSES: Field =
    optional("classes", Shape::Object(SINK_CLASSES), "Where this sink differs from audit.classes.");

const CLASS: Shape = Shape::Choice(&["drop", "block"], &["strict", "spill"]);
const ALWAYS_DROP: Shape = Shape::Later("unauthenticated is always drop, so that a flood can't push out what matters");

const CLASSES: &[Field] = &[
    defaulted("allow", CLASS, "drop", "Requests that were forwarded."),
    defaulted("deny", CLASS, "drop", "Requests that were refused."),
    defaulted("admin", CLASS, "block", "Changes that an administrator made."),
    defaulted("lifecycle", CLASS, "block", "Starts, stops, reloads, expiries."),
    optional("unauthenticated", ALWAYS_DROP, ""),
];

const SINK_CLASSES: &[Field] = &[
    optional("allow", CLASS, "Requests that were forwarded."),
    optional("deny", CLASS, "Requests that were refused."),
    optional("admin", CLASS, "Changes that an administrator made."),
    optional("lifecycle", CLASS, "Starts, stops, reloads, expiries."),
    optional("unauthenticated", ALWAYS_DROP, ""),
];

const METRICS: &[Field] = &[defaulted(
    "max_routes",
    Shape::Count(0, 100_000),
    "500",
    "Most route templates that are metric labels; beyond them `_other`.",
)];
