/* Predictions for texts: classes, entities, answers; from a trainer and from files; by threads. */
#include "check.h"

#include <math.h>
#include <pthread.h>

static mmopt_corpus *corpus;
static mmopt_tokenizer *tokenizer;
static mmopt_trainer *trainer;

static int near(double got, double wanted) { return fabs(got - wanted) < 1e-6; }

/* A tiny model that has learnt the corpus by heart, for so many epochs. */
static void set_up(mmopt_corpus *of, int n_epochs)
{
    mmopt_tokenizer_options words;
    mmopt_model_config sizes;
    mmopt_trainer_options options;
    mmopt_loader *loader = NULL;
    mmopt_model *model = NULL;
    mmopt_batch *batch = NULL;

    corpus = of;
    mmopt_tokenizer_options_init(&words);
    words.model_max_length = 40, words.vocab_size = 400;
    OK(mmopt_tokenizer_train(corpus, &words, &tokenizer));
    mmopt_model_config_init(&sizes);
    sizes.n_layers = 1, sizes.hidden_size = 32, sizes.n_heads = 2, sizes.dropout = 0;
    OK(mmopt_model_for_corpus("one", &sizes, tokenizer, corpus, &model));
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = 1e-2;
    OK(mmopt_trainer_create(&options, (const mmopt_model *const *)&model, 1, &trainer));
    mmopt_model_free(model);
    OK(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)&tokenizer, 1, NULL, &loader));
    for (int epoch = 0; epoch < n_epochs;) {
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
}

static void tear_down(void)
{
    mmopt_trainer_free(trainer);
    mmopt_tokenizer_free(tokenizer);
    mmopt_corpus_free(corpus);
}

/* Predictions of a model in files, which must be those of the trainer. */
static mmopt_predictor *saved(const char *folder, const char *name)
{
    mmopt_predictor *predictor = NULL;
    const char *path = in_folder(folder, name);
    OK(mmopt_trainer_save_model(trainer, 0, path));
    FAILS(mmopt_predictor_load(path, NULL, &predictor), MMOPT_CODE_NOT_FOUND, NULL);
    OK(mmopt_tokenizer_save(tokenizer, path));
    OK(mmopt_predictor_load(path, NULL, &predictor));
    return predictor;
}

static int same(const mmopt_predictions *a, const mmopt_predictions *b)
{
    size_t n_texts = mmopt_predictions_n_texts(a);
    if (n_texts != mmopt_predictions_n_texts(b))
        return 0;
    for (size_t i = 0; i < n_texts; i++) {
        const mmopt_prediction *p = NULL, *q = NULL;
        size_t n = 0, m = 0;
        OK(mmopt_predictions_of(a, i, &p, &n));
        OK(mmopt_predictions_of(b, i, &q, &m));
        if (n != m)
            return 0;
        for (size_t k = 0; k < n; k++)
            if (p[k].score != q[k].score || p[k].probability != q[k].probability
                || p[k].start != q[k].start || p[k].end != q[k].end)
                return 0;
    }
    return 1;
}

enum { N_THREADS = 8, N_TEXTS = 5 };

static const char *const texts[N_TEXTS] = {
    "a splendid film", "dull", "a fine story with music", "the actor was poor", "good",
};

static const mmopt_predictor *shared_predictor;

static void *predict_alone(void *made)
{
    for (int i = 0; i < 3; i++) {
        mmopt_predictions_free(*(mmopt_predictions **)made);
        *(mmopt_predictions **)made = NULL;
        mmopt_error_free(mmopt_predictor_predict(shared_predictor, texts, NULL, N_TEXTS, NULL,
                                                 (mmopt_predictions **)made));
    }
    return NULL;
}

static void test_threads(const mmopt_predictor *predictor, const mmopt_predictions *alone)
{
    pthread_t threads[N_THREADS];
    mmopt_predictions *made[N_THREADS] = {NULL};

    shared_predictor = predictor;
    for (int i = 0; i < N_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, predict_alone, &made[i]) == 0);
    for (int i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(made[i] != NULL && same(alone, made[i]));
        mmopt_predictions_free(made[i]);
    }
}

static void test_refusals(mmopt_predictor *predictor)
{
    mmopt_predictions *made = NULL;
    mmopt_predictor *other = NULL;
    mmopt_predict_options options;
    mmopt_predictor_options how;
    const mmopt_prediction *list = NULL;
    size_t n = 0;

    mmopt_predict_options_init(NULL);
    mmopt_predictor_options_init(NULL);
    mmopt_predictor_options_init(&how);
    mmopt_predict_options_init(&options);
    CHECK(options.batch_size == 16 && options.split_punctuation == 1 && options.n_best == 20);
    CHECK(options.overlap == 64 && options.max_answer_tokens == 30 && how.n_threads == 0);
    how.device = 9;
    FAILS(mmopt_predictor_load("x", &how, &other), MMOPT_CODE_INVALID_ARGUMENT, "device");
    REFUSES_NULL(mmopt_predictor_load(NULL, NULL, &other));
    REFUSES_NULL(mmopt_predictor_load("x", NULL, NULL));
    REFUSES_NULL(mmopt_predictor_predict(NULL, texts, NULL, 1, NULL, &made));
    REFUSES_NULL(mmopt_predictor_predict(predictor, NULL, NULL, 1, NULL, &made));
    REFUSES_NULL(mmopt_predictor_predict(predictor, texts, NULL, 1, NULL, NULL));
    REFUSES_NULL(mmopt_trainer_predict(NULL, 0, tokenizer, texts, NULL, 1, NULL, &made));
    REFUSES_NULL(mmopt_trainer_predict(trainer, 0, NULL, texts, NULL, 1, NULL, &made));
    REFUSES_NULL(mmopt_trainer_predict(trainer, 0, tokenizer, NULL, NULL, 1, NULL, &made));
    REFUSES_NULL(mmopt_trainer_predict(trainer, 0, tokenizer, texts, NULL, 1, NULL, NULL));
    FAILS(mmopt_trainer_predict(trainer, 1, tokenizer, texts, NULL, 1, NULL, &made),
          MMOPT_CODE_INVALID_ARGUMENT, "model 1 of 1");
    options.batch_size = 0;
    FAILS(mmopt_predictor_predict(predictor, texts, NULL, 1, &options, &made),
          MMOPT_CODE_INVALID_ARGUMENT, "batch_size");
    options.batch_size = 1, options.max_length = 2;
    FAILS(mmopt_predictor_predict(predictor, texts, NULL, 1, &options, &made),
          MMOPT_CODE_INVALID_ARGUMENT, "special tokens");
    options.max_length = 0, options.n_best = 0;
    FAILS(mmopt_predictor_predict(predictor, texts, NULL, 1, &options, &made),
          MMOPT_CODE_INVALID_ARGUMENT, "n_best");
    CHECK(made == NULL && mmopt_predictions_n_texts(NULL) == 0);
    REFUSES_NULL(mmopt_predictions_of(NULL, 0, &list, &n));
    mmopt_predictions_free(NULL);
    mmopt_predictor_free(NULL);
}

static void test_classes(const char *folder)
{
    mmopt_predictions *made = NULL, *again = NULL;
    const mmopt_prediction *list = NULL;
    const mmopt_tensor *tensors, *outputs;
    mmopt_batch *batch = NULL;
    mmopt_evaluation *evaluation = NULL;
    mmopt_predict_options options;
    size_t n = 0;

    OK(mmopt_corpus_synthetic(64, 1, 0.0, &corpus));
    set_up(corpus, 2);
    mmopt_predictor *predictor = saved(folder, "classes");
    OK(mmopt_trainer_predict(trainer, 0, tokenizer, texts, NULL, N_TEXTS, NULL, &made));
    OK(mmopt_batch_encode((const mmopt_tokenizer *const *)&tokenizer, 1, texts, N_TEXTS, 0, &batch));
    OK(mmopt_batch_tensors(batch, 0, &tensors, &n));
    OK(mmopt_trainer_evaluate(trainer, 0, tensors, n, &evaluation));
    OK(mmopt_evaluation_tensors(evaluation, &outputs, &n));
    CHECK(mmopt_predictions_n_texts(made) == N_TEXTS);
    for (size_t i = 0; i < N_TEXTS; i++) {
        const float *logits = (const float *)outputs[0].data + 2 * i;
        int best = logits[1] > logits[0];
        OK(mmopt_predictions_of(made, i, &list, &n));
        CHECK(n == 2 && strcmp(list[0].label, best ? "1" : "0") == 0);
        CHECK(list[0].score == logits[best] && list[1].score == logits[!best]);
        CHECK(near(list[0].probability, 1 / (1 + exp((double)logits[!best] - logits[best]))));
        CHECK(list[0].text == NULL && list[0].start == list[0].end);
    }
    FAILS(mmopt_predictions_of(made, N_TEXTS, &list, &n), MMOPT_CODE_INVALID_ARGUMENT, "text 5");
    REFUSES_NULL(mmopt_predictions_of(made, 0, NULL, &n));
    REFUSES_NULL(mmopt_predictions_of(made, 0, &list, NULL));
    mmopt_evaluation_free(evaluation);
    mmopt_batch_free(batch);

    OK(mmopt_predictor_predict(predictor, texts, NULL, N_TEXTS, NULL, &again));
    CHECK(same(made, again));
    test_threads(predictor, again);
    mmopt_predictions_free(again);
    /* Batches do not matter, but for the last bits of sums. */
    mmopt_predict_options_init(&options);
    options.batch_size = 2;
    OK(mmopt_predictor_predict(predictor, texts, NULL, N_TEXTS, &options, &again));
    OK(mmopt_predictions_of(made, 4, &list, &n));
    double score = list[0].score;
    OK(mmopt_predictions_of(again, 4, &list, &n));
    CHECK(fabs(list[0].score - score) < 1e-4);
    mmopt_predictions_free(again);
    OK(mmopt_predictor_predict(predictor, NULL, NULL, 0, NULL, &again));
    CHECK(mmopt_predictions_n_texts(again) == 0);
    mmopt_predictions_free(again);
    mmopt_predictions_free(made);
    test_refusals(predictor);
    mmopt_predictor_free(predictor);
    tear_down();
}

static const mmopt_prediction *found(const mmopt_predictions *made, size_t text, const char *label,
                                     const char *words)
{
    const mmopt_prediction *list = NULL;
    size_t n = 0;
    OK(mmopt_predictions_of(made, text, &list, &n));
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].text, words) == 0
            && (label == NULL ? list[i].label == NULL : strcmp(list[i].label, label) == 0))
            return &list[i];
    return NULL;
}

/* The model in a directory for another corpus: its classes by name, its task, a fresh head. */
static void test_pretrained(const char *directory)
{
    mmopt_corpus *other = NULL;
    mmopt_model *model = NULL;
    mmopt_trainer *fresh = NULL;
    mmopt_predictions *made = NULL;
    const mmopt_prediction *list = NULL;
    size_t n = 0;
    char *name = NULL;

    OK(mmopt_corpus_synthetic_entities(20, 1, &other));
    OK(mmopt_model_pretrained_for_corpus("next", directory, tokenizer, other, &model));
    OK(mmopt_model_label_name(model, 6, &name));
    CHECK(strcmp(name, "I-ORG") == 0);
    mmopt_string_free(name);
    mmopt_model_free(model);
    mmopt_corpus_free(other);
    OK(mmopt_corpus_synthetic(20, 1, 0.0, &other));
    OK(mmopt_model_pretrained_for_corpus("next", directory, tokenizer, other, &model));
    OK(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &fresh));
    OK(mmopt_trainer_predict(fresh, 0, tokenizer, texts, NULL, 1, NULL, &made));
    OK(mmopt_predictions_of(made, 0, &list, &n));
    CHECK(n == 2 && (strcmp(list[0].label, "0") == 0 || strcmp(list[0].label, "1") == 0));
    mmopt_predictions_free(made);
    mmopt_trainer_free(fresh);
    mmopt_model_free(model);
    model = NULL;
    FAILS(mmopt_model_pretrained_for_corpus("x", "/nonexistent", tokenizer, other, &model),
          MMOPT_CODE_NOT_FOUND, "model 'x'");
    CHECK(model == NULL);
    mmopt_corpus_free(other);
}

static void test_entities(const char *folder)
{
    static const char line[] =
        "Anna B-PER\nCurie I-PER\nlives O\nin O\nParis B-LOC\n. O\n\nthe O\nmill O\nburned O\n\n";
    static const char *const sentences[] = {
        "  Anna Curie lives in Paris.", "the mill burned", "",
        "the mill burned the mill burned the mill burned the mill burned the mill burned the mill "
        "burned the mill burned the mill burned the mill burned the mill burned Anna Curie lives "
        "in Paris.",
    };
    mmopt_predictions *made = NULL, *again = NULL;
    const mmopt_prediction *p;
    const mmopt_prediction *list = NULL;
    size_t n = 9;
    char text[4096] = "";

    for (int i = 0; i < 16; i++)
        strcat(text, line);
    write_file(in_folder(folder, "tagged.txt"), text, strlen(text));
    OK(mmopt_corpus_read_token_classification(in_folder(folder, "tagged.txt"), NULL, &corpus));
    set_up(corpus, 40);
    mmopt_predictor *predictor = saved(folder, "entities");
    OK(mmopt_trainer_predict(trainer, 0, tokenizer, sentences, NULL, 4, NULL, &made));
    p = found(made, 0, "PER", "Anna Curie");
    CHECK(p != NULL && p->start == 2 && p->end == 12 && p->probability > 0.5);
    p = found(made, 0, "LOC", "Paris");
    CHECK(p != NULL && p->start == 22 && p->end == 27);
    OK(mmopt_predictions_of(made, 0, &list, &n));
    CHECK(n == 2);
    OK(mmopt_predictions_of(made, 1, &list, &n));
    CHECK(n == 0);
    OK(mmopt_predictions_of(made, 2, &list, &n));
    CHECK(n == 0);
    /* Beyond the longest sequence, in a second part. */
    p = found(made, 3, "LOC", "Paris");
    CHECK(p != NULL && strncmp(sentences[3] + p->start, "Paris", 5) == 0 && p->end == p->start + 5);
    OK(mmopt_predictor_predict(predictor, sentences, NULL, 4, NULL, &again));
    CHECK(same(made, again));
    FAILS(mmopt_predictor_predict(predictor, sentences, sentences, 4, NULL, &again),
          MMOPT_CODE_INVALID_ARGUMENT, "pairs");
    mmopt_predictions_free(again);
    mmopt_predictions_free(made);
    mmopt_predictor_free(predictor);
    test_pretrained(in_folder(folder, "entities"));
    tear_down();
}

static void test_answers(const char *folder)
{
    static const char context[] =
        "In the hot summer of 1907 the river fell, and the old mill stood still until the rain came "
        "back in the autumn and the wheel turned again.";
    static const char *const questions[] = {"when did the river fall?", "what stood still?"};
    static const char *const answers[] = {"1907", "the old mill"};
    static const char *const contexts[] = {context, context};
    const char *path = in_folder(folder, "questions.jsonl");
    FILE *file = fopen(path, "w");
    mmopt_predictions *made = NULL, *again = NULL;
    mmopt_predict_options options;
    const mmopt_prediction *list = NULL;
    size_t n = 0;

    for (int i = 0; i < 32; i++)
        fprintf(file,
                "{\"context\": \"%s\", \"question\": \"%s\", \"answers\": {\"text\": [\"%s\"], "
                "\"answer_start\": [%d]}}\n",
                context, questions[i % 2], answers[i % 2],
                (int)(strstr(context, answers[i % 2]) - context));
    fclose(file);
    OK(mmopt_corpus_read_question_answering(path, &corpus));
    set_up(corpus, 40);
    mmopt_predictor *predictor = saved(folder, "answers");
    OK(mmopt_trainer_predict(trainer, 0, tokenizer, questions, contexts, 2, NULL, &made));
    for (size_t i = 0; i < 2; i++) {
        double sum = 0;
        OK(mmopt_predictions_of(made, i, &list, &n));
        CHECK(n > 1 && n <= 20 && list[0].label == NULL);
        CHECK(strcmp(list[0].text, answers[i]) == 0);
        CHECK(list[0].start == (size_t)(strstr(context, answers[i]) - context));
        CHECK(list[0].end == list[0].start + strlen(answers[i]));
        for (size_t k = 0; k < n; k++) {
            sum += list[k].probability;
            CHECK(k == 0 || list[k].score <= list[k - 1].score);
        }
        CHECK(near(sum, 1));
    }
    OK(mmopt_predictor_predict(predictor, questions, contexts, 2, NULL, &again));
    CHECK(same(made, again));
    mmopt_predictions_free(again);
    again = NULL;
    mmopt_predict_options_init(&options);
    options.n_best = 1;
    OK(mmopt_predictor_predict(predictor, questions, contexts, 2, &options, &again));
    OK(mmopt_predictions_of(again, 1, &list, &n));
    CHECK(n == 1 && list[0].probability == 1);
    mmopt_predictions_free(again);
    again = NULL;
    options.allow_no_answer = 1, options.no_answer_threshold = -1e9;
    OK(mmopt_predictor_predict(predictor, questions, contexts, 2, &options, &again));
    OK(mmopt_predictions_of(again, 1, &list, &n));
    CHECK(n == 1 && list[0].text[0] == '\0' && list[0].start == list[0].end);
    mmopt_predictions_free(again);
    again = NULL;
    FAILS(mmopt_predictor_predict(predictor, questions, NULL, 2, NULL, &again),
          MMOPT_CODE_INVALID_ARGUMENT, "context");
    mmopt_predictions_free(made);
    mmopt_predictor_free(predictor);
    tear_down();
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (getenv("MMOPT_ORT_LIB") == NULL) {
        printf("not run: no ONNX Runtime\n");
        return 0;
    }
    test_classes(argv[1]);
    test_entities(argv[1]);
    test_answers(argv[1]);
    return finish();
}
