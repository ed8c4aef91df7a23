/* Trains a GPT-2 on text, then makes it a classifier that starts from what it read: language_model
 * [FILE], where each line is text TAB label; without a file the sentences are generated. */
#include "example.h"

/* Trains one model for some epochs and writes it to a directory. */
static mmopt_scores train(const mmopt_model *model, const mmopt_corpus *corpus,
                          const mmopt_corpus *eval, const mmopt_tokenizer *tokenizer,
                          double learning_rate, size_t n_epochs, const char *directory)
{
    mmopt_loader *loader, *eval_loader;
    mmopt_trainer_options options;
    mmopt_trainer *trainer;
    mmopt_fit_options fit;
    mmopt_scores scores;

    check(mmopt_loader_create(corpus, &tokenizer, 1, NULL, &loader));
    check(mmopt_loader_create(eval, &tokenizer, 1, NULL, &eval_loader));
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.learning_rate = learning_rate;
    options.lr_schedule = MMOPT_LR_SCHEDULE_LINEAR;
    options.total_steps = n_epochs * mmopt_loader_n_batches(loader);
    check(mmopt_trainer_create(&options, &model, 1, &trainer));
    mmopt_fit_options_init(&fit);
    fit.epochs = n_epochs;
    check(mmopt_trainer_fit(trainer, loader, NULL, 0, &fit, NULL, NULL, NULL, NULL));
    check(mmopt_trainer_evaluate_loader(trainer, 0, eval_loader, NULL, &scores, NULL));
    check(mmopt_trainer_save_model(trainer, 0, directory));
    check(mmopt_tokenizer_save(tokenizer, directory));
    mmopt_trainer_free(trainer);
    return scores;
}

int main(int argc, char **argv)
{
    mmopt_corpus *all, *labelled, *eval, *text, *eval_text;
    mmopt_tokenizer *tokenizer;
    mmopt_tokenizer_options words;
    mmopt_model_config sizes;
    mmopt_model *reader, *classifier;

    if (argc > 1)
        check(mmopt_corpus_read_classification(argv[1], NULL, &all));
    else
        check(mmopt_corpus_synthetic(600, 1, 0.0, &all));
    check(mmopt_corpus_split(all, 0.1, 1, &labelled, &eval));
    check(mmopt_corpus_plain_text(labelled, &text));
    check(mmopt_corpus_plain_text(eval, &eval_text));
    mmopt_tokenizer_options_init(&words);
    words.architecture = MMOPT_ARCHITECTURE_GPT2;
    words.model_max_length = 64;
    check(mmopt_tokenizer_train(text, &words, &tokenizer));
    mmopt_model_config_init(&sizes);
    sizes.architecture = words.architecture;
    if (argc == 1)
        sizes.n_layers = 1, sizes.hidden_size = 32, sizes.dropout = 0;
    check(mmopt_model_for_corpus("reader", &sizes, tokenizer, text, &reader));
    mmopt_scores read = train(reader, text, eval_text, tokenizer, 5e-3, 3, "reader");
    check(mmopt_model_pretrained_for_corpus("gpt2", "reader", tokenizer, labelled, &classifier));
    mmopt_scores scores = train(classifier, labelled, eval, tokenizer, 1e-3, 2, "gpt2");
    printf("language_model: perplexity %.1f accuracy %.3f\n", read.perplexity, scores.accuracy);
    return 0;
}
