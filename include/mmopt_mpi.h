/**
 * @file mmopt_mpi.h
 * A communicator of libmmopt on MPI, version 3 or later. Header-only: it is compiled with the program,
 * against the mpi.h of the MPI that runs it, because the binary interfaces of Open MPI and MPICH
 * differ. The library itself knows no MPI.
 *
 *     MPI_Init(NULL, NULL);
 *     mmopt_communicator *communicator = NULL;
 *     mmopt_error *error = mmopt_mpi_communicator_create(MPI_COMM_WORLD, 60, &communicator);
 *
 * Buffers are host memory. Each operation has a time limit: non-blocking calls are polled, so a rank
 * that has ended or stalled makes the others return an error with its number. To know who is missing,
 * ranks exchange a token of 16 bytes with each other rank before each collective operation.
 *
 * After an error ranks do not agree any more: the communicator fails from then on. MPI_Finalize may
 * wait for the missing rank forever; end the process by MPI_Abort or _Exit. Whether the others live on
 * when a process ends is the launcher's choice: mpirun --enable-recovery of Open MPI 4, mpirun
 * --with-ft ulfm of Open MPI 5 (not tried), mpiexec -disable-auto-cleanup of MPICH, which also sends
 * SIGUSR1 to the others: the program must ignore or handle it.
 */
#ifndef MMOPT_MPI_H
#define MMOPT_MPI_H

#include <mmopt.h>

#include <limits.h>
#include <mpi.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/** What an operation moves at once, in bytes; at most INT_MAX. The time limit counts anew for each. */
#ifndef MMOPT_MPI_CHUNK
#define MMOPT_MPI_CHUNK (4 << 20)
#endif

/** Inside: one rank's state. Its buffers are not freed after a failure, as MPI may still write there. */
typedef struct mmopt_mpi {
    MPI_Comm comm;
    int rank, size, failed;
    double timeout;
    /** The operations so far. */
    uint64_t n_operations;
    /** Two numbers that are sent, and two from each rank. */
    uint64_t *tokens;
    MPI_Request *requests;
    MPI_Status *statuses;
    /** MMOPT_MPI_CHUNK bytes, twice: MPI never sees memory of the library, which may be freed after a
     * failure. */
    char *stage, *stage2;
} mmopt_mpi;

/** Inside: what a token says. */
enum {
    MMOPT_MPI_TAG_TOKEN = 1,
    MMOPT_MPI_TAG_DATA = 2,
    MMOPT_MPI_TAG_LATE = 3,
    MMOPT_MPI_ALL_REDUCE = 1,
    MMOPT_MPI_BROADCAST,
    MMOPT_MPI_ALL_GATHER,
    MMOPT_MPI_REDUCE_SCATTER,
    MMOPT_MPI_BARRIER,
    MMOPT_MPI_ABORTED
};

/** Inside: notes why an operation fails, with a number after the text. */
static inline uint32_t mmopt_mpi_fail(mmopt_mpi *m, mmopt_communicator_call *call, const char *text,
                                      int number)
{
    m->failed = 1;
    snprintf(call->message, call->message_size, "%s %d", text, number);
    return 1;
}

/** Inside: refuses memory of a device. */
static inline uint32_t mmopt_mpi_check(mmopt_mpi *m, mmopt_communicator_call *call)
{
    if (call->stream == NULL)
        return 0;
    m->failed = 1;
    snprintf(call->message, call->message_size, "mmopt_mpi.h moves host memory only");
    return 1;
}

/** Inside: notes an error of MPI. */
static inline uint32_t mmopt_mpi_error(mmopt_mpi *m, mmopt_communicator_call *call, int code)
{
    int length = 0;
    char text[MPI_MAX_ERROR_STRING + 1];

    m->failed = 1;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
        length = 0;
    text[length] = 0;
    snprintf(call->message, call->message_size, "MPI: %s", text);
    return 2;
}

/** Inside: lets others run while there is nothing to do; the longer the wait, the longer the sleep. */
static inline void mmopt_mpi_idle(double waited)
{
    if (waited < 0.02)
        sched_yield();
    else
        poll(NULL, 0, 1);
}

/** Inside: waits for n requests until a time. Returns an error of MPI, or MPI_SUCCESS; done tells
 * whether all are complete. */
static inline int mmopt_mpi_poll(mmopt_mpi *m, MPI_Request *requests, int n, double end, int *done)
{
    const double start = MPI_Wtime();
    for (;;) {
        const int code = MPI_Testall(n, requests, done, m->statuses);
        const double now = MPI_Wtime();
        if (code != MPI_SUCCESS || *done || now > end)
            return code;
        mmopt_mpi_idle(now - start);
    }
}

/** Inside: sends a token to each other rank and waits for theirs until a time. missing becomes a rank
 * whose token did not come, or -1; n_missing how many. */
static inline int mmopt_mpi_tokens(mmopt_mpi *m, int operation, int tag, double end, int *missing,
                                   int *n_missing)
{
    int n = 0, done = 0, code = MPI_SUCCESS;
    MPI_Request *sent = m->requests, *received = m->requests + m->size;

    m->tokens[0] = m->n_operations;
    m->tokens[1] = (uint64_t)operation;
    for (int r = 0; r < m->size && code == MPI_SUCCESS; r++) {
        sent[r] = received[r] = MPI_REQUEST_NULL;
        if (r == m->rank)
            continue;
        code = MPI_Irecv(m->tokens + 2 + 2 * r, 2, MPI_UINT64_T, r, tag, m->comm, &received[r]);
        if (code == MPI_SUCCESS)
            code = MPI_Isend(m->tokens, 2, MPI_UINT64_T, r, tag, m->comm, &sent[r]);
    }
    *missing = -1;
    if (code == MPI_SUCCESS)
        code = mmopt_mpi_poll(m, m->requests, 2 * m->size, end, &done);
    if (done && code == MPI_SUCCESS)
        return code;
    for (int r = m->size - 1; r >= 0; r--) {
        int came = 1;
        if (received[r] != MPI_REQUEST_NULL &&
            (MPI_Test(&received[r], &came, MPI_STATUS_IGNORE) != MPI_SUCCESS || !came))
            *missing = r, n++;
    }
    *n_missing = n;
    return code;
}

/** Inside: says who is missing. */
static inline uint32_t mmopt_mpi_missing(mmopt_mpi *m, mmopt_communicator_call *call, int missing,
                                         int n_missing, const char *what)
{
    m->failed = 1;
    if (missing < 0)
        snprintf(call->message, call->message_size,
                 "a rank ended or stalled: no answer within %g s, %s", m->timeout, what);
    else if (n_missing == 1)
        snprintf(call->message, call->message_size,
                 "rank %d ended or stalled: no answer within %g s, %s", missing, m->timeout, what);
    else
        snprintf(call->message, call->message_size,
                 "rank %d and %d more ended or stalled: no answer within %g s, %s", missing,
                 n_missing - 1, m->timeout, what);
    return 3;
}

/** Inside: begins a collective operation: all ranks are there, and in the same one. Four fifths of the
 * time are for it; the rest is for finding out who is missing. */
static inline uint32_t mmopt_mpi_begin(mmopt_mpi *m, mmopt_communicator_call *call, int operation)
{
    int missing, n_missing = 0, code;

    if (mmopt_mpi_check(m, call))
        return 1;
    m->n_operations++;
    code = mmopt_mpi_tokens(m, operation, MMOPT_MPI_TAG_TOKEN, MPI_Wtime() + 0.8 * m->timeout,
                            &missing, &n_missing);
    if (missing >= 0)
        return mmopt_mpi_missing(m, call, missing, n_missing, "before an operation of all ranks");
    if (code != MPI_SUCCESS)
        return mmopt_mpi_error(m, call, code);
    for (int r = 0; r < m->size; r++) {
        const uint64_t *token = m->tokens + 2 + 2 * r;
        if (r == m->rank || memcmp(token, m->tokens, 2 * sizeof *token) == 0)
            continue;
        return mmopt_mpi_fail(m, call,
                              token[1] == MMOPT_MPI_ABORTED
                                  ? "a rank has given up: rank"
                                  : "a rank is in another call than this one: rank",
                              r);
    }
    return 0;
}

/** Inside: waits for what a collective operation has begun. */
static inline uint32_t mmopt_mpi_finish(mmopt_mpi *m, mmopt_communicator_call *call, int code,
                                        MPI_Request *request)
{
    int done = 0, missing = -1, n_missing = 0;

    if (code == MPI_SUCCESS)
        code = mmopt_mpi_poll(m, request, 1, MPI_Wtime() + 0.8 * m->timeout, &done);
    if (done && code == MPI_SUCCESS)
        return 0;
    mmopt_mpi_tokens(m, MMOPT_MPI_ABORTED, MMOPT_MPI_TAG_LATE, MPI_Wtime() + 0.2 * m->timeout,
                     &missing, &n_missing);
    if (code == MPI_SUCCESS || missing >= 0)
        return mmopt_mpi_missing(m, call, missing, n_missing, "within an operation of all ranks");
    return mmopt_mpi_error(m, call, code);
}

/** Inside: MPI's name of an element type; its size. */
static inline MPI_Datatype mmopt_mpi_type(uint32_t dtype, size_t *size)
{
    *size = dtype == MMOPT_DTYPE_F32 ? 4 : 8;
    switch (dtype) {
    case MMOPT_DTYPE_F32: return MPI_FLOAT;
    case MMOPT_DTYPE_F64: return MPI_DOUBLE;
    case MMOPT_DTYPE_U64: return MPI_UINT64_T;
    case MMOPT_DTYPE_I64: return MPI_INT64_T;
    default: return MPI_DATATYPE_NULL;
    }
}

/** Inside: the next part of n elements of a size of which parts fit into the stage. */
static inline size_t mmopt_mpi_part(size_t n, size_t size)
{
    const size_t most = (size_t)(MMOPT_MPI_CHUNK) / size;
    return n < most ? n : most;
}

static inline size_t mmopt_mpi_rank(void *user)
{
    return (size_t)((mmopt_mpi *)user)->rank;
}

static inline size_t mmopt_mpi_size(void *user)
{
    return (size_t)((mmopt_mpi *)user)->size;
}

static inline uint32_t mmopt_mpi_all_reduce(void *user, mmopt_communicator_call *call, void *data,
                                            size_t n, uint32_t dtype)
{
    mmopt_mpi *m = (mmopt_mpi *)user;
    char *at = (char *)data;
    size_t size;
    const MPI_Datatype type = mmopt_mpi_type(dtype, &size);
    uint32_t failed = 0;

    if (type == MPI_DATATYPE_NULL)
        return mmopt_mpi_fail(m, call, "mmopt_mpi.h does not sum the element type", (int)dtype);
    failed = mmopt_mpi_begin(m, call, MMOPT_MPI_ALL_REDUCE);
    while (n > 0 && !failed) {
        const size_t part = mmopt_mpi_part(n, size);
        MPI_Request request = MPI_REQUEST_NULL;
        memcpy(m->stage, at, part * size);
        failed = mmopt_mpi_finish(
            m, call,
            MPI_Iallreduce(MPI_IN_PLACE, m->stage, (int)part, type, MPI_SUM, m->comm, &request),
            &request);
        if (!failed)
            memcpy(at, m->stage, part * size);
        at += part * size, n -= part;
    }
    return failed;
}

static inline uint32_t mmopt_mpi_broadcast(void *user, mmopt_communicator_call *call, void *data,
                                           size_t n, size_t root)
{
    mmopt_mpi *m = (mmopt_mpi *)user;
    char *at = (char *)data;
    uint32_t failed = mmopt_mpi_begin(m, call, MMOPT_MPI_BROADCAST);

    while (n > 0 && !failed) {
        const size_t part = mmopt_mpi_part(n, 1);
        MPI_Request request = MPI_REQUEST_NULL;
        memcpy(m->stage, at, part);
        failed = mmopt_mpi_finish(
            m, call, MPI_Ibcast(m->stage, (int)part, MPI_BYTE, (int)root, m->comm, &request),
            &request);
        if (!failed)
            memcpy(at, m->stage, part);
        at += part, n -= part;
    }
    return failed;
}

static inline uint32_t mmopt_mpi_all_gather(void *user, mmopt_communicator_call *call,
                                            const void *data, size_t n, void *all)
{
    mmopt_mpi *m = (mmopt_mpi *)user;
    const char *from = (const char *)data;
    uint32_t failed = mmopt_mpi_begin(m, call, MMOPT_MPI_ALL_GATHER);

    for (size_t at = 0; at < n && !failed;) {
        const size_t part = mmopt_mpi_part(n - at, (size_t)m->size);
        MPI_Request request = MPI_REQUEST_NULL;
        memcpy(m->stage, from + at, part);
        failed = mmopt_mpi_finish(m, call,
                                  MPI_Iallgather(m->stage, (int)part, MPI_BYTE, m->stage2, (int)part,
                                                 MPI_BYTE, m->comm, &request),
                                  &request);
        for (size_t r = 0; r < (size_t)m->size && !failed; r++)
            memcpy((char *)all + r * n + at, m->stage2 + r * part, part);
        at += part;
    }
    return failed;
}

static inline uint32_t mmopt_mpi_reduce_scatter(void *user, mmopt_communicator_call *call, void *data,
                                                size_t n, uint32_t dtype, void *part_of_rank)
{
    mmopt_mpi *m = (mmopt_mpi *)user;
    size_t size;
    const MPI_Datatype type = mmopt_mpi_type(dtype, &size);
    uint32_t failed;

    if (type == MPI_DATATYPE_NULL)
        return mmopt_mpi_fail(m, call, "mmopt_mpi.h does not sum the element type", (int)dtype);
    failed = mmopt_mpi_begin(m, call, MMOPT_MPI_REDUCE_SCATTER);
    for (size_t at = 0; at < n && !failed;) {
        const size_t part = mmopt_mpi_part(n - at, size * (size_t)m->size);
        MPI_Request request = MPI_REQUEST_NULL;
        for (size_t r = 0; r < (size_t)m->size; r++)
            memcpy(m->stage + r * part * size, (char *)data + (r * n + at) * size, part * size);
        failed = mmopt_mpi_finish(m, call,
                                  MPI_Ireduce_scatter_block(m->stage, m->stage2, (int)part, type,
                                                            MPI_SUM, m->comm, &request),
                                  &request);
        if (!failed)
            memcpy((char *)part_of_rank + at * size, m->stage2, part * size);
        at += part;
    }
    return failed;
}

/** Inside: a message to or from one rank. */
static inline uint32_t mmopt_mpi_message(mmopt_mpi *m, mmopt_communicator_call *call, char *data,
                                         size_t n, size_t other, int sends)
{
    if (mmopt_mpi_check(m, call))
        return 1;
    while (n > 0) {
        const size_t part = mmopt_mpi_part(n, 1);
        const double end = MPI_Wtime() + m->timeout;
        MPI_Request request = MPI_REQUEST_NULL;
        int done = 0, code;
        if (sends)
            memcpy(m->stage, data, part);
        code = sends ? MPI_Isend(m->stage, (int)part, MPI_BYTE, (int)other, MMOPT_MPI_TAG_DATA,
                                 m->comm, &request)
                     : MPI_Irecv(m->stage, (int)part, MPI_BYTE, (int)other, MMOPT_MPI_TAG_DATA,
                                 m->comm, &request);
        if (code == MPI_SUCCESS)
            code = mmopt_mpi_poll(m, &request, 1, end, &done);
        if (code != MPI_SUCCESS)
            return mmopt_mpi_error(m, call, code);
        if (!done)
            return mmopt_mpi_missing(m, call, (int)other, 1, "in a message");
        if (!sends)
            memcpy(data, m->stage, part);
        data += part, n -= part;
    }
    return 0;
}

static inline uint32_t mmopt_mpi_send(void *user, mmopt_communicator_call *call, const void *data,
                                      size_t n, size_t to)
{
    return mmopt_mpi_message((mmopt_mpi *)user, call, (char *)data, n, to, 1);
}

static inline uint32_t mmopt_mpi_receive(void *user, mmopt_communicator_call *call, void *data,
                                         size_t n, size_t from)
{
    return mmopt_mpi_message((mmopt_mpi *)user, call, (char *)data, n, from, 0);
}

/** The tokens are a barrier. */
static inline uint32_t mmopt_mpi_barrier(void *user, mmopt_communicator_call *call)
{
    return mmopt_mpi_begin((mmopt_mpi *)user, call, MMOPT_MPI_BARRIER);
}

/** Inside: the token that says so; it needs no answer. */
static inline void mmopt_mpi_abort(void *user, const char *message)
{
    mmopt_mpi *m = (mmopt_mpi *)user;
    const double end = MPI_Wtime() + (m->timeout < 1 ? m->timeout : 1);
    int done = 0;

    (void)message;
    m->failed = 1;
    m->tokens[0] = 0;
    m->tokens[1] = MMOPT_MPI_ABORTED;
    for (int r = 0; r < m->size; r++) {
        m->requests[r] = MPI_REQUEST_NULL;
        if (r != m->rank)
            MPI_Isend(m->tokens, 2, MPI_UINT64_T, r, MMOPT_MPI_TAG_TOKEN, m->comm, &m->requests[r]);
    }
    mmopt_mpi_poll(m, m->requests, m->size, end, &done);
}

/** Inside: after a failure MPI may still use the buffers. */
static inline void mmopt_mpi_free(void *user)
{
    mmopt_mpi *m = (mmopt_mpi *)user;
    int finalized = 0;

    if (m == NULL || m->failed)
        return;
    MPI_Finalized(&finalized);
    if (!finalized && m->comm != MPI_COMM_NULL)
        MPI_Comm_free(&m->comm);
    free(m->tokens);
    free(m->requests);
    free(m->statuses);
    free(m->stage);
    free(m->stage2);
    free(m);
}

/**
 * Makes a communicator of the ranks of comm, which is duplicated: all of its ranks make this call, and
 * later messages of the program do not meet those of the library. Every call fails after timeout
 * seconds, above 0, when another rank has not joined it, or MMOPT_MPI_CHUNK bytes have not arrived;
 * passes and steps of different length on different ranks count, too. Free it before MPI_Finalize.
 *
 * Errors: INVALID_ARGUMENT, where MPI fails or there is no memory as a rank 0 of 0.
 */
static inline mmopt_error *mmopt_mpi_communicator_create(MPI_Comm comm, double timeout,
                                                         mmopt_communicator **communicator)
{
    mmopt_communicator_callbacks callbacks;
    mmopt_mpi *m = (mmopt_mpi *)calloc(1, sizeof *m);
    mmopt_mpi none;
    mmopt_error *error;

    memset(&none, 0, sizeof none);
    if (m != NULL) {
        int size = 0, good;
        m->comm = MPI_COMM_NULL;
        m->timeout = timeout > 0 ? timeout : 1;
        good = MPI_Comm_dup(comm, &m->comm) == MPI_SUCCESS &&
               MPI_Comm_set_errhandler(m->comm, MPI_ERRORS_RETURN) == MPI_SUCCESS &&
               MPI_Comm_rank(m->comm, &m->rank) == MPI_SUCCESS &&
               MPI_Comm_size(m->comm, &size) == MPI_SUCCESS;
        m->tokens = (uint64_t *)calloc(2 * (size_t)size + 2, sizeof *m->tokens);
        m->requests = (MPI_Request *)calloc(2 * (size_t)size + 1, sizeof *m->requests);
        m->statuses = (MPI_Status *)calloc(2 * (size_t)size + 1, sizeof *m->statuses);
        m->stage = (char *)malloc(MMOPT_MPI_CHUNK);
        m->stage2 = (char *)malloc(MMOPT_MPI_CHUNK);
        good = good && m->tokens != NULL && m->requests != NULL && m->statuses != NULL &&
               m->stage != NULL && m->stage2 != NULL;
        m->size = good ? size : 0;
    }
    mmopt_communicator_callbacks_init(&callbacks);
    callbacks.user = m != NULL ? m : &none;
    callbacks.rank = mmopt_mpi_rank;
    callbacks.size = mmopt_mpi_size;
    callbacks.all_reduce = mmopt_mpi_all_reduce;
    callbacks.broadcast = mmopt_mpi_broadcast;
    callbacks.all_gather = mmopt_mpi_all_gather;
    callbacks.reduce_scatter = mmopt_mpi_reduce_scatter;
    callbacks.send = mmopt_mpi_send;
    callbacks.receive = mmopt_mpi_receive;
    callbacks.barrier = mmopt_mpi_barrier;
    callbacks.abort = mmopt_mpi_abort;
    callbacks.free_user = mmopt_mpi_free;
    error = mmopt_communicator_create(&callbacks, communicator);
    if (error != NULL)
        mmopt_mpi_free(m);
    return error;
}

#endif
