/**
 * @file mmopt.h
 * libmmopt: joint training of several transformers, on stock ONNX Runtime.
 *
 * This file is generated from src/ffi; the texts in it are the contract. C99 or later, C++11 or
 * later.
 *
 * Errors. A call that can fail returns an error that the caller owns: NULL is success; otherwise
 * read it with mmopt_error_code and mmopt_error_message and free it with mmopt_error_free. A call
 * that fails has changed nothing and has written none of its results, unless its text says more.
 *
 * Ownership. What a function gives through a pointer to an object pointer belongs to the caller,
 * who frees it with the object's _free. Freeing NULL is harmless. Objects keep alive what they
 * need: they may be freed in any order. Texts given as char * are freed with mmopt_text_free;
 * texts and arrays given as pointers to const belong to the object, as long as the function says.
 *
 * Threads. Calls that take an object as a pointer to const may run at the same time; a call that
 * takes it without const needs it alone. Objects may move between threads. Where the rule is
 * broken while a call runs, the second call fails with MMOPT_CODE_STATE as far as it can be seen.
 *
 * Arguments. Texts are UTF-8 and end with NUL; paths are texts. Lengths are size_t. Enumerations
 * pass as uint32_t. A pointer must not be NULL unless the text says that it may; a NULL is an
 * error, never a crash. Structs of options begin with struct_size: fill them with their _init
 * function, then change what is wanted; a NULL struct of options means the defaults.
 *
 * After a panic inside the library (MMOPT_CODE_INTERNAL), the objects of that call only answer
 * MMOPT_CODE_POISONED and can only be freed; the process and all other objects go on.
 */


#ifndef MMOPT_H
#define MMOPT_H

#include <stddef.h>
#include <stdint.h>

/** The version of this header; mmopt_version() tells that of the loaded library. */
#define MMOPT_VERSION_MAJOR 0
#define MMOPT_VERSION_MINOR 1
#define MMOPT_VERSION_PATCH 0
#define MMOPT_VERSION "0.1.0"
#define MMOPT_VERSION_NUMBER \
    (MMOPT_VERSION_MAJOR * 10000 + MMOPT_VERSION_MINOR * 100 + MMOPT_VERSION_PATCH)

/** Marks what the library exports. Define MMOPT_STATIC to link the static library on Windows. */
#ifndef MMOPT_API
#if defined(_WIN32) && !defined(MMOPT_STATIC)
#define MMOPT_API __declspec(dllimport)
#elif defined(__GNUC__) || defined(__clang__)
#define MMOPT_API __attribute__((visibility("default")))
#else
#define MMOPT_API
#endif
#endif

/** Marks functions whose error must be looked at. */
#ifndef MMOPT_MUST_USE
#if defined(__GNUC__) || defined(__clang__)
#define MMOPT_MUST_USE __attribute__((warn_unused_result))
#else
#define MMOPT_MUST_USE
#endif
#endif

/**
 * Architectures that the library can build, with the tokenizer that goes with each.
 */
enum mmopt_architecture
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * BERT: WordPiece, [CLS] a [SEP] b [SEP].
     */
    MMOPT_ARCHITECTURE_BERT = 1,
    /**
     * GPT-2: byte-level BPE, no framing.
     */
    MMOPT_ARCHITECTURE_GPT2 = 2,
    /**
     * RoBERTa: byte-level BPE, <s> a </s></s> b </s>.
     */
    MMOPT_ARCHITECTURE_ROBERTA = 3,
    /**
     * DistilBERT: as BERT, without token types.
     */
    MMOPT_ARCHITECTURE_DISTILBERT = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_architecture mmopt_architecture;
#else
typedef uint32_t mmopt_architecture;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What went wrong, as far as a program can act on it. The numbers never change.
 */
enum mmopt_code
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Success; what `mmopt_error_code(NULL)` gives.
     */
    MMOPT_CODE_OK = 0,
    /**
     * An argument is out of range, NULL, of the wrong length or dtype, or contradicts another.
     */
    MMOPT_CODE_INVALID_ARGUMENT = 1,
    /**
     * A named thing (model, parameter, input, file) does not exist.
     */
    MMOPT_CODE_NOT_FOUND = 2,
    /**
     * Reading or writing a file failed.
     */
    MMOPT_CODE_IO = 3,
    /**
     * A file is not what it claims to be: truncated, cyclic, malformed, checksum mismatch.
     */
    MMOPT_CODE_INVALID_DATA = 4,
    /**
     * Well-formed, but this library has no way to do it.
     */
    MMOPT_CODE_UNSUPPORTED = 5,
    /**
     * Shapes do not fit together.
     */
    MMOPT_CODE_SHAPE = 6,
    /**
     * ONNX Runtime could not be found, loaded, or is too old.
     */
    MMOPT_CODE_RUNTIME_UNAVAILABLE = 7,
    /**
     * ONNX Runtime refused a model or failed while running it.
     */
    MMOPT_CODE_RUNTIME = 8,
    /**
     * A loss, gradient or weight is NaN or infinite.
     */
    MMOPT_CODE_NON_FINITE = 9,
    /**
     * The call is not possible in the object's present state.
     */
    MMOPT_CODE_STATE = 10,
    /**
     * A callback asked to stop.
     */
    MMOPT_CODE_CANCELLED = 11,
    /**
     * The object was in use when the library failed inside; it can only be freed.
     */
    MMOPT_CODE_POISONED = 12,
    /**
     * A defect in this library.
     */
    MMOPT_CODE_INTERNAL = 13,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_code mmopt_code;
#else
typedef uint32_t mmopt_code;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Element types; the numbers are ONNX's.
 */
enum mmopt_dtype
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * 32-bit IEEE float.
     */
    MMOPT_DTYPE_F32 = 1,
    /**
     * 8-bit unsigned integer.
     */
    MMOPT_DTYPE_U8 = 2,
    /**
     * 8-bit signed integer.
     */
    MMOPT_DTYPE_I8 = 3,
    /**
     * 16-bit unsigned integer.
     */
    MMOPT_DTYPE_U16 = 4,
    /**
     * 16-bit signed integer.
     */
    MMOPT_DTYPE_I16 = 5,
    /**
     * 32-bit signed integer.
     */
    MMOPT_DTYPE_I32 = 6,
    /**
     * 64-bit signed integer.
     */
    MMOPT_DTYPE_I64 = 7,
    /**
     * One byte, 0 or 1.
     */
    MMOPT_DTYPE_BOOL = 9,
    /**
     * 16-bit IEEE float.
     */
    MMOPT_DTYPE_F16 = 10,
    /**
     * 64-bit IEEE float.
     */
    MMOPT_DTYPE_F64 = 11,
    /**
     * 32-bit unsigned integer.
     */
    MMOPT_DTYPE_U32 = 12,
    /**
     * 64-bit unsigned integer.
     */
    MMOPT_DTYPE_U64 = 13,
    /**
     * bfloat16.
     */
    MMOPT_DTYPE_BF16 = 16,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_dtype mmopt_dtype;
#else
typedef uint32_t mmopt_dtype;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How a file of labelled texts is laid out.
 */
enum mmopt_format
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * By the ending: .csv, .jsonl or .json (one object a line), else tabs.
     */
    MMOPT_FORMAT_AUTO = 0,
    /**
     * Fields between tabs, no quoting.
     */
    MMOPT_FORMAT_TSV = 1,
    /**
     * Fields between commas, quoted by ".
     */
    MMOPT_FORMAT_CSV = 2,
    /**
     * One JSON object a line.
     */
    MMOPT_FORMAT_JSONL = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_format mmopt_format;
#else
typedef uint32_t mmopt_format;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Whether the first line of a table names its columns.
 */
enum mmopt_header
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Yes when a column is chosen by name, or the label's field reads like a title.
     */
    MMOPT_HEADER_AUTO = 0,
    /**
     * It does.
     */
    MMOPT_HEADER_YES = 1,
    /**
     * It is an example.
     */
    MMOPT_HEADER_NO = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_header mmopt_header;
#else
typedef uint32_t mmopt_header;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How much a message of the log matters.
 */
enum mmopt_log_level
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * No messages.
     */
    MMOPT_LOG_LEVEL_OFF = 0,
    /**
     * Something failed.
     */
    MMOPT_LOG_LEVEL_ERROR = 1,
    /**
     * Something is probably not as intended: a skipped step, a model that shares nothing.
     */
    MMOPT_LOG_LEVEL_WARNING = 2,
    /**
     * What the library decided: threads, groups, sessions.
     */
    MMOPT_LOG_LEVEL_INFO = 3,
    /**
     * Details for finding faults.
     */
    MMOPT_LOG_LEVEL_DEBUG = 4,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_log_level mmopt_log_level;
#else
typedef uint32_t mmopt_log_level;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a language model learns from plain text.
 */
enum mmopt_objective
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The next token.
     */
    MMOPT_OBJECTIVE_CAUSAL = 0,
    /**
     * Hidden tokens; the tokenizer must have a mask token.
     */
    MMOPT_OBJECTIVE_MASKED = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_objective mmopt_objective;
#else
typedef uint32_t mmopt_objective;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The role of a special token.
 */
enum mmopt_special
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Fills short sequences.
     */
    MMOPT_SPECIAL_PAD = 0,
    /**
     * Stands for unknown words.
     */
    MMOPT_SPECIAL_UNK = 1,
    /**
     * First token of a sequence.
     */
    MMOPT_SPECIAL_CLS = 2,
    /**
     * Separates sequences.
     */
    MMOPT_SPECIAL_SEP = 3,
    /**
     * Hides a token.
     */
    MMOPT_SPECIAL_MASK = 4,
    /**
     * Begins a text.
     */
    MMOPT_SPECIAL_BOS = 5,
    /**
     * Ends a text.
     */
    MMOPT_SPECIAL_EOS = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_special mmopt_special;
#else
typedef uint32_t mmopt_special;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How words are cut into pieces.
 */
enum mmopt_tokenizer_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * What the architecture's published models use.
     */
    MMOPT_TOKENIZER_KIND_USUAL = 0,
    /**
     * The longest known pieces from the left; unknown words are possible.
     */
    MMOPT_TOKENIZER_KIND_WORD_PIECE = 1,
    /**
     * Merged bytes; nothing is unknown.
     */
    MMOPT_TOKENIZER_KIND_BYTE_LEVEL_BPE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_tokenizer_kind mmopt_tokenizer_kind;
#else
typedef uint32_t mmopt_tokenizer_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The tensors of one step, a part for each model. It never changes.
 */
typedef struct mmopt_batch mmopt_batch;

/**
 * The examples of one task and the names of its classes or tags. It never changes.
 */
typedef struct mmopt_corpus mmopt_corpus;

/**
 * An encoded text: ids, token types and places in the text. It never changes.
 */
typedef struct mmopt_encoding mmopt_encoding;

/**
 * Why a call failed. NULL stands for success. The caller owns it: `mmopt_error_free`.
 */
typedef struct mmopt_error mmopt_error;

/**
 * Walks a corpus in seeded order and yields batches, one part for each model. It keeps what it
 * needs of corpus and tokenizers.
 */
typedef struct mmopt_loader mmopt_loader;

/**
 * Turns text into ids and back. It never changes.
 */
typedef struct mmopt_tokenizer mmopt_tokenizer;

/**
 * A view of a dense, row-major tensor in host memory; it owns nothing.
 *
 * As an input it must stay valid during the call, and the call reads it only. As an output it
 * points into the object that it was asked of, and the function that gives it says until when.
 */
typedef struct mmopt_tensor {
    /**
     * The name of the input, output or parameter; UTF-8.
     */
    const char *name;
    /**
     * The element type, an mmopt_dtype.
     */
    uint32_t dtype;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * The dimensions, outermost first; NULL is allowed when n_dims is 0 (a scalar).
     */
    const int64_t *shape;
    /**
     * How many dimensions.
     */
    size_t n_dims;
    /**
     * The elements, of any alignment, in the machine's byte order.
     */
    const void *data;
    /**
     * The size of data in bytes: the product of the dimensions times the element's size.
     */
    size_t n_bytes;
} mmopt_tensor;

/**
 * How labelled texts are read. mmopt_corpus_options_init fills in the defaults.
 */
typedef struct mmopt_corpus_options {
    /**
     * sizeof(mmopt_corpus_options).
     */
    size_t struct_size;
    /**
     * An mmopt_format; default MMOPT_FORMAT_AUTO.
     */
    uint32_t format;
    /**
     * An mmopt_header; default MMOPT_HEADER_AUTO.
     */
    uint32_t header;
    /**
     * The column of the text: its name, or its number from "0". NULL (default): the first column,
     * or the keys text or sentence in JSON.
     */
    const char *text_column;
    /**
     * The column of the second text of a pair; NULL (default): there is none.
     */
    const char *pair_column;
    /**
     * The column of the label; NULL (default): the second column, or the key label.
     */
    const char *label_column;
    /**
     * 1: the file has no labels. Default 0.
     */
    uint32_t unlabelled;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * Take the classes of this corpus (the training data's); a label outside of them is an error.
     * NULL (default): the classes are those seen in the file, sorted. Only looked at in the call.
     */
    const struct mmopt_corpus *labels_of;
} mmopt_corpus_options;

/**
 * How a corpus is encoded and walked. mmopt_loader_options_init fills in the defaults.
 */
typedef struct mmopt_loader_options {
    /**
     * sizeof(mmopt_loader_options).
     */
    size_t struct_size;
    /**
     * Rows of a batch, at least 1; default 16.
     */
    size_t batch_size;
    /**
     * Greatest length of a sequence in tokens; 0 (default): each tokenizer's.
     */
    size_t max_length;
    /**
     * 1 (default): a new order in each epoch; 0: the order of the examples.
     */
    uint32_t shuffle;
    /**
     * 1: leave out a last batch that is not full. Default 0.
     */
    uint32_t drop_last;
    /**
     * Decides every order and every hidden token; default 0.
     */
    uint64_t seed;
    /**
     * Batches whose examples are sorted by length together, so that little is padded; 0: none;
     * default 32. Without shuffling nothing is sorted.
     */
    size_t bucket_batches;
    /**
     * Padded lengths are multiples of this, so that few shapes occur; default 8.
     */
    size_t pad_to_multiple;
    /**
     * 1 (default): all models see the same examples at the same step; 0: each walks in an order of
     * its own, and the shortest ends the epoch.
     */
    uint32_t aligned;
    /**
     * Plain text: an mmopt_objective; default MMOPT_OBJECTIVE_CAUSAL.
     */
    uint32_t objective;
    /**
     * Plain text, hidden tokens: their share, above 0 and up to 1; default 0.15.
     */
    double mask_share;
    /**
     * Questions: 1: a long context becomes several overlapping rows (for evaluation); 0 (default):
     * one, with the most room around the answer.
     */
    uint32_t all_windows;
    /**
     * Must be 0.
     */
    uint32_t reserved;
} mmopt_loader_options;

/**
 * How a vocabulary is learned. mmopt_tokenizer_options_init fills in the defaults.
 */
typedef struct mmopt_tokenizer_options {
    /**
     * sizeof(mmopt_tokenizer_options).
     */
    size_t struct_size;
    /**
     * Special tokens and framing, an mmopt_architecture; default MMOPT_ARCHITECTURE_BERT.
     */
    uint32_t architecture;
    /**
     * An mmopt_tokenizer_kind; default MMOPT_TOKENIZER_KIND_USUAL.
     */
    uint32_t kind;
    /**
     * Greatest number of ids, special tokens included; default 8000. Byte-level vocabularies need
     * at least 256 and their special tokens.
     */
    size_t vocab_size;
    /**
     * A pair of pieces is merged only if it occurs this often; default 2.
     */
    uint64_t min_frequency;
    /**
     * 1 (default): lower-case and strip accents first (WordPiece only).
     */
    uint32_t lowercase;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * Greatest length of a sequence in tokens, which is also what is saved; default 512.
     */
    size_t max_length;
} mmopt_tokenizer_options;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Frees a text that a function of this library gave away as `char *`. NULL is harmless.
 */
MMOPT_API void mmopt_text_free(char *text);

/**
 * The code of an error, an mmopt_code. NULL gives MMOPT_CODE_OK.
 */
MMOPT_API uint32_t mmopt_error_code(const struct mmopt_error *error);

/**
 * What happened, where, and what to do about it, in English, UTF-8. Valid until the error is
 * freed. NULL gives an empty text.
 */
MMOPT_API const char *mmopt_error_message(const struct mmopt_error *error);

/**
 * Frees an error. NULL is harmless.
 */
MMOPT_API void mmopt_error_free(struct mmopt_error *error);

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
 * Loads ONNX Runtime, or does nothing if this process has loaded it already.
 *
 * path names the shared library or the directory it lies in. NULL: the file that the environment
 * variable MMOPT_ORT_LIB names, else ORT_DYLIB_PATH, else the usual places (beside libmmopt,
 * .runtime/lib, the system's). ONNX Runtime 1.17 or newer is needed. Creating a trainer loads it
 * too; calling this first tells early whether it is there.
 *
 * Errors: RUNTIME_UNAVAILABLE with everything that was tried and why each failed, after which
 * another call may succeed; STATE when another file is loaded. May be called from any thread.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_runtime_load(const char *path);

/**
 * The version of the loaded ONNX Runtime, for example "1.32.0"; empty before it is loaded.
 * Static, never freed.
 */
MMOPT_API const char *mmopt_runtime_version(void);

/**
 * The file of the loaded ONNX Runtime; empty before it is loaded. Static, never freed.
 */
MMOPT_API const char *mmopt_runtime_path(void);

/**
 * The mmopt_architecture of a published name: "bert", "gpt2", "roberta", "distilbert". 0 for any
 * other text, and for NULL.
 */
MMOPT_API
uint32_t mmopt_architecture_from_name(const char *name);

/**
 * The published name of an mmopt_architecture; empty for any other number. Static, never freed.
 */
MMOPT_API const char *mmopt_architecture_name(uint32_t architecture);

/**
 * The number of models; 0 for NULL.
 */
MMOPT_API size_t mmopt_batch_n_models(const struct mmopt_batch *batch);

/**
 * The number of rows of one model's part; 0 for NULL, and for any other model.
 */
MMOPT_API size_t mmopt_batch_n_rows(const struct mmopt_batch *batch, size_t model);

/**
 * The tensors of one model: input_ids and attention_mask, i64 [rows, length]; token_type_ids where
 * the architecture has them; and where all rows are labelled, labels, i64 [rows] or [rows,
 * length], or start_positions and end_positions, i64 [rows]. -100 is left out of the loss. Both
 * results are valid as long as the batch.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_batch_tensors(const struct mmopt_batch *batch,
                                        size_t model,
                                        const struct mmopt_tensor **tensors,
                                        size_t *n_tensors);

/**
 * Which example of the corpus stands behind each row of one model's part. Both results are valid
 * as long as the batch.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_batch_examples(const struct mmopt_batch *batch,
                                         size_t model,
                                         const size_t **examples,
                                         size_t *n_rows);

/**
 * Frees a batch. NULL is harmless.
 */
MMOPT_API void mmopt_batch_free(struct mmopt_batch *batch);

/**
 * Fills the options with their defaults. NULL is harmless.
 */
MMOPT_API void mmopt_corpus_options_init(struct mmopt_corpus_options *options);

/**
 * Reads texts with one class each: tab-separated, comma-separated or JSON lines. The defaults
 * read lines of the form text TAB label. UTF-8, with or without a byte order mark, LF or CRLF.
 *
 * Errors, with file and line: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for text
 * that is not UTF-8, missing columns, bad JSON, an unknown label, a file without examples.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_read_classification(const char *path,
                                                     const struct mmopt_corpus_options *options,
                                                     struct mmopt_corpus **corpus);

/**
 * A corpus from n texts in memory, copied. labels holds the name of each text's class, or is NULL
 * for texts without labels. labels_of: as in mmopt_corpus_options.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_from_texts(const char *const *texts,
                                            const char *const *labels,
                                            size_t n,
                                            const struct mmopt_corpus *labels_of,
                                            struct mmopt_corpus **corpus);

/**
 * Splits a corpus in two, each in the order of the whole. Texts that are equal apart from white
 * space and case stay on one side; classes keep their share on both. eval_share lies between 0
 * and 1, both excluded; the same seed gives the same split.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_split(const struct mmopt_corpus *corpus,
                                       double eval_share,
                                       uint64_t seed,
                                       struct mmopt_corpus **train,
                                       struct mmopt_corpus **eval);

/**
 * The number of examples; 0 for NULL.
 */
MMOPT_API size_t mmopt_corpus_n_examples(const struct mmopt_corpus *corpus);

/**
 * The number of classes or tags; 0 for NULL, and for tasks without labels.
 */
MMOPT_API size_t mmopt_corpus_n_labels(const struct mmopt_corpus *corpus);

/**
 * The name of a class or tag by its id, valid as long as the corpus; NULL for any other id.
 */
MMOPT_API const char *mmopt_corpus_label_name(const struct mmopt_corpus *corpus, size_t label);

/**
 * How many examples have a class (or words a tag); 0 for an id that there is not.
 */
MMOPT_API size_t mmopt_corpus_label_count(const struct mmopt_corpus *corpus, size_t label);

/**
 * The share of the most frequent class, 0 to 1: the accuracy of always answering it. 0 for NULL,
 * and when nothing is labelled.
 */
MMOPT_API
double mmopt_corpus_majority_share(const struct mmopt_corpus *corpus);

/**
 * The text of one example (words joined by spaces; the context of a question). The caller owns
 * it: mmopt_text_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_text(const struct mmopt_corpus *corpus,
                                      size_t example,
                                      char **text);

/**
 * The class of one example of a classification corpus; -1 when it has none.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_label(const struct mmopt_corpus *corpus,
                                       size_t example,
                                       int64_t *label);

/**
 * Frees a corpus. NULL is harmless.
 */
MMOPT_API void mmopt_corpus_free(struct mmopt_corpus *corpus);

/**
 * Fills the options with their defaults. NULL is harmless.
 */
MMOPT_API void mmopt_loader_options_init(struct mmopt_loader_options *options);

/**
 * Encodes a corpus with the tokenizer of each of n_models models (the same one may appear twice)
 * and makes a loader that stands at the start of epoch 0.
 *
 * Errors: INVALID_ARGUMENT for no tokenizer, an empty corpus, a batch_size of 0, a max_length
 * without room beside the special tokens, or not one full batch with drop_last.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_create(const struct mmopt_corpus *corpus,
                                        const struct mmopt_tokenizer *const *tokenizers,
                                        size_t n_models,
                                        const struct mmopt_loader_options *options,
                                        struct mmopt_loader **loader);

/**
 * The next batch, with a part for each model; the caller owns it: mmopt_batch_free. At the end of
 * an epoch the result is NULL without an error, and the next call begins the following epoch.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_next(struct mmopt_loader *loader,
                                      struct mmopt_batch **batch);

/**
 * The batches of an epoch; 0 for NULL.
 */
MMOPT_API size_t mmopt_loader_n_batches(const struct mmopt_loader *loader);

/**
 * Epochs done; 0 for NULL.
 */
MMOPT_API uint64_t mmopt_loader_epoch(const struct mmopt_loader *loader);

/**
 * Batches of the current epoch done; 0 for NULL.
 */
MMOPT_API size_t mmopt_loader_position(const struct mmopt_loader *loader);

/**
 * Goes to the start of an epoch; 0 is the first.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_set_epoch(struct mmopt_loader *loader,
                                           uint64_t epoch);

/**
 * Where the loader stands, as JSON; the caller owns it: mmopt_text_free. With the same corpus,
 * tokenizers and options, mmopt_loader_restore continues from there, bit by bit.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_state(const struct mmopt_loader *loader,
                                       char **json);

/**
 * Goes to where mmopt_loader_state was asked.
 *
 * Errors: INVALID_DATA when the text is no such state, or was taken with other data, options or
 * seed; the loader is unchanged then.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_restore(struct mmopt_loader *loader,
                                         const char *json);

/**
 * Frees a loader. NULL is harmless.
 */
MMOPT_API void mmopt_loader_free(struct mmopt_loader *loader);

/**
 * One batch without labels from n texts, with a part for each of n_models models, for predictions.
 * max_length: greatest length in tokens, 0 for each tokenizer's. The caller owns the batch.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_batch_encode(const struct mmopt_tokenizer *const *tokenizers,
                                       size_t n_models,
                                       const char *const *texts,
                                       size_t n,
                                       size_t max_length,
                                       struct mmopt_batch **batch);

/**
 * Fills the options with their defaults. NULL is harmless.
 */
MMOPT_API void mmopt_tokenizer_options_init(struct mmopt_tokenizer_options *options);

/**
 * Loads a tokenizer from a directory or file: tokenizer.json, or vocab.txt (WordPiece), or
 * vocab.json with merges.txt (byte-level BPE), with tokenizer_config.json where there is one.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_load(const char *path,
                                         struct mmopt_tokenizer **tokenizer);

/**
 * Learns a vocabulary from all texts of a corpus. The result depends on texts and options alone.
 *
 * Errors: INVALID_ARGUMENT when vocab_size is too small for special tokens and alphabet; the
 * message names the least size.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_train(const struct mmopt_corpus *corpus,
                                          const struct mmopt_tokenizer_options *options,
                                          struct mmopt_tokenizer **tokenizer);

/**
 * Writes tokenizer.json and tokenizer_config.json into an existing directory, in the form that
 * the usual libraries load.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_save(const struct mmopt_tokenizer *tokenizer,
                                         const char *directory);

/**
 * The number of ids, special tokens included: the rows that an embedding needs. 0 for NULL.
 */
MMOPT_API size_t mmopt_tokenizer_vocab_size(const struct mmopt_tokenizer *tokenizer);

/**
 * The greatest length of a sequence in tokens, as the files or options said. 0 for NULL.
 */
MMOPT_API size_t mmopt_tokenizer_max_length(const struct mmopt_tokenizer *tokenizer);

/**
 * The id of a special token, by its role (an mmopt_special); -1 when the vocabulary has none, for
 * any other number, and for NULL.
 */
MMOPT_API
int64_t mmopt_tokenizer_special_id(const struct mmopt_tokenizer *tokenizer,
                                   uint32_t special);

/**
 * The text of n ids; the caller owns it: mmopt_text_free. skip_special 1 leaves out special
 * tokens.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_decode(const struct mmopt_tokenizer *tokenizer,
                                           const uint32_t *ids,
                                           size_t n,
                                           uint32_t skip_special,
                                           char **text);

/**
 * Frees a tokenizer. NULL is harmless.
 */
MMOPT_API void mmopt_tokenizer_free(struct mmopt_tokenizer *tokenizer);

/**
 * Encodes a text, or a pair of texts when pair is not NULL, with the special tokens of the
 * architecture, in at most max_length tokens (0: the tokenizer's); the longer text is cut.
 * Never empty: an empty text without framing becomes one end token.
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
 */
MMOPT_API size_t mmopt_encoding_length(const struct mmopt_encoding *encoding);

/**
 * The ids, as many as tokens; valid as long as the encoding. NULL for NULL.
 */
MMOPT_API const uint32_t *mmopt_encoding_ids(const struct mmopt_encoding *encoding);

/**
 * The token types, 0 for the first text and 1 for the second of a pair, as many as tokens; valid
 * as long as the encoding. NULL for NULL.
 */
MMOPT_API
const uint32_t *mmopt_encoding_type_ids(const struct mmopt_encoding *encoding);

/**
 * Where each token stands in its text, in bytes: start and end one after the other, twice as many
 * as tokens; 0 and 0 for added special tokens. Valid as long as the encoding. NULL for NULL.
 */
MMOPT_API
const size_t *mmopt_encoding_offsets(const struct mmopt_encoding *encoding);

/**
 * The number of tokens that were cut off; 0 for NULL.
 */
MMOPT_API size_t mmopt_encoding_n_truncated(const struct mmopt_encoding *encoding);

/**
 * Frees an encoding. NULL is harmless.
 */
MMOPT_API void mmopt_encoding_free(struct mmopt_encoding *encoding);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MMOPT_H */
