//! Are the best found, in their order, whatever is asked?

use super::*;
use crate::best::Best;
use crate::codes::pack;
use crate::kernel::{ABREAST, Instructions, LANES, Probe, Run};
use millrace_events::SplitMix;
use proptest::prelude::*;

/// Vectors of length 1 around centres of their own, as a tower gives them, and log q by Zipf.
struct Made {
    centres: Vec<Vec<f32>>,
    random: SplitMix,
    dim: usize,
}

impl Made {
    fn new(dim: usize, seed: u64) -> Self {
        let mut random = SplitMix::new(seed);
        let centre = |random: &mut SplitMix| (0..dim).map(|_| random.uniform(1.0)).collect();
        let centres = (0..60).map(|_| centre(&mut random)).collect();
        Self { centres, random, dim }
    }

    fn vector(&mut self) -> Vec<f32> {
        // Squared: some centres have many vectors, others few.
        let at = self.random.unit() * self.random.unit() * self.centres.len() as f32;
        let centre = &self.centres[at as usize];
        let vector = centre.iter().map(|x| x + self.random.uniform(0.7)).collect::<Vec<f32>>();
        unit(&vector)
    }

    fn items(&mut self, count: usize) -> Items {
        let vectors = vec![(0..count).flat_map(|_| self.vector()).collect()];
        let log_q = (0..count).map(|_| -6.0 * self.random.unit()).collect();
        Items { dim: self.dim, vectors, log_q, temperature: 0.07 }
    }
}

fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-9);
    vector.iter().map(|x| x / length).collect()
}

fn search(query: &[f32], k: usize) -> Search<'_> {
    Search { query, k, popularity: 0.0, excluded: &[], allowed: None }
}

/// Share of the exact answer that was found.
fn recall(index: &Index, search: &Search<'_>) -> f64 {
    let exact = index.exact(search).expect("finite");
    let found = index.search(search).expect("finite");
    assert_eq!(found.len(), exact.len(), "never fewer than there are");
    assert!(found.is_sorted_by(|a, b| a.score >= b.score));
    let hits = exact.iter().filter(|hit| found.contains(hit)).count();
    hits as f64 / exact.len().max(1) as f64
}

/// With lists, however few the items.
fn in_lists() -> IndexSettings {
    IndexSettings { exact_max: 0, lists_probed: 48, seed: 1 }
}

#[test]
fn a_small_index_answers_as_a_scan_in_f32_does() {
    for (dim, count) in
        [(1, 40), (3, 0), (3, 1), (8, 15), (64, 16), (64, 17), (64, 6000), (99, 500)]
    {
        let mut made = Made::new(dim, 7 + count as u64);
        let index = Index::build(made.items(count), &IndexSettings::default(), None);
        let index = index.expect("finite");
        assert!(index.is_exact());
        let allowed = index.allow((0..count as u32).filter(|item| item % 3 != 1));
        let excluded: Vec<u32> =
            (0..count as u32 / 2).step_by(5).chain([u32::MAX, 70_000]).collect();
        for popularity in [0.0, 1.0, -0.5, 30.0] {
            for k in [0, 1, 10, 100, 10_000] {
                let query = made.vector();
                let all = Search { popularity, ..search(&query, k) };
                let some = Search { allowed: Some(&allowed), ..all };
                let fewer = Search { excluded: &excluded, ..some };
                let rest = Search { excluded: &excluded, ..all };
                for search in [all, some, fewer, rest] {
                    let found = index.search(&search).expect("finite");
                    assert_eq!(found, index.exact(&search).expect("finite"), "dim {dim}, k {k}");
                    let chosen = |hit: &Hit| {
                        let among = search.allowed.is_none() || hit.item % 3 != 1;
                        among && !search.excluded.contains(&hit.item)
                    };
                    assert!(found.iter().all(chosen));
                }
            }
        }
    }
}

/// The scan in `f32` is itself compared with sums in `f64`.
#[test]
fn a_score_is_the_dot_product_over_the_temperature_and_popularity() {
    let mut made = Made::new(64, 3);
    let index = Index::build(made.items(500), &IndexSettings::default(), None).expect("finite");
    let query = made.vector();
    let all = Search { popularity: 1.5, ..search(&query, 500) };
    let found = index.exact(&all).expect("finite");
    assert_eq!(found.len(), 500);
    for hit in &found {
        let products = query.iter().zip(index.vector(hit.item));
        let dot: f64 = products.map(|(a, b)| f64::from(*a) * f64::from(b)).sum();
        let want = dot / 0.07 + 1.5 * f64::from(index.log_q(hit.item));
        assert!((f64::from(hit.score) - want).abs() < 1e-4, "{} for {want}", hit.score);
    }
}

#[test]
fn equal_scores_stand_in_the_order_of_the_items() {
    let vector = unit(&[0.3, -0.2, 0.9, 0.1]);
    for settings in [IndexSettings::default(), in_lists()] {
        let vectors = vec![vector.repeat(100)];
        let items = Items { dim: 4, vectors, log_q: vec![0.0; 100], temperature: 1.0 };
        let index = Index::build(items, &settings, None).expect("finite");
        let found = index.search(&search(&vector, 7)).expect("finite");
        let items: Vec<u32> = found.iter().map(|hit| hit.item).collect();
        assert_eq!(items, [0, 1, 2, 3, 4, 5, 6]);
    }
}

#[test]
fn every_instruction_set_gives_the_same_sums() {
    let mut random = SplitMix::new(11);
    // Miri would take minutes for the long ones.
    for &pairs in if cfg!(miri) { &[1, 2, 7][..] } else { &[1, 2, 7, 32, 258] } {
        let mut row = || random.next_u64() as i8;
        let codes: Vec<_> =
            (0..3 * pairs).map(|_| std::array::from_fn(|_| row().clamp(-127, 127))).collect();
        let scales: Vec<[f32; LANES]> =
            (0..3).map(|block| std::array::from_fn(|lane| 0.5 + (block * lane) as f32)).collect();
        let queries: [Vec<i32>; ABREAST] = std::array::from_fn(|_| {
            let values: Vec<f32> = (0..2 * pairs).map(|_| random.uniform(3.0)).collect();
            let mut packed = Vec::new();
            pack(&values, &mut packed);
            packed
        });
        let [a, b, c, d] = &queries;
        let all: Vec<Instructions> = Instructions::ALL
            .iter()
            .copied()
            .filter(|instructions| instructions.are_here())
            .collect();
        println!("{pairs} pairs by {all:?}");
        let mask = [u16::MAX; 3];
        let run = Run {
            base: 0.0,
            codes: &codes,
            scales: &scales,
            log_q: &[[0.0; LANES]; 3],
            errors: &[0.0; 3],
            masks: &mask,
            first: 0,
        };
        let of = |instructions: Instructions| {
            let probe =
                Probe { codes: a.clone(), factor: 1.0, popularity: 0.0, reach: 0.0, slack: 0.0 };
            let mut best = Best::new(5, 5);
            instructions.scan(run, &probe, &mut best);
            let mut best: Vec<usize> = best.finish().map(|row| row as usize).collect();
            best.sort_unstable();
            (best, instructions.nearest(&codes, &scales, [a, b, c, d]).map(|row| row as usize))
        };
        // By hand.
        let product = |query: &[i32], row: usize| {
            let codes = &codes[row / LANES * pairs..][..pairs];
            let pair = |(codes, packed): (&[i8; 2 * LANES], &i32)| {
                let (low, high) = (i64::from(*packed as i16), i64::from(packed >> 16));
                let lane = 2 * (row % LANES);
                i64::from(codes[lane]) * low + i64::from(codes[lane + 1]) * high
            };
            let sum: i64 = codes.iter().zip(query).map(pair).sum();
            sum as f32 * scales[row / LANES][row % LANES]
        };
        let ranked = |query: &[i32]| {
            let mut rows: Vec<usize> = (0..3 * LANES).collect();
            rows.sort_by(|x, y| product(query, *y).total_cmp(&product(query, *x)));
            rows
        };
        let mut best = ranked(a)[..5].to_vec();
        best.sort_unstable();
        let want = (best, [a, b, c, d].map(|query| ranked(query)[0]));
        assert!(all.into_iter().all(|instructions| of(instructions) == want));
    }
}

/// What a tower gives for items that it has not learned of: one vector and a little noise. Exactly
/// the same of some lists, and all of them in others.
#[test]
fn items_that_are_nearly_alike_cost_no_more_than_others() {
    let mut random = SplitMix::new(31);
    let (dim, count) = (64, 20_000);
    let shared: Vec<f32> = (0..dim).map(|_| random.uniform(1.0)).collect();
    for noise in [0.02, 0.002, 0.0] {
        let vectors = (0..count).flat_map(|_| {
            let near: Vec<f32> = shared.iter().map(|x| x + random.uniform(noise)).collect();
            unit(&near)
        });
        let vectors = vec![vectors.collect()];
        let items = Items { dim, vectors, log_q: vec![-9.0; count], temperature: 0.05 };
        let query: Vec<f32> = (0..dim).map(|_| random.uniform(1.0)).collect();
        let search = Search { popularity: 1.0, ..search(&query, 100) };
        for settings in [IndexSettings::default(), in_lists()] {
            let index = Index::build(items.clone(), &settings, None).expect("finite");
            let again = index.candidates(&search).expect("finite").len();
            println!("noise {noise}, exact {}: {again} again", index.is_exact());
            let found = index.search(&search).expect("finite");
            assert_eq!(found.len(), 100);
            if index.is_exact() {
                assert_eq!(found, index.exact(&search).expect("finite"));
            }
            // Only equal ones are told apart by nothing, and in lists there is a bound for them.
            let most = match (noise > 0.0, index.is_exact()) {
                (true, _) => 1000,
                (false, true) => count,
                (false, false) => 1 << 14,
            };
            assert!(again <= most, "{again} of {count} items are computed again");
        }
    }
}

#[test]
fn lists_find_nearly_all_with_popularity_and_filters_and_never_too_few() {
    let count = 40_000;
    let mut made = Made::new(32, 5);
    let index = Index::build(made.items(count), &in_lists(), None).expect("finite");
    assert!(!index.is_exact());
    let queries: Vec<Vec<f32>> = (0..40).map(|_| made.vector()).collect();
    let mean = |recall: &dyn Fn(&[f32]) -> f64| {
        queries.iter().map(|query| recall(query)).sum::<f64>() / queries.len() as f64
    };
    for popularity in [0.0, 1.0] {
        let found = mean(&|query| recall(&index, &Search { popularity, ..search(query, 100) }));
        println!("popularity {popularity}: {found:.4}");
        assert!(found >= 0.98, "{found}");
    }
    let mut random = SplitMix::new(9);
    for share in [1.0, 0.5, 0.1, 0.01, 0.001] {
        let chosen: Vec<u32> =
            (0..count as u32).filter(|_| f64::from(random.unit()) < share).collect();
        let allowed = index.allow(chosen.iter().copied());
        assert_eq!((allowed.len(), allowed.is_empty()), (chosen.len(), chosen.is_empty()));
        let found = mean(&|query| {
            let search = Search { allowed: Some(&allowed), ..search(query, 100) };
            let found = index.search(&search).expect("finite");
            assert_eq!(found.len(), chosen.len().min(100));
            assert!(found.iter().all(|hit| chosen.binary_search(&hit.item).is_ok()));
            recall(&index, &search)
        });
        println!("{share} of the items: {found:.4}");
        assert!(found >= 0.98, "{found} of {share}");
    }
    // More than the lists that are scanned at first hold.
    let most = index.search(&search(&queries[0], count)).expect("finite");
    assert_eq!(most.len(), count);
}

#[test]
fn kept_centres_follow_a_model_that_moves() {
    let (count, dim, versions) = (20_000, 32, 100);
    let mut made = Made::new(dim, 13);
    let mut items = made.items(count);
    let settings = IndexSettings { lists_probed: 24, ..in_lists() };
    let queries: Vec<Vec<f32>> = (0..30).map(|_| made.vector()).collect();
    // Each version turns every vector a little, along a drift of its own centre and at random.
    let mut random = SplitMix::new(17);
    let mut kept = None;
    let mut recalls = Vec::new();
    for version in 0..versions {
        let index = Index::build(items.clone(), &settings, kept.as_deref()).expect("finite");
        kept = index.centroids();
        if version + 1 == versions {
            let fresh = Index::build(items.clone(), &settings, None).expect("finite");
            for index in [&index, &fresh] {
                let sum: f64 = queries.iter().map(|query| recall(index, &search(query, 100))).sum();
                recalls.push(sum / queries.len() as f64);
            }
        }
        let turn: Vec<f32> = (0..dim).map(|_| random.uniform(0.05)).collect();
        let moved = items.vectors[0].chunks_exact(dim).flat_map(|vector| {
            let moved = vector.iter().zip(&turn).map(|(x, t)| x + t + random.uniform(0.02));
            unit(&moved.collect::<Vec<f32>>())
        });
        items.vectors = vec![moved.collect()];
    }
    println!("kept and fresh after {versions} versions: {recalls:?}");
    assert!(recalls[0] >= recalls[1] - 0.01, "{recalls:?}");
}

#[test]
fn the_same_items_give_the_same_index_on_any_number_of_threads() {
    let mut made = Made::new(16, 21);
    let items = made.items(5_000);
    let query = made.vector();
    let of = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        // Few lists, so that another index would give another answer.
        let few = IndexSettings { lists_probed: 2, ..in_lists() };
        let index = pool.install(|| Index::build(items.clone(), &few, None));
        let index = index.expect("finite");
        assert!(index.bytes() > 5_000 * 16 * 3);
        index.search(&search(&query, 50)).expect("finite")
    };
    let [one, three] = [1, 3].map(of);
    assert_eq!(one, three);
}

/// Codes and rests are whole numbers of a range that may reach twice as far as the values do.
#[test]
fn vectors_in_lists_are_what_they_were_to_24_bits() {
    for (dim, count, size) in [(64, 3_000, 1.0f32), (7, 900, 1e-12), (1, 50, 1e9)] {
        let mut made = Made::new(dim, 41);
        let mut items = made.items(count);
        items.vectors[0].iter_mut().for_each(|x| *x *= size);
        let index = Index::build(items.clone(), &in_lists(), None).expect("finite");
        assert!(!index.is_exact());
        let largest = items.vectors[0].iter().fold(0.0f32, |most, x| most.max(x.abs()));
        for (number, vector) in (0..).zip(items.vectors[0].chunks_exact(dim)) {
            for (found, x) in index.vector(number).iter().zip(vector) {
                assert!((found - x).abs() <= largest / (1 << 22) as f32, "{found} for {x}");
            }
        }
        // Half of what the floats take.
        let bytes = 3 * count * dim;
        assert!(index.bytes() < bytes + 80 * count + 5_000, "{} of {bytes}", index.bytes());
    }
}

#[test]
fn items_in_pieces_are_those_of_one() {
    let (dim, count) = (16, 5_000);
    let mut made = Made::new(dim, 43);
    let whole = made.items(count);
    let pieces = whole.vectors[0].chunks(700 * dim).map(<[f32]>::to_vec).collect();
    let pieces = Items { vectors: pieces, ..whole.clone() };
    let query = made.vector();
    for settings in [IndexSettings::default(), in_lists()] {
        let of = |items: &Items| {
            let index = Index::build(items.clone(), &settings, None).expect("finite");
            let vectors: Vec<_> = (0..count as u32).map(|number| index.vector(number)).collect();
            (index.search(&search(&query, 50)).expect("finite"), vectors)
        };
        assert_eq!(of(&whole), of(&pieces));
    }
}

#[test]
fn what_is_no_number_is_refused_by_name() {
    let items = |vectors: Vec<f32>, log_q: f32, temperature: f32| {
        let vectors = vec![vectors];
        let items = Items { dim: 2, vectors, log_q: vec![0.0, log_q], temperature };
        Index::build(items, &IndexSettings::default(), None).map(|_| ())
    };
    let text = |result: Result<(), NotFinite>| result.expect_err("refused").to_string();
    assert_eq!(
        text(items(vec![0.0, 1.0, f32::NAN, 0.0], 0.0, 1.0)),
        "the vector of item 1 is not finite"
    );
    assert_eq!(text(items(vec![0.0; 4], f32::INFINITY, 1.0)), "log q of item 1 is not finite");
    assert!(text(items(vec![0.0; 4], 0.0, 0.0)).contains("temperature"));
    let items =
        Items { dim: 2, vectors: vec![vec![0.0; 4]], log_q: vec![0.0; 2], temperature: 1.0 };
    let index = Index::build(items, &IndexSettings::default(), None).expect("zeros are numbers");
    let found = index.search(&search(&[0.0, 0.0], 5)).expect("finite");
    assert_eq!(
        found.iter().map(|hit| (hit.item, hit.score)).collect::<Vec<_>>(),
        [(0, 0.0), (1, 0.0)]
    );
    let broken = index.search(&search(&[f32::INFINITY, 0.0], 5)).expect_err("refused");
    assert_eq!(broken.to_string(), "the query is not finite");
    let zeros = [0.0, 0.0];
    let heavy = Search { popularity: f32::NAN, ..search(&zeros, 5) };
    assert!(index.search(&heavy).is_err());
}

proptest! {
    /// Vectors of any length, zeros and nearly equal ones among them.
    #[test]
    fn any_vectors_are_found_exactly(
        dim in 1usize..20,
        seed in any::<u64>(),
        exponents in prop::collection::vec(-8i32..8, 1..120),
        k in 1usize..40,
        popularity in -2.0f32..2.0,
    ) {
        let mut random = SplitMix::new(seed);
        let shared: Vec<f32> = (0..dim).map(|_| random.uniform(1.0)).collect();
        let vectors: Vec<f32> = exponents
            .iter()
            .flat_map(|&exponent| {
                let size = if exponent == -8 { 0.0 } else { 10f32.powi(exponent) };
                let near = random.next_u64().is_multiple_of(2);
                let noise = if near { 1e-4 } else { 1.0 };
                shared.iter().map(|x| size * (x + random.uniform(noise))).collect::<Vec<f32>>()
            })
            .collect();
        let log_q = exponents.iter().map(|_| random.uniform(9.0)).collect();
        let items = Items { dim, vectors: vec![vectors], log_q, temperature: 0.05 };
        let index = Index::build(items, &IndexSettings::default(), None).expect("finite");
        let query: Vec<f32> = (0..dim).map(|_| random.uniform(1.0)).collect();
        let search = Search { popularity, ..search(&query, k) };
        let (found, exact) = (index.search(&search), index.exact(&search));
        prop_assert_eq!(found.expect("finite"), exact.expect("finite"));
    }
}
