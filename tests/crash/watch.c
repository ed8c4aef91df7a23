/* Preloaded between a program and the system: notes, a line each, in the file that WATCH names, every
 * socket, every look-up of a host, and every file or folder that is made, written to, renamed or
 * removed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void note(const char *what, const char *path)
{
    char line[8500];
    const char *name = getenv("WATCH");
    if (name == NULL || path == NULL)
        return;
    int n = snprintf(line, sizeof line, "%s %s\n", what, path);
    int file = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND, 0600);
    syscall(SYS_write, file, line, n);
    syscall(SYS_close, file);
}

#define REAL(name) dlsym(RTLD_NEXT, #name)

static int open_at(int dir, const char *path, int flags, mode_t mode)
{
    if ((flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC))
        note("write", path);
    return (int)syscall(SYS_openat, dir, path, flags, mode);
}

#define OPEN(name, first, dir) \
    int name(first const char *path, int flags, ...) \
    { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return open_at(dir, path, flags, mode); \
    }

#define NOTHING
#define DIR_FIRST int at,
OPEN(open, NOTHING, AT_FDCWD)
OPEN(open64, NOTHING, AT_FDCWD)
OPEN(openat, DIR_FIRST, at)
OPEN(openat64, DIR_FIRST, at)

int creat(const char *path, mode_t mode)
{
    return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) \
    { \
        FILE *(*real)(const char *, const char *); \
        *(void **)&real = REAL(name); \
        if (strpbrk(mode, "wa+") != NULL) \
            note("write", path); \
        return real(path, mode); \
    }

FOPEN(fopen)
FOPEN(fopen64)

int mkdir(const char *path, mode_t mode)
{
    note("mkdir", path);
    return (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
    note("mkdir", path);
    return (int)syscall(SYS_mkdirat, dir, path, mode);
}

int rename(const char *from, const char *to)
{
    note("rename", from);
    note("rename", to);
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path)
{
    note("remove", path);
    return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int socket(int domain, int type, int protocol)
{
    note("socket", "");
    return (int)syscall(SYS_socket, domain, type, protocol);
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **found)
{
    int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    *(void **)&real = REAL(getaddrinfo);
    note("host", host == NULL ? "" : host);
    return real(host, service, hints, found);
}
