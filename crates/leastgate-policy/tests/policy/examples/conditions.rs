//! §4: conditions on headers, the query and the source.

use super::check;

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
