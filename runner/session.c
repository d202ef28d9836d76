/* session.c - see session.h. */
#include "runner/session.h"

#include "runner/environment.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A name for a folder: what would trouble a shell or a path becomes '-'. */
static const char *folder_word(const char *name, mx_arena *arena) {
    char *word = mx_arena_copy(arena, name, strlen(name));

    for (char *c = word; *c; c++) {
        bool fine = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("-_.", *c);

        if (!fine) {
            *c = '-';
        }
    }
    return word;
}

static void name_files(mx_session *s) {
    s->folder = s->row.folder;
    s->adapter_folder = mx_arena_text(s->arena, "%s/adapter", s->folder);
    s->checkpoint_path = mx_arena_text(s->arena, "%s/checkpoint.bin", s->folder);
}

/* Rows that describe the run: words, data files. */
static mx_code store_particulars(mx_session *s, mx_status *st) {
    const mx_plan *p = s->plan;
    mx_text words;
    mx_code code = MX_OK;

    mx_text_init(&words, 1 << 20);
    mx_recipe_results(p->recipe, &words);
    for (char *line = words.data, *next; code == MX_OK && line && *line; line = next) {
        char *equals = strchr(line, '=');

        next = strchrnul(line, '\n');
        next += *next ? (*next = '\0', 1) : 0;
        if (equals) {
            *equals = '\0';
            code = mx_store_word(s->store, s->row.run_id, line, equals + 1, st);
        }
    }
    mx_text_finish(&words);
    for (int32_t i = 0; code == MX_OK && i < p->tasks; i++) {
        for (int f = 0; p->task[i].item && f < p->task[i].train.files && code == MX_OK; f++) {
            const mx_data_file *file = &p->task[i].train.file[f];

            code = mx_store_data_file(s->store, s->row.run_id, p->task[i].name, "train", file->path, file->sha256,
                                      p->task[i].train.count, p->task[i].encoded.truncated, st);
        }
    }
    for (int32_t i = 0; code == MX_OK && i < p->exams; i++) {
        const mx_plan_exam *e = &p->exam[i];

        for (int f = 0; f < e->questions.files && code == MX_OK; f++) {
            code = mx_store_data_file(s->store, s->row.run_id, p->task[e->task].name, mx_split_names[e->split],
                                      e->questions.file[f].path, e->questions.file[f].sha256, e->questions.count,
                                      e->exam.encoded.truncated, st);
        }
    }
    return code;
}

/* Is somebody else at it, or done with it? Asked inside the transaction that answers by adding the run. */
static mx_code refuse_double(mx_session *s, const mx_session_wish *wish, mx_status *st) {
    mx_run_row other;
    bool found;

    if (!wish->once) {
        return MX_OK;
    }
    MX_TRY(mx_store_run_alive(s->store, &s->row, s->arena, &found, &other, st));
    if (found) {
        return mx_session_may_resume(&other, st);
    }
    MX_TRY(mx_store_run_like(s->store, &s->row, s->arena, &found, &other, st));
    return found && !wish->again && strcmp(other.state, "finished") == 0 ? mx_session_may_resume(&other, st) : MX_OK;
}

/* output_dir/7-name. A folder of that name may be another database's run: then 7-name-1a2b3c4d, by the uuid. */
static mx_code claim_folder(mx_session *s, mx_status *st) {
    const char *word = folder_word(s->row.name, s->arena);

    MX_TRY(mx_folder_make(s->plan->recipe->output_dir, st));
    s->row.folder = mx_arena_text(s->arena, "%s/%lld-%s", s->plan->recipe->output_dir, (long long)s->row.run_id, word);
    if (mkdir(s->row.folder, 0777) != 0 && errno == EEXIST) {
        s->row.folder = mx_arena_text(s->arena, "%s-%.8s", s->row.folder, s->uuid);
        MX_TRY(mx_folder_make(s->row.folder, st));
    }
    name_files(s); /* whatever else hindered it is told when the folder is used */
    return mx_store_run_folder(s->store, s->row.run_id, s->folder, st);
}

static mx_code add_rows(mx_session *s, const mx_session_wish *wish, mx_status *st) {
    MX_TRY(mx_store_begin(s->store, st));
    MX_TRY(refuse_double(s, wish, st));
    MX_TRY(mx_store_run_add(s->store, &s->row, s->uuid, st));
    MX_TRY(claim_folder(s, st));
    MX_TRY(store_particulars(s, st));
    return mx_store_commit(s->store, st);
}

static mx_code add_run(mx_session *s, const mx_session_wish *wish, mx_status *st) {
    const mx_plan *p = s->plan;
    mx_text recipe, environment;
    mx_code code;

    mx_text_init(&recipe, 1 << 20);
    mx_text_init(&environment, 1 << 16);
    mx_recipe_print(p->recipe, &recipe);
    mx_environment_json(p->backend, &environment);
    s->row = (mx_run_row){
        .name = p->recipe->name, .kind = wish->kind, .method = p->method->name, .recipe_hash = p->recipe_hash,
        .recipe = mx_arena_copy(s->arena, recipe.data, recipe.length), .seed = p->recipe->seed, .base_hash = p->base_hash,
        .base_name = p->base.name, .base_description = mx_base_file_description(p->base_file),
        .base_weights = mx_base_file_values(p->base_file), .tasks_hash = p->tasks_hash, .data_hash = p->data_hash,
        .environment = mx_arena_copy(s->arena, environment.data, environment.length), .trained = p->layout->trained,
        .trained_router = p->layout->trained_router, .flops = (int64_t)p->flops, .steps = p->totals.steps, .limited = p->limited, .folder = "",
    };
    mx_text_finish(&recipe);
    mx_text_finish(&environment);
    code = add_rows(s, wish, st);
    if (code) {
        mx_store_rollback(s->store);
        s->row.run_id = 0; /* it never was */
    }
    return code;
}

mx_code mx_session_may_resume(const mx_run_row *row, mx_status *st) {
    if (strcmp(row->state, "finished") == 0) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, "run %lld is finished; there is nothing to go on with", (long long)row->run_id);
        mx_hint(st, "mixrun show %lld", (long long)row->run_id);
        return MX_E_USAGE;
    }
    if (strcmp(row->state, "running") == 0 && !mx_run_is_dead(row)) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "run %lld is running on %s as process %lld", (long long)row->run_id, row->host,
                       (long long)row->pid);
    }
    return MX_OK;
}

/* The run as it is now is looked at inside the transaction that takes it: of two who want it, one gets it. */
static mx_code claim_run(mx_session *s, const mx_session_wish *wish, mx_run_row *ret, mx_status *st) {
    MX_TRY(mx_store_begin(s->store, st));
    MX_TRY(mx_store_run_find(s->store, wish->resume->uuid, s->arena, ret, st));
    MX_TRY(mx_session_may_resume(ret, st));
    if (wish->once) {
        mx_run_row other;
        bool found;

        MX_TRY(mx_store_run_alive(s->store, ret, s->arena, &found, &other, st));
        if (found) {
            return mx_session_may_resume(&other, st);
        }
    }
    MX_TRY(mx_store_run_state(s->store, ret->run_id, "running", "", st));
    return mx_store_commit(s->store, st);
}

/* A stored run goes on only as what it was: same recipe, seed, base, tasks, data and kind of device. */
static mx_code take_up(mx_session *s, const mx_session_wish *wish, mx_status *st) {
    const mx_plan *p = s->plan;
    const mx_run_row *row = wish->resume;
    const struct {
        const char *what, *then, *now;
    } same[] = {
        { "the recipe's meaning", row->recipe_hash, p->recipe_hash },
        { "the base's file", row->base_hash, p->base_hash },
        { "a task's definition", row->tasks_hash, p->tasks_hash },
        { "a data file", row->data_hash, p->data_hash },
    };
    const char *backend = mx_environment_text(row->environment, "backend", s->arena);
    mx_run_row now;

    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
        if (strcmp(same[i].then, same[i].now) != 0) {
            return mx_fail(st, MX_E_DATA, MX_NOWHERE, "run %lld cannot go on: %s changed since it began (sha256 %.12s then, %.12s now)",
                           (long long)row->run_id, same[i].what, same[i].then, same[i].now);
        }
    }
    if (!mx_environment_on(row->environment, p->device)) {
        mx_fail(st, MX_E_DEVICE, mx_recipe_place(p->recipe, "device"), "run %lld cannot go on here: it was computed on %s (%s), this is %s",
                (long long)row->run_id, mx_environment_text(row->environment, "device", s->arena), backend, p->backend->name);
        mx_hint(st, "one run is computed on one kind of device; a new run may be on another");
        return MX_E_DEVICE;
    }
    if (row->step > 0 && !mx_folder_exists(row->folder)) { /* else all would begin anew, and its rows be dropped */
        mx_fail(st, MX_E_MISSING, MX_NOWHERE, "run %lld keeps its checkpoint in %s, and there is no such folder",
                (long long)row->run_id, row->folder);
        mx_hint(st, "start mixrun in the folder where the run was started");
        return MX_E_MISSING;
    }
    MX_TRY(claim_run(s, wish, &now, st));
    if (backend[0] && strcmp(backend, p->backend->description) != 0) {
        mx_progress_say(&s->progress, "run %lld was begun on %s; what is computed here may differ from that in the last bits\n",
                        (long long)row->run_id, backend);
    }
    s->row = now; /* not before: a run that is refused stays as it is */
    name_files(s);
    s->resumed = true;
    return MX_OK;
}

static mx_code make_folder(mx_session *s, mx_status *st) {
    MX_TRY(mx_folder_make(s->folder, st));
    MX_TRY(mx_adapter_check_folder(s->adapter_folder, st)); /* now, not after hours of training */
    return mx_file_write(mx_arena_text(s->arena, "%s/recipe.yaml", s->folder), s->row.recipe, strlen(s->row.recipe), st);
}

static mx_code load_weights(mx_session *s, const mx_session_wish *wish, mx_status *st) {
    const mx_plan *p = s->plan;
    mx_adapter_file *file = NULL;
    mx_code code;

    MX_TRY(mx_model_open(p->backend, p->base_file, p->layout, &p->limits, &s->model, st));
    MX_TRY(mx_trainee_open(p->backend, p->layout, mx_model_frozen(s->model), p->trains, &s->trainee, st));
    if (p->trains) {
        const mx_optimizer_options *o = &p->recipe->train.optimizer;

        s->trainee->optimizer = (mx_optimizer){ .beta1 = o->adam_beta1, .beta2 = o->adam_beta2, .eps = o->adam_epsilon,
                                                .weight_decay = o->weight_decay, .max_grad_norm = o->max_grad_norm };
        s->trainee->schedule = p->schedule;
    }
    mx_model_init_load(s->model, &s->window);
    if (!wish->adapter) {
        return mx_trainee_start(s->trainee, (uint64_t)p->recipe->seed, st);
    }
    MX_TRY(mx_adapter_open(wish->adapter, s->arena, &file, st));
    code = mx_adapter_import(&s->trainee->adapter, file, st);
    mx_adapter_close(file);
    return code;
}

mx_code mx_session_open(const mx_plan *plan, const mx_session_wish *wish, mx_arena *arena, mx_session **ret, mx_status *st) {
    mx_session *s = MX_TAKE(arena, mx_session, 1);
    mx_code code;

    *ret = NULL;
    s->plan = plan;
    s->arena = arena;
    s->stop = wish->stop;
    s->db_flag = strcmp(plan->recipe->db, "mixrun.db") == 0 ? "" : mx_arena_text(arena, " --db %s", plan->recipe->db);
    mx_arena_init(&s->step, (size_t)4 << 30);
    mx_progress_begin(&s->progress, wish->quiet, 0);
    s->alive = mx_seconds();
    if (!wish->quiet) {
        mx_warn_network(plan->recipe->db);
    }
    if ((code = mx_store_open(plan->recipe->db, true, &s->store, st)) ||
        (code = wish->resume ? take_up(s, wish, st) : add_run(s, wish, st)) || (code = make_folder(s, st)) ||
        (code = load_weights(s, wish, st))) {
        mx_session_close(s, code, st);
        return code;
    }
    *ret = s;
    return MX_OK;
}

void mx_session_alive(mx_session *s) {
    const double every = 60; /* seconds; dead is who says nothing for ten minutes (mx_run_is_dead) */

    if (mx_seconds() - s->alive < every) {
        return;
    }
    s->alive = mx_seconds();
    if (mx_store_begin(s->store, NULL) == MX_OK &&
        (mx_store_alive(s->store, s->row.run_id, NULL) != MX_OK || mx_store_commit(s->store, NULL) != MX_OK)) {
        mx_store_rollback(s->store);
    }
}

void mx_session_close(mx_session *s, mx_code outcome, const mx_status *st) {
    if (!s) {
        return;
    }
    mx_progress_clear(&s->progress);
    if (s->store) {
        mx_store_rollback(s->store);
    }
    if (s->store && s->row.run_id > 0) {
        const char *state = outcome == MX_OK ? "finished" : outcome == MX_E_STOPPED ? "stopped" : "failed";

        if (mx_store_begin(s->store, NULL) == MX_OK &&
            mx_store_run_state(s->store, s->row.run_id, state, outcome && st ? st->text : "", NULL) == MX_OK) {
            if (mx_store_commit(s->store, NULL) == MX_OK && outcome == MX_OK) {
                unlink(s->checkpoint_path); /* the run is whole: there is nothing to go back to */
            }
        }
    }
    mx_trainee_close(s->trainee);
    mx_model_close(s->model);
    mx_router_load_finish(&s->window);
    mx_store_close(s->store);
    mx_arena_finish(&s->step);
}
