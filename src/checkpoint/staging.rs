//! The files of a checkpoint while it is written, beside its place.
//!
//! Owns the order of write and sync. What is dropped before it was moved leaves nothing behind.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::chain::{Chain, Link};
use super::directory::{FILE_MODE, create_directory, remove, sync_directory};
use super::error::{CheckpointError, Result, disk};
use super::manifest::{FileSum, file_name, format_of, seal, version};
use super::tally::{Sum, Tally};
use super::{CONFIG, Facts, MANIFEST, Manifest, digest};

/// See the module's head.
pub(super) struct Staging {
    path: PathBuf,
    facts: Facts,
    parents: Vec<Link>,
    tally: Tally,
    /// The file of the section that is open, and its sum if it is an increment.
    file: Option<(File, Option<Sum>)>,
}

impl Staging {
    /// Creates the directory `path`.
    pub(super) fn new(path: PathBuf, facts: Facts, chain: Option<&Chain>) -> Result<Self> {
        remove(&path).map_err(disk(|| format!("delete {}", path.display())))?;
        create_directory(&path).map_err(disk(|| format!("create {}", path.display())))?;
        let parents = chain.map_or(Vec::new(), |chain| chain.links().to_vec());
        Ok(Self { path, facts, parents, tally: Tally::default(), file: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn step(&self) -> u64 {
        self.facts.step
    }

    /// The next bytes of a section, and of its increment.
    pub(super) fn append(
        &mut self,
        name: &str,
        content: &[u8],
        increment: Option<&[u8]>,
    ) -> Result<()> {
        if self.tally.name() != Some(name) {
            self.open(name, increment.is_some())?;
        }
        let (file, sum) = self.file.as_mut().expect("a section is open");
        if sum.is_some() != increment.is_some() || increment.is_some() && self.parents.is_empty() {
            return Err(impossible(format!("{name} is an increment of nothing, or only in part")));
        }
        let bytes = increment.unwrap_or(content);
        let path = self.path.join(name);
        file.write_all(bytes)
            .map_err(disk(|| format!("write {} bytes to {}", bytes.len(), path.display())))?;
        if let (Some(sum), Some(increment)) = (sum, increment) {
            sum.add(increment);
        }
        self.tally.add(name, content);
        Ok(())
    }

    fn open(&mut self, name: &str, increment: bool) -> Result<()> {
        if !file_name(name) || name == MANIFEST || name == CONFIG || self.tally.holds(name) {
            return Err(impossible(format!("{name:?} cannot name a section, or does so already")));
        }
        self.close()?;
        let path = self.path.join(name);
        let file = create_file(&path).map_err(disk(|| format!("create {}", path.display())))?;
        self.file = Some((file, increment.then(Sum::default)));
        Ok(())
    }

    /// Ends the open section.
    fn close(&mut self) -> Result<()> {
        let Some(((file, sum), entry)) = self.file.take().zip(self.tally.close()) else {
            return Ok(());
        };
        entry.increment = sum.map(|sum| {
            let (length, checksum) = sum.finish();
            FileSum { length, checksum }
        });
        let path = self.path.join(&entry.name);
        file.sync_all().map_err(disk(|| format!("sync {}", path.display())))
    }

    /// Writes the config and the manifest.
    pub(super) fn seal(&mut self, written_ms: i64) -> Result<Manifest> {
        self.close()?;
        let config = self.facts.config_toml.as_bytes();
        write_file(&self.path.join(CONFIG), config)?;
        let mut tally = std::mem::take(&mut self.tally);
        tally.add(CONFIG, config);
        let mut sections = tally.finish();
        sections.iter_mut().for_each(|section| section.digested = section.name != CONFIG);
        let builds = sections.iter().any(|section| section.increment.is_some());
        let facts = &self.facts;
        let mut manifest = Manifest {
            format: format_of(&facts.offsets),
            version: version(&facts.run, facts.step),
            run: facts.run.clone(),
            began_ms: facts.began_ms,
            witness: facts.witness.clone(),
            step: facts.step,
            offsets: facts.offsets.clone(),
            catalogues: facts.catalogues.clone(),
            pass: facts.pass,
            event_time_ms: facts.event_time_ms,
            events_trained: facts.events_trained,
            events_rejected: facts.events_rejected,
            config_digest: facts.config_digest.clone(),
            written_ms: Some(written_ms),
            program: facts.program.clone(),
            parents: if builds { self.parents.clone() } else { Vec::new() },
            digest: digest(facts.step, &facts.offsets, &facts.catalogues, &sections),
            sections,
            checksum: String::new(),
        };
        write_file(&self.path.join(MANIFEST), seal(&mut manifest).as_bytes())?;
        sync_directory(&self.path)?;
        Ok(manifest)
    }

    /// Clears what was written: a full disk is the likely cause of `error`, and half a checkpoint
    /// must not keep it full.
    pub(super) fn clear(&self, error: CheckpointError) -> CheckpointError {
        match remove(&self.path) {
            Ok(()) => error,
            Err(kept) => error.during(format!("{} stays behind: {kept}", self.path.display())),
        }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What cannot be deleted now is cleared by the next draft of this step, or the next start.
        drop(remove(&self.path));
    }
}

fn impossible(reason: String) -> CheckpointError {
    CheckpointError::Impossible(reason)
}

fn create_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)
}

/// Writes and syncs a new file.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = create_file(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(disk(|| format!("write {} bytes to {}", bytes.len(), path.display())))
}
