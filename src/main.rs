//! The `millrace` program. What it can do is in [`millrace::commands`].

use std::process::ExitCode;

/// Events are made on one thread and freed on another, and librdkafka allocates each record:
/// glibc's allocator cost a tenth of the training rate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    millrace::commands::main()
}
