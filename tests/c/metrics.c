/* Metrics of text tasks. The expected numbers are those of scikit-learn, seqeval and SQuAD's
 * evaluation script. */
#include "check.h"

#include <math.h>

static int near(double got, double wanted) { return fabs(got - wanted) < 1e-12; }

static void test_classification(void)
{
    static const int64_t predictions[] = {2, 0, 1, 1, 2, 0, 3};
    static const int64_t labels[] = {2, 0, 0, 1, -100, 2, 2};
    double value = -1;

    OK(mmopt_metrics_accuracy(predictions, labels, 7, &value));
    CHECK(near(value, 0.5));
    OK(mmopt_metrics_macro_f1(predictions, labels, 7, &value));
    CHECK(near(value, 0.41666666666666663));
    OK(mmopt_metrics_accuracy(NULL, NULL, 0, &value));
    CHECK(value == 0);
    value = 7;
    REFUSES_NULL(mmopt_metrics_accuracy(NULL, labels, 7, &value));
    REFUSES_NULL(mmopt_metrics_accuracy(predictions, NULL, 7, &value));
    REFUSES_NULL(mmopt_metrics_accuracy(predictions, labels, 7, NULL));
    REFUSES_NULL(mmopt_metrics_macro_f1(predictions, NULL, 7, &value));
    REFUSES_NULL(mmopt_metrics_macro_f1(predictions, labels, 7, NULL));
    CHECK(value == 7);
}

static void test_confusion(void)
{
    static const int64_t predictions[] = {2, 0, 1, 1, 2, 0, 3};
    static const int64_t labels[] = {2, 0, 0, 1, -100, 2, 2};
    static const uint64_t wanted[16] = {1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 0};
    static const char json[] = "{\"confusion_matrix\": [[3, 1], [0, 2]]}";
    uint64_t matrix[16] = {9};

    OK(mmopt_metrics_confusion_matrix(predictions, labels, 7, 4, matrix));
    CHECK(memcmp(matrix, wanted, sizeof wanted) == 0);
    FAILS(mmopt_metrics_confusion_matrix(predictions, labels, 7, 3, matrix),
          MMOPT_CODE_INVALID_ARGUMENT, "predictions[6] is 3");
    FAILS(mmopt_metrics_confusion_matrix(predictions, labels, 7, SIZE_MAX, matrix),
          MMOPT_CODE_INVALID_ARGUMENT, "n_classes");
    REFUSES_NULL(mmopt_metrics_confusion_matrix(NULL, labels, 7, 4, matrix));
    REFUSES_NULL(mmopt_metrics_confusion_matrix(predictions, labels, 7, 4, NULL));
    OK(mmopt_scores_confusion_matrix(json, 2, matrix));
    CHECK(matrix[0] == 3 && matrix[1] == 1 && matrix[2] == 0 && matrix[3] == 2);
    FAILS(mmopt_scores_confusion_matrix(json, 3, matrix), MMOPT_CODE_INVALID_ARGUMENT, "are 2");
    FAILS(mmopt_scores_confusion_matrix("{}", 2, matrix), MMOPT_CODE_NOT_FOUND, "no classes");
    FAILS(mmopt_scores_confusion_matrix("?", 2, matrix), MMOPT_CODE_INVALID_DATA, "the scores");
    REFUSES_NULL(mmopt_scores_confusion_matrix(NULL, 2, matrix));
    CHECK(matrix[0] == 3);
}

static void test_numbers(void)
{
    static const double predictions[] = {1, 2, 2, 4}, labels[] = {1, 3, 2, 4}, one[] = {1, NAN};
    static const double losses[] = {1, 4};
    static const uint64_t n_tokens[] = {2, 1};
    mmopt_regression_scores scores;
    double value = 7;

    OK(mmopt_metrics_regression(predictions, labels, 4, &scores));
    CHECK(near(scores.mse, 0.25) && near(scores.spearman, 0.9486832980505138));
    CHECK(near(scores.pearson, 0.9233805168766388));
    FAILS(mmopt_metrics_regression(predictions, labels, 0, &scores), MMOPT_CODE_INVALID_ARGUMENT,
          "no numbers");
    FAILS(mmopt_metrics_regression(one, labels, 2, &scores), MMOPT_CODE_INVALID_ARGUMENT,
          "predictions[1]");
    REFUSES_NULL(mmopt_metrics_regression(predictions, NULL, 4, &scores));
    OK(mmopt_metrics_perplexity(losses, n_tokens, 2, &value));
    CHECK(near(value / exp(2), 1));
    FAILS(mmopt_metrics_perplexity(losses, n_tokens, 0, &value), MMOPT_CODE_INVALID_ARGUMENT,
          "no tokens");
    REFUSES_NULL(mmopt_metrics_perplexity(losses, n_tokens, 2, NULL));
}

static void test_entities(void)
{
    static const char *const tags[] = {"O", "B-PER", "I-PER", "B-ORG", "I-ORG"};
    static const int64_t predictions[] = {0, 1, 2, 0, 3, 4, 0, 0, 3, 4, 4, 0,
                                          1, 0, 0, 0, 0, 2, 2, 0, 4, 0, 0, 1};
    int64_t labels[] = {-100, 1, 2, 0, 3, 0, 0, -100, 3, 4, 4, 0,
                        1, 2, 0, -100, 0, 1, 2, 0, 3, 0, 2, -100};
    mmopt_entity_scores scores;
    char *by_type = NULL;

    OK(mmopt_metrics_entities(predictions, labels, 3, 8, tags, 5, &scores, &by_type));
    CHECK(near(scores.precision, 0.6666666666666666) && near(scores.recall, 0.5714285714285714));
    CHECK(near(scores.f1, 0.6153846153846153) && near(scores.accuracy, 0.75));
    CHECK(scores.support == 7 && scores.n_predicted == 6 && scores.n_correct == 4);
    CHECK(strstr(by_type, "\"PER\":{\"f1\":0.5714285714285714,\"n_correct\":2,\"n_predicted\":3,"
                          "\"precision\":0.6666666666666666,\"recall\":0.5,\"support\":4}"));
    CHECK(strstr(by_type, "\"ORG\":{") != NULL && strstr(by_type, "\"O\"") == NULL);
    mmopt_string_free(by_type);
    by_type = NULL;
    OK(mmopt_metrics_entities(predictions, labels, 3, 8, tags, 5, &scores, NULL));
    OK(mmopt_metrics_entities(NULL, NULL, 0, 8, tags, 5, &scores, &by_type));
    CHECK(scores.f1 == 0 && strcmp(by_type, "{}") == 0);
    mmopt_string_free(by_type);

    /* I- tags that begin nothing are no entities in strict mode. */
    OK(mmopt_metrics_strict_entities(predictions, labels, 3, 8, tags, 5, &scores, NULL));
    CHECK(scores.support == 6 && scores.n_predicted == 4 && scores.n_correct == 2);
    FAILS(mmopt_metrics_strict_entities(predictions, labels, 3, 0, tags, 5, &scores, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "length");

    by_type = (char *)tags;
    scores.support = 99;
    FAILS(mmopt_metrics_entities(predictions, labels, 3, 0, tags, 5, &scores, &by_type),
          MMOPT_CODE_INVALID_ARGUMENT, "length");
    FAILS(mmopt_metrics_entities(predictions, labels, 3, 8, tags, 4, &scores, &by_type),
          MMOPT_CODE_INVALID_ARGUMENT, "predictions[5] is 4, but there are 4 tags");
    FAILS(mmopt_metrics_entities(predictions, labels, SIZE_MAX, 8, tags, 5, &scores, &by_type),
          MMOPT_CODE_INVALID_ARGUMENT, "memory");
    REFUSES_NULL(mmopt_metrics_entities(NULL, labels, 3, 8, tags, 5, &scores, &by_type));
    REFUSES_NULL(mmopt_metrics_entities(predictions, NULL, 3, 8, tags, 5, &scores, &by_type));
    REFUSES_NULL(mmopt_metrics_entities(predictions, labels, 3, 8, NULL, 5, &scores, &by_type));
    REFUSES_NULL(mmopt_metrics_entities(predictions, labels, 3, 8, tags, 5, NULL, &by_type));
    CHECK(by_type == (char *)tags && scores.support == 99);
}

static void test_answers(void)
{
    static const char *const predictions[] = {"The Eiffel Tower!", "in  May 1907",
                                              "a quick brown fox", "something", ""};
    static const char *const answers[] = {"eiffel tower", "May 1907", "1907",
                                          "the brown fox jumps", "quick fox"};
    static const size_t n_answers[] = {1, 2, 2, 0, 0};
    double exact_match = -1, f1 = -1;

    OK(mmopt_metrics_answers(predictions, answers, n_answers, 5, &exact_match, &f1));
    CHECK(near(exact_match, 40) && near(f1, 72));
    OK(mmopt_metrics_answers(predictions + 3, NULL, n_answers + 3, 2, &exact_match, &f1));
    CHECK(near(exact_match, 50) && near(f1, 50));
    exact_match = f1 = 7;
    REFUSES_NULL(mmopt_metrics_answers(NULL, answers, n_answers, 5, &exact_match, &f1));
    REFUSES_NULL(mmopt_metrics_answers(predictions, NULL, n_answers, 5, &exact_match, &f1));
    REFUSES_NULL(mmopt_metrics_answers(predictions, answers, NULL, 5, &exact_match, &f1));
    REFUSES_NULL(mmopt_metrics_answers(predictions, answers, n_answers, 5, NULL, &f1));
    REFUSES_NULL(mmopt_metrics_answers(predictions, answers, n_answers, 5, &exact_match, NULL));
    CHECK(exact_match == 7 && f1 == 7);
}

static const char contexts[] =
    "{\"context\": \"Peter was born in May, not in June\", \"question\": \"when was he born?\", "
    "\"answers\": [{\"text\": \"May\", \"answer_start\": 18}]}\n"
    "{\"context\": \"caf\xc3\xa9 au lait\", \"question\": \"what?\", "
    "\"answers\": [{\"text\": \"au lait\", \"answer_start\": 5}]}\n";

static const mmopt_tensor *tensor(const mmopt_batch *batch, const char *name)
{
    const mmopt_tensor *tensors = NULL;
    size_t n = 0;
    OK(mmopt_batch_tensors(batch, 0, &tensors, &n));
    for (size_t i = 0; i < n; i++)
        if (strcmp(tensors[i].name, name) == 0)
            return &tensors[i];
    exit(2);
}

/* With 1 at the labels and 0 elsewhere, the best answers are the labelled ones. */
static void check_labelled(const mmopt_batch *batch, size_t row, const char *expected, size_t start)
{
    size_t n = (size_t)tensor(batch, "input_ids")->shape[1];
    float *starts = calloc(n, sizeof *starts), *ends = calloc(n, sizeof *ends);
    mmopt_answer answer;
    char *text = NULL;

    starts[((const int64_t *)tensor(batch, "start_positions")->data)[row]] = 1;
    ends[((const int64_t *)tensor(batch, "end_positions")->data)[row]] = 1;
    starts[0] = ends[0] = 9; /* the special token is no answer */
    OK(mmopt_batch_best_answer(batch, 0, row, starts, ends, n, 30, &answer, &text));
    CHECK(strcmp(text, expected) == 0);
    CHECK(answer.start == start && answer.end == start + strlen(expected) && answer.score == 2);
    mmopt_string_free(text);
    OK(mmopt_batch_best_answer(batch, 0, row, starts, ends, n, 30, &answer, NULL));

    answer.start = 99, text = (char *)contexts;
    FAILS(mmopt_batch_best_answer(batch, 1, row, starts, ends, n, 30, &answer, &text),
          MMOPT_CODE_INVALID_ARGUMENT, "model 1");
    FAILS(mmopt_batch_best_answer(batch, 0, 2, starts, ends, n, 30, &answer, &text),
          MMOPT_CODE_INVALID_ARGUMENT, "row 2");
    FAILS(mmopt_batch_best_answer(batch, 0, row, starts, ends, n - 1, 30, &answer, &text),
          MMOPT_CODE_INVALID_ARGUMENT, "n_tokens");
    FAILS(mmopt_batch_best_answer(batch, 0, row, starts, ends, n, 0, &answer, &text),
          MMOPT_CODE_INVALID_ARGUMENT, "max_answer_tokens");
    REFUSES_NULL(mmopt_batch_best_answer(NULL, 0, row, starts, ends, n, 30, &answer, &text));
    REFUSES_NULL(mmopt_batch_best_answer(batch, 0, row, NULL, ends, n, 30, &answer, &text));
    REFUSES_NULL(mmopt_batch_best_answer(batch, 0, row, starts, NULL, n, 30, &answer, &text));
    REFUSES_NULL(mmopt_batch_best_answer(batch, 0, row, starts, ends, n, 30, NULL, &text));
    CHECK(answer.start == 99 && text == (char *)contexts);
    free(starts);
    free(ends);
}

static void test_best_answer(const char *folder)
{
    mmopt_corpus *corpus = NULL;
    mmopt_tokenizer *tokenizer = NULL;
    mmopt_tokenizer_options options;
    mmopt_loader_options order;
    mmopt_loader *loader = NULL;
    mmopt_batch *batch = NULL;
    mmopt_answer answer;
    static const char *const words[] = {"plain words"};
    static const float logits[64];

    write_file(in_folder(folder, "q.jsonl"), contexts, strlen(contexts));
    OK(mmopt_corpus_read_question_answering(in_folder(folder, "q.jsonl"), &corpus));
    mmopt_tokenizer_options_init(&options);
    options.architecture = MMOPT_ARCHITECTURE_ROBERTA;
    options.min_frequency = 1;
    options.vocab_size = 400;
    OK(mmopt_tokenizer_train(corpus, &options, &tokenizer));
    mmopt_loader_options_init(&order);
    order.shuffle = 0;
    OK(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)&tokenizer, 1, &order, &loader));
    OK(mmopt_loader_next(loader, &batch));
    check_labelled(batch, 0, "May", 18);
    check_labelled(batch, 1, "au lait", 6);
    mmopt_batch_free(batch);

    OK(mmopt_batch_encode((const mmopt_tokenizer *const *)&tokenizer, 1, words, 1, 8, &batch));
    size_t n = (size_t)tensor(batch, "input_ids")->shape[1];
    FAILS(mmopt_batch_best_answer(batch, 0, 0, logits, logits, n, 30, &answer, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "question answering");
    mmopt_batch_free(batch);
    mmopt_loader_free(loader);
    mmopt_tokenizer_free(tokenizer);
    mmopt_corpus_free(corpus);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    test_classification();
    test_confusion();
    test_numbers();
    test_entities();
    test_answers();
    test_best_answer(argv[1]);
    return finish();
}
