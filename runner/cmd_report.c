/* cmd_report.c - mixrun report: one file that says what came of it, and why one should believe it. */
#include "base/file.h"
#include "reports/report.h"
#include "runner/command.h"
#include "runner/verbs.h"

#include <stdlib.h>
#include <string.h>

static const mx_flag flags[] = {
    { "sweep", 0, "NAME", "the sweep to report on, instead of runs" },
    { "baseline", 0, "V", "compare with this variant, or with this one of the runs named" },
    { "output", 'o', "FILE", "write it here; default: to standard output" },
    { "format", 0, "FORMAT", "html (default), markdown, csv or latex" },
    { "table", 0, "ID", "only this table, bare: accuracy, differences, budgets, ..." },
    { "title", 0, "TEXT", "the report's title" },
    { "db", 0, "FILE", "the database; default mixrun.db" },
    { 0 },
};

static mx_code format_of(const char *word, mx_format *ret, mx_status *st) {
    static const char *const names[] = { "html", "markdown", "csv", "latex" };
    static const mx_format formats[] = { MX_FORMAT_HTML, MX_FORMAT_MARKDOWN, MX_FORMAT_CSV, MX_FORMAT_LATEX };
    const char *near;

    *ret = MX_FORMAT_HTML;
    for (int i = 0; word && i < 4; i++) {
        if (strcmp(word, names[i]) == 0) {
            *ret = formats[i];
            return MX_OK;
        }
    }
    if (!word) {
        return MX_OK;
    }
    near = mx_text_nearest(word, names, 4);
    mx_fail(st, MX_E_USAGE, MX_NOWHERE, "--format '%.100s' is none of: html, markdown, csv, latex", word);
    if (near) {
        mx_hint(st, "did you mean '%s'?", near);
    }
    return MX_E_USAGE;
}

/* SOURCE_DATE_EPOCH (reproducible-builds.org): seconds since 1970; -1 when it is not set. */
static mx_code date_of(int64_t *ret, mx_status *st) {
    const char *text = getenv("SOURCE_DATE_EPOCH");

    *ret = -1;
    if (!text || !*text) {
        return MX_OK;
    }
    if (!mx_text_to_int64(text, ret) || *ret < 0) {
        return mx_fail(st, MX_E_USAGE, MX_NOWHERE, "SOURCE_DATE_EPOCH is '%.60s', not seconds since 1970", text);
    }
    return MX_OK;
}

/* 'it'\''s' where a shell needs it. */
static const char *shell_word(mx_arena *arena, const char *word) {
    mx_text t;
    const char *kept;

    if (*word && strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./,:=+@") == strlen(word)) {
        return word;
    }
    mx_text_init(&t, (size_t)1 << 20);
    mx_text_print(&t, "'");
    for (; *word; word++) {
        mx_text_print(&t, *word == '\'' ? "'\\''" : "%c", *word);
    }
    mx_text_print(&t, "'");
    kept = mx_arena_copy(arena, t.data, t.length);
    mx_text_finish(&t);
    return kept;
}

/* What makes the same report again; the file's name is the reader's own affair. */
static const char *command_of(const mx_call *call) {
    static const char *const kept[] = { "sweep", "baseline", "title" };
    const char *text = "mixrun report";

    for (int i = 0; i < call->words; i++) {
        text = mx_arena_text(call->arena, "%s %s", text, shell_word(call->arena, call->word[i]));
    }
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        const char *value = mx_call_flag(call, kept[i]);

        text = value ? mx_arena_text(call->arena, "%s --%s %s", text, kept[i], shell_word(call->arena, value)) : text;
    }
    return mx_arena_text(call->arena, "%s -o report.html", text);
}

static mx_code write_out(const mx_text *text, const char *path, mx_status *st) {
    if (path) {
        MX_TRY(mx_file_write(path, text->data, text->length, st));
        fprintf(stderr, " wrote %s\n", path);
    } else if (fwrite(text->data, 1, text->length, stdout) != text->length) {
        return mx_fail(st, MX_E_IO, MX_NOWHERE, "writing to standard output failed");
    }
    return MX_OK;
}

static mx_code run(const mx_call *call, mx_status *st) {
    const char *db = mx_call_flag(call, "db") ? mx_call_flag(call, "db") : "mixrun.db";
    mx_report_wish wish = { .sweep = mx_call_flag(call, "sweep"), .baseline = mx_call_flag(call, "baseline"), .side = call->word, .sides = call->words,
                            .title = mx_call_flag(call, "title"), .table = mx_call_flag(call, "table"), .command = command_of(call) };
    mx_store *store;
    mx_text out;
    mx_code code;

    MX_TRY(format_of(mx_call_flag(call, "format"), &wish.format, st));
    MX_TRY(date_of(&wish.date_s, st));
    if (!wish.sweep == !wish.sides) {
        mx_fail(st, MX_E_USAGE, MX_NOWHERE, wish.sweep ? "a report is of a sweep or of runs, not of both" : "a report of what? usage: mixrun %s", call->command->usage);
        mx_hint(st, "mixrun ls lists the runs; mixrun query sweeps the sweeps");
        return MX_E_USAGE;
    }
    MX_TRY(mx_store_open(db, false, &store, st));
    mx_text_init(&out, (size_t)1 << 30);
    code = mx_report_write(store, &wish, call->arena, &out, st);
    mx_store_close(store);
    if (code == MX_OK) {
        code = write_out(&out, mx_call_flag(call, "output"), st);
    }
    mx_text_finish(&out);
    return code;
}

const mx_command mx_verb_report = {
    .name = "report",
    .usage = "report (RUN[,RUN...]... | --sweep NAME) [--baseline V] [-o FILE] [--format F] [--table ID] [--title T] [--db FILE]",
    .summary = "one HTML file: the answer, its numbers, curves, router, budgets, recipes",
    .help = "Writes a report on a sweep, or on runs (numbers, names, the first digits of their uuids; runs of one variant with\n"
            "different seeds are parted by commas: 3,4,5). Of several, the last is the baseline unless --baseline names another.\n"
            "The HTML file needs no network and no script, is read in the light, in the dark, on a phone and on paper, and shows\n"
            "under every table and drawing the runs and the SELECTs it was made from. Markdown has all but the drawings; CSV and\n"
            "LaTeX are the tables (CSV: each under a line with its name). --table writes one table alone.\n"
            "The same database gives the same bytes; the date is SOURCE_DATE_EPOCH's, else that of the newest run's end.\n"
            "\n"
            "  mixrun report --sweep methods -o report.html\n"
            "  mixrun report 3,4,5 6,7,8 --format markdown\n"
            "  mixrun report --sweep methods --format latex --table accuracy",
    .flag = flags, .least = 0, .most = -1, .run = run,
};
