/* Adapters of a model that tests/peft/models.py wrote, to be compared by tests/peft/compare.py:

       adapters DIR NAME TASK TARGET...

   trains adapters beside the TARGETs of DIR/NAME/base for ten steps, for TASK SEQ_CLS (3 classes),
   MASKED_LM or CAUSAL_LM; writes them to DIR/NAME/trained, the merged model to DIR/NAME/merged and its logits to
   DIR/NAME/trained.logits; reads the adapters again; and reads those of peft in DIR/NAME/given,
   whose logits go to DIR/NAME/given.logits. */
#include <mmopt.h>

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 4, LENGTH = 12, CLASSES = 3 };

static const char *folder, *name;
static int is_lm;
static uint32_t task;

static void check(mmopt_error *error)
{
    if (error != NULL) {
        printf("%s: %s\n", name, mmopt_error_message(error));
        exit(1);
    }
}

static const char *in(const char *file)
{
    static char path[8192];
    if (snprintf(path, sizeof path, "%s/%s/%s", folder, name, file) >= (int)sizeof path)
        exit(2);
    return path;
}

/* A trainer of the base: with new adapters, or those of a directory. */
static mmopt_trainer *make_trainer(const mmopt_adapter_options *adapters, const char *saved)
{
    mmopt_model *model = NULL;
    mmopt_trainer *trainer = NULL;
    mmopt_trainer_options options;

    check(mmopt_model_from_directory(name, in("base"), &model));
    check(mmopt_model_set_task(model, task, CLASSES));
    if (adapters != NULL)
        check(mmopt_model_add_adapters(model, adapters));
    else
        check(mmopt_model_load_adapters(model, in(saved)));
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = 5e-3;
    options.n_threads = 2;
    check(mmopt_trainer_create(&options, (const mmopt_model *const *)&model, 1, &trainer));
    mmopt_model_free(model);
    return trainer;
}

static int64_t ids[ROWS * LENGTH], ones[ROWS * LENGTH], zeros[ROWS * LENGTH], labels[ROWS * LENGTH];
static const int64_t both[2] = {ROWS, LENGTH};
static mmopt_tensor tensors[4];
static size_t n_tensors;

static void make_batch(void)
{
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < LENGTH; j++) {
            ids[i * LENGTH + j] = 5 + (7 * i + 3 * j) % 50;
            ones[i * LENGTH + j] = 1;
            labels[i * LENGTH + j] = is_lm ? ids[i * LENGTH + j] : (i * LENGTH + j) % CLASSES;
        }
    const char *names[4] = {"input_ids", "attention_mask", "labels", "token_type_ids"};
    const void *data[4] = {ids, ones, labels, zeros};
    n_tensors = 4;
    for (size_t i = 0; i < n_tensors; i++) {
        int one = i == 2 && !is_lm;
        tensors[i] = (mmopt_tensor){.name = names[i], .dtype = MMOPT_DTYPE_I64, .shape = both,
                                    .n_dims = one ? 1 : 2, .data = data[i],
                                    .n_bytes = (one ? ROWS : ROWS * LENGTH) * sizeof(int64_t)};
    }
}

/* The logits, which are the caller's. */
static float *logits(mmopt_trainer *trainer, size_t *n)
{
    mmopt_evaluation *evaluation = NULL;
    const mmopt_tensor *found = NULL;
    size_t n_found = 0;
    check(mmopt_trainer_evaluate(trainer, 0, tensors, n_tensors, &evaluation));
    check(mmopt_evaluation_tensors(evaluation, &found, &n_found));
    *n = found[0].n_bytes;
    float *copy = malloc(*n);
    if (copy == NULL)
        exit(2);
    memcpy(copy, found[0].data, *n);
    mmopt_evaluation_free(evaluation);
    return copy;
}

static void write_logits(const char *file, const float *values, size_t n_bytes)
{
    FILE *out = fopen(in(file), "wb");
    if (out == NULL || fwrite(both, sizeof both, 1, out) != 1 ||
        fwrite(values, 1, n_bytes, out) != n_bytes || fclose(out) != 0)
        exit(2);
}

int main(int n, char **arguments)
{
    mmopt_adapter_options adapters;
    char *report = NULL;
    double first = 0, last = 0;
    size_t n_bytes = 0, n_again = 0;

    if (n < 5)
        return 2;
    folder = arguments[1], name = arguments[2], is_lm = strcmp(arguments[3], "SEQ_CLS") != 0;
    task = strcmp(arguments[3], "CAUSAL_LM") == 0   ? MMOPT_TASK_CAUSAL_LM
           : strcmp(arguments[3], "MASKED_LM") == 0 ? MMOPT_TASK_MASKED_LM
                                                    : MMOPT_TASK_SEQUENCE_CLASSIFICATION;
    make_batch();
    mmopt_adapter_options_init(&adapters);
    adapters.target_modules = (const char *const *)&arguments[4];
    adapters.n_target_modules = (size_t)n - 4;
    adapters.rank = 8;
    adapters.alpha = 12;
    adapters.dropout = 0.1;
    mmopt_trainer *trainer = make_trainer(&adapters, NULL);
    for (int i = 0; i < 10; i++) {
        mmopt_train_result result;
        check(mmopt_trainer_forward_backward(trainer, 0, tensors, n_tensors, &result));
        check(mmopt_trainer_step(trainer, NULL));
        first = i == 0 ? result.loss : first, last = result.loss;
    }
    check(mmopt_trainer_model_report(trainer, 0, &report));
    printf("%.*s\n", (int)strcspn(report, "\n"), report);
    mmopt_string_free(report);
    check(mmopt_trainer_save_adapters(trainer, 0, in("trained")));
    check(mmopt_trainer_save_model(trainer, 0, in("merged")));
    float *trained = logits(trainer, &n_bytes);
    write_logits("trained.logits", trained, n_bytes);
    mmopt_trainer_free(trainer);

    trainer = make_trainer(NULL, "trained");
    float *again = logits(trainer, &n_again);
    mmopt_trainer_free(trainer);
    if (n_again != n_bytes || memcmp(trained, again, n_bytes) != 0) {
        printf("%s: adapters that were read again give other logits\n", name);
        return 1;
    }

    trainer = make_trainer(NULL, "given");
    float *given = logits(trainer, &n_again);
    write_logits("given.logits", given, n_again);
    mmopt_trainer_free(trainer);
    printf("loss %.4f, after ten steps %.4f\n", first, last);
    free(trained), free(again), free(given);
    return last < first ? 0 : 1;
}
