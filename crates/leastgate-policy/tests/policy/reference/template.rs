//! §4, rules as they are written: methods, a template, and when they match.

use super::path::{PathView, loosen, segment};

/// A rule's text, taken apart.
#[derive(Clone, Debug)]
pub(crate) struct RuleView {
    pub(crate) methods: Vec<String>,
    pub(crate) segments: Vec<SegmentView>,
    pub(crate) slash: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum SegmentView {
    Literal(String),
    Any,
    OneOf(Vec<String>),
    Typed(String),
    Rest,
}

/// How a request asks: its method, and what else rules look at.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) method: String,
    /// A whole WebSocket handshake.
    pub(crate) websocket: bool,
    /// Its content type is gRPC's.
    pub(crate) grpc: bool,
}

pub(crate) fn rule(text: &str) -> RuleView {
    let (methods, template) = text.split_once(' ').expect("a rule is methods, a space and a template");
    let template = template.trim();
    let parts: Vec<&str> = template.trim_start_matches('/').split('/').collect();
    let slash = template.len() > 1 && template.ends_with('/');
    let mut segments = Vec::new();
    for part in parts {
        if !part.is_empty() {
            segments.push(template_segment(part));
        }
    }
    RuleView { methods: methods.split(',').map(str::to_owned).collect(), segments, slash }
}

fn template_segment(part: &str) -> SegmentView {
    if part == "**" {
        return SegmentView::Rest;
    }
    if part == "*" {
        return SegmentView::Any;
    }
    let Some(inner) = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) else {
        return SegmentView::Literal(segment(part).expect("a literal the path function accepts"));
    };
    let Some((_, kind)) = inner.split_once(':') else {
        return SegmentView::Any;
    };
    match kind.strip_prefix("in(").and_then(|k| k.strip_suffix(')')) {
        Some(list) => SegmentView::OneOf(
            list.split(',').map(|l| segment(l.trim()).expect("a literal the path function accepts")).collect(),
        ),
        None => SegmentView::Typed(kind.to_owned()),
    }
}

/// An allow is strict, in its method, every segment and the final slash.
pub(crate) fn allows(rule: &RuleView, manner: &Manner, path: &PathView) -> bool {
    let method = rule.methods.iter().any(|method| match method.as_str() {
        "WS" => manner.websocket,
        _ if manner.websocket => false,
        "GRPC" => manner.method == "POST" && manner.grpc,
        "*" => true,
        "GET" => manner.method == "GET" || manner.method == "HEAD",
        named => manner.method == named,
    });
    let open = matches!(rule.segments.last(), Some(SegmentView::Rest));
    method && covers(&rule.segments, &path.segments, true) && (open || rule.slash == path.slash)
}

/// A deny is loose: any case, any compatibility form, with or without the final slash.
pub(crate) fn denies(rule: &RuleView, manner: &Manner, path: &PathView) -> bool {
    let loosened = loose_path(path);
    denies_method(rule, manner)
        && (covers(&rule.segments, &path.segments, true) || covers(&rule.segments, &loosened, false))
}

pub(crate) fn denies_method(rule: &RuleView, manner: &Manner) -> bool {
    rule.methods.iter().any(|method| match method.as_str() {
        "GRPC" | "*" => true,
        "GET" | "WS" => manner.method == "GET" || manner.method == "HEAD",
        named => manner.method == named,
    })
}

fn loose_path(path: &PathView) -> Vec<String> {
    path.segments.iter().map(|s| loosen(s)).collect()
}

/// Whether the template covers the segments, all of them. Not `strict`: the segments are loosened, so literals are too.
pub(crate) fn covers(template: &[SegmentView], segments: &[String], strict: bool) -> bool {
    match (template, segments) {
        ([SegmentView::Rest], _) | ([], []) => true,
        ([first, rest @ ..], [segment, others @ ..]) => {
            covers_one(first, segment, strict) && covers(rest, others, strict)
        }
        _ => false,
    }
}

fn covers_one(template: &SegmentView, segment: &str, strict: bool) -> bool {
    let same = |literal: &String| if strict { literal == segment } else { loosen(literal) == segment };
    match template {
        SegmentView::Literal(literal) => same(literal),
        SegmentView::OneOf(literals) => literals.iter().any(same),
        SegmentView::Any => !segment.is_empty(),
        SegmentView::Typed(kind) => typed(kind, segment),
        SegmentView::Rest => false,
    }
}

fn typed(kind: &str, text: &str) -> bool {
    let all = |good: fn(char) -> bool| !text.is_empty() && text.chars().all(good);
    match kind {
        "int" => all(|c| c.is_ascii_digit()) && text.len() <= 19 && (text == "0" || !text.starts_with('0')),
        "hex" => all(|c| c.is_ascii_hexdigit()),
        "uuid" => {
            let groups: Vec<&str> = text.split('-').collect();
            let lengths: Vec<usize> = groups.iter().map(|g| g.len()).collect();
            lengths == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
        }
        "slug" => text
            .split('-')
            .all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())),
        "date" => date(text),
        _ => false,
    }
}

/// The shape of a date; whether the calendar has that day is the upstream's business.
fn date(text: &str) -> bool {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    lengths == [4, 2, 2] && text.chars().all(|c| c == '-' || c.is_ascii_digit())
}
