//! Who may do what.

use leastgate_admin::{AdminConfig, AdminPlane, StartError};
use leastgate_store::{AdminRole, MayGrant};
use serde_json::json;

use crate::fixture::{Setup, admin, operator, raw, raw_unix, start};

#[test]
fn a_call_needs_a_valid_admin_credential() {
    let plane = start();
    let bare =
        raw(plane.admin, &format!("GET /v1/status HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", plane.admin));
    bare.refused(401, "credential-required");
    assert!(bare.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer ")));
    assert!(bare.json()["hint"].as_str().is_some_and(|hint| hint.contains("unix socket")));
    plane.get("lga_nonsense", "/v1/status").refused(401, "invalid-credential");
    assert_eq!(plane.get(&plane.root, "/v1/status").status, 200);

    let id = plane.root.split('_').nth(2).unwrap();
    let mut wrong = plane.root.clone();
    wrong.replace_range(20..21, if &wrong[20..21] == "x" { "y" } else { "x" });
    plane.get(&wrong, "/v1/status").refused(401, "invalid-credential");
    plane.store.revoke_admin(id.parse().unwrap(), leastgate_policy::Timestamp(2)).unwrap();
    plane.get(&plane.root, "/v1/status").refused(401, "invalid-credential");
    let refused = plane.events("status");
    assert!(refused.iter().all(|event| event["change"]["result"] != "ok") && refused.len() == 4, "{refused:?}");
}

#[test]
fn failures_are_limited_and_a_valid_credential_still_works() {
    let plane = start();
    let answers: Vec<u16> = (0..40).map(|_| plane.get("lga_wrong", "/v1/status").status).collect();
    assert_eq!(answers[0], 401);
    assert!(answers.contains(&429), "{answers:?}");
    assert_eq!(plane.get(&plane.root, "/v1/status").status, 200);
}

#[test]
fn a_data_plane_token_is_no_admin_credential() {
    let plane = start();
    let made = plane.post(
        &plane.root,
        "/v1/tokens",
        &json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "1h"}),
    );
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let refused = plane.get(&secret, "/v1/status");
    refused.refused(401, "invalid-credential");
    assert!(!refused.body.contains(&secret));
}

#[test]
fn a_viewer_reads_and_an_operator_makes_no_administrators() {
    let plane = start();
    let viewer = admin(&*plane.store, "eye", AdminRole::Viewer, MayGrant::everything());
    for target in ["/v1/tokens", "/v1/status", "/v1/policy", "/v1/admins", "/v1/events"] {
        assert_eq!(plane.get(&viewer, target).status, 200, "{target}");
    }
    let body = json!({"name": "bot", "owner": "team", "roles": ["reader"], "ttl": "1h"});
    plane.post(&viewer, "/v1/tokens", &body).refused(403, "insufficient-role");
    plane.post(&viewer, "/v1/tokens/bot/revoke", &json!({"reason": "x"})).refused(403, "insufficient-role");
    let operator = operator(&plane);
    plane.post(&operator, "/v1/admins", &json!({"name": "x", "role": "admin"})).refused(403, "insufficient-role");
    let refused = plane.events("token.create");
    assert_eq!(refused[0]["change"]["result"], "insufficient-role");
    assert_eq!(refused[0]["actor"]["subject"], "eye");
}

#[test]
fn an_operator_gives_within_the_ceiling_only() {
    let plane = start();
    let operator = operator(&plane);
    let body = |more: serde_json::Value| {
        let mut body = json!({"name": "bot", "owner": "team", "ttl": "30m"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let above = plane.post(&operator, "/v1/tokens", &body(json!({"scopes": ["orders:refund"]})));
    above.refused(403, "above-ceiling");
    assert!(above.body.contains("orders:refund"));
    plane.post(&operator, "/v1/tokens", &body(json!({"roles": ["reader"], "ttl": "2h"}))).refused(403, "above-ceiling");
    assert_eq!(plane.post(&operator, "/v1/tokens", &body(json!({"roles": ["reader"]}))).status, 201);

    // What another gave, an operator may take away, but not give back.
    let wide = body(json!({"name": "wide", "scopes": ["orders:refund"]}));
    assert_eq!(plane.post(&plane.root, "/v1/tokens", &wide).status, 201);
    let reason = json!({"reason": "incident 7"});
    assert_eq!(plane.post(&operator, "/v1/tokens/wide/disable", &reason).status, 200);
    plane.post(&operator, "/v1/tokens/wide/enable", &reason).refused(403, "above-ceiling");
    assert_eq!(plane.post(&plane.root, "/v1/tokens/wide/enable", &reason).json()["state"], "active");
}

#[test]
fn administrators_are_made_shown_once_and_revoked() {
    let plane = start();
    let ceiling = json!({"environments": ["test"], "roles": [], "scopes": "*", "max_ttl": 60});
    let made = plane.post(&plane.root, "/v1/admins", &json!({"name": "ann", "role": "admin", "may_grant": ceiling}));
    assert_eq!(made.status, 201, "{made:?}");
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(plane.get(&secret, "/v1/admins").json()["items"].as_array().unwrap().len(), 2);
    let wider = json!({"name": "bob", "role": "viewer", "may_grant": {"environments": "*", "roles": [], "scopes": [], "max_ttl": 1}});
    plane.post(&secret, "/v1/admins", &wider).refused(403, "above-ceiling");
    let revoked = plane.post(&plane.root, "/v1/admins/ann/revoke", &json!({"reason": "left"}));
    assert_eq!((revoked.status, &revoked.json()["durable"]), (200, &json!(true)));
    plane.get(&secret, "/v1/status").refused(401, "invalid-credential");
    assert!(!plane.get(&plane.root, "/v1/admins").body.contains("lga_"));
    plane.post(&plane.root, "/v1/admins", &json!({"name": "x", "role": "root"})).refused(422, "invalid-value");
}

#[test]
fn the_unix_socket_admits_its_own_user_as_admin() {
    let plane = start();
    let answer = raw_unix(&plane.socket, "GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = r#"{"name":"bot","owner":"team","roles":["reader"],"ttl":"1h"}"#;
    let head = "POST /v1/tokens HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let made = raw_unix(&plane.socket, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(made.status, 201, "{made:?}");
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(made.json()["token"]["created_by"], format!("uid:{uid}"));
    assert_eq!(plane.events("token.create")[0]["actor"]["subject"], format!("uid:{uid}"));
    // A credential that is shown counts, even a wrong one.
    let wrong = raw_unix(
        &plane.socket,
        "GET /v1/status HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer lga_x\r\nConnection: close\r\n\r\n",
    );
    wrong.refused(401, "invalid-credential");
}

#[test]
fn a_port_in_use_and_a_public_address_are_clear_errors() {
    let plane = start();
    let again = AdminConfig { admin: Some(plane.admin), ..AdminConfig::default() };
    let public = AdminConfig { admin: Some("0.0.0.0:0".parse().unwrap()), ..AdminConfig::default() };
    let socket = AdminConfig { unix_sockets: vec![plane.socket.clone()], ..AdminConfig::default() };
    let failing = |config: &AdminConfig| {
        let other = Setup::default().start();
        let state = leastgate_admin::AdminState {
            authority: other.authority.clone(),
            store: other.store.clone(),
            telemetry: other.telemetry.clone(),
            environment: "test".into(),
            version: "0".into(),
            tokens: leastgate_admin::Tokens::Store,
            probes: vec![],
            hooks: leastgate_admin::Hooks::default(),
        };
        AdminPlane::start(config, state).unwrap_err()
    };
    let error = failing(&again);
    assert!(matches!(error, StartError::Bind { listener: "admin", .. }));
    assert!(error.to_string().contains("is in use; is another gateway or a demo running?"), "{error}");
    assert!(matches!(failing(&public), StartError::NotLoopback(_)));
    assert!(failing(&socket).to_string().contains("another gateway answers"));
}
