/* database.c PROGRAM [FOLDER] - how long questions take on a database of years: 1,000 runs, 10 million router rows, 5 million predictions.
 *
 * Makes the database in FOLDER (default: a new one under TMPDIR, removed afterwards; one that is there already is used again), then times
 * the program's verbs on it as whole processes: median of 5, after one to warm up. The first 21 runs answer a sweep of 7 variants with 3
 * seeds. Right and wrong answers are drawn by a hash: mostly by how hard the question is, a little by the run. */
#include "base/file.h"
#include "reports/store.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const statements[] = {
    "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -400000; PRAGMA foreign_keys = OFF; BEGIN",
    "CREATE TEMP TABLE n (i INTEGER PRIMARY KEY);"
    "WITH RECURSIVE c(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM c WHERE i < 9999) INSERT INTO n SELECT i FROM c",
    "CREATE TEMP TABLE task (t INTEGER PRIMARY KEY, name TEXT); INSERT INTO task VALUES (0, 'arc_easy'), (1, 'arc_challenge'), (2, 'openbookqa')",
    "INSERT INTO environments VALUES (1, 'e', '{\"version\":\"perf\"}'); INSERT INTO bases VALUES ('b', 'smollm2-135m', 'Q4_1 gguf', 134515008)",
    /* variant v = i % 7, seed = i / 7 + 1: the first 21 are the sweep's */
    "CREATE TEMP TABLE variant (v INTEGER PRIMARY KEY, name TEXT, method TEXT, trained INTEGER);"
    "INSERT INTO variant VALUES (0, 'lora r16', 'lora', 4884480), (1, 'lora matched', 'lora', 26254080), (2, 'dora matched', 'dora', 26409600),"
    " (3, 'mixlora top-2', 'mixlora', 26311680), (4, 'mixlora switch', 'mixlora', 26311680), (5, 'mixlora top-p', 'mixlora', 26311680),"
    " (6, 'mixdora', 'mixdora', 27233280)",
    "INSERT INTO runs (run_id, uuid, name, kind, method, state, recipe_hash, recipe, seed, base_hash, tasks_hash, data_hash, environment_id,"
    " trained, trained_router, flops, steps, step, limited, folder, host, pid, began_ms, heartbeat_ms, ended_ms)"
    " SELECT i + 1, printf('%032x', i + 1), v.name, 'train', v.method, 'finished', 'r' || v.v, 'seed: ' || (i / 7 + 1) || char(10), i / 7 + 1, 'b', 't', 'd', 1,"
    " v.trained, 0, 6 * v.trained, 100, 100, 0, 'runs/' || (i + 1), 'h', 1, 1700000000000 + i * 1000000, 1700000000000 + i * 1000000,"
    " 1700000500000 + i * 1000000 FROM n JOIN variant v ON v.v = n.i % 7 WHERE i < 1000",
    "INSERT INTO words SELECT run_id, 'adapter.method', method FROM runs",
    "INSERT INTO sweeps VALUES (1, 'methods', 'configs/sweeps/methods.yaml', '', '', 'lora matched', 'loglikelihood', 'acc_norm', 1700000000000)",
    "INSERT INTO members SELECT 1, run_id, name, seed, recipe_hash, base_hash, tasks_hash, data_hash, method, trained, trained_router, flops, ''"
    " FROM runs WHERE run_id <= 21",
    "INSERT INTO metrics SELECT r.run_id, s.i + 1, m.column1, 1.0 / (s.i + 1) FROM runs r JOIN (VALUES ('balance'), ('grad_norm'), ('learning_rate'),"
    " ('loss'), ('nll'), ('tokens'), ('tokens_per_second'), ('z')) m JOIN n s ON s.i < 100",
    /* before training without items, after training with */
    "INSERT INTO evaluations SELECT (r.run_id - 1) * 6 + k.i + 1, r.run_id, t.name, 'validation', 'loglikelihood', (k.i / 3) * 1.0, (k.i / 3) * 100, 1667, 0, 0,"
    " 'th' || t.t, 'dh' || t.t FROM runs r JOIN n k ON k.i < 6 JOIN task t ON t.t = k.i % 3",
    "INSERT INTO predictions SELECT e.evaluation_id, q.i, 'q' || q.i, q.i % 4, '[-1.25,-2.5,-3.75,-5]' FROM evaluations e JOIN n q ON q.i < 1667 WHERE e.step = 100",
    "INSERT INTO outcomes SELECT e.evaluation_id, m.column1, q.i, 0, ((q.i * 7919 + m.column2) * 104729 % 1000) * 8 + ((q.i * 31 + e.run_id * 17) * 15485863 % 1000) * 2"
    " < 4500 + e.run_id % 7 * 100 FROM evaluations e JOIN (VALUES ('acc', 1), ('acc_norm', 2)) m JOIN n q ON q.i < 1667 WHERE e.step = 100",
    "INSERT INTO scores SELECT e.evaluation_id, m.column1, CASE WHEN e.step = 0 THEN 0.4 ELSE (SELECT AVG(correct) FROM outcomes o"
    " WHERE o.evaluation_id = e.evaluation_id AND o.metric = m.column1) END, 0.012, 0.277 FROM evaluations e JOIN (VALUES ('acc'), ('acc_norm')) m",
    /* 13 windows of training with all tasks, and one of each evaluation after it: 10,080 loads a run */
    "INSERT INTO router_windows SELECT (r.run_id - 1) * 16 + w.i + 1, r.run_id, CASE WHEN w.i < 13 THEN 'train' ELSE 'validation' END,"
    " CASE WHEN w.i < 13 THEN w.i * 8 + 1 ELSE 100 END, CASE WHEN w.i < 13 THEN MIN(w.i * 8 + 8, 100) ELSE 100 END,"
    " CASE WHEN w.i < 13 THEN NULL ELSE (r.run_id - 1) * 6 + w.i - 13 + 4 END FROM runs r JOIN n w ON w.i < 16",
    "INSERT INTO router_tokens SELECT w.window_id, t.name, l.i, 4096, 8000.0 FROM router_windows w"
    " JOIN (SELECT * FROM task ORDER BY name) t ON w.split = 'train' OR t.t = (w.evaluation_id - 1) % 3 JOIN n l ON l.i < 30",
    "INSERT INTO router_loads SELECT w.window_id, t.name, l.i, x.i, 512 + (w.window_id * 13 + l.i * 7 + x.i * 101) % 512, 0, 600.0 FROM router_windows w"
    " JOIN (SELECT * FROM task ORDER BY name) t ON w.split = 'train' OR t.t = (w.evaluation_id - 1) % 3 JOIN n l ON l.i < 30 JOIN n x ON x.i < 8",
    "INSERT INTO router_pairs SELECT w.window_id, t.name, l.i, a.i, b.i, 100 FROM router_windows w JOIN task t ON t.t = (w.evaluation_id - 1) % 3"
    " JOIN n l ON l.i < 30 JOIN n a ON a.i < 7 JOIN n b ON b.i > a.i AND b.i < 8 WHERE w.split <> 'train'",
    "COMMIT; PRAGMA journal_mode = WAL",
};

static double now(void) {
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static mx_code generate(const char *path, mx_status *st) {
    double began = now();
    mx_store *s;
    sqlite3 *db;

    MX_TRY(mx_store_open(path, true, &s, st)); /* the program's own schema */
    mx_store_close(s);
    if (sqlite3_open(path, &db) != SQLITE_OK) {
        return mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s: %s", path, sqlite3_errmsg(db));
    }
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
        if (sqlite3_exec(db, statements[i], NULL, NULL, NULL) != SQLITE_OK) {
            mx_fail(st, MX_E_STORE, MX_NOWHERE, "%s: %s", statements[i], sqlite3_errmsg(db));
            sqlite3_close(db);
            return MX_E_STORE;
        }
    }
    sqlite3_close(db);
    printf("  generated in %.0f s\n", now() - began);
    return MX_OK;
}

static void print_size(const char *path) {
    static const char *const table[] = { "runs", "metrics", "predictions", "outcomes", "router_loads", "router_pairs" };
    sqlite3 *db;

    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK) {
        printf(" ");
        for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
            char sql[64];
            sqlite3_stmt *q = NULL;

            snprintf(sql, sizeof sql, "SELECT COUNT(*) FROM %s", table[i]);
            if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW) {
                printf(" %lld %s%s", (long long)sqlite3_column_int64(q, 0), table[i], i + 1 < sizeof table / sizeof table[0] ? "," : "\n");
            }
            sqlite3_finalize(q);
        }
    }
    sqlite3_close(db);
}

/* One start of the program, output thrown away: seconds, or -1 when it failed. */
static double run_once(const char *program, char *const *argument) {
    double began = now();
    int status;
    pid_t child;

    fflush(stdout);
    child = fork();

    if (child == 0) {
        if (!freopen("/dev/null", "w", stdout)) {
            _exit(127);
        }
        execv(program, argument);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        return -1;
    }
    return now() - began;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

enum { TIMES = 5, WORDS = 10 };

static bool time_verb(char *program, char *path, char *page, const char *line, const char *aim) {
    char flag[] = "--db", copy[256], *argument[WORDS + 4] = { program };
    double seconds[TIMES];
    int n = 1;

    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word && n < WORDS; word = strtok(NULL, " ")) {
        argument[n++] = word[0] == '@' ? page : word;
    }
    argument[n++] = flag;
    argument[n++] = path;
    argument[n] = NULL;
    for (int i = -1; i < TIMES; i++) {
        double t = run_once(program, argument);

        if (t < 0) {
            printf("  mixrun %s failed\n", line);
            return false;
        }
        seconds[i < 0 ? 0 : i] = t;
    }
    qsort(seconds, TIMES, sizeof *seconds, by_value);
    printf("  mixrun %-44s %8.1f ms  (aim: under %s)\n", line, 1e3 * seconds[TIMES / 2], aim);
    return true;
}

int main(int argc, char **argv) {
    static const char *const verb[][2] = {
        { "ls", "50 ms" }, { "ls --json --method mixlora", "50 ms" }, { "show 500", "1 s" }, { "compare 2,9,16 4,11,18", "1 s" },
        { "compare --sweep methods", "1 s" }, { "query router-load --run 500", "1 s" }, { "query scores --run 500", "1 s" },
        { "report --sweep methods -o @", "5 s" },
    };
    const char *parent = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    char folder[512], path[600], page[600];
    bool kept = argc > 2, fine = true;
    mx_status st = { 0 };
    mx_code code = MX_OK;

    if (argc < 2) {
        fprintf(stderr, "usage: %s PROGRAM [FOLDER]\n", argv[0]);
        return 2;
    }
    snprintf(folder, sizeof folder, "%s%s", kept ? argv[2] : parent, kept ? "" : "/mixrun-perf-XXXXXX");
    if (!kept && !mkdtemp(folder)) {
        perror(folder);
        return 1;
    }
    snprintf(path, sizeof path, "%s/years.db", folder);
    snprintf(page, sizeof page, "%s/report.html", folder);
    if (kept) {
        code = mx_folder_make(folder, &st);
    }
    if (code == MX_OK && !mx_file_exists(path)) {
        code = generate(path, &st);
    }
    if (code) {
        fprintf(stderr, "%s\n", st.text);
        fine = false;
    } else {
        print_size(path);
    }
    for (size_t i = 0; code == MX_OK && i < sizeof verb / sizeof verb[0]; i++) {
        fine &= time_verb(argv[1], path, page, verb[i][0], verb[i][1]);
    }
    if (!kept && mx_folder_remove(folder, &st)) {
        fprintf(stderr, "%s\n", st.text);
        fine = false;
    }
    return fine ? 0 : 1;
}
