//! Scores of named entities, by the rules of the CoNLL shared tasks' script `conlleval`: an entity
//! is right when its type and both ends are.

use crate::error::{Error, Result};
use crate::text::metrics::counts::{Counts, Score, ratio, same_length};
use std::collections::{BTreeMap, HashSet};

/// Scores of entities.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EntityScores {
    /// Over all entities.
    pub overall: Score,
    /// For each type, by name.
    pub by_type: BTreeMap<String, Score>,
    /// Fraction of words with the right tag.
    pub accuracy: f64,
}

/// What counts as an entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EntityMode {
    /// As `conlleval`: see [`entities`].
    #[default]
    Lenient,
    /// As `seqeval` in strict mode: see [`strict_entities`].
    Strict,
}

/// [`entity_scores_in`] lenient mode.
///
/// Error: the numbers of sentences or words differ.
pub fn entity_scores<S: AsRef<str>>(
    predictions: &[Vec<S>],
    labels: &[Vec<S>],
) -> Result<EntityScores> {
    entity_scores_in(EntityMode::Lenient, predictions, labels)
}

/// Precision, recall and F1 of the entities in tagged sentences; tags are BIO, IOB or BIOES.
///
/// Error: the numbers of sentences or words differ.
pub fn entity_scores_in<S: AsRef<str>>(
    mode: EntityMode,
    predictions: &[Vec<S>],
    labels: &[Vec<S>],
) -> Result<EntityScores> {
    let bioes = labels
        .iter()
        .chain(predictions)
        .flatten()
        .any(|tag| matches!(tag.as_ref().split_once('-'), Some(("E" | "S", _))));
    let entities = |tags: &[S]| match mode {
        EntityMode::Lenient => entities(tags),
        EntityMode::Strict => strict_entities(tags, bioes),
    };
    same_length(predictions.len(), labels.len())?;
    let mut types: BTreeMap<String, Counts> = BTreeMap::new();
    let (mut n_correct, mut n_words) = (0, 0);
    for (i, (p, label)) in predictions.iter().zip(labels).enumerate() {
        same_length(p.len(), label.len()).map_err(|e| e.context(format!("sentence {i}")))?;
        n_correct += p.iter().zip(label).filter(|(p, l)| p.as_ref() == l.as_ref()).count();
        n_words += label.len();
        let (predicted, labelled) = (entities(p), entities(label));
        for e in &predicted {
            types.entry(e.entity_type.clone()).or_default().n_predicted += 1;
        }
        for e in &labelled {
            types.entry(e.entity_type.clone()).or_default().support += 1;
        }
        let labelled: HashSet<Entity> = labelled.into_iter().collect();
        for entity in predicted.into_iter().filter(|e| labelled.contains(e)) {
            types.entry(entity.entity_type).or_default().n_correct += 1;
        }
    }
    let sum = types.values().fold(Counts::default(), |a, c| Counts {
        n_correct: a.n_correct + c.n_correct,
        n_predicted: a.n_predicted + c.n_predicted,
        support: a.support + c.support,
    });
    Ok(EntityScores {
        overall: sum.into(),
        by_type: types.into_iter().map(|(name, c)| (name, c.into())).collect(),
        accuracy: ratio(n_correct, n_words),
    })
}

/// [`entity_scores`] of sequences of tag ids, all of `length` entries one after the other; `tags`
/// are the names. Entries whose label is negative (such as -100) are left out.
///
/// Errors: the lengths differ or are no multiple of `length`; an id that is not one of the tags.
pub fn entity_scores_of_ids<S: AsRef<str>>(
    predictions: &[i64],
    labels: &[i64],
    length: usize,
    tags: &[S],
) -> Result<EntityScores> {
    entity_scores_of_ids_in(EntityMode::Lenient, predictions, labels, length, tags)
}

/// [`entity_scores_of_ids`] in a mode.
///
/// Errors: as [`entity_scores_of_ids`].
pub fn entity_scores_of_ids_in<S: AsRef<str>>(
    mode: EntityMode,
    predictions: &[i64],
    labels: &[i64],
    length: usize,
    tags: &[S],
) -> Result<EntityScores> {
    same_length(predictions.len(), labels.len())?;
    if length == 0 || !labels.len().is_multiple_of(length) {
        let n = labels.len();
        return Err(Error::invalid(format!("{n} labels are not sequences of length {length}")));
    }
    let name = |what: &str, index: usize, id: i64| {
        let found = usize::try_from(id).ok().and_then(|id| tags.get(id)).map(AsRef::as_ref);
        let n = tags.len();
        found.ok_or_else(|| {
            Error::invalid(format!("{what}[{index}] is {id}, but there are {n} tags"))
        })
    };
    let mut sentences = [Vec::new(), Vec::new()];
    for start in (0..labels.len()).step_by(length) {
        let counted = || (start..start + length).filter(|&i| labels[i] >= 0);
        let predicted = counted().map(|i| name("predictions", i, predictions[i]));
        sentences[0].push(predicted.collect::<Result<Vec<_>>>()?);
        let labelled = counted().map(|i| name("labels", i, labels[i]));
        sentences[1].push(labelled.collect::<Result<Vec<_>>>()?);
    }
    entity_scores_in(mode, &sentences[0], &sentences[1])
}

/// An entity of a sentence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entity {
    /// Its type, e.g. `PER`.
    pub entity_type: String,
    /// Its first word.
    pub start: usize,
    /// The word after its last.
    pub end: usize,
}

/// The entities of a sentence's tags. An `I-X` that continues no entity of its type begins one.
pub fn entities<S: AsRef<str>>(tags: &[S]) -> Vec<Entity> {
    let mut all: Vec<Entity> = Vec::new();
    let mut open = false;
    let (mut before, mut before_type) = ("O", "");
    for (i, tag) in tags.iter().map(AsRef::as_ref).enumerate() {
        let (prefix, entity_type) = match tag.split_once('-') {
            Some(parts) => parts,
            None => (tag, ""),
        };
        let outside = prefix == "O";
        let begins = matches!(prefix, "B" | "S")
            || entity_type != before_type
            || matches!(before, "O" | "E" | "S");
        if open && (outside || begins) {
            open = false;
        }
        if !outside && begins {
            all.push(Entity { entity_type: entity_type.to_owned(), start: i, end: i });
            open = true;
        }
        if let Some(last) = all.last_mut().filter(|_| open) {
            last.end = i + 1;
        }
        (before, before_type) = (prefix, entity_type);
    }
    all
}

/// The entities of a sentence's tags that are well-formed: `B-X` and the `I-X` that follow it
/// (seqeval's scheme IOB2), or with `bioes` either `S-X`, or `B-X`, any number of `I-X`, and `E-X`
/// (its scheme IOBES). What does not form one is no entity.
pub fn strict_entities<S: AsRef<str>>(tags: &[S], bioes: bool) -> Vec<Entity> {
    let tag = |i: usize| tags.get(i).and_then(|tag| tag.as_ref().split_once('-'));
    let mut all = Vec::new();
    let mut i = 0;
    while i < tags.len() {
        let start = i;
        i += 1;
        let (is_single, entity_type) = match tag(start) {
            Some(("B", entity_type)) => (false, entity_type),
            Some(("S", entity_type)) if bioes => (true, entity_type),
            _ => continue,
        };
        while !is_single && tag(i) == Some(("I", entity_type)) {
            i += 1;
        }
        let has_end = bioes && !is_single && tag(i) == Some(("E", entity_type));
        i += usize::from(has_end);
        if is_single || has_end || !bioes {
            all.push(Entity { entity_type: entity_type.to_owned(), start, end: i });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn entities_of_every_scheme() {
        let check = |text: &str, expect: &[(&str, usize, usize)]| {
            let got = entities(&tags(text));
            let got: Vec<_> =
                got.iter().map(|e| (e.entity_type.as_str(), e.start, e.end)).collect();
            assert_eq!(got, expect, "{text}");
        };
        check("B-PER I-PER O B-LOC", &[("PER", 0, 2), ("LOC", 3, 4)]);
        check("B-PER B-PER I-PER", &[("PER", 0, 1), ("PER", 1, 3)]);
        check("I-PER I-PER O I-LOC I-PER", &[("PER", 0, 2), ("LOC", 3, 4), ("PER", 4, 5)]);
        check("B-PER I-LOC", &[("PER", 0, 1), ("LOC", 1, 2)]);
        check(
            "S-PER S-PER B-X I-X E-X I-X",
            &[("PER", 0, 1), ("PER", 1, 2), ("X", 2, 5), ("X", 5, 6)],
        );
        check("B-X S-X I-X", &[("X", 0, 1), ("X", 1, 2), ("X", 2, 3)]);
        check("O O", &[]);
    }

    #[test]
    fn strict_entities_are_well_formed() {
        let check = |text: &str, bioes, expect: &[(&str, usize, usize)]| {
            let got = strict_entities(&tags(text), bioes);
            let got: Vec<_> =
                got.iter().map(|e| (e.entity_type.as_str(), e.start, e.end)).collect();
            assert_eq!(got, expect, "{text}");
        };
        check("I-PER I-PER O B-LOC I-PER", false, &[("LOC", 3, 4)]);
        check("B-PER I-PER B-PER I-LOC", false, &[("PER", 0, 2), ("PER", 2, 3)]);
        check("S-X B-X I-X E-X B-X I-X O", true, &[("X", 0, 1), ("X", 1, 4)]);
        check("B-X E-Y S-Y I-X E-X", true, &[("Y", 2, 3)]);
    }

    #[test]
    fn entity_scores_by_hand() {
        let labels = vec![tags("B-PER I-PER O B-LOC"), tags("O B-ORG O")];
        let predictions = vec![tags("B-PER I-PER O O"), tags("B-LOC B-ORG I-ORG")];
        let s = entity_scores(&predictions, &labels).unwrap();
        // 3 predicted (PER right, LOC and ORG wrong), 3 labelled.
        assert_eq!(s.overall.precision, 1.0 / 3.0);
        assert_eq!(s.overall.recall, 1.0 / 3.0);
        assert_eq!(s.overall.f1, 1.0 / 3.0);
        assert_eq!(s.by_type["PER"].f1, 1.0);
        assert_eq!(s.by_type["LOC"].f1, 0.0);
        assert_eq!(s.accuracy, 4.0 / 7.0);
        assert!(entity_scores(&predictions[..1], &labels).is_err());
    }

    #[test]
    fn ids_without_a_label_are_left_out() {
        let tags = ["O", "B-PER", "I-PER"];
        let (labels, predictions) = ([1, -100, 2, 0, 1, -100], [1, 0, 2, 0, 2, 7]);
        let s = entity_scores_of_ids(&predictions, &labels, 3, &tags).unwrap();
        // PER over words 0 and 2 of the first row; at the end of the second an I-PER begins one.
        assert_eq!((s.overall.n_correct, s.overall.n_predicted, s.overall.support), (2, 2, 2));
        assert_eq!(s.accuracy, 0.75);
        let fails = |p: &[i64], l: &[i64], length, text: &str| {
            let e = entity_scores_of_ids(p, l, length, &tags).unwrap_err();
            assert!(e.message().contains(text), "{e}");
        };
        fails(&[0, 3], &[0, 0], 2, "predictions[1] is 3, but there are 3 tags");
        fails(&[0, -1], &[0, 0], 2, "predictions[1] is -1");
        fails(&[0, 0], &[0, 3], 2, "labels[1] is 3");
        fails(&[0, 0], &[0, 0], 0, "length 0");
        fails(&[0, 0, 0], &[0, 0, 0], 2, "length 2");
    }
}
