//! Records whose schema is not known yet: at most one of each lane, which is read no further
//! until it is. Nothing is lost or passed over meanwhile, and the partitions bound what is held.

use std::collections::BTreeMap;

use rdkafka::message::{Message as _, OwnedMessage};

use crate::stream::wire::Wires;

/// By lane.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<i32, OwnedMessage>);

impl Held {
    pub(super) fn hold(&mut self, messages: Vec<(i32, OwnedMessage)>) {
        self.0.extend(messages);
    }

    pub(super) fn holds(&self, lane: i32) -> bool {
        self.0.contains_key(&lane)
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = i32> {
        self.0.keys().copied()
    }

    /// Those that can be read now. Asks for the schemas of the others.
    pub(super) fn release(&mut self, wires: &Wires) -> Vec<(i32, OwnedMessage)> {
        let known = |lane: &i32, message: &mut OwnedMessage| !wires.lacks(*lane, message.payload());
        self.0.extract_if(.., known).collect()
    }
}
