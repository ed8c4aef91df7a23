// The C++ wrapper: ownership, errors, views, and a training.
#include <mmopt.hpp>
#include <mmopt.hpp>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <type_traits>

static int n_failed = 0;

#define CHECK(condition)                                                            \
    do {                                                                            \
        if (!(condition)) {                                                         \
            n_failed++;                                                             \
            std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);     \
        }                                                                           \
    } while (0)

static std::uint32_t code_of(const std::function<void()> &call) {
    try {
        call();
    } catch (const mmopt::error &e) {
        CHECK(e.what()[0] != '\0');
        return e.code();
    }
    return MMOPT_CODE_OK;
}

static_assert(!std::is_copy_constructible_v<mmopt::corpus>);
static_assert(std::is_nothrow_move_constructible_v<mmopt::trainer>);
static_assert(std::is_nothrow_move_assignable_v<mmopt::batch>);

static void test_text() {
    auto corpus = mmopt::corpus::from_texts({"one two", "two three"}, {"a", "b"});
    const mmopt_corpus *raw = corpus.get();
    auto moved = std::move(corpus);
    CHECK(moved.get() == raw && corpus.get() == nullptr && corpus.size() == 0);
    CHECK(moved.size() == 2 && moved.labels() == std::vector<std::string>({"a", "b"}));
    CHECK(moved.text(1) == "two three" && moved.majority_share() == 0.5);
    mmopt_corpus_free(moved.release());
    CHECK(moved.get() == nullptr);

    CHECK(code_of([] { (void)mmopt::corpus::read_classification("/nonexistent"); }) ==
          MMOPT_CODE_NOT_FOUND);
    CHECK(code_of([] { (void)mmopt::corpus::from_texts({"a"}, {"x", "y"}); }) ==
          MMOPT_CODE_INVALID_ARGUMENT);
    CHECK(code_of([] { (void)mmopt::tokenizer::load("/nonexistent"); }) == MMOPT_CODE_NOT_FOUND);
    CHECK(code_of([] { (void)mmopt::architecture("yak"); }) == MMOPT_CODE_NOT_FOUND);
    CHECK(mmopt::architecture("gpt2") == MMOPT_ARCHITECTURE_GPT2);
    CHECK(mmopt::version() == MMOPT_VERSION);
}

static void test_training(const std::string &folder) {
    const auto corpus = mmopt::corpus::synthetic(64, 1, 0.0);
    std::vector<mmopt::tokenizer> tokenizers;
    std::vector<mmopt::model> models;
    for (const char *name : {"bert", "gpt2"}) {
        auto words = mmopt::tokenizer_options();
        words.architecture = mmopt::architecture(name);
        words.vocab_size = 400;
        words.max_length = 32;
        tokenizers.push_back(mmopt::tokenizer::train(corpus, words));
        auto sizes = mmopt::model_sizes();
        sizes.architecture = words.architecture;
        sizes.layers = 1;
        sizes.hidden = 16;
        sizes.heads = 2;
        models.push_back(mmopt::model::for_corpus(name, sizes, tokenizers.back(), corpus));
    }
    models[0].set_weight(2).set_seed(7).freeze("*.token_type_embeddings.*");
    CHECK(models[0].label(1) == "1");
    const auto ids = tokenizers[0].encode("splendid film");
    CHECK(tokenizers[0].decode(ids) == "splendid film");

    auto options = mmopt::trainer_options();
    options.learning_rate = 3e-3;
    mmopt::trainer trainer(models, options);
    models.clear();
    CHECK(trainer.model_names() == std::vector<std::string>({"bert", "gpt2"}));
    CHECK(trainer.plan().find("attention query") != std::string::npos);
    mmopt::loader loader(corpus, tokenizers);
    CHECK(code_of([&] { trainer.step(); }) == MMOPT_CODE_STATE);
    while (const auto batch = loader.next()) {
        trainer.zero_grad();
        const auto outcomes = trainer.forward_backward(*batch);
        CHECK(outcomes.size() == 2 && std::isfinite(outcomes[1].loss));
        CHECK(trainer.step().n_updated == 2);
    }
    CHECK(loader.epoch() == 1 && trainer.n_steps() == loader.n_batches());
    CHECK(trainer.rates(0).share > 0.6);
    const auto parameters = trainer.parameters(1);
    CHECK(!parameters.empty() && parameters[0].shape().size() == 2);
    CHECK(parameters[0].data<float>().size() ==
          static_cast<std::size_t>(parameters[0].shape()[0] * parameters[0].shape()[1]));
    CHECK(code_of([&] { (void)parameters[0].data<double>(); }) == MMOPT_CODE_INVALID_ARGUMENT);

    trainer.save_model(0, folder + "/bert");
    trainer.checkpoint(folder + "/c", loader.state());
    CHECK(trainer.resume(folder + "/c") == loader.state());
    std::vector<mmopt::model> again;
    again.push_back(mmopt::model::from_directory("again", folder + "/bert"));
    mmopt::trainer reader(again);
    tokenizers.pop_back();
    const auto texts = mmopt::batch::encode(tokenizers, {"a fine film", "dull"});
    const auto a = trainer.evaluate(0, texts.tensors(0)), b = reader.evaluate(0, texts.tensors(0));
    CHECK(std::isnan(a.loss()) && a.n_labels() == 0 && a.outputs()[0].name() == "logits");
    CHECK(a.outputs()[0].data<float>()[3] == b.outputs()[0].data<float>()[3]);
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 2;
    test_text();
    if (std::getenv("MMOPT_ORT_LIB") != nullptr)
        test_training(argv[1]);
    else
        std::puts("not run: training, no ONNX Runtime");
    return n_failed == 0 ? 0 : 1;
}
