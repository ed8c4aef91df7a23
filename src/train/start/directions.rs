//! Principal directions of the rows of a table.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};

/// Rows that a product takes at once.
const CHUNK: usize = 4096;

/// Steps for each eigenvalue; two are usual.
const MAX_STEPS: usize = 50;

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
    let smallest = order.first().map_or(0.0, |&i| values[i] * d as f64 * f64::EPSILON);
    let varies = order.iter().filter(|&&i| values[i] > smallest);
    let mut directions = Array2::zeros((d, k));
    for (column, &i) in varies.take(k).enumerate() {
        let vector = vectors.row(i);
        let largest = vector.iter().fold(0.0f64, |m, &x| if x.abs() > m.abs() { x } else { m });
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        directions.slice_mut(s![.., column]).assign(&(&vector * sign));
    }
    directions
}

/// Eigenvalues of a symmetric matrix, and all its eigenvectors as rows: Householder's
/// tridiagonalisation, then implicit QR steps with Wilkinson's shift (Golub and Van Loan 2013,
/// sections 8.3.1 and 8.3.5).
fn eigen(mut a: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let n = a.nrows();
    let (mut diagonal, mut beside, reflectors) =
        tridiagonal(a.as_slice_mut().unwrap_or_default(), n);
    let mut vectors = Array2::<f64>::eye(n);
    if let Some(vectors) = vectors.as_slice_mut() {
        diagonalise(&mut diagonal, &mut beside, vectors);
        for vector in vectors.chunks_mut(n.max(1)) {
            for (k, v) in reflectors.iter().enumerate().rev() {
                reflect(v, &mut vector[k + 1..]);
            }
        }
    }
    (diagonal, vectors)
}

/// x − 2 v (v·x)
fn reflect(v: &[f64], x: &mut [f64]) {
    let twice = 2.0 * dot(v, x);
    x.iter_mut().zip(v).for_each(|(x, v)| *x -= twice * v);
}

/// The diagonal of the similar tridiagonal matrix, the elements beside it, and the reflectors; the
/// k-th acts on the elements after k.
fn tridiagonal(a: &mut [f64], n: usize) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
    let mut beside = vec![0.0; n.saturating_sub(1)];
    let mut reflectors = Vec::new();
    for k in 0..n.saturating_sub(1) {
        let mut v = a[k * n + k + 1..(k + 1) * n].to_vec();
        let norm = dot(&v, &v).sqrt();
        beside[k] = if v[0] > 0.0 { -norm } else { norm };
        v[0] -= beside[k];
        let length = dot(&v, &v).sqrt();
        v.iter_mut().for_each(|x| *x = if length > 0.0 { *x / length } else { 0.0 });
        // A − 2 v wᵀ − 2 w vᵀ with w = A v − (v·A v) v, on what is left of A.
        let rows = |i: usize| (k + 1 + i) * n + k + 1..(k + 2 + i) * n;
        let mut w: Vec<f64> = (0..v.len()).map(|i| dot(&a[rows(i)], &v)).collect();
        let along = dot(&v, &w);
        w.iter_mut().zip(&v).for_each(|(w, v)| *w -= along * v);
        for i in 0..v.len() {
            let (vi, wi) = (2.0 * v[i], 2.0 * w[i]);
            let row = a[rows(i)].iter_mut();
            row.zip(v.iter().zip(&w)).for_each(|(x, (v, w))| *x -= vi * w + wi * v);
        }
        reflectors.push(v);
    }
    ((0..n).map(|i| a[i * n + i]).collect(), beside, reflectors)
}

/// Makes the elements beside the diagonal zero; rotates the rows of `vectors` with them.
fn diagonalise(d: &mut [f64], e: &mut [f64], vectors: &mut [f64]) {
    let n = d.len();
    let mut last = n.saturating_sub(1);
    for _ in 0..MAX_STEPS * n {
        let is_zero = |i: usize| e[i].abs() <= f64::EPSILON * (d[i].abs() + d[i + 1].abs());
        while last > 0 && is_zero(last - 1) {
            last -= 1;
        }
        if last == 0 {
            return;
        }
        let first = (0..last).rev().find(|&i| is_zero(i)).map_or(0, |i| i + 1);
        qr_step(&mut d[first..=last], &mut e[first..last], &mut vectors[first * n..], n);
    }
}

fn qr_step(d: &mut [f64], e: &mut [f64], vectors: &mut [f64], n: usize) {
    let last = d.len() - 1;
    let half = (d[last - 1] - d[last]) / 2.0;
    let end = e[last - 1];
    let shift = d[last] - end * end / (half + half.hypot(end).copysign(half));
    let (mut x, mut z) = (d[0] - shift, e[0]);
    for k in 0..last {
        let r = x.hypot(z);
        let (c, s) = if r > 0.0 { (x / r, z / r) } else { (1.0, 0.0) };
        if k > 0 {
            e[k - 1] = r;
        }
        let (a, b, f) = (d[k], d[k + 1], e[k]);
        d[k] = c * c * a + 2.0 * c * s * f + s * s * b;
        d[k + 1] = s * s * a - 2.0 * c * s * f + c * c * b;
        e[k] = c * s * (b - a) + (c * c - s * s) * f;
        if k + 1 < last {
            (x, z) = (e[k], s * e[k + 1]);
            e[k + 1] *= c;
        }
        let (upper, lower) = vectors[k * n..(k + 2) * n].split_at_mut(n);
        for (u, l) in upper.iter_mut().zip(lower) {
            (*u, *l) = (c * *u + s * *l, c * *l - s * *u);
        }
    }
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
            assert!(residual.iter().all(|r| r.abs() < 1e-13 * scale), "{i}: {residual}");
        }
        let unit = vectors.dot(&vectors.t()) - Array2::<f64>::eye(n);
        assert!(unit.iter().all(|x| x.abs() < 1e-13), "{unit}");
    }
}
