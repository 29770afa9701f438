//! §4: segments, and how loosely a deny reads them.

use super::{Row, check, leak};

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
