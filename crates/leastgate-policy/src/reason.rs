//! Every reason a request was answered for, with what the caller is told: one enum, one table (§6).
//!
//! The documents print [`Reason::table`]; nothing else in the product maps a reason to a status.

use std::fmt;

/// What a decision came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The request goes to the upstream, or the gateway answers it itself (preflight, own token).
    Allow,
    /// The request is refused.
    Deny,
}

impl Effect {
    /// `allow` or `deny`, as events and labels spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// One row of the table: what goes with a reason.
struct Row {
    name: &'static str,
    /// HTTP status, problem type (the last part of its URN), its title, gRPC status, RFC 9209 error.
    answer: Option<(u16, &'static str, &'static str, u8, &'static str)>,
}

macro_rules! reasons {
    ($( $(#[$doc:meta])* $variant:ident = $name:literal $(, $status:literal, $problem:literal, $title:literal, $grpc:literal, $error:literal)? ; )*) => {
        /// Why a request was allowed or refused. Closed: dashboards, events and answers rely on the names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $( $(#[$doc])* $variant, )* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Reason] = &[ $( Reason::$variant, )* ];
        }

        const TABLE: &[Row] = &[ $( Row { name: $name, answer: reasons!(@answer $($status, $problem, $title, $grpc, $error)?) }, )* ];
    };
    (@answer) => { None };
    (@answer $status:literal, $problem:literal, $title:literal, $grpc:literal, $error:literal) => { Some(($status, $problem, $title, $grpc, $error)) };
}

reasons! {
    /// A scope of the token allows it.
    ScopeGranted = "scope_granted";
    /// A public rule of the api allows it.
    PublicRule = "public_rule";
    /// A CORS preflight, answered by the gateway.
    Preflight = "preflight";
    /// The caller asks about its own token (`/.well-known/leastgate`), answered by the gateway.
    OwnToken = "own_token";
    /// The head is not one well-formed request.
    RequestMalformed = "request_malformed", 400, "malformed-request", "The request is malformed", 3, "http_request_error";
    /// Two readers could take the path for two different things (§3).
    PathAmbiguous = "path_ambiguous", 400, "ambiguous-path", "The path is ambiguous", 3, "http_request_error";
    /// CONNECT, TRACE, or a method that is not `A-Z 0-9 -`.
    MethodUnsupported = "method_unsupported", 501, "method-unsupported", "The method is not supported", 12, "http_request_error";
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    ExpectationUnsupported = "expectation_unsupported", 417, "expectation-failed", "The expectation is not supported", 3, "http_request_error";
    /// No api has this host and path.
    HostUnknown = "host_unknown", 421, "unknown-host", "No api is served under this host and path", 5, "http_request_error";
    /// The request's body came too slowly.
    RequestTimeout = "request_timeout", 408, "request-timeout", "The request took too long", 3, "http_request_error";
    /// The target is over its cap.
    UriTooLong = "uri_too_long", 414, "uri-too-long", "The request target is too long", 3, "http_request_error";
    /// The body is over its cap.
    BodyTooLarge = "body_too_large", 413, "body-too-large", "The request body is too large", 3, "http_request_error";
    /// The head is over its caps.
    HeadTooLarge = "head_too_large", 431, "head-too-large", "The request head is too large", 3, "http_request_error";
    /// No credential, or one of another scheme.
    CredentialMissing = "credential_missing", 401, "credential-required", "A token is required", 16, "http_request_denied";
    /// A credential in a place where it leaks, or two of them.
    CredentialMisplaced = "credential_misplaced", 400, "invalid-credential-transport", "The credential is in the wrong place", 3, "http_request_denied";
    /// Not the shape of a token, or a wrong checksum.
    CredentialMalformed = "credential_malformed", 401, "invalid-token", "The token is not valid", 16, "http_request_denied";
    /// A well-formed token nobody issued here.
    TokenUnknown = "token_unknown", 401, "invalid-token", "The token is not valid", 16, "http_request_denied";
    /// The token was revoked.
    TokenRevoked = "token_revoked", 401, "invalid-token", "The token is not valid", 16, "http_request_denied";
    /// The token is disabled.
    TokenDisabled = "token_disabled", 401, "invalid-token", "The token is not valid", 16, "http_request_denied";
    /// The token's `not_before` lies ahead.
    TokenNotYetValid = "token_not_yet_valid", 401, "invalid-token", "The token is not valid", 16, "http_request_denied";
    /// The token names another environment than this gateway's.
    EnvironmentMismatch = "environment_mismatch", 401, "invalid-token", "The token is not valid", 16, "http_request_denied";
    /// The caller's address is outside the token's `source_ip`.
    SourceNotAllowed = "source_not_allowed", 401, "invalid-token", "The token is not valid", 16, "http_request_denied";
    /// The token's life is over.
    TokenExpired = "token_expired", 401, "token-expired", "The token has expired", 16, "http_request_denied";
    /// The token was rotated and its grace is over.
    TokenGraceEnded = "token_grace_ended", 401, "token-expired", "The token has expired", 16, "http_request_denied";
    /// Another scope would have allowed it.
    InsufficientScope = "insufficient_scope", 403, "insufficient-scope", "Token lacks a required scope", 7, "http_request_denied";
    /// A deny rule of one of the token's scopes matches.
    ExplicitDeny = "explicit_deny", 403, "explicit-deny", "A rule denies this request", 7, "http_request_denied";
    /// A boundary matches: no scope can allow this.
    BoundaryDeny = "boundary_deny", 403, "explicit-deny", "A rule denies this request", 7, "http_request_denied";
    /// A scope of the token would allow it, but for a condition.
    ConditionFailed = "condition_failed", 403, "condition-failed", "A condition of the scope is not met", 7, "http_request_denied";
    /// No scope at all allows it.
    NoMatchingScope = "no_matching_scope", 403, "no-matching-scope", "No scope allows this request", 7, "http_request_denied";
    /// Too many refused credentials from this source.
    SourceFailuresLimited = "source_failures_limited", 429, "too-many-failures", "Too many failed attempts", 8, "http_request_denied";
    /// The token is over its rate.
    TokenRateLimited = "token_rate_limited", 429, "rate-limited", "The token is over its limit", 8, "http_request_denied";
    /// The token has too many requests under way.
    TokenConcurrencyLimited = "token_concurrency_limited", 429, "rate-limited", "The token is over its limit", 8, "http_request_denied";
    /// No policy is in force yet, or its decision cannot be recorded as configured.
    AuthorizationUnavailable = "authorization_unavailable", 503, "authorization-unavailable", "Requests cannot be authorized right now", 14, "proxy_internal_error";
    /// The gateway is at a cap.
    Overloaded = "overloaded", 503, "overloaded", "The gateway is at its limit", 14, "proxy_internal_error";
    /// The gateway is going away.
    Draining = "draining", 503, "draining", "The gateway is shutting down", 14, "proxy_internal_error";
    /// The upstream cannot be reached.
    UpstreamUnreachable = "upstream_unreachable", 503, "upstream-unreachable", "The upstream cannot be reached", 14, "destination_unavailable";
    /// The upstream broke HTTP.
    UpstreamProtocol = "upstream_protocol", 502, "upstream-protocol", "The upstream sent an invalid response", 14, "http_protocol_error";
    /// The upstream took too long.
    UpstreamTimeout = "upstream_timeout", 504, "upstream-timeout", "The upstream took too long", 4, "http_response_timeout";
}

impl Reason {
    fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The name in events, labels and documents.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.row().name
    }

    /// The reason of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
    }

    /// Whether a request with this reason passes.
    #[must_use]
    pub fn effect(self) -> Effect {
        if self.row().answer.is_none() { Effect::Allow } else { Effect::Deny }
    }

    /// HTTP status of the refusal; `None` where the request passes.
    #[must_use]
    pub fn status(self) -> Option<u16> {
        self.row().answer.map(|answer| answer.0)
    }

    /// The problem type: what follows `urn:leastgate:problem:` (RFC 9457).
    #[must_use]
    pub fn problem(self) -> Option<&'static str> {
        self.row().answer.map(|answer| answer.1)
    }

    /// The problem's title, the same for every occurrence (RFC 9457 §3.1.3).
    #[must_use]
    pub fn title(self) -> Option<&'static str> {
        self.row().answer.map(|answer| answer.2)
    }

    /// The `grpc-status` of the refusal.
    #[must_use]
    pub fn grpc(self) -> Option<u8> {
        self.row().answer.map(|answer| answer.3)
    }

    /// The error type of the `Proxy-Status` field (RFC 9209 §2.3).
    #[must_use]
    pub fn proxy_status_error(self) -> Option<&'static str> {
        self.row().answer.map(|answer| answer.4)
    }

    /// Whether `disclose: conceal` turns it into the one identical 404: the four 403 problems (§6).
    #[must_use]
    pub fn is_concealable(self) -> bool {
        self.status() == Some(403)
    }

    /// Whether shadow mode makes it advisory: the scopes' own verdicts, and nothing else (§5).
    #[must_use]
    pub fn is_advisory_in_shadow(self) -> bool {
        matches!(self, Self::InsufficientScope | Self::NoMatchingScope | Self::ConditionFailed | Self::ExplicitDeny)
    }

    /// Whether a request that was let through can be refused for it later on: by a change of its token or of the policy, or
    /// because the time has come. What is wrong with the request itself was found before.
    #[must_use]
    pub fn may_cut(self) -> bool {
        let is_of_request = matches!(self, Self::RequestMalformed | Self::HostUnknown);
        is_of_request || matches!(self.status(), Some(401 | 403))
    }

    /// The table of reasons as Markdown, as the documents print it.
    #[must_use]
    pub fn table() -> String {
        let mut text =
            String::from("| reason | status | problem | title | grpc | Proxy-Status |\n|---|--:|---|---|--:|---|\n");
        for reason in Self::ALL {
            let row = reason.row();
            text.push_str(&match row.answer {
                None => format!("| `{}` | | | | | |\n", row.name),
                Some((status, problem, title, grpc, error)) => {
                    format!("| `{}` | {status} | `{problem}` | {title} | {grpc} | `{error}` |\n", row.name)
                }
            });
        }
        text
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_its_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.as_str()), Some(*reason));
        }
    }

    #[test]
    fn conceal_covers_the_four_rows_of_403() {
        let concealed = Reason::ALL.iter().filter(|reason| reason.is_concealable()).count();
        assert_eq!(concealed, 5, "explicit_deny and boundary_deny share a row");
    }

    #[test]
    fn a_boundary_binds_in_shadow() {
        assert!(!Reason::BoundaryDeny.is_advisory_in_shadow());
    }
}
