/**
 * @file mmopt/runtime.hpp
 * Versions, the loading of ONNX Runtime, and the architectures that the library can build.
 */
#ifndef MMOPT_RUNTIME_HPP
#define MMOPT_RUNTIME_HPP

#include "error.hpp"

#include <cstdint>
#include <optional>
#include <string>

namespace mmopt {

/// The version of the loaded library as text and as a number, to be compared with MMOPT_VERSION
/// and MMOPT_VERSION_NUMBER.
[[nodiscard]] inline std::string version() { return mmopt_version(); }
[[nodiscard]] inline std::uint32_t version_number() noexcept { return mmopt_version_number(); }

/// Loads ONNX Runtime; without a path from the usual places.
inline void load_runtime(const std::optional<std::string> &path = std::nullopt) {
    detail::check(mmopt_runtime_load(detail::c_string(path)));
}

/// The version and the file of the loaded ONNX Runtime; empty before it is loaded.
[[nodiscard]] inline std::string runtime_version() { return mmopt_runtime_version(); }
[[nodiscard]] inline std::string runtime_path() { return mmopt_runtime_path(); }

/// An mmopt_architecture by its published name; throws for an unknown one.
[[nodiscard]] inline std::uint32_t architecture(const std::string &name) {
    const std::uint32_t found = mmopt_architecture_from_name(detail::text(name));
    if (found == 0)
        throw error(MMOPT_CODE_NOT_FOUND, "no architecture '" + name + "'");
    return found;
}

/// The published name of an mmopt_architecture; empty for any other number.
[[nodiscard]] inline std::string architecture_name(std::uint32_t architecture) {
    return mmopt_architecture_name(architecture);
}

} // namespace mmopt

#endif
