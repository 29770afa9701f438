//! The rules that speak of a request, found in a trie by its path, and those of them that take effect.

use smallvec::SmallVec;

use crate::case::RuleList;
use crate::condition::Truth;
use crate::facts::RequestFacts;
use crate::loosen::Loosened;
use crate::path::Segments;
use crate::snapshot::{PolicySnapshot, Rule, RuleKind};
use crate::trie::{RuleIndex, Trie};

/// Finds the rules of a trie that speak of a request.
pub(super) struct Matches<'a> {
    pub(super) snapshot: &'a PolicySnapshot,
    pub(super) facts: &'a RequestFacts,
}

/// Rules that speak of a request, each with the truth of its conditions.
pub(super) struct Matched(SmallVec<[(RuleIndex, Truth); 8]>);

impl Matches<'_> {
    pub(super) fn of(&self, trie: &Trie) -> Matched {
        self.walk(trie, self.facts.path.bytes())
    }

    /// Denies and boundaries compare the loose form, which every path that matches as it is matches too.
    pub(super) fn of_loose(&self, trie: &Trie) -> Matched {
        if self.facts.path.is_loose() {
            return self.walk(trie, self.facts.path.bytes());
        }
        self.walk(trie, Loosened::of(self.facts.path.segments()).segments())
    }

    fn walk(&self, trie: &Trie, segments: Segments<'_>) -> Matched {
        let mut matched = Matched(SmallVec::new());
        if trie.is_empty() {
            return matched;
        }
        let facts = self.facts;
        trie.walk(segments, facts.path.has_trailing_slash(), |rules| {
            for &index in rules {
                let rule = &self.snapshot.rules[index as usize];
                if rule.covers(&facts.method, facts.is_grpc, facts.is_websocket) {
                    let conditions = rule.conditions.as_ref();
                    let truth = conditions.map_or(Truth::True, |conditions| conditions.evaluate(&facts.conditions()));
                    matched.0.push((index, truth));
                }
            }
        });
        matched
    }
}

impl Matched {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts the rules that take effect, sorted, in place of `rules`, and says whether there is one: an allow needs
    /// true, a deny fires on true and unknown.
    pub(super) fn select(
        &self,
        rules: &mut RuleList,
        snapshot: &PolicySnapshot,
        wanted: impl Fn(&Rule) -> bool,
    ) -> bool {
        self.filter(rules, snapshot, |rule, truth| takes_effect(rule, truth) && wanted(rule))
    }

    /// The same for allows whose conditions do not hold.
    pub(super) fn select_failing(
        &self,
        rules: &mut RuleList,
        snapshot: &PolicySnapshot,
        wanted: impl Fn(&Rule) -> bool,
    ) -> bool {
        self.filter(rules, snapshot, |rule, truth| !takes_effect(rule, truth) && wanted(rule))
    }

    fn filter(&self, rules: &mut RuleList, snapshot: &PolicySnapshot, wanted: impl Fn(&Rule, Truth) -> bool) -> bool {
        rules.clear();
        for &(index, truth) in &self.0 {
            if wanted(&snapshot.rules[index as usize], truth) {
                rules.push(index);
            }
        }
        if rules.len() > 1 {
            rules.sort_unstable();
            rules.dedup();
        }
        !rules.is_empty()
    }

    pub(super) fn any(&self, snapshot: &PolicySnapshot, wanted: impl Fn(&Rule) -> bool) -> bool {
        self.0.iter().any(|&(index, truth)| {
            let rule = &snapshot.rules[index as usize];
            takes_effect(rule, truth) && wanted(rule)
        })
    }
}

fn takes_effect(rule: &Rule, truth: Truth) -> bool {
    match rule.kind {
        RuleKind::Allow | RuleKind::Public => truth == Truth::True,
        RuleKind::Deny | RuleKind::Boundary => truth != Truth::False,
    }
}
