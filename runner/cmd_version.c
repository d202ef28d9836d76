/* cmd_version.c - mixrun version. */
#include "runner/command.h"
#include "runner/environment.h"
#include "runner/verbs.h"

static mx_code run(const mx_call *call, mx_status *st) {
    (void)call;
    (void)st;
    printf("%s\n", mx_version_text());
    return MX_OK;
}

const mx_command mx_verb_version = {
    .name = "version", .usage = "version", .summary = "the version and its commit", .help = "Prints the version and the commit it was built from.",
    .least = 0, .most = 0, .run = run,
};
