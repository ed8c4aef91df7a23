/* Session mode: models, options, the training loop, parameters, callbacks, cancelling. */
#include "tiny.h"

#include <math.h>

static void test_nulls(void)
{
    mmopt_trainer *trainer = NULL;
    mmopt_model *model = NULL;
    mmopt_evaluation *evaluation = NULL;
    mmopt_cancel_token *cancel_token = NULL;
    mmopt_tensor tensor;
    mmopt_rates rates;
    const mmopt_tensor *tensors = NULL;
    const mmopt_model *none[1] = {NULL};
    char *text = NULL;
    size_t n = 0;

    mmopt_trainer_free(NULL);
    mmopt_model_free(NULL);
    mmopt_evaluation_free(NULL);
    mmopt_cancel_token_free(NULL);
    mmopt_trainer_options_init(NULL, 0);
    mmopt_model_config_init(NULL);
    mmopt_loss_options_init(NULL);
    REFUSES_NULL(mmopt_model_from_directory(NULL, "x", &model));
    REFUSES_NULL(mmopt_model_from_directory("x", NULL, &model));
    REFUSES_NULL(mmopt_model_from_directory("x", "x", NULL));
    REFUSES_NULL(mmopt_model_from_onnx(NULL, "x", &model));
    REFUSES_NULL(mmopt_model_from_onnx("x", NULL, &model));
    REFUSES_NULL(mmopt_model_from_onnx("x", "x", NULL));
    REFUSES_NULL(mmopt_model_from_onnx_bytes(NULL, "x", 1, &model));
    REFUSES_NULL(mmopt_model_from_onnx_bytes("x", NULL, 1, &model));
    REFUSES_NULL(mmopt_model_from_onnx_bytes("x", "x", 1, NULL));
    REFUSES_NULL(mmopt_model_from_config_json(NULL, "{}", &model));
    REFUSES_NULL(mmopt_model_from_config_json("x", NULL, &model));
    REFUSES_NULL(mmopt_model_create(NULL, NULL, &model));
    REFUSES_NULL(mmopt_model_create("x", NULL, NULL));
    REFUSES_NULL(mmopt_model_for_corpus(NULL, NULL, tokenizers[0], corpus, &model));
    REFUSES_NULL(mmopt_model_for_corpus("x", NULL, NULL, corpus, &model));
    REFUSES_NULL(mmopt_model_for_corpus("x", NULL, tokenizers[0], NULL, &model));
    REFUSES_NULL(mmopt_model_for_corpus("x", NULL, tokenizers[0], corpus, NULL));
    REFUSES_NULL(mmopt_model_set_task(NULL, 1, 2));
    REFUSES_NULL(mmopt_model_set_loss(NULL, NULL));
    REFUSES_NULL(mmopt_model_set_weight(NULL, 1));
    REFUSES_NULL(mmopt_model_set_dropout(NULL, 0));
    REFUSES_NULL(mmopt_model_set_seed(NULL, 0));
    REFUSES_NULL(mmopt_model_set_tokenizer(NULL, tokenizers[0]));
    REFUSES_NULL(mmopt_model_set_fresh_head(NULL, 1));
    REFUSES_NULL(mmopt_model_set_fresh_weights(NULL, 1));
    REFUSES_NULL(mmopt_model_set_label_names(NULL, NULL, 0));
    REFUSES_NULL(mmopt_model_freeze(NULL, "*"));
    REFUSES_NULL(mmopt_model_train_only(NULL, "*"));
    REFUSES_NULL(mmopt_model_label_name(NULL, 0, &text));
    REFUSES_NULL(mmopt_trainer_create(NULL, NULL, 1, &trainer));
    REFUSES_NULL(mmopt_trainer_create(NULL, none, 1, &trainer));
    FAILS(mmopt_trainer_create(NULL, none, 0, &trainer), MMOPT_CODE_INVALID_ARGUMENT,
          "at least one model");
    REFUSES_NULL(mmopt_trainer_model_index(NULL, "x", &n));
    REFUSES_NULL(mmopt_trainer_zero_grad(NULL));
    REFUSES_NULL(mmopt_trainer_forward_backward(NULL, 0, NULL, 0, NULL));
    REFUSES_NULL(mmopt_trainer_forward_backward_all(NULL, NULL, NULL, 0, NULL));
    REFUSES_NULL(mmopt_trainer_forward_backward_batch(NULL, NULL, NULL));
    REFUSES_NULL(mmopt_trainer_log_metrics(NULL, NULL, 0));
    REFUSES_NULL(mmopt_trainer_step(NULL, NULL));
    REFUSES_NULL(mmopt_trainer_evaluate(NULL, 0, NULL, 0, &evaluation));
    REFUSES_NULL(mmopt_trainer_plan(NULL, &text));
    REFUSES_NULL(mmopt_trainer_plan_json(NULL, &text));
    REFUSES_NULL(mmopt_trainer_memory_report(NULL, NULL, NULL, 0, &text));
    REFUSES_NULL(mmopt_trainer_rates(NULL, 0, &rates));
    REFUSES_NULL(mmopt_trainer_set_learning_rate(NULL, 1));
    REFUSES_NULL(mmopt_trainer_set_model_weight(NULL, 0, 1));
    REFUSES_NULL(mmopt_trainer_set_rate_callback(NULL, NULL, NULL));
    REFUSES_NULL(mmopt_trainer_set_log_callback(NULL, 0, NULL, NULL));
    REFUSES_NULL(mmopt_trainer_set_progress_callback(NULL, NULL, NULL));
    REFUSES_NULL(mmopt_trainer_save_model(NULL, 0, "x"));
    REFUSES_NULL(mmopt_trainer_save_onnx(NULL, 0, "x"));
    REFUSES_NULL(mmopt_trainer_save_checkpoint(NULL, "x", NULL));
    REFUSES_NULL(mmopt_trainer_resume(NULL, "x", NULL));
    REFUSES_NULL(mmopt_trainer_cancel_token(NULL, &cancel_token));
    REFUSES_NULL(mmopt_trainer_parameter_index(NULL, 0, "x", &n));
    REFUSES_NULL(mmopt_trainer_parameter(NULL, 0, 0, &tensor, NULL));
    REFUSES_NULL(mmopt_trainer_set_parameter(NULL, 0, 0, "x", 1));
    REFUSES_NULL(mmopt_trainer_gradient(NULL, 0, 0, &tensor));
    REFUSES_NULL(mmopt_trainer_set_gradient(NULL, 0, 0, "x", 1));
    REFUSES_NULL(mmopt_trainer_set_trainable(NULL, "*", "*", 0, NULL));
    REFUSES_NULL(mmopt_cancel_token_cancel(NULL));
    REFUSES_NULL(mmopt_cancel_token_reset(NULL));
    REFUSES_NULL(mmopt_evaluation_tensors(NULL, &tensors, &n));
    CHECK(isnan(mmopt_evaluation_loss(NULL)) && mmopt_evaluation_n_correct(NULL) == 0);
    CHECK(mmopt_evaluation_n_labels(NULL) == 0 && mmopt_trainer_n_models(NULL) == 0);
    CHECK(mmopt_trainer_model_name(NULL, 0) == NULL && mmopt_trainer_n_steps(NULL) == 0);
    CHECK(mmopt_trainer_n_parameters(NULL, 0) == 0);
    CHECK(trainer == NULL && model == NULL && evaluation == NULL && text == NULL);
}

static void test_models(void)
{
    mmopt_model *model = make_model(0), *other = NULL;
    mmopt_loss_options loss;
    mmopt_model_config sizes;
    char *text = NULL;
    const float weights[2] = {1, 2};

    OK(mmopt_model_label_name(model, 1, &text));
    CHECK(strcmp(text, "1") == 0);
    mmopt_string_free(text);
    FAILS(mmopt_model_label_name(model, 2, &text), MMOPT_CODE_NOT_FOUND, "label 2");
    REFUSES_NULL(mmopt_model_label_name(model, 0, NULL));
    FAILS(mmopt_model_set_task(model, 9, 2), MMOPT_CODE_INVALID_ARGUMENT, "task is 9");
    FAILS(mmopt_model_set_task(model, MMOPT_TASK_TOKEN_CLASSIFICATION, 0),
          MMOPT_CODE_INVALID_ARGUMENT, "n_labels");
    FAILS(mmopt_model_set_weight(model, -1), MMOPT_CODE_INVALID_ARGUMENT, "weight");
    FAILS(mmopt_model_set_weight(model, NAN), MMOPT_CODE_INVALID_ARGUMENT, "weight");
    FAILS(mmopt_model_set_dropout(model, 1), MMOPT_CODE_INVALID_ARGUMENT, "dropout");
    REFUSES_NULL(mmopt_model_freeze(model, NULL));
    REFUSES_NULL(mmopt_model_train_only(model, NULL));
    FAILS(mmopt_model_freeze(model, "\xff"), MMOPT_CODE_INVALID_ARGUMENT, "UTF-8");
    mmopt_loss_options_init(&loss);
    loss.kind = 0;
    FAILS(mmopt_model_set_loss(model, &loss), MMOPT_CODE_INVALID_ARGUMENT, "kind is 0");
    loss.kind = MMOPT_LOSS_OUTPUT;
    FAILS(mmopt_model_set_loss(model, &loss), MMOPT_CODE_INVALID_ARGUMENT, "output");
    loss.kind = MMOPT_LOSS_SEQUENCE_CLASSIFICATION;
    loss.n_class_weights = 2;
    REFUSES_NULL(mmopt_model_set_loss(model, &loss));
    loss.class_weights = weights;
    OK(mmopt_model_set_loss(model, &loss));
    mmopt_model_free(model);

    FAILS(mmopt_model_from_config_json("x", "{", &other), MMOPT_CODE_INVALID_DATA, "JSON");
    FAILS(mmopt_model_from_config_json("x", "{\"model_type\": \"yak\"}", &other),
          MMOPT_CODE_UNSUPPORTED, "yak");
    mmopt_model_config_init(&sizes);
    sizes.n_heads = 3;
    FAILS(mmopt_model_create("x", &sizes, &other), MMOPT_CODE_INVALID_DATA, "multiple");
    sizes.architecture = 77;
    FAILS(mmopt_model_create("x", &sizes, &other), MMOPT_CODE_INVALID_ARGUMENT, "is 77");
    CHECK(other == NULL);
}

static void test_options(void)
{
    mmopt_model *model = make_model(0);
    const mmopt_model *twice[2] = {model, model};
    mmopt_model *lost = NULL;
    mmopt_trainer *trainer = NULL;
    mmopt_trainer_options o;

    FAILS(mmopt_trainer_create(NULL, twice, 2, &trainer), MMOPT_CODE_INVALID_ARGUMENT,
          "named 'bert'");
    mmopt_trainer_options_init(&o, MMOPT_PRESET_PAPER);
    CHECK(o.share_policy == MMOPT_SHARE_POLICY_PAPER && o.share_rule == MMOPT_SHARE_RULE_SUM);
    CHECK(o.max_grad_norm == 0 && o.non_finite == MMOPT_NON_FINITE_IGNORE);
    mmopt_trainer_options_init(&o, 77);
    FAILS(mmopt_trainer_create(&o, twice, 1, &trainer), MMOPT_CODE_INVALID_ARGUMENT,
          "preset is 77");
#define REFUSES_OPTION(field, value, code, part)                          \
    do {                                                                  \
        mmopt_trainer_options_init(&o, MMOPT_PRESET_DEFAULT);             \
        o.field = (value);                                                \
        FAILS(mmopt_trainer_create(&o, twice, 1, &trainer), code, part);  \
    } while (0)
    REFUSES_OPTION(struct_size, 3, MMOPT_CODE_INVALID_ARGUMENT, "struct_size");
    REFUSES_OPTION(tf32, 2, MMOPT_CODE_INVALID_ARGUMENT, "tf32");
    REFUSES_OPTION(share_policy, 9, MMOPT_CODE_INVALID_ARGUMENT, "share_policy");
    REFUSES_OPTION(share_rule, 9, MMOPT_CODE_INVALID_ARGUMENT, "share_rule");
    REFUSES_OPTION(adaptive_lr, 9, MMOPT_CODE_INVALID_ARGUMENT, "adaptive_lr");
    REFUSES_OPTION(lr_schedule, 9, MMOPT_CODE_INVALID_ARGUMENT, "lr_schedule");
    REFUSES_OPTION(device, 9, MMOPT_CODE_INVALID_ARGUMENT, "device");
    REFUSES_OPTION(non_finite, 3, MMOPT_CODE_INVALID_ARGUMENT, "non_finite");
    REFUSES_OPTION(learning_rate, -1, MMOPT_CODE_INVALID_ARGUMENT, "learning_rate");
    REFUSES_OPTION(learning_rate, NAN, MMOPT_CODE_INVALID_ARGUMENT, "learning_rate");
    REFUSES_OPTION(beta1, 1, MMOPT_CODE_INVALID_ARGUMENT, "beta1");
    REFUSES_OPTION(beta2, -0.5, MMOPT_CODE_INVALID_ARGUMENT, "beta2");
    REFUSES_OPTION(eps, -1, MMOPT_CODE_INVALID_ARGUMENT, "eps");
    REFUSES_OPTION(weight_decay, -1, MMOPT_CODE_INVALID_ARGUMENT, "weight_decay");
    REFUSES_OPTION(max_grad_norm, -1, MMOPT_CODE_INVALID_ARGUMENT, "max_grad_norm");
    REFUSES_OPTION(share_alpha, 2, MMOPT_CODE_INVALID_ARGUMENT, "share_alpha");
    REFUSES_OPTION(sync_beta, 2, MMOPT_CODE_INVALID_ARGUMENT, "sync_beta");
    REFUSES_OPTION(gradient_accumulation_steps, 0, MMOPT_CODE_INVALID_ARGUMENT,
                   "gradient_accumulation_steps");
    REFUSES_OPTION(n_threads, 5000, MMOPT_CODE_INVALID_ARGUMENT, "n_threads");
    REFUSES_OPTION(min_lr_ratio, 2, MMOPT_CODE_INVALID_ARGUMENT, "min_lr_ratio");
    REFUSES_OPTION(lr_schedule, MMOPT_LR_SCHEDULE_COSINE, MMOPT_CODE_INVALID_ARGUMENT,
                   "total_steps");
    REFUSES_OPTION(share_policy, MMOPT_SHARE_POLICY_CUSTOM, MMOPT_CODE_INVALID_ARGUMENT,
                   "share_groups");
    REFUSES_OPTION(share_rule, MMOPT_SHARE_RULE_INFLUENCE, MMOPT_CODE_INVALID_ARGUMENT,
                   "share_influence");
    REFUSES_OPTION(options_json, "[", MMOPT_CODE_INVALID_ARGUMENT, "options_json: not JSON");
    REFUSES_OPTION(options_json, "{\"x\": 1}", MMOPT_CODE_INVALID_ARGUMENT, "unknown key 'x'");
    REFUSES_OPTION(options_json, "{\"param_groups\": [{\"patern\": \"*bias\"}]}",
                   MMOPT_CODE_INVALID_ARGUMENT, "param_groups[0]; the nearest known one is");

    OK(mmopt_model_from_directory("lost", "/nonexistent", &lost));
    twice[1] = lost;
    FAILS(mmopt_trainer_create(NULL, twice, 2, &trainer), MMOPT_CODE_NOT_FOUND, "model 'lost'");
    mmopt_model_free(lost);
    OK(mmopt_model_from_onnx_bytes("junk", "junk", 4, &lost));
    OK(mmopt_model_set_loss(lost, NULL));
    twice[1] = lost;
    FAILS(mmopt_trainer_create(NULL, twice, 2, &trainer), MMOPT_CODE_INVALID_DATA, "model 'junk'");
    mmopt_model_free(lost);
    CHECK(trainer == NULL);
    mmopt_model_free(model);
}

/* Options that act on reported scores, and those whose result is read. */
static void test_feedback(void)
{
    mmopt_trainer_options options;
    mmopt_trainer *trainer = NULL;
    mmopt_rates before, after;
    const double scores[2] = {0.9, 0.5}, wrong[2] = {0.5, NAN};
    mmopt_tensor tensor;
    uint32_t trainable = 9;
    size_t n_changed = 0;
    char *json = NULL;

    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    trainer = make_trainer(&options);
    FAILS(mmopt_trainer_metrics_json(trainer, &json), MMOPT_CODE_STATE, "metrics_every is 0");
    mmopt_trainer_free(trainer);

    options.lr_schedule = MMOPT_LR_SCHEDULE_PLATEAU;
    options.options_json = "{\"weighting\": \"validation\", \"metrics_every\": 1, "
                           "\"plateau\": {\"factor\": 0.5, \"patience\": 0}}";
    trainer = make_trainer(&options);
    FAILS(mmopt_trainer_metrics_json(trainer, &json), MMOPT_CODE_STATE, "no step");
    FAILS(mmopt_trainer_report_validation(trainer, scores, 1), MMOPT_CODE_INVALID_ARGUMENT,
          "1 validation score");
    FAILS(mmopt_trainer_report_validation(trainer, wrong, 2), MMOPT_CODE_INVALID_ARGUMENT,
          "finite");
    REFUSES_NULL(mmopt_trainer_report_validation(trainer, NULL, 2));
    REFUSES_NULL(mmopt_trainer_report_validation(NULL, scores, 2));
    OK(mmopt_trainer_rates(trainer, 0, &before));
    OK(mmopt_trainer_report_validation(trainer, scores, 2));
    OK(mmopt_trainer_report_validation(trainer, scores, 2));
    for (int i = 0; i < 2; i++) {
        mmopt_batch *batch = next_batch();
        OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
        OK(mmopt_trainer_step(trainer, NULL));
        mmopt_batch_free(batch);
    }
    OK(mmopt_trainer_rates(trainer, 0, &after));
    CHECK(before.weight == 0.5 && after.weight > 0.55);
    CHECK(before.schedule == 1 && after.schedule == 0.5);
    OK(mmopt_trainer_metrics_json(trainer, &json));
    CHECK(strstr(json, "\"step\":2") != NULL && strstr(json, "\"models\":[\"bert\",\"gpt2\"]") != NULL);
    CHECK(strstr(json, "\"groups\":[{\"cosine\":[[1.0,") != NULL);
    mmopt_string_free(json);
    REFUSES_NULL(mmopt_trainer_metrics_json(trainer, NULL));
    REFUSES_NULL(mmopt_trainer_metrics_json(NULL, &json));

    /* What a call froze is what the parameter tells. */
    OK(mmopt_trainer_parameter(trainer, 0, 0, &tensor, &trainable));
    CHECK(trainable == 1);
    OK(mmopt_trainer_set_trainable(trainer, "bert", tensor.name, 0, &n_changed));
    OK(mmopt_trainer_parameter(trainer, 0, 0, &tensor, &trainable));
    CHECK(n_changed == 1 && trainable == 0);
    OK(mmopt_trainer_set_trainable(trainer, "bert", tensor.name, 1, NULL));
    OK(mmopt_trainer_parameter(trainer, 0, 0, &tensor, &trainable));
    CHECK(trainable == 1);
    mmopt_trainer_free(trainer);
}

/* Models are evaluated by the running means of their weights. */
static void test_ema(void)
{
    mmopt_trainer_options options;
    mmopt_tensor tensor;
    mmopt_batch *batch = next_batch();
    float found[3] = {0, 0, 0};

    mmopt_trainer_options_init(&options, MMOPT_PRESET_INDEPENDENT);
    options.learning_rate = 0.01;
    mmopt_trainer *trainer = make_trainer(&options);
    OK(mmopt_trainer_use_ema_weights(trainer, 0));
    FAILS(mmopt_trainer_use_ema_weights(trainer, 1), MMOPT_CODE_STATE, "ema_decay");
    FAILS(mmopt_trainer_use_ema_weights(trainer, 2), MMOPT_CODE_INVALID_ARGUMENT, "on is 2");
    REFUSES_NULL(mmopt_trainer_use_ema_weights(NULL, 1));
    mmopt_trainer_free(trainer);

    options.options_json = "{\"ema_decay\": 0.9}";
    trainer = make_trainer(&options);
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    OK(mmopt_trainer_step(trainer, NULL));
    OK(mmopt_trainer_parameter(trainer, 0, 0, &tensor, NULL));
    /* One in the middle: the first row, of the padding token, stays zero. */
    const char *middle = (const char *)tensor.data + tensor.n_bytes / 8 * 4;
    memcpy(&found[0], middle, sizeof(float));
    OK(mmopt_trainer_use_ema_weights(trainer, 1));
    memcpy(&found[1], middle, sizeof(float));
    FAILS(mmopt_trainer_forward_backward_batch(trainer, batch, NULL), MMOPT_CODE_STATE,
          "use_ema_weights");
    OK(mmopt_trainer_use_ema_weights(trainer, 0));
    memcpy(&found[2], middle, sizeof(float));
    CHECK(found[0] == found[2] && found[0] != found[1]);
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    mmopt_batch_free(batch);
    mmopt_trainer_free(trainer);
    OK(mmopt_loader_set_epoch(loader, 0));
}

/* Models learn from each other, with labels and without. */
static void test_mutual(void)
{
    static const char *const unlabelled[] = {"a fine film", "dull and long"};
    mmopt_trainer_options options;
    mmopt_train_result results[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    mmopt_batch *batch = next_batch();

    mmopt_trainer_options_init(&options, MMOPT_PRESET_INDEPENDENT);
    mmopt_trainer *trainer = make_trainer(&options);
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, results));
    CHECK(results[0].mutual_loss == 0 && results[1].mutual_loss == 0);
    mmopt_trainer_free(trainer);
    options.options_json = "{\"mutual\": {\"teacher\": \"peers\"}}";
    trainer = make_trainer(&options);
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, results));
    for (int i = 0; i < 2; i++)
        CHECK(results[i].n_labels == 8 && results[i].mutual_loss > 0);
    OK(mmopt_trainer_step(trainer, NULL));
    mmopt_batch_free(batch);
    OK(mmopt_batch_encode((const mmopt_tokenizer *const *)tokenizers, 2, unlabelled, 2, 0, &batch));
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, results));
    for (int i = 0; i < 2; i++)
        CHECK(results[i].n_labels == 0 && results[i].loss == 0 && results[i].mutual_loss > 0);
    OK(mmopt_trainer_step(trainer, NULL));
    mmopt_batch_free(batch);
    mmopt_trainer_free(trainer);
    OK(mmopt_loader_set_epoch(loader, 0));
}

/* Tokens of another model's tokenizer, and classes in another order. */
static void test_other_names(void)
{
    static const char *const texts[] = {"a fine film", "dull and long"};
    const mmopt_tokenizer *swapped[2] = {tokenizers[1], tokenizers[0]};
    mmopt_trainer *trainer = make_trainer(NULL);
    mmopt_predictions *predictions = NULL;
    mmopt_corpus *names = NULL, *other = NULL;
    mmopt_loader *loaders[2] = {NULL, NULL};
    mmopt_batch *batch = NULL;
    mmopt_scores scores;
    const char *const order[] = {"1", "0"};
    const char *const labels[] = {"0", "1"};

    OK(mmopt_batch_encode(swapped, 2, texts, 2, 0, &batch));
    FAILS(mmopt_trainer_forward_backward_batch(trainer, batch, NULL), MMOPT_CODE_INVALID_ARGUMENT,
          "model 'bert': its vocabulary is another");
    mmopt_batch_free(batch);
    OK(mmopt_loader_create(corpus, swapped, 2, NULL, &loaders[0]));
    FAILS(mmopt_trainer_evaluate_loader(trainer, 1, loaders[0], NULL, &scores, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "model 'gpt2': its vocabulary is another");
    FAILS(mmopt_trainer_predict(trainer, 0, tokenizers[1], texts, NULL, 2, NULL, &predictions),
          MMOPT_CODE_INVALID_ARGUMENT, "model 'bert': its vocabulary is another");

    OK(mmopt_corpus_from_label_names(MMOPT_TASK_SEQUENCE_CLASSIFICATION, order, 2, &names));
    OK(mmopt_corpus_from_texts(texts, labels, 2, names, &other));
    OK(mmopt_loader_create(other, (const mmopt_tokenizer *const *)tokenizers, 2, NULL,
                           &loaders[1]));
    OK(mmopt_loader_next(loaders[1], &batch));
    FAILS(mmopt_trainer_forward_backward_batch(trainer, batch, NULL), MMOPT_CODE_INVALID_ARGUMENT,
          "class 0 is '0' and '1'");
    FAILS(mmopt_trainer_evaluate_loader(trainer, 0, loaders[1], NULL, &scores, NULL),
          MMOPT_CODE_INVALID_ARGUMENT, "class 0 is '0' and '1'");
    mmopt_batch_free(batch);
    for (int i = 0; i < 2; i++)
        mmopt_loader_free(loaders[i]);
    mmopt_corpus_free(other);
    mmopt_corpus_free(names);
    mmopt_trainer_free(trainer);
}

/* A fresh GPT-2 starts from a BERT with weights, whose vocabulary is set or beside it. */
static void test_start(const char *folder)
{
    mmopt_trainer_options options;
    mmopt_trainer *trainer = make_trainer(NULL);
    mmopt_model *models[2] = {NULL, make_model(1)};
    const mmopt_model *const *given = (const mmopt_model *const *)models;
    char path[1200];
    char *text = NULL;

    snprintf(path, sizeof path, "%s/start", folder);
    OK(mmopt_trainer_save_model(trainer, 0, path));
    mmopt_trainer_free(trainer);
    trainer = NULL;
    OK(mmopt_model_from_directory("bert", path, &models[0]));
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.options_json = "{\"start\": \"pretrained\", \"mutual\": null}";
    FAILS(mmopt_trainer_create(&options, given, 2, &trainer), MMOPT_CODE_INVALID_ARGUMENT,
          "mmopt_model_set_tokenizer");
    REFUSES_NULL(mmopt_model_set_tokenizer(models[0], NULL));
    OK(mmopt_model_set_tokenizer(models[0], tokenizers[0]));
    OK(mmopt_trainer_create(&options, given, 2, &trainer));
    OK(mmopt_trainer_plan(trainer, &text));
    CHECK(strstr(text, "start: pretrained from 'bert', 1 fresh model") != NULL);
    CHECK(strstr(text, "token embedding from 'bert': ") != NULL);
    mmopt_string_free(text);
    OK(mmopt_trainer_plan_json(trainer, &text));
    CHECK(strstr(text, "\"start\":{\"from\":\"bert\"") != NULL);
    mmopt_string_free(text);
    mmopt_trainer_free(trainer);
    mmopt_model_free(models[0]);
    /* The default preset does so by itself, with the tokenizer's files in the directory. */
    OK(mmopt_tokenizer_save(tokenizers[0], path));
    OK(mmopt_model_from_directory("bert", path, &models[0]));
    OK(mmopt_trainer_create(NULL, given, 2, &trainer));
    OK(mmopt_trainer_plan(trainer, &text));
    CHECK(strstr(text, "start: auto from 'bert', 1 fresh model") != NULL);
    mmopt_string_free(text);
    mmopt_trainer_free(trainer);
    mmopt_model_free(models[0]);
    mmopt_model_free(models[1]);
}

static void hear(void *user, uint32_t level, const char *message)
{
    if (level == MMOPT_LOG_LEVEL_INFO && strstr(message, "newly initialised: classifier") != NULL)
        ++*(int *)user;
    if (level == MMOPT_LOG_LEVEL_WARNING && strstr(message, "no weights are read") != NULL)
        *(int *)user += 10;
}

/* A saved classifier becomes a tagger, a classifier of more classes, and one without weights. */
static void test_pretrained(const char *folder)
{
    static const char *const names[] = {"bad", "so-so", "good"}, *const twice[] = {"a", "a"};
    mmopt_trainer *trainer = make_trainer(NULL);
    mmopt_model *model = NULL;
    const mmopt_model *const *given = (const mmopt_model *const *)&model;
    char path[1200], file[1300];
    char *text = NULL;
    int heard = 0;

    snprintf(path, sizeof path, "%s/pretrained", folder);
    OK(mmopt_trainer_save_model(trainer, 0, path));
    mmopt_trainer_free(trainer);
    trainer = NULL;
    OK(mmopt_model_from_directory("bert", path, &model));
    OK(mmopt_model_set_task(model, MMOPT_TASK_TOKEN_CLASSIFICATION, 2));
    OK(mmopt_model_label_name(model, 1, &text));
    CHECK(strcmp(text, "LABEL_1") == 0);
    mmopt_string_free(text);
    OK(mmopt_model_report(model, &text));
    CHECK(strstr(text, "newly initialised: classifier.weight, classifier.bias") != NULL);
    mmopt_string_free(text);
    OK(mmopt_trainer_create(NULL, given, 1, &trainer));
    OK(mmopt_trainer_set_log_callback(trainer, MMOPT_LOG_LEVEL_INFO, hear, &heard));
    CHECK(heard == 1);
    mmopt_trainer_free(trainer);
    trainer = NULL;

    OK(mmopt_model_set_task(model, MMOPT_TASK_SEQUENCE_CLASSIFICATION, 3));
    FAILS(mmopt_trainer_create(NULL, given, 1, &trainer), MMOPT_CODE_SHAPE, "set fresh_head");
    FAILS(mmopt_model_set_fresh_head(model, 2), MMOPT_CODE_INVALID_ARGUMENT, "fresh is 2");
    OK(mmopt_model_set_fresh_head(model, 1));
    REFUSES_NULL(mmopt_model_set_label_names(model, NULL, 3));
    FAILS(mmopt_model_set_label_names(model, names, 0), MMOPT_CODE_INVALID_ARGUMENT, "n is 0");
    FAILS(mmopt_model_set_label_names(model, twice, 2), MMOPT_CODE_INVALID_ARGUMENT, "names[1]");
    OK(mmopt_model_set_label_names(model, names, 3));
    OK(mmopt_model_label_name(model, 2, &text));
    CHECK(strcmp(text, "good") == 0);
    mmopt_string_free(text);
    OK(mmopt_trainer_create(NULL, given, 1, &trainer));
    OK(mmopt_trainer_save_model(trainer, 0, path));
    mmopt_trainer_free(trainer);
    trainer = NULL;
    mmopt_model_free(model);
    OK(mmopt_model_from_directory("bert", path, &model));
    OK(mmopt_model_label_name(model, 1, &text));
    CHECK(strcmp(text, "so-so") == 0);
    mmopt_string_free(text);

    snprintf(file, sizeof file, "%s/model.safetensors", path);
    CHECK(remove(file) == 0);
    FAILS(mmopt_trainer_create(NULL, given, 1, &trainer), MMOPT_CODE_NOT_FOUND,
          "set fresh_weights");
    FAILS(mmopt_model_set_fresh_weights(model, 2), MMOPT_CODE_INVALID_ARGUMENT, "fresh is 2");
    OK(mmopt_model_set_fresh_weights(model, 1));
    OK(mmopt_trainer_create(NULL, given, 1, &trainer));
    OK(mmopt_trainer_set_log_callback(trainer, MMOPT_LOG_LEVEL_WARNING, hear, &heard));
    CHECK(heard == 11);
    mmopt_trainer_free(trainer);
    mmopt_model_free(model);
    OK(mmopt_model_from_onnx("graph", "x.onnx", &model));
    FAILS(mmopt_model_set_fresh_head(model, 1), MMOPT_CODE_INVALID_ARGUMENT, "ONNX");
    FAILS(mmopt_model_set_fresh_weights(model, 1), MMOPT_CODE_INVALID_ARGUMENT, "ONNX");
    FAILS(mmopt_model_set_label_names(model, names, 3), MMOPT_CODE_INVALID_ARGUMENT, "ONNX");
    mmopt_model_free(model);
}

static void test_prepare(mmopt_trainer *trainer)
{
    mmopt_batch *batch = next_batch();
    const mmopt_tensor *tensors = NULL;
    size_t n = 0;

    OK(mmopt_batch_tensors(batch, 1, &tensors, &n));
    OK(mmopt_trainer_prepare(trainer, 1, tensors, n));
    OK(mmopt_trainer_prepare(trainer, 1, tensors, n));
    FAILS(mmopt_trainer_prepare(trainer, 2, tensors, n), MMOPT_CODE_INVALID_ARGUMENT, "2");
    FAILS(mmopt_trainer_prepare(trainer, 1, tensors, 1), MMOPT_CODE_NOT_FOUND, NULL);
    REFUSES_NULL(mmopt_trainer_prepare(NULL, 1, tensors, n));
    REFUSES_NULL(mmopt_trainer_prepare(trainer, 1, NULL, n));
    /* Nothing has run. */
    FAILS(mmopt_trainer_step(trainer, NULL), MMOPT_CODE_STATE, NULL);
    mmopt_batch_free(batch);
    OK(mmopt_loader_set_epoch(loader, 0));
}

static void test_loop(mmopt_trainer *trainer)
{
    mmopt_batch *batch = NULL;
    mmopt_train_result results[2] = {{0, 0, 0, -1}, {0, 0, 0, -1}};
    mmopt_step_report report;
    mmopt_rates rates;
    const double losses[2] = {0.5, 0.6};
    double first = 0, last = 0;
    size_t index = 9;

    CHECK(mmopt_trainer_n_models(trainer) == 2);
    CHECK(strcmp(mmopt_trainer_model_name(trainer, 1), "gpt2") == 0);
    CHECK(mmopt_trainer_model_name(trainer, 2) == NULL);
    OK(mmopt_trainer_model_index(trainer, "gpt2", &index));
    CHECK(index == 1);
    FAILS(mmopt_trainer_model_index(trainer, "t5", &index), MMOPT_CODE_NOT_FOUND, "t5");
    REFUSES_NULL(mmopt_trainer_model_index(trainer, NULL, &index));
    REFUSES_NULL(mmopt_trainer_model_index(trainer, "gpt2", NULL));
    OK(mmopt_trainer_set_learning_rate(trainer, 3e-3));
    FAILS(mmopt_trainer_set_learning_rate(trainer, -1), MMOPT_CODE_INVALID_ARGUMENT, NULL);
    OK(mmopt_trainer_set_model_weight(trainer, 1, 2));
    FAILS(mmopt_trainer_set_model_weight(trainer, 1, NAN), MMOPT_CODE_INVALID_ARGUMENT, NULL);
    FAILS(mmopt_trainer_set_model_weight(trainer, 5, 1), MMOPT_CODE_INVALID_ARGUMENT, NULL);
    for (int i = 0; i < 60; i++) {
        batch = next_batch();
        OK(mmopt_trainer_zero_grad(trainer));
        OK(mmopt_trainer_forward_backward_batch(trainer, batch, results));
        OK(mmopt_trainer_step(trainer, &report));
        CHECK(report.n_updated == 2 && report.n_skipped == 0);
        double loss = results[0].loss + results[1].loss;
        first += i < 10 ? loss : 0;
        last += i >= 50 ? loss : 0;
        mmopt_batch_free(batch);
    }
    CHECK(last < 0.9 * first);
    CHECK(mmopt_trainer_n_steps(trainer) == 60);
    OK(mmopt_trainer_rates(trainer, 1, &rates));
    CHECK(rates.base == 3e-3 && rates.effective > 0 && fabs(rates.weight - 2.0 / 3) < 1e-12);
    REFUSES_NULL(mmopt_trainer_rates(trainer, 1, NULL));
    FAILS(mmopt_trainer_rates(trainer, 2, &rates), MMOPT_CODE_INVALID_ARGUMENT, NULL);
    OK(mmopt_trainer_log_metrics(trainer, losses, 2));
    FAILS(mmopt_trainer_log_metrics(trainer, losses, 1), MMOPT_CODE_INVALID_ARGUMENT, "1 loss ");
    REFUSES_NULL(mmopt_trainer_log_metrics(trainer, NULL, 2));
    REFUSES_NULL(mmopt_trainer_forward_backward_batch(trainer, NULL, results));

    /* The same with arrays of tensors, and without places for the results. */
    const mmopt_tensor *tensors[2];
    size_t n_tensors[2];
    batch = next_batch();
    for (size_t i = 0; i < 2; i++)
        OK(mmopt_batch_tensors(batch, i, &tensors[i], &n_tensors[i]));
    OK(mmopt_trainer_forward_backward_all(trainer, tensors, n_tensors, 2, NULL));
    OK(mmopt_trainer_step(trainer, NULL));
    FAILS(mmopt_trainer_forward_backward_all(trainer, tensors, n_tensors, 1, results),
          MMOPT_CODE_INVALID_ARGUMENT, "1 batch ");
    REFUSES_NULL(mmopt_trainer_forward_backward_all(trainer, NULL, n_tensors, 2, results));
    REFUSES_NULL(mmopt_trainer_forward_backward_all(trainer, tensors, NULL, 2, results));
    mmopt_batch_free(batch);
}

static void test_evaluation(mmopt_trainer *trainer)
{
    mmopt_batch *batch = next_batch();
    const mmopt_tensor *tensors = NULL, *outputs = NULL;
    mmopt_evaluation *evaluation = NULL;
    size_t n = 0, n_outputs = 0;

    OK(mmopt_batch_tensors(batch, 1, &tensors, &n));
    OK(mmopt_trainer_evaluate(trainer, 1, tensors, n, &evaluation));
    CHECK(mmopt_evaluation_loss(evaluation) > 0 && mmopt_evaluation_n_labels(evaluation) == 8);
    CHECK(mmopt_evaluation_n_correct(evaluation) <= 8);
    OK(mmopt_evaluation_tensors(evaluation, &outputs, &n_outputs));
    CHECK(n_outputs == 1 && strcmp(outputs[0].name, "logits") == 0 && outputs[0].n_dims == 2);
    CHECK(outputs[0].dtype == MMOPT_DTYPE_F32 && outputs[0].shape[1] == 2);
    REFUSES_NULL(mmopt_evaluation_tensors(evaluation, NULL, &n));
    REFUSES_NULL(mmopt_evaluation_tensors(evaluation, &outputs, NULL));
    mmopt_evaluation_free(evaluation);
    evaluation = NULL;
    REFUSES_NULL(mmopt_trainer_evaluate(trainer, 1, tensors, n, NULL));
    REFUSES_NULL(mmopt_trainer_evaluate(trainer, 1, NULL, n, &evaluation));
    OK(mmopt_trainer_evaluate(trainer, 1, tensors, n - 1, &evaluation));
    CHECK(isnan(mmopt_evaluation_loss(evaluation)) && mmopt_evaluation_n_labels(evaluation) == 0);
    mmopt_evaluation_free(evaluation);
    mmopt_batch_free(batch);
}

static void test_parameters(mmopt_trainer *trainer)
{
    mmopt_tensor view;
    uint32_t trainable = 9;
    size_t index = 0, n = mmopt_trainer_n_parameters(trainer, 0), n_changed = 0;
    float *values;

    CHECK(n > 10 && mmopt_trainer_n_parameters(trainer, 2) == 0);
    OK(mmopt_trainer_parameter_index(trainer, 0, "classifier.bias", &index));
    FAILS(mmopt_trainer_parameter_index(trainer, 0, "nothing", &index), MMOPT_CODE_NOT_FOUND,
          "nothing");
    REFUSES_NULL(mmopt_trainer_parameter_index(trainer, 0, NULL, &index));
    REFUSES_NULL(mmopt_trainer_parameter_index(trainer, 0, "x", NULL));
    OK(mmopt_trainer_parameter(trainer, 0, index, &view, &trainable));
    CHECK(strcmp(view.name, "classifier.bias") == 0 && trainable == 1);
    CHECK(view.n_dims == 1 && view.shape[0] == 2 && view.n_bytes == 8);
    OK(mmopt_trainer_parameter(trainer, 0, index, &view, NULL));
    REFUSES_NULL(mmopt_trainer_parameter(trainer, 0, index, NULL, NULL));
    FAILS(mmopt_trainer_parameter(trainer, 0, n, &view, NULL), MMOPT_CODE_INVALID_ARGUMENT,
          "parameter");
    values = malloc(view.n_bytes);
    values[0] = 1.5f, values[1] = -2.5f;
    OK(mmopt_trainer_set_parameter(trainer, 0, index, values, view.n_bytes));
    CHECK(((const float *)view.data)[1] == -2.5f);
    FAILS(mmopt_trainer_set_parameter(trainer, 0, index, values, 4), MMOPT_CODE_SHAPE, "4 bytes");
    REFUSES_NULL(mmopt_trainer_set_parameter(trainer, 0, index, NULL, 8));
    OK(mmopt_trainer_gradient(trainer, 0, index, &view));
    CHECK(view.n_bytes == 8);
    REFUSES_NULL(mmopt_trainer_gradient(trainer, 0, index, NULL));
    OK(mmopt_trainer_set_gradient(trainer, 0, index, values, 8));
    CHECK(((const float *)view.data)[0] == 1.5f);
    FAILS(mmopt_trainer_set_gradient(trainer, 0, index, values, 7), MMOPT_CODE_SHAPE, "7 bytes");
    REFUSES_NULL(mmopt_trainer_set_gradient(trainer, 0, index, NULL, 8));
    free(values);

    OK(mmopt_trainer_set_trainable(trainer, "bert", "*.bias", 0, &n_changed));
    CHECK(n_changed > 3);
    FAILS(mmopt_trainer_set_trainable(trainer, "bert", "*", 2, NULL), MMOPT_CODE_INVALID_ARGUMENT,
          "trainable");
    REFUSES_NULL(mmopt_trainer_set_trainable(trainer, NULL, "*", 1, NULL));
    REFUSES_NULL(mmopt_trainer_set_trainable(trainer, "*", NULL, 1, NULL));
    OK(mmopt_trainer_set_trainable(trainer, "*", "*", 1, NULL));
}

static void test_plan(const mmopt_trainer *trainer)
{
    char *text = NULL;
    OK(mmopt_trainer_plan(trainer, &text));
    CHECK(strstr(text, "attention query") != NULL && strstr(text, "gpt2") != NULL);
    mmopt_string_free(text);
    OK(mmopt_trainer_plan_json(trainer, &text));
    CHECK(text[0] == '{' && strstr(text, "\"groups\"") != NULL);
    mmopt_string_free(text);
    REFUSES_NULL(mmopt_trainer_plan(trainer, NULL));
    REFUSES_NULL(mmopt_trainer_plan_json(trainer, NULL));
    OK(mmopt_trainer_memory_report(trainer, NULL, NULL, 0, &text));
    CHECK(strstr(text, "\"moments\"") != NULL && strstr(text, "\"total\"") != NULL);
    mmopt_string_free(text);
    REFUSES_NULL(mmopt_trainer_memory_report(trainer, NULL, NULL, 0, NULL));
    REFUSES_NULL(mmopt_trainer_memory_report(trainer, NULL, NULL, 1, &text));
}

struct calls {
    mmopt_trainer *trainer;
    int n_asked, stop_at, n_logged, n_rates;
};

static uint32_t on_progress(void *user, const mmopt_progress *progress)
{
    struct calls *calls = user;
    calls->n_asked++;
    CHECK(progress->phase >= MMOPT_PHASE_FORWARD_BACKWARD && progress->phase <= MMOPT_PHASE_STEP);
    /* Calling back into the trainer is refused, not a crash. */
    FAILS(mmopt_trainer_zero_grad(calls->trainer), MMOPT_CODE_STATE, "in use");
    return calls->n_asked == calls->stop_at;
}

static void on_log(void *user, uint32_t level, const char *message)
{
    struct calls *calls = user;
    CHECK(level == MMOPT_LOG_LEVEL_WARNING && strstr(message, "skipped") != NULL);
    calls->n_logged++;
}

static double on_rate(void *user, const char *model, uint64_t step, double rate)
{
    struct calls *calls = user;
    CHECK((strcmp(model, "bert") == 0 || strcmp(model, "gpt2") == 0) && step > 0 && rate >= 0);
    calls->n_rates++;
    return 0.25;
}

static void test_callbacks(mmopt_trainer *trainer)
{
    struct calls calls = {trainer, 0, 2, 0, 0};
    mmopt_batch *batch = next_batch();
    mmopt_cancel_token *cancel_token = NULL;
    mmopt_step_report report;
    mmopt_rates rates;
    uint64_t n_steps = mmopt_trainer_n_steps(trainer);

    /* The second question, before the step, cancels; the step can be taken later. */
    OK(mmopt_trainer_zero_grad(trainer));
    OK(mmopt_trainer_set_progress_callback(trainer, on_progress, &calls));
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    FAILS(mmopt_trainer_step(trainer, NULL), MMOPT_CODE_CANCELLED, "stop");
    CHECK(mmopt_trainer_n_steps(trainer) == n_steps);
    OK(mmopt_trainer_set_progress_callback(trainer, NULL, NULL));
    OK(mmopt_trainer_set_rate_callback(trainer, on_rate, &calls));
    OK(mmopt_trainer_step(trainer, NULL));
    OK(mmopt_trainer_rates(trainer, 0, &rates));
    CHECK(rates.effective == 0.25 && calls.n_rates == 2 && calls.n_asked == 2);
    OK(mmopt_trainer_set_rate_callback(trainer, NULL, NULL));

    /* A NaN in one gradient: that model is skipped and a warning logged, the other goes on. */
    FAILS(mmopt_trainer_set_log_callback(trainer, 9, on_log, &calls), MMOPT_CODE_INVALID_ARGUMENT, "level");
    OK(mmopt_trainer_set_log_callback(trainer, MMOPT_LOG_LEVEL_WARNING, on_log, &calls));
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    size_t index = 0;
    float bad[2] = {NAN, 0};
    OK(mmopt_trainer_parameter_index(trainer, 0, "classifier.bias", &index));
    OK(mmopt_trainer_set_gradient(trainer, 0, index, bad, sizeof bad));
    OK(mmopt_trainer_step(trainer, &report));
    CHECK(report.n_skipped == 1 && report.n_updated == 1 && calls.n_logged == 1);
    OK(mmopt_trainer_rates(trainer, 0, &rates));
    CHECK(rates.n_skipped == 1);
    OK(mmopt_trainer_set_log_callback(trainer, MMOPT_LOG_LEVEL_OFF, NULL, NULL));

    /* A cancel_token stops passes until it is reset; it may outlive the trainer. */
    REFUSES_NULL(mmopt_trainer_cancel_token(trainer, NULL));
    OK(mmopt_trainer_cancel_token(trainer, &cancel_token));
    OK(mmopt_cancel_token_cancel(cancel_token));
    FAILS(mmopt_trainer_forward_backward_batch(trainer, batch, NULL), MMOPT_CODE_CANCELLED, NULL);
    OK(mmopt_cancel_token_reset(cancel_token));
    OK(mmopt_trainer_zero_grad(trainer));
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
    OK(mmopt_trainer_step(trainer, NULL));
    mmopt_cancel_token_free(cancel_token);
    mmopt_batch_free(batch);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (getenv("MMOPT_ORT_LIB") == NULL) {
        printf("not run: no ONNX Runtime\n");
        return 0;
    }
    make_data();
    test_nulls();
    test_models();
    test_options();
    test_feedback();
    test_ema();
    test_mutual();
    test_pretrained(argv[1]);
    test_other_names();
    test_start(argv[1]);
    mmopt_trainer *trainer = make_trainer(NULL);
    test_prepare(trainer);
    test_loop(trainer);
    test_evaluation(trainer);
    test_parameters(trainer);
    test_plan(trainer);
    test_callbacks(trainer);
    mmopt_trainer_free(trainer);
    free_data();
    return finish();
}
