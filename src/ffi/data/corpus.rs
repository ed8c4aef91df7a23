//! Corpora: examples of one task, read from files or made from texts in memory.

use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Context, Error, Result};
use crate::ffi::core::args::{
    c_string, choice, flag, optional_output, optional_text, output, owned_text, reserved, slice,
    text, texts,
};
use crate::ffi::core::error::mmopt_error;
use crate::ffi::core::guard::{Cell, free, guard, guard_or, handle, into_raw, shared};
use crate::ffi::core::structs::{Options, init, options};
use crate::text::{
    Column, Corpus, CorpusFormat, CorpusHeader, CorpusOptions, Example, LabelMap, SampleBy,
    SplitOptions, SyntheticOptions, TextTask,
};

/// The examples of one task and the names of its classes or tags. Immutable.
pub struct mmopt_corpus(Cell<CorpusValue>);

handle!(mmopt_corpus, CorpusValue, "corpus");

/// A corpus with its label names as C texts.
pub struct CorpusValue {
    pub(crate) corpus: Arc<Corpus>,
    labels: Vec<CString>,
}

impl CorpusValue {
    fn new(corpus: Corpus) -> Result<Self> {
        let name = |n: &String| c_string(n, "a label");
        let labels = corpus.labels().names().iter().map(name).collect::<Result<_>>()?;
        Ok(Self { corpus: Arc::new(corpus), labels })
    }
}

fn new_handle(corpus: Corpus) -> Result<*mut mmopt_corpus> {
    Ok(into_raw(CorpusValue::new(corpus)?))
}

/// The format of a file of labelled texts.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_corpus_format {
    /// By the file's extension: .csv, .jsonl or .json, .parquet, else tabs; a folder for a folder.
    Auto = 0,
    /// Tab-separated, without quoting.
    Tsv = 1,
    /// Comma-separated, quoted by ".
    Csv = 2,
    /// One JSON object per line, or one array of objects.
    Jsonl = 3,
    /// A folder with a folder for each class, which has a text in each of its files, e.g.
    /// pos/1.txt; with unlabelled, a folder with a text in each file.
    Folder = 4,
    /// Apache Parquet, compressed by Snappy or not. UNSUPPORTED unless the library was built with
    /// the cargo feature parquet. Only from sources that are trusted: a damaged file may claim much
    /// memory.
    Parquet = 5,
}

/// Whether the first line of a table holds the names of its columns.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_corpus_header {
    /// Yes when a column is chosen by name, or when the label's field of the first line reads
    /// label, labels, class, category or sentiment.
    Auto = 0,
    /// The first line names the columns.
    Yes = 1,
    /// The first line is an example.
    No = 2,
}

/// How labelled texts are read. mmopt_corpus_options_init fills in the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mmopt_corpus_options {
    /// sizeof(mmopt_corpus_options).
    pub struct_size: usize,
    /// An mmopt_corpus_format; default MMOPT_CORPUS_FORMAT_AUTO.
    pub format: u32,
    /// An mmopt_corpus_header; default MMOPT_CORPUS_HEADER_AUTO.
    pub header: u32,
    /// The column of the text: its name, or its number from "0". In JSON and Parquet its key, or a
    /// path of keys and positions: data.text, answers.0.text. NULL (default): the first column, or
    /// the keys text or sentence in JSON and Parquet.
    pub text_column: *const c_char,
    /// The column of the second text of a pair; NULL (default): there is none.
    pub pair_column: *const c_char,
    /// The column of the label; NULL (default): the second column, or the key label.
    pub label_column: *const c_char,
    /// 1: the file has no labels. Default 0.
    pub unlabelled: u32,
    /// Must be 0.
    pub reserved: u32,
    /// Take the classes of this corpus, usually the training data; any other label is an error.
    /// NULL (default): the classes seen in the file, sorted. Read during the call only.
    pub labels_of: *const mmopt_corpus,
    /// The names of the classes in the order of their ids, in place of labels_of; NULL (default):
    /// none. Read during the call only.
    pub label_names: *const *const c_char,
    /// How many.
    pub n_label_names: usize,
}

impl Default for mmopt_corpus_options {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            format: mmopt_corpus_format::Auto as u32,
            header: mmopt_corpus_header::Auto as u32,
            text_column: std::ptr::null(),
            pair_column: std::ptr::null(),
            label_column: std::ptr::null(),
            unlabelled: 0,
            reserved: 0,
            labels_of: std::ptr::null(),
            label_names: std::ptr::null(),
            n_label_names: 0,
        }
    }
}

// SAFETY: repr(C), begins with its size, integers and raw pointers only.
unsafe impl Options for mmopt_corpus_options {
    const NAME: &'static str = "mmopt_corpus_options";
}

/// Fills in the defaults. NULL is harmless.
///
/// @param[out] options filled with the defaults; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_corpus_options_init(options: *mut mmopt_corpus_options) {
    // SAFETY: the caller's struct, by the header's contract.
    unsafe { init(options) };
}

unsafe fn column(name: *const c_char, what: &str) -> Result<Option<Column>> {
    // SAFETY: the caller's text, by the header's contract.
    let name = unsafe { optional_text(name, what) }?;
    Ok(name.map(|n| n.parse().map_or_else(|_| Column::Name(n.to_owned()), Column::Index)))
}

unsafe fn columns(o: &mmopt_corpus_options) -> Result<CorpusOptions> {
    reserved(o.reserved == 0, "reserved")?;
    let formats = [
        (0, CorpusFormat::Auto),
        (1, CorpusFormat::Tsv),
        (2, CorpusFormat::Csv),
        (3, CorpusFormat::Jsonl),
        (4, CorpusFormat::Folder),
        (5, CorpusFormat::Parquet),
    ];
    let headers = [(0, CorpusHeader::Auto), (1, CorpusHeader::Yes), (2, CorpusHeader::No)];
    // SAFETY: the caller's texts, by the header's contract.
    unsafe {
        Ok(CorpusOptions {
            format: choice(o.format, "format", &formats)?,
            header: choice(o.header, "header", &headers)?,
            text_column: column(o.text_column, "text_column")?,
            pair_column: column(o.pair_column, "pair_column")?,
            label_column: column(o.label_column, "label_column")?,
            unlabelled: flag(o.unlabelled, "unlabelled")?,
        })
    }
}

unsafe fn labels_of(corpus: *const mmopt_corpus) -> Result<Option<LabelMap>> {
    if corpus.is_null() {
        return Ok(None);
    }
    // SAFETY: a corpus of the caller, by the header's contract.
    Ok(Some(unsafe { shared(corpus) }?.corpus.labels().clone()))
}

/// The classes that options name, by a corpus or a list.
unsafe fn known_labels(o: &mmopt_corpus_options) -> Result<Option<LabelMap>> {
    if o.n_label_names == 0 {
        // SAFETY: a corpus of the caller, by the header's contract.
        return unsafe { labels_of(o.labels_of) };
    }
    if !o.labels_of.is_null() {
        return Err(Error::invalid("labels_of and label_names are both set; give one of them"));
    }
    // SAFETY: the caller's texts, by the header's contract.
    let names = unsafe { texts(o.label_names, o.n_label_names, "label_names") }?;
    LabelMap::from_names(names).map(Some).context(|| "label_names")
}

/// Reads texts with one class each, from tab-separated, comma-separated or JSON lines, JSON arrays,
/// Parquet, or a folder of text files. The defaults read lines of the form text TAB label. UTF-8,
/// with or without a byte order mark; lines end with LF, CRLF or CR.
///
/// Errors, with file and line: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for text
/// that is not UTF-8, missing columns, an open quote, bad JSON, an unknown label, a file without
/// examples, a file of another kind; UNSUPPORTED for Parquet without its cargo feature.
///
/// @param[in] path the file or folder, or a pattern of several files (* and ?), UTF-8.
/// @param[in] options NULL: the defaults.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_read_classification(
    path: *const c_char,
    options: *const mmopt_corpus_options,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let path = text(path, "path")?;
        let o = self::options(options)?;
        let corpus = output(corpus, "corpus")?;
        let labels = known_labels(&o)?;
        let read = Corpus::read_classification(Path::new(path), &columns(&o)?, labels.as_ref())?;
        corpus.set(new_handle(read)?);
        Ok(())
    })
}

/// Reads words with one tag each (CoNLL): each line begins with a word and ends with its tag; blank
/// lines separate sentences. labels_of is as in mmopt_corpus_options; NULL takes the tags of the
/// file.
///
/// Errors, with file and line: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for a
/// line without a tag, an unknown tag, a file without words.
///
/// Comments before the first word of a sentence (# text = ...) are passed over.
///
/// @param[in] path the file, or a pattern of several (* and ?), UTF-8.
/// @param[in] labels_of whose classes to take; may be NULL; read during the call only.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_read_token_classification(
    path: *const c_char,
    labels_of: *const mmopt_corpus,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let path = text(path, "path")?;
        let corpus = output(corpus, "corpus")?;
        let labels = self::labels_of(labels_of)?;
        corpus
            .set(new_handle(Corpus::read_token_classification(Path::new(path), labels.as_ref())?)?);
        Ok(())
    })
}

/// Reads words without tags, the first column of each line; blank lines separate sentences. The
/// corpus has no classes; mmopt_corpus_concatenate joins it with a tagged one.
///
/// Errors: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for text that is not UTF-8,
/// or a file without words.
///
/// @param[in] path the file, or a pattern of several (* and ?), UTF-8.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_read_words(
    path: *const c_char,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let path = text(path, "path")?;
        let corpus = output(corpus, "corpus")?;
        corpus.set(new_handle(Corpus::read_words(Path::new(path))?)?);
        Ok(())
    })
}

/// Reads questions about contexts: one JSON object in the form of SQuAD, or one object per line, or
/// one array of objects, with context, question and answers. A question without answers, answer or
/// is_impossible is unlabelled; one with an empty list of answers has none in its context.
///
/// Errors, with their place: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for a
/// missing key, lists of answers of different lengths, or an answer that does not match the context
/// at answer_start.
///
/// @param[in] path the file, or a pattern of several (* and ?), UTF-8.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_read_question_answering(
    path: *const c_char,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let path = text(path, "path")?;
        let corpus = output(corpus, "corpus")?;
        corpus.set(new_handle(Corpus::read_question_answering(Path::new(path))?)?);
        Ok(())
    })
}

/// What becomes one example of a plain text.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mmopt_sample_by {
    /// A paragraph: the lines up to a blank line.
    Paragraph = 0,
    /// A line that is not blank.
    Line = 1,
    /// The whole file.
    Document = 2,
}

pub(super) fn sample_by_of(number: u32) -> Result<SampleBy> {
    let units = [(0, SampleBy::Paragraph), (1, SampleBy::Line), (2, SampleBy::Document)];
    choice(number, "sample_by", &units)
}

/// Reads plain text for language modelling.
///
/// Errors: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for text that is not UTF-8,
/// or an empty file; INVALID_ARGUMENT when sample_by is no mmopt_sample_by.
///
/// @param[in] path the file, or a pattern of several (* and ?), UTF-8.
/// @param sample_by an mmopt_sample_by.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_read_plain_text(
    path: *const c_char,
    sample_by: u32,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let path = text(path, "path")?;
        let sample_by = sample_by_of(sample_by)?;
        let corpus = output(corpus, "corpus")?;
        corpus.set(new_handle(Corpus::read_plain_text(Path::new(path), sample_by)?)?);
        Ok(())
    })
}

/// Generates n sentences of two classes, to try the library without data. The same seed gives the
/// same sentences. label_noise is the fraction of wrong labels.
///
/// Errors: INVALID_ARGUMENT when n or label_noise is out of range.
///
/// @param n sentences, 1 to 10,000,000.
/// @param seed any number.
/// @param label_noise at least 0, below 0.5.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_synthetic(
    n: usize,
    seed: u64,
    label_noise: f64,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's argument, by the header's contract.
    guard(|| unsafe {
        let corpus = output(corpus, "corpus")?;
        let options = SyntheticOptions { n_sentences: n, seed, label_noise };
        corpus.set(new_handle(Corpus::synthetic(&options)?)?);
        Ok(())
    })
}

/// Generates n sentences with named entities, to try the library without data: words with the tags
/// O, B-PER, I-PER, B-LOC, I-LOC, B-ORG and I-ORG. The same seed gives the same sentences.
///
/// Errors: INVALID_ARGUMENT when n is out of range.
///
/// @param n sentences, 1 to 10,000,000.
/// @param seed any number.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_synthetic_entities(
    n: usize,
    seed: u64,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's argument, by the header's contract.
    guard(|| unsafe {
        let corpus = output(corpus, "corpus")?;
        corpus.set(new_handle(Corpus::synthetic_entities(n, seed)?)?);
        Ok(())
    })
}

/// Generates n questions about contexts, to try the library without data; each has one answer. The
/// same seed gives the same questions.
///
/// Errors: INVALID_ARGUMENT when n is out of range.
///
/// @param n questions, 1 to 10,000,000.
/// @param seed any number.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_synthetic_questions(
    n: usize,
    seed: u64,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's argument, by the header's contract.
    guard(|| unsafe {
        let corpus = output(corpus, "corpus")?;
        corpus.set(new_handle(Corpus::synthetic_questions(n, seed)?)?);
        Ok(())
    })
}

/// The texts of a corpus as plain text, e.g. to train a language model on them before a classifier:
/// each text of a pair, the words of a sentence joined by spaces, each question and each context is
/// an example.
///
/// Errors: only those of any call.
///
/// @param[in] corpus shared access.
/// @param[out] plain the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_plain_text(
    corpus: *const mmopt_corpus,
    plain: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let corpus = shared(corpus)?;
        let plain = output(plain, "plain")?;
        plain.set(new_handle(corpus.corpus.plain_text()?)?);
        Ok(())
    })
}

/// Makes a corpus from n texts in memory, which are copied. labels holds the class name of each
/// text, or is NULL for texts without labels. labels_of is as in mmopt_corpus_options.
///
/// Errors: INVALID_ARGUMENT when n is 0, or a text is NULL or not UTF-8; INVALID_DATA for a label
/// that labels_of does not have.
///
/// @param[in] texts n texts, UTF-8.
/// @param[in] labels n names, or NULL.
/// @param n how many texts.
/// @param[in] labels_of whose classes to take; may be NULL; read during the call only.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_from_texts(
    texts: *const *const c_char,
    labels: *const *const c_char,
    n: usize,
    labels_of: *const mmopt_corpus,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let owned = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<_>>();
        if n == 0 {
            return Err(Error::invalid("n is 0; a corpus needs at least one text"));
        }
        let n_labels = if labels.is_null() { 0 } else { n };
        let texts = owned(self::texts(texts, n, "texts")?);
        let classes = owned(self::texts(labels, n_labels, "labels")?);
        let corpus = output(corpus, "corpus")?;
        let known = self::labels_of(labels_of)?;
        corpus.set(new_handle(Corpus::from_texts(texts, &classes, known.as_ref())?)?);
        Ok(())
    })
}

/// As mmopt_corpus_from_texts, for pairs of texts: pairs holds the second text of each.
///
/// Errors: those of mmopt_corpus_from_texts.
///
/// @param[in] texts n texts, UTF-8.
/// @param[in] pairs n texts, UTF-8.
/// @param[in] labels n names, or NULL.
/// @param n how many texts.
/// @param[in] labels_of whose classes to take; may be NULL; read during the call only.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_from_pairs(
    texts: *const *const c_char,
    pairs: *const *const c_char,
    labels: *const *const c_char,
    n: usize,
    labels_of: *const mmopt_corpus,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let owned = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<_>>();
        if n == 0 {
            return Err(Error::invalid("n is 0; a corpus needs at least one text"));
        }
        let n_labels = if labels.is_null() { 0 } else { n };
        let texts = owned(self::texts(texts, n, "texts")?);
        let pairs = owned(self::texts(pairs, n, "pairs")?);
        let classes = owned(self::texts(labels, n_labels, "labels")?);
        let corpus = output(corpus, "corpus")?;
        let known = self::labels_of(labels_of)?;
        if texts.is_empty() {
            return Err(Error::invalid("n is 0; a corpus needs a text"));
        }
        corpus.set(new_handle(Corpus::from_pairs(texts, pairs, &classes, known.as_ref())?)?);
        Ok(())
    })
}

/// An empty corpus of a task that has classes or tags with these names, in the order of their ids,
/// to give as labels_of where other corpora are read.
///
/// Errors: INVALID_ARGUMENT for another task, for n 0, and for a name that is not UTF-8 or occurs
/// twice.
///
/// @param task MMOPT_TASK_SEQUENCE_CLASSIFICATION or MMOPT_TASK_TOKEN_CLASSIFICATION.
/// @param[in] names n names, UTF-8.
/// @param n how many names.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_from_label_names(
    task: u32,
    names: *const *const c_char,
    n: usize,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let tasks = [(1, TextTask::Classification), (2, TextTask::TokenClassification)];
        let task = choice(task, "task", &tasks)?;
        let names = texts(names, n, "names")?;
        if names.is_empty() {
            return Err(Error::invalid("n is 0; give a name for each class"));
        }
        let corpus = output(corpus, "corpus")?;
        let labels = LabelMap::from_names(names).context(|| "names")?;
        corpus.set(new_handle(Corpus::new(task, labels, Vec::new())?)?);
        Ok(())
    })
}

/// Splits a corpus into training and evaluation data, each in the order of the whole. Texts that
/// are equal apart from white space, case and punctuation stay on one side; classes keep their
/// proportions. The same seed gives the same split.
///
/// Errors: INVALID_ARGUMENT for a fraction out of range, or one that leaves a side empty.
///
/// @param[in] corpus shared access.
/// @param eval_fraction above 0, below 1.
/// @param seed any number.
/// @param[out] train the training part; free it with mmopt_corpus_free.
/// @param[out] eval the evaluation part; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_split(
    corpus: *const mmopt_corpus,
    eval_fraction: f64,
    seed: u64,
    train: *mut *mut mmopt_corpus,
    eval: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let corpus = shared(corpus)?;
        let (train, eval) = (output(train, "train")?, output(eval, "eval")?);
        let options = SplitOptions { eval_fraction, seed, ..SplitOptions::default() };
        let (first, second) = corpus.corpus.split(&options)?;
        let second = CorpusValue::new(second)?;
        train.set(new_handle(first)?);
        eval.set(into_raw(second));
        Ok(())
    })
}

/// Draws n examples at random, e.g. to train with few labels; both parts are in the order of the
/// whole. Classes keep their proportions, to one example. The same seed draws the same examples.
/// Equal texts may be in both parts, other than with mmopt_corpus_split.
///
/// Errors: INVALID_ARGUMENT when n is 0 or more than there are examples.
///
/// @param[in] corpus shared access.
/// @param n examples to draw.
/// @param seed any number.
/// @param[out] sample the n examples; free it with mmopt_corpus_free.
/// @param[out] rest all others, which may be none; free it with mmopt_corpus_free. May be NULL.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_sample(
    corpus: *const mmopt_corpus,
    n: usize,
    seed: u64,
    sample: *mut *mut mmopt_corpus,
    rest: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let corpus = shared(corpus)?;
        let (sample, rest) = (output(sample, "sample")?, optional_output(rest, "rest")?);
        let (first, second) = corpus.corpus.sample(n, seed)?;
        let second = if rest.is_wanted() { Some(CorpusValue::new(second)?) } else { None };
        sample.set(new_handle(first)?);
        if let Some(second) = second {
            rest.set(into_raw(second));
        }
        Ok(())
    })
}

/// The examples of the given numbers, in that order, with the classes of the whole. A number may
/// occur twice.
///
/// Errors: INVALID_ARGUMENT when a number is out of range.
///
/// @param[in] corpus shared access.
/// @param[in] examples n numbers from 0, read during the call only.
/// @param n how many.
/// @param[out] subset the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_subset(
    corpus: *const mmopt_corpus,
    examples: *const usize,
    n: usize,
    subset: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let corpus = shared(corpus)?;
        let examples = slice(examples, n, "examples")?;
        let subset = output(subset, "subset")?;
        subset.set(new_handle(corpus.corpus.subset(examples)?)?);
        Ok(())
    })
}

/// A copy with the same classes whose examples have no labels: no class, no tags, or a question
/// whose answers are not known. Models can learn of each other from them (the option mutual).
///
/// Errors: only those of any call.
///
/// @param[in] corpus shared access.
/// @param[out] unlabelled the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_without_labels(
    corpus: *const mmopt_corpus,
    unlabelled: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let corpus = shared(corpus)?;
        let unlabelled = output(unlabelled, "unlabelled")?;
        unlabelled.set(new_handle(corpus.corpus.without_labels()?)?);
        Ok(())
    })
}

/// The examples of n corpora of one task in one corpus, in the order given, e.g. labelled and
/// unlabelled ones. All must have the same classes, except that some may have none.
///
/// Errors: INVALID_ARGUMENT when n is 0, and for other tasks or classes; the message names the two
/// corpora and their classes. Read data with the classes of other data by labels_of.
///
/// @param[in] corpora n corpora; one may occur twice; read during the call only.
/// @param n how many.
/// @param[out] corpus the new object; free it with mmopt_corpus_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_concatenate(
    corpora: *const *const mmopt_corpus,
    n: usize,
    corpus: *mut *mut mmopt_corpus,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let one = |(i, &c): (usize, &*const mmopt_corpus)| {
            let value = shared(c).context(|| format!("corpora[{i}]"))?;
            Ok(value.corpus.clone())
        };
        let corpora = slice(corpora, n, "corpora")?.iter().enumerate();
        let parts: Vec<Arc<Corpus>> = corpora.map(one).collect::<Result<_>>()?;
        let corpus = output(corpus, "corpus")?;
        let parts: Vec<&Corpus> = parts.iter().map(Arc::as_ref).collect();
        corpus.set(new_handle(Corpus::concatenate_all(&parts)?)?);
        Ok(())
    })
}

/// The number of examples; 0 for NULL.
///
/// @param[in] corpus shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_corpus_n_examples(corpus: *const mmopt_corpus) -> usize {
    // SAFETY: a corpus of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(corpus) }?.corpus.len()))
}

/// The number of classes or tags; 0 for NULL, and for tasks without labels.
///
/// @param[in] corpus shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_corpus_n_labels(corpus: *const mmopt_corpus) -> usize {
    // SAFETY: a corpus of the caller or NULL, by the header's contract.
    guard_or(0, || Ok(unsafe { shared(corpus) }?.labels.len()))
}

/// The name of a class or tag by its id, valid as long as the corpus; NULL for any other id.
///
/// @param[in] corpus shared access.
/// @param label a class or tag, by its id from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_corpus_label_name(
    corpus: *const mmopt_corpus,
    label: usize,
) -> *const c_char {
    guard_or(std::ptr::null(), || {
        // SAFETY: a corpus of the caller or NULL, by the header's contract.
        let corpus = unsafe { shared(corpus) }?;
        Ok(corpus.labels.get(label).map_or(std::ptr::null(), |name| name.as_ptr()))
    })
}

/// How many examples have a class, or words a tag; 0 when label is out of range.
///
/// @param[in] corpus shared access.
/// @param label a class or tag, by its id from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_corpus_label_count(
    corpus: *const mmopt_corpus,
    label: usize,
) -> usize {
    guard_or(0, || {
        // SAFETY: a corpus of the caller or NULL, by the header's contract.
        let corpus = unsafe { shared(corpus) }?;
        Ok(corpus.corpus.label_counts().get(label).copied().unwrap_or(0))
    })
}

/// The fraction of the most frequent class, 0 to 1: the accuracy of always predicting it. 0 for
/// NULL, and without labels.
///
/// @param[in] corpus shared access.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_corpus_majority_fraction(corpus: *const mmopt_corpus) -> f64 {
    // SAFETY: a corpus of the caller or NULL, by the header's contract.
    guard_or(0.0, || Ok(unsafe { shared(corpus) }?.corpus.majority_fraction()))
}

/// The text of one example: the words joined by spaces, or the context of a question.
///
/// Errors: INVALID_ARGUMENT when example is out of range.
///
/// @param[in] corpus shared access.
/// @param example its number, from 0.
/// @param[out] text the text; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_text(
    corpus: *const mmopt_corpus,
    example: usize,
    text: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let corpus = shared(corpus)?;
        let text = output(text, "text")?;
        let words = match find(&corpus.corpus, example)? {
            Example::Text { text, .. } | Example::Document(text) => text.clone(),
            Example::Words { words, .. } => words.join(" "),
            Example::Question { context, .. } => context.clone(),
        };
        text.set(owned_text(&words, "the text")?);
        Ok(())
    })
}

/// The second text of a pair, or the question about a context; pair becomes NULL for an example
/// that has none.
///
/// Errors: INVALID_ARGUMENT when example is out of range.
///
/// @param[in] corpus shared access.
/// @param example its number, from 0.
/// @param[out] pair the text, or NULL; free it with mmopt_string_free.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_pair(
    corpus: *const mmopt_corpus,
    example: usize,
    pair: *mut *mut c_char,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let corpus = shared(corpus)?;
        let out = output(pair, "pair")?;
        let text = match find(&corpus.corpus, example)? {
            Example::Text { pair, .. } => pair.as_deref(),
            Example::Question { question, .. } => Some(question.as_str()),
            _ => None,
        };
        out.set(match text {
            Some(text) => owned_text(text, "the text")?,
            None => std::ptr::null_mut(),
        });
        Ok(())
    })
}

/// The class of one example of a classification corpus; -1 when it has none.
///
/// Errors: INVALID_ARGUMENT when example is out of range.
///
/// @param[in] corpus shared access.
/// @param example its number, from 0.
/// @param[out] label the id of its class, or -1.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn mmopt_corpus_label(
    corpus: *const mmopt_corpus,
    example: usize,
    label: *mut i64,
) -> *mut mmopt_error {
    // SAFETY: the caller's arguments, by the header's contract.
    guard(|| unsafe {
        let corpus = shared(corpus)?;
        let out = output(label, "label")?;
        out.set(match find(&corpus.corpus, example)? {
            Example::Text { label, .. } => label.map_or(-1, i64::from),
            _ => -1,
        });
        Ok(())
    })
}

fn find(corpus: &Corpus, example: usize) -> Result<&Example> {
    corpus
        .examples()
        .get(example)
        .ok_or_else(|| Error::invalid(format!("example {example} of a corpus of {}", corpus.len())))
}

/// Frees a corpus. NULL is harmless.
///
/// @param corpus may be NULL; freed by the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmopt_corpus_free(corpus: *mut mmopt_corpus) {
    // SAFETY: the caller gives it up, by the header's contract.
    unsafe { free(corpus) };
}
