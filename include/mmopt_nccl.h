/**
 * @file mmopt_nccl.h
 * A communicator of libmmopt on NCCL, one GPU for each rank. Header-only: it is compiled with the
 * program, against its nccl.h and CUDA runtime. The library itself knows neither.
 *
 * Buffers in host memory, those of this version of the library, are staged in memory of the GPU.
 * Where the library names a stream, buffers are memory of the GPU and are used in place, in the order
 * of that stream. Calls on host memory have a time limit; NCCL does not tell which rank is missing.
 */
#ifndef MMOPT_NCCL_H
#define MMOPT_NCCL_H

#include <mmopt.h>

#include <cuda_runtime.h>
#include <nccl.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/** What an operation on host memory moves at once, in bytes. */
#ifndef MMOPT_NCCL_CHUNK
#define MMOPT_NCCL_CHUNK ((size_t)32 << 20)
#endif

/** Inside: one rank's state. */
typedef struct mmopt_nccl {
    ncclComm_t comm;
    cudaStream_t stream;
    int rank, size, failed;
    double timeout;
    /** Two buffers of MMOPT_NCCL_CHUNK bytes on the GPU. */
    char *from, *into;
} mmopt_nccl;

/** Inside: what is to be done with a part of the buffers. */
typedef struct mmopt_nccl_work {
    ncclResult_t (*run)(mmopt_nccl *m, const struct mmopt_nccl_work *work, const void *from,
                        void *into, size_t n, cudaStream_t stream);
    ncclDataType_t type;
    /** Bytes of an element, how many parts the buffers have, and the other rank. */
    size_t element, n_from, n_into;
    int peer;
} mmopt_nccl_work;

/** Inside: notes why an operation fails. */
static inline uint32_t mmopt_nccl_fail(mmopt_nccl *m, mmopt_communicator_call *call, const char *text)
{
    m->failed = 1;
    snprintf(call->message, call->message_size, "NCCL: %s", text);
    return 1;
}

/** Inside: waits for the stream until a time; a text is why it failed. */
static inline const char *mmopt_nccl_wait(mmopt_nccl *m)
{
    const time_t start = time(NULL);
    for (int i = 0;; i++) {
        const cudaError_t state = cudaStreamQuery(m->stream);
        ncclResult_t result = ncclSuccess;
        if (state == cudaSuccess)
            return NULL;
        if (state != cudaErrorNotReady)
            return cudaGetErrorString(state);
        if (ncclCommGetAsyncError(m->comm, &result) != ncclSuccess || result != ncclSuccess)
            return ncclGetErrorString(result);
        if (difftime(time(NULL), start) > m->timeout)
            return "a rank ended or stalled: no answer within the time limit";
        if (i < 1000)
            sched_yield();
        else
            poll(NULL, 0, 1);
    }
}

/** Inside: runs work on n elements of each part: in place on the library's stream, or staged. */
static inline uint32_t mmopt_nccl_do(mmopt_nccl *m, mmopt_communicator_call *call,
                                     const mmopt_nccl_work *work, const void *from, void *into,
                                     size_t n)
{
    const size_t parts = work->n_from > work->n_into ? work->n_from : work->n_into;
    const size_t most = MMOPT_NCCL_CHUNK / work->element / (parts > 0 ? parts : 1);

    if (call->stream != NULL) {
        const ncclResult_t result = work->run(m, work, from, into, n, (cudaStream_t)call->stream);
        return result == ncclSuccess ? 0 : mmopt_nccl_fail(m, call, ncclGetErrorString(result));
    }
    for (size_t at = 0; at < n;) {
        const size_t part = n - at < most ? n - at : most, bytes = part * work->element;
        const char *why = NULL;
        ncclResult_t result;
        for (size_t r = 0; r < work->n_from; r++)
            cudaMemcpyAsync(m->from + r * bytes, (const char *)from + (r * n + at) * work->element,
                            bytes, cudaMemcpyHostToDevice, m->stream);
        result = work->run(m, work, m->from, m->into, part, m->stream);
        if (result != ncclSuccess)
            return mmopt_nccl_fail(m, call, ncclGetErrorString(result));
        why = mmopt_nccl_wait(m);
        for (size_t r = 0; r < work->n_into && why == NULL; r++) {
            const cudaError_t copied =
                cudaMemcpy((char *)into + (r * n + at) * work->element, m->into + r * bytes, bytes,
                           cudaMemcpyDeviceToHost);
            why = copied == cudaSuccess ? NULL : cudaGetErrorString(copied);
        }
        if (why != NULL)
            return mmopt_nccl_fail(m, call, why);
        at += part;
    }
    return 0;
}

/** Inside: NCCL's name of an element type. */
static inline ncclDataType_t mmopt_nccl_type(uint32_t dtype)
{
    switch (dtype) {
    case MMOPT_DTYPE_F32: return ncclFloat32;
    case MMOPT_DTYPE_F64: return ncclFloat64;
    case MMOPT_DTYPE_U64: return ncclUint64;
    default: return ncclInt64;
    }
}

static inline ncclResult_t mmopt_nccl_run_all_reduce(mmopt_nccl *m, const mmopt_nccl_work *w,
                                                     const void *from, void *into, size_t n,
                                                     cudaStream_t stream)
{
    return ncclAllReduce(from, into, n, w->type, ncclSum, m->comm, stream);
}

static inline ncclResult_t mmopt_nccl_run_broadcast(mmopt_nccl *m, const mmopt_nccl_work *w,
                                                    const void *from, void *into, size_t n,
                                                    cudaStream_t stream)
{
    return ncclBroadcast(from, into, n, w->type, w->peer, m->comm, stream);
}

static inline ncclResult_t mmopt_nccl_run_all_gather(mmopt_nccl *m, const mmopt_nccl_work *w,
                                                     const void *from, void *into, size_t n,
                                                     cudaStream_t stream)
{
    return ncclAllGather(from, into, n, w->type, m->comm, stream);
}

static inline ncclResult_t mmopt_nccl_run_reduce_scatter(mmopt_nccl *m, const mmopt_nccl_work *w,
                                                         const void *from, void *into, size_t n,
                                                         cudaStream_t stream)
{
    return ncclReduceScatter(from, into, n, w->type, ncclSum, m->comm, stream);
}

static inline ncclResult_t mmopt_nccl_run_send(mmopt_nccl *m, const mmopt_nccl_work *w,
                                               const void *from, void *into, size_t n,
                                               cudaStream_t stream)
{
    (void)into;
    return ncclSend(from, n, w->type, w->peer, m->comm, stream);
}

static inline ncclResult_t mmopt_nccl_run_receive(mmopt_nccl *m, const mmopt_nccl_work *w,
                                                  const void *from, void *into, size_t n,
                                                  cudaStream_t stream)
{
    (void)from;
    return ncclRecv(into, n, w->type, w->peer, m->comm, stream);
}

static inline size_t mmopt_nccl_rank(void *user)
{
    return (size_t)((mmopt_nccl *)user)->rank;
}

static inline size_t mmopt_nccl_size(void *user)
{
    return (size_t)((mmopt_nccl *)user)->size;
}

static inline uint32_t mmopt_nccl_all_reduce(void *user, mmopt_communicator_call *call, void *data,
                                             size_t n, uint32_t dtype)
{
    const size_t element = dtype == MMOPT_DTYPE_F32 ? 4 : 8;
    const mmopt_nccl_work work = {mmopt_nccl_run_all_reduce, mmopt_nccl_type(dtype), element, 1, 1, 0};
    return mmopt_nccl_do((mmopt_nccl *)user, call, &work, data, data, n);
}

static inline uint32_t mmopt_nccl_broadcast(void *user, mmopt_communicator_call *call, void *data,
                                            size_t n, size_t root)
{
    const mmopt_nccl_work work = {mmopt_nccl_run_broadcast, ncclUint8, 1, 1, 1, (int)root};
    return mmopt_nccl_do((mmopt_nccl *)user, call, &work, data, data, n);
}

static inline uint32_t mmopt_nccl_all_gather(void *user, mmopt_communicator_call *call,
                                             const void *data, size_t n, void *all)
{
    mmopt_nccl *m = (mmopt_nccl *)user;
    const mmopt_nccl_work work = {mmopt_nccl_run_all_gather, ncclUint8, 1, 1, (size_t)m->size, 0};
    return mmopt_nccl_do(m, call, &work, data, all, n);
}

static inline uint32_t mmopt_nccl_reduce_scatter(void *user, mmopt_communicator_call *call, void *data,
                                                 size_t n, uint32_t dtype, void *part)
{
    mmopt_nccl *m = (mmopt_nccl *)user;
    const size_t element = dtype == MMOPT_DTYPE_F32 ? 4 : 8;
    const mmopt_nccl_work work = {mmopt_nccl_run_reduce_scatter, mmopt_nccl_type(dtype), element,
                                  (size_t)m->size, 1, 0};
    return mmopt_nccl_do(m, call, &work, data, part, n);
}

static inline uint32_t mmopt_nccl_send(void *user, mmopt_communicator_call *call, const void *data,
                                       size_t n, size_t to)
{
    const mmopt_nccl_work work = {mmopt_nccl_run_send, ncclUint8, 1, 1, 0, (int)to};
    return mmopt_nccl_do((mmopt_nccl *)user, call, &work, data, NULL, n);
}

static inline uint32_t mmopt_nccl_receive(void *user, mmopt_communicator_call *call, void *data,
                                          size_t n, size_t from)
{
    const mmopt_nccl_work work = {mmopt_nccl_run_receive, ncclUint8, 1, 0, 1, (int)from};
    return mmopt_nccl_do((mmopt_nccl *)user, call, &work, NULL, data, n);
}

static inline uint32_t mmopt_nccl_barrier(void *user, mmopt_communicator_call *call)
{
    mmopt_communicator_call on_host = *call;
    float one = 1;
    on_host.stream = NULL;
    return mmopt_nccl_all_reduce(user, &on_host, &one, 1, MMOPT_DTYPE_F32);
}

static inline void mmopt_nccl_abort(void *user, const char *message)
{
    mmopt_nccl *m = (mmopt_nccl *)user;
    (void)message;
    m->failed = 1;
    ncclCommAbort(m->comm);
}

/** Inside: the host's communicator of NCCL stays the host's. */
static inline void mmopt_nccl_free(void *user)
{
    mmopt_nccl *m = (mmopt_nccl *)user;
    if (m == NULL)
        return;
    if (!m->failed) {
        cudaFree(m->from);
        cudaFree(m->into);
        cudaStreamDestroy(m->stream);
    }
    free(m);
}

/**
 * Makes a communicator of a rank of NCCL on the present GPU. comm stays the caller's, who destroys it
 * after the communicator and the trainers that use it; only mmopt_communicator_abort ends it. A call on
 * host memory fails after timeout seconds, above 0.
 *
 * Errors: INVALID_ARGUMENT, where NCCL or CUDA fail as a rank 0 of 0.
 */
static inline mmopt_error *mmopt_nccl_communicator_create(ncclComm_t comm, double timeout,
                                                          mmopt_communicator **communicator)
{
    mmopt_communicator_callbacks callbacks;
    mmopt_nccl *m = (mmopt_nccl *)calloc(1, sizeof *m);
    mmopt_nccl none;
    mmopt_error *error;

    memset(&none, 0, sizeof none);
    if (m != NULL) {
        int size = 0;
        m->comm = comm;
        m->timeout = timeout > 0 ? timeout : 1;
        if (ncclCommUserRank(comm, &m->rank) == ncclSuccess &&
            ncclCommCount(comm, &size) == ncclSuccess &&
            cudaStreamCreate(&m->stream) == cudaSuccess &&
            cudaMalloc((void **)&m->from, MMOPT_NCCL_CHUNK) == cudaSuccess &&
            cudaMalloc((void **)&m->into, MMOPT_NCCL_CHUNK) == cudaSuccess)
            m->size = size;
    }
    mmopt_communicator_callbacks_init(&callbacks);
    callbacks.user = m != NULL ? m : &none;
    callbacks.rank = mmopt_nccl_rank;
    callbacks.size = mmopt_nccl_size;
    callbacks.all_reduce = mmopt_nccl_all_reduce;
    callbacks.broadcast = mmopt_nccl_broadcast;
    callbacks.all_gather = mmopt_nccl_all_gather;
    callbacks.reduce_scatter = mmopt_nccl_reduce_scatter;
    callbacks.send = mmopt_nccl_send;
    callbacks.receive = mmopt_nccl_receive;
    callbacks.barrier = mmopt_nccl_barrier;
    callbacks.abort = mmopt_nccl_abort;
    callbacks.free_user = mmopt_nccl_free;
    error = mmopt_communicator_create(&callbacks, communicator);
    if (error != NULL)
        mmopt_nccl_free(m);
    return error;
}

#endif
