//! How a run begins: the newest good checkpoint, and the offsets to resume at.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow, bail};

use super::absent::refuse_what_kafka_knows;
use super::durable::Lineage;
use super::passes::Passes;
use super::{RunPlan, Site, TICK};
use crate::checkpoint::{self, Chain, Checkpoint, Manifest, SectionEntry, Store, Tally};
use crate::config::{Config, leaves};
use crate::sections;
use crate::stream::calendar::now_ms;
use crate::stream::catalogue;
use crate::stream::identity;
use crate::stream::log::Log;
use crate::stream::position::Range;
use crate::stream::topic::NoAnswer;
use crate::stream::{survey, verdict};
use millrace_events::{CataloguePlace, Offsets, Witness};
use millrace_train::capture::Extent;
use millrace_train::placement::Placement;
use millrace_train::progress::Progress;
use millrace_train::trainer::Trainer;

/// A trainer and the passes that feed it.
pub(super) struct RunStart {
    pub(super) trainer: Trainer,
    /// The run that the state began with, and its log.
    pub(super) lineage: Lineage,
    /// The checkpoint that it comes from; none: it has seen no event.
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) passes: Passes,
    /// Records from the trainer's offsets to the end of the last pass; 0: there is no end.
    pub(super) total: u64,
}

/// Restores or creates the trainer, compares its offsets with the log, and opens the source.
pub(super) fn start(site: &Site, store: &Store, plan: &RunPlan) -> anyhow::Result<RunStart> {
    let config = &site.config;
    if plan.fresh {
        for path in store.set_aside()? {
            tracing::info!(path = %path.display(), "set an earlier checkpoint aside");
        }
    }
    site.health.set_phase("asking the brokers for offsets");
    let log = Log::of(config)?;
    let bounded = plan.to.is_some();
    let resumed = resume(site, &log, bounded)?;
    if let Some(missing) = survey::missing_letters(config, log.first()) {
        tracing::warn!("{missing}");
    }
    let to = plan.to.map(|to| log.resolve(to)).transpose()?;
    let from = match &resumed {
        // Nobody asks where such a run would have begun.
        Some((trainer, ..)) if !bounded => trainer.progress().offsets.clone(),
        _ => log.resolve(plan.from)?,
    };
    let (trainer, lineage, checkpoint) = match resumed {
        None => {
            refuse_what_kafka_knows(config, log.first(), plan)?;
            let witness = Witness::of_cluster(log.first().cluster());
            let settings = config.train();
            let mut trainer = Trainer::new(&settings, &site.placement, from.clone());
            trainer.follow(&settings, catalogue::places(config, &[], !bounded)?);
            (trainer, Lineage::new(new_run(), Some(now_ms()), witness), None)
        }
        Some(resumed) => resumed,
    };
    store.start_from(trainer.progress().step)?;
    drop(log);
    let catalogues = catalogue::ranges(config, &trainer.progress().catalogues, bounded)?;
    // A state with more passes behind it finishes the one it is in.
    let Progress { offsets, pass, .. } = trainer.progress();
    let last = plan.passes.max(*pass);
    let passes_left = u64::from(last - pass);
    let rest = Range { from: offsets.clone(), to: to.clone() };
    let range = Range { from, to };
    let total = rest.records() + passes_left * range.records();
    site.health.set_phase("opening the source");
    let (pass, witness) = ((*pass, last), &lineage.witness);
    let rest = (rest, &*catalogues);
    let passes = Passes::begin(config, rest, range, plan.cut, pass, &site.stop, witness)?;
    Ok(RunStart { passes, trainer, lineage, checkpoint, total })
}

/// A trainer that goes on, its run and log, and the checkpoint that it comes from.
type Resumed = (Trainer, Lineage, Option<Checkpoint>);

/// The trainer of the newest good checkpoint, if there is one for this log.
fn resume(site: &Site, log: &Log, bounded: bool) -> anyhow::Result<Option<Resumed>> {
    let config = &site.config;
    let mut end = None;
    loop {
        let newest = newest(Path::new(&config.checkpoint.directory), end)?;
        // A state that saw no event may be of any log.
        let newest = newest.filter(|found| {
            let Manifest { events_trained, offsets, .. } = &found.manifest;
            *events_trained > 0 || verdict::is_of(offsets, &log.unread())
        });
        let Some(checkpoint) = newest else { return Ok(None) };
        if !bounded {
            wait_for_brokers(site, log)?;
        }
        match resume_from(site, log, &checkpoint, bounded) {
            Err(error) if error.is::<AnotherState>() => {
                let path = checkpoint.path.display();
                tracing::warn!(%path, "skipped: {error:#}");
                end = Some(checkpoint.manifest.step);
            }
            resumed => return resumed.map(Some),
        }
    }
}

/// The trainer of `checkpoint`, if its offsets fit what `log` holds now; all of it, if the run is
/// `bounded`.
fn resume_from(
    site: &Site,
    log: &Log,
    checkpoint: &Checkpoint,
    bounded: bool,
) -> anyhow::Result<Resumed> {
    let (config, manifest) = (&site.config, &checkpoint.manifest);
    let (bounds, silent) =
        if bounded { (log.watermarks()?, Vec::new()) } else { log.bounds_known()? };
    let stored = verdict::in_log(&manifest.offsets, &log.unread(), &bounds)
        .with_context(|| format!("the checkpoints in {}", config.checkpoint.directory))?;
    let verdict = verdict::judge(&stored, &bounds, &silent, config.kafka.on_data_loss)?;
    let mut witness = manifest.witness.clone();
    let verified = identity::verify(log, witness.cluster.as_ref(), witness.newest(&bounds))?;
    for warning in verdict.warnings.iter().chain(&verified.warning) {
        tracing::warn!("{warning}");
    }
    witness.cluster = verified.cluster.or(witness.cluster);
    let known = catalogue::known(config, &manifest.catalogues);
    let (mut trainer, run, chain) =
        go_on(config, &site.placement, checkpoint, (verdict.offsets, known.clone()))?;
    let places = match chain.is_some() {
        true => catalogue::places(config, &known, !bounded)?,
        false => catalogue::again(config, &known, !bounded)?,
    };
    trainer.follow(&config.train(), places);
    let Progress { step, pass, .. } = *trainer.progress();
    let path = checkpoint.path.display().to_string();
    tracing::info!(run, step, pass, path, "going on from a checkpoint");
    if let Some(written) = manifest.written_ms {
        site.clocks.checkpoint.store(written, Ordering::Relaxed);
    }
    // What saw no event is another run from here on.
    let began_ms = if chain.is_some() { manifest.began_ms } else { Some(now_ms()) };
    let state = chain.is_some().then(|| checkpoint.clone());
    Ok((trainer, Lineage::new(run, began_ms, witness), state))
}

/// Waits until the brokers answer: a trainer that has been here before, and is started in an
/// outage, has nothing better to do. (The first start ends instead, and its message says what may
/// be wrong with the config.)
///
/// # Errors
/// An answer that no waiting cures, or a stop.
fn wait_for_brokers(site: &Site, log: &Log) -> anyhow::Result<()> {
    let mut pause = Duration::from_secs(1);
    loop {
        let error = match log.lanes() {
            Ok(_) => break,
            Err(error) if error.is::<NoAnswer>() => error,
            Err(error) => return Err(error),
        };
        tracing::warn!("waiting: {error:#}");
        site.health.set_waits_for(Some(format!("the brokers: {error:#}")));
        let until = Instant::now() + pause;
        while Instant::now() < until {
            if site.stop.load(Ordering::Relaxed) {
                return Err(Stopped.into());
            }
            std::thread::sleep(TICK);
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
    site.health.set_waits_for(None);
    Ok(())
}

/// Between two tries to reach the brokers.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// The run was stopped before it had begun; its checkpoints are as they were.
#[derive(Debug, thiserror::Error)]
#[error("stopped while it waited for the brokers")]
pub struct Stopped;

/// The newest checkpoint that verifies. If all are damaged, this is an error: starting from nothing
/// would throw the model away without being asked. With `end` those from this step on are none.
fn newest(directory: &Path, end: Option<u64>) -> anyhow::Result<Option<Checkpoint>> {
    let (newest, rejected) = checkpoint::latest_before(directory, end)?;
    for damaged in &rejected {
        tracing::warn!(path = %damaged.path.display(), "skipped: {}", damaged.reason);
    }
    if newest.is_none() && (end.is_some() || !rejected.is_empty()) {
        bail!(
            "no checkpoint in {} verifies (see the warnings); restore one from a backup, or start \
             over with `--fresh`",
            directory.display()
        );
    }
    Ok(newest)
}

/// The trainer that resumes from `checkpoint` at these places, the name of its run, and the
/// checkpoints that it comes from. A state that saw no event binds nobody to its config.
fn go_on(
    config: &Config,
    placement: &Placement,
    checkpoint: &Checkpoint,
    (offsets, catalogues): (Offsets, Vec<CataloguePlace>),
) -> anyhow::Result<(Trainer, String, Option<Chain>)> {
    let manifest = &checkpoint.manifest;
    if manifest.events_trained > 0 {
        let places = (offsets, catalogues);
        let trainer = restore_at(config, placement, checkpoint, places)?;
        return Ok((trainer, manifest.run.clone(), Some(Chain::of(manifest))));
    }
    let path = checkpoint.path.display().to_string();
    tracing::info!(path, "the newest checkpoint saw no event: starting anew at its offsets");
    let begun = Progress::begin(offsets);
    let progress = Progress { rejected: manifest.events_rejected, pass: manifest.pass, ..begun };
    Ok((Trainer::with_progress(&config.train(), placement, progress), new_run(), None))
}

/// A name for a run that begins from nothing, 8 hex digits: two runs in one directory reach the
/// same steps, and their versions must differ. The keys of a `RandomState` are random in each
/// process; the time is for platforms on which they are not.
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
    let catalogues = catalogue::known(config, &manifest.catalogues);
    restore_at(config, placement, checkpoint, (manifest.offsets.clone(), catalogues))
}

/// [`restore`], to read on at these places; catalogues that are not among them are left out.
fn restore_at(
    config: &Config,
    placement: &Placement,
    checkpoint: &Checkpoint,
    (offsets, catalogues): (Offsets, Vec<CataloguePlace>),
) -> anyhow::Result<Trainer> {
    let manifest = &checkpoint.manifest;
    let path = checkpoint.path.display();
    let saved = Config::from_toml(&checkpoint.config()?)
        .map_err(|faults| anyhow!("the config in {path} is not valid here: {faults}"));
    if let Some(warning) = saved.as_ref().ok().and_then(|saved| moved_objective(saved, config)) {
        tracing::warn!("{path} {warning}");
    }
    let same = |alike: fn(&Config, &Config) -> bool| {
        saved.as_ref().is_ok_and(|saved| alike(saved, config))
    };
    let same_rate = same(|saved, config| saved.frequency == config.frequency);
    let same_attributes = same(|saved, config| saved.attributes() == config.attributes());
    if manifest.config_digest != config.digest() {
        let saved = saved?;
        // A key that came with a later version has its default in both, and only the digest
        // differs.
        let (old, new) = (saved.state_keys(), config.state_keys());
        if old != new {
            bail!(
                "{path} was trained with another config; these keys differ (- checkpoint, + now):\n\
                 {}\ngo back to the old values, or start over with `--fresh` or in another \
                 checkpoint.directory",
                difference(&old, &new)
            );
        }
    }
    let progress = Progress {
        step: manifest.step,
        events: manifest.events_trained,
        rejected: manifest.events_rejected,
        event_time_ms: manifest.event_time_ms,
        offsets,
        pass: manifest.pass,
        catalogues,
    };
    let read = sections::of(checkpoint);
    let mut trainer = Trainer::restore(&config.train(), placement, progress, &read)
        .with_context(|| format!("cannot restore {path}"))?;
    check_increments(&mut trainer, manifest, (same_rate, same_attributes))?;
    Ok(trainer)
}

/// A chain of checkpoints that verify does not add up to the state that was there.
#[derive(Debug, thiserror::Error)]
#[error("its increments do not add up to the state that it was written from (section {section})")]
struct AnotherState {
    section: String,
}

/// Compares what increments led to with what was there: files may be whole, each of them, and a
/// fault of this program may have left a row out of one.
fn check_increments(
    trainer: &mut Trainer,
    manifest: &Manifest,
    (same_rate, same_attributes): (bool, bool),
) -> anyhow::Result<()> {
    let increments: Vec<&SectionEntry> =
        manifest.sections.iter().filter(|section| section.increment.is_some()).collect();
    if increments.is_empty() {
        return Ok(());
    }
    let mut tally = Tally::default();
    trainer.begin_capture(Extent::Whole);
    while trainer.is_capturing() {
        for part in trainer.advance_capture(usize::MAX) {
            let Ok(()) = part.pieces::<Infallible>(&mut |piece| {
                tally.add(&piece.section, &piece.content);
                Ok(())
            });
        }
    }
    trainer.settle_capture(false);
    let restored = tally.finish();
    let differs = |wanted: &&&SectionEntry| {
        let found = restored.iter().find(|section| section.name == wanted.name);
        // A catalogue that is read in another way begins anew.
        let left_out = found.is_none() && wanted.name.starts_with("catalogue.");
        // The estimator goes on under another rate, and its section then ends in another way.
        (same_rate || wanted.name != "frequency")
            // The corpus goes on with other attributes.
            && (same_attributes || wanted.name != "corpus")
            && !left_out
            && found.is_none_or(|found| found.checksum != wanted.checksum)
    };
    match increments.iter().find(differs) {
        None => Ok(()),
        Some(section) => Err(AnotherState { section: section.name.clone() }.into()),
    }
}

/// What to say if a state goes on with another objective than it was `saved` with.
fn moved_objective(saved: &Config, config: &Config) -> Option<String> {
    let (old, new) = (saved.objective_keys(), config.objective_keys());
    (old != new).then(|| {
        format!(
            "was trained with another objective (- checkpoint, + now):\n{}\nits scores move to the \
             new one as events come; for a clean start use another checkpoint.directory",
            difference(&old, &new)
        )
    })
}

/// Keys whose values differ between two texts in TOML, with their paths.
fn difference(old: &str, new: &str) -> String {
    let [old, new] = [old, new].map(|text| {
        let table: toml::Table = toml::from_str(text).expect("a config of our own is TOML");
        let values = leaves(table).into_iter().map(|(key, value)| (key, value.to_string()));
        values.collect::<BTreeMap<String, String>>()
    });
    let only = |a: &BTreeMap<String, String>, b: &BTreeMap<String, String>, mark: &str| {
        let differs = a.iter().filter(|(key, value)| b.get(*key) != Some(*value));
        differs.map(|(key, value)| format!("  {mark} {key} = {value}")).collect()
    };
    let mut lines: Vec<String> = only(&old, &new, "-");
    lines.extend(only(&new, &old, "+"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_train::objective::Correction;

    fn lineage() -> Lineage {
        Lineage::new("5eed0001", None, Witness::default())
    }

    /// A checkpoint of an untrained model, with this for its digest of the config.
    fn checkpoint(config: &Config, directory: &Path, digest: &str) -> Checkpoint {
        let placement = Placement::Cpu;
        let trainer = Trainer::new(&config.train(), &placement, Offsets::new("demo"));
        let progress = trainer.progress().clone();
        let mut facts = super::super::durable::facts(config, &lineage(), progress);
        facts.config_digest = digest.to_owned();
        let store = Store::open(directory, 1).expect("a directory of its own");
        store.write(facts, trainer.capture().into_sections(), 1).expect("written")
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
    fn another_correction_is_refused_and_another_temperature_is_said() {
        let config = Config::from_toml(include_str!("../../config/demo.toml")).expect("valid");
        let mut plain = config.clone();
        plain.loss.correction = Correction::Plain;
        assert_ne!(plain.state_keys(), config.state_keys());
        assert_eq!(moved_objective(&config, &plain), None);
        let mut warmer = config.clone();
        warmer.loss.temperature = 0.25;
        assert_eq!(warmer.state_keys(), config.state_keys());
        let warning = moved_objective(&config, &warmer).expect("a warning");
        assert!(warning.contains("+ loss.temperature = 0.25"), "{warning}");
        assert_eq!(moved_objective(&config, &config), None);
    }

    #[test]
    fn a_state_without_events_binds_nobody() {
        let config = Config::from_toml(include_str!("../../config/demo.toml")).expect("valid");
        let directory = tempfile::tempdir().expect("a directory");
        let placement = Placement::Cpu;
        let mut offsets = Offsets::new("demo");
        offsets.advance(0, 77);
        let empty = Progress { rejected: 77, ..Progress::begin(offsets) };
        let store = Store::open(directory.path(), 1).expect("a directory of its own");
        let write = |progress: &Progress| {
            let (settings, progress) = (config.train(), progress.clone());
            let facts = super::super::durable::facts(&config, &lineage(), progress.clone());
            let captured = Trainer::with_progress(&settings, &placement, progress).capture();
            store.write(facts, captured.into_sections(), 1).expect("written")
        };
        let mut other = config.clone();
        other.model.dim += 1;
        let go_on = |config: &Config, checkpoint: &Checkpoint| {
            let offsets = checkpoint.manifest.offsets.clone();
            super::go_on(config, &placement, checkpoint, (offsets, Vec::new()))
        };
        let (fresh, run, chain) = go_on(&other, &write(&empty)).expect("not bound");
        assert_eq!((fresh.progress(), chain), (&empty, None));
        assert!(run != "5eed0001" && run != new_run() && run.len() == 8, "{run}");

        let checkpoint = write(&Progress { step: 1, events: 1, ..empty });
        let error = go_on(&other, &checkpoint).err().expect("another shape");
        assert!(error.to_string().contains("model.dim"), "{error}");
        let (_, run, _) = go_on(&config, &checkpoint).expect("the same config");
        assert_eq!(run, "5eed0001", "a state keeps its run");
    }
}
