//! Mutual learning against an independent computation in f64 and against PyTorch: targets,
//! divergences and gradients of linear models; teachers' states; unlabelled rows; resuming.

pub mod linear;
mod online;
#[cfg(feature = "text")]
mod published;

use std::collections::BTreeMap;

use linear::{Linear, Targets, answers, classification, close, tokens};
use mmopt::autodiff::LossKind;
use mmopt::optim::{self, Mutual, Teacher, TeacherWeights};
use mmopt::tensor::Tensor;
use mmopt::train::{TrainResult, Trainer, TrainerOptions};
use mmopt::{Kind, Result};

fn copy(tensor: &Tensor) -> Tensor {
    tensor.copy().unwrap()
}

fn trainer(models: &[Linear], mutual: &Mutual, learning_rate: f64) -> Result<Trainer> {
    trainer_of_steps(models, mutual, learning_rate, 0)
}

fn trainer_of_steps(
    models: &[Linear],
    mutual: &Mutual,
    learning_rate: f64,
    total_steps: u64,
) -> Result<Trainer> {
    let optimizer = optim::Options {
        learning_rate,
        mutual: Some(mutual.clone()),
        n_threads: 1,
        total_steps,
        ..optim::Options::adamw()
    };
    let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
    Trainer::new(options, models.iter().map(Linear::options).collect())
}

fn pass(trainer: &mut Trainer, models: &[Linear]) -> Result<Vec<TrainResult>> {
    let views: Vec<_> = models.iter().map(Linear::views).collect();
    let batches: Vec<_> = views.iter().map(Vec::as_slice).collect();
    trainer.forward_backward_all(&batches)
}

fn gradient(trainer: &Trainer, model: usize) -> Vec<f64> {
    let gradient = trainer.gradient(model, "w").unwrap().unwrap();
    gradient.as_slice::<f32>().unwrap().iter().map(|&g| f64::from(g)).collect()
}

/// Loss, divergence and gradient of one model against the formula.
fn check(
    trainer: &Trainer,
    i: usize,
    found: &TrainResult,
    model: &Linear,
    targets: &Targets,
    t: f64,
) {
    let expected = model.expected(targets, t);
    let what = format!("model {i}");
    close(&[found.loss], &[expected.loss], 1e-5, &format!("{what}: loss"));
    close(&[found.mutual_loss], &[expected.mutual], 1e-5, &format!("{what}: divergence"));
    close(&gradient(trainer, i), &expected.gradient, 1e-5, &format!("{what}: gradient"));
}

/// The weighted mean of models' rows, and which rows it teaches.
fn mean_of(models: &[(&Linear, f64)], options: &Mutual, scale: f64, student: &Linear) -> Targets {
    let total: f64 = models.iter().map(|(_, w)| w).sum();
    let rows: Vec<_> = models.iter().map(|(m, w)| (m.softmax(options.temperature), w)).collect();
    let n_rows = student.logits().len();
    let row = |r: usize| {
        let classes = 0..student.classes;
        let mean: Vec<f64> =
            classes.map(|c| rows.iter().map(|(p, w)| *w * p[r][c]).sum::<f64>() / total).collect();
        let best = (0..mean.len()).max_by(|&a, &b| mean[a].total_cmp(&mean[b])).unwrap();
        let agrees = student.label(r).is_none_or(|label| label == best || !options.label_agreement);
        let sure = mean[best] >= options.confidence_threshold;
        (agrees && sure).then_some((mean, scale / n_rows as f64))
    };
    (0..n_rows).map(row).collect()
}

fn others(models: &[Linear], i: usize) -> Vec<(&Linear, f64)> {
    let all = models.iter().enumerate();
    all.filter(|(j, _)| *j != i).map(|(_, m)| (m, m.weight)).collect()
}

fn unweighted(mut models: Vec<(&Linear, f64)>) -> Vec<(&Linear, f64)> {
    models.iter_mut().for_each(|m| m.1 = 1.0);
    models
}

#[test]
fn peers_teach_each_other_with_every_knob() {
    let peers = Mutual { teacher: Teacher::Peers, weight: Some(0.7), ..Mutual::default() };
    let hot = Mutual { temperature: 2.0, ..peers.clone() };
    let sure = Mutual { confidence_threshold: 0.4, ..hot.clone() };
    let agreeing = Mutual { label_agreement: true, ..hot.clone() };
    let weighted = Mutual { teacher_weights: TeacherWeights::Model, ..sure.clone() };
    let by_self = Mutual { include_self: true, ..weighted.clone() };
    let models = classification();
    let mut n_taught = Vec::new();
    let online = |m: &Mutual| Mutual { teacher: Teacher::Online, ..m.clone() };
    let options = [peers, hot, sure, agreeing, weighted, by_self];
    for options in options.iter().cloned().chain(options.iter().map(online)) {
        let mut trainer = trainer(&models, &options, 0.1).unwrap();
        let found = pass(&mut trainer, &models).unwrap();
        for (i, model) in models.iter().enumerate() {
            let mut teachers = others(&models, i);
            teachers.extend(options.include_self.then_some((model, model.weight)));
            if options.teacher_weights == TeacherWeights::Equal {
                teachers = unweighted(teachers);
            }
            let targets = mean_of(&teachers, &options, 0.7, model);
            n_taught.push(targets.iter().flatten().count());
            check(&trainer, i, &found[i], model, &targets, options.temperature);
        }
    }
    assert_eq!(n_taught[..6], [6; 6]);
    assert_eq!(n_taught[..18], n_taught[18..]);
    assert!(n_taught[6..].iter().any(|&n| n < 6), "{n_taught:?}");
    assert!(n_taught[6..9] != n_taught[9..12], "{n_taught:?}");
}

#[test]
fn the_weight_ramps_up_with_the_steps() {
    let models = classification();
    // Steps in all, ramp_up_steps, ramp_up_fraction, and over how many steps that is.
    for (total_steps, ramp_up_steps, ramp_up_fraction, n) in
        [(0, 4, 0.0, 4.0), (8, 0, 0.5, 4.0), (5, 0, 0.5, 3.0), (0, 0, 0.5, 0.0), (8, 2, 0.5, 2.0)]
    {
        let options = Mutual {
            teacher: Teacher::Peers,
            ramp_up_steps,
            ramp_up_fraction,
            ..Mutual::default()
        };
        let mut trainer = trainer_of_steps(&models, &options, 0.0, total_steps).unwrap();
        let rises = match n as u64 {
            0 => "weight 1 from the first step, as total_steps is 0".to_owned(),
            n => format!("weight 1, which rises over the first {n} steps"),
        };
        assert!(trainer.mutual_text().contains(&rises), "{}", trainer.mutual_text());
        for step in 0..6 {
            let found = pass(&mut trainer, &models).unwrap();
            let rest = if f64::from(step) < n { 1.0 - f64::from(step) / n } else { 0.0 };
            let scale = (-5.0 * rest * rest).exp();
            let targets = mean_of(&unweighted(others(&models, 0)), &options, scale, &models[0]);
            check(&trainer, 0, &found[0], &models[0], &targets, 1.0);
            trainer.step().unwrap();
        }
    }
}

/// One of three predicts in each step, for both peers of each model: λ · 3 · ½ where it is not the
/// model itself, which over three steps is λ in the mean.
#[test]
fn teachers_take_turns() {
    for teacher in [Teacher::Peers, Teacher::MeanTeacher] {
        let options =
            Mutual { teacher, weight: Some(0.7), teachers_per_step: Some(1), ..Mutual::default() };
        let models = classification();
        let mut trainer = trainer(&models, &options, 0.0).unwrap();
        for step in 0..4 {
            let found = pass(&mut trainer, &models).unwrap();
            let j = step % 3;
            for (i, model) in models.iter().enumerate() {
                let targets = match i == j {
                    true => vec![None; 6],
                    false => mean_of(&[(&models[j], 1.0)], &options, 0.7 * 1.5, model),
                };
                check(&trainer, i, &found[i], model, &targets, 1.0);
            }
            trainer.step().unwrap();
        }
    }
}

/// In turn, another one first each time; the first of a step has no teacher.
#[test]
fn peers_before_teach_those_after() {
    let options = Mutual { temperature: 2.0, ..Mutual::default() };
    let models = classification();
    let mut trainer = trainer(&models, &options, 0.1).unwrap();
    for first in [0, 1, 2, 0] {
        let found = pass(&mut trainer, &models).unwrap();
        let order: Vec<usize> = (0..3).map(|k| (first + k) % 3).collect();
        for (place, &i) in order.iter().enumerate() {
            let before: Vec<_> = order[..place].iter().map(|&j| (&models[j], 1.0)).collect();
            let targets = match place {
                0 => vec![None; 6],
                _ => mean_of(&before, &options, 1.0, &models[i]),
            };
            check(&trainer, i, &found[i], &models[i], &targets, 2.0);
        }
    }
}

fn weights(trainer: &Trainer, i: usize) -> Vec<f32> {
    trainer.parameter(i, "w").unwrap().as_slice::<f32>().unwrap().to_vec()
}

#[test]
fn mean_teachers_follow_their_formula_and_teach() {
    let options = Mutual { teacher: Teacher::MeanTeacher, ema_decay: 0.3, ..Mutual::default() };
    let mut models = classification();
    let mut trainer = trainer(&models, &options, 0.1).unwrap();
    assert!(trainer.ema_parameter(0, "w").unwrap().is_none());
    let mut means = models.clone();
    let mut exact: Vec<Vec<f64>> =
        models.iter().map(|m| m.w.iter().map(|&w| f64::from(w)).collect()).collect();
    for t in 1..6 {
        let found = pass(&mut trainer, &models).unwrap();
        for i in 0..3 {
            let targets = mean_of(&unweighted(others(&means, i)), &options, 1.0, &models[i]);
            check(&trainer, i, &found[i], &models[i], &targets, 1.0);
        }
        trainer.step().unwrap();
        let d = f64::min(0.3, (1.0 + f64::from(t)) / (10.0 + f64::from(t)));
        for i in 0..3 {
            models[i].w = weights(&trainer, i);
            for (e, &w) in exact[i].iter_mut().zip(&models[i].w) {
                *e = d * *e + (1.0 - d) * f64::from(w);
            }
            let mean = trainer.ema_parameter(i, "w").unwrap().unwrap();
            means[i].w = mean.as_slice::<f32>().unwrap().to_vec();
            let found: Vec<f64> = means[i].w.iter().map(|&w| f64::from(w)).collect();
            close(&found, &exact[i], 1e-6, "mean weights");
        }
    }
    assert!(trainer.ema_parameter(0, "none").is_err());
}

#[test]
fn a_single_model_has_its_own_mean_teacher() {
    let options = Mutual { teacher: Teacher::MeanTeacher, ..Mutual::default() };
    let mut models = classification()[..1].to_vec();
    let mut trainer = trainer(&models, &options, 0.3).unwrap();
    let found = pass(&mut trainer, &models).unwrap();
    close(&[found[0].mutual_loss], &[0.0], 1e-6, "divergence from itself");
    trainer.step().unwrap();
    models[0].w = weights(&trainer, 0);
    let mut mean = models[0].clone();
    let found = pass(&mut trainer, &models).unwrap();
    mean.w = trainer.ema_parameter(0, "w").unwrap().unwrap().as_slice().unwrap().to_vec();
    let targets = mean_of(&[(&mean, 1.0)], &options, 1.0, &models[0]);
    check(&trainer, 0, &found[0], &models[0], &targets, 1.0);
    assert!(found[0].mutual_loss > 1e-6);
}

#[test]
fn the_memory_holds_decayed_means_over_models() {
    let options = Mutual {
        teacher: Teacher::Memory,
        memory_decay: 0.8,
        memory_examples: 8,
        ..Mutual::default()
    };
    let mut models = classification();
    let mut trainer = trainer(&models, &options, 0.1).unwrap();
    let (mut sums, mut n) = (vec![vec![0.0; 3]; 6], 0.0);
    for _ in 0..4 {
        let found = pass(&mut trainer, &models).unwrap();
        let targets: Targets = sums
            .iter()
            .map(|s| (n > 0.0).then(|| (s.iter().map(|s| s / n).collect(), 1.0 / 6.0)))
            .collect();
        (0..3).for_each(|i| check(&trainer, i, &found[i], &models[i], &targets, 1.0));
        let predictions: Vec<_> = models.iter().map(|m| m.softmax(1.0)).collect();
        for (r, sum) in sums.iter_mut().enumerate() {
            for (c, s) in sum.iter_mut().enumerate() {
                *s = 0.8 * *s + predictions.iter().map(|p| p[r][c]).sum::<f64>() / 3.0;
            }
        }
        n = 0.8 * n + 1.0;
        trainer.step().unwrap();
        (0..3).for_each(|i| models[i].w = weights(&trainer, i));
    }
    let mut fresh = models.clone();
    let ids: Vec<i64> = (100..106).collect();
    let ids = Tensor::from_slice(&[6], &ids).unwrap();
    fresh.iter_mut().for_each(|m| m.set("example_ids", Some(ids.copy().unwrap())));
    let full = pass(&mut trainer, &fresh).unwrap_err();
    assert!(full.kind() == Kind::State && full.message().contains("memory_examples"), "{full}");
    fresh[1].set("example_ids", None);
    let missing = pass(&mut trainer, &fresh).unwrap_err();
    assert!(missing.message().contains("'example_ids'"), "{missing}");
}

#[test]
fn a_frozen_model_only_teaches() {
    let options = Mutual { teacher: Teacher::Frozen, ..Mutual::default() };
    let mut models = classification();
    let refused = |models: &[Linear]| trainer(models, &options, 0.1).unwrap_err();
    assert!(refused(&models).message().contains("'frozen'"));
    models[1].frozen = true;
    let mut trainer = trainer(&models, &options, 0.1).unwrap();
    let found = pass(&mut trainer, &models).unwrap();
    for i in [0, 2] {
        let targets = mean_of(&[(&models[1], 1.0)], &options, 1.0, &models[i]);
        check(&trainer, i, &found[i], &models[i], &targets, 1.0);
    }
    let alone = models[1].expected(&vec![None; 6], 1.0);
    close(&[found[1].loss], &[alone.loss], 1e-5, "the teacher's loss");
    assert_eq!((found[1].mutual_loss, found[1].n_labels), (0.0, 4));
    trainer.step().unwrap();
    assert!(weights(&trainer, 1) == models[1].w && weights(&trainer, 0) != models[0].w);
    let one = trainer.forward_backward(1, &models[1].views()).unwrap_err();
    assert!(one.message().contains("no trainable parameter"), "{one}");
    models.iter_mut().for_each(|m| m.frozen = true);
    assert!(refused(&models).message().contains("no trainable parameter"));
}

/// Peers of every other kind of teacher learn from a frozen model too.
#[test]
fn a_frozen_model_teaches_beside_peers() {
    for teacher in [Teacher::PeersBefore, Teacher::Peers, Teacher::Online, Teacher::MeanTeacher] {
        let options = Mutual { teacher, ..Mutual::default() };
        let mut models = classification()[..2].to_vec();
        models[0].frozen = true;
        let mut trainer = trainer(&models, &options, 0.1).unwrap();
        let found = pass(&mut trainer, &models).unwrap();
        let targets = mean_of(&[(&models[0], 1.0)], &options, 1.0, &models[1]);
        check(&trainer, 1, &found[1], &models[1], &targets, 1.0);
    }
}

#[test]
fn batches_without_labels_teach_alone() {
    [Teacher::Peers, Teacher::Online].into_iter().for_each(unlabelled_batches_teach);
}

fn unlabelled_batches_teach(teacher: Teacher) {
    let options = Mutual { teacher, ..Mutual::default() };
    let mut models = classification();
    models.iter_mut().for_each(|m| m.set("labels", None));
    let mut trainer = trainer(&models, &options, 0.1).unwrap();
    let found = pass(&mut trainer, &models).unwrap();
    for (i, model) in models.iter().enumerate() {
        assert_eq!((found[i].loss, found[i].n_labels, found[i].n_correct), (0.0, 0, 0));
        let targets = mean_of(&unweighted(others(&models, i)), &options, 1.0, model);
        check(&trainer, i, &found[i], model, &targets, 1.0);
    }
    assert_eq!(trainer.step().unwrap().updated, 3);
    let e = trainer.forward_backward(0, &models[0].views()).unwrap_err();
    assert!(e.message().contains("'labels'"), "{e}");
}

/// The rates that follow the losses see none from a batch without labels.
#[test]
fn losses_over_no_label_move_no_rate() {
    let rates = |unlabelled: bool| {
        let mut models = classification();
        let optimizer = optim::Options {
            mutual: Some(Mutual {
                weight: Some(0.0),
                teacher: Teacher::Peers,
                ..Mutual::default()
            }),
            adaptive_lr: optim::AdaptiveLr::Relative,
            adaptive_lr_every: 1,
            adaptive_lr_window: 4,
            learning_rate: 3e-5,
            n_threads: 1,
            ..optim::Options::adamw()
        };
        let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
        let list = models.iter().map(Linear::options).collect();
        let mut trainer = Trainer::new(options, list).unwrap();
        let labels = models[0].find("labels").map(copy);
        for _ in 0..12 {
            models.iter_mut().for_each(|m| m.set("labels", labels.as_ref().map(copy)));
            pass(&mut trainer, &models).unwrap();
            if unlabelled {
                models.iter_mut().for_each(|m| m.set("labels", None));
                pass(&mut trainer, &models).unwrap();
            }
            trainer.step().unwrap();
        }
        trainer.optimizer().rates(0).unwrap().adaptive
    };
    // The loss does not move, so no rate has a reason to; zeros between would be one.
    assert!((rates(true) - rates(false)).abs() < 1e-3, "{} {}", rates(true), rates(false));
}

fn word(model: &Linear, example: usize, token: usize) -> i64 {
    let words = model.find("word_ids").unwrap();
    words.as_slice::<i64>().unwrap()[example * words.shape()[1] + token]
}

/// The target of a token is the other's prediction at the same word's first token.
fn token_targets(student: &Linear, teacher: &Linear, t: f64) -> Targets {
    let (own, theirs) = (student.length(), teacher.length());
    let p = teacher.softmax(t);
    let n_words =
        (0..student.batch() * own).filter(|r| word(student, r / own, r % own) >= 0).count();
    let row = |r: usize| {
        let word_id = word(student, r / own, r % own);
        let found = (0..theirs).find(|&s| word_id >= 0 && word(teacher, r / own, s) == word_id)?;
        Some((p[r / own * theirs + found].clone(), 1.0 / n_words as f64))
    };
    (0..student.batch() * own).map(row).collect()
}

/// A word's probability goes to its first token for starts, to its last for ends.
fn answer_targets(student: &Linear, teacher: &Linear, t: f64) -> Targets {
    let (n, own, theirs) = (student.batch(), student.length(), teacher.length());
    let p = teacher.softmax(t);
    let row = |r: usize| {
        let mut target = vec![0.0; own];
        for (token, taken) in target.iter_mut().enumerate() {
            let word_id = word(student, r % n, token);
            let mut range = if r < n { 0..token } else { token + 1..own };
            if word_id < 0 || range.any(|s| word(student, r % n, s) == word_id) {
                continue;
            }
            *taken =
                (0..theirs).filter(|&s| word(teacher, r % n, s) == word_id).map(|s| p[r][s]).sum();
        }
        let kept: f64 = target.iter().sum();
        target.iter_mut().for_each(|p| *p /= kept);
        Some((target, kept / (2 * n) as f64))
    };
    (0..2 * n).map(row).collect()
}

#[test]
fn words_align_other_tokens() {
    type Align = fn(&Linear, &Linear, f64) -> Targets;
    let cases: [(Vec<Linear>, Align); 3] = [
        (tokens(), token_targets),
        (answers(true), answer_targets),
        (answers(false), answer_targets),
    ];
    let teachers = [Teacher::Peers, Teacher::Online];
    for ((models, align), teacher) in cases.iter().flat_map(|c| teachers.map(|t| (c, t))) {
        let temperature = 1.5;
        let options = Mutual { teacher, temperature, ..Mutual::default() };
        let mut trainer = trainer(models, &options, 0.1).unwrap();
        let found = pass(&mut trainer, models).unwrap();
        for i in 0..2 {
            let targets = align(&models[i], &models[1 - i], temperature);
            check(&trainer, i, &found[i], &models[i], &targets, temperature);
        }
    }
}

/// With the same tokens in both, positions keep their distribution.
#[test]
fn answers_with_the_same_tokens_need_no_words() {
    for with_words in [true, false] {
        let mut models = answers(true);
        let [x, words] = ["x", "word_ids"].map(|n| models[0].find(n).map(copy));
        (models[1].shape, models[1].two_outputs) = (models[0].shape.clone(), false);
        models[1].x = x.unwrap().as_slice::<f32>().unwrap().iter().map(|x| -x).collect();
        models[1].w = models[0].w.iter().map(|w| 0.5 - w).collect();
        let x = Tensor::from_slice(&models[1].shape, &models[1].x).unwrap();
        models[1].set("x", Some(x));
        models
            .iter_mut()
            .for_each(|m| m.set("word_ids", words.as_ref().filter(|_| with_words).map(copy)));
        let options = Mutual { teacher: Teacher::Peers, ..Mutual::default() };
        let mut trainer = trainer(&models, &options, 0.1).unwrap();
        models.iter_mut().for_each(|m| m.classes = m.length());
        let found = pass(&mut trainer, &models).unwrap();
        let targets = mean_of(&[(&models[1], 1.0)], &options, 1.0, &models[0]);
        check(&trainer, 0, &found[0], &models[0], &targets, 1.0);
    }
}

/// The memory of a tokenizer's words in f64: for each example and word N and S; for answers, where
/// the word -1 has the example's N, S of starts and ends.
type WordMemory = BTreeMap<(usize, i64), (f64, Vec<f64>)>;

fn visit_words(memory: &mut WordMemory, models: &[Linear], decay: f64) {
    let predictions: Vec<_> = models.iter().map(|m| m.softmax(1.0)).collect();
    let spans = models[0].kind == LossKind::QuestionAnswering;
    if spans {
        memory.values_mut().for_each(|(_, s)| s.iter_mut().for_each(|s| *s *= decay));
    }
    for example in 0..2 {
        if spans {
            let n = memory.entry((example, -1)).or_insert((0.0, vec![0.0; 2]));
            n.0 = decay * n.0 + 1.0;
        }
        for word_id in 0..5 {
            let found = |m: &Linear| (0..m.length()).find(|&t| word(m, example, t) == word_id);
            let having = models.iter().filter(|m| found(m).is_some()).count() as f64;
            if having == 0.0 {
                continue;
            }
            let classes = if spans { 2 } else { models[0].classes };
            let (n, s) = memory.entry((example, word_id)).or_insert((0.0, vec![0.0; classes]));
            if !spans {
                *n = decay * *n + 1.0;
                s.iter_mut().for_each(|s| *s *= decay);
            }
            for (model, p) in models.iter().zip(&predictions) {
                let Some(first) = found(model) else { continue };
                for (c, s) in s.iter_mut().enumerate() {
                    *s += match spans {
                        false => p[example * model.length() + first][c] / having,
                        true => (0..model.length())
                            .filter(|&t| word(model, example, t) == word_id)
                            .map(|t| p[2 * c + example][t] / 2.0)
                            .sum(),
                    };
                }
            }
        }
    }
}

fn recall_words(memory: &WordMemory, student: &Linear) -> Targets {
    let (n_rows, length) = (student.logits().len(), student.length());
    if memory.is_empty() {
        return vec![None; n_rows];
    }
    if student.kind == LossKind::TokenClassification {
        let word_of = |r: usize| word(student, r / length, r % length);
        let n_words = (0..n_rows).filter(|&r| word_of(r) >= 0).count();
        let row = |r: usize| {
            let (n, s) = memory.get(&(r / length, word_of(r)))?;
            Some((s.iter().map(|s| s / n).collect(), 1.0 / n_words as f64))
        };
        return (0..n_rows).map(row).collect();
    }
    let row = |r: usize| {
        let (example, part) = (r % 2, r / 2);
        let mut target = vec![0.0; length];
        for (token, taken) in target.iter_mut().enumerate() {
            let word_id = word(student, example, token);
            let mut others = if part == 0 { 0..token } else { token + 1..length };
            if word_id >= 0 && !others.any(|t| word(student, example, t) == word_id) {
                *taken = memory.get(&(example, word_id)).map_or(0.0, |(_, s)| s[part]);
            }
        }
        let kept: f64 = target.iter().sum();
        target.iter_mut().for_each(|p| *p /= kept);
        Some((target, kept / memory[&(example, -1)].0 / n_rows as f64))
    };
    (0..n_rows).map(row).collect()
}

/// The memory of words, in RAM and in a file.
#[test]
fn the_memory_holds_words_of_any_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("memory").display().to_string();
    for memory_file in [None, Some(file.clone())] {
        for mut models in [tokens(), answers(true), answers(false)] {
            let ids = Tensor::from_slice(&[2], &[40i64, -7]).unwrap();
            models.iter_mut().for_each(|m| m.set("example_ids", Some(ids.copy().unwrap())));
            let memory_file = memory_file.clone();
            let options = Mutual {
                teacher: Teacher::Memory,
                memory_decay: 0.8,
                memory_file,
                ..Mutual::default()
            };
            let mut trainer = trainer(&models, &options, 0.1).unwrap();
            let mut memory = WordMemory::new();
            for _ in 0..4 {
                let found = pass(&mut trainer, &models).unwrap();
                for (i, model) in models.iter().enumerate() {
                    let targets = recall_words(&memory, model);
                    check(&trainer, i, &found[i], model, &targets, 1.0);
                }
                visit_words(&mut memory, &models, 0.8);
                trainer.step().unwrap();
                models.iter_mut().enumerate().for_each(|(i, m)| m.w = weights(&trainer, i));
            }
            models[0].set("word_ids", None);
            let missing = pass(&mut trainer, &models).unwrap_err();
            assert!(missing.message().contains("model 'a': 'word_ids'"), "{missing}");
        }
    }
    assert!(!std::path::Path::new(&file).exists());
    let mut plain = tokens();
    plain.iter_mut().for_each(|m| m.kind = LossKind::CausalLm);
    let options = Mutual { teacher: Teacher::Memory, ..Mutual::default() };
    let refused = trainer(&plain, &options, 0.1).unwrap_err();
    assert!(refused.message().contains("not for language models"), "{refused}");
}

/// What is not finite does not enter the memory.
#[test]
fn the_memory_leaves_out_what_is_not_finite() {
    let options = Mutual { teacher: Teacher::Memory, ..Mutual::default() };
    let mut models = classification();
    let mut trainer = trainer(&models, &options, 0.0).unwrap();
    let x = models[0].find("x").map(copy).unwrap();
    models[0].set("x", Some(Tensor::from_slice(x.shape(), &[f32::NAN; 24]).unwrap()));
    pass(&mut trainer, &models).unwrap();
    trainer.zero_grad();
    models[0].set("x", Some(x));
    let found = pass(&mut trainer, &models).unwrap();
    let teachers = unweighted(others(&models, 0));
    let targets = mean_of(&teachers, &options, 1.0, &models[0]);
    check(&trainer, 0, &found[0], &models[0], &targets, 1.0);
}

/// tests/data/mutual/reference.py, with PyTorch's autograd.
#[test]
fn losses_and_gradients_are_those_of_pytorch() {
    let text = include_str!("../data/mutual/pytorch.txt");
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    let cases =
        [("classification", classification()), ("tokens", tokens()), ("answers", answers(true))];
    let mut n_checked = 0;
    for line in lines {
        let mut fields = line.split_whitespace();
        let (case, i): (&str, usize) =
            (fields.next().unwrap(), fields.next().unwrap().parse().unwrap());
        let numbers: Vec<f64> = fields.map(|f| f.parse().unwrap()).collect();
        let models = &cases.iter().find(|(name, _)| *name == case).unwrap().1;
        for teacher in [Teacher::Peers, Teacher::Online] {
            let options =
                Mutual { teacher, weight: Some(0.7), temperature: 2.0, ..Mutual::default() };
            let mut trainer = trainer(models, &options, 0.1).unwrap();
            let found = pass(&mut trainer, models).unwrap()[i];
            close(&[found.loss, found.mutual_loss], &numbers[..2], 1e-4, line);
            close(&gradient(&trainer, i), &numbers[2..], 1e-4, line);
        }
        n_checked += 1;
    }
    assert_eq!(n_checked, 7);
}

/// Without a weight of its own token classification has 1 and other tasks 3.
#[test]
fn the_weight_is_by_task_unless_given() {
    for (models, weight) in [(classification(), 3.0), (tokens(), 1.0), (answers(true), 3.0)] {
        let gradients = [None, Some(weight), Some(2.0)].map(|weight| {
            let options = Mutual { teacher: Teacher::Peers, weight, ..Mutual::default() };
            let mut trainer = trainer(&models, &options, 0.1).unwrap();
            pass(&mut trainer, &models).unwrap();
            gradient(&trainer, 0)
        });
        assert_eq!(gradients[0], gradients[1], "{weight}");
        assert_ne!(gradients[0], gradients[2], "{weight}");
    }
}

#[test]
fn what_does_not_fit_is_an_error_that_names_both() {
    [Teacher::Peers, Teacher::Online].into_iter().for_each(what_does_not_fit_names_both);
}

fn what_does_not_fit_names_both(teacher: Teacher) {
    let options = Mutual { teacher, ..Mutual::default() };
    let check = |models: &[Linear], parts: &[&str]| {
        let error = match trainer(models, &options, 0.1) {
            Ok(mut trainer) => pass(&mut trainer, models).unwrap_err(),
            Err(error) => error,
        };
        for part in parts {
            assert!(error.message().contains(part), "'{part}' is not in {error}");
        }
    };
    let mut models = classification();
    models[2] = Linear::classification("c", 2, 9);
    check(&models, &["'a'", "'c'", "[6, 3]", "[6, 2]"]);
    let mut models = classification();
    let ids = Tensor::from_slice(&[6], &[5i64, 4, 3, 2, 1, 0]).unwrap();
    models[1].set("example_ids", Some(ids));
    check(&models, &["'a'", "'b'", "other examples"]);
    let mut models = tokens();
    models[1].set("word_ids", None);
    check(&models, &["'a'", "'b'", "word_ids"]);
    check(
        &[classification().remove(0), tokens().remove(1)],
        &["'a'", "'b'", "TokenClassification"],
    );
    let mut models = tokens();
    let floats = Tensor::from_slice(&[1, 1], &[1f32]).unwrap();
    models[0].set("word_ids", Some(floats));
    check(&models, &["'a'", "'word_ids' must be i64"]);
    let mut models = classification();
    models[0].kind = LossKind::MeanSquaredError;
    check(&models, &["'a'", "MeanSquaredError"]);
}

/// Models that need not learn from each other can also be passed one by one, or be one.
#[test]
fn models_that_need_not_learn_train_alone() {
    let models = classification();
    let trainer = |n: usize, required: bool| {
        let mutual = Mutual { required, teacher: Teacher::Peers, ..Mutual::default() };
        let optimizer =
            optim::Options { mutual: Some(mutual), n_threads: 1, ..optim::Options::adamw() };
        let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
        Trainer::new(options, models[..n].iter().map(Linear::options).collect()).unwrap()
    };
    assert!(trainer(3, true).forward_backward(0, &models[0].views()).is_err());
    let mut together = trainer(3, false);
    assert!(together.plan_text().contains("mutual learning: peers, weight 1"));
    let alone = together.forward_backward(0, &models[0].views()).unwrap();
    assert_eq!(alone.mutual_loss, 0.0);
    assert!(trainer(1, false).plan_text().contains("mutual learning: off: there is one model"));
}
