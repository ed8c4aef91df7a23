//! A picture of distances: points in the plane whose distances come as near as possible to given
//! ones, and their trajectories over time.
//!
//! Classical multidimensional scaling (Torgerson 1952): with D the matrix of distances, n its
//! size and J = 1 − 11ᵀ/n, the points are the two leading eigenvectors of −½ J D² J, each times
//! the root of its eigenvalue. The picture is determined up to a rotation and a reflection; each
//! one is turned to come nearest to the one before it (orthogonal Procrustes).

/// `n` points in the plane.
pub(super) type Points = Vec<[f64; 2]>;

/// The most points; more have no readable picture.
pub(super) const MOST: usize = 32;

/// Points for an `n` by `n` matrix of distances; `None` if it is empty, too large, not square or
/// not finite.
pub(super) fn classical(distances: &[Vec<f64>]) -> Option<Points> {
    let n = distances.len();
    let is_good = |row: &Vec<f64>| row.len() == n && row.iter().all(|d| d.is_finite());
    if n == 0 || n > MOST || !distances.iter().all(is_good) {
        return None;
    }
    // Both halves count, should they differ.
    let square = |i: usize, j: usize| {
        if i == j { 0.0 } else { ((distances[i][j] + distances[j][i]) / 2.0).powi(2) }
    };
    let row_mean = |i: usize| (0..n).map(|j| square(i, j)).sum::<f64>() / n as f64;
    let means: Vec<f64> = (0..n).map(row_mean).collect();
    let mean = means.iter().sum::<f64>() / n as f64;
    let centred = |i: usize, j: usize| -0.5 * (square(i, j) - means[i] - means[j] + mean);
    let matrix = (0..n).map(|i| (0..n).map(|j| centred(i, j)).collect()).collect();
    let mut pairs = eigen(matrix);
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let axis = |k: usize, i: usize| pairs.get(k).map_or(0.0, |p| p.1[i] * p.0.max(0.0).sqrt());
    Some((0..n).map(|i| [axis(0, i), axis(1, i)]).collect())
}

/// Eigenvalues and eigenvectors of a symmetric matrix, by Jacobi's rotations.
fn eigen(mut a: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    let n = a.len();
    let unit = |i: usize| (0..n).map(|j| f64::from(u8::from(i == j))).collect();
    let mut vectors: Vec<Vec<f64>> = (0..n).map(unit).collect();
    let size: f64 = a.iter().flatten().map(|v| v * v).sum();
    for _ in 0..60 {
        let beside: f64 =
            (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i][j].powi(2)).sum();
        if beside <= 1e-28 * size {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p][q] == 0.0 {
                    continue;
                }
                let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
                let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
                let t = if theta == 0.0 { 1.0 } else { t };
                let c = 1.0 / t.hypot(1.0);
                let s = t * c;
                for row in &mut a {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                for rows in [&mut a, &mut vectors] {
                    let (before, after) = rows.split_at_mut(q);
                    for (x, y) in before[p].iter_mut().zip(after[0].iter_mut()) {
                        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                    }
                }
            }
        }
    }
    vectors.into_iter().enumerate().map(|(i, v)| (a[i][i], v)).collect()
}

/// `points` turned, and mirrored if that helps, to come nearest to `onto`. Both are centred.
pub(super) fn turned(points: &Points, onto: &Points) -> Points {
    // Of the 2 x 2 matrix Σ onto·pointsᵀ, what a rotation and what a mirrored one can reach.
    let mut m = [[0.0f64; 2]; 2];
    for (p, o) in points.iter().zip(onto) {
        (0..2).for_each(|i| (0..2).for_each(|j| m[i][j] += o[i] * p[j]));
    }
    let (c, s) = (m[0][0] + m[1][1], m[1][0] - m[0][1]);
    let (mirrored_c, mirrored_s) = (m[0][0] - m[1][1], m[1][0] + m[0][1]);
    let is_mirrored = mirrored_c.hypot(mirrored_s) > c.hypot(s) * (1.0 + 1e-9);
    let (c, s) = if is_mirrored { (mirrored_c, mirrored_s) } else { (c, s) };
    let length = c.hypot(s);
    if length == 0.0 {
        return points.clone();
    }
    let (c, s) = (c / length, s / length);
    let turn = |&[x, y]: &[f64; 2]| {
        let y = if is_mirrored { -y } else { y };
        [c * x - s * y, s * x + c * y]
    };
    points.iter().map(turn).collect()
}

/// The trajectories of the points over a row of distance matrices, each with its time. Matrices
/// without points are left out, as are those of another size than the first.
pub(super) fn trajectories(times: &[(f64, Vec<Vec<f64>>)]) -> Vec<(f64, Points)> {
    let mut trajectories: Vec<(f64, Points)> = Vec::new();
    for (time, distances) in times {
        let Some(points) = classical(distances) else { continue };
        let Some((_, before)) = trajectories.last() else {
            trajectories.push((*time, points));
            continue;
        };
        if before.len() == points.len() {
            let points = turned(&points, before);
            trajectories.push((*time, points));
        }
    }
    trajectories
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distances(points: &[[f64; 2]]) -> Vec<Vec<f64>> {
        let distance = |a: &[f64; 2], b: &[f64; 2]| (a[0] - b[0]).hypot(a[1] - b[1]);
        points.iter().map(|a| points.iter().map(|b| distance(a, b)).collect()).collect()
    }

    #[test]
    fn points_of_the_plane_are_found_again() {
        let wanted = distances(&[[0.0, 0.0], [3.0, 0.0], [0.0, 4.0], [-2.0, -1.5], [7.0, 1.0]]);
        let found = distances(&classical(&wanted).unwrap());
        for (a, b) in wanted.iter().flatten().zip(found.iter().flatten()) {
            assert!((a - b).abs() < 1e-9, "{a} {b}");
        }
    }

    #[test]
    fn odd_matrices_do_no_harm() {
        assert!(classical(&[]).is_none());
        assert!(classical(&[vec![0.0, 1.0]]).is_none());
        assert!(classical(&[vec![0.0, f64::NAN], vec![f64::NAN, 0.0]]).is_none());
        assert_eq!(classical(&[vec![0.0]]), Some(vec![[0.0, 0.0]]));
        assert_eq!(classical(&vec![vec![0.0; 3]; 3]), Some(vec![[0.0, 0.0]; 3]));
        // Two models lie on a line.
        let two = classical(&[vec![0.0, 2.0], vec![2.0, 0.0]]).unwrap();
        assert!((two[0][0] - two[1][0]).abs() - 2.0 < 1e-12 && two[0][1].abs() < 1e-9);
        // No triangle has such sides; it is still finite.
        let broken = [vec![0.0, 1.0, 9.0], vec![1.0, 0.0, 1.0], vec![9.0, 1.0, 0.0]];
        assert!(classical(&broken).unwrap().iter().flatten().all(|v| v.is_finite()));
    }

    #[test]
    fn pictures_follow_each_other() {
        let at = |t: f64| [[t, 0.1], [-1.0, 0.4 * t], [0.3, -1.0 - t]];
        let times: Vec<_> = (0..40).map(|i| f64::from(i) * 0.05).collect();
        let matrices: Vec<_> = times.iter().map(|&t| (t, distances(&at(t)))).collect();
        let trajectories = trajectories(&matrices);
        assert_eq!(trajectories.len(), 40);
        for pair in trajectories.windows(2) {
            for (a, b) in pair[0].1.iter().zip(&pair[1].1) {
                assert!((a[0] - b[0]).hypot(a[1] - b[1]) < 0.15, "{a:?} {b:?}");
            }
        }
    }
}
