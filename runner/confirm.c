/* confirm.c - see confirm.h. */
#include "runner/confirm.h"

#include <string.h>
#include <unistd.h>

mx_code mx_confirm(const char *question, bool yes, bool *ret, mx_status *st) {
    char line[64] = "";

    *ret = yes;
    if (yes) {
        return MX_OK;
    }
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "this asks before it removes anything, and there is no terminal to ask at");
        mx_hint(st, "--yes removes without a question");
        return MX_E_USAGE;
    }
    fprintf(stderr, "%s [y/N] ", question);
    fflush(stderr);
    if (!fgets(line, sizeof line, stdin)) {
        line[0] = '\0';
    }
    line[strcspn(line, "\n")] = '\0';
    *ret = strcasecmp(line, "y") == 0 || strcasecmp(line, "yes") == 0;
    if (!*ret) {
        fprintf(stderr, "nothing was removed\n");
    }
    return MX_OK;
}
