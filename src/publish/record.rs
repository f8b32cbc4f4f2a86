//! The records of a version, as they stand on the topics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

/// Value of an item's record, in the format `flat` with the vector in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ItemVector {
    /// The item's id as the source wrote it.
    pub id: String,
    /// The checkpoint's id.
    pub version: String,
    /// Its step.
    pub step: u64,
    /// Time of the newest event it was trained on, ms since 1970; one ahead counts as the present.
    pub event_time_ms: i64,
    /// Natural logarithm of the item's estimated frequency (expected occurrences a batch). Score of
    /// a query vector of the same version: `dot / temperature + popularity * log_q`, the constants
    /// being those of the marker.
    pub log_q: f32,
    /// L2-normalised.
    pub vector: Vec<f32>,
}

/// Value of a version's end marker; its key is the version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionMarker {
    /// The checkpoint's id: its run and its step.
    pub version: String,
    /// Names the run that began from nothing and led here.
    pub run: String,
    /// When that run began, ms since 1970; none: nobody wrote it down.
    pub began_ms: Option<i64>,
    /// The checkpoint's step.
    pub step: u64,
    /// Time of the newest event it was trained on, ms since 1970.
    pub event_time_ms: i64,
    /// Events it was trained on.
    pub events: u64,
    /// Items of this version that have a vector.
    pub vectors: u64,
    /// Vectors among its records; the others stand as they were sent before.
    pub sent: u64,
    /// Tombstones among its records.
    pub tombstones: u64,
    /// Whether all its vectors are among its records.
    pub full: bool,
    /// No vector that was not sent is further than this from the version's own, by cosine distance.
    pub moved_max: f32,
    /// `publish.format` of its records.
    pub format: String,
    /// `publish.vector` of its records.
    pub vector: String,
    /// Width of a vector.
    pub dim: usize,
    /// Divides the dot products.
    pub temperature: f32,
    /// Weight of log q (`retrieval.popularity`).
    pub popularity: f32,
    /// Topic of the vectors.
    pub topic: String,
    /// Where its records lie on that topic: of each partition the first offset, and the one after
    /// the last.
    pub offsets: BTreeMap<i32, (i64, i64)>,
    /// Digest of its records, in hex.
    pub digest: String,
    /// The version before it on the topic.
    pub previous: Option<String>,
    /// Digest of the state that it was made from, in hex.
    pub state_digest: String,
    /// The bundle of this version; without `artifact.directory` the checkpoint. Both hold the query
    /// tower, its tables and the histories.
    pub artifact: String,
    /// xxh3-128 of the bundle's `spec.json`, which holds those of the other files; of a checkpoint
    /// the digest of its state. In hex.
    pub artifact_digest: String,
}

impl VersionMarker {
    /// From the value of a record.
    ///
    /// # Errors
    /// Something else than a marker.
    pub(super) fn read(value: &[u8]) -> serde_json::Result<VersionMarker> {
        let mut marker: VersionMarker = serde_json::from_slice(value)?;
        // Markers did not name their run, which its versions begin with.
        if marker.run.is_empty()
            && let Some((run, _)) = marker.version.split_once('-')
        {
            marker.run = run.to_owned();
        }
        Ok(marker)
    }
}

/// Of any number of records, in any order: the sum of xxh3-64 of each one's key, a zero byte and
/// its value, modulo 2^64; a tombstone is its key alone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn add(&mut self, key: &[u8], value: Option<&[u8]>) {
        let mut hash = Xxh3::new();
        hash.update(key);
        if let Some(value) = value {
            hash.update(&[0]);
            hash.update(value);
        }
        self.0 = self.0.wrapping_add(hash.digest());
    }

    pub(super) fn hex(self) -> String {
        format!("{:016x}", self.0)
    }
}
