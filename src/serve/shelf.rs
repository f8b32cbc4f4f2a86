//! The versions in memory, and the one of them that answers.
//!
//! Readers take one pointer and never wait. Who writes makes another shelf beside and puts it in
//! the place of the old one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::{ArcSwap, Guard};

use super::Version;

/// What was on the shelf at one moment.
#[derive(Clone)]
pub(super) struct Row {
    /// The newest first.
    pub(super) versions: Vec<Arc<Version>>,
    /// The one that answers who names none.
    pub(super) active: Option<Arc<Version>>,
    /// Since when it does.
    pub(super) since: SystemTime,
    /// A person chose it: a newer one does not take its place.
    pub(super) held: bool,
}

impl Default for Row {
    fn default() -> Self {
        Self { versions: Vec::new(), active: None, since: SystemTime::now(), held: false }
    }
}

/// See the module's head.
pub(super) struct Shelf {
    row: ArcSwap<Row>,
    keep: usize,
    /// One writer at a time. Versions that left the shelf wait here until no request uses them, so
    /// that none pays for giving their memory back.
    retired: Mutex<Vec<Arc<Version>>>,
}

/// Stands for the newest version, which is then followed again.
pub(super) const LATEST: &str = "latest";

impl Row {
    /// The version of this id.
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Version>> {
        self.versions.iter().find(|version| version.id == id)
    }

    /// Whether it is the one that answers.
    pub(super) fn is_active(&self, version: &Arc<Version>) -> bool {
        self.active.as_ref().is_some_and(|active| Arc::ptr_eq(active, version))
    }

    /// Ids of all versions, the newest first.
    pub(super) fn ids(&self) -> Vec<String> {
        self.versions.iter().map(|version| version.id.clone()).collect()
    }
}

impl Shelf {
    pub(super) fn new(keep: usize) -> Self {
        Self { row: ArcSwap::default(), keep, retired: Mutex::default() }
    }

    /// What is there now. It stays together while the guard lives.
    pub(super) fn row(&self) -> Guard<Arc<Row>> {
        self.row.load()
    }

    /// Puts a version in front; it answers from now on, unless another one is held.
    pub(super) fn add(&self, version: Version) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let mut row = Row::clone(&self.row());
        row.versions.insert(0, Arc::new(version));
        if !row.held {
            row.active = row.versions.first().cloned();
            row.since = SystemTime::now();
        }
        for (place, version) in std::mem::take(&mut row.versions).into_iter().enumerate() {
            let stays = place < self.keep || row.is_active(&version);
            if stays { &mut row.versions } else { &mut *retired }.push(version);
        }
        self.row.store(Arc::new(row));
    }

    /// Makes the version of this id answer, or [`LATEST`]; that version's id, if it is there.
    pub(super) fn activate(&self, id: &str) -> Option<String> {
        let _writer = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let mut row = Row::clone(&self.row());
        let chosen = match id {
            LATEST => row.versions.first(),
            id => row.get(id),
        };
        let chosen = Arc::clone(chosen?);
        row.held = id != LATEST;
        let id = chosen.id.clone();
        row.active = Some(chosen);
        row.since = SystemTime::now();
        self.row.store(Arc::new(row));
        Some(id)
    }

    /// Versions in memory: what is on the shelf, and what has left it and is in use.
    pub(super) fn in_memory(&self) -> usize {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        self.row().versions.len() + retired.len()
    }

    /// Gives back the memory of versions that nobody uses any more.
    pub(super) fn clear(&self) {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.retain(|version| Arc::strong_count(version) > 1);
    }
}
