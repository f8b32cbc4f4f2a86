//! Decoded events that wait for their turn.

use std::collections::VecDeque;

use super::events::Events;

/// Events in columns, first in, first out.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    /// Events enter at the back, a block at a time, and leave one by one from the front.
    blocks: VecDeque<Events>,
    /// Events of the first block that have left.
    left: usize,
}

impl EventQueue {
    /// Appends `events`.
    pub(super) fn push(&mut self, events: Events) {
        if !events.is_empty() {
            self.blocks.push_back(events);
        }
    }

    /// The next event, as a place among events.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn pop(&mut self) -> (&Events, usize) {
        if self.blocks.front().is_some_and(|first| first.len() == self.left) {
            self.blocks.pop_front();
            self.left = 0;
        }
        let first = self.blocks.front().expect("an event waits");
        self.left += 1;
        (first, self.left - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::event::{Event, FeatureValue};

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
                let (events, i) = queue.pop();
                out.push_from(events, i);
                expected.push(&event(left));
                left += 1;
            }
        }
        assert_eq!((entered, left), (214, 214));
        assert_eq!(out, expected);
        assert!(queue.blocks.len() <= 1, "what has left is let go");
    }
}
