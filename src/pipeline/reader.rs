//! The source thread: it hands batches to the trainer, and keeps an observation for the log lines.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender};

use super::metrics::{Beat, Fate};
use super::passes::Passes;
use super::{Clocks, Site, TICK};
use crate::checkpoint::Checkpoint;
use crate::stream::source::{Lag, Next, Source};
use millrace_events::Batch;

/// The source reports every [`TICK`]. If it is silent for longer than this, it waits for an answer
/// of the brokers.
const SILENT: Duration = Duration::from_secs(5);

/// The source thread's last observation. The trainer's thread reads it for the log lines.
#[derive(Default)]
pub struct Outlook {
    seen: Mutex<Option<Sighting>>,
}

struct Sighting {
    at: Instant,
    lag: Option<u64>,
    /// Empty while batches come.
    waits_for: String,
}

impl Outlook {
    /// Records of the topic that are in no batch yet, as far as their number is known.
    pub fn lag(&self) -> Option<u64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.lag
    }

    /// Says in words why there is no next batch yet.
    pub fn waits_for(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &*seen {
            None => "the source's first answer".to_owned(),
            Some(seen) if seen.at.elapsed() > SILENT => {
                let silent = seen.at.elapsed().as_secs();
                format!("the brokers, which have not answered the source for {silent} s")
            }
            Some(seen) => seen.waits_for.clone(),
        }
    }

    fn set(&self, lag: Option<u64>, waits_for: String) {
        let seen = Sighting { at: Instant::now(), lag, waits_for };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
}

/// Reads until the range ends, the run stops (at the end of a window) or the source fails.
pub(super) fn read(
    site: &Site,
    mut passes: Passes,
    batches: Sender<anyhow::Result<Batch>>,
    durable: &Mutex<Option<Checkpoint>>,
    outlook: &Outlook,
) -> ReadOut {
    let mut shown = BTreeMap::new();
    let mut inside = false; // a window of which the trainer has a part
    while inside || !site.stop.load(Ordering::Relaxed) {
        let busy = passes.source.brokers_away().is_none().then(|| site.clocks.busy(Beat::Polled));
        let next = passes.next(TICK);
        drop(busy);
        site.clocks.beat(Beat::Polled);
        site.health.set_waits_for(passes.source.away());
        show_rejected(site, &passes, &mut shown);
        if let Some(checkpoint) = take(durable) {
            passes.commit(&checkpoint);
        }
        let message = match next {
            Ok(Next::Idle) => {
                let waits_for = passes.source.waits_for();
                outlook.set(show_lag(site, &mut passes.source), waits_for);
                continue;
            }
            Ok(Next::End) => break,
            Ok(Next::Batch(batch)) => {
                Clocks::reach(&site.clocks.decoded, batch.newest_ms());
                Ok(batch)
            }
            Err(error) => Err(error),
        };
        outlook.set(show_lag(site, &mut passes.source), String::new());
        let failed = message.is_err();
        let whole = message.as_ref().is_ok_and(|batch| batch.whole);
        if !hand_over(site, &batches, message, inside) || failed {
            break;
        }
        inside = !whole;
    }
    ReadOut(passes)
}

/// A source that has ended, the connection still there.
pub(super) struct ReadOut(Passes);

impl ReadOut {
    /// Tells the run's last checkpoint to Kafka, if anybody listens, and gives the rejected records
    /// by reason, and the number of those that were passed over.
    pub(super) fn close(self, last: Option<&Checkpoint>) -> (Vec<(String, u64)>, u64) {
        let Self(passes) = self;
        if let Some(last) = last.filter(|_| passes.source.brokers_away().is_none()) {
            passes.commit(last);
        }
        let reasons = passes.rejected_by_reason().into_iter();
        (reasons.map(|(reason, count)| (reason.to_owned(), count)).collect(), passes.skipped())
    }
}

/// Moves the counters of rejected and skipped records on to what the source has counted.
fn show_rejected(site: &Site, passes: &Passes, shown: &mut BTreeMap<&'static str, u64>) {
    for (reason, count) in passes.rejected_by_reason() {
        let before = shown.insert(reason, count).unwrap_or(0);
        site.metrics.rejected(reason).inc_by(count - before);
    }
    let skipped = site.metrics.events(Fate::Skipped);
    skipped.inc_by(passes.skipped() - skipped.get());
    let unread = &site.metrics.unread_values_total;
    unread.inc_by(passes.unread() - unread.get());
}

/// Sets the lag of each partition, and counts those that the merge went on without. Returns the
/// lags' sum, once a partition's end is known.
fn show_lag(site: &Site, source: &mut Source) -> Option<u64> {
    for (topic, partition) in source.take_passed() {
        site.metrics.merge_waits(&topic, partition).inc();
    }
    for (topic, partition, lag) in source.catalogue_lag() {
        site.metrics.lag(topic, partition).set(lag);
    }
    let mut total = None;
    for Lag { topic, partition, records, uncommitted } in source.lag() {
        site.metrics.lag(topic, partition).set(records);
        site.metrics.uncommitted(topic, partition).set(uncommitted);
        // There from the first scrape on, so that a rate has something to look at.
        site.metrics.merge_waits(topic, partition);
        total = Some(total.unwrap_or(0) + u64::try_from(records).unwrap_or(0));
    }
    total
}

/// The newest durable checkpoint, if Kafka has not been told of it yet.
fn take(durable: &Mutex<Option<Checkpoint>>) -> Option<Checkpoint> {
    durable.lock().expect("no holder of this lock can panic").take()
}

/// Waits for room in the queue. False if the trainer has ended, or if the run stops and the message
/// is not `needed` all the same.
fn hand_over(
    site: &Site,
    batches: &Sender<anyhow::Result<Batch>>,
    mut message: anyhow::Result<Batch>,
    needed: bool,
) -> bool {
    loop {
        if !needed && site.stop.load(Ordering::Relaxed) {
            return false;
        }
        match batches.send_timeout(message, TICK) {
            Ok(()) => return true,
            Err(SendTimeoutError::Disconnected(_)) => return false,
            Err(SendTimeoutError::Timeout(returned)) => message = returned,
        }
    }
}
