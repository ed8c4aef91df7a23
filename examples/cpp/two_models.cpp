// Trains a BERT and a GPT-2 together on the labelled sentences of a file (one a line: text TAB
// label), or on generated ones.
#include <mmopt.hpp>

#include <cstdio>

static void train(const mmopt::corpus &corpus) {
    std::vector<mmopt::tokenizer> tokenizers;
    std::vector<mmopt::model> models;
    for (const std::uint32_t architecture : {MMOPT_ARCHITECTURE_BERT, MMOPT_ARCHITECTURE_GPT2}) {
        auto options = mmopt::tokenizer_options();
        options.architecture = architecture;
        options.vocab_size = 2000;
        options.model_max_length = 64;
        tokenizers.push_back(mmopt::tokenizer::train(corpus, options));
        auto sizes = mmopt::model_config();
        sizes.architecture = architecture;
        sizes.hidden_size = 64;
        models.push_back(mmopt::model::for_corpus(mmopt::architecture_name(architecture), sizes,
                                                  tokenizers.back(), corpus));
    }
    mmopt::loader loader(corpus, tokenizers);
    auto options = mmopt::trainer_options();
    options.learning_rate = 1e-3;
    options.total_steps = loader.n_batches(); // mutual learning sets in over half of them
    options.lr_schedule = MMOPT_LR_SCHEDULE_LINEAR;
    mmopt::trainer trainer(models, options);
    std::vector<mmopt_train_result> results;
    for (const auto &batch : loader) {
        results = trainer.forward_backward(batch);
        trainer.step();
    }
    std::printf("two_models: bert %.3f gpt2 %.3f\n", results[0].loss, results[1].loss);
}

int main(int argc, char **argv) {
    try {
        train(argc > 1 ? mmopt::corpus::read_classification(argv[1])
                       : mmopt::corpus::synthetic(512, 1));
    } catch (const mmopt::error &e) {
        std::fprintf(stderr, "error %u: %s\n", static_cast<unsigned>(e.code()), e.what());
        return 1;
    }
    return 0;
}
