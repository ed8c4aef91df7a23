/* The gradient of a model's output `test/loss` against differences, along one random direction through
   all parameters:

       gradients MODEL.onnx [LOSS [all]]

   prints `passed`, `refused` with the reason, or `failed`, and ends with 0, or 1 for failed. LOSS is
   what the loss should be. With `all`, constants are trained that are no parameters by default. Where the difference disagrees, the parameters may lie on a kink: the
   step is made smaller, and they are moved a little. Steps and directions are such that f32 holds
   what is added to a large number. */
#include <mmopt.h>

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A parameter with its value, the direction, and the point where the gradient is taken. */
struct parameter {
    size_t index, n;
    uint32_t dtype;
    double *value, *direction, *point;
};

static mmopt_trainer *trainer;
static struct parameter *parameters;
static size_t n_parameters;

static void stop(const char *what, mmopt_error *error)
{
    const char *message = mmopt_error_message(error);
    /* The library names the runtime's reasons; one line is enough. */
    printf("%s %u %.*s\n", what, (unsigned)mmopt_error_code(error), (int)strcspn(message, "\n"),
           message);
    exit(strcmp(what, "failed") == 0);
}

static void check(mmopt_error *error)
{
    const char *message = mmopt_error_message(error);
    if (error == NULL)
        return;
    if (mmopt_error_code(error) == MMOPT_CODE_UNSUPPORTED ||
        strstr(message, "no trainable parameter") != NULL)
        stop("refused", error);
    stop("failed", error);
}

static double uniform(void)
{
    static uint64_t state = 88172645463325252u;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (double)(state >> 11) / 9007199254740992.0 * 2 - 1;
}

/* A random multiple of 1/64 from -1 to 1. */
static double coarse(void)
{
    return floor(uniform() * 64) / 64;
}

static double element(const mmopt_tensor *tensor, size_t i)
{
    double wide;
    float narrow;
    if (tensor->dtype == MMOPT_DTYPE_F64) {
        memcpy(&wide, (const char *)tensor->data + i * sizeof wide, sizeof wide);
        return wide;
    }
    memcpy(&narrow, (const char *)tensor->data + i * sizeof narrow, sizeof narrow);
    return narrow;
}

static void *reserve(size_t n)
{
    void *memory = calloc(n + 1, sizeof(double));
    if (memory == NULL)
        exit(2);
    return memory;
}

static void open_model(const char *path, int all)
{
    mmopt_model *model = NULL;
    mmopt_loss_options loss;
    mmopt_trainer_options options;

    check(mmopt_model_from_onnx("case", path, &model));
    mmopt_loss_options_init(&loss);
    loss.kind = MMOPT_LOSS_OUTPUT;
    loss.output = "test/loss";
    check(mmopt_model_set_loss(model, &loss));
    if (all)
        check(mmopt_model_train_only(model, "*"));
    check(mmopt_model_freeze(model, "fixed/*"));
    mmopt_trainer_options_init(&options, MMOPT_PRESET_INDEPENDENT);
    check(mmopt_trainer_create(&options, (const mmopt_model *const *)&model, 1, &trainer));
    mmopt_model_free(model);
}

static void read_parameters(void)
{
    size_t all = mmopt_trainer_n_parameters(trainer, 0);

    parameters = calloc(all + 1, sizeof *parameters);
    if (parameters == NULL)
        exit(2);
    for (size_t i = 0; i < all; i++) {
        struct parameter *p = &parameters[n_parameters];
        mmopt_tensor tensor;
        uint32_t trainable = 0;

        check(mmopt_trainer_parameter(trainer, 0, i, &tensor, &trainable));
        if (!trainable)
            continue;
        p->index = i;
        p->dtype = tensor.dtype;
        p->n = tensor.n_bytes / (tensor.dtype == MMOPT_DTYPE_F64 ? 8 : 4);
        p->value = reserve(p->n);
        p->direction = reserve(p->n);
        p->point = reserve(p->n);
        for (size_t j = 0; j < p->n; j++) {
            p->value[j] = element(&tensor, j);
            p->direction[j] = coarse();
        }
        n_parameters++;
    }
}

/* The loss at the point moved by `step` along the direction. */
static double loss_at(double step)
{
    static const int64_t shape[] = {1};
    static const float zero = 0;
    const mmopt_tensor one = {"one", MMOPT_DTYPE_F32, 0, shape, 1, &zero, sizeof zero};
    mmopt_train_result result;

    for (size_t i = 0; i < n_parameters; i++) {
        struct parameter *p = &parameters[i];
        double *wide = reserve(p->n);
        float *narrow = (float *)reserve(p->n);
        int is_wide = p->dtype == MMOPT_DTYPE_F64;

        for (size_t j = 0; j < p->n; j++) {
            wide[j] = p->point[j] + step * p->direction[j];
            narrow[j] = (float)wide[j];
        }
        check(mmopt_trainer_set_parameter(trainer, 0, p->index, is_wide ? (void *)wide : narrow,
                                          p->n * (is_wide ? sizeof *wide : sizeof *narrow)));
        free(wide);
        free(narrow);
    }
    check(mmopt_trainer_forward_backward(trainer, 0, &one, 1, &result));
    return result.loss;
}

/* The derivative along the direction, from the gradients of the last pass; its usual size. */
static double along(double *size)
{
    double sum = 0, squares = 0;

    for (size_t i = 0; i < n_parameters; i++) {
        struct parameter *p = &parameters[i];
        mmopt_tensor gradient;
        mmopt_error *error = mmopt_trainer_gradient(trainer, 0, p->index, &gradient);

        if (mmopt_error_code(error) == MMOPT_CODE_STATE) {
            mmopt_error_free(error); /* the loss does not depend on it */
            continue;
        }
        check(error);
        for (size_t j = 0; j < p->n; j++) {
            double g = element(&gradient, j);
            sum += g * p->direction[j];
            squares += g * g * p->direction[j] * p->direction[j];
        }
    }
    *size = sqrt(squares);
    return sum;
}

static int close_to(double a, double b, double size, double bound)
{
    double scale = fmax(fmax(fabs(a), fabs(b)), fmax(size, 1e-3));
    return fabs(a - b) <= bound * scale;
}

int main(int n_arguments, char **arguments)
{
    double found = 0, difference = 0, size = 0, loss = 0;

    if (n_arguments < 2)
        return 2;
    open_model(arguments[1], n_arguments > 3 && strcmp(arguments[3], "all") == 0);
    read_parameters();
    for (int attempt = 0; attempt < 16; attempt++) {
        static const double steps[] = {1.0 / 64, 1.0 / 512, 1.0 / 2048, 1.0 / 16};
        double h = steps[attempt % 4];

        for (size_t i = 0; i < n_parameters; i++)
            for (size_t j = 0; j < parameters[i].n; j++)
                parameters[i].point[j] =
                    parameters[i].value[j] + (attempt < 4 ? 0 : coarse() / 32);
        loss = loss_at(0);
        found = along(&size);
        if (attempt == 0 && n_arguments > 2 && strcmp(arguments[2], "-") != 0) {
            double expected = strtod(arguments[2], NULL);
            if (!close_to(loss, expected, 1, 1e-3)) {
                printf("failed value %g, the standard's is %g\n", loss, expected);
                return 1;
            }
        }
        difference = (8 * (loss_at(h) - loss_at(-h)) - (loss_at(2 * h) - loss_at(-2 * h))) / (12 * h);
        /* What f32 rounds away of the loss, divided by the step, is no difference. */
        if (close_to(found, difference, size + fabs(loss) * 1e-6 / h / 1e-2, 1e-2)) {
            printf("passed\n");
            mmopt_trainer_free(trainer);
            return 0;
        }
    }
    printf("failed gradient %g, differences %g\n", found, difference);
    return 1;
}
