//! Directories of checkpoints: their names, who may read them, and when they are durable.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::STEP_DIGITS;
use super::error::{Result, disk};

/// A checkpoint holds what people did: it is for the user who trains, as a key file is.
pub(super) const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// Creates the directory of checkpoints. Its parents get the mode that the user's umask gives them,
/// and one that is there keeps its own: it may be somebody's mount. All names are made durable:
/// after a power cut a directory that is gone looks like one that never was.
pub(super) fn create_root(directory: &Path) -> io::Result<()> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    let created = match parent {
        Some(parent) if !parent.is_dir() => {
            create_parents(parent)?;
            create_directory(directory)
        }
        _ => create_directory(directory),
    };
    match created {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        created => created.and_then(|()| sync_name(directory)),
    }
}

fn create_parents(directory: &Path) -> io::Result<()> {
    if let Some(parent) = directory.parent()
        && !parent.as_os_str().is_empty()
        && !parent.is_dir()
    {
        create_parents(parent)?;
    }
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        created => created.and_then(|()| sync_name(directory)),
    }
}

/// Makes the name of `directory` durable, in the directory above.
fn sync_name(directory: &Path) -> io::Result<()> {
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

pub(super) fn create_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path)
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(disk(|| format!("rename {} to {}", from.display(), to.display())))
}

/// Deletes a directory with all it holds, if it exists.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes the names in `directory` durable: a rename that was not synced may be undone by a crash.
pub(super) fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(disk(|| format!("sync directory {}", directory.display())))
}

/// The checkpoints in `directory`, good or not, by ascending step. None if it does not exist.
pub(super) fn list(directory: &Path) -> Result<Vec<(u64, PathBuf)>> {
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

/// The name of the checkpoint of `step`.
pub(super) fn directory_name(step: u64) -> String {
    format!("{step:0STEP_DIGITS$}")
}
