/**
 * @file mmopt/callbacks.hpp
 * Callbacks as std::functions.
 */
#ifndef MMOPT_CALLBACKS_HPP
#define MMOPT_CALLBACKS_HPP

#include "error.hpp"

#include <cstdint>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

namespace mmopt {

/// Receives a message and its mmopt_log_level.
using log_function = std::function<void(std::uint32_t level, std::string_view message)>;
/// Asked before each pass and step: true goes on, false cancels it.
using progress_function = std::function<bool(const mmopt_progress &progress)>;
/// Looks at one parameter of a step that is about to be taken, and gives an mmopt_gradient_action.
using gradient_function = std::function<std::uint32_t(const mmopt_gradient_view &gradient)>;
/// Gives the learning rate that a model is to use at a step, counted from 1.
using rate_function =
    std::function<double(std::string_view model, std::uint64_t step, double rate)>;
/// Told of each step and evaluation of a fit: true goes on, false ends it.
using fit_function = std::function<bool(const mmopt_fit_progress &progress)>;

namespace detail {

/// The host's callbacks of one object, at an address that does not change, and what they threw.
class callbacks {
  public:
    // Behind pointers, so that a function which is running stays where it is when it is replaced.
    std::unique_ptr<log_function> log;
    std::unique_ptr<progress_function> progress;
    std::unique_ptr<rate_function> rate;
    std::unique_ptr<gradient_function> gradient;
    std::unique_ptr<fit_function> fit;

    /// Runs a callback; keeps what it throws and gives `otherwise` then.
    template <class R, class F> R run(R otherwise, F &&call) noexcept {
        try {
            return call();
        } catch (...) {
            const std::lock_guard<std::mutex> held(lock_);
            if (!thrown_)
                thrown_ = std::current_exception();
        }
        return otherwise;
    }

    /// Throws on what a callback threw since the last call.
    void rethrow() {
        std::exception_ptr thrown;
        {
            const std::lock_guard<std::mutex> held(lock_);
            std::swap(thrown, thrown_);
        }
        if (thrown)
            std::rethrow_exception(thrown);
    }

  private:
    std::mutex lock_;
    std::exception_ptr thrown_;
};

/// The callbacks of one object, once there are any.
class callback_owner {
  public:
    /// Puts a function in the place of another, unless the C library refuses. It is there before
    /// the call, as messages may come during it.
    template <class F, class Set>
    void replace(std::unique_ptr<F> callbacks::*place, F function, Set set) {
        if (all_ == nullptr)
            all_ = std::make_unique<callbacks>();
        const bool wanted = static_cast<bool>(function);
        auto old = std::exchange((*all_).*place, std::make_unique<F>(std::move(function)));
        mmopt_error *const refused = set(wanted, all_.get());
        if (refused != nullptr)
            std::swap((*all_).*place, old);
        done(refused);
    }

    /// Throws what a callback threw during a call, else what the call returned.
    void done(mmopt_error *raw) const {
        if (all_ != nullptr) {
            try {
                all_->rethrow();
            } catch (...) {
                mmopt_error_free(raw);
                throw;
            }
        }
        check(raw);
    }

    [[nodiscard]] bool any() const noexcept { return all_ != nullptr; }
    void clear() noexcept { all_.reset(); }

  private:
    std::unique_ptr<callbacks> all_;
};

} // namespace detail

extern "C" {
/// What the C library calls; user is a detail::callbacks.
inline void mmopt_cpp_log(void *user, std::uint32_t level, const char *message) {
    auto *all = static_cast<detail::callbacks *>(user);
    all->run(0, [&] {
        (*all->log)(level, message);
        return 0;
    });
}
inline std::uint32_t mmopt_cpp_progress(void *user, const mmopt_progress *progress) {
    auto *all = static_cast<detail::callbacks *>(user);
    return all->run(std::uint32_t{1},
                    [&] { return (*all->progress)(*progress) ? std::uint32_t{0} : 1; });
}
inline std::uint32_t mmopt_cpp_gradient(void *user, const mmopt_gradient_view *gradient) {
    auto *all = static_cast<detail::callbacks *>(user);
    return all->run(static_cast<std::uint32_t>(MMOPT_GRADIENT_ACTION_STOP),
                    [&] { return (*all->gradient)(*gradient); });
}
inline std::uint32_t mmopt_cpp_fit(void *user, const mmopt_fit_progress *progress) {
    auto *all = static_cast<detail::callbacks *>(user);
    return all->run(std::uint32_t{1},
                    [&] { return (*all->fit)(*progress) ? std::uint32_t{0} : 1; });
}
/// NaN fails the step.
inline double mmopt_cpp_rate(void *user, const char *model, std::uint64_t step, double rate) {
    auto *all = static_cast<detail::callbacks *>(user);
    return all->run(std::numeric_limits<double>::quiet_NaN(),
                    [&] { return (*all->rate)(model, step, rate); });
}
}

} // namespace mmopt

#endif
