// Trains a BERT to find named entities in the sentences of a file (a word and its tag on each line,
// blank lines between sentences), or in generated ones, and shows those of a new sentence.
#include <mmopt.hpp>

#include <cstdio>

static void run(const mmopt::corpus &all, bool is_real) {
    const auto [train, eval] = all.split(0.1, 1);
    auto words = mmopt::tokenizer_options();
    words.lowercase = 0; // capital letters tell names
    std::vector<mmopt::tokenizer> tokenizers;
    tokenizers.push_back(mmopt::tokenizer::train(train, words));
    auto sizes = mmopt::model_config();
    if (!is_real) {
        sizes.n_layers = 1;
        sizes.hidden_size = 32;
        sizes.dropout = 0;
    }
    std::vector<mmopt::model> models;
    models.push_back(mmopt::model::for_corpus("bert", sizes, tokenizers[0], train));

    const std::size_t n_epochs = is_real ? 12 : 3;
    mmopt::loader loader(train, tokenizers), eval_loader(eval, tokenizers);
    auto options = mmopt::trainer_options();
    options.learning_rate = is_real ? 1e-3 : 1e-2;
    options.lr_schedule = MMOPT_LR_SCHEDULE_LINEAR;
    options.total_steps = n_epochs * loader.n_batches();
    mmopt::trainer trainer(models, options);
    for (std::size_t epoch = 0; epoch < n_epochs; epoch++) {
        for (const auto &batch : loader) {
            trainer.forward_backward(batch);
            trainer.step();
        }
    }
    const auto scores = trainer.evaluate(0, eval_loader);
    const auto found = trainer.predict(0, tokenizers[0], {"Belan moved to Garaton last year."});
    for (const auto &entity : found[0])
        std::printf("%s %s %.2f\n", entity.label.c_str(), entity.text.c_str(), entity.probability);
    std::printf("entities: bert %.3f\n", scores.entity_f1);
}

int main(int argc, char **argv) {
    try {
        run(argc > 1 ? mmopt::corpus::read_token_classification(argv[1])
                     : mmopt::corpus::synthetic_entities(600, 1),
            argc > 1);
    } catch (const mmopt::error &e) {
        std::fprintf(stderr, "error %u: %s\n", static_cast<unsigned>(e.code()), e.what());
        return 1;
    }
    return 0;
}
