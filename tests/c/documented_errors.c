/* The codes that the header's comments promise ("Errors: ..."), in the header's order. What only
 * rare states lead to is tested where these are made: checkpoints, callbacks, cancelling. */
#include "tiny.h"

enum { INVALID = MMOPT_CODE_INVALID_ARGUMENT, NOT_FOUND = MMOPT_CODE_NOT_FOUND, IO = MMOPT_CODE_IO,
       DATA = MMOPT_CODE_INVALID_DATA, UNSUPPORTED = MMOPT_CODE_UNSUPPORTED,
       SHAPE = MMOPT_CODE_SHAPE, STATE = MMOPT_CODE_STATE };

static const char *folder;

static const char *file(const char *name, const char *text)
{
    write_file(in_folder(folder, name), text, strlen(text));
    return in_folder(folder, name);
}

static void test_corpora(void)
{
    mmopt_corpus *c = NULL, *other = NULL, *rest = NULL;
    mmopt_corpus_options options;
    const char *texts[2] = {"a", "b"}, *labels[2] = {"x", "y"}, *same[2] = {"x", "x"};
    const char *bad[2] = {"a", "\xff"};
    size_t far = 99;
    char *text = NULL;
    int64_t label = 0;

    FAILS(mmopt_corpus_read_words("/none", &c), NOT_FOUND, "/none");
    FAILS(mmopt_corpus_read_words(file("w", ""), &c), DATA, "w");
    FAILS(mmopt_corpus_read_plain_text("/none", MMOPT_SAMPLE_BY_LINE, &c), NOT_FOUND, "/none");
    FAILS(mmopt_corpus_read_plain_text(file("p", ""), MMOPT_SAMPLE_BY_LINE, &c), DATA, "p");
    FAILS(mmopt_corpus_read_plain_text(file("p", "a\n"), 77, &c), INVALID, "sample_by");
    FAILS(mmopt_corpus_read_plain_text(file("p", "\xff\n"), MMOPT_SAMPLE_BY_LINE, &c), DATA, "UTF-8");
    FAILS(mmopt_corpus_read_token_classification(file("t", "\n"), NULL, &c), DATA, "t");
    FAILS(mmopt_corpus_read_classification(folder, NULL, &c), DATA, "the folder");
    mmopt_corpus_options_init(&options);
    options.label_column = "klass";
    FAILS(mmopt_corpus_read_classification(file("c.tsv", "text\tlabel\na\t1\n"), &options, &c), DATA,
          "the first line was taken as a header");
    FAILS(mmopt_corpus_read_classification(file("c.jsonl", "{\"text\": \"a\","), NULL, &c), DATA,
          "c.jsonl:1: the JSON object ends too early");
    FAILS(mmopt_corpus_read_question_answering(
              file("q", "{\"context\":\"a\",\"question\":\"b\",\"answer\":\"a\"}\n"), &c),
          DATA, "q:1: 'answer_start' is missing");
    FAILS(mmopt_corpus_synthetic(0, 1, 0, &c), INVALID, NULL);
    FAILS(mmopt_corpus_synthetic(9, 1, 2, &c), INVALID, "noise");
    FAILS(mmopt_corpus_synthetic_entities(0, 1, &c), INVALID, NULL);
    FAILS(mmopt_corpus_synthetic_questions(0, 1, &c), INVALID, NULL);
    FAILS(mmopt_corpus_from_texts(texts, labels, 0, NULL, &c), INVALID, NULL);
    FAILS(mmopt_corpus_from_texts(bad, labels, 2, NULL, &c), INVALID, "UTF-8");
    FAILS(mmopt_corpus_from_texts(texts, labels, 2, corpus, &c), DATA, "x");
    FAILS(mmopt_corpus_from_pairs(texts, bad, labels, 2, NULL, &c), INVALID, "UTF-8");
    FAILS(mmopt_corpus_from_label_names(MMOPT_TASK_CAUSAL_LM, labels, 2, &c), INVALID, NULL);
    FAILS(mmopt_corpus_from_label_names(MMOPT_TASK_TOKEN_CLASSIFICATION, labels, 0, &c), INVALID, NULL);
    FAILS(mmopt_corpus_from_label_names(MMOPT_TASK_TOKEN_CLASSIFICATION, same, 2, &c), INVALID, "x");
    FAILS(mmopt_corpus_split(corpus, 1.5, 1, &c, &rest), INVALID, NULL);
    FAILS(mmopt_corpus_split(corpus, 1e-9, 1, &c, &rest), INVALID, NULL);
    FAILS(mmopt_corpus_sample(corpus, 0, 1, &c, NULL), INVALID, NULL);
    FAILS(mmopt_corpus_sample(corpus, 1000, 1, &c, NULL), INVALID, "1000");
    FAILS(mmopt_corpus_subset(corpus, &far, 1, &c), INVALID, "99");
    OK(mmopt_corpus_from_texts(texts, labels, 2, NULL, &other));
    const mmopt_corpus *both[2] = {corpus, other};
    FAILS(mmopt_corpus_concatenate(both, 0, &c), INVALID, NULL);
    FAILS(mmopt_corpus_concatenate(both, 2, &c), INVALID, NULL);
    FAILS(mmopt_corpus_text(other, 2, &text), INVALID, "2");
    FAILS(mmopt_corpus_pair(other, 2, &text), INVALID, "2");
    FAILS(mmopt_corpus_label(other, 2, &label), INVALID, "2");
    CHECK(c == NULL && rest == NULL && text == NULL);
    mmopt_corpus_free(other);
}

static void test_tokenizers(void)
{
    mmopt_tokenizer *t = NULL;
    mmopt_tokenizer_options options;
    mmopt_encoding *encoding = NULL;
    mmopt_loader *l = NULL;
    mmopt_loader_options walk;
    mmopt_batch *batch = NULL;
    mmopt_encoding_stats stats;
    const mmopt_tensor *tensors = NULL;
    const size_t *examples = NULL;
    const char *text = "a", *bad = "\xff";
    size_t n = 0;
    uint32_t id = 1 << 30;
    char *decoded = NULL;

    memset(&stats, 0, sizeof stats);
    FAILS(mmopt_tokenizer_load("/none", &t), NOT_FOUND, "/none");
    FAILS(mmopt_tokenizer_load(file("tokenizer.json", "{\"decoder\":{\"type\":\"WordPiece\" x"), &t),
          DATA, "tokenizer.json: not JSON");
    /* The tokenizers' own code panics on this; nothing of it is printed. */
    FAILS(mmopt_tokenizer_load(file("tokenizer.json", "{\"version\": \"1.0\", \"added_tokens\": [], "
                                    "\"normalizer\": {\"type\": \"Precompiled\", "
                                    "\"precompiled_charsmap\": \"AAAA\"}, \"model\": {\"type\": "
                                    "\"WordLevel\", \"vocab\": {\"a\": 0}, \"unk_token\": \"a\"}}"),
                               &t),
          DATA, "its 'normalizer' is missing, damaged or of an unknown kind");
    FAILS(mmopt_tokenizer_load(file("spiece.model", "\n"), &t), UNSUPPORTED, "SentencePiece");
    mmopt_tokenizer_options_init(&options);
    options.vocab_size = 3;
    FAILS(mmopt_tokenizer_train(corpus, &options, &t), INVALID, NULL);
    FAILS(mmopt_tokenizer_save(tokenizers[0], "/proc/none/x"), IO, "/proc/none");
    file("f", "x");
    FAILS(mmopt_tokenizer_save(tokenizers[0], in_folder(folder, "f/x")), IO, "f/x");
    FAILS(mmopt_tokenizer_decode(tokenizers[0], &id, 1, 0, &decoded), INVALID, NULL);
    id = 1;
    FAILS(mmopt_tokenizer_decode(tokenizers[0], &id, 1, 7, &decoded), INVALID, "skip");
    FAILS(mmopt_tokenizer_encode(tokenizers[0], bad, NULL, 0, &encoding), INVALID, "UTF-8");
    FAILS(mmopt_tokenizer_encode(tokenizers[0], text, NULL, 1, &encoding), INVALID, "max_length");

    const mmopt_tokenizer *all[2] = {tokenizers[0], tokenizers[1]};
    mmopt_loader_options_init(&walk);
    FAILS(mmopt_loader_create(corpus, all, 0, &walk, &l), INVALID, NULL);
    walk.batch_size = 0;
    FAILS(mmopt_loader_create(corpus, all, 2, &walk, &l), INVALID, "batch_size");
    mmopt_loader_options_init(&walk);
    walk.max_length = 1;
    FAILS(mmopt_loader_create(corpus, all, 2, &walk, &l), INVALID, "max_length");
    walk.max_length = 4000;
    FAILS(mmopt_loader_create(corpus, all, 2, &walk, &l), INVALID, "4000");
    mmopt_loader_options_init(&walk);
    walk.batch_size = 1000;
    walk.drop_last = 1;
    FAILS(mmopt_loader_create(corpus, all, 2, &walk, &l), INVALID, NULL);
    mmopt_loader_options_init(&walk);
    walk.unlabelled_ratio = 0.5;
    FAILS(mmopt_loader_create(corpus, all, 2, &walk, &l), INVALID, "unlabelled");
    FAILS(mmopt_loader_encoding_stats(loader, 2, &stats), INVALID, "model 2");
    FAILS(mmopt_loader_restore(loader, "{"), DATA, "the loader's state: the JSON ends too early");
    FAILS(mmopt_loader_restore(loader, "{}"), DATA, "is missing");
    FAILS(mmopt_batch_encode(all, 0, &text, 1, 0, &batch), INVALID, NULL);
    FAILS(mmopt_batch_encode(all, 2, &text, 0, 0, &batch), INVALID, NULL);
    FAILS(mmopt_batch_encode(all, 2, &bad, 1, 0, &batch), INVALID, "UTF-8");
    FAILS(mmopt_batch_encode(all, 2, &text, 1, 1, &batch), INVALID, "max_length");
    batch = next_batch();
    FAILS(mmopt_batch_tensors(batch, 2, &tensors, &n), INVALID, "model 2");
    FAILS(mmopt_batch_examples(batch, 2, &examples, &n), INVALID, "model 2");
    mmopt_batch_free(batch);
    CHECK(t == NULL && l == NULL && encoding == NULL && decoded == NULL);
}

/* A trainer of one model: how its creation fails. */
static void refuses(mmopt_model *model, uint32_t code, const char *part)
{
    mmopt_trainer *trainer = NULL;
    FAILS(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &trainer), code, part);
    CHECK(trainer == NULL);
    mmopt_model_free(model);
}

static mmopt_model *with_loss(uint32_t kind, const char *output, size_t n_weights)
{
    static const float weights[3] = {1, 2, 3};
    mmopt_loss_options loss;
    mmopt_model *model = make_model(0);

    mmopt_loss_options_init(&loss);
    loss.kind = kind;
    loss.output = output;
    loss.class_weights = n_weights == 0 ? NULL : weights;
    loss.n_class_weights = n_weights;
    OK(mmopt_model_set_loss(model, &loss));
    return model;
}

static void test_models(void)
{
    mmopt_model *m = NULL, *good = make_model(0);
    mmopt_model_config config;
    mmopt_loss_options loss;
    const char *names[2] = {"x", "x"}, *empty = "";
    char *text = NULL;

    FAILS(mmopt_model_from_directory("", folder, &m), INVALID, "name is empty");
    FAILS(mmopt_model_from_onnx("", "x.onnx", &m), INVALID, "name is empty");
    FAILS(mmopt_model_from_onnx_bytes("", "x", 1, &m), INVALID, "name is empty");
    FAILS(mmopt_model_from_config_json("", "{}", &m), INVALID, "name is empty");
    FAILS(mmopt_model_create("", NULL, &m), INVALID, "name is empty");
    FAILS(mmopt_model_for_corpus("", NULL, tokenizers[0], corpus, &m), INVALID, "name is empty");
    FAILS(mmopt_model_pretrained_for_corpus("", folder, tokenizers[0], corpus, &m), INVALID,
          "name is empty");
    FAILS(mmopt_model_from_config_json("m", "{", &m), DATA, "model 'm': the JSON ends too early");
    FAILS(mmopt_model_from_config_json("m", "{\"model_type\": \"bert\"}", &m), DATA, NULL);
    FAILS(mmopt_model_from_config_json("m", "{\"model_type\": \"none\"}", &m), UNSUPPORTED, "none");
    mmopt_model_config_init(&config);
    config.architecture = 77;
    FAILS(mmopt_model_create("m", &config, &m), INVALID, "architecture");
    mmopt_model_config_init(&config);
    config.n_heads = 5;
    FAILS(mmopt_model_create("m", &config, &m), DATA, NULL);
    FAILS(mmopt_model_label_name(good, 99, &text), NOT_FOUND, "99");
    FAILS(mmopt_model_pretrained_for_corpus("m", "/none", tokenizers[0], corpus, &m), NOT_FOUND,
          "/none");
    FAILS(mmopt_model_set_task(good, 77, 2), INVALID, "task");
    FAILS(mmopt_model_set_task(good, MMOPT_TASK_TOKEN_CLASSIFICATION, 0), INVALID, NULL);
    mmopt_loss_options_init(&loss);
    loss.kind = 77;
    FAILS(mmopt_model_set_loss(good, &loss), INVALID, "kind");
    mmopt_loss_options_init(&loss);
    loss.label_smoothing = 2;
    FAILS(mmopt_model_set_loss(good, &loss), INVALID, "smoothing");
    mmopt_loss_options_init(&loss);
    loss.reserved = 1;
    FAILS(mmopt_model_set_loss(good, &loss), UNSUPPORTED, "reserved");
    FAILS(mmopt_model_set_weight(good, -1), INVALID, NULL);
    FAILS(mmopt_model_set_dropout(good, 1), INVALID, NULL);
    FAILS(mmopt_model_freeze(good, "\xff"), INVALID, "UTF-8");
    FAILS(mmopt_model_train_only(good, "\xff"), INVALID, "UTF-8");
    FAILS(mmopt_model_set_fresh_head(good, 2), INVALID, NULL);
    FAILS(mmopt_model_set_fresh_weights(good, 2), INVALID, NULL);
    FAILS(mmopt_model_set_label_names(good, names, 0), INVALID, "n is 0");
    FAILS(mmopt_model_set_label_names(good, names, 2), INVALID, "twice");
    FAILS(mmopt_model_set_label_names(good, &empty, 1), INVALID, "empty");
    FAILS(mmopt_model_set_precomputed_gradients(good, NULL), INVALID, NULL);
    FAILS(mmopt_model_add_adapters(good, NULL), INVALID, "target_modules");
    FAILS(mmopt_model_load_adapters(good, "\xff"), INVALID, "UTF-8");
    FAILS(mmopt_model_set_shared_initializers(good, 77), INVALID, NULL);
    FAILS(mmopt_model_set_duplicate_weights(good, 77), INVALID, NULL);
    FAILS(mmopt_model_set_restore_names(good, 2), INVALID, NULL);
    FAILS(mmopt_model_freeze_row(good, "\xff", 0), INVALID, "UTF-8");
    mmopt_model_free(good);

    /* A loss that does not fit the model fails the trainer's creation. */
    refuses(with_loss(MMOPT_LOSS_QUESTION_ANSWERING, NULL, 0), NOT_FOUND, "'start_logits' and 'end_logits'");
    refuses(with_loss(MMOPT_LOSS_SEQUENCE_CLASSIFICATION, "none", 0), NOT_FOUND, "no output 'none'");
    refuses(with_loss(MMOPT_LOSS_OUTPUT, "none", 0), NOT_FOUND, "no output 'none'");
    refuses(with_loss(MMOPT_LOSS_TOKEN_CLASSIFICATION, NULL, 0), SHAPE, "logits");
    refuses(with_loss(MMOPT_LOSS_SEQUENCE_CLASSIFICATION, NULL, 3), SHAPE,
            "model 'bert': 3 class weights given for 2 classes");
    refuses(with_loss(MMOPT_LOSS_SEQUENCE_CLASSIFICATION, NULL, 1), SHAPE, "1 class weight given");
    OK(mmopt_model_from_directory("m", "/none", &m));
    refuses(m, NOT_FOUND, "/none");
    m = make_model(0);
    OK(mmopt_model_freeze_row(m, "nothing like it", 0));
    refuses(m, NOT_FOUND, "nothing like it");
    CHECK(text == NULL);
}

static void test_trainer(void)
{
    mmopt_trainer *trainer = make_trainer(NULL);
    mmopt_batch *batch = next_batch();
    const mmopt_tensor *good = NULL;
    mmopt_tensor t[4], view;
    mmopt_train_result result = {0, 0, 0, 0};
    mmopt_rates rates;
    mmopt_evaluation *evaluation = NULL;
    double scores[3] = {1, 1, 1}, nan = 0.0;
    size_t n = 0, index = 0;
    char *text = NULL, *json = NULL;
    uint32_t trainable = 0;
    float value = 0;

    nan /= nan;
    memset(&rates, 0, sizeof rates);
    OK(mmopt_batch_tensors(batch, 0, &good, &n));
    CHECK(n == 4);
    int64_t shape[2] = {good[0].shape[0], good[0].shape[1] - 1};
    /* A mask of another shape than the ids, and labels of another task: both are named. */
    memcpy(t, good, sizeof t);
    for (size_t i = 0; i < n; i++)
        if (strcmp(t[i].name, "attention_mask") == 0) {
            t[i].shape = shape;
            t[i].n_bytes = (size_t)(shape[0] * shape[1]) * sizeof(int64_t);
        }
    FAILS(mmopt_trainer_forward_backward(trainer, 0, t, n, &result), SHAPE, "'attention_mask'");
    FAILS(mmopt_trainer_forward_backward(trainer, 0, t, n, &result), SHAPE, "'input_ids'");
    FAILS(mmopt_trainer_forward_backward(trainer, 0, t, n, &result), SHAPE, "model 'bert'");
    FAILS(mmopt_trainer_evaluate(trainer, 0, t, n, &evaluation), SHAPE, "'attention_mask'");
    memcpy(t, good, sizeof t);
    for (size_t i = 0; i < n; i++)
        if (strcmp(t[i].name, "labels") == 0)
            t[i] = good[0], t[i].name = "labels";
    FAILS(mmopt_trainer_forward_backward(trainer, 0, t, n, &result), SHAPE,
          "model 'bert': the batch's 'labels' must have shape [batch], but has [8, ");
    FAILS(mmopt_trainer_forward_backward(trainer, 0, t, n, &result), SHAPE,
          "the model learns sequence classification");
    /* Fewer labels than rows. */
    memcpy(t, good, sizeof t);
    int64_t fewer = good[0].shape[0] - 1;
    for (size_t i = 0; i < n; i++)
        if (strcmp(t[i].name, "labels") == 0) {
            t[i].shape = &fewer;
            t[i].n_bytes = (size_t)fewer * sizeof(int64_t);
        }
    FAILS(mmopt_trainer_forward_backward(trainer, 0, t, n, &result), SHAPE, "'labels'");

    FAILS(mmopt_trainer_model_index(trainer, "none", &index), NOT_FOUND, "none");
    FAILS(mmopt_trainer_prepare(trainer, 0, t, 0), NOT_FOUND, NULL);
    FAILS(mmopt_trainer_forward_backward(trainer, 2, good, n, &result), INVALID, "model 2");
    FAILS(mmopt_trainer_forward_backward(trainer, 0, good, 0, &result), NOT_FOUND, "input_ids");
    FAILS(mmopt_trainer_step(trainer, NULL), STATE, NULL);
    FAILS(mmopt_trainer_log_metrics(trainer, scores, 3), INVALID, NULL);
    FAILS(mmopt_trainer_rates(trainer, 2, &rates), INVALID, "model 2");
    FAILS(mmopt_trainer_set_learning_rate(trainer, -1), INVALID, NULL);
    FAILS(mmopt_trainer_set_model_weight(trainer, 2, 1), INVALID, "model 2");
    FAILS(mmopt_trainer_set_model_weight(trainer, 0, -1), INVALID, NULL);
    FAILS(mmopt_trainer_report_validation(trainer, scores, 3), INVALID, "3 validation scores");
    scores[0] = nan;
    FAILS(mmopt_trainer_report_validation(trainer, scores, 2), INVALID, NULL);
    FAILS(mmopt_trainer_metrics_json(trainer, &json), STATE, NULL);
    FAILS(mmopt_trainer_parameter_index(trainer, 0, "none", &index), NOT_FOUND, "none");
    FAILS(mmopt_trainer_parameter_index(trainer, 2, "none", &index), INVALID, "model 2");
    FAILS(mmopt_trainer_parameter(trainer, 0, 9999, &view, &trainable), INVALID, NULL);
    FAILS(mmopt_trainer_set_parameter(trainer, 0, 9999, &value, 4), INVALID, NULL);
    FAILS(mmopt_trainer_set_parameter(trainer, 0, 0, &value, 4), SHAPE, NULL);
    FAILS(mmopt_trainer_gradient(trainer, 0, 9999, &view), INVALID, NULL);
    FAILS(mmopt_trainer_gradient(trainer, 0, 0, &view), STATE, NULL);
    FAILS(mmopt_trainer_set_gradient(trainer, 0, 0, &value, 4), STATE, NULL);
    FAILS(mmopt_trainer_set_trainable(trainer, "*", "*", 2, NULL), INVALID, NULL);
    FAILS(mmopt_trainer_model_report(trainer, 2, &text), INVALID, "model 2");
    FAILS(mmopt_trainer_model_report_json(trainer, 2, &json), INVALID, "model 2");
    FAILS(mmopt_trainer_save_model(trainer, 2, folder), INVALID, "model 2");
    FAILS(mmopt_trainer_save_model(trainer, 0, "/proc/none/x"), IO, "/proc/none");
    FAILS(mmopt_trainer_save_adapters(trainer, 2, "x"), INVALID, "model 2");
    FAILS(mmopt_trainer_save_adapters(trainer, 0, "x"), STATE, "no adapters");
    FAILS(mmopt_trainer_save_onnx(trainer, 2, "x"), INVALID, "model 2");
    FAILS(mmopt_trainer_save_onnx(trainer, 0, "/proc/none/x"), IO, "/proc/none");
    FAILS(mmopt_trainer_resume(trainer, "/none", NULL), NOT_FOUND, "/none");
    FAILS(mmopt_trainer_save_checkpoint(trainer, "/proc/none/x", NULL), IO, "/proc/none");
    FAILS(mmopt_checkpoint_list("/none", NULL, &json), NOT_FOUND, "/none");
    FAILS(mmopt_checkpoint_prune("/none", 0, NULL), INVALID, "keep_last");
    FAILS(mmopt_checkpoint_prune("/none", 1, NULL), NOT_FOUND, "/none");
    FAILS(mmopt_trainer_set_log_callback(trainer, 77, NULL, NULL), INVALID, "level");
    FAILS(mmopt_trainer_use_ema_weights(trainer, 2), INVALID, NULL);
    OK(mmopt_trainer_forward_backward(trainer, 0, good, n, &result));
    FAILS(mmopt_trainer_save_checkpoint(trainer, in_folder(folder, "run"), NULL), STATE, NULL);
    CHECK(text == NULL && json == NULL && evaluation == NULL);
    mmopt_batch_free(batch);
    mmopt_trainer_free(trainer);
}

static void test_metrics(void)
{
    const int64_t a[2] = {0, 1}, far[2] = {0, 7};
    const char *tags[2] = {"O", "B-X"};
    mmopt_entity_scores scores;
    mmopt_regression_scores numbers;
    uint64_t matrix[4];
    uint64_t none[1] = {0};
    double value = 0, values[1] = {0}, nan = 0.0;

    nan /= nan;
    memset(&scores, 0, sizeof scores);
    memset(&numbers, 0, sizeof numbers);
    FAILS(mmopt_metrics_entities(a, a, 1, 0, tags, 2, &scores, NULL), INVALID, NULL);
    FAILS(mmopt_metrics_entities(far, a, 1, 2, tags, 2, &scores, NULL), INVALID, "7");
    FAILS(mmopt_metrics_strict_entities(far, a, 1, 2, tags, 2, &scores, NULL), INVALID, "7");
    FAILS(mmopt_metrics_confusion_matrix(far, a, 2, 2, matrix), INVALID, "7");
    FAILS(mmopt_scores_confusion_matrix("{", 2, matrix), DATA, "the scores: the JSON ends too early");
    FAILS(mmopt_scores_confusion_matrix("{}", 2, matrix), NOT_FOUND, NULL);
    FAILS(mmopt_scores_confusion_matrix("{\"confusion_matrix\": [[1]]}", 2, matrix), INVALID, NULL);
    FAILS(mmopt_scores_confusion_matrix("{\"confusion_matrix\": 7}", 2, matrix), DATA, NULL);
    FAILS(mmopt_metrics_regression(values, values, 0, &numbers), INVALID, NULL);
    FAILS(mmopt_metrics_regression(&nan, values, 1, &numbers), INVALID, NULL);
    FAILS(mmopt_metrics_perplexity(values, none, 1, &value), INVALID, NULL);
    none[0] = 1;
    FAILS(mmopt_metrics_perplexity(&nan, none, 1, &value), INVALID, NULL);
}

static void test_optimizer(void)
{
    float values[4] = {0, 0, 0, 0}, gradients[4] = {1, 1, 1, 1};
    const int64_t shape[1] = {4}, repeat[1] = {0}, two[2] = {1, 1};
    mmopt_parameter p;
    mmopt_model_parameters model;
    mmopt_optimizer *o = NULL;
    mmopt_rates rates;
    double scores[1] = {1};
    char *json = NULL;

    memset(&p, 0, sizeof p);
    memset(&model, 0, sizeof model);
    memset(&rates, 0, sizeof rates);
    p.name = "w";
    p.shape = shape;
    p.n_dims = 1;
    p.data = values;
    p.gradient = gradients;
    p.gradient_dtype = MMOPT_DTYPE_F32;
    p.trainable = 1;
    model.name = "";
    model.parameters = &p;
    model.n_parameters = 1;
    model.weight = 1;
    FAILS(mmopt_optimizer_create(NULL, &model, 1, &o), INVALID, "name is empty");
    model.name = "m";
    p.role_json = "{\"role\": \"attention_everything\", \"part\": \"weight\"}";
    FAILS(mmopt_optimizer_create(NULL, &model, 1, &o), INVALID, "role_json");
    p.role_json = NULL;
    FAILS(mmopt_optimizer_create(NULL, &model, 0, &o), INVALID, NULL);
    CHECK(o == NULL);
    OK(mmopt_optimizer_create(NULL, &model, 1, &o));
    FAILS(mmopt_optimizer_set_gradient(o, 1, 0, gradients, MMOPT_DTYPE_F32), INVALID, NULL);
    FAILS(mmopt_optimizer_set_gradient(o, 0, 1, gradients, MMOPT_DTYPE_F32), INVALID, NULL);
    FAILS(mmopt_optimizer_set_gradient(o, 0, 0, gradients, 99), INVALID, NULL);
    FAILS(mmopt_optimizer_set_gradient(o, 0, 0, gradients, MMOPT_DTYPE_I64), UNSUPPORTED, NULL);
    FAILS(mmopt_optimizer_set_gradient_strided(o, 0, 0, gradients, MMOPT_DTYPE_F32, two, 2), SHAPE, NULL);
    FAILS(mmopt_optimizer_set_data(o, 0, 0, values, repeat, 1), UNSUPPORTED, NULL);
    FAILS(mmopt_optimizer_set_data(o, 0, 0, NULL, NULL, 0), INVALID, NULL);
    FAILS(mmopt_optimizer_set_data(o, 0, 0, values, two, 2), SHAPE, NULL);
    FAILS(mmopt_optimizer_accumulate(o, 1, 0), INVALID, NULL);
    FAILS(mmopt_optimizer_accumulate_weighted(o, 0, 0, -1), INVALID, NULL);
    FAILS(mmopt_optimizer_step(o, NULL), STATE, NULL);
    OK(mmopt_optimizer_accumulate(o, 0, 0));
    FAILS(mmopt_optimizer_accumulate(o, 0, 0), STATE, NULL);
    FAILS(mmopt_optimizer_rates(o, 1, &rates), INVALID, NULL);
    FAILS(mmopt_optimizer_set_learning_rate(o, -1), INVALID, NULL);
    FAILS(mmopt_optimizer_set_model_weight(o, 1, 1), INVALID, NULL);
    FAILS(mmopt_optimizer_report_validation(o, scores, 0), INVALID, NULL);
    FAILS(mmopt_optimizer_metrics_json(o, &json), STATE, NULL);
    FAILS(mmopt_optimizer_resume(o, "/none"), NOT_FOUND, "/none");
    CHECK(json == NULL);
    mmopt_optimizer_free(o);
}

int main(int argc, char **argv)
{
    if (argc < 2 || getenv("MMOPT_ORT_LIB") == NULL) {
        printf("not run: no ONNX Runtime\n");
        return 0;
    }
    folder = argv[1];
    make_data();
    test_corpora();
    test_tokenizers();
    test_models();
    test_trainer();
    test_metrics();
    test_optimizer();
    free_data();
    return finish();
}
