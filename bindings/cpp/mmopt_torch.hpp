/**
 * @file mmopt_torch.hpp
 * Modules of libtorch under a coordinated optimizer. Optional: mmopt.hpp does not include it, and it
 * needs the headers of libtorch.
 *
 *     mmopt::torch::optimizer optimizer({{"shallow", shallow}, {"deep", deep}});
 *     loss.backward();
 *     optimizer.accumulate(0, loss);
 *     ...
 *     optimizer.step();
 *     optimizer.zero_grad();
 *
 * Values are updated in libtorch's own memory: f32, bf16 and f16 (with masters of f32), dense or
 * with strides, on the CPU. Gradients may be freed after each step, as zero_grad does by default:
 * accumulate looks them up.
 */
#ifndef MMOPT_TORCH_HPP
#define MMOPT_TORCH_HPP

#include "mmopt.hpp"

#include <torch/torch.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

namespace mmopt {
namespace torch {

/// One module, and what decides about sharing.
struct attached {
    attached(std::string name, std::shared_ptr<::torch::nn::Module> module)
        : name(std::move(name)), module(std::move(module)) {}
    /// From a module holder such as torch::nn::TransformerEncoder.
    template <class Contained>
    attached(std::string name, const ::torch::nn::ModuleHolder<Contained> &holder)
        : attached(std::move(name), std::shared_ptr<::torch::nn::Module>(holder.ptr())) {}

    /// Unique among the models.
    std::string name;
    std::shared_ptr<::torch::nn::Module> module;
    /// Finite and at least 0; only ratios matter.
    double weight = 1;
    /// Token tables share only between models of the same vocabulary, heads of the same task.
    std::optional<std::string> vocabulary = std::nullopt, task = std::nullopt;
    /// role_json of mmopt_parameter by the parameter's name, where its name does not tell its role.
    std::map<std::string, std::string> roles = {};
};

/// Updates the parameters of several modules together. It keeps the modules alive, and follows
/// their parameters to other memory; their number, names and shapes must stay.
class optimizer {
  public:
    explicit optimizer(std::vector<attached> modules,
                       const mmopt_trainer_options &options = trainer_options())
        : modules_(std::move(modules)), base_(describe(), options) {}

    /// The optimizer itself, for everything that is not here.
    [[nodiscard]] mmopt::optimizer &base() noexcept { return base_; }
    [[nodiscard]] const mmopt::optimizer &base() const noexcept { return base_; }
    [[nodiscard]] std::size_t n_models() const noexcept { return modules_.size(); }
    /// The index of a model's parameter, as base counts them.
    [[nodiscard]] std::size_t parameter_index(std::size_t model, const std::string &name) const {
        const auto &all = at(model);
        for (std::size_t i = 0; i < all.size(); i++)
            if (all[i].name == name)
                return i;
        throw error(MMOPT_CODE_NOT_FOUND, "model '" + modules_[model].name +
                                              "' has no parameter '" + name + "'");
    }

    /// Takes the gradients of one model as they are now; parameters without one have none in this
    /// step. With several micro-batches a step, clear the gradients in between: libtorch adds them up
    /// itself. weight is that of the micro-batch in the step's mean, such as its number of labels.
    void accumulate(std::size_t model, double loss, double weight = 1) {
        const auto &all = at(model);
        for (std::size_t i = 0; i < all.size(); i++)
            bind(model, i, all[i]);
        base_.accumulate(model, loss, weight);
    }
    /// The same for a loss of one element.
    void accumulate(std::size_t model, const ::torch::Tensor &loss, double weight = 1) {
        accumulate(model, loss.item<double>(), weight);
    }
    /// One coordinated step.
    mmopt_step_report step() {
        const ::torch::NoGradGuard guard;
        const auto report = base_.step();
        // Autograd must know that the values have changed.
        for (const auto &all : parameters_)
            for (const auto &one : all)
                if (one.tensor.requires_grad())
                    one.tensor.unsafeGetTensorImpl()->bump_version();
        return report;
    }
    /// Clears the gradients of all modules; by default they are freed.
    void zero_grad(bool set_to_none = true) {
        for (auto &one : modules_)
            one.module->zero_grad(set_to_none);
    }

  private:
    struct parameter {
        std::string name;
        ::torch::Tensor tensor;
        void *data;
    };

    std::vector<attached> modules_;
    std::vector<std::vector<parameter>> parameters_;
    mmopt::optimizer base_;

    const std::vector<parameter> &at(std::size_t model) const {
        if (model >= parameters_.size())
            throw error(MMOPT_CODE_INVALID_ARGUMENT,
                        "model " + std::to_string(model) + " of " +
                            std::to_string(parameters_.size()) + "; counted from 0");
        return parameters_[model];
    }

    static std::string place(const attached &of, const std::string &name) {
        return "model '" + of.name + "': parameter '" + name + "'";
    }

    /// The element type of values or a gradient in memory that the optimizer can reach.
    static std::uint32_t dtype_of(const ::torch::Tensor &tensor, const std::string &place) {
        if (!tensor.device().is_cpu())
            throw error(MMOPT_CODE_UNSUPPORTED, place + " is on " + tensor.device().str() +
                                                    "; only the CPU's memory can be used");
        if (tensor.layout() != ::torch::kStrided)
            throw error(MMOPT_CODE_UNSUPPORTED, place + " is sparse; make it dense");
        switch (tensor.scalar_type()) {
        case ::torch::kFloat32:
            return MMOPT_DTYPE_F32;
        case ::torch::kBFloat16:
            return MMOPT_DTYPE_BF16;
        case ::torch::kFloat16:
            return MMOPT_DTYPE_F16;
        case ::torch::kFloat64:
            return MMOPT_DTYPE_F64;
        default:
            throw error(MMOPT_CODE_UNSUPPORTED,
                        place + " has elements of type " + c10::toString(tensor.scalar_type()));
        }
    }

    /// Empty for dense ones.
    static std::vector<std::int64_t> strides_of(const ::torch::Tensor &tensor) {
        return tensor.is_contiguous() ? std::vector<std::int64_t>() : tensor.strides().vec();
    }

    /// Also fills parameters_, which must be in place before base_.
    std::vector<host_model> describe() {
        std::vector<host_model> models;
        parameters_.clear();
        for (const auto &one : modules_) {
            if (one.module == nullptr)
                throw error(MMOPT_CODE_INVALID_ARGUMENT, "model '" + one.name + "' has no module");
            host_model model;
            model.name = one.name;
            model.weight = one.weight;
            model.vocabulary = one.vocabulary;
            model.task = one.task;
            parameters_.emplace_back();
            // Tied parameters have several names; the first one counts.
            std::unordered_set<const void *> seen;
            for (const auto &item : one.module->named_parameters()) {
                const auto &tensor = item.value();
                if (!tensor.defined() || !seen.insert(tensor.unsafeGetTensorImpl()).second)
                    continue;
                host_parameter p;
                p.name = item.key();
                p.dtype = dtype_of(tensor, place(one, p.name));
                p.shape = tensor.sizes().vec();
                p.strides = strides_of(tensor);
                p.data = tensor.numel() == 0 ? nullptr : tensor.data_ptr();
                p.trainable = tensor.requires_grad();
                const auto role = one.roles.find(p.name);
                if (role != one.roles.end())
                    p.role_json = role->second;
                parameters_.back().push_back({p.name, tensor, p.data});
                model.parameters.push_back(std::move(p));
            }
            for (const auto &role : one.roles) {
                const auto &all = parameters_.back();
                bool known = false;
                for (const auto &p : all)
                    known = known || p.name == role.first;
                if (!known)
                    throw error(MMOPT_CODE_NOT_FOUND, place(one, role.first) +
                                                          " of its roles does not exist");
            }
            models.push_back(std::move(model));
        }
        return models;
    }

    void bind(std::size_t model, std::size_t index, const parameter &p) {
        const auto &tensor = p.tensor;
        if (!tensor.requires_grad())
            return;
        // set_data of a tensor, and Module::to, put values elsewhere.
        void *data = tensor.numel() == 0 ? nullptr : tensor.data_ptr();
        if (data != p.data) {
            base_.set_data(model, index, data, strides_of(tensor));
            parameters_[model][index].data = data;
        }
        const auto &gradient = tensor.grad();
        if (!gradient.defined() || gradient.numel() == 0) {
            base_.set_gradient(model, index, nullptr);
            return;
        }
        const auto dtype = dtype_of(gradient, place(modules_[model], p.name) + ": its gradient");
        const auto strides = strides_of(gradient);
        if (strides.empty())
            base_.set_gradient(model, index, gradient.data_ptr(), dtype);
        else
            base_.set_gradient(model, index, gradient.data_ptr(), dtype, strides);
    }
};

} // namespace torch
} // namespace mmopt

#endif
