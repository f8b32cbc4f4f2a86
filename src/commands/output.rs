//! Results on standard output.
//!
//! `println!` panics if its reader has gone, as `head` does after ten lines. Nobody reads the rest
//! then, so the program ends without a word.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// As `println!`, without its panic.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::commands::output::line(format_args!($($text)*))
    };
}
pub(super) use say;

/// Prints a line. Ends the program if nobody reads any more.
pub(super) fn line(text: Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    let Err(error) = writeln!(out, "{text}") else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    eprintln!("error: the result cannot be written: {error}");
    std::process::exit(1);
}
