//! What of a trainer's state is copied for a checkpoint, over the steps that follow.
//!
//! Must never know: where the copies go.

use super::Trainer;
use crate::capture::Extent;
use crate::captured::{Captured, CapturedPart, Capturing, Change, kept_bytes, settle};

impl Trainer {
    /// The state as it is now, all of it at once.
    pub fn capture(&self) -> Captured {
        Captured::whole(&self.state)
    }

    /// Begins to copy the state as it is now; [`advance_capture`](Self::advance_capture) after each
    /// of the following steps goes on with it. With [`Extent::Changed`] what is handed out to be
    /// written builds upon the last capture that was durable, or upon the checkpoint that the state
    /// comes from.
    ///
    /// # Panics
    /// If a capture is not settled.
    pub fn begin_capture(&mut self, extent: Extent) {
        assert!(self.capture.is_none(), "one capture at a time");
        self.capture = Some(Capturing::begin(&mut self.state, extent));
    }

    /// Copies a step's share, and hands out at most `room` parts of it.
    pub fn advance_capture(&mut self, room: usize) -> Vec<CapturedPart> {
        match &mut self.capture {
            Some(capture) => capture.advance(&mut self.state, room),
            None => Vec::new(),
        }
    }

    /// Whether there is more of a copy to hand out.
    pub fn is_capturing(&self) -> bool {
        self.capture.as_ref().is_some_and(|capture| !capture.is_complete())
    }

    /// Whether every weight and every row is a number, as far as they were handed out. What is not
    /// must never replace what is.
    pub fn captured_finite(&self) -> bool {
        self.capture.as_ref().is_none_or(Capturing::finite)
    }

    /// Ends a capture, complete or not. `durable`: all of it was written, and the next one may
    /// build upon it; otherwise what had changed still counts as changed.
    pub fn settle_capture(&mut self, durable: bool) {
        if self.capture.take().is_some() {
            settle(&mut self.state, durable);
        }
    }

    /// How much has changed since the last durable capture.
    pub fn change(&self) -> Change {
        Change::of(&self.state)
    }

    /// Bytes of memory that a capture under way has cost so far: rows that changed before their
    /// turn.
    pub fn kept_bytes(&self) -> usize {
        kept_bytes(&self.state)
    }
}
