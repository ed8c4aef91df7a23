/* What the host decides within a step of gradient mode: its gradients and values in every layout,
 * and the learning rate. */
#include "check.h"

#include <math.h>

enum { ROWS = 2, COLUMNS = 3, N = ROWS * COLUMNS };

static const int64_t shape[2] = {ROWS, COLUMNS}, turned[2] = {1, ROWS};

/* Two models with one matrix each, and what the callback saw and is to do. */
struct host {
    mmopt_optimizer *optimizer;
    float weights[2][N], gradients[2][N];
    uint16_t narrow_weights[N], narrow_gradients[N];
    int n_calls;
    uint32_t answer;
    size_t stop_at;   /* the model whose parameter gets the answer */
    float expected;   /* each element of the gradient */
    double scale;
    const float *write_gradient, *write_value;
};

static uint32_t on_gradient(void *user, const mmopt_gradient_view *g)
{
    struct host *h = user;
    CHECK(g->model == (size_t)h->n_calls % 2 && g->parameter == 0 && g->step > 0);
    CHECK(strcmp(g->model_name, g->model == 0 ? "one" : "two") == 0);
    CHECK(strcmp(g->name, "encoder.layer.0.attention.self.query.weight") == 0);
    CHECK(g->n_dims == 2 && g->shape[0] == ROWS && g->shape[1] == COLUMNS && g->n_elements == N);
    CHECK(g->scale == h->scale);
    FAILS(mmopt_optimizer_step(h->optimizer, NULL), MMOPT_CODE_STATE, "in use");
    h->n_calls++;
    for (int i = 0; i < N; i++)
        CHECK(g->gradient[i] == h->expected);
    if (g->model != h->stop_at)
        return MMOPT_GRADIENT_ACTION_USE;
    if (h->write_gradient != NULL)
        memcpy(g->gradient, h->write_gradient, N * sizeof(float));
    if (h->write_value != NULL)
        memcpy(g->value, h->write_value, N * sizeof(float));
    return h->answer;
}

static void make(struct host *h, int accumulation, const mmopt_parameter_layout *layout,
                 void *values, void *gradients)
{
    mmopt_trainer_options options;
    mmopt_parameter parameters[2];
    mmopt_model_parameters models[2];

    memset(h, 0, sizeof *h);
    memset(parameters, 0, sizeof parameters);
    memset(models, 0, sizeof models);
    h->expected = 1, h->scale = 1;
    for (int i = 0; i < 2; i++) {
        for (int j = 0; j < N; j++)
            h->gradients[i][j] = 1, h->narrow_gradients[j] = 0x3f80;
        parameters[i].name = "encoder.layer.0.attention.self.query.weight";
        parameters[i].shape = shape;
        parameters[i].n_dims = 2;
        parameters[i].data = i == 0 && values != NULL ? values : h->weights[i];
        parameters[i].gradient = i == 0 && gradients != NULL ? gradients : h->gradients[i];
        parameters[i].gradient_dtype =
            parameters[i].gradient == h->narrow_gradients ? MMOPT_DTYPE_BF16 : MMOPT_DTYPE_F32;
        parameters[i].trainable = 1;
        models[i].name = i == 0 ? "one" : "two";
        models[i].parameters = &parameters[i];
        models[i].n_parameters = 1;
        models[i].weight = 1;
        models[i].stable_gradients = 1;
    }
    parameters[0].layout = layout;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_INDEPENDENT);
    options.learning_rate = 0.1;
    options.weight_decay = 0;
    options.n_threads = 1;
    options.gradient_accumulation_steps = (uint32_t)accumulation;
    OK(mmopt_optimizer_create(&options, models, 2, &h->optimizer));
    OK(mmopt_optimizer_set_gradient_callback(h->optimizer, on_gradient, h));
}

static void accumulate(struct host *h)
{
    OK(mmopt_optimizer_accumulate(h->optimizer, 0, 1.0));
    OK(mmopt_optimizer_accumulate(h->optimizer, 1, 1.0));
}

static void step(struct host *h)
{
    accumulate(h);
    OK(mmopt_optimizer_step(h->optimizer, NULL));
}

static void test_nulls(void)
{
    REFUSES_NULL(mmopt_optimizer_set_gradient_callback(NULL, on_gradient, NULL));
    REFUSES_NULL(mmopt_optimizer_set_rate_callback(NULL, NULL, NULL));
    CHECK(mmopt_optimizer_n_steps(NULL) == 0);
}

static void test_use_taken_and_stop(void)
{
    static const float zeros[N] = {0}, halves[N] = {0.5f, 0.5f, 0.5f, 0.5f, 0.5f, 0.5f};
    struct host h;
    make(&h, 1, NULL, NULL, NULL);

    step(&h);
    CHECK(h.n_calls == 2 && h.weights[0][0] < 0 && h.weights[1][5] < 0);
    /* The second model's gradient becomes zero: with fresh moments it would stay, so look at its
     * norm. */
    mmopt_rates rates;
    h.stop_at = 1, h.write_gradient = zeros;
    step(&h);
    OK(mmopt_optimizer_rates(h.optimizer, 1, &rates));
    CHECK(rates.gradient_norm == 0 && h.gradients[1][0] == 0);
    OK(mmopt_optimizer_rates(h.optimizer, 0, &rates));
    CHECK(rates.gradient_norm > 0);
    for (int j = 0; j < N; j++)
        h.gradients[1][j] = 1;

    /* The host updates the first model's matrix itself. */
    h.stop_at = 0, h.write_gradient = NULL, h.write_value = halves;
    h.answer = MMOPT_GRADIENT_ACTION_HANDLED;
    float before = h.weights[1][0];
    step(&h);
    CHECK(memcmp(h.weights[0], halves, sizeof halves) == 0 && h.weights[1][0] != before);

    /* Stop and nonsense change nothing, and the step can be taken later. */
    h.write_value = NULL, h.n_calls = 0, h.stop_at = 1;
    before = h.weights[1][0];
    uint64_t n_steps = mmopt_optimizer_n_steps(h.optimizer);
    CHECK(n_steps == 3);
    accumulate(&h);
    h.answer = MMOPT_GRADIENT_ACTION_STOP;
    FAILS(mmopt_optimizer_step(h.optimizer, NULL), MMOPT_CODE_CANCELLED, "stop");
    h.answer = 77;
    FAILS(mmopt_optimizer_step(h.optimizer, NULL), MMOPT_CODE_INVALID_ARGUMENT, "returned 77");
    CHECK(h.n_calls == 4 && mmopt_optimizer_n_steps(h.optimizer) == n_steps);
    CHECK(h.weights[0][0] == 0.5f && h.weights[1][0] == before);
    h.answer = MMOPT_GRADIENT_ACTION_USE;
    OK(mmopt_optimizer_step(h.optimizer, NULL));
    CHECK(h.weights[0][0] < 0.5f && mmopt_optimizer_n_steps(h.optimizer) == 4);

    OK(mmopt_optimizer_set_gradient_callback(h.optimizer, NULL, NULL));
    h.n_calls = 0;
    step(&h);
    CHECK(h.n_calls == 0);
    mmopt_optimizer_free(h.optimizer);
}

/* With two micro-batches to a step the callback sees their sum, in f32, and the factor 1/2. */
static void test_accumulation(void)
{
    struct host h;
    make(&h, 2, NULL, NULL, h.narrow_gradients);
    h.expected = 2, h.scale = 0.5;
    accumulate(&h);
    step(&h);
    CHECK(h.n_calls == 2 && h.narrow_gradients[0] == 0x3f80 && h.gradients[1][0] == 1);
    mmopt_optimizer_free(h.optimizer);
}

/* bf16 gradients are seen as f32; what the callback changed is rounded to the nearest. */
static void test_narrow_gradients(void)
{
    static const float changed[N] = {1, -0.0f, 1.0f + 0.75f / 128, 1, 3, -1};
    static const uint16_t rounded[N] = {0x3f80, 0x8000, 0x3f81, 0x3f80, 0x4040, 0xbf80};
    struct host h;
    make(&h, 1, NULL, NULL, h.narrow_gradients);
    h.write_gradient = changed;
    step(&h);
    CHECK(h.n_calls == 2 && memcmp(h.narrow_gradients, rounded, sizeof rounded) == 0);
    CHECK(h.weights[0][0] < 0 && h.weights[0][1] == 0 && h.weights[0][5] > 0);
    mmopt_optimizer_free(h.optimizer);
}

/* Of a gradient with strides the callback changes a copy, which the step uses. */
static void test_strided_gradients(void)
{
    static const float changed[N] = {-1, -1, -1, 1, 1, 1};
    mmopt_parameter_layout layout;
    struct host h;
    mmopt_parameter_layout_init(&layout);
    layout.gradient_strides = turned;
    make(&h, 1, &layout, NULL, NULL);
    h.write_gradient = changed;
    step(&h);
    for (int j = 0; j < N; j++) {
        CHECK(h.gradients[0][j] == 1);
        CHECK((h.weights[0][j] > 0) == (j < COLUMNS) && h.weights[0][j] != 0);
    }
    mmopt_optimizer_free(h.optimizer);
}

/* Of bf16 values the callback sees the f32 masters, which reach the host's memory in the end. */
static void test_narrow_values(void)
{
    static const float changed[N] = {1, 2, 3, 0.5f, -1, -2};
    static const uint16_t rounded[N] = {0x3f80, 0x4000, 0x4040, 0x3f00, 0xbf80, 0xc000};
    mmopt_parameter_layout layout;
    struct host h;
    mmopt_parameter_layout_init(&layout);
    layout.dtype = MMOPT_DTYPE_BF16;
    make(&h, 1, &layout, h.narrow_weights, NULL);
    h.write_value = changed;
    h.answer = MMOPT_GRADIENT_ACTION_HANDLED;
    step(&h);
    CHECK(memcmp(h.narrow_weights, rounded, sizeof rounded) == 0);
    mmopt_optimizer_free(h.optimizer);
}

struct rate { int n_calls; double rate, seen; };

static double on_rate(void *user, const char *model, uint64_t number, double rate)
{
    struct rate *r = user;
    CHECK(strcmp(model, r->n_calls % 2 == 0 ? "one" : "two") == 0 && number > 0);
    r->n_calls++;
    r->seen = rate;
    return r->rate;
}

static void test_rates(void)
{
    struct rate r = {0, 0, 0};
    struct host h;
    make(&h, 1, NULL, NULL, NULL);
    OK(mmopt_optimizer_set_rate_callback(h.optimizer, on_rate, &r));
    step(&h);
    CHECK(r.n_calls == 2 && r.seen > 0.05 && h.weights[0][0] == 0 && h.weights[1][0] == 0);
    r.rate = 0.5;
    step(&h);
    CHECK(h.weights[0][0] < -0.3f);
    float before = h.weights[0][0];
    r.rate = NAN, r.n_calls = 0;
    accumulate(&h);
    FAILS(mmopt_optimizer_step(h.optimizer, NULL), MMOPT_CODE_INVALID_ARGUMENT, "callback");
    CHECK(h.weights[0][0] == before && mmopt_optimizer_n_steps(h.optimizer) == 2);
    OK(mmopt_optimizer_set_rate_callback(h.optimizer, NULL, NULL));
    OK(mmopt_optimizer_step(h.optimizer, NULL));
    CHECK(h.weights[0][0] < before && r.n_calls == 1);
    mmopt_optimizer_free(h.optimizer);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc != 2)
        return 2;
    test_nulls();
    test_use_taken_and_stop();
    test_accumulation();
    test_narrow_gradients();
    test_strided_gradients();
    test_narrow_values();
    test_rates();
    return finish();
}
