/* What trained models say about texts: predict [-c CONTEXT] DIR [text...]
 *
 * DIR is what joint_train wrote, or a published model: the directory of one model, or one that
 * holds several. Without texts they are read from standard input, one a line. Prints for each text
 * and model the class and its probability; of a model for named entities each entity; of one for
 * questions, whose context is CONTEXT, the answer. */
#include "example.h"

#include <dirent.h>

enum { MAX_MODELS = 64 };

struct named {
    char *name;
    mmopt_predictor *predictor;
};

static int is_model(const char *folder)
{
    char *path = join_path(folder, "config.json");
    struct stat status;
    int found = stat(path, &status) == 0;
    free(path);
    return found;
}

static struct named open_model(const char *name, const char *folder)
{
    struct named model = {copy_text(name, strlen(name)), NULL};
    check(mmopt_predictor_load(folder, NULL, &model.predictor));
    return model;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

/* The model in a folder, or all models in the folders below it, by name. */
static size_t open_models(const char *folder, struct named *all)
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

/* A class or an answer is the first of several, of entities every one counts. */
static void print(const struct named *model, const mmopt_prediction *list, size_t n,
                  const char *text)
{
    int entities = n == 0 || (list[0].label != NULL && list[0].text != NULL);
    for (size_t i = 0; i < n && (i == 0 || entities); i++) {
        printf("%s\t%s", model->name, list[i].label != NULL ? list[i].label : list[i].text);
        printf(" %.3f\t%s\n", list[i].probability, entities ? list[i].text : text);
    }
    if (n == 0)
        printf("%s\tno entity\t%s\n", model->name, text);
}

static void predict(const struct named *all, size_t n_models, const char *text,
                    const char *context)
{
    for (size_t i = 0; i < n_models; i++) {
        mmopt_predictions *predictions;
        const mmopt_prediction *list;
        size_t n;
        check(mmopt_predictor_predict(all[i].predictor, &text, context ? &context : NULL, 1, NULL,
                                      &predictions));
        check(mmopt_predictions_of(predictions, 0, &list, &n));
        print(&all[i], list, n, text);
        mmopt_predictions_free(predictions);
    }
}

int main(int argc, char **argv)
{
    static char line[1 << 16];
    struct named all[MAX_MODELS];
    const char *context = NULL;
    int first = 1;

    if (argc > 2 && strcmp(argv[1], "-c") == 0) {
        context = argv[2];
        first = 3;
    }
    if (argc <= first || argv[first][0] == '-') {
        fprintf(stderr, "predict [-c CONTEXT] DIR [text...]\n");
        return 1;
    }
    size_t n_models = open_models(argv[first], all);
    for (int i = first + 1; i < argc; i++)
        predict(all, n_models, argv[i], context);
    while (argc == first + 1 && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] != '\0')
            predict(all, n_models, line, context);
    }
    for (size_t i = 0; i < n_models; i++) {
        mmopt_predictor_free(all[i].predictor);
        free(all[i].name);
    }
    return 0;
}
