//! Which of the brokers' errors pass by themselves.

use std::time::Instant;

use anyhow::Context as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Source;
use crate::stream::refusal::{Refusal, Wish};
use crate::stream::topic::Topic;

impl Source {
    /// Tells errors of a lane that pass by themselves from those that do not. (The former are
    /// logged by [`crate::stream::client::Watch`], and librdkafka retries.)
    pub(super) fn trouble(&mut self, lane: i32, error: &KafkaError) -> anyhow::Result<()> {
        use RDKafkaErrorCode as Code;
        let (topic, _) = self.log.place(lane);
        let Topic { remedies, .. } = topic;
        let last = || topic.last_error();
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                topic.lasting(error).context("restart: kafka.on_data_loss then decides")
            }
            // A new controller does not know the topic for a moment.
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                self.census.suspect(Instant::now());
                Ok(())
            }
            // The group feeds dashboards, and no run reads on from it: that is no reason to stop.
            // It is said once.
            Some(Code::GroupAuthorizationFailed) if self.config.kafka.group.is_empty() => Ok(()),
            Some(Code::GroupAuthorizationFailed) => {
                let why = remedies.explain(
                    Refusal::Group,
                    Wish::Commit(&self.config.kafka.group),
                    &last(),
                );
                tracing::warn!(
                    "offsets are not committed, which dashboards will miss: {why}, or set \
                     kafka.group = \"\"; a restart tries again"
                );
                Ok(())
            }
            _ => topic.lasting(error),
        }
    }
}
