/* Trains two tiny models for some steps with a checkpoint after each, going on from the last;
 * prints a number that depends on every weight. Arguments: folder, steps, and how checkpoints are
 * written: at-once, beside the training, or by a fit, whose log must then have each step once.
 *
 * Exit status: 0 done; 2 a checkpoint could not be written; 3 one could not be resumed; 4 the log is
 * not that of one undisturbed fit. */
#include "tiny.h"

static unsigned long long mixed(mmopt_trainer *trainer)
{
    unsigned long long hash = 1469598103934665603ull;
    for (size_t model = 0; model < 2; model++) {
        size_t n = mmopt_trainer_n_parameters(trainer, model);
        for (size_t i = 0; i < n; i++) {
            mmopt_tensor value;
            OK(mmopt_trainer_parameter(trainer, model, i, &value, NULL));
            const unsigned char *bytes = value.data;
            size_t n_bytes = sizeof(float);
            for (size_t d = 0; d < value.n_dims; d++)
                n_bytes *= (size_t)value.shape[d];
            for (size_t b = 0; b < n_bytes; b++)
                hash = (hash ^ bytes[b]) * 1099511628211ull;
        }
    }
    return hash;
}

static int failed(mmopt_error *error, int status)
{
    if (error == NULL)
        return 0;
    printf("code %u: %s\n", (unsigned)mmopt_error_code(error), mmopt_error_message(error));
    fflush(stdout);
    mmopt_error_free(error);
    exit(status);
}

/* The steps that a log of JSON lines has, as a text; "torn" where a line is not whole. */
static void read_steps(const char *path, char *steps, size_t room)
{
    static char line[1 << 16];
    FILE *log = fopen(path, "r");
    size_t used = 0;

    CHECK(log != NULL);
    steps[0] = '\0';
    while (log != NULL && fgets(line, sizeof line, log) != NULL) {
        size_t n = strlen(line);
        const char *step = strstr(line, "\"step\":");
        if (n < 2 || line[n - 1] != '\n' || line[n - 2] != '}')
            used += (size_t)snprintf(steps + used, room - used, " torn");
        else if (strstr(line, "\"type\":\"step\"") != NULL && step != NULL)
            used += (size_t)snprintf(steps + used, room - used, " %ld", strtol(step + 7, NULL, 10));
    }
    if (log != NULL)
        fclose(log);
}

/* The same steps as one call, with a log beside the folder. */
static void fit_steps(mmopt_trainer *trainer, const char *folder, unsigned long long n_steps)
{
    mmopt_fit_options options;
    char path[4096], steps[4096], wanted[4096] = "";
    size_t used = 0;

    snprintf(path, sizeof path, "%s.jsonl", folder);
    mmopt_fit_options_init(&options);
    options.epochs = 0;
    options.max_steps = n_steps;
    options.checkpoint_dir = folder;
    options.checkpoint_every = 1;
    options.resume = 1;
    options.jsonl_path = path;
    failed(mmopt_trainer_fit(trainer, loader, NULL, 0, &options, NULL, NULL, NULL, NULL), 3);
    for (unsigned long long i = 1; i <= n_steps; i++)
        used += (size_t)snprintf(wanted + used, sizeof wanted - used, " %llu", i);
    read_steps(path, steps, sizeof steps);
    if (strcmp(steps, wanted) != 0) {
        printf("the log has the steps%s\n", steps);
        exit(4);
    }
}

int main(int argc, char **argv)
{
    mmopt_trainer_options options;
    mmopt_checkpoint_options how;
    mmopt_trainer *trainer;
    char *state = NULL;

    if (argc != 4)
        return 1;
    mmopt_checkpoint_options_init(&how);
    how.asynchronous = strcmp(argv[3], "beside") == 0;
    OK(mmopt_runtime_load(getenv("MMOPT_ORT_LIB")));
    make_data();
    mmopt_trainer_options_init(&options, MMOPT_PRESET_DEFAULT);
    options.n_threads = 1;
    options.learning_rate = 1e-2;
    trainer = make_trainer(&options);
    if (strcmp(argv[3], "fit") == 0) {
        fit_steps(trainer, argv[1], strtoull(argv[2], NULL, 10));
        printf("done %llx\n", mixed(trainer));
        mmopt_trainer_free(trainer);
        return 0;
    }
    mmopt_error *error = mmopt_trainer_resume(trainer, argv[1], &state);
    if (mmopt_error_code(error) == MMOPT_CODE_NOT_FOUND) {
        mmopt_error_free(error);
    } else if (!failed(error, 3)) {
        OK(mmopt_loader_restore(loader, state));
        mmopt_string_free(state);
    }
    printf("from %llu\n", (unsigned long long)mmopt_trainer_n_steps(trainer));
    while (mmopt_trainer_n_steps(trainer) < strtoull(argv[2], NULL, 10)) {
        mmopt_batch *batch = next_batch();
        OK(mmopt_trainer_forward_backward_batch(trainer, batch, NULL));
        OK(mmopt_trainer_step(trainer, NULL));
        mmopt_batch_free(batch);
        OK(mmopt_loader_state(loader, &state));
        failed(mmopt_trainer_save_checkpoint_with(trainer, argv[1], state, &how, NULL), 2);
        mmopt_string_free(state);
    }
    failed(mmopt_trainer_wait_for_checkpoint(trainer, NULL), 2);
    printf("done %llx\n", mixed(trainer));
    mmopt_trainer_free(trainer);
    return 0;
}
