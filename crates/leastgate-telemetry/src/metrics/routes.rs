//! Label children resolved when a policy loads: of each route, upstream and api. A request finds its own by index.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::Method;
use leastgate_policy::{PolicySnapshot, Rule};
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::families::Families;

/// A method as a label: known, or `_OTHER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MethodLabel(u8);

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "_OTHER"];

impl MethodLabel {
    pub(crate) const OTHER: Self = Self(9);

    pub(crate) fn of(method: &Method) -> Self {
        let index = METHODS.iter().position(|known| *known == method.as_str());
        index.and_then(|index| u8::try_from(index).ok()).map_or(Self::OTHER, Self)
    }

    fn as_str(self) -> &'static str {
        METHODS.get(usize::from(self.0)).copied().unwrap_or("_OTHER")
    }
}

/// The children of one route.
#[derive(Debug)]
pub(crate) struct RouteLabels {
    label: Arc<str>,
    duration: Histogram,
    family: IntCounterVec,
    /// Filled as methods and codes turn up; more than fit are looked up each time.
    requests: [OnceLock<(Combination, IntCounter)>; COMBINATIONS],
}

type Combination = (MethodLabel, Option<u16>);
const COMBINATIONS: usize = 16;

impl RouteLabels {
    fn new(families: &Families, label: &Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            label: Arc::clone(label),
            duration: families.request_duration.with_label_values(&[label]),
            family: families.requests.clone(),
            requests: [const { OnceLock::new() }; COMBINATIONS],
        })
    }

    /// Counts a finished request; `code` is what the client was sent, if anything.
    pub(crate) fn count(&self, method: MethodLabel, code: Option<u16>) {
        let wanted = (method, code);
        for slot in &self.requests {
            let (combination, counter) = slot.get_or_init(|| (wanted, self.resolve(wanted)));
            if *combination == wanted {
                counter.inc();
                return;
            }
        }
        self.resolve(wanted).inc();
    }

    pub(crate) fn observe(&self, seconds: f64) {
        self.duration.observe(seconds);
    }

    fn resolve(&self, (method, code): Combination) -> IntCounter {
        let code = code.map_or_else(|| String::from("_none"), |code| code.to_string());
        self.family.with_label_values(&[&*self.label, method.as_str(), &code])
    }

    /// Takes the series of a template that no policy has any more off the exposition. Requests still under way under the
    /// old policy count into the void.
    fn retire(&self, families: &Families) {
        for ((method, code), _) in self.requests.iter().filter_map(OnceLock::get) {
            let code = code.map_or_else(|| String::from("_none"), |code| code.to_string());
            // It may be gone already: nothing is lost by that.
            drop(families.requests.remove_label_values(&[&*self.label, method.as_str(), &code]));
        }
        drop(families.request_duration.remove_label_values(&[&*self.label]));
    }
}

/// Why a connection to an upstream did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// Every connection that there may be is in use, and none came free in time.
    Saturated,
    /// Nobody listens there.
    Refused,
    /// Nobody answered in time.
    Timeout,
    /// The name has no address.
    Dns,
    /// The handshake failed.
    Tls,
    /// Anything else.
    Other,
}

impl ConnectError {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Saturated, "saturated"),
        (Self::Refused, "refused"),
        (Self::Timeout, "timeout"),
        (Self::Dns, "dns"),
        (Self::Tls, "tls"),
        (Self::Other, "other"),
    ];
}

/// The children of one upstream.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamLabels {
    pub(crate) name: Arc<str>,
    requests: [IntCounter; CLASSES.len()],
    duration: Histogram,
    connect_errors: [IntCounter; ConnectError::ALL.len()],
}

const CLASSES: [&str; 6] = ["error", "1xx", "2xx", "3xx", "4xx", "5xx"];

impl UpstreamLabels {
    fn new(families: &Families, name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            requests: CLASSES.map(|class| families.upstream_requests.with_label_values(&[&**name, class])),
            duration: families.upstream_duration.with_label_values(&[name]),
            connect_errors: ConnectError::ALL
                .map(|(_, error)| families.upstream_connect_errors.with_label_values(&[&**name, error])),
        }
    }

    /// Counts an answer by its class, a failure as `error`.
    pub(crate) fn count(&self, status: Option<u16>) {
        let class = status.map_or(0, |status| usize::from(status / 100));
        self.requests.get(class).unwrap_or(&self.requests[0]).inc();
    }

    pub(crate) fn observe(&self, seconds: f64) {
        self.duration.observe(seconds);
    }

    pub(crate) fn connect_error(&self, error: ConnectError) {
        if let Some(index) = ConnectError::ALL.iter().position(|(known, _)| *known == error) {
            self.connect_errors[index].inc();
        }
    }
}

/// Everything resolved for one policy revision.
#[derive(Debug)]
pub(crate) struct RouteTable {
    revision: String,
    /// Its policy was not announced: every route counts as `_other`.
    makeshift: bool,
    routes: Vec<Arc<RouteLabels>>,
    none: Arc<RouteLabels>,
    other: Arc<RouteLabels>,
    upstreams: Vec<UpstreamLabels>,
    shadow: Vec<(Arc<str>, IntCounter)>,
    redacted: Vec<RedactedSegment>,
}

/// A place in paths where some rule has a parameter marked `redact`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RedactedSegment {
    pub(crate) index: usize,
    pub(crate) kind: &'static str,
}

impl RouteTable {
    pub(crate) fn is_of(&self, revision: &str) -> bool {
        self.revision == revision && !self.makeshift
    }

    /// The labels of a route of this table's policy; `None`: no rule matched.
    pub(crate) fn route(&self, index: Option<usize>) -> &Arc<RouteLabels> {
        index.map_or(&self.none, |index| self.routes.get(index).unwrap_or(&self.other))
    }

    pub(crate) fn upstream(&self, name: &str) -> Option<usize> {
        self.upstreams.iter().position(|upstream| *upstream.name == *name)
    }

    pub(crate) fn upstream_labels(&self, index: usize) -> Option<&UpstreamLabels> {
        self.upstreams.get(index)
    }

    pub(crate) fn count_shadow_mismatch(&self, api: &str) {
        if let Some((_, counter)) = self.shadow.iter().find(|(name, _)| **name == *api) {
            counter.inc();
        }
    }

    /// Where paths of apis with `redact` may hold something that is not to be recorded, the first place first. Any rule's
    /// parameter counts, because a refused request matched none.
    pub(crate) fn redacted(&self) -> &[RedactedSegment] {
        &self.redacted
    }
}

/// The tables of the last few policies: requests decided under an older one are still under way.
#[derive(Debug)]
pub(crate) struct RouteTables {
    max_routes: usize,
    none: Arc<RouteLabels>,
    other: Arc<RouteLabels>,
    loaded: Mutex<Loaded>,
}

#[derive(Debug, Default)]
struct Loaded {
    tables: Vec<Arc<RouteTable>>,
    /// Templates with a label of their own.
    labelled: Vec<Arc<RouteLabels>>,
}

const TABLES: usize = 4;

impl RouteTables {
    pub(crate) fn new(families: &Families, max_routes: usize) -> Self {
        Self {
            max_routes,
            none: RouteLabels::new(families, &Arc::from("_none")),
            other: RouteLabels::new(families, &Arc::from("_other")),
            loaded: Mutex::default(),
        }
    }

    /// Resolves the labels of a policy, before it is put in force.
    pub(crate) fn load(&self, families: &Families, snapshot: &PolicySnapshot) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: HashSet<&str> = snapshot.routes().iter().map(|route| &**route).collect();
        loaded.labelled.retain(|labels| {
            let stays = wanted.contains(&*labels.label);
            if !stays {
                labels.retire(families);
            }
            stays
        });
        let routes = snapshot.routes().iter().map(|route| self.label(families, &mut loaded.labelled, route)).collect();
        let table = Arc::new(self.table(families, snapshot, routes));
        loaded.tables.retain(|table| !table.is_of(snapshot.revision()));
        loaded.tables.push(table);
        if loaded.tables.len() > TABLES {
            loaded.tables.remove(0);
        }
    }

    /// The table of a revision; a makeshift one, without labels of its own, for a policy that was never announced.
    pub(crate) fn get(&self, revision: &str) -> Arc<RouteTable> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let known = loaded.tables.iter().find(|table| table.is_of(revision)).map(Arc::clone);
        known.unwrap_or_else(|| Arc::new(self.empty(revision)))
    }

    /// The table of the policy loaded last.
    pub(crate) fn newest(&self) -> Arc<RouteTable> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.tables.last().map_or_else(|| Arc::new(self.empty("")), Arc::clone)
    }

    fn label(&self, families: &Families, labelled: &mut Vec<Arc<RouteLabels>>, route: &Arc<str>) -> Arc<RouteLabels> {
        if let Some(known) = labelled.iter().find(|labels| labels.label == *route) {
            return Arc::clone(known);
        }
        if labelled.len() >= self.max_routes {
            return Arc::clone(&self.other);
        }
        let labels = RouteLabels::new(families, route);
        labelled.push(Arc::clone(&labels));
        labels
    }

    fn empty(&self, revision: &str) -> RouteTable {
        RouteTable {
            revision: revision.to_owned(),
            makeshift: true,
            routes: Vec::new(),
            none: Arc::clone(&self.none),
            other: Arc::clone(&self.other),
            upstreams: Vec::new(),
            shadow: Vec::new(),
            redacted: Vec::new(),
        }
    }

    fn table(&self, families: &Families, snapshot: &PolicySnapshot, routes: Vec<Arc<RouteLabels>>) -> RouteTable {
        let mut upstreams: Vec<UpstreamLabels> = Vec::new();
        for api in snapshot.apis() {
            if !upstreams.iter().any(|known| known.name == api.upstream) {
                upstreams.push(UpstreamLabels::new(families, &api.upstream));
            }
        }
        let mismatches = |api: &Arc<str>| families.shadow_mismatches.with_label_values(&[&**api, "deny"]);
        RouteTable {
            makeshift: false,
            routes,
            upstreams,
            shadow: snapshot.apis().iter().map(|api| (Arc::clone(&api.name), mismatches(&api.name))).collect(),
            redacted: redacted_segments(snapshot),
            ..self.empty(snapshot.revision())
        }
    }
}

fn redacted_segments(snapshot: &PolicySnapshot) -> Vec<RedactedSegment> {
    let names: HashSet<&str> = snapshot.apis().iter().flat_map(|api| &api.redact).map(|name| &**name).collect();
    let marked = |rule: &Rule| -> Vec<RedactedSegment> {
        let parameters = rule.parameters().filter(|parameter| names.contains(parameter.name));
        parameters.map(|parameter| RedactedSegment { index: parameter.segment, kind: parameter.kind }).collect()
    };
    let mut segments: Vec<RedactedSegment> = snapshot.rules().iter().flat_map(marked).collect();
    segments.sort_by_key(|segment| segment.index);
    segments.dedup_by_key(|segment| segment.index);
    segments
}
