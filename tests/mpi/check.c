/* The communicator of mmopt_mpi.h between processes: every operation, large messages in parts, ranks
 * that end or stall.
 *
 *     check works | ends | stalls | aborts | differs [FOLDER]
 *
 * In the last four the last rank does so, and the others say within 2 seconds what they see, in files of
 * FOLDER: launchers lose what is printed around the end of a rank. */
#define MMOPT_MPI_CHUNK 1000
#include <mmopt_mpi.h>

#include <signal.h>
#include <unistd.h>

static int rank;

static void fail(const char *what)
{
    printf("rank %d: failed: %s\n", rank, what);
    fflush(stdout);
    MPI_Abort(MPI_COMM_WORLD, 1);
    _exit(1);
}

static void ok(mmopt_error *error)
{
    if (error != NULL)
        fail(mmopt_error_message(error));
}

/* Parts that are cut many times: MMOPT_MPI_CHUNK is small here. The functions are called as the library
 * calls them. */
static void large(mmopt_mpi *m)
{
    enum { N = 1003 };
    char message[256] = "";
    mmopt_communicator_call call = {NULL, message, sizeof message, {0}};
    const size_t size = (size_t)m->size, own = (size_t)m->rank;
    double *numbers = malloc(N * size * sizeof *numbers), *part = malloc(N * sizeof *part);
    char *all = malloc(N * size), bytes[N];

    for (size_t i = 0; i < N; i++)
        numbers[i] = (double)(i + own), bytes[i] = (char)(i * 7 + own);
    if (mmopt_mpi_all_reduce(m, &call, numbers, N, MMOPT_DTYPE_F64))
        fail(message);
    for (size_t i = 0; i < N; i++)
        if (numbers[i] != (double)(i * size + size * (size - 1) / 2))
            fail("all_reduce");
    if (mmopt_mpi_all_gather(m, &call, bytes, N, all))
        fail(message);
    for (size_t i = 0; i < N * size; i++)
        if (all[i] != (char)(i % N * 7 + i / N))
            fail("all_gather");
    if (mmopt_mpi_broadcast(m, &call, bytes, N, size - 1))
        fail(message);
    for (size_t i = 0; i < N; i++)
        if (bytes[i] != (char)(i * 7 + size - 1))
            fail("broadcast");
    for (size_t i = 0; i < N * size; i++)
        numbers[i] = (double)i;
    if (mmopt_mpi_reduce_scatter(m, &call, numbers, N, MMOPT_DTYPE_F64, part))
        fail(message);
    for (size_t i = 0; i < N; i++)
        if (part[i] != (double)(size * (own * N + i)))
            fail("reduce_scatter");
    if (size > 1 && own == 0 && mmopt_mpi_send(m, &call, all, N, 1))
        fail(message);
    if (own == 1) {
        if (mmopt_mpi_receive(m, &call, bytes, N, 0))
            fail(message);
        if (memcmp(bytes, all, N) != 0)
            fail("send or receive");
    }
    free(numbers);
    free(part);
    free(all);
}

static void works(mmopt_communicator *communicator)
{
    mmopt_mpi m;
    int size;

    for (int i = 0; i < 20; i++)
        ok(mmopt_communicator_check(communicator));
    memset(&m, 0, sizeof m);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_dup(MPI_COMM_WORLD, &m.comm);
    m.rank = rank, m.size = size, m.timeout = 30;
    m.tokens = calloc(2 * (size_t)size + 2, sizeof *m.tokens);
    m.requests = calloc(2 * (size_t)size + 1, sizeof *m.requests);
    m.statuses = calloc(2 * (size_t)size + 1, sizeof *m.statuses);
    m.stage = malloc(MMOPT_MPI_CHUNK);
    m.stage2 = malloc(MMOPT_MPI_CHUNK);
    large(&m);
    MPI_Comm_free(&m.comm);
    free(m.tokens);
    free(m.requests);
    free(m.statuses);
    free(m.stage);
    free(m.stage2);
    mmopt_communicator_free(communicator);
    MPI_Finalize();
    if (rank == 0)
        printf("works on %d ranks\n", size);
    exit(0);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "works", *expected = NULL;
    mmopt_communicator *communicator = NULL;
    mmopt_error *error = NULL;
    int size;
    double start;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    /* The launcher of MPICH tells of a rank that has ended by this signal. */
    signal(SIGUSR1, SIG_IGN);
    if (argc > 2) {
        char path[4096];
        snprintf(path, sizeof path, "%s/rank.%d", argv[2], rank);
        if (freopen(path, "w", stdout) == NULL)
            fail("cannot write into the folder");
    }
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    ok(mmopt_mpi_communicator_create(MPI_COMM_WORLD, strcmp(mode, "works") == 0 ? 60 : 2,
                                     &communicator));
    if (strcmp(mode, "works") == 0)
        works(communicator);
    ok(mmopt_communicator_check(communicator));
    if (rank == size - 1) {
        if (strcmp(mode, "ends") == 0)
            raise(SIGKILL);
        if (strcmp(mode, "stalls") == 0)
            sleep(6);
        if (strcmp(mode, "aborts") == 0)
            ok(mmopt_communicator_abort(communicator, "told to"));
        if (strcmp(mode, "differs") == 0)
            error = mmopt_communicator_check(communicator);
        else
            sleep(1);
        mmopt_error_free(error);
        _exit(0);
    }
    start = MPI_Wtime();
    error = mmopt_communicator_barrier(communicator);
    expected = strcmp(mode, "aborts") == 0    ? "has given up"
               : strcmp(mode, "differs") == 0 ? "in another call"
                                              : "ended or stalled";
    if (mmopt_error_code(error) != MMOPT_CODE_COMMUNICATION ||
        strstr(mmopt_error_message(error), expected) == NULL)
        fail(error == NULL ? "no error" : mmopt_error_message(error));
    printf("rank %d after %.2f s: %s\n", rank, MPI_Wtime() - start, mmopt_error_message(error));
    if (MPI_Wtime() - start > 2.3)
        fail("late");
    mmopt_error_free(error);
    fflush(stdout);
    /* The missing rank would be waited for by MPI_Finalize. */
    _exit(0);
}
