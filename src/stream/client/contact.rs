//! Whether the brokers answer, by librdkafka's statistics.
//!
//! Errors tell of connections that break. A broker that is frozen, or behind a network that drops
//! packets, breaks none for a minute; and one that is back says nothing while nobody sends events.

use std::time::Duration;

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
    /// None is connected, or none is asked.
    Unknown,
}

impl Contact {
    /// Of these brokers.
    pub(super) fn with<'b>(brokers: impl IntoIterator<Item = &'b Broker>) -> Contact {
        // The bootstrap addresses and the coordinator are connections of their own.
        let connected = |broker: &&Broker| broker.nodeid >= 0 && broker.state == "UP";
        let silent = |broker: &Broker| -> Duration {
            // Without a request on its way silence is no sign, nor is it beside one just sent.
            let micros = if broker.waitresp_cnt > 0 { broker.rxidle.min(broker.txidle) } else { 0 };
            Duration::from_micros(u64::try_from(micros).unwrap_or(0))
        };
        match brokers.into_iter().filter(connected).map(silent).min() {
            None => Contact::Unknown,
            Some(silent) if silent >= SILENT_MIN => Contact::Silent(silent),
            Some(_) => Contact::Answers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(nodeid: i32, state: &str, waitresp_cnt: i64, idle_s: i64) -> Broker {
        let (state, idle) = (state.to_owned(), idle_s * 1_000_000);
        Broker { nodeid, state, waitresp_cnt, rxidle: idle, txidle: idle, ..Broker::default() }
    }

    #[test]
    fn one_that_answers_is_enough() {
        let frozen = broker(1, "UP", 1, 12);
        let of = |brokers: &[Broker]| Contact::with(brokers);
        assert_eq!(of(&[]), Contact::Unknown);
        assert_eq!(of(&[broker(1, "CONNECT", 0, 0)]), Contact::Unknown);
        let bootstrap = broker(-1, "UP", 0, 0);
        assert_eq!(of(std::slice::from_ref(&bootstrap)), Contact::Unknown);
        assert_eq!(of(&[broker(1, "UP", 1, 0)]), Contact::Answers);
        assert_eq!(of(&[broker(1, "UP", 0, 300)]), Contact::Answers, "nobody has asked it");
        let asked = Broker { txidle: 9, ..broker(1, "UP", 1, 300) };
        assert_eq!(of(&[asked]), Contact::Answers, "it was asked just now");
        let silent = Contact::Silent(Duration::from_secs(12));
        assert_eq!(of(&[frozen.clone(), bootstrap]), silent);
        assert_eq!(of(&[frozen, broker(2, "UP", 1, 1)]), Contact::Answers);
    }
}
