/* checkpoint.h - a trainee and whatever else a run must remember, in one file, to the bit.
 *
 * Written beside its place, fsynced, renamed: a kill at any moment leaves the old or the new one. The file names what
 * it belongs to (method, layout, a caller's text); another's is refused. */
#ifndef MODEL_CHECKPOINT_H
#define MODEL_CHECKPOINT_H

#include "model/trainee.h"

/* A caller's bytes (the stream's place, router loads of the open window, ...), told apart by name. */
typedef struct mx_checkpoint_part {
    const char *name;
    void *data;
    size_t size; /* bytes; on loading they must be the same */
} mx_checkpoint_part;

/* `identity` is any text that must be equal when loading (a recipe hash). Waits for the device. */
MX_MUST_CHECK mx_code mx_checkpoint_save(const char *path, const mx_trainee *t, const char *identity,
                                         const mx_checkpoint_part *part, size_t parts, mx_status *st);
/* MX_E_DATA when the file is broken (everything is checked, contents by sha256) or is not this trainee's. */
MX_MUST_CHECK mx_code mx_checkpoint_load(const char *path, mx_trainee *t, const char *identity,
                                         const mx_checkpoint_part *part, size_t parts, mx_status *st);
/* The step a checkpoint was taken at, without loading it. */
MX_MUST_CHECK mx_code mx_checkpoint_step(const char *path, int64_t *ret_step, mx_status *st);

#endif
