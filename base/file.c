/* file.c - files whole: mapped, read, hashed, and written so that a crash leaves old or new. */
#include "base/file.h"

#include "base/text.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static mx_mark whole(const char *path) {
    return (mx_mark){ .file = path };
}

static mx_code no(mx_status *st, const char *path, const char *what) {
    return mx_fail(st, MX_E_IO, whole(path), "%s: %s", what, strerror(errno));
}

/* --- mapping --- */

mx_code mx_map_open(const char *path, mx_map *ret, mx_status *st) {
    struct stat info;
    mx_code code = MX_OK;
    void *data;
    int fd;

    *ret = (mx_map){ 0 };
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return no(st, path, "cannot open");
    }
    if (fstat(fd, &info) != 0) {
        code = no(st, path, "cannot look at");
        goto done;
    }
    if (!S_ISREG(info.st_mode)) {
        code = mx_fail(st, MX_E_IO, whole(path), "not a regular file");
        goto done;
    }
    if (info.st_size == 0) {
        ret->data = (const uint8_t *)"";
        goto done;
    }
    data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        code = no(st, path, "cannot map");
        goto done;
    }
    *ret = (mx_map){ .data = data, .size = (size_t)info.st_size };
done:
    close(fd); /* the mapping stays */
    return code;
}

void mx_map_close(mx_map *m) {
    if (m->size) {
        munmap((void *)(uintptr_t)m->data, m->size);
    }
    *m = (mx_map){ 0 };
}

/* --- reading --- */

static mx_code too_large(const char *path, size_t limit, mx_status *st) {
    return mx_fail(st, MX_E_DATA, whole(path), "larger than the %s allowed here",
                   mx_text_bytes(limit));
}

/* Up to limit + 1 bytes, so that the caller sees an excess; works for pipes too. */
static mx_code read_all(int fd, const char *path, size_t limit, char **ret, size_t *ret_size,
                        mx_status *st) {
    size_t size = 0, capacity = 64 * 1024;
    struct stat info;
    char *data, *grown;
    ssize_t n;

    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0) {
        capacity = (size_t)info.st_size < limit ? (size_t)info.st_size + 2 : limit + 2;
    }
    data = malloc(capacity);
    if (!data) {
        return mx_fail(st, MX_E_MEMORY, whole(path), "no memory for %s", mx_text_bytes(capacity));
    }
    for (;;) {
        if (size + 1 >= capacity) {
            capacity = 2 * capacity;
            grown = realloc(data, capacity);
            if (!grown) {
                free(data);
                return mx_fail(st, MX_E_MEMORY, whole(path), "no memory for %s",
                               mx_text_bytes(capacity));
            }
            data = grown;
        }
        n = read(fd, data + size, capacity - 1 - size);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            mx_code code = no(st, path, "cannot read");

            free(data);
            return code;
        }
        size += (size_t)n;
        if (n == 0 || size > limit) {
            break;
        }
    }
    data[size] = '\0';
    *ret = data;
    *ret_size = size;
    return MX_OK;
}

/* All members of a gzip file; whatever follows the last one is a fault, not something to leave out.
 */
static mx_code unpack(const char *path, const char *packed, size_t packed_size, size_t limit,
                      char **ret, size_t *ret_size, mx_status *st) {
    z_stream z = { .next_in = (Bytef *)(uintptr_t)packed };
    size_t size = 0, capacity = 64 * 1024, left = packed_size;
    char *data = malloc(capacity), *grown;
    mx_code code = MX_OK;
    int rc;

    if (!data || inflateInit2(&z, 15 + 16) != Z_OK) { /* 16: gzip's header, no other */
        free(data);
        return mx_fail(st, MX_E_MEMORY, whole(path), "no memory to unpack");
    }
    for (;;) {
        if (size + 1 >= capacity) {
            capacity = 2 * capacity;
            grown = realloc(data, capacity);
            if (!grown) {
                code = mx_fail(st, MX_E_MEMORY, whole(path), "no memory for %s",
                               mx_text_bytes(capacity));
                goto done;
            }
            data = grown;
        }
        if (z.avail_in == 0) {
            z.avail_in = left < UINT_MAX / 2 ? (uInt)left : UINT_MAX / 2;
            left -= z.avail_in;
        }
        z.next_out = (Bytef *)data + size;
        z.avail_out =
            capacity - 1 - size < UINT_MAX / 2 ? (uInt)(capacity - 1 - size) : UINT_MAX / 2;
        size += z.avail_out;
        rc = inflate(&z, Z_NO_FLUSH);
        size -= z.avail_out;
        if (size > limit) {
            code = too_large(path, limit, st);
            goto done;
        }
        if (rc == Z_STREAM_END) {
            if (z.avail_in == 0 && left == 0) {
                break;
            }
            rc = inflateReset(&z);
        }
        if (rc == Z_BUF_ERROR && z.avail_in == 0 && left == 0) {
            code = mx_fail(st, MX_E_DATA, whole(path),
                           "this gzip file ends in the middle: is the download complete?");
            goto done;
        }
        if (rc != Z_OK && rc != Z_BUF_ERROR) {
            code = mx_fail(st, MX_E_DATA, whole(path), "not a sound gzip file: %s",
                           z.msg ? z.msg : "damaged");
            goto done;
        }
    }
    data[size] = '\0';
    *ret = data;
    *ret_size = size;
    data = NULL;
done:
    inflateEnd(&z);
    free(data);
    return code;
}

mx_code mx_file_read(const char *path, size_t limit_bytes, char **ret, size_t *ret_size,
                     mx_status *st) {
    char *packed = NULL;
    size_t packed_size = 0;
    mx_code code;
    int fd;

    *ret = NULL;
    *ret_size = 0;
    limit_bytes = limit_bytes < SIZE_MAX / 4 ? limit_bytes : SIZE_MAX / 4;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return no(st, path, "cannot open");
    }
    code = read_all(fd, path, limit_bytes, &packed, &packed_size, st);
    close(fd);
    if (code) {
        return code;
    }
    if (packed_size > limit_bytes) {
        free(packed);
        return too_large(path, limit_bytes, st);
    }
    if (packed_size >= 2 && memcmp(packed, "\x1f\x8b", 2) == 0) {
        code = unpack(path, packed, packed_size, limit_bytes, ret, ret_size, st);
        free(packed);
        return code;
    }
    *ret = packed;
    *ret_size = packed_size;
    return MX_OK;
}

bool mx_file_exists(const char *path) {
    struct stat info;

    return stat(path, &info) == 0 && !S_ISDIR(info.st_mode);
}

bool mx_folder_exists(const char *path) {
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* --- writing --- */

static bool write_all(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return false;
        }
        data += n;
        size -= (size_t)n;
    }
    return true;
}

/* The new name is on disk only once its folder is. Some file systems do not sync folders; that is
 * no fault. */
static void sync_folder_of(const char *path) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int fd;

    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path + 1) : 1,
             slash ? path : ".");
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        close(fd);
    }
}

mx_code mx_file_write(const char *path, const void *data, size_t size, mx_status *st) {
    char part[PATH_MAX];
    mx_code code = MX_OK;
    int fd;

    if (snprintf(part, sizeof part, "%s.tmp-%d", path, (int)getpid()) >= (int)sizeof part) {
        errno = ENAMETOOLONG;
        return no(st, path, "cannot write");
    }
    fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return no(st, path, "cannot write");
    }
    if (!write_all(fd, data, size) || fsync(fd) != 0) {
        code = no(st, path, "cannot write");
    }
    if (close(fd) != 0 && !code) {
        code = no(st, path, "cannot write");
    }
    if (!code && rename(part, path) != 0) {
        code = no(st, path, "cannot put in place");
    }
    if (code) {
        unlink(part);
        return code;
    }
    sync_folder_of(path);
    return MX_OK;
}

mx_code mx_folder_make(const char *path, mx_status *st) {
    char part[PATH_MAX];
    size_t length = strlen(path);

    if (length == 0 || length >= sizeof part) {
        errno = length ? ENAMETOOLONG : ENOENT;
        return no(st, path, "cannot make this folder");
    }
    for (size_t i = 1; i <= length; i++) {
        if (path[i] == '/' || path[i] == '\0') {
            memcpy(part, path, i);
            part[i] = '\0';
            if (mkdir(part, 0777) != 0 && !(errno == EEXIST && mx_folder_exists(part))) {
                return no(st, path, "cannot make this folder");
            }
        }
    }
    return MX_OK;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where) {
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

mx_code mx_folder_remove(const char *path, mx_status *st) {
    enum { OPEN_FOLDERS = 16 };

    /* FTW_PHYS: a link is removed, never followed. */
    if (nftw(path, remove_one, OPEN_FOLDERS, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT) {
        return no(st, path, "cannot remove");
    }
    return MX_OK;
}

/* --- hashing --- */

struct mx_hasher {
    EVP_MD_CTX *context;
};

/* libcrypto fails here only without memory or with a broken installation: nothing a caller can
 * mend. */
static void must(int ok) {
    if (!ok) {
        fputs("mixrun: fatal: libcrypto cannot compute SHA-256\n", stderr);
        exit(1);
    }
}

static void to_hex(const unsigned char *digest, char ret_hex[MX_SHA256_TEXT]) {
    for (int i = 0; i < 32; i++) {
        snprintf(ret_hex + 2 * i, 3, "%02x", digest[i]);
    }
}

void mx_sha256(const void *data, size_t size, char ret_hex[MX_SHA256_TEXT]) {
    unsigned char digest[32];

    must(EVP_Digest(data, size, digest, NULL, EVP_sha256(), NULL));
    to_hex(digest, ret_hex);
}

mx_code mx_sha256_file(const char *path, char ret_hex[MX_SHA256_TEXT], mx_status *st) {
    enum { PIECE = 256 * 1024 };
    unsigned char digest[32];
    EVP_MD_CTX *context = NULL;
    char *piece = NULL;
    mx_code code = MX_OK;
    ssize_t n;
    int fd;

    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return no(st, path, "cannot open");
    }
    piece = malloc(PIECE);
    context = EVP_MD_CTX_new();
    must(piece && context && EVP_DigestInit_ex(context, EVP_sha256(), NULL));
    while ((n = read(fd, piece, PIECE)) != 0) {
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            code = no(st, path, "cannot read");
            goto done;
        }
        must(EVP_DigestUpdate(context, piece, (size_t)n));
    }
    must(EVP_DigestFinal_ex(context, digest, NULL));
    to_hex(digest, ret_hex);
done:
    EVP_MD_CTX_free(context);
    free(piece);
    close(fd);
    return code;
}

mx_hasher *mx_hasher_open(void) {
    mx_hasher *h = malloc(sizeof *h);

    must(h != NULL);
    h->context = EVP_MD_CTX_new();
    must(h->context && EVP_DigestInit_ex(h->context, EVP_sha256(), NULL));
    return h;
}

void mx_hasher_add(mx_hasher *h, const void *data, size_t size) {
    unsigned char prefix[8];

    for (int i = 0; i < 8; i++) {
        prefix[i] = (unsigned char)((uint64_t)size >> (8 * i));
    }
    must(EVP_DigestUpdate(h->context, prefix, sizeof prefix));
    must(EVP_DigestUpdate(h->context, data, size));
}

void mx_hasher_close(mx_hasher *h, char ret_hex[MX_SHA256_TEXT]) {
    unsigned char digest[32];

    if (!h) {
        return;
    }
    must(EVP_DigestFinal_ex(h->context, digest, NULL));
    if (ret_hex) {
        to_hex(digest, ret_hex);
    }
    EVP_MD_CTX_free(h->context);
    free(h);
}

/* --- where people keep things --- */

const char *mx_path_cache(mx_arena *arena) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (cache && cache[0] == '/') { /* the XDG specification: relative ones are to be ignored */
        return mx_arena_text(arena, "%s/mixrun", cache);
    }
    return mx_arena_text(arena, "%s/.cache/mixrun", home && *home ? home : ".");
}

const char *mx_path_home(mx_arena *arena) {
    const char *named = getenv("MIXRUN_HOME");
    char binary[PATH_MAX];
    ssize_t length;

    if (named && *named) {
        return mx_arena_copy(arena, named, strlen(named));
    }
    length = readlink("/proc/self/exe", binary, sizeof binary - 1);
    while (length > 0) {
        const char *tasks;

        while (length > 0 && binary[length - 1] != '/') {
            length--;
        }
        length -= length > 0; /* the slash itself */
        tasks = mx_arena_text(arena, "%.*s/configs/tasks", (int)length, binary);
        if (length > 0 && mx_folder_exists(tasks)) {
            return mx_arena_copy(arena, binary, (size_t)length);
        }
    }
    return MIXRUN_DATADIR;
}
