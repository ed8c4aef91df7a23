/* report RUN... [-o PAGE]: one page on training runs, from their logs. PAGE is report.html unless
 * it is given; any browser shows it, without network. */
#include "example.h"

int main(int argc, char **argv)
{
    const char **logs = allocate((size_t)argc, sizeof *logs);
    const char *page = "report.html";
    size_t n = 0;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-o") == 0 && i + 1 < argc)
            page = argv[++i];
        else if (argv[i][0] != '-')
            logs[n++] = argv[i];
        else
            n = 0, i = argc;
    }
    if (n == 0) {
        fprintf(stderr, "report RUN... [-o PAGE]\n");
        return 1;
    }
    check(mmopt_report(logs, n, page));
    printf("report: %s\n", page);
    free(logs);
    return 0;
}
