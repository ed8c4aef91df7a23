/**
 * @file mmopt/loader.hpp
 * Batches, and loaders that yield a corpus in batches.
 */
#ifndef MMOPT_LOADER_HPP
#define MMOPT_LOADER_HPP

#include "tensor.hpp"
#include "tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

namespace mmopt {

[[nodiscard]] inline mmopt_loader_options loader_options() noexcept {
    return defaults<mmopt_loader_options, mmopt_loader_options_init>();
}

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

/// Encodes plain text once and writes its tokens to a file for loader::from_token_files(): for text
/// that is larger than memory. A file of the same text and tokenizer is left as it is. Gives the
/// number of tokens.
inline std::uint64_t write_token_file(const std::string &path, const tokenizer &by,
                                      const std::string &file,
                                      mmopt_sample_by sample_by = MMOPT_SAMPLE_BY_PARAGRAPH) {
    std::uint64_t n_tokens = 0;
    detail::check(mmopt_token_file_write(detail::text(path), sample_by, by.get(),
                                         detail::text(file), &n_tokens));
    return n_tokens;
}

/// Yields a corpus in batches, in seeded order.
class loader : public handle<mmopt_loader, mmopt_loader_free> {
  public:
    using handle::handle;

    loader(const corpus &from, span<const tokenizer> tokenizers,
           const mmopt_loader_options &options = loader_options())
        : handle(make(from, tokenizers, options)) {}

    /// A loader of the files that write_token_file() made, one for each model, with the tokenizers
    /// that made them. The files must not change while it lives.
    [[nodiscard]] static loader
    from_token_files(const std::vector<std::string> &files, span<const tokenizer> tokenizers,
                     const mmopt_loader_options &options = loader_options()) {
        if (files.size() != tokenizers.size())
            throw error(MMOPT_CODE_INVALID_ARGUMENT, "files and tokenizers differ in number");
        const auto names = detail::c_strings(files);
        const auto raw = detail::pointers(tokenizers);
        mmopt_loader *made = nullptr;
        detail::check(mmopt_loader_create_from_token_files(names.data(), raw.data(), raw.size(),
                                                           &options, &made));
        return loader(made);
    }

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

    /// What encoding made of the corpus for one model, and what was lost.
    [[nodiscard]] mmopt_encoding_stats encoding_stats(std::size_t model) const {
        mmopt_encoding_stats stats{};
        detail::check(mmopt_loader_encoding_stats(get(), model, &stats));
        return stats;
    }
    /// The batches of the current epoch; as many in all, except with max_tokens.
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

} // namespace mmopt

#endif
