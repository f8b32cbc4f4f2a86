//! The figures that a run shows of itself while it runs: counts and windows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::metrics::{Beat, Fate, Metrics, RECALL_KS};
use super::{Clocks, Outlook, Site};
use millrace_events::Batch;
use millrace_train::evaluation::Recall;
#[cfg(feature = "gpu")]
use millrace_train::placement::Placement;
use millrace_train::trainer::{StepReport, Trainer};

/// Full batches' worth of events over which the loss and the recall gauge are averaged: at batch
/// 1024 about 50,000 events, enough for two digits of recall.
const WINDOW_STEPS: usize = 50;

/// After this many steps in a row without a finite loss the state itself is broken: a bad event
/// costs itself alone.
const NONFINITE_IN_A_ROW_MAX: u32 = 8;

/// What came of one step.
pub(super) struct Step {
    pub(super) number: u64,
    /// None: there was nothing to learn from.
    pub(super) report: Option<StepReport>,
    /// Ranks of the batch's items by popularity alone; empty: it was not looked at.
    pub(super) popular: Vec<u32>,
}

/// The counts of the trainer's loop.
pub struct RunStats {
    /// Recall over this run.
    pub recall: Recall,
    window: Recall,
    /// As `window`, of popularity alone.
    popular: Recall,
    losses: VecDeque<f32>,
    /// Sum of losses weighted by events, and the number of events, since the newest of `losses`:
    /// less than a full batch.
    part: (f64, usize),
    /// Events that could not be trained on, by reason.
    pub(super) unusable: BTreeMap<&'static str, u64>,
    pub(super) nonfinite_steps: u64,
    /// Steps without a finite loss, in a row up to now.
    nonfinite_in_a_row: u32,
    /// The trainer's offsets are exact: it is not within a shuffle window.
    pub(super) whole: bool,
    pub(super) step_before: u64,
    /// Records in the state's past when this run began.
    pub records_before: u64,
    /// Records that this run will read; 0: it has no end.
    pub total: u64,
    /// The source thread's last observation.
    pub outlook: Arc<Outlook>,
    evictions: Vec<u64>,
    /// When the first batch came, and when the last one was trained on.
    trained: Option<(Instant, Instant)>,
}

impl RunStats {
    pub(super) fn new(trainer: &Trainer, total: u64) -> Self {
        Self {
            recall: Recall::new(&RECALL_KS),
            window: Recall::new(&RECALL_KS),
            popular: Recall::new(&RECALL_KS),
            losses: VecDeque::with_capacity(WINDOW_STEPS),
            part: (0.0, 0),
            unusable: BTreeMap::new(),
            nonfinite_steps: 0,
            nonfinite_in_a_row: 0,
            whole: true,
            step_before: trainer.progress().step,
            records_before: trainer.progress().records(),
            total,
            outlook: Arc::default(),
            evictions: trainer.state().model.tables.iter().map(|table| table.evictions()).collect(),
            trained: None,
        }
    }

    /// A batch that was waited for until `came` has been trained on.
    pub(super) fn clock(&mut self, came: Instant) {
        let (began, _) = self.trained.unwrap_or((came, came));
        self.trained = Some((began, Instant::now()));
    }

    /// Seconds from the first batch to the last update; 0 without any.
    pub fn seconds(&self) -> f64 {
        self.trained.map_or(0.0, |(began, ended)| (ended - began).as_secs_f64())
    }

    /// Mean loss of the last full batches' worth of events; NaN without any.
    #[expect(clippy::cast_precision_loss, reason = "at most WINDOW_STEPS")]
    pub fn loss(&self) -> f64 {
        if self.losses.is_empty() {
            return self.part.0 / self.part.1 as f64;
        }
        self.losses.iter().map(|&loss| f64::from(loss)).sum::<f64>() / self.losses.len() as f64
    }

    /// Whether too many steps in a row failed for the next one to do better.
    pub(super) fn is_broken(&self) -> bool {
        self.nonfinite_in_a_row >= NONFINITE_IN_A_ROW_MAX
    }

    /// `step` took `batch`.
    pub(super) fn count(&mut self, site: &Site, batch: &Batch, step: &Step) {
        self.whole = batch.whole;
        let metrics = &site.metrics;
        metrics.events(Fate::Rejected).inc_by(batch.rejected);
        let Some(report) = &step.report else { return };
        site.clocks.beat(Beat::Batch);
        metrics.events(Fate::Trained).inc_by(batch.len() as u64);
        #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
        metrics.batch_events.observe(batch.len() as f64);
        Clocks::reach(&site.clocks.trained, batch.newest_ms());
        site.clocks.learned(step.number, &batch.events.times_ms);
        let size = site.config.batch.size;
        metrics.events(Fate::Rejected).inc_by(report.unusable.len() as u64);
        if report.loss.is_finite() {
            self.nonfinite_in_a_row = 0;
            self.count_loss(metrics, report.loss, report.ranks.len(), size);
        } else {
            self.nonfinite_in_a_row += 1;
            self.nonfinite_steps += 1;
            metrics.nonfinite_steps_total.inc();
        }
        // Among fewer items than a window has, a rank would flatter; after a failed step it says
        // nothing.
        if report.loss.is_finite() && report.candidates >= size {
            for (&rank, &reward) in report.ranks.iter().zip(&report.rewards) {
                self.recall.add(Some(rank), reward);
                self.window.add(Some(rank), reward);
            }
            for (&rank, &reward) in step.popular.iter().zip(&batch.events.rewards) {
                self.popular.add(Some(rank), reward);
            }
        }
        if self.window.cases() >= (WINDOW_STEPS * site.config.batch.size) as u64 {
            self.show_recall(metrics);
            self.window = Recall::new(&RECALL_KS);
            self.popular = Recall::new(&RECALL_KS);
        }
    }

    /// So many events could not be trained on.
    pub(super) fn leave_out(&mut self, metrics: &Metrics, reason: &'static str, events: usize) {
        *self.unusable.entry(reason).or_default() += events as u64;
        metrics.rejected(reason).inc_by(events as u64);
    }

    /// Adds the mean loss of some events. A step of one event says little, so the gauge shows the
    /// mean of a full batch's worth.
    #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
    fn count_loss(&mut self, metrics: &Metrics, loss: f32, events: usize, size: usize) {
        let (sum, count) = &mut self.part;
        *sum += f64::from(loss) * events as f64;
        *count += events;
        if *count < size {
            return;
        }
        let mean = *sum / *count as f64;
        self.part = (0.0, 0);
        if self.losses.len() == WINDOW_STEPS {
            self.losses.pop_front();
        }
        self.losses.push_back(mean as f32);
        metrics.train_loss.set(mean);
    }

    fn show_recall(&self, metrics: &Metrics) {
        for (k, recall) in self.window.values() {
            metrics.recall(k).set(recall);
        }
        for (k, recall) in self.popular.values() {
            metrics.popularity_recall(k).set(recall);
        }
    }

    /// Sizes that are worth a look now and then, not every step.
    pub(super) fn count_state(&mut self, site: &Site, trainer: &Trainer) {
        let metrics = &site.metrics;
        let names = &trainer.state().model.encoder.tables;
        for ((name, table), seen) in
            names.iter().zip(&trainer.state().model.tables).zip(&mut self.evictions)
        {
            let rows = i64::try_from(table.len()).unwrap_or(i64::MAX);
            metrics.rows(name).set(rows);
            metrics.evictions(name).inc_by(table.evictions() - *seen);
            *seen = table.evictions();
        }
        metrics.frequency_collisions.set(trainer.state().frequency.collisions());
        if self.window.cases() > 0 {
            self.show_recall(metrics);
        }
        #[cfg(feature = "gpu")]
        if let Placement::Gpu(device) = &site.placement
            && let Some(usage) = device.memory_pool_usage()
        {
            let bytes = i64::try_from(usage.bytes_reserved).unwrap_or(i64::MAX);
            metrics.device_memory_bytes.set(bytes);
        }
    }
}
