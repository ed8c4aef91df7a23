/* The ranks of joint_train: one, or with -DJOINT_TRAIN_MPI all that mpirun starts. */
#ifndef MMOPT_JOINT_RANKS_H
#define MMOPT_JOINT_RANKS_H

#include "joint_options.h"

#ifdef JOINT_TRAIN_MPI
#include <mmopt_mpi.h>
#endif

/* Seconds that ranks wait for each other: rank 0 evaluates while the others wait. */
enum { RANK_TIMEOUT = 1800 };

/* This process's place among all. */
struct ranks {
    mmopt_communicator *communicator; /* NULL without MPI */
    size_t rank, n;
};

static inline struct ranks start_ranks(int *argc, char ***argv)
{
    struct ranks ranks = {NULL, 0, 1};
#ifdef JOINT_TRAIN_MPI
    MPI_Init(argc, argv);
    check(mmopt_mpi_communicator_create(MPI_COMM_WORLD, RANK_TIMEOUT, &ranks.communicator));
    ranks.rank = mmopt_communicator_rank(ranks.communicator);
    ranks.n = mmopt_communicator_size(ranks.communicator);
#else
    (void)argc, (void)argv;
#endif
    return ranks;
}

/* Makes the trainer a replica. All ranks call it. */
static inline void join_ranks(const struct ranks *ranks, const struct settings *s,
                              mmopt_trainer *trainer)
{
    mmopt_rank_options options;

    if (ranks->communicator == NULL)
        return;
    mmopt_rank_options_init(&options);
    options.sync_every = s->sync_every;
    options.outer_lr = s->outer_lr;
    options.outer_momentum = s->outer_momentum;
    check(mmopt_trainer_set_communicator(trainer, ranks->communicator, &options));
}

/* Bytes that this rank has sent; 0 alone. */
static inline unsigned long long bytes_sent(const struct ranks *ranks)
{
    mmopt_traffic traffic;

    if (ranks->communicator == NULL)
        return 0;
    check(mmopt_communicator_traffic(ranks->communicator, &traffic));
    return traffic.wire_bytes;
}

static inline void end_ranks(struct ranks *ranks)
{
    mmopt_communicator_free(ranks->communicator);
#ifdef JOINT_TRAIN_MPI
    MPI_Finalize();
#endif
}

#endif
