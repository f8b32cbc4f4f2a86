//! Which of the brokers' errors pass by themselves.

use std::time::Instant;

use anyhow::bail;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Source;
use crate::stream::topic::Topic;

impl Source {
    /// Tells errors that pass by themselves from those that do not. (The former are logged by
    /// [`crate::stream::client::Watch`], and librdkafka retries.)
    pub(super) fn trouble(&mut self, error: &KafkaError) -> anyhow::Result<()> {
        use RDKafkaErrorCode as Code;
        let Topic { name: topic, brokers, .. } = &self.topic;
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
            Some(
                Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::SSL,
            ) => bail!(
                "the brokers {brokers} refuse us: {}; check the credentials in kafka.properties \
                 and the broker's ACLs for topic `{topic}`",
                last()
            ),
            // The group only feeds dashboards: that is no reason to stop.
            Some(Code::GroupAuthorizationFailed) => {
                tracing::debug!("offsets are not committed: {}", last());
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
