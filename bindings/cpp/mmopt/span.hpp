/**
 * @file mmopt/span.hpp
 * Views of consecutive elements, and iteration over what has size() and operator[].
 */
#ifndef MMOPT_SPAN_HPP
#define MMOPT_SPAN_HPP

#include <cstddef>
#include <iterator>
#include <type_traits>
#include <utility>

#if __cplusplus >= 202002L
#include <ranges>
#endif

namespace mmopt {

namespace detail {

/// Walks anything with size() and operator[] by value.
template <class Range> class index_iterator {
  public:
    using iterator_category = std::input_iterator_tag;
    using value_type = decltype(std::declval<const Range &>()[0]);
    using difference_type = std::ptrdiff_t;
    using pointer = void;
    using reference = value_type;

    index_iterator() noexcept = default;
    index_iterator(Range range, std::size_t at) noexcept : range_(range), at_(at) {}
    [[nodiscard]] value_type operator*() const { return range_[at_]; }
    index_iterator &operator++() noexcept {
        at_++;
        return *this;
    }
    index_iterator operator++(int) noexcept {
        const auto old = *this;
        at_++;
        return old;
    }
    [[nodiscard]] friend bool operator==(const index_iterator &a,
                                         const index_iterator &b) noexcept {
        return a.at_ == b.at_;
    }
    [[nodiscard]] friend bool operator!=(const index_iterator &a,
                                         const index_iterator &b) noexcept {
        return a.at_ != b.at_;
    }

  private:
    Range range_{};
    std::size_t at_ = 0;
};

} // namespace detail

/// A view of consecutive elements that something else owns. Vectors, arrays and std::span convert
/// to it, and in C++20 it converts to std::span.
template <class T> class span {
    template <class C>
    using element = std::remove_pointer_t<decltype(std::data(std::declval<C &>()))>;

  public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    using size_type = std::size_t;
    using difference_type = std::ptrdiff_t;
    using pointer = T *;
    using reference = T &;
    using iterator = T *;

    constexpr span() noexcept = default;
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    template <class C, std::enable_if_t<!std::is_same_v<std::decay_t<C>, span> &&
                                            std::is_convertible_v<element<C> (*)[], T (*)[]>,
                                        int> = 0>
    constexpr span(C &&elements) noexcept
        : data_(std::data(elements)), size_(std::size(elements)) {}

    [[nodiscard]] constexpr T *data() const noexcept { return data_; }
    [[nodiscard]] constexpr std::size_t size() const noexcept { return size_; }
    [[nodiscard]] constexpr std::size_t size_bytes() const noexcept { return size_ * sizeof(T); }
    [[nodiscard]] constexpr bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] constexpr T *begin() const noexcept { return data_; }
    [[nodiscard]] constexpr T *end() const noexcept { return data_ + size_; }
    [[nodiscard]] constexpr T &operator[](std::size_t i) const noexcept { return data_[i]; }

  private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};

} // namespace mmopt

#if __cplusplus >= 202002L && defined(__cpp_lib_ranges)
template <class T> inline constexpr bool std::ranges::enable_borrowed_range<mmopt::span<T>> = true;
#endif

#endif
