//! The estimator's state at one step, copied over many: see [`crate::table`], whose
//! tables do the same.
//!
//! Owns the copy while it is handed out, and which slots have changed since the last durable copy.
//! What slots held before a later step changed them is kept by the lanes that change them: a log,
//! of which the oldest entry of a slot counts.

use super::slots::BLOCK_SLOTS;
use super::{Frequency, Slot, Slots};
use crate::capture::{Capture, Extent};
use crate::frequency::codec::{self, changed_slots, slot_bytes, write_slots};

/// A copy of an estimator that is under way.
pub(super) struct FrequencyCopy {
    extent: Extent,
    /// The headers, until they are handed out; of an exact estimator the whole section.
    headers: Option<(Vec<u8>, Option<Vec<u8>>)>,
    copied: usize,
    /// Slots in all.
    slots: usize,
    /// What the slots of each block held that have changed since, oldest first.
    kept: Vec<Vec<(usize, Slot)>>,
    /// What follows the slots, until it is handed out.
    rest: Option<Vec<u8>>,
}

/// The share is in blocks of slots; what is handed out are the next bytes of the estimator's
/// section. An exact estimator is copied at once, and always whole.
impl Capture for Frequency {
    type Copy = (Vec<u8>, Option<Vec<u8>>);

    fn begin_capture(&mut self, extent: Extent) {
        assert!(self.capture.is_none(), "one capture at a time");
        for lane in &mut self.lanes {
            let (first, changed) = lane.take_changed();
            self.unsettled.add(&changed, first);
        }
        let mut copy = FrequencyCopy {
            extent,
            headers: None,
            copied: 0,
            slots: 0,
            kept: Vec::new(),
            rest: None,
        };
        match &self.table.slots {
            Slots::Hashed(cells) => {
                let (mut header, mut rest) = (Vec::new(), Vec::new());
                self.write_header(codec::MAGIC, &mut header);
                let increment = (extent == Extent::Changed).then(|| {
                    let mut header = Vec::new();
                    self.write_header(codec::INCREMENT, &mut header);
                    header
                });
                self.write_rest(&mut rest);
                copy.headers = Some((header, increment));
                copy.slots = cells.len();
                copy.kept = vec![Vec::new(); cells.len().div_ceil(BLOCK_SLOTS)];
                copy.rest = Some(rest);
                self.keep_from(0);
            }
            Slots::Exact(_) => copy.headers = Some((self.save(), None)),
        }
        self.capture = Some(copy);
    }

    fn advance_capture(&mut self, share: &mut usize) -> Option<Self::Copy> {
        let copy = self.capture.as_mut()?;
        for lane in &mut self.lanes {
            for (place, slot) in lane.take_kept() {
                copy.kept[place / BLOCK_SLOTS].push((place, slot));
            }
        }
        if let Some(headers) = copy.headers.take() {
            return Some(headers);
        }
        if copy.copied == copy.slots {
            let rest = copy.rest.take()?;
            let increment = (copy.extent == Extent::Changed).then(|| rest.clone());
            return Some((rest, increment));
        }
        if *share == 0 {
            return None;
        }
        *share -= 1;
        let Slots::Hashed(cells) = &self.table.slots else { return None };
        let (first, end) = (copy.copied, (copy.copied + BLOCK_SLOTS).min(copy.slots));
        let mut content = Vec::new();
        write_slots(&cells[first..end], &mut content);
        // The oldest entry of a slot is written last.
        for (place, slot) in std::mem::take(&mut copy.kept[first / BLOCK_SLOTS]).into_iter().rev() {
            content[(place - first) * Slot::BYTES..][..Slot::BYTES]
                .copy_from_slice(&slot_bytes(slot));
        }
        let increment = (copy.extent == Extent::Changed)
            .then(|| changed_slots(&content, first, self.unsettled.within(first..end)));
        copy.copied = end;
        self.keep_from(end);
        Some((content, increment))
    }

    fn is_copied(&self) -> bool {
        let copied = |copy: &FrequencyCopy| {
            copy.headers.is_none() && copy.copied == copy.slots && copy.rest.is_none()
        };
        self.capture.as_ref().is_none_or(copied)
    }

    fn settle_capture(&mut self, durable: bool) {
        self.capture = None;
        self.lanes.iter_mut().for_each(|lane| lane.stop_keeping());
        if durable {
            self.unsettled.take();
        }
    }
}

impl Frequency {
    /// Slots from this place on are not copied yet.
    fn keep_from(&mut self, place: usize) {
        self.lanes.iter_mut().for_each(|lane| lane.keep_from = Some(place));
    }

    /// Bytes of the slots that have changed since the last durable capture (or of a few more), and
    /// of all slots.
    pub(crate) fn changed_bytes(&self) -> (usize, usize) {
        let Slots::Hashed(cells) = &self.table.slots else { return (0, 0) };
        let lanes = self.lanes.iter().map(super::lane::Lane::changed_slots);
        let changed = self.unsettled.len() + lanes.sum::<usize>();
        (changed * (Slot::BYTES + codec::PLACE_BYTES), cells.len() * Slot::BYTES)
    }

    /// Bytes of slots that are kept because they changed while a copy is under way.
    pub(crate) fn kept_bytes(&self) -> usize {
        let copy = self.capture.iter().flat_map(|copy| &copy.kept).map(Vec::len);
        copy.sum::<usize>() * size_of::<(usize, Slot)>()
    }
}
