/* remove_files.h - what remove.c and gc.c share. */
#ifndef REPORTS_REMOVE_FILES_H
#define REPORTS_REMOVE_FILES_H

#include "reports/remove.h"

/* A file mixrun makes in a run's folder, or the unfinished part of one. */
bool mx_is_own_name(const char *name);
/* Adds what lies in a folder: our files, and the first that is not. */
void mx_own_files_list(const char *path, mx_own_files *ret, mx_arena *arena);
/* Removes them, then the folders that are empty. Goes on after a failure, which is told. */
MX_MUST_CHECK mx_code mx_own_files_remove(const mx_own_files *f, mx_status *st);

#endif
