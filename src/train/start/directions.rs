//! Principal directions of the rows of a table.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};

/// Rows that a product takes at once.
const CHUNK: usize = 4096;

/// Enough for every matrix: convergence is quadratic in the end.
const MAX_SWEEPS: usize = 60;

/// The mean of all rows.
pub(super) fn mean_row(rows: &ArrayView2<f64>) -> Array1<f64> {
    rows.mean_axis(Axis(0)).unwrap_or_else(|| Array1::zeros(rows.ncols()))
}

/// The `k` directions in which the rows vary most, as columns `[d, k]`: eigenvectors of
/// Σ (x − μ)(x − μ)ᵀ by falling eigenvalue. The component of greatest size is positive, the first
/// of equal ones; directions in which nothing varies are zero.
pub(super) fn principal_directions(rows: &ArrayView2<f64>, k: usize) -> Array2<f64> {
    let d = rows.ncols();
    let mean = mean_row(rows);
    let mut covariance = Array2::<f64>::zeros((d, d));
    for chunk in rows.axis_chunks_iter(Axis(0), CHUNK) {
        let centred = &chunk - &mean;
        covariance += &centred.t().dot(&centred);
    }
    let (values, vectors) = eigen(covariance);
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let mut directions = Array2::zeros((d, k));
    for (column, &i) in order.iter().take(k).enumerate() {
        let vector = vectors.row(i);
        let largest = vector.iter().fold(0.0f64, |m, &x| if x.abs() > m.abs() { x } else { m });
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        directions.slice_mut(s![.., column]).assign(&(&vector * sign));
    }
    directions
}

/// Eigenvalues and eigenvectors (as rows) of a symmetric matrix without negative eigenvalues.
///
/// One-sided Jacobi rotations (Hestenes 1958): rows are rotated in pairs until all are orthogonal.
/// They are then λᵢ vᵢ, for the product of all rotations diagonalises A².
fn eigen(mut a: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let n = a.nrows();
    let data = a.as_slice_mut().unwrap_or_default();
    for _ in 0..MAX_SWEEPS {
        let mut is_done = true;
        for p in 0..n {
            for q in p + 1..n {
                let (head, tail) = data.split_at_mut(q * n);
                is_done &= !rotate(&mut head[p * n..(p + 1) * n], &mut tail[..n]);
            }
        }
        if is_done {
            break;
        }
    }
    let norms: Vec<f64> = data.chunks(n.max(1)).map(|row| dot(row, row).sqrt()).collect();
    let largest = norms.iter().fold(0.0f64, |m, &x| m.max(x));
    for (row, &norm) in data.chunks_mut(n.max(1)).zip(&norms) {
        let is_zero = norm <= largest * n as f64 * f64::EPSILON;
        row.iter_mut().for_each(|x| *x = if is_zero { 0.0 } else { *x / norm });
    }
    (norms, a)
}

/// Makes two rows orthogonal; false if they were.
fn rotate(x: &mut [f64], y: &mut [f64]) -> bool {
    let (xx, yy, xy) = (dot(x, x), dot(y, y), dot(x, y));
    if xy.abs() <= f64::EPSILON * 4.0 * (xx * yy).sqrt() {
        return false;
    }
    // tan 2θ = 2 x·y / (x·x − y·y), the smaller of both angles.
    let zeta = (yy - xx) / (2.0 * xy);
    let t = zeta.signum() / (zeta.abs() + zeta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = c * t;
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
    true
}

/// In eight partial sums, whose order does not depend on the processor.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0f64; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(a, b)| a * b).sum();
    for (x, y) in xs.zip(ys) {
        for ((sum, a), b) in sums.iter_mut().zip(x).zip(y) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr2;

    #[test]
    fn directions_of_a_small_table() {
        // Variance 8 along (3, 4)/5, 2 along (4, -3)/5, none along the third axis.
        let (u, v) = ([0.6, 0.8, 0.0], [0.8, -0.6, 0.0]);
        let row = |a: f64, b: f64| [0, 1, 2].map(|i| 5.0 + a * u[i] + b * v[i]);
        let rows = arr2(&[row(2.0, 1.0), row(-2.0, 1.0), row(2.0, -1.0), row(-2.0, -1.0)]);
        let found = principal_directions(&rows.view(), 3);
        let expected = [[0.6, 0.8, 0.0], [0.8, -0.6, 0.0], [0.0, 0.0, 0.0]];
        for (column, wanted) in expected.iter().enumerate() {
            for (i, want) in wanted.iter().enumerate() {
                assert!((found[[i, column]] - want).abs() < 1e-12, "{found}");
            }
        }
    }

    #[test]
    fn eigenvectors_solve_their_equation() {
        let n = 37;
        let b = Array2::from_shape_fn((n, n), |(i, j)| ((i * 31 + j * 17) % 23) as f64 - 11.0);
        let a = b.t().dot(&b);
        let (values, vectors) = eigen(a.clone());
        let scale = values.iter().fold(0.0f64, |m, &x| m.max(x));
        for (i, &value) in values.iter().enumerate() {
            let v = vectors.row(i);
            let residual = a.dot(&v) - &(&v * value);
            assert!(residual.iter().all(|r| r.abs() < 1e-11 * scale), "{i}: {residual}");
        }
    }
}
