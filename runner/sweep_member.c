/* sweep_member.c - sweep_run.h's one member: what it is called, how the store answers it, and running it in this process. */
#include "runner/sweep_run.h"

#include "base/text.h"
#include "runner/environment.h"
#include "runner/job.h"

#include <ctype.h>
#include <string.h>

const char *mx_member_title(const mx_sweep *w, const mx_sweep_member *m, mx_arena *arena) {
    const char *name = w->variant[m->variant].name;

    return mx_arena_text(arena, "%s%sseed %lld", name, name[0] ? " " : "", (long long)m->seed);
}

void mx_member_digits(const mx_sweep *w, const mx_sweep_member *m, char ret[MX_MEMBER_DIGITS]) {
    const mx_sweep_variant *v = &w->variant[m->variant];
    mx_hasher *h = mx_hasher_open();
    char hex[MX_SHA256_TEXT], seed[32];

    snprintf(seed, sizeof seed, "%lld", (long long)m->seed);
    mx_hasher_add(h, v->recipe_hash, strlen(v->recipe_hash));
    mx_hasher_add(h, seed, strlen(seed));
    mx_hasher_add(h, v->base_hash, strlen(v->base_hash));
    mx_hasher_add(h, v->tasks_hash, strlen(v->tasks_hash));
    mx_hasher_add(h, v->data_hash, strlen(v->data_hash));
    mx_hasher_close(h, hex);
    snprintf(ret, MX_MEMBER_DIGITS, "%.8s", hex);
}

/* Its checkpoint may be on another machine, or gone, or of another kind of device: then it begins anew. */
static bool can_go_on(const mx_run_row *run, const mx_sweep_variant *v) {
    return mx_environment_on(run->environment, v->device) && (run->step == 0 || mx_folder_exists(run->folder));
}

mx_code mx_member_look(mx_store *s, const mx_sweep *w, const mx_sweep_member *m, mx_arena *arena, mx_member_state *ret,
                       mx_run_row *ret_run, mx_status *st) {
    const mx_sweep_variant *v = &w->variant[m->variant];
    const mx_run_row like = { .recipe_hash = v->recipe_hash, .seed = m->seed, .base_hash = v->base_hash,
                              .tasks_hash = v->tasks_hash, .data_hash = v->data_hash };
    bool found;

    *ret = MX_MEMBER_NONE;
    MX_TRY(mx_store_run_alive(s, &like, arena, &found, ret_run, st));
    if (found) {
        *ret = MX_MEMBER_ALIVE;
        return MX_OK;
    }
    MX_TRY(mx_store_run_like(s, &like, arena, &found, ret_run, st));
    if (found) {
        *ret = strcmp(ret_run->state, "finished") == 0 ? MX_MEMBER_FINISHED
               : can_go_on(ret_run, v)                 ? MX_MEMBER_RESUMABLE
                                                       : MX_MEMBER_NONE;
    }
    return MX_OK;
}

/* "4" or "4:1a2b3c4d": the member, and whether it is still what it was. */
static mx_code find_member(const mx_sweep *w, const char *which, const mx_sweep_member **ret, mx_status *st) {
    char number[24] = "", digits[MX_MEMBER_DIGITS];
    const char *colon = strchrnul(which, ':');
    int64_t n = 0;
    size_t length;

    if (colon - which < (ptrdiff_t)sizeof number) {
        memcpy(number, which, (size_t)(colon - which));
    }
    if (!isdigit((unsigned char)number[0]) || !mx_text_to_int64(number, &n) || n < 1 || n > w->members) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--member %s: %s has members 1 to %lld", which, w->path, (long long)w->members);
    }
    *ret = &w->member[n - 1];
    if (!*colon) {
        return MX_OK;
    }
    mx_member_digits(w, *ret, digits);
    length = strlen(colon + 1);
    if (length < 6 || length > strlen(digits)) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--member %s: six to eight digits follow the colon", which);
    }
    if (strncmp(colon + 1, digits, length) != 0) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "member %lld of %s is another one now (%s, not %s): the sweep, its recipe, a task or the data changed,"
                " or precision: auto is another one here", (long long)n, w->path, digits, colon + 1);
        mx_hint(st, "write the commands anew: mixrun sweep %s --emit commands", w->path);
        return MX_E_USAGE;
    }
    return MX_OK;
}

mx_code mx_sweep_run_member(const mx_sweep_wish *wish, const char *which, mx_arena *arena, mx_status *st) {
    mx_job_wish job = { .kind = "train", .once = true, .again = wish->rerun, .memory_limit = wish->memory_limit,
                        .quiet = wish->quiet };
    const mx_sweep_member *m = NULL;
    mx_member_state state;
    mx_run_row run;
    mx_recipe *recipe;
    mx_store *store;
    mx_code code;

    MX_TRY(find_member(wish->sweep, which, &m, st));
    MX_TRY(mx_store_open(wish->db, true, &store, st));
    code = mx_member_look(store, wish->sweep, m, arena, &state, &run, st);
    mx_store_close(store);
    MX_TRY(code);
    if (state == MX_MEMBER_FINISHED && !wish->rerun) {
        printf(" run %lld in %s is %s: finished\n", (long long)run.run_id, wish->db, mx_member_title(wish->sweep, m, arena));
        return MX_OK;
    }
    if (state == MX_MEMBER_RESUMABLE && !wish->rerun) {
        job.resume = &run;
    }
    recipe = mx_sweep_recipe(wish->sweep, m, arena);
    recipe->db = wish->db;
    recipe->threads = recipe->threads ? recipe->threads : wish->threads;
    return mx_job_run(recipe, &job, arena, st); /* which refuses a run that is alive, at the moment it would begin */
}

/* Does the record ask for the same runs already? */
static bool same_members(const mx_member_row *a, int64_t n, const mx_member_row *b, int64_t m) {
    for (int64_t i = 0; i < n && n == m; i++) {
        if (strcmp(a[i].variant, b[i].variant) != 0 || a[i].seed != b[i].seed || strcmp(a[i].recipe_hash, b[i].recipe_hash) != 0) {
            return false;
        }
    }
    return n == m;
}

mx_code mx_sweep_put(const mx_sweep *w, mx_store *store, bool quiet, mx_arena *arena, mx_status *st) {
    const mx_member_row *row = mx_sweep_rows(w, arena);
    const mx_sweep_row sweep = mx_sweep_row_of(w);
    mx_member_row *before;
    int64_t n = 0;
    mx_status none = { 0 };
    mx_code code = mx_store_sweep_find(store, w->name, arena, NULL, &before, &n, &none);

    if (code && code != MX_E_USAGE) {
        *st = none;
        return code;
    }
    if (code == MX_OK && !quiet && !same_members(before, n, row, w->members)) {
        fprintf(stderr, "sweep '%s' asked for other runs before (%lld, now %lld): compare and report speak of these from now on;"
                " name=OTHER keeps both\n", w->name, (long long)n, (long long)w->members);
    }
    return mx_store_sweep(store, &sweep, row, w->members, st);
}
