/* Gradient mode in the host's own layouts and types: strides, bf16 and f16, DLPack with ownership,
 * and every description that must be refused. */
#include "dlpack_structs.h"

#include <math.h>
#include <pthread.h>

enum { ROWS = 3, COLUMNS = 4, N = ROWS * COLUMNS, ROOM = 64, STEPS = 20 };

static const int64_t matrix[2] = {ROWS, COLUMNS};

/* How the elements of the matrix lie: strides, and which element comes first. */
struct order {
    int64_t strides[2];
    size_t first;
};

static const struct order dense = {{COLUMNS, 1}, 0}, turned = {{1, ROWS}, 0},
                          spread = {{2 * COLUMNS, 2}, 0}, back = {{-COLUMNS, 1}, COLUMNS * (ROWS - 1)};

static size_t place(const struct order *o, size_t element)
{
    int64_t row = (int64_t)(element / COLUMNS), column = (int64_t)(element % COLUMNS);
    return (size_t)((int64_t)o->first + row * o->strides[0] + column * o->strides[1]);
}

static float wide_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}

static uint16_t narrow_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* One model with one matrix; the gradient pulls every weight towards its own target. */
struct host {
    float weights[ROOM], gradients[ROOM];
    uint16_t narrow[ROOM], narrow_gradients[ROOM];
};

static float target(size_t element)
{
    return 0.37f * (float)(element + 1);
}

static void fill(struct host *h, const struct order *values)
{
    for (size_t i = 0; i < ROOM; i++) {
        h->weights[i] = h->gradients[i] = -77;
        h->narrow[i] = h->narrow_gradients[i] = 0x1234;
    }
    for (size_t i = 0; i < N; i++)
        h->weights[place(values, i)] = h->narrow[place(values, i)] = 0;
}

static mmopt_parameter parameter_of(struct host *h, int is_narrow, const struct order *values,
                                    const struct order *gradients, mmopt_parameter_layout *layout)
{
    mmopt_parameter p;
    memset(&p, 0, sizeof p);
    mmopt_parameter_layout_init(layout);
    layout->dtype = is_narrow ? MMOPT_DTYPE_BF16 : MMOPT_DTYPE_F32;
    layout->strides = values->strides;
    layout->gradient_strides = gradients->strides;
    p.name = "encoder.layer.0.attention.self.query.weight";
    p.shape = matrix;
    p.n_dims = 2;
    p.data = is_narrow ? (void *)&h->narrow[values->first] : (void *)&h->weights[values->first];
    p.gradient = &h->gradients[gradients->first];
    p.gradient_dtype = MMOPT_DTYPE_F32;
    p.trainable = 1;
    p.layout = layout;
    return p;
}

static mmopt_model_parameters model_of(const char *name, const mmopt_parameter *p, size_t n)
{
    mmopt_model_parameters model;
    memset(&model, 0, sizeof model);
    model.name = name;
    model.parameters = p;
    model.n_parameters = n;
    model.weight = 1;
    model.stable_gradients = 1;
    return model;
}

/* Frees an error; 1 if there was one. For threads, which do not count checks. */
static int failed(mmopt_error *error)
{
    int is_error = error != NULL;
    mmopt_error_free(error);
    return is_error;
}

static mmopt_optimizer *create(const mmopt_model_parameters *models, size_t n)
{
    mmopt_trainer_options options;
    mmopt_optimizer *optimizer = NULL;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = 0.05;
    options.n_threads = 2;
    if (failed(mmopt_optimizer_create(&options, models, n, &optimizer)))
        exit(2);
    return optimizer;
}

/* Gradients at given weights, the same for every layout. */
static void backward(struct host *h, int is_narrow, const struct order *values,
                     const struct order *gradients)
{
    for (size_t i = 0; i < N; i++) {
        float w = is_narrow ? wide_bf16(h->narrow[place(values, i)]) : h->weights[place(values, i)];
        h->gradients[place(gradients, i)] = w - target(i);
    }
}

/* Trains from the start; returns how many calls failed. */
static int run(struct host *h, int is_narrow, const struct order *values,
               const struct order *gradients)
{
    mmopt_parameter_layout layout;
    mmopt_parameter p;
    int n_errors = 0;
    fill(h, values);
    p = parameter_of(h, is_narrow, values, gradients, &layout);
    mmopt_model_parameters model = model_of("one", &p, 1);
    mmopt_optimizer *optimizer = create(&model, 1);
    memset(&layout, 0xff, sizeof layout); /* it was copied */
    for (int step = 0; step < STEPS; step++) {
        backward(h, is_narrow, values, gradients);
        n_errors += failed(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
        n_errors += failed(mmopt_optimizer_step(optimizer, NULL));
    }
    mmopt_optimizer_free(optimizer);
    return n_errors;
}

/* Strided f32 gives the bits of dense f32, and nothing between the elements changes. */
static void test_strides(void)
{
    static const struct order *const orders[] = {&dense, &turned, &spread, &back};
    struct host reference, h;

    CHECK(run(&reference, 0, &dense, &dense) == 0);
    CHECK(fabsf(reference.weights[0]) > 0.1f);
    for (int i = 0; i < 4; i++) {
        const struct order *values = orders[i], *gradients = orders[(i + 1) % 4];
        size_t n_kept = 0;
        CHECK(run(&h, 0, values, gradients) == 0);
        for (size_t e = 0; e < N; e++)
            CHECK(memcmp(&h.weights[place(values, e)], &reference.weights[e], 4) == 0);
        for (size_t at = 0; at < ROOM; at++)
            n_kept += h.weights[at] == -77;
        CHECK(n_kept == ROOM - N);
    }
}

/* bf16: each step rounds f32 masters, so many small steps are not lost. */
static void test_narrow(void)
{
    struct host h, wide;
    mmopt_parameter_layout layout, plain_layout;
    mmopt_parameter p, q;

    fill(&h, &spread);
    fill(&wide, &dense);
    p = parameter_of(&h, 1, &spread, &turned, &layout);
    q = parameter_of(&wide, 0, &dense, &dense, &plain_layout);
    mmopt_model_parameters model = model_of("one", &p, 1), other = model_of("one", &q, 1);
    mmopt_optimizer *optimizer = create(&model, 1), *reference = create(&other, 1);
    OK(mmopt_optimizer_set_learning_rate(optimizer, 1e-4));
    OK(mmopt_optimizer_set_learning_rate(reference, 1e-4));
    for (size_t i = 0; i < N; i++) {
        wide.weights[i] = 1;
        h.narrow[place(&spread, i)] = 0x3f80;
    }
    for (int step = 0; step < 100; step++) {
        for (size_t i = 0; i < N; i++)
            h.gradients[place(&turned, i)] = wide.gradients[i] = 0.01f * (float)(i + 1);
        OK(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
        OK(mmopt_optimizer_accumulate(reference, 0, 1.0));
        OK(mmopt_optimizer_step(optimizer, NULL));
        OK(mmopt_optimizer_step(reference, NULL));
        for (size_t i = 0; i < N; i++)
            CHECK(h.narrow[place(&spread, i)] == narrow_bf16(wide.weights[i]));
        if (step == 50) /* the host's own change is taken */
            wide.weights[3] = 2, h.narrow[place(&spread, 3)] = 0x4000;
    }
    /* A hundred steps of 1e-4 moved values whose next bfloat16 is 2^-8 away. */
    CHECK(h.narrow[place(&spread, 0)] < 0x3f80);
    mmopt_optimizer_free(optimizer);
    mmopt_optimizer_free(reference);
}

/* A saved state continues with the same bits, masters included. */
static void test_resume(const char *folder)
{
    struct host h, copy;
    mmopt_parameter_layout layout;
    char path[4096];

    snprintf(path, sizeof path, "%s/narrow", folder);
    fill(&h, &turned);
    mmopt_parameter p = parameter_of(&h, 1, &turned, &spread, &layout);
    mmopt_model_parameters model = model_of("one", &p, 1);
    mmopt_optimizer *optimizer = create(&model, 1), *again = NULL;
    OK(mmopt_optimizer_set_learning_rate(optimizer, 3e-3));
    for (int step = 0; step < 30; step++) {
        if (step == 15) {
            OK(mmopt_optimizer_save_checkpoint(optimizer, path));
            copy = h;
            p = parameter_of(&copy, 1, &turned, &spread, &layout);
            again = create(&model, 1);
            OK(mmopt_optimizer_resume(again, path));
        }
        backward(&h, 1, &turned, &spread);
        OK(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
        OK(mmopt_optimizer_step(optimizer, NULL));
        if (again != NULL) {
            backward(&copy, 1, &turned, &spread);
            OK(mmopt_optimizer_accumulate(again, 0, 1.0));
            OK(mmopt_optimizer_step(again, NULL));
            CHECK(memcmp(h.narrow, copy.narrow, sizeof h.narrow) == 0);
        }
    }
    mmopt_optimizer_free(again);
    mmopt_optimizer_free(optimizer);
}

static void test_refusals(void)
{
    static const int64_t broadcast[2] = {0, 1}, overlap[2] = {3, 1};
    struct host h, other;
    mmopt_parameter_layout layout;
    mmopt_parameter p[2];
    mmopt_model_parameters model, two;
    mmopt_optimizer *optimizer = NULL;

    memset(p, 0, sizeof p);
    model = model_of("one", p, 1);
    mmopt_parameter_layout_init(NULL);
    fill(&h, &dense);
    fill(&other, &dense);
#define REFUSES(change, code, part)                                                \
    do {                                                                           \
        p[0] = parameter_of(&h, 0, &dense, &dense, &layout);                       \
        change;                                                                    \
        FAILS(mmopt_optimizer_create(NULL, &model, 1, &optimizer), code, part);    \
    } while (0)
    REFUSES(layout.strides = broadcast, MMOPT_CODE_UNSUPPORTED, "broadcast");
    REFUSES(layout.strides = overlap, MMOPT_CODE_UNSUPPORTED, "overlap");
    REFUSES(layout.gradient_strides = broadcast, MMOPT_CODE_UNSUPPORTED, "query.weight");
    REFUSES(layout.gradient_strides = broadcast, MMOPT_CODE_UNSUPPORTED, "the gradient's strides");
    REFUSES(layout.dtype = MMOPT_DTYPE_F64, MMOPT_CODE_UNSUPPORTED, "element type f64");
    REFUSES(layout.dtype = MMOPT_DTYPE_I64, MMOPT_CODE_UNSUPPORTED, "model 'one', parameter");
    REFUSES(layout.dtype = 0, MMOPT_CODE_INVALID_ARGUMENT, "layout.dtype is 0");
    REFUSES(layout.reserved = 1, MMOPT_CODE_UNSUPPORTED, "reserved");
    REFUSES(layout.struct_size = 0, MMOPT_CODE_INVALID_ARGUMENT, "mmopt_parameter_layout_init");
    REFUSES(p[0].data = (char *)h.weights + 2, MMOPT_CODE_INVALID_ARGUMENT, "aligned");
    REFUSES(p[0].gradient = (char *)h.gradients + 1, MMOPT_CODE_INVALID_ARGUMENT, "aligned");
    REFUSES(p[0].data = NULL, MMOPT_CODE_INVALID_ARGUMENT, "NULL");
    REFUSES(p[0].gradient_dtype = MMOPT_DTYPE_F64, MMOPT_CODE_UNSUPPORTED, "gradients of type f64");
    REFUSES(p[0].reserved[0] = 1, MMOPT_CODE_UNSUPPORTED, "reserved");
    REFUSES(p[0].gradient = h.weights, MMOPT_CODE_INVALID_ARGUMENT, "gradient of");

    /* Two parameters in one buffer: columns side by side are fine, one element too many is not. */
    model.n_parameters = 2;
    for (int extra = 0; extra < 2; extra++) {
        struct order half = {{8, 1}, 0};
        int64_t wider[2] = {ROWS, COLUMNS + 1};
        fill(&h, &dense);
        p[0] = parameter_of(&h, 0, &half, &dense, &layout);
        p[1] = p[0];
        p[1].name = "encoder.layer.0.attention.self.key.weight";
        p[1].data = h.weights + 4;
        p[1].gradient = NULL;
        p[0].gradient = other.gradients;
        layout.gradient_strides = NULL;
        if (extra)
            p[0].shape = wider;
        if (extra)
            FAILS(mmopt_optimizer_create(NULL, &model, 1, &optimizer), MMOPT_CODE_INVALID_ARGUMENT,
                  "is also that of");
        else
            OK(mmopt_optimizer_create(NULL, &model, 1, &optimizer));
        mmopt_optimizer_free(optimizer);
        optimizer = NULL;
    }
    /* The same values in two models. */
    p[0] = parameter_of(&h, 0, &dense, &dense, &layout);
    mmopt_model_parameters twice[2] = {model_of("one", p, 1), model_of("two", p, 1)};
    FAILS(mmopt_optimizer_create(NULL, twice, 2, &optimizer), MMOPT_CODE_INVALID_ARGUMENT, "'two'");
    p[0].trainable = 0; /* frozen ones are only read */
    OK(mmopt_optimizer_create(NULL, twice, 2, &optimizer));
    mmopt_optimizer_free(optimizer);
    optimizer = NULL;
    /* f64 is welcome where nothing changes it. */
    double frozen[N] = {0};
    two = model_of("two", &p[1], 1);
    p[1] = p[0];
    p[1].data = frozen;
    layout.dtype = MMOPT_DTYPE_F64;
    OK(mmopt_optimizer_create(NULL, &two, 1, &optimizer));
    mmopt_optimizer_free(optimizer);
}

static void test_gradients(void)
{
    struct host h;
    mmopt_parameter_layout layout;
    static const int64_t broadcast[2] = {0, 1};

    fill(&h, &dense);
    mmopt_parameter p = parameter_of(&h, 0, &dense, &dense, &layout);
    p.gradient = NULL;
    mmopt_model_parameters model = model_of("one", &p, 1);
    mmopt_optimizer *optimizer = create(&model, 1);
    float *g = h.gradients;
    const uint32_t f32 = MMOPT_DTYPE_F32;
    REFUSES_NULL(mmopt_optimizer_set_gradient_strided(NULL, 0, 0, g, f32, turned.strides, 2));
    FAILS(mmopt_optimizer_set_gradient_strided(optimizer, 1, 0, g, f32, turned.strides, 2),
          MMOPT_CODE_INVALID_ARGUMENT, "model");
    FAILS(mmopt_optimizer_set_gradient_strided(optimizer, 0, 1, g, f32, turned.strides, 2),
          MMOPT_CODE_INVALID_ARGUMENT, "parameter");
    FAILS(mmopt_optimizer_set_gradient_strided(optimizer, 0, 0, g, 0, turned.strides, 2),
          MMOPT_CODE_INVALID_ARGUMENT, "gradient_dtype");
    FAILS(mmopt_optimizer_set_gradient_strided(optimizer, 0, 0, g, MMOPT_DTYPE_I8, NULL, 0),
          MMOPT_CODE_UNSUPPORTED, "i8");
    FAILS(mmopt_optimizer_set_gradient_strided(optimizer, 0, 0, g, f32, turned.strides, 1),
          MMOPT_CODE_SHAPE, "dimensions");
    FAILS(mmopt_optimizer_set_gradient_strided(optimizer, 0, 0, g, f32, broadcast, 2),
          MMOPT_CODE_UNSUPPORTED, "broadcast");
    /* After all these the optimizer works: no gradient, then a strided one, then a dense one. */
    OK(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
    OK(mmopt_optimizer_step(optimizer, NULL));
    CHECK(h.weights[1] == 0);
    for (size_t i = 0; i < N; i++)
        g[place(&turned, i)] = i == 1 ? 1.0f : 0.0f;
    OK(mmopt_optimizer_set_gradient_strided(optimizer, 0, 0, g, f32, turned.strides, 2));
    OK(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
    OK(mmopt_optimizer_step(optimizer, NULL));
    CHECK(h.weights[1] < 0 && h.weights[0] == 0 && h.weights[3] == 0);
    memset(g, 0, sizeof h.gradients);
    g[2] = 1;
    OK(mmopt_optimizer_set_gradient_strided(optimizer, 0, 0, g, f32, NULL, 0));
    OK(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
    OK(mmopt_optimizer_step(optimizer, NULL));
    CHECK(h.weights[2] < 0);
    mmopt_optimizer_free(optimizer);
}

/* A parameter over DLPack tensors in any strides; what is handed over is deleted once. */
static void test_dlpack(void)
{
    static int64_t shape[2] = {ROWS, COLUMNS}, wrong[2] = {COLUMNS, ROWS}, by_column[2] = {1, ROWS};
    static int64_t by_row[2] = {COLUMNS, 1}, broadcast[2] = {0, 1};
    static const char *const name = "encoder.layer.0.attention.self.query.weight";
    struct host h;
    mmopt_parameter p;
    mmopt_parameter_layout layout;
    mmopt_optimizer *optimizer = NULL;

    fill(&h, &turned);
    managed v = make_managed(h.narrow, CODE_BFLOAT, 16, 2, shape, by_column);
    managed g = make_managed(h.gradients, CODE_FLOAT, 32, 2, shape, by_row);
    FAILS(mmopt_parameter_from_dlpack(name, &v, &g, &p), MMOPT_CODE_INVALID_ARGUMENT, "f32");
    REFUSES_NULL(mmopt_parameter_from_dlpack_strided(NULL, &v, &g, &layout, &p));
    REFUSES_NULL(mmopt_parameter_from_dlpack_strided(name, NULL, &g, &layout, &p));
    REFUSES_NULL(mmopt_parameter_from_dlpack_strided(name, &v, &g, NULL, &p));
    REFUSES_NULL(mmopt_parameter_from_dlpack_strided(name, &v, &g, &layout, NULL));
    v.version.major = 2;
    FAILS(mmopt_parameter_from_dlpack_strided(name, &v, &g, &layout, &p), MMOPT_CODE_UNSUPPORTED,
          "DLPack 2");
    v.version.major = 1;
    v.flags = 1;
    FAILS(mmopt_parameter_from_dlpack_strided(name, &v, &g, &layout, &p),
          MMOPT_CODE_INVALID_ARGUMENT, "read-only");
    v.flags = 0;
    g.t.shape = wrong;
    FAILS(mmopt_parameter_from_dlpack_strided(name, &v, &g, &layout, &p), MMOPT_CODE_SHAPE,
          "differ");
    g.t.shape = shape;
    OK(mmopt_parameter_from_dlpack_strided(name, &v, NULL, &layout, &p));
    CHECK(p.gradient == NULL && layout.gradient_strides == NULL);
    OK(mmopt_parameter_from_dlpack_strided(name, &v, &g, &layout, &p));
    CHECK(p.layout == &layout && layout.dtype == MMOPT_DTYPE_BF16 && p.trainable == 1);
    mmopt_model_parameters model = model_of("one", &p, 1);
    v.t.strides = broadcast;
    OK(mmopt_parameter_from_dlpack_strided(name, &v, &g, &layout, &p));
    FAILS(mmopt_optimizer_create(NULL, &model, 1, &optimizer), MMOPT_CODE_UNSUPPORTED, "broadcast");
    v.t.strides = by_column;
    OK(mmopt_parameter_from_dlpack_strided(name, &v, &g, &layout, &p));
    optimizer = create(&model, 1);
    CHECK(n_deleted == 0);

    REFUSES_NULL(mmopt_optimizer_keep_dlpack(NULL, &v));
    REFUSES_NULL(mmopt_optimizer_keep_dlpack(optimizer, NULL));
    v.version.major = 9;
    FAILS(mmopt_optimizer_keep_dlpack(optimizer, &v), MMOPT_CODE_UNSUPPORTED, "DLPack 9");
    v.version.major = 1;
    CHECK(n_deleted == 0);
    OK(mmopt_optimizer_keep_dlpack(optimizer, &v));
    OK(mmopt_optimizer_keep_dlpack(optimizer, &g));
    for (int step = 0; step < STEPS; step++) {
        backward(&h, 1, &turned, &dense);
        OK(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
        OK(mmopt_optimizer_step(optimizer, NULL));
    }
    CHECK(wide_bf16(h.narrow[0]) > 0.1f && n_deleted == 0);

    /* A gradient that is handed over is deleted when the next one comes, or with the optimizer. */
    uint16_t ones[2 * N];
    for (int i = 0; i < 2 * N; i++)
        ones[i] = 0x3c00; /* 1 as f16 */
    int64_t spread_strides[2] = {2 * COLUMNS, 2};
    managed next = make_managed(ones, CODE_FLOAT, 16, 2, shape, spread_strides), last = next;
    REFUSES_NULL(mmopt_optimizer_set_gradient_dlpack(NULL, 0, 0, &next));
    REFUSES_NULL(mmopt_optimizer_set_gradient_dlpack(optimizer, 0, 0, NULL));
#define REFUSES_GRADIENT(change, code, part)                                                  \
    do {                                                                                      \
        managed bad = next;                                                                   \
        change;                                                                               \
        FAILS(mmopt_optimizer_set_gradient_dlpack(optimizer, 0, 0, &bad), code, part);        \
    } while (0)
    REFUSES_GRADIENT(bad.t.shape = wrong, MMOPT_CODE_SHAPE, "shape");
    REFUSES_GRADIENT(bad.t.strides = broadcast, MMOPT_CODE_UNSUPPORTED, "broadcast");
    REFUSES_GRADIENT(bad.t.dtype.code = CODE_INT, MMOPT_CODE_UNSUPPORTED, "i16");
    REFUSES_GRADIENT(bad.t.device.type = 2, MMOPT_CODE_UNSUPPORTED, "device 2");
    REFUSES_GRADIENT(bad.version.major = 2, MMOPT_CODE_UNSUPPORTED, "DLPack 2");
    FAILS(mmopt_optimizer_set_gradient_dlpack(optimizer, 0, 1, &next), MMOPT_CODE_INVALID_ARGUMENT,
          "parameter");
    CHECK(n_deleted == 0);
    OK(mmopt_optimizer_set_gradient_dlpack(optimizer, 0, 0, &next));
    CHECK(n_deleted == 0);
    float before = wide_bf16(h.narrow[place(&turned, 5)]);
    for (int step = 0; step < STEPS; step++) {
        OK(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
        OK(mmopt_optimizer_step(optimizer, NULL));
    }
    CHECK(wide_bf16(h.narrow[place(&turned, 5)]) < before);
    OK(mmopt_optimizer_set_gradient_dlpack(optimizer, 0, 0, &last));
    CHECK(n_deleted == 1);
    OK(mmopt_optimizer_set_gradient(optimizer, 0, 0, NULL, MMOPT_DTYPE_F32));
    CHECK(n_deleted == 2);
    OK(mmopt_optimizer_set_gradient_dlpack(optimizer, 0, 0, &next));
    OK(mmopt_optimizer_set_gradient_strided(optimizer, 0, 0, h.gradients, MMOPT_DTYPE_F32, NULL, 0));
    CHECK(n_deleted == 3);
    OK(mmopt_optimizer_set_gradient_dlpack(optimizer, 0, 0, &last));
    mmopt_optimizer_free(optimizer);
    CHECK(n_deleted == 6); /* the gradient and the two that were kept */
}

/* The form before DLPack 1.0, in both directions. */
static void test_unversioned(void)
{
    static int64_t shape[1] = {4};
    float values[4] = {1, 2, 3, 4};
    old o;
    void *raw = NULL;
    mmopt_tensor tensor;

    memset(&o, 0, sizeof o);
    o.t = make_plain(values, CODE_FLOAT, 32, 1, shape, NULL);
    o.deleter = count_old;
    n_deleted = n_old_deleted = 0;
    REFUSES_NULL(mmopt_dlpack_from_unversioned(NULL, &raw));
    REFUSES_NULL(mmopt_dlpack_from_unversioned(&o, NULL));
    CHECK(raw == NULL && n_old_deleted == 0);
    OK(mmopt_dlpack_from_unversioned(&o, &raw));
    OK(mmopt_tensor_from_dlpack("x", raw, &tensor));
    CHECK(tensor.data == values && tensor.n_bytes == 16);
    CHECK(n_old_deleted == 0);
    mmopt_dlpack_free(raw);
    CHECK(n_old_deleted == 1);
    o.deleter = NULL; /* nothing to delete is fine, too */
    OK(mmopt_dlpack_from_unversioned(&o, &raw));
    mmopt_dlpack_free(raw);
    mmopt_dlpack_free(NULL);

    managed m = make_managed(values, CODE_FLOAT, 32, 1, shape, NULL);
    raw = NULL;
    REFUSES_NULL(mmopt_dlpack_to_unversioned(NULL, &raw));
    REFUSES_NULL(mmopt_dlpack_to_unversioned(&m, NULL));
    m.flags = 1;
    FAILS(mmopt_dlpack_to_unversioned(&m, &raw), MMOPT_CODE_UNSUPPORTED, "read-only");
    m.flags = 0;
    m.version.major = 2;
    FAILS(mmopt_dlpack_to_unversioned(&m, &raw), MMOPT_CODE_UNSUPPORTED, "DLPack 2");
    m.version.major = 1;
    CHECK(raw == NULL && n_deleted == 0);
    OK(mmopt_dlpack_to_unversioned(&m, &raw));
    old *made = raw;
    CHECK(made->t.data == (void *)values && made->t.shape == shape && n_deleted == 0);
    made->deleter(made);
    CHECK(n_deleted == 1);
}

/* Two optimizers at the same time, and one that two threads fight for. */
struct job {
    struct host h;
    mmopt_optimizer *shared;
    int n_worked, n_busy;
};

static void *train_alone(void *user)
{
    struct job *job = user;
    job->n_worked = run(&job->h, 1, &spread, &turned) == 0;
    return NULL;
}

static void *fight(void *user)
{
    struct job *job = user;
    for (int i = 0; i < 2000; i++) {
        /* Refused where the other thread's gradients still wait for their step, which is tried. */
        mmopt_error_free(mmopt_optimizer_accumulate(job->shared, 0, 1.0));
        mmopt_error *error = mmopt_optimizer_step(job->shared, NULL);
        /* Between the other thread's two calls a step has no gradients. */
        if (mmopt_error_code(error) == MMOPT_CODE_STATE)
            job->n_busy++;
        else if (error == NULL)
            job->n_worked++;
        mmopt_error_free(error);
    }
    return NULL;
}

static void test_threads(void)
{
    static struct job jobs[2];
    struct host alone;
    pthread_t threads[2];

    CHECK(run(&alone, 1, &spread, &turned) == 0);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, train_alone, &jobs[i]) != 0)
            exit(2);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        CHECK(jobs[i].n_worked == 1);
        CHECK(memcmp(alone.narrow, jobs[i].h.narrow, sizeof alone.narrow) == 0);
        jobs[i].n_worked = 0;
    }

    mmopt_parameter_layout layout;
    fill(&alone, &dense);
    mmopt_parameter p = parameter_of(&alone, 0, &dense, &dense, &layout);
    mmopt_model_parameters model = model_of("one", &p, 1);
    backward(&alone, 0, &dense, &dense);
    jobs[0].shared = jobs[1].shared = create(&model, 1);
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, fight, &jobs[i]) != 0)
            exit(2);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++)
        CHECK(jobs[i].n_worked + jobs[i].n_busy == 2000);
    CHECK(jobs[0].n_worked + jobs[1].n_worked > 0);
    mmopt_optimizer_free(jobs[0].shared);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    test_strides();
    test_narrow();
    test_resume(argv[1]);
    test_refusals();
    test_gradients();
    test_dlpack();
    test_unversioned();
    test_threads();
    return finish();
}
