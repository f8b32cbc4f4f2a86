//! The trainer's state as it is between two steps, at once or copied over the steps that follow.

use super::super::capture::{Captured, Capturing};
use super::super::copying::CAPTURE_POINTERS_A_STEP;
use super::super::embedding::CAPTURE_BLOCKS_A_STEP;
use super::super::model::section_of_table;
use super::Trainer;

impl Trainer {
    /// The state as it is now, all of it at once.
    pub fn capture(&self) -> Captured {
        let mut sections = self.model.small_sections();
        let mut frequency = Vec::new();
        self.frequency.write_to(&mut frequency);
        sections.push(("frequency".into(), frequency));
        sections.extend(self.objective.sections());
        sections.push(("window".into(), self.window.to_bytes()));
        for (table, name) in self.model.tables.iter().zip(&self.model.encoder.tables) {
            let mut bytes = Vec::new();
            table.write_to(&mut bytes);
            sections.push((section_of_table(name), bytes));
        }
        Captured {
            counters: self.counters(),
            finite: self.model.is_finite(),
            sections,
            histories: self.histories.capture(),
            corpus: self.corpus.capture(),
        }
    }

    /// Begins to copy the state as it is now; [`advance_capture`](Self::advance_capture) after each
    /// of the following steps goes on with it. Panics if a copy is under way.
    pub fn begin_capture(&mut self) {
        self.frequency.begin_capture();
        self.model.tables.iter_mut().for_each(|table| table.begin_capture());
        self.histories.begin_capture();
        self.corpus.begin_capture();
        self.capturing = Some(Capturing {
            counters: self.counters(),
            finite: self.model.towers.is_finite(),
            model: self.model.small_sections(),
            objective: self.objective.sections(),
            window: self.window.to_bytes(),
            frequency: None,
            tables: vec![None; self.model.tables.len()],
            histories: None,
            corpus: None,
        });
    }

    /// Copies a step's share; the state as of the beginning once it is complete.
    pub fn advance_capture(&mut self) -> Option<Captured> {
        let capturing = self.capturing.as_mut()?;
        let (mut blocks, mut pointers) = (CAPTURE_BLOCKS_A_STEP, CAPTURE_POINTERS_A_STEP);
        if capturing.frequency.is_none() {
            capturing.frequency = self.frequency.advance_capture(&mut blocks);
        }
        for (table, bytes) in self.model.tables.iter_mut().zip(&mut capturing.tables) {
            if bytes.is_none() {
                *bytes = table.advance_capture(&mut blocks);
                capturing.finite &= table.captured_finite();
            }
        }
        if capturing.histories.is_none() {
            capturing.histories = self.histories.advance_capture(&mut pointers);
        }
        if capturing.corpus.is_none() {
            capturing.corpus = self.corpus.advance_capture(&mut pointers);
        }
        if !capturing.is_complete() {
            return None;
        }
        let whole = self.capturing.take()?;
        let mut sections = whole.model;
        sections.push(("frequency".into(), whole.frequency?));
        sections.extend(whole.objective);
        sections.push(("window".into(), whole.window));
        let names = self.model.encoder.tables.iter().map(|name| section_of_table(name));
        sections.extend(names.zip(whole.tables.into_iter().flatten()));
        let (histories, corpus) = (whole.histories?, whole.corpus?);
        let Capturing { counters, finite, .. } = whole;
        Some(Captured { counters, finite, sections, histories, corpus })
    }

    /// Gives up a copy that is under way.
    pub fn cancel_capture(&mut self) {
        self.frequency.cancel_capture();
        self.model.tables.iter_mut().for_each(|table| table.cancel_capture());
        self.histories.cancel_capture();
        self.corpus.cancel_capture();
        self.capturing = None;
    }

    /// Whether a copy is under way.
    pub fn is_capturing(&self) -> bool {
        self.capturing.is_some()
    }
}
