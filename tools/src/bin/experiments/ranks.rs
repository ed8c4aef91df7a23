//! The tables of docs/ranks.md, from the runs that scripts/ranks_accuracy.sh appends to a file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::page::{score, shown};
use crate::run::MODELS;
use crate::statistics::{Curve, Mean};
use crate::{Result, Settings, lines};

/// Ways of training, and what they are called.
const WAYS: [(&str, &str); 4] = [
    ("sum", "summed gradients"),
    ("diloco", "DiLoCo"),
    ("diloco_few", "DiLoCo for few meetings"),
    ("local_sgd", "local SGD"),
];

/// Scores in percent by seed.
type Scores = BTreeMap<u64, f64>;

/// Prints accuracy on both splits after the last epoch, and what each way gains over the first.
pub fn report(settings: &Settings) -> Result<()> {
    let runs = lines::read(&settings.runs)?;
    for (split, is_held_in) in [("evaluation", false), ("validation", true)] {
        println!("\nAccuracy on the {split} split, percent: mean ± 95% (seeds), paired gains\n");
        println!("{}", heading());
        let each: Vec<Vec<Scores>> = MODELS
            .iter()
            .map(|m| WAYS.iter().map(|(way, _)| scores(&runs, way, m, is_held_in)).collect())
            .collect();
        for (model, ways) in MODELS.iter().zip(&each) {
            println!("| {model} |{}", cells(ways));
        }
        let means: Vec<Scores> = (0..WAYS.len()).map(|way| mean_of_models(&each, way)).collect();
        println!("| mean |{}", cells(&means));
    }
    Ok(())
}

fn heading() -> String {
    let (first, others) = (WAYS[0].1, &WAYS[1..]);
    let names: String = others.iter().map(|(_, name)| format!(" {name} | gain |")).collect();
    format!("| model | {first} |{names}\n|---|---|{}", "---|---|".repeat(others.len()))
}

fn scores(runs: &[Value], way: &str, model: &str, is_held_in: bool) -> Scores {
    let of = |run: &Value| {
        let curve = Curve::of(&json!({ "records": run["result"]["epochs"] }), model)?;
        let (held_in, evaluation) = curve.last();
        Some((run["seed"].as_u64()?, 100.0 * if is_held_in { held_in } else { evaluation? }))
    };
    runs.iter().filter(|run| run["arm"] == way).filter_map(of).collect()
}

/// Of the seeds that all models have.
fn mean_of_models(each: &[Vec<Scores>], way: usize) -> Scores {
    let n = each.len() as f64;
    let of = |seed: &u64| {
        let all: Option<Vec<f64>> = each.iter().map(|ways| ways[way].get(seed).copied()).collect();
        Some((*seed, all?.iter().sum::<f64>() / n))
    };
    each[0][way].keys().filter_map(of).collect()
}

fn cells(ways: &[Scores]) -> String {
    let of = |own: &Scores| {
        if own.is_empty() {
            return " – ".to_owned();
        }
        format!(" {} ", score(Mean::of(&own.values().copied().collect::<Vec<_>>())))
    };
    let gain = |own: &Scores| {
        let pairs = own.iter().filter_map(|(seed, x)| Some(x - ways[0].get(seed)?));
        let gains: Vec<f64> = pairs.collect();
        if gains.is_empty() { " – ".to_owned() } else { format!(" {} ", shown(Mean::of(&gains))) }
    };
    let others: String = ways[1..].iter().map(|w| format!("{}|{}|", of(w), gain(w))).collect();
    format!("{}|{others}", of(&ways[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arm: &str, seed: u64, accuracy: f64) -> Value {
        let model = json!({ "score": accuracy - 0.1, "test_score": accuracy });
        let epoch = json!({ "epoch": 1, "step": 5, "processor_seconds": 1,
                            "bert": model, "gpt2": model, "roberta": model });
        json!({ "arm": arm, "seed": seed, "result": { "epochs": [epoch] } })
    }

    #[test]
    fn gains_are_paired_by_seed() {
        // The third seed has no partner yet.
        let runs = [
            run("sum", 1, 0.5),
            run("sum", 2, 0.7),
            run("diloco", 2, 0.71),
            run("diloco", 1, 0.52),
            run("diloco", 3, 0.1),
        ];
        let ways: Vec<Scores> =
            WAYS.iter().map(|(way, _)| scores(&runs, way, "gpt2", false)).collect();
        let text = cells(&ways);
        assert!(text.starts_with(" 60.00 ± ") && text.contains("| +1.50 ± 6.35 (2) |"), "{text}");
        assert!(text.ends_with("| – | – |"), "{text}");
        assert!((scores(&runs, "sum", "bert", true)[&1] - 40.0).abs() < 1e-9);
        let each = vec![ways.clone(), ways];
        assert_eq!(mean_of_models(&each, 1).len(), 3);
    }
}
