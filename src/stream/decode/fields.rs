//! The mapped fields as a tree of keys, and where each field's value goes.

use crate::config::{Beside, RecordFormat, Step, alternatives, beside, steps};

/// The mapped fields as a tree of keys.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub(super) root: Node,
    pub(super) slots: usize,
    /// Slots of fields within the array each of whose elements is an event.
    pub(super) each: Vec<usize>,
    /// Slots of what lies beside the record's value.
    pub(super) beside: Vec<(Outside, usize)>,
    /// Slots of fields that have several places, the first of which that has a value counts.
    pub(super) alternatives: Vec<(usize, Vec<FieldPlace>)>,
    /// The field that makes a record one event whose array has no elements.
    pub(super) alone: Option<FieldPlace>,
    format: RecordFormat,
}

/// What lies beside a record's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outside {
    /// The record's key.
    Key,
    /// The last header of this name.
    Header(Box<str>),
}

/// The slots of a field's value, in the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FieldPlace {
    pub(super) own: Slots,
    /// The same within the format's inner object; there it is looked for first.
    pub(super) inner: Option<Slots>,
}

/// A dotted path has two: one for a key that is spelt with the dots, one for the path through
/// nested objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slots {
    pub(super) literal: usize,
    pub(super) nested: Option<usize>,
}

impl FieldPlace {
    fn at(slot: usize) -> FieldPlace {
        FieldPlace { own: Slots { literal: slot, nested: None }, inner: None }
    }

    /// True if `slot` is one of its slots.
    fn holds(&self, slot: usize) -> bool {
        let among = |slots: Slots| slots.literal == slot || slots.nested == Some(slot);
        among(self.own) || self.inner.is_some_and(among)
    }
}

#[derive(Debug, Default)]
pub(super) struct Node {
    // A handful of keys: comparing numbers beats hashing.
    children: Vec<Child>,
    pub(super) slot: Option<usize>,
    /// Of an array: each of its elements.
    pub(super) each: Option<Box<Node>>,
    /// Of an array: elements by their place.
    pub(super) at: Vec<(usize, Node)>,
    /// Its key `payload` is the same object once more.
    wrapped: bool,
}

#[derive(Debug)]
struct Child {
    tail: u64,
    name: Box<str>,
    node: Node,
}

/// A key's last eight bytes. Keys of one log begin alike ("click_os", "click_region"), and seldom
/// end so.
#[inline]
fn tail(key: &str) -> u64 {
    let bytes = key.as_bytes();
    match bytes.last_chunk() {
        Some(last) => u64::from_be_bytes(*last),
        None => bytes.iter().fold(0, |tail, &byte| tail << 8 | u64::from(byte)),
    }
}

/// Elements of arrays that have no mapped fields within.
pub(super) static LEAF: Node =
    Node { children: Vec::new(), slot: None, each: None, at: Vec::new(), wrapped: false };

impl Fields {
    /// No fields yet, of records of this `format`.
    pub(crate) fn new(format: RecordFormat) -> Fields {
        let root = Node { wrapped: format == RecordFormat::Debezium, ..Node::default() };
        Fields { root, format, ..Fields::default() }
    }

    /// Maps a checked field; the same one always has the same place.
    pub(crate) fn add(&mut self, field: &str) -> FieldPlace {
        let places: Vec<FieldPlace> = alternatives(field).map(|path| self.add_path(path)).collect();
        if let [place] = places[..] {
            return place;
        }
        let known = self.alternatives.iter().find(|(_, others)| *others == places);
        FieldPlace::at(known.map(|(slot, _)| *slot).unwrap_or_else(|| {
            self.slots += 1;
            self.alternatives.push((self.slots - 1, places));
            self.slots - 1
        }))
    }

    /// A record whose array has no elements is one event, if the field at `place` has a value.
    pub(super) fn stands_alone(&mut self, place: FieldPlace) {
        self.alone = Some(place);
    }

    /// True if `slot` is one of those that `place` has its value of.
    pub(super) fn holds(&self, place: FieldPlace, slot: usize) -> bool {
        let others = self.alternatives.iter().find(|(own, _)| FieldPlace::at(*own) == place);
        match others {
            None => place.holds(slot),
            Some((_, places)) => places.iter().any(|place| place.holds(slot)),
        }
    }

    fn add_path(&mut self, path: &str) -> FieldPlace {
        let outside = match beside(path).expect("a checked path") {
            None => {
                let inner = self.format.inside().map(|inside| self.add_within(Some(inside), path));
                return FieldPlace { own: self.add_within(None, path), inner };
            }
            Some(Beside::Key) => Outside::Key,
            Some(Beside::Header(name)) => Outside::Header(name.into()),
        };
        let known = self.beside.iter().find(|(other, _)| *other == outside);
        let slot = known.map(|(_, slot)| *slot).unwrap_or_else(|| {
            self.slots += 1;
            self.beside.push((outside, self.slots - 1));
            self.slots - 1
        });
        FieldPlace::at(slot)
    }

    fn add_within(&mut self, object: Option<&str>, path: &str) -> Slots {
        let steps = steps(path).expect("a checked path");
        let before = || object.map(Step::Key).into_iter();
        let literal = self.slot_at(before().chain([Step::Key(path)]));
        let nested = (steps.len() > 1).then(|| self.slot_at(before().chain(steps)));
        Slots { literal, nested }
    }

    fn slot_at<'p>(&mut self, path: impl Iterator<Item = Step<'p>>) -> usize {
        let (mut node, mut in_each) = (&mut self.root, false);
        for step in path {
            in_each |= step == Step::Each;
            node = node.step(step);
        }
        *node.slot.get_or_insert_with(|| {
            self.slots += 1;
            if in_each {
                self.each.push(self.slots - 1);
            }
            self.slots - 1
        })
    }
}

impl Node {
    fn step(&mut self, step: Step<'_>) -> &mut Node {
        match step {
            Step::Each => self.each.get_or_insert_default(),
            Step::At(place) => {
                let known = self.at.iter().position(|(other, _)| *other == place);
                let index = known.unwrap_or_else(|| {
                    self.at.push((place, Node::default()));
                    self.at.len() - 1
                });
                &mut self.at[index].1
            }
            Step::Key(key) => {
                let known = self.children.iter().position(|child| *child.name == *key);
                let index = known.unwrap_or_else(|| {
                    let node = Node::default();
                    self.children.push(Child { tail: tail(key), name: key.into(), node });
                    self.children.len() - 1
                });
                &mut self.children[index].node
            }
        }
    }

    /// The node of a key, if there is a mapped field at it or below.
    #[inline]
    pub(super) fn child(&self, key: &str) -> Option<&Node> {
        let tail = tail(key);
        let child = self.children.iter().find(|child| child.tail == tail && *child.name == *key);
        let wrapped = || (self.wrapped && key == "payload").then_some(self);
        child.map(|child| &child.node).or_else(wrapped)
    }

    /// The node of an element. No array is both taken apart and looked into by place.
    pub(super) fn element(&self, place: usize) -> Option<&Node> {
        let at = || self.at.iter().find(|(other, _)| *other == place).map(|(_, node)| node);
        self.each.as_deref().or_else(at)
    }

    /// True if its elements may hold mapped fields.
    #[inline]
    pub(super) fn has_elements(&self) -> bool {
        self.each.is_some() || !self.at.is_empty()
    }

    /// True if an array whose elements are events lies at it or below.
    #[inline]
    pub(super) fn holds_each(&self) -> bool {
        let children = || self.children.iter().any(|child| child.node.holds_each());
        self.each.is_some() || children() || self.at.iter().any(|(_, node)| node.holds_each())
    }

    /// Calls `visit` with every slot at it and below.
    pub(super) fn slots(&self, visit: &mut impl FnMut(usize)) {
        self.slot.into_iter().for_each(&mut *visit);
        let children = self.children.iter().map(|child| &child.node);
        let elements = self.each.as_deref().into_iter().chain(self.at.iter().map(|(_, node)| node));
        children.chain(elements).for_each(|node| node.slots(visit));
    }
}
