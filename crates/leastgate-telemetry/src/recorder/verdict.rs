//! A permit or denial, written down while it is at hand: who asked, under which rules, and what came of it.

use std::time::Duration;

use leastgate_policy::{Basis, Case, Denial, Effect, Mode, OwnAnswer, Permit, Reason, Timestamp};

use super::facts::{Facts, Verdict};
use crate::clock::Micros;
use crate::config::RedactionKey;
use crate::event::{Class, rfc3339};
use crate::json::{Array, Object};
use crate::metrics::RedactedSegment;

/// Everything the `decision` object says.
struct Statement<'a> {
    case: &'a Case,
    reason: Reason,
    enforced: bool,
    detail: Option<&'a str>,
    granted_by: &'a [&'a str],
    required_any_of: &'a [&'a str],
    failed_conditions: Vec<&'a str>,
    duration: Duration,
}

impl Facts {
    pub(crate) fn set_permit(&mut self, permit: &Permit, duration: Duration, environment: &str) {
        let shadowed = match permit.basis() {
            Basis::Shadowed(denial) => Some(denial),
            Basis::Granted | Basis::Public => None,
        };
        let case = shadowed.map_or(permit.case(), |denial| denial.case());
        self.set_case(case, permit.case(), environment);
        self.write_decision(&Statement {
            case,
            reason: permit.reason(),
            enforced: shadowed.is_none(),
            detail: shadowed.and_then(|denial| denial.detail),
            granted_by: &permit.granted_by(),
            required_any_of: shadowed.map(|denial| denial.required_any_of()).as_deref().unwrap_or_default(),
            failed_conditions: shadowed.map(|denial| denial.failed_conditions()).unwrap_or_default(),
            duration,
        });
        self.is_token_valid = true;
        self.verdict = Some(Verdict {
            reason: permit.reason(),
            shadow: case.mode() == Mode::Shadow,
            advisory: shadowed.is_some(),
            class: Class::Allow,
        });
    }

    pub(crate) fn set_answer(&mut self, answer: &OwnAnswer, duration: Duration, environment: &str) {
        let case = answer.case();
        self.set_case(case, case, environment);
        self.write_decision(&Statement {
            case,
            reason: answer.reason(),
            enforced: true,
            detail: None,
            granted_by: &[],
            required_any_of: &[],
            failed_conditions: Vec::new(),
            duration,
        });
        self.is_token_valid = case.identity().is_some();
        self.verdict = Some(Verdict {
            reason: answer.reason(),
            shadow: case.mode() == Mode::Shadow,
            advisory: false,
            class: Class::Allow,
        });
    }

    pub(crate) fn set_denial(&mut self, denial: &Denial, duration: Duration, environment: &str) {
        let case = denial.case();
        self.set_case(case, case, environment);
        self.write_decision(&Statement {
            case,
            reason: denial.reason,
            enforced: true,
            detail: denial.detail,
            granted_by: &[],
            required_any_of: &denial.required_any_of(),
            failed_conditions: denial.failed_conditions(),
            duration,
        });
        self.is_token_valid = !is_about_the_token(denial.reason);
        self.verdict = Some(Verdict {
            reason: denial.reason,
            shadow: case.mode() == Mode::Shadow,
            advisory: false,
            class: if case.identity().is_some() { Class::Deny } else { Class::Unauthenticated },
        });
    }

    /// A refusal before or beside the policy: no rule stands behind it.
    pub(crate) fn set_refusal(&mut self, reason: Reason) {
        self.decision.clear();
        let mut decision = Object::start(&mut self.decision);
        decision.word("effect", reason.effect().as_str());
        decision.word("reason", reason.as_str());
        decision.word("mode", Mode::Enforce.as_str());
        decision.boolean("enforced", true);
        decision.end();
        self.rules.clear();
        let class = if self.accessor.is_some() { Class::Deny } else { Class::Unauthenticated };
        self.verdict = Some(Verdict { reason, shadow: false, advisory: false, class });
    }

    /// What a later look at a request under way came to: its own reason and revision beside the first decision's.
    pub(crate) fn set_cut(&mut self, denial: &Denial, at: Micros) {
        self.cut.clear();
        let mut cut = Object::start(&mut self.cut);
        cut.word("reason", denial.reason.as_str());
        cut.text("policy_rev", denial.case().revision());
        rfc3339(cut.value("time"), at);
        cut.end();
    }

    /// Replaces the segments that must not be recorded by their type and a keyed hash.
    pub(crate) fn mask_segments(&mut self, marked: &[RedactedSegment], key: &RedactionKey) {
        let mut masked = Vec::with_capacity(self.path.len() + 32);
        for (index, segment) in self.path.split(|&byte| byte == b'/').skip(1).enumerate() {
            masked.push(b'/');
            match marked.iter().find(|marked| marked.index == index && !segment.is_empty()) {
                Some(marked) => {
                    masked.extend_from_slice(format!("{{{}:{}}}", marked.kind, key.hash(segment)).as_bytes());
                }
                None => masked.extend_from_slice(segment),
            }
        }
        self.path = masked;
        self.is_masked = true;
    }

    /// Replaces what a marked parameter could hold in a path that no api judged: everything from the first place on that
    /// any api marks, or from where readers may count the segments differently. It is one hash, however much that is: a
    /// path of thousands of segments must not cost a hash each.
    pub(crate) fn mask_rest(&mut self, first: usize, key: &RedactionKey) {
        let rest = self.path.split_off(place_of(&self.path, first));
        if !rest.is_empty() {
            self.path.extend_from_slice(format!("{{rest:{}}}", key.hash(&rest)).as_bytes());
        }
        self.is_masked = true;
    }

    fn set_case(&mut self, case: &Case, permitted: &Case, environment: &str) {
        self.policy_rev.clear();
        self.policy_rev.extend_from_slice(case.revision().as_bytes());
        self.api.clear();
        if let Some(api) = case.api() {
            self.api.extend_from_slice(api.name.as_bytes());
        }
        self.template.clear();
        if let Some(rule) = case.rules().next() {
            self.template.extend_from_slice(rule.template.as_bytes());
        }
        self.route = case.route();
        self.set_actor(permitted, environment);
    }

    fn set_actor(&mut self, case: &Case, environment: &str) {
        self.actor.clear();
        self.accessor = None;
        let Some(identity) = case.identity() else { return };
        self.accessor = Some(identity.accessor);
        let holdings = identity.holdings();
        let mut actor = Object::start(&mut self.actor);
        actor.word("type", "token");
        actor.text("accessor", identity.accessor.to_bytes());
        actor.text("subject", identity.name.as_bytes());
        actor.optional("owner", holdings.owner.as_deref());
        actor.text("env", environment);
        actor.texts("roles", holdings.roles.iter().map(|role| role.as_bytes()));
        let mut grants = Array::start(actor.value("grants"));
        for (scope, expires) in &holdings.grants {
            let mut grant = Object::start(grants.item());
            grant.text("name", scope.as_bytes());
            if let Some(Timestamp(seconds)) = expires {
                rfc3339(grant.value("expires"), Micros(seconds.saturating_mul(1_000_000)));
            }
            grant.end();
        }
        grants.end();
        actor.end();
    }

    fn write_decision(&mut self, statement: &Statement<'_>) {
        self.decision.clear();
        let case = statement.case;
        let mut decision = Object::start(&mut self.decision);
        decision.word("effect", statement.reason.effect().as_str());
        decision.word("reason", statement.reason.as_str());
        decision.word("mode", case.mode().as_str());
        decision.boolean("enforced", statement.enforced);
        decision.optional("detail", statement.detail);
        decision.optional("rule", case.rules().next().map(|rule| rule.id.as_bytes()));
        decision.texts("rules", case.rules().map(|rule| rule.id.as_bytes()));
        decision.texts("granted_by", statement.granted_by);
        decision.texts("required_any_of", statement.required_any_of);
        let mut conditions = Array::start(decision.value("conditions"));
        for name in &statement.failed_conditions {
            let mut condition = Object::start(conditions.item());
            condition.optional("rule", case.rules().next().map(|rule| rule.id.as_bytes()));
            condition.text("condition", name);
            condition.word("result", "not_met");
            condition.end();
        }
        conditions.end();
        decision.number("duration_ns", u64::try_from(statement.duration.as_nanos()).unwrap_or(u64::MAX));
        decision.end();
        self.set_used_rules(statement);
    }

    /// Used are the rules that took effect, not those of scopes the token lacks.
    fn set_used_rules(&mut self, statement: &Statement<'_>) {
        self.rules.clear();
        if matches!(statement.reason, Reason::ScopeGranted | Reason::ExplicitDeny) {
            self.rules.extend(statement.case.rules().map(|rule| rule.key));
        }
    }
}

/// Whether a refusal says that the token is not good; to a source with many failures a limit is told in its place.
fn is_about_the_token(reason: Reason) -> bool {
    reason.status() == Some(401) || reason == Reason::SourceFailuresLimited
}

/// Where a raw path's segment `index` begins, or an earlier one that is not plain; its length where there is neither.
fn place_of(path: &[u8], index: usize) -> usize {
    let mut place = 0;
    // What stands before the first slash counts as a part: nothing, in a path that is one.
    for (part, text) in path.split(|&byte| byte == b'/').enumerate() {
        let is_plain = if part == 0 { text.is_empty() } else { is_plain(text) };
        if part > index || !is_plain {
            return place;
        }
        place += text.len() + 1;
    }
    path.len()
}

/// Whether every reader takes this for one segment and goes on behind it.
fn is_plain(segment: &[u8]) -> bool {
    let is_unreserved = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    segment.iter().all(is_unreserved) && segment.iter().any(|byte| *byte != b'.')
}

impl Verdict {
    pub(crate) fn is_mismatch(self) -> bool {
        self.advisory && self.reason.effect() == Effect::Deny
    }
}
