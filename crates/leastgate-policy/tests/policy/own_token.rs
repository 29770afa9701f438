//! `/.well-known/leastgate`, and the end of a token that its caller is told of: the engine and the reference say the same.

use std::time::Duration;

use leastgate_policy::token::mint;
use leastgate_policy::{
    Accessor, Authority, EnvironmentKey, OWN_TOKEN_PATH, Pepper, Reason, RequestFacts, Source, Straggler, Timestamp,
    TokenEntry, TokenKind, TokenState, authorize,
};

use crate::engine::compile;
use crate::generate::NOW;
use crate::notation::Example;
use crate::reference::decision::judge;

const POLICY: &str = "
gateway well_known=true
api a hosts=a.test shadow=+86400 cors=*
 public GET /public
 public GET /.well-known/security.txt
scope s
 allow * /**
boundary
 forbid * /never
 forbid * /.well-known/**
token t scopes=s
token nothing
token rotating state=rotating expires=+5
token revoked state=revoked
token disabled state=disabled
token expired expires=+0
token ended state=rotating expires=-1
token early not_before=+1
token bound source_ip=10.0.0.0/8";

const OWN: &str = "GET /.well-known/leastgate";

#[track_caller]
fn check(policy: &str, rows: &[(&str, &str, Reason)]) {
    let example = Example::new(policy);
    let engine = example.engine();
    for (sentence, line, reason) in rows {
        let request = example.request(line);
        let says = [engine.judge(&request, NOW), Some(judge(example.world(), &request))];
        for judgement in says.into_iter().flatten() {
            assert_eq!(judgement.reason, *reason, "{sentence}: {line}");
            assert!(*reason != Reason::OwnToken || judgement.api.is_none() && judgement.rules.is_empty(), "{sentence}");
        }
    }
}

#[test]
fn only_the_token_counts() {
    let rows = [
        ("its holder asks", format!("{OWN} | as t"), Reason::OwnToken),
        ("or wants no body", "HEAD /.well-known/leastgate | as t".into(), Reason::OwnToken),
        ("whatever it holds", format!("{OWN} | as nothing"), Reason::OwnToken),
        ("while its grace lasts", format!("{OWN} | as rotating"), Reason::OwnToken),
        ("under any host", format!("{OWN} | as t | host: nowhere.test:99"), Reason::OwnToken),
        ("in absolute form", "GET http://a.test/.well-known/leastgate | as t".into(), Reason::OwnToken),
        ("with a query", format!("{OWN}?a=b | as t"), Reason::OwnToken),
        ("no credential", OWN.into(), Reason::CredentialMissing),
        ("none that is one", format!("{OWN} | authorization: Bearer x"), Reason::CredentialMalformed),
        ("unknown", format!("{OWN} | as nobody"), Reason::TokenUnknown),
        ("of another environment", format!("{OWN} | as stranger"), Reason::EnvironmentMismatch),
        ("revoked", format!("{OWN} | as revoked"), Reason::TokenRevoked),
        ("disabled", format!("{OWN} | as disabled"), Reason::TokenDisabled),
        ("expired", format!("{OWN} | as expired"), Reason::TokenExpired),
        ("its grace ended", format!("{OWN} | as ended"), Reason::TokenGraceEnded),
        ("not yet valid", format!("{OWN} | as early"), Reason::TokenNotYetValid),
        ("from elsewhere", format!("{OWN} | as bound"), Reason::SourceNotAllowed),
        ("from where it may", format!("{OWN} | as bound | from 10.1.1.1"), Reason::OwnToken),
        ("misplaced", format!("{OWN}?t=$t | as t"), Reason::CredentialMisplaced),
        ("an odd name", format!("{OWN} | as t | x_odd: 1"), Reason::RequestMalformed),
    ];
    let rows: Vec<_> = rows.iter().map(|(sentence, line, reason)| (*sentence, line.as_str(), *reason)).collect();
    check(POLICY, &rows);
}

#[test]
fn what_is_not_exactly_that_question_is_a_request_like_others() {
    let rows = [
        ("another method", "POST /.well-known/leastgate | as t", Reason::BoundaryDeny),
        ("of a browser", "OPTIONS /.well-known/leastgate | as t", Reason::BoundaryDeny),
        (
            "a preflight",
            "OPTIONS /.well-known/leastgate | origin: x | access-control-request-method: GET",
            Reason::Preflight,
        ),
        ("a slash behind it", "GET /.well-known/leastgate/ | as t", Reason::BoundaryDeny),
        ("an escape", "GET /.well-known/le%61stgate | as t", Reason::BoundaryDeny),
        ("an escaped dot", "GET /%2Ewell-known/leastgate | as t", Reason::BoundaryDeny),
        ("another case", "GET /.WELL-KNOWN/leastgate | as t", Reason::BoundaryDeny),
        ("something below", "GET /.well-known/leastgate/x | as t", Reason::BoundaryDeny),
        ("something beside", "GET /.well-known/security.txt", Reason::BoundaryDeny),
        ("under no host of an api", "POST /.well-known/leastgate | as t | host: b.test", Reason::HostUnknown),
        ("ambiguous", "GET /.well-known//leastgate | as t", Reason::PathAmbiguous),
    ];
    check(POLICY, &rows);
    check(
        &POLICY.replace("well_known=true", "well_known=false"),
        &[
            ("not asked for", "GET /.well-known/leastgate | as t", Reason::BoundaryDeny),
            ("nor by anybody", "GET /.well-known/leastgate | as nobody", Reason::TokenUnknown),
        ],
    );
}

/// Otherwise who does nothing but ask would be kept under the former pepper until it is taken away.
#[test]
fn whoever_asks_is_seen_under_the_former_key() {
    let key = |byte| EnvironmentKey::derive(&Pepper::new(vec![byte; 32]).unwrap(), "prod");
    let text = mint(TokenKind::Token, "prod", Accessor::from_random(1), &[7; 32]);
    let example = Example::new("gateway well_known=true\napi a hosts=a.test cors=*\nscope s\n allow GET /x");
    let authority = Authority::new(key(2).replacing(&key(1)));
    let snapshot = authority.replace(compile(&example.policy, &example.gateway, NOW).unwrap());
    let straggler = |method: &str, path: &str| {
        let request = http::Request::builder().method(method).uri(path).header("host", "a.test").header("origin", "x");
        let request = request.header("authorization", format!("Bearer {}", text.expose()));
        let request = request.header("access-control-request-method", "GET").body(()).unwrap();
        let source = Source { peer: "192.0.2.1".parse().unwrap(), port: 1 };
        let (parts, ()) = request.into_parts();
        let facts = RequestFacts::parse(&parts, &source, &snapshot, authority.key(), Timestamp(NOW)).unwrap();
        let verdict = authorize(http::Request::new(()), &facts, &snapshot, Timestamp(NOW), Duration::ZERO);
        facts.straggler(verdict.case())
    };
    assert_eq!(straggler("GET", OWN_TOKEN_PATH), None, "nobody's");
    let entry = TokenEntry {
        digest: key(1).digest(text.expose().as_bytes()),
        accessor: Accessor::from_random(1),
        name: "bot".into(),
        owner: None,
        roles: vec![],
        grants: vec![("s".into(), None)],
        restrictions: Default::default(),
        limits: Default::default(),
        expires: None,
        state: TokenState::Active,
        is_canary: false,
        parent: None,
    };
    authority.upsert(entry).unwrap();
    let kept = |straggler: Option<Straggler>| straggler.map(|straggler| straggler.accessor);
    assert_eq!(kept(straggler("GET", OWN_TOKEN_PATH)), Some(Accessor::from_random(1)));
    assert_eq!(kept(straggler("GET", "/x")), Some(Accessor::from_random(1)));
    assert_eq!(straggler("OPTIONS", "/x"), None, "a preflight is nobody's");
}

#[test]
fn a_rule_that_would_never_be_asked_does_not_load() {
    let loads = |lines: &str, well_known: bool| {
        let example = Example::new(&format!("gateway well_known={well_known}\napi a hosts=a.test\nscope s\n{lines}"));
        compile(&example.policy, &example.gateway, NOW).map(drop)
    };
    for line in [
        " allow GET /.well-known/leastgate",
        " allow POST,HEAD /.well-known/leastgate",
        " deny * /.well-known/least%67ate",
        "boundary\n forbid GET /.well-known/leastgate",
        "api b hosts=b.test base=/.well-known\n public GET /.well-known/leastgate",
        " allow WS /.well-known/leastgate",
    ] {
        let errors = loads(line, true).unwrap_err();
        let said = errors.first().unwrap().to_string();
        assert!(
            errors.len() == 1 && said.contains("`/.well-known/leastgate` are answered by the gateway"),
            "{line}: {said}"
        );
        assert_eq!(loads(line, false), Ok(()), "{line}");
    }
    for line in [
        " allow POST /.well-known/leastgate",
        " allow GET /.well-known/leastgate/",
        " allow GET /.well-known/**",
        " deny GET /.well-known/*",
        " allow GET /.well-known/leastgate/x",
    ] {
        assert_eq!(loads(line, true), Ok(()), "{line}");
    }
}

/// The reason, and in how many seconds the token ends, if its caller is to know.
fn ending(example: &Example, line: &str) -> (Reason, Option<u64>) {
    let request = example.request(line);
    let told = example.engine().judge(&request, NOW).expect("a request");
    assert_eq!(judge(example.world(), &request), told, "{line}");
    (told.reason, told.ending.map(|end| end - NOW))
}

#[test]
fn the_end_of_a_token_is_told_in_its_last_seven_days() {
    let example = Example::new(
        "
gateway well_known=true
api a
 public GET /public
scope s
 allow GET /x
token week scopes=s expires=+604800
token more scopes=s expires=+604801
token last scopes=s expires=+1
token ever scopes=s
token rotating scopes=s state=rotating expires=+60
token over scopes=s expires=+0
token revoked scopes=s state=revoked expires=+60
token bound scopes=s expires=+60 source_ip=10.0.0.0/8",
    );
    for (line, reason, expected) in [
        ("GET /x | as week", Reason::ScopeGranted, Some(604_800)),
        ("GET /x | as more", Reason::ScopeGranted, None),
        ("GET /x | as last", Reason::ScopeGranted, Some(1)),
        ("GET /x | as ever", Reason::ScopeGranted, None),
        ("GET /x | as rotating", Reason::ScopeGranted, Some(60)),
        ("GET /y | as week", Reason::NoMatchingScope, Some(604_800)),
        ("GET /.well-known/leastgate | as week", Reason::OwnToken, Some(604_800)),
        ("GET /public | as week", Reason::PublicRule, None),
        ("GET /x | as over", Reason::TokenExpired, None),
        ("GET /x | as revoked", Reason::TokenRevoked, None),
        ("GET /x | as bound", Reason::SourceNotAllowed, None),
        ("GET /x", Reason::CredentialMissing, None),
        ("GET /x?t=$week | as week", Reason::CredentialMisplaced, None),
    ] {
        assert_eq!(ending(&example, line), (reason, expected), "{line}");
    }
}
