//! `millrace check`

use std::path::PathBuf;

use clap::Args;

use super::session::ConfigArgs;
use crate::commands::output::say;
use crate::config::Faults;

/// Arguments of `check`.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// The config file; the same as --config.
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The config file (TOML); config/trainer.toml explains every key.
    #[arg(long, value_name = "FILE", required_unless_present = "file")]
    config: Option<PathBuf>,
    /// Overrides one key; may be given many times.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Print one JSON object: `ok`, and `faults` with `key` and `reason`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let path = args.file.clone().or_else(|| args.config.clone());
    let path = path.ok_or_else(|| anyhow::anyhow!("no config file given"))?;
    let loaded = ConfigArgs { config: path, overrides: args.overrides.clone() }.load();
    if args.json {
        let faults = loaded.as_ref().err().map_or(&[][..], |Faults(faults)| faults);
        let faults: Vec<_> = faults
            .iter()
            .map(|fault| serde_json::json!({ "key": fault.key, "reason": fault.reason }))
            .collect();
        say!("{}", serde_json::json!({ "ok": faults.is_empty(), "faults": faults }));
    }
    let config = loaded?;
    if !args.json {
        say!(
            "OK: topic {}, {} query and {} item features, tables: {}",
            config.kafka.topic,
            config.query.features.len(),
            config.item.features.len(),
            config.table_names().join(", ")
        );
    }
    Ok(())
}
