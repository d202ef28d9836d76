/* replay.c - a fuzz target as a plain test: its seeds whole, cut short at every byte, and damaged.
 *
 * The damage is the same on every machine: draws of mx_rng under the seed's name. */
#include "base/file.h"
#include "base/rng.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { DAMAGED = 1000, CUT_MAX = 2048 /* longer seeds are cut at so many places */ };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy of exactly its size, so that AddressSanitizer sees the first byte past it. */
static void run(const char *bytes, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);

    if (!copy) {
        abort();
    }
    memcpy(copy, bytes, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

/* One to four changes: a bit, a byte, or four bytes of a number that is too large. */
static void damage(mx_rng *rng, char *bytes, size_t size) {
    for (uint64_t i = 1 + mx_rng_below(rng, 4); i > 0; i--) {
        size_t at = mx_rng_below(rng, size);

        switch (mx_rng_below(rng, 3)) {
        case 0:
            bytes[at] ^= (char)(1 << mx_rng_below(rng, 8));
            break;
        case 1:
            bytes[at] = (char)mx_rng_below(rng, 256);
            break;
        default:
            memset(bytes + at, mx_rng_below(rng, 2) ? 0xFF : 0x7F, size - at < 4 ? size - at : 4);
        }
    }
}

static void replay(const char *folder, const char *name) {
    char path[4096], *seed, *copy;
    mx_status st = { 0 };
    size_t size;
    mx_rng rng;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (mx_file_read(path, (size_t)1 << 24, &seed, &size, &st)) {
        mx_status_print(&st, stderr);
        exit(1);
    }
    run(seed, size);
    for (size_t step = size / CUT_MAX + 1, cut = 0; cut < size; cut += step) {
        run(seed, cut);
    }
    mx_rng_init(&rng, 1, name);
    copy = malloc(size + 1);
    for (int i = 0; copy && size && i < DAMAGED; i++) {
        memcpy(copy, seed, size);
        damage(&rng, copy, size);
        run(copy, size);
    }
    free(copy);
    free(seed);
}

int main(int count, char **folders) {
    int seeds = 0;

    for (int i = 1; i < count; i++) {
        struct dirent **entry;
        int entries = scandir(folders[i], &entry, NULL, alphasort);

        for (int j = 0; j < entries; j++) {
            if (entry[j]->d_name[0] != '.') {
                replay(folders[i], entry[j]->d_name);
                seeds++;
            }
            free(entry[j]);
        }
        if (entries >= 0) {
            free(entry);
        }
    }
    printf("%d seeds, each whole, cut short and %d times damaged\n", seeds, DAMAGED);
    return seeds ? 0 : 1; /* a test without seeds has tested nothing */
}
