//! Snapshots become durable, and the newest good one is found.
//!
//! A checkpoint is a directory named by its step: one file per section, the configuration it was
//! trained with, and `manifest.json`, which holds the offsets and every file's length and checksum.
//! It is written under another name, fsynced and renamed, so a directory with a step's name is
//! complete unless the disk damaged it later; a damaged one is passed over for the one before it.
//! The file of a section holds all of it, or what has changed since another checkpoint, which then
//! stays as long as this one does.
//!
//! Owns that layout, the lock (one trainer per directory) and retention. Must never know burn,
//! rdkafka, or what is inside a section.

use std::fs;
use std::path::{Path, PathBuf};

use millrace_events::{CataloguePlace, Offsets, Witness};

mod chain;
mod directory;
mod error;
mod manifest;
mod section;
mod staging;
mod store;
mod tally;

pub use self::chain::{Chain, Link};
pub use self::error::CheckpointError;
pub use self::manifest::{FileSum, Manifest, SectionEntry, digest};
pub use self::section::{SectionFile, SectionReader};
pub use self::store::{Draft, Pin, Store};
pub(crate) use self::tally::Sum;
pub use self::tally::Tally;

use self::directory::{directory_name, list};
use self::error::{Result, disk};
use self::manifest::unseal;

const MANIFEST: &str = "manifest.json";
const CONFIG: &str = "config.toml";
/// Bytes read and hashed at a time: large enough to make system calls cheap, small enough to be in
/// the cache still when the second of the two passes over it.
const CHUNK: usize = 1 << 20;
/// Digits of a step in a name, so that names sort like steps.
const STEP_DIGITS: usize = 12;

/// The facts about a state between two steps, with the offsets that produced it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Names the run that began from nothing and led here: two runs may reach the same step.
    pub run: String,
    /// When that run began, ms since 1970, by its machine's clock; none: nobody wrote it down.
    pub began_ms: Option<i64>,
    /// Tells the log from others.
    pub witness: Witness,
    /// Steps trained so far.
    pub step: u64,
    /// The next offset to read of each partition.
    pub offsets: Offsets,
    /// Which pass over the log the offsets belong to; 1: the first.
    pub pass: u32,
    /// How far each catalogue has been read.
    pub catalogues: Vec<CataloguePlace>,
    /// Event time of the newest event trained, in milliseconds since the Unix epoch.
    pub event_time_ms: i64,
    /// Events trained since the first step.
    pub events_trained: u64,
    /// Events rejected since the first step.
    pub events_rejected: u64,
    /// Identifies the configuration, as far as the caller wants two of them told apart.
    pub config_digest: String,
    /// The text of the configuration, stored so that a checkpoint explains itself.
    pub config_toml: String,
    /// The version of the program.
    pub program: String,
}

/// A checkpoint that [`latest`] passed over.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Its directory.
    pub path: PathBuf,
    /// The fault.
    pub reason: String,
}

/// The newest checkpoint in `directory` that verifies, and the newer ones that do not, newest
/// first. `None` if there is none; when some were rejected all the same, starting from nothing
/// would throw away what may be salvaged, so a caller should ask a person first.
///
/// # Errors
/// If the directory or a checkpoint may not be read, or a checkpoint has a format of another
/// program version: these are not damage, and passing them over would silently lose progress.
pub fn latest(directory: &Path) -> Result<(Option<Checkpoint>, Vec<Rejected>)> {
    latest_before(directory, None)
}

/// [`latest`] of those before step `end`.
///
/// # Errors
/// As [`latest`].
pub fn latest_before(
    directory: &Path,
    end: Option<u64>,
) -> Result<(Option<Checkpoint>, Vec<Rejected>)> {
    let mut rejected = Vec::new();
    for (step, path) in list(directory)?.into_iter().rev() {
        if end.is_some_and(|end| step >= end) {
            continue;
        }
        let verified = Checkpoint::open(&path).and_then(|checkpoint| {
            let found = checkpoint.manifest.step;
            if found != step {
                let reason =
                    format!("the manifest is that of step {found}: the directory was renamed");
                return Err(CheckpointError::Damaged(reason));
            }
            checkpoint.verify()?;
            Ok(checkpoint)
        });
        match verified {
            Ok(checkpoint) => return Ok((Some(checkpoint), rejected)),
            Err(error) if error.is_damage() => {
                rejected.push(Rejected { path, reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    Ok((None, rejected))
}

/// A checkpoint on disk.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its directory.
    pub path: PathBuf,
    /// Its manifest, as read (and checked) when it was opened.
    pub manifest: Manifest,
}

impl Checkpoint {
    /// Reads and checks the manifest of the checkpoint at `path`, none of its sections.
    ///
    /// # Errors
    /// If the manifest is missing, damaged or of an unknown format.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join(MANIFEST);
        let text = fs::read_to_string(&file).map_err(disk(|| unreadable(&file)))?;
        let manifest = unseal(&text)
            .map_err(|error| error.during(format!("checkpoint {}", path.display())))?;
        Ok(Self { path: path.to_owned(), manifest })
    }

    /// The newest checkpoint in `directory` by its name, good or not: a look at whether there is a
    /// new one, which reads a manifest and no section.
    ///
    /// # Errors
    /// If the directory or that manifest cannot be read.
    pub fn newest(directory: &Path) -> Result<Option<Self>> {
        list(directory)?.last().map(|(_, path)| Self::open(path)).transpose()
    }

    /// The checkpoint that `path` means: itself, or the newest good one in it, along with the
    /// newer ones that were rejected.
    ///
    /// # Errors
    /// If there is none, with the reason for each that was rejected; else as [`latest`].
    pub fn resolve(path: &Path) -> Result<(Self, Vec<Rejected>)> {
        if path.join(MANIFEST).exists() {
            return Ok((Self::open(path)?, Vec::new()));
        }
        if !path.exists() {
            let reason = format!("no checkpoint: {} does not exist", path.display());
            return Err(CheckpointError::Missing(reason));
        }
        let (newest, rejected) = latest(path)?;
        if let Some(newest) = newest {
            return Ok((newest, rejected));
        }
        let reasons: String =
            rejected.iter().map(|r| format!("\n  {}: {}", r.path.display(), r.reason)).collect();
        Err(CheckpointError::Missing(format!(
            "{} is no checkpoint and holds no good one ({} rejected){reasons}",
            path.display(),
            rejected.len()
        )))
    }

    /// Reads every file that the state is in and compares it with its manifest, those of the
    /// checkpoints that this one builds upon, too.
    ///
    /// # Errors
    /// Names the first file that is missing or differs.
    pub fn verify(&self) -> Result<()> {
        // Lengths first: truncation shows without reading gigabytes.
        for file in self.measured()? {
            file.reader()?.finish()?;
        }
        let Manifest { step, offsets, catalogues, sections, .. } = &self.manifest;
        let (found, expected) =
            (digest(*step, offsets, catalogues, sections), &self.manifest.digest);
        if found != *expected {
            let reason = format!("the state digest is {found}, the manifest says {expected}");
            return Err(CheckpointError::Damaged(reason));
        }
        Ok(())
    }

    /// The files that section `name` is in: all of it as it was once, then each increment since,
    /// oldest first.
    ///
    /// # Errors
    /// If there is no such section, or a checkpoint that this one builds upon is missing or is
    /// another one than it was.
    pub fn files(&self, name: &str) -> Result<Vec<SectionFile>> {
        self.files_in(&self.lineage()?, name)
    }

    /// What section `name` holds, checked, if its file holds all of it.
    ///
    /// # Errors
    /// As [`Self::files`], or if it is in increments, or differs from the manifest.
    pub fn section(&self, name: &str) -> Result<Vec<u8>> {
        match &self.files(name)?[..] {
            [file] => file.content(),
            _ => {
                let path = self.path.display();
                Err(CheckpointError::Missing(format!("{path} holds increments of {name} alone")))
            }
        }
    }

    /// The text of the configuration that the checkpoint was trained with.
    ///
    /// # Errors
    /// As [`Self::section`].
    pub fn config(&self) -> Result<String> {
        String::from_utf8(self.section(CONFIG)?).map_err(|error| {
            CheckpointError::Damaged(format!("the stored configuration is not text: {error}"))
        })
    }

    /// The checkpoints that it builds upon, the base first, and itself.
    fn lineage(&self) -> Result<Vec<Self>> {
        let beside = self.path.parent().unwrap_or(Path::new(""));
        let open = |link: &Link| {
            let path = beside.join(directory_name(link.step));
            let parent = Self::open(&path).map_err(|error| {
                error.during(format!("{} builds upon {}", self.path.display(), path.display()))
            })?;
            if parent.manifest.checksum == link.checksum {
                return Ok(parent);
            }
            Err(CheckpointError::Damaged(format!(
                "{} builds upon another checkpoint than {} is",
                self.path.display(),
                path.display()
            )))
        };
        let parents = self.manifest.parents.iter().map(open);
        parents.chain([Ok(self.clone())]).collect()
    }

    /// The files of section `name` in a lineage.
    fn files_in(&self, lineage: &[Self], name: &str) -> Result<Vec<SectionFile>> {
        let mut files = Vec::new();
        for link in lineage.iter().rev() {
            let found = link.manifest.sections.iter().find(|entry| entry.name == name);
            let entry = found.ok_or_else(|| {
                let names: Vec<_> =
                    link.manifest.sections.iter().map(|entry| entry.name.as_str()).collect();
                let (path, names) = (link.path.display(), names.join(", "));
                CheckpointError::Missing(format!(
                    "checkpoint {path} has no section {name}; it has {names}"
                ))
            })?;
            files.push(SectionFile::new(&link.path, entry));
            if entry.increment.is_none() {
                files.reverse();
                return Ok(files);
            }
        }
        Err(CheckpointError::Damaged(format!("section {name} has increments and no base")))
    }

    /// All files that the state is in, their lengths compared with the manifests.
    fn measured(&self) -> Result<Vec<SectionFile>> {
        let lineage = self.lineage()?;
        let mut all = Vec::new();
        for entry in &self.manifest.sections {
            let missing = |error| match error {
                CheckpointError::Missing(reason) => CheckpointError::Damaged(reason),
                error => error,
            };
            all.extend(self.files_in(&lineage, &entry.name).map_err(missing)?);
        }
        all.iter().try_for_each(|file| file.open().map(drop))?;
        Ok(all)
    }

    /// Compares the length of every file with the manifest.
    fn measure(&self) -> Result<()> {
        self.measured().map(drop)
    }
}

fn unreadable(file: &Path) -> String {
    format!(
        "cannot read {} (damaged, or deleted by retention meanwhile: then take the newest one)",
        file.display()
    )
}

#[cfg(test)]
mod tests;
