//! §2–§6, sentence by sentence: for each a request and what it comes to. The engine and the reference are both asked,
//! so that they can't agree on something the specification does not say.

use crate::engine::Engine;
use crate::notation::Example;
use crate::reference::Judgement;
use crate::reference::decision::judge;

/// A sentence, a request, and its outcome: a reason, `shadowed` before it, and after it rules or scopes if they matter.
type Row = (&'static str, &'static str, &'static str);

fn check(policy: &str, rows: &[Row]) {
    let example = Example::new(policy);
    let engine: Engine = example.engine();
    let mut wrong = Vec::new();
    for (sentence, line, expected) in rows {
        let request = example.request(line);
        let says = [
            ("engine", engine.judge(&request, example.world().now)),
            ("reference", Some(judge(example.world(), &request))),
        ];
        for (who, judgement) in says {
            let told = judgement.map_or("no request at all".to_owned(), |judgement| told(&judgement));
            let meant =
                if expected.contains(' ') && !expected.starts_with("shadowed ") || expected.matches(' ').count() > 1 {
                    told.as_str()
                } else {
                    outcome(&told)
                };
            if meant != *expected {
                wrong.push(format!("{sentence}\n  {line}\n  expected {expected}\n  {who} says {told}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn told(judgement: &Judgement) -> String {
    let mut told = String::new();
    if judgement.shadowed.is_some() {
        told.push_str("shadowed ");
    }
    told.push_str(judgement.reason.as_str());
    let details = if judgement.required_any_of.is_empty() { &judgement.rules } else { &judgement.required_any_of };
    if !details.is_empty() {
        told.push(' ');
        told.push_str(&details.join("; "));
    }
    told
}

/// What was told, without the rules.
fn outcome(told: &str) -> &str {
    let words = if told.starts_with("shadowed ") { 2 } else { 1 };
    match told.match_indices(' ').nth(words - 1) {
        Some((at, _)) => &told[..at],
        None => told,
    }
}

const ORDERS: &str = "
api a hosts=a.test
 public GET /healthz
scope orders:read
 allow GET /v1/orders
 allow GET /v1/orders/{order_id:uuid}
 allow GET /v1/orders/{order_id:uuid}/items/**
 deny GET /v1/orders/{order_id}/payment-details
scope orders:write
 allow POST /v1/orders
 allow PATCH /v1/orders/{order_id:uuid}
scope orders:refund
 allow POST /v1/orders/{order_id:uuid}/refunds when header x-change-ticket=INC-* & query currency=eur|usd & source_ip=10.0.0.0/8
role reader scopes=orders:read
role support inherits=reader scopes=orders:refund environments=prod
boundary environments=staging apis=a
 forbid * /v1/orders/*/refunds
token reader roles=reader
token support roles=support
token none
";

#[test]
fn section_1_the_example() {
    check(
        ORDERS,
        &[
            ("a scope's allow allows", "GET /v1/orders | as reader", "scope_granted orders:read/allow/GET /v1/orders"),
            ("a typed parameter", "GET /v1/orders/123e4567-e89b-12d3-a456-426614174000 | as reader", "scope_granted"),
            ("a typed parameter refuses what is not one", "GET /v1/orders/42 | as reader", "no_matching_scope"),
            ("nothing public but what is said", "GET /healthz", "public_rule a/public/GET /healthz"),
            ("another scope would have allowed it", "POST /v1/orders | as reader", "insufficient_scope orders:write"),
            (
                "its deny denies",
                "GET /v1/orders/x/payment-details | as reader",
                "explicit_deny orders:read/deny/GET /v1/orders/{order_id}/payment-details",
            ),
            (
                "all conditions met",
                "POST /v1/orders/123e4567-e89b-12d3-a456-426614174000/refunds?currency=eur | as support | x-change-ticket: INC-7 | from 10.1.1.1",
                "scope_granted orders:refund/allow/POST /v1/orders/{order_id:uuid}/refunds#",
            ),
            (
                "one of the values",
                "POST /v1/orders/123e4567-e89b-12d3-a456-426614174000/refunds?currency=usd | as support | x-change-ticket: INC- | from 10.1.1.1",
                "scope_granted",
            ),
            (
                "a condition not met",
                "POST /v1/orders/123e4567-e89b-12d3-a456-426614174000/refunds?currency=chf | as support | x-change-ticket: INC-7 | from 10.1.1.1",
                "condition_failed orders:refund/allow/POST /v1/orders/{order_id:uuid}/refunds#",
            ),
            ("the boundary is staging's", "POST /v1/orders/x/refunds | as reader", "no_matching_scope"),
            ("an empty scope list grants nothing", "GET /v1/orders | as none", "insufficient_scope orders:read"),
        ],
    );
    check(
        &ORDERS.replace("roles=support", "roles=support,reader").replacen("\n", "\ngateway environment=staging\n", 1),
        &[
            (
                "the boundary binds in its environment",
                "POST /v1/orders/x/refunds | as reader",
                "boundary_deny boundary/staging/a/deny/* /v1/orders/*/refunds",
            ),
            ("it binds before the scopes are asked", "POST /v1/orders/x/REFUNDS/ | as none", "boundary_deny"),
            ("but after the credential", "POST /v1/orders/x/refunds", "credential_missing"),
        ],
    );
}

const HOSTS: &str = "
api a hosts=a.test
 public GET /**x
api b hosts=b.test:8443,[2001:db8::1]
api c hosts=*.c.test
api d hosts=d.test base=/one
api e hosts=d.test base=/two
";

#[test]
fn section_2_hosts() {
    let policy = HOSTS
        .replace(" public GET /**x\n", " public GET /ok\n")
        .replace("8443,[2001:db8::1]\n", "8443,[2001:db8::1]\n public GET /ok\n");
    let policy = policy
        .replace("*.c.test\n", "*.c.test\n public GET /ok\n")
        .replace("/one\n", "/one\n public GET /one/ok\n public GET /one\n");
    check(
        &policy,
        &[
            ("a host is any port", "GET /ok | host: a.test:1234", "public_rule"),
            ("lower-cased", "GET /ok | host: A.Test", "public_rule"),
            ("no api", "GET /ok | host: x.test", "host_unknown"),
            ("a:8443 is that port", "GET /ok | host: b.test:8443", "public_rule"),
            ("and no other", "GET /ok | host: b.test:8444", "host_unknown"),
            ("nor none", "GET /ok | host: b.test", "host_unknown"),
            ("*.suffix is one label", "GET /ok | host: x.c.test", "public_rule"),
            ("not none", "GET /ok | host: c.test", "host_unknown"),
            ("not two", "GET /ok | host: y.x.c.test", "host_unknown"),
            ("IPv6 literals compare as addresses", "GET /ok | host: [2001:DB8:0:0:0::1]:99", "public_rule"),
            ("base is whole segments", "GET /onewhere | host: d.test", "host_unknown"),
            ("the base itself belongs to it", "GET /one | host: d.test", "public_rule"),
            ("below it too", "GET /one/ok | host: d.test", "public_rule"),
            ("compared decoded", "GET /%6fne/ok | host: d.test", "public_rule"),
            ("and exactly", "GET /ONE/ok | host: d.test", "host_unknown"),
            ("the other base is the other api", "GET /two/ok | host: d.test", "credential_missing"),
            ("none", "GET /ok | no host", "request_malformed"),
            ("two, though equal", "GET /ok | host: a.test | Host: a.test", "request_malformed"),
            ("empty", "GET /ok | host: ", "request_malformed"),
            ("userinfo", "GET /ok | host: u@a.test", "request_malformed"),
            ("trailing dot", "GET /ok | host: a.test.", "request_malformed"),
            ("an empty port", "GET /ok | host: a.test:", "request_malformed"),
            ("a zero-padded port", "GET /ok | host: a.test:080", "request_malformed"),
            ("a port that is none", "GET /ok | host: a.test:65536", "request_malformed"),
            ("a port of letters", "GET /ok | host: a.test:http", "request_malformed"),
            ("an IPv6 zone", "GET /ok | host: [fe80::1%25eth0]", "request_malformed"),
            ("IPvFuture", "GET /ok | host: [v1.a]", "request_malformed"),
            ("IPv6 without brackets", "GET /ok | host: 2001:db8::1", "request_malformed"),
            ("not LDH", "GET /ok | host: a_b.test", "request_malformed"),
            ("an empty label", "GET /ok | host: a..test", "request_malformed"),
            ("a hyphen first", "GET /ok | host: -a.test", "request_malformed"),
            ("not ASCII", "GET /ok | host: \u{e4}.test", "request_malformed"),
            ("a list", "GET /ok | host: a.test, a.test", "request_malformed"),
            ("a malformed Host comes before a bad path", "GET /a//b | host: a.test.", "request_malformed"),
            ("a bad path comes before an unknown host", "GET /a//b | host: x.test", "path_ambiguous"),
            ("absolute-form", "GET http://a.test/ok", "public_rule"),
            ("in any case", "GET HTTPS://A.TEST/ok", "public_rule"),
            ("another authority", "GET http://x.test/ok", "request_malformed"),
            ("another port", "GET http://a.test:1/ok", "request_malformed"),
            ("userinfo in the authority", "GET http://u@a.test/ok", "request_malformed"),
            ("another scheme", "GET ftp://a.test/ok", "request_malformed"),
            ("its path is held to the rules", "GET http://a.test/a//b", "path_ambiguous"),
            ("authority-form", "GET a.test:443", "request_malformed"),
            ("asterisk-form", "OPTIONS *", "request_malformed"),
            ("CONNECT", "CONNECT a.test:443", "method_unsupported"),
        ],
    );
}

#[test]
fn section_2_a_scope_is_tried_on_its_own_api_only() {
    let policy = "
api a hosts=a.test
api b hosts=b.test
scope a:all api=a
 allow * /**
scope b:all api=b
 allow * /**
 deny * /no
boundary apis=b
 forbid * /never
boundary
 forbid * /nowhere
token a scopes=a:all
token both scopes=a:all,b:all";
    check(
        policy,
        &[
            ("on its own", "GET /x | as a", "scope_granted a:all/allow/* /**"),
            ("not on another", "GET /x | as a | host: b.test", "insufficient_scope b:all"),
            ("nor its denies", "GET /no | as both", "scope_granted"),
            ("which bind on their own", "GET /no | as both | host: b.test", "explicit_deny"),
            (
                "a boundary on the apis it names",
                "GET /never | as both | host: b.test",
                "boundary_deny boundary/*/b/deny/* /never",
            ),
            ("and on no other", "GET /never | as both", "scope_granted"),
            ("by default all", "GET /nowhere | as both", "boundary_deny"),
            ("really all", "GET /nowhere | as both | host: b.test", "boundary_deny"),
        ],
    );
}

#[test]
fn section_3_the_canonical_path() {
    let policy = "
api a
scope all
 allow * /**
scope some
 allow GET /caf%C3%A9/a%20b
token all scopes=all
token some scopes=some";
    let mut rows: Vec<Row> = vec![
        ("/ is the empty list", "GET / | as all", "scope_granted"),
        ("the query is opaque", "GET /a?//../;%00#\\ | as all", "scope_granted"),
        ("split at the first ?", "GET /a?b?c | as all", "scope_granted"),
        ("the other plain bytes", "GET /-._~!$&'()*+,=:@ | as all", "scope_granted"),
        ("a dot is no dot segment", "GET /.a/..b/a..b/.well-known | as all", "scope_granted"),
        ("decoded once", "GET /caf%C3%A9/a%20b | as some", "scope_granted"),
        ("in either case of hex", "GET /%63af%c3%a9/a%20%62 | as some", "scope_granted"),
        ("not normalized for an allow", "GET /cafe%CC%81/a%20b | as some", "insufficient_scope all"),
    ];
    let refused = [
        "/a;b",
        "/a\\b",
        "/a\"b",
        "/a^b",
        "/a{b",
        "/a|b",
        "/a}b",
        "/a[b",
        "/a]b",
        "/a%",
        "/a%4",
        "/a%zz",
        "/a%00",
        "/a%1f",
        "/a%7F",
        "/a%2fb",
        "/a%2F",
        "/a%5Cb",
        "/a%3bb",
        "/a%3F",
        "/a%23",
        "/a%25",
        "/a%252e",
        "/%c0%ae",
        "/%C0%AF",
        "/%e2%82",
        "/%ff",
        "/%ed%a0%80",
        "/%EF%BC%8E%EF%BC%8E",
        "/a%EF%BC%8Fb",
        "/a%EF%BC%BCb",
        "/%E2%84%80",
        "/%EF%BC%85",
        "/a%CD%BEb",
        "/%E2%80%A4",
        "/a%C2%A0",
        "/%E2%80%A6",
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/.",
        "/..",
        "/a/./b",
        "/a/../b",
        "/%2e",
        "/%2E%2e",
        "/.%2e/a",
        "/...",
        "/%20",
        "/.%20.",
        "/%20a",
        "/a%20",
        "/a.",
        "/a./b",
        "/a%2e",
    ];
    let lines: Vec<String> = refused.iter().map(|path| format!("GET {path} | as all")).collect();
    for line in &lines {
        rows.push(("refused", leak(line), "path_ambiguous"));
    }
    let long = [
        (format!("GET /{} | as all", "a".repeat(8191)), "scope_granted"),
        (format!("GET /{} | as all", "a".repeat(8192)), "uri_too_long"),
        (format!("GET /?{} | as all", "a".repeat(8191)), "uri_too_long"),
        (format!("GET {} | as all", "/a".repeat(128)), "scope_granted"),
        (format!("GET {}/ | as all", "/a".repeat(128)), "scope_granted"),
        (format!("GET {} | as all", "/a".repeat(129)), "uri_too_long"),
    ];
    for (line, expected) in &long {
        rows.push(("over 8 KiB or 128 segments", leak(line), expected));
    }
    check(policy, &rows);
}

/// The tables hold plain texts; a handful of them are made up by the test.
fn leak(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

const METHODS: &str = "
api a
 public GET /public
 public OPTIONS /public
scope s
 allow GET /get
 allow HEAD /head
 allow POST,PURGE /post
 allow * /any
 allow OPTIONS /options
 allow * /denied
 deny GET /denied
token t scopes=s";

#[test]
fn section_4_methods() {
    check(
        METHODS,
        &[
            ("GET covers HEAD", "HEAD /get | as t", "scope_granted"),
            ("HEAD does not cover GET", "GET /head | as t", "no_matching_scope"),
            ("in a deny too", "HEAD /denied | as t", "explicit_deny"),
            ("but no other", "POST /denied | as t", "scope_granted"),
            ("public GET covers HEAD", "HEAD /public", "public_rule"),
            ("either of a list", "PURGE /post | as t", "scope_granted"),
            ("no other", "PUT /post | as t", "no_matching_scope"),
            ("* is every method", "PROPFIND /any | as t", "scope_granted"),
            ("registered or not", "M-SEARCH2 /any | as t", "scope_granted"),
            ("an unregistered one only where named", "PURGE /get | as t", "no_matching_scope"),
            ("OPTIONS is a method like others", "OPTIONS /options | as t", "scope_granted"),
            (
                "without cors a preflight is one too",
                "OPTIONS /get | as t | origin: https://x.test | access-control-request-method: GET",
                "no_matching_scope",
            ),
            ("compared exactly", "get /get | as t", "method_unsupported"),
            ("a byte outside A-Z 0-9 -", "GE_T /get | as t", "method_unsupported"),
            ("TRACE", "TRACE /any | as t", "method_unsupported"),
            ("CONNECT in origin-form", "CONNECT /any | as t", "method_unsupported"),
            ("the method before the path", "TRACE /a//b | as t", "method_unsupported"),
        ],
    );
}

#[test]
fn section_4_cors() {
    let policy = "
api a hosts=a.test cors=https://app.test
 public POST /public
scope s
 allow GET /x
boundary
 forbid * /never
token t scopes=s";
    check(
        policy,
        &[
            (
                "a preflight is answered",
                "OPTIONS /x | origin: https://app.test | access-control-request-method: GET",
                "preflight",
            ),
            (
                "without looking at the path's rules",
                "OPTIONS /never | origin: https://app.test | access-control-request-method: GET",
                "preflight",
            ),
            (
                "the same for every caller",
                "OPTIONS /x | origin: https://evil.test | access-control-request-method: GET | as t",
                "preflight",
            ),
            (
                "even with a bad token",
                "OPTIONS /x | origin: https://app.test | access-control-request-method: GET | as nobody",
                "preflight",
            ),
            ("OPTIONS alone is no preflight", "OPTIONS /x | as t", "no_matching_scope"),
            ("nor without the method", "OPTIONS /x | as t | origin: https://app.test", "no_matching_scope"),
            ("nor without an origin", "OPTIONS /x | as t | access-control-request-method: GET", "no_matching_scope"),
            (
                "nor another method",
                "GET /x | as t | origin: https://app.test | access-control-request-method: GET",
                "scope_granted",
            ),
            (
                "the path is judged before",
                "OPTIONS /x//y | origin: https://app.test | access-control-request-method: GET",
                "path_ambiguous",
            ),
            (
                "a misplaced credential too",
                "OPTIONS /x?t=$t | origin: https://app.test | access-control-request-method: GET",
                "credential_misplaced",
            ),
            (
                "the host too",
                "OPTIONS /x | host: b.test | origin: https://app.test | access-control-request-method: GET",
                "host_unknown",
            ),
        ],
    );
}

const PROTOCOLS: &str = "
api a
scope rpc
 allow GRPC shop.Catalog/Get
scope feed
 allow WS /feed
 allow WS /both
 allow GET /both
scope open
 allow * /**
scope closed
 allow GRPC shop.Catalog/Get
 allow GRPC shop.Catalog/List
 allow WS /feed
 allow WS /live
 deny GRPC shop.Catalog/List
 deny WS /live
 deny GET /feed
scope stars
 allow WS /live
 deny * /live
token rpc scopes=rpc
token feed scopes=feed
token open scopes=open
token closed scopes=closed
token stars scopes=stars";

#[test]
fn section_4_grpc() {
    check(
        PROTOCOLS,
        &[
            (
                "POST with its content type",
                "POST /shop.Catalog/Get | as rpc | content-type: application/grpc",
                "scope_granted rpc/allow/GRPC shop.Catalog/Get",
            ),
            (
                "followed by +",
                "POST /shop.Catalog/Get | as rpc | content-type: application/grpc+proto",
                "scope_granted",
            ),
            ("followed by ;", "POST /shop.Catalog/Get | as rpc | content-type: application/grpc;x=y", "scope_granted"),
            (
                "not by anything else",
                "POST /shop.Catalog/Get | as rpc | content-type: application/grpc-web",
                "insufficient_scope open",
            ),
            (
                "another type",
                "POST /shop.Catalog/Get | as rpc | content-type: application/json",
                "insufficient_scope open",
            ),
            ("none", "POST /shop.Catalog/Get | as rpc", "insufficient_scope open"),
            (
                "another method",
                "GET /shop.Catalog/Get | as rpc | content-type: application/grpc",
                "insufficient_scope open",
            ),
            (
                "another path",
                "POST /shop.Catalog/List | as rpc | content-type: application/grpc",
                "insufficient_scope open",
            ),
            ("in a deny any method", "GET /shop.catalog/list/ | as closed", "explicit_deny"),
            ("and any content type", "POST /shop.Catalog/List | as closed | content-type: text/plain", "explicit_deny"),
            (
                "an allow of * covers it as a POST",
                "POST /shop.Catalog/Get | as open | content-type: application/grpc",
                "scope_granted",
            ),
        ],
    );
}

const WS: &str = "connection: Upgrade | upgrade: websocket | sec-websocket-version: 13";

#[test]
fn section_4_upgrades() {
    let ws = |start: &str| leak(&format!("{start} | {WS}"));
    check(
        PROTOCOLS,
        &[
            ("a whole handshake", ws("GET /feed | as feed"), "scope_granted feed/allow/WS /feed"),
            ("judged as WS only", ws("GET /both | as feed"), "scope_granted feed/allow/WS /both"),
            ("WS is no plain GET", "GET /feed | as feed", "insufficient_scope open"),
            ("* never admits an upgrade", ws("GET /x | as open"), "no_matching_scope"),
            ("nor as the scope that would have allowed", ws("GET /feed | as open"), "insufficient_scope feed"),
            ("a deny of GET matches one too", ws("GET /feed | as closed"), "explicit_deny closed/deny/GET /feed"),
            ("of * too", ws("GET /live | as stars"), "explicit_deny"),
            ("WS in a deny is GET on that path", "GET /live | as closed", "explicit_deny closed/deny/WS /live"),
            ("upgrade or not", ws("GET /live | as closed"), "explicit_deny"),
            (
                "tokens in any case, in a list",
                "GET /feed | as feed | connection: keep-alive, UPGRADE | upgrade: WebSocket | sec-websocket-version: 13",
                "scope_granted",
            ),
            (
                "no Connection",
                "GET /feed | as feed | upgrade: websocket | sec-websocket-version: 13",
                "request_malformed",
            ),
            ("no version", "GET /feed | as feed | connection: upgrade | upgrade: websocket", "request_malformed"),
            (
                "another version",
                "GET /feed | as feed | connection: upgrade | upgrade: websocket | sec-websocket-version: 8",
                "request_malformed",
            ),
            (
                "another method",
                "POST /x | as open | connection: upgrade | upgrade: websocket | sec-websocket-version: 13",
                "request_malformed",
            ),
            (
                "beside another token",
                "GET /feed | as feed | connection: upgrade | upgrade: websocket, h2c | sec-websocket-version: 13",
                "request_malformed",
            ),
            (
                "on another line",
                "GET /feed | as feed | connection: upgrade | upgrade: h2c | upgrade: websocket | sec-websocket-version: 13",
                "request_malformed",
            ),
            (
                "any other Upgrade is judged as plain",
                "GET /x | as open | connection: upgrade | upgrade: h2c",
                "scope_granted",
            ),
            ("and so is none", "GET /x | as open | connection: upgrade", "scope_granted"),
        ],
    );
}

const SEGMENTS: &str = "
api a
scope s
 allow GET /lit/one
 allow GET /slash/
 allow GET /named/{x}
 allow GET /star/*/end
 allow GET /int/{x:int}
 allow GET /uuid/{x:uuid}
 allow GET /hex/{x:hex}
 allow GET /slug/{x:slug}
 allow GET /date/{x:date}
 allow GET /in/{x:in(a,B,c%20d)}
 allow GET /rest/**
 allow GET /lit%2A
 allow GET /over/**
 allow GET /over/{x}/y
token t scopes=s";

#[test]
fn section_4_segments() {
    check(
        SEGMENTS,
        &[
            ("a literal", "GET /lit/one | as t", "scope_granted"),
            ("exactly", "GET /lit/One | as t", "no_matching_scope"),
            ("decoded", "GET /li%74/one | as t", "scope_granted"),
            ("the whole of it", "GET /lit/one2 | as t", "no_matching_scope"),
            ("the flag must equal", "GET /lit/one/ | as t", "no_matching_scope"),
            ("both ways", "GET /slash | as t", "no_matching_scope"),
            ("equal", "GET /slash/ | as t", "scope_granted"),
            ("one segment", "GET /named/x | as t", "scope_granted"),
            ("not none", "GET /named | as t", "no_matching_scope"),
            ("not none with the slash", "GET /named/ | as t", "no_matching_scope"),
            ("not two", "GET /named/x/y | as t", "no_matching_scope"),
            ("* in the middle", "GET /star/x/end | as t", "scope_granted"),
            ("int", "GET /int/0 | as t", "scope_granted"),
            ("int of 19 digits", "GET /int/9999999999999999999 | as t", "scope_granted"),
            ("not 20", "GET /int/10000000000000000000 | as t", "no_matching_scope"),
            ("no leading zero", "GET /int/01 | as t", "no_matching_scope"),
            ("no sign", "GET /int/-1 | as t", "no_matching_scope"),
            ("no other digits", "GET /int/%D9%A1 | as t", "no_matching_scope"),
            ("uuid in any case", "GET /uuid/123E4567-e89b-12d3-a456-426614174000 | as t", "scope_granted"),
            ("uuid with its hyphens", "GET /uuid/123e4567e89b12d3a456426614174000 | as t", "no_matching_scope"),
            ("hex", "GET /hex/DEADbeef | as t", "scope_granted"),
            ("not hex", "GET /hex/xyz | as t", "no_matching_scope"),
            ("slug", "GET /slug/a-1-b | as t", "scope_granted"),
            ("no upper case", "GET /slug/A | as t", "no_matching_scope"),
            ("no double hyphen", "GET /slug/a--b | as t", "no_matching_scope"),
            ("no hyphen first", "GET /slug/-a | as t", "no_matching_scope"),
            ("date", "GET /date/2026-11-21 | as t", "scope_granted"),
            ("not shorter", "GET /date/2026-1-2 | as t", "no_matching_scope"),
            ("one of", "GET /in/B | as t", "scope_granted"),
            ("decoded too", "GET /in/c%20d | as t", "scope_granted"),
            ("exactly in an allow", "GET /in/b | as t", "no_matching_scope"),
            ("** covers none", "GET /rest | as t", "scope_granted"),
            ("none and the slash", "GET /rest/ | as t", "scope_granted"),
            ("more", "GET /rest/x/y/z | as t", "scope_granted"),
            ("more and the slash", "GET /rest/x/ | as t", "scope_granted"),
            ("not another", "GET /resting | as t", "no_matching_scope"),
            ("a literal star", "GET /lit* | as t", "scope_granted"),
            ("is no wildcard", "GET /litx | as t", "no_matching_scope"),
            (
                "all matching rules are recorded, sorted",
                "GET /over/x/y | as t",
                "scope_granted s/allow/GET /over/**; s/allow/GET /over/{x}/y",
            ),
        ],
    );
}

const LOOSE: &str = "
api a
scope s
 allow * /**
 deny GET /admin
 deny GET /slash/
 deny GET /Caf%C3%A9/x
 deny GET /stra%C3%9Fe
 deny GET /%EF%AC%81le
 deny GET /k
 deny GET /in/{x:in(Secret,b)}
 deny GET /p/{id}/details
 deny GET /rest/**
token t scopes=s";

#[test]
fn section_4_deny_is_loose() {
    let denied = [
        "/admin",
        "/ADMIN",
        "/Admin",
        "/admin/",
        "/aDmiN/",
        "/%61dmin",
        "/%EF%BD%81dmin",
        "/%EF%BC%A1DMIN",
        "/slash",
        "/slash/",
        "/SLASH",
        "/caf%C3%A9/x",
        "/CAF%C3%89/X",
        "/cafe%CC%81/x",
        "/strasse",
        "/STRASSE",
        "/stra%E1%BA%9Ee",
        "/file",
        "/FILE",
        "/%EF%AC%81le",
        "/%E2%84%AA",
        "/K",
        "/in/secret",
        "/in/SECRET/",
        "/in/B",
        "/p/anything/Details",
        "/REST",
        "/rest/",
        "/Rest/x/y",
    ];
    let lines: Vec<String> = denied.iter().map(|path| format!("GET {path} | as t")).collect();
    let mut rows: Vec<Row> = lines.iter().map(|line| ("loose", leak(line), "explicit_deny")).collect();
    rows.extend([
        ("another method", "POST /admin | as t", "scope_granted"),
        ("another text", "GET /admins | as t", "scope_granted"),
        ("one more segment", "GET /admin/x | as t", "scope_granted"),
        ("a look-alike of another script is another text", "GET /%D0%B0dmin | as t", "scope_granted"),
        ("one segment, not none", "GET /p/details | as t", "scope_granted"),
    ]);
    check(LOOSE, &rows);
}

const CONDITIONS: &str = "
api a hosts=a.test
api b hosts=b.test upstream=lax
scope h
 allow GET /h when header x-t=one|pre-*
 allow GET /hd
 deny GET /hd when header x-t=bad
scope lh api=b
 allow GET /h when header x-t=one
scope q
 allow GET /q when query cur=eur|usd
 allow GET /dotted when query a_b=1
 allow GET /qd
 deny GET /qd when query cur=eur
scope ip
 allow GET /ip when source_ip=10.0.0.0/8|2001:db8::/32
 allow GET /ipd
 deny GET /ipd when source_ip=10.0.0.0/8
scope all
 allow GET /all when header x-t=one & query cur=eur & source_ip=10.0.0.0/8
 allow GET /alld
 deny GET /alld when header x-t=one & source_ip=10.0.0.0/8
token t scopes=h,lh,q,ip,all";

#[test]
fn section_4_header_conditions() {
    check(
        CONDITIONS,
        &[
            ("exact", "GET /h | as t | x-t: one", "scope_granted"),
            ("the name in any case", "GET /h | as t | X-T: one", "scope_granted"),
            ("trimmed", "GET /h | as t | x-t:  one\t", "scope_granted"),
            ("the whole value", "GET /h | as t | x-t: one two", "condition_failed"),
            ("exactly", "GET /h | as t | x-t: One", "condition_failed"),
            ("a trailing *", "GET /h | as t | x-t: pre-x y", "scope_granted"),
            ("absent is false", "GET /h | as t", "condition_failed"),
            ("repeated is unknown", "GET /h | as t | x-t: one | x-t: one", "condition_failed"),
            ("not visible ASCII is unknown", "GET /h | as t | x-t: pre-\u{e9}", "condition_failed"),
            ("a deny fires on true", "GET /hd | as t | x-t: bad", "explicit_deny h/deny/GET /hd#"),
            ("not on absent", "GET /hd | as t", "scope_granted"),
            ("not on another value", "GET /hd | as t | x-t: good", "scope_granted"),
            ("on a repeated one", "GET /hd | as t | x-t: good | x-t: good", "explicit_deny"),
            ("on one that is not visible ASCII", "GET /hd | as t | x-t: g\u{f6}", "explicit_deny"),
            ("a field with _ is refused (P9)", "GET /h | as t | x_t: one", "request_malformed"),
            (
                "unless the upstream takes it; then it is the same name, and unknown",
                "GET /h | as t | host: b.test | x_t: one",
                "condition_failed",
            ),
            ("beside the other too", "GET /h | as t | host: b.test | x-t: one | x_t: one", "condition_failed"),
        ],
    );
}

#[test]
fn section_4_query_conditions() {
    check(
        CONDITIONS,
        &[
            ("one of", "GET /q?cur=usd | as t", "scope_granted"),
            ("among others", "GET /q?a=b&cur=eur&c | as t", "scope_granted"),
            ("one decoding", "GET /q?c%75r=%65ur | as t", "scope_granted"),
            ("not two", "GET /q?cur=%2565ur | as t", "condition_failed"),
            ("+ is a space", "GET /q?cur=eur+ | as t", "condition_failed"),
            ("absent is false", "GET /q?x=eur | as t", "condition_failed"),
            ("no query at all", "GET /q | as t", "condition_failed"),
            ("a name twice", "GET /q?cur=eur&cur=eur | as t", "condition_failed"),
            ("a name in another case", "GET /q?CUR=eur | as t", "condition_failed"),
            ("a bracketed name", "GET /q?cur=eur&cur[]=x | as t", "condition_failed"),
            ("a bracketed name, escaped", "GET /q?cur=eur&cur%5B0%5D=x | as t", "condition_failed"),
            ("a name with blanks", "GET /q?cur=eur&+cur=x | as t", "condition_failed"),
            ("a dot is _", "GET /dotted?a_b=1&a.b=2 | as t", "condition_failed"),
            ("a space is _", "GET /dotted?a_b=1&a+b=2 | as t", "condition_failed"),
            ("alone too", "GET /dotted?a.b=1 | as t", "condition_failed"),
            ("spelled exactly", "GET /dotted?a_b=1 | as t", "scope_granted"),
            ("a raw ; anywhere", "GET /q?cur=eur&x=1;2 | as t", "condition_failed"),
            ("a bad escape anywhere", "GET /q?cur=eur&x=%zz | as t", "condition_failed"),
            ("a cut escape", "GET /q?cur=eur&x=%4 | as t", "condition_failed"),
            ("%00 anywhere", "GET /q?%00&cur=eur | as t", "condition_failed"),
            ("a deny fires on true", "GET /qd?cur=eur | as t", "explicit_deny"),
            ("not on absent", "GET /qd?x=1 | as t", "scope_granted"),
            ("on unknown", "GET /qd?CUR=x | as t", "explicit_deny"),
            ("on a query that cannot be read", "GET /qd?x=%zz | as t", "explicit_deny"),
            ("before the fault or after it", "GET /qd?cur=x&y;z | as t", "explicit_deny"),
            ("not where no rule asks (P6)", "GET /h?x=%zz;%00 | as t | x-t: one", "scope_granted"),
        ],
    );
}

#[test]
fn section_4_source_conditions() {
    check(
        CONDITIONS,
        &[
            ("the peer", "GET /ip | as t | from 10.1.2.3", "scope_granted"),
            ("IPv4-mapped as IPv4", "GET /ip | as t | from ::ffff:10.1.2.3", "scope_granted"),
            ("IPv6", "GET /ip | as t | from 2001:db8::9", "scope_granted"),
            ("another", "GET /ip | as t | from 11.1.2.3", "condition_failed"),
            (
                "X-Forwarded-For of a stranger says nothing",
                "GET /ip | as t | from 11.1.2.3 | x-forwarded-for: 10.1.1.1",
                "condition_failed",
            ),
            (
                "behind a trusted proxy it does",
                "GET /ip | as t | from 192.0.2.1 | x-forwarded-for: 10.1.1.1",
                "scope_granted",
            ),
            (
                "read from the right",
                "GET /ip | as t | from 192.0.2.1 | x-forwarded-for: 10.1.1.1, 11.1.1.1",
                "condition_failed",
            ),
            (
                "past trusted ones",
                "GET /ip | as t | from 192.0.2.1 | x-forwarded-for: 11.1.1.1, 10.1.1.1, 192.0.2.7",
                "scope_granted",
            ),
            (
                "lines joined in order",
                "GET /ip | as t | from 192.0.2.1 | x-forwarded-for: 11.1.1.1 | x-forwarded-for: 10.1.1.1",
                "scope_granted",
            ),
            (
                "and not the other way",
                "GET /ip | as t | from 192.0.2.1 | x-forwarded-for: 10.1.1.1 | x-forwarded-for: 11.1.1.1",
                "condition_failed",
            ),
            ("none is unknown", "GET /ip | as t | from 192.0.2.1", "condition_failed"),
            (
                "only proxies is unknown",
                "GET /ip | as t | from 192.0.2.1 | x-forwarded-for: 192.0.2.9",
                "condition_failed",
            ),
            (
                "an unparsable one met first",
                "GET /ip | as t | from 192.0.2.1 | x-forwarded-for: 10.1.1.1, unknown",
                "condition_failed",
            ),
            ("not met", "GET /ip | as t | from 192.0.2.1 | x-forwarded-for: unknown, 10.1.1.1", "scope_granted"),
            (
                "an empty entry is unparsable",
                "GET /ip | as t | from 192.0.2.1 | x-forwarded-for: 10.1.1.1,",
                "condition_failed",
            ),
            (
                "so is one with a port",
                "GET /ip | as t | from 192.0.2.1 | x-forwarded-for: 10.1.1.1:80",
                "condition_failed",
            ),
            ("a deny fires on true", "GET /ipd | as t | from 10.1.1.1", "explicit_deny"),
            ("not on false", "GET /ipd | as t | from 11.1.1.1", "scope_granted"),
            ("on unknown", "GET /ipd | as t | from 192.0.2.1", "explicit_deny"),
        ],
    );
}

#[test]
fn section_4_several_conditions() {
    check(
        CONDITIONS,
        &[
            ("true if all are", "GET /all?cur=eur | as t | x-t: one | from 10.1.1.1", "scope_granted"),
            ("false if any is", "GET /all?cur=eur | as t | x-t: two | from 10.1.1.1", "condition_failed"),
            ("else unknown", "GET /all?cur=eur | as t | x-t: one | from 192.0.2.1", "condition_failed"),
            ("a deny: true and unknown is unknown", "GET /alld | as t | x-t: one | from 192.0.2.1", "explicit_deny"),
            ("a deny: false and unknown is false", "GET /alld | as t | x-t: two | from 192.0.2.1", "scope_granted"),
        ],
    );
}

const ROLES: &str = "
api a
scope one
 allow GET /one
scope two
 allow GET /two
scope three
 allow GET /three
 deny GET /one
role base scopes=one
role mid inherits=base scopes=two environments=prod
role top inherits=mid
role away inherits=base scopes=two environments=staging
role under inherits=away
role deny scopes=three
token base roles=base
token top roles=top
token away roles=away
token under roles=under
token denied roles=base,deny
token mixed roles=away,base
token gone roles=nothing scopes=nothing,one
token past scopes=one@-1,two@+1
token edge scopes=one@+0";

#[test]
fn section_5_roles_and_grants() {
    check(
        ROLES,
        &[
            ("a role confers its scopes", "GET /one | as base", "scope_granted"),
            ("and what it inherits", "GET /one | as top", "scope_granted"),
            ("in the environments of every role on the way", "GET /two | as top", "scope_granted"),
            ("and in no other", "GET /two | as away", "insufficient_scope two"),
            ("nor what it inherits from a role that holds in all", "GET /one | as away", "insufficient_scope one"),
            ("nor through a role that holds in all", "GET /one | as under", "insufficient_scope one"),
            ("another way to it suffices", "GET /one | as mixed", "scope_granted"),
            ("a deny of an effective scope denies", "GET /one | as denied", "explicit_deny three/deny/GET /one"),
            ("a name the policy lacks grants nothing", "GET /one | as gone", "scope_granted"),
            ("really nothing", "GET /two | as gone", "insufficient_scope two"),
            ("a grant that has ended", "GET /one | as past", "insufficient_scope one"),
            ("one that has not", "GET /two | as past", "scope_granted"),
            ("ended to the second", "GET /one | as edge", "insufficient_scope one"),
            ("a scope that would deny would not have allowed", "GET /one | as edge", "insufficient_scope one"),
        ],
    );
    check(
        &ROLES.replacen('\n', "\ngateway environment=staging\n", 1),
        &[
            ("there the other ones hold", "GET /two | as away", "scope_granted"),
            ("through inheritance", "GET /two | as under", "scope_granted"),
            ("and these do not", "GET /two | as top", "insufficient_scope two"),
            ("nor what is below them", "GET /one | as top", "insufficient_scope one"),
        ],
    );
}

const TOKENS: &str = "
api a hosts=a.test
 public GET /public
scope s
 allow GET /x
boundary
 forbid * /never
 forbid * /public when header x-block=*
token t scopes=s
token revoked scopes=s state=revoked expires=-1
token disabled scopes=s state=disabled source_ip=10.0.0.0/8
token expired scopes=s expires=+0
token living scopes=s expires=+1
token rotating scopes=s state=rotating expires=+1
token ended scopes=s state=rotating expires=-5
token early scopes=s not_before=+1
token begun scopes=s not_before=+0
token bound scopes=s source_ip=10.0.0.0/8,2001:db8::/32
token everything scopes=s source_ip=10.0.0.0/8 not_before=+1 expires=-1";

#[test]
fn section_5_and_7_credentials() {
    check(
        TOKENS,
        &[
            ("no credential", "GET /x", "credential_missing"),
            ("another scheme", "GET /x | authorization: Basic dTpw", "credential_missing"),
            ("the scheme in any case", "GET /x | authorization: bEARER $t", "scope_granted"),
            ("a scheme and nothing else", "GET /x | authorization: Bearer", "credential_malformed"),
            ("not a token", "GET /x | authorization: Bearer abc", "credential_malformed"),
            ("a wrong checksum", "GET /x | authorization: Bearer $t0", "credential_malformed"),
            ("a token and more", "GET /x | authorization: Bearer $t $t", "credential_malformed"),
            ("an admin credential is no token", "GET /x | authorization: Bearer $admin", "token_unknown"),
            ("unknown", "GET /x | as nobody", "token_unknown"),
            ("of another environment", "GET /x | as stranger", "environment_mismatch"),
            ("revoked, though expired", "GET /x | as revoked", "token_revoked"),
            ("disabled, from wherever", "GET /x | as disabled", "token_disabled"),
            ("expired to the second", "GET /x | as expired", "token_expired"),
            ("not yet", "GET /x | as living", "scope_granted"),
            ("rotating is as good as active", "GET /x | as rotating", "scope_granted"),
            ("until its grace ends", "GET /x | as ended", "token_grace_ended"),
            ("not yet valid", "GET /x | as early", "token_not_yet_valid"),
            ("valid to the second", "GET /x | as begun", "scope_granted"),
            ("from where it may", "GET /x | as bound | from 10.1.1.1", "scope_granted"),
            ("from elsewhere", "GET /x | as bound", "source_not_allowed"),
            ("a restriction that is unknown fails", "GET /x | as bound | from 192.0.2.1", "source_not_allowed"),
            ("restrictions before any rule", "GET /nowhere | as early", "token_not_yet_valid"),
            ("before boundaries", "GET /never | as expired", "token_expired"),
            ("the source first", "GET /x | as everything", "source_not_allowed"),
            ("then the beginning", "GET /x | as everything | from 10.1.1.1", "token_not_yet_valid"),
            ("a public rule needs no credential", "GET /public", "public_rule"),
            ("nor is one verified", "GET /public | as nobody", "public_rule"),
            ("whatever it is", "GET /public | authorization: Bearer x", "public_rule"),
            ("boundaries bind public requests too", "GET /public | x-block: 1", "boundary_deny"),
            ("a boundary does not need a token to exist, but the request does", "GET /never", "credential_missing"),
        ],
    );
}

#[test]
fn section_7_a_misplaced_credential() {
    check(
        TOKENS,
        &[
            ("in the query", "GET /x?access_token=$t", "credential_misplaced"),
            ("though there is one in its place", "GET /x?a=b&t=$t | as t", "credential_misplaced"),
            ("escaped", "GET /x?t=%6Cgt%5Fprod_0000000000_x", "credential_missing"),
            ("in a cookie", "GET /x | as t | cookie: a=b; s=$t", "credential_misplaced"),
            ("in another header", "GET /x | as t | x-api-key: $t", "credential_misplaced"),
            ("in Proxy-Authorization", "GET /x | as t | proxy-authorization: Bearer $t", "credential_misplaced"),
            ("two", "GET /x | as t | as t", "credential_misplaced"),
            ("under another scheme", "GET /x | authorization: Basic $t", "credential_misplaced"),
            ("a list", "GET /x | authorization: Bearer $t, Bearer $t", "credential_misplaced"),
            ("two, of whichever scheme", "GET /x | as t | authorization: Basic dTpw", "credential_misplaced"),
            ("in the path", "GET /$t/x | as t", "credential_misplaced"),
            ("known or not", "GET /x?t=$nobody | as t", "credential_misplaced"),
            ("of any environment", "GET /x?t=$stranger | as t", "credential_misplaced"),
            ("without a valid checksum it is just text", "GET /x?t=lgt_prod_0000000000_x | as t", "scope_granted"),
            ("on public paths too", "GET /public?t=$t", "credential_misplaced"),
            ("after the api", "GET /x?t=$t | host: b.test", "host_unknown"),
            ("after the path", "GET /x//y?t=$t", "path_ambiguous"),
        ],
    );
    let other = TOKENS.replacen('\n', "\ngateway credential=x-api-key\n", 1);
    check(
        &other,
        &[
            ("another header carries it", "GET /x | x-api-key: $t", "scope_granted"),
            ("Authorization passes untouched", "GET /x | x-api-key: $t | authorization: Basic dTpw", "scope_granted"),
            ("a token there is misplaced", "GET /x | x-api-key: $t | as t", "credential_misplaced"),
            ("and is not the credential", "GET /x | authorization: Basic dTpw", "credential_missing"),
            ("two", "GET /x | x-api-key: $t | x-api-key: $t", "credential_misplaced"),
        ],
    );
}

const SHADOW: &str = "
api a hosts=a.test shadow=+86400
 public GET /public
api b hosts=b.test shadow=+0
scope s
 allow GET /x
 allow GET /c when header x-t=one
 allow GET /d
 deny GET /d
scope o
 allow GET /o
scope b api=b
 allow GET /x
boundary
 forbid * /never
token t scopes=s
token revoked scopes=s state=revoked
token late scopes=s expires=-1";

#[test]
fn section_5_shadow() {
    let ws = leak(&format!("GET /nowhere | as t | {WS}"));
    check(
        SHADOW,
        &[
            ("what is granted is granted", "GET /x | as t", "scope_granted"),
            ("insufficient_scope is advice", "GET /o | as t", "shadowed insufficient_scope"),
            ("no_matching_scope is advice", "GET /nowhere | as t", "shadowed no_matching_scope"),
            ("condition_failed is advice", "GET /c | as t", "shadowed condition_failed"),
            ("a scope's explicit_deny is advice", "GET /d | as t", "shadowed explicit_deny"),
            ("a whole handshake is tunnelled", ws, "shadowed no_matching_scope"),
            ("half a one is malformed", "GET /x | as t | upgrade: websocket", "request_malformed"),
            ("boundaries bind", "GET /never | as t", "boundary_deny"),
            ("the path binds", "GET /x//y | as t", "path_ambiguous"),
            ("the credential binds", "GET /x", "credential_missing"),
            ("revocation binds", "GET /x | as revoked", "token_revoked"),
            ("expiry binds", "GET /x | as late", "token_expired"),
            ("the environment binds", "GET /x | as stranger", "environment_mismatch"),
            ("after its date the api enforces", "GET /nowhere | as t | host: b.test", "no_matching_scope"),
            ("to the second", "GET /x | as t | host: b.test", "insufficient_scope b"),
        ],
    );
}

#[test]
fn section_5_the_first_failing_step_names_the_reason() {
    let policy = "
api a hosts=a.test cors=*
 public OPTIONS /public
scope s
 allow GET /x when header x-t=one
 allow GET /denied
 deny GET /denied
 deny GET /never
scope o
 allow GET /x
boundary
 forbid * /never
token t scopes=s
token expired scopes=s expires=-1 source_ip=10.0.0.0/8";
    check(
        policy,
        &[
            ("request before path", "GET /x//y?t=$t | no host", "request_malformed"),
            ("path before api", "GET /x//y?t=$t | host: b.test", "path_ambiguous"),
            ("api before the misplaced credential", "OPTIONS /public?t=$t | host: b.test", "host_unknown"),
            (
                "misplaced before preflight",
                "OPTIONS /public?t=$t | origin: x | access-control-request-method: GET",
                "credential_misplaced",
            ),
            (
                "preflight before public",
                "OPTIONS /public | origin: x | access-control-request-method: GET",
                "preflight",
            ),
            ("public before the credential", "OPTIONS /public | as nobody", "public_rule"),
            ("credential before restrictions", "GET /never | as nobody", "token_unknown"),
            ("restrictions before boundaries", "GET /never | as expired", "source_not_allowed"),
            ("boundary before explicit deny", "GET /never | as t", "boundary_deny"),
            ("explicit deny before everything that allows", "GET /denied | as t", "explicit_deny"),
            ("condition before insufficient scope", "GET /x | as t", "condition_failed"),
        ],
    );
}
