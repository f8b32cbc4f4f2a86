//! A version as files that need nothing of this program: arrays, what they mean, the query tower.
//!
//! Owns what a bundle holds, and that a directory with a bundle's name is whole: it is written
//! beside and renamed. `docs/reference/artifact.md` has twenty lines that read one.
//!
//! Must never know: the live trainer, a topic that is written to.

mod examples;
#[cfg(feature = "onnx")]
mod onnx;
mod spec;
mod tensors;

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, anyhow, bail, ensure};

use crate::checkpoint::{Checkpoint, Sum};
use crate::config::Config;
use crate::sections;
use millrace_train::{ItemSide, QuerySide};
use spec::{Content, FileSum};

const TENSORS: &str = "model.safetensors";
#[cfg(feature = "onnx")]
const TOWER: &str = "query_tower.onnx";
const SPEC: &str = "spec.json";
/// All of them, the one last that holds the digests of the others.
#[cfg(feature = "onnx")]
const FILES: [&str; 3] = [TENSORS, TOWER, SPEC];
#[cfg(not(feature = "onnx"))]
const FILES: [&str; 2] = [TENSORS, SPEC];
/// Prefix of a bundle that is not whole yet.
const STAGING: &str = ".tmp-";

/// A bundle on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Its directory.
    pub path: PathBuf,
    /// xxh3-128 of `spec.json`, which holds those of the other files, in hex.
    pub digest: String,
    /// All bytes of its files.
    pub bytes: u64,
}

/// Writes the bundle of `checkpoint` to `to`, a directory that is not there or empty. The examples
/// are of the newest records of `log`'s topic; none: made up.
///
/// # Errors
/// A checkpoint that does not load, or a directory that cannot be written or holds something.
pub fn write(checkpoint: &Checkpoint, log: Option<&Config>, to: &Path) -> anyhow::Result<Bundle> {
    let name = to.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} names no directory", to.display()))?;
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty: name a directory that is not there", to.display());
    }
    let parent = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let staging = parent.join(format!("{STAGING}{name}"));
    let cannot = || format!("cannot write {}", staging.display());
    if staging.exists() {
        fs::remove_dir_all(&staging).with_context(cannot)?;
    }
    fs::create_dir_all(&staging).with_context(cannot)?;
    let filled = fill(checkpoint, log, &staging);
    // What is half there is of no use, and the error says more than another one here would.
    let filled = filled.inspect_err(|_| drop(fs::remove_dir_all(&staging)));
    let (digest, bytes) = filled?;
    sync(&staging)?;
    // A directory that is there is empty; without one there is nothing to remove.
    drop(fs::remove_dir(to));
    fs::rename(&staging, to).with_context(|| format!("cannot make {}", to.display()))?;
    sync(parent)?;
    Ok(Bundle { path: to.to_owned(), digest, bytes })
}

/// Writes the bundle of `checkpoint` to a directory of its version's name below `directory`, unless
/// it is there, and deletes what is older than the newest `keep`.
///
/// # Errors
/// As [`write()`].
pub fn keep(
    checkpoint: &Checkpoint,
    log: Option<&Config>,
    directory: &Path,
    keep: usize,
) -> anyhow::Result<Bundle> {
    let to = directory.join(&checkpoint.manifest.version);
    let bundle = match read(&to) {
        Ok(bundle) => bundle,
        Err(_) => {
            if to.exists() {
                fs::remove_dir_all(&to)
                    .with_context(|| format!("cannot replace {}", to.display()))?;
            }
            write(checkpoint, log, &to)?
        }
    };
    let mut there: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path != to
            && let Ok(made) = path.join(SPEC).metadata().and_then(|spec| spec.modified())
        {
            there.push((made, path));
        }
    }
    there.sort();
    let old = there.len().saturating_sub(keep.saturating_sub(1));
    for (_, path) in &there[..old] {
        fs::remove_dir_all(path).with_context(|| format!("cannot delete {}", path.display()))?;
    }
    Ok(bundle)
}

/// The bundle that is at `path`.
fn read(path: &Path) -> anyhow::Result<Bundle> {
    let mut bytes = 0;
    for name in FILES {
        bytes += path.join(name).metadata()?.len();
    }
    Ok(Bundle { path: path.to_owned(), digest: sum(path, SPEC)?.checksum, bytes })
}

/// Fills `directory`; the digest, and bytes.
fn fill(
    checkpoint: &Checkpoint,
    log: Option<&Config>,
    directory: &Path,
) -> anyhow::Result<(String, u64)> {
    let path = checkpoint.path.display();
    let config = Config::from_toml(&checkpoint.config()?)
        .map_err(|faults| anyhow!("the config in {path} is not valid here: {faults}"))?;
    let (train, read) = (config.train(), sections::of(checkpoint));
    let cannot = || format!("cannot load {path}");
    let queries = QuerySide::restore(&train, &read).with_context(cannot)?;
    let items = ItemSide::restore(&train, &queries.model, &read).with_context(cannot)?;
    ensure!(
        !items.is_empty(),
        "{path} holds no item that has a vector: there is nothing to export"
    );
    let tensors = tensors::write(&directory.join(TENSORS), &queries, &items)?;
    #[cfg(feature = "onnx")]
    {
        let tower = onnx::model(queries.model.towers.query_layers(), &checkpoint.manifest.version);
        put(directory, TOWER, &tower)?;
    }
    let others = FILES.iter().filter(|&&name| name != SPEC);
    let files = others.map(|name| sum(directory, name)).collect::<anyhow::Result<Vec<_>>>()?;
    let examples = examples::of(log, &config, &queries, &items);
    let (queries, items, config) = (&queries, &items, &config);
    let content = Content { checkpoint, config, queries, items, tensors, files, examples };
    put(directory, SPEC, spec::text(&content).as_bytes())?;
    let spec = sum(directory, SPEC)?;
    let bytes = content.files.iter().chain([&spec]).map(|file| file.bytes).sum();
    Ok((spec.checksum, bytes))
}

fn put(directory: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let path = directory.join(name);
    let written = File::create(&path).and_then(|mut file| file.write_all(bytes));
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// Length and checksum of a file, once it is on the disk.
fn sum(directory: &Path, name: &'static str) -> anyhow::Result<FileSum> {
    let path = directory.join(name);
    let cannot = || format!("cannot read {}", path.display());
    let mut file = File::open(&path).with_context(cannot)?;
    file.sync_all().with_context(cannot)?;
    let (mut sum, mut buffer) = (Sum::default(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).with_context(cannot)? {
            0 => break,
            read => sum.add(&buffer[..read]),
        }
    }
    let (bytes, checksum) = sum.finish();
    Ok(FileSum { name, bytes, checksum })
}

fn sync(directory: &Path) -> anyhow::Result<()> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("cannot sync {}", directory.display()))
}
