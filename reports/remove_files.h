/* remove_files.h - what remove.c and gc.c share. */
#ifndef REPORTS_REMOVE_FILES_H
#define REPORTS_REMOVE_FILES_H

#include "reports/remove.h"

#include <sys/stat.h>

/* Where the folders of all runs lie, however they are spelled; those that are not there from here are left out. */
typedef struct mx_run_folder {
    dev_t device;
    ino_t inode;
    int64_t run_id;
} mx_run_folder;
typedef struct mx_run_folders {
    mx_run_folder *at; /* by device, inode and run */
    int64_t count;
} mx_run_folders;
MX_MUST_CHECK mx_code mx_run_folders_read(mx_store *s, mx_arena *arena, mx_run_folders *ret, mx_status *st);
/* Is it the folder of a run, other than `but`? 0: of any. */
bool mx_run_folders_hold(const mx_run_folders *f, const struct stat *info, int64_t but);

/* As remove.h's mx_own_files_find, for one who asks for many. */
void mx_own_files_look(const mx_run_folders *all, const mx_run_row *run, mx_arena *arena, mx_own_files *ret);
/* A file mixrun makes in a run's folder, or the unfinished part of one. */
bool mx_is_own_name(const char *name);
/* Adds what lies in a folder: our files, and the first that is not. */
void mx_own_files_list(const char *path, mx_own_files *ret, mx_arena *arena);
/* Removes them, then the folders that are empty. Goes on after a failure, which is told. */
MX_MUST_CHECK mx_code mx_own_files_remove(const mx_own_files *f, mx_status *st);

#endif
