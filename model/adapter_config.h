/* adapter_config.h - a method's words in the JSON that PEFT and MoE-PEFT write beside an adapter.
 *
 * Reading is strict: a key that would change what the adapter computes and that the method does not know is an
 * error, never ignored. */
#ifndef MODEL_ADAPTER_CONFIG_H
#define MODEL_ADAPTER_CONFIG_H

#include "base/arena.h"
#include "base/json.h"
#include "model/site.h"

typedef struct mx_method mx_method;

/* A JSON object being read: every key asked for is remembered, so that what is left over can be told. */
typedef struct mx_import {
    const json_t *object;
    const char *path; /* for errors; must outlive the status */
    json_t *seen;
    mx_status *st; /* the first failure wins; the readers go on quietly after it */
    bool failed;
} mx_import;

void mx_import_begin(mx_import *in, const json_t *object, const char *path, mx_status *st);
/* An absent key (or null) leaves *ret as it is and answers false. Wrong kinds and ranges are MX_E_DATA. */
bool mx_import_integer(mx_import *in, const char *key, int64_t min, int64_t max, int64_t *ret);
bool mx_import_real(mx_import *in, const char *key, double min, double max, double *ret);
bool mx_import_boolean(mx_import *in, const char *key, bool *ret);
const char *mx_import_text(mx_import *in, const char *key); /* NULL when absent */
/* "target_modules": a list of names, or "all-linear". */
bool mx_import_sites(mx_import *in, const char *key, uint64_t *ret);
/* The key was read, and what it says cannot be done. */
void mx_import_refuse(mx_import *in, const char *key, const char *why);
const json_t *mx_import_object(mx_import *in, const char *key); /* NULL when absent */
/* A key nobody asked for that says something (not null, false, empty, or a word about the file alone), or NULL. */
const char *mx_import_left(const mx_import *in);
/* MX_E_DATA when anything failed or is left; frees what `begin` made. */
MX_MUST_CHECK mx_code mx_import_end(mx_import *in);

/* Which method saved this, and its words (resolved), in `arena`. MX_E_DATA. */
MX_MUST_CHECK mx_code mx_adapter_config_read(const json_t *object, const char *path, mx_arena *arena,
                                             const mx_method **ret_method, void **ret_config, mx_status *st);
/* The method whose files look like this object, or NULL. */
const mx_method *mx_adapter_config_method(const json_t *object);
/* A new object; json_decref it. */
json_t *mx_adapter_config_write(const mx_method *method, const void *config, const char *base_name);

#endif
