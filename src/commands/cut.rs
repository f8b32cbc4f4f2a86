//! `--cut`: batches as lingering would make them, of the commands that train on a bounded range.

use clap::Args;

use super::session::usage;
use crate::config::Config;
use crate::stream::cut::Cut;

/// Arguments of commands that train.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct CutArgs {
    /// Train in batches of N events, or of random sizes (random:SEED: trickles, busy stretches and
    /// bursts of full batches), instead of full ones. A live trainer gets such batches where
    /// traffic is low: this tries what they teach, and what they cost. Each is one step;
    /// batch.linger_ms and batch.min_events do not matter.
    #[arg(long, value_name = "N|random:SEED", value_parser = str::parse::<Cut>)]
    pub(super) cut: Option<Cut>,
}

impl CutArgs {
    /// Full batches, unless something else was asked for.
    ///
    /// # Errors
    /// More events than a batch of `config` holds.
    pub(super) fn of(self, config: &Config) -> anyhow::Result<Cut> {
        let (cut, size) = (self.cut.unwrap_or_default(), config.batch.size);
        match cut {
            Cut::Every(events) if events > size => {
                Err(usage(&format!("--cut {events}: must be in 1..=batch.size ({size})")))
            }
            cut => Ok(cut),
        }
    }
}
