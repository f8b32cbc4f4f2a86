//! How far long bounded work has come: a bar on a terminal, log lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// Log lines elsewhere come this often: enough to see life, few enough to read.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Progress of one piece of work.
pub struct ProgressLine {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: u64,
    began: Instant,
    logged: Instant,
}

impl ProgressLine {
    /// Work called `what` of `total` units (`unit` names them; 0: unknown).
    pub fn new(what: &'static str, total: u64, unit: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(
                (total > 0).then_some(total),
                ProgressDrawTarget::stderr(),
            );
            let template = format!(
                "{{prefix}} {{wide_bar:.cyan/blue}} {{human_pos}}/{{human_len}} {unit}  \
                 {{rate}}  {{eta}}  {{msg}}"
            );
            bar.set_style(
                ProgressStyle::with_template(&template)
                    .expect("the template is well formed")
                    .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                        // A line that cannot be written is one nobody sees.
                        write!(out, "{:.0}/s", state.per_sec()).unwrap_or_default();
                    }),
            );
            bar.set_prefix(what);
            bar
        });
        Self { bar, what, total, began: Instant::now(), logged: Instant::now() }
    }

    /// `done` units are done; `message` says how it is going.
    #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
    pub fn set(&mut self, done: u64, message: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message());
        } else if self.logged.elapsed() >= LOG_EVERY {
            self.logged = Instant::now();
            let rate = done as f64 / self.began.elapsed().as_secs_f64();
            let share = share(done, self.total);
            let (what, message) = (self.what, message());
            let comma = if message.is_empty() { "" } else { ", " };
            tracing::info!("{what}: {done}{share}, {rate:.0}/s{comma}{message}");
        }
    }

    /// The work is over.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What part of the work is done, if it is known how much there is.
#[expect(clippy::cast_precision_loss, reason = "a percentage for the eye")]
fn share(done: u64, total: u64) -> String {
    match total {
        0 => String::new(),
        total => format!(" ({:.0}%)", 100.0 * done as f64 / total as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn work_of_unknown_size_has_no_percentage() {
        assert_eq!(share(510_685, 0), "");
        assert_eq!(share(50, 200), " (25%)");
    }
}
