/**
 * @file mmopt/handle.hpp
 * The base of every class that owns an object of the C library.
 */
#ifndef MMOPT_HANDLE_HPP
#define MMOPT_HANDLE_HPP

#include "error.hpp"
#include "span.hpp"

#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace mmopt {

/// One object of the C library; empty after it was moved from or released.
template <class T, void (*Free)(T *)> class handle {
  public:
    /// Takes over an object.
    explicit handle(T *object) noexcept : object_(object) {}

    /// The object, still owned here.
    [[nodiscard]] T *get() const noexcept { return object_.get(); }

    /// The object, to be freed by the caller; this one is empty then.
    [[nodiscard]] T *release() noexcept { return object_.release(); }

    /// Frees the object now.
    void free() noexcept { object_.reset(); }

    /// Whether there is an object.
    [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }

  private:
    std::unique_ptr<T, detail::deleter<T, Free>> object_;
};

/// A struct of options, filled with its defaults.
template <class T, void (*Init)(T *)> [[nodiscard]] T defaults() noexcept {
    T options;
    Init(&options);
    return options;
}

namespace detail {

/// The C pointers of several objects, in their order.
template <class T> auto pointers(span<const T> all) {
    std::vector<std::add_pointer_t<std::add_const_t<std::remove_pointer_t<decltype(all[0].get())>>>>
        raw;
    raw.reserve(all.size());
    for (const auto &one : all)
        raw.push_back(one.get());
    return raw;
}

} // namespace detail

} // namespace mmopt

#endif
