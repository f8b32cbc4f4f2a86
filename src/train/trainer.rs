//! One batch at a time: estimate, gather, towers, loss, update.
//!
//! [`Trainer::step`] is the paper's Algorithm 1. All state lives here, and every change of it is a
//! function of the batches in their order. A step is worth its events: what an event is compared
//! with, what it moves and what is forgotten do not depend on where the stream was cut into
//! batches.

mod snapshot;

use std::sync::Arc;

use super::blame::to_blame;
use super::capture::Capturing;
use super::counters::Counters;
use super::distinct::Distinct;
use super::encoder::{Encoded, Lookup};
use super::frequency::Frequency;
use super::history::Histories;
use super::model::{Model, ReadSection};
use super::negatives::Drawn;
use super::objective::Objective;
use super::placement::Placement;
use super::portion::Portion;
use super::settings::{corpus, frequency_settings};
use super::window::{Traffic, Window};
use crate::config::Config;
use crate::train::corpus::Corpus;
use millrace_events::{Batch, Offsets};

/// Rows are looked through for expiry this often, in full batches: a sweep costs a walk over the
/// table.
const EXPIRY_EVERY_BATCHES: u64 = 256;

/// What a step is doing. The caller who has a clock measures the phases; the trainer has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Histories and statistics; which items are distinct.
    Estimate,
    /// Rows are found or created and pooled; beside it, the frequency estimator.
    Gather,
    /// Both towers.
    Forward,
    /// The loss and its gradient.
    Loss,
    /// Back through the towers, dense update included.
    Backward,
    /// Row-wise update; beside it, the corpus.
    Update,
}

impl Phase {
    /// The `phase` label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Estimate => "estimate",
            Self::Gather => "gather",
            Self::Forward => "forward",
            Self::Loss => "loss",
            Self::Backward => "backward",
            Self::Update => "update",
        }
    }
}

/// What a step found out.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Mean loss over the usable events of the batch. Not finite: no weight and no row moved; what
    /// counts events (the estimator, histories, statistics) has moved on all the same.
    pub loss: f32,
    /// Rank of each usable event's item among the distinct items of the last `candidates` events,
    /// before training on it. Meaningless if the loss is not finite.
    pub ranks: Vec<u32>,
    /// Events that ranks are among: those of a full batch, once so many have come.
    pub candidates: usize,
    /// Events, by place in the batch, whose vectors were not finite: nothing was learned from them.
    pub unusable: Vec<u32>,
    /// Rows that stayed as they were because their gradient was not finite.
    pub nonfinite_rows: usize,
}

/// One try at a batch.
struct Attempt {
    loss: f32,
    ranks: Vec<u32>,
    candidates: usize,
    nonfinite_rows: usize,
    /// By event of the traffic, where the loss is not finite: whether it can be to blame.
    to_blame: Vec<bool>,
}

/// All that accumulates.
pub struct Trainer {
    /// Tables and towers.
    pub model: Model,
    /// Last-seen features of every item, shared with readers.
    pub corpus: Arc<Corpus>,
    /// The streaming estimator.
    pub frequency: Frequency,
    /// Next offset to read.
    pub offsets: Offsets,
    /// Which time over the log the offsets belong to; 1: the first.
    pub pass: u32,
    /// Batches trained on.
    pub step: u64,
    /// Events trained on or passed over.
    pub events: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Time of the newest event trained on, ms since 1970.
    pub event_time_ms: i64,
    pub(super) histories: Histories,
    pub(super) window: Window,
    pub(super) capturing: Option<Capturing>,
    pub(super) objective: Objective,
    lookup: Lookup,
    /// The towers' work stays on the calling thread: each thread has a queue of its own there.
    gpu: bool,
    config: Config,
}

impl Trainer {
    /// A fresh trainer that will read from `offsets`.
    pub fn new(config: &Config, placement: &Placement, offsets: Offsets) -> Self {
        let model = Model::new(config, placement);
        let histories = histories(config, &model);
        Self {
            corpus: Arc::new(corpus(config)),
            frequency: Frequency::new(frequency_settings(config)),
            offsets,
            pass: 1,
            step: 0,
            events: 0,
            rejected: 0,
            event_time_ms: 0,
            histories,
            window: Window::new(config.batch.size),
            capturing: None,
            objective: Objective::new(config, placement),
            lookup: Lookup::default(),
            gpu: placement.is_gpu(),
            config: config.clone(),
            model,
        }
    }

    /// A trainer from a checkpoint's counters and sections.
    ///
    /// # Errors
    /// A section that is missing, damaged or of another shape.
    pub fn restore(
        config: &Config,
        placement: &Placement,
        counters: Counters,
        read: ReadSection<'_>,
    ) -> Result<Self, String> {
        let mut trainer = Self::new(config, placement, counters.offsets);
        trainer.step = counters.step;
        trainer.pass = counters.pass;
        trainer.events = counters.events;
        trainer.rejected = counters.rejected;
        trainer.event_time_ms = counters.event_time_ms;
        trainer.model = Model::restore(config, placement, read)?;
        trainer.frequency = Frequency::read_from(frequency_settings(config), &read("frequency")?)?;
        trainer.histories.load(&read("histories")?)?;
        trainer.corpus.load(&read("corpus")?)?;
        trainer.objective.load(read)?;
        trainer.window.load(&read("window")?, config.item.features.len())?;
        Ok(trainer)
    }

    /// Counters for the manifest.
    pub fn counters(&self) -> Counters {
        Counters {
            step: self.step,
            events: self.events,
            rejected: self.rejected,
            event_time_ms: self.event_time_ms,
            offsets: self.offsets.clone(),
            pass: self.pass,
        }
    }

    /// Trains on one batch and moves the offsets past it. `enter` is called as each phase begins.
    /// A batch without events only moves offsets and counters: `None`.
    pub fn step(
        &mut self,
        batch: &Batch,
        enter: &mut (dyn FnMut(Phase) + Send),
    ) -> Option<StepReport> {
        self.offsets.clone_from(&batch.offsets);
        if batch.pass != self.pass {
            // Histories of the pass before hold the future of this one, its targets too.
            self.histories.clear();
            self.pass = batch.pass;
        }
        self.rejected += batch.rejected;
        if batch.is_empty() {
            return None;
        }
        self.step += 1;
        self.events += batch.len() as u64;
        self.event_time_ms = self.event_time_ms.max(batch.newest_ms());
        if self.gpu {
            return Some(self.train(batch, enter));
        }
        // On one of the pool's own threads: any other would be put to sleep at each parallel pass
        // and woken after it. On a virtual machine that made 26 ms of 19 to 23 at batch 1024.
        rayon::scope(|_| Some(self.train(batch, enter)))
    }

    /// Algorithm 1, and once more without the events that made it fail, if any did.
    fn train(&mut self, batch: &Batch, enter: &mut (dyn FnMut(Phase) + Send)) -> StepReport {
        enter(Phase::Estimate);
        let (model, events) = (&mut self.model, &batch.events);
        model.encoder.query.observe(&events.query, &mut model.statistics);
        model.encoder.item.observe(&events.item, &mut model.statistics);
        let before = self.histories.take(&events.query_ids, &events.item_ids);
        let attempt = self.attempt(batch, &before, true, enter);
        if attempt.to_blame.contains(&true) {
            return self.train_without(batch, &before, &attempt.to_blame, enter);
        }
        self.finish(batch);
        let Attempt { loss, ranks, candidates, nonfinite_rows, .. } = attempt;
        StepReport { loss, ranks, candidates, unusable: Vec::new(), nonfinite_rows }
    }

    /// Trains on the events that are not to blame. Where nobody but the model can be, because
    /// events of before have broken too, or all of a batch, nothing is trained on and nobody is
    /// blamed.
    fn train_without(
        &mut self,
        batch: &Batch,
        before: &[Vec<u64>],
        to_blame: &[bool],
        enter: &mut (dyn FnMut(Phase) + Send),
    ) -> StepReport {
        let (own, past) = to_blame.split_at(batch.len());
        let numbered = |wanted: bool| (0u32..).zip(own).filter(move |&(_, bad)| *bad == wanted);
        let unusable: Vec<u32> = numbered(true).map(|(event, _)| event).collect();
        let usable: Vec<u32> = numbered(false).map(|(event, _)| event).collect();
        let (loss, ranks) = (f32::NAN, Vec::new());
        let mut report = StepReport { loss, ranks, candidates: 0, unusable, nonfinite_rows: 0 };
        if past.contains(&true) || usable.is_empty() && batch.len() > 1 {
            report.unusable.clear();
            self.finish(batch);
        } else if !usable.is_empty() {
            let rest = batch.part(&usable);
            let before: Vec<Vec<u64>> = match before {
                [] => Vec::new(),
                before => usable.iter().map(|&event| before[event as usize].clone()).collect(),
            };
            let attempt = self.attempt(&rest, &before, false, enter);
            self.finish(&rest);
            report.loss = attempt.loss;
            report.ranks = attempt.ranks;
            report.candidates = attempt.candidates;
            report.nonfinite_rows = attempt.nonfinite_rows;
        }
        report
    }

    /// One pass of Algorithm 1 over `batch`, whose queries had the items `before` each event. The
    /// estimator takes the batch in on the `first` one only.
    fn attempt(
        &mut self,
        batch: &Batch,
        before: &[Vec<u64>],
        first: bool,
        enter: &mut (dyn FnMut(Phase) + Send),
    ) -> Attempt {
        let config = &self.config;
        let traffic = self.window.fill_up(batch);
        let count = self.objective.to_draw(&traffic);
        let drawn = Drawn::new(&self.corpus, count, config.seed, self.step);
        let distinct = self.objective.distinct(&traffic);
        let (query, item) = encode(&self.model, batch, before, &traffic, &distinct, &drawn);
        enter(Phase::Gather);
        // The estimator fills what the lookup leaves of the threads.
        let (now, model, frequency) = (self.events, &mut self.model, &mut self.frequency);
        rayon::join(
            || self.lookup.run(&model.encoder, &query, &item, &mut model.tables, now),
            || {
                if first {
                    frequency.update(now, &batch.events.item_ids);
                }
                self.objective.prepare(&traffic, &distinct, &drawn, self.corpus.len(), frequency);
            },
        );
        let inputs = self.lookup.inputs();
        enter(Phase::Forward);
        let vectors = model.towers.forward(&inputs);
        enter(Phase::Loss);
        let output = self.objective.run(batch, &traffic, &distinct, &vectors, now);
        let mut attempt = Attempt {
            loss: output.loss,
            ranks: output.ranks.to_vec(),
            candidates: traffic.len(),
            nonfinite_rows: 0,
            to_blame: Vec::new(),
        };
        if !attempt.loss.is_finite() {
            attempt.to_blame = to_blame(batch, &traffic, &distinct, &vectors, config.model.dim);
            return attempt;
        }
        enter(Phase::Backward);
        let portion = Portion { events: batch.len() as u64, batch: config.batch.size as u64 };
        let Some(gradients) = model.towers.backward(&inputs, &output.gradients, portion) else {
            attempt.loss = f32::NAN;
            return attempt;
        };
        enter(Phase::Update);
        let (update, ()) = rayon::join(
            || self.lookup.update(&gradients, &mut model.tables),
            || self.corpus.remember(batch, now),
        );
        attempt.nonfinite_rows = update;
        attempt
    }

    /// What follows a batch whatever became of it.
    fn finish(&mut self, batch: &Batch) {
        self.window.push(batch);
        let every = EXPIRY_EVERY_BATCHES * self.config.batch.size as u64;
        if (self.events - batch.len() as u64) / every != self.events / every {
            for table in &mut self.model.tables {
                table.expire(self.events);
            }
        }
    }

    /// Vectors of a batch's queries without training on it; histories still move on, since later
    /// events of the same query follow these.
    pub fn embed_queries(&mut self, batch: &Batch) -> Vec<f32> {
        let before = self.histories.take(&batch.events.query_ids, &batch.events.item_ids);
        self.model.embed_queries(&batch.events.query, batch.len(), &before)
    }

    /// Vectors of a batch's queries, `[events, dim]`, as the next step will see them: each history
    /// has the items of the events before, those of this batch too. Changes nothing.
    pub fn queries(&self, batch: &Batch) -> Vec<f32> {
        let before = self.histories.peek(&batch.events.query_ids, &batch.events.item_ids);
        self.model.embed_queries(&batch.events.query, batch.len(), &before)
    }

    /// Histories, corpus, estimator and clock move on past a batch; the model stays.
    pub fn pass_over(&mut self, batch: &Batch) {
        if batch.is_empty() {
            return;
        }
        self.events += batch.len() as u64;
        self.histories.take(&batch.events.query_ids, &batch.events.item_ids);
        self.frequency.update(self.events, &batch.events.item_ids);
        self.corpus.remember(batch, self.events);
    }

    /// Divides the dot products in the loss, at present.
    pub fn temperature(&self) -> f32 {
        self.objective.temperature()
    }

    /// Vectors of a batch's queries, each with its history as it is now, which stays so.
    pub fn embed_queries_aside(&self, batch: &Batch) -> Vec<f32> {
        let events = &batch.events;
        let before: Vec<Vec<u64>> = match self.model.encoder.query.history_length() {
            0 => Vec::new(),
            _ => events.query_ids.iter().map(|&query| self.histories.of(query).to_vec()).collect(),
        };
        self.model.embed_queries(&events.query, events.len(), &before)
    }

    /// Queries whose history is kept.
    pub fn histories(&self) -> usize {
        self.histories.len()
    }
}

/// Both sides' ids, ready to be looked up; the item side has the traffic's distinct items and the
/// drawn ones behind them.
fn encode(
    model: &Model,
    batch: &Batch,
    before: &[Vec<u64>],
    traffic: &Traffic<'_>,
    distinct: &Distinct,
    drawn: &Drawn,
) -> (Encoded, Encoded) {
    let Model { encoder, statistics, .. } = model;
    let query = encoder.query.encode(&batch.events.query, batch.len(), before, statistics);
    let columns = drawn.behind(distinct.columns(&traffic.columns));
    let items = distinct.events.len() + drawn.ids.len();
    (query, encoder.item.encode(&columns, items, &[], statistics))
}

fn histories(config: &Config, model: &Model) -> Histories {
    Histories::new(config.history.queries_max, model.encoder.query.history_length())
}
