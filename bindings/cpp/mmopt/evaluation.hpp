/**
 * @file mmopt/evaluation.hpp
 * What an evaluation gives.
 */
#ifndef MMOPT_EVALUATION_HPP
#define MMOPT_EVALUATION_HPP

#include "handle.hpp"
#include "tensor.hpp"

#include <cstddef>
#include <cstdint>
#include <string>

namespace mmopt {

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

[[nodiscard]] inline mmopt_evaluate_options evaluate_options() noexcept {
    return defaults<mmopt_evaluate_options, mmopt_evaluate_options_init>();
}

/// The scores of a model on a corpus; NaN what the corpus's task does not have. json has those of
/// each class and of each type of entities, too.
struct scores : mmopt_scores {
    std::string json;
};

} // namespace mmopt

#endif
