//! Every key of the gateway's file.

use super::{limits, tls, upstream};
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
        Shape::Map(&upstream::NAME, &Shape::Object(upstream::KEYS)),
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
    defaulted("well_known", Shape::Flag, "false", "Tells callers about their own tokens, at /.well-known/leastgate."),
    optional("tls", Shape::Object(tls::LISTENER), "Serves TLS, and nothing else, with these certificates."),
];

const OPS: &[Field] = &[defaulted("address", Shape::Text(&SOCKET), "0.0.0.0:9901", "IP address and port.")];

const ADMIN: &[Field] = &[
    defaulted("address", Shape::Text(&ADMIN_ADDRESS), "127.0.0.1:9902", "IP address and port, or unix:PATH."),
    optional("tls", Shape::Object(tls::ADMIN), "Serves mutual TLS, and nothing else; needed off loopback."),
];

const ADMIN_ADDRESS: Notation =
    Notation { check: |text| super::AdminAddress::parse(text).map(drop), pattern: Some("^(unix:/.+|.+:[0-9]{1,5})$") };

const CREDENTIAL: &[Field] =
    &[defaulted("header", Shape::Text(&HEADER), "authorization", "The header field that carries the token.")];

const HEADER: Notation =
    Notation { check: |text| super::credential_header(text).map(drop), pattern: Some("^[0-9A-Za-z-]+$") };

const PEPPER: &[Field] = &[
    required("current", Shape::Secret(SECRET), "Where it is read from."),
    optional(
        "previous",
        Shape::Secret(SECRET),
        "Where the one before it is read from, while it is being replaced: a token found under it is kept under the \
         current one from its next use on.",
    ),
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
    defaulted(
        "recent",
        Shape::Count(0, 10_000_000),
        "4096",
        "Events kept in memory for explain, what-if and events; fewer where they have more than 4 KiB on average.",
    ),
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
