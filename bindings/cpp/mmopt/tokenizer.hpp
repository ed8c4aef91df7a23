/**
 * @file mmopt/tokenizer.hpp
 * Tokenizers and encoded texts.
 */
#ifndef MMOPT_TOKENIZER_HPP
#define MMOPT_TOKENIZER_HPP

#include "corpus.hpp"
#include "span.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace mmopt {

[[nodiscard]] inline mmopt_tokenizer_options tokenizer_options() noexcept {
    return defaults<mmopt_tokenizer_options, mmopt_tokenizer_options_init>();
}

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
    [[nodiscard]] std::optional<std::uint32_t>
    special_token_id(std::uint32_t special) const noexcept {
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
        detail::check(mmopt_tokenizer_decode(get(), ids.data(), ids.size(),
                                             skip_special_tokens ? 1 : 0, &text));
        return detail::take(text);
    }

  private:
    [[nodiscard]] encoding encode_raw(const char *text, const char *pair, std::size_t max) const {
        mmopt_encoding *made = nullptr;
        detail::check(mmopt_tokenizer_encode(get(), text, pair, max, &made));
        return encoding(made);
    }
};

} // namespace mmopt

#endif
