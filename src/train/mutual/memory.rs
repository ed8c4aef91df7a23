//! The memory of every example's predictions (temporal ensembling, Laine and Aila 2017).
//!
//! With q the models' mean prediction at a visit of an example and α the decay:
//! S ← α S + q, N ← α N + 1, and the target is S / N. That is the bias-corrected form of the
//! paper, and for α = 1 the plain mean over visits.
//!
//! What is remembered does not depend on a tokenizer: the classes of a text; the classes of each
//! word, with an N for each word; for answers the probability of each word of the context as start
//! and as end. Each example has a *record*: for answers N, then its *units*. A unit is N and S of a
//! text or a word, or for answers a word's S as start and as end.

use std::collections::HashMap;
use std::path::Path;

use super::examples::Examples;
use super::prediction::Prediction;
use super::target::{NOWHERE, Target, first_tokens, word_masses};
use crate::autodiff::LossKind;
use crate::checkpoint::files::Files;
use crate::checkpoint::weights::Weights;
use crate::error::{Error, Result};
use crate::file::Scratch;
use crate::memory::{Gather, copied};
use crate::tensor::{DType, first_negative, first_non_finite};
use crate::train::batch::TensorView;

/// What a memory may hold, and how fast it forgets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub decay: f64,
    pub examples: usize,
    pub bytes: u64,
}

/// One model at a visit: its weight in the mean, the examples as it sees them, what it predicts.
pub(super) type Visitor<'a> = (f32, Examples<'a>, &'a Prediction);

/// Where an example's record is.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Place {
    at: usize,
    n_units: usize,
}

/// Sums of predictions by example.
#[derive(Debug)]
pub(super) struct Memory {
    kind: LossKind,
    /// Classes of the predictions; 0 before the first visit, and for answers.
    n_classes: usize,
    places: HashMap<i64, Place>,
    floats: Floats,
    /// Of the present batch: units that each record needs.
    wanted: Vec<usize>,
    /// Of a word: its weight, its first token, its probability.
    present: Vec<f32>,
    tokens: Vec<usize>,
    mass: Vec<f32>,
}

/// What [`Memory::read`] found; the memory has room for it.
pub(super) struct SavedMemory {
    n_classes: usize,
    places: HashMap<i64, Place>,
    file: Weights,
}

/// A memory set aside: classes, places, sums.
pub(in crate::train) struct MemorySnapshot(usize, HashMap<i64, Place>, Vec<f32>);

impl Memory {
    /// Sets aside what was remembered.
    pub fn snapshot(&self) -> Result<MemorySnapshot> {
        let sums = copied(self.floats.get(0, self.floats.len()))?;
        let mut places = HashMap::new();
        places.try_reserve(self.places.len())?;
        places.extend(&self.places);
        Ok(MemorySnapshot(self.n_classes, places, sums))
    }

    /// Puts back what was set aside: a memory only grows, so there is room.
    pub fn restore_snapshot(&mut self, saved: MemorySnapshot) {
        let MemorySnapshot(n_classes, places, sums) = saved;
        self.floats.clear();
        self.floats.extend(sums.len());
        self.floats.get_mut(0, sums.len()).copy_from_slice(&sums);
        (self.n_classes, self.places) = (n_classes, places);
    }

    /// A memory for a loss of `kind`, kept in the file `path` if there is one.
    pub fn new(kind: &LossKind, path: Option<&Path>) -> Result<Self> {
        let floats = match path {
            Some(path) => Floats::File(Scratch::create(path)?, 0),
            None => Floats::Ram(Vec::new()),
        };
        Ok(Self {
            kind: kind.clone(),
            n_classes: 0,
            places: HashMap::new(),
            floats,
            wanted: Vec::new(),
            present: Vec::new(),
            tokens: Vec::new(),
            mass: Vec::new(),
        })
    }

    fn has_spans(&self) -> bool {
        self.kind == LossKind::QuestionAnswering
    }

    /// Numbers of a record of `n_units`; saturates.
    fn record_len(&self, n_units: usize) -> usize {
        let (header, unit) = self.layout();
        n_units.saturating_mul(unit).saturating_add(header)
    }

    /// Numbers before the units, and those of a unit.
    fn layout(&self) -> (usize, usize) {
        if self.has_spans() { (1, 2) } else { (0, 1 + self.n_classes) }
    }

    /// Gives what is known of the examples to a target of a model.
    pub fn recall(&mut self, student: &Examples, target: &mut Target) -> Result<()> {
        let ids = student.wanted_ids()?;
        let shape = target.shape();
        let words = check_shape(&self.kind, student, ids, shape)?;
        if self.places.is_empty() {
            return Ok(());
        }
        if !self.has_spans() && shape.1 != self.n_classes {
            return Err(Error::shape(format!(
                "model '{}' has {} classes, the memory {}",
                student.model, shape.1, self.n_classes
            )));
        }
        let (header, unit) = self.layout();
        for (example, id) in ids.ints().enumerate() {
            let Some(&place) = self.places.get(&id) else { continue };
            let record = self.floats.get(place.at, header + place.n_units * unit);
            match &words {
                None => target.add_sum(example, &record[1..], record[0]),
                Some(words) if self.kind == LossKind::QuestionAnswering => {
                    for part in 0..2 {
                        self.mass.clear();
                        self.mass.extend(record[1..].iter().skip(part).step_by(2));
                        let row = part * words.shape[0] + example;
                        target.add_masses(words, row, &mut self.mass, (1.0, record[0]));
                    }
                }
                Some(words) => {
                    first_tokens(words, example, &mut self.tokens);
                    for (entry, &token) in record.chunks_exact(unit).zip(&self.tokens) {
                        if token != NOWHERE && entry[0] > 0.0 {
                            target.add_sum(token, &entry[1..], entry[0]);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds a visit of a batch's examples by all models, whose weights sum to 1. Where it would
    /// pass a limit, or the models do not see the same examples, it is an error and nothing
    /// changes.
    pub fn visit(&mut self, models: &[Visitor], limits: Limits) -> Result<()> {
        let Some((_, first, prediction)) = models.first() else { return Ok(()) };
        let ids = first.wanted_ids()?;
        let words = self.check_models(models, ids)?;
        let n_classes = if self.has_spans() { 0 } else { prediction.n_classes };
        if !self.places.is_empty() && n_classes != self.n_classes {
            return Err(Error::shape(format!(
                "model '{}' has {n_classes} classes, the memory {}",
                first.model, self.n_classes
            )));
        }
        let before = std::mem::replace(&mut self.n_classes, n_classes);
        self.want(ids, &words);
        self.make_room(ids, limits).inspect_err(|_| self.n_classes = before)?;
        let decay = limits.decay as f32;
        for (example, id) in ids.ints().enumerate() {
            let place = self.place_of(id, self.wanted[example]);
            if words.is_empty() {
                self.add_classes(place, example, models, decay);
            } else if self.has_spans() {
                self.add_spans(place, example, models, &words, decay);
            } else {
                self.add_words(place, example, models, &words, decay);
            }
        }
        Ok(())
    }

    /// The words of each model; none for texts.
    fn check_models<'a>(
        &self,
        models: &[Visitor<'a>],
        ids: TensorView,
    ) -> Result<Vec<TensorView<'a>>> {
        let (_, first, prediction) = &models[0];
        let mut all = Vec::new();
        for (_, examples, own) in models {
            let same = examples.wanted_ids()?.data == ids.data;
            if !same || !self.has_spans() && own.n_classes != prediction.n_classes {
                return Err(Error::shape(format!(
                    "models '{}' and '{}' cannot share a memory: they predict {:?} and {:?} \
                     probabilities, and their example ids are {}",
                    first.model,
                    examples.model,
                    prediction.shape(),
                    own.shape(),
                    if same { "the same" } else { "others" }
                )));
            }
            all.extend(check_shape(&self.kind, examples, ids, own.shape())?);
        }
        Ok(all)
    }

    /// Sets the units that each example's record needs.
    fn want(&mut self, ids: TensorView, words: &[TensorView]) {
        let n = ids.ints().count();
        self.wanted.clear();
        self.wanted.resize(n, usize::from(words.is_empty()));
        for view in words {
            for (example, row) in rows(view).enumerate() {
                let n_words = row.iter().map(|&w| w + 1).max().unwrap_or(0);
                let n_words = usize::try_from(n_words).unwrap_or(0);
                self.wanted[example] = self.wanted[example].max(n_words);
            }
        }
    }

    /// Checks the limits, and makes room for the records of a batch.
    fn make_room(&mut self, ids: TensorView, limits: Limits) -> Result<()> {
        let (mut n_examples, mut n_floats) = (self.places.len(), self.floats.len());
        // An example twice in one batch counts twice here, which a limit can bear.
        for (id, &n_units) in ids.ints().zip(&self.wanted) {
            let place = self.places.get(&id);
            n_examples += usize::from(place.is_none());
            if place.is_none_or(|p| p.n_units < n_units) {
                n_floats = n_floats.saturating_add(self.record_len(n_units));
            }
        }
        let full = |what: &str, allowed: String| {
            Err(Error::state(format!(
                "mutual learning's memory is full: the option 'mutual.{what}' allows {allowed}; \
                 raise it or choose another teacher"
            )))
        };
        if n_examples > limits.examples {
            return full("memory_examples", format!("{} examples", limits.examples));
        }
        if (n_floats as u64).saturating_mul(4) > limits.bytes {
            return full("memory_bytes", format!("{} bytes", limits.bytes));
        }
        self.places.try_reserve(n_examples - self.places.len())?;
        self.floats.reserve(n_floats)
    }

    /// The example's record, with at least `n_units`. One that grows moves to the end.
    fn place_of(&mut self, id: i64, n_units: usize) -> Place {
        let old = self.places.get(&id).copied();
        if let Some(place) = old.filter(|p| p.n_units >= n_units) {
            return place;
        }
        let at = self.floats.len();
        self.floats.extend(self.record_len(n_units));
        if let Some(old) = old {
            self.floats.copy(old.at, self.record_len(old.n_units), at);
        }
        let place = Place { at, n_units };
        self.places.insert(id, place);
        place
    }

    fn record(&mut self, place: Place) -> &mut [f32] {
        let n = self.record_len(place.n_units);
        self.floats.get_mut(place.at, n)
    }

    fn add_classes(&mut self, place: Place, row: usize, models: &[Visitor], decay: f32) {
        let record = self.record(place);
        record.iter_mut().for_each(|s| *s *= decay);
        record[0] += 1.0;
        for (weight, _, prediction) in models {
            let sums = record[1..].iter_mut().zip(prediction.row(row));
            sums.for_each(|(s, q)| *s += weight * q);
        }
    }

    /// The mean of each word is over the models that have it.
    fn add_words(
        &mut self,
        place: Place,
        example: usize,
        models: &[Visitor],
        words: &[TensorView],
        decay: f32,
    ) {
        let mut present = std::mem::take(&mut self.present);
        let mut tokens = std::mem::take(&mut self.tokens);
        present.clear();
        present.resize(place.n_units, 0.0);
        for ((weight, ..), words) in models.iter().zip(words) {
            first_tokens(words, example, &mut tokens);
            let all = present.iter_mut().zip(&tokens).filter(|(_, t)| **t != NOWHERE);
            all.for_each(|(sum, _)| *sum += weight);
        }
        let unit = self.layout().1;
        let record = self.record(place);
        for (entry, _) in record.chunks_exact_mut(unit).zip(&present).filter(|(_, w)| **w > 0.0) {
            entry.iter_mut().for_each(|s| *s *= decay);
            entry[0] += 1.0;
        }
        for ((weight, _, prediction), words) in models.iter().zip(words) {
            first_tokens(words, example, &mut tokens);
            for ((entry, &token), total) in record.chunks_exact_mut(unit).zip(&tokens).zip(&present)
            {
                if token != NOWHERE && *total > 0.0 {
                    let sums = entry[1..].iter_mut().zip(prediction.row(token));
                    sums.for_each(|(s, q)| *s += weight / total * q);
                }
            }
        }
        (self.present, self.tokens) = (present, tokens);
    }

    fn add_spans(
        &mut self,
        place: Place,
        example: usize,
        models: &[Visitor],
        words: &[TensorView],
        decay: f32,
    ) {
        let mut mass = std::mem::take(&mut self.mass);
        let record = self.record(place);
        record.iter_mut().for_each(|s| *s *= decay);
        record[0] += 1.0;
        for ((weight, _, prediction), words) in models.iter().zip(words) {
            for part in 0..2 {
                let row = prediction.row(part * words.shape[0] + example);
                word_masses(words, example, row, &mut mass);
                let sums = record[1..].iter_mut().skip(part).step_by(2).zip(&mass);
                sums.for_each(|(s, q)| *s += weight * q);
            }
        }
        self.mass = mass;
    }

    /// Adds all as a file.
    pub fn add_to<'a>(&'a self, files: &mut Files<'a>, name: &str) -> Result<()> {
        let mut all = self.places.iter().map(|(&id, &p)| (id, p)).gathered()?;
        all.sort_unstable_by_key(|&(id, _)| id);
        let ids = all.iter().map(|&(id, _)| id).gathered()?;
        let places = all.iter().flat_map(|(_, p)| [p.at as i64, p.n_units as i64]).gathered()?;
        let n_classes = [self.n_classes as i64];
        let sums = self.floats.get(0, self.floats.len());
        files.add_floats(name, "sums", sums);
        files.add_ints("classes", &[1], copied(&n_classes)?);
        files.add_ints("examples", &[all.len()], ids);
        files.add_ints("places", &[all.len(), 2], places);
        Ok(())
    }

    /// Reads what [`Memory::add_to`] added, and makes room for it; nothing else changes.
    pub fn read(&mut self, file: Weights) -> Result<SavedMemory> {
        let [n_classes, ids, places] =
            ["classes", "examples", "places"].map(|name| file.tensor(name));
        let (n_classes, ids, places) = (n_classes?, ids?, places?);
        let n_classes = n_classes.as_slice::<i64>()?.first().copied();
        let n_classes = n_classes.and_then(|n| usize::try_from(n).ok());
        let sums = file.find("sums").filter(|s| s.dtype == DType::F32);
        let (Some(n_classes), Some(sums)) = (n_classes, sums) else {
            return Err(Error::data("it is no memory of predictions"));
        };
        let bad = first_non_finite(sums.dtype, sums.bytes);
        if let Some(at) = bad.or_else(|| first_negative(sums.dtype, sums.bytes)) {
            return Err(Error::data(format!("the sums are out of their range at element {at}")));
        }
        let n_floats = sums.bytes.len() / 4;
        let unit = if self.has_spans() { Some(2) } else { n_classes.checked_add(1) };
        let header = usize::from(self.has_spans());
        let unit = unit.ok_or_else(|| Error::data(format!("{n_classes} classes")))?;
        let (ids, places) = (ids.as_slice::<i64>()?, places.as_slice::<i64>()?);
        let (pairs, _) = places.as_chunks::<2>();
        if pairs.len() != ids.len() {
            return Err(Error::shape(format!("{} records of {} ids", pairs.len(), ids.len())));
        }
        let place = |(&id, &[at, n_units]): (&i64, &[i64; 2])| {
            let (at, n_units) = (usize::try_from(at).ok()?, usize::try_from(n_units).ok()?);
            let end = n_units.checked_mul(unit)?.checked_add(header)?.checked_add(at)?;
            (end <= n_floats).then_some((id, Place { at, n_units }))
        };
        let mut known = HashMap::new();
        known.try_reserve(ids.len())?;
        for pair in ids.iter().zip(pairs) {
            let outside = || Error::data("a record lies outside of the sums");
            let (id, place) = place(pair).ok_or_else(outside)?;
            known.insert(id, place);
        }
        self.floats.reserve(n_floats)?;
        Ok(SavedMemory { n_classes, places: known, file })
    }

    /// Goes on from what was read, or from nothing.
    pub fn restore(&mut self, saved: Option<SavedMemory>) {
        self.floats.clear();
        self.places.clear();
        self.n_classes = 0;
        let Some(saved) = saved else { return };
        if let Some(sums) = saved.file.find("sums") {
            self.floats.extend(sums.bytes.len() / 4);
            let all = self.floats.get_mut(0, sums.bytes.len() / 4);
            bytemuck::cast_slice_mut::<f32, u8>(all).copy_from_slice(sums.bytes);
        }
        (self.n_classes, self.places) = (saved.n_classes, saved.places);
    }
}

/// Checks that a model's rows are those of its examples; gives its words unless it is about whole
/// texts.
fn check_shape<'a>(
    kind: &LossKind,
    examples: &Examples<'a>,
    ids: TensorView,
    shape: (usize, usize),
) -> Result<Option<TensorView<'a>>> {
    let n = ids.ints().count();
    let words = match kind {
        LossKind::SequenceClassification => None,
        _ => Some(examples.wanted_words()?),
    };
    let fits = match &words {
        None => shape.0 == n,
        Some(w) if *kind == LossKind::QuestionAnswering => {
            w.shape[0] == n && shape == (2 * n, w.shape[1])
        }
        Some(w) => w.shape[0] == n && shape.0 == n * w.shape[1],
    };
    if fits {
        return Ok(words);
    }
    Err(Error::shape(format!(
        "model '{}': {n} example ids{} for predictions of shape {shape:?}",
        examples.model,
        words.map_or_else(String::new, |w| format!(" and word ids of shape {:?}", w.shape)),
    )))
}

/// The elements of an i64 view by row.
fn rows<'a>(view: &TensorView<'a>) -> impl Iterator<Item = Vec<i64>> + 'a {
    let length = view.shape[1].max(1) * 8;
    view.data
        .chunks_exact(length)
        .map(|row| row.as_chunks::<8>().0.iter().map(|b| i64::from_ne_bytes(*b)).collect())
}

/// Numbers in memory or in a file.
#[derive(Debug)]
enum Floats {
    Ram(Vec<f32>),
    /// With how many of the file's numbers are in use.
    File(Scratch, usize),
}

impl Floats {
    fn len(&self) -> usize {
        match self {
            Self::Ram(all) => all.len(),
            Self::File(_, n) => *n,
        }
    }

    /// Makes room for `n` numbers in all.
    fn reserve(&mut self, n: usize) -> Result<()> {
        match self {
            Self::Ram(all) => Ok(all.try_reserve(n.saturating_sub(all.len()))?),
            Self::File(file, _) => file.grow(n.saturating_mul(4)),
        }
    }

    /// Adds `n` zeroes, for which there is room.
    fn extend(&mut self, n: usize) {
        match self {
            Self::Ram(all) => all.resize(all.len() + n, 0.0),
            Self::File(file, used) => {
                file.bytes_mut()[4 * *used..4 * (*used + n)].fill(0);
                *used += n;
            }
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Ram(all) => all.clear(),
            Self::File(_, used) => *used = 0,
        }
    }

    fn get(&self, at: usize, n: usize) -> &[f32] {
        match self {
            Self::Ram(all) => &all[at..at + n],
            Self::File(file, _) => bytemuck::cast_slice(&file.bytes()[4 * at..4 * (at + n)]),
        }
    }

    fn get_mut(&mut self, at: usize, n: usize) -> &mut [f32] {
        match self {
            Self::Ram(all) => &mut all[at..at + n],
            Self::File(file, _) => {
                bytemuck::cast_slice_mut(&mut file.bytes_mut()[4 * at..4 * (at + n)])
            }
        }
    }

    fn copy(&mut self, from: usize, n: usize, to: usize) {
        let end = self.len();
        self.get_mut(0, end).copy_within(from..from + n, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autodiff::LossSpec;
    use crate::error::Kind;
    use crate::tensor::Tensor;

    const LIMITS: Limits = Limits { decay: 0.5, examples: 3, bytes: 400 };

    /// A visit of one model with the words `words` of each example, which predicts `p` for class 1
    /// of every token.
    fn visit(memory: &mut Memory, ids: &[i64], words: &[&[i64]], p: f32) -> Result<()> {
        let spec = LossSpec::new(LossKind::TokenClassification);
        let ids = Tensor::from_slice(&[ids.len()], ids).unwrap();
        let shape = [words.len(), words[0].len()];
        let words = Tensor::from_slice(&shape, &words.concat()).unwrap();
        let batch = [TensorView::of("example_ids", &ids), TensorView::of("word_ids", &words)];
        let examples = Examples::new("a", &spec, &batch);
        let probabilities = [1.0 - p, p].repeat(shape[0] * shape[1]);
        let prediction = Prediction { n_classes: 2, probabilities };
        memory.visit(&[(1.0, examples, &prediction)], LIMITS)
    }

    /// N and the sum of class 1 of each word of an example.
    fn of(memory: &Memory, id: i64) -> Vec<[f32; 2]> {
        let place = memory.places[&id];
        let record = memory.floats.get(place.at, 3 * place.n_units);
        record.chunks(3).map(|unit| [unit[0], unit[2]]).collect()
    }

    #[test]
    fn records_grow_in_memory_and_in_files_and_are_restored() {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, path) = (dir.path().join("scratch"), dir.path().join("m.safetensors"));
        for file in [None, Some(scratch.as_path())] {
            let new = || Memory::new(&LossKind::TokenClassification, file).unwrap();
            let mut memory = new();
            visit(&mut memory, &[7, -2], &[&[0, -1, -1], &[-1, 1, 0]], 0.25).unwrap();
            visit(&mut memory, &[7], &[&[-1, 2, -1]], 0.75).unwrap();
            visit(&mut memory, &[7], &[&[0, 2, -1]], 0.5).unwrap();
            let seven = [[1.5, 0.625], [0.0, 0.0], [1.5, 0.875]];
            let check = |memory: &Memory| {
                assert_eq!(of(memory, 7), seven);
                assert_eq!(of(memory, -2), [[1.0, 0.25], [1.0, 0.25]]);
            };
            check(&memory);
            write(&memory, dir.path());
            let full = visit(&mut memory, &[8, 9], &[&[0], &[0]], 0.5).unwrap_err();
            assert!(full.message().contains("mutual.memory_examples"), "{full}");
            let full = visit(&mut memory, &[8], &[&[99]], 0.5).unwrap_err();
            assert!(full.message().contains("mutual.memory_bytes"), "{full}");
            check(&memory);
            drop(memory);
            let mut again = new();
            visit(&mut again, &[5], &[&[0]], 0.5).unwrap();
            let saved = again.read(Weights::read(&path).unwrap()).unwrap();
            again.restore(Some(saved));
            check(&again);
            assert!(!again.places.contains_key(&5));
            again.restore(None);
            assert!(again.places.is_empty() && again.floats.len() == 0);
        }
        assert!(!scratch.exists());
    }

    fn write(memory: &Memory, dir: &Path) {
        let mut files = Files::default();
        memory.add_to(&mut files, "m.safetensors").unwrap();
        files.write(dir).unwrap();
    }

    #[test]
    fn damaged_memories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        let mut memory = Memory::new(&LossKind::TokenClassification, None).unwrap();
        visit(&mut memory, &[7], &[&[0]], 0.25).unwrap();
        memory.places.insert(9, Place { at: 1, n_units: 1 });
        write(&memory, dir.path());
        let outside = memory.read(Weights::read(&path).unwrap()).err().unwrap();
        assert_eq!(outside.kind(), Kind::InvalidData);
        assert!(outside.message().contains("outside of the sums"), "{outside}");
    }
}
