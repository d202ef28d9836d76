/* cmd_query.c - mixrun query: questions to the database. */
#include "base/file.h"
#include "base/text.h"
#include "reports/query.h"
#include "runner/command.h"
#include "runner/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SQL_MAX = 1 << 20 };

static const mx_flag flags[] = {
    { "db", 0, "FILE", "the database; default mixrun.db" },
    { "run", 0, "RUN", "parameter run: a number, a name, or the first digits of a uuid" },
    { "sweep", 0, "NAME", "parameter sweep" },
    { "task", 0, "TASK", "parameter task; every other parameter is given in the same way: --split validation" },
    { "format", 0, "FORMAT", "table, csv, json, markdown or latex" },
    { "output", 'o', "FILE", "into a file, whole or not at all" },
    { "sql", 0, NULL, "print the query instead of running it" },
    { 0 },
};

/* ------------------------------------------------------------------------ which query */

/* A name is one word of letters, digits and dashes; a file has a slash or ends in .sql; "-" is standard input; the rest is SQL. */
static bool is_file(const char *word) {
    size_t n = strlen(word);

    return strcmp(word, "-") == 0 ||
           (!strpbrk(word, " \t\n(") && (strchr(word, '/') || (n > 4 && strcmp(word + n - 4, ".sql") == 0)));
}

static bool is_name(const char *word) {
    return *word && strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == strlen(word);
}

static mx_code find_query(const mx_call *call, mx_query *ret, mx_status *st) {
    const char *word = call->word[0];
    bool input = strcmp(word, "-") == 0;
    char *text;
    size_t size;

    if (!is_file(word)) {
        if (is_name(word)) {
            return mx_query_find(word, call->arena, ret, st);
        }
        if (word[strspn(word, "abcdefghijklmnopqrstuvwxyz_")] == '=' && !strchr(word, ' ')) {
            return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "parameters stand after the query: mixrun query NAME %s", word);
        }
        mx_query_of("the query", word, call->arena, ret);
        return MX_OK;
    }
    MX_TRY(mx_file_read(input ? "/dev/stdin" : word, SQL_MAX, &text, &size, st));
    mx_query_of(input ? "standard input" : word, mx_arena_copy(call->arena, text, size), call->arena, ret);
    free(text);
    return MX_OK;
}

/* --run 7, and every word name=value (an unknown flag --name VALUE is one: mx_command.loose). */
static mx_code given(const mx_call *call, mx_given *ret, int *ret_count, mx_status *st) {
    static const char *const flag[] = { "run", "sweep", "task" };
    int n = 0;

    for (size_t i = 0; i < sizeof flag / sizeof flag[0]; i++) {
        if (mx_call_flag(call, flag[i])) {
            ret[n++] = (mx_given){ flag[i], mx_call_flag(call, flag[i]) };
        }
    }
    for (int i = 1; i < call->words; i++) {
        const char *word = call->word[i], *equals = strchr(word, '=');

        if (!equals || equals == word) {
            mx_fail(st, MX_E_USAGE, MX_NOWHERE, "'%s' is no parameter: they are given as --name VALUE or name=VALUE", word);
            mx_hint(st, "SQL is one word of the command line: put it in quotes");
            return MX_E_USAGE;
        }
        ret[n++] = (mx_given){ mx_arena_copy(call->arena, word, (size_t)(equals - word)), equals + 1 };
    }
    *ret_count = n;
    return MX_OK;
}

/* ------------------------------------------------------------------------ where it goes */

static mx_code put(void *to, const char *bytes, size_t length, mx_status *st) {
    FILE *file = to;

    if (fwrite(bytes, 1, length, file) != length) {
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "writing the answer: %s", strerror(errno));
    }
    return MX_OK;
}

static mx_code run_into_file(mx_store *s, const mx_query *q, mx_query_wish *wish, const char *path, mx_arena *arena, mx_status *st) {
    const char *part = mx_arena_text(arena, "%s.tmp-%d", path, (int)getpid());
    FILE *file = fopen(part, "w");
    mx_code code;

    if (!file) {
        return mx_fail(st, MX_E_IO, (mx_mark){ .file = path }, "cannot write: %s", strerror(errno));
    }
    wish->to = file;
    code = mx_query_run(s, q, wish, arena, st);
    if (fclose(file) != 0 && code == MX_OK) {
        code = mx_fail(st, MX_E_IO, (mx_mark){ .file = path }, "cannot write: %s", strerror(errno));
    }
    if (code == MX_OK && rename(part, path) != 0) {
        code = mx_fail(st, MX_E_IO, (mx_mark){ .file = path }, "cannot put in place: %s", strerror(errno));
    }
    if (code) {
        unlink(part);
    }
    return code;
}

/* ------------------------------------------------------------------------ the list */

static void list(mx_format format, mx_arena *arena) {
    const mx_query *query;
    int count = mx_queries(arena, &query);
    mx_table t;
    mx_text out;

    mx_table_init(&t, 3);
    mx_table_cell(&t, "query");
    mx_table_cell(&t, "tells");
    mx_table_cell(&t, "parameters");
    for (int i = 0; i < count; i++) {
        mx_text words;

        mx_text_init(&words, 1 << 16);
        for (int p = 0; p < query[i].parameters; p++) {
            const mx_parameter *one = &query[i].parameter[p];

            mx_text_print(&words, "%s%s%s%s%s", p ? " " : "", one->name, one->preset ? "=" : "", one->preset ? one->preset : "",
                          one->needed ? "!" : "");
        }
        mx_table_cell(&t, "%s", query[i].name);
        mx_table_cell(&t, "%s", query[i].summary);
        mx_table_cell(&t, "%s", words.data);
        mx_text_finish(&words);
    }
    mx_text_init(&out, 1 << 20);
    mx_table_write(&t, format, &out);
    if (format == MX_FORMAT_TABLE) {
        mx_text_print(&out, "\n name=value is a default, name! must be given. mixrun query NAME --sql prints one, with what its parameters mean.\n");
    }
    fputs(out.data, stdout);
    mx_text_finish(&out);
    mx_table_finish(&t);
}

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db", *file = mx_call_flag(call, "output");
    mx_given *parameter = MX_TAKE(call->arena, mx_given, call->words + 3);
    mx_query_wish wish = { .given = parameter, .stop = &mx_stop, .put = put, .to = stdout };
    mx_query query;
    mx_store *store;
    mx_code code;

    MX_TRY(mx_format_find(mx_call_flag(call, "format"), &wish.format, st));
    if (call->words == 0) {
        list(wish.format, call->arena);
        return MX_OK;
    }
    MX_TRY(find_query(call, &query, st));
    if (mx_call_flag(call, "sql")) {
        fputs(query.sql, stdout);
        return MX_OK;
    }
    MX_TRY(given(call, parameter, &wish.givens, st));
    MX_TRY(mx_store_open(db, false, &store, st));
    code = file ? run_into_file(store, &query, &wish, file, call->arena, st) : mx_query_run(store, &query, &wish, call->arena, st);
    mx_store_close(store);
    return code;
}

const mx_command mx_verb_query = {
    .name = "query",
    .usage = "query [NAME | FILE.sql | \"SELECT ...\"] [--PARAMETER VALUE ...] [--format FORMAT] [-o FILE]",
    .summary = "ask the database: named queries, or SQL of your own",
    .help = "Without a word: the named queries, what they tell, and their parameters. A query of your own is a SELECT in quotes, a file that\n"
            "ends in .sql, or - for standard input; it can read and nothing else. :name in it is a parameter, given as --name VALUE or\n"
            "name=VALUE; run, a and b take runs (number, name, uuid), sweep a sweep. The tables are drawn in reports/README.md.\n\n"
            "  mixrun query router-load --run 7\n"
            "  mixrun query right-wrong --a 7 --b 12 --task arc_easy --format csv -o gained.csv\n"
            "  mixrun query \"SELECT layer, expert, SUM(tokens) FROM router_load WHERE run_id = :run GROUP BY 1, 2\" --run 7\n\n"
            "CSV and JSON are written row by row, every digit kept; the other formats are for people. Ctrl-C breaks a long query off.",
    .flag = flags, .least = 0, .most = -1, .loose = true, .asks_to_stop = true, .run = run,
};
