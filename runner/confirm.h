/* confirm.h - a question before something is taken away. */
#ifndef RUNNER_CONFIRM_H
#define RUNNER_CONFIRM_H

#include "base/status.h"

/* True after --yes (`yes`), or when the person at the terminal says so. Without a terminal it is refused with MX_E_USAGE: a script
 * says --yes. */
MX_MUST_CHECK mx_code mx_confirm(const char *question, bool yes, bool *ret, mx_status *st);

#endif
