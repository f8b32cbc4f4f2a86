//! Records whose schema is not known yet: at most one of each partition, which is read no further
//! until it is. Nothing is lost or passed over meanwhile, and the partitions bound what is held.

use std::collections::BTreeMap;

use rdkafka::message::{Message as _, OwnedMessage};

use crate::stream::wire::Wire;

/// By partition.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<i32, OwnedMessage>);

impl Held {
    pub(super) fn hold(&mut self, messages: Vec<OwnedMessage>) {
        self.0.extend(messages.into_iter().map(|message| (message.partition(), message)));
    }

    pub(super) fn holds(&self, partition: i32) -> bool {
        self.0.contains_key(&partition)
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = i32> {
        self.0.keys().copied()
    }

    /// Those that can be read now. Asks for the schemas of the others.
    pub(super) fn release(&mut self, wire: &Wire) -> Vec<OwnedMessage> {
        let known = |message: &mut OwnedMessage| !wire.lacks(message.payload());
        self.0.extract_if(.., |_, message| known(message)).map(|(_, message)| message).collect()
    }
}
