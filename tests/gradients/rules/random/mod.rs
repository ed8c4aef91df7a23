//! Random attributes and shapes for every operator with a rule or a rewrite: gradients against
//! differences, in f64 where the runtime has the kernel.

mod image;
mod layers;
mod plain;

use std::collections::BTreeMap;

use super::case::{Case, Random};
use super::{Verdict, Version, check_on};
use crate::runtime;
use mmopt::autodiff::{Entry, rows};
use mmopt::error::Kind;

/// Draws a case of an operator.
type Draw = fn(&'static str, &mut Random) -> Case;

/// What draws cases of each operator.
fn draws() -> impl Iterator<Item = (&'static str, Draw)> {
    let families = [plain::DRAWS, layers::DRAWS, image::DRAWS].into_iter().flatten();
    families.flat_map(|(ops, draw)| ops.iter().map(|op| (*op, *draw)))
}

impl Random {
    /// An integer from 0 to n - 1.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n - 1)
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// True about as often as said.
    pub fn flag(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    /// A number of two digits.
    pub fn number(&mut self, low: f32, high: f32) -> f32 {
        ((low + (high - low) * self.unit() as f32) * 100.0).round() / 100.0
    }

    /// A shape of `ranks` dimensions of one to four.
    pub fn shape(&mut self, (low, high): (usize, usize)) -> Vec<usize> {
        let rank = low + self.below(high - low + 1);
        (0..rank).map(|_| 1 + self.below(4)).collect()
    }

    /// An axis of a tensor, from either end.
    pub fn axis(&mut self, rank: usize) -> i64 {
        self.between(-(rank as i64), rank as i64 - 1)
    }

    /// Some axes, each once.
    pub fn axes(&mut self, rank: usize) -> Vec<i64> {
        let mut axes: Vec<i64> = (0..rank as i64).filter(|_| self.flag(0.5)).collect();
        for axis in &mut axes {
            if self.flag(0.4) {
                *axis -= rank as i64;
            }
        }
        axes
    }

    /// Indices into an axis of `size`.
    pub fn indices(&mut self, n: usize, size: usize) -> Vec<i64> {
        (0..n).map(|_| self.axis(size)).collect()
    }
}

/// A shape that broadcasts with `shape`.
fn narrower(shape: &[usize], r: &mut Random) -> Vec<usize> {
    let skip = r.below(shape.len() + 1);
    shape[skip..].iter().map(|&d| if r.flag(0.3) { 1 } else { d }).collect()
}

/// Draws that may meet a kink, which differences do not see, before one counts as failed.
const TRIES: u64 = 3;

/// Case `i` of all; what it was, and why it failed.
fn run(i: u64, op: &'static str, draw: Draw, version: Version) -> Result<bool, String> {
    let mut r = Random::new(i + 1);
    // The first draws of a small generator are alike.
    for _ in 0..8 {
        r.unit();
    }
    let case = draw(op, &mut r).fine();
    let mut failure = String::new();
    for seed in 0..TRIES {
        match check_on(&case.clone().seed(3 + seed), version) {
            Ok(Verdict::Good(_)) => return Ok(true),
            Ok(Verdict::Skipped(_)) => return Ok(false),
            Err(e) if e.kind() == Kind::Unsupported => return Ok(false),
            Err(e) => failure = format!("case {i}: {case}: {e}"),
        }
    }
    Err(failure)
}

/// `MMOPT_RANDOM_CASES` tells how many, `MMOPT_RANDOM_FIRST` which is the first.
#[test]
fn random_attributes() {
    if !runtime() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let (n, first) = (number("MMOPT_RANDOM_CASES"), number("MMOPT_RANDOM_FIRST").unwrap_or(0));
    let (n, all) = (n.unwrap_or(500), draws().collect::<Vec<_>>());
    let version = mmopt::runtime::load(None).unwrap().version();
    let (mut failures, mut refused) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for i in first..first + n {
        let (op, draw) = all[i as usize % all.len()];
        match run(i, op, draw, version) {
            Ok(true) => {}
            Ok(false) => *refused.entry(op).or_default() += 1,
            Err(e) => failures.push(e),
        }
    }
    let n_refused: usize = refused.values().sum();
    eprintln!(
        "random attributes: {n} cases of {} operators, {} wrong, {n_refused} refused {refused:?}",
        all.len(),
        failures.len()
    );
    assert!(failures.is_empty(), "{} wrong:\n{}", failures.len(), failures.join("\n"));
    assert!((n_refused as u64) * 10 < n, "{n_refused} of {n} were refused");
}

/// Rules with forms of their own, checked elsewhere.
const ELSEWHERE: &[&str] = &["FusedAttention", "CrossEntropy", "GeluTanh"];

#[test]
fn every_rule_is_drawn() {
    let drawn: Vec<&str> = draws().map(|(op, _)| op).collect();
    let rules = rows().filter(|r| matches!(r.entry, Entry::Rule(_))).map(|r| r.op);
    let missing: Vec<_> =
        rules.filter(|op| !drawn.contains(op) && !ELSEWHERE.contains(op)).collect();
    assert!(missing.is_empty(), "rules without random cases: {missing:?}");
}
