//! The `millrace` program. What it can do is in [`millrace::commands`].

use std::process::ExitCode;

fn main() -> ExitCode {
    millrace::commands::main()
}
