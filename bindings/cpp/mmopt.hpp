/**
 * @file mmopt.hpp
 * libmmopt for C++17: a thin layer over mmopt.h in this one file.
 *
 * Each class owns one object of the C library, can be moved but not copied, and frees it. get()
 * gives the C pointer, release() gives it away, so whatever the C library has is within reach.
 * Errors are thrown as mmopt::error, whose code() is an mmopt_code. Options are the C structs: the
 * functions corpus_options(), trainer_options() and so on fill them with the defaults.
 *
 * Views (span, tensor, pointers) point into the object that they were asked of, for as long as
 * mmopt.h says. Threads: const methods may run at the same time, others need the object alone.
 *
 * Callbacks are std::functions. What they throw does not pass through the C library: it is kept,
 * the call is made to fail where it can be, and the call's C++ method throws it on.
 */
#ifndef MMOPT_HPP
#define MMOPT_HPP

#include <mmopt.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>
#if __cplusplus >= 202002L
#include <ranges>
#endif

/// As in dlpack.h, version 1; only its address passes through here.
struct DLManagedTensorVersioned;

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
    const std::unique_ptr<char, deleter<char, mmopt_string_free>> owned(text);
    return std::string(text == nullptr ? "" : text);
}

/// The C text of a string, which must have no NUL inside.
inline const char *text(const std::string &string) {
    if (string.find('\0') != std::string::npos)
        throw error(MMOPT_CODE_INVALID_ARGUMENT, "a text has a NUL inside");
    return string.c_str();
}

/// C texts of a vector of strings, which they belong to.
inline std::vector<const char *> c_strings(const std::vector<std::string> &texts) {
    std::vector<const char *> all;
    all.reserve(texts.size());
    for (const auto &one : texts)
        all.push_back(text(one));
    return all;
}

/// The C text of an optional string, NULL for none.
inline const char *c_string(const std::optional<std::string> &string) {
    return string ? text(*string) : nullptr;
}

/// Walks anything with size() and operator[] by value.
template <class Range> class index_iterator {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = decltype(std::declval<const Range &>()[0]);
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = value_type;

    index_iterator() noexcept = default;
    index_iterator(Range range, std::size_t at) noexcept : range_(range), at_(at) {}
    [[nodiscard]] value_type operator*() const { return range_[at_]; }
    index_iterator &operator++() noexcept {
        at_++;
        return *this;
    }
    index_iterator operator++(int) noexcept {
        const auto old = *this;
        at_++;
        return old;
    }
    [[nodiscard]] friend bool operator==(const index_iterator &a,
                                         const index_iterator &b) noexcept {
        return a.at_ == b.at_;
    }
    [[nodiscard]] friend bool operator!=(const index_iterator &a,
                                         const index_iterator &b) noexcept {
        return a.at_ != b.at_;
    }

  private:
    Range range_{};
    std::size_t at_ = 0;
};

} // namespace detail

/// One object of the C library; empty after it was moved from or released.
template <class T, void (*Free)(T *)> class handle {
  public:
    /// Takes over an object.
    explicit handle(T *object) noexcept : object_(object) {}

    /// The object, still owned here.
    [[nodiscard]] T *get() const noexcept { return object_.get(); }

    /// The object, to be freed by the caller; this one is empty then.
    [[nodiscard]] T *release() noexcept { return object_.release(); }

    /// Frees the object now.
    void free() noexcept { object_.reset(); }

    /// Whether there is an object.
    [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }

  private:
    std::unique_ptr<T, detail::deleter<T, Free>> object_;
};

/// A view of consecutive elements that something else owns. Vectors, arrays and std::span convert
/// to it, and in C++20 it converts to std::span.
template <class T> class span {
    template <class C>
    using element = std::remove_pointer_t<decltype(std::data(std::declval<C &>()))>;

  public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    using size_type = std::size_t;
    using difference_type = std::ptrdiff_t;
    using pointer = T *;
    using reference = T &;
    using iterator = T *;

    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, std::enable_if_t<!std::is_same_v<std::decay_t<C>, span> &&
                                            std::is_convertible_v<element<C> (*)[], T (*)[]>,
                                        int> = 0>
    constexpr span(C &&elements) noexcept
        : data_(std::data(elements)), size_(std::size(elements)) {}

    [[nodiscard]] constexpr T *data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr std::size_t size_bytes() const noexcept { return size_ * sizeof(T); }
    [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] constexpr T *begin() const noexcept { return data_; }
    [[nodiscard]] constexpr T *end() const noexcept { return data_ + size_; }
    [[nodiscard]] constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

/// The element type of a C++ type, an mmopt_dtype.
template <class T> [[nodiscard]] constexpr std::uint32_t dtype_of() noexcept {
    if constexpr (std::is_same_v<T, float>)
        return MMOPT_DTYPE_F32;
    else if constexpr (std::is_same_v<T, double>)
        return MMOPT_DTYPE_F64;
    else if constexpr (std::is_same_v<T, std::int64_t>)
        return MMOPT_DTYPE_I64;
    else if constexpr (std::is_same_v<T, std::int32_t>)
        return MMOPT_DTYPE_I32;
    else if constexpr (std::is_same_v<T, std::int16_t>)
        return MMOPT_DTYPE_I16;
    else if constexpr (std::is_same_v<T, std::int8_t>)
        return MMOPT_DTYPE_I8;
    else if constexpr (std::is_same_v<T, std::uint64_t>)
        return MMOPT_DTYPE_U64;
    else if constexpr (std::is_same_v<T, std::uint32_t>)
        return MMOPT_DTYPE_U32;
    else if constexpr (std::is_same_v<T, std::uint16_t>)
        return MMOPT_DTYPE_U16;
    else if constexpr (std::is_same_v<T, std::uint8_t>)
        return MMOPT_DTYPE_U8;
    else if constexpr (std::is_same_v<T, bool>)
        return MMOPT_DTYPE_BOOL;
    else
        static_assert(!sizeof(T), "no element type of the library");
}

/// A DLManagedTensorVersioned that is owned here: its deleter is called once.
class managed_tensor {
  public:
    explicit managed_tensor(void *managed) noexcept
        : managed_(static_cast<DLManagedTensorVersioned *>(managed)) {}

    /// Takes over a DLManagedTensor, the form before DLPack 1.0. When it throws, the tensor stays
    /// the caller's.
    [[nodiscard]] static managed_tensor from_unversioned(void *unversioned) {
        void *managed = nullptr;
        detail::check(mmopt_dlpack_from_unversioned(unversioned, &managed));
        return managed_tensor(managed);
    }

    [[nodiscard]] DLManagedTensorVersioned *get() const noexcept { return managed_.get(); }
    [[nodiscard]] DLManagedTensorVersioned *release() noexcept { return managed_.release(); }

    /// Gives the tensor away as a DLManagedTensor, the form before DLPack 1.0, which the caller
    /// owns. When it throws, the tensor stays here.
    [[nodiscard]] void *release_unversioned() {
        void *unversioned = nullptr;
        detail::check(mmopt_dlpack_to_unversioned(managed_.get(), &unversioned));
        (void)managed_.release();
        return unversioned;
    }

  private:
    struct deleter {
        void operator()(DLManagedTensorVersioned *managed) const noexcept {
            mmopt_dlpack_free(managed);
        }
    };
    std::unique_ptr<DLManagedTensorVersioned, deleter> managed_;
};

/// A view of a dense, row-major tensor; it owns nothing.
class tensor {
    template <class C>
    using element =
        std::remove_cv_t<std::remove_pointer_t<decltype(std::data(std::declval<const C &>()))>>;

  public:
    explicit tensor(const mmopt_tensor &raw) noexcept : raw_(raw) {}

    /// A view of host memory; name, shape and elements must live as long as the view is used.
    template <class C, class T = element<C>>
    tensor(const char *name, span<const std::int64_t> shape, const C &elements) noexcept
        : raw_{name,         dtype_of<T>(),       0,
               shape.data(), shape.size(),        std::data(elements),
               std::size(elements) * sizeof(T)} {}

    /// A view of n_bytes of host memory with elements of any mmopt_dtype.
    tensor(const char *name, std::uint32_t dtype, span<const std::int64_t> shape, const void *data,
           std::size_t n_bytes) noexcept
        : raw_{name, dtype, 0, shape.data(), shape.size(), data, n_bytes} {}

    /// A view of a versioned DLPack tensor, which stays the host's; so does name.
    [[nodiscard]] static tensor from_dlpack(const char *name, const void *managed) {
        mmopt_tensor raw{};
        detail::check(mmopt_tensor_from_dlpack(name, managed, &raw));
        return tensor(raw);
    }

    [[nodiscard]] std::string_view name() const noexcept {
        return raw_.name == nullptr ? std::string_view() : raw_.name;
    }
    /// An mmopt_dtype.
    [[nodiscard]] std::uint32_t dtype() const noexcept { return raw_.dtype; }
    [[nodiscard]] span<const std::int64_t> shape() const noexcept {
        return {raw_.shape, raw_.n_dims};
    }
    [[nodiscard]] std::size_t n_bytes() const noexcept { return raw_.n_bytes; }

    /// The elements; throws when they are of another type.
    template <class T> [[nodiscard]] span<const T> data() const {
        if (raw_.dtype != dtype_of<T>())
            throw error(MMOPT_CODE_INVALID_ARGUMENT,
                        std::string(name()) + ": elements of another type");
        return {static_cast<const T *>(raw_.data), raw_.n_bytes / sizeof(T)};
    }

    /// The elements of any type.
    [[nodiscard]] const void *bytes() const noexcept { return raw_.data; }

    /// A copy as a versioned DLPack tensor that depends on nothing else.
    [[nodiscard]] managed_tensor to_dlpack() const {
        void *managed = nullptr;
        detail::check(mmopt_tensor_to_dlpack(&raw_, &managed));
        return managed_tensor(managed);
    }

    [[nodiscard]] const mmopt_tensor &raw() const noexcept { return raw_; }

  private:
    mmopt_tensor raw_;
};

/// Tensors that an object owns, as a range of views.
class tensor_list {
  public:
    tensor_list() noexcept = default;
    explicit tensor_list(span<const mmopt_tensor> raw) noexcept : raw_(raw) {}

    [[nodiscard]] std::size_t size() const noexcept { return raw_.size(); }
    [[nodiscard]] bool empty() const noexcept { return raw_.empty(); }
    [[nodiscard]] tensor operator[](std::size_t i) const noexcept { return tensor(raw_[i]); }
    [[nodiscard]] auto begin() const noexcept { return iterator(*this, 0); }
    [[nodiscard]] auto end() const noexcept { return iterator(*this, size()); }

    /// The tensor of that name; throws when there is none.
    [[nodiscard]] tensor operator[](std::string_view name) const {
        for (std::size_t i = 0; i < size(); i++)
            if ((*this)[i].name() == name)
                return (*this)[i];
        throw error(MMOPT_CODE_NOT_FOUND, "no tensor '" + std::string(name) + "'");
    }

    [[nodiscard]] span<const mmopt_tensor> raw() const noexcept { return raw_; }

  private:
    using iterator = detail::index_iterator<tensor_list>;
    span<const mmopt_tensor> raw_;
};

/// The version of the loaded library as text and as a number, to be compared with MMOPT_VERSION
/// and MMOPT_VERSION_NUMBER.
[[nodiscard]] inline std::string version() { return mmopt_version(); }
[[nodiscard]] inline std::uint32_t version_number() noexcept { return mmopt_version_number(); }

/// Loads ONNX Runtime; without a path from the usual places.
inline void load_runtime(const std::optional<std::string> &path = std::nullopt) {
    detail::check(mmopt_runtime_load(detail::c_string(path)));
}

/// The version and the file of the loaded ONNX Runtime; empty before it is loaded.
[[nodiscard]] inline std::string runtime_version() { return mmopt_runtime_version(); }
[[nodiscard]] inline std::string runtime_path() { return mmopt_runtime_path(); }

/// An mmopt_architecture by its published name; throws for an unknown one.
[[nodiscard]] inline std::uint32_t architecture(const std::string &name) {
    const std::uint32_t found = mmopt_architecture_from_name(detail::text(name));
    if (found == 0)
        throw error(MMOPT_CODE_NOT_FOUND, "no architecture '" + name + "'");
    return found;
}

/// The published name of an mmopt_architecture; empty for any other number.
[[nodiscard]] inline std::string architecture_name(std::uint32_t architecture) {
    return mmopt_architecture_name(architecture);
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
[[nodiscard]] inline mmopt_model_config model_config() noexcept {
    return defaults<mmopt_model_config, mmopt_model_config_init>();
}
[[nodiscard]] inline mmopt_loss_options loss_options() noexcept {
    return defaults<mmopt_loss_options, mmopt_loss_options_init>();
}
[[nodiscard]] inline mmopt_precomputed_gradient_options gradient_options() noexcept {
    return defaults<mmopt_precomputed_gradient_options, mmopt_precomputed_gradient_options_init>();
}
/// The options of a preset, an mmopt_preset.
[[nodiscard]] inline mmopt_trainer_options
trainer_options(std::uint32_t preset = MMOPT_PRESET_DEFAULT) noexcept {
    mmopt_trainer_options options;
    mmopt_trainer_options_init(&options, preset);
    return options;
}

/// The examples of one task. It never changes.
class corpus : public handle<mmopt_corpus, mmopt_corpus_free> {
  public:
    using handle::handle;

    /// Texts with one class each: tab-separated, comma-separated or JSON lines.
    [[nodiscard]] static corpus read_classification(
        const std::string &path, const mmopt_corpus_options &options = corpus_options()) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_read_classification(detail::text(path), &options, &made));
        return corpus(made);
    }

    /// Words with one tag each. labels_of has the tags, for evaluation data those of the training
    /// data.
    [[nodiscard]] static corpus read_token_classification(const std::string &path,
                                                  const corpus *labels_of = nullptr) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_read_token_classification(detail::text(path),
                                                            raw(labels_of), &made));
        return corpus(made);
    }

    /// Questions about contexts.
    [[nodiscard]] static corpus read_question_answering(const std::string &path) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_read_question_answering(detail::text(path), &made));
        return corpus(made);
    }

    /// Plain text for language modelling; sample_by is an mmopt_sample_by.
    [[nodiscard]] static corpus
    read_plain_text(const std::string &path,
                    std::uint32_t sample_by = MMOPT_SAMPLE_BY_PARAGRAPH) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_read_plain_text(detail::text(path), sample_by, &made));
        return corpus(made);
    }

    /// n generated sentences of two classes.
    [[nodiscard]] static corpus synthetic(std::size_t n, std::uint64_t seed = 0,
                                          double label_noise = 0.03) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_synthetic(n, seed, label_noise, &made));
        return corpus(made);
    }

    /// Texts with the names of their classes (as many, or none).
    [[nodiscard]] static corpus from_texts(const std::vector<std::string> &texts,
                                           const std::vector<std::string> &labels = {},
                                           const corpus *labels_of = nullptr) {
        if (!labels.empty() && labels.size() != texts.size())
            throw error(MMOPT_CODE_INVALID_ARGUMENT, "texts and labels differ in number");
        const auto t = detail::c_strings(texts), l = detail::c_strings(labels);
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_from_texts(t.data(), l.empty() ? nullptr : l.data(), t.size(),
                                              raw(labels_of), &made));
        return corpus(made);
    }

    /// Training and evaluation.
    [[nodiscard]] std::pair<corpus, corpus> split(double eval_fraction, std::uint64_t seed = 0) const {
        mmopt_corpus *train = nullptr, *eval = nullptr;
        detail::check(mmopt_corpus_split(get(), eval_fraction, seed, &train, &eval));
        return {corpus(train), corpus(eval)};
    }

    [[nodiscard]] std::size_t size() const noexcept { return mmopt_corpus_n_examples(get()); }
    /// The accuracy of always predicting the most frequent class.
    [[nodiscard]] double majority_fraction() const noexcept {
        return mmopt_corpus_majority_fraction(get());
    }
    /// The names of the classes or tags, by id.
    [[nodiscard]] std::vector<std::string> labels() const {
        std::vector<std::string> all;
        for (std::size_t i = 0; i < mmopt_corpus_n_labels(get()); i++)
            all.emplace_back(mmopt_corpus_label_name(get(), i));
        return all;
    }
    /// How many examples have a class, or words a tag.
    [[nodiscard]] std::size_t label_count(std::size_t label) const noexcept {
        return mmopt_corpus_label_count(get(), label);
    }
    [[nodiscard]] std::string text(std::size_t example) const {
        char *text = nullptr;
        detail::check(mmopt_corpus_text(get(), example, &text));
        return detail::take(text);
    }
    /// The class of an example; -1 when it has none.
    [[nodiscard]] std::int64_t label(std::size_t example) const {
        std::int64_t label = -1;
        detail::check(mmopt_corpus_label(get(), example, &label));
        return label;
    }

  private:
    static const mmopt_corpus *raw(const corpus *of) noexcept {
        return of == nullptr ? nullptr : of->get();
    }
};

/// An encoded text. It never changes.
class encoding : public handle<mmopt_encoding, mmopt_encoding_free> {
  public:
    using handle::handle;

    /// How many tokens.
    [[nodiscard]] std::size_t size() const noexcept { return mmopt_encoding_length(get()); }
    [[nodiscard]] span<const std::uint32_t> ids() const & noexcept {
        return {mmopt_encoding_ids(get()), size()};
    }
    /// 0 for the first text, 1 for the second of a pair.
    [[nodiscard]] span<const std::uint32_t> type_ids() const & noexcept {
        return {mmopt_encoding_type_ids(get()), size()};
    }
    /// Start and end of each token in its text, in bytes: twice as many as tokens.
    [[nodiscard]] span<const std::size_t> offsets() const & noexcept {
        return {mmopt_encoding_offsets(get()), 2 * size()};
    }
    span<const std::uint32_t> ids() const && = delete;
    span<const std::uint32_t> type_ids() const && = delete;
    span<const std::size_t> offsets() const && = delete;
    /// How many tokens were cut off.
    [[nodiscard]] std::size_t n_truncated() const noexcept {
        return mmopt_encoding_n_truncated(get());
    }
};

/// Turns text into ids and back. It never changes.
class tokenizer : public handle<mmopt_tokenizer, mmopt_tokenizer_free> {
  public:
    using handle::handle;

    [[nodiscard]] static tokenizer load(const std::string &path) {
        mmopt_tokenizer *made = nullptr;
        detail::check(mmopt_tokenizer_load(detail::text(path), &made));
        return tokenizer(made);
    }

    [[nodiscard]] static tokenizer
    train(const corpus &from, const mmopt_tokenizer_options &options = tokenizer_options()) {
        mmopt_tokenizer *made = nullptr;
        detail::check(mmopt_tokenizer_train(from.get(), &options, &made));
        return tokenizer(made);
    }

    /// Into an existing directory, in published form.
    void save(const std::string &directory) const {
        detail::check(mmopt_tokenizer_save(get(), detail::text(directory)));
    }
    [[nodiscard]] std::size_t vocab_size() const noexcept {
        return mmopt_tokenizer_vocab_size(get());
    }
    [[nodiscard]] std::size_t model_max_length() const noexcept {
        return mmopt_tokenizer_model_max_length(get());
    }
    /// The id of a special token, an mmopt_special_token; nothing when there is none.
    [[nodiscard]] std::optional<std::uint32_t> special_token_id(std::uint32_t special) const noexcept {
        const std::int64_t id = mmopt_tokenizer_special_token_id(get(), special);
        if (id < 0)
            return std::nullopt;
        return static_cast<std::uint32_t>(id);
    }
    /// At most max_length tokens; 0 takes the tokenizer's limit.
    [[nodiscard]] encoding encode(const std::string &text, std::size_t max_length = 0) const {
        return encode_raw(detail::text(text), nullptr, max_length);
    }
    /// A pair of texts.
    [[nodiscard]] encoding encode_pair(const std::string &text, const std::string &pair,
                                       std::size_t max_length = 0) const {
        return encode_raw(detail::text(text), detail::text(pair), max_length);
    }
    [[nodiscard]] std::string decode(span<const std::uint32_t> ids,
                                     bool skip_special_tokens = true) const {
        char *text = nullptr;
        detail::check(
            mmopt_tokenizer_decode(get(), ids.data(), ids.size(), skip_special_tokens ? 1 : 0, &text));
        return detail::take(text);
    }

  private:
    [[nodiscard]] encoding encode_raw(const char *text, const char *pair, std::size_t max) const {
        mmopt_encoding *made = nullptr;
        detail::check(mmopt_tokenizer_encode(get(), text, pair, max, &made));
        return encoding(made);
    }
};

namespace detail {
template <class T> auto pointers(span<const T> all) {
    std::vector<std::add_pointer_t<std::add_const_t<std::remove_pointer_t<decltype(all[0].get())>>>>
        raw;
    raw.reserve(all.size());
    for (const auto &one : all)
        raw.push_back(one.get());
    return raw;
}
} // namespace detail

/// The span of a context that a model predicts as an answer.
struct answer {
    std::string text;
    /// Bytes of the context.
    std::size_t start, end;
    /// Start logit plus end logit.
    double score;
};

/// The tensors of one step, a part for each model. It never changes.
class batch : public handle<mmopt_batch, mmopt_batch_free> {
  public:
    using handle::handle;

    /// Unlabelled texts for predictions; max_length 0 takes each tokenizer's limit.
    [[nodiscard]] static batch encode(span<const tokenizer> tokenizers,
                                      const std::vector<std::string> &texts,
                                      std::size_t max_length = 0) {
        const auto raw = detail::pointers(tokenizers);
        const auto t = detail::c_strings(texts);
        mmopt_batch *made = nullptr;
        detail::check(mmopt_batch_encode(raw.data(), raw.size(), t.data(), t.size(), max_length,
                                         &made));
        return batch(made);
    }

    [[nodiscard]] std::size_t n_models() const noexcept { return mmopt_batch_n_models(get()); }
    [[nodiscard]] std::size_t n_rows(std::size_t model) const noexcept {
        return mmopt_batch_n_rows(get(), model);
    }

    /// One model's tensors.
    [[nodiscard]] tensor_list tensors(std::size_t model) const & {
        const mmopt_tensor *all = nullptr;
        std::size_t n = 0;
        detail::check(mmopt_batch_tensors(get(), model, &all, &n));
        return tensor_list({all, n});
    }
    tensor_list tensors(std::size_t model) const && = delete;

    /// Which example stands behind each row of one model's part.
    [[nodiscard]] span<const std::size_t> examples(std::size_t model) const & {
        const std::size_t *all = nullptr;
        std::size_t n = 0;
        detail::check(mmopt_batch_examples(get(), model, &all, &n));
        return {all, n};
    }
    span<const std::size_t> examples(std::size_t model) const && = delete;

    /// The best answer of one row of a question answering batch from one row of each of an
    /// evaluation's logits, as many as the batch is long. Nothing where the row has no token of the
    /// context.
    [[nodiscard]] std::optional<answer> best_answer(std::size_t model, std::size_t row,
                                                    span<const float> start_logits,
                                                    span<const float> end_logits,
                                                    std::size_t max_answer_tokens = 30) const {
        if (start_logits.size() != end_logits.size())
            throw error(MMOPT_CODE_INVALID_ARGUMENT, "start and end logits differ in number");
        mmopt_answer found{};
        char *text = nullptr;
        detail::check(mmopt_batch_best_answer(get(), model, row, start_logits.data(),
                                              end_logits.data(), start_logits.size(),
                                              max_answer_tokens, &found, &text));
        if (text == nullptr)
            return std::nullopt;
        return answer{detail::take(text), found.start, found.end, found.score};
    }
};

/// Yields a corpus in batches, in seeded order.
class loader : public handle<mmopt_loader, mmopt_loader_free> {
  public:
    using handle::handle;

    loader(const corpus &from, span<const tokenizer> tokenizers,
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

    /// Goes on to the end of the epoch: for (const auto &batch : loader) { ... }
    class iterator {
      public:
        using iterator_category = std::input_iterator_tag;
        using value_type = batch;
        using difference_type = std::ptrdiff_t;
        using pointer = const batch *;
        using reference = const batch &;

        explicit iterator(loader *of) : of_(of) { ++*this; }
        iterator &operator++() {
            now_ = of_->next();
            return *this;
        }
        void operator++(int) { ++*this; }
        [[nodiscard]] const batch &operator*() const noexcept { return *now_; }
        [[nodiscard]] const batch *operator->() const noexcept { return &*now_; }
        struct sentinel {};
        [[nodiscard]] friend bool operator!=(const iterator &a, sentinel) noexcept {
            return a.now_.has_value();
        }
        [[nodiscard]] friend bool operator==(const iterator &a, sentinel) noexcept {
            return !a.now_.has_value();
        }

      private:
        loader *of_;
        std::optional<batch> now_;
    };
    [[nodiscard]] iterator begin() { return iterator(this); }
    [[nodiscard]] iterator::sentinel end() noexcept { return {}; }

    /// The batches of an epoch.
    [[nodiscard]] std::size_t n_batches() const noexcept { return mmopt_loader_n_batches(get()); }
    /// Epochs done, and batches of the current one done.
    [[nodiscard]] std::uint64_t epoch() const noexcept { return mmopt_loader_epoch(get()); }
    [[nodiscard]] std::size_t position() const noexcept { return mmopt_loader_position(get()); }
    /// Goes to the start of an epoch; 0 is the first.
    void set_epoch(std::uint64_t epoch) { detail::check(mmopt_loader_set_epoch(get(), epoch)); }
    /// Where the loader stands, for restore().
    [[nodiscard]] std::string state() const {
        char *json = nullptr;
        detail::check(mmopt_loader_state(get(), &json));
        return detail::take(json);
    }
    void restore(const std::string &json) {
        detail::check(mmopt_loader_restore(get(), detail::text(json)));
    }

  private:
    static mmopt_loader *make(const corpus &from, span<const tokenizer> tokenizers,
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

    /// Published form: config.json and model.safetensors.
    [[nodiscard]] static model from_directory(const std::string &name,
                                              const std::string &directory) {
        mmopt_model *made = nullptr;
        detail::check(
            mmopt_model_from_directory(detail::text(name), detail::text(directory), &made));
        return model(made);
    }
    /// The file of a forward ONNX graph, and its loss.
    [[nodiscard]] static model from_onnx(const std::string &name, const std::string &path,
                                         const mmopt_loss_options &loss = loss_options()) {
        mmopt_model *made = nullptr;
        detail::check(mmopt_model_from_onnx(detail::text(name), detail::text(path), &made));
        model owned(made);
        owned.set_loss(loss);
        return owned;
    }
    /// A forward ONNX graph in memory, copied, and its loss.
    [[nodiscard]] static model from_onnx_bytes(const std::string &name, const void *bytes,
                                               std::size_t n_bytes,
                                               const mmopt_loss_options &loss = loss_options()) {
        mmopt_model *made = nullptr;
        detail::check(mmopt_model_from_onnx_bytes(detail::text(name), bytes, n_bytes, &made));
        model owned(made);
        owned.set_loss(loss);
        return owned;
    }
    /// Fresh, from the text of a published config.json.
    [[nodiscard]] static model from_config(const std::string &name, const std::string &json) {
        mmopt_model *made = nullptr;
        detail::check(mmopt_model_from_config_json(detail::text(name), detail::text(json), &made));
        return model(made);
    }
    /// Fresh, of a known architecture.
    [[nodiscard]] static model from_sizes(const std::string &name,
                                          const mmopt_model_config &sizes = model_config()) {
        mmopt_model *made = nullptr;
        detail::check(mmopt_model_create(detail::text(name), &sizes, &made));
        return model(made);
    }
    /// Fresh, fitting a tokenizer and a corpus.
    [[nodiscard]] static model for_corpus(const std::string &name, const mmopt_model_config &sizes,
                                          const tokenizer &words, const corpus &data) {
        mmopt_model *made = nullptr;
        detail::check(
            mmopt_model_for_corpus(detail::text(name), &sizes, words.get(), data.get(), &made));
        return model(made);
    }

    /// task is an mmopt_task.
    model &set_task(std::uint32_t task, std::size_t n_labels) {
        detail::check(mmopt_model_set_task(get(), task, n_labels));
        return *this;
    }
    model &set_loss(const mmopt_loss_options &loss) {
        detail::check(mmopt_model_set_loss(get(), &loss));
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
    /// Leaves parameters as they are whose name matches the pattern (* and ?).
    model &freeze(const std::string &pattern) {
        detail::check(mmopt_model_freeze(get(), detail::text(pattern)));
        return *this;
    }
    /// Trains only parameters whose name matches this pattern, or that of another call.
    model &train_only(const std::string &pattern) {
        detail::check(mmopt_model_train_only(get(), detail::text(pattern)));
        return *this;
    }
    /// The outputs of an ONNX graph that computes its own gradients: nothing is differentiated.
    model &set_gradients(const mmopt_precomputed_gradient_options &options) {
        detail::check(mmopt_model_set_precomputed_gradients(get(), &options));
        return *this;
    }
    /// What is done with parameters that an exporter merged, an mmopt_shared_initializers.
    model &set_shared_initializers(std::uint32_t merging) {
        detail::check(mmopt_model_set_shared_initializers(get(), merging));
        return *this;
    }
    /// What is done with equal matrices, an mmopt_duplicate_weights.
    model &set_duplicate_weights(std::uint32_t tying) {
        detail::check(mmopt_model_set_duplicate_weights(get(), tying));
        return *this;
    }
    /// Whether names that an exporter invented give way to those of the state dict.
    model &set_restore_names(bool restore) {
        detail::check(mmopt_model_set_restore_names(get(), restore ? 1 : 0));
        return *this;
    }
    /// Leaves one row of the matching parameters as it is, for example padding's.
    model &freeze_row(const std::string &pattern, std::size_t row) {
        detail::check(mmopt_model_freeze_row(get(), detail::text(pattern), row));
        return *this;
    }
    /// What a trainer would find in this model and do about it, for people and as JSON.
    [[nodiscard]] std::string report() const {
        char *text = nullptr;
        detail::check(mmopt_model_report(get(), &text));
        return detail::take(text);
    }
    [[nodiscard]] std::string report_json() const {
        char *json = nullptr;
        detail::check(mmopt_model_report_json(get(), &json));
        return detail::take(json);
    }
    /// The name of a class.
    [[nodiscard]] std::string label(std::size_t label) const {
        char *name = nullptr;
        detail::check(mmopt_model_label(get(), label, &name));
        return detail::take(name);
    }
};

/// Loss, score and outputs of a model that was not trained by the call. It never changes.
class evaluation : public handle<mmopt_evaluation, mmopt_evaluation_free> {
  public:
    using handle::handle;

    /// NaN without labels.
    [[nodiscard]] double loss() const noexcept { return mmopt_evaluation_loss(get()); }
    [[nodiscard]] std::uint64_t n_correct() const noexcept {
        return mmopt_evaluation_n_correct(get());
    }
    [[nodiscard]] std::uint64_t n_labels() const noexcept {
        return mmopt_evaluation_n_labels(get());
    }
    /// The outputs by the model's names.
    [[nodiscard]] tensor_list outputs() const & {
        const mmopt_tensor *all = nullptr;
        std::size_t n = 0;
        detail::check(mmopt_evaluation_tensors(get(), &all, &n));
        return tensor_list({all, n});
    }
    tensor_list outputs() const && = delete;
};

/// Metrics of predictions against labels.
namespace metrics {

/// The fraction of classes that equal their label; negative labels are left out.
[[nodiscard]] inline double accuracy(span<const std::int64_t> predictions,
                                     span<const std::int64_t> labels) {
    if (predictions.size() != labels.size())
        throw error(MMOPT_CODE_INVALID_ARGUMENT, "predictions and labels differ in number");
    double value = 0;
    detail::check(
        mmopt_metrics_accuracy(predictions.data(), labels.data(), labels.size(), &value));
    return value;
}

/// The mean of the classes' F1; negative labels are left out.
[[nodiscard]] inline double macro_f1(span<const std::int64_t> predictions,
                                     span<const std::int64_t> labels) {
    if (predictions.size() != labels.size())
        throw error(MMOPT_CODE_INVALID_ARGUMENT, "predictions and labels differ in number");
    double value = 0;
    detail::check(
        mmopt_metrics_macro_f1(predictions.data(), labels.data(), labels.size(), &value));
    return value;
}

/// Scores of named entities, over all types, and by type as JSON.
struct entity_scores : mmopt_entity_scores {
    std::string by_type;
};

/// Scores of named entities, as conlleval counts them: rows of length tags each, as positions in
/// tags; negative labels are left out.
[[nodiscard]] inline entity_scores entities(span<const std::int64_t> predictions,
                                            span<const std::int64_t> labels, std::size_t length,
                                            const std::vector<std::string> &tags) {
    if (predictions.size() != labels.size() || length == 0 || labels.size() % length != 0)
        throw error(MMOPT_CODE_INVALID_ARGUMENT,
                    "predictions and labels are no rows of length " + std::to_string(length));
    const auto names = detail::c_strings(tags);
    entity_scores scores{};
    char *by_type = nullptr;
    detail::check(mmopt_metrics_entities(predictions.data(), labels.data(),
                                         labels.size() / length, length, names.data(),
                                         names.size(), &scores, &by_type));
    scores.by_type = detail::take(by_type);
    return scores;
}

/// Exact match and F1 of answers, in per cent.
struct answer_scores {
    double exact_match, f1;
};

/// Predicted answers against the accepted ones of each question, as SQuAD's evaluation script.
[[nodiscard]] inline answer_scores answers(const std::vector<std::string> &predictions,
                                           const std::vector<std::vector<std::string>> &accepted) {
    if (predictions.size() != accepted.size())
        throw error(MMOPT_CODE_INVALID_ARGUMENT, "predictions and questions differ in number");
    std::vector<const char *> all;
    std::vector<std::size_t> n_answers;
    for (const auto &one : accepted) {
        const auto texts = detail::c_strings(one);
        all.insert(all.end(), texts.begin(), texts.end());
        n_answers.push_back(one.size());
    }
    const auto p = detail::c_strings(predictions);
    answer_scores scores{};
    detail::check(mmopt_metrics_answers(p.data(), all.data(), n_answers.data(), p.size(),
                                        &scores.exact_match, &scores.f1));
    return scores;
}

} // namespace metrics

/// Ends a running pass of a trainer from another thread.
class cancel_token : public handle<mmopt_cancel_token, mmopt_cancel_token_free> {
  public:
    using handle::handle;

    /// Makes passes that run, and all later ones, throw MMOPT_CODE_CANCELLED.
    void cancel() const { detail::check(mmopt_cancel_token_cancel(get())); }
    /// Lets passes run again.
    void reset() const { detail::check(mmopt_cancel_token_reset(get())); }
};

/// Receives a message and its mmopt_log_level.
using log_function = std::function<void(std::uint32_t level, std::string_view message)>;
/// Asked before each pass and step: true goes on, false cancels it.
using progress_function = std::function<bool(const mmopt_progress &progress)>;
/// Looks at one parameter of a step that is about to be taken, and gives an mmopt_gradient_action.
using gradient_function = std::function<std::uint32_t(const mmopt_gradient &gradient)>;
/// Gives the learning rate that a model is to use at a step, counted from 1.
using rate_function =
    std::function<double(std::string_view model, std::uint64_t step, double rate)>;

namespace detail {

/// The host's callbacks of one object, at an address that does not change, and what they threw.
class callbacks {
  public:
    // Behind pointers, so that a function which is running stays where it is when it is replaced.
    std::unique_ptr<log_function> log;
    std::unique_ptr<progress_function> progress;
    std::unique_ptr<rate_function> rate;
    std::unique_ptr<gradient_function> gradient;

    /// Runs a callback; keeps what it throws and gives `otherwise` then.
    template <class R, class F> R run(R otherwise, F &&call) noexcept {
        try {
            return call();
        } catch (...) {
            const std::lock_guard<std::mutex> held(lock_);
            if (!thrown_)
                thrown_ = std::current_exception();
        }
        return otherwise;
    }

    /// Throws on what a callback threw since the last call.
    void rethrow() {
        std::exception_ptr thrown;
        {
            const std::lock_guard<std::mutex> held(lock_);
            std::swap(thrown, thrown_);
        }
        if (thrown)
            std::rethrow_exception(thrown);
    }

  private:
    std::mutex lock_;
    std::exception_ptr thrown_;
};

/// The callbacks of one object, once there are any.
class callback_owner {
  public:
    /// Puts a function in the place of another, unless the C library refuses. It is there before
    /// the call, as messages may come during it.
    template <class F, class Set>
    void replace(std::unique_ptr<F> callbacks::*place, F function, Set set) {
        if (all_ == nullptr)
            all_ = std::make_unique<callbacks>();
        const bool wanted = static_cast<bool>(function);
        auto old = std::exchange((*all_).*place, std::make_unique<F>(std::move(function)));
        mmopt_error *const refused = set(wanted, all_.get());
        if (refused != nullptr)
            std::swap((*all_).*place, old);
        done(refused);
    }

    /// Throws what a callback threw during a call, else what the call returned.
    void done(mmopt_error *raw) const {
        if (all_ != nullptr) {
            try {
                all_->rethrow();
            } catch (...) {
                mmopt_error_free(raw);
                throw;
            }
        }
        check(raw);
    }

    [[nodiscard]] bool any() const noexcept { return all_ != nullptr; }
    void clear() noexcept { all_.reset(); }

  private:
    std::unique_ptr<callbacks> all_;
};

} // namespace detail

extern "C" {
/// What the C library calls; user is a detail::callbacks.
inline void mmopt_cpp_log(void *user, std::uint32_t level, const char *message) {
    auto *all = static_cast<detail::callbacks *>(user);
    all->run(0, [&] {
        (*all->log)(level, message);
        return 0;
    });
}
inline std::uint32_t mmopt_cpp_progress(void *user, const mmopt_progress *progress) {
    auto *all = static_cast<detail::callbacks *>(user);
    return all->run(std::uint32_t{1},
                    [&] { return (*all->progress)(*progress) ? std::uint32_t{0} : 1; });
}
inline std::uint32_t mmopt_cpp_gradient(void *user, const mmopt_gradient *gradient) {
    auto *all = static_cast<detail::callbacks *>(user);
    return all->run(static_cast<std::uint32_t>(MMOPT_GRADIENT_ACTION_STOP),
                    [&] { return (*all->gradient)(*gradient); });
}
/// NaN fails the step.
inline double mmopt_cpp_rate(void *user, const char *model, std::uint64_t step, double rate) {
    auto *all = static_cast<detail::callbacks *>(user);
    return all->run(std::numeric_limits<double>::quiet_NaN(),
                    [&] { return (*all->rate)(model, step, rate); });
}
}

/// A parameter of a trainer, as models() and parameters() show it; valid as long as the trainer.
class parameter {
  public:
    parameter(const mmopt_trainer *trainer, std::size_t model, std::size_t index)
        : trainer_(trainer), model_(model), index_(index), value_(mmopt_tensor{}) {
        mmopt_tensor raw{};
        std::uint32_t trainable = 0;
        detail::check(mmopt_trainer_parameter(trainer, model, index, &raw, &trainable));
        value_ = tensor(raw);
        trainable_ = trainable != 0;
    }

    /// Its number within the model.
    [[nodiscard]] std::size_t index() const noexcept { return index_; }
    [[nodiscard]] std::string_view name() const noexcept { return value_.name(); }
    [[nodiscard]] span<const std::int64_t> shape() const noexcept { return value_.shape(); }
    [[nodiscard]] bool trainable() const noexcept { return trainable_; }
    /// The elements, which change with each step.
    [[nodiscard]] const tensor &value() const noexcept { return value_; }
    template <class T> [[nodiscard]] span<const T> data() const { return value_.data<T>(); }
    /// The gradient of the last backward pass; throws MMOPT_CODE_STATE where there is none.
    [[nodiscard]] tensor gradient() const {
        mmopt_tensor raw{};
        detail::check(mmopt_trainer_gradient(trainer_, model_, index_, &raw));
        return tensor(raw);
    }
    /// The value and the gradient as DLPack tensors that point into the trainer's memory and may
    /// outlive it. Without writable they are flagged as read-only.
    [[nodiscard]] managed_tensor value_dlpack(bool writable = false) const {
        void *managed = nullptr;
        detail::check(mmopt_trainer_parameter_dlpack(trainer_, model_, index_, writable ? 1 : 0,
                                                     &managed));
        return managed_tensor(managed);
    }
    [[nodiscard]] managed_tensor gradient_dlpack(bool writable = false) const {
        void *managed = nullptr;
        detail::check(
            mmopt_trainer_gradient_dlpack(trainer_, model_, index_, writable ? 1 : 0, &managed));
        return managed_tensor(managed);
    }

  private:
    const mmopt_trainer *trainer_;
    std::size_t model_, index_;
    tensor value_;
    bool trainable_ = false;
};

/// A model's parameters in graph order.
class parameter_list {
  public:
    parameter_list() noexcept = default;
    parameter_list(const mmopt_trainer *trainer, std::size_t model) noexcept
        : trainer_(trainer), model_(model) {}

    [[nodiscard]] std::size_t size() const noexcept {
        return mmopt_trainer_n_parameters(trainer_, model_);
    }
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    [[nodiscard]] parameter operator[](std::size_t index) const {
        return parameter(trainer_, model_, index);
    }
    /// The parameter of that name; throws MMOPT_CODE_NOT_FOUND.
    [[nodiscard]] parameter operator[](const std::string &name) const {
        return parameter(trainer_, model_, index(name));
    }
    [[nodiscard]] std::size_t index(const std::string &name) const {
        std::size_t found = 0;
        detail::check(mmopt_trainer_parameter_index(trainer_, model_, detail::text(name), &found));
        return found;
    }
    [[nodiscard]] auto begin() const noexcept { return iterator(*this, 0); }
    [[nodiscard]] auto end() const noexcept { return iterator(*this, size()); }

  private:
    using iterator = detail::index_iterator<parameter_list>;
    const mmopt_trainer *trainer_ = nullptr;
    std::size_t model_ = 0;
};

/// A model inside a trainer; valid as long as the trainer.
class trained_model {
  public:
    trained_model(const mmopt_trainer *trainer, std::size_t index) noexcept
        : trainer_(trainer), index_(index) {}

    /// Its number within the trainer.
    [[nodiscard]] std::size_t index() const noexcept { return index_; }
    [[nodiscard]] std::string_view name() const noexcept {
        const char *name = mmopt_trainer_model_name(trainer_, index_);
        return name == nullptr ? std::string_view() : name;
    }
    [[nodiscard]] parameter_list parameters() const noexcept { return {trainer_, index_}; }

  private:
    const mmopt_trainer *trainer_;
    std::size_t index_;
};

/// The models of a trainer.
class model_list {
  public:
    model_list() noexcept = default;
    explicit model_list(const mmopt_trainer *trainer) noexcept : trainer_(trainer) {}

    [[nodiscard]] std::size_t size() const noexcept { return mmopt_trainer_n_models(trainer_); }
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    [[nodiscard]] trained_model operator[](std::size_t index) const noexcept {
        return {trainer_, index};
    }
    [[nodiscard]] auto begin() const noexcept { return iterator(*this, 0); }
    [[nodiscard]] auto end() const noexcept { return iterator(*this, size()); }

  private:
    using iterator = detail::index_iterator<model_list>;
    const mmopt_trainer *trainer_ = nullptr;
};

/// Where a pass first goes non-finite, for people and as JSON.
struct finding {
    std::string text, json;
};

/// Several models and the optimizer that trains them together.
class trainer : public handle<mmopt_trainer, mmopt_trainer_free> {
    using owner = handle<mmopt_trainer, mmopt_trainer_free>;

  public:
    using handle::handle;

    explicit trainer(span<const model> models,
                     const mmopt_trainer_options &options = trainer_options())
        : handle(make(models, options)) {}

    trainer(trainer &&) noexcept = default;
    trainer &operator=(trainer &&) noexcept = default;
    /// The object goes before the callbacks that it knows.
    ~trainer() { owner::free(); }

    /// The C object, to be freed by the caller. It has no callbacks any more; so call it when no
    /// other call runs.
    [[nodiscard]] mmopt_trainer *release() noexcept {
        if (callbacks_.any()) {
            mmopt_error_free(mmopt_trainer_set_log(get(), 0, nullptr, nullptr));
            mmopt_error_free(mmopt_trainer_set_progress(get(), nullptr, nullptr));
            mmopt_error_free(mmopt_trainer_set_rate_callback(get(), nullptr, nullptr));
            mmopt_error_free(mmopt_trainer_set_gradient_callback(get(), nullptr, nullptr));
            callbacks_.clear();
        }
        return owner::release();
    }

    /// Forgets gradients that were accumulated since the last step.
    void zero_grad() { done(mmopt_trainer_zero_grad(get())); }

    /// Opens the session that training one model on tensors of these shapes needs; runs nothing.
    void prepare(std::size_t model, span<const mmopt_tensor> tensors) {
        done(mmopt_trainer_prepare(get(), model, tensors.data(), tensors.size()));
    }
    void prepare(std::size_t model, std::initializer_list<tensor> tensors) {
        prepare(model, raw({tensors.begin(), tensors.size()}));
    }
    void prepare(std::size_t model, const tensor_list &tensors) { prepare(model, tensors.raw()); }

    /// Loss and gradients of one micro-batch of one model.
    mmopt_train_result forward_backward(std::size_t model, span<const mmopt_tensor> tensors) {
        mmopt_train_result result{};
        done(mmopt_trainer_forward_backward(get(), model, tensors.data(), tensors.size(),
                                            &result));
        return result;
    }
    mmopt_train_result forward_backward(std::size_t model, std::initializer_list<tensor> tensors) {
        return forward_backward(model, raw({tensors.begin(), tensors.size()}));
    }
    mmopt_train_result forward_backward(std::size_t model, const tensor_list &tensors) {
        return forward_backward(model, tensors.raw());
    }

    /// Loss and gradients of one micro-batch for every model, side by side: the tensors of each.
    std::vector<mmopt_train_result>
    forward_backward(const std::vector<std::vector<tensor>> &tensors) {
        std::vector<std::vector<mmopt_tensor>> all;
        std::vector<const mmopt_tensor *> arrays;
        std::vector<std::size_t> lengths;
        all.reserve(tensors.size());
        for (const auto &one : tensors) {
            all.push_back(raw(one));
            arrays.push_back(all.back().data());
            lengths.push_back(one.size());
        }
        std::vector<mmopt_train_result> results(n_models());
        done(mmopt_trainer_forward_backward_all(get(), arrays.data(), lengths.data(),
                                                arrays.size(), results.data()));
        return results;
    }

    /// The same with the parts of a loader's batch.
    std::vector<mmopt_train_result> forward_backward(const batch &all) {
        std::vector<mmopt_train_result> results(n_models());
        done(mmopt_trainer_forward_backward_batch(get(), all.get(), results.data()));
        return results;
    }

    /// Losses that the host computed, one for each model.
    void log_metrics(span<const double> losses) {
        done(mmopt_trainer_log_metrics(get(), losses.data(), losses.size()));
    }

    /// One coordinated step over the gradients since the last one.
    mmopt_step_report step() {
        mmopt_step_report report{};
        done(mmopt_trainer_step(get(), &report));
        return report;
    }

    /// Runs one model without dropout and gradients.
    [[nodiscard]] evaluation evaluate(std::size_t model, span<const mmopt_tensor> tensors) {
        mmopt_evaluation *made = nullptr;
        mmopt_error *failed =
            mmopt_trainer_evaluate(get(), model, tensors.data(), tensors.size(), &made);
        evaluation owned(made);
        done(failed);
        return owned;
    }
    [[nodiscard]] evaluation evaluate(std::size_t model, std::initializer_list<tensor> tensors) {
        return evaluate(model, raw({tensors.begin(), tensors.size()}));
    }
    [[nodiscard]] evaluation evaluate(std::size_t model, const tensor_list &tensors) {
        return evaluate(model, tensors.raw());
    }

    [[nodiscard]] std::size_t n_models() const noexcept { return mmopt_trainer_n_models(get()); }
    [[nodiscard]] std::uint64_t n_steps() const noexcept { return mmopt_trainer_n_steps(get()); }
    [[nodiscard]] model_list models() const noexcept { return model_list(get()); }
    [[nodiscard]] std::size_t model_index(const std::string &name) const {
        std::size_t found = 0;
        done(mmopt_trainer_model_index(get(), detail::text(name), &found));
        return found;
    }
    /// A model's parameters; views into the trainer's memory.
    [[nodiscard]] parameter_list parameters(std::size_t model) const noexcept {
        return {get(), model};
    }
    /// Replaces a parameter's value; elements must be of its type and as many.
    template <class C>
    void set_parameter(std::size_t model, std::size_t index, const C &elements) {
        const std::size_t n_bytes = checked_bytes(model, index, elements);
        done(mmopt_trainer_set_parameter(get(), model, index, std::data(elements), n_bytes));
    }
    /// Replaces a gradient between the backward pass and the step.
    template <class C>
    void set_gradient(std::size_t model, std::size_t index, const C &elements) {
        const std::size_t n_bytes = checked_bytes(model, index, elements);
        done(mmopt_trainer_set_gradient(get(), model, index, std::data(elements), n_bytes));
    }
    /// Freezes or trains the parameters that match both patterns; how many changed.
    std::size_t set_trainable(const std::string &model_pattern, const std::string &pattern,
                              bool trainable) {
        std::size_t n_changed = 0;
        done(mmopt_trainer_set_trainable(get(), detail::text(model_pattern), detail::text(pattern),
                                         trainable ? 1 : 0, &n_changed));
        return n_changed;
    }

    /// What was found in a model's graph and done about it, for people and as JSON.
    [[nodiscard]] std::string model_report(std::size_t model) const {
        char *text = nullptr;
        done(mmopt_trainer_model_report(get(), model, &text));
        return detail::take(text);
    }
    [[nodiscard]] std::string model_report_json(std::size_t model) const {
        char *json = nullptr;
        done(mmopt_trainer_model_report_json(get(), model, &json));
        return detail::take(json);
    }
    /// Where a training pass over these tensors first goes non-finite; nothing when it does not.
    [[nodiscard]] std::optional<finding>
    find_non_finite(std::size_t model, span<const mmopt_tensor> tensors) const {
        char *text = nullptr, *json = nullptr;
        mmopt_error *const failed = mmopt_trainer_find_non_finite(
            get(), model, tensors.data(), tensors.size(), &text, &json);
        finding found{detail::take(text), detail::take(json)};
        done(failed);
        if (found.json.empty())
            return std::nullopt;
        return found;
    }
    [[nodiscard]] std::optional<finding> find_non_finite(std::size_t model,
                                                         const tensor_list &tensors) const {
        return find_non_finite(model, tensors.raw());
    }

    [[nodiscard]] mmopt_rates rates(std::size_t model) const {
        mmopt_rates rates{};
        done(mmopt_trainer_rates(get(), model, &rates));
        return rates;
    }
    void set_learning_rate(double rate) { done(mmopt_trainer_set_learning_rate(get(), rate)); }
    void set_model_weight(std::size_t model, double weight) {
        done(mmopt_trainer_set_model_weight(get(), model, weight));
    }
    /// What is shared with what and why, for people and as JSON.
    [[nodiscard]] std::string plan() const {
        char *text = nullptr;
        done(mmopt_trainer_plan(get(), &text));
        return detail::take(text);
    }
    [[nodiscard]] std::string plan_json() const {
        char *json = nullptr;
        done(mmopt_trainer_plan_json(get(), &json));
        return detail::take(json);
    }

    /// Sends messages up to a level to a function; an empty one ends that. What it throws comes out
    /// of the call that logged, which has done its work by then.
    void set_log(std::uint32_t level, log_function function) {
        replace(&detail::callbacks::log, std::move(function), [&](bool wanted, void *user) {
            return mmopt_trainer_set_log(get(), level, wanted ? mmopt_cpp_log : nullptr, user);
        });
    }
    /// Asks a function before each pass and step whether to go on; an empty one ends that. What it
    /// throws cancels the call and comes out of it.
    void set_progress(progress_function function) {
        replace(&detail::callbacks::progress, std::move(function), [&](bool wanted, void *user) {
            return mmopt_trainer_set_progress(get(), wanted ? mmopt_cpp_progress : nullptr, user);
        });
    }
    /// Lets a function decide each model's learning rate at each step; an empty one ends that. What
    /// it throws fails the step, which has changed nothing then, and comes out of it.
    void set_rate_callback(rate_function function) {
        replace(&detail::callbacks::rate, std::move(function), [&](bool wanted, void *user) {
            return mmopt_trainer_set_rate_callback(get(), wanted ? mmopt_cpp_rate : nullptr, user);
        });
    }
    /// Shows a function each gradient between backward pass and step, which it may change; an empty
    /// one ends that. What it throws fails the step and comes out of it.
    void set_gradient_callback(gradient_function function) {
        replace(&detail::callbacks::gradient, std::move(function), [&](bool wanted, void *user) {
            return mmopt_trainer_set_gradient_callback(
                get(), wanted ? mmopt_cpp_gradient : nullptr, user);
        });
    }
    /// A switch that ends passes from another thread.
    [[nodiscard]] mmopt::cancel_token cancel_token() const {
        mmopt_cancel_token *made = nullptr;
        done(mmopt_trainer_cancel_token(get(), &made));
        return mmopt::cancel_token(made);
    }

    void save_model(std::size_t model, const std::string &directory) const {
        done(mmopt_trainer_save_model(get(), model, detail::text(directory)));
    }
    void save_onnx(std::size_t model, const std::string &path) const {
        done(mmopt_trainer_save_onnx(get(), model, detail::text(path)));
    }
    /// Everything that training depends on, and a text of the host's.
    void checkpoint(const std::string &directory, const std::string &host_text = "") const {
        done(mmopt_trainer_save_checkpoint(get(), detail::text(directory),
                                           detail::text(host_text)));
    }
    /// Goes to the last checkpoint; gives back the host's text.
    std::string resume(const std::string &directory) {
        char *text = nullptr;
        done(mmopt_trainer_resume(get(), detail::text(directory), &text));
        return detail::take(text);
    }

  private:
    detail::callback_owner callbacks_;

    template <class F, class Set>
    void replace(std::unique_ptr<F> detail::callbacks::*place, F function, Set set) {
        callbacks_.replace(place, std::move(function), set);
    }
    void done(mmopt_error *raw) const { callbacks_.done(raw); }

    /// The size of elements in bytes; throws unless they are of the parameter's type.
    template <class C>
    std::size_t checked_bytes(std::size_t model, std::size_t index, const C &elements) const {
        using element = std::remove_cv_t<std::remove_pointer_t<decltype(std::data(elements))>>;
        (void)parameter(get(), model, index).data<element>();
        return std::size(elements) * sizeof(element);
    }

    static std::vector<mmopt_tensor> raw(span<const tensor> tensors) {
        std::vector<mmopt_tensor> all;
        all.reserve(tensors.size());
        for (const auto &one : tensors)
            all.push_back(one.raw());
        return all;
    }

    static mmopt_trainer *make(span<const model> models, const mmopt_trainer_options &options) {
        const auto raw = detail::pointers(models);
        mmopt_trainer *made = nullptr;
        detail::check(mmopt_trainer_create(&options, raw.data(), raw.size(), &made));
        return made;
    }
};

/// One parameter of the host, for an optimizer, in the host's memory.
struct host_parameter {
    /// The published name where there is one, as it decides the role.
    std::string name;
    std::vector<std::int64_t> shape;
    /// Updated in place.
    void *data = nullptr;
    /// Of the same shape; null: none.
    void *gradient = nullptr;
    /// MMOPT_DTYPE_F32, MMOPT_DTYPE_BF16 or MMOPT_DTYPE_F16.
    std::uint32_t gradient_dtype = MMOPT_DTYPE_F32;
    bool trainable = true;
    /// As in mmopt_parameter.
    std::optional<std::string> role_json = std::nullopt;
    /// The values: MMOPT_DTYPE_F32, MMOPT_DTYPE_BF16 or MMOPT_DTYPE_F16.
    std::uint32_t dtype = MMOPT_DTYPE_F32;
    /// In elements, one for each dimension; empty: dense and row-major.
    std::vector<std::int64_t> strides = {}, gradient_strides = {};

    /// From versioned DLPack tensors, which stay the host's; gradient may be null. The values are
    /// dense f32.
    [[nodiscard]] static host_parameter from_dlpack(const std::string &name, const void *value,
                                                    const void *gradient) {
        mmopt_parameter raw{};
        detail::check(mmopt_parameter_from_dlpack(detail::text(name), value, gradient, &raw));
        const auto layout = defaults<mmopt_parameter_layout, mmopt_parameter_layout_init>();
        return described(name, raw, layout);
    }

    /// The same for values of any type that can be trained, and any strides.
    [[nodiscard]] static host_parameter from_dlpack_strided(const std::string &name,
                                                            const void *value,
                                                            const void *gradient) {
        mmopt_parameter raw{};
        auto layout = defaults<mmopt_parameter_layout, mmopt_parameter_layout_init>();
        detail::check(mmopt_parameter_from_dlpack_strided(detail::text(name), value, gradient,
                                                          &layout, &raw));
        return described(name, raw, layout);
    }

  private:
    static host_parameter described(const std::string &name, const mmopt_parameter &raw,
                                    const mmopt_parameter_layout &layout) {
        const auto copied = [&](const std::int64_t *numbers) {
            return numbers == nullptr ? std::vector<std::int64_t>()
                                      : std::vector<std::int64_t>(numbers, numbers + raw.n_dims);
        };
        host_parameter made;
        made.name = name;
        made.shape = copied(raw.shape);
        made.data = raw.data;
        made.gradient = raw.gradient;
        made.gradient_dtype = raw.gradient_dtype;
        made.trainable = raw.trainable != 0;
        made.dtype = layout.dtype;
        made.strides = copied(layout.strides);
        made.gradient_strides = copied(layout.gradient_strides);
        return made;
    }
};

/// One model of the host, for an optimizer.
struct host_model {
    std::string name;
    std::vector<host_parameter> parameters;
    /// Finite and at least 0; only ratios matter.
    double weight = 1;
    /// The published model_type, for reports.
    std::optional<std::string> architecture = std::nullopt;
    /// Token tables share only between models of the same vocabulary, heads of the same task.
    std::optional<std::string> vocabulary = std::nullopt;
    std::optional<std::string> task = std::nullopt;
};

/// Gradient mode: updates the parameters of several models together, in the host's memory, which
/// must stay where it is as long as the optimizer lives.
class optimizer : public handle<mmopt_optimizer, mmopt_optimizer_free> {
    using owner = handle<mmopt_optimizer, mmopt_optimizer_free>;

  public:
    using handle::handle;

    explicit optimizer(span<const host_model> models,
                       const mmopt_trainer_options &options = trainer_options())
        : handle(make(models, options)) {}

    optimizer(optimizer &&) noexcept = default;
    optimizer &operator=(optimizer &&) noexcept = default;
    /// The object goes before the callbacks that it knows.
    ~optimizer() { owner::free(); }

    /// The C object, to be freed by the caller. It has no callbacks any more; so call it when no
    /// other call runs.
    [[nodiscard]] mmopt_optimizer *release() noexcept {
        if (callbacks_.any()) {
            mmopt_error_free(mmopt_optimizer_set_rate_callback(get(), nullptr, nullptr));
            mmopt_error_free(mmopt_optimizer_set_gradient_callback(get(), nullptr, nullptr));
            callbacks_.clear();
        }
        return owner::release();
    }

    [[nodiscard]] std::size_t n_models() const noexcept {
        return mmopt_optimizer_n_models(get());
    }
    /// Gives a parameter another gradient (null: none) for the coming steps.
    void set_gradient(std::size_t model, std::size_t parameter, void *gradient,
                      std::uint32_t gradient_dtype = MMOPT_DTYPE_F32) {
        detail::check(
            mmopt_optimizer_set_gradient(get(), model, parameter, gradient, gradient_dtype));
    }
    /// The same with strides, in elements, one for each dimension.
    void set_gradient(std::size_t model, std::size_t parameter, void *gradient,
                      std::uint32_t gradient_dtype, span<const std::int64_t> strides) {
        detail::check(mmopt_optimizer_set_gradient_strided(get(), model, parameter, gradient,
                                                           gradient_dtype, strides.data(),
                                                           strides.size()));
    }
    /// Hands over a DLPack tensor as the gradient of the coming steps. When it throws, the tensor
    /// stays the caller's.
    void set_gradient(std::size_t model, std::size_t parameter, managed_tensor &&gradient) {
        detail::check(
            mmopt_optimizer_set_gradient_dlpack(get(), model, parameter, gradient.get()));
        (void)gradient.release();
    }
    /// Hands over a DLPack tensor whose memory the optimizer uses; it goes when the optimizer goes.
    void keep(managed_tensor &&managed) {
        detail::check(mmopt_optimizer_keep_dlpack(get(), managed.get()));
        (void)managed.release();
    }
    /// Forgets micro-batches that were accumulated since the last step.
    void zero_grad() { detail::check(mmopt_optimizer_zero_grad(get())); }
    /// Tells that the gradients of one model's micro-batch lie in its memory, and its loss.
    void accumulate(std::size_t model, double loss) {
        detail::check(mmopt_optimizer_accumulate(get(), model, loss));
    }
    /// One coordinated step.
    mmopt_step_report step() {
        mmopt_step_report report{};
        callbacks_.done(mmopt_optimizer_step(get(), &report));
        return report;
    }
    /// Steps taken, those before a load included.
    [[nodiscard]] std::uint64_t n_steps() const noexcept { return mmopt_optimizer_n_steps(get()); }
    /// Lets a function decide each model's learning rate at each step; an empty one ends that. What
    /// it throws fails the step, which has changed nothing then, and comes out of it.
    void set_rate_callback(rate_function function) {
        const auto set = [&](bool wanted, void *user) {
            return mmopt_optimizer_set_rate_callback(get(), wanted ? mmopt_cpp_rate : nullptr,
                                                     user);
        };
        callbacks_.replace(&detail::callbacks::rate, std::move(function), set);
    }
    /// Shows a function each gradient of a step, which it may change; an empty one ends that. What
    /// it throws fails the step and comes out of it.
    void set_gradient_callback(gradient_function function) {
        const auto set = [&](bool wanted, void *user) {
            return mmopt_optimizer_set_gradient_callback(
                get(), wanted ? mmopt_cpp_gradient : nullptr, user);
        };
        callbacks_.replace(&detail::callbacks::gradient, std::move(function), set);
    }
    [[nodiscard]] mmopt_rates rates(std::size_t model) const {
        mmopt_rates rates{};
        detail::check(mmopt_optimizer_rates(get(), model, &rates));
        return rates;
    }
    void set_learning_rate(double rate) {
        detail::check(mmopt_optimizer_set_learning_rate(get(), rate));
    }
    void set_model_weight(std::size_t model, double weight) {
        detail::check(mmopt_optimizer_set_model_weight(get(), model, weight));
    }
    [[nodiscard]] std::string plan() const {
        char *text = nullptr;
        detail::check(mmopt_optimizer_plan(get(), &text));
        return detail::take(text);
    }
    [[nodiscard]] std::string plan_json() const {
        char *json = nullptr;
        detail::check(mmopt_optimizer_plan_json(get(), &json));
        return detail::take(json);
    }
    /// Moments and counters, not the host's values.
    void save(const std::string &directory) const {
        detail::check(mmopt_optimizer_save_checkpoint(get(), detail::text(directory)));
    }
    void load(const std::string &directory) {
        detail::check(mmopt_optimizer_resume(get(), detail::text(directory)));
    }

  private:
    detail::callback_owner callbacks_;

    static mmopt_optimizer *make(span<const host_model> models,
                                 const mmopt_trainer_options &options) {
        std::vector<std::vector<mmopt_parameter>> parameters;
        std::vector<std::vector<mmopt_parameter_layout>> layouts;
        std::vector<mmopt_parameters> raw;
        parameters.reserve(models.size());
        layouts.reserve(models.size());
        for (const auto &one : models) {
            parameters.emplace_back();
            layouts.emplace_back();
            layouts.back().reserve(one.parameters.size());
            for (const auto &p : one.parameters) {
                layouts.back().push_back(lay_out(p));
                parameters.back().push_back(describe(p));
                parameters.back().back().layout = &layouts.back().back();
            }
            const auto &of = parameters.back();
            raw.push_back({detail::text(one.name), of.data(), of.size(), one.weight,
                           detail::c_string(one.architecture), detail::c_string(one.vocabulary),
                           detail::c_string(one.task), {0, 0}});
        }
        mmopt_optimizer *made = nullptr;
        detail::check(mmopt_optimizer_create(&options, raw.data(), raw.size(), &made));
        return made;
    }

    static mmopt_parameter_layout lay_out(const host_parameter &p) {
        auto layout = defaults<mmopt_parameter_layout, mmopt_parameter_layout_init>();
        layout.dtype = p.dtype;
        for (const auto &strides : {&p.strides, &p.gradient_strides})
            if (!strides->empty() && strides->size() != p.shape.size())
                throw error(MMOPT_CODE_SHAPE, p.name + ": as many strides as dimensions");
        layout.strides = p.strides.empty() ? nullptr : p.strides.data();
        layout.gradient_strides = p.gradient_strides.empty() ? nullptr : p.gradient_strides.data();
        return layout;
    }

    static mmopt_parameter describe(const host_parameter &p) {
        mmopt_parameter raw{};
        raw.name = detail::text(p.name);
        raw.shape = p.shape.data();
        raw.n_dims = p.shape.size();
        raw.data = p.data;
        raw.gradient = p.gradient;
        raw.gradient_dtype = p.gradient_dtype;
        raw.trainable = p.trainable ? 1 : 0;
        raw.role_json = detail::c_string(p.role_json);
        return raw;
    }
};

} // namespace mmopt

#if __cplusplus >= 202002L && defined(__cpp_lib_ranges)
template <class T> inline constexpr bool std::ranges::enable_borrowed_range<mmopt::span<T>> = true;
#endif

#endif
