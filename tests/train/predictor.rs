//! Predictors, which threads share, and heads whose loss is not that of one class for each text.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mmopt::autodiff::LossKind;
use mmopt::models::{Config, Sizes, Task};
use mmopt::tasks::{PredictOptions, Predictor, PredictorOptions};
use mmopt::tensor::Tensor;
use mmopt::text::{Tokenizer, TokenizerTrainOptions};
use mmopt::train::{ModelOptions, Source, TensorView, Trainer, TrainerOptions};
use mmopt::{Error, Kind};

fn config(n_labels: usize) -> Config {
    let mut config = Config::bert(&Sizes {
        layers: 1,
        hidden: 8,
        heads: 2,
        intermediate: 16,
        vocab: 300,
        positions: 32,
        dropout: 0.0,
    });
    config.set_task(Task::SequenceClassification { num_labels: n_labels });
    config
}

fn trainer(config: Config) -> mmopt::Result<Trainer> {
    let model = ModelOptions::new("one", Source::Config(Box::new(config)));
    Trainer::new(TrainerOptions::default(), vec![model])
}

fn save(directory: &Path) {
    trainer(config(2)).unwrap().save_model(0, directory).unwrap();
    let options = TokenizerTrainOptions {
        vocab_size: 100,
        min_frequency: 1,
        model_max_length: 32,
        ..Default::default()
    };
    let texts = ["a fine film", "dull"];
    Tokenizer::train(&options, &texts).unwrap().save(directory).unwrap();
}

/// Eight calls are under way at once: each waits, before its batch, until all have begun.
#[test]
fn threads_predict_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path());
    let predictor = Predictor::load(folder.path(), &PredictorOptions::default()).unwrap();
    let (texts, options) = (["a fine film", "dull"], PredictOptions::default());
    let alone = predictor.predict(&texts, None, &options).unwrap();
    let begun = AtomicUsize::new(0);
    let wait = || {
        begun.fetch_add(1, Ordering::SeqCst);
        let start = Instant::now();
        while begun.load(Ordering::SeqCst) < 8 {
            if start.elapsed() > Duration::from_secs(20) {
                return Err(Error::new(Kind::Runtime, "the others wait for this one"));
            }
            std::thread::yield_now();
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let call = || predictor.predict_with(&texts, None, &options, wait);
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(call)).collect();
        for one in calls {
            assert_eq!(one.join().unwrap().unwrap(), alone);
        }
    });
}

#[test]
fn one_label_is_a_number() {
    let mut trainer = trainer(config(1)).unwrap();
    assert_eq!(*trainer.loss_kind(0).unwrap(), LossKind::MeanSquaredError);
    let ids = Tensor::from_slice(&[2, 3], &[5i64, 6, 7, 8, 9, 10]).unwrap();
    let mask = Tensor::from_slice(&[2, 3], &[1i64; 6]).unwrap();
    let labels = Tensor::from_slice(&[2], &[0.5f32, -1.5]).unwrap();
    let mut batch =
        vec![TensorView::of("input_ids", &ids), TensorView::of("attention_mask", &mask)];
    let types = Tensor::from_slice(&[2, 3], &[0i64; 6]).unwrap();
    batch.push(TensorView::of("token_type_ids", &types));
    let logits = trainer.evaluate(0, &batch).unwrap().logits;
    let values: Vec<f64> =
        logits[0].1.as_slice::<f32>().unwrap().iter().map(|&x| f64::from(x)).collect();
    let wanted = ((values[0] - 0.5).powi(2) + (values[1] + 1.5).powi(2)) / 2.0;
    batch.push(TensorView::of("labels", &labels));
    let result = trainer.forward_backward(0, &batch).unwrap();
    assert!((result.loss - wanted).abs() < 1e-6, "{} is not {wanted}", result.loss);
    let classes = Tensor::from_slice(&[2], &[0i64, 0]).unwrap();
    *batch.last_mut().unwrap() = TensorView::of("labels", &classes);
    let error = trainer.forward_backward(0, &batch).unwrap_err();
    assert!(error.to_string().contains("labels"), "{error}");
}

#[test]
fn other_losses_are_refused_by_name() {
    let check = |n_labels, problem: &str, expect: Option<&str>| {
        let mut config = config(n_labels);
        config.other.insert("problem_type".to_owned(), problem.into());
        match (trainer(config), expect) {
            (Ok(_), None) => {}
            (Err(e), Some(part)) => {
                let text = e.to_string();
                assert!(text.contains("model 'one'") && text.contains(part), "{text}");
            }
            (found, _) => panic!("{problem}: {:?}", found.map(|_| ())),
        }
    };
    check(3, "multi_label_classification", Some("multi_label_classification"));
    check(3, "regression", Some("regression with 3 numbers"));
    check(1, "single_label_classification", Some("one label only"));
    check(1, "regression", None);
    check(3, "single_label_classification", None);
}
