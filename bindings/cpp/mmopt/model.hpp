/**
 * @file mmopt/model.hpp
 * Models to be trained.
 */
#ifndef MMOPT_MODEL_HPP
#define MMOPT_MODEL_HPP

#include "tokenizer.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace mmopt {

[[nodiscard]] inline mmopt_model_config model_config() noexcept {
    return defaults<mmopt_model_config, mmopt_model_config_init>();
}
[[nodiscard]] inline mmopt_loss_options loss_options() noexcept {
    return defaults<mmopt_loss_options, mmopt_loss_options_init>();
}
/// Defaults of low-rank adapters; model::add_adapters fills in the target modules.
[[nodiscard]] inline mmopt_adapter_options adapter_options() noexcept {
    return defaults<mmopt_adapter_options, mmopt_adapter_options_init>();
}
[[nodiscard]] inline mmopt_precomputed_gradient_options precomputed_gradient_options() noexcept {
    return defaults<mmopt_precomputed_gradient_options, mmopt_precomputed_gradient_options_init>();
}

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
    [[nodiscard]] static model from_config_json(const std::string &name, const std::string &json) {
        mmopt_model *made = nullptr;
        detail::check(mmopt_model_from_config_json(detail::text(name), detail::text(json), &made));
        return model(made);
    }
    /// Fresh, of a known architecture.
    [[nodiscard]] static model create(const std::string &name,
                                      const mmopt_model_config &config = model_config()) {
        mmopt_model *made = nullptr;
        detail::check(mmopt_model_create(detail::text(name), &config, &made));
        return model(made);
    }
    /// Fresh, fitting a tokenizer and a corpus.
    [[nodiscard]] static model for_corpus(const std::string &name, const mmopt_model_config &config,
                                          const tokenizer &words, const corpus &data) {
        mmopt_model *made = nullptr;
        detail::check(
            mmopt_model_for_corpus(detail::text(name), &config, words.get(), data.get(), &made));
        return model(made);
    }

    /// From a directory, with the task and the classes of a corpus.
    [[nodiscard]] static model pretrained_for_corpus(const std::string &name,
                                                     const std::string &directory,
                                                     const tokenizer &words, const corpus &data) {
        mmopt_model *made = nullptr;
        detail::check(mmopt_model_pretrained_for_corpus(detail::text(name), detail::text(directory),
                                                        words.get(), data.get(), &made));
        return model(made);
    }

    /// task is an mmopt_task. Weights of another task keep their body and get a fresh head.
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
    /// A newly initialised head in place of the directory's, e.g. for another number of classes.
    model &set_fresh_head(bool fresh = true) {
        detail::check(mmopt_model_set_fresh_head(get(), fresh ? 1 : 0));
        return *this;
    }
    /// Newly initialised weights for a directory; none are read.
    model &set_fresh_weights(bool fresh = true) {
        detail::check(mmopt_model_set_fresh_weights(get(), fresh ? 1 : 0));
        return *this;
    }
    /// Names the classes or tags by id, e.g. corpus::labels(); saved models have them.
    model &set_label_names(const std::vector<std::string> &names) {
        const auto all = detail::c_strings(names);
        detail::check(mmopt_model_set_label_names(get(), all.data(), all.size()));
        return *this;
    }
    /// Tells the model its vocabulary, which the option start needs. for_corpus does it.
    model &set_tokenizer(const tokenizer &words) {
        detail::check(mmopt_model_set_tokenizer(get(), words.get()));
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
    /// Puts a low-rank adapter beside each matrix of a linear layer that a name or pattern of
    /// target_modules matches, and freezes everything but the adapters and the modules to save.
    model &add_adapters(const std::vector<std::string> &target_modules,
                        mmopt_adapter_options options = adapter_options()) {
        const auto all = detail::c_strings(target_modules);
        options.target_modules = all.data();
        options.n_target_modules = all.size();
        detail::check(mmopt_model_add_adapters(get(), &options));
        return *this;
    }
    /// Gives the model the adapters of a directory, in the layout of Python's peft.
    model &load_adapters(const std::string &directory) {
        detail::check(mmopt_model_load_adapters(get(), detail::text(directory)));
        return *this;
    }
    /// The outputs of an ONNX graph that computes its own gradients: nothing is differentiated.
    model &set_precomputed_gradients(const mmopt_precomputed_gradient_options &options) {
        detail::check(mmopt_model_set_precomputed_gradients(get(), &options));
        return *this;
    }
    /// What is done with parameters that an exporter merged, an mmopt_shared_initializers.
    model &set_shared_initializers(std::uint32_t action) {
        detail::check(mmopt_model_set_shared_initializers(get(), action));
        return *this;
    }
    /// What is done with equal matrices, an mmopt_duplicate_weights.
    model &set_duplicate_weights(std::uint32_t action) {
        detail::check(mmopt_model_set_duplicate_weights(get(), action));
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
    [[nodiscard]] std::string label_name(std::size_t label) const {
        char *name = nullptr;
        detail::check(mmopt_model_label_name(get(), label, &name));
        return detail::take(name);
    }
};

} // namespace mmopt

#endif
