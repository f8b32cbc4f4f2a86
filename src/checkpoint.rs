//! Snapshots become durable, and the newest good one is found.
//!
//! A checkpoint is a directory named by its step: one file per section, the configuration it was
//! trained with, and `manifest.json`, which holds the offsets and every file's length and checksum.
//! It is written under another name, fsynced and renamed, so a directory with a step's name is
//! complete unless the disk damaged it later; a damaged one is passed over for the one before it.
//!
//! Owns that layout, the lock (one trainer per directory) and retention. Must never know burn,
//! rdkafka, or what is inside a section.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use millrace_events::{Offsets, Witness};

mod error;
mod manifest;
mod store;

pub use self::error::CheckpointError;
pub use self::manifest::{Manifest, SectionEntry, digest};
pub use self::store::Store;

use self::error::{Result, disk};
use self::manifest::{hex, unseal};

const MANIFEST: &str = "manifest.json";
const CONFIG: &str = "config.toml";
/// Bytes hashed and written (or read and hashed) at a time: large enough to make system calls
/// cheap, small enough to be in the cache still when the second of the two passes over it.
const CHUNK: usize = 1 << 20;
/// Digits of a step in a name, so that names sort like steps.
const STEP_DIGITS: usize = 12;

/// The whole state between two steps, in memory, with the offsets that produced it.
#[derive(Clone)]
pub struct Snapshot {
    /// Names the run that began from nothing and led here: two runs may reach the same step.
    pub run: String,
    /// Tells the log from others.
    pub witness: Witness,
    /// Steps trained so far.
    pub step: u64,
    /// The next offset to read of each partition.
    pub offsets: Offsets,
    /// Which pass over the log the offsets belong to; 1: the first.
    pub pass: u32,
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
    /// The parts of the state, in a fixed order.
    pub sections: Vec<Section>,
}

/// One named part of a snapshot.
#[derive(Clone)]
pub struct Section {
    /// Unique in its snapshot, and a file name: ASCII letters, digits, `-`, `_` and inner `.`.
    pub name: String,
    /// The content, opaque to this room.
    pub bytes: Vec<u8>,
    /// Whether the content is part of the state digest, that is, the same in every correct run.
    pub digested: bool,
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
    let mut rejected = Vec::new();
    for (step, path) in list(directory)?.into_iter().rev() {
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

    /// Reads every file and compares it with the manifest.
    ///
    /// # Errors
    /// Names the first file that is missing or differs.
    pub fn verify(&self) -> Result<()> {
        // Lengths first: truncation shows without reading gigabytes.
        self.measure()?;
        for entry in &self.manifest.sections {
            self.read(entry, |_| ())?;
        }
        let Manifest { step, offsets, sections, .. } = &self.manifest;
        let (found, expected) = (digest(*step, offsets, sections), &self.manifest.digest);
        if found != *expected {
            let reason = format!("the state digest is {found}, the manifest says {expected}");
            return Err(CheckpointError::Damaged(reason));
        }
        Ok(())
    }

    /// The content of section `name`, checked.
    ///
    /// # Errors
    /// If there is no such section, or it is missing on disk or differs from the manifest.
    pub fn section(&self, name: &str) -> Result<Vec<u8>> {
        let entries = &self.manifest.sections;
        let entry = entries.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
            let path = self.path.display();
            let names = names.join(", ");
            CheckpointError::Missing(format!(
                "checkpoint {path} has no section {name}; it has {names}"
            ))
        })?;
        // A length that does not fit this machine is one that no file has here.
        let mut bytes = Vec::with_capacity(usize::try_from(entry.length).unwrap_or(0));
        self.read(entry, |chunk| bytes.extend_from_slice(chunk))?;
        Ok(bytes)
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

    /// Compares the length of every file with the manifest.
    fn measure(&self) -> Result<()> {
        self.manifest.sections.iter().try_for_each(|entry| self.open_section(entry).map(drop))
    }

    fn open_section(&self, entry: &SectionEntry) -> Result<File> {
        let file = File::open(self.path.join(&entry.name));
        let opened = file.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(disk(|| self.unreadable(entry)))?;
        if length != entry.length {
            return Err(CheckpointError::Damaged(format!(
                "{} has {length} bytes, the manifest says {}: it was damaged after it was written",
                self.path.join(&entry.name).display(),
                entry.length
            )));
        }
        Ok(file)
    }

    /// Reads the file of `entry` through `take`, and compares it with the manifest at the end.
    fn read(&self, entry: &SectionEntry, mut take: impl FnMut(&[u8])) -> Result<()> {
        let (file, mut hasher) = (self.open_section(entry)?, Xxh3::new());
        let mut chunk = Vec::with_capacity(CHUNK);
        while {
            chunk.clear();
            let read = (&file).take(CHUNK as u64).read_to_end(&mut chunk);
            read.map_err(disk(|| self.unreadable(entry)))? > 0
        } {
            hasher.update(&chunk);
            take(&chunk);
        }
        if hex(hasher.digest128()) != entry.checksum {
            return Err(CheckpointError::Damaged(format!(
                "{} differs from its checksum in the manifest: it was damaged after it was written",
                self.path.join(&entry.name).display()
            )));
        }
        Ok(())
    }

    fn unreadable(&self, entry: &SectionEntry) -> String {
        unreadable(&self.path.join(&entry.name))
    }
}

/// The checkpoints in `directory`, good or not, by ascending step. None if it does not exist.
fn list(directory: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let failed = || format!("cannot list checkpoint directory {}", directory.display());
    let step = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let step = name.to_str()?.parse().ok()?;
        (name.to_str()? == directory_name(step)).then(|| (step, entry.path()))
    };
    let entries = entries.map_err(disk(failed))?;
    let mut steps: Vec<_> = entries.into_iter().filter_map(step).collect();
    steps.sort_unstable();
    Ok(steps)
}

fn directory_name(step: u64) -> String {
    format!("{step:0STEP_DIGITS$}")
}

fn unreadable(file: &Path) -> String {
    format!(
        "cannot read {} (damaged, or deleted by retention meanwhile: then take the newest one)",
        file.display()
    )
}

#[cfg(test)]
mod tests;
