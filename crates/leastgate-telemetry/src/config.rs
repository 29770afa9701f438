//! What this crate wants to know before it starts: plain values, no file formats. The wiring fills them from
//! `leastgate.yaml` and the environment.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::event::Class;
use crate::sink::Sink;

/// Everything [`crate::Telemetry`] is built from.
#[derive(Debug)]
pub struct TelemetryConfig {
    /// The environment this gateway serves.
    pub environment: String,
    /// Names this gateway in events; `None`: kept in `state_dir`, or drawn at each start.
    pub instance: Option<String>,
    /// Where instance id and last sequence number outlive the process; `None`: numbering begins at 1 with each start.
    pub state_dir: Option<PathBuf>,
    /// The data listener's name or address, as events carry it.
    pub listener: String,
    /// The product's version.
    pub version: String,
    /// The revision the binary was built from.
    pub build_revision: String,
    /// Kubernetes: the pod's name.
    pub pod: Option<String>,
    /// Kubernetes: the pod's namespace.
    pub namespace: Option<String>,
    /// Kubernetes: the node's name.
    pub node: Option<String>,
    /// Where audit events go. May be empty: events are then only kept in memory.
    pub sinks: Vec<SinkConfig>,
    /// What happens per class when a sink can't keep up, where the sink says nothing itself.
    pub classes: Classes,
    /// Room for lines of each worker that the writer has not taken yet, in bytes.
    pub worker_buffer: usize,
    /// The same for class `unauthenticated`, which never takes the others' room.
    pub unauthenticated_buffer: usize,
    /// Events a sink may have waiting before droppable ones are dropped; of 4 KiB on average, and 1 MiB in all is always
    /// allowed.
    pub sink_queue: usize,
    /// Events of `block` classes that may be under way, from the reservation to the slowest sink.
    pub reservations: usize,
    /// Unauthenticated events recorded one by one per source and second; more become one summary.
    pub unauthenticated_per_source: u32,
    /// Events kept in memory for explain and events, with the same bound of bytes.
    pub recent: usize,
    /// Route templates with a label of their own.
    pub max_routes: usize,
    /// Pairs of token and rule whose use is counted.
    pub usage_entries: usize,
    /// Keys the hash of path parameters marked `redact`.
    pub redaction_key: RedactionKey,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            environment: String::from("default"),
            instance: None,
            state_dir: None,
            listener: String::from("data"),
            version: String::from(env!("CARGO_PKG_VERSION")),
            build_revision: String::from("unknown"),
            pod: None,
            namespace: None,
            node: None,
            sinks: Vec::new(),
            classes: Classes::default(),
            worker_buffer: 1024 * 1024,
            unauthenticated_buffer: 256 * 1024,
            sink_queue: 8192,
            reservations: 4096,
            unauthenticated_per_source: 10,
            recent: 4096,
            max_routes: 500,
            usage_entries: 200_000,
            redaction_key: RedactionKey::random(),
        }
    }
}

/// One place audit events go.
#[derive(Debug)]
pub struct SinkConfig {
    /// Its name in metrics and gaps.
    pub name: String,
    /// What it is.
    pub kind: SinkKind,
    /// Overrides [`TelemetryConfig::classes`] for this sink.
    pub classes: Option<Classes>,
}

/// The kinds of sink.
#[derive(Debug)]
pub enum SinkKind {
    /// NDJSON on standard output.
    Stdout,
    /// NDJSON in a file.
    File(FileSinkConfig),
    /// A sink of the embedding program.
    Custom(Box<dyn Sink>),
}

/// A file of audit events.
#[derive(Clone, Debug)]
pub struct FileSinkConfig {
    /// The open segment. Closed ones are its siblings `<path>.<UTC time>`.
    pub path: PathBuf,
    /// A new segment before this one grows larger.
    pub max_bytes: Option<u64>,
    /// A new segment when this one is older.
    pub max_age: Option<Duration>,
    /// When the disk is asked to be sure.
    pub fsync: Fsync,
}

impl FileSinkConfig {
    /// A file that is never rotated and left to the page cache.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), max_bytes: None, max_age: None, fsync: Fsync::Never }
    }
}

/// When written batches are forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// The operating system's business: survives `kill -9`, not a power cut.
    Never,
    /// After each batch.
    Batch,
    /// At most this long after a batch.
    Interval(Duration),
}

/// What happens to an event of a class when a sink can't keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassPolicy {
    /// It is dropped, counted, and the gap recorded.
    Drop,
    /// Its place is reserved before the request is forwarded; without a place the request is answered 503.
    Block,
}

/// The policy of each class that has a choice; `unauthenticated` is always [`ClassPolicy::Drop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classes {
    /// Requests that passed.
    pub allow: ClassPolicy,
    /// Requests of a known token that were refused.
    pub deny: ClassPolicy,
    /// Changes administrators make.
    pub admin: ClassPolicy,
    /// Starts, stops, reloads.
    pub lifecycle: ClassPolicy,
}

impl Default for Classes {
    fn default() -> Self {
        use ClassPolicy::{Block, Drop};
        Self { allow: Drop, deny: Drop, admin: Block, lifecycle: Block }
    }
}

impl Classes {
    pub(crate) fn of(self, class: Class) -> ClassPolicy {
        match class {
            Class::Allow => self.allow,
            Class::Deny => self.deny,
            Class::Unauthenticated => ClassPolicy::Drop,
            Class::Admin => self.admin,
            Class::Lifecycle => self.lifecycle,
        }
    }

    /// The stricter of the two for each class: a request must satisfy every sink.
    pub(crate) fn stricter(self, other: Self) -> Self {
        let pick = |one, two| if one == ClassPolicy::Block { one } else { two };
        Self {
            allow: pick(self.allow, other.allow),
            deny: pick(self.deny, other.deny),
            admin: pick(self.admin, other.admin),
            lifecycle: pick(self.lifecycle, other.lifecycle),
        }
    }

    pub(crate) const ALL_DROP: Self = Self {
        allow: ClassPolicy::Drop,
        deny: ClassPolicy::Drop,
        admin: ClassPolicy::Drop,
        lifecycle: ClassPolicy::Drop,
    };

    pub(crate) fn any_block(self) -> bool {
        self != Self::ALL_DROP
    }
}

/// The key under which redacted path parameters are hashed: the same value gives the same hash, and nobody without the
/// key can try values.
#[derive(Clone)]
pub struct RedactionKey([u8; 32]);

impl RedactionKey {
    /// A key the caller derived, so that hashes compare across restarts.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// A key for this process only.
    pub fn random() -> Self {
        // Four ids carry some 250 random bits; hashing spreads them over the key.
        let mut hasher = blake3::Hasher::new_derive_key("leastgate audit redaction key v1");
        for _ in 0..4 {
            hasher.update(uuid::Uuid::now_v7().as_bytes());
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The first 64 bits of the keyed BLAKE3 of `value`, in hex.
    pub(crate) fn hash(&self, value: &[u8]) -> String {
        blake3::keyed_hash(&self.0, value).to_hex()[..16].to_owned()
    }
}

impl fmt::Debug for RedactionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedactionKey(…)")
    }
}
