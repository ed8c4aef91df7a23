/* Looks after a directory of checkpoints:
 *
 *   checkpoint list DIR        a line of JSON for each, the newest first
 *   checkpoint verify DIR      the same; the exit status is 1 if any is damaged
 *   checkpoint prune DIR N     removes damaged ones and all but the newest N whole ones
 */
#include "example.h"

int main(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    char *json, *end = NULL;
    size_t n_damaged = 0;

    if (strcmp(command, "prune") == 0 && argc == 4) {
        unsigned long long keep = strtoull(argv[3], &end, 10);
        if (argv[3][0] == '-' || *end != '\0' || end == argv[3])
            die("'%s' is no number of checkpoints", argv[3]);
        check(mmopt_checkpoint_prune(argv[2], (size_t)keep, &json));
        printf("removed: %s\n", json);
    } else if ((strcmp(command, "list") == 0 || strcmp(command, "verify") == 0) && argc == 3) {
        check(mmopt_checkpoint_list(argv[2], &n_damaged, &json));
        printf("%s\n", json);
    } else {
        die("usage: checkpoint list DIR | verify DIR | prune DIR N");
    }
    mmopt_string_free(json);
    return strcmp(command, "verify") == 0 && n_damaged > 0;
}
