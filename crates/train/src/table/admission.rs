//! Which ids get a row of their own: those that have come often enough.
//!
//! Most ids of a long tail come once or twice. A row each fills the table and learns next to
//! nothing, while what they have in common could be learned from all of them: until an id is
//! admitted it reads the row of [`UNKNOWN`](super::UNKNOWN). Its sights are counted in a table of
//! fixed size (count-min with conservative update: Estan and Varghese 2002), which is halved when
//! too many ids are on the way (Einziger et al. 2017, section 3.3). Ids that share counters are
//! admitted early, which costs a row; a halving may make one wait longer.
//!
//! Must never know: what is in a row, features.

use serde::{Deserialize, Serialize};

use super::Table;
use crate::saved::Damaged;
use millrace_events::mix;

/// Most sights that can be asked for: what a counter holds.
pub const ADMIT_AFTER_MAX: u64 = u8::MAX as u64;

/// Counters a row that the table may hold, 2 bytes a row of 100 or more.
const COUNTERS_A_ROW: usize = 2;
/// Most bytes of counters: 2 million ids on the way are a long tail for any table.
const COUNTERS_MAX: usize = 8 << 20;
/// Counters that an id has: it has come as often as the least of them says.
const PLACES: u64 = 2;
/// Counters an id on the way. With four, a new id finds both of its counters taken by others one
/// time in seven.
const COUNTERS_AN_ID: u64 = 4;

/// See the module's head.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Admission {
    /// A power of two of them; none before the first sight.
    counters: Vec<u8>,
    /// Ids that have come for the first time since the last halving.
    fresh: u64,
}

impl Admission {
    /// Takes in a sight of `id`, which has no row in a table of at most `rows_max`.
    pub(super) fn see(&mut self, id: u64, rows_max: usize) {
        if self.counters.is_empty() {
            let counters = rows_max.saturating_mul(COUNTERS_A_ROW).min(COUNTERS_MAX);
            self.counters = vec![0; counters.next_power_of_two()];
        }
        let seen = self.seen(id);
        for place in self.places(id) {
            let counter = &mut self.counters[place];
            *counter = (*counter).max(seen.saturating_add(1));
        }
        self.fresh += u64::from(seen == 0);
        if self.fresh * COUNTERS_AN_ID > self.counters.len() as u64 {
            self.counters.iter_mut().for_each(|counter| *counter /= 2);
            self.fresh = 0;
        }
    }

    /// How often `id` has come, as far as is known: seldom too little.
    pub(super) fn seen(&self, id: u64) -> u8 {
        if self.counters.is_empty() {
            return 0;
        }
        self.places(id).map(|place| self.counters[place]).min().unwrap_or_default()
    }

    /// Whether counting may have led here.
    pub(super) fn plausible(&self) -> bool {
        let counters = self.counters.len();
        let fits = counters.is_power_of_two() && counters <= COUNTERS_MAX;
        match counters {
            0 => self.fresh == 0,
            _ => fits && self.fresh * COUNTERS_AN_ID <= counters as u64,
        }
    }

    fn places(&self, id: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.counters.len() - 1;
        (1..=PLACES).map(move |place| mix(id ^ mix(place)) as usize & mask)
    }
}

impl Table {
    /// Whether an id must come more than once before it gets a row.
    pub(crate) fn admits_by_count(&self) -> bool {
        self.settings.admit_after > 1
    }

    /// Takes in that `id` has come once more.
    pub(crate) fn see(&mut self, id: u64) {
        if self.admits_by_count() && self.find(id).is_none() {
            self.admission.see(id, self.settings.rows_max);
        }
    }

    /// How often ids came that have no row.
    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Goes on from such counts, if this table counts at all.
    pub(crate) fn count_on(&mut self, admission: Admission) -> Result<(), Damaged> {
        if !admission.plausible() {
            return Err("the counts of ids without rows are damaged".into());
        }
        if self.admits_by_count() {
            self.admission = admission;
        }
        Ok(())
    }

    /// Whether `id` has a row, or has come so often that it is to get one.
    pub(crate) fn admits(&self, id: u64) -> bool {
        !self.admits_by_count()
            || u64::from(self.admission.seen(id)) >= self.settings.admit_after
            || self.find(id).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_come_as_often_as_it_was_seen() {
        let mut admission = Admission::default();
        assert_eq!(admission.seen(7), 0);
        for times in 1..=300u64 {
            admission.see(7, 1000);
            assert_eq!(u64::from(admission.seen(7)), times.min(ADMIT_AFTER_MAX));
        }
        assert_eq!(admission.seen(8), 0);
        assert!(admission.plausible());
    }

    /// Of ids that come once each, however many, few are taken for ones that came before, and one
    /// that comes again and again is not forgotten over them.
    #[test]
    fn a_stream_of_new_ids_hides_none_that_comes_often() {
        let mut admission = Admission::default();
        let (mut mistaken, mut least) = (0u32, u8::MAX);
        for id in 0..100_000u64 {
            mistaken += u32::from(admission.seen(mix(id)) > 0);
            admission.see(mix(id), 10_000);
            if id % 100 == 0 {
                admission.see(1, 10_000);
                least = if id > 2_000 { least.min(admission.seen(1)) } else { u8::MAX };
            }
        }
        assert!(mistaken < 10_000, "{mistaken} of 100,000");
        assert!(least > 10, "{least}");
        assert_eq!(admission.counters.len(), 32_768);
        assert!(admission.plausible());
    }
}
