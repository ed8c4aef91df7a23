/**
 * @file mmopt/optimizer.hpp
 * Gradient mode.
 */
#ifndef MMOPT_OPTIMIZER_HPP
#define MMOPT_OPTIMIZER_HPP

#include "trainer.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace mmopt {

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
    [[nodiscard]] static host_parameter from_dlpack(const std::string &name,
                                                    const DLManagedTensorVersioned *value,
                                                    const DLManagedTensorVersioned *gradient) {
        mmopt_parameter raw{};
        detail::check(mmopt_parameter_from_dlpack(detail::text(name), value, gradient, &raw));
        const auto layout = defaults<mmopt_parameter_layout, mmopt_parameter_layout_init>();
        return described(name, raw, layout);
    }

    /// The same for values of any type that can be trained, and any strides.
    [[nodiscard]] static host_parameter from_dlpack_strided(const std::string &name,
                                                            const DLManagedTensorVersioned *value,
                                                            const DLManagedTensorVersioned *gradient) {
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
    /// The gradients stay where they are until they are replaced or the optimizer goes. false: each
    /// step needs a set_gradient for every gradient that it reads, as after zero_grad of libtorch.
    bool stable_gradients = false;
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
    /// Gives a parameter other memory for its values, of the same type; moments stay. Empty strides:
    /// dense and row-major.
    void set_data(std::size_t model, std::size_t parameter, void *data,
                  span<const std::int64_t> strides = {}) {
        detail::check(mmopt_optimizer_set_data(get(), model, parameter, data,
                                               strides.size() == 0 ? nullptr : strides.data(),
                                               strides.size()));
    }
    /// Gives a parameter another gradient (null: none) for the next step, and for all later ones if
    /// the model's stable_gradients is true.
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
    void keep_dlpack(managed_tensor &&managed) {
        detail::check(mmopt_optimizer_keep_dlpack(get(), managed.get()));
        (void)managed.release();
    }
    /// Forgets micro-batches that were accumulated since the last step.
    void zero_grad() { detail::check(mmopt_optimizer_zero_grad(get())); }
    /// Tells that the gradients of one model's micro-batch lie in its memory, and its loss.
    void accumulate(std::size_t model, double loss) {
        detail::check(mmopt_optimizer_accumulate(get(), model, loss));
    }
    /// The same with the weight of the micro-batch in the step's mean, such as its number of labels.
    void accumulate(std::size_t model, double loss, double weight) {
        detail::check(mmopt_optimizer_accumulate_weighted(get(), model, loss, weight));
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
    /// As those of trainer.
    void report_validation(span<const double> scores) {
        detail::check(mmopt_optimizer_report_validation(get(), scores.data(), scores.size()));
    }
    [[nodiscard]] std::string metrics_json() const {
        char *json = nullptr;
        detail::check(mmopt_optimizer_metrics_json(get(), &json));
        return detail::take(json);
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
    void save_checkpoint(const std::string &directory) const {
        detail::check(mmopt_optimizer_save_checkpoint(get(), detail::text(directory)));
    }
    void resume(const std::string &directory) {
        detail::check(mmopt_optimizer_resume(get(), detail::text(directory)));
    }

  private:
    detail::callback_owner callbacks_;

    static mmopt_optimizer *make(span<const host_model> models,
                                 const mmopt_trainer_options &options) {
        std::vector<std::vector<mmopt_parameter>> parameters;
        std::vector<std::vector<mmopt_parameter_layout>> layouts;
        std::vector<mmopt_model_parameters> raw;
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
                           detail::c_string(one.task), one.stable_gradients ? 1U : 0U, 0, {0}});
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

#endif
