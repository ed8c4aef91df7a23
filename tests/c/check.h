/* What the C tests share: counted checks, and expectations on errors. */
#ifndef MMOPT_TEST_CHECK_H
#define MMOPT_TEST_CHECK_H

#include <mmopt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_failed = 0;
static int n_checked = 0;

/* A condition that must hold; the test goes on either way. */
#define CHECK(condition)                                                      \
    do {                                                                      \
        n_checked++;                                                          \
        if (!(condition)) {                                                   \
            n_failed++;                                                       \
            printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);    \
        }                                                                     \
    } while (0)

/* A call that must succeed. */
#define OK(call) check_code((call), MMOPT_CODE_OK, NULL, #call, __LINE__)

/* A call that must fail with a code, and a message that holds a text. */
#define FAILS(call, code, part) check_code((call), (code), (part), #call, __LINE__)

/* A call that must refuse a NULL. */
#define REFUSES_NULL(call) FAILS(call, MMOPT_CODE_INVALID_ARGUMENT, "NULL")

static inline void check_code(mmopt_error *error, uint32_t code, const char *part,
                              const char *call, int line)
{
    const char *message = mmopt_error_message(error);
    n_checked++;
    if (mmopt_error_code(error) != code || (part != NULL && strstr(message, part) == NULL)) {
        n_failed++;
        printf("line %d: %s: code %u, not %u; message '%s', not '%s'\n", line, call,
               (unsigned)mmopt_error_code(error), (unsigned)code, message,
               part == NULL ? "" : part);
    }
    mmopt_error_free(error);
}

/* The path of a file in the folder that the test was given. Use one at a time. */
static inline const char *in_folder(const char *folder, const char *name)
{
    static char path[8192];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        exit(2);
    return path;
}

static inline void write_file(const char *path, const char *text, size_t n)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL || fwrite(text, 1, n, file) != n || fclose(file) != 0) {
        printf("cannot write %s\n", path);
        exit(2);
    }
}

static inline int finish(void)
{
    printf("%d checks, %d failed\n", n_checked, n_failed);
    return n_failed == 0 && n_checked > 0 ? 0 : 1;
}

#endif
