/* The training loop as one call: its callback, its result, its files, resuming; the rate finder. */
#include "tiny.h"

#include <math.h>

static mmopt_loader *held_out;

static mmopt_loader *make_loader(size_t batch_size, uint32_t shuffle)
{
    mmopt_loader_options walk;
    mmopt_loader *made = NULL;
    mmopt_loader_options_init(&walk);
    walk.batch_size = batch_size, walk.shuffle = shuffle, walk.pad_to_multiple_of = 32;
    OK(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)tokenizers, 2, &walk, &made));
    return made;
}

static mmopt_trainer *small_trainer(void)
{
    mmopt_trainer_options options;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.options_json = "{\"ema_decay\": 0.99}";
    options.learning_rate = 1e-3;
    options.n_threads = 1;
    return make_trainer(&options);
}

/* What the callback has seen, and after how many calls it ends the fit. */
struct seen { unsigned n_steps, n_evaluations, end_after; double loss; };

static uint32_t on_progress(void *user, const mmopt_fit_progress *progress)
{
    struct seen *seen = user;
    int evaluated = progress->event == MMOPT_FIT_EVENT_EVALUATION;
    CHECK(progress->n_models == 2 && progress->losses[0] > 0 && progress->losses[1] > 0);
    CHECK((progress->scores != NULL) == evaluated && isnan(progress->monitored) == !evaluated);
    CHECK(progress->n_batches == 4 && progress->batch <= 4 && progress->step > 0);
    seen->loss = progress->losses[0];
    if (evaluated)
        seen->n_evaluations++;
    else
        seen->n_steps++;
    return seen->n_steps + seen->n_evaluations == seen->end_after;
}

static uint32_t stop(void *user, const mmopt_progress *progress)
{
    (void)user;
    return progress->phase == MMOPT_PHASE_EVALUATE;
}

static void test_nulls(mmopt_trainer *trainer)
{
    const mmopt_loader *none[1] = {NULL};
    const mmopt_loader *same[1] = {loader};
    mmopt_fit_options options;
    mmopt_find_learning_rate_options find;

    mmopt_fit_options_init(NULL);
    mmopt_find_learning_rate_options_init(NULL);
    REFUSES_NULL(mmopt_trainer_fit(NULL, loader, NULL, 0, NULL, NULL, NULL, NULL, NULL));
    REFUSES_NULL(mmopt_trainer_fit(trainer, NULL, NULL, 0, NULL, NULL, NULL, NULL, NULL));
    REFUSES_NULL(mmopt_trainer_fit(trainer, loader, NULL, 1, NULL, NULL, NULL, NULL, NULL));
    REFUSES_NULL(mmopt_trainer_fit(trainer, loader, none, 1, NULL, NULL, NULL, NULL, NULL));
    FAILS(mmopt_trainer_fit(trainer, loader, same, 1, NULL, NULL, NULL, NULL, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "evaluation_loaders[0] is the loader to train on");
    mmopt_fit_options_init(&options);
    options.monitor = "none";
    FAILS(mmopt_trainer_fit(trainer, loader, NULL, 0, &options, NULL, NULL, NULL, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "monitor is set, but no evaluation loaders");
    mmopt_fit_options_init(&options);
    options.metric = 7;
    FAILS(mmopt_trainer_fit(trainer, loader, NULL, 0, &options, NULL, NULL, NULL, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "metric is 7");
    REFUSES_NULL(mmopt_trainer_find_learning_rate(NULL, loader, NULL, NULL, NULL, NULL, NULL));
    REFUSES_NULL(mmopt_trainer_find_learning_rate(trainer, NULL, NULL, NULL, NULL, NULL, NULL));
    mmopt_find_learning_rate_options_init(&find);
    find.n_steps = (uint64_t)1 << 40;
    FAILS(mmopt_trainer_find_learning_rate(trainer, loader, &find, NULL, NULL, NULL, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "n_steps");
    CHECK(mmopt_trainer_n_steps(trainer) == 0);
}

static size_t length_of(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return 0;
    fseek(file, 0, SEEK_END);
    long n = ftell(file);
    fclose(file);
    return n < 0 ? 0 : (size_t)n;
}

static void test_fit(mmopt_trainer *trainer, const char *folder)
{
    static char checkpoints[4096], jsonl[4096], csv[4096], events[4096];
    const mmopt_loader *evaluation[1] = {held_out};
    struct seen seen = {0, 0, 3, 0};
    mmopt_evaluate_options how;
    mmopt_fit_options options;
    mmopt_fit_result result;
    mmopt_fit_best best[2];

    snprintf(checkpoints, sizeof checkpoints, "%s/checkpoints", folder);
    snprintf(jsonl, sizeof jsonl, "%s/log.jsonl", folder);
    snprintf(csv, sizeof csv, "%s/log.csv", folder);
    snprintf(events, sizeof events, "%s/events", folder);
    mmopt_evaluate_options_init(&how);
    mmopt_fit_options_init(&options);
    CHECK(options.epochs == 3 && options.log_every == 1 && options.keep_best == 0);
    options.epochs = 2;
    options.evaluate_every = 2;
    options.keep_best = 1;
    options.use_ema_weights = 1;
    options.evaluate = &how;
    options.checkpoint_dir = checkpoints;
    options.checkpoint_every = 3;
    options.resume = 1;
    options.jsonl_path = jsonl, options.csv_path = csv, options.tensorboard_dir = events;
    options.histogram_every = 4;
    /* The callback ends it after the evaluation that follows step 2; resumed, it goes to its end. */
    OK(mmopt_trainer_fit(trainer, loader, evaluation, 1, &options, on_progress, &seen, &result,
                         best));
    CHECK(result.reason == MMOPT_STOP_REASON_CANCELLED && result.steps == 2);
    CHECK(seen.n_steps == 2 && seen.n_evaluations == 1 && !result.restored_best);
    size_t before = length_of(jsonl);
    OK(mmopt_trainer_fit(trainer, loader, evaluation, 1, &options, on_progress, &seen, &result,
                         best));
    CHECK(result.reason == MMOPT_STOP_REASON_EPOCHS && result.steps == 8 && result.epochs == 2);
    CHECK(seen.n_steps == 8 && seen.n_evaluations == 4 && result.restored_best == 1);
    CHECK(best[0].score >= 0 && best[0].score <= 1 && best[0].step % 2 == 0 && best[1].step > 0);
    CHECK(result.best_score <= 1 && result.best_step > 0);
    CHECK(mmopt_trainer_n_steps(trainer) == 8);
    CHECK(before > 0 && length_of(jsonl) > before && length_of(csv) > 0);

    /* Without evaluation there is no best. */
    mmopt_fit_options_init(&options);
    options.max_steps = 1;
    OK(mmopt_trainer_fit(trainer, loader, NULL, 0, &options, NULL, NULL, &result, best));
    CHECK(result.reason == MMOPT_STOP_REASON_MAX_STEPS && result.steps == 1);
    CHECK(isnan(result.best_score) && isnan(best[1].score) && best[1].step == 0);

    /* The loss of the first model, which does not fall by 100. */
    options.epochs = 0, options.max_steps = 9;
    options.evaluate_every = 1, options.patience = 2, options.min_delta = 100;
    options.metric = MMOPT_METRIC_LOSS, options.monitor = "bert";
    OK(mmopt_trainer_fit(trainer, loader, evaluation, 1, &options, NULL, NULL, &result, NULL));
    CHECK(result.reason == MMOPT_STOP_REASON_EARLY_STOPPING && result.steps == 3);
    CHECK(result.best_score > 0 && result.best_step == 10);

    /* The trainer's own callback ends it with an error. */
    OK(mmopt_trainer_set_progress_callback(trainer, stop, NULL));
    FAILS(mmopt_trainer_fit(trainer, loader, evaluation, 1, &options, NULL, NULL, NULL, NULL),
          MMOPT_CODE_CANCELLED, "asked to stop");
    OK(mmopt_trainer_set_progress_callback(trainer, NULL, NULL));
}

static void test_find_learning_rate(mmopt_trainer *trainer)
{
    enum { N = 6 };
    double rates[N], losses[2 * N], suggestions[2];
    mmopt_find_learning_rate_options find;
    mmopt_learning_rate_range range;
    mmopt_tensor weights;
    float first[8];
    char *before = NULL, *after = NULL;

    mmopt_find_learning_rate_options_init(&find);
    CHECK(find.n_steps == 100 && find.min_lr == 1e-7 && find.max_lr == 1);
    find.n_steps = N, find.min_lr = 1e-5, find.divergence = 1e9;
    OK(mmopt_loader_state(loader, &before));
    OK(mmopt_trainer_parameter(trainer, 0, 0, &weights, NULL));
    memcpy(first, weights.data, sizeof first);
    OK(mmopt_trainer_find_learning_rate(trainer, loader, &find, rates, losses, suggestions,
                                        &range));
    OK(mmopt_loader_state(loader, &after));
    CHECK(strcmp(before, after) == 0 && memcmp(first, weights.data, sizeof first) == 0);
    CHECK(range.n_rates > 2 && range.n_rates <= N);
    CHECK(rates[0] == 1e-5 && fabs(rates[1] / rates[0] - 10) < 1e-6);
    CHECK(losses[0] > 0 && losses[N] > 0 && losses[N + 1] > 0);
    CHECK(isnan(suggestions[0]) || (suggestions[0] >= 1e-5 && suggestions[0] <= 1));
    CHECK(isnan(range.suggestion) || (range.suggestion >= 1e-5 && range.suggestion <= 1));
    mmopt_string_free(before);
    mmopt_string_free(after);
    CHECK(mmopt_trainer_n_steps(trainer) == 0);
    find.smoothing = 1;
    FAILS(mmopt_trainer_find_learning_rate(trainer, loader, &find, NULL, NULL, NULL, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "smoothing 1");
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (getenv("MMOPT_ORT_LIB") == NULL) {
        printf("not run: no ONNX Runtime\n");
        return 0;
    }
    make_data();
    mmopt_loader_free(loader);
    loader = make_loader(16, 1);
    held_out = make_loader(32, 0);
    mmopt_trainer *trainer = small_trainer();
    test_nulls(trainer);
    test_find_learning_rate(trainer);
    test_fit(trainer, argv[1]);
    mmopt_trainer_free(trainer);
    mmopt_loader_free(held_out);
    free_data();
    return finish();
}
