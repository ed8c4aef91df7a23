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
