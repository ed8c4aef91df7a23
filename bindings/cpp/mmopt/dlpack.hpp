/**
 * @file mmopt/dlpack.hpp
 * DLPack tensors that are owned here.
 */
#ifndef MMOPT_DLPACK_HPP
#define MMOPT_DLPACK_HPP

#include "error.hpp"

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

/// As in dlpack.h, version 1; only their addresses pass through here.
struct DLManagedTensorVersioned;
struct DLManagedTensor; ///< The form before version 1.

namespace mmopt {

/// A DLManagedTensorVersioned that is owned here: its deleter is called once.
class managed_tensor {
  public:
    /// Takes over a tensor; nullptr for none. Throws for another major version than 1, and the
    /// tensor stays the caller's then.
    explicit managed_tensor(DLManagedTensorVersioned *managed) : managed_(checked(managed)) {}

    /// Takes over a DLManagedTensor, the form before DLPack 1.0. When it throws, the tensor stays
    /// the caller's.
    [[nodiscard]] static managed_tensor from_unversioned(DLManagedTensor *unversioned) {
        void *managed = nullptr;
        detail::check(mmopt_dlpack_from_unversioned(unversioned, &managed));
        return of(managed);
    }

    /// Takes over what a function of the C library made.
    [[nodiscard]] static managed_tensor of(void *managed) {
        return managed_tensor(static_cast<DLManagedTensorVersioned *>(managed));
    }

    [[nodiscard]] DLManagedTensorVersioned *get() const noexcept { return managed_.get(); }
    [[nodiscard]] DLManagedTensorVersioned *release() noexcept { return managed_.release(); }

    /// Gives the tensor away as a DLManagedTensor, the form before DLPack 1.0, which the caller
    /// owns. When it throws, the tensor stays here.
    [[nodiscard]] DLManagedTensor *release_unversioned() {
        void *unversioned = nullptr;
        detail::check(mmopt_dlpack_to_unversioned(managed_.get(), &unversioned));
        (void)managed_.release();
        return static_cast<DLManagedTensor *>(unversioned);
    }

  private:
    /// The version is what such a tensor begins with. Before 1.0 it began with an address.
    static DLManagedTensorVersioned *checked(DLManagedTensorVersioned *managed) {
        std::uint32_t major = 1;
        if (managed != nullptr)
            std::memcpy(&major, static_cast<const void *>(managed), sizeof major);
        if (major != 1)
            throw error(MMOPT_CODE_UNSUPPORTED,
                        "DLPack version " + std::to_string(major) +
                            "; 1.x is known, and from_unversioned takes the form before it");
        return managed;
    }

    struct deleter {
        void operator()(DLManagedTensorVersioned *managed) const noexcept {
            mmopt_dlpack_free(managed);
        }
    };
    std::unique_ptr<DLManagedTensorVersioned, deleter> managed_;
};

} // namespace mmopt

#endif
