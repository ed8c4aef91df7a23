/* A step through C: prints the median of its microseconds, and a checksum of the weights. */
#include "bench.h"

#include <mmopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void check(mmopt_error *error)
{
    if (error != NULL) {
        fprintf(stderr, "%s\n", mmopt_error_message(error));
        exit(1);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void describe(mmopt_parameter *p, const char *name, const int64_t *shape, size_t n_dims,
                     float *value, float *gradient)
{
    p->name = name;
    p->shape = shape;
    p->n_dims = n_dims;
    p->data = value;
    p->gradient = gradient;
    p->gradient_dtype = MMOPT_DTYPE_F32;
    p->trainable = 1;
}

static mmopt_optimizer *make(void)
{
    static const int64_t shape[2] = {WIDTH, WIDTH};
    mmopt_parameter parameters[MODELS][2];
    mmopt_model_parameters models[MODELS];
    mmopt_trainer_options options;
    mmopt_optimizer *optimizer;

    memset(parameters, 0, sizeof parameters);
    memset(models, 0, sizeof models);
    for (int i = 0; i < MODELS; i++) {
        float *vector = values[i] + WIDTH * WIDTH, *slope = gradients[i] + WIDTH * WIDTH;
        describe(&parameters[i][0], weight_name, shape, 2, values[i], gradients[i]);
        describe(&parameters[i][1], bias_name, shape, 1, vector, slope);
        models[i].name = model_names[i];
        models[i].parameters = parameters[i];
        models[i].n_parameters = 2;
        models[i].weight = 1;
        models[i].stable_gradients = 1;
    }
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = learning_rate;
    options.n_threads = 1;
    check(mmopt_optimizer_create(&options, models, MODELS, &optimizer));
    return optimizer;
}

static double run(mmopt_optimizer *optimizer, int n_steps)
{
    mmopt_step_report report;
    double start = now();
    for (int step = 0; step < n_steps; step++) {
        for (size_t i = 0; i < MODELS; i++)
            check(mmopt_optimizer_accumulate(optimizer, i, 1.0));
        check(mmopt_optimizer_step(optimizer, &report));
    }
    return (now() - start) / n_steps;
}

int main(void)
{
    double times[CHUNKS];

    fill();
    mmopt_optimizer *optimizer = make();
    run(optimizer, WARM_UP);
    for (int i = 0; i < CHUNKS; i++)
        times[i] = run(optimizer, CHUNK);
    qsort(times, CHUNKS, sizeof *times, ascending);
    printf("%.4f %.9e\n", times[CHUNKS / 2], checksum());
    mmopt_optimizer_free(optimizer);
    return 0;
}
