//! Decoded events that wait for their turn.

use std::collections::VecDeque;

use millrace_events::Events;

/// Events in columns, first in, first out.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    /// Events enter at the back, a block at a time.
    blocks: VecDeque<Events>,
    /// The one to leave next.
    next: EventPlace,
}

/// An event's place in its queue. It is valid until [`EventQueue::release`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct EventPlace {
    block: usize,
    event: usize,
}

impl EventQueue {
    /// Appends `events`.
    pub(super) fn push(&mut self, events: Events) {
        if !events.is_empty() {
            self.blocks.push_back(events);
        }
    }

    /// The next event leaves; its place stays readable until [`EventQueue::release`].
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn pop(&mut self) -> EventPlace {
        let place = self.next;
        let rest = self.blocks[place.block].len() - place.event;
        self.next = match rest {
            1 => EventPlace { block: place.block + 1, event: 0 },
            _ => EventPlace { block: place.block, event: place.event + 1 },
        };
        place
    }

    /// The block that holds the event at `place`, and its index there.
    pub(super) fn get(&self, place: EventPlace) -> (&Events, usize) {
        (&self.blocks[place.block], place.event)
    }

    /// Frees the blocks whose events have all left.
    pub(super) fn release(&mut self) {
        self.blocks.drain(..std::mem::take(&mut self.next.block));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_events::{Event, FeatureValue};

    fn event(n: u64) -> Event {
        Event {
            time_ms: n.cast_signed(),
            query_id: n,
            item_id: n + 1,
            item_name: format!("item {n}").into(),
            reward: 0.5,
            query: vec![FeatureValue::Bag((0..n % 4).map(|id| (id, 1.0)).collect())],
            item: vec![],
        }
    }

    #[test]
    fn events_leave_as_they_entered() {
        let mut queue = EventQueue::default();
        let (mut entered, mut left) = (0, 0);
        let (mut out, mut expected) = (Events::new(1, 0), Events::new(1, 0));
        for (enter, leave) in [(70, 10), (3, 3), (0, 0), (50, 110), (1, 0), (90, 91)] {
            let mut events = Events::new(1, 0);
            (entered..entered + enter).for_each(|n| events.push(&event(n)));
            queue.push(events);
            entered += enter;
            for _ in 0..leave {
                let place = queue.pop();
                let (events, i) = queue.get(place);
                out.push_from(events, i);
                expected.push(&event(left));
                left += 1;
            }
            queue.release();
        }
        assert_eq!((entered, left), (214, 214));
        assert_eq!(out, expected);
        assert!(queue.blocks.is_empty(), "what has left is let go");
    }
}
