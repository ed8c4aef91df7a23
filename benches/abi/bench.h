/* What the programs of this benchmark have in common, so that all of them do the same: two models,
 * each with one matrix and one vector whose gradients stay as they are. A step is: tell both
 * losses, then step. */
#ifndef MMOPT_BENCH_H
#define MMOPT_BENCH_H

enum { MODELS = 2, WIDTH = 16, ELEMENTS = WIDTH * WIDTH + WIDTH };
enum { WARM_UP = 2000, CHUNKS = 41, CHUNK = 500 };

static const char *const model_names[MODELS] = {"one", "two"};
static const char *const weight_name = "encoder.layer.0.attention.self.query.weight";
static const char *const bias_name = "encoder.layer.0.attention.self.query.bias";
static const double learning_rate = 1e-4;

/* Matrices first, then vectors. */
static float values[MODELS][ELEMENTS], gradients[MODELS][ELEMENTS];

static inline void fill(void)
{
    for (int i = 0; i < MODELS; i++)
        for (int j = 0; j < ELEMENTS; j++)
            gradients[i][j] = (float)((i + j) % 7 - 3) / 64.0f;
}

static inline double checksum(void)
{
    double sum = 0;
    for (int i = 0; i < MODELS; i++)
        for (int j = 0; j < ELEMENTS; j++)
            sum += (double)values[i][j] * (j + 1);
    return sum;
}

#endif
