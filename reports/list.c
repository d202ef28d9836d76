/* list.c - summary.h's runs, one a line. */
#include "reports/summary.h"

#include "reports/sql.h"
#include "reports/sweeps.h"

#include <string.h>

/* A score tells runs apart in a list: the mean over tasks of each one's last evaluation, of one split (validation before test before held-out
 * training questions) and of its last protocol and metric in the alphabet (loglikelihood, acc_norm). It reads a run's few rows of
 * evaluations and scores, never its predictions; asking run by run costs half of grouping all. The five things it tells are packed in
 * one text, "LIMITED MEAN PROTOCOL METRIC SPLIT", as a subquery gives one value. */
#define LISTED                                                                                                         \
    "WITH listed AS MATERIALIZED (SELECT r.*,"                                                                         \
    "   (SELECT printf('%d %.17g %s %s %s', MAX(e.limited), AVG(c.value), e.protocol, c.metric, e.split)"             \
    "    FROM evaluations e JOIN scores c USING (evaluation_id) WHERE e.run_id = r.run_id"                             \
    "    AND e.step = (SELECT MAX(l.step) FROM evaluations l WHERE l.run_id = e.run_id AND l.task = e.task"            \
    "                  AND l.split = e.split AND l.protocol = e.protocol)"                                             \
    "    GROUP BY e.split, e.protocol, c.metric"                                                                       \
    "    ORDER BY e.split = 'held_out', e.split DESC, e.protocol DESC, c.metric DESC LIMIT 1) AS score"                \
    "   FROM runs r WHERE (?1 IS NULL OR r.method = ?1) AND (?2 IS NULL OR r.name GLOB ?2)"                            \
    "   AND (?3 IS NULL OR EXISTS (SELECT 1 FROM evaluations e WHERE e.run_id = r.run_id AND e.task = ?3))"            \
    "   AND (?4 IS NULL OR r.run_id IN (SELECT run_id FROM sweep_runs WHERE sweep = ?4)))"                             \
    " SELECT r.run_id, r.uuid, r.name, r.method, r.seed, r.state, r.step, r.steps, r.began_ms, r.ended_ms, r.host, r.pid," \
    " r.heartbeat_ms, r.limited, r.kind, r.trained, r.score FROM listed r"                                             \
    " WHERE ?5 IS NULL OR MAX(r.limited, COALESCE(CAST(SUBSTR(r.score, 1, 1) AS INTEGER), 0)) = ?5"

const char *const mx_list_keys[] = { "run", "name", "method", "seed", "state", "steps", "score", "began", "took", "trained", NULL };
static const char *const order[] = { "r.run_id", "r.name", "r.method", "r.seed", "r.state", "r.step", "CAST(SUBSTR(r.score, 3) AS REAL)", "r.began_ms",
                                     "COALESCE(r.ended_ms, r.heartbeat_ms) - r.began_ms", "r.trained" };

const char *mx_summary_state(const mx_run_row *run) {
    return mx_run_is_dead(run) ? "dead" : run->state;
}

static mx_code one_of(const char *word, const char *const *words, const char *flag, int *ret, mx_status *st) {
    mx_text list;
    const char *near;
    size_t count = 0;

    for (; words[count]; count++) {
        if (strcmp(word, words[count]) == 0) {
            *ret = (int)count;
            return MX_OK;
        }
    }
    mx_text_init(&list, 4096);
    for (size_t i = 0; i < count; i++) {
        mx_text_print(&list, "%s%s", i ? ", " : "", words[i]);
    }
    near = mx_text_nearest(word, words, count);
    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--%s '%.100s' is none of: %s", flag, word, list.data);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    }
    mx_text_finish(&list);
    return MX_E_USAGE;
}

static const char *span(int64_t ms) {
    static char ring[4][32];
    static int turn;
    char *t = ring[turn++ & 3];
    long long s = (long long)ms / 1000;

    if (s < 120) {
        snprintf(t, 32, "%lld s", s);
    } else if (s < 7200) {
        snprintf(t, 32, "%lld min", s / 60);
    } else if (s < 172800) {
        snprintf(t, 32, "%lld h", s / 3600);
    } else {
        snprintf(t, 32, "%lld days", s / 86400);
    }
    return t;
}

typedef struct listed {
    mx_run_row run;
    const char *state;
    char protocol[32], metric[32], split[32];
    double score;
    bool scored, limited;
} listed;

static void read_listed(sqlite3_stmt *q, listed *r) {
    int limited = 0;

    r->run = (mx_run_row){ .run_id = sqlite3_column_int64(q, 0), .uuid = mx_sql_text(q, 1), .name = mx_sql_text(q, 2),
                           .method = mx_sql_text(q, 3), .seed = sqlite3_column_int64(q, 4), .state = mx_sql_text(q, 5),
                           .step = sqlite3_column_int64(q, 6), .steps = sqlite3_column_int64(q, 7),
                           .began_ms = sqlite3_column_int64(q, 8), .ended_ms = sqlite3_column_int64(q, 9), .host = mx_sql_text(q, 10),
                           .pid = sqlite3_column_int64(q, 11), .heartbeat_ms = sqlite3_column_int64(q, 12), .kind = mx_sql_text(q, 14),
                           .trained = sqlite3_column_int64(q, 15) };
    r->state = mx_summary_state(&r->run);
    r->scored = sscanf(mx_sql_text(q, 16), "%d %lf %31s %31s %31s", &limited, &r->score, r->protocol, r->metric, r->split) == 5;
    r->limited = sqlite3_column_int(q, 13) || limited;
}

static void json_line(const listed *r, mx_text *out) {
    const struct {
        const char *word, *value;
    } texts[] = { { "name", r->run.name }, { "uuid", r->run.uuid }, { "kind", r->run.kind }, { "method", r->run.method }, { "state", r->state } };

    mx_text_print(out, "{\"run_id\":%lld", (long long)r->run.run_id);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        mx_text_print(out, ",\"%s\":", texts[i].word);
        mx_json_quote(out, texts[i].value);
    }
    mx_text_print(out, ",\"seed\":%lld,\"step\":%lld,\"steps\":%lld,\"trained\":%lld,\"limited\":%s,\"began_ms\":%lld", (long long)r->run.seed,
                  (long long)r->run.step, (long long)r->run.steps, (long long)r->run.trained, r->limited ? "true" : "false",
                  (long long)r->run.began_ms);
    if (r->run.ended_ms) {
        mx_text_print(out, ",\"ended_ms\":%lld", (long long)r->run.ended_ms);
    }
    if (r->scored) {
        mx_text_print(out, ",\"protocol\":\"%s\",\"metric\":\"%s\",\"split\":\"%s\",\"score\":%.9g", r->protocol, r->metric, r->split, r->score);
    }
    mx_text_print(out, "}\n");
}

static void head(mx_table *t) {
    static const char *const words[] = { "run", "name", "method", "seed", "state", "steps", "age", "score", "mean over tasks of", "remark" };

    mx_table_init(t, sizeof words / sizeof words[0]);
    t->right[0] = t->right[3] = t->right[5] = t->right[6] = t->right[7] = true;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        mx_table_cell(t, "%s", words[i]);
    }
}

static void line(const listed *r, mx_table *t) {
    mx_table_cell(t, "%lld", (long long)r->run.run_id);
    mx_table_cell(t, "%s", r->run.name);
    mx_table_cell(t, "%s", strcmp(r->run.kind, "eval") == 0 ? "(evaluation)" : r->run.method);
    mx_table_cell(t, "%lld", (long long)r->run.seed);
    mx_table_cell(t, "%s", r->state);
    mx_table_cell(t, "%lld/%lld", (long long)r->run.step, (long long)r->run.steps);
    mx_table_cell(t, "%s", span(mx_now_ms() - r->run.began_ms));
    if (r->scored) {
        mx_table_cell(t, "%.1f", 100 * r->score);
        mx_table_cell(t, "%s, %s, %s", r->metric, r->protocol, r->split);
    } else {
        mx_table_cell(t, "%s", "");
        mx_table_cell(t, "%s", "");
    }
    mx_table_cell(t, "%s", r->limited ? "limited: not a result" : "");
}

static mx_code check(mx_store *s, const mx_list_filter *f, mx_arena *arena, int *ret_key, bool *ret_down, mx_status *st) {
    static const char *const states[] = { "running", "finished", "failed", "stopped", "dead", NULL };
    mx_member_row *member;
    int64_t members;
    int state;

    *ret_key = 0;
    *ret_down = !f->sort || f->sort[0] == '-';
    if (f->state) {
        MX_TRY(one_of(f->state, states, "state", &state, st));
    }
    if (f->sort) {
        MX_TRY(one_of(f->sort + *ret_down, mx_list_keys, "sort", ret_key, st));
    }
    if (f->sweep) {
        MX_TRY(mx_store_sweep_find(s, f->sweep, arena, NULL, &member, &members, st));
    }
    return MX_OK;
}

mx_code mx_summary_list(mx_store *s, const mx_list_filter *f, mx_arena *arena, mx_text *out, mx_status *st) {
    sqlite3_stmt *q = NULL;
    mx_table t;
    int64_t shown = 0;
    bool down;
    int key;
    listed r;
    mx_code code = MX_OK;

    MX_TRY(check(s, f, arena, &key, &down, st));
    MX_TRY(mx_sql_prepare(s, &q, st, mx_arena_text(arena, "%s ORDER BY %s %s NULLS LAST, r.run_id DESC", LISTED, order[key], down ? "DESC" : "ASC"),
                          "tttt", f->method, f->name, f->task, f->sweep));
    if (f->limited != MX_LIMITED_ANY) {
        sqlite3_bind_int(q, 5, f->limited == MX_LIMITED_ONLY);
    }
    head(&t);
    while ((f->limit == 0 || shown < f->limit) && mx_sql_row(s, q, &code, st)) {
        read_listed(q, &r);
        if (f->state && strcmp(f->state, r.state) != 0) {
            continue;
        }
        if (f->lines) {
            json_line(&r, out);
        } else {
            line(&r, &t);
        }
        shown++;
    }
    sqlite3_finalize(q);
    if (code == MX_OK && !f->lines && f->format == MX_FORMAT_TABLE && shown == 0) {
        mx_text_print(out, " no runs\n");
    } else if (code == MX_OK && !f->lines) {
        mx_table_write(&t, f->format, out);
    }
    mx_table_finish(&t);
    return code;
}
