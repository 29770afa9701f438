//! Rules: from `METHOD[,METHOD] TEMPLATE` and its conditions to what the tries hold (§4).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::{CompileContext, Errors, SpecErrorKind};
use crate::answer::OWN_TOKEN_PATH;
use crate::condition::{Conditions, Pattern};
use crate::fields::{is_gateway_field, is_plain};
use crate::method::{Methods, supported};
use crate::snapshot::{Api, Protocol, Rule, RuleKey, RuleKind};
use crate::source;
use crate::spec::{BoundarySpec, Located, PolicySpec, RuleSpec, WhenSpec};
use crate::template::{Segment, SegmentType, Template};
use crate::trie::RuleIndex;

/// A rule and the apis it is tried on.
pub(super) struct Placed {
    pub(super) rule: Rule,
    apis: Vec<usize>,
}

/// Where a rule stands in the policy.
struct Seat<'a> {
    /// What its id begins with.
    prefix: String,
    kind: RuleKind,
    scope: Option<(&'a str, usize)>,
    apis: Vec<usize>,
    /// Whether the apis were named, rather than all of them meant.
    names_apis: bool,
    credential_header: &'a HeaderName,
}

/// All rules that can bind in this environment, sorted by id.
pub(super) fn compile(
    spec: &PolicySpec,
    context: &CompileContext<'_>,
    apis: &[Api],
    scope_by_name: &HashMap<Arc<str>, usize>,
    errors: &mut Errors,
) -> Vec<Placed> {
    let api_index = |name: &str| apis.iter().position(|api| *api.name == *name);
    let mut compiler =
        Compiler { apis, well_known: context.well_known, errors, rules: Vec::new(), ids: HashSet::new() };
    let credential_header = &context.credential_header;
    for scope in &spec.scopes {
        let apis: Vec<usize> = api_index(&scope.api.value).into_iter().collect();
        let index = scope_by_name.get(scope.name.value.as_str()).copied().unwrap_or_default();
        for (kind, word, rules) in [(RuleKind::Allow, "allow", &scope.allow), (RuleKind::Deny, "deny", &scope.deny)] {
            let prefix = format!("{}/{word}", scope.name.value);
            let scope = Some((scope.name.value.as_str(), index));
            compiler
                .add_all(rules, &Seat { prefix, kind, scope, apis: apis.clone(), names_apis: true, credential_header });
        }
    }
    for api in &spec.apis {
        let prefix = format!("{}/public", api.name.value);
        let seat = Seat {
            prefix,
            kind: RuleKind::Public,
            scope: None,
            apis: api_index(&api.name.value).into_iter().collect(),
            names_apis: true,
            credential_header,
        };
        for text in &api.public {
            compiler.add(&RuleSpec { text: text.clone(), when: None }, &seat);
        }
    }
    for boundary in &spec.boundaries {
        let bound: Vec<usize> = match &boundary.apis {
            None => (0..apis.len()).collect(),
            Some(names) => names.iter().filter_map(|name| api_index(&name.value)).collect(),
        };
        let is_empty = |names: &Option<Vec<Located<String>>>| names.as_ref().is_some_and(Vec::is_empty);
        if is_empty(&boundary.apis) || is_empty(&boundary.environments) {
            compiler.errors.push(boundary.origin, SpecErrorKind::EmptyBoundary);
        }
        let prefix = boundary_prefix(boundary);
        let names_apis = boundary.apis.is_some();
        let seat = Seat { prefix, kind: RuleKind::Boundary, scope: None, apis: bound, names_apis, credential_header };
        let first = compiler.rules.len();
        compiler.add_all(&boundary.deny, &seat);
        let binds =
            boundary.environments.as_ref().is_none_or(|all| all.iter().any(|name| name.value == context.environment));
        if !binds {
            compiler.rules.truncate(first);
        }
    }
    let mut rules = compiler.rules;
    rules.sort_by(|a, b| a.rule.id.cmp(&b.rule.id));
    rules
}

/// Puts the rules into their apis' tries.
pub(super) fn index(rules: &[Placed], apis: &mut [Api]) {
    for (index, placed) in (0 as RuleIndex..).zip(rules) {
        for &api in &placed.apis {
            let api = &mut apis[api];
            let trie = match placed.rule.kind {
                RuleKind::Allow => &mut api.allow,
                RuleKind::Deny | RuleKind::Boundary => &mut api.deny,
                RuleKind::Public => &mut api.public,
            };
            trie.insert(&placed.rule.path, index);
        }
    }
}

fn boundary_prefix(boundary: &BoundarySpec) -> String {
    let list = |names: &Option<Vec<Located<String>>>| match names {
        None => "*".to_owned(),
        Some(names) => {
            let mut names: Vec<&str> = names.iter().map(|name| name.value.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            names.join(",")
        }
    };
    format!("boundary/{}/{}/deny", list(&boundary.environments), list(&boundary.apis))
}

struct Compiler<'a> {
    apis: &'a [Api],
    well_known: bool,
    errors: &'a mut Errors,
    rules: Vec<Placed>,
    ids: HashSet<Arc<str>>,
}

impl Compiler<'_> {
    fn add_all(&mut self, rules: &[RuleSpec], seat: &Seat<'_>) {
        for rule in rules {
            self.add(rule, seat);
        }
    }

    fn add(&mut self, spec: &RuleSpec, seat: &Seat<'_>) {
        match self.compile_one(spec, seat) {
            Ok(rule) if self.ids.insert(Arc::clone(&rule.id)) => {
                self.rules.push(Placed { rule, apis: seat.apis.clone() });
            }
            Ok(rule) => self.errors.push(spec.text.origin, SpecErrorKind::DuplicateRule(rule.id.to_string())),
            Err(kind) => self.errors.push(spec.text.origin, kind),
        }
    }

    fn compile_one(&mut self, spec: &RuleSpec, seat: &Seat<'_>) -> Result<Rule, SpecErrorKind> {
        let (methods_text, template_text) = split(&spec.text.value)?;
        let (methods, protocol, template_text) = methods(methods_text, template_text)?;
        let path = Template::parse(&template_text)?;
        self.check_form(seat, &methods, &path, &template_text)?;
        self.check_asked(&methods, &path)?;
        let conditions = spec.when.as_ref().and_then(|when| self.conditions(when, seat.credential_header));
        let mut id = format!("{}/{methods_text} {}", seat.prefix, split(&spec.text.value)?.1);
        if let Some(conditions) = &conditions {
            let hash = blake3::hash(canonical(conditions).as_bytes()).to_hex();
            id.push('#');
            id.push_str(&hash[..8]);
        }
        Ok(Rule {
            id: id.into(),
            key: RuleKey::default(),
            scope: seat.scope.map(|(name, _)| name.into()),
            scope_index: seat.scope.map(|(_, index)| index),
            template: template_text.into(),
            route: 0,
            path,
            kind: seat.kind,
            methods,
            protocol,
            conditions,
        })
    }

    fn check_form(&self, seat: &Seat<'_>, methods: &Methods, path: &Template, text: &str) -> Result<(), SpecErrorKind> {
        let types = || {
            path.segments
                .iter()
                .filter_map(|segment| if let Segment::Typed(_, kind) = segment { Some(kind) } else { None })
        };
        if matches!(seat.kind, RuleKind::Deny | RuleKind::Boundary)
            && types().any(|kind| !matches!(kind, SegmentType::In(_)))
        {
            return Err(SpecErrorKind::TypedDeny);
        }
        if seat.kind == RuleKind::Public {
            if *methods == Methods::Any {
                return Err(SpecErrorKind::PublicMethod);
            }
            let star = path.segments.contains(&Segment::Any(None));
            if path.rest || star || types().next().is_some() {
                return Err(SpecErrorKind::PublicTemplate);
            }
        }
        let bases = || seat.apis.iter().map(|&index| &self.apis[index].base);
        let is_inside = match seat.kind {
            RuleKind::Boundary => !seat.names_apis || bases().any(|base| path.reaches(base)),
            _ => bases().all(|base| path.is_under(base)),
        };
        if is_inside {
            return Ok(());
        }
        let base = bases().flatten().map(|segment| format!("/{segment}")).collect();
        Err(SpecErrorKind::OutsideBase { template: text.to_owned(), base })
    }

    /// A rule on exactly the path that the gateway answers by itself would never be asked. What covers GET covers HEAD.
    fn check_asked(&self, methods: &Methods, path: &Template) -> Result<(), SpecErrorKind> {
        let is_own = || Template::parse(OWN_TOKEN_PATH).is_ok_and(|own| own == *path);
        if self.well_known && methods.matches(&Method::HEAD) && is_own() {
            Err(SpecErrorKind::NeverAsked)
        } else {
            Ok(())
        }
    }

    /// The conditions of a rule; errors are pushed with their own places. `None` where there is none.
    fn conditions(&mut self, when: &WhenSpec, credential_header: &HeaderName) -> Option<Conditions> {
        let mut conditions = Conditions::default();
        for (name, values) in &when.header {
            let header = self.checked(name, header_name(&name.value, credential_header));
            let patterns = self.values(name, values, header_pattern);
            if let Some(header) = header {
                self.check_new(name, conditions.headers.iter().any(|(own, _)| *own == header));
                conditions.headers.push((header, patterns));
            }
        }
        for (name, values) in &when.query {
            let texts = self.values(name, values, |text| (!text.contains('*')).then(|| text.into()));
            self.check_new(name, conditions.query.iter().any(|(own, _)| *own == name.value));
            conditions.query.push((name.value.as_str().into(), texts));
        }
        for net in &when.source_ip {
            let parsed = parse_network(&net.value);
            conditions.source_ip.extend(self.checked(net, parsed));
        }
        (conditions != Conditions::default()).then_some(conditions)
    }

    fn values<T>(
        &mut self,
        name: &Located<String>,
        values: &ConditionValues,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        if values.is_empty() {
            self.errors.push(name.origin, SpecErrorKind::EmptyCondition);
        }
        let parsed = values.iter().map(|value| {
            self.checked(value, parse(&value.value).ok_or_else(|| SpecErrorKind::ConditionValue(value.value.clone())))
        });
        parsed.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    fn check_new(&mut self, name: &Located<String>, is_known: bool) {
        if is_known {
            self.errors.push(name.origin, SpecErrorKind::DuplicateCondition(name.value.clone()));
        }
    }

    fn checked<T>(&mut self, place: &Located<String>, result: Result<T, SpecErrorKind>) -> Option<T> {
        result.map_err(|kind| self.errors.push(place.origin, kind)).ok()
    }
}

type ConditionValues = [Located<String>];

fn header_name(text: &str, credential_header: &HeaderName) -> Result<HeaderName, SpecErrorKind> {
    let name: HeaderName = text.parse().map_err(|_| SpecErrorKind::HeaderName(text.to_owned()))?;
    if is_gateway_field(name.as_str()) || name == credential_header || !is_plain(&name) {
        return Err(SpecErrorKind::GatewayHeader(text.to_owned()));
    }
    Ok(name)
}

pub(super) fn parse_network(text: &str) -> Result<IpNet, SpecErrorKind> {
    source::parse_network(text).map_err(|error| SpecErrorKind::Network { network: text.to_owned(), error })
}

/// A pattern that some header value can meet: values are compared trimmed, and only visible ASCII is read.
fn header_pattern(text: &str) -> Option<Pattern> {
    let is_visible = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let is_trimmed = !text.starts_with(' ') && !text.ends_with(' ');
    Pattern::parse(text).filter(|_| is_visible && is_trimmed)
}

fn split(text: &str) -> Result<(&str, &str), SpecErrorKind> {
    let (methods, template) = text.split_once(' ').ok_or(SpecErrorKind::RuleForm)?;
    let template = template.trim_start_matches(' ');
    if methods.is_empty() || template.is_empty() { Err(SpecErrorKind::RuleForm) } else { Ok((methods, template)) }
}

fn methods(text: &str, template: &str) -> Result<(Methods, Protocol, String), SpecErrorKind> {
    let listed = |method| Methods::Listed(Box::new([method]));
    match text {
        "*" => Ok((Methods::Any, Protocol::Plain, template.to_owned())),
        "GRPC" if template.starts_with('/') => Err(SpecErrorKind::RuleForm),
        "GRPC" => Ok((listed(Method::POST), Protocol::Grpc, format!("/{template}"))),
        "WS" => Ok((listed(Method::GET), Protocol::WebSocket, template.to_owned())),
        _ => {
            let mut names = Vec::new();
            for name in text.split(',') {
                match name {
                    "GRPC" => return Err(SpecErrorKind::ProtocolInList("GRPC")),
                    "WS" => return Err(SpecErrorKind::ProtocolInList("WS")),
                    "*" => return Err(SpecErrorKind::ProtocolInList("`*`")),
                    _ => names.push(supported(name).ok_or_else(|| SpecErrorKind::Method(name.to_owned()))?),
                }
            }
            Ok((Methods::Listed(names.into_boxed_slice()), Protocol::Plain, template.to_owned()))
        }
    }
}

/// One text for equal conditions, however they are ordered.
fn canonical(conditions: &Conditions) -> String {
    let mut lines: Vec<String> = Vec::new();
    for (name, patterns) in &conditions.headers {
        let values = patterns.iter().map(|pattern| match pattern {
            Pattern::Exact(text) => text.to_string(),
            Pattern::Prefix(text) => format!("{text}*"),
        });
        lines.push(canonical_line("header", name.as_str(), values.collect()));
    }
    for (name, values) in &conditions.query {
        lines.push(canonical_line("query", name, values.iter().map(ToString::to_string).collect()));
    }
    if !conditions.source_ip.is_empty() {
        lines.push(canonical_line("source_ip", "", conditions.source_ip.iter().map(ToString::to_string).collect()));
    }
    lines.sort_unstable();
    lines.join("\n")
}

fn canonical_line(kind: &str, name: &str, mut values: Vec<String>) -> String {
    values.sort_unstable();
    values.dedup();
    format!("{kind}\t{name}\t{}", values.join("\t"))
}
