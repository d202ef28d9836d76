/* environment.h - what this program and this machine are, for `env`, the first line of a run, and the store. */
#ifndef RUNNER_ENVIRONMENT_H
#define RUNNER_ENVIRONMENT_H

#include "base/arena.h"
#include "base/text.h"
#include "kernels/backend.h"

#define MX_VERSION "0.1.0"

/* "mixrun 0.1.0 (a1b2c3d)"; without the commit where the build had none. */
const char *mx_version_text(void);
/* JSON object, keys sorted, nothing that changes from run to run on the same machine. */
void mx_environment_json(const mx_backend *b, mx_text *out);
/* Was a stored environment's run computed on this kind of device ("cpu", "cuda", "cuda:1")? Its values then go on here, but for
 * their last bits. */
bool mx_environment_on(const char *json, const char *device);
/* A text of a stored environment, in the arena; "" when it has none of that name. */
const char *mx_environment_text(const char *json, const char *name, mx_arena *arena);
/* For people: version, processor, threads, memory, what `device: auto` is, CUDA, libraries, folders. */
void mx_environment_print(const mx_backend *b, mx_text *out);
/* Says on stderr when a database that will be written is on a network file system, with the way out; else nothing. */
void mx_warn_network(const char *db);

#endif
