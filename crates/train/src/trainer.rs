//! One batch at a time: estimate, gather, towers, loss, update.
//!
//! [`Trainer::step`] is the paper's Algorithm 1. Every change of the [`State`] is a function of the
//! batches in their order. A step is worth its events: what an event is compared
//! with, what it moves and what is forgotten do not depend on where the stream was cut into
//! batches.

mod captures;
mod encode;
mod report;

use crate::captured::Capturing;
use crate::model::encoder::Lookup;
use crate::objective::blame::to_blame;
use crate::objective::negatives::DrawnItems;
use crate::placement::Placement;
use crate::portion::Portion;
use crate::progress::Progress;
use crate::saved::{Damaged, ReadSection};
use crate::settings::TrainSettings;
use crate::state::State;
use encode::encode;
use millrace_events::{Batch, CataloguePlace, EventSide, Offsets, mix};
pub use report::{Phase, StepReport};

/// Rows are looked through for expiry this often, in full batches: a sweep costs a walk over the
/// table.
const EXPIRY_EVERY_BATCHES: u64 = 256;

/// One try at a batch.
struct Attempt {
    loss: f32,
    ranks: Vec<u32>,
    rewards: Vec<f32>,
    candidates: usize,
    nonfinite_rows: usize,
    /// By event of the traffic, where the loss is not finite: whether it can be to blame.
    to_blame: Vec<bool>,
}

/// A [`State`] and what moves it.
///
/// ```
/// use millrace_events::{Batch, Event, Events, FeatureValue, Offsets, id_key};
/// use millrace_train::model::feature::{Feature, FeatureInput};
/// use millrace_train::{Placement, TrainSettings, Trainer};
///
/// let rows = |table: &str| FeatureInput::Rows { table: table.into() };
/// let query = vec![Feature::new("user", rows("user"))];
/// let item = vec![Feature::new("film", rows("film"))];
/// let settings = TrainSettings::new(4, query, item);
/// let mut trainer = Trainer::new(&settings, &Placement::Cpu, Offsets::new("views"));
///
/// let mut batch = Batch::new(Events::new(1, 1), Offsets::new("views"));
/// for (user, film) in [("ann", "alien"), ("bob", "brazil"), ("ann", "aliens"), ("eve", "alien")] {
///     let [query_id, item_id] = [user, film].map(|name| id_key(name.as_bytes()));
///     batch.events.push(&Event {
///         time_ms: 0,
///         query_id,
///         item_id,
///         item_name: film.into(),
///         reward: 1.0,
///         query: vec![FeatureValue::Id(query_id)],
///         item: vec![FeatureValue::Id(item_id)],
///     });
/// }
/// let report = trainer.step(&batch).expect("a batch with events");
/// assert!(report.loss.is_finite());
/// let items = trainer.state().corpus.sorted();
/// let vectors = trainer.state().model.embed_items(&items); // [items, dim]
/// assert_eq!(vectors.len(), 3 * 64);
/// ```
pub struct Trainer {
    state: State,
    capture: Option<Capturing>,
    lookup: Lookup,
    /// The towers' work stays on the calling thread: each thread has a queue of its own there.
    gpu: bool,
    seed: u64,
    /// Events of a full batch.
    batch: usize,
    /// See [`TrainSettings::times`].
    times: u32,
}

impl Trainer {
    /// A fresh trainer that will read from `offsets`.
    pub fn new(settings: &TrainSettings, placement: &Placement, offsets: Offsets) -> Self {
        Self::with_progress(settings, placement, Progress::begin(offsets))
    }

    /// A fresh trainer whose log has come so far already, without events to learn from.
    pub fn with_progress(
        settings: &TrainSettings,
        placement: &Placement,
        progress: Progress,
    ) -> Self {
        Self::from_state(settings, placement, State::new(settings, placement, progress))
    }

    /// A trainer from a checkpoint's progress and sections.
    ///
    /// # Errors
    /// A section that is missing, damaged or of another shape.
    pub fn restore(
        settings: &TrainSettings,
        placement: &Placement,
        progress: Progress,
        read: ReadSection<'_>,
    ) -> Result<Self, Damaged> {
        let state = State::restore(settings, placement, progress, read)?;
        Ok(Self::from_state(settings, placement, state))
    }

    /// A trainer that goes on with `state`, which is of these settings and this placement.
    pub fn from_state(settings: &TrainSettings, placement: &Placement, state: State) -> Self {
        Self {
            state,
            capture: None,
            lookup: Lookup::default(),
            gpu: placement.is_gpu(),
            seed: settings.seed,
            batch: settings.batch,
            times: settings.times,
        }
    }

    /// All that has accumulated.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// All that has accumulated, for who trains no more.
    pub fn into_state(self) -> State {
        self.state
    }

    /// How far it has come.
    pub fn progress(&self) -> &Progress {
        &self.state.progress
    }

    /// Follows the catalogues of these places from now on; see [`State::follow`].
    pub fn follow(&mut self, settings: &TrainSettings, places: Vec<CataloguePlace>) {
        self.state.follow(settings, places);
    }

    /// Events of `batch`, by place, that must not be trained on, because their item would be taken
    /// for another one; see [`Corpus::impostors`](crate::memory::corpus::Corpus::impostors).
    pub fn impostors(&self, batch: &Batch) -> Vec<u32> {
        self.state.corpus.impostors(&batch.events)
    }

    /// Trains on one batch and moves the offsets past it. A batch without events only moves offsets
    /// and counts: `None`.
    pub fn step(&mut self, batch: &Batch) -> Option<StepReport> {
        self.step_timed(batch, &mut |_| {})
    }

    /// [`step`](Self::step), with `enter` called as each phase begins.
    pub fn step_timed(
        &mut self,
        batch: &Batch,
        enter: &mut (dyn FnMut(Phase) + Send),
    ) -> Option<StepReport> {
        self.step_looking(batch, |_, _| {}, enter)
    }

    /// [`step_timed`](Self::step_timed); `look` sees the state before it learns from the batch, and
    /// the batch with what catalogues know of its events.
    pub fn step_looking(
        &mut self,
        batch: &Batch,
        look: impl FnOnce(&State, &Batch),
        enter: &mut (dyn FnMut(Phase) + Send),
    ) -> Option<StepReport> {
        if batch.pass != self.state.progress.pass {
            // Histories of the pass before hold the future of this one, its targets too.
            self.state.histories.clear();
        }
        let known = self.state.take_changes(batch);
        look(&self.state, &known);
        self.state.progress.pass(batch);
        let batch = &*known;
        if batch.is_empty() {
            return None;
        }
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
        let events = &batch.events;
        let State { model, histories, .. } = &mut self.state;
        model.encoder.query.observe(&events.query, &mut model.statistics);
        model.encoder.item.observe(&events.item, &mut model.statistics);
        let before = histories.take(&events.query_ids, &events.item_ids);
        let attempt = self.attempt(batch, &before, Round::FIRST, enter);
        if attempt.to_blame.contains(&true) {
            return self.train_without(batch, &before, &attempt.to_blame, enter);
        }
        for number in 1..self.times {
            let round = Round { number, estimated: true };
            if self.attempt(batch, &before, round, enter).loss.is_nan() {
                break;
            }
        }
        self.finish(batch);
        let Attempt { loss, ranks, rewards, candidates, nonfinite_rows, .. } = attempt;
        StepReport { loss, ranks, rewards, candidates, unusable: Vec::new(), nonfinite_rows }
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
        let mut report = StepReport {
            loss: f32::NAN,
            ranks: Vec::new(),
            rewards: Vec::new(),
            candidates: 0,
            unusable,
            nonfinite_rows: 0,
        };
        if past.contains(&true) || usable.is_empty() && batch.len() > 1 {
            report.unusable.clear();
            self.finish(batch);
        } else if !usable.is_empty() {
            let rest = batch.part(&usable);
            let before: Vec<Vec<u64>> = match before {
                [] => Vec::new(),
                before => usable.iter().map(|&event| before[event as usize].clone()).collect(),
            };
            let attempt =
                self.attempt(&rest, &before, Round { estimated: true, ..Round::FIRST }, enter);
            self.finish(&rest);
            report.loss = attempt.loss;
            report.ranks = attempt.ranks;
            report.rewards = attempt.rewards;
            report.candidates = attempt.candidates;
            report.nonfinite_rows = attempt.nonfinite_rows;
        }
        report
    }

    /// One pass of Algorithm 1 over `batch`, whose queries had the items `before` each event.
    fn attempt(
        &mut self,
        batch: &Batch,
        before: &[Vec<u64>],
        round: Round,
        enter: &mut (dyn FnMut(Phase) + Send),
    ) -> Attempt {
        let State { model, corpus, frequency, progress, window, objective, catalogues, .. } =
            &mut self.state;
        let catalogue = catalogues.iter().find(|catalogue| catalogue.side() == EventSide::Item);
        let (now, dim) = (progress.events, model.towers.dim());
        if !round.estimated {
            model.encoder.see(&batch.events, before, &mut model.tables);
        }
        let traffic = window.fill_up(batch);
        let count = objective.to_draw(&traffic);
        // What a step draws is a function of the seed and of its place in the log.
        let seed = self.seed ^ u64::from(round.number) << 32;
        let drawn = DrawnItems::new(corpus, count, seed, progress.step);
        let distinct = objective.distinct(&traffic);
        let seed = mix(seed ^ mix(progress.events));
        let (query, item) = encode(model, batch, before, &traffic, &distinct, &drawn, seed);
        enter(Phase::Gather);
        // The estimator fills what the lookup leaves of the threads.
        rayon::join(
            || self.lookup.run(&model.encoder, &query, &item, &mut model.tables, now),
            || {
                if !round.estimated {
                    frequency.update(now, &batch.events.item_ids);
                }
                objective.prepare(&traffic, &distinct, &drawn, corpus.len(), frequency);
            },
        );
        let inputs = self.lookup.inputs();
        enter(Phase::Forward);
        let vectors = model.towers.forward(&inputs);
        enter(Phase::Loss);
        let (events, kept) = ((batch, before), round.number == 0);
        let output = objective.run(events, &traffic, &distinct, &vectors, now, kept);
        let mut attempt = Attempt {
            loss: output.loss,
            ranks: output.ranks.to_vec(),
            rewards: batch.events.rewards.clone(),
            candidates: traffic.len(),
            nonfinite_rows: 0,
            to_blame: Vec::new(),
        };
        if !attempt.loss.is_finite() {
            attempt.to_blame = to_blame(batch, &traffic, &distinct, &vectors, dim);
            return attempt;
        }
        enter(Phase::Backward);
        let portion = Portion { events: batch.len() as u64, batch: self.batch as u64 };
        let Some(gradients) = model.towers.backward(&inputs, &output.gradients, portion) else {
            attempt.loss = f32::NAN;
            return attempt;
        };
        enter(Phase::Update);
        let (update, ()) = rayon::join(
            || self.lookup.update(&gradients, &mut model.tables),
            || corpus.remember_but(batch, now, catalogue),
        );
        attempt.nonfinite_rows = update;
        attempt
    }

    /// What follows a batch whatever became of it.
    fn finish(&mut self, batch: &Batch) {
        let State { model, window, progress, .. } = &mut self.state;
        window.push(batch);
        let every = EXPIRY_EVERY_BATCHES * self.batch as u64;
        if (progress.events - batch.len() as u64) / every != progress.events / every {
            for table in &mut model.tables {
                table.expire(progress.events);
            }
        }
    }

    /// Vectors of a batch's queries, `[events, dim]`, without training on it; histories still move
    /// on, since later events of the same query follow these.
    pub fn embed_and_remember(&mut self, batch: &Batch) -> Vec<f32> {
        let batch = &*self.state.take_changes(batch);
        let State { model, histories, .. } = &mut self.state;
        let before = histories.take(&batch.events.query_ids, &batch.events.item_ids);
        model.embed_queries(&batch.events.query, batch.len(), &before)
    }

    /// Histories, corpus, estimator and clock move on past a batch; the model stays.
    pub fn pass_over(&mut self, batch: &Batch) {
        if batch.is_empty() {
            return;
        }
        let State { corpus, frequency, histories, progress, .. } = &mut self.state;
        progress.events += batch.len() as u64;
        histories.take(&batch.events.query_ids, &batch.events.item_ids);
        frequency.update(progress.events, &batch.events.item_ids);
        corpus.remember(batch, progress.events);
    }
}

/// Which time a batch is trained on.
#[derive(Clone, Copy)]
struct Round {
    /// From 0. What is drawn differs by it, and past vectors are kept of the first alone.
    number: u32,
    /// The estimator has taken the batch in.
    estimated: bool,
}

impl Round {
    const FIRST: Self = Self { number: 0, estimated: false };
}
