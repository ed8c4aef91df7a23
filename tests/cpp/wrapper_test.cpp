// The C++ wrapper: ownership, errors, views, callbacks, training, gradient mode.
#include <mmopt.hpp>
#include <mmopt.hpp>

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>
#if __cplusplus >= 202002L
#include <span>
#endif

namespace {

/// The code of the mmopt::error that a call throws; MMOPT_CODE_OK when it throws none.
template <class F> std::uint32_t code_of(F &&call) {
    try {
        call();
    } catch (const mmopt::error &e) {
        EXPECT_STRNE(e.what(), "");
        return e.code();
    }
    return MMOPT_CODE_OK;
}

std::string scratch(const std::string &name) { return testing::TempDir() + name; }

std::string write_file(const std::string &name, const std::string &text) {
    const std::string path = scratch(name);
    std::ofstream(path, std::ios::binary) << text;
    return path;
}

template <class T> constexpr bool is_owner() {
    return !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
           std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>;
}
static_assert(is_owner<mmopt::corpus>() && is_owner<mmopt::tokenizer>());
static_assert(is_owner<mmopt::encoding>() && is_owner<mmopt::batch>());
static_assert(is_owner<mmopt::loader>() && is_owner<mmopt::model>());
static_assert(is_owner<mmopt::evaluation>() && is_owner<mmopt::cancel_token>());
static_assert(is_owner<mmopt::trainer>() && is_owner<mmopt::optimizer>());
static_assert(is_owner<mmopt::managed_tensor>());

static_assert(std::is_convertible_v<std::vector<float> &, mmopt::span<float>>);
static_assert(std::is_convertible_v<const std::array<float, 2> &, mmopt::span<const float>>);
static_assert(!std::is_convertible_v<const std::vector<float> &, mmopt::span<float>>);
static_assert(!std::is_convertible_v<std::vector<double> &, mmopt::span<float>>);
#if __cplusplus >= 202002L
static_assert(std::is_convertible_v<std::span<const float>, mmopt::span<const float>>);
static_assert(std::is_convertible_v<mmopt::span<const float>, std::span<const float>>);
static_assert(std::ranges::contiguous_range<mmopt::span<float>>);
#endif

TEST(Ownership, MovesReleasesAndFrees) {
    auto corpus = mmopt::corpus::from_texts({"one two", "two three"}, {"a", "b"});
    const mmopt_corpus *raw = corpus.get();
    auto moved = std::move(corpus);
    EXPECT_EQ(moved.get(), raw);
    EXPECT_FALSE(corpus);
    EXPECT_EQ(corpus.size(), 0U);
    EXPECT_TRUE(moved);
    moved = mmopt::corpus::from_texts({"x"});
    EXPECT_EQ(moved.size(), 1U);
    mmopt_corpus_free(moved.release());
    EXPECT_EQ(moved.get(), nullptr);
    auto again = mmopt::corpus::from_texts({"x"});
    again.free();
    EXPECT_FALSE(again);
}

TEST(Errors, HaveCodes) {
    using mmopt::corpus;
    EXPECT_EQ(code_of([] { (void)corpus::read_classification("/none"); }), MMOPT_CODE_NOT_FOUND);
    EXPECT_EQ(code_of([] { (void)corpus::read_token_classification("/none"); }), MMOPT_CODE_NOT_FOUND);
    EXPECT_EQ(code_of([] { (void)corpus::read_question_answering("/none"); }), MMOPT_CODE_NOT_FOUND);
    EXPECT_EQ(code_of([] { (void)corpus::read_plain_text("/none"); }), MMOPT_CODE_NOT_FOUND);
    EXPECT_EQ(code_of([] { (void)corpus::from_texts({"a"}, {"x", "y"}); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_EQ(code_of([] { (void)mmopt::tokenizer::load("/none"); }), MMOPT_CODE_NOT_FOUND);
    EXPECT_EQ(code_of([] { (void)mmopt::architecture("yak"); }), MMOPT_CODE_NOT_FOUND);
    EXPECT_EQ(code_of([] { (void)mmopt::model::from_config_json("m", "{"); }),
              MMOPT_CODE_INVALID_DATA);
    EXPECT_EQ(code_of([] { (void)mmopt::architecture(std::string("gpt2\0x", 6)); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_NE(code_of([] { mmopt::load_runtime("/none/libonnxruntime.so"); }), MMOPT_CODE_OK);
    EXPECT_EQ(mmopt::architecture_name(mmopt::architecture("gpt2")), "gpt2");
    EXPECT_EQ(mmopt::version(), MMOPT_VERSION);
    EXPECT_EQ(mmopt::version_number(), static_cast<std::uint32_t>(MMOPT_VERSION_NUMBER));
}

TEST(Text, CorporaAreRead) {
    const auto tagged = mmopt::corpus::read_token_classification(write_file("t.txt", "a X\nb Y\n\nc X\n"));
    EXPECT_EQ(tagged.size(), 2U);
    EXPECT_EQ(tagged.labels(), std::vector<std::string>({"X", "Y"}));
    const auto held_out = mmopt::corpus::read_token_classification(write_file("h.txt", "a Y\n"), &tagged);
    EXPECT_EQ(held_out.labels().size(), 2U);
    EXPECT_EQ(held_out.label_count(1), 1U);
    const auto questions = mmopt::corpus::read_question_answering(write_file(
        "q.jsonl", R"({"context": "It is red.", "question": "What?", "answers": {"text": ["red"],)"
                   R"( "answer_start": [6]}})"
                   "\n"));
    EXPECT_EQ(questions.text(0), "It is red.");
    const auto untagged = mmopt::corpus::read_words(write_file("w.txt", "a\nb c\n\nd\n"));
    EXPECT_EQ(mmopt::corpus::concatenate(tagged, untagged).size(), 4U);
    EXPECT_EQ(code_of([&] { (void)mmopt::corpus::concatenate(questions, tagged); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    const auto lines = mmopt::corpus::read_plain_text(write_file("p.txt", "one\ntwo\n"),
                                                      MMOPT_SAMPLE_BY_LINE);
    EXPECT_EQ(lines.size(), 2U);
    std::vector<mmopt::tokenizer> by;
    by.push_back(mmopt::tokenizer::train(lines));
    const std::string tokens = write_file("p.tokens", "not yet");
    const auto written = mmopt::write_token_file(write_file("p.txt", "one\ntwo\n"), by[0], tokens);
    EXPECT_GT(written, 2U);
    auto mapped = mmopt::loader::from_token_files({tokens}, by);
    EXPECT_EQ(mapped.encoding_stats(0).n_rows, 1U);
    EXPECT_EQ(mapped.next()->n_rows(0), 1U);
    EXPECT_EQ(code_of([&] { (void)mmopt::loader::from_token_files({}, by); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    const auto classes = mmopt::corpus::read_classification(write_file("c.tsv", "x\t1\ny\t0\n"));
    EXPECT_EQ(classes.label(0), 1);
    EXPECT_EQ(mmopt::corpus::from_texts({"z"}, {"0"}, &classes).label(0), 0);
    EXPECT_EQ(mmopt::corpus::from_texts({"z"}).label(0), -1);
    EXPECT_EQ(questions.pair(0), "What?");
    EXPECT_EQ(classes.pair(0), std::nullopt);
    EXPECT_EQ(mmopt::corpus::from_pairs({"a"}, {"b"}, {"1"}, &classes).pair(0), "b");
    EXPECT_EQ(code_of([] { (void)mmopt::corpus::from_pairs({"a"}, {}); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    const auto tags =
        mmopt::corpus::from_label_names(MMOPT_TASK_TOKEN_CLASSIFICATION, {"Y", "Z", "X"});
    EXPECT_EQ(mmopt::corpus::read_token_classification(write_file("n.txt", "# a = b\na X\n"), &tags)
                  .label_count(2),
              1U);
    auto nested = mmopt::corpus_options();
    nested.text_column = "data.text";
    EXPECT_EQ(mmopt::corpus::read_classification(
                  write_file("n.json", R"([{"data": {"text": "in"}, "label": 1}])"), nested)
                  .text(0),
              "in");
    const auto [train, eval] = mmopt::corpus::synthetic(40, 1).split(0.25, 2);
    EXPECT_EQ(train.size() + eval.size(), 40U);
    const auto [few, others] = train.sample(8, 1);
    EXPECT_EQ(few.size(), 8U);
    const auto mixed = mmopt::corpus::concatenate(few, others.without_labels());
    EXPECT_EQ(mixed.size(), train.size());
    EXPECT_EQ(mixed.label(8), -1);
    std::vector<mmopt::corpus> parts;
    parts.push_back(mmopt::corpus::from_texts({"x"}));
    parts.push_back(mmopt::corpus::from_texts({"y"}));
    EXPECT_EQ(mmopt::corpus::concatenate(parts).text(1), "y");
    const std::vector<std::size_t> chosen = {9, 0};
    EXPECT_EQ(mixed.subset(chosen).text(1), mixed.text(0));
    EXPECT_EQ(mmopt::loader_options().unlabelled_ratio, 0.0);
    EXPECT_GE(train.majority_fraction(), 0.5);
    EXPECT_EQ(mmopt::corpus::synthetic_entities(9, 1).labels().size(), 7U);
    EXPECT_EQ(mmopt::corpus::synthetic_questions(9, 1).plain_text().size(), 18U);
}

TEST(Text, TokenizersEncode) {
    const auto corpus = mmopt::corpus::from_texts({"low lower lowest", "low low lower"});
    auto options = mmopt::tokenizer_options();
    options.vocab_size = 60;
    options.model_max_length = 16;
    const auto words = mmopt::tokenizer::train(corpus, options);
    const auto one = words.encode("low lower");
    EXPECT_EQ(one.size(), 4U);
    EXPECT_EQ(one.ids()[0], words.special_token_id(MMOPT_SPECIAL_TOKEN_CLS));
    EXPECT_EQ(words.decode(one.ids()), "low lower");
    EXPECT_EQ(one.offsets().size(), 8U);
    EXPECT_EQ(one.offsets()[4], 4U);
    const auto pair = words.encode_pair("low", "lower");
    EXPECT_EQ(pair.type_ids()[pair.size() - 1], 1U);
    EXPECT_EQ(words.encode("low low low", 4).n_truncated(), 1U);
    EXPECT_FALSE(words.special_token_id(MMOPT_SPECIAL_TOKEN_BOS).has_value());
    EXPECT_EQ(words.model_max_length(), 16U);
    words.save(testing::TempDir());
    EXPECT_EQ(mmopt::tokenizer::load(testing::TempDir()).vocab_size(), words.vocab_size());
}

TEST(Views, LookAtHostMemoryAndDlpack) {
    const std::vector<float> values = {1, 2, 3, 4};
    const std::array<std::int64_t, 2> shape = {2, 2};
    const mmopt::tensor view("x", shape, values);
    EXPECT_EQ(view.data<float>()[3], 4);
    EXPECT_EQ(code_of([&] { (void)view.data<double>(); }), MMOPT_CODE_INVALID_ARGUMENT);
    const auto managed = view.to_dlpack();
    const auto back = mmopt::tensor::from_dlpack("y", managed.get());
    EXPECT_EQ(back.name(), "y");
    EXPECT_EQ(back.shape()[1], 2);
    EXPECT_EQ(back.data<float>()[2], 3);
    EXPECT_NE(back.bytes(), view.bytes());
    const auto parameter = mmopt::host_parameter::from_dlpack("p", managed.get(), nullptr);
    EXPECT_EQ(parameter.data, back.data<float>().data());
    EXPECT_EQ(parameter.shape, std::vector<std::int64_t>({2, 2}));
    EXPECT_EQ(code_of([&] { (void)mmopt::tensor::from_dlpack("z", nullptr); }),
              MMOPT_CODE_INVALID_ARGUMENT);
}

/// Two tiny models over generated sentences.
struct Joint : testing::Test {
    mmopt::corpus corpus = mmopt::corpus::synthetic(64, 1, 0.0);
    std::vector<mmopt::tokenizer> tokenizers;
    std::vector<mmopt::model> models;

    void SetUp() override {
        if (std::getenv("MMOPT_ORT_LIB") == nullptr)
            GTEST_SKIP() << "not run: no ONNX Runtime, MMOPT_ORT_LIB is not set";
        for (const char *name : {"bert", "gpt2"}) {
            auto words = mmopt::tokenizer_options();
            words.architecture = mmopt::architecture(name);
            words.vocab_size = 400;
            words.model_max_length = 32;
            tokenizers.push_back(mmopt::tokenizer::train(corpus, words));
            auto sizes = mmopt::model_config();
            sizes.architecture = words.architecture;
            sizes.n_layers = 1;
            sizes.hidden_size = 16;
            sizes.n_heads = 2;
            models.push_back(mmopt::model::for_corpus(name, sizes, tokenizers.back(), corpus));
        }
    }

    mmopt::loader loader() const {
        auto options = mmopt::loader_options();
        options.seed = 3;
        return mmopt::loader(corpus, tokenizers, options);
    }

    mmopt::trainer trainer() const {
        auto options = mmopt::trainer_options();
        options.learning_rate = 3e-3;
        return mmopt::trainer(models, options);
    }

    mmopt::batch batch() const { return std::move(*loader().next()); }
};

TEST_F(Joint, LoaderWalksEpochs) {
    auto walk = loader();
    std::size_t n = 0;
    for (const auto &batch : walk) {
        EXPECT_EQ(batch.n_models(), 2U);
        EXPECT_EQ(batch.examples(0).size(), batch.n_rows(0));
        EXPECT_EQ(walk.position(), ++n);
    }
    EXPECT_EQ(n, walk.n_batches());
    EXPECT_GT(walk.encoding_stats(0).n_tokens, walk.encoding_stats(0).n_rows);
    EXPECT_EQ(walk.epoch(), 1U);
    walk.set_epoch(0);
    const auto state = walk.state();
    const auto first = walk.next();
    walk.restore(state);
    const auto again = walk.next();
    EXPECT_EQ(first->tensors(1)["input_ids"].data<std::int64_t>()[0],
              again->tensors(1)["input_ids"].data<std::int64_t>()[0]);
    EXPECT_EQ(code_of([&] { (void)first->tensors(0)["yak"]; }), MMOPT_CODE_NOT_FOUND);
    EXPECT_EQ(code_of([&] { walk.restore("{}"); }), MMOPT_CODE_INVALID_DATA);
}

TEST_F(Joint, ExamplesAreDrawnByWeight) {
    auto options = mmopt::loader_options();
    std::vector<double> weights(corpus.size());
    weights[5] = 1;
    options.sampling = MMOPT_SAMPLING_WEIGHTED;
    options.example_weights = weights.data();
    options.n_example_weights = weights.size();
    options.n_samples = 10;
    options.max_tokens = 512;
    mmopt::loader walk(corpus, tokenizers, options);
    std::size_t drawn = 0;
    for (const auto &batch : walk)
        for (const auto example : batch.examples(1))
            drawn += example == 5 ? 1 : 100;
    EXPECT_EQ(drawn, 10U);
}

TEST_F(Joint, ModelsAreEvaluatedByTheMeansOfTheirWeights) {
    auto options = mmopt::trainer_options();
    options.learning_rate = 0.01;
    options.options_json = R"({"ema_decay": 0.9})";
    mmopt::trainer joint(models, options);
    (void)joint.forward_backward(batch());
    joint.step();
    // One in the middle: the first row, of the padding token, stays zero.
    const auto one = [&] {
        const auto values = joint.parameters(0)[std::size_t{0}].data<float>();
        return values[values.size() / 2];
    };
    const float own = one();
    EXPECT_NE(joint.with_ema_weights(one), own);
    EXPECT_EQ(one(), own);
    EXPECT_THROW(joint.with_ema_weights([&] { joint.step(); }), mmopt::error);
    EXPECT_EQ(one(), own);
    joint.use_ema_weights(true);
    EXPECT_EQ(code_of([&] { joint.step(); }), MMOPT_CODE_STATE);
    joint.use_ema_weights(false);
    mmopt::trainer without(models, mmopt::trainer_options(MMOPT_PRESET_INDEPENDENT));
    EXPECT_EQ(code_of([&] { without.use_ema_weights(true); }), MMOPT_CODE_STATE);
}

TEST_F(Joint, ModelsLearnFromEachOther) {
    auto options = mmopt::trainer_options();
    options.options_json = R"({"mutual": {"teacher": "peers"}})";
    mmopt::trainer mutual(models, options);
    for (const auto &result : mutual.forward_backward(batch()))
        EXPECT_GT(result.mutual_loss, 0.0);
    mmopt::trainer alone(models, mmopt::trainer_options(MMOPT_PRESET_INDEPENDENT));
    for (const auto &result : alone.forward_backward(batch()))
        EXPECT_EQ(result.mutual_loss, 0.0);
}

TEST_F(Joint, AFreshModelStartsFromOneWithWeights) {
    const auto folder = scratch("start");
    trainer().save_model(0, folder);
    auto options = mmopt::trainer_options();
    options.options_json = R"({"start": "pretrained", "start_from": "bert"})";
    models[0] = mmopt::model::from_directory("bert", folder);
    EXPECT_EQ(code_of([&] { mmopt::trainer(models, options); }), MMOPT_CODE_INVALID_ARGUMENT);
    models[0].set_tokenizer(tokenizers[0]);
    const mmopt::trainer started(models, options);
    EXPECT_NE(started.plan().find("token embedding from 'bert': "), std::string::npos);
    EXPECT_NE(started.plan_json().find(R"("start":{"from":"bert")"), std::string::npos);
}

TEST_F(Joint, WeightsOfOneTaskTrainForAnother) {
    const auto folder = scratch("pretrained");
    trainer().save_model(0, folder);
    models.erase(models.begin() + 1);
    models[0] = mmopt::model::from_directory("bert", folder);
    models[0].set_task(MMOPT_TASK_SEQUENCE_CLASSIFICATION, 3).set_label_names({"a", "b", "c"});
    EXPECT_EQ(code_of([&] { (void)mmopt::trainer(models); }), MMOPT_CODE_SHAPE);
    models[0].set_fresh_head();
    EXPECT_NE(models[0].report().find("newly initialised: classifier"), std::string::npos);
    EXPECT_EQ(models[0].label_name(2), "c");
    mmopt::trainer(models).save_model(0, folder);
    EXPECT_EQ(mmopt::model::from_directory("bert", folder).label_name(1), "b");
    models[0].set_fresh_weights();
    EXPECT_NE(models[0].report_json().find(R"("fresh_weights":true)"), std::string::npos);
    EXPECT_EQ(code_of([&] { models[0].set_label_names({}); }), MMOPT_CODE_INVALID_ARGUMENT);
}

TEST_F(Joint, AdaptersAreTrainedAndSavedAlone) {
    const auto folder = scratch("adapters");
    auto options = mmopt::adapter_options();
    options.rank = 2;
    options.alpha = 5;
    models[0].add_adapters({"query", "value"}, options);
    models[1].add_adapters({"c_attn"});
    EXPECT_EQ(code_of([&] { models[0].add_adapters({}); }), MMOPT_CODE_INVALID_ARGUMENT);
    const auto batch = this->batch();
    auto joint = trainer();
    joint.forward_backward(batch);
    joint.step();
    const auto loss = joint.evaluate(0, batch.tensors(0)).loss();
    joint.save_adapters(0, folder);
    std::ifstream file(folder + "/adapter_config.json");
    const std::string saved{std::istreambuf_iterator<char>(file), {}};
    EXPECT_NE(saved.find(R"("r": 2)"), std::string::npos) << saved;
    EXPECT_NE(saved.find(R"("lora_alpha": 5)"), std::string::npos) << saved;
    models[0].load_adapters(folder);
    auto again = trainer();
    EXPECT_EQ(again.evaluate(0, batch.tensors(0)).loss(), loss);
    EXPECT_EQ(code_of([&] { again.save_adapters(2, folder); }), MMOPT_CODE_INVALID_ARGUMENT);
}

TEST_F(Joint, TrainsSavesAndResumes) {
    models[0].set_weight(2).set_seed(7).set_dropout(0.05).freeze("*.token_type_embeddings.*");
    models[1].train_only("transformer.*").train_only("score.*");
    EXPECT_EQ(models[0].label_name(1), "1");
    auto joint = trainer();
    models.clear();
    EXPECT_EQ(joint.model_index("gpt2"), 1U);
    EXPECT_NE(joint.plan().find("attention query"), std::string::npos);
    EXPECT_EQ(joint.plan_json()[0], '{');
    EXPECT_NE(joint.memory_report().find(R"("pass":0,)"), std::string::npos);
    auto walk = loader();
    EXPECT_EQ(code_of([&] { joint.step(); }), MMOPT_CODE_STATE);
    for (const auto &batch : walk) {
        EXPECT_EQ(joint.memory_report(batch).find(R"("pass":0,)"), std::string::npos);
        joint.zero_grad();
        const auto results = joint.forward_backward(batch);
        EXPECT_EQ(results.size(), 2U);
        EXPECT_TRUE(std::isfinite(results[1].loss));
        EXPECT_EQ(joint.step().n_updated, 2U);
    }
    EXPECT_EQ(joint.n_steps(), walk.n_batches());
    EXPECT_GT(joint.rates(0).weight, 0.6);

    const auto folder = scratch("joint");
    joint.save_model(0, folder + "/bert");
    joint.save_checkpoint(folder + "/c", walk.state());
    EXPECT_EQ(joint.resume(folder + "/c"), walk.state());
    auto keep = mmopt::checkpoint_options();
    keep.keep_last = 1;
    keep.asynchronous = 1;
    EXPECT_EQ(joint.save_checkpoint(folder + "/kept", "mine", keep), "");
    EXPECT_NE(joint.wait_for_checkpoint().find("step-"), std::string::npos);
    EXPECT_EQ(joint.wait_for_checkpoint(), "");
    keep.asynchronous = 0;
    const auto place = joint.save_checkpoint(folder + "/kept", "mine", keep);
    auto listed = mmopt::list_checkpoints(folder + "/kept");
    EXPECT_NE(listed.json.find(place), std::string::npos);
    EXPECT_EQ(listed.n_damaged, 0U);
    EXPECT_EQ(mmopt::prune_checkpoints(folder + "/c", 1), "[]");
    std::vector<mmopt::model> again;
    again.push_back(mmopt::model::from_directory("again", folder + "/bert"));
    mmopt::trainer reader(again);
    auto next = mmopt::model::pretrained_for_corpus("next", folder + "/bert", tokenizers[0],
                                                     mmopt::corpus::synthetic_entities(9, 1));
    EXPECT_EQ(next.label_name(1), "B-PER");
    tokenizers.pop_back();
    const auto texts = mmopt::batch::encode(tokenizers, {"a fine film", "dull"});
    const auto a = joint.evaluate(0, texts.tensors(0)), b = reader.evaluate(0, texts.tensors(0));
    EXPECT_TRUE(std::isnan(a.loss()));
    EXPECT_EQ(a.n_labels() + a.n_correct(), 0U);
    EXPECT_EQ(a.outputs()["logits"].data<float>()[3], b.outputs()[0].data<float>()[3]);
}

TEST(Text, IsGenerated) {
    if (std::getenv("MMOPT_ORT_LIB") == nullptr)
        GTEST_SKIP() << "not run: no ONNX Runtime, MMOPT_ORT_LIB is not set";
    const auto plain = mmopt::corpus::synthetic(40, 1, 0.0).plain_text();
    auto options = mmopt::tokenizer_options();
    options.architecture = MMOPT_ARCHITECTURE_GPT2;
    options.vocab_size = 300;
    options.model_max_length = 24;
    std::vector<mmopt::tokenizer> words;
    words.push_back(mmopt::tokenizer::train(plain, options));
    auto sizes = mmopt::model_config();
    sizes.architecture = MMOPT_ARCHITECTURE_GPT2;
    sizes.n_layers = 1;
    sizes.hidden_size = 16;
    std::vector<mmopt::model> models;
    models.push_back(mmopt::model::for_corpus("writer", sizes, words[0], plain));
    mmopt::trainer writer(models);
    auto how = mmopt::generate_options();
    how.max_new_tokens = 5;
    how.do_sample = 1;
    const auto a = writer.generate(0, words[0], {"the film", "what"}, how);
    EXPECT_EQ(a.size(), 2U);
    EXPECT_TRUE(a[0][0].label == "length" || a[0][0].label == "stop");
    const auto folder = scratch("writer");
    writer.save_model(0, folder);
    words[0].save(folder);
    const auto b = mmopt::predictor::load(folder).generate({"the film", "what"}, how);
    EXPECT_EQ(a[1][0].text, b[1][0].text);
    EXPECT_EQ(a[1][0].score, b[1][0].score);
    how.top_p = 2;
    EXPECT_EQ(code_of([&] { (void)writer.generate(0, words[0], {"x"}, how); }),
              MMOPT_CODE_INVALID_ARGUMENT);
}

TEST_F(Joint, ALoaderIsScored) {
    auto joint = trainer();
    auto walk = loader();
    std::uint64_t n_correct = 0, n_labels = 0;
    double loss = 0;
    for (const auto &batch : walk) {
        const auto part = joint.evaluate(1, batch.tensors(1));
        n_correct += part.n_correct();
        n_labels += part.n_labels();
        loss += part.loss() * static_cast<double>(part.n_labels());
    }
    const auto found = joint.evaluate(1, walk);
    EXPECT_EQ(walk.position(), 0U);
    EXPECT_EQ(found.n_labels, n_labels);
    EXPECT_EQ(found.n_correct, n_correct);
    EXPECT_NEAR(found.loss, loss / static_cast<double>(n_labels), 1e-6);
    EXPECT_EQ(found.score, static_cast<double>(n_correct) / static_cast<double>(n_labels));
    EXPECT_TRUE(std::isnan(found.answer_f1));
    EXPECT_NE(found.json.find("\"confusion_matrix\":[["), std::string::npos);
    auto options = mmopt::evaluate_options();
    options.max_answer_tokens = 0;
    EXPECT_EQ(code_of([&] { (void)joint.evaluate(1, walk, options); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_EQ(code_of([&] { (void)joint.evaluate(2, walk); }), MMOPT_CODE_INVALID_ARGUMENT);
}

TEST_F(Joint, FitIsTheLoop) {
    auto joint = trainer();
    auto walk = loader();
    const auto held_out = loader();
    const auto folder = scratch("fit");
    const auto checkpoints = folder + "/checkpoints", events = folder + "/events";
    auto options = mmopt::fit_options();
    options.epochs = 1;
    options.keep_best = 1;
    options.checkpoint_dir = checkpoints.c_str();
    options.tensorboard_dir = events.c_str();
    unsigned n_steps = 0, n_evaluations = 0;
    const auto until = [&](std::uint64_t last) {
        return [&, last](const mmopt_fit_progress &progress) {
            ++(progress.event == MMOPT_FIT_EVENT_STEP ? n_steps : n_evaluations);
            return progress.step < last;
        };
    };
    auto result = joint.fit(walk, {&held_out}, options, until(3));
    EXPECT_EQ(result.reason, static_cast<std::uint32_t>(MMOPT_STOP_REASON_CANCELLED));
    EXPECT_EQ(result.steps, 3U);
    options.resume = 1;
    result = joint.fit(walk, {&held_out}, options, until(99));
    EXPECT_EQ(result.reason, static_cast<std::uint32_t>(MMOPT_STOP_REASON_EPOCHS));
    EXPECT_EQ(result.steps, 4U);
    EXPECT_EQ(n_steps, 4U);
    EXPECT_EQ(n_evaluations, 1U);
    ASSERT_EQ(result.models.size(), 2U);
    EXPECT_EQ(result.models[1].step, 4U);
    EXPECT_EQ(result.restored_best, 1U);
    struct stop {};
    auto rest = mmopt::fit_options();
    EXPECT_THROW(joint.fit(walk, {}, rest,
                           [](const mmopt_fit_progress &) -> bool { throw stop(); }),
                 stop);
    EXPECT_EQ(joint.n_steps(), 5U);
    rest.log_every = 0;
    EXPECT_EQ(code_of([&] { joint.fit(walk, {}, rest); }), MMOPT_CODE_INVALID_ARGUMENT);
}

TEST_F(Joint, LearningRatesAreTried) {
    auto joint = trainer();
    auto walk = loader();
    auto options = mmopt::find_learning_rate_options();
    EXPECT_EQ(options.n_steps, 100U);
    options.n_steps = 4;
    options.min_lr = 1e-3;
    options.divergence = 1e9;
    const auto curve = joint.find_learning_rate(walk, options);
    EXPECT_EQ(walk.position(), 0U);
    EXPECT_EQ(joint.n_steps(), 0U);
    ASSERT_EQ(curve.losses.size(), 2U);
    EXPECT_EQ(curve.losses[1].size(), curve.rates.size());
    EXPECT_GT(curve.losses[1].at(0), 0);
    EXPECT_NEAR(curve.rates.at(1) / curve.rates.at(0), 10, 1e-6);
    EXPECT_EQ(curve.suggestions.size(), 2U);
    options.min_lr = 0;
    EXPECT_EQ(code_of([&] { (void)joint.find_learning_rate(walk, options); }),
              MMOPT_CODE_INVALID_ARGUMENT);
}

TEST_F(Joint, TextsArePredictedFromATrainerAndFromFiles) {
    auto joint = trainer();
    const auto folder = scratch("predictor");
    joint.save_model(0, folder);
    tokenizers[0].save(folder);
    const std::vector<std::string> texts{"a splendid film", "dull", "a fine story"};
    const auto a = joint.predict(0, tokenizers[0], texts);
    const auto loaded = mmopt::predictor::load(folder);
    const auto b = loaded.predict(texts);
    ASSERT_EQ(a.size(), 3U);
    for (std::size_t i = 0; i < 3; i++) {
        ASSERT_EQ(a[i].size(), 2U);
        EXPECT_EQ(a[i][0].label, b[i][0].label);
        EXPECT_EQ(a[i][0].score, b[i][0].score);
        EXPECT_NEAR(a[i][0].probability + a[i][1].probability, 1, 1e-12);
        EXPECT_GE(a[i][0].probability, a[i][1].probability);
        EXPECT_TRUE(a[i][0].text.empty());
    }
    EXPECT_NE(loaded.predict(texts, texts)[0][0].score, b[0][0].score);
    EXPECT_TRUE(loaded.predict({}).empty());
    const std::vector<std::string> one{"x"};
    EXPECT_EQ(code_of([&] { (void)loaded.predict(texts, one); }), MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_EQ(code_of([&] { (void)joint.predict(0, tokenizers[0], texts, one); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_EQ(code_of([&] { (void)mmopt::predictor::load(folder + "/none"); }),
              MMOPT_CODE_NOT_FOUND);
}

TEST_F(Joint, ScoresActAndMetricsAreRead) {
    auto options = mmopt::trainer_options();
    options.lr_schedule = MMOPT_LR_SCHEDULE_PLATEAU;
    options.options_json = R"({"weighting": "validation", "metrics_every": 1,
                               "plateau": {"factor": 0.5, "patience": 0}})";
    mmopt::trainer joint(models, options);
    EXPECT_EQ(code_of([&] { (void)joint.metrics_json(); }), MMOPT_CODE_STATE);
    const std::vector<double> scores{0.9, 0.5}, one{0.5};
    EXPECT_EQ(code_of([&] { joint.report_validation(one); }), MMOPT_CODE_INVALID_ARGUMENT);
    joint.report_validation(scores);
    joint.report_validation(scores);
    joint.forward_backward(batch());
    joint.step();
    EXPECT_GT(joint.rates(0).weight, 0.55);
    EXPECT_EQ(joint.rates(0).schedule, 0.5);
    EXPECT_NE(joint.metrics_json().find("\"step\":1"), std::string::npos);
}

TEST_F(Joint, ModelsAndParametersAreRanges) {
    auto joint = trainer();
    const auto batch = this->batch();
    std::vector<std::string> names;
    std::size_t n_elements = 0;
    for (const auto model : joint.models()) {
        names.emplace_back(model.name());
        for (const auto parameter : model.parameters()) {
            EXPECT_TRUE(parameter.trainable()) << parameter.name();
            n_elements += parameter.data<float>().size();
        }
    }
    EXPECT_EQ(names, std::vector<std::string>({"bert", "gpt2"}));
    EXPECT_GT(n_elements, 1000U);
    const auto all = joint.parameters(1);
    const auto parameter = all["transformer.ln_f.bias"];
    EXPECT_EQ(parameter.index(), all.index("transformer.ln_f.bias"));
    EXPECT_EQ(parameter.shape()[0], 16);
    EXPECT_EQ(std::distance(all.begin(), all.end()), static_cast<std::ptrdiff_t>(all.size()));
    EXPECT_EQ(code_of([&] { (void)all["yak"]; }), MMOPT_CODE_NOT_FOUND);
    EXPECT_EQ(code_of([&] { (void)all[all.size()]; }), MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_EQ(code_of([&] { (void)parameter.gradient(); }), MMOPT_CODE_STATE);

    joint.forward_backward(batch);
    EXPECT_EQ(parameter.gradient().data<float>().size(), 16U);
    const std::vector<float> ones(16, 1.0F);
    joint.set_gradient(1, parameter.index(), ones);
    EXPECT_EQ(parameter.gradient().data<float>()[7], 1);
    joint.set_parameter(1, parameter.index(), ones);
    EXPECT_EQ(parameter.data<float>()[7], 1);
    const std::vector<double> wrong_type(8, 1.0);
    EXPECT_EQ(code_of([&] { joint.set_parameter(1, parameter.index(), wrong_type); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    const std::vector<float> too_few(3, 1.0F);
    EXPECT_NE(code_of([&] { joint.set_gradient(1, parameter.index(), too_few); }), MMOPT_CODE_OK);
    EXPECT_EQ(joint.set_trainable("gpt2", "*.ln_f.*", false), 2U);
    joint.step();
    EXPECT_EQ(parameter.data<float>()[7], 1);
    joint.set_model_weight(0, 3);
    joint.set_learning_rate(1e-4);
    joint.log_metrics(std::vector<double>{1.0, 2.0});
}

TEST_F(Joint, HostTensorsGoIn) {
    auto joint = trainer();
    const std::vector<std::int64_t> ids = {2, 9, 10, 3}, mask = {1, 1, 1, 1}, types(4, 0),
                                    labels = {1};
    const std::array<std::int64_t, 2> shape = {1, 4};
    const std::array<std::int64_t, 1> rows = {1};
    const mmopt::tensor input("input_ids", shape, ids), seen("attention_mask", shape, mask),
        kinds("token_type_ids", shape, types), wanted("labels", rows, labels);
    joint.prepare(1, {input, seen, wanted});
    EXPECT_EQ(code_of([&] { joint.prepare(1, {input, seen}); }), MMOPT_CODE_NOT_FOUND);
    const auto one = joint.forward_backward(1, {input, seen, wanted});
    EXPECT_EQ(one.n_labels, 1U);
    joint.zero_grad();
    const std::vector<std::vector<mmopt::tensor>> both = {{input, seen, kinds, wanted},
                                                          {input, seen, wanted}};
    EXPECT_EQ(joint.forward_backward(both)[1].n_labels, 1U);
    joint.step();
    EXPECT_EQ(joint.evaluate(1, {input, seen, wanted}).n_labels(), 1U);
    EXPECT_EQ(code_of([&] { joint.forward_backward(1, {input, seen}); }), MMOPT_CODE_NOT_FOUND);
}

TEST_F(Joint, CallbacksAreAsked) {
    auto first = trainer();
    std::vector<std::uint32_t> phases;
    std::vector<std::string> rated, messages;
    first.set_progress_callback([&](const mmopt_progress &progress) {
        phases.push_back(progress.phase);
        return true;
    });
    first.set_rate_callback([&](std::string_view model, std::uint64_t step, double) {
        rated.push_back(std::string(model) + std::to_string(step));
        return 1e-5;
    });
    first.set_log_callback(MMOPT_LOG_LEVEL_WARNING, [&](std::uint32_t level, std::string_view text) {
        EXPECT_EQ(level, MMOPT_LOG_LEVEL_WARNING);
        messages.emplace_back(text);
    });
    // The callbacks stay with the object as it moves.
    auto joint = std::move(first);
    const auto batch = this->batch();
    joint.forward_backward(batch);
    const auto weight = joint.parameters(0)["classifier.weight"];
    joint.set_gradient(0, weight.index(),
                       std::vector<float>(weight.data<float>().size(), std::nanf("")));
    EXPECT_EQ(joint.step().n_skipped, 1U);
    EXPECT_EQ(phases, std::vector<std::uint32_t>({MMOPT_PHASE_FORWARD_BACKWARD, MMOPT_PHASE_STEP}));
    EXPECT_EQ(rated, std::vector<std::string>({"bert1", "gpt21"}));
    EXPECT_EQ(joint.rates(1).effective, 1e-5);
    ASSERT_EQ(messages.size(), 1U);
    EXPECT_NE(messages[0].find("skipped"), std::string::npos);

    joint.set_progress_callback([](const mmopt_progress &) { return false; });
    EXPECT_EQ(code_of([&] { joint.forward_backward(batch); }), MMOPT_CODE_CANCELLED);
    joint.set_progress_callback({});
    joint.set_rate_callback({});
    joint.set_log_callback(MMOPT_LOG_LEVEL_OFF, {});
    joint.forward_backward(batch);
    joint.step();
    EXPECT_EQ(rated.size(), 2U);
}

TEST_F(Joint, ExceptionsOfCallbacksComeOutOfTheCall) {
    struct stop {};
    auto joint = trainer();
    const auto batch = this->batch();
    joint.set_progress_callback([](const mmopt_progress &) -> bool { throw stop(); });
    EXPECT_THROW(joint.forward_backward(batch), stop);
    EXPECT_THROW((void)joint.evaluate(0, batch.tensors(0)), stop);
    joint.set_progress_callback({});
    EXPECT_EQ(code_of([&] { joint.step(); }), MMOPT_CODE_STATE) << "the pass must not count";

    joint.forward_backward(batch);
    const auto bias = joint.parameters(1)["transformer.ln_f.bias"];
    const float before = bias.data<float>()[0];
    joint.set_rate_callback(
        [](std::string_view, std::uint64_t, double) -> double { throw stop(); });
    EXPECT_THROW(joint.step(), stop);
    EXPECT_EQ(bias.data<float>()[0], before);
    EXPECT_EQ(joint.n_steps(), 0U);
    joint.set_rate_callback({});
    EXPECT_EQ(joint.step().n_updated, 2U) << "the step can be taken later";

    bool throws = false;
    joint.set_log_callback(MMOPT_LOG_LEVEL_WARNING, [&](std::uint32_t, std::string_view) {
        if (throws)
            throw stop();
    });
    joint.forward_backward(batch);
    joint.set_gradient(1, bias.index(), std::vector<float>(16, INFINITY));
    throws = true;
    EXPECT_THROW(joint.step(), stop);
    EXPECT_EQ(joint.n_steps(), 2U) << "the step that was logged is done";

    // A callback that calls the object it is set on gets an error, which comes out too.
    joint.set_log_callback(MMOPT_LOG_LEVEL_OFF, {});
    joint.set_progress_callback([&](const mmopt_progress &) {
        joint.zero_grad();
        return true;
    });
    EXPECT_EQ(code_of([&] { joint.forward_backward(batch); }), MMOPT_CODE_STATE);
}

TEST_F(Joint, ReleasedTrainersHaveNoCallbacks) {
    auto joint = trainer();
    joint.set_progress_callback([](const mmopt_progress &) { return false; });
    mmopt::trainer again(joint.release());
    EXPECT_EQ(again.forward_backward(batch()).size(), 2U);
}

TEST_F(Joint, AnotherThreadCancels) {
    auto joint = trainer();
    const auto batch = this->batch();
    const auto cancel_token = joint.cancel_token();
    std::thread([&] { cancel_token.cancel(); }).join();
    EXPECT_EQ(code_of([&] { joint.forward_backward(batch); }), MMOPT_CODE_CANCELLED);
    cancel_token.reset();
    EXPECT_EQ(joint.forward_backward(batch).size(), 2U);
}

TEST_F(Joint, ModelsComeFromEverywhere) {
    auto joint = trainer();
    const auto path = scratch("bert.onnx");
    joint.save_onnx(0, path);
    std::ifstream file(path, std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    auto loss = mmopt::loss_options();
    loss.label_smoothing = 0.1;
    std::vector<mmopt::model> all;
    all.push_back(mmopt::model::from_onnx("file", path, loss));
    all.push_back(mmopt::model::from_onnx_bytes("bytes", bytes.data(), bytes.size(), loss));
    auto sizes = mmopt::model_config();
    sizes.n_layers = 1;
    sizes.vocab_size = 400;
    sizes.n_labels = 3;
    all.push_back(mmopt::model::create("sizes", sizes));
    all.back().set_task(MMOPT_TASK_SEQUENCE_CLASSIFICATION, 2).set_loss(loss);
    all.push_back(mmopt::model::from_config_json(
        "config", R"({"model_type": "bert", "architectures": ["BertForSequenceClassification"],
                      "vocab_size": 400, "hidden_size": 16, "num_hidden_layers": 1,
                      "num_attention_heads": 2, "intermediate_size": 32,
                      "max_position_embeddings": 64})"));
    mmopt::trainer four(all);
    const auto batch = this->batch();
    const auto tensors = batch.tensors(0);
    std::vector<double> losses;
    for (std::size_t i = 0; i < 4; i++)
        losses.push_back(four.forward_backward(i, tensors).loss);
    EXPECT_EQ(losses[0], losses[1]);
    EXPECT_NE(losses[0], losses[3]);
    EXPECT_EQ(four.step().n_updated, 4U);
    EXPECT_FALSE(mmopt::runtime_version().empty());
    EXPECT_FALSE(mmopt::runtime_path().empty());
}

TEST_F(Joint, ModelsAreMendedAndReported) {
    auto joint = trainer();
    const auto path = scratch("mend.onnx");
    joint.save_onnx(0, path);
    auto file = mmopt::model::from_onnx("file", path);
    file.set_shared_initializers(MMOPT_SHARED_INITIALIZERS_SPLIT).set_duplicate_weights(MMOPT_DUPLICATE_WEIGHTS_TIE_ALL).set_restore_names(false);
    file.freeze_row("*word_embeddings.weight", 0);
    EXPECT_FALSE(file.report().empty());
    EXPECT_EQ(file.report_json()[0], '{');
    EXPECT_EQ(code_of([&] { file.set_duplicate_weights(99); }), MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_EQ(joint.model_report_json(1)[0], '{');
    EXPECT_NO_THROW((void)joint.model_report(0));

    const auto batch = this->batch();
    EXPECT_FALSE(joint.find_non_finite(0, batch.tensors(0)).has_value());
    const auto bias = joint.parameters(0)["classifier.bias"];
    joint.set_parameter(0, bias.index(), std::vector<float>(2, INFINITY));
    const auto found = joint.find_non_finite(0, batch.tensors(0));
    ASSERT_TRUE(found.has_value());
    EXPECT_FALSE(found->text.empty());
    EXPECT_EQ(found->json[0], '{');

    const mmopt_gradient_output pair = {"weight", "weight_gradient"};
    auto options = mmopt::precomputed_gradient_options();
    options.loss = "loss";
    options.gradients = &pair;
    options.n_gradients = 1;
    file.set_precomputed_gradients(options);
    EXPECT_EQ(code_of([&] { mmopt::model::create("m").set_precomputed_gradients(options); }),
              MMOPT_CODE_INVALID_ARGUMENT);
}

TEST_F(Joint, GradientsAreShownBeforeTheStep) {
    struct stop {};
    auto joint = trainer();
    const auto batch = this->batch();
    const auto bias = joint.parameters(0)["classifier.bias"];
    const float before = bias.data<float>()[0];
    std::size_t n = 0;
    joint.set_gradient_callback([&](const mmopt_gradient_view &gradient) -> std::uint32_t {
        n++;
        const bool is_bias = gradient.model == 0 && gradient.parameter == bias.index();
        return is_bias ? MMOPT_GRADIENT_ACTION_HANDLED : MMOPT_GRADIENT_ACTION_USE;
    });
    joint.forward_backward(batch);
    joint.step();
    EXPECT_GT(n, 10U);
    EXPECT_EQ(bias.data<float>()[0], before);
    joint.set_gradient_callback([](const mmopt_gradient_view &) -> std::uint32_t { throw stop(); });
    joint.forward_backward(batch);
    EXPECT_THROW(joint.step(), stop);
    joint.set_gradient_callback({});
    joint.step();
    EXPECT_NE(bias.data<float>()[0], before);

    // Views of the trainer's memory may outlive it.
    const auto value = bias.value_dlpack(), gradient = bias.gradient_dlpack(true);
    const auto view = mmopt::tensor::from_dlpack("value", value.get());
    EXPECT_EQ(view.bytes(), bias.value().bytes());
    joint.free();
    EXPECT_EQ(view.data<float>().size(), 2U);
}

TEST(GradientMode, StridesAndDlpack) {
    std::vector<float> weights(4), gradients = {0, 1, 0, 0};
    mmopt::host_parameter weight;
    weight.name = "weight";
    weight.shape = {2, 2};
    weight.data = weights.data();
    weight.gradient = gradients.data();
    weight.gradient_strides = {1, 2};
    mmopt::host_model model;
    model.name = "model";
    model.parameters = {weight};
    model.stable_gradients = true;
    const std::vector<mmopt::host_model> models = {model};
    auto options = mmopt::trainer_options(MMOPT_PRESET_INDEPENDENT);
    options.learning_rate = 0.1;
    mmopt::optimizer optimizer(models, options);
    optimizer.accumulate(0, 1.0);
    optimizer.step();
    EXPECT_LT(weights[2], 0) << "the gradient is transposed";
    EXPECT_EQ(weights[1], 0);
    const std::array<std::int64_t, 2> dense = {2, 1}, shape = {2, 2};
    optimizer.set_gradient(0, 0, gradients.data(), MMOPT_DTYPE_F32, dense);
    optimizer.accumulate(0, 1.0);
    optimizer.step();
    EXPECT_LT(weights[1], 0);
    auto managed = mmopt::tensor("g", shape, gradients).to_dlpack();
    managed = mmopt::managed_tensor::from_unversioned(managed.release_unversioned());
    optimizer.set_gradient(0, 0, std::move(managed));
    EXPECT_EQ(managed.get(), nullptr);
    optimizer.keep_dlpack(mmopt::tensor("k", shape, gradients).to_dlpack());
    auto later = mmopt::tensor("v", shape, gradients).to_dlpack();
    std::uint32_t &major = *reinterpret_cast<std::uint32_t *>(later.get());
    major = 2;
    const auto take = [&] { const mmopt::managed_tensor taken(later.get()); };
    EXPECT_EQ(code_of(take), MMOPT_CODE_UNSUPPORTED);
    major = 0;
    EXPECT_EQ(code_of(take), MMOPT_CODE_UNSUPPORTED);
    major = 1;
    static_assert(!std::is_constructible<mmopt::managed_tensor, void *>::value);
    static_assert(!std::is_constructible<mmopt::managed_tensor, DLManagedTensor *>::value);
    const auto lent = mmopt::tensor("l", shape, gradients).to_dlpack();
    EXPECT_EQ(mmopt::host_parameter::from_dlpack_strided("p", lent.get(), nullptr).shape[1], 2);
    optimizer.accumulate(0, 1.0);
    optimizer.step();
    auto wrong = models;
    wrong[0].parameters[0].strides = {1};
    EXPECT_EQ(code_of([&] { mmopt::optimizer refused(wrong); }), MMOPT_CODE_SHAPE);
}

/// Two models of the host that pull their weights towards 1.
struct Host {
    std::array<std::vector<float>, 2> weights = {std::vector<float>(12), std::vector<float>(12)};
    std::array<std::vector<float>, 2> gradients = weights;

    std::vector<mmopt::host_model> describe() {
        std::vector<mmopt::host_model> models;
        for (std::size_t i = 0; i < 2; i++) {
            mmopt::host_parameter query;
            query.name = "encoder.layer.0.attention.self.query.weight";
            query.shape = {3, 4};
            query.data = weights[i].data();
            query.gradient = gradients[i].data();
            mmopt::host_model model;
            model.name = i == 0 ? "one" : "two";
            model.parameters.push_back(std::move(query));
            model.stable_gradients = true;
            models.push_back(std::move(model));
        }
        return models;
    }

    double backward(std::size_t i) {
        double loss = 0;
        for (std::size_t j = 0; j < weights[i].size(); j++) {
            gradients[i][j] = weights[i][j] - 1;
            loss += 0.5 * static_cast<double>(gradients[i][j] * gradients[i][j]);
        }
        return loss;
    }

    double train(mmopt::optimizer &optimizer, int n_steps) {
        double loss = 0;
        for (int step = 0; step < n_steps; step++) {
            loss = 0;
            for (std::size_t i = 0; i < 2; i++) {
                const double one = backward(i);
                optimizer.accumulate(i, one);
                loss += one;
            }
            EXPECT_EQ(optimizer.step().n_updated, 2U);
        }
        return loss;
    }
};

TEST(GradientMode, LearnsAndGoesOn) {
    auto options = mmopt::trainer_options();
    options.learning_rate = 0.05;
    Host host;
    mmopt::optimizer optimizer(host.describe(), options);
    EXPECT_EQ(optimizer.n_models(), 2U);
    EXPECT_NE(optimizer.plan().find("attention query"), std::string::npos);
    EXPECT_EQ(optimizer.plan_json()[0], '{');
    EXPECT_EQ(code_of([&] { optimizer.step(); }), MMOPT_CODE_STATE);
    const double first = host.train(optimizer, 1), last = host.train(optimizer, 100);
    EXPECT_LT(last, first / 10);
    EXPECT_GT(optimizer.rates(1).effective, 0);

    optimizer.save_checkpoint(scratch("state"));
    Host copy = host;
    mmopt::optimizer again(copy.describe(), options);
    again.resume(scratch("state"));
    EXPECT_EQ(host.train(optimizer, 5), copy.train(again, 5));
    EXPECT_EQ(host.weights[1], copy.weights[1]);
    EXPECT_EQ(code_of([&] { again.resume("/none"); }), MMOPT_CODE_NOT_FOUND);
}

TEST(GradientMode, ScoresActAndMetricsAreRead) {
    auto options = mmopt::trainer_options();
    Host host;
    options.options_json = R"({"max_loss_increase": 0.1})";
    EXPECT_EQ(code_of([&] { mmopt::optimizer refused(host.describe(), options); }),
              MMOPT_CODE_UNSUPPORTED);
    options.options_json = R"({"weighting": "validation", "metrics_every": 1})";
    mmopt::optimizer optimizer(host.describe(), options);
    EXPECT_EQ(code_of([&] { (void)optimizer.metrics_json(); }), MMOPT_CODE_STATE);
    optimizer.report_validation(std::vector<double>{0.9, 0.5});
    host.train(optimizer, 1);
    EXPECT_GT(optimizer.rates(0).weight, 0.55);
    EXPECT_NE(optimizer.metrics_json().find("\"step\":1"), std::string::npos);
}

TEST(GradientMode, SettersAndRefusals) {
    Host host;
    mmopt::optimizer optimizer(host.describe());
    optimizer.accumulate(0, 1.0);
    optimizer.zero_grad();
    EXPECT_EQ(code_of([&] { optimizer.step(); }), MMOPT_CODE_STATE);
    optimizer.set_learning_rate(0);
    optimizer.set_model_weight(0, 2);
    host.train(optimizer, 1);
    EXPECT_EQ(host.weights[0], std::vector<float>(12));
    EXPECT_EQ(code_of([&] { optimizer.set_learning_rate(-1); }), MMOPT_CODE_INVALID_ARGUMENT);
    std::vector<float> other(12, 1.0F);
    optimizer.set_learning_rate(0.1);
    optimizer.set_gradient(0, 0, other.data());
    optimizer.accumulate(0, 1.0);
    optimizer.step();
    EXPECT_LT(host.weights[0][0], 0);
    EXPECT_EQ(host.weights[1][0], 0);
    auto twice = host.describe();
    twice[1].name = "one";
    EXPECT_EQ(code_of([&] { mmopt::optimizer refused(twice); }), MMOPT_CODE_INVALID_ARGUMENT);
}

TEST(GradientMode, WeightsPlacesAndFreedGradients) {
    Host host;
    auto models = host.describe();
    models[0].stable_gradients = false;
    auto options = mmopt::trainer_options(MMOPT_PRESET_ADAMW);
    EXPECT_EQ(options.learning_rate, 1e-3);
    options.gradient_accumulation_steps = 2;
    options.learning_rate = 1;
    options.options_json = R"({"method": "sgd", "momentum": 0, "weight_decay": 0})";
    mmopt::optimizer optimizer(models, options);
    const auto accumulate = [&](float gradient, double weight) {
        auto fresh = std::vector<float>(12, gradient);
        optimizer.set_gradient(0, 0, fresh.data());
        optimizer.accumulate(0, 1.0, weight);
    };
    accumulate(1, 9);
    accumulate(11, 1);
    optimizer.step();
    EXPECT_NEAR(host.weights[0][0], -2, 1e-6);
    EXPECT_EQ(code_of([&] { optimizer.accumulate(0, 1.0); }), MMOPT_CODE_STATE);
    EXPECT_EQ(code_of([&] { optimizer.accumulate(1, 1.0, -1); }), MMOPT_CODE_INVALID_ARGUMENT);

    std::vector<float> moved(24, 5);
    const std::array<std::int64_t, 2> strides = {8, 2};
    optimizer.set_data(0, 0, moved.data(), strides);
    accumulate(1, 1);
    optimizer.step();
    EXPECT_EQ(moved[0], 4);
    EXPECT_EQ(moved[1], 5);
    optimizer.set_data(0, 0, moved.data() + 12);
    EXPECT_EQ(code_of([&] { optimizer.set_data(0, 0, nullptr); }), MMOPT_CODE_INVALID_ARGUMENT);
}

TEST(GradientMode, CallbacksDecideWithinAStep) {
    struct stop {};
    Host host;
    auto options = mmopt::trainer_options();
    options.learning_rate = 0.05;
    mmopt::optimizer first(host.describe(), options);
    std::size_t n = 0;
    first.set_gradient_callback([&](const mmopt_gradient_view &gradient) -> std::uint32_t {
        n++;
        return gradient.model == 0 ? MMOPT_GRADIENT_ACTION_HANDLED : MMOPT_GRADIENT_ACTION_USE;
    });
    // The callbacks move along.
    mmopt::optimizer optimizer(std::move(first));
    host.train(optimizer, 1);
    EXPECT_EQ(n, 2U);
    EXPECT_EQ(host.weights[0][0], 0);
    EXPECT_GT(host.weights[1][0], 0);
    optimizer.set_gradient_callback([](const mmopt_gradient_view &) -> std::uint32_t { throw stop(); });
    const auto before = host.weights;
    host.backward(0);
    optimizer.accumulate(0, 1.0);
    EXPECT_THROW(optimizer.step(), stop);
    EXPECT_EQ(host.weights, before);
    optimizer.set_gradient_callback({});
    optimizer.set_rate_callback(
        [](std::string_view, std::uint64_t, double) -> double { throw stop(); });
    EXPECT_THROW(optimizer.step(), stop);
    EXPECT_EQ(optimizer.n_steps(), 1U);
    optimizer.set_rate_callback([](std::string_view model, std::uint64_t step, double rate) {
        EXPECT_EQ(step, 2U);
        return model == "one" ? rate : 0;
    });
    optimizer.step();
    EXPECT_NE(host.weights[0], before[0]);
    EXPECT_EQ(host.weights[1], before[1]);
    EXPECT_EQ(optimizer.n_steps(), 2U);
    // What is let go has no callbacks any more.
    mmopt_optimizer *raw = optimizer.release();
    host.backward(1);
    mmopt::optimizer again(raw);
    again.accumulate(1, 1.0);
    again.step();
    EXPECT_NE(host.weights[1], before[1]);
}

TEST(Report, OfALog) {
    const std::string step = R"({"type":"step","step":1,"models":[{"name":"a","loss":0.5}]})";
    const std::string log = write_file("run.jsonl", step + "\n"), page = log + ".html";
    mmopt::report({log}, page);
    std::ifstream file(page);
    const std::string html{std::istreambuf_iterator<char>(file), {}};
    EXPECT_NE(html.find("<title>Training report: run</title>"), std::string::npos);
    EXPECT_EQ(code_of([&] { mmopt::report({}, page); }), MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_EQ(code_of([&] { mmopt::report({page}, log + "2"); }), MMOPT_CODE_INVALID_DATA);
}

// The expected numbers are those of scikit-learn, seqeval and SQuAD's evaluation script.
TEST(Metrics, OfClassesEntitiesAndAnswers) {
    const std::vector<std::int64_t> classes = {2, 0, 1, 1, 2, 0, 3};
    const std::vector<std::int64_t> labels = {2, 0, 0, 1, -100, 2, 2};
    EXPECT_DOUBLE_EQ(mmopt::metrics::accuracy(classes, labels), 0.5);
    EXPECT_DOUBLE_EQ(mmopt::metrics::macro_f1(classes, labels), 0.41666666666666663);
    EXPECT_EQ(code_of([&] { (void)mmopt::metrics::accuracy({classes.data(), 6}, labels); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_EQ(code_of([&] { (void)mmopt::metrics::macro_f1({classes.data(), 6}, labels); }),
              MMOPT_CODE_INVALID_ARGUMENT);

    const std::vector<std::string> tags = {"O", "B-PER", "I-PER"};
    const std::vector<std::int64_t> found = {1, 2, 0, 1, 0, 2}, right = {1, 2, 0, 1, 2, -100};
    const auto scores = mmopt::metrics::entities(found, right, 3, tags);
    EXPECT_DOUBLE_EQ(scores.f1, 0.5);
    EXPECT_DOUBLE_EQ(scores.accuracy, 0.8);
    EXPECT_EQ(scores.n_correct, 1U);
    EXPECT_NE(scores.by_type.find("\"PER\":{"), std::string::npos);
    EXPECT_EQ(code_of([&] { (void)mmopt::metrics::entities(found, right, 4, tags); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_EQ(code_of([&] { (void)mmopt::metrics::entities(found, right, 3, {"O"}); }),
              MMOPT_CODE_INVALID_ARGUMENT);

    EXPECT_EQ(mmopt::metrics::strict_entities(found, right, 3, tags).by_type.front(), '{');
    EXPECT_EQ(mmopt::metrics::confusion_matrix(classes, labels, 4)[2][3], 1U);
    EXPECT_EQ(mmopt::metrics::confusion_matrix("{\"confusion_matrix\": [[3]]}", 1)[0][0], 3U);
    EXPECT_EQ(code_of([&] {
                  (void)mmopt::metrics::confusion_matrix({classes.data(), 6}, labels, 4);
              }),
              MMOPT_CODE_INVALID_ARGUMENT);
    const std::vector<double> numbers = {1, 2, 2, 4}, wanted = {1, 3, 2, 4};
    EXPECT_DOUBLE_EQ(mmopt::metrics::regression(numbers, wanted).mse, 0.25);
    const std::vector<double> losses = {2, 2};
    const std::vector<std::uint64_t> n_tokens = {1, 5};
    EXPECT_DOUBLE_EQ(mmopt::metrics::perplexity(losses, n_tokens), std::exp(2.0));
    const auto answers = mmopt::metrics::answers(
        {"The Eiffel Tower!", "in  May 1907", "a quick brown fox", "something", ""},
        {{"eiffel tower"}, {"May 1907", "1907"}, {"the brown fox jumps", "quick fox"}, {}, {}});
    EXPECT_DOUBLE_EQ(answers.exact_match, 40);
    EXPECT_DOUBLE_EQ(answers.f1, 72);
    EXPECT_EQ(code_of([] { (void)mmopt::metrics::answers({"a"}, {}); }),
              MMOPT_CODE_INVALID_ARGUMENT);
}

TEST(Metrics, BestAnswerOfABatch) {
    const auto corpus = mmopt::corpus::read_question_answering(write_file(
        "answers.jsonl", R"({"context": "born in May", "question": "when?", )"
                         R"("answers": [{"text": "May", "answer_start": 8}]})"));
    std::vector<mmopt::tokenizer> tokenizers;
    auto options = mmopt::tokenizer_options();
    options.min_frequency = 1;
    tokenizers.push_back(mmopt::tokenizer::train(corpus, options));
    mmopt::loader loader(corpus, tokenizers);
    const auto batch = loader.next();
    ASSERT_TRUE(batch.has_value());
    const auto tensors = batch->tensors(0);
    const auto n = static_cast<std::size_t>(tensors["input_ids"].shape()[1]);
    std::vector<float> starts(n), ends(n);
    starts[static_cast<std::size_t>(tensors["start_positions"].data<std::int64_t>()[0])] = 1;
    ends[static_cast<std::size_t>(tensors["end_positions"].data<std::int64_t>()[0])] = 1;
    const auto best = batch->best_answer(0, 0, starts, ends);
    ASSERT_TRUE(best.has_value());
    EXPECT_EQ(best->text, "May");
    EXPECT_EQ(best->start, 8U);
    EXPECT_EQ(best->end, 11U);
    EXPECT_EQ(best->score, 2);
    EXPECT_EQ(code_of([&] { (void)batch->best_answer(0, 1, starts, ends); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    EXPECT_EQ(code_of([&] { (void)batch->best_answer(0, 0, starts, {ends.data(), n - 1}); }),
              MMOPT_CODE_INVALID_ARGUMENT);
}

/// A rank by itself. It fails with a text if it has one.
class alone final : public mmopt::transport {
  public:
    alone(std::string fails, int *n_freed, std::string *aborted)
        : fails_(std::move(fails)), n_freed_(n_freed), aborted_(aborted) {}
    ~alone() override { ++*n_freed_; }
    std::size_t rank() const noexcept override { return 0; }
    std::size_t size() const noexcept override { return 1; }
    void all_reduce(void *, std::size_t n, std::uint32_t dtype) override {
        EXPECT_TRUE(n > 0 && is_number(dtype)) << n << " of " << dtype;
        if (!fails_.empty())
            throw std::runtime_error(fails_);
    }
    void broadcast(void *, std::size_t n, std::size_t root) override {
        EXPECT_TRUE(n > 0 && root == 0) << n << " from " << root;
    }
    void all_gather(const void *data, std::size_t n, void *all) override {
        std::memcpy(all, data, n);
    }
    void reduce_scatter(void *data, std::size_t n, std::uint32_t dtype, void *part) override {
        EXPECT_TRUE(n > 0 && is_number(dtype)) << n << " of " << dtype;
        std::memcpy(part, data, n * (dtype == MMOPT_DTYPE_F32 ? 4 : 8));
    }
    void send(const void *, std::size_t, std::size_t) override {}
    void receive(void *, std::size_t, std::size_t) override {}
    void barrier() override {}
    void abort(const char *message) noexcept override { *aborted_ = message; }

  private:
    static bool is_number(std::uint32_t dtype) {
        return dtype == MMOPT_DTYPE_F32 || dtype == MMOPT_DTYPE_F64 || dtype == MMOPT_DTYPE_U64 ||
               dtype == MMOPT_DTYPE_I64;
    }

    std::string fails_;
    int *n_freed_;
    std::string *aborted_;
};

TEST(Communicator, CarriesAndFailsAsItsTransportDoes) {
    int n_freed = 0;
    std::string aborted;
    {
        const mmopt::communicator good(std::make_unique<alone>("", &n_freed, &aborted));
        EXPECT_EQ(good.size(), 1U);
        EXPECT_EQ(good.rank(), 0U);
        good.check();
        good.barrier();
        EXPECT_GT(good.traffic().n_calls, 5U);
        EXPECT_EQ(good.traffic().wire_bytes, 0U);
        good.abort("enough");
        EXPECT_EQ(aborted, "enough");
        EXPECT_EQ(code_of([&] { good.barrier(); }), MMOPT_CODE_COMMUNICATION);
    }
    EXPECT_EQ(n_freed, 1);
    const mmopt::communicator bad(std::make_unique<alone>("no carrier", &n_freed, &aborted));
    try {
        bad.check();
        FAIL();
    } catch (const mmopt::error &e) {
        EXPECT_EQ(e.code(), MMOPT_CODE_COMMUNICATION);
        EXPECT_NE(std::string(e.what()).find("no carrier"), std::string::npos);
    }
    EXPECT_EQ(code_of([] { mmopt::communicator(std::unique_ptr<mmopt::transport>()); }),
              MMOPT_CODE_INVALID_ARGUMENT);
}

TEST_F(Joint, OneRankTrainsAsNone) {
    int n_freed = 0;
    std::string aborted;
    mmopt::trainer plain(models, mmopt::trainer_options()), joined(models, mmopt::trainer_options());
    {
        const mmopt::communicator one(std::make_unique<alone>("", &n_freed, &aborted));
        auto options = mmopt::rank_options();
        options.overlap = 1;
        joined.set_communicator(one, options);
    }
    EXPECT_EQ(n_freed, 0);
    const auto examples = batch();
    for (int i = 0; i < 2; i++) {
        EXPECT_EQ(plain.forward_backward(examples)[0].loss,
                  joined.forward_backward(examples)[0].loss);
        plain.step();
        joined.step();
    }
    auto options = mmopt::rank_options();
    options.bucket_bytes = 1;
    const mmopt::communicator other(std::make_unique<alone>("", &n_freed, &aborted));
    EXPECT_EQ(code_of([&] { joined.set_communicator(other, options); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    options = mmopt::rank_options();
    EXPECT_EQ(options.gradient_dtype, static_cast<uint32_t>(MMOPT_DTYPE_F32));
    options.shard_state = 2;
    EXPECT_EQ(code_of([&] { joined.set_communicator(other, options); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    options = mmopt::rank_options();
    const mmopt::communicator replicas(std::make_unique<alone>("", &n_freed, &aborted));
    options.replicas = replicas.get();
    EXPECT_EQ(code_of([&] { joined.set_communicator(other, options); }),
              MMOPT_CODE_INVALID_ARGUMENT);
    options = mmopt::rank_options();
    options.overlap = 1;
    options.sync_every = 2;
    EXPECT_EQ(code_of([&] { joined.set_communicator(other, options); }), MMOPT_CODE_UNSUPPORTED);
    joined.gather_models();
    joined.leave_communicator();
    EXPECT_EQ(n_freed, 1);
}

} // namespace
