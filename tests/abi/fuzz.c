/* Random calls of every function, legal and not, in random order, for a given time:
 *
 *     fuzz FOLDER SECONDS SEED [CALLS]
 *
 * Objects live in a few slots, where they are made, used, replaced and freed; a freed one is never
 * used again. A shadow of each trainer and loader says which calls must work and what they must
 * change. Now and then two threads call at the same time. */
#include "objects.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

/* What is known of the objects in the slots, and of the world's first ones after them. */
static struct { uint64_t n_steps; int pending; } trainer_shadow[N_SLOTS + 1];
static struct { uint64_t epoch; size_t position; } loader_shadow[N_SLOTS + 1];

static struct world base, now;
static struct slots slots;
static const char *current = "set_up";
static uint64_t seed, n_calls, n_bursts;
static uint64_t n_ok[N_FUNCTIONS], n_refused[N_FUNCTIONS];

static void wrong(const char *what, uint64_t got, uint64_t expected)
{
    n_failed++;
    printf("seed %llu, call %llu, %s: %s: %llu, not %llu\n", (unsigned long long)seed,
           (unsigned long long)n_calls, current, what, (unsigned long long)got,
           (unsigned long long)expected);
}

static void expect(const char *what, uint64_t got, uint64_t expected)
{
    n_checked++;
    if (got != expected)
        wrong(what, got, expected);
}

#define NOT_SHADOWED(kind) \
    static void replaced_##kind(struct world *w, mmopt_##kind **slot) { (void)w, (void)slot; }
NOT_SHADOWED(batch) NOT_SHADOWED(cancel_token) NOT_SHADOWED(corpus) NOT_SHADOWED(encoding)
NOT_SHADOWED(error) NOT_SHADOWED(evaluation) NOT_SHADOWED(model) NOT_SHADOWED(optimizer)
NOT_SHADOWED(tokenizer) NOT_SHADOWED(communicator) NOT_SHADOWED(predictor) NOT_SHADOWED(predictions)

static void replaced_trainer(struct world *w, mmopt_trainer **slot)
{
    size_t i = (size_t)(slot - w->slots->trainer);
    trainer_shadow[i].n_steps = 0;
    trainer_shadow[i].pending = 0;
}

static void replaced_loader(struct world *w, mmopt_loader **slot)
{
    size_t i = (size_t)(slot - w->slots->loader);
    loader_shadow[i].epoch = 0;
    loader_shadow[i].position = 0;
}

static int is(const char *name) { return strcmp(current + strlen("mmopt_"), name) == 0; }

static void follow_trainer(uint32_t code)
{
    unsigned i = now.slot_of_trainer;
    if (code == MMOPT_CODE_COMMUNICATION) {
        /* The gradients are lost; what was resumed stays. */
        mmopt_error_free(mmopt_trainer_zero_grad(now.trainer));
        trainer_shadow[i].pending = 0;
        trainer_shadow[i].n_steps = mmopt_trainer_n_steps(now.trainer);
    } else if (is("trainer_step")) {
        if (!trainer_shadow[i].pending && code != MMOPT_CODE_CANCELLED)
            expect("a step without a pass", code, MMOPT_CODE_STATE);
        else if (code != MMOPT_CODE_CANCELLED && code != MMOPT_CODE_NON_FINITE)
            expect("a step after a pass", code, MMOPT_CODE_OK);
        if (code == MMOPT_CODE_OK)
            trainer_shadow[i].n_steps++, trainer_shadow[i].pending = 0;
    } else if (is("trainer_save_checkpoint") && trainer_shadow[i].pending) {
        n_checked++;
        if (code != MMOPT_CODE_STATE && code != MMOPT_CODE_INVALID_ARGUMENT)
            wrong("a checkpoint between pass and step", code, MMOPT_CODE_STATE);
    } else if (code == MMOPT_CODE_OK && strstr(current, "forward_backward") != NULL) {
        trainer_shadow[i].pending = 1;
    } else if (code == MMOPT_CODE_OK && (is("trainer_zero_grad") || is("trainer_resume"))) {
        trainer_shadow[i].pending = 0;
        if (is("trainer_resume"))
            trainer_shadow[i].n_steps = mmopt_trainer_n_steps(now.trainer);
    } else if (is("trainer_fit") || is("trainer_find_learning_rate")) {
        /* Where it stands after an error depends on where that was. */
        mmopt_error_free(mmopt_trainer_zero_grad(now.trainer));
        trainer_shadow[i].pending = 0;
        if (is("trainer_fit"))
            trainer_shadow[i].n_steps = mmopt_trainer_n_steps(now.trainer);
    }
    expect("steps", mmopt_trainer_n_steps(now.trainer), trainer_shadow[i].n_steps);
}

static void follow_loader(uint32_t code)
{
    unsigned i = now.slot_of_loader;
    if (code == MMOPT_CODE_OK && is("loader_next")) {
        if (loader_shadow[i].position++ == mmopt_loader_n_batches(now.loader))
            loader_shadow[i].position = 0, loader_shadow[i].epoch++;
    } else if (is("trainer_fit") || is("trainer_find_learning_rate") ||
               (code == MMOPT_CODE_OK && (is("loader_set_epoch") || is("loader_restore")))) {
        loader_shadow[i].epoch = mmopt_loader_epoch(now.loader);
        loader_shadow[i].position = mmopt_loader_position(now.loader);
    }
    expect("epoch", mmopt_loader_epoch(now.loader), loader_shadow[i].epoch);
    expect("position", mmopt_loader_position(now.loader), loader_shadow[i].position);
}

/* Inputs for the next call: an object of a slot where there is one, else perhaps a first one. */
static void draw(void)
{
    draw_objects(&now);
#define OR_FIRST(kind)                                                   \
    if (now.kind == NULL && below(&now, 4) > 0)                          \
        now.kind = base.kind, now.slot_of_##kind = N_SLOTS
    OR_FIRST(batch); OR_FIRST(cancel_token); OR_FIRST(communicator);
    OR_FIRST(corpus); OR_FIRST(encoding); OR_FIRST(error);
    OR_FIRST(evaluation); OR_FIRST(loader); OR_FIRST(model); OR_FIRST(optimizer);
    OR_FIRST(tokenizer); OR_FIRST(trainer);
    for (int i = 0; i < 2; i++) {
        const mmopt_tokenizer *t = slots.tokenizer[below(&now, N_SLOTS)];
        const mmopt_model *m = slots.model[below(&now, N_SLOTS)];
        now.tokenizers[i] = t == NULL || below(&now, 3) == 0 ? base.tokenizers[i] : t;
        now.models[i] = m == NULL || below(&now, 3) == 0 ? base.models[i] : m;
        now.parts[i] = base.parts[i], now.n_parts[i] = base.n_parts[i];
        if (now.batch != NULL && below(&now, 2) == 0)
            mmopt_error_free(mmopt_batch_tensors(now.batch, (size_t)i, &now.parts[i],
                                                 &now.n_parts[i]));
    }
    now.tensors = now.parts[0], now.n_tensors = now.n_parts[0];
    now.answer = below(&now, 40) == 0;
}

static struct twist twisted(struct world *w, const struct function *f)
{
    struct twist t = {-1, -1, -1};
    unsigned n = (unsigned)f->n_parameters;
    if (n > 0 && below(w, 10) == 0)
        t.null = (int)below(w, n);
    if (n > 0 && below(w, 12) == 0)
        t.number = (int)below(w, n);
    if (f->n_fields > 0 && below(w, 10) == 0)
        t.field = f->fields[below(w, (unsigned)f->n_fields)].index;
    return t;
}

static int must_fail(const struct function *f, struct twist t)
{
    return f->can_fail && (t.field >= 0 || (t.null >= 0 && f->parameters[t.null].null == REFUSED) ||
                           (t.number >= 0 && f->parameters[t.number].number == REFUSED));
}

static void judge_code(const struct function *f, struct twist t, uint32_t code)
{
    n_checked++;
    if (code > MMOPT_CODE_CANCELLED && code != MMOPT_CODE_COMMUNICATION)
        wrong("a defect", code, 0);
    /* The options come last: what is spoilt in them is not looked at where they may be NULL. */
    if (must_fail(f, t) && code == MMOPT_CODE_OK && t.null < 0)
        wrong("spoilt arguments", code, MMOPT_CODE_INVALID_ARGUMENT);
}

static const char *const frequent[] = {
    "mmopt_trainer_forward_backward_batch", "mmopt_trainer_forward_backward",
    "mmopt_trainer_forward_backward_all", "mmopt_trainer_step", "mmopt_trainer_step",
    "mmopt_trainer_evaluate", "mmopt_optimizer_accumulate", "mmopt_optimizer_step",
    "mmopt_loader_next", "mmopt_corpus_synthetic", "mmopt_loader_create",
    "mmopt_tokenizer_encode",
};

static int choose(void)
{
    int i = (int)below(&now, N_FUNCTIONS);
    if (below(&now, 4) == 0) {
        const char *name = frequent[below(&now, sizeof frequent / sizeof frequent[0])];
        for (i = 0; i < N_FUNCTIONS && strcmp(functions[i].name, name) != 0; i++)
            ;
    }
    return i % N_FUNCTIONS;
}

static void call_one(void)
{
    int i = choose();
    const struct function *f = &functions[i];
    struct twist t = twisted(&now, f);
    draw();
    current = f->name;
    struct result o = f->call(&now, t);
    n_calls++;
    judge_code(f, t, o.code);
    if (o.code == MMOPT_CODE_OK && !(t.null >= 0 && f->parameters[t.null].null == REFUSED))
        n_ok[i]++;
    else
        n_refused[i]++;
    /* With NULL for the object the call was about none; after _free it is gone. */
    if (f->frees || t.null == 0)
        return;
    if (now.trainer != NULL && strncmp(f->name, "mmopt_trainer_", 14) == 0 && must_fail(f, t) == 0 &&
        !is("trainer_create"))
        follow_trainer(o.code);
    int moves = is("trainer_fit") || is("trainer_find_learning_rate") ||
                (strncmp(f->name, "mmopt_loader_", 13) == 0 && !is("loader_create"));
    if (now.loader != NULL && moves && must_fail(f, t) == 0)
        follow_loader(o.code);
}

struct worker { struct world world; int mixed, failed; uint64_t calls; };

/* Against the thread rule, too: what another call is using answers STATE. The optimizer is left
 * out, as its memory is the host's, and so is what frees. */
static int may_run_at_once(const struct function *f, int mixed)
{
    return f->shared || (mixed && !f->frees && strstr(f->name, "optimizer") == NULL);
}

static void *call_at_once(void *argument)
{
    struct worker *me = argument;
    for (int i = 0; i < 40; i++) {
        const struct function *f = &functions[below(&me->world, N_FUNCTIONS)];
        if (!may_run_at_once(f, me->mixed))
            continue;
        struct result o = f->call(&me->world, twisted(&me->world, f));
        me->failed += o.code > MMOPT_CODE_CANCELLED && o.code != MMOPT_CODE_COMMUNICATION;
        me->calls++;
    }
    return NULL;
}

static void burst(void)
{
    /* Static: callbacks keep the address. */
    static struct worker workers[2];
    pthread_t threads[2];
    int mixed = below(&now, 3) == 0;

    draw();
    current = "two threads";
    for (int i = 0; i < 2; i++) {
        workers[i].world = now;
        fill_inputs(&workers[i].world);
        workers[i].world.slots = NULL;
        workers[i].world.state = now.state * 2 + (uint64_t)i;
        workers[i].mixed = mixed;
        if (pthread_create(&threads[i], NULL, call_at_once, &workers[i]) != 0)
            exit(2);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++) {
        expect("defects in threads", (uint64_t)workers[i].failed, 0);
        n_calls += workers[i].calls;
        workers[i].failed = 0, workers[i].calls = 0;
    }
    below(&now, 2);
    n_bursts++;
    /* What the threads did to the shadowed objects is known again after this. */
    if (now.trainer != NULL) {
        mmopt_error_free(mmopt_trainer_zero_grad(now.trainer));
        trainer_shadow[now.slot_of_trainer].pending = 0;
        trainer_shadow[now.slot_of_trainer].n_steps = mmopt_trainer_n_steps(now.trainer);
    }
    if (now.loader != NULL) {
        loader_shadow[now.slot_of_loader].epoch = mmopt_loader_epoch(now.loader);
        loader_shadow[now.slot_of_loader].position = mmopt_loader_position(now.loader);
    }
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static long resident_mib(void)
{
    long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%ld %ld", &size, &resident) != 2)
        resident = 0;
    fclose(file);
    return resident * (sysconf(_SC_PAGESIZE) / 1024) / 1024;
}

static void on_crash(int signal_number)
{
    char line[256];
    int n = snprintf(line, sizeof line, "crash %d: seed %llu, call %llu, %s\n", signal_number,
                     (unsigned long long)seed, (unsigned long long)n_calls, current);
    if (write(2, line, (size_t)n) != n)
        _exit(3);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static void report(double time)
{
    int unused = 0;
    uint64_t ok = 0, refused = 0;
    for (int i = 0; i < N_FUNCTIONS; i++) {
        ok += n_ok[i], refused += n_refused[i];
        if (n_ok[i] == 0) {
            unused++;
            printf("never worked: %s\n", functions[i].name);
        }
    }
    printf("seed %llu: %llu calls in %.0f s, %llu worked, %llu were refused, %llu times two threads; "
           "%d of %d functions worked; %ld MiB\n",
           (unsigned long long)seed, (unsigned long long)n_calls, time, (unsigned long long)ok,
           (unsigned long long)refused, (unsigned long long)n_bursts, N_FUNCTIONS - unused,
           N_FUNCTIONS, resident_mib());
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static char place[4096];
    if (argc < 4)
        return 2;
    signal(SIGSEGV, on_crash), signal(SIGABRT, on_crash), signal(SIGBUS, on_crash);
    double start = seconds(), end = start + atof(argv[2]), told = start;
    seed = strtoull(argv[3], NULL, 10);
    uint64_t most = argc > 4 ? strtoull(argv[4], NULL, 10) : UINT64_MAX;
    set_up(&base, argv[1]);
    now = base;
    fill_inputs(&now);
    snprintf(place, sizeof place, "%s/out", argv[1]);
    now.fuzz = 1, now.state = seed * 2 + 1, now.slots = &slots, now.out = place;
    /* Odd paths are relative to here. */
    if (mkdir(place, 0777) != 0 || chdir(place) != 0)
        return 2;
    while (n_calls < most && seconds() < end && n_failed < 20) {
        call_one();
        if (below(&now, 300) == 0)
            burst();
        if (seconds() - told > 60)
            told = seconds(), report(told - start);
    }
    report(seconds() - start);
    free_slots(&slots);
    tear_down(&base);
    return finish();
}
