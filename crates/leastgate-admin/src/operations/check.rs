//! One decision, explained: judged by the engine itself, forwarded nowhere.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use leastgate_policy::{
    Case, Decision, Effect, PolicySnapshot, Reason, RequestFacts, Source, TokenDigest, TokenKind, TokenLimits,
    TokenTable, decide,
};

use super::advice::Advice;
use super::find::find;
use super::{no_query, view};
use crate::api::{CheckRequest, CheckResult, CheckedToken, LimitsView, NearestMiss};
use crate::call::{Call, Reply, from_json};
use crate::problem::{Kind, Problem};

pub(crate) fn check(call: &Call<'_>) -> Result<Reply, Problem> {
    no_query(call)?;
    let asked: CheckRequest = from_json(call.body)?;
    let question = Question {
        call,
        policy: call.shared.policy()?,
        token: asked.token.as_deref().map(|wanted| Subject::find(call, wanted)).transpose()?,
        source: source(asked.source_ip.as_deref())?,
    };
    let mut parts = head(&asked)?;
    if let Some(Subject { presented: Presented::Text(value), .. }) = &question.token {
        parts.headers.insert(question.policy.credential_header().clone(), value.clone());
    }
    let decision = question.decide(&parts);
    Reply::json(&question.explain(&decision, &parts))
}

/// What a request is judged with.
struct Question<'a> {
    call: &'a Call<'a>,
    policy: Arc<PolicySnapshot>,
    token: Option<Subject>,
    source: Source,
}

/// The token that is meant.
struct Subject {
    presented: Presented,
    digest: TokenDigest,
    known: Option<CheckedToken>,
}

/// How the engine is told which token it is.
enum Presented {
    /// As the credential of the request, as it would come from the wire: a forged, damaged or foreign text is refused
    /// for the reason it would be refused for there.
    Text(HeaderValue),
    /// By the digest of a token whose text nobody but its owner has.
    Digest,
}

impl Subject {
    /// By name or accessor, neither of which has a `_`; or by its text, which is never repeated.
    fn find(call: &Call<'_>, wanted: &str) -> Result<Self, Problem> {
        if [TokenKind::Token, TokenKind::Admin].iter().any(|kind| wanted.starts_with(kind.prefix())) {
            return Self::of_text(call, wanted);
        }
        let found = find(call.shared, wanted)?;
        let known = CheckedToken { accessor: found.accessor.to_string(), name: found.name };
        Ok(Self { presented: Presented::Digest, digest: found.digest, known: Some(known) })
    }

    /// Known only by the digest of the whole text: its accessor is public, and anybody can write it into another one.
    fn of_text(call: &Call<'_>, text: &str) -> Result<Self, Problem> {
        let given = &call.shared.given;
        let digests = given.authority.key().digests(text.as_bytes());
        let found = given.authority.tokens().find(&digests);
        let digest =
            digests.previous.filter(|_| found.as_ref().is_some_and(|found| found.1)).unwrap_or(digests.current);
        let known =
            found.map(|(token, _)| CheckedToken { accessor: token.accessor.to_string(), name: token.name.to_string() });
        let is_bearer = call.shared.policy()?.credential_header() == header::AUTHORIZATION;
        let scheme = if is_bearer { "Bearer " } else { "" };
        let mut value = HeaderValue::try_from(format!("{scheme}{text}"))
            .map_err(|_| Problem::new(Kind::Invalid, "`token` has characters that no token has"))?;
        value.set_sensitive(true);
        Ok(Self { presented: Presented::Text(value), digest, known })
    }
}

fn source(text: Option<&str>) -> Result<Source, Problem> {
    let peer = match text {
        None => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(text) => text.parse().map_err(|_| Problem::new(Kind::Invalid, "`source_ip` must be an IP address"))?,
    };
    Ok(Source { peer, port: 0 })
}

/// The request's head as the gateway would read it from the wire.
fn head(asked: &CheckRequest) -> Result<Parts, Problem> {
    let invalid = |detail: &str| Problem::new(Kind::Invalid, detail);
    let no_url = || invalid("`url` is neither a URL nor a path").hint("write http://host/path, or /path");
    let url: Uri = asked.url.parse().map_err(|_| no_url())?;
    // `orders` is the authority of a CONNECT to HTTP's grammar, and a path that lacks its slash to whoever typed it.
    if url.scheme().is_none() && url.authority().is_some() {
        return Err(no_url());
    }
    let target = url.path_and_query().map_or("/", |target| target.as_str());
    let mut request = Request::new(());
    *request.method_mut() =
        Method::from_bytes(asked.method.as_bytes()).map_err(|_| invalid("`method` is not a method"))?;
    *request.uri_mut() = target.parse().map_err(|_| invalid("the path of `url` can't be read"))?;
    let headers = request.headers_mut();
    for (name, value) in &asked.headers {
        let name: HeaderName = name.parse().map_err(|_| invalid("a name in `headers` is not one of a header field"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| invalid("a value in `headers` is not one of a header field"))?;
        headers.append(name, value);
    }
    if let Some(authority) = url.authority() {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| invalid("the host of `url` can't be read"))?;
        headers.insert(header::HOST, host);
    }
    headers.entry(header::HOST).or_insert(HeaderValue::from_static("localhost"));
    Ok(request.into_parts().0)
}

/// An allow or a deny, with what both have.
struct Judged<'a> {
    effect: Effect,
    reason: Reason,
    case: &'a Case,
    detail: Option<&'static str>,
    granted_by: Vec<String>,
    required_any_of: Vec<String>,
    failed_conditions: Vec<String>,
    status: Option<u16>,
}

impl<'a> Judged<'a> {
    fn of(decision: &'a Decision) -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let plain = |effect, reason, case| Judged {
            effect,
            reason,
            case,
            detail: None,
            granted_by: vec![],
            required_any_of: vec![],
            failed_conditions: vec![],
            status: None,
        };
        match decision {
            Decision::Allow(permit) => {
                let mut judged = plain(Effect::Allow, permit.reason(), permit.case());
                judged.granted_by = names(&permit.granted_by());
                if let leastgate_policy::Basis::Shadowed(denial) = permit.basis() {
                    judged.required_any_of = names(&denial.required_any_of());
                    judged.failed_conditions = names(&denial.failed_conditions());
                }
                judged
            }
            Decision::Answer(answer) => plain(Effect::Allow, answer.reason(), answer.case()),
            Decision::Deny(denial) => Judged {
                detail: denial.detail,
                required_any_of: names(&denial.required_any_of()),
                failed_conditions: names(&denial.failed_conditions()),
                status: denial.reason.status(),
                ..plain(Effect::Deny, denial.reason, denial.case())
            },
        }
    }
}

impl Question<'_> {
    fn decide(&self, parts: &Parts) -> Decision {
        let given = &self.call.shared.given;
        let facts = RequestFacts::parse(parts, &self.source, &self.policy, given.authority.key(), self.call.now);
        match (facts, &self.token) {
            (Err(denial), _) => Decision::Deny(denial),
            (Ok(facts), Some(Subject { presented: Presented::Digest, digest, .. })) => {
                self.judge(&facts.with_digest(*digest))
            }
            (Ok(facts), _) => self.judge(&facts),
        }
    }

    fn judge(&self, facts: &RequestFacts) -> Decision {
        decide(facts, &self.policy, self.call.now)
    }

    fn explain(&self, decision: &Decision, parts: &Parts) -> CheckResult {
        let judged = Judged::of(decision);
        let case = judged.case;
        let rules: Vec<String> = case.rules().map(|rule| rule.id.to_string()).collect();
        let tokens = self.policy.tokens();
        let advice = self.advice(tokens, parts);
        let is_shadow = case.mode() == leastgate_policy::Mode::Shadow;
        let shadow_until = |name: &str| (self.call.shared.given.hooks.shadow_until)(name);
        CheckResult {
            effect: judged.effect.as_str().to_owned(),
            reason: judged.reason.as_str().to_owned(),
            detail: advice.detail(judged.reason).or_else(|| judged.detail.map(str::to_owned)),
            mode: case.mode().as_str().to_owned(),
            until: case.api().filter(|_| is_shadow).and_then(|api| shadow_until(&api.name)),
            status: judged.status,
            token: self.token.as_ref().and_then(|token| token.known.clone()),
            limits: self.limits(tokens),
            api: case.api().map(|api| api.name.to_string()),
            rule: rules.first().cloned(),
            rules,
            template: case.rules().next().map(|rule| rule.template.to_string()),
            held: case.held().into_iter().map(str::to_owned).collect(),
            nearest_miss: (judged.reason == Reason::NoMatchingScope).then(|| self.nearest_miss(parts)).flatten(),
            fix: advice.fix(judged.reason, &judged.required_any_of, &judged.failed_conditions),
            granted_by: judged.granted_by,
            required_any_of: judged.required_any_of,
            failed_conditions: judged.failed_conditions,
            policy_rev: case.revision().to_owned(),
        }
    }

    fn limits(&self, tokens: &TokenTable) -> Option<LimitsView> {
        let limits = tokens.get(&self.token.as_ref()?.digest)?.terms?.limits;
        (limits != TokenLimits::default()).then(|| view::limits(limits))
    }

    /// The same path with another method or the other trailing slash, if some scope allows that: what the token
    /// holds already first.
    fn nearest_miss(&self, parts: &Parts) -> Option<NearestMiss> {
        let mut misses: Vec<NearestMiss> = neighbours(parts).into_iter().filter_map(|near| self.miss(near)).collect();
        misses.sort_by_key(|miss| !miss.held);
        misses.into_iter().next()
    }

    fn miss(&self, (differs, parts): (&str, Parts)) -> Option<NearestMiss> {
        let decision = self.decide(&parts);
        let judged = Judged::of(&decision);
        let held = judged.reason == Reason::ScopeGranted;
        if !held && judged.reason != Reason::InsufficientScope {
            return None;
        }
        Some(NearestMiss {
            differs: differs.to_owned(),
            method: parts.method.to_string(),
            path: parts.uri.path().to_owned(),
            rule: judged.case.rules().next()?.id.to_string(),
            scopes: if held { judged.granted_by } else { judged.required_any_of },
            held,
        })
    }

    fn advice<'b>(&'b self, tokens: &'b TokenTable, parts: &'b Parts) -> Advice<'b> {
        let known = self.token.as_ref().and_then(|token| Some((token.known.as_ref()?.name.as_str(), token.digest)));
        Advice {
            policy: &self.policy,
            tokens,
            token: known,
            method: parts.method.as_str(),
            path: parts.uri.path(),
            source: self.source.peer,
        }
    }
}

/// Requests that differ in one thing.
fn neighbours(parts: &Parts) -> Vec<(&'static str, Parts)> {
    let methods = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
    let others = methods.into_iter().filter(|method| *method != parts.method);
    let by_method = others.map(|method| {
        let mut near = parts.clone();
        near.method = method;
        ("method", near)
    });
    let by_slash = other_slash(&parts.uri).map(|uri| {
        let mut near = parts.clone();
        near.uri = uri;
        ("trailing_slash", near)
    });
    by_slash.into_iter().chain(by_method).collect()
}

fn other_slash(uri: &Uri) -> Option<Uri> {
    match uri.path() {
        "/" => None,
        path => path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned).parse().ok(),
    }
}
