//! The state as of one step, at once or handed out over the steps that follow.
//!
//! Owns who encodes what, and the order of the sections. Tables and estimator are handed out in
//! blocks, so that no copy of them is ever whole; histories and corpus are shared by pointer and
//! encoded by whoever takes them; all else is small and copied at once.

use std::collections::VecDeque;

use crate::capture::{Capture, Extent, Piece};
use crate::memory::catalogue::{CapturedCatalogue, Catalogue};
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
    catalogues: Vec<CapturedCatalogue>,
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
            catalogues: state.catalogues.iter().map(Catalogue::capture).collect(),
        }
    }

    /// Name and bytes of every section. Work for another thread than the trainer's: a million
    /// histories take a second.
    pub fn into_sections(self) -> Vec<(String, Vec<u8>)> {
        let mut sections = self.sections;
        sections.push(("histories".to_owned(), self.histories.save()));
        sections.push(("corpus".to_owned(), self.corpus.save()));
        let catalogues = self.catalogues.into_iter();
        sections.extend(catalogues.map(|one| (one.section().to_owned(), one.save())));
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

/// Part of the state as of one step. They come in the order of the sections.
#[derive(Debug)]
pub struct CapturedPart(Part);

#[derive(Debug)]
enum Part {
    Piece(Piece),
    Histories(CapturedHistories),
    Corpus(CapturedCorpus),
    Catalogue(CapturedCatalogue),
}

impl CapturedPart {
    /// Hands its pieces to `take`. Work for another thread than the trainer's: a million histories
    /// take a second.
    ///
    /// # Errors
    /// The first of `take`.
    pub fn pieces<E>(self, take: &mut dyn FnMut(Piece) -> Result<(), E>) -> Result<(), E> {
        match self.0 {
            Part::Piece(piece) => take(piece),
            Part::Histories(histories) => histories.pieces(take),
            Part::Corpus(corpus) => corpus.pieces(take),
            Part::Catalogue(catalogue) => catalogue.pieces(take),
        }
    }
}

/// What has changed in the rows and slots of a state since its last durable capture, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Bytes of an increment.
    pub changed: u64,
    /// Bytes of all rows and slots.
    pub whole: u64,
}

impl Change {
    pub(crate) fn of(state: &State) -> Self {
        let tables = state.model.tables.iter().map(Table::changed_bytes);
        tables.chain([state.frequency.changed_bytes()]).fold(
            Self::default(),
            |sum, (changed, whole)| Self {
                changed: sum.changed + changed as u64,
                whole: sum.whole + whole as u64,
            },
        )
    }
}

/// A section that is not handed out yet.
enum Source {
    Small(String, Vec<u8>),
    Frequency,
    Table(usize),
    Histories,
    Corpus,
    /// By its place among them.
    Catalogue(usize),
}

/// A copy of the state under way.
pub(crate) struct Capturing {
    /// In the order of the sections.
    sources: VecDeque<Source>,
    /// All that is known of it so far.
    finite: bool,
    histories: Option<CapturedHistories>,
    corpus: Option<CapturedCorpus>,
    catalogues: Vec<Option<CapturedCatalogue>>,
}

impl Capturing {
    /// Begins to copy `state` as it is now.
    pub(crate) fn begin(state: &mut State, extent: Extent) -> Self {
        state.frequency.begin_capture(extent);
        state.model.tables.iter_mut().for_each(|table| table.begin_capture(extent));
        state.histories.begin_capture(extent);
        state.corpus.begin_capture(extent);
        state.catalogues.iter_mut().for_each(|catalogue| catalogue.begin_capture(extent));
        let Small { model, columns } = Small::of(state);
        let small = |(name, bytes)| Source::Small(name, bytes);
        let mut sources: VecDeque<Source> = model.into_iter().map(small).collect();
        sources.push_back(Source::Frequency);
        sources.extend(columns.into_iter().map(small));
        sources.extend((0..state.model.tables.len()).map(Source::Table));
        sources.extend([Source::Histories, Source::Corpus]);
        sources.extend((0..state.catalogues.len()).map(Source::Catalogue));
        let finite = state.model.towers.is_finite();
        let catalogues = state.catalogues.iter().map(|_| None).collect();
        Self { sources, finite, histories: None, corpus: None, catalogues }
    }

    /// Copies a step's share of `state`, and hands out at most `room` parts.
    pub(crate) fn advance(&mut self, state: &mut State, room: usize) -> Vec<CapturedPart> {
        let mut blocks = CAPTURE_BLOCKS_A_STEP;
        let mut pointers = CAPTURE_POINTERS_A_STEP;
        if !state.histories.is_copied() {
            self.histories = state.histories.advance_capture(&mut pointers);
        }
        if !state.corpus.is_copied() {
            self.corpus = state.corpus.advance_capture(&mut pointers);
        }
        for (copy, catalogue) in self.catalogues.iter_mut().zip(&mut state.catalogues) {
            if !catalogue.is_copied() {
                *copy = catalogue.advance_capture(&mut pointers);
            }
        }
        let mut parts = Vec::new();
        while parts.len() < room {
            match self.next(state, &mut blocks) {
                Turn::Part(part) => parts.push(CapturedPart(part)),
                Turn::Section => drop(self.sources.pop_front()),
                Turn::Later => break,
            }
        }
        parts
    }

    fn next(&mut self, state: &mut State, blocks: &mut usize) -> Turn {
        let Some(source) = self.sources.front_mut() else { return Turn::Later };
        match source {
            Source::Small(name, bytes) => {
                let (section, content) = (std::mem::take(name), std::mem::take(bytes));
                self.sources.pop_front();
                Turn::Part(Part::Piece(Piece { section, content, increment: None }))
            }
            Source::Frequency => {
                next_block(&mut state.frequency, blocks, || "frequency".to_owned())
            }
            Source::Table(at) => {
                let name = &state.model.encoder.tables[*at];
                let table = &mut state.model.tables[*at];
                let turn = next_block(table, blocks, || section_of_table(name));
                self.finite &= table.captured_finite();
                turn
            }
            Source::Histories => match self.histories.take() {
                Some(histories) => {
                    self.sources.pop_front();
                    Turn::Part(Part::Histories(histories))
                }
                None => Turn::Later,
            },
            Source::Corpus => match self.corpus.take() {
                Some(corpus) => {
                    self.sources.pop_front();
                    Turn::Part(Part::Corpus(corpus))
                }
                None => Turn::Later,
            },
            Source::Catalogue(at) => match self.catalogues[*at].take() {
                Some(catalogue) => {
                    self.sources.pop_front();
                    Turn::Part(Part::Catalogue(catalogue))
                }
                None => Turn::Later,
            },
        }
    }

    /// Whether all is handed out.
    pub(crate) fn is_complete(&self) -> bool {
        self.sources.is_empty()
    }

    /// Whether every weight and row handed out so far is a number.
    pub(crate) fn finite(&self) -> bool {
        self.finite
    }
}

/// What a turn came to.
enum Turn {
    Part(Part),
    /// The section has ended.
    Section,
    /// The share is used up.
    Later,
}

/// The next piece of a part that is copied in blocks.
fn next_block<P>(part: &mut P, blocks: &mut usize, section: impl Fn() -> String) -> Turn
where
    P: Capture<Copy = (Vec<u8>, Option<Vec<u8>>)>,
{
    match part.advance_capture(blocks) {
        Some((content, increment)) => {
            Turn::Part(Part::Piece(Piece { section: section(), content, increment }))
        }
        None if part.is_copied() => Turn::Section,
        None => Turn::Later,
    }
}

/// Ends the capture of `state`.
pub(crate) fn settle(state: &mut State, durable: bool) {
    state.frequency.settle_capture(durable);
    state.model.tables.iter_mut().for_each(|table| table.settle_capture(durable));
    state.histories.settle_capture(durable);
    state.corpus.settle_capture(durable);
    state.catalogues.iter_mut().for_each(|catalogue| catalogue.settle_capture(durable));
}

/// Bytes that are kept because they changed while a copy is under way.
pub(crate) fn kept_bytes(state: &State) -> usize {
    let tables = state.model.tables.iter().map(Table::kept_bytes);
    tables.sum::<usize>() + state.frequency.kept_bytes()
}
