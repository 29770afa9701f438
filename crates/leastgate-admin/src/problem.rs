//! Every refusal of this plane: one closed table of kinds, and problem documents (RFC 9457) made of it.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use leastgate_policy::Accessor;
use leastgate_store::StoreError;
use leastgate_telemetry::redact;

use crate::api::ProblemView;

macro_rules! kinds {
    ($( $variant:ident = $status:literal, $name:literal, $title:literal; )*) => {
        /// What a refusal is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kind { $( $variant, )* }

        impl Kind {
            /// All there are.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[ $( Self::$variant, )* ];

            const fn row(self) -> (u16, &'static str, &'static str) {
                match self { $( Self::$variant => ($status, $name, $title), )* }
            }
        }
    };
}

kinds! {
    Malformed = 400, "malformed-request", "The request is malformed";
    AmbiguousPath = 400, "ambiguous-path", "The path is ambiguous";
    CredentialRequired = 401, "credential-required", "An admin credential is required";
    InvalidCredential = 401, "invalid-credential", "The admin credential is not valid";
    InsufficientRole = 403, "insufficient-role", "The role does not permit this";
    AboveCeiling = 403, "above-ceiling", "This is more than the administrator may give";
    Browser = 403, "browser-request", "Requests of web pages are refused";
    PeerRefused = 403, "peer-refused", "This user may not use the socket";
    NotFound = 404, "not-found", "There is no such thing";
    MethodNotAllowed = 405, "method-not-allowed", "The method is not allowed here";
    Timeout = 408, "request-timeout", "The request took too long";
    NameTaken = 409, "name-taken", "The name is taken";
    Declared = 409, "tokens-declared", "Tokens are declared in files";
    Conflict = 409, "conflict", "The state does not permit this";
    Stale = 412, "precondition-failed", "It was changed meanwhile";
    BodyTooLarge = 413, "body-too-large", "The request body is too large";
    MediaType = 415, "unsupported-media-type", "The body must be JSON";
    HostUnknown = 421, "unknown-host", "The Host is not this listener's";
    Invalid = 422, "invalid-value", "A value is not valid";
    TokenRules = 422, "token-rules", "The policy does not permit this token";
    ConditionRequired = 428, "precondition-required", "The change must say which version it is for";
    TooManyFailures = 429, "too-many-failures", "Too many failed attempts";
    Internal = 500, "internal", "Something failed that should not";
    NoPolicy = 503, "authorization-unavailable", "No policy is in force";
    AuditFull = 503, "audit-unavailable", "The change can't be recorded";
    Store = 503, "store-unavailable", "The store can't do this";
    Overloaded = 503, "overloaded", "Too much is under way";
    StorageFull = 507, "insufficient-storage", "There is no space left for it";
}

impl Kind {
    pub(crate) const fn status(self) -> u16 {
        self.row().0
    }

    /// Its name: what follows the prefix of a problem's type.
    pub(crate) const fn name(self) -> &'static str {
        self.row().1
    }

    pub(crate) const fn title(self) -> &'static str {
        self.row().2
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    detail: String,
    hint: Option<String>,
}

impl Problem {
    /// Whatever is said, no token is ever repeated to anybody.
    pub(crate) fn new(kind: Kind, detail: impl AsRef<str>) -> Self {
        Self { kind, detail: safe(detail.as_ref()), hint: None }
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl AsRef<str>) -> Self {
        self.hint = Some(safe(hint.as_ref()));
        self
    }

    /// Says which of many it is about.
    pub(crate) fn about(self, what: &str) -> Self {
        Self { detail: safe(&format!("{what}: {}", self.detail)), ..self }
    }

    /// Adds what else there is to know, behind the hint that it has.
    pub(crate) fn and_hint(self, more: &str) -> Self {
        let hint = self.hint.as_ref().map_or_else(|| more.to_owned(), |hint| format!("{hint}; {more}"));
        self.hint(hint)
    }

    pub(crate) fn status(&self) -> u16 {
        self.kind.status()
    }

    /// Its name: what an event records.
    pub(crate) fn name(&self) -> &'static str {
        self.kind.name()
    }

    fn view(&self) -> ProblemView {
        let (status, name, title) = self.kind.row();
        ProblemView {
            kind: format!("{}{name}", crate::api::problem_prefix()),
            title: title.to_owned(),
            status,
            detail: self.detail.clone(),
            hint: self.hint.clone(),
        }
    }
}

/// `text` without tokens. `lga_…` is how a credential is spoken of: what begins with an ellipsis is none.
fn safe(text: &str) -> String {
    let Some(at) = ["lga_…", "lgt_…"].iter().filter_map(|form| text.find(form)).min() else { return redact(text) };
    let (before, rest) = text.split_at(at);
    let (form, rest) = rest.split_at("lga_…".len());
    redact(before) + form + &safe(rest)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.view()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status() == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"leastgate admin\""));
        }
        if matches!(self.status(), 429 | 503) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<StoreError> for Problem {
    /// The store's messages say what to do; only what a caller can mend gets another status than 503.
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::NameTaken { .. } => Kind::NameTaken,
            StoreError::NotFound { .. } => Kind::NotFound,
            StoreError::Conflict { .. } => Kind::Stale,
            StoreError::Revoked { .. } | StoreError::NotRotatable { .. } => Kind::Conflict,
            StoreError::DiskFull { .. } => Kind::StorageFull,
            StoreError::BadCursor => Kind::Invalid,
            StoreError::Overloaded => Kind::Overloaded,
            _ => Kind::Store,
        };
        Self::new(kind, error.to_string())
    }
}

/// A revoked token can only be read.
pub(crate) fn revoked(accessor: Accessor) -> Problem {
    Problem::from(StoreError::Revoked { accessor })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_spoken_of_and_never_repeated() {
        for text in ["send `Authorization: Bearer lga_…`", "lgt_… or lga_…", "lga_…", ""] {
            assert_eq!(safe(text), text);
        }
        assert_eq!(safe("lgt_… is not lgt_prod_AAAAAAAAAA_secret"), "lgt_… is not lgt_prod_AAAAAAAAAA_REDACTED");
        assert_eq!(safe("lga_lgt_…"), "lga_REDACTEDlgt_…");
    }
}
