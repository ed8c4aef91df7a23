//! Generated sentences with named entities, and questions about generated contexts, for trying
//! these tasks out where no real data can be had.
//!
//! Names are put together from syllables, so that some of those in held-out sentences are new and
//! only the words around them tell what they name.

use crate::error::{Error, Result};
use crate::text::LabelMap;
use crate::text::corpus::examples::{Answer, Corpus, Example, TextTask};
use crate::text::corpus::synthetic::{MAX_SENTENCES, pick};
use crate::text::rng::{Purpose, Stream};

const HEADS: &[&str] = &["Ar", "Bel", "Cor", "Dal", "El", "Fen", "Gar", "Hol", "Is", "Jor", "Kel"];
const MIDDLES: &[&str] = &["a", "e", "i", "o", "ba", "di", "le", "mo", "ri", "sa", "va"];
/// How the names of persons, places and organisations end.
const PERSON: &[&str] = &["n", "na", "ra", "lin", "th", "sson"];
const PLACE: &[&str] = &["burg", "field", "ton", "wick", "haven"];
const FIRMS: &[&str] = &["Works", "Bank", "Union", "Museum"];

const VERBS: &[&str] = &["bought", "painted", "found", "sold", "built", "lost"];
const COLOURS: &[&str] = &["red", "blue", "green", "yellow", "white", "black"];
const THINGS: &[&str] = &["boat", "house", "clock", "bridge", "cart", "lamp", "piano", "gate"];
const FILLERS: &[&str] = &[
    "The weather was mild for the season .",
    "Nobody wrote about it in the papers .",
    "It had rained the whole morning .",
    "The roads were closed for a week .",
];

impl Corpus {
    /// Generates `n` sentences whose words have the tags O, B- and I- of PER, LOC and ORG. The same
    /// seed always gives the same sentences.
    ///
    /// Error: `n` is 0 or above ten million.
    pub fn synthetic_entities(n: usize, seed: u64) -> Result<Self> {
        check(n, "sentences")?;
        let names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"];
        let mut rng = Stream::new(seed, Purpose::Synthetic, 1, 0);
        let examples = (0..n).map(|_| tagged(&mut rng)).collect();
        Self::new(TextTask::TokenClassification, LabelMap::from_names(names)?, examples)
    }

    /// Generates `n` questions with one answer each about contexts of a few sentences: who did
    /// something, where, when, and what colour a thing had. The same seed always gives the same
    /// questions.
    ///
    /// Error: `n` is 0 or above ten million.
    pub fn synthetic_questions(n: usize, seed: u64) -> Result<Self> {
        check(n, "questions")?;
        let mut rng = Stream::new(seed, Purpose::Synthetic, 2, 0);
        let examples = (0..n).map(|i| question(i, &mut rng)).collect();
        Self::new(TextTask::QuestionAnswering, LabelMap::default(), examples)
    }
}

fn check(n: usize, what: &str) -> Result<()> {
    if (1..=MAX_SENTENCES).contains(&n) {
        return Ok(());
    }
    Err(Error::invalid(format!("{n} {what}: give 1 to {MAX_SENTENCES}")))
}

fn name(ends: &[&'static str], rng: &mut Stream) -> String {
    [pick(HEADS, rng), pick(MIDDLES, rng), pick(ends, rng)].concat()
}

/// A sentence as words with the ids of their tags.
#[derive(Default)]
struct Tagged {
    words: Vec<String>,
    tags: Vec<u32>,
}

impl Tagged {
    fn say(&mut self, text: &str) {
        for word in text.split(' ') {
            self.words.push(word.to_owned());
            self.tags.push(0);
        }
    }

    /// An entity whose first word has the tag `first` and the others the tag after it.
    fn name(&mut self, words: &[String], first: u32) {
        for (i, word) in words.iter().enumerate() {
            self.words.push(word.clone());
            self.tags.push(first + u32::from(i > 0));
        }
    }

    fn person(&mut self, rng: &mut Stream) {
        let n = 1 + rng.below(2);
        self.name(&(0..n).map(|_| name(PERSON, rng)).collect::<Vec<_>>(), 1);
    }

    fn place(&mut self, rng: &mut Stream) {
        let new = (rng.below(4) == 0).then(|| "New".to_owned());
        self.name(&new.into_iter().chain([name(PLACE, rng)]).collect::<Vec<_>>(), 3);
    }

    /// It bears the name of a person or a place.
    fn firm(&mut self, rng: &mut Stream) {
        let of = if rng.below(2) == 0 { PERSON } else { PLACE };
        self.name(&[name(of, rng), pick(FIRMS, rng).to_owned()], 5);
    }
}

fn tagged(rng: &mut Stream) -> Example {
    let mut s = Tagged::default();
    match rng.below(6) {
        0 => {
            s.person(rng);
            s.say("moved to");
            s.place(rng);
            s.say(["last year", "in spring", "with a friend"][rng.below(3)]);
        }
        1 => {
            s.say("the");
            s.firm(rng);
            s.say("opened an office in");
            s.place(rng);
        }
        2 => {
            s.person(rng);
            s.say(pick(VERBS, rng));
            s.say(&format!("a {} {}", pick(COLOURS, rng), pick(THINGS, rng)));
        }
        3 => {
            s.say("in");
            s.place(rng);
            s.say(", people speak of");
            s.person(rng);
        }
        4 => {
            s.person(rng);
            s.say("works for the");
            s.firm(rng);
        }
        _ => s.say(&format!("the {} {} is for sale", pick(COLOURS, rng), pick(THINGS, rng))),
    }
    s.say(".");
    Example::Words { words: s.words, tags: s.tags }
}

/// A context of a fact and up to two other sentences, and a question about the fact.
fn question(index: usize, rng: &mut Stream) -> Example {
    let (person, place) = (name(PERSON, rng), name(PLACE, rng));
    let (verb, colour, thing) = (pick(VERBS, rng), pick(COLOURS, rng), pick(THINGS, rng));
    let year = (1800 + rng.below(200)).to_string();
    let fact = format!("{person} {verb} a {colour} {thing} in {place} in {year} .");
    let (question, answer) = match rng.below(4) {
        0 => (format!("Who {verb} the {thing} ?"), &*person),
        1 => (format!("Where was the {thing} {verb} ?"), &*place),
        2 => (format!("When was the {thing} {verb} ?"), &*year),
        _ => (format!("What colour was the {thing} ?"), colour),
    };
    let mut context = String::new();
    if rng.below(2) == 0 {
        context = format!("{} ", pick(FILLERS, rng));
    }
    // The words of a fact differ from each other, so that the first match is the answer.
    let start = context.len() + fact.find(answer).unwrap_or_default();
    context.push_str(&fact);
    if rng.below(2) == 0 {
        context.push(' ');
        context.push_str(pick(FILLERS, rng));
    }
    let answers = Some(vec![Answer { text: answer.to_owned(), start }]);
    Example::Question { id: index.to_string(), context, question, answers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn entities_are_reproducible_and_well_formed() {
        let corpus = Corpus::synthetic_entities(400, 3).unwrap();
        assert_eq!(corpus, Corpus::synthetic_entities(400, 3).unwrap());
        assert_ne!(corpus, Corpus::synthetic_entities(400, 4).unwrap());
        assert!(corpus.label_counts().iter().all(|&n| n > 10), "{:?}", corpus.label_counts());
        for example in corpus.examples() {
            let Example::Words { words, tags } = example else { unreachable!() };
            assert_eq!(words.len(), tags.len());
            let mut before = 0;
            for &tag in tags {
                // An I- tag, which is even, follows a tag of its type.
                assert!(tag == 0 || tag % 2 == 1 || before == tag || before == tag - 1);
                before = tag;
            }
        }
        assert!(Corpus::synthetic_entities(0, 0).is_err());
    }

    #[test]
    fn answers_are_in_their_contexts() {
        let corpus = Corpus::synthetic_questions(400, 3).unwrap();
        assert_eq!(corpus, Corpus::synthetic_questions(400, 3).unwrap());
        let mut kinds = BTreeSet::new();
        for example in corpus.examples() {
            let Example::Question { context, question, answers, .. } = example else {
                unreachable!()
            };
            let answer = &answers.as_ref().unwrap()[0];
            assert_eq!(&context[answer.start..][..answer.text.len()], answer.text);
            let around = &context[answer.start.saturating_sub(1)..][..answer.text.len() + 1];
            assert!(answer.start == 0 || around.starts_with(' '), "{context}: {}", answer.text);
            kinds.insert(question.split(' ').next().unwrap().to_owned());
        }
        assert_eq!(kinds.len(), 4);
        assert!(Corpus::synthetic_questions(usize::MAX, 0).is_err());
    }
}
