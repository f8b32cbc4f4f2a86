//! Whether the brokers answer, by librdkafka's statistics.
//!
//! Errors tell of connections that break. A broker that is frozen, or behind a network that drops
//! packets, breaks none for a minute; and one that is back says nothing while nobody sends events.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::statistics::Broker;

/// A consumer's fetches are answered after 100 ms, whether there are records or not.
const SILENT_MIN: Duration = Duration::from_secs(10);

/// What the connections show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contact {
    /// A broker answers.
    Answers,
    /// Brokers are connected, are asked, and have not answered for so long.
    Silent(Duration),
    /// None is connected.
    Unknown,
}

/// The brokers that owed an answer when they were last looked at.
#[derive(Debug, Default)]
pub(super) struct Owed {
    /// By node: its answers so far, and since when there has been none more.
    since: HashMap<i32, (u64, Instant)>,
}

impl Owed {
    /// Looks at the brokers; called every few seconds.
    pub(super) fn look<'b>(
        &mut self,
        brokers: impl IntoIterator<Item = &'b Broker>,
        now: Instant,
    ) -> Contact {
        // The bootstrap addresses and the coordinator are connections of their own.
        let connected = |broker: &&Broker| broker.nodeid >= 0 && broker.state == "UP";
        let before = std::mem::take(&mut self.since);
        let mut shortest: Option<Duration> = None;
        for &Broker { nodeid, rx, waitresp_cnt, .. } in brokers.into_iter().filter(connected) {
            let owes = waitresp_cnt > 0;
            let known = before.get(&nodeid).filter(|(answers, _)| owes && *answers == rx);
            let since = known.map_or(now, |(_, since)| *since);
            if owes {
                self.since.insert(nodeid, (rx, since));
            }
            let silent = now.saturating_duration_since(since);
            shortest = Some(shortest.map_or(silent, |shortest| shortest.min(silent)));
        }
        match shortest {
            None => Contact::Unknown,
            Some(silent) if silent >= SILENT_MIN => Contact::Silent(silent),
            Some(_) => Contact::Answers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(nodeid: i32, rx: u64, waitresp_cnt: i64) -> Broker {
        Broker { nodeid, state: "UP".to_owned(), rx, waitresp_cnt, ..Broker::default() }
    }

    #[test]
    fn silence_is_an_answer_that_is_owed_for_long() {
        let (mut owed, began) = (Owed::default(), Instant::now());
        let mut look = |brokers: &[Broker], second: u64| {
            owed.look(brokers, began + Duration::from_secs(second))
        };
        assert_eq!(look(&[], 0), Contact::Unknown);
        assert_eq!(look(&[broker(-1, 5, 1)], 0), Contact::Unknown, "a bootstrap address");
        let connecting = Broker { state: "CONNECT".to_owned(), ..broker(1, 0, 0) };
        assert_eq!(look(&[connecting], 0), Contact::Unknown);
        let frozen = broker(1, 7, 1);
        for second in [0, 5, 9] {
            assert_eq!(look(std::slice::from_ref(&frozen), second), Contact::Answers);
        }
        let silent = Contact::Silent(Duration::from_secs(12));
        // What else it is asked meanwhile is owed, too.
        assert_eq!(look(&[broker(1, 7, 3)], 12), silent);
        assert_eq!(look(&[frozen.clone(), broker(2, 1, 1)], 15), Contact::Answers, "another one");
        assert_eq!(look(&[broker(1, 8, 1), broker(2, 1, 1)], 40), Contact::Answers, "it is back");
        // Nobody has asked it, however long.
        assert_eq!(look(&[broker(1, 8, 0)], 90), Contact::Answers);
        assert_eq!(look(&[broker(1, 8, 1)], 95), Contact::Answers, "it was asked just now");
    }
}
