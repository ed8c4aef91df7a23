//! Narrow floats to f32 and back, and clamping.

use crate::optim::kernel::simd::multiversion;
use half::slice::HalfFloatSliceExt;

#[inline(always)]
fn from_bf16_body(from: &[u16], to: &mut [f32]) {
    for (t, &f) in to.iter_mut().zip(from) {
        *t = f32::from_bits(u32::from(f) << 16);
    }
}

/// Mixes a position and a step into 32 uniform bits (a finaliser of the murmur kind).
#[inline(always)]
fn hash(position: u32, seed: u32) -> u32 {
    let mut h = position.wrapping_mul(0x9e37_79b1) ^ seed;
    h ^= h >> 16;
    h = h.wrapping_mul(0x7feb_352d);
    h ^= h >> 15;
    h = h.wrapping_mul(0x846c_a68b);
    h ^ (h >> 16)
}

/// Rounds up with the probability of the cut-off part; the same position and seed give the same
/// result. NaN and infinity keep their kind.
#[inline(always)]
fn to_bf16_body(from: &[f32], first: u32, seed: u32, to: &mut [u16]) {
    for (i, (t, &f)) in to.iter_mut().zip(from).enumerate() {
        let bits = f.to_bits();
        let noise = hash(first.wrapping_add(i as u32), seed) & 0xffff;
        let finite = bits & 0x7f80_0000 != 0x7f80_0000;
        let rounded = if finite { bits.wrapping_add(noise) } else { bits };
        let nan = !finite && bits & 0x007f_ffff != 0;
        *t = (rounded >> 16) as u16 | if nan { 0x40 } else { 0 };
    }
}

#[inline(always)]
fn clamp_body(x: &[f32], bound: f32, to: &mut [f32]) {
    for (t, &x) in to.iter_mut().zip(x) {
        // Written so that NaN stays NaN.
        *t = if x > bound {
            bound
        } else if x < -bound {
            -bound
        } else {
            x
        };
    }
}

multiversion!(
    /// bfloat16 bits to f32.
    from_bf16 = from_bf16_body, (from: &[u16], to: &mut [f32]));
multiversion!(
    /// f32 to bfloat16 bits, rounded stochastically by a hash of position and seed.
    to_bf16 = to_bf16_body, (from: &[f32], first: u32, seed: u32, to: &mut [u16]));
multiversion!(
    /// to ← x clamped to [−bound, bound].
    clamp = clamp_body, (x: &[f32], bound: f32, to: &mut [f32]));

/// IEEE half bits to f32.
pub(crate) fn from_f16(from: &[half::f16], to: &mut [f32]) {
    from.convert_to_f32_slice(to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::kernel::simd::builds_here;

    #[test]
    fn stochastic_rounding_is_unbiased_and_equal_across_builds() {
        let x = 1.0 + 1.0 / 512.0; // a quarter of the way between two bfloat16 values
        let from = vec![x; 40_000];
        let mut all = Vec::new();
        for build in builds_here() {
            let mut to = vec![0u16; from.len()];
            to_bf16(build, &from, 5, 99, &mut to);
            let mut back = vec![0.0; from.len()];
            from_bf16(build, &to, &mut back);
            let mean = back.iter().map(|&x| f64::from(x)).sum::<f64>() / back.len() as f64;
            assert!((mean - f64::from(x)).abs() < 5e-5, "{mean}");
            all.push(to);
        }
        assert!(all.iter().all(|t| *t == all[0]));
    }

    #[test]
    fn special_values_keep_their_kind() {
        for build in builds_here() {
            let from = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, f32::MAX];
            let mut to = [0u16; 5];
            to_bf16(build, &from, 0, 7, &mut to);
            let mut back = [0.0; 5];
            from_bf16(build, &to, &mut back);
            assert!(back[0].is_nan() && back[3] == 0.0);
            assert_eq!((back[1], back[2]), (f32::INFINITY, f32::NEG_INFINITY));
            let mut clamped = [0.0; 5];
            clamp(build, &from, 2.0, &mut clamped);
            assert!(clamped[0].is_nan());
            assert_eq!(clamped[1..], [2.0, -2.0, 0.0, 2.0]);
        }
    }
}
