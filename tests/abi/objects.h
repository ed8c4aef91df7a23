/* The world's first objects and files, and what the generated calls do with objects. */
#include "calls.h"

static mmopt_corpus *fresh_corpus(struct world *w)
{
    mmopt_corpus *corpus = NULL;
    (void)w;
    OK(mmopt_corpus_synthetic(24, 1, 0.0, &corpus));
    return corpus;
}

static mmopt_tokenizer *fresh_tokenizer(struct world *w)
{
    mmopt_tokenizer_options options;
    mmopt_tokenizer *tokenizer = NULL;
    mmopt_tokenizer_options_init(&options);
    options.vocab_size = 400;
    options.model_max_length = 32;
    OK(mmopt_tokenizer_train(w->corpus, &options, &tokenizer));
    return tokenizer;
}

static mmopt_encoding *fresh_encoding(struct world *w)
{
    mmopt_encoding *encoding = NULL;
    OK(mmopt_tokenizer_encode(w->tokenizer, "a fine film", NULL, 0, &encoding));
    return encoding;
}

static mmopt_loader *fresh_loader(struct world *w)
{
    mmopt_loader_options options;
    mmopt_loader *loader = NULL;
    mmopt_loader_options_init(&options);
    options.batch_size = 4;
    options.pad_to_multiple_of = 32;
    OK(mmopt_loader_create(w->corpus, w->tokenizers, 2, &options, &loader));
    return loader;
}

static mmopt_batch *fresh_batch(struct world *w)
{
    mmopt_loader *loader = fresh_loader(w);
    mmopt_batch *batch = NULL;
    OK(mmopt_loader_next(loader, &batch));
    mmopt_loader_free(loader);
    return batch;
}

/* A batch of the question in questions.jsonl. */
static const mmopt_batch *batch_of_questions(struct world *w)
{
    mmopt_corpus *corpus = NULL;
    mmopt_loader_options options;
    mmopt_loader *loader = NULL;
    mmopt_batch *batch = NULL;
    OK(mmopt_corpus_read_question_answering(path(w, "questions.jsonl"), &corpus));
    mmopt_loader_options_init(&options);
    options.pad_to_multiple_of = N_TOKENS;
    OK(mmopt_loader_create(corpus, w->tokenizers, 1, &options, &loader));
    OK(mmopt_loader_next(loader, &batch));
    mmopt_loader_free(loader);
    mmopt_corpus_free(corpus);
    return batch;
}

static mmopt_model *model_named(struct world *w, const char *name)
{
    mmopt_model_config sizes;
    mmopt_model *model = NULL;
    mmopt_model_config_init(&sizes);
    sizes.n_layers = 1, sizes.hidden_size = 8, sizes.n_heads = 2;
    OK(mmopt_model_for_corpus(name, &sizes, w->tokenizers[0], w->corpus, &model));
    return model;
}

static mmopt_model *fresh_model(struct world *w)
{
    return model_named(w, "model");
}

static mmopt_trainer *fresh_trainer(struct world *w)
{
    mmopt_trainer_options options;
    mmopt_trainer *trainer = NULL;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.n_threads = 1;
    options.options_json = "{\"metrics_every\": 1}";
    OK(mmopt_trainer_create(&options, w->models, 2, &trainer));
    return trainer;
}

static mmopt_communicator *fresh_communicator(struct world *w)
{
    mmopt_communicator_callbacks callbacks;
    mmopt_communicator *communicator = NULL;
    make_communicator_callbacks(w, &callbacks, -1);
    OK(mmopt_communicator_create(&callbacks, &communicator));
    return communicator;
}

static mmopt_cancel_token *fresh_cancel_token(struct world *w)
{
    mmopt_cancel_token *cancel_token = NULL;
    OK(mmopt_trainer_cancel_token(w->trainer, &cancel_token));
    return cancel_token;
}

static mmopt_evaluation *fresh_evaluation(struct world *w)
{
    mmopt_evaluation *evaluation = NULL;
    OK(mmopt_trainer_evaluate(w->trainer, 0, w->tensors, w->n_tensors, &evaluation));
    return evaluation;
}

static mmopt_predictor *fresh_predictor(struct world *w)
{
    mmopt_predictor_options options;
    mmopt_predictor *predictor = NULL;
    mmopt_predictor_options_init(&options);
    options.n_threads = 1;
    OK(mmopt_predictor_load(path(w, "saved"), &options, &predictor));
    return predictor;
}

/* A model that generates text, in a trainer and in a directory. */
static void make_writer(struct world *w)
{
    mmopt_corpus *plain = NULL;
    mmopt_tokenizer_options words;
    mmopt_model_config sizes;
    mmopt_model *model = NULL;
    mmopt_predictor_options options;

    OK(mmopt_corpus_plain_text(w->corpus, &plain));
    mmopt_tokenizer_options_init(&words);
    words.architecture = MMOPT_ARCHITECTURE_GPT2;
    words.vocab_size = 300, words.model_max_length = 16;
    OK(mmopt_tokenizer_train(plain, &words, &w->writer_tokenizer));
    mmopt_model_config_init(&sizes);
    sizes.architecture = MMOPT_ARCHITECTURE_GPT2;
    sizes.n_layers = 1, sizes.hidden_size = 8, sizes.n_heads = 2;
    OK(mmopt_model_for_corpus("writer", &sizes, w->writer_tokenizer, plain, &model));
    OK(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &w->writer));
    OK(mmopt_trainer_save_model(w->writer, 0, path(w, "writer")));
    OK(mmopt_tokenizer_save(w->writer_tokenizer, path(w, "writer")));
    mmopt_predictor_options_init(&options);
    options.n_threads = 1;
    OK(mmopt_predictor_load(path(w, "writer"), &options, &w->writer_predictor));
    mmopt_model_free(model);
    mmopt_corpus_free(plain);
}

static void make_adapted(struct world *w)
{
    mmopt_adapter_options options;
    mmopt_model *model = model_named(w, "adapted");

    mmopt_adapter_options_init(&options);
    tweak_adapter_options(w, &options);
    OK(mmopt_model_add_adapters(model, &options));
    OK(mmopt_trainer_create(NULL, (const mmopt_model *const *)&model, 1, &w->adapted));
    OK(mmopt_trainer_save_adapters(w->adapted, 0, path(w, "adapters")));
    mmopt_model_free(model);
}

static mmopt_predictions *fresh_predictions(struct world *w)
{
    mmopt_predictions *predictions = NULL;
    OK(mmopt_predictor_predict(w->predictor, w->texts, NULL, 2, NULL, &predictions));
    return predictions;
}

static mmopt_optimizer *fresh_optimizer(struct world *w)
{
    mmopt_trainer_options options;
    mmopt_optimizer *optimizer = NULL;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.options_json = "{\"metrics_every\": 1}";
    OK(mmopt_optimizer_create(&options, w->parameters, 2, &optimizer));
    return optimizer;
}

static mmopt_error *fresh_error(struct world *w)
{
    mmopt_corpus *corpus = NULL;
    (void)w;
    return mmopt_corpus_synthetic(0, 0, 0, &corpus);
}

static char *read_file(const char *path, size_t *n)
{
    FILE *file = fopen(path, "rb");
    char *bytes = malloc(1 << 20);
    *n = file == NULL ? 0 : fread(bytes, 1, 1 << 20, file);
    if (file != NULL)
        fclose(file);
    return bytes;
}

static void write_text(struct world *w, const char *name, const char *text)
{
    write_file(path(w, name), text, strlen(text));
}

/* The files that functions read, and one object of each kind, in the order in which they need one
 * another. */
static void set_up(struct world *w, const char *folder)
{
    char *state = NULL;

    memset(w, 0, sizeof *w);
    w->folder = w->out = folder;
    w->state = 1;
    fill_inputs(w);
    write_text(w, "class.tsv", "one\tyes\ntwo\tno\nthree\tyes\n");
    write_text(w, "tagged.txt", "EU B-ORG\nrejects O\n\nPeter B-PER\n");
    write_text(w, "questions.jsonl",
               "{\"context\": \"born in May\", \"question\": \"when?\", "
               "\"answers\": [{\"text\": \"May\", \"answer_start\": 8}]}\n");
    write_text(w, "plain.txt", "one\ntwo\n\nthree\n");
    write_text(w, "run.jsonl", "{\"type\": \"step\", \"step\": 1, \"models\": [{\"name\": \"a\"}]}\n");

    mmopt_corpus *tags = NULL;
    OK(mmopt_corpus_read_token_classification(path(w, "tagged.txt"), NULL, &tags));
    w->tags = tags;
    w->error = fresh_error(w);
    w->corpus = fresh_corpus(w);
    w->tokenizer = fresh_tokenizer(w);
    w->tokenizers[0] = w->tokenizers[1] = w->tokenizer;
    OK(mmopt_token_file_write(path(w, "plain.txt"), MMOPT_SAMPLE_BY_LINE, w->tokenizer,
                              path(w, "plain.tokens"), NULL));
    CHECK(mkdir(path(w, "tokenizer"), 0777) == 0);
    OK(mmopt_tokenizer_save(w->tokenizer, path(w, "tokenizer")));
    w->encoding = fresh_encoding(w);
    w->loader = fresh_loader(w);
    OK(mmopt_loader_state(w->loader, &state));
    w->loader_state = state;
    w->batch = fresh_batch(w);
    w->questions = batch_of_questions(w);
    for (size_t i = 0; i < 2; i++)
        OK(mmopt_batch_tensors(w->batch, i, &w->parts[i], &w->n_parts[i]));
    w->tensors = w->parts[0], w->n_tensors = w->n_parts[0];
    w->model = fresh_model(w);
    w->models[0] = model_named(w, "bert"), w->models[1] = model_named(w, "other");
    OK(mmopt_model_from_onnx("graph", path(w, "saved.onnx"), &w->graph));
    w->trainer = fresh_trainer(w);
    OK(mmopt_trainer_parameter_index(w->trainer, 0, "classifier.bias", &w->bias));
    OK(mmopt_trainer_save_model(w->trainer, 0, path(w, "saved")));
    OK(mmopt_tokenizer_save(w->tokenizer, path(w, "saved")));
    OK(mmopt_trainer_save_onnx(w->trainer, 0, path(w, "saved.onnx")));
    OK(mmopt_trainer_save_checkpoint(w->trainer, path(w, "checkpoint"), "mine"));
    w->onnx = read_file(path(w, "saved.onnx"), &w->n_onnx);
    w->evaluation = fresh_evaluation(w);
    w->cancel_token = fresh_cancel_token(w);
    w->communicator = fresh_communicator(w);
    w->predictor = fresh_predictor(w);
    make_writer(w);
    make_adapted(w);
    w->predictions = fresh_predictions(w);
    w->optimizer = fresh_optimizer(w);
    OK(mmopt_optimizer_save_checkpoint(w->optimizer, path(w, "optimizer")));
}

static void tear_down(struct world *w)
{
    mmopt_error_free(w->error);
    mmopt_corpus_free(w->corpus);
    mmopt_tokenizer_free(w->tokenizer);
    mmopt_encoding_free(w->encoding);
    mmopt_loader_free(w->loader);
    mmopt_batch_free(w->batch);
    mmopt_model_free(w->model);
    mmopt_model_free(w->graph);
    mmopt_model_free((mmopt_model *)w->models[0]);
    mmopt_model_free((mmopt_model *)w->models[1]);
    mmopt_trainer_free(w->trainer);
    mmopt_evaluation_free(w->evaluation);
    mmopt_cancel_token_free(w->cancel_token);
    mmopt_communicator_free(w->communicator);
    mmopt_predictor_free(w->predictor);
    mmopt_predictor_free(w->writer_predictor);
    mmopt_trainer_free(w->writer);
    mmopt_trainer_free(w->adapted);
    mmopt_tokenizer_free(w->writer_tokenizer);
    mmopt_predictions_free(w->predictions);
    mmopt_optimizer_free(w->optimizer);
    mmopt_corpus_free((mmopt_corpus *)w->tags);
    mmopt_batch_free((mmopt_batch *)w->questions);
    mmopt_string_free((char *)w->loader_state);
    free(w->onnx);
}
