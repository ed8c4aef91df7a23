/**
 * @file mmopt/predictor.hpp
 * What a trained model says about texts.
 */
#ifndef MMOPT_PREDICTOR_HPP
#define MMOPT_PREDICTOR_HPP

#include "error.hpp"
#include "handle.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace mmopt {

[[nodiscard]] inline mmopt_predict_options predict_options() noexcept {
    return defaults<mmopt_predict_options, mmopt_predict_options_init>();
}

[[nodiscard]] inline mmopt_predictor_options predictor_options() noexcept {
    return defaults<mmopt_predictor_options, mmopt_predictor_options_init>();
}

[[nodiscard]] inline mmopt_generate_options generate_options() noexcept {
    return defaults<mmopt_generate_options, mmopt_generate_options_init>();
}

/// A class, an entity or an answer; or generated text, whose label is "stop" or "length".
struct prediction {
    /// The class or the entity's type; empty for answers.
    std::string label;
    /// The entity or the answer; empty for classes, and for "no answer".
    std::string text;
    /// Bytes of the text, or for answers of the context.
    std::size_t start, end;
    /// 0 to 1, and the logit behind it; see mmopt_prediction.
    double probability, score;
};

/// The predictions for each text.
using prediction_lists = std::vector<std::vector<prediction>>;

namespace detail {

/// Takes the C object apart, and frees it.
inline prediction_lists take(mmopt_predictions *raw) {
    const handle<mmopt_predictions, mmopt_predictions_free> owned(raw);
    prediction_lists all(mmopt_predictions_n_texts(raw));
    for (std::size_t i = 0; i < all.size(); i++) {
        const mmopt_prediction *list = nullptr;
        std::size_t n = 0;
        check(mmopt_predictions_of(raw, i, &list, &n));
        for (std::size_t k = 0; k < n; k++) {
            const auto &p = list[k];
            all[i].push_back({p.label != nullptr ? p.label : "", p.text != nullptr ? p.text : "",
                              p.start, p.end, p.probability, p.score});
        }
    }
    return all;
}

/// Refuses pairs that are not one for each text.
inline void check_pairs(const std::vector<std::string> &texts,
                        const std::vector<std::string> &pairs) {
    if (!pairs.empty() && pairs.size() != texts.size())
        throw error(MMOPT_CODE_INVALID_ARGUMENT, "texts and pairs differ in number");
}

} // namespace detail

/// A model and its tokenizer, read from a directory. Threads may share it.
class predictor : public handle<mmopt_predictor, mmopt_predictor_free> {
  public:
    using handle::handle;

    [[nodiscard]] static predictor
    load(const std::string &directory,
         const mmopt_predictor_options &options = predictor_options()) {
        mmopt_predictor *made = nullptr;
        detail::check(mmopt_predictor_load(detail::text(directory), &options, &made));
        return predictor(made);
    }

    /// Classes of texts or pairs; entities of texts; answers to texts, which are questions, in
    /// pairs, which are their contexts.
    [[nodiscard]] prediction_lists
    predict(const std::vector<std::string> &texts, const std::vector<std::string> &pairs = {},
            const mmopt_predict_options &options = predict_options()) const {
        detail::check_pairs(texts, pairs);
        const auto first = detail::c_strings(texts), second = detail::c_strings(pairs);
        mmopt_predictions *made = nullptr;
        detail::check(mmopt_predictor_predict(get(), first.data(),
                                              pairs.empty() ? nullptr : second.data(),
                                              first.size(), &options, &made));
        return detail::take(made);
    }

    /// What a causal language model writes after each prompt: one prediction for each.
    [[nodiscard]] prediction_lists
    generate(const std::vector<std::string> &prompts,
             const mmopt_generate_options &options = generate_options()) const {
        const auto all = detail::c_strings(prompts);
        mmopt_predictions *made = nullptr;
        detail::check(
            mmopt_predictor_generate(get(), all.data(), all.size(), &options, &made));
        return detail::take(made);
    }
};

} // namespace mmopt

#endif
