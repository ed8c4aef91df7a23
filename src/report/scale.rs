//! Scales: from values to positions on an axis, and the ticks of the axis.

use super::markup::number;

/// How values are spread over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    Linear,
    /// By the logarithm; for positive values.
    Log,
}

/// Maps values from `low` to `high` to positions from `start` to `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    spread: Spread,
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// `low` and `high` may be equal or not finite: the scale is then made wide enough.
    pub(super) fn new(spread: Spread, values: (f64, f64), places: (f64, f64)) -> Self {
        let (mut low, mut high) = values;
        if !(low.is_finite() && high.is_finite()) {
            (low, high) = if spread == Spread::Log { (1.0, 10.0) } else { (0.0, 1.0) };
        }
        if spread == Spread::Log {
            low = low.max(f64::MIN_POSITIVE);
            if high <= low {
                (low, high) = (low / 2.0, low * 2.0);
            }
        } else if high <= low {
            let half = (low.abs() * 0.05).max(1e-12);
            (low, high) = (low - half, low + half);
        }
        Self { spread, low, high, start: places.0, end: places.1 }
    }

    /// As `new`, with `low` and `high` moved out to the next tick where that is near.
    pub(super) fn rounded(spread: Spread, values: (f64, f64), places: (f64, f64)) -> Self {
        let mut this = Self::new(spread, values, places);
        if spread == Spread::Linear {
            let step = nice_step((this.high - this.low) / 5.0);
            this.low = (this.low / step + 1e-9).floor() * step;
            this.high = (this.high / step - 1e-9).ceil() * step;
        } else {
            let room = (this.high / this.low).powf(0.04);
            (this.low, this.high) = (this.low / room, this.high * room);
        }
        this
    }

    /// The position of a value; outside the axis for a value outside.
    pub(super) fn at(&self, value: f64) -> f64 {
        let part = match self.spread {
            Spread::Linear => (value - self.low) / (self.high - self.low),
            Spread::Log => {
                let value = value.max(f64::MIN_POSITIVE);
                (value / self.low).ln() / (self.high / self.low).ln()
            }
        };
        self.start + part * (self.end - self.start)
    }

    /// About `n` ticks: values and their labels.
    pub(super) fn ticks(&self, n: usize) -> Vec<(f64, String)> {
        match self.spread {
            Spread::Linear => self.linear_ticks(n),
            Spread::Log => self.log_ticks(n),
        }
    }

    fn linear_ticks(&self, n: usize) -> Vec<(f64, String)> {
        let step = nice_step((self.high - self.low) / n.max(1) as f64);
        let first = (self.low / step - 1e-9).ceil();
        let last = (self.high / step + 1e-9).floor();
        let count = (last - first).clamp(0.0, 50.0) as usize;
        let largest = self.low.abs().max(self.high.abs());
        (0..=count)
            .map(|i| (first + i as f64) * step)
            .map(|value| (value, label(value, step, largest)))
            .collect()
    }

    fn log_ticks(&self, n: usize) -> Vec<(f64, String)> {
        let decades = (self.high / self.low).log10();
        if decades < 0.7 {
            return self.linear_ticks(n.min(4)).into_iter().filter(|t| t.0 > 0.0).collect();
        }
        let marks: &[f64] = match decades {
            d if d < 1.5 => &[1.0, 2.0, 5.0],
            d if d < 2.5 => &[1.0, 3.0],
            _ => &[1.0],
        };
        let every = (decades / n.max(1) as f64).ceil().max(1.0) as i32;
        let first = self.low.log10().floor() as i32;
        let last = self.high.log10().ceil() as i32;
        (first..=last)
            .filter(|e| e.rem_euclid(every) == 0)
            .flat_map(|e| marks.iter().map(move |m| m * 10f64.powi(e)))
            .filter(|v| (self.low * (1.0 - 1e-9)..=self.high * (1.0 + 1e-9)).contains(v))
            .map(|v| (v, number(v, 1)))
            .collect()
    }
}

/// 1, 2 or 5 times a power of ten, at least about `rough`.
fn nice_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.max(f64::MIN_POSITIVE).log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|f| rough <= f * power * 1.001);
    factor.unwrap_or(10.0) * power
}

/// A tick's label: all of an axis with as many decimals as its step needs; `2k` for 2000.
fn label(value: f64, step: f64, largest: f64) -> String {
    let value = if value.abs() < step * 1e-6 { 0.0 } else { value };
    if value == 0.0 {
        return "0".to_owned();
    }
    for (unit, name) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if largest >= unit * 2.0 && step >= unit / 10.0 {
            return number(value / unit, 5) + name;
        }
    }
    if !(1e-3..1e9).contains(&largest) {
        return number(value, 3);
    }
    let decimals = (-(step.log10() + 1e-9).floor()).max(0.0) as usize;
    format!("{value:.decimals$}").replace('-', "−")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(spread: Spread, low: f64, high: f64, n: usize) -> Vec<String> {
        Scale::new(spread, (low, high), (0.0, 100.0)).ticks(n).into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(Spread::Linear, 0.0, 1.0, 5), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        let steps = ["0", "2k", "4k", "6k", "8k", "10k"];
        assert_eq!(labels(Spread::Linear, 0.0, 10_000.0, 5), steps);
        assert_eq!(labels(Spread::Linear, -0.3, 0.3, 3), ["−0.2", "0", "0.2"]);
        assert_eq!(labels(Spread::Log, 1e-4, 1.0, 5), ["0.0001", "0.001", "0.01", "0.1", "1"]);
        assert_eq!(labels(Spread::Log, 1.0, 10.0, 5), ["1", "2", "5", "10"]);
        assert_eq!(labels(Spread::Linear, 0.0, 5e-4, 5)[1], "0.0001");
    }

    #[test]
    fn positions_are_in_order_and_finite() {
        let scale = Scale::new(Spread::Log, (1.0, 100.0), (10.0, 30.0));
        assert!((scale.at(10.0) - 20.0).abs() < 1e-9);
        for (low, high) in [(3.0, 3.0), (f64::NAN, 1.0), (0.0, 0.0), (1.0, f64::INFINITY)] {
            for spread in [Spread::Linear, Spread::Log] {
                let scale = Scale::rounded(spread, (low, high), (0.0, 100.0));
                assert!(scale.at(1.0).is_finite(), "{spread:?} {low} {high}");
                let ticks = scale.ticks(5);
                assert!(ticks.len() < 60 && ticks.iter().all(|t| t.0.is_finite()));
            }
        }
        let scale = Scale::rounded(Spread::Linear, (0.13, 0.87), (0.0, 1.0));
        assert!(scale.at(0.13) >= 0.0 && scale.at(0.87) <= 1.0);
    }
}
