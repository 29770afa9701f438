//! What a policy may not say: each row is a policy that loads once the marked part is left out.

use crate::engine::compile;
use crate::generate::NOW;
use crate::notation::Example;

fn loads(policy: &str) -> bool {
    let example = Example::new(policy);
    compile(&example.policy, &example.gateway, NOW).is_ok()
}

/// A sentence of the specification, the lines around, and the line that makes it an error.
const ROWS: &[(&str, &str, &str)] = &[
    ("a template outside its api's base (§2)", "api a base=/one\nscope s", " allow GET /two"),
    ("a wildcard in place of the base", "api a base=/one\nscope s", " allow GET /*/x"),
    ("a deny outside its api's base", "api a base=/one\nscope s", " deny GET /two"),
    ("a public rule outside its api's base", "api a base=/one", " public GET /two"),
    ("no hosts overlap every host", "api a hosts=a.test", "api b"),
    ("base / overlaps /orders", "api a hosts=a.test", "api b hosts=a.test base=/orders"),
    ("*.a overlaps x.a", "api a hosts=*.a", "api b hosts=x.a"),
    ("[a] overlaps [a:8443]", "api a hosts=a.test", "api b hosts=a.test:8443"),
    ("addresses overlap however they are written", "api a hosts=[2001:db8::1]", "api b hosts=[2001:DB8:0::1]"),
    ("names in any case", "api a hosts=a.test", "api b hosts=A.test"),
    ("a base that a decoder would change", "api a hosts=x.test", "api b hosts=a.test base=/a//b"),
    ("a host that no request could have", "api b hosts=b.test", "api a hosts=a_b.test"),
    ("a literal the path function would refuse (§3)", "api a\nscope s", " allow GET /a;b"),
    ("dots", "api a\nscope s", " allow GET /a/../b"),
    ("an escaped slash", "api a\nscope s", " allow GET /a%2Fb"),
    ("an empty segment", "api a\nscope s", " allow GET /a//b"),
    ("raw bytes over 0x7F", "api a\nscope s", " allow GET /caf\u{e9}"),
    ("a query", "api a\nscope s", " allow GET /a?b=c"),
    ("no slash first", "api a\nscope s", " allow GET a/b"),
    ("the same id twice (§4)", "api a\nscope s\n allow GET /x", " allow GET /x"),
    ("with equal conditions too", "api a\nscope s\n allow GET /x when query a=b|c", " allow GET /x when query a=c|b"),
    ("a method that is never admitted", "api a\nscope s", " allow TRACE /x"),
    ("CONNECT", "api a\nscope s", " allow CONNECT /x"),
    ("lower case", "api a\nscope s", " allow get /x"),
    ("** before the end", "api a\nscope s", " allow GET /a/**/b"),
    ("a partial wildcard", "api a\nscope s", " allow GET /a*"),
    ("a partial parameter", "api a\nscope s", " allow GET /a{x}"),
    ("half a parameter", "api a\nscope s", " allow GET /{x"),
    ("an unknown type", "api a\nscope s", " allow GET /{x:regex}"),
    ("a type in a deny", "api a\nscope s", " deny GET /{x:int}"),
    ("a type in a boundary", "api a\nboundary", " forbid GET /{x:slug}"),
    ("** in a public rule", "api a", " public GET /x/**"),
    ("* as a public rule's method", "api a", " public * /x"),
    ("a type in a public rule", "api a", " public GET /{x:int}"),
    ("\"*\" with credentials", "api b hosts=b.test", "api a hosts=a.test cors=* credentials=true"),
    ("shadow for more than 30 days (§5)", "api b hosts=b.test", "api a hosts=a.test shadow=+2592001"),
    ("an unknown environment (§1)", "api a", "role r environments=dev"),
    ("an unknown scope", "api a", "role r scopes=nothing"),
    ("an unknown role", "api a", "role r inherits=nothing"),
    ("an unknown api of a scope", "api a", "scope s api=b"),
    ("an unknown api of a boundary", "api a", "boundary apis=b"),
    ("a role that inherits itself", "api a", "role r inherits=r"),
    ("a name twice", "api a\nscope s", "scope s"),
    ("a condition on what the gateway writes", "api a\nscope s", " allow GET /x when header x-forwarded-for=a"),
    ("a condition on the credential", "api a\nscope s", " allow GET /x when header authorization=a*"),
    ("a star before the end of a value", "api a\nscope s", " allow GET /x when header x-t=a*b"),
    ("not a network", "api a\nscope s", " allow GET /x when source_ip=10.0.0.0/33"),
    ("GRPC with a path", "api a\nscope s", " allow GRPC /a.B/C"),
];

#[test]
fn what_a_policy_may_not_say() {
    let mut wrong = Vec::new();
    for (sentence, around, error) in ROWS {
        if !loads(around) {
            wrong.push(format!("{sentence}: does not load even without `{error}`"));
        }
        if loads(&format!("{around}\n{error}")) {
            wrong.push(format!("{sentence}: `{error}` loads"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_it_may() {
    let fine = [
        "api a hosts=a.test:8443\napi b hosts=a.test:8080",
        "api a hosts=a.test base=/one\napi b hosts=a.test base=/on",
        "api a hosts=*.a\napi b hosts=a\napi c hosts=x.y.a",
        "api a hosts=a.test shadow=+2592000",
        "api a hosts=a.test shadow=-2592000",
        "api a\nscope s\n allow GET /x\n allow GET /x when query a=b\n allow GET /x when query a=c\n deny GET /x",
        "api a\nscope s\n deny GET /{x:in(a,b)}/%2A",
        "api a cors=*",
        "api a\n public GET /{x}",
        "role a\nrole b inherits=a\nrole c inherits=a,b",
    ];
    for policy in fine {
        assert!(loads(policy), "{policy}");
    }
}

#[test]
fn inheritance_is_at_most_eight_roles_deep() {
    let chain = |length: usize| {
        let mut text = "role r1".to_owned();
        for index in 2..=length {
            text.push_str(&format!("\nrole r{index} inherits=r{}", index - 1));
        }
        text
    };
    assert!(loads(&chain(8)));
    assert!(!loads(&chain(9)));
}
