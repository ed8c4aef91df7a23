/**
 * @file mmopt.h
 * libmmopt: joint training of several transformers, on stock ONNX Runtime.
 *
 * This file is generated from src/ffi; the texts in it are the contract. C99 or later, C++11 or
 * later.
 *
 * Errors. A call that can fail returns an error that the caller owns, or NULL for success. Read it
 * with mmopt_error_code and mmopt_error_message, and free it with mmopt_error_free. A call that
 * fails has changed nothing and has written no result, unless its text says otherwise. Any call can
 * fail with INVALID_ARGUMENT for a NULL pointer or a text that is not UTF-8, with STATE while
 * another call uses the object, with OUT_OF_MEMORY, and with POISONED or INTERNAL; the comment of a
 * function names its other errors, without the prefix MMOPT_CODE_.
 *
 * Ownership. The caller owns each new object and frees it with the object's _free function.
 * Freeing NULL is harmless. Objects keep alive what they need, so they may be freed in any order.
 * Texts that are returned through a char ** are freed with mmopt_string_free. Texts and arrays that
 * are returned as pointers to const belong to the object, and are valid as long as the function
 * says.
 *
 * Threads. A function takes an object with shared access, as a pointer to const, or with exclusive
 * access, as a pointer without const. Calls with shared access to an object may run at the same
 * time in several threads. A call with exclusive access must be the only one on that object. A call
 * that breaks this rule fails with MMOPT_CODE_STATE where the library can see it. An object may be
 * used by one thread after another. Functions that take no object may be called from any thread.
 * Two calls must not write to the same file or directory at the same time.
 *
 * Arguments. Texts and paths are UTF-8 and end with NUL. Lengths are size_t. Enumerations are
 * passed as uint32_t. Pointers must not be NULL unless the text allows it; NULL is an error, never
 * a crash. Structs of options begin with struct_size: fill them with their _init function, then
 * change fields. NULL options are the defaults.
 *
 * Panics. If a bug in the library is detected, the call fails with MMOPT_CODE_INTERNAL. The objects
 * of that call fail with MMOPT_CODE_POISONED from then on and can only be freed; the process and
 * all other objects go on.
 */
#ifndef MMOPT_H
#define MMOPT_H

#include <stddef.h>
#include <stdint.h>

/** The major version of this header; mmopt_version() returns that of the loaded library. */
#define MMOPT_VERSION_MAJOR 0
/** The minor version. */
#define MMOPT_VERSION_MINOR 1
/** The patch version. */
#define MMOPT_VERSION_PATCH 0
/** The version as text. */
#define MMOPT_VERSION "0.1.0"
/** The version as one number, to be compared with mmopt_version_number(). */
#define MMOPT_VERSION_NUMBER \
    (MMOPT_VERSION_MAJOR * 10000 + MMOPT_VERSION_MINOR * 100 + MMOPT_VERSION_PATCH)

/** Marks exported functions. Define MMOPT_STATIC to link the static library on Windows. */
#ifndef MMOPT_API
#if defined(_WIN32) && !defined(MMOPT_STATIC)
#define MMOPT_API __declspec(dllimport)
#elif defined(__GNUC__) || defined(__clang__)
#define MMOPT_API __attribute__((visibility("default")))
#else
#define MMOPT_API
#endif
#endif

/** Marks functions whose result must be used. */
#ifndef MMOPT_MUST_USE
#if defined(__GNUC__) || defined(__clang__)
#define MMOPT_MUST_USE __attribute__((warn_unused_result))
#else
#define MMOPT_MUST_USE
#endif
#endif

/**
 * Opens an enumeration of 32 bits. Before C23 its name is that of uint32_t, as the compiler would
 * choose the size of an enum.
 */
#if defined(__cplusplus)
#define MMOPT_ENUM(name) enum name : uint32_t
#elif __STDC_VERSION__ >= 202311L
#define MMOPT_ENUM(name)                                                                           \
    enum name : uint32_t;                                                                          \
    typedef enum name name;                                                                        \
    enum name : uint32_t
#else
#define MMOPT_ENUM(name)                                                                           \
    typedef uint32_t name;                                                                         \
    enum name
#endif

#ifdef __cplusplus
extern "C" {
#endif

/**
 * @defgroup errors Errors
 * What a call that can fail returns: NULL for success, else an object with a code for
 * programs and a message for people, which the caller frees.
 * @{
 */

/** The kind of an error, for programs to act on. The numbers never change. */
MMOPT_ENUM(mmopt_code) {
    /** Success; what `mmopt_error_code(NULL)` gives. */
    MMOPT_CODE_OK = 0,
    /** An argument is out of range, NULL, of the wrong length or dtype, or contradicts another. */
    MMOPT_CODE_INVALID_ARGUMENT = 1,
    /** A model, parameter, input or file of that name does not exist. */
    MMOPT_CODE_NOT_FOUND = 2,
    /** Reading or writing a file failed. */
    MMOPT_CODE_IO = 3,
    /** A file is damaged or malformed: truncated, cyclic, checksum mismatch. */
    MMOPT_CODE_INVALID_DATA = 4,
    /** Valid, but not supported by this library. */
    MMOPT_CODE_UNSUPPORTED = 5,
    /** Shapes do not fit together. */
    MMOPT_CODE_SHAPE = 6,
    /** ONNX Runtime could not be found, loaded, or is too old. */
    MMOPT_CODE_RUNTIME_UNAVAILABLE = 7,
    /** ONNX Runtime refused a model or failed while running it. */
    MMOPT_CODE_RUNTIME = 8,
    /** A loss, gradient or weight is NaN or infinite. */
    MMOPT_CODE_NON_FINITE = 9,
    /** The call is not possible in the object's present state. */
    MMOPT_CODE_STATE = 10,
    /** A callback or a cancel token stopped the call. */
    MMOPT_CODE_CANCELLED = 11,
    /**
     * An earlier call failed inside the library while it used this object, which can only be
     * freed.
     */
    MMOPT_CODE_POISONED = 12,
    /** A bug in this library. */
    MMOPT_CODE_INTERNAL = 13,
    /** The system has no memory, or no thread, for the call. */
    MMOPT_CODE_OUT_OF_MEMORY = 14,
    /**
     * Another rank failed, ended, or did not answer in time, or a function of the communicator
     * failed.
     */
    MMOPT_CODE_COMMUNICATION = 15,
};

/** Why a call failed. NULL is success. The caller frees it with mmopt_error_free. */
typedef struct mmopt_error mmopt_error;

/**
 * The code of an error, an mmopt_code. NULL gives MMOPT_CODE_OK.
 *
 * @param[in] error shared access.
 */
MMOPT_API uint32_t mmopt_error_code(const struct mmopt_error *error);

/**
 * The message of an error: what happened, where, and what to do about it, in English, UTF-8. Valid
 * until the error is freed. NULL gives an empty text.
 *
 * @param[in] error shared access.
 */
MMOPT_API
const char *mmopt_error_message(const struct mmopt_error *error);

/**
 * Frees an error. NULL is harmless.
 *
 * @param error may be NULL; freed by the call.
 */
MMOPT_API void mmopt_error_free(struct mmopt_error *error);

/** @} */

/**
 * @defgroup library Library and ONNX Runtime
 * The version of the library, the texts that it returns, and the ONNX Runtime that runs
 * its models: a shared library that a process loads once.
 * @{
 */

/**
 * The version of the loaded library as text, for example "0.1.0"; static, never freed. The macros
 * MMOPT_VERSION_MAJOR, _MINOR and _PATCH tell what the caller was compiled with.
 */
MMOPT_API
const char *mmopt_version(void);

/**
 * The version of the loaded library as one number: major * 10000 + minor * 100 + patch, to be
 * compared with MMOPT_VERSION_NUMBER.
 */
MMOPT_API uint32_t mmopt_version_number(void);

/**
 * Frees a text that a function returned through a `char **`. NULL is harmless.
 *
 * @param text may be NULL; freed by the call.
 */
MMOPT_API void mmopt_string_free(char *text);

/**
 * Loads ONNX Runtime, or does nothing if this process has loaded it already.
 *
 * path is the shared library or its directory. NULL searches: the environment variables
 * MMOPT_ORT_LIB and ORT_DYLIB_PATH, the directory of libmmopt, .runtime/lib, the system's
 * directories. ONNX Runtime 1.17 or later is required. Creating a trainer loads it as well;
 * calling this function first reports early whether it is installed.
 *
 * Errors: RUNTIME_UNAVAILABLE with all files that were tried and why each failed; another call may
 * succeed. STATE when another file is loaded. May be called from any thread.
 *
 * @param[in] path the library or its directory; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_runtime_load(const char *path);

/**
 * The version of the loaded ONNX Runtime, for example "1.32.0"; empty before it is loaded.
 * Static, never freed.
 */
MMOPT_API const char *mmopt_runtime_version(void);

/** The file of the loaded ONNX Runtime; empty before it is loaded. Static, never freed. */
MMOPT_API const char *mmopt_runtime_path(void);

/** @} */

/**
 * @defgroup tensors Tensors
 * Dense arrays with a name, an element type and a shape. A tensor is a view: it owns
 * nothing, and points to memory of the caller or of an object.
 * @{
 */

/** Element types, with the numbers of ONNX. */
MMOPT_ENUM(mmopt_dtype) {
    /** 32-bit IEEE float. */
    MMOPT_DTYPE_F32 = 1,
    /** 8-bit unsigned integer. */
    MMOPT_DTYPE_U8 = 2,
    /** 8-bit signed integer. */
    MMOPT_DTYPE_I8 = 3,
    /** 16-bit unsigned integer. */
    MMOPT_DTYPE_U16 = 4,
    /** 16-bit signed integer. */
    MMOPT_DTYPE_I16 = 5,
    /** 32-bit signed integer. */
    MMOPT_DTYPE_I32 = 6,
    /** 64-bit signed integer. */
    MMOPT_DTYPE_I64 = 7,
    /** One byte, 0 or 1. */
    MMOPT_DTYPE_BOOL = 9,
    /** 16-bit IEEE float. */
    MMOPT_DTYPE_F16 = 10,
    /** 64-bit IEEE float. */
    MMOPT_DTYPE_F64 = 11,
    /** 32-bit unsigned integer. */
    MMOPT_DTYPE_U32 = 12,
    /** 64-bit unsigned integer. */
    MMOPT_DTYPE_U64 = 13,
    /** bfloat16. */
    MMOPT_DTYPE_BF16 = 16,
};

/**
 * A view of a dense, row-major tensor in host memory; it owns nothing.
 *
 * An input must stay valid during the call, which only reads it. An output points into the object
 * that it belongs to; the function that returns it says how long it is valid.
 */
typedef struct mmopt_tensor {
    /** The name of the input, output or parameter; UTF-8. */
    const char *name;
    /** The element type, an mmopt_dtype. */
    uint32_t dtype;
    /** Must be 0. */
    uint32_t reserved;
    /** The dimensions, outermost first; NULL is allowed when n_dims is 0 (a scalar). */
    const int64_t *shape;
    /** How many dimensions. */
    size_t n_dims;
    /** The elements, in native byte order; any alignment. */
    const void *data;
    /** The size of data in bytes: the product of the dimensions times the element's size. */
    size_t n_bytes;
} mmopt_tensor;

/** @} */

/**
 * @defgroup corpora Corpora
 * The examples of one task, with the names of its classes: read from files, taken from
 * memory, or generated.
 * @{
 */

/** The examples of one task and the names of its classes or tags. Immutable. */
typedef struct mmopt_corpus mmopt_corpus;

/** The format of a file of labelled texts. */
MMOPT_ENUM(mmopt_corpus_format) {
    /**
     * By the file's extension: .csv, .jsonl or .json, .parquet, else tabs; a folder for a folder.
     */
    MMOPT_CORPUS_FORMAT_AUTO = 0,
    /** Tab-separated, without quoting. */
    MMOPT_CORPUS_FORMAT_TSV = 1,
    /** Comma-separated, quoted by ". */
    MMOPT_CORPUS_FORMAT_CSV = 2,
    /** One JSON object per line, or one array of objects. */
    MMOPT_CORPUS_FORMAT_JSONL = 3,
    /**
     * A folder with a folder for each class, which has a text in each of its files, e.g.
     * pos/1.txt; with unlabelled, a folder with a text in each file.
     */
    MMOPT_CORPUS_FORMAT_FOLDER = 4,
    /**
     * Apache Parquet, compressed by Snappy or not. UNSUPPORTED unless the library was built with
     * the cargo feature parquet. Only from sources that are trusted: a damaged file may claim much
     * memory.
     */
    MMOPT_CORPUS_FORMAT_PARQUET = 5,
};

/** Whether the first line of a table holds the names of its columns. */
MMOPT_ENUM(mmopt_corpus_header) {
    /**
     * Yes when a column is chosen by name, or when the label's field of the first line reads
     * label, labels, class, category or sentiment.
     */
    MMOPT_CORPUS_HEADER_AUTO = 0,
    /** The first line names the columns. */
    MMOPT_CORPUS_HEADER_YES = 1,
    /** The first line is an example. */
    MMOPT_CORPUS_HEADER_NO = 2,
};

/** How labelled texts are read. mmopt_corpus_options_init fills in the defaults. */
typedef struct mmopt_corpus_options {
    /** sizeof(mmopt_corpus_options). */
    size_t struct_size;
    /** An mmopt_corpus_format; default MMOPT_CORPUS_FORMAT_AUTO. */
    uint32_t format;
    /** An mmopt_corpus_header; default MMOPT_CORPUS_HEADER_AUTO. */
    uint32_t header;
    /**
     * The column of the text: its name, or its number from "0". In JSON and Parquet its key, or a
     * path of keys and positions: data.text, answers.0.text. NULL (default): the first column, or
     * the keys text or sentence in JSON and Parquet.
     */
    const char *text_column;
    /** The column of the second text of a pair; NULL (default): there is none. */
    const char *pair_column;
    /** The column of the label; NULL (default): the second column, or the key label. */
    const char *label_column;
    /** 1: the file has no labels. Default 0. */
    uint32_t unlabelled;
    /** Must be 0. */
    uint32_t reserved;
    /**
     * Take the classes of this corpus, usually the training data; any other label is an error.
     * NULL (default): the classes seen in the file, sorted. Read during the call only.
     */
    const struct mmopt_corpus *labels_of;
    /**
     * The names of the classes in the order of their ids, in place of labels_of; NULL (default):
     * none. Read during the call only.
     */
    const char *const *label_names;
    /** How many. */
    size_t n_label_names;
} mmopt_corpus_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_corpus_options_init(struct mmopt_corpus_options *options);

/**
 * Reads texts with one class each, from tab-separated, comma-separated or JSON lines, JSON arrays,
 * Parquet, or a folder of text files. The defaults read lines of the form text TAB label. UTF-8,
 * with or without a byte order mark; lines end with LF, CRLF or CR.
 *
 * Errors, with file and line: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for text
 * that is not UTF-8, missing columns, an open quote, bad JSON, an unknown label, a file without
 * examples, a file of another kind; UNSUPPORTED for Parquet without its cargo feature.
 *
 * @param[in] path the file or folder, or a pattern of several files (* and ?), UTF-8.
 * @param[in] options NULL: the defaults.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_read_classification(const char *path,
                                                     const struct mmopt_corpus_options *options,
                                                     struct mmopt_corpus **corpus);

/**
 * Reads words with one tag each (CoNLL): each line begins with a word and ends with its tag; blank
 * lines separate sentences. labels_of is as in mmopt_corpus_options; NULL takes the tags of the
 * file.
 *
 * Errors, with file and line: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for a
 * line without a tag, an unknown tag, a file without words.
 *
 * Comments before the first word of a sentence (# text = ...) are passed over.
 *
 * @param[in] path the file, or a pattern of several (* and ?), UTF-8.
 * @param[in] labels_of whose classes to take; may be NULL; read during the call only.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_read_token_classification(const char *path,
                                                           const struct mmopt_corpus *labels_of,
                                                           struct mmopt_corpus **corpus);

/**
 * Reads words without tags, the first column of each line; blank lines separate sentences. The
 * corpus has no classes; mmopt_corpus_concatenate joins it with a tagged one.
 *
 * Errors: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for text that is not UTF-8,
 * or a file without words.
 *
 * @param[in] path the file, or a pattern of several (* and ?), UTF-8.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_read_words(const char *path,
                                            struct mmopt_corpus **corpus);

/**
 * Reads questions about contexts: one JSON object in the form of SQuAD, or one object per line, or
 * one array of objects, with context, question and answers. A question without answers, answer or
 * is_impossible is unlabelled; one with an empty list of answers has none in its context.
 *
 * Errors, with their place: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for a
 * missing key, lists of answers of different lengths, or an answer that does not match the context
 * at answer_start.
 *
 * @param[in] path the file, or a pattern of several (* and ?), UTF-8.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_read_question_answering(const char *path,
                                                         struct mmopt_corpus **corpus);

/** What becomes one example of a plain text. */
MMOPT_ENUM(mmopt_sample_by) {
    /** A paragraph: the lines up to a blank line. */
    MMOPT_SAMPLE_BY_PARAGRAPH = 0,
    /** A line that is not blank. */
    MMOPT_SAMPLE_BY_LINE = 1,
    /** The whole file. */
    MMOPT_SAMPLE_BY_DOCUMENT = 2,
};

/**
 * Reads plain text for language modelling.
 *
 * Errors: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for text that is not UTF-8,
 * or an empty file; INVALID_ARGUMENT when sample_by is no mmopt_sample_by.
 *
 * @param[in] path the file, or a pattern of several (* and ?), UTF-8.
 * @param sample_by an mmopt_sample_by.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_read_plain_text(const char *path,
                                                 uint32_t sample_by,
                                                 struct mmopt_corpus **corpus);

/**
 * Generates n sentences of two classes, to try the library without data. The same seed gives the
 * same sentences. label_noise is the fraction of wrong labels.
 *
 * Errors: INVALID_ARGUMENT when n or label_noise is out of range.
 *
 * @param n sentences, 1 to 10,000,000.
 * @param seed any number.
 * @param label_noise at least 0, below 0.5.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_synthetic(size_t n,
                                           uint64_t seed,
                                           double label_noise,
                                           struct mmopt_corpus **corpus);

/**
 * Generates n sentences with named entities, to try the library without data: words with the tags
 * O, B-PER, I-PER, B-LOC, I-LOC, B-ORG and I-ORG. The same seed gives the same sentences.
 *
 * Errors: INVALID_ARGUMENT when n is out of range.
 *
 * @param n sentences, 1 to 10,000,000.
 * @param seed any number.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_synthetic_entities(size_t n,
                                                    uint64_t seed,
                                                    struct mmopt_corpus **corpus);

/**
 * Generates n questions about contexts, to try the library without data; each has one answer. The
 * same seed gives the same questions.
 *
 * Errors: INVALID_ARGUMENT when n is out of range.
 *
 * @param n questions, 1 to 10,000,000.
 * @param seed any number.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_synthetic_questions(size_t n,
                                                     uint64_t seed,
                                                     struct mmopt_corpus **corpus);

/**
 * The texts of a corpus as plain text, e.g. to train a language model on them before a classifier:
 * each text of a pair, the words of a sentence joined by spaces, each question and each context is
 * an example.
 *
 * Errors: only those of any call.
 *
 * @param[in] corpus shared access.
 * @param[out] plain the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_plain_text(const struct mmopt_corpus *corpus,
                                            struct mmopt_corpus **plain);

/**
 * Makes a corpus from n texts in memory, which are copied. labels holds the class name of each
 * text, or is NULL for texts without labels. labels_of is as in mmopt_corpus_options.
 *
 * Errors: INVALID_ARGUMENT when n is 0, or a text is NULL or not UTF-8; INVALID_DATA for a label
 * that labels_of does not have.
 *
 * @param[in] texts n texts, UTF-8.
 * @param[in] labels n names, or NULL.
 * @param n how many texts.
 * @param[in] labels_of whose classes to take; may be NULL; read during the call only.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_from_texts(const char *const *texts,
                                            const char *const *labels,
                                            size_t n,
                                            const struct mmopt_corpus *labels_of,
                                            struct mmopt_corpus **corpus);

/**
 * As mmopt_corpus_from_texts, for pairs of texts: pairs holds the second text of each.
 *
 * Errors: those of mmopt_corpus_from_texts.
 *
 * @param[in] texts n texts, UTF-8.
 * @param[in] pairs n texts, UTF-8.
 * @param[in] labels n names, or NULL.
 * @param n how many texts.
 * @param[in] labels_of whose classes to take; may be NULL; read during the call only.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_from_pairs(const char *const *texts,
                                            const char *const *pairs,
                                            const char *const *labels,
                                            size_t n,
                                            const struct mmopt_corpus *labels_of,
                                            struct mmopt_corpus **corpus);

/**
 * An empty corpus of a task that has classes or tags with these names, in the order of their ids,
 * to give as labels_of where other corpora are read.
 *
 * Errors: INVALID_ARGUMENT for another task, for n 0, and for a name that is not UTF-8 or occurs
 * twice.
 *
 * @param task MMOPT_TASK_SEQUENCE_CLASSIFICATION or MMOPT_TASK_TOKEN_CLASSIFICATION.
 * @param[in] names n names, UTF-8.
 * @param n how many names.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_from_label_names(uint32_t task,
                                                  const char *const *names,
                                                  size_t n,
                                                  struct mmopt_corpus **corpus);

/**
 * Splits a corpus into training and evaluation data, each in the order of the whole. Texts that
 * are equal apart from white space, case and punctuation stay on one side; classes keep their
 * proportions. The same seed gives the same split.
 *
 * Errors: INVALID_ARGUMENT for a fraction out of range, or one that leaves a side empty.
 *
 * @param[in] corpus shared access.
 * @param eval_fraction above 0, below 1.
 * @param seed any number.
 * @param[out] train the training part; free it with mmopt_corpus_free.
 * @param[out] eval the evaluation part; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_split(const struct mmopt_corpus *corpus,
                                       double eval_fraction,
                                       uint64_t seed,
                                       struct mmopt_corpus **train,
                                       struct mmopt_corpus **eval);

/**
 * Draws n examples at random, e.g. to train with few labels; both parts are in the order of the
 * whole. Classes keep their proportions, to one example. The same seed draws the same examples.
 * Equal texts may be in both parts, other than with mmopt_corpus_split.
 *
 * Errors: INVALID_ARGUMENT when n is 0 or more than there are examples.
 *
 * @param[in] corpus shared access.
 * @param n examples to draw.
 * @param seed any number.
 * @param[out] sample the n examples; free it with mmopt_corpus_free.
 * @param[out] rest all others, which may be none; free it with mmopt_corpus_free. May be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_sample(const struct mmopt_corpus *corpus,
                                        size_t n,
                                        uint64_t seed,
                                        struct mmopt_corpus **sample,
                                        struct mmopt_corpus **rest);

/**
 * The examples of the given numbers, in that order, with the classes of the whole. A number may
 * occur twice.
 *
 * Errors: INVALID_ARGUMENT when a number is out of range.
 *
 * @param[in] corpus shared access.
 * @param[in] examples n numbers from 0, read during the call only.
 * @param n how many.
 * @param[out] subset the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_subset(const struct mmopt_corpus *corpus,
                                        const size_t *examples,
                                        size_t n,
                                        struct mmopt_corpus **subset);

/**
 * A copy with the same classes whose examples have no labels: no class, no tags, or a question
 * whose answers are not known. Models can learn of each other from them (the option mutual).
 *
 * Errors: only those of any call.
 *
 * @param[in] corpus shared access.
 * @param[out] unlabelled the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_without_labels(const struct mmopt_corpus *corpus,
                                                struct mmopt_corpus **unlabelled);

/**
 * The examples of n corpora of one task in one corpus, in the order given, e.g. labelled and
 * unlabelled ones. All must have the same classes, except that some may have none.
 *
 * Errors: INVALID_ARGUMENT when n is 0, and for other tasks or classes; the message names the two
 * corpora and their classes. Read data with the classes of other data by labels_of.
 *
 * @param[in] corpora n corpora; one may occur twice; read during the call only.
 * @param n how many.
 * @param[out] corpus the new object; free it with mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_concatenate(const struct mmopt_corpus *const *corpora,
                                             size_t n,
                                             struct mmopt_corpus **corpus);

/**
 * The number of examples; 0 for NULL.
 *
 * @param[in] corpus shared access.
 */
MMOPT_API size_t mmopt_corpus_n_examples(const struct mmopt_corpus *corpus);

/**
 * The number of classes or tags; 0 for NULL, and for tasks without labels.
 *
 * @param[in] corpus shared access.
 */
MMOPT_API size_t mmopt_corpus_n_labels(const struct mmopt_corpus *corpus);

/**
 * The name of a class or tag by its id, valid as long as the corpus; NULL for any other id.
 *
 * @param[in] corpus shared access.
 * @param label a class or tag, by its id from 0.
 */
MMOPT_API const char *mmopt_corpus_label_name(const struct mmopt_corpus *corpus, size_t label);

/**
 * How many examples have a class, or words a tag; 0 when label is out of range.
 *
 * @param[in] corpus shared access.
 * @param label a class or tag, by its id from 0.
 */
MMOPT_API size_t mmopt_corpus_label_count(const struct mmopt_corpus *corpus, size_t label);

/**
 * The fraction of the most frequent class, 0 to 1: the accuracy of always predicting it. 0 for
 * NULL, and without labels.
 *
 * @param[in] corpus shared access.
 */
MMOPT_API double mmopt_corpus_majority_fraction(const struct mmopt_corpus *corpus);

/**
 * The text of one example: the words joined by spaces, or the context of a question.
 *
 * Errors: INVALID_ARGUMENT when example is out of range.
 *
 * @param[in] corpus shared access.
 * @param example its number, from 0.
 * @param[out] text the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_text(const struct mmopt_corpus *corpus,
                                      size_t example,
                                      char **text);

/**
 * The second text of a pair, or the question about a context; pair becomes NULL for an example
 * that has none.
 *
 * Errors: INVALID_ARGUMENT when example is out of range.
 *
 * @param[in] corpus shared access.
 * @param example its number, from 0.
 * @param[out] pair the text, or NULL; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_pair(const struct mmopt_corpus *corpus,
                                      size_t example,
                                      char **pair);

/**
 * The class of one example of a classification corpus; -1 when it has none.
 *
 * Errors: INVALID_ARGUMENT when example is out of range.
 *
 * @param[in] corpus shared access.
 * @param example its number, from 0.
 * @param[out] label the id of its class, or -1.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_label(const struct mmopt_corpus *corpus,
                                       size_t example,
                                       int64_t *label);

/**
 * Frees a corpus. NULL is harmless.
 *
 * @param corpus may be NULL; freed by the call.
 */
MMOPT_API void mmopt_corpus_free(struct mmopt_corpus *corpus);

/** @} */

/**
 * @defgroup tokenizers Tokenizers
 * Text to token ids and back, in the published form of each architecture: loaded from
 * tokenizer.json, or trained on a corpus.
 * @{
 */

/** Architectures that the library can build, and the tokenizer of each. */
MMOPT_ENUM(mmopt_architecture) {
    /** BERT: WordPiece, [CLS] a [SEP] b [SEP]. */
    MMOPT_ARCHITECTURE_BERT = 1,
    /** GPT-2: byte-level BPE, no special tokens around a text. */
    MMOPT_ARCHITECTURE_GPT2 = 2,
    /** RoBERTa: byte-level BPE, `<s> a </s></s> b </s>`. */
    MMOPT_ARCHITECTURE_ROBERTA = 3,
    /** DistilBERT: as BERT, without token types. */
    MMOPT_ARCHITECTURE_DISTILBERT = 4,
};

/**
 * The mmopt_architecture of a published name: "bert", "gpt2", "roberta", "distilbert". 0 for any
 * other name, and for NULL.
 *
 * @param[in] name the published name; may be NULL.
 */
MMOPT_API
uint32_t mmopt_architecture_from_name(const char *name);

/**
 * The published name of an mmopt_architecture; empty for any other number. Static, never freed.
 *
 * @param architecture an mmopt_architecture.
 */
MMOPT_API const char *mmopt_architecture_name(uint32_t architecture);

/** Turns text into token ids and back. Immutable. */
typedef struct mmopt_tokenizer mmopt_tokenizer;

/** How words are split into subwords. */
MMOPT_ENUM(mmopt_tokenizer_algorithm) {
    /** That of the architecture's published models. */
    MMOPT_TOKENIZER_ALGORITHM_AUTO = 0,
    /** The longest known subwords from the left; a word may be unknown. */
    MMOPT_TOKENIZER_ALGORITHM_WORD_PIECE = 1,
    /** Byte-pair encoding of UTF-8 bytes; nothing is unknown. */
    MMOPT_TOKENIZER_ALGORITHM_BYTE_LEVEL_BPE = 2,
};

/** The roles of special tokens. */
MMOPT_ENUM(mmopt_special_token) {
    /** Pads short sequences. */
    MMOPT_SPECIAL_TOKEN_PAD = 0,
    /** Stands for unknown words. */
    MMOPT_SPECIAL_TOKEN_UNK = 1,
    /** First token of a sequence. */
    MMOPT_SPECIAL_TOKEN_CLS = 2,
    /** Separates sequences. */
    MMOPT_SPECIAL_TOKEN_SEP = 3,
    /** Replaces a masked token. */
    MMOPT_SPECIAL_TOKEN_MASK = 4,
    /** Begins a text. */
    MMOPT_SPECIAL_TOKEN_BOS = 5,
    /** Ends a text. */
    MMOPT_SPECIAL_TOKEN_EOS = 6,
};

/** How a tokenizer is trained. mmopt_tokenizer_options_init fills in the defaults. */
typedef struct mmopt_tokenizer_options {
    /** sizeof(mmopt_tokenizer_options). */
    size_t struct_size;
    /**
     * Decides the special tokens and where they go: an mmopt_architecture; default
     * MMOPT_ARCHITECTURE_BERT.
     */
    uint32_t architecture;
    /** An mmopt_tokenizer_algorithm; default MMOPT_TOKENIZER_ALGORITHM_AUTO. */
    uint32_t algorithm;
    /**
     * Greatest number of ids, special tokens included; default 8000. Byte-level vocabularies need
     * at least 256 and their special tokens.
     */
    size_t vocab_size;
    /** A pair of symbols is merged only if it occurs this often; default 2. */
    uint64_t min_frequency;
    /** 1 (default): lower-case and strip accents first (WordPiece only). */
    uint32_t lowercase;
    /** Must be 0. */
    uint32_t reserved;
    /** Greatest length of a sequence in tokens, also in the saved files; default 512. */
    size_t model_max_length;
} mmopt_tokenizer_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_tokenizer_options_init(struct mmopt_tokenizer_options *options);

/**
 * Loads a tokenizer from a directory or file: tokenizer.json, or vocab.txt (WordPiece), or
 * vocab.json with merges.txt (byte-level BPE). tokenizer_config.json, special_tokens_map.json and
 * added_tokens.json beside it count as for the published classes (docs/data.md).
 *
 * Errors: NOT_FOUND or IO when a file cannot be read; INVALID_DATA when it is damaged; UNSUPPORTED
 * for another kind of tokenizer, such as SentencePiece's own files.
 *
 * @param[in] path the directory or file, UTF-8.
 * @param[out] tokenizer the new object; free it with mmopt_tokenizer_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_load(const char *path,
                                         struct mmopt_tokenizer **tokenizer);

/**
 * Trains a tokenizer on all texts of a corpus. The same texts and options give the same tokenizer.
 *
 * Errors: INVALID_ARGUMENT when vocab_size is too small for the special tokens and the alphabet;
 * the message names the smallest size.
 *
 * @param[in] corpus shared access.
 * @param[in] options NULL: the defaults.
 * @param[out] tokenizer the new object; free it with mmopt_tokenizer_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_train(const struct mmopt_corpus *corpus,
                                          const struct mmopt_tokenizer_options *options,
                                          struct mmopt_tokenizer **tokenizer);

/**
 * Writes tokenizer.json, tokenizer_config.json, special_tokens_map.json and the vocabulary's own
 * files (vocab.txt, or vocab.json and merges.txt) into a directory, which Hugging Face libraries
 * load. The directory is created where there is none.
 *
 * Errors: IO when the directory cannot be created or a file cannot be written.
 *
 * @param[in] tokenizer shared access.
 * @param[in] directory the directory, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_save(const struct mmopt_tokenizer *tokenizer,
                                         const char *directory);

/**
 * The size of the vocabulary, special tokens included. 0 for NULL.
 *
 * @param[in] tokenizer shared access.
 */
MMOPT_API size_t mmopt_tokenizer_vocab_size(const struct mmopt_tokenizer *tokenizer);

/**
 * The longest sequence in tokens, from the files or options. 0 for NULL.
 *
 * @param[in] tokenizer shared access.
 */
MMOPT_API size_t mmopt_tokenizer_model_max_length(const struct mmopt_tokenizer *tokenizer);

/**
 * The id of a special token; -1 when the tokenizer has none, when special is no
 * mmopt_special_token, and for NULL.
 *
 * @param[in] tokenizer shared access.
 * @param special an mmopt_special_token.
 */
MMOPT_API
int64_t mmopt_tokenizer_special_token_id(const struct mmopt_tokenizer *tokenizer,
                                         uint32_t special);

/**
 * The text of n token ids. skip_special_tokens 1 leaves out special tokens.
 *
 * Errors: INVALID_ARGUMENT when an id is not in the vocabulary, or skip_special_tokens is neither
 * 0 nor 1.
 *
 * @param[in] tokenizer shared access.
 * @param[in] ids n ids.
 * @param n how many ids.
 * @param skip_special_tokens 0 or 1.
 * @param[out] text the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_decode(const struct mmopt_tokenizer *tokenizer,
                                           const uint32_t *ids,
                                           size_t n,
                                           uint32_t skip_special_tokens,
                                           char **text);

/**
 * Frees a tokenizer. NULL is harmless.
 *
 * @param tokenizer may be NULL; freed by the call.
 */
MMOPT_API void mmopt_tokenizer_free(struct mmopt_tokenizer *tokenizer);

/** An encoded text: token ids, token types and offsets. Immutable. */
typedef struct mmopt_encoding mmopt_encoding;

/**
 * Encodes a text, or a pair of texts when pair is not NULL, with the special tokens of the
 * architecture, in at most max_length tokens (0: the tokenizer's). The longer text is truncated.
 * The result is never empty: an empty text without special tokens becomes one end-of-sequence
 * token.
 *
 * Errors: INVALID_ARGUMENT for text that is not UTF-8, or a max_length that the special tokens
 * fill.
 *
 * @param[in] tokenizer shared access.
 * @param[in] text UTF-8.
 * @param[in] pair the second text; may be NULL.
 * @param max_length longest sequence in tokens; 0: the tokenizer's.
 * @param[out] encoding the new object; free it with mmopt_encoding_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_encode(const struct mmopt_tokenizer *tokenizer,
                                           const char *text,
                                           const char *pair,
                                           size_t max_length,
                                           struct mmopt_encoding **encoding);

/**
 * The number of tokens; 0 for NULL.
 *
 * @param[in] encoding shared access.
 */
MMOPT_API size_t mmopt_encoding_length(const struct mmopt_encoding *encoding);

/**
 * The ids, as many as tokens; valid as long as the encoding. NULL for NULL.
 *
 * @param[in] encoding shared access.
 */
MMOPT_API const uint32_t *mmopt_encoding_ids(const struct mmopt_encoding *encoding);

/**
 * The token types, 0 for the first text and 1 for the second of a pair, as many as tokens; valid
 * as long as the encoding. NULL for NULL.
 *
 * @param[in] encoding shared access.
 */
MMOPT_API
const uint32_t *mmopt_encoding_type_ids(const struct mmopt_encoding *encoding);

/**
 * The offsets of each token in its text, in bytes: a start and an end for each token, 0 and 0 for
 * special tokens. Valid as long as the encoding. NULL for NULL.
 *
 * @param[in] encoding shared access.
 */
MMOPT_API
const size_t *mmopt_encoding_offsets(const struct mmopt_encoding *encoding);

/**
 * The number of tokens that were truncated; 0 for NULL.
 *
 * @param[in] encoding shared access.
 */
MMOPT_API size_t mmopt_encoding_n_truncated(const struct mmopt_encoding *encoding);

/**
 * Frees an encoding. NULL is harmless.
 *
 * @param encoding may be NULL; freed by the call.
 */
MMOPT_API void mmopt_encoding_free(struct mmopt_encoding *encoding);

/** @} */

/**
 * @defgroup loaders Batches and loaders
 * A batch holds the input tensors of one step for every model, each with its own
 * tokenizer; a loader walks a corpus in batches, epoch by epoch.
 * @{
 */

/** The input tensors of one step, a part for each model. Immutable. */
typedef struct mmopt_batch mmopt_batch;

/**
 * The number of models; 0 for NULL.
 *
 * @param[in] batch shared access.
 */
MMOPT_API size_t mmopt_batch_n_models(const struct mmopt_batch *batch);

/**
 * The number of rows of one model's part; 0 for NULL, and when model is out of range.
 *
 * @param[in] batch shared access.
 * @param model the index of the model, from 0.
 */
MMOPT_API size_t mmopt_batch_n_rows(const struct mmopt_batch *batch, size_t model);

/**
 * The tensors of one model: input_ids and attention_mask, i64 [rows, length]; token_type_ids where
 * the architecture has them; and where any row is labelled, labels, i64 [rows] or [rows, length],
 * or start_positions and end_positions, i64 [rows]. The loss ignores labels of -100. What mutual
 * learning reads beside them, the examples and words of each row, is not listed:
 * mmopt_trainer_forward_backward_batch takes it from the batch. The tensors are valid as long as
 * the batch.
 *
 * Errors: INVALID_ARGUMENT when model is out of range.
 *
 * @param[in] batch shared access.
 * @param model the index of the model, from 0.
 * @param[out] tensors an array of views.
 * @param[out] n_tensors how many.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_batch_tensors(const struct mmopt_batch *batch,
                                        size_t model,
                                        const struct mmopt_tensor **tensors,
                                        size_t *n_tensors);

/**
 * The index in the corpus of each row's example, for one model's part. Both results are valid
 * as long as the batch.
 *
 * Errors: INVALID_ARGUMENT when model is out of range.
 *
 * @param[in] batch shared access.
 * @param model the index of the model, from 0.
 * @param[out] examples an index for each row.
 * @param[out] n_rows how many.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_batch_examples(const struct mmopt_batch *batch,
                                         size_t model,
                                         const size_t **examples,
                                         size_t *n_rows);

/**
 * Frees a batch. NULL is harmless.
 *
 * @param batch may be NULL; freed by the call.
 */
MMOPT_API void mmopt_batch_free(struct mmopt_batch *batch);

/**
 * Yields the batches of a corpus, epoch by epoch, in seeded order. It keeps what it needs of the
 * corpus and the tokenizers.
 */
typedef struct mmopt_loader mmopt_loader;

/** What a language model predicts in plain text. */
MMOPT_ENUM(mmopt_objective) {
    /** The next token. */
    MMOPT_OBJECTIVE_CAUSAL = 0,
    /** Masked tokens; the tokenizer must have a mask token. */
    MMOPT_OBJECTIVE_MASKED = 1,
    /** Masked tokens for each model whose tokenizer has a mask token, the next token for others. */
    MMOPT_OBJECTIVE_AUTO = 2,
};

/** How the examples of an epoch are chosen. */
MMOPT_ENUM(mmopt_sampling) {
    /** Each example once. */
    MMOPT_SAMPLING_EACH_ONCE = 0,
    /** Drawn with replacement, all classes equally likely. */
    MMOPT_SAMPLING_CLASS_BALANCED = 1,
    /** Drawn with replacement, in proportion to example_weights. */
    MMOPT_SAMPLING_WEIGHTED = 2,
};

/**
 * How a corpus is encoded, shuffled and batched. mmopt_loader_options_init fills in the defaults.
 */
typedef struct mmopt_loader_options {
    /** sizeof(mmopt_loader_options). */
    size_t struct_size;
    /** Examples per batch and model, at least 1; default 16. */
    size_t batch_size;
    /** Longest sequence in tokens; 0 (default): each tokenizer's. */
    size_t max_length;
    /** 1 (default): a new order in each epoch; 0: the order of the examples. */
    uint32_t shuffle;
    /** 1: drop a last batch that is not full. Default 0. */
    uint32_t drop_last;
    /** Seed of the order and of masking; default 0. */
    uint64_t seed;
    /**
     * Length bucketing: so many batches are sorted by length together, which saves padding; 0:
     * none; default 32. Without shuffle nothing is sorted.
     */
    size_t bucket_batches;
    /** Sequences are padded to a multiple of this, so that few shapes occur; default 8. */
    size_t pad_to_multiple_of;
    /**
     * 1 (default): all models see the same examples at each step; 0: each model has an order of
     * its own, and the shortest ends the epoch.
     */
    uint32_t aligned;
    /** Plain text: an mmopt_objective; default MMOPT_OBJECTIVE_AUTO. */
    uint32_t objective;
    /**
     * Masked language modelling: the fraction of tokens that are masked, above 0 and up to 1;
     * default 0.15.
     */
    double mlm_probability;
    /**
     * Question answering: 1: a long context becomes several overlapping rows, for evaluation; 0
     * (default): one row, with the answer near its middle. Token classification: 1: a long
     * sentence becomes several overlapping rows, which together have the tag of each word once; 0
     * (default): it is cut.
     */
    uint32_t all_windows;
    /**
     * Language modelling: 1 (default): examples are joined and cut into rows of max_length; 0:
     * each is a row of its own.
     */
    uint32_t pack;
    /**
     * With all_windows: tokens that neighbouring windows share; default 64, at most half of the
     * window's context or sentence.
     */
    size_t overlap;
    /**
     * Unlabelled examples for each labelled one in every batch; then an epoch is one walk over the
     * unlabelled examples, and the labelled ones are walked over again and again, across epochs,
     * each time in a new order. batch_size / (1 + unlabelled_ratio) rows, rounded, are labelled,
     * at least one and not all. 0 (default): examples come as they are.
     */
    double unlabelled_ratio;
    /**
     * An mmopt_sampling; default MMOPT_SAMPLING_EACH_ONCE. The others need shuffle, and exclude
     * unlabelled_ratio. With aligned the models see the same examples.
     */
    uint32_t sampling;
    /** Must be 0. */
    uint32_t reserved;
    /**
     * MMOPT_SAMPLING_WEIGHTED: a weight for each example of the corpus, finite and at least 0, as
     * PyTorch's WeightedRandomSampler has. Not for packed text. Copied.
     */
    const double *example_weights;
    /** How many. */
    size_t n_example_weights;
    /** Examples that are drawn for an epoch, up to 2^28; 0 (default): as many as there are. */
    size_t n_samples;
    /**
     * Most tokens of a batch of a model, rows times padded length. Then batches have as many rows
     * as that allows in place of batch_size, and epochs may differ in their number of batches.
     * Excludes drop_last and unlabelled_ratio. 0 (default): batch_size rows.
     */
    size_t max_tokens;
    /** With n_ranks: this rank, counted from 0. Default 0. */
    size_t rank;
    /**
     * Ranks that train together (mmopt_trainer_set_communicator): every batch of batch_size rows
     * is dealt out to them, row i to rank i modulo n_ranks, so that all together see what one
     * alone would see. A rank for which a short batch has no row gets its first row again, with a
     * tensor "filler", by which the trainer knows that it counts for nothing. At most batch_size.
     * A loader's state may be restored with another number of ranks. 0 or 1 (default): all rows.
     */
    size_t n_ranks;
} mmopt_loader_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_loader_options_init(struct mmopt_loader_options *options);

/**
 * Encodes a corpus with the tokenizer of each of n_models models, and makes a loader at the start
 * of epoch 0.
 *
 * Errors: INVALID_ARGUMENT without a tokenizer, for an empty corpus, a batch_size of 0, a
 * max_length that the special tokens fill or that is above a tokenizer's, drop_last without one
 * full batch, unlabelled_ratio where all examples have labels, none have, or fewer than a batch
 * needs; a sampling without a class or a weight for each example, a row of more than max_tokens,
 * a rank that is not below n_ranks, and options that exclude each other.
 *
 * @param[in] corpus shared access.
 * @param[in] tokenizers n_models tokenizers, in the order of the models; a tokenizer may occur
 * twice.
 * @param n_models how many models.
 * @param[in] options NULL: the defaults.
 * @param[out] loader the new object; free it with mmopt_loader_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_create(const struct mmopt_corpus *corpus,
                                        const struct mmopt_tokenizer *const *tokenizers,
                                        size_t n_models,
                                        const struct mmopt_loader_options *options,
                                        struct mmopt_loader **loader);

/**
 * Encodes plain text once and writes its tokens to a file, which loaders map into memory: for text
 * that is larger than memory, and for runs that begin at once. The text is read and encoded about
 * a megabyte at a time; only a document (sample_by) is in memory as a whole. A file that is there
 * already and was made of the same files (by name, size and time of change) by the same tokenizer
 * is left as it is. The file is written under another name first, and has a checksum.
 *
 * Errors: NOT_FOUND or IO when the text cannot be read; INVALID_DATA for text that is not UTF-8,
 * an empty file, or a line of more than 64 MiB; INVALID_ARGUMENT when sample_by is no
 * mmopt_sample_by; IO when token_file cannot be written. token_file is unchanged then.
 *
 * @param[in] path the text, or a pattern of several files (* and ?), UTF-8.
 * @param sample_by an mmopt_sample_by.
 * @param[in] tokenizer shared access.
 * @param[in] token_file the file to write, UTF-8.
 * @param[out] n_tokens how many tokens it has; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_token_file_write(const char *path,
                                           uint32_t sample_by,
                                           const struct mmopt_tokenizer *tokenizer,
                                           const char *token_file,
                                           uint64_t *n_tokens);

/**
 * Makes a loader of files of tokens, one for each of n_models models, at the start of epoch 0. It
 * gives the same batches as one of the texts as a corpus with pack. Each file is read once to
 * compare it with its checksum, and then mapped: it must not be changed while the loader lives.
 *
 * Errors: NOT_FOUND or IO when a file cannot be read; INVALID_DATA when it is none that
 * mmopt_token_file_write made, or is damaged; INVALID_ARGUMENT when another tokenizer made it, for
 * pack 0, and as for mmopt_loader_create. With aligned, which is on by default, all models must
 * have equally many rows.
 *
 * @param[in] token_files n_models paths, UTF-8; a file may occur twice.
 * @param[in] tokenizers n_models tokenizers, which made the files.
 * @param n_models how many models.
 * @param[in] options NULL: the defaults.
 * @param[out] loader the new object; free it with mmopt_loader_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_create_from_token_files(const char *const *token_files,
                                                         const struct mmopt_tokenizer *const *tokenizers,
                                                         size_t n_models,
                                                         const struct mmopt_loader_options *options,
                                                         struct mmopt_loader **loader);

/**
 * The next batch, with a part for each model. At the end of an epoch batch becomes NULL without an
 * error, and the next call begins the next epoch.
 *
 * Errors: only those of any call.
 *
 * @param[in,out] loader exclusive access.
 * @param[out] batch the new object, or NULL; free it with mmopt_batch_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_next(struct mmopt_loader *loader,
                                      struct mmopt_batch **batch);

/**
 * The number of batches of the current epoch; 0 for NULL. It is the same for all epochs, except
 * with max_tokens.
 *
 * @param[in] loader shared access.
 */
MMOPT_API size_t mmopt_loader_n_batches(const struct mmopt_loader *loader);

/** What encoding made of a corpus for one model. */
typedef struct mmopt_encoding_stats {
    /** Examples of the corpus. */
    uint64_t n_examples;
    /** Rows of an epoch: examples, windows of contexts, or blocks of packed text. */
    uint64_t n_rows;
    /** Tokens of all rows, special ones included, padding not. */
    uint64_t n_tokens;
    /** Tokens that were cut off. */
    uint64_t n_truncated_tokens;
    /**
     * Words of sentences that no row has a token of: cut off, or without a token. In scores their
     * entities are missed.
     */
    uint64_t n_unseen_words;
    /**
     * Questions whose accepted answers no row holds: too long for a window, or without a token.
     * They are trained on as if their answers were not known, and scored all the same.
     */
    uint64_t n_unplaced_answers;
    /** 0; for later versions. */
    uint64_t reserved[4];
} mmopt_encoding_stats;

/**
 * What encoding made of the corpus for one model: how many rows and tokens, and what was lost. A
 * trainer logs what was lost, as a warning, when it evaluates the loader.
 *
 * Errors: INVALID_ARGUMENT when model is out of range.
 *
 * @param[in] loader shared access.
 * @param model the index of the model, from 0.
 * @param[out] stats the counts.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_encoding_stats(const struct mmopt_loader *loader,
                                                size_t model,
                                                struct mmopt_encoding_stats *stats);

/**
 * The number of completed epochs; 0 for NULL.
 *
 * @param[in] loader shared access.
 */
MMOPT_API uint64_t mmopt_loader_epoch(const struct mmopt_loader *loader);

/**
 * The number of batches of the current epoch that were taken; 0 for NULL.
 *
 * @param[in] loader shared access.
 */
MMOPT_API size_t mmopt_loader_position(const struct mmopt_loader *loader);

/**
 * Moves to the start of an epoch.
 *
 * Errors: only those of any call.
 *
 * @param[in,out] loader exclusive access.
 * @param epoch the epoch, from 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_set_epoch(struct mmopt_loader *loader,
                                           uint64_t epoch);

/**
 * The position of the loader, as JSON. With the same corpus, tokenizers and options,
 * mmopt_loader_restore continues from there, bit by bit.
 *
 * Errors: only those of any call.
 *
 * @param[in] loader shared access.
 * @param[out] json the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_state(const struct mmopt_loader *loader,
                                       char **json);

/**
 * Moves to the position that mmopt_loader_state returned.
 *
 * Errors: INVALID_DATA when the text is no state, or is that of other data, options or another
 * seed; the loader is unchanged then.
 *
 * @param[in,out] loader exclusive access.
 * @param[in] json a text of mmopt_loader_state.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_restore(struct mmopt_loader *loader,
                                         const char *json);

/**
 * Frees a loader. NULL is harmless.
 *
 * @param loader may be NULL; freed by the call.
 */
MMOPT_API void mmopt_loader_free(struct mmopt_loader *loader);

/**
 * Makes a batch without labels from n texts, for predictions, with a part for each of n_models
 * models.
 *
 * Errors: INVALID_ARGUMENT without a tokenizer or a text, for a text that is not UTF-8, or a
 * max_length that the special tokens fill.
 *
 * @param[in] tokenizers n_models tokenizers, in the order of the models; a tokenizer may occur
 * twice.
 * @param n_models how many models.
 * @param[in] texts n texts, UTF-8.
 * @param n how many texts.
 * @param max_length longest sequence in tokens; 0: each tokenizer's.
 * @param[out] batch the new object, or NULL; free it with mmopt_batch_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_batch_encode(const struct mmopt_tokenizer *const *tokenizers,
                                       size_t n_models,
                                       const char *const *texts,
                                       size_t n,
                                       size_t max_length,
                                       struct mmopt_batch **batch);

/** @} */

/**
 * @defgroup models Models
 * A description of one model, which a trainer builds: from a published directory, an
 * ONNX graph, or the configuration of a fresh model.
 * @{
 */

/** What a model is trained for; decides its head and outputs. */
MMOPT_ENUM(mmopt_task) {
    /** One class per sequence. */
    MMOPT_TASK_SEQUENCE_CLASSIFICATION = 1,
    /** One class per token. */
    MMOPT_TASK_TOKEN_CLASSIFICATION = 2,
    /** The start and the end of an answer. */
    MMOPT_TASK_QUESTION_ANSWERING = 3,
    /** The masked tokens. */
    MMOPT_TASK_MASKED_LM = 4,
    /** The next token. */
    MMOPT_TASK_CAUSAL_LM = 5,
};

/** The configuration of a fresh model. mmopt_model_config_init fills in that of a small one. */
typedef struct mmopt_model_config {
    /** sizeof(mmopt_model_config). */
    size_t struct_size;
    /** An mmopt_architecture; default MMOPT_ARCHITECTURE_BERT. */
    uint32_t architecture;
    /** An mmopt_task; default MMOPT_TASK_SEQUENCE_CLASSIFICATION. */
    uint32_t task;
    /** Number of classes or tags, for classification; default 2. */
    size_t n_labels;
    /** Size of the vocabulary; default 8000. */
    size_t vocab_size;
    /** Transformer blocks; default 2. */
    size_t n_layers;
    /** Width, a multiple of n_heads; default 128. */
    size_t hidden_size;
    /** Attention heads; default 4. */
    size_t n_heads;
    /** Width of the feed-forward layers; 0 (default): 4 times hidden_size. */
    size_t intermediate_size;
    /** Longest sequence in tokens; default 128. */
    size_t n_positions;
    /** All dropout probabilities, at least 0, below 1; default 0.1. */
    double dropout;
    /** The padding token's id; -1 (default): the architecture's. */
    int64_t pad_token_id;
} mmopt_model_config;

/**
 * Fills in the configuration of a small model. NULL is harmless.
 *
 * @param[out] config filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_model_config_init(struct mmopt_model_config *config);

/** The description of one model. Its files are read when a trainer is created. */
typedef struct mmopt_model mmopt_model;

/**
 * A model from a directory with config.json and model.safetensors, as mmopt_trainer_save_model and
 * Hugging Face libraries save it. Its task is that of the configuration, unless
 * mmopt_model_set_task sets another; then the body is kept and the head is newly initialised.
 * mmopt_model_report lists what is. Names are unique within a trainer and not empty; they appear
 * in messages and checkpoints.
 *
 * Errors: INVALID_ARGUMENT for an empty name; files are read when the trainer is created, which
 * fails with NOT_FOUND for a directory without weights (mmopt_model_set_fresh_weights).
 *
 * @param[in] name of the model, UTF-8.
 * @param[in] directory the directory, UTF-8.
 * @param[out] model the new object; free it with mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_from_directory(const char *name,
                                               const char *directory,
                                               struct mmopt_model **model);

/**
 * A model from the file of a forward ONNX graph, f32 or f64. It needs a loss
 * (mmopt_model_set_loss), unless it computes its own gradients
 * (mmopt_model_set_precomputed_gradients). Shared initializers, duplicate weights and invented
 * names are repaired on import and reported (mmopt_model_report).
 *
 * Errors: INVALID_ARGUMENT for an empty name; files are read when the trainer is created.
 *
 * @param[in] name of the model, UTF-8.
 * @param[in] path the file, UTF-8.
 * @param[out] model the new object; free it with mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_from_onnx(const char *name,
                                          const char *path,
                                          struct mmopt_model **model);

/**
 * As mmopt_model_from_onnx, from n_bytes bytes in memory, which are copied.
 *
 * Errors: INVALID_ARGUMENT for a length that exceeds the address space; the graph is read when
 * the trainer is created.
 *
 * @param[in] name of the model, UTF-8.
 * @param[in] bytes the file's content, n_bytes of it.
 * @param n_bytes how many bytes.
 * @param[out] model the new object; free it with mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_from_onnx_bytes(const char *name,
                                                const void *bytes,
                                                size_t n_bytes,
                                                struct mmopt_model **model);

/**
 * A fresh model from the text of a published config.json.
 *
 * Errors: INVALID_DATA for bad JSON or a missing key; UNSUPPORTED for an unknown model_type.
 *
 * @param[in] name of the model, UTF-8.
 * @param[in] json the text of a config.json.
 * @param[out] model the new object; free it with mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_from_config_json(const char *name,
                                                 const char *json,
                                                 struct mmopt_model **model);

/**
 * A fresh model of a known architecture.
 *
 * Errors: INVALID_ARGUMENT for an unknown architecture or task, or a number out of range;
 * INVALID_DATA for numbers that do not fit together.
 *
 * @param[in] name of the model, UTF-8.
 * @param[in] config NULL: a small BERT.
 * @param[out] model the new object; free it with mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_create(const char *name,
                                       const struct mmopt_model_config *config,
                                       struct mmopt_model **model);

/**
 * The name of a class: that of mmopt_model_set_label_names, else of the configuration. LABEL_0,
 * LABEL_1, ... where another task or number of classes is set.
 *
 * Errors: NOT_FOUND when label is out of range, and for ONNX graphs; IO or INVALID_DATA when
 * config.json cannot be read; INVALID_ARGUMENT for label names that do not fit.
 *
 * @param[in] model shared access.
 * @param label a class, by its id from 0.
 * @param[out] name its name; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_label_name(const struct mmopt_model *model,
                                           size_t label,
                                           char **name);

/**
 * Frees a model. NULL is harmless.
 *
 * @param model may be NULL; freed by the call.
 */
MMOPT_API void mmopt_model_free(struct mmopt_model *model);

/**
 * A fresh model that fits a tokenizer and a corpus: vocabulary size, padding token and longest
 * sequence are the tokenizer's; task and classes are the corpus's. config gives the rest. For
 * plain text the task is MMOPT_TASK_MASKED_LM if config says so; else MMOPT_TASK_CAUSAL_LM for
 * GPT-2, and MMOPT_TASK_MASKED_LM for the others.
 * The model knows its vocabulary, as after mmopt_model_set_tokenizer.
 *
 * Errors: as mmopt_model_create; INVALID_ARGUMENT for texts that are all of one class.
 *
 * @param[in] name of the model, UTF-8.
 * @param[in] config NULL: a small BERT.
 * @param[in] tokenizer shared access.
 * @param[in] corpus shared access.
 * @param[out] model the new object; free it with mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_for_corpus(const char *name,
                                           const struct mmopt_model_config *config,
                                           const struct mmopt_tokenizer *tokenizer,
                                           const struct mmopt_corpus *corpus,
                                           struct mmopt_model **model);

/**
 * The model in a directory, as mmopt_model_from_directory, with the task and the classes of a
 * corpus: a published body for a task of one's own. A head in the directory stays if it is of the
 * same task and has the same names of classes in the same order; else it is fresh. For plain text
 * the task is MMOPT_TASK_CAUSAL_LM for GPT-2, and MMOPT_TASK_MASKED_LM for the others. The model
 * knows its vocabulary, as after mmopt_model_set_tokenizer.
 *
 * Errors: INVALID_ARGUMENT for an empty name, or a corpus without labels whose task needs them;
 * NOT_FOUND, IO or INVALID_DATA when config.json cannot be read. Weights are read when the trainer
 * is created.
 *
 * @param[in] name of the model, UTF-8.
 * @param[in] directory the directory, UTF-8.
 * @param[in] tokenizer that of the directory (mmopt_tokenizer_load); shared access.
 * @param[in] corpus shared access.
 * @param[out] model the new object; free it with mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_pretrained_for_corpus(const char *name,
                                                      const char *directory,
                                                      const struct mmopt_tokenizer *tokenizer,
                                                      const struct mmopt_corpus *corpus,
                                                      struct mmopt_model **model);

/**
 * Tells a model its vocabulary: the text of each token id, which is copied. The option start needs
 * it, to match the rows of token embeddings. mmopt_model_for_corpus sets it, and for a model from
 * a directory it is that of the tokenizer's files there, if there are any, this function was
 * not called, and start or token_embeddings needs it. Batches of a tokenizer with other tokens are
 * refused.
 *
 * Errors: only those of any call; a tokenizer with more ids than the token embedding has rows
 * fails the trainer's creation if start needs it.
 *
 * @param[in,out] model exclusive access.
 * @param[in] tokenizer shared access.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_tokenizer(struct mmopt_model *model,
                                              const struct mmopt_tokenizer *tokenizer);

/** @} */

/**
 * @defgroup model_settings Settings of a model
 * Task, loss, weight, dropout and seed of a model, and which of its parameters are
 * trained. They count for trainers that are created afterwards.
 * @{
 */

/** Losses that the library adds to a graph. */
MMOPT_ENUM(mmopt_loss) {
    /** Cross-entropy of logits [batch, classes] and labels, i64 [batch]. */
    MMOPT_LOSS_SEQUENCE_CLASSIFICATION = 1,
    /** Cross-entropy of logits [batch, length, classes] and labels, i64 [batch, length]. */
    MMOPT_LOSS_TOKEN_CLASSIFICATION = 2,
    /**
     * Mean of two cross-entropies over the length: start_logits and end_logits [batch, length],
     * start_positions and end_positions, i64 [batch].
     */
    MMOPT_LOSS_QUESTION_ANSWERING = 3,
    /** As token classification, over the vocabulary. */
    MMOPT_LOSS_MASKED_LM = 4,
    /**
     * Next-token cross-entropy: labels, i64 [batch, length], usually the input ids, are shifted.
     */
    MMOPT_LOSS_CAUSAL_LM = 5,
    /** Mean squared error of the output and labels of the same shape. */
    MMOPT_LOSS_MEAN_SQUARED_ERROR = 6,
    /** The graph computes its loss: an output that is a float with one element. */
    MMOPT_LOSS_OUTPUT = 7,
};

/** A loss. mmopt_loss_options_init fills in the defaults. */
typedef struct mmopt_loss_options {
    /** sizeof(mmopt_loss_options). */
    size_t struct_size;
    /** An mmopt_loss; default MMOPT_LOSS_SEQUENCE_CLASSIFICATION. */
    uint32_t kind;
    /** Must be 0. */
    uint32_t reserved;
    /** Label smoothing, at least 0, below 1; default 0. */
    double label_smoothing;
    /** Labels of this value are ignored; default -100. */
    int64_t ignore_index;
    /** A weight of at least 0 for each class; NULL (default): all 1. Copied. */
    const float *class_weights;
    /** How many class weights. */
    size_t n_class_weights;
    /**
     * The output that the loss reads; two names with a comma between them for question answering;
     * the loss itself for MMOPT_LOSS_OUTPUT. NULL (default): logits, or start_logits and
     * end_logits, or the only float output.
     */
    const char *output;
} mmopt_loss_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_loss_options_init(struct mmopt_loss_options *options);

/**
 * Sets the task. n_labels is the number of classes or tags, and ignored for other tasks. Weights
 * of another task keep their body and get a newly initialised head, e.g. a language model that
 * becomes a classifier. With the same task, another number of classes needs
 * mmopt_model_set_fresh_head. Not for ONNX graphs.
 *
 * Errors: INVALID_ARGUMENT when task is no mmopt_task, or n_labels is 0 or above 2^24 for
 * classification.
 *
 * @param[in,out] model exclusive access.
 * @param task an mmopt_task.
 * @param n_labels how many classes or tags.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_task(struct mmopt_model *model,
                                         uint32_t task,
                                         size_t n_labels);

/**
 * Sets the loss. The default is that of the task; ONNX graphs have no default.
 *
 * Errors: INVALID_ARGUMENT for an unknown kind or a number out of range; UNSUPPORTED for options
 * of a newer version. A loss that does not fit the model fails the trainer's creation.
 *
 * @param[in,out] model exclusive access.
 * @param[in] options NULL: the defaults.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_loss(struct mmopt_model *model,
                                         const struct mmopt_loss_options *options);

/**
 * Sets the weight of the model among the models of a trainer; only ratios matter. Default 1. It
 * scales the model's learning rate as the option model_weight_lr_scale says (in the default preset
 * a model of twice the others' weight has a greater rate, and they have lesser ones), and counts
 * in means over models: of shared gradients, of synchronisation and, with teacher_weights model,
 * of teachers.
 *
 * Errors: INVALID_ARGUMENT when it is out of range.
 *
 * @param[in,out] model exclusive access.
 * @param weight finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_weight(struct mmopt_model *model,
                                           double weight);

/**
 * Replaces all dropout probabilities of the configuration.
 *
 * Errors: INVALID_ARGUMENT when it is out of range.
 *
 * @param[in,out] model exclusive access.
 * @param dropout at least 0, below 1.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_dropout(struct mmopt_model *model,
                                            double dropout);

/**
 * Sets the seed of fresh weights and of dropout. Default 0. Two fresh models of equal architecture
 * and sizes need different ones: with one seed they start equal, learn the same, and have nothing
 * to teach each other, which a new trainer logs as a warning.
 *
 * Errors: only those of any call.
 *
 * @param[in,out] model exclusive access.
 * @param seed any number.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_seed(struct mmopt_model *model,
                                         uint64_t seed);

/**
 * Freezes the parameters whose whole name matches the pattern: * stands for any text, ? for any
 * one character. A parameter matches by the name that the trainer gives it, by its name in the
 * file, and by the names of duplicates that were tied to it. May be called more than once; takes
 * precedence over mmopt_model_train_only. A pattern that matches nothing fails the trainer's
 * creation.
 *
 * Errors: INVALID_ARGUMENT for a pattern that is not UTF-8.
 *
 * @param[in,out] model exclusive access.
 * @param[in] pattern the parameters, by name.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_freeze(struct mmopt_model *model,
                                       const char *pattern);

/**
 * Trains only the parameters whose whole name matches this pattern or that of another call, as for
 * mmopt_model_freeze. Float constants of the graph that are not trained by default are trained
 * when a pattern names them. Operator settings such as a dropout ratio are no parameters, and *
 * leaves them out. A pattern that names one of them, quantised weights or integers fails the
 * trainer's creation with UNSUPPORTED; so does one that matches nothing, with NOT_FOUND.
 *
 * Errors: INVALID_ARGUMENT for a pattern that is not UTF-8.
 *
 * @param[in,out] model exclusive access.
 * @param[in] pattern the parameters, by name.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_train_only(struct mmopt_model *model,
                                           const char *pattern);

/**
 * Sets whether the head is newly initialised although the directory has one of this task: for
 * another number of classes, or for other classes. Default 0: a head of another number of classes
 * fails the trainer's creation with SHAPE. The body keeps its weights, BERT's pooler included;
 * class names of the directory are dropped.
 *
 * Errors: INVALID_ARGUMENT for any other number, and for ONNX graphs.
 *
 * @param[in,out] model exclusive access.
 * @param fresh 0 or 1.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_fresh_head(struct mmopt_model *model,
                                               uint32_t fresh);

/**
 * Sets whether all weights of a model from a directory are newly initialised, by the seed of
 * mmopt_model_set_seed, and none are read. Default 0: a directory with config.json alone fails
 * the trainer's creation with NOT_FOUND. The trainer's log tells it as a warning.
 *
 * Errors: INVALID_ARGUMENT for any other number, and for ONNX graphs.
 *
 * @param[in,out] model exclusive access.
 * @param fresh 0 or 1.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_fresh_weights(struct mmopt_model *model,
                                                  uint32_t fresh);

/**
 * Names the classes or tags, in the order of their ids, e.g. those of a corpus. Saved models have
 * the names in config.json (id2label, label2id), where predictions take them from. Default: the
 * configuration's names, where it is of the same task and number of classes, else LABEL_0,
 * LABEL_1, ....
 *
 * Errors: INVALID_ARGUMENT for a name that is empty, not UTF-8 or occurs twice, for n 0, and for
 * ONNX graphs. The trainer's creation fails for another number of names than of classes, and for
 * the names of a trained head in another order.
 *
 * @param[in,out] model exclusive access.
 * @param[in] names n names, UTF-8; copied.
 * @param n how many names.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_label_names(struct mmopt_model *model,
                                                const char *const *names,
                                                size_t n);

/** @} */

/**
 * @defgroup adapters Low-rank adapters
 * A model trained by a small part of its parameters: the product of two narrow matrices
 * beside each frozen one (LoRA).
 * @{
 */

/**
 * Low-rank adapters: y = x W + b + alpha / rank * dropout(x) A^T B^T, with A [rank, in] and
 * B [out, rank] (Hu et al. 2021, arXiv 2106.09685). mmopt_adapter_options_init fills in the
 * defaults. All of it is copied.
 */
typedef struct mmopt_adapter_options {
    /** sizeof(mmopt_adapter_options). */
    size_t struct_size;
    /**
     * The matrices of linear layers that get one: names of modules, whole or their last parts
     * (query, c_attn), or patterns of modules or of weights, as for mmopt_model_freeze. Required.
     */
    const char *const *target_modules;
    /** How many. */
    size_t n_target_modules;
    /** The rank, 1 to 65536; default 8. */
    size_t rank;
    /** The product of A and B is multiplied by alpha / rank; 1e-30 to 1e30; default 8. */
    double alpha;
    /** Dropout probability of what goes into A, at least 0, below 1; default 0. */
    double dropout;
    /**
     * Modules that are trained whole and saved with the adapters, named likewise. NULL (default):
     * the newly initialised parts of the task's head. To train none, n_modules_to_save is 0 and
     * this is not NULL.
     */
    const char *const *modules_to_save;
    /** How many. */
    size_t n_modules_to_save;
} mmopt_adapter_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_adapter_options_init(struct mmopt_adapter_options *options);

/**
 * Puts a low-rank adapter beside each matrix that options name, and freezes everything else but
 * the adapters and the modules to save: it has neither gradients nor moments. A is drawn as
 * published, by the seed of mmopt_model_set_seed, and B is 0: the model gives the same as without
 * until the first step. Adapters of an earlier call are replaced. A and B are parameters,
 * \<module\>.lora_A.weight and \<module\>.lora_B.weight, which share across models by the role of
 * their matrix. mmopt_model_train_only and mmopt_model_freeze choose among what is left to train.
 * What is saved as a model has its adapters merged; mmopt_trainer_save_adapters writes them alone.
 * A name that matches nothing fails the trainer's creation with NOT_FOUND and says what could
 * match; one of a parameter that can have no adapter fails it with UNSUPPORTED.
 *
 * Errors: INVALID_ARGUMENT for a number out of range, without target_modules, and for text that is
 * not UTF-8; UNSUPPORTED for a model that brings its own gradients.
 *
 * @param[in,out] model exclusive access.
 * @param[in] options names at least one target; not NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_add_adapters(struct mmopt_model *model,
                                             const struct mmopt_adapter_options *options);

/**
 * As mmopt_model_add_adapters, with the adapters that a directory holds in the layout of Python's
 * peft: adapter_config.json and adapter_model.safetensors, as mmopt_trainer_save_adapters writes
 * them. Rank, alpha, dropout and targets are those of the files. Modules that were trained whole
 * get their values from there, and are trained on. Files are read when the trainer is created.
 *
 * The trainer's creation fails with UNSUPPORTED for adapters of another kind than plain LoRA (such
 * as DoRA, rank-stabilised, with biases, of several ranks), with NOT_FOUND and SHAPE for those of
 * another model, and with NOT_FOUND, IO or INVALID_DATA for files that cannot be read.
 *
 * Errors: INVALID_ARGUMENT for text that is not UTF-8; UNSUPPORTED as mmopt_model_add_adapters.
 *
 * @param[in,out] model exclusive access.
 * @param[in] directory the directory, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_load_adapters(struct mmopt_model *model,
                                              const char *directory);

/** @} */

/**
 * @defgroup onnx_graphs Models from ONNX graphs
 * Graphs that compute their own gradients, and what is repaired on import: shared
 * initializers, duplicate weights, and parameter names that an exporter invented.
 * @{
 */

/** A parameter and the output of the graph that holds its gradient. */
typedef struct mmopt_gradient_output {
    /** An initializer of the graph, or a float input whose dimensions are all fixed. */
    const char *parameter;
    /** An output of the same shape and element type. */
    const char *output;
} mmopt_gradient_output;

/**
 * The outputs of a graph that computes its own gradients. mmopt_precomputed_gradient_options_init
 * fills in the defaults. All of it is copied.
 */
typedef struct mmopt_precomputed_gradient_options {
    /** sizeof(mmopt_precomputed_gradient_options). */
    size_t struct_size;
    /** The output that holds the loss, a float with one element. Required. */
    const char *loss;
    /** The parameters to train and their gradients, at least one. All other tensors are frozen. */
    const struct mmopt_gradient_output *gradients;
    /** How many. */
    size_t n_gradients;
    /**
     * Outputs that mmopt_trainer_evaluate returns. Inputs that they do not depend on are labels,
     * which evaluation does not need. NULL (default): none.
     */
    const char *const *logits;
    /** How many. */
    size_t n_logits;
    /**
     * A safetensors file with the values of parameters that are inputs of the graph, under their
     * names; NULL (default): all are initializers.
     */
    const char *weights;
} mmopt_precomputed_gradient_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API
void mmopt_precomputed_gradient_options_init(struct mmopt_precomputed_gradient_options *options);

/**
 * Says that the model's ONNX graph computes its own gradients: the library reads the named outputs
 * and differentiates nothing. All inputs but the parameters are inputs of a batch. Such a model
 * needs no loss, is not repaired on import, and cannot take part in mutual learning.
 *
 * Errors: INVALID_ARGUMENT for a model that is no ONNX graph, and when loss or a name is NULL. The
 * trainer's creation checks the names: NOT_FOUND for a name that the graph does not have,
 * INVALID_ARGUMENT for a parameter without a value. The first batch checks the shapes: SHAPE for a
 * gradient that does not fit its parameter.
 *
 * @param[in,out] model exclusive access.
 * @param[in] options required.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_precomputed_gradients(struct mmopt_model *model,
                                                          const struct mmopt_precomputed_gradient_options *options);

/**
 * What happens to one initializer that an exporter wrote for several equal parameters, as fresh
 * gains are all 1 and fresh biases all 0.
 */
MMOPT_ENUM(mmopt_shared_initializers) {
    /**
     * Train it as one parameter and report it; the file does not say whether the model has one or
     * several.
     */
    MMOPT_SHARED_INITIALIZERS_REPORT = 0,
    /** Give each use a parameter of its own. */
    MMOPT_SHARED_INITIALIZERS_SPLIT = 1,
};

/** What happens to equal matrices, possibly transposed. */
MMOPT_ENUM(mmopt_duplicate_weights) {
    /** Train them separately and report them. */
    MMOPT_DUPLICATE_WEIGHTS_REPORT = 0,
    /** Tie them where one is an embedding table: a tied embedding that the exporter wrote twice. */
    MMOPT_DUPLICATE_WEIGHTS_TIE_EMBEDDINGS = 1,
    /** Tie all of them. */
    MMOPT_DUPLICATE_WEIGHTS_TIE_ALL = 2,
};

/**
 * Sets what happens to shared initializers of an ONNX graph. Default
 * MMOPT_SHARED_INITIALIZERS_REPORT.
 *
 * Errors: INVALID_ARGUMENT for any other number.
 *
 * @param[in,out] model exclusive access.
 * @param action an mmopt_shared_initializers.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_shared_initializers(struct mmopt_model *model,
                                                        uint32_t action);

/**
 * Sets what happens to duplicate weights of an ONNX graph. Default
 * MMOPT_DUPLICATE_WEIGHTS_TIE_EMBEDDINGS.
 *
 * Errors: INVALID_ARGUMENT for any other number.
 *
 * @param[in,out] model exclusive access.
 * @param action an mmopt_duplicate_weights.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_duplicate_weights(struct mmopt_model *model,
                                                      uint32_t action);

/**
 * Sets whether parameters of an ONNX graph whose names an exporter invented (onnx::MatMul_123,
 * val_92) get their state dict names, where the file holds them. Default 1. The values are not
 * changed and may be transposed. Patterns match the invented names as well.
 *
 * Errors: INVALID_ARGUMENT for any other number.
 *
 * @param[in,out] model exclusive access.
 * @param restore 0 or 1.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_restore_names(struct mmopt_model *model,
                                                  uint32_t restore);

/**
 * Freezes one row of the parameters whose whole name matches the pattern, for example the
 * embedding of the padding token: it has no gradient, and weight decay, sharing and
 * synchronisation leave it alone. May be called more than once. The padding rows of models from a
 * directory or configuration are frozen already.
 *
 * Errors: INVALID_ARGUMENT for a pattern that is not UTF-8. A row out of range, or a pattern that
 * matches nothing, fails the trainer's creation.
 *
 * @param[in,out] model exclusive access.
 * @param[in] pattern the parameters, by name.
 * @param row the index of the row, from 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_freeze_row(struct mmopt_model *model,
                                           const char *pattern,
                                           size_t row);

/**
 * What a trainer finds in this model and does about it, as text: shared initializers, duplicate
 * weights, restored names, what is frozen, and what cannot be trained and why. Reads the model's
 * files, and needs no ONNX Runtime.
 *
 * Errors: those of reading the model; NOT_FOUND for a pattern that matches nothing.
 *
 * @param[in] model shared access.
 * @param[out] text the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_report(const struct mmopt_model *model,
                                       char **text);

/**
 * As mmopt_model_report, as one JSON object; docs/exporting.md lists its fields.
 *
 * Errors: as mmopt_model_report.
 *
 * @param[in] model shared access.
 * @param[out] json the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_report_json(const struct mmopt_model *model,
                                            char **json);

/** @} */

/**
 * @defgroup trainer_options Training options
 * How models are trained together: learning rates and update, what is shared and how,
 * the schedule, the device. Trainers and optimizers take the same options.
 * @{
 */

/** Sets of options to start from. */
MMOPT_ENUM(mmopt_preset) {
    /**
     * The project's own: models learn from each other's predictions, fresh ones start from the
     * pretrained one's token table where there is one, and rates follow the losses.
     */
    MMOPT_PRESET_DEFAULT = 0,
    /** The published implementation (Gomez 2025, see docs/optimizer.md), reproduced to rounding. */
    MMOPT_PRESET_PAPER = 1,
    /** Every model by itself: nothing is shared, and rates follow the schedule alone. */
    MMOPT_PRESET_INDEPENDENT = 2,
    /**
     * PyTorch's AdamW with its defaults for every model by itself: learning rate 1e-3, weight
     * decay on every parameter, no clipping, nothing shared. Beyond it, non_finite skips.
     */
    MMOPT_PRESET_ADAMW = 3,
};

/** Which parameters share. */
MMOPT_ENUM(mmopt_share_policy) {
    /** None. */
    MMOPT_SHARE_POLICY_NONE = 0,
    /** Those of equal class (from the name) and shape, as published. */
    MMOPT_SHARE_POLICY_PAPER = 1,
    /** Those of equal role and view shape, blocks matched by relative depth. */
    MMOPT_SHARE_POLICY_ALIGNED = 2,
    /** The groups in share_groups, a key of options_json. */
    MMOPT_SHARE_POLICY_CUSTOM = 3,
};

/** How the gradients of a group mix. */
MMOPT_ENUM(mmopt_share_rule) {
    /** They do not. */
    MMOPT_SHARE_RULE_NONE = 0,
    /** Each moves towards the group's weighted mean. */
    MMOPT_SHARE_RULE_MEAN = 1,
    /** Each moves towards the group's weighted sum, as published. */
    MMOPT_SHARE_RULE_SUM = 2,
    /** As the mean, each peer as far as its direction agrees. */
    MMOPT_SHARE_RULE_GATED = 3,
    /** Conflicting components are projected out, then the mean. */
    MMOPT_SHARE_RULE_PROJECT = 4,
    /** The matrix in share_influence, a key of options_json. */
    MMOPT_SHARE_RULE_INFLUENCE = 5,
};

/**
 * How learning rates follow the models' losses. adaptive_lr_every and adaptive_lr_window, keys of
 * options_json, say how often and how far back; another preset has other values of them.
 */
MMOPT_ENUM(mmopt_adaptive_lr) {
    /** Not at all. */
    MMOPT_ADAPTIVE_LR_NONE = 0,
    /** The published rule; it can only raise a rate. */
    MMOPT_ADAPTIVE_LR_PUBLISHED = 1,
    /** The project's rule. */
    MMOPT_ADAPTIVE_LR_RELATIVE = 2,
};

/** What follows the linear warm-up. */
MMOPT_ENUM(mmopt_lr_schedule) {
    /** The base rate. */
    MMOPT_LR_SCHEDULE_CONSTANT = 0,
    /**
     * A straight line from 1 in the first step after warm-up to min_lr_ratio, reached after
     * total_steps: 1, 0.75, 0.5, 0.25 for four steps.
     */
    MMOPT_LR_SCHEDULE_LINEAR = 1,
    /** Half a cosine over the same steps. */
    MMOPT_LR_SCHEDULE_COSINE = 2,
    /** A power of the steps left, over the same steps; polynomial_power in options_json. */
    MMOPT_LR_SCHEDULE_POLYNOMIAL = 3,
    /** A cosine up and one down, until total_steps, without warm-up; one_cycle in options_json. */
    MMOPT_LR_SCHEDULE_ONE_CYCLE = 4,
    /**
     * Lowered when the scores of mmopt_trainer_report_validation stop to improve; plateau in
     * options_json.
     */
    MMOPT_LR_SCHEDULE_PLATEAU = 5,
    /** The published scheduler; it counts micro-batches. */
    MMOPT_LR_SCHEDULE_PUBLISHED = 6,
};

/**
 * What happens to a model whose loss or gradient is NaN or infinite, or so large that a moment
 * would overflow.
 */
MMOPT_ENUM(mmopt_non_finite) {
    /** It skips the step, which is counted; the others go on. */
    MMOPT_NON_FINITE_SKIP = 0,
    /** The step fails before anything changes. */
    MMOPT_NON_FINITE_FAIL = 1,
    /** Nobody looks. */
    MMOPT_NON_FINITE_IGNORE = 2,
};

/** Where models compute. */
MMOPT_ENUM(mmopt_device) {
    /** The processor. */
    MMOPT_DEVICE_CPU = 0,
    /** An NVIDIA GPU, with an ONNX Runtime that has the CUDA provider. */
    MMOPT_DEVICE_CUDA = 1,
};

/** How models are trained together. mmopt_trainer_options_init fills in a preset. */
typedef struct mmopt_trainer_options {
    /** sizeof(mmopt_trainer_options). */
    size_t struct_size;
    /**
     * The preset that decides what is not a field here, an mmopt_preset; use
     * mmopt_trainer_options_init to change it, so that the fields follow.
     */
    uint32_t preset;
    /** An mmopt_share_policy; default MMOPT_SHARE_POLICY_ALIGNED. */
    uint32_t share_policy;
    /** An mmopt_share_rule; default MMOPT_SHARE_RULE_NONE. */
    uint32_t share_rule;
    /** An mmopt_adaptive_lr; default MMOPT_ADAPTIVE_LR_RELATIVE. */
    uint32_t adaptive_lr;
    /** Base learning rate, at least 0; default 3e-5. */
    double learning_rate;
    /** Decay of the first moment, in [0, 1); default 0.9. */
    double beta1;
    /** Decay of the second moment, in [0, 1); default 0.999. */
    double beta2;
    /** Added to the denominator, at least 0; default 1e-8. */
    double eps;
    /** Decoupled weight decay, at least 0; default 0.01. */
    double weight_decay;
    /** Greatest L2 norm of a model's gradient, at least 0; 0 does not clip; default 1. */
    double max_grad_norm;
    /** Share of the group's gradient in [0, 1]; default 0.2. */
    double share_alpha;
    /** Steps between sharing; 0 never; default 1. */
    uint64_t share_every;
    /** Pull towards the group's mean in [0, 1]; default 0.1. */
    double sync_beta;
    /** Steps between synchronisations; 0 never; default 0. */
    uint64_t sync_every;
    /** Steps of linear warm-up; default 0. */
    uint64_t warmup_steps;
    /**
     * Steps of lr_schedule, warm-up included; at least 1 where it has an end, and at least
     * warmup_steps for a linear, cosine or polynomial one; default 0.
     */
    uint64_t total_steps;
    /** Smallest factor of lr_schedule, in [0, 1]; default 0. */
    double min_lr_ratio;
    /** An mmopt_lr_schedule; default MMOPT_LR_SCHEDULE_CONSTANT. */
    uint32_t lr_schedule;
    /**
     * Micro-batches per step, at least 1; default 1. Their gradients are averaged, each by the
     * number of its labels that count, or as gradient_accumulation in options_json says.
     */
    uint32_t gradient_accumulation_steps;
    /** An mmopt_non_finite; default MMOPT_NON_FINITE_SKIP. */
    uint32_t non_finite;
    /** An mmopt_device; default MMOPT_DEVICE_CPU. */
    uint32_t device;
    /** The number of the GPU; default 0. */
    int32_t device_id;
    /**
     * 1: a GPU multiplies matrices of f32 in TF32, with 10 of 23 bits of the mantissa: faster, and
     * gradients that differ by about 1e-3, relative; 0 (default): in f32. The CPU always does.
     */
    uint32_t tf32;
    /** Threads in all; 0 (default) takes every core. Results do not depend on it. */
    size_t n_threads;
    /** Shapes that each model keeps a session for; 0 (default): 16. */
    size_t max_sessions;
    /** ONNX Runtime's library; NULL (default) searches as mmopt_runtime_load says. */
    const char *runtime_path;
    /**
     * A JSON object with any options of the optimizer, merged over the fields above; NULL
     * (default): none. docs/options.md lists them; an unknown one is an error.
     */
    const char *options_json;
} mmopt_trainer_options;

/**
 * Fills the options with a preset, an mmopt_preset; any other number gives the default one, which
 * the trainer then refuses. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 * @param preset an mmopt_preset.
 */
MMOPT_API
void mmopt_trainer_options_init(struct mmopt_trainer_options *options,
                                uint32_t preset);

/** @} */

/**
 * @defgroup trainers Trainers
 * Several models and the optimizer that trains them together. The loop is a forward and
 * backward pass of each model, then one step for all.
 * @{
 */

/** Several models and the optimizer that trains them together. */
typedef struct mmopt_trainer mmopt_trainer;

/**
 * Reads n_models models, checks that each can be trained, and plans what they share. Loads ONNX
 * Runtime if it is not loaded. The models are copied, and may be freed or used again.
 *
 * Errors, with the model's name: those of reading it; NON_FINITE for weights that are not finite;
 * UNSUPPORTED for an operator without a gradient rule; INVALID_ARGUMENT for a name that occurs
 * twice, an option out of range, the option start without the model or the vocabularies that it
 * needs, or models that are to learn from each other and have the same classes in another order;
 * NOT_FOUND for an unknown start_from, and for a model that param_groups names and that is not
 * there; RUNTIME_UNAVAILABLE without ONNX Runtime, or for a device that it was built without.
 *
 * @param[in] options NULL: the defaults.
 * @param[in] models n_models models, none of them NULL.
 * @param n_models how many models.
 * @param[out] trainer the new object; free it with mmopt_trainer_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_create(const struct mmopt_trainer_options *options,
                                         const struct mmopt_model *const *models,
                                         size_t n_models,
                                         struct mmopt_trainer **trainer);

/**
 * The number of models; 0 for NULL.
 *
 * @param[in] trainer shared access.
 */
MMOPT_API size_t mmopt_trainer_n_models(const struct mmopt_trainer *trainer);

/**
 * The name of a model, valid as long as the trainer; NULL when model is out of range.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 */
MMOPT_API
const char *mmopt_trainer_model_name(const struct mmopt_trainer *trainer,
                                     size_t model);

/**
 * The index of the model of that name.
 *
 * Errors: NOT_FOUND for any other name.
 *
 * @param[in] trainer shared access.
 * @param[in] name the model's name.
 * @param[out] model its index.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_model_index(const struct mmopt_trainer *trainer,
                                              const char *name,
                                              size_t *model);

/**
 * Frees a trainer, after an asynchronous checkpoint of it is written. NULL is harmless.
 *
 * @param trainer may be NULL; freed by the call.
 */
MMOPT_API void mmopt_trainer_free(struct mmopt_trainer *trainer);

/**
 * Opens the session that training one model on tensors of these shapes needs, and runs nothing, so
 * that the first pass takes no longer than the others. A session that is open stays as it is.
 *
 * Errors: as mmopt_trainer_forward_backward for tensors that do not fit the model.
 *
 * @param[in,out] trainer exclusive access.
 * @param model the index of the model, from 0.
 * @param[in] tensors n_tensors views, read during the call only; inputs and labels.
 * @param n_tensors how many tensors.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_prepare(struct mmopt_trainer *trainer,
                                          size_t model,
                                          const struct mmopt_tensor *tensors,
                                          size_t n_tensors);

/** The result of one forward and backward pass of one model. */
typedef struct mmopt_train_result {
    /**
     * The loss of the batch, 0 without a label that counts; with a communicator of all ranks'
     * parts of it, and so are the counts.
     */
    double loss;
    /** Correct predictions; 0 for regression. */
    uint64_t n_correct;
    /** Labels that are not ignored; 0 for regression. */
    uint64_t n_labels;
    /** What mutual learning added to the loss, with its weight; 0 without the option mutual. */
    double mutual_loss;
} mmopt_train_result;

/** What a step did. */
typedef struct mmopt_step_report {
    /** The step's number, from 1. */
    uint64_t step;
    /** Models of which the step, or the gradient callback, updated a parameter. */
    uint32_t n_updated;
    /**
     * Models that were skipped because a loss or gradient was not finite, or so large that a
     * moment would have overflowed.
     */
    uint32_t n_skipped;
    /** 1 if gradients were shared, by share_rule. */
    uint32_t shared;
    /** 1 if parameters were synchronised. */
    uint32_t synced;
    /** 0; for later versions. */
    uint64_t reserved[4];
} mmopt_step_report;

/**
 * Discards the gradients since the last step.
 *
 * Errors: only those of any call.
 *
 * @param[in,out] trainer exclusive access.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_zero_grad(struct mmopt_trainer *trainer);

/**
 * Computes loss and gradients of one micro-batch of one model, for the next step. With
 * gradient_accumulation_steps above 1 so many micro-batches are added up; else a second pass
 * before the step replaces the gradients of the first, and a warning is logged.
 *
 * tensors holds the model's inputs and labels in any order.
 *
 * Errors: INVALID_ARGUMENT when model is out of range; NOT_FOUND for an unknown or missing input;
 * SHAPE or INVALID_ARGUMENT for a tensor that does not fit, and for ids and labels out of range;
 * CANCELLED by the progress callback or a cancel token; STATE with the option mutual where it is
 * required: all models run in one call then (in the default preset it is not, and the model trains
 * without the others). After an error this micro-batch is discarded.
 *
 * @param[in,out] trainer exclusive access.
 * @param model the index of the model, from 0.
 * @param[in] tensors n_tensors views, read during the call only.
 * @param n_tensors how many tensors.
 * @param[out] result loss and counts; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_forward_backward(struct mmopt_trainer *trainer,
                                                   size_t model,
                                                   const struct mmopt_tensor *tensors,
                                                   size_t n_tensors,
                                                   struct mmopt_train_result *result);

/**
 * Computes loss and gradients of one micro-batch of every model, in parallel.
 *
 * tensors and n_tensors hold the array of tensors and its length for each model; results has room
 * for n_models results. If one model fails, the micro-batches of all are discarded.
 *
 * Errors: as mmopt_trainer_forward_backward; INVALID_ARGUMENT when the number of models differs
 * from the trainer's.
 *
 * @param[in,out] trainer exclusive access.
 * @param[in] tensors an array for each model.
 * @param[in] n_tensors the length of each array.
 * @param n_models how many models.
 * @param[out] results losses and counts, one for each model; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_forward_backward_all(struct mmopt_trainer *trainer,
                                                       const struct mmopt_tensor *const *tensors,
                                                       const size_t *n_tensors,
                                                       size_t n_models,
                                                       struct mmopt_train_result *results);

/**
 * As mmopt_trainer_forward_backward_all, with the parts of a batch: one for each model, in the
 * order of the models. results has room for as many results.
 *
 * Errors: as mmopt_trainer_forward_backward; INVALID_ARGUMENT when the number of models differs
 * from the trainer's, when a part's tokenizer has another vocabulary than the model's, where that
 * is known (mmopt_model_set_tokenizer), and when the corpus has the model's classes in another
 * order.
 *
 * @param[in,out] trainer exclusive access.
 * @param[in] batch shared access.
 * @param[out] results losses and counts, one for each model; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_forward_backward_batch(struct mmopt_trainer *trainer,
                                                         const struct mmopt_batch *batch,
                                                         struct mmopt_train_result *results);

/**
 * Gives the adaptive learning rates losses that the host computed, one for each of n_models
 * models. Not needed for the losses of forward_backward, which count by themselves.
 *
 * Errors: INVALID_ARGUMENT when the number of models differs from the trainer's.
 *
 * @param[in,out] trainer exclusive access.
 * @param[in] losses n_models losses.
 * @param n_models how many models.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_log_metrics(struct mmopt_trainer *trainer,
                                              const double *losses,
                                              size_t n_models);

/**
 * One step of all models with the gradients since the last step: check, clip, share, update,
 * synchronise.
 *
 * Errors: STATE without a forward and backward pass since the last step; NON_FINITE if the options
 * ask for it; CANCELLED by the progress or gradient callback; INVALID_ARGUMENT for a bad result of
 * a callback. After an error the step can be taken again.
 *
 * @param[in,out] trainer exclusive access.
 * @param[out] report what the step did; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_step(struct mmopt_trainer *trainer,
                                       struct mmopt_step_report *report);

/** @} */

/**
 * @defgroup trainer_state State of a trainer
 * The sharing plan, learning rates, parameters and gradients of a trainer, and what it
 * found in its models; what training takes in memory.
 * @{
 */

/**
 * The sharing plan as text: which parameters of the models belong together, and why, and what is
 * done with their gradients (share_rule) and values (sync_every). With the option start it then
 * says what fresh models started from; then whether models learn from each other's predictions
 * (mutual), with a line for each model and its teachers, and how many run at a time. On several
 * ranks its last line begins with "ranks: " and says what this rank sends in bytes.
 *
 * Errors: only those of any call.
 *
 * @param[in] trainer shared access.
 * @param[out] text the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_plan(const struct mmopt_trainer *trainer,
                                       char **text);

/**
 * The sharing plan as one JSON object. Its keys gradients and parameters say in words what is done
 * with those of a group; start says what fresh models started from; mutual and parallel are the
 * text's lines on mutual learning and on how many models run at a time; students has for each
 * trained model that learns from others' predictions model, weight (after the ramp-up) and
 * teachers, an array of names. On several ranks the key ranks has rank, n_ranks, way, placement
 * (or null), and the bytes that a rank sends, as a mean over the ranks: pass_bytes and, for each
 * probability that a model predicts for others, probability_bytes; step_bytes; sync_bytes more
 * with a synchronisation; meeting_bytes in a meeting after local steps. A group with by_token true
 * has rows of token tables; where view says so many rows, these may be any, in any order.
 *
 * Errors: only those of any call.
 *
 * @param[in] trainer shared access.
 * @param[out] json the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_plan_json(const struct mmopt_trainer *trainer,
                                            char **json);

/** The learning rate of a model, its factors, and other numbers of the last step. */
typedef struct mmopt_rates {
    /** The base learning rate. */
    double base;
    /** Factor of the schedule: warm-up and decay. */
    double schedule;
    /** Factor of the adaptive learning rate, from the model's losses. */
    double adaptive;
    /** Factor of the model's weight. */
    double scale;
    /** The second multiplier of the published method; 1 otherwise. */
    double multiplier;
    /** The learning rate that was used: the product, or the result of the rate callback. */
    double effective;
    /** L2 norm of the gradient before clipping; 0 if nothing needed it. */
    double gradient_norm;
    /** The model's weight, normalised: divided by the sum of all. */
    double weight;
    /** Steps that skipped this model. */
    uint64_t n_skipped;
    /** 0; for later versions. */
    uint64_t reserved[3];
} mmopt_rates;

/**
 * Learning rate, gradient norm, weight and skipped steps of one model, as of the last step.
 *
 * Errors: INVALID_ARGUMENT when model is out of range.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param[out] rates the numbers.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_rates(const struct mmopt_trainer *trainer,
                                        size_t model,
                                        struct mmopt_rates *rates);

/**
 * The number of steps, those before a resume included; 0 for NULL.
 *
 * @param[in] trainer shared access.
 */
MMOPT_API uint64_t mmopt_trainer_n_steps(const struct mmopt_trainer *trainer);

/**
 * Sets the base learning rate from the next step on.
 *
 * Errors: INVALID_ARGUMENT when rate is out of range.
 *
 * @param[in,out] trainer exclusive access.
 * @param rate finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_learning_rate(struct mmopt_trainer *trainer,
                                                    double rate);

/**
 * Sets the weight of a model from the next step on, see mmopt_model_set_weight; not all weights
 * may be 0.
 *
 * Errors: INVALID_ARGUMENT when model or weight is out of range.
 *
 * @param[in,out] trainer exclusive access.
 * @param model the index of the model, from 0.
 * @param weight finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_model_weight(struct mmopt_trainer *trainer,
                                                   size_t model,
                                                   double weight);

/**
 * Reports one validation score per model, in the order they were given; higher is better, and all
 * are on one scale: accuracies, or losses times -1. The options lr_schedule plateau, which sees
 * their mean, and weighting validation, with which better models come to weigh more, act on it
 * from the next step on; without either nothing changes.
 *
 * Errors: INVALID_ARGUMENT for another number of scores than of models, or one that is not
 * finite; nothing changes then.
 *
 * @param[in,out] trainer exclusive access.
 * @param[in] scores n_scores scores, one per model.
 * @param n_scores the number of models.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_report_validation(struct mmopt_trainer *trainer,
                                                    const double *scores,
                                                    size_t n_scores);

/**
 * How much the models' gradients agree and how far their parameters are apart, as of the last step
 * that the option metrics_every named, as one JSON object: step; models, the names in the plan's
 * order; cosine and distance, a row of numbers for each model; groups, each with name, members
 * (model, param, view), cosine and distance, a row for each member. Cosines are between gradients
 * before clipping and sharing; distances are root mean squares between models and L2 norms between
 * members. A number that is not finite is null.
 *
 * Errors: STATE when metrics_every is 0, when the plan has no group, and before the first such
 * step.
 *
 * @param[in] trainer shared access.
 * @param[out] json the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_metrics_json(const struct mmopt_trainer *trainer,
                                               char **json);

/**
 * The number of parameters of a model; 0 for NULL, and when model is out of range. Parameters are
 * indexed in graph order.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 */
MMOPT_API
size_t mmopt_trainer_n_parameters(const struct mmopt_trainer *trainer,
                                  size_t model);

/**
 * The index of the parameter of that name.
 *
 * Errors: INVALID_ARGUMENT when model is out of range; NOT_FOUND for any other name.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param[in] name the parameter's name.
 * @param[out] parameter its index.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_parameter_index(const struct mmopt_trainer *trainer,
                                                  size_t model,
                                                  const char *name,
                                                  size_t *parameter);

/**
 * A view of a parameter's value. It points into the trainer's memory and is valid until the
 * trainer is freed; the elements change with each step. trainable is as param_groups and
 * mmopt_trainer_set_trainable left it.
 *
 * Errors: INVALID_ARGUMENT when model or parameter is out of range.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param parameter the index of the parameter within its model, from 0.
 * @param[out] tensor the view.
 * @param[out] trainable 1 or 0; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_parameter(const struct mmopt_trainer *trainer,
                                            size_t model,
                                            size_t parameter,
                                            struct mmopt_tensor *tensor,
                                            uint32_t *trainable);

/**
 * Replaces a parameter's value by n_bytes bytes, which are copied and must be as many as it has.
 *
 * Errors: INVALID_ARGUMENT when model or parameter is out of range; SHAPE for any other length.
 *
 * @param[in,out] trainer exclusive access.
 * @param model the index of the model, from 0.
 * @param parameter the index of the parameter within its model, from 0.
 * @param[in] data n_bytes bytes of the parameter's element type, row-major.
 * @param n_bytes how many bytes.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_parameter(struct mmopt_trainer *trainer,
                                                size_t model,
                                                size_t parameter,
                                                const void *data,
                                                size_t n_bytes);

/**
 * A view of a parameter's gradient as of the last backward pass, valid until the trainer is freed.
 *
 * Errors: INVALID_ARGUMENT when model or parameter is out of range; STATE before the first
 * backward pass, for frozen parameters, and for parameters that the loss does not depend on.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param parameter the index of the parameter within its model, from 0.
 * @param[out] tensor the view.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_gradient(const struct mmopt_trainer *trainer,
                                           size_t model,
                                           size_t parameter,
                                           struct mmopt_tensor *tensor);

/**
 * Replaces a gradient between the backward pass and the step by n_bytes bytes, which are copied
 * and must be as many as it has.
 *
 * Errors: STATE without a gradient, or when it was accumulated already (with more than one
 * micro-batch per step) or summed over the ranks (overlap of mmopt_rank_options);
 * INVALID_ARGUMENT and SHAPE as mmopt_trainer_set_parameter.
 *
 * @param[in,out] trainer exclusive access.
 * @param model the index of the model, from 0.
 * @param parameter the index of the parameter within its model, from 0.
 * @param[in] data n_bytes bytes of the parameter's element type, row-major.
 * @param n_bytes how many bytes.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_gradient(struct mmopt_trainer *trainer,
                                               size_t model,
                                               size_t parameter,
                                               const void *data,
                                               size_t n_bytes);

/**
 * Freezes (trainable 0) or trains (1) the parameters whose name matches pattern in the models
 * whose name matches model_pattern, from the next step on: * stands for any text, ? for any one
 * character. Only parameters that were trainable when the trainer was created have gradients.
 *
 * Errors: INVALID_ARGUMENT when trainable is neither 0 nor 1, or a pattern is not UTF-8.
 *
 * @param[in,out] trainer exclusive access.
 * @param[in] model_pattern the models, by name.
 * @param[in] pattern the parameters, by name.
 * @param trainable 0 or 1.
 * @param[out] n_changed how many parameters changed; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_trainable(struct mmopt_trainer *trainer,
                                                const char *model_pattern,
                                                const char *pattern,
                                                uint32_t trainable,
                                                size_t *n_changed);

/**
 * What was found in a model's graph and what was done about it, as text; see mmopt_model_report.
 *
 * Errors: INVALID_ARGUMENT when model is out of range.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param[out] text the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_model_report(const struct mmopt_trainer *trainer,
                                               size_t model,
                                               char **text);

/**
 * As mmopt_trainer_model_report, as one JSON object; docs/exporting.md lists its fields.
 *
 * Errors: INVALID_ARGUMENT when model is out of range.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param[out] json the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_model_report_json(const struct mmopt_trainer *trainer,
                                                    size_t model,
                                                    char **json);

/**
 * Finds the first value that is not finite in a forward and backward pass of one model, with the
 * present parameters: its node, operator, output and position, and the ranges of the node's
 * inputs. The trainer does not change. The pass runs without ONNX Runtime's optimisations, and
 * keeps all values in memory.
 *
 * tensors is as in mmopt_trainer_forward_backward. docs/exporting.md lists the fields of json.
 * Both results become NULL if loss and gradients are all finite.
 *
 * Errors: as mmopt_trainer_forward_backward.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param[in] tensors n_tensors views, read during the call only.
 * @param n_tensors how many tensors.
 * @param[out] text the finding, or NULL; free it with mmopt_string_free; may be NULL.
 * @param[out] json the same as a JSON object; free it with mmopt_string_free; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_find_non_finite(const struct mmopt_trainer *trainer,
                                                  size_t model,
                                                  const struct mmopt_tensor *tensors,
                                                  size_t n_tensors,
                                                  char **text,
                                                  char **json);

/**
 * What training takes in memory, as one JSON object, before training or during it. Nothing runs.
 *
 * The key models has an object for each model, with sizes in bytes: parameters, gradients,
 * moments, gradient_sums, running_means, activations (what a pass over tensors of these shapes
 * keeps for its backward part) and pass (the most working memory of the pass, activations
 * included), both foreseen from the graph, and measured_pass (the most that the model's runs took
 * so far; null before the first, on GPUs, and on other systems than Linux). Then: kept (what all
 * models keep from step to step), side_by_side, in_turn and total (with all passes at the same
 * time, one at a time, and as many as there are), max_parallel_models and parallel (how many there
 * are, and why), available (what the system and control groups have left; null where that is not
 * known) and memory_limit (the option).
 *
 * tensors and n_tensors hold the array of tensors and its length for each model, of which only
 * names and shapes count. With n_models 0 they are not read; activations and pass are 0 then.
 *
 * Errors: INVALID_ARGUMENT when the number of models differs from the trainer's; as
 * mmopt_trainer_forward_backward for tensors that do not fit the model.
 *
 * @param[in] trainer shared access.
 * @param[in] tensors an array for each model.
 * @param[in] n_tensors the length of each array.
 * @param n_models how many models, or 0.
 * @param[out] json the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_memory_report(const struct mmopt_trainer *trainer,
                                                const struct mmopt_tensor *const *tensors,
                                                const size_t *n_tensors,
                                                size_t n_models,
                                                char **json);

/**
 * As mmopt_trainer_memory_report, with the parts of a batch: one for each model, in the order of
 * the models.
 *
 * Errors: as mmopt_trainer_memory_report.
 *
 * @param[in] trainer shared access.
 * @param[in] batch shared access.
 * @param[out] json the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_memory_report_batch(const struct mmopt_trainer *trainer,
                                                      const struct mmopt_batch *batch,
                                                      char **json);

/** @} */

/**
 * @defgroup trainer_files Models and checkpoints in files
 * A trained model is saved for use elsewhere; a checkpoint holds all that training
 * depends on, so that it resumes bit by bit.
 * @{
 */

/**
 * Writes one model into a directory, which is created if it does not exist: config.json and
 * model.safetensors, or model.onnx for a model from an ONNX graph. Each file appears whole or not
 * at all. Low-rank adapters are merged into the matrices beside them.
 *
 * Errors: INVALID_ARGUMENT when model is out of range; NON_FINITE when weights are NaN or
 * infinite, as the files could not be loaded (a warning where non_finite is ignore); IO when a
 * file cannot be written.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param[in] directory the directory, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_save_model(const struct mmopt_trainer *trainer,
                                             size_t model,
                                             const char *directory);

/**
 * Writes the low-rank adapters of one model alone, with the modules that were trained whole, into
 * a directory, which is created if it does not exist: adapter_config.json and
 * adapter_model.safetensors, in the layout of Python's peft. mmopt_model_load_adapters reads them.
 * Each file appears whole or not at all.
 *
 * Errors: INVALID_ARGUMENT when model is out of range; STATE for a model without adapters;
 * NON_FINITE when weights are NaN or infinite (a warning where non_finite is ignore); IO when a
 * file cannot be written.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param[in] directory the directory, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_save_adapters(const struct mmopt_trainer *trainer,
                                                size_t model,
                                                const char *directory);

/**
 * Writes the forward graph of one model with its present weights, for inference; low-rank adapters
 * are merged.
 *
 * Errors: INVALID_ARGUMENT when model is out of range; NON_FINITE when weights are NaN or
 * infinite, as the file could not be loaded (a warning where non_finite is ignore); IO when the
 * file cannot be written.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param[in] path the file, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_save_onnx(const struct mmopt_trainer *trainer,
                                            size_t model,
                                            const char *path);

/**
 * Writes a checkpoint, all that training depends on, into a directory, which is created if it does
 * not exist. host_text is stored with it, for example the state of a loader. A crash at any point
 * leaves the previous checkpoint intact. The two newest of this run stay, see
 * mmopt_checkpoint_options; those of other runs are not touched.
 *
 * From the first checkpoint on no other trainer or optimizer can write into the directory, until
 * this one is freed or writes elsewhere, or its process ends; all can read there. File systems
 * without locks do not have this.
 *
 * Errors: STATE between a backward pass and its step, as gradients are not stored, and where
 * another trainer or optimizer writes into the directory; NON_FINITE when weights are NaN or
 * infinite and non_finite is not ignore; IO when a file cannot be written; those of an
 * asynchronous checkpoint before (mmopt_trainer_save_checkpoint_with).
 * Nothing is left behind then, unless the text says that the checkpoint is in place.
 *
 * @param[in] trainer shared access.
 * @param[in] directory the directory, UTF-8.
 * @param[in] host_text any text; may be NULL: empty.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_save_checkpoint(const struct mmopt_trainer *trainer,
                                                  const char *directory,
                                                  const char *host_text);

/**
 * Resumes from the newest whole checkpoint in a directory; every file is checked against its hash.
 * Newer ones that are damaged are skipped, which the log says as a warning. The same models and
 * options continue bit by bit.
 *
 * Errors: NOT_FOUND where there never was a checkpoint; INVALID_DATA where there are some and none
 * is whole, and for one of other models, with what differs; UNSUPPORTED for one that a later
 * library wrote; IO. The trainer is unchanged then. docs/checkpoints.md says what may differ from
 * the run that wrote it.
 *
 * @param[in,out] trainer exclusive access.
 * @param[in] directory the directory, UTF-8.
 * @param[out] host_text the text that was stored; free it with mmopt_string_free; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_resume(struct mmopt_trainer *trainer,
                                         const char *directory,
                                         char **host_text);

/**
 * Which of a run's checkpoints stay, and how one is written. A run is a trainer and all that
 * resume from its checkpoints; checkpoints of other runs are never removed.
 * mmopt_checkpoint_options_init fills in the defaults.
 */
typedef struct mmopt_checkpoint_options {
    /** sizeof(mmopt_checkpoint_options). */
    size_t struct_size;
    /** So many of the newest stay, at least 1; default 2. */
    size_t keep_last;
    /** So many of those with the best scores stay beside them; default 0. */
    size_t keep_best;
    /** The score of this checkpoint, of any metric; NaN (default): it has none. */
    double score;
    /** 1 (default): a greater score is better; 0: a smaller one. */
    uint32_t greater_is_better;
    /**
     * 1: the state is copied, which takes as much memory again, and a thread of its own writes the
     * copy while training goes on; 0 (default): the checkpoint is written when the call returns.
     */
    uint32_t asynchronous;
} mmopt_checkpoint_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_checkpoint_options_init(struct mmopt_checkpoint_options *options);

/**
 * As mmopt_trainer_save_checkpoint, with a choice of which of this run's checkpoints stay, and of
 * whether it is written beside the training.
 *
 * With asynchronous 1 one checkpoint is under way at most: the next one of this trainer, of either
 * kind, waits for it, and so do mmopt_trainer_resume and mmopt_trainer_free. If writing it failed,
 * that next call fails with its error and writes nothing; the call after that one is free of it.
 * mmopt_trainer_wait_for_checkpoint waits for it and says how it ended. A process that ends before
 * leaves the checkpoints that were there.
 *
 * Errors: as mmopt_trainer_save_checkpoint; INVALID_ARGUMENT for keep_last 0, an infinite score,
 * keep_best without a score, or path together with asynchronous; those of the asynchronous
 * checkpoint before.
 *
 * @param[in] trainer shared access.
 * @param[in] directory the directory, UTF-8.
 * @param[in] host_text any text; may be NULL: empty.
 * @param[in] options may be NULL: the defaults.
 * @param[out] path the checkpoint's own directory; free it with mmopt_string_free; may be NULL,
 * and must be with asynchronous 1, where only mmopt_trainer_wait_for_checkpoint knows it.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_save_checkpoint_with(const struct mmopt_trainer *trainer,
                                                       const char *directory,
                                                       const char *host_text,
                                                       const struct mmopt_checkpoint_options *options,
                                                       char **path);

/**
 * Waits for the asynchronous checkpoint that is being written, if there is one.
 *
 * Errors: those of writing it, as mmopt_trainer_save_checkpoint; each is told once, by this
 * function or the next checkpoint.
 *
 * @param[in] trainer shared access.
 * @param[out] path the checkpoint's own directory; free it with mmopt_string_free; NULL where none
 * was written since the last checkpoint or wait; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_wait_for_checkpoint(const struct mmopt_trainer *trainer,
                                                      char **path);

/**
 * Reads and checks every file of every checkpoint in a directory, of trainers and optimizers. The
 * text is a JSON array, the newest first: {"path", "step": integer or null, "run": text, "score":
 * number or null, "bytes": of all files, "damage": why it cannot be used, null for a whole one}.
 * Each begins a line of the text. A writer at work is not disturbed.
 *
 * Errors: NOT_FOUND without the directory; IO. A damaged checkpoint is no error.
 *
 * @param[in] directory the directory, or that of one checkpoint, UTF-8.
 * @param[out] n_damaged how many cannot be used; may be NULL.
 * @param[out] json free it with mmopt_string_free; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_checkpoint_list(const char *directory,
                                          size_t *n_damaged,
                                          char **json);

/**
 * Removes damaged checkpoints from a directory, and of the whole ones all but the newest,
 * whichever runs wrote them. Those of a later library stay.
 *
 * Errors: INVALID_ARGUMENT for keep_last 0, and for the directory of one checkpoint; STATE while a
 * trainer or optimizer writes there; NOT_FOUND without the directory; IO.
 *
 * @param[in] directory the directory, UTF-8.
 * @param keep_last so many whole ones stay, at least 1.
 * @param[out] json the paths of those that are gone, a JSON array; free it with mmopt_string_free;
 * may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_checkpoint_prune(const char *directory,
                                           size_t keep_last,
                                           char **json);

/** @} */

/**
 * @defgroup callbacks Callbacks and cancellation
 * Functions of the host that a trainer calls: for messages, progress, learning rates
 * and gradients. A token stops a running pass from another thread.
 * @{
 */

/** The level of a log message. A level includes those of lower numbers. */
MMOPT_ENUM(mmopt_log_level) {
    /** No messages. */
    MMOPT_LOG_LEVEL_OFF = 0,
    /** A call failed: the message of its error. */
    MMOPT_LOG_LEVEL_ERROR = 1,
    /**
     * Something may not be as intended: shared initializers that are trained as one parameter,
     * quantised weights, a model without a partner where groups are used, a model that a step
     * skipped, a synchronisation that was undone.
     */
    MMOPT_LOG_LEVEL_WARNING = 2,
    /**
     * What the library does: repairs on import, threads, a summary of the sharing plan, files and
     * checkpoints that are written and read.
     */
    MMOPT_LOG_LEVEL_INFO = 3,
    /**
     * Details for debugging: the whole sharing plan, each session that is opened, learning rates
     * and gradient norms of each step.
     */
    MMOPT_LOG_LEVEL_DEBUG = 4,
};

/**
 * Receives one message: its level, an mmopt_log_level, and a UTF-8 text without a line end, valid
 * during the callback. It runs on the thread of the call that logs, and must not call into its
 * trainer. Calls with shared access may log from several threads at once.
 */
typedef void (*mmopt_log_fn)(void *user, uint32_t level, const char *message);

/**
 * Sets the callback for log messages up to level; NULL removes it. Without one nothing is logged.
 * user must stay valid until it is replaced or the trainer is freed. The messages of the trainer's
 * creation are delivered during this call, each once.
 *
 * Errors: INVALID_ARGUMENT when level is no mmopt_log_level.
 *
 * @param[in,out] trainer exclusive access.
 * @param level an mmopt_log_level.
 * @param callback may be NULL: no callback.
 * @param user passed to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_log_callback(struct mmopt_trainer *trainer,
                                                   uint32_t level,
                                                   mmopt_log_fn callback,
                                                   void *user);

/** What is about to run when the progress callback is called. */
MMOPT_ENUM(mmopt_phase) {
    /** A forward and backward pass. */
    MMOPT_PHASE_FORWARD_BACKWARD = 1,
    /** A step of the optimizer. */
    MMOPT_PHASE_STEP = 2,
    /** An evaluation. */
    MMOPT_PHASE_EVALUATE = 3,
};

/** Where training is when the progress callback is called. */
typedef struct mmopt_progress {
    /** What is about to run, an mmopt_phase. */
    uint32_t phase;
    /** 0; for later versions. */
    uint32_t reserved;
    /** The index of the model; SIZE_MAX for all models. */
    size_t model;
    /** The number of steps since the trainer was created or resumed. */
    uint64_t n_steps;
} mmopt_progress;

/**
 * Called before each pass and step, on the thread of that call; progress is valid during the
 * callback. Any result but 0 cancels the call, which fails with MMOPT_CODE_CANCELLED and has
 * changed nothing. It must not call into its trainer.
 */
typedef uint32_t (*mmopt_progress_fn)(void *user, const struct mmopt_progress *progress);

/**
 * Sets the callback that is called before each pass and step, and can cancel it; NULL removes it.
 * user must stay valid until it is replaced or the trainer is freed.
 *
 * Errors: only those of any call.
 *
 * @param[in,out] trainer exclusive access.
 * @param callback may be NULL: no callback.
 * @param user passed to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_progress_callback(struct mmopt_trainer *trainer,
                                                        mmopt_progress_fn callback,
                                                        void *user);

/**
 * Returns the learning rate of a model at a step, counted from 1. rate is the one of the schedule
 * and the adaptive learning rate. A result that is negative or not finite fails the step.
 */
typedef double (*mmopt_rate_fn)(void *user, const char *model, uint64_t step, double rate);

/**
 * Sets the callback that returns each model's learning rate at each step; NULL removes it. user
 * must stay valid until it is replaced or the trainer is freed.
 *
 * Errors: only those of any call.
 *
 * @param[in,out] trainer exclusive access.
 * @param callback may be NULL: no callback.
 * @param user passed to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_rate_callback(struct mmopt_trainer *trainer,
                                                    mmopt_rate_fn callback,
                                                    void *user);

/** The result of a gradient callback, for one parameter. */
MMOPT_ENUM(mmopt_gradient_action) {
    /** The step uses the gradient, which the callback may have changed. */
    MMOPT_GRADIENT_ACTION_USE = 0,
    /**
     * The callback has updated this parameter itself: the step leaves its value and moments alone,
     * and its gradient counts neither for clipping nor for sharing.
     */
    MMOPT_GRADIENT_ACTION_HANDLED = 1,
    /** The step fails with MMOPT_CODE_CANCELLED. */
    MMOPT_GRADIENT_ACTION_STOP = 2,
};

/** A parameter and its gradient during a step. All pointers are valid during the callback. */
typedef struct mmopt_gradient_view {
    /** The index of the model. */
    size_t model;
    /** The index of the parameter within its model. */
    size_t parameter;
    /** The model's name. */
    const char *model_name;
    /** The parameter's name. */
    const char *name;
    /** The dimensions, outermost first. */
    const int64_t *shape;
    /** How many dimensions. */
    size_t n_dims;
    /** The product of the dimensions. */
    size_t n_elements;
    /** The values, dense and row-major; may be written. */
    float *value;
    /** The gradient, summed over the micro-batches; may be written. */
    float *gradient;
    /**
     * The step uses scale times the gradient: 1 / number of micro-batches if it averages, else 1.
     */
    double scale;
    /** The step's number, from 1. */
    uint64_t step;
    /** 0; for later versions. */
    uint64_t reserved[4];
} mmopt_gradient_view;

/**
 * Called during a step for each parameter with a gradient, after micro-batches are summed and
 * before the gradients are used: model by model, parameter by parameter, on the thread of the
 * call. It returns an mmopt_gradient_action; any other number fails the step with
 * MMOPT_CODE_INVALID_ARGUMENT. It must not call into its trainer or optimizer.
 *
 * It is not called for frozen parameters, for models without a pass since the last step, and for
 * models that are skipped because their loss is not finite. It may replace gradients that are not
 * finite. If the step fails, the library has changed nothing, but what the callback has written
 * stays; the step can be taken again, and calls it again.
 */
typedef uint32_t (*mmopt_gradient_fn)(void *user, const struct mmopt_gradient_view *gradient);

/**
 * Sets the callback that sees each gradient between backward pass and step, for a filter or an
 * optimizer of the host; NULL removes it. user must stay valid until it is replaced or the trainer
 * is freed.
 *
 * Errors: only those of any call.
 *
 * @param[in,out] trainer exclusive access.
 * @param callback may be NULL: no callback.
 * @param user passed to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_gradient_callback(struct mmopt_trainer *trainer,
                                                        mmopt_gradient_fn callback,
                                                        void *user);

/**
 * Stops a running pass of a trainer from another thread. It may outlive the trainer, and does
 * nothing then.
 */
typedef struct mmopt_cancel_token mmopt_cancel_token;

/**
 * A new cancel token of this trainer.
 *
 * Errors: only those of any call.
 *
 * @param[in] trainer shared access.
 * @param[out] cancel_token the new object; free it with mmopt_cancel_token_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_cancel_token(const struct mmopt_trainer *trainer,
                                               struct mmopt_cancel_token **cancel_token);

/**
 * Makes running and later passes fail with MMOPT_CODE_CANCELLED. May be called from any thread.
 *
 * Errors: only those of any call.
 *
 * @param[in] cancel_token shared access.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_cancel_token_cancel(const struct mmopt_cancel_token *cancel_token);

/**
 * Lets passes run again. May be called from any thread.
 *
 * Errors: only those of any call.
 *
 * @param[in] cancel_token shared access.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_cancel_token_reset(const struct mmopt_cancel_token *cancel_token);

/**
 * Frees a cancel token. NULL is harmless.
 *
 * @param cancel_token may be NULL; freed by the call.
 */
MMOPT_API void mmopt_cancel_token_free(struct mmopt_cancel_token *cancel_token);

/** @} */

/**
 * @defgroup evaluation Evaluation
 * A pass of one model without dropout and gradients: its loss, its score and its
 * outputs.
 * @{
 */

/** The result of an evaluation: loss, score and output tensors. Immutable. */
typedef struct mmopt_evaluation mmopt_evaluation;

/**
 * Puts the running means (EMA) of all models' weights in the place of the weights, or the weights
 * back. The option ema_decay keeps such means, and so does the teacher mean_teacher of mutual
 * learning. While the means are in place, mmopt_trainer_evaluate, mmopt_trainer_save_model,
 * mmopt_trainer_save_onnx and mmopt_trainer_parameter use them. Doing it twice is once. Views of
 * parameters stay valid; their elements change.
 *
 * Errors: INVALID_ARGUMENT when on is no flag; STATE when no means are kept. While the means are
 * in place, passes, steps, checkpoints, resuming and mmopt_trainer_set_parameter fail with STATE.
 *
 * @param[in,out] trainer exclusive access.
 * @param on 1: the means; 0: the weights.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_use_ema_weights(struct mmopt_trainer *trainer,
                                                  uint32_t on);

/**
 * Runs one model without dropout and gradients. tensors holds its inputs, and its labels if loss
 * and score are wanted.
 *
 * Errors: as mmopt_trainer_forward_backward.
 *
 * @param[in,out] trainer exclusive access.
 * @param model the index of the model, from 0.
 * @param[in] tensors n_tensors views, read during the call only.
 * @param n_tensors how many tensors.
 * @param[out] evaluation the new object; free it with mmopt_evaluation_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_evaluate(struct mmopt_trainer *trainer,
                                           size_t model,
                                           const struct mmopt_tensor *tensors,
                                           size_t n_tensors,
                                           struct mmopt_evaluation **evaluation);

/**
 * The loss; NaN without labels, and for NULL.
 *
 * @param[in] evaluation shared access.
 */
MMOPT_API double mmopt_evaluation_loss(const struct mmopt_evaluation *evaluation);

/**
 * The number of correct predictions; 0 without labels, and for NULL.
 *
 * @param[in] evaluation shared access.
 */
MMOPT_API uint64_t mmopt_evaluation_n_correct(const struct mmopt_evaluation *evaluation);

/**
 * The number of labels that are not ignored; 0 without labels, and for NULL.
 *
 * @param[in] evaluation shared access.
 */
MMOPT_API uint64_t mmopt_evaluation_n_labels(const struct mmopt_evaluation *evaluation);

/**
 * The outputs, f32, named as in the model: logits [batch, classes] or [batch, length, classes], or
 * start_logits and end_logits [batch, length]. Valid as long as the evaluation.
 *
 * Errors: only those of any call.
 *
 * @param[in] evaluation shared access.
 * @param[out] tensors an array of views.
 * @param[out] n_tensors how many.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_evaluation_tensors(const struct mmopt_evaluation *evaluation,
                                             const struct mmopt_tensor **tensors,
                                             size_t *n_tensors);

/**
 * Frees an evaluation. NULL is harmless.
 *
 * @param evaluation may be NULL; freed by the call.
 */
MMOPT_API void mmopt_evaluation_free(struct mmopt_evaluation *evaluation);

/**
 * How predictions are made for scores. Only question answering has a choice.
 * mmopt_evaluate_options_init fills in the defaults.
 */
typedef struct mmopt_evaluate_options {
    /** sizeof(mmopt_evaluate_options). */
    size_t struct_size;
    /**
     * Question answering: an answer begins at one of the n_best tokens of a window with the
     * greatest start logits, and ends likewise; at least 1; default 20.
     */
    size_t n_best;
    /** Question answering: greatest length of an answer in tokens, at least 1; default 30. */
    size_t max_answer_tokens;
    /**
     * Question answering: 1: "no answer" may be predicted, as for SQuAD 2.0; 0 (default): never.
     */
    uint32_t allow_no_answer;
    /** 0; for later versions. */
    uint32_t reserved;
    /**
     * Question answering: "no answer" is predicted when its score, the sum of the first start and
     * end logit, least over the windows, exceeds that of the best answer by more than this; a
     * number, also infinite; default 0.
     */
    double no_answer_threshold;
} mmopt_evaluate_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_evaluate_options_init(struct mmopt_evaluate_options *options);

/** The scores of a model on a corpus. What the corpus's task does not have is NaN. */
typedef struct mmopt_scores {
    /**
     * One number to compare models by, 0 to 1, greater is better: entity_f1 for tags in BIO, IOB
     * or BIOES; answer_f1 / 100 for questions; else accuracy.
     */
    double score;
    /** The mean loss over the labels that count, of the whole corpus. */
    double loss;
    /** n_correct / n_labels. */
    double accuracy;
    /**
     * Classes and tags: the unweighted mean of the F1 of each that occurs among labels or
     * predictions.
     */
    double macro_f1;
    /** Entities, counted as the script conlleval does (and seqeval by default). */
    double entity_precision;
    /** As entity_precision. */
    double entity_recall;
    /** As entity_precision: the harmonic mean of both. */
    double entity_f1;
    /**
     * Entities, counted as seqeval does in strict mode: a B- tag begins one, only I- tags of its
     * type continue it; with tags E- and S-, E- ends it and S- is one.
     */
    double strict_entity_precision;
    /** As strict_entity_precision. */
    double strict_entity_recall;
    /** As strict_entity_precision: the harmonic mean of both. */
    double strict_entity_f1;
    /** Questions: per cent of the answers that equal an accepted one, by SQuAD's script. */
    double exact_match;
    /** Questions: mean F1 of the answers' words, 0 to 100, by SQuAD's script. */
    double answer_f1;
    /** Language models: exp(loss). */
    double perplexity;
    /** The examples; of packed text, its rows. */
    uint64_t n_examples;
    /**
     * The labels that count, neither missing nor ignored: texts, words, windows of contexts, or
     * tokens.
     */
    uint64_t n_labels;
    /** The labels that were predicted; of a window, start and end. */
    uint64_t n_correct;
    /** Tags: words that the model did not see, because their sentence was cut off before them. */
    uint64_t n_words_unseen;
    /** 0; for later versions. */
    uint64_t reserved[4];
} mmopt_scores;

/**
 * The scores of a model on its part of a loader: each example once, in order, in batches of the
 * loader's batch_size, without dropout and gradients. The loader's shuffle, drop_last and aligned
 * do not matter here, nor where it stands; it stays there. Masked language models are scored on
 * the same masks each time. The loader was made for as many models as the trainer has.
 *
 * Words that were cut off (mmopt_scores.n_words_unseen) count for entities as if the model had
 * tagged them O, so their entities are missed; accuracy, macro_f1 and loss leave them out.
 *
 * A progress callback is asked before each batch, in the phase MMOPT_PHASE_EVALUATE.
 *
 * Errors: INVALID_ARGUMENT when model or an option is out of range, for a loader for another
 * number of models, a corpus without labels, questions without all_windows, or allow_no_answer
 * with a tokenizer that has no token for it, and when the loader's tokenizer has another
 * vocabulary than the model's, where that is known, or the corpus has the model's classes in
 * another order; SHAPE when the model has the head of another task; CANCELLED; and those of
 * mmopt_trainer_evaluate.
 *
 * @param[in,out] trainer exclusive access.
 * @param model the index of the model, from 0.
 * @param[in] loader shared access.
 * @param[in] options NULL: the defaults.
 * @param[out] scores the scores.
 * @param[out] json the scores as a JSON object, with those of each class (classes,
 * confusion_matrix[label][prediction]) and of each type of entities (entities.by_type,
 * strict_entities.by_type); free it with mmopt_string_free; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_evaluate_loader(struct mmopt_trainer *trainer,
                                                  size_t model,
                                                  const struct mmopt_loader *loader,
                                                  const struct mmopt_evaluate_options *options,
                                                  struct mmopt_scores *scores,
                                                  char **json);

/** @} */

/**
 * @defgroup fit The training loop as one call
 * Training with evaluation, early stopping, checkpoints and logs, as the loop over the
 * functions above would do it; and the range test for learning rates.
 * @{
 */

/** What the evaluations of a fit are compared by. */
MMOPT_ENUM(mmopt_metric) {
    /** mmopt_scores.score: 0 to 1, greater is better. */
    MMOPT_METRIC_SCORE = 0,
    /** mmopt_scores.loss; less is better. */
    MMOPT_METRIC_LOSS = 1,
};

/**
 * How a fit goes: how long, when it evaluates, stops early, writes checkpoints and logs. "Every
 * so many steps" counts the steps of the fit. mmopt_fit_options_init fills in the defaults. Texts
 * are UTF-8 and are read during the call only.
 */
typedef struct mmopt_fit_options {
    /** sizeof(mmopt_fit_options). */
    size_t struct_size;
    /** Ends after so many epochs of the loader; 0: no limit; default 3. */
    uint64_t epochs;
    /** Ends after so many steps, if epochs does not end it before; 0 (default): no limit. */
    uint64_t max_steps;
    /**
     * Evaluates every so many steps, and always at an epoch's end and after max_steps; 0
     * (default): only then.
     */
    uint64_t evaluate_every;
    /** What evaluations are compared by, an mmopt_metric; default MMOPT_METRIC_SCORE. */
    uint32_t metric;
    /**
     * 1: keeps each model's weights of its own best evaluation in memory, and puts them back at
     * the end, unless the callback ended it. Default 0.
     */
    uint32_t keep_best;
    /** The name of the model whose metric stops early; NULL (default): the mean over all models. */
    const char *monitor;
    /**
     * Stops after so many evaluations in a row that are not better than the best; 0 (default):
     * never.
     */
    uint64_t patience;
    /**
     * An evaluation is better when it exceeds the best by more than this, in the metric's terms;
     * finite, at least 0; default 0.
     */
    double min_delta;
    /**
     * 1: evaluates the running means of the weights (option ema_decay, or mean teachers) in place
     * of the weights, and keep_best keeps the means. Default 0.
     */
    uint32_t use_ema_weights;
    /** 1: goes on from the last checkpoint in checkpoint_dir, if there is one. Default 0. */
    uint32_t resume;
    /** How predictions are made for scores; NULL: the defaults. */
    const struct mmopt_evaluate_options *evaluate;
    /**
     * The directory of checkpoints, which are written as the next two fields say, and at the end;
     * NULL (default): none.
     */
    const char *checkpoint_dir;
    /** A checkpoint every so many steps; 0 (default): none. */
    uint64_t checkpoint_every;
    /**
     * A checkpoint after so many minutes, at the next step's end; finite, at least 0; 0
     * (default): none.
     */
    double checkpoint_minutes;
    /** Every so many steps one is logged; at least 1 (default). Evaluations always are. */
    uint64_t log_every;
    /** A log of JSON lines (docs/logs.md); NULL (default): none. */
    const char *jsonl_path;
    /** A log in CSV, a row for each model; NULL (default): none. */
    const char *csv_path;
    /** The directory of an event file for TensorBoard; NULL (default): none. */
    const char *tensorboard_dir;
    /**
     * Every so many steps the event file gets histograms of gradients, weights and the sizes of
     * updates; 0 (default): never.
     */
    uint64_t histogram_every;
    /**
     * 1: the event file gets an image of the cosines between the models' gradients at each step
     * that the trainer's option metrics_every names. Default 0.
     */
    uint32_t sharing_images;
    /** 0; for later versions. */
    uint32_t reserved;
} mmopt_fit_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_fit_options_init(struct mmopt_fit_options *options);

/** What a fit has just done. */
MMOPT_ENUM(mmopt_fit_event) {
    /** A step. */
    MMOPT_FIT_EVENT_STEP = 1,
    /** An evaluation of all models. */
    MMOPT_FIT_EVENT_EVALUATION = 2,
};

/** Where a fit is when its callback is called. The arrays are valid during the callback. */
typedef struct mmopt_fit_progress {
    /** What has just been done, an mmopt_fit_event. */
    uint32_t event;
    /** 1: of an evaluation: what early stopping looks at is the best so far. */
    uint32_t is_best;
    /** The trainer's steps. */
    uint64_t step;
    /** Epochs of the fit that are done. */
    uint64_t epoch;
    /** Batches of the present epoch that are done. */
    uint64_t batch;
    /** Batches of an epoch. */
    uint64_t n_batches;
    /** How many models. */
    size_t n_models;
    /** Each model's mean loss: over the step's micro-batches, or over the evaluated corpus. */
    const double *losses;
    /** Of an evaluation: each model's score; NULL for a step. */
    const double *scores;
    /** Of an evaluation: what early stopping looks at, in the metric's terms; NaN for a step. */
    double monitored;
    /** 0; for later versions. */
    uint64_t reserved[4];
} mmopt_fit_progress;

/**
 * Called after each step and each evaluation of a fit, on the thread of that call. Any result but
 * 0 ends the fit there, which is no error. It must not call into the fit's objects.
 */
typedef uint32_t (*mmopt_fit_progress_fn)(void *user, const struct mmopt_fit_progress *progress);

/** Why a fit ended. */
MMOPT_ENUM(mmopt_stop_reason) {
    /** All epochs are done. */
    MMOPT_STOP_REASON_EPOCHS = 1,
    /** All steps are done. */
    MMOPT_STOP_REASON_MAX_STEPS = 2,
    /** The metric did not get better for patience evaluations. */
    MMOPT_STOP_REASON_EARLY_STOPPING = 3,
    /** The callback ended it. */
    MMOPT_STOP_REASON_CANCELLED = 4,
};

/** What a fit came to. */
typedef struct mmopt_fit_result {
    /** Steps of the fit, those before a resume included. */
    uint64_t steps;
    /** Epochs of the fit that are done. */
    uint64_t epochs;
    /** Why it ended, an mmopt_stop_reason. */
    uint32_t reason;
    /** 1: the best weights are in place. */
    uint32_t restored_best;
    /** The best of what early stopping looks at, in the metric's terms; NaN without evaluation. */
    double best_score;
    /** The trainer's step at which that was; 0 without evaluation. */
    uint64_t best_step;
    /** 0; for later versions. */
    uint64_t reserved[4];
} mmopt_fit_result;

/** The best evaluation of one model. */
typedef struct mmopt_fit_best {
    /** In the metric's terms; NaN without evaluation. */
    double score;
    /** The trainer's step at which it was; 0 without evaluation. */
    uint64_t step;
} mmopt_fit_best;

/**
 * The usual training loop as one call. Each step takes as many micro-batches of the loader as
 * gradient_accumulation_steps says, or those that the epoch has left: a forward and backward pass
 * of all models for each, then one step. Evaluations are those of mmopt_trainer_evaluate_loader;
 * their metrics go to mmopt_trainer_report_validation. The loop with these functions does the
 * same.
 *
 * Interrupted anywhere and resumed from its last checkpoint (resume), by the same program with the
 * same models, options and loaders, a fit goes on with the same bits: weights, moments, and logs,
 * which are cut to where the checkpoint was; only times, speeds and memory differ. When the
 * callback ends it, a checkpoint is written there. The trainer's own progress callback is asked
 * before each pass, step and batch of an evaluation; it and a cancel token end the fit with
 * CANCELLED.
 *
 * Log files are replaced unless the fit goes on from a checkpoint.
 *
 * Errors: INVALID_ARGUMENT for options out of range or that need what is not given, and for
 * loaders for another number of models; STATE between a backward pass and its step; with resume
 * INVALID_DATA for damaged checkpoints, one that no fit wrote, one of other models or loaders, or
 * of a fit with another metric, monitor, keep_best or use_ema_weights: trainer and loader are
 * unchanged then; STATE when another trainer writes into checkpoint_dir; IO when a file cannot be
 * written; CANCELLED; and those of mmopt_trainer_forward_backward_batch, mmopt_trainer_step and
 * mmopt_trainer_evaluate_loader, after which gradients since the last step are discarded, and the
 * loader stands where it was read to.
 *
 * @param[in,out] trainer exclusive access.
 * @param[in,out] loader exclusive access; batches to train on; it goes on from where it stands.
 * @param[in] evaluation_loaders shared access; what to evaluate on: none; one for all models; or
 * one for each model, in their order, which may be for that model alone; may be NULL: none.
 * @param n_evaluation_loaders 0, 1, or as many as models.
 * @param[in] options NULL: the defaults.
 * @param callback may be NULL: no callback.
 * @param user passed to the callback.
 * @param[out] result may be NULL.
 * @param[out] best each model's best evaluation, room for one per model; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_fit(struct mmopt_trainer *trainer,
                                      struct mmopt_loader *loader,
                                      const struct mmopt_loader *const *evaluation_loaders,
                                      size_t n_evaluation_loaders,
                                      const struct mmopt_fit_options *options,
                                      mmopt_fit_progress_fn callback,
                                      void *user,
                                      struct mmopt_fit_result *result,
                                      struct mmopt_fit_best *best);

/** How learning rates are tried. mmopt_find_learning_rate_options_init fills in the defaults. */
typedef struct mmopt_find_learning_rate_options {
    /** sizeof(mmopt_find_learning_rate_options). */
    size_t struct_size;
    /** The first rate, above 0; default 1e-7. */
    double min_lr;
    /** The last rate, above min_lr and finite; default 1. */
    double max_lr;
    /** Steps at most, 2 to 1048576; default 100. */
    uint64_t n_steps;
    /** How much of the smoothed loss stays from step to step, 0 to below 1; default 0.95. */
    double smoothing;
    /**
     * Ends when the smoothed mean loss exceeds so many times the least one; above 1, finite;
     * default 4.
     */
    double divergence;
} mmopt_find_learning_rate_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API
void mmopt_find_learning_rate_options_init(struct mmopt_find_learning_rate_options *options);

/** What the range test found. */
typedef struct mmopt_learning_rate_range {
    /** How many rates were tried, and have losses. */
    uint64_t n_rates;
    /**
     * The suggestion for all models together: where the mean of their smoothed losses, each
     * divided by its first, falls most steeply over the logarithm of the rate. NaN when it falls
     * nowhere.
     */
    double suggestion;
    /** 0; for later versions. */
    uint64_t reserved[4];
} mmopt_learning_rate_range;

/**
 * The range test for learning rates (Smith 2017, "Cyclical Learning Rates for Training Neural
 * Networks"): the rate grows by a constant factor from step to step, the same for all models, and
 * their losses are watched. Then everything is put back: weights, moments, schedules, counters of
 * dropout, what mutual learning remembers, the loader's place; only mmopt_trainer_gradient shows
 * the last pass. Schedules, adaptive rates and the rate callback do not count meanwhile. It needs
 * memory for a copy of weights and moments.
 *
 * Errors: INVALID_ARGUMENT for options out of range, or a loader for another number of models;
 * STATE between a backward pass and its step; CANCELLED; and those of
 * mmopt_trainer_forward_backward_batch and mmopt_trainer_step. After an error everything is put
 * back, too.
 *
 * @param[in,out] trainer exclusive access; unchanged.
 * @param[in,out] loader exclusive access; unchanged.
 * @param[in] options NULL: the defaults.
 * @param[out] rates the rates that were tried; room for n_steps numbers; may be NULL.
 * @param[out] losses each model's smoothed loss at each rate: that of model m at rate i is
 * losses[m * n_steps + i]; room for n_models * n_steps numbers; may be NULL. A step in which a
 * model had no label leaves its as it was; rates before each model's first label are left out.
 * @param[out] suggestions a rate for each model, NaN when its loss falls nowhere; room for one per
 * model; may be NULL.
 * @param[out] result may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_find_learning_rate(struct mmopt_trainer *trainer,
                                                     struct mmopt_loader *loader,
                                                     const struct mmopt_find_learning_rate_options *options,
                                                     double *rates,
                                                     double *losses,
                                                     double *suggestions,
                                                     struct mmopt_learning_rate_range *result);

/** @} */

/**
 * @defgroup prediction Prediction
 * What a trained model says about texts: classes, entities, answers. The model is a
 * trainer's, or one that was read from a directory for predictions alone.
 * @{
 */

/**
 * How texts are encoded and answers are found. mmopt_predict_options_init fills in the defaults.
 */
typedef struct mmopt_predict_options {
    /** sizeof(mmopt_predict_options). */
    size_t struct_size;
    /** Texts, or windows of contexts, that run at once, at least 1; default 16. */
    size_t batch_size;
    /** Longest sequence in tokens; 0 (default): the tokenizer's. */
    size_t max_length;
    /**
     * Entities: 1 (default): punctuation around a word, and a final 's, are words of their own, as
     * in most corpora; 0: words are what white space separates.
     */
    uint32_t split_punctuation;
    /** Answers: 1: "no answer" may be predicted, as for SQuAD 2.0; 0 (default): never. */
    uint32_t allow_no_answer;
    /**
     * Answers: tokens that neighbouring windows of a context share; default 64, at most half of
     * the window's context.
     */
    size_t overlap;
    /**
     * Answers: an answer begins at one of the n_best tokens of a window with the greatest start
     * logits, and ends likewise; and so many answers are listed at most; at least 1; default 20.
     */
    size_t n_best;
    /** Answers: greatest length of an answer in tokens, at least 1; default 30. */
    size_t max_answer_tokens;
    /** Answers: as in mmopt_evaluate_options; default 0. */
    double no_answer_threshold;
} mmopt_predict_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_predict_options_init(struct mmopt_predict_options *options);

/** A class, an entity or an answer. mmopt_trainer_generate says what generated text has. */
typedef struct mmopt_prediction {
    /** The class, or the type of the entity (without B- and I-); NULL for answers. */
    const char *label;
    /** The words of the entity or the answer; empty for "no answer"; NULL for classes. */
    const char *text;
    /** Its first byte in the text, or for answers in the context. */
    size_t start;
    /** The byte after its last. With start equal to end: no span. */
    size_t end;
    /**
     * 0 to 1. Of classes the softmax of the logits; of an entity the mean over its words of their
     * tags' softmax; of answers the softmax of the scores of those that are listed.
     */
    double probability;
    /**
     * Of classes the logit; of an entity the mean of its words' tags' logits; of answers the start
     * logit plus the end logit.
     */
    double score;
} mmopt_prediction;

/** What a model says about texts. Immutable. */
typedef struct mmopt_predictions mmopt_predictions;

/**
 * The number of texts; 0 for NULL.
 *
 * @param[in] predictions shared access.
 */
MMOPT_API size_t mmopt_predictions_n_texts(const struct mmopt_predictions *predictions);

/**
 * What was predicted for a text; valid as long as the predictions. Classes: all of them, most
 * probable first; of equal ones the one with the smaller id. Entities: in the order of the text;
 * there may be none. Answers: best first.
 *
 * Errors: INVALID_ARGUMENT when text is out of range.
 *
 * @param[in] predictions shared access.
 * @param text the index of the text, from 0.
 * @param[out] list an array.
 * @param[out] n how many.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_predictions_of(const struct mmopt_predictions *predictions,
                                         size_t text,
                                         const struct mmopt_prediction **list,
                                         size_t *n);

/**
 * Frees predictions. NULL is harmless.
 *
 * @param predictions may be NULL; freed by the call.
 */
MMOPT_API void mmopt_predictions_free(struct mmopt_predictions *predictions);

/**
 * What a model says about n texts, without dropout and gradients. Its task decides:
 *
 * - sequence classification: the classes of each text, or with pairs of each pair of texts;
 * - token classification: the entities of each text; where the tags are no BIO, IOB or BIOES,
 *   every word with its tag. A text that is too long is predicted in parts;
 * - question answering: texts are questions and pairs their contexts; the answers over all windows
 *   of the context.
 *
 * Offsets count bytes of UTF-8, from 0. A progress callback is asked before each batch, in the
 * phase MMOPT_PHASE_EVALUATE.
 *
 * Errors: INVALID_ARGUMENT when model or an option is out of range, for a text that is not UTF-8,
 * pairs for token classification, none for question answering, a max_length that the special
 * tokens fill, or a tokenizer of another vocabulary than the model's, where that is known;
 * UNSUPPORTED for a model of another task; CANCELLED; and those of mmopt_trainer_evaluate.
 *
 * @param[in,out] trainer exclusive access.
 * @param model the index of the model, from 0.
 * @param[in] tokenizer the model's; shared access.
 * @param[in] texts n texts, UTF-8.
 * @param[in] pairs n texts, UTF-8; may be NULL.
 * @param n how many texts.
 * @param[in] options NULL: the defaults.
 * @param[out] predictions the new object; free it with mmopt_predictions_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_predict(struct mmopt_trainer *trainer,
                                          size_t model,
                                          const struct mmopt_tokenizer *tokenizer,
                                          const char *const *texts,
                                          const char *const *pairs,
                                          size_t n,
                                          const struct mmopt_predict_options *options,
                                          struct mmopt_predictions **predictions);

/** How a predictor runs. mmopt_predictor_options_init fills in the defaults. */
typedef struct mmopt_predictor_options {
    /** sizeof(mmopt_predictor_options). */
    size_t struct_size;
    /** Threads that its calls share, beside the callers' own; 0 (default): one for each core. */
    size_t n_threads;
    /** An mmopt_device; default MMOPT_DEVICE_CPU. */
    uint32_t device;
    /** The GPU, from 0; default 0. */
    int32_t device_id;
    /** Sessions that it keeps open, one for each shape of batch; 0 (default): 16. */
    size_t max_sessions;
} mmopt_predictor_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_predictor_options_init(struct mmopt_predictor_options *options);

/** A model and its tokenizer, for predictions alone. */
typedef struct mmopt_predictor mmopt_predictor;

/**
 * Reads a model and its tokenizer from a directory: config.json, weights in safetensors, and the
 * tokenizer's files, as mmopt_trainer_save_model and mmopt_tokenizer_save, or Hugging Face's
 * libraries, write them. The task is that of config.json. Loads ONNX Runtime if it is not loaded.
 *
 * Errors: NOT_FOUND when a file is missing; those of mmopt_trainer_create and
 * mmopt_tokenizer_load.
 *
 * @param[in] directory its path, UTF-8.
 * @param[in] options NULL: the defaults.
 * @param[out] predictor the new object; free it with mmopt_predictor_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_predictor_load(const char *directory,
                                         const struct mmopt_predictor_options *options,
                                         struct mmopt_predictor **predictor);

/**
 * As mmopt_trainer_predict. Threads may call it on one predictor at once: the calls run side by
 * side, share the predictor's threads, and have the results that each has alone.
 *
 * Errors: as mmopt_trainer_predict.
 *
 * @param[in] predictor shared access.
 * @param[in] texts n texts, UTF-8.
 * @param[in] pairs n texts, UTF-8; may be NULL.
 * @param n how many texts.
 * @param[in] options NULL: the defaults.
 * @param[out] predictions the new object; free it with mmopt_predictions_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_predictor_predict(const struct mmopt_predictor *predictor,
                                            const char *const *texts,
                                            const char *const *pairs,
                                            size_t n,
                                            const struct mmopt_predict_options *options,
                                            struct mmopt_predictions **predictions);

/**
 * Frees a predictor. NULL is harmless.
 *
 * @param predictor may be NULL; freed by the call.
 */
MMOPT_API void mmopt_predictor_free(struct mmopt_predictor *predictor);

/**
 * How text is generated; the names are those of Hugging Face's generate.
 * mmopt_generate_options_init fills in the defaults.
 */
typedef struct mmopt_generate_options {
    /** sizeof(mmopt_generate_options). */
    size_t struct_size;
    /** Most tokens that are added to a prompt, 1 to 1,000,000; default 64. */
    size_t max_new_tokens;
    /** 1: tokens are drawn by their probability; 0 (default): the most probable one is taken. */
    uint32_t do_sample;
    /** 0; for later versions. */
    uint32_t reserved;
    /** Drawing: logits are divided by it; above 0; default 1. */
    double temperature;
    /** Drawing: only the so many most probable tokens; 0 (default): all. */
    size_t top_k;
    /**
     * Drawing, after top_k: only the fewest most probable tokens whose probabilities sum to at
     * least this; above 0, at most 1; default 1: all.
     */
    double top_p;
    /** Drawing: decides what is drawn. Prompt i of a call has numbers of its own; default 0. */
    uint64_t seed;
    /** Longest sequence in tokens; 0 (default): the tokenizer's or the model's, the shorter. */
    size_t max_length;
} mmopt_generate_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_generate_options_init(struct mmopt_generate_options *options);

/**
 * What a model that predicts the next token (MMOPT_TASK_CAUSAL_LM, such as a GPT-2) writes after
 * each of n prompts, without dropout and gradients. mmopt_predictions_of gives for each prompt one
 * mmopt_prediction: text is what comes after the prompt; label is "stop" when the model ended the
 * text by its end token, which text does not have, else "length"; score is the sum of the
 * logarithms of the tokens' probabilities by the logits as they are, and probability e to the mean
 * of these; start and end are 0.
 *
 * A text that is longer than max_length is cut at the left: the model reads its last tokens. An
 * empty prompt stands for the token that begins or ends a text. Prompts are run one after another,
 * so that each has the result that it has alone. Each token costs a pass over the text. The same
 * seed gives the same text.
 *
 * A progress callback is asked before each token, in the phase MMOPT_PHASE_EVALUATE.
 *
 * Errors: INVALID_ARGUMENT when model or an option is out of range, for a prompt that is not
 * UTF-8, or an empty one where the tokenizer has no token for it; UNSUPPORTED for a model of
 * another task; RUNTIME when logits are not finite; CANCELLED; and those of
 * mmopt_trainer_evaluate.
 *
 * @param[in,out] trainer exclusive access.
 * @param model the index of the model, from 0.
 * @param[in] tokenizer the model's; shared access.
 * @param[in] prompts n texts, UTF-8.
 * @param n how many prompts.
 * @param[in] options NULL: the defaults.
 * @param[out] predictions the new object; free it with mmopt_predictions_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_generate(struct mmopt_trainer *trainer,
                                           size_t model,
                                           const struct mmopt_tokenizer *tokenizer,
                                           const char *const *prompts,
                                           size_t n,
                                           const struct mmopt_generate_options *options,
                                           struct mmopt_predictions **predictions);

/**
 * As mmopt_trainer_generate, of a predictor's model. Threads may call it on one predictor at once.
 *
 * Errors: as mmopt_trainer_generate.
 *
 * @param[in] predictor shared access.
 * @param[in] prompts n texts, UTF-8.
 * @param n how many prompts.
 * @param[in] options NULL: the defaults.
 * @param[out] predictions the new object; free it with mmopt_predictions_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_predictor_generate(const struct mmopt_predictor *predictor,
                                             const char *const *prompts,
                                             size_t n,
                                             const struct mmopt_generate_options *options,
                                             struct mmopt_predictions **predictions);

/** @} */

/**
 * @defgroup metrics Text metrics
 * Scores of predictions as the usual evaluation scripts compute them: accuracy, F1 of
 * classes and of named entities, exact match and F1 of answers.
 * @{
 */

/**
 * The fraction of n predicted classes that equal their label, 0 to 1. Entries whose label is
 * negative, such as -100, are left out; 0 when none is left.
 *
 * Errors: only those of any call.
 *
 * @param[in] predictions n classes.
 * @param[in] labels n classes; negative: left out.
 * @param n how many classes.
 * @param[out] value the accuracy.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_metrics_accuracy(const int64_t *predictions,
                                           const int64_t *labels,
                                           size_t n,
                                           double *value);

/**
 * The unweighted mean of the F1 of each class that occurs among n labels or predictions, 0 to 1.
 * Entries whose label is negative, such as -100, are left out; 0 when none is left.
 *
 * Errors: only those of any call.
 *
 * @param[in] predictions n classes.
 * @param[in] labels n classes; negative: left out.
 * @param n how many classes.
 * @param[out] value the macro F1.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_metrics_macro_f1(const int64_t *predictions,
                                           const int64_t *labels,
                                           size_t n,
                                           double *value);

/** Scores of named entities over all types. An entity is right when its type and both ends are. */
typedef struct mmopt_entity_scores {
    /** n_correct / n_predicted; 0 without predictions. */
    double precision;
    /** n_correct / support; 0 without support. */
    double recall;
    /** The harmonic mean of precision and recall; 0 when both are 0. */
    double f1;
    /** The fraction of tags that equal their label. */
    double accuracy;
    /** Entities of the labels. */
    uint64_t support;
    /** Entities of the predictions. */
    uint64_t n_predicted;
    /** Entities of the predictions that are entities of the labels. */
    uint64_t n_correct;
    /** 0; for later versions. */
    uint64_t reserved[4];
} mmopt_entity_scores;

/**
 * Precision, recall and F1 of named entities, counted as the CoNLL script conlleval does. Tags are
 * BIO, IOB or BIOES: O, or a prefix, a hyphen and a type, such as B-PER.
 *
 * predictions and labels hold n_sequences rows of length tags each, as ids: positions in tags,
 * such as those of a corpus (mmopt_corpus_label_name). Entries whose label is negative are left
 * out, so the labels of a token classification batch fit as they are: -100 stands for padding and
 * for all but the first token of a word.
 *
 * Errors: INVALID_ARGUMENT for a length of 0, or an id that is not below n_tags.
 *
 * @param[in] predictions n_sequences * length ids.
 * @param[in] labels n_sequences * length ids; negative: left out.
 * @param n_sequences how many rows.
 * @param length tags of a row, at least 1.
 * @param[in] tags n_tags names, UTF-8.
 * @param n_tags how many names.
 * @param[out] scores the scores over all types.
 * @param[out] by_type a JSON object with precision, recall, f1, support, n_predicted and
 * n_correct for each type; free it with mmopt_string_free; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_metrics_entities(const int64_t *predictions,
                                           const int64_t *labels,
                                           size_t n_sequences,
                                           size_t length,
                                           const char *const *tags,
                                           size_t n_tags,
                                           struct mmopt_entity_scores *scores,
                                           char **by_type);

/**
 * As mmopt_metrics_entities, counted as seqeval does in strict mode: a B- tag begins an entity,
 * only I- tags of its type continue it; with tags E- and S-, E- ends it and S- is one.
 *
 * Errors: as mmopt_metrics_entities.
 *
 * @param[in] predictions n_sequences * length ids.
 * @param[in] labels n_sequences * length ids; negative: left out.
 * @param n_sequences how many rows.
 * @param length tags of a row, at least 1.
 * @param[in] tags n_tags names, UTF-8.
 * @param n_tags how many names.
 * @param[out] scores the scores over all types.
 * @param[out] by_type as for mmopt_metrics_entities; free it with mmopt_string_free; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_metrics_strict_entities(const int64_t *predictions,
                                                  const int64_t *labels,
                                                  size_t n_sequences,
                                                  size_t length,
                                                  const char *const *tags,
                                                  size_t n_tags,
                                                  struct mmopt_entity_scores *scores,
                                                  char **by_type);

/**
 * Exact match and F1 of n predicted answers, both in per cent, as SQuAD's evaluation script prints
 * them: answers are compared in lower case, without punctuation and the articles a, an, the; F1
 * counts common words; of several accepted answers the best counts.
 *
 * answers holds the accepted answers of all questions one after the other, n_answers how many each
 * question has. With none, the right answer is empty.
 *
 * Errors: only those of any call.
 *
 * @param[in] predictions n texts, UTF-8.
 * @param[in] answers as many texts as the sum of n_answers, UTF-8; may be NULL when there are
 * none.
 * @param[in] n_answers for each question how many answers are accepted.
 * @param n how many questions.
 * @param[out] exact_match the percentage of answers that equal an accepted one.
 * @param[out] f1 the mean F1, 0 to 100.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_metrics_answers(const char *const *predictions,
                                          const char *const *answers,
                                          const size_t *n_answers,
                                          size_t n,
                                          double *exact_match,
                                          double *f1);

/** The span of a context that a model predicts as the answer to a question. */
typedef struct mmopt_answer {
    /** Its first byte in the context. */
    size_t start;
    /** The byte after its last. */
    size_t end;
    /**
     * Start logit plus end logit; NaN without an answer. With all_windows a question has several
     * rows (mmopt_batch_examples says which), and its answer is that of the greatest score.
     */
    double score;
} mmopt_answer;

/**
 * The best answer of one row of a question answering batch: the span of at most max_answer_tokens
 * tokens of the context with the greatest sum of start and end logit; of equal ones the first.
 *
 * start_logits and end_logits are one row of the outputs of mmopt_trainer_evaluate on this batch,
 * n_tokens logits each. Where the row has no token of the context, text becomes NULL, start and
 * end 0 and score NaN, without an error. Whether a question has no answer is for the caller to
 * decide, for example by comparing the score with the sum of the first start and end logit.
 *
 * Errors: INVALID_ARGUMENT for a model or row out of range, a batch of another task, n_tokens
 * that is not the batch's length, or a max_answer_tokens of 0.
 *
 * @param[in] batch shared access.
 * @param model the index of the model, from 0.
 * @param row the index of the row, from 0.
 * @param[in] start_logits n_tokens numbers.
 * @param[in] end_logits n_tokens numbers.
 * @param n_tokens the length of the batch, the second dimension of its input_ids.
 * @param max_answer_tokens greatest length of an answer in tokens, at least 1.
 * @param[out] answer the span and its score.
 * @param[out] text the text of the span, or NULL; free it with mmopt_string_free; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_batch_best_answer(const struct mmopt_batch *batch,
                                            size_t model,
                                            size_t row,
                                            const float *start_logits,
                                            const float *end_logits,
                                            size_t n_tokens,
                                            size_t max_answer_tokens,
                                            struct mmopt_answer *answer,
                                            char **text);

/**
 * How many of each class were predicted as which, of n predicted classes. Entries whose label is
 * negative, such as -100, are left out.
 *
 * Errors: INVALID_ARGUMENT for a class that is not below n_classes.
 *
 * @param[in] predictions n classes.
 * @param[in] labels n classes; negative: left out.
 * @param n how many classes.
 * @param n_classes how many different classes there are.
 * @param[out] matrix n_classes rows, one for each label, of n_classes counts, one for each
 * prediction.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_metrics_confusion_matrix(const int64_t *predictions,
                                                   const int64_t *labels,
                                                   size_t n,
                                                   size_t n_classes,
                                                   uint64_t *matrix);

/**
 * The confusion matrix of scores: the counts that mmopt_trainer_evaluate_loader wrote as JSON.
 *
 * Errors: INVALID_DATA when json is no text of mmopt_trainer_evaluate_loader; NOT_FOUND when its
 * task has no classes or tags; INVALID_ARGUMENT when they are not n_classes.
 *
 * @param[in] json the text that mmopt_trainer_evaluate_loader gave.
 * @param n_classes how many classes or tags the model has.
 * @param[out] matrix n_classes rows, one for each label, of n_classes counts, one for each
 * prediction.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_scores_confusion_matrix(const char *json,
                                                  size_t n_classes,
                                                  uint64_t *matrix);

/** Scores of predicted numbers against the right ones. */
typedef struct mmopt_regression_scores {
    /** Mean of the squared differences. */
    double mse;
    /** Pearson's correlation, -1 to 1; NaN where either side is constant, or for fewer than 2. */
    double pearson;
    /** Spearman's rank correlation; equal numbers share their mean rank. NaN as for pearson. */
    double spearman;
    /** 0; for later versions. */
    double reserved[5];
} mmopt_regression_scores;

/**
 * Scores of n predicted numbers, as scipy computes them.
 *
 * Errors: INVALID_ARGUMENT when n is 0, or for a number that is not finite.
 *
 * @param[in] predictions n numbers.
 * @param[in] labels n numbers.
 * @param n how many.
 * @param[out] scores the scores.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_metrics_regression(const double *predictions,
                                             const double *labels,
                                             size_t n,
                                             struct mmopt_regression_scores *scores);

/**
 * The perplexity over n batches of tokens: e to the mean loss of a token. Batches without tokens
 * do not count.
 *
 * Errors: INVALID_ARGUMENT without any token, or for a loss that is not a number.
 *
 * @param[in] losses n mean losses, one for each batch.
 * @param[in] n_tokens n counts of the tokens that each is the mean over.
 * @param n how many batches.
 * @param[out] value the perplexity.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_metrics_perplexity(const double *losses,
                                             const uint64_t *n_tokens,
                                             size_t n,
                                             double *value);

/** @} */

/**
 * @defgroup report Reports
 * A page on training runs, made from their logs: curves, what the models share, scores,
 * options.
 * @{
 */

/**
 * Writes a page on one or more training runs from their logs: one HTML file that a browser shows
 * without network. It has curves of losses, scores, learning rates, gradient norms and throughput;
 * how the models' gradients agree, what they share and how far they are apart; the options that
 * differ from a preset; and a table of scores to copy. Runs that differ in nothing but their seed
 * become one curve, their mean, with a band. Runs are named by their files.
 *
 * logs are paths of files with one JSON object a line. Records and keys that are not known are
 * ignored; what a log lacks is left out of the page, which says so; so is a last line that was
 * torn. A file at path is replaced as a whole, or not at all.
 *
 * Errors: INVALID_ARGUMENT when n_logs is 0, a log is named twice, or path is a log; NOT_FOUND or
 * IO for a file that cannot be read or written; INVALID_DATA for a file that is no log: the
 * message names file and line.
 *
 * May be called from any thread.
 *
 * @param[in] logs n_logs paths, UTF-8.
 * @param n_logs how many logs, at least 1.
 * @param[in] path where the page is written, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_report(const char *const *logs,
                                 size_t n_logs,
                                 const char *path);

/** @} */

/**
 * @defgroup optimizer Optimizer (gradient mode)
 * The host computes the gradients, in PyTorch or by any other means; the optimizer does
 * the rest, from clipping to synchronisation, in the host's memory.
 * @{
 */

/**
 * Element type and strides of a parameter that is not dense, row-major f32. Strides are in
 * elements, one for each dimension; they may be negative, but no two elements may overlap.
 *
 * For bf16 and f16 values the optimizer keeps f32 master weights, 4 bytes per element. It updates
 * them in f32, and after each step rounds them into the host's memory, to nearest, ties to even.
 * An element that the host changes between steps replaces its master. f32 values with strides cost
 * as much for a copy, gradients with strides a copy in their own type.
 */
typedef struct mmopt_parameter_layout {
    /** sizeof(mmopt_parameter_layout); mmopt_parameter_layout_init sets it. */
    size_t struct_size;
    /**
     * Element type of the values: MMOPT_DTYPE_F32 (the default), MMOPT_DTYPE_BF16 or
     * MMOPT_DTYPE_F16; any other only for frozen parameters.
     */
    uint32_t dtype;
    /** Must be 0. */
    uint32_t reserved;
    /** n_dims strides of the values; NULL (the default): dense and row-major. */
    const int64_t *strides;
    /** n_dims strides of the gradient; NULL (the default): dense and row-major. */
    const int64_t *gradient_strides;
} mmopt_parameter_layout;

/**
 * Fills in the defaults: dense, row-major f32. NULL is harmless.
 *
 * @param[out] layout filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_parameter_layout_init(struct mmopt_parameter_layout *layout);

/** One parameter in the host's memory. */
typedef struct mmopt_parameter {
    /** Unique within its model. The published name, if there is one, as it decides the role. */
    const char *name;
    /** The dimensions, outermost first; NULL is allowed when n_dims is 0. */
    const int64_t *shape;
    /** How many dimensions. */
    size_t n_dims;
    /**
     * The values, aligned to their size; updated in place. f32, unless layout says otherwise. With
     * strides, the address of the element at index 0. May be NULL when a dimension is 0.
     */
    void *data;
    /** The gradient, of the same shape; NULL when there is none. */
    void *gradient;
    /** Element type of the gradient: MMOPT_DTYPE_F32, MMOPT_DTYPE_BF16 or MMOPT_DTYPE_F16. */
    uint32_t gradient_dtype;
    /** 1: the optimizer changes it; 0: frozen. */
    uint32_t trainable;
    /**
     * NULL: the role follows from the name. Else a JSON object that overrides it: role (for
     * example "attention_query", or null to keep it out of every group), part ("weight" or
     * "bias"), block, layout ("out_in" or "in_out"); docs/options.md lists all.
     */
    const char *role_json;
    /** NULL: values are f32, and both values and gradient dense and row-major. */
    const struct mmopt_parameter_layout *layout;
    /** Must be 0. */
    uint64_t reserved[1];
} mmopt_parameter;

/** One model of the host: its parameters, and what decides about sharing. */
typedef struct mmopt_model_parameters {
    /** Unique among the models. */
    const char *name;
    /** Its parameters. */
    const struct mmopt_parameter *parameters;
    /** How many. */
    size_t n_parameters;
    /** Weight among the models, finite and at least 0; only ratios matter. */
    double weight;
    /** The model_type of config.json, for reports; NULL: unknown. */
    const char *architecture;
    /** Embeddings are shared only between models of the same vocabulary; NULL: never. */
    const char *vocabulary;
    /** Heads are shared only between models of the same task; NULL: never. */
    const char *task;
    /**
     * 1: the gradients stay valid at their addresses until they are replaced or the optimizer is
     * freed, as with zero_grad(set_to_none=False) of PyTorch. 0: each gradient counts once. After
     * it was read, by mmopt_optimizer_step, or with more than one micro-batch per step by
     * mmopt_optimizer_accumulate, mmopt_optimizer_set_gradient must name it again, or say that
     * there is none.
     */
    uint32_t stable_gradients;
    /** Must be 0. */
    uint32_t reserved0;
    /** Must be 0. */
    uint64_t reserved[1];
} mmopt_model_parameters;

/**
 * Updates the parameters of several models together, in the host's memory, from gradients that the
 * host computes.
 */
typedef struct mmopt_optimizer mmopt_optimizer;

/**
 * Plans what n_models models share and binds their memory. Texts, arrays and layouts are copied.
 * Values must stay where they are until the optimizer is freed, or until mmopt_optimizer_set_data
 * names another place; gradients as stable_gradients of their model says. Only
 * mmopt_optimizer_accumulate and mmopt_optimizer_step read or write them. Trained values must not
 * overlap each other or any gradient; gradients may overlap if the host fills them one after
 * another. The options device, max_sessions and runtime_path have no effect.
 *
 * Errors, with model and parameter: INVALID_ARGUMENT for a name that occurs twice, a missing
 * pointer, values that overlap, or an option out of range; UNSUPPORTED for strides that repeat an
 * element, an element type that cannot be trained, or an option that only a trainer can carry out
 * (max_loss_increase, mutual with required true, ema_decay, precision, activation_checkpointing,
 * attention, max_parallel_models, memory_limit, start aligned or pretrained, token_embeddings).
 * Mutual learning that is not required and the start auto, as in the default preset, have no
 * effect: there models have only rates that follow each other's losses in common, unless
 * share_rule or sync_every is set.
 *
 * @param[in] options NULL: the defaults.
 * @param[in] models n_models models.
 * @param n_models how many models.
 * @param[out] optimizer the new object; free it with mmopt_optimizer_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_create(const struct mmopt_trainer_options *options,
                                           const struct mmopt_model_parameters *models,
                                           size_t n_models,
                                           struct mmopt_optimizer **optimizer);

/**
 * The number of models; 0 for NULL.
 *
 * @param[in] optimizer shared access.
 */
MMOPT_API size_t mmopt_optimizer_n_models(const struct mmopt_optimizer *optimizer);

/**
 * Frees an optimizer, and calls the deleters of the DLPack tensors that it owns. NULL is harmless.
 *
 * @param optimizer may be NULL; freed by the call.
 */
MMOPT_API
void mmopt_optimizer_free(struct mmopt_optimizer *optimizer);

/**
 * Binds another gradient to a parameter, dense and row-major: for the next step, and for all later
 * ones if stable_gradients of the model is 1. Parameters are indexed in the order in which they
 * were given.
 *
 * Errors: INVALID_ARGUMENT when model, parameter or gradient_dtype is out of range; UNSUPPORTED
 * for an element type that gradients cannot have.
 *
 * @param[in,out] optimizer exclusive access.
 * @param model the index of the model, from 0.
 * @param parameter the index of the parameter within its model, from 0.
 * @param gradient as many elements as the value; may be NULL: none.
 * @param gradient_dtype an mmopt_dtype.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_gradient(struct mmopt_optimizer *optimizer,
                                                 size_t model,
                                                 size_t parameter,
                                                 void *gradient,
                                                 uint32_t gradient_dtype);

/**
 * As mmopt_optimizer_set_gradient, for a gradient with strides in elements, one for each of the
 * parameter's n_dims dimensions.
 *
 * Errors: as mmopt_optimizer_set_gradient; SHAPE for another number of dimensions; UNSUPPORTED for
 * strides that repeat an element.
 *
 * @param[in,out] optimizer exclusive access.
 * @param model the index of the model, from 0.
 * @param parameter the index of the parameter within its model, from 0.
 * @param gradient the address of the element at index 0; may be NULL: none.
 * @param gradient_dtype an mmopt_dtype.
 * @param[in] strides n_dims strides in elements, copied; may be NULL: dense and row-major.
 * @param n_dims how many dimensions.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_gradient_strided(struct mmopt_optimizer *optimizer,
                                                         size_t model,
                                                         size_t parameter,
                                                         void *gradient,
                                                         uint32_t gradient_dtype,
                                                         const int64_t *strides,
                                                         size_t n_dims);

/**
 * Binds other memory to the values of a parameter, which holds them already: of the element type
 * that the parameter has. Moments and counters stay. The old memory is not used any more.
 *
 * Errors: INVALID_ARGUMENT when model or parameter is out of range, for a missing or unaligned
 * pointer, or for memory that is another parameter's; SHAPE for another number of dimensions;
 * UNSUPPORTED for strides that repeat an element. Nothing has changed then.
 *
 * @param[in,out] optimizer exclusive access.
 * @param model the index of the model, from 0.
 * @param parameter the index of the parameter within its model, from 0.
 * @param data the address of the element at index 0.
 * @param[in] strides n_dims strides in elements, copied; may be NULL: dense and row-major.
 * @param n_dims how many dimensions.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_data(struct mmopt_optimizer *optimizer,
                                             size_t model,
                                             size_t parameter,
                                             void *data,
                                             const int64_t *strides,
                                             size_t n_dims);

/**
 * Discards the micro-batches since the last step.
 *
 * Errors: only those of any call.
 *
 * @param[in,out] optimizer exclusive access.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_zero_grad(struct mmopt_optimizer *optimizer);

/**
 * Takes the gradients and the loss of one micro-batch of one model, which the host has computed.
 * With more than one micro-batch per step the gradients are summed now; else the step reads them.
 *
 * Errors: INVALID_ARGUMENT when model is out of range; STATE for a second micro-batch of a model
 * when gradient_accumulation_steps is 1, and for a gradient that was read already if
 * stable_gradients of the model is 0.
 *
 * @param[in,out] optimizer exclusive access.
 * @param model the index of the model, from 0.
 * @param loss the loss of the micro-batch.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_accumulate(struct mmopt_optimizer *optimizer,
                                               size_t model,
                                               double loss);

/**
 * As mmopt_optimizer_accumulate, with the weight of the micro-batch in the step's mean: the number
 * that its loss was divided by, such as that of its labels. mmopt_optimizer_accumulate has weight
 * 1.
 *
 * Errors: those of mmopt_optimizer_accumulate; INVALID_ARGUMENT for a weight that is negative or
 * not finite, or other than 1 when gradient_accumulation is not weighted_mean.
 *
 * @param[in,out] optimizer exclusive access.
 * @param model the index of the model, from 0.
 * @param loss the loss of the micro-batch.
 * @param weight finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_accumulate_weighted(struct mmopt_optimizer *optimizer,
                                                        size_t model,
                                                        double loss,
                                                        double weight);

/**
 * One step of all models: check, clip, share, update, synchronise.
 *
 * Errors: STATE without mmopt_optimizer_accumulate since the last step; NON_FINITE if the options
 * ask for it; CANCELLED by the gradient callback; INVALID_ARGUMENT for a bad result of a callback.
 * After an error the step can be taken again.
 *
 * @param[in,out] optimizer exclusive access.
 * @param[out] report what the step did; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_step(struct mmopt_optimizer *optimizer,
                                         struct mmopt_step_report *report);

/**
 * Learning rate, gradient norm, weight and skipped steps of one model, as of the last step.
 *
 * Errors: INVALID_ARGUMENT when model is out of range.
 *
 * @param[in] optimizer shared access.
 * @param model the index of the model, from 0.
 * @param[out] rates the numbers.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_rates(const struct mmopt_optimizer *optimizer,
                                          size_t model,
                                          struct mmopt_rates *rates);

/**
 * The number of steps, those before a resume included; 0 for NULL.
 *
 * @param[in] optimizer shared access.
 */
MMOPT_API uint64_t mmopt_optimizer_n_steps(const struct mmopt_optimizer *optimizer);

/**
 * Sets the base learning rate from the next step on.
 *
 * Errors: INVALID_ARGUMENT when rate is out of range.
 *
 * @param[in,out] optimizer exclusive access.
 * @param rate finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_learning_rate(struct mmopt_optimizer *optimizer,
                                                      double rate);

/**
 * Sets the weight of a model from the next step on; not all weights may be 0.
 *
 * Errors: INVALID_ARGUMENT when model or weight is out of range.
 *
 * @param[in,out] optimizer exclusive access.
 * @param model the index of the model, from 0.
 * @param weight finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_model_weight(struct mmopt_optimizer *optimizer,
                                                     size_t model,
                                                     double weight);

/**
 * The sharing plan as text: which parameters of the models belong together, and why, and what is
 * done with their gradients (share_rule) and values (sync_every).
 *
 * Errors: only those of any call.
 *
 * @param[in] optimizer shared access.
 * @param[out] text the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_plan(const struct mmopt_optimizer *optimizer,
                                         char **text);

/**
 * The sharing plan as one JSON object. Its keys gradients and parameters say in words what is done
 * with those of a group.
 *
 * Errors: only those of any call.
 *
 * @param[in] optimizer shared access.
 * @param[out] json the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_plan_json(const struct mmopt_optimizer *optimizer,
                                              char **json);

/**
 * As mmopt_trainer_report_validation, in gradient mode.
 *
 * Errors: those of mmopt_trainer_report_validation.
 *
 * @param[in,out] optimizer exclusive access.
 * @param[in] scores n_scores scores, one per model.
 * @param n_scores the number of models.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_report_validation(struct mmopt_optimizer *optimizer,
                                                      const double *scores,
                                                      size_t n_scores);

/**
 * As mmopt_trainer_metrics_json, in gradient mode.
 *
 * Errors: those of mmopt_trainer_metrics_json.
 *
 * @param[in] optimizer shared access.
 * @param[out] json the text; free it with mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_metrics_json(const struct mmopt_optimizer *optimizer,
                                                 char **json);

/**
 * Sets the callback that sees each gradient of a step before it is used, for a filter or an update
 * of the host; NULL removes it. user must stay valid until it is replaced or the optimizer is
 * freed.
 *
 * The callback sees dense f32 values and gradients in place, and so the sums of micro-batches. Of
 * all others it sees dense f32 copies: a changed bf16 or f16 gradient is rounded back, a changed
 * gradient with strides counts for this step and does not reach the host's memory, and changed
 * values reach it if the step succeeds.
 *
 * Errors: only those of any call.
 *
 * @param[in,out] optimizer exclusive access.
 * @param callback may be NULL: no callback.
 * @param user passed to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_gradient_callback(struct mmopt_optimizer *optimizer,
                                                          mmopt_gradient_fn callback,
                                                          void *user);

/**
 * Sets the callback that returns each model's learning rate at each step; NULL removes it. user
 * must stay valid until it is replaced or the optimizer is freed.
 *
 * Errors: only those of any call.
 *
 * @param[in,out] optimizer exclusive access.
 * @param callback may be NULL: no callback.
 * @param user passed to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_rate_callback(struct mmopt_optimizer *optimizer,
                                                      mmopt_rate_fn callback,
                                                      void *user);

/**
 * Writes a checkpoint of the optimizer (moments, master weights and counters, not the host's
 * values) into a directory, which is created if it does not exist. A crash at any point leaves the
 * previous checkpoint intact; of this run the newest stays. From the first checkpoint on no other
 * optimizer or trainer can write into the directory, until this one is freed or writes elsewhere.
 *
 * Errors: STATE where another optimizer or trainer writes into the directory; IO when a file
 * cannot be written.
 *
 * @param[in] optimizer shared access.
 * @param[in] directory the directory, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_save_checkpoint(const struct mmopt_optimizer *optimizer,
                                                    const char *directory);

/**
 * Resumes from the newest whole checkpoint in a directory; models and parameters must be the same.
 * If the host restores its values too, before or after this call, training continues bit by bit. A
 * bf16 or f16 value that differs now replaces its master.
 *
 * Errors: NOT_FOUND where there never was a checkpoint; INVALID_DATA where none is whole, and for
 * one of other models; UNSUPPORTED for one that a later library wrote; IO.
 * The optimizer is unchanged then.
 *
 * @param[in,out] optimizer exclusive access.
 * @param[in] directory the directory, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_resume(struct mmopt_optimizer *optimizer,
                                           const char *directory);

/** @} */

/**
 * @defgroup communicators Communicators
 * Several processes that train together, the ranks, exchange numbers through functions
 * of the host: MPI (mmopt_mpi.h), NCCL (mmopt_nccl.h), or an engine of one's own.
 * @{
 */

/**
 * What a communicator's function is told beside its own arguments, and where it says why it fails.
 */
typedef struct mmopt_communicator_call {
    /**
     * NULL: the buffers are host memory, and the function returns when they can be used again. A
     * later version may name a stream of a device here, for buffers of that device; a function
     * that cannot do that must fail when it is not NULL.
     */
    void *stream;
    /**
     * Room for a NUL-terminated UTF-8 text that says why the function failed; empty before. The
     * message of the library's error ends with it.
     */
    char *message;
    /** The size of message in bytes, its end included; 512. */
    size_t message_size;
    /** 0; for later versions. */
    uint64_t reserved[4];
} mmopt_communicator_call;

/**
 * Returns a number of the communicator: the rank, or how many ranks there are. It is called once,
 * by mmopt_communicator_create.
 */
typedef size_t (*mmopt_communicator_number_fn)(void *user);

/**
 * Replaces each of n numbers of type dtype by its sum over all ranks, with the same bits on every
 * rank. dtype is an mmopt_dtype: F32, F64, U64 or I64. Returns 0, or any other number on failure.
 */
typedef uint32_t (*mmopt_all_reduce_fn)(void *user,
                                        struct mmopt_communicator_call *call,
                                        void *data,
                                        size_t n,
                                        uint32_t dtype);

/** Replaces n_bytes by those of rank root. Returns 0, or any other number on failure. */
typedef uint32_t (*mmopt_broadcast_fn)(void *user,
                                       struct mmopt_communicator_call *call,
                                       void *data,
                                       size_t n_bytes,
                                       size_t root);

/**
 * Puts every rank's n_bytes into all, in order of rank; all is as many times as long. Returns 0,
 * or any other number on failure.
 */
typedef uint32_t (*mmopt_all_gather_fn)(void *user,
                                        struct mmopt_communicator_call *call,
                                        const void *data,
                                        size_t n_bytes,
                                        void *all);

/**
 * Sums data, which has n numbers for each rank, over all ranks, and puts the n numbers of this
 * rank into part. dtype as in mmopt_all_reduce_fn; data may be written to. Returns 0, or any other
 * number on failure.
 */
typedef uint32_t (*mmopt_reduce_scatter_fn)(void *user,
                                            struct mmopt_communicator_call *call,
                                            void *data,
                                            size_t n,
                                            uint32_t dtype,
                                            void *part);

/** Gives n_bytes to rank to, which receives as many. Returns 0, or any other number on failure. */
typedef uint32_t (*mmopt_send_fn)(void *user,
                                  struct mmopt_communicator_call *call,
                                  const void *data,
                                  size_t n_bytes,
                                  size_t to);

/** Takes n_bytes from rank from, which sends as many. Returns 0, or any other number on failure. */
typedef uint32_t (*mmopt_receive_fn)(void *user,
                                     struct mmopt_communicator_call *call,
                                     void *data,
                                     size_t n_bytes,
                                     size_t from);

/** Returns when every rank has called it: 0, or any other number on failure. */
typedef uint32_t (*mmopt_barrier_fn)(void *user, struct mmopt_communicator_call *call);

/**
 * Is told that this rank gives up, and why, so that the others need not wait for it. Nothing is
 * called afterwards but mmopt_free_user_fn.
 */
typedef void (*mmopt_abort_fn)(void *user, const char *message);

/** Frees what user points to. */
typedef void (*mmopt_free_user_fn)(void *user);

/**
 * The functions of an engine that carries numbers between ranks. mmopt_communicator_callbacks_init
 * fills it with NULLs; all functions but abort and free_user must be set.
 *
 * Every rank is asked for the same operations in the same order, except send and receive, which
 * pair up. A function is called only by the thread that calls into the library, and must not call
 * into the library's objects. The library sets no time limit: a function must fail by itself when
 * another rank does not answer. After a failure none is called again but abort and free_user.
 */
typedef struct mmopt_communicator_callbacks {
    /** sizeof(mmopt_communicator_callbacks). */
    size_t struct_size;
    /** Passed to each function. */
    void *user;
    /** The rank of this process, below size. */
    mmopt_communicator_number_fn rank;
    /** How many ranks there are, at least 1. */
    mmopt_communicator_number_fn size;
    /** Sums over the ranks. */
    mmopt_all_reduce_fn all_reduce;
    /** One rank's bytes for all. */
    mmopt_broadcast_fn broadcast;
    /** All ranks' bytes for all. */
    mmopt_all_gather_fn all_gather;
    /** Sums over the ranks, each rank a part. */
    mmopt_reduce_scatter_fn reduce_scatter;
    /** Bytes to one rank. */
    mmopt_send_fn send;
    /** Bytes from one rank. */
    mmopt_receive_fn receive;
    /** All ranks meet. */
    mmopt_barrier_fn barrier;
    /** This rank gives up; may be NULL. */
    mmopt_abort_fn abort;
    /** Called once, when the communicator is no longer used; may be NULL. */
    mmopt_free_user_fn free_user;
} mmopt_communicator_callbacks;

/**
 * Fills in NULLs. NULL is harmless.
 *
 * @param[out] callbacks filled with NULLs; may be NULL.
 */
MMOPT_API
void mmopt_communicator_callbacks_init(struct mmopt_communicator_callbacks *callbacks);

/**
 * One rank's access to all others, on an engine of the host such as MPI or NCCL: mmopt_mpi.h and
 * mmopt_nccl.h make one, or functions of the host's own. Its calls are made by all ranks in the
 * same order. Trainers that use it keep it alive: it may be freed before them.
 */
typedef struct mmopt_communicator mmopt_communicator;

/**
 * Makes a communicator of the host's functions. Asks for rank and size; exchanges nothing.
 *
 * Errors: INVALID_ARGUMENT for a function that is NULL, a size of 0, or a rank that is not below
 * the size. free_user is not called then.
 *
 * @param[in] callbacks copied.
 * @param[out] communicator the new object; free it with mmopt_communicator_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_communicator_create(const struct mmopt_communicator_callbacks *callbacks,
                                              struct mmopt_communicator **communicator);

/**
 * The rank of this process, counted from 0; 0 for NULL.
 *
 * @param[in] communicator shared access.
 */
MMOPT_API size_t mmopt_communicator_rank(const struct mmopt_communicator *communicator);

/**
 * How many ranks there are; 0 for NULL.
 *
 * @param[in] communicator shared access.
 */
MMOPT_API size_t mmopt_communicator_size(const struct mmopt_communicator *communicator);

/**
 * Calls each function of the communicator once or more, with small numbers, and compares what they
 * do with what they must. Every rank calls it: a quick test of functions of one's own.
 *
 * Errors: INVALID_ARGUMENT for a wrong result, with the function's name; COMMUNICATION for a
 * function that fails; STATE while a trainer uses the communicator.
 *
 * @param[in,out] communicator exclusive access.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_communicator_check(struct mmopt_communicator *communicator);

/**
 * Returns when every rank has called it.
 *
 * Errors: COMMUNICATION when the function fails; STATE while a trainer uses the communicator.
 *
 * @param[in,out] communicator exclusive access.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_communicator_barrier(struct mmopt_communicator *communicator);

/**
 * Tells the other ranks that this one gives up, where the engine can. All later exchanges of this
 * rank fail with COMMUNICATION.
 *
 * Errors: STATE while a trainer uses the communicator.
 *
 * @param[in,out] communicator exclusive access.
 * @param[in] message why, UTF-8; handed to abort.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_communicator_abort(struct mmopt_communicator *communicator,
                                             const char *message);

/** What a communicator has exchanged since it was made, on this rank. */
typedef struct mmopt_traffic {
    /** Calls of its functions. */
    uint64_t n_calls;
    /** Bytes of memory handed to all_reduce. */
    uint64_t all_reduce_bytes;
    /** Bytes of memory handed to broadcast. */
    uint64_t broadcast_bytes;
    /** Bytes of this rank's part in all_gather. */
    uint64_t all_gather_bytes;
    /** Bytes of all parts in reduce_scatter. */
    uint64_t reduce_scatter_bytes;
    /** Bytes handed to send. */
    uint64_t send_bytes;
    /** Bytes handed to receive. */
    uint64_t receive_bytes;
    /**
     * Bytes that this rank sends for all of it where the engine uses rings. Of b bytes among n
     * ranks all_reduce sends 2 b (n - 1) / n, reduce_scatter and, as a mean over the ranks,
     * broadcast b (n - 1) / n, all_gather b (n - 1), send b. A model, not a measurement: engines
     * may do otherwise, and add headers of their own.
     */
    uint64_t wire_bytes;
    /** 0; for later versions. */
    uint64_t reserved[4];
} mmopt_traffic;

/**
 * What the communicator has exchanged so far.
 *
 * Errors: STATE while a trainer uses the communicator.
 *
 * @param[in,out] communicator exclusive access.
 * @param[out] traffic the counts of this rank.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_communicator_traffic(struct mmopt_communicator *communicator,
                                               struct mmopt_traffic *traffic);

/**
 * Frees a communicator; its functions and user stay in use by trainers that have it, until the
 * last of them is freed. NULL is harmless.
 *
 * @param communicator may be NULL; freed by the call.
 */
MMOPT_API void mmopt_communicator_free(struct mmopt_communicator *communicator);

/** How replicas keep together. mmopt_rank_options_init fills in the defaults. */
typedef struct mmopt_rank_options {
    /** sizeof(mmopt_rank_options). */
    size_t struct_size;
    /**
     * Gradients are summed in buckets of so many bytes, at least 4, in the order of models and
     * parameters; default 26214400 (25 MiB).
     */
    size_t bucket_bytes;
    /**
     * Before each step whose number is a multiple of this, checksums of all parameters are
     * compared among the ranks; 0: never; default 100.
     */
    uint64_t check_every;
    /**
     * 0 (default): gradients are summed at every step. Else replicas take so many steps by
     * themselves before they meet (local SGD, DiLoCo).
     */
    uint64_t sync_every;
    /**
     * With sync_every: the learning rate of the outer step, above 0; default 0.7, which with an
     * outer_momentum of 0.9 is published for hundreds of meetings. Where a run has fewer than
     * about a hundred, 0.5 with outer_momentum 0.5 trains better. 1, with outer_momentum 0:
     * weights are averaged.
     */
    double outer_lr;
    /** With sync_every: the Nesterov momentum of the outer step, in [0, 1); default 0.9. */
    double outer_momentum;
    /**
     * 1: each rank has the moments of some parameters and updates these; then all get their values
     * (ZeRO stage 1). Not with sync_every or a placement. Default 0.
     */
    uint32_t shard_state;
    /**
     * Element type of gradients on the wire: MMOPT_DTYPE_F32 (default), or MMOPT_DTYPE_BF16, which
     * halves their bytes and rounds them. Not with sync_every.
     */
    uint32_t gradient_dtype;
    /**
     * 1: in a pass of all models the gradients of each are summed as soon as its own pass has
     * ended, while the others still run, and not in the step; the results have the same bits.
     * Gradients that are read before the step are then those of all ranks. Not with sync_every, a
     * placement, or gradient_accumulation_steps above 1. Default 0.
     */
    uint32_t overlap;
    /** 0; for later versions. */
    uint32_t reserved;
    /**
     * With the option placement: the communicator of the ranks that run the same models as this
     * one in other groups of ranks, in the order of groups. Then the trainer's own communicator
     * joins the ranks of one group, which together run all models; a group is to the others what
     * a replica is, and the gradients of a model are summed over the ranks that run it. Shared
     * access; the trainer keeps it alive. NULL (default): one group.
     */
    const struct mmopt_communicator *replicas;
} mmopt_rank_options;

/**
 * Fills in the defaults. NULL is harmless.
 *
 * @param[out] options filled with the defaults; may be NULL.
 */
MMOPT_API void mmopt_rank_options_init(struct mmopt_rank_options *options);

/**
 * Makes a trainer one of several replicas, one on each rank, which train as one: each runs its
 * part of every batch (n_ranks of a loader deals it out), and gradients are summed over the ranks
 * before each step. All ranks call this with the same models and options at the same step, and get
 * the weights of rank 0. Dropout is drawn anew on each rank.
 *
 * From then on all ranks make the same passes, steps, checkpoints and resumes in the same order.
 * Losses and counts that they return are those of all ranks together, weighted by the labels that
 * count. Skipping, clipping and synchronisation are decided by sums over all ranks; callbacks must
 * decide alike on every rank. A call that fails on one rank fails on all, with CANCELLED on the
 * others. After COMMUNICATION gradients since the last step are lost, and weights and moments are
 * those of the last step: NULL in place of the communicator lets the trainer write a checkpoint by
 * itself. Checkpoints are written by rank 0, while all wait; all resume from the same directory,
 * with any number of ranks. mmopt_trainer_fit and mmopt_trainer_find_learning_rate are UNSUPPORTED
 * on more than one rank.
 *
 * With sync_every passes and steps are those of each rank alone, and so are losses. After each
 * sync_every steps the weights become those of an outer step: with D the weights of the last
 * meeting less the mean of all replicas, u = outer_momentum * u + D, and the weights of the last
 * meeting less outer_lr * (outer_momentum * u + D) (Douillard et al. 2023). Checkpoints are
 * possible only then, and have the moments of rank 0.
 *
 * With shard_state each rank has the moments of some parameters and updates these; then all get
 * their values. With the option placement of the trainer, the rank of each model (options_json,
 * docs/options.md), ranks are no replicas: all read the same batches, each runs and updates its
 * own models, and the results are those of one process; evaluating, reading and saving a model is
 * for its rank, or after mmopt_trainer_gather_models. With replicas there are several groups of
 * such ranks: each reads its part of every batch (rank and n_ranks of the loader are the number of
 * the group and of groups), and the results are those of as many replicas.
 *
 * Errors: INVALID_ARGUMENT for an option out of range, for a rank with other models or options
 * than rank 0, for a placement that does not name every model or names a rank that there is not,
 * and for replicas without a communicator or a placement on several ranks, or that join ranks with
 * different numbers in their groups; CANCELLED where a rank of another group cannot join;
 * NOT_FOUND for a placement of a model that there is not; STATE for a rank at another step,
 * between a pass and its step, while another call uses the communicator, and after a step with
 * placement or shard_state, whose ranks cannot be left; UNSUPPORTED for sync_every with running
 * means of weights, placement, shard_state or gradient_dtype, for shard_state with placement, and
 * for placement with the teacher peers_before, and for overlap with sync_every, placement or
 * gradient_accumulation_steps above 1; COMMUNICATION.
 *
 * @param[in,out] trainer exclusive access.
 * @param[in] communicator shared access; may be NULL: the trainer trains by itself again. The
 * trainer keeps it alive.
 * @param[in] options NULL: the defaults.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_communicator(struct mmopt_trainer *trainer,
                                                   const struct mmopt_communicator *communicator,
                                                   const struct mmopt_rank_options *options);

/**
 * Gives every rank the weights of the models that other ranks train (option placement), so that
 * they can be evaluated, read and saved on any rank until the next step. All ranks call it. Does
 * nothing where models are not on different ranks.
 *
 * Errors: STATE with the running means in the place of the weights; CANCELLED where another rank
 * fails; COMMUNICATION.
 *
 * @param[in,out] trainer exclusive access.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_gather_models(struct mmopt_trainer *trainer);

/** @} */

/**
 * @defgroup dlpack DLPack
 * Tensors exchanged with other libraries without a copy, as DLManagedTensorVersioned of
 * DLPack 1.x. They pass as void *, so that no dlpack.h is needed here.
 * @{
 */

/**
 * A view of a DLManagedTensorVersioned as a tensor of that name, for example an input of a pass.
 * The caller keeps both, which must stay valid as long as the view is used; the deleter is not
 * called.
 *
 * Errors: UNSUPPORTED for another major version of DLPack, memory that is not the CPU's, an
 * unknown element type, or elements that are not dense and row-major.
 *
 * @param[in] name UTF-8.
 * @param[in] managed a DLManagedTensorVersioned.
 * @param[out] tensor the view.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tensor_from_dlpack(const char *name,
                                             const void *managed,
                                             struct mmopt_tensor *tensor);

/**
 * Describes a parameter by two DLManagedTensorVersioned: its value, dense f32, and its gradient
 * (NULL: none), dense f32, bf16 or f16. The caller keeps them and name, which must stay valid
 * until the optimizer of the parameter is freed; the deleters are not called
 * (mmopt_optimizer_keep_dlpack gives them to the optimizer). The parameter is trainable, and its
 * role follows from its name; both fields can be changed afterwards.
 *
 * Errors: as mmopt_tensor_from_dlpack; INVALID_ARGUMENT for a value that is read-only or not f32;
 * SHAPE for a gradient of another shape.
 *
 * @param[in] name UTF-8.
 * @param[in] value a DLManagedTensorVersioned.
 * @param[in] gradient a DLManagedTensorVersioned; may be NULL.
 * @param[out] parameter the description.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_parameter_from_dlpack(const char *name,
                                                const void *value,
                                                const void *gradient,
                                                struct mmopt_parameter *parameter);

/**
 * As mmopt_parameter_from_dlpack, for f32, bf16 and f16 values with any strides that do not
 * overlap. The parameter points to layout, which must stay where it is until
 * mmopt_optimizer_create returns.
 *
 * Errors: as mmopt_parameter_from_dlpack, without those of strides and types, which
 * mmopt_optimizer_create checks.
 *
 * @param[in] name UTF-8.
 * @param[in] value a DLManagedTensorVersioned.
 * @param[in] gradient a DLManagedTensorVersioned; may be NULL.
 * @param[out] layout element type and strides.
 * @param[out] parameter the description.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_parameter_from_dlpack_strided(const char *name,
                                                        const void *value,
                                                        const void *gradient,
                                                        struct mmopt_parameter_layout *layout,
                                                        struct mmopt_parameter *parameter);

/**
 * Copies a tensor into a new DLManagedTensorVersioned, flagged as copied. The caller calls its
 * deleter once.
 *
 * Errors: INVALID_ARGUMENT for an unknown element type; SHAPE when n_bytes does not fit the shape.
 *
 * @param[in] tensor what to copy.
 * @param[out] managed the new DLManagedTensorVersioned.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tensor_to_dlpack(const struct mmopt_tensor *tensor,
                                           void **managed);

/**
 * Wraps a DLManagedTensor, the form before DLPack 1.0, in a DLManagedTensorVersioned, without
 * copying elements. The new tensor owns the old one, and its deleter calls the old one's. On error
 * the caller keeps the old one.
 *
 * Errors: only those of any call.
 *
 * @param unversioned a DLManagedTensor; managed owns it on success.
 * @param[out] managed the new DLManagedTensorVersioned.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_dlpack_from_unversioned(void *unversioned,
                                                  void **managed);

/**
 * Wraps a DLManagedTensorVersioned in a DLManagedTensor, the form before DLPack 1.0, without
 * copying elements. The new tensor owns the versioned one, and its deleter calls that one's. On
 * error the caller keeps the versioned one.
 *
 * Errors: UNSUPPORTED for another major version, and for read-only tensors, for which the old form
 * has no flag.
 *
 * @param managed a DLManagedTensorVersioned; unversioned owns it on success.
 * @param[out] unversioned the new DLManagedTensor.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_dlpack_to_unversioned(void *managed,
                                                void **unversioned);

/**
 * Calls the deleter of any DLManagedTensorVersioned, for languages that cannot easily call a
 * function pointer. NULL is harmless. What does not begin with a version of DLPack from 1 on is
 * left alone, as a DLManagedTensor from before 1.0 would be.
 *
 * @param managed may be NULL; freed by the call.
 */
MMOPT_API void mmopt_dlpack_free(void *managed);

/**
 * A parameter's value as a DLManagedTensorVersioned that points into the trainer's memory. The
 * caller calls its deleter once, before or after the trainer is freed, on any thread; the memory
 * lives until both are gone. The elements change with each step. writable 0 flags it as read-only.
 * With 1 it may be written, which counts as exclusive access to the trainer.
 *
 * Errors: INVALID_ARGUMENT when model or parameter is out of range, or writable is neither 0 nor
 * 1.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param parameter the index of the parameter within its model, from 0.
 * @param writable 0 or 1.
 * @param[out] managed a new DLManagedTensorVersioned.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_parameter_dlpack(const struct mmopt_trainer *trainer,
                                                   size_t model,
                                                   size_t parameter,
                                                   uint32_t writable,
                                                   void **managed);

/**
 * As mmopt_trainer_parameter_dlpack for a parameter's gradient; each backward pass overwrites it.
 *
 * Errors: STATE as mmopt_trainer_gradient.
 *
 * @param[in] trainer shared access.
 * @param model the index of the model, from 0.
 * @param parameter the index of the parameter within its model, from 0.
 * @param writable 0 or 1.
 * @param[out] managed a new DLManagedTensorVersioned.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_gradient_dlpack(const struct mmopt_trainer *trainer,
                                                  size_t model,
                                                  size_t parameter,
                                                  uint32_t writable,
                                                  void **managed);

/**
 * Gives the optimizer a DLManagedTensorVersioned as the gradient of a parameter from the next step
 * on: of the parameter's shape, with any strides that do not overlap. Its deleter is called once,
 * when another gradient replaces it or the optimizer is freed, on the thread of that call; it must
 * not call into this optimizer. On error the caller keeps the tensor, and the old gradient stays.
 *
 * Errors: as mmopt_tensor_from_dlpack, without those of strides; SHAPE for another shape;
 * UNSUPPORTED for other element types than f32, bf16 and f16.
 *
 * @param[in,out] optimizer exclusive access.
 * @param model the index of the model, from 0.
 * @param parameter the index of the parameter within its model, from 0.
 * @param managed a DLManagedTensorVersioned; the optimizer owns it on success.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_gradient_dlpack(struct mmopt_optimizer *optimizer,
                                                        size_t model,
                                                        size_t parameter,
                                                        void *managed);

/**
 * Gives the optimizer a DLManagedTensorVersioned whose memory it uses, for example one that
 * mmopt_parameter_from_dlpack described. Its deleter is called once, when the optimizer is freed,
 * on the thread of that call. On error the caller keeps the tensor.
 *
 * Errors: UNSUPPORTED for another major version.
 *
 * @param[in,out] optimizer exclusive access.
 * @param managed a DLManagedTensorVersioned; the optimizer owns it on success.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_keep_dlpack(struct mmopt_optimizer *optimizer,
                                                void *managed);

/** @} */

#ifdef __cplusplus
}
#endif

#undef MMOPT_ENUM

#endif
