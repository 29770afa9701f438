//! A request's head, from raw bytes through hyper's own parser to facts and a decision.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use leastgate_policy::host::Host;
use leastgate_policy::{Basis, Decision, OWN_TOKEN_PATH, OwnAnswer, Reason, RequestFacts};

use crate::fields::with_tokens;
use crate::path;
use crate::reference::{Effect, RawRequest};
use crate::world::{HOST, Holder, PEER, WORLD};

/// The bytes are what a client sends on one connection.
pub(crate) fn body(bytes: &[u8]) {
    let bytes = with_tokens(bytes);
    for parts in heads(&bytes) {
        check(&bytes, &parts);
    }
}

/// The heads that hyper reads, with the caps of the gateway.
fn heads(bytes: &[u8]) -> Vec<Parts> {
    let heads = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        heads.borrow_mut().push(request.into_parts().0);
        std::future::ready(Ok::<_, Infallible>(Response::new(String::new())))
    });
    let mut server = http1::Builder::new();
    server.half_close(false).max_header_size(32 * 1024).max_buf_size(64 * 1024);
    run(server.serve_connection(Wire { rest: bytes, ends: true }, service), 1_000);
    heads.take()
}

/// Runs a connection of which all is here; hyper itself gives way now and then, but not more than so many times.
pub(crate) fn run(connection: impl Future, turns: usize) {
    let mut connection = pin!(connection);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..turns {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
}

/// A client that has sent everything and takes everything.
#[derive(Debug)]
pub(crate) struct Wire<'a> {
    pub(crate) rest: &'a [u8],
    /// Whether it says that it has.
    pub(crate) ends: bool,
}

impl Read for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() && !self.ends {
            return Poll::Pending;
        }
        let (now, later) = self.rest.split_at(self.rest.len().min(buffer.remaining()));
        buffer.put_slice(now);
        self.rest = later;
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What must hold of a head that was in these bytes.
pub(crate) fn check(bytes: &[u8], parts: &Parts) {
    let facts = match WORLD.parse(parts) {
        Ok(facts) => facts,
        Err(denial) => {
            let status = denial.reason.status();
            assert!(matches!(status, Some(400 | 414 | 501)), "{:?} is answered {status:?}", denial.reason);
            return compare(parts, &Decision::Deny(denial));
        }
    };
    let target = parts.uri.path_and_query().unwrap();
    path::check(target);
    assert!(holds(bytes, target.as_str().as_bytes()), "{target} was never received");
    check_shape(&facts, parts);
    let decision = WORLD.decide(&facts);
    assert_eq!(told(&decision), told(&WORLD.decide(&facts)), "two decisions of one request");
    compare(parts, &decision);
    match &decision {
        Decision::Deny(denial) => assert!(denial.reason.status().is_some_and(|status| status >= 400)),
        Decision::Answer(OwnAnswer::Preflight(_)) => assert_eq!(*facts.method(), Method::OPTIONS),
        Decision::Answer(OwnAnswer::OwnToken(own)) => {
            assert!(matches!(*facts.method(), Method::GET | Method::HEAD) && target.path() == OWN_TOKEN_PATH);
            let named = own.identity().map(|identity| identity.accessor);
            let holder = Holder::ALL.into_iter().find(|holder| named == Some(holder.accessor()));
            assert!(holder.is_some(), "{own:?}");
            check_fields(parts, holder);
        }
        Decision::Allow(permit) => {
            let named = permit.case().identity().map(|identity| identity.accessor);
            let holder = Holder::ALL.into_iter().find(|holder| named == Some(holder.accessor()));
            if facts.host().to_string().split(':').next() == Some(HOST) {
                path::check_grant(&facts, target, holder);
            }
            assert_eq!(!matches!(permit.basis(), Basis::Public), holder.is_some(), "{permit:?}");
            check_fields(parts, holder);
        }
    }
}

fn check_shape(facts: &RequestFacts, parts: &Parts) {
    let method = facts.method().as_str();
    let is_plain = method.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-'));
    assert!(is_plain && !matches!(method, "CONNECT" | "TRACE" | ""), "{method}");
    let host = facts.host().to_string();
    assert_eq!(Host::parse(host.as_bytes()).as_ref(), Ok(facts.host()), "{host} is not canonical");
    assert!(
        !host.ends_with('.') && !host.contains(['@', '%', '_', '/']) && host == host.to_ascii_lowercase(),
        "{host}"
    );
    let received: Vec<_> = parts.headers.get_all(header::HOST).iter().collect();
    assert_eq!(received.len(), 1, "several hosts");
    if let Some(authority) = parts.uri.authority() {
        assert_eq!(Host::parse(authority.as_str().as_bytes()).as_ref(), Ok(facts.host()));
        assert!(matches!(parts.uri.scheme_str(), Some("http" | "https")));
    }
}

/// What may pass: the token in its one place and nowhere else, and no field name that somebody reads as another.
fn check_fields(parts: &Parts, holder: Option<Holder>) {
    for (name, value) in &parts.headers {
        let is_plain = name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        assert!(is_plain, "{name} may be read as another");
        let is_own = name == header::AUTHORIZATION;
        for other in Holder::ALL {
            let is_here = holds(value.as_bytes(), other.token().as_bytes());
            assert!(!is_here || is_own, "a token passes in {name}");
        }
    }
    let query = parts.uri.query().unwrap_or_default();
    assert!(Holder::ALL.iter().all(|holder| !holds(query.as_bytes(), holder.token().as_bytes())), "a token in {query}");
    if let Some(holder) = holder {
        let values: Vec<_> = parts.headers.get_all(header::AUTHORIZATION).iter().collect();
        let [value] = values[..] else { panic!("{} credentials pass", values.len()) };
        let (scheme, token) = value.as_bytes().split_at(7);
        assert!(scheme.eq_ignore_ascii_case(b"Bearer ") && token == holder.token().as_bytes(), "{value:?}");
    }
}

/// The naive evaluator comes to the same decision, for the same rules.
fn compare(parts: &Parts, decision: &Decision) {
    let field = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.as_bytes().to_vec());
    let request = RawRequest {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers.iter().map(field).collect(),
        peer: PEER.into(),
    };
    let is_unversioned = parts.version != Version::HTTP_10 || !parts.headers.contains_key(header::UPGRADE);
    let is_whole = parts.uri.path_and_query().is_none_or(|target| !target.as_str().starts_with('?'));
    if !is_unversioned || !is_whole {
        // It knows no versions, and HTTP/1.0 has no upgrades; it takes `http://host?query`, which has no path to judge.
        return;
    }
    // What only shows in the parsed form: a scheme that HTTP/2 leaves in upper case, a target that was only a fragment.
    let is_known = matches!(parts.uri.scheme_str(), None | Some("http" | "https"));
    let is_nothing = |target: &PathAndQuery| Uri::from(target.clone()).path().is_empty();
    if !is_known || parts.uri.path_and_query().is_some_and(is_nothing) {
        return assert!(matches!(decision, Decision::Deny(_)), "{request:?}");
    }
    let judgement = WORLD.judge(&request);
    let expected = (judgement.effect, judgement.reason, judgement.rules);
    assert_eq!(told(decision), expected, "{request:?}");
}

/// Effect, reason and rules, these without the hash of their conditions.
fn told(decision: &Decision) -> (Effect, Reason, Vec<String>) {
    let (effect, reason, case) = match decision {
        Decision::Allow(permit) => (Effect::Allow, permit.reason(), permit.case()),
        Decision::Answer(answer) => (Effect::Answer, answer.reason(), answer.case()),
        Decision::Deny(denial) => (Effect::Deny, denial.reason, denial.case()),
    };
    let id = |id: &str| id.rsplit_once('#').map_or(id.to_owned(), |(id, _)| format!("{id}#"));
    let mut rules: Vec<String> = case.rules().map(|rule| id(&rule.id)).collect();
    rules.sort();
    (effect, reason, rules)
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}
