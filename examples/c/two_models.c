/* Trains a BERT and a GPT-2 together: two_models FILE, where each line is text TAB label. */
#include <mmopt.h>
#include <stdio.h>
#include <stdlib.h>

static void check(mmopt_error *error)
{
    if (error == NULL)
        return;
    fprintf(stderr, "%s\n", mmopt_error_message(error));
    exit(1);
}

int main(int argc, char **argv)
{
    const char *names[2] = {"bert", "gpt2"};
    const uint32_t architectures[2] = {MMOPT_ARCHITECTURE_BERT, MMOPT_ARCHITECTURE_GPT2};
    mmopt_tokenizer *tokenizers[2];
    mmopt_model *models[2];

    mmopt_corpus *corpus;
    check(mmopt_corpus_read_classification(argc > 1 ? argv[1] : "train.tsv", NULL, &corpus));
    for (int i = 0; i < 2; i++) {
        mmopt_tokenizer_options tokens;
        mmopt_tokenizer_options_init(&tokens);
        tokens.architecture = architectures[i];
        check(mmopt_tokenizer_train(corpus, &tokens, &tokenizers[i]));

        mmopt_model_config config; /* two layers of width 128, until you say otherwise */
        mmopt_model_config_init(&config);
        config.architecture = architectures[i];
        check(mmopt_model_for_corpus(names[i], &config, tokenizers[i], corpus, &models[i]));
    }

    mmopt_loader *loader;
    check(mmopt_loader_create(corpus, (const mmopt_tokenizer **)tokenizers, 2, NULL, &loader));
    mmopt_trainer_options options;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = 5e-4;
    options.lr_schedule = MMOPT_LR_SCHEDULE_LINEAR;
    options.total_steps = mmopt_loader_n_batches(loader); /* mutual learning sets in over half of them */
    mmopt_trainer *trainer;
    check(mmopt_trainer_create(&options, (const mmopt_model **)models, 2, &trainer));

    mmopt_batch *batch;
    for (int step = 1; check(mmopt_loader_next(loader, &batch)), batch != NULL; step++) {
        mmopt_train_result results[2];
        check(mmopt_trainer_forward_backward_batch(trainer, batch, results));
        check(mmopt_trainer_step(trainer, NULL));
        printf("step %d: bert %.3f gpt2 %.3f\n", step, results[0].loss, results[1].loss);
        mmopt_batch_free(batch);
    }
    for (size_t i = 0; i < 2; i++) { /* directories that predict.c and Hugging Face libraries load */
        check(mmopt_trainer_save_model(trainer, i, names[i]));
        check(mmopt_tokenizer_save(tokenizers[i], names[i]));
    }
    return 0;
}
