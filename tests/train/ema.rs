//! Running means of weights, without mutual learning: their formula, evaluation by them, what is
//! refused meanwhile, resuming.

use mmopt::optim::{self, Mutual, Teacher};
use mmopt::train::{Trainer, TrainerOptions};
use mmopt::{Error, Kind};

use crate::mutual::linear::{Linear, classification, close};

const DECAY: f64 = 0.3;

fn trainer(ema_decay: Option<f64>) -> Trainer {
    let optimizer =
        optim::Options { learning_rate: 0.1, ema_decay, n_threads: 1, ..optim::Options::adamw() };
    let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
    Trainer::new(options, classification().iter().map(Linear::options).collect()).unwrap()
}

fn step(trainer: &mut Trainer, models: &[Linear]) {
    let views: Vec<_> = models.iter().map(Linear::views).collect();
    trainer.forward_backward_all(&views.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    trainer.step().unwrap();
}

fn weights(trainer: &Trainer, i: usize) -> Vec<f32> {
    trainer.parameter(i, "w").unwrap().as_slice::<f32>().unwrap().to_vec()
}

fn means(trainer: &Trainer, i: usize) -> Vec<f32> {
    trainer.ema_parameter(i, "w").unwrap().unwrap().as_slice::<f32>().unwrap().to_vec()
}

fn logits(trainer: &mut Trainer, models: &[Linear], i: usize) -> Vec<f64> {
    let evaluation = trainer.evaluate(i, &models[i].views()).unwrap();
    evaluation.logits[0].1.as_slice::<f32>().unwrap().iter().map(|&z| f64::from(z)).collect()
}

#[test]
fn models_are_evaluated_and_saved_by_their_means() {
    let models = classification();
    let mut trainer = trainer(Some(DECAY));
    assert!(trainer.ema_parameter(0, "w").unwrap().is_none());
    let mut exact: Vec<f64> = models[1].w.iter().map(|&w| f64::from(w)).collect();
    for t in 1..6 {
        step(&mut trainer, &models);
        let d = f64::min(DECAY, (1.0 + f64::from(t)) / (10.0 + f64::from(t)));
        for (e, w) in exact.iter_mut().zip(weights(&trainer, 1)) {
            *e = d * *e + (1.0 - d) * f64::from(w);
        }
        let found: Vec<f64> = means(&trainer, 1).iter().map(|&w| f64::from(w)).collect();
        close(&found, &exact, 1e-6, "the mean");
    }
    let (own, mean) = (weights(&trainer, 1), means(&trainer, 1));
    assert!(own != mean);
    let by_weights = logits(&mut trainer, &models, 1);
    trainer.use_ema_weights(true).unwrap();
    trainer.use_ema_weights(true).unwrap();
    assert!(weights(&trainer, 1) == mean && means(&trainer, 1) == mean);
    let mut of_mean = models[1].clone();
    of_mean.w = mean.clone();
    close(&logits(&mut trainer, &models, 1), &of_mean.logits().concat(), 1e-5, "logits");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mean.onnx");
    trainer.save_onnx(1, &path).unwrap();
    let bytes: Vec<u8> = mean.iter().flat_map(|w| w.to_le_bytes()).collect();
    let saved = std::fs::read(&path).unwrap();
    assert!(saved.windows(bytes.len()).any(|w| w == bytes), "the means are in the file");
    trainer.use_ema_weights(false).unwrap();
    trainer.use_ema_weights(false).unwrap();
    assert!(weights(&trainer, 1) == own && means(&trainer, 1) == mean);
    assert_eq!(logits(&mut trainer, &models, 1), by_weights);
}

#[test]
fn the_weights_come_back_after_an_error() {
    let models = classification();
    let mut trainer = trainer(Some(DECAY));
    step(&mut trainer, &models);
    let own = weights(&trainer, 0);
    let failed = trainer.with_ema_weights(|t| t.evaluate(7, &[]).map(|_| ())).unwrap_err();
    assert!(failed.message().contains("model 7"), "{failed}");
    assert!(weights(&trainer, 0) == own);
    let seen = trainer.with_ema_weights(|t| Ok(weights(t, 0))).unwrap();
    assert!(seen == means(&trainer, 0) && weights(&trainer, 0) == own);
    step(&mut trainer, &models);
}

#[test]
fn training_waits_for_the_weights() {
    let models = classification();
    let mut trainer = trainer(Some(DECAY));
    step(&mut trainer, &models);
    let dir = tempfile::tempdir().unwrap();
    let views = models[0].views();
    let state = |e: Error| assert!(e.kind() == Kind::State && e.message().contains("ema"), "{e}");
    trainer.checkpoint(dir.path(), "").unwrap();
    trainer.forward_backward(0, &views).unwrap();
    trainer.use_ema_weights(true).unwrap();
    state(trainer.forward_backward(0, &views).unwrap_err());
    state(trainer.forward_backward_all(&[&views, &views, &views]).unwrap_err());
    state(trainer.step().unwrap_err());
    state(trainer.checkpoint(dir.path(), "").unwrap_err());
    state(trainer.resume(dir.path()).unwrap_err());
    state(trainer.set_parameter(0, "w", &[0; 48]).unwrap_err());
    trainer.use_ema_weights(false).unwrap();
    trainer.step().unwrap();
    let mut without = self::trainer(None);
    assert!(without.ema_parameter(0, "w").unwrap().is_none());
    without.use_ema_weights(false).unwrap();
    state(without.use_ema_weights(true).unwrap_err());
}

#[test]
fn means_resume_with_the_same_bits() {
    let models = classification();
    let dir = tempfile::tempdir().unwrap();
    let mut one = trainer(Some(DECAY));
    (0..3).for_each(|_| step(&mut one, &models));
    one.checkpoint(dir.path(), "").unwrap();
    (0..2).for_each(|_| step(&mut one, &models));
    let mut two = trainer(Some(DECAY));
    step(&mut two, &models);
    two.resume(dir.path()).unwrap();
    (0..2).for_each(|_| step(&mut two, &models));
    for i in 0..3 {
        assert!(weights(&one, i) == weights(&two, i) && means(&one, i) == means(&two, i));
    }
}

/// One mean is kept of each model: mean teachers use that of the option `ema_decay`.
#[test]
fn mean_teachers_and_means_are_one() {
    let models = classification();
    let mean = |ema_decay, of_teacher| {
        let mutual = Mutual {
            teacher: Teacher::MeanTeacher,
            weight: Some(0.0),
            ema_decay: of_teacher,
            ..Mutual::default()
        };
        let optimizer = optim::Options {
            learning_rate: 0.1,
            ema_decay,
            mutual: Some(mutual),
            ..optim::Options::adamw()
        };
        let options = TrainerOptions { optimizer, ..TrainerOptions::default() };
        let mut trainer =
            Trainer::new(options, models.iter().map(Linear::options).collect()).unwrap();
        (0..2).for_each(|_| step(&mut trainer, &models));
        means(&trainer, 0)
    };
    assert_eq!(mean(None, 0.1), mean(Some(0.1), 0.9));
    assert_ne!(mean(None, 0.1), mean(None, 0.9));
}
