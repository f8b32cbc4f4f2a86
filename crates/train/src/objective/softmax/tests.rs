mod bf16;
#[cfg(feature = "gpu")]
mod graph;

use proptest::prelude::*;

use super::*;

/// SplitMix64, so that a printed seed is all a failure needs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Uniform in [-1, 1).
    fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    fn unit_rows(&mut self, rows: usize, dim: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..rows * dim).map(|_| self.signed()).collect();
        for row in values.chunks_mut(dim) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-3);
            row.iter_mut().for_each(|x| *x /= norm);
        }
        values
    }
}

/// A batch that owns its columns.
#[derive(Clone)]
struct Case {
    dim: usize,
    query: Vec<f32>,
    item: Vec<f32>,
    candidates: usize,
    trained: usize,
    log_q: Vec<f32>,
    /// If given, positives are left out of the sum.
    shift: Option<Vec<f32>>,
    item_ids: Vec<u64>,
    query_ids: Option<Vec<u64>>,
    had: Option<Vec<Vec<u64>>>,
    rewards: Vec<f32>,
    temperature: f32,
}

impl Case {
    /// Unit vectors, distinct items, no correction, rewards of one.
    fn plain(dim: usize, query: &[f32], item: &[f32]) -> Self {
        let batch = query.len() / dim;
        Self {
            dim,
            query: query.to_vec(),
            item: item.to_vec(),
            candidates: batch,
            trained: batch,
            log_q: vec![0.0; batch],
            shift: None,
            item_ids: (0..batch as u64).collect(),
            query_ids: None,
            had: None,
            rewards: vec![1.0; batch],
            temperature: 1.0,
        }
    }

    /// About half the items and a third of the queries repeat, and a query had a few of the items.
    fn random(seed: u64, batch: usize, dim: usize) -> Self {
        let mut random = Random(seed);
        let ids = |random: &mut Random, distinct: usize| -> Vec<u64> {
            (0..batch).map(|_| random.below(distinct as u64)).collect()
        };
        let items = batch as u64 + 1;
        let had = |random: &mut Random| -> Vec<u64> {
            (0..random.below(5)).map(|_| random.below(items)).collect()
        };
        Self {
            dim,
            query: random.unit_rows(batch, dim),
            item: random.unit_rows(batch, dim),
            candidates: batch,
            trained: batch,
            shift: None,
            had: (seed % 3 == 1).then(|| (0..batch).map(|_| had(&mut random)).collect()),
            log_q: (0..batch).map(|_| 3.0 * random.signed() - 4.0).collect(),
            item_ids: ids(&mut random, batch + 1),
            query_ids: seed.is_multiple_of(2).then(|| ids(&mut random, 2 * batch)),
            rewards: (0..batch).map(|_| random.signed() + 1.0).collect(),
            temperature: [0.05, 0.2, 1.0][random.below(3) as usize],
        }
    }

    /// The same with further columns behind the batch's, of which `trained` learn.
    fn with_columns(mut self, seed: u64, trained: usize, fixed: usize) -> Self {
        let (mut random, extra) = (Random(seed), trained + fixed);
        let ids = 2 * (self.batch() + extra) as u64;
        self.item.extend(random.unit_rows(extra, self.dim));
        self.trained += trained;
        self.log_q.extend((0..extra).map(|_| 3.0 * random.signed() - 4.0));
        self.item_ids.extend((0..extra).map(|_| random.below(ids)));
        self
    }

    /// The same with `events` events before the batch's: their items are candidates that learn.
    fn with_window(mut self, seed: u64, events: usize) -> Self {
        let mut random = Random(seed ^ 0x77);
        let ids = self.batch() as u64 + 1;
        self = self.with_columns(seed, events, 0);
        self.item_ids.truncate(self.candidates);
        self.item_ids.extend((0..events).map(|_| random.below(ids)));
        if let Some(query_ids) = &mut self.query_ids {
            query_ids.extend((0..events).map(|_| random.below(2 * ids)));
        }
        self.candidates += events;
        self
    }

    /// The same with positives left out of the sum.
    fn excluding_positives(mut self, seed: u64) -> Self {
        let mut random = Random(seed);
        self.shift = Some((0..self.batch()).map(|_| 2.0 * random.signed() + 3.0).collect());
        self
    }

    fn batch(&self) -> usize {
        self.rewards.len()
    }

    fn columns(&self) -> usize {
        self.log_q.len()
    }

    fn input(&self) -> LossInput<'_> {
        LossInput {
            dim: self.dim,
            query: Matrix::Host(&self.query),
            item: Matrix::Host(&self.item[..self.trained * self.dim]),
            candidates: self.candidates,
            trained: self.trained,
            past: &self.item[self.trained * self.dim..],
            merged: None,
            log_q: &self.log_q,
            positive: match &self.shift {
                None => Positive::Sampled,
                Some(shift) => Positive::Excluded { shift },
            },
            item_ids: &self.item_ids,
            query_ids: self.query_ids.as_deref(),
            had: self.had.as_deref(),
            rewards: &self.rewards,
            temperature: self.temperature,
            full_batch: self.batch().max(1),
        }
    }

    fn run(&self) -> LossOutput {
        BatchSoftmax::default().run(&self.input()).clone()
    }

    fn masked(&self, i: usize, j: usize) -> bool {
        let same_query = self.query_ids.as_ref().is_some_and(|ids| Some(&ids[i]) == ids.get(j));
        let had = self.had.as_ref().is_some_and(|had| had[i].contains(&self.item_ids[j]));
        i != j && (same_query || had || self.item_ids[i] == self.item_ids[j])
    }
}

/// The definition in f64, unblocked, in loops that follow the papers word for word.
struct Reference<'a> {
    case: &'a Case,
    query: Vec<f64>,
    item: Vec<f64>,
    /// `[batch]`, of each row's loss: 1, or what [`Positive::Excluded`] holds fixed.
    weights: Vec<f64>,
}

impl<'a> Reference<'a> {
    fn new(case: &'a Case) -> Self {
        let widen = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect();
        let mut reference = Self {
            case,
            query: widen(&case.query),
            item: widen(&case.item),
            weights: vec![1.0; case.batch()],
        };
        if case.shift.is_some() {
            reference.weights = (0..case.batch()).map(|i| reference.wrong(i)).collect();
        }
        reference
    }

    fn dot(&self, i: usize, j: usize) -> f64 {
        let d = self.case.dim;
        let (q, c) = (&self.query[i * d..(i + 1) * d], &self.item[j * d..(j + 1) * d]);
        q.iter().zip(c).map(|(q, c)| q * c).sum()
    }

    fn logit(&self, i: usize, j: usize) -> f64 {
        let logit = self.dot(i, j) / f64::from(self.case.temperature);
        match &self.case.shift {
            _ if self.case.masked(i, j) => f64::NEG_INFINITY,
            Some(_) if i == j => logit,
            Some(shift) => logit - (f64::from(self.case.log_q[j]) - f64::from(shift[i])),
            None => logit - f64::from(self.case.log_q[j]),
        }
    }

    /// Columns of the row's sum.
    fn summed(&self, i: usize) -> impl Iterator<Item = usize> {
        let excluded = self.case.shift.is_some();
        (0..self.case.columns()).filter(move |&j| !(self.case.masked(i, j) || excluded && i == j))
    }

    /// `1 - P`, P by the mean over the row's negatives.
    fn wrong(&self, i: usize) -> f64 {
        let n = self.summed(i).count() as f64;
        if n == 0.0 {
            return 0.0;
        }
        let positive = self.logit(i, i);
        1.0 / (1.0 + n / self.summed(i).map(|j| (self.logit(i, j) - positive).exp()).sum::<f64>())
    }

    /// Log of the row's sum.
    fn log_sum(&self, i: usize) -> f64 {
        let max = self.summed(i).map(|j| self.logit(i, j)).fold(f64::NEG_INFINITY, f64::max);
        max + self.summed(i).map(|j| (self.logit(i, j) - max).exp()).sum::<f64>().ln()
    }

    fn loss(&self) -> f64 {
        let batch = self.case.batch();
        let row = |i: usize| match f64::from(self.case.rewards[i]) * self.weights[i] {
            0.0 => 0.0,
            weight => weight * (self.log_sum(i) - self.logit(i, i)),
        };
        (0..batch).map(row).sum::<f64>() / batch as f64
    }

    /// With respect to query and the trained items.
    fn gradients(&self) -> (Vec<f64>, Vec<f64>) {
        let (batch, dim) = (self.case.batch(), self.case.dim);
        let (mut query, mut item) = (vec![0.0; batch * dim], vec![0.0; self.case.trained * dim]);
        for i in 0..batch {
            let weight = f64::from(self.case.rewards[i]) * self.weights[i]
                / (batch as f64 * f64::from(self.case.temperature));
            if weight == 0.0 {
                continue;
            }
            let log_sum = self.log_sum(i);
            let shares = self.summed(i).map(|j| (j, (self.logit(i, j) - log_sum).exp()));
            for (j, share) in shares.chain([(i, -1.0)]) {
                for d in 0..dim {
                    query[i * dim + d] += weight * share * self.item[j * dim + d];
                    if j < self.case.trained {
                        item[j * dim + d] += weight * share * self.query[i * dim + d];
                    }
                }
            }
        }
        (query, item)
    }
}

/// Within `tolerance` of the greatest element.
#[track_caller]
fn assert_close(what: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_close_from(1e-6, what, actual, expected, tolerance);
}

/// The same for values that are sums of much greater terms: below `floor` they are rounding.
#[track_caller]
fn assert_close_from(floor: f64, what: &str, actual: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    let size = expected.iter().fold(floor, |max, x| max.max(x.abs()));
    for (at, (a, e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(*a) - e).abs() / size;
        assert!(error <= tolerance, "{what}[{at}]: {a} instead of {e}, {error:.1e} of {size:.1e}");
    }
}

fn bits(output: &LossOutput) -> (u32, Vec<u32>, Vec<u32>, Vec<u32>) {
    let of = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect();
    let (query, item) = (of(&output.query_gradient), of(&output.item_gradient));
    (output.loss.to_bits(), query, item, output.ranks.clone())
}

/// Item 0 is popular (expected four times per batch, log q = ln 4), item 1 is not (log q = 0).
/// Queries and items are the unit axes, τ = 1, rewards 1 and 2:
/// row 0: logits 1 - ln 4 and 0, so P_00 = (e/4) / (e/4 + 1)     = 0.4046097
/// row 1: logits 0 - ln 4 and 1, so P_11 = e / (e + 1/4)         = 0.9157762
/// loss = -(ln P_00 + 2 ln P_11) / 2                             = 0.5403995
/// With `+ log q` P_00 would be 0.916, P_11 0.405 and the loss 0.949.
#[test]
fn hand_worked_two_by_two_pins_the_sign_of_log_q() {
    let axes = [1.0, 0.0, 0.0, 1.0];
    let mut case = Case::plain(2, &axes, &axes);
    case.log_q = vec![4.0_f32.ln(), 0.0];
    case.rewards = vec![1.0, 2.0];
    let output = case.run();
    let (p_00, p_11) = (0.404_609_675, 0.915_776_192);
    assert_close("loss", &[output.loss], &[0.540_399_497], 1e-6);
    // dq_i = r_i / 2 * ((P_i0 - [i = 0]) c_0 + (P_i1 - [i = 1]) c_1)
    let query = [0.5 * (p_00 - 1.0), 0.5 * (1.0 - p_00), 1.0 - p_11, p_11 - 1.0];
    assert_close("query gradient", &output.query_gradient, &query, 1e-6);
    let item = [0.5 * (p_00 - 1.0), 1.0 - p_11, 0.5 * (1.0 - p_00), p_11 - 1.0];
    assert_close("item gradient", &output.item_gradient, &item, 1e-6);
    assert_eq!(output.ranks, [1, 1]);
}

/// The correction's direction, on gradients: a popular item is pushed away less as a negative and
/// pulled up more as a positive than it would be without the correction.
#[test]
fn a_popular_item_is_pushed_away_less_and_pulled_up_more() {
    let axes = [1.0, 0.0, 0.0, 1.0];
    let plain = Case::plain(2, &axes, &axes);
    let mut corrected = plain.clone();
    corrected.log_q = vec![4.0_f32.ln(), 0.0];
    let (plain, corrected) = (plain.run(), corrected.run());
    let push = |output: &LossOutput| output.item_gradient[1]; // item 0 along query 1, its negative
    let pull = |output: &LossOutput| -output.item_gradient[0]; // item 0 along query 0, its positive
    assert!(push(&corrected) > 0.0 && push(&corrected) < 0.5 * push(&plain));
    assert!(pull(&corrected) > 1.5 * pull(&plain));
}

/// Rows 0 and 1 hold the same item, so each masks the other's column; row 2 sees both copies.
/// Dot products (τ = 0.5): row 0 [1, 1, .6], row 1 [0, 0, .8], row 2 [-1, -1, -.6].
/// log q = [1, 1, 0].
/// row 0: logits 1, masked, 1.2   -> -ln P = ln(1 + e^0.2)   = 0.7981389
/// row 1: logits masked, -1, 1.6  -> -ln P = ln(1 + e^2.6)   = 2.6716446
/// row 2: logits -3, -3, -1.2     -> -ln P = ln(1 + 2e^-1.8) = 0.2856284
#[test]
fn hand_worked_three_by_three_masks_accidental_hits() {
    let query = [1.0, 0.0, 0.0, 1.0, -1.0, 0.0];
    let item = [1.0, 0.0, 1.0, 0.0, 0.6, 0.8];
    let mut case = Case::plain(2, &query, &item);
    case.item_ids = vec![7, 7, 9];
    case.log_q = vec![1.0, 1.0, 0.0];
    case.temperature = 0.5;
    let output = case.run();
    let row = |x: f64| x.exp().ln_1p();
    let loss = (row(0.2) + row(2.6) + (2.0 * (-1.8_f64).exp()).ln_1p()) / 3.0;
    assert_close("loss", &[output.loss], &[loss], 1e-6);
    // dq_0 = 1/(3 * 0.5) * (1 - P_00) * (c_2 - c_0)
    let p = 1.0 - (-row(0.2)).exp();
    let (first, expected) = (&output.query_gradient[..2], [p * -0.4 / 1.5, p * 0.8 / 1.5]);
    assert_close("query gradient of row 0", first, &expected, 1e-6);
    // Item 9 is below item 7 for row 0 and above it for row 1; item 7 is below item 9 for row 2.
    assert_eq!(output.ranks, [1, 2, 1]);
}

/// Positive left out, with the numbers of [`hand_worked_two_by_two_pins_the_sign_of_log_q`], a
/// batch of 2 in which item 0 is expected once and item 1 once: Q = 1/2, Q' = (1/2) / (1/2) = 1.
/// row 0: s_p = 1, one negative s = 0 - ln 1: P = e / (e + 1) = 0.7310586, weight 0.2689414
/// loss is -0.2689414 * (1 - 0) in both rows.
#[test]
fn hand_worked_two_by_two_without_the_positive() {
    let axes = [1.0, 0.0, 0.0, 1.0];
    let mut case = Case::plain(2, &axes, &axes);
    // log of the expected counts is 0 = log Q' + log 2 + log(1 - 1/2).
    case.shift = Some(vec![0.0; 2]);
    let output = case.run();
    let weight = 0.268_941_421;
    assert_close("loss", &[output.loss], &[-weight], 1e-6);
    let gradient = [-weight / 2.0, weight / 2.0, weight / 2.0, -weight / 2.0];
    assert_close("query gradient", &output.query_gradient, &gradient, 1e-6);
    assert_close("item gradient", &output.item_gradient, &gradient, 1e-6);
}

/// Dot products are the items' second coordinates; every query is the second axis.
#[test]
fn ranks_count_each_item_once_and_no_masked_column() {
    let item = [0.0, 0.3, 0.0, 0.9, 0.0, 0.9, 0.0, 0.5, 0.0, 0.3, 0.0, 0.7];
    let query = [0.0, 1.0].repeat(6);
    let mut case = Case::plain(2, &query, &item);
    case.item_ids = vec![10, 20, 20, 30, 40, 50];
    // Ties (items 10 and 40) count against the row; item 20 counts once.
    assert_eq!(case.run().ranks, [5, 1, 1, 3, 5, 2]);
    // The correction has no part in ranks.
    case.log_q = vec![5.0, 4.0, 3.0, 2.0, 1.0, 0.0];
    assert_eq!(case.run().ranks, [5, 1, 1, 3, 5, 2]);
    // Rows 0 and 1 of one query: item 20's first column is masked for row 0.
    case.query_ids = Some(vec![1, 1, 2, 3, 4, 5]);
    assert_eq!(case.run().ranks, [4, 1, 1, 3, 5, 2]);
}

/// A tower that gives every item the same vector tells nothing apart, and must not look as if it
/// did.
#[test]
fn a_collapsed_tower_ranks_last() {
    let query = Random(1).unit_rows(100, 4);
    let case = Case::plain(4, &query, &[0.5, 0.5, 0.5, 0.5].repeat(100));
    assert!(case.run().ranks.iter().all(|&rank| rank == 100));
}

/// Two rows of a batch of two are worth as much each as among a full batch of eight.
#[test]
fn a_row_moves_as_far_in_a_small_batch_as_in_a_full_one() {
    let case = Case::random(3, 8, 5);
    let full = BatchSoftmax::default().run(&case.input()).clone();
    let part = LossInput {
        query: Matrix::Host(&case.query[..2 * 5]),
        rewards: &case.rewards[..2],
        ..case.input()
    };
    let part = BatchSoftmax::default().run(&part).clone();
    assert_eq!(part.query_gradient, full.query_gradient[..2 * 5]);
    assert_eq!(part.ranks, full.ranks[..2]);
}

#[test]
fn a_masked_column_has_no_part_in_loss_and_gradient() {
    // One item only, and one query only: nothing is left to tell apart.
    let mut random = Random(3);
    let (query, item) = (random.unit_rows(70, 8), random.unit_rows(70, 8));
    let mut one_item = Case::plain(8, &query, &item);
    one_item.item_ids = vec![5; 70];
    let mut one_query = Case::plain(8, &query, &item);
    one_query.query_ids = Some(vec![5; 70]);
    for case in [one_item, one_query] {
        let output = case.run();
        assert_eq!(output.loss, 0.0);
        assert!(output.query_gradient.iter().chain(&output.item_gradient).all(|&g| g == 0.0));
        assert!(output.ranks.iter().all(|&rank| rank == 1));
    }
    // Rows 0 and 1 share an item, and only row 0 counts: column 1 must get exactly nothing.
    let mut case = Case::plain(8, &query[..24], &item[..24]);
    case.item_ids = vec![1, 1, 2];
    case.rewards = vec![1.0, 0.0, 0.0];
    let output = case.run();
    assert!(output.item_gradient[8..16].iter().all(|&g| g == 0.0));
    assert!(output.item_gradient[16..].iter().any(|&g| g != 0.0));
}

#[test]
fn one_row_and_no_row_lose_nothing() {
    let output = Case::plain(3, &[0.6, 0.8, 0.0], &[0.0, 0.6, 0.8]).run();
    assert_eq!((output.loss, output.ranks), (0.0, vec![1]));
    assert_eq!(output.query_gradient, [0.0; 3]);
    assert_eq!(output.item_gradient, [0.0; 3]);
    let output = Case::plain(3, &[], &[]).run();
    assert_eq!((output.loss, output.ranks.len(), output.query_gradient.len()), (0.0, 0, 0));
}

#[test]
fn blocked_equals_unblocked() {
    for (seed, batch) in [1, 2, 7, 63, 64, 65, 257, 1024].into_iter().enumerate() {
        for (seed, dim) in [(2 * seed as u64, 64), (2 * seed as u64 + 1, 19)] {
            println!("seed {seed}, batch {batch}, dim {dim}");
            let case = Case::random(seed, batch, dim);
            let more = case.clone().with_columns(seed, batch / 2 + 3, batch / 3);
            let without = more.clone().excluding_positives(seed);
            let window = case.clone().with_window(seed, batch / 2 + 1);
            let window = window.with_columns(seed + 1, 7, 5);
            let outside = window.clone().excluding_positives(seed);
            for case in
                [case.clone(), case.excluding_positives(seed), more, without, window, outside]
            {
                let (output, reference) = (case.run(), Reference::new(&case));
                let (query, item) = reference.gradients();
                // Losses of both signs may cancel where positives are left out.
                let size = if case.shift.is_some() { 1.0 } else { 1e-6 };
                assert_close_from(size, "loss", &[output.loss], &[reference.loss()], 1e-5);
                assert_close("query gradient", &output.query_gradient, &query, 1e-5);
                assert_close("item gradient", &output.item_gradient, &item, 1e-5);
                assert_ranks(&case, &output.ranks);
            }
        }
    }
}

/// Ranks by definition, in f64; scores within rounding of the positive may fall on either side.
fn assert_ranks(case: &Case, ranks: &[u32]) {
    let reference = Reference::new(case);
    let ids = &case.item_ids;
    let first: Vec<bool> = (0..case.candidates).map(|j| !ids[..j].contains(&ids[j])).collect();
    for (i, &rank) in ranks.iter().enumerate() {
        let positive = reference.dot(i, i);
        let above = |margin: f64| {
            let counts = |j: usize| {
                j != i && first[j] && !case.masked(i, j) && reference.dot(i, j) > positive + margin
            };
            1 + (0..case.candidates).filter(|&j| counts(j)).count() as u32
        };
        assert!((above(1e-6)..=above(-1e-6)).contains(&rank), "row {i}: rank {rank}");
    }
}

fn few() -> ProptestConfig {
    ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() }
}

proptest! {
    #![proptest_config(few())]

    /// Central differences of the f64 definition, in both towers, at every coordinate.
    #[test]
    fn gradient_is_the_slope_of_the_loss(seed: u64, batch in 1_usize..14, dim in 1_usize..9) {
        println!("seed {seed}, batch {batch}, dim {dim}");
        const STEP: f64 = 1e-5;
        let mut case = Case::random(seed, batch, dim);
        if seed % 3 > 0 {
            case = case.with_columns(seed, 3, 2);
        }
        if seed % 4 > 1 {
            case = case.excluding_positives(seed);
        }
        let output = case.run();
        let mut reference = Reference::new(&case);
        let (mut query, mut item) = (Vec::new(), Vec::new());
        for at in 0..case.trained * dim {
            let mut slope = |side: for<'s, 'c> fn(&'s mut Reference<'c>) -> &'s mut Vec<f64>| {
                let here = side(&mut reference)[at];
                side(&mut reference)[at] = here + STEP;
                let above = reference.loss();
                side(&mut reference)[at] = here - STEP;
                let below = reference.loss();
                side(&mut reference)[at] = here;
                (above - below) / (2.0 * STEP)
            };
            if at < batch * dim {
                query.push(slope(|reference| &mut reference.query));
            }
            item.push(slope(|reference| &mut reference.item));
        }
        let size = if case.shift.is_some() { 1.0 } else { 1e-6 };
        assert_close_from(size, "loss", &[output.loss], &[reference.loss()], 1e-5);
        // In one dimension, say, the terms of a gradient may cancel almost wholly.
        let floor = 1e-2 / (batch as f64 * f64::from(case.temperature));
        assert_close_from(floor, "query gradient", &output.query_gradient, &query, 1e-4);
        assert_close_from(floor, "item gradient", &output.item_gradient, &item, 1e-4);
    }

    /// Every column is corrected, the positive's too, so only differences of log q matter.
    #[test]
    fn a_shift_of_all_log_q_changes_nothing(
        seed: u64, batch in 1_usize..200, shift in -9_f32..9.0
    ) {
        println!("seed {seed}, batch {batch}, shift {shift}");
        let case = Case::random(seed, batch, 8);
        let mut shifted = case.clone();
        shifted.log_q.iter_mut().for_each(|log_q| *log_q += shift);
        let (output, shifted) = (case.run(), shifted.run());
        let widen = |values: &[f32]| -> Vec<f64> { values.iter().map(|&x| f64::from(x)).collect() };
        assert_close("loss", &[shifted.loss], &widen(&[output.loss]), 1e-5);
        assert_close("query", &shifted.query_gradient, &widen(&output.query_gradient), 1e-5);
        assert_close("item", &shifted.item_gradient, &widen(&output.item_gradient), 1e-5);
        prop_assert_eq!(shifted.ranks, output.ranks);
    }
}

/// 2500 rows are 40 blocks in 14 groups, the last one short: every kind of share occurs.
#[test]
fn same_bits_for_any_number_of_threads() {
    for (seed, batch) in [(1, 2500), (2, 300), (3, 1)] {
        let case = Case::random(seed, batch, 32).with_columns(seed, batch / 3, 100);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads can be started").install(|| bits(&case.run()))
        };
        let one = on(1);
        assert!(on(2) == one && on(8) == one, "seed {seed}, batch {batch}");
    }
}

#[test]
fn same_bits_with_used_scratch() {
    let mut used = BatchSoftmax::default();
    for (seed, (batch, dim)) in
        [(700, 16), (1, 16), (65, 3), (0, 3), (1500, 16), (64, 40), (700, 16)]
            .into_iter()
            .enumerate()
    {
        let case = Case::random(seed as u64, batch, dim);
        assert!(bits(used.run(&case.input())) == bits(&case.run()), "seed {seed}, batch {batch}");
    }
}

/// Events of one item have one vector and one log q. Merged or apart, everything is the same, and a
/// merged column has the sum of the gradients.
#[test]
fn merged_items_are_the_same_as_all_their_events() {
    for (seed, (batch, dim)) in [(1, 8), (7, 5), (130, 64), (1024, 16)].into_iter().enumerate() {
        println!("seed {seed}, batch {batch}, dim {dim}");
        let mut random = Random(seed as u64);
        let mut apart = Case::random(seed as u64, batch, dim);
        apart.query_ids = None;
        apart.item_ids = (0..batch).map(|_| random.below(batch as u64 / 3 + 1)).collect();
        let (mut events, mut places, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..batch {
            let first = apart.item_ids[..i].iter().position(|id| *id == apart.item_ids[i]);
            if let Some(first) = first {
                apart.item.copy_within(first * dim..(first + 1) * dim, i * dim);
                apart.log_q[i] = apart.log_q[first];
                places.push(places[first]);
                copies[places[first] as usize] += 1;
            } else {
                places.push(events.len() as u32);
                events.push(i);
                copies.push(1);
            }
        }
        let apart = apart.with_columns(seed as u64, 5, 3);
        for apart in [apart.clone(), apart.excluding_positives(seed as u64)] {
            let columns = || events.iter().copied().chain(batch..apart.columns());
            let together = Case {
                item: columns().flat_map(|j| apart.item[j * dim..][..dim].to_vec()).collect(),
                candidates: events.len(),
                trained: events.len() + 5,
                log_q: columns().map(|j| apart.log_q[j]).collect(),
                item_ids: columns().map(|j| apart.item_ids[j]).collect(),
                ..apart.clone()
            };
            let merged = Some(Merged { places: &places, copies: &copies });
            let output = apart.run();
            let mut summed = vec![0.0; together.trained * dim];
            for (j, gradient) in output.item_gradient.chunks_exact(dim).enumerate() {
                let place =
                    places.get(j).map_or(j - (batch - events.len()).min(j), |&p| p as usize);
                for (sum, g) in summed[place * dim..].iter_mut().zip(gradient) {
                    *sum += f64::from(*g);
                }
            }
            let widen = |values: &[f32]| values.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
            for precision in [Precision::F32, Precision::Bf16] {
                let mut softmax = BatchSoftmax::new(precision);
                let tolerance = if softmax.precision() == Precision::F32 { 1e-5 } else { 2e-2 };
                let input = LossInput { merged, full_batch: batch, ..together.input() };
                let merged = softmax.run(&input);
                assert_close_from(
                    1.0,
                    "loss",
                    &[merged.loss],
                    &[f64::from(output.loss)],
                    tolerance,
                );
                let query = widen(&output.query_gradient);
                assert_close("query gradient", &merged.query_gradient, &query, tolerance);
                assert_close("item gradient", &merged.item_gradient, &summed, tolerance);
                if softmax.precision() == Precision::F32 {
                    assert_eq!(softmax.output.ranks, output.ranks);
                }
            }
        }
    }
}

/// As training nears its end P nears 1. `1 - P` must keep its digits: here it is about 2e-9, below
/// the spacing of f32 numbers near 1.
#[test]
fn certain_positives_keep_an_exact_gradient() {
    let axes: Vec<f32> = (0..9).map(|x| if x % 4 == 0 { 1.0 } else { 0.0 }).collect();
    let mut case = Case::plain(3, &axes, &axes);
    case.temperature = 0.05;
    let output = case.run();
    let off = (-20.0_f64).exp();
    assert_close("loss", &[output.loss * 1e9], &[1e9 * (2.0 * off).ln_1p()], 1e-5);
    let scaled: Vec<f32> = output.query_gradient.iter().map(|g| g * 1e9).collect();
    let expected: Vec<f64> = Reference::new(&case).gradients().0.iter().map(|g| g * 1e9).collect();
    assert_close("query gradient", &scaled, &expected, 1e-5);
}

/// Logits far apart neither overflow nor lose the loss: τ = 0.002 spans 1000 nats.
#[test]
fn small_temperatures_stay_finite() {
    let mut case = Case::random(12, 100, 4);
    case.temperature = 0.002;
    let (output, reference) = (case.run(), Reference::new(&case));
    let (query, item) = reference.gradients();
    assert_close("loss", &[output.loss], &[reference.loss()], 1e-5);
    assert_close("query gradient", &output.query_gradient, &query, 1e-3);
    assert_close("item gradient", &output.item_gradient, &item, 1e-3);
}

#[test]
fn nonfinite_input_gives_nan_and_leaves_nothing_behind() {
    let good = Case::random(8, 150, 5);
    let expected = bits(&good.run());
    let mut softmax = BatchSoftmax::default();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for at in [0, 77, 149] {
            let mut bad = vec![good.clone(); 5];
            bad[0].query[at * 5 + 2] = value;
            bad[1].item[at * 5 + 2] = value;
            bad[2].log_q[at] = value;
            bad[3].rewards[at] = value;
            bad[4].temperature = value;
            for (field, bad) in bad.iter().take(if value.is_nan() { 5 } else { 4 }).enumerate() {
                let loss = softmax.run(&bad.input()).loss;
                assert!(loss.is_nan(), "{value} in field {field}, row {at} gives {loss}");
                assert!(bits(softmax.run(&good.input())) == expected, "{value} stays in scratch");
            }
        }
    }
}
