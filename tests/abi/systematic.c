/* Every function: once as it is meant; with NULL for each pointer in turn; with an illegal number
 * for each number, and for each field of its options; as it is meant again after each of these; and
 * from two threads at once where it changes nothing. */
#include "objects.h"

#include <time.h>

#define REPLACED(kind) \
    static void replaced_##kind(struct world *w, mmopt_##kind **slot) { (void)w, (void)slot; }
REPLACED(batch) REPLACED(cancel_token) REPLACED(corpus) REPLACED(encoding) REPLACED(error)
REPLACED(evaluation) REPLACED(loader) REPLACED(model) REPLACED(optimizer) REPLACED(tokenizer)
REPLACED(trainer) REPLACED(communicator) REPLACED(predictor) REPLACED(predictions)

static void complain(const struct function *f, const char *what, const char *name, uint32_t code)
{
    n_failed++;
    printf("%s: %s %s: code %u\n", f->name, what, name, (unsigned)code);
}

static const struct twist none = {-1, -1, -1};

static void works(struct world *w, const struct function *f, const char *after, const char *name)
{
    struct result o = f->call(w, none);
    n_checked++;
    if (o.code != MMOPT_CODE_OK)
        complain(f, after, name, o.code);
}

static void check_null(struct world *w, const struct function *f, int k)
{
    struct twist t = none;
    const struct parameter *p = &f->parameters[k];
    t.null = k;
    struct result o = f->call(w, t);
    n_checked++;
    if (f->can_fail && p->null == ALLOWED && o.code != MMOPT_CODE_OK)
        complain(f, "refuses the NULL that it allows for", p->name, o.code);
    if (p->null == REFUSED && (o.code != MMOPT_CODE_INVALID_ARGUMENT || !o.says_null))
        complain(f, "does not refuse NULL, and say so, for", p->name, o.code);
    if (!f->can_fail && !o.nothing)
        complain(f, "gives something for a NULL", p->name, 0);
    works(w, f, "does not work after a NULL for", p->name);
}

static int refuses(uint32_t code)
{
    return code == MMOPT_CODE_INVALID_ARGUMENT || code == MMOPT_CODE_SHAPE ||
           code == MMOPT_CODE_NOT_FOUND || code == MMOPT_CODE_UNSUPPORTED;
}

static void check_number(struct world *w, const struct function *f, int k)
{
    struct twist t = none;
    const struct parameter *p = &f->parameters[k];
    t.number = k;
    struct result o = f->call(w, t);
    n_checked++;
    if (f->can_fail && p->number == REFUSED && !(refuses(o.code) && o.says_something))
        complain(f, "does not refuse an illegal", p->name, o.code);
    if (f->can_fail && p->number == ALLOWED && o.code != MMOPT_CODE_OK)
        complain(f, "refuses an allowed", p->name, o.code);
    if (!f->can_fail && !o.nothing)
        complain(f, "gives something for an illegal", p->name, o.code);
    works(w, f, "does not work after an illegal", p->name);
}

static void check_field(struct world *w, const struct function *f, const struct field *field)
{
    struct twist t = none;
    t.field = field->index;
    struct result o = f->call(w, t);
    n_checked++;
    if (!refuses(o.code) || !o.says_something)
        complain(f, "does not refuse an illegal option", field->name, o.code);
    works(w, f, "does not work after an illegal option", field->name);
}

struct worker {
    struct world world;
    const struct function *function;
    pthread_barrier_t *start;
    char folder[512];
    int n_refused;
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *call_often(void *argument)
{
    struct worker *me = argument;
    pthread_barrier_wait(me->start);
    double end = seconds() + 0.02;
    for (int i = 0; i < 300 && (i < 2 || seconds() < end); i++)
        me->n_refused += me->function->call(&me->world, none).code != MMOPT_CODE_OK;
    return NULL;
}

/* Each thread has its own inputs, outputs and files; the objects are the same. */
static void check_threads(struct world *w, const struct function *f)
{
    static struct worker workers[2];
    pthread_barrier_t start;
    pthread_t threads[2];

    pthread_barrier_init(&start, NULL, 2);
    for (int i = 0; i < 2; i++) {
        workers[i].world = *w;
        workers[i].world.is_thread = 1;
        workers[i].world.out = workers[i].folder;
        strcpy(workers[i].folder, path(w, i == 0 ? "first" : "second"));
        mkdir(workers[i].folder, 0777);
        fill_inputs(&workers[i].world);
        workers[i].function = f;
        workers[i].start = &start;
        workers[i].n_refused = 0;
        CHECK(pthread_create(&threads[i], NULL, call_often, &workers[i]) == 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        n_checked++;
        if (workers[i].n_refused > 0)
            complain(f, "fails in one of two", "threads", (uint32_t)workers[i].n_refused);
    }
    pthread_barrier_destroy(&start);
}

static void check_function(struct world *w, const struct function *f)
{
    works(w, f, "does not", "work");
    for (int k = 0; k < f->n_parameters; k++) {
        if (f->parameters[k].null != NONE)
            check_null(w, f, k);
        if (f->parameters[k].number != NONE)
            check_number(w, f, k);
    }
    for (int k = 0; k < f->n_fields; k++)
        check_field(w, f, &f->fields[k]);
    if (f->shared)
        check_threads(w, f);
}

int main(int argc, char **argv)
{
    static struct world w;
    if (argc < 2)
        return 2;
    set_up(&w, argv[1]);
    for (int i = 0; i < N_FUNCTIONS; i++)
        if (argc == 2 || strcmp(argv[2], functions[i].name) == 0) {
            double start = seconds();
            check_function(&w, &functions[i]);
            if (seconds() - start > 1)
                printf("%s: %.1f s\n", functions[i].name, seconds() - start);
        }
    tear_down(&w);
    printf("%d functions\n", N_FUNCTIONS);
    return finish();
}
