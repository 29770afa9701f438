//! Templates and the paths that fit, nearly fit, or must be refused.

use super::Draw;

/// Literals as a template spells them. Some differ only in case or compatibility form.
const LITERALS: &[&str] =
    &["orders", "v1", "Orders", "items", "%C3%A9t%C3%A9", "stra%C3%9Fe", "%EF%AC%81le", "%2A", "a%20b", "x.y", "7"];

/// One segment of a template.
#[derive(Clone, Debug)]
pub(crate) enum PlannedSegment {
    Literal(&'static str),
    Star,
    Named,
    Typed(&'static str),
    In(Vec<&'static str>),
    Rest,
}

impl PlannedSegment {
    fn text(&self) -> String {
        match self {
            Self::Literal(text) => (*text).to_owned(),
            Self::Star => "*".to_owned(),
            Self::Named => "{id}".to_owned(),
            Self::Typed(kind) => format!("{{id:{kind}}}"),
            Self::In(literals) => format!("{{id:in({})}}", literals.join(",")),
            Self::Rest => "**".to_owned(),
        }
    }
}

/// Which segments a template may have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Allow,
    Deny,
    Public,
}

/// A template that is like another one: the same, or with one segment changed.
pub(crate) fn alike(
    draw: &mut Draw<'_>,
    other: &[PlannedSegment],
    base: usize,
    slash: bool,
    kind: Kind,
) -> (Vec<PlannedSegment>, bool) {
    let mut segments = other.to_vec();
    if draw.chance(50) && segments.len() > base {
        let at = base + draw.pick(segments.len() - base);
        segments.truncate(if draw.chance(20) { at } else { segments.len() });
        if at < segments.len() {
            segments[at] = planned_segment(draw, kind);
        }
        if draw.chance(25) {
            segments.push(PlannedSegment::Rest);
        }
    }
    if let Some(rest) = segments.iter().position(|segment| matches!(segment, PlannedSegment::Rest)) {
        segments.truncate(rest + 1);
    }
    for segment in &mut segments {
        *segment = match (&segment, kind) {
            (PlannedSegment::Typed(_), Kind::Deny) => PlannedSegment::Star,
            (
                PlannedSegment::Typed(_) | PlannedSegment::Star | PlannedSegment::In(_) | PlannedSegment::Rest,
                Kind::Public,
            ) => PlannedSegment::Named,
            (same, _) => (*same).clone(),
        };
    }
    let open = matches!(segments.last(), Some(PlannedSegment::Rest));
    (segments, slash && !open)
}

/// A template under `base`, and whether it ends in a slash.
pub(crate) fn template(draw: &mut Draw<'_>, base: &'static [&'static str], kind: Kind) -> (Vec<PlannedSegment>, bool) {
    let mut segments: Vec<PlannedSegment> = base.iter().map(|literal| PlannedSegment::Literal(literal)).collect();
    let count = 1 + draw.pick(3);
    for _ in 0..count {
        segments.push(planned_segment(draw, kind));
    }
    if kind != Kind::Public && draw.chance(15) {
        segments.push(PlannedSegment::Rest);
        return (segments, false);
    }
    (segments, draw.chance(12))
}

fn planned_segment(draw: &mut Draw<'_>, kind: Kind) -> PlannedSegment {
    match (draw.pick(10), kind) {
        (0..=5, _) => PlannedSegment::Literal(draw.choose(LITERALS)),
        (6, Kind::Allow | Kind::Deny) => PlannedSegment::Star,
        (8, Kind::Allow | Kind::Deny) => {
            let count = 1 + draw.pick(3);
            PlannedSegment::In((0..count).map(|_| draw.choose(LITERALS)).collect())
        }
        (9, Kind::Allow) => PlannedSegment::Typed(draw.choose(&["int", "uuid", "hex", "slug", "date"])),
        _ => PlannedSegment::Named,
    }
}

pub(crate) fn text(segments: &[PlannedSegment], slash: bool) -> String {
    let mut text = String::new();
    for segment in segments {
        text.push('/');
        text.push_str(&segment.text());
    }
    if slash || text.is_empty() {
        text.push('/');
    }
    text
}

/// A path the template covers, as bytes on the wire; `loose`: in another case or compatibility form.
pub(crate) fn fitting(draw: &mut Draw<'_>, segments: &[PlannedSegment], slash: bool, loose: bool) -> String {
    let mut path = String::new();
    let mut open = false;
    for segment in segments {
        match segment {
            PlannedSegment::Rest => {
                open = true;
                for _ in 0..draw.pick(3) {
                    path.push('/');
                    path.push_str(filler(draw));
                }
            }
            other => {
                path.push('/');
                path.push_str(&spelled(draw, other, loose));
            }
        }
    }
    let flip = if open || loose { draw.chance(30) } else { draw.chance(3) };
    if (slash != flip) || path.is_empty() {
        path.push('/');
    }
    path
}

fn filler(draw: &mut Draw<'_>) -> &'static str {
    draw.choose(&["orders", "42", "x", "ITEMS", "%C3%A9", "A%20b", "a@b:c", "deadbeef"])
}

fn spelled(draw: &mut Draw<'_>, segment: &PlannedSegment, loose: bool) -> String {
    let literal = match segment {
        PlannedSegment::Literal(text) => text,
        PlannedSegment::In(literals) => draw.choose(literals),
        PlannedSegment::Typed(kind) => return typed(draw, kind).to_owned(),
        PlannedSegment::Star | PlannedSegment::Named | PlannedSegment::Rest => return filler(draw).to_owned(),
    };
    if loose && draw.chance(60) {
        return variant(draw, literal);
    }
    if draw.chance(15) {
        return escape_one(draw, literal);
    }
    literal.to_owned()
}

/// Values of a type, with some that are just not.
fn typed(draw: &mut Draw<'_>, kind: &str) -> &'static str {
    match kind {
        "int" => draw.choose(&["7", "0", "42", "9999999999999999999", "10000000000000000000", "007", "-1", "%37"]),
        "uuid" => draw.choose(&[
            "123e4567-e89b-12d3-a456-426614174000",
            "123E4567-E89B-12D3-A456-426614174000",
            "123e4567-e89b-12d3-a456-42661417400",
            "123e4567-e89b-12d3-a456_426614174000",
        ]),
        "hex" => draw.choose(&["beef", "BEEF", "0", "7", "beeg"]),
        "slug" => draw.choose(&["a-b", "orders", "7", "a--b", "-a", "Orders"]),
        _ => draw.choose(&["2026-11-21", "0000-99-99", "2026-1-21", "2026-11-21x"]),
    }
}

/// The same literal in another case or compatibility form.
fn variant(draw: &mut Draw<'_>, literal: &str) -> String {
    let special: &[&str] = match literal {
        "%C3%A9t%C3%A9" => &["%C3%89T%C3%89", "e%CC%81te%CC%81", "E%CC%81T%C3%A9"],
        "stra%C3%9Fe" => &["STRASSE", "stra%E1%BA%9Ee", "strasse", "%C5%BFtrasse"],
        "%EF%AC%81le" => &["file", "FILE", "f%C4%B1le"],
        "orders" | "Orders" => &["ORDERS", "oRders", "%EF%BD%8Frders", "order%C5%BF", "%E2%93%9Erders"],
        "items" => &["ITEMS", "Items", "%EF%BC%A9tems", "%C4%B0tems"],
        "v1" => &["V1", "v%C2%B9", "%E2%85%B41"],
        "%2A" => &["*", "%EF%BC%8A", "%2a"],
        "a%20b" => &["A%20b", "a%C2%A0b", "a%E3%80%80B"],
        "x.y" => &["X.Y", "x%2Ey", "x%EF%BC%8Ey"],
        _ => &["%37", "%EF%BC%97", "%E2%81%B7"],
    };
    draw.choose(special).to_owned()
}

/// One plain byte written as an escape: another spelling of the same segment.
fn escape_one(draw: &mut Draw<'_>, literal: &str) -> String {
    if literal.contains('%') {
        return literal.to_owned();
    }
    let at = draw.pick(literal.len());
    let byte = literal.as_bytes()[at];
    format!("{}%{byte:02x}{}", &literal[..at], &literal[at + 1..])
}

/// Segments §3 refuses.
const REFUSED: &[&str] = &[
    "",
    ".",
    "..",
    "%2e",
    "%2E%2e",
    "...",
    "%20",
    ".%20.",
    "a;b",
    "a%3Bb",
    "a%2Fb",
    "a%5cb",
    "a\\b",
    "%00",
    "a%0d%0ab",
    "%",
    "%4",
    "%zz",
    "%25",
    "%252e",
    "%C0%AF",
    "%FF",
    "%E2%82",
    "a.",
    "a%20",
    "%20a",
    "%EF%BC%8E%EF%BC%8E",
    "a%EF%BC%8Fb",
    "%E2%84%80",
    "%E2%80%A4",
    "x%C2%A0",
    "a%CD%BEb",
    "%EF%B9%AA",
    "{x}",
    "a|b",
    "a^b",
    "[x]",
    "%7f",
    "%3F",
    "%23",
    "a%u002e",
    "\u{e9}",
    "..;",
];

/// The path with one segment that §3 refuses somewhere in it.
pub(crate) fn ambiguous(draw: &mut Draw<'_>, path: &str) -> String {
    let bad = draw.choose(REFUSED);
    let mut segments: Vec<&str> = path.split('/').skip(1).collect();
    let at = draw.pick(segments.len());
    segments.insert(at, bad);
    let mut out = String::new();
    for segment in segments {
        out.push('/');
        out.push_str(segment);
    }
    if bad.is_empty() && out.len() == 1 { "//".to_owned() } else { out }
}

/// A path that is near the given one: a segment more, less, or in another spelling.
pub(crate) fn near(draw: &mut Draw<'_>, path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    match draw.pick(6) {
        0 => format!("{trimmed}/{}", filler(draw)),
        1 => trimmed.rsplit_once('/').map_or("/".to_owned(), |(head, _)| format!("{head}/")),
        2 => path.to_ascii_uppercase().replace("%C3%9F", "%C3%9f"),
        3 => format!("{trimmed}/"),
        4 => format!("/{}{trimmed}", filler(draw)),
        _ => format!("{trimmed}{}", draw.choose(&["x", "%41", "!", "..x"])),
    }
}
