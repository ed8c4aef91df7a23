/* Corpora, tokenizers, loaders and batches. */
#include "check.h"

#include <math.h>
#include <pthread.h>

enum { N_TEXTS = 40 };

static char *texts[N_TEXTS];
static const char *labels[N_TEXTS];

static void make_texts(void)
{
    static const char *words[] = {"good", "bad", "fine", "poor", "story", "actor", "music"};
    for (int i = 0; i < N_TEXTS; i++) {
        texts[i] = malloc(64);
        snprintf(texts[i], 64, "a %s %s number %d", words[i % 4], words[4 + i % 3], i);
        labels[i] = i % 4 == 0 || i % 4 == 2 ? "yes" : "no";
    }
}

static void test_nulls(void)
{
    mmopt_corpus *corpus = NULL;
    mmopt_tokenizer *tokenizer = NULL;
    mmopt_loader *loader = NULL;
    mmopt_batch *batch = NULL;
    mmopt_encoding *encoding = NULL;
    const mmopt_tensor *tensors = NULL;
    const size_t *examples = NULL;
    size_t n = 0;
    int64_t label = 0;
    char *text = NULL;

    mmopt_corpus_free(NULL);
    mmopt_tokenizer_free(NULL);
    mmopt_encoding_free(NULL);
    mmopt_loader_free(NULL);
    mmopt_batch_free(NULL);
    mmopt_corpus_options_init(NULL);
    mmopt_tokenizer_options_init(NULL);
    mmopt_loader_options_init(NULL);

    REFUSES_NULL(mmopt_corpus_read_classification(NULL, NULL, &corpus));
    REFUSES_NULL(mmopt_corpus_read_classification("x.tsv", NULL, NULL));
    REFUSES_NULL(mmopt_corpus_from_texts(NULL, NULL, 1, NULL, &corpus));
    REFUSES_NULL(mmopt_corpus_from_texts((const char *const *)texts, labels, 1, NULL, NULL));
    REFUSES_NULL(mmopt_corpus_split(NULL, 0.5, 0, &corpus, &corpus));
    REFUSES_NULL(mmopt_corpus_text(NULL, 0, &text));
    REFUSES_NULL(mmopt_corpus_label(NULL, 0, &label));
    REFUSES_NULL(mmopt_tokenizer_load(NULL, &tokenizer));
    REFUSES_NULL(mmopt_tokenizer_load("x", NULL));
    REFUSES_NULL(mmopt_tokenizer_train(NULL, NULL, &tokenizer));
    REFUSES_NULL(mmopt_tokenizer_save(NULL, "x"));
    REFUSES_NULL(mmopt_tokenizer_encode(NULL, "x", NULL, 0, &encoding));
    REFUSES_NULL(mmopt_tokenizer_decode(NULL, NULL, 0, 0, &text));
    REFUSES_NULL(mmopt_loader_create(NULL, NULL, 0, NULL, &loader));
    REFUSES_NULL(mmopt_loader_next(NULL, &batch));
    REFUSES_NULL(mmopt_loader_set_epoch(NULL, 0));
    REFUSES_NULL(mmopt_loader_state(NULL, &text));
    REFUSES_NULL(mmopt_loader_restore(NULL, "{}"));
    REFUSES_NULL(mmopt_batch_encode(NULL, 1, NULL, 0, 0, &batch));
    REFUSES_NULL(mmopt_batch_tensors(NULL, 0, &tensors, &n));
    REFUSES_NULL(mmopt_batch_examples(NULL, 0, &examples, &n));

    CHECK(mmopt_corpus_n_examples(NULL) == 0 && mmopt_corpus_n_labels(NULL) == 0);
    CHECK(mmopt_corpus_label_name(NULL, 0) == NULL && mmopt_corpus_label_count(NULL, 0) == 0);
    CHECK(mmopt_corpus_majority_fraction(NULL) == 0);
    CHECK(mmopt_tokenizer_vocab_size(NULL) == 0 && mmopt_tokenizer_model_max_length(NULL) == 0);
    CHECK(mmopt_tokenizer_special_token_id(NULL, MMOPT_SPECIAL_TOKEN_PAD) == -1);
    CHECK(mmopt_encoding_length(NULL) == 0 && mmopt_encoding_ids(NULL) == NULL);
    CHECK(mmopt_encoding_type_ids(NULL) == NULL && mmopt_encoding_offsets(NULL) == NULL);
    CHECK(mmopt_encoding_n_truncated(NULL) == 0);
    CHECK(mmopt_loader_n_batches(NULL) == 0 && mmopt_loader_epoch(NULL) == 0);
    CHECK(mmopt_loader_position(NULL) == 0);
    CHECK(mmopt_batch_n_models(NULL) == 0 && mmopt_batch_n_rows(NULL, 0) == 0);
    CHECK(mmopt_architecture_from_name(NULL) == 0);
    CHECK(corpus == NULL && tokenizer == NULL && loader == NULL && batch == NULL && text == NULL);
}

/* Generated examples of each task, and their texts as plain text. */
static void test_generated(void)
{
    mmopt_corpus *entities = NULL, *questions = NULL, *plain = NULL, *none = NULL;
    char *text = NULL;

    OK(mmopt_corpus_synthetic_entities(30, 7, &entities));
    CHECK(mmopt_corpus_n_examples(entities) == 30 && mmopt_corpus_n_labels(entities) == 7);
    CHECK(strcmp(mmopt_corpus_label_name(entities, 1), "B-PER") == 0);
    OK(mmopt_corpus_synthetic_questions(30, 7, &questions));
    CHECK(mmopt_corpus_n_examples(questions) == 30 && mmopt_corpus_n_labels(questions) == 0);
    OK(mmopt_corpus_plain_text(questions, &plain)); /* questions and contexts */
    CHECK(mmopt_corpus_n_examples(plain) == 60);
    OK(mmopt_corpus_text(plain, 0, &text));
    CHECK(text[strlen(text) - 1] == '?');
    mmopt_string_free(text);
    FAILS(mmopt_corpus_synthetic_entities(0, 7, &none), MMOPT_CODE_INVALID_ARGUMENT, "0 sentences");
    FAILS(mmopt_corpus_synthetic_questions(0, 7, &none), MMOPT_CODE_INVALID_ARGUMENT,
          "0 questions");
    REFUSES_NULL(mmopt_corpus_plain_text(NULL, &none));
    CHECK(none == NULL);
    mmopt_corpus_free(entities);
    mmopt_corpus_free(questions);
    mmopt_corpus_free(plain);
}

static void test_architectures(void)
{
    CHECK(mmopt_architecture_from_name("gpt2") == MMOPT_ARCHITECTURE_GPT2);
    CHECK(mmopt_architecture_from_name("GPT2") == 0);
    CHECK(strcmp(mmopt_architecture_name(MMOPT_ARCHITECTURE_ROBERTA), "roberta") == 0);
    CHECK(strcmp(mmopt_architecture_name(99), "") == 0);
}

static void test_reading(const char *folder)
{
    mmopt_corpus *corpus = NULL, *known = NULL;
    mmopt_corpus_options options;
    const char good[] = "\xef\xbb\xbf" "one\tyes\r\ntwo\tno\r\nthree\tyes\r\n";
    int64_t label = 9;
    char *text = NULL;

    write_file(in_folder(folder, "good.tsv"), good, sizeof good - 1);
    OK(mmopt_corpus_read_classification(in_folder(folder, "good.tsv"), NULL, &known));
    CHECK(mmopt_corpus_n_examples(known) == 3 && mmopt_corpus_n_labels(known) == 2);
    CHECK(strcmp(mmopt_corpus_label_name(known, 1), "yes") == 0);
    CHECK(mmopt_corpus_label_name(known, 2) == NULL);
    CHECK(mmopt_corpus_label_count(known, 1) == 2 && mmopt_corpus_label_count(known, 2) == 0);
    OK(mmopt_corpus_label(known, 1, &label));
    CHECK(label == 0);
    OK(mmopt_corpus_text(known, 2, &text));
    CHECK(strcmp(text, "three") == 0);
    mmopt_string_free(text);
    FAILS(mmopt_corpus_label(known, 3, &label), MMOPT_CODE_INVALID_ARGUMENT, "example 3");
    FAILS(mmopt_corpus_text(known, 3, &text), MMOPT_CODE_INVALID_ARGUMENT, "example 3");
    REFUSES_NULL(mmopt_corpus_text(known, 0, NULL));
    REFUSES_NULL(mmopt_corpus_label(known, 0, NULL));

    FAILS(mmopt_corpus_read_classification("/nonexistent.tsv", NULL, &corpus),
          MMOPT_CODE_NOT_FOUND, "/nonexistent.tsv");
    FAILS(mmopt_corpus_read_classification("\xc3(", NULL, &corpus), MMOPT_CODE_INVALID_ARGUMENT,
          "not UTF-8");
    write_file(in_folder(folder, "bad.tsv"), "a\tyes\n\xff\tno\n", 11);
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "bad.tsv"), NULL, &corpus),
          MMOPT_CODE_INVALID_DATA, "bad.tsv:2");
    write_file(in_folder(folder, "empty.tsv"), "", 0);
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "empty.tsv"), NULL, &corpus),
          MMOPT_CODE_INVALID_DATA, "empty.tsv");

    /* Options: wrong numbers are refused, the classes of the training data hold. */
    mmopt_corpus_options_init(&options);
    CHECK(options.struct_size == sizeof options);
    options.format = 99;
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "good.tsv"), &options, &corpus),
          MMOPT_CODE_INVALID_ARGUMENT, "format is 99");
    mmopt_corpus_options_init(&options);
    options.unlabelled = 2;
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "good.tsv"), &options, &corpus),
          MMOPT_CODE_INVALID_ARGUMENT, "unlabelled is 2");
    memset(&options, 0, sizeof options);
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "good.tsv"), &options, &corpus),
          MMOPT_CODE_INVALID_ARGUMENT, "mmopt_corpus_options_init");
    mmopt_corpus_options_init(&options);
    options.labels_of = known;
    write_file(in_folder(folder, "other.tsv"), "a\tmaybe\n", 8);
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "other.tsv"), &options, &corpus),
          MMOPT_CODE_INVALID_DATA, "maybe");
    write_file(in_folder(folder, "columns.csv"), "label,body\nno,\"x, y\"\n", 21);
    options.text_column = "body";
    options.label_column = "label";
    OK(mmopt_corpus_read_classification(in_folder(folder, "columns.csv"), &options, &corpus));
    OK(mmopt_corpus_text(corpus, 0, &text));
    CHECK(strcmp(text, "x, y") == 0);
    mmopt_string_free(text);
    mmopt_corpus_free(corpus);
    mmopt_corpus_free(known);
}

static void test_other_files(const char *folder)
{
    mmopt_corpus *corpus = NULL, *known = NULL;
    char *text = NULL;
    const char words[] = "EU B-ORG\nrejects O\n\nPeter B-PER\n";
    const char questions[] = "{\"context\": \"born in May\", \"question\": \"when?\", "
                             "\"answers\": [{\"text\": \"May\", \"answer_start\": 8}]}\n";

    write_file(in_folder(folder, "words.txt"), words, sizeof words - 1);
    OK(mmopt_corpus_read_token_classification(in_folder(folder, "words.txt"), NULL, &known));
    CHECK(mmopt_corpus_n_examples(known) == 2 && mmopt_corpus_n_labels(known) == 3);
    CHECK(strcmp(mmopt_corpus_label_name(known, 0), "O") == 0);
    OK(mmopt_corpus_text(known, 0, &text));
    CHECK(strcmp(text, "EU rejects") == 0);
    mmopt_string_free(text);
    write_file(in_folder(folder, "words.txt"), "Rome B-LOC\n", 11);
    FAILS(mmopt_corpus_read_token_classification(in_folder(folder, "words.txt"), known, &corpus),
          MMOPT_CODE_INVALID_DATA, "B-LOC");
    REFUSES_NULL(mmopt_corpus_read_token_classification(NULL, NULL, &corpus));
    REFUSES_NULL(mmopt_corpus_read_token_classification("x", NULL, NULL));
    mmopt_corpus_free(known);

    write_file(in_folder(folder, "questions.jsonl"), questions, sizeof questions - 1);
    OK(mmopt_corpus_read_question_answering(in_folder(folder, "questions.jsonl"), &corpus));
    CHECK(mmopt_corpus_n_examples(corpus) == 1 && mmopt_corpus_n_labels(corpus) == 0);
    mmopt_corpus_free(corpus);
    write_file(in_folder(folder, "questions.jsonl"), "{\"context\": 1}\n", 15);
    FAILS(mmopt_corpus_read_question_answering(in_folder(folder, "questions.jsonl"), &corpus),
          MMOPT_CODE_INVALID_DATA, "questions.jsonl");
    REFUSES_NULL(mmopt_corpus_read_question_answering(NULL, &corpus));
    REFUSES_NULL(mmopt_corpus_read_question_answering("x", NULL));

    write_file(in_folder(folder, "plain.txt"), "one\ntwo\n\nthree\n", 15);
    OK(mmopt_corpus_read_plain_text(in_folder(folder, "plain.txt"), MMOPT_SAMPLE_BY_LINE,
                                    &corpus));
    CHECK(mmopt_corpus_n_examples(corpus) == 3);
    mmopt_corpus_free(corpus);
    FAILS(mmopt_corpus_read_plain_text(in_folder(folder, "plain.txt"), 9, &corpus),
          MMOPT_CODE_INVALID_ARGUMENT, "sample_by is 9");
    REFUSES_NULL(mmopt_corpus_read_plain_text(NULL, 0, &corpus));
    REFUSES_NULL(mmopt_corpus_read_plain_text("x", 0, NULL));
    FAILS(mmopt_corpus_synthetic(0, 0, 0, &corpus), MMOPT_CODE_INVALID_ARGUMENT, "sentences");
    FAILS(mmopt_corpus_synthetic(5, 0, 0.7, &corpus), MMOPT_CODE_INVALID_ARGUMENT, "noise");
    REFUSES_NULL(mmopt_corpus_synthetic(5, 0, 0, NULL));
}

/* Nested fields, arrays, folders, several files, pairs, names of classes; what is refused. */
static void test_more_files(const char *folder)
{
    static const char *const names[] = {"0", "1"}, *const more[] = {"no", "yes", "maybe"};
    const char *one[] = {"a"}, *two[] = {"b"}, *class_of_one[] = {"yes"};
    const char nested[] =
        "[{\"data\": {\"text\": \"a\"},\n \"with\": [{\"text\": \"b\"}], \"y\": 1.0},\n"
        "{\"data\": {\"text\": \"c\"}, \"with\": [{\"text\": \"d\"}], \"y\": 0}]";
    mmopt_corpus *corpus = NULL, *known = NULL;
    mmopt_corpus_options options;
    char *text = NULL;

    write_file(in_folder(folder, "nested.json"), nested, sizeof nested - 1);
    mmopt_corpus_options_init(&options);
    options.text_column = "data.text", options.pair_column = "with.0.text";
    options.label_column = "y", options.label_names = names, options.n_label_names = 2;
    OK(mmopt_corpus_read_classification(in_folder(folder, "nested.json"), &options, &corpus));
    CHECK(mmopt_corpus_n_examples(corpus) == 2 && mmopt_corpus_label_count(corpus, 1) == 1);
    OK(mmopt_corpus_pair(corpus, 1, &text));
    CHECK(strcmp(text, "d") == 0);
    mmopt_string_free(text);
    FAILS(mmopt_corpus_pair(corpus, 2, &text), MMOPT_CODE_INVALID_ARGUMENT, "example 2");
    REFUSES_NULL(mmopt_corpus_pair(NULL, 0, &text));
    REFUSES_NULL(mmopt_corpus_pair(corpus, 0, NULL));
    options.labels_of = corpus;
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "nested.json"), &options, &known),
          MMOPT_CODE_INVALID_ARGUMENT, "labels_of and label_names");
    mmopt_corpus_free(corpus);
    options.labels_of = NULL, options.text_column = "data.body";
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "nested.json"), &options, &corpus),
          MMOPT_CODE_INVALID_DATA, "the keys are 'text'; set text_column");
    options.text_column = "data.text", options.label_names = NULL;
    REFUSES_NULL(mmopt_corpus_read_classification(in_folder(folder, "nested.json"), &options,
                                                  &corpus));

    write_file(in_folder(folder, "many1.csv"), "a,yes\r\n", 7);
    write_file(in_folder(folder, "many2.csv"), "b,no\rc,yes\r", 11);
    OK(mmopt_corpus_read_classification(in_folder(folder, "many?.csv"), NULL, &corpus));
    CHECK(mmopt_corpus_n_examples(corpus) == 3 && mmopt_corpus_n_labels(corpus) == 2);
    OK(mmopt_corpus_pair(corpus, 0, &text));
    CHECK(text == NULL);
    mmopt_corpus_free(corpus);
    write_file(in_folder(folder, "many3.csv"), "a,no\n\"b,no\n", 11);
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "many?.csv"), NULL, &corpus),
          MMOPT_CODE_INVALID_DATA, "many3.csv:2: the quote that opens here");
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "none*.csv"), NULL, &corpus),
          MMOPT_CODE_NOT_FOUND, "no file matches");
    write_file(in_folder(folder, "packed.tsv"), "\x1f\x8b\x08", 3);
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "packed.tsv"), NULL, &corpus),
          MMOPT_CODE_INVALID_DATA, "gzip");
    mmopt_corpus_options_init(&options);
    options.format = MMOPT_CORPUS_FORMAT_FOLDER;
    FAILS(mmopt_corpus_read_classification(in_folder(folder, "none"), &options, &corpus),
          MMOPT_CODE_NOT_FOUND, "none");

    FAILS(mmopt_corpus_from_label_names(MMOPT_TASK_CAUSAL_LM, more, 3, &known),
          MMOPT_CODE_INVALID_ARGUMENT, "task is 5");
    FAILS(mmopt_corpus_from_label_names(MMOPT_TASK_TOKEN_CLASSIFICATION, more, 0, &known),
          MMOPT_CODE_INVALID_ARGUMENT, "n is 0");
    REFUSES_NULL(mmopt_corpus_from_label_names(MMOPT_TASK_TOKEN_CLASSIFICATION, NULL, 1, &known));
    REFUSES_NULL(mmopt_corpus_from_label_names(MMOPT_TASK_TOKEN_CLASSIFICATION, more, 3, NULL));
    OK(mmopt_corpus_from_label_names(MMOPT_TASK_SEQUENCE_CLASSIFICATION, more, 3, &known));
    CHECK(mmopt_corpus_n_labels(known) == 3 && mmopt_corpus_n_examples(known) == 0);
    OK(mmopt_corpus_from_pairs(one, two, class_of_one, 1, known, &corpus));
    OK(mmopt_corpus_pair(corpus, 0, &text));
    CHECK(strcmp(text, "b") == 0 && mmopt_corpus_label_count(corpus, 1) == 1);
    mmopt_string_free(text);
    mmopt_corpus_free(corpus);
    corpus = NULL;
    REFUSES_NULL(mmopt_corpus_from_pairs(NULL, two, NULL, 1, NULL, &corpus));
    REFUSES_NULL(mmopt_corpus_from_pairs(one, NULL, NULL, 1, NULL, &corpus));
    REFUSES_NULL(mmopt_corpus_from_pairs(one, two, NULL, 1, NULL, NULL));
    FAILS(mmopt_corpus_from_pairs(one, two, NULL, 0, NULL, &corpus), MMOPT_CODE_INVALID_ARGUMENT,
          "n is 0");
    CHECK(corpus == NULL);
    mmopt_corpus_free(known);
}

static int64_t label_of(const mmopt_corpus *corpus, size_t example)
{
    int64_t label = -2;
    OK(mmopt_corpus_label(corpus, example, &label));
    return label;
}

/* Parts of a corpus, and several as one; corpus has N_TEXTS texts, half of them of each class. */
static void test_parts(const mmopt_corpus *corpus, const char *folder)
{
    mmopt_corpus *few = NULL, *rest = NULL, *bare = NULL, *all = NULL, *part = NULL, *words = NULL;
    const size_t chosen[] = {3, 0, 3}, outside[] = {0, N_TEXTS};

    OK(mmopt_corpus_sample(corpus, 10, 1, &few, &rest));
    CHECK(mmopt_corpus_n_examples(few) == 10 && mmopt_corpus_n_examples(rest) == N_TEXTS - 10);
    CHECK(mmopt_corpus_label_count(few, 0) == 5 && mmopt_corpus_label_count(few, 1) == 5);
    OK(mmopt_corpus_sample(corpus, N_TEXTS, 1, &part, NULL));
    mmopt_corpus_free(part);
    part = NULL;
    FAILS(mmopt_corpus_sample(corpus, N_TEXTS + 1, 1, &part, NULL), MMOPT_CODE_INVALID_ARGUMENT,
          "a sample of 41 of 40");
    REFUSES_NULL(mmopt_corpus_sample(NULL, 1, 1, &part, NULL));
    REFUSES_NULL(mmopt_corpus_sample(corpus, 1, 1, NULL, NULL));

    OK(mmopt_corpus_subset(corpus, chosen, 3, &part));
    CHECK(mmopt_corpus_n_examples(part) == 3 && mmopt_corpus_n_labels(part) == 2);
    CHECK(label_of(part, 0) == label_of(corpus, 3) && label_of(part, 1) == label_of(corpus, 0));
    mmopt_corpus_free(part);
    part = NULL;
    FAILS(mmopt_corpus_subset(corpus, outside, 2, &part), MMOPT_CODE_INVALID_ARGUMENT, "example 40");
    REFUSES_NULL(mmopt_corpus_subset(NULL, chosen, 3, &part));
    REFUSES_NULL(mmopt_corpus_subset(corpus, NULL, 3, &part));
    REFUSES_NULL(mmopt_corpus_subset(corpus, chosen, 3, NULL));

    OK(mmopt_corpus_without_labels(rest, &bare));
    CHECK(mmopt_corpus_n_labels(bare) == 2 && label_of(bare, 0) == -1);
    REFUSES_NULL(mmopt_corpus_without_labels(NULL, &part));
    REFUSES_NULL(mmopt_corpus_without_labels(rest, NULL));

    const mmopt_corpus *both[] = {few, bare}, *holed[] = {few, NULL};
    OK(mmopt_corpus_concatenate(both, 2, &all));
    CHECK(mmopt_corpus_n_examples(all) == N_TEXTS && label_of(all, 9) >= 0);
    CHECK(label_of(all, 10) == -1 && mmopt_corpus_label_count(all, 1) == 5);
    REFUSES_NULL(mmopt_corpus_concatenate(NULL, 2, &part));
    REFUSES_NULL(mmopt_corpus_concatenate(both, 2, NULL));
    FAILS(mmopt_corpus_concatenate(holed, 2, &part), MMOPT_CODE_INVALID_ARGUMENT, "corpora[1]");
    FAILS(mmopt_corpus_concatenate(both, 0, &part), MMOPT_CODE_INVALID_ARGUMENT, "no corpora");
    write_file(in_folder(folder, "words.txt"), "Rome\nis old\n\nYes\n", 18);
    OK(mmopt_corpus_read_words(in_folder(folder, "words.txt"), &words));
    CHECK(mmopt_corpus_n_examples(words) == 2 && mmopt_corpus_n_labels(words) == 0);
    REFUSES_NULL(mmopt_corpus_read_words(NULL, &part));
    REFUSES_NULL(mmopt_corpus_read_words("x", NULL));
    FAILS(mmopt_corpus_read_words("/nonexistent.txt", &part), MMOPT_CODE_NOT_FOUND, "/nonexistent");
    both[1] = words;
    FAILS(mmopt_corpus_concatenate(both, 2, &part), MMOPT_CODE_INVALID_ARGUMENT, "tasks");
    CHECK(part == NULL);

    /* Every batch has 2 labelled and 6 unlabelled examples. */
    mmopt_tokenizer *tokenizer = NULL;
    mmopt_loader *loader = NULL;
    mmopt_loader_options walk;
    OK(mmopt_tokenizer_train(all, NULL, &tokenizer));
    mmopt_loader_options_init(&walk);
    CHECK(walk.unlabelled_ratio == 0);
    walk.batch_size = 8, walk.unlabelled_ratio = 3;
    const mmopt_tokenizer *const *one = (const mmopt_tokenizer *const *)&tokenizer;
    OK(mmopt_loader_create(all, one, 1, &walk, &loader));
    CHECK(mmopt_loader_n_batches(loader) == 5);
    for (int i = 0; i < 5; i++) {
        mmopt_batch *batch = NULL;
        const size_t *examples = NULL;
        size_t n = 0, n_labelled = 0;
        OK(mmopt_loader_next(loader, &batch));
        OK(mmopt_batch_examples(batch, 0, &examples, &n));
        for (size_t k = 0; k < n; k++)
            n_labelled += examples[k] < 10;
        CHECK(n == 8 && n_labelled == 2);
        mmopt_batch_free(batch);
    }
    mmopt_loader_free(loader);
    loader = NULL;
    FAILS(mmopt_loader_create(corpus, one, 1, &walk, &loader), MMOPT_CODE_INVALID_ARGUMENT,
          "unlabelled");
    /* All that is drawn is the one example with a weight. */
    {
        double weights[N_TEXTS] = {0};
        size_t n_drawn = 0, n = 0;
        mmopt_batch *batch = NULL;
        const size_t *examples = NULL;
        mmopt_loader_options_init(&walk);
        CHECK(walk.sampling == MMOPT_SAMPLING_EACH_ONCE && walk.max_tokens == 0);
        walk.sampling = MMOPT_SAMPLING_WEIGHTED, walk.n_samples = 20, walk.max_tokens = 64;
        walk.example_weights = weights, walk.n_example_weights = N_TEXTS;
        FAILS(mmopt_loader_create(corpus, one, 1, &walk, &loader), MMOPT_CODE_INVALID_ARGUMENT,
              "a sum of 0");
        weights[3] = 2;
        OK(mmopt_loader_create(corpus, one, 1, &walk, &loader));
        OK(mmopt_loader_next(loader, &batch));
        while (batch != NULL) {
            OK(mmopt_batch_examples(batch, 0, &examples, &n));
            CHECK(n > 0 && n <= 8);
            for (size_t k = 0; k < n; k++)
                n_drawn += examples[k] == 3;
            mmopt_batch_free(batch);
            OK(mmopt_loader_next(loader, &batch));
        }
        CHECK(n_drawn == 20);
        mmopt_loader_free(loader);
        loader = NULL;
        walk.n_example_weights = 3;
        FAILS(mmopt_loader_create(corpus, one, 1, &walk, &loader), MMOPT_CODE_INVALID_ARGUMENT,
              "3 example_weights for 40");
        walk.sampling = MMOPT_SAMPLING_CLASS_BALANCED;
        FAILS(mmopt_loader_create(corpus, one, 1, &walk, &loader), MMOPT_CODE_INVALID_ARGUMENT,
              "MMOPT_SAMPLING_WEIGHTED");
        walk.n_example_weights = 0, walk.max_tokens = 4;
        FAILS(mmopt_loader_create(corpus, one, 1, &walk, &loader), MMOPT_CODE_INVALID_ARGUMENT,
              "max_tokens is 4");
        walk.sampling = 3;
        FAILS(mmopt_loader_create(corpus, one, 1, &walk, &loader), MMOPT_CODE_INVALID_ARGUMENT,
              "sampling is 3");
        walk.sampling = 0, walk.n_samples = 0, walk.max_tokens = 0, walk.batch_size = 8;
    }
    walk.unlabelled_ratio = NAN;
    FAILS(mmopt_loader_create(all, one, 1, &walk, &loader), MMOPT_CODE_INVALID_ARGUMENT,
          "unlabelled_ratio");
    mmopt_tokenizer_free(tokenizer);
    mmopt_corpus_free(words);
    mmopt_corpus_free(all);
    mmopt_corpus_free(bare);
    mmopt_corpus_free(few);
    mmopt_corpus_free(rest);
}

static void test_tokenizer(const mmopt_corpus *corpus, const char *folder)
{
    mmopt_tokenizer *tokenizer = NULL, *again = NULL;
    mmopt_tokenizer_options options;
    mmopt_encoding *encoding = NULL;
    char *text = NULL;

    mmopt_tokenizer_options_init(&options);
    options.architecture = 0;
    FAILS(mmopt_tokenizer_train(corpus, &options, &tokenizer), MMOPT_CODE_INVALID_ARGUMENT,
          "architecture is 0");
    options.architecture = MMOPT_ARCHITECTURE_BERT;
    options.vocab_size = 6;
    FAILS(mmopt_tokenizer_train(corpus, &options, &tokenizer), MMOPT_CODE_INVALID_ARGUMENT, NULL);
    options.vocab_size = 200;
    options.model_max_length = 32;
    OK(mmopt_tokenizer_train(corpus, &options, &tokenizer));
    CHECK(mmopt_tokenizer_vocab_size(tokenizer) > 20);
    CHECK(mmopt_tokenizer_vocab_size(tokenizer) <= 200);
    CHECK(mmopt_tokenizer_model_max_length(tokenizer) == 32);
    CHECK(mmopt_tokenizer_special_token_id(tokenizer, MMOPT_SPECIAL_TOKEN_CLS) >= 0);
    CHECK(mmopt_tokenizer_special_token_id(tokenizer, MMOPT_SPECIAL_TOKEN_EOS) == -1);
    CHECK(mmopt_tokenizer_special_token_id(tokenizer, 99) == -1);

    OK(mmopt_tokenizer_encode(tokenizer, "good story", "bad actor", 0, &encoding));
    CHECK(mmopt_encoding_length(encoding) == 7);
    CHECK((int64_t)mmopt_encoding_ids(encoding)[0] ==
          mmopt_tokenizer_special_token_id(tokenizer, MMOPT_SPECIAL_TOKEN_CLS));
    CHECK(mmopt_encoding_type_ids(encoding)[5] == 1);
    CHECK(mmopt_encoding_offsets(encoding)[4] == 5 && mmopt_encoding_offsets(encoding)[5] == 10);
    CHECK(mmopt_encoding_n_truncated(encoding) == 0);
    OK(mmopt_tokenizer_decode(tokenizer, mmopt_encoding_ids(encoding), 7, 1, &text));
    CHECK(strcmp(text, "good story bad actor") == 0);
    mmopt_string_free(text);
    FAILS(mmopt_tokenizer_decode(tokenizer, mmopt_encoding_ids(encoding), 7, 2, &text),
          MMOPT_CODE_INVALID_ARGUMENT, "skip_special_tokens");
    REFUSES_NULL(mmopt_tokenizer_decode(tokenizer, NULL, 7, 0, &text));
    REFUSES_NULL(mmopt_tokenizer_decode(tokenizer, mmopt_encoding_ids(encoding), 7, 0, NULL));
    mmopt_encoding_free(encoding);
    encoding = NULL;
    REFUSES_NULL(mmopt_tokenizer_encode(tokenizer, NULL, NULL, 0, &encoding));
    REFUSES_NULL(mmopt_tokenizer_encode(tokenizer, "x", NULL, 0, NULL));
    FAILS(mmopt_tokenizer_encode(tokenizer, "\x80", NULL, 0, &encoding),
          MMOPT_CODE_INVALID_ARGUMENT, "text is not UTF-8");
    FAILS(mmopt_tokenizer_encode(tokenizer, "good", NULL, 1, &encoding),
          MMOPT_CODE_INVALID_ARGUMENT, NULL);
    CHECK(encoding == NULL);

    REFUSES_NULL(mmopt_tokenizer_save(tokenizer, NULL));
    OK(mmopt_tokenizer_save(tokenizer, folder));
    OK(mmopt_tokenizer_load(folder, &again));
    CHECK(mmopt_tokenizer_vocab_size(again) == mmopt_tokenizer_vocab_size(tokenizer));
    CHECK(mmopt_tokenizer_model_max_length(again) == 32);
    mmopt_tokenizer_free(again);
    mmopt_tokenizer_free(tokenizer);
    FAILS(mmopt_tokenizer_load("/nonexistent", &tokenizer), MMOPT_CODE_NOT_FOUND, "/nonexistent");
}

static const mmopt_tensor *find(const mmopt_batch *batch, size_t model, const char *name)
{
    const mmopt_tensor *tensors = NULL;
    size_t n = 0;
    OK(mmopt_batch_tensors(batch, model, &tensors, &n));
    for (size_t i = 0; i < n; i++)
        if (strcmp(tensors[i].name, name) == 0)
            return &tensors[i];
    return NULL;
}

/* The loader outlives the corpus and the tokenizers that it was made from. */
static void test_loader(mmopt_corpus *corpus)
{
    mmopt_tokenizer *pair[2] = {NULL, NULL};
    const mmopt_tokenizer *none[1] = {NULL};
    mmopt_tokenizer_options options;
    mmopt_loader_options walk;
    mmopt_loader *loader = NULL, *other = NULL;
    mmopt_batch *batch = NULL, *first = NULL;
    const size_t *examples = NULL, *same = NULL;
    size_t n = 0, n_batches = 0;
    char *state = NULL;

    mmopt_tokenizer_options_init(&options);
    options.vocab_size = 300;
    OK(mmopt_tokenizer_train(corpus, &options, &pair[0]));
    options.architecture = MMOPT_ARCHITECTURE_GPT2;
    options.vocab_size = 400;
    OK(mmopt_tokenizer_train(corpus, &options, &pair[1]));

    mmopt_loader_options_init(&walk);
    walk.batch_size = 16;
    walk.seed = 7;
    const mmopt_tokenizer *const *tokenizers = (const mmopt_tokenizer *const *)pair;
    REFUSES_NULL(mmopt_loader_create(corpus, NULL, 2, &walk, &loader));
    REFUSES_NULL(mmopt_loader_create(corpus, none, 1, &walk, &loader));
    REFUSES_NULL(mmopt_loader_create(corpus, tokenizers, 2, &walk, NULL));
    FAILS(mmopt_loader_create(corpus, tokenizers, 0, &walk, &loader), MMOPT_CODE_INVALID_ARGUMENT,
          "at least one");
    walk.batch_size = 0;
    FAILS(mmopt_loader_create(corpus, tokenizers, 2, &walk, &loader), MMOPT_CODE_INVALID_ARGUMENT,
          NULL);
    walk.batch_size = 16;
    walk.objective = 5;
    FAILS(mmopt_loader_create(corpus, tokenizers, 2, &walk, &loader), MMOPT_CODE_INVALID_ARGUMENT,
          "objective is 5");
    walk.objective = MMOPT_OBJECTIVE_CAUSAL;
    OK(mmopt_loader_create(corpus, tokenizers, 2, &walk, &loader));
    OK(mmopt_loader_create(corpus, tokenizers, 2, &walk, &other));
    walk.seed = 8;

    {
        const char *one[] = {"a good one", "x"};
        OK(mmopt_batch_encode(tokenizers, 2, one, 2, 0, &batch));
        CHECK(mmopt_batch_n_models(batch) == 2 && mmopt_batch_n_rows(batch, 0) == 2);
        CHECK(find(batch, 0, "labels") == NULL && find(batch, 1, "input_ids") != NULL);
        mmopt_batch_free(batch);
        REFUSES_NULL(mmopt_batch_encode(tokenizers, 2, NULL, 2, 0, &batch));
        REFUSES_NULL(mmopt_batch_encode(tokenizers, 2, one, 2, 0, NULL));
        one[1] = "\xfe";
        FAILS(mmopt_batch_encode(tokenizers, 2, one, 2, 0, &batch), MMOPT_CODE_INVALID_ARGUMENT,
              "texts[1] is not UTF-8");
        FAILS(mmopt_batch_encode(tokenizers, 2, one, 0, 0, &batch), MMOPT_CODE_INVALID_ARGUMENT,
              NULL);
    }

    mmopt_tokenizer_free(pair[0]);
    mmopt_tokenizer_free(pair[1]);
    mmopt_corpus_free(corpus);

    CHECK(mmopt_loader_n_batches(loader) == 3);
    REFUSES_NULL(mmopt_loader_next(loader, NULL));
    REFUSES_NULL(mmopt_loader_state(loader, NULL));
    REFUSES_NULL(mmopt_loader_restore(loader, NULL));
    OK(mmopt_loader_next(loader, &first));
    CHECK(mmopt_loader_position(loader) == 1);
    CHECK(mmopt_batch_n_models(first) == 2 && mmopt_batch_n_rows(first, 0) == 16);
    const mmopt_tensor *ids = find(first, 0, "input_ids");
    CHECK(ids != NULL && ids->dtype == MMOPT_DTYPE_I64 && ids->n_dims == 2);
    CHECK(ids->shape[0] == 16 && ids->shape[1] % 8 == 0);
    CHECK(ids->n_bytes == (size_t)(16 * ids->shape[1] * 8));
    CHECK(find(first, 1, "token_type_ids") == NULL && find(first, 0, "token_type_ids") != NULL);
    CHECK(find(first, 0, "labels") != NULL && find(first, 0, "labels")->n_dims == 1);
    FAILS(mmopt_batch_examples(first, 2, &examples, &n), MMOPT_CODE_INVALID_ARGUMENT, "model 2");
    REFUSES_NULL(mmopt_batch_examples(first, 0, NULL, &n));
    REFUSES_NULL(mmopt_batch_examples(first, 0, &examples, NULL));
    OK(mmopt_batch_examples(first, 0, &examples, &n));
    OK(mmopt_batch_examples(first, 1, &same, &n));
    CHECK(n == 16 && memcmp(examples, same, n * sizeof *same) == 0);

    /* A state taken after the first batch leads to the same second batch. */
    OK(mmopt_loader_state(loader, &state));
    OK(mmopt_loader_restore(other, state));
    OK(mmopt_loader_next(loader, &batch));
    OK(mmopt_batch_examples(batch, 0, &examples, &n));
    mmopt_batch *second = NULL;
    OK(mmopt_loader_next(other, &second));
    OK(mmopt_batch_examples(second, 0, &same, &n));
    CHECK(n == 16 && memcmp(examples, same, n * sizeof *same) == 0);
    mmopt_batch_free(second);
    mmopt_batch_free(batch);
    FAILS(mmopt_loader_restore(other, "{}"), MMOPT_CODE_INVALID_DATA, "state");
    FAILS(mmopt_loader_restore(other, "not json"), MMOPT_CODE_INVALID_DATA, NULL);
    CHECK(mmopt_loader_position(other) == 2);
    mmopt_string_free(state);

    /* The end of an epoch is no error, and the next call begins another. */
    do {
        OK(mmopt_loader_next(loader, &batch));
        mmopt_batch_free(batch);
        n_batches++;
    } while (batch != NULL && n_batches < 10);
    CHECK(n_batches == 2 && mmopt_loader_epoch(loader) == 1);
    OK(mmopt_loader_set_epoch(loader, 5));
    CHECK(mmopt_loader_epoch(loader) == 5 && mmopt_loader_position(loader) == 0);
    mmopt_loader_free(loader);
    mmopt_loader_free(other);
    CHECK(mmopt_batch_n_rows(first, 1) == 16);
    mmopt_batch_free(first);
}

static void *encode_often(void *tokenizer)
{
    size_t total = 0;
    for (int i = 0; i < 2000; i++) {
        mmopt_encoding *encoding = NULL;
        mmopt_error *error =
            mmopt_tokenizer_encode(tokenizer, texts[i % N_TEXTS], NULL, 0, &encoding);
        if (error != NULL) {
            mmopt_error_free(error);
            return NULL;
        }
        total += mmopt_encoding_length(encoding);
        mmopt_encoding_free(encoding);
    }
    return total > 0 ? tokenizer : NULL;
}

/* Calls on a pointer to const run at the same time. */
static void test_threads(const mmopt_corpus *corpus)
{
    mmopt_tokenizer *tokenizer = NULL;
    pthread_t threads[2];
    void *result = NULL;

    OK(mmopt_tokenizer_train(corpus, NULL, &tokenizer));
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, encode_often, tokenizer) == 0);
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], &result) == 0);
        CHECK(result == tokenizer);
    }
    mmopt_tokenizer_free(tokenizer);
}

/* How many sequences a corpus becomes. */
static size_t n_rows(const mmopt_corpus *corpus, const mmopt_loader_options *options)
{
    mmopt_tokenizer *tokenizer = NULL;
    mmopt_tokenizer_options trained;
    mmopt_loader *loader = NULL;

    mmopt_tokenizer_options_init(&trained);
    trained.min_frequency = 1;
    OK(mmopt_tokenizer_train(corpus, &trained, &tokenizer));
    OK(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)&tokenizer, 1, options, &loader));
    size_t n = mmopt_loader_n_batches(loader);
    mmopt_loader_free(loader);
    mmopt_tokenizer_free(tokenizer);
    return n;
}

static void test_windows_and_packing(const char *folder)
{
    static const char question[] =
        "{\"context\": \"one two three four five six seven eight nine ten eleven twelve\", "
        "\"question\": \"when?\", \"answers\": [{\"text\": \"six\", \"answer_start\": 24}]}\n";
    mmopt_corpus *corpus = NULL;
    mmopt_loader_options options;

    write_file(in_folder(folder, "long.jsonl"), question, strlen(question));
    OK(mmopt_corpus_read_question_answering(in_folder(folder, "long.jsonl"), &corpus));
    mmopt_loader_options_init(&options);
    CHECK(options.overlap == 64 && options.pack == 1);
    /* [CLS] when ? [SEP] and [SEP] leave room for 4 of 12 words. */
    options.batch_size = 1, options.max_length = 9;
    CHECK(n_rows(corpus, &options) == 1);
    options.all_windows = 1, options.overlap = 0;
    CHECK(n_rows(corpus, &options) == 3);
    options.overlap = 2;
    CHECK(n_rows(corpus, &options) == 5);
    mmopt_corpus_free(corpus);

    write_file(in_folder(folder, "lines.txt"), "one two\nthree\nfour five six\n", 28);
    OK(mmopt_corpus_read_plain_text(in_folder(folder, "lines.txt"), MMOPT_SAMPLE_BY_LINE, &corpus));
    mmopt_loader_options_init(&options);
    options.batch_size = 1, options.pack = 0;
    CHECK(n_rows(corpus, &options) == 3);
    options.pack = 1;
    CHECK(n_rows(corpus, &options) == 1);
    mmopt_corpus_free(corpus);
}

int main(int argc, char **argv)
{
    mmopt_corpus *corpus = NULL, *train = NULL, *eval = NULL;
    if (argc != 2)
        return 2;
    make_texts();
    test_nulls();
    test_architectures();
    test_generated();
    test_reading(argv[1]);
    test_other_files(argv[1]);
    test_more_files(argv[1]);
    test_windows_and_packing(argv[1]);

    OK(mmopt_corpus_from_texts((const char *const *)texts, labels, N_TEXTS, NULL, &corpus));
    CHECK(mmopt_corpus_n_examples(corpus) == N_TEXTS);
    CHECK(mmopt_corpus_majority_fraction(corpus) == 0.5);
    OK(mmopt_corpus_split(corpus, 0.25, 1, &train, &eval));
    CHECK(mmopt_corpus_n_examples(train) == 30 && mmopt_corpus_n_examples(eval) == 10);
    FAILS(mmopt_corpus_split(corpus, 1.5, 1, &train, &eval), MMOPT_CODE_INVALID_ARGUMENT, NULL);
    REFUSES_NULL(mmopt_corpus_split(corpus, 0.25, 1, NULL, &eval));
    REFUSES_NULL(mmopt_corpus_split(corpus, 0.25, 1, &train, NULL));
    mmopt_corpus_free(train);
    mmopt_corpus_free(eval);

    test_parts(corpus, argv[1]);
    test_tokenizer(corpus, argv[1]);
    test_threads(corpus);
    test_loader(corpus);
    for (int i = 0; i < N_TEXTS; i++)
        free(texts[i]);
    return finish();
}
