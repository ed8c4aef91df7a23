/* Good arguments for every function, in two ways: the systematic test has one of each object; random
 * calls draw objects from slots, and texts and small numbers from a generator. */
#include "check.h"

#include <math.h>
#include <pthread.h>
#include <sys/stat.h>

enum { N_TEXTS = 4, N_IDS = 3, N_FLOATS = 12, N_PATHS = 16, N_CLASSES = 8, N_TOKENS = 32 };

/* The layouts of dlpack.h 1.x, and of the form before it. */
struct plain {
    void *data;
    struct { int32_t type, id; } device;
    int32_t n_dims;
    struct { uint8_t code, bits; uint16_t lanes; } dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
};

typedef struct managed {
    struct { uint32_t major, minor; } version;
    void *context;
    void (*deleter)(struct managed *);
    uint64_t flags;
    struct plain tensor;
} managed;

typedef struct unversioned {
    struct plain tensor;
    void *context;
    void (*deleter)(struct unversioned *);
} unversioned;

struct world {
    /* One of each handle, and from which slot it was drawn. */
    WORLD_OBJECTS
    const mmopt_tokenizer *tokenizers[2];
    const mmopt_model *models[2];
    const mmopt_corpus *tags;
    /* A GPT-2 that writes: its tokenizer, trainer and predictor. */
    mmopt_tokenizer *writer_tokenizer;
    mmopt_trainer *writer;
    mmopt_predictor *writer_predictor;
    /* A BERT with adapters. */
    mmopt_trainer *adapted;
    const mmopt_batch *questions;
    /* Where inputs lie; where outputs go, of each thread its own. */
    const char *folder, *out;
    int is_thread;
    char paths[N_PATHS][512];
    int n_paths;
    /* Random calls: the generator's state, the slots (NULL: results are freed at once), and what
     * callbacks answer. */
    int fuzz;
    uint64_t state;
    struct slots *slots;
    uint32_t answer;
    uint64_t n_called_back;
    /* Inputs. */
    const char *texts[N_TEXTS], *labels[N_TEXTS], *logs[1], *token_files[2];
    uint32_t ids[N_IDS];
    const char *loader_state, *config;
    char *onnx;
    size_t n_onnx, bias;
    const mmopt_tensor *tensors, *parts[2];
    size_t n_tensors, n_parts[2];
    mmopt_train_result results[4];
    double losses[2];
    mmopt_fit_best best[4];
    double tried[128], curves[512], suggested[4];
    float two[2];
    const char *tag_names[2];
    int64_t predicted[N_CLASSES], labelled[N_CLASSES];
    size_t n_answers[N_TEXTS];
    uint64_t counts[4], token_counts[2];
    float logits[N_TOKENS];
    managed managed;
    mmopt_model *graph;
    int64_t strides[2];
    mmopt_model_parameters parameters[2];
    mmopt_parameter parameter[2];
    float values[2][N_FLOATS], gradients[2][N_FLOATS];
};

/* Which parameter is NULL, which number is illegal, which field of the options is; -1: none. */
struct twist { int null, number, field; };

struct result {
    uint32_t code;   /* of functions that can fail */
    int says_null;   /* the message names NULL */
    int says_something;
    int nothing;     /* 0, NULL, an empty text, -1 or NaN, of functions that cannot fail */
};

enum legality { NONE, ALLOWED, REFUSED };

struct parameter { const char *name; enum legality null, number; };
struct field { const char *name; int index; };

struct function {
    const char *name;
    struct result (*call)(struct world *w, struct twist t);
    int can_fail, shared, frees, n_parameters;
    struct parameter parameters[9];
    int n_fields;
    struct field fields[32];
};

static unsigned below(struct world *w, unsigned n)
{
    w->state = w->state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(w->state >> 33) % n;
}

static const char *joined(struct world *w, const char *folder, const char *name)
{
    if (w->fuzz && below(w, 20) == 0)
        return below(w, 2) ? "/proc/none/x" : "\xff";
    if (w->fuzz && below(w, 3) == 0)
        folder = w->out;
    char *place = w->paths[w->n_paths++ % N_PATHS];
    if (snprintf(place, sizeof w->paths[0], "%s/%s", folder, name) >= (int)sizeof w->paths[0])
        exit(2);
    return place;
}

static const char *path(struct world *w, const char *name)
{
    return joined(w, w->folder, name);
}

static const char *out(struct world *w, const char *name)
{
    return joined(w, w->out, name);
}

/* A text; among random calls now and then another one. */
static const char *text(struct world *w, const char *good)
{
    static const char *const others[] = {
        "", "*", "\xff", "{}", "[", "null", "gpt2", "bert", "a", "b", "a fine film", "?*?",
        "classifier.bias", "/proc/none/x", "{\"model_type\": \"bert\"}", "\xf0\x9f\x98\x80",
    };
    if (!w->fuzz || below(w, 5) > 0)
        return good;
    return others[below(w, sizeof others / sizeof others[0])];
}

/* A small number. */
static size_t at(struct world *w, size_t good)
{
    return !w->fuzz || below(w, 5) > 0 ? good : below(w, 5);
}

/* How many of an array of n. */
static size_t count(struct world *w, size_t n)
{
    return !w->fuzz || below(w, 5) > 0 ? n : below(w, (unsigned)n + 1);
}

static void called_back(struct world *w)
{
    if (w != NULL)
        __atomic_fetch_add(&w->n_called_back, 1, __ATOMIC_RELAXED);
}

static double on_rate(void *user, const char *model, uint64_t step, double rate)
{
    struct world *w = user;
    called_back(w);
    return model != NULL && step > 0 ? rate : -1;
}

static void on_log(void *user, uint32_t level, const char *message)
{
    struct world *w = user;
    if (level > 0 && message[0] != 0)
        called_back(w);
}

static uint32_t on_gradient(void *user, const mmopt_gradient_view *gradient)
{
    called_back(user);
    return gradient->n_elements > 0 ? MMOPT_GRADIENT_ACTION_USE : UINT32_MAX;
}

static uint32_t on_progress(void *user, const mmopt_progress *progress)
{
    struct world *w = user;
    called_back(w);
    return progress->phase > 0 && w != NULL ? w->answer : 0;
}

static uint32_t on_fit_progress(void *user, const mmopt_fit_progress *progress)
{
    struct world *w = user;
    called_back(w);
    return progress->step > 0 && w != NULL ? w->answer : 0;
}

/* The functions of a rank by itself, of which the sums are what they were. */
static size_t none_before(void *user)
{
    (void)user;
    return 0;
}

static size_t one_rank(void *user)
{
    called_back(user);
    return 1;
}

static uint32_t alone(void *user, mmopt_communicator_call *call)
{
    called_back(user);
    return call->stream != NULL || call->message_size == 0;
}

static uint32_t on_all_reduce(void *user, mmopt_communicator_call *call, void *data, size_t n,
                              uint32_t dtype)
{
    (void)data, (void)n, (void)dtype;
    return alone(user, call);
}

static uint32_t on_bytes(void *user, mmopt_communicator_call *call, void *data, size_t n, size_t rank)
{
    (void)data, (void)n;
    return alone(user, call) || rank != 0;
}

static uint32_t on_send(void *user, mmopt_communicator_call *call, const void *data, size_t n,
                        size_t to)
{
    (void)data, (void)n;
    return alone(user, call) || to != 0;
}

static uint32_t on_all_gather(void *user, mmopt_communicator_call *call, const void *data, size_t n,
                              void *all)
{
    memcpy(all, data, n);
    return alone(user, call);
}

static uint32_t on_reduce_scatter(void *user, mmopt_communicator_call *call, void *data, size_t n,
                                  uint32_t dtype, void *part)
{
    memcpy(part, data, n * (dtype == MMOPT_DTYPE_F32 ? 4 : 8));
    return alone(user, call);
}

static void tweak_communicator_callbacks(struct world *w, mmopt_communicator_callbacks *c)
{
    (void)w;
    c->rank = none_before;
    c->size = one_rank;
    c->all_reduce = on_all_reduce;
    c->broadcast = c->receive = on_bytes;
    c->all_gather = on_all_gather;
    c->reduce_scatter = on_reduce_scatter;
    c->send = on_send;
    c->barrier = alone;
}

static void keep_error(struct world *w, mmopt_error *error);

static void judge(struct world *w, struct result *o, mmopt_error *error)
{
    const char *message = mmopt_error_message(error);
    o->code = mmopt_error_code(error);
    o->says_null = strstr(message, "NULL") != NULL;
    o->says_something = strlen(message) > 5;
    keep_error(w, error);
}

static void delete_managed(void *made)
{
    managed *m = made;
    if (m != NULL)
        m->deleter(m);
}

static void delete_unversioned(void *made)
{
    unversioned *old = made;
    if (old != NULL)
        old->deleter(old);
}

static void free_managed(managed *m) { free(m); }
static void free_unversioned(unversioned *old) { free(old); }

/* A matrix of zeros on the heap, in both forms; the elements and the shape follow the struct. */
static void describe(struct plain *t, void *end)
{
    int64_t *shape = end;
    shape[0] = 3, shape[1] = 4;
    t->data = shape + 2;
    t->device.type = 1;
    t->n_dims = 2;
    t->dtype.code = 2, t->dtype.bits = 32, t->dtype.lanes = 1;
    t->shape = shape;
}

static void *fresh_managed(void)
{
    managed *m = calloc(1, sizeof *m + 2 * sizeof(int64_t) + N_FLOATS * sizeof(float));
    m->version.major = 1;
    m->deleter = free_managed;
    describe(&m->tensor, m + 1);
    return m;
}

static void *fresh_unversioned(void)
{
    unversioned *old = calloc(1, sizeof *old + 2 * sizeof(int64_t) + N_FLOATS * sizeof(float));
    old->deleter = free_unversioned;
    describe(&old->tensor, old + 1);
    return old;
}

/* Small enough to be quick. */
static void tweak_corpus_options(struct world *w, mmopt_corpus_options *o)
{
    if (w->fuzz)
        o->labels_of = below(w, 2) ? w->corpus : NULL;
}

static void tweak_loader_options(struct world *w, mmopt_loader_options *o)
{
    o->batch_size = 4;
    o->pad_to_multiple_of = 32;
    if (!w->fuzz)
        return;
    o->shuffle = below(w, 2), o->drop_last = below(w, 2), o->aligned = below(w, 2);
    o->seed = below(w, 3), o->bucket_batches = below(w, 3), o->all_windows = below(w, 2);
    o->pack = below(w, 2), o->overlap = below(w, 8);
    o->objective = below(w, 8) == 0, o->batch_size = at(w, 4);
    o->unlabelled_ratio = below(w, 8) == 0;
}

static void tweak_tokenizer_options(struct world *w, mmopt_tokenizer_options *o)
{
    o->vocab_size = 400;
    o->model_max_length = 32;
    if (!w->fuzz)
        return;
    o->architecture = 1 + below(w, 4), o->algorithm = below(w, 3) % 2 * below(w, 3);
    o->lowercase = below(w, 2), o->min_frequency = below(w, 4);
    o->vocab_size = below(w, 8) ? 400 : below(w, 300);
}

static void tweak_loss_options(struct world *w, mmopt_loss_options *o)
{
    if (!w->fuzz)
        return;
    o->kind = below(w, 4) ? MMOPT_LOSS_SEQUENCE_CLASSIFICATION : 1 + below(w, 7);
    o->label_smoothing = below(w, 2) ? 0 : 0.1;
    o->class_weights = below(w, 4) ? NULL : w->two;
    o->n_class_weights = o->class_weights ? count(w, 2) : 0;
    o->output = below(w, 6) ? NULL : text(w, "logits");
}

static void tweak_generate_options(struct world *w, mmopt_generate_options *o)
{
    o->max_new_tokens = 3;
    if (!w->fuzz)
        return;
    o->do_sample = below(w, 2), o->top_k = below(w, 3), o->seed = below(w, 3);
    o->top_p = below(w, 2) ? 1 : 0.5, o->max_length = below(w, 5);
}

static void tweak_precomputed_gradient_options(struct world *w, mmopt_precomputed_gradient_options *o)
{
    static const mmopt_gradient_output pair = {"classifier.bias", "gradient"};
    o->loss = text(w, "loss");
    o->gradients = &pair;
    o->n_gradients = 1;
}

static void tweak_adapter_options(struct world *w, mmopt_adapter_options *o)
{
    static const char *const targets[] = {"query", "intermediate.dense", "classifier", "c_attn"};
    o->target_modules = targets, o->n_target_modules = 1, o->rank = 2;
    if (!w->fuzz)
        return;
    o->n_target_modules = below(w, 5), o->rank = below(w, 4), o->alpha = below(w, 6);
    o->dropout = below(w, 3) ? 0 : 0.1 * below(w, 12);
    o->modules_to_save = below(w, 2) ? NULL : targets + 2;
    o->n_modules_to_save = o->modules_to_save ? below(w, 3) : 0;
}

static void tweak_model_config(struct world *w, mmopt_model_config *o)
{
    o->n_layers = 1, o->hidden_size = 8, o->n_heads = 2, o->vocab_size = 400, o->n_positions = 32;
    if (!w->fuzz)
        return;
    o->architecture = 1 + below(w, 4);
    o->task = below(w, 4) ? MMOPT_TASK_SEQUENCE_CLASSIFICATION : 1 + below(w, 5);
    o->n_labels = at(w, 2), o->n_layers = at(w, 1), o->n_heads = at(w, 2), o->intermediate_size = at(w, 0);
    o->dropout = below(w, 2) ? 0 : 0.1, o->pad_token_id = below(w, 6) ? -1 : (int64_t)below(w, 500);
}

static void tweak_trainer_options(struct world *w, mmopt_trainer_options *o)
{
    o->n_threads = 1;
    o->max_sessions = 1;
    o->options_json = "{\"metrics_every\": 1}";
    if (!w->fuzz)
        return;
    mmopt_trainer_options_init(o, below(w, 3));
    o->n_threads = 1 + below(w, 2), o->max_sessions = 1 + below(w, 2);
    if (below(w, 4) == 0)
        o->share_policy = below(w, 3), o->share_rule = below(w, 5), o->adaptive_lr = below(w, 3);
    o->gradient_accumulation_steps = below(w, 3) ? 1 : 1 + below(w, 3);
    o->sync_every = below(w, 3), o->share_every = below(w, 3), o->non_finite = below(w, 3);
    o->lr_schedule = below(w, 7), o->total_steps = 10, o->learning_rate = 1e-3;
}

static void tweak_fit_options(struct world *w, mmopt_fit_options *o)
{
    o->max_steps = 1;
    if (!w->fuzz)
        return;
    o->max_steps = 1 + below(w, 2), o->patience = below(w, 4) == 0, o->keep_best = below(w, 2);
    o->evaluate_every = below(w, 3), o->metric = below(w, 2), o->log_every = at(w, 1);
    o->use_ema_weights = below(w, 4) == 0, o->monitor = below(w, 4) ? NULL : text(w, "bert");
    if (below(w, 4) == 0)
        o->checkpoint_dir = out(w, "fit"), o->resume = below(w, 2), o->checkpoint_every = 1;
    if (below(w, 4) == 0)
        o->jsonl_path = out(w, "fit.jsonl"), o->csv_path = out(w, "fit.csv");
    if (below(w, 4) == 0) {
        o->tensorboard_dir = out(w, "fit-events");
        o->histogram_every = below(w, 2), o->sharing_images = below(w, 2);
    }
}

static void tweak_find_learning_rate_options(struct world *w, mmopt_find_learning_rate_options *o)
{
    o->n_steps = w->fuzz ? at(w, 3) : 3;
}

static void fill_inputs(struct world *w)
{
    static const char *const texts[N_TEXTS] = {"a fine film", "dull", "good music", "a bad story"};
    static const char *const labels[N_TEXTS] = {"0", "1", "0", "1"};
    static const int64_t shape[2] = {3, 4};
    static int64_t dims[2] = {3, 4};
    static const char *const names[2] = {"one", "two"};

    memcpy(w->texts, texts, sizeof texts);
    memcpy(w->labels, labels, sizeof labels);
    w->ids[0] = 5, w->ids[1] = 6, w->ids[2] = 7;
    w->losses[0] = w->losses[1] = 0.5;
    w->token_counts[0] = w->token_counts[1] = 3;
    w->two[0] = 0.5f, w->two[1] = 1.5f;
    w->tag_names[0] = "O", w->tag_names[1] = "B-PER";
    for (int i = 0; i < N_CLASSES; i++)
        w->predicted[i] = i % 2, w->labelled[i] = i % 3 - 1;
    memset(w->n_answers, 0, sizeof w->n_answers);
    w->n_answers[0] = 2, w->n_answers[2] = 1;
    memset(w->logits, 0, sizeof w->logits);
    w->config = "{\"model_type\": \"bert\", \"vocab_size\": 400, \"hidden_size\": 8, "
                "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"intermediate_size\": 16, "
                "\"max_position_embeddings\": 32}";
    memset(&w->managed, 0, sizeof w->managed);
    w->managed.version.major = 1;
    w->managed.tensor.data = w->values[0];
    w->managed.tensor.device.type = 1;
    w->managed.tensor.n_dims = 2;
    w->managed.tensor.dtype.code = 2, w->managed.tensor.dtype.bits = 32;
    w->managed.tensor.dtype.lanes = 1;
    w->managed.tensor.shape = dims;
    w->strides[0] = 4, w->strides[1] = 1;
    memset(w->parameters, 0, sizeof w->parameters);
    memset(w->parameter, 0, sizeof w->parameter);
    for (int i = 0; i < 2; i++) {
        mmopt_parameter *p = &w->parameter[i];
        p->name = "encoder.layer.0.attention.self.query.weight";
        p->shape = shape;
        p->n_dims = 2;
        p->data = w->values[i];
        p->gradient = w->gradients[i];
        p->gradient_dtype = MMOPT_DTYPE_F32;
        p->trainable = 1;
        w->parameters[i].name = names[i];
        w->parameters[i].parameters = p;
        w->parameters[i].n_parameters = 1;
        w->parameters[i].weight = 1;
        w->parameters[i].stable_gradients = 1;
        for (int j = 0; j < N_FLOATS; j++)
            w->gradients[i][j] = (float)(j % 3) - 1;
    }
}

static char *take_text(struct world *w)
{
    char *made = NULL;
    mmopt_error_free(mmopt_corpus_text(w->corpus, 0, &made));
    return made;
}

/* Nothing waits for a step any more. */
static void settle(struct world *w)
{
    OK(mmopt_trainer_zero_grad(w->trainer));
}

static void pass(struct world *w)
{
    settle(w);
    OK(mmopt_trainer_forward_backward_batch(w->trainer, w->batch, NULL));
}

static void accumulate(struct world *w)
{
    OK(mmopt_optimizer_zero_grad(w->optimizer));
    for (size_t i = 0; i < 2; i++)
        OK(mmopt_optimizer_accumulate(w->optimizer, i, 1.0));
}
