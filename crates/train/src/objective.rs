//! What the loss is asked: which negatives, which correction, which temperature.
//!
//! Owns the bank of past vectors, the temperature and the softmax's scratch memory. Must never
//! know: tables, towers, where a batch came from.

pub(crate) mod blame;
pub(crate) mod distinct;
pub(crate) mod negatives;
pub mod softmax;
pub(crate) mod temperature;

use serde::{Deserialize, Serialize};

use crate::frequency::{Frequency, Meaning};
use crate::kernel::matrix::{Matrix, PerTower};
use crate::memory::window::Traffic;
use crate::placement::Placement;
use crate::saved::{Damaged, ReadSection, whole};
use distinct::Distinct;
use millrace_events::Batch;
use negatives::{Bank, DrawnItems};
use softmax::{LossInput, Merged, Outcome, Positive, Precision, Softmax};
use temperature::Temperature;

/// Greatest share of the columns that a positive is taken to have: at 1 it would have no negatives.
const POSITIVE_SHARE_MAX: f32 = 0.99;

/// Correction of the sampling bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Batch softmax without correction (paper, equation 3).
    Plain,
    /// log q subtracted from every logit (paper, equation 4).
    Corrected,
    /// The positive uncorrected and outside the sum, each example weighted by the estimated
    /// probability of a wrong answer (Khrylchenko et al. 2025).
    CorrectedPositiveExcluded,
}

/// What the softmax is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectiveSettings {
    /// Sampling-bias correction.
    pub correction: Correction,
    /// Number format of the operands of the logits' products; sums are f32 always.
    pub precision: Precision,
    /// Factor of log q.
    pub strength: f32,
    /// Divides the cosine before the correction; where a learned one begins.
    pub temperature: f32,
    /// Adagrad's rate for the temperature's logarithm; 0: it stays as it is.
    pub temperature_learning_rate: f32,
    /// Other events of the same query are no negatives.
    pub mask_same_query: bool,
    /// Items of a query's history are no negatives of it.
    pub mask_history: bool,
    /// Items drawn uniformly from the corpus for a full batch (Yang et al. 2020).
    pub mixed: usize,
    /// Item vectors of past batches that serve as negatives (Wang et al. 2021).
    pub cross_batch: usize,
    /// Events before the first vectors are kept for that.
    pub cross_batch_after_events: u64,
}

impl Default for ObjectiveSettings {
    fn default() -> Self {
        Self {
            correction: Correction::Corrected,
            precision: Precision::F32,
            strength: 1.0,
            temperature: 0.07,
            temperature_learning_rate: 0.0,
            mask_same_query: false,
            mask_history: false,
            mixed: 0,
            cross_batch: 0,
            cross_batch_after_events: 0,
        }
    }
}

/// The loss with all that it accumulates.
pub(crate) struct Objective {
    settings: ObjectiveSettings,
    softmax: Softmax,
    merges: bool,
    bank: Bank,
    temperature: Temperature,
    /// `[columns]`, nats, scaled by the correction's strength.
    log_q: Vec<f32>,
    /// `[batch]`, see [`Positive::Excluded`].
    shift: Vec<f32>,
    /// `[columns]`
    item_ids: Vec<u64>,
    dim: usize,
    /// Events of a full batch.
    full_batch: usize,
}

impl Objective {
    /// For vectors of `dim` floats and full batches of `full_batch` events.
    pub(crate) fn new(
        settings: &ObjectiveSettings,
        dim: usize,
        full_batch: usize,
        placement: &Placement,
    ) -> Self {
        Self {
            settings: settings.clone(),
            softmax: Softmax::new(placement, settings.precision),
            // A GPU wants the same shapes at every step; a mask of queries is one of single events.
            merges: !placement.is_gpu() && !settings.mask_same_query,
            bank: Bank::new(settings.cross_batch, dim),
            temperature: Temperature::new(settings),
            log_q: Vec::new(),
            shift: Vec::new(),
            item_ids: Vec::new(),
            dim,
            full_batch,
        }
    }

    /// Divides the dot products at present.
    pub(crate) fn temperature(&self) -> f32 {
        self.temperature.value()
    }

    /// The items of a step's traffic as the loss wants them: each once, or an event each.
    pub(crate) fn distinct(&self, traffic: &Traffic<'_>) -> Distinct {
        if self.merges { Distinct::merged(traffic) } else { Distinct::each(traffic) }
    }

    /// Items to draw beside so many events: in proportion, so that both halves of the softmax keep
    /// their weight while the first window fills.
    pub(crate) fn to_draw(&self, traffic: &Traffic<'_>) -> usize {
        self.settings.mixed * traffic.len() / self.full_batch
    }

    /// Takes the columns of a step, the traffic's `distinct` items and the `drawn` ones from a
    /// corpus of `items` items, and their log q from estimates that include this batch.
    pub(crate) fn prepare(
        &mut self,
        traffic: &Traffic<'_>,
        distinct: &Distinct,
        drawn: &DrawnItems,
        items: usize,
        frequency: &Frequency,
    ) {
        self.item_ids.clear();
        self.item_ids.extend(distinct.events.iter().map(|&event| traffic.item_ids[event as usize]));
        self.item_ids.extend_from_slice(&drawn.ids);
        self.log_q.clear();
        self.log_q.resize(self.item_ids.len(), 0.0);
        self.shift.clear();
        if self.settings.correction == Correction::Plain {
            return;
        }
        // Each event counts in the sums, those of one item too: expected occurrences, in a full
        // batch and thus in a full window.
        frequency.log_q(&self.item_ids, Meaning::ExpectedCount, &mut self.log_q);
        if traffic.len() != self.full_batch {
            #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
            let filled = (traffic.len() as f32 / self.full_batch as f32).ln();
            self.log_q.iter_mut().for_each(|log_q| *log_q += filled);
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of columns and items, as shares")]
        if !drawn.ids.is_empty() {
            // Q* = B q + B' / |C| (Yang et al. 2020).
            let uniform = drawn.ids.len() as f32 / items as f32;
            for log_q in &mut self.log_q {
                *log_q = (log_q.exp() + uniform).ln();
            }
        }
        let strength = self.settings.strength;
        if self.settings.correction == Correction::CorrectedPositiveExcluded {
            #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
            let columns = (traffic.len() + drawn.ids.len()) as f32;
            // log q - log Q', with Q' = (q / columns) / (1 - q_positive / columns).
            let shift = |log_q: &f32| {
                let share = (log_q.exp() / columns).min(POSITIVE_SHARE_MAX);
                strength * (columns.ln() + (-share).ln_1p())
            };
            let of_items: Vec<f32> = self.log_q[..distinct.own].iter().map(shift).collect();
            let own = &distinct.places[..traffic.own];
            self.shift.extend(own.iter().map(|&place| of_items[place as usize]));
        }
        self.log_q.iter_mut().for_each(|log_q| *log_q *= strength);
    }

    /// Loss and gradients of the columns last [prepared](Self::prepare), after which the stream has
    /// had `events` events; `vectors` are the towers' outputs for them. Past vectors come behind
    /// them; `before` are the items that each query had. Unless the loss is not finite the
    /// temperature learns and, if it is to be `kept`, the batch's item vectors become negatives of
    /// the steps to come.
    pub(crate) fn run(
        &mut self,
        (batch, before): (&Batch, &[Vec<u64>]),
        traffic: &Traffic<'_>,
        distinct: &Distinct,
        vectors: &PerTower<Matrix<'_>>,
        events: u64,
        kept: bool,
    ) -> Outcome<'_> {
        let trained = self.item_ids.len();
        self.bank.settle(events - traffic.len() as u64);
        self.item_ids.extend_from_slice(self.bank.ids());
        self.log_q.extend_from_slice(self.bank.log_q());
        let places = &distinct.places[..traffic.own];
        let output = self.softmax.run(&LossInput {
            dim: self.dim,
            query: vectors.query, // [batch, dim]
            item: vectors.item,   // [trained, dim]
            candidates: distinct.events.len(),
            trained,
            past: self.bank.vectors(), // [columns - trained, dim]
            merged: self.merges.then_some(Merged { places, copies: &distinct.copies }),
            log_q: &self.log_q,
            positive: match self.settings.correction {
                Correction::CorrectedPositiveExcluded => Positive::Excluded { shift: &self.shift },
                Correction::Plain | Correction::Corrected => Positive::Sampled,
            },
            item_ids: &self.item_ids,
            query_ids: self.settings.mask_same_query.then_some(&traffic.query_ids[..]),
            had: (self.settings.mask_history && !before.is_empty()).then_some(before),
            rewards: &batch.events.rewards,
            temperature: self.temperature.value(),
            full_batch: self.full_batch,
        });
        if output.loss.is_finite() {
            // What a GPU holds is read back only where it is needed.
            let dim = self.dim;
            let read = |rows: Matrix<'_>, count| rows.read(count, dim).into_owned();
            if self.temperature.learns() {
                let gradient = read(output.gradients.query, batch.len());
                self.temperature.learn(&read(vectors.query, batch.len()), &gradient);
            }
            if kept && self.bank.takes() && events > self.settings.cross_batch_after_events {
                let (own, dim) = (read(vectors.item, distinct.own), self.dim);
                let places = || places.iter().map(|&place| place as usize);
                let log_q: Vec<f32> = places().map(|place| self.log_q[place]).collect();
                let of_events: Vec<f32> =
                    places().flat_map(|place| &own[place * dim..][..dim]).copied().collect();
                self.bank.push(events, &batch.events.item_ids, &log_q, &of_events);
            }
        }
        output
    }

    /// Name and bytes of what a checkpoint holds of it.
    pub(crate) fn sections(&self) -> Vec<(String, Vec<u8>)> {
        vec![
            ("negatives".into(), self.bank.save()),
            ("temperature".into(), self.temperature.save()),
        ]
    }

    /// Takes over what [`sections`](Self::sections) gave.
    pub(crate) fn load(&mut self, read: ReadSection<'_>) -> Result<(), Damaged> {
        whole(read, "negatives", |bytes| self.bank.load(bytes))?;
        whole(read, "temperature", |bytes| self.temperature.load(bytes))
    }
}
