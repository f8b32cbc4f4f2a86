//! What a sample of the newest records tells of the config, the ids, the keys and the clocks.

use super::{Survey, Weight, subject};
use crate::config::{Config, Order};
use crate::stream::calendar::now_ms;
use crate::stream::log::Log;
use crate::stream::source::{Ids, Sample, sample};
use crate::stream::topic::Watermarks;

/// A record this far ahead shows a wrong clock; hosts that keep time differ by milliseconds.
const AHEAD_MAX_MS: i64 = 5_000;

impl Survey {
    pub(super) fn records(
        &mut self,
        config: &Config,
        log: &Log,
        watermarks: &Watermarks,
        records: usize,
    ) {
        let subject = subject(&config.topic_names());
        let there: i64 = watermarks.values().map(|(low, high)| high - low).sum();
        if there == 0 {
            let text = "holds no record, so none was tried".to_owned();
            self.push(Weight::Warning, &subject, text);
            return;
        }
        let sample = match sample(log, watermarks, config, records) {
            Ok(sample) => sample,
            Err(error) => {
                self.fault(&subject, format!("{error:#}"));
                return;
            }
        };
        self.mapping(config, &sample);
        self.clock(&sample, now_ms());
        self.sample = Some(sample);
    }

    /// What a run would make of records like these.
    fn mapping(&mut self, config: &Config, sample: &Sample) {
        let records = sample.records();
        let rejected = records - sample.accepted - sample.skipped;
        let mut text = format!("{} of the newest {records} records are accepted", sample.accepted);
        if sample.skipped > 0 {
            text += &format!(", {} are no events", sample.skipped);
        }
        let share_max = config.kafka.rejected_share_max;
        if records == 0 {
            let text = "none of the newest offsets holds a record".to_owned();
            self.push(Weight::Warning, "sample", text);
        } else if rejected as f64 > share_max * records as f64 {
            let limit = share_max * 100.0;
            let text = format!(
                "{text}: a run stops above {limit}% rejected; correct the mapping or the producer"
            );
            self.fault("sample", text);
        } else if rejected > 0 || sample.accepted == 0 {
            self.push(Weight::Warning, "sample", text);
        } else {
            self.ok("sample", text);
        }
        self.times(sample);
        if let Some(ids) = &sample.ids {
            self.ids(config.kafka.order, ids);
        }
    }

    fn times(&mut self, sample: &Sample) {
        if sample.odd_times > 0 {
            let text = format!(
                "{} events lie more than ten years from their record's time; is timestamp.unit \
                 right?",
                sample.odd_times
            );
            self.push(Weight::Warning, "event times", text);
        } else if let Some((oldest, newest)) = sample.event_times_ms {
            let at = |time_ms: i64| {
                let time = jiff::Timestamp::from_millisecond(time_ms);
                time.map_or_else(|_| "no time".to_owned(), |time| time.to_string())
            };
            self.ok("event times", format!("from {} to {}", at(oldest), at(newest)));
        }
    }

    /// How many ids there are, and what the partitions of a query's records mean.
    fn ids(&mut self, order: Order, ids: &Ids) {
        let kinds: Vec<_> =
            ids.kinds.iter().map(|kind| format!("{} {}", kind.of, kind.distinct)).collect();
        self.ok("ids", format!("distinct in {} events: {}", ids.events, kinds.join(", ")));
        let queries = ids.kinds.first().map_or(0, |queries| queries.distinct);
        let Ids { split_queries: split, partitions, .. } = *ids;
        if partitions < 2 {
            self.ok("keys", "all events lie on one partition, whose order is theirs".to_owned());
        } else if split == 0 {
            let text = format!("each of {queries} queries lies on one of {partitions} partitions");
            self.ok("keys", text);
        } else {
            let many = format!("{split} of {queries} queries lie on more than one partition");
            match order {
                Order::EventTime => self.ok(
                    "keys",
                    format!(
                        "{many}: kafka.order = \"event_time\" orders their events by their times, \
                         and histories are as right as the clocks; records keyed by the query need \
                         no clock"
                    ),
                ),
                Order::Arrival => self.push(
                    Weight::Warning,
                    "keys",
                    format!(
                        "{many}: kafka.order = \"arrival\" takes their events as they come, so \
                         histories are out of order after every pause; key the records by the \
                         query, or set \"event_time\""
                    ),
                ),
            }
        }
    }

    /// Compares the newest record's clock with ours.
    fn clock(&mut self, sample: &Sample, now_ms: i64) {
        let Some(record_ms) = sample.newest_record_ms else { return };
        let whose = if sample.by_broker { "the broker's" } else { "its producer's" };
        let ahead_ms = record_ms - now_ms;
        if ahead_ms > AHEAD_MAX_MS {
            let text = format!(
                "the newest record is of a time {} s ahead, by {whose} clock; correct that clock, \
                 or the one here",
                ahead_ms / 1000
            );
            self.push(Weight::Warning, "clock", text);
        } else {
            let age = -ahead_ms.min(0) / 1000;
            self.ok("clock", format!("the newest record is {age} s old, by {whose} clock"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::source::Reason;

    fn survey_of(sample: &Sample) -> Survey {
        let mut survey = Survey::default();
        survey.mapping(&Config::default(), sample);
        survey
    }

    #[test]
    fn a_sample_that_would_stop_a_run_is_a_fault() {
        let rejected = |count| [("not_json", Reason { count, example: String::new() })].into();
        let sample =
            |accepted, count| Sample { accepted, rejected: rejected(count), ..Sample::default() };
        let weights = [(100, 0, Weight::Ok), (95, 5, Weight::Warning), (94, 6, Weight::Fault)];
        for (accepted, count, weight) in weights {
            let survey = survey_of(&sample(accepted, count));
            assert_eq!(survey.findings[0].weight, weight, "{survey:?}");
        }
    }

    #[test]
    fn queries_on_several_partitions_are_told_with_what_it_means() {
        let mut tally = Ids { events: 9, partitions: 2, ..Ids::default() };
        let mut told = |split, order| {
            tally.split_queries = split;
            let mut survey = Survey::default();
            survey.ids(order, &tally);
            survey.findings.pop().expect("the keys")
        };
        assert!(told(0, Order::Arrival).text.contains("one of 2 partitions"));
        let split = told(3, Order::EventTime);
        assert!(split.weight == Weight::Ok && split.text.contains("the clocks"), "{split:?}");
        let split = told(3, Order::Arrival);
        assert!(split.weight == Weight::Warning && split.text.contains("\"event_time\""));
        tally.partitions = 1;
        let mut survey = Survey::default();
        survey.ids(Order::Arrival, &tally);
        assert_eq!(survey.count(Weight::Warning), 0);
    }

    #[test]
    fn a_clock_ahead_is_told_with_whose_it_is() {
        let mut survey = Survey::default();
        let now_ms = 1_700_000_000_000;
        for (ahead_ms, by_broker) in [(-60_000, false), (4_000, true), (36_000_000, true)] {
            let newest_record_ms = Some(now_ms + ahead_ms);
            survey.clock(&Sample { newest_record_ms, by_broker, ..Sample::default() }, now_ms);
        }
        let weights: Vec<Weight> = survey.findings.iter().map(|finding| finding.weight).collect();
        assert_eq!(weights, [Weight::Ok, Weight::Ok, Weight::Warning]);
        assert!(survey.findings[0].text.contains("60 s old, by its producer's"), "{survey:?}");
        assert!(survey.findings[2].text.contains("36000 s ahead, by the broker's"), "{survey:?}");
    }
}
