//! `millrace check`

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::session::ConfigArgs;
use crate::commands::output::say;
use crate::config::Faults;
use crate::stream::survey::{Survey, Weight};

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
    /// Look at the brokers, too: topics, rights, retention, clocks, and a sample of records.
    /// Nothing is written. Exit status 1 if a run would fail.
    #[arg(long)]
    connect: bool,
    /// With --connect, try the mapping on this many of the newest records.
    #[arg(long, value_name = "N", default_value_t = 100, requires = "connect",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sample: u32,
    /// Print one JSON object: `ok`, and `faults` with `key` and `reason`; with --connect also
    /// `findings` with `weight`, `subject` and `text`, and `sample`.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let path = args.file.clone().or_else(|| args.config.clone());
    let path = path.ok_or_else(|| anyhow::anyhow!("no config file given"))?;
    let config = match (ConfigArgs { config: path, overrides: args.overrides.clone() }).load() {
        Ok(config) => config,
        Err(faults) => {
            if args.json {
                say!("{}", json!({ "ok": false, "faults": as_json(&faults) }));
            }
            return Err(faults.into());
        }
    };
    if !args.json {
        say!(
            "OK: topic {}, {} query and {} item features, tables: {}",
            config.topic_names(),
            config.query.features.len(),
            config.item.features.len(),
            config.table_names().join(", ")
        );
    }
    if !args.connect {
        if args.json {
            say!("{}", json!({ "ok": true, "faults": [] }));
        }
        return Ok(());
    }
    let survey = Survey::take(&config, args.sample as usize);
    let faults = survey.count(Weight::Fault);
    if args.json {
        let Survey { findings, sample } = &survey;
        let ok = faults == 0;
        say!("{}", json!({ "ok": ok, "faults": [], "findings": findings, "sample": sample }));
    } else {
        print(&survey);
    }
    match faults {
        0 => Ok(()),
        1 => bail!("a run would fail for one reason, which the output names"),
        faults => bail!("a run would fail for {faults} reasons, which the output names"),
    }
}

fn as_json(Faults(faults): &Faults) -> Vec<serde_json::Value> {
    faults.iter().map(|fault| json!({ "key": fault.key, "reason": fault.reason })).collect()
}

fn print(survey: &Survey) {
    for finding in &survey.findings {
        let weight = match finding.weight {
            Weight::Ok => "ok",
            Weight::Warning => "WARNING",
            Weight::Fault => "FAULT",
        };
        say!("{weight:<8} {}: {}", finding.subject, finding.text);
    }
    for (reason, rejected) in survey.sample.iter().flat_map(|sample| &sample.rejected) {
        say!("         {} rejected as {reason}, for example {}", rejected.count, rejected.example);
    }
}
