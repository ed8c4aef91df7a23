/**
 * @file mmopt/fit.hpp
 * What trainer::fit and trainer::find_learning_rate take and give.
 */
#ifndef MMOPT_FIT_HPP
#define MMOPT_FIT_HPP

#include "callbacks.hpp"

#include <mmopt.h>

#include <limits>
#include <vector>

namespace mmopt {

/// The defaults.
[[nodiscard]] inline mmopt_fit_options fit_options() noexcept {
    mmopt_fit_options options;
    mmopt_fit_options_init(&options);
    return options;
}

/// The defaults.
[[nodiscard]] inline mmopt_find_learning_rate_options find_learning_rate_options() noexcept {
    mmopt_find_learning_rate_options options;
    mmopt_find_learning_rate_options_init(&options);
    return options;
}

/// What a fit came to.
struct fit_result : mmopt_fit_result {
    /// Each model's best evaluation.
    std::vector<mmopt_fit_best> models;
};

/// What the range test found.
struct learning_rate_curve {
    /// The rates that were tried.
    std::vector<double> rates;
    /// Each model's smoothed loss at each rate.
    std::vector<std::vector<double>> losses;
    /// A rate for each model, NaN when its loss falls nowhere.
    std::vector<double> suggestions;
    /// A rate for all models together; NaN likewise.
    double suggestion = std::numeric_limits<double>::quiet_NaN();
};

} // namespace mmopt

#endif
