/* Gradient mode: two small models whose gradients the test computes itself. */
#include "check.h"

#include <math.h>

enum { N = 12 };

/* Model i pulls its weights towards target[i]: loss = sum (w - target)^2 / 2. */
struct host {
    float weights[2][N], gradients[2][N], bias[2], bias_gradient[2];
};

static const float targets[2] = {1.0f, 1.2f};

static double backward(struct host *h, int i)
{
    double loss = 0;
    for (int j = 0; j < N; j++) {
        float d = h->weights[i][j] - targets[i];
        h->gradients[i][j] = d;
        loss += 0.5 * (double)d * (double)d;
    }
    h->bias_gradient[i] = h->bias[i];
    return loss + 0.5 * (double)h->bias[i] * (double)h->bias[i];
}

static const int64_t matrix[2] = {3, 4}, vector[1] = {1};
static const char *names[2] = {"one", "two"};

static void describe(struct host *h, mmopt_model_parameters models[2], mmopt_parameter parameters[2][2])
{
    memset(models, 0, 2 * sizeof *models);
    memset(parameters, 0, 4 * sizeof **parameters);
    for (int i = 0; i < 2; i++) {
        mmopt_parameter *p = parameters[i];
        p[0].name = "encoder.layer.0.attention.self.query.weight";
        p[0].shape = matrix;
        p[0].n_dims = 2;
        p[0].data = h->weights[i];
        p[0].gradient = h->gradients[i];
        p[1].name = "encoder.layer.0.attention.self.query.bias";
        p[1].shape = vector;
        p[1].n_dims = 1;
        p[1].data = &h->bias[i];
        p[1].gradient = &h->bias_gradient[i];
        p[0].gradient_dtype = p[1].gradient_dtype = MMOPT_DTYPE_F32;
        p[0].trainable = p[1].trainable = 1;
        models[i].name = names[i];
        models[i].parameters = p;
        models[i].n_parameters = 2;
        models[i].weight = 1;
        models[i].stable_gradients = 1;
    }
}

static void test_nulls(void)
{
    mmopt_optimizer *optimizer = NULL;
    mmopt_rates rates;
    const double number = 1;
    float number_out = 1;
    char *text = NULL;

    mmopt_optimizer_free(NULL);
    REFUSES_NULL(mmopt_optimizer_create(NULL, NULL, 1, &optimizer));
    FAILS(mmopt_optimizer_create(NULL, NULL, 0, &optimizer), MMOPT_CODE_INVALID_ARGUMENT,
          "at least one");
    REFUSES_NULL(mmopt_optimizer_set_gradient(NULL, 0, 0, NULL, MMOPT_DTYPE_F32));
    REFUSES_NULL(mmopt_optimizer_zero_grad(NULL));
    REFUSES_NULL(mmopt_optimizer_accumulate(NULL, 0, 1));
    REFUSES_NULL(mmopt_optimizer_accumulate_weighted(NULL, 0, 1, 1));
    REFUSES_NULL(mmopt_optimizer_set_data(NULL, 0, 0, &number_out, NULL, 0));
    REFUSES_NULL(mmopt_optimizer_step(NULL, NULL));
    REFUSES_NULL(mmopt_optimizer_rates(NULL, 0, &rates));
    REFUSES_NULL(mmopt_optimizer_set_learning_rate(NULL, 1));
    REFUSES_NULL(mmopt_optimizer_set_model_weight(NULL, 0, 1));
    REFUSES_NULL(mmopt_optimizer_plan(NULL, &text));
    REFUSES_NULL(mmopt_optimizer_plan_json(NULL, &text));
    REFUSES_NULL(mmopt_optimizer_report_validation(NULL, &number, 1));
    REFUSES_NULL(mmopt_optimizer_metrics_json(NULL, &text));
    REFUSES_NULL(mmopt_optimizer_save_checkpoint(NULL, "x"));
    REFUSES_NULL(mmopt_optimizer_resume(NULL, "x"));
    CHECK(mmopt_optimizer_n_models(NULL) == 0);
}

static void test_descriptions(void)
{
    struct host h;
    mmopt_model_parameters models[2];
    mmopt_parameter parameters[2][2];
    mmopt_optimizer *optimizer = NULL;
    const int64_t negative[2] = {-3, 4};

    memset(&h, 0, sizeof h);
#define REFUSES_MODEL(change, code, part)                                       \
    do {                                                                        \
        describe(&h, models, parameters);                                       \
        change;                                                                 \
        FAILS(mmopt_optimizer_create(NULL, models, 2, &optimizer), code, part); \
    } while (0)
    REFUSES_MODEL(models[1].name = NULL, MMOPT_CODE_INVALID_ARGUMENT, "NULL");
    REFUSES_MODEL(models[1].name = "one", MMOPT_CODE_INVALID_ARGUMENT, "one");
    REFUSES_MODEL(models[1].name = "\xff", MMOPT_CODE_INVALID_ARGUMENT, "UTF-8");
    REFUSES_MODEL(models[1].parameters = NULL, MMOPT_CODE_INVALID_ARGUMENT, "NULL");
    REFUSES_MODEL(models[1].weight = -1, MMOPT_CODE_INVALID_ARGUMENT, "weight");
    REFUSES_MODEL(parameters[1][0].name = NULL, MMOPT_CODE_INVALID_ARGUMENT, "NULL");
    REFUSES_MODEL(parameters[1][0].shape = NULL, MMOPT_CODE_INVALID_ARGUMENT, "NULL");
    REFUSES_MODEL(parameters[1][0].shape = negative, MMOPT_CODE_SHAPE, "query.weight");
    REFUSES_MODEL(parameters[1][0].data = NULL, MMOPT_CODE_INVALID_ARGUMENT, "NULL");
    REFUSES_MODEL(parameters[1][0].gradient_dtype = 99, MMOPT_CODE_INVALID_ARGUMENT, "is 99");
    REFUSES_MODEL(parameters[1][0].gradient_dtype = MMOPT_DTYPE_I64, MMOPT_CODE_UNSUPPORTED, NULL);
    REFUSES_MODEL(parameters[1][0].trainable = 2, MMOPT_CODE_INVALID_ARGUMENT, "trainable");
    REFUSES_MODEL(parameters[1][0].role_json = "{", MMOPT_CODE_INVALID_ARGUMENT, "role_json");
    REFUSES_MODEL(parameters[1][0].role_json =
                      "{\"role\": \"attention_query\", \"part\": \"weight\", \"blok\": 0}",
                  MMOPT_CODE_INVALID_ARGUMENT, "the nearest known one is 'block'");
    REFUSES_MODEL(parameters[1][1].name = parameters[1][0].name, MMOPT_CODE_INVALID_ARGUMENT,
                  "query");
    REFUSES_MODEL(parameters[1][0].reserved[0] = 1, MMOPT_CODE_UNSUPPORTED, "reserved");
    REFUSES_MODEL(models[1].reserved[0] = 1, MMOPT_CODE_UNSUPPORTED, "reserved");
    REFUSES_MODEL(models[1].reserved0 = 1, MMOPT_CODE_UNSUPPORTED, "reserved");
    REFUSES_MODEL(models[1].stable_gradients = 2, MMOPT_CODE_INVALID_ARGUMENT, "stable_gradients");
    CHECK(optimizer == NULL);
}

static mmopt_optimizer *make(struct host *h)
{
    mmopt_model_parameters models[2];
    mmopt_parameter parameters[2][2];
    mmopt_trainer_options options;
    mmopt_optimizer *optimizer = NULL;

    describe(h, models, parameters);
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = 0.05;
    options.share_rule = MMOPT_SHARE_RULE_GATED;
    OK(mmopt_optimizer_create(&options, models, 2, &optimizer));
    return optimizer;
}

/* Options that act on reported scores, those whose result is read, and those of trainers only. */
static void test_feedback(void)
{
    struct host h;
    mmopt_model_parameters models[2];
    mmopt_parameter parameters[2][2];
    mmopt_trainer_options options;
    mmopt_optimizer *optimizer = NULL;
    mmopt_rates rates;
    const double scores[2] = {0.9, 0.5};
    char *json = NULL;

    memset(&h, 0, sizeof h);
    describe(&h, models, parameters);
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.options_json = "{\"max_loss_increase\": 0.1}";
    FAILS(mmopt_optimizer_create(&options, models, 2, &optimizer), MMOPT_CODE_UNSUPPORTED,
          "max_loss_increase");
    options.options_json = "{\"mutual\": {\"required\": true, \"weight\": 0.5, \"temperature\": 2}}";
    FAILS(mmopt_optimizer_create(&options, models, 2, &optimizer), MMOPT_CODE_UNSUPPORTED,
          "mutual");
    options.lr_schedule = MMOPT_LR_SCHEDULE_PLATEAU;
    options.options_json = "{\"weighting\": \"validation\", \"metrics_every\": 2, "
                           "\"plateau\": {\"factor\": 0.5, \"patience\": 0}}";
    OK(mmopt_optimizer_create(&options, models, 2, &optimizer));
    FAILS(mmopt_optimizer_report_validation(optimizer, scores, 1), MMOPT_CODE_INVALID_ARGUMENT,
          "1 validation score");
    REFUSES_NULL(mmopt_optimizer_report_validation(optimizer, NULL, 2));
    OK(mmopt_optimizer_report_validation(optimizer, scores, 2));
    OK(mmopt_optimizer_report_validation(optimizer, scores, 2));
    OK(mmopt_optimizer_accumulate(optimizer, 0, 1));
    OK(mmopt_optimizer_step(optimizer, NULL));
    OK(mmopt_optimizer_rates(optimizer, 0, &rates));
    CHECK(rates.weight > 0.55 && rates.schedule == 0.5);
    FAILS(mmopt_optimizer_metrics_json(optimizer, &json), MMOPT_CODE_STATE, "no step");
    OK(mmopt_optimizer_accumulate(optimizer, 0, 1));
    OK(mmopt_optimizer_step(optimizer, NULL));
    OK(mmopt_optimizer_metrics_json(optimizer, &json));
    CHECK(strstr(json, "\"step\":2") != NULL && strstr(json, "\"distance\":[[") != NULL);
    mmopt_string_free(json);
    mmopt_optimizer_free(optimizer);
}

static double train(mmopt_optimizer *optimizer, struct host *h, int n_steps)
{
    double loss = 0;
    for (int step = 0; step < n_steps; step++) {
        loss = 0;
        OK(mmopt_optimizer_zero_grad(optimizer));
        for (int i = 0; i < 2; i++) {
            double one = backward(h, i);
            OK(mmopt_optimizer_accumulate(optimizer, (size_t)i, one));
            loss += one;
        }
        mmopt_step_report report;
        OK(mmopt_optimizer_step(optimizer, &report));
        CHECK(report.n_updated == 2 && report.shared == 1);
    }
    return loss;
}

/* A host that frees its gradients after each step: the address of the last one is not read. */
static void test_stale_gradients(void)
{
    struct host h;
    mmopt_model_parameters models[2];
    mmopt_parameter parameters[2][2];
    mmopt_optimizer *optimizer = NULL;
    mmopt_step_report report;

    memset(&h, 0, sizeof h);
    describe(&h, models, parameters);
    models[0].stable_gradients = 0;
    parameters[0][0].gradient = parameters[0][1].gradient = NULL; /* before the first backward */
    OK(mmopt_optimizer_create(NULL, models, 2, &optimizer));
    for (int step = 0; step < 3; step++) {
        float *gradient = malloc(N * sizeof *gradient);
        if (gradient == NULL)
            exit(2);
        for (int j = 0; j < N; j++)
            gradient[j] = 1;
        OK(mmopt_optimizer_set_gradient(optimizer, 0, 0, gradient, MMOPT_DTYPE_F32));
        OK(mmopt_optimizer_accumulate(optimizer, 0, 1));
        FAILS(mmopt_optimizer_accumulate(optimizer, 0, 1), MMOPT_CODE_STATE,
              "gradient_accumulation_steps");
        OK(mmopt_optimizer_step(optimizer, &report));
        CHECK(report.n_updated == 1 && h.weights[0][0] < 0 && h.weights[1][0] == 0);
        free(gradient);
        FAILS(mmopt_optimizer_accumulate(optimizer, 0, 1), MMOPT_CODE_STATE, "query.weight");
        FAILS(mmopt_optimizer_step(optimizer, NULL), MMOPT_CODE_STATE, "accumulate");
    }
    mmopt_optimizer_free(optimizer);
}

/* Micro-batches by their weights, and values that move. */
static void test_weights_and_places(void)
{
    struct host h;
    mmopt_model_parameters models[2];
    mmopt_parameter parameters[2][2];
    mmopt_trainer_options options;
    mmopt_optimizer *optimizer = NULL;
    float moved[N];

    memset(&h, 0, sizeof h);
    describe(&h, models, parameters);
    mmopt_trainer_options_init(&options, MMOPT_PRESET_ADAMW);
    CHECK(options.learning_rate == 1e-3 && options.max_grad_norm == 0);
    CHECK(options.share_policy == MMOPT_SHARE_POLICY_NONE && options.weight_decay == 0.01);
    options.gradient_accumulation_steps = 2;
    options.options_json = "{\"method\": \"sgd\", \"momentum\": 0, \"weight_decay\": 0}";
    options.learning_rate = 1;
    OK(mmopt_optimizer_create(&options, models, 1, &optimizer));
    h.gradients[0][0] = 1;
    OK(mmopt_optimizer_accumulate_weighted(optimizer, 0, 1, 9));
    h.gradients[0][0] = 11;
    OK(mmopt_optimizer_accumulate_weighted(optimizer, 0, 1, 1));
    FAILS(mmopt_optimizer_accumulate_weighted(optimizer, 0, 1, -1), MMOPT_CODE_INVALID_ARGUMENT,
          "weight");
    OK(mmopt_optimizer_step(optimizer, NULL));
    CHECK(fabsf(h.weights[0][0] + 2) < 1e-6f); /* (9 * 1 + 1 * 11) / 10 */

    memcpy(moved, h.weights[0], sizeof moved);
    FAILS(mmopt_optimizer_set_data(optimizer, 0, 0, NULL, NULL, 0), MMOPT_CODE_INVALID_ARGUMENT,
          "NULL");
    FAILS(mmopt_optimizer_set_data(optimizer, 0, 0, h.gradients[0], NULL, 0),
          MMOPT_CODE_INVALID_ARGUMENT, "gradient of");
    FAILS(mmopt_optimizer_set_data(optimizer, 0, 0, moved, matrix, 1), MMOPT_CODE_SHAPE,
          "the value has 1 stride for 2 dimensions");
    OK(mmopt_optimizer_set_data(optimizer, 0, 0, moved, NULL, 0));
    h.weights[0][0] = 77;
    h.gradients[0][0] = 1;
    OK(mmopt_optimizer_accumulate(optimizer, 0, 1));
    OK(mmopt_optimizer_step(optimizer, NULL));
    CHECK(fabsf(moved[0] + 3) < 1e-6f && h.weights[0][0] == 77);
    mmopt_optimizer_free(optimizer);
}

/* A parameter without elements may have no memory. */
static void test_empty_parameter(void)
{
    static const int64_t none[2] = {0, 4};
    struct host h;
    mmopt_model_parameters models[2];
    mmopt_parameter parameters[2][2];
    mmopt_optimizer *optimizer = NULL;

    memset(&h, 0, sizeof h);
    describe(&h, models, parameters);
    parameters[0][0].shape = none;
    parameters[0][0].data = parameters[0][0].gradient = NULL;
    h.bias_gradient[0] = 1;
    OK(mmopt_optimizer_create(NULL, models, 1, &optimizer));
    OK(mmopt_optimizer_accumulate(optimizer, 0, 1));
    OK(mmopt_optimizer_step(optimizer, NULL));
    CHECK(h.bias[0] < 0);
    mmopt_optimizer_free(optimizer);
}

static void test_training(const char *folder)
{
    struct host h, copy;
    mmopt_rates rates;
    char *text = NULL, path[4096];
    int first_nan = 0;

    memset(&h, 0, sizeof h);
    h.bias[0] = h.bias[1] = 0.5f;
    mmopt_optimizer *optimizer = make(&h);
    CHECK(mmopt_optimizer_n_models(optimizer) == 2);
    FAILS(mmopt_optimizer_step(optimizer, NULL), MMOPT_CODE_STATE, "accumulate");
    FAILS(mmopt_optimizer_accumulate(optimizer, 2, 1), MMOPT_CODE_INVALID_ARGUMENT, NULL);
    double before = train(optimizer, &h, 1), after = train(optimizer, &h, 60);
    CHECK(after < 0.1 * before);
    OK(mmopt_optimizer_plan(optimizer, &text));
    CHECK(strstr(text, "attention query weight") != NULL);
    mmopt_string_free(text);
    OK(mmopt_optimizer_plan_json(optimizer, &text));
    CHECK(strstr(text, "\"two\"") != NULL);
    mmopt_string_free(text);
    REFUSES_NULL(mmopt_optimizer_plan(optimizer, NULL));
    REFUSES_NULL(mmopt_optimizer_plan_json(optimizer, NULL));
    OK(mmopt_optimizer_set_model_weight(optimizer, 0, 3));
    FAILS(mmopt_optimizer_set_model_weight(optimizer, 0, -3), MMOPT_CODE_INVALID_ARGUMENT, NULL);
    OK(mmopt_optimizer_set_learning_rate(optimizer, 0.01));
    FAILS(mmopt_optimizer_set_learning_rate(optimizer, NAN), MMOPT_CODE_INVALID_ARGUMENT, NULL);
    OK(mmopt_optimizer_rates(optimizer, 0, &rates));
    CHECK(fabs(rates.weight - 0.75) < 1e-12 && rates.gradient_norm > 0);
    REFUSES_NULL(mmopt_optimizer_rates(optimizer, 0, NULL));

    /* A saved state in another optimizer over a copy of the values: the same bits follow. */
    snprintf(path, sizeof path, "%s/optimizer", folder);
    REFUSES_NULL(mmopt_optimizer_save_checkpoint(optimizer, NULL));
    OK(mmopt_optimizer_save_checkpoint(optimizer, path));
    copy = h;
    mmopt_optimizer *again = make(&copy);
    REFUSES_NULL(mmopt_optimizer_resume(again, NULL));
    FAILS(mmopt_optimizer_resume(again, "/nonexistent"), MMOPT_CODE_NOT_FOUND, NULL);
    OK(mmopt_optimizer_resume(again, path));
    train(optimizer, &h, 10);
    train(again, &copy, 10);
    CHECK(memcmp(h.weights, copy.weights, sizeof h.weights) == 0);
    mmopt_optimizer_free(again);

    /* A NaN in one model leaves it as it is; the other goes on, and nobody's values are NaN. */
    copy = h;
    for (size_t i = 0; i < 2; i++) {
        backward(&h, (int)i);
        if (i == 0)
            h.gradients[0][5] = NAN;
        OK(mmopt_optimizer_accumulate(optimizer, i, 1.0));
    }
    mmopt_step_report report;
    OK(mmopt_optimizer_step(optimizer, &report));
    CHECK(report.n_skipped == 1 && report.n_updated == 1);
    CHECK(memcmp(h.weights[0], copy.weights[0], sizeof h.weights[0]) == 0);
    CHECK(memcmp(h.weights[1], copy.weights[1], sizeof h.weights[1]) != 0);
    for (int j = 0; j < N; j++)
        first_nan += isnan(h.weights[0][j]) || isnan(h.weights[1][j]);
    CHECK(first_nan == 0);

    /* Gradients of another type and place: bfloat16 ones are 0x3f80. */
    uint16_t ones[N];
    for (int j = 0; j < N; j++)
        ones[j] = 0x3f80;
    FAILS(mmopt_optimizer_set_gradient(optimizer, 0, 9, ones, MMOPT_DTYPE_BF16),
          MMOPT_CODE_INVALID_ARGUMENT, NULL);
    FAILS(mmopt_optimizer_set_gradient(optimizer, 0, 0, ones, 0), MMOPT_CODE_INVALID_ARGUMENT,
          "gradient_dtype");
    OK(mmopt_optimizer_set_gradient(optimizer, 0, 0, ones, MMOPT_DTYPE_BF16));
    OK(mmopt_optimizer_set_gradient(optimizer, 0, 1, NULL, MMOPT_DTYPE_F32));
    float old = h.weights[0][0], old_bias = h.bias[0];
    OK(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
    OK(mmopt_optimizer_step(optimizer, NULL));
    CHECK(h.weights[0][0] < old && h.bias[0] == old_bias);
    mmopt_optimizer_free(optimizer);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    test_nulls();
    test_descriptions();
    test_feedback();
    test_stale_gradients();
    test_weights_and_places();
    test_empty_parameter();
    test_training(argv[1]);
    return finish();
}
