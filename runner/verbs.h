/* verbs.h - the verbs by name: one word here, one file cmd_VERB.c. */
#ifndef RUNNER_VERBS_H
#define RUNNER_VERBS_H

#include "runner/command.h"

#define MX_VERBS(X)                                                                                                    \
    X(compare) X(config) X(diff) X(env) X(eval) X(export) X(fetch) X(gc) X(help) X(import) X(ls) X(methods) X(plan) X(query) X(report) X(resume) X(rm) X(run) X(selftest) X(show) X(sweep) X(tasks)   \
    X(validate) X(version)
#define MX_VERB_DECLARE(verb) extern const mx_command mx_verb_##verb;
MX_VERBS(MX_VERB_DECLARE)

#endif
