//! Events that training cannot use go to the dead-letter topic, as do records that decoding cannot
//! use.
//!
//! Owns a producer of its own, made for the first such event: the source thread is far ahead by
//! then.

use super::Site;
use super::stats::RunStats;
use crate::stream::dead_letter::{DeadLetters, Letter};
use millrace_events::Batch;
use millrace_train::trainer::Trainer;

/// Reason of an event whose vectors are not finite.
pub(super) const NOT_FINITE: &str = "not_finite";
/// Reason of an event whose item would be taken for another one.
const ID_COLLISION: &str = "id_collision";
/// All reasons of this room.
pub(super) const REASONS: [&str; 2] = [NOT_FINITE, ID_COLLISION];

/// The way of unusable events to the dead-letter topic, opened for the first one.
#[derive(Default)]
pub(super) struct Unusable {
    letters: Option<DeadLetters>,
}

impl Unusable {
    /// The `batch` without the events that the trainer must not see. They count as rejected ones.
    ///
    /// # Errors
    /// Letters that cannot be delivered.
    pub(super) fn sift(
        &mut self,
        site: &Site,
        trainer: &Trainer,
        stats: &mut RunStats,
        batch: Batch,
    ) -> anyhow::Result<Batch> {
        let impostors = trainer.impostors(&batch);
        let Some(&first) = impostors.first() else { return Ok(batch) };
        tracing::warn!(
            events = impostors.len(),
            first = ?place(&batch, first),
            item = batch.events.item_names.get(first as usize),
            "{ID_COLLISION}: events of an item whose 64-bit key is that of another item were left \
             out: by chance that does not happen, so somebody makes such ids"
        );
        let said = "it has the 64-bit key of another item, which was there first; item";
        self.send(site, &batch, &impostors, (ID_COLLISION, said))?;
        stats.leave_out(&site.metrics, ID_COLLISION, impostors.len());
        let events = 0..u32::try_from(batch.len()).expect("a batch is small");
        let honest: Vec<u32> =
            events.filter(|event| impostors.binary_search(event).is_err()).collect();
        let rejected = batch.rejected + impostors.len() as u64;
        Ok(Batch { rejected, ..batch.part(&honest) })
    }

    /// Sends a letter for each of the `events` of `batch` that had no finite vectors.
    ///
    /// # Errors
    /// Letters that cannot be delivered.
    pub(super) fn send_not_finite(
        &mut self,
        site: &Site,
        stats: &mut RunStats,
        batch: &Batch,
        events: &[u32],
    ) -> anyhow::Result<()> {
        let Some(&first) = events.first() else { return Ok(()) };
        stats.leave_out(&site.metrics, NOT_FINITE, events.len());
        tracing::warn!(
            events = events.len(),
            first = ?place(batch, first),
            item = batch.events.item_names.get(first as usize),
            "{NOT_FINITE}: events whose vectors are not finite were left out: a number near the \
             limit of 32-bit floats, or a model that is breaking"
        );
        let said = "its vectors are not finite; nothing was learned from item";
        self.send(site, batch, events, (NOT_FINITE, said))
    }

    /// Sends a letter for each of the `events` of `batch`, by place, and waits until they are on
    /// the broker: a checkpoint may cover them from now on. The record itself lies at the letter's
    /// partition and offset.
    fn send(
        &mut self,
        site: &Site,
        batch: &Batch,
        events: &[u32],
        (reason, said): (&'static str, &str),
    ) -> anyhow::Result<()> {
        let letters = match &mut self.letters {
            Some(letters) => letters,
            none => none.insert(DeadLetters::new(&site.config, &site.stop)?),
        };
        for &event in events {
            let Some((topic, partition, offset)) = place(batch, event) else { continue };
            let item = batch.events.item_names.get(event as usize);
            letters.send(&Letter {
                key: None,
                payload: Some(item.as_bytes()),
                time_ms: None,
                topic,
                partition,
                offset,
                reason,
                error: &format!("{said} `{item}`"),
            })?;
        }
        letters.flush()
    }
}

/// Topic, partition and offset of an event's record, where it has one.
fn place(batch: &Batch, event: u32) -> Option<(&str, i32, i64)> {
    let &(lane, offset) = batch.origins.get(event as usize)?;
    let (topic, partition) = batch.offsets.place(lane);
    Some((topic, partition, offset))
}

#[cfg(test)]
mod tests {
    use rdkafka::message::Message;

    use super::*;
    use crate::pipeline::tests::site_of;
    use crate::stream::source::tests::{Broker, header};
    use millrace_events::{Event, Events, FeatureValue, Offsets};

    /// Events of these items, all of which have one key.
    fn batch(items: &[&str]) -> Batch {
        let mut batch = Batch::new(Events::new(1, 1), Offsets::new("clicks"));
        for &item in items {
            batch.events.push(&Event {
                time_ms: 0,
                query_id: 1,
                item_id: 2,
                item_name: item.into(),
                reward: 1.0,
                query: vec![FeatureValue::Id(1)],
                item: vec![FeatureValue::Id(2)],
            });
        }
        batch.origins = (0..).map(|offset| (3, offset)).take(items.len()).collect();
        batch
    }

    #[test]
    fn a_letter_names_the_events_record() {
        let broker = Broker::new(1);
        let site = site_of(broker.config.clone());
        let trainer = Trainer::new(&site.config.train(), &site.placement, Offsets::new("clicks"));
        let mut stats = RunStats::new(&trainer, 0);
        let (batch, mut unusable) = (batch(&["a", "b", "c"]), Unusable::default());
        unusable.send_not_finite(&site, &mut stats, &batch, &[]).expect("nothing to do");
        assert!(broker.read("dead").is_empty());
        unusable.send_not_finite(&site, &mut stats, &batch, &[1]).expect("delivered");
        let letters = broker.read("dead");
        let [letter] = letters.as_slice() else { panic!("{} letters", letters.len()) };
        assert_eq!(letter.payload(), Some(&b"b"[..]));
        assert_eq!(header(letter, "reason").as_deref(), Some(NOT_FINITE));
        assert_eq!(header(letter, "partition").as_deref(), Some("3"));
        assert_eq!(header(letter, "offset").as_deref(), Some("1"));
    }

    /// Nobody merges two items on purpose.
    #[test]
    fn an_item_with_the_key_of_another_is_left_out_and_named() {
        let broker = Broker::new(1);
        let site = site_of(broker.config.clone());
        let mut trainer =
            Trainer::new(&site.config.train(), &site.placement, Offsets::new("clicks"));
        let mut stats = RunStats::new(&trainer, 0);
        let mut unusable = Unusable::default();
        let honest = batch(&["a", "a"]);
        let first = unusable.sift(&site, &trainer, &mut stats, honest).expect("nothing to send");
        trainer.step(&first);
        let mixed = Batch { rejected: 4, ..batch(&["b", "a", "c"]) };
        let rest = unusable.sift(&site, &trainer, &mut stats, mixed).expect("delivered");
        assert_eq!(rest.events.item_names.iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!((rest.rejected, &rest.origins[..]), (6, &[(3, 1)][..]));
        trainer.step(&rest);
        assert_eq!(trainer.progress().records(), 2 + 1 + 6, "each record counts once");
        let letters = broker.read("dead");
        let values: Vec<_> = letters.iter().filter_map(Message::payload).collect();
        assert_eq!(values, [b"b", b"c"]);
        assert_eq!(header(&letters[0], "reason").as_deref(), Some(ID_COLLISION));
        let scrape = site.metrics.registry().render();
        assert!(scrape.contains("rejected_total{reason=\"id_collision\"} 2"), "{scrape}");
    }
}
