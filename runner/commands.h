/* commands.h - what main needs of the verbs, beyond command.h. */
#ifndef RUNNER_COMMANDS_H
#define RUNNER_COMMANDS_H

#include "runner/command.h"

/* Takes argv[first..] apart for call->command. MX_E_USAGE. */
MX_MUST_CHECK mx_code mx_call_read(mx_call *call, int argc, char **argv, int first, mx_status *st);
void mx_command_help(const mx_command *c, FILE *out);
/* The page of `mixrun help`. */
void mx_commands_overview(FILE *out);

#endif
