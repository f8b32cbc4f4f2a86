//! The versions that were published, as their markers tell.

use rdkafka::message::Message;

use super::VersionMarker;
use crate::config::Config;
use crate::stream::newest;

/// Records that are looked at, over all partitions: the last one may be a transaction's marker, or
/// somebody else's.
const RECORDS_MAX: i64 = 64;

/// The marker that came last to the versions topic, of the output topic of `config`; none: the
/// topic is not there or holds none.
///
/// # Errors
/// Brokers that do not answer, or do not let this client read.
pub fn newest_version(config: &Config) -> anyhow::Result<Option<VersionMarker>> {
    let mut last: Option<(i64, VersionMarker)> = None;
    newest::read(config, &config.publish.versions_topic, RECORDS_MAX, |record| {
        let at = record.timestamp().to_millis().unwrap_or(0);
        let marker = record.payload().and_then(|value| VersionMarker::read(value).ok());
        let marker = marker.filter(|marker| marker.topic == config.publish.topic);
        if let Some(marker) = marker
            && last.as_ref().is_none_or(|(before, _)| at >= *before)
        {
            last = Some((at, marker));
        }
    })?;
    Ok(last.map(|(_, marker)| marker))
}
