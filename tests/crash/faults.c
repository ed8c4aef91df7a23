/* Preloaded between a program and the system: counts the calls that change what is below a folder,
 * and lets one of them fail, do half of its work, or be the process's last.
 *
 *   FAULT_DIR=folder     what is watched
 *   FAULT_AT=n           the n-th such call, from 1; without it nothing happens
 *   FAULT_KIND=kind      a number: the call fails with this errno. short: a write does half.
 *                        before, after: the process is killed before or after the call
 *   FAULT_TRACE=file     every such call, a line each, with what was written in hexadecimal
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { N_FILES = 1024 };

static char *watched[N_FILES]; /* paths of open files below the folder, by number */
static int n_calls;
static int trace = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int below(const char *path)
{
    const char *dir = getenv("FAULT_DIR");
    return dir != NULL && path != NULL && strncmp(path, dir, strlen(dir)) == 0;
}

static void note(const char *line, size_t n)
{
    const char *path = getenv("FAULT_TRACE");
    if (path == NULL)
        return;
    if (trace < 0)
        trace = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    syscall(SYS_write, trace, line, n);
}

/* What the n-th call is to do: 0 its work, -1 half of it, -2 its work and then die, else fail with
 * this errno. */
static int turn(void)
{
    const char *at = getenv("FAULT_AT"), *kind = getenv("FAULT_KIND");
    pthread_mutex_lock(&lock);
    int n = ++n_calls;
    pthread_mutex_unlock(&lock);
    if (at == NULL || kind == NULL || n != atoi(at))
        return 0;
    if (strcmp(kind, "before") == 0)
        raise(SIGKILL);
    if (strcmp(kind, "after") == 0)
        return -2;
    if (strcmp(kind, "short") == 0)
        return -1;
    return atoi(kind);
}

/* A call without data. */
#define CALL(line, call) \
    do { \
        int what = turn(); \
        if (what > 0) { \
            errno = what; \
            return -1; \
        } \
        int done = (call); \
        if (done >= 0) \
            note(line, strlen(line)); \
        if (what == -2) \
            raise(SIGKILL); \
        return done; \
    } while (0)

static int opened(int file, const char *path)
{
    if (file >= 0 && file < N_FILES) {
        free(watched[file]);
        watched[file] = below(path) ? strdup(path) : NULL;
    }
    return file;
}

static const char *path_of(int file)
{
    return file >= 0 && file < N_FILES ? watched[file] : NULL;
}

static int open_with(const char *path, int flags, mode_t mode)
{
    return opened((int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode), path);
}

static int open_any(const char *path, int flags, mode_t mode)
{
    char line[4200];
    if (!below(path))
        return opened((int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode), path);
    if ((flags & O_ACCMODE) == O_RDONLY)
        snprintf(line, sizeof line, "read %s\n", path);
    else
        snprintf(line, sizeof line, "%s %s\n", flags & O_TRUNC ? "truncate" : "create", path);
    CALL(line, open_with(path, flags, mode));
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_any(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_any(path, flags, mode);
}

ssize_t write(int file, const void *data, size_t n)
{
    const char *path = path_of(file);
    if (path == NULL)
        return syscall(SYS_write, file, data, n);
    int what = turn();
    if (what > 0) {
        errno = what;
        return -1;
    }
    if (what == -1 && n > 1)
        n /= 2;
    ssize_t done = syscall(SYS_write, file, data, n);
    if (done > 0 && getenv("FAULT_TRACE") != NULL) {
        char *line = malloc(strlen(path) + 2 * (size_t)done + 16);
        int used = sprintf(line, "write %s ", path);
        for (ssize_t i = 0; i < done; i++)
            used += sprintf(line + used, "%02x", ((const unsigned char *)data)[i]);
        line[used++] = '\n';
        note(line, (size_t)used);
        free(line);
    }
    if (what == -2)
        raise(SIGKILL);
    return done;
}

int fsync(int file)
{
    char line[4200];
    if (path_of(file) == NULL)
        return (int)syscall(SYS_fsync, file);
    snprintf(line, sizeof line, "sync %s\n", path_of(file));
    CALL(line, (int)syscall(SYS_fsync, file));
}

int close(int file)
{
    const char *path = path_of(file);
    if (path == NULL)
        return (int)syscall(SYS_close, file);
    int what = turn();
    free(watched[file]);
    watched[file] = NULL;
    int done = (int)syscall(SYS_close, file);
    if (what > 0) {
        errno = what;
        return -1;
    }
    if (what == -2)
        raise(SIGKILL);
    return done;
}

int rename(const char *from, const char *to)
{
    char line[8400];
    if (!below(from))
        return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    snprintf(line, sizeof line, "rename %s %s\n", from, to);
    CALL(line, (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int mkdir(const char *path, mode_t mode)
{
    char line[4200];
    if (!below(path))
        return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    snprintf(line, sizeof line, "mkdir %s\n", path);
    CALL(line, (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}

/* The path of a name in an open folder. */
static void whole_path(int dir, const char *path, char whole[4200])
{
    char link[64];
    ssize_t n = 0;
    whole[0] = '\0';
    if (dir != AT_FDCWD && path[0] != '/') {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        n = readlink(link, whole, 4000);
        if (n < 0)
            n = 0;
        whole[n++] = '/';
    }
    snprintf(whole + n, 4200 - (size_t)n, "%s", path);
}

/* Folders alone are opened so, to be emptied; closedir closes them unseen. */
static int openat_any(int dir, const char *path, int flags, mode_t mode)
{
    char whole[4200], line[4300];
    whole_path(dir, path, whole);
    if (!below(whole))
        return opened((int)syscall(SYS_openat, dir, path, flags | O_LARGEFILE, mode), NULL);
    snprintf(line, sizeof line, "read %s\n", whole);
    CALL(line, opened((int)syscall(SYS_openat, dir, path, flags | O_LARGEFILE, mode), NULL));
}

int openat(int dir, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat_any(dir, path, flags, mode);
}

int openat64(int dir, const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return openat_any(dir, path, flags, mode);
}

DIR *opendir(const char *path)
{
    static DIR *(*real)(const char *);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "opendir");
    int what = below(path) ? turn() : 0;
    if (what > 0) {
        errno = what;
        return NULL;
    }
    if (what == -2)
        raise(SIGKILL);
    return real(path);
}

static int unlink_at(int dir, const char *path, int flags)
{
    char whole[4200], line[4300];
    whole_path(dir, path, whole);
    if (!below(whole))
        return (int)syscall(SYS_unlinkat, dir, path, flags);
    snprintf(line, sizeof line, "remove %s\n", whole);
    CALL(line, (int)syscall(SYS_unlinkat, dir, path, flags));
}

int unlinkat(int dir, const char *path, int flags) { return unlink_at(dir, path, flags); }
int unlink(const char *path) { return unlink_at(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlink_at(AT_FDCWD, path, AT_REMOVEDIR); }

static void *map(void *at, size_t n, int protection, int flags, int file, off_t offset)
{
    if (path_of(file) != NULL) {
        int what = turn();
        if (what > 0) {
            errno = what;
            return MAP_FAILED;
        }
        if (what == -2)
            raise(SIGKILL);
    }
    return (void *)syscall(SYS_mmap, at, n, protection, flags, file, offset);
}

void *mmap(void *at, size_t n, int protection, int flags, int file, off_t offset)
{
    return map(at, n, protection, flags, file, offset);
}

void *mmap64(void *at, size_t n, int protection, int flags, int file, off_t offset)
{
    return map(at, n, protection, flags, file, offset);
}

/* How many calls there were. */
__attribute__((destructor)) static void finish(void)
{
    char line[64];
    snprintf(line, sizeof line, "calls %d\n", n_calls);
    note(line, strlen(line));
}
