//! Curves of any length as the few points that a screen can show.
//!
//! A short curve stays as it is. Of a longer one the range of x is cut into equal parts, and of
//! each the mean, the least and the greatest value are kept, so that no peak is lost. Of several
//! runs each part has the mean over the runs and the range of their means.

/// A part of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub x: f64,
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

/// A curve for a plot.
#[derive(Clone, Debug, Default)]
pub(super) struct Curve {
    pub points: Vec<Point>,
    /// Points of the runs, those that are not finite included.
    pub n_values: usize,
    /// Values that are not finite and are left out.
    pub n_not_finite: usize,
    /// The least and the greatest x.
    pub ends: Option<(f64, f64)>,
    /// The number of runs.
    pub n_runs: usize,
    /// Whether points stand for more than one value of a run.
    pub is_thinned: bool,
}

impl Curve {
    /// The curve of one run or of several, in at most `n` points.
    pub(super) fn new(runs: &[&[(f64, f64)]], n: usize) -> Self {
        let is_good = |p: &&(f64, f64)| p.0.is_finite() && p.1.is_finite();
        let all = || runs.iter().flat_map(|run| run.iter());
        let mut xs: Vec<f64> = all().filter(is_good).map(|p| p.0).collect();
        let (n_values, n_good) = (all().count(), xs.len());
        xs.sort_unstable_by(f64::total_cmp);
        xs.dedup();
        let mut this = Self {
            n_values,
            n_not_finite: n_values - n_good,
            n_runs: runs.iter().filter(|r| !r.is_empty()).count(),
            ..Self::default()
        };
        let (Some(&first), Some(&last)) = (xs.first(), xs.last()) else { return this };
        this.ends = Some((first, last));
        let is_exact = xs.len() <= n.max(4) / 2;
        // Parts of some steps each: a line through every step of a noisy curve hides the others.
        let n = (xs.len() / 4).clamp(n.max(4) / 4, n.max(4));
        let parts = if is_exact { xs.len() } else { n };
        let part = |x: f64| {
            if is_exact {
                return xs.partition_point(|&other| other < x);
            }
            (((x - first) / (last - first) * n as f64) as usize).min(n - 1)
        };
        let mut sums = vec![Sum::default(); parts];
        let mut one = vec![Sum::default(); parts];
        for run in runs {
            one.fill(Sum::default());
            run.iter().filter(is_good).for_each(|&(x, y)| one[part(x)].add(x, y, y, y));
            this.is_thinned |= one.iter().any(|s| s.n > 1.0);
            for (into, of) in sums.iter_mut().zip(&one).filter(|(_, s)| s.n > 0.0) {
                let (x, y) = (of.x / of.n, of.y / of.n);
                // Of one run the range of its values, of several that of the runs' means.
                let (low, high) = if this.n_runs > 1 { (y, y) } else { (of.low, of.high) };
                into.add(x, y, low, high);
            }
        }
        this.points = sums.iter().filter(|s| s.n > 0.0).map(Sum::point).collect();
        this
    }

    /// The least and the greatest value with its band.
    pub(super) fn range(&self) -> Option<(f64, f64)> {
        let low = self.points.iter().map(|p| p.low).min_by(f64::total_cmp)?;
        Some((low, self.points.iter().map(|p| p.high).max_by(f64::total_cmp)?))
    }
}

#[derive(Clone, Copy, Default)]
struct Sum {
    n: f64,
    x: f64,
    y: f64,
    low: f64,
    high: f64,
}

impl Sum {
    fn add(&mut self, x: f64, y: f64, low: f64, high: f64) {
        self.low = if self.n == 0.0 { low } else { self.low.min(low) };
        self.high = if self.n == 0.0 { high } else { self.high.max(high) };
        (self.n, self.x, self.y) = (self.n + 1.0, self.x + x, self.y + y);
    }

    fn point(&self) -> Point {
        let (low, high) = (self.low, self.high);
        // The mean may leave the range by a rounding.
        Point { x: self.x / self.n, mean: (self.y / self.n).clamp(low, high), low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_survive() {
        let mut values: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        values[4321].1 = 50.0;
        values[777].1 = -3.0;
        values[5].1 = f64::NAN;
        let curve = Curve::new(&[&values], 300);
        assert!(curve.points.len() == 300 && curve.is_thinned);
        assert_eq!(curve.range(), Some((-3.0, 50.0)));
        assert_eq!((curve.n_values, curve.n_not_finite), (10_000, 1));
        assert!(curve.points.windows(2).all(|w| w[0].x < w[1].x));
    }

    #[test]
    fn few_points_stay_as_they_are() {
        let curve = Curve::new(&[&[(1.0, 2.0), (3.0, 5.0)]], 300);
        let point = |x, y| Point { x, mean: y, low: y, high: y };
        assert_eq!(curve.points, [point(1.0, 2.0), point(3.0, 5.0)]);
        assert!(!curve.is_thinned);
        assert!(Curve::new(&[&[]], 10).points.is_empty());
        assert!(Curve::new(&[&[(1.0, f64::INFINITY)]], 10).range().is_none());
    }

    #[test]
    fn seeds_have_a_mean_and_a_band() {
        let runs: [&[(f64, f64)]; 3] =
            [&[(1.0, 1.0), (2.0, 4.0)], &[(1.0, 2.0), (2.0, 4.0)], &[(1.0, 6.0)]];
        let curve = Curve::new(&runs, 300);
        assert_eq!(curve.points[0], Point { x: 1.0, mean: 3.0, low: 1.0, high: 6.0 });
        assert_eq!(curve.points[1], Point { x: 2.0, mean: 4.0, low: 4.0, high: 4.0 });
        assert_eq!(curve.n_runs, 3);
    }
}
