#include "callbacks.h"
#include "_cgo_export.h"

static void on_log(void *user, uint32_t level, const char *message)
{
    mmoptGoLog((uintptr_t)user, level, (char *)message);
}

static uint32_t on_progress(void *user, const mmopt_progress *progress)
{
    return mmoptGoProgress((uintptr_t)user, progress->phase, progress->model, progress->n_steps);
}

static double on_rate(void *user, const char *model, uint64_t step, double rate)
{
    return mmoptGoRate((uintptr_t)user, (char *)model, step, rate);
}

static uint32_t on_gradient(void *user, const mmopt_gradient_view *gradient)
{
    return mmoptGoGradient((uintptr_t)user, (mmopt_gradient_view *)gradient);
}

// A handle of 0 ends the calls, here and below.
mmopt_error *mmopt_go_set_gradient_callback(mmopt_trainer *trainer, uintptr_t handle)
{
    mmopt_gradient_fn callback = handle ? on_gradient : NULL;
    return mmopt_trainer_set_gradient_callback(trainer, callback, (void *)handle);
}

mmopt_error *mmopt_go_optimizer_set_gradient_callback(mmopt_optimizer *optimizer, uintptr_t handle)
{
    mmopt_gradient_fn callback = handle ? on_gradient : NULL;
    return mmopt_optimizer_set_gradient_callback(optimizer, callback, (void *)handle);
}

mmopt_error *mmopt_go_set_log(mmopt_trainer *trainer, uint32_t level, uintptr_t handle)
{
    return mmopt_trainer_set_log_callback(trainer, level, handle ? on_log : NULL, (void *)handle);
}

mmopt_error *mmopt_go_set_progress(mmopt_trainer *trainer, uintptr_t handle)
{
    return mmopt_trainer_set_progress_callback(trainer, handle ? on_progress : NULL, (void *)handle);
}

mmopt_error *mmopt_go_set_rate_callback(mmopt_trainer *trainer, uintptr_t handle)
{
    return mmopt_trainer_set_rate_callback(trainer, handle ? on_rate : NULL, (void *)handle);
}

mmopt_error *mmopt_go_optimizer_set_rate_callback(mmopt_optimizer *optimizer, uintptr_t handle)
{
    return mmopt_optimizer_set_rate_callback(optimizer, handle ? on_rate : NULL, (void *)handle);
}

static uint32_t on_fit(void *user, const mmopt_fit_progress *progress)
{
    return mmoptGoFit((uintptr_t)user, (mmopt_fit_progress *)progress);
}

mmopt_error *mmopt_go_fit(mmopt_trainer *trainer, mmopt_loader *loader,
                          mmopt_loader **evaluation, size_t n_evaluation,
                          const mmopt_fit_options *options, uintptr_t handle,
                          mmopt_fit_result *result, mmopt_fit_best *best)
{
    return mmopt_trainer_fit(trainer, loader, (const mmopt_loader *const *)evaluation, n_evaluation,
                             options, handle ? on_fit : NULL, (void *)handle, result, best);
}

static size_t on_rank(void *user)
{
    return mmoptGoRank((uintptr_t)user);
}

static size_t on_size(void *user)
{
    return mmoptGoSize((uintptr_t)user);
}

static uint32_t on_all_reduce(void *user, mmopt_communicator_call *call, void *data, size_t n,
                              uint32_t dtype)
{
    return mmoptGoAllReduce((uintptr_t)user, call, data, n, dtype);
}

static uint32_t on_broadcast(void *user, mmopt_communicator_call *call, void *data, size_t n,
                             size_t root)
{
    return mmoptGoBroadcast((uintptr_t)user, call, data, n, root);
}

static uint32_t on_all_gather(void *user, mmopt_communicator_call *call, const void *data, size_t n,
                              void *all)
{
    return mmoptGoAllGather((uintptr_t)user, call, (void *)data, n, all);
}

static uint32_t on_reduce_scatter(void *user, mmopt_communicator_call *call, void *data, size_t n,
                                  uint32_t dtype, void *part)
{
    return mmoptGoReduceScatter((uintptr_t)user, call, data, n, dtype, part);
}

static uint32_t on_send(void *user, mmopt_communicator_call *call, const void *data, size_t n,
                        size_t to)
{
    return mmoptGoSend((uintptr_t)user, call, (void *)data, n, to);
}

static uint32_t on_receive(void *user, mmopt_communicator_call *call, void *data, size_t n,
                           size_t from)
{
    return mmoptGoReceive((uintptr_t)user, call, data, n, from);
}

static uint32_t on_barrier(void *user, mmopt_communicator_call *call)
{
    return mmoptGoBarrier((uintptr_t)user, call);
}

static void on_abort(void *user, const char *message)
{
    mmoptGoAbort((uintptr_t)user, (char *)message);
}

static void on_free_transport(void *user)
{
    mmoptGoFreeTransport((uintptr_t)user);
}

mmopt_error *mmopt_go_communicator_create(uintptr_t handle, mmopt_communicator **communicator)
{
    mmopt_communicator_callbacks callbacks;

    mmopt_communicator_callbacks_init(&callbacks);
    callbacks.user = (void *)handle;
    callbacks.rank = on_rank;
    callbacks.size = on_size;
    callbacks.all_reduce = on_all_reduce;
    callbacks.broadcast = on_broadcast;
    callbacks.all_gather = on_all_gather;
    callbacks.reduce_scatter = on_reduce_scatter;
    callbacks.send = on_send;
    callbacks.receive = on_receive;
    callbacks.barrier = on_barrier;
    callbacks.abort = on_abort;
    callbacks.free_user = on_free_transport;
    return mmopt_communicator_create(&callbacks, communicator);
}
