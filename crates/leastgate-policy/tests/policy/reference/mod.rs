//! The naive reference evaluator: the scope language written down a second time, as plainly as possible.
//!
//! It shares no code with the engine, neither its template parser nor its path function, so that a mistake has to be
//! made twice to go unseen. It reads the plain specification, loops over every rule, compiles nothing and remembers
//! nothing. Its only tools are `std` and `unicode-normalization`.

pub(crate) mod condition;
pub(crate) mod credential;
pub(crate) mod decision;
pub(crate) mod head;
pub(crate) mod host;
pub(crate) mod path;
pub(crate) mod readers;
pub(crate) mod source;
pub(crate) mod template;

use std::net::IpAddr;

use leastgate_policy::Reason;

/// What a gateway knows besides its policy.
#[derive(Clone, Debug)]
pub(crate) struct GatewayView {
    pub(crate) environment: String,
    pub(crate) credential_header: String,
    pub(crate) trusted_proxies: Vec<String>,
    /// Upstreams that take field names with `_`.
    pub(crate) allow_underscores: Vec<String>,
    /// It tells callers about their own tokens.
    pub(crate) well_known: bool,
}

/// A token as the reference sees it: the secret text itself, so that looking it up is comparing strings.
#[derive(Clone, Debug)]
pub(crate) struct TokenView {
    pub(crate) text: String,
    pub(crate) roles: Vec<String>,
    pub(crate) grants: Vec<(String, Option<u64>)>,
    pub(crate) source_ip: Vec<String>,
    pub(crate) not_before: Option<u64>,
    pub(crate) expires: Option<u64>,
    pub(crate) state: StateView,
}

/// The states a token can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StateView {
    Active,
    Rotating,
    Disabled,
    Revoked,
}

/// A request as it came off the wire.
#[derive(Clone)]
pub(crate) struct RawRequest {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) peer: IpAddr,
}

impl std::fmt::Debug for RawRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "from {}", self.peer)?;
        writeln!(f, "{} {:?}", self.method, self.target)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {}", value.escape_ascii())?;
        }
        Ok(())
    }
}

impl RawRequest {
    /// The values of every line of that header, in order, whatever its case.
    pub(crate) fn values(&self, name: &str) -> Vec<&[u8]> {
        let mut found = Vec::new();
        for (field, value) in &self.headers {
            if field.eq_ignore_ascii_case(name) {
                found.push(value.as_slice());
            }
        }
        found
    }

    /// The elements of a comma-separated header over all its lines, trimmed, lower-cased, empty ones left out.
    pub(crate) fn elements(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        for value in self.values(name) {
            for element in String::from_utf8_lossy(value).split(',') {
                let element = element.trim().to_ascii_lowercase();
                if !element.is_empty() {
                    found.push(element);
                }
            }
        }
        found
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Answer,
    Deny,
}

/// The reference's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) effect: Effect,
    pub(crate) reason: Reason,
    /// The api the request was judged on, once that is known.
    pub(crate) api: Option<String>,
    /// Ids of the matching rules, sorted; of a conditional rule without the digest after `#`.
    pub(crate) rules: Vec<String>,
    /// Scopes any one of which would have allowed it, sorted.
    pub(crate) required_any_of: Vec<String>,
    /// In shadow: what it would have been refused for.
    pub(crate) shadowed: Option<Reason>,
    pub(crate) expired_at: Option<u64>,
    /// The end of a token that may be used, at most seven days ahead.
    pub(crate) ending: Option<u64>,
}

impl Judgement {
    /// A refusal that no rule took part in.
    pub(crate) fn refused(reason: Reason) -> Judgement {
        Judgement {
            effect: Effect::Deny,
            reason,
            api: None,
            rules: Vec::new(),
            required_any_of: Vec::new(),
            shadowed: None,
            expired_at: None,
            ending: None,
        }
    }
}
