/* job.c - see job.h. */
#include "runner/job.h"

#include "reports/summary.h"
#include "runner/environment.h"
#include "runner/evaluate.h"
#include "runner/train.h"

#include <string.h>

/* What the run is, before any weight is loaded. */
static void tell_plan(const mx_plan *p, bool quiet) {
    mx_text head;

    if (quiet) {
        return;
    }
    mx_text_init(&head, 1 << 20);
    mx_text_print(&head, "%s\n%s  recipe %.6s  seed %lld\n", mx_version_text(), p->recipe->name, p->recipe_hash, (long long)p->recipe->seed);
    mx_plan_print(p, false, &head);
    fputs(head.data, stderr);
    mx_text_finish(&head);
}

static mx_code tell_result(mx_session *s, const char *kind, mx_status *st) {
    mx_text out;
    mx_code code;

    mx_text_init(&out, 1 << 22);
    code = mx_summary_scores(s->store, s->row.run_id, &out, st);
    if (code == MX_OK) {
        code = mx_summary_router(s->store, s->row.run_id, &out, st);
    }
    if (code == MX_OK) {
        printf("\n%s", out.data ? out.data : "");
        printf("\n stored in %s (run %lld)", mx_store_path(s->store), (long long)s->row.run_id);
        if (strcmp(kind, "train") == 0) {
            printf("; adapter in %s", s->adapter_folder);
        }
        printf("\n next: mixrun show %lld%s · mixrun ls%s\n", (long long)s->row.run_id, s->db_flag, s->db_flag);
    }
    mx_text_finish(&out);
    return code;
}

static mx_code score_only(mx_session *s, mx_status *st) {
    int64_t rows = 0;

    for (int32_t i = 0; i < s->plan->exams; i++) {
        rows += mx_exam_rows(&s->plan->exam[i].exam);
    }
    mx_progress_begin(&s->progress, s->progress.quiet, rows);
    return mx_evaluate(s, 0, 0, "evaluated", st);
}

/* The method and words a saved adapter was made with: the recipe's own are not asked. */
static mx_code adapter_words(const char *folder, mx_arena *arena, mx_plan_wish *ret, mx_status *st) {
    mx_adapter_file *file;
    void *config;
    mx_code code;

    MX_TRY(mx_adapter_open(folder, arena, &file, st));
    code = mx_adapter_config_read(mx_adapter_config(file), mx_adapter_config_path(file), arena, &ret->method, &config, st);
    ret->config = config;
    mx_adapter_close(file);
    return code;
}

mx_code mx_job_run(const mx_recipe *recipe, const mx_job_wish *wish, mx_arena *arena, mx_status *st) {
    mx_plan_wish plan_wish = { .trains = strcmp(wish->kind, "train") == 0, .memory_limit = (size_t)wish->memory_limit };
    mx_session_wish session_wish = { .kind = wish->kind, .resume = wish->resume, .adapter = wish->adapter,
                                     .once = wish->once, .again = wish->again, .quiet = wish->quiet, .stop = &mx_stop };
    mx_plan *plan = NULL;
    mx_session *session = NULL;
    mx_code code;

    if (!plan_wish.trains && !wish->adapter) { /* the base, whatever the recipe would train */
        plan_wish.method = mx_method_find("base");
        plan_wish.config = mx_method_defaults(plan_wish.method, arena);
    } else if (wish->adapter) {
        MX_TRY(adapter_words(wish->adapter, arena, &plan_wish, st));
    }
    MX_TRY(mx_plan_make(recipe, &plan_wish, arena, &plan, st));
    tell_plan(plan, wish->quiet);
    code = mx_session_open(plan, &session_wish, arena, &session, st);
    if (code == MX_OK) {
        mx_progress_say(&session->progress, "run %lld\n", (long long)session->row.run_id);
        code = plan_wish.trains ? mx_train(session, st) : score_only(session, st);
    }
    if (code == MX_OK) {
        code = tell_result(session, wish->kind, st);
    }
    if (code == MX_E_DIVERGED && session) {
        mx_hint(st, "what was measured until then: mixrun show %lld%s", (long long)session->row.run_id, session->db_flag);
    }
    mx_session_close(session, code, st);
    mx_plan_close(plan);
    return code;
}
