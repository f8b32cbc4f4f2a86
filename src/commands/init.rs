//! `millrace init`

use std::io::BufRead as _;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::commands::output::say;
use crate::config::Config;
use crate::propose::{Given, propose};
use crate::stream::produce::Input;
use crate::stream::source::{Sampled, newest_values};

/// Arguments of `init`.
#[derive(Args)]
#[command(after_help = "\
    The config goes to stdout, and what was understood to stderr:\n\n  \
    millrace init clicks.jsonl > my.toml\n  \
    millrace init --brokers kafka:9092 --topic clicks > my.toml\n\n\
    Records by a schema are read by it:\n\n  \
    millrace init --brokers kafka:9092 --topic clicks --set registry.url=http://registry:8081\n  \
    millrace init --brokers kafka:9092 --topic clicks --set kafka.schema_file=clicks.avsc\n\n\
    Then look it over, and try it: millrace check my.toml --connect --sample 1000")]
pub(super) struct InitArgs {
    /// JSON lines, plain or gzip or zstd; - for standard input.
    #[arg(value_name = "FILE|-", required_unless_present = "topic", conflicts_with = "topic")]
    file: Option<String>,
    /// Take the sample from these brokers.
    #[arg(long, value_name = "HOST:PORT,..", requires = "topic")]
    brokers: Option<String>,
    /// Take the sample from this topic's newest records.
    #[arg(long, value_name = "TOPIC", requires = "brokers")]
    topic: Option<String>,
    /// Gives one key of the proposal; may be given many times. `query.id`, `item.id` and
    /// `timestamp.field` say which fields these are.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    overrides: Vec<String>,
    /// Look at this many records.
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sample: u32,
}

pub(super) fn run(args: &InitArgs) -> anyhow::Result<()> {
    let records = args.sample as usize;
    let from = args.brokers.as_deref().zip(args.topic.as_deref());
    let Sampled { format, lines, unread } = match (&args.file, from) {
        (Some(file), _) => Sampled { lines: lines_of(file, records)?, ..Sampled::default() },
        (None, Some((brokers, topic))) => newest_values(&client(args, brokers, topic)?, records)?,
        (None, None) => bail!("give a file, or --brokers and --topic"),
    };
    if lines.is_empty() {
        bail!("there is no record to look at");
    }
    let proposal = propose(&lines, &Given { from, format, overrides: &args.overrides })?;
    if let Some((count, reason)) = unread {
        eprintln!("{count} records cannot be read, the first because {reason}");
    }
    for line in &proposal.understood {
        eprintln!("{line}");
    }
    say!("{}", proposal.text.trim_end());
    Ok(())
}

/// The first lines of a file that hold something.
fn lines_of(file: &str, most: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let input = Input::open(file)?;
    let lines = input
        .lines
        .split(b'\n')
        .filter(|line| line.as_ref().map_or(true, |line| !line.trim_ascii().is_empty()));
    lines.take(most).collect::<Result<_, _>>().with_context(|| format!("{file} breaks off"))
}

/// A config that is enough to read the topic.
fn client(args: &InitArgs, brokers: &str, topic: &str) -> anyhow::Result<Config> {
    const OF_READING: [&str; 4] =
        ["kafka.properties.", "kafka.format=", "kafka.schema_file=", "registry."];
    let of = |text: &&String, keys: &[&str]| keys.iter().any(|key| text.starts_with(key));
    let given = args.overrides.iter().filter(|text| of(text, &OF_READING));
    // Whose format is the only one that has a schema's file.
    let file = args.overrides.iter().any(|text| of(&text, &["kafka.schema_file="]));
    let avro = file.then(|| "kafka.format=avro".to_owned());
    let ids = ["query", "item"].map(|side| {
        format!("{side}.features=[{{name=\"x\",kind=\"id\",field=\"x\",table=\"x\"}}]")
    });
    let sets = [
        format!("kafka.brokers={brokers}"),
        format!("kafka.topic={topic}"),
        "query.id=x".to_owned(),
        "item.id=x".to_owned(),
    ];
    let sets: Vec<String> = sets.into_iter().chain(ids).chain(avro).chain(given.cloned()).collect();
    Ok(Config::load(None, &sets)?)
}
