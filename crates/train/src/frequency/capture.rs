//! The estimator's state at one step, copied over many: see [`crate::table`], whose
//! tables do the same.
//!
//! Owns the copy while it grows. What slots held before a later step changed them is kept by the
//! lanes that change them: a log, of which the oldest entry of a slot counts.

use super::{Frequency, Slot, Slots};
use crate::capture::Capture;
use crate::frequency::codec::{slot_bytes, write_slots};

/// Slots to a block, 1 MiB, which is what a block of a table's rows has at 64 dimensions. A step of
/// 8,192 ids under two hashes changes a quarter as many, so that the lanes keep less than that of a
/// large table.
const BLOCK_SLOTS: usize = 1 << 16;

/// A copy of an estimator that is under way.
pub(super) struct FrequencyCopy {
    /// The section so far: header, slots below `copied` (an exact estimator's whole section).
    bytes: Vec<u8>,
    /// Where the slots begin in it.
    slots: usize,
    copied: usize,
    /// What follows the slots.
    rest: Vec<u8>,
}

/// The share is in blocks of slots, the copy is the estimator's section. An exact estimator is
/// copied at once.
impl Capture for Frequency {
    type Copy = Vec<u8>;

    fn begin_capture(&mut self) {
        assert!(self.capture.is_none(), "one capture at a time");
        let (mut bytes, mut rest) = (Vec::new(), Vec::new());
        match &self.table.slots {
            Slots::Hashed(cells) => {
                self.write_header(&mut bytes);
                self.write_rest(&mut rest);
                bytes.reserve(cells.len() * Slot::BYTES + rest.len());
                self.keep_from(0);
            }
            Slots::Exact(_) => bytes = self.save(),
        }
        self.capture = Some(FrequencyCopy { slots: bytes.len(), bytes, copied: 0, rest });
    }

    fn advance_capture(&mut self, share: &mut usize) -> Option<Vec<u8>> {
        let copy = self.capture.as_mut()?;
        if let Slots::Hashed(cells) = &self.table.slots {
            while *share > 0 && copy.copied < cells.len() {
                let end = (copy.copied + BLOCK_SLOTS).min(cells.len());
                write_slots(&cells[copy.copied..end], &mut copy.bytes);
                copy.copied = end;
                *share -= 1;
            }
            if copy.copied < cells.len() {
                let copied = copy.copied;
                self.keep_from(copied);
                return None;
            }
        }
        let FrequencyCopy { mut bytes, slots, rest, .. } = self.capture.take()?;
        for lane in &mut self.lanes {
            for (place, slot) in lane.stop_keeping().into_iter().rev() {
                bytes[slots + place * Slot::BYTES..][..Slot::BYTES]
                    .copy_from_slice(&slot_bytes(slot));
            }
        }
        bytes.extend(rest);
        Some(bytes)
    }

    fn cancel_capture(&mut self) {
        self.capture = None;
        self.lanes.iter_mut().for_each(|lane| drop(lane.stop_keeping()));
    }
}

impl Frequency {
    /// Slots from this place on are not copied yet.
    fn keep_from(&mut self, place: usize) {
        self.lanes.iter_mut().for_each(|lane| lane.keep_from = Some(place));
    }
}
