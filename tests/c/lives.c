/* Many short lives of each kind of object: once the allocator is warm, the process stays as large as
 * it is. */
#include "check.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <time.h>
#include <unistd.h>

/* Objects without a session live as often as the first says, those around one as often as the
 * second. */
enum { N_LIVES = 100000, N_SESSIONS = 300, N_FLOATS = 12 };

static mmopt_corpus *corpus;
static mmopt_tokenizer *tokenizer;
static mmopt_loader *loader;
static mmopt_batch *batch;
static mmopt_trainer *trainer;

static const char *const texts[2] = {"a b", "c"};

static void live_error(void)
{
    mmopt_error *error = mmopt_runtime_load("\xff");
    CHECK(error != NULL);
    mmopt_error_free(error);
}

static void live_corpus(void)
{
    mmopt_corpus *made = NULL;
    char *text = NULL;
    mmopt_error_free(mmopt_corpus_from_texts(texts, texts, 2, NULL, &made));
    mmopt_error_free(mmopt_corpus_text(made, 1, &text));
    CHECK(text != NULL);
    mmopt_string_free(text);
    mmopt_corpus_free(made);
}

static void live_tokenizer(void)
{
    static mmopt_corpus *small = NULL;
    mmopt_tokenizer *made = NULL;
    if (small == NULL)
        mmopt_error_free(mmopt_corpus_from_texts(texts, NULL, 2, NULL, &small));
    mmopt_error_free(mmopt_tokenizer_train(small, NULL, &made));
    CHECK(made != NULL);
    mmopt_tokenizer_free(made);
}

/* One of byte pairs, which remembers words. */
static void live_words(void)
{
    mmopt_tokenizer_options options;
    mmopt_corpus *small = NULL;
    mmopt_tokenizer *made = NULL;
    const mmopt_tokenizer *one;
    mmopt_encoding *encoding = NULL;
    mmopt_loader *encoded = NULL;
    mmopt_tokenizer_options_init(&options);
    options.architecture = MMOPT_ARCHITECTURE_GPT2, options.vocab_size = 260;
    mmopt_error_free(mmopt_corpus_from_texts(texts, texts, 2, NULL, &small));
    mmopt_error_free(mmopt_tokenizer_train(small, &options, &made));
    CHECK(made != NULL);
    one = made;
    mmopt_error_free(mmopt_tokenizer_encode(made, "some words of a sentence", NULL, 0, &encoding));
    CHECK(encoding != NULL);
    mmopt_error_free(mmopt_loader_create(small, &one, 1, NULL, &encoded));
    CHECK(encoded != NULL);
    mmopt_loader_free(encoded);
    mmopt_encoding_free(encoding);
    mmopt_tokenizer_free(made);
    mmopt_corpus_free(small);
}

static void live_encoding(void)
{
    mmopt_encoding *made = NULL;
    mmopt_error_free(mmopt_tokenizer_encode(tokenizer, "a b c", NULL, 0, &made));
    CHECK(made != NULL);
    mmopt_encoding_free(made);
}

static void live_batch(void)
{
    const mmopt_tokenizer *one = tokenizer;
    mmopt_batch *made = NULL;
    mmopt_error_free(mmopt_batch_encode(&one, 1, texts, 2, 0, &made));
    CHECK(made != NULL);
    mmopt_batch_free(made);
}

static void live_loader(void)
{
    static mmopt_corpus *small = NULL;
    const mmopt_tokenizer *one = tokenizer;
    mmopt_loader *made = NULL;
    mmopt_batch *first = NULL;
    if (small == NULL)
        mmopt_error_free(mmopt_corpus_from_texts(texts, texts, 2, NULL, &small));
    mmopt_error_free(mmopt_loader_create(small, &one, 1, NULL, &made));
    mmopt_error_free(mmopt_loader_next(made, &first));
    CHECK(first != NULL);
    mmopt_batch_free(first);
    mmopt_loader_free(made);
}

static void live_model(void)
{
    mmopt_model *made = NULL;
    mmopt_error_free(mmopt_model_create("m", NULL, &made));
    mmopt_error_free(mmopt_model_freeze(made, "*bias"));
    mmopt_error_free(mmopt_model_freeze(made, "\xff"));
    CHECK(made != NULL);
    mmopt_model_free(made);
}

static void live_optimizer(void)
{
    static float values[N_FLOATS], gradients[N_FLOATS];
    static const int64_t shape[2] = {3, 4};
    mmopt_parameter parameter;
    mmopt_model_parameters model;
    mmopt_trainer_options options;
    mmopt_optimizer *made = NULL;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.n_threads = 1;
    memset(&parameter, 0, sizeof parameter);
    memset(&model, 0, sizeof model);
    parameter.name = "w", parameter.shape = shape, parameter.n_dims = 2;
    parameter.data = values, parameter.gradient = gradients;
    parameter.gradient_dtype = MMOPT_DTYPE_F32, parameter.trainable = 1;
    model.name = "m", model.parameters = &parameter, model.n_parameters = 1, model.weight = 1;
    model.stable_gradients = 1;
    mmopt_error_free(mmopt_optimizer_create(&options, &model, 1, &made));
    mmopt_error_free(mmopt_optimizer_accumulate(made, 0, 1.0));
    mmopt_error_free(mmopt_optimizer_step(made, NULL));
    CHECK(made != NULL);
    mmopt_optimizer_free(made);
}

static void live_cancel_token(void)
{
    mmopt_cancel_token *made = NULL;
    mmopt_error_free(mmopt_trainer_cancel_token(trainer, &made));
    CHECK(made != NULL);
    mmopt_cancel_token_free(made);
}

static void live_evaluation(void)
{
    const mmopt_tensor *tensors = NULL;
    mmopt_evaluation *made = NULL;
    size_t n = 0;
    mmopt_error_free(mmopt_batch_tensors(batch, 0, &tensors, &n));
    mmopt_error_free(mmopt_trainer_evaluate(trainer, 0, tensors, n, &made));
    CHECK(made != NULL);
    mmopt_evaluation_free(made);
}

static mmopt_trainer *make_trainer(void)
{
    mmopt_model_config sizes;
    mmopt_trainer_options options;
    mmopt_model *model = NULL;
    mmopt_trainer *made = NULL;
    mmopt_model_config_init(&sizes);
    sizes.n_layers = 1, sizes.hidden_size = 8, sizes.n_heads = 2;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.n_threads = 1;
    mmopt_error_free(mmopt_model_for_corpus("m", &sizes, tokenizer, corpus, &model));
    mmopt_error_free(
        mmopt_trainer_create(&options, (const mmopt_model *const *)&model, 1, &made));
    mmopt_model_free(model);
    return made;
}

/* With a session, a pass and a step. */
static void live_trainer(void)
{
    mmopt_trainer *made = make_trainer();
    mmopt_error_free(mmopt_trainer_forward_backward_batch(made, batch, NULL));
    mmopt_error_free(mmopt_trainer_step(made, NULL));
    CHECK(mmopt_trainer_n_steps(made) == 1);
    mmopt_trainer_free(made);
}

static long resident_kib(void)
{
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%ld %ld", &size, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Fewer lives are for tools that watch memory themselves, and take more of it. */
static int is_measured = 1;

/* A leak of 16 bytes a life would come to `limit_kib`. */
static void check_growth(const char *name, void (*live)(void), int n, long limit_kib)
{
    double start = seconds();
    for (int i = 0; i < n / 10 + 20; i++)
        live();
    long before = resident_kib();
    for (int i = 0; i < n; i++)
        live();
    long grown = resident_kib() - before;
    printf("%s: %d lives, %ld KiB more, %.1f s\n", name, n, grown, seconds() - start);
    CHECK(grown < limit_kib || !is_measured);
}

int main(int argc, char **argv)
{
#ifdef __GLIBC__
    /* Else each optimizer's work space goes back to the system, and comes again. */
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
#endif
    int n = argc > 2 ? atoi(argv[2]) : N_LIVES;
    mmopt_tokenizer_options options;
    const mmopt_tokenizer *one;
    is_measured = argc <= 2;

    OK(mmopt_corpus_synthetic(32, 0, 0, &corpus));
    mmopt_tokenizer_options_init(&options);
    options.vocab_size = 300, options.model_max_length = 32;
    OK(mmopt_tokenizer_train(corpus, &options, &tokenizer));
    one = tokenizer;
    OK(mmopt_loader_create(corpus, &one, 1, NULL, &loader));
    OK(mmopt_loader_next(loader, &batch));
    check_growth("error", live_error, n, 1536);
    check_growth("corpus", live_corpus, n, 1536);
    check_growth("tokenizer", live_tokenizer, n, 1536);
    /* An empty table a tokenizer and thread stays until the thread ends: 200 bytes. */
    check_growth("words", live_words, n / 10, 4096);
    check_growth("encoding", live_encoding, n, 1536);
    check_growth("batch", live_batch, n, 1536);
    check_growth("loader", live_loader, n, 1536);
    check_growth("model", live_model, n, 1536);
    check_growth("optimizer", live_optimizer, n, 1536);
    if (getenv("MMOPT_ORT_LIB") == NULL) {
        printf("not run: cancel_token, evaluation, trainer: no ONNX Runtime\n");
    } else {
        trainer = make_trainer();
        check_growth("cancel_token", live_cancel_token, n, 1536);
        check_growth("evaluation", live_evaluation, n / 50, 1536);
        check_growth("trainer", live_trainer, n < N_LIVES ? n / 10 : N_SESSIONS, 8192);
        mmopt_trainer_free(trainer);
    }
    mmopt_batch_free(batch);
    mmopt_loader_free(loader);
    mmopt_tokenizer_free(tokenizer);
    mmopt_corpus_free(corpus);
    return finish();
}
