//! What the process denies itself and others: no core dump may hold a token (P30), and nobody looks into its memory.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Turns core dumps off. Best effort: where it is refused, the threat model's warning holds.
pub(crate) fn forbid_core_dumps() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    hide_memory();
}

/// Keeps the process's memory and environment from others of its own user. Unlike the limit on core dumps, a command that
/// it starts does not inherit this.
pub(crate) fn hide_memory() {
    #[cfg(target_os = "linux")]
    {
        let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    }
}
