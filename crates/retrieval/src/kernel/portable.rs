//! The loops in plain Rust. The other instruction sets compile the same loops again.

use std::array;

use super::{ABREAST, LANES, Packed, Pair, Probe, Run};
use crate::best::Best;

/// Scores the rows of `run`. `dots` gives those of one block.
#[inline(always)]
pub(super) fn scan(
    run: Run<'_>,
    probe: &Probe,
    best: &mut Best,
    dots: impl Fn(&[Pair], &[Packed]) -> [i32; LANES],
) {
    let pairs = probe.codes.len();
    for (block, codes) in run.codes.chunks_exact(pairs).enumerate() {
        let mask = run.masks[block];
        if mask == 0 {
            continue;
        }
        let sums = dots(codes, &probe.codes);
        let (scales, log_q) = (&run.scales[block], &run.log_q[block]);
        let scores: [f32; LANES] = array::from_fn(|lane| {
            let off = sums[lane] as f32 * (scales[lane] * probe.factor);
            off + log_q[lane] * probe.popularity + run.base
        });
        let error = run.errors[block] * probe.reach + probe.slack;
        let cut = best.cut() - error;
        // Most blocks hold nothing, and this needs no branch for each row.
        let mut any = 0u32;
        for score in &scores {
            any |= u32::from(*score >= cut);
        }
        if any == 0 {
            continue;
        }
        let first = (run.first + block) * LANES;
        for (lane, &score) in scores.iter().enumerate() {
            if mask >> lane & 1 == 1 && score >= best.cut() - error {
                best.push(score - error, score + error, (first + lane) as u32);
            }
        }
    }
}

/// Of each query the row with the largest product of dot product and scale.
#[inline(always)]
pub(super) fn nearest(
    codes: &[Pair],
    scales: &[[f32; LANES]],
    queries: [&[Packed]; ABREAST],
    dots: impl Fn(&[Pair], [&[Packed]; ABREAST]) -> [[i32; LANES]; ABREAST],
) -> [u32; ABREAST] {
    let mut largest = [[f32::NEG_INFINITY; LANES]; ABREAST];
    let mut blocks = [[0u32; LANES]; ABREAST];
    for (block, (codes, scales)) in codes.chunks_exact(queries[0].len()).zip(scales).enumerate() {
        let sums = dots(codes, queries);
        for query in 0..ABREAST {
            for lane in 0..LANES {
                let product = sums[query][lane] as f32 * scales[lane];
                let more = product > largest[query][lane];
                largest[query][lane] = if more { product } else { largest[query][lane] };
                blocks[query][lane] = if more { block as u32 } else { blocks[query][lane] };
            }
        }
    }
    array::from_fn(|query| {
        let row = |lane: usize| blocks[query][lane] * LANES as u32 + lane as u32;
        let better = |a: &usize, b: &usize| {
            largest[query][*a].total_cmp(&largest[query][*b]).then(row(*b).cmp(&row(*a)))
        };
        (0..LANES).max_by(better).map_or(0, row)
    })
}

/// Dot products of a query with the rows of one block.
#[inline(always)]
pub(super) fn dots(block: &[Pair], query: &[Packed]) -> [i32; LANES] {
    let mut sums = [0; LANES];
    for (codes, &packed) in block.iter().zip(query) {
        let (low, high) = (i32::from(packed as i16), packed >> 16);
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += i32::from(codes[2 * lane]) * low + i32::from(codes[2 * lane + 1]) * high;
        }
    }
    sums
}

/// [`dots`] of some queries.
#[inline(always)]
pub(super) fn dots_abreast(
    block: &[Pair],
    queries: [&[Packed]; ABREAST],
) -> [[i32; LANES]; ABREAST] {
    queries.map(|query| dots(block, query))
}
