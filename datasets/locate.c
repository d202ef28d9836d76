/* locate.c - where a task's files may lie, and what to say when they lie nowhere. */
#include "datasets/question.h"

#include <stdlib.h>
#include <string.h>

/* What stands for a folder in the list of places looked at; folder NULL: nothing to look at. */
typedef struct place {
    const char *folder, *called;
} place;

enum { PLACES = 4 };

static void list_places(const mx_data_request *want, mx_arena *arena, place ret[PLACES])
{
    const char *env = getenv("MIXRUN_DATA");
    const char *cache = mx_arena_text(arena, "%s/data", mx_path_cache(arena));
    const char *sample = mx_arena_text(arena, "%s/datasets/sample", mx_path_home(arena));

    env = env && *env ? env : NULL;
    ret[0] = (place){ want->data_dir, "data_dir" };
    ret[1] = (place){ env, "$MIXRUN_DATA" };
    ret[2] = (place){ cache, "the cache" };
    ret[3] = (place){ sample, "the samples" };
}

/* `base`, or base.gz. */
static const char *plain_or_packed(const char *base, mx_arena *arena)
{
    const char *packed = mx_arena_text(arena, "%s.gz", base);

    return mx_file_exists(base) ? base : mx_file_exists(packed) ? packed : NULL;
}

static mx_code missing(const mx_task *task, const mx_data_request *want, const char *name, bool official,
                       const place where[PLACES], mx_status *st)
{
    const mx_task_file *file = mx_task_find_file(task, name);
    mx_text looked;
    mx_code code;

    mx_text_init(&looked, 1 << 16);
    for (int i = 0; i < PLACES; i++) {
        const char *dot = looked.length ? " \xc2\xb7 " : ""; /* a middle dot */

        if (i == 3 && file && file->urls.count) {
            continue; /* samples have no URL; of the others nobody thinks they come with the program */
        }
        if (where[i].folder) {
            mx_text_print(&looked, "%s%s/%s", dot, where[i].folder, task->name);
        } else {
            mx_text_print(&looked, "%s%s (not set)", dot, where[i].called);
        }
    }
    code = mx_fail(st, MX_E_MISSING, want->at, "task '%s' needs %s, which is %s:\n%s", task->name, name,
                   official ? "in none of" : "not to be found as it stands, nor in", looked.data);
    mx_text_finish(&looked);
    if (official && file && file->urls.count) {
        mx_hint(st, "get it with: mixrun fetch %s", task->name);
    }
    return code;
}

mx_code mx_data_find(const mx_task *task, const mx_data_request *want, bool labels, mx_arena *arena, const char **ret,
                     mx_status *st)
{
    const mx_task_split *split = mx_task_split_of(task, want->split);
    const char *other = labels ? want->labels : want->path;
    const char *name;
    place where[PLACES];

    if (!split && !want->path) {
        return mx_fail(st, MX_E_RECIPE, want->at, "task '%s' has no split '%s' (it has:%s%s%s)", task->name,
                       mx_split_names[want->split], task->splits.train.file ? " train" : "",
                       task->splits.validation.file ? " validation" : "", task->splits.test.file ? " test" : "");
    }
    name = other ? other : labels ? split->labels : split->file;
    if (other && (*ret = plain_or_packed(other, arena))) {
        return MX_OK;
    }
    list_places(want, arena, where);
    for (int i = 0; i < PLACES && name[0] != '/'; i++) {
        if (where[i].folder &&
            (*ret = plain_or_packed(mx_arena_text(arena, "%s/%s/%s", where[i].folder, task->name, name), arena))) {
            return MX_OK;
        }
    }
    return missing(task, want, name, !other, where, st);
}
