//! One version on its way to the topic.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context, ensure};
use xxhash_rust::xxh3::xxh3_64;

use super::attributes;
use super::format::{Format, Heading};
use super::record::Digest;
use super::sent::Sent;
use super::{Published, Publisher, Session, VersionMarker, topic};
use crate::artifact::Bundle;
use crate::checkpoint::{Checkpoint, Manifest};
use crate::config::Config;
use crate::sections;
use crate::stream::calendar::now_ms;
use crate::stream::outbox::{Outbox, Outgoing, SendError};
use millrace_train::ItemSide;
use millrace_train::model::Model;

/// What a version sends.
struct Sweep {
    items: ItemSide,
    /// Which items are sent; none: all of them.
    moved: Option<Vec<bool>>,
    /// Keys that get a tombstone.
    gone: Vec<Vec<u8>>,
}

/// Sends `checkpoint`, and commits it; none, without a commit, if `stop` said so.
pub(super) fn run(
    publisher: &Publisher,
    session: &mut Session,
    checkpoint: &Checkpoint,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<Option<(Published, VersionMarker)>> {
    let config = &publisher.config;
    let items = publisher.pool.install(|| load(publisher, checkpoint))?;
    let artifact = artifact(publisher, checkpoint)?;
    let publish = &config.publish;
    let sent = session.sent.take().filter(|sent| sent.serves(&items, publish.full_every));
    // Without versions in between nobody asks what was sent.
    let names = if publish.full_every > 1 { &publish.attributes[..] } else { &[] };
    let said = attributes::hashes(names, &items);
    let moved = sent.as_ref().map(|sent| sent.moved(&items, &said, publish.moved_min));
    let whole = moved.is_none();
    let gone = gone(publisher, session, &checkpoint.manifest, (&items, whole), stop)?;
    let Some(gone) = gone else { return Ok(None) };
    let sweep = Sweep { items, moved, gone };
    session.outbox.begin()?;
    let Some(digest) = send_all(publisher, session, &checkpoint.manifest, &sweep, stop)? else {
        return Ok(None);
    };
    session.outbox.flush()?;
    let marker = marker(publisher, session, checkpoint, (&sweep, digest, &artifact));
    let value = serde_json::to_vec(&marker)?;
    let key = marker.version.as_bytes();
    send(&mut session.outbox, &publish.versions_topic, key, Some(&value))?;
    session.outbox.commit()?;
    let Sweep { items, moved, .. } = sweep;
    session.sent = match (sent, moved) {
        (Some(sent), Some(moved)) => Some(sent.after(&items, said, &moved)),
        _ => (publish.full_every > 1).then(|| Sent::all(&items, said)),
    };
    session.buried = items.rowless.iter().map(|(key, _)| *key).collect();
    let published = Published {
        version: marker.version.clone(),
        vectors: marker.sent,
        tombstones: marker.tombstones,
        step: marker.step,
    };
    Ok(Some((published, marker)))
}

/// Sends tombstones and vectors; the digest of the records, none if `stop` said so.
fn send_all(
    publisher: &Publisher,
    session: &mut Session,
    manifest: &Manifest,
    sweep: &Sweep,
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<Option<Digest>> {
    let Sweep { items, moved, gone } = sweep;
    let publish = &publisher.config.publish;
    let format = Format::of(publish);
    let heading = Heading {
        version: manifest.version.clone(),
        step: manifest.step,
        event_time_ms: event_time_ms(manifest),
    };
    let mut digest = Digest::default();
    // Tombstones are deleted after a day. Before the vectors they leave the ends of the version.
    for key in gone {
        digest.add(key, None);
        send(&mut session.outbox, &publish.topic, key, None)?;
    }
    for number in 0..items.len() {
        if moved.as_ref().is_some_and(|moved| !moved[number]) {
            continue;
        }
        if stop() {
            return Ok(None);
        }
        let id = items.names.get(number);
        let key = format.key(id);
        let said = attributes::text(&publish.attributes, items, number);
        let vector = items.vector(number);
        let value = format.value(&heading, (id, said), items.log_q[number], vector);
        digest.add(&key, Some(&value));
        send(&mut session.outbox, &publish.topic, &key, Some(&value))?;
    }
    Ok(Some(digest))
}

fn marker(
    publisher: &Publisher,
    session: &Session,
    checkpoint: &Checkpoint,
    (sweep, digest, artifact): (&Sweep, Digest, &(String, String)),
) -> VersionMarker {
    let Sweep { items, moved, gone } = sweep;
    let (config, manifest) = (&publisher.config, &checkpoint.manifest);
    let [format, vector] = Format::of(&config.publish).names();
    let count = |moved: &Vec<bool>| moved.iter().filter(|moved| **moved).count();
    VersionMarker {
        version: manifest.version.clone(),
        run: manifest.run.clone(),
        began_ms: manifest.began_ms,
        step: manifest.step,
        event_time_ms: event_time_ms(manifest),
        events: manifest.events_trained,
        vectors: items.len() as u64,
        sent: moved.as_ref().map_or(items.len(), count) as u64,
        tombstones: gone.len() as u64,
        full: moved.is_none(),
        moved_max: if moved.is_some() { config.publish.moved_min } else { 0.0 },
        format,
        vector,
        dim: items.dim,
        temperature: items.temperature,
        popularity: config.retrieval.popularity,
        topic: config.publish.topic.clone(),
        offsets: session.outbox.take_spans(),
        digest: digest.hex(),
        previous: session.newest.as_ref().map(|newest| newest.version.clone()),
        state_digest: manifest.digest.clone(),
        artifact: artifact.0.clone(),
        artifact_digest: artifact.1.clone(),
    }
}

/// Where the version's query tower lies, and its digest. The bundle is written before the version
/// is sent: a marker names what is there.
fn artifact(publisher: &Publisher, checkpoint: &Checkpoint) -> anyhow::Result<(String, String)> {
    let Config { artifact, .. } = &publisher.config;
    if artifact.directory.is_empty() {
        let manifest = &checkpoint.manifest;
        return Ok((checkpoint.path.display().to_string(), manifest.digest.clone()));
    }
    let (directory, log) = (Path::new(&artifact.directory), Some(&publisher.config));
    let kept =
        publisher.pool.install(|| crate::artifact::keep(checkpoint, log, directory, artifact.keep));
    let Bundle { path, digest, .. } = kept.context("the bundle was not written")?;
    Ok((path.display().to_string(), digest))
}

/// One event of a wrong clock must not date every version after it.
fn event_time_ms(manifest: &Manifest) -> i64 {
    manifest.event_time_ms.min(now_ms())
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
/// The corpus remembers what went for `corpus.tombstone_events`, and each `whole` version repeats
/// it, for readers that were away. What it does not know of is on the topic: items of another run,
/// and those that went while nothing was published for longer than that.
fn gone(
    publisher: &Publisher,
    session: &Session,
    manifest: &Manifest,
    (items, whole): (&ItemSide, bool),
    stop: &dyn Fn() -> bool,
) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
    let config = &publisher.config;
    let format = Format::of(&config.publish);
    let newest = session.newest.as_ref();
    let follows = newest.is_some_and(|newest| {
        let since = manifest.events_trained.saturating_sub(newest.events);
        let alike = newest.run == manifest.run && newest.format == format.names()[0];
        alike && since <= config.corpus.tombstone_events
    });
    let since = newest.filter(|_| follows && !whole).map_or(0, |newest| newest.events);
    let left = items.gone.iter().filter(|(_, at)| whole || *at > since).map(|(name, _)| name);
    let rowless = items.rowless.iter().filter(|(key, _)| !session.buried.contains(key));
    let names = left.chain(rowless.map(|(_, name)| name));
    // Where there was no version nobody holds what went, and a sink that makes its table from the
    // first value fails on a tombstone before it (Debezium's JDBC sink 3.4 does).
    let names = names.filter(|_| newest.is_some());
    let mut gone: Vec<Vec<u8>> = names.map(|name| format.key(name)).collect();
    if follows {
        return Ok(Some(gone));
    }
    // A hash is an eighth of an id, and two ids with one hash are nothing to wait for.
    let here: HashSet<u64> = (0..items.len())
        .map(|number| xxh3_64(&format.key(items.names.get(number))))
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
