//! The state as of one step, at once or copied over the steps that follow.
//!
//! Owns who encodes what, and the order of the sections. Tables, estimator, histories and corpus,
//! which are nearly all of it, are copied in shares; all else at once. Histories and corpus are
//! shared by pointer and encoded by whoever writes the checkpoint.

use crate::capture::Capture;
use crate::memory::copying::CAPTURE_POINTERS_A_STEP;
use crate::memory::corpus::CapturedCorpus;
use crate::memory::history::CapturedHistories;
use crate::model::{Model, section_of_table};
use crate::progress::Progress;
use crate::state::State;
use crate::table::{CAPTURE_BLOCKS_A_STEP, Table};

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
        let Model { encoder, tables, .. } = &state.model;
        let tables = encoder.tables.iter().zip(tables.iter().map(Table::save));
        Self {
            progress: state.progress.clone(),
            finite: state.model.is_finite(),
            sections: in_order(Small::of(state), state.frequency.save(), tables),
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

/// Name and bytes of the sections that are small enough to be encoded at once.
struct Small {
    model: Vec<(String, Vec<u8>)>,
    columns: Vec<(String, Vec<u8>)>,
}

impl Small {
    fn of(state: &State) -> Self {
        Self { model: state.model.small_sections(), columns: state.column_sections() }
    }
}

/// All sections that are encoded, in the order that a checkpoint's digest takes them in. `tables`
/// are the tables' names and bytes.
fn in_order<'a>(
    small: Small,
    frequency: Vec<u8>,
    tables: impl Iterator<Item = (&'a String, Vec<u8>)>,
) -> Vec<(String, Vec<u8>)> {
    let mut sections = small.model;
    sections.push(("frequency".to_owned(), frequency));
    sections.extend(small.columns);
    sections.extend(tables.map(|(name, bytes)| (section_of_table(name), bytes)));
    sections
}

/// A copy of the state under way: each part is `None` until it is complete.
pub(crate) struct Capturing {
    progress: Progress,
    /// All that is known of it so far.
    finite: bool,
    small: Small,
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
            small: Small::of(state),
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
        let bytes: Option<Vec<Vec<u8>>> = self.tables.into_iter().collect();
        Some(Captured {
            progress: self.progress,
            finite: self.finite,
            sections: in_order(self.small, self.frequency?, tables.iter().zip(bytes?)),
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
