//! A request to an index: which lists are scanned, and what is computed again in full.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::{Index, List, NotFinite, length};
use crate::allowed::Allowed;
use crate::best::Best;
use crate::codes::pack;
use crate::kernel::{Instructions, LANES, Packed, Probe, dot};

/// A list promises what lies so many of its spreads above its mean: the best of some hundred do.
/// Without that, lists whose items lie far apart are passed over, and their best with them.
const SPREADS: f32 = 3.0;
/// Most items of lists that are computed again in full, a millisecond's worth. A hundred items need
/// a few hundred; more come only from items that are equal but for the last bits of their scores.
const AGAIN_MAX: usize = 1 << 14;

/// What to look for.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    /// The query's vector, `[dim]`.
    pub query: &'a [f32],
    /// Items wanted.
    pub k: usize,
    /// Weight of log q in the score; finite.
    pub popularity: f32,
    /// Numbers of items to leave out; those that there are not are passed over.
    pub excluded: &'a [u32],
    /// What to choose from; `None`: everything.
    pub allowed: Option<&'a Allowed>,
}

/// An item that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// Its number.
    pub item: u32,
    /// `dot / temperature + popularity * log_q`.
    pub score: f32,
}

impl Hit {
    /// The better first, equals in the order of the items.
    fn order(a: &Self, b: &Self) -> Ordering {
        b.score.total_cmp(&a.score).then(a.item.cmp(&b.item))
    }
}

impl Index {
    /// The best items, best first, equals in their order: all that may be chosen from, if those are
    /// fewer than `k`. Exactly those of [`Index::exact`] where [`Index::is_exact`], else nearly
    /// all of them.
    ///
    /// # Errors
    /// A query or weight that is not finite.
    ///
    /// # Panics
    /// If the query has another width than the items, or `allowed` is of another index.
    pub fn search(&self, search: &Search<'_>) -> Result<Vec<Hit>, NotFinite> {
        let numbers = self.candidates(search)?;
        let mut vector = vec![0.0; self.dim];
        let hits = numbers.into_iter().map(|number| self.hit_by(search, number, &mut vector));
        Ok(sorted(hits.collect(), search.k))
    }

    /// Numbers of all items that may be among the best as far as their codes tell, in no order:
    /// those are computed again in full.
    pub(crate) fn candidates(&self, search: &Search<'_>) -> Result<Vec<u32>, NotFinite> {
        let norm = self.check(search)?;
        let allowed = self.allowed(search);
        let k = search.k.min(allowed.count);
        if k == 0 {
            return Ok(Vec::new());
        }
        let probe = self.probe(search, norm);
        let best = if self.is_exact() {
            let mut best = Best::new(k, usize::MAX);
            let run = self.blocks.run(0..self.blocks.len(), &allowed.masks, self.base(search, 0));
            Instructions::detect().scan(run, &probe, &mut best);
            best
        } else {
            self.scan_lists((search, norm), &probe, &allowed, k)
        };
        let number = |position: usize| self.blocks.numbers[position / LANES][position % LANES];
        Ok(best.finish().map(|position| number(position as usize)).collect())
    }

    /// The best items by a scan in `f32` over all of them: what [`Index::search`] is measured
    /// against.
    ///
    /// # Errors
    /// As [`Index::search`].
    ///
    /// # Panics
    /// As [`Index::search`].
    pub fn exact(&self, search: &Search<'_>) -> Result<Vec<Hit>, NotFinite> {
        self.check(search)?;
        let allowed = self.allowed(search);
        // As they lie in memory.
        let numbers = self.blocks.numbers.iter().flatten().enumerate();
        let numbers = numbers.filter(|&(position, _)| allowed.holds(position));
        let mut vector = vec![0.0; self.dim];
        let hits = numbers.map(|(_, &number)| self.hit_by(search, number, &mut vector));
        Ok(sorted(hits.collect(), search.k))
    }

    /// The item of this number with its score for `search`, whether it may be found or not.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn hit(&self, search: &Search<'_>, item: u32) -> Hit {
        self.hit_by(search, item, &mut vec![0.0; self.dim])
    }

    /// The same, by way of `vector`, `[dim]`.
    fn hit_by(&self, search: &Search<'_>, item: u32, vector: &mut [f32]) -> Hit {
        self.take_vector(item, vector);
        let affinity = dot(search.query, vector) / self.temperature;
        Hit { item, score: affinity + search.popularity * self.log_q(item) }
    }

    /// The length of the query of `search`, if all of it is sound.
    fn check(&self, search: &Search<'_>) -> Result<f32, NotFinite> {
        assert_eq!(search.query.len(), self.dim(), "a query of the items' width");
        if !search.popularity.is_finite() {
            return Err(NotFinite("the weight of popularity".to_owned()));
        }
        length(search.query, || "the query".to_owned())
    }

    /// What `search` may choose from.
    fn allowed<'a>(&'a self, search: &Search<'a>) -> Cow<'a, Allowed> {
        let allowed = search.allowed.unwrap_or(&self.all);
        assert_eq!(allowed.masks.len(), self.blocks.len(), "of this index");
        if search.excluded.is_empty() {
            return Cow::Borrowed(allowed);
        }
        let mut allowed = allowed.clone();
        for &item in search.excluded {
            if let Some(position) = self.position(item) {
                allowed.remove(position);
            }
        }
        Cow::Owned(allowed)
    }

    fn probe(&self, search: &Search<'_>, norm: f32) -> Probe {
        let mut codes: Vec<Packed> = Vec::new();
        let (scale, off) = pack(search.query, &mut codes);
        let warmth = 1.0 / self.temperature;
        // Scores are sums of so many rounded terms, of this size at most.
        let terms = (self.dim() / LANES + 32) as f32 * f32::EPSILON;
        let size = self.longest * norm * warmth + search.popularity.abs() * self.log_q_reach;
        Probe {
            codes,
            factor: scale * warmth,
            popularity: search.popularity,
            reach: norm * warmth * 1.001,
            slack: self.reach * off * warmth * 1.01 + terms * size,
        }
    }

    /// Scans the lists that promise most.
    fn scan_lists(
        &self,
        (search, norm): (&Search<'_>, f32),
        probe: &Probe,
        allowed: &Allowed,
        k: usize,
    ) -> Best {
        let mut best = Best::new(k, AGAIN_MAX.max(2 * k));
        let instructions = Instructions::detect();
        let mut order = self.promising(search, norm);
        let wanted = self.lists_wanted(allowed).min(order.len());
        if wanted < order.len() {
            order.select_nth_unstable_by(wanted, Promise::order);
        }
        let (first, rest) = order.split_at_mut(wanted);
        first.sort_unstable_by(Promise::order);
        let mut seen = 0;
        let mut scan = |promise: &Promise| {
            let blocks = self.lists[promise.list].blocks.clone();
            let masks = &allowed.masks[blocks.clone()];
            seen += masks.iter().map(|mask| mask.count_ones() as usize).sum::<usize>();
            let run = self.blocks.run(blocks, &allowed.masks, promise.base);
            instructions.scan(run, probe, &mut best);
            seen
        };
        let mut found = 0;
        first.iter().for_each(|promise| found = scan(promise));
        // Never fewer than are wanted.
        if found < k {
            rest.sort_unstable_by(Promise::order);
            for promise in rest {
                if scan(promise) >= k {
                    break;
                }
            }
        }
        best
    }

    /// What each list promises.
    fn promising(&self, search: &Search<'_>, norm: f32) -> Vec<Promise> {
        let lists = self.lists.iter().enumerate();
        let lists = lists.filter(|(_, list)| !list.blocks.is_empty());
        let promise = |(number, list): (usize, &List)| {
            let base = self.base(search, number);
            let above = SPREADS * list.spread * norm / self.temperature;
            Promise { list: number, base, score: base + above + search.popularity * list.log_q_max }
        };
        lists.map(promise).collect()
    }

    /// The score of a list's mean, without popularity.
    fn base(&self, search: &Search<'_>, list: usize) -> f32 {
        let mean = &self.means[list * self.dim()..][..self.dim()];
        dot(search.query, mean) / self.temperature
    }

    /// Lists to scan. The best of a tenth of the items lie as far off as ten times as many of all
    /// do, and so in more lists.
    fn lists_wanted(&self, allowed: &Allowed) -> usize {
        let share = allowed.count as f64 / self.len() as f64;
        (self.lists_probed as f64 / share.sqrt()).ceil() as usize
    }
}

/// A list and the score that its mean would have.
struct Promise {
    list: usize,
    /// Without popularity.
    base: f32,
    score: f32,
}

impl Promise {
    fn order(a: &Self, b: &Self) -> Ordering {
        b.score.total_cmp(&a.score).then(a.list.cmp(&b.list))
    }
}

/// The best `k` of `hits`, best first.
fn sorted(mut hits: Vec<Hit>, k: usize) -> Vec<Hit> {
    if k == 0 {
        return Vec::new();
    }
    if k < hits.len() {
        hits.select_nth_unstable_by(k - 1, Hit::order);
        hits.truncate(k);
    }
    hits.sort_unstable_by(Hit::order);
    hits
}
