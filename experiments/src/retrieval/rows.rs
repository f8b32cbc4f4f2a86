//! Vectors of real items, scaled up, and those of real queries.
//!
//! A data set has thousands of items, an index is asked to hold a million. A new item lies between
//! two that are near each other, a little off, and is about as popular as the first of them, so
//! that clusters and their sizes stay those of the data.

use std::path::Path;

use millrace_events::SplitMix;
use millrace_retrieval::Items;
use millrace_train::frequency::Meaning;
use millrace_train::{Placement, Trainer};

use crate::datasets;
use crate::events::Log;
use millrace_events::Offsets;

/// Others among which an item looks for one that is near.
const OTHERS: usize = 64;
/// Length of what a new item is off.
const OFF: f32 = 0.25;

/// A trained tower's vectors.
pub(super) struct Rows {
    items: Items,
    /// `[queries, dim]`
    queries: Vec<f32>,
}

impl Rows {
    /// Trains on the first `events` of `dataset`; the queries are those of the events behind.
    pub(super) fn train(
        dataset: &str,
        directory: &Path,
        events: usize,
        queries: usize,
    ) -> anyhow::Result<Self> {
        let config = datasets::load(dataset, 1, &["device=cpu"])?;
        let file = match dataset {
            "globo" => crate::quality::globo::FILE,
            "ml-1m" => "ml-1m/ratings.jsonl.gz",
            _ => "wikispeedia/links.jsonl.gz",
        };
        let log = Log::read(&config, &directory.join(file), events + queries)?;
        let past = log.len().saturating_sub(queries);
        let mut trainer = Trainer::new(&config.train(), &Placement::Cpu, Offsets::new("file"));
        for batch in log.part(0..past).batches() {
            trainer.step(&batch);
        }
        let state = trainer.state();
        let mut vectors = Vec::new();
        for batch in log.part(past..usize::MAX).batches() {
            vectors.extend(state.embed_ahead(&batch));
        }
        let corpus = state.corpus.sorted();
        let ids: Vec<u64> = corpus.iter().map(|(id, _)| *id).collect();
        let mut log_q = vec![0.0; ids.len()];
        state.frequency.log_q(&ids, Meaning::ExpectedCount, &mut log_q);
        let items = Items {
            dim: state.model.towers.dim(),
            vectors: vec![state.model.embed_items(&corpus)],
            log_q,
            temperature: state.temperature(),
        };
        Ok(Self { items, queries: vectors })
    }

    pub(super) fn items(&self) -> usize {
        self.items.log_q.len()
    }

    pub(super) fn queries(&self) -> usize {
        self.queries.len() / self.items.dim
    }

    /// Each query's vector.
    pub(super) fn each(&self) -> impl Iterator<Item = &[f32]> {
        self.queries.chunks_exact(self.items.dim)
    }

    /// So many items: the real ones first.
    pub(super) fn scaled(&self, count: usize) -> Items {
        let Items { dim, temperature, .. } = self.items;
        let (mut random, real) = (SplitMix::new(7), self.items());
        let row = |at: usize| &self.items.vectors[0][at * dim..][..dim];
        let kept = count.min(real);
        let mut vectors = self.items.vectors[0][..kept * dim].to_vec();
        let mut log_q = self.items.log_q[..kept].to_vec();
        while log_q.len() < count {
            let mut draw = || (random.next_u64() % real as u64) as usize;
            let first = draw();
            let others: Vec<usize> = (0..OTHERS).map(|_| draw()).collect();
            let cosine = |&other: &usize| -> f32 {
                row(first).iter().zip(row(other)).map(|(a, b)| a * b).sum()
            };
            let near = others.iter().max_by(|a, b| cosine(a).total_cmp(&cosine(b)));
            let (near, share) = (*near.expect("others"), 0.5 * random.unit());
            let mut vector: Vec<f32> =
                row(first).iter().zip(row(near)).map(|(a, b)| a + share * (b - a)).collect();
            normalise(&mut vector);
            let size = OFF * (3.0 / dim as f32).sqrt();
            vector.iter_mut().for_each(|x| *x += random.uniform(size));
            normalise(&mut vector);
            vectors.extend(vector);
            log_q.push(self.items.log_q[first] + random.uniform(1.0));
        }
        Items { dim, vectors: vec![vectors], log_q, temperature }
    }
}

/// Brings a vector to length 1.
pub(super) fn normalise(vector: &mut [f32]) {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    vector.iter_mut().for_each(|x| *x /= length);
}
