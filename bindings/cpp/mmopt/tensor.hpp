/**
 * @file mmopt/tensor.hpp
 * Views of tensors.
 */
#ifndef MMOPT_TENSOR_HPP
#define MMOPT_TENSOR_HPP

#include "dlpack.hpp"
#include "span.hpp"

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <type_traits>

namespace mmopt {

/// The element type of a C++ type, an mmopt_dtype.
template <class T> [[nodiscard]] constexpr std::uint32_t dtype_of() noexcept {
    if constexpr (std::is_same_v<T, float>)
        return MMOPT_DTYPE_F32;
    else if constexpr (std::is_same_v<T, double>)
        return MMOPT_DTYPE_F64;
    else if constexpr (std::is_same_v<T, std::int64_t>)
        return MMOPT_DTYPE_I64;
    else if constexpr (std::is_same_v<T, std::int32_t>)
        return MMOPT_DTYPE_I32;
    else if constexpr (std::is_same_v<T, std::int16_t>)
        return MMOPT_DTYPE_I16;
    else if constexpr (std::is_same_v<T, std::int8_t>)
        return MMOPT_DTYPE_I8;
    else if constexpr (std::is_same_v<T, std::uint64_t>)
        return MMOPT_DTYPE_U64;
    else if constexpr (std::is_same_v<T, std::uint32_t>)
        return MMOPT_DTYPE_U32;
    else if constexpr (std::is_same_v<T, std::uint16_t>)
        return MMOPT_DTYPE_U16;
    else if constexpr (std::is_same_v<T, std::uint8_t>)
        return MMOPT_DTYPE_U8;
    else if constexpr (std::is_same_v<T, bool>)
        return MMOPT_DTYPE_BOOL;
    else
        static_assert(!sizeof(T), "no element type of the library");
}

/// A view of a dense, row-major tensor; it owns nothing.
class tensor {
    template <class C>
    using element =
        std::remove_cv_t<std::remove_pointer_t<decltype(std::data(std::declval<const C &>()))>>;

  public:
    explicit tensor(const mmopt_tensor &raw) noexcept : raw_(raw) {}

    /// A view of host memory; name, shape and elements must live as long as the view is used.
    template <class C, class T = element<C>>
    tensor(const char *name, span<const std::int64_t> shape, const C &elements) noexcept
        : raw_{name,         dtype_of<T>(),       0,
               shape.data(), shape.size(),        std::data(elements),
               std::size(elements) * sizeof(T)} {}

    /// A view of n_bytes of host memory with elements of any mmopt_dtype.
    tensor(const char *name, std::uint32_t dtype, span<const std::int64_t> shape, const void *data,
           std::size_t n_bytes) noexcept
        : raw_{name, dtype, 0, shape.data(), shape.size(), data, n_bytes} {}

    /// A view of a versioned DLPack tensor, which stays the host's; so does name.
    [[nodiscard]] static tensor from_dlpack(const char *name,
                                            const DLManagedTensorVersioned *managed) {
        mmopt_tensor raw{};
        detail::check(mmopt_tensor_from_dlpack(name, managed, &raw));
        return tensor(raw);
    }

    [[nodiscard]] std::string_view name() const noexcept {
        return raw_.name == nullptr ? std::string_view() : raw_.name;
    }
    /// An mmopt_dtype.
    [[nodiscard]] std::uint32_t dtype() const noexcept { return raw_.dtype; }
    [[nodiscard]] span<const std::int64_t> shape() const noexcept {
        return {raw_.shape, raw_.n_dims};
    }
    [[nodiscard]] std::size_t n_bytes() const noexcept { return raw_.n_bytes; }

    /// The elements; throws when they are of another type.
    template <class T> [[nodiscard]] span<const T> data() const {
        if (raw_.dtype != dtype_of<T>())
            throw error(MMOPT_CODE_INVALID_ARGUMENT,
                        std::string(name()) + ": elements of another type");
        return {static_cast<const T *>(raw_.data), raw_.n_bytes / sizeof(T)};
    }

    /// The elements of any type.
    [[nodiscard]] const void *bytes() const noexcept { return raw_.data; }

    /// A copy as a versioned DLPack tensor that depends on nothing else.
    [[nodiscard]] managed_tensor to_dlpack() const {
        void *managed = nullptr;
        detail::check(mmopt_tensor_to_dlpack(&raw_, &managed));
        return managed_tensor::of(managed);
    }

    [[nodiscard]] const mmopt_tensor &raw() const noexcept { return raw_; }

  private:
    mmopt_tensor raw_;
};

/// Tensors that an object owns, as a range of views.
class tensor_list {
  public:
    tensor_list() noexcept = default;
    explicit tensor_list(span<const mmopt_tensor> raw) noexcept : raw_(raw) {}

    [[nodiscard]] std::size_t size() const noexcept { return raw_.size(); }
    [[nodiscard]] bool empty() const noexcept { return raw_.empty(); }
    [[nodiscard]] tensor operator[](std::size_t i) const noexcept { return tensor(raw_[i]); }
    [[nodiscard]] auto begin() const noexcept { return iterator(*this, 0); }
    [[nodiscard]] auto end() const noexcept { return iterator(*this, size()); }

    /// The tensor of that name; throws when there is none.
    [[nodiscard]] tensor operator[](std::string_view name) const {
        for (std::size_t i = 0; i < size(); i++)
            if ((*this)[i].name() == name)
                return (*this)[i];
        throw error(MMOPT_CODE_NOT_FOUND, "no tensor '" + std::string(name) + "'");
    }

    [[nodiscard]] span<const mmopt_tensor> raw() const noexcept { return raw_; }

  private:
    using iterator = detail::index_iterator<tensor_list>;
    span<const mmopt_tensor> raw_;
};

} // namespace mmopt

#endif
