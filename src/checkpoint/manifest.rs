//! The table of contents of a checkpoint, and the digest of a state.
//!
//! Owns the text of `manifest.json` and what seals it. Must never know a file.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::chain::Link;
use super::error::{CheckpointError, Result};
use super::{MANIFEST, STEP_DIGITS};
use millrace_events::{CataloguePlace, Offsets, Witness, lane_place};

/// The layout this program writes. It grows with every change that an older program would misread.
/// Whatever the format, `format` and `checksum` of the manifest keep their meaning.
pub(super) const FORMAT: u32 = 4;
/// The layout of what was trained on one topic: it is the one before, which older programs read.
const FORMAT_OF_ONE_TOPIC: u32 = 3;
/// The oldest layout this program reads: every section whole.
pub(super) const FORMAT_OLDEST: u32 = 2;
/// Stands for the checksum of the manifest while that checksum is computed.
const NO_CHECKSUM: &str = "00000000000000000000000000000000";

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub format: u32,
    /// The checkpoint's id: its run and its step, zero-padded.
    pub version: String,
    /// Names the run that began from nothing and led here.
    pub run: String,
    /// When that run began, ms since 1970; earlier programs did not write it down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began_ms: Option<i64>,
    /// A few of the records that the state was trained on, to tell their log from another one.
    #[serde(default)]
    pub witness: Witness,
    /// Steps trained so far.
    pub step: u64,
    /// The next offset to read of each topic's partitions.
    pub offsets: Offsets,
    /// Which pass over the log the offsets belong to; 1: the first.
    pub pass: u32,
    /// How far each catalogue has been read, and what of it came before the first event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub catalogues: Vec<CataloguePlace>,
    /// Event time of the newest event trained, in milliseconds since the Unix epoch.
    pub event_time_ms: i64,
    /// Events trained since the first step.
    pub events_trained: u64,
    /// Events rejected since the first step.
    pub events_rejected: u64,
    /// Identifies the configuration.
    pub config_digest: String,
    /// When it was written, ms since 1970; unknown before format 3.
    #[serde(default)]
    pub written_ms: Option<i64>,
    /// The version of the program that wrote it; empty before format 3.
    #[serde(default)]
    pub program: String,
    /// The checkpoints beside it that hold what has not changed since, the base first.
    #[serde(default)]
    pub parents: Vec<Link>,
    /// The sections in the state's order, then `config.toml`.
    pub sections: Vec<SectionEntry>,
    /// [`digest`] of the state: equal states have equal digests, whenever they were written.
    pub digest: String,
    /// xxh3-128 of this file, in hex, taken with zeros in this place. Must stay the last field.
    pub checksum: String,
}

/// The manifest's entry for one section, and for its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionEntry {
    /// The section's name, which is its file's.
    pub name: String,
    /// Length of what it holds in bytes, wherever it is stored.
    pub length: u64,
    /// xxh3-128 of what it holds, in hex.
    pub checksum: String,
    /// Whether it is part of the state digest.
    pub digested: bool,
    /// The file holds only what has changed since the last of `parents`; none: it holds all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub increment: Option<FileSum>,
}

/// Length and checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSum {
    /// In bytes.
    pub length: u64,
    /// xxh3-128, in hex.
    pub checksum: String,
}

impl SectionEntry {
    /// Bytes of its file.
    pub fn stored(&self) -> u64 {
        self.file().0
    }

    /// Length and checksum of its file.
    pub(super) fn file(&self) -> (u64, &str) {
        match &self.increment {
            Some(FileSum { length, checksum }) => (*length, checksum),
            None => (self.length, &self.checksum),
        }
    }
}

/// The layout of a checkpoint with these offsets.
pub(super) fn format_of(offsets: &Offsets) -> u32 {
    if offsets.topics().len() > 1 { FORMAT } else { FORMAT_OF_ONE_TOPIC }
}

impl Manifest {
    /// Whether both are of the same state of the same run, whenever and however they were written.
    pub(super) fn same_state(&self, other: &Self) -> bool {
        let facts = |manifest: &Self| {
            let Self { version, digest, config_digest, pass, event_time_ms, .. } = manifest;
            let events = (manifest.events_trained, manifest.events_rejected);
            (version.clone(), digest.clone(), config_digest.clone(), *pass, *event_time_ms, events)
        };
        facts(self) == facts(other)
    }

    /// The first thing in it that no program of ours writes.
    fn fault(&self) -> Option<String> {
        let Self { run, step, version: name, parents, sections, .. } = self;
        let topics = self.offsets.topics().len();
        let mut names: Vec<&str> = sections.iter().map(|section| section.name.as_str()).collect();
        names.sort_unstable();
        let steps: Vec<u64> = parents.iter().map(|link| link.step).chain([*step]).collect();
        if *name != version(run, *step) {
            Some(format!("version {name} is not that of run {run} and step {step}"))
        } else if let Some(name) = names.iter().find(|name| !file_name(name) || **name == MANIFEST)
        {
            Some(format!("{name:?} cannot name a section"))
        } else if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(format!("section {} is in it twice", pair[0]))
        } else if !steps.is_sorted_by(|a, b| a < b) {
            Some(format!("it builds upon steps {steps:?}, which do not ascend"))
        } else if parents.is_empty() && sections.iter().any(|entry| entry.increment.is_some()) {
            Some("it has increments of nothing".to_owned())
        } else if self.offsets.iter().any(|(lane, next)| lane < 0 || next < 0) {
            Some("it has an offset below 0".to_owned())
        } else if self.offsets.iter().any(|(lane, _)| lane_place(lane).0 >= topics) {
            Some("it has a partition that no topic has".to_owned())
        } else {
            None
        }
    }
}

/// A checkpoint's id.
pub(super) fn version(run: &str, step: u64) -> String {
    format!("{run}-{step:0STEP_DIGITS$}")
}

/// Whether `name` is one plain component of a path on every system.
pub(super) fn file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

/// Digest of a state, in hex: xxh3-128 over the step, the offsets (those of catalogues behind those
/// of events), and name, length and checksum of each digested section, in order. Two runs that
/// agree bit for bit have the same digest.
pub fn digest(
    step: u64,
    offsets: &Offsets,
    catalogues: &[CataloguePlace],
    sections: &[SectionEntry],
) -> String {
    let mut hasher = Xxh3::new();
    // Lengths go before what varies in length, so that no two states give the same bytes.
    let text = |hasher: &mut Xxh3, text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    hasher.update(&step.to_le_bytes());
    if offsets.topics().len() > 1 {
        // No topic's name is as long: the digests of one topic say nothing of their number.
        hasher.update(&(u64::MAX - offsets.topics().len() as u64).to_le_bytes());
    }
    let catalogues = catalogues.iter().map(|place| &place.next);
    for (topic, partitions) in [offsets].into_iter().chain(catalogues).flat_map(Offsets::by_topic) {
        text(&mut hasher, topic);
        hasher.update(&(partitions.len() as u64).to_le_bytes());
        for (partition, next) in partitions {
            hasher.update(&partition.to_le_bytes());
            hasher.update(&next.to_le_bytes());
        }
    }
    for section in sections.iter().filter(|section| section.digested) {
        text(&mut hasher, &section.name);
        hasher.update(&section.length.to_le_bytes());
        text(&mut hasher, &section.checksum);
    }
    hex(hasher.digest128())
}

/// The text of `manifest`, with its checksum, which is also set in `manifest`.
pub(super) fn seal(manifest: &mut Manifest) -> String {
    manifest.checksum = NO_CHECKSUM.to_owned();
    let mut text = serde_json::to_string_pretty(manifest).expect("a manifest is plain maps");
    manifest.checksum = hex(xxh3_128(text.as_bytes()));
    let place = text.rfind(NO_CHECKSUM).expect("the manifest was written with it");
    text.replace_range(place..place + NO_CHECKSUM.len(), &manifest.checksum);
    text
}

/// The manifest with this text, if it has its checksum and a known format, in this order: a
/// damaged digit must not pass for the format of another program version.
pub(super) fn unseal(text: &str) -> Result<Manifest> {
    #[derive(Deserialize)]
    struct Seal {
        format: u32,
        checksum: String,
    }
    let Seal { format, checksum } = serde_json::from_str(text).map_err(damaged)?;
    let plain = text
        .rfind(&checksum)
        .map(|place| [&text[..place], NO_CHECKSUM, &text[place + checksum.len()..]].concat());
    if plain.is_none_or(|plain| hex(xxh3_128(plain.as_bytes())) != checksum) {
        let reason =
            "the manifest differs from its checksum: it was damaged or edited after it was written";
        return Err(CheckpointError::Damaged(reason.to_owned()));
    }
    if !(FORMAT_OLDEST..=FORMAT).contains(&format) {
        return Err(CheckpointError::UnknownFormat { found: format, known: FORMAT });
    }
    let manifest: Manifest = serde_json::from_str(text).map_err(damaged)?;
    match manifest.fault() {
        None => Ok(manifest),
        Some(fault) => Err(CheckpointError::Damaged(format!("damaged manifest: {fault}"))),
    }
}

fn damaged(error: serde_json::Error) -> CheckpointError {
    CheckpointError::Damaged(format!("damaged manifest: {error}"))
}

pub(super) fn hex(checksum: u128) -> String {
    format!("{checksum:032x}")
}
