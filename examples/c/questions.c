/* Fine-tunes a published BERT to answer questions about contexts: questions [FILE DIR], where FILE
 * is SQuAD's or an object a line, and DIR holds the model and its tokenizer; without them a fresh
 * model learns generated questions. */
#include "example.h"

static mmopt_loader *load(const mmopt_corpus *corpus, const mmopt_tokenizer *tokenizer,
                          int training)
{
    mmopt_loader *loader;
    mmopt_loader_options options;
    mmopt_loader_options_init(&options);
    options.max_length = 128;
    options.shuffle = training;
    options.all_windows = !training; /* a long context in parts */
    check(mmopt_loader_create(corpus, &tokenizer, 1, &options, &loader));
    return loader;
}

int main(int argc, char **argv)
{
    mmopt_corpus *all, *train, *eval;
    mmopt_tokenizer *tokenizer;
    mmopt_model *model;
    mmopt_trainer *trainer;
    mmopt_fit_options fit;
    mmopt_scores scores;
    const size_t n_epochs = argc > 2 ? 1 : 4;

    if (argc > 2) {
        check(mmopt_corpus_read_question_answering(argv[1], &all));
        check(mmopt_corpus_split(all, 0.1, 1, &train, &eval));
        check(mmopt_tokenizer_load(argv[2], &tokenizer));
        check(mmopt_model_pretrained_for_corpus("bert", argv[2], tokenizer, train, &model));
    } else {
        mmopt_model_config sizes;
        check(mmopt_corpus_synthetic_questions(600, 1, &all));
        check(mmopt_corpus_split(all, 0.1, 1, &train, &eval));
        check(mmopt_tokenizer_train(train, NULL, &tokenizer));
        mmopt_model_config_init(&sizes);
        sizes.hidden_size = 32, sizes.dropout = 0;
        check(mmopt_model_for_corpus("bert", &sizes, tokenizer, train, &model));
    }
    mmopt_loader *loader = load(train, tokenizer, 1), *eval_loader = load(eval, tokenizer, 0);
    mmopt_trainer_options options;
    mmopt_trainer_options_init(&options, MMOPT_PRESET_INDEPENDENT); /* one model alone */
    options.learning_rate = argc > 2 ? 1e-4 : 5e-3;
    options.lr_schedule = MMOPT_LR_SCHEDULE_LINEAR;
    options.total_steps = n_epochs * mmopt_loader_n_batches(loader);
    check(mmopt_trainer_create(&options, (const mmopt_model **)&model, 1, &trainer));
    mmopt_fit_options_init(&fit);
    fit.epochs = n_epochs;
    fit.jsonl_path = "questions.jsonl"; /* report.c makes a page of it */
    check(mmopt_trainer_fit(trainer, loader, NULL, 0, &fit, NULL, NULL, NULL, NULL));
    check(mmopt_trainer_evaluate_loader(trainer, 0, eval_loader, NULL, &scores, NULL));
    check(mmopt_trainer_save_model(trainer, 0, "bert")); /* a directory that predict.c reads */
    check(mmopt_tokenizer_save(tokenizer, "bert"));
    printf("questions: exact match %.1f f1 %.1f\n", scores.exact_match, scores.answer_f1);
    return 0;
}
