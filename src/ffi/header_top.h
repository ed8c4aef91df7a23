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
#define MMOPT_VERSION_MAJOR @MAJOR@
/** The minor version. */
#define MMOPT_VERSION_MINOR @MINOR@
/** The patch version. */
#define MMOPT_VERSION_PATCH @PATCH@
/** The version as text. */
#define MMOPT_VERSION "@MAJOR@.@MINOR@.@PATCH@"
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
