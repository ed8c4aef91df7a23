//! Reader for extractive question answering: the nested JSON of SQuAD, one object a line, or an
//! array of objects.
//!
//! `answer_start` counts characters (Unicode code points) in these files; [`Answer::start`] counts
//! bytes.

use crate::error::{Context, Error, Result};
use crate::memory::push;
use crate::text::corpus::examples::{Answer, Corpus, Example, TextTask};
use crate::text::corpus::json::{for_each_object, list, lookup, string};
use crate::text::corpus::labels::LabelMap;
use crate::text::corpus::paths::find;
use crate::text::text_file::{at, read_text};
use serde_json::Value;
use std::path::Path;

impl Corpus {
    /// Reads questions about contexts.
    ///
    /// A file that is one object with `data` is read as SQuAD: `data[].paragraphs[]` with
    /// `context` and `qas[]` of `id`, `question`, `answers[]` of `text` and `answer_start`; a
    /// question that `is_impossible` has none. Any other file has an object on each line, or is one
    /// array of objects, or has that array as `data`; each has `context`, `question`, and one of:
    /// `answers`, a list of objects as above; `answers`, an object of two lists `text` and
    /// `answer_start`; `answer` and `answer_start`. Without any of these the answer is not known.
    /// `path` may be a pattern of several files.
    ///
    /// Errors: `InvalidData` with the line or the path in the document: a missing key, lists of
    /// answers of different lengths, an answer that is not in the context where `answer_start`
    /// says, a file without questions.
    pub fn read_question_answering(path: &Path) -> Result<Self> {
        let mut examples = Vec::new();
        for path in find(path)? {
            let found = examples_of(&path, &read_text(&path)?)?;
            if found.is_empty() {
                return Err(at(&path, 1, "the file holds no questions"));
            }
            examples.try_reserve(found.len())?;
            examples.extend(found);
        }
        Corpus::new(TextTask::QuestionAnswering, LabelMap::default(), examples)
    }
}

fn examples_of(path: &Path, text: &str) -> Result<Vec<Example>> {
    let nested = text.trim_start().starts_with('{').then(|| serde_json::from_str::<Value>(text));
    if let Some(document) = nested.and_then(Result::ok).filter(|v| v.get("data").is_some()) {
        return squad(&document).map_err(|e| e.context(path.display()));
    }
    let mut examples = Vec::new();
    for_each_object(path, text, |_, value| {
        push(&mut examples, question(string(value, "context", "")?, value)?)?;
        Ok(())
    })?;
    Ok(examples)
}

fn squad(document: &Value) -> Result<Vec<Example>> {
    let mut examples = Vec::new();
    for (a, article) in list(document, "data")?.iter().enumerate() {
        if article.get("context").is_some() {
            let flat = question(string(article, "context", "")?, article);
            push(&mut examples, flat.context(|| format!("data[{a}]"))?)?;
            continue;
        }
        let paragraphs = list(article, "paragraphs").context(|| format!("data[{a}]"))?;
        for (p, paragraph) in paragraphs.iter().enumerate() {
            let path = || format!("data[{a}].paragraphs[{p}]");
            let context = string(paragraph, "context", "").context(path)?;
            for (q, qa) in list(paragraph, "qas").context(path)?.iter().enumerate() {
                let path = || format!("data[{a}].paragraphs[{p}].qas[{q}]");
                push(&mut examples, question(context, qa).context(path)?)?;
            }
        }
    }
    Ok(examples)
}

/// A question from an object with `question` and its answers in any of the forms.
fn question(context: &str, from: &Value) -> Result<Example> {
    let impossible = from.get("is_impossible").and_then(Value::as_bool).unwrap_or(false);
    let pairs: Option<Vec<(&Value, &Value)>> = match from.get("answers") {
        _ if impossible => Some(Vec::new()),
        Some(Value::Array(all)) => {
            let mut pairs = Vec::with_capacity(all.len());
            for (i, a) in all.iter().enumerate() {
                let of = |key: &str| lookup(a, key, "").map_err(|_| missing(key, Some(i)));
                pairs.push((of("text")?, of("answer_start")?));
            }
            Some(pairs)
        }
        Some(object @ Value::Object(_)) => {
            let (texts, starts) = (list(object, "text")?, list(object, "answer_start")?);
            if texts.len() != starts.len() {
                return Err(Error::data(format!(
                    "'answers' has {} in 'text', but {} in 'answer_start'",
                    texts.len(),
                    starts.len()
                )));
            }
            Some(texts.iter().zip(starts).collect())
        }
        Some(_) => return Err(Error::data("'answers' is neither a list nor an object")),
        None => match (from.get("answer"), from.get("answer_start")) {
            (Some(text), Some(start)) => Some(vec![(text, start)]),
            (Some(_), None) => return Err(missing("answer_start", None)),
            (None, _) => None,
        },
    };
    let answers = pairs
        .map(|pairs| pairs.into_iter().map(|(text, start)| answer(context, text, start)).collect());
    Ok(Example::Question {
        id: from.get("id").map(scalar).unwrap_or_default(),
        context: context.to_owned(),
        question: string(from, "question", "")?.to_owned(),
        answers: answers.transpose()?,
    })
}

fn missing(key: &str, answer: Option<usize>) -> Error {
    let of = answer.map_or(String::new(), |i| format!(" from answer {i}"));
    Error::data(format!("'{key}' is missing{of}"))
}

fn answer(context: &str, text: &Value, start: &Value) -> Result<Answer> {
    let text = text.as_str().ok_or_else(|| Error::data("an answer's text is not a string"))?;
    let chars = start
        .as_u64()
        .ok_or_else(|| Error::data("an answer's 'answer_start' is not a position"))?;
    let at = context.char_indices().map(|(byte, _)| byte).nth(chars as usize);
    let start = at
        .filter(|&b| context[b..].starts_with(text))
        .ok_or_else(|| Error::data(format!("the answer '{text}' is not at character {chars}")))?;
    Ok(Answer { text: text.to_owned(), start })
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str) -> Result<Corpus> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.json");
        std::fs::write(&path, content).unwrap();
        Corpus::read_question_answering(&path)
    }

    fn check(content: &str, expect: Option<&[(&str, usize)]>) {
        let corpus = read(content).unwrap();
        let Example::Question { answers, .. } = &corpus.examples()[0] else { unreachable!() };
        let flat = |a: &Answer| (a.text.clone(), a.start);
        let got = answers.as_ref().map(|all| all.iter().map(flat).collect::<Vec<_>>());
        let flat = |&(text, start): &(&str, usize)| (text.to_owned(), start);
        let expect = expect.map(|all| all.iter().map(flat).collect::<Vec<_>>());
        assert_eq!(got, expect, "{content}");
    }

    #[test]
    fn every_form_of_answers() {
        // The answer is at character 7, byte 9.
        let head = "{\"context\":\"In \u{e9}t\u{e9} 1907.\",\"question\":\"when?\"";
        let line = |rest: &str| format!("{head}{rest}}}\n");
        let one = "{\"text\":\"1907\",\"answer_start\":7}";
        let found = Some(&[("1907", 9)][..]);
        check(&line(&format!(",\"answers\":[{one},{one}]")), Some(&[("1907", 9), ("1907", 9)]));
        check(&line(",\"answers\":{\"text\":[\"1907\"],\"answer_start\":[7]}"), found);
        check(&line(",\"answer\":\"1907\",\"answer_start\":7"), found);
        check(&line(",\"answers\":[]"), Some(&[]));
        check(&line(""), None);
        let nested = "{\"data\":[{\"paragraphs\":[{\"context\":\"in 1907\",\"qas\":[{\"id\":5,\
            \"question\":\"?\",\"answers\":[{\"text\":\"1907\",\"answer_start\":3}]}]}]}]}";
        check(nested, Some(&[("1907", 3)]));
        check(&nested.replace("\"id\":5", "\"is_impossible\":true"), Some(&[]));
        let object = line(",\"answer\":\"1907\",\"answer_start\":7");
        check(&format!("[\n{object},\n{object}]"), found);
        check(&format!("{{\"version\":1,\"data\":[{object}]}}"), found);
    }

    #[test]
    fn errors_say_where() {
        let e = |content: &str| read(content).unwrap_err().message().to_owned();
        let good = "{\"context\":\"a\",\"question\":\"b\"}\n";
        let bare = e(&format!("{good}{{\"context\":\"a\"}}"));
        assert!(bare.ends_with(":2: no key 'question'; the keys are 'context'"), "{bare}");
        let lists = "\"answers\":{\"text\":[\"a\",\"a\"],\"answer_start\":[0]}}";
        let e_lists = e(&format!("{good}{},{lists}", good.trim_end().trim_end_matches('}')));
        assert!(e_lists.ends_with(":2: 'answers' has 2 in 'text', but 1 in 'answer_start'"));
        assert!(e(&format!("{good}{{")).contains("q.json:2: "));
        let wrong = "{\"context\":\"abc\",\"question\":\"b\",\"answer\":\"c\",\"answer_start\":1}";
        assert!(e(wrong).ends_with(":1: the answer 'c' is not at character 1"));
        assert!(
            e(&wrong.replace(",\"answer_start\":1", "")).ends_with(":1: 'answer_start' is missing")
        );
        let listed = "{\"context\":\"abc\",\"question\":\"b\",\"answers\":[{\"text\":\"c\"}]}";
        assert!(e(listed).ends_with(":1: 'answer_start' is missing from answer 0"));
        let unread = listed.replace("\"c\"}", "7,\"answer_start\":1}");
        assert!(e(&unread).ends_with(":1: an answer's text is not a string"));
        assert!(e("").ends_with("the file holds no questions"));
        assert!(
            e("{\"data\":[{\"paragraphs\":[{}]}]}")
                .ends_with("data[0].paragraphs[0]: no key 'context'; the object is empty")
        );
    }
}
