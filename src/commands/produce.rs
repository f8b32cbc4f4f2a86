//! `millrace produce`

use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::bail;
use clap::Args;

use super::session::{ConfigArgs, usage};
use crate::commands::output::say;
use crate::progress::ProgressLine;
use crate::stream::produce::{Input, produce};

/// Arguments of `produce`.
#[derive(Args)]
#[command(after_help = "\
    Each line becomes one record of kafka.topic, as it is, with the query's id as its key \
    (so one user stays in one partition) and the event's own time where the config says \
    where it stands.")]
pub(super) struct ProduceArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// JSON lines, plain or gzip or zstd; - for standard input.
    #[arg(value_name = "FILE|-")]
    file: String,
    /// Send to this topic of [[interactions]] instead, with key and time as its own records have
    /// them.
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Field whose text is the record's key, instead of query.id.
    #[arg(long, value_name = "FIELD")]
    key: Option<String>,
    /// Print the result as one JSON object.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ProduceArgs) -> anyhow::Result<()> {
    let config = args.config.load()?;
    let name = args.topic.as_ref().unwrap_or(&config.kafka.topic);
    let own = config.by_topic().find(|own| own.kafka.topic == *name);
    let config = own
        .ok_or_else(|| usage(&format!("--topic: `{name}` is none of {}", config.topic_names())))?;
    if config.kafka.format.needs_schemas() {
        bail!(
            "produce sends lines of JSON, which nobody could read with this kafka.format; write \
             these records with the serializers of their schemas"
        );
    }
    let input = Input::open(&args.file)?;
    let read = Arc::clone(&input.read);
    let mut progress = ProgressLine::new("produce", input.total.unwrap_or(0), "bytes");
    let produced = produce(&config, input.lines, args.key.as_deref(), |done| {
        progress.set(read.load(Ordering::Relaxed), || format!("{} lines", done.lines));
    })?;
    progress.finish();
    if args.json {
        say!("{}", serde_json::to_string(&produced)?);
    } else {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = produced.lines as f64 / produced.seconds;
        say!(
            "{} lines, {} bytes to {} in {:.1} s: {rate:.0} lines/s",
            produced.lines,
            produced.bytes,
            config.kafka.topic,
            produced.seconds
        );
    }
    if produced.lines == 0 {
        bail!("{} holds no line", args.file);
    }
    Ok(())
}
