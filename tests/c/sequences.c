/* Random calls, legal and not, in random order; and many short lives without growth. Whatever the
 * order, every call either works or gives an error, and the process goes on. */
#include "check.h"

#include <unistd.h>

enum { N_SLOTS = 3, N_CALLS = 4000, N_LIVES = 20000 };

static uint64_t state = 42;

static unsigned below(unsigned n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33) % n;
}

/* A good value, or now and then a random one below n. */
static unsigned mostly(unsigned good, unsigned n)
{
    return below(12) == 0 ? below(n) : good;
}

static int n_ok, n_refused;

static int tried(mmopt_error *error)
{
    uint32_t code = mmopt_error_code(error);
    CHECK(code <= MMOPT_CODE_STATE);
    CHECK((code == MMOPT_CODE_OK) == (strlen(mmopt_error_message(error)) == 0));
    mmopt_error_free(error);
    if (code == MMOPT_CODE_OK)
        n_ok++;
    else
        n_refused++;
    return code == MMOPT_CODE_OK;
}

static mmopt_corpus *corpora[N_SLOTS];
static mmopt_tokenizer *tokenizers[N_SLOTS];
static mmopt_loader *loaders[N_SLOTS];
static mmopt_batch *batches[N_SLOTS];
static mmopt_model *models[N_SLOTS];
static mmopt_trainer *trainers[N_SLOTS];

/* Puts a new object into a slot, whose old one is freed. */
#define REPLACE(slots, free_old, call_into)                  \
    do {                                                     \
        unsigned slot = below(N_SLOTS);                      \
        free_old(slots[slot]);                               \
        slots[slot] = NULL;                                  \
        tried(call_into(&slots[slot]));                      \
    } while (0)

static mmopt_error *new_corpus(mmopt_corpus **out)
{
    return mmopt_corpus_synthetic(mostly(32, 40), below(3), 0.1, out);
}

static mmopt_error *new_tokenizer(mmopt_tokenizer **out)
{
    mmopt_tokenizer_options options;
    mmopt_tokenizer_options_init(&options);
    options.architecture = mostly(1 + below(3), 9);
    options.vocab_size = mostly(400, 500);
    options.max_length = mostly(32, 40);
    return mmopt_tokenizer_train(corpora[below(N_SLOTS)], &options, out);
}

static mmopt_error *new_loader(mmopt_loader **out)
{
    mmopt_loader_options options;
    mmopt_loader_options_init(&options);
    options.batch_size = mostly(8, 9);
    options.pad_to_multiple = 32;
    return mmopt_loader_create(corpora[below(N_SLOTS)],
                               (const mmopt_tokenizer *const *)tokenizers,
                               mostly(1 + below(2), N_SLOTS + 1), &options, out);
}

static mmopt_error *new_batch(mmopt_batch **out)
{
    static const char *texts[] = {"a fine film", "", "dull"};
    if (below(2) == 0)
        return mmopt_loader_next(loaders[below(N_SLOTS)], out);
    return mmopt_batch_encode((const mmopt_tokenizer *const *)tokenizers,
                              mostly(1, N_SLOTS + 1), texts, mostly(3, 4), mostly(0, 50), out);
}

static mmopt_error *new_model(mmopt_model **out)
{
    static const char *names[] = {"a", "b", "c", "d", "e", ""};
    mmopt_model_sizes sizes;
    mmopt_model_sizes_init(&sizes);
    sizes.architecture = mostly(1 + below(3), 6);
    sizes.layers = mostly(1, 2);
    sizes.hidden = 8;
    sizes.heads = mostly(2, 4);
    return mmopt_model_for_corpus(names[below(6)], &sizes, tokenizers[below(N_SLOTS)],
                                  corpora[below(N_SLOTS)], out);
}

static mmopt_error *new_trainer(mmopt_trainer **out)
{
    mmopt_trainer_options options;
    mmopt_trainer_options_init(&options, mostly(below(3), 9));
    options.n_threads = 1;
    options.max_sessions = 1;
    options.accumulation = mostly(1 + below(2), 3);
    return mmopt_trainer_create(&options, (const mmopt_model *const *)models,
                                mostly(1 + below(2), N_SLOTS + 1), out);
}

static void use_trainer(void)
{
    mmopt_trainer *trainer = trainers[below(N_SLOTS)];
    const mmopt_tensor *tensors = NULL;
    mmopt_evaluation *evaluation = NULL;
    size_t n = 0, model = mostly(0, 3);
    char *text = NULL;

    switch (below(8)) {
    case 0: tried(mmopt_trainer_zero_grad(trainer)); break;
    case 1: tried(mmopt_trainer_step(trainer, NULL)); break;
    case 2:
        tried(mmopt_trainer_forward_backward_batch(trainer, batches[below(N_SLOTS)], NULL));
        break;
    case 3:
        if (tried(mmopt_batch_tensors(batches[below(N_SLOTS)], model, &tensors, &n)))
            tried(mmopt_trainer_forward_backward(trainer, model, tensors, n, NULL));
        break;
    case 4:
        if (tried(mmopt_batch_tensors(batches[below(N_SLOTS)], model, &tensors, &n)))
            tried(mmopt_trainer_evaluate(trainer, model, tensors, n, &evaluation));
        mmopt_evaluation_free(evaluation);
        break;
    case 5: tried(mmopt_trainer_set_trainable(trainer, "*", "*bias", mostly(1, 3), &n)); break;
    case 6: tried(mmopt_trainer_set_model_weight(trainer, model, mostly(1, 3))); break;
    default:
        tried(mmopt_trainer_plan(trainer, &text));
        mmopt_text_free(text);
    }
}

static void call_something(int with_runtime)
{
    switch (below(with_runtime ? 30 : 5)) {
    case 0: REPLACE(corpora, mmopt_corpus_free, new_corpus); break;
    case 1: REPLACE(tokenizers, mmopt_tokenizer_free, new_tokenizer); break;
    case 2: REPLACE(loaders, mmopt_loader_free, new_loader); break;
    case 3: REPLACE(batches, mmopt_batch_free, new_batch); break;
    case 4: REPLACE(models, mmopt_model_free, new_model); break;
    case 5: REPLACE(trainers, mmopt_trainer_free, new_trainer); break;
    case 6: tried(mmopt_model_set_weight(models[below(N_SLOTS)], below(3))); break;
    default: use_trainer();
    }
}

/* Pages of this process that are in memory. */
static long n_pages(void)
{
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file != NULL) {
        if (fscanf(file, "%ld %ld", &size, &resident) != 2)
            resident = 0;
        fclose(file);
    }
    return resident;
}

static void live_once(const mmopt_tokenizer *tokenizer)
{
    const char *texts[] = {"a", "b"};
    mmopt_corpus *corpus = NULL;
    mmopt_model *model = NULL;
    mmopt_encoding *encoding = NULL;
    mmopt_batch *batch = NULL;

    mmopt_error_free(mmopt_corpus_from_texts(texts, texts, 2, NULL, &corpus));
    mmopt_error_free(mmopt_model_from_sizes("m", NULL, &model));
    mmopt_error_free(mmopt_model_freeze(model, "\xff"));
    mmopt_error_free(mmopt_tokenizer_encode(tokenizer, "a b c", NULL, 0, &encoding));
    mmopt_error_free(mmopt_batch_encode(&tokenizer, 1, texts, 2, 0, &batch));
    CHECK(corpus != NULL && model != NULL && encoding != NULL && batch != NULL);
    mmopt_batch_free(batch);
    mmopt_encoding_free(encoding);
    mmopt_model_free(model);
    mmopt_corpus_free(corpus);
}

static void test_growth(void)
{
    mmopt_corpus *corpus = NULL;
    mmopt_tokenizer *tokenizer = NULL;

    OK(mmopt_corpus_synthetic(32, 0, 0, &corpus));
    OK(mmopt_tokenizer_train(corpus, NULL, &tokenizer));
    for (int i = 0; i < N_LIVES / 10; i++)
        live_once(tokenizer);
    long before = n_pages();
    for (int i = 0; i < N_LIVES; i++)
        live_once(tokenizer);
    long grown = (n_pages() - before) * (sysconf(_SC_PAGESIZE) / 1024);
    printf("%d lives: %ld KiB more\n", N_LIVES, grown);
    CHECK(grown < 2048);
    mmopt_tokenizer_free(tokenizer);
    mmopt_corpus_free(corpus);
}

int main(int argc, char **argv)
{
    int with_runtime = getenv("MMOPT_ORT_LIB") != NULL;
    (void)argv;
    if (argc != 2)
        return 2;
    test_growth();
    if (with_runtime)
        OK(mmopt_runtime_load(NULL));
    for (int i = 0; i < N_CALLS; i++)
        call_something(with_runtime);
    printf("%d calls worked, %d were refused\n", n_ok, n_refused);
    CHECK(n_ok > N_CALLS / 20 && n_refused > N_CALLS / 20);
    for (int i = 0; i < N_SLOTS; i++) {
        mmopt_corpus_free(corpora[i]);
        mmopt_tokenizer_free(tokenizers[i]);
        mmopt_loader_free(loaders[i]);
        mmopt_batch_free(batches[i]);
        mmopt_model_free(models[i]);
        mmopt_trainer_free(trainers[i]);
    }
    return finish();
}
