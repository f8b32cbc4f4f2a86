//! `millrace inspect`

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::checkpoint::{Checkpoint, SectionEntry};
use crate::commands::output::say;

/// Arguments of `inspect`.
#[derive(Args)]
pub(super) struct InspectArgs {
    /// A checkpoint, or the directory that holds checkpoints (then the newest good one).
    #[arg(value_name = "CHECKPOINT")]
    path: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Print the config it was trained with as well; values of kafka.properties are never stored.
    #[arg(long)]
    config: bool,
}

pub(super) fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let (checkpoint, skipped) = Checkpoint::resolve(&args.path)?;
    for damaged in skipped {
        tracing::warn!(path = %damaged.path.display(), "skipped: {}", damaged.reason);
    }
    checkpoint.verify()?;
    let manifest = &checkpoint.manifest;
    let bytes: u64 = manifest.sections.iter().map(|section| section.length).sum();
    let stored: u64 = manifest.sections.iter().map(SectionEntry::stored).sum();
    if args.json {
        let mut object = serde_json::to_value(manifest)?;
        object["path"] = json!(checkpoint.path);
        object["bytes"] = json!(bytes);
        object["stored_bytes"] = json!(stored);
        object["verified"] = json!(true);
        if args.config {
            object["config"] = json!(checkpoint.config()?);
        }
        say!("{object}");
        return Ok(());
    }
    say!("checkpoint  {} (verified)", checkpoint.path.display());
    say!("version     {} (run {}, step {})", manifest.version, manifest.run, manifest.step);
    say!("events      {} trained, {} rejected", manifest.events_trained, manifest.events_rejected);
    say!("newest      {} ms since 1970", manifest.event_time_ms);
    if let Some(written) = manifest.written_ms {
        say!("written     {written} ms since 1970, by millrace {}", manifest.program);
    }
    for link in &manifest.parents {
        say!("builds on   step {} ({} bytes), in the directory beside it", link.step, link.bytes);
    }
    say!("digest      {}", manifest.digest);
    say!("config      {}", manifest.config_digest);
    for (topic, partitions) in manifest.offsets.by_topic() {
        say!("topic       {topic}, pass {} (next offset to read)", manifest.pass);
        for (partition, next) in partitions {
            say!("            partition {partition}: {next}");
        }
    }
    say!("sections    {bytes} bytes, of which {stored} are stored here");
    for section in &manifest.sections {
        let SectionEntry { name, length, checksum, .. } = section;
        say!("            {length:>12}  {:>12}  {checksum}  {name}", section.stored());
    }
    if args.config {
        say!("\n{}", checkpoint.config()?);
    }
    Ok(())
}
