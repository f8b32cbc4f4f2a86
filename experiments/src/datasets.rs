//! Where the data sets are, and how they are trained.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use millrace::config::Config;

/// The directory of the data sets: as given, else $MILLRACE_DATA, else beside the repository.
pub(crate) fn directory(given: Option<&Path>) -> PathBuf {
    let of_environment = || std::env::var_os("MILLRACE_DATA").map(PathBuf::from);
    given.map(PathBuf::from).or_else(of_environment).unwrap_or("../shared/data".into())
}

/// The config of `dataset` with `set` on top.
pub(crate) fn load(dataset: &str, seed: u64, set: &[&str]) -> anyhow::Result<Config> {
    let seed = format!("seed={seed}");
    let overrides: Vec<String> = set.iter().copied().chain([&*seed]).map(str::to_owned).collect();
    let path = format!("config/{dataset}.toml");
    Config::load(Some(Path::new(&path)), &overrides).map_err(|faults| anyhow!("{path}: {faults}"))
}
