/**
 * @file mmopt/trainer.hpp
 * Trainers.
 */
#ifndef MMOPT_TRAINER_HPP
#define MMOPT_TRAINER_HPP

#include "callbacks.hpp"
#include "communicator.hpp"
#include "evaluation.hpp"
#include "fit.hpp"
#include "loader.hpp"
#include "model.hpp"
#include "parameter.hpp"
#include "predictor.hpp"

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace mmopt {

/// The options of a preset, an mmopt_preset.
[[nodiscard]] inline mmopt_trainer_options
trainer_options(std::uint32_t preset = MMOPT_PRESET_DEFAULT) noexcept {
    mmopt_trainer_options options;
    mmopt_trainer_options_init(&options, preset);
    return options;
}

/// How replicas on several ranks keep together: the defaults.
[[nodiscard]] inline mmopt_rank_options rank_options() noexcept {
    return defaults<mmopt_rank_options, mmopt_rank_options_init>();
}

/// Ends a running pass of a trainer from another thread.
class cancel_token : public handle<mmopt_cancel_token, mmopt_cancel_token_free> {
  public:
    using handle::handle;

    /// Makes passes that run, and all later ones, throw MMOPT_CODE_CANCELLED.
    void cancel() const { detail::check(mmopt_cancel_token_cancel(get())); }
    /// Lets passes run again.
    void reset() const { detail::check(mmopt_cancel_token_reset(get())); }
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
            mmopt_error_free(mmopt_trainer_set_log_callback(get(), 0, nullptr, nullptr));
            mmopt_error_free(mmopt_trainer_set_progress_callback(get(), nullptr, nullptr));
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
        const arrays_of_all all(tensors);
        std::vector<mmopt_train_result> results(n_models());
        done(mmopt_trainer_forward_backward_all(get(), all.arrays.data(), all.lengths.data(),
                                                all.arrays.size(), results.data()));
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

    /// Puts the running means (EMA) of all models' weights in the place of the weights, or the
    /// weights back.
    void use_ema_weights(bool on) { done(mmopt_trainer_use_ema_weights(get(), on ? 1 : 0)); }

    /// Calls f with the running means in place; then, also after an exception, the weights are back.
    template <class F> auto with_ema_weights(F &&f) -> decltype(f()) {
        struct back {
            mmopt_trainer *trainer;
            explicit back(mmopt_trainer *of) noexcept : trainer(of) {}
            back(const back &) = delete;
            back &operator=(const back &) = delete;
            ~back() { mmopt_error_free(mmopt_trainer_use_ema_weights(trainer, 0)); }
        };
        use_ema_weights(true);
        const back guard(get());
        return f();
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

    /// The scores of one model on its part of a loader: every example once, in order. The loader
    /// stays where it is.
    [[nodiscard]] scores evaluate(std::size_t model, const loader &walk,
                                  const mmopt_evaluate_options &options = evaluate_options()) {
        scores found{};
        char *json = nullptr;
        mmopt_error *const failed =
            mmopt_trainer_evaluate_loader(get(), model, walk.get(), &options, &found, &json);
        found.json = detail::take(json);
        done(failed);
        return found;
    }

    /// The usual training loop as one call: passes, steps, evaluation, early stopping, checkpoints,
    /// logs. `evaluation`: no loader, one for all models, or one for each. `callback` is told of
    /// each step and evaluation, and may end the fit; what it throws ends it, too, and comes out.
    fit_result fit(loader &walk, const std::vector<const loader *> &evaluation = {},
                   const mmopt_fit_options &options = fit_options(), fit_function callback = {}) {
        std::vector<const mmopt_loader *> raw;
        raw.reserve(evaluation.size());
        for (const auto *one : evaluation)
            raw.push_back(one->get());
        fit_result result{};
        result.models.resize(n_models());
        detail::callbacks own;
        const bool wanted = static_cast<bool>(callback);
        own.fit = std::make_unique<fit_function>(std::move(callback));
        mmopt_error *const failed = mmopt_trainer_fit(
            get(), walk.get(), raw.data(), raw.size(), &options, wanted ? mmopt_cpp_fit : nullptr,
            &own, &result, result.models.data());
        try {
            own.rethrow();
        } catch (...) {
            mmopt_error_free(failed);
            throw;
        }
        done(failed);
        return result;
    }

    /// The range test for learning rates; everything is put back.
    [[nodiscard]] learning_rate_curve
    find_learning_rate(loader &walk, const mmopt_find_learning_rate_options &options =
                                         find_learning_rate_options()) {
        learning_rate_curve curve;
        const auto n = static_cast<std::size_t>(options.n_steps);
        // The library refuses more.
        const std::size_t room = n > (1u << 20) ? 0 : n;
        std::vector<double> losses(n_models() * room);
        curve.rates.resize(room);
        curve.suggestions.resize(n_models());
        mmopt_learning_rate_range range{};
        done(mmopt_trainer_find_learning_rate(get(), walk.get(), &options, curve.rates.data(),
                                              losses.data(), curve.suggestions.data(), &range));
        const auto found = static_cast<std::ptrdiff_t>(range.n_rates);
        curve.rates.resize(static_cast<std::size_t>(range.n_rates));
        for (std::size_t m = 0; m < n_models(); ++m) {
            const auto first = losses.begin() + static_cast<std::ptrdiff_t>(m * room);
            curve.losses.emplace_back(first, first + found);
        }
        curve.suggestion = range.suggestion;
        return curve;
    }

    /// What one model writes after prompts: as predictor::generate.
    [[nodiscard]] prediction_lists
    generate(std::size_t model, const tokenizer &words, const std::vector<std::string> &prompts,
             const mmopt_generate_options &options = generate_options()) {
        const auto all = detail::c_strings(prompts);
        mmopt_predictions *made = nullptr;
        done(mmopt_trainer_generate(get(), model, words.get(), all.data(), all.size(), &options,
                                    &made));
        return detail::take(made);
    }

    /// What one model says about texts: as predictor::predict.
    [[nodiscard]] prediction_lists
    predict(std::size_t model, const tokenizer &words, const std::vector<std::string> &texts,
            const std::vector<std::string> &pairs = {},
            const mmopt_predict_options &options = predict_options()) {
        detail::check_pairs(texts, pairs);
        const auto first = detail::c_strings(texts), second = detail::c_strings(pairs);
        mmopt_predictions *made = nullptr;
        done(mmopt_trainer_predict(get(), model, words.get(), first.data(),
                                   pairs.empty() ? nullptr : second.data(), first.size(), &options,
                                   &made));
        return detail::take(made);
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
    /// One validation score per model, higher is better, for the options lr_schedule plateau and
    /// weighting validation.
    void report_validation(span<const double> scores) {
        done(mmopt_trainer_report_validation(get(), scores.data(), scores.size()));
    }
    /// Agreement of gradients and distances of parameters, as of the last step that the option
    /// metrics_every named.
    [[nodiscard]] std::string metrics_json() const {
        char *json = nullptr;
        done(mmopt_trainer_metrics_json(get(), &json));
        return detail::take(json);
    }
    void set_model_weight(std::size_t model, double weight) {
        done(mmopt_trainer_set_model_weight(get(), model, weight));
    }
    /// Which parameters of the models belong together and why, and what is done with their gradients
    /// and values, for people and as JSON.
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

    /// What training takes in memory, as JSON. The tensors of each model give the shapes of a pass;
    /// without any, what passes take is left out.
    [[nodiscard]] std::string
    memory_report(const std::vector<std::vector<tensor>> &tensors = {}) const {
        const arrays_of_all all(tensors);
        char *json = nullptr;
        done(mmopt_trainer_memory_report(get(), all.arrays.data(), all.lengths.data(),
                                         all.arrays.size(), &json));
        return detail::take(json);
    }
    /// The same with the shapes of a loader's batch.
    [[nodiscard]] std::string memory_report(const batch &all) const {
        char *json = nullptr;
        done(mmopt_trainer_memory_report_batch(get(), all.get(), &json));
        return detail::take(json);
    }

    /// Sends messages up to a level to a function; an empty one ends that. What it throws comes out
    /// of the call that logged, which has done its work by then.
    void set_log_callback(std::uint32_t level, log_function function) {
        replace(&detail::callbacks::log, std::move(function), [&](bool wanted, void *user) {
            return mmopt_trainer_set_log_callback(get(), level, wanted ? mmopt_cpp_log : nullptr,
                                                  user);
        });
    }
    /// Asks a function before each pass and step whether to go on; an empty one ends that. What it
    /// throws cancels the call and comes out of it.
    void set_progress_callback(progress_function function) {
        replace(&detail::callbacks::progress, std::move(function), [&](bool wanted, void *user) {
            return mmopt_trainer_set_progress_callback(
                get(), wanted ? mmopt_cpp_progress : nullptr, user);
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
    /// Makes this trainer one of several replicas, one on each rank, which train as one; mmopt.h
    /// says what all ranks must do alike.
    void set_communicator(const communicator &ranks,
                          const mmopt_rank_options &options = rank_options()) {
        done(mmopt_trainer_set_communicator(get(), ranks.get(), &options));
    }
    /// Gives every rank the weights of the models that other ranks train (option placement), until
    /// the next step. All ranks call it.
    void gather_models() { done(mmopt_trainer_gather_models(get())); }
    /// Lets the trainer train by itself again.
    void leave_communicator() { done(mmopt_trainer_set_communicator(get(), nullptr, nullptr)); }
    /// A switch that ends passes from another thread.
    [[nodiscard]] mmopt::cancel_token cancel_token() const {
        mmopt_cancel_token *made = nullptr;
        done(mmopt_trainer_cancel_token(get(), &made));
        return mmopt::cancel_token(made);
    }

    void save_model(std::size_t model, const std::string &directory) const {
        done(mmopt_trainer_save_model(get(), model, detail::text(directory)));
    }
    /// The adapters of a model alone, in the layout of Python's peft.
    void save_adapters(std::size_t model, const std::string &directory) const {
        done(mmopt_trainer_save_adapters(get(), model, detail::text(directory)));
    }
    void save_onnx(std::size_t model, const std::string &path) const {
        done(mmopt_trainer_save_onnx(get(), model, detail::text(path)));
    }
    /// Everything that training depends on, and a text of the host's.
    void save_checkpoint(const std::string &directory, const std::string &host_text = "") const {
        done(mmopt_trainer_save_checkpoint(get(), detail::text(directory),
                                           detail::text(host_text)));
    }
    /// The same, with a choice of which checkpoints of this run stay; gives back the checkpoint's
    /// own directory. With asynchronous 1 it is written beside the training, and the text is empty:
    /// wait_for_checkpoint gives the directory.
    std::string save_checkpoint(const std::string &directory, const std::string &host_text,
                                const mmopt_checkpoint_options &options) const {
        char *path = nullptr;
        done(mmopt_trainer_save_checkpoint_with(get(), detail::text(directory),
                                                detail::text(host_text), &options,
                                                options.asynchronous == 1 ? nullptr : &path));
        return path == nullptr ? std::string() : detail::take(path);
    }
    /// Waits for the asynchronous checkpoint that is being written; gives back its directory, empty
    /// where there was none. Throws what writing it failed with.
    std::string wait_for_checkpoint() const {
        char *path = nullptr;
        done(mmopt_trainer_wait_for_checkpoint(get(), &path));
        return path == nullptr ? std::string() : detail::take(path);
    }
    /// Goes to the newest whole checkpoint; gives back the host's text.
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
    /// Throws what a callback threw during a call, else what the call returned.
    void done(mmopt_error *raw) const { callbacks_.done(raw); }

    /// The size of elements in bytes; throws unless they are of the parameter's type.
    template <class C>
    std::size_t checked_bytes(std::size_t model, std::size_t index, const C &elements) const {
        using element = std::remove_cv_t<std::remove_pointer_t<decltype(std::data(elements))>>;
        (void)parameter(get(), model, index).data<element>();
        return std::size(elements) * sizeof(element);
    }

    /// The C structs of several tensors, in their order.
    static std::vector<mmopt_tensor> raw(span<const tensor> tensors) {
        std::vector<mmopt_tensor> all;
        all.reserve(tensors.size());
        for (const auto &one : tensors)
            all.push_back(one.raw());
        return all;
    }

    /// The C arrays of the tensors of several models.
    struct arrays_of_all {
        std::vector<std::vector<mmopt_tensor>> all;
        std::vector<const mmopt_tensor *> arrays;
        std::vector<std::size_t> lengths;

        explicit arrays_of_all(const std::vector<std::vector<tensor>> &tensors) {
            all.reserve(tensors.size());
            for (const auto &one : tensors) {
                all.push_back(raw(one));
                arrays.push_back(all.back().data());
                lengths.push_back(one.size());
            }
        }
    };

    static mmopt_trainer *make(span<const model> models, const mmopt_trainer_options &options) {
        const auto raw = detail::pointers(models);
        mmopt_trainer *made = nullptr;
        detail::check(mmopt_trainer_create(&options, raw.data(), raw.size(), &made));
        return made;
    }
};

} // namespace mmopt

#endif
