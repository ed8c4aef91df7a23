#include <mmopt.h>
#include <stdio.h>
#include <stdlib.h>
static void check(mmopt_error *e) { if (e) { puts(mmopt_error_message(e)); exit(1); } }
int main(int argc, char **argv) { /* two_models FILE: one sentence a line, text TAB label */
    mmopt_corpus *corpus; mmopt_tokenizer *words[2]; mmopt_model *models[2];
    mmopt_loader *loader; mmopt_batch *batch; mmopt_trainer *trainer; mmopt_train_result got[2];
    mmopt_trainer_options opt; mmopt_trainer_options_init(&opt, MMOPT_PRESET_DEFAULT);
    opt.learning_rate = 5e-4;
    check(mmopt_corpus_read_classification(argc > 1 ? argv[1] : "train.tsv", NULL, &corpus));
    for (int i = 0; i < 2; i++) {
        mmopt_tokenizer_options cut; mmopt_tokenizer_options_init(&cut);
        mmopt_model_config config; mmopt_model_config_init(&config);
        config.architecture = cut.architecture = i + 1; /* 1 is BERT, 2 is GPT-2 */
        check(mmopt_tokenizer_train(corpus, &cut, &words[i]));
        check(mmopt_model_for_corpus(i ? "gpt2" : "bert", &config, words[i], corpus, &models[i])); }
    check(mmopt_loader_create(corpus, (const mmopt_tokenizer **)words, 2, NULL, &loader));
    check(mmopt_trainer_create(&opt, (const mmopt_model **)models, 2, &trainer));
    for (int step = 1; check(mmopt_loader_next(loader, &batch)), batch; mmopt_batch_free(batch)) {
        check(mmopt_trainer_forward_backward_batch(trainer, batch, got));
        check(mmopt_trainer_step(trainer, NULL));
        printf("step %d: bert %.3f gpt2 %.3f\n", step++, got[0].loss, got[1].loss);
    }
    for (int i = 0; i < 2; i++) check(mmopt_trainer_save_model(trainer, i, i ? "gpt2" : "bert")); }
