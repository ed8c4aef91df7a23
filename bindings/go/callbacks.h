// Callbacks of the C library that lead to Go: a handle goes along as the user pointer.
#ifndef MMOPT_GO_CALLBACKS_H
#define MMOPT_GO_CALLBACKS_H

#include <mmopt.h>

mmopt_error *mmopt_go_set_log(mmopt_trainer *trainer, uint32_t level, uintptr_t handle);
mmopt_error *mmopt_go_set_progress(mmopt_trainer *trainer, uintptr_t handle);
mmopt_error *mmopt_go_set_gradient_callback(mmopt_trainer *trainer, uintptr_t handle);
mmopt_error *mmopt_go_set_rate_callback(mmopt_trainer *trainer, uintptr_t handle);
mmopt_error *mmopt_go_optimizer_set_gradient_callback(mmopt_optimizer *optimizer, uintptr_t handle);
mmopt_error *mmopt_go_optimizer_set_rate_callback(mmopt_optimizer *optimizer, uintptr_t handle);
mmopt_error *mmopt_go_fit(mmopt_trainer *trainer, mmopt_loader *loader,
                          mmopt_loader **evaluation, size_t n_evaluation,
                          const mmopt_fit_options *options, uintptr_t handle,
                          mmopt_fit_result *result, mmopt_fit_best *best);
mmopt_error *mmopt_go_communicator_create(uintptr_t handle, mmopt_communicator **communicator);

#endif
