/* queries.c - the named queries inside the program, and what a query's comments say of it. */
#include "reports/embed.h"
#include "reports/query.h"
#include "reports/sql_stamp.h" /* changes with the .sql files, which the compiler does not see */

#include <string.h>

#define MX_QUERIES(X)                                                                                                  \
    X(budget, "budget") X(dead_experts, "dead-experts") X(environment, "environment") X(failures, "failures")          \
    X(losses, "losses") X(right_wrong, "right-wrong") X(router_entropy, "router-entropy") X(router_load, "router-load") \
    X(scores, "scores") X(seeds, "seeds") X(slowest, "slowest") X(sweeps, "sweeps") X(task_divergence, "task-divergence")

#define FILE_OF(symbol, name) MX_EMBED(mx_query_sql_##symbol, "queries/" name ".sql");
MX_QUERIES(FILE_OF)

static const struct {
    const char *name, *sql;
} file[] = {
#define ROW_OF(symbol, name) { name, mx_query_sql_##symbol },
    MX_QUERIES(ROW_OF)
};
enum { FILES = sizeof file / sizeof file[0] };

/* "-- :split (train) train: the whole training": a parameter, or nothing of the kind. */
static bool parameter_of(const char *line, size_t length, mx_arena *arena, mx_parameter *ret) {
    const char *text = mx_arena_copy(arena, line, length), *name, *open, *shut;

    if (strncmp(text, "-- :", 4) != 0) {
        return false;
    }
    name = text + 4;
    open = name + strcspn(name, " ");
    if (open == name || strncmp(open, " (", 2) != 0 || !(shut = strchr(open, ')'))) {
        return false;
    }
    ret->name = mx_arena_copy(arena, name, (size_t)(open - name));
    ret->preset = mx_arena_copy(arena, open + 2, (size_t)(shut - open - 2));
    ret->help = shut + 1 + strspn(shut + 1, " ");
    ret->needed = strcmp(ret->preset, "needed") == 0;
    if (ret->needed || strcmp(ret->preset, "any") == 0) {
        ret->preset = NULL;
    }
    return true;
}

void mx_query_of(const char *name, const char *sql, mx_arena *arena, mx_query *ret) {
    *ret = (mx_query){ .name = name, .summary = "", .sql = sql };
    for (const char *line = sql; strncmp(line, "--", 2) == 0;) {
        size_t length = strcspn(line, "\r\n");
        const char *colon = memchr(line, ':', length);

        if (line == sql && colon && colon > line + 3 && colon[1] == ' ') {
            ret->summary = mx_arena_copy(arena, colon + 2, (size_t)(line + length - colon - 2));
        } else if (ret->parameters < MX_PARAMETERS_MAX && parameter_of(line, length, arena, &ret->parameter[ret->parameters])) {
            ret->parameters++;
        }
        line += length;
        line += strspn(line, "\r\n");
    }
}

int mx_queries(mx_arena *arena, const mx_query **ret) {
    mx_query *all = MX_TAKE(arena, mx_query, FILES);

    for (int i = 0; i < FILES; i++) {
        mx_query_of(file[i].name, file[i].sql, arena, &all[i]);
    }
    *ret = all;
    return FILES;
}

mx_code mx_query_find(const char *name, mx_arena *arena, mx_query *ret, mx_status *st) {
    const char *names[FILES], *near;

    for (int i = 0; i < FILES; i++) {
        names[i] = file[i].name;
        if (strcmp(name, file[i].name) == 0) {
            mx_query_of(file[i].name, file[i].sql, arena, ret);
            return MX_OK;
        }
    }
    near = mx_text_nearest(name, names, FILES);
    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "there is no query '%s'", name);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    } else {
        mx_hint(st, "mixrun query lists them; SQL of your own stands in quotes, or in a file that ends in .sql");
    }
    return MX_E_USAGE;
}
