//! Decoded events that wait for their turn.

use std::collections::VecDeque;

use super::events::Events;

/// Events a block has room for: large enough that taking a new one is rare, small enough that a
/// partition with little to say holds little.
const BLOCK: usize = 256;

/// Events in columns, first in, first out. Blocks are used again: where as many events leave as
/// enter, nothing is allocated.
#[derive(Debug)]
pub(super) struct EventQueue {
    /// Events enter the last block and leave from the first.
    blocks: VecDeque<Events>,
    /// Events of the first block that have left.
    left: usize,
    spare: Option<Events>,
    /// What a new block is.
    empty: Events,
}

impl EventQueue {
    /// Nothing waits. `empty`: events of the same features, without any.
    pub(super) fn new(empty: Events) -> EventQueue {
        EventQueue { blocks: VecDeque::new(), left: 0, spare: None, empty }
    }

    /// Lets `decode` append one event, and gives its time, ms.
    ///
    /// # Errors
    /// Those of `decode`, which then has appended nothing.
    pub(super) fn push<E>(
        &mut self,
        decode: impl FnOnce(&mut Events) -> Result<(), E>,
    ) -> Result<i64, E> {
        if self.blocks.back().is_none_or(|last| last.len() >= BLOCK) {
            let spare = self.spare.take();
            self.blocks.push_back(spare.unwrap_or_else(|| self.empty.clone()));
        }
        let last = self.blocks.back_mut().expect("just pushed");
        let before = last.len();
        decode(last)?;
        assert!(last.len() == before + 1, "a record is one event");
        Ok(last.times_ms[before])
    }

    /// The next event, as a place among events.
    ///
    /// # Panics
    /// If there is none.
    pub(super) fn pop(&mut self) -> (&Events, usize) {
        if self.blocks.front().is_some_and(|first| first.len() == self.left)
            && let Some(mut first) = self.blocks.pop_front()
        {
            first.truncate(0);
            self.spare = Some(first);
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
        let mut queue = EventQueue::new(Events::new(1, 0));
        let (mut entered, mut left) = (0, 0);
        let (mut out, mut expected) = (Events::new(1, 0), Events::new(1, 0));
        // Grows over several blocks and shrinks to nothing, twice.
        for (enter, leave) in [(700, 100), (3, 3), (500, 1100), (1, 0), (900, 901)] {
            for _ in 0..enter {
                let pushed = queue.push(|events| {
                    events.push(&event(entered));
                    Ok::<(), ()>(())
                });
                assert_eq!(pushed, Ok(entered.cast_signed()));
                assert_eq!(queue.push(|_| Err("bad")), Err("bad"));
                entered += 1;
            }
            for _ in 0..leave {
                let (events, i) = queue.pop();
                out.push_from(events, i);
                expected.push(&event(left));
                left += 1;
            }
        }
        assert_eq!((entered, left), (2104, 2104));
        assert_eq!(out, expected);
        assert!(queue.blocks.len() <= 1 && queue.spare.is_some());
    }
}
