//! The vector loops of the softmax, one row of a block per lane.
//!
//! Plain Rust that the compiler vectorises, compiled once per instruction set and chosen at run
//! time. Elementwise and with a fixed order of additions per lane, so the width of the machine's
//! vectors does not show in the bits. They must never know about tiles, masks or gradients.

/// Queries per block, the lanes of every loop here. 64 is one whole tile of gemm's AVX-512 kernel.
/// More: the block (`4 * ROWS * batch` bytes) falls out of the cache; fewer: gemm's kernel runs
/// part full, and the item gradient is read and written more often per flop.
pub(crate) const ROWS: usize = 64;

/// Per row of a block.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    /// Dot product of the positive pair.
    pub(crate) positive: [f32; ROWS],
    /// Logit of the positive pair.
    pub(crate) positive_logit: [f32; ROWS],
    /// Greatest unmasked logit, the positive's included.
    pub(crate) max: [f32; ROWS],
    /// Σ over unmasked `j != i` of `exp(logit - max)`.
    pub(crate) negatives: [f32; ROWS],
    /// Items not scored below the positive.
    pub(crate) above: [u32; ROWS],
}

impl Default for Rows {
    fn default() -> Self {
        let zeros = [0.0; ROWS];
        Self {
            positive: zeros,
            positive_logit: zeros,
            max: zeros,
            negatives: zeros,
            above: [0; ROWS],
        }
    }
}

impl Rows {
    /// Starts a block of `rows` rows.
    pub(crate) fn begin(&mut self, rows: usize) {
        *self = Self::default();
        self.max[..rows].fill(f32::NEG_INFINITY);
        // Unused lanes come out as zeros, so that products may run over them.
        self.max[rows..].fill(f32::INFINITY);
    }

    /// Takes the dot product of row `r`'s positive, and leaves it at minus infinity because a
    /// positive is no negative of its row.
    pub(crate) fn take_positive(&mut self, r: usize, dot: &mut f32, scale: f32, log_q: f32) {
        self.positive[r] = std::mem::replace(dot, f32::NEG_INFINITY);
        let logit = logit(self.positive[r], scale, log_q);
        self.positive_logit[r] = logit;
        self.max[r] = if logit > self.max[r] { logit } else { self.max[r] };
    }
}

/// Which instructions the vector loops are compiled for. The loops are plain Rust in every case; a
/// build for the x86-64 baseline would otherwise run them at a quarter of the machine's width.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lanes {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Baseline,
}

impl Lanes {
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Baseline
    }

    pub(crate) fn scan(self, tile: &[f32], scale: f32, offsets: &[f32], rows: &mut Rows) {
        match self {
            // SAFETY: `detect` found the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { scan_avx512(tile, scale, offsets, rows) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { scan_avx2(tile, scale, offsets, rows) },
            Self::Baseline => scan(tile, scale, offsets, rows),
        }
    }

    pub(crate) fn exponentials(
        self,
        tile: &mut [f32],
        scale: f32,
        offsets: &[f32],
        counts: &[u32],
        rows: &mut Rows,
    ) {
        match self {
            // SAFETY: `detect` found the instructions.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { exponentials_avx512(tile, scale, offsets, counts, rows) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { exponentials_avx2(tile, scale, offsets, counts, rows) },
            Self::Baseline => exponentials::<false>(tile, scale, offsets, counts, rows),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn scan_avx512(tile: &[f32], scale: f32, offsets: &[f32], rows: &mut Rows) {
    scan(tile, scale, offsets, rows);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn scan_avx2(tile: &[f32], scale: f32, offsets: &[f32], rows: &mut Rows) {
    scan(tile, scale, offsets, rows);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
fn exponentials_avx512(
    tile: &mut [f32],
    scale: f32,
    offsets: &[f32],
    counts: &[u32],
    rows: &mut Rows,
) {
    exponentials::<true>(tile, scale, offsets, counts, rows);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn exponentials_avx2(
    tile: &mut [f32],
    scale: f32,
    offsets: &[f32],
    counts: &[u32],
    rows: &mut Rows,
) {
    exponentials::<true>(tile, scale, offsets, counts, rows);
}

/// The corrected logit (eq. 4): `<q, c> / τ - log q`. A frequent item is a negative more often than
/// its share, so its logit is made *smaller*; the other sign is worse than no correction at all.
#[inline(always)]
fn logit(dot: f32, scale: f32, log_q: f32) -> f32 {
    dot * scale - log_q
}

/// Row maxima of the corrected logits, over one tile.
#[inline(always)]
fn scan(tile: &[f32], scale: f32, offsets: &[f32], rows: &mut Rows) {
    let (columns, _) = tile.as_chunks::<ROWS>();
    for (dots, &offset) in columns.iter().zip(offsets) {
        for (r, &dot) in dots.iter().enumerate() {
            let logit = logit(dot, scale, offset);
            rows.max[r] = if logit > rows.max[r] { logit } else { rows.max[r] };
        }
    }
}

/// Turns the dot products of one tile into `exp(logit - max)`, adds up the rows, and counts the
/// items that are not below each positive. Sums go tile by tile: a sum of short sums loses far less
/// to rounding than one long sum.
#[inline(always)]
fn exponentials<const FMA: bool>(
    tile: &mut [f32],
    scale: f32,
    offsets: &[f32],
    counts: &[u32],
    rows: &mut Rows,
) {
    let mut sum = [0.0; ROWS];
    let (columns, _) = tile.as_chunks_mut::<ROWS>();
    for ((dots, &offset), &count) in columns.iter_mut().zip(offsets).zip(counts) {
        for (r, dot) in dots.iter_mut().enumerate() {
            rows.above[r] += count & u32::from(*dot >= rows.positive[r]);
            let exponential = exp::<FMA>(logit(*dot, scale, offset) - rows.max[r]);
            *dot = exponential;
            sum[r] += exponential;
        }
    }
    for (total, sum) in rows.negatives.iter_mut().zip(sum) {
        *total += sum;
    }
}

/// `e^x` for `x <= 0`, within 1e-7 relative; exactly 1 at 0, 0 below -87 (there it would be
/// subnormal), NaN for NaN. Without branches or calls, so that a loop over it vectorises; `std`'s
/// does not.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`, and `e^r` by a polynomial (Cephes' `expf`).
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the coefficients as published")]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    /// 1.5 * 2^23: adding it rounds to an integer, which then stands in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_375;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let mul_add = |a: f32, b: f32, c: f32| if FMA { a.mul_add(b, c) } else { a * b + c };
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = mul_add(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = mul_add(n, -LN_2_LOW, mul_add(n, -LN_2_HIGH, clamped));
    let mut p = mul_add(r, 1.987_569_15e-4, 1.398_199_95e-3);
    p = mul_add(p, r, 8.333_451_9e-3);
    p = mul_add(p, r, 4.166_579_6e-2);
    p = mul_add(p, r, 1.666_666_55e-1);
    p = mul_add(p, r, 5.000_000_1e-1);
    p = mul_add(p, r * r, r) + 1.0;
    // The shift drops all of ROUND's own bits and leaves n as an exponent.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if x < -87.0 { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_agrees_with_f64() {
        let mut worst = 0.0_f64;
        for step in 0..=4_000_000 {
            let x = -87.0 * (step as f32 / 4_000_000.0);
            let exact = f64::from(x).exp();
            for value in [exp::<false>(x), exp::<true>(x)] {
                worst = worst.max((f64::from(value) - exact).abs() / exact);
            }
        }
        println!("worst relative error {worst:.2e}");
        assert!(worst < 1.2e-7, "{worst}");
    }

    #[test]
    fn exp_at_its_edges() {
        fn edges<const FMA: bool>() {
            assert_eq!(exp::<FMA>(0.0), 1.0);
            assert_eq!(exp::<FMA>(-0.0), 1.0);
            assert!(exp::<FMA>(-87.0) > 0.0);
            assert_eq!(exp::<FMA>(-87.01), 0.0);
            assert_eq!(exp::<FMA>(f32::NEG_INFINITY), 0.0);
            assert!(exp::<FMA>(f32::NAN).is_nan());
        }
        edges::<false>();
        edges::<true>();
    }

    /// Every path this machine can run, on one tile: same maxima and counts, sums within rounding.
    #[test]
    fn instruction_sets_agree() {
        let columns = 37;
        let dots: Vec<f32> =
            (0..columns * ROWS).map(|x| ((x * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let log_q: Vec<f32> = (0..columns).map(|x| -((x % 5) as f32)).collect();
        let counts = vec![u32::MAX; columns];
        let run = |lanes: Lanes| {
            let (mut tile, mut rows) = (dots.clone(), Rows::default());
            lanes.scan(&tile, 20.0, &log_q, &mut rows);
            lanes.exponentials(&mut tile, 20.0, &log_q, &counts, &mut rows);
            rows
        };
        let baseline = run(Lanes::Baseline);
        #[cfg(target_arch = "x86_64")]
        let paths = match Lanes::detect() {
            Lanes::Avx512 => vec![Lanes::Avx2, Lanes::Avx512],
            other => vec![other],
        };
        #[cfg(not(target_arch = "x86_64"))]
        let paths = vec![Lanes::detect()];
        for lanes in paths {
            let rows = run(lanes);
            assert_eq!(rows.max, baseline.max, "{lanes:?}");
            assert_eq!(rows.above, baseline.above, "{lanes:?}");
            for (sum, expected) in rows.negatives.iter().zip(baseline.negatives) {
                assert!((sum - expected).abs() <= 1e-6 * expected, "{lanes:?}: {sum} {expected}");
            }
        }
    }
}
