/* Trains a BERT and a GPT-2 together to tell classes of texts: classification [FILE], where each
 * line is text TAB label; without a file the sentences are generated. */
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
    size_t n_epochs = argc > 1 ? 4 : 3;

    if (argc > 1)
        check(mmopt_corpus_read_classification(argv[1], NULL, &all));
    else
        check(mmopt_corpus_synthetic(900, 1, 0.0, &all));
    check(mmopt_corpus_split(all, 0.1, 1, &train, &eval));
    for (size_t i = 0; i < 2; i++) {
        mmopt_tokenizer_options words;
        mmopt_model_config sizes;
        mmopt_tokenizer_options_init(&words);
        words.architecture = mmopt_architecture_from_name(names[i]);
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
    options.learning_rate = argc > 1 ? 5e-4 : 3e-3;
    options.lr_schedule = MMOPT_LR_SCHEDULE_LINEAR;
    options.total_steps = n_epochs * mmopt_loader_n_batches(loader);
    check(mmopt_trainer_create(&options, (const mmopt_model **)models, 2, &trainer));
    mmopt_fit_options_init(&fit);
    fit.epochs = n_epochs;
    fit.jsonl_path = "classification.jsonl"; /* report.c makes a page of it */
    check(mmopt_trainer_fit(trainer, loader, (const mmopt_loader **)&eval_loader, 1, &fit, NULL,
                            NULL, NULL, NULL));
    for (size_t i = 0; i < 2; i++) { /* directories that predict.c reads */
        check(mmopt_trainer_evaluate_loader(trainer, i, eval_loader, NULL, &scores[i], NULL));
        check(mmopt_trainer_save_model(trainer, i, names[i]));
        check(mmopt_tokenizer_save(tokenizers[i], names[i]));
    }
    printf("classification: bert %.3f gpt2 %.3f\n", scores[0].accuracy, scores[1].accuracy);
    return 0;
}
