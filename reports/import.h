/* import.h - another database's runs into this one, by uuid: nothing lost, nothing twice.
 *
 * A run that is here already is left as it is, unless the other copy is further on (finished, or more steps): then it takes the
 * place of ours, whole, under our number. Runs that a process is at are left alone on both sides. Environments are known by hash,
 * bases by theirs, sweeps by name (the one started later stays). The other file is opened read-only and never changed; one of an
 * older schema is brought forward in a temporary copy beside this database. One transaction: all of it or nothing. */
#ifndef REPORTS_IMPORT_H
#define REPORTS_IMPORT_H

#include "reports/store.h"

typedef struct mx_import {
    int64_t added, replaced;
    int64_t here;  /* already, and as far */
    int64_t alive; /* left alone: a process is at the run, here or there */
    int64_t sweeps;
} mx_import;

/* MX_E_USAGE for this database itself, MX_E_STORE for a file that is broken, not ours, or of a newer schema. */
MX_MUST_CHECK mx_code mx_store_import(mx_store *s, const char *path, mx_import *ret, mx_status *st);

#endif
