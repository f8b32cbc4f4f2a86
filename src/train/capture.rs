//! The trainer's state as of one step, as a whole or copied over the steps that follow.
//!
//! Owns the order of the sections, and who encodes what: tables, estimator, histories and corpus,
//! which are nearly all of it, are copied in shares; towers and statistics at once. Histories and
//! corpus are shared by pointer and encoded by whoever writes the checkpoint.

use super::corpus::CapturedCorpus;
use super::counters::Counters;
use super::history::CapturedHistories;

/// The state as of one step.
pub struct Captured {
    /// For the manifest.
    pub counters: Counters,
    /// Every weight and every row is a number. What is not must never replace what is.
    pub finite: bool,
    /// Name and bytes of the sections that are encoded.
    pub(super) sections: Vec<(String, Vec<u8>)>,
    pub(super) histories: CapturedHistories,
    pub(super) corpus: CapturedCorpus,
}

/// A capture under way: each part is `None` until it is complete.
pub(super) struct Capturing {
    pub(super) counters: Counters,
    /// All that is known of it so far.
    pub(super) finite: bool,
    pub(super) model: Vec<(String, Vec<u8>)>,
    pub(super) objective: Vec<(String, Vec<u8>)>,
    pub(super) window: Vec<u8>,
    pub(super) frequency: Option<Vec<u8>>,
    /// By table.
    pub(super) tables: Vec<Option<Vec<u8>>>,
    pub(super) histories: Option<CapturedHistories>,
    pub(super) corpus: Option<CapturedCorpus>,
}

impl Captured {
    /// Name and bytes of every section. Work for another thread than the trainer's: a million
    /// histories take a second.
    pub fn into_sections(self) -> Vec<(String, Vec<u8>)> {
        let mut sections = self.sections;
        sections.push(("histories".into(), self.histories.to_bytes()));
        sections.push(("corpus".into(), self.corpus.to_bytes()));
        sections
    }
}

impl Capturing {
    pub(super) fn is_complete(&self) -> bool {
        self.frequency.is_some()
            && self.tables.iter().all(Option::is_some)
            && self.histories.is_some()
            && self.corpus.is_some()
    }
}
