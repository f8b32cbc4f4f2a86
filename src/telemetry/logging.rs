//! How the process logs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

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
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour);
    let installed = if json { lines.json().try_init() } else { lines.try_init() };
    if let Err(error) = installed {
        tracing::debug!(%error, "logging was set up before");
    }
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
    fn the_gpu_stack_is_quiet_unless_named() {
        assert_eq!(directives(None, "info"), format!("{QUIET_TARGETS},info"));
        assert_eq!(directives(Some(" "), "info"), format!("{QUIET_TARGETS},info"));
        let named = EnvFilter::new(directives(Some("wgpu=debug"), "info")).to_string();
        assert!(named.contains("wgpu=debug") && !named.contains("wgpu=warn"), "{named}");
    }
}
