/* Classifies sentences with trained models: predict DIR [sentence...]
 *
 * DIR is what joint_train wrote: the directory of one model, or one that holds several. Without
 * sentences they are read from standard input, one a line. Prints for each sentence and model the
 * label and its probability. */
#include "example.h"

#include <dirent.h>
#include <math.h>

enum { MAX_MODELS = 64 };

struct classifier {
    char *name;
    mmopt_model *model;
    mmopt_tokenizer *tokenizer;
};

static int is_model(const char *folder)
{
    char *path = join_path(folder, "config.json");
    struct stat status;
    int found = stat(path, &status) == 0;
    free(path);
    return found;
}

static struct classifier open_model(const char *name, const char *folder)
{
    struct classifier c = {copy_text(name, strlen(name)), NULL, NULL};
    check(mmopt_model_from_directory(name, folder, &c.model));
    check(mmopt_tokenizer_load(folder, &c.tokenizer));
    return c;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct classifier *)a)->name, ((const struct classifier *)b)->name);
}

/* The model in a folder, or all models in the folders below it, by name. */
static size_t open_models(const char *folder, struct classifier *all)
{
    if (is_model(folder)) {
        all[0] = open_model("model", folder);
        return 1;
    }
    DIR *entries = opendir(folder);
    if (entries == NULL)
        die("%s: %s", folder, strerror(errno));
    size_t n = 0;
    for (struct dirent *e; (e = readdir(entries)) != NULL && n < MAX_MODELS;) {
        char *path = join_path(folder, e->d_name);
        if (e->d_name[0] != '.' && is_model(path))
            all[n++] = open_model(e->d_name, path);
        free(path);
    }
    closedir(entries);
    if (n == 0)
        die("%s holds no trained model (no config.json in it, or one folder below)", folder);
    qsort(all, n, sizeof *all, by_name);
    return n;
}

static void print_answer(const struct classifier *c, const mmopt_tensor *logits,
                         const char *sentence)
{
    size_t n = (size_t)logits->shape[1], best = 0;
    const float *scores = logits->data;
    double sum = 0;
    char *label;

    for (size_t i = 1; i < n; i++)
        if (scores[i] > scores[best])
            best = i;
    for (size_t i = 0; i < n; i++)
        sum += exp((double)scores[i] - (double)scores[best]);
    check(mmopt_model_label_name(c->model, best, &label));
    printf("%s\t%s %.3f\t%s\n", c->name, label, 1.0 / sum, sentence);
    mmopt_string_free(label);
}

static void predict(mmopt_trainer *trainer, const struct classifier *all, size_t n_models,
                    const char *sentence)
{
    for (size_t i = 0; i < n_models; i++) {
        const mmopt_tokenizer *tokenizer = all[i].tokenizer;
        const mmopt_tensor *tensors, *outputs;
        size_t n_tensors, n_outputs;
        mmopt_batch *batch;
        mmopt_evaluation *evaluation;

        check(mmopt_batch_encode(&tokenizer, 1, &sentence, 1, 0, &batch));
        check(mmopt_batch_tensors(batch, 0, &tensors, &n_tensors));
        check(mmopt_trainer_evaluate(trainer, i, tensors, n_tensors, &evaluation));
        check(mmopt_evaluation_tensors(evaluation, &outputs, &n_outputs));
        if (n_outputs != 1 || outputs[0].n_dims != 2)
            die("%s does not classify sentences", all[i].name);
        print_answer(&all[i], &outputs[0], sentence);
        mmopt_evaluation_free(evaluation);
        mmopt_batch_free(batch);
    }
}

static void predict_lines(mmopt_trainer *trainer, const struct classifier *all, size_t n_models)
{
    static char line[1 << 16];
    while (fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0')
            predict(trainer, all, n_models, line);
    }
}

int main(int argc, char **argv)
{
    struct classifier all[MAX_MODELS];
    const mmopt_model *models[MAX_MODELS];
    mmopt_trainer *trainer;

    if (argc < 2 || argv[1][0] == '-') {
        fprintf(stderr, "predict DIR [sentence...]\n");
        return 1;
    }
    size_t n_models = open_models(argv[1], all);
    for (size_t i = 0; i < n_models; i++)
        models[i] = all[i].model;
    check(mmopt_trainer_create(NULL, models, n_models, &trainer));
    for (int i = 2; i < argc; i++)
        predict(trainer, all, n_models, argv[i]);
    if (argc == 2)
        predict_lines(trainer, all, n_models);
    mmopt_trainer_free(trainer);
    for (size_t i = 0; i < n_models; i++) {
        mmopt_model_free(all[i].model);
        mmopt_tokenizer_free(all[i].tokenizer);
        free(all[i].name);
    }
    return 0;
}
