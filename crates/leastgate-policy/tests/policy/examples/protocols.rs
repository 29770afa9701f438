//! §4: gRPC and WebSocket.

use super::{WS, check, leak};

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
