//! The trainer as a whole, in every mode of the loss; evaluations on worlds small enough to count.

use crate::capture::Extent::{Changed, Whole};
use crate::evaluation::held_out::{HeldOut, Seen};
use crate::evaluation::metrics::Band;
use crate::evaluation::popularity;
use crate::evaluation::progressive::{Progressive, ProgressiveSettings};
use crate::frequency::Meaning;
use crate::model::feature::{Feature, FeatureInput};
use crate::model::towers::DenseRule;
use crate::objective::Correction;
use crate::saved::{Damaged, SavedBytes, SavedPart, TakePart};
use crate::{Placement, QuerySide, TrainSettings, Trainer};
use millrace_events::{
    Batch, CatalogueChange, CataloguePlace, Event, EventSide, Events, FeatureValue, Offsets,
    SplitMix, id_key,
};

fn settings(set: &[&str]) -> TrainSettings {
    let rows = |table: &str| FeatureInput::Rows { table: table.into() };
    let last = FeatureInput::Kept { table: "item".into(), length: 3 };
    let query = vec![Feature::new("query", rows("query")), Feature::new("last", last)];
    let mut settings = TrainSettings::new(64, query, vec![Feature::new("item", rows("item"))]);
    settings.model.hidden = vec![16];
    settings.model.dim = 8;
    settings.model.tables.values_mut().for_each(|table| table.dim = 8);
    for set in set {
        let objective = &mut settings.objective;
        match *set {
            "excluded" => objective.correction = Correction::CorrectedPositiveExcluded,
            "plain" => objective.correction = Correction::Plain,
            "mixed" => objective.mixed = 20,
            "cross_batch" => objective.cross_batch = 70,
            "masked" => objective.mask_same_query = true,
            "history-masked" => objective.mask_history = true,
            "learned" => objective.temperature_learning_rate = 0.05,
            "twice" => settings.times = 2,
            "dropout" => settings.model.item[0].dropout = 0.1,
            "admission" => {
                settings.model.tables.values_mut().for_each(|table| table.admit_after = 3);
            }
            "adam" => settings.model.dense.rule = DenseRule::Adam,
            "averaged" => settings.model.dense.average = 0.9,
            other => panic!("no mode {other}"),
        }
    }
    settings
}

fn trainer(settings: &TrainSettings) -> Trainer {
    Trainer::new(settings, &Placement::Cpu, Offsets::new("t"))
}

/// Events `(time_ms, query, item)`.
fn batch(events: &[(i64, u64, &str)]) -> Batch {
    let mut batch = Batch::new(Events::new(2, 1), Offsets::new("t"));
    for &(time_ms, query_id, item) in events {
        let item_id = id_key(item.as_bytes());
        batch.events.push(&Event {
            time_ms,
            query_id,
            item_id,
            item_name: item.into(),
            reward: 1.0,
            query: vec![FeatureValue::Id(query_id), FeatureValue::Absent],
            item: vec![FeatureValue::Id(item_id)],
        });
    }
    batch
}

/// A world of 40 queries and 30 items, in which query q takes item q or q + 1 modulo 30.
fn world(seed: u64, events: usize) -> Batch {
    let mut random = SplitMix::new(seed);
    let names: Vec<String> = (0..30).map(|item| format!("item {item}")).collect();
    let event = |at| {
        let query = random.next_u64() % 40;
        let item = (query + random.next_u64() % 2) % 30;
        (at as i64, query, &*names[item as usize])
    };
    batch(&(0..events).map(event).collect::<Vec<_>>())
}

/// As from a checkpoint.
fn copy(trainer: &Trainer, settings: &TrainSettings) -> Trainer {
    let progress = trainer.progress().clone();
    let sections = trainer.capture().into_sections();
    let read = |name: &str, take: TakePart<'_>| {
        let (_, bytes) = sections.iter().find(|(own, _)| own == name).ok_or("no such section")?;
        take(SavedPart::Whole(SavedBytes::of(bytes)))
    };
    let placement = Placement::Cpu;
    Trainer::restore(settings, &placement, progress, &read).expect("just captured")
}

type Sections = Vec<(String, Vec<u8>)>;

/// All that a capture hands out, four parts a turn, with `between` called after each: contents, and
/// increments, by section.
fn handed_out(
    trainer: &mut Trainer,
    mut between: impl FnMut(&mut Trainer, u64),
) -> (Sections, Sections) {
    let (mut contents, mut increments) = (Sections::new(), Sections::new());
    let add = |sections: &mut Sections, name: &str, bytes: &[u8]| match sections.last_mut() {
        Some((last, all)) if last == name => all.extend(bytes),
        _ => sections.push((name.to_owned(), bytes.to_vec())),
    };
    for turn in 0.. {
        for part in trainer.advance_capture(4) {
            let taken: Result<(), ()> = part.pieces(&mut |piece| {
                add(&mut contents, &piece.section, &piece.content);
                if let Some(increment) = piece.increment {
                    add(&mut increments, &piece.section, &increment);
                }
                Ok(())
            });
            taken.expect("nothing to fail");
        }
        if !trainer.is_capturing() {
            break;
        }
        between(trainer, turn);
    }
    (contents, increments)
}

/// A state is the last whole capture and the increments since, in every section, to the bit;
/// whatever becomes of a capture in between, and though the state changes while it is copied.
#[test]
fn increments_add_up_to_the_state() {
    for mode in MODES {
        let mut settings = settings(mode);
        // Rows, items and histories go, and some come back.
        settings.items_max = 28;
        settings.queries_max = 38;
        let mut trainer = trainer(&settings);
        let mut seed = 0;
        let mut step = |trainer: &mut Trainer| {
            seed += 1;
            trainer.step(&world(seed, 1 + seed as usize % 40)).expect("there are events");
        };
        let mut chain: Vec<Sections> = Vec::new();
        for (turn, extent) in
            [Whole, Changed, Changed, Changed, Whole, Changed, Changed].into_iter().enumerate()
        {
            (0..5).for_each(|_| step(&mut trainer));
            let (want, progress) = (trainer.capture().into_sections(), trainer.progress().clone());
            trainer.begin_capture(extent);
            let (contents, increments) = handed_out(&mut trainer, |trainer, _| step(trainer));
            assert!(contents == want, "{mode:?}, turn {turn}");
            // A capture that is not written must lose nothing.
            let durable = turn != 2;
            trainer.settle_capture(durable);
            if !durable {
                continue;
            }
            if extent == Whole {
                chain.clear();
                assert!(increments.is_empty());
            }
            let written = contents.into_iter().map(|(name, content)| {
                let increment = increments.iter().find(|(own, _)| *own == name);
                match increment {
                    Some((_, bytes)) => (format!("+{name}"), bytes.clone()),
                    None => (name, content),
                }
            });
            chain.push(written.collect());
            let read = |name: &str, take: TakePart<'_>| read_chain(&chain, name, take);
            let restored = Trainer::restore(&settings, &Placement::Cpu, progress, &read);
            let restored = restored.expect("just captured");
            for ((name, got), (_, want)) in restored.capture().into_sections().iter().zip(&want) {
                assert!(got == want, "{mode:?}, turn {turn}: {name}");
            }
        }
        assert!(chain[2].iter().any(|(name, _)| name == "+histories"), "an increment of each");
        assert!(chain[2].iter().any(|(name, _)| name == "+corpus"), "an increment of each");
        assert!(chain[2].iter().any(|(name, _)| name == "+table.item"), "an increment of each");
        assert!(chain[2].iter().any(|(name, _)| name == "+frequency"), "an increment of each");
    }
}

/// Section `name` of a chain of captures; a `+` marks an increment.
fn read_chain(chain: &[Sections], name: &str, take: TakePart<'_>) -> Result<(), Damaged> {
    let find = |sections: &'_ Sections, name: &str| {
        sections.iter().find(|(own, _)| own == name).map(|(_, bytes)| bytes.clone())
    };
    let whole = chain.iter().rposition(|link| find(link, name).is_some()).ok_or("no section")?;
    let bytes = find(&chain[whole], name).expect("just found");
    take(SavedPart::Whole(SavedBytes::of(&bytes)))?;
    for link in &chain[whole + 1..] {
        let bytes = find(link, &format!("+{name}")).ok_or("no increment")?;
        take(SavedPart::Increment(SavedBytes::of(&bytes)))?;
    }
    Ok(())
}

/// Mean reciprocal rank on 400 events that nobody trains on.
fn quality(trainer: &Trainer) -> f64 {
    let mut held_out = HeldOut::new(trainer.state(), 0.0);
    let test = world(1000, 400);
    held_out.add(&test, &trainer.state().embed_ahead(&test), None);
    held_out.model.all.mrr()
}

const MODES: [&[&str]; 12] = [
    &["plain"],
    &[],
    &["excluded"],
    &["mixed"],
    &["cross_batch", "adam"],
    &["masked", "learned"],
    &["dropout"],
    &["averaged"],
    &["admission", "mixed"],
    &["history-masked", "mixed"],
    &["twice", "mixed", "cross_batch"],
    &["excluded", "mixed", "cross_batch", "masked", "learned"],
];

#[test]
fn every_mode_learns_and_goes_on_from_a_checkpoint_with_the_same_bits() {
    for mode in MODES {
        let settings = settings(mode);
        let mut original = trainer(&settings);
        let step = |trainer: &mut Trainer, seed, events| {
            let report = trainer.step(&world(seed, events)).expect("there are events");
            assert!(report.loss.is_finite(), "{mode:?}");
        };
        (0..60).for_each(|seed| step(&mut original, seed, 64));
        // Within a trickle, when the window has events of before.
        (100..105).for_each(|seed| step(&mut original, seed, 3));
        let mut restored = copy(&original, &settings);
        for trainer in [&mut original, &mut restored] {
            (60..70).for_each(|seed| step(trainer, seed, 64 - 7 * (seed as usize % 9)));
        }
        let bytes = |trainer: &Trainer| trainer.capture().into_sections();
        assert!(bytes(&original) == bytes(&restored), "{mode:?}");

        let mut held_out = HeldOut::new(original.state(), 0.0);
        let test = world(1000, 200);
        let queries = original.embed_and_remember(&test);
        held_out.add(&test, &queries, None);
        let items = held_out.candidates();
        assert_eq!(items, 30);
        // Two items of thirty are right for a query; chance alone gives a mean reciprocal rank of
        // .13.
        let mrr = held_out.model.all.mrr();
        assert!(mrr > 0.5, "{mode:?}: {mrr}");
    }
}

/// An id that comes once or twice shares the row of all such ids; from its third sight on it has
/// its own, however the stream is cut, and an item that nothing else places waits outside.
#[test]
fn an_id_gets_a_row_once_it_has_come_often_enough() {
    let settings = settings(&["admission"]);
    let [item_rows, query_rows] = [0, 1];
    let known = |trainer: &Trainer, table: usize, id| {
        trainer.state().model.tables[table].find(id).is_some()
    };
    for together in [false, true] {
        let mut trainer = trainer(&settings);
        let often = id_key(b"often");
        let events = [(0, 1, "often"), (1, 2, "often"), (2, 1, "once"), (3, 1, "often")];
        match together {
            true => drop(trainer.step(&batch(&events)).expect("events")),
            false => events.iter().for_each(|event| {
                let before = known(&trainer, item_rows, often);
                assert!(!before, "after {} of three sights", event.0);
                trainer.step(&batch(&[*event])).expect("an event");
            }),
        }
        let model = &trainer.state().model;
        assert_eq!(model.encoder.tables, ["item", "query"]);
        assert!(known(&trainer, item_rows, often) && known(&trainer, query_rows, 1));
        for (table, id) in [(item_rows, id_key(b"once")), (query_rows, 2)] {
            assert!(!known(&trainer, table, id) && known(&trainer, table, crate::table::UNKNOWN));
        }
        let mut items = trainer.state().corpus.sorted();
        let out = model.take_rowless(&mut items);
        assert_eq!((items.len(), out.len()), (1, 1));
        assert_eq!(&*out[0].1.name, "once");

        // What was counted is in the checkpoint: two sights more are enough.
        let mut restored = copy(&trainer, &settings);
        restored.step(&batch(&[(4, 3, "once"), (5, 4, "once")])).expect("events");
        assert!(known(&restored, item_rows, id_key(b"once")));
    }
}

#[test]
fn a_capture_over_steps_is_the_state_as_it_was() {
    for mode in MODES {
        let mut trainer = trainer(&settings(mode));
        let step = |trainer: &mut Trainer, seed| {
            trainer.step(&world(seed, 64)).expect("there are events");
        };
        (0..10).for_each(|seed| step(&mut trainer, seed));
        let want = trainer.capture();
        assert_eq!(want.progress.step, 10);
        trainer.begin_capture(Whole);
        assert!(trainer.is_capturing());
        // Everything changes before the first share is copied.
        (10..13).for_each(|seed| step(&mut trainer, seed));
        let (got, increments) = handed_out(&mut trainer, |trainer, turn| step(trainer, 13 + turn));
        assert!(increments.is_empty() && trainer.captured_finite());
        let want = want.into_sections();
        assert_eq!(got.len(), want.len());
        for ((name, got), (wanted, want)) in got.iter().zip(&want) {
            assert!(name == wanted && got == want, "{mode:?}: {name}, {wanted}");
        }
    }
}

/// With a weight that outdoes the towers the order is that of log q, and what was had is left out.
#[test]
fn a_great_weight_ranks_by_popularity() {
    let mut trainer = trainer(&settings(&["plain"]));
    for time in 0..40 {
        let a_lot =
            [(time, 1, "a"), (time, 2, "a"), (time, 3, "a"), (time, 4, "b"), (time, 5, "b")];
        trainer.step(&batch(&[&a_lot[..], &[(time, 6, "c")]].concat()));
    }
    let test = batch(&[(50, 9, "a"), (50, 9, "b"), (50, 9, "c"), (50, 9, "never")]);
    let queries = trainer.embed_and_remember(&test);
    let mut held_out = HeldOut::new(trainer.state(), 100.0);
    held_out.add(&test, &queries, None);
    let mean = (1.0 + 1.0 / 2.0 + 1.0 / 3.0) / 4.0;
    assert!((held_out.model.all.mrr() - mean).abs() < 1e-12);
    assert_eq!(held_out.popularity.all.mrr(), held_out.model.all.mrr());
    assert_eq!(held_out.unknown_items, 1);
    assert_eq!(held_out.shown.coverage(3), 1.0);
    assert_eq!(held_out.model.bands[Band::Head as usize].cases(), 1, "a alone is half of all");

    // The query has had a: b is first now.
    let mut seen = Seen::default();
    seen.add(&batch(&[(0, 9, "a")]));
    let mut held_out = HeldOut::new(trainer.state(), 100.0);
    let test = batch(&[(50, 9, "b")]);
    held_out.add(&test, &trainer.state().embed_ahead(&test), Some(&seen));
    assert_eq!((held_out.model.all.mrr(), held_out.popularity.all.mrr()), (1.0, 1.0));

    // In their order: what comes after a of one query is ranked without it, b of another is not.
    let mut held_out = HeldOut::new(trainer.state(), 100.0);
    let test = batch(&[(50, 8, "a"), (50, 8, "b"), (51, 7, "b"), (52, 8, "c")]);
    held_out.add_in_order(&test, &trainer.state().embed_ahead(&test), &mut Seen::default());
    let mean = (1.0 + 1.0 + 1.0 / 2.0 + 1.0) / 4.0;
    assert_eq!((held_out.model.all.mrr(), held_out.popularity.all.mrr()), (mean, mean));
}

#[test]
fn ranks_by_popularity_are_among_the_last_items_and_know_nothing_of_the_batch() {
    let mut trainer = trainer(&settings(&[]));
    for time in 0..20 {
        trainer.step(&batch(&[(time, 1, "a"), (time, 2, "a"), (time, 3, "a"), (time, 4, "b")]));
    }
    // Four of x do not make it popular before they are learned from; x and y tie.
    let events = [
        (50, 1, "x"),
        (50, 2, "x"),
        (50, 3, "x"),
        (50, 4, "x"),
        (50, 5, "y"),
        (50, 6, "b"),
        (50, 7, "a"),
    ];
    let next = batch(&events);
    assert_eq!(popularity::ranks(trainer.state(), &next), [3, 3, 3, 3, 3, 2, 1]);
    trainer.step(&next);
    // A full batch of others: what came before it is no candidate.
    let full: Vec<(i64, u64, String)> = (0..64).map(|at| (60, at, format!("i{at}"))).collect();
    let full: Vec<(i64, u64, &str)> = full.iter().map(|(t, q, i)| (*t, *q, &**i)).collect();
    assert_eq!(popularity::ranks(trainer.state(), &batch(&full)), [32; 64]);
}

#[test]
fn progressive_ranks_before_training_among_recent_items_only() {
    let mut trainer = trainer(&settings(&[]));
    let mut progressive = Progressive::new(ProgressiveSettings {
        candidates_ms: 100,
        popularity_ms: 10,
        weights: vec![0.0, 100.0],
        new_only: true,
        exclude_seen: false,
        cold_events: 3,
    });
    let mut add = |events: &[(i64, u64, &str)]| {
        let batch = batch(events);
        progressive.add(trainer.state(), &batch);
        trainer.step(&batch);
        let mrr = |ranking: &crate::evaluation::progressive::Ranking| ranking.total.all.mrr();
        let total = &progressive.popularity.total;
        (total.all.cases(), total.cold.cases(), mrr(&progressive.popularity))
    };
    // Nothing is known: three misses, all of new items.
    assert_eq!(add(&[(0, 1, "a"), (0, 2, "a"), (0, 3, "b")]), (3, 3, 0.0));
    // a (2 of the last 10 ms) before b (1); query 1 has had a: left out. b came 2 events ago.
    let (cases, cold, mrr) = add(&[(5, 4, "a"), (5, 5, "b"), (5, 1, "a")]);
    assert_eq!((cases, cold), (5, 4));
    assert!((mrr - (1.0 + 0.5) / 5.0).abs() < 1e-12, "{mrr}");
    // Only what came in the last 100 ms is a candidate, and by then the last 10 ms are empty.
    let (cases, _, mrr) = add(&[(104, 6, "a"), (104, 7, "b")]);
    assert_eq!(cases, 7);
    // Ties stand in the order of their keys; the click on a is known when b is ranked.
    let of_a = if id_key(b"a") < id_key(b"b") { 1.0 } else { 0.5 };
    let sum = 1.5 + of_a + 0.5;
    assert!((mrr - sum / 7.0).abs() < 1e-12, "{mrr}");
    assert_eq!(add(&[(300, 8, "a")]).2, sum / 8.0, "a is too old by now");
}

#[test]
fn progressive_ranks_without_what_a_query_has_had() {
    let mut trainer = trainer(&settings(&["plain"]));
    let settings =
        ProgressiveSettings { weights: vec![100.0], exclude_seen: true, ..Default::default() };
    let mut progressive = Progressive::new(settings);
    let traffic = [(0, 1, "a"), (0, 2, "a"), (0, 3, "a"), (0, 4, "b"), (0, 5, "b"), (0, 6, "c")];
    for _ in 0..40 {
        progressive.pass_over(&batch(&traffic));
        trainer.step(&batch(&traffic));
    }
    // Query 1 has had a, query 9 nothing, query 6 has had c and takes it again.
    for (query, item, rank) in [(1, "b", 1.0), (9, "b", 2.0), (6, "c", 3.0), (4, "c", 2.0)] {
        let mut progressive = progressive.clone();
        progressive.add(trainer.state(), &batch(&[(1, query, item)]));
        let of = |ranking: &crate::evaluation::progressive::Ranking| ranking.total.all.mrr();
        let found = (of(&progressive.chosen), of(&progressive.popularity));
        assert_eq!(found, (1.0 / rank, 1.0 / rank), "{query} {item}");
    }
}

#[test]
fn what_is_passed_over_counts_as_what_was_scored() {
    let of_ranking = ProgressiveSettings {
        candidates_ms: 100,
        popularity_ms: 40,
        weights: vec![1.0],
        new_only: true,
        exclude_seen: false,
        cold_events: 50,
    };
    let mut trainer = trainer(&settings(&[]));
    let [mut scored, mut passed] = [(); 2].map(|()| Progressive::new(of_ranking.clone()));
    // The second begins 50 ms after the first began, the third within the first's last 100 ms.
    let [first, second, third] = [(0, 20), (50, 20), (90, 64)].map(|(start, events)| {
        let mut batch = world(start, events);
        batch.events.times_ms.iter_mut().for_each(|time| *time += start as i64);
        batch
    });
    for batch in [&first, &second] {
        scored.add(trainer.state(), batch);
        passed.pass_over(batch);
        trainer.step(batch);
    }
    let cases = |progressive: &Progressive| {
        let quality = &progressive.popularity.total;
        let sums = |quality: &crate::evaluation::metrics::Quality| {
            (
                quality.all.cases(),
                quality.cold.cases(),
                quality.all.mrr() * quality.all.cases() as f64,
            )
        };
        (sums(quality), sums(&progressive.weights[0].total), progressive.mean_candidates())
    };
    assert!(cases(&passed).2.is_nan(), "nothing is scored yet");
    let before = cases(&scored);
    scored.add(trainer.state(), &third);
    passed.add(trainer.state(), &third);
    let (after, alone) = (cases(&scored), cases(&passed));
    for (before, after, alone) in [(before.0, after.0, alone.0), (before.1, after.1, alone.1)] {
        assert!(alone.0 > 0 && alone.1 < alone.0, "{alone:?}");
        assert_eq!((after.0 - before.0, after.1 - before.1), (alone.0, alone.1));
        assert!((after.2 - before.2 - alone.2).abs() < 1e-9, "{before:?} {after:?} {alone:?}");
    }
}

/// A batch that is passed over moves all that counts as one that is trained on does, and no weight.
#[test]
fn what_is_passed_over_is_counted_and_teaches_nothing() {
    let [mut trained, mut passed] = [(); 2].map(|()| trainer(&settings(&["plain"])));
    for trainer in [&mut trained, &mut passed] {
        trainer.step(&world(1, 1000));
    }
    let weights = |trainer: &Trainer| trainer.state().model.towers.save();
    let known = world(3, 200);
    let (before, queries) = (weights(&passed), passed.state().embed_ahead(&known));
    let fashion = [(2000, 50, "item 0"), (2000, 51, "item 0"), (2000, 52, "new")].repeat(20);
    for batch in [world(2, 300), batch(&fashion)] {
        trained.step(&batch);
        passed.pass_over(&batch);
    }
    let log_q = |trainer: &Trainer| {
        let ids = ["item 0", "item 1", "new", "never"].map(|name| id_key(name.as_bytes()));
        let mut log_q = [0.0; 4];
        trainer.state().frequency.log_q(&ids, Meaning::ExpectedCount, &mut log_q);
        log_q
    };
    assert_eq!(log_q(&passed), log_q(&trained));
    assert_eq!((passed.progress().events, passed.progress().step), (trained.progress().events, 1));
    assert_eq!(passed.state().corpus.len(), trained.state().corpus.len());
    assert_eq!(passed.state().histories(), trained.state().histories());
    assert_ne!(passed.state().embed_ahead(&known), queries, "histories have moved on");
    assert!(weights(&passed) == before, "nothing is learned");
    assert!(weights(&trained) != before);
}

/// `queries` sees what `embed_queries` sees, and leaves the histories as they are.
#[test]
fn queries_change_nothing() {
    let mut trainer = trainer(&settings(&[]));
    trainer.step(&world(1, 300));
    let next = world(2, 300);
    let (first, second) = (trainer.state().embed_ahead(&next), trainer.state().embed_ahead(&next));
    assert_eq!(first, second);
    assert_eq!(first, trainer.embed_and_remember(&next));
    assert_ne!(first, trainer.state().embed_ahead(&next), "histories have moved on");
}

/// Sharing a column is cheaper, not different. A mask of queries keeps events apart, and masks
/// nothing here: no query comes twice in a batch.
#[test]
fn past_vectors_are_of_as_many_events_whether_or_not_items_share_a_column() {
    let losses = [&["cross_batch"][..], &["cross_batch", "masked"]].map(|mode| {
        let mut trainer = trainer(&settings(mode));
        let mut random = SplitMix::new(7);
        let mut step = |seed: u64| {
            // A third of the events are of one item.
            let item = |draw: u64| if draw.is_multiple_of(3) { 0 } else { draw / 3 % 30 };
            let names: Vec<String> =
                (0..64).map(|_| format!("item {}", item(random.next_u64()))).collect();
            let events =
                (0i64..).zip(&names).map(|(at, name)| (at, 64 * seed + at as u64, &**name));
            let batch = batch(&events.collect::<Vec<_>>());
            trainer.step(&batch).expect("there are events").loss
        };
        (0..8).map(&mut step).collect::<Vec<f32>>()
    });
    for (merged, apart) in losses[0].iter().zip(&losses[1]) {
        assert!((merged - apart).abs() < 1e-3, "{merged} {apart}");
    }
}

/// However a stream is cut, it teaches what it teaches in full batches; and a long night of single
/// events takes nothing away.
#[test]
fn a_trickle_teaches_what_full_batches_teach() {
    for mode in [&[][..], &["plain"], &["excluded", "mixed"], &["mixed", "cross_batch", "adam"]] {
        let settings = settings(mode);
        let mut begun = trainer(&settings);
        (0..25).for_each(|seed| drop(begun.step(&world(seed, 64))));
        let then = |cut: usize, batches: u64| {
            let mut trainer = copy(&begun, &settings);
            for batch in (100..100 + batches).map(|seed| world(seed, 64)) {
                let events: Vec<u32> = (0..64).collect();
                for part in events.chunks(cut) {
                    let report = trainer.step(&batch.part(part));
                    assert!(report.expect("there are events").loss.is_finite());
                }
            }
            quality(&trainer)
        };
        let (before, full) = (quality(&begun), then(64, 30));
        assert!(full > before, "{mode:?}: there is something to learn: {before} {full}");
        for cut in [16, 3, 1] {
            let found = then(cut, 30);
            println!(
                "{mode:?}: {before:.3} before, {full:.3} in full batches, {found:.3} by {cut}"
            );
            assert!(found >= 0.95 * full, "{mode:?}, cut by {cut}: {found} where {full} is had");
        }
        assert!(then(1, 100) >= 0.95 * full, "{mode:?}: after a night of single events");
    }
}

/// Events that are worth nothing, and events with nothing to be told apart from, move no weight,
/// and make none forget.
#[test]
fn without_a_gradient_nothing_moves() {
    let settings = settings(&[]);
    let mut trainer = trainer(&settings);
    (0..10).for_each(|seed| drop(trainer.step(&world(seed, 64))));
    let before = trainer.state().model.towers.save();
    let mut worthless = world(50, 64);
    worthless.events.rewards.fill(0.0);
    trainer.step(&worthless);
    assert!(trainer.state().model.towers.save() == before);
    let mut fresh = self::trainer(&settings);
    let before = fresh.state().model.towers.save();
    fresh.step(&world(1, 1));
    assert!(fresh.state().model.towers.save() == before, "one event, and none before it");
}

/// In its second pass a query's history begins anew: what it holds at the end of the first lies in
/// the future, the target itself included.
#[test]
fn histories_begin_anew_with_each_pass() {
    let mut trainer = trainer(&settings(&[]));
    let first = batch(&[(0, 7, "a"), (1, 7, "b"), (2, 7, "c")]);
    trainer.step(&first);
    trainer.begin_capture(Whole);
    trainer.step(&Batch { pass: 2, ..first.part(&[0]) });
    assert_eq!(trainer.state().histories.of(7), [id_key(b"a")]);
    // A snapshot that was begun before the pass still has what was there then.
    let (sections, _) = handed_out(&mut trainer, |_, _| ());
    let (_, bytes) = sections.iter().find(|(name, _)| name == "histories").expect("a section");
    let mut histories = crate::memory::history::Histories::new(10, 3);
    histories.load(bytes).expect("just captured");
    assert_eq!(histories.of(7), ["a", "b", "c"].map(|item| id_key(item.as_bytes())));
}

/// An event without a finite vector is left out and named; all others are trained on, in this step
/// and in those whose windows it would be in.
#[test]
fn an_event_that_is_not_finite_costs_itself_alone() {
    for mode in MODES {
        let settings = settings(mode);
        let mut trainer = trainer(&settings);
        (0..10).for_each(|seed| drop(trainer.step(&world(seed, 64))));
        let mut bad = world(50, 64);
        bad.events.rewards[5] = f32::NAN;
        bad.events.rewards[63] = f32::INFINITY;
        let before = trainer.state().model.towers.save();
        let report = trainer.step(&bad).expect("there are events");
        assert!(report.loss.is_finite(), "{mode:?}");
        assert_eq!((report.ranks.len(), &report.unusable[..]), (62, &[5, 63][..]));
        assert!(trainer.state().model.towers.save() != before, "the rest was trained on");
        let report = trainer.step(&world(51, 3)).expect("there are events");
        assert!(report.loss.is_finite() && report.unusable.is_empty(), "{mode:?}");
        // Alone in its batch it is to blame; a whole batch is not: then something else has broken.
        for (events, blamed) in [(1, 1), (4, 0)] {
            let mut all = world(52, events);
            all.events.rewards.fill(f32::NAN);
            let report = trainer.step(&all).expect("there are events");
            assert!(!report.loss.is_finite() && report.unusable.len() == blamed);
        }
        assert!(trainer.capture().finite && trainer.state().model.is_finite());
    }
}

/// Ranks are among the window's items, whatever the batch: one event alone is not first for want of
/// others.
#[test]
fn a_small_batch_is_ranked_among_a_full_ones_items() {
    let mut trainer = trainer(&settings(&[]));
    (0..3).for_each(|seed| drop(trainer.step(&world(seed, 64))));
    let mut worst = 0;
    for seed in 10..40 {
        let report = trainer.step(&world(seed, 1)).expect("there is an event");
        assert_eq!((report.candidates, report.ranks.len()), (64, 1));
        worst = worst.max(report.ranks[0]);
    }
    assert!(worst > 5, "some of 30 single events rank low in a model that knows nothing: {worst}");
}

#[test]
fn the_query_side_of_a_state_gives_its_vectors() {
    let settings = settings(&[]);
    let mut trainer = trainer(&settings);
    let world = world(77, 400);
    for start in (0..400).step_by(50) {
        let events: Vec<u32> = (start..start + 50).collect();
        trainer.step(&world.part(&events));
    }
    let chain = [trainer.capture().into_sections()];
    let read = |name: &str, take: TakePart<'_>| read_chain(&chain, name, take);
    let side = QuerySide::restore(&settings, &read).expect("just captured");
    let queries = &world.events.query_ids;
    let kept: Vec<Vec<u64>> = queries.iter().map(|&query| side.history(query, &[])).collect();
    assert_eq!(side.embed(&world, &kept), trainer.state().embed_now(&world));
    assert!(side.keeps_histories() && side.history(queries[0], &[]).len() == 3);
    assert!(side.history(99, &[]).is_empty());
    // What comes after is the trainer's histories over the same model.
    let later = self::world(78, 200);
    trainer.pass_over(&later);
    let after = |query: u64| {
        let own = later.events.query_ids.iter().zip(&later.events.item_ids);
        let items: Vec<u64> = own.filter(|(id, _)| **id == query).map(|(_, &item)| item).collect();
        side.history(query, &items)
    };
    let followed: Vec<Vec<u64>> = queries.iter().map(|&query| after(query)).collect();
    assert_ne!(followed, kept);
    assert_eq!(side.embed(&world, &followed), trainer.state().embed_now(&world));
    // The second feature is a history, which has no ids of its own.
    let stranger = batch(&[(0, 99, "item 1"), (0, world.events.query_ids[0], "item 1")]);
    let encoder = &side.model.encoder.query;
    let unknown = |event| encoder.unknown(&stranger.events.query, event, &side.model.tables);
    assert_eq!((unknown(0), unknown(1)), (vec![0], vec![]));
}

/// Settings with a category beside the item's id, and a country beside the query's.
fn listed_settings() -> TrainSettings {
    let rows = |table: &str| FeatureInput::Rows { table: table.into() };
    let feature = |name: &str| Feature::new(name, rows(name));
    let query = vec![feature("query"), feature("country")];
    let mut settings = TrainSettings::new(32, query, vec![feature("item"), feature("category")]);
    settings.model.hidden = vec![16];
    settings.model.dim = 8;
    settings.objective.mixed = 20;
    settings.frequency.buckets = 512;
    settings.model.tables.values_mut().for_each(|table| table.dim = 8);
    settings
}

fn places() -> Vec<CataloguePlace> {
    let place = |side, topic: &str| CataloguePlace {
        side,
        reading: String::new(),
        next: Offsets::new(topic),
        bootstrap: Offsets::new(topic),
    };
    vec![place(EventSide::Item, "items"), place(EventSide::Query, "users")]
}

fn listed(at: u32, side: EventSide, id: u64, value: Option<u64>) -> CatalogueChange {
    let values = value.map(|value| match side {
        EventSide::Item => vec![FeatureValue::Id(id), FeatureValue::Id(value)],
        EventSide::Query => vec![FeatureValue::Absent, FeatureValue::Id(value)],
    });
    let name = format!("{side:?} {id}").into();
    CatalogueChange { at, side, id, name, values, attributes: Vec::new() }
}

/// A batch of events `(query, item)`, `at` records into the log, of which some bring values of
/// their own: those of items above 100.
fn unlisted(events: &[(u64, u64)], changes: Vec<CatalogueChange>, at: i64) -> Batch {
    let mut offsets = Offsets::new("t");
    offsets.advance(0, at);
    let mut batch = Batch::new(Events::new(2, 2), offsets);
    for &(query_id, item_id) in events {
        let own = if item_id > 100 { FeatureValue::Id(999) } else { FeatureValue::Absent };
        batch.events.push(&Event {
            time_ms: 0,
            query_id,
            item_id,
            item_name: format!("Item {item_id}").into(),
            reward: 1.0,
            query: vec![FeatureValue::Id(query_id), FeatureValue::Absent],
            item: vec![FeatureValue::Id(item_id), own],
        });
    }
    batch.changes = changes;
    batch.catalogues = ["items", "users"].map(Offsets::new).to_vec();
    batch
}

#[test]
fn an_event_has_what_catalogues_said_before_it_and_its_own_values_win() {
    let settings = listed_settings();
    let mut trainer = trainer(&settings);
    trainer.follow(&settings, places());
    let changes = vec![
        listed(0, EventSide::Item, 1, Some(7)),
        listed(0, EventSide::Item, 101, Some(7)),
        listed(1, EventSide::Query, 5, Some(40)),
        listed(2, EventSide::Item, 1, Some(8)),
        listed(3, EventSide::Item, 1, None),
    ];
    let events = [(5, 1), (5, 101), (5, 1), (5, 1)];
    let mut seen = None;
    trainer
        .step_looking(
            &unlisted(&events, changes, 4),
            |_, batch| seen = Some(batch.clone()),
            &mut |_| {},
        )
        .expect("events");
    let batch = seen.expect("it was shown");
    let values = |column: &millrace_events::Column| (0..4).map(|i| column.value(i)).collect();
    let (categories, countries): (Vec<_>, Vec<_>) =
        (values(&batch.events.item[1]), values(&batch.events.query[1]));
    use FeatureValue::{Absent, Id};
    assert_eq!(categories, [Id(7), Id(999), Id(8), Absent]);
    assert_eq!(countries, [Absent, Id(40), Id(40), Id(40)]);
}

#[test]
fn a_catalogue_brings_items_that_nobody_asked_for_and_takes_them_out() {
    let settings = listed_settings();
    let mut trainer = trainer(&settings);
    trainer.follow(&settings, places());
    let corpus = |trainer: &Trainer| {
        let items = trainer.state().corpus.sorted().into_iter();
        items.map(|(id, item)| (id, item.count)).collect::<Vec<_>>()
    };
    let listing = (1..=3).map(|id| listed(0, EventSide::Item, id, Some(7))).collect();
    assert!(trainer.step(&unlisted(&[], listing, 0)).is_none(), "there is no event");
    assert_eq!((trainer.progress().step, trainer.progress().events), (1, 0));
    assert_eq!(corpus(&trainer), [(1, 0), (2, 0), (3, 0)]);
    trainer.step(&unlisted(&[(9, 1), (9, 4)], vec![], 2)).expect("events");
    assert_eq!(corpus(&trainer), [(1, 1), (2, 0), (3, 0), (4, 1)]);
    // An item without a row of its own has a vector; one that was never anywhere has none.
    let mut items = trainer.state().corpus.sorted();
    assert!(trainer.state().model.take_rowless(&mut items).is_empty());

    let gone = vec![listed(0, EventSide::Item, 1, None), listed(0, EventSide::Item, 77, None)];
    trainer.step(&unlisted(&[(9, 1), (9, 2)], gone, 4)).expect("events");
    assert_eq!(corpus(&trainer), [(2, 1), (3, 0), (4, 1)], "a late click brings nothing back");
    let tombstones = trainer.state().corpus.tombstones();
    assert_eq!(tombstones, [Box::from("Item 1"), "Item 77".into()]);
    trainer.step(&unlisted(&[], vec![listed(0, EventSide::Item, 1, Some(7))], 4));
    assert_eq!(corpus(&trainer), [(1, 0), (2, 1), (3, 0), (4, 1)]);
    assert_eq!(trainer.state().corpus.tombstones(), [Box::from("Item 77")]);
}

#[test]
fn what_a_catalogue_lists_does_not_expire() {
    let mut settings = listed_settings();
    settings.item_expiry_events = Some(32);
    let mut trainer = trainer(&settings);
    trainer.follow(&settings, places());
    let listing = vec![listed(0, EventSide::Item, 1, Some(7))];
    trainer.step(&unlisted(&[(9, 1), (9, 2)], listing, 2)).expect("events");
    (0..40).for_each(|n| drop(trainer.step(&unlisted(&[(9, 3), (8, 3)], vec![], 4 + 2 * n))));
    let there: Vec<u64> = trainer.state().corpus.sorted().into_iter().map(|(id, _)| id).collect();
    assert_eq!(there, [1, 3]);
}

#[test]
fn who_answers_knows_of_a_query_what_the_state_does() {
    let settings = listed_settings();
    let mut trainer = trainer(&settings);
    trainer.follow(&settings, places());
    let changes = vec![listed(0, EventSide::Query, 5, Some(40))];
    trainer.step(&unlisted(&[(5, 1), (6, 1)], changes, 2)).expect("events");
    let sections = trainer.capture().into_sections();
    let read =
        |name: &str, take: TakePart<'_>| read_chain(std::slice::from_ref(&sections), name, take);
    let side = QuerySide::restore(&settings, &read).expect("captured");
    let batch = unlisted(&[(5, 1), (6, 1)], vec![], 2);
    assert_eq!(side.completed(&batch).events, batch.events, "without the catalogue");
    let side = side.with_catalogue(&settings, &read).expect("captured");
    let countries = &side.completed(&batch).events.query[1];
    assert_eq!(
        [countries.value(0), countries.value(1)],
        [FeatureValue::Id(40), FeatureValue::Absent]
    );
}

/// As [`increments_add_up_to_the_state`], with changes of catalogues between events and alone.
#[test]
fn increments_add_up_with_catalogues_and_a_restored_state_goes_on_alike() {
    let mut settings = listed_settings();
    settings.items_max = 60;
    let mut trainer = trainer(&settings);
    trainer.follow(&settings, places());
    let (mut random, mut at) = (SplitMix::new(8), 0);
    let mut next = move || {
        let mut below = |bound: u64| random.next_u64() % bound;
        let events: Vec<_> = (0..below(3) * 9).map(|_| (below(20), below(50))).collect();
        let mut places: Vec<u32> =
            (0..below(9)).map(|_| below(events.len() as u64 + 1) as u32).collect();
        places.sort_unstable();
        let side = |n| if n == 0 { EventSide::Query } else { EventSide::Item };
        let changes = places.into_iter().map(|place| {
            let value = (below(4) > 0).then(|| below(12));
            listed(place, side(below(3)), below(70), value)
        });
        let changes = changes.collect();
        at += events.len() as i64;
        unlisted(&events, changes, at)
    };
    let mut chain: Vec<Sections> = Vec::new();
    for extent in [Whole, Changed, Changed, Whole, Changed, Changed, Changed] {
        (0..5).for_each(|_| drop(trainer.step(&next())));
        let (want, progress) = (trainer.capture().into_sections(), trainer.progress().clone());
        assert!(want.iter().any(|(name, _)| name == "catalogue.query"));
        trainer.begin_capture(extent);
        let (contents, increments) = handed_out(&mut trainer, |trainer, _| {
            trainer.step(&next());
        });
        assert!(contents == want);
        trainer.settle_capture(true);
        let written = contents.into_iter().map(|(name, content)| {
            match increments.iter().find(|(own, _)| *own == name) {
                Some((_, bytes)) => (format!("+{name}"), bytes.clone()),
                None => (name, content),
            }
        });
        chain.push(written.collect());
        let read = |name: &str, take: TakePart<'_>| read_chain(&chain, name, take);
        let restored =
            Trainer::restore(&settings, &Placement::Cpu, progress, &read).expect("captured");
        assert!(restored.capture().into_sections() == want);
    }
    assert!(chain[2].iter().any(|(name, _)| name == "+catalogue.item"), "an increment");
    let mut restored = copy(&trainer, &settings);
    for _ in 0..5 {
        let batch = next();
        trainer.step(&batch);
        restored.step(&batch);
    }
    assert!(trainer.capture().into_sections() == restored.capture().into_sections());
}
