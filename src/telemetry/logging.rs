//! How the process logs.

use std::collections::VecDeque;
use std::fmt::{Debug, Write as _};
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// Dependencies whose `info` lines say nothing to a person who runs a trainer. A target covers
/// every target that starts with it: `wgpu` also `wgpu_core` and `wgpu_hal`, `burn` all of burn.
const QUIET_TARGETS: &str = "wgpu=warn,naga=warn,cubecl=warn,burn=warn";

/// Sends log lines to stderr (stdout is for results), as JSON or as text. `RUST_LOG` decides what
/// is logged, `default_level` without it; the GPU stack stays at warnings unless `RUST_LOG` names
/// it. A second call changes nothing, so tests may all call it.
pub fn init_logging(json: bool, default_level: &str) {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = EnvFilter::new(directives(wanted.as_deref(), default_level));
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    let installed = if json {
        lines.json().finish().with(Warnings::default()).try_init()
    } else {
        lines.finish().with(Warnings::default()).try_init()
    };
    if let Err(error) = installed {
        tracing::debug!(%error, "logging was set up before");
    }
}

/// A warning, or an error.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Warning {
    /// ms since 1970.
    at_ms: u64,
    level: &'static str,
    text: String,
}

/// More are in the log; the page has room for so many.
const WARNINGS: usize = 20;
/// A longer text is cut.
const WARNING_BYTES: usize = 600;

/// Keeps the last warnings for the page. The subscriber owns it, as it owns all of the log.
#[derive(Default)]
struct Warnings(Mutex<VecDeque<Warning>>);

impl<S: Subscriber> Layer<S> for Warnings {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mut text = text.0;
        text.truncate(text.floor_char_boundary(WARNING_BYTES));
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
        let mut warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        warnings.truncate(WARNINGS - 1);
        let level = if level == Level::WARN { "warn" } else { "error" };
        warnings.push_front(Warning { at_ms, level, text });
    }
}

/// A message, then the fields that say more.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let written = match field.name() {
            "message" => {
                let fields = std::mem::take(&mut self.0);
                write!(self.0, "{value:?}{fields}")
            }
            name => write!(self.0, " {name}={value:?}"),
        };
        written.expect("a String takes any text");
    }
}

/// The last warnings, the newest first.
pub(crate) fn last_warnings() -> Vec<Warning> {
    tracing::dispatcher::get_default(|dispatch| {
        dispatch.downcast_ref::<Warnings>().map_or_else(Vec::new, |Warnings(warnings)| {
            warnings.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
        })
    })
}

/// The quiet targets come first: a later directive for the same target replaces an earlier one.
fn directives(wanted: Option<&str>, default_level: &str) -> String {
    let level = wanted.filter(|spec| !spec.trim().is_empty()).unwrap_or(default_level);
    format!("{QUIET_TARGETS},{level}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logging_may_be_set_up_twice() {
        init_logging(false, "warn");
        init_logging(true, "warn");
        tracing::info!("not shown, and no panic");
    }

    #[test]
    fn the_last_warnings_are_kept_and_no_more() {
        let subscriber = tracing_subscriber::registry().with(Warnings::default());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("nothing to see");
            (0..30).for_each(|number| tracing::warn!(number, "the disk is slow"));
            tracing::error!("{}", "x".repeat(2 * WARNING_BYTES));
            let warnings = last_warnings();
            assert_eq!(warnings.len(), WARNINGS);
            assert_eq!((warnings[0].level, warnings[0].text.len()), ("error", WARNING_BYTES));
            assert_eq!(warnings[1].text, "the disk is slow number=29");
        });
    }

    #[test]
    fn the_gpu_stack_is_quiet_unless_named() {
        assert_eq!(directives(None, "info"), format!("{QUIET_TARGETS},info"));
        assert_eq!(directives(Some(" "), "info"), format!("{QUIET_TARGETS},info"));
        let named = EnvFilter::new(directives(Some("wgpu=debug"), "info")).to_string();
        assert!(named.contains("wgpu=debug") && !named.contains("wgpu=warn"), "{named}");
    }
}
