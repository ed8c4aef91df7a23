/* What exporters do to parameters, models with gradients of their own, and where a pass goes
 * non-finite. The folder holds the small graphs of tests/common/exported_graphs.rs. */
#include "check.h"

#include <math.h>

enum { ROWS = 4, LENGTH = 5, VOCABULARY = 11, WIDTH = 6 };

static const char *folder;

static mmopt_model *open_model(const char *file)
{
    char path[4096];
    mmopt_model *model = NULL;

    snprintf(path, sizeof path, "%s/%s", folder, file);
    OK(mmopt_model_from_onnx("model", path, &model));
    return model;
}

static mmopt_model *tagger(void)
{
    mmopt_model *model = open_model("exported.onnx");
    mmopt_loss_options loss;

    mmopt_loss_options_init(&loss);
    loss.kind = MMOPT_LOSS_TOKEN_CLASSIFICATION;
    OK(mmopt_model_set_loss(model, &loss));
    return model;
}

static mmopt_model *regression(const char *file)
{
    mmopt_model *model = open_model(file);
    mmopt_loss_options loss;

    mmopt_loss_options_init(&loss);
    loss.kind = MMOPT_LOSS_MEAN_SQUARED_ERROR;
    OK(mmopt_model_set_loss(model, &loss));
    return model;
}

/* Takes the model. */
static mmopt_trainer *train(mmopt_model *model)
{
    mmopt_trainer *trainer = NULL;
    mmopt_trainer_options options;

    mmopt_trainer_options_init(&options, MMOPT_PRESET_INDEPENDENT);
    options.learning_rate = 0.03;
    options.weight_decay = 0.5;
    OK(mmopt_trainer_create(&options, (const mmopt_model *const *)&model, 1, &trainer));
    mmopt_model_free(model);
    return trainer;
}

static int64_t ids[ROWS * LENGTH];
static const int64_t id_shape[2] = {ROWS, LENGTH};
static float x[ROWS * 3], target[ROWS * 2];
static const int64_t x_shape[2] = {ROWS, 3}, target_shape[2] = {ROWS, 2};

static mmopt_tensor tensor(const char *name, uint32_t dtype, const int64_t *shape, size_t n_dims,
                           const void *data, size_t n_bytes)
{
    mmopt_tensor t = {name, dtype, 0, shape, n_dims, data, n_bytes};
    return t;
}

#define IDS(name) tensor(name, MMOPT_DTYPE_I64, id_shape, 2, ids, sizeof ids)
#define X tensor("x", MMOPT_DTYPE_F32, x_shape, 2, x, sizeof x)
#define TARGET(name) tensor(name, MMOPT_DTYPE_F32, target_shape, 2, target, sizeof target)

static double step(mmopt_trainer *trainer, const mmopt_tensor *tensors, size_t n)
{
    mmopt_train_result result = {NAN, 0, 0, 0};
    OK(mmopt_trainer_forward_backward(trainer, 0, tensors, n, &result));
    OK(mmopt_trainer_step(trainer, NULL));
    return result.loss;
}

static mmopt_tensor parameter(mmopt_trainer *trainer, const char *name)
{
    size_t at = SIZE_MAX;
    mmopt_tensor found = {0};
    OK(mmopt_trainer_parameter_index(trainer, 0, name, &at));
    OK(mmopt_trainer_parameter(trainer, 0, at, &found, NULL));
    return found;
}

static void test_nulls(void)
{
    mmopt_model *model = tagger();
    mmopt_precomputed_gradient_options options;
    mmopt_gradient_output pair = {NULL, "x"};
    char *text = NULL;

    REFUSES_NULL(mmopt_model_set_shared_initializers(NULL, 0));
    REFUSES_NULL(mmopt_model_set_duplicate_weights(NULL, 0));
    REFUSES_NULL(mmopt_model_set_restore_names(NULL, 0));
    REFUSES_NULL(mmopt_model_freeze_row(NULL, "*", 0));
    REFUSES_NULL(mmopt_model_freeze_row(model, NULL, 0));
    REFUSES_NULL(mmopt_model_report(NULL, &text));
    REFUSES_NULL(mmopt_model_report(model, NULL));
    REFUSES_NULL(mmopt_model_report_json(NULL, &text));
    REFUSES_NULL(mmopt_model_report_json(model, NULL));
    REFUSES_NULL(mmopt_trainer_model_report(NULL, 0, &text));
    REFUSES_NULL(mmopt_trainer_model_report_json(NULL, 0, &text));
    REFUSES_NULL(mmopt_trainer_find_non_finite(NULL, 0, NULL, 0, &text, &text));
    REFUSES_NULL(mmopt_model_set_precomputed_gradients(NULL, NULL));
    mmopt_precomputed_gradient_options_init(NULL);
    REFUSES_NULL(mmopt_model_set_precomputed_gradients(model, NULL));
    mmopt_precomputed_gradient_options_init(&options);
    options.loss = "mse";
    options.n_gradients = 1;
    REFUSES_NULL(mmopt_model_set_precomputed_gradients(model, &options));
    options.gradients = &pair;
    FAILS(mmopt_model_set_precomputed_gradients(model, &options), MMOPT_CODE_INVALID_ARGUMENT, "gradients[0]");
    pair.parameter = "w";
    options.n_logits = 1;
    REFUSES_NULL(mmopt_model_set_precomputed_gradients(model, &options));
    FAILS(mmopt_model_set_shared_initializers(model, 2), MMOPT_CODE_INVALID_ARGUMENT, "action is 2");
    FAILS(mmopt_model_set_duplicate_weights(model, 3), MMOPT_CODE_INVALID_ARGUMENT, "action is 3");
    FAILS(mmopt_model_set_restore_names(model, 2), MMOPT_CODE_INVALID_ARGUMENT, "restore is 2");
    CHECK(text == NULL);
    mmopt_model_free(model);

    /* Only ONNX graphs can bring gradients. */
    OK(mmopt_model_create("fresh", NULL, &model));
    options.n_logits = 0;
    FAILS(mmopt_model_set_precomputed_gradients(model, &options), MMOPT_CODE_INVALID_ARGUMENT, "ONNX");
    mmopt_model_free(model);
}

/* The report holds this text; as_json asks for the other form. */
static void report_has(const mmopt_model *model, int as_json, const char *part)
{
    char *text = NULL;
    if (as_json)
        OK(mmopt_model_report_json(model, &text));
    else
        OK(mmopt_model_report(model, &text));
    if (text == NULL || strstr(text, part) == NULL) {
        printf("'%s' is not in %s\n", part, text == NULL ? "NULL" : text);
        CHECK(0);
    }
    mmopt_string_free(text);
}

/* Reports need no runtime. */
static void test_reports(void)
{
    mmopt_model *model = tagger();

    report_has(model, 0, "shared initializer: 'zero', read in 2 places");
    report_has(model, 0, "'emb.weight' and 'val_9', transposed; tied");
    report_has(model, 0, "renamed: 'layer.dense.weight', in the file 'onnx::MatMul_12'");
    report_has(model, 0, "quantised weights have no gradient");
    report_has(model, 1, "\"tied\":true");
    OK(mmopt_model_set_duplicate_weights(model, MMOPT_DUPLICATE_WEIGHTS_REPORT));
    report_has(model, 1, "\"tied\":false");
    OK(mmopt_model_set_shared_initializers(model, MMOPT_SHARED_INITIALIZERS_SPLIT));
    report_has(model, 0, "split into 2: zero, m.ln2.bias");
    OK(mmopt_model_set_restore_names(model, 0));
    report_has(model, 1, "\"name\":\"onnx::MatMul_12\"");
    OK(mmopt_model_freeze_row(model, "lost", 0));
    char *text = NULL;
    FAILS(mmopt_model_report(model, &text), MMOPT_CODE_NOT_FOUND, "lost");
    CHECK(text == NULL);
    mmopt_model_free(model);
}

static int n_heard[5];
static char last_heard[5][512];

static void on_log(void *user, uint32_t level, const char *message)
{
    CHECK(user == last_heard && level >= 1 && level <= 4);
    n_heard[level]++;
    snprintf(last_heard[level], sizeof last_heard[level], "%s", message);
}

static void test_mended_training(void)
{
    mmopt_model *model = tagger();
    mmopt_tensor batch[2] = {IDS("input_ids"), IDS("labels")};
    mmopt_trainer *trainer, *other;
    char *text = NULL;
    size_t at = 0;
    float before[WIDTH];

    OK(mmopt_model_freeze_row(model, "emb.*", 7));
    trainer = train(model);
    CHECK(mmopt_trainer_n_parameters(trainer, 0) == 7);
    OK(mmopt_trainer_model_report(trainer, 0, &text));
    CHECK(strstr(text, "frozen rows: 'emb.weight' [7]") != NULL);
    mmopt_string_free(text);
    OK(mmopt_trainer_model_report_json(trainer, 0, &text));
    CHECK(text[0] == '{' && strstr(text, "\"frozen_rows\":[7]") != NULL);
    mmopt_string_free(text);
    FAILS(mmopt_trainer_model_report(trainer, 1, &text), MMOPT_CODE_INVALID_ARGUMENT, "model 1");
    REFUSES_NULL(mmopt_trainer_model_report(trainer, 0, NULL));
    REFUSES_NULL(mmopt_trainer_model_report_json(trainer, 0, NULL));

    /* What creation had to say comes with the first callback, each message once. */
    OK(mmopt_trainer_set_log_callback(trainer, MMOPT_LOG_LEVEL_WARNING, on_log, last_heard));
    CHECK(n_heard[2] == 2 && n_heard[3] == 0 && strstr(last_heard[2], "quantised") != NULL);
    OK(mmopt_trainer_set_log_callback(trainer, MMOPT_LOG_LEVEL_DEBUG, on_log, last_heard));
    CHECK(n_heard[2] == 2 && n_heard[3] > 4 && strstr(last_heard[3], "plan for 1 model:") != NULL);

    mmopt_tensor table = parameter(trainer, "emb.weight");
    memcpy(before, (const float *)table.data + 7 * WIDTH, sizeof before);
    double first = step(trainer, batch, 2), last = first;
    CHECK(strstr(last_heard[4], "step 1") != NULL);
    for (int i = 0; i < 100; i++)
        last = step(trainer, batch, 2);
    CHECK(last < 0.9 * first);
    CHECK(memcmp(before, (const float *)table.data + 7 * WIDTH, sizeof before) == 0);
    FAILS(mmopt_trainer_forward_backward(trainer, 0, batch, 1, NULL), MMOPT_CODE_NOT_FOUND,
          "labels");
    CHECK(n_heard[1] == 1 && strstr(last_heard[1], "labels") != NULL);
    mmopt_trainer_free(trainer);

    model = tagger();
    OK(mmopt_model_set_duplicate_weights(model, MMOPT_DUPLICATE_WEIGHTS_REPORT));
    OK(mmopt_model_set_shared_initializers(model, MMOPT_SHARED_INITIALIZERS_SPLIT));
    OK(mmopt_model_set_restore_names(model, 0));
    other = train(model);
    CHECK(mmopt_trainer_n_parameters(other, 0) == 9);
    OK(mmopt_trainer_parameter_index(other, 0, "val_9", &at));
    OK(mmopt_trainer_parameter_index(other, 0, "onnx::MatMul_12", &at));
    mmopt_trainer_free(other);

    model = tagger();
    OK(mmopt_model_train_only(model, "w_quantized"));
    FAILS(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &other),
          MMOPT_CODE_UNSUPPORTED, "quantised");
    mmopt_model_free(model);
}

static void near(const mmopt_tensor *a, const mmopt_tensor *b)
{
    const float *p = a->data, *q = b->data;
    CHECK(a->n_bytes == b->n_bytes);
    for (size_t i = 0; i < a->n_bytes / sizeof *p; i++)
        CHECK(fabsf(p[i] - q[i]) <= 1e-5f * fmaxf(1, fabsf(q[i])));
}

static mmopt_model *given(const char *loss)
{
    static const mmopt_gradient_output pairs[2] = {{"w", "w_grad"}, {"b", "b_grad"}};
    static const char *const logits[1] = {"y"};
    mmopt_model *model = open_model("gradients.onnx");
    mmopt_precomputed_gradient_options options;

    mmopt_precomputed_gradient_options_init(&options);
    options.loss = loss;
    options.gradients = pairs;
    options.n_gradients = 2;
    options.logits = logits;
    options.n_logits = 1;
    OK(mmopt_model_set_precomputed_gradients(model, &options));
    return model;
}

/* A graph with gradients of its own trains as the library's own graph of the same model. */
static void test_gradient_graph(void)
{
    mmopt_tensor batch[2] = {X, TARGET("target")}, plain[2] = {X, TARGET("labels")};
    mmopt_trainer *theirs = train(given("mse")), *ours = train(regression("linear.onnx"));
    mmopt_trainer *none = NULL;
    mmopt_evaluation *evaluation = NULL;
    mmopt_tensor a, b;
    double first = 0, last = 0;

    for (int i = 0; i < 5; i++) {
        last = step(theirs, batch, 2);
        first = i == 0 ? last : first;
        CHECK(fabs(last - step(ours, plain, 2)) <= 1e-5 * last);
        for (size_t p = 0; p < 2; p++) {
            OK(mmopt_trainer_gradient(theirs, 0, p, &a));
            OK(mmopt_trainer_gradient(ours, 0, p, &b));
            near(&a, &b);
        }
        a = parameter(theirs, "w"), b = parameter(ours, "w");
        near(&a, &b);
    }
    CHECK(last < first);
    OK(mmopt_trainer_evaluate(theirs, 0, batch, 1, &evaluation));
    CHECK(isnan(mmopt_evaluation_loss(evaluation)));
    mmopt_evaluation_free(evaluation);
    mmopt_trainer_free(theirs);
    mmopt_trainer_free(ours);

    mmopt_model *model = given("lost");
    FAILS(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &none),
          MMOPT_CODE_NOT_FOUND, "no output 'lost'");
    CHECK(none == NULL);
    mmopt_model_free(model);
}

static void test_non_finite(const char *file, float bad, const char *pass, const char *op)
{
    static const int64_t shape[2] = {1, 2};
    float values[2] = {3, 2}, labels[2] = {-0.5, -0.5};
    mmopt_trainer *trainer = train(regression(file));
    mmopt_tensor batch[2];
    char *text = (char *)"untouched", *json = text;

    batch[0] = tensor("x", MMOPT_DTYPE_F32, shape, 2, values, sizeof values);
    batch[1] = tensor("labels", MMOPT_DTYPE_F32, shape, 2, labels, sizeof labels);
    OK(mmopt_trainer_find_non_finite(trainer, 0, batch, 2, &text, &json));
    CHECK(text == NULL && json == NULL);
    values[1] = bad;
    OK(mmopt_trainer_find_non_finite(trainer, 0, batch, 2, &text, &json));
    CHECK(text != NULL && strncmp(text, pass, strlen(pass)) == 0);
    CHECK(strstr(text, op) != NULL && strstr(text, "the first at [0, 1]") != NULL);
    CHECK(strstr(json, "\"position\":[0,1]") != NULL);
    mmopt_string_free(text);
    mmopt_string_free(json);
    OK(mmopt_trainer_find_non_finite(trainer, 0, batch, 2, NULL, NULL));
    FAILS(mmopt_trainer_find_non_finite(trainer, 0, batch, 1, &text, NULL), MMOPT_CODE_NOT_FOUND,
          "labels");
    mmopt_trainer_free(trainer);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    folder = argv[1];
    for (int i = 0; i < ROWS * LENGTH; i++)
        ids[i] = i * 7 % VOCABULARY;
    for (int i = 0; i < ROWS * 3; i++)
        x[i] = (float)(i % 5) / 4 - 0.5f;
    for (int i = 0; i < ROWS * 2; i++)
        target[i] = (float)(i % 3) - 1;
    test_nulls();
    test_reports();
    if (getenv("MMOPT_ORT_LIB") == NULL) {
        printf("not run: no ONNX Runtime\n");
        return finish();
    }
    test_mended_training();
    test_gradient_graph();
    test_non_finite("log.onnx", 0, "forward", "Log");
    test_non_finite("sqrt.onnx", 0, "backward", "Div");
    test_non_finite("sqrt.onnx", NAN, "input 'x'", "NaN");
    return finish();
}
