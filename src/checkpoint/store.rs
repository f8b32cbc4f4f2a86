//! The writing side: one trainer's directory of checkpoints.
//!
//! Owns the lock, the order of write, sync and rename, and retention. Must never know what is
//! inside a section.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chain::Chain;
use super::directory::{
    FILE_MODE, create_directory, create_root, directory_name, list, remove, rename, sync_directory,
};
use super::error::{CheckpointError, Result, disk};
use super::staging::Staging;
use super::{Checkpoint, Facts, Manifest};

const LOCK: &str = ".lock";
/// Prefix of what is not a checkpoint yet, or no longer: free to delete for the lock's holder.
const STAGING: &str = ".tmp-";
/// Prefix of a checkpoint that makes way for another one of the same step.
const REPLACED: &str = ".old-";

/// The directory that holds checkpoints, locked for the one trainer that writes them.
///
/// Readers need no lock. Retention waits for those of this process that hold a [`Pin`]. Any other
/// that is still busy with a checkpoint when `keep` newer ones have been written gets an error that
/// says so.
pub struct Store {
    directory: PathBuf,
    keep: usize,
    pinned: Arc<Mutex<Vec<u64>>>,
    /// Steps that the run did not start from, though they were there and lie behind its start.
    passed_over: Mutex<BTreeSet<u64>>,
    /// Held open, because closing it (also by a crash) is what releases the lock.
    _lock: File,
}

impl Store {
    /// Creates `directory` if need be, locks it, and clears what a crash left in it.
    /// `keep` is the number of checkpoints retained, at least 1.
    ///
    /// # Errors
    /// If another trainer holds the lock (the message names it), or the directory cannot be
    /// written.
    pub fn open(directory: &Path, keep: usize) -> Result<Self> {
        if keep == 0 {
            let reason = "0 checkpoints to keep: a trainer needs at least 1 to restart from";
            return Err(CheckpointError::Impossible(reason.to_owned()));
        }
        create_root(directory).map_err(disk(|| {
            format!("cannot create checkpoint directory {}", directory.display())
        }))?;
        let lock = lock(directory)?;
        clear_leftovers(directory).map_err(|error| {
            let place = directory.display();
            error.during(format!("cannot clear what a crash left in {place}; delete it by hand"))
        })?;
        let (pinned, passed_over) = (Arc::default(), Mutex::default());
        Ok(Self { directory: directory.to_owned(), keep, pinned, passed_over, _lock: lock })
    }

    /// The run starts from the state of `step`. What is here of later steps it did not take, being
    /// damaged or of another state: until it is written again none of them counts as kept.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn start_from(&self, step: u64) -> Result<()> {
        let later = list(&self.directory)?.into_iter().map(|(found, _)| found);
        *self.passed_over() = later.filter(|found| *found > step).collect();
        Ok(())
    }

    fn passed_over(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.passed_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a checkpoint of the state that has these `facts`; [`Draft`] takes its sections and
    /// makes it durable, then deletes what lies before the newest `keep`. With `chain` it may build
    /// upon the checkpoints in there.
    ///
    /// Writing a step again is fine: an undamaged checkpoint of the same state stays, any other one
    /// is replaced. Takes as long as the disk needs for every byte; not for the trainer's thread.
    ///
    /// # Errors
    /// If the directory cannot be written; the earlier checkpoints are then untouched.
    pub fn begin(&self, facts: Facts, chain: Option<&Chain>) -> Result<Draft<'_>> {
        let step = facts.step;
        let staging = self.directory.join(format!("{STAGING}{}", directory_name(step)));
        let staging = Staging::new(staging, facts, chain);
        let staging = staging.map_err(|error| self.not_written(step, error))?;
        Ok(Draft { store: self, staging })
    }

    /// Makes a state with these `facts` and whole `sections` durable.
    ///
    /// # Errors
    /// As [`Draft::append`] and [`Draft::finish`].
    pub fn write(
        &self,
        facts: Facts,
        sections: impl IntoIterator<Item = (String, Vec<u8>)>,
        written_ms: i64,
    ) -> Result<Checkpoint> {
        let mut draft = self.begin(facts, None)?;
        for (name, bytes) in sections {
            draft.append(&name, &bytes, None)?;
        }
        draft.finish(written_ms)
    }

    /// Keeps the checkpoint of `step`, and those that it builds upon, from retention until the pin
    /// is dropped. They go when the next checkpoint is written after that.
    pub fn pin(&self, step: u64) -> Pin {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner).push(step);
        Pin { step, pinned: Arc::clone(&self.pinned) }
    }

    fn not_written(&self, step: u64, error: CheckpointError) -> CheckpointError {
        error.during(format!(
            "checkpoint {} was not written to {}, earlier ones are untouched; check its free space \
             and permissions",
            directory_name(step),
            self.directory.display()
        ))
    }

    /// Moves every checkpoint out of the way, to `set-aside-N/` in the same directory, so that a
    /// run can start from nothing without deleting what was. Returns the new paths.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn set_aside(&self) -> Result<Vec<PathBuf>> {
        let checkpoints = list(&self.directory)?;
        if checkpoints.is_empty() {
            return Ok(Vec::new());
        }
        let mut number = 1;
        let aside = loop {
            let aside = self.directory.join(format!("set-aside-{number}"));
            if !aside.exists() {
                break aside;
            }
            number += 1;
        };
        create_directory(&aside).map_err(disk(|| format!("create {}", aside.display())))?;
        let mut moved = Vec::new();
        for (step, path) in checkpoints {
            let target = aside.join(directory_name(step));
            rename(&path, &target)?;
            moved.push(target);
        }
        sync_directory(&self.directory)?;
        Ok(moved)
    }

    /// Gives a staged checkpoint its name, unless one that is just as good has it.
    fn admit(&self, staging: &Path, manifest: Manifest) -> Result<Checkpoint> {
        let name = directory_name(manifest.step);
        let path = self.directory.join(&name);
        let replaced = self.directory.join(format!("{REPLACED}{name}"));
        let occupied =
            path.try_exists().map_err(disk(|| format!("look for {}", path.display())))?;
        if occupied {
            let present = Checkpoint::open(&path);
            if let Ok(present) = present
                && present.manifest.same_state(&manifest)
                && present.verify().is_ok()
            {
                remove(staging).map_err(disk(|| format!("delete {}", staging.display())))?;
                // It may have been renamed just before a crash that this sync would have followed.
                sync_directory(&self.directory)?;
                return Ok(present);
            }
            // A directory cannot be renamed onto a full one. A crash between these two renames
            // leaves the old one under its other name; opening the store gives the name back.
            remove(&replaced).map_err(disk(|| format!("delete {}", replaced.display())))?;
            rename(&path, &replaced)?;
        }
        rename(staging, &path)?;
        sync_directory(&self.directory)?;
        remove(&replaced).map_err(disk(|| format!("delete {}", replaced.display())))?;
        Ok(Checkpoint { path, manifest })
    }

    /// Deletes what lies before the newest `keep` checkpoints up to the one just `written`, unless
    /// it is pinned or one that stays builds upon it.
    ///
    /// One that is visibly damaged, or builds upon one that is, does not count as kept, or damage
    /// would push out the good ones; nor does one that was passed over at the start, whose damage a
    /// look at sizes need not show. Those after `written` do not count, and stay: the trainer
    /// started before them, because they are damaged or somebody wanted it so; what becomes of them
    /// is not for retention to decide.
    fn retain(&self, written: u64) -> Result<()> {
        self.delete_old(written).map_err(|error| {
            error.during(format!(
                "checkpoint {} is durable, but older ones in {} could not be deleted",
                directory_name(written),
                self.directory.display()
            ))
        })
    }

    fn delete_old(&self, written: u64) -> Result<()> {
        let mut passed_over = self.passed_over();
        passed_over.remove(&written);
        let mut kept = 0;
        let pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut needed = BTreeSet::from_iter(pinned);
        for (step, path) in list(&self.directory)?.into_iter().rev() {
            if step <= written && kept >= self.keep && !needed.contains(&step) {
                // Renamed first: a crash in the middle must not leave half a checkpoint to be
                // found. Newest first: none is ever without those it builds upon.
                let name = directory_name(step);
                let expired = self.directory.join(format!("{STAGING}expired-{name}"));
                rename(&path, &expired)?;
                remove(&expired).map_err(disk(|| format!("delete {}", expired.display())))?;
                continue;
            }
            let opened = Checkpoint::open(&path);
            if let Ok(checkpoint) = &opened {
                needed.extend(checkpoint.manifest.parents.iter().map(|parent| parent.step));
            }
            if step <= written && kept < self.keep && !passed_over.contains(&step) {
                let whole = opened.and_then(|checkpoint| checkpoint.measure());
                kept += usize::from(step == written || whole.is_ok());
            }
        }
        Ok(())
    }
}

/// A claim on a checkpoint that somebody is yet to read, or reads.
#[derive(Debug)]
pub struct Pin {
    step: u64,
    pinned: Arc<Mutex<Vec<u64>>>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = pinned.iter().position(|step| *step == self.step) {
            pinned.swap_remove(at);
        }
    }
}

/// A checkpoint while it is written, beside its place. One that is dropped leaves nothing behind.
/// Sections come one after the other, in their order, each in pieces.
pub struct Draft<'a> {
    store: &'a Store,
    staging: Staging,
}

impl Draft<'_> {
    /// The next bytes of what section `name` holds. With `increment` those are written in their
    /// place: what has changed since the checkpoint that this one builds upon.
    ///
    /// # Errors
    /// If a file cannot be written or synced (no space, permissions): the earlier checkpoints are
    /// then untouched.
    pub fn append(&mut self, name: &str, content: &[u8], increment: Option<&[u8]>) -> Result<()> {
        self.staging.append(name, content, increment).map_err(|error| self.failed(error))
    }

    /// Ends the checkpoint, and gives it its place, as [`Store::begin`] says. `written_ms` is the
    /// time, ms since 1970.
    ///
    /// # Errors
    /// As [`append`](Self::append). Or if old checkpoints could not be deleted; the new one is then
    /// durable.
    pub fn finish(mut self, written_ms: i64) -> Result<Checkpoint> {
        let manifest = self.staging.seal(written_ms);
        let admitted = manifest.and_then(|manifest| {
            let step = manifest.step;
            Ok((step, self.store.admit(self.staging.path(), manifest)?))
        });
        let (step, checkpoint) = admitted.map_err(|error| self.failed(error))?;
        self.store.retain(step)?;
        Ok(checkpoint)
    }

    fn failed(&self, error: CheckpointError) -> CheckpointError {
        self.store.not_written(self.staging.step(), self.staging.clear(error))
    }
}

/// The lock file of `directory`, locked, and with our name in it. The kernel releases the lock
/// when the process ends, however it ends; the file stays, since deleting it would let two
/// processes each lock a file of that name.
fn lock(directory: &Path) -> Result<File> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
    let mut file =
        options.open(&path).map_err(disk(|| format!("cannot open lock {}", path.display())))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let owner = fs::read_to_string(&path).unwrap_or_default();
            let owner = if owner.is_empty() { "another process" } else { owner.trim() };
            let (directory, owner) = (directory.to_owned(), owner.to_owned());
            return Err(CheckpointError::InUse { directory, owner });
        }
        Err(TryLockError::Error(error)) => {
            return Err(disk(|| format!("cannot lock {}", path.display()))(error));
        }
    }
    // The host matters in containers, where every trainer is process 1.
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.is_empty() { "this host" } else { host.trim() };
    file.set_len(0)
        .and_then(|()| writeln!(file, "process {} on {host}", std::process::id()))
        .map_err(disk(|| format!("cannot write {}", path.display())))?;
    Ok(file)
}

/// Deletes what was staged, and gives a checkpoint that was being replaced its name back, unless
/// the other one has arrived there.
fn clear_leftovers(directory: &Path) -> Result<()> {
    let list = || format!("list {}", directory.display());
    for entry in fs::read_dir(directory).map_err(disk(list))? {
        let entry = entry.map_err(disk(list))?;
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        if let Some(version) = name.strip_prefix(REPLACED)
            && !directory.join(version).try_exists().map_err(disk(list))?
        {
            rename(&path, &directory.join(version))?;
        } else if name.starts_with(STAGING) || name.starts_with(REPLACED) {
            remove(&path).map_err(disk(|| format!("delete {}", path.display())))?;
        }
    }
    sync_directory(directory)
}
