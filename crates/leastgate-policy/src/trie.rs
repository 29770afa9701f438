//! A segment trie: which rules' templates match a path.
//!
//! It is a tree, so a walk visits each node at most once: no path and no policy can make it explode.

use crate::loosen::{compare_ascii, loosen};
use crate::path::CanonicalPath;
use crate::template::{Segment, SegmentType, Template};

/// A rule's place in the snapshot.
pub(crate) type RuleIndex = u32;

/// How strictly a trie compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matching {
    /// Literals as they are, the trailing slash as the template's: allows and public rules.
    Strict,
    /// Loosened literals against the loosened path, the trailing slash ignored: denies and boundaries.
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
    /// Sorted by literal.
    literals: Vec<(Box<str>, usize)>,
    typed: Vec<(SegmentType, usize)>,
    any: Option<usize>,
    /// Rules that end here, without and with a trailing slash.
    ends: [Vec<RuleIndex>; 2],
    /// Rules whose `**` begins here.
    rest: Vec<RuleIndex>,
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

    /// Calls `found` with the rules whose templates match, in no order.
    pub(crate) fn walk(&self, path: &CanonicalPath, found: &mut impl FnMut(&[RuleIndex])) {
        self.visit(0, 0, path, found);
    }

    fn visit(&self, at: usize, depth: usize, path: &CanonicalPath, found: &mut impl FnMut(&[RuleIndex])) {
        let node = &self.nodes[at];
        found(&node.rest);
        let Some(segment) = path.segment(depth) else {
            return found(&node.ends[usize::from(path.has_trailing_slash())]);
        };
        let children = [self.literal(node, segment), node.any];
        for child in children.into_iter().flatten() {
            self.visit(child, depth + 1, path, found);
        }
        for (kind, child) in &node.typed {
            if self.is_of(kind, segment) {
                self.visit(*child, depth + 1, path, found);
            }
        }
    }

    fn literal(&self, node: &Node, segment: &str) -> Option<usize> {
        let literals = &node.literals;
        let place = match self.matching {
            Matching::Strict => literals.binary_search_by(|(own, _)| (**own).cmp(segment)),
            Matching::Loose if segment.is_ascii() => literals.binary_search_by(|(own, _)| compare_ascii(own, segment)),
            Matching::Loose if literals.is_empty() => return None,
            Matching::Loose => {
                let loose = loosen(segment);
                literals.binary_search_by(|(own, _)| (**own).cmp(&loose))
            }
        };
        place.ok().map(|place| literals[place].1)
    }

    fn is_of(&self, kind: &SegmentType, segment: &str) -> bool {
        match (self.matching, kind) {
            (Matching::Loose, SegmentType::In(texts)) if segment.is_ascii() => {
                texts.iter().any(|text| compare_ascii(text, segment).is_eq())
            }
            (Matching::Loose, SegmentType::In(texts)) => {
                let loose = loosen(segment);
                texts.iter().any(|text| **text == *loose)
            }
            _ => kind.matches(segment),
        }
    }

    fn child(&mut self, at: usize, segment: &Segment) -> usize {
        let next = self.nodes.len();
        let matching = self.matching;
        let node = &mut self.nodes[at];
        let child = match segment {
            Segment::Any(_) => *node.any.get_or_insert(next),
            Segment::Literal(text) => {
                let text = loosened_if(matching, text);
                match node.literals.binary_search_by(|(own, _)| own.cmp(&text)) {
                    Ok(place) => node.literals[place].1,
                    Err(place) => {
                        node.literals.insert(place, (text, next));
                        next
                    }
                }
            }
            Segment::Typed(_, kind) => {
                let kind = loosened_type_if(matching, kind);
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

fn loosened_if(matching: Matching, text: &str) -> Box<str> {
    match matching {
        Matching::Strict => text.into(),
        Matching::Loose => loosen(text).into(),
    }
}

fn loosened_type_if(matching: Matching, kind: &SegmentType) -> SegmentType {
    match (matching, kind) {
        (Matching::Loose, SegmentType::In(texts)) => {
            SegmentType::In(texts.iter().map(|text| loosen(text).into()).collect())
        }
        _ => kind.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(matching: Matching, templates: &[&str], path: &str) -> Vec<RuleIndex> {
        let mut trie = Trie::new(matching);
        for (rule, template) in (0..).zip(templates) {
            trie.insert(&Template::parse(template).unwrap(), rule);
        }
        let mut found = Vec::new();
        trie.walk(&CanonicalPath::parse(&path.parse().unwrap()).unwrap(), &mut |rules| found.extend_from_slice(rules));
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
