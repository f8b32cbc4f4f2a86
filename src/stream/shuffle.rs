//! Windows of events leave in another order than the log's.
//!
//! Owns: the order within a window. A topic that is keyed by user, or was written from a sorted
//! file, has runs of one user's or one subject's events; batched as they come, they would be each
//! other's only negatives. The order is a function of the seed, the pass and the offsets where the
//! window begins, so a run that resumes from there sees the same batches.
//!
//! Must never know: the clock, the consumer.

use xxhash_rust::xxh3::Xxh3;

use super::cut::Cut;
use millrace_events::{Batch, Events, Offsets, SplitMix};

/// Takes one window at a time and deals it out in batches.
#[derive(Debug)]
pub struct Shuffle {
    size: usize,
    cut: Cut,
    seed: u64,
    pass: u32,
    /// The beginning of the window, or of the next one if there is none.
    start: Offsets,
    /// The same of each catalogue.
    catalogues: Vec<Offsets>,
    window: Option<ShuffleWindow>,
}

#[derive(Debug)]
struct ShuffleWindow {
    batch: Batch,
    order: Vec<u32>,
    dealt: usize,
}

impl Shuffle {
    /// Batches of at most `size` events, cut as `cut` says, from `start` on, the `pass`-th time
    /// over the log.
    pub fn new(size: usize, cut: Cut, seed: u64, pass: u32, start: Offsets) -> Shuffle {
        assert!(size > 0, "a batch has room for an event");
        Shuffle { size, cut, seed, pass, start, catalogues: Vec::new(), window: None }
    }

    /// The same, with catalogues from these offsets on.
    #[must_use]
    pub fn following(mut self, catalogues: Vec<Offsets>) -> Shuffle {
        self.catalogues = catalogues;
        self
    }

    /// Takes the window that follows the one before.
    ///
    /// # Panics
    /// If that one is not dealt out yet.
    pub fn load(&mut self, batch: Batch) {
        assert!(self.window.is_none(), "a window is dealt out before the next");
        let count = u32::try_from(batch.len()).expect("batch.shuffle_events is far below 2^32");
        let mut order: Vec<u32> = (0..count).collect();
        let mut random = SplitMix::new(window_seed(self.seed, self.pass, &self.start));
        for last in (1..order.len()).rev() {
            order.swap(last, below(&mut random, last as u64 + 1));
        }
        self.window = Some(ShuffleWindow { batch, order, dealt: 0 });
    }

    /// The next batch of the window. The first one carries all rejected records, so that their
    /// letters are flushed while nothing of the window is trained, and all changes of catalogues,
    /// since there is no time within a window; the last one the offsets.
    pub fn deal(&mut self) -> Option<Batch> {
        let window = self.window.as_mut()?;
        let all = &mut window.batch;
        let mut batch = Batch::new(Events::none_of(&all.events), self.start.clone());
        batch.rejected = std::mem::take(&mut all.rejected);
        batch.changes = std::mem::take(&mut all.changes);
        batch.changes.iter_mut().for_each(|change| change.at = 0);
        batch.catalogues.clone_from(&self.catalogues);
        let position = self.start.total() + window.dealt as u64;
        let size = self.cut.size(self.size, position);
        let end = window.order.len().min(window.dealt + size);
        let order = &window.order[window.dealt..end];
        let places: Vec<_> = order.iter().map(|&event| (&all.events, event as usize)).collect();
        batch.events.gather(&places);
        // Events from a file have no origins.
        let origin = |&event: &u32| all.origins.get(event as usize);
        batch.origins.extend(order.iter().filter_map(origin));
        window.dealt = end;
        batch.whole = end == window.order.len();
        if batch.whole {
            self.start.clone_from(&all.offsets);
            batch.offsets.clone_from(&all.offsets);
            self.catalogues.clone_from(&all.catalogues);
            batch.catalogues.clone_from(&all.catalogues);
            self.window = None;
        }
        Some(batch)
    }
}

fn window_seed(seed: u64, pass: u32, start: &Offsets) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&pass.to_le_bytes());
    for (partition, next) in start.iter() {
        hasher.update(&partition.to_le_bytes());
        hasher.update(&next.to_le_bytes());
    }
    hasher.digest()
}

/// Uniform below `bound`, but for a bias of `bound` / 2^64.
#[expect(clippy::cast_possible_truncation, reason = "the result is below a length")]
fn below(random: &mut SplitMix, bound: u64) -> usize {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_events::{Event, FeatureValue};

    fn event(id: u16) -> Event {
        // Features of every shape: how many entries, and whether they have ids.
        let bag = (0..u64::from(id % 3)).map(|entry| (u64::from(id) + entry, 0.5)).collect();
        Event {
            time_ms: i64::from(id),
            query_id: u64::from(id) + 1000,
            item_id: u64::from(id),
            item_name: id.to_string().into(),
            reward: f32::from(id),
            query: vec![FeatureValue::Bag(bag), FeatureValue::Number(f32::from(id))],
            item: vec![if id.is_multiple_of(5) {
                FeatureValue::Absent
            } else {
                FeatureValue::Id(u64::from(id))
            }],
        }
    }

    fn offsets(next: i64) -> Offsets {
        let mut offsets = Offsets::new("t");
        offsets.advance(0, next);
        offsets
    }

    /// The window of the log's events from `start` to `end`, after 3 rejected records.
    fn window(start: u16, end: u16) -> Batch {
        let mut batch = Batch::new(Events::new(2, 1), offsets(i64::from(end)));
        (start..end).for_each(|id| batch.events.push(&event(id)));
        batch.rejected = 3;
        batch.origins = (start..end).map(|id| (0, i64::from(id))).collect();
        batch
    }

    fn dealt(shuffle: &mut Shuffle, events: Batch) -> Vec<Batch> {
        shuffle.load(events);
        std::iter::from_fn(|| shuffle.deal()).collect()
    }

    fn items(batches: &[Batch]) -> Vec<u64> {
        batches.iter().flat_map(|batch| batch.events.item_ids.clone()).collect()
    }

    #[test]
    fn changes_of_a_window_come_before_its_events_and_their_offsets_with_its_end() {
        let of = |next| {
            let mut offsets = Offsets::new("c");
            offsets.advance(0, next);
            vec![offsets]
        };
        let mut shuffle = Shuffle::new(4, Cut::Full, 1, 1, offsets(0)).following(of(3));
        let mut events = window(0, 8);
        let (side, name) = (millrace_events::EventSide::Item, "a".into());
        events.changes.push(millrace_events::CatalogueChange {
            at: 7,
            side,
            id: 1,
            name,
            values: None,
            attributes: Vec::new(),
        });
        events.catalogues = of(9);
        let batches = dealt(&mut shuffle, events);
        let brought = |batch: &Batch| batch.changes.iter().map(|c| c.at).collect::<Vec<_>>();
        assert_eq!((batches.len(), brought(&batches[0])), (2, vec![0]));
        assert!(batches[1].changes.is_empty());
        assert_eq!((&batches[0].catalogues, &batches[1].catalogues), (&of(3), &of(9)));
    }

    #[test]
    fn every_event_goes_out_once_and_whole() {
        let batches = dealt(&mut Shuffle::new(8, Cut::Full, 1, 1, offsets(0)), window(0, 21));
        let sizes: Vec<usize> = batches.iter().map(Batch::len).collect();
        assert_eq!(sizes, [8, 8, 5]);
        let mut items = items(&batches);
        assert_ne!(items, (0..21).collect::<Vec<_>>(), "the order is another");
        items.sort_unstable();
        assert_eq!(items, (0..21).collect::<Vec<_>>());
        for batch in &batches {
            let mut expected = Batch::new(Events::new(2, 1), offsets(0));
            let ids = batch.events.item_ids.iter().map(|&id| u16::try_from(id).expect("small"));
            ids.for_each(|id| expected.events.push(&event(id)));
            (expected.offsets, expected.rejected) = (batch.offsets.clone(), batch.rejected);
            expected.whole = batch.whole;
            expected.origins = batch.events.item_ids.iter().map(|&id| (0, id as i64)).collect();
            assert_eq!(format!("{batch:?}"), format!("{expected:?}"));
        }
    }

    #[test]
    fn events_from_a_file_have_no_origins() {
        let mut file = window(0, 21);
        file.origins.clear();
        let batches = dealt(&mut Shuffle::new(8, Cut::Full, 1, 1, offsets(0)), file);
        assert!(batches.iter().all(|batch| batch.origins.is_empty()));
        assert_eq!(batches.iter().map(Batch::len).sum::<usize>(), 21);
    }

    #[test]
    fn only_the_end_of_a_window_has_exact_offsets() {
        let mut shuffle = Shuffle::new(8, Cut::Full, 1, 1, offsets(0));
        for (start, end) in [(0, 16), (16, 37)] {
            let batches = dealt(&mut shuffle, window(start, end));
            let (last, inside) = batches.split_last().expect("batches");
            assert!(last.whole && inside.iter().all(|batch| !batch.whole));
            assert_eq!(last.offsets.next(0), Some(i64::from(end)));
            let from_start = |batch: &Batch| batch.offsets.next(0) == Some(i64::from(start));
            assert!(inside.iter().all(from_start), "nothing is skipped in going on from there");
            let rejected: Vec<u64> = batches.iter().map(|batch| batch.rejected).collect();
            assert_eq!((rejected[0], rejected.iter().sum()), (3, 3_u64));
        }
    }

    #[test]
    fn the_order_is_that_of_seed_pass_and_start() {
        let order = |seed, pass, start| {
            let mut shuffle = Shuffle::new(8, Cut::Full, seed, pass, offsets(start));
            items(&dealt(&mut shuffle, window(0, 64)))
        };
        let base = order(1, 1, 0);
        assert_eq!(base, order(1, 1, 0));
        for other in [order(2, 1, 0), order(1, 2, 0), order(1, 1, 64)] {
            assert_ne!(base, other);
        }
        // A run that resumes sees the same batches as one that never stopped.
        let mut shuffle = Shuffle::new(8, Cut::Full, 1, 1, offsets(0));
        dealt(&mut shuffle, window(0, 64));
        let mut resumed = Shuffle::new(8, Cut::Full, 1, 1, offsets(64));
        let next = || window(64, 128);
        assert_eq!(items(&dealt(&mut shuffle, next())), items(&dealt(&mut resumed, next())));
    }

    #[test]
    fn a_window_is_dealt_as_it_is_cut() {
        let sizes = |cut, start| -> Vec<usize> {
            let mut shuffle = Shuffle::new(8, cut, 1, 1, offsets(start));
            dealt(&mut shuffle, window(0, 21)).iter().map(Batch::len).collect()
        };
        assert_eq!(sizes(Cut::Every(6), 0), [6, 6, 6, 3]);
        let cut = Cut::Random(3);
        let random = sizes(cut, 100);
        let mut position = 100;
        for (number, &size) in random.iter().enumerate() {
            if number + 1 < random.len() {
                assert_eq!(size, cut.size(8, position));
            }
            position += size as u64;
        }
        assert_eq!(position, 121);
        assert_ne!(random, sizes(cut, 900), "the sizes are those of the window's place");
    }

    #[test]
    fn rejected_records_alone_move_the_offsets() {
        let batches = dealt(&mut Shuffle::new(8, Cut::Full, 1, 1, offsets(0)), window(7, 7));
        let [batch] = batches.as_slice() else { panic!("{batches:?}") };
        assert_eq!((batch.len(), batch.rejected, batch.whole), (0, 3, true));
        assert_eq!(batch.offsets.next(0), Some(7));
    }

    #[test]
    fn every_place_is_as_likely() {
        // Over 8,000 windows event 0 of 8 goes 1,000 times to each place, give or take five
        // deviations.
        let mut counts = [0_i32; 8];
        for start in 0..8000 {
            let mut shuffle = Shuffle::new(8, Cut::Full, 1, 1, offsets(start));
            let items = items(&dealt(&mut shuffle, window(0, 8)));
            counts[items.iter().position(|&item| item == 0).expect("it goes out")] += 1;
        }
        assert!(counts.iter().all(|count| (count - 1000).abs() < 150), "{counts:?}");
    }
}
