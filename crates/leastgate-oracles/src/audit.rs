//! The audit stream: whatever texts a request or an administrator brings, each event is one line of valid JSON, without
//! control characters and without a secret.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use http::{Method, Uri, Version};
use leastgate_policy::path::CanonicalPath;
use leastgate_policy::{Decision, Reason};
use leastgate_telemetry::{
    AdminActor, AdminEvent, LifecycleEvent, ManualClock, Micros, Origin, Sink, SinkConfig, SinkError, SinkKind,
    Telemetry, TelemetryConfig, WorkerTelemetry,
};
use serde_json::Value;

use crate::fields::{fields, with_tokens};
use crate::world::{ENVIRONMENT, HOST, Holder, NOW, WORLD, assert_no_secret};

const DEADLINE: Duration = Duration::from_secs(30);

/// The texts are method, target, host, user agent, ids of a trace, and what an administrator says.
pub(crate) fn body(bytes: &[u8]) {
    let mut texts = fields(bytes).map(with_tokens);
    let mut next = || texts.next().unwrap_or_default();
    let told =
        Told { method: next(), target: next(), host: next(), agent: next(), words: [next(), next(), next(), next()] };
    STREAM.with_borrow(|stream| {
        let lines = [stream.request(&told), stream.change(&told)].concat();
        let events = stream.events(lines.len());
        for (line, event) in lines.iter().zip(&events) {
            assert_eq!(event["kind"], *line, "an event in the place of another");
        }
        told.check(&events[0]);
    });
}

struct Told {
    method: Vec<u8>,
    target: Vec<u8>,
    host: Vec<u8>,
    agent: Vec<u8>,
    words: [Vec<u8>; 4],
}

impl Told {
    fn word(&self, index: usize) -> String {
        String::from_utf8_lossy(&self.words[index]).into_owned()
    }

    /// What needs no redaction and is not cut comes back as it was.
    fn check(&self, event: &Value) {
        let cases = [(&self.host, "/request/host", 260), (&self.agent, "/source/user_agent", 256)];
        for (own, pointer, longest) in cases {
            let Ok(text) = std::str::from_utf8(own) else { continue };
            if text.len() <= longest && !text.contains("lg") && !text.contains('%') {
                assert_eq!(event.pointer(pointer).and_then(Value::as_str), Some(text), "{event}");
            }
        }
    }
}

thread_local! {
    static STREAM: RefCell<Stream> = RefCell::new(Stream::start());
}

/// The telemetry of a gateway whose sink is read here.
struct Stream {
    telemetry: Telemetry,
    worker: WorkerTelemetry,
    batches: Receiver<Vec<u8>>,
}

/// A sink that hands over what it is given.
#[derive(Debug)]
struct Handing(Sender<Vec<u8>>);

impl Sink for Handing {
    fn write(&mut self, batch: &[u8]) -> Result<(), SinkError> {
        // Nobody listens any more: the process is ending.
        self.0.send(batch.to_vec()).or(Ok(()))
    }
}

impl Stream {
    fn start() -> Self {
        let (sender, batches) = channel();
        let sink = SinkConfig { name: "here".into(), kind: SinkKind::Custom(Box::new(Handing(sender))), classes: None };
        let config = TelemetryConfig {
            environment: ENVIRONMENT.into(),
            sinks: vec![sink],
            recent: 0,
            unauthenticated_per_source: u32::MAX,
            ..TelemetryConfig::default()
        };
        let clock = Arc::new(ManualClock::at(Micros(NOW.0 * 1_000_000)));
        let telemetry = Telemetry::start(config, clock).unwrap();
        telemetry.policy_loaded(&WORLD.snapshot);
        Self { worker: telemetry.worker(), telemetry, batches }
    }

    /// Records a request as the gateway does: as it is read, decided and answered. Says which events that makes.
    fn request(&self, told: &Told) -> Vec<&'static str> {
        let method = Method::from_bytes(&told.method).unwrap_or(Method::GET);
        let uri = Uri::try_from(told.target.as_slice()).unwrap_or_default();
        let peer: SocketAddr = "192.0.2.7:4711".parse().unwrap();
        let recorder = self.worker.begin(peer, self.worker.clock().now());
        recorder.request(&method, Some(&told.host), &uri, Version::HTTP_11);
        recorder.user_agent(&told.agent);
        recorder.trace(Some(&told.word(0)), Some(&told.word(1)), Some(&told.word(2)));
        let duration = Duration::from_nanos(250);
        match self.decide(&method, &uri) {
            None => recorder.refused(Reason::RequestMalformed),
            Some((path, decision)) => {
                if let Some(path) = path {
                    recorder.decoded_path(path.segments(), path.has_trailing_slash());
                }
                match decision {
                    Decision::Allow(permit) => recorder.permitted(&permit, duration),
                    Decision::Deny(denial) => recorder.denied(&denial, duration),
                    Decision::Answer(answer) => recorder.answered(&answer, duration),
                }
            }
        }
        recorder.upstream(&told.word(3));
        recorder.response(200, Origin::Upstream);
        recorder.finish();
        vec!["decision"]
    }

    fn decide(&self, method: &Method, uri: &Uri) -> Option<(Option<CanonicalPath>, Decision)> {
        let request = http::Request::builder().method(method).uri(uri.path_and_query()?.as_str());
        let request = request.header("host", HOST);
        let request = request.header("authorization", format!("Bearer {}", Holder::Files.token()));
        Some(match WORLD.parse(&request.body(()).ok()?.into_parts().0) {
            Ok(facts) => (Some(facts.path().clone()), WORLD.decide(&facts)),
            Err(denial) => (None, Decision::Deny(denial)),
        })
    }

    /// Records a change by an administrator, and something that happened to the gateway.
    fn change(&self, told: &Told) -> Vec<&'static str> {
        let [subject, operation, reason, detail] = [0, 1, 2, 3].map(|index| told.word(index));
        let actor = AdminActor { subject, role: Some(reason.clone()), ..AdminActor::default() };
        let event = AdminEvent {
            operation: operation.clone(),
            actor,
            target: Some(detail.clone()),
            reason: Some(reason.clone()),
            result: detail.clone(),
            details: vec![(detail.clone(), reason.clone()), (reason.clone(), operation.clone())],
            request_id: Some(operation.clone()),
            policy_rev: Some(detail.clone()),
            ..AdminEvent::default()
        };
        self.telemetry.admin(&event, None);
        self.telemetry.lifecycle(&LifecycleEvent {
            operation: operation.clone(),
            result: reason.clone(),
            target: Some(detail.clone()),
            reason: Some(reason),
            details: vec![(operation, detail)],
            ..LifecycleEvent::default()
        });
        vec!["admin", "lifecycle"]
    }

    /// The next events of the stream, `decision` first; checkpoints are read too and left out.
    fn events(&self, count: usize) -> Vec<Value> {
        assert!(self.telemetry.flush(DEADLINE), "the writer hangs");
        let mut events: Vec<Value> = Vec::new();
        while events.len() < count {
            let batch = self.batches.recv_timeout(DEADLINE).unwrap();
            assert_no_secret(&batch);
            let text = std::str::from_utf8(&batch).unwrap();
            assert!(text.ends_with('\n') && !text.contains(is_hostile), "{text:?}");
            let read = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
            events.extend(text.lines().map(read).filter(|event: &Value| event["kind"] != "checkpoint"));
        }
        events.sort_by_key(|event| if event["kind"] == "decision" { 0 } else { event["seq"].as_u64().unwrap() });
        assert_eq!(events.len(), count, "an event too many");
        events
    }
}

/// What ends a line, moves a cursor or turns text around.
fn is_hostile(character: char) -> bool {
    (character.is_control() && character != '\n')
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}
