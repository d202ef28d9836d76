/* sweep_plan.c - see sweep_plan.h. */
#include "runner/sweep_plan.h"

#include "base/file.h"
#include "runner/progress.h"
#include "runner/sweep_run.h"
#include "runner/sweep_time.h"

#include <math.h>
#include <string.h>

/* What the database answers for a variant, over its seeds. */
typedef struct standing {
    int done, running, stopped, failed, ahead;
    mx_text done_runs, running_runs; /* "3, 7" */
    mx_run_row stopped_run, failed_run; /* the newest of them */
    double left; /* runs still to be made, parts of runs counted as parts */
} standing;

static mx_progress line;

static void measuring(int32_t done, int32_t all) {
    if (line.live) {
        fprintf(stderr, "\r\033[Kmeasuring variant %d of %d", done < all ? done + 1 : all, all);
        fflush(stderr);
    }
}

static void timing(const char *method) {
    if (line.live) {
        fprintf(stderr, "\r\033[Ktiming a step of %s, of which the database knows nothing", method);
        fflush(stderr);
    }
}

/* -------------------------------------------------------------------- words */

static const char *duration(double seconds, mx_arena *arena) {
    int64_t minutes = (int64_t)(seconds / 60 + 0.5);

    if (seconds < 1) {
        return "under 1 s";
    }
    if (seconds < 60) {
        return mx_arena_text(arena, "%.0f s", seconds);
    }
    return minutes < 60 ? mx_arena_text(arena, "%lld min", (long long)minutes)
                        : mx_arena_text(arena, "%lld h %02lld min", (long long)(minutes / 60), (long long)(minutes % 60));
}

static const char *million(double n, mx_arena *arena) {
    return n >= 1e9 ? mx_arena_text(arena, "%.2f G", n / 1e9) : n >= 1e6 ? mx_arena_text(arena, "%.1f M", n / 1e6)
                                                               : mx_arena_text(arena, "%.1f k", n / 1e3);
}

static bool at_most(const mx_sweep_variant *v) {
    return v->recipe->method->slots_vary && v->recipe->method->slots_vary(v->recipe->adapter.config);
}

static const char *matched(const mx_sweep *w, const mx_sweep_variant *v, mx_arena *arena) {
    const mx_method *m = v->recipe->method;
    const int64_t *rank = mx_method_word(m, v->recipe->adapter.config, "lora_r");

    return v->match ? mx_arena_text(arena, "r%lld for %s of %s, %+.1f %%", rank ? (long long)*rank : 0,
                                    v->match == MX_MATCH_PARAMS ? "params" : "FLOPs", w->variant[v->match_to].name, 100 * v->match_off)
                    : "";
}

static void add_run(mx_text *list, int64_t run_id) {
    mx_text_print(list, "%s%lld", list->length ? ", " : "", (long long)run_id);
}

/* -------------------------------------------------------------------- what is there */

static void count_member(standing *s, mx_member_state state, const mx_run_row *run) {
    double left = run->steps > 0 ? 1 - (double)run->step / (double)run->steps : 1;

    switch (state) {
    case MX_MEMBER_FINISHED:
        s->done++;
        add_run(&s->done_runs, run->run_id);
        break;
    case MX_MEMBER_ALIVE:
        s->running++;
        s->left += left;
        add_run(&s->running_runs, run->run_id);
        break;
    case MX_MEMBER_RESUMABLE:
        s->left += left;
        if (strcmp(run->state, "failed") == 0) {
            s->failed++;
            s->failed_run = *run;
        } else {
            s->stopped++;
            s->stopped_run = *run;
        }
        break;
    case MX_MEMBER_NONE:
        s->ahead++;
        s->left++;
        break;
    }
}

static mx_code look(const mx_sweep *w, mx_store *store, mx_arena *arena, standing *ret, mx_status *st) {
    for (int32_t i = 0; i < w->variants; i++) {
        mx_text_init(&ret[i].done_runs, 1 << 20);
        mx_text_init(&ret[i].running_runs, 1 << 20);
    }
    for (int64_t m = 0; m < w->members; m++) {
        mx_member_state state = MX_MEMBER_NONE;
        mx_run_row run = { 0 };

        if (w->member[m].same_as) {
            continue;
        }
        if (store) {
            MX_TRY(mx_member_look(store, w, &w->member[m], arena, &state, &run, st));
        }
        count_member(&ret[w->member[m].variant], state, &run);
    }
    return MX_OK;
}

/* "done (run 12)", "1 of 3 done (run 3), 2 to do", "stopped at 31/46 (run 9)". */
static const char *state_of(const standing *s, mx_arena *arena) {
    int all = s->done + s->running + s->stopped + s->failed + s->ahead;
    mx_text out;
    const char *text;

    mx_text_init(&out, 1 << 16);
#define PART(count, ...)                                                                                               \
    if (count) {                                                                                                       \
        mx_text_print(&out, "%s", out.length ? ", " : "");                                                             \
        if ((count) < all) {                                                                                           \
            mx_text_print(&out, "%d ", count);                                                                         \
        }                                                                                                              \
        mx_text_print(&out, __VA_ARGS__);                                                                              \
    }
    PART(s->done, "done (run%s %s)", s->done > 1 ? "s" : "", s->done_runs.data)
    PART(s->running, "running (run%s %s)", s->running > 1 ? "s" : "", s->running_runs.data)
    PART(s->stopped, "stopped at %lld/%lld (run %lld)", (long long)s->stopped_run.step, (long long)s->stopped_run.steps,
         (long long)s->stopped_run.run_id)
    PART(s->failed, "failed: %.60s (run %lld)", s->failed_run.reason, (long long)s->failed_run.run_id)
    PART(s->ahead, "to do")
#undef PART
    text = mx_arena_copy(arena, out.data ? out.data : "", out.length);
    mx_text_finish(&out);
    return text;
}

/* -------------------------------------------------------------------- the table */

static const mx_sweep_variant *double_of(const mx_sweep *w, int32_t variant) {
    for (int64_t m = 0; m < w->members; m++) {
        if (w->member[m].variant == variant) {
            return w->member[m].same_as;
        }
    }
    return NULL;
}

/* What people read: "26,311,680", "0.99 GiB"; what programs read: the figures themselves, in bytes and seconds. */
static void figures_for_people(const mx_sweep *w, const mx_sweep_variant *v, const mx_sweep_time *time, mx_table *t, mx_arena *arena) {
    mx_table_cell(t, "%s", mx_text_count(v->trained));
    mx_table_cell(t, "%s", mx_text_count(v->trained_router));
    mx_table_cell(t, "%.1f %%", 100.0 * (double)v->trained / (double)v->base_values);
    mx_table_cell(t, "%s", matched(w, v, arena));
    mx_table_cell(t, "%s%s", at_most(v) ? "at most " : "", million(v->flops, arena));
    mx_table_cell(t, "%s", mx_text_count(v->steps));
    mx_table_cell(t, "%s", mx_text_count(v->tokens));
    mx_table_cell(t, "%s", mx_text_bytes(v->device_memory ? v->device_memory : v->memory));
    mx_table_cell(t, "%s", time ? duration(time->seconds, arena) : "");
}

static void figures_for_programs(const mx_sweep *w, const mx_sweep_variant *v, const mx_sweep_time *time, mx_table *t, mx_arena *arena) {
    mx_table_cell(t, "%lld", (long long)v->trained);
    mx_table_cell(t, "%lld", (long long)v->trained_router);
    mx_table_cell(t, "%.6f", (double)v->trained / (double)v->base_values);
    mx_table_cell(t, "%s", matched(w, v, arena));
    mx_table_cell(t, "%.0f", v->flops);
    mx_table_cell(t, "%lld", (long long)v->steps);
    mx_table_cell(t, "%lld", (long long)v->tokens);
    mx_table_cell(t, "%zu", v->device_memory ? v->device_memory : v->memory);
    if (time) {
        mx_table_cell(t, "%.1f", time->seconds);
    } else {
        mx_table_cell(t, "%s", "");
    }
}

static void fill(const mx_sweep *w, const standing *s, const mx_sweep_time *time, bool people, mx_table *t, mx_arena *arena) {
    static const char *const head[] = { "variant", "trained", "of them router", "of base", "match", "FLOPs/token", "steps", "tokens",
                                        "memory", "time est.", "state" };
    enum { COLUMNS = sizeof head / sizeof head[0] };

    mx_table_init(t, COLUMNS);
    for (int c = 0; c < COLUMNS; c++) {
        mx_table_cell(t, "%s", head[c]);
        t->right[c] = c > 0 && c != 4 && c < COLUMNS - 1;
    }
    for (int32_t i = 0; i < w->variants; i++) {
        const mx_sweep_variant *v = &w->variant[i], *twin = double_of(w, i);

        mx_table_cell(t, "%s", v->name);
        (people ? figures_for_people : figures_for_programs)(w, v, time[i].source == MX_TIME_NONE || twin ? NULL : &time[i], t, arena);
        mx_table_cell(t, "%s%s", v->memory_limit_hit ? "does not fit" : twin ? "the same run as " : state_of(&s[i], arena),
                      !v->memory_limit_hit && twin ? twin->name : "");
    }
}

/* Where the estimates come from. */
static void tell_sources(const mx_sweep *w, const mx_sweep_time *time, const char *db, mx_text *out) {
    static const char *const words[] = { [MX_TIME_SAME_RECIPE] = "runs of the same recipe", [MX_TIME_SAME_METHOD] =
                                         "runs of the same method", [MX_TIME_STEP] = "a step of the method, just timed" };
    int count[4] = { 0 }, kinds = 0;

    for (int32_t i = 0; i < w->variants; i++) {
        kinds += time[i].source != MX_TIME_NONE && count[time[i].source]++ == 0;
    }
    for (int k = MX_TIME_SAME_RECIPE, n = 0; k <= MX_TIME_STEP; k++) {
        if (count[k]) {
            mx_text_print(out, "%s%s%s%s", n++ ? "; " : " times are estimated from ", words[k], k == MX_TIME_STEP ? "" : " in ",
                          k == MX_TIME_STEP ? "" : db);
            if (kinds > 1) {
                mx_text_print(out, " (%d variant%s)", count[k], count[k] == 1 ? "" : "s");
            }
        }
    }
    mx_text_print(out, "%s", kinds ? "\n" : "");
}

static void tell_total(const mx_sweep *w, const standing *s, const mx_sweep_time *time, mx_text *out, mx_arena *arena) {
    int64_t doubles = 0, done = 0, running = 0, ahead = 0;
    double seconds = 0;

    for (int64_t m = 0; m < w->members; m++) {
        doubles += w->member[m].same_as != NULL;
    }
    for (int32_t i = 0; i < w->variants; i++) {
        done += s[i].done;
        running += s[i].running;
        ahead += s[i].stopped + s[i].failed + s[i].ahead;
        seconds += s[i].left * time[i].seconds;
    }
    mx_text_print(out, " %d variant%s x %d seed%s = %lld run%s", w->variants, w->variants == 1 ? "" : "s", w->seeds,
                  w->seeds == 1 ? "" : "s", (long long)w->members, w->members == 1 ? "" : "s");
    if (doubles) {
        mx_text_print(out, ", %lld of them the same as others", (long long)doubles);
    }
    mx_text_print(out, ", %lld done", (long long)done);
    if (running) {
        mx_text_print(out, ", %lld running", (long long)running);
    }
    mx_text_print(out, ", %lld to do", (long long)ahead);
    if (ahead + running && seconds > 0) {
        mx_text_print(out, ", about %s on this machine", duration(seconds, arena));
    }
    mx_text_print(out, "\n");
}

/* Of a GPU, how many of the largest run go side by side. */
static void tell_room(const mx_sweep *w, mx_text *out) {
    const mx_sweep_variant *largest = NULL;

    for (int32_t i = 0; i < w->variants; i++) {
        const mx_sweep_variant *v = &w->variant[i];

        if (v->device_memory && !v->memory_limit_hit && (!largest || v->device_memory > largest->device_memory)) {
            largest = v;
        }
    }
    if (largest) {
        size_t room = largest->device_free / largest->device_memory;

        mx_text_print(out, " memory is the GPU's, of which %s are free: %zu run%s of the largest at once (--jobs)\n",
                      mx_text_bytes(largest->device_free), room > 0 ? room : 1, room > 1 ? "s" : "");
    }
}

static mx_code refuse(const mx_sweep *w, mx_problems *problems, mx_status *st) {
    mx_code code = MX_OK;

    for (int32_t i = 0; i < w->variants; i++) {
        const mx_sweep_variant *v = &w->variant[i];

        if (v->memory_limit_hit) {
            mx_problem(problems, v->at, v->refusal.hint, "variant '%s' does not fit: %s", v->name, v->refusal.text);
            code = mx_fail(st, MX_E_MEMORY, v->at, "variant '%s' does not fit", v->name);
        }
    }
    return code;
}

static mx_code print_plan(const mx_sweep *w, mx_store *store, const char *db, mx_format format, mx_arena *arena, mx_status *st) {
    standing *s = MX_TAKE(arena, standing, w->variants + 1);
    mx_sweep_time *time = MX_TAKE(arena, mx_sweep_time, w->variants + 1);
    bool bounds = false;
    mx_table table;
    mx_text out;
    mx_code code;

    code = look(w, store, arena, s, st);
    if (code == MX_OK) {
        code = mx_sweep_times(w, store, arena, time, timing, st);
    }
    mx_progress_clear(&line);
    if (code == MX_OK) {
        mx_text_init(&out, 64 << 20);
        fill(w, s, time, format != MX_FORMAT_JSON && format != MX_FORMAT_CSV, &table, arena);
        mx_table_write(&table, format, &out);
        for (int32_t i = 0; i < w->variants; i++) {
            bounds |= at_most(&w->variant[i]);
        }
        if (format == MX_FORMAT_TABLE) {
            mx_text_print(&out, "%s", bounds ? " at most: with top_p a token uses as many experts as it takes, known only afterwards\n" : "");
            tell_room(w, &out);
            tell_sources(w, time, db, &out);
            tell_total(w, s, time, &out, arena);
        }
        fputs(out.data, stdout);
        mx_table_finish(&table);
        mx_text_finish(&out);
    }
    for (int32_t i = 0; i < w->variants; i++) {
        mx_text_finish(&s[i].done_runs);
        mx_text_finish(&s[i].running_runs);
    }
    return code;
}

mx_code mx_sweep_plan(const mx_call *call, size_t memory_limit, const char *db, mx_format format, mx_status *st) {
    mx_store *store = NULL;
    mx_sweep *w;
    mx_code code;

    MX_TRY(mx_sweep_read(call, &w, st));
    mx_progress_begin(&line, false, 0);
    code = mx_sweep_measure(w, memory_limit, false, call->arena, measuring, st);
    db = db ? db : w->db;
    if (code == MX_OK && mx_file_exists(db)) {
        code = mx_store_open(db, false, &store, st);
    }
    if (code == MX_OK) {
        code = print_plan(w, store, db, format, call->arena, st);
    }
    mx_progress_clear(&line);
    mx_store_close(store);
    return code ? code : refuse(w, call->problems, st);
}
