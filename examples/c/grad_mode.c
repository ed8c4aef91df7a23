/* Gradient mode: two hand-written networks, of one and of two hidden layers, learn the same task
 * together. The program computes losses and gradients itself; the library clips, shares, and
 * updates the weights where they lie. Prints the accuracy of both on points that they never saw. */
#include "example.h"

#include <math.h>

enum { INPUTS = 2, WIDTH = 16, CLASSES = 2, MAX_LAYERS = 3, BATCH = 32, STEPS = 1500 };

/* Layers of weights [out, in] and biases [out], with tanh between them. */
struct network {
    const char *name;
    int n_layers, sizes[MAX_LAYERS + 1];
    float *weights[MAX_LAYERS], *biases[MAX_LAYERS];
    float *weight_gradients[MAX_LAYERS], *bias_gradients[MAX_LAYERS];
};

static uint64_t state = 1;

/* Uniform in [-1, 1): a linear congruential generator (Knuth's MMIX constants). */
static float uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(state >> 40) / (float)(1 << 23) - 1.0f;
}

/* A point of the square, and whether it lies inside the disc. */
static int make_point(float x[INPUTS])
{
    x[0] = uniform(), x[1] = uniform();
    return x[0] * x[0] + x[1] * x[1] < 0.5f;
}

static struct network make_network(const char *name, int n_hidden)
{
    struct network n = {name, n_hidden + 1, {INPUTS}, {0}, {0}, {0}, {0}};
    for (int l = 0; l < n.n_layers; l++) {
        int in = n.sizes[l], out = l == n_hidden ? CLASSES : WIDTH;
        n.sizes[l + 1] = out;
        n.weights[l] = allocate((size_t)(in * out), sizeof(float));
        n.weight_gradients[l] = allocate((size_t)(in * out), sizeof(float));
        n.biases[l] = allocate((size_t)out, sizeof(float));
        n.bias_gradients[l] = allocate((size_t)out, sizeof(float));
        for (int i = 0; i < in * out; i++)
            n.weights[l][i] = uniform() * sqrtf(3.0f / (float)in);
    }
    return n;
}

/* Fills in the activations of each layer and returns the probability of class 1. */
static double forward(const struct network *n, const float *x, float a[MAX_LAYERS + 1][WIDTH])
{
    memcpy(a[0], x, INPUTS * sizeof(float));
    for (int l = 0; l < n->n_layers; l++) {
        for (int o = 0; o < n->sizes[l + 1]; o++) {
            float sum = n->biases[l][o];
            for (int i = 0; i < n->sizes[l]; i++)
                sum += n->weights[l][o * n->sizes[l] + i] * a[l][i];
            a[l + 1][o] = l + 1 == n->n_layers ? sum : tanhf(sum);
        }
    }
    const float *logits = a[n->n_layers];
    return 1.0 / (1.0 + exp((double)logits[0] - (double)logits[1]));
}

/* Adds one point's gradients of the cross-entropy, divided by the batch; returns its loss. */
static double backward(const struct network *n, const float *x, int label)
{
    float a[MAX_LAYERS + 1][WIDTH], d[WIDTH];
    double p = forward(n, x, a);

    d[1] = (float)(p - label) / BATCH;
    d[0] = -d[1];
    for (int l = n->n_layers - 1; l >= 0; l--) {
        float below[WIDTH] = {0};
        for (int o = 0; o < n->sizes[l + 1]; o++) {
            n->bias_gradients[l][o] += d[o];
            for (int i = 0; i < n->sizes[l]; i++) {
                n->weight_gradients[l][o * n->sizes[l] + i] += d[o] * a[l][i];
                below[i] += d[o] * n->weights[l][o * n->sizes[l] + i];
            }
        }
        for (int i = 0; i < n->sizes[l]; i++)
            d[i] = below[i] * (1 - a[l][i] * a[l][i]);
    }
    return -log(label ? p : 1 - p);
}

static double train_batch(const struct network *n, float points[BATCH][INPUTS], const int *labels)
{
    double loss = 0;
    for (int l = 0; l < n->n_layers; l++) {
        size_t out = (size_t)n->sizes[l + 1], in = (size_t)n->sizes[l];
        memset(n->weight_gradients[l], 0, in * out * sizeof(float));
        memset(n->bias_gradients[l], 0, out * sizeof(float));
    }
    for (int b = 0; b < BATCH; b++)
        loss += backward(n, points[b], labels[b]) / BATCH;
    return loss;
}

/* Describes a network's parameters. First and last layers of both play the same parts, so their
 * roles are named: with a share_rule the library shares gradients between equal roles of equal
 * shape. */
static void describe(const struct network *n, mmopt_parameter *p, int64_t (*shapes)[2],
                     char (*names)[24])
{
    static const char *first[2] = {
        "{\"role\": \"mlp_up\", \"part\": \"weight\", \"block\": 0}",
        "{\"role\": \"mlp_up\", \"part\": \"bias\", \"block\": 0}"};
    static const char *last[2] = {
        "{\"role\": \"mlp_down\", \"part\": \"weight\", \"block\": 0}",
        "{\"role\": \"mlp_down\", \"part\": \"bias\", \"block\": 0}"};

    memset(p, 0, 2 * (size_t)n->n_layers * sizeof *p);
    for (int i = 0; i < 2 * n->n_layers; i++) {
        int l = i / 2, is_bias = i % 2;
        snprintf(names[i], sizeof names[i], "%d.%s", l, is_bias ? "bias" : "weight");
        shapes[i][0] = n->sizes[l + 1];
        shapes[i][1] = n->sizes[l];
        p[i].name = names[i];
        p[i].shape = shapes[i];
        p[i].n_dims = is_bias ? 1 : 2;
        p[i].data = is_bias ? n->biases[l] : n->weights[l];
        p[i].gradient = is_bias ? n->bias_gradients[l] : n->weight_gradients[l];
        p[i].gradient_dtype = MMOPT_DTYPE_F32;
        p[i].trainable = 1;
        p[i].role_json = l == 0 ? first[is_bias] : l == n->n_layers - 1 ? last[is_bias] : NULL;
    }
}

static mmopt_optimizer *make_optimizer(const struct network *networks)
{
    mmopt_model_parameters models[2];
    mmopt_parameter parameters[2][2 * MAX_LAYERS];
    int64_t shapes[2][2 * MAX_LAYERS][2];
    char names[2][2 * MAX_LAYERS][24], *plan;
    mmopt_trainer_options options;
    mmopt_optimizer *optimizer;

    memset(models, 0, sizeof models);
    for (int i = 0; i < 2; i++) {
        describe(&networks[i], parameters[i], shapes[i], names[i]);
        models[i].name = networks[i].name;
        models[i].parameters = parameters[i];
        models[i].n_parameters = (size_t)(2 * networks[i].n_layers);
        models[i].weight = 1;
        models[i].stable_gradients = 1; /* each batch writes them in place */
    }
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.share_rule = MMOPT_SHARE_RULE_GATED;
    options.learning_rate = 1e-2;
    options.n_threads = 1;
    check(mmopt_optimizer_create(&options, models, 2, &optimizer));
    check(mmopt_optimizer_plan(optimizer, &plan));
    fputs(plan, stdout);
    mmopt_string_free(plan);
    return optimizer;
}

static double accuracy(const struct network *n)
{
    int n_right = 0, n_points = 2000;
    for (int i = 0; i < n_points; i++) {
        float x[INPUTS], a[MAX_LAYERS + 1][WIDTH];
        int label = make_point(x);
        n_right += (forward(n, x, a) > 0.5) == label;
    }
    return (double)n_right / n_points;
}

int main(void)
{
    struct network networks[2] = {make_network("shallow", 1), make_network("deep", 2)};
    mmopt_optimizer *optimizer = make_optimizer(networks);
    float points[BATCH][INPUTS];
    int labels[BATCH];

    for (int step = 1; step <= STEPS; step++) {
        for (int b = 0; b < BATCH; b++)
            labels[b] = make_point(points[b]);
        for (size_t i = 0; i < 2; i++)
            check(mmopt_optimizer_accumulate(optimizer, i,
                                             train_batch(&networks[i], points, labels)));
        check(mmopt_optimizer_step(optimizer, NULL));
    }
    mmopt_optimizer_free(optimizer);
    printf("grad_mode: shallow %.3f deep %.3f\n", accuracy(&networks[0]), accuracy(&networks[1]));
    for (int i = 0; i < 2; i++)
        for (int l = 0; l < networks[i].n_layers; l++) {
            free(networks[i].weights[l]);
            free(networks[i].biases[l]);
            free(networks[i].weight_gradients[l]);
            free(networks[i].bias_gradients[l]);
        }
    return 0;
}
