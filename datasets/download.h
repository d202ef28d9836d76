/* download.h - one URL to one file, taken up again where it stopped. Internal to the room. */
#ifndef DATASETS_DOWNLOAD_H
#define DATASETS_DOWNLOAD_H

#include "datasets/fetch.h"

/* Appends to <path>.part and renames it to <path> when the server has sent everything. A .part left by an earlier try is
 * continued only if the server's ETag or Last-Modified (kept in <path>.tag) says that the file is still the same; else it
 * begins anew. `called` is the file's name for progress. MX_E_IO in words; MX_E_STOPPED when o->stop says so. */
MX_MUST_CHECK mx_code mx_download(const char *url, const char *path, const char *called, const mx_fetch_options *o,
                                  mx_status *st);

/* The member of a zip whose name is `member` or ends in "/<member>", checked by its CRC. *ret is malloc'ed, with a closing
 * 0. MX_E_DATA when the zip is broken, or has no such member or several. */
MX_MUST_CHECK mx_code mx_unzip(const char *path, const char *member, size_t limit_bytes, char **ret, size_t *ret_size,
                               mx_status *st);

#endif
