//! Every key of a policy file (scope-language §1).

use crate::notation::{DURATION, ENVIRONMENT, MOMENT, NETWORK, SIZE_OR_NONE, WORDS};
use crate::shape::{Field, Notation, Shape, defaulted, optional, required};

const TEXT: Shape = Shape::Text(&WORDS);
const TEXTS: Shape = Shape::List(&TEXT, 0, None);
const TIME: Shape = Shape::Text(&DURATION);
const DAY: Shape = Shape::Text(&MOMENT);
const RULES: Shape = Shape::List(&RULE, 0, None);
const NETWORKS: Shape = Shape::List(&Shape::Text(&NETWORK), 0, None);
const ENVIRONMENTS: Shape = Shape::List(&Shape::Text(&ENVIRONMENT), 0, None);

/// A policy file.
pub(crate) const POLICY: Shape = Shape::Object(&[
    required("version", Shape::Count(1, 1), "The version of the language."),
    optional("environments", ENVIRONMENTS, "The closed list of environments."),
    optional("apis", Shape::Map(&WORDS, &Shape::Object(API)), "The APIs, by name."),
    optional("scopes", Shape::Map(&WORDS, &Shape::Object(SCOPE)), "What can be granted, by name."),
    optional("roles", Shape::Map(&WORDS, &Shape::Object(ROLE)), "Named sets of scopes."),
    optional("boundaries", Shape::List(&Shape::Object(BOUNDARY), 0, None), "What no role can widen; denies only."),
    optional("token_rules", Shape::Object(TOKEN_RULES), "What every token must obey."),
    optional("tokens", Shape::List(&Shape::Object(TOKEN), 0, None), "Tokens declared by digest."),
]);

const API: &[Field] = &[
    optional("hosts", TEXTS, "Hosts it answers to; none: any."),
    defaulted("base", TEXT, "/", "The path it begins at, in whole segments."),
    required("upstream", TEXT, "The upstream of leastgate.yaml behind it."),
    defaulted(
        "mode",
        Shape::Choice(&["enforce", "shadow"], &[]),
        "enforce",
        "shadow: forward what no scope allows, and record it.",
    ),
    optional("until", DAY, "When shadow ends; at most 30 days ahead."),
    optional("public", TEXTS, "Rules that need no token."),
    defaulted(
        "disclose",
        Shape::Choice(&["full", "needed", "none", "conceal"], &[]),
        "needed",
        "What a refused caller is told.",
    ),
    optional("cors", Shape::Object(CORS), "Cross-origin requests."),
    optional("limits", Shape::Object(API_LIMITS), "Limits that differ from the gateway's."),
    optional("redact", TEXTS, "Path parameters that are recorded as type and keyed hash."),
];

const CORS: &[Field] = &[
    required("origins", Shape::List(&TEXT, 1, None), "Allowed origins; \"*\": any."),
    optional("headers", TEXTS, "Allowed request headers."),
    defaulted("credentials", Shape::Flag, "false", "Whether credentials may be sent."),
    optional("max_age", TIME, "How long a browser may keep the answer."),
];

const API_LIMITS: &[Field] = &[
    optional("body", Shape::Text(&SIZE_OR_NONE), "Largest request body, or none."),
    optional("response_timeout", TIME, "Longest wait for the head of a response."),
];

const SCOPE: &[Field] = &[
    required("api", TEXT, "The api its rules are tried on."),
    optional("allow", RULES, "What it allows."),
    optional("deny", RULES, "What it denies to a token that holds it."),
    defaulted("sensitivity", Shape::Choice(&["normal", "high"], &[]), "normal", "How much harm it can do."),
    optional("max_ttl", TIME, "Longest life of a token or grant that confers it."),
];

const RULE: Shape = Shape::Either(&TEXT, &Shape::Object(CONDITIONAL_RULE));

const CONDITIONAL_RULE: &[Field] = &[
    required("match", TEXT, "METHOD[,METHOD] TEMPLATE."),
    optional("when", Shape::Object(WHEN), "Conditions, all of which must hold."),
];

const WHEN: &[Field] = &[
    optional("header", CONDITION, "Header fields with the values one of which each must have."),
    optional("query", CONDITION, "Query parameters with the values one of which each must have."),
    optional("source_ip", NETWORKS, "Networks one of which must hold the caller."),
];

const CONDITION: Shape = Shape::Map(&WORDS, &VALUES);
const VALUES: Shape = Shape::Either(&CONDITION_VALUE, &Shape::List(&CONDITION_VALUE, 1, None));

/// A condition's value may be empty.
const CONDITION_VALUE: Shape = Shape::Text(&Notation { check: |_| Ok(()), pattern: Some("") });

const ROLE: &[Field] = &[
    optional("inherits", TEXTS, "Roles whose scopes it includes."),
    optional("scopes", TEXTS, "Scopes of its own."),
    optional("environments", ENVIRONMENTS, "Where it holds; absent: everywhere."),
    optional("max_ttl", TIME, "Longest life of a token that has it."),
    optional("owner", TEXT, "Who answers for it."),
];

const BOUNDARY: &[Field] = &[
    optional("environments", ENVIRONMENTS, "Where it binds; absent: everywhere."),
    optional("apis", TEXTS, "The apis it binds; absent: all."),
    required("deny", Shape::List(&RULE, 1, None), "What it denies."),
];

const TOKEN_RULES: &[Field] = &[
    defaulted("require_expiry", Shape::Flag, "false", "A token must expire."),
    optional("max_ttl", TIME, "Longest life of a token."),
    defaulted("require_owner", Shape::Flag, "false", "A token must have an owner."),
    optional("idle_disable", TIME, "A token of the store that is not used for so long is disabled."),
    optional(
        "rotation",
        Shape::Object(ROTATION),
        "When a token should be rotated: who is late is a finding and a metric.",
    ),
];

const ROTATION: &[Field] = &[required("every", TIME, "How often.")];

const TOKEN: &[Field] = &[
    required("accessor", Shape::Text(&ACCESSOR), "Its public id."),
    required("name", TEXT, "Its name, the subject."),
    optional("owner", TEXT, "Who answers for it."),
    required("digest", Shape::Text(&DIGEST), "blake3: and 64 hex digits."),
    required("env", Shape::Text(&ENVIRONMENT), "The environment it was made for."),
    optional("roles", TEXTS, "Its roles."),
    optional("grants", Shape::List(&GRANT, 0, None), "Its scopes."),
    optional("restrictions", Shape::Object(RESTRICTIONS), "Where and from when it may be used."),
    optional("limits", Shape::Object(TOKEN_LIMITS), "How much it may be used."),
    required("created", DAY, "When it was made."),
    optional("expires", DAY, "When its life ends."),
    defaulted(
        "state",
        Shape::Choice(&["active", "rotating", "disabled", "revoked"], &[]),
        "active",
        "Whether it may be used.",
    ),
];

const GRANT: Shape = Shape::Either(&TEXT, &Shape::Object(SCOPED_GRANT));

const SCOPED_GRANT: &[Field] = &[
    required("scope", TEXT, "The scope."),
    optional("expires", DAY, "When the grant ends; absent: with the token."),
    optional("reason", TEXT, "Why it was given."),
];

const RESTRICTIONS: &[Field] = &[
    optional("source_ip", NETWORKS, "Networks one of which must hold the caller."),
    optional("not_before", DAY, "The first moment of its life."),
];

const AT_LEAST_ONE: Shape = Shape::Count(1, u32::MAX as u64);

const TOKEN_LIMITS: &[Field] = &[
    optional("rate", AT_LEAST_ONE, "Requests a second, on the long run."),
    optional("burst", AT_LEAST_ONE, "How many of them may come at once; absent: as many as the rate."),
    optional("concurrent", AT_LEAST_ONE, "Requests under way at a time."),
];

const ACCESSOR: Notation = Notation {
    check: |text| {
        let named = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if named { Ok(()) } else { Err("expected the 10 letters and digits of an accessor".to_owned()) }
    },
    pattern: Some("^[0-9A-Za-z]{10}$"),
};

const DIGEST: Notation = Notation {
    check: |text| {
        let hex = text.strip_prefix("blake3:").unwrap_or_default();
        let digest = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if digest { Ok(()) } else { Err("expected blake3: and 64 lower-case hex digits".to_owned()) }
    },
    pattern: Some("^blake3:[0-9a-f]{64}$"),
};
