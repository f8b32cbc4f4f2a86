//! The topics that a run writes to: made where they are missing, looked at where they are there.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::{Role, WAIT};
use crate::config::Config;
use crate::stream::topic::Topic;

/// Partitions of a topic of vectors that we make: as many consumers may share it.
const PARTITIONS: i32 = 4;
/// A broker makes a topic in a second, and one that is busy within some.
const CREATION_MAX: Duration = Duration::from_secs(20);

/// What to say of the dead-letter topic, if it is not there: nobody would look for it before the
/// first bad record, months later.
pub fn missing_letters(config: &Config, topic: &Topic) -> Option<String> {
    let name = &config.kafka.dead_letter_topic;
    let missing = !name.is_empty() && topic.is_missing(name);
    missing.then(|| Role::Letters.missing(&topic.brokers, name))
}

/// Makes the topics of vectors and versions that are not there, if the config lets it, and says
/// once what somebody may not expect of those that are.
///
/// # Errors
/// A property that librdkafka refuses.
pub(crate) fn prepare(config: &Config) -> anyhow::Result<()> {
    let publish = &config.publish;
    let topic = Topic::named(&publish.topic, config)?;
    for (name, role, partitions) in
        [(&publish.topic, Role::Vectors, PARTITIONS), (&publish.versions_topic, Role::Versions, 1)]
    {
        if !topic.is_missing(name) {
            let found = topic.settings(&[name], WAIT).remove(name.as_str()).unwrap_or_default();
            let policy = found.get("cleanup.policy").map(String::as_str);
            let warning = policy.and_then(|policy| role.warning(policy, -1, 1));
            if let Some(warning) = warning {
                tracing::warn!("topic `{name}` {warning}");
            }
            continue;
        }
        let missing = role.missing(&topic.brokers, name);
        if !publish.create_topics {
            tracing::warn!("{missing}");
            continue;
        }
        match create(&topic, name, partitions) {
            Ok(()) => tracing::info!(topic = name, partitions, "made a topic, compacted"),
            Err(error) => tracing::warn!("{missing} ({error:#})"),
        }
    }
    Ok(())
}

/// Makes a compacted topic, with as many replicas as the brokers' default says.
fn create(topic: &Topic, name: &str, partitions: i32) -> anyhow::Result<()> {
    const DEFAULT: TopicReplication<'_> = TopicReplication::Fixed(-1);
    let client = topic.remedies.client();
    let admin: AdminClient<DefaultClientContext> = client.create().context("no admin client")?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let new = NewTopic::new(name, partitions, DEFAULT).set("cleanup.policy", "compact");
    let options = AdminOptions::new().request_timeout(Some(CREATION_MAX));
    let made = runtime.block_on(admin.create_topics([&new], &options))?;
    match made.into_iter().next() {
        // Another process was quicker.
        Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(anyhow!("it cannot be made: {code}")),
        None => Err(anyhow!("the brokers do not say whether they made it")),
    }
}
