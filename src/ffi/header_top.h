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
#define MMOPT_VERSION_MAJOR @MAJOR@
/** The second part. */
#define MMOPT_VERSION_MINOR @MINOR@
/** The third part. */
#define MMOPT_VERSION_PATCH @PATCH@
/** All three as text. */
#define MMOPT_VERSION "@MAJOR@.@MINOR@.@PATCH@"
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
