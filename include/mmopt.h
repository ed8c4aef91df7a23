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
 * need: they may be freed in any order. Texts given as char * are freed with mmopt_string_free;
 * texts and arrays given as pointers to const belong to the object, as long as the function says.
 *
 * Threads. Calls that take an object as a pointer to const may run at the same time; a call that
 * takes it without const needs it alone. Objects may move between threads. Where the rule is
 * broken while a call runs, the second call fails with MMOPT_CODE_STATE as far as it can be seen.
 * Functions that take no object may be called from any thread. Two calls that write to the same
 * file or directory must not run at the same time.
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

/** The version of this header, first part; mmopt_version() tells that of the loaded library. */
#define MMOPT_VERSION_MAJOR 0
/** The second part. */
#define MMOPT_VERSION_MINOR 1
/** The third part. */
#define MMOPT_VERSION_PATCH 0
/** All three as text. */
#define MMOPT_VERSION "0.1.0"
/** All three as one number, to be compared with mmopt_version_number(). */
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
     * RoBERTa: byte-level BPE, `<s> a </s></s> b </s>`.
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
 * How learning rates follow the models' losses.
 */
enum mmopt_adaptive_lr
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Not at all.
     */
    MMOPT_ADAPTIVE_LR_NONE = 0,
    /**
     * The published rule; it can only raise a rate.
     */
    MMOPT_ADAPTIVE_LR_PUBLISHED = 1,
    /**
     * The project's rule.
     */
    MMOPT_ADAPTIVE_LR_RELATIVE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_adaptive_lr mmopt_adaptive_lr;
#else
typedef uint32_t mmopt_adaptive_lr;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Where models compute.
 */
enum mmopt_device
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The processor.
     */
    MMOPT_DEVICE_CPU = 0,
    /**
     * An NVIDIA GPU, with an ONNX Runtime that has the CUDA provider.
     */
    MMOPT_DEVICE_CUDA = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_device mmopt_device;
#else
typedef uint32_t mmopt_device;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How plain text is cut into documents.
 */
enum mmopt_documents
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Lines up to a blank line.
     */
    MMOPT_DOCUMENTS_PARAGRAPHS = 0,
    /**
     * Each line that is not blank.
     */
    MMOPT_DOCUMENTS_LINES = 1,
    /**
     * The whole file.
     */
    MMOPT_DOCUMENTS_FILE = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_documents mmopt_documents;
#else
typedef uint32_t mmopt_documents;
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
 * What a gradient callback has decided about one parameter.
 */
enum mmopt_gradient_action
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The step uses the gradient as it is now.
     */
    MMOPT_GRADIENT_ACTION_USE = 0,
    /**
     * The host has handled this parameter: the step leaves its value and moments alone, and its
     * gradient counts neither for clipping nor for sharing.
     */
    MMOPT_GRADIENT_ACTION_HANDLED = 1,
    /**
     * The step fails with MMOPT_CODE_CANCELLED.
     */
    MMOPT_GRADIENT_ACTION_STOP = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_gradient_action mmopt_gradient_action;
#else
typedef uint32_t mmopt_gradient_action;
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
 * How much a message of the log matters. A level includes those of lower numbers.
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
     * Something failed: the message of the error that the call returns.
     */
    MMOPT_LOG_LEVEL_ERROR = 1,
    /**
     * Something is probably not as intended: parameters that were merged in the file and are
     * trained as one, quantised weights, a model that shares nothing, a model that a step
     * skipped, a synchronisation that was taken back.
     */
    MMOPT_LOG_LEVEL_WARNING = 2,
    /**
     * What the library decided and did: what was mended in each model, threads, a summary of the
     * sharing plan, files and checkpoints written and read.
     */
    MMOPT_LOG_LEVEL_INFO = 3,
    /**
     * Details for finding faults: the sharing plan line by line, each session that is opened,
     * each step's rates and gradient norms.
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
 * Losses that the library attaches to a graph.
 */
enum mmopt_loss
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Cross-entropy of logits [batch, classes] and labels, i64 [batch].
     */
    MMOPT_LOSS_SEQUENCE_CLASSIFICATION = 1,
    /**
     * Cross-entropy of logits [batch, length, classes] and labels, i64 [batch, length].
     */
    MMOPT_LOSS_TOKEN_CLASSIFICATION = 2,
    /**
     * Mean of two cross-entropies over the length: start_logits and end_logits [batch, length],
     * start_positions and end_positions, i64 [batch].
     */
    MMOPT_LOSS_QUESTION_ANSWERING = 3,
    /**
     * As token classification, over the vocabulary.
     */
    MMOPT_LOSS_MASKED_LM = 4,
    /**
     * Next-token cross-entropy: labels, i64 [batch, length], usually the input ids, are shifted.
     */
    MMOPT_LOSS_CAUSAL_LM = 5,
    /**
     * Mean squared difference of the output and labels of its shape.
     */
    MMOPT_LOSS_MEAN_SQUARED_ERROR = 6,
    /**
     * The model has its loss as an output, a float with one element.
     */
    MMOPT_LOSS_OUTPUT = 7,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_loss mmopt_loss;
#else
typedef uint32_t mmopt_loss;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What is done with a tensor that an exporter put in place of several equal parameters: fresh
 * gains are all 1, fresh biases all 0.
 */
enum mmopt_shared_initializers
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * It is reported and trained as one parameter; whether the model keeps them apart cannot be
     * told from the file.
     */
    MMOPT_SHARED_INITIALIZERS_REPORT = 0,
    /**
     * Each use gets a copy of its own.
     */
    MMOPT_SHARED_INITIALIZERS_SPLIT = 1,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_shared_initializers mmopt_shared_initializers;
#else
typedef uint32_t mmopt_shared_initializers;
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
 * What is about to happen when the progress callback is asked.
 */
enum mmopt_phase
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * A forward and backward pass.
     */
    MMOPT_PHASE_FORWARD_BACKWARD = 1,
    /**
     * A step of the optimizer.
     */
    MMOPT_PHASE_STEP = 2,
    /**
     * An evaluation.
     */
    MMOPT_PHASE_EVALUATE = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_phase mmopt_phase;
#else
typedef uint32_t mmopt_phase;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which parameters belong together.
 */
enum mmopt_share_policy
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * None.
     */
    MMOPT_SHARE_POLICY_NONE = 0,
    /**
     * Those of equal class (from the name) and shape, as published.
     */
    MMOPT_SHARE_POLICY_PAPER = 1,
    /**
     * Those of equal role and view shape, blocks matched by relative depth.
     */
    MMOPT_SHARE_POLICY_ALIGNED = 2,
    /**
     * Groups named in optimizer_json.
     */
    MMOPT_SHARE_POLICY_CUSTOM = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_share_policy mmopt_share_policy;
#else
typedef uint32_t mmopt_share_policy;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Sets of options to start from.
 */
enum mmopt_preset
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The project's own: models share gradients along roles, rates follow the losses.
     */
    MMOPT_PRESET_DEFAULT = 0,
    /**
     * The published implementation, reproduced to rounding.
     */
    MMOPT_PRESET_PAPER = 1,
    /**
     * Every model by itself: nothing is shared, and rates follow the schedule alone.
     */
    MMOPT_PRESET_INDEPENDENT = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_preset mmopt_preset;
#else
typedef uint32_t mmopt_preset;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * How the gradients of a group mix.
 */
enum mmopt_share_rule
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * They do not.
     */
    MMOPT_SHARE_RULE_NONE = 0,
    /**
     * Each moves towards the group's weighted mean.
     */
    MMOPT_SHARE_RULE_MEAN = 1,
    /**
     * Each moves towards the group's weighted sum, as published.
     */
    MMOPT_SHARE_RULE_SUM = 2,
    /**
     * As the mean, each peer as far as its direction agrees.
     */
    MMOPT_SHARE_RULE_GATED = 3,
    /**
     * Conflicting components are projected out, then the mean.
     */
    MMOPT_SHARE_RULE_PROJECT = 4,
    /**
     * An influence matrix in optimizer_json.
     */
    MMOPT_SHARE_RULE_INFLUENCE = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_share_rule mmopt_share_rule;
#else
typedef uint32_t mmopt_share_rule;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What follows the linear warm-up.
 */
enum mmopt_schedule
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The base rate.
     */
    MMOPT_SCHEDULE_CONSTANT = 0,
    /**
     * A straight line to the floor at total_steps.
     */
    MMOPT_SCHEDULE_LINEAR = 1,
    /**
     * Half a cosine to the floor at total_steps.
     */
    MMOPT_SCHEDULE_COSINE = 2,
    /**
     * One named in optimizer_json.
     */
    MMOPT_SCHEDULE_CUSTOM = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_schedule mmopt_schedule;
#else
typedef uint32_t mmopt_schedule;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The role of a special token.
 */
enum mmopt_special_token
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Fills short sequences.
     */
    MMOPT_SPECIAL_TOKEN_PAD = 0,
    /**
     * Stands for unknown words.
     */
    MMOPT_SPECIAL_TOKEN_UNK = 1,
    /**
     * First token of a sequence.
     */
    MMOPT_SPECIAL_TOKEN_CLS = 2,
    /**
     * Separates sequences.
     */
    MMOPT_SPECIAL_TOKEN_SEP = 3,
    /**
     * Hides a token.
     */
    MMOPT_SPECIAL_TOKEN_MASK = 4,
    /**
     * Begins a text.
     */
    MMOPT_SPECIAL_TOKEN_BOS = 5,
    /**
     * Ends a text.
     */
    MMOPT_SPECIAL_TOKEN_EOS = 6,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_special_token mmopt_special_token;
#else
typedef uint32_t mmopt_special_token;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a model is trained for; decides its head and its outputs.
 */
enum mmopt_task
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * One class per sequence.
     */
    MMOPT_TASK_SEQUENCE_CLASSIFICATION = 1,
    /**
     * One class per token.
     */
    MMOPT_TASK_TOKEN_CLASSIFICATION = 2,
    /**
     * Where an answer starts and ends.
     */
    MMOPT_TASK_QUESTION_ANSWERING = 3,
    /**
     * The tokens behind hidden ones.
     */
    MMOPT_TASK_MASKED_LM = 4,
    /**
     * The next token.
     */
    MMOPT_TASK_CAUSAL_LM = 5,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_task mmopt_task;
#else
typedef uint32_t mmopt_task;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What is done with two equal matrices, possibly transposed.
 */
enum mmopt_duplicate_weights
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * They are reported and trained apart.
     */
    MMOPT_DUPLICATE_WEIGHTS_REPORT = 0,
    /**
     * They become one parameter where rows of one of them are looked up: a shared embedding that
     * the exporter wrote twice.
     */
    MMOPT_DUPLICATE_WEIGHTS_EMBEDDINGS = 1,
    /**
     * All become one parameter.
     */
    MMOPT_DUPLICATE_WEIGHTS_ALL = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum mmopt_duplicate_weights mmopt_duplicate_weights;
#else
typedef uint32_t mmopt_duplicate_weights;
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
     * SharedInitializer bytes; nothing is unknown.
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
 * Ends a running pass from another thread. It keeps working after the trainer is freed, and then
 * does nothing.
 */
typedef struct mmopt_cancel_token mmopt_cancel_token;

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
 * What an evaluation gave: loss, score and output tensors. It never changes.
 */
typedef struct mmopt_evaluation mmopt_evaluation;

/**
 * Walks a corpus in seeded order and yields batches, one part for each model. It keeps what it
 * needs of corpus and tokenizers.
 */
typedef struct mmopt_loader mmopt_loader;

/**
 * What a trainer needs to know of one model. Nothing is read before the trainer is created.
 */
typedef struct mmopt_model mmopt_model;

/**
 * Updates the parameters of several models together, in the host's memory.
 */
typedef struct mmopt_optimizer mmopt_optimizer;

/**
 * Turns text into ids and back. It never changes.
 */
typedef struct mmopt_tokenizer mmopt_tokenizer;

/**
 * Several models and the optimizer that trains them together.
 */
typedef struct mmopt_trainer mmopt_trainer;

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
    double mlm_probability;
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
 * A loss. mmopt_loss_options_init fills in the defaults.
 */
typedef struct mmopt_loss_options {
    /**
     * sizeof(mmopt_loss_options).
     */
    size_t struct_size;
    /**
     * An mmopt_loss; default MMOPT_LOSS_SEQUENCE_CLASSIFICATION.
     */
    uint32_t kind;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * Share of a label's weight that is spread over all classes, at least 0, below 1; default 0.
     */
    double label_smoothing;
    /**
     * Rows of this label count nothing; default -100.
     */
    int64_t ignore_index;
    /**
     * A weight of at least 0 for each class; NULL (default): all 1. Copied.
     */
    const float *class_weights;
    /**
     * How many class weights.
     */
    size_t n_class_weights;
    /**
     * The output that the loss looks at (two names with a comma between for questions; the loss
     * itself for MMOPT_LOSS_OUTPUT). NULL (default): logits, or start_logits and end_logits, or
     * the only float output.
     */
    const char *output;
} mmopt_loss_options;

/**
 * The sizes of a fresh model. mmopt_model_config_init fills in those of a small one.
 */
typedef struct mmopt_model_config {
    /**
     * sizeof(mmopt_model_config).
     */
    size_t struct_size;
    /**
     * An mmopt_architecture; default MMOPT_ARCHITECTURE_BERT.
     */
    uint32_t architecture;
    /**
     * An mmopt_task; default MMOPT_TASK_SEQUENCE_CLASSIFICATION.
     */
    uint32_t task;
    /**
     * Number of classes or tags, for classification; default 2.
     */
    size_t n_labels;
    /**
     * Ids of the vocabulary; default 8000.
     */
    size_t vocab_size;
    /**
     * Transformer blocks; default 2.
     */
    size_t layers;
    /**
     * Width, a multiple of heads; default 128.
     */
    size_t hidden;
    /**
     * Attention heads; default 4.
     */
    size_t heads;
    /**
     * Width inside the feed-forward blocks; 0 (default): 4 times hidden.
     */
    size_t intermediate;
    /**
     * Longest sequence in tokens; default 128.
     */
    size_t positions;
    /**
     * Every dropout probability, at least 0, below 1; default 0.1.
     */
    double dropout;
    /**
     * The padding token's id; -1 (default): the architecture's.
     */
    int64_t pad_id;
} mmopt_model_config;

/**
 * A parameter and the output of the graph that holds its gradient.
 */
typedef struct mmopt_gradient_output {
    /**
     * An initializer of the graph, or a float input without free dimensions.
     */
    const char *parameter;
    /**
     * An output of the same shape and element type.
     */
    const char *output;
} mmopt_gradient_output;

/**
 * The outputs of a graph that computes its own gradients. mmopt_precomputed_gradient_options_init fills in
 * the defaults. All is copied.
 */
typedef struct mmopt_precomputed_gradient_options {
    /**
     * sizeof(mmopt_precomputed_gradient_options).
     */
    size_t struct_size;
    /**
     * The output that holds the loss, a float with one element. Must be given.
     */
    const char *loss;
    /**
     * The parameters to train with their gradients, at least one. Other tensors of the graph stay
     * as they are.
     */
    const struct mmopt_gradient_output *gradients;
    /**
     * How many.
     */
    size_t n_gradients;
    /**
     * Outputs that mmopt_trainer_evaluate gives; inputs that they do not depend on are labels,
     * which evaluation can do without. NULL (default): none.
     */
    const char *const *logits;
    /**
     * How many.
     */
    size_t n_logits;
    /**
     * A safetensors file with the values of parameters that are inputs of the graph, under their
     * names; NULL (default): all are initializers.
     */
    const char *weights;
} mmopt_precomputed_gradient_options;

/**
 * How models are trained together. mmopt_trainer_options_init fills in a preset.
 */
typedef struct mmopt_trainer_options {
    /**
     * sizeof(mmopt_trainer_options).
     */
    size_t struct_size;
    /**
     * The preset that decides what is not a field here, an mmopt_preset; use
     * mmopt_trainer_options_init to change it, so that the fields follow.
     */
    uint32_t preset;
    /**
     * An mmopt_share_policy; default MMOPT_SHARE_POLICY_ALIGNED.
     */
    uint32_t policy;
    /**
     * An mmopt_share_rule; default MMOPT_SHARE_RULE_GATED.
     */
    uint32_t rule;
    /**
     * An mmopt_adaptive_lr; default MMOPT_ADAPTIVE_LR_RELATIVE.
     */
    uint32_t convergence;
    /**
     * Base learning rate, at least 0; default 3e-5.
     */
    double learning_rate;
    /**
     * Decay of the first moment, in [0, 1); default 0.9.
     */
    double beta1;
    /**
     * Decay of the second moment, in [0, 1); default 0.999.
     */
    double beta2;
    /**
     * Added to the denominator, at least 0; default 1e-8.
     */
    double eps;
    /**
     * Decoupled weight decay, at least 0; default 0.01.
     */
    double weight_decay;
    /**
     * Greatest L2 norm of a model's gradient; 0 does not clip; default 1.
     */
    double max_grad_norm;
    /**
     * Share of the group's gradient in [0, 1]; default 0.2.
     */
    double share_alpha;
    /**
     * Steps between sharing; 0 never; default 1.
     */
    uint64_t share_every;
    /**
     * Pull towards the group's mean in [0, 1]; default 0.1.
     */
    double sync_beta;
    /**
     * Steps between synchronisations; 0 never; default 0.
     */
    uint64_t sync_every;
    /**
     * Steps of linear warm-up; default 0.
     */
    uint64_t warmup_steps;
    /**
     * Step at which the schedule reaches its floor; default 0.
     */
    uint64_t total_steps;
    /**
     * Last factor of the schedule in [0, 1]; default 0.
     */
    double schedule_floor;
    /**
     * An mmopt_schedule; default MMOPT_SCHEDULE_CONSTANT.
     */
    uint32_t schedule;
    /**
     * Micro-batches per step, at least 1; default 1. Their gradients are averaged.
     */
    uint32_t accumulation;
    /**
     * 1 (default): a model with a non-finite loss or gradient skips the step, the others go on;
     * 0: the step fails before anything changes.
     */
    uint32_t skip_non_finite;
    /**
     * An mmopt_device; default MMOPT_DEVICE_CPU.
     */
    uint32_t device;
    /**
     * The number of the GPU; default 0.
     */
    int32_t device_id;
    /**
     * 1: a GPU multiplies matrices of f32 in TF32, with 10 of 23 bits of the mantissa: faster, and
     * gradients that differ by about 1e-3, relative; 0 (default): in f32. The CPU always does.
     */
    uint32_t tf32;
    /**
     * Threads in all; 0 (default) takes every core. Results do not depend on it.
     */
    size_t n_threads;
    /**
     * Shapes that each model keeps a session for; 0 (default): 16.
     */
    size_t max_sessions;
    /**
     * ONNX Runtime's library; NULL (default) searches as mmopt_runtime_load says.
     */
    const char *runtime_path;
    /**
     * A JSON object with further options of the optimizer, over the fields above; NULL (default):
     * none. docs/optimizer.md lists them; an unknown one is an error.
     */
    const char *optimizer_json;
} mmopt_trainer_options;

/**
 * What one forward and backward pass of one model gave.
 */
typedef struct mmopt_train_result {
    /**
     * The loss of the batch.
     */
    double loss;
    /**
     * Right predictions; 0 for regression.
     */
    uint64_t n_correct;
    /**
     * Labels that count; 0 for regression.
     */
    uint64_t n_labels;
} mmopt_train_result;

/**
 * What a step did.
 */
typedef struct mmopt_step_report {
    /**
     * The step's number, from 1.
     */
    uint64_t step;
    /**
     * Models that were updated.
     */
    uint32_t n_updated;
    /**
     * Models that were skipped for a non-finite loss or gradient.
     */
    uint32_t n_skipped;
    /**
     * 1 when gradients were shared.
     */
    uint32_t shared;
    /**
     * 1 when parameters were synchronised.
     */
    uint32_t synced;
    /**
     * 0; for later versions.
     */
    uint64_t reserved[4];
} mmopt_step_report;

/**
 * A model's learning rate, the factors it is made of, and other numbers of its last step.
 */
typedef struct mmopt_rates {
    /**
     * The base rate.
     */
    double base;
    /**
     * Warm-up and decay.
     */
    double schedule;
    /**
     * From the model's losses.
     */
    double convergence;
    /**
     * From the model's weight.
     */
    double scale;
    /**
     * The published second multiplier; 1 elsewhere.
     */
    double multiplier;
    /**
     * The product, or what the rate callback made of it.
     */
    double effective;
    /**
     * L2 norm of the gradient before clipping; 0 where nothing needed it.
     */
    double gradient_norm;
    /**
     * The model's weight over the sum of all.
     */
    double share;
    /**
     * Steps that skipped this model.
     */
    uint64_t n_skipped;
    /**
     * 0; for later versions.
     */
    uint64_t reserved[3];
} mmopt_rates;

/**
 * Gives the learning rate that a model is to use: step counts from 1, rate is what the schedule
 * and the losses say. A result that is negative or not finite fails the step.
 */
typedef double (*mmopt_rate_fn)(void *user, const char *model, uint64_t step, double rate);

/**
 * Receives one message: the level (an mmopt_log_level) and a UTF-8 text without a line end, valid
 * during the call. It runs on the thread of the call that logs, and must not call into the object
 * that it is set on. Calls that take that object as const may log from several threads at once.
 */
typedef void (*mmopt_log_fn)(void *user, uint32_t level, const char *message);

/**
 * Where training stands when the progress callback is asked.
 */
typedef struct mmopt_progress {
    /**
     * What is about to happen, an mmopt_phase.
     */
    uint32_t phase;
    /**
     * Must be ignored.
     */
    uint32_t reserved;
    /**
     * The model that it concerns; SIZE_MAX for all.
     */
    size_t model;
    /**
     * Steps taken since the trainer was created or resumed.
     */
    uint64_t n_steps;
} mmopt_progress;

/**
 * Asked before each pass and step, on the thread of that call; progress is valid during the
 * call. Any result but 0 cancels: the call that asked fails with MMOPT_CODE_CANCELLED and has
 * changed nothing. It must not call into the object that it is set on.
 */
typedef uint32_t (*mmopt_progress_fn)(void *user, const struct mmopt_progress *progress);

/**
 * One parameter of a step that is about to be taken. All pointers are valid during the callback.
 */
typedef struct mmopt_gradient {
    /**
     * The model's number.
     */
    size_t model;
    /**
     * The parameter's number within its model.
     */
    size_t parameter;
    /**
     * The model's name.
     */
    const char *model_name;
    /**
     * The parameter's name.
     */
    const char *name;
    /**
     * The dimensions, outermost first.
     */
    const int64_t *shape;
    /**
     * How many dimensions.
     */
    size_t n_dims;
    /**
     * The product of the dimensions.
     */
    size_t n_elements;
    /**
     * The values, dense and row-major; the host may write them.
     */
    float *value;
    /**
     * The gradient of the values, which the host may write; the sum over the micro-batches.
     */
    float *gradient;
    /**
     * The step uses scale times the gradient: 1 over the number of micro-batches when it averages
     * over them, else 1.
     */
    double scale;
    /**
     * The step's number, from 1.
     */
    uint64_t step;
    /**
     * 0; for later versions.
     */
    uint64_t reserved[4];
} mmopt_gradient;

/**
 * Called within a step for each parameter that has a gradient, after micro-batches were added up
 * and before anything looks at the gradients: model by model, parameter by parameter, on the
 * thread of mmopt_trainer_step or mmopt_optimizer_step. It returns an mmopt_gradient_action; any
 * other number fails the step with MMOPT_CODE_INVALID_ARGUMENT. It must not call into the object
 * that it is set on.
 *
 * It is not called for frozen parameters, for models without a pass since the last step, and for
 * models that will be skipped as their loss is not finite. Gradients that are not finite it may
 * mend. Where the step fails, at its word or later, the library has changed nothing, but what the
 * callback has written stays; the step can be taken again, and asks again.
 */
typedef uint32_t (*mmopt_gradient_fn)(void *user, const struct mmopt_gradient *gradient);

/**
 * How a parameter lies in memory, where that is not dense, row-major f32. Strides are in elements,
 * one for each dimension; they may be negative, but no two elements may share memory.
 *
 * For values that are bf16 or f16 the optimizer keeps f32 masters, 4 bytes an element: the update
 * is that of f32, and after each step the host's memory holds the masters rounded to the nearest,
 * ties to even. An element that the host has changed since replaces its master. Values that are
 * f32 with strides cost as much for a copy, strided gradients a copy of their own type.
 */
typedef struct mmopt_parameter_layout {
    /**
     * sizeof(mmopt_parameter_layout); mmopt_parameter_layout_init sets it.
     */
    size_t struct_size;
    /**
     * Element type of the values: MMOPT_DTYPE_F32 (the default), MMOPT_DTYPE_BF16 or
     * MMOPT_DTYPE_F16; any other only for frozen parameters.
     */
    uint32_t dtype;
    /**
     * Must be 0.
     */
    uint32_t reserved;
    /**
     * n_dims strides of the values; NULL (the default): dense and row-major.
     */
    const int64_t *strides;
    /**
     * n_dims strides of the gradient; NULL (the default): dense and row-major.
     */
    const int64_t *gradient_strides;
} mmopt_parameter_layout;

/**
 * One parameter of the host, in host memory.
 */
typedef struct mmopt_parameter {
    /**
     * Unique within its model; the published name where there is one, as it decides the role.
     */
    const char *name;
    /**
     * The dimensions, outermost first; NULL is allowed when n_dims is 0.
     */
    const int64_t *shape;
    /**
     * How many dimensions.
     */
    size_t n_dims;
    /**
     * The values, aligned to their size; updated in place. f32, unless layout says otherwise; with
     * strides this is the element whose indices are all 0.
     */
    void *data;
    /**
     * The gradient, of the same shape; NULL when there is none.
     */
    void *gradient;
    /**
     * Element type of the gradient: MMOPT_DTYPE_F32, MMOPT_DTYPE_BF16 or MMOPT_DTYPE_F16.
     */
    uint32_t gradient_dtype;
    /**
     * 1: the optimizer changes it; 0: frozen.
     */
    uint32_t trainable;
    /**
     * NULL: role from the name. Else a JSON object that overrides it: role (for example
     * "attention_query", or null to keep it out of every group), part ("weight" or "bias"), block,
     * layout ("out_in" or "in_out").
     */
    const char *role_json;
    /**
     * NULL: values are f32, and both values and gradient dense and row-major.
     */
    const struct mmopt_parameter_layout *layout;
    /**
     * Must be 0.
     */
    uint64_t reserved[1];
} mmopt_parameter;

/**
 * One model of the host.
 */
typedef struct mmopt_parameters {
    /**
     * Unique among the models.
     */
    const char *name;
    /**
     * Its parameters.
     */
    const struct mmopt_parameter *parameters;
    /**
     * How many.
     */
    size_t n_parameters;
    /**
     * Weight among the models, finite and at least 0; only ratios matter.
     */
    double weight;
    /**
     * The published model_type, for reports; NULL: not known.
     */
    const char *architecture;
    /**
     * Token tables share only between models of the same vocabulary; NULL: with none.
     */
    const char *vocabulary;
    /**
     * Heads share only between models of the same task; NULL: with none.
     */
    const char *task;
    /**
     * Must be 0.
     */
    uint64_t reserved[2];
} mmopt_parameters;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The code of an error, an mmopt_code. NULL gives MMOPT_CODE_OK.
 *
 * @param[in] error only read: threads may share it.
 */
MMOPT_API uint32_t mmopt_error_code(const struct mmopt_error *error);

/**
 * What happened, where, and what to do about it, in English, UTF-8. Valid until the error is
 * freed. NULL gives an empty text.
 *
 * @param[in] error only read: threads may share it.
 */
MMOPT_API const char *mmopt_error_message(const struct mmopt_error *error);

/**
 * Frees an error. NULL is harmless.
 *
 * @param error may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_error_free(struct mmopt_error *error);

/**
 * Frees a text that a function of this library gave away as `char *`. NULL is harmless.
 *
 * @param[out] text may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_string_free(char *text);

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

/**
 * The file of the loaded ONNX Runtime; empty before it is loaded. Static, never freed.
 */
MMOPT_API const char *mmopt_runtime_path(void);

/**
 * The mmopt_architecture of a published name: "bert", "gpt2", "roberta", "distilbert". 0 for any
 * other text, and for NULL.
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

/**
 * Fills the options with their defaults. NULL is harmless.
 *
 * @param[out] options becomes the defaults; may be NULL.
 */
MMOPT_API void mmopt_corpus_options_init(struct mmopt_corpus_options *options);

/**
 * Reads texts with one class each: tab-separated, comma-separated or JSON lines. The defaults
 * read lines of the form text TAB label. UTF-8, with or without a byte order mark, LF or CRLF.
 *
 * Errors, with file and line: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for text
 * that is not UTF-8, missing columns, bad JSON, an unknown label, a file without examples.
 *
 * @param[in] path the file, UTF-8.
 * @param[in] options NULL: the defaults.
 * @param[out] corpus becomes the new object, the caller's: mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_read_classification(const char *path,
                                                     const struct mmopt_corpus_options *options,
                                                     struct mmopt_corpus **corpus);

/**
 * Reads tagged words: a word first and its tag last in each line, blank lines between sentences.
 * labels_of: as in mmopt_corpus_options; NULL takes the tags of the file.
 *
 * Errors carry file and line: a line without a tag, an unknown tag, a file without words.
 *
 * @param[in] path the file, UTF-8.
 * @param[in] labels_of whose classes to take; may be NULL; only looked at in the call.
 * @param[out] corpus becomes the new object, the caller's: mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_read_token_classification(const char *path,
                                                           const struct mmopt_corpus *labels_of,
                                                           struct mmopt_corpus **corpus);

/**
 * Reads questions about contexts: one object of the SQuAD form, or an object on each line with
 * context, question and answers.
 *
 * Errors carry the place: a missing key, an answer that does not stand where it should.
 *
 * @param[in] path the file, UTF-8.
 * @param[out] corpus becomes the new object, the caller's: mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_read_question_answering(const char *path,
                                                         struct mmopt_corpus **corpus);

/**
 * Reads plain text for language modelling; documents is an mmopt_documents.
 *
 * Errors: NOT_FOUND or IO when the file cannot be read; INVALID_DATA for text that is not
 * UTF-8, or none; INVALID_ARGUMENT for another number of documents.
 *
 * @param[in] path the file, UTF-8.
 * @param documents an mmopt_documents.
 * @param[out] corpus becomes the new object, the caller's: mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_read_plain_text(const char *path,
                                                 uint32_t documents,
                                                 struct mmopt_corpus **corpus);

/**
 * n generated sentences of two classes, for trying things out without data; the same seed gives
 * the same sentences. n: 1 to 10,000,000; label_noise: the share of wrong labels, at least 0,
 * below 0.5.
 *
 * Errors: INVALID_ARGUMENT for n or label_noise out of range.
 *
 * @param n sentences, 1 to 10,000,000.
 * @param seed any number.
 * @param label_noise at least 0, below 0.5.
 * @param[out] corpus becomes the new object, the caller's: mmopt_corpus_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_synthetic(size_t n,
                                           uint64_t seed,
                                           double label_noise,
                                           struct mmopt_corpus **corpus);

/**
 * A corpus from n texts in memory, copied. labels holds the name of each text's class, or is NULL
 * for texts without labels. labels_of: as in mmopt_corpus_options.
 *
 * Errors: INVALID_ARGUMENT for no texts, one that is NULL or not UTF-8; INVALID_DATA for a
 * label that labels_of does not have.
 *
 * @param[in] texts n texts, UTF-8.
 * @param[in] labels n names, or NULL.
 * @param n how many.
 * @param[in] labels_of whose classes to take; may be NULL; only looked at in the call.
 * @param[out] corpus becomes the new object, the caller's: mmopt_corpus_free.
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
 *
 * Errors: INVALID_ARGUMENT for a share out of range, or one that leaves a side empty.
 *
 * @param[in] corpus only read: threads may share it.
 * @param eval_share above 0, below 1.
 * @param seed any number.
 * @param[out] train becomes one side; the caller's: mmopt_corpus_free.
 * @param[out] eval becomes the new object, the caller's: mmopt_corpus_free.
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
 *
 * @param[in] corpus only read: threads may share it.
 */
MMOPT_API size_t mmopt_corpus_n_examples(const struct mmopt_corpus *corpus);

/**
 * The number of classes or tags; 0 for NULL, and for tasks without labels.
 *
 * @param[in] corpus only read: threads may share it.
 */
MMOPT_API size_t mmopt_corpus_n_labels(const struct mmopt_corpus *corpus);

/**
 * The name of a class or tag by its id, valid as long as the corpus; NULL for any other id.
 *
 * @param[in] corpus only read: threads may share it.
 * @param label a class or tag, by its id from 0.
 */
MMOPT_API const char *mmopt_corpus_label_name(const struct mmopt_corpus *corpus, size_t label);

/**
 * How many examples have a class (or words a tag); 0 for an id that there is not.
 *
 * @param[in] corpus only read: threads may share it.
 * @param label a class or tag, by its id from 0.
 */
MMOPT_API size_t mmopt_corpus_label_count(const struct mmopt_corpus *corpus, size_t label);

/**
 * The share of the most frequent class, 0 to 1: the accuracy of always answering it. 0 for NULL,
 * and when nothing is labelled.
 *
 * @param[in] corpus only read: threads may share it.
 */
MMOPT_API
double mmopt_corpus_majority_fraction(const struct mmopt_corpus *corpus);

/**
 * The text of one example (words joined by spaces; the context of a question). The caller owns
 * it: mmopt_string_free.
 *
 * Errors: INVALID_ARGUMENT for an example that there is not.
 *
 * @param[in] corpus only read: threads may share it.
 * @param example its number, from 0.
 * @param[out] text becomes the text, the caller's: mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_text(const struct mmopt_corpus *corpus,
                                      size_t example,
                                      char **text);

/**
 * The class of one example of a classification corpus; -1 when it has none.
 *
 * Errors: INVALID_ARGUMENT for an example that there is not.
 *
 * @param[in] corpus only read: threads may share it.
 * @param example its number, from 0.
 * @param[out] label becomes the id of its class, or -1.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_corpus_label(const struct mmopt_corpus *corpus,
                                       size_t example,
                                       int64_t *label);

/**
 * Frees a corpus. NULL is harmless.
 *
 * @param corpus may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_corpus_free(struct mmopt_corpus *corpus);

/**
 * Fills the options with their defaults. NULL is harmless.
 *
 * @param[out] options becomes the defaults; may be NULL.
 */
MMOPT_API void mmopt_tokenizer_options_init(struct mmopt_tokenizer_options *options);

/**
 * Loads a tokenizer from a directory or file: tokenizer.json, or vocab.txt (WordPiece), or
 * vocab.json with merges.txt (byte-level BPE), with tokenizer_config.json where there is one.
 *
 * Errors: NOT_FOUND or IO when a file cannot be read; INVALID_DATA for a damaged one;
 * UNSUPPORTED for another kind of tokenizer.
 *
 * @param[in] path the file, UTF-8.
 * @param[out] tokenizer becomes the new object, the caller's: mmopt_tokenizer_free.
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
 *
 * @param[in] corpus only read: threads may share it.
 * @param[in] options NULL: the defaults.
 * @param[out] tokenizer becomes the new object, the caller's: mmopt_tokenizer_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_train(const struct mmopt_corpus *corpus,
                                          const struct mmopt_tokenizer_options *options,
                                          struct mmopt_tokenizer **tokenizer);

/**
 * Writes tokenizer.json and tokenizer_config.json into an existing directory, in the form that
 * the usual libraries load.
 *
 * Errors: NOT_FOUND without the directory; IO when a file cannot be written.
 *
 * @param[in] tokenizer only read: threads may share it.
 * @param[in] directory the directory, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tokenizer_save(const struct mmopt_tokenizer *tokenizer,
                                         const char *directory);

/**
 * The number of ids, special tokens included: the rows that an embedding needs. 0 for NULL.
 *
 * @param[in] tokenizer only read: threads may share it.
 */
MMOPT_API size_t mmopt_tokenizer_vocab_size(const struct mmopt_tokenizer *tokenizer);

/**
 * The greatest length of a sequence in tokens, as the files or options said. 0 for NULL.
 *
 * @param[in] tokenizer only read: threads may share it.
 */
MMOPT_API size_t mmopt_tokenizer_max_length(const struct mmopt_tokenizer *tokenizer);

/**
 * The id of a special token, by its role (an mmopt_special_token); -1 when the vocabulary has none, for
 * any other number, and for NULL.
 *
 * @param[in] tokenizer only read: threads may share it.
 * @param special an mmopt_special_token.
 */
MMOPT_API
int64_t mmopt_tokenizer_special_id(const struct mmopt_tokenizer *tokenizer,
                                   uint32_t special);

/**
 * The text of n ids; the caller owns it: mmopt_string_free. skip_special 1 leaves out special
 * tokens.
 *
 * Errors: INVALID_ARGUMENT for an id that there is not, or another number for skip_special.
 *
 * @param[in] tokenizer only read: threads may share it.
 * @param[in] ids n ids.
 * @param n how many.
 * @param skip_special 0 or 1.
 * @param[out] text becomes the text, the caller's: mmopt_string_free.
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
 *
 * @param tokenizer may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_tokenizer_free(struct mmopt_tokenizer *tokenizer);

/**
 * Encodes a text, or a pair of texts when pair is not NULL, with the special tokens of the
 * architecture, in at most max_length tokens (0: the tokenizer's); the longer text is cut.
 * Never empty: an empty text without framing becomes one end token.
 *
 * Errors: INVALID_ARGUMENT for text that is not UTF-8, or a max_length without room beside the
 * special tokens.
 *
 * @param[in] tokenizer only read: threads may share it.
 * @param[in] text UTF-8.
 * @param[in] pair the second text; may be NULL.
 * @param max_length greatest length in tokens; 0: the tokenizer's.
 * @param[out] encoding becomes the new object, the caller's: mmopt_encoding_free.
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
 * @param[in] encoding only read: threads may share it.
 */
MMOPT_API size_t mmopt_encoding_length(const struct mmopt_encoding *encoding);

/**
 * The ids, as many as tokens; valid as long as the encoding. NULL for NULL.
 *
 * @param[in] encoding only read: threads may share it.
 */
MMOPT_API const uint32_t *mmopt_encoding_ids(const struct mmopt_encoding *encoding);

/**
 * The token types, 0 for the first text and 1 for the second of a pair, as many as tokens; valid
 * as long as the encoding. NULL for NULL.
 *
 * @param[in] encoding only read: threads may share it.
 */
MMOPT_API
const uint32_t *mmopt_encoding_type_ids(const struct mmopt_encoding *encoding);

/**
 * Where each token stands in its text, in bytes: start and end one after the other, twice as many
 * as tokens; 0 and 0 for added special tokens. Valid as long as the encoding. NULL for NULL.
 *
 * @param[in] encoding only read: threads may share it.
 */
MMOPT_API
const size_t *mmopt_encoding_offsets(const struct mmopt_encoding *encoding);

/**
 * The number of tokens that were cut off; 0 for NULL.
 *
 * @param[in] encoding only read: threads may share it.
 */
MMOPT_API size_t mmopt_encoding_n_truncated(const struct mmopt_encoding *encoding);

/**
 * Frees an encoding. NULL is harmless.
 *
 * @param encoding may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_encoding_free(struct mmopt_encoding *encoding);

/**
 * Fills the options with their defaults. NULL is harmless.
 *
 * @param[out] options becomes the defaults; may be NULL.
 */
MMOPT_API void mmopt_loader_options_init(struct mmopt_loader_options *options);

/**
 * Encodes a corpus with the tokenizer of each of n_models models (the same one may appear twice)
 * and makes a loader that stands at the start of epoch 0.
 *
 * Errors: INVALID_ARGUMENT for no tokenizer, an empty corpus, a batch_size of 0, a max_length
 * without room beside the special tokens, or not one full batch with drop_last.
 *
 * @param[in] corpus only read: threads may share it.
 * @param[in] tokenizers n_models tokenizers; the same one may be there twice.
 * @param n_models how many models.
 * @param[in] options NULL: the defaults.
 * @param[out] loader becomes the new object, the caller's: mmopt_loader_free.
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
 *
 * Errors: INVALID_ARGUMENT for NULL; STATE while another call uses the loader.
 *
 * @param[in,out] loader changed: needed alone.
 * @param[out] batch becomes the new object, the caller's: mmopt_batch_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_next(struct mmopt_loader *loader,
                                      struct mmopt_batch **batch);

/**
 * The batches of an epoch; 0 for NULL.
 *
 * @param[in] loader only read: threads may share it.
 */
MMOPT_API size_t mmopt_loader_n_batches(const struct mmopt_loader *loader);

/**
 * Epochs done; 0 for NULL.
 *
 * @param[in] loader only read: threads may share it.
 */
MMOPT_API uint64_t mmopt_loader_epoch(const struct mmopt_loader *loader);

/**
 * Batches of the current epoch done; 0 for NULL.
 *
 * @param[in] loader only read: threads may share it.
 */
MMOPT_API size_t mmopt_loader_position(const struct mmopt_loader *loader);

/**
 * Goes to the start of an epoch; 0 is the first.
 *
 * Errors: INVALID_ARGUMENT for NULL; STATE while another call uses the loader.
 *
 * @param[in,out] loader changed: needed alone.
 * @param epoch its number, from 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_set_epoch(struct mmopt_loader *loader,
                                           uint64_t epoch);

/**
 * Where the loader stands, as JSON; the caller owns it: mmopt_string_free. With the same corpus,
 * tokenizers and options, mmopt_loader_restore continues from there, bit by bit.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param[in] loader only read: threads may share it.
 * @param[out] json becomes the text, the caller's: mmopt_string_free.
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
 *
 * @param[in,out] loader changed: needed alone.
 * @param[in] json a text of mmopt_loader_state.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_loader_restore(struct mmopt_loader *loader,
                                         const char *json);

/**
 * Frees a loader. NULL is harmless.
 *
 * @param loader may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_loader_free(struct mmopt_loader *loader);

/**
 * One batch without labels from n texts, with a part for each of n_models models, for predictions.
 * max_length: greatest length in tokens, 0 for each tokenizer's. The caller owns the batch.
 *
 * Errors: INVALID_ARGUMENT for no tokenizer, no text, one that is not UTF-8, or a max_length
 * without room beside the special tokens.
 *
 * @param[in] tokenizers n_models tokenizers; the same one may be there twice.
 * @param n_models how many models.
 * @param[in] texts n texts, UTF-8.
 * @param n how many.
 * @param max_length greatest length in tokens; 0: the tokenizer's.
 * @param[out] batch becomes the new object, the caller's: mmopt_batch_free.
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
 * The number of models; 0 for NULL.
 *
 * @param[in] batch only read: threads may share it.
 */
MMOPT_API size_t mmopt_batch_n_models(const struct mmopt_batch *batch);

/**
 * The number of rows of one model's part; 0 for NULL, and for any other model.
 *
 * @param[in] batch only read: threads may share it.
 * @param model its number, from 0.
 */
MMOPT_API size_t mmopt_batch_n_rows(const struct mmopt_batch *batch, size_t model);

/**
 * The tensors of one model: input_ids and attention_mask, i64 [rows, length]; token_type_ids where
 * the architecture has them; and where all rows are labelled, labels, i64 [rows] or [rows,
 * length], or start_positions and end_positions, i64 [rows]. -100 is left out of the loss. Both
 * results are valid as long as the batch.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not.
 *
 * @param[in] batch only read: threads may share it.
 * @param model its number, from 0.
 * @param[out] tensors become the views.
 * @param[out] n_tensors becomes how many.
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
 *
 * Errors: INVALID_ARGUMENT for a model that there is not.
 *
 * @param[in] batch only read: threads may share it.
 * @param model its number, from 0.
 * @param[out] examples become their numbers, one a row.
 * @param[out] n_rows becomes how many.
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
 * @param batch may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_batch_free(struct mmopt_batch *batch);

/**
 * Fills the options with their defaults. NULL is harmless.
 *
 * @param[out] options becomes the defaults; may be NULL.
 */
MMOPT_API void mmopt_loss_options_init(struct mmopt_loss_options *options);

/**
 * Fills in the sizes of a small model. NULL is harmless.
 *
 * @param[out] sizes becomes the defaults; may be NULL.
 */
MMOPT_API void mmopt_model_config_init(struct mmopt_model_config *sizes);

/**
 * A model from a directory of published form: config.json and model.safetensors. Without a task
 * set, that of the configuration. name is unique and not empty; it appears in messages, metrics
 * and checkpoints.
 *
 * Errors: INVALID_ARGUMENT for an empty name; files are read when the trainer is created.
 *
 * @param[in] name UTF-8.
 * @param[in] directory the directory, UTF-8.
 * @param[out] model becomes the new object, the caller's: mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_from_directory(const char *name,
                                               const char *directory,
                                               struct mmopt_model **model);

/**
 * A model from the file of a forward ONNX graph, f32 or f64. It needs a loss,
 * mmopt_model_set_loss, unless it brings its own gradients: mmopt_model_set_precomputed_gradients. What
 * exporters do to parameters is mended and reported: mmopt_model_report.
 *
 * Errors: INVALID_ARGUMENT for an empty name; files are read when the trainer is created.
 *
 * @param[in] name UTF-8.
 * @param[in] path the file, UTF-8.
 * @param[out] model becomes the new object, the caller's: mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_from_onnx(const char *name,
                                          const char *path,
                                          struct mmopt_model **model);

/**
 * A model from n_bytes of a forward ONNX graph in memory, copied; else as mmopt_model_from_onnx.
 *
 * Errors: INVALID_ARGUMENT for a length that exceeds the address space; the graph is read when
 * the trainer is created.
 *
 * @param[in] name UTF-8.
 * @param[in] bytes the file's content, n_bytes of it.
 * @param n_bytes how many bytes.
 * @param[out] model becomes the new object, the caller's: mmopt_model_free.
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
 * @param[in] name UTF-8.
 * @param[in] json the text of a config.json.
 * @param[out] model becomes the new object, the caller's: mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_from_config_json(const char *name,
                                                 const char *json,
                                                 struct mmopt_model **model);

/**
 * A fresh model of a known architecture. NULL sizes: a small BERT.
 *
 * Errors: INVALID_ARGUMENT for an unknown architecture or task, or a number out of range;
 * INVALID_DATA for sizes that do not fit together.
 *
 * @param[in] name UTF-8.
 * @param[in] sizes NULL: a small BERT.
 * @param[out] model becomes the new object, the caller's: mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_create(const char *name,
                                       const struct mmopt_model_config *sizes,
                                       struct mmopt_model **model);

/**
 * Sets the task, an mmopt_task; n_labels counts classes or tags and is ignored for other tasks. A
 * directory whose weights have another head gets a fresh one. Not for ONNX graphs.
 *
 * Errors: INVALID_ARGUMENT for another number, or n_labels of 0 or above 2^24 for
 * classification.
 *
 * @param[in,out] model changed: needed alone.
 * @param task an mmopt_task.
 * @param n_labels how many classes or tags.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_task(struct mmopt_model *model,
                                         uint32_t task,
                                         size_t n_labels);

/**
 * Sets the loss. Without it the task's is used; ONNX graphs must have one. NULL options: the
 * defaults of mmopt_loss_options.
 *
 * Errors: INVALID_ARGUMENT for an unknown kind or a number out of range; UNSUPPORTED for
 * options of a newer version. Whether the loss fits the model shows when the trainer is
 * created.
 *
 * @param[in,out] model changed: needed alone.
 * @param[in] options NULL: the defaults.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_loss(struct mmopt_model *model,
                                         const struct mmopt_loss_options *options);

/**
 * Sets the weight among the models, finite and at least 0; only ratios matter. Default 1.
 *
 * Errors: INVALID_ARGUMENT for a number out of range.
 *
 * @param[in,out] model changed: needed alone.
 * @param weight finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_weight(struct mmopt_model *model,
                                           double weight);

/**
 * Replaces every dropout probability of the configuration; at least 0, below 1.
 *
 * Errors: INVALID_ARGUMENT for a number out of range.
 *
 * @param[in,out] model changed: needed alone.
 * @param dropout at least 0, below 1.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_dropout(struct mmopt_model *model,
                                            double dropout);

/**
 * Sets the seed of fresh weights and of dropout. Default 0.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param[in,out] model changed: needed alone.
 * @param seed any number.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_seed(struct mmopt_model *model,
                                         uint64_t seed);

/**
 * Leaves the parameters whose whole name matches the pattern as they are: * stands for any text,
 * ? for any one character. A parameter's name is the one that the trainer gives it, the one in the
 * file, and that of a copy that was tied to it. May be called more than once; wins over
 * mmopt_model_train_only. A pattern that matches nothing fails the trainer's creation.
 *
 * Errors: INVALID_ARGUMENT for a pattern that is not UTF-8. One that matches nothing shows
 * when the trainer is created.
 *
 * @param[in,out] model changed: needed alone.
 * @param[in] pattern the parameters, by name.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_freeze(struct mmopt_model *model,
                                       const char *pattern);

/**
 * Trains only parameters whose whole name matches this pattern, or that of another call; names as
 * for mmopt_model_freeze. Constants of the exporter that are not trained by default are trained
 * when they are named. What sets an operator, such as a dropout's ratio, is none, and * leaves it
 * out. Naming that, quantised weights or integers fails the trainer's creation with UNSUPPORTED.
 *
 * Errors: INVALID_ARGUMENT for a pattern that is not UTF-8. One that matches nothing shows
 * when the trainer is created.
 *
 * @param[in,out] model changed: needed alone.
 * @param[in] pattern the parameters, by name.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_train_only(struct mmopt_model *model,
                                           const char *pattern);

/**
 * The name of a class by its number, from the configuration; the caller owns it: mmopt_string_free.
 *
 * Errors: NOT_FOUND for a number that there is not, and for ONNX graphs; whatever reading the
 * directory's config.json gives.
 *
 * @param[in] model only read: threads may share it.
 * @param label its number, from 0.
 * @param[out] name becomes its name; the caller's: mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_label(const struct mmopt_model *model,
                                      size_t label,
                                      char **name);

/**
 * Frees a model. NULL is harmless.
 *
 * @param model may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_model_free(struct mmopt_model *model);

/**
 * A fresh model that fits a tokenizer and a corpus: vocabulary, padding token and longest sequence
 * come from the tokenizer; task and classes, with their names, from the corpus. The rest, with the
 * architecture, comes from sizes (NULL: the defaults). For plain text the task stays that of
 * sizes, where anything but MMOPT_TASK_MASKED_LM becomes MMOPT_TASK_CAUSAL_LM.
 *
 * Errors: as mmopt_model_create.
 *
 * @param[in] name UTF-8.
 * @param[in] sizes NULL: a small BERT.
 * @param[in] tokenizer only read: threads may share it.
 * @param[in] corpus only read: threads may share it.
 * @param[out] model becomes the new object, the caller's: mmopt_model_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_for_corpus(const char *name,
                                           const struct mmopt_model_config *sizes,
                                           const struct mmopt_tokenizer *tokenizer,
                                           const struct mmopt_corpus *corpus,
                                           struct mmopt_model **model);

/**
 * Decides about merged parameters of an ONNX graph, an mmopt_shared_initializers. Default
 * MMOPT_SHARED_INITIALIZERS_REPORT.
 *
 * Errors: INVALID_ARGUMENT for another number.
 *
 * @param[in,out] model changed: needed alone.
 * @param merging an mmopt_shared_initializers.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_shared_initializers(struct mmopt_model *model,
                                                        uint32_t merging);

/**
 * Decides about equal matrices of an ONNX graph, an mmopt_duplicate_weights. Default
 * MMOPT_DUPLICATE_WEIGHTS_EMBEDDINGS.
 *
 * Errors: INVALID_ARGUMENT for another number.
 *
 * @param[in,out] model changed: needed alone.
 * @param tying an mmopt_duplicate_weights.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_duplicate_weights(struct mmopt_model *model,
                                                      uint32_t tying);

/**
 * Gives parameters of an ONNX graph whose names an exporter invented (onnx::MatMul_123, val_92)
 * those of the state dict where the file tells them (1, the default), or leaves them (0). Their
 * data stay as they lie, which may be transposed. Patterns match the old names too.
 *
 * Errors: INVALID_ARGUMENT for another number than 0 and 1.
 *
 * @param[in,out] model changed: needed alone.
 * @param restore 0 or 1.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_restore_names(struct mmopt_model *model,
                                                  uint32_t restore);

/**
 * Leaves one row, counted from 0, of the parameters whose whole name matches the pattern as it is,
 * for example the embedding of the padding token: it gets no gradient, and neither weight decay,
 * sharing nor synchronisation moves it. May be called more than once. Models in published form
 * have their padding rows frozen already.
 *
 * Errors: INVALID_ARGUMENT for a pattern that is not UTF-8. A row or name that there is not
 * shows when the trainer is created.
 *
 * @param[in,out] model changed: needed alone.
 * @param[in] pattern the parameters, by name.
 * @param row its number, from 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_freeze_row(struct mmopt_model *model,
                                           const char *pattern,
                                           size_t row);

/**
 * What a trainer would find in this model and do about it, as text for people: parameters that
 * were merged, equal matrices, names, what is frozen, and what cannot be trained and why. Reads
 * the model's files, and needs no ONNX Runtime. The caller owns the text: mmopt_string_free.
 *
 * Errors: whatever reading the model gives; NOT_FOUND for patterns that match nothing.
 *
 * @param[in] model only read: threads may share it.
 * @param[out] text becomes the text, the caller's: mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_report(const struct mmopt_model *model,
                                       char **text);

/**
 * As mmopt_model_report, as one JSON object; docs/exporting.md lists its fields. The caller owns
 * it: mmopt_string_free.
 *
 * Errors: as mmopt_model_report.
 *
 * @param[in] model only read: threads may share it.
 * @param[out] json becomes the text, the caller's: mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_report_json(const struct mmopt_model *model,
                                            char **json);

/**
 * Fills the options with their defaults. NULL is harmless.
 *
 * @param[out] options becomes the defaults; may be NULL.
 */
MMOPT_API
void mmopt_precomputed_gradient_options_init(struct mmopt_precomputed_gradient_options *options);

/**
 * Says that the model's ONNX graph computes its own gradients: the named outputs are taken as they
 * are and nothing is differentiated. Its inputs, those that are parameters aside, are what a batch
 * holds. Such a model needs no loss, is not mended, and cannot take part in mutual learning.
 *
 * Errors: INVALID_ARGUMENT for a model that is no ONNX graph, and when loss or a name is NULL.
 * Creating a trainer tells what is wrong with the names: NOT_FOUND for what the graph does not
 * have, INVALID_ARGUMENT for a parameter without a value; SHAPE for a gradient that does not fit
 * comes with the first batch.
 *
 * @param[in,out] model changed: needed alone.
 * @param[in] options must be given.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_model_set_precomputed_gradients(struct mmopt_model *model,
                                                          const struct mmopt_precomputed_gradient_options *options);

/**
 * Fills the options with a preset, an mmopt_preset; any other number gives the default one, which
 * the trainer then refuses. NULL is harmless.
 *
 * @param[out] options becomes the defaults; may be NULL.
 * @param preset an mmopt_preset.
 */
MMOPT_API
void mmopt_trainer_options_init(struct mmopt_trainer_options *options,
                                uint32_t preset);

/**
 * Reads n_models models, checks that each can be trained, and plans what they share. Loads ONNX
 * Runtime if that has not been done. The models are copied: they may be freed, or used again.
 *
 * Errors name the model: unreadable or non-finite weights, an operator without a gradient rule, a
 * name that is taken twice, an option out of range.
 *
 * @param[in] options NULL: the defaults.
 * @param[in] models n_models models, none of them NULL.
 * @param n_models how many models.
 * @param[out] trainer becomes the new object, the caller's: mmopt_trainer_free.
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
 * @param[in] trainer only read: threads may share it.
 */
MMOPT_API size_t mmopt_trainer_n_models(const struct mmopt_trainer *trainer);

/**
 * The name of a model by its number from 0, valid as long as the trainer; NULL for any other
 * number.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 */
MMOPT_API
const char *mmopt_trainer_model_name(const struct mmopt_trainer *trainer,
                                     size_t model);

/**
 * The number of the model of that name.
 *
 * Errors: NOT_FOUND for another name.
 *
 * @param[in] trainer only read: threads may share it.
 * @param[in] name the model's name.
 * @param[out] model becomes its number.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_model_index(const struct mmopt_trainer *trainer,
                                              const char *name,
                                              size_t *model);

/**
 * Forgets gradients that were accumulated since the last step.
 *
 * Errors: STATE while another call uses the object.
 *
 * @param[in,out] trainer changed: needed alone.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_zero_grad(struct mmopt_trainer *trainer);

/**
 * Loss and gradients of one micro-batch of one model; they count towards the next step.
 *
 * tensors holds the model's inputs and labels in any order. result may be NULL. Errors: NOT_FOUND
 * for a name that the model does not take or that is missing; SHAPE or INVALID_ARGUMENT for a
 * tensor that does not fit, ids and labels out of range; CANCELLED by the progress callback or a
 * cancel_token. After an error this micro-batch does not count.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param model its number, from 0.
 * @param[in] tensors n_tensors views, read in the call only.
 * @param n_tensors how many tensors.
 * @param[out] result becomes loss and counts; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_forward_backward(struct mmopt_trainer *trainer,
                                                   size_t model,
                                                   const struct mmopt_tensor *tensors,
                                                   size_t n_tensors,
                                                   struct mmopt_train_result *result);

/**
 * Loss and gradients of one micro-batch for every model, side by side on the cores there are.
 *
 * tensors and n_tensors hold for each model the array of its tensors and its length; results has
 * room for n_models results, or is NULL. When one model fails, none counts.
 *
 * Errors: as mmopt_trainer_forward_backward; INVALID_ARGUMENT for another number of models.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param[in] tensors for each model its tensors.
 * @param[in] n_tensors for each model how many.
 * @param n_models how many models.
 * @param[out] results become losses and counts, one a model; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_forward_backward_all(struct mmopt_trainer *trainer,
                                                       const struct mmopt_tensor *const *tensors,
                                                       const size_t *n_tensors,
                                                       size_t n_models,
                                                       struct mmopt_train_result *results);

/**
 * As mmopt_trainer_forward_backward_all with the parts of a loader's batch, which must have as
 * many as the trainer has models, in the same order. results has room for as many results, or is
 * NULL.
 *
 * Errors: as mmopt_trainer_forward_backward; INVALID_ARGUMENT for another number of models.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param[in] batch only read: threads may share it.
 * @param[out] results become losses and counts, one a model; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_forward_backward_batch(struct mmopt_trainer *trainer,
                                                         const struct mmopt_batch *batch,
                                                         struct mmopt_train_result *results);

/**
 * Tells the rates that follow convergence the losses that the host computed, one for each of
 * n_models models. Only for losses that forward_backward did not see: it logs its own.
 *
 * Errors: INVALID_ARGUMENT for another number of models.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param[in] losses n_models losses.
 * @param n_models how many models.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_log_metrics(struct mmopt_trainer *trainer,
                                              const double *losses,
                                              size_t n_models);

/**
 * One coordinated step over the gradients since the last one: check, clip, share, update,
 * synchronise. report may be NULL.
 *
 * Errors: STATE without a forward and backward pass since the last step; NON_FINITE when that is
 * to fail; CANCELLED by the progress or gradient callback, and INVALID_ARGUMENT for what a
 * callback returns. The step can be taken again then.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param[out] report becomes what the step did; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_step(struct mmopt_trainer *trainer,
                                       struct mmopt_step_report *report);

/**
 * Frees a trainer. NULL is harmless.
 *
 * @param trainer may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_trainer_free(struct mmopt_trainer *trainer);

/**
 * The number of a model's parameters, in graph order; 0 for NULL, and for any other model.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 */
MMOPT_API size_t mmopt_trainer_n_parameters(const struct mmopt_trainer *trainer, size_t model);

/**
 * The number of a model's parameter of that name.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not; NOT_FOUND for another name.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param[in] name the parameter's name.
 * @param[out] parameter becomes its number.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_parameter_index(const struct mmopt_trainer *trainer,
                                                  size_t model,
                                                  const char *name,
                                                  size_t *parameter);

/**
 * A view of a parameter's value. It points into the trainer's memory and is valid until the
 * trainer is freed; the elements change with each step. trainable may be NULL, and becomes 1 or 0.
 *
 * Errors: INVALID_ARGUMENT for a model or parameter that there is not.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param parameter its number, from 0.
 * @param[out] tensor becomes the view.
 * @param[out] trainable becomes 1 or 0; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_parameter(const struct mmopt_trainer *trainer,
                                            size_t model,
                                            size_t parameter,
                                            struct mmopt_tensor *tensor,
                                            uint32_t *trainable);

/**
 * Replaces a parameter's value by n_bytes bytes, copied, which must be as many as it has.
 *
 * Errors: INVALID_ARGUMENT for a model or parameter that there is not; SHAPE for another
 * length.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param model its number, from 0.
 * @param parameter its number, from 0.
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
 * A view of a parameter's gradient as the last backward pass left it, valid until the trainer is
 * freed.
 *
 * Errors: STATE before the first backward pass, for frozen parameters, and where no path leads to
 * the loss.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param parameter its number, from 0.
 * @param[out] tensor becomes the view.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_gradient(const struct mmopt_trainer *trainer,
                                           size_t model,
                                           size_t parameter,
                                           struct mmopt_tensor *tensor);

/**
 * Replaces a gradient between the backward pass and the step by n_bytes bytes, copied, which must
 * be as many as it has.
 *
 * Errors: STATE when there is no gradient yet, or when it was accumulated already (with more than
 * one micro-batch per step).
 *
 * @param[in,out] trainer changed: needed alone.
 * @param model its number, from 0.
 * @param parameter its number, from 0.
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
 * whose name matches model_pattern, from the next step on; * stands for any text, ? for any one
 * character. Only parameters that were trainable when the trainer was created have gradients.
 * n_changed may be NULL.
 *
 * Errors: INVALID_ARGUMENT for a flag that is neither 0 nor 1, or a text that is not UTF-8.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param[in] model_pattern the models, by name.
 * @param[in] pattern the parameters, by name.
 * @param trainable 0 or 1.
 * @param[out] n_changed becomes how many changed; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_trainable(struct mmopt_trainer *trainer,
                                                const char *model_pattern,
                                                const char *pattern,
                                                uint32_t trainable,
                                                size_t *n_changed);

/**
 * What is shared with what and why, as text for people; the caller owns it: mmopt_string_free.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param[in] trainer only read: threads may share it.
 * @param[out] text becomes the text, the caller's: mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_plan(const struct mmopt_trainer *trainer,
                                       char **text);

/**
 * What is shared with what and why, as one JSON object; the caller owns it: mmopt_string_free.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param[in] trainer only read: threads may share it.
 * @param[out] json becomes the text, the caller's: mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_plan_json(const struct mmopt_trainer *trainer,
                                            char **json);

/**
 * Learning rate, gradient norm, weight and skipped steps of one model, as of the last step.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param[out] rates become the numbers.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_rates(const struct mmopt_trainer *trainer,
                                        size_t model,
                                        struct mmopt_rates *rates);

/**
 * Steps taken, those before a resume included; 0 for NULL.
 *
 * @param[in] trainer only read: threads may share it.
 */
MMOPT_API uint64_t mmopt_trainer_n_steps(const struct mmopt_trainer *trainer);

/**
 * Sets the base learning rate of the coming steps, finite and at least 0.
 *
 * Errors: INVALID_ARGUMENT for a number out of range.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param rate finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_learning_rate(struct mmopt_trainer *trainer,
                                                    double rate);

/**
 * Sets a model's weight for the coming steps, finite and at least 0; not all may be 0.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not, or a weight out of range.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param model its number, from 0.
 * @param weight finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_model_weight(struct mmopt_trainer *trainer,
                                                   size_t model,
                                                   double weight);

/**
 * Lets the host decide each model's learning rate at each step; a NULL callback ends that. user
 * is handed back to it and must stay valid until then, or until the trainer is freed.
 *
 * Errors: STATE while another call uses the trainer.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param callback NULL: none.
 * @param user handed back to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_rate_callback(struct mmopt_trainer *trainer,
                                                    mmopt_rate_fn callback,
                                                    void *user);

/**
 * Sends messages up to level (an mmopt_log_level) to a callback; a NULL callback ends that, and
 * without one nothing is said. user is handed back to it and must stay valid until then, or until
 * the trainer is freed. What there was to say when the trainer was created comes during this call,
 * each message once.
 *
 * Errors: INVALID_ARGUMENT for another level; STATE while another call uses the trainer.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param level an mmopt_log_level.
 * @param callback NULL: none.
 * @param user handed back to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_log(struct mmopt_trainer *trainer,
                                          uint32_t level,
                                          mmopt_log_fn callback,
                                          void *user);

/**
 * Asks a callback before each pass and step whether to go on; a NULL callback ends that. user is
 * handed back to it and must stay valid until then, or until the trainer is freed.
 *
 * Errors: STATE while another call uses the trainer.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param callback NULL: none.
 * @param user handed back to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_progress(struct mmopt_trainer *trainer,
                                               mmopt_progress_fn callback,
                                               void *user);

/**
 * Writes one model into a directory, made if need be: in published form (config.json and
 * model.safetensors), or for models that came as ONNX as model.onnx. Files appear whole or not at
 * all.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not; IO when a file cannot be written.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param[in] directory the directory, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_save_model(const struct mmopt_trainer *trainer,
                                             size_t model,
                                             const char *directory);

/**
 * Writes one model's forward graph with its present weights, ready for inference.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not; IO when the file cannot be written.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param[in] path the file, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_save_onnx(const struct mmopt_trainer *trainer,
                                            size_t model,
                                            const char *path);

/**
 * Writes everything that training depends on into a directory, made if need be; host_text (NULL:
 * empty) is kept with it, for example a loader's state. A crash at any point leaves the last
 * checkpoint whole.
 *
 * Errors: STATE between a backward pass and its step, as gradients are not kept.
 *
 * @param[in] trainer only read: threads may share it.
 * @param[in] directory the directory, UTF-8.
 * @param[in] host_text kept with it; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_save_checkpoint(const struct mmopt_trainer *trainer,
                                                  const char *directory,
                                                  const char *host_text);

/**
 * Goes to the last checkpoint in a directory: the same models and options continue bit by bit.
 * host_text becomes what was kept with it; the caller owns it: mmopt_string_free. It may be NULL.
 *
 * Errors: NOT_FOUND without a checkpoint; INVALID_DATA for a damaged one, or one of other models;
 * the trainer is unchanged then.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param[in] directory the directory, UTF-8.
 * @param[out] host_text becomes the text; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_resume(struct mmopt_trainer *trainer,
                                         const char *directory,
                                         char **host_text);

/**
 * A cancel_token of this trainer; the caller owns it: mmopt_cancel_token_free.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param[in] trainer only read: threads may share it.
 * @param[out] cancel_token becomes the new object, the caller's: mmopt_cancel_token_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_cancel_token(const struct mmopt_trainer *trainer,
                                               struct mmopt_cancel_token **cancel_token);

/**
 * Makes passes that run, and all later ones, fail with MMOPT_CODE_CANCELLED. From any thread.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param[in] cancel_token only read: threads may share it.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_cancel_token_cancel(const struct mmopt_cancel_token *cancel_token);

/**
 * Lets passes run again. From any thread.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param[in] cancel_token only read: threads may share it.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_cancel_token_reset(const struct mmopt_cancel_token *cancel_token);

/**
 * Frees a cancel_token. NULL is harmless.
 *
 * @param cancel_token may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_cancel_token_free(struct mmopt_cancel_token *cancel_token);

/**
 * Shows a callback each gradient between backward pass and step, so that a filter or an optimizer
 * of the host's own can be put in; a NULL callback ends that. user is handed back to it and must
 * stay valid until then, or until the trainer is freed.
 *
 * Errors: STATE while another call uses the trainer.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param callback NULL: none.
 * @param user handed back to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_set_gradient_callback(struct mmopt_trainer *trainer,
                                                        mmopt_gradient_fn callback,
                                                        void *user);

/**
 * A parameter's value as a DLManagedTensorVersioned that points into the trainer's memory, without
 * a copy. The caller owns it and calls its deleter once, before or after the trainer is freed, on
 * any thread: the memory lives as long as the last of them. Until the trainer is freed the
 * elements change with each step. writable 0 flags it as read-only; 1 does not, and writing
 * through it then counts as a call that needs the trainer alone.
 *
 * Errors: INVALID_ARGUMENT for a model, parameter or flag that there is not.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param parameter its number, from 0.
 * @param writable 0 or 1.
 * @param[out] managed becomes the DLManagedTensorVersioned.
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
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param parameter its number, from 0.
 * @param writable 0 or 1.
 * @param[out] managed becomes the DLManagedTensorVersioned.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_gradient_dlpack(const struct mmopt_trainer *trainer,
                                                  size_t model,
                                                  size_t parameter,
                                                  uint32_t writable,
                                                  void **managed);

/**
 * What was found in a model's graph and what was done about it, as mmopt_model_report tells it.
 * The caller owns the text: mmopt_string_free.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param[out] text becomes the text, the caller's: mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_model_report(const struct mmopt_trainer *trainer,
                                               size_t model,
                                               char **text);

/**
 * As mmopt_trainer_model_report, as one JSON object; docs/exporting.md lists its fields. The
 * caller owns it: mmopt_string_free.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param[out] json becomes the text, the caller's: mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_trainer_model_report_json(const struct mmopt_trainer *trainer,
                                                    size_t model,
                                                    char **json);

/**
 * Finds where a training pass of one model over a batch first goes non-finite, forward or
 * backward, with the parameters as they are now: node, operator, output, position, and the ranges
 * of what the node read. Nothing changes. It runs without ONNX Runtime's optimisation and needs
 * the memory of all values at once.
 *
 * tensors is what mmopt_trainer_forward_backward takes. text becomes the finding for people, json
 * the same as an object (docs/exporting.md lists its fields); either may be NULL if it is not
 * wanted. Both become NULL when the loss and all gradients are finite. The caller owns them:
 * mmopt_string_free. Errors: as mmopt_trainer_forward_backward.
 *
 * @param[in] trainer only read: threads may share it.
 * @param model its number, from 0.
 * @param[in] tensors n_tensors views, read in the call only.
 * @param n_tensors how many tensors.
 * @param[out] text becomes the finding, or NULL, the caller's: mmopt_string_free; may be NULL.
 * @param[out] json the same as JSON, the caller's: mmopt_string_free; may be NULL.
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
 * Runs one model without dropout and gradients. tensors holds its inputs and, where loss and score
 * are wanted, its labels. The caller owns the result: mmopt_evaluation_free.
 *
 * Errors: as mmopt_trainer_forward_backward.
 *
 * @param[in,out] trainer changed: needed alone.
 * @param model its number, from 0.
 * @param[in] tensors n_tensors views, read in the call only.
 * @param n_tensors how many tensors.
 * @param[out] evaluation becomes the new object, the caller's: mmopt_evaluation_free.
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
 * @param[in] evaluation only read: threads may share it.
 */
MMOPT_API double mmopt_evaluation_loss(const struct mmopt_evaluation *evaluation);

/**
 * Right predictions; 0 without labels, and for NULL.
 *
 * @param[in] evaluation only read: threads may share it.
 */
MMOPT_API uint64_t mmopt_evaluation_n_correct(const struct mmopt_evaluation *evaluation);

/**
 * Labels that count; 0 without labels, and for NULL.
 *
 * @param[in] evaluation only read: threads may share it.
 */
MMOPT_API uint64_t mmopt_evaluation_n_labels(const struct mmopt_evaluation *evaluation);

/**
 * The outputs, f32, by the model's names: logits [batch, classes] or [batch, length, classes], or
 * start_logits and end_logits [batch, length]. Both results are valid as long as the evaluation.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param[in] evaluation only read: threads may share it.
 * @param[out] tensors become the views.
 * @param[out] n_tensors becomes how many.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_evaluation_tensors(const struct mmopt_evaluation *evaluation,
                                             const struct mmopt_tensor **tensors,
                                             size_t *n_tensors);

/**
 * Frees an evaluation. NULL is harmless.
 *
 * @param evaluation may be NULL; gone afterwards.
 */
MMOPT_API void mmopt_evaluation_free(struct mmopt_evaluation *evaluation);

/**
 * Fills in the defaults: dense, row-major f32. NULL is harmless.
 *
 * @param[out] layout becomes the defaults; may be NULL.
 */
MMOPT_API void mmopt_parameter_layout_init(struct mmopt_parameter_layout *layout);

/**
 * Plans what n_models models share and takes hold of their memory. Texts, arrays and layouts are
 * copied; values and gradients must stay where they are until the optimizer is freed. They are
 * read and written by mmopt_optimizer_accumulate and mmopt_optimizer_step only. The values that
 * are trained must lie apart from each other and from all gradients; gradients may share memory
 * where the host fills them in turn. Of the options, device, max_sessions and runtime_path play no
 * part.
 *
 * Errors name the model and parameter: a name that is taken twice, a missing pointer, values that
 * share memory, strides that repeat an element, an element type that cannot be trained
 * (UNSUPPORTED), an option out of range.
 *
 * @param[in] options NULL: the defaults.
 * @param[in] models n_models models, none of them NULL.
 * @param n_models how many models.
 * @param[out] optimizer becomes the new object, the caller's: mmopt_optimizer_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_create(const struct mmopt_trainer_options *options,
                                           const struct mmopt_parameters *models,
                                           size_t n_models,
                                           struct mmopt_optimizer **optimizer);

/**
 * The number of models; 0 for NULL.
 *
 * @param[in] optimizer only read: threads may share it.
 */
MMOPT_API size_t mmopt_optimizer_n_models(const struct mmopt_optimizer *optimizer);

/**
 * Gives a parameter another gradient (NULL: none) for the coming steps, dense and row-major;
 * gradient_dtype as in mmopt_parameter. Parameters count from 0 in the order they were given.
 *
 * Errors: INVALID_ARGUMENT for a model, parameter or number that there is not; UNSUPPORTED for
 * an element type that gradients cannot have.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param model its number, from 0.
 * @param parameter its number, from 0.
 * @param gradient as many elements as the value; may be NULL.
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
 * As mmopt_optimizer_set_gradient for a gradient with strides, in elements, one for each of the
 * parameter's n_dims dimensions; they are copied. NULL: dense and row-major.
 *
 * Errors: SHAPE for another number of dimensions; UNSUPPORTED for strides that repeat an element.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param model its number, from 0.
 * @param parameter its number, from 0.
 * @param gradient the element at index 0; may be NULL.
 * @param gradient_dtype an mmopt_dtype.
 * @param[in] strides n_dims strides in elements; may be NULL.
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
 * Hands over a DLManagedTensorVersioned, of the parameter's shape and in any strides without
 * overlap, as the gradient of the coming steps. Its deleter is called once, on the thread of that
 * call, when another gradient takes its place or the optimizer is freed; it must not call into
 * this optimizer. On error the tensor stays the caller's and the old gradient in place.
 *
 * Errors: as mmopt_tensor_from_dlpack, but for strides; SHAPE for another shape; UNSUPPORTED for
 * other element types than f32, bf16 and f16.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param model its number, from 0.
 * @param parameter its number, from 0.
 * @param managed a DLManagedTensorVersioned, handed over.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_gradient_dlpack(struct mmopt_optimizer *optimizer,
                                                        size_t model,
                                                        size_t parameter,
                                                        void *managed);

/**
 * Hands over a DLManagedTensorVersioned whose memory the optimizer uses, for example one that
 * mmopt_parameter_from_dlpack has looked at. Its deleter is called once, when the optimizer is
 * freed, on the thread of that call. On error the tensor stays the caller's.
 *
 * Errors: UNSUPPORTED for another major version.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param managed a DLManagedTensorVersioned, handed over.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_keep_dlpack(struct mmopt_optimizer *optimizer,
                                                void *managed);

/**
 * Forgets micro-batches that were accumulated since the last step.
 *
 * Errors: STATE while another call uses the object.
 *
 * @param[in,out] optimizer changed: needed alone.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_zero_grad(struct mmopt_optimizer *optimizer);

/**
 * Tells that the gradients of one model's micro-batch lie in its memory, and its loss. With more
 * than one micro-batch per step they are added up now; else they are read by the step.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not, or a parameter without the memory
 * that it needs.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param model its number, from 0.
 * @param loss of the micro-batch.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_accumulate(struct mmopt_optimizer *optimizer,
                                               size_t model,
                                               double loss);

/**
 * One coordinated step: check, clip, share, update, synchronise. report may be NULL.
 *
 * Errors: STATE without mmopt_optimizer_accumulate since the last step; NON_FINITE when that is to
 * fail; CANCELLED by the gradient callback, and INVALID_ARGUMENT for what a callback returns. The
 * step can be taken again then.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param[out] report becomes what the step did; may be NULL.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_step(struct mmopt_optimizer *optimizer,
                                         struct mmopt_step_report *report);

/**
 * Learning rate, gradient norm, weight and skipped steps of one model, as of the last step.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not.
 *
 * @param[in] optimizer only read: threads may share it.
 * @param model its number, from 0.
 * @param[out] rates become the numbers.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_rates(const struct mmopt_optimizer *optimizer,
                                          size_t model,
                                          struct mmopt_rates *rates);

/**
 * Steps taken, those before a load included; 0 for NULL.
 *
 * @param[in] optimizer only read: threads may share it.
 */
MMOPT_API uint64_t mmopt_optimizer_n_steps(const struct mmopt_optimizer *optimizer);

/**
 * Sets the base learning rate of the coming steps, finite and at least 0.
 *
 * Errors: INVALID_ARGUMENT for a number out of range.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param rate finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_learning_rate(struct mmopt_optimizer *optimizer,
                                                      double rate);

/**
 * Sets a model's weight for the coming steps, finite and at least 0; not all may be 0.
 *
 * Errors: INVALID_ARGUMENT for a model that there is not, or a weight out of range.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param model its number, from 0.
 * @param weight finite, at least 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_model_weight(struct mmopt_optimizer *optimizer,
                                                     size_t model,
                                                     double weight);

/**
 * What is shared with what and why, as text for people; the caller owns it: mmopt_string_free.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param[in] optimizer only read: threads may share it.
 * @param[out] text becomes the text, the caller's: mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_plan(const struct mmopt_optimizer *optimizer,
                                         char **text);

/**
 * What is shared with what and why, as one JSON object; the caller owns it: mmopt_string_free.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param[in] optimizer only read: threads may share it.
 * @param[out] json becomes the text, the caller's: mmopt_string_free.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_plan_json(const struct mmopt_optimizer *optimizer,
                                              char **json);

/**
 * Writes the optimizer's state (moments, masters and counters, not the host's values) into a
 * directory, made if need be. A crash at any point leaves the last one whole.
 *
 * Errors: IO when a file cannot be written.
 *
 * @param[in] optimizer only read: threads may share it.
 * @param[in] directory the directory, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_save_checkpoint(const struct mmopt_optimizer *optimizer,
                                                    const char *directory);

/**
 * Goes to the state that mmopt_optimizer_save_checkpoint wrote; models and parameters must be the same. With
 * the host's values as they were then, before or after this call, the same bits follow. A bf16 or
 * f16 value that is another one now replaces its master.
 *
 * Errors: NOT_FOUND without one; INVALID_DATA for a damaged one, or one of other models; the
 * optimizer is unchanged then.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param[in] directory the directory, UTF-8.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_resume(struct mmopt_optimizer *optimizer,
                                           const char *directory);

/**
 * Frees an optimizer; the host's memory is its own again, and the deleters of what was handed over
 * are called. NULL is harmless.
 *
 * @param optimizer may be NULL; gone afterwards.
 */
MMOPT_API
void mmopt_optimizer_free(struct mmopt_optimizer *optimizer);

/**
 * Shows a callback each gradient of a step before anything looks at it, so that a filter or an
 * update of the host's own can be put in; a NULL callback ends that. user is handed back to it and
 * must stay valid until then, or until the optimizer is freed.
 *
 * Values and gradients that lie in memory as dense f32 are seen there, and so are the sums of
 * micro-batches. Of others the callback sees dense f32 copies: bf16 and f16 gradients are rounded
 * back where it has changed them, changes of a gradient with strides count for this step and do
 * not reach the host's memory, and changed values reach it when the step succeeds.
 *
 * Errors: STATE while another call uses the optimizer.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param callback NULL: none.
 * @param user handed back to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_gradient_callback(struct mmopt_optimizer *optimizer,
                                                          mmopt_gradient_fn callback,
                                                          void *user);

/**
 * Lets the host decide each model's learning rate at each step; a NULL callback ends that. user
 * is handed back to it and must stay valid until then, or until the optimizer is freed.
 *
 * Errors: STATE while another call uses the optimizer.
 *
 * @param[in,out] optimizer changed: needed alone.
 * @param callback NULL: none.
 * @param user handed back to the callback.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_optimizer_set_rate_callback(struct mmopt_optimizer *optimizer,
                                                      mmopt_rate_fn callback,
                                                      void *user);

/**
 * Looks at a DLManagedTensorVersioned as a tensor of that name, for example as an input of a pass.
 * It and name stay the caller's and must stay valid as long as the view is used; its deleter is
 * not called.
 *
 * Errors: UNSUPPORTED for another major version, memory that the processor does not reach, an
 * unknown element type, or elements that are not dense and row-major.
 *
 * @param[in] name UTF-8.
 * @param[in] managed a DLManagedTensorVersioned.
 * @param[out] tensor becomes the view.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tensor_from_dlpack(const char *name,
                                             const void *managed,
                                             struct mmopt_tensor *tensor);

/**
 * Describes a parameter by two DLManagedTensorVersioned: its value, dense f32, and its gradient
 * (NULL: none), dense f32, bf16 or f16. They and name stay the caller's and must stay valid until
 * the optimizer that gets the parameter is freed; their deleters are not called
 * (mmopt_optimizer_keep_dlpack hands them over). The parameter is trainable, and its role follows
 * from its name; both can be changed afterwards.
 *
 * Errors: as mmopt_tensor_from_dlpack; INVALID_ARGUMENT for a value that is read-only or not f32;
 * SHAPE for a gradient of another shape.
 *
 * @param[in] name UTF-8.
 * @param[in] value a DLManagedTensorVersioned.
 * @param[in] gradient a DLManagedTensorVersioned; may be NULL.
 * @param[out] parameter becomes the description.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_parameter_from_dlpack(const char *name,
                                                const void *value,
                                                const void *gradient,
                                                struct mmopt_parameter *parameter);

/**
 * As mmopt_parameter_from_dlpack for values that are f32, bf16 or f16, and for any strides without
 * overlap. layout is filled in, too, and the parameter points to it: it must stay where it is
 * until mmopt_optimizer_create has been called.
 *
 * Errors: as mmopt_parameter_from_dlpack, but for strides and types, which mmopt_optimizer_create
 * looks at.
 *
 * @param[in] name UTF-8.
 * @param[in] value a DLManagedTensorVersioned.
 * @param[in] gradient a DLManagedTensorVersioned; may be NULL.
 * @param[out] layout is filled in, too.
 * @param[out] parameter its number, from 0.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_parameter_from_dlpack_strided(const char *name,
                                                        const void *value,
                                                        const void *gradient,
                                                        struct mmopt_parameter_layout *layout,
                                                        struct mmopt_parameter *parameter);

/**
 * Copies a tensor into a new DLManagedTensorVersioned, flagged as copied. The caller owns it and
 * calls its deleter once; it depends on nothing else.
 *
 * Errors: as for an input: INVALID_ARGUMENT for an unknown element type; SHAPE where n_bytes
 * does not fit the shape.
 *
 * @param[in] tensor what to copy.
 * @param[out] managed becomes the new DLManagedTensorVersioned.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_tensor_to_dlpack(const struct mmopt_tensor *tensor,
                                           void **managed);

/**
 * Wraps a DLManagedTensor, the form before DLPack 1.0, in a DLManagedTensorVersioned, without
 * copying elements. The caller gives the old one up and owns the new one, whose deleter calls the
 * old one's. On error the old one stays the caller's.
 *
 * Errors: INVALID_ARGUMENT for NULL only.
 *
 * @param unversioned a DLManagedTensor, given up.
 * @param[out] managed becomes the new DLManagedTensorVersioned.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_dlpack_from_unversioned(void *unversioned,
                                                  void **managed);

/**
 * Wraps a DLManagedTensorVersioned in a DLManagedTensor, the form before DLPack 1.0, without
 * copying elements. The caller gives the versioned one up and owns the new one, whose deleter
 * calls the other's. On error the versioned one stays the caller's.
 *
 * Errors: UNSUPPORTED for another major version, and for read-only tensors, as the old form cannot
 * say so.
 *
 * @param managed a DLManagedTensorVersioned, given up.
 * @param[out] unversioned becomes the new DLManagedTensor.
 */
MMOPT_API
MMOPT_MUST_USE
struct mmopt_error *mmopt_dlpack_to_unversioned(void *managed,
                                                void **unversioned);

/**
 * Calls the deleter of a DLManagedTensorVersioned of any maker, for languages in which calling a
 * function pointer is a chore. NULL is harmless.
 *
 * @param managed may be NULL; gone afterwards.
 */
MMOPT_API
void mmopt_dlpack_free(void *managed);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MMOPT_H */
