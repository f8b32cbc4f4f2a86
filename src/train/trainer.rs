//! One batch at a time: estimate, gather, towers, loss, update.
//!
//! [`Trainer::step`] is the paper's Algorithm 1. All state lives here, and every change of it is a
//! function of the batches in their order.

use std::sync::Arc;

use super::capture::Capturing;
use super::distinct::Distinct;
use super::encoder::{Encoded, Lookup};
use super::frequency::{Frequency, FrequencySettings, Mode, Rate};
use super::history::Histories;
use super::model::{Model, Placement, ReadSection};
use super::negatives::Drawn;
use super::objective::Objective;
use crate::config::{Alpha, Config};
use crate::corpus::Corpus;
use crate::stream::batch::Batch;
use crate::stream::offsets::Offsets;

/// Rows are looked through for expiry this often, in steps: a sweep costs a walk over the table.
const EXPIRY_EVERY_STEPS: u64 = 256;

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
    /// Mean loss over the batch; not finite: nothing was updated.
    pub loss: f32,
    /// Rank of each event's item among the distinct items of the batch, before training on it.
    pub ranks: Vec<u32>,
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
    /// Events trained on.
    pub events: u64,
    /// Records rejected.
    pub rejected: u64,
    /// Time of the newest event trained on, ms since 1970.
    pub event_time_ms: i64,
    pub(super) histories: Histories,
    pub(super) capturing: Option<Capturing>,
    pub(super) objective: Objective,
    lookup: Lookup,
    /// The towers' work stays on the calling thread: each thread has a queue of its own there.
    gpu: bool,
    config: Config,
}

/// What the manifest holds beside the sections.
#[derive(Clone, Debug)]
pub struct Counters {
    /// See [`Trainer::step`].
    pub step: u64,
    /// See [`Trainer::events`].
    pub events: u64,
    /// See [`Trainer::rejected`].
    pub rejected: u64,
    /// See [`Trainer::event_time_ms`].
    pub event_time_ms: i64,
    /// See [`Trainer::offsets`].
    pub offsets: Offsets,
    /// See [`Trainer::pass`].
    pub pass: u32,
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
            capturing: None,
            objective: Objective::new(config, placement),
            lookup: Lookup::default(),
            gpu: placement.gpu,
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
        self.pass = batch.pass;
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
        // On one of the pool's own threads: any other would be put to sleep at each parallel pass and
        // woken after it. On a virtual machine that made 26 ms of 19 to 23 at batch 1024.
        rayon::scope(|_| Some(self.train(batch, enter)))
    }

    /// Algorithm 1.
    fn train(&mut self, batch: &Batch, enter: &mut (dyn FnMut(Phase) + Send)) -> StepReport {
        enter(Phase::Estimate);
        let config = &self.config;
        let drawn = Drawn::new(&self.corpus, config.negatives.mixed, config.seed, self.step);
        let distinct = self.objective.distinct(batch);
        let (query, item) = self.encode(batch, &distinct, &drawn);
        enter(Phase::Gather);
        // The estimator fills what the lookup leaves of the threads.
        let (step, model, frequency) = (self.step, &mut self.model, &mut self.frequency);
        rayon::join(
            || self.lookup.run(&model.encoder, &query, &item, &mut model.tables, step),
            || {
                frequency.update(step, &batch.events.item_ids);
                self.objective.prepare(batch, &distinct, &drawn, self.corpus.len(), frequency);
            },
        );
        let inputs = self.lookup.inputs();
        enter(Phase::Forward);
        let vectors = model.towers.forward(&inputs);
        enter(Phase::Loss);
        let output = self.objective.run(batch, &distinct, &vectors, self.step);
        let report = StepReport { loss: output.loss, ranks: output.ranks.to_vec() };
        if report.loss.is_finite() {
            enter(Phase::Backward);
            let gradients = model.towers.backward(&inputs, &output.gradients);
            enter(Phase::Update);
            rayon::join(
                || self.lookup.update(&gradients, &mut model.tables),
                || self.corpus.remember(batch, step),
            );
            if self.step.is_multiple_of(EXPIRY_EVERY_STEPS) {
                for table in &mut model.tables {
                    table.expire(self.step);
                }
            }
        } else {
            self.corpus.remember(batch, step);
        }
        report
    }

    /// Both sides' ids, ready to be looked up; the item side has the batch's distinct items and the
    /// drawn ones behind them.
    fn encode(&mut self, batch: &Batch, distinct: &Distinct, drawn: &Drawn) -> (Encoded, Encoded) {
        let (model, events) = (&mut self.model, &batch.events);
        model.encoder.query.observe(&events.query, &mut model.statistics);
        model.encoder.item.observe(&events.item, &mut model.statistics);
        let before = self.histories.take(&events.query_ids, &events.item_ids);
        let query =
            model.encoder.query.encode(&events.query, events.len(), &before, &model.statistics);
        let columns = drawn.behind(distinct.columns(&events.item));
        let items = distinct.events.len() + drawn.ids.len();
        let item = model.encoder.item.encode(&columns, items, &[], &model.statistics);
        (query, item)
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

    /// Histories and corpus move on past a batch; the model and the estimator do not.
    pub fn pass_over(&mut self, batch: &Batch) {
        self.histories.take(&batch.events.query_ids, &batch.events.item_ids);
        self.corpus.remember(batch, self.step);
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

fn histories(config: &Config, model: &Model) -> Histories {
    Histories::new(config.history.queries_max, model.encoder.query.history_length())
}

/// An empty corpus with the config's bounds.
pub fn corpus(config: &Config) -> Corpus {
    Corpus::new(config.corpus.items_max, config.corpus.tombstone_steps)
}

/// The rate of both of the paper's experiments on real data (sections 6.2 and 6.3).
const PAPER_ALPHA: f32 = 0.01;

/// What the config's estimator is built from.
pub fn frequency_settings(config: &Config) -> FrequencySettings {
    let frequency = &config.frequency;
    FrequencySettings {
        mode: if frequency.paper { Mode::Paper } else { Mode::Default },
        exact: frequency.exact,
        hashes: frequency.hashes,
        buckets: frequency.buckets,
        alpha: match frequency.alpha {
            Alpha::Fixed(alpha) => Rate::Fixed(alpha),
            Alpha::Auto if frequency.paper => Rate::Fixed(PAPER_ALPHA),
            Alpha::Auto => Rate::Auto,
        },
        initial_gap: frequency.initial_gap,
        exact_ids_max: frequency.exact_ids_max,
        seed: config.seed,
    }
}
