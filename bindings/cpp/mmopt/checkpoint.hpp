/**
 * @file mmopt/checkpoint.hpp
 * Directories of checkpoints: which stay, what is there.
 */
#ifndef MMOPT_CHECKPOINT_HPP
#define MMOPT_CHECKPOINT_HPP

#include "handle.hpp"

#include <cstddef>
#include <string>

namespace mmopt {

[[nodiscard]] inline mmopt_checkpoint_options checkpoint_options() noexcept {
    return defaults<mmopt_checkpoint_options, mmopt_checkpoint_options_init>();
}

/// All checkpoints of a directory, checked.
struct checkpoint_list {
    std::string json;
    std::size_t n_damaged = 0;
};

[[nodiscard]] inline checkpoint_list list_checkpoints(const std::string &directory) {
    checkpoint_list list;
    char *json = nullptr;
    detail::check(mmopt_checkpoint_list(detail::text(directory), &list.n_damaged, &json));
    list.json = detail::take(json);
    return list;
}

/// Removes damaged checkpoints, and all but the newest whole ones; gives back the paths of those
/// that are gone, as a JSON array.
inline std::string prune_checkpoints(const std::string &directory, std::size_t keep_last) {
    char *json = nullptr;
    detail::check(mmopt_checkpoint_prune(detail::text(directory), keep_last, &json));
    return detail::take(json);
}

} // namespace mmopt

#endif
