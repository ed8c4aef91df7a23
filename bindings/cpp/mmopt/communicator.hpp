/**
 * @file mmopt/communicator.hpp
 * Communicators: several processes that train together.
 */
#ifndef MMOPT_COMMUNICATOR_HPP
#define MMOPT_COMMUNICATOR_HPP

#include "error.hpp"
#include "handle.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <utility>

namespace mmopt {

/// An engine that carries numbers between ranks: a class of the host's own derives from it. Every
/// rank is asked for the same operations in the same order, except send and receive, which pair up.
/// What a method throws fails the call with MMOPT_CODE_COMMUNICATION and its what(). Buffers are
/// host memory; mmopt.h says what each operation does.
class transport {
  public:
    transport() = default;
    transport(const transport &) = delete;
    transport &operator=(const transport &) = delete;
    virtual ~transport() = default;

    [[nodiscard]] virtual std::size_t rank() const noexcept = 0;
    [[nodiscard]] virtual std::size_t size() const noexcept = 0;
    /// dtype is an mmopt_dtype: F32, F64, U64 or I64, here and below.
    virtual void all_reduce(void *data, std::size_t n, std::uint32_t dtype) = 0;
    virtual void broadcast(void *data, std::size_t n_bytes, std::size_t root) = 0;
    virtual void all_gather(const void *data, std::size_t n_bytes, void *all) = 0;
    virtual void reduce_scatter(void *data, std::size_t n, std::uint32_t dtype, void *part) = 0;
    virtual void send(const void *data, std::size_t n_bytes, std::size_t to) = 0;
    virtual void receive(void *data, std::size_t n_bytes, std::size_t from) = 0;
    virtual void barrier() = 0;
    /// This rank gives up.
    virtual void abort(const char * /*message*/) noexcept {}
};

namespace detail {

/// Calls a method; what it throws becomes a number and a message.
template <class F>
std::uint32_t carried(void *user, mmopt_communicator_call *call, F &&method) noexcept {
    try {
        if (call->stream != nullptr)
            throw std::runtime_error("only host memory is carried");
        method(*static_cast<transport *>(user));
        return 0;
    } catch (const std::exception &thrown) {
        std::snprintf(call->message, call->message_size, "%s", thrown.what());
    } catch (...) {
        std::snprintf(call->message, call->message_size, "an exception of an unknown type");
    }
    return 1;
}

} // namespace detail

extern "C" {
/// What the C library calls; user is a transport.
inline std::size_t mmopt_cpp_rank(void *user) { return static_cast<transport *>(user)->rank(); }
inline std::size_t mmopt_cpp_size(void *user) { return static_cast<transport *>(user)->size(); }
inline std::uint32_t mmopt_cpp_all_reduce(void *user, mmopt_communicator_call *call, void *data,
                                          std::size_t n, std::uint32_t dtype) {
    return detail::carried(user, call, [&](transport &t) { t.all_reduce(data, n, dtype); });
}
inline std::uint32_t mmopt_cpp_broadcast(void *user, mmopt_communicator_call *call, void *data,
                                         std::size_t n_bytes, std::size_t root) {
    return detail::carried(user, call, [&](transport &t) { t.broadcast(data, n_bytes, root); });
}
inline std::uint32_t mmopt_cpp_all_gather(void *user, mmopt_communicator_call *call,
                                          const void *data, std::size_t n_bytes, void *all) {
    return detail::carried(user, call, [&](transport &t) { t.all_gather(data, n_bytes, all); });
}
inline std::uint32_t mmopt_cpp_reduce_scatter(void *user, mmopt_communicator_call *call, void *data,
                                              std::size_t n, std::uint32_t dtype, void *part) {
    return detail::carried(user, call,
                           [&](transport &t) { t.reduce_scatter(data, n, dtype, part); });
}
inline std::uint32_t mmopt_cpp_send(void *user, mmopt_communicator_call *call, const void *data,
                                    std::size_t n_bytes, std::size_t to) {
    return detail::carried(user, call, [&](transport &t) { t.send(data, n_bytes, to); });
}
inline std::uint32_t mmopt_cpp_receive(void *user, mmopt_communicator_call *call, void *data,
                                       std::size_t n_bytes, std::size_t from) {
    return detail::carried(user, call, [&](transport &t) { t.receive(data, n_bytes, from); });
}
inline std::uint32_t mmopt_cpp_barrier(void *user, mmopt_communicator_call *call) {
    return detail::carried(user, call, [](transport &t) { t.barrier(); });
}
inline void mmopt_cpp_abort(void *user, const char *message) {
    static_cast<transport *>(user)->abort(message);
}
inline void mmopt_cpp_free_transport(void *user) {
    const std::unique_ptr<transport> owned(static_cast<transport *>(user));
}
}

/// One rank's access to all others.
class communicator : public handle<mmopt_communicator, mmopt_communicator_free> {
  public:
    using handle::handle;

    /// On an engine of the host, which lives as long as this object and all trainers that use it.
    explicit communicator(std::unique_ptr<transport> engine) : handle(make(std::move(engine))) {}

    [[nodiscard]] std::size_t rank() const noexcept { return mmopt_communicator_rank(get()); }
    [[nodiscard]] std::size_t size() const noexcept { return mmopt_communicator_size(get()); }
    /// Tries each operation of the engine; every rank calls it.
    void check() const { detail::check(mmopt_communicator_check(get())); }
    /// Returns when every rank has called it.
    void barrier() const { detail::check(mmopt_communicator_barrier(get())); }
    /// Tells the others that this rank gives up.
    void abort(const std::string &message) const {
        detail::check(mmopt_communicator_abort(get(), detail::text(message)));
    }
    /// What was exchanged so far.
    [[nodiscard]] mmopt_traffic traffic() const {
        mmopt_traffic traffic;
        detail::check(mmopt_communicator_traffic(get(), &traffic));
        return traffic;
    }

  private:
    static mmopt_communicator *make(std::unique_ptr<transport> engine) {
        mmopt_communicator_callbacks callbacks;
        mmopt_communicator *made = nullptr;
        mmopt_communicator_callbacks_init(&callbacks);
        if (engine != nullptr) {
            callbacks.user = engine.get();
            callbacks.rank = mmopt_cpp_rank;
            callbacks.size = mmopt_cpp_size;
            callbacks.all_reduce = mmopt_cpp_all_reduce;
            callbacks.broadcast = mmopt_cpp_broadcast;
            callbacks.all_gather = mmopt_cpp_all_gather;
            callbacks.reduce_scatter = mmopt_cpp_reduce_scatter;
            callbacks.send = mmopt_cpp_send;
            callbacks.receive = mmopt_cpp_receive;
            callbacks.barrier = mmopt_cpp_barrier;
            callbacks.abort = mmopt_cpp_abort;
            callbacks.free_user = mmopt_cpp_free_transport;
        }
        detail::check(mmopt_communicator_create(&callbacks, &made));
        static_cast<void>(engine.release());
        return made;
    }
};

} // namespace mmopt

#endif
