//! The protocol by which a part of the state is copied while training goes on.
//!
//! A capture begins between two steps. Over the steps that follow the copy is handed out a piece at
//! a time, as the part was at the beginning; what changes before its turn is kept. The capture ends
//! when its receiver says whether the copy is durable: if not, what has changed since the last
//! durable one still counts as changed.

/// How much of a part a capture hands out to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// What has changed since the last durable capture.
    Changed,
}

/// The next bytes of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The section's name.
    pub section: String,
    /// What the section holds, changed or not: its checksum is that of all pieces.
    pub content: Vec<u8>,
    /// The bytes to write in place of the content, where the section is an increment: all of its
    /// pieces have them, or none.
    pub increment: Option<Vec<u8>>,
}

/// A part of the state that is copied as it is at one step, while training goes on.
pub(crate) trait Capture {
    /// What a turn hands out.
    type Copy;

    /// Begins to copy what there is now.
    ///
    /// # Panics
    /// If a capture is under way.
    fn begin_capture(&mut self, extent: Extent);

    /// The next of the copy, as the part was at the beginning. Takes what it costs off `share`, in
    /// the part's own unit; `None` if the share does not suffice or if all is copied.
    fn advance_capture(&mut self, share: &mut usize) -> Option<Self::Copy>;

    /// Whether nothing is left to copy.
    fn is_copied(&self) -> bool;

    /// Ends the capture, complete or not. `durable`: the next one may build upon it.
    fn settle_capture(&mut self, durable: bool);
}
