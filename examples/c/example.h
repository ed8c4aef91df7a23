/* What the examples share: ending on an error, paths, time. */
#ifndef MMOPT_EXAMPLE_H
#define MMOPT_EXAMPLE_H

#include <mmopt.h>

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* Prints why and ends the program. */
static inline void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("error: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

/* Ends the program when a call of the library has failed. */
static inline void check(mmopt_error *error)
{
    if (error == NULL)
        return;
    fprintf(stderr, "error: %s\n", mmopt_error_message(error));
    mmopt_error_free(error);
    exit(1);
}

/* Memory that is there, all zero. */
static inline void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n == 0 ? 1 : n, size);
    if (memory == NULL)
        die("out of memory");
    return memory;
}

/* A copy of n characters. */
static inline char *copy_text(const char *text, size_t n)
{
    char *copy = allocate(n + 1, 1);
    memcpy(copy, text, n);
    return copy;
}

/* folder/name; the caller frees it. */
static inline char *join_path(const char *folder, const char *name)
{
    size_t n = strlen(folder) + strlen(name) + 2;
    char *path = allocate(n, 1);
    snprintf(path, n, "%s/%s", folder, name);
    return path;
}

/* Makes a folder and those above it. */
static inline void make_folder(const char *folder)
{
    char *path = copy_text(folder, strlen(folder));
    for (char *at = path + 1; ; at++) {
        char end = *at;
        if (end != '/' && end != '\0')
            continue;
        *at = '\0';
        if (mkdir(path, 0777) != 0 && errno != EEXIST)
            die("%s: %s", path, strerror(errno));
        if (end == '\0')
            break;
        *at = end;
    }
    free(path);
}

/* Seconds since some moment. */
static inline double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Seconds of all threads of this process on a core. */
static inline double processor_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#endif
