//! The paper's third method, MSE-Gramian: squares instead of a softmax.
//!
//! An event's dot product is to be its reward, and that of any query with any item 0, which is
//! summed over all pairs at once through the Gramians of both sides (Krichene et al. 2019,
//! algorithm 1): the loss is `mean (<u, v> - r)² + weight tr(Gu Gv)`, `Gu` being the mean of `u uᵀ`
//! over the queries of late and `Gv` that of `v vᵀ` over items drawn uniformly. Tables, towers and
//! their rates are the program's.

use millrace::config::Config;
use millrace_events::{Batch, Offsets, SplitMix};
use millrace_train::kernel::matrix::{Matrix, PerTower};
use millrace_train::memory::history::Histories;
use millrace_train::model::encoder::Lookup;
use millrace_train::{Placement, Portion, State, TrainSettings, Trainer};

use crate::events::Log;
use crate::quality::held_out::{Outcome, ranked};

/// What a batch replaces of a Gramian.
const RATE: f32 = 0.1;

/// Trains by squares on `train`, `passes` long, and ranks the items of `test`.
pub(super) fn measure(
    config: &Config,
    passes: u32,
    (train, test): (&Log, &Log),
    weight: f32,
) -> Outcome {
    let settings = config.train();
    let trainer = Trainer::new(&settings, &Placement::Cpu, Offsets::new("file"));
    let mut squares = Squares::new(&settings, trainer.state(), weight);
    let mut kept = Some(trainer.into_state());
    for pass in 1..=passes {
        squares.histories.clear();
        train.pass(pass, passes, |batch| {
            let state = kept.take().expect("put back after each step");
            let mut trainer = Trainer::from_state(&settings, &Placement::Cpu, state);
            // All but the model moves on as it does in training.
            trainer.pass_over(&batch);
            let mut state = trainer.into_state();
            squares.step(&mut state, &batch);
            kept = Some(state);
        });
    }
    let state = kept.expect("put back after each step");
    let mut trainer = Trainer::from_state(&settings, &Placement::Cpu, state);
    ranked(&mut trainer, config.retrieval.popularity, (train, test))
}

/// What such training accumulates beside the state.
struct Squares {
    dim: usize,
    weight: f32,
    lookup: Lookup,
    /// `[dim, dim]` of each side.
    gramians: PerTower<Vec<f32>>,
    /// Those of the state cannot be seen from outside.
    histories: Histories,
    random: SplitMix,
}

impl Squares {
    fn new(settings: &TrainSettings, state: &State, weight: f32) -> Self {
        let (dim, length) = (state.model.towers.dim(), state.model.encoder.query.history_length());
        let nothing = || vec![0.0; dim * dim];
        Self {
            dim,
            weight,
            lookup: Lookup::default(),
            gramians: PerTower { query: nothing(), item: nothing() },
            histories: Histories::new(settings.queries_max, length),
            random: SplitMix::new(settings.seed),
        }
    }

    /// Trains on `batch`, which the rest of the state has taken in.
    fn step(&mut self, state: &mut State, batch: &Batch) {
        let events = &batch.events;
        let before = self.histories.take(&events.query_ids, &events.item_ids);
        let (model, now) = (&mut state.model, state.progress.events);
        model.encoder.query.observe(&events.query, &mut model.statistics);
        model.encoder.item.observe(&events.item, &mut model.statistics);
        let drawn = state.corpus.draw(batch.len(), &mut || self.random.next_u64());
        let mut columns = events.item.clone();
        for (_, item) in &drawn {
            let values = columns.iter_mut().zip(&item.values);
            values.for_each(|(column, value)| column.push(value));
        }
        let (queries, items) = (&model.encoder.query, &model.encoder.item);
        let query = queries.encode(&events.query, batch.len(), &before, &model.statistics);
        let item = items.encode(&columns, batch.len() + drawn.len(), &[], &model.statistics);
        self.lookup.run(&model.encoder, &query, &item, &mut model.tables, now);
        let inputs = self.lookup.inputs();
        let vectors = model.towers.forward(&inputs);
        let (u, v) = (vectors.query.host(), vectors.item.host());
        let (own, others) = v.split_at(batch.len() * self.dim);
        for (gramian, rows) in [(&mut self.gramians.query, u), (&mut self.gramians.item, others)] {
            fade(gramian, rows, self.dim);
        }
        let (query, item) = self.gradients(u, own, others, &events.rewards);
        let gradients = PerTower { query: Matrix::Host(&query), item: Matrix::Host(&item) };
        if let Some(of_inputs) = model.towers.backward(&inputs, &gradients, Portion::WHOLE) {
            self.lookup.update(&of_inputs, &mut model.tables);
        }
    }

    /// Gradients of the queries' vectors `u`, `[batch, dim]`, and of the items', those of the
    /// events first.
    fn gradients(
        &self,
        u: &[f32],
        own: &[f32],
        others: &[f32],
        rewards: &[f32],
    ) -> (Vec<f32>, Vec<f32>) {
        let (dim, batch) = (self.dim, rewards.len() as f32);
        let (mut query, mut item) = (Vec::with_capacity(u.len()), Vec::with_capacity(2 * u.len()));
        let pairs = u.chunks_exact(dim).zip(own.chunks_exact(dim)).zip(rewards);
        for ((u, v), reward) in pairs {
            let off = 2.0 * (dot(u, v) - reward) / batch;
            let pull = times(&self.gramians.item, u);
            query.extend(v.iter().zip(pull).map(|(v, g)| off * v + 2.0 * self.weight / batch * g));
            item.extend(u.iter().map(|u| off * u));
        }
        let scale = 2.0 * self.weight * dim as f32 / others.len().max(1) as f32;
        for v in others.chunks_exact(dim) {
            item.extend(times(&self.gramians.query, v).map(|g| scale * g));
        }
        (query, item)
    }
}

/// Lets the mean of `row rowᵀ` replace a share of `gramian`, `[dim, dim]`.
fn fade(gramian: &mut [f32], rows: &[f32], dim: usize) {
    let share = RATE * dim as f32 / rows.len().max(1) as f32;
    gramian.iter_mut().for_each(|value| *value *= 1.0 - RATE);
    for row in rows.chunks_exact(dim) {
        for (line, &x) in gramian.chunks_exact_mut(dim).zip(row) {
            line.iter_mut().zip(row).for_each(|(value, y)| *value += share * x * y);
        }
    }
}

/// `[dim]`, a symmetric `matrix`, `[dim, dim]`, times `vector`.
fn times(matrix: &[f32], vector: &[f32]) -> impl Iterator<Item = f32> {
    matrix.chunks_exact(vector.len()).map(move |line| dot(line, vector))
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
