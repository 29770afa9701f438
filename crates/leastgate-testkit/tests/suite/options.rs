//! Keys of the two files that change what the data plane does.

use std::net::Ipv4Addr;

use leastgate_testkit::clock;
use leastgate_testkit::deadline::{PATIENCE, until_true};
use leastgate_testkit::gateway::request;
use leastgate_testkit::policies::ORDERS;
use leastgate_testkit::raw::RawClient;
use leastgate_testkit::token::Token;

use crate::fixtures::{Orders, with_body, with_policy, with_policy_and};

#[test]
fn host_rewrite_sends_the_endpoints_own() {
    let upstream = leastgate_testkit::recorder::RecorderUpstream::start();
    let tokens = leastgate_testkit::policies::orders_tokens();
    let gateway = crate::fixtures::setup(&tokens).upstream_with("orders", &upstream.url(), ", host: rewrite").start();
    assert_eq!(gateway.get(&tokens["READER"], "/v1/orders").status, 200);
    let got = upstream.wait_for("/v1/orders", PATIENCE).head;
    assert_eq!(got.one("host"), Some(upstream.address().to_string().as_str()));
    assert_eq!(got.one("x-forwarded-host"), Some("orders.test"));
}

#[test]
fn where_underscores_are_allowed_an_alias_of_ours_is_still_none() {
    let upstream = leastgate_testkit::recorder::RecorderUpstream::start();
    let tokens = leastgate_testkit::policies::orders_tokens();
    let gateway =
        crate::fixtures::setup(&tokens).upstream_with("orders", &upstream.url(), ", allow_underscores: true").start();
    let aliases = "SCRIPT_NAME: /attacker\r\nX_Leastgate_Subject: attacker\r\nX_Forwarded_For: attacker\r\nX-Leastgate.Scopes: attacker\r\nX.Forwarded.For: attacker\r\nx_original_url: /attacker\r\nX_Http_Method_Override: attacker\r\n";
    let reply = gateway.exchange(format!(
        "GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\nMy_Own: kept\r\ncom.acme.Ctx-bin: kept\r\n{aliases}{}\r\n\r\n",
        tokens["READER"].header()
    ));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let got = upstream.wait_for("/v1/orders", PATIENCE);
    assert_eq!((got.head.one("my_own"), got.head.one("com.acme.ctx-bin")), (Some("kept"), Some("kept")));
    assert!(!String::from_utf8_lossy(&got.head.bytes).contains("attacker"), "{:?}", got.head.fields);
}

#[test]
fn another_credential_header_leaves_authorization_to_the_upstream() {
    let orders = Orders::start_with(|setup| setup.section("credential", "{ header: x-api-key }"));
    let ask = |fields: &str| {
        orders.gateway.exchange(format!("GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{fields}\r\n\r\n"))
    };
    let secret = orders.reader().secret();
    assert_eq!(ask(&format!("X-Api-Key: {secret}\r\nAuthorization: Basic eDp5")).status, 200);
    let got = orders.upstream.wait_for("/v1/orders", PATIENCE).head;
    assert_eq!((got.one("authorization"), got.has("x-api-key")), (Some("Basic eDp5"), false));
    assert_eq!(ask(&format!("Authorization: Bearer {secret}")).status, 400, "misplaced");
    assert_eq!(ask("").status, 401);
    assert_eq!(ask(&format!("X-Api-Key: {secret}\r\nConnection: X-Api-Key")).status, 400);
    assert_eq!(orders.upstream.count(), 1);
}

#[test]
fn behind_trusted_proxies_the_client_is_who_they_say() {
    let orders = Orders::start_with(|setup| setup.section("trusted_proxies", "[ 127.90.0.0/16 ]"));
    let ask = |source: [u8; 4], fields: &str| {
        let mut client = RawClient::connect_from(orders.gateway.data(), Ipv4Addr::from(source));
        client.send(format!(
            "GET /v1/orders HTTP/1.1\r\nHost: orders.test\r\n{fields}{}\r\n\r\n",
            orders.token("ELSEWHERE").header()
        ));
        client.read().unwrap().status
    };
    let proxy = [127, 90, 0, 1];
    assert_eq!(ask(proxy, "X-Forwarded-For: 10.1.2.3\r\n"), 200, "the token is good from 10.0.0.0/8");
    let got = orders.upstream.wait_for("/v1/orders", PATIENCE).head;
    assert_eq!(got.one("x-forwarded-for"), Some("10.1.2.3, 127.90.0.1"));
    assert_eq!(ask(proxy, "X-Forwarded-For: 10.1.2.3, 192.0.2.1\r\n"), 401, "the rightmost stranger counts");
    assert_eq!(
        ask(proxy, "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.1.2.3, 127.90.3.3\r\n"),
        200,
        "lines are joined in order"
    );
    assert_eq!(ask(proxy, "X-Forwarded-For: 10.1.2.3, rubbish\r\n"), 401, "unknown is no yes");
    assert_eq!(ask(proxy, ""), 401, "never the proxy's own address");
    let lines = "X-Forwarded-For: 127.90.9.9\r\nX-Forwarded-For: \u{e4}, 10.4.4.4\r\n";
    assert_eq!(ask(proxy, &format!("{lines}Forwarded: for=6.6.6.6\r\n")), 200, "from the right, up to what is none");
    let got = orders.upstream.requests().pop().unwrap().head;
    assert_eq!((got.one("x-forwarded-for"), got.has("forwarded")), (Some("10.4.4.4, 127.90.0.1"), false));
    assert_eq!(ask([127, 0, 0, 1], "X-Forwarded-For: 10.1.2.3\r\n"), 401, "a stranger's word");
}

#[test]
fn shadow_forwards_what_no_scope_allows_and_records_what_enforcing_would_do() {
    let until = clock::date(clock::now() + 10 * 86_400);
    let orders =
        with_policy(&ORDERS.replace("    disclose: full\n", &format!("    mode: shadow\n    until: {until}\n")));
    assert_eq!(orders.gateway.exchange(with_body("POST", "/v1/orders", orders.reader(), b"x")).status, 200);
    assert_eq!(
        orders.gateway.get(orders.reader(), "/v1/orders/7b0e/payment-details").status,
        200,
        "a scope's deny is advisory"
    );
    for (token, path, status) in
        [("REVOKED", "/v1/orders", 401), ("WIDE", "/internal/x", 403), ("READER", "/files/../x", 400)]
    {
        assert_eq!(orders.gateway.get(orders.token(token), path).status, status, "{path} binds in shadow too");
    }
    assert_eq!(orders.gateway.exchange(request("GET", "/v1/orders", None)).status, 401);
    let event =
        &orders.gateway.wait_decisions("the shadowed request", 1, |event| event["request"]["method"] == "POST")[0];
    assert_eq!(
        (event["decision"]["mode"].as_str(), event["decision"]["enforced"].as_bool()),
        (Some("shadow"), Some(false)),
        "{event}"
    );
    assert_eq!(event["decision"]["reason"], "insufficient_scope");
    until_true("the mismatches", PATIENCE, || {
        orders.gateway.metrics().sum("leastgate_shadow_mismatches_total", &["api=\"orders\""]) == 2.0
    });
}

#[test]
fn an_expiry_takes_effect_while_the_gateway_runs() {
    let token = Token::new("brief", &["reader"]).expiring_in(2);
    let orders = Orders::start_with(|setup| setup.token(&token));
    assert_eq!(orders.gateway.get(&token, "/v1/orders").status, 200);
    until_true("the expiry", PATIENCE, || {
        orders.gateway.get(&token, "/v1/orders").problem().as_deref() == Some("token-expired")
    });
}

#[test]
fn an_api_has_limits_of_its_own() {
    let orders =
        with_policy(&ORDERS.replace("    disclose: full\n", "    limits: { body: 10B, response_timeout: 300ms }\n"));
    let writer = orders.token("WRITER");
    assert_eq!(orders.gateway.exchange(with_body("POST", "/v1/orders", writer, b"0123456789")).status, 200);
    assert_eq!(orders.gateway.exchange(with_body("POST", "/v1/orders", writer, b"0123456789a")).status, 413);
    orders
        .upstream
        .on("/v1/orders/7b0e", leastgate_testkit::recorder::Answer::steps([leastgate_testkit::recorder::Step::Hold]));
    assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders/7b0e").status, 504);
}

#[test]
fn a_body_may_be_of_any_size_where_that_is_said() {
    let body = vec![b'a'; 17 << 20];
    let anywhere = with_policy_and(ORDERS, |setup| setup.limit("body: none"));
    let policy = ORDERS.replace("    disclose: full\n", "    limits: { body: none }\n");
    let in_this_api = with_policy_and(&policy, |setup| setup.limit("body: 10B"));
    for orders in [anywhere, in_this_api] {
        let request = with_body("POST", "/v1/orders", orders.token("WRITER"), &body);
        assert_eq!(orders.gateway.exchange(request).status, 200);
        assert_eq!(orders.upstream.requests()[0].body_length, 17 << 20);
    }
}

#[test]
fn a_path_parameter_marked_redact_is_not_recorded() {
    let orders = with_policy(&ORDERS.replace("    disclose: full\n", "    redact: [ order_id ]\n"));
    assert_eq!(orders.gateway.get(orders.reader(), "/v1/orders/deadbeef").status, 200);
    let event = &orders.gateway.wait_decisions("the request", 1, |_| true)[0];
    assert!(!event.to_string().contains("deadbeef"), "{event}");
    assert!(orders.upstream.requests()[0].target() == "/v1/orders/deadbeef");
}

#[test]
fn nor_is_it_where_a_request_is_refused_before_its_api_is_known() {
    let orders = with_policy(&ORDERS.replace("    disclose: full\n", "    redact: [ order_id ]\n"));
    let paths = [
        "/v1/orders/deadbeef//items",
        "/v1//orders/deadbeef",
        "/v1/orders/../orders/deadbeef",
        "/v1/orders/./deadbeef",
        "/v1/orders%2Fdeadbeef",
        "/v1/orders;x=y/deadbeef",
        "/v1/orders/deadbeef;x",
        "/v1/orders/deadbeef%00",
        "/v1%5corders%5cdeadbeef",
    ];
    let heads: Vec<String> = paths
        .iter()
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: orders.test\r\n"))
        .chain(
            ["Connection: host", "X_Under: 1", "Expect: more", "Transfer-Encoding: gzip, chunked"]
                .map(|field| format!("GET /v1/orders/deadbeef HTTP/1.1\r\nHost: orders.test\r\n{field}\r\n")),
        )
        .chain(["GET /v1/orders/deadbeef HTTP/1.1\r\nHost: nowhere.test\r\n".to_owned()])
        .chain(["TRACE /v1/orders/deadbeef HTTP/1.1\r\nHost: orders.test\r\n".to_owned()])
        .collect();
    for head in &heads {
        let reply = orders.gateway.exchange(format!("{head}{}\r\n\r\n", orders.reader().header()));
        assert!(reply.status >= 400 && !reply.text().contains("deadbeef"), "{head}: {}", reply.text());
    }
    let mut events = orders.gateway.wait_decisions("the requests", heads.len(), |_| true);
    // Each worker writes its own: in the file they may stand in another order.
    events.sort_by_key(|event| event["time"].to_string());
    let path = |event: &serde_json::Value| event["request"]["path"].as_str().unwrap().to_owned();
    assert!(path(&events[0]).starts_with("/v1/orders/{rest:"), "{}", events[0]);
    for (name, bytes) in orders.gateway.written() {
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("deadbeef"), "in {name}: {text}");
    }
    assert_eq!(orders.upstream.count(), 0);
}
