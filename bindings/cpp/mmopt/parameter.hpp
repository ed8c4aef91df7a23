/**
 * @file mmopt/parameter.hpp
 * The models and parameters inside a trainer.
 */
#ifndef MMOPT_PARAMETER_HPP
#define MMOPT_PARAMETER_HPP

#include "tensor.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace mmopt {

/// A parameter of a trainer, as models() and parameters() show it; valid as long as the trainer.
class parameter {
  public:
    parameter(const mmopt_trainer *trainer, std::size_t model, std::size_t index)
        : trainer_(trainer), model_(model), index_(index), value_(mmopt_tensor{}) {
        mmopt_tensor raw{};
        std::uint32_t trainable = 0;
        detail::check(mmopt_trainer_parameter(trainer, model, index, &raw, &trainable));
        value_ = tensor(raw);
        trainable_ = trainable != 0;
    }

    /// Its number within the model.
    [[nodiscard]] std::size_t index() const noexcept { return index_; }
    [[nodiscard]] std::string_view name() const noexcept { return value_.name(); }
    [[nodiscard]] span<const std::int64_t> shape() const noexcept { return value_.shape(); }
    [[nodiscard]] bool trainable() const noexcept { return trainable_; }
    /// The elements, which change with each step.
    [[nodiscard]] const tensor &value() const noexcept { return value_; }
    template <class T> [[nodiscard]] span<const T> data() const { return value_.data<T>(); }
    /// The gradient of the last backward pass; throws MMOPT_CODE_STATE where there is none.
    [[nodiscard]] tensor gradient() const {
        mmopt_tensor raw{};
        detail::check(mmopt_trainer_gradient(trainer_, model_, index_, &raw));
        return tensor(raw);
    }
    /// The value and the gradient as DLPack tensors that point into the trainer's memory and may
    /// outlive it. Without writable they are flagged as read-only.
    [[nodiscard]] managed_tensor value_dlpack(bool writable = false) const {
        void *managed = nullptr;
        detail::check(mmopt_trainer_parameter_dlpack(trainer_, model_, index_, writable ? 1 : 0,
                                                     &managed));
        return managed_tensor::of(managed);
    }
    [[nodiscard]] managed_tensor gradient_dlpack(bool writable = false) const {
        void *managed = nullptr;
        detail::check(
            mmopt_trainer_gradient_dlpack(trainer_, model_, index_, writable ? 1 : 0, &managed));
        return managed_tensor::of(managed);
    }

  private:
    const mmopt_trainer *trainer_;
    std::size_t model_, index_;
    tensor value_;
    bool trainable_ = false;
};

/// A model's parameters in graph order.
class parameter_list {
  public:
    parameter_list() noexcept = default;
    parameter_list(const mmopt_trainer *trainer, std::size_t model) noexcept
        : trainer_(trainer), model_(model) {}

    [[nodiscard]] std::size_t size() const noexcept {
        return mmopt_trainer_n_parameters(trainer_, model_);
    }
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    [[nodiscard]] parameter operator[](std::size_t index) const {
        return parameter(trainer_, model_, index);
    }
    /// The parameter of that name; throws MMOPT_CODE_NOT_FOUND.
    [[nodiscard]] parameter operator[](const std::string &name) const {
        return parameter(trainer_, model_, index(name));
    }
    [[nodiscard]] std::size_t index(const std::string &name) const {
        std::size_t found = 0;
        detail::check(mmopt_trainer_parameter_index(trainer_, model_, detail::text(name), &found));
        return found;
    }
    [[nodiscard]] auto begin() const noexcept { return iterator(*this, 0); }
    [[nodiscard]] auto end() const noexcept { return iterator(*this, size()); }

  private:
    using iterator = detail::index_iterator<parameter_list>;
    const mmopt_trainer *trainer_ = nullptr;
    std::size_t model_ = 0;
};

/// A model inside a trainer; valid as long as the trainer.
class trained_model {
  public:
    trained_model(const mmopt_trainer *trainer, std::size_t index) noexcept
        : trainer_(trainer), index_(index) {}

    /// Its number within the trainer.
    [[nodiscard]] std::size_t index() const noexcept { return index_; }
    [[nodiscard]] std::string_view name() const noexcept {
        const char *name = mmopt_trainer_model_name(trainer_, index_);
        return name == nullptr ? std::string_view() : name;
    }
    [[nodiscard]] parameter_list parameters() const noexcept { return {trainer_, index_}; }

  private:
    const mmopt_trainer *trainer_;
    std::size_t index_;
};

/// The models of a trainer.
class model_list {
  public:
    model_list() noexcept = default;
    explicit model_list(const mmopt_trainer *trainer) noexcept : trainer_(trainer) {}

    [[nodiscard]] std::size_t size() const noexcept { return mmopt_trainer_n_models(trainer_); }
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }
    [[nodiscard]] trained_model operator[](std::size_t index) const noexcept {
        return {trainer_, index};
    }
    [[nodiscard]] auto begin() const noexcept { return iterator(*this, 0); }
    [[nodiscard]] auto end() const noexcept { return iterator(*this, size()); }

  private:
    using iterator = detail::index_iterator<model_list>;
    const mmopt_trainer *trainer_ = nullptr;
};

} // namespace mmopt

#endif
