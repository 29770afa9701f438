//! §1, §2: the example of the specification, hosts, and the api a request belongs to.

use super::check;

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
