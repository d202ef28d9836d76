/* unzip.c - one member out of a zip. */
#include "datasets/download.h"

#include <stdlib.h>
#include <string.h>
#include <zip.h>

static bool ends_in(const char *name, const char *member)
{
    size_t n = strlen(name), m = strlen(member);

    return n >= m && strcmp(name + n - m, member) == 0 && (n == m || name[n - m - 1] == '/');
}

/* Its index, or -1. An exact name goes before names that only end so. */
static mx_code find(zip_t *zip, const char *path, const char *member, zip_int64_t *ret, mx_status *st)
{
    zip_int64_t entries = zip_get_num_entries(zip, 0), found = -1;

    *ret = zip_name_locate(zip, member, 0);
    if (*ret >= 0) {
        return MX_OK;
    }
    for (zip_int64_t i = 0; i < entries; i++) {
        const char *name = zip_get_name(zip, (zip_uint64_t)i, 0);

        if (name && ends_in(name, member)) {
            if (found >= 0) {
                return mx_fail(st, MX_E_DATA, (mx_mark){ .file = path }, "the zip has several members called %s", member);
            }
            found = i;
        }
    }
    *ret = found;
    return found >= 0 ? MX_OK
                      : mx_fail(st, MX_E_DATA, (mx_mark){ .file = path }, "the zip has no member called %s", member);
}

static mx_code extract(zip_t *zip, zip_int64_t index, const char *path, const char *member, size_t limit_bytes, char **ret,
                       size_t *ret_size, mx_status *st)
{
    mx_mark at = { .file = path };
    zip_stat_t info;
    zip_file_t *file = NULL;
    char *data = NULL;
    zip_int64_t got = -1;
    mx_code code = MX_OK;

    if (zip_stat_index(zip, (zip_uint64_t)index, 0, &info) != 0 || !(info.valid & ZIP_STAT_SIZE)) {
        return mx_fail(st, MX_E_DATA, at, "cannot read %s in the zip: %s", member, zip_strerror(zip));
    }
    if (info.size > limit_bytes) {
        return mx_fail(st, MX_E_DATA, at, "%s in the zip has %llu bytes unpacked; at most %zu are taken", member,
                       (unsigned long long)info.size, limit_bytes);
    }
    file = zip_fopen_index(zip, (zip_uint64_t)index, 0);
    data = malloc((size_t)info.size + 1);
    if (!file || !data) {
        code = data ? mx_fail(st, MX_E_DATA, at, "cannot read %s in the zip: %s", member, zip_strerror(zip))
                    : mx_fail(st, MX_E_MEMORY, at, "no memory to unpack %s", member);
        goto done;
    }
    /* one byte more than there should be: only reading past the end makes libzip compare the CRC */
    for (size_t at_byte = 0; at_byte <= info.size; at_byte += (size_t)got) {
        got = zip_fread(file, data + at_byte, info.size + 1 - at_byte);
        if (got <= 0) {
            data[at_byte] = '\0';
            got = got == 0 && at_byte == info.size ? 0 : -1;
            break;
        }
    }
    if (got != 0) {
        code = mx_fail(st, MX_E_DATA, at, "%s in the zip is broken: %s", member, zip_file_strerror(file));
        goto done;
    }
    *ret = data;
    *ret_size = (size_t)info.size;
    data = NULL;
done:
    free(data);
    if (file) {
        zip_fclose(file);
    }
    return code;
}

mx_code mx_unzip(const char *path, const char *member, size_t limit_bytes, char **ret, size_t *ret_size, mx_status *st)
{
    zip_int64_t index;
    zip_t *zip;
    int why;
    mx_code code;

    *ret = NULL;
    zip = zip_open(path, ZIP_RDONLY, &why);
    if (!zip) {
        zip_error_t error;

        zip_error_init_with_code(&error, why);
        code = mx_fail(st, MX_E_DATA, (mx_mark){ .file = path }, "not a whole zip file: %s", zip_error_strerror(&error));
        zip_error_fini(&error);
        return code;
    }
    code = find(zip, path, member, &index, st);
    if (!code) {
        code = extract(zip, index, path, member, limit_bytes, ret, ret_size, st);
    }
    zip_discard(zip);
    return code;
}
