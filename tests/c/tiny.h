/* Two tiny models, a BERT and a GPT-2, over generated sentences. */
#ifndef MMOPT_TEST_TINY_H
#define MMOPT_TEST_TINY_H

#include "check.h"

static mmopt_corpus *corpus;
static mmopt_tokenizer *tokenizers[2];
static mmopt_loader *loader;

static inline void make_data(void)
{
    mmopt_tokenizer_options options;
    mmopt_loader_options walk;

    OK(mmopt_corpus_synthetic(64, 1, 0.0, &corpus));
    mmopt_tokenizer_options_init(&options);
    options.model_max_length = 32;
    options.vocab_size = 300;
    OK(mmopt_tokenizer_train(corpus, &options, &tokenizers[0]));
    options.architecture = MMOPT_ARCHITECTURE_GPT2;
    options.vocab_size = 400;
    OK(mmopt_tokenizer_train(corpus, &options, &tokenizers[1]));
    mmopt_loader_options_init(&walk);
    walk.batch_size = 8;
    walk.pad_to_multiple_of = 32;
    walk.seed = 3;
    OK(mmopt_loader_create(corpus, (const mmopt_tokenizer *const *)tokenizers, 2, &walk, &loader));
}

static inline mmopt_model *make_model(int i)
{
    mmopt_model_config sizes;
    mmopt_model *model = NULL;

    mmopt_model_config_init(&sizes);
    sizes.architecture = i == 0 ? MMOPT_ARCHITECTURE_BERT : MMOPT_ARCHITECTURE_GPT2;
    sizes.n_layers = 1;
    sizes.hidden_size = 16;
    sizes.n_heads = 2;
    OK(mmopt_model_for_corpus(i == 0 ? "bert" : "gpt2", &sizes, tokenizers[i], corpus, &model));
    return model;
}

static inline mmopt_trainer *make_trainer(const mmopt_trainer_options *options)
{
    mmopt_model *models[2] = {make_model(0), make_model(1)};
    mmopt_trainer *trainer = NULL;
    OK(mmopt_trainer_create(options, (const mmopt_model *const *)models, 2, &trainer));
    mmopt_model_free(models[0]);
    mmopt_model_free(models[1]);
    return trainer;
}

static inline mmopt_batch *next_batch(void)
{
    mmopt_batch *batch = NULL;
    OK(mmopt_loader_next(loader, &batch));
    if (batch == NULL)
        OK(mmopt_loader_next(loader, &batch));
    return batch;
}

static inline void free_data(void)
{
    mmopt_corpus_free(corpus);
    mmopt_tokenizer_free(tokenizers[0]);
    mmopt_tokenizer_free(tokenizers[1]);
    mmopt_loader_free(loader);
}

#endif
