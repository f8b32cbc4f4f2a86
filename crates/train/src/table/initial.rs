//! What a row begins with: a function of the table's seed and the row's id.
//!
//! Thus it does not depend on the order of arrival, and an id that was never trained has a vector
//! too. A log full of new ids makes thousands of rows a step, so the loop is compiled for the
//! widest products there are. Elementwise whole numbers: the same bits on every CPU.

use millrace_events::mix;

/// Uniform in `-scale..scale`, from the top 24 bits of a splitmix64 sequence of its own for every
/// id: counter-based, so dimension `j` needs no other.
pub(super) fn fill_initial(seed: u64, id: u64, scale: f32, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512dq") {
        // SAFETY: the processor has what the function was compiled for.
        return unsafe { fill_avx512(seed, id, scale, out) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: as above.
        return unsafe { fill_avx2(seed, id, scale, out) };
    }
    fill(seed, id, scale, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq")]
fn fill_avx512(seed: u64, id: u64, scale: f32, out: &mut [f32]) {
    fill(seed, id, scale, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fill_avx2(seed: u64, id: u64, scale: f32, out: &mut [f32]) {
    fill(seed, id, scale, out);
}

#[inline(always)]
fn fill(seed: u64, id: u64, scale: f32, out: &mut [f32]) {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let start = mix(id ^ mix(seed.wrapping_add(GOLDEN)));
    for (j, value) in (1u64..).zip(out) {
        let bits = mix(start.wrapping_add(j.wrapping_mul(GOLDEN)));
        // -2^23 .. 2^23, by way of 32 bits, for which every CPU has a vector conversion.
        let signed = ((bits >> 32) as i32 >> 8) as f32;
        *value = signed * (scale / (1 << 23) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_sets_agree() {
        for (id, width) in [(0, 1), (7, 64), (u64::MAX, 100)] {
            let (mut here, mut plain) = (vec![0.0; width], vec![0.0; width]);
            fill_initial(3, id, 0.05, &mut here);
            fill(3, id, 0.05, &mut plain);
            assert_eq!(here, plain);
        }
    }
}
