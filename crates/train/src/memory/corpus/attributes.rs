//! What is said of items for people and stores: titles, prices, pictures. No tower reads it.
//!
//! Owns which word on an item counts, and what the corpus's section has of it behind the items.
//! They are bounded as the items are, and go with them. A value is a text of JSON.
//!
//! Must never know: what a value says.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Corpus, Item, WHAT};
use crate::memory::pieces::Pieces;
use crate::saved::{Damaged, decode};
use millrace_events::{ATTRIBUTES_BYTES_MAX, Batch, CatalogueChange, EventSide};

/// What is said of one item.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes {
    /// By place of the name; empty: nothing is said.
    values: Vec<Box<str>>,
    /// Events of the stream when one of them changed last.
    pub(super) changed: u64,
}

/// The end of the section, and of an increment.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedAttributes<'s> {
    #[serde(borrow)]
    names: Vec<&'s str>,
    #[serde(borrow)]
    values: Vec<(u64, Vec<&'s str>)>,
}

impl Attributes {
    /// The JSON of the attribute at `place`; empty: nothing is said.
    pub fn get(&self, place: usize) -> &str {
        self.values.get(place).map_or("", |json| json)
    }

    /// Takes what `event` of `batch` says, as far as no catalogue says otherwise behind it.
    pub(super) fn take(&mut self, batch: &Batch, event: usize, now: u64) {
        let id = batch.events.item_ids[event];
        for (place, column) in batch.events.attributes.iter().enumerate() {
            let json = column.get(event);
            if json.is_empty() || json == self.get(place) {
                continue;
            }
            let later = batch.changes.iter().rev().take_while(|change| change.at as usize > event);
            let mut later =
                later.filter(|change| (change.side, change.id) == (EventSide::Item, id));
            if !later.any(|change| change.values.is_none() || !word(change, place).is_empty()) {
                self.set(place, json, now);
            }
        }
    }

    /// Takes a catalogue's word.
    fn follow(&mut self, change: &CatalogueChange, now: u64) {
        if change.values.is_none() {
            *self = Self { values: Vec::new(), changed: now };
        }
        for place in 0..change.attributes.len() {
            self.set(place, word(change, place), now);
        }
    }

    /// Takes a newer value, unless all of them would be too long.
    fn set(&mut self, place: usize, json: &str, now: u64) {
        if json.is_empty() || json == self.get(place) {
            return;
        }
        let bytes: usize = self.values.iter().map(|json| json.len()).sum();
        if bytes - self.get(place).len() + json.len() > ATTRIBUTES_BYTES_MAX {
            return;
        }
        if self.values.len() <= place {
            self.values.resize(place + 1, Box::default());
        }
        self.values[place] = json.into();
        self.changed = now;
    }
}

/// What a catalogue says of the attribute at `place`; empty: nothing.
fn word(change: &CatalogueChange, place: usize) -> &str {
    change.attributes.get(place).map_or("", |json| json)
}

impl Corpus {
    /// Names of the attributes that are kept.
    pub fn attributes(&self) -> &[String] {
        &self.attributes
    }

    /// Keeps those of other `names` from now on: what was said under one of them stays.
    pub(super) fn keep_attributes(&mut self, names: Vec<String>) {
        if names == self.attributes {
            return;
        }
        let place = |name| self.attributes.iter().position(|before| before == name);
        let places: Vec<Option<usize>> = names.iter().map(place).collect();
        for item in self.items.values_mut().filter(|item| !item.attributes.values.is_empty()) {
            let attributes = &mut Arc::make_mut(item).attributes;
            let mut before = std::mem::take(&mut attributes.values);
            let mut moved = |place: &Option<usize>| {
                place.and_then(|place| before.get_mut(place)).map(std::mem::take)
            };
            attributes.values =
                places.iter().map(|place| moved(place).unwrap_or_default()).collect();
        }
        self.attributes = names;
    }

    /// Takes in what catalogues say of the attributes of items that are there. All of their words
    /// count: each may be on another attribute.
    pub(super) fn follow_attributes<'c>(
        &mut self,
        changes: impl Iterator<Item = &'c CatalogueChange>,
        now: u64,
    ) {
        for change in changes.filter(|_| !self.attributes.is_empty()) {
            let Some(item) = self.items.get_mut(&change.id) else { continue };
            if item.name == change.name {
                if let Some(capturing) = &mut self.capturing {
                    capturing.items.keep(change.id, item);
                }
                Arc::make_mut(item).attributes.follow(change, now);
            }
        }
    }

    /// Takes over the end of the section, or of an increment; none: no attributes were kept.
    pub(super) fn take_attributes(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        if bytes.is_empty() {
            self.keep_attributes(Vec::new());
            return Ok(());
        }
        let SavedAttributes { names, values } = decode(WHAT, bytes)?;
        self.keep_attributes(names.iter().map(|&name| name.to_owned()).collect());
        for (id, values) in values {
            let item = self.items.get_mut(&id).filter(|_| values.len() <= names.len());
            let Some(item) = item else {
                return Err("the corpus is damaged: attributes of no item".into());
            };
            let values = values.into_iter().map(Box::from).collect();
            Arc::make_mut(item).attributes = Attributes { values, changed: 0 };
        }
        Ok(())
    }
}

/// Appends what [`SavedAttributes`] reads: to the section those of all `items` that have any, to
/// the increment those that have `changed`.
pub(super) fn append<E>(
    names: &[String],
    items: &[(u64, Arc<Item>)],
    changed: impl Fn(u64, &Item) -> bool,
    pieces: &mut Pieces<'_, E>,
) -> Result<(), E> {
    if names.is_empty() {
        return Ok(());
    }
    let some = |item: &Item| !item.attributes.values.is_empty();
    pieces.content(&(names, items.iter().filter(|(_, item)| some(item)).count()));
    pieces.increment(&(names, items.iter().filter(|(id, item)| changed(*id, item)).count()));
    for (id, item) in items {
        let entry = (id, &item.attributes.values);
        if some(item) {
            pieces.content(&entry);
        }
        if changed(*id, item) {
            pieces.increment(&entry);
        }
        pieces.turn()?;
    }
    Ok(())
}

/// What [`append`] appends to the section of all `items`.
pub(super) fn end_of_section<'s>(
    names: &'s [String],
    items: &'s [(u64, Item)],
) -> Option<SavedAttributes<'s>> {
    let some = items.iter().filter(|(_, item)| !item.attributes.values.is_empty());
    let values =
        some.map(|(id, item)| (*id, item.attributes.values.iter().map(|v| &**v).collect()));
    (!names.is_empty()).then(|| SavedAttributes {
        names: names.iter().map(String::as_str).collect(),
        values: values.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{Capture, Extent};
    use crate::saved::{ReadSection, SavedBytes, SavedPart, TakePart};
    use millrace_events::{FeatureValue, Names, SplitMix, id_key};

    /// Events of items, each with what its record says of two attributes.
    fn batch(events: &[(&str, [&str; 2])]) -> Batch {
        let names: Vec<&str> = events.iter().map(|(name, _)| *name).collect();
        let mut batch = super::super::tests::batch(&names);
        batch.events.attributes = vec![Names::default(); 2];
        for (place, column) in batch.events.attributes.iter_mut().enumerate() {
            events.iter().for_each(|(_, said)| column.push(said[place]));
        }
        batch
    }

    /// A catalogue's word on an item; none: it takes it out.
    fn change(at: u32, name: &str, said: Option<[&str; 3]>) -> CatalogueChange {
        let (side, id) = (EventSide::Item, id_key(name.as_bytes()));
        let values = said.map(|_| vec![FeatureValue::Absent]);
        let attributes = said.iter().flatten().map(|&json| json.into()).collect();
        CatalogueChange { at, side, id, name: name.into(), values, attributes }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn corpus(items_max: usize) -> Corpus {
        Corpus::new(items_max, 100).keeping(names(&["title", "price", "picture"]))
    }

    fn said<'c>(corpus: &'c Corpus, name: &str) -> Vec<&'c str> {
        let item = &corpus.items[&id_key(name.as_bytes())];
        (0..3).map(|place| item.attributes.get(place)).collect()
    }

    fn step(corpus: &mut Corpus, batch: &Batch, now: u64) {
        corpus.follow(batch.changes.iter(), now);
        corpus.remember(batch, now);
    }

    #[test]
    fn the_newest_word_counts_attribute_by_attribute() {
        let mut corpus = corpus(10);
        corpus.remember(&batch(&[("a", ["\"A\"", "1"]), ("a", ["", "2"]), ("b", ["", ""])]), 3);
        assert_eq!(said(&corpus, "a"), ["\"A\"", "2", ""]);
        assert_eq!(said(&corpus, "b"), ["", "", ""]);
        // All words of a catalogue count, and an event's only until one comes behind it.
        let mut next = batch(&[("a", ["\"event\"", "5"]), ("a", ["\"late\"", ""])]);
        next.changes = vec![
            change(1, "a", Some(["\"row\"", "", ""])),
            change(1, "a", Some(["", "", "\"x\""])),
            change(2, "a", Some(["", "7", ""])),
        ];
        step(&mut corpus, &next, 5);
        assert_eq!(said(&corpus, "a"), ["\"late\"", "7", "\"x\""]);
        // What went takes all with it, also where it is back within a batch.
        let mut back = batch(&[("a", ["\"gone\"", ""])]);
        back.changes = vec![change(1, "a", None), change(1, "a", Some(["", "9", ""]))];
        step(&mut corpus, &back, 6);
        assert_eq!(said(&corpus, "a"), ["", "9", ""]);
    }

    /// Live is not replay: where the stream was cut into batches changes nothing.
    #[test]
    fn what_counts_does_not_depend_on_the_batches() {
        let mut random = SplitMix::new(3);
        let mut word = move || match random.next_u64() % 3 {
            0 => String::new(),
            n => format!("{}", n + random.next_u64() % 50),
        };
        // An event, and what the catalogue says behind it.
        let turns: Vec<[String; 5]> = (0..400).map(|_| std::array::from_fn(|_| word())).collect();
        let name = |turn: usize| ["a", "b", "c"][turn * 7 % 5 % 3];
        let cut = |size: usize| {
            let (mut corpus, mut now) = (corpus(10), 0);
            let all: Vec<usize> = (0..turns.len()).collect();
            for places in all.chunks(size) {
                let said = |&turn: &usize| (name(turn), [&*turns[turn][0], &*turns[turn][1]]);
                let mut batch = batch(&places.iter().map(said).collect::<Vec<_>>());
                let row = |(at, &turn): (u32, &usize)| {
                    let [_, _, title, price, picture] = turns[turn].each_ref().map(|text| &**text);
                    change(at, name(turn + 1), Some([title, price, picture]))
                };
                batch.changes = (1..).zip(places).map(row).collect();
                now += batch.len() as u64;
                step(&mut corpus, &batch, now);
            }
            ["a", "b", "c"].map(|name| said(&corpus, name).join(" "))
        };
        let one_by_one = cut(1);
        for size in [2, 7, 400] {
            assert_eq!(cut(size), one_by_one, "{size} events a batch");
        }
    }

    #[test]
    fn an_item_has_no_more_than_so_many_bytes() {
        let mut corpus = corpus(10);
        let long = format!("\"{}\"", "x".repeat(ATTRIBUTES_BYTES_MAX / 2));
        corpus.remember(&batch(&[("a", [&long, "1"]), ("a", ["", &long])]), 2);
        assert_eq!(said(&corpus, "a"), [&*long, "1", ""], "what was there stays");
        corpus.remember(&batch(&[("a", ["\"short\"", &long])]), 3);
        assert_eq!(said(&corpus, "a"), ["\"short\"", &*long, ""]);
    }

    /// Whole sections and increments, as checkpoints hold them.
    type Parts = Vec<(bool, Vec<u8>)>;

    fn restored(parts: &Parts, mut corpus: Corpus) -> Corpus {
        let read = |_: &str, take: TakePart<'_>| {
            parts.iter().try_for_each(|(increment, bytes)| match increment {
                true => take(SavedPart::Increment(SavedBytes::of(bytes))),
                false => take(SavedPart::Whole(SavedBytes::of(bytes))),
            })
        };
        let read: ReadSection<'_> = &read;
        corpus.restore(read).expect("just written");
        corpus
    }

    /// Copies the corpus while `meanwhile` changes it, and notes what a checkpoint would hold.
    fn capture(corpus: &mut Corpus, parts: &mut Parts, meanwhile: impl FnOnce(&mut Corpus)) {
        let want = corpus.save();
        corpus.begin_capture(if parts.is_empty() { Extent::Whole } else { Extent::Changed });
        meanwhile(corpus);
        let copy = corpus.advance_capture(&mut 1000).expect("all of it");
        let (mut whole, mut increment) = (Vec::new(), Vec::new());
        let Ok(()) = copy.pieces::<std::convert::Infallible>(&mut |piece| {
            whole.extend(piece.content);
            increment.extend(piece.increment.unwrap_or_default());
            Ok(())
        });
        assert!(whole == want, "the section is the corpus as it was");
        corpus.settle_capture(true);
        parts.push((!parts.is_empty(), if parts.is_empty() { whole } else { increment }));
    }

    #[test]
    fn increments_add_up_to_what_was_said() {
        let (mut corpus, mut parts, mut now) = (corpus(16), Parts::new(), 0);
        let mut random = SplitMix::new(11);
        let mut move_on = |corpus: &mut Corpus, turns| {
            for _ in 0..turns {
                let mut word = |odds: u64| match random.next_u64() % odds {
                    0 => format!("\"{}\"", random.next_u64() % 9),
                    _ => String::new(),
                };
                let words = [word(2), word(3), word(3)];
                let [title, price, picture] = words.each_ref().map(String::as_str);
                let name = format!("item {}", random.next_u64() % 24);
                let mut batch = match random.next_u64() % 3 {
                    0 => batch(&[]),
                    _ => batch(&[(&name, [title, price])]),
                };
                let other = format!("item {}", random.next_u64() % 24);
                batch.changes = match random.next_u64() % 8 {
                    0..3 => vec![change(0, &other, Some([title, price, picture]))],
                    3 => vec![change(0, &other, None)],
                    _ => Vec::new(),
                };
                now += batch.len() as u64;
                step(corpus, &batch, now);
            }
        };
        for turn in 0..30 {
            move_on(&mut corpus, 8);
            let want = corpus.save();
            capture(&mut corpus, &mut parts, |corpus| move_on(corpus, 3));
            let again = restored(&parts, self::corpus(16));
            assert!(again.save() == want, "turn {turn}");
            if turn % 7 == 6 {
                // A restart goes on, from before what came meanwhile.
                corpus = again;
            }
        }
        assert!(parts.iter().all(|(_, bytes)| !bytes.is_empty()));
    }

    #[test]
    fn an_increment_has_a_title_once() {
        let (mut corpus, mut parts) = (corpus(16), Parts::new());
        let long = format!("\"{}\"", "x".repeat(1000));
        corpus.remember(&batch(&[("a", [&long, "1"])]), 1);
        capture(&mut corpus, &mut parts, |_| {});
        corpus.remember(&batch(&[("a", [&long, "1"])]), 2);
        capture(&mut corpus, &mut parts, |_| {});
        assert!(parts[1].1.len() < 200, "{} bytes", parts[1].1.len());
        assert_eq!(said(&restored(&parts, self::corpus(16)), "a"), [&*long, "1", ""]);
    }

    #[test]
    fn other_names_may_be_kept_from_a_restart_on() {
        let (mut plain, mut parts) = (Corpus::new(16, 100), Parts::new());
        plain.remember(&batch(&[("a", ["", ""]), ("b", ["", ""])]), 2);
        capture(&mut plain, &mut parts, |_| {});
        let mut corpus = restored(&parts, self::corpus(16));
        assert_eq!(said(&corpus, "a"), ["", "", ""], "none was kept");
        corpus.remember(&batch(&[("a", ["\"A\"", "1"])]), 3);
        capture(&mut corpus, &mut parts, |_| {});
        let turned = || Corpus::new(16, 100).keeping(names(&["price", "shop", "title"]));
        let mut corpus = restored(&parts, turned());
        assert_eq!(said(&corpus, "a"), ["1", "", "\"A\""], "by their names");
        corpus.remember(&batch(&[("b", ["5", "\"s\""])]), 4);
        let want = corpus.save();
        capture(&mut corpus, &mut parts, |_| {});
        assert_eq!(restored(&parts, turned()).save(), want);
        let off = restored(&parts, Corpus::new(16, 100));
        assert_eq!(said(&off, "a"), ["", "", ""]);
        let mut never = Corpus::new(16, 100);
        never.remember(&batch(&[("a", ["", ""]), ("b", ["", ""])]), 2);
        never.remember(&batch(&[("a", ["", ""])]), 3);
        never.remember(&batch(&[("b", ["", ""])]), 4);
        assert_eq!(off.save(), never.save(), "nothing of them is left");
    }

    #[test]
    fn attributes_of_no_item_are_damage() {
        let mut corpus = corpus(16);
        corpus.remember(&batch(&[("a", ["\"A\"", "1"])]), 1);
        let bytes = corpus.save();
        assert!(self::corpus(16).load(&bytes[..bytes.len() - 1]).is_err());
        let end = SavedAttributes { names: vec!["title"], values: vec![(7, vec!["1"])] };
        let plain = Corpus::new(16, 100).save();
        let bytes = postcard::to_extend(&end, plain).expect("always encodes");
        let error = self::corpus(16).load(&bytes).expect_err("damaged").to_string();
        assert!(error.contains("attributes of no item"), "{error}");
    }
}
