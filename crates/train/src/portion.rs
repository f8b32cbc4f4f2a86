//! How much of a full batch a step is.
//!
//! A live stream is cut where the clock says so, into steps of one event or of a thousand. Whatever
//! a step does that is not a sum over its events (a decay, a rate) is scaled by this, so that a
//! stream teaches the same however it was cut.

/// A step of so many events, where a full batch has `batch`.
#[derive(Clone, Copy, Debug)]
pub struct Portion {
    /// Events of the step.
    pub events: u64,
    /// Events of a full batch, above 0.
    pub batch: u64,
}

impl Portion {
    /// A full batch.
    pub const WHOLE: Self = Self { events: 1, batch: 1 };

    /// As a number, 1 for a full batch.
    #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
    pub fn share(self) -> f32 {
        self.events as f32 / self.batch as f32
    }

    /// What is left of a decaying sum, `decay` being what a full batch leaves; for one of these it
    /// is `decay` to the bit.
    pub fn left(self, decay: f32) -> f32 {
        if self.events == self.batch { decay } else { decay.powf(self.share()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_batch_leave_what_the_batch_leaves() {
        let left = |events| Portion { events, batch: 1024 }.left(0.95);
        assert_eq!(left(1024), 0.95);
        for events in [1, 2, 16, 256, 512] {
            let parts = (0..1024 / events).map(|_| f64::from(left(events))).product::<f64>();
            assert!((parts - 0.95).abs() < 1e-4, "{parts} in parts of {events}");
        }
    }
}
