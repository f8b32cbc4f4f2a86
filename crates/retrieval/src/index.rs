//! The index of one version: what it is made of, and how.

mod search;

use std::ops::Range;
use std::sync::Arc;

use crate::allowed::Allowed;
use crate::centroids::{Assigned, Centroids, Rows, mean_of};
use crate::codes::{ABSENT, Blocks};
use crate::kernel::{LANES, dot};
use crate::vectors::{Coded, Full, Pieces};

pub use search::{Hit, Search};

/// How an index is made and searched.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexSettings {
    /// Up to so many items every request scans all of them, and its answer is exact. A pass over
    /// 200,000 items of 64 floats takes half a millisecond.
    pub exact_max: usize,
    /// Lists that a request scans. A list holds half the root of the number of items.
    pub lists_probed: usize,
    /// Seed of the sample that centres are made from.
    pub seed: u64,
}

impl Default for IndexSettings {
    fn default() -> Self {
        Self { exact_max: 200_000, lists_probed: 128, seed: 0 }
    }
}

/// The items of a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Items {
    /// Floats a vector; at least 1.
    pub dim: usize,
    /// `[items, dim]`, in pieces of equally many items, the last of which may have fewer. An
    /// item's number is its place here.
    pub vectors: Vec<Vec<f32>>,
    /// `[items]`, natural logarithm of the expected occurrences a batch.
    pub log_q: Vec<f32>,
    /// Divides the dot products; above 0.
    pub temperature: f32,
}

/// What is no number, or so large that products of it are none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not finite")]
pub struct NotFinite(pub String);

/// The index of one version.
pub struct Index {
    dim: usize,
    full: Full,
    /// `[items]`
    log_q: Vec<f32>,
    temperature: f32,
    lists_probed: usize,
    blocks: Blocks,
    /// What a request may choose from that says nothing else.
    all: Allowed,
    /// Where each item lies in the blocks, by number.
    positions: Vec<u32>,
    lists: Vec<List>,
    /// `[lists, dim]`, the mean of each list's vectors.
    means: Vec<f32>,
    /// `None`: there is one list, and every request scans it.
    centroids: Option<Arc<Centroids>>,
    /// Length of the longest vector.
    longest: f32,
    /// Length of the longest that codes stand for.
    reach: f32,
    /// Largest of log q, either way.
    log_q_reach: f32,
}

/// Items that lie near each other.
struct List {
    blocks: Range<usize>,
    /// The most popular item's.
    log_q_max: f32,
    /// How far its vectors lie from their mean along any one direction: the root of the mean
    /// square.
    spread: f32,
}

impl Index {
    /// Builds the index of `items`, in whose order equal scores stand. `kept` are the centres of
    /// an earlier version's [`Index::centroids`], which are used if they still fit. On the current
    /// rayon pool; the same index on any number of threads.
    ///
    /// # Errors
    /// Names what is not finite.
    ///
    /// # Panics
    /// Unless `vectors` and `log_q` are of as many items, fewer than 2^32.
    pub fn build(
        items: Items,
        settings: &IndexSettings,
        kept: Option<&Centroids>,
    ) -> Result<Self, NotFinite> {
        let Items { dim, vectors, log_q, temperature } = items;
        let (all, count) = (Pieces::new(&vectors, dim), log_q.len());
        assert_eq!(all.len(), count, "a vector for each item");
        assert!(u32::try_from(count).is_ok_and(|count| count < ABSENT), "fewer than 2^32 items");
        if !(temperature > 0.0 && (1.0 / temperature).is_finite()) {
            return Err(NotFinite(format!("1 over the temperature {temperature}")));
        }
        let mut longest = 0.0f32;
        for (number, vector) in all.iter().enumerate() {
            longest = longest.max(length(vector, || format!("the vector of item {number}"))?);
        }
        if let Some(number) = log_q.iter().position(|log_q| !log_q.is_finite()) {
            return Err(NotFinite(format!("log q of item {number}")));
        }
        let (lists, centroids) = if count <= settings.exact_max {
            (vec![(0..count as u32).collect()], None)
        } else {
            let wanted = lists_of(count);
            let mean = mean_of(dim, all.iter());
            let assigned = Centroids::assign(Rows::new(all, &mean), wanted, settings.seed, kept);
            let Assigned { lists, moved } = assigned;
            (grouped(&lists, moved.len()), Some(Arc::new(moved)))
        };
        let (numbers, positions) = laid_out(&lists, count);
        let (mut means, mut list_of) = (Vec::new(), Vec::new());
        let lists = (0..).zip(&lists).map(|(list, members)| {
            let first = list_of.len();
            list_of.resize(first + members.len().div_ceil(LANES), list);
            let vector = |&number: &u32| all.row(number as usize);
            let mean = mean_of(dim, members.iter().map(vector));
            let squares = members.iter().map(vector).map(|vector| distance_squared(vector, &mean));
            let squares = squares.map(f64::from).sum::<f64>();
            let spread = (squares / (dim * members.len().max(1)) as f64).sqrt() as f32;
            means.extend(mean);
            let log_q = members.iter().map(|&number| log_q[number as usize]);
            let log_q_max = log_q.fold(f32::NEG_INFINITY, f32::max);
            List { blocks: first..list_of.len(), log_q_max, spread }
        });
        let lists = lists.collect();
        let mean = |block: usize| &means[list_of[block] as usize * dim..][..dim];
        let blocks = Blocks::new((&|row| all.row(row), dim), &log_q, numbers, mean);
        let full = if centroids.is_none() {
            // The answer is that of a scan in `f32`.
            Full::as_floats(vectors, dim)
        } else {
            let coded = Coded { blocks: &blocks, positions: &positions, means: &means };
            Full::in_rests(vectors, dim, &coded, list_of)
        };
        Ok(Self {
            dim,
            full,
            lists,
            all: Allowed { masks: blocks.masks(), count },
            reach: blocks.reach(),
            blocks,
            means,
            positions,
            lists_probed: settings.lists_probed,
            centroids,
            longest,
            log_q_reach: log_q.iter().fold(0.0, |most, log_q| most.max(log_q.abs())),
            log_q,
            temperature,
        })
    }

    /// Items in it.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// True without items.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// Floats a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Whether every answer is that of [`Index::exact`].
    pub fn is_exact(&self) -> bool {
        self.centroids.is_none()
    }

    /// The centres of its lists, for the next version; `None` where it has no lists.
    pub fn centroids(&self) -> Option<Arc<Centroids>> {
        self.centroids.clone()
    }

    /// The vector of item `number`, to 24 bits of its values where there are lists.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn vector(&self, number: u32) -> Vec<f32> {
        let mut vector = vec![0.0; self.dim];
        self.take_vector(number, &mut vector);
        vector
    }

    /// Makes `out` the vector of item `number`, `[dim]`.
    fn take_vector(&self, number: u32, out: &mut [f32]) {
        let Self { blocks, positions, means, .. } = self;
        self.full.vector(number as usize, &Coded { blocks, positions, means }, out);
    }

    /// log q of item `number`.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn log_q(&self, number: u32) -> f32 {
        self.log_q[number as usize]
    }

    /// Bytes it holds in memory.
    pub fn bytes(&self) -> usize {
        self.full.bytes()
            + size_of_val(&*self.log_q)
            + size_of_val(&*self.positions)
            + size_of_val(&*self.lists)
            + size_of_val(&*self.means)
            + self.blocks.bytes()
            + self.centroids.as_ref().map_or(0, |centroids| centroids.bytes())
    }

    /// The items that `items` names by number, for requests that choose from those; numbers beyond
    /// its items name none. Made once for each set, such as the items in stock.
    pub fn allow(&self, items: impl IntoIterator<Item = u32>) -> Allowed {
        let mut allowed = Allowed::none(self.blocks.len());
        items.into_iter().filter_map(|item| self.position(item)).for_each(|position| {
            allowed.insert(position);
        });
        allowed
    }

    /// Where item `number` lies, if there is such an item.
    fn position(&self, number: u32) -> Option<usize> {
        self.positions.get(number as usize).map(|&position| position as usize)
    }
}

/// Lists for so many items: twice the root, so that looking for lists and looking through them
/// cost about the same.
fn lists_of(count: usize) -> usize {
    (2.0 * (count as f64).sqrt()).ceil() as usize
}

/// The members of each list, in their order.
fn grouped(list_of: &[u32], lists: usize) -> Vec<Vec<u32>> {
    let mut counts = vec![0usize; lists];
    list_of.iter().for_each(|&list| counts[list as usize] += 1);
    let mut members: Vec<Vec<u32>> = counts.into_iter().map(Vec::with_capacity).collect();
    for (number, &list) in (0..).zip(list_of) {
        members[list as usize].push(number);
    }
    members
}

/// Which items the blocks hold, and where each item lies.
fn laid_out(lists: &[Vec<u32>], count: usize) -> (Vec<[u32; LANES]>, Vec<u32>) {
    let mut numbers = Vec::with_capacity(count / LANES + lists.len());
    let mut positions = vec![0; count];
    for members in lists {
        for members in members.chunks(LANES) {
            let first = (numbers.len() * LANES) as u32;
            for (position, &number) in (first..).zip(members) {
                positions[number as usize] = position;
            }
            numbers.push(std::array::from_fn(|lane| *members.get(lane).unwrap_or(&ABSENT)));
        }
    }
    (numbers, positions)
}

fn distance_squared(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum()
}

/// The length of `vector`.
fn length(vector: &[f32], what: impl FnOnce() -> String) -> Result<f32, NotFinite> {
    let squares = dot(vector, vector);
    if squares.is_finite() { Ok(squares.sqrt()) } else { Err(NotFinite(what())) }
}
