/* What the wrappers of a trace share. `names` and N_FUNCTIONS come before. */
#define _GNU_SOURCE
#include <mmopt.h>

#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t met = PTHREAD_COND_INITIALIZER;
static pthread_t first_thread;

static struct seen {
    int worked, after, threads;
    uint64_t null, number;
    /* Without an object. */
    int has_failed;
    /* A thread that waits for another one to call this on the same object. */
    const void *object;
    int waits, n_waits;
    pthread_t waiter;
} seen[N_FUNCTIONS];

/* Objects on which a call has failed. */
enum { N_FAILED = 4096 };
static const void *failed[N_FAILED];
static size_t n_failed;

static size_t place_of(const void *object)
{
    size_t i = 0;
    while (i < n_failed && failed[i] != object)
        i++;
    return i;
}

static void forget(const void *object)
{
    size_t i = place_of(object);
    if (i < n_failed)
        failed[i] = failed[--n_failed];
}

static void find(void **real, const char *name)
{
    void *found = __atomic_load_n(real, __ATOMIC_ACQUIRE);
    if (found == NULL)
        __atomic_store_n(real, dlsym(RTLD_NEXT, name), __ATOMIC_RELEASE);
}

static uint32_t code_of(const mmopt_error *error)
{
    static uint32_t (*real)(const mmopt_error *);
    find((void **)(void *)&real, "mmopt_error_code");
    return real(error);
}

/* Lets two threads into a function at once, if two come within a moment. */
static void meet(int i, const void *object)
{
    struct seen *s = &seen[i];
    struct timespec end;
    if (pthread_equal(pthread_self(), first_thread))
        return;
    pthread_mutex_lock(&lock);
    if (s->waits && s->object == object && !pthread_equal(s->waiter, pthread_self())) {
        s->threads = 1;
        s->waits = 0;
        pthread_cond_broadcast(&met);
    } else if (!s->threads && !s->waits && s->n_waits++ < 100) {
        s->waits = 1;
        s->object = object;
        s->waiter = pthread_self();
        clock_gettime(CLOCK_REALTIME, &end);
        end.tv_nsec += 20 * 1000 * 1000;
        end.tv_sec += end.tv_nsec / 1000000000;
        end.tv_nsec %= 1000000000;
        while (s->waits && pthread_cond_timedwait(&met, &lock, &end) == 0)
            ;
        s->waits = 0;
    }
    pthread_mutex_unlock(&lock);
}

/* must: the pointers that must be given; numbers: those that are illegal. One fault counts, two at
 * once say nothing. */
static void note(int i, int can_fail, const void *object, uint64_t nulls, uint64_t must,
                 uint64_t numbers, uint32_t code)
{
    struct seen *s = &seen[i];
    uint64_t missing = nulls & must;
    pthread_mutex_lock(&lock);
    if (missing == 0 && numbers == 0 && code == MMOPT_CODE_OK) {
        s->worked = 1;
        s->null |= nulls;
        s->after |= object == NULL ? s->has_failed : place_of(object) < n_failed;
    }
    if ((missing & (missing - 1)) == 0 && numbers == 0 && code == MMOPT_CODE_INVALID_ARGUMENT)
        s->null |= missing;
    if ((numbers & (numbers - 1)) == 0 && missing == 0 &&
        (!can_fail || code == MMOPT_CODE_INVALID_ARGUMENT || code == MMOPT_CODE_SHAPE ||
         code == MMOPT_CODE_NOT_FOUND))
        s->number |= numbers;
    if (code != MMOPT_CODE_OK) {
        size_t i = object == NULL ? 0 : place_of(object);
        s->has_failed |= object == NULL;
        if (object != NULL && i == n_failed && n_failed < N_FAILED)
            failed[n_failed++] = object;
    }
    if (strstr(names[i], "_free") != NULL)
        forget(object);
    pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void begin(void)
{
    first_thread = pthread_self();
}

__attribute__((destructor)) static void end(void)
{
    const char *path = getenv("MMOPT_TRACE");
    FILE *file = path == NULL ? NULL : fopen(path, "a");
    if (file == NULL)
        return;
    for (int i = 0; i < N_FUNCTIONS; i++)
        fprintf(file, "%s %d %llu %llu %d %d\n", names[i], seen[i].worked,
                (unsigned long long)seen[i].null, (unsigned long long)seen[i].number,
                seen[i].after, seen[i].threads);
    fclose(file);
}
