//! Fresh parameters: each name has a random stream of its own, so neither the order of
//! parameters nor the number of threads matters, and only operations that IEEE 754 fixes to the
//! last bit are used, so every platform draws the same values.

use bytes::Bytes;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::error::{Context, Result};
use crate::memory::filled;
use crate::onnx::TensorData;
use crate::tensor::{DType, element_count};
use crate::threads::for_each;

/// How a fresh parameter is filled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between minus this bound and the bound.
    Uniform(f64),
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
}

/// Elements that one stream position covers.
const CHUNK: usize = 1 << 16;

struct FloatBytes(Vec<f32>);

impl AsRef<[u8]> for FloatBytes {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Fresh f32 values for the parameter `name`, uniform in [-`bound`, `bound`): those of that name
/// and seed, whatever else is drawn.
///
/// # Errors
/// `OutOfMemory`; `Shape` for a shape of more elements than there can be.
pub fn uniform(seed: u64, name: &str, shape: &[usize], bound: f64) -> Result<TensorData> {
    fresh(seed, name, shape, Init::Uniform(bound), None)
}

/// The fresh f32 parameter `name`; row `padding_row` of it is zero.
pub(super) fn fresh(
    seed: u64,
    name: &str,
    shape: &[usize],
    init: Init,
    padding_row: Option<usize>,
) -> Result<TensorData> {
    let n = element_count(shape)?;
    let mut values = filled(n, if init == Init::Ones { 1.0 } else { 0.0 })
        .context(|| format!("parameter '{name}' of shape {shape:?}"))?;
    if matches!(init, Init::Normal(_) | Init::Uniform(_)) {
        let key = key(seed, name);
        let fill = |(i, chunk): (usize, &mut [f32])| {
            let mut rng = ChaCha8Rng::from_seed(key);
            rng.set_stream(i as u64);
            match init {
                Init::Normal(std) => fill_normal(&mut rng, std, chunk),
                Init::Uniform(bound) => fill_uniform(&mut rng, bound, chunk),
                Init::Zeros | Init::Ones => {}
            }
        };
        let mut chunks = values.chunks_mut(CHUNK).enumerate();
        match n {
            0..=CHUNK => chunks.for_each(fill),
            _ => for_each(&mut chunks, fill)?,
        }
    }
    if let Some(row) = padding_row {
        let width = n / shape[0].max(1);
        values[row * width..(row + 1) * width].fill(0.0);
    }
    TensorData::new(DType::F32, shape, Bytes::from_owner(FloatBytes(values)))
}

/// A stream's key: the seed, then two FNV-1a hashes of the name.
fn key(seed: u64, name: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&fnv(0xcbf2_9ce4_8422_2325, name).to_le_bytes());
    key[16..24].copy_from_slice(&fnv(0x6c62_272e_07bb_0142, name).to_le_bytes());
    key
}

fn fnv(basis: u64, text: &str) -> u64 {
    text.bytes().fold(basis, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// A seed for the stream number `index` of a model: 31 bits, never 0.
pub(super) fn derived_seed(seed: u64, index: u64) -> i64 {
    let mut rng = ChaCha8Rng::from_seed(key(seed, "dropout"));
    rng.set_stream(index);
    i64::from(rng.next_u32() >> 1).max(1)
}

/// Marsaglia's polar method (1964): a point in the unit disc gives two independent values.
fn fill_normal(rng: &mut ChaCha8Rng, std: f64, values: &mut [f32]) {
    for pair in values.chunks_mut(2) {
        let (u, v, s) = loop {
            let (u, v) = (symmetric(rng.next_u64()), symmetric(rng.next_u64()));
            let s = u * u + v * v;
            if s > 0.0 && s < 1.0 {
                break (u, v, s);
            }
        };
        let r = std * (-2.0 * ln(s) / s).sqrt();
        for (value, draw) in pair.iter_mut().zip([u, v]) {
            *value = (r * draw) as f32;
        }
    }
}

fn fill_uniform(rng: &mut ChaCha8Rng, bound: f64, values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = (bound * symmetric(rng.next_u64())) as f32);
}

/// 53 random bits as a number in [-1, 1).
fn symmetric(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 52) as f64) - 1.0
}

/// Natural logarithm of a normal positive number: `2 atanh((m-1)/(m+1)) + e ln 2` with
/// m in [√½, √2]. The platform's own differs in its last bit from one system to the next.
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut e = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits(bits & ((1 << 52) - 1) | 1023 << 52);
    if m > std::f64::consts::SQRT_2 {
        m *= 0.5;
        e += 1;
    }
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = (0..11).rev().fold(0.0, |sum, k| sum * z + 1.0 / f64::from(2 * k + 1));
    2.0 * s * series + e as f64 * std::f64::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(seed: u64, name: &str, shape: &[usize], pad: Option<usize>) -> Vec<f64> {
        fresh(seed, name, shape, Init::Normal(0.02), pad).unwrap().to_f64s().unwrap()
    }

    #[test]
    fn logarithm_is_exact_to_rounding() {
        for i in 1..10_000 {
            let x = f64::from(i) / 10_000.0 * 1.01;
            assert!((ln(x) - x.ln()).abs() <= 4e-16 * x.ln().abs().max(1.0), "{x}");
        }
    }

    #[test]
    fn moments_are_those_of_the_normal() {
        let n = 200_000.0;
        let x = draw(7, "w", &[400, 500], None);
        let mean = |p: i32| x.iter().map(|v| (v / 0.02).powi(p)).sum::<f64>() / n;
        for (power, expected, tolerance) in [(1, 0.0, 0.01), (2, 1.0, 0.015), (4, 3.0, 0.1)] {
            assert!((mean(power) - expected).abs() < tolerance, "{power}: {}", mean(power));
        }
        assert!(mean(3).abs() < 0.03);
        assert!(x.iter().zip(&x[1..]).map(|(a, b)| a * b / 4e-4).sum::<f64>().abs() / n < 0.01);
    }

    #[test]
    fn uniform_values_fill_their_range() {
        let x = uniform(3, "w", &[400, 500], 0.5).unwrap().to_f64s().unwrap();
        assert!(x.iter().all(|v| (-0.5..=0.5).contains(v)));
        let mean = |p: i32| x.iter().map(|v| v.powi(p)).sum::<f64>() / 200_000.0;
        assert!(mean(1).abs() < 2e-3, "{}", mean(1));
        // The variance of a uniform variable: a third of the bound's square.
        assert!((mean(2) * 12.0 - 1.0).abs() < 0.01, "{}", mean(2));
        assert!(x.iter().any(|v| *v > 0.499) && x.iter().any(|v| *v < -0.499));
    }

    #[test]
    fn streams_depend_on_seed_and_name_alone() {
        let x = draw(7, "w", &[300, 500], Some(2));
        assert_eq!(x, draw(7, "w", &[300, 500], Some(2)));
        assert_ne!(x[..8], draw(8, "w", &[300, 500], None)[..8]);
        assert_ne!(x[..8], draw(7, "v", &[300, 500], None)[..8]);
        assert!(x[1000..1500].iter().all(|&v| v == 0.0));
        assert!(x[1500..].iter().filter(|&&v| v == 0.0).count() < 3);
    }

    /// The expected bits come from a separate implementation in Python of cipher, hash and method.
    #[test]
    fn bits_are_pinned() {
        let x = fresh(1, "w", &[4], Init::Normal(1.0), None).unwrap();
        let bits: Vec<_> =
            x.bytes().as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        assert_eq!(bits, [1_072_634_810, 3_198_736_099, 3_199_273_742, 1_053_237_634]);
    }
}
