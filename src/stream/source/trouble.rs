//! Which of the brokers' errors pass by themselves.

use std::time::Instant;

use anyhow::bail;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Source;
use crate::stream::refusal::{Refusal, Wish};
use crate::stream::topic::Topic;

impl Source {
    /// Tells errors that pass by themselves from those that do not. (The former are logged by
    /// [`crate::stream::client::Watch`], and librdkafka retries.)
    pub(super) fn trouble(&mut self, error: &KafkaError) -> anyhow::Result<()> {
        use RDKafkaErrorCode as Code;
        let Topic { name: topic, remedies, .. } = &self.topic;
        let last = || self.topic.last_error();
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => bail!(
                "the log of `{topic}` no longer holds the offset to read next: {}; it was lost to \
                 retention while we were behind, or the topic was created anew. Restart: \
                 kafka.on_data_loss then decides",
                last()
            ),
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
            Some(Code::BadMessage | Code::InvalidMessage) => bail!(
                "a record of `{topic}` arrived damaged: {}; check the broker's disks, and skip it \
                 by hand if it stays so",
                last()
            ),
            _ if fatal => {
                bail!("kafka client failed: {}", last())
            }
            _ => Ok(()),
        }
    }
}
