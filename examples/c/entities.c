/* Trains a BERT and a GPT-2 together to find named entities: entities [FILE], where each line is a
 * word and its tag, and blank lines separate sentences (CoNLL); without a file the sentences are
 * generated. */
#include "example.h"

int main(int argc, char **argv)
{
    const char *const names[2] = {"bert", "gpt2"};
    mmopt_corpus *all, *train, *eval;
    mmopt_tokenizer *tokenizers[2];
    mmopt_model *models[2];
    mmopt_loader *loader, *eval_loader;
    mmopt_trainer *trainer;
    mmopt_fit_options fit;
    mmopt_scores scores[2];
    size_t n_epochs = argc > 1 ? 12 : 3;

    if (argc > 1)
        check(mmopt_corpus_read_token_classification(argv[1], NULL, &all));
    else
        check(mmopt_corpus_synthetic_entities(600, 1, &all));
    check(mmopt_corpus_split(all, 0.1, 1, &train, &eval));
    for (size_t i = 0; i < 2; i++) {
        mmopt_tokenizer_options words;
        mmopt_model_config sizes;
        mmopt_tokenizer_options_init(&words);
        words.architecture = mmopt_architecture_from_name(names[i]);
        words.lowercase = 0; /* capital letters tell names */
        check(mmopt_tokenizer_train(train, &words, &tokenizers[i]));
        mmopt_model_config_init(&sizes);
        sizes.architecture = words.architecture;
        if (argc == 1)
            sizes.n_layers = 1, sizes.hidden_size = 32, sizes.dropout = 0;
        check(mmopt_model_for_corpus(names[i], &sizes, tokenizers[i], train, &models[i]));
    }
    check(mmopt_loader_create(train, (const mmopt_tokenizer **)tokenizers, 2, NULL, &loader));
    check(mmopt_loader_create(eval, (const mmopt_tokenizer **)tokenizers, 2, NULL, &eval_loader));

    mmopt_trainer_options options;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = argc > 1 ? 1e-3 : 5e-3;
    options.lr_schedule = MMOPT_LR_SCHEDULE_LINEAR;
    options.total_steps = n_epochs * mmopt_loader_n_batches(loader);
    check(mmopt_trainer_create(&options, (const mmopt_model **)models, 2, &trainer));
    mmopt_fit_options_init(&fit);
    fit.epochs = n_epochs;
    fit.jsonl_path = "entities.jsonl"; /* report.c makes a page of it */
    check(mmopt_trainer_fit(trainer, loader, (const mmopt_loader **)&eval_loader, 1, &fit, NULL,
                            NULL, NULL, NULL));
    for (size_t i = 0; i < 2; i++) { /* directories that predict.c reads */
        check(mmopt_trainer_evaluate_loader(trainer, i, eval_loader, NULL, &scores[i], NULL));
        check(mmopt_trainer_save_model(trainer, i, names[i]));
        check(mmopt_tokenizer_save(tokenizers[i], names[i]));
    }
    printf("entities: bert %.3f gpt2 %.3f\n", scores[0].entity_f1, scores[1].entity_f1);
    return 0;
}
