/**
 * @file mmopt.hpp
 * libmmopt for C++17: a thin layer over mmopt.h in this one file.
 *
 * Each class owns one object of the C library, can be moved but not copied, and frees it. get()
 * gives the C pointer, release() gives it away. Errors are thrown as mmopt::error, whose code() is an
 * mmopt_code. What a method returns as a pointer, view or span belongs to the object it was asked
 * of, for as long as mmopt.h says. Threads: const methods may run at the same time, others need the
 * object alone.
 */
#ifndef MMOPT_HPP
#define MMOPT_HPP

#include <mmopt.h>

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace mmopt {

/// Why a call failed.
class error : public std::runtime_error {
  public:
    error(std::uint32_t code, const std::string &message)
        : std::runtime_error(message), code_(code) {}

    /// An mmopt_code.
    [[nodiscard]] std::uint32_t code() const noexcept { return code_; }

  private:
    std::uint32_t code_;
};

namespace detail {

/// Throws what a call of the C library returned, unless it is success.
inline void check(mmopt_error *raw) {
    if (raw == nullptr)
        return;
    const std::unique_ptr<mmopt_error, void (*)(mmopt_error *)> owned(raw, mmopt_error_free);
    throw error(mmopt_error_code(raw), mmopt_error_message(raw));
}

template <class T, void (*Free)(T *)> struct deleter {
    void operator()(T *object) const noexcept { Free(object); }
};

/// Takes over a text that the C library gave away.
inline std::string take(char *text) {
    const std::unique_ptr<char, deleter<char, mmopt_text_free>> owned(text);
    return std::string(text == nullptr ? "" : text);
}

} // namespace detail

/// One object of the C library.
template <class T, void (*Free)(T *)> class handle {
  public:
    /// Takes over an object.
    explicit handle(T *object) noexcept : object_(object) {}

    /// The object, still owned here.
    [[nodiscard]] T *get() const noexcept { return object_.get(); }

    /// The object, to be freed by the caller; this one is empty then.
    [[nodiscard]] T *release() noexcept { return object_.release(); }

  private:
    std::unique_ptr<T, detail::deleter<T, Free>> object_;
};

/// A view of consecutive elements that something else owns.
template <class T> class span {
  public:
    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    [[nodiscard]] constexpr T *data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] constexpr T *begin() const noexcept { return data_; }
    [[nodiscard]] constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// The element type of a C++ type, an mmopt_dtype.
template <class T> constexpr std::uint32_t dtype_of() noexcept {
    if constexpr (std::is_same_v<T, float>)
        return MMOPT_DTYPE_F32;
    else if constexpr (std::is_same_v<T, double>)
        return MMOPT_DTYPE_F64;
    else if constexpr (std::is_same_v<T, std::int64_t>)
        return MMOPT_DTYPE_I64;
    else if constexpr (std::is_same_v<T, std::int32_t>)
        return MMOPT_DTYPE_I32;
    else if constexpr (std::is_same_v<T, std::uint8_t>)
        return MMOPT_DTYPE_U8;
    else
        static_assert(!sizeof(T), "no element type of the library");
}

/// A view of a tensor; it owns nothing.
class tensor {
  public:
    explicit tensor(const mmopt_tensor &raw) noexcept : raw_(raw) {}

    /// A view of host memory; name and shape must live as long as the view.
    template <class T>
    tensor(const char *name, const std::vector<std::int64_t> &shape, span<const T> data) noexcept
        : raw_{name, dtype_of<T>(), 0, shape.data(), shape.size(), data.data(),
               data.size() * sizeof(T)} {}

    [[nodiscard]] std::string name() const { return raw_.name; }
    [[nodiscard]] std::uint32_t dtype() const noexcept { return raw_.dtype; }
    [[nodiscard]] span<const std::int64_t> shape() const noexcept {
        return {raw_.shape, raw_.n_dims};
    }

    /// The elements; throws when they are of another type.
    template <class T> [[nodiscard]] span<const T> data() const {
        if (raw_.dtype != dtype_of<T>())
            throw error(MMOPT_CODE_INVALID_ARGUMENT, name() + ": elements of another type");
        return {static_cast<const T *>(raw_.data), raw_.n_bytes / sizeof(T)};
    }

    [[nodiscard]] const mmopt_tensor &raw() const noexcept { return raw_; }

  private:
    mmopt_tensor raw_;
};

/// The version of the loaded library.
[[nodiscard]] inline std::string version() { return mmopt_version(); }

/// Loads ONNX Runtime; without a path from the usual places.
inline void load_runtime(const std::optional<std::string> &path = std::nullopt) {
    detail::check(mmopt_runtime_load(path ? path->c_str() : nullptr));
}

/// The version of the loaded ONNX Runtime; empty before it is loaded.
[[nodiscard]] inline std::string runtime_version() { return mmopt_runtime_version(); }

/// An mmopt_architecture by its published name; throws for an unknown one.
[[nodiscard]] inline std::uint32_t architecture(const std::string &name) {
    const std::uint32_t found = mmopt_architecture_from_name(name.c_str());
    if (found == 0)
        throw error(MMOPT_CODE_NOT_FOUND, "no architecture '" + name + "'");
    return found;
}

/// A struct of options, filled with its defaults.
template <class T, void (*Init)(T *)> [[nodiscard]] T defaults() noexcept {
    T options;
    Init(&options);
    return options;
}

[[nodiscard]] inline mmopt_corpus_options corpus_options() noexcept {
    return defaults<mmopt_corpus_options, mmopt_corpus_options_init>();
}
[[nodiscard]] inline mmopt_tokenizer_options tokenizer_options() noexcept {
    return defaults<mmopt_tokenizer_options, mmopt_tokenizer_options_init>();
}
[[nodiscard]] inline mmopt_loader_options loader_options() noexcept {
    return defaults<mmopt_loader_options, mmopt_loader_options_init>();
}
[[nodiscard]] inline mmopt_model_sizes model_sizes() noexcept {
    return defaults<mmopt_model_sizes, mmopt_model_sizes_init>();
}
[[nodiscard]] inline mmopt_loss_options loss_options() noexcept {
    return defaults<mmopt_loss_options, mmopt_loss_options_init>();
}
[[nodiscard]] inline mmopt_trainer_options
trainer_options(std::uint32_t preset = MMOPT_PRESET_DEFAULT) noexcept {
    mmopt_trainer_options options;
    mmopt_trainer_options_init(&options, preset);
    return options;
}

/// The examples of one task.
class corpus : public handle<mmopt_corpus, mmopt_corpus_free> {
  public:
    using handle::handle;

    [[nodiscard]] static corpus read_classification(
        const std::string &path, const mmopt_corpus_options &options = corpus_options()) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_read_classification(path.c_str(), &options, &made));
        return corpus(made);
    }

    [[nodiscard]] static corpus synthetic(std::size_t n, std::uint64_t seed = 0,
                                          double label_noise = 0.03) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_synthetic(n, seed, label_noise, &made));
        return corpus(made);
    }

    /// Texts with the names of their classes (as many, or none).
    [[nodiscard]] static corpus from_texts(const std::vector<std::string> &texts,
                                           const std::vector<std::string> &labels = {}) {
        if (!labels.empty() && labels.size() != texts.size())
            throw error(MMOPT_CODE_INVALID_ARGUMENT, "texts and labels differ in number");
        std::vector<const char *> t, l;
        for (const auto &text : texts)
            t.push_back(text.c_str());
        for (const auto &label : labels)
            l.push_back(label.c_str());
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_from_texts(t.data(), l.empty() ? nullptr : l.data(), t.size(),
                                              nullptr, &made));
        return corpus(made);
    }

    /// Training and evaluation.
    [[nodiscard]] std::pair<corpus, corpus> split(double eval_share, std::uint64_t seed = 0) const {
        mmopt_corpus *train = nullptr, *eval = nullptr;
        detail::check(mmopt_corpus_split(get(), eval_share, seed, &train, &eval));
        return {corpus(train), corpus(eval)};
    }

    [[nodiscard]] std::size_t size() const noexcept { return mmopt_corpus_n_examples(get()); }
    [[nodiscard]] double majority_share() const noexcept {
        return mmopt_corpus_majority_share(get());
    }
    [[nodiscard]] std::vector<std::string> labels() const {
        std::vector<std::string> all;
        for (std::size_t i = 0; i < mmopt_corpus_n_labels(get()); i++)
            all.emplace_back(mmopt_corpus_label_name(get(), i));
        return all;
    }
    [[nodiscard]] std::string text(std::size_t example) const {
        char *text = nullptr;
        detail::check(mmopt_corpus_text(get(), example, &text));
        return detail::take(text);
    }
};

/// Turns text into ids and back.
class tokenizer : public handle<mmopt_tokenizer, mmopt_tokenizer_free> {
  public:
    using handle::handle;

    [[nodiscard]] static tokenizer load(const std::string &path) {
        mmopt_tokenizer *made = nullptr;
        detail::check(mmopt_tokenizer_load(path.c_str(), &made));
        return tokenizer(made);
    }

    [[nodiscard]] static tokenizer
    train(const corpus &from, const mmopt_tokenizer_options &options = tokenizer_options()) {
        mmopt_tokenizer *made = nullptr;
        detail::check(mmopt_tokenizer_train(from.get(), &options, &made));
        return tokenizer(made);
    }

    void save(const std::string &directory) const {
        detail::check(mmopt_tokenizer_save(get(), directory.c_str()));
    }
    [[nodiscard]] std::size_t vocab_size() const noexcept {
        return mmopt_tokenizer_vocab_size(get());
    }
    [[nodiscard]] std::vector<std::uint32_t> encode(const std::string &text,
                                                    std::size_t max_length = 0) const {
        mmopt_encoding *raw = nullptr;
        detail::check(mmopt_tokenizer_encode(get(), text.c_str(), nullptr, max_length, &raw));
        const handle<mmopt_encoding, mmopt_encoding_free> made(raw);
        const std::uint32_t *ids = mmopt_encoding_ids(raw);
        return {ids, ids + mmopt_encoding_length(raw)};
    }
    [[nodiscard]] std::string decode(const std::vector<std::uint32_t> &ids,
                                     bool skip_special = true) const {
        char *text = nullptr;
        detail::check(
            mmopt_tokenizer_decode(get(), ids.data(), ids.size(), skip_special ? 1 : 0, &text));
        return detail::take(text);
    }
};

namespace detail {
inline std::vector<const mmopt_tokenizer *> pointers(const std::vector<tokenizer> &all) {
    std::vector<const mmopt_tokenizer *> raw;
    for (const auto &one : all)
        raw.push_back(one.get());
    return raw;
}
} // namespace detail

/// The tensors of one step, a part for each model.
class batch : public handle<mmopt_batch, mmopt_batch_free> {
  public:
    using handle::handle;

    /// Unlabelled texts for predictions.
    [[nodiscard]] static batch encode(const std::vector<tokenizer> &tokenizers,
                                      const std::vector<std::string> &texts) {
        const auto raw = detail::pointers(tokenizers);
        std::vector<const char *> t;
        for (const auto &text : texts)
            t.push_back(text.c_str());
        mmopt_batch *made = nullptr;
        detail::check(
            mmopt_batch_encode(raw.data(), raw.size(), t.data(), t.size(), 0, &made));
        return batch(made);
    }

    [[nodiscard]] std::size_t n_models() const noexcept { return mmopt_batch_n_models(get()); }
    [[nodiscard]] std::size_t n_rows(std::size_t model) const noexcept {
        return mmopt_batch_n_rows(get(), model);
    }

    /// One model's tensors.
    [[nodiscard]] span<const mmopt_tensor> tensors(std::size_t model) const {
        const mmopt_tensor *all = nullptr;
        std::size_t n = 0;
        detail::check(mmopt_batch_tensors(get(), model, &all, &n));
        return {all, n};
    }
};

/// Walks a corpus in batches.
class loader : public handle<mmopt_loader, mmopt_loader_free> {
  public:
    using handle::handle;

    loader(const corpus &from, const std::vector<tokenizer> &tokenizers,
           const mmopt_loader_options &options = loader_options())
        : handle(make(from, tokenizers, options)) {}

    /// The next batch; nothing at the end of an epoch.
    [[nodiscard]] std::optional<batch> next() {
        mmopt_batch *made = nullptr;
        detail::check(mmopt_loader_next(get(), &made));
        if (made == nullptr)
            return std::nullopt;
        return batch(made);
    }

    [[nodiscard]] std::size_t n_batches() const noexcept { return mmopt_loader_n_batches(get()); }
    [[nodiscard]] std::uint64_t epoch() const noexcept { return mmopt_loader_epoch(get()); }
    [[nodiscard]] std::string state() const {
        char *json = nullptr;
        detail::check(mmopt_loader_state(get(), &json));
        return detail::take(json);
    }
    void restore(const std::string &json) {
        detail::check(mmopt_loader_restore(get(), json.c_str()));
    }

  private:
    static mmopt_loader *make(const corpus &from, const std::vector<tokenizer> &tokenizers,
                              const mmopt_loader_options &options) {
        const auto raw = detail::pointers(tokenizers);
        mmopt_loader *made = nullptr;
        detail::check(
            mmopt_loader_create(from.get(), raw.data(), raw.size(), &options, &made));
        return made;
    }
};

/// A model to be trained.
class model : public handle<mmopt_model, mmopt_model_free> {
  public:
    using handle::handle;

    [[nodiscard]] static model from_directory(const std::string &name,
                                              const std::string &directory) {
        mmopt_model *made = nullptr;
        detail::check(mmopt_model_from_directory(name.c_str(), directory.c_str(), &made));
        return model(made);
    }
    [[nodiscard]] static model from_onnx(const std::string &name, const std::string &path,
                                         const mmopt_loss_options &loss = loss_options()) {
        mmopt_model *made = nullptr;
        detail::check(mmopt_model_from_onnx(name.c_str(), path.c_str(), &made));
        model owned(made);
        detail::check(mmopt_model_set_loss(made, &loss));
        return owned;
    }
    [[nodiscard]] static model for_corpus(const std::string &name, const mmopt_model_sizes &sizes,
                                          const tokenizer &words, const corpus &data) {
        mmopt_model *made = nullptr;
        detail::check(
            mmopt_model_for_corpus(name.c_str(), &sizes, words.get(), data.get(), &made));
        return model(made);
    }

    model &set_task(std::uint32_t task, std::size_t n_labels) {
        detail::check(mmopt_model_set_task(get(), task, n_labels));
        return *this;
    }
    model &set_weight(double weight) {
        detail::check(mmopt_model_set_weight(get(), weight));
        return *this;
    }
    model &set_dropout(double dropout) {
        detail::check(mmopt_model_set_dropout(get(), dropout));
        return *this;
    }
    model &set_seed(std::uint64_t seed) {
        detail::check(mmopt_model_set_seed(get(), seed));
        return *this;
    }
    model &freeze(const std::string &pattern) {
        detail::check(mmopt_model_freeze(get(), pattern.c_str()));
        return *this;
    }
    [[nodiscard]] std::string label(std::size_t label) const {
        char *name = nullptr;
        detail::check(mmopt_model_label(get(), label, &name));
        return detail::take(name);
    }
};

/// Loss, score and outputs of a model that was not trained by the call.
class evaluation : public handle<mmopt_evaluation, mmopt_evaluation_free> {
  public:
    using handle::handle;

    [[nodiscard]] double loss() const noexcept { return mmopt_evaluation_loss(get()); }
    [[nodiscard]] std::uint64_t n_correct() const noexcept {
        return mmopt_evaluation_n_correct(get());
    }
    [[nodiscard]] std::uint64_t n_labels() const noexcept {
        return mmopt_evaluation_n_labels(get());
    }
    [[nodiscard]] std::vector<tensor> outputs() const {
        const mmopt_tensor *all = nullptr;
        std::size_t n = 0;
        detail::check(mmopt_evaluation_tensors(get(), &all, &n));
        std::vector<tensor> views;
        for (std::size_t i = 0; i < n; i++)
            views.emplace_back(all[i]);
        return views;
    }
};

/// Several models and the optimizer that trains them together.
class trainer : public handle<mmopt_trainer, mmopt_trainer_free> {
  public:
    using handle::handle;

    explicit trainer(const std::vector<model> &models,
                     const mmopt_trainer_options &options = trainer_options())
        : handle(make(models, options)) {}

    void zero_grad() { detail::check(mmopt_trainer_zero_grad(get())); }

    /// Loss and gradients of one micro-batch of one model.
    mmopt_outcome forward_backward(std::size_t model, span<const mmopt_tensor> tensors) {
        mmopt_outcome outcome;
        detail::check(mmopt_trainer_forward_backward(get(), model, tensors.data(), tensors.size(),
                                                     &outcome));
        return outcome;
    }

    /// Loss and gradients of one micro-batch for every model.
    std::vector<mmopt_outcome> forward_backward(const batch &all) {
        std::vector<mmopt_outcome> outcomes(n_models());
        detail::check(mmopt_trainer_forward_backward_batch(get(), all.get(), outcomes.data()));
        return outcomes;
    }

    void log_metrics(const std::vector<double> &losses) {
        detail::check(mmopt_trainer_log_metrics(get(), losses.data(), losses.size()));
    }

    mmopt_step_report step() {
        mmopt_step_report report;
        detail::check(mmopt_trainer_step(get(), &report));
        return report;
    }

    [[nodiscard]] evaluation evaluate(std::size_t model, span<const mmopt_tensor> tensors) {
        mmopt_evaluation *made = nullptr;
        detail::check(
            mmopt_trainer_evaluate(get(), model, tensors.data(), tensors.size(), &made));
        return evaluation(made);
    }

    [[nodiscard]] std::size_t n_models() const noexcept { return mmopt_trainer_n_models(get()); }
    [[nodiscard]] std::uint64_t n_steps() const noexcept { return mmopt_trainer_n_steps(get()); }
    [[nodiscard]] std::vector<std::string> model_names() const {
        std::vector<std::string> names;
        for (std::size_t i = 0; i < n_models(); i++)
            names.emplace_back(mmopt_trainer_model_name(get(), i));
        return names;
    }

    /// A model's parameters; views into the trainer's memory.
    [[nodiscard]] std::vector<tensor> parameters(std::size_t model) const {
        std::vector<tensor> all;
        for (std::size_t i = 0; i < mmopt_trainer_n_parameters(get(), model); i++) {
            mmopt_tensor raw;
            detail::check(mmopt_trainer_parameter(get(), model, i, &raw, nullptr));
            all.emplace_back(raw);
        }
        return all;
    }

    [[nodiscard]] mmopt_rates rates(std::size_t model) const {
        mmopt_rates rates;
        detail::check(mmopt_trainer_rates(get(), model, &rates));
        return rates;
    }
    void set_learning_rate(double rate) {
        detail::check(mmopt_trainer_set_learning_rate(get(), rate));
    }
    [[nodiscard]] std::string plan() const {
        char *text = nullptr;
        detail::check(mmopt_trainer_plan(get(), &text));
        return detail::take(text);
    }
    void save_model(std::size_t model, const std::string &directory) const {
        detail::check(mmopt_trainer_save_model(get(), model, directory.c_str()));
    }
    void save_onnx(std::size_t model, const std::string &path) const {
        detail::check(mmopt_trainer_save_onnx(get(), model, path.c_str()));
    }
    void checkpoint(const std::string &directory, const std::string &host_text = "") const {
        detail::check(mmopt_trainer_checkpoint(get(), directory.c_str(), host_text.c_str()));
    }
    /// Goes to the last checkpoint; gives back the host's text.
    std::string resume(const std::string &directory) {
        char *text = nullptr;
        detail::check(mmopt_trainer_resume(get(), directory.c_str(), &text));
        return detail::take(text);
    }

  private:
    static mmopt_trainer *make(const std::vector<model> &models,
                               const mmopt_trainer_options &options) {
        std::vector<const mmopt_model *> raw;
        for (const auto &one : models)
            raw.push_back(one.get());
        mmopt_trainer *made = nullptr;
        detail::check(mmopt_trainer_create(&options, raw.data(), raw.size(), &made));
        return made;
    }
};

} // namespace mmopt

#endif
