//! Events that training cannot use go to the dead-letter topic, as do records that decoding cannot
//! use.
//!
//! Owns a producer of its own, made for the first such event: the source thread is far ahead by
//! then.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::config::Config;
use crate::stream::dead_letter::{DeadLetters, Letter};
use millrace_events::Batch;

/// The letters' reason.
pub(super) const REASON: &str = "not_finite";

/// The way of unusable events to the dead-letter topic, opened for the first one.
#[derive(Default)]
pub(super) struct Unusable {
    letters: Option<DeadLetters>,
}

impl Unusable {
    /// Sends a letter for each of the `events` of `batch`, by place, and waits until they are on
    /// the broker: a checkpoint may cover them from now on. The record itself lies at the letter's
    /// partition and offset.
    ///
    /// # Errors
    /// Letters that cannot be delivered.
    pub(super) fn send(
        &mut self,
        config: &Config,
        stop: &Arc<AtomicBool>,
        batch: &Batch,
        events: &[u32],
    ) -> anyhow::Result<()> {
        let Some(&first) = events.first() else { return Ok(()) };
        tracing::warn!(
            events = events.len(),
            first = ?batch.origins.get(first as usize),
            item = batch.events.item_names.get(first as usize),
            "{REASON}: events whose vectors are not finite were left out: a number near the limit \
             of 32-bit floats, or a model that is breaking"
        );
        let letters = match &mut self.letters {
            Some(letters) => letters,
            none => none.insert(DeadLetters::new(config, stop)?),
        };
        for &event in events {
            let event = event as usize;
            let Some(&(partition, offset)) = batch.origins.get(event) else { continue };
            let item = batch.events.item_names.get(event);
            let error =
                format!("its vectors are not finite; nothing was learned from item `{item}`");
            letters.send(&Letter {
                key: None,
                payload: Some(item.as_bytes()),
                time_ms: None,
                partition,
                offset,
                reason: REASON,
                error: &error,
            })?;
        }
        letters.flush()
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Message;

    use super::*;
    use crate::stream::source::tests::{Broker, header};
    use millrace_events::{Event, Events, FeatureValue, Offsets};

    #[test]
    fn a_letter_names_the_events_record() {
        let broker = Broker::new(1);
        let mut batch = Batch::new(Events::new(0, 1), Offsets::new("clicks"));
        for item in ["a", "b", "c"] {
            batch.events.push(&Event {
                time_ms: 0,
                query_id: 1,
                item_id: 2,
                item_name: item.into(),
                reward: 1.0,
                query: vec![],
                item: vec![FeatureValue::Id(2)],
            });
        }
        batch.origins = vec![(0, 5), (3, 17), (0, 6)];
        let mut unusable = Unusable::default();
        unusable.send(&broker.config, &Arc::default(), &batch, &[]).expect("nothing to do");
        assert!(broker.read("dead").is_empty());
        unusable.send(&broker.config, &Arc::default(), &batch, &[1]).expect("delivered");
        let letters = broker.read("dead");
        let [letter] = letters.as_slice() else { panic!("{} letters", letters.len()) };
        assert_eq!(letter.payload(), Some(&b"b"[..]));
        assert_eq!(header(letter, "reason").as_deref(), Some(REASON));
        assert_eq!(header(letter, "partition").as_deref(), Some("3"));
        assert_eq!(header(letter, "offset").as_deref(), Some("17"));
    }
}
