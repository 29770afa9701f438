//! A segment trie: which rules' templates match a path.
//!
//! It is a tree, so a walk visits each node at most once: no path and no policy can make it explode.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::loosen::loosen;
use crate::path::Segments;
use crate::template::{Segment, SegmentType, Template};

/// A rule's place in the snapshot.
pub(crate) type RuleIndex = u32;

/// How a trie's rules compare with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matching {
    /// Literals as they are, the trailing slash as the template's: allows and public rules.
    Strict,
    /// Loosened literals, the trailing slash ignored: denies and boundaries. To be walked with a loosened path.
    Loose,
}

/// The rules of one api and effect.
#[derive(Debug)]
pub(crate) struct Trie {
    matching: Matching,
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    literals: Literals,
    typed: Vec<(SegmentType, usize)>,
    any: Option<usize>,
    /// Rules that end here, without and with a trailing slash.
    ends: [Vec<RuleIndex>; 2],
    /// Rules whose `**` begins here.
    rest: Vec<RuleIndex>,
}

/// What of a path a visit still has before it.
#[derive(Clone, Copy)]
struct Ahead<'a> {
    segments: Segments<'a>,
    depth: usize,
    trailing_slash: bool,
}

impl Trie {
    pub(crate) fn new(matching: Matching) -> Self {
        Self { matching, nodes: vec![Node::default()] }
    }

    pub(crate) fn insert(&mut self, template: &Template, rule: RuleIndex) {
        let mut at = 0;
        for segment in &template.segments {
            at = self.child(at, segment);
        }
        let node = &mut self.nodes[at];
        if template.rest {
            node.rest.push(rule);
        } else if self.matching == Matching::Loose {
            node.ends[0].push(rule);
            node.ends[1].push(rule);
        } else {
            node.ends[usize::from(template.trailing_slash)].push(rule);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.len() == 1 && self.nodes[0].is_empty()
    }

    /// Calls `found` with the rules whose templates match, in no order.
    pub(crate) fn walk(&self, segments: Segments<'_>, trailing_slash: bool, mut found: impl FnMut(&[RuleIndex])) {
        self.visit(0, Ahead { segments, depth: 0, trailing_slash }, &mut found);
    }

    fn visit(&self, mut at: usize, mut ahead: Ahead<'_>, found: &mut impl FnMut(&[RuleIndex])) {
        loop {
            let node = &self.nodes[at];
            if !node.rest.is_empty() {
                found(&node.rest);
            }
            let Some(segment) = ahead.segments.get(ahead.depth) else {
                return found(&node.ends[usize::from(ahead.trailing_slash)]);
            };
            ahead.depth += 1;
            for (kind, child) in &node.typed {
                if kind.matches(segment) {
                    self.visit(*child, ahead, found);
                }
            }
            let literal = node.literals.get(segment);
            if let (Some(child), Some(_)) = (literal, node.any) {
                self.visit(child, ahead, found);
            }
            match node.any.or(literal) {
                Some(child) => at = child,
                None => return,
            }
        }
    }

    fn child(&mut self, at: usize, segment: &Segment) -> usize {
        let next = self.nodes.len();
        let matching = self.matching;
        let node = &mut self.nodes[at];
        let child = match segment {
            Segment::Any(_) => *node.any.get_or_insert(next),
            Segment::Literal(text) => node.literals.get_or_insert(matching.form(text), next),
            Segment::Typed(_, kind) => {
                let kind = matching.form_of_type(kind);
                match node.typed.iter().find(|(own, _)| *own == kind) {
                    Some((_, child)) => *child,
                    None => {
                        node.typed.push((kind, next));
                        next
                    }
                }
            }
        };
        if child == next {
            self.nodes.push(Node::default());
        }
        child
    }
}

/// The literals below a node; most have one or none, which needs no hash.
#[derive(Debug, Default)]
enum Literals {
    #[default]
    None,
    One(Box<[u8]>, usize),
    /// Only the policy's own texts are in it: nobody can send keys that collide with each other.
    Many(HashMap<Box<[u8]>, usize, FxBuildHasher>),
}

impl Literals {
    fn get(&self, segment: &[u8]) -> Option<usize> {
        match self {
            Self::None => None,
            Self::One(text, child) => (**text == *segment).then_some(*child),
            Self::Many(children) => children.get(segment).copied(),
        }
    }

    fn get_or_insert(&mut self, text: Box<[u8]>, next: usize) -> usize {
        if let Self::Many(children) = self {
            return *children.entry(text).or_insert(next);
        }
        match std::mem::take(self) {
            Self::One(own, child) if own != text => {
                *self = Self::Many([(own, child), (text, next)].into_iter().collect());
                next
            }
            Self::One(own, child) => {
                *self = Self::One(own, child);
                child
            }
            Self::None | Self::Many(_) => {
                *self = Self::One(text, next);
                next
            }
        }
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.ends.iter().all(Vec::is_empty)
    }
}

impl Matching {
    fn form(self, text: &str) -> Box<[u8]> {
        match self {
            Self::Strict => text.as_bytes().into(),
            Self::Loose => loosen(text).as_bytes().into(),
        }
    }

    fn form_of_type(self, kind: &SegmentType) -> SegmentType {
        match (self, kind) {
            (Self::Loose, SegmentType::In(texts)) => {
                SegmentType::In(texts.iter().map(|text| loosen(text).into()).collect())
            }
            _ => kind.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loosen::Loosened;
    use crate::path::CanonicalPath;

    fn matches(matching: Matching, templates: &[&str], path: &str) -> Vec<RuleIndex> {
        let mut trie = Trie::new(matching);
        for (rule, template) in (0..).zip(templates) {
            trie.insert(&Template::parse(template).unwrap(), rule);
        }
        let mut found = Vec::new();
        let path = CanonicalPath::parse(&path.parse().unwrap()).unwrap();
        let loose = (matching == Matching::Loose).then(|| Loosened::of(path.segments()));
        let segments = loose.as_ref().map_or(path.bytes(), Loosened::segments);
        trie.walk(segments, path.has_trailing_slash(), |rules| found.extend_from_slice(rules));
        found.sort_unstable();
        found
    }

    #[test]
    fn every_form_of_a_segment_is_tried() {
        let templates = ["/a/b", "/a/*", "/a/{x:hex}", "/{y}/b", "/a/**", "/**", "/a/b/", "/a/{z:in(b,c)}", "/a"];
        assert_eq!(matches(Matching::Strict, &templates, "/a/b"), [0, 1, 2, 3, 4, 5, 7]);
        assert_eq!(matches(Matching::Strict, &templates, "/a/b/"), [4, 5, 6]);
        assert_eq!(matches(Matching::Strict, &templates, "/a"), [4, 5, 8]);
        assert_eq!(matches(Matching::Strict, &templates, "/A"), [5]);
        assert_eq!(matches(Matching::Strict, &templates, "/"), [5]);
    }

    #[test]
    fn a_loose_trie_ignores_case_compatibility_and_the_last_slash() {
        for path in ["/admin/ab", "/ADMIN/AB/", "/%EF%BC%A1dmin/aB", "/admin/%C3%89", "/admin/e%CC%81"] {
            assert_eq!(matches(Matching::Loose, &["/Admin/{x:in(Ab,%C3%A9)}"], path), [0], "{path}");
        }
        assert!(matches(Matching::Loose, &["/Admin/{x:in(Ab,%C3%A9)}"], "/admin/abc").is_empty());
    }
}
