//! The loops of the kernels over slices, each written once and built for several instruction
//! sets. Nothing is contracted or reassociated by the compiler, and sums run over 16 fixed lanes,
//! so every build gives the same bits.

use super::attention::rows::{Known, Rows, slopes as slopes_body, softmax as softmax_body};
use super::dropout::masked as masked_body;

/// Lanes of a sum.
pub(super) const LANES: usize = 16;

/// Declares `name`, which runs `body` in the widest build that this processor has.
macro_rules! builds {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),*) $(-> $out:ty)? = $body:ident) => {
        $(#[$doc])*
        #[allow(clippy::too_many_arguments)]
        pub(super) fn $name($($arg: $ty),*) $(-> $out)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $ty),*) $(-> $out)? {
                    $body($($arg),*)
                }
                #[target_feature(enable = "avx2")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $out)? {
                    $body($($arg),*)
                }
                match isa() {
                    // SAFETY: the processor has these instructions.
                    Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    Isa::Base => {}
                }
            }
            $body($($arg),*)
        }
    };
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Debug)]
enum Isa {
    Avx512,
    Avx2,
    Base,
}

#[cfg(target_arch = "x86_64")]
fn isa() -> Isa {
    #[cfg(test)]
    if let Some(isa) = FORCED.with(std::cell::Cell::get) {
        return isa;
    }
    let wide = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw");
    if wide {
        Isa::Avx512
    } else if is_x86_feature_detected!("avx2") {
        Isa::Avx2
    } else {
        Isa::Base
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
thread_local! {
    /// The build that tests of this thread use.
    static FORCED: std::cell::Cell<Option<Isa>> = const { std::cell::Cell::new(None) };
}

/// e^x to about one unit in the last place; 0 below -87.3, where f32 leaves its normal range, and
/// infinite above 88.3. NaN stays NaN. Range reduction by powers of two and the polynomial of the
/// Cephes library (expf).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer
    let bounded = if x > 88.3 { 88.3 } else { x };
    let bounded = if bounded < -87.3 { -87.3 } else { bounded };
    let shifted = bounded * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = bounded - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * (r * r) + r + 1.0;
    let power = (shifted.to_bits() << 23).wrapping_add(0x3f80_0000);
    let y = p * f32::from_bits(power);
    let y = if x < -87.3 { 0.0 } else { y };
    if x > 88.3 { f32::INFINITY } else { y }
}

/// Sum of the lanes in a fixed tree.
#[inline(always)]
pub(super) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Φ(x), the normal distribution, and e^(-x²/2).
///
/// Φ(-|x|) = e^(-x²/2) · t · Q(t) with t = 1 / (1 + 0.3 |x|). Q, of degree 9, was fitted here to a
/// relative error of 3.4e-9 on |x| ≤ 14, so both tails keep their relative precision.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let e = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.3 * x.abs());
    let q = -0.020_612_913;
    let q = q * t + 0.112_376_23;
    let q = q * t - 0.228_068_55;
    let q = q * t + 0.191_583_06;
    let q = q * t - 0.079_248_45;
    let q = q * t + 0.096_058_41;
    let q = q * t + 0.078_425_387;
    let q = q * t + 0.110_227_36;
    let q = q * t + 0.119_572_84;
    let q = q * t + 0.119_686_63;
    let tail = e * t * q;
    (if x > 0.0 { 1.0 - tail } else { tail }, e)
}

#[inline(always)]
fn gelu_body(y: &mut [f32], x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x * normal(x).0;
    }
}
builds! {
    /// x · Φ(x): `y`, `x` of equal length.
    fn gelu(y: &mut [f32], x: &[f32]) = gelu_body
}

builds! {
    /// Dropout: `x` · `scale` where the mask of the positions from `first` on is at least `least`,
    /// else 0; `y`, `x` of equal length.
    fn masked(y: &mut [f32], x: &[f32], first: u64, least: u32, scale: f32) = masked_body
}

/// dy · (Φ(x) + x φ(x)), φ the density of Φ.
#[inline(always)]
fn gelu_grad_body(dx: &mut [f32], dy: &[f32], x: &[f32]) {
    for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
        let (cdf, e) = normal(x);
        *dx = dy * (cdf + x * (e * 0.398_942_3));
    }
}
builds! {
    /// Gradient of x · Φ(x): `dx`, `dy`, `x` of equal length.
    fn gelu_grad(dx: &mut [f32], dy: &[f32], x: &[f32]) = gelu_grad_body
}

/// x / (1 + e^(-2u)), u = √(2/π) (x + 0.044715 x³).
#[inline(always)]
fn gelu_tanh_body(y: &mut [f32], x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        let u = TANH_C * (x + TANH_A * (x * x) * x);
        *y = x / (1.0 + exp(-2.0 * u));
    }
}
builds! {
    /// GELU's tanh form: `y`, `x` of equal length.
    fn gelu_tanh(y: &mut [f32], x: &[f32]) = gelu_tanh_body
}

/// √(2/π) and the weight of the cube in GELU's tanh form.
const TANH_C: f32 = 0.797_884_6;
const TANH_A: f32 = 0.044_715;

/// With u = √(2/π) (x + 0.044715 x³) and s = 1 / (1 + e^(-2u)), x · s is the tanh form of GELU:
/// dx = dy · (s + x · 2 s (1 - s) · u').
#[inline(always)]
fn gelu_tanh_grad_body(dx: &mut [f32], dy: &[f32], x: &[f32]) {
    for ((dx, &dy), &x) in dx.iter_mut().zip(dy).zip(x) {
        let x2 = x * x;
        let u = TANH_C * (x + TANH_A * x2 * x);
        let slope = TANH_C * (1.0 + 3.0 * TANH_A * x2);
        let s = 1.0 / (1.0 + exp(-2.0 * u));
        // Far from zero s (1 - s) is 0, and must not meet an infinite slope.
        let fall = s * (1.0 - s);
        let bump = if fall == 0.0 { 0.0 } else { x * slope * fall };
        *dx = dy * (s + 2.0 * bump);
    }
}
builds! {
    /// Gradient of GELU's tanh form: `dx`, `dy`, `x` of equal length.
    fn gelu_tanh_grad(dx: &mut [f32], dy: &[f32], x: &[f32]) = gelu_tanh_grad_body
}

#[inline(always)]
fn dot_body(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] += a * b;
    }
    total(lanes)
}

builds! {
    /// Σ a · b of equal lengths.
    fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
}

builds! {
    /// Rows of an attention's scores become probabilities after dropout; gives the largest score
    /// of each row, and 1 / Σ e^(score − max).
    fn attention_softmax(scores: &mut [f32], of: Rows, max: &mut [f32], inverse: &mut [f32])
        = softmax_body
}

builds! {
    /// Its gradient: `scores` become probabilities after dropout, and `slopes`, the gradients of
    /// what follows dropout, become the scores' gradients.
    fn attention_slopes(scores: &mut [f32], slopes: &mut [f32], of: Rows, known: Known)
        = slopes_body
}

/// dx = y · (dy - Σ dy · y)
#[inline(always)]
fn softmax_grad_body(dx: &mut [f32], dy: &[f32], y: &[f32], width: usize) {
    let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(y.chunks_exact(width));
    for ((dx, dy), y) in rows {
        let sum = dot_body(dy, y);
        for ((dx, &dy), &y) in dx.iter_mut().zip(dy).zip(y) {
            *dx = y * (dy - sum);
        }
    }
}
builds! {
    /// Gradient of softmax over rows of `width` > 0, from its output `y`.
    fn softmax_grad(dx: &mut [f32], dy: &[f32], y: &[f32], width: usize) = softmax_grad_body
}

/// x̂ = (x - mean) · inv, g = dy · gamma:
/// dx = inv · (g - mean(g) - x̂ · mean(g · x̂)), dgamma += dy · x̂, dbeta += dy.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn layer_norm_grad_body(
    dx: &mut [f32],
    dgamma: &mut [f32],
    dbeta: &mut [f32],
    dy: &[f32],
    x: &[f32],
    gamma: &[f32],
    mean: &[f32],
    inv: &[f32],
) {
    let width = gamma.len();
    let scale = 1.0 / width as f32;
    let rows = dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(x.chunks_exact(width));
    for (((dx, dy), x), (&mean, &inv)) in rows.zip(mean.iter().zip(inv)) {
        let (sum, sum_x) = layer_norm_sums(dy, x, gamma, mean, inv);
        let (sum, sum_x) = (sum * scale, sum_x * scale);
        let sums = dgamma.iter_mut().zip(dbeta.iter_mut());
        let values = dy.iter().zip(x).zip(gamma);
        for ((dx, ((&dy, &x), &gamma)), (dgamma, dbeta)) in dx.iter_mut().zip(values).zip(sums) {
            let x_hat = (x - mean) * inv;
            *dx = inv * (dy * gamma - sum - x_hat * sum_x);
            *dgamma += dy * x_hat;
            *dbeta += dy;
        }
    }
}
builds! {
    /// Gradient of layer normalisation over rows as long as `gamma`; adds to `dgamma`, `dbeta`.
    fn layer_norm_grad(dx: &mut [f32], dgamma: &mut [f32], dbeta: &mut [f32], dy: &[f32],
        x: &[f32], gamma: &[f32], mean: &[f32], inv: &[f32]) = layer_norm_grad_body
}

/// Σ g and Σ g · x̂ of one row.
#[inline(always)]
fn layer_norm_sums(dy: &[f32], x: &[f32], gamma: &[f32], mean: f32, inv: f32) -> (f32, f32) {
    let (mut sum, mut sum_x) = ([0f32; LANES], [0f32; LANES]);
    let mut add = |i: usize, dy: f32, x: f32, gamma: f32| {
        let g = dy * gamma;
        sum[i] += g;
        sum_x[i] += g * ((x - mean) * inv);
    };
    let (dy, dy_rest) = dy.as_chunks::<LANES>();
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (gamma, gamma_rest) = gamma.as_chunks::<LANES>();
    for ((dy, x), gamma) in dy.iter().zip(x).zip(gamma) {
        for i in 0..LANES {
            add(i, dy[i], x[i], gamma[i]);
        }
    }
    for (i, ((dy, x), gamma)) in dy_rest.iter().zip(x_rest).zip(gamma_rest).enumerate() {
        add(i, *dy, *x, *gamma);
    }
    (total(sum), total(sum_x))
}

/// The largest number, NaN apart; of none -∞.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = if x[i] > lanes[i] { x[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

/// ln Σ e^x without overflow, and Σ x. Lanes are folded into f64 every 2048 elements.
#[inline(always)]
fn log_sum_exp_body(x: &[f32]) -> (f32, f64) {
    let max = largest(x);
    // All -inf would give NaN below; the result is that of an empty sum.
    let base = if max == f32::NEG_INFINITY { 0.0 } else { max };
    let (mut sum, mut plain) = (0f64, 0f64);
    for block in x.chunks(2048) {
        let (mut exps, mut values) = ([0f32; LANES], [0f32; LANES]);
        let (chunks, rest) = block.as_chunks::<LANES>();
        for x in chunks {
            for i in 0..LANES {
                exps[i] += exp(x[i] - base);
                values[i] += x[i];
            }
        }
        for (i, &x) in rest.iter().enumerate() {
            exps[i] += exp(x - base);
            values[i] += x;
        }
        sum += f64::from(total(exps));
        plain += f64::from(total(values));
    }
    ((f64::from(base) + sum.ln()) as f32, plain)
}
builds! {
    /// ln Σ e^x, and Σ x.
    fn log_sum_exp(x: &[f32]) -> (f32, f64) = log_sum_exp_body
}

/// out = scale · (e^(x - lse) - shift)
#[inline(always)]
fn scaled_softmax_body(out: &mut [f32], x: &[f32], lse: f32, scale: f32, shift: f32) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = scale * (exp(x - lse) - shift);
    }
}
builds! {
    /// Softmax of `x`, whose ln Σ e^x is `lse`, less `shift`, times `scale`.
    fn scaled_softmax(out: &mut [f32], x: &[f32], lse: f32, scale: f32, shift: f32)
        = scaled_softmax_body
}

#[inline(always)]
fn add_body(into: &mut [f32], from: &[f32]) {
    for (into, from) in into.iter_mut().zip(from) {
        *into += from;
    }
}
builds! {
    /// `into` += `from`
    fn add(into: &mut [f32], from: &[f32]) = add_body
}

#[cfg(test)]
#[path = "math_tests.rs"]
mod tests;
