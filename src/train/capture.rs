//! The trainer's state as of one step, as a whole or copied over the steps that follow.
//!
//! Owns the order of the sections, and who encodes what: the tables, which are nearly all of it, are
//! copied in shares (see [`super::embedding`]); towers, statistics and estimator at once; histories
//! and corpus are shared by pointer and encoded by whoever writes the checkpoint.

use super::embedding::CAPTURE_BLOCKS_A_STEP;
use super::history::CapturedHistories;
use super::model::section_of_table;
use super::trainer::{Counters, Trainer};
use crate::corpus::CapturedCorpus;

/// The state as of one step.
pub struct Captured {
    /// For the manifest.
    pub counters: Counters,
    /// Name and bytes of the sections that are encoded.
    sections: Vec<(String, Vec<u8>)>,
    histories: CapturedHistories,
    corpus: CapturedCorpus,
}

/// A capture whose tables are still being copied.
pub(super) struct Capturing {
    captured: Captured,
    /// By table; `None` until it is complete.
    tables: Vec<Option<Vec<u8>>>,
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

impl Trainer {
    /// The state as it is now, all of it at once.
    pub fn capture(&self) -> Captured {
        let mut captured = self.without_tables();
        for (table, name) in self.model.tables.iter().zip(&self.model.encoder.tables) {
            let mut bytes = Vec::new();
            table.write_to(&mut bytes);
            captured.sections.push((section_of_table(name), bytes));
        }
        captured
    }

    /// Begins to copy the state as it is now; [`advance_capture`](Self::advance_capture) after each
    /// of the following steps goes on with it. Panics if a copy is under way.
    pub fn begin_capture(&mut self) {
        self.model.tables.iter_mut().for_each(|table| table.begin_capture());
        let tables = vec![None; self.model.tables.len()];
        self.capturing = Some(Capturing { captured: self.without_tables(), tables });
    }

    /// Copies a step's share; the state as of the beginning once it is complete.
    pub fn advance_capture(&mut self) -> Option<Captured> {
        let capturing = self.capturing.as_mut()?;
        let mut blocks = CAPTURE_BLOCKS_A_STEP;
        for (table, bytes) in self.model.tables.iter_mut().zip(&mut capturing.tables) {
            if bytes.is_none() {
                *bytes = table.advance_capture(&mut blocks);
            }
        }
        if capturing.tables.iter().any(Option::is_none) {
            return None;
        }
        let Capturing { mut captured, tables } = self.capturing.take()?;
        let names = self.model.encoder.tables.iter().map(|name| section_of_table(name));
        captured.sections.extend(names.zip(tables.into_iter().flatten()));
        Some(captured)
    }

    /// Gives up a copy that is under way.
    pub fn cancel_capture(&mut self) {
        self.model.tables.iter_mut().for_each(|table| table.cancel_capture());
        self.capturing = None;
    }

    /// Whether a copy is under way.
    pub fn is_capturing(&self) -> bool {
        self.capturing.is_some()
    }

    fn without_tables(&self) -> Captured {
        let mut frequency = Vec::new();
        self.frequency.write_to(&mut frequency);
        let mut sections = self.model.small_sections();
        sections.push(("frequency".into(), frequency));
        sections.extend(self.objective.sections());
        Captured {
            counters: self.counters(),
            sections,
            histories: self.histories.capture(),
            corpus: self.corpus.capture(),
        }
    }
}
