/* After a fork the child has none of the library's threads: calls there are errors and end at once,
 * also with a checkpoint under way, and the parent goes on. */
#include "tiny.h"

#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static double one_step(mmopt_trainer *trainer, mmopt_batch *batch)
{
    mmopt_train_result results[2] = {{0, 0, 0, 0}, {0, 0, 0, 0}};
    OK(mmopt_trainer_forward_backward_batch(trainer, batch, results));
    OK(mmopt_trainer_step(trainer, NULL));
    return results[0].loss;
}

static void in_child(mmopt_trainer *trainer, mmopt_batch *batch, const char *folder)
{
    mmopt_corpus *made = NULL;
    mmopt_batch *next = NULL;

    alarm(60); /* A hang ends by a signal. */
    FAILS(mmopt_trainer_forward_backward_batch(trainer, batch, NULL), MMOPT_CODE_STATE, "forked");
    FAILS(mmopt_trainer_step(trainer, NULL), MMOPT_CODE_STATE, "forked");
    FAILS(mmopt_trainer_zero_grad(trainer), MMOPT_CODE_STATE, "forked");
    FAILS(mmopt_trainer_save_checkpoint(trainer, folder, ""), MMOPT_CODE_STATE, "forked");
    FAILS(mmopt_trainer_wait_for_checkpoint(trainer, NULL), MMOPT_CODE_STATE, "forked");
    FAILS(mmopt_trainer_resume(trainer, folder, NULL), MMOPT_CODE_STATE, "forked");
    FAILS(mmopt_loader_next(loader, &next), MMOPT_CODE_STATE, "forked");
    FAILS(mmopt_corpus_synthetic(8, 1, 0.0, &made), MMOPT_CODE_STATE, "forked");
    CHECK(made == NULL && next == NULL);
    CHECK(mmopt_version_number() != 0);
    mmopt_trainer_free(trainer);
    mmopt_batch_free(batch);
    free_data();
    fflush(stdout);
    _exit(n_failed == 0 ? 0 : 1);
}

int main(int argc, char **argv)
{
    mmopt_checkpoint_options beside;
    mmopt_trainer_options options;
    char folder[4096];
    int status = 1;

    if (argc != 2 || getenv("MMOPT_ORT_LIB") == NULL) {
        printf("not run: no ONNX Runtime\n");
        return 0;
    }
    OK(mmopt_runtime_load(getenv("MMOPT_ORT_LIB")));
    make_data();
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.n_threads = 2;
    mmopt_trainer *trainer = make_trainer(&options), *twin = make_trainer(&options);
    mmopt_batch *batch = next_batch();
    CHECK(one_step(trainer, batch) == one_step(twin, batch));
    snprintf(folder, sizeof folder, "%s/checkpoints", argv[1]);
    mmopt_checkpoint_options_init(&beside);
    beside.asynchronous = 1;
    OK(mmopt_trainer_save_checkpoint_with(trainer, folder, "", &beside, NULL));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0)
        in_child(trainer, batch, folder);
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    OK(mmopt_trainer_wait_for_checkpoint(trainer, NULL));
    OK(mmopt_trainer_resume(twin, folder, NULL));
    for (int i = 0; i < 2; i++)
        CHECK(one_step(trainer, batch) == one_step(twin, batch));
    mmopt_batch_free(batch);
    mmopt_trainer_free(trainer);
    mmopt_trainer_free(twin);
    free_data();
    return finish();
}
