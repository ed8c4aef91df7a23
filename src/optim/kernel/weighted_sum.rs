//! Weighted sums and averages over cache-sized tiles.

use crate::optim::kernel::simd::multiversion;

/// Most members of a group whose gradients mix by a full matrix.
pub(crate) const MAX_MATRIX_MEMBERS: usize = 128;
/// Elements of each member that are mixed at once.
const STRIP: usize = 64;

#[inline(always)]
fn axpy_body(out: &mut [f32], w: f32, x: &[f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o += w * x;
    }
}

#[inline(always)]
fn scaled_copy_body(out: &mut [f32], w: f32, x: &[f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = w * x;
    }
}

/// The first elements of `to` ← `from`; a whole strip without a call.
#[inline(always)]
fn copy(to: &mut [f32], from: &[f32]) {
    match (to.first_chunk_mut::<STRIP>(), from.first_chunk::<STRIP>()) {
        (Some(to), Some(from)) => *to = *from,
        _ => to[..from.len()].copy_from_slice(from),
    }
}

/// sᵢ ← Σⱼ Mᵢⱼ sⱼ for `k` tiles of `stride` elements, `len` of each in use.
#[inline(always)]
fn mix_by_matrix_body(tiles: &mut [f32], k: usize, stride: usize, len: usize, matrix: &[f32]) {
    let mut old = [[0.0f32; STRIP]; MAX_MATRIX_MEMBERS];
    for at in (0..len).step_by(STRIP) {
        let n = STRIP.min(len - at);
        for (j, old) in old.iter_mut().take(k).enumerate() {
            copy(old, &tiles[j * stride + at..][..n]);
        }
        for i in 0..k {
            let mut sum = [0.0f32; STRIP];
            for (j, old) in old.iter().take(k).enumerate() {
                let w = matrix[i * k + j];
                for e in 0..STRIP {
                    sum[e] += w * old[e];
                }
            }
            copy(&mut tiles[i * stride + at..][..n], &sum[..n]);
        }
    }
}

multiversion!(
    /// out ← out + w·x.
    axpy = axpy_body, (out: &mut [f32], w: f32, x: &[f32]));
multiversion!(
    /// out ← w·x.
    scaled_copy = scaled_copy_body, (out: &mut [f32], w: f32, x: &[f32]));
multiversion!(
    /// sᵢ ← Σⱼ Mᵢⱼ sⱼ over `k` tiles, `stride` elements apart, `len` elements each.
    mix_by_matrix = mix_by_matrix_body,
    (tiles: &mut [f32], k: usize, stride: usize, len: usize, matrix: &[f32]));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::kernel::simd::builds_here;

    #[test]
    fn dense_mixing_is_a_matrix_product() {
        for build in builds_here() {
            let (k, stride, len) = (3, 200, 150);
            let mut tiles: Vec<f32> = (0..k * stride).map(|i| (i % 7) as f32).collect();
            let before = tiles.clone();
            let matrix = [1.0, 2.0, 0.0, 0.5, 0.5, 0.0, -1.0, 0.0, 1.0];
            mix_by_matrix(build, &mut tiles, k, stride, len, &matrix);
            for e in 0..stride {
                for i in 0..k {
                    let sum: f32 = (0..k).map(|j| matrix[i * k + j] * before[j * stride + e]).sum();
                    let expected = if e < len { sum } else { before[i * stride + e] };
                    assert_eq!(tiles[i * stride + e], expected);
                }
            }
        }
    }
}
