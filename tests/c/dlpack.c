/* DLPack in and out: what is borrowed is never deleted, what is made is deleted once. */
#include "dlpack_structs.h"

#include <math.h>

static int64_t shape[2] = {2, 3}, dense[2] = {3, 1}, transposed[2] = {1, 2};
static float values[8] = {-1, -1, 1, 2, 3, 4, 5, 6}, gradients[6];

static managed make(float *data)
{
    return make_managed(data, CODE_FLOAT, 32, 2, shape, dense);
}

static void test_in(void)
{
    mmopt_tensor tensor;
    mmopt_parameter parameter;
    managed m = make(values), g = make(gradients);
    int64_t other[2] = {3, 2};

    m.t.byte_offset = 2 * sizeof(float);
    OK(mmopt_tensor_from_dlpack("x", &m, &tensor));
    CHECK(tensor.dtype == MMOPT_DTYPE_F32 && tensor.n_bytes == 24 && tensor.shape == shape);
    CHECK(((const float *)tensor.data)[0] == 1);
    REFUSES_NULL(mmopt_tensor_from_dlpack(NULL, &m, &tensor));
    REFUSES_NULL(mmopt_tensor_from_dlpack("x", NULL, &tensor));
    REFUSES_NULL(mmopt_tensor_from_dlpack("x", &m, NULL));
#define REFUSES(change, code, part)                                     \
    do {                                                                \
        m = make(values);                                               \
        change;                                                         \
        FAILS(mmopt_tensor_from_dlpack("x", &m, &tensor), code, part);  \
    } while (0)
    REFUSES(m.version.major = 2, MMOPT_CODE_UNSUPPORTED, "DLPack 2");
    REFUSES(m.t.device.type = 2, MMOPT_CODE_UNSUPPORTED, "device 2");
    REFUSES(m.t.dtype.bits = 4, MMOPT_CODE_UNSUPPORTED, "4 bits");
    REFUSES(m.t.dtype.lanes = 2, MMOPT_CODE_UNSUPPORTED, "2 lanes");
    REFUSES(m.t.strides = transposed, MMOPT_CODE_UNSUPPORTED, "strides");
    REFUSES(m.t.data = NULL, MMOPT_CODE_INVALID_ARGUMENT, "data is NULL");
    REFUSES(m.t.shape = NULL, MMOPT_CODE_INVALID_ARGUMENT, "NULL");
    REFUSES(m.t.ndim = -1, MMOPT_CODE_SHAPE, "dimensions");

    m = make(values);
    OK(mmopt_parameter_from_dlpack("w", &m, &g, &parameter));
    CHECK(parameter.data == values && parameter.gradient == (void *)gradients);
    CHECK(parameter.trainable == 1 && parameter.gradient_dtype == MMOPT_DTYPE_F32);
    OK(mmopt_parameter_from_dlpack("w", &m, NULL, &parameter));
    CHECK(parameter.gradient == NULL);
    REFUSES_NULL(mmopt_parameter_from_dlpack(NULL, &m, &g, &parameter));
    REFUSES_NULL(mmopt_parameter_from_dlpack("w", NULL, &g, &parameter));
    REFUSES_NULL(mmopt_parameter_from_dlpack("w", &m, &g, NULL));
    g.t.shape = other;
    g.t.strides = NULL;
    FAILS(mmopt_parameter_from_dlpack("w", &m, &g, &parameter), MMOPT_CODE_SHAPE, "differ");
    m.flags = 1;
    FAILS(mmopt_parameter_from_dlpack("w", &m, NULL, &parameter), MMOPT_CODE_INVALID_ARGUMENT,
          "writable");
    CHECK(n_deleted == 0);
}

/* One step of an optimizer over DLPack memory. */
static void test_step(void)
{
    mmopt_model_parameters model;
    mmopt_parameter parameter;
    mmopt_optimizer *optimizer = NULL;
    managed m = make(values), g = make(gradients);

    memset(&model, 0, sizeof model);
    OK(mmopt_parameter_from_dlpack("w", &m, &g, &parameter));
    model.name = "one";
    model.parameters = &parameter;
    model.n_parameters = 1;
    model.weight = 1;
    model.stable_gradients = 1;
    OK(mmopt_optimizer_create(NULL, &model, 1, &optimizer));
    for (int i = 0; i < 6; i++)
        gradients[i] = 1;
    float before = values[0];
    OK(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
    OK(mmopt_optimizer_step(optimizer, NULL));
    CHECK(values[0] < before);
    mmopt_optimizer_free(optimizer);
    CHECK(n_deleted == 0);
}

static void test_out(void)
{
    mmopt_tensor tensor, again;
    managed m = make(values), *made = NULL;
    void *raw = NULL;

    OK(mmopt_tensor_from_dlpack("x", &m, &tensor));
    REFUSES_NULL(mmopt_tensor_to_dlpack(NULL, &raw));
    REFUSES_NULL(mmopt_tensor_to_dlpack(&tensor, NULL));
    OK(mmopt_tensor_to_dlpack(&tensor, &raw));
    made = raw;
    CHECK(made->version.major == 1 && made->t.ndim == 2 && made->t.shape[1] == 3);
    CHECK(made->t.data != (void *)values && memcmp(made->t.data, values, 24) == 0);
    OK(mmopt_tensor_from_dlpack("y", made, &again));
    CHECK(again.n_bytes == 24 && again.dtype == MMOPT_DTYPE_F32);
    made->deleter(made);
    /* What is no versioned tensor is not called. */
    managed wrong = make(values);
    wrong.version.major = 0;
    mmopt_dlpack_free(&wrong);
    wrong.version.major = 0x7f001000;
    mmopt_dlpack_free(&wrong);
    CHECK(n_deleted == 0);
    wrong.version.major = 2;
    mmopt_dlpack_free(&wrong);
    CHECK(n_deleted == 1);
    n_deleted = 0;
    tensor.n_bytes = 20;
    raw = NULL;
    FAILS(mmopt_tensor_to_dlpack(&tensor, &raw), MMOPT_CODE_SHAPE, "n_bytes");
    CHECK(raw == NULL && n_deleted == 0);
}

int main(void)
{
    test_in();
    test_step();
    test_out();
    return finish();
}
