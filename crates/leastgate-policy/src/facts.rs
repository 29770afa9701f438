//! What a request says, read once: the step from bytes to [`RequestFacts`].
//!
//! This is where a credential is read. It is hashed here and its text goes no further.

mod credential;

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, header};

pub(crate) use self::credential::{Credential, unwrapped};
use self::credential::{credential, misplaced};
use crate::case::{Case, Denial};
use crate::condition::{ConditionFacts, HeaderFact, HeaderFacts};
use crate::fields;
use crate::host::{Host, HostName};
use crate::method;
use crate::path::{CanonicalPath, PathError};
use crate::protocol;
use crate::query;
use crate::reason::Reason;
use crate::shown;
use crate::snapshot::PolicySnapshot;
use crate::source::Source;
use crate::time::Timestamp;
use crate::token::{Digests, EnvironmentKey, Straggler, StragglerKind, TokenDigest};

/// Everything a decision asks about a request. It owns what it holds, so that a long request can be decided again.
#[derive(Clone, Debug)]
pub struct RequestFacts {
    pub(crate) method: Method,
    pub(crate) host: Host,
    /// The name that the TLS connection was made for.
    pub(crate) server_name: Option<HostName>,
    pub(crate) path: CanonicalPath,
    target: PathAndQuery,
    pub(crate) credential: Credential,
    /// Where a token stands that must not stand there, in words a caller may read.
    pub(crate) misplaced: Option<&'static str>,
    /// Tokens that stand anywhere in a head whose credential is not where and what it should be.
    pub(crate) shown: Vec<Digests>,
    /// Some field has a name that is another's to some upstream.
    pub(crate) has_odd_names: bool,
    pub(crate) is_grpc: bool,
    pub(crate) is_websocket: bool,
    pub(crate) is_preflight: bool,
    headers: HeaderFacts,
    client: Option<IpAddr>,
}

/// A request that is not one well-formed request.
pub(crate) struct Refusal(pub(crate) Reason, pub(crate) &'static str);

impl RequestFacts {
    /// Reads a request's head.
    ///
    /// # Errors
    /// The first step that fails: method, target, host, header shapes, then the path.
    pub fn parse(
        parts: &Parts,
        source: &Source,
        snapshot: &Arc<PolicySnapshot>,
        key: &EnvironmentKey,
        now: Timestamp,
    ) -> Result<Self, Denial> {
        Self::read(parts, source, snapshot, key)
            .map_err(|Refusal(reason, detail)| Denial {
                reason,
                detail: Some(detail),
                expired_at: None,
                over: None,
                case: Case::new(snapshot, now),
            })
            .map_err(|denial| denial.of_head(parts, key))
    }

    fn read(parts: &Parts, source: &Source, snapshot: &PolicySnapshot, key: &EnvironmentKey) -> Result<Self, Refusal> {
        if !method::is_supported(parts.method.as_str()) {
            return Err(Refusal(Reason::MethodUnsupported, "the method is CONNECT, TRACE or not of `A-Z 0-9 -`"));
        }
        let target = target(parts)?;
        let host = host(parts)?;
        let is_websocket = protocol::websocket(parts)?;
        let path = CanonicalPath::parse(target).map_err(|error| match error {
            PathError::TooLong(rule) => Refusal(Reason::UriTooLong, rule),
            PathError::Ambiguous(rule) => Refusal(Reason::PathAmbiguous, rule),
        })?;
        if query::overrides_method(target.query().unwrap_or_default()) {
            let detail =
                "the query asks for another method (`_method`, `X-HTTP-Method-Override`): send that one instead";
            return Err(Refusal(Reason::RequestMalformed, detail));
        }
        let header = snapshot.credential_header();
        let (credential, is_doubled) = credential(&parts.headers, header, key, snapshot.environment());
        let misplaced = misplaced(parts, target, &path, header, is_doubled);
        let is_out_of_place = misplaced.is_some() || matches!(credential, Credential::Malformed);
        let is_in_place = matches!(credential, Credential::Presented(_)) && *header == header::AUTHORIZATION;
        Ok(Self {
            shown: if is_out_of_place || !is_in_place && shown::has_basic(&parts.headers) {
                shown::digests(parts, key)
            } else {
                Vec::new()
            },
            misplaced,
            has_odd_names: !parts.headers.keys().all(fields::is_plain),
            is_grpc: protocol::is_grpc(parts),
            is_websocket,
            is_preflight: protocol::is_preflight(parts),
            headers: snapshot
                .condition_headers()
                .iter()
                .map(|name| (name.clone(), HeaderFact::read(&parts.headers, name)))
                .collect(),
            client: source.client(&parts.headers, snapshot.trusted_proxies()),
            method: parts.method.clone(),
            target: target.clone(),
            host,
            server_name: None,
            path,
            credential,
        })
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The canonical host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The canonical path.
    #[must_use]
    pub fn path(&self) -> &CanonicalPath {
        &self.path
    }

    /// The path as it was received.
    pub(crate) fn raw_path(&self) -> &str {
        self.target.path()
    }

    /// The raw query, where there is one.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.target.query()
    }

    /// The caller's address behind trusted proxies; `None` where it is unknown.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        self.client
    }

    /// The digests of the presented token, well-formed ones only.
    #[must_use]
    pub fn presented_digests(&self) -> Option<&Digests> {
        match &self.credential {
            Credential::Presented(digests) | Credential::Foreign(digests) => Some(digests),
            Credential::Missing | Credential::Malformed | Credential::Admin => None,
        }
    }

    /// What there is to do about the token that a decision found under the previous key: keep it under the current one.
    #[must_use]
    pub fn straggler(&self, case: &Case) -> Option<Straggler> {
        let identity = case.identity().filter(|identity| identity.is_straggler)?;
        let &Digests { current, previous } = self.presented_digests()?;
        Some(Straggler { kind: StragglerKind::Token, accessor: identity.accessor, previous: previous?, current })
    }

    /// The same request as if the token with this digest had been sent along, in its own place: for explaining a
    /// decision about a token whose text nobody but its owner has.
    #[must_use]
    pub fn with_digest(self, digest: TokenDigest) -> Self {
        Self { credential: Credential::Presented(digest.into()), ..self }
    }

    /// The same request over a TLS connection that was made for this name (SNI). One that no api can be served under
    /// says nothing.
    #[must_use]
    pub fn over_tls(self, server_name: Option<&str>) -> Self {
        let server_name = server_name.and_then(|name| HostName::parse(name).ok());
        Self { server_name: server_name.filter(|name| *name != self.host.name), ..self }
    }

    pub(crate) fn conditions(&self) -> ConditionFacts<'_> {
        ConditionFacts { headers: &self.headers, query: self.query(), client: self.client }
    }
}

/// The target in origin-form; absolute-form with http(s) is read as such (RFC 9112 §3.2).
fn target(parts: &Parts) -> Result<&PathAndQuery, Refusal> {
    let malformed = Refusal(Reason::RequestMalformed, "the request target is neither a path nor an http(s) URI");
    match parts.uri.scheme_str() {
        None if parts.uri.authority().is_some() => return Err(malformed),
        None | Some("http" | "https") => {}
        Some(_) => return Err(malformed),
    }
    parts.uri.path_and_query().filter(|target| target.as_str().starts_with('/') && !is_empty(target)).ok_or(malformed)
}

/// Whether nothing is left of a target but its dropped fragment. It reads as `/` and would be sent as nothing.
fn is_empty(target: &PathAndQuery) -> bool {
    target.as_str() == "/" && http::Uri::from(target.clone()).path().is_empty()
}

/// Exactly one Host, and the authority of the target equal to it (RFC 9112 §3.2.2).
fn host(parts: &Parts) -> Result<Host, Refusal> {
    let malformed = |rule| Refusal(Reason::RequestMalformed, rule);
    let mut fields = parts.headers.get_all(header::HOST).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return Err(malformed("there must be exactly one Host"));
    };
    let host = Host::parse(field.as_bytes()).map_err(|error| malformed(error.0))?;
    if let Some(authority) = parts.uri.authority() {
        let authority = Host::parse(authority.as_str().as_bytes()).map_err(|error| malformed(error.0))?;
        if authority != host {
            return Err(malformed("the target's authority differs from Host"));
        }
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_of_a_fragment_alone_is_none() {
        let read = |path: &str| {
            let uri = http::Uri::builder().scheme("http").authority("a").path_and_query(path).build().unwrap();
            let parts = http::Request::get(uri).body(()).unwrap().into_parts().0;
            target(&parts).map(|target| target.as_str().to_owned()).ok()
        };
        assert_eq!((read("#"), read("#x"), read("/#x"), read("/")), (None, None, Some("/".into()), Some("/".into())));
    }
}
