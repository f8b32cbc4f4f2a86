//! The writing side: one trainer's directory of checkpoints.
//!
//! Owns the lock, the order of write, sync and rename, and retention. Must never know what is
//! inside a section.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::error::{CheckpointError, Result, disk};
use super::manifest::{FORMAT, hex, seal};
use super::{CHUNK, CONFIG, Checkpoint, MANIFEST, Manifest, SectionEntry, Snapshot};
use super::{STEP_DIGITS, digest, directory_name, list};

const LOCK: &str = ".lock";
/// Prefix of what is not a checkpoint yet, or no longer: free to delete for the lock's holder.
const STAGING: &str = ".tmp-";
/// Prefix of a checkpoint that makes way for another one of the same step.
const REPLACED: &str = ".old-";
/// A checkpoint holds what people did: it is for the user who trains, as a key file is.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The directory that holds checkpoints, locked for the one trainer that writes them.
///
/// Readers need no lock. Retention does not wait for them either: one that is still busy with a
/// checkpoint when `keep` newer ones have been written gets an error that says so.
pub struct Store {
    directory: PathBuf,
    keep: usize,
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
        Ok(Self { directory: directory.to_owned(), keep, _lock: lock })
    }

    /// Makes `snapshot` durable, then deletes the checkpoints before the newest `keep`.
    ///
    /// Writing a step again is fine: an identical, undamaged checkpoint stays, any other one is
    /// replaced. Takes as long as the disk needs for every byte; not for the trainer's thread.
    ///
    /// # Errors
    /// If a file cannot be written or synced (no space, permissions); the earlier checkpoints are
    /// then untouched. Or if old ones could not be deleted; the new one is then durable.
    pub fn write(&self, snapshot: &Snapshot) -> Result<Checkpoint> {
        let name = directory_name(snapshot.step);
        let staging = self.directory.join(format!("{STAGING}{name}"));
        let written = stage(&staging, snapshot).and_then(|manifest| self.admit(&staging, manifest));
        let checkpoint = written.map_err(|error| {
            // A full disk is the likely cause: half a checkpoint must not keep it full.
            let error = match remove(&staging) {
                Ok(()) => error,
                Err(kept) => error.during(format!("{} stays behind: {kept}", staging.display())),
            };
            error.during(format!(
                "checkpoint {name} was not written to {}, earlier ones are untouched; \
                 check its free space and permissions",
                self.directory.display()
            ))
        })?;
        self.retain(snapshot.step).map_err(|error| {
            error.during(format!(
                "checkpoint {name} is durable, but older ones in {} could not be deleted",
                self.directory.display()
            ))
        })?;
        Ok(checkpoint)
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
                && present.manifest == manifest
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

    /// Deletes what lies before the newest `keep` checkpoints up to the one just `written`.
    ///
    /// One that is visibly damaged does not count as kept, or damage would push out the good ones.
    /// Nor do those after `written`: the trainer started before them, because they are damaged or
    /// somebody wanted it so; what becomes of them is not for retention to decide.
    fn retain(&self, written: u64) -> Result<()> {
        let mut kept = 0;
        for (step, path) in list(&self.directory)?.into_iter().rev() {
            if step > written {
                continue;
            }
            if kept < self.keep {
                let whole = Checkpoint::open(&path).and_then(|checkpoint| checkpoint.measure());
                kept += usize::from(step == written || whole.is_ok());
                continue;
            }
            // Renamed first: a crash in the middle must not leave half a checkpoint to be found.
            let expired = self.directory.join(format!("{STAGING}expired-{}", directory_name(step)));
            rename(&path, &expired)?;
            remove(&expired).map_err(disk(|| format!("delete {}", expired.display())))?;
        }
        Ok(())
    }
}

/// Writes all of `snapshot` into the new directory `staging`, and syncs it.
pub(super) fn stage(staging: &Path, snapshot: &Snapshot) -> Result<Manifest> {
    remove(staging).map_err(disk(|| format!("delete {}", staging.display())))?;
    create_directory(staging).map_err(disk(|| format!("create {}", staging.display())))?;
    let state = snapshot.sections.iter().map(|s| (s.name.as_str(), s.bytes.as_slice(), s.digested));
    let config = (CONFIG, snapshot.config_toml.as_bytes(), false);
    let mut sections: Vec<SectionEntry> = Vec::with_capacity(snapshot.sections.len() + 1);
    for (name, bytes, digested) in state.chain([config]) {
        let taken = name == MANIFEST || sections.iter().any(|entry| entry.name == name);
        if !file_name(name) || taken {
            let reason = format!("{name:?} cannot name a section, or does so already");
            return Err(CheckpointError::Impossible(reason));
        }
        let checksum = write_file(&staging.join(name), bytes)?;
        let (name, length) = (name.to_owned(), bytes.len() as u64);
        sections.push(SectionEntry { name, length, checksum, digested });
    }
    let mut manifest = Manifest {
        format: FORMAT,
        version: format!("{}-{:0STEP_DIGITS$}", snapshot.run, snapshot.step),
        run: snapshot.run.clone(),
        witness: snapshot.witness.clone(),
        step: snapshot.step,
        offsets: snapshot.offsets.clone(),
        pass: snapshot.pass,
        event_time_ms: snapshot.event_time_ms,
        events_trained: snapshot.events_trained,
        events_rejected: snapshot.events_rejected,
        config_digest: snapshot.config_digest.clone(),
        digest: digest(snapshot.step, &snapshot.offsets, &sections),
        sections,
        checksum: String::new(),
    };
    write_file(&staging.join(MANIFEST), seal(&mut manifest).as_bytes())?;
    sync_directory(staging)?;
    Ok(manifest)
}

/// Writes and syncs a new file; returns its checksum. Copies nothing in memory.
fn write_file(path: &Path, bytes: &[u8]) -> Result<String> {
    let mut hasher = Xxh3::new();
    let mut write = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(FILE_MODE).open(path)?;
        for chunk in bytes.chunks(CHUNK) {
            hasher.update(chunk);
            file.write_all(chunk)?;
        }
        file.sync_all()
    };
    write().map_err(disk(|| format!("write {} bytes to {}", bytes.len(), path.display())))?;
    Ok(hex(hasher.digest128()))
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

/// Creates the directory of checkpoints. Its parents get the mode that the user's umask gives them,
/// and one that is there keeps its own: it may be somebody's mount.
fn create_root(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent() {
        fs::create_dir_all(parent)?;
    }
    match create_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        created => created,
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)
}

/// Whether `name` is one plain component of a path on every system.
fn file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(disk(|| format!("rename {} to {}", from.display(), to.display())))
}

/// Deletes a directory with all it holds, if it exists.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes the names in `directory` durable: a rename that was not synced may be undone by a crash.
fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(disk(|| format!("sync directory {}", directory.display())))
}
