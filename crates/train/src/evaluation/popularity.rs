//! Popularity at retrieval: items are ranked by `s / τ + λ log q`.
//!
//! The towers say what suits this query, the estimator what is asked for now. The plain softmax
//! learns `s / τ = log P(item | query) / q(item)`, so λ = 1 restores the item's share; the
//! corrected one learns `log P(item | query)`, popularity and all, and λ > 0 makes up for what the
//! towers are late to learn. A checkpoint holds all that it takes.

use crate::frequency::{Frequency, Meaning};
use crate::objective::temperature::Temperature;
use crate::saved::{Damaged, ReadSection, whole};
use crate::settings::TrainSettings;
use crate::state::State;
use millrace_events::Batch;

/// What popularity is read from, as of a checkpoint.
pub struct Popularity {
    frequency: Frequency,
    /// τ.
    pub temperature: f32,
}

impl Popularity {
    /// From a checkpoint's sections.
    ///
    /// # Errors
    /// A section that is missing or damaged.
    pub fn restore(settings: &TrainSettings, read: ReadSection<'_>) -> Result<Self, Damaged> {
        let mut temperature = Temperature::new(&settings.objective);
        whole(read, "temperature", |bytes| temperature.load(bytes))?;
        let mut frequency = Frequency::new(settings.frequency.clone());
        frequency.restore(read)?;
        Ok(Self { frequency, temperature: temperature.value() })
    }

    /// Of each of `ids`, seen or not: nats, of expected occurrences a batch.
    pub fn log_q(&self, ids: &[u64]) -> Vec<f32> {
        log_q(&self.frequency, ids)
    }
}

/// Ranks of a batch's items by popularity alone, 1 the best, among the items of the last full batch
/// of events: those that a step's [`ranks`](crate::trainer::StepReport::ranks) are among. `state`
/// has not learned from the batch. Of equals each has the place in their middle.
pub fn ranks(state: &State, batch: &Batch) -> Vec<u32> {
    let own = &batch.events.item_ids;
    let mut items = state.window.fill_up(batch).item_ids.into_owned();
    items.sort_unstable();
    items.dedup();
    let popular = log_q(&state.frequency, &items);
    let mut falling = popular.clone();
    falling.sort_unstable_by(|a, b| b.total_cmp(a));
    let rank = |item: &u64| {
        let own = popular[items.binary_search(item).expect("the batch is part of it")];
        let above = falling.partition_point(|other| *other > own);
        let equal = falling[above..].partition_point(|other| *other == own);
        u32::try_from(above + equal.div_ceil(2)).expect("fewer than 2^32 items")
    };
    own.iter().map(rank).collect()
}

/// What the popularity of `ids` adds to their dot products at present: `λ τ log q`, which orders as
/// `λ log q` added to `s / τ` does. Empty for λ = 0.
pub(crate) fn bias(state: &State, ids: &[u64], weight: f32) -> Vec<f32> {
    if weight == 0.0 {
        return Vec::new();
    }
    let factor = weight * state.temperature();
    let mut bias = log_q(&state.frequency, ids);
    bias.iter_mut().for_each(|log_q| *log_q *= factor);
    bias
}

fn log_q(frequency: &Frequency, ids: &[u64]) -> Vec<f32> {
    let mut log_q = vec![0.0; ids.len()];
    frequency.log_q(ids, Meaning::ExpectedCount, &mut log_q);
    log_q
}
