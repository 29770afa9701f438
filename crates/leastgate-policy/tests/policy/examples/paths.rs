//! §3: the canonical path.

use super::{Row, check, leak};

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
