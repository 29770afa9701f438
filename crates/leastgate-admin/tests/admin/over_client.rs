//! The client of the commands against the real plane.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use leastgate_admin::api::{CheckRequest, CreateToken, PatchToken, RotateToken, Ttl};
use leastgate_admin::client::{Client, ClientError, Endpoint, ListTokens, ops};
use leastgate_policy::token::mint;
use leastgate_policy::{Accessor, TokenKind};

use crate::fixture::{Plane, start};

const PATIENCE: Duration = Duration::from_secs(30);

fn over_socket(plane: &Plane) -> Client {
    Client::new(Endpoint::Unix(plane.socket.clone()), PATIENCE)
}

fn over_tcp(plane: &Plane) -> Client {
    Client::new(format!("http://{}", plane.admin).parse().unwrap(), PATIENCE)
}

fn bot() -> CreateToken {
    CreateToken {
        name: "bot".into(),
        owner: Some("team".into()),
        roles: vec!["reader".into()],
        ttl: Some(Ttl::HOUR),
        ..CreateToken::default()
    }
}

fn check(token: &str, method: &str, url: &str) -> CheckRequest {
    CheckRequest { token: Some(token.into()), method: method.into(), url: url.into(), ..CheckRequest::default() }
}

#[test]
fn a_token_is_made_over_the_socket_and_checked_over_tcp() {
    let plane = start();
    let issued = over_socket(&plane).create_token(&bot()).unwrap();
    assert_eq!(plane.decide(issued.secret.expose()), "scope_granted");
    assert!(!format!("{issued:?}").contains(issued.secret.expose()));
    let client = over_tcp(&plane).with_credential(&format!("{}\n", plane.root));
    assert_eq!(client.token("bot").unwrap().accessor, issued.token.accessor);
    assert_eq!(
        client.tokens(&ListTokens { owner: Some("team".into()), ..ListTokens::default() }).unwrap().items.len(),
        1
    );
    assert_eq!(client.usage("bot").unwrap().rules, []);
    assert_eq!(client.status().unwrap().tokens.active, 1);
    assert_eq!(client.policy().unwrap().roles, ["reader"]);
    assert_eq!(client.admins().unwrap().items[0].name, "root");

    let allowed = client.check(&check("bot", "GET", "http://orders.internal/v1/orders?x=1")).unwrap();
    assert_eq!(
        (allowed.effect.as_str(), allowed.granted_by, allowed.fix),
        ("allow", vec!["orders:read".to_owned()], None)
    );
    assert_eq!(allowed.rule.as_deref(), Some("orders:read/allow/GET /v1/orders"));

    assert!(client.revoke_token("bot", "leaked").unwrap().durable);
    let refused = client.check(&check(&issued.token.accessor, "GET", "/v1/orders")).unwrap();
    assert_eq!((refused.reason.as_str(), refused.status), ("token_revoked", Some(401)));
}

#[test]
fn an_edit_is_of_the_token_that_was_seen_and_not_of_its_successor() {
    let (plane, note) = (start(), Some(Some("n".to_owned())));
    let client = over_socket(&plane);
    client.create_token(&bot()).unwrap();
    let seen = client.token("bot").unwrap();
    client.rotate_token("bot", &RotateToken { grace: None, now: false, reason: "monthly".into() }).unwrap();
    let patch = PatchToken { note, reason: "x".into(), ..PatchToken::default() };
    let refused = client.edit_token(&seen, &patch).unwrap_err();
    assert!(refused.to_string().contains("change its successor"), "{refused}");
    let successor = client.token("bot").unwrap();
    assert_eq!(successor.note, None);
    assert_eq!(client.edit_token(&successor, &patch).unwrap().token.note.as_deref(), Some("n"));
}

#[test]
fn a_check_names_what_is_missing_and_what_comes_near() {
    let plane = start();
    let client = over_socket(&plane);
    client.create_token(&bot()).unwrap();
    let refund = client.check(&check("bot", "POST", "/v1/orders/7b0e/refunds")).unwrap();
    assert_eq!(
        (refund.effect.as_str(), refund.reason.as_str(), refund.status),
        ("deny", "insufficient_scope", Some(403))
    );
    assert_eq!(
        (refund.held, refund.required_any_of),
        (vec!["orders:read".to_owned()], vec!["orders:refund".to_owned()])
    );
    assert_eq!(refund.rule.as_deref(), Some("orders:refund/allow/POST /v1/orders/{order_id:hex}/refunds"));
    let fix = "leastgate token create --name NAME --scope orders:refund --ttl 30m --owner OWNER";
    assert_eq!(refund.fix.as_deref(), Some(fix), "never longer than the scope's max_ttl");

    let method = client.check(&check("bot", "DELETE", "/v1/orders")).unwrap();
    assert_eq!(method.reason, "no_matching_scope");
    let miss = method.nearest_miss.unwrap();
    assert_eq!((miss.differs.as_str(), miss.method.as_str(), miss.held), ("method", "GET", true));
    let slash = client.check(&check("bot", "GET", "/v1/orders/")).unwrap().nearest_miss.unwrap();
    assert_eq!((slash.differs.as_str(), slash.path.as_str()), ("trailing_slash", "/v1/orders"));
    assert_eq!(client.check(&check("bot", "GET", "/v1/nothing")).unwrap().nearest_miss, None);

    let ambiguous = client.check(&check("bot", "GET", "/v1//orders")).unwrap();
    assert_eq!((ambiguous.reason.as_str(), ambiguous.status), ("path_ambiguous", Some(400)));
    assert!(ambiguous.detail.is_some());
    let bare = client
        .check(&CheckRequest { method: "GET".into(), url: "/v1/orders".into(), ..CheckRequest::default() })
        .unwrap();
    assert_eq!(bare.reason, "credential_missing");
}

/// The accessor is public: whoever has only that has no token.
#[test]
fn a_check_by_text_judges_the_whole_text() {
    let plane = start();
    let client = over_socket(&plane);
    let issued = client.create_token(&bot()).unwrap();
    let genuine = client.check(&check(issued.secret.expose(), "GET", "/v1/orders")).unwrap();
    assert_eq!((genuine.effect.as_str(), genuine.token.map(|token| token.name)), ("allow", Some("bot".to_owned())));

    let accessor: Accessor = issued.token.accessor.parse().unwrap();
    let reasons = [
        (mint(TokenKind::Token, "test", accessor, &[9; 32]).expose().to_owned(), "token_unknown"),
        (mint(TokenKind::Admin, "test", accessor, &[9; 32]).expose().to_owned(), "token_unknown"),
        (mint(TokenKind::Token, "prod", accessor, &[9; 32]).expose().to_owned(), "environment_mismatch"),
        (format!("lgt_test_{accessor}_short"), "credential_malformed"),
    ];
    for (text, reason) in reasons {
        let request = check(&text, "GET", "/v1/orders");
        let refused = client.check(&request).unwrap();
        assert_eq!((refused.effect.as_str(), refused.reason.as_str(), refused.token), ("deny", reason, None));
        assert!(!format!("{request:?}").contains(&text), "{request:?}");
    }
}

#[test]
fn refusals_say_who_is_to_blame() {
    let plane = start();
    let missing = over_tcp(&plane).status().unwrap_err();
    assert!(missing.is_authentication(), "{missing}");
    assert!(missing.to_string().contains("LEASTGATE_ADMIN_TOKEN"), "{missing}");
    let unknown = over_socket(&plane).token("nobody").unwrap_err();
    assert_eq!(
        unknown.problem().map(|problem| (problem.status, problem.name().to_owned())),
        Some((404, "not-found".to_owned()))
    );
    assert!(!unknown.is_authentication());
    assert!(matches!(over_socket(&plane).token("lgt_test_x"), Err(ClientError::InvalidId)));

    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = Client::new(Endpoint::Tcp(free.to_string()), PATIENCE).status().unwrap_err();
    assert!(
        matches!(nobody, ClientError::Connect { .. }) && nobody.to_string().contains("leastgate serve"),
        "{nobody}"
    );
    let gone = Client::new(Endpoint::Unix("/nowhere/admin.sock".into()), PATIENCE).status().unwrap_err();
    assert!(matches!(gone, ClientError::Connect { .. }), "{gone}");
}

#[test]
fn a_silent_server_costs_no_more_than_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = Instant::now();
    let client = Client::new(Endpoint::Tcp(silent.local_addr().unwrap().to_string()), Duration::from_millis(200));
    assert!(matches!(client.status(), Err(ClientError::Timeout { .. })));
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn health_is_asked_of_the_ops_listener() {
    let plane = start();
    assert_eq!(ops(plane.ops, "/readyz", PATIENCE).unwrap(), (200, "ok\n".to_owned()));
}
