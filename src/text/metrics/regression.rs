//! Scores of predicted numbers.

use crate::error::{Error, Result};
use crate::text::metrics::counts::same_length;

/// Scores of predicted numbers against the right ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RegressionScores {
    /// Mean of the squared differences.
    pub mse: f64,
    /// Pearson's correlation, -1 to 1; NaN where either side is constant, or for fewer than 2.
    pub pearson: f64,
    /// Spearman's: Pearson's correlation of the ranks, equal numbers sharing their mean rank.
    pub spearman: f64,
}

/// Predicted numbers against the right ones.
///
/// Errors: the lengths differ, there are none, or a number is not finite.
pub fn regression_scores(predictions: &[f64], labels: &[f64]) -> Result<RegressionScores> {
    same_length(predictions.len(), labels.len())?;
    if predictions.is_empty() {
        return Err(Error::invalid("no numbers to score"));
    }
    for (what, numbers) in [("predictions", predictions), ("labels", labels)] {
        if let Some(i) = numbers.iter().position(|x| !x.is_finite()) {
            return Err(Error::invalid(format!("{what}[{i}] is {}", numbers[i])));
        }
    }
    let squares = predictions.iter().zip(labels).map(|(p, l)| (p - l) * (p - l));
    Ok(RegressionScores {
        mse: squares.sum::<f64>() / predictions.len() as f64,
        pearson: pearson(predictions, labels),
        spearman: pearson(&ranks(predictions), &ranks(labels)),
    })
}

/// r = Σ (x - mean x) (y - mean y) / sqrt(Σ (x - mean x)² Σ (y - mean y)²)
fn pearson(x: &[f64], y: &[f64]) -> f64 {
    let centred = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|v| v - mean).collect::<Vec<f64>>()
    };
    let (x, y) = (centred(x), centred(y));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norms = dot(&x, &x).sqrt() * dot(&y, &y).sqrt();
    if norms > 0.0 { (dot(&x, &y) / norms).clamp(-1.0, 1.0) } else { f64::NAN }
}

/// Ranks from 1; equal numbers share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    // By value: 0 and -0 are equal.
    for same in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = first as f64 + (same.len() as f64 + 1.0) / 2.0;
        same.iter().for_each(|&i| ranks[i] = mean);
        first += same.len();
    }
    ranks
}

/// exp of the mean loss of a token: e to the sum of `losses[i] * n_tokens[i]` over the sum of
/// `n_tokens`, of batches with the mean losses `losses`.
///
/// Errors: the lengths differ, a loss is not a number, or there are no tokens.
pub fn perplexity(losses: &[f64], n_tokens: &[u64]) -> Result<f64> {
    same_length(losses.len(), n_tokens.len())?;
    if let Some(i) = losses.iter().position(|loss| loss.is_nan()) {
        return Err(Error::invalid(format!("losses[{i}] is not a number")));
    }
    let total: f64 = n_tokens.iter().map(|&n| n as f64).sum();
    if total == 0.0 {
        return Err(Error::invalid("there are no tokens"));
    }
    // A batch without tokens says nothing, whatever its loss.
    let counted = losses.iter().zip(n_tokens).filter(|(_, n)| **n > 0);
    let sum: f64 = counted.map(|(loss, &n)| loss * n as f64).sum();
    Ok((sum / total).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_by_hand() {
        let s = regression_scores(&[1.0, 2.0, 2.0, 4.0], &[1.0, 3.0, 2.0, 4.0]).unwrap();
        assert_eq!(s.mse, 0.25);
        assert_eq!(ranks(&[1.0, 2.0, 2.0, 4.0, 0.0]), [2.0, 3.5, 3.5, 5.0, 1.0]);
        let flat = regression_scores(&[1.0, 1.0], &[1.0, 3.0]).unwrap();
        assert!(flat.pearson.is_nan() && flat.spearman.is_nan() && flat.mse == 2.0);
        let turned = regression_scores(&[3.0, 1.0], &[1.0, 3.0]).unwrap();
        assert!((turned.pearson + 1.0).abs() < 1e-12 && (turned.spearman + 1.0).abs() < 1e-12);
        assert!(regression_scores(&[], &[]).is_err());
        assert!(regression_scores(&[1.0], &[]).is_err());
        assert!(regression_scores(&[f64::NAN], &[1.0]).is_err());
    }

    #[test]
    fn perplexity_weighs_by_tokens() {
        let two = perplexity(&[1.0, 4.0, f64::INFINITY], &[2, 1, 0]).unwrap();
        assert!((two - 2f64.exp()).abs() < 1e-12);
        assert!(perplexity(&[1.0], &[0]).is_err());
        assert!(perplexity(&[f64::NAN], &[1]).is_err());
        assert!(perplexity(&[1.0], &[]).is_err());
    }
}
