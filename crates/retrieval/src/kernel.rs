//! Dot products of whole numbers, and the loops around them, compiled for each instruction set.
//!
//! Whole numbers give the same sums in any order, so every instruction set gives the same bits.
//! The portable loops are plain Rust that the compiler vectorises. AVX2 and AVX-512 have inner
//! loops of their own: the compiler does not find `vpmaddwd` and `vpdpwssd`, which multiply and add
//! in one instruction, and its four queries abreast took five times as long.
//!
//! Must never know: what the numbers stand for.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::best::Best;

/// Rows of a block: each lane of a vector of 32-bit sums is one of them.
pub(crate) const LANES: usize = 16;

/// Codes of two neighbouring dimensions of all rows of a block, row by row.
pub(crate) type Pair = [i8; 2 * LANES];

/// A row of a query's or an item's codes: two of 16 bits in each, the lower one first.
pub(crate) type Packed = i32;

/// Queries that look for their nearest rows at once: each block is then read once for all.
pub(crate) const ABREAST: usize = 4;

/// A run of blocks, and what it takes to score its rows.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    /// What all scores begin at.
    pub(crate) base: f32,
    /// `[blocks * pairs]`
    pub(crate) codes: &'a [Pair],
    /// `[blocks]`, what a code of each row is worth.
    pub(crate) scales: &'a [[f32; LANES]],
    /// `[blocks]`
    pub(crate) log_q: &'a [[f32; LANES]],
    /// `[blocks]`, how far a row's codes lie from it, the furthest of the block.
    pub(crate) errors: &'a [f32],
    /// `[blocks]`, the rows that may be found, a bit each.
    pub(crate) masks: &'a [u16],
    /// The first block's place among all.
    pub(crate) first: usize,
}

/// A query's codes, and what turns sums into scores.
pub(crate) struct Probe {
    /// `[pairs]`
    pub(crate) codes: Vec<Packed>,
    /// Times a row's scale and a sum: the score that the towers give.
    pub(crate) factor: f32,
    /// Times log q.
    pub(crate) popularity: f32,
    /// Times a block's error: how far a score may be off for that.
    pub(crate) reach: f32,
    /// How far any score may be off for all other reasons.
    pub(crate) slack: f32,
}

/// Which instructions the loops are compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instructions {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Instructions {
    /// Every kind, the widest first.
    pub(crate) const ALL: &[Self] = &[
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        Self::Portable,
    ];

    /// Whether this processor has them.
    pub(crate) fn are_here(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            Self::Portable => true,
        }
    }

    /// The widest there are here.
    pub(crate) fn detect() -> Self {
        let here = Self::ALL.iter().copied().find(|instructions| instructions.are_here());
        here.unwrap_or(Self::Portable)
    }

    /// Scores the rows of `run` and hands those that may be among the best to `best`.
    pub(crate) fn scan(self, run: Run<'_>, probe: &Probe, best: &mut Best) {
        match self {
            // SAFETY: `detect` found the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::scan_avx512(run, probe, best) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::scan_avx2(run, probe, best) },
            Self::Portable => portable::scan(run, probe, best, portable::dots),
        }
    }

    /// Of each query the row with the largest dot product times scale, the first of equals.
    pub(crate) fn nearest(
        self,
        codes: &[Pair],
        scales: &[[f32; LANES]],
        queries: [&[Packed]; ABREAST],
    ) -> [u32; ABREAST] {
        match self {
            // SAFETY: `detect` found the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::nearest_avx512(codes, scales, queries) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::nearest_avx2(codes, scales, queries) },
            Self::Portable => portable::nearest(codes, scales, queries, portable::dots_abreast),
        }
    }
}

/// Dot product of floats in a fixed number of lanes: the order of the additions is written down, so
/// it vectorises and gives the same bits on every CPU.
#[inline]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let ((a_lanes, a_rest), (b_lanes, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a_lanes.iter().zip(b_lanes) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}
