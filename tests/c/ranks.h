/* Ranks that are threads of one program: a communicator of functions over shared memory. */
#ifndef MMOPT_TEST_RANKS_H
#define MMOPT_TEST_RANKS_H

#include "check.h"

#include <pthread.h>

enum { MAX_RANKS = 4 };

/* What all ranks share: where each rank's buffer is while an operation runs. */
struct group {
    size_t size;
    pthread_barrier_t barrier;
    const void *buffers[MAX_RANKS];
    /* Messages, of one byte count at a time for each pair. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const void *mail[MAX_RANKS][MAX_RANKS];
    int n_freed;
};

/* One rank of it, and what goes wrong there: fails_at counts down with each call. */
struct rank {
    struct group *group;
    size_t rank;
    int fails_at, n_aborted;
    char why[64];
};

static inline void group_init(struct group *g, size_t size)
{
    memset(g, 0, sizeof *g);
    g->size = size;
    pthread_barrier_init(&g->barrier, NULL, (unsigned)size);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->changed, NULL);
}

static inline void group_free(struct group *g)
{
    pthread_barrier_destroy(&g->barrier);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->changed);
}

static inline uint32_t rank_fails(struct rank *r, mmopt_communicator_call *call)
{
    if (call->stream != NULL || call->message[0] != 0 || call->message_size < 256)
        return 99;
    if (r->fails_at == 0 || --r->fails_at > 0)
        return 0;
    snprintf(call->message, call->message_size, "the cable is out at rank %d", (int)r->rank);
    return 7;
}

static inline void rank_meet(struct rank *r)
{
    pthread_barrier_wait(&r->group->barrier);
}

static inline size_t rank_rank(void *user)
{
    return ((struct rank *)user)->rank;
}

static inline size_t rank_size(void *user)
{
    return ((struct rank *)user)->group->size;
}

/* The sum of element i of all ranks' buffers into one of them, in order of rank. */
static inline void rank_sum(const struct rank *r, void *into, size_t i, size_t at, uint32_t dtype)
{
    for (size_t k = 0; k < r->group->size; k++) {
        const void *b = r->group->buffers[k];
        switch (dtype) {
        case MMOPT_DTYPE_F32:
            ((float *)into)[at] = (k ? ((float *)into)[at] : 0) + ((const float *)b)[i];
            break;
        case MMOPT_DTYPE_F64:
            ((double *)into)[at] = (k ? ((double *)into)[at] : 0) + ((const double *)b)[i];
            break;
        case MMOPT_DTYPE_U64:
        case MMOPT_DTYPE_I64:
            ((uint64_t *)into)[at] = (k ? ((uint64_t *)into)[at] : 0) + ((const uint64_t *)b)[i];
            break;
        default: exit(3);
        }
    }
}

static inline uint32_t rank_all_reduce(void *user, mmopt_communicator_call *call, void *data, size_t n,
                                       uint32_t dtype)
{
    struct rank *r = user;
    const size_t size = dtype == MMOPT_DTYPE_F32 ? 4 : 8;
    const uint32_t failed = rank_fails(r, call);
    void *sums;

    if (failed)
        return failed;
    sums = malloc(n * size);
    r->group->buffers[r->rank] = data;
    rank_meet(r);
    for (size_t i = 0; i < n; i++)
        rank_sum(r, sums, i, i, dtype);
    rank_meet(r);
    memcpy(data, sums, n * size);
    free(sums);
    return 0;
}

static inline uint32_t rank_broadcast(void *user, mmopt_communicator_call *call, void *data, size_t n,
                                      size_t root)
{
    struct rank *r = user;
    const uint32_t failed = rank_fails(r, call);

    if (failed)
        return failed;
    r->group->buffers[r->rank] = data;
    rank_meet(r);
    if (r->rank != root)
        memcpy(data, r->group->buffers[root], n);
    rank_meet(r);
    return 0;
}

static inline uint32_t rank_all_gather(void *user, mmopt_communicator_call *call, const void *data,
                                       size_t n, void *all)
{
    struct rank *r = user;
    const uint32_t failed = rank_fails(r, call);

    if (failed)
        return failed;
    r->group->buffers[r->rank] = data;
    rank_meet(r);
    for (size_t k = 0; k < r->group->size; k++)
        memcpy((char *)all + k * n, r->group->buffers[k], n);
    rank_meet(r);
    return 0;
}

static inline uint32_t rank_reduce_scatter(void *user, mmopt_communicator_call *call, void *data,
                                           size_t n, uint32_t dtype, void *part)
{
    struct rank *r = user;
    const uint32_t failed = rank_fails(r, call);

    if (failed)
        return failed;
    r->group->buffers[r->rank] = data;
    rank_meet(r);
    for (size_t i = 0; i < n; i++)
        rank_sum(r, part, r->rank * n + i, i, dtype);
    rank_meet(r);
    return 0;
}

/* The sender waits until its message is read. */
static inline uint32_t rank_send(void *user, mmopt_communicator_call *call, const void *data, size_t n,
                                 size_t to)
{
    struct rank *r = user;
    struct group *g = r->group;
    const uint32_t failed = rank_fails(r, call);

    (void)n;
    if (failed)
        return failed;
    pthread_mutex_lock(&g->lock);
    g->mail[r->rank][to] = data;
    pthread_cond_broadcast(&g->changed);
    while (g->mail[r->rank][to] != NULL)
        pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
    return 0;
}

static inline uint32_t rank_receive(void *user, mmopt_communicator_call *call, void *data, size_t n,
                                    size_t from)
{
    struct rank *r = user;
    struct group *g = r->group;
    const uint32_t failed = rank_fails(r, call);

    if (failed)
        return failed;
    pthread_mutex_lock(&g->lock);
    while (g->mail[from][r->rank] == NULL)
        pthread_cond_wait(&g->changed, &g->lock);
    memcpy(data, g->mail[from][r->rank], n);
    g->mail[from][r->rank] = NULL;
    pthread_cond_broadcast(&g->changed);
    pthread_mutex_unlock(&g->lock);
    return 0;
}

static inline uint32_t rank_barrier(void *user, mmopt_communicator_call *call)
{
    struct rank *r = user;
    const uint32_t failed = rank_fails(r, call);
    if (!failed)
        rank_meet(r);
    return failed;
}

static inline void rank_abort(void *user, const char *message)
{
    struct rank *r = user;
    r->n_aborted++;
    snprintf(r->why, sizeof r->why, "%s", message);
}

static inline void rank_free(void *user)
{
    struct rank *r = user;
    pthread_mutex_lock(&r->group->lock);
    r->group->n_freed++;
    pthread_mutex_unlock(&r->group->lock);
}

static inline void rank_callbacks(struct rank *r, mmopt_communicator_callbacks *c)
{
    mmopt_communicator_callbacks_init(c);
    c->user = r;
    c->rank = rank_rank;
    c->size = rank_size;
    c->all_reduce = rank_all_reduce;
    c->broadcast = rank_broadcast;
    c->all_gather = rank_all_gather;
    c->reduce_scatter = rank_reduce_scatter;
    c->send = rank_send;
    c->receive = rank_receive;
    c->barrier = rank_barrier;
    c->abort = rank_abort;
    c->free_user = rank_free;
}

/* Runs a function on a thread for each rank, with that rank. */
static inline void on_ranks(size_t size, void *(*work)(void *rank))
{
    struct group group;
    struct rank ranks[MAX_RANKS];
    pthread_t threads[MAX_RANKS];

    group_init(&group, size);
    memset(ranks, 0, sizeof ranks);
    for (size_t i = 0; i < size; i++) {
        ranks[i].group = &group;
        ranks[i].rank = i;
        if (pthread_create(&threads[i], NULL, work, &ranks[i]) != 0)
            exit(3);
    }
    for (size_t i = 0; i < size; i++)
        pthread_join(threads[i], NULL);
    CHECK(group.n_freed == (int)size);
    group_free(&group);
}

#endif
