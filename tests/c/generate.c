/* Generated text: greedy and drawn, from a trainer and from files, by threads. */
#include "check.h"

#include <math.h>
#include <pthread.h>

enum { N_THREADS = 8, N_PROMPTS = 2 };

static const char *const prompts[N_PROMPTS] = {"the mill", "rain came"};
static mmopt_tokenizer *tokenizer;
static mmopt_trainer *trainer;

/* A tiny GPT-2 that has learnt two sentences by heart. */
static void set_up(const char *folder)
{
    static const char text[] = "the mill stood still all day\nrain came back at night\n";
    const char *path = in_folder(folder, "plain.txt");
    mmopt_corpus *corpus = NULL;
    mmopt_tokenizer_options words;
    mmopt_model_config sizes;
    mmopt_trainer_options options;
    mmopt_loader_options walk;
    mmopt_loader *loader = NULL;
    mmopt_model *model = NULL;
    mmopt_batch *batch = NULL;

    write_file(path, text, sizeof text - 1);
    OK(mmopt_corpus_read_plain_text(path, MMOPT_SAMPLE_BY_LINE, &corpus));
    mmopt_tokenizer_options_init(&words);
    words.architecture = MMOPT_ARCHITECTURE_GPT2;
    words.vocab_size = 320, words.model_max_length = 24;
    OK(mmopt_tokenizer_train(corpus, &words, &tokenizer));
    mmopt_model_config_init(&sizes);
    sizes.architecture = MMOPT_ARCHITECTURE_GPT2;
    sizes.n_layers = 1, sizes.hidden_size = 32, sizes.n_heads = 2, sizes.dropout = 0;
    OK(mmopt_model_for_corpus("writer", &sizes, tokenizer, corpus, &model));
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = 1e-2;
    OK(mmopt_trainer_create(&options, (const mmopt_model *const *)&model, 1, &trainer));
    mmopt_loader_options_init(&walk);
    walk.max_length = 48; /* both in one row, each with its end token */
    FAILS(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)&tokenizer, 1, &walk,
                              &loader), MMOPT_CODE_INVALID_ARGUMENT, "max_length");
    walk.max_length = 0;
    OK(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)&tokenizer, 1, &walk, &loader));
    for (int epoch = 0; epoch < 80;) {
        OK(mmopt_loader_next(loader, &batch));
        if (batch == NULL) {
            epoch++;
            continue;
        }
        OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
        OK(mmopt_trainer_step(trainer, NULL));
        mmopt_batch_free(batch);
    }
    mmopt_loader_free(loader);
    mmopt_model_free(model);
    mmopt_corpus_free(corpus);
}

static mmopt_prediction only(const mmopt_predictions *made, size_t text)
{
    const mmopt_prediction *list = NULL;
    size_t n = 0;
    OK(mmopt_predictions_of(made, text, &list, &n));
    CHECK(n == 1 && list[0].start == 0 && list[0].end == 0);
    return list[0];
}

static int same(const mmopt_predictions *a, const mmopt_predictions *b)
{
    for (size_t i = 0; i < N_PROMPTS; i++)
        if (strcmp(only(a, i).text, only(b, i).text) != 0 || only(a, i).score != only(b, i).score)
            return 0;
    return 1;
}

static void test_greedy(void)
{
    mmopt_predictions *made = NULL, *one = NULL;
    mmopt_generate_options options;

    mmopt_generate_options_init(NULL);
    mmopt_generate_options_init(&options);
    CHECK(options.max_new_tokens == 64 && options.do_sample == 0 && options.temperature == 1);
    OK(mmopt_trainer_generate(trainer, 0, tokenizer, prompts, N_PROMPTS, &options, &made));
    CHECK(mmopt_predictions_n_texts(made) == N_PROMPTS);
    CHECK(strcmp(only(made, 0).text, " stood still all day") == 0);
    CHECK(strcmp(only(made, 0).label, "stop") == 0);
    CHECK(only(made, 0).probability > 0.3 && only(made, 0).score < 0);
    options.max_new_tokens = 1;
    OK(mmopt_trainer_generate(trainer, 0, tokenizer, prompts, 1, &options, &one));
    CHECK(strcmp(only(one, 0).label, "length") == 0 && strlen(only(one, 0).text) < 20);
    CHECK(fabs(only(one, 0).probability - exp(only(one, 0).score)) < 1e-12);
    mmopt_predictions_free(one);
    mmopt_predictions_free(made);
}

static void test_refusals(void)
{
    mmopt_predictions *made = NULL;
    mmopt_generate_options options;

    REFUSES_NULL(mmopt_trainer_generate(NULL, 0, tokenizer, prompts, 1, NULL, &made));
    REFUSES_NULL(mmopt_trainer_generate(trainer, 0, NULL, prompts, 1, NULL, &made));
    REFUSES_NULL(mmopt_trainer_generate(trainer, 0, tokenizer, NULL, 1, NULL, &made));
    FAILS(mmopt_trainer_generate(trainer, 1, tokenizer, prompts, 1, NULL, &made),
          MMOPT_CODE_INVALID_ARGUMENT, "1");
    mmopt_generate_options_init(&options);
    options.top_p = 0;
    FAILS(mmopt_trainer_generate(trainer, 0, tokenizer, prompts, 1, &options, &made),
          MMOPT_CODE_INVALID_ARGUMENT, "top_p is 0");
    mmopt_generate_options_init(&options);
    options.temperature = -1;
    FAILS(mmopt_trainer_generate(trainer, 0, tokenizer, prompts, 1, &options, &made),
          MMOPT_CODE_INVALID_ARGUMENT, "temperature is -1");
    mmopt_generate_options_init(&options);
    options.do_sample = 2;
    FAILS(mmopt_trainer_generate(trainer, 0, tokenizer, prompts, 1, &options, &made),
          MMOPT_CODE_INVALID_ARGUMENT, "do_sample");
    CHECK(made == NULL);
}

static const mmopt_predictor *shared_predictor;
static mmopt_generate_options drawn;

static void *generate_alone(void *made)
{
    mmopt_error_free(mmopt_predictor_generate(shared_predictor, prompts, N_PROMPTS, &drawn,
                                              (mmopt_predictions **)made));
    return NULL;
}

/* From files, drawn, by eight threads at once: the trainer's text, to the bit. */
static void test_files_and_threads(const char *folder)
{
    const char *path = in_folder(folder, "writer");
    mmopt_predictor *predictor = NULL;
    mmopt_predictions *alone = NULL, *other = NULL, *made[N_THREADS] = {NULL};
    pthread_t threads[N_THREADS];
    int n_other = 0;

    OK(mmopt_trainer_save_model(trainer, 0, path));
    OK(mmopt_tokenizer_save(tokenizer, path));
    OK(mmopt_predictor_load(path, NULL, &predictor));
    shared_predictor = predictor;
    mmopt_generate_options_init(&drawn);
    drawn.do_sample = 1, drawn.temperature = 3, drawn.top_k = 50, drawn.top_p = 0.95;
    drawn.max_new_tokens = 30; /* beyond the longest sequence */
    OK(mmopt_trainer_generate(trainer, 0, tokenizer, prompts, N_PROMPTS, &drawn, &alone));
    for (int i = 0; i < N_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, generate_alone, &made[i]) == 0);
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(made[i] != NULL && same(alone, made[i]));
        mmopt_predictions_free(made[i]);
    }
    for (drawn.seed = 1; drawn.seed < 4; drawn.seed++) {
        OK(mmopt_predictor_generate(predictor, prompts, N_PROMPTS, &drawn, &other));
        n_other += !same(alone, other);
        mmopt_predictions_free(other);
    }
    CHECK(n_other > 0);
    REFUSES_NULL(mmopt_predictor_generate(NULL, prompts, 1, NULL, &other));
    FAILS(mmopt_predictor_predict(predictor, prompts, NULL, 1, NULL, &other),
          MMOPT_CODE_UNSUPPORTED, "CausalLm");
    mmopt_predictions_free(alone);
    mmopt_predictor_free(predictor);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (getenv("MMOPT_ORT_LIB") == NULL) {
        printf("not run: no ONNX Runtime\n");
        return 0;
    }
    set_up(argv[1]);
    test_greedy();
    test_refusals();
    test_files_and_threads(argv[1]);
    mmopt_trainer_free(trainer);
    mmopt_tokenizer_free(tokenizer);
    return finish();
}
