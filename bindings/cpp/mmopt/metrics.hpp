/**
 * @file mmopt/metrics.hpp
 * Metrics of text tasks.
 */
#ifndef MMOPT_METRICS_HPP
#define MMOPT_METRICS_HPP

#include "error.hpp"
#include "span.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace mmopt {

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

/// As entities, counted as seqeval does in strict mode.
[[nodiscard]] inline entity_scores strict_entities(span<const std::int64_t> predictions,
                                                   span<const std::int64_t> labels,
                                                   std::size_t length,
                                                   const std::vector<std::string> &tags) {
    if (predictions.size() != labels.size() || length == 0 || labels.size() % length != 0)
        throw error(MMOPT_CODE_INVALID_ARGUMENT,
                    "predictions and labels are no rows of length " + std::to_string(length));
    const auto names = detail::c_strings(tags);
    entity_scores scores{};
    char *by_type = nullptr;
    detail::check(mmopt_metrics_strict_entities(predictions.data(), labels.data(),
                                                labels.size() / length, length, names.data(),
                                                names.size(), &scores, &by_type));
    scores.by_type = detail::take(by_type);
    return scores;
}

/// A row for each label, in it a count for each prediction.
using confusion_matrix_rows = std::vector<std::vector<std::uint64_t>>;

/// Cuts a matrix into its rows.
[[nodiscard]] inline confusion_matrix_rows rows_of(const std::vector<std::uint64_t> &all,
                                                   std::size_t n) {
    confusion_matrix_rows cut;
    for (std::size_t i = 0; i < n; i++)
        cut.emplace_back(all.data() + i * n, all.data() + (i + 1) * n);
    return cut;
}

/// How many of each class were predicted as which; negative labels are left out.
[[nodiscard]] inline confusion_matrix_rows confusion_matrix(span<const std::int64_t> predictions,
                                                            span<const std::int64_t> labels,
                                                            std::size_t n_classes) {
    if (predictions.size() != labels.size())
        throw error(MMOPT_CODE_INVALID_ARGUMENT, "predictions and labels differ in number");
    std::vector<std::uint64_t> all(n_classes * n_classes);
    detail::check(mmopt_metrics_confusion_matrix(predictions.data(), labels.data(),
                                                        labels.size(), n_classes, all.data()));
    return rows_of(all, n_classes);
}

/// The same of a model on a loader; json is that of trainer::evaluate.
[[nodiscard]] inline confusion_matrix_rows confusion_matrix(const std::string &json,
                                                            std::size_t n_classes) {
    std::vector<std::uint64_t> all(n_classes * n_classes);
    detail::check(mmopt_scores_confusion_matrix(detail::text(json), n_classes,
                                                       all.data()));
    return rows_of(all, n_classes);
}

/// Scores of predicted numbers: mean squared error, Pearson's and Spearman's correlations.
[[nodiscard]] inline mmopt_regression_scores regression(span<const double> predictions,
                                                        span<const double> labels) {
    if (predictions.size() != labels.size())
        throw error(MMOPT_CODE_INVALID_ARGUMENT, "predictions and labels differ in number");
    mmopt_regression_scores scores{};
    detail::check(
        mmopt_metrics_regression(predictions.data(), labels.data(), labels.size(), &scores));
    return scores;
}

/// e to the mean loss of a token, from the mean losses of batches and their numbers of tokens.
[[nodiscard]] inline double perplexity(span<const double> losses,
                                       span<const std::uint64_t> n_tokens) {
    if (losses.size() != n_tokens.size())
        throw error(MMOPT_CODE_INVALID_ARGUMENT, "losses and n_tokens differ in number");
    double value = 0;
    detail::check(
        mmopt_metrics_perplexity(losses.data(), n_tokens.data(), losses.size(), &value));
    return value;
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

} // namespace mmopt

#endif
