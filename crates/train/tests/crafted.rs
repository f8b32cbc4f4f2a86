//! Does a state that somebody has tampered with do any harm?
//!
//! A checksum tells damage, not malice: whoever writes a checkpoint seals it. Each case changes the
//! bytes of a section of a real state, whole or an increment, and expects an error that names the
//! section, or a trainer that trains: no panic, no endless loop, and no more memory asked for than
//! the bytes are worth.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use millrace_events::{Batch, Event, Events, FeatureValue, Offsets, SplitMix};
use millrace_train::capture::Extent;
use millrace_train::model::feature::{Feature, FeatureInput, NumberScale};
use millrace_train::saved::{SavedBytes, SavedPart, TakePart};
use millrace_train::{Damaged, Placement, TrainSettings, Trainer};

/// The largest piece of memory that was asked for.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Watched;

// SAFETY: all is handed on to the system's allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// What a value takes in memory over what it takes in a section, at most, with room to grow: a
/// history of no item has three bytes there and two pointers' worth of counts here.
const GROWTH: usize = 64;
/// What serde reserves on a section's word alone.
const RESERVED: usize = 2 << 20;

const CASES: u64 = 6000;

fn settings() -> TrainSettings {
    let rows = |table: &str| FeatureInput::Rows { table: table.into() };
    let kept = FeatureInput::Kept { table: "item".into(), length: 3 };
    let query = vec![Feature::new("query", rows("query")), Feature::new("last", kept)];
    let buckets = FeatureInput::Buckets { table: "price".into(), boundaries: vec![1.0, 2.0] };
    let item = vec![
        Feature::new("item", rows("item")),
        Feature::new("tags", rows("tag")),
        Feature::new("price", buckets),
        Feature::new("age", FeatureInput::Number(NumberScale::Zscore)),
        Feature::new("picture", FeatureInput::Vector { length: 2 }),
    ];
    let mut settings = TrainSettings::new(16, query, item);
    settings.model.hidden = vec![6];
    settings.model.dim = 4;
    for table in settings.model.tables.values_mut() {
        (table.dim, table.rows_max, table.expiry_events) = (3, 64, Some(300));
    }
    settings.frequency.buckets = 40;
    settings.objective.mixed = 4;
    settings.objective.cross_batch = 20;
    settings.objective.temperature_learning_rate = 0.05;
    (settings.items_max, settings.queries_max) = (25, 18);
    settings
}

fn batch(random: &mut SplitMix) -> Batch {
    let mut batch = Batch::new(Events::new(2, 5), Offsets::new("t"));
    for _ in 0..1 + random.next_u64() % 20 {
        let (query_id, item_id) = (random.next_u64() % 20, random.next_u64() % 30);
        let number = (item_id % 7) as f32 / 2.0;
        batch.events.push(&Event {
            time_ms: 0,
            query_id,
            item_id,
            item_name: item_id.to_string().into(),
            reward: 1.0,
            query: vec![FeatureValue::Id(query_id), FeatureValue::Absent],
            item: vec![
                FeatureValue::Id(item_id),
                FeatureValue::Bag(vec![(item_id % 3, 0.5), (item_id % 5, 0.5)]),
                FeatureValue::Number(number),
                if item_id % 4 == 0 { FeatureValue::Absent } else { FeatureValue::Number(number) },
                FeatureValue::Vector(vec![number, -number]),
            ],
        });
    }
    batch
}

/// A section's parts, the whole one first.
type Parts = Vec<Vec<u8>>;

/// Sections of a state, by name: a whole capture, and an increment on it.
fn sections(trainer: &mut Trainer, random: &mut SplitMix) -> Vec<(String, Parts)> {
    (0..30).for_each(|_| drop(trainer.step(&batch(random))));
    let mut all: Vec<(String, Parts)> = Vec::new();
    for extent in [Extent::Whole, Extent::Changed] {
        (0..2).for_each(|_| drop(trainer.step(&batch(random))));
        trainer.begin_capture(extent);
        let mut pieces = Vec::new();
        while trainer.is_capturing() {
            for part in trainer.advance_capture(usize::MAX) {
                let taken: Result<(), ()> = part.pieces(&mut |piece| {
                    pieces.push(piece);
                    Ok(())
                });
                taken.expect("nothing to fail");
            }
        }
        trainer.settle_capture(true);
        let mut before = String::new();
        for piece in pieces {
            let at = all.iter().position(|(name, _)| *name == piece.section);
            let at = at.unwrap_or_else(|| {
                all.push((piece.section.clone(), Parts::new()));
                all.len() - 1
            });
            let parts = &mut all[at].1;
            if piece.section != before {
                // What is not an increment replaces what was.
                parts.truncate(usize::from(piece.increment.is_some()));
                parts.push(Vec::new());
                before = piece.section;
            }
            let bytes = piece.increment.unwrap_or(piece.content);
            parts.last_mut().expect("just pushed").extend(bytes);
        }
    }
    all
}

/// Changes some bytes of `part`.
fn craft(part: &mut Vec<u8>, random: &mut SplitMix) {
    let extremes = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
    let any =
        |random: &mut SplitMix, below: usize| (random.next_u64() % below.max(1) as u64) as usize;
    for _ in 0..1 + random.next_u64() % 3 {
        // Half of all lengths, counts and clocks lie near a part's ends.
        let length = part.len();
        let at = match random.next_u64() % 4 {
            0 => any(random, length.min(80)),
            1 => length.saturating_sub(1 + any(random, length.min(80))),
            _ => any(random, length),
        };
        match random.next_u64() % 8 {
            0 => part.truncate(at),
            1 => part.splice(at..at, [0u8; 9].map(|_| random.next_u64() as u8)).for_each(drop),
            2 => drop(part.drain(at..(at + 1 + any(random, 12)).min(length))),
            3 => {
                let end = (at + 8).min(length);
                let number = match random.next_u64() % 3 {
                    0 => u64::MAX,
                    1 => 1 << (random.next_u64() % 64),
                    _ => random.next_u64(),
                };
                part[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            4 | 5 if length > 0 => part[at] = extremes[any(random, extremes.len())],
            6 if length > 0 => part[at] ^= 1 << (random.next_u64() % 8),
            _ if length > 0 => part[at] = part[at].wrapping_add(1),
            _ => {}
        }
    }
}

#[test]
fn a_crafted_state_is_refused_or_trains() {
    let given = std::env::var("MILLRACE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(0x5eed_u64);
    println!("MILLRACE_SEED={seed}");
    let settings = settings();
    let mut random = SplitMix::new(seed);
    let mut trainer = Trainer::new(&settings, &Placement::Cpu, Offsets::new("t"));
    let all = sections(&mut trainer, &mut random);
    let increments = all.iter().filter(|(_, parts)| parts.len() == 2).count();
    assert_eq!(increments, settings.model.tables.len() + 3, "tables, estimator, items, histories");
    let progress = trainer.progress().clone();
    let restore = |all: &[(String, Parts)]| {
        let read = |name: &str, take: TakePart<'_>| -> Result<(), Damaged> {
            let (_, parts) = all.iter().find(|(own, _)| own == name).ok_or("no such section")?;
            take(SavedPart::Whole(SavedBytes::of(&parts[0])))?;
            parts[1..].iter().try_for_each(|part| take(SavedPart::Increment(SavedBytes::of(part))))
        };
        Trainer::restore(&settings, &Placement::Cpu, progress.clone(), &read)
    };
    LARGEST.store(0, Ordering::Relaxed);
    let whole = restore(&all).expect("nobody tampered with it");
    assert!(whole.capture().into_sections() == trainer.capture().into_sections());
    let usual = LARGEST.load(Ordering::Relaxed);

    let (mut refused, mut trained) = (0, 0);
    for case in 0..CASES {
        let mut crafted = all.clone();
        let at = (random.next_u64() % crafted.len() as u64) as usize;
        let (name, parts) = &mut crafted[at];
        let at = (random.next_u64() % parts.len() as u64) as usize;
        craft(&mut parts[at], &mut random);
        let section = format!("section {name}");
        let name = format!("case {case}, {name}, part {at}");
        let bytes: usize = parts.iter().map(Vec::len).sum();
        LARGEST.store(0, Ordering::Relaxed);
        let restored = restore(&crafted);
        let largest = LARGEST.load(Ordering::Relaxed);
        assert!(largest <= usual + GROWTH * bytes + RESERVED, "{name}: {largest} of {bytes} bytes");
        let mut restored = match restored {
            Ok(restored) => restored,
            Err(error) => {
                assert!(error.to_string().starts_with(&section), "{name}: {error}");
                refused += 1;
                continue;
            }
        };
        trained += 1;
        // Whoever panics says where; the case says why.
        let run = std::panic::AssertUnwindSafe(|| {
            (0..4).for_each(|_| drop(restored.step(&batch(&mut random))));
            let items = restored.state().corpus.sorted();
            restored.state().model.embed_items(&items);
            restored.begin_capture(Extent::Changed);
            while restored.is_capturing() {
                for part in restored.advance_capture(usize::MAX) {
                    let taken: Result<(), ()> = part.pieces(&mut |_| Ok(()));
                    taken.expect("nothing to fail");
                }
            }
        });
        assert!(std::panic::catch_unwind(run).is_ok(), "{name}");
    }
    println!("{refused} refused, {trained} trained");
    assert!(refused > CASES / 4 && trained > CASES / 20, "both come about");
}
