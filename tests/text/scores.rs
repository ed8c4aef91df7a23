//! Scores against scikit-learn, seqeval, SQuAD's evaluation script and Hugging Face's search for
//! answers: the numbers of tests/data/scores/reference.py.
#![cfg(feature = "text")]
#![allow(clippy::unwrap_used, clippy::panic)]

use mmopt::text::AnswerContext;
use mmopt::text::metrics::*;
use serde_json::Value;

fn reference(part: &str) -> Value {
    let all: Value = serde_json::from_str(include_str!("../data/scores/reference.json")).unwrap();
    all[part].clone()
}

fn of<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn same(got: f64, wanted: f64) {
    assert!((got - wanted).abs() < 1e-12, "{got} is not {wanted}");
}

#[test]
fn classes_as_scikit_learn() {
    let r = reference("classes");
    let (predictions, labels): (Vec<i64>, Vec<i64>) = (of(&r["predictions"]), of(&r["labels"]));
    let s = class_scores(&predictions, &labels, 6).unwrap();
    same(s.accuracy, of(&r["accuracy"]));
    same(s.macro_f1, of(&r["macro_f1"]));
    assert_eq!(s.confusion, of::<Vec<Vec<usize>>>(&r["confusion"]));
    for (class, score) in s.by_class.iter().enumerate() {
        same(score.precision, of(&r["precision"][class]));
        same(score.recall, of(&r["recall"][class]));
        same(score.f1, of(&r["f1"][class]));
    }
}

#[test]
fn entities_as_seqeval_lenient_and_strict() {
    for scheme in ["iob2", "iobes"] {
        let r = reference(scheme);
        let tags = |name: &str| of::<Vec<Vec<String>>>(&r[name]);
        let (predictions, labels) = (tags("predictions"), tags("labels"));
        for (mode, name) in [(EntityMode::Lenient, "lenient"), (EntityMode::Strict, "strict")] {
            let s = entity_scores_in(mode, &predictions, &labels).unwrap();
            let check = |score: &Score, row: &str| {
                let got = [score.precision, score.recall, score.f1, score.support as f64];
                let wanted: [f64; 4] = of(&r[name][row]);
                got.into_iter().zip(wanted).for_each(|(g, w)| same(g, w));
            };
            check(&s.overall, "micro avg");
            assert_eq!(s.by_type.len(), 2);
            s.by_type.iter().for_each(|(entity_type, score)| check(score, entity_type));
        }
    }
}

#[test]
fn answers_as_squad() {
    let r = reference("answers");
    let (predictions, accepted): (Vec<String>, Vec<Vec<String>>) =
        (of(&r["predictions"]), of(&r["accepted"]));
    let s = answer_scores(&predictions, &accepted).unwrap();
    same(s.exact_match, of(&r["exact_match"]));
    same(s.f1, of(&r["f1"]));
}

#[test]
fn answers_are_normalized_as_squad() {
    for (text, wanted) in of::<Vec<(String, String)>>(&reference("normalized")) {
        assert_eq!(normalize_answer(&text), wanted, "{text:?}");
    }
}

#[test]
fn numbers_as_scipy() {
    let r = reference("numbers");
    let s = regression_scores(&of::<Vec<f64>>(&r["predictions"]), &of::<Vec<f64>>(&r["labels"]));
    let s = s.unwrap();
    same(s.mse, of(&r["mse"]));
    same(s.pearson, of(&r["pearson"]));
    same(s.spearman, of(&r["spearman"]));
}

#[test]
fn best_answers_as_hugging_face() {
    for window in reference("windows").as_array().unwrap() {
        let offsets: Vec<(usize, usize)> = of(&window["offsets"]);
        let text = "abc ".repeat(offsets.len());
        let context = AnswerContext { text: text.into(), offsets };
        let logits = |name: &str| of::<Vec<f32>>(&window[name]);
        let number = |name: &str| of::<usize>(&window[name]);
        let (n_best, longest) = (number("n_best"), number("longest"));
        let found =
            context.best_answers(&logits("starts"), &logits("ends"), n_best, longest).unwrap();
        let found: Vec<_> = found.iter().map(|a| (a.score, a.start, a.end)).collect();
        assert_eq!(found, of::<Vec<(f32, usize, usize)>>(&window["best"]));
    }
}
