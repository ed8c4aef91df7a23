/* Scores over a loader, for each task, against counts by hand over single batches. */
#include "check.h"

#include <math.h>

enum { MOST = 4096 };

static mmopt_corpus *corpus;
static mmopt_tokenizer *tokenizer;
static mmopt_trainer *trainer;
static mmopt_loader *loader;

static int near(double got, double wanted) { return fabs(got - wanted) < 1e-6; }

/* A fresh tiny model for the corpus. */
static void set_up(mmopt_corpus *of, const mmopt_loader_options *walk, size_t max_length)
{
    mmopt_tokenizer_options options;
    mmopt_model_config sizes;
    mmopt_model *model = NULL;

    corpus = of;
    mmopt_tokenizer_options_init(&options);
    options.model_max_length = max_length;
    options.vocab_size = 400;
    OK(mmopt_tokenizer_train(corpus, &options, &tokenizer));
    OK(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)&tokenizer, 1, walk, &loader));
    mmopt_model_config_init(&sizes);
    sizes.n_layers = 1, sizes.hidden_size = 16, sizes.n_heads = 2;
    if (walk->objective == MMOPT_OBJECTIVE_MASKED)
        sizes.task = MMOPT_TASK_MASKED_LM;
    OK(mmopt_model_for_corpus("one", &sizes, tokenizer, corpus, &model));
    OK(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &trainer));
    mmopt_model_free(model);
}

static void tear_down(void)
{
    mmopt_trainer_free(trainer);
    mmopt_loader_free(loader);
    mmopt_tokenizer_free(tokenizer);
    mmopt_corpus_free(corpus);
}

static mmopt_loader_options in_order(void)
{
    mmopt_loader_options walk;
    mmopt_loader_options_init(&walk);
    walk.batch_size = 6, walk.shuffle = 0;
    return walk;
}

/* Sums over the loader's batches, and what each shows. */
struct sums { double loss; uint64_t n_labels, n_correct; };

typedef void see(const mmopt_batch *batch, const mmopt_tensor *tensors, size_t n,
                 const mmopt_tensor *outputs);

static struct sums walk_over(see *one)
{
    struct sums sums = {0, 0, 0};
    for (;;) {
        mmopt_batch *batch = NULL;
        const mmopt_tensor *tensors, *outputs;
        mmopt_evaluation *evaluation = NULL;
        size_t n, n_outputs;
        OK(mmopt_loader_next(loader, &batch));
        if (batch == NULL)
            return sums;
        OK(mmopt_batch_tensors(batch, 0, &tensors, &n));
        OK(mmopt_trainer_evaluate(trainer, 0, tensors, n, &evaluation));
        OK(mmopt_evaluation_tensors(evaluation, &outputs, &n_outputs));
        uint64_t n_labels = mmopt_evaluation_n_labels(evaluation);
        if (n_labels > 0)
            sums.loss += mmopt_evaluation_loss(evaluation) * (double)n_labels;
        sums.n_labels += n_labels;
        sums.n_correct += mmopt_evaluation_n_correct(evaluation);
        if (one != NULL)
            one(batch, tensors, n, outputs);
        mmopt_evaluation_free(evaluation);
        mmopt_batch_free(batch);
    }
}

static const mmopt_tensor *named(const mmopt_tensor *tensors, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(tensors[i].name, name) == 0)
            return &tensors[i];
    printf("no %s\n", name);
    exit(2);
}

static int64_t best_of(const float *logits, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static int64_t predictions[MOST], labels[MOST];
static size_t n_seen;

/* Classes of texts, or tags of words: predictions where there is a label. */
static void see_classes(const mmopt_batch *batch, const mmopt_tensor *tensors, size_t n,
                        const mmopt_tensor *outputs)
{
    const mmopt_tensor *wanted = named(tensors, n, "labels");
    const int64_t *label = wanted->data, n_classes = outputs[0].shape[outputs[0].n_dims - 1];
    const float *logits = outputs[0].data;
    size_t n_labels = wanted->n_bytes / sizeof *label;
    (void)batch;
    for (size_t i = 0; i < n_labels && n_seen < MOST; i++) {
        predictions[n_seen] = best_of(logits + i * (size_t)n_classes, n_classes);
        labels[n_seen++] = label[i];
    }
}

static void test_classification(void)
{
    mmopt_scores scores;
    mmopt_loader_options walk = in_order();
    double value;
    char *json = NULL, *before = NULL, *after = NULL, text[64];

    OK(mmopt_corpus_synthetic(40, 1, 0.0, &corpus));
    set_up(corpus, &walk, 32);
    mmopt_batch *first = NULL;
    OK(mmopt_loader_next(loader, &first));
    mmopt_batch_free(first);
    OK(mmopt_loader_state(loader, &before));
    OK(mmopt_trainer_evaluate_loader(trainer, 0, loader, NULL, &scores, &json));
    OK(mmopt_loader_state(loader, &after));
    CHECK(strcmp(before, after) == 0);
    mmopt_string_free(before);
    mmopt_string_free(after);

    OK(mmopt_loader_set_epoch(loader, 0));
    n_seen = 0;
    struct sums sums = walk_over(see_classes);
    CHECK(n_seen == 40 && scores.n_examples == 40 && scores.n_labels == 40);
    CHECK(near(scores.loss, sums.loss / 40) && scores.n_correct == sums.n_correct);
    OK(mmopt_metrics_accuracy(predictions, labels, n_seen, &value));
    CHECK(scores.accuracy == value && scores.score == value);
    OK(mmopt_metrics_macro_f1(predictions, labels, n_seen, &value));
    CHECK(scores.macro_f1 == value);
    CHECK(isnan(scores.entity_f1) && isnan(scores.exact_match) && isnan(scores.perplexity));
    int counts[2][2] = {{0, 0}, {0, 0}};
    for (size_t i = 0; i < n_seen; i++)
        counts[labels[i]][predictions[i]]++;
    snprintf(text, sizeof text, "\"confusion_matrix\":[[%d,%d],[%d,%d]]", counts[0][0],
             counts[0][1], counts[1][0], counts[1][1]);
    CHECK(json != NULL && strstr(json, text) != NULL);
    uint64_t matrix[4];
    OK(mmopt_scores_confusion_matrix(json, 2, matrix));
    CHECK(matrix[0] == (uint64_t)counts[0][0] && matrix[2] == (uint64_t)counts[1][0]);
    mmopt_string_free(json);
    json = NULL;

    scores.loss = 7;
    REFUSES_NULL(mmopt_trainer_evaluate_loader(NULL, 0, loader, NULL, &scores, &json));
    REFUSES_NULL(mmopt_trainer_evaluate_loader(trainer, 0, NULL, NULL, &scores, &json));
    REFUSES_NULL(mmopt_trainer_evaluate_loader(trainer, 0, loader, NULL, NULL, &json));
    FAILS(mmopt_trainer_evaluate_loader(trainer, 1, loader, NULL, &scores, &json),
          MMOPT_CODE_INVALID_ARGUMENT, "model 1 of 1");
    mmopt_evaluate_options options;
    mmopt_evaluate_options_init(NULL);
    mmopt_evaluate_options_init(&options);
    CHECK(options.n_best == 20 && options.max_answer_tokens == 30);
    options.n_best = 0;
    FAILS(mmopt_trainer_evaluate_loader(trainer, 0, loader, &options, &scores, &json),
          MMOPT_CODE_INVALID_ARGUMENT, "n_best");
    CHECK(scores.loss == 7 && json == NULL);
    tear_down();
}

static uint32_t stop(void *user, const mmopt_progress *progress)
{
    CHECK(progress->phase == MMOPT_PHASE_EVALUATE && progress->model == 0);
    return ++*(int *)user == 3;
}

static void test_cancellation(void)
{
    mmopt_loader_options walk = in_order();
    mmopt_scores scores;
    int n = 0;

    OK(mmopt_corpus_synthetic(40, 1, 0.0, &corpus));
    set_up(corpus, &walk, 32);
    OK(mmopt_trainer_set_progress_callback(trainer, stop, &n));
    FAILS(mmopt_trainer_evaluate_loader(trainer, 0, loader, NULL, &scores, NULL),
          MMOPT_CODE_CANCELLED, "stop");
    CHECK(n == 3);
    OK(mmopt_trainer_evaluate_loader(trainer, 0, loader, NULL, &scores, NULL));
    CHECK(n == 10);
    tear_down();
}

static void test_entities(const char *folder)
{
    static const char *const lines[] = {
        "Anna B-PER\nCurie I-PER\nlives O\nin O\nParis B-LOC\n\n",
        "The O\nmill O\nof O\nLake B-LOC\nErie I-LOC\nburned O\n\n",
        "Otto B-PER\nsaw O\nit O\n\n",
    };
    char text[4096] = "";
    const char *path = in_folder(folder, "tagged.txt");
    mmopt_loader_options walk = in_order();
    mmopt_scores scores;
    mmopt_entity_scores by_hand;
    char *json = NULL;

    for (int i = 0; i < 24; i++)
        strcat(text, lines[i % 3]);
    write_file(path, text, strlen(text));
    OK(mmopt_corpus_read_token_classification(path, NULL, &corpus));
    set_up(corpus, &walk, 64);
    OK(mmopt_trainer_evaluate_loader(trainer, 0, loader, NULL, &scores, &json));
    n_seen = 0;
    struct sums sums = walk_over(see_classes);
    const char *tags[8];
    size_t n_tags = mmopt_corpus_n_labels(corpus);
    for (size_t i = 0; i < n_tags; i++)
        tags[i] = mmopt_corpus_label_name(corpus, i);
    /* As one row: every sentence ends with O or at a label that begins an entity. */
    OK(mmopt_metrics_entities(predictions, labels, 1, n_seen, tags, n_tags, &by_hand, NULL));
    CHECK(scores.n_examples == 24 && scores.n_labels == 8 * 14 && scores.n_words_unseen == 0);
    CHECK(near(scores.loss, sums.loss / (8 * 14)) && scores.n_correct == sums.n_correct);
    CHECK(scores.accuracy == by_hand.accuracy && scores.score == scores.entity_f1);
    CHECK(by_hand.support == 8 * 4 && scores.entity_recall >= scores.strict_entity_recall);
    CHECK(scores.strict_entity_precision >= 0 && scores.strict_entity_f1 >= 0);
    CHECK(strstr(json, "\"strict_entities\":{\"by_type\":{\"LOC\":{") != NULL);
    mmopt_string_free(json);
    tear_down();

    /* Cut off after a few words: what was not seen is missed. */
    OK(mmopt_corpus_read_token_classification(path, NULL, &corpus));
    walk.max_length = 4;
    set_up(corpus, &walk, 64);
    OK(mmopt_trainer_evaluate_loader(trainer, 0, loader, NULL, &scores, NULL));
    CHECK(scores.n_words_unseen > 0 && scores.n_labels + scores.n_words_unseen == 8 * 14);
    mmopt_encoding_stats stats;
    OK(mmopt_loader_encoding_stats(loader, 0, &stats));
    CHECK(stats.n_unseen_words == scores.n_words_unseen && stats.n_rows == 24);
    CHECK(stats.n_tokens == 4 * 24 && stats.n_truncated_tokens > 0 && stats.n_examples == 24);
    CHECK(stats.n_unplaced_answers == 0);
    FAILS(mmopt_loader_encoding_stats(loader, 1, &stats), MMOPT_CODE_INVALID_ARGUMENT, "model 1");
    REFUSES_NULL(mmopt_loader_encoding_stats(NULL, 0, &stats));
    REFUSES_NULL(mmopt_loader_encoding_stats(loader, 0, NULL));
    CHECK(scores.entity_recall <= 0.75);
    tear_down();
}

static double best_score[MOST];
static char *best_text[MOST];

static void see_answers(const mmopt_batch *batch, const mmopt_tensor *tensors, size_t n,
                        const mmopt_tensor *outputs)
{
    const size_t *examples;
    size_t n_rows, length = (size_t)named(tensors, n, "input_ids")->shape[1];
    const float *starts = outputs[0].data, *ends = outputs[1].data;

    OK(mmopt_batch_examples(batch, 0, &examples, &n_rows));
    for (size_t row = 0; row < n_rows; row++) {
        mmopt_answer answer;
        char *text = NULL;
        OK(mmopt_batch_best_answer(batch, 0, row, starts + row * length, ends + row * length,
                                   length, 30, &answer, &text));
        size_t example = examples[row];
        if (best_text[example] != NULL && !(answer.score > best_score[example])) {
            mmopt_string_free(text);
            continue;
        }
        mmopt_string_free(best_text[example]);
        best_text[example] = text, best_score[example] = answer.score;
    }
}

static void test_questions(const char *folder)
{
    static const char *const answers[] = {"1907", "the old mill", "rain", "autumn"};
    static const char context[] =
        "In the hot summer of 1907 the river fell, and the old mill stood still until the rain came "
        "back in the autumn and the wheel turned again.";
    const char *path = in_folder(folder, "questions.jsonl");
    FILE *file = fopen(path, "w");
    mmopt_loader_options walk = in_order();
    mmopt_evaluate_options options;
    mmopt_scores scores;
    size_t n_answers[] = {1, 1, 1, 1};
    double exact_match, f1;

    for (int i = 0; i < 4; i++)
        fprintf(file,
                "{\"context\": \"%s\", \"question\": \"what is number %d?\", \"answers\": "
                "{\"text\": [\"%s\"], \"answer_start\": [%d]}}\n",
                context, i, answers[i], (int)(strstr(context, answers[i]) - context));
    fclose(file);
    OK(mmopt_corpus_read_question_answering(path, &corpus));
    walk.max_length = 32, walk.overlap = 8, walk.all_windows = 1;
    set_up(corpus, &walk, 64);
    mmopt_evaluate_options_init(&options);
    options.n_best = 1000;
    OK(mmopt_trainer_evaluate_loader(trainer, 0, loader, &options, &scores, NULL));
    struct sums sums = walk_over(see_answers);
    CHECK(scores.n_examples == 4 && scores.n_labels == sums.n_labels && sums.n_labels > 4);
    CHECK(near(scores.loss, sums.loss / (double)sums.n_labels));
    OK(mmopt_metrics_answers((const char *const *)best_text, answers, n_answers, 4, &exact_match,
                             &f1));
    CHECK(scores.exact_match == exact_match && scores.answer_f1 == f1);
    CHECK(scores.score == f1 / 100 && f1 > 0 && isnan(scores.macro_f1));
    /* No answer at all. */
    options.allow_no_answer = 1, options.no_answer_threshold = -1e9;
    OK(mmopt_trainer_evaluate_loader(trainer, 0, loader, &options, &scores, NULL));
    CHECK(scores.exact_match == 0 && scores.answer_f1 == 0);
    options.allow_no_answer = 2;
    FAILS(mmopt_trainer_evaluate_loader(trainer, 0, loader, &options, &scores, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "allow_no_answer");
    for (int i = 0; i < 4; i++)
        mmopt_string_free(best_text[i]);
    mmopt_loader_free(loader);
    walk.all_windows = 0;
    OK(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)&tokenizer, 1, &walk, &loader));
    FAILS(mmopt_trainer_evaluate_loader(trainer, 0, loader, NULL, &scores, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "all_windows");
    tear_down();
}

/* The tokens of the text in a file give the scores of the text in memory. */
static void test_token_file(const char *folder, const mmopt_loader_options *walk,
                            const mmopt_scores *wanted)
{
    char text[1024];
    snprintf(text, sizeof text, "%s", in_folder(folder, "plain.txt"));
    const char *file = in_folder(folder, "plain.tokens");
    const mmopt_tokenizer *by = tokenizer;
    mmopt_tokenizer_options options;
    mmopt_tokenizer *other;
    mmopt_loader *mapped = NULL;
    mmopt_encoding_stats stats, own;
    mmopt_scores scores;
    uint64_t n_tokens = 0;

    OK(mmopt_token_file_write(text, MMOPT_SAMPLE_BY_LINE, tokenizer, file, &n_tokens));
    OK(mmopt_token_file_write(text, MMOPT_SAMPLE_BY_LINE, tokenizer, file, NULL));
    OK(mmopt_loader_create_from_token_files(&file, &by, 1, walk, &mapped));
    OK(mmopt_loader_encoding_stats(mapped, 0, &stats));
    OK(mmopt_loader_encoding_stats(loader, 0, &own));
    CHECK(memcmp(&stats, &own, sizeof own) == 0 && n_tokens > stats.n_examples);
    OK(mmopt_trainer_evaluate_loader(trainer, 0, mapped, NULL, &scores, NULL));
    CHECK(scores.loss == wanted->loss && scores.n_examples == wanted->n_examples);
    mmopt_loader_free(mapped);
    mmopt_tokenizer_options_init(&options);
    options.lowercase = 0;
    OK(mmopt_tokenizer_train(corpus, &options, &other));
    by = other;
    FAILS(mmopt_loader_create_from_token_files(&file, &by, 1, walk, &mapped),
          MMOPT_CODE_INVALID_ARGUMENT, "another tokenizer");
    write_file(file, "MMOPTTOK", 8);
    FAILS(mmopt_loader_create_from_token_files(&file, &by, 1, walk, &mapped),
          MMOPT_CODE_INVALID_DATA, "plain.tokens");
    mmopt_tokenizer_free(other);
}

static void test_language(const char *folder)
{
    static const char line[] = "the old mill stood still until the rain came back in the autumn\n";
    const char *path = in_folder(folder, "plain.txt");
    mmopt_loader_options walk = in_order();
    mmopt_scores scores, again;
    char text[2048] = "";

    for (int i = 0; i < 20; i++)
        strcat(text, line);
    write_file(path, text, strlen(text));
    OK(mmopt_corpus_read_plain_text(path, MMOPT_SAMPLE_BY_LINE, &corpus));
    walk.objective = MMOPT_OBJECTIVE_MASKED;
    set_up(corpus, &walk, 32);
    OK(mmopt_trainer_evaluate_loader(trainer, 0, loader, NULL, &scores, NULL));
    struct sums sums = walk_over(NULL);
    CHECK(scores.n_labels == sums.n_labels && scores.n_correct == sums.n_correct);
    CHECK(near(scores.loss, sums.loss / (double)sums.n_labels));
    CHECK(near(scores.perplexity / exp(scores.loss), 1) && scores.perplexity > 1);
    /* In a later epoch a loader masks other tokens; scores use the same. */
    OK(mmopt_trainer_evaluate_loader(trainer, 0, loader, NULL, &again, NULL));
    CHECK(again.loss == scores.loss && again.score == again.accuracy);
    test_token_file(folder, &walk, &scores);
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
    test_classification();
    test_cancellation();
    test_entities(argv[1]);
    test_questions(argv[1]);
    test_language(argv[1]);
    return finish();
}
