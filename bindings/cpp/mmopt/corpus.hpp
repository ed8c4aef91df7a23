/**
 * @file mmopt/corpus.hpp
 * Corpora.
 */
#ifndef MMOPT_CORPUS_HPP
#define MMOPT_CORPUS_HPP

#include "handle.hpp"
#include "span.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mmopt {

[[nodiscard]] inline mmopt_corpus_options corpus_options() noexcept {
    return defaults<mmopt_corpus_options, mmopt_corpus_options_init>();
}

/// The examples of one task. It never changes.
class corpus : public handle<mmopt_corpus, mmopt_corpus_free> {
  public:
    using handle::handle;

    /// Texts with one class each: tab-separated, comma-separated, JSON, Parquet, or a folder of
    /// text files. A path may be a pattern of several files (* and ?), here and below.
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

    /// Words without tags: the first column of each line, blank lines between sentences.
    [[nodiscard]] static corpus read_words(const std::string &path) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_read_words(detail::text(path), &made));
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

    /// n generated sentences with named entities.
    [[nodiscard]] static corpus synthetic_entities(std::size_t n, std::uint64_t seed = 0) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_synthetic_entities(n, seed, &made));
        return corpus(made);
    }

    /// n generated questions, each with its answer in a context.
    [[nodiscard]] static corpus synthetic_questions(std::size_t n, std::uint64_t seed = 0) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_synthetic_questions(n, seed, &made));
        return corpus(made);
    }

    /// The texts, for language modelling.
    [[nodiscard]] corpus plain_text() const {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_plain_text(get(), &made));
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

    /// Pairs of texts with the names of their classes (as many, or none).
    [[nodiscard]] static corpus from_pairs(const std::vector<std::string> &texts,
                                           const std::vector<std::string> &pairs,
                                           const std::vector<std::string> &labels = {},
                                           const corpus *labels_of = nullptr) {
        if (pairs.size() != texts.size() || (!labels.empty() && labels.size() != texts.size()))
            throw error(MMOPT_CODE_INVALID_ARGUMENT, "texts, pairs and labels differ in number");
        const auto t = detail::c_strings(texts), p = detail::c_strings(pairs),
                   l = detail::c_strings(labels);
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_from_pairs(t.data(), p.data(), l.empty() ? nullptr : l.data(),
                                              t.size(), raw(labels_of), &made));
        return corpus(made);
    }

    /// No examples, but classes (or tags, by the mmopt_task) of these names, for labels_of.
    [[nodiscard]] static corpus from_label_names(std::uint32_t task,
                                                 const std::vector<std::string> &names) {
        const auto n = detail::c_strings(names);
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_from_label_names(task, n.data(), n.size(), &made));
        return corpus(made);
    }

    /// Training and evaluation.
    [[nodiscard]] std::pair<corpus, corpus> split(double eval_fraction,
                                                  std::uint64_t seed = 0) const {
        mmopt_corpus *train = nullptr, *eval = nullptr;
        detail::check(mmopt_corpus_split(get(), eval_fraction, seed, &train, &eval));
        return {corpus(train), corpus(eval)};
    }

    /// The examples of all corpora, of one task and with the same classes or none.
    template <class... Corpora>
    [[nodiscard]] static corpus concatenate(const corpus &first, const Corpora &...rest) {
        return concatenate_raw({first.get(), rest.get()...});
    }
    [[nodiscard]] static corpus concatenate(const std::vector<corpus> &corpora) {
        std::vector<const mmopt_corpus *> all;
        for (const corpus &one : corpora)
            all.push_back(one.get());
        return concatenate_raw(all);
    }

    /// n examples drawn at random, with the proportions of the classes, and all others.
    [[nodiscard]] std::pair<corpus, corpus> sample(std::size_t n, std::uint64_t seed = 0) const {
        mmopt_corpus *sample = nullptr, *rest = nullptr;
        detail::check(mmopt_corpus_sample(get(), n, seed, &sample, &rest));
        return {corpus(sample), corpus(rest)};
    }

    /// The examples of these numbers, in this order.
    [[nodiscard]] corpus subset(span<const std::size_t> examples) const {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_subset(get(), examples.data(), examples.size(), &made));
        return corpus(made);
    }

    /// A copy with the same classes whose examples have no labels.
    [[nodiscard]] corpus without_labels() const {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_without_labels(get(), &made));
        return corpus(made);
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
    /// The second text of a pair, or the question about a context, if there is one.
    [[nodiscard]] std::optional<std::string> pair(std::size_t example) const {
        char *text = nullptr;
        detail::check(mmopt_corpus_pair(get(), example, &text));
        if (text == nullptr)
            return std::nullopt;
        return detail::take(text);
    }
    /// The class of an example; -1 when it has none.
    [[nodiscard]] std::int64_t label(std::size_t example) const {
        std::int64_t label = -1;
        detail::check(mmopt_corpus_label(get(), example, &label));
        return label;
    }

  private:
    static corpus concatenate_raw(const std::vector<const mmopt_corpus *> &corpora) {
        mmopt_corpus *made = nullptr;
        detail::check(mmopt_corpus_concatenate(corpora.data(), corpora.size(), &made));
        return corpus(made);
    }
    /// The C pointer of an optional corpus.
    static const mmopt_corpus *raw(const corpus *of) noexcept {
        return of == nullptr ? nullptr : of->get();
    }
};

} // namespace mmopt

#endif
