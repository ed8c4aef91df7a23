/* Trainers on several ranks, which are threads here: losses are those of one process. */
#include "ranks.h"

#include <math.h>

enum { STEPS = 6 };

static mmopt_corpus *corpus;
static mmopt_tokenizer *tokenizer;
static double losses[MAX_RANKS][STEPS];
static float bits[MAX_RANKS][64];
static size_t n_bits;

/* Ends the program: counters of checks are not for several threads. */
static void must(mmopt_error *error)
{
    if (error == NULL)
        return;
    printf("failed: %s\n", mmopt_error_message(error));
    exit(1);
}

static mmopt_trainer *make_trainer(void)
{
    mmopt_model_config sizes;
    mmopt_trainer_options options;
    mmopt_model *model = NULL;
    mmopt_trainer *trainer = NULL;

    mmopt_model_config_init(&sizes);
    sizes.n_layers = 1, sizes.hidden_size = 16, sizes.n_heads = 2;
    must(mmopt_model_for_corpus("bert", &sizes, tokenizer, corpus, &model));
    must(mmopt_model_set_dropout(model, 0));
    mmopt_trainer_options_init(&options, MMOPT_PRESET_INDEPENDENT);
    options.n_threads = 1;
    must(mmopt_trainer_create(&options, (const mmopt_model *const *)&model, 1, &trainer));
    mmopt_model_free(model);
    return trainer;
}

static mmopt_loader *make_loader(size_t rank, size_t n_ranks)
{
    mmopt_loader_options walk;
    mmopt_loader *loader = NULL;

    mmopt_loader_options_init(&walk);
    CHECK(walk.rank == 0 && walk.n_ranks == 1);
    walk.batch_size = 7, walk.rank = rank, walk.n_ranks = n_ranks;
    must(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)&tokenizer, 1, &walk, &loader));
    return loader;
}

static void train(size_t rank, mmopt_trainer *trainer, mmopt_loader *loader)
{
    for (int step = 0; step < STEPS; step++) {
        mmopt_batch *batch = NULL;
        mmopt_train_result result;
        must(mmopt_loader_next(loader, &batch));
        if (batch == NULL)
            must(mmopt_loader_next(loader, &batch));
        must(mmopt_trainer_forward_backward_batch(trainer, batch, &result));
        must(mmopt_trainer_step(trainer, NULL));
        losses[rank][step] = result.loss;
        mmopt_batch_free(batch);
    }
}

static void keep_bits(size_t rank, mmopt_trainer *trainer)
{
    mmopt_tensor tensor;
    size_t parameter;
    must(mmopt_trainer_parameter_index(trainer, 0, "classifier.weight", &parameter));
    must(mmopt_trainer_parameter(trainer, 0, parameter, &tensor, NULL));
    n_bits = tensor.n_bytes;
    if (n_bits > sizeof bits[0])
        exit(2);
    memcpy(bits[rank], tensor.data, n_bits);
}

static void *on_rank(void *user)
{
    struct rank *r = user;
    mmopt_communicator_callbacks callbacks;
    mmopt_communicator *communicator = NULL;
    mmopt_rank_options options;
    mmopt_trainer *trainer = make_trainer();
    mmopt_loader *loader = make_loader(r->rank, r->group->size);

    rank_callbacks(r, &callbacks);
    must(mmopt_communicator_create(&callbacks, &communicator));
    mmopt_rank_options_init(&options);
    options.bucket_bytes = 4000, options.check_every = 1;
    must(mmopt_trainer_set_communicator(trainer, communicator, &options));
    /* The trainer keeps it. */
    mmopt_communicator_free(communicator);
    train(r->rank, trainer, loader);
    keep_bits(r->rank, trainer);
    mmopt_trainer_free(trainer);
    mmopt_loader_free(loader);
    return NULL;
}

static uint32_t codes[MAX_RANKS][4];

static uint32_t code_of(mmopt_error *error)
{
    const uint32_t code = mmopt_error_code(error);
    mmopt_error_free(error);
    return code;
}

static uint32_t stop_on_last(void *user, const mmopt_progress *progress)
{
    const struct rank *r = user;
    (void)progress;
    return r->rank + 1 == r->group->size;
}

/* The last rank's progress callback stops a pass, and then a step: no rank does them. */
static void *refused(void *user)
{
    struct rank *r = user;
    mmopt_communicator_callbacks callbacks;
    mmopt_communicator *communicator = NULL;
    mmopt_trainer *trainer = make_trainer();
    mmopt_loader *loader = make_loader(r->rank, r->group->size);
    mmopt_batch *batch = NULL;

    rank_callbacks(r, &callbacks);
    must(mmopt_communicator_create(&callbacks, &communicator));
    must(mmopt_trainer_set_communicator(trainer, communicator, NULL));
    must(mmopt_loader_next(loader, &batch));
    must(mmopt_trainer_set_progress_callback(trainer, stop_on_last, r));
    codes[r->rank][0] = code_of(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    must(mmopt_trainer_set_progress_callback(trainer, NULL, NULL));
    must(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    must(mmopt_trainer_set_progress_callback(trainer, stop_on_last, r));
    codes[r->rank][1] = code_of(mmopt_trainer_step(trainer, NULL));
    must(mmopt_trainer_set_progress_callback(trainer, NULL, NULL));
    must(mmopt_trainer_step(trainer, NULL));
    codes[r->rank][2] = code_of(
        mmopt_trainer_fit(trainer, loader, NULL, 0, NULL, NULL, NULL, NULL, NULL));
    codes[r->rank][3] = code_of(mmopt_trainer_find_learning_rate(trainer, loader, NULL, NULL, NULL,
                                                                 NULL, NULL));
    mmopt_batch_free(batch);
    mmopt_trainer_free(trainer);
    mmopt_loader_free(loader);
    mmopt_communicator_free(communicator);
    return NULL;
}

/* Two models, one on each rank, or both on one; with shards of the state, two replicas. */
static mmopt_trainer *make_pair(const char *options_json)
{
    mmopt_model_config sizes;
    mmopt_trainer_options options;
    mmopt_model *models[2];
    mmopt_trainer *trainer = NULL;

    for (int i = 0; i < 2; i++) {
        mmopt_model_config_init(&sizes);
        sizes.n_layers = 1, sizes.hidden_size = 16, sizes.n_heads = 2;
        must(mmopt_model_for_corpus(i == 0 ? "one" : "other", &sizes, tokenizer, corpus, &models[i]));
        must(mmopt_model_set_seed(models[i], (uint64_t)i));
    }
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.n_threads = 1, options.sync_every = 2;
    options.options_json = options_json;
    must(mmopt_trainer_create(&options, (const mmopt_model *const *)models, 2, &trainer));
    mmopt_model_free(models[0]);
    mmopt_model_free(models[1]);
    return trainer;
}

static double pair_losses[MAX_RANKS + 1][STEPS][2];

static void train_pair(mmopt_trainer *trainer, size_t slot, size_t part, size_t n_parts)
{
    const mmopt_tokenizer *both[2] = {tokenizer, tokenizer};
    mmopt_loader_options walk;
    mmopt_loader *loader = NULL;

    mmopt_loader_options_init(&walk);
    walk.batch_size = 8, walk.rank = part, walk.n_ranks = n_parts;
    must(mmopt_loader_create(corpus, both, 2, &walk, &loader));
    for (int step = 0; step < STEPS; step++) {
        mmopt_batch *batch = NULL;
        mmopt_train_result results[2];
        must(mmopt_loader_next(loader, &batch));
        if (batch == NULL)
            must(mmopt_loader_next(loader, &batch));
        must(mmopt_trainer_forward_backward_batch(trainer, batch, results));
        must(mmopt_trainer_step(trainer, NULL));
        pair_losses[slot][step][0] = results[0].loss;
        pair_losses[slot][step][1] = results[1].loss;
        mmopt_batch_free(batch);
    }
    mmopt_loader_free(loader);
}

/* Reads of the other rank's model are refused until it is gathered; what spread cannot be left. */
static void *placed(void *user)
{
    struct rank *r = user;
    mmopt_communicator_callbacks callbacks;
    mmopt_communicator *communicator = NULL;
    mmopt_tensor tensor;
    char *plan = NULL;
    mmopt_trainer *trainer = make_pair("{\"placement\": {\"one\": 0, \"other\": 1}}");

    rank_callbacks(r, &callbacks);
    must(mmopt_communicator_create(&callbacks, &communicator));
    must(mmopt_trainer_set_communicator(trainer, communicator, NULL));
    train_pair(trainer, r->rank, 0, 1);
    codes[r->rank][0] = code_of(mmopt_trainer_parameter(trainer, 1 - r->rank, 0, &tensor, NULL));
    must(mmopt_trainer_gather_models(trainer));
    codes[r->rank][1] = code_of(mmopt_trainer_parameter(trainer, 1 - r->rank, 0, &tensor, NULL));
    codes[r->rank][2] = code_of(mmopt_trainer_set_communicator(trainer, NULL, NULL));
    must(mmopt_trainer_plan(trainer, &plan));
    codes[r->rank][3] = strstr(plan, "models on different ranks (one 0, other 1)") == NULL;
    mmopt_string_free(plan);
    mmopt_trainer_free(trainer);
    mmopt_communicator_free(communicator);
    return NULL;
}

/* Both ranks have the same examples, so that the means are those of one. */
static void *sharded(void *user)
{
    struct rank *r = user;
    mmopt_communicator_callbacks callbacks;
    mmopt_communicator *communicator = NULL;
    mmopt_rank_options options;
    mmopt_trainer *trainer = make_pair(NULL);

    rank_callbacks(r, &callbacks);
    must(mmopt_communicator_create(&callbacks, &communicator));
    mmopt_rank_options_init(&options);
    options.shard_state = 1, options.gradient_dtype = MMOPT_DTYPE_BF16, options.check_every = 1;
    options.overlap = 1;
    must(mmopt_trainer_set_communicator(trainer, communicator, &options));
    train_pair(trainer, r->rank, 0, 1);
    codes[r->rank][0] = code_of(mmopt_trainer_set_communicator(trainer, NULL, NULL));
    mmopt_trainer_free(trainer);
    mmopt_communicator_free(communicator);
    return NULL;
}

/* The ranks of each of two groups, and those with the same model. */
static struct group groups[2], columns[2];

/* Two groups of two ranks, with a model on each rank of a group. */
static void *grouped(void *user)
{
    struct rank *r = user, of_group, of_column;
    mmopt_communicator_callbacks callbacks;
    mmopt_communicator *communicator = NULL, *replicas = NULL;
    mmopt_rank_options options;
    char *plan = NULL;
    mmopt_trainer *trainer = make_pair("{\"placement\": {\"one\": 0, \"other\": 1}}");

    memset(&of_group, 0, sizeof of_group);
    of_column = of_group;
    of_group.group = &groups[r->rank / 2], of_group.rank = r->rank % 2;
    of_column.group = &columns[r->rank % 2], of_column.rank = r->rank / 2;
    rank_callbacks(&of_group, &callbacks);
    must(mmopt_communicator_create(&callbacks, &communicator));
    rank_callbacks(&of_column, &callbacks);
    must(mmopt_communicator_create(&callbacks, &replicas));
    mmopt_rank_options_init(&options);
    options.check_every = 1, options.replicas = replicas;
    codes[r->rank][0] = code_of(mmopt_trainer_set_communicator(trainer, NULL, &options));
    must(mmopt_trainer_set_communicator(trainer, communicator, &options));
    /* The trainer keeps both. */
    mmopt_communicator_free(communicator);
    mmopt_communicator_free(replicas);
    train_pair(trainer, r->rank, r->rank / 2, 2);
    must(mmopt_trainer_plan(trainer, &plan));
    codes[r->rank][1] = strstr(plan, r->rank < 2 ? "group 0 of 2" : "group 1 of 2") == NULL;
    mmopt_string_free(plan);
    mmopt_trainer_free(trainer);
    /* The communicator of all four, which each rank has from the launcher, is not needed here. */
    rank_free(r);
    return NULL;
}

static void groups_of_ranks(void)
{
    for (int i = 0; i < 2; i++) {
        group_init(&groups[i], 2);
        group_init(&columns[i], 2);
    }
    on_ranks(4, grouped);
    for (size_t rank = 0; rank < 4; rank++) {
        CHECK(memcmp(pair_losses[rank], pair_losses[0], sizeof pair_losses[0]) == 0);
        CHECK(codes[rank][0] == MMOPT_CODE_INVALID_ARGUMENT && codes[rank][1] == 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(groups[i].n_freed == 2 && columns[i].n_freed == 2);
        group_free(&groups[i]);
        group_free(&columns[i]);
    }
}

static void pairs(void)
{
    mmopt_trainer *trainer = make_pair(NULL);

    train_pair(trainer, MAX_RANKS, 0, 1);
    mmopt_trainer_free(trainer);
    on_ranks(2, placed);
    for (size_t rank = 0; rank < 2; rank++) {
        CHECK(memcmp(pair_losses[rank], pair_losses[MAX_RANKS], sizeof pair_losses[0]) == 0);
        CHECK(codes[rank][0] == MMOPT_CODE_STATE && codes[rank][1] == MMOPT_CODE_OK);
        CHECK(codes[rank][2] == MMOPT_CODE_STATE && codes[rank][3] == 0);
    }
    on_ranks(2, sharded);
    CHECK(memcmp(pair_losses[0], pair_losses[1], sizeof pair_losses[0]) == 0);
    CHECK(codes[0][0] == MMOPT_CODE_STATE && codes[1][0] == MMOPT_CODE_STATE);
}

static void options_and_errors(void)
{
    struct group group;
    struct rank rank;
    mmopt_communicator_callbacks callbacks;
    mmopt_communicator *communicator = NULL;
    mmopt_rank_options options;
    mmopt_loader_options walk;
    mmopt_loader *loader = make_loader(0, 1), *none = NULL;
    mmopt_trainer *trainer = make_trainer();
    mmopt_batch *batch = NULL;

    group_init(&group, 1);
    memset(&rank, 0, sizeof rank);
    rank.group = &group;
    rank_callbacks(&rank, &callbacks);
    OK(mmopt_communicator_create(&callbacks, &communicator));
    mmopt_rank_options_init(NULL);
    mmopt_rank_options_init(&options);
    CHECK(options.struct_size == sizeof options && options.bucket_bytes == 26214400);
    CHECK(options.check_every == 100 && options.sync_every == 0);
    CHECK(options.outer_lr == 0.7 && options.outer_momentum == 0.9);
    CHECK(options.shard_state == 0 && options.gradient_dtype == MMOPT_DTYPE_F32);
    CHECK(options.overlap == 0 && options.reserved == 0 && options.replicas == NULL);
    REFUSES_NULL(mmopt_trainer_set_communicator(NULL, communicator, &options));
    options.bucket_bytes = 0;
    FAILS(mmopt_trainer_set_communicator(trainer, communicator, &options),
          MMOPT_CODE_INVALID_ARGUMENT, "bucket_bytes is 0");
    mmopt_rank_options_init(&options);
    options.outer_lr = -1;
    FAILS(mmopt_trainer_set_communicator(trainer, communicator, &options),
          MMOPT_CODE_INVALID_ARGUMENT, "outer_lr");
    mmopt_rank_options_init(&options);
    options.gradient_dtype = MMOPT_DTYPE_F64;
    FAILS(mmopt_trainer_set_communicator(trainer, communicator, &options),
          MMOPT_CODE_INVALID_ARGUMENT, "gradient_dtype is");
    options.gradient_dtype = MMOPT_DTYPE_F32, options.shard_state = 2;
    FAILS(mmopt_trainer_set_communicator(trainer, communicator, &options),
          MMOPT_CODE_INVALID_ARGUMENT, "shard_state");
    options.shard_state = 0, options.overlap = 2;
    FAILS(mmopt_trainer_set_communicator(trainer, communicator, &options),
          MMOPT_CODE_INVALID_ARGUMENT, "overlap");
    options.overlap = 1, options.sync_every = 4;
    FAILS(mmopt_trainer_set_communicator(trainer, communicator, &options), MMOPT_CODE_UNSUPPORTED,
          "overlap with local steps");
    options.overlap = 0, options.sync_every = 0, options.reserved = 1;
    FAILS(mmopt_trainer_set_communicator(trainer, communicator, &options), MMOPT_CODE_UNSUPPORTED,
          "reserved");
    options.reserved = 0;
    options.shard_state = 1, options.sync_every = 4;
    FAILS(mmopt_trainer_set_communicator(trainer, communicator, &options), MMOPT_CODE_UNSUPPORTED,
          "shard_state with local steps");
    REFUSES_NULL(mmopt_trainer_gather_models(NULL));
    OK(mmopt_trainer_gather_models(trainer));
    OK(mmopt_loader_next(loader, &batch));
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    FAILS(mmopt_trainer_set_communicator(trainer, communicator, NULL), MMOPT_CODE_STATE,
          "finished step");
    OK(mmopt_trainer_step(trainer, NULL));
    OK(mmopt_trainer_set_communicator(trainer, communicator, NULL));
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    OK(mmopt_trainer_step(trainer, NULL));
    /* The next call of a function fails: the pass does, and its gradients are gone. */
    rank.fails_at = 1;
    FAILS(mmopt_trainer_forward_backward_batch(trainer, batch, NULL), MMOPT_CODE_COMMUNICATION,
          "the cable is out");
    FAILS(mmopt_trainer_step(trainer, NULL), MMOPT_CODE_STATE, "without gradients");
    OK(mmopt_trainer_set_communicator(trainer, NULL, NULL));
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    OK(mmopt_trainer_step(trainer, NULL));

    mmopt_loader_options_init(&walk);
    walk.rank = 2, walk.n_ranks = 2;
    FAILS(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)&tokenizer, 1, &walk, &none),
          MMOPT_CODE_INVALID_ARGUMENT, "rank 2 of 2");
    mmopt_batch_free(batch);
    mmopt_trainer_free(trainer);
    mmopt_loader_free(loader);
    mmopt_communicator_free(communicator);
    CHECK(group.n_freed == 1);
    group_free(&group);
}

int main(void)
{
    mmopt_tokenizer_options words;
    double expected[STEPS];
    mmopt_trainer *alone;
    mmopt_loader *loader;

    OK(mmopt_corpus_synthetic(24, 1, 0.0, &corpus));
    mmopt_tokenizer_options_init(&words);
    words.vocab_size = 300, words.model_max_length = 32;
    OK(mmopt_tokenizer_train(corpus, &words, &tokenizer));
    options_and_errors();
    alone = make_trainer();
    loader = make_loader(0, 1);
    train(0, alone, loader);
    memcpy(expected, losses[0], sizeof expected);
    mmopt_trainer_free(alone);
    mmopt_loader_free(loader);
    /* The last batch of an epoch has 3 rows, so that of 4 ranks one has a filler. */
    for (size_t n = 1; n <= MAX_RANKS; n++) {
        on_ranks(n, on_rank);
        for (size_t rank = 0; rank < n; rank++) {
            for (int step = 0; step < STEPS; step++)
                CHECK(fabs(losses[rank][step] - expected[step]) < 1e-5);
            CHECK(memcmp(bits[rank], bits[0], n_bits) == 0);
        }
    }
    on_ranks(2, refused);
    for (size_t rank = 0; rank < 2; rank++) {
        CHECK(codes[rank][0] == MMOPT_CODE_CANCELLED);
        CHECK(codes[rank][1] == MMOPT_CODE_CANCELLED);
        CHECK(codes[rank][2] == MMOPT_CODE_UNSUPPORTED);
        CHECK(codes[rank][3] == MMOPT_CODE_UNSUPPORTED);
    }
    pairs();
    groups_of_ranks();
    mmopt_corpus_free(corpus);
    mmopt_tokenizer_free(tokenizer);
    return finish();
}
