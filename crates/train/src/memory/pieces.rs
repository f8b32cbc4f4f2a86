//! A long section is encoded a piece at a time.

use serde::Serialize;

use crate::capture::Piece;

/// Bytes of a piece: large enough to make a write cheap, small beside a table.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes of a section that wait to be handed out, as postcard has them.
pub(super) struct Pieces<'a, E> {
    section: &'static str,
    take: &'a mut dyn FnMut(Piece) -> Result<(), E>,
    content: Vec<u8>,
    increment: Option<Vec<u8>>,
}

impl<'a, E> Pieces<'a, E> {
    /// Pieces of `section`, handed to `take`; `changed`: they are of an increment.
    pub(super) fn new(
        section: &'static str,
        changed: bool,
        take: &'a mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Self {
        Self { section, take, content: Vec::new(), increment: changed.then(Vec::new) }
    }

    /// Appends to what the section holds.
    pub(super) fn content(&mut self, value: &impl Serialize) {
        append(&mut self.content, value);
    }

    /// Appends to the increment, if there is one.
    pub(super) fn increment(&mut self, value: &impl Serialize) {
        if let Some(increment) = &mut self.increment {
            append(increment, value);
        }
    }

    /// Hands out what waits, if it is a piece's worth.
    pub(super) fn turn(&mut self) -> Result<(), E> {
        if self.content.len() < PIECE_BYTES {
            return Ok(());
        }
        self.hand_out()
    }

    /// Hands out the rest.
    pub(super) fn finish(mut self) -> Result<(), E> {
        self.hand_out()
    }

    fn hand_out(&mut self) -> Result<(), E> {
        let content = std::mem::take(&mut self.content);
        let increment = self.increment.as_mut().map(std::mem::take);
        (self.take)(Piece { section: self.section.to_owned(), content, increment })
    }
}

fn append(bytes: &mut Vec<u8>, value: &impl Serialize) {
    let all = postcard::to_extend(value, std::mem::take(bytes));
    *bytes = all.expect("plain numbers and texts encode");
}
