//! What a model is drawn towards: its teachers' mean prediction, row by row, in its own rows.
//!
//! Models with one tokenizer have the same rows. Where tokenizers differ, words align them:
//! * token classification: a word's first token takes the teacher's prediction at its first token;
//! * question answering: the teacher's probability of a word is the sum over its tokens, and goes
//!   to the student's first token of the word for starts and to its last for ends. What falls on
//!   tokens of no word, and on words that the student does not have, is lost; the rest is brought
//!   back to a distribution, and the row weighs as much as was kept.

use super::examples::{Examples, int};
use super::prediction::Prediction;
use crate::autodiff::{LossKind, TARGET_WEIGHTS_INPUT, TARGETS_INPUT};
use crate::error::{Error, Result};
use crate::optim;
use crate::train::batch::TensorView;
use crate::train::session::BoundSession;

/// Kept probability below which a row has no teacher.
const LOST: f32 = 1e-6;
/// No token.
pub(super) const NOWHERE: usize = usize::MAX;

/// Target probabilities and a weight for each row; the memory is kept from step to step.
#[derive(Clone, Debug, Default)]
pub(in crate::train) struct Target {
    n_classes: usize,
    /// `[rows, classes]`; first sums, then means.
    probabilities: Vec<f32>,
    /// Of each row; first what teachers gave, then the weight of the term.
    weights: Vec<f32>,
    /// Weights of the teachers that have the row.
    present: Vec<f32>,
    /// T² Σ w Σ p ln p, which with the graph's part makes the divergence.
    pub entropy: f64,
    mass: Vec<f32>,
    places: Vec<usize>,
}

impl Target {
    /// Begins a target without teachers.
    pub fn begin(&mut self, (rows, classes): (usize, usize)) -> Result<()> {
        self.n_classes = classes;
        for (values, n) in [
            (&mut self.probabilities, rows * classes),
            (&mut self.weights, rows),
            (&mut self.present, rows),
        ] {
            values.clear();
            values.try_reserve(n)?;
            values.resize(n, 0.0);
        }
        self.entropy = 0.0;
        Ok(())
    }

    fn n_rows(&self) -> usize {
        self.weights.len()
    }

    /// Rows and classes.
    pub fn shape(&self) -> (usize, usize) {
        (self.n_rows(), self.n_classes)
    }

    /// Adds the mean prediction for one row.
    pub fn add_row(&mut self, row: usize, from: &[f32], weight: f32) {
        let to = &mut self.probabilities[row * self.n_classes..(row + 1) * self.n_classes];
        to.iter_mut().zip(from).for_each(|(p, q)| *p += weight * q);
        self.weights[row] += weight;
        self.present[row] += weight;
    }

    /// Adds a sum of predictions for one row, and the sum of their weights.
    pub fn add_sum(&mut self, row: usize, from: &[f32], weight: f32) {
        let to = &mut self.probabilities[row * self.n_classes..(row + 1) * self.n_classes];
        to.iter_mut().zip(from).for_each(|(p, q)| *p += q);
        self.weights[row] += weight;
        self.present[row] += weight;
    }

    /// Adds a teacher's prediction.
    pub fn add(
        &mut self,
        student: &Examples,
        teacher: &Examples,
        prediction: &Prediction,
        weight: f32,
    ) -> Result<()> {
        let refuse = |why: String| {
            let (to, from) = (student.model, teacher.model);
            Err(Error::shape(format!("model '{to}' cannot learn from model '{from}': {why}")))
        };
        if let (Some(own), Some(theirs)) = (student.ids(), teacher.ids())
            && own.data != theirs.data
        {
            return refuse("their batches hold other examples, or in another order".into());
        }
        let shape = (self.n_rows(), self.n_classes);
        let spans = student.spec.kind == LossKind::QuestionAnswering;
        let rows = |words: &TensorView| match *words.shape {
            [batch, length] if spans => (2 * batch, length),
            _ => (words.shape.iter().product(), self.n_classes),
        };
        if let Some((own, theirs)) = student.words().zip(teacher.words()) {
            let fits = rows(&own) == shape && rows(&theirs) == prediction.shape();
            if !fits || own.shape[0] != theirs.shape[0] {
                return refuse(self.against(prediction));
            }
            let same = own.shape == theirs.shape && own.data == theirs.data;
            if !spans {
                self.add_words(own, theirs, prediction, weight);
                return Ok(());
            }
            if !same {
                self.add_spans(own, theirs, prediction, weight);
                return Ok(());
            }
        }
        if shape != prediction.shape() {
            return refuse(self.against(prediction));
        }
        (0..shape.0).for_each(|row| self.add_row(row, prediction.row(row), weight));
        Ok(())
    }

    fn against(&self, prediction: &Prediction) -> String {
        format!(
            "one predicts {:?} probabilities, the other {:?}; tokens may differ with 'word_ids' in \
             both batches, classes may not",
            [self.n_rows(), self.n_classes],
            [prediction.n_rows(), prediction.n_classes]
        )
    }

    /// Token classification: rows of words, found by the word.
    fn add_words(&mut self, own: TensorView, theirs: TensorView, from: &Prediction, weight: f32) {
        let length = own.shape[1];
        for example in 0..own.shape[0] {
            first_tokens(&theirs, example, &mut self.places);
            for token in example * length..(example + 1) * length {
                let Some(word) = word(&own, token) else { continue };
                let place = self.places.get(word).copied().filter(|&p| p != NOWHERE);
                if let Some(place) = place {
                    self.add_row(token, from.row(place), weight);
                }
            }
        }
    }

    /// Question answering: a distribution over the teacher's tokens, then over words, then over
    /// the student's tokens.
    fn add_spans(&mut self, own: TensorView, theirs: TensorView, from: &Prediction, weight: f32) {
        let batch = own.shape[0];
        let mut mass = std::mem::take(&mut self.mass);
        for row in 0..2 * batch {
            word_masses(&theirs, row % batch, from.row(row), &mut mass);
            self.add_masses(&own, row, &mut mass, (weight, weight));
        }
        self.mass = mass;
    }

    /// Question answering: gives the probability of each word, times the first weight, to a token
    /// of the student's; the second weight is that of all words. `mass` is used up.
    pub fn add_masses(
        &mut self,
        own: &TensorView,
        row: usize,
        mass: &mut [f32],
        (weight, all): (f32, f32),
    ) {
        let [batch, length] = [own.shape[0], own.shape[1]];
        let to = &mut self.probabilities[row * length..(row + 1) * length];
        let mut kept = 0.0;
        for i in 0..length {
            let token = if row < batch { i } else { length - 1 - i };
            let Some(word) = word(own, row % batch * length + token) else { continue };
            // The first token takes all, so that the others find nothing.
            let p = mass.get_mut(word).map_or(0.0, std::mem::take);
            to[token] += weight * p;
            kept += p;
        }
        self.weights[row] += weight * kept;
        self.present[row] += all;
    }

    /// Turns sums into means and gives each row the weight of its term. `scale` is the option
    /// `weight` times the ramp.
    pub fn finish(&mut self, options: &optim::Mutual, student: &Examples, scale: f64) {
        let n_rows = self.n_rows();
        let base = scale / student.n_taught(n_rows).max(1) as f64;
        let square = options.temperature * options.temperature;
        let rows = self.probabilities.chunks_exact_mut(self.n_classes.max(1));
        for (row, (p, weight)) in rows.zip(&mut self.weights).enumerate() {
            let (given, present) = (*weight, self.present[row]);
            *weight = 0.0;
            if present <= 0.0 || given <= LOST * present {
                p.fill(0.0);
                continue;
            }
            p.iter_mut().for_each(|p| *p /= given);
            let best = (1..p.len()).fold(0, |best, c| if p[c] > p[best] { c } else { best });
            let label = student.label(row, n_rows).filter(|_| options.label_agreement);
            let unsure = f64::from(p[best]) < options.confidence_threshold;
            if unsure || label.is_some_and(|label| label != best as i64) {
                continue;
            }
            *weight = (base * f64::from(given / present)) as f32;
            let p_ln_p = |&p: &f32| if p > 0.0 { f64::from(p) * f64::from(p).ln() } else { 0.0 };
            self.entropy += square * f64::from(*weight) * p.iter().map(p_ln_p).sum::<f64>();
        }
    }

    /// The probabilities and the weights of rows.
    pub fn to_answer(&self) -> (Vec<f32>, Vec<f32>) {
        (self.probabilities.clone(), self.weights.clone())
    }

    /// Hands the target to a training session.
    pub fn feed(&self, bound: &mut BoundSession) -> Result<()> {
        bound.set_input(TARGETS_INPUT, bytemuck::cast_slice(&self.probabilities))?;
        bound.set_input(TARGET_WEIGHTS_INPUT, bytemuck::cast_slice(&self.weights))
    }
}

/// Where a training pass gets what it is drawn towards.
#[derive(Clone, Copy)]
pub(in crate::train) enum Teaching<'a> {
    /// Nowhere.
    None,
    /// It is known.
    Target(&'a Target),
    /// From an exchange: its number and the position of the model.
    Exchange([i64; 2]),
}

impl Teaching<'_> {
    /// The part of the divergence that the graph does not have, as far as it is known.
    pub fn entropy(&self) -> f64 {
        if let Self::Target(target) = self { target.entropy } else { 0.0 }
    }
}

/// The first token of each word of an example, counted over the whole batch; [`NOWHERE`] where
/// there is none.
pub(super) fn first_tokens(words: &TensorView, example: usize, tokens: &mut Vec<usize>) {
    let length = words.shape[1];
    tokens.clear();
    for token in example * length..(example + 1) * length {
        let Some(word) = word(words, token) else { continue };
        if tokens.len() <= word {
            tokens.resize(word + 1, NOWHERE);
        }
        if tokens[word] == NOWHERE {
            tokens[word] = token;
        }
    }
}

/// The probability of each word of an example, from that of each token.
pub(super) fn word_masses(
    words: &TensorView,
    example: usize,
    probabilities: &[f32],
    mass: &mut Vec<f32>,
) {
    let length = words.shape[1];
    mass.clear();
    for (token, p) in probabilities.iter().enumerate() {
        let Some(word) = word(words, example * length + token) else { continue };
        if mass.len() <= word {
            mass.resize(word + 1, 0.0);
        }
        mass[word] += p;
    }
}

fn word(view: &TensorView, token: usize) -> Option<usize> {
    int(view, token).and_then(|word| usize::try_from(word).ok())
}
