/* Two models on the ranks of MPI, for scripts/test_mpi.sh:
 *
 *     train FOLDER STEPS [alone] [resume] [save] [ends N | stalls N] [local H] [every N]
 *           [teachers] [placed] [groups N] [shard] [bf16] [overlap] [times] [rows N]
 *
 * Each rank writes into FOLDER/rank.R: a line for each step with its losses, a checksum of the weights,
 * and bytes. The last rank ends or stalls before step N; the others then say what they see and how long
 * it took, and rank 0 leaves the communicator and writes a checkpoint of the last step. alone: without a
 * communicator. local: steps of each rank alone, meetings every H. every: checksums so often. save: a
 * checkpoint after the last step. teachers: with those of the default preset and synchronisation. placed: a model on each
 * rank. groups: so many groups of ranks, each with both models. shard: each rank has a part of the moments. bf16: gradients on the wire. overlap: sums while passes
 * run. times: at the end, how long a pass of the last model takes. rows: of a batch of all
 * ranks together, 15 if nothing is said. The time at the end is the median step's. */
#include <mmopt_mpi.h>

#include <signal.h>
#include <unistd.h>

enum { TIMEOUT = 4, MAX_TIMES = 64 };

struct run {
    const char *folder;
    unsigned long steps, bad_step;
    int alone, resume, save, ends, teachers, placed, times;
    int rank, size, n_groups, group;
    size_t rows;
    double seconds[MAX_TIMES]; /* of the last steps */
    size_t n_seconds;
    mmopt_rank_options options;
    mmopt_corpus *corpus;
    mmopt_tokenizer *tokenizers[2];
    mmopt_trainer *trainer;
    mmopt_loader *loader;
    mmopt_communicator *communicator, *replicas;
    /* The loader's place after the last step. */
    char *place;
};

static void must(mmopt_error *error)
{
    if (error == NULL)
        return;
    printf("failed: %s\n", mmopt_error_message(error));
    fflush(stdout);
    MPI_Abort(MPI_COMM_WORLD, 1);
    _exit(1);
}

static void make(struct run *r)
{
    static const uint32_t architectures[2] = {MMOPT_ARCHITECTURE_BERT, MMOPT_ARCHITECTURE_GPT2};
    mmopt_model *models[2];
    mmopt_trainer_options options;
    mmopt_loader_options walk;

    must(mmopt_corpus_synthetic(400, 1, 0.03, &r->corpus));
    for (int i = 0; i < 2; i++) {
        mmopt_tokenizer_options words;
        mmopt_model_config sizes;
        mmopt_tokenizer_options_init(&words);
        words.architecture = architectures[i];
        words.vocab_size = 500, words.model_max_length = 32;
        must(mmopt_tokenizer_train(r->corpus, &words, &r->tokenizers[i]));
        mmopt_model_config_init(&sizes);
        sizes.architecture = architectures[i];
        sizes.n_layers = 2, sizes.hidden_size = 64, sizes.n_heads = 4;
        must(mmopt_model_for_corpus(i == 0 ? "bert" : "gpt2", &sizes, r->tokenizers[i], r->corpus,
                                    &models[i]));
        must(mmopt_model_set_dropout(models[i], 0));
    }
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = 5e-4;
    options.n_threads = 1;
    options.share_rule = MMOPT_SHARE_RULE_GATED;
    options.options_json = r->teachers ? "{\"sync_every\": 3}" : "{\"mutual\": null}";
    if (r->placed)
        options.options_json = r->size == 1
                                   ? "{\"sync_every\": 3, \"placement\": {\"bert\": 0, \"gpt2\": 0}}"
                                   : "{\"sync_every\": 3, \"placement\": {\"bert\": 1, \"gpt2\": 0}}";
    must(mmopt_trainer_create(&options, (const mmopt_model *const *)models, 2, &r->trainer));
    mmopt_model_free(models[0]);
    mmopt_model_free(models[1]);
    mmopt_loader_options_init(&walk);
    walk.batch_size = r->rows;
    /* Models on different ranks read the same batches, of their group. */
    if (!r->placed)
        walk.rank = (size_t)r->rank, walk.n_ranks = (size_t)r->size;
    else
        walk.rank = (size_t)r->group, walk.n_ranks = (size_t)r->n_groups;
    must(mmopt_loader_create(r->corpus, (const mmopt_tokenizer *const *)r->tokenizers, 2, &walk,
                             &r->loader));
}

static void keep_place(struct run *r)
{
    mmopt_string_free(r->place);
    must(mmopt_loader_state(r->loader, &r->place));
}

/* What the plan says of ranks. */
static void print_plan(const struct run *r)
{
    char *plan;
    const char *line;
    must(mmopt_trainer_plan(r->trainer, &plan));
    line = strstr(plan, "ranks: ");
    if (line != NULL)
        printf("%s", line);
    mmopt_string_free(plan);
}

/* Bytes of all parameters, and a checksum of them. */
static unsigned long long weights(const struct run *r, uint64_t *sum)
{
    unsigned long long n_bytes = 0;
    *sum = 14695981039346656037u;
    for (size_t m = 0; m < 2; m++) {
        size_t n = mmopt_trainer_n_parameters(r->trainer, m);
        for (size_t p = 0; p < n; p++) {
            mmopt_tensor tensor;
            must(mmopt_trainer_parameter(r->trainer, m, p, &tensor, NULL));
            for (size_t i = 0; i < tensor.n_bytes; i++)
                *sum = (*sum ^ ((const unsigned char *)tensor.data)[i]) * 1099511628211u;
            n_bytes += tensor.n_bytes;
        }
    }
    return n_bytes;
}

static char *checkpoint(const struct run *r)
{
    static char path[4096];
    snprintf(path, sizeof path, "%s/checkpoint", r->folder);
    return path;
}

/* The others have to live with a rank that is gone: the last step is saved. */
static void rescue(struct run *r, mmopt_error *error, double started)
{
    const double waited = MPI_Wtime() - started;
    if (mmopt_error_code(error) != MMOPT_CODE_COMMUNICATION)
        must(error);
    printf("after %.2f s: %s\n", waited, mmopt_error_message(error));
    if (waited > TIMEOUT + 0.5)
        printf("failed: late\n");
    mmopt_error_free(error);
    if (r->placed && r->rank == 0) {
        /* The models of the rank that is gone are gone, too. */
        error = mmopt_trainer_set_communicator(r->trainer, NULL, NULL);
        if (mmopt_error_code(error) != MMOPT_CODE_STATE)
            printf("failed: left with a part of the models\n");
        mmopt_error_free(error);
        printf("saved\n");
    } else if (r->rank == 0) {
        must(mmopt_trainer_set_communicator(r->trainer, NULL, NULL));
        must(mmopt_trainer_save_checkpoint(r->trainer, checkpoint(r), r->place));
        printf("saved\n");
    }
    fflush(stdout);
    /* Rank 0 has more to do than the others, and launchers may end all when one ends. */
    sleep(2);
    _exit(0);
}

static void train(struct run *r)
{
    unsigned long step = (unsigned long)mmopt_trainer_n_steps(r->trainer);
    while (++step <= r->steps) {
        mmopt_batch *batch = NULL;
        mmopt_train_result results[2];
        mmopt_error *error;
        double started;
        must(mmopt_loader_next(r->loader, &batch));
        if (batch == NULL)
            must(mmopt_loader_next(r->loader, &batch));
        if (step == r->bad_step && r->rank == r->size - 1) {
            if (r->ends)
                raise(SIGKILL);
            sleep(TIMEOUT + 4);
            _exit(0);
        }
        started = MPI_Wtime();
        error = mmopt_trainer_forward_backward_batch(r->trainer, batch, results);
        if (error == NULL)
            error = mmopt_trainer_step(r->trainer, NULL);
        if (error != NULL)
            rescue(r, error, started);
        r->seconds[r->n_seconds++ % MAX_TIMES] = MPI_Wtime() - started;
        mmopt_batch_free(batch);
        printf("step %lu losses %.9f %.9f\n", step, results[0].loss, results[1].loss);
        keep_place(r);
    }
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
    if (n > MAX_TIMES)
        n = MAX_TIMES;
    qsort(values, n, sizeof *values, compare);
    return n == 0 ? 0 : values[n / 2];
}

/* The median time of a pass of the last model by itself. */
static void time_passes(struct run *r)
{
    enum { PASSES = 20 };
    double seconds[PASSES];

    for (int i = 0; i < PASSES; i++) {
        mmopt_batch *batch = NULL;
        const mmopt_tensor *tensors;
        size_t n;
        double started;
        must(mmopt_loader_next(r->loader, &batch));
        if (batch == NULL)
            must(mmopt_loader_next(r->loader, &batch));
        must(mmopt_batch_tensors(batch, 1, &tensors, &n));
        started = MPI_Wtime();
        must(mmopt_trainer_forward_backward(r->trainer, 1, tensors, n, NULL));
        seconds[i] = MPI_Wtime() - started;
        must(mmopt_trainer_zero_grad(r->trainer));
        mmopt_batch_free(batch);
    }
    printf("last pass %.4f s\n", median(seconds, PASSES));
}

static void parse(struct run *r, int argc, char **argv)
{
    mmopt_rank_options_init(&r->options);
    r->folder = argv[1];
    r->steps = strtoul(argv[2], NULL, 10);
    r->rows = 15;
    r->n_groups = 1;
    for (int i = 3; i < argc; i++) {
        const char *word = argv[i];
        r->alone |= strcmp(word, "alone") == 0;
        r->resume |= strcmp(word, "resume") == 0;
        r->ends |= strcmp(word, "ends") == 0;
        r->save |= strcmp(word, "save") == 0;
        r->teachers |= strcmp(word, "teachers") == 0;
        r->placed |= strcmp(word, "placed") == 0;
        r->times |= strcmp(word, "times") == 0;
        r->options.shard_state |= strcmp(word, "shard") == 0;
        r->options.overlap |= strcmp(word, "overlap") == 0;
        if (strcmp(word, "bf16") == 0)
            r->options.gradient_dtype = MMOPT_DTYPE_BF16;
        if (i + 1 == argc)
            break;
        if (strcmp(word, "ends") == 0 || strcmp(word, "stalls") == 0)
            r->bad_step = strtoul(argv[++i], NULL, 10);
        else if (strcmp(word, "groups") == 0)
            r->n_groups = atoi(argv[++i]);
        else if (strcmp(word, "rows") == 0)
            r->rows = strtoul(argv[++i], NULL, 10);
        else if (strcmp(word, "local") == 0)
            r->options.sync_every = strtoul(argv[++i], NULL, 10);
        else if (strcmp(word, "every") == 0)
            r->options.check_every = strtoul(argv[++i], NULL, 10);
    }
}

/* The communicators of this rank's group, and of the ranks of its number in all groups. */
static void connect(struct run *r)
{
    const int timeout = r->bad_step > 0 ? TIMEOUT : 120, n = r->size / r->n_groups;
    MPI_Comm group = MPI_COMM_WORLD, column;

    if (r->n_groups > 1) {
        MPI_Comm_split(MPI_COMM_WORLD, r->rank / n, r->rank, &group);
        MPI_Comm_split(MPI_COMM_WORLD, r->rank % n, r->rank, &column);
        must(mmopt_mpi_communicator_create(column, timeout, &r->replicas));
        r->options.replicas = r->replicas;
    }
    must(mmopt_mpi_communicator_create(group, timeout, &r->communicator));
}

int main(int argc, char **argv)
{
    struct run run;
    char path[4096];
    mmopt_traffic before, after;
    unsigned long long n_bytes;
    uint64_t sum;

    MPI_Init(&argc, &argv);
    /* The launcher of MPICH tells of a rank that has ended by this signal. */
    signal(SIGUSR1, SIG_IGN);
    if (argc < 3)
        return 2;
    memset(&run, 0, sizeof run);
    MPI_Comm_rank(MPI_COMM_WORLD, &run.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &run.size);
    parse(&run, argc, argv);
    snprintf(path, sizeof path, "%s/rank.%d", run.folder, run.rank);
    if (freopen(path, "w", stdout) == NULL)
        return 2;
    run.group = run.rank / (run.size / run.n_groups);
    make(&run);
    connect(&run);
    if (!run.alone)
        must(mmopt_trainer_set_communicator(run.trainer, run.communicator, &run.options));
    keep_place(&run);
    if (run.resume) {
        char *place;
        must(mmopt_trainer_resume(run.trainer, checkpoint(&run), &place));
        must(mmopt_loader_restore(run.loader, place));
        mmopt_string_free(place);
    }
    must(mmopt_communicator_traffic(run.communicator, &before));
    train(&run);
    must(mmopt_communicator_traffic(run.communicator, &after));
    must(mmopt_trainer_gather_models(run.trainer));
    n_bytes = weights(&run, &sum);
    if (run.save)
        must(mmopt_trainer_save_checkpoint(run.trainer, checkpoint(&run), run.place));
    print_plan(&run);
    printf("weights %016llx\n", (unsigned long long)sum);
    printf("sent %.1f a step of gradients %llu in %.4f s\n",
           (double)(after.wire_bytes - before.wire_bytes) / (double)run.steps, n_bytes,
           median(run.seconds, run.n_seconds));
    if (run.times)
        time_passes(&run);
    mmopt_string_free(run.place);
    mmopt_trainer_free(run.trainer);
    mmopt_communicator_free(run.communicator);
    mmopt_communicator_free(run.replicas);
    mmopt_loader_free(run.loader);
    mmopt_corpus_free(run.corpus);
    mmopt_tokenizer_free(run.tokenizers[0]);
    mmopt_tokenizer_free(run.tokenizers[1]);
    MPI_Finalize();
    return 0;
}
