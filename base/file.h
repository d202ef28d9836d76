/* file.h - files whole: mapped, read, hashed, and written so that a crash leaves old or new. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/arena.h"
#include "base/status.h"

typedef struct mx_map {
    const uint8_t *data;
    size_t size; /* bytes */
} mx_map;

/* Read-only mapping; an empty file maps to {"" , 0}. MX_E_IO with errno's words. */
MX_MUST_CHECK mx_code mx_map_open(const char *path, mx_map *ret, mx_status *st);
void mx_map_close(mx_map *m); /* zeroed is fine */

/* Whole content with a closing 0, gunzipped when it begins with gzip's magic (zlib).
 * Refuses more than limit_bytes. `*ret` is malloc'ed; free() it. */
MX_MUST_CHECK mx_code mx_file_read(const char *path, size_t limit_bytes, char **ret, size_t *ret_size,
                                   mx_status *st);
/* Writes path.tmp-PID, fsyncs, renames over path, fsyncs the folder. */
MX_MUST_CHECK mx_code mx_file_write(const char *path, const void *data, size_t size, mx_status *st);
/* mkdir -p. */
MX_MUST_CHECK mx_code mx_folder_make(const char *path, mx_status *st);
/* rm -r of a folder we made ourselves; a path that does not exist is fine. */
MX_MUST_CHECK mx_code mx_folder_remove(const char *path, mx_status *st);
bool mx_file_exists(const char *path);
bool mx_folder_exists(const char *path);

enum { MX_SHA256_TEXT = 65 }; /* 64 hex digits and the closing 0 */
void mx_sha256(const void *data, size_t size, char ret_hex[MX_SHA256_TEXT]); /* libcrypto */
MX_MUST_CHECK mx_code mx_sha256_file(const char *path, char ret_hex[MX_SHA256_TEXT], mx_status *st);
/* Incremental, for several pieces: parts are length-prefixed so that "ab","c" differs from "a","bc". */
typedef struct mx_hasher mx_hasher;
mx_hasher *mx_hasher_open(void);
void mx_hasher_add(mx_hasher *h, const void *data, size_t size);
void mx_hasher_close(mx_hasher *h, char ret_hex[MX_SHA256_TEXT]); /* frees it; ret_hex may be NULL */

/* Where people keep things: $XDG_CACHE_HOME/mixrun or ~/.cache/mixrun. Taken from `arena`. */
const char *mx_path_cache(mx_arena *arena) __attribute__((returns_nonnull));
/* The folder that holds configs/ and datasets/: $MIXRUN_HOME, else the source tree the binary was
 * built in when it still runs from its build folder, else the installed data directory. */
const char *mx_path_home(mx_arena *arena) __attribute__((returns_nonnull));

#endif
