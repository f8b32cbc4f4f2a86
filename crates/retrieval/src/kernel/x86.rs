//! The loops for AVX2 and AVX-512.
//!
//! A function of this file may only be called where the processor has what it is compiled for.

use std::arch::x86_64::{
    __m256i, __m512i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm256_add_epi32,
    _mm256_cvtepi8_epi16, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_set1_epi32,
    _mm256_setzero_si256, _mm256_storeu_si256, _mm512_cvtepi8_epi16, _mm512_dpwssd_epi32,
    _mm512_set1_epi32, _mm512_setzero_si512, _mm512_storeu_si512,
};

use super::{ABREAST, LANES, Packed, Pair, Probe, Run, portable};
use crate::best::Best;

/// Pairs of codes that are asked for ahead of their use, 2 KiB: a processor's own prefetch ends
/// where a page does.
const AHEAD: usize = 64;

/// Sums of one query: two vectors of eight.
type Sums = [__m256i; 2];

#[target_feature(enable = "avx2")]
pub(super) fn scan_avx2(run: Run<'_>, probe: &Probe, best: &mut Best) {
    portable::scan(run, probe, best, |block, query| dots_avx2(block, query));
}

#[target_feature(enable = "avx2")]
pub(super) fn nearest_avx2(
    codes: &[Pair],
    scales: &[[f32; LANES]],
    queries: [&[Packed]; ABREAST],
) -> [u32; ABREAST] {
    portable::nearest(codes, scales, queries, |block, queries| dots_abreast_avx2(block, queries))
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
pub(super) fn scan_avx512(run: Run<'_>, probe: &Probe, best: &mut Best) {
    portable::scan(run, probe, best, |block, query| dots_avx512(block, query));
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
pub(super) fn nearest_avx512(
    codes: &[Pair],
    scales: &[[f32; LANES]],
    queries: [&[Packed]; ABREAST],
) -> [u32; ABREAST] {
    portable::nearest(codes, scales, queries, |block, queries| dots_abreast_avx512(block, queries))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
fn dots_avx512(block: &[Pair], query: &[Packed]) -> [i32; LANES] {
    // The even and the odd pairs: one sum would wait for itself.
    let mut sums = [_mm512_setzero_si512(); 2];
    for (at, (codes, &packed)) in block.iter().zip(query).enumerate() {
        let ahead = std::ptr::from_ref(codes).wrapping_add(AHEAD);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        sums[at % 2] = add_avx512(sums[at % 2], widened_avx512(codes), packed);
    }
    let [even, odd] = sums.map(|sums| stored_avx512(sums));
    std::array::from_fn(|lane| even[lane] + odd[lane])
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni,avx2")]
fn dots_abreast_avx512(block: &[Pair], queries: [&[Packed]; ABREAST]) -> [[i32; LANES]; ABREAST] {
    let mut sums = [_mm512_setzero_si512(); ABREAST];
    let [a, b, c, d] = queries;
    for ((((codes, &a), &b), &c), &d) in block.iter().zip(a).zip(b).zip(c).zip(d) {
        let codes = widened_avx512(codes);
        for (sums, packed) in sums.iter_mut().zip([a, b, c, d]) {
            *sums = add_avx512(*sums, codes, packed);
        }
    }
    sums.map(|sums| stored_avx512(sums))
}

/// As [`add`], in one instruction.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_avx512(sums: __m512i, codes: __m512i, packed: Packed) -> __m512i {
    _mm512_dpwssd_epi32(sums, codes, _mm512_set1_epi32(packed))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn widened_avx512(codes: &Pair) -> __m512i {
    // SAFETY: it holds the 32 bytes that a load reads; a load needs no alignment.
    _mm512_cvtepi8_epi16(unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn stored_avx512(sums: __m512i) -> [i32; LANES] {
    let mut out = [0; LANES];
    // SAFETY: it holds the 64 bytes that a store writes; a store needs no alignment.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums) };
    out
}

#[inline]
#[target_feature(enable = "avx2")]
fn dots_avx2(block: &[Pair], query: &[Packed]) -> [i32; LANES] {
    let mut sums = [_mm256_setzero_si256(); 2];
    for (codes, &packed) in block.iter().zip(query) {
        let ahead = std::ptr::from_ref(codes).wrapping_add(AHEAD);
        _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
        add(&mut sums, widened(codes), packed);
    }
    stored(sums)
}

#[inline]
#[target_feature(enable = "avx2")]
fn dots_abreast_avx2(block: &[Pair], queries: [&[Packed]; ABREAST]) -> [[i32; LANES]; ABREAST] {
    let mut sums = [[_mm256_setzero_si256(); 2]; ABREAST];
    let [a, b, c, d] = queries;
    for ((((codes, &a), &b), &c), &d) in block.iter().zip(a).zip(b).zip(c).zip(d) {
        let codes = widened(codes);
        for (sums, packed) in sums.iter_mut().zip([a, b, c, d]) {
            add(sums, codes, packed);
        }
    }
    [stored(sums[0]), stored(sums[1]), stored(sums[2]), stored(sums[3])]
}

/// Adds to each row's sum its two codes times the query's two. Codes are in +-127, and
/// [`packed`](crate::codes::pack) keeps whole sums below 2^31.
#[inline]
#[target_feature(enable = "avx2")]
fn add(sums: &mut Sums, codes: Sums, packed: Packed) {
    let packed = _mm256_set1_epi32(packed);
    sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(codes[0], packed));
    sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(codes[1], packed));
}

/// Codes of 8 bits as ones of 16.
#[inline]
#[target_feature(enable = "avx2")]
fn widened(codes: &Pair) -> Sums {
    let (low, high) = codes.split_at(LANES);
    // SAFETY: each half holds the 16 bytes that a load reads; a load needs no alignment.
    let (low, high) =
        unsafe { (_mm_loadu_si128(low.as_ptr().cast()), _mm_loadu_si128(high.as_ptr().cast())) };
    [_mm256_cvtepi8_epi16(low), _mm256_cvtepi8_epi16(high)]
}

#[inline]
#[target_feature(enable = "avx2")]
fn stored(sums: Sums) -> [i32; LANES] {
    let mut out = [0; LANES];
    let (low, high) = out.split_at_mut(LANES / 2);
    // SAFETY: each half holds the 32 bytes that a store writes; a store needs no alignment.
    unsafe {
        _mm256_storeu_si256(low.as_mut_ptr().cast(), sums[0]);
        _mm256_storeu_si256(high.as_mut_ptr().cast(), sums[1]);
    }
    out
}
