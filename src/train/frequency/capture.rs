//! The estimator's state at one step, copied over many: see [`super::super::embedding`], whose
//! tables do the same.
//!
//! Owns the copy while it grows. What slots held before a later step changed them is kept by the
//! lanes that change them: a log, of which the oldest entry of a slot counts.

use super::state::{slot_bytes, write_slots};
use super::{Frequency, Slot, Slots};

/// Slots to a block, 1 MiB, which is what a block of a table's rows has at 64 dimensions. A step of
/// 8,192 ids under two hashes changes a quarter as many, so that the lanes keep less than that of a
/// large table.
const BLOCK_SLOTS: usize = 1 << 16;

/// See the module's head.
pub(super) struct Capture {
    /// The section so far: header, slots below `copied` (an exact estimator's whole section).
    bytes: Vec<u8>,
    /// Where the slots begin in it.
    slots: usize,
    copied: usize,
    /// What follows the slots.
    rest: Vec<u8>,
}

impl Frequency {
    /// Begins to copy the state as it is now; an exact estimator's at once. Panics if a copy is
    /// under way.
    pub fn begin_capture(&mut self) {
        assert!(self.capture.is_none(), "one capture at a time");
        let (mut bytes, mut rest) = (Vec::new(), Vec::new());
        match &self.table.slots {
            Slots::Hashed(cells) => {
                self.write_header(&mut bytes);
                self.write_rest(&mut rest);
                bytes.reserve(cells.len() * Slot::BYTES + rest.len());
                self.keep_from(0);
            }
            Slots::Exact(_) => self.write_to(&mut bytes),
        }
        self.capture = Some(Capture { slots: bytes.len(), bytes, copied: 0, rest });
    }

    /// Copies up to `blocks` more blocks. What [`write_to`](Self::write_to) would have written at
    /// the beginning, once that is complete, and then no more.
    pub fn advance_capture(&mut self, blocks: &mut usize) -> Option<Vec<u8>> {
        let capture = self.capture.as_mut()?;
        if let Slots::Hashed(cells) = &self.table.slots {
            while *blocks > 0 && capture.copied < cells.len() {
                let end = (capture.copied + BLOCK_SLOTS).min(cells.len());
                write_slots(&cells[capture.copied..end], &mut capture.bytes);
                capture.copied = end;
                *blocks -= 1;
            }
            if capture.copied < cells.len() {
                let copied = capture.copied;
                self.keep_from(copied);
                return None;
            }
        }
        let Capture { mut bytes, slots, rest, .. } = self.capture.take()?;
        for lane in &mut self.lanes {
            for (place, slot) in lane.stop_keeping().into_iter().rev() {
                bytes[slots + place * Slot::BYTES..][..Slot::BYTES]
                    .copy_from_slice(&slot_bytes(slot));
            }
        }
        bytes.extend(rest);
        Some(bytes)
    }

    /// Gives up a copy that is under way.
    pub fn cancel_capture(&mut self) {
        self.capture = None;
        self.lanes.iter_mut().for_each(|lane| drop(lane.stop_keeping()));
    }

    /// Slots from this place on are not copied yet.
    fn keep_from(&mut self, place: usize) {
        self.lanes.iter_mut().for_each(|lane| lane.keep_from = Some(place));
    }
}
