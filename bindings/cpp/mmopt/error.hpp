/**
 * @file mmopt/error.hpp
 * What the C library refuses is thrown as mmopt::error; texts pass through here.
 */
#ifndef MMOPT_ERROR_HPP
#define MMOPT_ERROR_HPP

#include <mmopt.h>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace mmopt {

/// Why a call failed.
class error : public std::runtime_error {
  public:
    error(std::uint32_t code, const std::string &message)
        : std::runtime_error(message), code_(code) {}

    /// An mmopt_code.
    [[nodiscard]] std::uint32_t code() const noexcept { return code_; }

  private:
    std::uint32_t code_;
};

namespace detail {

/// Throws what a call of the C library returned, unless it is success.
inline void check(mmopt_error *raw) {
    if (raw == nullptr)
        return;
    const std::unique_ptr<mmopt_error, void (*)(mmopt_error *)> owned(raw, mmopt_error_free);
    throw error(mmopt_error_code(raw), mmopt_error_message(raw));
}

template <class T, void (*Free)(T *)> struct deleter {
    void operator()(T *object) const noexcept { Free(object); }
};

/// Takes over a text that the C library gave away.
inline std::string take(char *text) {
    const std::unique_ptr<char, deleter<char, mmopt_string_free>> owned(text);
    return std::string(text == nullptr ? "" : text);
}

/// The C text of a string, which must have no NUL inside.
inline const char *text(const std::string &string) {
    if (string.find('\0') != std::string::npos)
        throw error(MMOPT_CODE_INVALID_ARGUMENT, "a text has a NUL inside");
    return string.c_str();
}

/// C texts of a vector of strings, which they belong to.
inline std::vector<const char *> c_strings(const std::vector<std::string> &texts) {
    std::vector<const char *> all;
    all.reserve(texts.size());
    for (const auto &one : texts)
        all.push_back(text(one));
    return all;
}

/// The C text of an optional string, NULL for none.
inline const char *c_string(const std::optional<std::string> &string) {
    return string ? text(*string) : nullptr;
}

} // namespace detail

} // namespace mmopt

#endif
