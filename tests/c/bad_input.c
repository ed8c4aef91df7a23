/* Bad batches, damaged files, and what is written and read again. Each refusal names what is wrong,
 * and training goes on as if it had not been asked. */
#include "tiny.h"

/* Each bad batch is refused, and a good one works right after. */
static void test_bad_batches(mmopt_trainer *trainer)
{
    mmopt_batch *batch = next_batch();
    const mmopt_tensor *good = NULL;
    mmopt_tensor bad[4];
    mmopt_train_result result = {-1, 0, 0, 0};
    mmopt_step_report report;
    size_t n = 0;

    OK(mmopt_batch_tensors(batch, 0, &good, &n));
    CHECK(n == 4 && strcmp(good[0].name, "input_ids") == 0);
    size_t n_ids = good[0].n_bytes / sizeof(int64_t);
    int64_t *ids = malloc(good[0].n_bytes);
    int64_t shape[3] = {good[0].shape[0], good[0].shape[1], 1};
#define REFUSES_BATCH(change, code, part)                                             \
    do {                                                                              \
        memcpy(bad, good, sizeof bad);                                                \
        memcpy(ids, good[0].data, good[0].n_bytes);                                   \
        bad[0].data = ids;                                                            \
        change;                                                                       \
        FAILS(mmopt_trainer_forward_backward(trainer, 0, bad, n, &result), code, part); \
        CHECK(result.loss == -1);                                                    \
    } while (0)
    REFUSES_BATCH(bad[0].name = NULL, MMOPT_CODE_INVALID_ARGUMENT, "NULL");
    REFUSES_BATCH(bad[0].name = "what", MMOPT_CODE_NOT_FOUND, "what");
    REFUSES_BATCH(bad[0].name = "labels", MMOPT_CODE_INVALID_ARGUMENT, "labels");
    REFUSES_BATCH(bad[0].dtype = 99, MMOPT_CODE_INVALID_ARGUMENT, "dtype is 99");
    REFUSES_BATCH(bad[0].dtype = MMOPT_DTYPE_F64, MMOPT_CODE_INVALID_ARGUMENT, "input_ids");
    REFUSES_BATCH(bad[0].reserved = 1, MMOPT_CODE_UNSUPPORTED, "reserved");
    REFUSES_BATCH(bad[0].data = NULL, MMOPT_CODE_INVALID_ARGUMENT, "NULL");
    REFUSES_BATCH(bad[0].shape = NULL, MMOPT_CODE_INVALID_ARGUMENT, "NULL");
    REFUSES_BATCH(bad[0].n_bytes -= 1, MMOPT_CODE_SHAPE, "n_bytes");
    REFUSES_BATCH((bad[0].shape = shape, bad[0].n_dims = 3), MMOPT_CODE_SHAPE, "input_ids");
    REFUSES_BATCH(ids[n_ids - 1] = 1000000, MMOPT_CODE_INVALID_ARGUMENT, "1000000");
    REFUSES_BATCH(ids[0] = -1, MMOPT_CODE_INVALID_ARGUMENT, "-1");
    shape[0] = 1, shape[1] = (int64_t)n_ids;
    REFUSES_BATCH(bad[0].shape = shape, MMOPT_CODE_SHAPE, NULL);
    shape[0] = 0;
    REFUSES_BATCH((bad[0].shape = shape, bad[0].n_bytes = 0), MMOPT_CODE_SHAPE, "empty");
    /* More tokens than there are positions. */
    int64_t *longer = calloc(8 * 64, sizeof *longer);
    for (int i = 0; i < 8 * 64; i++)
        longer[i] = 1;
    shape[0] = 8, shape[1] = 64;
    REFUSES_BATCH(for (size_t i = 0; i + 1 < n; i++)
                  (bad[i].shape = shape, bad[i].data = longer, bad[i].n_bytes = 8 * 64 * 8),
                  MMOPT_CODE_SHAPE, "32 positions");
    free(longer);
    int64_t label[8] = {7, 0, 0, 0, 0, 0, 0, 0};
    REFUSES_BATCH(bad[n - 1].data = label, MMOPT_CODE_INVALID_ARGUMENT, "class 7");
    FAILS(mmopt_trainer_forward_backward(trainer, 0, good, n - 1, &result), MMOPT_CODE_NOT_FOUND,
          "labels");
    REFUSES_NULL(mmopt_trainer_forward_backward(trainer, 0, NULL, n, &result));
    FAILS(mmopt_trainer_forward_backward(trainer, 2, good, n, &result),
          MMOPT_CODE_INVALID_ARGUMENT, "model 2");
    FAILS(mmopt_trainer_step(trainer, &report), MMOPT_CODE_STATE, "forward_backward");

    /* Only the first model has gradients: the second stays as it is. */
    mmopt_tensor idle;
    OK(mmopt_trainer_parameter(trainer, 1, 0, &idle, NULL));
    void *before = malloc(idle.n_bytes);
    memcpy(before, idle.data, idle.n_bytes);
    OK(mmopt_trainer_forward_backward(trainer, 0, good, n, &result));
    CHECK(result.loss > 0 && result.n_labels == 8);
    OK(mmopt_trainer_step(trainer, &report));
    CHECK(report.step == 1 && memcmp(before, idle.data, idle.n_bytes) == 0);
    free(before);
    free(ids);
    mmopt_batch_free(batch);
}

static double one_step(mmopt_trainer *trainer, const mmopt_batch *batch)
{
    mmopt_train_result results[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, results));
    OK(mmopt_trainer_step(trainer, NULL));
    return results[0].loss + results[1].loss;
}

static char *read_file(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    char *bytes = malloc(1 << 20);
    *n = file == NULL ? 0 : fread(bytes, 1, 1 << 20, file);
    if (file != NULL)
        fclose(file);
    return bytes;
}

/* A trainer of one ONNX graph in memory: how it fails. */
static void refuses_onnx(const void *bytes, size_t n, const char *part)
{
    mmopt_model *model = NULL;
    mmopt_trainer *trainer = NULL;
    OK(mmopt_model_from_onnx_bytes("broken", bytes, n, &model));
    OK(mmopt_model_set_loss(model, NULL));
    FAILS(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &trainer),
          MMOPT_CODE_INVALID_DATA, part);
    CHECK(trainer == NULL);
    mmopt_model_free(model);
}

static void test_truncated_onnx(const char *path)
{
    size_t n = 0;
    char *bytes = read_file(path, &n);
    CHECK(n > 1000);
    refuses_onnx(bytes, n / 2, "model 'broken'");
    refuses_onnx(bytes, n - 1, "model 'broken'");
    free(bytes);

    /* b = Relu(a), a = Relu(b). */
    static const char cycle[] =
        "\x08\x08\x3a\x30"
        "\x0a\x0c" "\x0a\x01" "a" "\x12\x01" "b" "\x22\x04" "Relu"
        "\x0a\x0c" "\x0a\x01" "b" "\x12\x01" "a" "\x22\x04" "Relu"
        "\x12\x01" "g"
        "\x62\x0f" "\x0a\x01" "b" "\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01"
        "\x42\x02\x10\x11";
    refuses_onnx(cycle, sizeof cycle - 1, "cycle");
}

/* The last weight of a saved model becomes NaN. */
static void test_nan_weights(const char *folder)
{
    static const unsigned char nan_bytes[4] = {0, 0, 0xc0, 0x7f};
    mmopt_model *model = NULL;
    mmopt_trainer *trainer = NULL;
    size_t n = 0;
    char *bytes = read_file(in_folder(folder, "model.safetensors"), &n);

    CHECK(n > 1000);
    memcpy(bytes + n - 4, nan_bytes, 4);
    write_file(in_folder(folder, "model.safetensors"), bytes, n);
    OK(mmopt_model_from_directory("sick", folder, &model));
    FAILS(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &trainer),
          MMOPT_CODE_NON_FINITE, "model 'sick'");
    write_file(in_folder(folder, "model.safetensors"), bytes, n / 2);
    FAILS(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &trainer),
          MMOPT_CODE_INVALID_DATA, "model.safetensors");
    CHECK(trainer == NULL);
    mmopt_model_free(model);
    free(bytes);
}

/* One writer, which keeps what it is told to; damage is told from absence. */
static void test_checkpoints(mmopt_trainer *trainer, mmopt_trainer *again, const char *folder)
{
    mmopt_checkpoint_options keep;
    char *place = NULL, *json = NULL, file[4200];
    size_t n_damaged = 9;

    FAILS(mmopt_trainer_save_checkpoint(again, folder, ""), MMOPT_CODE_STATE, "another trainer");
    mmopt_checkpoint_options_init(&keep);
    CHECK(keep.asynchronous == 0);
    CHECK(keep.keep_last == 2 && keep.keep_best == 0 && keep.score != keep.score);
    keep.keep_best = 1;
    FAILS(mmopt_trainer_save_checkpoint_with(trainer, folder, "", &keep, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "score");
    keep.score = 0.5;
    keep.keep_last = 0;
    FAILS(mmopt_trainer_save_checkpoint_with(trainer, folder, "", &keep, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "keep_last");
    keep.keep_last = 1;
    OK(mmopt_trainer_save_checkpoint_with(trainer, folder, "kept", &keep, &place));
    keep.asynchronous = 1;
    FAILS(mmopt_trainer_save_checkpoint_with(trainer, folder, "", &keep, &json),
          MMOPT_CODE_INVALID_ARGUMENT, "mmopt_trainer_wait_for_checkpoint");
    OK(mmopt_trainer_save_checkpoint_with(trainer, folder, "kept", &keep, NULL));
    mmopt_string_free(place);
    OK(mmopt_trainer_wait_for_checkpoint(trainer, &place));
    CHECK(place != NULL && strstr(place, "step-") != NULL);
    OK(mmopt_trainer_wait_for_checkpoint(trainer, &json));
    CHECK(json == NULL);
    keep.asynchronous = 2;
    FAILS(mmopt_trainer_save_checkpoint_with(trainer, folder, "", &keep, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "asynchronous");
    OK(mmopt_checkpoint_list(folder, &n_damaged, &json));
    CHECK(n_damaged == 0 && strstr(json, place) != NULL);
    CHECK(strstr(json, "\"score\":0.5") != NULL && strchr(json, '\n') == NULL);
    mmopt_string_free(json);
    FAILS(mmopt_checkpoint_prune(folder, 1, NULL), MMOPT_CODE_STATE, NULL);

    /* The only one is damaged: an error, and nothing of the trainer changes. */
    snprintf(file, sizeof file, "%s/trainer.json", place);
    FILE *damaged = fopen(file, "a");
    CHECK(damaged != NULL && fputs("x", damaged) >= 0 && fclose(damaged) == 0);
    FAILS(mmopt_trainer_resume(again, folder, NULL), MMOPT_CODE_INVALID_DATA, "trainer.json");
    OK(mmopt_checkpoint_list(folder, &n_damaged, NULL));
    CHECK(n_damaged == 1);
    mmopt_string_free(place);
    /* Writing elsewhere gives the directory free. */
    snprintf(file, sizeof file, "%s.other", folder);
    OK(mmopt_trainer_save_checkpoint(trainer, file, ""));
    FAILS(mmopt_checkpoint_prune(folder, 0, NULL), MMOPT_CODE_INVALID_ARGUMENT, "keep_last");
    OK(mmopt_checkpoint_prune(folder, 1, &json));
    CHECK(strstr(json, "step-") != NULL);
    mmopt_string_free(json);
    FAILS(mmopt_trainer_resume(again, folder, NULL), MMOPT_CODE_NOT_FOUND, NULL);
    FAILS(mmopt_checkpoint_list("/nonexistent", NULL, NULL), MMOPT_CODE_NOT_FOUND, NULL);
}

/* A resumed trainer goes on bit by bit; what is saved can be read again. */
static void test_files(mmopt_trainer *trainer, const char *folder)
{
    mmopt_batch *batch = next_batch();
    mmopt_trainer *again = NULL, *fresh = NULL;
    mmopt_trainer_options options;
    mmopt_model *model = NULL;
    char *text = NULL, path[4096];

    snprintf(path, sizeof path, "%s/checkpoint", folder);
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    again = make_trainer(&options);
    FAILS(mmopt_trainer_resume(again, path, &text), MMOPT_CODE_NOT_FOUND, NULL);
    REFUSES_NULL(mmopt_trainer_resume(again, NULL, &text));
    OK(mmopt_trainer_memory_report_batch(trainer, batch, &text));
    CHECK(strstr(text, "\"pass\":0,") == NULL && strstr(text, "\"in_turn\"") != NULL);
    mmopt_string_free(text);
    REFUSES_NULL(mmopt_trainer_memory_report_batch(trainer, batch, NULL));
    REFUSES_NULL(mmopt_trainer_memory_report_batch(trainer, NULL, &text));
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    FAILS(mmopt_trainer_save_checkpoint(trainer, path, "x"), MMOPT_CODE_STATE, "step");
    OK(mmopt_trainer_step(trainer, NULL));
    REFUSES_NULL(mmopt_trainer_save_checkpoint(trainer, NULL, "x"));
    OK(mmopt_trainer_save_checkpoint(trainer, path, "the host's \xc3\xa4"));
    OK(mmopt_trainer_resume(again, path, &text));
    CHECK(strcmp(text, "the host's \xc3\xa4") == 0);
    mmopt_string_free(text);
    OK(mmopt_trainer_resume(again, path, NULL));
    CHECK(mmopt_trainer_n_steps(again) == mmopt_trainer_n_steps(trainer));
    test_checkpoints(trainer, again, path);
    for (int i = 0; i < 5; i++)
        CHECK(one_step(trainer, batch) == one_step(again, batch));

    snprintf(path, sizeof path, "%s/saved/bert", folder);
    OK(mmopt_trainer_save_model(trainer, 0, path));
    REFUSES_NULL(mmopt_trainer_save_model(trainer, 0, NULL));
    FAILS(mmopt_trainer_save_model(trainer, 7, path), MMOPT_CODE_INVALID_ARGUMENT, "model 7");
    OK(mmopt_model_from_directory("bert", path, &model));
    OK(mmopt_model_label_name(model, 0, &text));
    CHECK(strcmp(text, "0") == 0);
    mmopt_string_free(text);
    OK(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &fresh));
    mmopt_model_free(model);
    const mmopt_tensor *tensors = NULL;
    size_t n = 0;
    mmopt_evaluation *a = NULL, *b = NULL;
    OK(mmopt_batch_tensors(batch, 0, &tensors, &n));
    OK(mmopt_trainer_evaluate(trainer, 0, tensors, n, &a));
    OK(mmopt_trainer_evaluate(fresh, 0, tensors, n, &b));
    CHECK(mmopt_evaluation_loss(a) == mmopt_evaluation_loss(b));
    mmopt_evaluation_free(a);
    mmopt_evaluation_free(b);

    test_nan_weights(path);

    /* As ONNX, too: with a loss it can be trained. */
    snprintf(path, sizeof path, "%s/gpt2.onnx", folder);
    OK(mmopt_trainer_save_onnx(trainer, 1, path));
    REFUSES_NULL(mmopt_trainer_save_onnx(trainer, 1, NULL));
    OK(mmopt_model_from_onnx("onnx", path, &model));
    OK(mmopt_model_set_loss(model, NULL));
    mmopt_trainer_free(fresh);
    OK(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &fresh));
    mmopt_model_free(model);
    test_truncated_onnx(path);
    OK(mmopt_batch_tensors(batch, 1, &tensors, &n));
    OK(mmopt_trainer_forward_backward(fresh, 0, tensors, n, NULL));
    OK(mmopt_trainer_step(fresh, NULL));
    mmopt_trainer_free(fresh);
    mmopt_trainer_free(again);
    mmopt_batch_free(batch);
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
    mmopt_trainer *trainer = make_trainer(NULL);
    test_bad_batches(trainer);
    test_files(trainer, argv[1]);
    mmopt_trainer_free(trainer);
    free_data();
    return finish();
}
