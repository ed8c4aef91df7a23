/* Breaks the thread rule on purpose: one thread reads values that a step of another one writes. A
 * race detector that does not report this sees nothing of the library, and its silence elsewhere
 * is worth nothing.
 *
 *     race FOLDER */
#include "check.h"

#include <pthread.h>

enum { N = 64, STEPS = 200 };

static float values[N], gradients[N], sum;

static void *read_values(void *unused)
{
    (void)unused;
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < N; i++)
            sum += values[i];
    }
    return NULL;
}

static mmopt_optimizer *make_optimizer(void)
{
    static const int64_t shape[1] = {N};
    mmopt_trainer_options options;
    mmopt_optimizer *optimizer = NULL;
    mmopt_parameter parameter;
    mmopt_model_parameters model;

    memset(&parameter, 0, sizeof parameter);
    parameter.name = "weight";
    parameter.shape = shape;
    parameter.n_dims = 1;
    parameter.data = values;
    parameter.gradient = gradients;
    parameter.gradient_dtype = MMOPT_DTYPE_F32;
    parameter.trainable = 1;
    memset(&model, 0, sizeof model);
    model.name = "model";
    model.parameters = &parameter;
    model.n_parameters = 1;
    model.weight = 1;
    model.stable_gradients = 1;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.n_threads = 1;
    OK(mmopt_optimizer_create(&options, &model, 1, &optimizer));
    return optimizer;
}

int main(void)
{
    mmopt_optimizer *optimizer = make_optimizer();
    pthread_t reader;

    for (int i = 0; i < N; i++)
        gradients[i] = 1;
    if (pthread_create(&reader, NULL, read_values, NULL) != 0)
        return 2;
    for (int step = 0; step < STEPS; step++) {
        OK(mmopt_optimizer_accumulate(optimizer, 0, 1.0));
        OK(mmopt_optimizer_step(optimizer, NULL));
    }
    pthread_join(reader, NULL);
    mmopt_optimizer_free(optimizer);
    return finish();
}
