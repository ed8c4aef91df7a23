/**
 * @file mmopt/dlpack.hpp
 * DLPack tensors that are owned here.
 */
#ifndef MMOPT_DLPACK_HPP
#define MMOPT_DLPACK_HPP

#include "error.hpp"

#include <memory>

/// As in dlpack.h, version 1; only its address passes through here.
struct DLManagedTensorVersioned;

namespace mmopt {

/// A DLManagedTensorVersioned that is owned here: its deleter is called once.
class managed_tensor {
  public:
    explicit managed_tensor(void *managed) noexcept
        : managed_(static_cast<DLManagedTensorVersioned *>(managed)) {}

    /// Takes over a DLManagedTensor, the form before DLPack 1.0. When it throws, the tensor stays
    /// the caller's.
    [[nodiscard]] static managed_tensor from_unversioned(void *unversioned) {
        void *managed = nullptr;
        detail::check(mmopt_dlpack_from_unversioned(unversioned, &managed));
        return managed_tensor(managed);
    }

    [[nodiscard]] DLManagedTensorVersioned *get() const noexcept { return managed_.get(); }
    [[nodiscard]] DLManagedTensorVersioned *release() noexcept { return managed_.release(); }

    /// Gives the tensor away as a DLManagedTensor, the form before DLPack 1.0, which the caller
    /// owns. When it throws, the tensor stays here.
    [[nodiscard]] void *release_unversioned() {
        void *unversioned = nullptr;
        detail::check(mmopt_dlpack_to_unversioned(managed_.get(), &unversioned));
        (void)managed_.release();
        return unversioned;
    }

  private:
    struct deleter {
        void operator()(DLManagedTensorVersioned *managed) const noexcept {
            mmopt_dlpack_free(managed);
        }
    };
    std::unique_ptr<DLManagedTensorVersioned, deleter> managed_;
};

} // namespace mmopt

#endif
