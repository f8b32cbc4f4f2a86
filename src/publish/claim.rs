//! Whose the output topic is: a newer version is not replaced by an older one.
//!
//! Kafka keeps a second publisher from writing between the records of a first one, and says nothing
//! of which should win. The newest marker does: of one run the later step, of two runs the one that
//! began later.

use super::VersionMarker;
use crate::checkpoint::Manifest;

/// A run that publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimant<'r> {
    /// Its name.
    pub run: &'r str,
    /// When it began, ms since 1970; none: before runs wrote it down.
    pub began_ms: Option<i64>,
}

impl<'r> Claimant<'r> {
    /// The run of a checkpoint.
    pub fn of(manifest: &'r Manifest) -> Claimant<'r> {
        Claimant { run: &manifest.run, began_ms: manifest.began_ms }
    }
}

/// The topic is not this run's any more, or holds a later version of it.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{topic}` holds version {newest}, {why}: it is not replaced by an older one. If that is what \
     you want, run `millrace publish --config FILE --take-over` once; else stop this run, or give \
     it a publish.topic and a publish.versions_topic of its own"
)]
pub struct Superseded {
    topic: String,
    newest: String,
    why: String,
}

impl Superseded {
    fn by(newest: &VersionMarker, why: String) -> Superseded {
        Superseded { topic: newest.topic.clone(), newest: newest.version.clone(), why }
    }
}

/// Whether this run may publish after `newest`.
pub(super) fn check_run(newest: &VersionMarker, run: Claimant<'_>) -> Result<(), Superseded> {
    let Claimant { run, began_ms } = run;
    if newest.run == run || newest.began_ms <= began_ms {
        return Ok(());
    }
    let began = |ms: Option<i64>| ms.map_or("at an unknown time".to_owned(), at);
    let why = format!(
        "of run {}, which began {}, after this one ({run}, {})",
        newest.run,
        began(newest.began_ms),
        began(began_ms)
    );
    Err(Superseded::by(newest, why))
}

/// Whether the version of `manifest` may come after `newest`. The same one may come again.
pub(super) fn check(newest: &VersionMarker, manifest: &Manifest) -> Result<(), Superseded> {
    check_run(newest, Claimant::of(manifest))?;
    let Manifest { run, step, digest, .. } = manifest;
    if newest.run != *run || newest.step < *step {
        return Ok(());
    }
    if newest.step > *step {
        let why = format!("a later step of this run than {step}");
        return Err(Superseded::by(newest, why));
    }
    match newest.state_digest.is_empty() || newest.state_digest == *digest {
        true => Ok(()),
        false => Err(Superseded::by(newest, "the same step with another content".to_owned())),
    }
}

fn at(ms: i64) -> String {
    let (day, time) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1000);
    let date = crate::stream::calendar::date_of(day);
    format!("on {date} at {:02}:{:02}:{:02} UTC", time / 3600, time / 60 % 60, time % 60)
}
