//! Templates: what is read can be written and read again, and the trie matches what a naive matcher matches.

use http::uri::PathAndQuery;
use leastgate_policy::path::CanonicalPath;
use leastgate_policy::spec::{ApiSpec, PolicySpec, RuleSpec, ScopeSpec};
use leastgate_policy::template::{MAX_ALTERNATIVES, Segment, SegmentType, Template};
use leastgate_policy::{Decision, Reason};

use crate::fields::fields;
use crate::path::hex_upper;
use crate::reference::path::PathView;
use crate::reference::template::{self, Manner};
use crate::world::{Holder, World, compile, request};

/// The first text is a template, the others are paths.
pub(crate) fn body(bytes: &[u8]) {
    let mut texts = fields(bytes).map(str::from_utf8);
    let Some(Ok(text)) = texts.next() else { return };
    let template = Template::parse(text);
    let worlds = [world(text, false), world(text, true)];
    let Ok(template) = template else {
        return assert!(worlds.iter().all(Option::is_none), "{text} is no template, and compiles");
    };
    check(text, &template);
    let is_typed = template
        .segments
        .iter()
        .any(|segment| matches!(segment, Segment::Typed(_, kind) if !matches!(kind, SegmentType::In(_))));
    assert_eq!([worlds[0].is_some(), worlds[1].is_some()], [true, !is_typed], "{text} as a rule");
    let itself = like(&template);
    for path in texts.take(4).flatten().chain([itself.as_str()]) {
        let Ok(target) = path.parse::<PathAndQuery>() else { continue };
        let [allowing, denying] = &worlds;
        allowing.iter().for_each(|world| check_match(world, text, &target, false));
        denying.iter().for_each(|world| check_match(world, text, &target, true));
    }
}

fn check(text: &str, template: &Template) {
    let printed = print(template);
    if printed.len() <= 8192 {
        assert_eq!(Template::parse(&printed).as_ref(), Ok(template), "{text} is written {printed}");
    }
    for segment in &template.segments {
        match segment {
            Segment::Literal(literal) => check_literal(literal),
            Segment::Typed(_, SegmentType::In(literals)) => {
                assert!((1..=MAX_ALTERNATIVES).contains(&literals.len()) && literals.is_sorted(), "{text}");
                literals.iter().for_each(|literal| check_literal(literal));
            }
            Segment::Typed(..) | Segment::Any(_) => {}
        }
    }
    assert!(!(template.rest && template.trailing_slash), "{text}");
}

/// Some path must equal it, or the rule would be dead.
fn check_literal(literal: &str) {
    let path = format!("/{}", escaped(literal));
    if path.len() <= 8192 {
        let path = CanonicalPath::parse(&path.parse().unwrap());
        assert!(path.is_ok_and(|path| path.segments().eq([literal])), "no path is {literal:?}");
    }
}

fn print(template: &Template) -> String {
    let mut text: String = template.segments.iter().map(|segment| format!("/{}", print_segment(segment))).collect();
    if template.rest {
        text.push_str("/**");
    }
    if template.trailing_slash || text.is_empty() { text + "/" } else { text }
}

fn print_segment(segment: &Segment) -> String {
    match segment {
        Segment::Literal(literal) => escaped(literal),
        Segment::Any(None) => "*".to_owned(),
        Segment::Any(Some(name)) => format!("{{{name}}}"),
        Segment::Typed(name, SegmentType::In(literals)) => {
            let literals: Vec<String> = literals.iter().map(|literal| escaped(literal)).collect();
            format!("{{{name}:in({})}}", literals.join(","))
        }
        Segment::Typed(name, kind) => format!("{{{name}:{kind}}}"),
    }
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { hex_upper(byte) })
        .collect()
}

/// A path that the template matches.
fn like(template: &Template) -> String {
    let text = |segment: &Segment| match segment {
        Segment::Literal(literal) => escaped(literal),
        Segment::Any(_) => "x".to_owned(),
        Segment::Typed(_, SegmentType::In(literals)) => escaped(&literals[literals.len() - 1]),
        Segment::Typed(_, SegmentType::Uuid) => "123e4567-e89b-12d3-a456-426614174000".to_owned(),
        Segment::Typed(_, SegmentType::Date) => "2026-11-22".to_owned(),
        Segment::Typed(..) => "7".to_owned(),
    };
    let path: String = template.segments.iter().map(|segment| format!("/{}", text(segment))).collect();
    if template.trailing_slash || path.is_empty() { path + "/" } else { path }
}

/// A policy with the template as its one allow, or as a deny under an allow of everything; none where it does not load.
fn world(template: &str, denies: bool) -> Option<World> {
    let rule = |template: &str| RuleSpec { text: format!("GET {template}").into(), when: None };
    let (allow, deny) = if denies { ("/**", vec![rule(template)]) } else { (template, Vec::new()) };
    let text = |text: &str| text.to_owned().into();
    let spec = PolicySpec {
        environments: vec![text("test")],
        apis: vec![ApiSpec { name: text("a"), base: text("/"), upstream: text("a"), ..ApiSpec::default() }],
        scopes: vec![ScopeSpec {
            name: text("a:use"),
            api: text("a"),
            allow: vec![rule(allow)],
            deny,
            ..ScopeSpec::default()
        }],
        ..PolicySpec::default()
    };
    let world = World::of(compile(&spec, "r1").ok()?);
    world.issue(Holder::Reader, &["a:use"]);
    Some(world)
}

fn check_match(world: &World, text: &str, target: &PathAndQuery, denies: bool) {
    let Ok(facts) = world.parse(&request("GET", target, Some(Holder::Reader))) else { return };
    let rule = template::rule(&format!("GET {text}"));
    let manner = Manner { method: "GET".to_owned(), websocket: false, grpc: false };
    let path = PathView {
        segments: facts.path().segments().map(str::to_owned).collect(),
        slash: facts.path().has_trailing_slash(),
    };
    let decision = match world.decide(&facts) {
        Decision::Allow(_) => Reason::ScopeGranted,
        Decision::Deny(denial) => denial.reason,
        Decision::Answer(answer) => answer.reason(),
    };
    let expected = match (denies, template::allows(&rule, &manner, &path), template::denies(&rule, &manner, &path)) {
        (false, true, _) | (true, _, false) => Reason::ScopeGranted,
        (false, false, _) => Reason::NoMatchingScope,
        (true, _, true) => Reason::ExplicitDeny,
    };
    assert_eq!(decision, expected, "{text} {} {target}", if denies { "denies" } else { "allows" });
}
