//! The beginning that commands share: the config from the command line, the edge, a stop flag.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;

use crate::config::{Config, Faults};
use crate::edge::Edge;
use crate::pipeline::{self, Clocks, Metrics, Site};
use crate::telemetry::{Board, Health, Role};

/// The arguments that make a config.
#[derive(Args, Clone, Debug)]
pub(super) struct ConfigArgs {
    /// The config file (TOML); config/trainer.toml explains every key.
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Overrides one key; may be given many times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub(super) overrides: Vec<String>,
}

impl ConfigArgs {
    pub(super) fn load(&self) -> Result<Config, Faults> {
        Config::load(Some(&self.config), &self.overrides)
    }
}

/// Everything a run needs around its config, with the edge (signals, HTTP) started.
///
/// `listen` overrides the config's address.
pub(super) fn site(config: Config, listen: &str) -> anyhow::Result<(Site, Edge)> {
    let metrics = Arc::new(Metrics::new(&config));
    let health = Arc::new(Health::new());
    let clocks = Arc::new(Clocks::default());
    let stop = Arc::new(AtomicBool::new(false));
    let refresh = {
        let (clocks, metrics) = (Arc::clone(&clocks), Arc::clone(&metrics));
        move || clocks.set_ages(&metrics)
    };
    let watched = Arc::clone(&clocks);
    health.watch(move || watched.stuck());
    let registry = metrics.registry().clone();
    // Warnings quote records: on this machine alone.
    let own = listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback());
    let board =
        Board::new(Role::Train, Arc::clone(&health), registry, Metrics::CURVES, own, refresh);
    let edge = Edge::start(Some((listen, Arc::new(board))), Arc::clone(&stop))?;
    if let Some(address) = edge.address {
        tracing::info!("metrics and health on http://{address}/");
    }
    let placement = pipeline::placement(config.device)?;
    Ok((Site { config, placement, metrics, health, stop, clocks }, edge))
}

/// A flag that SIGTERM and SIGINT set, for work without metrics. Holds while the edge lives.
pub(super) fn stop_on_signal() -> anyhow::Result<(Arc<AtomicBool>, Edge)> {
    let stop = Arc::new(AtomicBool::new(false));
    let edge = Edge::start(None, Arc::clone(&stop))?;
    Ok((stop, edge))
}

/// Arguments that are wrong, alone or beside the config or each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// Ends the command with exit status 2.
pub(super) fn usage(message: &str) -> anyhow::Error {
    Usage(message.to_owned()).into()
}
