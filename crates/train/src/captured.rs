//! The state as of one step, at once or copied over the steps that follow.
//!
//! Owns who encodes what: tables, estimator, histories and corpus, which
//! are nearly all of it, are copied in shares; all else at once. Histories and corpus are shared by
//! pointer and encoded by whoever writes the checkpoint.

use crate::capture::Capture;
use crate::memory::copying::CAPTURE_POINTERS_A_STEP;
use crate::memory::corpus::CapturedCorpus;
use crate::memory::history::CapturedHistories;
use crate::model::section_of_table;
use crate::progress::Progress;
use crate::state::State;
use crate::table::CAPTURE_BLOCKS_A_STEP;

/// The state as of one step.
pub struct Captured {
    /// For the manifest.
    pub progress: Progress,
    /// Every weight and every row is a number. What is not must never replace what is.
    pub finite: bool,
    /// Name and bytes of the sections that are encoded.
    sections: Vec<(String, Vec<u8>)>,
    histories: CapturedHistories,
    corpus: CapturedCorpus,
}

impl Captured {
    /// `state` as it is now, all of it at once.
    pub(crate) fn whole(state: &State) -> Self {
        let mut sections = state.model.small_sections();
        sections.push(("frequency".to_owned(), state.frequency.save()));
        sections.extend(state.column_sections());
        for (name, table) in state.model.encoder.tables.iter().zip(&state.model.tables) {
            sections.push((section_of_table(name), table.save()));
        }
        Self {
            progress: state.progress.clone(),
            finite: state.model.is_finite(),
            sections,
            histories: state.histories.capture(),
            corpus: state.corpus.capture(),
        }
    }

    /// Name and bytes of every section. Work for another thread than the trainer's: a million
    /// histories take a second.
    pub fn into_sections(self) -> Vec<(String, Vec<u8>)> {
        let mut sections = self.sections;
        sections.push(("histories".to_owned(), self.histories.save()));
        sections.push(("corpus".to_owned(), self.corpus.save()));
        sections
    }
}

/// A copy of the state under way: each part is `None` until it is complete.
pub(crate) struct Capturing {
    progress: Progress,
    /// All that is known of it so far.
    finite: bool,
    model: Vec<(String, Vec<u8>)>,
    columns: Vec<(String, Vec<u8>)>,
    frequency: Option<Vec<u8>>,
    /// By table.
    tables: Vec<Option<Vec<u8>>>,
    histories: Option<CapturedHistories>,
    corpus: Option<CapturedCorpus>,
}

impl Capturing {
    /// Begins to copy `state` as it is now.
    pub(crate) fn begin(state: &mut State) -> Self {
        state.frequency.begin_capture();
        state.model.tables.iter_mut().for_each(Capture::begin_capture);
        state.histories.begin_capture();
        state.corpus.begin_capture();
        Self {
            progress: state.progress.clone(),
            finite: state.model.towers.is_finite(),
            model: state.model.small_sections(),
            columns: state.column_sections(),
            frequency: None,
            tables: vec![None; state.model.tables.len()],
            histories: None,
            corpus: None,
        }
    }

    /// Copies a step's share of `state`. Whether the copy is complete.
    pub(crate) fn advance(&mut self, state: &mut State) -> bool {
        let mut blocks = CAPTURE_BLOCKS_A_STEP;
        let mut pointers = CAPTURE_POINTERS_A_STEP;
        advance(&mut state.frequency, &mut self.frequency, &mut blocks);
        for (table, copy) in state.model.tables.iter_mut().zip(&mut self.tables) {
            advance(table, copy, &mut blocks);
            self.finite &= table.captured_finite();
        }
        advance(&mut state.histories, &mut self.histories, &mut pointers);
        advance(&mut state.corpus, &mut self.corpus, &mut pointers);
        self.frequency.is_some()
            && self.tables.iter().all(Option::is_some)
            && self.histories.is_some()
            && self.corpus.is_some()
    }

    /// The copy, if it is complete; `tables` are the tables' names.
    pub(crate) fn finish(self, tables: &[String]) -> Option<Captured> {
        let mut sections = self.model;
        sections.push(("frequency".to_owned(), self.frequency?));
        sections.extend(self.columns);
        for (name, bytes) in tables.iter().zip(self.tables) {
            sections.push((section_of_table(name), bytes?));
        }
        Some(Captured {
            progress: self.progress,
            finite: self.finite,
            sections,
            histories: self.histories?,
            corpus: self.corpus?,
        })
    }

    /// Gives the copy up.
    pub(crate) fn cancel(self, state: &mut State) {
        state.frequency.cancel_capture();
        state.model.tables.iter_mut().for_each(Capture::cancel_capture);
        state.histories.cancel_capture();
        state.corpus.cancel_capture();
    }
}

/// Goes on with the copy of `part` unless it is complete.
fn advance<Part: Capture>(part: &mut Part, copy: &mut Option<Part::Copy>, share: &mut usize) {
    if copy.is_none() {
        *copy = part.advance_capture(share);
    }
}
