/**
 * @file mmopt/report.hpp
 * Pages on training runs.
 */
#ifndef MMOPT_REPORT_HPP
#define MMOPT_REPORT_HPP

#include "error.hpp"

#include <string>
#include <vector>

namespace mmopt {

/// Writes a page on training runs from their logs: one HTML file that needs no network. Runs that
/// differ in nothing but their seed become one curve with a band.
inline void report(const std::vector<std::string> &logs, const std::string &path) {
    const auto paths = detail::c_strings(logs);
    detail::check(mmopt_report(paths.data(), paths.size(), detail::text(path)));
}

} // namespace mmopt

#endif
