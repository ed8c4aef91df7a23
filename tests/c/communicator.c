/* Communicators of the host's functions: what they are asked for, and what becomes of failures. */
#include "ranks.h"

static pthread_mutex_t checks = PTHREAD_MUTEX_INITIALIZER;

static mmopt_communicator *made(struct rank *r)
{
    mmopt_communicator_callbacks callbacks;
    mmopt_communicator *communicator = NULL;
    rank_callbacks(r, &callbacks);
    OK(mmopt_communicator_create(&callbacks, &communicator));
    return communicator;
}

/* Checks are counted, so ranks make them one at a time; calls between ranks stand outside. */
static void *all_operations(void *user)
{
    struct rank *r = user;
    mmopt_communicator *communicator;
    mmopt_traffic traffic;
    mmopt_error *error, *met;

    pthread_mutex_lock(&checks);
    communicator = made(r);
    CHECK(mmopt_communicator_rank(communicator) == r->rank);
    CHECK(mmopt_communicator_size(communicator) == r->group->size);
    pthread_mutex_unlock(&checks);
    error = mmopt_communicator_check(communicator);
    met = mmopt_communicator_barrier(communicator);
    pthread_mutex_lock(&checks);
    OK(error);
    OK(met);
    OK(mmopt_communicator_traffic(communicator, &traffic));
    CHECK(traffic.n_calls > 8 && traffic.all_reduce_bytes == 5 * (4 + 3 * 8));
    CHECK(traffic.all_gather_bytes == 5 && traffic.broadcast_bytes == 10);
    CHECK(traffic.reduce_scatter_bytes == 5 * 4 * r->group->size);
    CHECK(traffic.send_bytes == (r->group->size > 1 ? 3u : 0u));
    CHECK(traffic.wire_bytes > 0 || r->group->size == 1);
    mmopt_communicator_free(communicator);
    pthread_mutex_unlock(&checks);
    return NULL;
}

static void refusals(void)
{
    struct group group;
    struct rank rank;
    mmopt_communicator_callbacks good, bad;
    mmopt_communicator *communicator = NULL;
    mmopt_traffic traffic;

    group_init(&group, 1);
    memset(&rank, 0, sizeof rank);
    rank.group = &group;
    rank_callbacks(&rank, &good);
    REFUSES_NULL(mmopt_communicator_create(NULL, &communicator));
    REFUSES_NULL(mmopt_communicator_create(&good, NULL));
#define WITHOUT(field)                                                                           \
    bad = good;                                                                                  \
    bad.field = NULL;                                                                            \
    FAILS(mmopt_communicator_create(&bad, &communicator), MMOPT_CODE_INVALID_ARGUMENT, #field)
    WITHOUT(rank);
    WITHOUT(size);
    WITHOUT(all_reduce);
    WITHOUT(broadcast);
    WITHOUT(all_gather);
    WITHOUT(reduce_scatter);
    WITHOUT(send);
    WITHOUT(receive);
    WITHOUT(barrier);
    rank.rank = 1;
    FAILS(mmopt_communicator_create(&good, &communicator), MMOPT_CODE_INVALID_ARGUMENT,
          "rank 1 of 1");
    CHECK(group.n_freed == 0 && communicator == NULL);
    CHECK(mmopt_communicator_size(NULL) == 0 && mmopt_communicator_rank(NULL) == 0);
    mmopt_communicator_free(NULL);

    /* abort and free_user may be missing. */
    rank.rank = 0;
    bad = good;
    bad.abort = NULL;
    bad.free_user = NULL;
    OK(mmopt_communicator_create(&bad, &communicator));
    OK(mmopt_communicator_abort(communicator, "done"));
    mmopt_communicator_free(communicator);
    CHECK(group.n_freed == 0);

    communicator = made(&rank);
    REFUSES_NULL(mmopt_communicator_abort(communicator, NULL));
    REFUSES_NULL(mmopt_communicator_traffic(communicator, NULL));
    rank.fails_at = 3;
    FAILS(mmopt_communicator_check(communicator), MMOPT_CODE_COMMUNICATION,
          "rank 0 of 1, all_reduce: the host's function returned 7: the cable is out at rank 0");
    FAILS(mmopt_communicator_barrier(communicator), MMOPT_CODE_COMMUNICATION, "failed before");
    OK(mmopt_communicator_traffic(communicator, &traffic));
    CHECK(traffic.n_calls == 3);
    OK(mmopt_communicator_abort(communicator, "no use"));
    CHECK(rank.n_aborted == 1);
    mmopt_communicator_free(communicator);

    communicator = made(&rank);
    OK(mmopt_communicator_abort(communicator, "the host gives up"));
    OK(mmopt_communicator_abort(communicator, "again"));
    CHECK(rank.n_aborted == 2 && strcmp(rank.why, "the host gives up") == 0);
    FAILS(mmopt_communicator_barrier(communicator), MMOPT_CODE_COMMUNICATION, "the host gives up");
    mmopt_communicator_free(communicator);
    CHECK(group.n_freed == 2);
    group_free(&group);
}

int main(void)
{
    refusals();
    for (size_t n = 1; n <= MAX_RANKS; n++)
        on_ranks(n, all_operations);
    return finish();
}
