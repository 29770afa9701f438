//! What the process denies itself: no core dump may hold a token (P30).

use rustix::process::{Resource, Rlimit, setrlimit};

/// Turns core dumps off. Best effort: where it is refused, the threat model's warning holds.
pub(crate) fn forbid_core_dumps() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    }
}
