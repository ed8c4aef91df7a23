/* The page on training runs: written from logs, refused for what is none. */
#include "check.h"

static const char LOG[] =
    "{\"type\": \"run\", \"step\": 0, \"models\": [{\"name\": \"<a>\"}]}\n"
    "{\"type\": \"step\", \"step\": 1, \"models\": [{\"name\": \"<a>\", \"loss\": 0.5}]}\n"
    "{\"type\": \"step\", \"step\": 2, \"models\": [{\"name\": \"<a>\", \"loss\": 0.25}]}\n";

static char *copy(const char *text)
{
    char *all = malloc(strlen(text) + 1);
    if (all == NULL)
        exit(2);
    return strcpy(all, text);
}

static int file_has(const char *path, const char *part)
{
    static char text[1 << 18];
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return 0;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    return strstr(text, part) != NULL;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    char *log = copy(in_folder(argv[1], "run.jsonl"));
    char *page = copy(in_folder(argv[1], "page.html"));
    char *bad = copy(in_folder(argv[1], "bad.jsonl"));
    const char *logs[2];

    write_file(log, LOG, sizeof LOG - 1);
    write_file(bad, "{}\nloss 0.5\n{}\n", 15);
    logs[0] = logs[1] = log;
    FAILS(mmopt_report(NULL, 0, page), MMOPT_CODE_INVALID_ARGUMENT, "one run");
    FAILS(mmopt_report(logs, 2, page), MMOPT_CODE_INVALID_ARGUMENT, "named twice");
    FAILS(mmopt_report(logs, 1, log), MMOPT_CODE_INVALID_ARGUMENT, "name another file");
    FAILS(mmopt_report(logs, 1, in_folder(argv[1], "no/page")), MMOPT_CODE_IO, "no/page");
    REFUSES_NULL(mmopt_report(NULL, 1, page));
    REFUSES_NULL(mmopt_report(logs, 1, NULL));
    logs[1] = NULL;
    REFUSES_NULL(mmopt_report(logs, 2, page));
    logs[1] = bad;
    FAILS(mmopt_report(logs, 2, page), MMOPT_CODE_INVALID_DATA, "bad.jsonl, line 2: not JSON");
    logs[1] = page;
    FAILS(mmopt_report(logs, 2, bad), MMOPT_CODE_NOT_FOUND, "page.html");
    CHECK(!file_has(page, ""));

    OK(mmopt_report(logs, 1, page));
    CHECK(file_has(page, "<title>Training report: run</title>"));
    CHECK(file_has(page, "&lt;a&gt;") && !file_has(page, "<a>"));
    free(log);
    free(page);
    free(bad);
    return finish();
}
