/* A host's own optimizer between backward pass and step, and views that outlive their trainer. */
#include "tiny.h"
#include "dlpack_structs.h"

#include <math.h>

struct calls {
    mmopt_trainer *trainer;
    int n_calls, n_bad_order;
    size_t last;
    uint32_t answer;        /* for every parameter, */
    const char *taken;      /* but this one is updated by the callback itself */
    int zeroed;             /* with 1, gradients are set to zero */
};

static uint32_t on_gradient(void *user, const mmopt_gradient_view *g)
{
    struct calls *calls = user;
    size_t n = 1, at = g->model * 1000 + g->parameter;

    if (calls->n_calls > 0 && at <= calls->last)
        calls->n_bad_order++;
    calls->n_calls++;
    calls->last = at;
    for (size_t d = 0; d < g->n_dims; d++)
        n *= (size_t)g->shape[d];
    CHECK(n == g->n_elements && g->scale == 1.0 && g->step > 0);
    CHECK(strcmp(g->model_name, g->model == 0 ? "bert" : "gpt2") == 0);
    FAILS(mmopt_trainer_step(calls->trainer, NULL), MMOPT_CODE_STATE, "in use");
    FAILS(mmopt_trainer_set_gradient_callback(calls->trainer, NULL, NULL), MMOPT_CODE_STATE,
          "in use");
    if (calls->zeroed == 1)
        memset(g->gradient, 0, n * sizeof(float));
    if (calls->taken != NULL && strcmp(g->name, calls->taken) == 0 && g->model == 0) {
        for (size_t i = 0; i < n; i++)
            g->value[i] = 0.5f;
        return MMOPT_GRADIENT_ACTION_HANDLED;
    }
    return calls->answer;
}

static void test_nulls(void)
{
    void *raw = NULL;
    mmopt_trainer *trainer = make_trainer(NULL);
    REFUSES_NULL(mmopt_trainer_set_gradient_callback(NULL, on_gradient, NULL));
    REFUSES_NULL(mmopt_trainer_parameter_dlpack(NULL, 0, 0, 0, &raw));
    REFUSES_NULL(mmopt_trainer_parameter_dlpack(trainer, 0, 0, 0, NULL));
    REFUSES_NULL(mmopt_trainer_gradient_dlpack(NULL, 0, 0, 0, &raw));
    REFUSES_NULL(mmopt_trainer_gradient_dlpack(trainer, 0, 0, 0, NULL));
    FAILS(mmopt_trainer_parameter_dlpack(trainer, 2, 0, 0, &raw), MMOPT_CODE_INVALID_ARGUMENT,
          "model 2 of 2");
    FAILS(mmopt_trainer_parameter_dlpack(trainer, 0, 9999, 0, &raw), MMOPT_CODE_INVALID_ARGUMENT,
          "parameter 9999");
    FAILS(mmopt_trainer_parameter_dlpack(trainer, 0, 0, 2, &raw), MMOPT_CODE_INVALID_ARGUMENT,
          "writable");
    FAILS(mmopt_trainer_gradient_dlpack(trainer, 0, 0, 0, &raw), MMOPT_CODE_STATE, "no gradient");
    FAILS(mmopt_trainer_gradient_dlpack(trainer, 2, 0, 0, &raw), MMOPT_CODE_INVALID_ARGUMENT,
          "model 2 of 2");
    CHECK(raw == NULL);
    mmopt_trainer_free(trainer);
}

static void pass(mmopt_trainer *trainer)
{
    mmopt_batch *batch = next_batch();
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    mmopt_batch_free(batch);
}

static void test_callback(void)
{
    static const char *const name = "classifier.weight";
    mmopt_trainer *trainer = make_trainer(NULL);
    struct calls calls = {trainer, 0, 0, 0, MMOPT_GRADIENT_ACTION_USE, NULL, 0};
    mmopt_tensor tensor;
    mmopt_rates rates;
    size_t index = 0, n_all = mmopt_trainer_n_parameters(trainer, 0);

    n_all += mmopt_trainer_n_parameters(trainer, 1);
    OK(mmopt_trainer_parameter_index(trainer, 0, name, &index));
    OK(mmopt_trainer_set_gradient_callback(trainer, on_gradient, &calls));
    pass(trainer);
    OK(mmopt_trainer_step(trainer, NULL));
    CHECK(calls.n_calls > 20 && (size_t)calls.n_calls <= n_all && calls.n_bad_order == 0);

    /* The host updates one parameter itself; the step leaves it alone. */
    int n_before = calls.n_calls;
    calls.taken = name;
    calls.last = 0;
    calls.n_calls = 0;
    pass(trainer);
    OK(mmopt_trainer_step(trainer, NULL));
    CHECK(calls.n_calls == n_before);
    OK(mmopt_trainer_parameter(trainer, 0, index, &tensor, NULL));
    const float *values = tensor.data;
    for (size_t i = 0; i < tensor.n_bytes / 4; i++)
        CHECK(values[i] == 0.5f);

    /* Stop and nonsense fail the step, which can be taken later: with gradients of zero. */
    uint64_t n_steps = mmopt_trainer_n_steps(trainer);
    calls.taken = NULL;
    calls.answer = MMOPT_GRADIENT_ACTION_STOP;
    calls.n_calls = 0;
    pass(trainer);
    FAILS(mmopt_trainer_step(trainer, NULL), MMOPT_CODE_CANCELLED, "stop");
    CHECK(calls.n_calls == 1);
    calls.answer = 77;
    calls.n_calls = 0;
    FAILS(mmopt_trainer_step(trainer, NULL), MMOPT_CODE_INVALID_ARGUMENT, "returned 77");
    CHECK(mmopt_trainer_n_steps(trainer) == n_steps && values[0] == 0.5f);
    calls.answer = MMOPT_GRADIENT_ACTION_USE;
    calls.zeroed = 1;
    calls.n_calls = 0;
    OK(mmopt_trainer_step(trainer, NULL));
    OK(mmopt_trainer_rates(trainer, 0, &rates));
    CHECK(rates.gradient_norm == 0);
    OK(mmopt_trainer_set_gradient_callback(trainer, NULL, NULL));
    calls.n_calls = 0;
    pass(trainer);
    OK(mmopt_trainer_step(trainer, NULL));
    OK(mmopt_trainer_rates(trainer, 0, &rates));
    CHECK(calls.n_calls == 0 && rates.gradient_norm > 0);
    mmopt_trainer_free(trainer);
}

/* With two micro-batches to a step the callback sees their sum and the factor 1/2. */
static uint32_t on_sum(void *user, const mmopt_gradient_view *g)
{
    *(int *)user += 1;
    CHECK(g->scale == 0.5);
    return MMOPT_GRADIENT_ACTION_USE;
}

static void test_accumulation(void)
{
    mmopt_trainer_options options;
    int n_calls = 0;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.gradient_accumulation_steps = 2;
    options.options_json = "{\"gradient_accumulation\": \"mean\"}";
    mmopt_trainer *trainer = make_trainer(&options);
    OK(mmopt_trainer_set_gradient_callback(trainer, on_sum, &n_calls));
    pass(trainer);
    pass(trainer);
    OK(mmopt_trainer_step(trainer, NULL));
    CHECK(n_calls > 20);
    mmopt_trainer_free(trainer);
}

/* Views point into the trainer's memory, and keep it when the trainer goes. */
static void test_views(void)
{
    mmopt_trainer *trainer = make_trainer(NULL);
    mmopt_tensor tensor, again;
    size_t index = 0;
    void *raw[3] = {NULL, NULL, NULL};

    OK(mmopt_trainer_parameter_index(trainer, 0, "classifier.weight", &index));
    pass(trainer);
    OK(mmopt_trainer_parameter(trainer, 0, index, &tensor, NULL));
    OK(mmopt_trainer_parameter_dlpack(trainer, 0, index, 0, &raw[0]));
    OK(mmopt_trainer_parameter_dlpack(trainer, 0, index, 1, &raw[1]));
    OK(mmopt_trainer_gradient_dlpack(trainer, 0, index, 0, &raw[2]));
    managed *value = raw[0], *second = raw[1], *gradient = raw[2];
    CHECK(value->t.data == tensor.data && second->t.data == tensor.data);
    CHECK(value->flags == 1 && second->flags == 0 && gradient->flags == 1);
    CHECK(value->version.major == 1 && value->t.ndim == 2 && value->t.strides[1] == 1);
    CHECK(value->t.strides[0] == value->t.shape[1] && value->t.shape[0] == tensor.shape[0]);
    OK(mmopt_tensor_from_dlpack("value", value, &again));
    CHECK(again.n_bytes == tensor.n_bytes);

    /* The step shows through the view, and writing through it reaches the trainer. */
    float before = ((const float *)value->t.data)[0];
    OK(mmopt_trainer_step(trainer, NULL));
    CHECK(((const float *)value->t.data)[0] != before);
    ((float *)second->t.data)[0] = 0.125f;
    CHECK(((const float *)tensor.data)[0] == 0.125f);
    mmopt_tensor g;
    OK(mmopt_trainer_gradient(trainer, 0, index, &g));
    CHECK(g.data == gradient->t.data);

    second->deleter(second);
    size_t n = tensor.n_bytes;
    void *copy = malloc(n), *gradient_copy = malloc(n);
    if (copy == NULL || gradient_copy == NULL)
        exit(2);
    memcpy(copy, value->t.data, n);
    memcpy(gradient_copy, gradient->t.data, n);
    mmopt_trainer_free(trainer);
    CHECK(memcmp(copy, value->t.data, n) == 0);
    CHECK(memcmp(gradient_copy, gradient->t.data, n) == 0);
    value->deleter(value);
    mmopt_dlpack_free(gradient);
    free(copy);
    free(gradient_copy);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc != 2)
        return 2;
    if (getenv("MMOPT_ORT_LIB") == NULL) {
        printf("not run: no ONNX Runtime\n");
        return 0;
    }
    make_data();
    test_nulls();
    test_callback();
    test_accumulation();
    test_views();
    free_data();
    return finish();
}
