//! How a run begins: the device, the newest good checkpoint, and where in the log to read on.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};

use super::passes::Passes;
use super::{Bounds, Setting};
use crate::checkpoint::{self, Checkpoint, Manifest, Store};
use crate::config::Config;
use crate::stream::position::{self, Range};
use crate::stream::source;
use crate::train::counters::Counters;
use crate::train::placement::Placement;
use crate::train::trainer::Trainer;
use millrace_events::Offsets;

/// A trainer and the passes that feed it.
pub(super) struct Begun {
    pub(super) trainer: Trainer,
    /// The name of the run that the state began with.
    pub(super) run: String,
    pub(super) passes: Passes,
    /// Records from the trainer's offsets to the end of the last pass; 0: there is no end.
    pub(super) total: u64,
}

/// Restores or creates the trainer, compares its offsets with the log, and opens the source.
pub(super) fn start(setting: &Setting, store: &Store, bounds: &Bounds) -> anyhow::Result<Begun> {
    let config = &setting.config;
    if bounds.fresh {
        for path in store.set_aside()? {
            tracing::info!(path = %path.display(), "set an earlier checkpoint aside");
        }
    }
    let newest = newest(Path::new(&config.checkpoint.directory))?;
    // A state that saw no event may be of any topic.
    let newest = newest.filter(|found| {
        let Manifest { events_trained, offsets, .. } = &found.manifest;
        *events_trained > 0 || offsets.topic() == config.kafka.topic
    });
    setting.health.set_phase("asking the brokers for offsets");
    let consumer = source::consumer(config)?;
    let (topic, brokers) = (&config.kafka.topic, &config.kafka.brokers);
    let resolve = |position| position::resolve(&consumer, topic, brokers, position);
    let to = bounds.to.map(resolve).transpose()?;
    let from = resolve(bounds.from)?;
    let (trainer, run) = match newest {
        None => (Trainer::new(config, &setting.placement, from.clone()), new_run()),
        Some(checkpoint) => {
            let (mut trainer, run) = go_on(config, &setting.placement, &checkpoint)?;
            if trainer.offsets.topic() != topic.as_str() {
                bail!(
                    "the checkpoints in {} were trained on topic `{}`, the config names `{topic}`: \
                     give each topic a checkpoint.directory of its own",
                    config.checkpoint.directory,
                    trainer.offsets.topic(),
                );
            }
            let watermarks = position::watermarks(&consumer, topic, brokers)?;
            let checked =
                position::check_stored(&trainer.offsets, &watermarks, config.kafka.on_data_loss)?;
            for warning in checked.warnings {
                tracing::warn!("{warning}");
            }
            trainer.offsets = checked.offsets;
            let (step, pass) = (trainer.step, trainer.pass);
            let path = checkpoint.path.display().to_string();
            tracing::info!(run, step, pass, path, "going on from a checkpoint");
            (trainer, run)
        }
    };
    drop(consumer);
    // A state that has more passes behind it finishes the one it is in.
    let last = bounds.passes.max(trainer.pass);
    let passes_left = u64::from(last - trainer.pass);
    let total = to
        .as_ref()
        .map_or(0, |to| distance(&trainer.offsets, to) + passes_left * distance(&from, to));
    let rest = Range { from: trainer.offsets.clone(), to: to.clone() };
    setting.health.set_phase("opening the source");
    let passes = Passes::begin(config, rest, Range { from, to }, bounds.cut, (trainer.pass, last))?;
    Ok(Begun { passes, trainer, run, total })
}

/// The newest checkpoint that verifies. Where all are damaged this is an error: starting from
/// nothing would throw the model away without being asked.
fn newest(directory: &Path) -> anyhow::Result<Option<Checkpoint>> {
    let (newest, rejected) = checkpoint::latest(directory)?;
    for damaged in &rejected {
        tracing::warn!(path = %damaged.path.display(), "skipped: {}", damaged.reason);
    }
    if newest.is_none() && !rejected.is_empty() {
        bail!(
            "no checkpoint in {} verifies (see the warnings); restore one from a backup, or start \
             over with `replay --fresh` or an empty checkpoint.directory",
            directory.display()
        );
    }
    Ok(newest)
}

/// The trainer that goes on from `checkpoint`, and the name of its run. A state that saw no event
/// binds nobody to its config: only its offsets count.
fn go_on(
    config: &Config,
    placement: &Placement,
    checkpoint: &Checkpoint,
) -> anyhow::Result<(Trainer, String)> {
    let manifest = &checkpoint.manifest;
    if manifest.events_trained > 0 {
        return Ok((restore(config, placement, checkpoint)?, manifest.run.clone()));
    }
    let path = checkpoint.path.display().to_string();
    tracing::info!(path, "the newest checkpoint saw no event: starting anew at its offsets");
    let mut trainer = Trainer::new(config, placement, manifest.offsets.clone());
    (trainer.rejected, trainer.pass) = (manifest.events_rejected, manifest.pass);
    Ok((trainer, new_run()))
}

/// A name for a run that begins from nothing, 8 hex digits: two runs in one directory reach the
/// same steps, and their versions must differ. The keys of a `RandomState` are random in each
/// process; the time is for those platforms where they are not.
fn new_run() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let [_, _, _, _, name @ ..] = RandomState::new().hash_one(since.as_nanos()).to_be_bytes();
    format!("{:08x}", u32::from_be_bytes(name))
}

/// The trainer that a checkpoint holds.
///
/// # Errors
/// A config that gives the state another shape or meaning (the message lists the keys), or
/// damaged sections.
pub fn restore(
    config: &Config,
    placement: &Placement,
    checkpoint: &Checkpoint,
) -> anyhow::Result<Trainer> {
    let manifest = &checkpoint.manifest;
    let path = checkpoint.path.display();
    if manifest.config_digest != config.digest() {
        let saved = Config::from_toml(&checkpoint.config()?)
            .map_err(|faults| anyhow!("the config in {path} is not valid here: {faults}"))?;
        // A key that came with a later version has its default in both, and only the digest
        // differs.
        let (old, new) = (saved.state_keys(), config.state_keys());
        if old != new {
            bail!(
                "{path} was trained with another config; these keys differ (- checkpoint, + now):\n\
                 {}\ngo back to the old values, or start over with `replay --fresh` or in another \
                 checkpoint.directory",
                difference(&old, &new)
            );
        }
    }
    let counters = Counters {
        step: manifest.step,
        events: manifest.events_trained,
        rejected: manifest.events_rejected,
        event_time_ms: manifest.event_time_ms,
        offsets: manifest.offsets.clone(),
        pass: manifest.pass,
    };
    let read = |name: &str| checkpoint.section(name).map_err(|error| format!("{error:#}"));
    Trainer::restore(config, placement, counters, &read)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("cannot restore {path}"))
}

/// Keys whose values differ between two texts in TOML, with their paths.
fn difference(old: &str, new: &str) -> String {
    let [old, new] = [old, new].map(|text| {
        let mut values = BTreeMap::new();
        let table: toml::Table = toml::from_str(text).expect("a config of our own is TOML");
        flatten("", &table, &mut values);
        values
    });
    let only = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>, mark: &str| {
        let differs = a.iter().filter(|(key, value)| b.get(*key) != Some(*value));
        differs.map(|(key, value)| format!("  {mark} {key} = {value}")).collect()
    };
    let mut lines: Vec<String> = only(&old, &new, "-");
    lines.extend(only(&new, &old, "+"));
    lines.join("\n")
}

fn flatten(path: &str, table: &toml::Table, out: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let path = format!("{path}{key}");
        match value {
            toml::Value::Table(table) => flatten(&format!("{path}."), table, out),
            value => drop(out.insert(path, value.to_string())),
        }
    }
}

/// Offsets of `to` minus offsets of `from`, over all partitions: records to be read.
pub fn distance(from: &Offsets, to: &Offsets) -> u64 {
    let partitions = to.iter().map(|(partition, end)| {
        let begin = from.next(partition).unwrap_or(0);
        u64::try_from(end - begin).unwrap_or(0)
    });
    partitions.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A checkpoint of an untrained model, with this for its digest of the config.
    fn checkpoint(config: &Config, directory: &Path, digest: &str) -> Checkpoint {
        let placement = Placement::Cpu;
        let trainer = Trainer::new(config, &placement, Offsets::new("demo"));
        let mut snapshot = super::super::durable::snapshot(config, "5eed0001", trainer.capture());
        snapshot.config_digest = digest.to_owned();
        let store = Store::open(directory, 1).expect("a directory of its own");
        store.write(&snapshot).expect("written")
    }

    #[test]
    fn a_checkpoint_goes_on_under_the_same_keys_only() {
        let config = Config::from_toml(include_str!("../../config/demo.toml")).expect("valid");
        let directory = tempfile::tempdir().expect("a directory");
        // The digest of a version that had fewer keys.
        let checkpoint = checkpoint(&config, directory.path(), "0123456789abcdef");
        let placement = Placement::Cpu;
        restore(&config, &placement, &checkpoint).expect("the keys have the same values");
        let mut other = config.clone();
        other.model.dim += 1;
        other.kafka.topic = "another".into();
        let error = restore(&other, &placement, &checkpoint).err().expect("another shape");
        let (old, new) = (config.model.dim, other.model.dim);
        let text = error.to_string();
        assert!(
            text.contains(&format!("  - model.dim = {old}\n  + model.dim = {new}\n")),
            "{text}"
        );
        assert!(!text.contains("topic"), "{text}");
    }

    #[test]
    fn a_state_without_events_binds_nobody() {
        let config = Config::from_toml(include_str!("../../config/demo.toml")).expect("valid");
        let directory = tempfile::tempdir().expect("a directory");
        let placement = Placement::Cpu;
        let mut offsets = Offsets::new("demo");
        offsets.advance(0, 77);
        let mut trainer = Trainer::new(&config, &placement, offsets);
        trainer.rejected = 77;
        let store = Store::open(directory.path(), 1).expect("a directory of its own");
        let write = |trainer: &Trainer| {
            let captured = trainer.capture();
            let snapshot = super::super::durable::snapshot(&config, "5eed0001", captured);
            store.write(&snapshot).expect("written")
        };
        let mut other = config.clone();
        other.model.dim += 1;
        let (fresh, run) = go_on(&other, &placement, &write(&trainer)).expect("not bound");
        assert_eq!((fresh.offsets.next(0), fresh.rejected, fresh.events), (Some(77), 77, 0));
        assert!(run != "5eed0001" && run != new_run() && run.len() == 8, "{run}");

        trainer.events = 1;
        let checkpoint = write(&trainer);
        let error = go_on(&other, &placement, &checkpoint).err().expect("another shape");
        assert!(error.to_string().contains("model.dim"), "{error}");
        let (_, run) = go_on(&config, &placement, &checkpoint).expect("the same config");
        assert_eq!(run, "5eed0001", "a state keeps its run");
    }
}
