//! A checkpoint directory without a checkpoint, though Kafka knows that there was one.
//!
//! A volume that is not mounted, a typing error, another working directory: the directory is empty,
//! and a run that starts from nothing publishes over what took months to learn. Kafka has two
//! witnesses: the offsets that a live run has committed, and the versions that were published.

use anyhow::bail;

use super::{Publication, RunPlan};
use crate::config::Config;
use crate::publish::newest_version;
use crate::stream::group;
use crate::stream::topic::Topic;

/// Refuses a run that would start from nothing where another one has come far, unless it is told
/// to.
pub(super) fn refuse_what_kafka_knows(
    config: &Config,
    topic: &Topic,
    plan: &RunPlan,
) -> anyhow::Result<()> {
    if plan.fresh {
        return Ok(());
    }
    let Some(witness) = witness(config, topic, plan) else { return Ok(()) };
    let directory = &config.checkpoint.directory;
    let command = if plan.to.is_none() { "train" } else { "replay" };
    bail!(
        "{directory} holds no checkpoint, but {witness}: a run that starts from nothing would take \
         its place. If the directory is not mounted, or is meant relative to another working \
         directory, correct that or checkpoint.directory; if it is lost, restore it from a backup. \
         To start over all the same, run `millrace {command} --fresh` once"
    )
}

/// What Kafka knows of an earlier run.
fn witness(config: &Config, topic: &Topic, plan: &RunPlan) -> Option<String> {
    let (kafka, publish) = (&config.kafka, &config.publish);
    if plan.to.is_none()
        && !kafka.group.is_empty()
        && let Some(version) = told(group::note(topic))
    {
        return Some(format!(
            "the group `{}` has committed the offsets of checkpoint {version} of `{}`",
            kafka.group, kafka.topic
        ));
    }
    if plan.publication != Publication::Never
        && !publish.topic.is_empty()
        && let Some(marker) = told(newest_version(config))
    {
        return Some(format!(
            "`{}` holds version {}, published from {}",
            publish.versions_topic, marker.version, marker.artifact
        ));
    }
    None
}

/// An answer. A question without one is said and stops nothing: what is asked feeds dashboards and
/// readers, and may be closed to us.
fn told<T>(answer: anyhow::Result<Option<T>>) -> Option<T> {
    answer.unwrap_or_else(|error| {
        tracing::warn!("cannot tell whether there was a run before this one: {error:#}");
        None
    })
}
