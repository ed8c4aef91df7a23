/**
 * @file mmopt.hpp
 * libmmopt for C++17: a thin layer over mmopt.h, header-only: this file includes all of the folder
 * mmopt beside it.
 *
 * Each class owns one object of the C library, can be moved but not copied, and frees it. get()
 * gives the C pointer, release() gives it away, so whatever the C library has is within reach.
 * Errors are thrown as mmopt::error, whose code() is an mmopt_code. Options are the C structs: the
 * functions corpus_options(), trainer_options() and so on fill them with the defaults.
 *
 * Views (span, tensor, pointers) point into the object that they were asked of, for as long as
 * mmopt.h says. Threads: const methods have shared access to the object and may run at the same
 * time, others need exclusive access.
 *
 * Namespace mmopt::detail is no part of the interface: check() throws an error of the C library,
 * text() and c_strings() pass strings to it, take() takes over a text that it returned, pointers()
 * lists the C pointers of several objects, and done() throws what a callback threw, else the error.
 *
 * Callbacks are std::functions. What they throw does not pass through the C library: it is kept,
 * the call is made to fail where it can be, and the call's C++ method throws it on.
 */
#ifndef MMOPT_HPP
#define MMOPT_HPP

#include "mmopt/error.hpp"
#include "mmopt/handle.hpp"
#include "mmopt/span.hpp"
#include "mmopt/dlpack.hpp"
#include "mmopt/tensor.hpp"
#include "mmopt/runtime.hpp"
#include "mmopt/corpus.hpp"
#include "mmopt/tokenizer.hpp"
#include "mmopt/loader.hpp"
#include "mmopt/model.hpp"
#include "mmopt/callbacks.hpp"
#include "mmopt/parameter.hpp"
#include "mmopt/evaluation.hpp"
#include "mmopt/fit.hpp"
#include "mmopt/metrics.hpp"
#include "mmopt/predictor.hpp"
#include "mmopt/checkpoint.hpp"
#include "mmopt/communicator.hpp"
#include "mmopt/trainer.hpp"
#include "mmopt/optimizer.hpp"
#include "mmopt/report.hpp"

#endif
