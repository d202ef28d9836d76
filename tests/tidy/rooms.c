/* rooms.c - the rooms stand on floors, and includes point down.
 *
 * Reads every #include "room/..." in the tree and fails with file:line on one that the table below does not grant. The
 * table is the architecture; README.md draws it. */
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *may_include;
} rooms[] = {
    { "base", " " },
    { "kernels", " base " },
    { "model", " base kernels " },
    { "datasets", " base kernels model " },
    { "eval", " base kernels model datasets " },
    { "reports", " base " },
    { "runner", " base kernels model datasets eval reports " },
    { "tests", " base kernels model datasets eval reports runner " },
};
enum { ROOMS = sizeof rooms / sizeof rooms[0] };

static int files, failures;

/* The room a path begins with, or -1. */
static int room_of(const char *path) {
    for (int i = 0; i < ROOMS; i++) {
        size_t n = strlen(rooms[i].name);

        if (strncmp(path, rooms[i].name, n) == 0 && path[n] == '/') {
            return i;
        }
    }
    return -1;
}

static bool granted(int from, int to) {
    char word[32];

    snprintf(word, sizeof word, " %s ", rooms[to].name);
    return from == to || strstr(rooms[from].may_include, word);
}

static void check_file(const char *root, const char *path) {
    int from = room_of(path);
    char line[1024], full[1024], target[256];
    FILE *f;

    snprintf(full, sizeof full, "%s/%s", root, path);
    f = fopen(full, "r");
    if (!f) {
        return;
    }
    files++;
    for (int n = 1; fgets(line, sizeof line, f); n++) {
        if (sscanf(line, " #include \"%255[^\"]\"", target) == 1) {
            int to = room_of(target);

            if (to < 0) {
                printf("%s:%d: \"%s\" is not named from the root\n", path, n, target);
                failures++;
            } else if (!granted(from, to)) {
                printf("%s:%d: %s may not include %s\n", path, n, rooms[from].name, target);
                failures++;
            }
        }
    }
    fclose(f);
}

static bool is_source(const char *name) {
    const char *dot = strrchr(name, '.');

    return dot && (strcmp(dot, ".c") == 0 || strcmp(dot, ".h") == 0 || strcmp(dot, ".cu") == 0 || strcmp(dot, ".cc") == 0);
}

static void walk(const char *root, const char *folder) {
    char path[512];
    const struct dirent *entry;
    DIR *d;

    snprintf(path, sizeof path, "%s/%s", root, folder);
    d = opendir(path);
    if (!d) {
        if (is_source(folder)) {
            check_file(root, folder);
        }
        return;
    }
    while ((entry = readdir(d))) {
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof path, "%.250s/%.250s", folder, entry->d_name);
            walk(root, path);
        }
    }
    closedir(d);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: rooms SOURCE_ROOT\n");
        return EXIT_FAILURE;
    }
    for (int i = 0; i < ROOMS; i++) {
        walk(argv[1], rooms[i].name);
    }
    printf("%d files, %d includes point the wrong way\n", files, failures);
    return failures || files < 50 ? EXIT_FAILURE : EXIT_SUCCESS;
}
