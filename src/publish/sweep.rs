//! One version on its way to the topic.

use std::collections::HashSet;

use anyhow::{Context, ensure};
use xxhash_rust::xxh3::xxh3_64;

use super::record::Digest;
use super::{ItemVector, Published, Publisher, Session, VersionMarker, topic};
use crate::checkpoint::{Checkpoint, Manifest};
use crate::sections;
use crate::stream::calendar::now_ms;
use crate::stream::outbox::{Outbox, Outgoing, SendError};
use millrace_train::ItemSide;
use millrace_train::model::Model;

/// Sends all of `checkpoint`, and commits it; none, without a commit, if `stop` said so.
pub(super) fn run(
    publisher: &Publisher,
    session: &mut Session,
    checkpoint: &Checkpoint,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<Option<(Published, VersionMarker)>> {
    let Publisher { config, .. } = publisher;
    let manifest = &checkpoint.manifest;
    let items = publisher.pool.install(|| load(publisher, checkpoint))?;
    let Some(gone) = gone(publisher, session, manifest, &items, stop)? else { return Ok(None) };
    // One event of a wrong clock must not date every version after it.
    let event_time_ms = manifest.event_time_ms.min(now_ms());
    let topic = &config.publish.topic;
    let outbox = &mut session.outbox;
    outbox.begin()?;
    let mut digest = Digest::default();
    // Tombstones are deleted after a day. Before the vectors they leave the ends of the version.
    for key in &gone {
        digest.add(key, None);
        send(outbox, topic, key, None)?;
    }
    for number in 0..items.len() {
        if stop() {
            return Ok(None);
        }
        let value = serde_json::to_vec(&ItemVector {
            version: manifest.version.clone(),
            step: manifest.step,
            event_time_ms,
            log_q: items.log_q[number],
            vector: items.vector(number).to_vec(),
        })?;
        let key = items.names.get(number).as_bytes();
        digest.add(key, Some(&value));
        send(outbox, topic, key, Some(&value))?;
    }
    outbox.flush()?;
    let marker = VersionMarker {
        version: manifest.version.clone(),
        run: manifest.run.clone(),
        began_ms: manifest.began_ms,
        step: manifest.step,
        event_time_ms,
        events: manifest.events_trained,
        vectors: items.len() as u64,
        tombstones: gone.len() as u64,
        dim: items.dim,
        temperature: items.temperature,
        popularity: config.retrieval.popularity,
        topic: topic.clone(),
        offsets: outbox.take_spans(),
        digest: digest.hex(),
        previous: session.newest.as_ref().map(|newest| newest.version.clone()),
        artifact: checkpoint.path.display().to_string(),
        artifact_digest: manifest.digest.clone(),
    };
    let value = serde_json::to_vec(&marker)?;
    send(outbox, &config.publish.versions_topic, marker.version.as_bytes(), Some(&value))?;
    outbox.commit()?;
    let published = Published {
        version: marker.version.clone(),
        vectors: marker.vectors,
        tombstones: marker.tombstones,
        step: marker.step,
    };
    Ok(Some((published, marker)))
}

fn send(
    outbox: &mut Outbox,
    topic: &str,
    key: &[u8],
    payload: Option<&[u8]>,
) -> Result<(), SendError> {
    outbox.send(Outgoing { topic, key: Some(key), payload, ..Outgoing::default() })
}

/// The items of `checkpoint`. Of its tables only those are read that items need.
fn load(publisher: &Publisher, checkpoint: &Checkpoint) -> anyhow::Result<ItemSide> {
    let read = sections::of(checkpoint);
    let settings = publisher.config.train();
    let path = checkpoint.path.display();
    let cannot = || format!("cannot load {path}");
    let model = Model::restore_items(&settings.model, &publisher.placement, &read);
    let items = ItemSide::restore(&settings, &model.with_context(cannot)?, &read);
    let items = items.with_context(cannot)?;
    ensure!(
        !items.is_empty(),
        "{path} holds no item that has a vector: a version without vectors is not published"
    );
    Ok(items)
}

/// Keys that get a tombstone; none if `stop` said so.
///
/// The corpus remembers what went for `corpus.tombstone_events`, and each version repeats it, for
/// readers that were away. What it does not know of is on the topic: items of another run, and
/// those that went while nothing was published for longer than that.
fn gone(
    publisher: &Publisher,
    session: &Session,
    manifest: &Manifest,
    items: &ItemSide,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
    let config = &publisher.config;
    let known = items.gone.iter().map(|(name, _)| name).chain(items.rowless.iter().map(|(_, n)| n));
    let mut gone: Vec<Vec<u8>> = known.map(|name| name.as_bytes().to_vec()).collect();
    let follows = session.newest.as_ref().is_some_and(|newest| {
        let since = manifest.events_trained.saturating_sub(newest.events);
        newest.run == manifest.run && since <= config.corpus.tombstone_events
    });
    if follows {
        return Ok(Some(gone));
    }
    // A hash is an eighth of an id, and two ids with one hash are nothing to wait for.
    let here: HashSet<u64> = (0..items.len())
        .map(|number| xxh3_64(items.names.get(number).as_bytes()))
        .chain(gone.iter().map(|key| xxh3_64(key)))
        .collect();
    let strangers = topic::strangers(config, stop, |key| here.contains(&xxh3_64(key)))?;
    let Some(strangers) = strangers else { return Ok(None) };
    if !strangers.is_empty() {
        let items = strangers.len();
        tracing::info!(items, "the output topic holds items that are not of this run: they go");
    }
    gone.extend(strangers);
    Ok(Some(gone))
}
