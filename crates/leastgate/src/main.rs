//! The `leastgate` program: everything is in the library, so that tests and tasks can use it too.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    leastgate::run()
}
