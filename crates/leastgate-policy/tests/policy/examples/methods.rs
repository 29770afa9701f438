//! §4: methods, HEAD and OPTIONS, and preflights.

use super::check;

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
